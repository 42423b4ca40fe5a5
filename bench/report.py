# SPDX-License-Identifier: LGPL-2.1-or-later
"""The results as JSON, Markdown and plots.  The JSON has every round of every figure; the other two are
made from it alone, so that they can be made again without measuring again."""

import json
import math
import os
import re
import shutil
import subprocess

import figures
import goals
from workloads import LOWER

# The parts of doc/performance.md that programs write, and the lines that they lie between.
PARTS = {"figures": "./bench/run --publish", "requests": "./bench/profile --publish"}

GROUPS = {"metadata": "Names and attributes", "data": "Data", "processes": "Processes",
          "daemon": "The daemon", "shim": "The shim"}


class Table:
    """The results: rows of the table in order, columns by name, and rounds by both."""

    def __init__(self, document):
        self.document = document
        self.columns = document["columns"]
        # What no column has been asked for (a size leaves it out) is no row.
        self._rows = {row["key"]: row for row in document["rows"] if row["rounds"] or row["failed"]}

    def has_row(self, key):
        return key in self._rows

    def row(self, key):
        return self._rows[key]

    def rows(self, group=None):
        return [row for row in self._rows.values() if group in (None, row["group"])]

    def rounds(self, key, column):
        return self._rows[key]["rounds"].get(column, [])

    def summary(self, key, column):
        values = [value for value in self.rounds(key, column) if value is not None]
        return figures.summary(values) if values else None

    def median(self, key, column):
        figure = self.summary(key, column)
        return figure["median"] if figure else None

    def failure(self, key, column):
        return self._rows[key]["failed"].get(column)


def judged(table):
    return [goals.judge(goal, table) for goal in goals.GOALS]


def number(value):
    """Three significant digits, which is more than a median of a few rounds is worth."""
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(digits, 4)}f}"


def _lines(header, rows):
    yield "| " + " | ".join(header) + " |"
    yield "|" + "---|" * len(header)
    for row in rows:
        yield "| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |"


def _arrow(row):
    return "↓" if row["better"] == LOWER else "↑"


def _title(row):
    unit = f", {row['unit']}" if row["unit"] else ""
    return f"{row['title']}{unit} {_arrow(row)}"


def _cell(table, row, column):
    figure = table.summary(row["key"], column)
    if not figure:
        return "failed" if table.failure(row["key"], column) else "–"
    text = number(figure["median"])
    if row["relative"] and column != "native":
        ratio = figures.ratio(table.rounds(row["key"], column), table.rounds(row["key"], "native"))
        if ratio:
            text += f" (×{number(ratio['median'])})"
    return text


def _spread_cell(table, row, column):
    figure = table.summary(row["key"], column)
    return f"{number(figure['low'])}–{number(figure['high'])}" if figure else "–"


def _goal_text(judgement):
    sign = "≥" if judgement["form"] == "speed" else "≤"
    details = judgement["details"]
    if not details:
        return "–", f"{sign} {judgement['bound']:g}"
    if len(details) == 1:
        one = details[0]
        text = f"{number(one['median'])} ({number(one['low'])}–{number(one['high'])})"
    else:
        medians = [d["median"] for d in details]
        good = sum(d["met"] for d in details)
        worst = (min if judgement["form"] == "speed" else max)(details, key=lambda d: d["median"])
        text = f"{good} of {len(medians)} rows; worst: {worst['row']} {number(worst['median'])}"
    return text, f"{sign} {judgement['bound']:g}"


def _goal_section(table):
    rows, unknown = [], []
    for judgement in judged(table):
        if judgement["state"] == goals.UNKNOWN:
            unknown.append(f"{judgement['text']} ({judgement['column']})")
            continue
        text, bound = _goal_text(judgement)
        state = judgement["state"]
        if state == goals.MET and judgement["missing"]:
            state += ", as far as measured"
        if state != goals.MISSED:
            shown = state
        else:
            shown = "**missed**"
        if judgement["below_floor"]:
            shown += " (below the floor: " + ", ".join(judgement["below_floor"]) + ")"
        rows.append([judgement["text"], judgement["column"], text, bound, shown])
    yield from _lines(["goal", "column", "figure (interval)", "must be", ""], rows)
    if unknown:
        yield ""
        yield "Not measured: " + "; ".join(unknown) + "."


