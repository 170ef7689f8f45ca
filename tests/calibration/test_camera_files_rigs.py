"""Camera files of Kalibr, mrcal and COLMAP: round trips, files and pixels of other programs, faults."""

import cv2
import numpy as np
import pytest
import yaml
from camera_lenses import (
    EIGHT,
    FISHEYE,
    FOUR,
    LENS,
    PLAIN,
    POINTS,
    ROUND,
    places,
    refused,
    same_numbers,
    write,
)

from calibration.cameras import RigCamera
from calibration.files import read_colmap, read_kalibr, read_mrcal, write_colmap, write_kalibr, write_mrcal
from calibration.lens import KannalaBrandt, SplinedLens

# ---------------------------------------------------------------- Kalibr

# Numbers of OpenVINS' config/tum_vi and config/euroc_mav; T_cn_cnm1 is that of msckf_vio's EuRoC chain.
TUM_VI = """%YAML:1.0 # need to specify the file type at the top!

cam0:
  T_cam_imu:
    - [-0.9995250378696743, 0.029615343885863205, -0.008522328211654736, 0.04727988224914392]
    - [0.0075019185074052044, -0.03439736061393144, -0.9993800792498829, -0.047443232143367084]
    - [-0.02989013031643309, -0.998969345370175, 0.03415885127385616, -0.0681999605066297]
    - [0.0, 0.0, 0.0, 1.0]
  camera_model: pinhole
  distortion_coeffs: [0.0034823894022493434, 0.0007150348452162257,
     -0.0020532361418706202, 0.00020293673591811182]
  distortion_model: equidistant
  intrinsics: [190.97847715128717, 190.9733070521226, 254.93170605935475, 256.8974428996504]
  resolution: [512, 512]
  rostopic: /cam0/image_raw
cam1:
  T_cam_imu:
    - [-0.9995110484978581, 0.030299116376600627, -0.0077218830287333565, -0.053697434688869734]
    - [0.008104079263822521, 0.012511643720192351, -0.9998888851620987, -0.046131737923635924]
    - [-0.030199136245891378, -0.9994625667418545, -0.012751072573940885, -0.07149261284195751]
    - [0.0, 0.0, 0.0, 1.0]
  camera_model: pinhole
  distortion_coeffs: [0.0034003170790442797, 0.001766278153469831,
     -0.00266312569781606, 0.0003299517423931039]
  distortion_model: equidistant
  intrinsics: [190.44236969414825, 190.4344384721956, 252.59949716835982, 254.91723064636983]
  resolution: [512, 512]
"""
EUROC = """cam0:
  camera_model: pinhole
  distortion_coeffs: [-0.28340811, 0.07395907, 0.00019359, 1.76187114e-05]
  distortion_model: radtan
  intrinsics: [458.654, 457.296, 367.215, 248.375]
  resolution: [752, 480]
cam1:
  T_cn_cnm1:
  - [0.999997256477881, 0.002312067192424, 0.000376008102415, -0.110073808127187]
  - [-0.002317135723281, 0.999898048506644, 0.014089835846648, 0.000399121547014]
  - [-0.000343393120525, -0.014090668452714, 0.999900662637729, -0.000853702503357]
  - [0.0, 0.0, 0.0, 1.0]
  camera_model: pinhole
  distortion_coeffs: [-0.28368365, 0.07451284, -0.00010473, -3.55590700e-05]
  distortion_model: radtan
  intrinsics: [457.587, 456.134, 379.999, 255.238]
  resolution: [752, 480]
"""


EUROC_IMU = {
    "cam0": [
        [0.0148655429818, -0.999880929698, 0.00414029679422, -0.0216401454975],
        [0.999557249008, 0.0149672133247, 0.025715529948, -0.064676986768],
        [-0.0257744366974, 0.00375618835797, 0.999660727178, 0.00981073058949],
        [0.0, 0.0, 0.0, 1.0],
    ],
    "cam1": [
        [0.0125552670891, -0.999755099723, 0.0182237714554, -0.0198435579556],
        [0.999598781151, 0.0130119051815, 0.0251588363115, 0.0453689425024],
        [-0.0253898008918, 0.0179005838253, 0.999517347078, 0.00786212447038],
        [0.0, 0.0, 0.0, 1.0],
    ],
}


