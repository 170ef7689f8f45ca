"""Radiance and photo-electrons of poses, cameras and lights: pure functions of the truth, remembered."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from itertools import pairwise
from typing import Generic, NamedTuple, TypeVar

import cv2
import numpy as np

from calibration.geometry import Float, normalize
from calibration.lens import LensModel
from rigs.simulated import lighting, sensor
from rigs.simulated.aperture import Sight, sights
from rigs.simulated.emission import Drive, given
from rigs.simulated.lighting import Bits, Source
from rigs.simulated.scene import Stage, View, cast
from rigs.simulated.surfaces import Float32, Placement
from rigs.simulated.things import CapThing, PanelThing
from rigs.simulated.truth import BumpFault, NearTruth, PanelTruth, Truth

_IMAGES, _STEPS = 6, 8
_MEAN_COLOUR = 3


class Eye(NamedTuple):
    """One camera, prepared. ``channels``: the columns of colour that it sees, one or three."""

    lens: LensModel
    place: Placement
    rays: Float
    vignetting: Float32
    pattern: sensor.Pattern
    channels: tuple[int, ...]


_Value = TypeVar("_Value")


class _Recent(Generic[_Value]):
    """The last ``size`` results by key: all is pure, so a result may be thrown away at any time."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept: OrderedDict[Hashable, _Value] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], _Value]) -> _Value:
        if key not in self._kept:
            while len(self._kept) >= self._size:
                self._kept.popitem(last=False)
            self._kept[key] = make()
        self._kept.move_to_end(key)
        return self._kept[key]


