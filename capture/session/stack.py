"""A session's frames as arrays, read when they are asked for."""

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from capture.session.disk import decode, read_file
from capture.session.records import FrameRecord, SessionError

_T = TypeVar("_T")


class Stack(Sequence[NDArray[np.generic]]):
    """Frames of one camera in the order of their shots, read lazily and never kept.

    ``stack[i]`` is the raw array of frame ``i``: ``(h, w)`` or ``(h, w, 3)`` in digital numbers, locked.
    ``stack[a:b]`` is a Stack. The hash of each file is checked when it is first read.

    Attributes
    ----------
    records : tuple of FrameRecord
        What the journal says of each frame.
    """

    def __init__(self, folder: Path, records: Iterable[FrameRecord], checked: set[str] | None = None) -> None:
        self.records = tuple(records)
        self._folder = folder
        self._checked: set[str] = set() if checked is None else checked

    def __len__(self) -> int:
        return len(self.records)

    @overload
    def __getitem__(self, index: int) -> NDArray[np.generic]: ...

    @overload
    def __getitem__(self, index: slice) -> "Stack": ...

    def __getitem__(self, index: int | slice) -> "NDArray[np.generic] | Stack":
        if isinstance(index, slice):
            return self._with(self.records[index])
        return self._read(self.records[index])

    def __repr__(self) -> str:
        return f"Stack({len(self)} frames of {self._folder})"

    @property
    def exposure_s(self) -> NDArray[np.float64]:
        """Reported exposure of each frame, ``(n,)``."""
        return np.array([record.exposure_s for record in self.records], dtype=np.float64)

    @property
    def gain_db(self) -> NDArray[np.float64]:
        """Reported gain of each frame, ``(n,)``."""
        return np.array([record.gain_db for record in self.records], dtype=np.float64)

    @property
    def lights(self) -> tuple[str, ...]:
        """Burning lights of each frame, joined by ``+``; empty when dark."""
        return tuple(record.shot.light for record in self.records)

    @property
    def poses(self) -> tuple[str, ...]:
        """What was in view, of each frame."""
        return tuple(record.shot.pose for record in self.records)

    @property
    def repeats(self) -> tuple[int, ...]:
        """Repeat number of each frame."""
        return tuple(record.shot.repeat for record in self.records)

    @property
    def pixel_format(self) -> str:
        """The pixel format all frames share; SessionError where they do not, or there are none."""
        formats = self._shared([record.pixel_format for record in self.records], "pixel format")
        return str(formats)

    @property
    def shape(self) -> tuple[int, ...]:
        """``(n, h, w)`` or ``(n, h, w, 3)``; SessionError where frames differ in size, or there are none."""
        shape = self._shared([record.shape for record in self.records], "size")
        assert isinstance(shape, tuple)
        return (len(self), *shape)

    def select(
        self,
        *,
        kind: str | tuple[str, ...] | None = None,
        pose: str | tuple[str, ...] | None = None,
        light: str | tuple[str, ...] | None = None,
        exposure_s: float | tuple[float, ...] | None = None,
        repeat: int | tuple[int, ...] | None = None,
    ) -> "Stack":
        """Return the frames that meet every condition given; a tuple lists the values allowed.

        Parameters
        ----------
        kind : str or tuple of str, optional
            Met by a shot that may serve for this purpose, whatever else it serves for.
        pose, light : str or tuple of str, optional
            As in `poses` and `lights`.
        exposure_s : float or tuple of float, optional
            The exposure that was REQUESTED, which a plan knows.
        repeat : int or tuple of int, optional
            Repeat number.
        """
        tests: list[Callable[[FrameRecord], bool]] = []
        if kind is not None:
            kinds = set(_tuple(kind))
            tests.append(lambda record: not kinds.isdisjoint(record.shot.kinds))
        if pose is not None:
            poses = _tuple(pose)
            tests.append(lambda record: record.shot.pose in poses)
        if light is not None:
            lights = _tuple(light)
            tests.append(lambda record: record.shot.light in lights)
        if exposure_s is not None:
            exposures = _tuple(exposure_s)
            tests.append(lambda record: any(math.isclose(record.shot.exposure_s, want) for want in exposures))
        if repeat is not None:
            repeats = _tuple(repeat)
            tests.append(lambda record: record.shot.repeat in repeats)
        return self._with(record for record in self.records if all(test(record) for test in tests))

    def _with(self, records: Iterable[FrameRecord]) -> "Stack":
        return Stack(self._folder, records, self._checked)

    def _shared(self, values: Sequence[object], what: str) -> object:
        if not values:
            raise SessionError(f"{self._folder}: no frame selected, so no {what}")
        other = next((i for i, value in enumerate(values) if value != values[0]), None)
        if other is not None:
            first, odd = self.records[0].file, self.records[other].file
            raise SessionError(
                f"{self._folder}: frames differ in {what}: {odd} has {values[other]}, {first} {values[0]}: "
                "select some, or take it again"
            )
        return values[0]

    def _read(self, record: FrameRecord) -> NDArray[np.generic]:
        path = self._folder / record.file
        try:
            data = read_file(path)
        except OSError as error:
            raise SessionError(f"{path} cannot be read: {error.strerror or error}") from None
        if record.file not in self._checked:
            if hashlib.sha256(data).hexdigest() != record.sha256:
                raise SessionError(f"{path} is damaged: its hash is not the journal's")
            self._checked.add(record.file)
        try:
            image = decode(data)
        except ValueError as error:
            raise SessionError(f"{path} is damaged: {error}") from None
        if image.shape != record.shape:
            raise SessionError(f"{path} is damaged: its shape is {image.shape}, want {record.shape}")
        return image


def _tuple(value: _T | tuple[_T, ...]) -> tuple[_T, ...]:
    return value if isinstance(value, tuple) else (value,)
