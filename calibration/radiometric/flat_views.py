"""Vignetting from any scene that is seen at different places of the picture: scene and fall-off together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.provenance import Array, FitError, Model, Provenance, Quality
from calibration.radiometric.flat import smooth_part
from calibration.radiometric.model import Image, Radiance, RadiometricModel
from calibration.radiometric.vignetting import (
    Float,
    Shape,
    Vignetting,
    colour_planes,
    degree_terms,
    fit_falloff,
)

Points = Callable[[Float], Float]

_LOOK_PX = 1200  # longest side of the pictures that features are found in
_FEATURES = 3000
_LEAST_MATCHES = 24
_ACROSS = 48  # scene points across one view
_LEAST_SNR = 10.0
_PRNU = 0.01  # of one pixel, taken for granted where nothing is known
_RAMP = degree_terms(1)
_SHAPES = (
    *(Shape(powers, _RAMP, centred=True) for powers in ((2,), (2, 4), (2, 4, 6))),
    *(Shape(powers, _RAMP) for powers in ((2, 4), (2, 4, 6), (1, 2, 3))),
    Shape((2, 4), degree_terms(2), centred=True),
    Shape((2, 4), degree_terms(2)),
)


class SceneFlat(Model):
    """Vignetting found with a scene moved about.

    Attributes
    ----------
    vignetting : Vignetting
        ``support`` says where in the picture scene points were seen.
    homographies : ndarray (k, 3, 3), float64
        From the reference view's pixels to each view's, both free of distortion where functions were given.
    reference : int
        The view that the others were registered to.
    registration_px : float
        Root mean square distance of matched features after registration; NaN where they were given.
    view_scales : ndarray (k, channels), float64
        Light of each view relative to their geometric mean, as fitted; 1 with steady light.
    quality : Quality
    """

    vignetting: Vignetting
    homographies: Array
    reference: int
    registration_px: float
    view_scales: Array
    quality: Quality

    def apply(self, model: RadiometricModel, provenance: Provenance | None = None) -> RadiometricModel:
        """``model`` with this vignetting in its flat; the pixels' own pattern of an earlier flat is kept.

        That pattern is the old ``flat_map`` over its own smooth part; without a map 1 % stands for it. The
        sigma of the smooth part is the vignetting's own and not in ``flat_sigma``, which is of single pixels.
        """
        flat = self.vignetting.at()
        flat_sigma = float(np.hypot(model.flat_sigma, _PRNU))
        old = smooth_part(model)
        if model.flat_map is not None and old is not None:
            flat *= model.flat_map / old.at()
            flat_sigma = model.flat_sigma
        for plane in colour_planes(model.pixel_format):
            h, w = flat[plane].shape
            middle = flat[plane][h // 4 : h - h // 4, w // 4 : w - w // 4]
            flat[plane] /= middle.mean(dtype=np.float64)
        known = model.quality.warnings if model.quality is not None else ()
        return model.replace(
            flat_map=np.maximum(flat, np.float32(1e-3)),
            flat_sigma=flat_sigma,
            vignetting=self.vignetting,
            quality=self.quality.replace(warnings=(*known, *self.quality.warnings)),
            provenance=model.provenance if provenance is None else provenance,
        )


def fit_vignetting(
    views: Sequence[Radiance],
    pixel_format: str,
    *,
    homographies: NDArray[np.float64] | None = None,
    undistort: Points | None = None,
    distort: Points | None = None,
    steady: bool = False,
    ramp_sigma: float = 0.05,
) -> SceneFlat:
    """Vignetting from a scene whose points are seen at different places of the picture.

    Parameters
    ----------
    views : sequence of Radiance, (h, w) or (h, w, 3)
        Linear, without a flat; a Bayer mosaic as it is. Read one after the other, each twice.
    pixel_format : str
        PFNC name.
    homographies : ndarray (k, 3, 3), optional
        From the first view's pixels to each view's; found from features if not given.
    undistort, distort : functions of points (n, 2) px to (n, 2) px, optional
        From pixels to a picture without distortion and back, for lenses that bend lines.
    steady : bool
        The light was the same in all views to well below the wanted accuracy; else each view has a scale of
        its own, and views that were only shifted cannot tell a ramp across the picture.
    ramp_sigma : float
        How large a ramp, middle to edge, the lens may have where the views do not tell.

    Returns
    -------
    SceneFlat

    Raises
    ------
    FitError
        Fewer than two views, other sizes, a view that cannot be registered, or too little overlap.

    Notes
    -----
    ``log value = log scene + log vignetting(place) + log scale(view)``, robust least squares with the scene's
    points and the scales eliminated. Assumes that a scene point has the same radiance in all views: a flat or
    far scene, matt, in light that moves with it or that is far. A target that is carried through the beam of
    a near lamp breaks this, and the fall-off of the lamp comes out as vignetting. Goldman, IEEE TPAMI 32
    (2010) 2276-2288, doi:10.1109/TPAMI.2010.55.
    """
    if len(views) < 2:
        raise FitError(f"vignetting: {len(views)} view: want two or more, the scene moved in between")
    height, width = views[0].value.shape[:2]
    straight = undistort if undistort is not None else _same
    bent = distort if distort is not None else _same
    registered = (
        _register(views, pixel_format, straight, (height, width))
        if homographies is None
        else _Registered(np.asarray(homographies, np.float64), 0, np.nan)
    )
    if registered.homographies.shape != (len(views), 3, 3):
        raise FitError(f"vignetting: {len(views)} views but homographies {registered.homographies.shape}")
    seen = _observe(views, pixel_format, registered, straight, bent, (height, width))
    channels, residuals, scales = [], [], []
    for channel in seen:
        falloff, rms = fit_falloff(
            channel.u,
            channel.v,
            channel.log,
            channel.variance,
            width,
            height,
            _SHAPES,
            nuisance=_SceneAndScales(channel.point, channel.view, 0 if steady else len(views)),
            ramp_sigma=ramp_sigma,
        )
        channels.append(falloff)
        residuals.append(rms)
        scales.append(np.ones(len(views)) if steady else _scales(channel, falloff, len(views), width, height))
    vignetting = Vignetting(
        width=width, height=height, channels=tuple(channels), support=_support(seen, width, height)
    )
    warnings = _warnings(vignetting, ramp_sigma)
    return SceneFlat(
        vignetting=vignetting,
        homographies=registered.homographies,
        reference=registered.reference,
        registration_px=registered.rms_px,
        view_scales=np.stack(scales, axis=1),
        quality=Quality(
            residual_rms=100 * float(np.sqrt(np.mean(np.square(residuals)))),
            unit="% between views",
            observations=sum(len(channel.u) for channel in seen),
            verdict="doubtful" if warnings else "good",
            warnings=tuple(warnings),
        ),
    )


def _view(views: Sequence[Radiance], index: int, size: tuple[int, int]) -> Radiance:
    view = views[index]
    if view.value.shape[:2] != size:
        raise FitError(f"vignetting: view {index} has {view.value.shape[:2]} rows and columns, others {size}")
    return view


def _same(points: Float) -> Float:
    return points


@dataclass(frozen=True, eq=False)
class _Registered:
    homographies: Float
    reference: int
    rms_px: float


def _register(
    views: Sequence[Radiance], pixel_format: str, undistort: Points, size: tuple[int, int]
) -> _Registered:
    """Homographies from the middle view to each, over neighbours where they do not overlap."""
    sift = cv2.SIFT.create(nfeatures=_FEATURES)
    found = []
    for index in range(len(views)):
        picture, scale = _detail(_view(views, index, size).value, pixel_format)
        points, descriptors = sift.detectAndCompute(picture, None)
        places = np.array([p.pt for p in points], np.float64).reshape(-1, 2)
        places = undistort((places + 0.5) / scale - 0.5)
        known = np.isfinite(places).all(axis=1)
        found.append((places[known], None if descriptors is None else descriptors[known]))
    reference = len(views) // 2
    to: dict[int, Float] = {reference: np.eye(3)}
    errors: list[float] = []
    waiting = sorted((k for k in range(len(views)) if k != reference), key=lambda k: abs(k - reference))
    while waiting:
        for index in waiting:
            partners = [reference, *sorted(to, key=lambda k: abs(k - index))[:3]]
            matches = (_match(found[partner], found[index]) for partner in dict.fromkeys(partners))
            best = max(
                ((m, p) for m, p in zip(matches, dict.fromkeys(partners), strict=True) if m is not None),
                key=lambda pair: pair[0][2],
                default=None,
            )
            if best is not None:
                (homography, squares, count), partner = best
                to[index] = homography @ to[partner]
                errors += [squares] * count
                waiting.remove(index)
                break
        else:
            raise FitError(
                f"vignetting: view {waiting[0]} shares too few features with the others: overlap the views "
                "more, or show a scene with more detail"
            )
    return _Registered(
        np.stack([to[k] / to[k][2, 2] for k in range(len(views))]),
        reference,
        float(np.sqrt(np.mean(errors))),
    )


def _detail(value: Image, pixel_format: str) -> tuple[NDArray[np.uint8], float]:
    """Local contrast of the logarithm in 8 bits, free of any smooth fall-off, and its scale to the frame."""
    gray = value.mean(axis=-1) if value.ndim == 3 else value
    if pixel_format.startswith("Bayer"):
        h, w = (size // 2 * 2 for size in gray.shape)
        gray = gray[:h, :w].reshape(h // 2, 2, w // 2, 2).mean(axis=(1, 3))
    valid = np.isfinite(gray)
    if not valid.any():
        raise FitError("vignetting: a view has no valid pixel")
    typical = float(np.median(gray[valid]))
    log = np.log(np.maximum(np.where(valid, gray, typical), 0.02 * abs(typical) + 1e-30)).astype(np.float32)
    factor = min(_LOOK_PX / max(log.shape), 1.0)
    if factor < 1:
        size = max(round(log.shape[1] * factor), 1), max(round(log.shape[0] * factor), 1)
        log = np.asarray(cv2.resize(log, size, interpolation=cv2.INTER_AREA), np.float32)
    flat = log - cv2.GaussianBlur(log, (0, 0), max(log.shape) / 24)
    spread = max(float(np.percentile(np.abs(flat), 95)), 1e-6)
    return np.clip(128 + 100 * flat / spread, 0, 255).astype(np.uint8), log.shape[1] / value.shape[1]


def _match(one: tuple[Float, Any], other: tuple[Float, Any]) -> tuple[Float, float, int] | None:
    """Homography between two views' features, mean square error px^2 and how many agree."""
    if one[1] is None or other[1] is None or min(len(one[0]), len(other[0])) < _LEAST_MATCHES:
        return None
    pairs = cv2.BFMatcher(cv2.NORM_L2).knnMatch(one[1], other[1], k=2)
    good = [p[0] for p in pairs if len(p) == 2 and p[0].distance < 0.8 * p[1].distance]
    if len(good) < _LEAST_MATCHES:
        return None
    a = np.array([one[0][m.queryIdx] for m in good])
    b = np.array([other[0][m.trainIdx] for m in good])
    cv2.setRNGSeed(0)
    homography, inside = cv2.findHomography(a, b, cv2.USAC_MAGSAC, 2.0, maxIters=5000, confidence=0.9999)
    if homography is None or np.count_nonzero(inside) < _LEAST_MATCHES:
        return None
    chosen = inside.ravel().astype(bool)
    found = np.asarray(homography, np.float64)
    error = _map(found, a[chosen]) - b[chosen]
    return found, float(np.mean(np.sum(error**2, axis=1))), int(chosen.sum())


