"""Foreign pictures and models in: a folder with a ``manifest.csv`` becomes a session like any other."""

from rigs.interchange.folder import import_folder
from rigs.interchange.images import ImageError, Picture, read_image
from rigs.interchange.manifest import COLUMNS, ManifestError, ManifestRow, read_manifest
from rigs.interchange.models import read_lens, read_light_set

__all__ = [
    "COLUMNS",
    "ImageError",
    "ManifestError",
    "ManifestRow",
    "Picture",
    "import_folder",
    "read_image",
    "read_lens",
    "read_light_set",
    "read_manifest",
]
