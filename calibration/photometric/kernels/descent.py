"""One pixel's normal under a bank of reflectances, compiled.

The sample of light k in channel c is m = sum_j share_cj B_j(n, l_k, v): every reflectance B_j of the bank has
a share of 0 or more, and the channels have the normal n and the trust in light k in common. Everything of a
channel is in units of its rms sample.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from calibration.photometric.kernels.nnls import factor, nonnegative, substitute
from calibration.photometric.kernels.reflectances import respond
from calibration.photometric.kernels.samples import INNER, OK, V, W, median

_BIWEIGHT = 4.685
_MAD_TO_SIGMA = 1.4826
# Prediction below which a sample says nothing about the scatter, and part of it below which it is a shadow.
_LIT = 0.1
_SHADOWED = 0.5
# The scale of the residuals is that of noise and model error, at most twice it: wider would take shadows for
# scatter.
_START_SCALE = 3.0
_WIDEST_SCALE = 2.0
_SCALE_SWEEPS = 6
# Loss of a light that something hides, when nothing arrives from it.
_HIDDEN = 0.15
_SWEEPS = 20
_WIDEST_STEP = 0.15
_CONVERGED = 2e-4
_DAMPING = 1e-3
# Turn (rad) of the numerical derivative by the normal.
_TINY = 1e-3


class Problem(NamedTuple):
    """Samples ``m`` (c, n), weights of the channels (mean 1), workspace of the lights, sight, bank."""

    m: Any
    gain: Any
    work: Any
    sight: Any
    kinds: Any
    widths: Any
    precision: Any


class State(NamedTuple):
    """The normal, shares (c, k), prediction (c, n), responses (k, n), slopes (c, n) along the tangents."""

    n: Any
    share: Any
    fit: Any
    bank: Any
    ju: Any
    jv: Any


class Scratch(NamedTuple):
    """Room that the steps share."""

    every: Any
    use: Any
    bent: Any
    row: Any
    gram: Any
    g: Any
    low: Any
    x: Any
    rhs: Any
    hu: Any
    hv: Any
    yu: Any
    yv: Any
    index: Any
    u: Any
    v: Any
    turned: Any


@njit(**INNER)
def room(channels: Any, lights: Any, size: Any) -> Any:
    """State and scratch for a bank of ``size``."""
    state = State(
        np.zeros(3), np.zeros((channels, size)), np.zeros((channels, lights)), np.zeros((size, lights)),
        np.zeros((channels, lights)), np.zeros((channels, lights)),
    )  # fmt: skip
    scratch = Scratch(
        np.ones(size), np.zeros(size), np.zeros((size, lights)), np.zeros(lights),
        np.zeros((size, size)), np.zeros((size, size)), np.zeros((size, size)), np.zeros(size),
        np.zeros(size), np.zeros(size), np.zeros(size), np.zeros(size), np.zeros(size),
        np.zeros(size, np.int64),
        np.zeros(3), np.zeros(3), np.zeros(3),
    )  # fmt: skip
    return state, scratch


@njit(**INNER)
def _gram(work: Any, bank: Any, row: Any, gram: Any) -> None:
    w = work[W]
    for i in range(len(bank)):
        for k in range(len(w)):
            row[k] = w[k] * bank[i, k]
        for j in range(i + 1):
            s = 0.0
            for k in range(len(w)):
                s += row[k] * bank[j, k]
            gram[i, j] = s
            gram[j, i] = s


@njit(**INNER)
def _mix(p: Problem, s: State, t: Scratch) -> None:
    """Shares of every channel at the normal and the weights of now, and what they predict."""
    _gram(p.work, s.bank, t.row, t.gram)
    w = p.work[W]
    channels, lights = p.m.shape
    size = len(p.kinds)
    for c in range(channels):
        for i in range(size):
            total = 0.0
            for k in range(lights):
                total += w[k] * s.bank[i, k] * p.m[c, k]
            t.rhs[i] = p.gain[c] * total
            for j in range(size):
                t.g[i, j] = p.gain[c] * t.gram[i, j] + p.precision[i, j]
        nonnegative(t.g, t.rhs, s.share[c], t.index, t.low, t.x)
        for k in range(lights):
            s.fit[c, k] = 0.0
        for j in range(size):
            a = s.share[c, j]
            if a > 0.0:
                for k in range(lights):
                    s.fit[c, k] += a * s.bank[j, k]


@njit(**INNER)
def _square(p: Problem, s: State, k: Any) -> Any:
    """Squared residual of a light over its expected square."""
    total = 0.0
    for c in range(len(p.m)):
        r = p.m[c, k] - s.fit[c, k]
        total += p.gain[c] * r * r
    return total / (len(p.m) * p.work[V, k])


@njit(**INNER)
def _weigh(p: Problem, s: State, t: Scratch, wide: Any) -> Any:
    """Tukey's weights, on the scale ``wide`` or, where that is 0, on that of the residuals; returns it."""
    channels, lights = p.m.shape
    v, ok, w = p.work[V], p.work[OK], p.work[W]
    if wide == 0.0:
        count = 0
        for k in range(lights):
            lit = seen = 0.0
            for c in range(channels):
                lit += s.fit[c, k]
                seen += p.m[c, k]
            if ok[k] > 0.0 and lit > _LIT * channels and seen > _SHADOWED * lit:
                t.row[count] = math.sqrt(_square(p, s, k))
                count += 1
        wide = _WIDEST_SCALE
        if count > 3:
            wide = min(max(1.0, _MAD_TO_SIGMA * median(t.row, count)), _WIDEST_SCALE)
    cut = 1.0 / (_BIWEIGHT * wide) ** 2
    for k in range(lights):
        g = max(1.0 - _square(p, s, k) * cut, 0.0)
        w[k] = ok[k] * g * g / (v[k] * wide * wide)
    return wide


