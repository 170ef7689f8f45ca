"""Photometric stereo under a mixture of reflectances that the object teaches by itself."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from calibration.geometry import Float
from calibration.photometric.bank import Mixture, Reflectance
from calibration.photometric.pixels import Pixels, rms

_ROUNDS = 4
# First precision of a share; part of the second moment that is shrunk to its diagonal; sigma that no share
# falls below.
_VAGUE = 0.01
_SHRINK = 0.5
_FLOOR = 0.03
# Pixels taught by, those of least loss; share of the pixels below which a reflectance is dropped.
_TAUGHT = 0.8
_RAREST = 0.005
_SECTORS = 8


# Errors are taken to be alike over so many pixels; normals and samples may be such a part of a pixel apart.
_WINDOW = 5
_BLUR_PX = 0.4


class Mixed(NamedTuple):
    """What the kernel writes, (h, w, ...); NaN and 0 where a pixel could not be solved.

    ``noise`` and ``scatter`` are squared angles (rad) by which the samples' noise and the residuals of
    sectors of lights turn the normal; ``misfit`` is the mean squared residual of the trusted samples over the
    squared rms sample, ``chance`` what the noise alone would make of it.
    """

    normals: NDArray[np.float32]
    albedo: NDArray[np.float32]
    used: NDArray[np.uint8]
    shares: NDArray[np.float32]
    loss: NDArray[np.float32]
    noise: NDArray[np.float32]
    scatter: NDArray[np.float32]
    misfit: NDArray[np.float32]
    chance: NDArray[np.float32]


def fit(pixels: Pixels, starts: NDArray[np.float32], mixture: Mixture, *, shares: bool = False) -> Mixed:
    """Solve every pixel from starts (s, h, w, 3) under a mixture; ``shares`` are kept only if asked for."""
    from calibration.photometric import kernels

    h, w = pixels.mask.shape
    channels, size = pixels.radiance.shape[3], len(mixture.bank)
    normals, albedo = np.full((h, w, 3), np.nan, np.float32), np.full((h, w, channels), np.nan, np.float32)
    told = np.full((h, w, kernels.TOLD), np.nan, np.float32)
    used = np.zeros((h, w), np.uint8)
    parts = np.full((h if shares else 0, w, channels, size), np.nan, np.float32)
    kernels.mix_pixels(
        pixels.radiance, pixels.variance, pixels.points, pixels.table, pixels.order, pixels.mask,
        _sectors(pixels.directions), starts, mixture.kinds, mixture.widths, mixture.precision, mixture.body,
        normals, albedo, told, used, parts,
    )  # fmt: skip
    return Mixed(normals, albedo, used, parts, *np.moveaxis(told, -1, 0))


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


def sigma_deg(mixed: Mixed) -> NDArray[np.float32]:
    """Root mean square angle, degrees, by which noise, the model's error and fine detail turn each normal.

    Noise: its sandwich. Where the residuals are larger than noise explains, so much of them as is more: their
    sandwich over sectors of lights, and, as an error of the model that all lights share leaves no trace in
    that, an angle (rad) like the residual over the signal; both averaged over 5 x 5 pixels. Detail: 0.4 px
    times the turn of the normal from pixel to pixel.
    """
    ok = np.isfinite(mixed.scatter)
    free = np.maximum((mixed.used.astype(np.float64) - 3) * mixed.albedo.shape[2], 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        excess = np.clip(1 - mixed.chance * (1 + 3 * np.sqrt(2 / free)) / mixed.misfit, 0, 1)
    model = excess * _average((mixed.scatter + mixed.misfit).astype(np.float64), ok)
    detail = excess * _BLUR_PX**2 * _average(_turn(mixed.normals), ok)
    return np.where(ok, np.degrees(np.sqrt(mixed.noise + model + detail)), np.nan).astype(np.float32)


def _average(values: Float, ok: NDArray[np.bool_]) -> Float:
    part = ndimage.uniform_filter(ok.astype(np.float64), _WINDOW, mode="constant")
    total = ndimage.uniform_filter(np.where(ok, values, 0.0), _WINDOW, mode="constant")
    return np.asarray(np.maximum(total, 0.0) / np.maximum(part, 1e-9))


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


def _sectors(directions: Float) -> NDArray[np.int64]:
    """The sector of azimuth, of eight, in which each light (n, 3) stands."""
    turn = (np.arctan2(directions[:, 1], directions[:, 0]) + np.pi) / (2 * np.pi)
    return np.asarray((turn * _SECTORS).astype(np.int64) % _SECTORS)
