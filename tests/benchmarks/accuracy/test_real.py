"""The benchmark on real data prepares its folders rightly, and says so where the data are absent."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from rigs.interchange import read_manifest

SCRIPT = Path(__file__).with_name("real.py")


@pytest.fixture(scope="module")
def real() -> ModuleType:
    spec = importlib.util.spec_from_file_location("real", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_absent_data_are_said_and_are_no_failure(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT)],
        env={**os.environ, "GNOMON_DATA": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"not in {tmp_path}") == 6


def test_a_command_that_fails_is_a_row_that_misses(
    real: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(data: Path, work: Path) -> None:
        raise real.CommandError("gnomon import folder: row 2")

    monkeypatch.setitem(real.SETS, "memorial", fails)
    (row,) = real.run("memorial", tmp_path, tmp_path)
    assert row.passed is False
    assert "MISSED" in real.table([row])
    assert "row 2" in real.table([row])


def test_a_mask_of_a_ball_gives_its_normals(real: ModuleType) -> None:
    y, x = np.mgrid[:101, :121] - np.array([50, 60]).reshape(2, 1, 1)
    normals = real.ball_normals(x**2 + y**2 < 40**2)
    assert np.allclose(normals[50, 60], [0, 0, -1])
    # The radius comes from the area: exact to half a pixel's rim, here 0.2 % of the area.
    assert np.allclose(normals[50, 80], [0.5, 0, -np.sqrt(0.75)], atol=2e-3)
    assert np.isnan(normals[0, 0]).all()


@pytest.mark.parametrize(
    ("name", "frames"),
    [("lens/bouguet", 20), ("memorial", 16), ("diligent/ballPNG", 96), ("emva1288/set001", 300), ("psm", 12)],
)
def test_each_set_becomes_a_manifest_that_is_read(
    real: ModuleType, name: str, frames: int, tmp_path: Path
) -> None:
    data = real.find_data() / name
    if not data.is_dir():
        pytest.skip(f"{data} is absent: set GNOMON_DATA")
    rows = {
        "lens/bouguet": real.bouguet_rows,
        "memorial": real.memorial_rows,
        "diligent/ballPNG": real.diligent_rows,
        "emva1288/set001": real.emva_rows,
        "psm": lambda folder: real.psm_rows(folder, "gray", "object"),
    }[name](data)
    read = read_manifest(real.write_manifest(tmp_path / "photos", rows))
    assert len(read) == frames
    if name == "emva1288/set001":
        pairs = [row for row in read if row.kinds == ("flat",) and row.exposure_s == pytest.approx(40e-6)]
        assert [row.repeat for row in pairs] == [0, 1]