@njit(**INNER)
def _loss(p: Problem, s: State) -> Any:
    """Tukey's loss per light, 0 to 1, on the scale of noise and model error: starts can be compared."""
    ok = p.work[OK]
    channels = len(p.m)
    cut = 1.0 / (_BIWEIGHT * _WIDEST_SCALE) ** 2
    total = count = 0.0
    for k in range(len(ok)):
        dark = 0.0
        for c in range(channels):
            dark += p.gain[c] * p.m[c, k] * p.m[c, k]
        g = max(1.0 - _square(p, s, k) * cut, 0.0)
        d = max(1.0 - dark / (channels * p.work[V, k]) * cut, 0.0)
        total += ok[k] * (1.0 - max(g * g * g, (1.0 - _HIDDEN) * d * d * d))
        count += ok[k]
    return total / count


@njit(**INNER)
def _bend(p: Problem, s: State, t: Scratch, along: Any, slope: Any) -> None:
    """Slope of the prediction (c, n) as the normal turns ``along`` a tangent, shares held."""
    for i in range(3):
        t.turned[i] = s.n[i] + _TINY * along[i]
    respond(t.turned, p.sight, p.kinds, p.widths, t.use, p.work, t.bent)
    for c in range(len(slope)):
        for k in range(slope.shape[1]):
            slope[c, k] = 0.0
        for j in range(len(p.kinds)):
            a = s.share[c, j] / _TINY
            if a > 0.0:
                for k in range(slope.shape[1]):
                    slope[c, k] += a * (t.bent[j, k] - s.bank[j, k])


@njit(**INNER)
def _tangents(p: Problem, s: State, t: Scratch) -> None:
    """Two unit tangents of the normal, and the slopes of the prediction along them."""
    n, u, v = s.n, t.u, t.v
    if abs(n[0]) < 0.7:
        u[0], u[1], u[2] = 0.0, n[2], -n[1]
    else:
        u[0], u[1], u[2] = -n[2], 0.0, n[0]
    scale = 1.0 / math.sqrt(u[0] * u[0] + u[1] * u[1] + u[2] * u[2])
    for i in range(3):
        u[i] *= scale
    v[0] = n[1] * u[2] - n[2] * u[1]
    v[1] = n[2] * u[0] - n[0] * u[2]
    v[2] = n[0] * u[1] - n[1] * u[0]
    for j in range(len(p.kinds)):
        t.use[j] = 0.0
        for c in range(len(s.share)):
            t.use[j] = max(t.use[j], s.share[c, j])
    _bend(p, s, t, u, s.ju)
    _bend(p, s, t, v, s.jv)


