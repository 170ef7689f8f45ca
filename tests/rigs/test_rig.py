"""Opening a rig: what is refused, who is closed, what is dark."""

import threading
from contextlib import nullcontext

import conftest
import numpy as np
import pytest

from capture.devices import Camera, DeviceError, Light
from capture.plan import Block, CapturePlan, ExposureBracket, LightSequence, Shot
from capture.session import SessionError
from rigs import workflows
from rigs.config import ConfigError, RigConfig, load_rig
from rigs.rig import open_rig, told_of
from rigs.simulated import Twin


@pytest.fixture
def twins(monkeypatch):
    made = []

    class Kept(Twin):
        def __init__(self, *words, **named):
            super().__init__(*words, **named)
            self.levels = {}
            made.append(self)

        def set_light(self, name, level):
            super().set_light(name, level)
            self.levels[name] = level

    monkeypatch.setattr("rigs.rig.Twin", Kept)
    return made


def take(rig, light, exposure_s=0.02):
    rig.operator.show("relief", "")
    rig.lights[light].set(1.0)
    frame = rig.cameras["top"].expose(exposure_s, 0.0, 1.0)
    rig.lights[light].set(0.0)
    return frame


def test_a_simulated_rig_has_every_device_of_its_file(mini):
    config = mini.config
    with open_rig(config, mini.known) as rig:
        assert rig.config == config
        assert list(rig.cameras) == ["top"]
        assert list(rig.lights) == list(config.lights)
        assert all(isinstance(camera, Camera) for camera in rig.cameras.values())
        assert all(isinstance(light, Light) for light in rig.lights.values())
        frame = take(rig, "led01")
        assert frame.dn.shape == (conftest.HEIGHT, conftest.WIDTH)
        assert frame.exposure_s == 0.02


@pytest.mark.parametrize("error", [None, RuntimeError("ours"), KeyboardInterrupt(), GeneratorExit()])
def test_dark_and_closed_however_it_is_left(mini, twins, error):
    kept = None
    with pytest.raises(type(error)) if error else nullcontext(), open_rig(mini.config, mini.known) as rig:
        kept = rig
        rig.operator.show("relief", "")
        for light in ("led01", "led02", "panel"):
            rig.lights[light].set(1.0)
        if error is not None:
            raise error
    (twin,) = twins
    assert set(twin.levels) == set(mini.config.lights)
    assert not any(twin.levels.values())
    with pytest.raises(DeviceError, match="not open"):
        kept.cameras["top"].expose(0.02, 0.0, 1.0)
    with pytest.raises(DeviceError, match="not open"):
        kept.lights["led01"].set(1.0)


def test_noise_goes_on_after_what_was_taken(mini):
    """A rig that is opened anew answers the second request of a kind as the first one would have."""
    with open_rig(mini.config, mini.known) as rig:
        first, second = (take(rig, "led02").dn for _ in range(2))
    shot = Shot(index=0, kinds="object", pose="relief", camera="top", lights={"led02": 1.0}, exposure_s=0.02)
    with open_rig(mini.config, mini.known, taken=[shot]) as rig:
        assert np.array_equal(take(rig, "led02").dn, second)
    assert not np.array_equal(first, second)


@pytest.mark.parametrize(
    ("camera", "words"),
    [
        ({"width": 481}, "cameras.top: the rig says 481 x 300, the truth's lens 480 x 300"),
        ({"pixel_format": "Mono8"}, "cameras.top: the rig says Mono8, the truth's sensor gives Mono12"),
    ],
)
def test_a_truth_of_another_camera_is_refused(mini, camera, words):
    data = conftest.rig_data()
    data["cameras"]["top"] |= camera
    with pytest.raises(ConfigError, match=words), open_rig(RigConfig.model_validate(data), mini.known):
        pass


def test_a_simulated_device_wants_a_truth(mini):
    with pytest.raises(ConfigError, match="--simulate TRUTH"), open_rig(mini.config):
        pass


