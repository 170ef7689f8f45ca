"""The twin: what the rig's cameras would deliver, and what the simulation alone knows."""

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.geometry import Float, normalize, tangent_basis
from calibration.lens import LensModel
from calibration.lights.model import LightModel, NearLight
from capture.devices import CameraLimits, DeviceError, DeviceLost, FrameLost, SettingRefused
from capture.frame import Frame
from capture.plan import Shot
from rigs.simulated import lighting, sensor
from rigs.simulated.scene import Stage, View, cast
from rigs.simulated.surfaces import Float32, Placement
from rigs.simulated.truth import (
    BumpFault,
    CapThing,
    FrameFault,
    LightFault,
    NearTruth,
    PanelThing,
    PanelTruth,
    SphereThing,
    Truth,
    VanishFault,
)

_VIEWS, _IMAGES, _STEPS = 2, 8, 8


class Maps(NamedTuple):
    """True maps of a pose in the camera's frame, (h, w) each; NaN where nothing is seen.

    Attributes
    ----------
    depth_mm : float32
        z of the surface point at the pixel's centre.
    normals : (h, w, 3) float32
    albedo : float32
        Of the diffuse part; 0 on shiny balls. Area mean on boards.
    thing : int16
        Number of the thing in the pose's list, -1 for none.
    """

    depth_mm: Float32
    normals: Float32
    albedo: Float32
    thing: NDArray[np.int16]


class SphereTruth(NamedTuple):
    """A sphere of a pose: number in the pose's list, centre (3,) and radius mm, outline (360, 2) px."""

    thing: int
    finish: str
    centre_mm: Float
    radius_mm: float
    outline_px: Float


class _Eye(NamedTuple):
    """One camera, prepared."""

    lens: LensModel
    place: Placement
    rays: Float
    vignetting: Float32
    pattern: sensor.Pattern
    channels: tuple[int, ...]
    exposure_s: tuple[float, float]
    readout_s: float


class _Recent:
    """The last ``size`` results by key: rendering is pure, so a result may be thrown away at any time."""

    def __init__(self, size: int) -> None:
        self._size, self._kept = size, OrderedDict[Hashable, Any]()

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        if key not in self._kept:
            while len(self._kept) >= self._size:
                self._kept.popitem(last=False)
            self._kept[key] = make()
        self._kept.move_to_end(key)
        return self._kept[key]


