"""How errors of the lights turn one pixel's normal."""

import math
from typing import Any

from numba import njit

from calibration.photometric.kernels.samples import (
    AXIS,
    GLOSS,
    INNER,
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


@njit(**INNER)
def slope(light: Any, x: Any, y: Any, z: Any, out: Any) -> Any:
    """Write the derivative of the logarithm of a near light's irradiance at a point along its position.

    Returns one over the distance.
    """
    dx, dy, dz = light[PLACE] - x, light[PLACE + 1] - y, light[PLACE + 2] - z
    near = 1.0 / math.sqrt(dx * dx + dy * dy + dz * dz)
    dx, dy, dz = dx * near, dy * near, dz * near
    fall = -2.0 * near
    order = light[ORDER]
    if order > 0.0:
        ax, ay, az = light[AXIS], light[AXIS + 1], light[AXIS + 2]
        cosine = -(dx * ax + dy * ay + dz * az)
        turn = order * near / max(cosine, 1e-6)
        fall -= turn * cosine
        out[0], out[1], out[2] = fall * dx - turn * ax, fall * dy - turn * ay, fall * dz - turn * az
    else:
        out[0], out[1], out[2] = fall * dx, fall * dy, fall * dz
    return near


@njit(**INNER)
def turned(
    lights: Any, errors: Any, at: Any, slopes: Any, work: Any, inverse: Any, b: Any, n: Any, here: Any
) -> Any:
    """Variance of ``b`` across ``n`` by the errors of the lights, those of different lights independent.

    The normal equations sum w (m - gloss - b . l) l = 0 hold for any lights; their derivative along a light
    tells how it moves ``b``, weights held. ``inverse`` is that of sum w l l^T; ``slopes`` (n, 3) are those at
    the middle of the object; ``here`` (3,) is scratch.
    """
    m, gloss, w, lx, ly, lz = work[M], work[GLOSS], work[W], work[LX], work[LY], work[LZ]
    # Two axes p, q across n, through the inverse: u, v.
    if abs(n[2]) < 0.9:
        size = 1.0 / math.sqrt(n[0] * n[0] + n[1] * n[1])
        px, py, pz = -n[1] * size, n[0] * size, 0.0
    else:
        size = 1.0 / math.sqrt(n[1] * n[1] + n[2] * n[2])
        px, py, pz = 0.0, -n[2] * size, n[1] * size
    qx, qy, qz = n[1] * pz - n[2] * py, n[2] * px - n[0] * pz, n[0] * py - n[1] * px
    i = inverse
    ux, uy, uz = (
        i[0] * px + i[1] * py + i[2] * pz,
        i[1] * px + i[3] * py + i[4] * pz,
        i[2] * px + i[4] * py + i[5] * pz,
    )
    vx, vy, vz = (
        i[0] * qx + i[1] * qy + i[2] * qz,
        i[1] * qx + i[3] * qy + i[4] * qz,
        i[2] * qx + i[4] * qy + i[5] * qz,
    )
    total = 0.0
    for k in range(len(w)):
        if not w[k] > 0.0:
            continue
        x, y, z = lx[k], ly[k], lz[k]
        ul, vl = ux * x + uy * y + uz * z, vx * x + vy * y + vz * z
        e = m[k] - gloss[k] - b[0] * x - b[1] * y - b[2] * z
        # How p . b and q . b move along a step of the direction.
        gx, gy, gz = e * ux - ul * b[0], e * uy - ul * b[1], e * uz - ul * b[2]
        hx, hy, hz = e * vx - vl * b[0], e * vy - vl * b[1], e * vz - vl * b[2]
        if lights[k, NEAR] > 0.5:
            near = slope(lights[k], at[0], at[1], at[2], here)
            sx, sy, sz = (
                m[k] * (here[0] - slopes[k, 0]),
                m[k] * (here[1] - slopes[k, 1]),
                m[k] * (here[2] - slopes[k, 2]),
            )
            g, h = gx * x + gy * y + gz * z, hx * x + hy * y + hz * z
            gx, gy, gz = (
                (gx - g * x) * near - ul * sx,
                (gy - g * y) * near - ul * sy,
                (gz - g * z) * near - ul * sz,
            )
            hx, hy, hz = (
                (hx - h * x) * near - vl * sx,
                (hy - h * y) * near - vl * sy,
                (hz - h * z) * near - vl * sz,
            )
        c = errors[k]
        square = (
            c[0] * (gx * gx + hx * hx) + c[3] * (gy * gy + hy * hy) + c[5] * (gz * gz + hz * hz)
            + 2.0 * (c[1] * (gx * gy + hx * hy) + c[2] * (gx * gz + hx * hz) + c[4] * (gy * gz + hy * hz))
            + c[IRRADIANCE_SPREAD] * m[k] * m[k] * (ul * ul + vl * vl)
        )  # fmt: skip
        total += w[k] * w[k] * square
    return total
