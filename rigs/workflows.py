"""What one does at a rig: check, capture, calibrate, reconstruct. The only module that sees both siblings.

Each workflow takes a session and models and gives a model or a result; files are written by ``save`` and
``write_reconstruction`` alone. ``track`` wraps a long loop to show its progress; it must yield every item.
"""

import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration import files
from calibration.lens import LensModel, fit_lens, fit_pose
from calibration.lights.fit import fit_lights
from calibration.lights.highlights import Highlights, locate_highlights
from calibration.lights.intensity import fit_intensities, sample_plane, white_spots
from calibration.lights.model import LightSet
from calibration.photometric import Method, NormalMap, object_mask, solve
from calibration.provenance import FitError, Model, Provenance, Quality
from calibration.radiometric import Radiance, RadiometricModel, demosaic, fit_response, fit_sensor
from calibration.radiometric import merge as merge_frames
from calibration.surface import Reconstruction, mesh, write_ply
from calibration.surface import reconstruct as surface_of
from calibration.targets.boards import Board, Charuco, Checkerboard, detect_board
from calibration.targets.spheres import SphereView, detect_spheres, sphere_from_mask
from capture.frame import format_cfa
from capture.plan import CapturePlan
from capture.runner import PlanCheck, check, run
from capture.session import Session, Stack
from rigs.config import ConfigError, RigConfig, SphereTarget, Targets, validate
from rigs.rig import open_rig
from rigs.simulated import Truth, load_truth

T = TypeVar("T")
M = TypeVar("M", bound=Model)
Image = NDArray[np.float32]
Track = Callable[[Iterable[Any], str], Iterable[Any]]


def silent(items: Iterable[T], what: str) -> Iterable[T]:
    """Progress for those who want none."""
    return items


# ---------------------------------------------------------------- capture


def check_plan(config: RigConfig, plan: CapturePlan, session: Path) -> PlanCheck:
    """Find what would go wrong, with no hardware touched; the disk is the one that holds ``session``."""
    folder = session.absolute()
    while not folder.exists():
        folder = folder.parent
    return check(plan, config.limits, free_bytes=shutil.disk_usage(folder).free)


def describe(report: PlanCheck) -> str:
    """One line: shots, expected duration, size."""
    minutes, seconds = divmod(round(report.duration_s), 60)
    return f"{report.shots} shots, about {minutes} min {seconds} s and {report.bytes / 1e9:.2f} GB"


def capture_session(
    config: RigConfig,
    plan: CapturePlan | None,
    path: Path,
    *,
    simulate: Truth | None = None,
    resume: bool = False,
    track: Track = silent,
) -> Session:
    """Run ``plan`` on the rig, or on its twin, into a session at ``path``.

    Parameters
    ----------
    plan : CapturePlan or None
        None with ``resume``: the session's own plan.
    resume : bool
        Complete the session at ``path``; the plan and the rig must be those it began with.

    Raises
    ------
    ConfigError
        The plan does not fit the rig; one line a fault, nothing was touched.
    capture.session.SessionError
        The folder is taken, or is not a session of this plan and rig.
    capture.devices.DeviceError
        A device was lost; the session stays resumable.
    """
    if plan is None:
        plan = Session.open(path).plan
    report = check_plan(config, plan, path)
    if report.problems:
        raise ConfigError("\n".join(f"plan {plan.name}: {problem}" for problem in report.problems))
    snapshot = config.model_dump(mode="json", exclude={"calibrations"})
    facts: dict[str, Any] = {"simulated": simulate is not None}
    begin = Session.resume if resume else Session.create
    session = begin(path, plan, snapshot, facts)
    taken = [record.shot for record in session.frames]
    with open_rig(config, simulate, taken=taken) as rig, closing(run(plan, rig, session)) as events:
        for _ in track(events, f"capturing {session.plan.name}"):
            pass
    return Session.open(path)


def list_devices() -> list[str]:
    """Return one line for each driver: what it finds here, or why it finds nothing."""
    from capture import drivers

    return drivers.survey()


# ---------------------------------------------------------------- what the rig file gives


