"""Flat field from frames of a flat target: map with sigma, smooth model, what is left of the pixels."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibration.provenance import Array, FitError, Model, Provenance, Quality
from calibration.radiometric.flat_target import Target, separate
from calibration.radiometric.model import Image, RadiometricModel, checked_exposures
from calibration.radiometric.vignetting import (
    Falloff,
    Float,
    Plane,
    Vignetting,
    colour_planes,
    fit_falloff,
    sites,
)

_CELLS = (24, 32)
_LEAST_CELL_PX = 4
_FULLEST = 0.95  # of saturation, at the brightest thousandth of a colour
_DIMMEST = 5.0  # sigma of a sample without light
_STRAY = 0.003  # relative difference of a frame's pattern from that of its pose, rms
_DEAD, _GLARING = 0.2, 5.0


class FlatField(Model):
    """Relative response of every pixel, lens included, with its uncertainty.

    Attributes
    ----------
    flat_map : ndarray, the frame's shape, float32
        Mean 1 over the central half of rows and columns for each colour; the smooth model where defective.
    sigma : ndarray, the frame's shape, float32
        Relative one-sigma of each pixel: shot and read noise of all frames and the dark map's uncertainty.
    flat_sigma : float
        Its root mean square over the central half.
    vignetting : Vignetting
        Smooth part, robust to dust.
    prnu_percent : float
        Scatter of the good pixels about the smooth part, temporal noise removed; dust is in it.
    defects : ndarray of bool
        Those of the sensor model and the pixels that give less than a fifth or more than five times the
        smooth part.
    lamp_percent : tuple of float
        Of each colour: peak to peak, over the picture, of the target's own unevenness that was taken out;
        0 with a single pose.
    quality : Quality
    """

    flat_map: Array
    sigma: Array
    flat_sigma: float
    vignetting: Vignetting
    prnu_percent: float
    defects: Array
    lamp_percent: tuple[float, ...]
    quality: Quality

    def apply(self, model: RadiometricModel, provenance: Provenance | None = None) -> RadiometricModel:
        """``model`` with this flat in place of its own; the warnings of both."""
        known = model.quality.warnings if model.quality is not None else ()
        quality = self.quality.replace(
            warnings=(*known, *self.quality.warnings),
            verdict="good" if model.quality is None else model.quality.verdict,
        )
        if self.quality.verdict == "doubtful":
            quality = quality.replace(verdict="doubtful")
        return model.replace(
            flat_map=self.flat_map,
            flat_sigma=self.flat_sigma,
            vignetting=self.vignetting,
            prnu_percent=self.prnu_percent,
            defects=self.defects,
            quality=quality,
            provenance=model.provenance if provenance is None else provenance,
        )


def fit_flat(
    frames: Sequence[NDArray[Any]],
    exposure_s: ArrayLike,
    model: RadiometricModel,
    *,
    poses: Sequence[str] | None = None,
    turns_deg: Mapping[str, float] | None = None,
) -> FlatField:
    """Flat field from frames of a smooth, steady target that fills the view.

    Parameters
    ----------
    frames : sequence of ndarray, the model's shape
        Read once each, one after the other; memory does not grow with their number.
    exposure_s : array_like (n,)
        Of each frame; any mixture.
    model : RadiometricModel
        Of the camera: black, dark current, gain, defects. Its own flat is not used.
    poses : sequence of str, optional
        How target and camera stood to each other, of each frame.
    turns_deg : mapping of pose to degrees, optional
        By how much the target was turned about the camera's axis in each pose, clockwise as the picture shows
        it, from any beginning. With poses that are not named here all are averaged.

    Returns
    -------
    FlatField

    Raises
    ------
    FitError
        No frame, exposures missing or not positive, a frame of another size, all saturated or all black in
        some colour, or turns of unknown poses.

    Notes
    -----
    Each frame counts with the light it gathered, so a lamp that flickers or drifts as a whole does no harm;
    frames near saturation or in the dark are left out, colour by colour. One pose cannot tell the target's
    unevenness from the lens: it becomes part of the flat. Turned poses tell ramps, saddles and cubic patterns
    of the target, as far as the turns change them (180 degrees: ramps and cubics alone); what is round about
    the axis stays in the flat whatever the turns. Fails where stray light or the reflection of the lens in
    the target moves with the camera.
    """
    if len(frames) == 0:
        raise FitError("flat: no frames")
    exposure = checked_exposures("flat", len(frames), exposure_s)
    names = tuple(poses) if poses is not None else ("",) * len(frames)
    if len(names) != len(frames):
        raise FitError(f"flat: {len(frames)} frames but {len(names)} poses")
    if strange := sorted(set(turns_deg or {}) - set(names)):
        raise FitError(
            f"flat: a turn is told of pose {strange[0]!r}: the frames have {', '.join(sorted(set(names)))}"
        )
    turns = {name: float(turn) for name, turn in (turns_deg or {}).items()}
    sums = _stream(frames, exposure, model)
    flat = np.ones(model.shape, np.float32)
    sigma = np.full(model.shape, np.inf, np.float32)
    defects = np.zeros(model.shape, np.bool_) if model.defects is None else model.defects.copy()
    channels, lamps, scatter, noise2, residual = [], [], [], [], []
    warnings = _strays(sums, names)
    support = np.ones(sums[0].cells.shape[1:], np.bool_)
    for index, (plane, gathered) in enumerate(zip(colour_planes(model.pixel_format), sums, strict=True)):
        u, v = sites(model.width, model.height, len(sums), index)
        with np.errstate(divide="ignore", invalid="ignore"):
            image = np.divide(gathered.total, gathered.light, dtype=np.float32, casting="same_kind")
            own = np.sqrt(gathered.variance)
            np.divide(own, np.maximum(image, np.float32(1e-30)), out=own)
            own /= gathered.light
        gathered.release()
        target, notes = _unevenness(gathered, names, turns, u, v, (model.width, model.height))
        warnings += [note for note in notes if note not in warnings]
        lamps.append(0.0 if target is None else target.peak_to_peak_percent())
        if target is not None:
            for rows in _strips(image.shape):
                image[rows] /= target.at(u, v[rows, None])
        good = ~defects[plane] & np.isfinite(image) & (image > 0)
        if not np.any(good[_middle(good.shape)]):
            raise FitError("flat: no good pixel in the middle of the frames: light the whole field")
        falloff, rms, seen = _smooth(image, good, u, v, (model.width, model.height))
        support &= seen
        smooth = Vignetting(
            width=model.width, height=model.height, channels=(falloff,), support=np.ones((1, 1), np.bool_)
        )
        wrong = _wrong(image, smooth, u, v)
        good &= ~wrong
        defects[plane] |= wrong
        image /= np.float32(image[_middle(image.shape)][good[_middle(image.shape)]].mean(dtype=np.float64))
        ratio, spread = _fill(image, good, smooth, u, v)
        flat[plane] = np.maximum(image, np.float32(1e-3))
        sigma[plane] = np.where(good, own, np.inf)
        channels.append(falloff)
        noise2.append(float(np.mean(np.square(own[_middle(own.shape)][good[_middle(own.shape)]]))))
        scatter.append(max(spread - float(np.mean(np.square(own[good]))), 0.0))
        residual.append(rms)
        if ratio > 0.02:
            warnings.append(f"{ratio:.1%} of the pixels give no light: they are defects now")
    if len(set(names)) == 1:
        warnings.append(
            "one pose: the target's own unevenness is part of the flat; turn it by 90 or 180 degrees to tell"
        )
    used = sum(int(np.count_nonzero(s.used)) for s in sums)
    return FlatField(
        flat_map=flat,
        sigma=sigma,
        flat_sigma=float(np.sqrt(np.mean(noise2))),
        vignetting=Vignetting(
            width=model.width, height=model.height, channels=tuple(channels), support=support
        ),
        prnu_percent=100 * float(np.sqrt(np.mean(scatter))),
        defects=defects,
        lamp_percent=tuple(lamps),
        quality=Quality(
            residual_rms=100 * float(np.sqrt(np.mean(np.square(residual)))),
            unit="% of the smooth flat",
            observations=used,
            rejected=len(sums) * len(frames) - used,
            warnings=tuple(warnings),
        ),
    )


@dataclass(eq=False)
class _Gathered:
    """One colour's sums over the frames.

    ``total`` e-, ``variance`` e-^2 and ``light`` (what a pixel of response 1 would have gathered) have the
    plane's shape; ``cells`` (n, rows, columns) are each frame's means over cells, relative to its middle;
    ``level`` (n,) is the light that each frame adds, 0 where it does not count.
    """

    total: Float
    variance: Image
    light: Float | float
    cells: Float
    noise: Float
    level: Float

    def release(self) -> None:
        """Let go of the pictures once they are used: two colours' sums need not be held at a time."""
        self.total, self.variance, self.light = np.zeros(0), np.zeros(0, np.float32), 0.0

    @property
    def used(self) -> NDArray[np.bool_]:
        return np.asarray(self.level > 0)


