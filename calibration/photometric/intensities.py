"""Semi-calibrated photometric stereo: where the lights are is known, how strong they are the object tells."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from calibration.geometry import Float
from calibration.lens import LensModel
from calibration.photometric.pixels import Light, evenly, rms
from calibration.photometric.solver import check, pixels_of
from calibration.provenance import FitError, Quality

_PIXELS = 2000
_BLOCKS = 150
_LEAST_LIGHTS = 4
_LEAST_SAMPLES = 5
# Cosine to a light below which a sample is left out: next to the terminator roughness and shadows rule.
_GRAZING = 0.1
# Quantile over the pixels that tells how bright a light is at the start.
_BRIGHT = 0.8
_ROUNDS = 40
_REWEIGHTED = 8
_CONVERGED = 1e-4
_LONGEST_STEP = 0.3
# Sigma of a factor beyond which it is not called known.
_UNKNOWN = 0.1
# A light is said to be off from so much on, and so many sigmas; lights from which a trend is taken off.
_LEAST_OFF = 0.02
_MANY_SIGMA = 3.0
_TREND_LIGHTS = 12


class IntensityFit(NamedTuple):
    """How strong each light is, relative to what it was taken to be.

    Attributes
    ----------
    factor : ndarray (n, c), float64
        Of each light's intensity, one a channel of the images; mean over the lights 1 in each channel.
    sigma : ndarray (n, c), float64
        One sigma of the factor, the places of the lights taken as true.
    directions : ndarray (n, 3), float64
        To the lights, from the middle of the object.
    given_rms : float
        Residual, as that of ``quality``, with the intensities as they were given.
    quality : Quality
        Residual in units of noise and 1 % model error.
    """

    factor: Float
    sigma: Float
    directions: Float
    given_rms: float
    quality: Quality

    def applied(self, lights: Sequence[Light]) -> list[Light]:
        """The lights with their intensities times the factors, and sigmas of these; one a channel."""
        out: list[Light] = []
        for light, factor, sigma in zip(lights, self.factor, self.sigma, strict=True):
            known = np.broadcast_to(light.intensity, factor.shape)
            out.append(
                light.replace(
                    intensity=tuple((known * factor).tolist()),
                    intensity_sigma=tuple((known * sigma).tolist()),
                )
            )
        return out

    def contradicted(self, names: Sequence[str]) -> tuple[str, ...]:
        """One sentence for each light that is not as strong, against the others, as it was taken to be.

        Where all directions err alike, l' = A l, the factors go with the length of A l. So with twelve lights
        or more a light is held against the others' trend of that kind (a quadratic form of the direction). It
        is named where it is off by 2 % and by three sigmas, the scatter about the trend included.
        """
        log = np.log(self.factor).mean(axis=1)
        terms = np.ones((len(log), 1))
        if len(log) >= _TREND_LIGHTS:
            rows, columns = np.triu_indices(3)
            terms = self.directions[:, rows] * self.directions[:, columns]
        off = log - terms @ _least_absolute(terms, log)
        scatter = 1.4826 * float(np.median(np.abs(off)))
        sigma = np.hypot(np.sqrt(np.mean((self.sigma / self.factor) ** 2, axis=1)), scatter)
        told = []
        for name, ratio, unsure in zip(names, np.exp(off), sigma, strict=True):
            if abs(np.log(ratio)) > max(_LEAST_OFF, _MANY_SIGMA * unsure):
                way = "dimmer" if ratio < 1 else "brighter"
                told.append(
                    f"{name} is {100 * abs(ratio - 1):.0f} % {way} than the light file says "
                    f"(sigma {100 * unsure:.1f} %)"
                )
        return tuple(told)


def estimate_intensities(
    radiance: NDArray[np.float32],
    variance: NDArray[np.float32],
    lights: Sequence[Light],
    *,
    lens: LensModel | None = None,
    depth_mm: NDArray[np.floating] | float | None = None,
    mask: NDArray[np.bool_] | None = None,
) -> IntensityFit:
    """Intensities of lights from images of an object under each of them, jointly with normals and albedo.

    Parameters
    ----------
    radiance, variance, lights, lens, depth_mm, mask
        As for ``photometric.solve``. Directions or positions, lobes and fall-off are taken as they are; of
        the intensities only where the search starts. Near lights need the surface's present depth.

    Returns
    -------
    IntensityFit
        In the order of ``lights``. The common factor of all lights cannot be told from the albedo: it is
        fixed by the mean of the factors, 1, in each channel by itself.

    Raises
    ------
    ValueError
        As ``photometric.solve``.
    FitError
        The object does not tell: fewer than four lights, too few pixels with five samples, or normals so much
        alike that a factor has a sigma above 10 %.

    Notes
    -----
    Sample k of a pixel is f_k * (b . l_k), b = albedo * normal, in units of the given irradiance. Some
    thousand pixels are fitted; for given f each b is a robust weighted least-squares solution, and f goes by
    Gauss and Newton on what is left with the b projected out (variable projection, G. Golub and V. Pereyra,
    SIAM J. Numer. Anal. 10 (1973), doi:10.1137/0710036). Weights are Tukey's over noise and 1 % model error,
    wider where a pixel's residuals ask for it, so that shadows and highlights drop out. D. Cho et al.,
    "Semi-calibrated photometric stereo", IEEE TPAMI 42 (2020), for distant lights; Y. Queau et al., J. Math.
    Imaging and Vision 60 (2018), doi:10.1007/s10851-017-0761-1, for near ones.

    Noise in b looks like normals that differ; what it adds to the information is subtracted before sigma is
    told. Sigma takes patches of the image, not pixels, as the independent observations, and what the
    residuals of a patch have in common goes into it whole. It takes directions as true: where all of them err
    by a linear map, l' = A l, other factors and normals explain the images as well; a degree makes some 2 %.
    Light that bounces between parts of the object is not modelled, nor is a body that is not Lambert's.
    """
    check(radiance, variance, lights, lens, depth_mm, mask)
    if len(lights) < _LEAST_LIGHTS:
        raise FitError(
            f"{len(lights)} lights: three samples a pixel give its normal and nothing is left to tell the "
            "intensities by; give these, or images under four lights or more"
        )
    pixels = pixels_of(radiance, variance, lights, lens, depth_mm, mask)
    at = evenly(np.flatnonzero(pixels.mask.ravel()), _PIXELS)
    patch = _patches(at, pixels.mask)
    sample = pixels.pick(at)
    values, noise = (np.moveaxis(a, 0, 1) for a in sample.packed())
    towards = np.moveaxis(sample.aimed()[0], 0, 1)
    found = [_fit_channel(values[..., c], noise[..., c], towards, patch) for c in range(values.shape[2])]
    back = np.argsort(pixels.order)
    factor, sigma = (
        np.stack([getattr(f, name) for f in found], axis=1)[back] for name in ("factor", "sigma")
    )
    if not sigma.max() <= _UNKNOWN:
        told = f"{100 * sigma.max():.0f} %" if np.isfinite(sigma.max()) else "boundless"
        raise FitError(
            f"the object does not tell the lights' intensities (sigma {told}): its normals are too much "
            "alike, or too few samples are free of shadow; give the intensities"
        )
    residual, given = (float(np.sqrt(np.mean([getattr(f, a) for f in found]))) for a in ("misfit", "given"))
    warnings: tuple[str, ...] = ()
    if residual > 2:
        warnings = (f"residuals are {residual:.1f} times what noise and 1 % model error explain",)
    quality = Quality(
        residual_rms=residual,
        unit="sigma of noise and model error",
        observations=sum(f.trusted for f in found),
        rejected=sum(f.usable - f.trusted for f in found),
        verdict="doubtful" if warnings else "good",
        warnings=warnings,
    )
    return IntensityFit(factor, sigma, pixels.directions[back], given, quality)


class _Channel(NamedTuple):
    factor: Float
    sigma: Float
    misfit: float
    given: float
    trusted: int
    usable: int


class _State(NamedTuple):
    """Shading (p, n) of each pixel's solution, weights, and an orthonormal basis (p, n, 3) of the weighted
    light vectors: what a change of b can do to the residuals."""

    shading: Float
    weight: Float
    basis: Float
    trust: Float
    wide: Float


def _fit_channel(values: Float, noise: Float, towards: Float, patch: NDArray[np.int64]) -> _Channel:
    """Factors of one channel's lights from samples (p, n) over their irradiance, directions (p, n, 3)."""
    from calibration.photometric.kernels import MODEL_ERROR

    usable = np.isfinite(values) & np.isfinite(noise)
    keep = usable.sum(axis=1) >= _LEAST_SAMPLES if values.shape[1] > _LEAST_LIGHTS else usable.all(axis=1)
    usable, values, noise, towards, patch = (
        usable[keep],
        values[keep],
        noise[keep],
        towards[keep],
        patch[keep],
    )
    lights = values.shape[1]
    if len(values) < lights:
        raise FitError(
            f"{len(values)} pixels have {_LEAST_SAMPLES} samples or more: too few to tell the intensities of "
            f"{lights} lights; give these, or a larger mask"
        )
    error = noise + (MODEL_ERROR * rms(values.T[..., None])[:, 0, None]) ** 2
    error = np.where(usable, error, 1.0)
    values = np.where(usable, values, 0.0)
    factor = _start(values, towards, usable)
    weight = usable / error
    for _ in range(_ROUNDS):
        state = _settle(values, error, towards, usable, factor, weight)
        weight = state.weight
        information, pull = _normal_equations(values, factor, state)
        step = _solve(information, pull.sum(axis=0))
        factor = factor * np.exp(np.clip(step, -_LONGEST_STEP, _LONGEST_STEP))
        factor /= factor.mean()
        if np.abs(step).max() < _CONVERGED:
            break
    state = _settle(values, error, towards, usable, factor, weight)
    information, pull = _normal_equations(values, factor, state)
    residual = values - factor * state.shading
    trusted = state.trust > 0.1
    left = max(float(trusted.sum() - 3 * len(values) - lights), 1.0)
    chi2 = float(np.sum(state.weight * residual**2) / left)
    # The model's error is taken to be there even where these images do not show it.
    told = information - max(chi2, 1.0) * _from_noise(state.basis)
    sigma = _sigma(factor, told, pull, patch)
    slope = state.weight * (factor * state.shading) ** 2
    sigma = np.hypot(sigma, factor * _shared(pull, slope, patch))
    weight = usable / error
    for _ in range(_REWEIGHTED):
        as_given = _settle(values, error, towards, usable, np.ones(lights), weight)
        weight = as_given.weight
    misfit, given = (_misfit(values, error, f, s) for f, s in ((factor, state), (np.ones(lights), as_given)))
    return _Channel(factor, sigma, misfit, given, int(trusted.sum()), int(usable.sum()))


