"""The simulated twin of a rig: a truth read from YAML, and the frames that its cameras would deliver."""

from rigs.simulated.truth import Truth, load_truth
from rigs.simulated.twin import Maps, SphereTruth, Twin

__all__ = ["Maps", "SphereTruth", "Truth", "Twin", "load_truth"]
