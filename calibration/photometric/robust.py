"""A Lambertian surface, with a lobe of gloss or none."""

from calibration.photometric.gloss import Gloss
from calibration.photometric.pixels import Pixels, Solution
from calibration.progress import Track, silent

# Parts of the object's gloss that a pixel may have; the likeliest first.
_SHARES = (1.0, 0.0, 0.5, 2.0)


def solve_robust(pixels: Pixels, gloss: Gloss | None, track: Track = silent) -> Solution:
    """Robust normals under a lobe common to the object; None is a matt one."""
    if gloss is None:
        return pixels.solve(robust=True, track=track)
    strengths = [share * gloss.strength for share in _SHARES]
    return pixels.solve(robust=True, roughness=gloss.roughness, strengths=strengths, track=track)
