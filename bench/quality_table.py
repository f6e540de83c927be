"""Tables of docs/quality_results.md, between its markers, from the rows of bench/quality.py.

python bench/quality_table.py
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from quality_cases import DENSE
from quality_variants import PLAIN, VARIANTS
from rows import HERE, Row

BEGIN, END = "<!-- quality: begin, written by bench/quality_table.py -->", "<!-- quality: end -->"
ROOT = HERE.parent
MISSING = "-"
OTHERS = {"Another specimen and noise": "quality_seed.jsonl", "Periodic edges": "quality_periodic.jsonl"}


def rows_of(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def table(head: Iterable[str], lines: Iterable[Iterable[str]]) -> list[str]:
    head = list(head)
    return [_line(head), _line("---" for _ in head), *(_line(cells) for cells in lines), ""]


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def median(rows: list[Row], key: str, form: str = ".3f") -> str:
    values = [row[key] for row in rows if key in row]
    return format(statistics.median(values), form) if values else MISSING


def resolution(rows: list[Row], direction: str) -> str:
    """The median, where rows without a figure, in which no structure is resolved, count as infinite."""
    value = statistics.median(row.get(f"resolution_{direction}_um", math.inf) for row in rows) if rows else math.inf
    return f"{value:.2f}" if math.isfinite(value) else MISSING


def names(rows: list[Row]) -> list[str]:
    """In the order of the rows."""
    return list(dict.fromkeys(row["name"] for row in rows))


def which(rows: list[Row], **wanted: Any) -> list[Row]:
    return [row for row in rows if all(row.get(key) == value for key, value in wanted.items())]


def restoration(rows: list[Row], images: str) -> list[str]:
    """Per optic: medians over the phantoms."""
    text = []
    for optic in dict.fromkeys(row["optic"] for row in rows):
        of_optic = which(rows, optic=optic)
        levels = sorted({row["photons"] for row in of_optic})
        middle = levels[len(levels) // 2]
        head = ["method"]
        for n in levels:
            head += [f"{n}: best", "default", "auto"]
        head += [f"xy (µm) at {middle}", "z (µm)", "s"]
        lines = []
        for name in names(of_optic):
            cells = [name]
            for n in levels:
                cells += [
                    median(which(of_optic, name=name, photons=n), k) for k in ("nrmse", "nrmse_default", "nrmse_auto")
                ]
            chosen = which(of_optic, name=name, photons=middle)
            cells += [resolution(chosen, "xy"), resolution(chosen, "z")]
            lines.append([*cells, median(chosen, "seconds", ".2g")])
        text += [f"### {optic.capitalize()}", "", *table(head, lines)]
        if images and (ROOT / "docs" / images / f"quality_{optic}.png").exists():
            text += [f"![{optic}: truth, image and restorations]({images}/quality_{optic}.png)", ""]
    return text


def automatic(rows: list[Row]) -> list[str]:
    """The worst ratio of NRMSE with stop="auto" to the method's best, over optics, on sparse and on dense phantoms."""
    chosen = [row for row in rows if "auto_to_best" in row]
    raw = {_case(row): row["nrmse"] for row in which(rows, name="image")}
    levels = sorted({row["photons"] for row in chosen})
    kinds = [(dense, n) for dense in (False, True) for n in levels]
    lines = []
    for name in names(chosen):
        own = which(chosen, name=name)
        cells = [name]
        for dense, n in kinds:
            ratios = [r["auto_to_best"] for r in which(own, photons=n) if (r["phantom"] in DENSE) == dense]
            cells.append(f"{max(ratios):.3f}" if ratios else MISSING)
        worse = sum(row["nrmse_auto"] > raw[_case(row)] for row in own)
        lines.append([*cells, f"{worse} of {len(own)}"])
    head = [f"{'dense' if dense else 'sparse'}, {n}" for dense, n in kinds]
    return table(["method", *head, "worse than the image"], lines)


def _case(row: Row) -> tuple[Any, ...]:
    return row["optic"], row["phantom"], row["photons"]


def time_to_quality(rows: list[Row]) -> list[str]:
    """Ratio to plain Richardson-Lucy's seconds: median over optics of the medians, and the whole range of rounds."""
    cases = list(dict.fromkeys((row["phantom"], row["photons"], row["is_cut"]) for row in rows))
    lines = []
    order = list(VARIANTS)
    for name in names(sorted(rows, key=lambda row: order.index(row["name"]))):
        cells = [name]
        for phantom, photons, is_cut in cases:
            here = which(rows, name=name, phantom=phantom, photons=photons, is_cut=is_cut)
            reached = [row for row in here if "ratio_median" in row]
            cell = MISSING
            if reached:
                low, high = min(r["ratio_min"] for r in reached), max(r["ratio_max"] for r in reached)
                numbers = ", ".join(str(r.get("iterations", 1)) for r in reached)
                cell = f"{median(reached, 'ratio_median', '.2f')} ({low:.2f}-{high:.2f}) @{numbers}"
                if len(reached) < len(here):
                    cell += f"; in {len(reached)} of {len(here)}"
            cells.append(cell)
        lines.append(cells)
    head = [f"{phantom}, {photons}{'' if is_cut else ', within the frame'}" for phantom, photons, is_cut in cases]
    return table(["method", *head], lines)


