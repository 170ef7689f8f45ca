"""Lights: models of distant and near sources, and their fit from spheres."""
