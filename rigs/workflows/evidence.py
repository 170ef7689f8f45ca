"""What is kept of each frame to judge a session by, and the refusal of data that are not linear."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise, zip_longest
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from calibration.provenance import FitError
from calibration.radiometric import RadiometricModel
from calibration.radiometric.checks import (
    Pair,
    are_unlike,
    block_means,
    block_size,
    fit_ratio,
    judge_linearity,
    linearity,
)
from capture.frame import format_bits, format_cfa
from capture.session import FrameRecord, Session, Stack
from rigs.workflows.encoding import refuse_encoded

Float = NDArray[np.float64]

CLIPPED = 0.001
"""Share of a channel that may be saturated in every exposure before it is told."""
_NAMED = 3
# Frames read to judge linearity: enough for a chain of ratios, and a small part of what the merge reads.
_LEAST_READ, _MOST_READ, _MOST_BYTES = 4, 12, 64 * 2**20
# Told exposures of 1 EV are seldom quite 2; farther apart few blocks are well exposed in both.
_STEP = 1.9
# Samples this many times above the saturation of a model are not its camera's.
_BEYOND = 1.5
# Above this share of the way from black to saturation many sensors bend; such samples judge no linearity.
_USABLE = 0.95
# A black level that was measured with the session still wanders by about this, DN.
_BLACK_FLOOR_DN = 0.1
# Exposures nearer to each other than this say nothing of a curve.
_LEAST_RATIO = 1.05
MOST_REJECTED = 0.5
"""Share of blocks that may not follow the others; with more, the frames do not show one view."""


class Seen(NamedTuple):
    """What is kept of one frame: its record, means over blocks in electrons with their variance, shares."""

    record: FrameRecord
    mean: Float
    variance: Float
    mean_dn: float = np.nan
    zeros: float = np.nan
    digest: str = ""


def refuse_nonlinear(
    session: Session, stack: Stack, model: RadiometricModel, sensor: RadiometricModel | None, what: str
) -> None:
    """Raise FitError where ``what`` wants linear data and ``stack`` clearly is not.

    By what the import saw in the files, and by the frames themselves where a view has several exposures: of
    that with most of them a few frames are read, as a tone curve bends every view. A model with a response is
    taken at its word.
    """
    refuse_encoded(session, stack.records[0].shot.camera, sensor, what)
    if model.response is not None:
        return
    if sensor is not None:
        _refuse_misaligned(session, stack, sensor)
    views = views_of(stack, session.facts.get("photons")).values()
    best = max(views, key=lambda records: len({record.exposure_s for record in records}))
    first = {record.exposure_s: record for record in reversed(best)}
    if len(first) < 2:
        return
    index = {record.shot.index: i for i, record in enumerate(stack.records)}
    size = int(np.prod(stack.shape[1:])) * (1 if stack.pixel_format.endswith("8") else 2)
    count = int(np.clip(_MOST_BYTES // size, _LEAST_READ, _MOST_READ))
    frames = [
        signal_of(stack[index[first[t].shot.index]], first[t], model, measured=sensor is not None)
        for t in _few(sorted(first), count)
    ]
    found = linearity(exposure_pairs(frames, offset_sigma(session, stack, model, sensor)))
    if found is not None and not found.is_linear:
        raise FitError(f"{session.path}: {what} wants linear data: {judge_linearity(found).text}")


def _few(times: Sequence[float], count: int) -> list[float]:
    """A few exposures about the middle, a factor of two apart where they are: near enough to overlap."""
    middle = times[len(times) // 2]
    down = [middle]
    for t in reversed(times):
        if t <= down[-1] / _STEP:
            down.append(t)
    up = [middle]
    for t in times:
        if t >= up[-1] * _STEP:
            up.append(t)
    chosen = [t for pair in zip_longest(down, up[1:]) for t in pair if t is not None]
    return sorted(chosen[:count])


def _refuse_misaligned(session: Session, stack: Stack, sensor: RadiometricModel) -> None:
    """Raise FitError where samples lie far beyond the saturation of the model of their own camera."""
    bits = format_bits(sensor.pixel_format)
    if bits is None or _BEYOND * sensor.saturation_dn > 2**bits - 1:
        return
    longest = int(np.argmax(stack.exposure_s))
    top = int(np.max(stack[longest]))
    if top > _BEYOND * sensor.saturation_dn:
        raise FitError(
            f"{session.path}: {stack.records[longest].file} has samples of {top} DN, the sensor model "
            f"saturates at {sensor.saturation_dn:g}: samples shifted to the left, or another bit depth"
        )


def offset_sigma(
    session: Session, stack: Stack, model: RadiometricModel, sensor: RadiometricModel | None
) -> float:
    """How well the black level is known, electrons; infinite where nothing tells it."""
    if not model.counts_electrons:
        return 0.0
    if model.response is not None:
        return float("inf")
    darks = len(session.stack(stack.records[0].shot.camera).select(kind="dark")) > 0
    if sensor is None and not darks:
        return float("inf")
    return max(model.black_sigma_dn, _BLACK_FLOOR_DN) / model.gain_dn_per_e


def views_of(stack: Stack, photons: Sequence[float | None] | None) -> dict[Any, tuple[FrameRecord, ...]]:
    """Frames that should show the same radiance, in the order of their shots."""
    groups: dict[Any, list[FrameRecord]] = {}
    for record in stack.records:
        shot = record.shot
        rate = None
        if photons is not None and shot.index < len(photons) and photons[shot.index]:
            rate = f"{float(photons[shot.index] or 0) / record.exposure_s:.3g}"
        light = (shot.light, tuple(shot.lights.items()), shot.strobe)
        key = (shot.pose, *light, "dark" in shot.kinds, record.gain_db, rate)
        groups.setdefault(key, []).append(record)
    return {key: tuple(records) for key, records in groups.items()}


class Clipped(NamedTuple):
    """What is saturated in every exposure of a view: share by channel, and of pixels that clip in part."""

    name: str
    shares: dict[str, float]
    alone: float


def clipping_texts(views: Iterable[Clipped]) -> tuple[str, ...]:
    """One line where channels are saturated in every exposure, one where a part of the channels is alone."""
    views = tuple(views)
    worst = [view for view in views if max(view.shares.values()) > CLIPPED]
    worst.sort(key=lambda view: -max(view.shares.values()))
    texts = []
    if worst:
        named = "; ".join(f"{view.name}: {_percents(view.shares)}" for view in worst[:_NAMED])
        more = f"; and {len(worst) - _NAMED} more" if len(worst) > _NAMED else ""
        texts.append(f"saturated in every exposure: {named}{more}: add a shorter exposure")
    alone = max(views, key=lambda view: view.alone, default=None)
    if alone is not None and alone.alone > CLIPPED:
        share = f"{100 * alone.alone:.2g} %"
        texts.append(f"{share} of {alone.name} clips in a part of its channels: its colour is wrong")
    return tuple(texts)


def _percents(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{letter} {100 * share:.2g} %" for letter, share in shares.items() if share > CLIPPED)


def signal_of(
    values: NDArray[Any],
    record: FrameRecord,
    model: RadiometricModel,
    window: tuple[slice, slice] | None = None,
    *,
    measured: bool = True,
) -> Seen:
    """Means over blocks of one frame, of a window if given; without the statistics of its samples.

    Unless the model's noise was ``measured``, it is raised to what neighbouring pixels show.
    """
    electrons, floor = model.electrons(values)
    limit = model.black_dn + _USABLE * (model.saturation_dn - model.black_dn)
    mosaic = format_cfa(model.pixel_format) is not None
    if window is not None:
        # Whole cells of a mosaic, so that blocks stay of one colour.
        rows, columns = (slice(s.start // 2 * 2, s.stop) if mosaic else s for s in window)
        electrons, floor, values = electrons[rows, columns], floor[rows, columns], values[rows, columns]
    usable = np.where(values < limit, electrons, np.float32(np.nan))
    size = block_size(usable.shape, mosaic=mosaic, blocks=2048 if window is None else 16)
    blocks = block_means(usable, size, mosaic=mosaic)
    if model.response is not None:
        variance = block_means(floor, size, mosaic=mosaic).mean + np.maximum(blocks.mean, 0)
    elif model.counts_electrons:
        # The floor of a linear model is one number.
        variance = np.maximum(blocks.mean, 0) + float(floor.flat[0])
    else:
        variance = (model.flat_sigma * blocks.mean) ** 2 + float(floor.flat[0])
    if not measured and model.counts_electrons:
        variance = variance * _excess(usable, variance, 2 if mosaic else 1)
    return Seen(record, blocks.mean, variance / blocks.samples)


def _excess(usable: NDArray[np.float32], variance: Float, step: int) -> float:
    """How many times the variance of neighbours exceeds that of the model, at the median; 1 or more."""
    rows = usable[:: max(usable.shape[0] // 200, 1)]
    apart = np.abs(rows[:, step:] - rows[:, :-step]).ravel()
    apart, known = apart[np.isfinite(apart)], variance[np.isfinite(variance)]
    if not len(apart) or not len(known):
        return 1.0
    return max(float((1.4826 * np.median(apart)) ** 2 / 2 / np.median(known)), 1.0)


def see(
    dn: NDArray[np.generic],
    record: FrameRecord,
    model: RadiometricModel,
    window: tuple[slice, slice] | None = None,
    *,
    measured: bool = True,
) -> tuple[Seen, NDArray[np.bool_]]:
    """What is kept of one frame, of a window if given, and which of all its samples are saturated."""
    values = np.asarray(dn)
    even = bool(values.min() == values.max())
    zeros = np.count_nonzero(values == 0) / values.size if values.dtype.kind == "u" else 0.0
    seen = signal_of(values, record, model, window, measured=measured)._replace(
        mean_dn=float(values.mean(dtype=np.float64)),
        zeros=float(zeros),
        digest="" if even else hashlib.blake2b(np.ascontiguousarray(values).data).hexdigest(),
    )
    return seen, np.asarray(~(values < model.saturation_dn))


def by_exposure(frames: Sequence[Seen]) -> dict[float, list[Seen]]:
    """Frames of each exposure, ascending; repeats in the order given."""
    out: dict[float, list[Seen]] = {}
    for seen in frames:
        out.setdefault(seen.record.exposure_s, []).append(seen)
    return dict(sorted(out.items()))


def strangers(frames: Sequence[Seen]) -> list[tuple[FrameRecord, FrameRecord]]:
    """Frames of one view that were taken alike and show another picture than the first of them, with it."""
    return [
        (same[0].record, later.record)
        for same in by_exposure(frames).values()
        for later in same[1:]
        if are_unlike(same[0].mean, later.mean, same[0].variance, later.variance)
    ]


def exposure_pairs(frames: Sequence[Seen], offset: float) -> list[Pair]:
    """Ratios of neighbouring exposures of one view; repeats are averaged."""
    exposures = by_exposure(frames)
    means = {t: np.mean([s.mean for s in same], axis=0) for t, same in exposures.items()}
    noise = {t: np.mean([s.variance for s in same], axis=0) / len(same) for t, same in exposures.items()}
    times, out = list(exposures), []
    for short, long in pairwise(times):
        if long / short < _LEAST_RATIO:
            continue
        ratio = fit_ratio(means[short], means[long], noise[short], noise[long], offset)
        if ratio is not None and ratio.rejected <= MOST_REJECTED:
            signal = float(np.nanmedian(means[short]))
            known = np.isfinite(offset) and signal > 0
            out.append(Pair(short, long, ratio, offset / signal if known else 0.0))
    return out
