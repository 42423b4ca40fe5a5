# SPDX-License-Identifier: LGPL-2.1-or-later
"""From rounds to figures.

The machine may do other things beside us.  So nothing here is a mean (one bad round would move it),
and two columns are never compared by dividing their medians: each round measured both within seconds
of each other, so the ratio is taken in each round, and its median is what is reported, with an
interval.  The interval is made of order statistics and assumes no distribution: it covers the true
median with at least 95 % where there are enough rounds (6), and is the whole range where there are
fewer.
"""

import math
import statistics


def interval(values):
    """(low, high, probability that the true median lies between them)."""
    ordered, n = sorted(values), len(values)
    best = 0
    for drop in range(n // 2):
        tail = sum(math.comb(n, k) for k in range(drop + 1)) / 2**n
        if drop == 0 or 1 - 2 * tail >= 0.95:
            best = drop
    tail = sum(math.comb(n, k) for k in range(best + 1)) / 2**n
    return ordered[best], ordered[n - 1 - best], max(0.0, 1 - 2 * tail)


def summary(values):
    low, high, _ = interval(values)
    return {"median": statistics.median(values), "low": low, "high": high, "rounds": len(values)}


def paired(these, others):
    """The ratios this / other of the rounds that have both; rounds without a figure are None."""
    return [a / b for a, b in zip(these, others) if a is not None and b is not None and b > 0]


def ratio(these, others):
    """summary() of the paired ratios, or None without a common round."""
    ratios = paired(these, others)
    return summary(ratios) if ratios else None
