"""Sharpness over the field: slanted-edge MTF, depth of field, tilt of the focal plane."""

from calibration.focus.edges import ViewEdges, board_edges, measure_edges
from calibration.focus.fit import fit_focus
from calibration.focus.model import (
    Depth,
    FocalSurface,
    FocusModel,
    ViewSharpness,
    blur_for_share,
    depth_of_field,
)
from calibration.focus.mtf import EdgeMtf, NoEdge, edge_mtf

__all__ = [
    "Depth",
    "EdgeMtf",
    "FocalSurface",
    "FocusModel",
    "NoEdge",
    "ViewEdges",
    "ViewSharpness",
    "blur_for_share",
    "board_edges",
    "depth_of_field",
    "edge_mtf",
    "fit_focus",
    "measure_edges",
]
