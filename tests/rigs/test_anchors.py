"""Depths known at some places, from a table."""

from pathlib import Path

import numpy as np
import pytest

from rigs.config import ConfigError
from rigs.workflows.anchors import contradicted, read_anchors


def test_a_table_becomes_a_map(tmp_path: Path) -> None:
    path = tmp_path / "points.csv"
    path.write_text("name,x,y,depth_mm\n# laser\na,3.4,1.6,500\nb,2.8,2.2,502\nc,0,0,610.5\n")
    found = read_anchors(path, (4, 5))
    assert found[2, 3] == 501
    assert found[0, 0] == 610.5
    assert np.isnan(found).sum() == 18
    path.write_text("y;x;depth_mm\n1;0;610,5\n")
    assert read_anchors(path, (4, 5))[1, 0] == 610.5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "columns x, y, depth_mm"),
        ("x,y,z\n1,1,500\n", "columns x, y, depth_mm"),
        ("x,y,depth_mm\n", "no depth"),
        ("x,y,depth_mm\n1,1\n", "line 2: 2 cells"),
        ("x,y,depth_mm\n1,1,far\n", "line 2: depth_mm: 'far' is no number"),
        ("x,y,depth_mm\n\n1,1,-500\n", "line 3: depth_mm is -500"),
        ("x,y,depth_mm\n5,1,500\n", r"line 2: \(5, 1\) is outside the picture of 5 x 4 px"),
        ("x,y,depth_mm\n0,0,500\n", "line 2: .*beside the object"),
    ],
)
def test_a_bad_table_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "points.csv"
    path.write_text(text)
    mask = np.ones((4, 5), bool)
    mask[0, 0] = False
    with pytest.raises(ConfigError, match=said):
        read_anchors(path, (4, 5), mask)


def test_a_table_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"points\.csv: no such file"):
        read_anchors(tmp_path / "points.csv", (4, 5))


def test_anchors_that_the_surface_bears_out_say_nothing() -> None:
    known = np.full((4, 5), np.nan)
    known[1, 1], known[2, 3] = 450.3, 451.8
    held = np.full((4, 5), 451.0)
    assert contradicted(known, held, held - 1.2, 1.0, 0.004) == ()
    # A distance that was given is a rough one; what lights measured is not.
    assert contradicted(known, held, held * 1.4, 1.0, np.nan) == ()


def test_anchors_that_contradict_surface_lights_or_unit_are_told() -> None:
    known = np.full((4, 5), np.nan)
    known[1, 1], known[2, 3] = 440.0, 450.0
    held = np.full((4, 5), 445.0)
    (apart,) = contradicted(known, held, held, 1.0, 0.0005)
    assert "2 of 2 anchors are off the surface" in apart
    assert "by 5 mm" in apart
    assert contradicted(known, held, held, 2.0, 0.0005) == ()
    for free, sigma, by in ((480.0, 0.0005, "lights tell 480 mm"), (445e3, np.nan, "4.45e+05 mm was given")):
        (far,) = contradicted(known, held, np.full((4, 5), free), 2.0, sigma)
        assert "put the object at 445 mm" in far
        assert by in far
    held[1, 1] = np.nan
    (bare,) = contradicted(known, held, held, 2.0, np.nan)
    assert "1 of 2 anchors hold nothing, as at (1, 1)" in bare
