"""Where lights, mask and pictures of an object contradict each other: another frame, a lamp that was off."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from calibration.lights.model import LightSet
from calibration.photometric import NormalMap
from calibration.provenance import FitError
from capture.session import Session
from rigs.workflows.frames import LightImages

OTHER_FRAME = "a .csv list with y up and z to the camera says so by a column frame, yup; .lp lists are so"

_UNLIT = 0.02
"""Of the brightness under the other lights: darker, and the lamp did not burn."""

_FRAMED, _BRIGHTER = 0.9, 3.0
"""Share of the picture's border in a mask, and brightness left out over that within, of a mask inside out."""

_SIDE_PX = 4
"""Side of the squares around which the slopes are summed: over it a surface bends more than noise."""
_STEEPEST = 2.0
_LEAST_BENT = 500
_CONTRARY = -0.25
"""Agreement of the slopes below which y is turned over. Under right lights 15 objects (psm, DiLiGenT, two
spheres, BiNI) have 0.37 to 0.90, two that bend along one axis only 0; with y turned over as much below 0."""


def listed(names: Sequence[str]) -> str:
    """The first five names, in one line."""
    return f"{', '.join(names[:5])}{' ...' if len(names) > 5 else ''}" if names else "none"


def lit(
    session: Session, images: LightImages, mask: NDArray[np.bool_]
) -> tuple[LightImages, tuple[str, ...]]:
    """The images of the lights that burnt, and a warning of each that did not.

    Raises
    ------
    FitError
        Fewer than three burnt.
    """
    seen = [image[mask] for image in images.value]
    top = max(float(np.nanmax(values, initial=0.0)) for values in seen)
    # Saturated is bright.
    level = np.array([np.percentile(np.where(np.isnan(values), top, values), 99) for values in seen])
    burnt = (level > 0) & (level > _UNLIT * np.median(level))
    if np.count_nonzero(burnt) < 3:
        raise FitError(
            f"{session.path}: the object is black under {listed(np.array(images.names)[~burnt].tolist())}: "
            "did the lights burn, is the mask on the object?"
        )
    if burnt.all():
        return images, ()
    dark = [name for name, there in zip(images.names, burnt, strict=True) if not there]
    kept = tuple(name for name in images.names if name not in dark)
    left = images._replace(names=kept, value=images.value[burnt], variance=images.variance[burnt])
    return left, tuple(f"light {name}: the object is black under it: left out; did it burn?" for name in dark)


def inverted(images: LightImages, mask: NDArray[np.bool_]) -> tuple[str, ...]:
    """A warning where a mask holds the picture's border, and what it leaves out is much the brighter."""
    border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    if mask.all() or border.mean() < _FRAMED:
        return ()
    inside, outside = (
        np.median([np.nanmedian(image[part]) for image in images.value if np.isfinite(image[part]).any()])
        for part in (mask, ~mask)
    )
    if not outside > _BRIGHTER * inside:
        return ()
    return ("the mask holds the picture's border and leaves out what is bright: is it turned inside out?",)


def refuse_lights_behind(names: Sequence[str], lights: LightSet, depth_mm: float | None) -> None:
    """FitError where most lights stand on the far side of the object: they are of another frame."""
    behind = [
        name
        for name in names
        if (
            light.direction[2] >= 0
            if (light := lights.lights[name]).kind == "distant"
            else depth_mm is not None and light.position_mm[2] > depth_mm
        )
    ]
    if 2 * len(behind) > len(names):
        raise FitError(
            f"{listed(behind)}: {len(behind)} of {len(names)} lights shine from behind the object: want "
            f"directions from the object to the light, y down, z away from the camera; {OTHER_FRAME}"
        )


def turned_over(normals: NormalMap) -> tuple[str, ...]:
    """A warning where the normals are those of a surface only with y or x turned over.

    Slopes p, q of a surface have dp/dy = dq/dx. Under lights with y turned over they come out as p, -q, with
    x turned over as -p, q, which nothing tells apart. What is symmetric about x or y, or bends only along
    them, does not tell.
    """
    n = np.asarray(normals.normals, np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        p, q = -n[..., 0] / n[..., 2], -n[..., 1] / n[..., 2]
        flat = np.hypot(p, q) < _STEEPEST
    p, q = np.where(flat, p, np.nan), np.where(flat, q, np.nan)
    s = _SIDE_PX
    by_y = p[s:, :-s] - p[:-s, :-s] + p[s:, s:] - p[:-s, s:]
    by_x = q[:-s, s:] - q[:-s, :-s] + q[s:, s:] - q[s:, :-s]
    known = np.isfinite(by_y + by_x)
    by_y, by_x = by_y[known], by_x[known]
    smaller = np.minimum(np.abs(by_y), np.abs(by_x))
    if smaller.size < _LEAST_BENT or not smaller.any():
        return ()
    agreement = float(np.sum(np.sign(by_y * by_x) * smaller) / np.sum(smaller))
    if agreement > _CONTRARY:
        return ()
    return (
        "the normals are those of a surface only with y or x turned over (agreement of their slopes "
        f"{agreement:.2f}, of 1): want lights with x right, y down, z away from the camera; {OTHER_FRAME}",
    )
