"""The state of all lights of a rig during one run."""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Self

from capture.devices import (
    DeviceError,
    DeviceLost,
    Light,
    SequencedLight,
    Sequencer,
    StrobedLight,
    WatchedLight,
)
from capture.plan import Shot
from capture.runner.control import signals_deferred


class Lighting:
    """Changes only the lights that must change, and leaves every light dark.

    Parameters
    ----------
    lights : mapping of str to Light
        The open lights.
    """

    def __init__(self, lights: Mapping[str, Light]) -> None:
        self._lights = lights
        # None: unknown, so that the light is set whatever is wanted of it
        self._levels: dict[str, float | None] = dict.fromkeys(lights)
        self._changed_s: float | None = None

    @property
    def settling_s(self) -> float | None:
        """How long ago a light was last told to change, s; None where none was yet."""
        return None if self._changed_s is None else round(time.monotonic() - self._changed_s, 6)

    def change(self, levels: Mapping[str, float]) -> None:
        """Burn the named lights at their levels and no others; those to go dark go first.

        Raises
        ------
        DeviceError
            A light did not follow; its state counts as unknown, and it is set again by the next call.
        """
        self._set({name: levels.get(name, 0.0) for name in self._lights})

    def _set(self, wanted: Mapping[str, float]) -> None:
        changes = [name for name, level in wanted.items() if self._levels[name] != level]
        for name in sorted(changes, key=lambda name: wanted[name] > 0):
            self._levels[name] = None
            self._changed_s = time.monotonic()
            self._lights[name].set(wanted[name])
            self._levels[name] = wanted[name]

    def prepare(self, shot: Shot) -> None:
        """Burn what ``shot`` wants, or arm its pulse; call before each exposure, as a pulse comes but once.

        Raises
        ------
        DeviceError
            As `change`; or a light that is to pulse cannot.
        """
        if shot.strobe is None:
            self.change(shot.lights)
            return
        pulsing = {}
        for name in shot.lights:
            light = self._lights[name]
            if not isinstance(light, StrobedLight):
                raise DeviceError(name, "cannot strobe: its driver has no strobe")
            pulsing[name] = light
        # what an armed light does next is the trigger's to say: its state is unknown, and not to be changed
        self._set({name: 0.0 for name in self._lights if name not in pulsing})
        for name, light in pulsing.items():
            self._levels[name] = None
            self._changed_s = time.monotonic()
            light.strobe(shot.lights[name], shot.strobe.delay_s, shot.strobe.duration_s)

    def confirm(self, names: Iterable[str]) -> None:
        """Raise DeviceError where one of these lights has gone dark since it was set, as far as it knows.

        The state of all lights counts as unknown then: what made one dark may have made others.
        """
        for name in names:
            light = self._lights[name]
            if isinstance(light, WatchedLight):
                try:
                    light.confirm()
                except DeviceError:
                    self.doubt(self._lights)
                    raise

    def arm(self, sequencer: Sequencer, steps: Sequence[tuple[Mapping[str, float], int]]) -> None:
        """Turn the lights of other controllers dark, and arm a sequence; DeviceError as `change`."""
        own = self._of(sequencer)
        self._set({name: 0.0 for name in self._lights if name not in own})
        self._levels |= dict.fromkeys(own)
        sequencer.arm(steps)

    def disarm(self, sequencer: Sequencer) -> int:
        """End a sequence; return how many exposures the controller has been told of since `arm`."""
        exposures = sequencer.stop()
        self._levels |= dict.fromkeys(self._of(sequencer), 0.0)
        return exposures

    def doubt(self, names: Iterable[str]) -> None:
        """Take the state of these lights for unknown: they are set again by the next call."""
        self._levels |= dict.fromkeys(names)

    def _of(self, sequencer: Sequencer) -> list[str]:
        return [
            name
            for name, light in self._lights.items()
            if isinstance(light, SequencedLight) and light.sequencer is sequencer
        ]

    def dark(self) -> None:
        """Turn every light dark that is not."""
        self.change({})

    def __enter__(self) -> Self:
        try:
            self.dark()
        except BaseException as error:
            self._leave(error)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        self._leave(error)

    def _leave(self, reason: BaseException | None) -> None:
        failures: dict[str, BaseException] = {}
        try:
            self._turn_dark(failures)
        finally:
            self._levels = dict.fromkeys(self._lights)
            if failures:
                raise _still_burning(failures, reason) from reason

    def _turn_dark(self, failures: dict[str, BaseException]) -> None:
        with signals_deferred():
            # those that may burn first, then the others, whose darkness is only what they reported
            for name in sorted(self._lights, key=lambda name: self._levels[name] == 0):
                for _ in range(2):
                    try:
                        self._lights[name].set(0.0)
                    except BaseException as error:
                        failures[name] = error
                    else:
                        failures.pop(name, None)
                        break


def _still_burning(failures: Mapping[str, BaseException], reason: BaseException | None) -> DeviceError:
    """What one line can say of lights that did not go dark, and of what had ended the run before."""
    names: dict[str, list[str]] = {}
    for name, error in failures.items():
        names.setdefault(_bare(error), []).append(name)
    told = "; ".join(
        text if len(names) == 1 else f"{_listed(members)}: {text}" for text, members in names.items()
    )
    if isinstance(reason, Exception):
        ended = _bare(reason)
        same = len(names) == 1 and ended.startswith(told)
        told = ended if same else f"{told}; the run had ended with: {reason}"
    lost = isinstance(reason, DeviceLost) or any(isinstance(error, DeviceLost) for error in failures.values())
    kind = DeviceLost if lost else DeviceError
    return kind(_listed(list(failures)), f"MAY STILL BURN, could not be turned dark: {told}")


def _bare(error: BaseException) -> str:
    """What an error says, without the name of its device."""
    text = str(error) or type(error).__name__
    return text.removeprefix(f"{error.device}: ") if isinstance(error, DeviceError) else text


def _listed(names: list[str]) -> str:
    return ", ".join(names if len(names) <= 4 else [*names[:3], f"and {len(names) - 3} more"])
