"""Questions that a session answers about itself: linearity, drift, clipping, frames that betray trouble."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from calibration.progress import Track, silent
from calibration.provenance import FitError
from calibration.radiometric import RadiometricModel
from calibration.radiometric.checks import (
    Check,
    Ratio,
    SessionChecks,
    Verdict,
    clipped_shares,
    fit_ratio,
    judge_linearity,
    linearity,
)
from capture.frame import format_bits, format_cfa
from capture.session import FrameRecord, Session, Stack
from rigs.config import ConfigError
from rigs.workflows.encoding import encoding_of
from rigs.workflows.evidence import (
    MOST_REJECTED,
    Clipped,
    Seen,
    by_exposure,
    clipping_texts,
    exposure_pairs,
    offset_sigma,
    see,
    strangers,
    views_of,
)
from rigs.workflows.frames import provenance_of, sensor_for, stack_of

Float = NDArray[np.float64]
Box = tuple[int, int, int, int]
"""Column and row of the top left pixel, width and height."""

_LAMP_DRIFT = 0.01
_BLACK_DRIFT = 0.001
_ZEROS = 0.01
# Nothing can be made of a view with more than this at the ceiling, or at 0.
_LOST = 0.5
_BLACK = 0.999
_NAMED = 3
# Between the percentiles 2 and 98 of noise lie 4.1 sigma, 5.8 where noise of an ambient frame was taken off.
_NOISE_ONLY = 6.0


class _View(NamedTuple):
    """Frames of one pose under one light at one gain, and what is clipped in all their exposures."""

    pose: str
    light: str
    frames: list[Seen]
    clipped: Clipped

    @property
    def name(self) -> str:
        return self.clipped.name


def check_session(
    session: Session,
    *,
    sensor: RadiometricModel | None = None,
    camera: str | None = None,
    patch: Box | None = None,
    track: Track = silent,
) -> SessionChecks:
    """Put every question to the frames of one camera; each is read once.

    Parameters
    ----------
    sensor : RadiometricModel, optional
        The pinned model that the frames are held against; nominal and linear without.
    patch : (x, y, width, height), optional
        A reference patch in pixels that is in every frame: linearity and drift are judged there, and across
        poses. Without, by all blocks of pixels that stand still.

    Raises
    ------
    FitError
        The session cannot be read as a stack, the model is of another size, or the patch is outside.
    """
    stack = stack_of(session, camera)
    model = sensor_for(session, stack, sensor)
    name = stack.records[0].shot.camera
    window = _window(patch, stack.shape[1:3])
    offset = offset_sigma(session, stack, model, sensor)
    views = list(_views(stack, model, window, session, track, measured=sensor is not None))
    results = [
        *_encoding(session, name, model),
        _linearity(views, offset),
        _lamp_drift(views, offset, len(stack), across=patch is not None),
        *_black(views, model, sensor),
        *_clipping(views, model),
        *_frames(views),
    ]
    options = {} if patch is None else {"patch": ",".join(map(str, patch))}
    return SessionChecks(results=tuple(results), provenance=provenance_of(session, **options))


def parse_patch(text: str) -> Box:
    """``x,y,width,height`` in pixels; ConfigError where it is not four whole numbers of a real patch."""
    try:
        x, y, width, height = (int(word) for word in text.split(","))
    except ValueError:
        raise ConfigError(f"patch {text!r}: want x,y,width,height in pixels, such as 100,200,40,40") from None
    if x < 0 or y < 0 or width < 2 or height < 2:
        raise ConfigError(f"patch {text!r}: want x, y from 0 and 2 or more pixels each way")
    return x, y, width, height


def _window(patch: Box | None, shape: tuple[int, ...]) -> tuple[slice, slice] | None:
    if patch is None:
        return None
    x, y, width, height = patch
    if x + width > shape[1] or y + height > shape[0]:
        raise FitError(
            f"patch {x},{y},{width},{height} is not inside the frames of {shape[1]} x {shape[0]} px"
        )
    return slice(y, y + height), slice(x, x + width)


def _views(
    stack: Stack,
    model: RadiometricModel,
    window: tuple[slice, slice] | None,
    session: Session,
    track: Track,
    *,
    measured: bool,
) -> Iterator[_View]:
    index = {record.shot.index: i for i, record in enumerate(stack.records)}
    cfa = format_cfa(stack.pixel_format)
    groups = views_of(stack, session.facts.get("photons"))
    for (pose, light, *_), records in track(groups.items(), "reading frames"):
        frames, clipped = [], None
        for record in records:
            seen, saturated = see(stack[index[record.shot.index]], record, model, window, measured=measured)
            frames.append(seen)
            clipped = saturated if clipped is None else clipped & saturated
        assert clipped is not None
        name = f"{pose}/{light}" if light else pose
        yield _View(pose, light, frames, Clipped(name, *clipped_shares(clipped, cfa)))


def _encoding(session: Session, camera: str, model: RadiometricModel) -> Iterator[Check]:
    kind, why = encoding_of(session, camera)
    if model.response is not None or (kind, why) == ("linear", ""):
        return
    verdict: Verdict = {"gamma": "fail", "suspected": "warning"}.get(kind, "ok")  # type: ignore[assignment]
    text = {"gamma": "gamma-encoded", "suspected": "perhaps gamma-encoded", "linear": "linear"}.get(kind, "")
    yield Check(name="encoding", verdict=verdict, text=f"{text}: {why}" if text else "the files say nothing")


def _linearity(views: Sequence[_View], offset: float) -> Check:
    lit = [view for view in views if "dark" not in view.frames[0].record.shot.kinds]
    bracketed = any(len(by_exposure(view.frames)) > 1 for view in lit)
    found = linearity([pair for view in lit for pair in exposure_pairs(view.frames, offset)])
    if found is None and bracketed and not np.isfinite(offset):
        text = "cannot be told: the black level is not known, and the views do not tell it: take dark frames"
        return Check(name="linearity", verdict="warning", text=text)
    return judge_linearity(found)


class _Change(NamedTuple):
    """How much brighter a later frame is than an earlier one that should be alike."""

    what: str
    value: float
    sigma: float
    first: FrameRecord
    last: FrameRecord


def _changes(views: Sequence[_View], offset: float) -> Iterator[_Change]:
    """From the first to each repeat of the same setting."""
    for view in views:
        if not view.light:
            continue
        for same in by_exposure(view.frames).values():
            for later in same[1:]:
                ratio = fit_ratio(same[0].mean, later.mean, same[0].variance, later.variance, offset)
                if ratio is not None and ratio.rejected <= MOST_REJECTED:
                    yield _change(view.light, ratio, same[0].record, later.record)


def _changes_across(views: Sequence[_View]) -> Iterator[_Change]:
    """From the first to each frame of the same light, whatever the pose and exposure, in a patch."""
    first: dict[tuple[Any, ...], tuple[Seen, Float]] = {}
    frames = sorted((s for v in views if v.light for s in v.frames), key=lambda s: s.record.shot.index)
    for seen in frames:
        rate, good = seen.mean / seen.record.exposure_s, np.isfinite(seen.mean)
        sigma = np.sqrt(seen.variance[good].sum()) / max(seen.mean[good].sum(), 1e-30)
        if good.mean() < 0.5 or not sigma < 0.05:
            continue
        key = tuple(seen.record.shot.lights.items())
        known = first.setdefault(key, (seen, rate))
        if known[0] is not seen:
            both = good & np.isfinite(known[1])
            value = float(rate[both].sum() / known[1][both].sum()) if both.any() else float("nan")
            if np.isfinite(value):
                ratio = Ratio(value, value * float(np.sqrt(2) * sigma), 1.0, int(both.sum()), 0.0)
                yield _change(seen.record.shot.light, ratio, known[0].record, seen.record)


def _change(light: str, ratio: Ratio, first: FrameRecord, last: FrameRecord) -> _Change:
    return _Change(f"lamp {light!r}", ratio.value - 1, ratio.sigma, first, last)


def _lamp_drift(views: Sequence[_View], offset: float, shots: int, *, across: bool) -> Check:
    changes = list(_changes_across(views) if across else _changes(views, offset))
    if not changes:
        if not any(view.light for view in views):
            return Check(name="lamp drift", verdict="ok", text="no lamps")
        text = (
            "nothing to check with: shoot one lamp again at the end (a block with repeats), or give --patch"
        )
        return Check(name="lamp drift", verdict="warning", text=text)
    worst = max(changes, key=lambda c: abs(c.value) if abs(c.value) > 3 * c.sigma else 0.0)
    text = (
        f"{worst.what} {100 * worst.value:+.2f} ± {100 * worst.sigma:.2f} % between {_between(worst)}; "
        f"largest of {len(changes)} comparisons"
    )
    drifts = abs(worst.value) > _LAMP_DRIFT and abs(worst.value) > 3 * worst.sigma
    span = max(c.last.shot.index - c.first.shot.index for c in changes)
    if span < 0.5 * (shots - 1):
        text += "; the repeats stand close together and see nothing of the run: shoot one at begin and end"
        return Check(name="lamp drift", verdict="warning", text=text)
    return Check(name="lamp drift", verdict="warning" if drifts else "ok", text=text)


def _between(change: _Change) -> str:
    first, last = change.first, change.last
    text = f"shots {first.shot.index} and {last.shot.index}"
    if first.timestamp_ns and last.timestamp_ns:
        seconds = (last.timestamp_ns - first.timestamp_ns) / 1e9
    elif first.timestamp_ns or last.timestamp_ns:
        start, end = (datetime.fromisoformat(record.taken_at) for record in (first, last))
        seconds = (end - start).total_seconds()
    else:
        return text  # imported: nobody knows when they were taken
    return f"{text} ({seconds:.0f} s)" if seconds < 180 else f"{text} ({seconds / 60:.0f} min)"


def _black(
    views: Sequence[_View], model: RadiometricModel, sensor: RadiometricModel | None
) -> Iterator[Check]:
    """Drift of the dark frames, their level against the pinned model's, and their zeros."""
    darks = sorted(
        (s for v in views if "dark" in v.frames[0].record.shot.kinds for s in v.frames),
        key=lambda s: s.record.shot.index,
    )
    if not darks:
        if model.counts_electrons:
            text = "nothing to check with: take dark frames at begin and end"
            yield Check(name="black drift", verdict="warning", text=text)
        return
    span = model.saturation_dn - model.black_dn
    bound = max(0.5, _BLACK_DRIFT * span)
    repeated = [same for same in by_exposure(darks).values() if len(same) > 1]
    if repeated:
        same = max(repeated, key=lambda s: abs(s[-1].mean_dn - s[0].mean_dn))
        drift, first, last = same[-1].mean_dn - same[0].mean_dn, same[0].record.shot, same[-1].record.shot
        text = f"{drift:+.3f} DN between shots {first.index} and {last.index} at {first.exposure_s:g} s"
        bad = abs(drift) > bound
        yield Check(name="black drift", verdict="warning" if bad else "ok", text=text)
    else:
        text = "nothing to check with: repeat a dark frame at the end of the run"
        yield Check(name="black drift", verdict="warning", text=text)
    if sensor is not None and sensor.response is None:
        gain = sensor.gain_dn_per_e
        off = [
            s.mean_dn - sensor.black_dn - gain * sensor.dark_current_e_s * s.record.exposure_s for s in darks
        ]
        worst = max(off, key=abs)
        text = f"dark frames are {worst:+.3f} DN off the sensor model ({sensor.black_dn:.2f} DN)"
        yield Check(name="black level", verdict="warning" if abs(worst) > bound else "ok", text=text)
    zeros = max(s.zeros for s in darks)
    if zeros > _ZEROS:
        text = (
            f"{100 * zeros:.1f} % of a dark frame is at 0 DN: noise is cut off and black comes out too high"
        )
        yield Check(name="clipped black", verdict="warning", text=f"{text}; raise the camera's black level")


