"""Camera response by maximum likelihood, as a radiometric model."""

from collections.abc import Container, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr

from calibration.provenance import FitError, Provenance, Quality
from calibration.radiometric.model import RadiometricModel
from calibration.radiometric.response.exposures import Exposures, Joint, blind_frames, check, count
from calibration.radiometric.response.likelihood import Fit
from calibration.radiometric.response.likelihood import fit as fit_likelihood
from calibration.radiometric.response.linear import Line, Straight, line_through, refit

Float = NDArray[np.float64]

NOMINAL_FULL_WELL_E = 10_000.0
NOMINAL_NOISE_DN = 1.0
_MEASURED = 4.0  # sigma above zero from which the shot noise counts as measured
_MODEL = 0.01  # relative sigma of the electrons that the model of the noise itself leaves
_ALIKE = 0.1  # relative difference of the channels' electrons that is taken for none
_ROUNDED = 0.01  # DN of the black level that rounding leaves where no noise dithers it
_UNSEEN = 0.03  # of the range: a stretch of codes that a warning is worth
_OUTLIERS = 0.02
_OFF, _WRONG = 0.15, 0.69  # logarithm of fitted over reported exposure
# One that stands off the others: logarithm, and sigma of their scatter, of which so much is expected. Three
# exposures are met by some scale and power but for one number.
_ALONE, _STANDS_OFF, _COMMON = 0.18, 4.0, 0.02
_FEWEST = 3


def fit_response(
    frames: Sequence[NDArray[Any]],
    exposure_s: ArrayLike,
    *,
    pixel_format: str | None = None,
    exposure_sigma: float | None = None,
    gain_db: float = 0.0,
    provenance: Provenance = Provenance(),  # noqa: B008 - frozen value
) -> RadiometricModel:
    """Response of a camera from an exposure stack of any static scene, by maximum likelihood.

    Every sample of every frame counts, through joint histograms of frames about 1 EV apart. Fitted together
    are an increasing smooth curve for each channel, the exposures (which the camera reports with some error),
    and the noise: shot noise and read noise before the curve, noise after it, quantisation.

    Parameters
    ----------
    frames : sequence of ndarray (h, w), (h, w, 1) or (h, w, 3), uint8 or uint16
        Three or more exposures of a scene that stands still; read one after the other, 8-bit frames once and
        deeper ones twice.
    exposure_s : array_like, (n,)
        Of each frame, in any order.
    pixel_format : str, optional
        PFNC name, such as ``Mono12``; by default 8 or 16 bits after the dtype. Bayer mosaics get one curve
        for all colours.
    exposure_sigma : float, optional
        Relative sigma of the reported exposures; estimated from the frames if not given. 1e-4 trusts them.
    gain_db : float
        Recorded with the model.
    provenance : Provenance
        Recorded with the model.

    Returns
    -------
    RadiometricModel
        With ``response`` (2**bits, channels) in electrons, its relative sigma ``response_sigma`` (infinite
        where the scene did not constrain it) and the fitted ``exposures``; or, where a straight line fits, a
        linear model without response, its black level, gain and ``linearity_error_percent``. The electrons
        rest on the scatter between exposures; where that is too small to tell, they are nominal (10 000 at
        full scale) and a warning says so. Samples beyond 4 sigma (motion) are left out.

    Raises
    ------
    FitError
        Fewer than 3 different exposures; a frame of another size or depth, or of floats; exposures missing
        or not positive; every sample black or saturated; a frame whose exposure is off by a factor of two,
        or, of four and more, by 20 % where the others agree.

    Notes
    -----
    An exposure stack cannot tell response g and exposures t from g**a and t**a. The fit takes the power at
    which the reported exposures are met best: with n independent errors of s it is uncertain by s over the
    root sum of squares of log t about its mean. Nor can the scale, or the ratio of the channels be found:
    they agree in the middle of the DN range, unless the shot noise shows that they hold different electrons.

    Fails for images that were denoised, sharpened, tone-mapped locally, or whose channels a colour matrix has
    mixed: there one DN does not stand for one exposure. What images can tell: Grossberg and Nayar,
    doi:10.1109/TPAMI.2003.1240119. The problem: Debevec and Malik, doi:10.1145/258734.258884.
    """
    exposures = check(frames, exposure_s, pixel_format)
    joint = count(exposures)
    fit = fit_likelihood(joint, exposures, exposure_sigma)
    shape = np.asarray(frames[int(exposures.order[0])]).shape[:2]
    lines = [line_through(fit, joint, c) for c in range(len(fit.parameters))]
    straight = refit(fit, joint, exposures, lines) if all(line.straight for line in lines) else None
    if straight is not None:
        fit = fit._replace(shift=straight.shift, shift_sigma=straight.shift_sigma)
    blind = blind_frames(joint, exposures)
    odd = _exposure_notes(fit, exposures, blind)
    warnings = [*blind.values(), *odd]
    share = fit.outliers / max(fit.samples + fit.outliers, 1)
    if share > _OUTLIERS:
        warnings.append(
            f"{100 * share:.1f} % of the pairs of samples differ by more than noise: motion, or flicker"
        )
    if not joint.saturates:
        warnings.append("no sample saturates: saturation is taken at full scale")
    common: dict[str, Any] = {
        "width": shape[1],
        "height": shape[0],
        "pixel_format": exposures.pixel_format,
        "saturation_dn": joint.saturation_dn,
        "gain_db": gain_db,
        "exposures": _evidence(fit, exposures),
    }
    options = provenance.options | {"method": "likelihood", "exposure_jitter": fit.jitter}
    options["gamma"] = float(np.mean([line.gamma for line in lines]))
    options["gamma_sigma"] = float(np.mean([line.gamma_sigma for line in lines]))
    provenance = provenance.replace(options=options)
    fields, notes, sure = (
        _curved(fit, joint, exposures) if straight is None else _linear(straight, joint, lines)
    )
    warnings += notes
    return RadiometricModel(
        **common,
        **fields,
        quality=Quality(
            residual_rms=fit.residual_dn,
            unit="DN",
            observations=int(fit.samples),
            rejected=int(fit.outliers),
            verdict="good" if sure and not odd and share <= _OUTLIERS else "doubtful",
            warnings=tuple(warnings),
        ),
        provenance=provenance,
    )