def _map(homography: Float, points: Float) -> Float:
    out = points @ homography[:, :2].T + homography[:, 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(out[:, 2:] > 0, out[:, :2] / out[:, 2:], np.nan))


@dataclass(frozen=True, eq=False)
class _Seen:
    """What one colour saw: place (px), scene point, view, logarithm and its variance, each (n,)."""

    u: Float
    v: Float
    point: NDArray[np.intp]
    view: NDArray[np.intp]
    log: Float
    variance: Float


def _observe(
    views: Sequence[Radiance],
    pixel_format: str,
    registered: _Registered,
    undistort: Points,
    distort: Points,
    size: tuple[int, int],
) -> list[_Seen]:
    """Sample every view, blurred, at a grid of scene points that covers all views."""
    height, width = size
    pitch = max(width / _ACROSS, 4.0)
    corners = np.array([[0, 0], [width - 1, 0], [0, height - 1], [width - 1, height - 1]], np.float64)
    reach = np.concatenate([_map(np.linalg.inv(h), undistort(corners)) for h in registered.homographies])
    low, high = np.nanmin(reach, axis=0), np.nanmax(reach, axis=0)
    # A view that looks far aside could ask for an endless plane.
    low = np.maximum(low, [-4.0 * width, -4.0 * height])
    high = np.minimum(high, [5.0 * width, 5.0 * height])
    grid = np.stack(
        np.meshgrid(np.arange(low[0], high[0], pitch), np.arange(low[1], high[1], pitch)), axis=-1
    )
    scene = grid.reshape(-1, 2)
    planes = colour_planes(pixel_format)
    rows: list[list[NDArray[Any]]] = [[] for _ in planes]
    slip = registered.rms_px if np.isfinite(registered.rms_px) else 0.1
    for index, homography in enumerate(registered.homographies):
        view = _view(views, index, (height, width))
        places = distort(_map(homography, scene))
        for number, plane in enumerate(planes):
            step = 2.0 if len(planes) == 4 else 1.0
            first = (number % 2, number // 2) if len(planes) == 4 else (0, 0)
            local = (places - first) / step
            value, variance, sure = _sample(
                view.value[plane], view.variance[plane], local, max(0.2 * pitch / step, 1.0), slip / step
            )
            kept = np.flatnonzero(sure)
            here = np.full(len(kept), index)
            rows[number].append(np.stack([*places[kept].T, kept, here, np.log(value[kept]), variance[kept]]))
    seen = []
    for of_colour in rows:
        u, v, point, view_of, log, variance = np.concatenate(of_colour, axis=1)
        points = point.astype(np.intp)
        shared = np.bincount(points, minlength=len(scene))[points] > 1
        if np.count_nonzero(shared) < 100:
            raise FitError("vignetting: the views share too few bright scene points: overlap them more")
        _, compact = np.unique(points[shared], return_inverse=True)
        seen.append(
            _Seen(
                u[shared], v[shared], compact, view_of[shared].astype(np.intp), log[shared], variance[shared]
            )
        )
    return seen


def _sample(
    value: Image, variance: Image, places: Float, blur_px: float, slip_px: float
) -> tuple[Float, Float, NDArray[np.bool_]]:
    """Blurred value at places, its relative variance, and where both can be trusted."""
    valid = np.isfinite(value)
    filled = np.where(valid, value, 0).astype(np.float32)

    def blur(image: NDArray[Any]) -> Image:
        out = cv2.GaussianBlur(
            np.ascontiguousarray(image, np.float32), (0, 0), blur_px, borderType=cv2.BORDER_CONSTANT
        )
        return np.asarray(out)

    share = blur(valid)
    mean = blur(filled) / np.maximum(share, np.float32(1e-6))
    noise = blur(np.where(valid, variance, 0)) / np.maximum(share, np.float32(1e-6))
    gx, gy = cv2.Sobel(mean, cv2.CV_32F, 1, 0) / 8, cv2.Sobel(mean, cv2.CV_32F, 0, 1) / 8

    def at(image: NDArray[Any]) -> Float:
        x, y = (np.nan_to_num(places[:, k], nan=-9.0).astype(np.float32).reshape(-1, 1) for k in (0, 1))
        out = cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
        return np.asarray(out[:, 0], np.float64)

    level, pixels = at(mean), 4 * np.pi * blur_px**2
    # A defect here and there does no harm; the border of the picture and of saturated parts does.
    whole = at(share) > 0.98
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = at(noise) / level**2 / pixels + _PRNU**2 / pixels
        slope = (at(gx) ** 2 + at(gy) ** 2) / level**2
        total = relative + slope * slip_px**2
        sure = whole & (level > 0) & (total < 1 / _LEAST_SNR**2) & np.isfinite(total)
    return level, total, sure


class _SceneAndScales:
    """The unknown logarithms of each scene point and of each view's light."""

    def __init__(self, point: NDArray[np.intp], view: NDArray[np.intp], views: int) -> None:
        self.point, self.view, self.views = point, view, views
        self.points = int(point.max()) + 1
        self.count = self.points + max(views - 1, 0)

    def projection(self, root: Float) -> Callable[[Float], Float]:
        """Weighted mean of each point off, then what is left of the views' own columns."""
        weight = np.bincount(self.point, weights=root * root, minlength=self.points)

        def centred(rows: Float) -> Float:
            columns = rows.reshape(len(rows), -1)
            out = np.empty_like(columns)
            for k in range(columns.shape[1]):
                mean = np.bincount(self.point, weights=root * columns[:, k], minlength=self.points) / weight
                out[:, k] = columns[:, k] - root * mean[self.point]
            return out.reshape(rows.shape)

        if not self.views:
            return centred
        own = centred(np.equal.outer(self.view, np.arange(self.views)) * root[:, None])
        left, size, _ = np.linalg.svd(own, full_matrices=False)
        # All scales together are the scene's.
        basis = left[:, size > 1e-9 * size[0]]

        def project(rows: Float) -> Float:
            inside = centred(rows)
            return np.asarray(inside - basis @ (basis.T @ inside))

        return project


def _scales(seen: _Seen, falloff: Any, views: int, width: int, height: int) -> Float:
    """Light of each view once the fall-off is known, by medians over the points that two views share."""
    alone = Vignetting(width=width, height=height, channels=(falloff,), support=np.ones((1, 1), np.bool_))
    log = seen.log - np.log(alone.value(0, seen.u, seen.v))
    scale = np.zeros(views)
    for _ in range(20):
        rest = log - scale[seen.view]
        scene = np.bincount(seen.point, weights=rest) / np.bincount(seen.point)
        off = rest - scene[seen.point]
        step = np.array(
            [np.median(off[seen.view == k]) if np.any(seen.view == k) else 0.0 for k in range(views)]
        )
        scale += step
        if np.max(np.abs(step)) < 1e-6:
            break
    return np.asarray(np.exp(scale - scale.mean()))


def _support(seen: Sequence[_Seen], width: int, height: int) -> NDArray[np.bool_]:
    rows, columns = 12, 16
    out = np.ones((rows, columns), np.bool_)
    for channel in seen:
        i = np.clip((channel.v * rows / height).astype(int), 0, rows - 1)
        j = np.clip((channel.u * columns / width).astype(int), 0, columns - 1)
        reached = np.zeros((rows, columns), np.bool_)
        reached[i, j] = True
        out &= reached
    return out


def _warnings(vignetting: Vignetting, ramp_sigma: float) -> list[str]:
    warnings = []
    loose = max(vignetting.ramp_sigma(channel) for channel in range(len(vignetting.channels)))
    if loose > 0.5 * ramp_sigma:
        warnings.append(
            f"the views do not tell a ramp across the picture (shifts alone cannot): it is held to "
            f"{100 * ramp_sigma:.0f} % from middle to edge; turn the camera about its axis in some views, "
            "or keep the light steady and say so"
        )
    if vignetting.extrapolated > 0.05:
        warnings.append(
            f"{vignetting.extrapolated:.0%} of the picture saw no scene point twice: the model extrapolates"
        )
    return warnings
