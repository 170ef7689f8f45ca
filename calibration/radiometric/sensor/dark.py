"""What a dark series says: black level, dark current, temporal noise, and the pixels that misbehave."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtri

from calibration.provenance import FitError
from calibration.radiometric.model import QUANTISATION_DN2
from calibration.radiometric.sensor.pages import Rates, zeros
from calibration.radiometric.sensor.quantised import DarkMoments
from calibration.radiometric.sensor.series import Level, Reader, stack_of

T = TypeVar("T")
Float = NDArray[np.float64]
Image = NDArray[np.float32]

_OUTLIER_SIGMAS = 6.0
_SAMPLE = 1_000_000
_DITHERED_DN2 = 0.5
_STRIP = 256


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
    rate_dn_s : Rates or None
        Slope with exposure; None with a single exposure.
    good : ndarray of bool
        Neither hot nor noisy; the flats take their own defects out of it as well.
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
    rate_dn_s: Rates | None
    good: NDArray[np.bool_]
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
        return self.rate_dn_s.mean(self.good)

    def moments(self) -> DarkMoments:
        """What the series shows, with sigmas, for the inversion of the quantisation."""
        levels, good = self.levels, self.good
        pixels = np.count_nonzero(good)
        noise = np.nan_to_num(self.noise_dn2, nan=1.0)
        own = (noise + 1 / pixels) / (pixels * levels.frames)
        centre = float(np.mean(self.mean_dn, where=good, dtype=np.float64))
        second, fourth = 0.0, 0.0
        for top in range(0, len(good), _STRIP):
            kept = good[top : top + _STRIP]
            square = (self.mean_dn[top : top + _STRIP][kept].astype(np.float64) - centre) ** 2
            second += float(square.sum()) / pixels
            fourth += float((square**2).sum()) / pixels
        temporal = np.where(np.isfinite(levels.variance), levels.variance, noise)
        spatial = second - float(np.sum(levels.frames * temporal)) / self.frames**2
        scatter = float(np.sqrt(max(fourth - second**2, 0.0) / pixels))
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
    frames = sum(len(level.frames) for level in levels)
    mean_t = sum(level.exposure_s * len(level.frames) for level in levels) / frames
    spread = sum((level.exposure_s - mean_t) ** 2 * len(level.frames) for level in levels)
    steady = _steady(reader, levels[-1])
    count = np.count_nonzero(steady)
    sums = _Sums(reader, steady, levels, mean_t)
    stack = stack_of(levels)
    if stack is not None:
        # The spatial series goes first, so that the same running sum serves it.
        sums.add([stack])
        n = len(stack.frames)
        own = _mean_of(sums.total, n, reader.shape)
        temporal = sums.squares[stack] / (2 * (n - 1)) / n
        usual = _outliers(own, _floor(temporal * n, n))
        np.logical_not(usual, out=usual)
        usual &= steady
        found = [examine(own, usual, temporal)]
        del own, usual
    sums.add([level for level in levels if level is not stack])
    total, moment, noise = sums.release()
    image = _mean_of(total, frames, reader.shape)
    del total
    rate = None
    if spread > 0:
        moment /= np.float32(spread)
        rate = moment.reshape(reader.shape)
    del moment

    repeats = np.array([len(level.frames) for level in levels], np.float64)
    square = np.array([sums.squares[level] for level in levels])
    pairs = repeats - 1
    with np.errstate(divide="ignore", invalid="ignore"):
        # Successive differences tell n - 1 steps apart, each of which shares its frames with its neighbours.
        freedom = np.where(pairs > 0, 2 * pairs**2 / np.maximum(3 * repeats - 4, 1), 0)
        variance = np.where(pairs > 0, square / (2 * pairs), np.nan)
    defects = np.logical_not(steady, out=steady)
    typical = _typical(variance, freedom)
    defects |= _outliers(image, _floor(typical, frames))
    if rate is not None:
        defects |= _outliers(rate, QUANTISATION_DN2 / spread)
    noise_dn2, noise_sigma, of_pixel = np.nan, np.nan, float(freedom.sum())
    if of_pixel > 0:
        # A variance that chance gives one pixel in ten million, and at least twice the usual sigma.
        limit = max(float(chdtri(of_pixel, 1e-7)) / of_pixel, 4.0) * max(typical, QUANTISATION_DN2)
        defects |= noise.reshape(reader.shape) > min(limit * 2 * pairs.sum() / sums.unit, 65534)
        noise_dn2 = typical
        noise_sigma = noise_dn2 * float(np.sqrt(2 / (np.count_nonzero(~defects) * of_pixel)))
    if np.mean(defects) > 0.5:
        raise FitError(
            "sensor: the dark frames disagree over half of the pixels: cover the lens and repeat them"
        )
    del noise
    if stack is None:
        found = [examine(image.copy(), ~defects, float(np.nan_to_num(noise_dn2)) / frames)]
    exposures = np.array([level.exposure_s for level in levels])
    of_levels = DarkLevels(
        exposure_s=exposures,
        frames=repeats,
        mean=np.array([sums.means[level].mean() for level in levels]),
        variance=variance,
        freedom=freedom * count,
        temporal=np.array([level is not stack or len(levels) == 1 for level in levels]),
    )
    series = DarkSeries(
        mean_dn=image,
        rate_dn_s=None if rate is None else Rates(rate),
        good=np.logical_not(defects, out=defects),
        noise_dn2=noise_dn2,
        noise_sigma_dn2=noise_sigma,
        noise_exposure_s=float(np.sum(pairs * exposures) / pairs.sum()) if of_pixel else 0.0,
        frames=frames,
        mean_exposure_s=mean_t,
        spread_s2=float(spread),
        drift_dn=_scatter(
            np.repeat(exposures, repeats.astype(int)),
            np.concatenate([sums.means[level] for level in levels]),
            len(levels),
        ),
        levels=of_levels,
        clipped=sums.zeros / (count * frames),
    )
    return series, found[0]


class _Sums:
    """Running sums of a dark series, frame by frame.

    Attributes
    ----------
    total, moment, noise : ndarray
        As ``kernels.dark_sums`` has them; ``noise`` in ``unit`` DN^2.
    means : dict of ndarray
        Mean of each frame over the steady pixels, by level.
    squares : dict of float
        Sum of the steps' mean squared differences, by level.
    zeros : int
        Samples at 0 DN.
    """

    def __init__(
        self, reader: Reader, steady: NDArray[np.bool_], levels: list[Level], mean_exposure_s: float
    ) -> None:
        shape = (reader.shape[0], int(np.prod(reader.shape[1:])))
        self._reader, self._steady, self._mean_t = reader, steady.reshape(shape), mean_exposure_s
        self._count = np.count_nonzero(steady)
        self._steps = sum(len(level.frames) - 1 for level in levels)
        self.total, self.noise = zeros(shape, np.uint32), zeros(shape, np.uint16)
        self.moment = zeros(shape, np.float32)
        self.means = {level: np.zeros(len(level.frames)) for level in levels}
        self.squares = dict.fromkeys(levels, 0.0)
        self.zeros, self.unit = 0, 0.0

    def add(self, levels: list[Level]) -> None:
        """All frames of some levels."""
        from calibration.radiometric.sensor import kernels

        sums = np.zeros((-(-len(self.total) // kernels.BLOCK), 4), np.int64)
        empty: NDArray[Any] = np.zeros((0, 0), np.uint16)
        before = empty
        for level, place, frame in self._reader.stream(levels):
            frame = frame.reshape(self.total.shape)
            before = before if place else frame
            if place and self.unit == 0:
                self.unit = _unit(before, frame, self._steps)
            numbers = np.array(
                [level.exposure_s - self._mean_t, place > 0, 1 / (self.unit or 1.0)], np.float32
            )
            kernels.dark_sums(before, frame, self._steady, numbers, self.total, self.moment, self.noise, sums)
            before = frame
            # Two frames at most are held while the next is decoded.
            del frame
            self._reader.check_peak(level.frames[place], int(sums[:, 2].max()))
            means = self.means[level]
            means[place] = sums[:, 0].sum() / self._count
            self.zeros += int(sums[:, 3].sum())
            if place:
                # A step of the black level from frame to frame is no noise of the pixels.
                step = means[place] - means[place - 1]
                self.squares[level] += sums[:, 1].sum() / self._count - step**2
            if place == len(level.frames) - 1:
                before = empty

    def release(self) -> tuple[NDArray[np.uint32], Image, NDArray[np.uint16]]:
        """Hand total, moment and noise over to whoever can let them go."""
        arrays = self.total, self.moment, self.noise
        del self.total, self.moment, self.noise
        return arrays


def _floor(typical_dn2: float, frames: int) -> float:
    """Least variance of a mean of frames: noise that is hidden in the rounding does not dither it."""
    return QUANTISATION_DN2 / frames if typical_dn2 > _DITHERED_DN2 else QUANTISATION_DN2


def _unit(before: NDArray[Any], frame: NDArray[Any], steps: int) -> float:
    """Unit of the squared differences of two frames in which their sum over all steps fits 16 bits, DN^2."""
    change = _sample(before) - _sample(frame)
    usual = float(np.median(np.abs(change))) + 1.0
    # Thirty times the usual sum still fits: noisier pixels need not be told apart.
    return max(1.0, 30 * steps * 2.2 * usual**2 / 65535)


def _typical(variance: Float, freedom: Float) -> float:
    return float(np.average(variance[freedom > 0], weights=freedom[freedom > 0])) if freedom.any() else 1.0


def _steady(reader: Reader, longest: Level) -> NDArray[np.bool_]:
    """Pixels that do not stand out of the longest exposure: the others' shot noise is not the sensor's."""
    frame = reader(longest.frames[0])
    sample = _sample(frame)
    # Whole numbers have a coarse median deviation: the nine tenths tell their width, half a step added.
    width = float(np.quantile(np.abs(sample - np.median(sample)), 0.9)) + 0.5
    found = _outliers(frame, (width / 1.645) ** 2)
    return np.logical_not(found, out=found)


def _mean_of(total: NDArray[np.uint32], frames: int, shape: tuple[int, ...]) -> Image:
    image = zeros(total.shape, np.float32)
    np.divide(total, frames, out=image, dtype=np.float32)
    return image.reshape(shape)


def _outliers(image: NDArray[Any], least_variance: float) -> NDArray[np.bool_]:
    sample = _sample(image)
    centre = np.float32(np.median(sample))
    deviation = float(np.median(np.abs(sample - centre)))
    # Quantised data may have no width at all.
    reach = np.float32(_OUTLIER_SIGMAS * max(1.4826 * deviation, float(np.sqrt(least_variance))))
    found = zeros(image.shape, np.bool_)
    for top in range(0, len(image), _STRIP):
        part = image[top : top + _STRIP]
        np.logical_or(part > centre + reach, part < centre - reach, out=found[top : top + _STRIP])
    return found


def _sample(image: NDArray[Any]) -> Image:
    """Return some pixels: a million of a large sensor tell its median well enough."""
    return np.asarray(image.reshape(-1)[:: max(image.size // _SAMPLE, 1)], np.float32)


def _scatter(exposure: Float, means: Float, levels: int) -> float:
    parameters = min(levels, 2)
    if len(means) <= parameters:
        return 0.0
    residual = means - np.polyval(np.polyfit(exposure, means, parameters - 1), exposure)
    return float(np.sqrt(np.sum(residual**2) / (len(means) - parameters)))
