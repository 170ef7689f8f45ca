"""Radiance of a session's exposure stacks as files: the frames checked against each other, merged, scaled."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from calibration import files
from calibration.colour import ColourModel
from calibration.progress import Track, silent
from calibration.provenance import FitError, Quality
from calibration.radiometric import Radiance, RadiometricModel, demosaic
from calibration.radiometric import consistency as stacks
from calibration.radiometric import merge as merge_frames
from capture.frame import format_cfa
from capture.session import Session, Stack
from rigs.workflows.encoding import doubts_of
from rigs.workflows.evidence import refuse_nonlinear
from rigs.workflows.frames import provenance_of, sensor_for, stack_of
from rigs.workflows.merge_record import MergeRecord, Patch, scale_of
from rigs.workflows.merge_remarks import (
    MOST_CHI2,
    check_light,
    explained,
    gross,
    name_exposures,
    name_movement,
    name_residuals,
)

ExposureChoice = Literal["auto", "refined", "told"]

# Frames of one stack are kept in memory up to this size, and read again and again beyond it.
_MOST_BYTES = 1 << 30
_MOST_FRAMES = 64  # of which the merge can leave out single samples: it keeps a bit for each
_CHOOSE = "leave the frame out, correct its time, or choose --exposures refined or told"
# A response curve is good to percents, a linear sensor to parts of one.
_TOLERANCE = {"linear": 0.03, "curve": 0.1}


class Merged(NamedTuple):
    """One radiance picture on disk and how it was made."""

    path: Path
    record: MergeRecord


class _Picture(NamedTuple):
    radiance: Radiance
    motion: NDArray[np.float32] | None
    record: MergeRecord


def merge_session(
    session: Session,
    out: Path,
    *,
    sensor: RadiometricModel | None = None,
    sensor_digest: str = "",
    camera: str | None = None,
    exposures: ExposureChoice = "auto",
    margin_px: int = 1,
    motion: bool = True,
    luminance: Patch | None = None,
    colour: ColourModel | None = None,
    track: Track = silent,
) -> Iterator[Merged]:
    """Write one radiance EXR for each pose and light, with the record of its making beside it.

    Parameters
    ----------
    session : Session
        Dark frames give black level and read noise where there is no sensor model; the others are merged.
    out : Path
        Folder. ``NAME.exr`` has ``R G B`` or ``Y``, their sigma as ``sigma.R`` and so on, and ``motion``: the
        number of frames left out at a pixel because something had moved. ``NAME.json`` is a `MergeRecord`.
    sensor : RadiometricModel, optional
        Without one, integer frames are taken as linear and their noise is estimated from the stack itself.
    sensor_digest : str
        Recorded.
    exposures : 'auto', 'refined' or 'told'
        'auto': those found in the data where a frame deviates from what was told by more than four sigma,
        systematics included, and the camera is linear; a response curve was fitted with the told ones. A
        frame that is off by more than 25 % is followed where the black level is known, most frames agree, and
        the found times explain what the frames differ by.
    margin_px : int
        Samples so near a saturated one of the same frame are left out.
    motion : bool
        Whether to look for what moved, and to leave it out.
    luminance : Patch, optional
        Puts all pictures on the scale of cd/m^2.
    colour : ColourModel, optional
        Puts them in linear Rec.709.

    Yields
    ------
    Merged
        As each is written.

    Raises
    ------
    FitError
        No frame but darks, frames of different gains, too many of one view, a picture that is saturated or
        black all over, a told exposure that cannot be and is not explained, a patch that cannot be
        measured. The message names the frame. Pictures before the faulty one have been written, each whole.
    """
    stack = _bright(session, stack_of(session, camera))
    model = sensor_for(session, stack, sensor)
    refuse_nonlinear(session, stack, model, sensor, "merge")
    if colour is not None and stack.pixel_format.startswith("Mono"):
        raise FitError(f"{session.path}: its frames have one channel: no colour model fits them")
    groups = list(dict.fromkeys(zip(stack.poses, stack.lights, strict=True)))
    names = {group: "-".join(part for part in group if part) for group in groups}
    if luminance is not None:
        groups = _first(groups, names, luminance)
    scale: tuple[float, float] | None = None
    for group in track(groups, "merging exposures"):
        pose, light = group
        label = _Label(session, stack.select(pose=pose, light=light))
        picture = _merged(
            label,
            model,
            measured=sensor is not None,
            darks=session.stack(stack.records[0].shot.camera).select(kind="dark"),
            exposures=exposures,
            margin_px=margin_px,
            motion=motion,
            # Light that is there with the lamps dark may well be none.
            may_be_black=not light and any(other for _, other in groups),
        )
        if colour is not None:
            picture = picture._replace(radiance=colour.correct(picture.radiance))
        if luminance is not None and scale is None:
            # Of camera RGB, green is what comes nearest to luminance.
            weights = (0.0, 1.0, 0.0) if colour is None else colour.luminance
            scale = scale_of(picture.radiance, luminance, names[group], np.array(weights))
        out.mkdir(parents=True, exist_ok=True)
        yield _write(out, names[group], picture, scale, sensor_digest, session, stack.pixel_format, colour)


class _Label:
    """Frames of one picture, with a name for each that its owner knows."""

    def __init__(self, session: Session, stack: Stack) -> None:
        self.stack = stack
        sources = session.facts.get("files", [])
        names = (sources[r.shot.index] if r.shot.index < len(sources) else r.file for r in stack.records)
        # What was imported from elsewhere is told by its name; its folder says nothing and is long.
        self.names = tuple(Path(name).name if Path(name).is_absolute() else name for name in names)
        self.session = session

    def say(self, index: int) -> str:
        """Frame as messages name it."""
        return f"frame {self.names[index]} ({self.stack.records[index].exposure_s:g} s)"


def _bright(session: Session, stack: Stack) -> Stack:
    every = {kind for r in stack.records for kind in r.shot.kinds} - {"dark"}
    if not any(stack.lights):
        # Without lights' names nothing would keep the ambient light apart from the pictures.
        every = every - {"ambient"} or every
    kinds = tuple(sorted(every))
    if not kinds:
        raise FitError(f"{session.path}: has dark frames only: nothing to merge")
    stack = stack.select(kind=kinds)
    gains = dict.fromkeys(record.gain_db for record in stack.records)
    if len(gains) > 1:
        listed = ", ".join(f"{gain:g}" for gain in gains)
        raise FitError(f"{session.path}: frames of gains {listed} dB: one sensor model is good for one gain")
    return stack


def _first(
    groups: list[tuple[str, str]], names: dict[tuple[str, str], str], patch: Patch
) -> list[tuple[str, str]]:
    """Groups with the one that shows the patch before the others: its scale is wanted for all."""
    if not patch.picture and len(groups) == 1:
        return groups
    for group in groups:
        if names[group] == patch.picture:
            return [group, *(other for other in groups if other != group)]
    listed = ", ".join(list(names.values())[:5]) + (" ..." if len(names) > 5 else "")
    raise FitError(
        f"luminance: {'no picture ' + repr(patch.picture) if patch.picture else 'several pictures'}: say "
        f"which shows the patch, as NAME:X,Y,W,H=CD_M2; there are {listed}"
    )


def _held(stack: Stack) -> Sequence[NDArray[Any]]:
    shape = stack.shape
    first = np.asarray(stack[0])
    return list(stack) if first.nbytes * shape[0] <= _MOST_BYTES else stack


def _merged(
    label: _Label,
    model: RadiometricModel,
    *,
    measured: bool,
    darks: Stack,
    exposures: ExposureChoice,
    margin_px: int,
    motion: bool,
    may_be_black: bool,
) -> _Picture:
    stack = label.stack
    told, count = stack.exposure_s, len(stack)
    if count > _MOST_FRAMES and (margin_px or motion):
        raise FitError(
            f"{label.session.path}: {count} frames of one view: motion and the margin about saturation "
            f"can be judged for {_MOST_FRAMES} at most: merge fewer, or give --no-motion --margin 0"
        )
    frames = _held(stack)
    cfa = format_cfa(stack.pixel_format)
    doubts = doubts_of(label.session, stack.records[0].shot.camera, model, linear="radiances")
    warnings = [doubt.text for doubt in doubts]
    sample = stacks.sample_stack(frames, model, margin=margin_px)
    check_light(label, sample, told, warnings, may_be_black)
    found = stacks.find_exposures(sample, told)
    keep: NDArray[np.bool_] | None = None
    if not measured:
        half = np.where(stacks.one_half(sample, 0), sample.electrons, np.float32(np.nan))
        noise = stacks.noise_of_stack(
            sample._replace(electrons=half),
            found.found_s,
            model,
            darks=darks,
            dark_exposure_s=darks.exposure_s,
        )
        if noise is not None:
            nominal, model = model, stacks.with_noise(model, noise)
            sample = stacks.counted_by(sample, nominal, model)
            found = stacks.find_exposures(sample, told)
            # Not judged by the pixels that the noise was taken from.
            keep = stacks.one_half(sample, 1)
    if model.quality is not None:
        warnings += model.quality.warnings
    linear = model.response is None and model.counts_electrons
    # With the black level known, times are what is left to explain frames that most others contradict.
    known = linear and (measured or len(darks) > 0)
    # Of room light, dim and flickering, the times are not judged.
    odd = "" if may_be_black else gross(label, found)
    refined = exposures == "refined" or (
        exposures == "auto"
        and linear
        and found.significant
        and (not odd or (known and bool(found.off.any())))
    )
    if odd and known and exposures == "auto" and not refined:
        raise FitError(f"{odd}; no majority says which is right: {_CHOOSE}")
    used = found.found_s if refined else told
    # Who insists on times that are off does not mean that the scene moved.
    judged = found.found_s if known and found.off.any() else used
    if not may_be_black:
        name_exposures(label, found, odd, warnings, exposures=exposures, refined=refined, known=known)
    residuals = stacks.residuals_of(sample, used, keep, cfa=cfa)
    masks: tuple[NDArray[np.bool_] | None, ...] = (None,) * count
    moved, reference = np.zeros(count), stacks.reference_of(sample, used)
    moved_count: NDArray[np.float32] | None = None
    if motion and count > 1:
        agreeing = residuals if judged is used else stacks.residuals_of(sample, judged, keep, cfa=cfa)
        scatter = np.sqrt(np.nan_to_num(agreeing.robust_by_frame, nan=1.0))
        tolerance = _TOLERANCE["linear" if linear else "curve"]
        result = stacks.find_motion(
            frames,
            judged,
            model,
            margin=margin_px,
            noise_scale=scatter,
            tolerance=tolerance,
            reference=reference,
        )
        masks, moved, moved_count = result.masks, result.share, result.left_out(model.shape)
        if any(mask is not None for mask in masks):
            still = np.stack([_still(sample, mask, i) for i, mask in enumerate(masks)])
            keep = still if keep is None else keep & still
            # Once more without what moved; the masks stay, since a percent does not change what they mark.
            found = stacks.find_exposures(
                sample._replace(electrons=np.where(still, sample.electrons, np.float32(np.nan))), told
            )
            used = found.found_s if refined else told
            residuals = stacks.residuals_of(sample, used, keep, cfa=cfa)
    if odd and refined and exposures == "auto" and residuals.robust > MOST_CHI2:
        raise FitError(
            f"{odd}, which does not explain the frames (reduced chi^2 {residuals.robust:.3g}): {_CHOOSE}"
        )
    bend = None
    if count > 1:
        still_told = sample if keep is None else sample._replace(
            electrons=np.where(keep, sample.electrons, np.float32(np.nan))
        )  # fmt: skip
        bend = stacks.find_bend(still_told, told, model)
    shifts = stacks.find_shifts(sample, used, mosaic=cfa is not None)
    name_movement(label, shifts, moved, warnings)
    if model.counts_electrons and not explained(residuals):
        by_times = residuals if refined else stacks.residuals_of(sample, found.found_s, keep, cfa=cfa)
        name_residuals(residuals, by_times, bend, warnings)
    if not model.counts_electrons:
        # Of floats nobody knows the noise: there is nothing to judge the residuals by.
        residuals = residuals._replace(
            total=np.nan,
            robust=np.nan,
            by_frame=np.full(count, np.nan),
            by_colour={},
            by_signal=np.empty((0, 4)),
        )
    how: dict[str, Any] = {}
    if any(mask is not None for mask in masks):
        how["reject"] = masks
    if margin_px:
        how["saturation_margin_px"] = margin_px
    radiance = merge_frames(frames, used, model, **how)
    if cfa is not None:
        radiance = demosaic(radiance, cfa, defects=model.defects)
    if not np.isfinite(radiance.value).any():
        shortest = int(np.argmin(told))
        raise FitError(f"{label.say(shortest)}: saturated everywhere, and it is the shortest: expose shorter")
    record = MergeRecord(
        picture="",
        frames=label.names,
        told_s=tuple(told.tolist()),
        found_s=tuple(found.found_s.tolist()),
        used_s=tuple(used.tolist()),
        sigma=tuple(found.sigma.tolist()),
        systematic=tuple(found.systematic.tolist()),
        exposure_scale_sigma=found.scale_sigma,
        refined=refined,
        reference=reference,
        chi2=residuals.total,
        chi2_robust=residuals.robust,
        chi2_frame=tuple(residuals.by_frame.tolist()),
        chi2_colour=residuals.by_colour,
        chi2_signal=tuple((a, b, c, d) for a, b, c, d in residuals.by_signal.tolist()),
        shift_px=tuple((x, y) for x, y in shifts.shift_px.tolist()),
        shift_sigma_px=tuple((x, y) for x, y in shifts.sigma_px.tolist()),
        moved=tuple(moved.tolist()),
        **({} if bend is None else _bend_fields(bend)),
        margin_px=margin_px,
        units="e-/s" if measured and model.counts_electrons and model.response is None else "relative",
        sensor="" if measured else _stand_in(model),
        quality=Quality(
            residual_rms=float(np.sqrt(residuals.total)),
            unit="sigma",
            observations=residuals.samples,
            rejected=round(float(moved.sum()) * model.height * model.width),
            verdict="doubtful" if warnings else "good",
            warnings=tuple(warnings),
        ),
        provenance=provenance_of(label.session, exposures=exposures, margin_px=margin_px, motion=motion),
    )
    return _Picture(radiance, moved_count, record)


def _bend_fields(bend: stacks.Bend) -> dict[str, float]:
    return {
        "bend_percent": bend.full_scale_percent,
        "bend_sigma_percent": bend.sigma_percent,
        "black_off_dn": bend.black_dn,
        "black_off_sigma_dn": bend.black_sigma_dn,
        "bend_chi2": bend.chi2,
    }


def _still(sample: stacks.Sample, mask: NDArray[np.bool_] | None, index: int) -> NDArray[np.bool_]:
    tiles = sample.electrons[index]
    if mask is None:
        return np.ones(tiles.shape, bool)
    still = ~sample.cut(mask)
    return np.broadcast_to(still if still.ndim == tiles.ndim else still[..., None], tiles.shape)


def _stand_in(model: RadiometricModel) -> str:
    if not model.counts_electrons:
        return "none: float frames, noise of 1 % taken for granted"
    return f"none: gain {model.gain_dn_per_e:.4g} DN/e-, read noise {model.read_noise_e:.3g} e- stood in"


def _write(
    out: Path,
    name: str,
    picture: _Picture,
    scale: tuple[float, float] | None,
    sensor_digest: str,
    session: Session,
    pixel_format: str,
    colour: ColourModel | None,
) -> Merged:
    record = picture.record.replace(
        picture=name,
        sensor=sensor_digest or picture.record.sensor,
        units=picture.record.units if scale is None else "cd/m^2",
        scale=0.0 if scale is None else scale[0],
        scale_sigma=0.0 if scale is None else scale[1],
    )
    factor = np.float32(1 if scale is None else scale[0])
    value, sigma = picture.radiance.value * factor, np.sqrt(picture.radiance.variance) * factor
    letters = "Y" if value.ndim == 2 else "RGB"
    channels: dict[str, NDArray[np.float32]] = {}
    for prefix, image in (("", value), ("sigma.", sigma)):
        planes = [image] if image.ndim == 2 else list(np.moveaxis(image, -1, 0))
        channels |= {prefix + letter: plane for letter, plane in zip(letters, planes, strict=True)}
    if picture.motion is not None:
        channels["motion"] = picture.motion
    # The record first: who sees the picture finds how it was made.
    files.save_model(out / f"{name}.json", record)
    path = out / f"{name}.exr"
    attributes = _attributes(record, session, pixel_format, letters)
    if colour is not None:
        attributes |= colour.attributes | ({"scaleOf": "luminance"} if scale else {})
        # A unit of its own knows nothing of the light of the chart.
        if picture.record.units != "relative":
            attributes["whiteLevel"] = float(colour.white_level * factor)
    files.write_exr(path, channels, attributes)
    return Merged(path, record)


def _attributes(
    record: MergeRecord, session: Session, pixel_format: str, letters: str
) -> dict[str, files.Attribute]:
    """Header of the picture. Camera RGB has no chromaticities; a colour model gives them."""
    units = record.units
    attributes: dict[str, files.Attribute] = {
        "software": f"gnomon {record.provenance.code_version}",
        "session": session.digest,
        "sensorModel": record.sensor,
        "units": f"{', '.join(letters)}, sigma: {units}; motion: frames left out",
        "colourSpace": "monochrome" if letters == "Y" else f"camera RGB of {pixel_format}: no chromaticities",
        # Radiance is per second; this is the exposure of the frame whose scene was kept.
        "expTime": record.used_s[record.reference],
        "exposuresTold": list(record.told_s),
        "exposuresUsed": list(record.used_s),
        "exposuresFrom": "the pictures" if record.refined else "as told",
        "reducedChi2": float(np.nan_to_num(record.chi2, nan=-1)),
        "moved": list(record.moved),
        "saturationMargin": record.margin_px,
    }
    if record.scale:
        attributes |= {"whiteLuminance": 1.0, "scale": record.scale, "scaleSigma": record.scale_sigma}
        if letters == "RGB":
            attributes["scaleOf"] = "the green channel"
    return attributes
