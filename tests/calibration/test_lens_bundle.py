"""Bundle adjustment: compiled sums against dense ones, derivatives, several cameras, the board, priors."""

import numpy as np
import pytest
from lens_scene import grid, poses_before
from scipy.spatial.transform import Rotation

from calibration.lens import BrownConrady, KannalaBrandt
from calibration.lens.bundle import Corners, Free, Prior, State, layout_of, solve
from calibration.lens.descent import covariances, equations, problem_of
from calibration.lens.model import BoardShape
from calibration.lens.unknowns import placed
from calibration.provenance import FitError

LEFT = BrownConrady(width=800, height=600, fx=700, fy=702, cx=395, cy=305, k1=-0.1, k2=0.02)
RIGHT = KannalaBrandt(width=900, height=700, fx=420, fy=421, cx=455, cy=345, k1=0.02)
SHAPE = BoardShape(warp_mm=(0.4, -0.3), aspect=1.01, scale=0.98, centre_mm=(45.0, 30.0), half_mm=(45.0, 30.0))


def scene(seed=0, n=6, noise=0.1, board=SHAPE):
    """Two cameras, 60 mm and 15 degrees apart, that see the same boards: the true state and the corners."""
    rng, points = np.random.default_rng(seed), grid()
    turns = np.stack([np.eye(3), Rotation.from_euler("y", 15, degrees=True).as_matrix()])
    shifts = np.array([[0.0, 0, 0], [-60.0, 2, 5]])
    rotations, translations = map(
        np.array, zip(*poses_before(LEFT, seed, n, fill=0.5, off=0.15), strict=True)
    )
    state = State((LEFT, RIGHT), turns, shifts, rotations, translations, board)
    view, camera = np.repeat(np.arange(n), 2 * len(points)), np.tile(np.repeat([0, 1], len(points)), n)
    corners = Corners(
        np.tile(points, (2 * n, 1)), np.zeros((len(view), 2)), np.full(len(view), noise), view, camera
    )
    _, seen = placed(state, corners)
    pixels = np.where(camera[:, None] == 0, LEFT.project(seen), RIGHT.project(seen))
    return state, corners._replace(pixels=pixels + rng.normal(0, noise, pixels.shape))


def everything(state, **board):
    masks = [np.ones(len(lens.parameters), dtype=bool) for lens in state.lenses]
    masks[0][9:] = False
    return Free(tuple(masks), np.array([False, True]), **board)


def nudged(state, layout, step, poses):
    """The state after a step of all global unknowns and of the poses, written out anew."""
    lenses = tuple(
        lens.with_parameters(lens.parameters + step[at])
        for lens, at in zip(state.lenses, layout.lens, strict=True)
    )
    turns = [
        Rotation.from_rotvec(step[at][:3]).as_matrix() @ turn
        for turn, at in zip(state.camera_rotations, layout.cameras, strict=True)
    ]
    shifts = [t + step[at][3:] for t, at in zip(state.camera_translations, layout.cameras, strict=True)]
    rotations = Rotation.from_rotvec(poses[:, :3]).as_matrix() @ state.rotations
    board = state.board.with_values(state.board.values + step[layout.board])
    return State(
        lenses, np.array(turns), np.array(shifts), rotations, state.translations + poses[:, 3:], board
    )


def pixels_of(state, corners):
    """By matrices and ``project`` alone."""
    u = (corners.points[:, :2] - state.board.centre_mm) / state.board.half_mm
    points = corners.points * state.board.scale * np.array([1, state.board.aspect, 1])
    points[:, 2] += (1 - u**2) @ state.board.warp_mm
    out = []
    for point, v, k in zip(points, corners.view, corners.camera, strict=True):
        in_rig = state.rotations[v] @ point + state.translations[v]
        out.append(state.lenses[k].project(state.camera_rotations[k] @ in_rig + state.camera_translations[k]))
    return np.array(out)


def test_normal_equations_are_those_of_the_numerical_jacobian():
    state, corners = scene(n=3)
    free = everything(state, warp=True, aspect=True, scale=True)
    layout = layout_of(state)
    weight = np.random.default_rng(1).uniform(0.5, 2, len(corners.view))
    weight[::7] = 0
    problem = problem_of(state, corners, free, ())
    found = equations(problem, state, corners.pixels, weight)
    size, columns = layout.board.stop, []
    for j in [*problem.free, *range(size, size + 18)]:
        step = np.zeros(size + 18)
        step[j] = 1e-4 if j < size and np.abs(np.append(problem.free * 0 + 1e3, 0)).max() > 1e2 else 1e-5
        ends = [
            pixels_of(nudged(state, layout, s * step[:size], s * step[size:].reshape(3, 6)), corners)
            for s in (1, -1)
        ]
        columns.append((ends[0] - ends[1]).ravel() / (2 * step[j]))
    jacobian = np.array(columns).T * np.repeat(np.sqrt(weight), 2)[:, None]
    residual = (corners.pixels - pixels_of(state, corners)).ravel() * np.repeat(np.sqrt(weight), 2)
    normal, right = jacobian.T @ jacobian, jacobian.T @ residual
    g = len(problem.free)
    scale = np.sqrt(np.diag(normal))
    ours = np.zeros_like(normal)
    ours[:g, :g] = found.a
    for v in range(3):
        at = slice(g + 6 * v, g + 6 * v + 6)
        ours[:g, at], ours[at, :g], ours[at, at] = found.b[v], found.b[v].T, found.c[v]
    np.testing.assert_allclose(ours / scale / scale[:, None], normal / scale / scale[:, None], atol=1e-5)
    gradient = np.append(found.ga, found.gc.ravel())
    np.testing.assert_allclose(gradient / scale, right / scale, atol=1e-4 * np.linalg.norm(residual))
    assert found.cost == pytest.approx(residual @ residual, rel=1e-9)
    # The covariance by the Schur complement is the inverse of the whole; a free camera leaves the scale open.
    told = np.flatnonzero(np.arange(len(ours)) != g - 1)
    problem = problem_of(state, corners, free._replace(scale=False), ())
    covariance, poses = covariances(problem, equations(problem, state, corners.pixels, weight))
    inverse = np.linalg.inv((ours / scale / scale[:, None])[np.ix_(told, told)])
    inverse = inverse / scale[told] / scale[told][:, None]
    np.testing.assert_allclose(np.diag(covariance)[problem.free], np.diag(inverse)[: g - 1], rtol=1e-4)
    np.testing.assert_allclose(np.diag(poses[1]), np.diag(inverse)[g + 5 : g + 11], rtol=1e-4)


