"""Pictures of a ColorChecker drawn from its published colours, without the twin's renderer."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.colour import CLASSIC_2014
from calibration.targets.chart import ChartView

Float = NDArray[np.float64]

# A raw camera: greenish, with cross-talk. Rows: what R, G, B see of linear Rec.709.
CAMERA = np.array([[0.55, 0.30, 0.05], [0.20, 0.75, 0.15], [0.05, 0.20, 0.45]])
# X-Rite's L*a*b* (D50) to linear sRGB by the published D50-adapted matrix (Lindbloom), not by our own code.
_XYZ_D50_TO_RGB = np.array(
    [
        [3.1338561, -1.6168667, -0.4906146],
        [-0.9787684, 1.9161415, 0.0334540],
        [0.0719453, -0.2289914, 1.4052427],
    ]
)
_PX, _GAP, _BORDER = 40, 6, 10
PITCH = _PX + _GAP


def patches_rgb() -> Float:
    """Linear Rec.709 (24, 3) of the patches."""
    lightness, a, b = CLASSIC_2014.lab.T
    y = (lightness + 16) / 116
    f = np.stack([y + a / 500, y, y - b / 200], axis=-1)
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * [0.96422, 1.0, 0.82521]
    return np.asarray(xyz @ _XYZ_D50_TO_RGB.T)


def camera_rgb() -> Float:
    """What the camera gives of the patches, (24, 3)."""
    return np.asarray(patches_rgb() @ CAMERA.T)


def quad(x: float, y: float, width: float, turn_deg: float = 0, perspective: float = 0) -> Float:
    """Image places of the patches' outer corners, (4, 2)."""
    height = width * (4 * PITCH - _GAP) / (6 * PITCH - _GAP)
    p = 0.5 * np.array([[-width, -height], [width, -height], [width, height], [-width, height]])
    turn = np.radians(turn_deg)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    depth = 1 + perspective * (p[:, :1] + 0.6 * p[:, 1:]) / width
    return np.asarray((p / depth) @ rotation.T + [x, y])


def picture(
    corners: Float,
    shape: tuple[int, int] = (300, 450),
    *,
    colours: Float | None = None,
    background: Any = 0.2,
    noise: float = 0.004,
    seed: int = 1,
) -> NDArray[np.float32]:
    """Linear picture (h, w, 3) of one chart; ``noise`` is that of a pixel, beside a white of about 0.9."""
    colours = camera_rgb() if colours is None else colours
    texture = np.full((4 * PITCH - _GAP + 2 * _BORDER, 6 * PITCH - _GAP + 2 * _BORDER, 3), 0.03)
    for number, colour in enumerate(colours):
        top, left = _BORDER + number // 6 * PITCH, _BORDER + number % 6 * PITCH
        texture[top : top + _PX, left : left + _PX] = colour
    low, high = np.full(2, _BORDER - 0.5), np.array(texture.shape[1::-1]) - _BORDER - 0.5
    source = np.array([low, [high[0], low[1]], high, [low[0], high[1]]])
    fine = 3
    plane = cv2.getPerspectiveTransform(
        source.astype(np.float32), (corners * fine + (fine - 1) / 2).astype(np.float32)
    )
    drawn = cv2.warpPerspective(
        texture, plane, (shape[1] * fine, shape[0] * fine), borderMode=cv2.BORDER_CONSTANT,
        borderValue=(-1.0, -1.0, -1.0),
    )  # fmt: skip
    behind = np.broadcast_to(np.asarray(background) * CAMERA.sum(axis=1), drawn.shape)
    drawn = np.where(drawn < -0.5, behind, drawn)
    image = cv2.resize(drawn, shape[::-1], interpolation=cv2.INTER_AREA)
    return np.asarray(image + np.random.default_rng(seed).normal(0, noise, image.shape), np.float32)


def view_of(mean: Float, sigma: float | Float = 1e-4, faults: dict[int, str] | None = None) -> ChartView:
    """Patches as measured, without a picture."""
    mean = np.array(mean, np.float64)
    error = np.broadcast_to(np.asarray(sigma, np.float64), mean.shape).copy()
    for number in faults or {}:
        mean[number] = error[number] = np.nan
    corners = np.array([[0.0, 0.0], [6, 0], [6, 4], [0, 4]])
    quads = np.zeros((24, 4, 2))
    return ChartView(corners, quads, mean, error, np.full(24, 400), faults or {}, np.nan, np.nan)
