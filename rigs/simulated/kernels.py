"""Inner loops of the twin. Everything is a pure function of its arguments, whatever the number of threads."""

import math
from typing import Any

import numpy as np
from numba import njit, prange

_U32 = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)
_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)


@njit(cache=True, inline="always")
def _philox(c0: Any, c1: Any, c2: Any, c3: Any, k0: Any, k1: Any) -> Any:
    # Philox4x32-10 (Salmon et al. 2011, doi:10.1145/2063384.2063405); words kept in uint64
    for _ in range(10):
        p0 = _M0 * c0
        p1 = _M1 * c2
        c0 = (p1 >> _SHIFT) ^ c1 ^ k0
        c1 = p1 & _U32
        c2 = (p0 >> _SHIFT) ^ c3 ^ k1
        c3 = p0 & _U32
        k0 = (k0 + _W0) & _U32
        k1 = (k1 + _W1) & _U32
    return c0, c1, c2, c3


@njit(cache=True)
def philox(counter: Any, key: Any) -> Any:
    """Philox4x32-10 block: four counter words, two key words (uint64 holding 32 bits) -> four words."""
    return _philox(counter[0], counter[1], counter[2], counter[3], key[0], key[1])


@njit(cache=True, inline="always")
def _unit(word: Any) -> Any:
    # centres of 2^32 cells: never 0 and never 1
    return (np.float64(word) + 0.5) * 2.3283064365386963e-10


@njit(cache=True)
def _poisson_small(mean: Any, u: Any) -> Any:
    # inversion by sequential search
    p = math.exp(-mean)
    total = p
    k = 0
    while u > total and k < 200:
        k += 1
        p *= mean / k
        total += p
    return np.float64(k)


@njit(cache=True, inline="always")
def _log_factorial(k: Any) -> Any:
    # Stirling's series at k >= 8 is good to 1e-9; below, the product
    if k < 8.0:
        product = 1.0
        for j in range(2, int(k) + 1):
            product *= j
        return math.log(product)
    return (
        (k + 0.5) * math.log(k)
        - k
        + 0.9189385332046727
        + (1 - (1 / 30.0 - 1 / (105.0 * k * k)) / (k * k)) / (12.0 * k)
    )


@njit(cache=True)
def _sample(mean: Any, pixel: Any, k0: Any, k1: Any) -> Any:
    """Poisson variate of ``mean`` and an independent standard normal one, for this pixel and key."""
    zero = np.uint64(0)
    w0, w1, w2, w3 = _philox(pixel, zero, zero, zero, k0, k1)
    normal = math.sqrt(-2.0 * math.log(_unit(w2))) * math.cos(6.283185307179586 * _unit(w3))
    if mean <= 0.0:
        return 0.0, normal
    if mean < 10.0:
        return _poisson_small(
            mean, _unit(w0) + (np.float64(w1) - 2147483648.0) * 5.421010862427522e-20
        ), normal
    # PTRS: W. Hoermann 1993, doi:10.1016/0167-6687(93)90997-4
    b = 0.931 + 2.53 * math.sqrt(mean)
    a = -0.059 + 0.02483 * b
    accept = 0.9277 - 3.6224 / (b - 2.0)
    log_mean = math.log(mean)
    block = np.uint64(0)
    second = False
    while True:
        u = _unit(w0) - 0.5
        v = _unit(w1)
        us = 0.5 - abs(u)
        k = math.floor((2.0 * a / us + b) * u + mean + 0.43)
        if us >= 0.07 and v <= accept:
            return k, normal
        if k >= 0.0 and not (us < 0.013 and v > us):
            hat = math.log(v * (1.1239 + 1.1328 / (b - 3.4)) / (a / (us * us) + b))
            if hat <= k * log_mean - mean - _log_factorial(k):
                return k, normal
        if second:
            w0, w1 = w2, w3
            second = False
        else:
            block += np.uint64(1)
            w0, w1, w2, w3 = _philox(pixel, block, zero, zero, k0, k1)
            second = True


