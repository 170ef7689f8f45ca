"""What a dark series says: black level, dark current, temporal noise, and the pixels that misbehave."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtri

from calibration.provenance import FitError
from calibration.radiometric.model import QUANTISATION_DN2
from calibration.radiometric.sensor.quantised import DarkMoments
from calibration.radiometric.sensor.series import Level, Reader, stack_of

T = TypeVar("T")
Float = NDArray[np.float64]
Image = NDArray[np.float32]

_OUTLIER_SIGMAS = 6.0
_SAMPLE = 1_000_000
_DITHERED_DN2 = 0.5


@dataclass(frozen=True, eq=False)
class DarkLevels:
    """One row a dark level; all arrays (n,).

    Attributes
    ----------
    exposure_s, frames : ndarray
    mean, variance, freedom : ndarray
        Over the pixels that are not hot: mean DN, temporal variance DN^2 (NaN without pairs), its degrees of
        freedom.
    temporal : ndarray of bool
        False for the spatial series.
    """

    exposure_s: Float
    frames: Float
    mean: Float
    variance: Float
    freedom: Float
    temporal: NDArray[np.bool_]

    def mean_at(self, exposure_s: Float) -> Float:
        """Mean dark DN at exposures: as measured there, else on the line through all."""
        return self._at(exposure_s, self.mean, self.frames)

    def variance_at(self, exposure_s: Float) -> Float:
        """Mean temporal variance at exposures: as measured there, else on the line through all."""
        known = np.isfinite(self.variance)
        return self._at(exposure_s, np.where(known, self.variance, 0), np.where(known, self.freedom, 0))

    def _at(self, exposure_s: Float, values: Float, weight: Float) -> Float:
        used = weight > 0
        if not np.any(used):
            return np.full(exposure_s.shape, np.nan)
        t, y, w = self.exposure_s[used], values[used], weight[used]
        if len(t) < 3:
            line = np.full(exposure_s.shape, float(np.average(y, weights=w)))
            if len(t) == 2:
                line = np.interp(exposure_s, t, y)
        else:
            line = np.polyval(np.polyfit(t, y, 1, w=np.sqrt(w)), exposure_s)
        nearest = np.argmin(np.abs(t[None, :] - exposure_s[:, None]), axis=1)
        same = np.abs(t[nearest] - exposure_s) <= 1e-3 * exposure_s
        return np.where(same, y[nearest], line)


@dataclass(frozen=True, eq=False)
class DarkSeries:
    """Per-pixel line through the dark frames.

    It is centred on their mean exposure, where its two numbers are independent.

    Attributes
    ----------
    mean_dn : ndarray, float32
        Of all frames.
    rate_dn_s : ndarray, float32, or None
        Slope with exposure; None with a single exposure.
    defects : ndarray of bool
        Hot or noisy.
    noise_dn2, noise_sigma_dn2 : float
        Mean temporal variance of the good pixels with its sigma; NaN without two frames at one exposure.
    noise_exposure_s : float
        Mean exposure of the frames in ``noise_dn2``.
    frames : int
    mean_exposure_s : float
    spread_s2 : float
        Sum over frames of (exposure - mean exposure)^2; 0 with a single exposure.
    drift_dn : float
        Scatter of the frames' means about their line.
    levels : DarkLevels
    clipped : float
        Share of samples at 0 DN.
    """

    mean_dn: Image
    rate_dn_s: Image | None
    defects: NDArray[np.bool_]
    noise_dn2: float
    noise_sigma_dn2: float
    noise_exposure_s: float
    frames: int
    mean_exposure_s: float
    spread_s2: float
    drift_dn: float
    levels: DarkLevels
    clipped: float

    def at(self, exposure_s: float, where: Any = ...) -> Image:
        """Expected dark DN of each pixel, or of some."""
        mean = self.mean_dn[where]
        if self.rate_dn_s is None:
            return np.asarray(mean)
        return np.asarray(mean + self.rate_dn_s[where] * np.float32(exposure_s - self.mean_exposure_s))

    def noise_of(self, exposure_s: float, noise_dn2: float) -> float:
        """Variance of ``at`` from the temporal noise of its frames, DN^2."""
        lever = (exposure_s - self.mean_exposure_s) ** 2 / self.spread_s2 if self.spread_s2 else 0.0
        return noise_dn2 * (1 / self.frames + lever)

    def mean_rate(self) -> float:
        """Mean slope of the good pixels, DN/s."""
        if self.rate_dn_s is None:
            return 0.0
        return float(np.mean(self.rate_dn_s, where=~self.defects, dtype=np.float64))

    def moments(self) -> DarkMoments:
        """What the series shows, with sigmas, for the inversion of the quantisation."""
        levels, good = self.levels, ~self.defects
        pixels = np.count_nonzero(good)
        noise = np.nan_to_num(self.noise_dn2, nan=1.0)
        own = (noise + 1 / pixels) / (pixels * levels.frames)
        deviation = self.mean_dn[good].astype(np.float64)
        deviation -= deviation.mean()
        squares = deviation**2
        temporal = np.where(np.isfinite(levels.variance), levels.variance, noise)
        spatial = squares.mean() - float(np.sum(levels.frames * temporal)) / self.frames**2
        scatter = float(np.std(squares)) / np.sqrt(pixels)
        return DarkMoments(
            exposure_s=levels.exposure_s,
            frames=levels.frames,
            mean=levels.mean,
            mean_sigma=np.sqrt(own + self.drift_dn**2 / levels.frames + 1e-12),
            variance=levels.variance,
            freedom=levels.freedom,
            spatial=float(spatial),
            spatial_sigma=max(scatter, 1e-9, (noise / self.frames + 1e-6) / np.sqrt(pixels)),
        )


Examine = Callable[[Image, NDArray[np.bool_], float], T]
"""What is done with a mean dark image (to be changed), its good pixels, and its temporal noise in DN^2."""


def fit_dark(reader: Reader, levels: list[Level], examine: Examine[T]) -> tuple[DarkSeries, T]:
    """Stream the dark series once (the longest exposure's first frames twice).

    ``examine`` is given the mean of the spatial series, or of all frames where there is none.

    Raises
    ------
    FitError
        More than half of the pixels misbehave: light came in, or the frames are no darks.
    """
    from calibration.radiometric.sensor import kernels

    frames = sum(len(level.frames) for level in levels)
    mean_t = sum(level.exposure_s * len(level.frames) for level in levels) / frames
    spread = sum((level.exposure_s - mean_t) ** 2 * len(level.frames) for level in levels)
    steady = _steady(reader, levels[-1])
    count = np.count_nonzero(steady)
    flat = (reader.shape[0], int(np.prod(reader.shape[1:])))
    total = np.zeros(flat, np.uint32)
    moment, noise = np.zeros(flat, np.float32), np.zeros(flat, np.float32)
    sums = np.zeros((-(-flat[0] // kernels.BLOCK), 4), np.int64)
    means = [np.zeros(len(level.frames)) for level in levels]
    squares = np.zeros(len(levels))
    place_of = {id(level): number for number, level in enumerate(levels)}
    zeros, before = 0, np.zeros((0, 0), np.uint16)
    stack, found = stack_of(levels), None
    # The spatial series goes first, so that the same running sum serves it.
    for level, place, frame in reader.stream(sorted(levels, key=lambda level: level is not stack)):
        frame = frame.reshape(flat)
        numbers = np.array([level.exposure_s - mean_t, place > 0], np.float32)
        kernels.dark_sums(
            before if place else frame, frame, steady.reshape(flat), numbers, total, moment, noise, sums
        )
        before = frame
        reader.check_peak(level.frames[place], int(sums[:, 2].max()))
        number = place_of[id(level)]
        means[number][place] = sums[:, 0].sum() / count
        zeros += int(sums[:, 3].sum())
        if place:
            # A step of the black level from frame to frame is no noise of the pixels.
            step = means[number][place] - means[number][place - 1]
            squares[number] += sums[:, 1].sum() / count - step**2
        if level is stack and place == len(level.frames) - 1:
            own = np.divide(total, len(level.frames), dtype=np.float32).reshape(reader.shape)
            temporal = float(squares[number]) / (2 * place) / len(level.frames)
            found = examine(own, steady & ~_outliers(own, _floor(temporal, 1)), temporal)
            del own
    del before
    image = np.divide(total, frames, dtype=np.float32).reshape(reader.shape)
    del total
    rate = None
    if spread > 0:
        moment /= np.float32(spread)
        rate = moment.reshape(reader.shape)
    del moment

    repeats = np.array([len(level.frames) for level in levels], np.float64)
    pairs = repeats - 1
    with np.errstate(divide="ignore", invalid="ignore"):
        # Successive differences tell n - 1 steps apart, each of which shares its frames with its neighbours.
        freedom = np.where(pairs > 0, 2 * pairs**2 / np.maximum(3 * repeats - 4, 1), 0)
        variance = np.where(pairs > 0, squares / (2 * pairs), np.nan)
    defects = ~steady
    typical = _typical(variance, freedom)
    defects |= _outliers(image, _floor(typical, frames))
    if rate is not None:
        defects |= _outliers(rate, QUANTISATION_DN2 / spread)
    noise_dn2, noise_sigma, of_pixel = np.nan, np.nan, float(freedom.sum())
    if of_pixel > 0:
        noise *= np.float32(1 / (2 * pairs.sum()))
        noise = noise.reshape(reader.shape)
        # A variance that chance gives one pixel in ten million, and at least twice the usual sigma.
        limit = max(float(chdtri(of_pixel, 1e-7)) / of_pixel, 4.0) * max(typical, QUANTISATION_DN2)
        defects |= noise > limit
        step = float(np.sum([np.sum(np.diff(m) ** 2) for m in means]) / (2 * pairs.sum()))
        noise_dn2 = float(np.mean(noise, where=~defects, dtype=np.float64)) - step
        noise_sigma = noise_dn2 * float(np.sqrt(2 / (np.count_nonzero(~defects) * of_pixel)))
    if np.mean(defects) > 0.5:
        raise FitError(
            "sensor: the dark frames disagree over half of the pixels: cover the lens and repeat them"
        )
    if found is None:
        found = examine(image.copy(), ~defects, float(np.nan_to_num(noise_dn2)) / frames)
    exposures = np.array([level.exposure_s for level in levels])
    of_levels = DarkLevels(
        exposure_s=exposures,
        frames=repeats,
        mean=np.array([m.mean() for m in means]),
        variance=variance,
        freedom=freedom * count,
        temporal=np.array([level is not stack or len(levels) == 1 for level in levels]),
    )
    series = DarkSeries(
        mean_dn=image,
        rate_dn_s=rate,
        defects=defects,
        noise_dn2=noise_dn2,
        noise_sigma_dn2=noise_sigma,
        noise_exposure_s=float(np.sum(pairs * exposures) / pairs.sum()) if of_pixel else 0.0,
        frames=frames,
        mean_exposure_s=mean_t,
        spread_s2=float(spread),
        drift_dn=_scatter(np.repeat(exposures, repeats.astype(int)), np.concatenate(means), len(levels)),
        levels=of_levels,
        clipped=zeros / (count * frames),
    )
    return series, found


def _floor(typical_dn2: float, frames: int) -> float:
    """Least variance of a mean of frames: noise that is hidden in the rounding does not dither it."""
    return QUANTISATION_DN2 / frames if typical_dn2 > _DITHERED_DN2 else QUANTISATION_DN2


def _typical(variance: Float, freedom: Float) -> float:
    return float(np.average(variance[freedom > 0], weights=freedom[freedom > 0])) if freedom.any() else 1.0


def _steady(reader: Reader, longest: Level) -> NDArray[np.bool_]:
    """Pixels that do not stand out of the longest exposure: the others' shot noise is not the sensor's."""
    frame = reader(longest.frames[0])
    sample = _sample(frame)
    # Whole numbers have a coarse median deviation: the nine tenths tell their width, half a step added.
    width = float(np.quantile(np.abs(sample - np.median(sample)), 0.9)) + 0.5
    return ~_outliers(frame, (width / 1.645) ** 2)


def _outliers(image: NDArray[Any], least_variance: float) -> NDArray[np.bool_]:
    sample = _sample(image)
    centre = np.float32(np.median(sample))
    deviation = float(np.median(np.abs(sample - centre)))
    # Quantised data may have no width at all.
    reach = np.float32(_OUTLIER_SIGMAS * max(1.4826 * deviation, float(np.sqrt(least_variance))))
    return np.asarray((image > centre + reach) | (image < centre - reach))


def _sample(image: NDArray[Any]) -> Image:
    """Return some pixels: a million of a large sensor tell its median well enough."""
    return np.asarray(image.ravel()[:: max(image.size // _SAMPLE, 1)], np.float32)


def _scatter(exposure: Float, means: Float, levels: int) -> float:
    parameters = min(levels, 2)
    if len(means) <= parameters:
        return 0.0
    residual = means - np.polyval(np.polyfit(exposure, means, parameters - 1), exposure)
    return float(np.sqrt(np.sum(residual**2) / (len(means) - parameters)))