class _Electrons(NamedTuple):
    """Noise of one camera in electrons."""

    per_exposure: Float  # (channels,)
    relative_sigma: float
    measured: bool
    notes: list[str]


def _electrons(shot: Float, sigma: Float, full: Float) -> _Electrons:
    """Electrons of a relative exposure of 1 in each channel; ``full``: exposure at full scale."""
    measured = bool(np.all(shot > _MEASURED * sigma))
    if not measured:
        note = (
            "the scatter between exposures does not grow as shot noise would: electrons are nominal, "
            f"{NOMINAL_FULL_WELL_E:.0f} at full scale"
        )
        each = np.full(len(full), NOMINAL_FULL_WELL_E / full.max())
        return _Electrons(each, 0.0, False, [note])
    each, relative = 1 / shot, np.hypot(sigma / shot, _MODEL)
    weight = 1 / relative**2
    pooled = float(np.exp(np.average(np.log(each), weights=weight)))
    off = np.abs(np.log(each / pooled))
    if np.all(off < np.maximum(_ALIKE, 3 * relative)):
        return _Electrons(np.full(len(each), pooled), float(1 / np.sqrt(np.sum(1 / relative**2))), True, [])
    note = (
        "the channels hold different electrons ("
        + ", ".join(f"{count:.0f}" for count in each * full)
        + " at full scale): radiance is in those of each, which undoes the camera's white balance"
    )
    return _Electrons(each, float(relative.max()), True, [note])


def _floors(fit: Fit, per_exposure: Float) -> tuple[float, float]:
    """Noise before the curve in electrons, and after it in DN, of all channels; nominal if none was seen."""
    known = fit.noise[:, 1:] > _MEASURED * fit.noise_sigma[:, 1:]
    shot = fit.noise[:, 0] > _MEASURED * fit.noise_sigma[:, 0]
    if not (known.any() or shot.all()):
        return 0.0, NOMINAL_NOISE_DN
    read = np.mean(fit.noise[:, 1] * per_exposure**2)
    return float(np.sqrt(read)), float(np.sqrt(np.mean(fit.noise[:, 2])))


