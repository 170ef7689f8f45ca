"""Whether the frames of two cameras show the same poses of the board, or were shifted against each other."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from calibration.cameras.linking import IDENTITY, Key, Link, Motion, Placed, Sight, link_of

_FEWEST = 3  # common frames below which nothing is said
_AGREED, _SETTLED = 0.5, 0.75  # of the common frames: as they are named, and shifted
_SHIFTS = (1, -1, 2, -2, 3, -3)
_COUNTED = {1: "one shot", 2: "two shots", 3: "three shots"}
_NAMED = 6


class Mispaired(NamedTuple):
    """Two cameras that put the board in different places in most of their common frames.

    Attributes
    ----------
    camera, other : int
        The camera that disagrees, and one of those that it disagrees with.
    link : Link
        Of ``other`` and ``camera`` as the frames are named.
    shift : int
        Frames by which those of ``camera`` come later (or earlier, negative) than those of ``other`` with
        the same pose of the board; 0 where no shift makes them agree.
    example : (int, int) or None
        A frame of ``other`` and the frame of ``camera`` that goes with it.
    agreeing, common : int
        How many frames agree when shifted, and of how many.
    """

    camera: int
    other: int
    link: Link
    shift: int = 0
    example: tuple[int, int] | None = None
    agreeing: int = 0
    common: int = 0

    def text(self, frames: Sequence[str], names: Sequence[str]) -> str:
        """One sentence for the reader."""
        camera, other = names[self.camera], names[self.other]
        named = f"{len(self.link.agreeing)} of {len(self.link.frames)} as they are named"
        if self.example is None:
            odd = sorted(frames[frame] for frame in set(self.link.frames) - set(self.link.agreeing))
            more = ", ..." if len(odd) > _NAMED else ""
            return (
                f"{camera} and {other} do not see the board in one place in {', '.join(odd[:_NAMED])}{more} "
                f"({len(odd)} of {len(self.link.frames)} frames): it moved between their frames, or these "
                "are of different poses"
            )
        later = f"{_COUNTED[abs(self.shift)]} {'later' if self.shift > 0 else 'earlier'}"
        here, there = (frames[frame] for frame in self.example)
        return (
            f"frames of {camera} go with those of {other} {later} ({other}'s {here} with {camera}'s {there}: "
            f"{self.agreeing} of {self.common} agree so, {named}): shift them, or capture again"
        )


def mispaired(
    sights: Mapping[Key, Sight], placed: Placed, frames: Sequence[str], turns: Sequence[Motion]
) -> list[Mispaired]:
    """Cameras whose frames do not belong to those of the others, and by how many frames they are off.

    Seen from one camera another stands where it stands, whatever the board does: common frames must agree on
    that. Cameras that agree are one group; those outside the largest (of two, the one with the reference) are
    asked whether their frames agree with the group's when they are shifted by up to three. Frames follow each
    other by the last number in their names; where these are not distinct, by name.

    A board that moved by the same motion from each frame to the next hides a shift: all frames then agree.

    Parameters
    ----------
    sights : mapping of (frame, camera) -> Sight
    placed : Placed
        By ``link`` of the same sights.
    frames : sequence of str
        Names of all frames.
    turns : sequence of Motion
        As for ``link``.
    """
    told = {pair: entry for pair, entry in placed.links.items() if len(entry.frames) >= _FEWEST}
    odd = {pair: entry for pair, entry in told.items() if not _agree(entry)}
    if not odd:
        return []
    group = _largest(
        len(placed.cameras), [pair for pair in placed.links if pair not in odd], placed.reference
    )
    place = _places(frames)
    out = []
    for camera in range(len(placed.cameras)):
        against = [
            (len(entry.frames), -other, other, entry)
            for pair, entry in odd.items()
            for other in pair
            if camera in pair and other != camera and other in group
        ]
        if camera in group or not against:
            continue
        _, _, other, entry = max(against, key=lambda one: one[:2])
        tried = (_shifted(sights, Mispaired(camera, other, entry), k, place, turns) for k in _SHIFTS)
        out.append(next((one for one in tried if one is not None), Mispaired(camera, other, entry)))
    return out


def _agree(link: Link) -> bool:
    return len(link.agreeing) >= _AGREED * len(link.frames)


def _largest(count: int, pairs: Sequence[Key], reference: int) -> set[int]:
    groups = [{camera} for camera in range(count)]
    for a, b in pairs:
        one, other = (next(group for group in groups if camera in group) for camera in (a, b))
        if one is not other:
            groups.remove(other)
            one |= other
    return max(groups, key=lambda group: (len(group), reference in group))


def _places(frames: Sequence[str]) -> list[int]:
    """Place of each frame in the order in which they were taken, as far as their names tell."""
    digits = [re.findall(r"\d+", re.sub(r"\.\w+$", "", name)) for name in frames]
    numbers = [int(found[-1]) if found else -1 for found in digits]
    if min(numbers) >= 0 and len(set(numbers)) == len(numbers):
        return numbers
    order = sorted(range(len(frames)), key=lambda k: ([int(d) for d in digits[k]], frames[k]))
    return [order.index(k) for k in range(len(frames))]


def _shifted(
    sights: Mapping[Key, Sight],
    as_named: Mispaired,
    shift: int,
    place: Sequence[int],
    turns: Sequence[Motion],
) -> Mispaired | None:
    """With ``shift``, where most frames then agree."""
    camera, other = as_named.camera, as_named.other
    frame_at = {at: frame for frame, at in enumerate(place)}
    partner = {frame: frame_at.get(at + shift, -1) for frame, at in enumerate(place)}
    common = sorted(
        (at, frame)
        for frame, at in enumerate(place)
        if (frame, other) in sights and (partner[frame], camera) in sights
    )
    if len(common) < _FEWEST:
        return None
    moved = {(frame, camera): sights[partner[frame], camera] for _, frame in common}
    moved |= {(frame, other): sights[frame, other] for _, frame in common}
    entry = link_of(moved, (other, camera), [frame for _, frame in common], [IDENTITY, *turns])
    if len(entry.agreeing) < max(_FEWEST, _SETTLED * len(common)):
        return None
    example = next(frame for _, frame in common if frame in entry.agreeing)
    return as_named._replace(
        shift=shift, example=(example, partner[example]), agreeing=len(entry.agreeing), common=len(common)
    )
