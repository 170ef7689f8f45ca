"""Which frame answers which shot."""

from collections.abc import Sequence
from itertools import combinations_with_replacement, pairwise
from statistics import median

from capture.devices import Camera, FrameLost, SettingRefused
from capture.frame import Frame
from capture.plan import Shot

GAIN_TOLERANCE_DB = 0.1
"""Difference of reported and requested gain that is taken for rounding: 1.2 % of signal."""

_MOST_UNCOUNTED = 2
"""Frames lost without a gap in the numbers that are looked for by time; with more, too much fits."""


class Watch:
    """Tells a camera's right frame from a stale, doubled or otherwise wrong one.

    Parameters
    ----------
    camera : Camera
        Open or not; its name and limits are used.
    exposure_tolerance : float
        Largest relative difference of reported and requested exposure.
    """

    def __init__(self, camera: Camera, exposure_tolerance: float) -> None:
        self.camera = camera
        self._tolerance = exposure_tolerance
        self._last_id: int | None = None
        self._settled = False
        self._former: Shot | None = None

    def unsettle(self) -> None:
        """Expect a gap: the camera may have counted frames that were given up."""
        self._settled = False

    def accept(self, frame: Frame, shot: Shot) -> None:
        """Raise FrameLost or SettingRefused unless ``frame`` is the answer to ``shot``."""
        name = self.camera.name
        last, settled, former = self._last_id, self._settled, self._former
        self._last_id, self._settled, self._former = frame.frame_id, True, shot
        if last is not None and frame.frame_id == last:
            raise FrameLost(name, f"frame {frame.frame_id} came twice")
        if last is not None and settled and frame.frame_id != last + 1:
            raise FrameLost(name, f"frame {frame.frame_id} came after frame {last}: one between was lost")
        self._accept_settings(frame, shot, former)

    def accept_sequence(
        self, frames: Sequence[Frame], shots: Sequence[Shot], signalled: int
    ) -> tuple[dict[int, Frame], dict[int, str]]:
        """Match the frames of a hardware-timed sequence to its shots.

        Parameters
        ----------
        frames : sequence of Frame
            What came, in order.
        shots : sequence of Shot
            What was asked, in order.
        signalled : int
            How many exposures the lights' controller has counted: it stepped with each.

        Returns
        -------
        answers : dict of int to Frame
            The frame of each shot that has one, by place in ``shots``.
        reasons : dict of int to str
            Why each of the others has none, the camera named.

        Raises
        ------
        FrameLost
            It cannot be told which frame was taken under which light.
        """
        name = self.camera.name
        self._settled = False
        if signalled > len(shots):
            raise FrameLost(
                name,
                f"its exposure signal told the lights of {signalled} exposures, asked for {len(shots)}: look "
                "for noise or bouncing on the line",
            )
        answers: dict[int, Frame] = {}
        reasons = dict.fromkeys(range(len(shots)), f"{name}: no frame came of its exposure")
        reasons |= dict.fromkeys(range(signalled, len(shots)), f"{name}: the lights were told of no exposure")
        for place, frame in zip(self._places(frames, shots, signalled), frames, strict=True):
            try:
                self._accept_settings(frame, shots[place], None)
            except (FrameLost, SettingRefused) as error:
                reasons[place] = str(error)
                continue
            answers[place] = frame
            del reasons[place]
        return answers, reasons

    def _places(self, frames: Sequence[Frame], shots: Sequence[Shot], signalled: int) -> tuple[int, ...]:
        """The exposure that each frame is of, counted from 0, by number, time and reported settings."""
        if not frames:
            return ()
        name = self.camera.name
        steps = [after.frame_id - before.frame_id for before, after in pairwise(frames)]
        if any(step <= 0 for step in steps):
            raise FrameLost(name, "numbers of frames run backwards or repeat within a sequence")
        counted = sum(steps) + 1
        uncounted = signalled - counted
        if uncounted < 0:
            raise FrameLost(
                name,
                f"took {counted} exposures, and its exposure signal told the lights of {signalled}: look at "
                "the line",
            )
        found = set()
        if uncounted <= _MOST_UNCOUNTED:
            for gaps in combinations_with_replacement(range(len(frames) + 1), uncounted):
                place, places = -1, []
                for number in range(len(frames)):
                    place += (steps[number - 1] if number else 1) + gaps.count(number)
                    places.append(place)
                found.add(tuple(places))
        if uncounted:
            found = {places for places in found if self._explains(places, frames, shots)}
        elif any(_too_close(frames, shots)):
            raise FrameLost(
                name, "sent frames of a sequence closer together than it can expose: one came twice"
            )
        if len(found) != 1:
            raise FrameLost(
                name,
                f"sent {len(frames)} frames of {signalled} exposures, and neither numbers nor times tell "
                "which: all are taken again",
            )
        return found.pop()

    def _explains(self, places: Sequence[int], frames: Sequence[Frame], shots: Sequence[Shot]) -> bool:
        """Whether reported settings and times allow these frames to be of these exposures."""
        if not all(self._answers(frame, shots[place]) for place, frame in zip(places, frames, strict=True)):
            return False
        between_s = [(after.timestamp_ns - before.timestamp_ns) * 1e-9 for before, after in pairwise(frames)]
        if not between_s or min(between_s) <= 0:
            return True
        exposing_s = [sum(shot.exposure_s for shot in shots[first:last]) for first, last in pairwise(places)]
        counts = [last - first for first, last in pairwise(places)]
        rest_s = median(
            (time - exposing) / count
            for time, exposing, count in zip(between_s, exposing_s, counts, strict=True)
        )
        shortest_s = min(shot.exposure_s for shot in shots) + max(rest_s, 0.0)
        return all(
            abs(time - exposing - count * rest_s) < 0.5 * shortest_s
            for time, exposing, count in zip(between_s, exposing_s, counts, strict=True)
        )

    def _accept_settings(self, frame: Frame, shot: Shot, former: Shot | None) -> None:
        name, limits = self.camera.name, self.camera.limits
        size = (limits.height, limits.width)
        if frame.pixel_format != limits.pixel_format or frame.dn.shape[:2] != size:
            height, width = frame.dn.shape[:2]
            raise SettingRefused(
                name,
                f"sent {frame.pixel_format} of {width} x {height}, "
                f"the rig file says {limits.pixel_format} of {limits.width} x {limits.height}",
            )
        if self._answers(frame, shot):
            return
        asked = f"asked for {shot.exposure_s:g} s and {shot.gain_db:g} dB"
        told = f"{asked}, reports {frame.exposure_s:g} s and {frame.gain_db:g} dB"
        if former is not None and self._answers(frame, former):
            raise FrameLost(name, f"{told}: the frame belongs to an earlier request")
        raise SettingRefused(name, told)

    def _answers(self, frame: Frame, shot: Shot) -> bool:
        off = abs(frame.exposure_s - shot.exposure_s)
        return off <= self._tolerance * shot.exposure_s and (
            abs(frame.gain_db - shot.gain_db) <= GAIN_TOLERANCE_DB
        )


def _too_close(frames: Sequence[Frame], shots: Sequence[Shot]) -> list[bool]:
    """Which pairs of frames in a row the camera cannot have exposed one after the other, by its clock.

    A clock by which most are so tells nothing: it is not the camera's.
    """
    shortest_s = 0.5 * min(shot.exposure_s for shot in shots)
    close = [
        (after.timestamp_ns - before.timestamp_ns) * 1e-9 < shortest_s for before, after in pairwise(frames)
    ]
    return close if sum(close) <= len(close) / 2 else []
