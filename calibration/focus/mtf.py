"""Modulation transfer function across one straight edge, by the slanted-edge method, with its noise."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

from calibration.geometry import Float

BIN_PX = 0.25
"""Width of the bins that the edge's profile is sampled in: four to a pixel (ISO 12233)."""
FREQUENCIES = np.arange(0, 101) / 100
"""Where an MTF is tabled, cycles / px."""
_STEPS = 30
_LEAST_BLUR_PX, _MOST_BLUR_PX = 0.15, 25.0
# A blurred edge is over within so many sigmas; so far everything else must stay away.
_REACH, _CLEAR = 5.0, 2.5
_HALO_PX = 8.0  # beyond, for what a lens scatters; more would add noise
_LEAST_LENGTH_PX, _LEAST_ROOM_PX = 5.0, 2.0
_LEAST_CONTRAST = 5.0  # half the step over the scatter of a pixel
_MOST_EMPTY = 0.1
_MOST_MISSING = 0.01
_MOST_PEAK = 0.1
_FLAT = 0.6  # share of the window that is flat: holds a disc's whole profile


class EdgeMtf(NamedTuple):
    """Sharpness across one edge.

    Attributes
    ----------
    mtf50, sigma : float
        Where the MTF falls to one half, and its standard deviation by the noise of the pixels, cycles / px.
    mtf : ndarray (101,)
        At ``FREQUENCIES``.
    offset_px, turn_rad : float
        How far the edge lies from where it was said to be, along its normal, and how it is turned.
    contrast : float
        (white - black) / (white + black).
    length_px : float
        Of the edge that was used.
    """

    mtf50: float
    sigma: float
    mtf: Float
    offset_px: float
    turn_rad: float
    contrast: float
    length_px: float


class NoEdge(NamedTuple):
    """Why an edge says nothing."""

    reason: str


def edge_mtf(distance: Float, along: Float, grey: NDArray[np.floating], room: float) -> EdgeMtf | NoEdge:
    """MTF across an edge, of linear grey values around it.

    The e-SFR method of ISO 12233:2017: the pixels' values are put in order of their distance to the edge,
    averaged in bins of a quarter of a pixel, differentiated, windowed and transformed, and the result is
    divided by what the bins and the difference do. Four things differ. The edge is found by a fit of a
    blurred step over all its pixels, not by a line through the centroids of rows, so any direction will do.
    An even change of the light over the place is divided out. Only what the profile differs from the fitted
    step goes through bins, difference and window; the step's own transform is known. And the window is flat
    in its middle, where Hamming's would cut the profile of a lens out of focus. So the window changes the
    width of a blurred edge little, and places of the pixels that are not even within a bin matter little.

    Parameters
    ----------
    distance : ndarray (n,)
        Of the pixels' centres to the edge, px, positive on one side; right to about a pixel.
    along : ndarray (n,)
        Place along the edge, px.
    grey : ndarray (n,)
        Values proportional to light; NaN where a pixel is clipped or missing.
    room : float
        Up to this distance and this place along, from the middle, nothing but the edge is to be seen once
        2.5 sigmas of its blur are taken off: distances within ``-room .. room`` need not all be there.

    Returns
    -------
    EdgeMtf or NoEdge
        The reason, where the edge has clipped pixels, too little contrast or room, or runs so that the pixels
        do not sample it evenly (along rows, columns or diagonals).

    Notes
    -----
    ``sigma`` is carried from the scatter of the pixels about the profile, pixel by pixel, so it holds for
    noise that grows with the signal. It takes the pixels' noise as independent (no demosaicing, no
    sharpening), and knows nothing of an edge that is not straight or not cleanly printed.
    """
    present = np.isfinite(grey)
    if np.mean(present) < 1 - _MOST_MISSING:
        return NoEdge("clipped or missing pixels")
    d, s = distance[present], along[present]
    y = np.asarray(grey[present], np.float64)
    if len(y) < 40:
        return NoEdge("too short")
    level = float(np.sqrt(np.mean(y * y)))
    if level == 0:
        return NoEdge("no contrast")
    y = y / level
    middle = 0.5 * (s.min() + s.max())
    s = s - middle
    ends = float(s.max())
    fit = _Step.start(d, y).refined(d, s, y)
    # Once more, without what its blur shows to be too near to other edges, and without idle pixels.
    for _ in range(2):
        trim = _CLEAR * fit.blur
        half = min(room - trim, _REACH * fit.blur + _HALO_PX)
        length = 2 * (ends - trim)
        if half < max(_CLEAR * fit.blur, _LEAST_ROOM_PX) or fit.blur > 0.99 * _MOST_BLUR_PX:
            return NoEdge("blurred as wide as the clear space beside it")
        if length < _LEAST_LENGTH_PX:
            return NoEdge("too short for its blur")
        near = (np.abs(fit.place(d, s)) < half) & (np.abs(s) <= 0.5 * length)
        if np.count_nonzero(near) < 40:
            return NoEdge("too short")
        fit = fit.refined(d[near], s[near], y[near])
    d, s, y = d[near], s[near], y[near]
    return _transformed(fit, d, s, y, half, length)


