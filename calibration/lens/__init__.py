"""Lens: models with covariance, their fit from board corners, poses, undistortion of images."""

from typing import Annotated, Any

from pydantic import Discriminator, Tag

from calibration.lens.brown_conrady import BrownConrady
from calibration.lens.choice import choose_lens
from calibration.lens.fit import LensKind, Pose, View, adjust_lens, fit_lens, fit_pose
from calibration.lens.kannala_brandt import KannalaBrandt
from calibration.lens.model import LensModel
from calibration.lens.splined import SplinedLens
from calibration.lens.undistortion import (
    Undistorted,
    Undistorter,
    pinhole_view,
    undistort_image,
    undistorter,
)


def _kind(value: Any) -> str:
    """Brown-Conrady unless it says otherwise."""
    return str(value.get("kind", "lens") if isinstance(value, dict) else getattr(value, "kind", "lens"))


Lens = Annotated[
    Annotated[BrownConrady, Tag("lens")]
    | Annotated[KannalaBrandt, Tag("kannala-brandt")]
    | Annotated[SplinedLens, Tag("splined")],
    Discriminator(_kind),
]
"""Any lens model, as a field of another model or a file's entry."""

__all__ = [
    "BrownConrady",
    "KannalaBrandt",
    "Lens",
    "LensKind",
    "LensModel",
    "Pose",
    "SplinedLens",
    "Undistorted",
    "Undistorter",
    "View",
    "adjust_lens",
    "choose_lens",
    "fit_lens",
    "fit_pose",
    "pinhole_view",
    "undistort_image",
    "undistorter",
]