def test_what_is_open_is_closed_when_a_later_device_cannot_be(mini, captured):
    """A camera that replays a session opens; the simulated light beside it does not without a truth."""
    data = conftest.rig_data()
    simulated = data["cameras"]["top"]
    limits = {name: simulated[name] for name in ("width", "height", "exposure_min_s", "exposure_max_s")}
    data["cameras"]["top"] = {"driver": "replay", "path": str(captured("relief").path), **limits}
    config = RigConfig.model_validate(data)
    closed = []
    kind = type(config.cameras["top"].open("top"))
    leave = kind.__exit__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, "__exit__", lambda self, *words: closed.append(self.name) or leave(self, *words))
        with pytest.raises(ConfigError, match=r"led01|panel"), open_rig(config):
            pass
    assert closed == ["top"]


def test_two_runs_never_share_a_device(captured, monkeypatch, tmp_path):
    """Whatever the rig files call it; and it is free again once the first has ended."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    data = conftest.rig_data()
    replay = data["cameras"]["top"] | {"driver": "replay", "path": str(captured("relief").path)}
    one, other = (
        RigConfig.model_validate({"name": name, "cameras": {name: replay}}) for name in ("bench", "desk")
    )
    monkeypatch.setattr(type(one.cameras["bench"]), "address", property(lambda self: "camera 0042"))
    for _ in range(2):
        with (
            open_rig(one),
            pytest.raises(SessionError, match=r"^desk: another run of gnomon has camera 0042: wait"),
            open_rig(other),
        ):
            pass
    with open_rig(other):
        pass


def test_one_camera_under_two_names_is_told_once_it_is_open(captured, monkeypatch):
    """As emulations allow it: the file gives one its serial number and leaves the other to be found."""
    data = conftest.rig_data()
    replay = data["cameras"]["top"] | {"driver": "replay", "path": str(captured("relief").path)}
    config = RigConfig.model_validate({"name": "bench", "cameras": {"left": replay, "right": replay}})
    serials = {"left": "1", "right": "2"}
    identity = property(lambda self: {"model": "A7", "serial": serials[self.name]})
    monkeypatch.setattr(type(config.cameras["left"].open("left")), "identity", identity, raising=False)
    with open_rig(config):
        pass
    serials["right"] = "1"
    with pytest.raises(DeviceError, match=r"^right: is A7 1, and so is left"), open_rig(config):
        pass


def test_half_a_sequence_is_told(gnomon, tmp_path):
    """Lights that the camera's signal steps, and a camera that has none."""
    data = conftest.shipped("rigs/led-dome.yaml")
    for light in data["lights"].values():
        light["sequence"] = True
    answer = gnomon("rig", "check", conftest.dump(tmp_path / "rig.yaml", data))
    assert "lights have `sequence: true` and no camera has" in answer.err
    for camera in data["cameras"].values():
        camera |= {"driver": "genicam", "trigger": "free", "sequence": True}
    answer = gnomon("rig", "check", conftest.dump(tmp_path / "rig.yaml", data))
    assert answer.err == ""


def test_a_device_that_takes_long_to_open_is_named(monkeypatch):
    told = []
    heard = threading.Event()

    class Person:
        def tell(self, message):
            told.append(message)
            heard.set()

    monkeypatch.setattr("rigs.rig.TOLD_S", 0.001)
    with told_of(Person(), "camera top", "pylon"):
        assert heard.wait(10)
    assert told == [
        "camera top: still opening (driver pylon): look at its power and cable, or stop with Ctrl-C"
    ]


@pytest.mark.parametrize(("prompt", "asked"), [(None, "put 'desk' in view"), ("", "switch on lamp")])
def test_where_nobody_can_be_asked_nothing_is_opened_and_no_folder_is_left(tmp_path, prompt, asked):
    """A pose, or a lamp that a person switches."""
    lit = Block(
        kinds="object",
        pose="desk",
        prompt=prompt,
        cameras="top",
        lights=LightSequence(names="lamp"),
        bracket=ExposureBracket(exposures_s=0.01),
    )
    config = load_rig(conftest.CONFIGS / "rigs/pylon.yaml")
    with pytest.raises(DeviceError, match=f"operator: cannot ask a person to .{asked}.: .* not a terminal"):
        workflows.capture_session(config, CapturePlan(name="one", blocks=(lit,)), tmp_path / "session")
    assert not (tmp_path / "session").exists()