@njit(cache=True, parallel=True)
def expose(
    photons: Any,
    dark: Any,
    offset: Any,
    sensor: Any,
    table: Any,
    key: Any,
    corner: Any,
    stride: Any,
    out: Any,
) -> None:
    """Electrons and numbers of one exposure.

    ``photons``, ``dark`` (mean electrons), ``offset`` (electrons): (h, w) float32. ``sensor``: full well,
    read noise, DN/e-, black, largest DN. ``table``: response, empty when linear. ``corner``, ``stride``:
    where the array lies on the sensor and the sensor's width. ``out``: (h, w) uint16.
    """
    rows, columns = photons.shape
    full_well, read_noise, gain, black, top = sensor[0], sensor[1], sensor[2], sensor[3], sensor[4]
    last = table.size - 1
    for row in prange(rows):
        for column in range(columns):
            pixel = np.uint64((corner[0] + row) * stride + corner[1] + column)
            mean = np.float64(photons[row, column]) + np.float64(dark[row, column])
            electrons, normal = _sample(mean, pixel, key[0], key[1])
            electrons = min(electrons, full_well) + offset[row, column] + read_noise * normal
            value = gain * electrons + black
            if last > 0:
                at = min(max(value / top, 0.0), 1.0) * last
                low = min(int(at), last - 1)
                value = top * (table[low] + (at - low) * (table[low + 1] - table[low]))
            out[row, column] = np.uint16(min(max(math.floor(value + 0.5), 0.0), top))


@njit(cache=True, inline="always")
def _relief(x: Any, y: Any, features: Any) -> Any:
    """Height and its two slopes; a feature is (cap?, x, y, cos, sin, radius along, radius across, height)."""
    height = 0.0
    slope_x = 0.0
    slope_y = 0.0
    for i in range(features.shape[0]):
        dx = x - features[i, 1]
        dy = y - features[i, 2]
        a = features[i, 5]
        if features[i, 0] > 0.5:
            h = features[i, 7]
            r2 = dx * dx + dy * dy
            if r2 < a * a:
                ball = 0.5 * (a * a + h * h) / h
                root = math.sqrt(ball * ball - r2) * (1.0 if h > 0 else -1.0)
                height += root - (ball - h)
                slope_x -= dx / root
                slope_y -= dy / root
        else:
            b = features[i, 6]
            u = (features[i, 3] * dx + features[i, 4] * dy) / a
            v = (features[i, 3] * dy - features[i, 4] * dx) / b
            q = u * u + v * v
            if q < 60.0:
                g = features[i, 7] * math.exp(-0.5 * q)
                height += g
                slope_x -= g * (u * features[i, 3] / a - v * features[i, 4] / b)
                slope_y -= g * (u * features[i, 4] / a + v * features[i, 3] / b)
    return height, slope_x, slope_y


@njit(cache=True, parallel=True)
def relief(x: Any, y: Any, features: Any, out: Any) -> None:
    """Height and slopes at points: (n,), (n,), (k, 8) -> out (n, 3), all float64."""
    for i in prange(x.size):
        out[i, 0], out[i, 1], out[i, 2] = _relief(x[i], y[i], features)


@njit(cache=True, parallel=True)
def meet_relief(origins: Any, directions: Any, features: Any, reach: Any, t: Any, slopes: Any) -> None:
    """Move ``t`` (n,) from the triangle to the surface z = -height by Newton; ``slopes`` (n, 2) there.

    Steps end within ``reach`` of the triangle: at a silhouette the tangent leads astray.
    """
    for i in prange(t.size):
        at = t[i]
        hx = 0.0
        hy = 0.0
        for _ in range(6):
            x = origins[i, 0] + at * directions[i, 0]
            y = origins[i, 1] + at * directions[i, 1]
            h, hx, hy = _relief(x, y, features)
            miss = origins[i, 2] + at * directions[i, 2] + h
            slope = directions[i, 2] + hx * directions[i, 0] + hy * directions[i, 1]
            step = miss / slope if abs(slope) > 1e-3 else 0.0
            if abs(at - step - t[i]) > reach:
                break
            at -= step
            if abs(step) < 1e-7:
                break
        t[i] = at
        slopes[i, 0] = hx
        slopes[i, 1] = hy


