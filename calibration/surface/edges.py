"""What normals say of the steps between neighbouring pixels."""

import numpy as np
from numpy.typing import NDArray

from calibration.geometry import Float
from calibration.provenance import FitError

# Beyond 89 degrees of slant a difference of depth has no use.
_GRAZING = 0.0175
# In px along the normal: below the first the error of a step is the surface between two pixels, not noise; by
# the second a step may be off where nothing jumps, and by the third times the bend from pixel to pixel.
_FLOORS = (0.03, 0.12, 0.35)
# Noise is taken for at least this share of what the normals' sigmas tell, also where nothing is measured.
_LEAST_NOISE = 0.1


class Edges:
    """Steps of the unknown between neighbours; arrays (2, h, w) as in ``kernels.edges``.

    Parameters
    ----------
    normals : ndarray (h, w, 3)
    sigma_deg : ndarray (h, w)
    rays : ndarray (h, w, 3) or None
        Lines of sight with z = 1; None for an orthographic view.

    Attributes
    ----------
    one, other, mean : ndarray (2, h, w)
        The step by the normal of its first end, of its second, and the mean of both.
    span : ndarray (2, h, w)
        What turns a step into px along the normal; 0 where there is no edge.
    base, spread : ndarray (2, h, w)
        Weight where nothing jumps, on average 1, and how far off a step may be, px.
    unit : float
        What ``base`` has been multiplied by, for weights near 1.

    Raises
    ------
    FitError
        No edge.
    """

    def __init__(
        self,
        normals: NDArray[np.floating],
        sigma_deg: NDArray[np.floating],
        rays: NDArray[np.floating] | None,
    ) -> None:
        from calibration.surface.kernels import face, predict

        self.shape = shape = sigma_deg.shape
        normals, sigma_deg = (np.ascontiguousarray(part, np.float32) for part in (normals, sigma_deg))
        rays = None if rays is None else np.ascontiguousarray(rays, np.float32)
        facing = np.empty(shape)
        self._cosine, self._noise = np.empty(shape, np.float32), np.empty(shape, np.float32)
        face(normals, rays, sigma_deg, _GRAZING, facing, self._cosine, self._noise)
        self.normals, self.sigma_deg, self.rays, self.facing = normals, sigma_deg, rays, facing
        if not facing.any():
            raise FitError("no valid normal to integrate: all graze the line of sight or look away from it")
        self.one, self.other, self.span, self.base, self.spread = (
            np.empty((2, *shape), np.float32) for _ in range(5)
        )
        found = (self.one, self.other, self.span, self.base, self.spread)
        predict(normals, rays, facing, self._noise, _FLOORS, *found)
        self.count = np.count_nonzero(self.base)
        if not self.count:
            raise FitError("no two valid normals are neighbours: nothing to integrate; is the mask too thin?")
        # Weights near 1: they are one over the variance of a difference times this.
        self.unit = self.count / float(self.base.sum(dtype=np.float64))
        self.base *= np.float32(self.unit)
        self.mean = 0.5 * (self.one + self.other)

    @property
    def trust(self) -> NDArray[np.float32]:
        """Weight of each edge by its spread, on average 1."""
        trust = np.asarray((self.span / self.spread) ** 2, np.float32)
        return trust * np.float32(self.count / float(trust.sum(dtype=np.float64)))

    def joined(self) -> NDArray[np.bool_]:
        """Pixels (h, w) that have an edge."""
        right, down = self.span > 0
        joined = right | down
        joined[:, 1:] |= right[:, :-1]
        joined[1:] |= down[:-1]
        return np.asarray(joined)

    def step(self, here: NDArray[np.intp], there: NDArray[np.intp]) -> Float:
        """Difference of the unknown from pixels to others, as flat indices, on the planes of the former."""
        normals, facing = self.normals.reshape(-1, 3)[here].astype(np.float64), self.facing.ravel()[here]
        if self.rays is None:
            width = self.shape[1]
            x, y = there % width - here % width, there // width - here // width
            return np.asarray((normals[:, 0] * x + normals[:, 1] * y) / facing)
        cross = -np.einsum("nc,nc->n", normals, self.rays.reshape(-1, 3)[there])
        return np.asarray(np.log(facing / np.maximum(cross, 0.1 * facing)))

    def believe(
        self, u: Float, base: NDArray[np.float32], width: float, weight: NDArray[np.float32]
    ) -> float:
        """Fill ``weight`` with that of each edge at ``u``: less, the worse it fits. Return the loss."""
        from calibration.surface.kernels import redescending

        rows = redescending(
            u, self.mean, self.one, self.other, self.span, base, self.spread, self._cosine, width, weight
        )
        return float(rows.sum())

    def broken(self, u: Float) -> NDArray[np.bool_]:
        """Edges (2, h, w) at which ``u`` is off by more than their spread."""
        off = self.mean.copy()
        off[0, :, :-1] -= u[:, 1:] - u[:, :-1]
        off[1, :-1] -= u[1:] - u[:-1]
        off *= self.span
        return np.asarray(np.abs(off) > self.spread)

    def contradicted(self, *sigmas: float) -> list[NDArray[np.bool_]]:
        """Edges (2, h, w) along which the surface may jump, as the normals contradict each other there.

        Their unit is the noise that is measured, by the sums round all squares of four pixels, most of which
        hold no jump: told sigmas may be wrong by a factor.
        """
        from calibration.surface.kernels import contradict

        squares, creases = np.empty(self.shape, np.float32), np.empty(self.base.shape, np.float32)
        contradict(self.one, self.other, self.span, self._noise, squares, creases)
        known = squares[squares >= 0]
        unit = 1.4826 * float(np.median(known)) if known.size else 1.0
        unit = max(unit, _LEAST_NOISE)
        found = []
        for limit in sigmas:
            torn = creases > limit * unit
            square = squares > limit * unit
            torn |= square
            torn[0, 1:] |= square[:-1]
            torn[1, :, 1:] |= square[:, :-1]
            found.append(torn & (self.span > 0))
        return found
