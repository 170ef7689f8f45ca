"""Three lamps of three colours at once: one RGB frame holds a picture under each of them."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from calibration.geometry import Float, normalize
from calibration.photometric.pixels import Light
from calibration.provenance import Array, FitError, Model, Provenance, Quality

# Samples of a check frame are looked at from so many sigmas on; so many of them are wanted.
_CLEAR = 10.0
_LEAST_PIXELS = 50
# Smallest singular value of the mixing's columns, made of length 1, below which nothing is unmixed.
_ALIKE = 0.05
# Relative: how much a colour may vary over the object, or differ from what the light model says.
_TINTED = 0.02
# Factor by which unmixing raises the noise that is worth a word; sigmas below which a sample is in shadow.
_NOISY = 3.0
_SHADOW = 3.0


class Multiplex(Model):
    """What each of three lamps shows in each channel of the camera.

    Attributes
    ----------
    lights : 3 names
        In the order of the mixing's columns.
    mixing : ndarray (3, 3), float64
        Row: channel R, G, B. Column: lamp. Radiance of a surface of the object's chromaticity, of mean albedo
        1, that faces the lamp at intensity 1 as calibrated (for a near one, at 1 mm).
    covariance : ndarray (9, 9) or None
        Of ``mixing`` row by row; common to all pixels.
    chromaticity : 3 floats
        Albedo of the object in the light of each lamp, mean 1, against that of what the lamps were calibrated
        on; 1, 1, 1 where nothing tells it.
    """

    kind: Literal["multiplex"] = "multiplex"
    lights: tuple[str, str, str]
    mixing: Array
    covariance: Array | None = None
    chromaticity: tuple[float, float, float] = (1.0, 1.0, 1.0)
    quality: Quality | None = None
    provenance: Provenance = Provenance()

    @property
    def noise_gain(self) -> float:
        """By how much unmixing raises the noise of the worst lamp, against its light unmixed; 1 is best."""
        length = np.linalg.norm(self.mixing, axis=0)
        return float(np.max(length * np.linalg.norm(np.linalg.inv(self.mixing), axis=1)))

    def unmix(
        self, radiance: NDArray[np.floating], variance: NDArray[np.floating]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Radiance under each lamp alone, of unit intensity, and its variance, (3, h, w) each.

        Parameters
        ----------
        radiance, variance : ndarray (h, w, 3)
            Of the frame under all three. NaN in one channel is NaN in all.

        Returns
        -------
        tuple of ndarray
            A sample that does not stand three sigma above 0 is NaN: the lamp does not reach the pixel, or
            something else is wrong. The variances are the diagonal; the samples of one pixel are correlated
            (``sigma_deg`` has the whole).

        Notes
        -----
        Assumes that the object has one chromaticity, whatever its albedo. R. J. Woodham, Optical Engineering
        19 (1980), doi:10.1117/12.7972479; C. Hernandez et al., "Non-rigid photometric stereo with colored
        lights", ICCV 2007, doi:10.1109/ICCV.2007.4408939.
        """
        apart = np.linalg.inv(self.mixing)
        value = np.einsum("kc,yxc->kyx", apart, radiance)
        noise = np.einsum("kc,yxc->kyx", apart**2, variance)
        with np.errstate(invalid="ignore"):
            value = np.where(value > _SHADOW * np.sqrt(noise), value, np.nan)
        return value.astype(np.float32), noise.astype(np.float32)

    def sigma_deg(
        self,
        variance: NDArray[np.floating],
        normals: NDArray[np.floating],
        albedo: NDArray[np.floating],
        lights: Sequence[Light],
        points: NDArray[np.floating],
    ) -> NDArray[np.float32]:
        """Angle, degrees, both directions together, by which the frame's noise turns each normal, (h, w).

        Parameters
        ----------
        variance : ndarray (h, w, 3)
            Of the frame.
        normals, albedo : ndarray (h, w, 3), (h, w)
            As solved from the unmixed samples.
        lights : sequence of 3 lights
            In order of ``self.lights``; of unit intensity.
        points : ndarray (h, w, 3) or (1, 1, 3)
            Surface points, mm; any for distant lights.
        """
        h, w = albedo.shape
        rows = np.empty((h, w, 3, 3))
        for k, light in enumerate(lights):
            direction, irradiance = light.at(points)
            rows[..., k, :] = direction * irradiance[..., :1]
        solved = np.isfinite(albedo) & np.isfinite(rows).all(axis=(2, 3))
        out = np.full((h, w), np.nan, np.float32)
        n = normals[solved].astype(np.float64)
        by_channel = np.linalg.inv(self.mixing @ rows[solved])
        by_channel -= n[:, :, None] * np.einsum("pi,pic->pc", n, by_channel)[:, None, :]
        square = np.einsum("pic,pc->p", by_channel**2, variance[solved].astype(np.float64))
        out[solved] = np.degrees(np.sqrt(square) / albedo[solved])
        return out


class Colour(NamedTuple):
    """Colour of an object under one lamp: shares (3,) of sum 1, their covariance, and how much pixels differ.

    ``spread`` is relative to the largest share, beyond noise.
    """

    share: Float
    covariance: Float
    spread: float


