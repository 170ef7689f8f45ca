"""Photometric stereo under a mixture of reflectances that the object teaches by itself."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from calibration.geometry import Float
from calibration.photometric.bank import Mixture, Reflectance
from calibration.photometric.pixels import Pixels, evenly, rms
from calibration.progress import Track, silent

_ROUNDS = 4
# First precision of a share; part of the second moment that is shrunk to its diagonal; sigma that no share
# falls below.
_VAGUE = 0.01
_SHRINK = 0.5
_FLOOR = 0.03
# Pixels taught by, those of least loss; share of the pixels below which a reflectance is dropped.
_TAUGHT = 0.8
_RAREST = 0.005
# Loss from which a pixel is solved again, windows (px) whose normals it starts from, and how often.
_POOR = 0.05
_AROUND = (3, 7)
_MENDS = 3


# Errors are taken to be alike over so many pixels; normals and samples may be such a part of a pixel apart;
# errors of a wrong model that are independent of each other, however many lights there are.
_WINDOW = 9
_BLUR_PX = 0.4
_INDEPENDENT = 10
# Pairs of neighbours asked for what their residuals share; residual over the rms sample of an outlier.
_PAIRS = 400
_LEAST_PAIRS = 20
_OUTLIER = 0.15


class Mixed(NamedTuple):
    """What the kernel writes, (h, w, ...); NaN and 0 where a pixel could not be solved.

    ``noise`` is the squared angle (rad) by which the samples' noise turns the normal; ``misfit`` is the mean
    squared residual of the trusted samples over the squared rms sample, ``chance`` what the noise alone would
    make of it; ``lever`` is the squared angle per unit of misfit, were the residuals independent errors.
    """

    normals: NDArray[np.float32]
    albedo: NDArray[np.float32]
    used: NDArray[np.uint8]
    shares: NDArray[np.float32]
    loss: NDArray[np.float32]
    noise: NDArray[np.float32]
    misfit: NDArray[np.float32]
    chance: NDArray[np.float32]
    lever: NDArray[np.float32]


def fit(
    pixels: Pixels,
    starts: NDArray[np.float32],
    mixture: Mixture,
    *,
    shares: bool = False,
    track: Track = silent,
    what: str = "solving normals of the mixture",
) -> Mixed:
    """Solve every pixel from starts (s, h, w, 3) under a mixture; ``shares`` are kept only if asked for."""
    from calibration.photometric import kernels

    h, w = pixels.mask.shape
    channels, size = pixels.radiance.shape[3], len(mixture.bank)
    normals, albedo = np.full((h, w, 3), np.nan, np.float32), np.full((h, w, channels), np.nan, np.float32)
    told = np.full((h, w, kernels.TOLD), np.nan, np.float32)
    used = np.zeros((h, w), np.uint8)
    parts = np.full((h if shares else 0, w, channels, size), np.nan, np.float32)
    for part in pixels.bands(track, what):
        kernels.mix_pixels(
            pixels.radiance, pixels.variance, pixels.points, pixels.table, pixels.order, part,
            starts, mixture.kinds, mixture.widths, mixture.precision, mixture.body,
            normals, albedo, told, used, parts,
        )  # fmt: skip
    return Mixed(normals, albedo, used, parts, *np.moveaxis(told, -1, 0))


def mend(pixels: Pixels, mixed: Mixed, mixture: Mixture, track: Track = silent) -> Mixed:
    """Solve pixels of poor loss again from the mean normal of their better neighbours; keep what fits better.

    Cast shadows leave several normals that explain what is lit; the one next door is a start that a pixel by
    itself does not have. The neighbours do not pull: a pixel's loss alone decides.
    """
    for _ in range(_MENDS):
        loss = mixed.loss
        poor = pixels.mask & ~(loss < _POOR)
        if not poor.any():
            break
        starts = np.stack([_around(mixed.normals, loss < 2 * _POOR, size) for size in _AROUND])
        again = fit(pixels._replace(mask=poor), starts, mixture, track=track, what="mending normals")
        better = poor & np.isfinite(again.loss) & ~(again.loss >= loss)
        if not better.any():
            break
        kept = {name: _merged(better, getattr(again, name), getattr(mixed, name)) for name in Mixed._fields}
        mixed = Mixed(**kept)
    return mixed


def _merged(better: NDArray[np.bool_], new: NDArray[Any], old: NDArray[Any]) -> NDArray[Any]:
    """New values where better; shares that were not kept stay so."""
    return np.where(better.reshape(better.shape + (1,) * (new.ndim - 2)), new, old) if new.size else old


def _around(normals: NDArray[np.float32], good: NDArray[np.bool_], size: int) -> NDArray[np.float32]:
    """Mean of the good normals about each pixel, a unit vector; NaN where there is none."""
    there = np.where(good[..., None], normals, 0.0).astype(np.float64)
    mean = ndimage.uniform_filter(there, (size, size, 1), mode="constant")
    length = np.linalg.norm(mean, axis=2, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(length > 1e-9, mean / length, np.nan), np.float32)


def learn(sample: Pixels, starts: NDArray[np.float32], bank: tuple[Reflectance, ...]) -> Mixture:
    """The object's mixture: alternates fits of a sample of its pixels and the second moment of their shares.

    The moment is shrunk half-way to its diagonal; reflectances that next to no pixel uses are dropped. With
    few lights this is what keeps a rich bank from fitting anything.
    """
    mixture = Mixture(bank, _VAGUE * np.eye(len(bank)))
    signal = rms(sample.packed()[0])
    for _ in range(_ROUNDS):
        found = fit(sample, starts, mixture, shares=True)
        loss = found.loss[sample.mask]
        solved = np.isfinite(loss)
        if not solved.any():
            break
        good = solved & (loss <= np.nanquantile(loss, _TAUGHT))
        shares = found.shares[sample.mask][good] / signal[good][..., None]
        shares = shares.reshape(-1, len(mixture.bank)).astype(np.float64)
        keep = (shares > 0).mean(axis=0) > _RAREST
        shares = shares[:, keep]
        moment = shares.T @ shares / len(shares)
        moment = (1 - _SHRINK) * moment + _SHRINK * np.diag(np.diag(moment))
        mixture = Mixture(
            tuple(part for part, used in zip(mixture.bank, keep, strict=True) if used),
            np.asarray(np.linalg.inv(moment + _FLOOR**2 * np.eye(len(moment))), np.float64),
        )
    return mixture


def foretell(pixels: Pixels, mixed: Mixed, mixture: Mixture) -> Float:
    """Samples over irradiance (n, p, c) at the mask's pixels under all lights, by a fit with shares."""
    direction, eye, normals = pixels.aimed()[0], pixels.eyes(), mixed.normals[pixels.mask]
    parts = np.array([part.respond(normals, direction, eye) for part in mixture.bank])
    return np.asarray(np.einsum("knp,pck->npc", parts, mixed.shares[pixels.mask]))