class Twin:
    """A simulated rig: poses, lights and cameras of a truth, driven as ``capture.drivers.simulated`` drives it.

    Parameters
    ----------
    truth : Truth
    cameras : mapping of name -> CameraLimits, optional
        As the rig's configuration states them; each must fit the truth's camera of that name.
    realtime : bool
        Sleep for exposures; otherwise time is virtual.

    Raises
    ------
    ValueError
        A camera unknown to the truth, or of another size or pixel format.

    Notes
    -----
    A frame is a pure function of the truth and of the request: pose, burning lights and levels, exposure, gain,
    and how many times that very request was answered before. So a capture that is resumed or reordered gets the
    same bytes, if ``note_taken`` tells the new twin of the shots that an earlier one answered. Faults and the
    frame counter follow the order of the calls in this run.

    Light is not reflected from surface to surface, but for one bounce in shiny balls; ambient light is not
    hidden by anything. Not safe to call from several threads at once.
    """

    def __init__(
        self, truth: Truth, cameras: Mapping[str, CameraLimits] | None = None, *, realtime: bool = False
    ) -> None:
        self.truth = truth
        self._limits = dict(cameras or {})
        for name, limits in self._limits.items():
            _check_camera(truth, name, limits)
        self._realtime = realtime
        self._pose: str | None = None
        self._levels: dict[str, float] = {}
        self._dead: set[str] = set()
        self._lit: Counter[str] = Counter()
        self._taken: Counter[Hashable] = Counter()
        self._exposures: Counter[str] = Counter()
        self._frame_ids: Counter[str] = Counter()
        self._clock_s = 0.0
        self._bumps = 0
        self._eyes: dict[str, _Eye] = {}
        self._views, self._images = _Recent(_VIEWS), _Recent(_IMAGES)

    # --- what a rig does ---------------------------------------------------------------------------------

    def show(self, pose: str) -> None:
        """Bring a pose into view; raises DeviceError for one the truth does not have."""
        if pose not in self.truth.poses:
            known = ", ".join(self.truth.poses)
            raise DeviceError("operator", f"the truth has no pose {pose!r} (it has {known})")
        self._pose = pose

    def set_light(self, name: str, level: float) -> None:
        """Burn a light at ``level``; raises DeviceError when it is unknown or noticed to be dead."""
        if name not in self.truth.lights:
            raise DeviceError(name, "the truth has no such light")
        if not 0 <= level <= 1:
            raise SettingRefused(name, f"level {level:g} is outside 0..1")
        self._levels.pop(name, None)
        self._dead.discard(name)
        if level == 0:
            return
        number = self._lit[name]
        self._lit[name] += 1
        for fault in self.truth.faults:
            if isinstance(fault, LightFault) and fault.light == name and number >= fault.first:
                if fault.count is None or number < fault.first + fault.count:
                    if fault.noticed:
                        raise DeviceError(name, "does not light")
                    self._dead.add(name)
        self._levels[name] = level

    def expose(self, camera: str, exposure_s: float, gain_db: float) -> Frame:
        """Take a frame of the pose in view under the burning lights.

        Raises
        ------
        DeviceLost, FrameLost, SettingRefused
            As the truth's faults ask, or the exposure lies outside the camera's limits.
        DeviceError
            No such camera, or nothing is in view yet.
        """
        if camera not in self.truth.cameras:
            raise DeviceError(camera, "the truth has no such camera")
        if self._pose is None:
            raise DeviceError(camera, "nothing is in view: show a pose first")
        pose, eye = self._pose, self._eye(camera)
        low, high = eye.exposure_s
        if not low <= exposure_s <= high:
            raise SettingRefused(camera, f"exposure {exposure_s:g} s is outside {low:g}..{high:g} s")
        applied = self._meet_faults(camera, exposure_s)
        start_s = self._clock_s
        self._pass_time(applied + eye.readout_s)

        request = self._request(camera, pose, self._levels, exposure_s, gain_db)
        repeat = self._taken[request]
        self._taken[request] += 1
        key = (self.truth.seed, request, repeat)
        burning = {name: level for name, level in self._levels.items() if name not in self._dead}
        rate = self._rate(pose, burning, camera, applied, key)
        truth = self.truth.cameras[camera]
        planes = [
            sensor.expose(
                plane, applied, gain_db, truth.sensor, eye.pattern, sensor.noise_key(key, "sensor", number)
            )
            for number, plane in enumerate(_mosaic(rate, truth.sensor.colour))
        ]
        dn = planes[0] if len(planes) == 1 else np.stack(planes, axis=-1)
        return Frame(
            dn=dn.astype(np.uint8) if truth.sensor.bits == 8 else dn,
            pixel_format=truth.sensor.pixel_format,
            exposure_s=applied,
            gain_db=gain_db,
            frame_id=self._frame_ids[camera] - 1,
            timestamp_ns=round(start_s * 1e9),
            black_level_dn=truth.sensor.black_dn,
            temperature_c=truth.sensor.temperature_c,
        )

    def note_taken(self, shot: Shot) -> None:
        """Tell of a shot that an earlier run of this truth answered, so that its repeats get their own noise."""
        request = self._request(shot.camera, shot.pose, shot.lights, shot.exposure_s, shot.gain_db)
        self._taken[request] += 1

    # --- what the simulation alone knows -----------------------------------------------------------------

    def lens(self, camera: str) -> LensModel:
        """The true lens."""
        return self.truth.cameras[camera].lens

    def lights(self, camera: str) -> dict[str, LightModel]:
        """True near and distant lights in the camera's frame, at full level, in e-/s of that camera."""
        place = self._place(camera, 0)
        return {name: self._light(name, camera, place) for name in self.truth.light_models()}

    def clean_radiance(
        self, pose: str, lights: Mapping[str, float], camera: str, *, vignetting: bool = False
    ) -> Float32:
        """Noise-free radiance with the optics' blur, e-/s: (h, w), or (h, w, 3) of a colour sensor.

        ``lights`` maps the burning ones to their levels. Without the fixed pattern and, unless asked for,
        without vignetting. Lights are as at the start of an exposure.
        """
        total = self._image(pose, camera, None, 0.0)
        for name, level in sorted(lights.items()):
            total = total + np.float32(level) * self._image(pose, camera, name, 0.0)
        if vignetting:
            total = total * self._eye(camera).vignetting[..., None]
        out = np.array(total)
        return out[..., 0] if out.shape[2] == 1 else out

    def maps(self, pose: str, camera: str) -> Maps:
        """Depth, normals, albedo and the thing seen at each pixel."""
        view = self._view(pose, camera)
        dense, shape = view.dense, view.shape
        nothing = dense.owner < 0
        depth, normals, albedo = dense.points[:, 2].copy(), dense.normals.copy(), dense.albedo.copy()
        for values in (depth, normals, albedo):
            values[nothing] = np.nan
        return Maps(
            depth.reshape(shape),
            normals.reshape(*shape, 3),
            albedo.reshape(shape),
            dense.owner.reshape(shape).copy(),
        )

    def lit_count(self, pose: str, camera: str, lights: Sequence[str] | None = None) -> NDArray[np.uint8]:
        """How many of the near and distant lights (default all) reach each pixel's surface point, (h, w)."""
        view = self._view(pose, camera)
        count = np.zeros(len(view.dense.owner), np.uint8)
        for name in lights if lights is not None else tuple(self.truth.light_models()):
            light = self._light(name, camera, self._place(camera, self._bumps))
            dark = self._shadow(pose, camera, name, 0.0, view, light)[0]
            lit = np.unpackbits(dark, count=count.size, bitorder="little") == 0
            for part in range(0, count.size, 1 << 18):
                at = slice(part, part + (1 << 18))
                direction, arriving = light.at(view.dense.points[at])
                faces = np.sum(direction * view.dense.normals[at], axis=-1) > 0
                count[at] += lit[at] & faces & (arriving[..., 0] > 0) & (view.dense.owner[at] >= 0)
        return count.reshape(view.shape)

    def flat_map(self, camera: str) -> Float32:
        """True relative response of every pixel: PRNU times vignetting, (h, w)."""
        eye = self._eye(camera)
        return np.asarray(eye.pattern.response * eye.vignetting)

    def fixed_pattern(self, camera: str) -> sensor.Pattern:
        """True response, dark current and dark offset of every pixel."""
        return self._eye(camera).pattern

    def resample(
        self,
        pose: str,
        lights: Mapping[str, float],
        camera: str,
        exposure_s: float,
        seeds: Sequence[int],
        roi: tuple[slice, slice],
        *,
        gain_db: float = 0.0,
    ) -> NDArray[np.uint16]:
        """Raw frames of one channel's window under other seeds of the noise: (len(seeds), h, w) DN.

        The fixed pattern stays the camera's. For Monte Carlo: nothing is rendered anew.
        """
        truth, eye = self.truth.cameras[camera].sensor, self._eye(camera)
        (rate,) = _mosaic(self._rate(pose, lights, camera, exposure_s, ("resample",)), truth.colour)
        rows, columns = (part.indices(size) for part, size in zip(roi, rate.shape, strict=True))
        window = slice(rows[0], rows[1]), slice(columns[0], columns[1])
        pattern = sensor.Pattern(*(np.ascontiguousarray(values[window]) for values in eye.pattern))
        request = self._request(camera, pose, lights, exposure_s, gain_db)
        return np.stack(
            [
                sensor.expose(
                    np.ascontiguousarray(rate[window]),
                    exposure_s,
                    gain_db,
                    truth,
                    pattern,
                    sensor.noise_key("resample", seed, request),
                    corner=(rows[0], columns[0]),
                    stride=rate.shape[1],
                )
                for seed in seeds
            ]
        )

    def spheres(self, pose: str, camera: str) -> tuple[SphereTruth, ...]:
        """True spheres of a pose with their outlines as this camera sees them, through the distortion."""
        out = []
        place = self._place(camera, self._bumps)
        turn = np.linspace(0, 2 * np.pi, 360, endpoint=False)[:, None]
        for number, thing in enumerate(self.truth.poses[pose]):
            if not isinstance(thing, SphereThing):
                continue
            centre = place.points(np.array(thing.centre_mm))
            distance = float(np.linalg.norm(centre))
            sine = thing.radius_mm / distance
            u, v = tangent_basis(centre)
            limb = np.sqrt(1 - sine**2) * centre / distance + sine * (np.cos(turn) * u + np.sin(turn) * v)
            out.append(
                SphereTruth(number, thing.finish, centre, thing.radius_mm, self.lens(camera).project(limb))
            )
        return tuple(out)

    def highlights(self, pose: str, light: str, camera: str) -> list[lighting.Highlight]:
        """Where this light shows in the shiny spheres of a pose, at full level."""
        place = self._place(camera, self._bumps)
        stage = self._view(pose, camera).stage
        return lighting.highlights(stage, self.lens(camera), self._light(light, camera, place))

    # --- inside ------------------------------------------------------------------------------------------

    def _request(
        self, camera: str, pose: str, lights: Mapping[str, float], exposure_s: float, gain_db: float
    ) -> Hashable:
        levels = tuple(sorted((name, float(level)) for name, level in lights.items() if level > 0))
        return camera, pose, levels, float(exposure_s), float(gain_db)

    def _pass_time(self, seconds: float) -> None:
        self._clock_s += seconds
        if self._realtime:
            time.sleep(seconds)

    def _meet_faults(self, camera: str, exposure_s: float) -> float:
        """Count the exposure and return the time that is applied."""
        number, total = self._exposures[camera], sum(self._exposures.values())
        self._exposures[camera] += 1
        self._frame_ids[camera] += 1
        applied = exposure_s
        self._bumps = sum(isinstance(f, BumpFault) and total >= f.first for f in self.truth.faults)
        for fault in self.truth.faults:
            if isinstance(fault, VanishFault) and fault.camera == camera and number >= fault.first:
                raise DeviceLost(camera, "the camera does not answer any more")
            if not (isinstance(fault, FrameFault) and fault.camera == camera and number in fault.shots):
                continue
            if fault.kind == "refused":
                raise SettingRefused(camera, f"exposure {exposure_s:g} s was not applied")
            if fault.kind == "lost":
                self._pass_time(exposure_s)
                raise FrameLost(camera, "no frame came")
            if fault.kind == "late":
                self._pass_time(exposure_s + fault.delay_s)
                raise FrameLost(camera, f"the frame came {fault.delay_s:g} s late")
            applied = exposure_s * fault.factor
        return applied

    def _eye(self, name: str) -> _Eye:
        if name not in self._eyes:
            truth = self.truth.cameras[name]
            lens, colour = truth.lens, truth.sensor.colour
            shape = (lens.height, lens.width)
            rays = np.empty((*shape, 3))
            for row in range(0, shape[0], 64):
                v, u = np.mgrid[row : min(row + 64, shape[0]), : shape[1]]
                rays[row : row + 64] = lens.unproject(np.stack([u, v], axis=-1))
            seed = truth.seed
            if seed is None:
                seed = int(sensor.noise_key(self.truth.seed, name, "pattern")[0])
            limits = self._limits.get(name)
            self._eyes[name] = _Eye(
                lens,
                Placement.of(truth.rotvec_deg, truth.translation_mm),
                rays,
                sensor.vignetting(truth.optics, rays, shape, (lens.cx, lens.cy)),
                sensor.fixed_pattern(truth.sensor, shape, seed),
                (3,) if colour == "mono" else (0, 1, 2),
                (0.0, np.inf) if limits is None else (limits.exposure_min_s, limits.exposure_max_s),
                0.0 if limits is None else limits.readout_s,
            )
        return self._eyes[name]

    def _place(self, camera: str, bumps: int) -> Placement:
        """Camera_from_rig after the first ``bumps`` knocks, which move all there is in the camera's frame."""
        place = self._eye(camera).place
        knocks = [f for f in self.truth.faults if isinstance(f, BumpFault)]
        for knock in sorted(knocks, key=lambda f: f.first)[:bumps]:
            place = Placement.of(knock.rotvec_deg, knock.translation_mm) @ place
        return place

    def _light(self, name: str, camera: str, place: Placement, at_s: float = 0.0) -> LightModel:
        truth, model = self.truth.lights[name], self.truth.light_models()[name]
        scale = np.array(self.truth.cameras[camera].sensor.quantum_scale)
        colour = np.array(truth.colour) * truth.intensity
        if self._eye(camera).channels == (3,):
            intensity: tuple[float, ...] = (float(colour.mean() * scale[0]),)
        else:
            intensity = tuple((colour * scale).tolist())
        if isinstance(model, NearLight):
            assert isinstance(truth, NearTruth)
            position = place.points(np.array(truth.position_mm) + at_s * np.array(truth.velocity_mm_s))
            axis = place.vectors(normalize(truth.axis))
            return model.replace(
                position_mm=tuple(position.tolist()), axis=tuple(axis.tolist()), intensity=intensity
            )
        direction = place.vectors(normalize(model.direction))
        return model.replace(direction=tuple(direction.tolist()), intensity=intensity)

    def _view(self, pose: str, camera: str) -> View:
        def make() -> View:
            eye = self._eye(camera)
            return cast(Stage(self.truth.poses[pose], self._place(camera, self._bumps)), eye.lens, eye.rays)

        return self._views.get((pose, camera, self._bumps), lambda: (make(), {}))[0]  # type: ignore[no-any-return]

    def _shadow(
        self, pose: str, camera: str, name: str, at_s: float, view: View, light: LightModel
    ) -> tuple[lighting.Bits, lighting.Bits]:
        kept = self._views.get((pose, camera, self._bumps), lambda: (view, {}))[1]
        if (name, at_s) not in kept:
            kept[name, at_s] = tuple(view.stage.hidden(part, light) for part in (view.dense, view.extra))
        return kept[name, at_s]  # type: ignore[no-any-return]

    def _image(self, pose: str, camera: str, name: str | None, at_s: float) -> Float32:
        """Blurred radiance (h, w, c) under one light at full level, or (None) of the surroundings."""
        if pose not in self.truth.poses:
            raise ValueError(f"the truth has no pose {pose!r}")
        if name is not None and name not in self.truth.lights:
            raise ValueError(f"the truth has no light {name!r}")
        image = self._images.get(
            (pose, camera, name, at_s, self._bumps), lambda: self._render(pose, camera, name, at_s)
        )
        return image  # type: ignore[no-any-return]

    def _render(self, pose: str, camera: str, name: str | None, at_s: float) -> Float32:
        eye, truth = self._eye(camera), self.truth.cameras[camera]
        shape = (eye.lens.height, eye.lens.width)
        scale = np.array(truth.sensor.quantum_scale)
        light = None if name is None else self.truth.lights[name]
        things = self.truth.poses[pose]
        planes = np.zeros((*shape, len(eye.channels)), np.float32)
        if any(isinstance(thing, CapThing) for thing in things):
            return planes
        if any(isinstance(thing, PanelThing) for thing in things):
            if isinstance(light, PanelTruth):
                colour = light.intensity * np.array(light.colour)
                planes[:] = colour.mean() * scale[0] if len(eye.channels) == 1 else colour * scale
            return planes
        if isinstance(light, PanelTruth):
            return planes
        view = self._view(pose, camera)
        sigma = truth.optics.psf_sigma_px
        if name is None:
            for plane, channel in enumerate(eye.channels):
                value = lighting.surroundings(view, channel) * np.float32(
                    self.truth.ambient * scale[0 if channel == 3 else channel]
                )
                planes[..., plane] = _blur(value.reshape(shape), sigma)
            return planes
        model = self._light(name, camera, self._place(camera, self._bumps), at_s)
        dark, dark_extra = self._shadow(pose, camera, name, at_s, view, model)
        shine = lighting.highlights(view.stage, eye.lens, model)
        for plane, channel in enumerate(eye.channels):
            value = lighting.radiance(view, model, dark, dark_extra, channel).reshape(shape)
            image = _blur(value, sigma)
            for spot in shine:
                lighting.splat(image, spot.pixel, float(spot.flux[plane]), sigma)
            planes[..., plane] = image
        return planes

    def _rate(
        self, pose: str, lights: Mapping[str, float], camera: str, exposure_s: float, key: Hashable
    ) -> Float32:
        """Photo-electrons/s (h, w, c) on the sensor, averaged over each row's exposure, with vignetting."""
        eye = self._eye(camera)
        line_s = self.truth.cameras[camera].sensor.line_time_s
        start = line_s * np.arange(eye.lens.height)
        total = self._image(pose, camera, None, 0.0)
        for name, level in sorted(lights.items()):
            light = self.truth.lights[name]
            moves = isinstance(light, NearTruth) and any(light.velocity_mm_s)
            steps = np.linspace(0.0, start[-1] + exposure_s, (_STEPS if moves else 1) + 1)
            phase = 2 * np.pi * float(sensor.noise_key(key, name, "phase")[0]) / 2**32
            for begin, end in zip(steps[:-1], steps[1:], strict=True):
                low, high = np.maximum(start, begin), np.minimum(start + exposure_s, end)
                share = _burnt(light, np.maximum(high, low), phase) - _burnt(light, low, phase)
                image = self._image(pose, camera, name, float(0.5 * (begin + end)) if moves else 0.0)
                weight = (level * share / exposure_s).astype(np.float32)
                total = total + weight[:, None, None] * image
        return np.asarray(total * eye.vignetting[..., None])


