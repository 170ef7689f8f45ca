"""Foreign pictures and models in: a manifest's folder or an EMVA 1288 set becomes a session."""

from rigs.interchange.emva import import_emva
from rigs.interchange.folder import import_folder
from rigs.interchange.images import ImageError, Picture, read_image
from rigs.interchange.manifest import COLUMNS, ManifestError, ManifestRow, read_manifest
from rigs.interchange.models import read_cameras, read_lens, read_light_set, write_cameras, write_lens
from rigs.interchange.pictures import read_picture

__all__ = [
    "COLUMNS",
    "ImageError",
    "ManifestError",
    "ManifestRow",
    "Picture",
    "import_emva",
    "import_folder",
    "read_cameras",
    "read_image",
    "read_lens",
    "read_light_set",
    "read_manifest",
    "read_picture",
    "write_cameras",
    "write_lens",
]
