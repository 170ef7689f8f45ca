"""Features of a camera by name: read, written, and read back."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from genicam import genapi, gentl

from capture.devices import DeviceError, DeviceLost, SettingRefused
from capture.drivers.genicam.config import Value

FAULTS = (genapi.GenericException, gentl.GenericException)
"""Two libraries, two families of exceptions: whatever either has to say."""

COMMAND_S = 5.0
"""How long a command may take until it counts as refused."""

_READABLE = (genapi.EAccessMode.RO, genapi.EAccessMode.RW)
_SETTABLE = (genapi.IFloat, genapi.IInteger, genapi.IBoolean, genapi.IEnumeration, genapi.IString)
_WRITABLE = (genapi.EAccessMode.WO, genapi.EAccessMode.RW)


def told(error: BaseException) -> str:
    """What an exception of the libraries says, without its own formalities; never empty."""
    text = " ".join(str(error).split()).removeprefix("GenTL exception: ")
    text, _, rest = text.partition(" (Message from the source: ")
    source = rest.rpartition(") (ID: ")[0].strip()
    text = text.partition(" : ")[0].strip()
    return f"{text} {source}".strip() or type(error).__name__


class Nodes:
    """The nodes of one open camera.

    Parameters
    ----------
    device : str
        Name of the camera in the rig file.
    node_map : genicam.genapi.NodeMap
        Of the camera.
    gone : callable
        Tells whether the camera is out of reach, which makes a failure a `DeviceLost`.
    """

    def __init__(self, device: str, node_map: Any, gone: Callable[[], bool]) -> None:
        self.device = device
        self._map = node_map
        self._gone = gone

    @contextmanager
    def faults(self, kind: type[DeviceError], doing: str) -> Iterator[None]:
        """Turn what the libraries raise into ``kind``, or into DeviceLost where the camera is gone."""
        try:
            yield
        except FAULTS as error:
            if self._gone():
                raise DeviceLost(self.device, f"is gone ({doing}): look at its cable and power") from error
            raise kind(self.device, f"{doing}: {told(error)}") from error

    def node(self, name: str) -> Any:
        """Return the node; None where the camera has none, or does not have it now."""
        with suppress(*FAULTS, AttributeError):
            if self._map.has_node(name):
                node = self._map.get_node(name)
                if node.get_access_mode() not in (genapi.EAccessMode.NI, genapi.EAccessMode.NA):
                    return node
        return None

    def names(self) -> list[str]:
        """Names of all nodes that the camera's description has."""
        with suppress(*FAULTS, AttributeError):
            return [name.rpartition("::")[2] for name in (node.node.name for node in self._map.nodes)]
        return []

    def first(self, *names: str) -> str | None:
        """Return the first of ``names`` that can be read now."""
        return next((name for name in names if self.readable(name)), None)

    def readable(self, name: str) -> bool:
        """Whether the node is there and has a value now."""
        node = self.node(name)
        return node is not None and node.get_access_mode() in _READABLE

    def writable(self, name: str) -> bool:
        """Whether the node is there and takes a value now."""
        node = self.node(name)
        return node is not None and node.get_access_mode() in _WRITABLE

    def read(self, name: str) -> Value:
        """Value of a node; SettingRefused where it has none."""
        node = self.node(name)
        if node is None:
            raise SettingRefused(self.device, f"has no node {name}")
        with self.faults(SettingRefused, f"{name} cannot be read"):
            return _value(node)

    def number(self, name: str) -> float:
        """Value of a node as a number."""
        return float(self.read(name) or 0)

    def optional(self, *names: str) -> float | None:
        """Value of the first of ``names`` that gives a number; None where none does, for whatever reason."""
        for name in names:
            with suppress(DeviceError, *FAULTS, TypeError, ValueError):
                if self.readable(name):
                    return float(self.read(name) or 0)
        return None

    def unit(self, name: str) -> str:
        """Return the unit that the node's description gives, in lower case; empty without."""
        with suppress(*FAULTS, AttributeError):
            return str(self.node(name).unit).strip().lower()
        return ""

    def choices(self, name: str) -> list[str]:
        """What an enumeration can be set to now; empty where it is none."""
        node = self.node(name)
        if not isinstance(node, genapi.IEnumeration):
            return []
        out = []
        for entry in node.entries:
            with suppress(*FAULTS, AttributeError):
                if entry.get_access_mode() not in (genapi.EAccessMode.NI, genapi.EAccessMode.NA):
                    out.append(str(entry.symbolic))
        return out

    def write(self, name: str, value: Value, *, exact: bool = True) -> None:
        """Set a node and read it back.

        A node that cannot be written but is as wanted is fine. Without ``exact`` another value may be taken.

        Raises
        ------
        SettingRefused
            No such node, not writable, out of range, or another value afterwards.
        DeviceLost
            The camera is gone.
        """
        node = self.node(name)
        if node is None:
            raise SettingRefused(self.device, f"has no node {name}")
        if isinstance(node, genapi.ICommand):
            self._execute(name, node)
            return
        if not isinstance(node, _SETTABLE):
            raise SettingRefused(self.device, f"{name} is no number, choice, switch or text")
        value = _as_kind(node, value)
        with self.faults(SettingRefused, f"{name} cannot be read"):
            if not self.writable(name):
                now = _value(node) if self.readable(name) else "unknown"
                if not _same(node, now, value):
                    raise SettingRefused(
                        self.device, f"{name} cannot be set to {_shown(value)} now: it is {_shown(now)}"
                    )
                return
            try:
                _set(node, value)
            except (*FAULTS, TypeError, ValueError, OverflowError) as error:
                if self._gone():
                    raise
                raise SettingRefused(
                    self.device,
                    f"does not take {name} = {_shown(value)}: {self._range(name, node) or told(error)}",
                ) from error
            if exact and self.readable(name) and not _same(node, now := _value(node), value):
                raise SettingRefused(
                    self.device, f"{name} is {_shown(now)} after it was set to {_shown(value)}"
                )

    def has(self, name: str, value: Value) -> bool:
        """Whether the node's value is ``value``; True of what has no value to read."""
        node = self.node(name)
        if node is None or isinstance(node, genapi.ICommand) or not self.readable(name):
            return True
        return _same(node, self.read(name), _as_kind(node, value))

    def nearest(self, name: str, value: float) -> float:
        """Return the value nearest to ``value`` that an integer node takes; ``value`` for others.

        What lies outside the range by more than a step comes back as it is, to be refused.
        """
        node = self.node(name)
        if not isinstance(node, genapi.IInteger):
            return value
        with self.faults(SettingRefused, f"{name} cannot be read"):
            low, high, step = int(node.min), int(node.max), max(int(node.inc), 1)
        near = low + round((value - low) / step) * step
        return near if low <= near <= high else value

    def is_command(self, name: str) -> bool:
        """Whether the node is one that is executed."""
        return isinstance(self.node(name), genapi.ICommand)

    def is_switch(self, name: str) -> bool:
        """Whether the node is true or false."""
        return isinstance(self.node(name), genapi.IBoolean)

    def is_whole(self, name: str) -> bool:
        """Whether the node is an integer."""
        return isinstance(self.node(name), genapi.IInteger)

    def span(self, name: str) -> tuple[float, float] | None:
        """Least and greatest value of a number now; None where the node does not tell."""
        with suppress(*FAULTS, AttributeError):
            node = self.node(name)
            return float(node.min), float(node.max)
        return None

    def execute(self, name: str) -> None:
        """Execute a command, not waiting until it is done."""
        node = self.node(name)
        if node is None:
            raise SettingRefused(self.device, f"has no node {name}")
        with self.faults(DeviceError, f"{name} fails"):
            node.execute()

    def alive(self) -> bool:
        """Whether a register of the camera can be read, past every cache."""
        for name in ("Width", "PayloadSize"):
            node = self.node(name)
            if node is not None:
                try:
                    node.get_value(False, True)
                except FAULTS:
                    return False
                return True
        return True

    def _execute(self, name: str, node: Any) -> None:
        until = time.monotonic() + COMMAND_S
        self.execute(name)
        with self.faults(SettingRefused, f"{name} fails"):
            while not node.is_done():
                if time.monotonic() > until:
                    raise SettingRefused(self.device, f"{name} is not done after {COMMAND_S:g} s")
                time.sleep(0.002)

    def _range(self, name: str, node: Any) -> str:
        with suppress(*FAULTS, AttributeError):
            if isinstance(node, genapi.IEnumeration):
                return f"it takes {', '.join(self.choices(name)) or 'nothing'}"
            if isinstance(node, genapi.IInteger):
                return f"it takes {node.min} to {node.max} in steps of {node.inc}"
            if isinstance(node, genapi.IFloat):
                return f"it takes {node.min:.9g} to {node.max:.9g} {node.unit}".rstrip()
        return ""


