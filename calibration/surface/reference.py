"""What ``kernels`` and ``poisson`` must give, in numpy and scipy: slow, plain, for the tests."""

from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import spsolve

from calibration.geometry import Float

# Both ends of all edges along an axis.
_ENDS = ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1, :], np.s_[1:, :]))


def predict(
    normals: Float, rays: Float | None, sigma_deg: Float, floors: tuple[float, float, float]
) -> tuple[Float, Float, Float, Float, Float]:
    """Arrays (2, h, w) of edges: one, other, span, base, spread; every normal valid and none steep."""
    h, w = sigma_deg.shape
    sights = np.broadcast_to([0.0, 0.0, 1.0], normals.shape) if rays is None else rays
    facing = -np.sum(normals * sights, axis=2)
    noise = 0.5 * (np.radians(sigma_deg) * np.linalg.norm(sights, axis=2) / facing) ** 2
    one, other, span, base = (np.zeros((2, h, w)) for _ in range(4))
    spread = np.ones((2, h, w))
    for axis, (p, q) in enumerate(_ENDS):
        here = (axis, *p)
        if rays is None:
            a, b = normals[p][..., axis] / facing[p], normals[q][..., axis] / facing[q]
            step = np.ones_like(a)
        else:
            a = np.log(facing[p] / -np.sum(normals[p] * rays[q], axis=-1))
            b = np.log(-np.sum(normals[q] * rays[p], axis=-1) / facing[q])
            step = np.linalg.norm(rays[q] - rays[p], axis=-1)
        s = 2 / (1 / facing[p] + 1 / facing[q]) / step
        n = (noise[p] + noise[q]) / 2
        one[here], other[here], span[here] = a, b, s
        base[here] = s**2 / (n + floors[0] ** 2)
        spread[here] = np.sqrt(floors[1] ** 2 + (floors[2] * s * (a - b) / 2) ** 2 + n / 2)
    return one, other, span, base, spread


def one_sided(u: Float, one: Float, other: Float, span: Float, base: Float, k: float) -> tuple[Float, Float]:
    """Bilateral weights of the edges, and the difference that their ends together want."""
    weight, goal = np.zeros_like(base), np.zeros_like(base)
    for axis in range(2):
        change = (span[axis] * _difference(u, axis)) ** 2
        before, after = np.zeros_like(change), np.zeros_like(change)
        p, q = _ENDS[axis]
        before[q], after[p] = change[p], change[q]
        a, b = (1 / (1 + np.exp(np.minimum(k * (change - side), 60))) for side in (before, after))
        total = a + b + 2e-5
        edge = span[axis] > 0
        weight[axis] = base[axis] * total
        goal[axis] = np.where(edge, ((a + 1e-5) * one[axis] + (b + 1e-5) * other[axis]) / total, 0)
    return weight, goal


def redescending(
    u: Float, goal: Float, one: Float, other: Float, span: Float, base: Float, spread: Float, cosine: Float,
    width: float,
) -> tuple[Float, float]:  # fmt: skip
    """Weights that fall with the misfit of an edge, and the loss."""
    change = np.stack([_difference(u, axis) for axis in range(2)])
    off = span * (change - goal)
    turned = np.ones_like(off)
    for axis, (p, q) in enumerate(_ENDS):
        here = (axis, *p)
        behind, before = off[here] > 0, off[here] <= 0
        near = np.where(behind & (one[here] > 0), cosine[p], 1.0)
        turned[here] = np.where(before & (other[here] < 0), cosine[q], near)
    scale = width * spread * np.sqrt(0.3 + 0.7 * turned)
    root = (1 + (off / scale) ** 2) ** -0.5
    with np.errstate(divide="ignore", invalid="ignore"):
        loss = np.nansum(np.where(span > 0, base * (scale / span) ** 2 * (1 - root), 0.0))
    return np.asarray(base * np.maximum(root**3, 1e-5)), float(loss)


def contradict(one: Float, other: Float, span: Float, noise: Float) -> tuple[Float, Float]:
    """Sums round squares of pixels, and bends beyond those beside them, in sigmas; every edge known."""
    mean = (one + other) / 2
    squares, creases = np.full(noise.shape, -1.0), np.zeros(one.shape)
    total = mean[0, :-1, :-1] + mean[1, :-1, 1:] - mean[0, 1:, :-1] - mean[1, :-1, :-1]
    least = np.min([span[0, :-1, :-1], span[0, 1:, :-1], span[1, :-1, :-1], span[1, :-1, 1:]], axis=0)
    around = (noise[:-1, :-1] + noise[:-1, 1:] + noise[1:, :-1] + noise[1:, 1:]) / 4
    squares[:-1, :-1] = np.abs(total) * least / np.sqrt(2 * around + 1e-6)
    for axis, (p, q) in enumerate(_ENDS):
        bend = np.moveaxis((span * (one - other))[(axis, *p)], 1 - axis, 0)
        near = np.concatenate([bend[1:2], (bend[:-2] + bend[2:]) / 2, bend[-2:-1]])
        beyond = np.maximum(np.abs(bend - near) - np.abs(near) / 2, 0)
        sigma = np.sqrt(5 * (noise[p] + noise[q]) / 2 + 1e-6)
        creases[(axis, *p)] = np.moveaxis(beyond, 0, 1 - axis) / sigma
    return squares, creases


def solve_differences(
    weight: Float, goal: Float, pull: Float | None = None, wanted: Float | None = None
) -> Float:
    """Minimiser by a sparse factorisation; a breath of a pull to zero makes free constants definite."""
    _, h, w = weight.shape
    number = np.arange(h * w).reshape(h, w)
    starts = np.concatenate([number[p].ravel() for p, _ in _ENDS])
    ends = np.concatenate([number[q].ravel() for _, q in _ENDS])
    weights, goals = (
        np.concatenate([part[axis][_ENDS[axis][0]].ravel() for axis in range(2)]) for part in (weight, goal)
    )
    rows = np.arange(len(starts))
    ones = np.ones(len(starts))
    gradient = sparse.csr_matrix(
        (np.concatenate([-ones, ones]), (np.tile(rows, 2), np.concatenate([starts, ends]))),
        (len(starts), h * w),
    )
    held = np.full(h * w, 1e-12 * float(weight.max()))
    right: Any = gradient.T @ (weights * goals)
    if pull is not None and wanted is not None:
        held += pull.ravel()
        right = right + (pull * wanted).ravel()
    normal = gradient.T @ sparse.diags(weights) @ gradient + sparse.diags(held)
    return np.asarray(spsolve(normal.tocsc(), right).reshape(h, w))


def _difference(u: Float, axis: int) -> Float:
    change = np.zeros_like(u)
    p, q = _ENDS[axis]
    change[p] = u[q] - u[p]
    return change
