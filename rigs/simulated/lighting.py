"""Radiance of a view under one light: diffuse and microfacet shading, and its image in shiny balls."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from calibration.geometry import Float, normalize, tangent_basis
from rigs.simulated.aperture import Sight
from rigs.simulated.scene import Ball, Samples, Stage, View
from rigs.simulated.surfaces import Float32

Bits = NDArray[np.uint8]


class Highlight(NamedTuple):
    """The image of a light in a ball.

    Attributes
    ----------
    pixel : ndarray (2,)
        Where, px, through the lens's distortion.
    flux : ndarray (c,)
        e-/s summed over the pixels it spreads on, before vignetting; 0 where something hides it.
    """

    owner: int
    pixel: Float
    flux: Float


class Source(NamedTuple):
    """A light in the camera's frame: ``place`` is its position (``near``, mm) or the direction to it.

    ``intensity`` (c,) for the channels of the camera; ``axis`` and ``order`` of a near light's lobe.
    """

    near: bool
    place: Float
    intensity: Float
    axis: Float
    order: float

    @property
    def homogeneous(self) -> Float:
        """(x, y, z, 1) of a position, (x, y, z, 0) of a direction."""
        return np.array([*self.place, float(self.near)])

    def towards(self, point: Float) -> Float:
        """Unit direction from a point to the light."""
        return normalize(self.place - point) if self.near else self.place


def radiance(
    view: View, light: Source, intensity: float, dark: Bits, dark_extra: Bits, channel: int
) -> Float32:
    """Radiance (h * w,) under one light, without highlights and blur.

    ``intensity`` is the light's in the ``channel`` of the stage's tint; ``dark``, ``dark_extra``: bits of the
    cast shadows on the dense and extra samples.
    """
    from rigs.simulated import kernels

    numbers = np.array([light.near, *light.place, intensity, *light.axis, light.order], np.float32)
    out = np.zeros(len(view.dense.albedo), np.float32)
    for samples, shadow in ((view.dense, dark), (view.extra, dark_extra)):
        total = out if samples is view.dense else np.zeros(len(samples.albedo), np.float32)
        if not total.size:
            continue
        albedo = _tinted(view.stage, samples, channel)
        kernels.shade(
            samples.points,
            samples.normals,
            albedo,
            samples.weight,
            samples.owner,
            view.stage.gloss,
            shadow,
            numbers,
            total,
        )
        if samples is view.extra:
            out += np.bincount(view.pixel, weights=total, minlength=out.size).astype(np.float32)
    return out


def surroundings(view: View, channel: int) -> Float32:
    """Radiance (h * w,) under surroundings of unit radiance, seen unhidden from everywhere."""
    out = np.zeros(len(view.dense.albedo), np.float32)
    for samples in (view.dense, view.extra):
        value = _tinted(view.stage, samples, channel) * samples.weight
        if samples is view.dense:
            out += value
        else:
            out += np.bincount(view.pixel, weights=value, minlength=out.size).astype(np.float32)
    return out


def _tinted(stage: Stage, samples: Samples, channel: int) -> Float32:
    if np.all(stage.tint == 1):
        return samples.albedo
    return np.asarray(samples.albedo * stage.tint[samples.owner, channel])


def reflection_normal(centre: Float, radius: float, light: Source) -> Float:
    """Outward normal (3,) of a ball where the camera (at the origin) sees the light's mirror image.

    The normal lies between the directions to the camera and to the light and halves the angle of the two rays
    that leave the surface point: one unknown angle, by bisection to the last bit.
    """
    to_camera = -centre / np.linalg.norm(centre)
    to_light = light.towards(centre)
    side = to_light - (to_light @ to_camera) * to_camera
    length = float(np.linalg.norm(side))
    if length < 1e-12:
        return np.asarray(to_camera)
    side = side / length
    low, high = 0.0, float(np.arctan2(length, to_light @ to_camera))
    for _ in range(60):
        middle = 0.5 * (low + high)
        normal = np.cos(middle) * to_camera + np.sin(middle) * side
        at = centre + radius * normal
        seen = normalize(-at)
        if normal @ light.towards(at) < normal @ seen:
            low = middle
        else:
            high = middle
    return np.asarray(np.cos(low) * to_camera + np.sin(low) * side)


def highlights(stage: Stage, lens: Sight, light: Source) -> list[Highlight]:
    """Mirror images of a light in the shiny balls of a stage.

    The flux of a small source of radiant intensity J (pi times the model's, whose irradiance has the 1/pi
    inside) is reflectance * J / M, where M = |d(a, b) / d(u, v)| maps the pixel through the lens and the ball
    onto the plane across the arriving ray at the source: the radiance of a source is kept along rays, so its
    image has its radiance and an area of the source's over M. Of a distant source, M maps onto directions.
    """
    out = []
    for ball in stage.balls:
        if ball.thing.finish == "matte" or ball.centre[2] <= ball.radius:
            continue
        normal = reflection_normal(ball.centre, ball.radius, light)
        at = ball.centre + ball.radius * normal
        pixel = lens.project(at)
        share = _reflected_share(stage, lens, light, ball, at, normal, pixel)
        out.append(Highlight(ball.owner, pixel, share * np.pi * light.intensity))
    return out


def _reflected_share(
    stage: Stage, lens: Sight, light: Source, ball: Ball, at: Float, normal: Float, pixel: Float
) -> float:
    near, place = light.near, light.place
    away = light.towards(at)
    cosine = float(normal @ away)
    if cosine <= 0 or not np.all(np.isfinite(pixel)):
        return 0.0
    reach = np.linalg.norm(place - at) if near else np.inf
    start = at + 1e-6 * normal
    blocked_at = stage.nearest(np.stack([start, start]), np.stack([away, normalize(-at)]))[0]
    if blocked_at[0] < reach or blocked_at[1] < np.linalg.norm(at):
        return 0.0

    step = 1e-2
    shifts = np.array([[step, 0], [-step, 0], [0, step], [0, -step]])
    rays = lens.unproject(pixel + shifts)
    along = rays @ ball.centre
    inside = ball.radius**2 - ball.centre @ ball.centre + along**2
    if np.any(inside <= 0):
        return 0.0
    hit = (along - np.sqrt(inside))[:, None] * rays
    normals = (hit - ball.centre) / ball.radius
    reflected = rays - 2 * np.sum(rays * normals, axis=-1, keepdims=True) * normals
    basis = tangent_basis(away)
    if near:
        t = ((place - hit) @ away) / (reflected @ away)
        landing = (hit + t[:, None] * reflected - place) @ basis.T
    else:
        landing = reflected @ basis.T
    du, dv = (landing[0] - landing[1]) / (2 * step), (landing[2] - landing[3]) / (2 * step)
    spread = abs(du[0] * dv[1] - du[1] * dv[0])
    emitted = 1.0
    if near and light.order > 0:
        emitted = max(float(-away @ light.axis), 0.0) ** light.order
    return float(ball.reflectance(np.array(cosine)) * emitted / spread)


def splat(image: Float32, pixel: Float, flux: float, sigma_px: float) -> None:
    """Add a point's image in place: a Gaussian of ``sigma_px`` integrated over each square pixel."""
    if flux <= 0:
        return
    height, width = image.shape
    reach = int(np.ceil(8 * sigma_px)) + 1
    profiles, spans = [], []
    for at, size in ((pixel[1], height), (pixel[0], width)):
        middle = round(float(at))
        low, high = max(middle - reach, 0), min(middle + reach + 1, size)
        if low >= high:
            return
        edges = np.arange(low, high + 1) - 0.5 - at
        below = ndtr(edges / sigma_px) if sigma_px > 0 else np.clip(np.sign(edges), 0, 1)
        profiles.append(np.diff(below))
        spans.append(slice(low, high))
    image[spans[0], spans[1]] += (flux * np.outer(*profiles)).astype(np.float32)
