"""The twin through a fisheye, against a board drawn ray by ray with other code."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from simulated_small import camera, truth

from calibration.targets.boards import Checkerboard, reflectance_at
from rigs.simulated import Twin

BOARD = Checkerboard(columns=7, rows=5, square_mm=30)
SIZE, CENTRE, FOCAL = (240, 200), (118.7, 101.2), 58.0
K = (-0.03, 0.006, -0.002, 0.0003)
FINE = 9


def rays(u, v):
    """Directions of pixels by a table of theta: r = f theta (1 + k1 theta^2 + ...)."""
    theta = np.linspace(0, np.radians(125), 200001)
    square = theta * theta
    grown = theta * (1 + square * (K[0] + square * (K[1] + square * (K[2] + square * K[3]))))
    assert np.all(np.diff(grown) > 0)
    x, y = (u - CENTRE[0]) / FOCAL, (v - CENTRE[1]) / FOCAL
    r = np.hypot(x, y)
    angle = np.interp(r, grown, theta, right=np.nan)
    side = np.where(r > 0, np.sin(angle) / np.maximum(r, 1e-12), 1.0)
    return np.stack([x * side, y * side, np.cos(angle)], axis=-1)


@pytest.mark.parametrize(
    ("rotvec_deg", "translation_mm", "widest_deg"),
    [
        ([5, -8, 10], [-110, -80, 80], 60),  # in front, out to the corners
        ([0, 75, 0], [95, -90, 130], 85),  # at the side
        ([0, 90, 0], [90, -85, 95], 105),  # along the axis, beyond the camera's own plane
    ],
)
def test_a_board_looks_as_ray_by_ray(rotvec_deg, translation_mm, widest_deg):
    thing = {"kind": "board", "board": BOARD.model_dump(), "margin_mm": 0, "white": 0.8, "black": 0.1}
    thing |= {"rotvec_deg": rotvec_deg, "translation_mm": translation_mm}
    eye = camera(
        *SIZE, lens={"kind": "kannala-brandt", **dict(zip(("k1", "k2", "k3", "k4"), K, strict=True))}
    )
    eye["lens"] |= {"fx": FOCAL, "fy": FOCAL, "cx": CENTRE[0], "cy": CENTRE[1]}
    known = truth([thing], eye=eye, ambient=1000.0)
    seen = Twin(known).clean_radiance("scene", {}, "cam")

    rotation = Rotation.from_rotvec(np.radians(rotvec_deg)).as_matrix()
    origin, size = np.array(translation_mm, float), (8 * 30, 6 * 30)
    v, u = np.mgrid[: SIZE[1], : SIZE[0]].astype(float)
    total, widest = np.zeros(u.shape), 0.0
    steps = (np.arange(FINE) + 0.5) / FINE - 0.5
    for dv in steps:
        for du in steps:
            towards = rays(u + du, v + dv)
            with np.errstate(divide="ignore", invalid="ignore"):
                t = (origin @ rotation[:, 2]) / (towards @ rotation[:, 2])
            at = (towards * t[..., None] - origin) @ rotation
            on = (
                (t > 0)
                & (at[..., 0] > 0)
                & (at[..., 0] < size[0])
                & (at[..., 1] > 0)
                & (at[..., 1] < size[1])
            )
            colour = reflectance_at(BOARD, np.where(on, at[..., 0], 0), np.where(on, at[..., 1], 0))
            # what sees no board sees the surroundings themselves
            total += np.where(on, 0.1 + 0.7 * colour, 1.0)
            widest = max(widest, float(np.degrees(np.arccos(towards[on][:, 2].min()))))
    expected = 1000 * total / FINE**2
    assert widest > widest_deg
    # where all of a pixel lies within the table
    here = rays(u, v)[..., 2] > np.cos(np.radians(123))
    off = np.abs(seen - expected)[here] / 700
    # 81 points against 89: an edge may be told apart by some hundredths of a pixel's area
    assert np.quantile(off, 0.99) < 0.04
    assert np.sqrt(np.mean(off**2)) < 0.015
    assert off.max() < 0.25


def test_a_lens_darkens_nothing_behind_its_own_plane():
    eye = camera(*SIZE, lens={"kind": "kannala-brandt"}, optics={"cos4": True})
    eye["lens"] |= {"fx": FOCAL, "fy": FOCAL, "cx": CENTRE[0], "cy": CENTRE[1]}
    seen = Twin(truth([], eye=eye, ambient=1000.0)).clean_radiance("scene", {}, "cam", vignetting=True)
    v, u = np.mgrid[: SIZE[1], : SIZE[0]]
    angle = np.hypot(u - CENTRE[0], v - CENTRE[1]) / FOCAL
    assert np.all(seen[angle > np.pi / 2] == 0)
    assert seen[100, 118] == pytest.approx(1000, rel=2e-3)
