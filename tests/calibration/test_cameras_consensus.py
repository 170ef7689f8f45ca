"""The largest group that agrees: against trying all groups, and where that would take for ever."""

from itertools import combinations

import numpy as np
import pytest

from calibration.cameras.consensus import largest_group


def of_all(agree, cost):
    """Every group is tried: members and cost of the best."""
    for size in range(len(agree), 1, -1):
        found = [
            (float(cost[np.ix_(group, group)].sum()), group)
            for group in combinations(range(len(agree)), size)
            if agree[np.ix_(group, group)].all()
        ]
        if found:
            return min(found)[::-1]
    return (), 0.0


def places(rng, still, moved, dimensions, spread):
    """Where cameras stand, in units of how near two must be to agree."""
    near = rng.normal(0, 0.15, (still, dimensions)) / np.sqrt(dimensions)
    return np.concatenate([near, rng.normal(0, spread, (moved, dimensions)) / np.sqrt(dimensions)])


@pytest.mark.parametrize("dimensions", [1, 3, 6])
@pytest.mark.parametrize("spread", [0.5, 1.0, 4.0])
def test_as_large_as_the_largest_of_all_groups(dimensions, spread):
    rng = np.random.default_rng(dimensions)
    for count in (2, 5, 8, 10):
        for _ in range(5):
            still = int(rng.integers(1, count + 1))
            at = rng.permutation(places(rng, still, count - still, dimensions, spread))
            apart = np.linalg.norm(at[:, None] - at, axis=2)
            found = largest_group(apart <= 1, apart)
            want, _ = of_all(apart <= 1, apart)
            assert len(found) == len(want)
            assert all(apart[i, j] <= 1 for i, j in combinations(found, 2))


def test_thirty_of_which_fourteen_moved():
    rng = np.random.default_rng(1)
    at = places(rng, 16, 14, 6, 20.0)
    order = rng.permutation(30)
    apart = np.linalg.norm(at[order][:, None] - at[order], axis=2)
    assert largest_group(apart <= 1) == tuple(np.flatnonzero(order < 16).tolist())
    # Half of those that moved went together: the others are still more.
    at[16:] = at[16] + rng.normal(0, 0.05, (14, 6))
    apart = np.linalg.norm(at[order][:, None] - at[order], axis=2)
    assert largest_group(apart <= 1) == tuple(np.flatnonzero(order < 16).tolist())


def test_of_groups_of_one_size_the_cheaper_and_of_these_the_first():
    two = np.kron(np.eye(2), np.ones((2, 2))).astype(bool)
    assert largest_group(two) == (0, 1)
    assert largest_group(two, np.diag([0.0, 0, -1, 0])) == (2, 3)
    # A chain: its middle agrees with both ends, which do not agree.
    chain = np.abs(np.subtract.outer(np.arange(3), np.arange(3))) <= 1
    assert largest_group(chain) == (0, 1)
    assert largest_group(chain, np.abs(np.subtract.outer([0.0, 1.0, 1.8], [0.0, 1.0, 1.8]))) == (1, 2)


def test_nobody_agrees():
    assert largest_group(np.zeros((0, 0))) == largest_group(np.zeros((1, 1))) == ()
    assert largest_group(np.eye(4)) == ()
