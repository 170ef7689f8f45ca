"""Camera files of OpenCV and ROS: round trips, files that others wrote, faults; what formats have not."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from camera_lenses import EIGHT, FISHEYE, FOUR, LENS, PLAIN, POINTS, refused, same_numbers, write

from calibration.cameras import RigCamera
from calibration.files import (
    read_colmap,
    read_kalibr,
    read_mrcal,
    read_opencv_camera,
    read_ros_camera,
    write_colmap,
    write_kalibr,
    write_mrcal,
    write_opencv_camera,
    write_ros_camera,
)
from calibration.lens import KannalaBrandt, SplinedLens

DATA = Path(os.environ.get("GNOMON_DATA", Path(__file__).parents[3] / "shared" / "data"))


# ---------------------------------------------------------------- OpenCV


@pytest.mark.parametrize("lens", [PLAIN, FOUR, LENS, EIGHT, FISHEYE])
def test_opencv_camera_comes_back(tmp_path, lens):
    write_opencv_camera(tmp_path / "c.yml", lens)
    same_numbers(read_opencv_camera(tmp_path / "c.yml"), lens)
    storage = cv2.FileStorage(str(tmp_path / "c.yml"), cv2.FILE_STORAGE_READ)
    matrix = storage.getNode("camera_matrix").mat()
    coefficients = storage.getNode("distortion_coefficients").mat()
    assert matrix[0, 0] == lens.fx
    shape = (1, len(POINTS), 3)
    if lens is FISHEYE:
        theirs = cv2.fisheye.projectPoints(
            POINTS.reshape(shape), np.zeros(3), np.zeros(3), matrix, coefficients
        )
    else:
        theirs = cv2.projectPoints(POINTS, np.zeros(3), np.zeros(3), matrix, coefficients)
    assert np.abs(lens.project(POINTS) - theirs[0].reshape(-1, 2)).max() < 1e-9


def test_opencv_camera_keeps_the_residual(tmp_path):
    write_opencv_camera(tmp_path / "c.yml", LENS)
    assert read_opencv_camera(tmp_path / "c.yml").quality.residual_rms == pytest.approx(0.1)


CAMERA = """%YAML:1.0
---
image_width: 640
image_height: 480
camera_matrix: !!opencv-matrix
   rows: 3
   cols: 3
   dt: d
   data: [ 500., 0., 320., 0., 501., 240., 0., 0., 1. ]
distortion_coefficients: !!opencv-matrix
   rows: 1
   cols: COUNT
   dt: d
   data: [ -0.1, 0.02, 0.001, 0.002 ]