class _Step(NamedTuple):
    """Blurred step (mean + half (2 Phi(x) - 1 - 2 peak He3(x) phi(x))) (1 + by_distance d + by_along s).

    x: distance to the edge over ``blur``. ``peak`` makes the blur more pointed than a Gaussian or, negative,
    flatter, as a disc is (the term of the fourth cumulant of the Gram-Charlier series).
    """

    offset: float
    turn: float
    blur: float
    mean: float
    half: float
    by_distance: float
    by_along: float
    peak: float

    @classmethod
    def start(cls, d: Float, y: Float) -> "_Step":
        high, low = float(y[d > 0].mean()), float(y[d <= 0].mean())
        return cls(0.0, 0.0, 1.0, 0.5 * (high + low), 0.5 * (high - low), 0.0, 0.0, 0.0)

    def place(self, d: Float, s: Float) -> Float:
        """Distance to the fitted edge."""
        return np.asarray((d - self.offset - self.turn * s) / np.sqrt(1 + self.turn**2))

    def model(self, d: Float, s: Float) -> tuple[Float, Float]:
        """Values (n,) and their derivatives (n, 8)."""
        x = self.place(d, s) / self.blur
        bell = np.exp(-0.5 * x * x) * np.sqrt(2 / np.pi)
        bend = -x * (x * x - 3) * bell
        step = erf(x / np.sqrt(2)) + self.peak * bend
        shade = 1 + self.by_distance * d + self.by_along * s
        level = self.mean + self.half * step
        slope = shade * self.half * bell * (1 + self.peak * (x * x * (x * x - 6) + 3)) / self.blur
        columns = [-slope, -slope * s, -slope * x, shade, shade * step]
        columns += [level * d, level * s, shade * self.half * bend]
        return level * shade, np.stack(columns, axis=-1)

    def transfer(self, frequency: Float) -> tuple[Float, Float]:
        """Transform (k,) of the blur, and its derivatives by ``blur`` and ``peak`` (k, 2)."""
        w2 = (2 * np.pi * self.blur * frequency) ** 2
        gauss, more = np.exp(-0.5 * w2), w2 * w2
        value = gauss * (1 + self.peak * more)
        by_blur = (4 * self.peak * gauss * more - w2 * value) / self.blur
        return value, np.stack([by_blur, gauss * more], axis=-1)

    def refined(self, d: Float, s: Float, y: Float) -> "_Step":
        """Least squares to values, by Levenberg and Marquardt."""
        best, damping = self, 1e-3
        model, jacobian = best.model(d, s)
        cost = float(np.sum((y - model) ** 2))
        for _ in range(_STEPS):
            normal = jacobian.T @ jacobian
            normal[np.diag_indices(len(_Step._fields))] *= 1 + damping
            normal[np.diag_indices(len(_Step._fields))] += 1e-12
            change = np.linalg.solve(normal, jacobian.T @ (y - model))
            values = np.array(best) + np.clip(change, -2.0, 2.0)
            low, high = max(_LEAST_BLUR_PX, best.blur / 2), min(_MOST_BLUR_PX, 2 * best.blur)
            values[2] = np.clip(values[2], low, high)
            values[7] = np.clip(values[7], -_MOST_PEAK, _MOST_PEAK)
            trial = _Step(*values.tolist())
            trial_model, trial_jacobian = trial.model(d, s)
            trial_cost = float(np.sum((y - trial_model) ** 2))
            if trial_cost <= cost:
                gained = cost - trial_cost
                best, model, jacobian, cost = trial, trial_model, trial_jacobian, trial_cost
                damping = max(damping / 10, 1e-9)
                if gained <= 1e-10 * cost:
                    break
            else:
                damping *= 10
                if damping > 1e6:
                    break
        return best


