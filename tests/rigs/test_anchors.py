"""Depths known at some places, from a table."""

from pathlib import Path

import numpy as np
import pytest

from rigs.workflows.anchors import read_anchors


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
    with pytest.raises(ValueError, match=said):
        read_anchors(path, (4, 5), mask)