"""


def camera_text(old, new):
    text = CAMERA.replace(old, new)
    count = len(text.split("data: [")[-1].split("]")[0].split(","))
    return text.replace("COUNT", str(count))


@pytest.mark.parametrize(
    ("old", "new", "more"),
    [
        ("", "", (0, 0, 0, 0)),
        ("0.002 ]", "0.002, 0.3 ]", (0.3, 0, 0, 0)),
        ("0.002 ]", "0.002, 0.3, 1., 0.5, 0.25 ]", (0.3, 1, 0.5, 0.25)),
        ("0.002 ]", "0.002, 0.3, 1., 0.5, 0.25, 0., 0., 0., 0. ]", (0.3, 1, 0.5, 0.25)),
        ("0.002 ]", "0.002, 0.3, 0., 0., 0., 0., 0., 0., 0., 0., 0. ]", (0.3, 0, 0, 0)),
        ("camera_matrix: !!opencv-matrix", "camera_matrix:", (0, 0, 0, 0)),
        ("%YAML:1.0\n---\n", "", (0, 0, 0, 0)),
        ("distortion_coefficients", "dist_coeffs", (0, 0, 0, 0)),
        ("camera_matrix", "cameraMatrix", (0, 0, 0, 0)),
    ],
)
def test_dialects_of_the_camera_file(tmp_path, old, new, more):
    lens = read_opencv_camera(write(tmp_path / "c.yml", camera_text(old, new)))
    assert lens.parameters.tolist() == [500, 501, 320, 240, -0.1, 0.02, 0.001, 0.002, *more]


@pytest.mark.parametrize("how", ["fisheye_model: 1", "distortion_model: equidistant"])
def test_fisheye_of_opencv(tmp_path, how):
    text = camera_text("image_height: 480", f"image_height: 480\n{how}")
    lens = read_opencv_camera(write(tmp_path / "c.yml", text))
    assert isinstance(lens, KannalaBrandt)
    assert lens.parameters.tolist() == [500, 501, 320, 240, -0.1, 0.02, 0.001, 0.002]


def test_camera_in_xml_and_without_size(tmp_path):
    storage = cv2.FileStorage(str(tmp_path / "c.xml"), cv2.FILE_STORAGE_WRITE)
    storage.write("K", np.array([[500.0, 0, 320], [0, 501, 240], [0, 0, 1]]))
    storage.release()
    with pytest.raises(ValueError, match="image_width, image_height: missing"):
        read_opencv_camera(tmp_path / "c.xml")
    assert read_opencv_camera(tmp_path / "c.xml", size=(640, 480)).width == 640


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("0.002 ]", "0.002, 0.3, 1. ]", "distortion_coefficients: 6 values"),
        ("0.002 ]", "0.002, 0.3, 1., 0., 0., 0.1, 0., 0., 0. ]", "distortion_coefficients: thin prism"),
        ("500., 0.,", "500., 3.,", "camera_matrix: skew"),
        ("0., 0., 1. ]", "0., 0., 2. ]", "camera_matrix: skew or a scale"),
        ("500.,", "-500.,", "fx: Input should be greater"),
        ("camera_matrix", "camera_matrices", "camera_matrix: want a 3 x 3"),
        ("image_width", "image_breadth", "image_width, image_height: missing"),
        ("image_height: 480", "image_height: 480\ndistortion_model: fov", "distortion_model: fov"),
        ("image_height: 480", "image_height: 480\nfisheye_model: 1", None),
        ("data: [ 500.", "data: [ [ 500.", "no camera file"),
    ],
)
def test_camera_that_cannot_be_represented(tmp_path, old, new, message):
    if message is None:
        text, message = camera_text("0.002 ]", "0.002, 0.3 ]").replace(old, new), "5 values: a fisheye has k1"
    else:
        text = camera_text(old, new)
    refused(read_opencv_camera, write(tmp_path / "c.yml", text), message)


@pytest.mark.parametrize("read", [read_opencv_camera, read_ros_camera, read_kalibr, read_mrcal, read_colmap])
def test_camera_file_that_is_none(tmp_path, read):
    with pytest.raises(FileNotFoundError, match="no such camera file"):
        read(tmp_path / "c.yml")
    for content in (b"", b"garbage", b"\xff\xfe\x00", b"[1, 2]", b"{" * 300, b"a: b: c"):
        (tmp_path / "c.yml").write_bytes(content)
        refused(read, tmp_path / "c.yml", "c.yml: ")


@pytest.mark.skipif(
    not (DATA / "lens/opencv_pair").is_dir(), reason="no lens/opencv_pair data at GNOMON_DATA"
)
def test_opencv_sample_file():
    lens = read_opencv_camera(DATA / "lens/opencv_pair/left_intrinsics.yml")
    assert (lens.width, lens.height) == (640, 480)
    assert lens.fx == pytest.approx(535.91573396)
    assert lens.k3 == pytest.approx(0.23839153)


# ---------------------------------------------------------------- ROS

# The numbers of config/camera_info.yaml of ros-drivers/usb_cam.
USB_CAM = """image_width: 640
image_height: 480
camera_name: test_camera
camera_matrix:
  rows: 3
  cols: 3
  data: [438.783367, 0.000000, 305.593336, 0.000000, 437.302876, 243.738352, 0.000000, 0.000000, 1.000000]
distortion_model: plumb_bob
distortion_coefficients:
  rows: 1
  cols: 5
  data: [-0.361976, 0.110510, 0.001014, 0.000505, 0.000000]
rectification_matrix:
  rows: 3
  cols: 3
  data: [0.999978, 0.002789, -0.006046, -0.002816, 0.999986, -0.004401, 0.006034, 0.004417, 0.999972]
projection_matrix:
  rows: 3
  cols: 4
  data: [393.6538, 0.0, 322.797939, 0.0, 0.0, 393.6538, 241.090902, 0.0, 0.0, 0.0, 1.0, 0.0]
"""
MESSAGE = """header:
  seq: 3