class Renderer:
    """Renders a truth. ``knocks`` is the number of bumps the rig has had."""

    def __init__(self, truth: Truth) -> None:
        self.truth = truth
        self.knocks = 0
        self._eyes: dict[str, Eye] = {}
        self._views: _Recent[tuple[View, dict[Hashable, tuple[Bits, Bits]]]] = _Recent(len(truth.cameras))
        self._images: _Recent[Float32] = _Recent(_IMAGES)

    def eye(self, name: str) -> Eye:
        """Prepare a camera: its rays, vignetting and fixed pattern."""
        if name not in self.truth.cameras:
            raise ValueError(f"the truth has no camera {name!r}")
        if name not in self._eyes:
            truth = self.truth.cameras[name]
            lens = truth.lens
            shape = (lens.height, lens.width)
            rays = np.empty((*shape, 3))
            for row in range(0, shape[0], 64):
                v, u = np.mgrid[row : min(row + 64, shape[0]), : shape[1]]
                rays[row : row + 64] = lens.unproject(np.stack([u, v], axis=-1))
            seed = truth.seed
            if seed is None:
                seed = int(sensor.noise_key(self.truth.seed, name, "pattern")[0])
            self._eyes[name] = Eye(
                lens,
                Placement.of(truth.rotvec_deg, truth.translation_mm),
                rays,
                sensor.vignetting(truth.optics, rays, (lens.cx, lens.cy)),
                sensor.fixed_pattern(truth.sensor, shape, seed),
                (_MEAN_COLOUR,) if truth.sensor.colour == "mono" else (0, 1, 2),
            )
        return self._eyes[name]

    def place(self, camera: str) -> Placement:
        """Camera_from_rig; knocks move all there is in the camera's frame."""
        place = self.eye(camera).place
        bumps = sorted((f for f in self.truth.faults if isinstance(f, BumpFault)), key=lambda f: f.first)
        for bump in bumps[: self.knocks]:
            place = Placement.of(bump.rotvec_deg, bump.translation_mm) @ place
        return place

    def source(self, name: str, camera: str, at_s: float = 0.0) -> Source:
        """Near or distant light at full level in the camera's frame, e-/s, ``at_s`` into an exposure."""
        light, place = self.truth.lights[name], self.place(camera)
        scale = np.array(self.truth.cameras[camera].sensor.quantum_scale)
        colour = light.intensity * np.array(light.colour)
        if self.eye(camera).channels == (_MEAN_COLOUR,):
            colour, scale = np.array([colour.mean()]), scale[:1]
        if isinstance(light, PanelTruth):
            raise ValueError(f"light {name!r} is a panel: it has no place")
        if isinstance(light, NearTruth):
            position = place.points(np.array(light.position_mm) + at_s * np.array(light.velocity_mm_s))
            return Source(True, position, colour * scale, place.vectors(normalize(light.axis)), light.order)
        direction = place.vectors(normalize(light.direction))
        return Source(False, direction, colour * scale, np.zeros(3), 0.0)

    def view(self, pose: str, camera: str) -> View:
        """Surface points of a pose as a camera sees it."""
        return self._seen(pose, camera)[0]

    def shadow(self, pose: str, camera: str, name: str, at_s: float = 0.0) -> tuple[Bits, Bits]:
        """Bits of the cast shadows of a light on the dense and the extra samples of a view."""
        view, kept = self._seen(pose, camera)
        if (name, at_s) not in kept:
            kept[name, at_s] = _shadows(view, self.source(name, camera, at_s))
        return kept[name, at_s]

    def _seen(self, pose: str, camera: str) -> tuple[View, dict[Hashable, tuple[Bits, Bits]]]:
        if pose not in self.truth.poses:
            raise ValueError(f"the truth has no pose {pose!r}")

        def make() -> tuple[View, dict[Hashable, tuple[Bits, Bits]]]:
            stage = Stage(self.truth.poses[pose], self.place(camera))
            return cast(stage, self.eye(camera).rays), {}

        return self._views.get((pose, camera, self.knocks), make)

    def image(self, pose: str, camera: str, name: str | None, at_s: float = 0.0) -> Float32:
        """Blurred radiance (h, w, c), e-/s, under one full light, or (None) of the surroundings."""
        if pose not in self.truth.poses:
            raise ValueError(f"the truth has no pose {pose!r}")
        if name is not None and name not in self.truth.lights:
            raise ValueError(f"the truth has no light {name!r}")
        key = (pose, camera, name, at_s, self.knocks)
        return self._images.get(key, lambda: self._mixed(self._render(pose, camera, name, at_s), camera))

    def _mixed(self, planes: Float32, camera: str) -> Float32:
        """What the sensor's colours see of the scene's."""
        matrix = self.truth.cameras[camera].sensor.colour_matrix
        if matrix is None or planes.shape[2] == 1:
            return planes
        return np.asarray(planes @ np.array(matrix, np.float32).T)

    def _render(self, pose: str, camera: str, name: str | None, at_s: float) -> Float32:
        eye, truth = self.eye(camera), self.truth.cameras[camera]
        shape, sigma = (eye.lens.height, eye.lens.width), truth.optics.psf_sigma_px
        light = None if name is None else self.truth.lights[name]
        things = self.truth.poses[pose]
        planes = np.zeros((*shape, len(eye.channels)), np.float32)
        if any(isinstance(thing, CapThing) for thing in things):
            return planes
        scale = np.array(truth.sensor.quantum_scale)[: len(eye.channels)]
        if any(isinstance(thing, PanelThing) for thing in things):
            if isinstance(light, PanelTruth):
                colour = light.intensity * np.array(light.colour)
                planes[:] = scale * (colour.mean() if len(eye.channels) == 1 else colour)
            return planes
        if isinstance(light, PanelTruth):
            return planes
        if name is None and self.truth.ambient == 0:
            return planes
        spots: list[lighting.Highlight] = []
        if truth.optics.pupil_mm == 0:
            view = self.view(pose, camera)
            if name is None:
                self._add_surroundings(planes, view, eye, scale)
            else:
                source, shadows = self.source(name, camera, at_s), self.shadow(pose, camera, name, at_s)
                spots = _add_lit(planes, view, eye, eye.lens, source, shadows)
        else:
            # One picture a point of the pupil: exact for every surface, and where one hides another.
            points = sights(eye.lens, truth.optics)
            stage = Stage(things, self.place(camera))
            for sight in points:
                view = cast(stage.seen_from(sight.offset), sight.through(eye.rays))
                if name is None:
                    self._add_surroundings(planes, view, eye, scale)
                    continue
                source = self.source(name, camera, at_s)
                if source.near:
                    source = source._replace(place=source.place - sight.offset)
                shadows = _shadows(view, source)
                spots += _add_lit(planes, view, eye, sight, source, shadows)
            planes /= len(points)
            spots = [spot._replace(flux=spot.flux / len(points)) for spot in spots]
        for plane in range(planes.shape[2]):
            image = _blur(np.ascontiguousarray(planes[..., plane]), sigma)
            for spot in spots:
                lighting.splat(image, spot.pixel, float(spot.flux[plane]), sigma)
            planes[..., plane] = image
        return planes

    def _add_surroundings(self, planes: Float32, view: View, eye: Eye, scale: Float) -> None:
        for plane, channel in enumerate(eye.channels):
            level = np.float32(self.truth.ambient * scale[plane])
            planes[..., plane] += (lighting.surroundings(view, channel) * level).reshape(view.shape)

    def rate(
        self, pose: str, lights: Mapping[str, Drive], camera: str, exposure_s: float, key: Hashable
    ) -> Float32:
        """Photo-electrons/s (h, w, c) on the sensor, averaged over each row's exposure, with vignetting.

        ``lights``: what each is told about the camera's trigger. ``exposure_s``: the true one. ``key`` seeds
        the phase of flickering lights and the jitter of the start.
        """
        eye = self.eye(camera)
        start = self._row_starts(camera, key)
        total = self.image(pose, camera, None).copy()
        for name, drive in sorted(lights.items()):
            light = self.truth.lights[name]
            moves = isinstance(light, NearTruth) and any(light.velocity_mm_s)
            steps = np.linspace(start.min(), start.max() + exposure_s, (_STEPS if moves else 1) + 1)
            phase = 2 * np.pi * float(sensor.noise_key(key, name, "phase")[0]) / 2**32
            for begin, end in pairwise(steps):
                low = np.maximum(start, begin)
                high = np.maximum(np.minimum(start + exposure_s, end), low)
                share = given(light, drive, low, high, phase)
                middle = float(0.5 * (begin + end)) if moves else 0.0
                weight = (share / exposure_s).astype(np.float32)
                total += weight[:, None, None] * self.image(pose, camera, name, middle)
        total *= eye.vignetting[..., None]
        return total

    def _row_starts(self, camera: str, key: Hashable) -> Float:
        """When each row (h,) begins its exposure, seconds after the trigger."""
        truth = self.truth.cameras[camera].sensor
        order = np.arange(self.eye(camera).lens.height)
        start = truth.line_time_s * (order[::-1] if truth.bottom_up else order) + truth.start_latency_s
        if truth.start_jitter_s > 0:
            rng = np.random.default_rng(sensor.noise_key(key, "jitter"))
            start = start + truth.start_jitter_s * rng.standard_normal()
        return np.asarray(start)


def _shadows(view: View, source: Source) -> tuple[Bits, Bits]:
    """Bits of the cast shadows on the dense and the extra samples of a view."""
    place = source.homogeneous
    return view.stage.hidden(view.dense, place), view.stage.hidden(view.extra, place)


def _add_lit(
    planes: Float32, view: View, eye: Eye, sight: Sight, source: Source, shadows: tuple[Bits, Bits]
) -> list[lighting.Highlight]:
    """Add the radiance under a light, and give back its highlights."""
    for plane, channel in enumerate(eye.channels):
        value = lighting.radiance(view, source, float(source.intensity[plane]), *shadows, channel)
        planes[..., plane] += value.reshape(view.shape)
    return lighting.highlights(view.stage, sight, source)


def _blur(image: Float32, sigma_px: float) -> Float32:
    if sigma_px == 0:
        return image
    size = 2 * int(np.ceil(5 * sigma_px)) + 1
    return np.asarray(
        cv2.GaussianBlur(image, (size, size), sigma_px, borderType=cv2.BORDER_REPLICATE), np.float32
    )