def choose_board(text: str | None, config: RigConfig | None, needed: bool = True) -> Board | None:
    """Board from the option's text, else from the rig file."""
    if text is not None:
        return parse_board(text)
    board = None if config is None else config.targets.board
    if board is None and needed:
        raise ConfigError("no board: give --board, or --rig with targets.board")
    return board


def parse_board(text: str) -> Board:
    """``'checkerboard 9x6 25'`` (inner corners, mm) or ``'charuco 11x8 10 7.5 [DICT] [legacy]'`` (squares)."""
    usage = (
        f"board {text!r}: want 'checkerboard COLSxROWS SQUARE_MM' or "
        "'charuco COLSxROWS SQUARE_MM MARKER_MM [DICTIONARY] [legacy]'"
    )
    words = text.split()
    try:
        columns, rows = (int(word) for word in words[1].lower().split("x"))
        sizes = [float(word) for word in words[2 : 3 if words[0] == "checkerboard" else 4]]
        rest = words[2 + len(sizes) :]
    except (IndexError, ValueError):
        raise ConfigError(usage) from None
    raw: dict[str, object] = {"columns": columns, "rows": rows}
    match words[0], sizes:
        case "checkerboard", [square] if not rest:
            return validate(raw | {"square_mm": square}, Checkerboard, f"board {text!r}")
        case "charuco", [square, marker]:
            legacy = "legacy" in rest
            names = [word for word in rest if word != "legacy"]
            raw |= {"square_mm": square, "marker_mm": marker, "legacy": legacy}
            if len(names) > 1:
                raise ConfigError(usage)
            if names:
                raw["dictionary"] = names[0]
            return validate(raw, Charuco, f"board {text!r}")
    raise ConfigError(usage)


def sphere_target(
    config: RigConfig | None, diameter_mm: float | None, count: int | None
) -> SphereTarget | None:
    """Spheres from the options, else from the rig file; None where neither says anything."""
    known = None if config is None else config.targets.spheres
    if diameter_mm is None and known is not None:
        diameter_mm = known.diameter_mm
    if count is None and known is not None:
        count = known.count
    if diameter_mm is None:
        return None
    return validate({"count": count, "diameter_mm": diameter_mm}, SphereTarget, "spheres")


def board_reflectance(config: RigConfig | None) -> float:
    """Reflectance of the board's white; 0.9, a white print's, where no rig file says."""
    return Targets().board_reflectance if config is None else config.targets.board_reflectance


