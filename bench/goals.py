# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the figures must reach, as data.

A goal compares one column with another ("native", a peer, or BEST: the best peer with the same
caching rule in that row) in one or several rows.  `form` says how:

  speed    how many times as fast as the other; at least `bound`
  times    how many times as much (time, memory) as the other; at most `bound`
  value    the figure itself; at most `bound`

A goal of several rows is met when every row is.  `floor` is for goals that say "and none below".
"""

import dataclasses

import figures
from workloads import LOWER, WORKLOADS

BEST = "best peer"

MET, MISSED, UNKNOWN = "met", "missed", "not measured"


@dataclasses.dataclass(frozen=True)
class Goal:
    text: str
    column: str
    rows: tuple
    form: str
    bound: float
    other: str = ""
    floor: float = 0.0


METADATA = tuple(row.key for work in WORKLOADS for row in work.rows if row.group == "metadata")

GOALS = [
    Goal("seq. read and write, 4k random read, mmap: fast against the backing directory",
         "k42fs-fast", ("seqread", "seqwrite", "randread", "mmap"), "speed", 0.95, "native"),
    Goal("4k random write: fast against the backing directory", "k42fs-fast", ("randwrite",),
         "speed", 0.85, "native"),
    Goal("every metadata workload against the best peer, caching 1 s", "k42fs-fast", METADATA,
         "speed", 1.0, BEST, floor=0.9),
    Goal("every metadata workload against the best peer, caching 1 day", "k42fs-day", METADATA,
         "speed", 1.0, BEST, floor=0.9),
    Goal("every metadata workload against the best peer that believes names for ever",
         "k42fs-exclusive", METADATA, "speed", 1.0, BEST, floor=0.9),
    Goal("open + close against passthrough_hp, caching 1 s", "k42fs-fast", ("open_close",), "speed",
         1.2, "passthrough_hp-1s"),
    Goal("open + close against passthrough_hp, caching 1 day", "k42fs-day", ("open_close",), "speed",
         1.2, "passthrough_hp"),
    Goal("fork + exit with 1,000 open files against the backing directory", "k42fs-fast",
         ("fork_exit_1000",), "times", 1.1, "native"),
    Goal("find over 200,000 files, extrapolated for both: memory against passthrough_hp", "k42fs-day",
         ("rss_slope",), "times", 0.5, "passthrough_hp"),
    Goal("find -size over 200,000 files, extrapolated for both: memory against passthrough_hp",
         "k42fs-day", ("rss_stat_slope",), "times", 0.5, "passthrough_hp"),
    Goal("find over as many files as passthrough_hp can: memory against it", "k42fs-day",
         ("rss_part",), "times", 0.5, "passthrough_hp"),
    Goal("find -size over as many: memory against it", "k42fs-day", ("rss_stat_part",), "times", 0.5,
         "passthrough_hp"),
    Goal("find over 200,000 files: descriptors", "k42fs-day", ("fds",), "value", 1024),
    Goal("find -size over 200,000 files: descriptors", "k42fs-day", ("fds_stat",), "value", 1024),
    Goal("handle accounting on open + close, against a build without it", "k42fs-fast",
         ("open_close",), "times", 1.03, "k42fs-bare"),
    Goal("handle accounting elsewhere, against a build without it", "k42fs-fast",
         tuple(key for key in METADATA if key != "open_close"), "times", 1.01, "k42fs-bare"),
    Goal("the shim on a 4k cached read (%), cached", "k42fs-cached", ("shim_read",), "value", 2),
    Goal("the shim on a 4k cached read (%), fast", "k42fs-fast", ("shim_read",), "value", 2),
    Goal("private mode: 4k read in a forked child after its first touch, against one without the shim (%)",
         "k42fs-fast", ("private_read",), "value", 2),
    Goal("private mode: 4k read in a forked child after its first touch, against the backing directory",
         "k42fs-fast", ("child_read_private",), "times", 1.05, "native"),
    Goal("the accounting page, a call (ns)", "k42fs-fast", ("account_one", "account_two"), "value", 5),
    Goal("the shim on fork + exec of true (µs)", "k42fs-fast", ("shim_start",), "value", 150),
]


def best_peer(table, row, column):
    """The peer with the best median in this row among those with the caching rule of `column`."""
    rule = table.columns[column]["caching"]
    known = [(table.median(row["key"], name), name) for name, other in table.columns.items()
             if other["caching"] == rule and not other["k42fs"] and name != "native" and
             table.median(row["key"], name) is not None]
    if not known:
        return None
    return (min(known) if row["better"] == LOWER else max(known))[1]


def compare(table, key, column, other, form):
    """(the figure with its interval, the other column's name), or None where one is missing."""
    row = table.row(key)
    if column not in table.columns:
        return None
    if form == "value":
        figure = table.summary(key, column)
        return (figure, "") if figure else None
    if other == BEST:
        other = best_peer(table, row, column)
    if other not in table.columns:
        return None
    these, others = table.rounds(key, column), table.rounds(key, other)
    if form == "speed" and row["better"] == LOWER:
        these, others = others, these  # half the time is twice the speed
    figure = figures.ratio(these, others)
    return (figure, other) if figure else None


def judge(goal, table):
    """One goal as a dictionary: its state, and each row's figure."""
    details, missing = [], []
    for key in goal.rows:
        if not table.has_row(key):
            missing.append(key)
            continue
        found = compare(table, key, goal.column, goal.other, goal.form)
        if not found:
            missing.append(key)
            continue
        figure, other = found
        good = figure["median"] >= goal.bound if goal.form == "speed" else \
            figure["median"] <= goal.bound
        details.append({"row": key, "other": other, "met": good, **figure})
    state = UNKNOWN if not details else MET if all(d["met"] for d in details) else MISSED
    below = [d["row"] for d in details if goal.form == "speed" and d["median"] < goal.floor]
    return {"text": goal.text, "column": goal.column, "form": goal.form, "bound": goal.bound,
            "state": state, "details": details, "missing": missing, "below_floor": below}
