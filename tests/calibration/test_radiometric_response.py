"""fit_response on known curves, on Debevec's own photographs, and on bad input."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from calibration.provenance import FitError
from calibration.radiometric import fit_response, merge

DATA = Path(os.environ.get("GNOMON_DATA", Path(__file__).parents[3] / "shared" / "data"))
EXPOSURE = 2.0 ** np.arange(-6, 3)


def stack(channels, gamma=2.2, shape=(60, 80)):
    """8-bit pictures of a scene of four decades through a gamma curve, with the noise of 10 000 electrons."""
    rng = np.random.default_rng(4)
    scene = np.exp(cv2.GaussianBlur(rng.standard_normal((*shape, channels)), (0, 0), 4) * 14).reshape(
        *shape, channels
    )
    scene /= np.median(scene)
    frames = []
    for t in EXPOSURE:
        electrons = np.minimum(rng.poisson(np.minimum(scene * t, 2) * 10_000) / 10_000, 1)
        frames.append(np.rint(255 * electrons ** (1 / gamma)).astype(np.uint8))
    return scene, frames


@pytest.mark.parametrize("channels", [1, 3])
def test_known_curve_and_radiance_come_back(channels):
    scene, frames = stack(channels)
    model = fit_response(frames if channels == 3 else [f[..., 0] for f in frames], EXPOSURE)
    assert model.response.shape == (256, channels)
    assert np.all(np.isfinite(model.response))
    assert np.all(np.diff(model.response, axis=0) > 0)
    assert model.response.max() == pytest.approx(10_000)
    codes = np.arange(20, 250)
    for c in range(channels):
        error = np.log(model.response[codes, c]) - 2.2 * np.log(codes / 255)
        # Debevec's curve with OpenCV's smoothing is good to some percent; the scale is free.
        assert np.std(error) < 0.03
    if channels == 1:
        frames, scene = [f[..., 0] for f in frames], scene[..., 0]
    merged = merge(frames, EXPOSURE, model)
    ratio = np.log(merged.value / scene)
    ratio = ratio - np.nanmedian(ratio, axis=(0, 1))
    within = (scene > 2e-3) & (scene < 50) & np.isfinite(ratio)
    assert within.mean() > 0.5
    assert np.std(ratio[within]) < 0.05
    assert np.all(merged.variance[np.isfinite(merged.value)] > 0)


def test_same_input_same_curve():
    _, frames = stack(1)
    assert fit_response(frames, EXPOSURE) == fit_response(frames, EXPOSURE)


def test_memorial_church():
    root = DATA / "memorial"
    if not root.exists():
        pytest.skip(f"no reference data at {root}")
    rows = [r.split() for r in (root / "image_list.txt").read_text().splitlines() if r.startswith("memorial")]
    frames = [cv2.imread(str(root / row[0]), cv2.IMREAD_COLOR) for row in rows]
    exposure = np.array([float(row[1]) for row in rows])
    theirs = cv2.imread(str(root / "memorial.hdr"), cv2.IMREAD_UNCHANGED)
    model = fit_response(frames, exposure)
    ours = merge(frames, exposure, model)
    assert np.all(np.isfinite(ours.value))
    assert np.all(np.isfinite(ours.variance))
    for channel in range(3):
        a, b = ours.value[..., channel], theirs[..., channel]
        lit = (a > 0) & (b > 0)
        assert lit.mean() > 0.999
        difference = np.log(a[lit]) - np.log(b[lit])
        difference -= np.median(difference)
        assert np.corrcoef(np.log(a[lit]), np.log(b[lit]))[0, 1] > 0.98
        # OpenCV's own merge of the same response has 0.16 to 0.20.
        assert 1.4826 * np.median(np.abs(difference)) < 0.16


def _frames():
    return [np.full((8, 8, 3), v, np.uint8) for v in (40, 80, 160)]


@pytest.mark.parametrize(
    ("frames", "exposure", "says"),
    [
        (_frames()[:2], [1, 2], "2 frames"),
        (_frames(), [1, 2], "3 frames but exposures"),
        (_frames(), [1, 2, 0], r"frame 2 has exposure 0\.0 s"),
        (_frames(), [1, 1, 1], "all alike"),
        ([*_frames()[:2], np.zeros((8, 8, 3), np.uint16)], [1, 2, 4], "frame 2 has dtype uint16"),
        ([*_frames()[:2], np.zeros((8, 9, 3), np.uint8)], [1, 2, 4], r"frame 2 has shape \(8, 9, 3\)"),
        ([np.zeros((8, 8, 3), np.uint8)] * 3, [1, 2, 4], "black or saturated"),
        ([np.full((8, 8, 3), 255, np.uint8)] * 3, [1, 2, 4], "black or saturated"),
    ],
)
def test_bad_input_is_one_clear_line(frames, exposure, says):
    with pytest.raises(FitError, match=says):
        fit_response(frames, exposure)