def _stream(frames: Sequence[NDArray[Any]], exposure: Float, model: RadiometricModel) -> list[_Gathered]:
    bare = model.replace(flat_map=None, vignetting=None, flat_sigma=0.0)
    planes = colour_planes(model.pixel_format)
    shapes = [np.empty(model.shape, np.bool_)[plane].shape for plane in planes]
    sums = [
        _Gathered(
            total=np.zeros(shape),
            variance=np.zeros(shape, np.float32),
            light=0.0,
            cells=np.full((len(frames), *_cell_counts(shape)), np.nan),
            noise=np.full((len(frames), *_cell_counts(shape)), np.nan),
            level=np.zeros(len(frames)),
        )
        for shape in shapes
    ]
    dim, full = 0, 0
    for index in range(len(frames)):
        t = float(exposure[index])
        try:
            electrons, floor = bare.electrons(np.asarray(frames[index]))
        except ValueError as error:
            raise FitError(f"flat: frame {index}: {error}") from error
        light = electrons - _dark_electrons(bare, t)
        for plane, gathered in zip(planes, sums, strict=True):
            verdict = _gather(gathered, index, t, bare, light[plane], electrons[plane], floor[plane], plane)
            dim += verdict < 0
            full += verdict > 0
    for gathered in sums:
        if not np.any(gathered.used):
            why = "saturated or nearly so" if full >= dim else "black"
            what = "shorten the exposures" if full >= dim else "expose longer, or light the target"
            raise FitError(f"flat: all {len(frames)} frames are {why} in one colour: {what}")
    for plane, gathered in zip(planes, sums, strict=True):
        _add_map_errors(gathered, bare, exposure, plane)
    return sums


