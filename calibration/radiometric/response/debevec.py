"""Camera response after Debevec and Malik, for 8 to 16 bits."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import isotonic_regression

from calibration.provenance import FitError, Provenance, Quality
from calibration.radiometric.model import RadiometricModel
from calibration.radiometric.response.exposures import check, codes_of
from calibration.radiometric.response.fit import NOMINAL_FULL_WELL_E, NOMINAL_NOISE_DN

Float = NDArray[np.float64]


def fit_debevec(
    frames: Sequence[NDArray[Any]],
    exposure_s: ArrayLike,
    *,
    samples: int = 2000,
    smoothness: float = 10.0,
    pixel_format: str | None = None,
    gain_db: float = 0.0,
    provenance: Provenance = Provenance(),  # noqa: B008 - frozen value
) -> RadiometricModel:
    """Response by least squares on the logarithms of some pixels' exposures.

    The classical method, to compare with: it trusts the exposures, knows no noise and has no sigma. Prefer
    ``fit_response``.

    Parameters
    ----------
    frames : sequence of ndarray (h, w), (h, w, 1) or (h, w, 3), uint8 or uint16
        Three or more exposures of a scene that stands still.
    exposure_s : array_like, (n,)
        Of each frame.
    samples : int
        Pixels that the fit rests on, on a regular grid.
    smoothness : float
        Weight of the curve's second derivative, as in the paper for 256 codes.
    pixel_format : str, optional
        PFNC name; by default 8 or 16 bits after the dtype.
    gain_db : float
        Recorded with the model.
    provenance : Provenance
        Recorded with the model.

    Returns
    -------
    RadiometricModel
        With ``response`` (2**bits, channels), made increasing by isotonic regression of its logarithm and
        scaled so that the brightest channel reaches 10 000 nominal electrons at full scale; the channels
        agree in the middle of the DN range. The noise is stated, not measured.

    Raises
    ------
    FitError
        As ``fit_response``.

    Notes
    -----
    Debevec and Malik, "Recovering high dynamic range radiance maps from photographs", SIGGRAPH 1997,
    doi:10.1145/258734.258884. Samples deeper than 8 bits are put into 512 bins.
    """
    exposures = check(frames, exposure_s, pixel_format)
    codes = codes_of(exposures)
    picked = []
    for frame in exposures.read():
        places = np.linspace(0, len(frame) - 1, min(samples, len(frame))).astype(np.intp)
        picked.append(frame[places] if codes.bin_of is None else codes.bin_of[frame[places]])
    stack = np.stack(picked).astype(np.intp)
    first, last = 0, len(codes.centre) - 1
    if np.all((stack == first) | (stack == last)):
        raise FitError(
            f"response: every sample is black or saturated in frames {', '.join(map(str, exposures.order))}"
        )
    logs = [
        _solve(stack[..., c], np.log(exposures.exposure_s), len(codes.centre), smoothness)
        for c in range(stack.shape[2])
    ]
    rough = np.stack(logs, axis=1)
    if not np.all(np.isfinite(rough)):
        raise FitError("response: the scene does not constrain the curve: add exposures that show mid-tones")
    rising = np.stack([np.asarray(isotonic_regression(column).x) for column in rough.T], axis=1)
    dn = np.arange(2**exposures.bits, dtype=np.float64)
    table = np.stack([np.interp(dn, codes.centre, column) for column in rising.T], axis=1)
    # Plateaus, and codes that never occur, get a slope too small to matter but large enough to invert.
    table += 1e-6 * dn[:, None] / len(dn) * 256
    table = np.exp(table - table[-1].max()) * NOMINAL_FULL_WELL_E
    shape = np.asarray(frames[int(exposures.order[0])]).shape[:2]
    return RadiometricModel(
        width=shape[1],
        height=shape[0],
        pixel_format=exposures.pixel_format,
        gain_dn_per_e=(len(dn) - 1) / NOMINAL_FULL_WELL_E,
        read_noise_e=0.0,
        curve_noise_dn=NOMINAL_NOISE_DN,
        saturation_dn=float(len(dn) - 1),
        response=table,
        gain_db=gain_db,
        quality=Quality(
            residual_rms=float(np.sqrt(np.mean((rising - rough) ** 2))),
            unit="ln exposure",
            observations=stack.size,
            verdict="doubtful",
            warnings=(
                f"noise of a Debevec-Malik model is nominal: {NOMINAL_FULL_WELL_E:.0f} e- at full scale and "
                f"{NOMINAL_NOISE_DN:g} DN after the curve",
            ),
        ),
        provenance=provenance.replace(options=provenance.options | {"method": "debevec"}),
    )


def _solve(stack: NDArray[np.intp], log_exposure: Float, codes: int, smoothness: float) -> Float:
    """Logarithm of the exposure of each code, (codes,), zero in the middle.

    The radiance of each pixel is eliminated: its equations leave the weighted scatter of its frames.
    """
    hat = np.minimum(np.arange(codes), codes - 1 - np.arange(codes)) + 1.0
    hat[[0, -1]] = 1e-3
    hat *= 256 / codes
    weight = hat[stack] ** 2
    total = weight.sum(axis=0)
    pull = weight * log_exposure[:, None]
    matrix, vector = np.zeros((codes, codes)), np.zeros(codes)
    np.add.at(matrix, (stack, stack), weight)
    np.add.at(matrix, (stack[:, None], stack[None]), -weight[:, None] * weight[None] / total)
    np.add.at(vector, stack, pull - weight * pull.sum(axis=0) / total)
    bend = np.diff(np.eye(codes), 2, axis=0) * (codes / 256) ** 2 * hat[1:-1, None]
    matrix += smoothness * bend.T @ bend
    middle = codes // 2
    matrix[middle, middle] += 1e3 * np.trace(matrix) / codes
    return np.asarray(np.linalg.lstsq(matrix, vector, rcond=1e-14)[0])
