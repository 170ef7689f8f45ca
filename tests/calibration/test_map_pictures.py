"""Normals and depth as PNG: each file says what its numbers are, and gives them back to its last step."""

import cv2
import numpy as np
import pytest
from PIL import Image

from calibration.files import (
    read_depth_png,
    read_normals_png,
    read_png_texts,
    write_depth_png,
    write_image,
    write_normals_png,
)
from calibration.geometry import angle_deg, normalize


def some_normals(shape=(40, 50)):
    rng = np.random.default_rng(7)
    normals = normalize(rng.normal(size=(*shape, 3)) * [1, 1, 0.5] - [0, 0, 1])
    normals[rng.random(shape) < 0.1] = np.nan
    return normals.astype(np.float32)


# A component is rounded by half a step of 2 / 65535 at most, so the vector is turned by at most
# sqrt(3) / 65535 rad; its length is made 1 again, and float32 adds some 1e-7 rad.
WORST_DEG = np.degrees(np.sqrt(3) / 65535 + 3e-7)


@pytest.mark.parametrize("axes", ["opengl", "directx"])
def test_normals_come_back_to_quantisation(tmp_path, axes):
    normals = some_normals()
    write_normals_png(tmp_path / "n.png", normals, axes)
    found = read_normals_png(tmp_path / "n.png")
    np.testing.assert_array_equal(np.isnan(found), np.isnan(normals))
    valid = np.isfinite(normals).all(axis=-1)
    assert angle_deg(found[valid], normals[valid]).max() < WORST_DEG
    texts = read_png_texts(tmp_path / "n.png")
    with Image.open(tmp_path / "n.png") as other:  # another reader, which checks the sums too
        other.load()
        assert other.text == texts
    assert texts["gnomon:normal-axes"] == axes
    assert f"y {'up' if axes == 'opengl' else 'down'}" in texts["Description"]


def test_directx_is_opengl_with_green_turned_over(tmp_path):
    normals = some_normals()
    for axes in ("opengl", "directx"):
        write_normals_png(tmp_path / f"{axes}.png", normals, axes)
    gl, dx = (cv2.imread(str(tmp_path / f"{a}.png"), cv2.IMREAD_UNCHANGED) for a in ("opengl", "directx"))
    valid = gl.any(axis=-1)
    np.testing.assert_array_equal(gl[..., [0, 2]], dx[..., [0, 2]])
    # One step apart where both halves round to even.
    assert np.abs(gl[valid, 1].astype(int) + dx[valid, 1] - 65535).max() <= 1
    up = np.full((1, 1, 3), [0.0, -0.6, -0.8])  # y down: this one points up
    write_normals_png(tmp_path / "up.png", up, "directx")
    assert cv2.imread(str(tmp_path / "up.png"), cv2.IMREAD_UNCHANGED)[0, 0, 1] == round(0.2 * 65535)


def test_a_normal_map_of_another_program_wants_its_axes(tmp_path):
    write_image(tmp_path / "n.png", np.array([[[128, 255, 128], [0, 0, 0]]], np.uint8))
    with pytest.raises(ValueError, match=r"n.png: does not say whether green is up"):
        read_normals_png(tmp_path / "n.png")
    up = read_normals_png(tmp_path / "n.png", "opengl")
    assert angle_deg(up[0, 0], [0, -1, 0]) < 0.4
    assert np.isnan(up[0, 1]).all()
    assert angle_deg(read_normals_png(tmp_path / "n.png", "directx")[0, 0], [0, 1, 0]) < 0.4
    write_image(tmp_path / "gray.png", np.zeros((2, 2), np.uint8))
    with pytest.raises(ValueError, match=r"gray.png: want RGB"):
        read_normals_png(tmp_path / "gray.png", "opengl")


def test_depth_comes_back_to_half_a_step(tmp_path):
    depth = np.random.default_rng(3).uniform(412.0, 431.0, (30, 40)).astype(np.float32)
    depth[:3] = np.nan
    step = write_depth_png(tmp_path / "d.png", depth)
    assert step == pytest.approx(19 / 65534, rel=0.01)
    found = read_depth_png(tmp_path / "d.png")
    np.testing.assert_array_equal(np.isnan(found), np.isnan(depth))
    # float32 of 431 is good to 1.5e-5
    assert np.nanmax(np.abs(found - depth)) <= step / 2 + 4e-5
    # A reader that knows only the text gets the same.
    texts, raw = read_png_texts(tmp_path / "d.png"), cv2.imread(str(tmp_path / "d.png"), cv2.IMREAD_UNCHANGED)
    assert raw.dtype == np.uint16
    told = float(texts["gnomon:depth-offset"]) + float(texts["gnomon:depth-step"]) * raw
    np.testing.assert_allclose(told[3:], depth[3:], atol=step / 2 + 4e-5)
    assert texts["gnomon:depth-unit"] == "mm"
    assert (raw[:3] == 0).all()


def test_depth_that_is_even_or_missing(tmp_path):
    write_depth_png(tmp_path / "d.png", np.full((2, 2), 5.0))
    np.testing.assert_array_equal(read_depth_png(tmp_path / "d.png"), np.full((2, 2), 5.0))
    with pytest.raises(ValueError, match="NaN everywhere"):
        write_depth_png(tmp_path / "no.png", np.full((2, 2), np.nan))
    assert not (tmp_path / "no.png").exists()
    write_image(tmp_path / "plain.png", np.zeros((2, 2), np.uint16))
    with pytest.raises(ValueError, match=r"plain.png: does not say its scale"):
        read_depth_png(tmp_path / "plain.png")
    with pytest.raises(ValueError, match="only a PNG"):
        write_image(tmp_path / "a.tif", np.zeros((2, 2), np.uint8), {"a": "b"})