def common(pixels: Pixels, mixed: Mixed, mixture: Mixture) -> float:
    """Part of the squared residuals, 0 to 1, that pixels side by side have in common: no noise has.

    So the model's error is told from noise without knowing how much noise there should be, which of pictures
    without a calibrated sensor nobody does.
    """
    solved = np.isfinite(mixed.loss)
    pairs = np.zeros(solved.shape, bool)
    pairs[:, :-1] = solved[:, :-1] & solved[:, 1:]
    at = evenly(np.flatnonzero(pairs.ravel()), _PAIRS)
    if len(at) < _LEAST_PAIRS:
        return 1.0
    both = np.concatenate([at, at + 1])
    sides = pixels.pick(both)
    start = np.resize(mixed.normals.reshape(-1, 3)[both], (*sides.mask.shape, 3))[None]
    samples = sides.packed()[0]
    residual = samples - foretell(sides, fit(sides, start, mixture, shares=True), mixture)
    left, right = np.split(residual / rms(samples), 2, axis=1)
    trusted = np.maximum(np.abs(left), np.abs(right)) < _OUTLIER
    left, right = left[trusted], right[trusted]
    total = 0.5 * float(np.sum(left**2 + right**2))
    return float(np.clip(np.sum(left * right) / total, 0.0, 1.0)) if total > 0 else 0.0


def sigma_deg(mixed: Mixed, shared: float) -> NDArray[np.float32]:
    """Root mean square angle, degrees, by which noise, the model's error and fine detail turn each normal.

    Noise: its sandwich. To it comes what residuals beyond noise would do through the same sandwich, if they
    were errors of the samples, ten of them independent of each other: a wrong model errs alike under lights
    side by side. Beyond noise is what exceeds its two sigmas as told, and at least the part that neighbours
    have in ``common`` (``shared``). In that part come, averaged over 9 x 9 pixels, an angle (rad) like the
    residual over the signal, as an error that all lights share leaves about as much behind as the normal took
    up; and 0.4 px times the turn of the normal from pixel to pixel, for detail that a pixel does not resolve.

    Notes
    -----
    Sums of the residuals over sectors of lights, or normals with lights left out, tell the errors in which
    lights differ, but not those that they share. Light that bounces between parts of an object and looks like
    another normal's stays unseen.
    """
    ok = np.isfinite(mixed.noise)
    if not ok.any():
        return np.full(ok.shape, np.nan, np.float32)
    free = np.maximum(mixed.albedo.shape[2] * mixed.used.astype(np.float64), 1.0)
    beyond = np.maximum(mixed.misfit - mixed.chance * (1 + 2 * np.sqrt(2 / free)), shared * mixed.misfit)
    bent = np.maximum(mixed.used / _INDEPENDENT, 1.0) * mixed.lever * beyond
    wrong = np.where(ok, mixed.misfit + _BLUR_PX**2 * _turn(mixed.normals), 0.0)
    part = ndimage.uniform_filter(ok.astype(np.float64), _WINDOW, mode="constant")
    mean = np.maximum(ndimage.uniform_filter(wrong, _WINDOW, mode="constant"), 0.0) / np.maximum(part, 1e-9)
    sigma = np.degrees(np.sqrt(mixed.noise + bent + shared * mean))
    return np.where(ok, sigma, np.nan).astype(np.float32)


def _turn(normals: NDArray[np.float32]) -> Float:
    """Squared angle (rad) between neighbours, of both axes together."""
    turn = np.zeros(normals.shape[:2])
    count = np.zeros(normals.shape[:2])
    for axis in (0, 1):
        step = np.moveaxis(np.sum(np.diff(normals, axis=axis) ** 2, axis=2), axis, 0)
        there = np.isfinite(step)
        for side in (np.s_[:-1], np.s_[1:]):
            np.moveaxis(turn, axis, 0)[side] += np.where(there, step, 0.0)
            np.moveaxis(count, axis, 0)[side] += there
    return np.asarray(2 * turn / np.maximum(count, 1))
