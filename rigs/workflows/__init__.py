"""What one does at a rig: check, capture, calibrate, reconstruct. The only rooms that see both siblings.

Each workflow takes a session and models and gives a model or a result; files are written by ``save``,
``merge_session``, ``write_plan`` and ``write_reconstruction`` alone. ``track`` wraps a long loop to show its
progress.
"""

from rigs.workflows.bracketing import Bracketed, describe_bracket, plan_brackets, write_plan
from rigs.workflows.calibrating import LightsResult, calibrate_lights, calibrate_response
from rigs.workflows.capturing import capture_session, check_plan, describe, list_devices
from rigs.workflows.checking import check_session, parse_patch
from rigs.workflows.colour import calibrate_colour, chart_reference, parse_corners
from rigs.workflows.flat_field import calibrate_flat, parse_turn
from rigs.workflows.frames import LightImages, light_images
from rigs.workflows.lens import LensKind, calibrate_lens, describe_lens, guide, view_name
from rigs.workflows.merge_record import MergeRecord, Patch, describe_merge, parse_luminance
from rigs.workflows.merging import Merged, merge_session
from rigs.workflows.models import (
    check_pins,
    choose_board,
    parse_board,
    pinned,
    read_colour,
    read_sensor,
    read_truth,
    save,
    sphere_target,
    targets,
)
from rigs.workflows.progress import Track, silent
from rigs.workflows.reconstructing import Result, read_mask, reconstruct, solve_again, write_reconstruction
from rigs.workflows.sensing import calibrate_sensor, describe_sensor, photons_per_s

__all__ = [
    "Bracketed",
    "LensKind",
    "LightImages",
    "LightsResult",
    "MergeRecord",
    "Merged",
    "Patch",
    "Result",
    "Track",
    "calibrate_colour",
    "calibrate_flat",
    "calibrate_lens",
    "calibrate_lights",
    "calibrate_response",
    "calibrate_sensor",
    "capture_session",
    "chart_reference",
    "check_pins",
    "check_plan",
    "check_session",
    "choose_board",
    "describe",
    "describe_bracket",
    "describe_lens",
    "describe_merge",
    "describe_sensor",
    "guide",
    "light_images",
    "list_devices",
    "merge_session",
    "parse_board",
    "parse_corners",
    "parse_luminance",
    "parse_patch",
    "parse_turn",
    "photons_per_s",
    "pinned",
    "plan_brackets",
    "read_colour",
    "read_mask",
    "read_sensor",
    "read_truth",
    "reconstruct",
    "save",
    "silent",
    "solve_again",
    "sphere_target",
    "targets",
    "view_name",
    "write_plan",
    "write_reconstruction",
]
