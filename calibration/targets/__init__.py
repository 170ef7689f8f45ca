"""Calibration targets: flat boards (``boards``) and spheres (``spheres``), drawn and found in images."""
