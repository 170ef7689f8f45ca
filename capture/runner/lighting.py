"""The state of all lights of a rig during one run."""

from collections.abc import Mapping
from typing import Self

from capture.devices import DeviceError, Light
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

    def change(self, levels: Mapping[str, float]) -> None:
        """Burn the named lights at their levels and no others; those to go dark go first.

        Raises
        ------
        DeviceError
            A light did not follow; its state counts as unknown, and it is set again by the next call.
        """
        wanted = {name: levels.get(name, 0.0) for name in self._lights}
        changes = [name for name, level in wanted.items() if self._levels[name] != level]
        for name in sorted(changes, key=lambda name: wanted[name] > 0):
            self._levels[name] = None
            self._lights[name].set(wanted[name])
            self._levels[name] = wanted[name]

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
                told = "; ".join(
                    f"{name}: {error or type(error).__name__}" for name, error in failures.items()
                )
                after = f"; the run had ended with: {reason}" if isinstance(reason, Exception) else ""
                raise DeviceError(
                    ", ".join(failures), f"MAY STILL BURN, could not be turned dark: {told}{after}"
                ) from reason

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