def _value(node: Any) -> Value:
    # past the cache, which after writing holds what was written
    value = node.get_value(False, True)
    return value if isinstance(value, bool | int | float | str) else str(value)


def _shown(value: Value) -> str:
    return f"{value:.9g}" if isinstance(value, float) else str(value)


def _as_kind(node: Any, value: Value) -> Value:
    """``value`` as the node's kind has it: YAML reads On and Off as true and false, and 5 as an integer."""
    if isinstance(node, genapi.IEnumeration) and isinstance(value, bool):
        return "On" if value else "Off"
    if isinstance(node, genapi.IBoolean) and isinstance(value, int):
        return bool(value)
    if isinstance(node, genapi.IString) and not isinstance(value, str):
        return str(value)
    if isinstance(node, genapi.IInteger) and isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(node, genapi.IFloat) and isinstance(value, int):
        return float(value)
    return value


def _set(node: Any, value: Value) -> None:
    if isinstance(node, genapi.IEnumeration) and isinstance(value, int):
        node.set_int_value(value)
    else:
        node.value = value


def _same(node: Any, now: Value, wanted: Value) -> bool:
    if isinstance(node, genapi.IEnumeration) and isinstance(wanted, int):
        return int(node.get_int_value()) == wanted
    if isinstance(node, genapi.IFloat) and isinstance(now, float) and isinstance(wanted, float):
        return abs(now - wanted) <= max(0.005 * abs(wanted), 1e-9)
    return now == wanted
