"""DSLR cameras on libgphoto2's virtual camera; RAW files that tifffile wrote, read by LibRaw.

The virtual camera has shutter speeds and apertures and no ISO, and sends one file for every picture.
"""

import builtins

import counterparts
import cv2
import numpy as np
import pytest
from counterparts import SHOT, dng
from pydantic import ValidationError

from capture.devices import DeviceError, DeviceLost, FrameLost, SettingRefused
from capture.drivers import gphoto2
from capture.drivers.files import decode_raw
from capture.drivers.gphoto2 import seconds


@pytest.fixture
def config(monkeypatch, tmp_path):
    return counterparts.gphoto2(monkeypatch, tmp_path / "card")


def test_a_raw_file_comes_as_it_left_the_sensor(config):
    with config.open("main") as camera:
        frame = camera.expose(0.01, 0.0, 5.0)
    assert np.array_equal(frame.dn, SHOT)
    assert (frame.pixel_format, frame.black_level_dn) == ("BayerRG14", 512.0)
    assert (frame.exposure_s, frame.gain_db) == (0.01, 0.0)


@pytest.mark.parametrize(
    ("pattern", "white", "expected"),
    [
        ((0, 1, 1, 2), 16383, "BayerRG14"),
        ((1, 0, 2, 1), 15311, "BayerGR14"),  # as several Canons have it
        ((1, 2, 0, 1), 4095, "BayerGB12"),
        ((2, 1, 1, 0), 65535, "BayerBG16"),
    ],
)
def test_the_format_follows_from_pattern_and_white_level(tmp_path, pattern, white, expected):
    pytest.importorskip("rawpy")
    dn = np.minimum(SHOT, white)
    raw = decode_raw(dng(tmp_path / "a.dng", dn, white=white, pattern=pattern, black=7))
    assert (raw.pixel_format, raw.black_level_dn, raw.exposure_s) == (expected, 7.0, None)
    assert np.array_equal(raw.dn, dn)


def test_masked_borders_are_cut_off_and_move_the_pattern(tmp_path):
    pytest.importorskip("rawpy")
    """A DNG's pattern begins where its visible area does; LibRaw begins at even rows and columns."""
    raw = decode_raw(dng(tmp_path / "a.dng", SHOT, visible=(1, 2, 47, 60)))
    assert np.array_equal(raw.dn, SHOT[2:47, 2:60])
    assert raw.pixel_format == "BayerGB14"


def test_what_is_no_bayer_file_says_so(tmp_path):
    pytest.importorskip("rawpy")
    with pytest.raises(ValueError, match="sent a file that LibRaw does not read: Unsupported file format"):
        decode_raw(b"nothing of the kind" * 100)
    with pytest.raises(ValueError, match=r"sent a file that LibRaw|which is not Bayer's|without a Bayer"):
        decode_raw(dng(tmp_path / "a.dng", SHOT, pattern=(1, 1, 1, 0)))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1/50", 0.02),
        ("0.0200s", 0.02),
        ('1.3"', 1.3),
        ("30", 30.0),
        ("1/1.3", 1 / 1.3),
        ("0,5", 0.5),
        ("10/25", 0.4),
        ("bulb", None),
        ("Time", None),
        ("1/0", None),
        ("..", None),
    ],
)
def test_shutter_speeds_are_read_as_cameras_write_them(text, value):
    assert seconds(text) == value


def test_a_shutter_speed_the_camera_has_not_is_refused(config):
    with config.open("main") as camera:
        with pytest.raises(SettingRefused, match=r"main: has no shutterspeed of 0\.03 s, only 1\.0000s, 0"):
            camera.expose(0.03, 0.0, 5.0)
        with pytest.raises(SettingRefused, match="main: has no ISO to set, so that it takes 0 dB only"):
            camera.expose(0.01, 6.0, 5.0)
        assert camera.expose(0.02, 0.0, 5.0).exposure_s == 0.02


def test_what_libgphoto2_takes_in_silence_is_read_back(config, monkeypatch):
    """Asked for 0.0300s without a look at its list, it sets another and reports no error."""
    monkeypatch.setattr(gphoto2, "_APPLY_S", 0.01)
    with config.open("main") as camera:
        camera.expose(0.02, 0.0, 5.0)
        monkeypatch.setattr(camera, "_choices", lambda widget: [])
        with pytest.raises(SettingRefused, match=r"shutterspeed is 0\.0200s after it was set to 0\.0300s"):
            camera._set("shutterspeed", "0.0300s")


def test_the_file_has_the_last_word_on_the_exposure(monkeypatch, tmp_path):
    """A name may be some percent off, as 1/60 is for 1/64; another speed altogether is another exposure."""
    assert gphoto2._applied(1 / 60, 1 / 64) == 1 / 60
    assert gphoto2._applied(None, 1 / 64) == 1 / 64
    file = dng(tmp_path / "shot.dng", SHOT, exposure=(1, 50))
    # the virtual camera keeps to the first folder that a process shows it
    config = counterparts.gphoto2(monkeypatch, tmp_path / "card", file, isolate=True)
    with config.open("main") as camera:
        assert camera.expose(0.01, 0.0, 5.0).exposure_s == pytest.approx(0.02, rel=1e-6)


def test_a_full_card_ends_the_run_and_loses_no_shot_after_shot(config):
    """The virtual camera has room for 26, and for none ever after in the same process."""
    with config.replace(isolate=True).open("main") as camera:
        for number in range(26):
            assert camera.expose(0.01, 0.0, 5.0).frame_id == number + 1
        with pytest.raises(DeviceLost, match="main: its memory or its card is full: empty the card"):
            camera.expose(0.01, 0.0, 5.0)


