"""The smooth part of a flat field: fall-off of the light over the picture, for each colour apart."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
from numpy.polynomial import legendre
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, model_validator

from calibration.provenance import Array, FitError, Model

Float = NDArray[np.float64]
Plane = tuple[Any, ...]
Terms = tuple[tuple[int, int], ...]

_ROWS_AT_ONCE = 1 << 20  # samples
_ROUNDS = 12
_TUKEY = 4.685  # 95 % efficient on normal residuals
_CENTRE_REACH = 0.5  # of the half diagonal
_STRONG = 6.0  # difference of the criterion: Kass and Raftery 1995, doi:10.1080/01621459.1995.10476572


def colour_planes(pixel_format: str) -> list[Plane]:
    """Index of the samples of each colour of a frame: one of mono, three of RGB, four of a Bayer mosaic."""
    if pixel_format.startswith("Bayer"):
        return [(slice(i, None, 2), slice(j, None, 2)) for i in range(2) for j in range(2)]
    if pixel_format.startswith("RGB"):
        return [(..., c) for c in range(3)]
    return [(...,)]


@dataclass(frozen=True)
class Shape:
    """Which terms a fall-off has.

    Attributes
    ----------
    powers : tuple of int
        Of the distance from the centre.
    terms : tuple of (int, int)
        Degrees in x and y of the products of Legendre polynomials.
    centred : bool
        The centre of the radial part is that of the picture, not fitted.
    """

    powers: tuple[int, ...]
    terms: Terms = ()
    centred: bool = False


class Falloff(Model):
    """Relative light of one colour: a radial polynomial about a centre times a low-order surface.

    With rho the distance from ``centre_px`` over half the picture's diagonal, and x, y from -1 to 1 over the
    picture's columns and rows::

        log v = offset + sum radial[k] * rho ** powers[k] + sum surface[m] * P_i(x) * P_j(y)

    Attributes
    ----------
    centre_px : (float, float)
        Column, row.
    powers, radial : tuples
        Exponents and coefficients of the radial part.
    terms, surface : tuples
        Degrees (i, j) and coefficients of the Legendre products.
    offset : float
        Makes the mean of v over the central half of rows and columns 1.
    covariance : ndarray (2 + k + m, 2 + k + m), float64
        Of centre, radial and surface; zero for a centre that was not fitted.
    """

    centre_px: tuple[float, float]
    powers: tuple[int, ...]
    radial: tuple[float, ...]
    terms: Terms = ()
    surface: tuple[float, ...] = ()
    offset: float = 0.0
    covariance: Array

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        size = 2 + len(self.radial) + len(self.surface)
        if len(self.powers) != len(self.radial) or len(self.terms) != len(self.surface):
            raise ValueError("want one coefficient for each power and each term")
        if self.covariance.shape != (size, size):
            raise ValueError(f"covariance has shape {self.covariance.shape}, want {(size, size)}")
        return self


class Vignetting(Model):
    """Smooth relative response of lens and sensor over the picture, for each colour; positive everywhere.

    Attributes
    ----------
    width, height : int
        Of the frames, px.
    channels : tuple of Falloff
        One (mono), three (RGB) or four (Bayer, the sites of the 2 x 2 block row by row).
    support : ndarray (rows, columns) of bool
        Cells of equal size over the picture that the data reached; elsewhere the model extrapolates.

    Notes
    -----
    The polynomials live in the logarithm, which keeps the model positive; outside ``support`` and outside the
    picture they grow without bound and mean nothing. A flat target that is not evenly lit, or a ramp that the
    data could not tell (see ``fit_vignetting``), is part of the model.
    """

    width: int = Field(gt=0)
    height: int = Field(gt=0)
    channels: tuple[Falloff, ...]
    support: Array

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.channels) not in (1, 3, 4):
            raise ValueError(f"{len(self.channels)} channels: want 1, 3 or 4")
        if self.support.ndim != 2 or self.support.dtype != np.bool_:
            raise ValueError("support: want a bool array (rows, columns)")
        return self

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one frame: (h, w), or (h, w, 3) with three channels."""
        return (self.height, self.width, *((3,) if len(self.channels) == 3 else ()))

    @property
    def extrapolated(self) -> float:
        """Share of the picture that no data reached."""
        return float(1 - np.mean(self.support))

    def at(self) -> NDArray[np.float32]:
        """Map of the frame's shape; mean 1 over the central half of rows and columns for each colour."""
        out = np.empty(self.shape, np.float32)
        for index, plane in enumerate(self._planes()):
            part = out[plane]
            for rows, u, v in self._strips(index):
                part[rows] = self.value(index, u, v)
        return out

    def sigma(self) -> NDArray[np.float32]:
        """Relative one-sigma of ``at()``, of the frame's shape."""
        out = np.empty(self.shape, np.float32)
        for index, plane in enumerate(self._planes()):
            part = out[plane]
            for rows, u, v in self._strips(index):
                part[rows] = self.relative_sigma(index, u, v)
        return out

    def value(self, channel: int, u: ArrayLike, v: ArrayLike) -> Float:
        """Relative response of a channel at columns ``u`` and rows ``v``, px of the full frame."""
        falloff = self.channels[channel]
        u, v = np.broadcast_arrays(np.asarray(u, np.float64), np.asarray(v, np.float64))
        out = np.full(u.shape, falloff.offset)
        rho2 = _rho2(u, v, falloff.centre_px, self.width, self.height)
        for power, coefficient in zip(falloff.powers, falloff.radial, strict=True):
            out += coefficient * (rho2 ** (power // 2) if power % 2 == 0 else rho2 ** (power / 2))
        if falloff.terms:
            degree = max(max(term) for term in falloff.terms)
            table = np.zeros((degree + 1, degree + 1))
            for (i, j), coefficient in zip(falloff.terms, falloff.surface, strict=True):
                table[i, j] = coefficient
            x, y = _unit(u, v, self.width, self.height)
            out += legendre.legval2d(x, y, table)
        return np.asarray(np.exp(out))

    def relative_sigma(self, channel: int, u: ArrayLike, v: ArrayLike) -> Float:
        """Relative one-sigma of ``value``, the mean over the central half held at 1."""
        falloff = self.channels[channel]
        size = self.width, self.height
        u, v = np.broadcast_arrays(np.asarray(u, np.float64), np.asarray(v, np.float64))
        parameters = _Parameters.of(falloff)
        gauge = _jacobian(*_central_half(*size), parameters, *size)[:, :-1].mean(axis=0)
        slope = _jacobian(u.ravel(), v.ravel(), parameters, *size)[:, :-1] - gauge
        variance = np.einsum("np,pq,nq->n", slope, falloff.covariance, slope)
        return np.asarray(np.sqrt(np.maximum(variance, 0)).reshape(u.shape))

    def ramp_sigma(self, channel: int) -> float:
        """Relative one-sigma of the ramp, middle to edge, over columns or rows: the worse of the two."""
        falloff = self.channels[channel]
        ramps = _ramps(_Parameters.of(falloff), self.width, self.height)[:, :-1]
        return float(np.sqrt(np.max(np.einsum("np,pq,nq->n", ramps, falloff.covariance, ramps))))

    def _planes(self) -> list[Plane]:
        return colour_planes({1: "Mono", 3: "RGB", 4: "Bayer"}[len(self.channels)])

    def _strips(self, index: int) -> Iterator[tuple[slice, Float, Float]]:
        """Rows of one colour's plane, a few at a time, with the columns and rows of the full frame."""
        u, v = sites(self.width, self.height, len(self.channels), index)
        step = max(_ROWS_AT_ONCE // len(u), 1)
        for first in range(0, len(v), step):
            rows = slice(first, first + step)
            yield rows, u, v[rows, None]


def sites(width: int, height: int, channels: int, index: int) -> tuple[Float, Float]:
    """Columns and rows (px of the full frame) of one colour's samples."""
    if channels == 4:
        return np.arange(index % 2, width, 2.0), np.arange(index // 2, height, 2.0)
    return np.arange(width, dtype=np.float64), np.arange(height, dtype=np.float64)


@dataclass(frozen=True, eq=False)
class _Parameters:
    """A fall-off while it is fitted; ``vector`` holds centre, radial, surface and the constant."""

    shape: Shape
    vector: Float

    @classmethod
    def of(cls, falloff: Falloff) -> "_Parameters":
        vector = np.array([*falloff.centre_px, *falloff.radial, *falloff.surface, falloff.offset])
        return cls(Shape(falloff.powers, falloff.terms), vector)

    @property
    def radial(self) -> Float:
        return self.vector[2 : 2 + len(self.shape.powers)]

    def falloff(self, covariance: Float, offset: float) -> Falloff:
        n = 2 + len(self.shape.powers)
        return Falloff(
            centre_px=(float(self.vector[0]), float(self.vector[1])),
            powers=self.shape.powers,
            radial=tuple(map(float, self.vector[2:n])),
            terms=self.shape.terms,
            surface=tuple(map(float, self.vector[n:-1])),
            offset=offset,
            covariance=covariance,
        )


def _rho2(u: Float, v: Float, centre: Sequence[float], width: int, height: int) -> Float:
    return np.asarray(((u - centre[0]) ** 2 + (v - centre[1]) ** 2) * (4 / (width**2 + height**2)))


def _unit(u: Float, v: Float, width: int, height: int) -> tuple[Float, Float]:
    return (2 * u + 1) / width - 1, (2 * v + 1) / height - 1


def _central_half(width: int, height: int, count: int = 24) -> tuple[Float, Float]:
    """Columns and rows of a grid of points over the central half."""
    steps = 0.25 + (np.arange(count) + 0.5) / (2 * count)
    u, v = np.meshgrid(steps * width - 0.5, steps * height - 0.5)
    return u.ravel(), v.ravel()


def _ramps(parameters: "_Parameters", width: int, height: int) -> Float:
    """Derivatives of the ramps of log v, middle to edge, over columns and over rows, (2, p)."""
    right, low = (width - 1.0) / 2, (height - 1.0) / 2
    u, v = right + np.array([right, -right, 0, 0]), low + np.array([0, 0, low, -low])
    slope = _jacobian(u, v, parameters, width, height)
    return np.asarray((slope[0::2] - slope[1::2]) / 2)


def _jacobian(u: Float, v: Float, parameters: _Parameters, width: int, height: int) -> Float:
    """Derivatives of log v by centre, radial, surface and constant, (n, p)."""
    shape, centre = parameters.shape, parameters.vector[:2]
    rho2 = _rho2(u, v, (centre[0], centre[1]), width, height)
    rho = np.sqrt(rho2)
    columns = [np.zeros_like(u), np.zeros_like(u)]
    if not shape.centred:
        pull = np.zeros_like(u)  # d log v / d rho2
        for power, coefficient in zip(shape.powers, parameters.radial, strict=True):
            pull += coefficient * power / 2 * np.maximum(rho, 1e-9) ** (power - 2)
        scale = -8 / (width**2 + height**2)
        columns = [scale * pull * (u - centre[0]), scale * pull * (v - centre[1])]
    columns += [rho**power for power in shape.powers]
    x, y = _unit(u, v, width, height)
    if shape.terms:
        degree = max(max(term) for term in shape.terms)
        of_x, of_y = legendre.legvander(x, degree), legendre.legvander(y, degree)
        columns += [of_x[:, i] * of_y[:, j] for i, j in shape.terms]
    columns.append(np.ones_like(u))
    return np.stack(columns, axis=1)


def degree_terms(degree: int) -> Terms:
    """Legendre products up to a total degree, without the constant and the pure even powers of y.

    The radial part has those: with them the sum would not be unique.
    """
    return tuple(
        (i, total - i)
        for total in range(1, degree + 1)
        for i in range(total, -1, -1)
        if i > 0 or total % 2 == 1
    )


_EVEN = tuple(tuple(range(2, 2 * n + 1, 2)) for n in range(1, 5))
_ALL = ((1, 2, 3), (1, 2, 3, 4))
CANDIDATES: tuple[Shape, ...] = (
    *(Shape(powers, centred=True) for powers in _EVEN),
    *(Shape(powers) for powers in (*_EVEN, *_ALL)),
    *(Shape(powers, degree_terms(1)) for powers in (*_EVEN[1:], *_ALL)),
    *(Shape(powers, degree_terms(2)) for powers in (*_EVEN[1:], *_ALL)),
    *(Shape(_EVEN[1], degree_terms(degree), centred=True) for degree in (3, 4)),
    Shape(_EVEN[2], degree_terms(6), centred=True),
)
"""Shapes that a fit chooses from; simple ones first."""


class Nuisance(Protocol):
    """Unknowns that the values of a fit hold beside the fall-off, such as the radiance of the scene.

    ``count`` is their number; ``projection(root)`` gives the function that takes them out of rows (n,) or
    (n, p) which are already times ``root`` (n,), the square roots of the weights.
    """

    count: int

    def projection(self, root: Float) -> Callable[[Float], Float]:
        """Projection onto what they cannot explain."""
        ...


def fit_falloff(
    u: Float,
    v: Float,
    log_value: Float,
    variance: Float,
    width: int,
    height: int,
    candidates: Sequence[Shape] = CANDIDATES,
    *,
    nuisance: Nuisance | None = None,
    ramp_sigma: float = np.inf,
) -> tuple[Falloff, float]:
    """Fall-off through the logarithms of a map, of the shape that the Bayesian information criterion prefers.

    Parameters
    ----------
    u, v : ndarray (n,)
        Columns and rows, px of the full frame.
    log_value, variance : ndarray (n,)
        Logarithm of the map there and its variance, without which only their ratios are trusted: the scatter
        about the fit counts where it is larger.
    width, height : int
        Of the frame.
    candidates : sequence of Shape
    nuisance : Nuisance, optional
        What else the values hold; it is fitted along.
    ramp_sigma : float
        How large a ramp from the middle to the edge is thought to be where the data do not tell.

    Returns
    -------
    falloff : Falloff
    residual_rms : float
        Weighted, of the logarithm.

    Raises
    ------
    FitError
        Fewer points than twice the coefficients of the simplest shape.

    Notes
    -----
    Points that lie off the most general of the candidates (dust, an edge of the target) are weighed down by
    Tukey's function for all of them, so that their criteria compare. Schwarz, Annals of Statistics 6 (1978)
    461-464, doi:10.1214/aos/1176344136.
    """
    spent = 0 if nuisance is None else nuisance.count
    usable = [c for c in candidates if 2 * (4 + len(c.powers) + len(c.terms)) <= len(u) - spent]
    if not usable:
        raise FitError(f"vignetting: {len(u)} usable places in the picture: too few for any model")
    weight = 1 / variance
    general = max(usable, key=lambda c: (len(c.powers) + len(c.terms), not c.centred))
    data = _Data(u, v, log_value, width, height, nuisance, ramp_sigma)
    robust, spread = np.ones_like(weight), 1.0
    for _ in range(4):
        found, _, _ = _solve(data, weight * robust, general)
        residual = data.residual(found, np.sqrt(weight * robust)) / np.sqrt(np.maximum(robust, 1e-9))
        spread = max(1.4826 * float(np.median(np.abs(residual))), 1e-12)
        robust = np.clip(1 - (residual / (_TUKEY * spread)) ** 2, 0, None) ** 2
        # A point that lost all weight gives no residual of its own any more: let it come back.
        robust = np.maximum(robust, 1e-9)
    # Residuals wider than the variances say widen them, so that the held ramp is weighed against real noise.
    weight = weight * robust / max(spread, 1.0) ** 2
    n = max(int(np.count_nonzero(robust > 0.01)), 1)
    best: tuple[float, _Parameters, Float, float] | None = None
    for shape in usable:
        found, normal, rank = _solve(data, weight, shape)
        chi2 = float(np.sum(data.residual(found, np.sqrt(weight)) ** 2))
        # The scale of the noise is unknown, hence the logarithm of the sum of squares.
        criterion = n * np.log(max(chi2, 1e-300) / n) + (rank + 1) * np.log(n)
        # Lenses fall off in even powers of the radius; a kink in the middle wants strong evidence.
        criterion += _STRONG if any(power % 2 for power in shape.powers) else 0.0
        if best is None or criterion < best[0]:
            best = criterion, found, normal, chi2 / max(n - rank - spent, 1)
    assert best is not None
    _, found, normal, reduced = best
    kept = robust > 0.01
    rms = float(np.sqrt(np.mean(data.residual(found, np.sqrt(weight))[kept] ** 2 / weight[kept])))
    covariance = inverse(normal)[:-1, :-1] * max(reduced, 1.0)
    return normalised(found.falloff(covariance, 0.0), width, height), rms


def inverse(normal: Float) -> Float:
    """Pseudo-inverse of a normal matrix whose parameters have different units."""
    size = np.sqrt(np.diag(normal))
    size = np.where(size > 0, size, 1)
    out = np.linalg.pinv(normal / np.outer(size, size), rcond=1e-11, hermitian=True)
    return np.asarray(out / np.outer(size, size), np.float64)


def normalised(falloff: Falloff, width: int, height: int) -> Falloff:
    """The same with mean 1 over the central half of rows and columns."""
    vignetting = Vignetting(
        width=width, height=height, channels=(falloff,), support=np.ones((1, 1), np.bool_)
    )
    # A grid fine enough that its mean is that over all pixels to 1e-6.
    mean = float(vignetting.value(0, *_central_half(width, height, 96)).mean())
    return falloff.replace(offset=falloff.offset - float(np.log(mean)))


@dataclass(frozen=True, eq=False)
class _Data:
    """Places and values of a fit, with what else is fitted along."""

    u: Float
    v: Float
    y: Float
    width: int
    height: int
    nuisance: Nuisance | None
    ramp_sigma: float

    def jacobian(self, parameters: _Parameters) -> Float:
        return _jacobian(self.u, self.v, parameters, self.width, self.height)

    def project(self, root: Float) -> Callable[[Float], Float]:
        """Take the nuisance out of what is already times ``root``."""
        return (lambda rows: rows) if self.nuisance is None else self.nuisance.projection(root)

    def residual(self, parameters: _Parameters, root: Float) -> Float:
        """Value less fall-off and nuisance, times ``root``."""
        linear = self.jacobian(parameters)
        return self.project(root)((self.y - linear[:, 2:] @ parameters.vector[2:]) * root)

    def prior(self, parameters: _Parameters) -> Float:
        """Rows of the design that hold the ramps small, (2, p); none where they are free."""
        if not np.isfinite(self.ramp_sigma):
            return np.zeros((0, len(parameters.vector)))
        return _ramps(parameters, self.width, self.height) / self.ramp_sigma


def _solve(data: _Data, weight: Float, shape: Shape) -> tuple[_Parameters, Float, int]:
    """Weighted least squares; the centre by damped Gauss-Newton steps, all else linear."""
    root = np.sqrt(weight)
    project = data.project(root)
    size = 3 + len(shape.powers) + len(shape.terms)
    half = np.hypot(data.width, data.height) / 2
    middle = np.array([(data.width - 1) / 2, (data.height - 1) / 2])
    y = np.concatenate([project(data.y * root), np.zeros(2 * np.isfinite(data.ramp_sigma))])

    def design(parameters: _Parameters) -> Float:
        return np.vstack([project(data.jacobian(parameters) * root[:, None]), data.prior(parameters)])

    def linear(centre: Float) -> tuple[_Parameters, float]:
        start = _Parameters(shape, np.concatenate([centre, np.zeros(size - 2)]))
        columns = design(start)[:, 2:]
        solution = np.linalg.lstsq(columns, y, rcond=1e-12)[0]
        found = _Parameters(shape, np.concatenate([centre, solution]))
        return found, float(np.sum((y - columns @ solution) ** 2))

    found, chi2 = linear(middle)
    damping = 0.0
    for _ in range(0 if shape.centred else _ROUNDS):
        slope = design(found)
        residual = y - slope[:, 2:] @ found.vector[2:]
        # The centre's own columns may vanish or repeat others (a pure square and a tilt): damped.
        penalty = np.zeros((2, size))
        penalty[0, 0] = penalty[1, 1] = damping + 1e-9 * np.linalg.norm(root)
        step = np.linalg.lstsq(
            np.vstack([slope, penalty]), np.concatenate([residual, np.zeros(2)]), rcond=1e-12
        )[0][:2]
        length = float(np.hypot(*step))
        step *= min(1.0, 0.1 * half / length) if length > 0 else 1.0
        away = found.vector[:2] + step - middle
        distance = float(np.hypot(*away))
        trial, trial_chi2 = linear(middle + away * min(1.0, _CENTRE_REACH * half / max(distance, 1e-9)))
        if trial_chi2 <= chi2:
            done = chi2 - trial_chi2 <= 1e-9 * chi2
            found, chi2, damping = trial, trial_chi2, damping / 10
            if done:
                break
        else:
            damping = max(10 * damping, 1e-3 * float(np.linalg.norm(slope[:, 0])))
    slope = design(found)
    # Without units, so that the rank is that of the geometry.
    norm = np.linalg.norm(slope, axis=0)
    rank = int(
        np.linalg.matrix_rank(slope / np.where(norm > 1e-9 * np.linalg.norm(root), norm, np.inf), tol=1e-8)
    )
    return found, slope.T @ slope, rank
