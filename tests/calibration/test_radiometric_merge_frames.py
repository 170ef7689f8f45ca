"""What the merge takes: packed, mapped and lazy frames, tables and floats, any number; what it refuses."""

from collections.abc import Sequence

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.provenance import FitError
from calibration.radiometric import Radiance, RadiometricModel
from calibration.radiometric.merge import Packed, merge, merge_reference, merge_value, stack
from calibration.radiometric.merge.packed import unpack_reference

SHAPE = (70, 131)


def model_of(pixel_format="Mono12", shape=SHAPE, **changes):
    return RadiometricModel.nominal(pixel_format, shape, black_dn=20.0).replace(**changes)


def scene(n, shape=SHAPE, top=4095, seed=0):
    """Frames of a scene of four decades, the bright parts in one corner."""
    rng = np.random.default_rng(seed)
    exposure = np.geomspace(1, 200, n) if n > 1 else np.ones(1)
    light = np.sort(np.exp(rng.uniform(0, 9, shape)).ravel()).reshape(shape)
    noisy = [rng.poisson(light * t) * (top - 20) / 10_000 + 20 + rng.normal(0, 2, shape) for t in exposure]
    dtype = np.uint8 if top < 256 else np.uint16
    return [np.clip(np.rint(dn), 0, top).astype(dtype) for dn in noisy], exposure


def assert_alike(ours, reference, exposure):
    """To float32 rounding of the sums."""
    seen = np.isfinite(reference.value)
    np.testing.assert_array_equal(np.isfinite(ours.value), seen)
    scale = np.abs(reference.value) + np.sqrt(reference.variance)
    far = np.abs(ours.value - reference.value)[seen] / scale[seen]
    assert far.max() < 5e-5
    np.testing.assert_allclose(ours.variance, reference.variance, rtol=5e-5)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 9, 16, 64])
def test_any_number_of_frames(n):
    frames, exposure = scene(n, seed=n)
    model = model_of()
    ours = merge(frames, exposure, model)
    assert_alike(ours, merge_reference(frames, exposure, model), exposure)
    np.testing.assert_array_equal(merge_value(frames, exposure, model), ours.value)


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (8, 1024), (9, 1025)])
def test_any_size(shape):
    frames, exposure = scene(4, shape)
    model = model_of(shape=shape)
    assert_alike(merge(frames, exposure, model), merge_reference(frames, exposure, model), exposure)


def test_maps_of_every_kind():
    rng = np.random.default_rng(3)
    frames, exposure = scene(5)
    model = model_of(
        dark_map=rng.normal(0, 1, SHAPE), dark_rate_map=rng.normal(0, 0.1, SHAPE), dark_current_e_s=2.0,
        flat_map=rng.normal(1, 0.1, SHAPE), defects=rng.random(SHAPE) < 0.02, flat_sigma=0.01,
        dark_covariance=np.array([[0.3, -0.01], [-0.01, 0.002]]),
    )  # fmt: skip
    assert_alike(merge(frames, exposure, model), merge_reference(frames, exposure, model), exposure)


@pytest.mark.parametrize("packing", ["12p", "10p", "12Packed"])
@settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 200), seed=st.integers(0, 2**32 - 1))
def test_unpacking_is_the_reference(packing, count, seed):
    size = (
        (count + 1) // 2 * 3 if packing == "12Packed" else (count * (10 if packing == "10p" else 12) + 7) // 8
    )
    data = np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)
    frame = Packed(data, (1, count), packing)
    assert frame.dtype == np.uint16
    np.testing.assert_array_equal(np.asarray(frame)[0], unpack_reference(data, count, packing))
    with pytest.raises(FitError, match=rf"{size - 1} bytes, want {size}"):
        Packed(data[:-1], (1, count), packing)


