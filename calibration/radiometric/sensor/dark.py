"""What a dark series says: black level, dark current, read noise, and the pixels that misbehave."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtri

from calibration.provenance import FitError
from calibration.radiometric.model import QUANTISATION_DN2
from calibration.radiometric.sensor.series import Level, Reader

_OUTLIER_SIGMAS = 6.0


@dataclass(frozen=True, eq=False)
class DarkSeries:
    """Per-pixel line through the dark frames.

    It is centred on their mean exposure, where its two numbers are independent.

    Attributes
    ----------
    mean_dn : ndarray, float64
        Of all frames.
    rate_dn_s : ndarray, float64
        Slope with exposure; zero with a single exposure.
    defects : ndarray of bool
        Hot or noisy.
    noise_dn2, noise_sigma_dn2 : float
        Mean temporal variance of the good pixels with its sigma; NaN without two frames at one exposure.
    noise_exposure_s : float
        Mean exposure of the frames in ``noise_dn2``.
    frames, levels : int
    mean_exposure_s : float
    spread_s2 : float
        Sum over frames of (exposure - mean exposure)^2.
    drift_dn : float
        Scatter of the frames' means about their line.
    """

    mean_dn: NDArray[np.float64]
    rate_dn_s: NDArray[np.float64]
    defects: NDArray[np.bool_]
    noise_dn2: float
    noise_sigma_dn2: float
    noise_exposure_s: float
    frames: int
    levels: int
    mean_exposure_s: float
    spread_s2: float
    drift_dn: float

    def at(self, exposure_s: float) -> NDArray[np.float64]:
        """Expected dark DN of each pixel."""
        return self.mean_dn + self.rate_dn_s * (exposure_s - self.mean_exposure_s)


def fit_dark(reader: Reader, levels: list[Level]) -> DarkSeries:
    """Stream the dark series once.

    Raises
    ------
    FitError
        More than half of the pixels misbehave: light came in, or the frames are no darks.
    """
    frames = sum(len(level.frames) for level in levels)
    mean_t = sum(level.exposure_s * len(level.frames) for level in levels) / frames
    spread = sum((level.exposure_s - mean_t) ** 2 * len(level.frames) for level in levels)
    mean, moment = np.zeros(reader.shape), np.zeros(reader.shape)
    noise = np.zeros(reader.shape, np.float32)
    freedom, noise_exposure = 0, 0.0
    frame_means: list[float] = []
    frame_exposures: list[float] = []
    for level in levels:
        image, variance, means = reader.statistics(level)
        n = len(level.frames)
        mean += image * (n / frames)
        moment += image * (n * (level.exposure_s - mean_t))
        frame_means.extend(means)
        frame_exposures.extend([level.exposure_s] * n)
        if variance is not None:
            # A drift of the black level between the frames is no noise of the pixels.
            noise += np.float32(n - 1) * (variance - np.float32(means.var(ddof=1)))
            freedom += n - 1
            noise_exposure += (n - 1) * level.exposure_s
    rate = moment / spread if len(levels) > 1 else np.zeros(reader.shape)
    defects = _outliers(mean, QUANTISATION_DN2 / frames)
    if len(levels) > 1:
        defects |= _outliers(rate, QUANTISATION_DN2 / spread)
    noise_dn2, noise_sigma = np.nan, np.nan
    if freedom:
        noise /= np.float32(freedom)
        typical = float(noise[~defects].mean(dtype=np.float64))
        # A variance that chance gives one pixel in ten million, and at least twice the usual sigma.
        limit = max(float(chdtri(freedom, 1e-7)) / freedom, 4.0) * max(typical, QUANTISATION_DN2)
        defects |= noise > limit
        noise_dn2 = float(noise[~defects].mean(dtype=np.float64))
        noise_sigma = noise_dn2 * float(np.sqrt(2 / (np.count_nonzero(~defects) * freedom)))
    if np.mean(defects) > 0.5:
        raise FitError(
            "sensor: the dark frames disagree over half of the pixels: cover the lens and repeat them"
        )
    return DarkSeries(
        mean_dn=mean,
        rate_dn_s=rate,
        defects=defects,
        noise_dn2=noise_dn2,
        noise_sigma_dn2=noise_sigma,
        noise_exposure_s=noise_exposure / max(freedom, 1),
        frames=frames,
        levels=len(levels),
        mean_exposure_s=mean_t,
        spread_s2=spread if len(levels) > 1 else 0.0,
        drift_dn=_scatter(np.asarray(frame_exposures), np.asarray(frame_means), len(levels)),
    )


def _outliers(image: NDArray[Any], least_variance: float) -> NDArray[np.bool_]:
    deviation = np.abs(image - np.median(image))
    # Quantised data may have no width at all.
    sigma = max(1.4826 * float(np.median(deviation)), float(np.sqrt(least_variance)))
    return np.asarray(deviation > _OUTLIER_SIGMAS * sigma)


def _scatter(exposure: NDArray[np.float64], means: NDArray[np.float64], levels: int) -> float:
    parameters = min(levels, 2)
    if len(means) <= parameters:
        return 0.0
    residual = means - np.polyval(np.polyfit(exposure, means, parameters - 1), exposure)
    return float(np.sqrt(np.sum(residual**2) / (len(means) - parameters)))
