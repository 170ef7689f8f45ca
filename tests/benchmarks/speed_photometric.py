"""Photometric stereo by least squares at the speed of memory: raw frames and float images."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from speed import Candidate, Row, Table, compare

from calibration.geometry import angle_deg
from calibration.lights.model import DistantLight
from calibration.photometric.woodham import Shading, least_squares

SHAPE = (3000, 4096)
FULL_DN, INTENSITY = 4095, 4500.0


def dome(count: int) -> NDArray[np.float64]:
    """Directions of two rings of lights."""
    around = 2 * np.pi * np.arange(count) / count
    above = np.radians(np.where(np.arange(count) % 2, 35.0, 65.0))
    return np.stack([np.cos(above) * np.cos(around), np.cos(above) * np.sin(around), -np.sin(above)], axis=-1)


def waves(shape: tuple[int, int]) -> NDArray[np.float32]:
    """Normals (h, w, 3) of a corrugated sheet."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    normals = np.stack([0.5 * np.sin(x / 97), 0.5 * np.cos(y / 71 + x / 311), -np.ones_like(x)], axis=-1)
    return np.asarray(normals / np.linalg.norm(normals, axis=-1, keepdims=True), np.float32)


def unit(vectors: NDArray[Any], shape: tuple[int, int]) -> NDArray[np.float32]:
    """Normals (h, w, 3) of vectors (3, pixels)."""
    return np.asarray((vectors / np.linalg.norm(vectors, axis=0)).T.reshape(*shape, 3), np.float32)


def outputs(shape: tuple[int, int]) -> Shading:
    """Arrays to write to."""
    return Shading(np.zeros((*shape, 3), np.float32), np.zeros(shape, np.float32), np.zeros(shape, bool))


def chunked(
    frames: list[NDArray[np.uint16]],
    directions: NDArray[np.float64],
    dark: NDArray[np.float32],
    flat: NDArray[np.float32],
    usable: list[NDArray[np.bool_]],
) -> NDArray[np.float32]:
    """The same in numpy, a band of rows at a time, as one would write it down."""
    normals = np.empty((*dark.shape, 3), np.float32)
    lights = directions.astype(np.float32)
    pairs = np.einsum("nc,nd->ncd", lights, lights).reshape(len(lights), 9)
    for top in range(0, dark.shape[0], 60):
        band = slice(top, top + 60)
        dn = np.stack([frame[band] for frame in frames])
        good = np.stack([mask[band] for mask in usable]) & (dn < FULL_DN)
        samples = (dn - dark[band]) / (flat[band] * np.float32(INTENSITY))
        samples[~good] = 0
        n, h, w = dn.shape
        right = lights.T @ samples.reshape(n, -1)
        matrix = good.reshape(n, -1).T.astype(np.float32) @ pairs
        vectors = np.linalg.solve(matrix.reshape(-1, 3, 3), right.T[..., None])[..., 0]
        normals[band] = unit(vectors.T, (h, w))
    return normals