def test_two_cameras_of_different_kinds_and_the_board_are_found_together():
    scores = []
    for seed in range(8):
        true, corners = scene(seed, n=12)
        rng = np.random.default_rng(seed)
        layout = layout_of(true)
        step = np.zeros(layout.board.stop)
        step[:4], step[layout.lens[1]][:4] = rng.normal(0, 5, 4), rng.normal(0, 5, 4)
        step[layout.cameras[1]] = [*rng.normal(0, 0.01, 3), *rng.normal(0, 2, 3)]
        poses = np.column_stack([rng.normal(0, 0.02, (12, 3)), rng.normal(0, 5, (12, 3))])
        start = nudged(true, layout, step, poses)
        start = start._replace(board=BoardShape(centre_mm=(45.0, 30.0), half_mm=(45.0, 30.0), scale=0.98))
        found = solve(start, corners, everything(true, warp=True, aspect=True))
        sigma = np.sqrt(np.diag(found.covariance))
        turn = Rotation.from_matrix(true.camera_rotations[1] @ found.state.camera_rotations[1].T).as_rotvec()
        shift = true.camera_translations[1] - found.state.camera_translations[1]
        scores.append(np.append(turn, shift) / sigma[found.layout.cameras[1]])
        error = true.lenses[1].parameters - found.state.lenses[1].parameters
        scores.append(error[:6] / sigma[found.layout.lens[1]][:6])
        assert np.sqrt(found.variance) == pytest.approx(0.1, rel=0.06)
        assert found.used.mean() > 0.998
        assert np.all(np.abs(found.state.board.values - true.board.values) <= 4.5 * sigma[found.layout.board])
    assert 0.75 < np.sqrt(np.mean(np.square(scores))) < 1.25


def test_a_known_distance_of_the_cameras_tells_the_scale_of_the_board_and_one_camera_does_not():
    true, corners = scene(3)
    free = everything(true)._replace(cameras=np.array([False, False]), scale=True)
    start = true._replace(board=true.board.replace(scale=1.0), translations=true.translations / 0.98)
    found = solve(start, corners, free)
    sigma = np.sqrt(found.covariance[-1, -1])
    assert sigma < 1e-3
    assert abs(found.state.board.scale - 0.98) < 4 * sigma
    true, corners = scene(3, board=BoardShape())
    alone = corners.camera == 0
    one = Corners(*(part[alone] for part in corners[:5]))
    state = true._replace(
        lenses=(LEFT,),
        camera_rotations=true.camera_rotations[:1],
        camera_translations=true.camera_translations[:1],
    )
    with pytest.raises(FitError, match="scale of the board cannot be told"):
        solve(state, one, Free((everything(true).lens[0],), np.zeros(1, dtype=bool), scale=True))


def test_what_one_camera_sees_of_a_view_is_left_out_alone():
    true, corners = scene(4)
    wrong = (corners.view == 2) & (corners.camera == 1)
    pixels = corners.pixels.copy()
    pixels[wrong] += (15.0, 0.0)
    found = solve(true, corners._replace(pixels=pixels), everything(true))
    assert not found.used[wrong].any()
    assert found.used[~wrong].mean() > 0.998


def test_a_prior_is_one_more_observation():
    true, corners = scene(5)
    free = everything(true)
    plain = solve(true, corners, free)
    precision = np.zeros((12, 12))
    precision[0, 0] = 1 / plain.covariance[0, 0]
    mean = plain.state.lenses[0].parameters
    mean[0] += 2.0
    found = solve(true, corners, free, priors=(Prior(precision, mean), None))
    # Two equal weights: the middle, and half the variance.
    assert found.state.lenses[0].fx - plain.state.lenses[0].fx == pytest.approx(1.0, abs=0.1)
    assert found.covariance[0, 0] == pytest.approx(plain.covariance[0, 0] / 2, rel=0.02)


def test_sigmas_that_claim_too_much_or_too_little_are_corrected():
    true, corners = scene(6, noise=0.1)
    for told in (0.02, 0.5, 0.0):
        found = solve(true, corners._replace(sigma=np.full(len(corners.view), told)), everything(true))
        assert found.sigma == pytest.approx(np.full(len(corners.view), 0.1), rel=0.06)
