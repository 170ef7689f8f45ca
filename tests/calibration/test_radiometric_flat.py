"""Flat fields from simulated flat targets: map, smooth part, sigma, turned targets, bad input.

The simulation here shares no code with the fit: Kang and Weiss's fall-off off the centre, Poisson electrons.
Not tested here: stray light in the lens, targets that are not flat.
"""

import tracemalloc
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.files import load_model, save_model
from calibration.provenance import FitError
from calibration.radiometric import RadiometricModel, Vignetting, fit_flat
from calibration.radiometric.vignetting import Falloff, colour_planes, fit_falloff, normalised

SHAPES = {"Mono12": (150, 200), "BayerRG12": (150, 201), "RGB12": (100, 150, 3)}
GAIN, READ, BLACK, DARK = 0.1, 5.0, 64.0, 50.0
PRNU = 0.01


def kang_weiss(u, v, width, height, alpha=0.12, focal=2.5):
    """Fall-off with a tilt after Kang and Weiss, ECCV 2000, doi:10.1007/3-540-45053-X_41."""
    r = np.hypot(u - 0.53 * width, v - 0.46 * height) / (np.hypot(width, height) / 2)
    return (1 - alpha * r) / (1 + (r / focal) ** 2) ** 2 * (1 + 0.03 * (u / width - 0.5))


