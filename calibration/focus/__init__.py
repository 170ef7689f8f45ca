"""Sharpness over the field: slanted-edge MTF, depth of field, tilt of the focal plane."""
