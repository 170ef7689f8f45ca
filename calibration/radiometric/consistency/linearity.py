"""Whether a bend of the response or a wrong black level explains what told exposures cannot."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from calibration.radiometric.consistency.residuals import fitted
from calibration.radiometric.consistency.sampling import Sample
from calibration.radiometric.model import RadiometricModel

_ROUNDS = 6
_FEWEST = 1000
_REJECTED = 6.0


class Bend(NamedTuple):
    """Deviation from a linear camera of known black level, if the told exposures are right.

    Attributes
    ----------
    full_scale_percent, sigma_percent : float
        How much a sample at saturation falls short of the line through the dark, percent of it.
    black_dn, black_sigma_dn : float
        What is left of the black level after the model's was taken off, DN.
    chi2 : float
        Reduced chi^2 with these two taken into account.
    """

    full_scale_percent: float
    sigma_percent: float
    black_dn: float
    black_sigma_dn: float
    chi2: float


def find_bend(sample: Sample, exposure_s: ArrayLike, model: RadiometricModel) -> Bend | None:
    """Fit ``e = x - c x^2 / full + o`` to all clear samples; x is radiance times told exposure.

    Two numbers for the whole stack; the radiances are eliminated pixel by pixel.

    Parameters
    ----------
    sample : Sample
        Of ``sample_stack``, NaN what moved.
    exposure_s : array_like (n,)
        As told: with free exposures a bend cannot be told from them.
    model : RadiometricModel
        Of the sample: linear, of integers.

    Returns
    -------
    Bend or None
        None for other models, and where too few samples overlap.

    Notes
    -----
    The quadratic is the first term of any smooth deviation; it says how much, not why. Samples beyond six
    sigma are left out.
    """
    if not model.counts_electrons or model.response is not None:
        return None
    time = np.asarray(exposure_s, np.float64)
    count = len(time)
    if len(np.unique(time)) < 2:  # any bend is then another radiance
        return None
    electrons = sample.electrons.reshape(count, -1)
    flat = sample._replace(electrons=electrons, floor=sample.floor.reshape(-1, 1))
    _, weight, share = fitted(flat, time)
    pixels = ((weight > 0) & (share < 0.999)).sum(axis=0) > 1
    if np.count_nonzero(weight[:, pixels]) < _FEWEST:
        return None
    observed = np.nan_to_num(electrons[:, pixels]).astype(np.float64)
    weights = weight[:, pixels].astype(np.float64)
    t, full = time[:, None], sample.highest
    rate = (weights * observed * t).sum(axis=0) / (weights * t * t).sum(axis=0)
    bend = offset = 0.0
    for _ in range(_ROUNDS):
        x = rate * t
        off = observed - (x - bend * x * x / full + offset)
        used = np.where(np.abs(off) * np.sqrt(weights) < _REJECTED, weights, 0)
        slope = t * (1 - 2 * bend * x / full)
        columns = (-x * x / full, np.ones_like(x))
        own = np.maximum((used * slope**2).sum(axis=0), 1e-300)
        mixed = np.stack([(used * slope * column).sum(axis=0) for column in columns])
        matrix = np.array([[(used * a * b).sum() for a in columns] for b in columns])
        matrix -= (mixed / own) @ mixed.T
        pull = (used * slope * off).sum(axis=0)
        gradient = np.array([(used * column * off).sum() for column in columns]) - (mixed / own) @ pull
        if np.linalg.cond(matrix) > 1e12:
            return None
        step = np.linalg.solve(matrix, gradient)
        rate += (pull - step @ mixed) / own
        bend, offset = bend + step[0], offset + step[1]
    sigma = np.sqrt(np.diag(np.linalg.inv(matrix)))
    x = rate * t
    off = observed - (x - bend * x * x / full + offset)
    free = np.count_nonzero(used) - np.count_nonzero(used.any(axis=0)) - 2
    chi2 = float((used * off * off).sum() / free)
    scatter = np.sqrt(max(chi2, 1.0))
    gain = model.gain_dn_per_e
    return Bend(
        full_scale_percent=100 * float(bend),
        sigma_percent=100 * float(sigma[0] * scatter),
        black_dn=float(offset * gain),
        black_sigma_dn=float(sigma[1] * scatter * gain),
        chi2=chi2,
    )
