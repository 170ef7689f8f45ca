"""Write the golden session, models and shots anew, after a change of format that is meant.

Then raise the format's number, say so in the changelog, and test that old files are refused clearly.
"""

import csv
import shutil
from pathlib import Path

import numpy as np

from calibration import files
from calibration.lens import BrownConrady
from calibration.lens.model import BoardShape
from calibration.lights.model import DistantLight, LightSet, NearLight
from calibration.provenance import Model, Provenance, Quality
from calibration.radiometric import RadiometricModel
from capture.frame import Frame
from capture.plan import CapturePlan, Shot
from capture.session import Session
from rigs.config import load_plan

HERE = Path(__file__).parent
SHAPE = (4, 6)
PROVENANCE = Provenance(session="5e5510", code_version="0.1.0", options={"method": "robust", "lights": 2})
QUALITY = Quality(residual_rms=0.25, unit="px", observations=10, verdict="good", warnings=("one",))


def pixels(shot: Shot) -> np.ndarray:
    """What the golden frame of a shot holds."""
    return (np.arange(24, dtype=np.uint16).reshape(SHAPE) * 100 + shot.index).astype(np.uint16)


def small_plan() -> CapturePlan:
    return CapturePlan.model_validate(
        {
            "name": "golden-session",
            "blocks": [
                {
                    "kinds": "object",
                    "pose": "cat",
                    "cameras": "left",
                    "lights": {"names": "led1..led2"},
                    "bracket": {"exposures_s": [0.01, 0.1]},
                }
            ],
        }
    )


def earlier_lens() -> BrownConrady:
    """What ``lens-earlier.json`` says: of a time without k4 to k6 and the board's shape."""
    return BrownConrady(
        width=6, height=4, fx=7.5, fy=7.25, cx=2.5, cy=1.5, k1=-0.1, p2=1e-4,
        covariance=np.diag(np.arange(1.0, 10.0)), quality=QUALITY, provenance=PROVENANCE,
    )  # fmt: skip


def models() -> dict[str, Model]:
    """One model of each kind that is kept in files, with every kind of field: arrays, NaN, nothing."""
    grid = np.arange(24, dtype=np.float32).reshape(SHAPE)
    provenance, quality = PROVENANCE, QUALITY
    lens = earlier_lens().replace(
        k4=0.01, covariance=np.diag(np.arange(1.0, 13.0)), views=np.array([[0.1, 0.2, 0.3, 4.0, 5.0, 600.0]]),
        observations=np.array(
            [[-1, 10, 20, 0, 1, 2, 0.5, -0.25, 0.1], [0, 20, 20, 0, 3, 2, 0.1, 0, np.nan]]
        ),
        board=BoardShape(warp_mm=(0.25, -0.5), centre_mm=(10.0, 20.0), half_mm=(40.0, 30.0)),
    )  # fmt: skip
    lights = LightSet(
        lights={
            "led1": NearLight(
                position_mm=(1.0, -2.0, 3.5), intensity=(4.0,), axis=(0.0, 0.6, 0.8), order=1.5,
                covariance=np.diag([1.0, 2.0, 3.0]),
            ),
            "led2": DistantLight(direction=(0.0, -0.6, -0.8), intensity=(1.0, 2.0, 3.0)),
        },
        scene_depth_mm=450.0,
        quality=quality,
        provenance=provenance,
    )  # fmt: skip
    sensor = RadiometricModel(
        width=6, height=4, pixel_format="Mono12", black_dn=64.0, gain_dn_per_e=0.125, read_noise_e=7.0,
        saturation_dn=4095.0, dark_map=np.where(grid == 5, np.nan, grid), flat_map=1 + grid / 100,
        defects=grid > 22, quality=quality, provenance=provenance,
    )  # fmt: skip
    return {"lens": lens, "lights": lights, "sensor": sensor}


def shots_table(plan: CapturePlan) -> list[list[str]]:
    rows = [["index", "kinds", "pose", "camera", "light", "level", "exposure_s", "gain_db", "repeat"]]
    for shot in plan.shots():
        level = "" if not shot.lights else f"{next(iter(shot.lights.values())):g}"
        rows.append(
            [str(shot.index), "+".join(shot.kinds), shot.pose, shot.camera, shot.light, level,
             f"{shot.exposure_s:g}", f"{shot.gain_db:g}", str(shot.repeat)]
        )  # fmt: skip
    return rows


def main() -> None:
    session_path = HERE / "session"
    shutil.rmtree(session_path, ignore_errors=True)
    session = Session.create(session_path, small_plan(), {"name": "golden"}, {"why": "format"})
    with session.writer() as writer:
        for shot in session.pending():
            if shot.index == 2:
                writer.skip(shot, "no frame came", attempts=3)
                continue
            writer.put(
                shot,
                Frame(
                    dn=pixels(shot), pixel_format="Mono12", exposure_s=shot.exposure_s, gain_db=0.0,
                    frame_id=shot.index, timestamp_ns=1000 * shot.index, black_level_dn=64.0,
                    temperature_c=27.5,
                ),
            )  # fmt: skip
    session.finish()
    (session_path / "session.lock").unlink()
    for name, model in models().items():
        files.save_model(HERE / f"{name}.json", model)
    with open(HERE / "shots.csv", "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(shots_table(load_plan(HERE / "plan.yaml")))


if __name__ == "__main__":
    main()
