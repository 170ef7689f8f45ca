"""Sessions whose object is lit by three coloured lamps at once: one RGB frame becomes three pictures."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from calibration.lens import LensModel
from calibration.lights.intensity import are_known
from calibration.lights.model import LightSet
from calibration.photometric import Multiplex, NormalMap, colour_of, fit_multiplex, object_mask, sight
from calibration.provenance import FitError, Provenance
from rigs.workflows.encoding import Doubt
from rigs.workflows.frames import Image, LightImages


class Unmixed(NamedTuple):
    """The pictures under each lamp, the lamps at unit intensity, and the frame they were unmixed from.

    ``images.value`` (3, h, w); ``variance`` (h, w, 3) of the frame.
    """

    images: LightImages
    lights: LightSet
    multiplex: Multiplex
    variance: Image
    remark: str


def lit_at_once(names: tuple[str, ...], lights: LightSet) -> str | None:
    """The name of the lights' state in which several lights of the model burn at once; None where none does.

    Raises
    ------
    FitError
        There are several such states.
    """
    known = lights.lights
    found = [
        name for name in names if name not in known and "+" in name and set(name.split("+")) <= set(known)
    ]
    if len(found) > 1:
        raise FitError(f"frames under {' and '.join(found[:3])}: want one state of several lamps at once")
    return found[0] if found else None


def unmix(
    images: LightImages,
    state: str,
    lights: LightSet,
    mask: NDArray[np.bool_] | None,
    provenance: Provenance,
) -> Unmixed:
    """Pictures under each of the lamps of ``state``, by their colours.

    Frames under one light at a time tell colours: one of the lamps its own on the object, another, white
    light that of the object, and whether it has but one.

    Raises
    ------
    FitError
        Gray frames, another number of lamps than three, intensities or colours that nothing tells, colours
        too much alike.
    """
    lamps = tuple(state.split("+"))
    if images.value.ndim == 3:
        raise FitError(f"the frame under {state} is gray: lamps at once are told apart by a colour camera")
    unknown = [name for name in images.names if name != state and name not in lights.lights]
    if unknown:
        raise FitError(f"the light model has no {unknown[0]}, under which there is a frame")
    if not are_known(lights):
        raise FitError(
            "three samples a pixel do not tell how strong the lamps are: calibrate the lights by a white "
            "board or matte balls"
        )
    at = images.names.index(state)
    value, variance = images.value[at], images.variance[at]
    if mask is None:
        mask = object_mask(np.moveaxis(value, -1, 0), np.moveaxis(variance, -1, 0))
    checks = {
        name: colour_of(images.value[i], images.variance[i], mask)
        for i, name in enumerate(images.names)
        if name != state
    }
    multiplex = fit_multiplex(lights.lights, lamps, checks, provenance=provenance)
    white = ", ".join(name for name in checks if name not in lamps)
    told = (
        f"albedo of the object for each {', '.join(f'{a:.2f}' for a in multiplex.chromaticity)} by {white}"
        if white
        else "the object taken as gray"
    )
    warnings = () if multiplex.quality is None else multiplex.quality.warnings
    samples, noise = multiplex.unmix(value, variance)
    return Unmixed(
        LightImages(lamps, samples, noise, (*images.doubts, *map(Doubt, warnings)), images.remarks),
        lights.replace(
            lights={
                name: lights.lights[name].replace(intensity=(1.0,), intensity_sigma=None) for name in lamps
            }
        ),
        multiplex,
        variance,
        f"{state}: unmixed by the lamps' colours, {told}; noise {multiplex.noise_gain:.1f} times that of "
        "lamps apart; no sample to spare: shadows and gloss are not seen",
    )


def with_whole_noise(
    normals: NormalMap, unmixed: Unmixed, lens: LensModel | None, depth_mm: NDArray[np.floating]
) -> NormalMap:
    """The normals with the sigma that the whole covariance of the unmixed samples gives."""
    points = np.array([[[0.0, 0.0, 1.0]]])
    if lens is not None:
        rays = sight(lens, np.arange(lens.height), np.arange(lens.width))
        points = rays * depth_mm[..., None].astype(np.float64)
    sigma = unmixed.multiplex.sigma_deg(
        unmixed.variance,
        normals.normals,
        normals.albedo,
        [unmixed.lights.lights[name] for name in unmixed.images.names],
        points,
    )
    return normals.replace(sigma_deg=np.where(normals.valid & np.isfinite(sigma), sigma, normals.sigma_deg))
