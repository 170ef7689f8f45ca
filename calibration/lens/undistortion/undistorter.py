"""Pictures, masks, normals, depths and variances in a view without distortion."""

from collections.abc import Hashable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibration.geometry import Float
from calibration.lens.brown_conrady import BrownConrady
from calibration.lens.model import LensModel
from calibration.lens.undistortion.maps import Maps, make_maps
from calibration.lens.undistortion.view import ViewChoice, pinhole_view

_EVIDENCE = set(LensModel.model_fields) - {"width", "height", "fx", "fy", "cx", "cy"}
_MOST_SIDE = 32766  # of cv2.remap
_MOST_KEPT_PX = 32_000_000
_LEAST_LENGTH = 0.5


class Undistorted(NamedTuple):
    """Picture (h, w) or (h, w, c); which of its pixels (h, w) the camera saw; its lens."""

    image: NDArray[Any]
    valid: NDArray[np.bool_]
    lens: BrownConrady


@dataclass(frozen=True, eq=False)
class Undistorter:
    """What takes a camera's pictures, and what lies beside them, to a pinhole view.

    Bilinear between pixels: fine detail loses contrast, noise is smoothed (its variance by up to 4) and
    correlated. Measure corners and highlights in the camera's own picture, and take the points to the view
    by ``view.project(lens.unproject(pixels) @ rotation.T)``. Raw mosaics of a colour sensor are no pictures.

    Attributes
    ----------
    lens : LensModel
        Of the camera.
    view : BrownConrady
        Of the new picture; without distortion.
    rotation : ndarray (3, 3)
        Rt_view_camera.
    maps : Maps
        Where each pixel of the view is seen in the camera's image, float32 (rounded to 1/8000 px at column
        2000, 1/1000 px at 16000).
    """

    lens: LensModel
    view: BrownConrady
    rotation: Float
    maps: Maps

    @property
    def valid(self) -> NDArray[np.bool_]:
        """Pixels (h, w) of the view that the camera saw."""
        return self.maps.valid

    def image(self, image: NDArray[Any]) -> NDArray[Any]:
        """Picture (h, w) or (h, w, c): of uint8 and uint16 the same, rounded; of floats float32.

        What was not seen is 0 in integers, NaN in floats; NaN spreads to the pixels that rest on it.
        """
        return self._remap(image, cv2.INTER_LINEAR)

    def nearest(self, labels: NDArray[Any]) -> NDArray[Any]:
        """Counts or labels, of which there is no mean: those of the nearest pixel. Types as in ``image``."""
        return self._remap(labels, cv2.INTER_NEAREST)

    def mask(self, mask: NDArray[Any]) -> NDArray[np.bool_]:
        """Mask (h, w): True where all that the pixel rests on is true (to 1/500 of its weight) and seen."""
        self._check(mask, (2,))
        holes = np.where(mask, np.uint8(0), np.uint8(255))
        return np.asarray((self._remap(holes, cv2.INTER_LINEAR) == 0) & self.valid)

    def variance(self, variance: NDArray[Any]) -> NDArray[np.float32]:
        """Variance (h, w) or (h, w, c), float32, of what ``image`` gives for independent pixels.

        The weights squared: smaller than the mean of the pixels' variances, by 4 in their middle. Neighbours
        in the new picture are correlated, so that means over many pixels gain nothing by it.
        """
        from calibration.lens.undistortion.kernels import spread_variance

        self._check(variance, (2, 3))
        planes = np.moveaxis(np.atleast_3d(variance), -1, 0)
        out = np.full((len(planes), *self.valid.shape), np.nan, np.float32)
        for plane, target in zip(planes, out, strict=True):
            spread_variance(np.ascontiguousarray(plane, np.float32), self.maps.x, self.maps.y, target)
        return np.ascontiguousarray(np.moveaxis(out, 0, -1)) if variance.ndim == 3 else out[0]

    def normals(self, normals: NDArray[Any]) -> NDArray[np.float32]:
        """Unit normals (h, w, 3) of the camera's frame, in the frame of the view; NaN stays NaN.

        They turn by ``rotation``. Where neighbours differ by more than 120 degrees there is none.
        """
        if normals.ndim != 3 or normals.shape[2] != 3:
            raise ValueError(f"normals {normals.shape}: want (h, w, 3)")
        mean = self._remap(np.asarray(normals, np.float32), cv2.INTER_LINEAR)
        mean = mean @ self.rotation.T.astype(np.float32)
        length = np.sqrt(np.einsum("...i,...i", mean, mean))[..., None]
        return np.asarray(mean / np.where(length > _LEAST_LENGTH, length, np.float32(np.nan)))

    def depth(self, depth: NDArray[Any]) -> NDArray[np.float32]:
        """Depth (h, w), z in the camera's frame, as z in the frame of the view; any unit of length.

        Interpolated as 1 / z, which is exact on planes. On the rim of a nearer thing the mean lies in the air
        between the two. NaN where depth is not above 0.
        """
        self._check(depth, (2,))
        with np.errstate(divide="ignore", invalid="ignore"):
            near = np.where(depth > 0, 1 / depth, np.nan)
            z = 1 / self._remap(near.astype(np.float32), cv2.INTER_LINEAR)
        # The ray (x, y, 1) of the view has this z in the camera's frame.
        x = (np.arange(self.view.width) - self.view.cx) / self.view.fx
        y = (np.arange(self.view.height) - self.view.cy) / self.view.fy
        along = self.rotation[:, 2]
        return np.asarray(z / (along[0] * x + along[1] * y[:, None] + along[2]), np.float32)

    def _check(self, image: NDArray[Any], dimensions: tuple[int, ...]) -> None:
        if image.shape[:2] != (self.lens.height, self.lens.width) or image.ndim not in dimensions:
            raise ValueError(
                f"image {image.shape} does not fit a lens of {self.lens.width} x {self.lens.height} px"
            )

    def _remap(self, image: NDArray[Any], interpolation: int) -> NDArray[Any]:
        self._check(image, (2, 3))
        if image.dtype.kind == "f":
            image = np.asarray(image, np.float32)
        elif image.dtype not in (np.uint8, np.uint16):
            raise ValueError(f"image of {image.dtype}: want 8 or 16 bits, or floats")
        if image.ndim == 3 and image.shape[2] > 4:
            return np.stack([self._remap(plane, interpolation) for plane in np.moveaxis(image, -1, 0)], -1)
        # Linear interpolation of float maps is exact in OpenCV 5; cubic and Lanczos round to 1/32 px.
        out = cv2.remap(np.ascontiguousarray(image), self.maps.x, self.maps.y, interpolation)
        out = np.asarray(out).reshape(*self.valid.shape, *image.shape[2:])
        if image.dtype.kind == "f":
            unseen = ~self.valid
            # Plane by plane: numpy is slow where a mask is spread over a short last axis.
            for plane in [out] if out.ndim == 2 else np.moveaxis(out, -1, 0):
                np.copyto(plane, np.nan, where=unseen)
        return out


