"""Least squares straight from frames, against numpy in double precision within the rounding of single."""

from typing import Any

import numba
import numpy as np
import pytest

from calibration.geometry import angle_deg
from calibration.lights.model import DistantLight, NearLight
from calibration.photometric import solve
from calibration.photometric.kernels import raw
from calibration.photometric.woodham import Shading, least_squares
from calibration.provenance import FitError

SHAPE = (37, 131)
EPS = 2.0**-24


def lights_of(count: int, seed: int = 0) -> list[DistantLight]:
    rng = np.random.default_rng(seed)
    around = 2 * np.pi * np.arange(count) / count + rng.uniform(-0.2, 0.2, count)
    tilt = np.radians(rng.uniform(20, 60, count))
    return [
        DistantLight(direction=(np.sin(t) * np.cos(a), np.sin(t) * np.sin(a), -np.cos(t)), intensity=(e,))
        for a, t, e in zip(around, tilt, rng.uniform(2000, 3000, count), strict=True)
    ]


def scene(count: int, shape: tuple[int, int] = SHAPE, seed: int = 0, dtype: Any = np.uint16) -> Any:
    """Frames of noisy bumps, with dark level, flat field, lights and the true normals."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]] / 9.0
    normals = np.stack([0.6 * np.sin(x), 0.6 * np.cos(y + x / 3), -np.ones(shape)], axis=-1)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    lights = lights_of(count, seed)
    dark = rng.uniform(40, 90, shape).astype(np.float32)
    flat = rng.uniform(0.7, 1.1, shape).astype(np.float32)
    albedo = rng.uniform(0.3, 0.9, shape)
    frames = []
    for light in lights:
        signal = albedo * light.intensity[0] * np.clip(normals @ light.direction, 0, None) * flat
        signal = signal + dark + rng.normal(0, 3, shape)
        frames.append(
            signal.astype(dtype) if dtype == np.float32 else np.clip(np.rint(signal), 0, 4095).astype(dtype)
        )
    return frames, lights, dark, flat, normals


def reference(frames: Any, lights: Any, dark: Any, flat: Any, good: Any) -> tuple[Any, Any, Any, Any]:
    """Vectors albedo * normal of each pixel, their bound of rounding, matrices, counts; double precision."""
    directions = np.array([np.divide(light.direction, np.linalg.norm(light.direction)) for light in lights])
    intensity = np.array([light.intensity[0] for light in lights])
    dn = np.array(frames, np.float64)
    good = good & np.isfinite(dn)
    dn = np.where(good, dn, 0)
    samples = np.where(good, dn - dark, 0) / intensity[:, None, None]
    right = np.einsum("nhw,nc->hwc", samples, directions)
    matrix = np.einsum("nhw,nc,nd->hwcd", good, directions, directions)
    eigen = np.linalg.eigvalsh(matrix)
    count = good.sum(axis=0)
    solvable = (count >= 3) & (np.prod(eigen, axis=-1) > 1e-4 * (count / 3) ** 3)
    matrix = np.where(solvable[..., None, None], matrix, np.eye(3))
    vector = np.linalg.solve(matrix, right[..., None])[..., 0]
    # every sum rounds n + 2 times at most, of the terms' absolute values; the 3 x 3 solution some 20 times
    # more, each of which the condition of the matrix magnifies (adjugate over determinant: its square)
    rounds = (len(frames) + 2) * EPS
    terms = (np.abs(dn) + good * np.abs(dark)) / intensity[:, None, None]
    least = np.where(solvable, eigen[..., 0], 1)
    condition = np.where(solvable, eigen[..., 2] / least, 1)
    length = np.linalg.norm(vector, axis=-1)
    bound = rounds * terms.sum(axis=0) / least
    bound += (rounds + 20 * EPS * condition) * condition * length
    return vector / flat[..., None], bound / flat, solvable, count


def assert_alike(found: Shading, expected: Any) -> None:
    vector, bound, solvable, count = expected
    length = np.linalg.norm(vector, axis=-1)
    sure = solvable & (vector[..., 2] < -bound * 2)
    assert sure.mean() > 0.5
    assert found.valid[sure].all()
    assert not found.valid[count < 3].any()
    off = np.linalg.norm(found.normals * found.albedo[..., None] - vector, axis=-1)
    assert (off[sure] <= bound[sure] + 4 * EPS * length[sure]).all(), (off / bound)[sure].max()
    assert np.median(bound[sure] / length[sure]) < 2e-3
    np.testing.assert_allclose(np.linalg.norm(found.normals[sure], axis=-1), 1, atol=8 * EPS)
    for image in (found.normals[..., 0], found.normals[..., 2], found.albedo):
        np.testing.assert_array_equal(np.isnan(image), ~found.valid)


@pytest.mark.parametrize("count", [3, 7, 8, 9, 24, 50])
def test_bare_frames(count: int) -> None:
    frames, lights, dark, flat, _ = scene(count)
    every = np.ones((count, *SHAPE), bool)
    found = least_squares(frames, lights, dark=dark, flat=flat)
    assert_alike(found, reference(frames, lights, dark, flat, every))


@pytest.mark.parametrize("count", [3, 7, 8, 9, 24, 50])
def test_saturated_and_masked_samples_are_left_out(count: int) -> None:
    frames, lights, dark, flat, _ = scene(count)
    rng = np.random.default_rng(count)
    usable = rng.random((count, *SHAPE)) > 0.2
    usable[:, 5, :40] &= rng.random((count, 40)) < 0.15
    limit = float(np.quantile(frames, 0.97))
    good = usable & (np.array(frames) < limit)
    found = least_squares(frames, lights, dark=dark, flat=flat, saturation_dn=limit, usable=usable)
    expected = reference(frames, lights, dark, flat, good)
    if count == 3:
        assert found.valid[expected[2] & (expected[0][..., 2] < -1e-3)].all()
        assert not found.valid[expected[3] < 3].any()
    else:
        assert_alike(found, expected)


def test_bright_mark_does_not_bend_what_the_mask_keeps() -> None:
    """What a left-out sample holds is of no consequence, however wrong."""
    frames, lights, dark, flat, _ = scene(12)
    usable = np.random.default_rng(1).random((12, *SHAPE)) > 0.1
    wrong = np.where(usable, frames, 65535).astype(np.uint16)
    by_mask = least_squares(wrong, lights, dark=dark, flat=flat, usable=usable)
    by_limit = least_squares(wrong, lights, dark=dark, flat=flat, saturation_dn=65535)
    right = least_squares(frames, lights, dark=dark, flat=flat, usable=list(usable))
    for a, b, c in zip(by_mask, by_limit, right, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_other_samples(dtype: Any) -> None:
    frames, lights, dark, flat, _ = scene(10, dtype=np.float32)
    if dtype == np.uint8:
        frames = [(frame / 16).clip(0, 255).astype(np.uint8) for frame in frames]
        dark = dark / np.float32(16)
    else:
        # in one tile only: the others take the way of bare samples
        for k, frame in enumerate(frames):
            frame[3, 10 * k : 10 * k + 7] = np.nan
            frame[4, k] = np.inf
    expected = reference(frames, lights, dark, flat, np.ones((10, *SHAPE), bool))
    assert_alike(least_squares(frames, lights, dark=dark, flat=flat), expected)


@pytest.mark.parametrize("shape", [(1, 1), (1, raw.TILE), (1, raw.TILE + 1), (3, raw.TILE - 1)])
def test_any_size(shape: tuple[int, int]) -> None:
    frames, lights, dark, flat, _ = scene(9, shape)
    usable = [None, *(np.ones(shape, bool) for _ in range(8))]
    expected = reference(frames, lights, dark, flat, np.ones((9, *shape), bool))
    assert_alike(least_squares(frames, lights, dark=dark, flat=flat), expected)
    assert_alike(least_squares(frames, lights, dark=dark, flat=flat, usable=usable), expected)


def test_agrees_with_the_solver_of_radiance() -> None:
    frames, lights, dark, flat, normals = scene(12)
    radiance = ((np.array(frames) - dark) / flat).astype(np.float32)
    radiance[np.random.default_rng(2).random(radiance.shape) < 0.1] = np.nan
    whole = np.ones(SHAPE, bool)
    known = solve(radiance, np.full_like(radiance, 9), lights, mask=whole, method="least-squares")
    found = least_squares(frames, lights, dark=dark, flat=flat, usable=np.isfinite(radiance))
    np.testing.assert_array_equal(found.valid, known.valid)
    # acos of a dot product of single precision: sqrt(2 eps) is what it can tell
    assert np.nanmax(angle_deg(found.normals, known.normals)) < np.degrees(3e-4)
    np.testing.assert_allclose(found.albedo, known.albedo, rtol=3e-5)
    assert np.nanmedian(angle_deg(found.normals, normals)) < 6


def test_lights_in_any_order_and_any_threads_give_the_same_bytes() -> None:
    frames, lights, dark, flat, _ = scene(11, (90, 200))
    usable = np.random.default_rng(4).random((11, 90, 200)) > 0.05
    ways: list[dict[str, Any]] = [{}, {"saturation_dn": 1500.0, "usable": usable}]
    turn = np.random.default_rng(3).permutation(11)
    threads = numba.get_num_threads()
    for way in ways:
        first = least_squares(frames, lights, dark=dark, flat=flat, **way)
        if "usable" in way:
            way = {**way, "usable": usable[turn]}
        numba.set_num_threads(1)
        try:
            second = least_squares(
                [frames[k] for k in turn], [lights[k] for k in turn], dark=dark, flat=flat, **way
            )
        finally:
            numba.set_num_threads(threads)
        for a, b in zip(first, second, strict=True):
            np.testing.assert_array_equal(a, b)


def test_reads_maps_and_writes_to_arrays_at_hand(tmp_path: Any) -> None:
    frames, lights, dark, flat, _ = scene(6)
    stack = np.lib.format.open_memmap(tmp_path / "frames.npy", "w+", np.uint16, (6, *SHAPE))
    stack[:] = frames
    stack.flush()
    mapped = np.load(tmp_path / "frames.npy", mmap_mode="r")
    kept = np.array(frames)
    out = Shading(np.empty((*SHAPE, 3), np.float32), np.empty(SHAPE, np.float32), np.empty(SHAPE, bool))
    found = least_squares(mapped, lights, dark=dark, flat=flat, out=out)
    assert found.normals is out.normals
    expected = least_squares(frames, lights, dark=dark, flat=flat)
    swapped = least_squares([frame.astype(">u2") for frame in frames], lights, dark=dark, flat=flat)
    crossed = least_squares(
        np.array(frames).transpose(0, 2, 1).copy().transpose(0, 2, 1), lights, dark=dark, flat=flat
    )
    for given, *others in zip(expected, found, swapped, crossed, strict=True):
        for other in others:
            np.testing.assert_array_equal(given, other)
    np.testing.assert_array_equal(frames, kept)


def test_dead_pixels_and_backs_are_invalid() -> None:
    frames, lights, dark, flat, _ = scene(8)
    flat[2, 3:6] = [0, -1, np.nan]
    for frame in frames:
        frame[7, 7] = 0
    dark[7, 7] = 0
    found = least_squares(frames, lights, dark=dark, flat=flat)
    assert not found.valid[2, 3:6].any()
    assert not found.valid[7, 7]
    assert found.valid.sum() == found.valid.size - 4
    # lights seen from behind: every vector points away from the camera
    with pytest.raises(FitError, match="no pixel"):
        least_squares(
            frames,
            [light.replace(direction=tuple(-np.array(light.direction))) for light in lights],
            dark=dark, flat=flat,
        )  # fmt: skip


def test_three_lights_left_in_a_plane_give_nothing() -> None:
    """The sums' rounding must not make a plane span space."""
    rng = np.random.default_rng(0)
    lights = lights_of(40)
    slant = [np.array([np.sin(t), 0.3 * np.sin(t), -np.cos(t)]) for t in np.linspace(-0.9, 0.9, 9)]
    lights += [DistantLight(direction=tuple(d / np.linalg.norm(d))) for d in slant]
    frames = rng.integers(500, 3000, (49, *SHAPE), dtype=np.uint16)
    usable = np.zeros((49, *SHAPE), bool)
    for row in range(1, SHAPE[0]):
        usable[rng.choice(np.arange(40, 49), 3 + row % 6, replace=False), row] = True
    usable[:40, 0] = True
    found = least_squares(frames, lights, usable=usable)
    assert not found.valid[1:].any()
    assert found.valid[0].any()


