"""Where a pod would run best: whole numbers, the greater the better.

The formulas are Kubernetes' own: `least` prefers empty nodes, `balanced` those whose cpu and
memory would be used evenly, `preference` those that advise least against the pod. Pure, on arrays
of which each element (or row) is a node.
"""

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

BEST = 100
PREFERENCE_WEIGHT = 3


def least(allocatable: Numbers, used: Numbers) -> Numbers:
    """How much would be left, in percent, on average over the columns that the node has."""
    there = allocatable > 0
    left = np.maximum(allocatable - used, 0) * BEST // np.where(there, allocatable, 1)
    columns = there.sum(axis=1)
    mean: Numbers = np.where(there, left, 0).sum(axis=1) // np.maximum(columns, 1)
    return mean


def balanced(allocatable: Numbers, used: Numbers) -> Numbers:
    """100 where both columns would be used alike, 50 where one is full and one empty."""
    there = allocatable > 0
    share = np.minimum(used / np.where(there, allocatable, 1), 1.0)
    # With two values the standard deviation is half their distance; with fewer it is nothing.
    apart = np.where(there.all(axis=1), np.abs(share[:, 0] - share[:, 1]) / 2, 0.0)
    score: Numbers = ((1.0 - apart) * BEST).astype(np.int64)
    return score


def preference(intolerable: Numbers, feasible: Mask) -> Numbers:
    """100 where no advice is disregarded, 0 where most is, among the feasible nodes."""
    most = int(intolerable[feasible].max(initial=0))
    if not most:
        return np.full(len(intolerable), BEST, dtype=np.int64)
    # Kubernetes rounds what is taken off down, not what is left.
    score: Numbers = BEST - BEST * np.minimum(intolerable, most) // most
    return score
