"""A tiny renderer of mirror spheres before a textured backdrop, independent of the twin."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from calibration.geometry import reflection
from calibration.lens import BrownConrady, LensModel
from calibration.lights.intensity import mirror_gain

FINE = 3


@dataclass(frozen=True)
class Scene:
    """Spheres (s, 3) of one radius; lights homogeneous (n, 4); backdrop plane z = backdrop_mm."""

    lens: LensModel
    centres: NDArray[np.float64]
    radius_mm: float
    lights: NDArray[np.float64]
    strength: NDArray[np.float64]
    backdrop_mm: float = 500.0
    mirror: float = 0.6
    psf_px: float = 0.7
    noise: float = 0.003
    texture_seed: int = 0
    surroundings: float = 0.003
    mirrors_backdrop: bool = True
    gloss: bool = False
    """Black glass in place of metal: reflects by Fresnel's formulae for a refractive index of 1.5."""
    matte: bool = False
    """White paint in place of metal."""

    def highlights(self) -> NDArray[np.float64]:
        normal = reflection(self.centres[None], self.radius_mm, self.lights[:, None])
        return self.lens.project(self.centres + self.radius_mm * normal)

    def flux(self) -> NDArray[np.float64]:
        gain = mirror_gain(self.centres[None], self.radius_mm, self.lights[:, None], self.lens)
        return self.mirror * self.strength[:, None] * gain

    def render(self, seed: int = 0) -> NDArray[np.float32]:
        lens, rng = self.lens, np.random.default_rng(seed)
        h, w = lens.height, lens.width
        grid = (np.arange(FINE) + 0.5) / FINE - 0.5
        v = (np.arange(h)[:, None] + grid).ravel()
        u = (np.arange(w)[:, None] + grid).ravel()
        rays = lens.unproject(np.stack(np.meshgrid(u, v), axis=-1))
        origin = np.zeros_like(rays)
        share = np.ones(rays.shape[:2])
        painted = np.zeros(rays.shape)
        for centre in self.centres:
            along = rays @ centre
            inside = along**2 - centre @ centre + self.radius_mm**2
            on = inside > 0
            hit = (along[on] - np.sqrt(inside[on]))[:, None] * rays[on]
            normal = (hit - centre) / self.radius_mm
            if self.gloss:
                share[on] = _fresnel(-np.sum(rays[on] * normal, axis=-1))
            elif self.matte:
                painted[on] = normal
            else:
                share[on] = self.mirror if self.mirrors_backdrop else 0.0
            rays[on] -= 2 * np.sum(rays[on] * normal, axis=-1, keepdims=True) * normal
            origin[on] = hit
        with np.errstate(divide="ignore", invalid="ignore"):
            far = (self.backdrop_mm - origin[..., 2]) / rays[..., 2]
        seen = (far > 0) & (far < 5000)
        points = origin + np.where(seen, far, 0.0)[..., None] * rays
        albedo = self._albedo(points[..., :2])
        images = np.empty((len(self.lights), h, w), np.float32)
        spots, flux = self.highlights(), self.flux()
        for i, light in enumerate(self.lights):
            to = light[:3] - light[3] * points
            length = np.linalg.norm(to, axis=-1)
            irradiance = self.strength[i] / length**2 * np.clip(-to[..., 2] / length, 0, None)
            fine = np.where(seen, albedo * irradiance, self.surroundings) * share
            if self.matte:
                to = light[:3] - light[3] * origin
                shade = np.clip(np.sum(painted * to, axis=-1), 0, None) / np.linalg.norm(to, axis=-1) ** 3
                fine = np.where(painted.any(axis=-1), 0.8 * self.strength[i] * shade, fine)
            fine = cv2.GaussianBlur(fine, (0, 0), self.psf_px * FINE)
            image = cv2.resize(fine, (w, h), interpolation=cv2.INTER_AREA)
            for (x, y), f in zip(spots[i], flux[i], strict=True):
                if np.isfinite(f) and not self.matte:
                    _splat(image, x, y, 0.07 * f if self.gloss else f, self.psf_px)
            images[i] = image + rng.normal(size=image.shape) * self.noise * np.sqrt(0.05 + np.abs(image))
        return images

    def _albedo(self, at: NDArray[np.float64]) -> NDArray[np.float64]:
        rng = np.random.default_rng(self.texture_seed)
        total = np.full(at.shape[:-1], 0.5)
        for _ in range(6):
            wave = rng.normal(size=2) * 0.15
            total = total + 0.05 * np.sin(at @ wave + rng.uniform(0, 6.3))
        return total


def _fresnel(cosine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of unpolarised light that glass reflects, by the angles (sine and tangent formulae)."""
    a = np.arccos(np.clip(cosine, 1e-9, 1 - 1e-9))
    b = np.arcsin(np.sin(a) / 1.5)
    return ((np.sin(a - b) / np.sin(a + b)) ** 2 + (np.tan(a - b) / np.tan(a + b)) ** 2) / 2


def _splat(image: NDArray[np.floating], x: float, y: float, flux: float, sigma: float) -> None:
    h, w = image.shape
    px = np.diff(ndtr((np.arange(w + 1) - 0.5 - x) / sigma))
    py = np.diff(ndtr((np.arange(h + 1) - 0.5 - y) / sigma))
    x0, x1, y0, y1 = max(int(x) - 9, 0), int(x) + 10, max(int(y) - 9, 0), int(y) + 10
    image[y0:y1, x0:x1] += flux * np.outer(py[y0:y1], px[x0:x1])


def dome(seed: int, count: int, low_mm: float = 300, high_mm: float = 600, depth_mm: float = 450.0):
    """Light positions (count, 3) on the camera's side, 22 to 75 degrees off the plane z = depth."""
    rng = np.random.default_rng(seed)
    turn = np.arange(count) * 2.39996 + rng.uniform(0, 6.3)
    up = np.arcsin(rng.uniform(0.38, 0.96, count))
    far = rng.uniform(low_mm, high_mm, count)
    ray = np.stack([np.cos(turn) * np.cos(up), np.sin(turn) * np.cos(up), -np.sin(up)], axis=-1)
    return ray * far[:, None] + [0, 0, depth_mm]


def small_lens(focal: float = 900.0, width: int = 560, height: int = 400, **distortion: float) -> LensModel:
    return BrownConrady(
        width=width,
        height=height,
        fx=focal,
        fy=focal * 1.001,
        cx=width / 2 - 3,
        cy=height / 2 + 2,
        **distortion,
    )


def four_spheres(
    lens: LensModel, seed: int = 0, count: int = 10, radius_mm: float = 20.0, **more: float
) -> Scene:
    places = dome(seed, count)
    rng = np.random.default_rng(seed + 99)
    strength = 1e5 * rng.uniform(0.75, 1.25, count)
    centres = np.array([[sx * 72, sy * 50, 450.0] for sx in (-1, 1) for sy in (-1, 1)])
    centres = centres + rng.uniform(-3, 3, centres.shape)
    return Scene(lens, centres, radius_mm, np.c_[places, np.ones(count)], strength, **more)