def _transformed(fit: _Step, d: Float, s: Float, y: Float, half: float, length: float) -> EdgeMtf | NoEdge:
    model, jacobian = fit.model(d, s)
    shade = 1 + fit.by_distance * d + fit.by_along * s
    residual = (y - model) / shade
    x = fit.place(d, s)
    count = 2 * int(half / BIN_PX)
    index = np.floor(x / BIN_PX).astype(np.int64) + count // 2
    inside = (index >= 0) & (index < count)
    filled = np.bincount(index[inside], minlength=count)
    if np.mean(filled == 0) > _MOST_EMPTY:
        return NoEdge("runs so that the pixels do not sample it evenly")
    means = np.bincount(index[inside], residual[inside], minlength=count) / np.maximum(filled, 1)
    centres = (np.arange(count) - count // 2 + 0.5) * BIN_PX
    known = filled > 0
    profile = np.interp(centres, centres[known], means[known])
    scatter = np.where(inside, residual - profile[np.clip(index, 0, count - 1)], residual)
    spread = float(np.sqrt(np.mean(scatter**2)))
    if abs(fit.half) < _LEAST_CONTRAST * spread:
        return NoEdge("too little contrast for its noise")
    taper = np.clip((np.abs(centres) / half - _FLAT) / (1 - _FLAT), 0, 1)
    window = 0.5 + 0.5 * np.cos(np.pi * taper)

    def weights(frequency: Float) -> NDArray[np.complex128]:
        """What each bin of the profile counts in the transform: (k, bins)."""
        f = frequency[:, None]
        turned = window * np.exp(-2j * np.pi * f * centres) * BIN_PX
        turned /= np.sinc(2 * BIN_PX * f) * np.sinc(BIN_PX * f)
        turned[:, [0, -1]] = 0
        out = np.zeros_like(turned)
        out[:, 1:] += turned[:, :-1]
        out[:, :-1] -= turned[:, 1:]
        return np.asarray(out / (2 * BIN_PX))

    def transfer(frequency: Float) -> NDArray[np.complex128]:
        return np.asarray((2 * fit.half * fit.transfer(frequency)[0] + weights(frequency) @ profile) / total)

    total = 2 * fit.half + float((weights(np.zeros(1)) @ profile).real[0])
    mtf = np.abs(transfer(FREQUENCIES))
    below = np.flatnonzero(mtf < 0.5)
    if not below.size:
        return NoEdge("sharper than the pixels can tell")
    low = FREQUENCIES[below[0] - 1]
    fine = low + np.linspace(0, 1, 21) * (FREQUENCIES[1] - FREQUENCIES[0])
    at = np.abs(transfer(fine))
    i = max(int(np.argmax(at < 0.5)), 1)
    slope = float((at[i] - at[i - 1]) / (fine[i] - fine[i - 1]))
    mtf50 = float(fine[i - 1] + (0.5 - at[i - 1]) / slope)

    # How each pixel's value moves the MTF at mtf50: through the bins, and through the fitted step.
    f = np.array([mtf50])
    value = transfer(f)[0]
    turn = np.conj(value) / abs(value)
    per_bin = (turn * (weights(f)[0] - value * weights(np.zeros(1))[0])).real / total
    per_pixel = np.where(inside, per_bin[np.clip(index, 0, count - 1)], 0.0)
    per_pixel /= np.maximum(filled[np.clip(index, 0, count - 1)], 1) * shade
    known_part, by_shape = fit.transfer(f)
    by_step = np.zeros(len(fit))
    by_step[[2, 7]] = 2 * fit.half * (turn / total).real * by_shape[0]
    by_step[4] = (turn * 2 * (known_part[0] - value) / total).real
    normal = jacobian.T @ jacobian
    normal[np.diag_indices(len(_Step._fields))] += 1e-12
    moved = np.linalg.solve(normal, by_step - jacobian.T @ per_pixel)
    gradient = per_pixel + jacobian @ moved
    freedom = max(len(y) - len(fit) - int(np.count_nonzero(known)), 1)
    noise = scatter * shade
    variance = float(np.sum((gradient * noise) ** 2)) * len(y) / freedom
    return EdgeMtf(
        mtf50,
        float(np.sqrt(variance)) / abs(slope),
        mtf,
        fit.offset,
        float(np.arctan(fit.turn)),
        abs(fit.half) / fit.mean if fit.mean > 0 else np.inf,
        length,
    )
