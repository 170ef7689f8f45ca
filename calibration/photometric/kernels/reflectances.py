"""Reflectances of which a material is a mixture, compiled; ``photometric.bank`` has them in numpy."""

import math
from typing import Any

from numba import njit

from calibration.photometric.kernels.samples import COMPILE, HX, HY, HZ, INNER, LX, LY, LZ

# Kinds. The width is: of a coat Schlick's power, of a rough body Oren and Nayar's sigma (rad), of a lobe
# alpha; the lobes stand last.
LAMBERT, COATED, ROUGH, AMBIENT, GGX, COMPACT = range(6)

# Cosine to the eye below which the lobes' shadowing is held.
GRAZING = 0.02


@njit(**INNER)
def _enter(cosine: Any, power: Any) -> Any:
    """Part of the light that gets through a coat: 1 - (1 - cosine)^power."""
    kept = 1.0
    for _ in range(int(power)):
        kept *= 1.0 - cosine
    return 1.0 - kept


@njit(**COMPILE)
def respond(n: Any, sight: Any, kinds: Any, widths: Any, use: Any, work: Any, out: Any) -> None:
    """``out[j, k]`` = radiance of reflectance j under light k of unit irradiance, where ``use[j] > 0``.

    A lobe is that of a Fresnel reflectance of 1/4.
    """
    lx, ly, lz, hx, hy, hz = work[LX], work[LY], work[LZ], work[HX], work[HY], work[HZ]
    x, y, z = n[0], n[1], n[2]
    nv = max(x * sight[0] + y * sight[1] + z * sight[2], GRAZING)
    for j in range(len(kinds)):
        if not use[j] > 0.0:
            continue
        kind, width, row = kinds[j], widths[j], out[j]
        for k in range(len(lx)):
            cosine = x * lx[k] + y * ly[k] + z * lz[k]
            nl = max(cosine, 0.0)
            if kind >= GGX:
                a2 = width * width
                nh = x * hx[k] + y * hy[k] + z * hz[k]
                nh2 = max(nh * nh, 1e-9)
                shade = nl * math.sqrt(a2 + (1.0 - a2) * nv * nv)
                shade += nv * math.sqrt(a2 + (1.0 - a2) * nl * nl)
                if kind == GGX:
                    d = nh2 * (a2 - 1.0) + 1.0
                    row[k] = 0.125 * a2 * nl / (d * d * shade)
                else:
                    # Student's slopes of order 16: four squarings.
                    d = 15.0 * a2 * nh2 / (nh2 * (15.0 * a2 - 1.0) + 1.0)
                    d = d * d
                    d = d * d
                    d = d * d
                    d = d * d
                    row[k] = 0.125 * nl * d / (a2 * nh2 * nh2 * shade)
            elif kind == LAMBERT:
                row[k] = nl
            elif kind == COATED:
                row[k] = nl * _enter(nl, width) * _enter(nv, width)
            elif kind == ROUGH:
                s2 = width * width
                across = lx[k] * sight[0] + ly[k] * sight[1] + lz[k] * sight[2] - nl * nv
                back = 0.45 * s2 / (s2 + 0.09) * max(across, 0.0) / max(nl, nv)
                row[k] = nl * (1.0 - 0.5 * s2 / (s2 + 0.33) + back)
            else:
                row[k] = 0.5 + 0.5 * cosine