def test_pictures_are_deleted_in_the_camera_unless_they_are_kept(config):
    def left(camera, folder="/"):
        files, folders = camera.folder_list_files(folder), camera.folder_list_folders(folder)
        below = (folders.get_name(number) for number in range(folders.count()))
        return files.count() + sum(left(camera, f"{folder.rstrip('/')}/{name}") for name in below)

    for keep in (False, True):
        with config.replace(keep=keep).open("main") as camera:
            before = left(camera._camera)
            camera.expose(0.01, 0.0, 5.0)
            assert left(camera._camera) == before + keep


def test_settings_of_the_rig_file_are_set(config):
    settings = {"autofocus": False, "exposurecompensation": "1"}  # YAML reads Off as false
    with config.replace(aperture=8, settings=settings).open("main") as camera:
        told = [camera._widget((name,)).get_value() for name in ("f-number", *settings, "capturetarget")]
    assert told == ["f/8", "Off", "1", "Internal RAM"]


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        (
            {"model": "Pinhole"},
            DeviceLost,
            "no camera Pinhole; found: Nikon DSC D750 at usb:001,001; look",
        ),
        ({"serial": "9"}, DeviceLost, r"no camera serial 9; found: Nikon DSC D750 0\.1"),
        ({"aperture": 7.7}, SettingRefused, r"has no aperture of f/7\.7, only f/2\.8, f/3\.5"),
        ({"settings": {"f-number": "f/9.3"}}, SettingRefused, r"has no f-number of f/9\.3, only"),
        ({"settings": {"mirror": "up"}}, SettingRefused, "main: has no setting 'mirror'"),
        ({"image_format": "RAW"}, SettingRefused, "main: has no imageformat to set"),
    ],
)
def test_what_cannot_be_opened_says_why(config, changes, kind, message):
    camera = config.replace(**changes).open("main")
    with pytest.raises(kind, match=message):
        camera.__enter__()
    with pytest.raises(DeviceError, match="is not open"):
        camera.expose(0.01, 0.0, 1.0)


def test_a_camera_by_its_model_and_serial_and_the_survey(config):
    with config.replace(model="Nikon DSC D750", serial="0.1").open("main") as camera:
        assert camera.expose(0.01, 0.0, 5.0).frame_id == 1
    assert gphoto2.survey() == "Nikon DSC D750 at usb:001,001"


def test_a_jpeg_is_taken_only_where_it_is_asked_for(monkeypatch, tmp_path):
    bgr = np.zeros((48, 64, 3), np.uint8)
    bgr[..., 2] = 200
    file = cv2.imencode(".jpg", bgr)[1].tobytes()
    config = counterparts.gphoto2(monkeypatch, tmp_path / "card", file)
    with pytest.raises(SettingRefused, match="main: sent a JPEG, which is not linear: set image_format"):
        config.open("main")._decode(file)
    with config.replace(jpeg=True, pixel_format="RGB8", isolate=True).open("main") as camera:
        frame = camera.expose(0.01, 0.0, 5.0)
    assert frame.pixel_format == "RGB8"
    assert np.abs(frame.dn[10, 10].astype(int) - (200, 0, 0)).max() <= 3
    with pytest.raises(ValidationError, match="a JPEG is RGB8 and not linear"):
        config.replace(pixel_format="RGB8")
    with pytest.raises(ValidationError, match="a JPEG is RGB8 and not linear"):
        config.replace(jpeg=True)
    with pytest.raises(ValidationError, match="a RAW file has a Bayer format"):
        config.replace(pixel_format="Mono14")


def test_iso_is_gain_over_the_base(config, monkeypatch):
    """The virtual camera has none: its f-number plays it, f/16 being ISO 16."""
    monkeypatch.setattr(gphoto2, "_ISO", ("f-number",))
    with config.replace(base_iso=8).open("main") as camera:
        assert camera.expose(0.01, 6.0, 5.0).gain_db == pytest.approx(20 * np.log10(16 / 8))
        assert camera._widget(("f-number",)).get_value() == "f/16"
        with pytest.raises(SettingRefused, match="has no f-number of ISO 80"):
            camera.expose(0.01, 20.0, 5.0)


def test_faults_of_the_camera_by_their_kind(config, monkeypatch):
    with config.open("main") as camera:
        sdk = camera._sdk
        for code, kind, message in (
            (sdk.GP_ERROR_IO_USB_FIND, DeviceLost, "main: .*look at its cable, its switch and its battery"),
            (sdk.GP_ERROR_CAMERA_BUSY, FrameLost, "main: I/O in progress"),
            (sdk.GP_ERROR_IO_USB_CLAIM, FrameLost, "another program holds it"),
        ):

            def fail(*_, code=code):
                raise sdk.GPhoto2Error(code)

            monkeypatch.setattr(camera, "_take", fail)
            with pytest.raises(kind, match=message):
                camera.expose(0.01, 0.0, 5.0)


def test_without_the_packages_it_says_what_to_install(config, monkeypatch):
    real = builtins.__import__

    def missing(name, *rest):
        if name == "gphoto2":
            raise ImportError("No module named 'gphoto2'")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ValueError, match=r"camera main: driver gphoto2 wants .* 'gnomon\[gphoto2\]'"):
        config.open("main")
    assert "pip install" in gphoto2.survey()
