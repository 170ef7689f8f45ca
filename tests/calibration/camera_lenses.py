"""Lenses of camera files' tests, and what all of these tests ask."""

import numpy as np
import pytest

from calibration.lens import BrownConrady, KannalaBrandt
from calibration.provenance import Quality

LENS = BrownConrady(
    width=640, height=480, fx=500.1, fy=501, cx=320, cy=240, k1=-0.1, k2=0.02, p2=1e-3, k3=-1 / 3,
    quality=Quality(residual_rms=0.1, unit="px", observations=10),
)  # fmt: skip
FOUR = LENS.replace(k3=0.0, p1=1e-5)
EIGHT = LENS.replace(k4=0.1, k5=0.02, k6=-1e-5)
PLAIN = BrownConrady(width=640, height=480, fx=500.1, fy=501, cx=320.3, cy=240.7)
FISHEYE = KannalaBrandt(
    width=1920, height=1080, fx=700.5, fy=710.25, cx=960.1, cy=540.7, k1=0.02, k2=-0.01, k3=0.003, k4=-1e-3
)
POINTS = np.array([[0.1, -0.2, 1.0], [-0.5, 0.3, 1.2], [0.6, 0.4, 0.9], [0.0, 0.0, 2.0], [-0.3, -0.45, 1.0]])
ROUND = 5e-9  # of the pixels printed by other programs


def same_numbers(found, lens):
    assert type(found) is type(lens)
    assert (found.width, found.height) == (lens.width, lens.height)
    np.testing.assert_array_equal(found.parameters, lens.parameters)
    assert found.covariance is None
    assert found.provenance.note.startswith("read from")


def places(text):
    return np.array(text.replace(",", "").split(), float).reshape(-1, 2)


def write(path, text):
    path.write_text(text)
    return path


def refused(read, path, message):
    with pytest.raises(ValueError, match=message) as caught:
        read(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