def undistorter(
    lens: LensModel,
    view: ViewChoice | BrownConrady = "same",
    *,
    rotation: ArrayLike | None = None,
    size: tuple[int, int] | None = None,
) -> Undistorter:
    """What takes pictures of a camera to a view without distortion; its maps are made once.

    The last two are kept, for the next call with the same lens and view (9 bytes a pixel; of views up to 32
    megapixels).

    Parameters
    ----------
    lens : LensModel
        Any; of the camera that took the pictures.
    view : 'same', 'crop', 'keep-all' or BrownConrady
        Chosen by `pinhole_view`, or a lens without distortion.
    rotation : ndarray (3, 3), optional
        Rt_view_camera: turns directions of the camera into the view, as rectification does.
    size : (width, height), optional
        Of the new picture, px; where the view is not a lens.

    Raises
    ------
    ValueError
        A view that has distortion, no rotation, a side of more than 32766 px, or what `pinhole_view` refuses.
    """
    turn = np.eye(3) if rotation is None else np.array(rotation, np.float64)
    if (
        turn.shape != (3, 3)
        or not np.allclose(turn @ turn.T, np.eye(3), atol=1e-6)
        or np.linalg.det(turn) < 0
    ):
        raise ValueError("rotation: want a 3 x 3 rotation matrix")
    turn.flags.writeable = False
    new = view if isinstance(view, LensModel) else pinhole_view(lens, view, size=size, rotation=turn)
    if any(new.parameters[4:]):
        raise ValueError("the view has distortion: want a lens without")
    for what in (lens, new):
        if max(what.width, what.height) > _MOST_SIDE:
            raise ValueError(
                f"{what.width} x {what.height} px: sides of more than {_MOST_SIDE} px are not undistorted; "
                "cut the picture in pieces"
            )
    request = _Request((_identity(lens), _identity(new), turn.tobytes()), lens, new, turn)
    return (_kept if new.width * new.height <= _MOST_KEPT_PX else _made)(request)


def undistort_image(
    lens: LensModel, image: NDArray[Any], view: ViewChoice | BrownConrady = "same"
) -> Undistorted:
    """Picture that the camera would take without distortion.

    Parameters
    ----------
    lens : LensModel
        Of the camera that took the picture.
    image : ndarray (h, w) or (h, w, c)
        As in ``Undistorter.image``.
    view : 'same', 'crop', 'keep-all' or BrownConrady
        As in `undistorter`.

    Raises
    ------
    ValueError
        The picture is not of the lens model's size, or of another type.
    """
    by = undistorter(lens, view)
    return Undistorted(by.image(image), by.valid, by.view)


@dataclass(frozen=True)
class _Request:
    key: Hashable
    lens: LensModel = field(compare=False)
    view: BrownConrady = field(compare=False)
    rotation: Float = field(compare=False)


def _identity(lens: LensModel) -> Hashable:
    """What tells where a lens images: all of it but the evidence of its fit."""
    told = ((name, getattr(lens, name)) for name in type(lens).model_fields if name not in _EVIDENCE)
    return tuple(
        (name, (value.shape, value.tobytes()) if isinstance(value, np.ndarray) else value)
        for name, value in told
    )


def _made(request: _Request) -> Undistorter:
    maps = make_maps(request.lens, request.view, request.rotation)
    return Undistorter(request.lens, request.view, request.rotation, maps)


_kept = lru_cache(maxsize=2)(_made)
