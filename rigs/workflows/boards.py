"""Boards as the user names them: in words, in a YAML file of gnomon's or of Kalibr's, in the rig file."""

from pathlib import Path
from typing import Any, Literal, NamedTuple, overload

from pydantic import Field, model_validator

from calibration.targets.boards import AprilGrid, Board, Charuco, Checkerboard, CircleGrid
from capture.plan import Record
from rigs.config import ConfigError, RigConfig, read_plain, validate

_USAGE = (
    "want a file that ends in .yaml, 'checkerboard COLSxROWS SQUARE_MM [marker]', "
    "'charuco COLSxROWS SQUARE_MM MARKER_MM [DICTIONARY] [legacy]', 'aprilgrid COLSxROWS TAG_MM GAP_MM' or "
    "'circles COLSxROWS SPACING_MM [DIAMETER_MM] [asymmetric]'"
)
_SMALLEST_MM, _LARGEST_MM = 1.0, 1000.0  # of a square; slides for microscopes are smaller, rightly
Kind = type[Checkerboard] | type[Charuco] | type[AprilGrid] | type[CircleGrid]


class _Form(NamedTuple):
    """Words of a kind: sizes that must follow, that may, and words that switch something on."""

    kind: Kind
    needed: tuple[str, ...]
    further: tuple[str, ...] = ()
    switches: tuple[str, ...] = ()


_FORMS = {
    "checkerboard": _Form(Checkerboard, ("square_mm",), (), ("marker",)),
    "charuco": _Form(Charuco, ("square_mm", "marker_mm"), (), ("legacy",)),
    "aprilgrid": _Form(AprilGrid, ("tag_mm", "gap_mm")),
    "circles": _Form(CircleGrid, ("spacing_mm",), ("diameter_mm",), ("asymmetric",)),
}


@overload
def choose_board(text: str | None, config: RigConfig | None, needed: Literal[True] = True) -> Board: ...


@overload
def choose_board(text: str | None, config: RigConfig | None, needed: bool) -> Board | None: ...


def choose_board(text: str | None, config: RigConfig | None, needed: bool = True) -> Board | None:
    """Board from the option's text, else from the rig file."""
    if text is not None:
        return parse_board(text)
    board = None if config is None else config.targets.board
    if board is None and needed:
        raise ConfigError("no board: give --board, or --rig with targets.board")
    return board


def parse_board(text: str) -> Board:
    """Board of a YAML file or of words such as ``'checkerboard 9x6 25'`` (inner corners, mm).

    The file is one of ``configs/targets`` (the fields of a ``Board``), or a target file of Kalibr's.

    Raises
    ------
    ConfigError
        One line a fault.
    """
    if text.lower().endswith((".yaml", ".yml")):
        return read_board(Path(text))
    source = f"board {text!r}"
    words = text.split()
    if not words or words[0] not in _FORMS:
        raise ConfigError(f"{source}: {_USAGE}")
    form = _FORMS[words[0]]
    try:
        columns, rows = (int(word) for word in words[1].lower().split("x"))
        raw: dict[str, Any] = {"columns": columns, "rows": rows}
        raw |= {name: float(words[2 + k]) for k, name in enumerate(form.needed)}
    except (IndexError, ValueError):
        raise ConfigError(f"{source}: {_USAGE}") from None
    names = list(form.further)
    for word in words[2 + len(form.needed) :]:
        if word in form.switches and word not in raw:
            raw[word] = True
        elif form.kind is Charuco and word.startswith("DICT") and "dictionary" not in raw:
            raw["dictionary"] = word
        elif names and _is_number(word):
            raw[names.pop(0)] = float(word)
        else:
            raise ConfigError(f"{source}: {word!r} is not understood: {_USAGE}")
    return validate(raw, form.kind, source)


def doubtful_size(board: Board) -> str | None:
    """The question whether a board's size is in mm, where hardly any board is so small or so large."""
    name = next(field for field in ("square_mm", "tag_mm", "spacing_mm") if hasattr(board, field))
    value = float(getattr(board, name))
    usual = _SMALLEST_MM <= value <= _LARGEST_MM
    return None if usual else f"is {name} {value:g} in millimetres? Every distance follows it"


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def read_board(path: Path) -> Board:
    """Board of a YAML file, gnomon's or Kalibr's."""
    raw = read_plain(path)
    if isinstance(raw, dict) and "target_type" in raw:
        raw = _from_kalibr(raw, str(path))
    if not isinstance(raw, dict) or str(raw.get("kind")) not in _FORMS:
        raise ConfigError(f"{path}: kind: want one of {', '.join(_FORMS)}")
    return validate(raw, _FORMS[str(raw["kind"])].kind, str(path))


def _from_kalibr(raw: dict[str, Any], source: str) -> dict[str, Any]:
    match raw["target_type"]:
        case "aprilgrid":
            return validate(raw, _KalibrTags, source).plain()
        case "checkerboard":
            return validate(raw, _KalibrSquares, source).plain()
        case "circlegrid":
            return validate(raw, _KalibrCircles, source).plain()
    raise ConfigError(f"{source}: target_type: want one of aprilgrid, checkerboard, circlegrid")


_METRE_MM = 1000.0


class _KalibrTags(Record):
    target_type: Literal["aprilgrid"]
    tagCols: int
    tagRows: int
    tagSize: float = Field(gt=0)
    tagSpacing: float = Field(gt=0)

    def plain(self) -> dict[str, Any]:
        tag = _mm(self.tagSize)
        gap = round(tag * self.tagSpacing, 9)
        return {
            "kind": "aprilgrid",
            "columns": self.tagCols,
            "rows": self.tagRows,
            "tag_mm": tag,
            "gap_mm": gap,
        }


class _KalibrSquares(Record):
    target_type: Literal["checkerboard"]
    targetCols: int
    targetRows: int
    rowSpacingMeters: float = Field(gt=0)
    colSpacingMeters: float = Field(gt=0)

    @model_validator(mode="after")
    def _square(self) -> "_KalibrSquares":
        if self.rowSpacingMeters != self.colSpacingMeters:
            raise ValueError("rowSpacingMeters and colSpacingMeters differ: want squares")
        return self

    def plain(self) -> dict[str, Any]:
        side = _mm(self.rowSpacingMeters)
        return {
            "kind": "checkerboard",
            "columns": self.targetCols,
            "rows": self.targetRows,
            "square_mm": side,
        }


class _KalibrCircles(Record):
    target_type: Literal["circlegrid"]
    targetCols: int
    targetRows: int
    spacingMeters: float = Field(gt=0)
    asymmetricGrid: bool = False

    def plain(self) -> dict[str, Any]:
        return {
            "kind": "circles",
            "columns": self.targetCols,
            "rows": self.targetRows,
            "spacing_mm": _mm(self.spacingMeters),
            "asymmetric": self.asymmetricGrid,
        }


def _mm(metres: float) -> float:
    return round(metres * _METRE_MM, 9)
