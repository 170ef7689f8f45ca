"""Three coloured lamps in one frame, on the twin of the shipped RGB bench: normals of one shot."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from calibration.files import load_model, save_model
from calibration.geometry import angle_deg
from calibration.lights.model import DistantLight, LightSet
from calibration.photometric import Multiplex, solve
from calibration.provenance import FitError, Provenance
from calibration.radiometric import RadiometricModel
from capture.plan import Block, CapturePlan, ExposureBracket, LightSequence
from capture.session import Session
from rigs import workflows
from rigs.config import load_plan, load_rig
from rigs.simulated import Truth, Twin, load_truth

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
LAMPS = ("red", "green", "blue")
TOGETHER = "red+green+blue"
TINT = np.array([1.0, 0.8, 0.65])  # of the relief, in the truth


@pytest.fixture(scope="module")
def truth() -> Truth:
    return load_truth(CONFIGS / "truths/rgb-bench.yaml")


@pytest.fixture(scope="module")
def lights(truth: Truth) -> LightSet:
    """The true lights as the camera's channels see them."""
    matrix = np.array(truth.cameras["top"].sensor.colour_matrix)
    return LightSet(
        lights={
            name: light.replace(intensity=tuple(matrix @ np.broadcast_to(light.intensity, 3)))
            for name, light in truth.light_models().items()
        }
    )


@pytest.fixture(scope="module")
def sensor(truth: Truth) -> RadiometricModel:
    known = truth.cameras["top"].sensor
    return RadiometricModel(
        width=480, height=360, pixel_format=known.pixel_format, black_dn=known.black_dn,
        gain_dn_per_e=known.gain_dn_per_e, read_noise_e=known.read_noise_e,
        dark_current_e_s=known.dark_current_e_s, saturation_dn=4095,
    )  # fmt: skip


@pytest.fixture(scope="module")
def session(truth: Truth, tmp_path_factory: pytest.TempPathFactory) -> Session:
    """The shipped plan, and in another pose the same relief under each lamp alone."""
    plan = load_plan(CONFIGS / "plans/rgb-relief.yaml")
    apart = {
        "cameras": ("top",),
        "pose": ("apart",),
        "bracket": ExposureBracket(exposures_s=(0.015,)),
    }
    blocks = (
        *plan.blocks,
        Block(kinds=("ambient",), repeats=2, **apart),
        Block(kinds=("object",), lights=LightSequence(names=LAMPS), **apart),
    )
    twice = truth.replace(poses={**truth.poses, "apart": truth.poses["relief"]})
    return workflows.capture_session(
        load_rig(CONFIGS / "rigs/rgb-bench.yaml"),
        plan.replace(blocks=blocks),
        tmp_path_factory.mktemp("rgb") / "s",
        simulate=twice,
    )


@pytest.fixture(scope="module")
def mask(truth: Truth) -> Any:
    return Twin(truth).maps("relief", "top").thing == 0


@pytest.fixture(scope="module")
def result(session: Session, lights: LightSet, sensor: RadiometricModel, mask: Any) -> Any:
    return workflows.reconstruct(session, lights, sensor=sensor, mask=mask, pose="relief")


def test_a_plan_lights_lamps_together() -> None:
    sequence = LightSequence(names=LAMPS, level=0.5, together=True)
    block = Block(
        kinds=("object",), pose=("p",), cameras=("c",), lights=sequence,
        bracket=ExposureBracket(exposures_s=(0.1, 0.2)),
    )  # fmt: skip
    shots = CapturePlan(name="p", blocks=(block,)).shots()
    assert [shot.lights for shot in shots] == [dict.fromkeys(LAMPS, 0.5)] * 2
    assert shots[0].light == TOGETHER
    # Plans that do not use it keep their text, and their digest.
    assert "together" not in LightSequence(names=LAMPS).model_dump()