def _dark_electrons(model: RadiometricModel, exposure_s: float) -> Image:
    """Electrons of the dark current of each pixel, or one for all."""
    rate = np.float32(model.dark_current_e_s)
    total = rate if model.dark_rate_map is None else rate + model.dark_rate_map
    return np.asarray(total * np.float32(exposure_s), np.float32)


def _gather(
    gathered: _Gathered,
    index: int,
    exposure_s: float,
    model: RadiometricModel,
    light: Image,
    electrons: Image,
    floor: Image,
    plane: Plane,
) -> int:
    """Add one colour of a frame; -1 where it was too dark, 1 where too bright, 0 where it counts."""
    finite = np.isfinite(light)
    known = np.ones(light.shape, np.bool_) if model.defects is None else ~model.defects[plane]
    if np.count_nonzero(finite) < 0.99 * np.count_nonzero(known) or not np.any(finite):
        return 1
    middle = _middle(light.shape)
    mean = float(light[middle].mean(dtype=np.float64, where=finite[middle]))
    sample = light[:: max(light.shape[0] // 256, 1), :: max(light.shape[1] // 256, 1)]
    top = float(np.nanquantile(sample, 0.999))
    if top > _FULLEST * _full_e(model, plane):
        return 1
    if not mean > _DIMMEST * float(np.sqrt(np.median(floor))):
        return -1
    shot = electrons if model.counts_electrons else np.square(np.float32(model.flat_sigma) * light)
    whole = bool(finite.all())
    gathered.total += light if whole else np.where(finite, light, 0)
    # A dark sample below zero must not lower the variance.
    noise = np.maximum(shot, 0)
    noise += floor
    if not whole:
        noise[~finite] = 0
    gathered.variance += noise
    if whole or np.array_equal(finite, known):
        gathered.light = gathered.light + mean
    else:
        gathered.light = gathered.light + mean * finite
    gathered.level[index] = mean
    gathered.cells[index], count = _cell_means(light, finite)
    gathered.cells[index] /= mean
    with np.errstate(divide="ignore", invalid="ignore"):
        own = np.maximum(gathered.cells[index] * mean, 0) + float(np.median(floor))
        gathered.noise[index] = np.sqrt(own / count) / mean
    return 0


def _full_e(model: RadiometricModel, plane: Plane) -> float:
    """Electrons of a sample at saturation."""
    if model.response is None:
        return (model.saturation_dn - model.black_dn) / model.gain_dn_per_e
    channel = plane[1] if model.response.shape[1] == 3 else 0
    codes = np.arange(len(model.response), dtype=np.float64)
    return float(np.interp(model.saturation_dn, codes, model.response[:, channel]))


def _add_map_errors(gathered: _Gathered, model: RadiometricModel, exposure: Float, plane: Plane) -> None:
    if model.dark_covariance is None:
        return
    n, t = np.count_nonzero(gathered.used), float(exposure[gathered.used].sum())
    (c00, c01), (_, c11) = np.asarray(model.dark_covariance, np.float64)
    gathered.variance += np.float32(n * n * c00 + 2 * n * t * c01 + t * t * c11)


def _middle(shape: tuple[int, ...]) -> tuple[slice, slice]:
    h, w = shape[:2]
    return slice(h // 4, h - h // 4), slice(w // 4, w - w // 4)


def _cell_counts(shape: tuple[int, ...]) -> tuple[int, int]:
    h, w = shape[:2]
    rows = max(min(_CELLS[0], h // _LEAST_CELL_PX), 1)
    return rows, max(min(_CELLS[1], w // _LEAST_CELL_PX), 1)


def _edges(shape: tuple[int, ...]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    rows, columns = _cell_counts(shape)
    return (
        np.linspace(0, shape[0], rows + 1).astype(np.intp),
        np.linspace(0, shape[1], columns + 1).astype(np.intp),
    )


def _cell_means(image: Image, finite: NDArray[np.bool_]) -> tuple[Float, Float]:
    """Means of the finite samples over the cells, and how many these are."""
    rows, columns = _edges(image.shape)

    def add(values: NDArray[Any]) -> Float:
        over_rows = np.add.reduceat(values, rows[:-1], axis=0, dtype=np.float64)
        return np.asarray(np.add.reduceat(over_rows, columns[:-1], axis=1))

    count = add(finite)
    with np.errstate(divide="ignore", invalid="ignore"):
        return add(np.where(finite, image, np.float32(0))) / count, count


def _strays(sums: list[_Gathered], names: tuple[str, ...]) -> list[str]:
    """Frames whose pattern is not that of the others of their pose: the target or the lamp moved."""
    worst: dict[int, float] = {}
    for gathered in sums:
        for name in dict.fromkeys(names):
            members = [i for i, own in enumerate(names) if own == name and gathered.used[i]]
            if len(members) < 3:
                continue
            typical = np.median(gathered.cells[members], axis=0)
            for i in members:
                off = gathered.cells[i] / typical - 1
                excess = np.nanmean(off**2) - np.nanmean((gathered.noise[i] / typical) ** 2)
                # A dim frame has little say, and the black level's own pattern shows in it.
                if excess > _STRAY**2 and gathered.level[i] > 0.1 * gathered.level.max():
                    worst[i] = max(worst.get(i, 0.0), float(np.sqrt(excess)))
    if not worst:
        return []
    listed = ", ".join(f"{i} ({100 * off:.1f} %)" for i, off in list(worst.items())[:8])
    return [f"frames differ from the others in pattern, the target or its light moved: {listed}"]


def _unevenness(
    gathered: _Gathered,
    names: tuple[str, ...],
    turns: dict[str, float],
    u: Float,
    v: Float,
    size: tuple[int, int],
) -> tuple[Target | None, list[str]]:
    """Unevenness of the target as this colour shows it, and what must be said."""
    own = np.array(names)
    poses = [name for name in dict.fromkeys(names) if np.any(gathered.used[own == name])]
    light = {name: np.where(own == name, gathered.level, 0.0) for name in poses}
    cells = [np.average(np.nan_to_num(gathered.cells), axis=0, weights=light[name]) for name in poses]
    rows, columns = _edges((len(v), len(u)))
    cu = np.array([u[a:b].mean() for a, b in pairwise(columns)])
    cv = np.array([v[a:b].mean() for a, b in pairwise(rows)])
    share = np.array([light[name].sum() for name in poses])
    told = [turns.get(name) for name in poses]
    return separate(cells, cu, cv, told, share / share.sum(), size)


def _strips(shape: tuple[int, ...]) -> Iterator[slice]:
    step = max((1 << 18) // shape[1], 1)
    for first in range(0, shape[0], step):
        yield slice(first, first + step)


def _smooth(
    image: Image, good: NDArray[np.bool_], u: Float, v: Float, size: tuple[int, int]
) -> tuple[Falloff, float, NDArray[np.bool_]]:
    """Fall-off through robust means over cells; its residual, and the cells that had light."""
    rows, columns = _edges(image.shape)
    points = []
    seen = np.zeros(_cell_counts(image.shape), np.bool_)
    for i, (top, bottom) in enumerate(pairwise(rows)):
        for j, (left, right) in enumerate(pairwise(columns)):
            inside = good[top:bottom, left:right]
            if 2 * np.count_nonzero(inside) < inside.size:
                continue
            values = image[top:bottom, left:right][inside]
            middle = np.median(values)
            off = np.abs(values - middle)
            kept = off <= max(5 * 1.4826 * np.median(off), 1e-6 * middle)
            mean = float(values[kept].mean(dtype=np.float64))
            if not mean > 0:
                continue
            variance = float(values[kept].var(dtype=np.float64)) / np.count_nonzero(kept) / mean**2
            place = float(u[left:right].mean()), float(v[top:bottom].mean())
            points.append((*place, np.log(mean), max(variance, 1e-14)))
            seen[i, j] = True
    if not points:
        raise FitError("flat: no part of the picture has light")
    x, y, value, variance = np.array(points).T
    falloff, rms = fit_falloff(x, y, value, variance, *size)
    return falloff, rms, seen


def smooth_part(model: RadiometricModel) -> Vignetting | None:
    """Smooth part of a model's flat: as stored, else fitted to its map; None where it has no flat."""
    if model.vignetting is not None or model.flat_map is None:
        return model.vignetting
    planes, size = colour_planes(model.pixel_format), (model.width, model.height)
    defects = np.zeros(model.shape, np.bool_) if model.defects is None else model.defects
    parts = []
    for index, plane in enumerate(planes):
        u, v = sites(*size, len(planes), index)
        image = np.asarray(model.flat_map[plane], np.float32)
        parts.append(_smooth(image, ~defects[plane] & (image > 0), u, v, size))
    support = np.logical_and.reduce([seen for _, _, seen in parts])
    return Vignetting(width=size[0], height=size[1], channels=tuple(f for f, _, _ in parts), support=support)


def _scale(image: Image, smooth: Vignetting, u: Float, v: Float) -> float:
    step = max(len(u) // 256, 1), max(len(v) // 256, 1)
    ratio = image[:: step[1], :: step[0]] / smooth.value(0, u[:: step[0]], v[:: step[1], None])
    return float(np.nanmedian(ratio))


def _wrong(image: Image, smooth: Vignetting, u: Float, v: Float) -> NDArray[np.bool_]:
    """Pixels that give far less or more than the smooth part."""
    out = np.empty(image.shape, np.bool_)
    scale = _scale(image, smooth, u, v)
    for rows in _strips(image.shape):
        ratio = image[rows] / (scale * smooth.value(0, u, v[rows, None]))
        out[rows] = ~((ratio > _DEAD) & (ratio < _GLARING))
    return out


def _fill(
    image: Image, good: NDArray[np.bool_], smooth: Vignetting, u: Float, v: Float
) -> tuple[float, float]:
    """Put the smooth part where no pixel is good; the share of those, and the good ones' variance."""
    scale = _scale(image, smooth, u, v)
    total, squares, count = 0.0, 0.0, int(np.count_nonzero(good))
    for rows in _strips(image.shape):
        level = scale * smooth.value(0, u, v[rows, None])
        ratio = (image[rows] / level - 1)[good[rows]]
        total += float(ratio.sum(dtype=np.float64))
        squares += float(np.square(ratio, dtype=np.float64).sum())
        image[rows] = np.where(good[rows], image[rows], level)
    mean = total / max(count, 1)
    return 1 - count / good.size, squares / max(count, 1) - mean**2