def scaled(image, pixel_format):
    """Mean 1 over the central half of rows and columns for each colour."""
    out = np.array(image, np.float64)
    for plane in colour_planes(pixel_format):
        h, w = out[plane].shape
        out[plane] /= out[plane][h // 4 : h - h // 4, w // 4 : w - w // 4].mean()
    return out


def response(pixel_format, rng, dust=True):
    """Smooth and whole response; the fall-off differs from colour to colour."""
    shape = SHAPES[pixel_format]
    h, w = shape[:2]
    v, u = np.indices((h, w))
    smooth = np.ones(shape)
    for number, plane in enumerate(colour_planes(pixel_format)):
        smooth[plane] = kang_weiss(u, v, w, h, 0.1 + 0.04 * number)[plane if len(shape) == 2 else ...]
    whole = smooth * (1 + PRNU * rng.standard_normal(shape))
    if dust:
        whole[40:46, 60:66] *= 0.7
    return scaled(smooth, pixel_format), scaled(whole, pixel_format)


def sensor(pixel_format, **more):
    h, w = SHAPES[pixel_format][:2]
    return RadiometricModel(
        width=w,
        height=h,
        pixel_format=pixel_format,
        black_dn=BLACK,
        gain_dn_per_e=GAIN,
        read_noise_e=READ,
        dark_current_e_s=DARK,
        saturation_dn=4095,
        **more,
    )


def shoot(whole, rng, exposure_s, light=1e6):
    electrons = rng.poisson((whole * light + DARK) * exposure_s) + READ * rng.standard_normal(whole.shape)
    return np.clip(np.round(BLACK + GAIN * electrons), 0, 4095).astype(np.uint16)


def lamp(shape, turn_deg, ramp=0.1, saddle=0.05):
    """Unevenness of a target, turned clockwise in the picture by ``turn_deg`` about its middle."""
    h, w = shape[:2]
    v, u = np.indices((h, w))
    x, y = (u - (w - 1) / 2) / w, (v - (h - 1) / 2) / w
    c, s = np.cos(np.deg2rad(turn_deg)), np.sin(np.deg2rad(turn_deg))
    x, y = c * x + s * y, c * y - s * x
    out = np.exp(ramp * x + 0.3 * ramp * y + saddle * (x * x - y * y))
    return out if len(shape) == 2 else out[..., None]


@pytest.mark.parametrize("pixel_format", SHAPES)
def test_map_and_smooth_part_are_found_for_each_colour(pixel_format):
    rng = np.random.default_rng(3)
    smooth, whole = response(pixel_format, rng)
    exposures = [0.01, 0.02, 0.03] * 5
    # The lamp flickers; that is no pattern.
    frames = [shoot(whole, rng, t, 1e6 * (1 + 0.02 * rng.standard_normal())) for t in exposures]
    model = sensor(pixel_format)
    found = fit_flat(frames, exposures, model)
    error = (found.flat_map / whole - 1) / found.sigma
    samples = error.size
    assert np.std(error) == pytest.approx(1, abs=5 / np.sqrt(2 * samples))
    assert abs(np.mean(error)) < 5 / np.sqrt(samples)
    assert found.flat_sigma == pytest.approx(np.std(error * found.sigma), rel=0.1)
    # A smooth form without a kink stands for one with a kink: a thousandth, but for the kink itself.
    off = scaled(found.vignetting.at(), pixel_format) / smooth - 1
    assert np.sqrt(np.mean(off**2)) < 1e-3
    assert found.prnu_percent == pytest.approx(np.std(whole / smooth) * 100, rel=0.03)
    assert not found.defects.any()
    calibrated = found.apply(model)
    assert calibrated.vignetting == found.vignetting
    assert calibrated.flat_sigma == found.flat_sigma
    # A held-out frame comes out flat to within its own noise.
    t = 0.025
    flat = calibrated.replace(flat_sigma=0.0).linearize(shoot(whole, rng, t), t)
    z = (flat.value / 1e6 - 1) / np.hypot(np.sqrt(flat.variance) / 1e6, found.sigma)
    assert np.std(z) == pytest.approx(1, abs=0.02)


def test_the_smooth_part_ignores_dust_and_the_map_keeps_it():
    rng = np.random.default_rng(4)
    smooth, whole = response("Mono12", rng)
    whole[100:130, 120:150] *= 0.6  # as large as several cells
    found = fit_flat([shoot(whole, rng, 0.03) for _ in range(8)], [0.03] * 8, sensor("Mono12"))
    inside = (slice(102, 128), slice(122, 148))
    assert np.median(found.vignetting.at()[inside] / smooth[inside]) == pytest.approx(1, abs=0.004)
    ratio = found.flat_map / smooth
    assert np.median(ratio[inside]) / np.median(ratio) == pytest.approx(0.6, abs=0.004)


def test_defects_are_left_out_and_filled():
    rng = np.random.default_rng(5)
    smooth, whole = response("Mono12", rng, dust=False)
    whole[10, 20] = 0.0
    known = np.zeros(whole.shape, bool)
    known[30, 40] = True
    frames = [shoot(whole, rng, 0.03) for _ in range(4)]
    for frame in frames:
        frame[30, 40] = 4095
    found = fit_flat(frames, [0.03] * 4, sensor("Mono12", defects=known))
    assert np.argwhere(found.defects).tolist() == [[10, 20], [30, 40]]
    assert found.flat_map[10, 20] == pytest.approx(smooth[10, 20], rel=0.01)
    assert np.isinf(found.sigma[30, 40])


@pytest.mark.parametrize(
    ("turns", "pixel_format"),
    [((0, 180), "Mono12"), ((0, 90), "Mono12"), ((0, 90, 180, 270), "BayerRG12"), ((10, 130, 250), "Mono12")],
)
def test_turns_tell_the_target_from_the_lens(turns, pixel_format):
    rng = np.random.default_rng(6)
    _, whole = response(pixel_format, rng)
    saddle = 0.0 if turns == (0, 180) else 0.05  # which half a turn does not change
    frames, poses = [], []
    for turn in turns:
        for _ in range(4):
            frames.append(shoot(whole * lamp(whole.shape, turn, saddle=saddle), rng, 0.03))
            poses.append(f"turn-{turn}")
    exposures = [0.03] * len(frames)
    model = sensor(pixel_format)
    told = fit_flat(frames, exposures, model, poses=poses, turns_deg={f"turn-{turn}": turn for turn in turns})
    z = (told.flat_map / whole - 1) / told.sigma
    assert np.std(z) == pytest.approx(1, abs=0.04)
    pattern = lamp((150, 200), 0, saddle=saddle)
    assert told.lamp_percent == pytest.approx(
        [100 * np.ptp(pattern)] * len(colour_planes(pixel_format)), rel=0.05
    )
    single = fit_flat(frames[:4], exposures[:4], model)
    assert np.std(single.flat_map / whole) > 0.02  # without turns it is in the flat, and said
    assert any("one pose" in warning for warning in single.quality.warnings)
    untold = fit_flat(frames, exposures, model, poses=poses)
    assert any("averaged" in warning for warning in untold.quality.warnings)


def test_turns_of_the_wrong_sense_are_noticed():
    rng = np.random.default_rng(7)
    _, whole = response("Mono12", rng)
    turns = (0, 90, 180)
    frames = [shoot(whole * lamp(whole.shape, -turn), rng, 0.03) for turn in turns]
    found = fit_flat(
        frames,
        [0.03] * 3,
        sensor("Mono12"),
        poses=["a", "b", "c"],
        turns_deg=dict(zip("abc", turns, strict=True)),
    )
    assert any("backwards" in warning for warning in found.quality.warnings)


def test_a_frame_with_another_pattern_is_named():
    rng = np.random.default_rng(8)
    _, whole = response("Mono12", rng)
    frames = [shoot(whole, rng, 0.03) for _ in range(6)]
    frames[4] = shoot(whole * lamp(whole.shape, 0), rng, 0.03)
    found = fit_flat(frames, [0.03] * 6, sensor("Mono12"))
    stray = [warning for warning in found.quality.warnings if "pattern" in warning]
    assert len(stray) == 1
    assert ": 4 (" in stray[0]


def test_bright_and_dark_frames_are_left_out():
    rng = np.random.default_rng(9)
    _, whole = response("Mono12", rng)
    exposures = [0.03, 1e-6, 0.03, 0.5]
    found = fit_flat([shoot(whole, rng, t) for t in exposures], exposures, sensor("Mono12"))
    assert found.quality.observations == 2
    assert found.quality.rejected == 2
    assert np.std((found.flat_map / whole - 1) / found.sigma) == pytest.approx(1, abs=0.03)


def test_sigma_holds_the_error_of_the_dark_map():
    """Monte Carlo over sensors whose dark map is off by what its covariance says."""
    rng = np.random.default_rng(10)
    _, whole = response("Mono12", rng)
    offset_e = 40.0
    wrong = (offset_e * GAIN * rng.standard_normal(whole.shape)).astype(np.float32)
    covariance = np.array([[offset_e**2, 0.0], [0.0, 0.0]])
    model = sensor("Mono12", dark_map=wrong, dark_covariance=covariance)
    found = fit_flat([shoot(whole, rng, 0.03) for _ in range(9)], [0.03] * 9, model)
    z = (found.flat_map / whole - 1) / found.sigma
    assert np.std(z) == pytest.approx(1, abs=0.02)


def test_sigma_holds_the_read_noise():
    """In dim light and with a noisy converter, where shot noise is the lesser part."""
    rng = np.random.default_rng(14)
    _, whole = response("Mono12", rng, dust=False)
    read = 120.0
    frames = []
    for _ in range(8):
        electrons = rng.poisson((whole * 1e6 + DARK) * 0.001) + read * rng.standard_normal(whole.shape)
        frames.append(np.clip(np.round(BLACK + GAIN * electrons), 0, 4095).astype(np.uint16))
    found = fit_flat(frames, [0.001] * 8, sensor("Mono12").replace(read_noise_e=read))
    z = (found.flat_map / whole - 1) / found.sigma
    assert np.std(z) == pytest.approx(1, abs=0.03)


def test_memory_does_not_grow_with_the_frames():
    h, w = 300, 400
    model = sensor("Mono12").replace(height=h, width=w)

    class Frames(Sequence):
        def __init__(self, count):
            self.count = count

        def __len__(self):
            return self.count

        def __getitem__(self, index):
            return np.random.default_rng(index).integers(2000, 2300, (h, w), np.uint16)

    def peak(count):
        tracemalloc.start()
        fit_flat(Frames(count), np.full(count, 0.03), model)
        _, top = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return top

    peak(2)
    frame = h * w * 2
    few, many = peak(4), peak(24)
    # Two numbers for each cell of each frame are kept.
    assert many - few < 20 * 0.1 * frame
    # Sums in double precision, a frame of floats at a time.
    assert many < 30 * frame


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f, t: ([], []), "no frames"),
        (lambda f, t: (f, t[:-1]), "3 frames but exposures"),
        (lambda f, t: (f, [0.03, np.nan, 0.03]), "frame 1 has exposure nan"),
        (lambda f, t: ([f[0], f[1][:-1], f[2]], t), "frame 1: frame has shape"),
        (lambda f, t: ([np.full_like(f[0], 4095)] * 3, t), "saturated"),
        (lambda f, t: ([np.full_like(f[0], 64)] * 3, t), "black"),
    ],
)
def test_bad_input_is_one_line(change, said):
    rng = np.random.default_rng(11)
    _, whole = response("Mono12", rng)
    frames, exposures = change([shoot(whole, rng, 0.03) for _ in range(3)], [0.03] * 3)
    with pytest.raises(FitError, match=said) as error:
        fit_flat(frames, exposures, sensor("Mono12"))
    assert "\n" not in str(error.value)


