"""The benchmark on real data prepares its folders rightly, and says so where the data are absent."""

import os
import subprocess
import sys
from pathlib import Path

import commands
import emva
import numpy as np
import objects
import pytest
import real

from rigs.interchange import read_manifest

SCRIPT = Path(__file__).with_name("real.py")


def test_absent_data_are_said_and_are_no_failure(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT)],
        env={**os.environ, "GNOMON_DATA": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"not in {tmp_path}") == 11


def test_a_command_that_fails_is_a_row_that_misses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(data: Path, work: Path) -> None:
        raise commands.CommandError("gnomon import folder: row 2")

    monkeypatch.setitem(real.SETS, "memorial", fails)
    (row,) = real.run("memorial", tmp_path, tmp_path)
    assert row.passed is False
    assert "MISSED" in real.table([row])
    assert "row 2" in real.table([row])


def test_a_mask_of_a_ball_gives_its_normals() -> None:
    y, x = np.mgrid[:101, :121] - np.array([50, 60]).reshape(2, 1, 1)
    normals = objects.ball_normals(x**2 + y**2 < 40**2)
    assert np.allclose(normals[50, 60], [0, 0, -1])
    # The radius comes from the area: exact to half a pixel's rim, here 0.2 % of the area.
    assert np.allclose(normals[50, 80], [0.5, 0, -np.sqrt(0.75)], atol=2e-3)
    assert np.isnan(normals[0, 0]).all()


@pytest.mark.parametrize(
    ("name", "frames"),
    [("lens/bouguet", 20), ("memorial", 16), ("diligent/ballPNG", 96), ("psm", 12)],
)
def test_each_set_becomes_a_manifest_that_is_read(name: str, frames: int, tmp_path: Path) -> None:
    data = real.find_data() / name
    if not data.is_dir():
        pytest.skip(f"{data} is absent: set GNOMON_DATA")
    rows = {
        "lens/bouguet": real.bouguet_rows,
        "memorial": real.memorial_rows,
        "diligent/ballPNG": objects.diligent_rows,
        "psm": lambda folder: objects.psm_rows(folder, "gray", "object"),
    }[name](data)
    read = read_manifest(commands.write_manifest(tmp_path / "photos", rows))
    assert len(read) == frames


def test_published_numbers_are_judged_by_their_own_bounds(tmp_path: Path) -> None:
    path = tmp_path / "results.xml"
    path.write_text(
        "<results><sensitivity><K><Value>0.28</Value></K><R><Value></Value></R></sensitivity>"
        "<linearity><LE_min><Value>-0.6</Value></LE_min></linearity></results>"
    )
    assert emva.published(path) == {"K": 0.28, "LE_min": -0.6}
    for name, value, truth, passed in (
        ("K", 0.2827, 0.28, True),
        ("K", 0.2829, 0.28, False),
        ("LE_min", -0.619, -0.6, True),
        ("LE_min", -0.621, -0.6, False),
        ("PRNU1288", None, 0.4, False),
        ("u_I_var", 70.0, 8.0, None),
    ):
        assert emva.compare(name, name, value, None, "", truth).passed is passed, (name, value)


def test_the_published_numbers_of_set_001_are_met(tmp_path: Path) -> None:
    data = real.find_data()
    if not (data / "emva1288/set001").is_dir():
        pytest.skip(f"{data}/emva1288/set001 is absent: set GNOMON_DATA")
    rows = real.run("emva1288/set001", data, tmp_path)
    judged = [row for row in rows if row.passed is not None]
    assert len(judged) == 18
    assert not [row.quantity for row in judged if not row.passed], real.table(rows)
