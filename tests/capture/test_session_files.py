"""The files that frames are kept in."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
from capture_fakes import RIG, frame, small_plan
from hypothesis import given, settings
from hypothesis import strategies as st

from capture.frame import Frame
from capture.session import FrameRecord, Session
from capture.session.disk import decode, encode, read_file


@settings(max_examples=40, deadline=None)
@given(
    pixel_format=st.sampled_from(["Mono8", "Mono12", "Mono16", "RGB8", "RGB16", "BayerGB10", "Mono32f"]),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    seed=st.integers(0, 2**16),
)
def test_tiff_keeps_every_sample_and_is_the_same_bytes_each_time(pixel_format, height, width, seed):
    rng = np.random.default_rng(seed)
    shape = (height, width, 3) if pixel_format.startswith("RGB") else (height, width)
    if pixel_format == "Mono32f":
        dn = rng.normal(size=shape).astype(np.float32)
    else:
        dtype = np.uint8 if pixel_format.endswith("8") else np.uint16
        dn = rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)
    picture = Frame(dn, pixel_format, 0.01, 0.0, 1, 1)
    for compress in (False, True):
        data = b"".join(encode(picture, compress))
        assert data == b"".join(encode(picture, compress))
        back = decode(data)
        assert back.dtype == dn.dtype
        assert not back.flags.writeable
        np.testing.assert_array_equal(back, dn)


@pytest.mark.parametrize("shape", [(700, 90), (300, 64, 3)])
def test_compressed_frames_are_read_by_others(shape):
    """By tifffile with imagecodecs: several strips, differences that wrap round, a name for what was done."""
    pytest.importorskip(
        "imagecodecs", reason="imagecodecs, another reader of Zstandard TIFF, is not installed"
    )
    dn = np.random.default_rng(4).poisson(900, shape).astype(np.uint16)
    dn[::7] = 65535 - dn[::7]
    (data,) = encode(Frame(dn, "RGB16" if len(shape) == 3 else "Mono16", 0.01, 0.0, 1, 1), compress=True)
    np.testing.assert_array_equal(tifffile.imread(io.BytesIO(data)), dn)
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        assert (tiff.pages[0].compression.name, tiff.pages[0].predictor.name) == ("ZSTD", "HORIZONTAL")


def test_a_compressed_session_holds_the_same_pictures_in_less(tmp_path):
    plan = small_plan()
    dn = np.random.default_rng(4).poisson(900, (200, 300)).astype(np.uint16)
    sizes = []
    for compress in (False, True):
        session = Session.create(tmp_path / str(compress), plan, RIG)
        with session.writer(compress=compress) as writer:
            for shot in session.pending():
                writer.put(shot, Frame(dn.copy(), "Mono12", shot.exposure_s, 0.0, shot.index, 1))
        session.finish()
        assert session.verify() == ()
        for image in session.stack():
            np.testing.assert_array_equal(image, dn)
        sizes.append(sum(path.stat().st_size for path in (session.path / "frames").iterdir()))
    assert sizes[1] < 0.75 * sizes[0]


def test_a_large_file_is_its_bytes_and_its_picture_a_view(tmp_path):
    """Beyond a megabyte the bytes lie in pages of their own; what is no plain TIFF goes the long way."""
    dn = np.random.default_rng(3).integers(0, 4096, (800, 900), dtype=np.uint16)
    picture = Frame(dn, "Mono12", 0.01, 0.0, 1, 1)
    path = tmp_path / "frame.tif"
    path.write_bytes(b"".join(encode(picture)))
    data = read_file(path)
    assert bytes(data) == path.read_bytes()
    back = decode(data)
    assert back.base is not None
    assert not back.flags.writeable
    np.testing.assert_array_equal(back, dn)
    tifffile.imwrite(path, dn, compression="zlib")
    np.testing.assert_array_equal(decode(read_file(path)), dn)
    tifffile.imwrite(path, dn, byteorder=">")
    np.testing.assert_array_equal(decode(read_file(path)), dn)


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(0, 400))
def test_a_cut_tiff_is_an_error_not_a_picture(cut):
    data = b"".join(encode(frame()))
    with pytest.raises(ValueError, match="not a readable TIFF"):
        decode(data[: max(0, len(data) - 1 - cut)])


def test_outside_reader_sees_the_same_picture(finished):
    """OpenCV knows nothing of this writer."""
    import cv2

    record = Session.open(finished).frames[7]
    assert isinstance(record, FrameRecord)
    image = cv2.imread(os.fspath(Path(finished) / record.file), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(image, Session.open(finished).stack()[7])
