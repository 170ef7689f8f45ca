"""Camera response of non-linear cameras from an exposure stack."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibration.provenance import FitError, Provenance, Quality
from calibration.radiometric.model import RadiometricModel

_FULL_WELL_E = 10_000.0
_READ_NOISE_DN = 1.0


def fit_response(
    frames: Sequence[NDArray[Any]],
    exposure_s: ArrayLike,
    *,
    samples: int = 300,
    smoothness: float = 10.0,
    provenance: Provenance = Provenance(),  # noqa: B008 - frozen value
) -> RadiometricModel:
    """Response of an 8-bit camera from a static scene, after Debevec and Malik as OpenCV has it.

    Parameters
    ----------
    frames : sequence of ndarray (h, w), (h, w, 1) or (h, w, 3), uint8
        Three or more exposures of a scene that stands still; channels in any order, kept.
    exposure_s : array_like, (n,)
        Of each frame.
    samples : int
        Pixels that the fit rests on.
    smoothness : float
        Weight of the curve's second derivative.
    provenance : Provenance
        Recorded with the model.

    Returns
    -------
    RadiometricModel
        ``Mono8`` or ``RGB8`` with ``response`` (256, 1 or 3), made increasing by isotonic regression of its
        logarithm and scaled so that the brightest channel reaches 10 000 nominal electrons at DN 255. The
        noise is stated, not measured: shot noise of those electrons, 1 DN of noise after the curve, and
        quantisation. DN 255 is saturated.

    Raises
    ------
    FitError
        Fewer than 3 frames, not 8-bit, sizes differ, exposures missing, not positive or all equal, or a scene
        with no mid-tones.

    Notes
    -----
    Debevec and Malik, "Recovering high dynamic range radiance maps from photographs", SIGGRAPH 1997,
    doi:10.1145/258734.258884. The absolute scale of a response cannot be found from a stack; nor can the
    ratio of the channels, which is set so that all agree at DN 128.
    """
    stack, exposure = _checked(frames, exposure_s)
    channels = stack[0].shape[2]
    solver = cv2.createCalibrateDebevec(samples, smoothness, False)
    curve = np.asarray(solver.process(stack, exposure.astype(np.float32)), np.float64).reshape(256, -1)
    if curve.shape[1] != channels or not np.all(np.isfinite(curve)) or np.any(curve <= 0):
        raise FitError("response: the scene does not constrain the curve: add exposures that show mid-tones")
    raw = np.log(curve)
    log_curve = np.stack([_increasing(raw[:, c]) for c in range(channels)], axis=1)
    response = np.exp(log_curve - log_curve[-1].max()) * _FULL_WELL_E
    gain = 255 / _FULL_WELL_E
    change = float(np.sqrt(np.mean((log_curve - raw) ** 2)))
    return RadiometricModel(
        width=stack[0].shape[1],
        height=stack[0].shape[0],
        pixel_format="RGB8" if channels == 3 else "Mono8",
        gain_dn_per_e=gain,
        read_noise_e=0.0,
        curve_noise_dn=_READ_NOISE_DN,
        saturation_dn=255.0,
        response=response,
        quality=Quality(
            residual_rms=change,
            unit="ln exposure",
            observations=samples * len(stack) * channels,
            verdict="doubtful",
            warnings=("noise of a response model is nominal: 10000 e- at DN 255 and 1 DN after the curve",),
        ),
        provenance=provenance,
    )


def _increasing(log_curve: NDArray[np.float64]) -> NDArray[np.float64]:
    """Nearest increasing curve; plateaus get a slope too small to matter but large enough to invert."""
    from scipy.optimize import isotonic_regression  # slow to import, rarely needed

    fitted = np.asarray(isotonic_regression(log_curve).x)
    return np.asarray(fitted + 1e-6 * np.arange(len(fitted)))


def _checked(
    frames: Sequence[NDArray[Any]], exposure_s: ArrayLike
) -> tuple[list[NDArray[np.uint8]], NDArray[np.float64]]:
    exposure = np.asarray(exposure_s, np.float64)
    if exposure.shape != (len(frames),):
        raise FitError(f"response: {len(frames)} frames but exposures of shape {exposure.shape}")
    if len(frames) < 3:
        raise FitError(f"response: {len(frames)} frames: want three exposures or more")
    bad = np.flatnonzero(~(np.isfinite(exposure) & (exposure > 0)))
    if len(bad):
        raise FitError(f"response: frame {bad[0]} has exposure {exposure[bad[0]]} s: want a positive number")
    if exposure.max() < 1.5 * exposure.min():
        raise FitError("response: the exposures are all alike: vary them by factors of two")
    stack: list[NDArray[np.uint8]] = []
    for index, frame in enumerate(frames):
        image = np.asarray(frame)
        image = image[..., None] if image.ndim == 2 else image
        if image.dtype != np.uint8:
            raise FitError(
                f"response: frame {index} has dtype {image.dtype}: the Debevec fit takes 8-bit frames"
            )
        if image.ndim != 3 or image.shape[2] not in (1, 3) or (stack and image.shape != stack[0].shape):
            raise FitError(
                f"response: frame {index} has shape {np.shape(frame)}: want 1 or 3 channels and one size"
            )
        stack.append(np.ascontiguousarray(image))
    if all(np.all((s == 0) | (s == 255)) for s in stack):
        raise FitError("response: every sample is black or saturated")
    return stack, exposure
