"""A ColorChecker in the scene: its frame and 24 patches as flat things."""

import numpy as np

from calibration.colour import CLASSIC_2014
from calibration.colour.spaces import ILLUMINANTS, adaptation, lab_to_xyz, rgb_to_xyz
from calibration.geometry import Float
from rigs.simulated.surfaces import Placement
from rigs.simulated.things import ChartThing, PlaneThing

_COLUMNS, _ROWS = 6, 4
# Patches lie this far in front of their frame, which they hide.
_RAISED_MM = 0.02


def patch_colours() -> Float:
    """Linear Rec.709 (24, 3) of the patches under a light of its white, 1 for a perfect diffuser.

    The published values of the edition of 2014, adapted to D65. Cyan lies outside: its red is negative.
    """
    white = CLASSIC_2014.illuminant
    to_rgb = np.linalg.inv(rgb_to_xyz()) @ adaptation(white, ILLUMINANTS["D65"])
    return np.asarray(lab_to_xyz(CLASSIC_2014.lab, white) @ to_rgb.T)


def chart_parts(thing: ChartThing) -> tuple[PlaneThing, ...]:
    """The frame, then the patches row by row, each a plane with its colour as tint."""
    place = Placement.of(thing.rotvec_deg, thing.translation_mm)
    pitch, side = thing.pitch_mm, 0.87 * thing.pitch_mm
    half = 0.5 * pitch * np.array([_COLUMNS, _ROWS])
    border = 0.3 * pitch

    def plane(centre: Float, size: tuple[float, float], tint: tuple[float, float, float]) -> PlaneThing:
        x, y, z = place.points(centre).tolist()
        return PlaneThing(
            kind="plane",
            rotvec_deg=thing.rotvec_deg,
            translation_mm=(x, y, z),
            size_mm=size,
            albedo=1.0,
            tint=tint,
        )

    size = (2 * (half[0] + border), 2 * (half[1] + border))
    parts = [plane(np.array([*half, 0.0]), size, (thing.frame,) * 3)]
    for number, (red, green, blue) in enumerate(patch_colours().tolist()):
        row, column = divmod(number, _COLUMNS)
        centre = np.array([(column + 0.5) * pitch, (row + 0.5) * pitch, -_RAISED_MM])
        parts.append(plane(centre, (side, side), (red, green, blue)))
    return tuple(parts)
