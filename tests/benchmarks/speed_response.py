"""Camera response from 9 exposures of 2 MP, 8 bits: time and accuracy beside OpenCV's methods."""

import cv2
import numpy as np
from numpy.typing import NDArray
from speed import Candidate, Table, compare

from calibration.radiometric import RadiometricModel, fit_response

SHAPE = (1250, 1600)
EXPOSURES = 2.0 ** np.arange(9)
FULL_WELL_E = 10_000.0
GAMMA = 2.2
DECADES = 5.0


def frames(channels: int) -> list[NDArray[np.uint8]]:
    """Smooth scene of five decades, evenly filled, through a gamma curve, with shot noise."""
    rng = np.random.default_rng(7)
    noise = cv2.GaussianBlur(rng.standard_normal(SHAPE), (0, 0), 20)
    rank = noise.ravel().argsort().argsort().reshape(SHAPE) / (noise.size - 1)
    radiance = 0.15 / np.sqrt(EXPOSURES[0] * EXPOSURES[-1]) * 10 ** (DECADES * (rank - 0.5))
    if channels == 3:
        radiance = np.stack([radiance, radiance**0.95, radiance[::-1]], axis=-1)
    out = []
    for t in EXPOSURES:
        electrons = rng.poisson(np.minimum(radiance * t, 3) * FULL_WELL_E)
        out.append(np.rint(255 * np.minimum(electrons / FULL_WELL_E, 1) ** (1 / GAMMA)).astype(np.uint8))
    return out


def _judge(found: object) -> str:
    """RMSE in percent of full scale at the best scale, and of the logarithm where it is well exposed."""
    table = np.asarray(found.response if isinstance(found, RadiometricModel) else found, np.float64)
    curve = table.reshape(256, -1)[:, 0]
    truth = (np.arange(256) / 255) ** GAMMA
    inner, middle = slice(1, 255), slice(20, 250)
    scale = (curve[inner] @ truth[inner]) / (curve[inner] @ curve[inner])
    rms = 100 * np.sqrt(np.mean((scale * curve - truth)[inner] ** 2))
    logs = np.std(np.log(curve[middle] / truth[middle]))
    return f"RMSE {rms:.2g} % of full scale, rms log error {logs:.2g}"


def response(channels: int) -> Table:
    """The fit on all samples against OpenCV's on some."""
    stack = frames(channels)
    times = EXPOSURES.astype(np.float32)

    def debevec(samples: int) -> NDArray[np.float32]:
        return np.asarray(cv2.createCalibrateDebevec(samples, 10, False).process(stack, times))

    def robertson() -> NDArray[np.float32]:
        # It wants three channels.
        colour = stack if channels == 3 else [np.repeat(f[..., None], 3, axis=-1) for f in stack]
        return np.asarray(cv2.createCalibrateRobertson().process(colour, times))

    return compare(
        f"response from 9 frames of 2 MP, {'RGB' if channels == 3 else 'mono'} 8-bit",
        [
            Candidate("gnomon, every sample", lambda: fit_response(stack, EXPOSURES), _judge, turns=7),
            Candidate("OpenCV Debevec, 70 samples", lambda: debevec(70), _judge, turns=7),
            Candidate("OpenCV Debevec, 300 samples", lambda: debevec(300), _judge, turns=3),
            *([Candidate("OpenCV Robertson", robertson, _judge, turns=1)] if channels == 3 else []),
        ],
        read_bytes=sum(frame.nbytes for frame in stack),
    )


def tables() -> list[Table]:
    """Mono and RGB."""
    return [response(1), response(3)]