def test_known_bytes_of_packed_formats():
    """GenICam PFNC: Mono12p and Mono10p fill from the lowest bits; GigE Vision's Mono12Packed does not."""
    assert np.asarray(Packed(np.array([0xBC, 0x3A, 0x12], np.uint8), (1, 2), "12p")).tolist() == [
        [0xABC, 0x123]
    ]
    assert np.asarray(Packed(np.array([0xAB, 0x3C, 0x12], np.uint8), (1, 2), "12Packed")).tolist() == [
        [0xABC, 0x123]
    ]
    word = 1 | 2 << 10 | 3 << 20 | 1023 << 30
    five = np.frombuffer(word.to_bytes(5, "little"), np.uint8)
    assert np.asarray(Packed(five, (2, 2), "10p")).tolist() == [[1, 2], [3, 1023]]
    with pytest.raises(FitError, match="packing '14p'"):
        Packed(five, (2, 2), "14p")


@pytest.mark.parametrize("shape", [(71, 131), (100, 333)])
def test_packed_frames_merge_as_they_are(shape):
    frames, exposure = scene(4, shape)
    packed = []
    for frame in frames:
        bits = (frame.ravel()[:, None] >> np.arange(12)) & 1
        packed.append(Packed(np.packbits(bits.astype(np.uint8), bitorder="little"), shape, "12p"))
    model = model_of(shape=shape)
    ours, plain = merge(packed, exposure, model), merge(frames, exposure, model)
    np.testing.assert_array_equal(ours.value, plain.value)
    np.testing.assert_array_equal(ours.variance, plain.variance)


class Lazy(Sequence):
    """Frames that exist only while they are looked at."""

    def __init__(self, frames):
        self.frames, self.read = frames, 0

    def __len__(self):
        return len(self.frames)

    def __getitem__(self, index):
        self.read += 1
        return self.frames[index].copy()


@pytest.mark.parametrize(("budget", "passes"), [(1 << 30, 1), (9 * 8192 * 2 * 2, 3)])
def test_lazy_frames_are_read_once_for_each_share_of_the_budget(monkeypatch, budget, passes):
    shape = (40, 1024)
    frames, exposure = scene(9, shape)
    monkeypatch.setattr(stack, "_BUDGET", budget)
    lazy = Lazy(frames)
    mask = [None] * 8 + [np.arange(shape[0] * shape[1]).reshape(shape) % 77 == 0]
    for options in ({}, {"reject": mask, "saturation_margin_px": 1}):
        lazy.read = 0
        ours = merge(lazy, exposure, model_of(shape=shape), **options)
        # the first is also read to know what they are
        assert len(frames) * passes <= lazy.read <= len(frames) * passes + 1
        plain = merge(frames, exposure, model_of(shape=shape), **options)
        np.testing.assert_array_equal(ours.value, plain.value)
        np.testing.assert_array_equal(ours.variance, plain.variance)


def test_bands_of_arrays_give_the_same(monkeypatch):
    shape = (40, 1024)
    frames, exposure = scene(5, shape)
    whole = merge(frames, exposure, model_of(shape=shape))
    monkeypatch.setattr(stack, "_BAND", 8192)
    for image, other in zip(merge(frames, exposure, model_of(shape=shape)), whole, strict=True):
        np.testing.assert_array_equal(image, other)


def test_frames_in_any_memory(tmp_path):
    frames, exposure = scene(3)
    plain = merge(frames, exposure, model_of()).value
    np.save(tmp_path / "stack.npy", np.array(frames))
    mapped = np.load(tmp_path / "stack.npy", mmap_mode="r")
    odd = [
        np.asfortranarray(frames[0]),
        frames[1].astype(">u2"),
        np.repeat(frames[2], 2, axis=1)[:, ::2],
    ]
    for other in (mapped, list(mapped), odd):
        np.testing.assert_array_equal(merge(other, exposure, model_of()).value, plain)


def test_threads_do_not_matter():
    frames, exposure = scene(5, (60, 1024))
    model = model_of(shape=(60, 1024))
    many = merge(frames, exposure, model)
    before = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        for image, other in zip(merge(frames, exposure, model), many, strict=True):
            np.testing.assert_array_equal(image, other)
    finally:
        numba.set_num_threads(before)


