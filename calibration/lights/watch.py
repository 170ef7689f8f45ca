"""Whether pinned lights still hold, by what they light: no ball is needed."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from calibration.geometry import Float, tangent_basis
from calibration.lens import LensModel
from calibration.lights.agreement import LightChange, judge
from calibration.lights.model import LightModel
from calibration.provenance import FitError

_PIXELS = 1500
_LEAST_LIGHTS = 5
_LEAST_SIGMA, _LEAST_SIGMA_RAD = 0.02, np.radians(0.6)
"""Of strength and turn: gloss and light from thing to thing deceive by as much, alike in a few lights."""
_MOST_SIGMA, _MOST_SIGMA_RAD = 0.3, np.radians(6)
"""Of strength and turn: beyond, pictures and lights do not belong together, or the pictures show noise."""
_LIT = 0.5
"""Share of the pixels that some light must brighten."""
_DARK = 0.02
"""Of the strength that the other lights foretell: below, the picture shows no light at all."""
_SHADOW = 0.15
"""Share of a pixel's brightest radiance below which it may be in shadow."""


def watch_lights(
    names: Sequence[str],
    radiance: Sequence[NDArray[np.floating]],
    lights: Mapping[str, LightModel],
    mask: NDArray[np.bool_],
    lens: LensModel | None,
    *,
    depth_mm: float | None = None,
    strengths: bool = True,
) -> tuple[LightChange, ...]:
    """Foretell the picture under each light from those under the others, and see what is wrong with it.

    Each pixel's albedo times normal comes from the other lights (robust least squares); the picture of the
    light in question then says by which factor and by which turn it differs. The light that differs most is
    left out and the rest judged anew, so that one changed light does not accuse the others.

    Parameters
    ----------
    names : sequence of str
        One a picture.
    radiance : sequence of ndarray, (h, w)
        e-/s; NaN is missing.
    lights : mapping of name -> light
        As calibrated.
    mask : ndarray, (h, w), bool
        Where the object is.
    lens : LensModel or None
        None: orthographic, distant lights only.
    depth_mm : float or None
        Of the object, for near lights.
    strengths : bool
        Whether the lights' intensities are known; without, they should be about equal, and no strength is
        told.

    Returns
    -------
    tuple of LightChange
        One a picture, in order.

    Raises
    ------
    FitError
        Fewer than 5 lights, a light that is not among the calibrated ones, too little to see, or
        pictures that most lights contradict.

    Notes
    -----
    Sees what one light does against the others. What all do together (another exposure, a camera that was
    turned) it cannot tell from another object. It tells changes of 10 % and 3 degrees on matte things of many
    normals; on flat or shiny ones only larger, by the scatter over the lights.
    """
    unknown = [name for name in names if name not in lights]
    if unknown:
        raise FitError(
            f"light {unknown[0]} is not among the calibrated ones: {', '.join(list(lights)[:5])} ..."
        )
    if len(names) < _LEAST_LIGHTS:
        raise FitError(f"{len(names)} lights are too few to check one by the others: want {_LEAST_LIGHTS}")
    values, arriving = _samples(
        [np.asarray(r) for r in radiance], [lights[n] for n in names], mask, lens, depth_mm
    )
    steady = np.ones(len(names), bool)
    gain, turn = np.ones(len(names)), np.zeros((len(names), 2))
    for _ in range(len(names) // 2):
        for i in range(len(names)):
            others = steady.copy()
            others[i] = False
            gain[i], turn[i] = _change(values, arriving, others, i)
        trusted = np.flatnonzero(steady)
        level = np.log(np.maximum(gain, 1e-6))
        level = level - np.median(level[trusted])
        scatter = max(1.4826 * float(np.median(np.abs(level[trusted]))), _LEAST_SIGMA)
        dark = gain < _DARK * np.median(gain[trusted])
        turn[dark] = 0.0
        angle = np.linalg.norm(turn, axis=1)
        # Of a deviate in two dimensions the median length is 1.177 sigma.
        unsure = max(float(np.median(angle[trusted])) / 1.177, _LEAST_SIGMA_RAD)
        if scatter > _MOST_SIGMA or unsure > _MOST_SIGMA_RAD:
            raise FitError(
                "the pictures do not tell: most lights contradict theirs (turned by "
                f"{np.degrees(unsure):.0f} deg, {100 * scatter:.0f} % off in strength); are names and "
                "pictures in the right order, is this the rig of the lights, and is there more than noise?"
            )
        verdicts = [
            _unlit(name)
            if black
            else judge(name, float(a), unsure, float(np.exp(v)) if strengths else np.nan, scatter)
            for name, a, v, black in zip(names, angle, level, dark, strict=True)
        ]
        off = np.maximum(
            angle / unsure, np.abs(level) / scatter if strengths else np.where(dark, np.inf, 0.0)
        )
        worst = np.where(steady, off, 0.0)
        suspect = int(worst.argmax())
        if verdicts[suspect][0] == "still" or steady.sum() <= _LEAST_LIGHTS - 1:
            break
        steady[suspect] = False
    return tuple(
        LightChange(name, kind, text, float(np.degrees(a)), float(np.exp(v)) if strengths else np.nan)
        for name, (kind, text), a, v in zip(names, verdicts, angle, level, strict=True)
    )


def _unlit(name: str) -> tuple[Literal["missing"], str]:
    return "missing", f"{name}: the object is black under it: does it burn?"


def _samples(
    radiance: Sequence[NDArray[np.floating]],
    lights: Sequence[LightModel],
    mask: NDArray[np.bool_],
    lens: LensModel | None,
    depth_mm: float | None,
) -> tuple[Float, Float]:
    """Radiance (n, m) of pixels spread over the mask, and irradiance vectors (n, m, 3) there."""
    rows, columns = np.nonzero(mask)
    step = max(len(rows) // _PIXELS, 1)
    rows, columns = rows[::step], columns[::step]
    values = np.stack([np.asarray(image[rows, columns], np.float64) for image in radiance])
    good = np.isfinite(values).mean(axis=0) > 0.7
    if good.sum() < 200:
        raise FitError(f"only {int(good.sum())} pixels of the object can be compared: want 200")
    rows, columns, values = rows[good], columns[good], values[:, good]
    bright = float(np.mean(np.nanmax(values, axis=0) > 0))
    if bright < _LIT:
        raise FitError(
            f"{100 * (1 - bright):.0f} % of the object is dark under every light: did the lamps burn?"
        )
    if lens is None:
        points = np.zeros((len(rows), 3))
    else:
        rays = lens.unproject(np.stack([columns, rows], axis=-1).astype(np.float64))
        points = rays / rays[:, 2:] * (depth_mm or 1.0)
    arriving = np.empty((len(lights), len(rows), 3))
    for i, light in enumerate(lights):
        direction, irradiance = light.at(points)
        arriving[i] = direction * irradiance.mean(axis=-1, keepdims=True)
    return values, arriving


def _change(values: Float, arriving: Float, others: NDArray[np.bool_], index: int) -> tuple[float, Float]:
    """Gain and turn (2,) rad of a light that explain its picture, the scene taken from the other lights."""
    scene, faith = _scene(values[others], arriving[others])
    mine, light = values[index], arriving[index]
    strength = np.linalg.norm(light, axis=-1)
    towards = light / strength[:, None]
    basis = tangent_basis(towards)
    columns = np.stack(
        [
            np.sum(light * scene, axis=-1),
            *(strength * np.sum(basis[:, k] * scene, axis=-1) for k in range(2)),
        ],
        axis=-1,
    )
    size = strength * np.linalg.norm(scene, axis=-1)
    use = np.isfinite(mine) & (columns[:, 0] > 0.2 * size) & faith
    if use.sum() < 60:
        return 1.0, np.zeros(2)
    # Every pixel counts alike, bright or dark.
    a, b = columns[use] / size[use, None], mine[use] / size[use]
    # Where normals vary little a turn looks like a change of strength: that is taken by itself.
    strength_alone = _robust_fit(a[:, :1], b)
    found = _robust_fit(a, b)
    aside = float(np.linalg.norm(found[1:]))
    return float(strength_alone[0]), np.asarray(found[1:] * (np.arctan2(aside, found[0]) / max(aside, 1e-30)))


def _robust_fit(a: Float, b: Float) -> Float:
    weight = np.ones(len(b))
    for _ in range(15):
        found = np.linalg.lstsq(a * weight[:, None], b * weight, rcond=None)[0]
        off = b - a @ found
        scale = 2 * 1.4826 * float(np.median(np.abs(off))) + 1e-6
        weight = 1 / (1 + (off / scale) ** 2)
    return np.asarray(found)


def _scene(values: Float, arriving: Float) -> tuple[Float, NDArray[np.bool_]]:
    """Albedo times normal (m, 3) of every pixel, and whether enough lights agree on it."""
    value = np.where(np.isfinite(values), values, 0.0).T
    top = np.maximum(value.max(axis=1, keepdims=True), 1e-30)
    light = np.moveaxis(arriving, 0, 1)
    lit = value > _SHADOW * top
    weight = lit.astype(np.float64)
    scene = np.zeros((len(value), 3))
    for _ in range(6):
        weighed = np.swapaxes(light * weight[..., None], 1, 2)
        normal = weighed @ light
        trace = np.trace(normal, axis1=1, axis2=2)
        normal += (1e-6 * trace + 1e-30)[:, None, None] * np.eye(3)
        scene = np.linalg.solve(normal, weighed @ value[..., None])[..., 0]
        off = np.abs(value - (light @ scene[..., None])[..., 0]) / top
        middle = np.median(np.where(lit, off, 0.0), axis=1, keepdims=True)
        weight = lit / (1 + (off / (3 * middle + 0.005)) ** 2) ** 2
    return scene, np.asarray((weight > 0.3).sum(axis=1) >= 4)
