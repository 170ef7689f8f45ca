"""The twin's lights as their controllers have them: what each is told and when, its pulses, its faults."""

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from capture.devices import DeviceError, SettingRefused
from capture.plan import Strobe
from rigs.simulated.emission import Drive
from rigs.simulated.truth import LightFault, Truth


class Order(NamedTuple):
    """What the lights are to do at a trigger: levels of those that burn, and of those that give a pulse."""

    levels: dict[str, float]
    pulsed: dict[str, float]
    strobe: Strobe | None


class Lamps:
    """Lights of a truth by name.

    ``settle_s`` is what each is waited for after an order. ``clock_s``, in the methods, is the twin's clock:
    the exposures so far; what was waited for lights is counted here, on top.
    """

    def __init__(self, truth: Truth, settle_s: Mapping[str, float]) -> None:
        self._truth = truth
        self._settle_s = settle_s
        self._levels: dict[str, float] = {}
        self._armed: dict[str, float] = {}
        self._strobe: Strobe | None = None
        self._told: dict[str, Drive] = {}
        self._dead: set[str] = set()
        self._lit: Counter[str] = Counter()
        self._waited_s = 0.0

    def burn(self, name: str, level: float, clock_s: float) -> None:
        """Burn at ``level``; DeviceError for a light that is unknown or noticed to be dead."""
        self._switch_off(name, level)
        if level > 0:
            self._light(name)
            self._levels[name] = level
        self._tell(name, 0.0 if name in self._dead else level, clock_s)
        self._waited_s += self._settle_s.get(name, 0.0)

    def arm(self, name: str, level: float, strobe: Strobe, clock_s: float) -> None:
        """Go dark and arm one pulse; raises as ``burn``. Lights armed together share the last one's times."""
        self._switch_off(name, level)
        self._tell(name, 0.0, clock_s)
        self._waited_s += self._settle_s.get(name, 0.0)
        self._light(name)
        self._armed[name] = level
        self._strobe = strobe

    def trigger(self) -> Order:
        """Take the pulses that are armed: a trigger spends them, whatever becomes of the frame."""
        armed, self._armed = self._armed, {}
        return Order(dict(self._levels), armed, self._strobe if armed else None)

    def drives(self, order: Order, clock_s: float) -> dict[str, Drive]:
        """What the lights that may shine are told, in time from a trigger now."""
        pulse: tuple[tuple[float, float], ...] = ()
        if order.strobe is not None:
            pulse = (order.strobe.delay_s, 1.0), (order.strobe.delay_s + order.strobe.duration_s, 0.0)
        for name, level in order.pulsed.items():
            for in_s, share in pulse:
                self._tell(name, 0.0 if name in self._dead else level * share, clock_s, in_s)
        now = clock_s + self._waited_s
        out = {
            name: Drive(told.before, tuple((at - now, level) for at, level in told.changes))
            for name, told in self._told.items()
        }
        for name, level in order.levels.items():
            if name not in self._dead:
                out.setdefault(name, Drive(level))
        for name, level in order.pulsed.items():
            if name not in self._dead:
                out.setdefault(name, Drive(0.0, tuple((at, level * share) for at, share in pulse)))
        return out

    def _switch_off(self, name: str, level: float) -> None:
        if name not in self._truth.lights:
            raise DeviceError(name, "the truth has no such light")
        if not 0 <= level <= 1:
            raise SettingRefused(name, f"level {level:g} is outside 0..1")
        self._levels.pop(name, None)
        self._armed.pop(name, None)
        self._dead.discard(name)

    def _light(self, name: str) -> None:
        """Count a lighting and let the faults have it."""
        number = self._lit[name]
        self._lit[name] += 1
        for fault in self._truth.faults:
            if not (isinstance(fault, LightFault) and fault.light == name and fault.holds(number)):
                continue
            if fault.noticed:
                raise DeviceError(name, "does not light")
            self._dead.add(name)

    def _tell(self, name: str, level: float, clock_s: float, in_s: float = 0.0) -> None:
        """Remember what a light that does not follow at once is told, ``in_s`` from now.

        A light that still has a pulse to give takes the next order after it.
        """
        light = self._truth.lights[name]
        if not (light.delay_s or light.rise_s or light.fall_s):
            return
        told = self._told.get(name, Drive(0.0))
        if told.changes:
            self._waited_s += max(told.changes[-1][0] - (clock_s + self._waited_s + in_s), 0.0)
        now = clock_s + self._waited_s
        self._told[name] = Drive(told.before, (*told.changes, (now + in_s, level))).since(light, now)
