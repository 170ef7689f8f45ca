"""Frames whose told exposure times the pictures contradict, named."""

from typing import Protocol

import numpy as np

from calibration.provenance import FitError
from calibration.radiometric.consistency import Exposures

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