def test_kalibr_chain_comes_back(tmp_path):
    cameras = {
        "left": RigCamera(lens=FOUR, rotvec_rad=(0.1, -0.2, 0.3), t_mm=(10.0, 20.0, -30.0)),
        "right": RigCamera(lens=FISHEYE, rotvec_rad=(0.4, 0.1, 0.0), t_mm=(-110.0, 1.0, 2.0)),
        "top": RigCamera(lens=PLAIN, rotvec_rad=(0.0, 3.0, 0.2), t_mm=(0.0, 0.0, 500.0)),
    }
    write_kalibr(tmp_path / "chain.yaml", cameras)
    back = read_kalibr(tmp_path / "chain.yaml")
    assert list(back.cameras) == ["cam0", "cam1", "cam2"]
    assert back.reference == "cam0"
    for found, camera in zip(back.cameras.values(), cameras.values(), strict=True):
        same_numbers(found.lens, camera.lens)
        # cam0 is the rig there: left_from_rig comes first.
        left = cameras["left"]
        turn = camera.rotation @ left.rotation.T
        assert np.abs(found.rotation - turn).max() < 1e-12
        expected = np.subtract(camera.t_mm, turn @ left.t_mm)
        np.testing.assert_allclose(found.t_mm, expected, atol=1e-9)
    assert "/left/image_raw" in (tmp_path / "chain.yaml").read_text()


def test_kalibr_chains_of_others(tmp_path):
    euroc = read_kalibr(write(tmp_path / "e.yaml", EUROC))
    right = euroc.cameras["cam1"]
    assert right.lens.p2 == -3.5559070e-05
    assert right.t_mm == pytest.approx((-110.073808127187, 0.399121547014, -0.853702503357), abs=1e-9)
    # Points of cam0 become points of cam1: cam0's axis lies to the lower right there.
    assert right.rotation[:, 2] == pytest.approx((0.000376008102415, 0.014089835846648, 0.999900662637729))
    tum = read_kalibr(write(tmp_path / "t.yaml", TUM_VI))
    assert isinstance(tum.cameras["cam0"].lens, KannalaBrandt)
    # The centre of cam1 seen by the IMU, and that by cam0.
    zero, one = (
        np.array(yaml.safe_load(TUM_VI.partition("\n")[2])[n]["T_cam_imu"]) for n in ("cam0", "cam1")
    )
    centre = zero[:3, :3] @ (-one[:3, :3].T @ one[:3, 3]) + zero[:3, 3]
    assert np.linalg.norm(centre) == pytest.approx(0.101, abs=1e-3)
    np.testing.assert_allclose(tum.cameras["cam1"].centre_mm, 1000 * centre, atol=1e-4)
    # The same pair by way of its IMU, to the digits that are published.
    imu = EUROC.replace(EUROC[EUROC.index("  T_cn_cnm1") : EUROC.index("  camera_model: pinhole", 200)], "")
    for name, matrix in EUROC_IMU.items():
        imu = imu.replace(f"{name}:\n", f"{name}:\n  T_imu_cam: {matrix}\n")
    same = read_kalibr(write(tmp_path / "i.yaml", imu)).cameras["cam1"]
    assert np.abs(same.rotation - right.rotation).max() < 1e-10
    np.testing.assert_allclose(same.t_mm, right.t_mm, atol=1e-7)
    # OpenCV's fisheye sees the same.
    lens = tum.cameras["cam0"].lens
    matrix = np.array([[lens.fx, 0, lens.cx], [0, lens.fy, lens.cy], [0, 0, 1]])
    theirs, _ = cv2.fisheye.projectPoints(POINTS[None], np.zeros(3), np.zeros(3), matrix, lens.parameters[4:])
    assert np.abs(lens.project(POINTS) - theirs[0]).max() < 1e-9


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("camera_model: pinhole", "camera_model: omni", "cam0.camera_model: omni cannot"),
        ("distortion_model: radtan", "distortion_model: fov", "cam0.distortion_model: fov cannot"),
        ("  resolution: [752, 480]\ncam1", "cam1", "cam0.resolution: missing"),
        ("[458.654, 457.296,", "[458.654,", "cam0.intrinsics: 3 numbers"),
        ("[458.654,", "[-458.654,", "fx: Input should be greater"),
        ("[-0.28340811,", "[", "cam0.distortion_coeffs: 3 numbers, want 4"),
        ("T_cn_cnm1", "T_cn", "cam1.T_cn_cnm1: missing"),
        ("0.999997256477881", "0.5", "cam1.T_cn_cnm1: its first three columns are no rotation"),
        ("0.8097633e", "x", None),
        ("cam0:", "camera:", "nothing"),
    ],
)
def test_kalibr_faults(tmp_path, old, new, message):
    if message == "nothing":
        text, message = "a: 1\n", "cam0: missing"
    elif message is None:
        text, message = EUROC.replace("0.000399121547014", "x"), "cam1.T_cn_cnm1: want numbers"
    else:
        text = EUROC.replace(old, new, 1)
    refused(read_kalibr, write(tmp_path / "c.yaml", text), message)


