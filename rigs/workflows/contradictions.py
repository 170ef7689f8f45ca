"""Where lights, mask and pictures of an object contradict each other: another frame, a lamp that was off."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.geometry import Float
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

_LEAST_DEPTH_MM = 5.0

_SIDE_PX = 4
"""Side of the squares around which the slopes are summed: over it a surface bends more than noise."""
_STEEPEST = 2.0
_LEAST_BENT = 500
_CURL, _AGREEMENT = 0.8, 0.25
"""Under other axes the normals are those of a surface: curl, of that as they are, and agreement of slopes.
Under right lights the least curl of the others is 1.5 to 11 times theirs on 15 objects (psm, DiLiGenT, two
spheres, BiNI), which agree by 0.44 to 0.98; on one that bends along one axis only it is as theirs."""

_RIM_PX = 4
_LEAST_RIM = 300
_LEANING = 0.5
_INWARDS, _OUTWARDS = 0.75, 0.15
"""Shares of the steep normals at the mask's rim. Of 12 objects with a rim in view 0.88 to 1 lean outwards and
at most 0.07 inwards; a relief has hardly any."""


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
    """FitError where most lights stand on the far side of the object: other axes, or another unit."""
    used = [lights.lights[name] for name in names]
    behind = [
        name
        for name, light in zip(names, used, strict=True)
        if (
            light.direction[2] >= 0
            if light.kind == "distant"
            else depth_mm is not None and light.position_mm[2] > depth_mm
        )
    ]
    if 2 * len(behind) > len(names):
        near = any(light.kind == "near" for light in used)
        units = f"its distance ({depth_mm:g} mm) and their positions in mm, " if near else ""
        raise FitError(
            f"{listed(behind)}: {len(behind)} of {len(names)} lights shine from behind the object: want "
            f"{units}directions from the object to the light, y down, z away from the camera; {OTHER_FRAME}"
        )


def too_near(depth_mm: float | None) -> tuple[str, ...]:
    """A warning of a distance that no object has from a lens."""
    if depth_mm is None or depth_mm > _LEAST_DEPTH_MM:
        return ()
    return (f"the object is {depth_mm:g} mm away: is that in mm? Depth and mesh are as large",)


def other_axes(normals: NormalMap) -> tuple[str, ...]:
    """Warnings where the normals are those of a surface only under lights whose axes lie otherwise.

    Slopes p, q of a surface have dp/dy = dq/dx. Under lights with y turned over they come out as p, -q, with
    x turned over as -p, q, with both exchanged as q, p or -q, -p, turned by 90 degrees as q, -p or -q, p;
    nothing tells the two of a pair apart. What bends only along x or y does not tell. Turned by 180 degrees a
    hill is a hollow, and as good a surface: the rim of the object tells it, as what is seen up to its rim
    leans outwards there, unless it is a bowl.
    """
    n = np.asarray(normals.normals, np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        p, q = -n[..., 0] / n[..., 2], -n[..., 1] / n[..., 2]
        flat = np.hypot(p, q) < _STEEPEST
    p, q = np.where(flat, p, np.nan), np.where(flat, q, np.nan)
    bends = np.stack([_along_y(p), _along_x(q), _along_y(q), _along_x(p)])
    p_y, q_x, q_y, p_x = bends[:, np.isfinite(bends).all(axis=0)]
    if p_y.size < _LEAST_BENT:
        return _leaning_inwards(n)
    ways = {
        "y or x turned over": (p_y, -q_x),
        "x and y exchanged": (q_y, p_x),
        "x and y turned by 90 degrees": (q_y, -p_x),
    }
    curl = {way: float(np.sum(np.abs(a - b))) for way, (a, b) in ways.items()}
    way = min(curl, key=lambda name: curl[name])
    found = float(np.sum(np.abs(p_y - q_x)))
    if curl[way] >= _CURL * found or _agreement(*ways[way]) < _AGREEMENT:
        return _leaning_inwards(n)
    return (
        f"the normals are those of a surface only with {way} (as they are, their slopes disagree "
        f"{found / max(curl[way], 1e-3 * found):.1f} times as much): want lights with x right, y down, "
        f"z away from the camera; {OTHER_FRAME}",
    )


def _along_x(slope: Float) -> Float:
    s = _SIDE_PX
    return slope[:-s, s:] - slope[:-s, :-s] + slope[s:, s:] - slope[s:, :-s]


def _along_y(slope: Float) -> Float:
    s = _SIDE_PX
    return slope[s:, :-s] - slope[:-s, :-s] + slope[s:, s:] - slope[:-s, s:]


def _agreement(a: Float, b: Float) -> float:
    """Whether two bends go the same way, from -1 to 1; what only one of them shows does not count."""
    smaller = np.minimum(np.abs(a), np.abs(b))
    return float(np.sum(np.sign(a * b) * smaller) / max(np.sum(smaller), 1e-30))


def _leaning_inwards(normals: Float) -> tuple[str, ...]:
    """A warning where the normals lean inwards all round the object, but for the picture's border."""
    there: NDArray[np.float32] = np.asarray(np.isfinite(normals).all(axis=-1), np.float32)
    inwards = np.stack(np.gradient(cv2.GaussianBlur(there, (0, 0), _RIM_PX))[::-1], axis=-1)
    size = np.linalg.norm(inwards, axis=-1)
    inner = cv2.erode(there, np.ones((3, 3)), iterations=_RIM_PX, borderType=cv2.BORDER_REPLICATE)
    leaning = np.hypot(normals[..., 0], normals[..., 1]) > _LEANING
    rim = (there > 0) & (inner == 0) & (size > 1e-3)
    steep = rim & leaning
    if np.count_nonzero(steep) < max(_LEAST_RIM, np.count_nonzero(rim) / 2):
        return ()
    towards = np.sum(normals[steep][:, :2] * inwards[steep], axis=-1) / size[steep]
    if np.mean(towards > 0.3) < _INWARDS or np.mean(towards < -0.3) > _OUTWARDS:
        return ()
    return (
        "the normals lean inwards all round the object: is it a bowl? Else x and y of the lights are both "
        f"turned over: want x right, y down, z away from the camera; {OTHER_FRAME}",
    )
