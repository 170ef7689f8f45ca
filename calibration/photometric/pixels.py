"""A photometric problem made ready for the kernel."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from calibration.geometry import Float, normalize, tangent_basis
from calibration.lights.model import DistantLight, NearLight
from calibration.progress import Track, silent
from calibration.provenance import FitError

Light = DistantLight | NearLight

_TRIPLETS = 48
_FLATTEST = 0.02
_ONE_SIDE = 0.1
"""Second over first singular value of the lights' directions: below, all lie within some 10 degrees."""
# Pixels between two steps of a progress bar, and its most steps.
_BAND = 20_000
_MOST_BANDS = 100


class Solution(NamedTuple):
    """What the kernel writes, (h, w, ...); NaN and 0 where a pixel could not be solved."""

    normals: NDArray[np.float32]
    albedo: NDArray[np.float32]
    sigma_deg: NDArray[np.float32]
    sigma_lights_deg: NDArray[np.float32]
    used: NDArray[np.uint8]
    strength: NDArray[np.float32]
    misfit: NDArray[np.float32]
    cost: NDArray[np.float32]


class Pixels(NamedTuple):
    """Samples (n, h, w, c) and the tables of their lights, in an order of the lights' own.

    So the caller's order of the lights changes no bit of the result. ``errors`` are those of the lights, as
    ``kernels`` wants them, and ``middle`` the place where their irradiance is known.
    """

    radiance: NDArray[np.float32]
    variance: NDArray[np.float32]
    points: NDArray[np.float32]
    mask: NDArray[np.bool_]
    table: Float
    order: NDArray[np.int64]
    directions: Float
    triplets: NDArray[np.int64]
    errors: Float
    middle: Float

    @classmethod
    def prepare(
        cls,
        radiance: NDArray[np.float32],
        variance: NDArray[np.float32],
        lights: Sequence[Light],
        points: NDArray[np.float32],
        mask: NDArray[np.bool_],
    ) -> "Pixels":
        """Check that the lights span space at the object and lay out their tables."""
        n, h, w = radiance.shape[:3]
        mask = mask.astype(bool)
        if points.shape[:2] != (1, 1):
            mask &= np.isfinite(points).all(axis=2)
        if not mask.any():
            raise FitError(
                "the mask holds no pixel: give a mask, or images in which the object is brighter than noise"
            )
        middle = _middle(points, mask)
        directions = _directions(lights, middle)
        value, noise = (
            np.ascontiguousarray(a, np.float32).reshape(n, h, w, -1) for a in (radiance, variance)
        )
        table = _table(lights, value.shape[3])
        order = np.lexsort(table.T[::-1])
        directions = directions[order]
        return cls(
            value, noise, points, mask, table[order], order, directions, _triplets(directions),
            _errors([lights[row] for row in order]), middle,
        )  # fmt: skip

    def sample(self, count: int) -> "Pixels":
        """About ``count`` pixels of the mask, evenly drawn, packed into a small image."""
        return self.pick(evenly(np.flatnonzero(self.mask.ravel()), count))

    def pick(self, at: NDArray[np.intp]) -> "Pixels":
        """The pixels of flat indices ``at``, packed in this order into a small image."""
        rows = 16
        columns = -(-len(at) // rows)
        mask = np.zeros(rows * columns, bool)
        mask[: len(at)] = True
        at = np.resize(at, rows * columns)
        n, channels = self.radiance.shape[0], self.radiance.shape[3]
        value, noise = (
            np.take(a.reshape(n, -1, channels), at, axis=1).reshape(n, rows, columns, channels)
            for a in (self.radiance, self.variance)
        )
        points = self.points
        if points.shape[:2] != (1, 1):
            points = points.reshape(-1, 3)[at].reshape(rows, columns, 3)
        return self._replace(radiance=value, variance=noise, points=points, mask=mask.reshape(rows, columns))

    def without(self, rows: NDArray[np.bool_]) -> "Pixels":
        """The same with the samples of some rows of the table missing."""
        radiance = self.radiance.copy()
        radiance[self.order[rows]] = np.nan
        return self._replace(radiance=radiance)

    def packed(self) -> tuple[Float, Float]:
        """Samples of the mask's pixels over their lights' irradiance, and variances, (n, p, c).

        In the table's order; NaN where a sample is missing, of all channels.
        """
        from calibration.photometric import kernels

        channels = self.radiance.shape[3]
        intensity = self.table[:, kernels.INTENSITY : kernels.INTENSITY + channels]
        irradiance = self.aimed()[1][..., None] * intensity[:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            samples = np.where(irradiance > 0, self.radiance[self.order][:, self.mask] / irradiance, np.nan)
            variance = self.variance[self.order][:, self.mask] / irradiance**2
        samples[~np.isfinite(samples + variance).all(axis=2)] = np.nan
        return samples, variance

    def aimed(self) -> tuple[Float, Float]:
        """Directions to the lights (n, p, 3) at the mask's pixels; irradiance (n, p) of unit intensities."""
        from calibration.photometric import kernels

        points = np.broadcast_to(self.points, (*self.mask.shape, 3))[self.mask].astype(np.float64)
        near = self.table[:, kernels.NEAR] > 0
        place = self.table[:, None, kernels.PLACE : kernels.PLACE + 3]
        offset = place - np.where(near[:, None, None], points, 0.0)
        direction = normalize(offset)
        axis, order = self.table[:, kernels.AXIS : kernels.AXIS + 3], self.table[:, kernels.ORDER]
        cosine = np.maximum(-np.einsum("npi,ni->np", direction, axis), 0.0)
        fall = np.where(order[:, None] > 0, cosine ** order[:, None], 1.0) / np.sum(offset**2, axis=2)
        return direction, np.where(near[:, None], fall, 1.0)

    def eyes(self) -> Float:
        """Directions (p, 3) from the mask's pixels to the camera."""
        points = np.broadcast_to(self.points, (*self.mask.shape, 3))[self.mask]
        return -normalize(points)

    def bands(self, track: Track, what: str) -> Iterator[NDArray[np.bool_]]:
        """The mask in parts (h, w), a hundred at most, to show the progress of what runs over them.

        Each has every k-th row: the threads of a kernel, which share out the rows in blocks, have as much to
        do, and all parts take about as long.
        """
        count = min(len(self.mask), _MOST_BANDS, max(1, int(np.count_nonzero(self.mask)) // _BAND))
        for k in track(range(count), what):
            part = np.zeros_like(self.mask)
            part[k::count] = self.mask[k::count]
            yield part

    def solve(
        self,
        *,
        robust: bool,
        roughness: float = 0.5,
        strengths: Sequence[float] = (0.0,),
        track: Track = silent,
    ) -> Solution:
        """Run the kernel; each pixel takes the strength of gloss that explains it best."""
        from calibration.photometric import kernels

        h, w = self.mask.shape
        out = Solution(
            normals=np.full((h, w, 3), np.nan, np.float32),
            albedo=np.full((h, w, self.radiance.shape[3]), np.nan, np.float32),
            sigma_deg=np.full((h, w), np.nan, np.float32),
            sigma_lights_deg=np.full((h, w), np.nan, np.float32),
            used=np.zeros((h, w), np.uint8),
            strength=np.full((h, w), np.nan, np.float32),
            misfit=np.full((h, w), np.nan, np.float32),
            cost=np.full((h, w), np.nan, np.float32),
        )
        for part in self.bands(track, "solving normals"):
            kernels.solve_pixels(
                self.radiance, self.variance, self.points, self.table, self.order, part, self.triplets,
                self.errors, self.middle, float(roughness), np.array(strengths, np.float64), robust,
                *out,
            )  # fmt: skip
        return out


def evenly(indices: NDArray[np.intp], count: int) -> NDArray[np.intp]:
    """At most ``count`` of the indices, evenly drawn."""
    return indices[np.linspace(0, len(indices) - 1, min(count, len(indices))).round().astype(np.intp)]


def rms(samples: Float) -> Float:
    """Root mean square (p, c) of the samples (n, p, c) that are there; 1 where it is 0 or none is."""
    there = np.isfinite(samples)
    mean = np.where(there, samples, 0.0) ** 2
    square = mean.sum(axis=0) / np.maximum(there.sum(axis=0), 1)
    return np.asarray(np.sqrt(np.where(square > 0, square, 1.0)))


def _table(lights: Sequence[Light], channels: int) -> Float:
    from calibration.photometric import kernels

    table = np.zeros((len(lights), kernels.COLUMNS))
    for row, light in zip(table, lights, strict=True):
        if light.kind == "near":
            row[kernels.NEAR] = 1
            row[kernels.PLACE : kernels.PLACE + 3] = light.position_mm
            row[kernels.AXIS : kernels.AXIS + 3] = normalize(light.axis)
            row[kernels.ORDER] = light.order
        else:
            row[kernels.PLACE : kernels.PLACE + 3] = normalize(light.direction)
        row[kernels.INTENSITY : kernels.INTENSITY + channels] = light.intensity
    return table


def _errors(lights: Sequence[Light]) -> Float:
    """Table (n, ERRORS) of what is known of the lights' errors; no rows where that is nothing."""
    from calibration.photometric import kernels

    if all(light.covariance is None and light.intensity_sigma is None for light in lights):
        return np.zeros((0, kernels.ERRORS))
    table = np.zeros((len(lights), kernels.ERRORS))
    for row, light in zip(table, lights, strict=True):
        if light.covariance is not None:
            spread = np.asarray(light.covariance, np.float64)
            if light.kind == "distant":
                basis = tangent_basis(light.direction)
                spread = basis.T @ spread @ basis
            row[kernels.PLACE_SPREAD : kernels.PLACE_SPREAD + 6] = spread[np.triu_indices(3)]
        if light.intensity_sigma is not None:
            # Alike in all channels, as what makes it (paint, highlight, fall-off) mostly is.
            relative = np.divide(light.intensity_sigma, light.intensity).mean()
            row[kernels.IRRADIANCE_SPREAD] = relative**2
    return table


def _middle(points: NDArray[np.float32], mask: NDArray[np.bool_]) -> Float:
    single = points.shape[:2] == (1, 1)
    return np.asarray(points[0, 0] if single else points[mask].mean(axis=0, dtype=np.float64), np.float64)


def _directions(lights: Sequence[Light], middle: Float) -> Float:
    """Directions to the lights from the middle of the object; refuses lights that do not span space."""
    directions = np.array([light.at(middle)[0] for light in lights])
    spread = np.linalg.svd(directions, compute_uv=False)
    if spread[2] < _FLATTEST * spread[0]:
        if spread[1] < _ONE_SIDE * spread[0]:
            near = any(isinstance(light, NearLight) for light in lights)
            units = ", and positions and distance in mm" if near else ""
            raise FitError(
                "all lights shine from one side, seen from the object: their images do not determine a "
                f"normal; want lights from all around{units}"
            )
        raise FitError(
            "the lights lie in one plane with the object: their images do not determine a normal; "
            "add a light off that plane"
        )
    return directions


def _triplets(directions: Float) -> NDArray[np.int64]:
    """Triplets of lights that span space well, drawn from a fixed seed, widest first."""
    rng = np.random.default_rng(0)
    drawn = rng.permuted(np.tile(np.arange(len(directions)), (4 * _TRIPLETS, 1)), axis=1)[:, :3]
    volume = np.abs(np.linalg.det(directions[drawn]))
    return np.ascontiguousarray(drawn[np.argsort(-volume, kind="stable")[:_TRIPLETS]])
