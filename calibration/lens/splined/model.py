"""Lens with a displacement field of cubic B-splines over the stereographic plane."""

from functools import cached_property
from itertools import product
from typing import Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, field_validator, model_validator

from calibration.geometry import Float
from calibration.lens.model import CORE, Derivatives, LensModel
from calibration.provenance import Array

_DIRECTIONS = 1440
_COARSE, _SAMPLES = 3, 8  # a knot spacing: where folds are looked for, and where they are near
_SOUND = 0.1  # least stretch between samples above which there is no fold
_TABLE = 96


class SplinedLens(LensModel):
    """Any smooth lens: the stereographic image of a ray, displaced by a field of cubic B-splines.

    A ray at the angle theta to the axis lies at 2 tan(theta / 2) from the centre of the stereographic plane,
    u = 2 (x, y) / (|p| + z), which knows no horizon at 90 degrees. pixel = f (u + displacement(u)) + c, with
    displacement(u) the sum of ``knots`` weighted with cubic B-splines: 16 knots a point, two continuous
    derivatives.

    Attributes
    ----------
    knots : ndarray (ny, nx, 2)
        Displacements, dimensionless, along x and y. In a truth's YAML, nested lists. At least 4 x 4.
    spacing : float
        Of the knots in u.
    corner : tuple of float
        u of knots[0, 0]; knots[j, i] stands at corner + spacing * (i, j).
    stiffness : float
        Of the prior on the bending that the fit had; 0 without a fit.

    Notes
    -----
    Valid inside the field, from the second to the last but one knot along both axes, as far as the derivative
    of u + displacement keeps a positive definite symmetric part on the way from the centre: beyond, the image
    folds. ``project`` gives NaN there, ``unproject`` for the pixels that nothing valid reaches. The focal
    lengths and the principal point say the same as the knots do: a fit holds them, and their sigma is 0; the
    uncertainty is that of the projection. In the spirit of the splined models of mrcal (D. Kogan).
    """

    MODEL: ClassVar[str] = "splined"

    kind: Literal["splined"] = "splined"
    knots: Array
    spacing: float = Field(gt=0)
    corner: tuple[float, float]
    stiffness: float = Field(0.0, ge=0)

    @field_validator("knots", mode="before")
    @classmethod
    def _from_lists(cls, value: Any) -> Any:
        return value if isinstance(value, np.ndarray) else np.asarray(value, np.float64)

    @model_validator(mode="after")
    def _check(self) -> Self:
        shape = self.knots.shape
        if len(shape) != 3 or shape[2] != 2 or min(shape[:2]) < 4 or self.knots.dtype != np.float64:
            raise ValueError(f"knots: want float64 (4 or more, 4 or more, 2), not {shape}")
        if not np.isfinite(self.knots).all():
            raise ValueError("knots must be finite")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """fx, fy, cx, cy, then "x row column", "y row column" of each knot, row by row."""
        rows, columns = self.knots.shape[:2]
        return (*CORE, *(f"{c} {j} {i}" for j, i, c in product(range(rows), range(columns), "xy")))

    @property
    def parameters(self) -> Float:
        """Values (4 + 2 nx ny,) in the order of ``names``."""
        return np.concatenate([[self.fx, self.fy, self.cx, self.cy], self.knots.ravel()])

    def with_parameters(self, values: Float) -> Self:
        """Copy with other values (4 + 2 nx ny,), without evidence."""
        values = np.asarray(values, np.float64)
        core = dict(zip(CORE, values[:4].tolist(), strict=True))
        return self._bare(**core, knots=values[4:].reshape(self.knots.shape))

    @property
    def valid_angle_rad(self) -> float:
        """Largest angle to the axis up to which every direction is imaged; 0 if the axis itself is not."""
        low, high = self._box
        if not (np.all(low < 0) and np.all(high > 0)):
            return 0.0
        reach = float(min(*-low, *high))
        if self._rim is not None:
            reach = min(reach, float(self._rim.min()))
        return 2 * float(np.arctan(reach / 2))

    @property
    def _box(self) -> tuple[Float, Float]:
        """Least and greatest u of the field."""
        rows, columns = self.knots.shape[:2]
        corner = np.array(self.corner)
        return corner + self.spacing, corner + self.spacing * np.array([columns - 2, rows - 2])

    @cached_property
    def _middle(self) -> Float:
        """From where the valid region is seen whole: the axis, or the middle of a field without it."""
        low, high = self._box
        return np.where((low < 0) & (high > 0), 0.0, 0.5 * (low + high))

    @cached_property
    def _rim(self) -> Float | None:
        """Distance from ``_middle`` to the first fold, in directions all round; None if nothing folds."""
        low, high = self._box
        unsound = ~(self._least_stretch(self._grid(_COARSE)) > _SOUND)
        if not unsound.any():
            return None
        from calibration.lens.splined.kernels import first_folds

        suspect = unsound[:-1, :-1] | unsound[:-1, 1:] | unsound[1:, :-1] | unsound[1:, 1:]
        angle = np.linspace(0, 2 * np.pi, _DIRECTIONS, endpoint=False)
        along = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        with np.errstate(divide="ignore"):
            ends = np.where(along > 0, high - self._middle, low - self._middle) / along
        border = np.nanmin(np.abs(ends), axis=1)
        steps = int(np.ceil(border.max() / self.spacing * _SAMPLES)) + 1
        share = np.linspace(0, 1, steps)
        first = first_folds(
            self._middle, along, border, share, suspect, low, self.spacing / _COARSE,
            self.knots, np.array(self.corner), self.spacing,
        )  # fmt: skip
        if np.all(first == steps):
            return None
        rim = np.where(first < steps, border * share[np.clip(first - 1, 0, None)], np.inf)
        # A fold between two directions is seen by one of them at least.
        return np.minimum(rim, np.minimum(np.roll(rim, 1), np.roll(rim, -1)))

    def _least_stretch(self, u: Float) -> Float:
        """Smaller eigenvalue of the symmetric part of the derivative at places (..., 2)."""
        _, _, xx, xy, yx, yy = np.moveaxis(self._displaced(u), -1, 0)
        return np.asarray(0.5 * (xx + yy - np.hypot(xx - yy, xy + yx)))

    def _grid(self, a_spacing: int) -> Float:
        """Places (..., 2) all over the field, so many a knot spacing."""
        rows, columns = self.knots.shape[:2]
        low, high = self._box
        axes = (
            np.linspace(a, b, a_spacing * n + 1)
            for a, b, n in zip(low, high, (columns - 3, rows - 3), strict=True)
        )
        return np.stack(np.meshgrid(*axes), axis=-1)

    def _valid(self, u: Float) -> Float:
        """``u`` (..., 2), NaN where it is not valid."""
        low, high = self._box
        with np.errstate(invalid="ignore"):
            inside = np.all((u >= low) & (u <= high), axis=-1)
            if self._rim is not None:
                x, y = np.moveaxis(u - self._middle, -1, 0)
                turn = np.arctan2(y, x) / (2 * np.pi) * _DIRECTIONS
                at = np.floor(np.nan_to_num(turn)).astype(int)
                near = np.minimum(self._rim[at % _DIRECTIONS], self._rim[(at + 1) % _DIRECTIONS])
                inside &= np.hypot(x, y) < near
        return np.asarray(np.where(inside[..., None], u, np.nan))

    def _displaced(self, u: Float) -> Float:
        """u + displacement and its derivatives (..., 6): x, y, xx, xy, yx, yy."""
        from calibration.lens.splined.kernels import displace

        flat = np.ascontiguousarray(u.reshape(-1, 2))
        out = displace(flat, self.knots, np.array(self.corner), self.spacing)
        return np.asarray(out.reshape(*u.shape[:-1], 6))

    def _distort(self, points: Float) -> tuple[Float, Float]:
        out = self._displaced(self._valid(stereographic(points)))
        return out[..., 0], out[..., 1]

    def _undistort(self, xd: Float, yd: Float) -> Float:
        from calibration.lens.splined.kernels import restore

        places = np.stack([np.ravel(xd), np.ravel(yd)], axis=-1)
        first, step, table = self._starts
        with np.errstate(invalid="ignore"):
            cell = np.nan_to_num(np.clip(np.round((places - first) / step), 0, _TABLE - 1)).astype(int)
        start = table[cell[:, 1], cell[:, 0]]
        u = self._valid(restore(places, start, self.knots, np.array(self.corner), self.spacing))
        return direction(u).reshape(*np.shape(xd), 3)

    @cached_property
    def _starts(self) -> tuple[Float, Float, Float]:
        """Where the inverse starts: first place and step of a table (n, n, 2) over u + displacement."""
        from scipy.spatial import cKDTree

        u = self._valid(self._grid(_COARSE)).reshape(-1, 2)
        u = np.concatenate([self._middle[None], u[np.isfinite(u[:, 0])]])
        seen = self._displaced(u)[:, :2]
        first = seen.min(axis=0)
        step = np.maximum(np.ptp(seen, axis=0) / (_TABLE - 1), 1e-300)
        grid = np.stack(np.meshgrid(np.arange(_TABLE), np.arange(_TABLE)), axis=-1) * step + first
        _, nearest = cKDTree(seen).query(grid)
        return first, step, u[nearest]

    def derivatives(self, points: Float) -> Derivatives:
        """Projection of points (n, 3) with its derivatives: fx, fy, cx, cy and 16 knots along x and y."""
        from calibration.lens.splined.kernels import basis

        u = self._valid(stereographic(points))
        out = self._displaced(u)
        weight, number = basis(u, self.knots, np.array(self.corner), self.spacing)
        focal = np.array([self.fx, self.fy])
        pixels = out[:, :2] * focal + (self.cx, self.cy)
        # u = 2 (x, y) / (|p| + z), and the derivative of the denominator is p / |p| + (0, 0, 1).
        length = np.linalg.norm(points, axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            unit = points / length[:, None]
            over = _over(points, length)
        by_points = -u[:, :, None] * (unit + np.array([0.0, 0.0, 1.0]))[:, None, :]
        by_points[:, 0, 0] += 2
        by_points[:, 1, 1] += 2
        by_points *= over[:, None, None]
        jacobian = out[:, 2:].reshape(-1, 2, 2) * focal[:, None]
        by_parameters = np.zeros((len(points), 2, 36))
        by_parameters[:, 0, 0], by_parameters[:, 1, 1] = out[:, 0], out[:, 1]
        by_parameters[:, 0, 2] = by_parameters[:, 1, 3] = 1
        by_parameters[:, 0, 4:20] = self.fx * weight
        by_parameters[:, 1, 20:] = self.fy * weight
        core = np.broadcast_to(np.arange(4), (len(points), 4))
        columns = np.concatenate([core, 4 + 2 * number, 5 + 2 * number], axis=1)
        return Derivatives(pixels, jacobian @ by_points, by_parameters, columns)


def stereographic(points: Float) -> Float:
    """Stereographic image of points of the camera frame, (..., 3) -> (..., 2); NaN for (0, 0, z <= 0)."""
    length = np.linalg.norm(points, axis=-1)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        return np.asarray(2 * points[..., :2] * _over(points, length)[..., None])


def _over(points: Float, length: Float) -> Float:
    """1 / (|p| + z), without cancellation behind the camera; NaN on the axis there."""
    across2 = points[..., 0] ** 2 + points[..., 1] ** 2
    z = points[..., 2]
    with np.errstate(invalid="ignore", divide="ignore"):
        behind = np.where(across2 > 0, (length - z) / across2, np.nan)
        return np.asarray(np.where(z > 0, 1 / (length + z), behind))


def direction(u: Float) -> Float:
    """Unit ray of a place in the stereographic plane, (..., 2) -> (..., 3)."""
    quarter = 0.25 * np.sum(u * u, axis=-1, keepdims=True)
    return np.asarray(np.concatenate([u, 1 - quarter], axis=-1) / (1 + quarter))
