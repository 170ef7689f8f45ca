"""What one does at a rig: check, capture, calibrate, reconstruct. The only rooms that see both siblings.

Each workflow takes a session and models and gives a model or a result; files are written by ``save``,
``merge_session``, ``undistort_pictures``, ``print_board`` and what is called ``write_...`` alone. ``track``
wraps a long loop to show its progress.
"""

from calibration.progress import Track, silent
from rigs.workflows.boards import choose_board, doubtful_size, parse_board, read_board
from rigs.workflows.bracketing import Bracketed, describe_bracket, plan_brackets, write_plan
from rigs.workflows.calibrating import calibrate_response
from rigs.workflows.cameras import (
    BoardFrames,
    board_frames,
    calibrate_cameras,
    check_cameras,
    describe_cameras,
    lights_seen_from,
    parse_known,
)
from rigs.workflows.capturing import capture_session, check_plan, describe, list_devices, truth_digest
from rigs.workflows.checking import check_session, parse_patch
from rigs.workflows.colour import calibrate_colour, chart_reference, parse_corners
from rigs.workflows.flat_field import calibrate_flat, parse_turn
from rigs.workflows.focus import (
    Criterion,
    describe_focus,
    measure_focus,
    parse_criterion,
    parse_volume,
    working_depth,
)
from rigs.workflows.frames import LightImages, light_images, only_camera
from rigs.workflows.lens import LensKind, calibrate_lens, describe_lens, guide, view_name
from rigs.workflows.lighting import (
    LightsResult,
    MatteTarget,
    calibrate_lights,
    check_lights,
    describe_lights,
    lights_changed,
)
from rigs.workflows.merge_record import MergeRecord, Patch, describe_merge, parse_luminance
from rigs.workflows.merging import Merged, merge_session
from rigs.workflows.models import (
    check_pins,
    pinned,
    pinned_geometry,
    read_colour,
    read_sensor,
    read_truth,
    save,
    sphere_target,
    targets,
)
from rigs.workflows.printing import Paper, parse_paper, print_board
from rigs.workflows.reconstructing import Result, read_mask, reconstruct, solve_again, write_reconstruction
from rigs.workflows.sensing import calibrate_sensor, describe_sensor, photons_per_s
from rigs.workflows.timing import (
    calibrate_timing,
    check_settling,
    describe_timing,
    hurried_lights,
    plan_timing,
    settled,
    write_timing_plan,
)
from rigs.workflows.undistorting import (
    Series,
    Source,
    Sources,
    paired_pictures,
    parse_size,
    rectified_pair,
    session_pictures,
    undistort_pictures,
    view_of,
)

__all__ = [
    "BoardFrames",
    "Bracketed",
    "Criterion",
    "LensKind",
    "LightImages",
    "LightsResult",
    "MatteTarget",
    "MergeRecord",
    "Merged",
    "Paper",
    "Patch",
    "Result",
    "Series",
    "Source",
    "Sources",
    "Track",
    "board_frames",
    "calibrate_cameras",
    "calibrate_colour",
    "calibrate_flat",
    "calibrate_lens",
    "calibrate_lights",
    "calibrate_response",
    "calibrate_sensor",
    "calibrate_timing",
    "capture_session",
    "chart_reference",
    "check_cameras",
    "check_lights",
    "check_pins",
    "check_plan",
    "check_session",
    "check_settling",
    "choose_board",
    "describe",
    "describe_bracket",
    "describe_cameras",
    "describe_focus",
    "describe_lens",
    "describe_lights",
    "describe_merge",
    "describe_sensor",
    "describe_timing",
    "doubtful_size",
    "guide",
    "hurried_lights",
    "light_images",
    "lights_changed",
    "lights_seen_from",
    "list_devices",
    "measure_focus",
    "merge_session",
    "only_camera",
    "paired_pictures",
    "parse_board",
    "parse_corners",
    "parse_criterion",
    "parse_known",
    "parse_luminance",
    "parse_paper",
    "parse_patch",
    "parse_size",
    "parse_turn",
    "parse_volume",
    "photons_per_s",
    "pinned",
    "pinned_geometry",
    "plan_brackets",
    "plan_timing",
    "print_board",
    "read_board",
    "read_colour",
    "read_mask",
    "read_sensor",
    "read_truth",
    "reconstruct",
    "rectified_pair",
    "save",
    "session_pictures",
    "settled",
    "silent",
    "solve_again",
    "sphere_target",
    "targets",
    "truth_digest",
    "undistort_pictures",
    "view_name",
    "view_of",
    "working_depth",
    "write_plan",
    "write_reconstruction",
    "write_timing_plan",
]