@pytest.mark.parametrize(
    ("pixel_format", "channels"), [("Mono8", 1), ("RGB8", 1), ("RGB8", 3), ("Mono12", 1)]
)
def test_response_tables(pixel_format, channels):
    shape = (*SHAPE, 3) if pixel_format == "RGB8" else SHAPE
    bits = 12 if pixel_format == "Mono12" else 8
    frames, exposure = scene(4, shape, 2**bits - 1)
    curve = np.geomspace(0.02, 1.02, 2**bits) - 0.0199
    model = RadiometricModel.nominal(pixel_format, shape).replace(
        response=1e4 * np.stack([curve * (1 + 0.2 * c) for c in range(channels)], -1)
    )
    ours, reference = merge(frames, exposure, model), merge_reference(frames, exposure, model)
    np.testing.assert_allclose(ours.value, reference.value, rtol=5e-5)
    # the noise of a table is looked up in steps of 1/256 octave: rounding may take the next one
    np.testing.assert_allclose(ours.variance, reference.variance, rtol=0.02)
    assert np.mean(np.abs(ours.variance / reference.variance - 1) > 1e-4) < 1e-2


def test_float_frames_of_a_counting_camera():
    """Means of several frames: weights pixel by pixel, NaN samples left out."""
    frames, exposure = scene(4)
    floats = [frame.astype(np.float32) for frame in frames]
    floats[2][5, 6] = np.nan
    floats[1][:] = np.nan
    result = merge(floats, exposure, model_of())
    reference = merge_reference(floats, exposure, model_of())
    np.testing.assert_allclose(result.value, reference.value, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(result.variance, reference.variance, rtol=1e-4)
    assert np.isfinite(result.value[5, 6])


def test_results_go_where_they_are_wanted():
    frames, exposure = scene(3)
    out = Radiance(np.empty(SHAPE, np.float32), np.empty(SHAPE, np.float32))
    result = merge(frames, exposure, model_of(), out=out)
    assert result.value is out.value
    assert result.variance is out.variance
    value = np.empty(SHAPE, np.float32)
    assert merge_value(frames, exposure, model_of(), out=value) is value
    np.testing.assert_array_equal(value, out.value)
    with pytest.raises(FitError, match=r"out\.value is float64"):
        merge_value(frames, exposure, model_of(), out=np.empty(SHAPE))


@pytest.mark.parametrize("first", [0, 1, 7, 15])
def test_results_go_to_any_place_and_nowhere_else(first):
    """Whole lines of the caches are written at once, what is beside them one by one."""
    shape = (70, 131)
    frames, exposure = scene(3, shape)
    plain = merge(frames, exposure, model_of())
    room = np.full((2, frames[0].size + 40), -7.0, np.float32)
    part = slice(first, first + frames[0].size)
    out = Radiance(room[0, part].reshape(shape), room[1, part].reshape(shape))
    merge(frames, exposure, model_of(), out=out)
    for row, image in zip(room, plain, strict=True):
        np.testing.assert_array_equal(row[part].reshape(shape), image)
        assert np.all(row[:first] == -7)
        assert np.all(row[part.stop :] == -7)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda frames: frames[1].astype(np.uint8), "frame 1 has dtype uint8, the first has uint16"),
        (lambda frames: frames[1][:-1], r"frame 1 has shape \(69, 131\)"),
        (lambda frames: frames[1].astype(complex), "frame 1 has dtype complex128"),
    ],
)
def test_a_frame_unlike_the_others_is_named(spoil, says):
    frames, exposure = scene(3)
    frames[1] = spoil(frames)
    with pytest.raises(FitError, match=says):
        merge(frames, exposure, model_of())


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_saturated_all_over(dtype):
    frames = [np.full(SHAPE, 4095, dtype), np.full(SHAPE, 4095, dtype)]
    with pytest.raises(FitError, match=r"even frame 1 of 0\.5 s is saturated"):
        merge(frames, [2.0, 0.5], model_of())
    frames[1][3, 4] = 4000
    result = merge(frames, [2.0, 0.5], model_of())
    assert np.isfinite(result.value).sum() == 1
    assert np.isfinite(result.variance).sum() == 1