# ---------------------------------------------------------------- mrcal

# What mrcal 2.2 wrote, and where its project() puts POINTS.
MRCAL = """{{
    'lensmodel':  'LENSMODEL_{model}',

    # intrinsics are fx,fy,cx,cy,distortion0,distortion1,....
    'intrinsics': [ 1500.5, 1510.25, 960.1, 540.7, {more}],

    # extrinsics are rt_fromref
    'extrinsics': [ 0.1, -0.2, 0.03, 1, 2, 3,],

    'imagersize': [ 1920, 1080,],


}}
"""
MRCAL_PIXELS = {
    "PINHOLE": ("", "1110.15 238.65, 334.891666667 918.2625, 1960.433333333 1211.922222222, "
        "960.1 540.7, 509.95 -138.9125"),
    "OPENCV4": (
        "-0.25, 0.08, 0.001, -0.0005,",
        "1108.1918475 242.5917525, 368.257723251 898.362392554, 1832.608236499 1127.444491101, "
        "960.1 540.7, 539.83680895 -93.017928069",
    ),
    "OPENCV5": (
        "-0.25, 0.08, 0.001, -0.0005, -0.01,",
        "1108.191659937 242.592130063, 368.340018362 898.312694644, 1829.961566984 1125.668579678, "
        "960.1 540.7, 539.949459902 -92.84785366",
    ),
    "OPENCV8": (
        "-0.25, 0.08, 0.001, -0.0005, -0.01, 0.1, 0.02, -0.003,",
        "1107.447044347 244.091038022, 382.57853391 889.714073608, 1771.788401038 1086.634469328, "
        "960.1 540.7, 552.538974008 -73.840875641",
    ),
}  # fmt: skip
# From mrcal's test/data/cam0.opencv8.cameramodel, of an early version.
MRCAL_EARLY = """{
    'lens_model':  'LENSMODEL_OPENCV8',

    # intrinsics are fx,fy,cx,cy,distortion0,distortion1,....
    'intrinsics': [ 1761.181055, 1761.250444, 1965.706996, 1087.518797, -0.01266096516, 0.03590794372,
        -0.0002547045941, 0.0005275929652, 0.01968883397, 0.01482863541, -0.0562239888, 0.0500223357,],

    # extrinsics are rt_fromref
    'extrinsics': [ 2e-2, -3e-1, -1e-2,  1., 2, -3., ],

    'imagersize': [ 4000, 2200 ]
}
"""


@pytest.mark.parametrize("model", list(MRCAL_PIXELS))
def test_mrcal_pixels(tmp_path, model):
    more, pixels = MRCAL_PIXELS[model]
    camera = read_mrcal(write(tmp_path / "c.cameramodel", MRCAL.format(model=model, more=more)))
    assert np.abs(camera.lens.project(POINTS) - places(pixels)).max() < ROUND
    assert camera.rotvec_rad == (0.1, -0.2, 0.03)
    assert camera.t_mm == (1000, 2000, 3000)
    assert (camera.lens.width, camera.lens.height) == (1920, 1080)


def knots():
    j, i = np.mgrid[:6, :7]
    return np.stack([0.02 * np.sin(1.0 + i + 2 * j), 0.03 * np.cos(2.0 * i - j)], axis=-1).round(4)


# Where mrcal 2.2 puts points by these knots.
SPLINE_POINTS = np.array(
    [[0.1, -0.2, 1.0], [-0.5, 0.3, 1.2], [0.3, 0.4, 0.9], [0.0, 0.0, 2.0], [-0.3, -0.25, 1.0]]
)
SPLINE_PIXELS = np.array(
    [
        [1120.052937425, 234.62839194],
        [371.382734593, 904.245063291],
        [1415.531345772, 1154.397130559],
        [965.072490278, 521.794082205],
        [537.592752954, 159.422377886],
    ]
)


