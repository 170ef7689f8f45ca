"""What a flat target's own light does to a flat field, told by turning the target about the camera's axis."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]

_LEFT = 0.003  # relative difference of the turned poses that is worth a word
# Degrees of x and y, over half the diagonal, of what the target may have. What looks the same after any turn
# (x**2 + y**2) is left out: no turn tells it from the lens.
_NAMES = ("a ramp", "a ramp", "a saddle", "a saddle", *["a cubic pattern"] * 4)


class Target(NamedTuple):
    """Mean unevenness of the target over its poses.

    Attributes
    ----------
    coefficients : ndarray (8,)
        Of the patterns, in the logarithm.
    weights, angles : ndarray (k,)
        Share of the light and turn (radians) of each pose.
    size : (int, int)
        Width and height of the frame, px.
    """

    coefficients: Float
    weights: Float
    angles: Float
    size: tuple[int, int]

    def at(self, u: Float, v: Float) -> NDArray[np.float32]:
        """Factor at columns and rows (px of the full frame), broadcast."""
        parts = [
            share * np.exp(_patterns(u, v, angle, self.size) @ self.coefficients)
            for share, angle in zip(self.weights, self.angles, strict=True)
        ]
        return np.asarray(np.sum(parts, axis=0), np.float32)

    def peak_to_peak_percent(self) -> float:
        """Of one pose, over the picture."""
        width, height = self.size
        u, v = np.linspace(0, width - 1, 64), np.linspace(0, height - 1, 64)[:, None]
        return 100 * float(np.ptp(np.exp(_patterns(u, v, 0.0, self.size) @ self.coefficients)))


def separate(
    cells: Sequence[Float],
    u: Float,
    v: Float,
    turns_deg: Sequence[float | None],
    weights: Float,
    size: tuple[int, int],
) -> tuple[Target | None, list[str]]:
    """Tell the target's unevenness from the lens by how the picture changes when the target is turned.

    Parameters
    ----------
    cells : sequence of ndarray (rows, columns)
        Relative brightness of cells of the picture in each pose.
    u, v : ndarray (columns,), (rows,)
        Middles of the cells, px of the full frame.
    turns_deg : sequence of float or None
        Turn of the target in each pose, clockwise as the picture shows it; None where nothing is known.
    weights : ndarray (k,)
        Share of the light of each pose.
    size : (int, int)
        Width and height of the frame, px.

    Returns
    -------
    target : Target or None
        None where nothing tells.
    notes : list of str

    Notes
    -----
    ``log cell = log lens + pattern(turned place)``: the differences of the poses hold the pattern alone.
    Turning by 180 degrees changes what is odd, by 90 also the saddle. Assumes that the turn is about the
    middle of the picture; of a ramp the place of the axis does not matter.
    """
    if len(cells) < 2:
        return None, []
    mean = np.mean(cells, axis=0)
    unlike = max(float(np.nanstd(one / mean)) for one in cells)
    known = [turn for turn in turns_deg if turn is not None]
    if len(known) < len(cells) or len({round(turn % 360, 6) for turn in known}) < 2:
        note = f"the poses differ by {100 * unlike:.2f} % rms and no turn is told: they are averaged"
        return None, [note]
    logs = np.log(np.maximum(np.stack(cells), 1e-6))
    finite: NDArray[np.bool_] = np.asarray(np.isfinite(logs).all(axis=0))
    seen = (logs - logs.mean(axis=0))[:, finite]
    seen -= seen.mean(axis=1, keepdims=True)
    coefficients, left, told = _fit(seen, finite, u, v, np.deg2rad(known), size)
    backwards = _fit(seen, finite, u, v, -np.deg2rad(known), size)[1]
    notes = []
    if not told.all():
        unseen = dict.fromkeys(name for name, seen_at in zip(_NAMES, told, strict=True) if not seen_at)
        notes.append(f"the turns cannot tell {' or '.join(unseen)} of the target from the lens")
    if left > _LEFT and backwards < 0.5 * left:
        notes.append(
            f"the turned poses are {100 * left:.2f} % rms off, and fit if the turns run backwards: "
            "turns count clockwise as the picture shows the target"
        )
    elif left > max(_LEFT, 0.2 * unlike):
        notes.append(
            f"the turned poses still differ by {100 * left:.2f} % rms after the target's own pattern is out: "
            "it was shifted too, or is too uneven"
        )
    return Target(coefficients, weights, np.deg2rad(known), size), notes


def _fit(
    seen: Float, finite: NDArray[np.bool_], u: Float, v: Float, angles: Float, size: tuple[int, int]
) -> tuple[Float, float, NDArray[np.bool_]]:
    """Coefficients, rms of what is left of the poses' differences, and which patterns the turns tell."""
    design = np.stack([_patterns(u, v[:, None], angle, size)[finite] for angle in angles])
    design -= design.mean(axis=0)
    design -= design.mean(axis=1, keepdims=True)
    columns = design.reshape(-1, len(_NAMES))
    # A pattern that no turn changes leaves no trace in the differences: it must not be fitted to noise.
    told = np.linalg.norm(columns, axis=0) > 1e-3 * np.sqrt(len(columns))
    coefficients = np.zeros(len(_NAMES))
    coefficients[told] = np.linalg.lstsq(columns[:, told], seen.ravel(), rcond=1e-6)[0]
    left = float(np.sqrt(np.mean((seen.ravel() - columns @ coefficients) ** 2)))
    return coefficients, left, told


def _patterns(u: Float, v: Float, angle: float, size: tuple[int, int]) -> Float:
    """Patterns of the target turned by ``angle`` (radians) about the picture's middle, (..., 8)."""
    half = np.hypot(*size) / 2
    x0, y0 = (u - (size[0] - 1) / 2) / half, (v - (size[1] - 1) / 2) / half
    x, y = np.cos(angle) * x0 + np.sin(angle) * y0, np.cos(angle) * y0 - np.sin(angle) * x0
    patterns = (x, y, x * x - y * y, 2 * x * y, x**3, x * x * y, x * y * y, y**3)
    return np.stack(np.broadcast_arrays(*patterns), axis=-1)
