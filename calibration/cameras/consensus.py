"""The largest group that agrees: cameras that stand as they did, cameras that saw the board in one place."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibration.geometry import Float


def largest_group(agree: ArrayLike, cost: ArrayLike | None = None) -> tuple[int, ...]:
    """Most members of which every two agree.

    Each member in turn is taken to belong. Of all that agree with it the one that contradicts most others
    goes, again and again, until none contradicts another; then comes back in who contradicts none of the
    rest. Of these groups, one a member, the largest is given: O(n^3) steps for n members, the same result in
    any order of work.

    Parameters
    ----------
    agree : array_like (n, n), bool
        Whether two agree; symmetric, the diagonal is not looked at.
    cost : array_like (n, n), optional
        Of groups of one size the one whose entries (those on the diagonal counted once, the pairs twice) sum
        to the least is given, and of those the first; a member that costs more goes first.

    Returns
    -------
    tuple of int
        Rising; empty where no two agree.

    Notes
    -----
    The largest clique of any graph cannot be had in polynomial time. Assumed is what makes these graphs
    special: who agrees stands in the same place up to a limit, so agreement is nearly transitive. Where it is
    transitive, all that agree with a member of the largest group are that group, nothing has to go, and the
    result is exact. It is still exact where, in the neighbourhood of some member of the largest group and
    until all outsiders have gone, the one that contradicts most is an outsider: each member contradicts
    outsiders only, so this fails only where almost as many outsiders as members crowd about the limit,
    agreeing with each other and with part of the group. Then the group found may be smaller, but all in it
    agree.
    """
    same = np.array(agree, dtype=bool)
    np.fill_diagonal(same, True)
    count = len(same)
    price = np.zeros((count, count)) if cost is None else np.asarray(cost, np.float64)
    best: tuple[tuple[int, float, tuple[int, ...]], tuple[int, ...]] | None = None
    for seed in range(count):
        group = _thinned(same, price, seed)
        if group.sum() < 2:
            continue
        members = tuple(np.flatnonzero(group).tolist())
        rank = -len(members), float(price[np.ix_(group, group)].sum()), members
        if best is None or rank < best[0]:
            best = rank, members
    return () if best is None else best[1]


def _thinned(same: NDArray[np.bool_], price: Float, seed: int) -> NDArray[np.bool_]:
    """Those that agree with the seed, less what contradicts; (n,)."""
    group = np.array(same[seed])
    against = np.count_nonzero(~same & group, axis=1)
    dear = price[:, group].sum(axis=1)
    while True:
        inside = np.flatnonzero(group)
        worst = inside[np.lexsort((-inside, -dear[inside], -against[inside]))[0]]
        if not against[worst]:
            break
        group[worst] = False
        against -= ~same[:, worst]
        dear -= price[:, worst]
    for member in np.flatnonzero(~group & (against == 0)):
        if not against[member]:
            group[member] = True
            against += ~same[:, member]
    return group
