"""Compiled parts of the bundle adjustment: places of the corners, derivatives, and the normal equations."""

import numba
import numpy as np
from numpy.typing import NDArray

from calibration.geometry import Float

Index = NDArray[np.int64]


@numba.njit(cache=True)
def place(
    points: Float,
    view: Index,
    camera: Index,
    turns: Float,
    shifts: Float,
    turns_c: Float,
    shifts_c: Float,
) -> tuple[Float, Float]:
    """Board points (n, 3) turned into the rig's axes, without shift, and in their cameras' frames."""
    n = len(points)
    turned, seen = np.empty((n, 3)), np.empty((n, 3))
    for i in range(n):
        r, t = turns[view[i]], shifts[view[i]]
        rc, tc = turns_c[camera[i]], shifts_c[camera[i]]
        x, y, z = points[i]
        for k in range(3):
            turned[i, k] = r[k, 0] * x + r[k, 1] * y + r[k, 2] * z
        x, y, z = turned[i, 0] + t[0], turned[i, 1] + t[1], turned[i, 2] + t[2]
        for k in range(3):
            seen[i, k] = rc[k, 0] * x + rc[k, 1] * y + rc[k, 2] * z + tc[k]
    return turned, seen


@numba.njit(cache=True)
def brown_conrady(points: Float, parameters: Float, limit: float) -> tuple[Float, Float, Float]:
    """Projection (n, 2) of points (n, 3), its derivatives by them (n, 2, 3) and by fx ... k6 (n, 2, 12).

    NaN behind the camera, and from the tangent ``limit`` to the axis on.
    """
    fx, fy, cx, cy, k1, k2, p1, p2, k3, k4, k5, k6 = parameters
    n = len(points)
    pixels, by_points, by_parameters = np.empty((n, 2)), np.empty((n, 2, 3)), np.zeros((n, 2, 12))
    for i in range(n):
        z = points[i, 2]
        iz = 1 / z if z > 0 else np.nan
        x, y = points[i, 0] * iz, points[i, 1] * iz
        if not np.hypot(x, y) < limit:
            x = np.nan
        xx, yy, xy = x * x, y * y, x * y
        r2 = xx + yy
        under = 1 + r2 * (k4 + r2 * (k5 + r2 * k6))
        radial = (1 + r2 * (k1 + r2 * (k2 + r2 * k3))) / under
        # Twice the derivative by r2.
        slope = 2 * (k1 + r2 * (2 * k2 + 3 * r2 * k3))
        slope = (slope - radial * 2 * (k4 + r2 * (2 * k5 + 3 * r2 * k6))) / under
        ax, ay = r2 + 2 * xx, r2 + 2 * yy
        xd = x * radial + 2 * p1 * xy + p2 * ax
        yd = y * radial + p1 * ay + 2 * p2 * xy
        pixels[i, 0], pixels[i, 1] = fx * xd + cx, fy * yd + cy
        by_parameters[i, 0, 0], by_parameters[i, 1, 1] = xd, yd
        by_parameters[i, 0, 2], by_parameters[i, 1, 3] = 1.0, 1.0
        by, low = r2 / under, -radial / under * r2
        for j in range(3):
            over = 4 + j if j < 2 else 8
            by_parameters[i, 0, over], by_parameters[i, 1, over] = fx * x * by, fy * y * by
            by_parameters[i, 0, 9 + j], by_parameters[i, 1, 9 + j] = fx * x * low, fy * y * low
            by, low = by * r2, low * r2
        by_parameters[i, 0, 6], by_parameters[i, 1, 6] = 2 * fx * xy, fy * ay
        by_parameters[i, 0, 7], by_parameters[i, 1, 7] = fx * ax, 2 * fy * xy
        cross = slope * xy + 2 * p1 * x + 2 * p2 * y
        ux, uy = fx * (radial + slope * xx + 2 * p1 * y + 6 * p2 * x) * iz, fx * cross * iz
        vx, vy = fy * cross * iz, fy * (radial + slope * yy + 6 * p1 * y + 2 * p2 * x) * iz
        by_points[i, 0, 0], by_points[i, 0, 1], by_points[i, 0, 2] = ux, uy, -(ux * x + uy * y)
        by_points[i, 1, 0], by_points[i, 1, 1], by_points[i, 1, 2] = vx, vy, -(vx * x + vy * y)
    return pixels, by_points, by_parameters