@njit(**INNER)
def _eliminate(p: Problem, s: State, t: Scratch, c: Any) -> Any:
    """Project the shares in use out of one channel's slopes; returns the prior's part of the equations.

    Kaufman's variable projection: L. Kaufman, BIT 15 (1975), doi:10.1007/BF01932995.
    """
    w, ju, jv = p.work[W], s.ju[c], s.jv[c]
    lights = len(w)
    count = 0
    for j in range(len(p.kinds)):
        if s.share[c, j] > 0.0:
            t.index[count] = j
            count += 1
    for i in range(count):
        a = t.index[i]
        hu = hv = 0.0
        for k in range(lights):
            hu += w[k] * s.bank[a, k] * ju[k]
            hv += w[k] * s.bank[a, k] * jv[k]
        t.hu[a], t.hv[a] = p.gain[c] * hu, p.gain[c] * hv
        for q in range(i + 1):
            b = t.index[q]
            total = 0.0
            for k in range(lights):
                total += w[k] * s.bank[a, k] * s.bank[b, k]
            t.g[a, b] = p.gain[c] * total + p.precision[a, b]
            t.g[b, a] = t.g[a, b]
    if count == 0 or not factor(t.g, t.index, count, t.low):
        for k in range(lights):
            ju[k] = 0.0
            jv[k] = 0.0
        return 0.0, 0.0, 0.0, 0.0, 0.0
    substitute(t.low, t.hu, t.index, count, t.yu)
    substitute(t.low, t.hv, t.index, count, t.yv)
    uu = uv = vv = ru = rv = 0.0
    for i in range(count):
        a = t.index[i]
        for k in range(lights):
            ju[k] -= t.yu[i] * s.bank[a, k]
            jv[k] -= t.yv[i] * s.bank[a, k]
        for q in range(count):
            b = t.index[q]
            stiff = p.precision[a, b]
            uu += t.yu[i] * stiff * t.yu[q]
            uv += t.yu[i] * stiff * t.yv[q]
            vv += t.yv[i] * stiff * t.yv[q]
            ru += t.yu[i] * stiff * s.share[c, b]
            rv += t.yv[i] * stiff * s.share[c, b]
    return uu, uv, vv, ru, rv


@njit(**INNER)
def equations(p: Problem, s: State, t: Scratch) -> Any:
    """Normal equations (uu, uv, vv; u, v) of the two turns of the normal, shares projected out.

    Leaves the projected slopes in ``ju`` and ``jv``, the tangents in ``u`` and ``v``.
    """
    _tangents(p, s, t)
    w = p.work[W]
    uu = uv = vv = ru = rv = 0.0
    for c in range(len(p.m)):
        prior = _eliminate(p, s, t, c)
        uu += prior[0]
        uv += prior[1]
        vv += prior[2]
        ru += prior[3]
        rv += prior[4]
        for k in range(len(w)):
            x = p.gain[c] * w[k]
            r = p.m[c, k] - s.fit[c, k]
            uu += x * s.ju[c, k] * s.ju[c, k]
            uv += x * s.ju[c, k] * s.jv[c, k]
            vv += x * s.jv[c, k] * s.jv[c, k]
            ru += x * s.ju[c, k] * r
            rv += x * s.jv[c, k] * r
    return uu, uv, vv, ru, rv


@njit(**INNER)
def _step(p: Problem, s: State, t: Scratch) -> Any:
    """Turn the normal by a damped step of Gauss and Newton; returns its length, 0 where there is none."""
    uu, uv, vv, ru, rv = equations(p, s, t)
    extra = _DAMPING * (uu + vv)
    det = (uu + extra) * (vv + extra) - uv * uv
    if not det > 0.0:
        return 0.0
    du = ((vv + extra) * ru - uv * rv) / det
    dv = ((uu + extra) * rv - uv * ru) / det
    length = math.sqrt(du * du + dv * dv)
    shrink = min(1.0, _WIDEST_STEP / max(length, 1e-300))
    norm = 0.0
    for i in range(3):
        s.n[i] += shrink * (du * t.u[i] + dv * t.v[i])
        norm += s.n[i] * s.n[i]
    norm = 1.0 / math.sqrt(norm)
    for i in range(3):
        s.n[i] *= norm
    return length


@njit(**INNER)
def descend(p: Problem, s: State, t: Scratch) -> Any:
    """Gauss and Newton on the normal, non-negative shares, Tukey's weights; returns the loss."""
    v, ok, w = p.work[V], p.work[OK], p.work[W]
    for c in range(len(s.share)):
        for j in range(len(p.kinds)):
            s.share[c, j] = 0.0
    for k in range(len(w)):
        w[k] = ok[k] / (v[k] * _START_SCALE * _START_SCALE)
    wide = 0.0
    respond(s.n, p.sight, p.kinds, p.widths, t.every, p.work, s.bank)
    _mix(p, s, t)
    _weigh(p, s, t, 0.0)
    for sweep in range(_SWEEPS):
        _mix(p, s, t)
        wide = _weigh(p, s, t, 0.0 if sweep < _SCALE_SWEEPS else wide)
        if sweep == _SWEEPS - 1:
            break
        length = _step(p, s, t)
        respond(s.n, p.sight, p.kinds, p.widths, t.every, p.work, s.bank)
        if length == 0.0 or (length < _CONVERGED and sweep > 2):
            break
    _mix(p, s, t)
    return _loss(p, s)


@njit(**INNER)
def settle(p: Problem, s: State, t: Scratch) -> None:
    """Responses, shares and prediction at the normal and the weights that are set."""
    respond(s.n, p.sight, p.kinds, p.widths, t.every, p.work, s.bank)
    _mix(p, s, t)
