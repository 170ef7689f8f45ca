"""The twin: what the rig's cameras would deliver, and what the simulation alone knows."""

import time
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from calibration.geometry import Float, tangent_basis
from calibration.lens import LensModel
from calibration.lights.model import DistantLight, LightModel, NearLight
from capture.devices import CameraLimits, DeviceError, DeviceLost, FrameLost, LightLimits, SettingRefused
from capture.frame import Frame
from capture.plan import Shot, Strobe
from rigs.simulated import lighting, sensor
from rigs.simulated.emission import Drive
from rigs.simulated.lamps import Lamps
from rigs.simulated.renderer import Renderer
from rigs.simulated.surfaces import Float32
from rigs.simulated.things import SphereThing
from rigs.simulated.truth import BumpFault, DriftFault, FrameFault, Truth, VanishFault


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


class Twin:
    """A simulated rig: poses, lights and cameras of a truth; a ``capture.drivers.simulated.Scene``.

    Parameters
    ----------
    truth : Truth
    cameras : mapping of name -> CameraLimits, optional
        As the rig's configuration states them; each must fit the truth's camera of that name.
    realtime : bool
        Take as long as a rig would for exposures, readout and settling; otherwise time is virtual. A picture
        that takes longer to render than to expose is late.
    lights : mapping of name -> LightLimits, optional
        As the rig's configuration states them: a light has had its ``settle_s`` before the next exposure.

    Raises
    ------
    ValueError
        A camera unknown to the truth, or of another size or pixel format.

    Notes
    -----
    A frame is a pure function of the truth and of the request: pose, burning lights and levels, exposure,
    gain, and how many times that very request was answered before. So a capture that is resumed or reordered
    gets the same bytes, if ``note_taken`` tells the new twin of shots that an earlier one answered. Faults
    and the frame counter follow the order of the calls in this run; so does the light of a lamp with a rise
    or fall, which is the farther on, the longer it has been burning.

    Light is not reflected from surface to surface, but for one bounce in shiny balls; ambient light is not
    hidden by anything. Not safe to call from several threads at once.
    """

    def __init__(
        self,
        truth: Truth,
        cameras: Mapping[str, CameraLimits] | None = None,
        *,
        realtime: bool = False,
        lights: Mapping[str, LightLimits] | None = None,
    ) -> None:
        self.truth = truth
        self._limits = dict(cameras or {})
        for name, limits in self._limits.items():
            _check_camera(truth, name, limits)
        self._realtime = realtime
        self._pose: str | None = None
        self._settle_s = {name: limits.settle_s for name, limits in (lights or {}).items()}
        self._lamps = Lamps(truth, self._settle_s)
        self._taken: Counter[Hashable] = Counter()
        self._exposures: Counter[str] = Counter()
        self._frame_ids: Counter[str] = Counter()
        self._clock_s = 0.0
        self._render = Renderer(truth)

    # --- what a rig does ---------------------------------------------------------------------------------

    def show(self, pose: str) -> None:
        """Bring a pose into view; raises DeviceError for one the truth does not have."""
        if pose not in self.truth.poses:
            known = ", ".join(self.truth.poses)
            raise DeviceError("operator", f"the truth has no pose {pose!r} (it has {known})")
        self._pose = pose

    def set_light(self, name: str, level: float) -> None:
        """Burn a light at ``level``; raises DeviceError when it is unknown or noticed to be dead."""
        self._lamps.burn(name, level, self._clock_s)
        if self._realtime:
            time.sleep(self._settle_s.get(name, 0.0))

    def strobe_light(self, name: str, level: float, delay_s: float, duration_s: float) -> None:
        """Go dark and arm one pulse for the next exposure's trigger; raises as ``set_light``.

        Lights that are armed together have one pulse, the last that was asked for.
        """
        strobe = Strobe(delay_s=delay_s, duration_s=duration_s)
        self._lamps.arm(name, level, strobe, self._clock_s)

    def expose(self, camera: str, exposure_s: float, gain_db: float) -> Frame:
        """Take a frame of the pose in view under the burning lights.

        Raises
        ------
        DeviceLost, FrameLost, SettingRefused
            As the truth's faults ask, or the exposure lies outside the camera's limits.
        DeviceError
            No such camera, or nothing is in view yet.
        """
        start_s, begun = self._clock_s, time.monotonic()
        try:
            return self._expose(camera, exposure_s, gain_db)
        finally:
            if self._realtime:
                time.sleep(max(0.0, self._clock_s - start_s - (time.monotonic() - begun)))

    def _expose(self, camera: str, exposure_s: float, gain_db: float) -> Frame:
        if camera not in self.truth.cameras:
            raise DeviceError(camera, "the truth has no such camera")
        if self._pose is None:
            raise DeviceError(camera, "nothing is in view: show a pose first")
        self._check_settings(camera, exposure_s, gain_db)
        order = self._lamps.trigger()
        applied = self._meet_faults(camera, exposure_s)
        truth = self.truth.cameras[camera].sensor
        true_s = applied + truth.exposure_offset_s
        if true_s <= 0:
            raise SettingRefused(camera, f"exposure {applied:g} s is below the camera's own offset")
        start_s = self._clock_s
        request = _request(camera, self._pose, order.levels | order.pulsed, exposure_s, gain_db, order.strobe)
        drives = self._lamps.drives(order, self._clock_s)
        self._pass_time(applied + (self._limits[camera].readout_s if camera in self._limits else 0.0))

        key = (self.truth.seed, request, self._taken[request])
        self._taken[request] += 1
        drifts = [fault for fault in self.truth.faults if isinstance(fault, DriftFault)]
        before = sum(self._exposures.values()) - 1
        fade = 1 + before * sum(fault.lights for fault in drifts)
        burning = {name: drive.scaled(fade) for name, drive in drives.items()}
        rate = self._render.rate(self._pose, burning, camera, true_s, key)
        pattern = self._render.eye(camera).pattern
        if drifts:
            black = truth.black_dn + before * sum(fault.black_dn for fault in drifts)
            truth = truth.replace(black_dn=black)
        planes = [
            sensor.expose(plane, true_s, gain_db, truth, pattern, sensor.noise_key(key, "sensor", number))
            for number, plane in enumerate(sensor.mosaic(rate, truth.colour))
        ]
        dn = planes[0] if len(planes) == 1 else np.stack(planes, axis=-1)
        return Frame(
            dn=dn.astype(np.uint8) if truth.bits == 8 else dn,
            pixel_format=truth.pixel_format,
            exposure_s=applied,
            gain_db=gain_db,
            frame_id=self._frame_ids[camera] - 1,
            timestamp_ns=round(start_s * 1e9),
            black_level_dn=self.truth.cameras[camera].sensor.black_dn,
            temperature_c=truth.temperature_c,
        )

    def note_taken(self, shot: Shot) -> None:
        """Tell of a shot that an earlier run of this truth answered: its repeats get their own noise."""
        request = _request(shot.camera, shot.pose, shot.lights, shot.exposure_s, shot.gain_db, shot.strobe)
        self._taken[request] += 1

    # --- what the simulation alone knows -----------------------------------------------------------------

    def lens(self, camera: str) -> LensModel:
        """The true lens."""
        return self.truth.cameras[camera].lens

    def lights(self, camera: str) -> dict[str, LightModel]:
        """True near and distant lights in the camera's frame, at full level, in e-/s of that camera."""
        out: dict[str, LightModel] = {}
        for name in self.truth.light_models():
            source = self._render.source(name, camera)
            place, axis = _vector(source.place), _vector(source.axis)
            intensity = tuple(source.intensity.tolist())
            if source.near:
                out[name] = NearLight(position_mm=place, intensity=intensity, axis=axis, order=source.order)
            else:
                out[name] = DistantLight(direction=place, intensity=intensity)
        return out

    def clean_radiance(
        self, pose: str, lights: Mapping[str, float], camera: str, *, vignetting: bool = False
    ) -> Float32:
        """Noise-free radiance with the optics' blur, e-/s: (h, w), or (h, w, 3) of a colour sensor.

        ``lights`` maps the burning ones to their levels. Without the fixed pattern and, unless asked for,
        without vignetting. Lights are as at the start of an exposure.
        """
        total = self._render.image(pose, camera, None).copy()
        for name, level in sorted(lights.items()):
            total += np.float32(level) * self._render.image(pose, camera, name)
        if vignetting:
            total *= self._render.eye(camera).vignetting[..., None]
        return total[..., 0] if total.shape[2] == 1 else total

    def maps(self, pose: str, camera: str) -> Maps:
        """Depth, normals, albedo and the thing seen at each pixel."""
        view = self._render.view(pose, camera)
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
        view = self._render.view(pose, camera)
        count = np.zeros(len(view.dense.owner), np.uint8)
        models = self.lights(camera)
        for name in models if lights is None else lights:
            light = models[name]
            dark = self._render.shadow(pose, camera, name)[0]
            lit = np.unpackbits(dark, count=count.size, bitorder="little") == 0
            for part in range(0, count.size, 1 << 18):
                at = slice(part, part + (1 << 18))
                direction, arriving = light.at(view.dense.points[at])
                faces = np.sum(direction * view.dense.normals[at], axis=-1) > 0
                count[at] += lit[at] & faces & (arriving[..., 0] > 0) & (view.dense.owner[at] >= 0)
        return count.reshape(view.shape)

    def flat_map(self, camera: str) -> Float32:
        """True relative response of every pixel: PRNU times vignetting, (h, w)."""
        eye = self._render.eye(camera)
        return np.asarray(eye.pattern.response * eye.vignetting)

    def fixed_pattern(self, camera: str) -> sensor.Pattern:
        """True response, dark current and dark offset of every pixel."""
        return self._render.eye(camera).pattern

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
        """Raw frames of a window under other seeds of the noise: (len(seeds), h, w) DN; of RGB the red plane.

        The fixed pattern stays the camera's. For Monte Carlo: nothing is rendered anew.
        """
        truth, eye = self.truth.cameras[camera].sensor, self._render.eye(camera)
        steady = {name: Drive(level) for name, level in lights.items()}
        rate = sensor.mosaic(self._render.rate(pose, steady, camera, exposure_s, "resample"), truth.colour)[0]
        rows, columns = (part.indices(size) for part, size in zip(roi, rate.shape, strict=True))
        window = slice(rows[0], rows[1]), slice(columns[0], columns[1])
        pattern = sensor.Pattern(*(np.ascontiguousarray(values[window]) for values in eye.pattern))
        request = _request(camera, pose, lights, exposure_s, gain_db)
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
        place = self._render.place(camera)
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
        stage = self._render.view(pose, camera).stage
        return lighting.highlights(stage, self.lens(camera), self._render.source(light, camera))

    # --- inside ------------------------------------------------------------------------------------------

    def _check_settings(self, camera: str, exposure_s: float, gain_db: float) -> None:
        limits = self._limits.get(camera)
        if exposure_s <= 0:
            raise SettingRefused(camera, f"exposure {exposure_s:g} s is not a time")
        if limits is None:
            return
        low, high = limits.exposure_min_s, limits.exposure_max_s
        if not low <= exposure_s <= high:
            raise SettingRefused(camera, f"exposure {exposure_s:g} s is outside {low:g}..{high:g} s")
        low, high = limits.gain_min_db, limits.gain_max_db
        if not low <= gain_db <= high:
            raise SettingRefused(camera, f"gain {gain_db:g} dB is outside {low:g}..{high:g} dB")

    def _pass_time(self, seconds: float) -> None:
        self._clock_s += seconds

    def _meet_faults(self, camera: str, exposure_s: float) -> float:
        """Count the exposure and return the time that is applied."""
        number, total = self._exposures[camera], sum(self._exposures.values())
        self._exposures[camera] += 1
        self._frame_ids[camera] += 1
        applied = exposure_s
        self._render.knocks = sum(isinstance(f, BumpFault) and total >= f.first for f in self.truth.faults)
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


def _vector(values: Float) -> tuple[float, float, float]:
    x, y, z = values.tolist()
    return x, y, z


def _request(
    camera: str,
    pose: str,
    lights: Mapping[str, float],
    exposure_s: float,
    gain_db: float,
    strobe: Strobe | None = None,
) -> Hashable:
    levels = tuple(sorted((name, float(level)) for name, level in lights.items() if level > 0))
    asked = camera, pose, levels, float(exposure_s), float(gain_db)
    return asked if strobe is None else (*asked, strobe.delay_s, strobe.duration_s)


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