height: 480
width: 640
distortion_model: "equidistant"
D: [1e-05, 0.02, -0.003, 0.0]
K: [500.0, 0.0, 320.5, 0.0, 501.0, 240.5, 0.0, 0.0, 1.0]
R: [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
binning_x: 0
binning_y: 0
roi: {x_offset: 0, y_offset: 0, height: 0, width: 0, do_rectify: False}
---
"""


@pytest.mark.parametrize("lens", [PLAIN, FOUR, LENS, EIGHT, FISHEYE])
def test_ros_camera_comes_back(tmp_path, lens):
    write_ros_camera(tmp_path / "c.yaml", lens, "left")
    same_numbers(read_ros_camera(tmp_path / "c.yaml"), lens)
    info = yaml.safe_load((tmp_path / "c.yaml").read_text())
    assert info["camera_name"] == "left"
    assert len(info["projection_matrix"]["data"]) == 12
    assert info["distortion_model"] == (
        "equidistant" if lens is FISHEYE else "rational_polynomial" if lens is EIGHT else "plumb_bob"
    )


def test_ros_files_of_others(tmp_path):
    lens = read_ros_camera(write(tmp_path / "a.yaml", USB_CAM))
    first = [438.783367, 437.302876, 305.593336, 243.738352, -0.361976, 0.11051, 0.001014, 0.000505]
    assert lens.parameters.tolist() == [*first, 0, 0, 0, 0]
    assert (lens.width, lens.height) == (640, 480)
    fisheye = read_ros_camera(write(tmp_path / "b.yaml", MESSAGE))
    assert fisheye.parameters.tolist() == [500, 501, 320.5, 240.5, 1e-5, 0.02, -0.003, 0]
    rational = USB_CAM.replace("plumb_bob", "rational_polynomial")
    assert read_ros_camera(write(tmp_path / "c.yaml", rational)) == lens.replace(
        provenance=lens.provenance.replace(note="read from c.yaml")
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("distortion_model: plumb_bob", "distortion_model: thin_prism", "distortion_model: thin_prism"),
        ("image_width: 640", "", "image_width: missing"),
        ("image_width: 640", "image_width: wide", "image_width: want numbers"),
        ("camera_matrix:", "matrix:", "camera_matrix: missing"),
        ("438.783367,", "", "camera_matrix: 8 numbers, want 3 x 3"),
        ("438.783367", ".nan", "camera_matrix: want finite"),
        ("438.783367", "-1", "fx: Input should be greater"),
        ("-0.361976, ", "", None),
        ("-0.361976, 0.110510,", "", "distortion_coefficients: 3 values"),
        ("image_height: 480", "image_height: 480\nbinning_x: 2", "binning_x: binned"),
        ("image_height: 480", "image_height: 480\nroi: {x_offset: 8}", "roi: a part"),
    ],
)
def test_ros_faults(tmp_path, old, new, message):
    path = write(tmp_path / "c.yaml", USB_CAM.replace(old, new))
    if message is None:
        assert read_ros_camera(path).k1 == 0.11051  # four coefficients are k1, k2, p1, p2
    else:
        refused(read_ros_camera, path, message)


# ---------------------------------------------------------------- what a format has not


def test_what_a_format_cannot_hold_is_refused_and_nothing_written(tmp_path):
    spline = SplinedLens(
        width=64, height=48, fx=50.0, fy=50.0, cx=32.0, cy=24.0, spacing=0.3,
        corner=(-0.6, -0.6), knots=np.zeros((5, 5, 2)),
    )  # fmt: skip
    out = tmp_path / "out"
    for call, message in (
        (lambda: write_opencv_camera(out, spline), "OpenCV has no splined lens"),
        (lambda: write_ros_camera(out, spline), "ROS has no splined lens"),
        (lambda: write_colmap(out, {"a": spline}), "COLMAP has no splined lens"),
        (lambda: write_kalibr(out, {"a": RigCamera(lens=spline)}), "camera a: Kalibr has no splined lens"),
        (
            lambda: write_kalibr(out, {"a": RigCamera(lens=EIGHT)}),
            "Kalibr has no place for k3, k4, k5, k6 of",
        ),
        (lambda: write_kalibr(out, {"a": RigCamera(lens=LENS)}), "Kalibr has no place for k3 of this lens"),
        (lambda: write_mrcal(out, RigCamera(lens=FISHEYE)), "mrcal has no kannala-brandt lens"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    assert not list(tmp_path.iterdir())
