"""The flat field of a real sensor: EMVA 1288 reference set 001 (Basler, M. Grimm), its published PRNU.

The set has no lens; what a flat field is to find is the nonuniformity that the publication states.
"""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from calibration.radiometric import RadiometricModel, fit_flat

DATA = Path(os.environ.get("GNOMON_DATA", Path(__file__).parents[3] / "shared" / "data")) / "emva1288/set001"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="no emva1288/set001 at GNOMON_DATA")

EXPOSURE_S = 0.00516
GAIN, NOISE_E, PRNU_PERCENT = 0.2808, 10.9, 0.4327  # as published


def series(kind):
    paths = sorted((DATA / "images").glob(f"{kind}_s_000_snap_*.png"))
    return [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in paths]


def test_the_map_scatters_as_published():
    darks, flats = np.mean(series("d"), axis=0), series("b")
    assert len(flats) > 10
    model = RadiometricModel(
        width=darks.shape[1],
        height=darks.shape[0],
        pixel_format="Mono12",
        black_dn=float(darks.mean()),
        dark_map=(darks - darks.mean()).astype(np.float32),
        dark_covariance=np.diag([NOISE_E**2 / len(flats), 0.0]),
        gain_dn_per_e=GAIN,
        read_noise_e=NOISE_E,
        saturation_dn=4095,
    )
    found = fit_flat(flats, [EXPOSURE_S] * len(flats), model)
    flat = found.flat_map[~found.defects].astype(np.float64)
    own = np.mean(np.square(found.sigma[~found.defects], dtype=np.float64))
    # Up to its release 3.1 the standard takes the standard deviation of the whole picture, shading included.
    assert 100 * np.sqrt(np.var(flat / flat.mean()) - own) == pytest.approx(PRNU_PERCENT, rel=0.01)
    assert found.prnu_percent < PRNU_PERCENT  # less what is smooth
    # The claimed sigma is the scatter between maps of other frames, but for the dark map that they share.
    apart = model.replace(dark_covariance=None)
    halves = [fit_flat(flats[k::4], [EXPOSURE_S] * len(flats[k::4]), apart) for k in (0, 1)]
    good = ~(halves[0].defects | halves[1].defects)
    difference = (halves[0].flat_map / halves[1].flat_map - 1)[good]
    claimed = sum(np.mean(np.square(half.sigma[good], dtype=np.float64)) for half in halves)
    assert np.std(difference) == pytest.approx(np.sqrt(claimed), rel=0.02)