def test_refuses_in_one_line() -> None:
    frames, lights, dark, flat, _ = scene(4)
    near = NearLight(position_mm=(0.0, 0.0, -100.0))
    flat_lights = [DistantLight(direction=(s, 0.0, -np.sqrt(1 - s * s))) for s in (-0.5, 0.0, 0.3, 0.6)]
    bad: list[tuple[type[Exception], str, Any]] = [
        (FitError, "2 frames", lambda: least_squares(frames[:2], lights[:2])),
        (FitError, "one plane", lambda: least_squares(frames, flat_lights)),
        (ValueError, "4 frames but 3 lights", lambda: least_squares(frames, lights[:3])),
        (ValueError, "light 3 is near", lambda: least_squares(frames, [*lights[:3], near])),  # type: ignore[list-item]
        (ValueError, "frame 2 is", lambda: least_squares([*frames[:2], frames[2][1:], frames[3]], lights)),
        (ValueError, "float64", lambda: least_squares([f.astype(float) for f in frames], lights)),
        (ValueError, "dark is", lambda: least_squares(frames, lights, dark=dark[1:])),
        (ValueError, "flat is", lambda: least_squares(frames, lights, flat=flat.T)),
        (ValueError, "3 masks", lambda: least_squares(frames, lights, usable=[None] * 3)),
        (ValueError, "mask of frame 0",
         lambda: least_squares(frames, lights, usable=[dark, None, None, None])),
        (ValueError, "light 0 has intensity",
         lambda: least_squares(frames, [lights[0].replace(intensity=(1.0, 1.0, 1.0)), *lights[1:]])),
        (ValueError, "out.albedo",
         lambda: least_squares(frames, lights, out=Shading(np.empty((*SHAPE, 3), np.float32),
                                                           np.empty(SHAPE), np.empty(SHAPE, bool)))),
        (FitError, "no pixel", lambda: least_squares(frames, lights, saturation_dn=1.0)),
    ]  # fmt: skip
    for error, words, call in bad:
        with pytest.raises(error, match=words) as told:
            call()
        assert "\n" not in str(told.value)