@contextmanager
def _file_faults() -> Iterator[None]:
    """Whatever is wrong with a file that a user named becomes one ConfigError."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise ConfigError(str(error)) from None


def read_truth(path: Path) -> Truth:
    """Truth file of a simulation."""
    with _file_faults():
        return load_truth(path)


def read_sensor(path: Path) -> RadiometricModel:
    """Sensor or response model."""
    with _file_faults():
        return files.load_model(path, RadiometricModel)


def pinned(config: RigConfig, root: Path, camera: str, name: str, kind: type[M]) -> M | None:
    """Model that rig.yaml pins for a camera (``sensor``, ``lens`` or ``lights``); its digest is checked."""
    entry = config.calibrations.get(camera)
    pin = None if entry is None else getattr(entry, name)
    if pin is None:
        return None
    with _file_faults():
        return files.load_model(root / pin.path, kind, digest=pin.digest)


def check_pins(config: RigConfig, root: Path) -> list[str]:
    """One line for each pinned calibration that is missing, damaged or not the one pinned."""
    problems = []
    kinds: dict[str, type[Model]] = {"sensor": RadiometricModel, "lens": LensModel, "lights": LightSet}
    for camera in config.calibrations:
        if camera not in config.cameras:
            problems.append(f"calibrations.{camera}: no camera of that name")
        for name, kind in kinds.items():
            try:
                pinned(config, root, camera, name, kind)
            except ConfigError as error:
                problems.append(f"calibrations.{camera}.{name}: {error}")
    return problems


def save(path: Path, model: Model, say: Callable[[str], None]) -> None:
    """Write a model and say its path, its digest (for the pin in rig.yaml), its verdict and its warnings."""
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = files.save_model(path, model)
    say(f"{path}: digest {digest}")
    quality = getattr(model, "quality", None)
    if quality is not None:
        say(
            f"{quality.verdict}: residual {quality.residual_rms:.4g} {quality.unit} over {quality.observations}"
        )
        for warning in quality.warnings:
            say(f"warning: {warning}")


# ---------------------------------------------------------------- radiometry


def _stack(session: Session, camera: str | None) -> Stack:
    cameras = sorted({record.shot.camera for record in session.frames})
    if not cameras:
        raise FitError(f"{session.path}: has no frames")
    if camera is None and len(cameras) > 1:
        raise FitError(f"{session.path}: has cameras {', '.join(cameras)}: say which with --camera")
    if camera is not None and camera not in cameras:
        raise FitError(f"{session.path}: no frames of camera {camera!r}; it has {', '.join(cameras)}")
    return session.stack(camera or cameras[0])


def _of_kind(session: Session, camera: str | None, kind: str, pose: str | None = None) -> Stack:
    stack = _stack(session, camera).select(kind=kind)
    if not len(stack):
        raise FitError(f"{session.path}: has no {kind!r} frames")
    poses = tuple(dict.fromkeys(stack.poses))
    if pose is not None:
        if pose not in poses:
            raise FitError(f"{session.path}: no {kind!r} frames of pose {pose!r}; it has {', '.join(poses)}")
        stack = stack.select(pose=pose)
    return stack


def _provenance(session: Session, **options: str | float | int | bool) -> Provenance:
    from importlib.metadata import version

    return Provenance(session=session.digest, code_version=version("gnomon"), options=options)


def _sensor_for(stack: Stack, sensor: RadiometricModel | None) -> RadiometricModel:
    if sensor is None:
        return RadiometricModel.nominal(stack.pixel_format, stack.shape[1:])
    if sensor.shape != stack.shape[1:]:
        raise FitError(
            f"sensor model is for frames of {sensor.shape}, these are {stack.shape[1:]} (rows, columns)"
        )
    return sensor


def calibrate_sensor(
    session: Session, *, camera: str | None = None, track: Track = silent
) -> RadiometricModel:
    """Photon transfer on the session's ``flat`` and ``dark`` frames."""
    flats, darks = (_of_kind(session, camera, kind) for kind in ("flat", "dark"))
    return fit_sensor(
        flats,
        flats.exposure_s,
        darks,
        darks.exposure_s,
        pixel_format=flats.pixel_format,
        gain_db=float(flats.gain_db[0]),
        provenance=_provenance(session),
    )


def calibrate_response(session: Session, *, camera: str | None = None) -> RadiometricModel:
    """Response curve from the session's one exposure stack (Debevec and Malik)."""
    stack = _stack(session, camera)
    stack = (
        stack.select(kind="object") if "object" in {k for r in stack.records for k in r.shot.kinds} else stack
    )
    return fit_response(list(stack), stack.exposure_s)


def _merged(stack: Stack, sensor: RadiometricModel, background: Radiance | None = None) -> Radiance:
    radiance = merge_frames(stack, stack.exposure_s, sensor, background=background)
    cfa = format_cfa(stack.pixel_format)
    return radiance if cfa is None else demosaic(radiance, cfa)


def _background(session: Session, camera: str | None, pose: str, sensor: RadiometricModel) -> Radiance | None:
    """Light that is there with every lamp dark, where the session has ``ambient`` frames of this pose."""
    stack = _stack(session, camera).select(kind="ambient", pose=pose)
    return merge_frames(stack, stack.exposure_s, sensor) if len(stack) else None


class LightImages(NamedTuple):
    """Merged radiance under each light in turn, background removed.

    ``names`` (n,), ``value`` and ``variance`` (n, h, w) or (n, h, w, 3) float32, e-/s; NaN where no sample is valid.
    """

    names: tuple[str, ...]
    value: Image
    variance: Image