def case_by_case(rows: list[Row]) -> list[str]:
    """A line for each case of a dense phantom: iterations and, in parentheses, the ratio of the seconds."""
    dense = [row for row in rows if row["phantom"] in DENSE]
    order = [name for name in VARIANTS if any("iterations" in row for row in which(dense, name=name))]
    lines = []
    for optic, phantom, photons, is_cut in dict.fromkeys((*_case(row), row["is_cut"]) for row in dense):
        cells = [f"{optic}, {phantom}, {photons}, {'cut by' if is_cut else 'within'} the frame"]
        for name in order:
            (row,) = which(dense, name=name, optic=optic, phantom=phantom, photons=photons, is_cut=is_cut) or [{}]
            ratio = "" if name == PLAIN else f" ({row.get('ratio_median', 0):.2f})"
            cells.append(f"{row.get('iterations', 1)}{ratio}" if "ratio_median" in row else MISSING)
        lines.append(cells)
    return table(["optics, phantom, photons", *order], lines)


def bars(rows: list[Row], to_peers: list[Row]) -> list[str]:
    """By rising error; beside it the time until the error of the best other program is reached."""
    lines = []
    for row in sorted((row for row in rows if "nrmse" in row), key=lambda row: row["nrmse"]):
        reached = which(to_peers, name=row["name"], edges=row.get("edges"))
        lines.append(
            [
                row["name"],
                row.get("edges", MISSING),
                f"{row['nrmse']:.4f}",
                str(row.get("iterations", MISSING)),
                f"{row['seconds_median']:.3g}" if "seconds_median" in row else MISSING,
                str(reached[0].get("iterations", 1)) if reached else MISSING,
                f"{reached[0]['seconds_median']:.3g}" if reached else MISSING,
            ]
        )
    head = ["method", "edges", "NRMSE", "iterations", "s", "iterations to the other programs' NRMSE", "s"]
    return table(head, lines)


def total_variation(rows: list[Row]) -> list[str]:
    """NRMSE over that of plain Richardson-Lucy, both at their best; a column for each phantom, medians over optics."""
    kinds = list(dict.fromkeys(row["phantom"] for row in rows))
    lines = []
    for name in names(rows):
        ratios = [median(which(rows, name=name, phantom=kind), "to_plain") for kind in kinds]
        lines.append([name, *ratios, median(which(rows, name=name), "to_plain")])
    return table(["method", *kinds, "all"], lines)


def text_of(rows: list[Row], source: str, images: str, others: Iterable[list[str]]) -> str:
    env, rest = rows[0], [row for row in rows if not row.get("note", "").startswith("skipped")]
    text = [
        f"From `{source}`: gpudecon {env['gpudecon']}, commit `{env['commit'][:12]}`"
        f"{' with changes' if env['dirty'] else ''}, {env['date'][:10]}, {env['processor']}, {env['threads']} threads.",
        "",
    ]
    restored = which(rest, section="restoration")
    if restored:
        text += ["## NRMSE and resolution", ""]
        text += [
            "Medians over the phantoms. `best`: at the iteration of the least NRMSE; `default`: at the default "
            'number of iterations; `auto`: with `stop="auto"`. Resolution and seconds belong to `best`.',
            "",
            *restoration(restored, images),
        ]
        text += ['## `stop="auto"`', "", "NRMSE over the method's best, the largest over optics and phantoms.", ""]
        text += automatic(restored)
    timed = which(rest, section="time_to_quality")
    if timed:
        text += ["## Time to quality", ""]
        text += [
            f"Seconds of a whole call until the NRMSE is within {100 * (env['within'] - 1):.0f} % of the best of plain "
            "`rl` in 200 iterations, over plain `rl`'s own: median over optics (least to largest of all rounds) @ "
            'iterations in each optic. Frames cut their specimens except where it says "within the frame".',
            "",
            *time_to_quality(timed),
            "### Dense specimens, case by case",
            "",
            "Iterations and, in parentheses, the seconds of the whole call over plain `rl`'s (median of the rounds).",
            "",
            *case_by_case(timed),
        ]
        text += [line for also in others for line in also]
    varied = which(rest, section="tv")
    if varied:
        text += ["## Total variation at the fewest photons", "", "NRMSE over that of plain `rl`, each at its best.", ""]
        text += total_variation(varied)
    hollow = which(rest, section="bars")
    if hollow:
        text += ["## Hollow bars", "", *bars(hollow, which(rest, section="bars_to_peers"))]
        text += [f"- {row['name']}: {row['note']}" for row in hollow if "note" in row] + [""]
    left_out = [f"{row['name']} ({row['note']})" for row in rows if row.get("note", "").startswith("skipped")]
    left_out += [f"{row['name']}: {row['note']}" for row in restored if "note" in row]
    if left_out:
        text += ["## Not measured", "", *(f"- {line}" for line in dict.fromkeys(left_out)), ""]
    return "\n".join(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, default=HERE / "results" / "quality.jsonl")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "quality_results.md")
    arguments = parser.parse_args()
    rows = rows_of(arguments.rows)
    others = []
    for title, name in OTHERS.items():
        path = arguments.rows.with_name(name)
        if path.exists():
            timed = which(rows_of(path), section="time_to_quality")
            others.append([f"#### {title}", "", f"From `{name}` beside it.", "", *case_by_case(timed)])
    page = arguments.page.read_text()
    before, found, rest = page.partition(BEGIN)
    _, closed, after = rest.partition(END)
    if not (found and closed):
        parser.error(f"{arguments.page} lacks the markers {BEGIN!r} and {END!r}")
    path = arguments.rows.resolve()
    source = str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name
    arguments.page.write_text(f"{before}{BEGIN}\n{text_of(rows, source, 'images', others)}{END}{after}")


if __name__ == "__main__":
    main()