# ---------------------------------------------------------------- the smooth model


def grid(width, height, count=30):
    steps = (np.arange(count) + 0.5) / count
    u, v = np.meshgrid(steps * width - 0.5, steps * height - 0.5)
    return u.ravel(), v.ravel()


def test_evidence_picks_a_simple_shape_for_a_simple_fall_off():
    u, v = grid(640, 480)
    rng = np.random.default_rng(1)
    log = -0.2 * ((u - 319.5) ** 2 + (v - 239.5) ** 2) / 400**2 + 1e-4 * rng.standard_normal(u.size)
    found, rms = fit_falloff(u, v, log, np.full(u.size, 1e-8), 640, 480)
    assert found.powers == (2,)
    assert not found.terms
    assert rms == pytest.approx(1e-4, rel=0.1)


def test_sigma_of_the_smooth_model_is_its_scatter():
    """Monte Carlo: the same fall-off under fresh noise."""
    u, v = grid(640, 480, 14)
    rng = np.random.default_rng(2)
    truth = np.log(1 - 0.2 * ((u - 350) ** 2 + (v - 200) ** 2) / 400**2)
    maps, claims = [], []
    for _ in range(24):
        log = truth + 1e-3 * rng.standard_normal(u.size)
        found, _ = fit_falloff(u, v, log, np.full(u.size, 1e-6), 640, 480)
        model = Vignetting(width=640, height=480, channels=(found,), support=np.ones((1, 1), bool))
        maps.append(model.value(0, u, v))
        claims.append(model.relative_sigma(0, u, v))
    scatter = np.std(maps, axis=0, ddof=1) / np.mean(maps, axis=0)
    # The shape is chosen anew each time, which is scatter that the covariance of one shape does not know.
    assert np.sqrt(np.mean(scatter**2) / np.mean(np.square(claims))) == pytest.approx(1, abs=0.35)


