"""First guess of a rig: cameras linked through boards seen together, boards placed, their turns settled."""

import heapq
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from calibration.geometry import Float
from calibration.provenance import FitError

# Angle, as seen from a camera, up to which two guesses of a board's place support each other: poses of boards
# seen alone, through a lens that is not quite known, are no better.
_SUPPORT_RAD = 5e-3
_AMBIGUOUS = 0.8


class Motion(NamedTuple):
    """Rigid motion ``p -> rotation @ p + t``: a pose, a known link, a turn of a board that looks the same."""

    rotation: Float
    t: Float

    def __matmul__(self, other: "Motion") -> "Motion":
        return Motion(self.rotation @ other.rotation, self.rotation @ other.t + self.t)

    def inverse(self) -> "Motion":
        """The motion back."""
        return Motion(self.rotation.T, -self.rotation.T @ self.t)

    def points(self, points: Float) -> Float:
        """Moved points (n, 3)."""
        return np.asarray(points @ self.rotation.T + self.t)


IDENTITY = Motion(np.eye(3), np.zeros(3))
Key = tuple[int, int]
"""Number of the board's pose, number of the camera."""


class Sight(NamedTuple):
    """A board as one camera alone sees it: camera_from_board, and the board points (n, 3) that it sees."""

    pose: Motion
    points: Float


class Link(NamedTuple):
    """Camera b in the frame of camera a (b_from_a), as most of their common frames have it.

    Attributes
    ----------
    motion : Motion
    cost : float
        Spread of what says so.
    frames, agreeing : tuple of int
        Frames in which both see the board, and those of them in which it stands where ``motion`` says.
    ambiguous : bool
        Whether a turned board would do as well.
    """

    motion: Motion
    cost: float
    frames: tuple[int, ...]
    agreeing: tuple[int, ...]
    ambiguous: bool


class Tie(NamedTuple):
    """Known link (new_from_old) to a group of cameras, and the numbers of the two that it joins."""

    old: int
    new: int
    motion: Motion
    group: tuple[int, ...]


class Placed(NamedTuple):
    """Where everything is, roughly.

    Attributes
    ----------
    cameras : list of Motion
        camera_from_rig.
    reference : int
    ties : list of Tie
        Groups of cameras that only a known link ties to those before.
    boards : dict of frame number -> Motion
        rig_from_board.
    turns : dict of (frame, camera) -> int
        Which turn of the board this camera has taken for upright.
    links : dict of (camera a, camera b) -> Link
        Of all that share a frame.
    """

    cameras: list[Motion]
    reference: int
    ties: list[Tie]
    boards: dict[int, Motion]
    turns: dict[Key, int]
    links: dict[Key, Link]

    @property
    def ambiguous(self) -> list[Key]:
        """Cameras whose link might as well be by a turned board."""
        return sorted(pair for pair, entry in self.links.items() if entry.ambiguous)


def link(
    sights: Mapping[Key, Sight],
    names: Sequence[str],
    reference: int,
    known: Mapping[Key, Motion],
    turns: Sequence[Motion],
) -> Placed:
    """Place all cameras and boards.

    Two cameras are linked by the motion that most of their common frames support, whichever way up each of
    them took the board; a tree of shortest paths, least spread first, carries the links on to all cameras.

    Parameters
    ----------
    sights : mapping of (frame, camera) -> Sight
    names : sequence of str
        Of the cameras, for messages.
    reference : int
        Camera whose frame is the rig's.
    known : mapping of (camera a, camera b) -> Motion
        b_from_a, used where no board links the two groups.
    turns : sequence of Motion
        Board motions after which it looks the same, besides none.

    Raises
    ------
    FitError
        Cameras that nothing links to the reference; names them.
    """
    every = [IDENTITY, *turns]
    shared: dict[Key, list[int]] = {}
    by_frame: dict[int, list[int]] = {}
    for frame, camera in sorted(sights):
        by_frame.setdefault(frame, []).append(camera)
    for frame, seen in by_frame.items():
        for i, a in enumerate(seen):
            for b in seen[i + 1 :]:
                shared.setdefault((a, b), []).append(frame)
    links = {pair: link_of(sights, pair, frames, every) for pair, frames in shared.items()}
    cameras: dict[int, Motion] = {reference: IDENTITY}
    ties: list[Tie] = []
    _spread(cameras, links, reference)
    while len(cameras) < len(names):
        tied = [
            (a, b, motion) if a in cameras else (b, a, motion.inverse())
            for (a, b), motion in sorted(known.items(), key=lambda entry: entry[0])
            if (a in cameras) != (b in cameras)
        ]
        if not tied:
            lost = [names[i] for i in range(len(names)) if i not in cameras]
            raise FitError(
                f"nothing links {', '.join(lost)} to {names[reference]}: show the board to both sides at "
                "once, or to cameras between them, or give a known transform"
            )
        old, new, motion = tied[0]
        cameras[new] = motion @ cameras[old]
        before = set(cameras)
        _spread(cameras, links, new)
        ties.append(Tie(old, new, motion, tuple(sorted((set(cameras) - before) | {new}))))
    placed = [cameras[i] for i in range(len(names))]
    boards, chosen = {}, {}
    for frame, seen in by_frame.items():
        boards[frame], which = _place(sights, frame, seen, placed, every)
        chosen.update({(frame, camera): turn for camera, turn in which.items()})
    return Placed(placed, reference, ties, boards, chosen, links)