def test_mrcal_spline(tmp_path):
    more = ", ".join(map(repr, knots().ravel().tolist()))
    text = MRCAL.format(model="SPLINED_STEREOGRAPHIC_order=3_Nx=7_Ny=6_fov_x_deg=100", more=more)
    camera = read_mrcal(write(tmp_path / "c.cameramodel", text))
    assert isinstance(camera.lens, SplinedLens)
    assert np.abs(camera.lens.project(SPLINE_POINTS) - SPLINE_PIXELS).max() < ROUND
    write_mrcal(tmp_path / "d.cameramodel", camera)
    same_numbers(read_mrcal(tmp_path / "d.cameramodel").lens, camera.lens)
    assert "Nx=7_Ny=6_fov_x_deg=100'" in (tmp_path / "d.cameramodel").read_text()
    for change in ({"spacing": 0.47}, {"corner": (-1.4, -1.2)}):
        with pytest.raises(ValueError, match="whole number of degrees"):
            write_mrcal(tmp_path / "e.cameramodel", camera.replace(lens=camera.lens.replace(**change)))
    assert not (tmp_path / "e.cameramodel").exists()


@pytest.mark.parametrize("lens", [PLAIN, FOUR, LENS, EIGHT])
def test_mrcal_model_comes_back(tmp_path, lens):
    camera = RigCamera(lens=lens, rotvec_rad=(0.1, -0.2, 0.3), t_mm=(1 / 3, 2e-7, -4e5))
    write_mrcal(tmp_path / "c.cameramodel", camera)
    back = read_mrcal(tmp_path / "c.cameramodel")
    same_numbers(back.lens, lens)
    assert back.rotvec_rad == camera.rotvec_rad
    assert back.t_mm == pytest.approx(camera.t_mm, rel=1e-15)


def test_mrcal_file_of_an_early_version(tmp_path):
    camera = read_mrcal(write(tmp_path / "c.cameramodel", MRCAL_EARLY))
    assert (camera.lens.k6, camera.lens.cy, camera.lens.width) == (0.0500223357, 1087.518797, 4000)
    assert camera.t_mm == (1000, 2000, -3000)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("OPENCV8", "CAHVOR", "lens_model: LENSMODEL_CAHVOR cannot be represented"),
        ("OPENCV8", "OPENCV5", "intrinsics: 12 numbers, want 9"),
        ("OPENCV8", "SPLINED_STEREOGRAPHIC_order=2_Nx=4_Ny=4_fov_x_deg=80", "splines of order 3"),
        ("OPENCV8", "SPLINED_STEREOGRAPHIC_order=3_Nx=2_Ny=2_fov_x_deg=80", "4 x 4 knots"),
        ("'imagersize'", "'size'", "imagersize: missing"),
        ("1761.181055", "-1.0", "fx: Input should be greater"),
        ("1761.181055", "'a'", "intrinsics: want numbers"),
        ("2e-2,", "", "extrinsics: 5 numbers"),
        ("[ 4000", "[ open('x')", "not a Python literal"),
    ],
)
def test_mrcal_faults(tmp_path, old, new, message):
    text = MRCAL_EARLY.replace(old, new)
    if "Nx=2" in new:
        text = (
            text.replace("0.0500223357,", "")[: text.index("'intrinsics'")]
            + "'intrinsics': [1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 'imagersize': [4, 4]}"
        )
    refused(read_mrcal, write(tmp_path / "c.cameramodel", text), message)


# ---------------------------------------------------------------- COLMAP

