"""Real response curves recovered from simulated exposures, beside OpenCV's methods on the same frames.

The 101 curves are every second one of Columbia's DoRF database (Grossberg and Nayar, PAMI 2004), 101 x 1024
points each. Of every curve: 9 exposures 1 EV apart of a smooth scene with 5 decades of radiance, full well
10 000 e-, shot noise, 8 bits, exposures off by 3 % (normal) from what the fits are told.

Judged is the inverse response, DN to relative exposure, in percent of full scale: the root mean square
difference over DN 1..254 (0 and 255 stand for all exposures beyond) after each method's curve is given the
one scale that fits the truth best. A second table scales by the value at 255 instead, which says nothing of
Robertson's: it scales by 128. Every method gets the same frames, OpenCV's defaults unchanged but for 500
samples; curves are shared out among two processes. Run as a script for the tables.
"""

import multiprocessing
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.radiometric import RadiometricModel, fit_debevec, fit_response
from rigs.report import Metric

Float = NDArray[np.float64]

EXPOSURES = 2.0 ** np.arange(9)
FULL_WELL_E = 10_000.0
SHAPE = (200, 260)
DECADES = 5.0
JITTER = 0.03
PROCESSES = 2
# Exposure of the scene's geometric middle in the middle frame, of full scale.
MIDDLE = 0.15


def scene(rng: np.random.Generator) -> Float:
    """Smooth picture whose radiances fill the decades evenly; geometric mean 1."""
    noise = cv2.GaussianBlur(rng.standard_normal(SHAPE), (0, 0), 6)
    rank = noise.ravel().argsort().argsort().reshape(SHAPE) / (noise.size - 1)
    return np.asarray(10 ** (DECADES * (rank - 0.5)))


def render(irradiance: Float, brightness: Float, rng: np.random.Generator) -> list[NDArray[np.uint8]]:
    """Frames of one curve."""
    radiance = scene(rng) * MIDDLE / np.sqrt(EXPOSURES[0] * EXPOSURES[-1])
    real = EXPOSURES * (1 + JITTER * rng.standard_normal(len(EXPOSURES)))
    frames = []
    for t in real:
        electrons = rng.poisson(np.minimum(radiance * t, 3) * FULL_WELL_E)
        level = np.interp(np.minimum(electrons / FULL_WELL_E, 1), irradiance, brightness)
        frames.append(np.rint(255 * level).astype(np.uint8))
    return frames


def inverse(irradiance: Float, brightness: Float) -> Float:
    """Exposure of each DN; the middle of those where the curve is level."""
    level, index = np.unique(brightness, return_inverse=True)
    exposure = np.bincount(index, irradiance) / np.bincount(index)
    return np.asarray(np.interp(np.arange(256) / 255, level, exposure), np.float64)


def error_percent(table: Float, truth: Float) -> tuple[float, float]:
    """RMSE at the best common scale, and at that of DN 255."""
    inner = slice(1, 255)
    if not np.all(np.isfinite(table)):
        return float("inf"), float("inf")
    fair = table * (table[inner] @ truth[inner]) / (table[inner] @ table[inner])
    errors = [100 * float(np.sqrt(np.mean((t - truth)[inner] ** 2))) for t in (fair, table / table[255])]
    return errors[0], errors[1]


def _mine(fit: Callable[..., RadiometricModel]) -> Callable[[list[NDArray[np.uint8]]], Float]:
    def run(frames: list[NDArray[np.uint8]]) -> Float:
        model = fit(frames, EXPOSURES)
        if model.response is not None:
            return np.asarray(model.response[:, 0])
        return np.arange(256.0) - np.float64(model.black_dn)

    return run


def _theirs(solver: Callable[[], object]) -> Callable[[list[NDArray[np.uint8]]], Float]:
    def run(frames: list[NDArray[np.uint8]]) -> Float:
        found = solver().process(list(frames), EXPOSURES.astype(np.float32))  # type: ignore[attr-defined]
        return np.asarray(found, np.float64).reshape(256, -1)[:, 0]

    return run


def _robertson(frames: list[NDArray[np.uint8]]) -> Float:
    # It wants three channels.
    colour = [np.repeat(frame[..., None], 3, axis=-1) for frame in frames]
    found = cv2.createCalibrateRobertson().process(colour, EXPOSURES.astype(np.float32))
    return np.asarray(found, np.float64).reshape(256, -1)[:, 0]


METHODS: dict[str, Callable[[list[NDArray[np.uint8]]], Float]] = {
    "gnomon": _mine(fit_response),
    "gnomon, Debevec-Malik": _mine(fit_debevec),
    "OpenCV Debevec, 500 samples": _theirs(lambda: cv2.createCalibrateDebevec(500, 10, False)),
    "OpenCV Robertson": _robertson,
}


def curves(path: Path) -> Iterator[tuple[Float, Float]]:
    """Irradiance and brightness of each curve."""
    with np.load(path) as file:
        yield from zip(file["irradiance"].astype(float), file["brightness"].astype(float), strict=True)


def errors(path: Path, step: int = 1) -> dict[str, Float]:
    """Of each method, (curves, 2): the two errors of ``error_percent`` on every ``step``-th curve."""
    chosen = [(n, *curve) for n, curve in enumerate(curves(path)) if n % step == 0]
    # Fresh processes: a copy of one that has run threads may hang.
    with ProcessPoolExecutor(PROCESSES, multiprocessing.get_context("spawn")) as pool:
        rows = list(pool.map(_errors_of, chosen, chunksize=4))
    return {name: np.array([row[name] for row in rows]) for name in METHODS}


def _errors_of(curve: tuple[int, Float, Float]) -> dict[str, tuple[float, float]]:
    """Errors of all methods on one curve: its number, irradiance and brightness."""
    number, irradiance, brightness = curve
    cv2.setNumThreads(1)
    cv2.setRNGSeed(number)  # OpenCV draws its samples
    frames = render(irradiance, brightness, np.random.default_rng(number))
    truth = inverse(irradiance, brightness)
    return {name: error_percent(method(frames), truth) for name, method in METHODS.items()}


def judged(path: Path) -> Iterator[Metric]:
    """Rows of the benchmark on real data."""
    found = errors(path)
    ours = found["gnomon"][:, 0]
    for quantity, value, bound in (
        ("median", np.median(ours), 0.3),
        ("90th percentile", np.percentile(ours, 90), 1.0),
    ):
        yield Metric(
            quantity=f"RMSE of the inverse response, {quantity}", value=float(value), unit="%", bound=bound,
            note="of full scale, 101 curves",
        )  # fmt: skip
    for name, values in found.items():
        if name != "gnomon":
            yield Metric(
                quantity=f"curves closer than by {name}", value=100 * float(np.mean(ours < values[:, 0])),
                unit="%", bound=90.0 if "OpenCV" in name else None, at_least=True,
                note=f"its median {np.median(values[:, 0]):.2f} %",
            )  # fmt: skip


def main() -> int:
    """Print the tables."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    if path is None or not path.is_file():
        print("usage: response_curves.py dorf_even.npz")
        return 2
    found = errors(path)
    for column, scale in enumerate(("at the best common scale", "scaled at DN 255")):
        print(f"RMSE of the inverse response, percent of full scale, {scale}")
        ours = found["gnomon"][:, column]
        for name, values in found.items():
            each = values[:, column]
            wins = "" if name == "gnomon" else f"  gnomon is closer on {100 * np.mean(ours < each):.0f} %"
            print(
                f"  {name:28s} median {np.median(each):.3f}  90th percentile {np.percentile(each, 90):.3f}"
                f"  worst {each.max():.3f}{wins}"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