def _burnt(light: Any, at_s: Float, phase: float) -> Float:
    """Integral of a light's relative intensity from the exposure's start."""
    out = at_s + 0.5 * light.drift_per_s * at_s**2
    if light.flicker is not None:
        pulse = 2 * np.pi * light.flicker.frequency_hz
        out = out + light.flicker.depth / pulse * np.sin(pulse * at_s + phase)
    return np.asarray(out)


def _blur(image: Float32, sigma_px: float) -> Float32:
    if sigma_px == 0:
        return np.ascontiguousarray(image)
    size = 2 * int(np.ceil(5 * sigma_px)) + 1
    return np.asarray(
        cv2.GaussianBlur(image, (size, size), sigma_px, borderType=cv2.BORDER_REPLICATE), np.float32
    )


def _mosaic(rate: Float32, colour: str) -> list[Float32]:
    """Planes that the sensor's pixels see: one of a mono or Bayer sensor, three of an RGB one."""
    if colour in ("mono", "rgb"):
        return [np.ascontiguousarray(rate[..., channel]) for channel in range(rate.shape[2])]
    out = np.empty(rate.shape[:2], np.float32)
    for place, letter in enumerate(colour):
        row, column = divmod(place, 2)
        out[row::2, column::2] = rate[row::2, column::2, "RGB".index(letter)]
    return [out]


def _check_camera(truth: Truth, name: str, limits: CameraLimits) -> None:
    if name not in truth.cameras:
        raise ValueError(f"cameras.{name}: the truth has no such camera (it has {', '.join(truth.cameras)})")
    camera = truth.cameras[name]
    if (limits.width, limits.height) != (camera.lens.width, camera.lens.height):
        raise ValueError(
            f"cameras.{name}: the rig says {limits.width} x {limits.height}, the truth's lens "
            f"{camera.lens.width} x {camera.lens.height}"
        )
    if limits.pixel_format != camera.sensor.pixel_format:
        raise ValueError(
            f"cameras.{name}: the rig says {limits.pixel_format}, the truth's sensor gives "
            f"{camera.sensor.pixel_format}"
        )
