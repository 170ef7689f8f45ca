"""Boards in words and files, and boards on paper: true size read back from the page."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from calibration.targets.boards import (
    AprilGrid,
    Charuco,
    Checkerboard,
    CircleGrid,
    corners_mm,
    described,
    detect_board,
)
from rigs import workflows
from rigs.config import ConfigError

CONFIGS = Path(__file__).parents[2] / "configs" / "targets"
A4, A3 = workflows.parse_paper("a4"), workflows.parse_paper("A3")
TEXTS = [
    ("checkerboard 9x6 25", Checkerboard(columns=9, rows=6, square_mm=25)),
    ("checkerboard 9x6 25 marker", Checkerboard(columns=9, rows=6, square_mm=25, marker=True)),
    ("charuco 5x4 23 11.5", Charuco(columns=5, rows=4, square_mm=23, marker_mm=11.5)),
    ("aprilgrid 6x5 24 7.2", AprilGrid(columns=6, rows=5, tag_mm=24, gap_mm=7.2)),
    ("circles 4x11 20 asymmetric", CircleGrid(columns=4, rows=11, spacing_mm=20, asymmetric=True)),
    ("circles 7x6 20 9.5", CircleGrid(columns=7, rows=6, spacing_mm=20, diameter_mm=9.5)),
]


@pytest.mark.parametrize(("text", "board"), TEXTS)
def test_words_say_a_board_and_a_board_its_words(text, board):
    assert workflows.parse_board(text) == board
    again = workflows.parse_board(described(board))
    assert described(again) == described(board)
    np.testing.assert_array_equal(corners_mm(again), corners_mm(board))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("checkers 9x6 25", "want a file that ends in .yaml"),
        ("checkerboard 9x6", "want a file"),
        ("circles 4x3 20 asymetric", "'asymetric' is not understood"),
        ("circles 4x3 20 25", "touch"),
        ("aprilgrid 30x30 24 7.2", "900 tags needed"),
        ("checkerboard 3x3 20 marker", "no room for the marker"),
        ("nowhere.yaml", "no such file"),
        ("checkerboard 9x6 inf", "square_mm: Input should be a finite number"),
        ("circles 4x3 20 nan", "diameter_mm: Input should be"),
    ],
)
def test_what_is_wrong_with_the_words_is_said(text, message):
    with pytest.raises(ConfigError, match=message):
        workflows.parse_board(text)


def test_the_files_that_come_with_gnomon_print_on_a4(tmp_path):
    files = sorted(CONFIGS.glob("*.yaml"))
    assert len(files) >= 6
    for path in files:
        workflows.print_board(tmp_path / "board.svg", workflows.parse_board(str(path)), A4)


@pytest.mark.parametrize("margin", [-1.0, float("nan"), float("inf")])
def test_a_margin_that_is_none_is_refused(tmp_path, margin):
    with pytest.raises(ConfigError, match=r"margin .* mm: want 0 or more"):
        workflows.print_board(
            tmp_path / "a.svg", workflows.parse_board("checkerboard 5x4 10"), A4, margin_mm=margin
        )


def test_kalibrs_target_files_are_read(tmp_path):
    path = tmp_path / "april.yaml"
    path.write_text("target_type: 'aprilgrid'\ntagCols: 6\ntagRows: 6\ntagSize: 0.088\ntagSpacing: 0.3\n")
    board = workflows.parse_board(str(path))
    assert board == AprilGrid(columns=6, rows=6, tag_mm=88, gap_mm=26.4)
    path.write_text(
        "target_type: checkerboard\ntargetCols: 6\ntargetRows: 7\n"
        "rowSpacingMeters: 0.06\ncolSpacingMeters: 0.05\n"
    )
    with pytest.raises(ConfigError, match=r"april.yaml.*differ: want squares"):
        workflows.parse_board(str(path))
    path.write_text(
        "target_type: circlegrid\ntargetCols: 4\ntargetRows: 11\nspacingMeters: 0.02\nasymmetricGrid: True\n"
    )
    assert workflows.parse_board(str(path)) == TEXTS[4][1]
    path.write_text("target_type: 'aprilgrid'\ntagCols: 6\ntagRows: 6\ntagSize: 0.088\ntagSpcing: 0.3\n")
    with pytest.raises(ConfigError, match=r"tagSpcing: unknown key"):
        workflows.parse_board(str(path))
    path.write_text("kind: checkerboard\ncolumns: 9\nrows: 6\nsquare: 20\n")
    with pytest.raises(ConfigError, match=r"square: unknown key"):
        workflows.parse_board(str(path))
    path.write_text("columns: 9\n")
    with pytest.raises(ConfigError, match=r"kind: want one of checkerboard, charuco"):
        workflows.parse_board(str(path))


def drawn(path, px_per_mm=6.0):
    """Rasterised page of rectangles and discs, read from the file's own numbers: the size is the paper's."""
    text = path.read_bytes().decode("latin-1")
    if path.suffix == ".svg":
        width, height = (
            float(v) for v in re.search(r'width="([\d.]+)mm" height="([\d.]+)mm"', text).groups()
        )
        assert f'viewBox="0 0 {width:g} {height:g}"' in text
        rectangles = re.findall(r"M([\d.]+) ([\d.]+)h([\d.]+)v([\d.]+)h", text)
        discs = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="([\d.]+)" fill="(#\w+)"', text)
        discs = [(*d[:3], d[3] == "#fff") for d in discs]
    else:
        box = re.search(r"MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", text).groups()
        scale, _, _, down, _, top = (
            float(v) for v in re.search(r"\n(\S+) (\S+) (\S+) (\S+) (\S+) (\S+) cm", text).groups()
        )
        assert scale == -down == 72 / 25.4
        width, height = (float(v) / scale for v in box)
        assert top / scale == pytest.approx(height, abs=1e-4)
        rectangles = re.findall(r"([\d.]+) ([\d.]+) ([\d.]+) ([\d.]+) re", text)
        shapes = re.findall(r"(\d) g\n([\d.]+) ([\d.]+) m (.*) f", text)
        discs = []
        for colour, x, y, curves in shapes:
            left = float(re.split(" c ?", curves)[1].split()[4])
            discs.append(((float(x) + left) / 2, y, (float(x) - left) / 2, colour == "1"))
    image = np.full((round(height * px_per_mm), round(width * px_per_mm)), 255, np.uint8)
    for x, y, w, h in np.array(rectangles, float).reshape(-1, 4) * px_per_mm:
        cv2.rectangle(image, (round(x), round(y)), (round(x + w) - 1, round(y + h) - 1), 0, -1)
    for x, y, r, white in discs:
        at = [round((float(v) * px_per_mm - 0.5) * 64) for v in (x, y)]
        cv2.circle(image, at, round(float(r) * px_per_mm * 64), 255 * white, -1, cv2.LINE_AA, 6)
    return cv2.GaussianBlur(image, (0, 0), 1.0), (width, height)


@pytest.mark.parametrize("suffix", [".pdf", ".svg"])
@pytest.mark.parametrize(
    "text",
    [
        "checkerboard 9x6 20 marker",
        "charuco 8x6 20 14 DICT_4X4_50 legacy",
        "aprilgrid 5x4 20 6",
        "circles 4x11 15 10 asymmetric",
    ],
)
def test_a_page_shows_its_board_at_true_size(tmp_path, text, suffix):
    board = workflows.parse_board(text)
    path = tmp_path / f"board{suffix}"
    said = workflows.print_board(path, board, A4)
    assert described(board) in said
    image, sheet = drawn(path)
    assert sorted(sheet) == pytest.approx([210, 297], abs=1e-3)
    view = detect_board(image, board)
    assert len(view.ids) == len(corners_mm(board))
    mm = (view.pixels + 0.5) / 6.0
    design = np.column_stack([view.points_mm[:, :2], np.ones(len(mm))])
    fit = np.linalg.lstsq(design, mm, rcond=None)[0]
    # Edges are drawn to whole pixels of 1/6 mm here; over a board the errors average.
    np.testing.assert_allclose(fit[:2], np.eye(2), atol=2e-3)
    assert np.abs(mm - design @ fit).max() < 0.1


def test_a_target_too_large_for_its_paper_is_refused_with_what_fits(tmp_path):
    board = Checkerboard(columns=13, rows=9, square_mm=20)
    with pytest.raises(ConfigError, match=r"280 x 200 mm, too large for a4.*89 %.*--paper a3"):
        workflows.print_board(tmp_path / "x.pdf", board, A4)
    assert not (tmp_path / "x.pdf").exists()
    workflows.print_board(tmp_path / "x.pdf", board, A3)
    with pytest.raises(ConfigError, match=r"want a file that ends in \.pdf or \.svg"):
        workflows.print_board(tmp_path / "x.png", board, A3)
    with pytest.raises(ConfigError, match="leave no room"):
        workflows.print_board(tmp_path / "x.pdf", board, A4, margin_mm=120)
    with pytest.raises(ConfigError, match="WIDTHxHEIGHT"):
        workflows.parse_paper("a9")
    assert workflows.parse_paper("300x400")[1:] == (300, 400)


def test_a_pdf_is_whole(tmp_path):
    path = tmp_path / "board.pdf"
    workflows.print_board(path, Checkerboard(columns=5, rows=4, square_mm=20), A4)
    data = path.read_bytes()
    start = int(re.search(rb"startxref\n(\d+)", data).group(1))
    assert data[start:].startswith(b"xref")
    for number, place in enumerate(re.findall(rb"(\d{10}) 00000 n", data), start=1):
        assert data[int(place) :].startswith(b"%d 0 obj" % number)
    length = int(re.search(rb"/Length (\d+)", data).group(1))
    assert data[data.index(b"stream\n") + 7 :][length:].startswith(b"\nendstream")
    assert b"/PrintScaling /None" in data
    # The ruler: 100 mm between its ends.
    x0, x1 = re.search(rb"0\.2 w\n([\d.]+) [\d.]+ m ([\d.]+)", data).groups()
    assert float(x1) - float(x0) == 100


def test_the_command_writes_a_page_or_one_line(gnomon, tmp_path):
    done = gnomon("target", "checkerboard 9x6 20", "--out", str(tmp_path / "b.svg"), "--paper", "letter")
    assert done.code == 0
    assert (tmp_path / "b.svg").exists()
    failed = gnomon("target", "checkerboard 9x6 60", "--out", str(tmp_path / "c.svg"))
    assert failed.code == 2
    assert "too large for a4" in failed.err
