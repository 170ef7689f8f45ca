"""A dome's controller: what burns there, what it tells by itself, and that it is told this program lives."""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import NoReturn, Self

from capture.devices import DeviceError, DeviceLost, NotReady, SettingRefused
from capture.drivers.dome.codec import (
    BOOTS,
    ERRORS,
    PROTOCOL,
    UNSAFE,
    Event,
    Identity,
    Reply,
    Status,
    read_degrees,
    read_identity,
    read_status,
    told_of_trip,
)
from capture.drivers.dome.exchange import REPLY_S, REQUEST_S, Exchange, Rebooted
from capture.drivers.link import SerialLink
from capture.drivers.shared import KeepAlive, tell_burning

RESET_S = 0.02
"""How long after the opening a controller may be reset by it."""

BOOT_S = 2.5
"""How long a controller that is reset by being opened may take to boot."""

WATCHDOG_S = 2.0
"""The controller goes dark when it has heard nothing for this long while anything burns."""

FRESH_S = 0.001
"""For how long a reply tells that the controller does what it was told, to who has not asked yet."""


class Controller:
    """One open controller. Opening makes it dark, closing makes it dark.

    While anything burns, a thread asks for the status several times in `WATCHDOG_S`: an exposure may be as
    long as it likes, and yet the controller goes dark that soon after this process has died, however it died.
    A program that hangs is bounded by `shared.UNATTENDED_S`, and by the firmware's own longest time.

    A fault that made lights dark (trip, reset) fails the next call that lights or confirms, once, so that it
    becomes known. The lighting after that clears it, and sends the levels of the other channels anew.

    Parameters
    ----------
    link : SerialLink
        Where it is; entered and left with the controller.

    Raises
    ------
    capture.devices.DeviceLost
        From every method: no answer within `exchange.REQUEST_S`, or the link is gone.
    capture.devices.SettingRefused
        From what lights: beyond a limit of the controller.
    capture.devices.DeviceError
        From what lights: a trip, a reset, too hot.
    """

    identity: Identity

    def __init__(self, link: SerialLink) -> None:
        self.name = link.name
        self._port = link.port
        self._exchange = Exchange(link)
        self._lock = threading.RLock()
        # what should burn; where _dark, the controller is known to burn none of it
        self._levels: dict[int, int] = {}
        self._dark = False
        self._exposures: int | None = None
        self._firing: int | None = None
        # channels that the last status was not yet told to
        self._untold: set[int] = set()
        # what has happened, and the program does not know yet
        self._fault: str | None = None
        self._latched = False
        self._booted = False
        self._alive = KeepAlive(link.name, WATCHDOG_S / 8, self._keep_alive)

    # ---------------------------------------------------------------- what a program asks

    def light(self, channel: int, level: int) -> None:
        """Burn ``channel`` steadily at ``level`` of ``identity.max_level``; return once acknowledged.

        Ends a sequence, also with level 0.
        """
        with self._asked():
            if self._exposures is not None:
                self._off()
            if level == 0:
                self._darken(channel)
                return
            # a channel whose setting fails is not among those that should burn
            former = self._levels.pop(channel, 0)
            burnt = former > 0 and not self._dark
            self._may_light()
            self._levels[channel] = level
            try:
                self._do("SET", channel, level)
            except DeviceError as error:
                del self._levels[channel]
                if burnt and isinstance(error, SettingRefused):
                    self._levels[channel] = former
                raise

    def off(self) -> None:
        """Turn everything dark, whatever the controller is doing."""
        with self._asked():
            self._off()

    def fire(self, channel: int, level: int, settle_s: float, exposure_s: float) -> None:
        """Light, wait at least ``settle_s``, trigger for ``exposure_s``, go dark; return when that is done.

        Level 0 triggers with ``channel`` dark. Other channels burn on.
        """
        with self._asked():
            self._may_light()
            self._firing = -1
            times_us = round(settle_s * 1e6), round(exposure_s * 1e6)
            try:
                reply = self._exchange.ask("FIRE", channel, level, *times_us)
                self._firing = reply.sequence if reply.error == 0 else None
                if reply.error == 0:
                    self._levels.pop(channel, None)
            finally:
                # the end of a short exposure may have come with the reply, and is known by its number
                self._heed()
            if reply.error:
                self._refused("FIRE", reply)
        due_s = time.monotonic() + settle_s + exposure_s
        while self._firing is not None:
            with self._asked(REPLY_S):
                late_s = time.monotonic() - due_s
                # the event that tells of the end may have been damaged
                if self._firing is not None and late_s > REPLY_S and self.status().state != "F":
                    self._firing = None
                if self._firing is not None and late_s > REQUEST_S:
                    self._off()
                    raise DeviceError(self.name, f"{self._port}: does not end its exposure")
                self._tell()

    def arm(self, steps: Sequence[tuple[Mapping[int, int], int]]) -> None:
        """Store the levels of each step by channel, and for how many exposures it burns; light the first."""
        with self._asked():
            self._off()
            try:
                self._may_light()
                for number, (levels, count) in enumerate(steps):
                    pairs = tuple(value for pair in levels.items() for value in pair)
                    try:
                        self._do("SEQ", number, count, *pairs)
                    except ValueError:
                        told = f"{self._port}: {len(levels)} lights at once are too many for a sequence"
                        raise DeviceError(self.name, told) from None
                self._exposures = sum(count for _, count in steps)
                self._do("ARM", len(steps))
            except BaseException:
                with suppress(DeviceError):
                    self._off()
                raise

    def stop(self) -> int:
        """Go dark, disarm, and return how many exposures the camera has signalled since `arm`."""
        with self._asked():
            words = self._do("STOP")
            self._exposures = None
            self._tell()
            if len(words) != 1 or not words[0].isdecimal():
                raise self._strange("STOP", words)
            return int(words[0])

    def confirm(self, channel: int | None = None) -> None:
        """Raise DeviceError where lights have gone dark by themselves since they were set.

        While any should burn the controller is asked: one that was reset is silent until it has booted. With
        ``channel`` it is asked what burns, for the event that tells of a reset may be lost. Its answer within
        `FRESH_S` stands for the other channels, so that lights in a row cost one question, but not twice for
        the same: a frame may lie between.
        """
        with self._asked():
            fresh = time.monotonic() - self._exchange.heard_s <= FRESH_S
            told = fresh and (channel is None or channel in self._untold)
            if self._exchange.damaged or (self.burning and channel is not None and not told):
                self.status()
                self._untold = set(self._levels)
            elif self.burning and not told:
                self._do("HB")
            if channel is not None:
                self._untold.discard(channel)
            self._tell()

    def status(self) -> Status:
        """Ask the controller how it is."""
        with self._lock:
            words = self._do("STAT")
            status = read_status(words)
            if status is None:
                raise self._strange("STAT", words)
            self._exchange.damaged = False
            self._compare(status)
            return status

    # ---------------------------------------------------------------- what burns

    @contextmanager
    def _asked(self, wait_s: float = 0.0) -> Iterator[None]:
        """Be alone on the line during a call of the program, which shows that the program lives."""
        with self._lock:
            self._alive.attend()
            self._exchange.poll(wait_s)
            self._heed()
            try:
                yield
            except Rebooted:
                # what was under way may have reached it after its boot
                with suppress(DeviceError):
                    self._insist("OFF")
                self._tell()
                raise DeviceError(self.name, f"{self._port}: was reset while it was at work") from None

    @property
    def burning(self) -> bool:
        """Whether anything should burn, as far as is known: also where it could not be made dark."""
        steady = bool(self._levels) and not self._dark
        return steady or self._exposures is not None or self._firing is not None

    def _may_light(self) -> None:
        """Tell of what happened; what has been told is cleared, and what should burn burns again."""
        self._tell()
        if self._booted:
            self._do("WDT", round(WATCHDOG_S * 1000))
            self._booted = False
        if self._latched:
            self._do("CLR")
            self._latched = False
        if self._dark:
            for channel, level in self._levels.items():
                self._do("SET", channel, level)
            self._dark = False

    def _darken(self, channel: int) -> None:
        reply = self._insist("SET", channel, 0)
        # whatever has tripped is dark
        if reply.error not in (0, 5):
            self._refused("SET", reply)
        self._levels.pop(channel, None)

    def _off(self, within_s: float | None = None) -> None:
        reply = self._insist("OFF", within_s=within_s)
        if reply.error:
            self._refused("OFF", reply)
        self._levels.clear()
        self._dark = False
        self._exposures = self._firing = None

    def _tell(self) -> None:
        if self._fault is not None:
            fault, self._fault = self._fault, None
            raise DeviceError(self.name, f"{self._port}: {fault}")

    def _keep_alive(self, abandoned: str | None) -> None:
        with self._lock, suppress(DeviceError):
            if not self.burning:
                return
            if abandoned:
                self._insist("OFF")
                self._went_dark(abandoned)
            elif time.monotonic() - self._exchange.heard_s >= WATCHDOG_S / 8:
                self.status()

    # ---------------------------------------------------------------- what the controller tells by itself

    def _heed(self) -> None:
        while self._exchange.events:
            self._note(self._exchange.events.popleft())

    def _note(self, event: Event) -> None:
        word = event.words[0] if event.words else ""
        if event.name == "BOOT":
            self._booted, self._latched = True, False
            self._went_dark(f"was reset ({BOOTS.get(word, 'unknown cause')}): its lights went dark")
        elif event.name in ("WDT", "MAXON", "TEMP", "LOCK"):
            self._tripped(event.name, word, read_degrees(word))
        elif event.name == "DONE" and self._firing is not None and word == f"{self._firing:02X}":
            self._firing = None
        elif event.name == "END":
            self._exposures = None
        else:
            # of a later firmware: its status tells whether it matters
            self._exchange.damaged = True

    def _tripped(self, cause: str, channel: str = "", temperature_c: float | None = None) -> None:
        self._latched = True
        told = told_of_trip(cause, channel, temperature_c, WATCHDOG_S)
        self._went_dark(told, always=cause == "TEMP")

    def _went_dark(self, told: str, *, always: bool = False) -> None:
        if self.burning or always:
            self._fault = self._fault or told
        self._dark = True
        self._exposures = self._firing = None

    def _compare(self, status: Status) -> None:
        """Find the trip or the reset whose own event was damaged."""
        if status.state == "T":
            if not self._latched:
                self._tripped(status.cause.upper(), temperature_c=status.temperature_c)
        elif self._exposures is not None and status.state != "A":
            if status.exposures >= self._exposures:
                self._exposures = None
            else:
                self._unnoticed()
        elif self._levels and not self._dark and status.state in "IL" and status.lit < len(self._levels):
            self._unnoticed()

    def _unnoticed(self) -> None:
        self._booted = True
        self._went_dark("does not burn what it was told to: it was reset, and its lights went dark")

    # ---------------------------------------------------------------- requests

    def _ask(self, command: str, *arguments: int, within_s: float | None = None) -> Reply:
        self._untold.clear()
        try:
            return self._exchange.ask(command, *arguments, within_s=within_s)
        finally:
            self._heed()

    def _do(self, command: str, *arguments: int) -> tuple[str, ...]:
        reply = self._ask(command, *arguments)
        if reply.error:
            self._refused(command, reply)
        return reply.words

    def _insist(self, command: str, *arguments: int, within_s: float | None = None) -> Reply:
        """Ask for darkness, which does no harm twice: also of a controller that boots meanwhile."""
        try:
            return self._ask(command, *arguments, within_s=within_s)
        except Rebooted:
            return self._ask(command, *arguments, within_s=within_s)

    def _refused(self, command: str, reply: Reply) -> NoReturn:
        if reply.error == 5:
            if not self._latched:
                self.status()
            self._fault = self._fault or "has tripped, and its lights are dark"
            self._tell()
        text = " ".join(reply.words)
        reason = ERRORS.get(reply.error, f"error {reply.error}") + (f" ({text})" if text else "")
        if reply.error == 8:
            reason = UNSAFE.get(text, reason)
        kind = {3: SettingRefused, 8: NotReady, 9: SettingRefused}.get(reply.error, DeviceError)
        raise kind(self.name, f"{self._port}: refuses {command}: {reason}")

    def _strange(self, command: str, words: tuple[str, ...]) -> DeviceError:
        return DeviceError(
            self.name, f"{self._port}: answers {command} with {' '.join(words)!r}: is it a dome?"
        )

    # ---------------------------------------------------------------- opening and closing

    def __enter__(self) -> Self:
        with self._lock, ExitStack() as stack:
            stack.enter_context(self._exchange)
            self.identity = self._meet()
            self._off()
            self._do("WDT", round(WATCHDOG_S * 1000))
            self._booted = False
            self.status()
            stack.pop_all()
        self._alive.__enter__()
        return self

    def _meet(self) -> Identity:
        self._wake()
        words: tuple[str, ...] = ()
        for _ in range(3):
            try:
                words = self._ask("ID").words
            except Rebooted:
                continue
            identity = read_identity(words)
            if identity is None:
                continue
            if identity.protocol != PROTOCOL:
                raise DeviceError(
                    self.name,
                    f"{self._port}: {identity.name} speaks protocol {identity.protocol}, this driver "
                    f"{PROTOCOL}: flash the firmware that belongs to it",
                )
            return identity
        if not words:
            raise DeviceError(self.name, f"{self._port}: is reset over and over: is its supply too weak?")
        raise self._strange("ID", words)

    def _wake(self) -> None:
        """Wait until it answers or has told that it booted.

        Asked once, since one that has just been reset is not listening yet; then silence, for there are
        bootloaders that start no program while bytes come.
        """
        self._exchange.poll(RESET_S)
        with suppress(Rebooted):
            try:
                self._ask("ID", within_s=REPLY_S)
            except DeviceLost:
                self._exchange.revive()
                end_s = time.monotonic() + BOOT_S
                while not self._booted and time.monotonic() < end_s:
                    self._exchange.poll(REPLY_S)
                    self._heed()

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._alive.__exit__()
        try:
            with self._lock:
                self._exchange.revive()
                self._off(REQUEST_S / 2)
        except DeviceError as failure:
            tell_burning(self.name, failure, error, f", for {WATCHDOG_S:g} s")
        finally:
            self._exchange.__exit__()
