"""How errors of the lights turn one pixel's normal."""

import math
from typing import Any

from numba import njit

from calibration.photometric.kernels.samples import (
    AXIS,
    COMPILE,
    GLOSS,
    LX,
    LY,
    LZ,
    NEAR,
    ORDER,
    PLACE,
    M,
    W,
)

# Columns of the table of errors: covariance of the direction or position (xx, xy, xz, yy, yz, zz), relative
# variance of the irradiance at the middle of the object.
PLACE_SPREAD = 0
IRRADIANCE_SPREAD = 6
ERRORS = 7


@njit(**COMPILE)
def _slope(light: Any, x: Any, y: Any, z: Any, out: Any) -> Any:
    """Write the derivative of the logarithm of a near light's irradiance at a point along its position.

    Returns the distance.
    """
    dx, dy, dz = light[PLACE] - x, light[PLACE + 1] - y, light[PLACE + 2] - z
    away = math.sqrt(dx * dx + dy * dy + dz * dz)
    dx, dy, dz = dx / away, dy / away, dz / away
    fall = -2.0 / away
    out[0], out[1], out[2] = fall * dx, fall * dy, fall * dz
    order = light[ORDER]
    if order > 0.0:
        ax, ay, az = light[AXIS], light[AXIS + 1], light[AXIS + 2]
        cosine = -(dx * ax + dy * ay + dz * az)
        if cosine > 0.0:
            turn = order / (cosine * away)
            out[0] -= turn * (ax + cosine * dx)
            out[1] -= turn * (ay + cosine * dy)
            out[2] -= turn * (az + cosine * dz)
    return away


@njit(**COMPILE)
def turned(
    lights: Any, errors: Any, at: Any, middle: Any, work: Any, inverse: Any, b: Any, n: Any, room: Any
) -> Any:
    """Variance of ``b`` across ``n`` by the errors of the lights, those of different lights independent.

    The normal equations sum w (m - gloss - b . l) l = 0 hold for any lights; their derivative along a light
    tells how it moves ``b``, weights held. ``inverse`` is that of sum w l l^T; ``room`` (6,) is scratch.
    """
    m, gloss, w, lx, ly, lz = work[M], work[GLOSS], work[W], work[LX], work[LY], work[LZ]
    here, there = room[:3], room[3:6]
    # Two axes across n, through the inverse.
    if abs(n[2]) < 0.9:
        size = math.sqrt(n[0] * n[0] + n[1] * n[1])
        px, py, pz = -n[1] / size, n[0] / size, 0.0
    else:
        size = math.sqrt(n[1] * n[1] + n[2] * n[2])
        px, py, pz = 0.0, -n[2] / size, n[1] / size
    i = inverse
    total = 0.0
    for axis in range(2):
        if axis == 1:
            px, py, pz = n[1] * pz - n[2] * py, n[2] * px - n[0] * pz, n[0] * py - n[1] * px
        ux = i[0] * px + i[1] * py + i[2] * pz
        uy = i[1] * px + i[3] * py + i[4] * pz
        uz = i[2] * px + i[4] * py + i[5] * pz
        for k in range(len(w)):
            if not w[k] > 0.0:
                continue
            c = errors[k]
            ul = ux * lx[k] + uy * ly[k] + uz * lz[k]
            e = m[k] - gloss[k] - b[0] * lx[k] - b[1] * ly[k] - b[2] * lz[k]
            # Along a step of the direction.
            gx, gy, gz = e * ux - ul * b[0], e * uy - ul * b[1], e * uz - ul * b[2]
            if lights[k, NEAR] > 0.5:
                away = _slope(lights[k], at[0], at[1], at[2], here)
                _slope(lights[k], middle[0], middle[1], middle[2], there)
                across = gx * lx[k] + gy * ly[k] + gz * lz[k]
                gx = (gx - across * lx[k]) / away - ul * m[k] * (here[0] - there[0])
                gy = (gy - across * ly[k]) / away - ul * m[k] * (here[1] - there[1])
                gz = (gz - across * lz[k]) / away - ul * m[k] * (here[2] - there[2])
            moved = (
                c[0] * gx * gx + c[3] * gy * gy + c[5] * gz * gz
                + 2.0 * (c[1] * gx * gy + c[2] * gx * gz + c[4] * gy * gz)
            )  # fmt: skip
            total += w[k] * w[k] * (moved + ul * ul * m[k] * m[k] * c[IRRADIANCE_SPREAD])
    return total
