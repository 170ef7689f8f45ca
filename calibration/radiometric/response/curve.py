"""An increasing response curve: the logarithm of its slope is a line between knots."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]

KNOTS = 64
# Share of the range by which both ends are softened, so that the last code is no infinity away.
_SOFT = 0.02
# The same at the dark end of a camera with a black level, through which the curve runs smoothly.
_SOFT_BLACK = 0.3
_REGIONS = 3


class Scale(NamedTuple):
    """Logistic scale between black and saturation, on which the knots are evenly spaced.

    A curve whose log slope is a line on it has the slope (DN - dark)**a * (bright - DN)**b: power laws,
    straight lines and shoulders alike. Roughness is measured as departure from those.

    Attributes
    ----------
    dark, bright : float
        DN that clip.
    soft_dark, soft_bright : float, DN
        By how much the ends are softened.
    """

    dark: float
    bright: float
    soft_dark: float
    soft_bright: float

    @classmethod
    def between(cls, dark: float, bright: float, clips_dark: bool) -> "Scale":
        """Scale of a camera whose black is clipped, or is a level about which it scatters."""
        span = bright - dark
        return cls(dark, bright, (_SOFT if clips_dark else _SOFT_BLACK) * span, _SOFT * span)

    def place(self, dn: Float) -> Float:
        """Where DNs lie, held to the range."""
        inside = np.clip(dn, self.dark, self.bright)
        return np.asarray(
            np.log((inside - self.dark + self.soft_dark) / (self.bright - inside + self.soft_bright))
        )

    def dn(self, place: Float) -> Float:
        """Inverse of ``place``."""
        ratio = np.exp(place)
        return np.asarray(
            (ratio * (self.bright + self.soft_bright) + self.dark - self.soft_dark) / (1 + ratio)
        )


def weights(at: Float, knots: Float) -> tuple[NDArray[np.intp], Float]:
    """Two knots about each place, (n, 2), and how much each counts in a line between them."""
    position = np.clip((at - knots[0]) / (knots[1] - knots[0]), 0, len(knots) - 1 - 1e-9)
    left = position.astype(np.intp)
    share = position - left
    return np.stack([left, left + 1], axis=1), np.stack([1 - share, share], axis=1)


def hats(at: Float, knots: Float) -> Float:
    """Values of the piecewise linear basis functions, (n, knots); constant beyond the ends."""
    corner, weight = weights(at, knots)
    values = np.zeros((len(at), len(knots)))
    np.put_along_axis(values, corner, weight, axis=1)
    return values


@dataclass(frozen=True, eq=False)
class Curve:
    """Family of curves over given codes.

    The parameters are the log slope at each knot; the exposure of the first code: its logarithm where that
    code is clipped black, which nothing below zero can be, else itself; and by how much, in logarithm, the
    step to saturation departs from the slope beside it.

    Attributes
    ----------
    centre : ndarray (codes,), DN
    knots : ndarray (k,)
        On ``scale``; k of them.
    basis : ndarray (codes - 1, k)
        Of the log slope between neighbouring codes.
    roughness : ndarray (regions, k + 2, k + 2)
        Quadratic forms: integral of the squared second derivative of the log slope over each region.
    rank : ndarray (regions,)
        Share of the second differences that each holds.
    positive : bool
        Whether the first code's exposure is stored as its logarithm.
    final : ndarray (codes - 1,)
        1 for steps into saturation.
    anchor : int
        Which code is the "first" of the parameters.
    scale : Scale
        On which the knots lie.
    """

    centre: Float
    knots: Float
    basis: Float
    roughness: Float
    rank: Float
    positive: bool
    final: Float
    anchor: int
    scale: Scale

    @classmethod
    def over(cls, centre: Float, first: int, last: int, positive: bool) -> "Curve":
        """Curves over the codes ``centre``, of which ``first`` and ``last`` clip."""
        # The steps to the clipped codes are not seen: they continue the slope beside them.
        middle = np.clip(0.5 * (centre[1:] + centre[:-1]), *_inner(centre, first, last))
        scale = Scale.between(float(centre[first]), float(centre[last]), positive)
        at = scale.place(middle)
        knots = np.linspace(at[0], at[-1], min(KNOTS, max(last - first - 2, 4)))
        second = np.diff(np.eye(len(knots)), 2, axis=0) / (knots[1] - knots[0]) ** 1.5
        # Toe, middle and shoulder may differ in how smooth they are.
        share = hats(np.linspace(0, 1, len(second)), np.linspace(0, 1, _REGIONS))
        roughness = np.zeros((_REGIONS, len(knots) + 2, len(knots) + 2))
        for part, weight in zip(roughness, share.T, strict=True):
            part[:-2, :-2] = second.T @ (weight[:, None] * second)
        final = np.zeros(len(centre) - 1)
        final[last - 1] = 1.0
        rank = share.sum(axis=0)
        return cls(centre, knots, hats(at, knots), roughness, rank, positive, final, 0, scale)

    def on(self, centre: Float, anchor: int) -> "Curve":
        """The same curves over other codes, ``anchor`` the one that was first."""
        middle = 0.5 * (centre[1:] + centre[:-1])
        at = self.scale.place(middle)
        before = self.centre[:-1][self.final > 0][0]
        final = ((middle > before) & (middle < self.scale.bright)).astype(np.float64)
        return replace(self, centre=centre, basis=hats(at, self.knots), final=final, anchor=anchor)

    def position(self, dn: Float) -> Float:
        """Where DNs lie between the knots, counted in knots."""
        at = self.scale.place(dn)
        return np.asarray((at - self.knots[0]) / (self.knots[1] - self.knots[0]))

    def exposure(self, parameters: Float) -> Float:
        """Relative exposure of each code."""
        offset = np.exp(parameters[-2]) if self.positive else parameters[-2]
        rise = np.concatenate([[0.0], np.cumsum(self.steps(parameters))])
        return np.asarray(rise - rise[self.anchor] + offset)

    def steps(self, parameters: Float) -> Float:
        """Differences of ``exposure``."""
        slope = self.basis @ parameters[:-2] + self.final * parameters[-1]
        return np.asarray(np.diff(self.centre) * np.exp(slope))

    def jacobian(self, parameters: Float) -> Float:
        """Derivative of ``exposure``, (codes, parameters)."""
        values = np.zeros((len(self.centre), len(parameters)))
        steps = self.steps(parameters)
        np.cumsum(steps[:, None] * self.basis, axis=0, out=values[1:, :-2])
        np.cumsum(steps * self.final, out=values[1:, -1])
        values -= values[self.anchor].copy()
        values[:, -2] = np.exp(parameters[-2]) if self.positive else 1.0
        return values

    def scaled(self, parameters: Float, factor: float) -> Float:
        """Parameters of the curve times ``factor``."""
        out = parameters.copy()
        out[:-2] += np.log(factor)
        out[-2] = parameters[-2] + np.log(factor) if self.positive else parameters[-2] * factor
        return out

    def through(self, exposure: Float) -> Float:
        """Parameters of a curve near increasing, positive exposures of the codes."""
        slope = np.log(np.diff(exposure) / np.diff(self.centre))
        start = np.log(exposure[0]) if self.positive else exposure[0]
        middle = 0.5 * (self.centre[1:] + self.centre[:-1])
        return np.concatenate([np.interp(self.scale.dn(self.knots), middle, slope), [start, 0.0]])


def _inner(centre: Float, first: int, last: int) -> tuple[float, float]:
    """DN range of the steps between codes that do not clip."""
    return 0.5 * (centre[first + 1] + centre[first + 2]), 0.5 * (centre[last - 2] + centre[last - 1])
