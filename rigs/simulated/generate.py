"""Compact notations of a truth file: a dome of LEDs and a set of board views, written out as plain data."""

import copy
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from pydantic import Field
from scipy.spatial.transform import Rotation

from calibration.targets.boards import Board, size_mm
from capture.plan import Record

Vector = tuple[float, float, float]
Positive = Annotated[float, Field(gt=0)]
Range = tuple[Positive, Positive]


class Ring(Record):
    """LEDs of one height above the object's plane, evenly around, their distances drawn from a range."""

    count: int = Field(ge=1)
    elevation_deg: float = Field(ge=0, le=90)
    distance_mm: Range
    phase_deg: float = 0.0


class Dome(Record):
    """Near LEDs around ``centre_mm`` on the camera's side (-z), aimed at it.

    ``intensity`` is the nominal one of all (irradiance times mm^2); each deviates by up to ``spread``.
    Named ``prefix`` and a number, ring after ring.
    """

    rings: tuple[Ring, ...] = Field(min_length=1)
    centre_mm: Vector
    intensity: Positive
    spread: float = Field(default=0.0, ge=0, lt=1)
    order: float = Field(default=1.0, ge=0)
    prefix: str = "led"
    seed: int = 0

    def lights(self) -> dict[str, dict[str, Any]]:
        """Write the lights out as a truth file would."""
        rng = np.random.default_rng(self.seed)
        centre = np.array(self.centre_mm)
        out: dict[str, dict[str, Any]] = {}
        digits = len(str(sum(ring.count for ring in self.rings)))
        for ring in self.rings:
            for k in range(ring.count):
                around = np.radians(ring.phase_deg + 360.0 * k / ring.count)
                above = np.radians(ring.elevation_deg)
                away = np.array(
                    [np.cos(above) * np.cos(around), np.cos(above) * np.sin(around), -np.sin(above)]
                )
                distance = rng.uniform(*ring.distance_mm)
                intensity = self.intensity * (1 + self.spread * rng.uniform(-1, 1))
                out[f"{self.prefix}{len(out) + 1:0{digits}d}"] = {
                    "kind": "near",
                    "position_mm": [round(float(c), 4) for c in centre + distance * away],
                    "intensity": round(float(intensity), 1),
                    "axis": [round(float(-c), 9) for c in away],
                    "order": self.order,
                }
        return out


class BoardViews(Record):
    """Views of one board that cover the image: centres on a grid, tilts up to ``tilt_deg`` all around.

    ``reach`` is the tangent of half the field of view in x and y; ``behind`` are further things of each pose.
    """

    board: Board
    columns: int = Field(default=5, ge=1)
    rows: int = Field(default=4, ge=1)
    reach: Range
    z_mm: Range
    tilt_deg: float = Field(default=40.0, ge=0, lt=80)
    prefix: str = "board-"
    seed: int = 0
    behind: tuple[dict[str, Any], ...] = ()

    def poses(self) -> dict[str, list[dict[str, Any]]]:
        """Write the poses out as a truth file would."""
        rng = np.random.default_rng(self.seed)
        count = self.columns * self.rows
        half = 0.5 * np.array([*size_mm(self.board), 0.0])
        digits = len(str(count))
        out: dict[str, list[dict[str, Any]]] = {}
        for k in range(count):
            at = np.array([k % self.columns, k // self.columns]) / np.maximum(
                [self.columns - 1, self.rows - 1], 1
            )
            z = rng.uniform(*self.z_mm)
            # up to a fifth of the board may leave the view: its corners then reach the image's
            free = np.maximum(np.array(self.reach) * z - 0.8 * half[:2], 0.0)
            centre = np.array([*((2 * at - 1) * free), z])
            tilt = np.radians(self.tilt_deg) * (0.4 + 0.6 * ((k * 7) % count) / max(count - 1, 1))
            around = 2.399963 * k
            turn = Rotation.from_rotvec([tilt * np.cos(around), tilt * np.sin(around), 0.0])
            turn = turn * Rotation.from_rotvec([0, 0, np.radians(rng.uniform(-15, 15) + 90 * (k % 4))])
            corner = centre - turn.apply(half)
            out[f"{self.prefix}{k + 1:0{digits}d}"] = [
                {
                    "kind": "board",
                    "board": self.board.model_dump(),
                    "rotvec_deg": [round(float(c), 5) for c in np.degrees(turn.as_rotvec())],
                    "translation_mm": [round(float(c), 4) for c in corner],
                },
                *copy.deepcopy(list(self.behind)),
            ]
        return out


class Generate(Record):
    """The ``generate`` section of a truth file."""

    dome: Dome | None = None
    boards: BoardViews | None = None


def expand(data: Mapping[str, Any]) -> dict[str, Any]:
    """Copy of a truth file's data with ``generate`` written out; what the file says itself wins.

    Raises
    ------
    pydantic.ValidationError
        Titled ``Generate``: the section is wrong.
    """
    plain: dict[str, Any] = copy.deepcopy(dict(data))
    generate = Generate.model_validate(plain.pop("generate", {}))
    if generate.dome is not None:
        plain["lights"] = {**generate.dome.lights(), **(plain.get("lights") or {})}
    if generate.boards is not None:
        plain["poses"] = {**(plain.get("poses") or {}), **generate.boards.poses()} | (
            plain.get("poses") or {}
        )
    return plain