# Written by pycolmap 4.2; the pixels are those of its img_from_cam, whose first pixel's centre is (0.5, 0.5).
COLMAP = """# Camera list with one line of data per camera:
#   CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]
# Number of cameras: 9
1 SIMPLE_PINHOLE 1920 1080 1500.5 960.60000000000002 541.20000000000005
2 PINHOLE 1920 1080 1500.5 1510.25 960.60000000000002 541.20000000000005
3 SIMPLE_RADIAL 1920 1080 1500.5 960.60000000000002 541.20000000000005 -0.20000000000000001
4 RADIAL 1920 1080 1500.5 960.60000000000002 541.20000000000005 -0.20000000000000001 0.050000000000000003
5 OPENCV 1920 1080 1500.5 1510.25 960.60000000000002 541.20000000000005 -0.25 0.08 0.001 -0.0005
6 FULL_OPENCV 1920 1080 1500.5 1510.25 960.6 541.2 -0.25 0.08 0.001 -0.0005 -0.01 0.1 0.02 -0.003
7 OPENCV_FISHEYE 1920 1080 700.5 710.25 960.60000000000002 541.20000000000005 0.02 -0.01 0.003 -0.001
8 SIMPLE_RADIAL_FISHEYE 1920 1080 700.5 960.60000000000002 541.20000000000005 0.02
9 RADIAL_FISHEYE 1920 1080 700.5 960.60000000000002 541.20000000000005 0.02 -0.01
"""
COLMAP_PIXELS = {
    "1": "1110.65 241.1, 335.391666667 916.325, 1960.933333333 1208.088888889, "
        "960.6 541.2, 510.45 -134.025",
    "2": "1110.65 239.15, 335.391666667 918.7625, 1960.933333333 1212.422222222, "
        "960.6 541.2, 510.45 -138.4125",
    "3": "1109.1495 244.101, 364.915393519 898.610763889, 1832.495473251 1122.463648834, "
        "960.6 541.2, 536.783775 -94.5243375",
    "4": "1109.16825625 244.0634875, 363.172673531 899.656395882, 1853.108956968 1136.205971312, "
        "960.6 541.2, 534.858117703 -97.412823445",
    "5": "1108.6918475 243.0917525, 368.757723251 898.862392554, 1833.108236499 1127.944491101, "
        "960.6 541.2, 540.33680895 -92.517928069",
    "6": "1107.947044347 244.591038022, 383.07853391 890.214073608, 1772.288401038 1087.134469328, "
        "960.6 541.2, 553.038974008 -73.340875641",
    "7": "1029.581433553 401.316878854, 687.90213125 707.096069618, 1357.180116662 809.266645595, "
        "960.6 541.2, 767.11838135 246.938073563",
    "8": "1029.583024551 403.233950898, 687.794914082 704.883051551, 1357.904686646 806.069791097, "
        "960.6 541.2, 767.009874143 250.814811214",
    "9": "1029.581410498 403.237179004, 687.908635049 704.814818971, 1357.084975194 805.523316796, "
        "960.6 541.2, 767.126260362 250.989390543",
}  # fmt: skip


def test_colmap_pixels(tmp_path):
    lenses = read_colmap(write(tmp_path / "cameras.txt", COLMAP))
    assert list(lenses) == list(COLMAP_PIXELS)
    for name, lens in lenses.items():
        assert np.abs(lens.project(POINTS) + 0.5 - places(COLMAP_PIXELS[name])).max() < ROUND


def test_colmap_file_of_a_reconstruction(tmp_path):
    # Of a reconstruction that yDing121/video_sfm_mvs publishes; COLMAP puts the middle of 1280 px at 640.
    text = "# Number of cameras: 1\n1 PINHOLE 1280 720 1201.4540592991229 1200.5395799766175 640 360\n"
    lens = read_colmap(write(tmp_path / "cameras.txt", text))["1"]
    assert (lens.cx, lens.cy) == ((1280 - 1) / 2, (720 - 1) / 2)


def test_colmap_lenses_come_back(tmp_path):
    lenses = {"a": PLAIN, "b": FOUR, "c": LENS, "d": EIGHT, "e": FISHEYE}
    write_colmap(tmp_path / "cameras.txt", lenses)
    back = read_colmap(tmp_path / "cameras.txt")
    assert list(back) == ["1", "2", "3", "4", "5"]
    for found, lens in zip(back.values(), lenses.values(), strict=True):
        assert type(found) is type(lens)
        np.testing.assert_allclose(found.parameters, lens.parameters, rtol=1e-15, atol=0)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1 FOV 10 10 1 1 1 1 0.5", "row 2: FOV cannot be represented"),
        ("1 PINHOLE 10 10 1 1 1", "row 2, PINHOLE: 3 numbers, want 4"),
        ("1 PINHOLE 10 10 1 1 1 one", "row 2, PINHOLE: want numbers"),
        ("1 PINHOLE 10 x 1 1 1 1", "row 2: want numbers"),
        ("1 PINHOLE", "row 2: want CAMERA_ID MODEL"),
        ("1 PINHOLE 10 0 1 1 1 1", "height: Input should be greater"),
        ("1 PINHOLE 9 9 1 1 1 1\n1 PINHOLE 9 9 1 1 1 1", "row 3: camera 1 is there twice"),
        ("# nothing", "holds no camera"),
    ],
)
def test_colmap_faults(tmp_path, line, message):
    refused(read_colmap, write(tmp_path / "cameras.txt", f"# a comment\n{line}\n"), message)