@numba.njit(cache=True)
def normal_equations(
    residual: Float,
    weight: Float,
    by_points: Float,
    by_parameters: Float,
    columns: Index,
    turned: Float,
    seen: Float,
    by_board: Float,
    view: Index,
    camera: Index,
    turns: Float,
    turns_c: Float,
    shifts_c: Float,
    camera_columns: Index,
    board_columns: Index,
    unknowns: int,
) -> tuple[Float, Float, Float, Float, Float]:
    """Sums of weighted products of the derivatives of n corners' pixels.

    Parameters
    ----------
    residual : ndarray (n, 2)
        Measured minus model.
    weight : ndarray (n,)
        Of both coordinates; corners of weight 0 are not looked at.
    by_points, by_parameters : ndarray (n, 2, 3), (n, 2, m)
        Of the pixels, by the point in its camera's frame and by the lens.
    columns : ndarray (n, m)
        Unknown that each column of ``by_parameters`` belongs to; -1 where it is held.
    turned, seen : ndarray (n, 3)
        Of ``place``.
    by_board : ndarray (n, 3, 4)
        Of the point in the board's frame, by the shape of the board; not looked at where that is held.
    camera_columns, board_columns : ndarray (c,), (4,)
        First unknown of each camera's six, and of the board's four; -1 where held.
    unknowns : int
        How many, g, without the poses of the board.

    Returns
    -------
    a, b, c, ga, gc : ndarray (g, g), (v, g, 6), (v, 6, 6), (g,), (v, 6)
        Unknowns, unknowns with poses, poses; right-hand sides.
    """
    views, width = len(turns), by_parameters.shape[2]
    a, ga = np.zeros((unknowns, unknowns)), np.zeros(unknowns)
    b, c, gc = np.zeros((views, unknowns, 6)), np.zeros((views, 6, 6)), np.zeros((views, 6))
    at = np.empty(width + 10, np.int64)
    row, pose = np.empty((width + 10, 2)), np.empty((6, 2))
    by_rig = np.empty((2, 3))
    for i in range(len(residual)):
        w = weight[i]
        if w == 0:
            continue
        v, k, count = view[i], camera[i], 0
        for j in range(width):
            if columns[i, j] >= 0:
                at[count] = columns[i, j]
                row[count, 0], row[count, 1] = by_parameters[i, 0, j], by_parameters[i, 1, j]
                count += 1
        rc = turns_c[k]
        for d in range(2):
            p = by_points[i, d]
            for j in range(3):
                by_rig[d, j] = p[0] * rc[0, j] + p[1] * rc[1, j] + p[2] * rc[2, j]
            # A small turn moves a point by turn x point.
            q, g = turned[i], by_rig[d]
            pose[0, d], pose[1, d] = g[2] * q[1] - g[1] * q[2], g[0] * q[2] - g[2] * q[0]
            pose[2, d] = g[1] * q[0] - g[0] * q[1]
            pose[3, d], pose[4, d], pose[5, d] = g[0], g[1], g[2]
        if camera_columns[k] >= 0:
            x = seen[i, 0] - shifts_c[k, 0]
            y = seen[i, 1] - shifts_c[k, 1]
            z = seen[i, 2] - shifts_c[k, 2]
            for d in range(2):
                p = by_points[i, d]
                row[count, d], row[count + 1, d] = p[2] * y - p[1] * z, p[0] * z - p[2] * x
                row[count + 2, d] = p[1] * x - p[0] * y
                row[count + 3, d], row[count + 4, d], row[count + 5, d] = p[0], p[1], p[2]
            for j in range(6):
                at[count + j] = camera_columns[k] + j
            count += 6
        for j in range(4):
            if board_columns[j] >= 0:
                at[count] = board_columns[j]
                for d in range(2):
                    total = 0.0
                    for m in range(3):
                        moved = 0.0
                        for n in range(3):
                            moved += turns[v, m, n] * by_board[i, n, j]
                        total += by_rig[d, m] * moved
                    row[count, d] = total
                count += 1
        r0, r1 = w * residual[i, 0], w * residual[i, 1]
        for j in range(count):
            x, y = w * row[j, 0], w * row[j, 1]
            to = at[j]
            for m in range(j + 1):
                product = x * row[m, 0] + y * row[m, 1]
                a[to, at[m]] += product
                if m < j:
                    a[at[m], to] += product
            for m in range(6):
                b[v, to, m] += x * pose[m, 0] + y * pose[m, 1]
            ga[to] += row[j, 0] * r0 + row[j, 1] * r1
        for j in range(6):
            x, y = w * pose[j, 0], w * pose[j, 1]
            for m in range(6):
                c[v, j, m] += x * pose[m, 0] + y * pose[m, 1]
            gc[v, j] += pose[j, 0] * r0 + pose[j, 1] * r1
    return a, b, c, ga, gc
