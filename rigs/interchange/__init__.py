"""Foreign pictures and models in and out; whatever pictures come in become a session."""

from rigs.interchange.emva import import_emva
from rigs.interchange.folder import import_folder
from rigs.interchange.images import ImageError, Picture, read_image
from rigs.interchange.manifest import COLUMNS, ManifestError, ManifestRow, read_manifest
from rigs.interchange.models import read_cameras, read_lens, read_light_set, write_cameras, write_lens
from rigs.interchange.photometric import GIVEN, import_diligent, import_lp, import_two_spheres
from rigs.interchange.pictures import read_picture
from rigs.interchange.results import (
    read_maps,
    write_depth,
    write_lights,
    write_mask,
    write_mesh,
    write_normals,
)
from rigs.interchange.training import write_training

__all__ = [
    "COLUMNS",
    "GIVEN",
    "ImageError",
    "ManifestError",
    "ManifestRow",
    "Picture",
    "import_diligent",
    "import_emva",
    "import_folder",
    "import_lp",
    "import_two_spheres",
    "read_cameras",
    "read_image",
    "read_lens",
    "read_light_set",
    "read_manifest",
    "read_maps",
    "read_picture",
    "write_cameras",
    "write_depth",
    "write_lens",
    "write_lights",
    "write_mask",
    "write_mesh",
    "write_normals",
    "write_training",
]