def _clipping(views: Sequence[_View], model: RadiometricModel) -> Iterator[Check]:
    if format_bits(model.pixel_format) is None:
        return
    lit = [view for view in views if "dark" not in view.frames[0].record.shot.kinds]
    texts = clipping_texts(view.clipped for view in lit)
    lost = any(max(view.clipped.shares.values()) > _LOST for view in lit)
    for text in texts:
        yield Check(name="clipping", verdict="fail" if lost else "warning", text=text)
    if not texts:
        most = max((max(view.clipped.shares.values()) for view in lit), default=0.0)
        text = f"at most {100 * most:.2g} % of a channel is saturated in every exposure of its light"
        yield Check(name="clipping", verdict="ok", text=text)
    dark = [
        (min(s.zeros for s in view.frames), view) for view in lit if min(s.zeros for s in view.frames) > 0.2
    ]
    if dark:
        share, view = max(dark, key=lambda entry: entry[0])
        text = f"{100 * share:.0f} % of {view.name} is at 0 DN in every exposure ({len(dark)} views are so)"
        yield Check(name="clipped black", verdict="fail" if share > _BLACK else "warning", text=text)


def _frames(views: Sequence[_View]) -> Iterator[Check]:
    """Copies, and lamps that are dark in their own frame."""
    frames = sorted((s for v in views for s in v.frames), key=lambda s: s.record.shot.index)
    first: dict[str, FrameRecord] = {}
    copies = []
    for seen in frames:
        if seen.digest and seen.digest in first:
            copies.append((first[seen.digest].shot, seen.record.shot))
        first.setdefault(seen.digest, seen.record)
    if copies:
        other = [
            pair
            for pair in copies
            if (pair[0].exposure_s, pair[0].light) != (pair[1].exposure_s, pair[1].light)
        ]
        one, two = (other or copies)[0]
        text = f"shots {one.index} and {two.index} are the same picture"
        text += f", taken as {_setting(one)} and {_setting(two)}" if other else ""
        text += f" ({len(copies)} copies)" if len(copies) > 1 else ""
        yield Check(name="copies", verdict="fail" if other else "warning", text=text)
    lit = (v for v in views if v.light and {"object", "sphere"} & set(v.frames[0].record.shot.kinds))
    for early, late in [pair for view in lit for pair in strangers(view.frames)][:1]:
        text = f"shots {early.shot.index} and {late.shot.index}, both {_setting(early.shot)}"
        yield Check(name="repeats", verdict="fail", text=f"{text}: different pictures")
    yield from _dead_lamps(views)
    if not copies:
        yield Check(name="copies", verdict="ok", text=f"{len(frames)} frames, all different")