def _misfit(values: Float, error: Float, factor: Float, state: _State) -> float:
    """Mean square of the trusted residuals of the median pixel, over noise and model error."""
    square = np.sum(state.trust * (values - factor * state.shading) ** 2 / error, axis=1)
    count = state.trust.sum(axis=1)
    return float(np.median(square / np.maximum(count * (1 - 3 / len(factor)), 1e-9)))


def _start(values: Float, towards: Float, usable: NDArray[np.bool_]) -> Float:
    """How bright a light makes the brighter pixels, against what it would a surface that faces the lights."""
    middle = towards.mean(axis=1)
    middle /= np.maximum(np.linalg.norm(middle, axis=1, keepdims=True), 1e-12)
    facing = np.maximum(np.einsum("pni,pi->pn", towards, middle), _GRAZING)
    shown = np.where(usable, values / facing, np.nan)
    level = np.nanmedian(shown, axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        bright = np.nanquantile(np.where(level > 0, shown / level, np.nan), _BRIGHT, axis=0)
    bright = np.where(np.isfinite(bright) & (bright > 0), bright, 1.0)
    return np.asarray(bright / bright.mean())


def _settle(
    values: Float, error: Float, towards: Float, usable: NDArray[np.bool_], factor: Float, weight: Float
) -> _State:
    """Weights at the present solutions of all pixels, and the solutions under these."""
    from calibration.photometric.kernels import BIWEIGHT

    shading, length, _, _ = _shade(values, towards, factor, weight)
    lit = usable & (shading > _GRAZING * length)
    off = np.abs(values - factor * shading) / np.sqrt(error)
    wide = np.maximum(1.4826 * _median(off, lit), 1.0)[:, None]
    trust = np.where(lit, np.clip(1 - (off / (BIWEIGHT * wide)) ** 2, 0, None) ** 2, 0.0)
    weight = trust / (error * wide**2)
    shading, _, root, normal = _shade(values, towards, factor, weight)
    back = np.linalg.inv(np.linalg.cholesky(normal))
    return _State(shading, weight, root @ np.swapaxes(back, 1, 2), trust, wide[:, 0])


def _shade(values: Float, towards: Float, factor: Float, weight: Float) -> tuple[Float, Float, Float, Float]:
    """Solve all pixels; shading (p, n), albedo (p, 1), weighted vectors (p, n, 3), their normal matrices."""
    root = (np.sqrt(weight) * factor)[..., None] * towards
    across = np.swapaxes(root, 1, 2)
    normal = across @ root
    normal += (1e-9 * np.trace(normal, axis1=1, axis2=2) + 1e-300)[:, None, None] * np.eye(3)
    b = np.linalg.solve(normal, across @ (np.sqrt(weight) * values)[..., None])
    return (towards @ b)[..., 0], np.linalg.norm(b, axis=1), root, normal


def _median(values: Float, there: NDArray[np.bool_]) -> Float:
    """Median (p,) of the values (p, n) that are there; 0 where none is."""
    order = np.sort(np.where(there, values, np.inf), axis=1)
    count = there.sum(axis=1)
    low, high = (
        np.take_along_axis(order, np.maximum(k, 0)[:, None], axis=1)[:, 0]
        for k in ((count - 1) // 2, np.minimum(count // 2, values.shape[1] - 1))
    )
    return np.where(count > 0, 0.5 * (low + np.where(count > 0, high, 0.0)), 0.0)


def _normal_equations(values: Float, factor: Float, state: _State) -> tuple[Float, Float]:
    """Information (n, n) on the factors' logarithms, the b projected out, and each pixel's pull (p, n)."""
    root = np.sqrt(state.weight)
    slope = root * factor * state.shading
    pull = slope * root * (values - factor * state.shading)
    held = (slope[..., None] * state.basis).transpose(1, 0, 2).reshape(slope.shape[1], -1)
    return np.diag(np.sum(slope**2, axis=0)) - held @ held.T, pull


def _from_noise(basis: Float) -> Float:
    """What noise of unit variance in the b adds to the information: sum of Q * (1 - Q), Q the projection."""
    p, n, _ = basis.shape
    pairs = (basis[..., :, None] * basis[..., None, :]).reshape(p, n, 9).transpose(1, 0, 2).reshape(n, -1)
    return np.asarray(np.diag(np.sum(basis**2, axis=(0, 2))) - pairs @ pairs.T)


def _solve(information: Float, pull: Float) -> Float:
    """Step of the logarithms with sum 0; a light that nothing tells of stays."""
    n = len(pull)
    stiff = information + np.full((n, n), np.trace(information) / n**2)
    stiff += 1e-9 * np.trace(information) / n * np.eye(n)
    return np.asarray(np.linalg.solve(stiff, pull))


def _sigma(factor: Float, information: Float, pull: Float, patch: NDArray[np.int64]) -> Float:
    """One sigma of each factor at mean factor 1; infinite where the information holds nothing."""
    n = len(factor)
    # Coordinates in which the logarithms have sum 0.
    free = np.linalg.svd(np.ones((1, n)))[2][1:]
    inside = free @ information @ free.T
    size, axes = np.linalg.eigh(inside)
    if not size[0] > 1e-9 * size[-1]:
        return np.full(n, np.inf)
    inverse = free.T @ (axes / size) @ axes.T @ free
    sums = _by_patch(pull, patch)
    seen = len(np.unique(patch))
    spread = inverse @ (sums.T @ sums) @ inverse * seen / max(seen - 1, 1)
    to_factor = factor[:, None] * (np.eye(n) - factor / n)
    return np.asarray(np.sqrt(np.diag(to_factor @ spread @ to_factor.T)))


def _least_absolute(terms: Float, values: Float) -> Float:
    """Coefficients of least absolute residuals, by reweighting."""
    weight = np.ones(len(values))
    for _ in range(30):
        found = np.linalg.lstsq(terms * weight[:, None], values * weight, rcond=None)[0]
        weight = 1 / np.sqrt(np.maximum(np.abs(values - terms @ found), 1e-4))
    return np.asarray(found)


def _shared(pull: Float, slope: Float, patch: NDArray[np.int64]) -> float:
    """Relative error of a sample that the pixels of a patch have in common (root mean square)."""
    # Of independent errors the products of different pixels vanish in the mean.
    common, most = (float(np.sum(_by_patch(a, patch) ** 2) - np.sum(a**2)) for a in (pull, slope))
    return float(np.sqrt(max(common, 0.0) / most)) if most > 0 else 0.0


def _by_patch(values: Float, patch: NDArray[np.int64]) -> Float:
    """Sums (patches, n) of values (p, n)."""
    sums = np.zeros((int(patch.max()) + 1, values.shape[1]))
    np.add.at(sums, patch, values)
    return sums


def _patches(at: NDArray[np.intp], mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Number of the square patch that each of the flat indices lies in."""
    side = max(1.0, float(np.sqrt(mask.sum() / _BLOCKS)))
    rows, columns = np.divmod(at, mask.shape[1])
    across = int(mask.shape[1] / side) + 1
    return np.asarray((rows / side).astype(np.int64) * across + (columns / side).astype(np.int64))