def _best_section(table):
    """Every row of k42fs against the best peer with the same caching rule."""
    for column in ("k42fs-fast", "k42fs-day"):
        rows = []
        for group in ("metadata", "processes"):
            for row in table.rows(group):
                found = column in table.columns and \
                    goals.compare(table, row["key"], column, goals.BEST, "speed")
                if found:
                    figure, other = found
                    rows.append([row["title"], other, number(figure["median"]),
                                 f"{number(figure['low'])}–{number(figure['high'])}"])
        if rows:
            rule = table.columns[column]["caching"]
            yield f"**{column}** (caching {rule}): how many times as fast as the best peer."
            yield ""
            yield from _lines(["workload", "best peer", "speed ↑", "interval"], rows)
            yield ""


def _columns_section(table):
    rows = []
    for name, column in table.columns.items():
        version = column["version"] + (f"; {column['note']}" if column["note"] else "")
        rows.append([name, version, column["caching"], f"`{column['options']}`"])
    yield from _lines(["column", "version", "caching", "options"], rows)
    skipped = table.document["skipped"]
    if skipped:
        yield ""
        for name, reason in skipped.items():
            yield f"- SKIP {name}: {reason}"


def _failures(table):
    seen = []
    for row in table.rows():
        for column, reason in row["failed"].items():
            seen.append(f"- {row['title']}, {column}: failed: {reason}")
    return seen


def markdown(document):
    """The whole report."""
    table = Table(document)
    machine, settings = document["machine"], document["settings"]
    columns = list(table.columns)
    out = [
        f"{machine['system']}, kernel {machine['kernel']}, libfuse {machine['libfuse']}, "
        f"{machine['cpus']} CPUs ({machine['cpu']}), {machine['memory_gib']} GiB, "
        f"{machine['filesystem']}; load {machine['load_at_start']} before, {machine['load_at_end']} after. "
        f"k42fs {machine['commit']}. {settings['rounds_done']} rounds, sizes: {settings['sizes']}, "
        f"limit of open files {settings['file_limit']:,}, nice {settings['nice']}.", "",
        "### Goals", "",
        "*speed* goals (≥): times as fast as the other column; the rest (≤): times as much, or the "
        "figure itself. Ratios are medians of the ratios within each round.", "",
        *_goal_section(table), "",
        "### Against the best peer", "", *_best_section(table)]
    for group, title in GROUPS.items():
        rows = table.rows(group)
        if not rows:
            continue
        shown = [c for c in columns
                 if any(table.summary(r["key"], c) or table.failure(r["key"], c) for r in rows)]
        out += [f"### {title}", "",
                "Medians; in brackets the ratio to the backing directory. ↓: less is better, "
                "↑: more is better.", "",
                *_lines(["", *shown], ([_title(row), *(_cell(table, row, c) for c in shown)]
                                       for row in rows)), "",
                "<details><summary>spread</summary>", "",
                *_lines(["", *shown], ([_title(row), *(_spread_cell(table, row, c) for c in shown)]
                                       for row in rows)), "",
                "</details>", ""]
    failures = _failures(table)
    if failures:
        out += ["### What failed", "", *failures, ""]
    out += ["### Columns", "", *_columns_section(table), ""]
    return "\n".join(out)


def publish(part, text, path):
    """Puts `text` between the two marks of `part` in `path`; what others wrote around it stays."""
    begin, end = f"<!-- begin {part}: {PARTS[part]} -->", f"<!-- end {part} -->"
    with open(path, encoding="utf-8") as file:
        page = file.read()
    if page.count(begin) != 1 or page.count(end) != 1:
        raise ValueError(f"{path} does not have the marks “{begin}” and “{end}”, each once")
    before, rest = page.split(begin)
    after = rest.split(end)[1]
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"{before}{begin}\n\n{text.rstrip()}\n\n{end}{after}")


