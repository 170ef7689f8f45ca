"""Surface: normals to depth in mm, and meshes."""

from calibration.surface.integration import integrate
from calibration.surface.mesh import Mesh, mesh
from calibration.surface.reconstruction import Reconstruction, reconstruct

__all__ = ["Mesh", "Reconstruction", "integrate", "mesh", "reconstruct"]