def test_one_frame_gives_normals_within_their_sigma(result: Any, truth: Truth, mask: Any) -> None:
    normals = result.reconstruction.normals
    assert normals.method == "least-squares"
    assert normals.valid[mask].mean() > 0.99
    off = angle_deg(normals.normals, Twin(truth).maps("relief", "top").normals)
    ratio = np.sqrt(np.nanmean((off[mask] / normals.sigma_deg[mask]) ** 2))
    assert ratio == pytest.approx(1, abs=0.05)
    assert off[mask & normals.valid].mean() < 2.0
    # The lamps shine by a few percent in each other's bands, where the object has another albedo.
    assert result.multiplex.chromaticity == pytest.approx(tuple(TINT / TINT.mean()), rel=0.03)


def test_it_agrees_with_frames_taken_apart(
    result: Any, session: Session, truth: Truth, sensor: RadiometricModel, mask: Any
) -> None:
    images = workflows.light_images(session, "object", sensor=sensor, pose="apart")
    assert images.names == LAMPS
    matrix, lamps = np.array(truth.cameras["top"].sensor.colour_matrix), truth.light_models()
    shown = {name: matrix @ (np.array(lamps[name].intensity) * TINT) for name in LAMPS}
    apart = solve(
        images.value.sum(axis=-1),
        images.variance.sum(axis=-1),
        [lamps[name].replace(intensity=(float(shown[name].sum()),)) for name in LAMPS],
        mask=mask,
        method="least-squares",
    )
    once = result.reconstruction.normals
    both = once.valid & apart.valid & mask
    off = angle_deg(once.normals[both], apart.normals[both])
    sigma = np.hypot(once.sigma_deg[both], apart.sigma_deg[both])
    # Noise alone differs between the two.
    assert np.sqrt(np.mean((off / sigma) ** 2)) == pytest.approx(1, abs=0.05)
    # What one frame costs: less light a channel, and the crosstalk.
    assert 1 < np.median(once.sigma_deg[both] / apart.sigma_deg[both]) < 2


def test_the_command_says_what_it_did(
    gnomon: Any, session: Session, lights: LightSet, sensor: RadiometricModel, mask: Any, tmp_path: Path
) -> None:
    save_model(tmp_path / "lights.json", lights)
    save_model(tmp_path / "sensor.json", sensor)
    words = ("--lights", tmp_path / "lights.json", "--sensor", tmp_path / "sensor.json", "--pose", "relief")
    done = gnomon("reconstruct", session.path, *words, "--out", tmp_path / "out")
    assert done.code == 0
    assert len(done.err.splitlines()) == 1
    assert "warning: 3 lights: " in done.err
    assert f"{TOGETHER}: unmixed by the lamps' colours, albedo of the object for each 1.2" in done.out
    kept = load_model(tmp_path / "out" / "models" / "multiplex.json", Multiplex)
    assert kept.lights == LAMPS
    assert kept.provenance.session == session.digest
    done = gnomon("reconstruct", session.path, *words, "--out", tmp_path / "no", "--intensities", "estimated")
    assert done.code == 4
    assert "3 lights: three samples a pixel give its normal" in done.err


def test_what_cannot_be_unmixed_is_refused(
    session: Session, lights: LightSet, sensor: RadiometricModel
) -> None:
    def refused(message: str, given: LightSet) -> None:
        with pytest.raises(FitError, match=message):
            workflows.reconstruct(session, given, sensor=sensor, pose="relief")

    refused("how strong the lamps are", lights.replace(provenance=Provenance(options={"intensity": "equal"})))
    plain = {name: light.replace(intensity=(1e6,)) for name, light in lights.lights.items()}
    refused("the colour of lamp red is not known", lights.replace(lights=plain))
    without = {name: light for name, light in lights.lights.items() if name != "white"}
    refused("the light model has no white", lights.replace(lights=without))
    unlit = {"red": DistantLight(direction=(0.0, 0.0, -1.0))}
    refused(r"the light model has no red\+green\+blue", LightSet(lights=unlit))