def _curved(fit: Fit, joint: Joint, exposures: Exposures) -> tuple[dict[str, Any], list[str], bool]:
    codes = np.arange(2**exposures.bits, dtype=np.float64)
    curve = fit.curve.on(codes, int(np.rint(joint.codes.centre[0])))
    size = fit.parameters.shape[1]
    tables, sigmas, notes = [], [], []
    for c, parameters in enumerate(fit.parameters):
        table = curve.exposure(parameters)
        covariance = fit.covariance[c * size : (c + 1) * size, c * size : (c + 1) * size]
        seen, stretches = _seen(fit, joint, c, codes)
        tables.append(table)
        sigmas.append(_relative_sigma(table, curve.jacobian(parameters), covariance, seen))
        if stretches:
            name = f"channel {'RGB'[c]}: " if len(fit.parameters) == 3 else ""
            listed = ", ".join(f"{low:.0f} to {high:.0f}" for low, high in stretches)
            notes.append(f"{name}the scene does not constrain DN {listed}: there the curve is a smooth guess")
    exposure = np.stack(tables, axis=1)
    top = int(joint.saturation_dn)
    electrons = _electrons(fit.noise[:, 0], fit.noise_sigma[:, 0], exposure[top])
    response = exposure * electrons.per_exposure
    # Strictly increasing also where a step is lost in rounding.
    steps = np.maximum(np.diff(response, axis=0), 1e-9 * np.abs(response[top]))
    response = np.concatenate([response[:1], response[:1] + np.cumsum(steps, axis=0)])
    gain = float(top / np.mean(response[top]))
    read, after = _floors(fit, electrons.per_exposure)
    if joint.codes.clips_dark and read > 0:
        clipped = int(np.rint(joint.codes.centre[joint.first]))
        held = _below(0.5 * (response[clipped] + response[clipped + 1]), read)
        # With what lies below, where black is clipped at a number above zero.
        response[: clipped + 1] -= np.maximum(response[clipped] - held, 0)
    fields = {
        "response": response,
        "response_sigma": np.stack(sigmas, axis=1),
        "gain_dn_per_e": gain,
        "gain_sigma_dn_per_e": gain * electrons.relative_sigma,
        "read_noise_e": read,
        "curve_noise_dn": after,
    }
    return fields, notes + electrons.notes, electrons.measured and not notes


def _below(edge: Float, read_e: float) -> Float:
    """Mean of the electrons, read noise among them, that are clipped to black.

    Dark samples scatter to both sides of their mean. Those below, cut off at black, must count with what was
    cut off, or the mean of dark pixels is too bright. For light that fills a range from zero evenly: half of
    ``edge`` where the noise is small, -0.63 times the noise where it is large.
    """
    z = edge / read_e
    density, share = np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi), ndtr(z)
    return np.asarray(0.5 * read_e * ((z * z - 1) * share + z * density) / (z * share + density))


def _linear(straight: Straight, joint: Joint, lines: list[Line]) -> tuple[dict[str, Any], list[str], bool]:
    weight = 1 / straight.black_sigma_dn**2
    black = float(np.average(straight.black_dn, weights=weight))
    shot, constant = straight.noise.T
    sigma, constant_sigma = straight.noise_sigma.T
    electrons = _electrons(shot, sigma, np.full(len(shot), joint.saturation_dn - black))
    gains = 1 / electrons.per_exposure
    gain = float(np.exp(np.mean(np.log(gains))))
    notes = list(electrons.notes)
    if np.ptp(np.log(gains)) > _ALIKE:
        notes = [f"the channels differ in gain by {100 * np.ptp(np.log(gains)):.0f} %: their mean is used"]
    known = constant > _MEASURED * constant_sigma
    nominal = not (known.any() or electrons.measured)
    read = NOMINAL_NOISE_DN / gain if nominal else float(np.sqrt(np.mean(constant / gains**2)))
    # Of the variance, and of the gain that makes electrons of it.
    of_variance = np.sqrt(np.sum((constant_sigma / gains**2) ** 2)) / len(gains)
    read_sigma = (
        0.0
        if nominal or not np.isfinite(of_variance)
        else float(np.hypot(of_variance / (2 * max(read, 0.1)), read * electrons.relative_sigma))
    )
    error = max(line.error_percent for line in lines)
    gamma, gamma_sigma = (
        float(np.mean([getattr(line, name) for line in lines])) for name in ("gamma", "gamma_sigma")
    )
    notes.append(
        f"the camera is linear (gamma {gamma:.3f} ± {gamma_sigma:.3f}, "
        f"off a straight line by {error:.2g} %): the model holds no curve"
    )
    fields = {
        "black_dn": black,
        "black_sigma_dn": float(np.hypot(1 / np.sqrt(weight.sum()), _ROUNDED)),
        "gain_dn_per_e": gain,
        "gain_sigma_dn_per_e": gain * electrons.relative_sigma,
        "read_noise_e": read,
        "read_noise_sigma_e": read_sigma,
        "linearity_error_percent": error,
    }
    return fields, notes, electrons.measured


