"""Requests and replies on a link to a dome: each request is done once, or reported as failed."""

import math
import secrets
import time
from collections import deque
from typing import Self

from capture.devices import DeviceError, DeviceLost
from capture.drivers.dome.codec import Decoder, Event, Noise, Reply, encode
from capture.drivers.link import SerialLink

REPLY_S = 0.05
"""How long a reply may take before the same bytes are sent again: ten times that of a request over USB."""

REQUEST_S = 1.0
"""After this long, and as many tries as it has room for, without a reply the controller counts as lost."""

PACE_S = 0.005
"""Least time between two tries, so that a line full of noise is not answered with more of it."""


class Rebooted(DeviceError):
    """The controller booted while a request was under way: nobody knows whether it was done."""


class Exchange:
    """One side of the conversation with a controller; not for two threads at a time.

    A request goes out with a number of its own. While no good reply with that number comes, the same bytes go
    out again: the controller does equal ones in a row but once, and repeats its reply. The next request has
    the next number, so that a reply that comes twice is not taken for that to the next.

    Parameters
    ----------
    link : SerialLink
        Entered and left with the exchange.

    Attributes
    ----------
    events : deque of Event
        What the controller has told by itself, for the owner to take out.
    damaged : bool
        Something unreadable has come: it may have been an event.
    heard_s : float
        When the last reply came, by the monotonic clock.
    lost : str or None
        Why the controller counts as lost; every request then fails at once.
    """

    def __init__(self, link: SerialLink) -> None:
        self.name = link.name
        self.events: deque[Event] = deque()
        self.damaged = False
        self.heard_s = 0.0
        self.lost: str | None = None
        self._link = link
        self._decoder = Decoder()
        self._inbox: deque[Reply | Event | Noise] = deque()
        self._sequence = secrets.randbelow(256)

    def ask(self, command: str, *arguments: int, within_s: float | None = None) -> Reply:
        """Return the reply to a request, good or bad.

        Raises
        ------
        DeviceLost
            No reply ``within_s`` (`REQUEST_S`), or the link is gone: it may have been done, or not.
        Rebooted
            The controller booted meanwhile.
        """
        if self.lost is not None:
            raise DeviceLost(self.name, self.lost)
        self._sequence = (self._sequence + 1) % 256
        request = encode(self._sequence, command, *arguments)
        within_s = within_s or REQUEST_S
        deadline = time.monotonic() + within_s
        # on a computer too busy for this program time alone says nothing of the controller
        tries, noise = math.ceil(within_s / REPLY_S), 0
        try:
            while (sent := time.monotonic()) < deadline or tries > 0:
                tries -= 1
                self._link.write(request)
                answer = self._answer(time.monotonic() + REPLY_S)
                if isinstance(answer, Reply):
                    self.heard_s = time.monotonic()
                    return answer
                if isinstance(answer, Noise):
                    noise += 1
                    time.sleep(max(0.0, sent + PACE_S - time.monotonic()))
        except DeviceLost as error:
            self._lose(error)
            raise
        told = "what comes is unreadable: is the cable good" if noise else "has it power, is the port right"
        self.lost = f"{self._link.port}: no answer within {within_s:g} s: {told}, is baud?"
        raise DeviceLost(self.name, self.lost)

    def poll(self, wait_s: float = 0.0) -> None:
        """Collect what has come unasked; with ``wait_s`` wait that long for it. DeviceLost as `ask`."""
        if self.lost is not None:
            raise DeviceLost(self.name, self.lost)
        try:
            # what came together with a reply has been read already
            data = self._link.read(0.0 if self._inbox else wait_s)
        except DeviceLost as error:
            self._lose(error)
            raise
        self._inbox.extend(self._decoder.feed(data))
        while self._inbox:
            message = self._inbox.popleft()
            if isinstance(message, Event):
                self.events.append(message)
            # a reply is the second one to an earlier request
            self.damaged = self.damaged or isinstance(message, Noise)

    def revive(self) -> None:
        """Let it be asked again though it counts as lost."""
        self.lost = None

    def _answer(self, until: float) -> Reply | Noise | None:
        """Return the reply to the last request; Noise where it may be damaged; None without one."""
        while (message := self._next(until)) is not None:
            if isinstance(message, Event):
                self.events.append(message)
                if message.name == "BOOT":
                    raise Rebooted(self.name, "was reset")
            elif isinstance(message, Noise):
                self.damaged = True
                return message
            elif message.sequence is None:
                return Noise(b"")
            elif message.sequence == self._sequence:
                return message
        return None

    def _next(self, until: float) -> Reply | Event | Noise | None:
        while not self._inbox:
            left = until - time.monotonic()
            data = self._link.read(max(0.0, left))
            if not data and left <= 0:
                return None
            self._inbox.extend(self._decoder.feed(data))
        return self._inbox.popleft()

    def _lose(self, error: DeviceLost) -> None:
        self.lost = str(error).removeprefix(f"{error.device}: ")

    def __enter__(self) -> Self:
        self._link.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._link.__exit__()
