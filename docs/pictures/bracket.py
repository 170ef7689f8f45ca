"""Draw bracket.png, chosen exposures beside a fixed bracket: ``python docs/pictures/bracket.py``."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibration.radiometric import RadiometricModel, merge
from calibration.radiometric.bracket import Limits, plan_bracket, spend_time
from calibration.radiometric.metering import Distribution, predict_snr
from rigs.report.drawing import BLUE, GRAY, ORANGE, drawing, png

WELL, DARK, READ, GAIN, BLACK = 32500.0, 5.0, 7.0, 0.125, 64.0
LOW, HIGH, WANTED, DRAWS = 1e3, 1e6, 25.0, 3000


def sensor(height: int = 1, width: int = 1) -> RadiometricModel:
    """The dome's camera, without its pattern."""
    return RadiometricModel(
        width=width,
        height=height,
        pixel_format="Mono12",
        black_dn=BLACK,
        gain_dn_per_e=GAIN,
        read_noise_e=READ,
        dark_current_e_s=DARK,
        saturation_dn=4095,
    )


def measured(times: NDArray[np.float64], light: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over scatter of merges of simulated frames; NaN where a light saturates."""
    rng = np.random.default_rng(1)
    frames = []
    for t in times:
        electrons = np.minimum(rng.poisson(np.repeat((light + DARK)[:, None] * t, DRAWS, axis=1)), WELL)
        noisy = electrons + READ * rng.standard_normal(electrons.shape)
        frames.append(np.clip(np.round(BLACK + GAIN * noisy), 0, 4095).astype(np.uint16))
    merged = merge(frames, times, sensor(len(light), DRAWS)).value
    return np.asarray(merged.mean(axis=1) / merged.std(axis=1, ddof=1))


light = np.geomspace(LOW, HIGH, 600)
middle = 0.18 * WELL / float(np.sqrt(LOW * HIGH))
fixed = np.array([middle / 4, middle, 4 * middle])
limits = Limits(1e-5, 10.0, total_s=float(fixed.sum()))
plan = spend_time(plan_bracket(Distribution.of(light), sensor(), WANTED, limits), sensor(), limits)
chosen = np.repeat(plan.exposures_s, plan.repeats)
with drawing(6.2, 3.4) as (canvas, axes):
    for times, ink, name in (
        (fixed, ORANGE, "−2, 0, +2 EV"),
        (chosen, BLUE, f"chosen, {len(chosen)} frames"),
    ):
        snr = predict_snr(sensor(), times, np.ones(len(times), int), light)
        axes.loglog(light, np.where(snr > 0, snr, np.nan), color=ink, label=f"{name}, {times.sum():.2f} s")
        some = light[5::14]
        axes.loglog(some, measured(times, some), "o", ms=3, mfc="none", color=ink)
    axes.axhline(WANTED, color=GRAY, lw=0.8, ls="--")
    lost = light[predict_snr(sensor(), fixed, np.ones(3, int), light) == 0]
    axes.axvspan(lost.min(), HIGH, color=ORANGE, alpha=0.12, lw=0)
    axes.text(lost.min() * 0.97, 14, "fixed: saturated", fontsize=8, color=ORANGE, ha="right")
    axes.text(LOW * 1.05, WANTED * 0.84, f"wanted: {WANTED:g}", fontsize=8, color=GRAY, va="top")
    axes.set(xlabel="light at the pixel / e⁻ s⁻¹", ylabel="SNR of the merged radiance", ylim=(10, 400))
    axes.legend(loc="upper left")
    Path(__file__).with_name("bracket.png").write_bytes(png(canvas))