def colour_of(
    radiance: NDArray[np.floating], variance: NDArray[np.floating], mask: NDArray[np.bool_]
) -> Colour:
    """Colour of the pixels of a mask in a frame (h, w, 3); FitError where too few are clear of noise."""
    value, noise = radiance[mask].astype(np.float64), variance[mask].astype(np.float64)
    total, unsure = value.sum(axis=1), np.sqrt(noise.sum(axis=1))
    with np.errstate(invalid="ignore"):
        clear = total > _CLEAR * unsure
    if clear.sum() < _LEAST_PIXELS:
        raise FitError(f"{int(clear.sum())} pixels of the object are clear of noise: want {_LEAST_PIXELS}")
    value, noise, total = value[clear], noise[clear], total[clear, None]
    share = value / total
    middle = np.median(share, axis=0)
    own = ((1 - middle) ** 2 * noise + middle**2 * (noise.sum(axis=1, keepdims=True) - noise)) / total**2
    off = share - middle
    scatter = 1.4826 * np.median(np.abs(off), axis=0)
    spread = np.sqrt(np.maximum(scatter**2 - np.median(own, axis=0), 0.0)).max() / middle.max()
    near = (np.abs(off) < 4 * np.maximum(scatter, 1e-12)).all(axis=1)
    weight = near / (own.sum(axis=1) + float(np.sum(scatter**2)))
    middle = (weight @ share) / weight.sum()
    off = (share - middle) * (weight / weight.sum())[:, None]
    return Colour(middle / middle.sum(), off.T @ off, float(spread))


def fit_multiplex(
    lights: Mapping[str, Light],
    names: Sequence[str],
    checks: Mapping[str, Colour] | None = None,
    *,
    provenance: Provenance | None = None,
) -> Multiplex:
    """The mixing of three lamps, from their calibrated colours and from frames under one light at a time.

    Parameters
    ----------
    lights : mapping of name -> light
        With intensities in R, G, B, as white balls or a white board give them. One value is the mean of the
        channels; of the lamps, their frame in ``checks`` then tells the colour; another light is then white.
    names : sequence of 3 str
        The lamps.
    checks : mapping of name of a light -> Colour
        Of the object under it alone (``colour_of``). Under one of the lamps: what that lamp shows on the
        object, in place of its calibrated colour. Under another, white light: the object's chromaticity.

    Raises
    ------
    FitError
        Not three lamps; colours that nothing tells; colours so much alike that they cannot be told apart.

    Notes
    -----
    A white light is taken as a sum of the lamps' lights: what it shows of the object is unmixed as the frame
    is, and what it shows of white too; their ratio is the object's albedo for each lamp. An object's albedo
    for a lamp cannot be told from that lamp's strength by the lamps' own frames.
    """
    if len(names) != 3:
        raise FitError(f"{len(names)} lamps at once: an RGB frame holds pictures under three")
    seen = dict(checks or {})
    unknown = [name for name in names if len(lights[name].intensity) == 1 and name not in seen]
    if unknown:
        raise FitError(
            f"the colour of lamp {unknown[0]} is not known: calibrate the lights by a white board or matte "
            "balls, or add a frame of the object under that lamp alone"
        )
    mixing, spread, warnings = np.empty((3, 3)), np.zeros((9, 9)), []
    for k, name in enumerate(names):
        column, own = _told(lights[name])
        if name in seen:
            share, level = seen[name].share, float(column.sum())
            if len(lights[name].intensity) == 3 and np.abs(column / level - share).max() > _TINTED:
                warnings.append(f"lamp {name} shows another colour on the object than the light model says")
            own = level**2 * seen[name].covariance + float(np.sum(own)) * np.outer(share, share)
            column = level * share
        mixing[:, k] = column
        at = np.arange(3) * 3 + k
        spread[np.ix_(at, at)] = own
    if not np.linalg.svd(normalize(mixing.T), compute_uv=False)[2] > _ALIKE:
        raise FitError(f"the lamps {', '.join(names)} have colours too much alike to be told apart")
    apart = np.linalg.inv(mixing)
    albedos = []
    for name, colour in seen.items():
        if name not in names:
            shown, white = apart @ colour.share, apart @ _told(lights[name])[0]
            if not (min(shown) > 0 and min(white) > 0):
                raise FitError(
                    f"the light of {name} is no sum of the lamps': it tells no colour of the object"
                )
            albedos.append(shown / white / np.mean(shown / white))
        if colour.spread > _TINTED:
            warnings.append(
                f"the object's colour varies by {100 * colour.spread:.0f} % under {name}: one frame under "
                "three lamps takes that for shape"
            )
    body = np.mean(albedos, axis=0) if albedos else np.ones(3)
    scale = np.tile(body, 3)
    found = Multiplex(
        lights=(names[0], names[1], names[2]),
        mixing=mixing * body,
        covariance=spread * np.outer(scale, scale),
        chromaticity=(float(body[0]), float(body[1]), float(body[2])),
        provenance=provenance or Provenance(),
    )
    if found.noise_gain > _NOISY:
        warnings.append(f"the lamps' colours overlap: unmixing raises the noise {found.noise_gain:.1f} times")
    quality = Quality(
        residual_rms=max((colour.spread for colour in seen.values()), default=0.0),
        unit="spread of the colour over the object, relative",
        observations=3 * len(seen),
        verdict="doubtful" if warnings else "good",
        warnings=tuple(warnings),
    )
    return found.replace(quality=quality)


def _told(light: Light) -> tuple[Float, Float]:
    """Intensity of a light in R, G, B and its covariance (3, 3)."""
    sigma = np.zeros(1) if light.intensity_sigma is None else np.asarray(light.intensity_sigma)
    intensity = np.broadcast_to(np.asarray(light.intensity, np.float64), 3)
    return intensity, np.diag(np.broadcast_to(np.nan_to_num(sigma), 3) ** 2)
