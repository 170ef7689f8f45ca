"""A mini rig: the shipped dome's geometry at a quarter of its resolution, captured once and shared."""

import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from calibration import files
from calibration.lens import LensModel
from calibration.radiometric import RadiometricModel
from capture.session import Session
from rigs import cli, workflows
from rigs.config import RigConfig, load_plan, load_rig
from rigs.simulated import Truth, Twin, load_truth

# Behind a shell's `&`, where it is ignored, what the tests start would ignore it too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
SHRINK = 4
WIDTH, HEIGHT = 1920 // SHRINK, 1200 // SHRINK
LIGHTS = tuple(f"led{number:02d}" for number in range(1, 13))
VIEWS = 12
BOARD = {
    "kind": "charuco",
    "columns": 5,
    "rows": 4,
    "square_mm": 23,
    "marker_mm": 11.5,
    "dictionary": "DICT_4X4_50",
}
PLANS = ("sensor", "lens", "lights", "relief", "glossy")


def shipped(name: str) -> dict[str, Any]:
    """A shipped YAML file as plain data, to be changed."""
    data: dict[str, Any] = yaml.safe_load((CONFIGS / name).read_text())
    return data


def dump(path: Path, data: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    return path


def rig_data() -> dict[str, Any]:
    data = shipped("rigs/dome.yaml")
    data["cameras"]["top"] |= {"width": WIDTH, "height": HEIGHT, "readout_s": 0.0}
    data["lights"][f"{LIGHTS[0]}..{LIGHTS[-1]}"] = data["lights"].pop("led01..led24")
    data["targets"] |= {"board": BOARD, "board_margin_mm": 1.0, "spheres": {"count": 4, "diameter_mm": 32}}
    return data


def truth_data() -> dict[str, Any]:
    data = shipped("truths/dome.yaml")
    camera = data["cameras"]["top"]
    camera["seed"] = 5  # the pattern of the sensor stays when a test changes the truth's seed
    lens = camera["lens"]
    lens |= {"width": WIDTH, "height": HEIGHT, "fx": lens["fx"] / SHRINK, "fy": lens["fy"] / SHRINK}
    lens |= {name: (lens[name] + 0.5) / SHRINK - 0.5 for name in ("cx", "cy")}
    generate, poses, bounds = data["generate"], data["poses"], data["bounds"]
    generate["dome"]["rings"] = [
        {"count": 5, "elevation_deg": 66, "distance_mm": [450, 600], "phase_deg": 12},
        {"count": 7, "elevation_deg": 42, "distance_mm": [320, 450], "phase_deg": 3},
    ]
    generate["boards"] |= {"board": BOARD, "columns": 4, "rows": 3}
    for thing in poses["spheres"]:
        if thing["kind"] == "board":
            thing |= {"board": BOARD, "translation_mm": [-57.9, -45.8, 460], "margin_mm": 1.0}
        elif thing["kind"] == "sphere":
            # larger and further apart: a ball of 20 px radius beside the board's shadow is hard to detect
            x, y, z = thing["centre_mm"]
            thing |= {"centre_mm": [1.1 * x, 1.06 * y, z], "radius_mm": 16}
    for name in ("relief", "glossy"):
        poses[name][0]["cell_mm"] = 1.0
    # Corners are found to the same fraction of a pixel, so angles are SHRINK times as uncertain; and there
    # are fewer of them: 12 views of 12 in place of 20 of 70.
    fewer = ((20 * 70) / (VIEWS * 12)) ** 0.5
    bounds["focal_percent"] *= SHRINK * fewer
    bounds["principal_point_px"] *= fewer
    # Outlines and highlights too: an error in px is the larger an angle, the smaller the ball looks. And what
    # a lamp is taken to be away goes into its intensity.
    smaller = (12 * SHRINK) / 16
    for name in ("light_position_median_mm", "light_position_max_mm", "light_intensity_percent"):
        bounds[name] *= smaller
    return data


def plan_data(name: str) -> dict[str, Any]:
    data = shipped(f"plans/dome-{name}.yaml")
    for block in data["blocks"]:
        if (block.get("lights") or {}).get("names") == "led01..led24":
            block["lights"]["names"] = f"{LIGHTS[0]}..{LIGHTS[-1]}"
    if name == "lens":
        data["blocks"][0]["pose"] = f"board-01..board-{VIEWS}"
    if name == "lights":
        # Radiance is per pixel, of SHRINK**2 the dome's solid angle; the highlight is one point, which adds
        # 1 / SHRINK**2 as much to it.
        data["blocks"][0]["bracket"]["exposures_s"] = [1.0e-4, 0.02]
    return data


@dataclass(frozen=True)
class MiniRig:
    """Files of a rig, its truth and its plans in one folder, as a user would have them."""

    folder: Path

    @property
    def rig(self) -> Path:
        return self.folder / "rig.yaml"

    @property
    def truth(self) -> Path:
        return self.folder / "truth.yaml"

    @property
    def plans(self) -> Path:
        return self.folder / "plans"

    def plan(self, name: str) -> Path:
        return self.plans / f"dome-{name}.yaml"

    @property
    def config(self) -> RigConfig:
        return load_rig(self.rig)

    @property
    def known(self) -> Truth:
        return load_truth(self.truth)

    def capture(self, name: str, path: Path, truth: Truth | None = None) -> Session:
        plan = load_plan(self.plan(name))
        return workflows.capture_session(self.config, plan, path, simulate=truth or self.known)


@pytest.fixture(scope="session")
def mini(tmp_path_factory: pytest.TempPathFactory) -> MiniRig:
    """The mini rig's files; never changed by a test."""
    rig = MiniRig(tmp_path_factory.mktemp("mini"))
    dump(rig.rig, rig_data())
    dump(rig.truth, truth_data())
    for name in PLANS:
        dump(rig.plan(name), plan_data(name))
    return rig


@pytest.fixture(scope="session")
def twin(mini: MiniRig) -> Twin:
    """The twin that knows the mini rig's truth; for questions only."""
    return Twin(mini.known, mini.config.limits.cameras)


Captured = Callable[[str], Session]


@pytest.fixture(scope="session")
def captured(mini: MiniRig, tmp_path_factory: pytest.TempPathFactory) -> Captured:
    """``captured(name)``: the session of a plan of the mini rig, taken when first asked for; to read only."""
    folder = tmp_path_factory.mktemp("sessions")
    return cache(lambda name: mini.capture(name, folder / name))


class Models(NamedTuple):
    """Models calibrated from the mini rig's sessions, and the folder that holds their files."""

    folder: Path
    sensor: RadiometricModel
    lens: LensModel
    lights: workflows.LightsResult

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.json"


def calibrate(
    mini: MiniRig, captured: Captured
) -> tuple[RadiometricModel, LensModel, workflows.LightsResult]:
    targets = mini.config.targets
    sensor = workflows.calibrate_sensor(captured("sensor"))
    lens = workflows.calibrate_lens(captured("lens"), targets.board, model="brown-5", sensor=sensor)
    lights = calibrate_lights(mini, captured("lights"), sensor, lens)
    return sensor, lens, lights


def calibrate_lights(
    mini: MiniRig, session: Session, sensor: RadiometricModel, lens: LensModel
) -> workflows.LightsResult:
    targets = mini.config.targets
    return workflows.calibrate_lights(
        session,
        targets.spheres,
        sensor=sensor,
        lens=lens,
        board=targets.board,
        board_reflectance=targets.board_reflectance,
        board_margin_mm=targets.board_margin_mm,
    )


@pytest.fixture(scope="session")
def models(mini: MiniRig, captured: Captured, tmp_path_factory: pytest.TempPathFactory) -> Models:
    found = Models(tmp_path_factory.mktemp("models"), *calibrate(mini, captured))
    for name, model in (("sensor", found.sensor), ("lens", found.lens), ("lights", found.lights.lights)):
        files.save_model(found.path(name), model)
    return found


@pytest.fixture(scope="session")
def relief(captured: Captured, models: Models) -> workflows.Result:
    """The relief, reconstructed with the calibrated models."""
    return workflows.reconstruct(
        captured("relief"), models.lights.lights, sensor=models.sensor, lens=models.lens
    )


class Answer(NamedTuple):
    """What a command said and how it ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def gnomon(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """``gnomon("rig", "check", path)``: the command in this process; a traceback is a failure of the test."""

    def run(*words: object) -> Answer:
        monkeypatch.setattr(sys, "argv", ["gnomon", *map(str, words)])
        capfd.readouterr()
        code: object = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code or 0
        assert isinstance(code, int)
        out, err = capfd.readouterr()
        return Answer(code, out, err)

    return run
