"""Frames of one camera that belong to other frames of the rest."""

import numpy as np
import pytest
from camera_scene import Seen, board, scene

from calibration.cameras import fit_cameras, half_turn
from calibration.cameras.pairing import _places
from calibration.provenance import FitError

Views = dict[tuple[str, str], Seen]


def renamed(views: Views, camera: str, numbers: dict[int, int]) -> Views:
    """The camera's frames under other numbers; those without a number are left out."""
    out = {}
    for (frame, name), view in views.items():
        number = int(frame[-2:])
        if name != camera:
            out[frame, name] = view
        elif number in numbers:
            out[f"pose-{numbers[number]:02d}", name] = view
    return out


def later(views: Views, camera: str, by: int) -> Views:
    return renamed(views, camera, {n: n + by for n in range(1, 40)})


def without(views: Views, camera: str) -> Views:
    return {key: view for key, view in views.items() if key[1] != camera}


@pytest.mark.parametrize(
    ("camera", "by", "told"),
    [
        (
            "right",
            1,
            "frames of right go with those of left one shot later (left's pose-01 with right's pose-02",
        ),
        ("right", -2, "frames of right go with those of left two shots earlier (left's pose-03"),
        # The reference camera is right, and so are the others' frames to each other.
        ("left", 3, "frames of left go with those of "),
    ],
)
def test_a_camera_that_is_frames_behind_is_named(camera: str, by: int, told: str) -> None:
    views, lenses = scene(10, sigma=0.1)
    with pytest.raises(FitError) as error:
        fit_cameras(later(views, camera, by), lenses)
    assert str(error.value).startswith(told)
    assert "shift them, or capture again" in str(error.value)
    assert ";" not in str(error.value)  # one camera, said once


def test_of_two_cameras_the_one_that_is_not_the_reference_is_named() -> None:
    views, lenses = scene(10, sigma=0.1)
    lenses.pop("middle")
    two = later(without(views, "middle"), "left", 1)
    for reference, told in (
        ("left", "frames of right go with those of left one shot earlier"),
        ("right", "frames of left go with those of right one shot later"),
    ):
        with pytest.raises(FitError, match=told):
            fit_cameras(two, lenses, reference=reference)


def test_a_shift_is_told_of_a_board_that_looks_the_same_upside_down() -> None:
    views, lenses = scene(10, sigma=0.1)
    points = board()
    turn = half_turn(*(points.max(axis=0) + points.min(axis=0))[:2])
    rng = np.random.default_rng(0)
    either = {
        key: view._replace(points_mm=turn.points(view.points_mm)) if rng.random() < 0.4 else view
        for key, view in later(views, "right", 1).items()
    }
    with pytest.raises(FitError, match="frames of right go with those of left one shot later"):
        fit_cameras(either, lenses, turns=[turn])


def test_frames_in_no_order_are_listed() -> None:
    views, lenses = scene(9, sigma=0.1)
    lenses.pop("middle")
    numbers = dict(zip(range(1, 10), (1, 2, 5, 9, 7, 3, 4, 6, 8), strict=True))
    mixed = renamed(without(views, "middle"), "right", numbers)
    found = fit_cameras(mixed, lenses).quality
    assert found is not None
    assert found.verdict == "doubtful"
    assert found.warnings[0].startswith(
        "right and left do not see the board in one place in pose-03, pose-04, pose-05, pose-06, pose-07, "
        "pose-08, ... (7 of 9 frames)"
    )


def test_frames_follow_each_other_by_their_numbers() -> None:
    assert _places(["b-10.tif", "b-9.tif", "b-2.tif"]) == [10, 9, 2]
    assert _places(["a 1", "b 1", "a 0"]) == [1, 2, 0]
    assert _places(["tilted", "flat"]) == [1, 0]