def light_images(
    session: Session,
    kind: str,
    *,
    sensor: RadiometricModel | None = None,
    camera: str | None = None,
    pose: str | None = None,
    track: Track = silent,
) -> LightImages:
    """Merge the frames of ``kind`` light by light.

    Raises
    ------
    FitError
        No such frames, several poses and none chosen, or no frame with a light.
    """
    stack = _of_kind(session, camera, kind, pose)
    poses = tuple(dict.fromkeys(stack.poses))
    if len(poses) > 1:
        raise FitError(f"{session.path}: {kind!r} frames of poses {', '.join(poses)}: say which with --pose")
    model = _sensor_for(stack, sensor)
    names = tuple(name for name in dict.fromkeys(stack.lights) if name)
    if not names:
        raise FitError(f"{session.path}: no {kind!r} frame has a light")
    background = _background(session, camera, poses[0], model)
    value: Image | None = None
    for index, name in enumerate(track(names, "merging exposures")):
        merged = _merged(stack.select(light=name), model, background)
        if value is None:
            value = np.empty((len(names), *merged.value.shape), np.float32)
            variance = np.empty_like(value)
        value[index], variance[index] = merged
    assert value is not None
    return LightImages(names, value, variance)


def merge_session(
    session: Session,
    out: Path,
    *,
    sensor: RadiometricModel | None = None,
    camera: str | None = None,
    track: Track = silent,
) -> Iterator[Path]:
    """Write one radiance EXR for each pose and light: channels ``R G B`` or ``Y``, and their sigma; yield the paths."""
    stack = _stack(session, camera)
    model = _sensor_for(stack, sensor)
    out.mkdir(parents=True, exist_ok=True)
    groups = tuple(dict.fromkeys(zip(stack.poses, stack.lights, strict=True)))
    for pose, light in track(groups, "merging exposures"):
        merged = _merged(stack.select(pose=pose, light=light), model)
        channels = {}
        for name, image in (("", merged.value), ("sigma.", np.sqrt(merged.variance))):
            planes = [image] if image.ndim == 2 else list(np.moveaxis(image, -1, 0))
            for letter, plane in zip("Y" if image.ndim == 2 else "RGB", planes, strict=True):
                channels[name + letter] = plane
        path = out / (f"{pose}-{light}.exr" if light else f"{pose}.exr")
        attributes = {"units": "e-/s" if sensor is not None else "relative", "session": session.digest}
        files.write_exr(path, channels, attributes)
        yield path


def gray(image: Image) -> Image:
    """Mean over colour channels, ``(..., h, w[, 3]) -> (..., h, w)``; NaN where a channel is."""
    return image if image.shape[-1] != 3 else np.asarray(image.mean(axis=-1), np.float32)


# ---------------------------------------------------------------- lens


def calibrate_lens(
    session: Session,
    board: Board | None,
    *,
    sensor: RadiometricModel | None = None,
    camera: str | None = None,
    track: Track = silent,
) -> LensModel:
    """Lens from the session's ``board`` frames; frames of one pose count as one view."""
    assert board is not None
    stack = _of_kind(session, camera, "board")
    model = _sensor_for(stack, sensor)
    views, names, missed = [], [], []
    for name, view in track(_board_views(stack), "finding boards"):
        merged = _merged(view, model)
        found = detect_board(gray(merged.value), board)
        if found is None:
            missed.append(name)
        else:
            views.append(found)
            names.append(name)
    if not views:
        raise FitError(f"{session.path}: the board was found in none of {len(missed)} views")
    height, width = stack.shape[1:3]
    lens = fit_lens(views, width, height, names=names, provenance=_provenance(session, board=board.kind))
    if missed:
        note = f"board not found in {len(missed)} of {len(missed) + len(names)} views: {', '.join(missed)}"
        lens = lens.replace(quality=_warned(lens.quality, note))
    return lens


def _warned(quality: Quality | None, warning: str) -> Quality | None:
    return None if quality is None else quality.replace(warnings=(*quality.warnings, warning))


def _board_views(stack: Stack) -> list[tuple[str, Stack]]:
    """Frames of one pose, unless they repeat each other: then nobody named the poses and each is a view."""
    views = []
    for pose in dict.fromkeys(stack.poses):
        group = stack.select(pose=pose)
        keys = [(r.shot.light, r.exposure_s, r.shot.repeat) for r in group.records]
        if len(set(keys)) == len(keys):
            views.append((pose, group))
        else:
            views += [(f"frame {r.shot.index}", group[i : i + 1]) for i, r in enumerate(group.records)]
    return views


# ---------------------------------------------------------------- lights


class LightsResult(NamedTuple):
    """Calibrated lights and what they were seen by: spheres, highlights, the mean picture over the lights."""

    lights: LightSet
    spheres: tuple[SphereView, ...]
    highlights: Highlights
    picture: Image


