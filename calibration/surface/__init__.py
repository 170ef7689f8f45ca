"""Surface: normals to depth in mm, and meshes."""

from calibration.surface.integration import integrate
from calibration.surface.mesh import Mesh, mesh, write_ply
from calibration.surface.near import Reconstruction, reconstruct

__all__ = ["Mesh", "Reconstruction", "integrate", "mesh", "reconstruct", "write_ply"]
