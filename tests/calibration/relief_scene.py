"""A relief under near lights, rendered independently of the solvers: Walter's GGX, cast shadows, noise."""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.geometry import Float, normalize
from calibration.lens import BrownConrady, LensModel
from calibration.lights.model import DistantLight, NearLight

DEPTH_MM = 450.0
# Height in mm, column and row of the centre in mm, width in mm of each bump of the relief.
BUMPS = (
    (-18, 5, -5, 18),
    (7, -25, 15, 10),
    (-8, 28, 20, 9),
    (-6, -28, -22, 11),
    (5, 25, -25, 9),
    (-4, 0, 32, 7),
)


class Scene(NamedTuple):
    radiance: NDArray[np.float32]
    variance: NDArray[np.float32]
    lights: list[DistantLight | NearLight]
    normals: Float
    depth_mm: Float
    albedo: Float
    lit: NDArray[np.bool_]
    mask: NDArray[np.bool_]

    @property
    def judged(self) -> NDArray[np.bool_]:
        """Pixels of the object lit by at least four lights."""
        return self.mask & (self.lit.sum(axis=0) >= 4)


def lens(width: int = 120, height: int = 104) -> LensModel:
    """A 16 degree view with distortion, whatever the size of the image."""
    focal = 3.65 * width
    return BrownConrady(
        width=width, height=height, fx=focal, fy=1.001 * focal, cx=0.49 * width, cy=0.51 * height,
        k1=-0.08, k2=0.02, p1=3e-4, p2=-2e-4,
    )  # fmt: skip


def dome(count: int = 24, *, seed: int = 1) -> list[NearLight]:
    """LEDs 300-600 mm from the object on the camera's side, aimed at it, of intensities within 25 %."""
    rng = np.random.default_rng(seed)
    lights = []
    for i in range(count):
        slant = np.radians((25, 42, 60)[i % 3] + rng.uniform(-4, 4))
        turn = 2 * np.pi * i / count + 2.1 * (i % 3) + rng.uniform(-0.1, 0.1)
        away = np.array([np.sin(slant) * np.cos(turn), np.sin(slant) * np.sin(turn), -np.cos(slant)])
        distance = rng.uniform(300, 600)
        position = np.array([0, 0, DEPTH_MM]) + distance * away
        lights.append(
            NearLight(
                position_mm=tuple(position),
                intensity=(2e4 * distance**2 * rng.uniform(0.75, 1.25),),
                axis=tuple(-away),
                order=1.0,
            )
        )
    return lights


def relief(x: Float, y: Float, amplitude: float) -> tuple[Float, Float, Float]:
    """Depth below DEPTH_MM and its slopes along x and y."""
    z, zx, zy = 0.04 * x - 0.03 * y, np.full_like(x, 0.04), np.full_like(x, -0.03)
    for height, cx, cy, width in BUMPS:
        bump = amplitude * height * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * width**2))
        z, zx, zy = z + bump, zx - bump * (x - cx) / width**2, zy - bump * (y - cy) / width**2
    return z, zx, zy


def render(
    camera: LensModel,
    lights: Sequence[DistantLight | NearLight],
    *,
    gloss: tuple[float, float] | None = None,
    albedo: tuple[float, float] = (0.3, 0.8),
    amplitude: float = 1.0,
    noise: float = 0.005,
    backdrop: float | None = None,
    seed: int = 0,
) -> Scene:
    """Images of the relief; ``gloss`` is (alpha_g, F0), ``noise`` the relative noise at the brightest."""
    h, w = camera.height, camera.width
    y, x = np.mgrid[:h, :w]
    rays = camera.unproject(np.stack([x, y], axis=-1).astype(float))
    rays = rays / rays[..., 2:]
    z = np.full((h, w), DEPTH_MM)
    for _ in range(60):
        z = 0.5 * (z + DEPTH_MM + relief(rays[..., 0] * z, rays[..., 1] * z, amplitude)[0])
    points = rays * z[..., None]
    _, zx, zy = relief(points[..., 0], points[..., 1], amplitude)
    normals = normalize(np.stack([zx, zy, -np.ones_like(zx)], axis=-1))
    eye = normalize(-points)
    mask = (np.abs(points[..., 0]) < 56) & (np.abs(points[..., 1]) < 48)
    low, high = albedo
    rho = low + (high - low) * (0.5 + 0.5 * np.sin(points[..., 0] / 6) * np.cos(points[..., 1] / 8))
    if backdrop is not None:
        rho = np.where(mask, rho, backdrop)

    clean, lit = [], []
    for light in lights:
        direction, irradiance = light.at(points)
        nl = np.clip(np.sum(normals * direction, axis=-1), 0, None)
        seen = _unshadowed(camera, points, z, direction) & (nl > 0)
        value = rho * nl
        if gloss is not None:
            value = value + np.pi * nl * _walter(normals, direction, eye, *gloss)
        clean.append(irradiance[..., 0] * value * seen)
        lit.append(seen)
    image = np.array(clean)
    top = np.quantile(image, 0.999)
    variance = noise**2 * top * image + (2e-4 * top) ** 2
    noisy = image + np.random.default_rng(seed).normal(size=image.shape) * np.sqrt(variance)
    return Scene(
        noisy.astype(np.float32),
        variance.astype(np.float32),
        list(lights),
        normals,
        z,
        rho,
        np.array(lit),
        mask,
    )


def _walter(n: Float, light: Float, eye: Float, alpha: float, f0: float) -> Float:
    half = normalize(light + eye)
    nl, nv, nh, vh = (
        np.clip(np.sum(a * b, axis=-1), 1e-6, 1) for a, b in ((n, light), (n, eye), (n, half), (eye, half))
    )
    spread = alpha**2 / (np.pi * (nh**2 * (alpha**2 - 1) + 1) ** 2)
    shading = 1.0
    for c in (nl, nv):
        shading = shading * 2 / (1 + np.sqrt(1 + alpha**2 * (1 / c**2 - 1)))
    fresnel = f0 + (1 - f0) * (1 - vh) ** 5
    return np.asarray(spread * shading * fresnel / (4 * nl * nv))


def _unshadowed(camera: LensModel, points: Float, z: Float, direction: Float) -> NDArray[np.bool_]:
    """March from every point towards the light; 0.15 mm below the surface is inside."""
    free = np.ones(z.shape, bool)
    step = 2 * DEPTH_MM / camera.fx
    surface = z.astype(np.float32)
    for i in range(2, int(70 / step)):
        along = points + direction * (i * step)
        at = camera.project(along).astype(np.float32)
        front = cv2.remap(
            surface, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=1e9
        )
        free &= ~(front < along[..., 2] - 0.15)
    return free