def calibrate_lights(
    session: Session,
    target: SphereTarget | None,
    *,
    sensor: RadiometricModel | None = None,
    lens: LensModel | None = None,
    board: Board | None = None,
    board_reflectance: float = 0.9,
    masks: Sequence[Path] = (),
    model: Literal["auto", "near", "distant"] = "auto",
    camera: str | None = None,
    track: Track = silent,
) -> LightsResult:
    """Lights from the session's ``sphere`` frames.

    Positions or directions come from the highlights in the mirror spheres. Intensities come from the white of a
    board in the same frames when ``board`` and ``lens`` are given, else from the highlights' flux.

    Parameters
    ----------
    target : SphereTarget or None
        Number and diameter; None: whatever spheres are found, of unknown size (distant lights only).
    masks : sequence of paths
        Mask images, one a sphere, in place of detection.
    model : 'auto', 'near' or 'distant'

    Raises
    ------
    FitError
        No sphere, or a light without consistent highlights; the message names it.
    """
    images = light_images(session, "sphere", sensor=sensor, camera=camera, track=track)
    values = list(gray(images.value))
    count = None if target is None else target.count
    if masks:
        views = tuple(sphere_from_mask(read_mask(path, values[0].shape), lens) for path in masks)
    else:
        views = detect_spheres(values, lens, count=count)
    if not views:
        raise FitError(f"{session.path}: no mirror sphere found in the {len(values)} images: give --mask")
    if count is not None and len(views) < count:
        raise FitError(f"{session.path}: {len(views)} mirror spheres found, the rig has {count}")
    highlights = locate_highlights(values, views)
    lights = fit_lights(
        images.names,
        highlights,
        views,
        lens,
        sphere_radius_mm=None if target is None else target.diameter_mm / 2,
        model=model,
        provenance=_provenance(session, spheres=len(views), model=model),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a pixel may be saturated under every light
        picture = np.asarray(np.nanmean(values, axis=0), np.float32)
    if board is not None and lens is not None:
        found = detect_board(picture, board)
        if found is None:
            note = "board not found beside the spheres: intensities come from the highlights"
            lights = lights.replace(quality=_warned(lights.quality, note))
        else:
            pose = fit_pose(lens, found.points_mm, found.pixels)
            samples = sample_plane(
                images.value,
                images.variance,
                lens,
                (pose.rotvec, pose.t_mm),
                white_spots(board),
                board_reflectance,
            )
            lights = fit_intensities(lights, samples)
    return LightsResult(lights, views, highlights, picture)


# ---------------------------------------------------------------- surface


class Result(NamedTuple):
    """One reconstructed object: what it rests on and what came out."""

    reconstruction: Reconstruction
    images: LightImages
    mask: NDArray[np.bool_]
    name: str
    provenance: Provenance


def read_mask(path: Path, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Mask image, any format OpenCV reads: True where any channel is not zero."""
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise ConfigError(f"{path}: no such image")
    mask = np.asarray(image > 0 if image.ndim == 2 else (image[..., :3] > 0).any(axis=-1))
    if mask.shape != shape:
        raise ConfigError(
            f"{path}: mask is {mask.shape[1]} x {mask.shape[0]} px, the frames {shape[1]} x {shape[0]}"
        )
    if not mask.any():
        raise ConfigError(f"{path}: mask is empty")
    return mask


def reconstruct(
    session: Session,
    lights: LightSet,
    *,
    sensor: RadiometricModel | None = None,
    lens: LensModel | None = None,
    mask: Path | NDArray[np.bool_] | None = None,
    pose: str | None = None,
    method: Method = "robust",
    camera: str | None = None,
    depth_mm: float | None = None,
    track: Track = silent,
) -> Result:
    """Normals, albedo, depth and mesh of the session's ``object`` frames.

    Parameters
    ----------
    lens : LensModel, optional
        Without, the view is taken as orthographic and depth is in pixels.
    mask : path or ndarray (h, w) of bool, optional
        Where the object is; found from the brightness without.
    depth_mm : float, optional
        Rough depth of the object; that of the calibration spheres without.

    Raises
    ------
    FitError
        Frames, lights and models do not fit together; the message names what.
    """
    images = light_images(session, "object", sensor=sensor, camera=camera, pose=pose, track=track)
    used = [lights.lights.get(name) for name in images.names]
    unknown = [name for name, light in zip(images.names, used, strict=True) if light is None]
    if unknown:
        raise FitError(
            f"the light model has no {', '.join(unknown[:5])}{' ...' if len(unknown) > 5 else ''}; "
            f"it has {', '.join(list(lights.lights)[:5])} ..."
        )
    shape = images.value.shape[1:3]
    if lens is not None and (lens.height, lens.width) != shape:
        raise FitError(
            f"lens model is for {lens.width} x {lens.height} px, the frames are {shape[1]} x {shape[0]}"
        )
    if mask is None:
        mask = object_mask(images.value, images.variance)
        if not mask.any():
            raise FitError(
                f"{session.path}: nothing is bright enough to be the object: give --mask or longer exposures"
            )
    elif isinstance(mask, Path):
        mask = read_mask(mask, shape)
    provenance = _provenance(session, method=method, lights=len(used))
    reconstruction = surface_of(
        images.value,
        images.variance,
        [light for light in used if light is not None],
        lens=lens,
        mask=mask,
        depth_mm=depth_mm or lights.scene_depth_mm,
        method=method,
        provenance=provenance,
    )
    name = pose or _of_kind(session, camera, "object", pose).poses[0]
    return Result(reconstruction, images, mask, name, provenance)


def solve_again(result: Result, lights: LightSet, lens: LensModel | None, method: Method) -> NormalMap:
    """Normals of the same images at the same depth by another method."""
    return solve(
        result.images.value,
        result.images.variance,
        [lights.lights[name] for name in result.images.names],
        lens=lens,
        depth_mm=result.reconstruction.depth_mm,
        mask=result.mask,
        method=method,
    )


def write_reconstruction(
    out: Path,
    result: Result,
    *,
    sensor: RadiometricModel | None = None,
    lens: LensModel | None = None,
    lights: LightSet | None = None,
) -> list[Path]:
    """Write normals, albedo, depth, mesh and the models used into ``out``; return the paths.

    ``normals.exr`` (``N.X N.Y N.Z``, ``sigma`` in degrees, ``lights``), ``albedo.exr`` (``albedo.R G B`` or
    ``albedo.Y``), ``depth.exr`` (``Z`` in mm), ``mesh.ply``, ``normals.png`` to look at, ``models/*.json``.
    """
    normals, depth, _, _ = result.reconstruction
    out.mkdir(parents=True, exist_ok=True)
    about = {
        "session": result.provenance.session,
        "code_version": result.provenance.code_version,
        "frame": "camera: x right, y down, z forward; normals point to the camera",
    }
    channels = {f"N.{axis}": normals.normals[..., i] for i, axis in enumerate("XYZ")}
    channels |= {"sigma": normals.sigma_deg, "lights": normals.lights_used.astype(np.float32)}
    files.write_exr(out / "normals.exr", channels, about | {"units": "N: unit vector; sigma: degrees"})
    planes = [normals.albedo] if normals.albedo.ndim == 2 else list(np.moveaxis(normals.albedo, -1, 0))
    letters = "Y" if len(planes) == 1 else "RGB"
    files.write_exr(
        out / "albedo.exr",
        {f"albedo.{letter}": plane for letter, plane in zip(letters, planes, strict=True)},
        about | {"units": "reflectance relative to the lights' intensity"},
    )
    files.write_exr(out / "depth.exr", {"Z": depth}, about | {"units": "px" if lens is None else "mm"})
    write_ply(out / "mesh.ply", mesh(depth, lens, normals.albedo, normals=normals.normals))
    files.write_normals_png(out / "normals.png", normals.normals)
    written = [out / name for name in ("normals.exr", "albedo.exr", "depth.exr", "mesh.ply", "normals.png")]
    models = {"sensor": sensor, "lens": lens, "lights": lights}
    (out / "models").mkdir(exist_ok=True)
    for name, model in models.items():
        if model is not None:
            files.save_model(out / "models" / f"{name}.json", model)
            written.append(out / "models" / f"{name}.json")
    return written
