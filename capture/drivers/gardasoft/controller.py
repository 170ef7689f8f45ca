"""A strobe controller: what its channels were told, on a connection that is kept open and made anew."""

import threading
import time
from contextlib import ExitStack
from typing import Self

from capture.devices import DeviceError, DeviceLost, SettingRefused
from capture.drivers.gardasoft.codec import (
    ADJUSTED,
    ERRORS,
    NO_INTERNAL_TRIGGER,
    Setting,
    is_identity,
    is_quiet,
    read_error,
    read_setting,
    steady,
)
from capture.drivers.link import SerialLink
from capture.drivers.shared import KeepAlive
from capture.drivers.will import Will

_REPLY_S = 1.0
"""How long a reply may take."""

_IDLE_S = 3.0
"""A TCP connection that is idle for 10 s is closed by the controller."""


class Controller:
    """One open controller; safe for several threads.

    A connection that ends is made anew, once for each command: no command does harm twice. What the channels
    were told last is then told again, and the next `confirm` fails, as they may have been dark meanwhile.
    A program that hangs is bounded by `shared.UNATTENDED_S`; when it dies its `Will` makes channels dark.

    Parameters
    ----------
    link : SerialLink
        Where it is; entered and left with the controller.

    Raises
    ------
    capture.devices.DeviceLost
        From every method: no reply, or no connection.
    capture.devices.SettingRefused
        From what is asked: the controller does not allow it.
    capture.devices.DeviceError
        From what is asked: any other error that it replies with.
    """

    model: str

    def __init__(self, link: SerialLink) -> None:
        self.name = link.name
        self._link = link
        self._lock = threading.RLock()
        self._owners: dict[int, str] = {}
        self._told: dict[int, str] = {}
        self._will: Will | None = None
        self._asked_s = 0.0
        self._alive = KeepAlive(link.name, _IDLE_S / 3, self._keep_open)

    def claim(self, light: str, channel: int) -> None:
        """Give a channel to a light and make it dark; ValueError where another light has it."""
        with self._lock:
            if channel in self._owners:
                raise ValueError(f"light {light}: channel {channel} is that of light {self._owners[channel]}")
            self.tell(channel, steady(channel, 0))
            self._owners[channel] = light
            self._revoke()

    def release(self, channel: int) -> None:
        """Make a channel dark and forget it."""
        with self._lock:
            self._owners.pop(channel, None)
            try:
                self.tell(channel, steady(channel, 0))
            finally:
                self._told.pop(channel, None)

    def tell(self, channel: int, command: str) -> bool:
        """Let a channel burn, pulse or go dark; return, once acknowledged, whether nothing was adjusted."""
        with self._lock:
            self._alive.attend()
            if self._will is None and command != steady(channel, 0):
                dark = ";".join(steady(owned, 0) for owned in self._owners)
                self._will = Will(self._link.fileno(), [b"\r", dark.encode() + b"\r"])
            error = read_error(self._ask(command))
            if error not in (0, ADJUSTED):
                kind = SettingRefused if error == 1 else DeviceError
                reason = ERRORS.get(error, "see its manual")
                raise kind(self.name, f"refuses {command}: {reason} (error {error})")
            self._told[channel] = command
            return error == 0

    def setting(self, channel: int) -> Setting:
        """Return what a channel says that it is set to."""
        return read_setting(self._ask(f"ST{channel}"))

    def confirm(self) -> None:
        """Raise DeviceError, once, for what went wrong since the last time; takes one exchange."""
        with self._lock:
            self._alive.attend()
            self._alive.tell()
            # an error is cleared by being read
            report = self._ask("GR")
        if not is_quiet(report):
            raise DeviceError(
                self.name, f"reports {report!r}: see its manual, and the light's cable and rating"
            )

    def _ask(self, command: str) -> str:
        with self._lock:
            try:
                return self._exchange(command)
            except DeviceError:
                self._again()
                return self._exchange(command)

    def _exchange(self, command: str) -> str:
        self._link.discard()
        self._link.write(command.encode() + b"\r")
        reply = self._link.read_until(b">", _REPLY_S)
        if reply is None:
            raise DeviceLost(
                self.name, f"no answer within {_REPLY_S:g} s: has it power, are port and baud right?"
            )
        self._asked_s = time.monotonic()
        text = reply[:-1].decode("ascii", "replace").strip()
        return text.removeprefix(command).strip()

    def _again(self) -> None:
        """Connect anew, and tell the channels what they were told."""
        self._revoke()
        self._link.__exit__()
        self._link.__enter__()
        told = "the connection was lost and made anew: lights may have been dark"
        self._alive.note(DeviceError(self.name, told))
        for command in self._told.values():
            self._exchange(command)

    def _revoke(self) -> None:
        """Take back the will: the next light that burns makes another."""
        will, self._will = self._will, None
        if will is not None:
            will.revoke()

    def _keep_open(self, abandoned: str | None) -> None:
        with self._lock:
            if abandoned and self._told:
                for channel in tuple(self._told):
                    self._ask(steady(channel, 0))
                    del self._told[channel]
                raise DeviceError(self.name, abandoned)
            if time.monotonic() - self._asked_s >= _IDLE_S * 2 / 3:
                self._ask("VR")

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self._link)
            self.model = self._exchange("VR")
            if not is_identity(self.model):
                raise DeviceError(
                    self.name,
                    f"answers VR with {self.model!r}: is it a Gardasoft RT or PP, are port and baud right?",
                )
            self._exchange(NO_INTERNAL_TRIGGER)
            # what happened before is nobody's fault here
            self._exchange("GR")
            stack.pop_all()
        self._alive.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._alive.__exit__()
        self._revoke()
        self._link.__exit__()