def link_of(sights: Mapping[Key, Sight], pair: Key, frames: Sequence[int], turns: Sequence[Motion]) -> Link:
    """Link of two cameras by the frames in which both see the board; ``turns`` with that by nothing."""
    a, b = pair
    guesses = [[sights[f, b].pose @ turn @ sights[f, a].pose.inverse() for turn in turns] for f in frames]
    # For each guess the angle by which it misses what b sees in every frame, under the turn that suits best.
    miss = np.empty((len(frames) * len(turns), len(frames)))
    best = np.empty(miss.shape, np.int64)
    for k, frame in enumerate(frames):
        start = sights[frame, a].pose.points(sights[frame, a].points)
        seen = [(sights[frame, b].pose @ turn).points(sights[frame, a].points) for turn in turns]
        for row, guess in enumerate(g for entry in guesses for g in entry):
            there = guess.points(start)
            angles = [_angle(there, where) for where in seen]
            best[row, k] = int(np.argmin(angles))
            miss[row, k] = min(angles)
    cost = np.sum(miss**2 / (miss**2 + _SUPPORT_RAD**2), axis=1)
    # Of guesses as good, the one in which fewer cameras took the board upside down.
    turned = np.count_nonzero(best, axis=1)
    winner = int(np.lexsort((np.arange(len(cost)), turned, np.round(cost, 6)))[0])
    chosen, weight = best[winner], 1 / (miss[winner] ** 2 + _SUPPORT_RAD**2)
    picked = [guesses[k][turn] for k, turn in enumerate(chosen)]
    mean = _mean(picked, np.where(miss[winner] < 4 * _SUPPORT_RAD, weight, 0))
    support = float(np.sum(1 / (1 + (miss[winner] / _SUPPORT_RAD) ** 2)))
    # Another guess that turns the board otherwise in every frame, and does as well.
    rival = np.all(best != chosen, axis=1) & (cost <= cost[winner] + 1 - _AMBIGUOUS)
    agreeing = tuple(frames[int(k)] for k in np.flatnonzero(miss[winner] < 2 * _SUPPORT_RAD))
    return Link(mean, 1 / support, tuple(frames), agreeing, bool(rival.any()))


def _angle(there: Float, where: Float) -> float:
    """Root mean square angle between points as seen from the origin, with their depth counting a little."""
    reach = np.linalg.norm(where, axis=1)
    return float(np.sqrt(np.mean(np.sum((there - where) ** 2, axis=1) / reach**2)))


def _mean(motions: Sequence[Motion], weight: Float) -> Motion:
    if not weight.any():
        weight = np.ones(len(motions))
    turn = Rotation.from_matrix(np.array([motion.rotation for motion in motions])).mean(weight)
    place = np.average(np.array([motion.t for motion in motions]), axis=0, weights=weight)
    return Motion(np.asarray(turn.as_matrix(), np.float64), np.asarray(place))


def _spread(cameras: dict[int, Motion], links: Mapping[Key, Link], start: int) -> None:
    """Carry the links on from ``start``: the tree of shortest paths, spread as length."""
    ways: dict[int, list[tuple[float, int, Motion]]] = {}
    for (a, b), entry in links.items():
        ways.setdefault(a, []).append((entry.cost, b, entry.motion))
        ways.setdefault(b, []).append((entry.cost, a, entry.motion.inverse()))
    queue: list[tuple[float, int, int]] = [(0.0, start, -1)]
    reached: set[int] = set()
    guesses: dict[Key, Motion] = {}
    while queue:
        length, camera, origin = heapq.heappop(queue)
        if camera in reached:
            continue
        reached.add(camera)
        if origin >= 0:
            cameras[camera] = guesses[origin, camera]
        for cost, other, motion in ways.get(camera, []):
            if other not in reached and other not in cameras:
                guesses[camera, other] = motion @ cameras[camera]
                heapq.heappush(queue, (length + cost, other, camera))


def _place(
    sights: Mapping[Key, Sight],
    frame: int,
    seen: Sequence[int],
    cameras: Sequence[Motion],
    turns: Sequence[Motion],
) -> tuple[Motion, dict[int, int]]:
    """Board in the rig's frame as most cameras see it, and the turn that each of them took."""
    guesses = [[cameras[c].inverse() @ sights[frame, c].pose @ turn for turn in turns] for c in seen]
    candidates: list[tuple[float, int, Motion, dict[int, int]]] = []
    for guess in (entry[0] for entry in guesses):
        cost, which = 0.0, {}
        for k, c in enumerate(seen):
            there = (cameras[c] @ guess).points(sights[frame, c].points)
            angles = [
                _angle(there, (cameras[c] @ other).points(sights[frame, c].points)) for other in guesses[k]
            ]
            which[c] = int(np.argmin(angles))
            cost += min(angles) ** 2 / (min(angles) ** 2 + _SUPPORT_RAD**2)
        candidates.append((round(cost, 6), len(candidates), guess, which))
    _, _, motion, which = min(candidates, key=lambda entry: entry[:2])
    return motion, which


def half_turn(width_mm: float, height_mm: float) -> Motion:
    """Half a turn of a board of this size in its plane, after which a symmetric pattern looks the same."""
    return Motion(np.diag([-1.0, -1.0, 1.0]), np.array([width_mm, height_mm, 0.0]))


def turned(points: NDArray[np.float64], turn: Motion) -> Float:
    """Board points (n, 3) as they are called after ``turn`` of the board."""
    return turn.inverse().points(points)
