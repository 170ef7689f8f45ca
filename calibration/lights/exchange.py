"""Light that matte spheres send to each other."""

from typing import NamedTuple

import numpy as np

from calibration.geometry import Float
from calibration.lights.samples import SphereSamples

_PLACES = 200
"""Pieces that the surface of a sphere is cut into: the light of each is taken from its middle."""


class Exchange(NamedTuple):
    """Which share of the light on every piece of the spheres' surfaces reaches a sample by one reflection.

    Attributes
    ----------
    share : ndarray, (m, q)
        Irradiance at a sample by unit irradiance of a piece, for an albedo of 1.
    points_mm, normals : ndarray, (q, 3)
        The pieces, those turned away from the camera too.
    """

    share: Float
    points_mm: Float
    normals: Float


def exchange(samples: SphereSamples) -> Exchange | None:
    """What the spheres of ``samples`` send each other; None where their places are not known.

    Lambertian, one reflection, nothing between the spheres. White balls five radii apart light each other
    with 2 % of what the lamp does, always from the same side: without this, lamps come out a tenth too near.
    """
    if samples.centres_mm is None or samples.radius_mm is None or len(samples.centres_mm) < 2:
        return None
    height = 1 - (2 * np.arange(_PLACES) + 1) / _PLACES
    turn = np.arange(_PLACES) * np.pi * (3 - np.sqrt(5))
    around = np.sqrt(1 - height**2)
    normals = np.stack([around * np.cos(turn), around * np.sin(turn), height], axis=-1)
    area = 4 * np.pi * samples.radius_mm**2 / _PLACES
    share = np.zeros((len(samples.part), len(samples.centres_mm) * _PLACES))
    pieces = [centre + samples.radius_mm * normals for centre in samples.centres_mm]
    for j in range(len(pieces)):
        own = samples.part == j
        for k, piece in enumerate(pieces):
            if k == j:
                continue
            to = piece - samples.matte.points_mm[own][:, None]
            distance2 = np.sum(to**2, axis=-1)
            received = np.clip(np.einsum("mqd,md->mq", to, samples.matte.normals[own]), 0, None)
            sent = np.clip(-np.einsum("mqd,qd->mq", to, normals), 0, None)
            share[own, k * _PLACES : (k + 1) * _PLACES] = received * sent * area / (np.pi * distance2**2)
    return Exchange(share, np.concatenate(pieces), np.tile(normals, (len(pieces), 1)))