@njit(cache=True, parallel=True)
def cover_sheet(
    x: Any,
    y: Any,
    jacobian: Any,
    extent: Any,
    texture: Any,
    clear: Any,
    px_per_mm: Any,
    margin: Any,
    cover: Any,
) -> None:
    """Mean over each pixel of a sheet's texture and of its presence.

    ``x``, ``y`` (n,): where the pixel's ray meets the sheet, mm; ``jacobian`` (n, 4): dx/du, dx/dv, dy/du,
    dy/dv. The sheet ends ``margin`` beyond 0..``extent``; the texture (h, w) uint8 lies on 0..extent and
    beyond it is 255; ``clear`` (h, w) uint8: how many texels around are all alike. ``cover`` (n, 2): texture
    0..1 and presence. Points of a rank-1 lattice (89, 55): every edge direction sees near-even spacing.
    """
    rows, columns = texture.shape
    for i in prange(x.size):
        ax, bx, ay, by = jacobian[i, 0], jacobian[i, 1], jacobian[i, 2], jacobian[i, 3]
        size = 0.5 * (abs(ax) + abs(bx) + abs(ay) + abs(by))
        inside = min(
            min(x[i] + margin, extent[0] + margin - x[i]), min(y[i] + margin, extent[1] + margin - y[i])
        )
        if inside < -size:
            cover[i, 0] = 0.0
            cover[i, 1] = 0.0
            continue
        count = 89
        column = math.floor(x[i] * px_per_mm)
        row = math.floor(y[i] * px_per_mm)
        if inside > size:
            if 0 <= column < columns and 0 <= row < rows:
                if clear[row, column] > size * px_per_mm + 2.0:
                    count = 1
            elif max(max(-x[i], x[i] - extent[0]), max(-y[i], y[i] - extent[1])) > size:
                count = 1
        total = 0.0
        present = 0
        for k in range(count):
            du = (k + 0.5) / count - 0.5
            dv = ((55 * k) % count + 0.5) / count - 0.5
            sx = x[i] + ax * du + bx * dv
            sy = y[i] + ay * du + by * dv
            if -margin <= sx <= extent[0] + margin and -margin <= sy <= extent[1] + margin:
                present += 1
                column = math.floor(sx * px_per_mm)
                row = math.floor(sy * px_per_mm)
                if 0 <= column < columns and 0 <= row < rows:
                    total += texture[row, column]
                else:
                    total += 255.0
        cover[i, 0] = total / (255.0 * max(present, 1))
        cover[i, 1] = present / count


@njit(cache=True, parallel=True)
def block(points: Any, owner: Any, light: Any, balls: Any, sheets: Any, out: Any) -> None:
    """Mark points (n, 3) float32 that a ball or sheet hides from the light; ``out`` (n,) bool, only ever set.

    ``light``: x, y, z, 1 for a position or 0 for a direction. ``balls`` (k, 5): centre, radius, owner.
    ``sheets`` (m, 12): origin, x axis, y axis, width, height, owner. A thing does not hide itself.
    """
    for i in prange(points.shape[0]):
        px = np.float64(points[i, 0])
        py = np.float64(points[i, 1])
        pz = np.float64(points[i, 2])
        dx = light[0] - px * light[3]
        dy = light[1] - py * light[3]
        dz = light[2] - pz * light[3]
        far = 1.0 if light[3] > 0.5 else 1e30
        hidden = False
        square = dx * dx + dy * dy + dz * dz
        for k in range(balls.shape[0]):
            if balls[k, 4] == owner[i]:
                continue
            cx = balls[k, 0] - px
            cy = balls[k, 1] - py
            cz = balls[k, 2] - pz
            along = (cx * dx + cy * dy + cz * dz) / square
            away = cx * cx + cy * cy + cz * cz - along * along * square
            if away < balls[k, 3] * balls[k, 3] and 0.0 < along < far:
                hidden = True
                break
        for k in range(sheets.shape[0]):
            if hidden or sheets[k, 11] == owner[i]:
                continue
            nx = sheets[k, 4] * sheets[k, 8] - sheets[k, 5] * sheets[k, 7]
            ny = sheets[k, 5] * sheets[k, 6] - sheets[k, 3] * sheets[k, 8]
            nz = sheets[k, 3] * sheets[k, 7] - sheets[k, 4] * sheets[k, 6]
            slope = nx * dx + ny * dy + nz * dz
            if slope == 0.0:
                continue
            ox = sheets[k, 0] - px
            oy = sheets[k, 1] - py
            oz = sheets[k, 2] - pz
            t = (nx * ox + ny * oy + nz * oz) / slope
            if 0.0 < t < far:
                hx = t * dx - ox
                hy = t * dy - oy
                hz = t * dz - oz
                u = hx * sheets[k, 3] + hy * sheets[k, 4] + hz * sheets[k, 5]
                v = hx * sheets[k, 6] + hy * sheets[k, 7] + hz * sheets[k, 8]
                hidden = 0.0 <= u <= sheets[k, 9] and 0.0 <= v <= sheets[k, 10]
        if hidden:
            out[i] = True


