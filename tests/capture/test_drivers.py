"""One contract for every camera, one for every light, and their configurations.

Not tested, since only the hardware shows it: whether a camera's first frame after a change has the old
exposure, USB and network faults, and the time a camera takes to be found again.
"""

import io
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import get_args

import counterparts
import cv2
import isolated_fakes
import light_counterparts
import numpy as np
import pytest
from capture_fakes import CAMERA, LIGHT, BurstCamera, FakeScene, capture
from dome_counterparts import Emulated
from pydantic import TypeAdapter, ValidationError

from capture.devices import (
    Camera,
    CameraLimits,
    DeviceError,
    Identified,
    Light,
    SettingRefused,
    TriggeredCamera,
)
from capture.drivers import CameraConfig, LightConfig, isolated, survey, surveys
from capture.drivers.manual import ManualLight, Terminal
from capture.drivers.replay import ReplayCameraConfig
from capture.drivers.simulated import (
    SimulatedCamera,
    SimulatedCameraConfig,
    SimulatedLight,
    SimulatedLightConfig,
)
from capture.frame import Frame

LIMITS_OF_CAMERA = CAMERA.model_dump()


class Terminals(io.StringIO):
    """A terminal whose person has typed ``text``."""

    def isatty(self):
        return True


def person(answers=1000):
    return Terminal(Terminals("\n" * answers), io.StringIO())


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    path = tmp_path_factory.mktemp("recorded") / "session"
    capture(path, FakeScene())
    return path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Twelve pictures whose names sort wrongly as text; each holds its number."""
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(1, 13):
        ending = ("png", "tif")[number % 2]
        cv2.imwrite(str(folder / f"shot{number}.{ending}"), np.full((6, 8), 300 + number, np.uint16))
    (folder / "notes.txt").write_text("no picture")
    return folder


def replay(path, **changes):
    return ReplayCameraConfig.model_validate(LIMITS_OF_CAMERA | {"path": path} | changes)


# ---------------------------------------------------------------- the contract of cameras


FAMILIES = ["simulated", "burst", "replay session", "replay folder", "isolated", "pylon", "micromanager"]


UNMOVED = {
    "replay session": "a recording is played with its own exposures only",
    "replay folder": "a recording is played with its own exposures only",
    "isolated": "the made-up camera counts, whatever the exposure",
    "pylon": "the picture of Basler's emulation does not follow the exposure",
    "gphoto2": "libgphoto2's virtual camera takes the same file whatever the exposure",
    "opencv": "OpenCV's reader of files has no exposure",
}


@pytest.fixture(params=[*FAMILIES, "gphoto2", "opencv"])
def make_camera(request, recorded, pictures, monkeypatch, tmp_path):
    """Make one unopened camera that can take ``(0.01 s, 0 dB)`` first."""
    return {
        "simulated": lambda: SimulatedCamera("main", CAMERA, FakeScene()),
        "burst": lambda: BurstCamera("main", CAMERA, FakeScene()),
        "replay session": lambda: replay(recorded).open("main"),
        "replay folder": lambda: replay(pictures, exposures_s=0.01).open("main"),
        "isolated": lambda: isolated_fakes.config().open("main"),
        "pylon": lambda: counterparts.pylon(monkeypatch).open("main"),
        "micromanager": lambda: counterparts.micromanager().open("main"),
        "gphoto2": lambda: counterparts.gphoto2(monkeypatch, tmp_path).open("main"),
        "opencv": lambda: counterparts.opencv(tmp_path).open("main"),
    }[request.param]


def test_every_camera_keeps_the_protocol(make_camera):
    camera = make_camera()
    assert isinstance(camera, Camera)
    assert camera.name == "main"
    assert type(camera.limits) is CameraLimits
    assert camera.limits.exposure_min_s <= 0.01 <= camera.limits.exposure_max_s


def test_every_camera_reports_what_it_did(make_camera):
    with make_camera() as camera:
        frame = camera.expose(0.01, 0.0, 1.0)
    assert isinstance(frame, Frame)
    assert (frame.exposure_s, frame.gain_db) == (0.01, 0.0)
    assert frame.pixel_format == camera.limits.pixel_format
    assert frame.dn.shape[:2] == (camera.limits.height, camera.limits.width)
    assert not frame.dn.flags.writeable


def test_a_camera_that_knows_who_it_is_says_so_only_while_open(make_camera):
    camera = make_camera()
    if not hasattr(type(camera), "identity"):
        pytest.skip("a recording and the twin are no camera of a kind; a video device tells nothing")
    with camera:
        assert isinstance(camera, Identified)
        told = dict(camera.identity)
    assert all(isinstance(text, str) and text for text in told.values())
    with pytest.raises(DeviceError, match="is not open"):
        _ = camera.identity


def test_every_camera_counts_its_frames(make_camera):
    settings = [(0.01, 0.0), (0.02, 0.0), (0.04, 0.0)]
    with make_camera() as camera:
        first = camera.expose(*settings[0], 1.0)
        try:
            second = camera.expose(*settings[1], 1.0)
        except SettingRefused:
            second = camera.expose(*settings[0], 1.0)
    assert second.frame_id == first.frame_id + 1
    assert second.timestamp_ns > first.timestamp_ns


def test_every_camera_follows_the_exposure(make_camera, request):
    """Longer is brighter, by what the counterpart shows of it."""
    if reason := UNMOVED.get(getattr(request.node, "callspec", None) and request.node.callspec.id):
        pytest.skip(reason)
    with make_camera() as camera:
        means = [float(camera.expose(exposure_s, 0.0, 5.0).dn.mean()) for exposure_s in (0.002, 0.005, 0.01)]
    assert means[0] < means[1] < means[2]


def test_no_camera_outlasts_its_deadline(make_camera):
    """A tenth of a second is for a computer that is busy with other things."""
    with make_camera() as camera:
        start = time.monotonic()
        camera.expose(0.01, 0.0, 0.5)
        assert time.monotonic() - start < 0.6


def test_no_camera_works_unless_open(make_camera):
    camera = make_camera()
    with pytest.raises(DeviceError, match="main: is not open"):
        camera.expose(0.01, 0.0, 1.0)
    with camera:
        camera.expose(0.01, 0.0, 1.0)
    with pytest.raises(DeviceError, match="main: is not open"):
        camera.expose(0.01, 0.0, 1.0)


def test_every_camera_opens_and_closes_ten_times(make_camera, request):
    """What the first time leaves open belongs to the SDK; later ones leave nothing."""
    open_files = []
    # a process is another each time, and takes a third of a second to start
    for _ in range(3 if "isolated" in request.node.name else 10):
        with make_camera() as camera:
            camera.expose(0.01, 0.0, 1.0)
        open_files.append(counterparts.descriptors())
    assert open_files[-1] == open_files[0]


def test_every_camera_closes_on_an_error(make_camera):
    camera = make_camera()

    def failing():
        with camera:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()
    with pytest.raises(DeviceError, match="is not open"):
        camera.expose(0.01, 0.0, 1.0)


@pytest.mark.skipif(os.name != "posix", reason="a signal to oneself ends the program")
def test_ctrl_c_ends_every_camera_amid_a_frame(make_camera):
    """Wherever it strikes, the camera is closed soon, and can be opened again."""

    def take_on():
        with make_camera() as camera:
            threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGINT)).start()
            with suppress(DeviceError):  # a recording ends
                for _ in range(10):  # nor has the virtual camera of libgphoto2 room for many
                    camera.expose(0.01, 0.0, 2.0)
            time.sleep(5.0)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        start = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            take_on()
        assert time.monotonic() - start < 4
    finally:
        signal.signal(signal.SIGINT, before)
    with make_camera() as camera:
        camera.expose(0.01, 0.0, 2.0)


@pytest.mark.parametrize("driver", ["pylon", "micromanager", "gphoto2", "opencv"])
def test_every_native_camera_runs_in_a_process_of_its_own(driver, monkeypatch, tmp_path):
    config = {
        "pylon": lambda: counterparts.pylon(monkeypatch, isolate=True),
        "micromanager": lambda: counterparts.micromanager(isolate=True),
        "gphoto2": lambda: counterparts.gphoto2(monkeypatch, tmp_path, isolate=True),
        "opencv": lambda: counterparts.opencv(tmp_path, isolate=True),
    }[driver]()
    with config.open("main") as camera:
        assert isinstance(camera, isolated.Isolated)
        frames = [camera.expose(0.01, 0.0, 10.0) for _ in range(2)]
    assert [frame.frame_id - frames[0].frame_id for frame in frames] == [0, 1]
    assert (frames[0].exposure_s, frames[0].pixel_format) == (0.01, camera.limits.pixel_format)
    assert frames[0].dn.shape == (camera.limits.height, camera.limits.width)
    with pytest.raises(DeviceError, match="is not open"):
        camera.expose(0.01, 0.0, 1.0)


def test_bursts_give_a_frame_for_each_setting():
    camera = BurstCamera("main", CAMERA, FakeScene())
    assert isinstance(camera, TriggeredCamera)
    assert not isinstance(SimulatedCamera("main", CAMERA, FakeScene()), TriggeredCamera)
    with camera, closing(camera.burst([(0.01, 0.0), (0.02, 6.0)], 1.0)) as frames:
        assert [(frame.exposure_s, frame.gain_db) for frame in frames] == [(0.01, 0.0), (0.02, 6.0)]


# ---------------------------------------------------------------- the contract of lights


@contextmanager
def simulated_light():
    scene = FakeScene()
    light = SimulatedLight("led1", LIGHT, scene)
    yield light, lambda: scene.levels.get("led1", 0.0)


@contextmanager
def manual_light():
    terminal = person()
    light = ManualLight("led1", LIGHT, terminal=terminal)

    def level():
        said = terminal._writing.getvalue()
        return float(said.rfind("switch on") > said.rfind("switch off"))

    yield light, level


@contextmanager
def dome_light():
    with ExitStack() as stack:
        dome = Emulated(stack)
        yield dome.light(name="led1", **LIGHT.model_dump()), lambda: dome.burning.get(0, 0) / 255


def on_the_wire(make):
    @contextmanager
    def light():
        with light_counterparts.hasty(), make(**LIGHT.model_dump()) as pair:
            yield pair

    light.__name__ = make.__name__
    return light


@pytest.fixture(
    params=[simulated_light, manual_light, dome_light, *map(on_the_wire, light_counterparts.LIGHTS)],
    ids=lambda make: make.__name__,
)
def light_and_level(request):
    with request.param() as pair:
        yield pair


def test_every_light_keeps_the_protocol(light_and_level):
    light, _ = light_and_level
    assert isinstance(light, Light)
    assert (light.name, light.limits) == ("led1", LIGHT)


def test_every_light_burns_and_goes_dark(light_and_level):
    light, level = light_and_level
    with light:
        light.set(1.0)
        assert level() == 1
        light.set(0.0)
        assert level() == 0
        light.set(0.0)


@pytest.mark.parametrize("error", [None, ZeroDivisionError, KeyboardInterrupt])
def test_every_light_is_dark_on_leaving(light_and_level, error):
    light, level = light_and_level

    def use():
        with light:
            light.set(1.0)
            assert level() == 1
            if error:
                raise error

    if error:
        with pytest.raises(error):
            use()
    else:
        use()
    assert level() == 0


def test_no_light_works_unless_open(light_and_level):
    light, _ = light_and_level
    with pytest.raises(DeviceError, match="led1: is not open"):
        light.set(1.0)
    with light:
        pass
    with pytest.raises(DeviceError, match="led1: is not open"):
        light.set(0.0)


@pytest.mark.parametrize("level", [-0.1, 1.1, float("nan")])
def test_every_light_refuses_a_level_outside_0_to_1(light_and_level, level):
    light, _ = light_and_level
    with light, pytest.raises(ValueError, match="outside 0 to 1"):
        light.set(level)


def test_every_light_opens_and_closes_ten_times(light_and_level):
    light, level = light_and_level
    for _ in range(10):
        with light:
            light.set(1.0)
        assert level() == 0


# ---------------------------------------------------------------- configurations


def members(union):
    return get_args(get_args(union)[0])


@pytest.mark.parametrize("union", [CameraConfig, LightConfig])
def test_every_configuration_carries_its_limits_and_opens_itself(union):
    for member in members(union):
        assert callable(member.open)
        assert isinstance(member.limits, property)
        assert member.model_config["extra"] == "forbid"
        assert member.model_fields["driver"].default


@pytest.mark.parametrize(
    ("union", "value", "place"),
    [
        (CameraConfig, LIMITS_OF_CAMERA | {"driver": "genikam"}, "genikam"),
        (CameraConfig, LIMITS_OF_CAMERA, "driver"),
        (
            CameraConfig,
            LIMITS_OF_CAMERA | {"driver": "simulated", "exposure_max": 3},
            "simulated.exposure_max",
        ),
        (LightConfig, {"driver": "simulated", "settle_ms": 3}, "simulated.settle_ms"),
        (LightConfig, {"driver": "manual", "max_duty": 2}, "manual.max_duty"),
    ],
)
def test_a_wrong_configuration_is_told_with_its_place(union, value, place):
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(union).validate_python(value)
    told = [".".join(map(str, error["loc"])) + " " + error["msg"] for error in caught.value.errors()]
    assert len(told) == 1
    assert place in told[0]


def test_a_simulated_device_needs_a_scene():
    camera = TypeAdapter(CameraConfig).validate_python(LIMITS_OF_CAMERA | {"driver": "simulated"})
    assert isinstance(camera, SimulatedCameraConfig)
    assert camera.limits == CAMERA
    message = r"^camera main has driver simulated: open the rig with --simulate TRUTH$"
    with pytest.raises(ValueError, match=message):
        camera.open("main")
    with pytest.raises(
        ValueError, match=r"^light led1 has driver simulated: open the rig with --simulate TRUTH$"
    ):
        SimulatedLightConfig().open("led1")


def test_importing_the_drivers_loads_no_sdk_and_prints_nothing():
    script = (
        "import sys, capture.drivers, capture.runner\n"
        "sdks = {'cv2', 'serial', 'harvesters', 'genicam', 'OpenEXR', 'pypylon', 'gphoto2', 'rawpy'}\n"
        "loaded = (sdks | {'pymmcore', 'pymmcore_plus'}) & set(sys.modules)\n"
        "assert not loaded, loaded"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_survey_names_every_driver(monkeypatch):
    monkeypatch.setattr(surveys, "ask", lambda modules: dict.fromkeys(modules, "asked"))
    drivers = {
        member.model_fields["driver"].default
        for union in (CameraConfig, LightConfig)
        for member in members(union)
    }
    assert {line.split()[0] for line in survey()} == drivers