def _seen(
    fit: Fit, joint: Joint, channel: int, codes: Float
) -> tuple[NDArray[np.bool_], list[tuple[float, float]]]:
    """Codes that the scene constrains, and the longer stretches that it does not."""
    centre, width = joint.codes.centre, joint.codes.width
    touched = np.flatnonzero(fit.information[channel] > 0)
    low, high = centre[touched], centre[touched[-1]]
    seen = (codes >= low[0]) & (codes <= high)
    dark, bright = centre[joint.first], joint.saturation_dn
    least = max(_UNSEEN * (bright - dark), 2.5)
    stretches = []
    if low[0] - dark > least:
        stretches.append((dark, low[0]))
    for a, b in pairwise(touched):
        if centre[b] - centre[a] > least + width[a]:
            seen &= (codes <= centre[a]) | (codes >= centre[b])
            stretches.append((centre[a], centre[b]))
    if bright - high > least:
        stretches.append((high, bright))
    seen &= codes < bright
    if joint.codes.clips_dark:
        seen &= codes > dark
    return seen, stretches


def _relative_sigma(table: Float, jacobian: Float, covariance: Float, seen: NDArray[np.bool_]) -> Float:
    """Sigma of each entry over its value, at the common scale that the curve itself fits best."""
    known = seen & (table > 0)
    sigma = np.full(len(table), np.inf)
    if known.any():
        relative = jacobian[known] / table[known, None]
        weight = table[known] ** 2
        relative = relative - weight @ relative / weight.sum()
        sigma[known] = np.sqrt(
            np.maximum(np.einsum("ki,ij,kj->k", relative, covariance, relative, optimize=True), 0)
        )
    return sigma


def _evidence(fit: Fit, exposures: Exposures) -> Float:
    """Reported, fitted and relative sigma of each exposure, in the caller's order."""
    table = np.empty((len(fit.shift), 3))
    table[exposures.order] = np.stack(
        [exposures.exposure_s, exposures.exposure_s * np.exp(fit.shift), fit.shift_sigma], axis=1
    )
    return table


def _exposure_notes(fit: Fit, exposures: Exposures, blind: Container[int]) -> list[str]:
    """Warnings of exposures that do not fit the frames; FitError where one is plainly wrong."""
    notes = []
    # Of a frame that shows nothing the exposure is not known.
    shown = np.array([index for index in range(len(fit.shift)) if index not in blind], np.intp)
    off, alone = _departures(fit.shift[shown], np.log(exposures.exposure_s[shown]))
    worst = int(np.argmax(np.abs(off)))
    for place in np.argsort(exposures.order[shown]):
        told = exposures.exposure_s[shown[place]]
        fitted, frame = told * np.exp(off[place]), exposures.order[shown[place]]
        text = f"frame {frame} fits an exposure of {fitted:.3g} s, not {told:.3g} s"
        if (place == worst and abs(off[place]) > _WRONG) or place == alone:
            raise FitError(f"response: {text}: correct it, or leave the frame out")
        if abs(off[place]) > _OFF:
            notes.append(text)
    return notes


def _departures(shift: Float, reported: Float) -> tuple[Float, int | None]:
    """How far each exposure is off, in logarithm, and which one alone is wrong, if one surely is.

    The frames tell the exposures up to a scale and a power; the fit takes those that meet the reports best,
    and one wrong report draws both away from the right ones. Each is therefore held against the line of the
    others: the wrong one stands off, and without it they agree.
    """
    n = len(shift)
    if n > _FEWEST:
        found = []
        for k in range(n):
            rest = np.arange(n) != k
            mean, slant = reported[rest].mean(), reported[rest] - reported[rest].mean()
            square = max(float(slant @ slant), 1e-12)
            power = float(slant @ shift[rest]) / square
            off = shift - shift[rest].mean() - power * (reported - mean)
            scatter = (float(off[rest] @ off[rest]) + _COMMON**2) / (n - _FEWEST + 1)
            own = scatter * (1 + 1 / (n - 1) + (reported[k] - mean) ** 2 / square)
            found.append((abs(off[k]) / np.sqrt(own), k, off))
        sigmas, k, off = max(found, key=lambda one: one[0])
        if sigmas > _STANDS_OFF and abs(off[k]) > _ALONE:
            # The scatter of a few says little.
            return off, k if sigmas > _STANDS_OFF * (1 + 4 / (n - _FEWEST) ** 2) else None
    return shift - np.median(shift), None