def raw(bandwidth: float, count: int = 24) -> Table:
    """``count`` uint16 frames of 12 MP with dark, flat and masks; one sample in ten is in shadow or gloss."""
    normals = waves(SHAPE)
    rng = np.random.default_rng(5)
    directions = dome(count)
    noise = rng.standard_normal(SHAPE, np.float32) * 8
    odd = rng.random(SHAPE, np.float32)
    dark = rng.uniform(60, 68, SHAPE).astype(np.float32)
    flat = rng.uniform(0.8, 1.0, SHAPE).astype(np.float32)
    frames, usable = [], []
    for k, direction in enumerate(directions.astype(np.float32)):
        signal = np.float32(0.8 * INTENSITY) * np.maximum(normals @ direction, 0) * flat
        strange = np.roll(odd, 1013 * k)
        signal[strange < 0.05] = 0
        signal[strange > 0.95] = FULL_DN
        dn = np.clip(np.rint(signal + dark + np.roll(noise, 977 * k)), 0, FULL_DN)
        frames.append(dn.astype(np.uint16))
        usable.append((strange >= 0.05) & (signal > 40))
    lights = [DistantLight(direction=tuple(d), intensity=(INTENSITY,)) for d in directions.tolist()]
    out = outputs(SHAPE)

    def judge(found: NDArray[np.float32]) -> str:
        return f"mean {np.nanmean(angle_deg(found, normals)):.2g}°"

    def ours(**options: Any) -> NDArray[np.float32]:
        return least_squares(frames, lights, dark=dark, flat=flat, **options).normals

    table = compare(
        f"normals from raw, {count} uint16 frames × 12.3 MP, dark, flat, saturation and masks",
        [
            Candidate(
                "gnomon, into arrays at hand",
                lambda: ours(saturation_dn=FULL_DN, usable=usable, out=out),
                judge,
                turns=9,
            ),
            Candidate(
                "the same, into fresh arrays", lambda: ours(saturation_dn=FULL_DN, usable=usable), turns=9
            ),
            Candidate(
                "gnomon, saturation alone", lambda: ours(saturation_dn=FULL_DN, out=out), judge, turns=9
            ),
            Candidate("gnomon, every sample", lambda: ours(out=out), judge, turns=9),
            Candidate(
                "numpy, a band at a time",
                lambda: chunked(frames, directions, dark, flat, usable),
                judge,
                turns=1,
            ),
        ],
        read_bytes=sum(frame.nbytes for frame in frames),
    )
    return _beside_memory(table, bandwidth)


def bare(bandwidth: float, count: int, shape: tuple[int, int]) -> Table:
    """Every sample of ``count`` float32 images, nothing taken off or masked."""
    normals = waves(shape)
    directions = dome(count)
    noise = np.random.default_rng(6).standard_normal(shape, np.float32) * 8
    images = np.empty((count, *shape), np.float32)
    for k, direction in enumerate(directions.astype(np.float32)):
        np.multiply(np.maximum(normals @ direction, 0), np.float32(0.8 * INTENSITY), out=images[k])
        images[k] += np.roll(noise, 977 * k)
    lights = [DistantLight(direction=tuple(d), intensity=(INTENSITY,)) for d in directions.tolist()]
    inverse = (np.linalg.pinv(directions) / INTENSITY).astype(np.float32)
    out = outputs(shape)

    def judge(found: NDArray[np.float32]) -> str:
        return f"mean {np.nanmean(angle_deg(found, normals)):.2g}°"

    table = compare(
        f"normals by bare least squares, {count} lights × {shape[0] * shape[1] / 1e6:.3g} MP float32",
        [
            Candidate(
                "gnomon, into arrays at hand",
                lambda: least_squares(images, lights, out=out).normals,
                judge,
                turns=9,
            ),
            Candidate("the same, into fresh arrays", lambda: least_squares(images, lights).normals, turns=9),
            Candidate(
                "numpy pseudo-inverse times samples, not normalised",
                lambda: inverse @ images.reshape(count, -1),
                lambda found: judge(unit(found, shape)),
            ),
        ],
        read_bytes=images.nbytes,
    )
    return _beside_memory(table, bandwidth)


def tables(bandwidth: float) -> list[Table]:
    """Raw frames, and float images of few and of many lights."""
    return [raw(bandwidth), bare(bandwidth, 24, SHAPE), bare(bandwidth, 96, (2000, 2048))]


def _beside_memory(table: Table, bandwidth: float) -> Table:
    """Each rate of gnomon as a share of the read bandwidth, and the bare read as the last row."""
    rows = []
    for row in table.rows:
        share = 100 * row.read_bytes / row.seconds / bandwidth if row.read_bytes else 0.0
        text = f"{share:.0f} % of the read bandwidth"
        rows.append(Row(row.who, row.seconds, row.read_bytes, f"{row.error}, {text}" if row.error else text))
    size = table.rows[0].read_bytes or 0.0
    return Table(table.work, (*rows, Row("read as uint64, frames long in memory", size / bandwidth, size)))