@njit(cache=True, parallel=True)
def shade(
    points: Any,
    normals: Any,
    albedo: Any,
    weight: Any,
    owner: Any,
    gloss: Any,
    dark: Any,
    light: Any,
    out: Any,
) -> None:
    """Add the radiance under one light to ``out`` (n,) float32.

    ``points``, ``normals`` (n, 3), ``albedo``, ``weight`` (n,) float32; ``owner`` (n,) int16, -1 nothing.
    ``gloss`` (k, 2) float32: roughness (0 Lambertian) and f0 of each owner. ``dark``: bit i set where hidden.
    ``light`` (9,) float32: 1 near / 0 distant, position or direction, intensity, axis, order. Camera at 0.
    """
    near = light[0] > 0.5
    order = light[8]
    one = np.float32(1.0)
    for i in prange(points.shape[0]):
        who = owner[i]
        if who < 0 or weight[i] == 0.0 or (dark[i >> 3] >> (i & 7)) & 1:
            continue
        px, py, pz = points[i, 0], points[i, 1], points[i, 2]
        nx, ny, nz = normals[i, 0], normals[i, 1], normals[i, 2]
        if near:
            lx, ly, lz = light[1] - px, light[2] - py, light[3] - pz
            d2 = lx * lx + ly * ly + lz * lz
            inverse = one / math.sqrt(d2)
            lx, ly, lz = lx * inverse, ly * inverse, lz * inverse
            arriving = light[4] / d2
            if order > 0.0:
                cosine = -(lx * light[5] + ly * light[6] + lz * light[7])
                if cosine <= 0.0:
                    continue
                arriving *= cosine if order == one else math.pow(cosine, order)
        else:
            lx, ly, lz = light[1], light[2], light[3]
            arriving = light[4]
        nl = nx * lx + ny * ly + nz * lz
        if nl <= 0.0:
            continue
        value = albedo[i] * nl
        if gloss[who, 0] > 0.0:
            inverse = -one / math.sqrt(px * px + py * py + pz * pz)
            vx, vy, vz = px * inverse, py * inverse, pz * inverse
            nv = nx * vx + ny * vy + nz * vz
            if nv > 0.0:
                hx, hy, hz = lx + vx, ly + vy, lz + vz
                inverse = one / math.sqrt(hx * hx + hy * hy + hz * hz)
                nh = (nx * hx + ny * hy + nz * hz) * inverse
                vh = (vx * hx + vy * hy + vz * hz) * inverse
                a2 = gloss[who, 0] * gloss[who, 0]
                lobe = nh * nh * (a2 - one) + one
                shadowing = nl * math.sqrt(a2 + (one - a2) * nv * nv) + nv * math.sqrt(
                    a2 + (one - a2) * nl * nl
                )
                fresnel = gloss[who, 1] + (one - gloss[who, 1]) * (one - vh) ** 5
                # a2 / (pi lobe^2) times the pi that E holds; Smith's G over 4 nl nv is 1 / (2 shadowing)
                value += nl * fresnel * a2 / (lobe * lobe) / (np.float32(2.0) * shadowing)
        out[i] += np.float32(weight[i] * arriving * value)
