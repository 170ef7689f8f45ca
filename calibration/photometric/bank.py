"""Reflectances of which any material is taken to be a mixture."""

from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike

from calibration.geometry import Float, normalize

Kind = Literal["lambert", "coated", "rough", "ambient", "lobe", "compact"]

_GRAZING = 0.02
# Of Student's distribution of slopes: 2 is GGX, infinity Beckmann's.
ORDERS = {"lobe": 2, "compact": 16}


class Reflectance(NamedTuple):
    """One reflectance; none is fitted to data.

    Attributes
    ----------
    kind : str
        ``lambert``: n.l. ``coated``: a body under a smooth coat, light weakened on its way in and out as
        1 - (1 - cos)^width. ``rough``: Oren and Nayar's, width their sigma in radians. ``ambient``:
        (1 + n.l) / 2, light from all around the lamp, as bounces and translucency send it. ``lobe``: GGX,
        width its alpha. ``compact``: the same with next to no tail, close to Beckmann's.
    width : float

    Notes
    -----
    Coat: after C. Schlick, Computer Graphics Forum 13 (1994), doi:10.1111/1467-8659.1330233. Rough: M. Oren
    and S. K. Nayar, SIGGRAPH 1994, doi:10.1145/192161.192213, without the term of light away from the eye.
    Lobe: as ``Gloss``. Both lobes: Student's t distribution of slopes, of order 2 (GGX) and 16, M. Ribardiere
    et al., Computer Graphics Forum 36 (2017), doi:10.1111/cgf.13137.
    """

    kind: Kind
    width: float = 0.0

    def respond(self, normals: ArrayLike, to_light: ArrayLike, to_eye: ArrayLike) -> Float:
        """Radiance over irradiance across the beam, for unit vectors (..., 3).

        A lobe is that of a Fresnel reflectance of 1/4, with the shadowing of GGX.
        """
        n, light, eye = (np.asarray(v, np.float64) for v in (normals, to_light, to_eye))
        cosine = np.sum(n * light, axis=-1)
        nl = np.maximum(cosine, 0.0)
        nv = np.maximum(np.sum(n * eye, axis=-1), _GRAZING)
        match self.kind:
            case "lambert":
                out = nl
            case "coated":
                out = nl * (1 - (1 - nl) ** self.width) * (1 - (1 - nv) ** self.width)
            case "rough":
                s2 = self.width**2
                across = np.maximum(np.sum(light * eye, axis=-1) - nl * nv, 0.0) / np.maximum(nl, nv)
                out = nl * (1 - 0.5 * s2 / (s2 + 0.33) + 0.45 * s2 / (s2 + 0.09) * across)
            case "ambient":
                out = 0.5 + 0.5 * cosine
            case _:
                a2, order = self.width**2, ORDERS[self.kind]
                nh2 = np.sum(n * normalize(light + eye), axis=-1) ** 2
                spread = (1 + (1 / np.maximum(nh2, 1e-9) - 1) / ((order - 1) * a2)) ** -order
                shade = nl * np.sqrt(a2 + (1 - a2) * nv**2) + nv * np.sqrt(a2 + (1 - a2) * nl**2)
                out = nl * spread / (8 * a2 * np.maximum(nh2, 1e-9) ** 2 * shade)
        return np.asarray(out)


_BODY = (Reflectance("lambert"),)
_LOBES = tuple(Reflectance("lobe", a) for a in (0.05, 0.1, 0.15, 0.22, 0.32, 0.45, 0.65, 0.9))
_COMPACT = tuple(Reflectance("compact", a) for a in (0.2, 0.35))
_BODIES = (
    *(Reflectance("coated", p) for p in (1, 2, 3, 5)),
    *(Reflectance("rough", s) for s in (0.3, 1.0)),
    Reflectance("ambient"),
)

# From the plainer to the richer.
BANKS = {"matt with lobes": _BODY + _LOBES, "whole bank": _BODY + _BODIES + _LOBES + _COMPACT}


class Mixture(NamedTuple):
    """What an object is made of.

    Attributes
    ----------
    bank : tuple of Reflectance
        Those in use.
    precision : ndarray (k, k)
        Inverse second moment of their shares, for samples over a channel's rms sample: a Gaussian prior.
    """

    bank: tuple[Reflectance, ...]
    precision: Float

    @property
    def kinds(self) -> Float:
        """Numbers by which the kernel knows the kinds."""
        return np.array([get_args(Kind).index(part.kind) for part in self.bank], np.int64)

    @property
    def widths(self) -> Float:
        """Widths of the reflectances, (k,)."""
        return np.array([part.width for part in self.bank], np.float64)

    @property
    def body(self) -> Float:
        """Albedo of a share of one, (k,): what all but the lobes send straight back."""
        z = np.array([0.0, 0.0, 1.0])
        return np.array([0.0 if p.kind in ORDERS else float(p.respond(z, z, z)) for p in self.bank])