@settings(max_examples=20, deadline=None)
@given(
    radial=st.tuples(*[st.floats(-0.6, 0.3)] * 2),
    centre=st.tuples(st.floats(200, 440), st.floats(150, 330)),
    ramp=st.floats(-0.1, 0.1),
)
def test_the_model_is_positive_and_has_mean_one(radial, centre, ramp):
    falloff = Falloff(
        centre_px=centre,
        powers=(2, 4),
        radial=radial,
        terms=((1, 0),),
        surface=(ramp,),
        covariance=np.zeros((5, 5)),
    )
    model = Vignetting(
        width=640, height=480, channels=(normalised(falloff, 640, 480),), support=np.ones((1, 1), bool)
    )
    image = model.at()
    assert image.min() > 0
    assert image[120:360, 160:480].mean() == pytest.approx(1, abs=1e-5)


def test_a_model_survives_its_file(tmp_path):
    rng = np.random.default_rng(12)
    _, whole = response("RGB12", rng)
    found = fit_flat([shoot(whole, rng, 0.03) for _ in range(2)], [0.03] * 2, sensor("RGB12"))
    model = found.apply(sensor("RGB12"))
    save_model(tmp_path / "flat.json", model)
    assert load_model(tmp_path / "flat.json", RadiometricModel) == model


def test_a_model_of_another_size_is_refused():
    rng = np.random.default_rng(13)
    _, whole = response("Mono12", rng)
    found = fit_flat([shoot(whole, rng, 0.03)], [0.03], sensor("Mono12"))
    with pytest.raises(ValueError, match="vignetting"):
        RadiometricModel.nominal("Mono12", (20, 30)).replace(vignetting=found.vignetting)