def requests_markdown(counts, options):
    """What ./bench/profile counted: {operation: (what it is counted by, {column: {kind: n}})}."""
    columns = list(dict.fromkeys(name for _, found in counts.values() for name in found))
    rows, kinds = [], []
    for title, (unit, found) in counts.items():
        rows.append([f"{title}, a {unit}"] +
                    [f"{sum(found[c].values()):.2f}" if c in found else "–" for c in columns])
        for column in columns:
            shown = ", ".join(f"{kind} {n:.2f}" for kind, n in
                              sorted(found.get(column, {}).items(), key=lambda item: -item[1])
                              if n >= 0.005)
            kinds.append([title, column, shown or "–"])
    return "\n".join([f"k42fs with `-o {options}`. FORGET, which nobody waits for, is left out.", "",
                      *_lines(["", *columns], rows), "",
                      "<details><summary>by kind</summary>", "",
                      *_lines(["operation", "column", "requests"], kinds), "", "</details>"])


def _plot(table, group, title, folder):
    """Bars: each column's median as a multiple of native's, one cluster a row."""
    rows = [r for r in table.rows(group) if r["relative"] and table.summary(r["key"], "native")]
    columns = [c for c in table.columns
               if c != "native" and any(table.summary(r["key"], c) for r in rows)]
    if not rows or not columns:
        return
    data = os.path.join(folder, f"{group}.dat")
    with open(data, "w", encoding="utf-8") as file:
        for row in rows:
            cells = [f'"{row["title"]} {_arrow(row)}"']
            for column in columns:
                ratio = figures.ratio(table.rounds(row["key"], column),
                                      table.rounds(row["key"], "native"))
                cells.append(f"{ratio['median']:.6g}" if ratio else "NaN")
            file.write(" ".join(cells) + "\n")
    bars = ", ".join(f"'{data}' using {i + 2}:xtic(1) title '{name}' noenhanced"
                     for i, name in enumerate(columns))
    script = "\n".join([
        f"set terminal svg size {200 + 110 * len(rows)},520 dynamic background 'white'",
        f"set output '{os.path.join(folder, group + '.svg')}'",
        f"set title '{title}: multiples of the backing directory (↓ less, ↑ more is better)'",
        "set style data histogram", "set style histogram cluster gap 2",
        "set style fill solid 0.8 border -1", "set boxwidth 1", "set logscale y",
        "set grid ytics", "set key outside", "set xtics rotate by -35 noenhanced",
        "set arrow from graph 0,first 1 to graph 1,first 1 nohead dt 2 front",
        f"plot {bars}", ""])
    done = subprocess.run(["gnuplot"], input=script, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        print("gnuplot:", done.stderr.strip())
    os.unlink(data)


def write(document, folder):
    """results.json, results.md and a plot for each group, in `folder`; returns the Markdown."""
    os.makedirs(folder, exist_ok=True)
    table = Table(document)
    document["goals"] = judged(table)
    with open(os.path.join(folder, "results.json"), "w", encoding="utf-8") as file:
        json.dump(document, file, indent=1, ensure_ascii=False)
        file.write("\n")
    text = markdown(document)
    with open(os.path.join(folder, "results.md"), "w", encoding="utf-8") as file:
        file.write(text)
    if shutil.which("gnuplot"):
        for group, title in GROUPS.items():
            _plot(table, group, title, folder)
    else:
        print("no plots: there is no gnuplot")
    return text


def read(path):
    with open(path, encoding="utf-8") as file:
        document = json.load(file)
    if document.get("version") != 1:
        raise ValueError(f"{path} is not a result of this program")
    return document


def plain(text):
    """For a terminal: without what only Markdown needs."""
    return re.sub(r"</?(details|summary)>", "", text)
