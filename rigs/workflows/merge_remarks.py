"""What a stack's own frames say against it before it is merged: light, exposures, movement, residuals."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from calibration.provenance import FitError
from calibration.radiometric.consistency import Bend, Exposures, Residuals, Sample, Shifts

# Outside, the claimed sigma is off by more than a tenth.
LEAST_CHI2, MOST_CHI2 = 0.8, 1.25
_BLACK_SIGMAS = 5.0
_ODD = 0.25  # a told exposure this far off, relatively, is no jitter
_NAMED = 0.01  # one this far off, beyond the others, is named


class Named(Protocol):
    """Frames of one picture that messages can name."""

    def say(self, index: int) -> str:
        """Frame as messages name it."""
        ...


def gross(label: Named, found: Exposures) -> str:
    """How the pictures contradict the told times grossly, or nothing."""
    ratio = found.found_s / found.told_s
    if not np.nanmax(np.abs(np.log(ratio))) > np.log1p(_ODD):
        return ""
    # Seen from the median of the others, not from a mean that the odd one has moved.
    ratio /= np.median(ratio[np.isfinite(found.sigma)])
    worst = int(np.argmax(np.where(np.isfinite(found.sigma), np.abs(np.log(ratio)), 0)))
    says = _says(label, worst, float(ratio[worst]))
    if len(set(found.told_s.tolist())) == 1:
        raise FitError(f"{says}; all frames have the same exposure: is it missing in the manifest?")
    return says


def _says(label: Named, index: int, ratio: float) -> str:
    return f"{label.say(index)}: exposed {ratio:#.4g} times as long as told, by the pictures"


def name_exposures(
    label: Named,
    found: Exposures,
    odd: str,
    warnings: list[str],
    *,
    exposures: str,
    refined: bool,
    known: bool,
) -> None:
    """Name the frames whose told times the others contradict, before anything that follows from it."""
    if odd and not (known and found.off.any()):
        warnings.append(
            f"{odd}: wrong time, another lamp level, a black level that is not known, or a response that is "
            "not linear"
        )
        return
    off, deviation = found.off.copy(), np.abs(found.deviation)
    if exposures == "told" and found.significant and not off.any() and len(set(found.told_s.tolist())) > 1:
        off[np.argmax(np.where(np.isfinite(found.sigma), deviation, 0))] = True
    used = "the found times are used, on the scale of the others" if refined else "the told time is used"
    for index in np.flatnonzero(off & (deviation > _NAMED)):
        ratio = float(found.found_s[index] / found.told_s[index])
        warnings.append(f"{_says(label, int(index), ratio)}; {used}")


def name_movement(label: Named, shifts: Shifts, moved: NDArray[np.float64], warnings: list[str]) -> None:
    """Name the frames that lie beside the others, and those in which something moved."""
    for index in np.flatnonzero(shifts.significant()):
        x, y = shifts.shift_px[index]
        warnings.append(
            f"{label.say(int(index))} is shifted by {x:.2f}, {y:.2f} px against the others: its edges are "
            "not merged rightly; leave it out or align the frames"
        )
    for index in np.flatnonzero(moved > 0):
        warnings.append(f"{label.say(int(index))}: {100 * moved[index]:.2g} % moved and left out")


def explained(residuals: Residuals) -> bool:
    """Whether the noise explains the residuals, as far as they can be judged."""
    return bool(np.isnan(residuals.total) or LEAST_CHI2 <= residuals.total <= MOST_CHI2)


def name_residuals(residuals: Residuals, by_times: Residuals, bend: Bend | None, warnings: list[str]) -> None:
    """Say how far the noise is from explaining the residuals, and what would; ``by_times``: found times."""
    worst = "".join(f", {name} {value:.3g}" for name, value in residuals.by_colour.items())
    if bend is not None and bend.chi2 < 0.9 * residuals.total and by_times.total > MOST_CHI2:
        warnings.append(
            f"under the told exposures, a response that bends by {bend.full_scale_percent:.2g} % at full "
            f"scale and a black level off by {bend.black_dn:.2g} DN bring the chi^2 to {bend.chi2:.2f}"
        )
    warnings.append(
        f"reduced chi^2 of the residuals is {residuals.total:.3g}{worst}: "
        + ("more" if residuals.total > 1 else "less")
        + " than the noise explains; sigma is not to be trusted to better than its root"
    )


def check_light(
    label: Named, sample: Sample, told: NDArray[np.float64], warnings: list[str], may_be_black: bool
) -> None:
    """Refuse a stack without light or without anything below saturation; name frames that add nothing."""
    count = len(told)
    electrons = sample.electrons.reshape(count, -1)
    valid = np.isfinite(electrons)
    shortest, longest = int(np.argmin(told)), int(np.argmax(told))
    if not valid.any():
        raise FitError(
            f"{label.say(shortest)}: saturated, or not finite, and it is the shortest: expose shorter"
        )
    floor = np.broadcast_to(sample.floor, sample.electrons.shape).reshape(count, -1)
    with np.errstate(invalid="ignore"):
        seen = electrons > _BLACK_SIGMAS * np.sqrt(floor)
    dark = [i for i in range(count) if valid[i].any() and seen[i].mean() < 1e-4]
    if not seen.any(axis=1).any() or len(dark) == count:
        message = f"{label.say(longest)}: black all over, nothing beyond the noise, and it is the longest"
        if may_be_black:
            warnings.append(message)
            return
        raise FitError(f"{message}: expose longer")
    for i in range(count):
        if not valid[i].any():
            warnings.append(f"{label.say(i)}: saturated, or next to it, all over; it adds nothing")
        elif i in dark:
            warnings.append(f"{label.say(i)}: black all over; it adds next to nothing")