def _setting(shot: Any) -> str:
    return f"{shot.light or 'dark'} {shot.exposure_s:g} s"


def _dead_lamps(views: Sequence[_View]) -> Iterator[Check]:
    ambient = {view.pose: _rate(view.frames) for view in views if not view.light}
    poses: dict[str, list[tuple[float, _View]]] = {}
    for view in views:
        shot = view.frames[0].record.shot
        # a pulse may well miss the exposure: that is what it is sent for
        if view.light and "dark" not in shot.kinds and shot.strobe is None:
            rate = _rate(view.frames)
            if view.pose in ambient:
                rate = rate - ambient[view.pose]
            good = rate[np.isfinite(rate)]
            # What is saturated in every exposure is not dark.
            contrast = (
                float("inf") if len(good) < 0.5 * len(rate) else float(np.ptp(np.percentile(good, (2, 98))))
            )
            poses.setdefault(view.pose, []).append((contrast, view))
    dead, dim, lamps = [], [], 0
    for pose, entries in poses.items():
        if all(_shows_noise(contrast, view) for contrast, view in entries):
            text = f"{pose}: no more than noise in any of the {len(entries)} lit views: did the lamps burn?"
            yield Check(name="lamps", verdict="fail", text=text)
            continue
        usual = float(np.median([contrast for contrast, _ in entries]))
        if len(entries) < 3 or not np.isfinite(usual):
            continue
        lamps += len(entries)
        for contrast, view in entries:
            if contrast < 0.01 * usual:
                dead.append(view)
            elif contrast < 0.05 * usual:
                dim.append(view)
    for found, verdict, what in ((dead, "fail", "dark"), (dim, "warning", "hardly brighter than dark")):
        if found:
            named = ", ".join(f"{v.name} (shot {v.frames[0].record.shot.index})" for v in found[:_NAMED])
            more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
            yield Check(name="lamps", verdict=verdict, text=f"{what} in their own frames: {named}{more}")
    if lamps and not dead and not dim:
        yield Check(name="lamps", verdict="ok", text=f"{lamps} lit views, none dark")


def _shows_noise(contrast: float, view: _View) -> bool:
    """Whether the blocks of a view differ by no more than noise does; a flat field may."""
    if "flat" in view.frames[0].record.shot.kinds:
        return False
    told = [seen for seen in view.frames if np.isfinite(seen.variance).any()]
    if not told or not np.isfinite(contrast):  # saturated is not dark
        return False
    seen = max(told, key=lambda s: s.record.exposure_s)
    noise = float(np.sqrt(np.nanmedian(seen.variance))) / seen.record.exposure_s
    return contrast < _NOISE_ONLY * noise


def _rate(frames: Sequence[Seen]) -> Float:
    """Signal a second of each block, from the longest exposure that is not saturated there."""
    rate: Float | None = None
    for seen in sorted(frames, key=lambda s: -s.record.exposure_s):
        own = seen.mean / seen.record.exposure_s
        rate = own if rate is None else np.where(np.isfinite(rate), rate, own)
    assert rate is not None
    return rate
