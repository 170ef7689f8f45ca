"""Balls in images: found under several lights, or given as masks or circles."""

from calibration.targets.outline import SphereView
from calibration.targets.spheres.detection import detect_spheres
from calibration.targets.spheres.given import sphere_from_circle, sphere_from_mask

__all__ = ["SphereView", "detect_spheres", "sphere_from_circle", "sphere_from_mask"]
