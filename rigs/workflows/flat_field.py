"""The flat field of a calibrated sensor under another lens or aperture, from a session."""

import re
from collections.abc import Mapping, Sequence
from typing import overload

import numpy as np

from calibration.lens import LensModel
from calibration.progress import Track, silent
from calibration.provenance import FitError
from calibration.radiometric import Radiance, RadiometricModel, fit_flat, fit_vignetting
from calibration.radiometric import merge as merge_frames
from calibration.radiometric.flat_views import Points
from calibration.radiometric.vignetting import Float
from capture.session import Session, Stack
from rigs.config import ConfigError
from rigs.workflows.encoding import doubted, doubts_of, refuse_encoded
from rigs.workflows.frames import check_lens, provenance_of, sensor_for, stack_of

_TURN = re.compile(r".*?(\d+(?:\.\d+)?) ?deg")


def calibrate_flat(
    session: Session,
    sensor: RadiometricModel,
    *,
    lens: LensModel | None = None,
    turns_deg: Mapping[str, float] | None = None,
    steady: bool = False,
    camera: str | None = None,
    track: Track = silent,
) -> RadiometricModel:
    """``sensor`` with the flat map of this session's lens.

    ``flat`` frames give map and smooth model (see ``fit_flat``). Without any, the other frames give the
    vignetting alone, one view a pose (see ``fit_vignetting``).

    Parameters
    ----------
    sensor : RadiometricModel
        Of the same camera and gain.
    lens : LensModel, optional
        Straightens the views before they are registered.
    turns_deg : mapping of pose to degrees, optional
        Turn of the flat target in each pose, clockwise as the picture shows it; pose names that end in
        ``90deg`` and the like tell it themselves.
    steady : bool
        The light of the views is the same.

    Raises
    ------
    FitError
        As the two fits say, or frames that are not linear or not of the sensor's kind.
    ConfigError
        A turn of a pose that the session does not have.
    """
    stack = stack_of(session, camera)
    name = stack.records[0].shot.camera
    refuse_encoded(session, name, sensor, "a flat field")
    flats = stack.select(kind="flat")
    chosen = flats if len(flats) else stack.select(kind=("object", "board", "chart", "sphere"))
    if not len(chosen):
        raise FitError(f"{session.path}: has no 'flat' frames and no other views to tell the vignetting by")
    model = sensor_for(session, chosen, sensor)
    if strange := sorted(set(turns_deg or {}) - set(chosen.poses)):
        raise ConfigError(
            f"turn of pose {strange[0]!r}: the session has {', '.join(dict.fromkeys(chosen.poses))}"
        )
    options = {
        "sensor_session": sensor.provenance.session,
        "method": "flat target" if len(flats) else "views",
    }
    provenance = provenance_of(session, **options)
    if len(flats):
        lights = set(flats.lights)
        poses = [
            pose if len(lights) == 1 else f"{pose} under {light}"
            for pose, light in zip(flats.poses, flats.lights, strict=True)
        ]
        turns = _turns(flats, turns_deg or {})
        told = {} if len(lights) > 1 else turns
        found = fit_flat(flats, flats.exposure_s, model, poses=poses, turns_deg=told).apply(model, provenance)
    else:
        views = _Views(chosen, model.replace(flat_map=None, vignetting=None, flat_sigma=0.0), track)
        if len(views) < 2:
            raise FitError(
                f"{session.path}: one view only: take the scene in several poses, moved in between, or "
                "`flat` frames of an even target"
            )
        check_lens(lens, model.shape[:2])
        fit = fit_vignetting(
            views,
            model.pixel_format,
            undistort=None if lens is None else _straight(lens),
            distort=None if lens is None else _bent(lens),
            steady=steady,
        )
        found = fit.apply(model, provenance)
    return doubted(found, doubts_of(session, name, linear="flat map"))


def parse_turn(text: str) -> tuple[str, float]:
    """``'POSE=DEGREES'``; ConfigError where it is not."""
    pose, _, angle = text.rpartition("=")
    try:
        turn = float(angle)
    except ValueError:
        turn = np.nan
    if not pose or not np.isfinite(turn):
        raise ConfigError(f"turn {text!r}: want POSE=DEGREES, such as panel-b=90")
    return pose, turn


def _turns(stack: Stack, told: Mapping[str, float]) -> dict[str, float]:
    """Turn of each pose: as told, else as its name says."""
    named = {pose: _TURN.fullmatch(pose) for pose in stack.poses}
    return {pose: float(match[1]) for pose, match in named.items() if match is not None} | dict(told)


class _Views(Sequence[Radiance]):
    """Merged radiance of each pose under the light that the most poses share, made when asked for."""

    def __init__(self, stack: Stack, model: RadiometricModel, track: Track) -> None:
        of_light = {
            light: tuple(dict.fromkeys(stack.select(light=light).poses))
            for light in dict.fromkeys(stack.lights)
        }
        light = max(of_light, key=lambda name: len(of_light[name]))
        self._groups = [stack.select(pose=pose, light=light) for pose in of_light[light]]
        self._model = model

    def __len__(self) -> int:
        return len(self._groups)

    @overload
    def __getitem__(self, index: int) -> Radiance: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Radiance]: ...

    def __getitem__(self, index: int | slice) -> Radiance | Sequence[Radiance]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        group = self._groups[index]
        return merge_frames(group, group.exposure_s, self._model)


def _straight(lens: LensModel) -> Points:
    """From pixels to where they would be without distortion."""

    def straight(points: Float) -> Float:
        rays = lens.unproject(points)
        return np.asarray(rays[:, :2] / rays[:, 2:] * [lens.fx, lens.fy] + [lens.cx, lens.cy])

    return straight


def _bent(lens: LensModel) -> Points:
    """The way back; NaN far outside the picture."""

    def bent(points: Float) -> Float:
        rays = np.column_stack([(points - [lens.cx, lens.cy]) / [lens.fx, lens.fy], np.ones(len(points))])
        return lens.project(rays)

    return bent
