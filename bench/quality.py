"""Quality of every method on specimens with known truth, and the time to reach it.

python bench/quality.py -o bench/results/quality.jsonl          # about 55 minutes on 2 quiet cores
python bench/quality.py --quick -o /tmp/quality.jsonl --images /tmp
python bench/quality_table.py                                   # then: the tables of docs/quality_results.md

Sections: restoration (NRMSE, resolution and seconds of every method in every case), time_to_quality, tv (total
variation at the fewest photons), bars (the hollow bars, beside other programs), pictures (a PNG for each optic).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from peers import REDLIONFISH, SCIKIT_IMAGE, Peer
from quality_cases import OPTICS, SHARED_DATA, Case, Shape, bars, simulated
from quality_curve import Curve, automatic, follow, resolutions
from quality_figure import PICTURED, save_picture
from quality_variants import PLAIN, TV_VARIANTS, VARIANTS, Variant, offered
from rows import HERE, Rows, environment
from timing import WallClock, in_turn, summary

from gpudecon.backend.slabs import available_cores
from gpudecon.errors import GpudeconError
from gpudecon.forward import EDGES, Edges
from gpudecon.quality.metrics import nrmse

WITHIN = 1.01  # time to quality: NRMSE at most this times the least of plain Richardson-Lucy
SECTIONS = ("restoration", "time_to_quality", "tv", "bars", "pictures")
BARS_EDGES: tuple[Edges, ...] = ("extend", "periodic")


@dataclass(frozen=True)
class Size:
    """What is restored, how long, and how often it is timed; ``most`` iterations in any curve."""

    frame: Shape
    window: Shape  # of the PSF
    optics: tuple[str, ...]
    phantoms: tuple[str, ...]
    photons: tuple[int, ...]
    timed: tuple[tuple[str, int], ...]  # (phantom, photons) of the section time_to_quality
    whole: tuple[tuple[str, int], ...]  # there, too, with a specimen that the frame does not cut
    edges: Edges
    seed: int  # of the specimens
    pictured: int  # photons of the pictures
    most: int
    rounds: int
    bars: Shape
    peer_iterations: int


FULL = Size(
    frame=(24, 80, 80),
    window=(25, 33, 33),
    optics=tuple(OPTICS),
    phantoms=("filaments", "beads", "shells", "nuclei"),
    photons=(20, 200, 2000),
    timed=(("filaments", 200), ("filaments", 2000), ("nuclei", 200), ("nuclei", 2000)),
    whole=(("nuclei", 200), ("nuclei", 2000)),
    edges="extend",
    seed=1,
    pictured=200,
    most=200,
    rounds=3,
    bars=(32, 64, 64),
    peer_iterations=100,
)
QUICK = replace(
    FULL,
    frame=(12, 32, 32),  # large enough to tell a resolution along z
    window=(5, 7, 7),
    optics=("widefield", "light-sheet"),
    phantoms=("filaments", "nuclei"),
    photons=(20, 200),
    timed=(("nuclei", 200),),
    whole=(("nuclei", 200),),
    most=6,
    rounds=2,
    bars=(12, 32, 32),
    peer_iterations=3,
)


class Followed:
    """A case with the curves of its variants, each computed once and when first asked for."""

    def __init__(self, case: Case, variants: Mapping[str, Variant], most: int) -> None:
        self.case, self.variants, self.most = case, variants, most
        self._curves: dict[str, Curve | str] = {}

    def curve(self, name: str, variant: Variant) -> Curve | str:
        """The curve, or why there is none: a method may refuse an image or fail, and the others still count."""
        if name not in self._curves:
            try:
                self._curves[name] = follow(self.case, variant, self.limit(variant))
            except GpudeconError as error:
                self._curves[name] = str(error)
        return self._curves[name]

    def limit(self, variant: Variant) -> int:
        return min(variant.limit, self.most)

    @cached_property
    def plain(self) -> Curve:
        curve = self.curve(PLAIN, self.variants[PLAIN])
        assert isinstance(curve, Curve), curve
        return curve


def restoration(rows: Rows, followed: Followed, size: Size) -> None:
    """Every method: NRMSE at its best, at its defaults and with stop="auto"; resolution; seconds."""
    case = followed.case
    rows.add(
        "restoration", "image", **case.labels, nrmse=nrmse(case.image, case.truth), **resolutions(case, case.image)
    )
    for name, variant in followed.variants.items():
        curve = followed.curve(name, variant)
        if isinstance(curve, str):
            rows.skip("restoration", name, curve, **case.labels)
            continue
        rows.add("restoration", name, **case.labels, **_figures(followed, variant, curve))


def _figures(followed: Followed, variant: Variant, curve: Curve) -> dict[str, Any]:
    case = followed.case
    fields: dict[str, Any] = {
        "nrmse": curve.least,
        "seconds": curve.seconds[curve.best_iteration - 1],
        **resolutions(case, curve.best),
    }
    if not variant.limit:
        return fields
    default = variant.default_iterations
    fields |= {"iterations": curve.best_iteration, "iterations_followed": len(curve.errors)}
    fields |= {"iterations_default": default, "nrmse_default": curve.errors[default - 1]}
    if variant.auto:
        try:
            fields |= automatic(case, variant, followed.limit(variant))
        except GpudeconError as error:
            return {**fields, "note": f'stop="auto" failed: {error}'}
        fields["auto_to_best"] = fields["nrmse_auto"] / curve.least
    return fields


def time_to_quality(rows: Rows, followed: Followed, size: Size) -> None:
    """Seconds of whole calls that end within 1 % of the best of plain Richardson-Lucy, and their ratio to its own.

    The number of iterations is read from the curves; then calls with that number run in turn, without a callback.
    `seconds_until`, of the curve, is until the estimate was reached, without the checks that follow it.
    """
    case = followed.case
    if (case.labels["phantom"], case.labels["photons"]) not in (size.timed if case.labels["is_cut"] else size.whole):
        return
    target = WITHIN * followed.plain.least
    calls: dict[str, Callable[[], object]] = {}
    numbers: dict[str, int] = {}
    reached: dict[str, float] = {}
    for name, variant in followed.variants.items():
        curve = followed.curve(name, variant)
        needed = None if isinstance(curve, str) else curve.first_within(target)
        if needed is None:
            why = curve if isinstance(curve, str) else f"its least NRMSE is {curve.least:.4f}"
            rows.add("time_to_quality", name, **case.labels, target=target, note=f"not reached: {why}")
            continue
        numbers[name] = needed
        assert isinstance(curve, Curve)
        reached[name] = curve.seconds[needed - 1]
        calls[name] = partial(case.restore, variant, iterations=needed)
    taken = in_turn(calls, WallClock(), rounds=size.rounds, warm_up=0)
    for name, seconds in taken.items():
        ratios = [a / b for a, b in zip(seconds, taken[PLAIN], strict=True)]
        rows.add(
            "time_to_quality",
            name,
            **case.labels,
            target=target,
            iterations=numbers[name] if followed.variants[name].limit else None,
            seconds_until=reached[name],
            **summary(seconds).fields,
            seconds_max=max(seconds),
            ratio_median=statistics.median(ratios),
            ratio_min=min(ratios),
            ratio_max=max(ratios),
        )


def tv(rows: Rows, followed: Followed, size: Size) -> None:
    """Plain Richardson-Lucy with total variation of several weights, at the fewest photons."""
    case = followed.case
    if case.labels["photons"] != min(size.photons):
        return
    plain = followed.plain
    for name, variant in offered(TV_VARIANTS)[0].items():
        curve = followed.curve(name, variant)
        if isinstance(curve, str):
            rows.skip("tv", name, curve, **case.labels)
            continue
        fields = {"nrmse": curve.least, "iterations": curve.best_iteration, "nrmse_plain": plain.least}
        rows.add("tv", name, **case.labels, **fields, to_plain=curve.least / plain.least)


PER_CASE = {"restoration": restoration, "time_to_quality": time_to_quality, "tv": tv}


def hollow_bars(rows: Rows, variants: Mapping[str, Variant], size: Size, data: Path) -> None:
    """All methods at their best beside many iterations of other programs, and their time to what those reach.

    All calls are timed in turn.
    """
    if not (data / "bars-25pct_data.tif").exists():
        rows.skip("bars", "all", "the folder of real stacks is not there; give it as --data")
        return
    calls: dict[tuple[str, ...], Callable[[], object]] = {}
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    case = bars(data, "extend", size.bars)
    rows.add("bars", "image", shape=case.image.shape, nrmse=nrmse(case.image, case.truth))
    target = 0.0
    for peer in (SCIKIT_IMAGE, REDLIONFISH):
        if not peer.installed:
            rows.skip("bars", peer.name, "not installed")
            continue
        key = ("bars", peer.name, "its own")
        error, calls[key], form = _best_of_peer(peer, case, size.peer_iterations)
        target = min(target or error, error)
        note = f"another program: {peer.note}; PSF {form}"
        found[key] = {"shape": case.image.shape, "nrmse": error, "iterations": size.peer_iterations, "note": note}
    for edges in BARS_EDGES:
        followed = Followed(bars(data, edges, size.bars), variants, size.most)
        labels = followed.case.labels
        for name, variant in variants.items():
            if edges != BARS_EDGES[0] and not variant.made().needs_psf:
                continue  # it knows no edges
            curve = followed.curve(name, variant)
            if isinstance(curve, str):
                rows.skip("bars", name, curve, **labels)
                continue
            wanted = {"bars": curve.best_iteration, "bars_to_peers": curve.first_within(target)}
            for section, n in wanted.items():
                if n is None:
                    continue
                key = (section, name, edges)
                fields = {**labels, "nrmse": curve.errors[n - 1], "iterations": n if variant.limit else None}
                found[key] = fields if section == "bars" else {**fields, "target": target}
                calls[key] = partial(followed.case.restore, variant, iterations=n)
    for key, seconds in in_turn(calls, WallClock(), rounds=size.rounds, warm_up=0).items():
        rows.add(key[0], key[1], **found[key], **summary(seconds).fields)


def _best_of_peer(peer: Peer, case: Case, iterations: int) -> tuple[float, Callable[[], object], str]:
    """(NRMSE, call, form of the PSF): as it is, with even lengths, or without the first plane of each of these axes.

    Programs disagree where the middle of an even axis is; each gets the form that serves it better.
    """
    psf = case.psf.array
    odd = psf[tuple(slice(1 - n % 2, None) for n in psf.shape)]
    tried = []
    for form, kernel in (("as it is", psf), ("of odd lengths", odd / odd.sum())):
        call = partial(peer.restore, case.image, kernel, iterations)
        tried.append((nrmse(call(), case.truth), call, form))
    return min(tried, key=lambda one: one[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="toy size: the numbers mean nothing")
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, separated by commas")
    parser.add_argument("--optics", help=f"of {','.join(OPTICS)}; separated by commas")
    parser.add_argument("--phantoms", help=f"of {','.join(FULL.phantoms)}; separated by commas")
    parser.add_argument("--photons", help="of 20,200,2000; separated by commas")
    parser.add_argument("--frame", help="of the phantoms: planes,rows,columns (default 24,80,80)")
    parser.add_argument("--methods", help=f"of {', '.join(VARIANTS)}; separated by commas; always with {PLAIN}")
    parser.add_argument("--edges", choices=EDGES, default="extend", help="of the phantoms (default extend)")
    parser.add_argument("--seed", type=int, default=1, help="another number, other specimens and noise (default 1)")
    parser.add_argument("--data", type=Path, default=SHARED_DATA, help="the folder with the hollow bars")
    parser.add_argument("--images", type=Path, default=HERE.parent / "docs" / "images", help="where pictures go")
    parser.add_argument("-o", "--out", type=Path, default=HERE / "results" / "quality.jsonl")
    arguments = parser.parse_args()
    size = replace(QUICK if arguments.quick else FULL, edges=arguments.edges, seed=arguments.seed)
    for choice in ("optics", "phantoms"):
        if getattr(arguments, choice):
            size = replace(size, **{choice: tuple(getattr(arguments, choice).split(","))})
    if arguments.photons:
        size = replace(size, photons=tuple(map(int, arguments.photons.split(","))))
    if arguments.frame:
        z, y, x = map(int, arguments.frame.split(","))
        size = replace(size, frame=(z, y, x))
    sections = arguments.only.split(",")
    for given, known in ((sections, SECTIONS), (size.optics, tuple(OPTICS)), (size.phantoms, FULL.phantoms)):
        unknown = [name for name in given if name not in known]
        if unknown:
            parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(known)}")

    start = time.perf_counter()
    rows = Rows(arguments.out)
    rows.add("env", "environment", **environment(), threads=available_cores(), within=WITHIN)
    variants, missing = offered(VARIANTS)
    if arguments.methods:
        wanted = {PLAIN, *arguments.methods.split(",")}
        variants = {name: variant for name, variant in variants.items() if name in wanted}
    missing |= offered(TV_VARIANTS)[1]
    for name, why in missing.items():
        rows.skip("variants", name, why)
    if missing:
        print(f"not offered by this gpudecon: {', '.join(missing)}")
    if {"pictures", *PER_CASE} & set(sections):
        for optic in size.optics:
            phantoms(rows, optic, variants, size, sections, arguments.images)
    if "bars" in sections:
        hollow_bars(rows, variants, size, arguments.data)
    print(f"{len(rows.all)} rows in {time.perf_counter() - start:.0f} s: {arguments.out}")


def phantoms(
    rows: Rows, optic: str, variants: Mapping[str, Variant], size: Size, sections: list[str], images: Path
) -> None:
    """All cases of an optic, and its picture."""
    pictures = {}
    for name in size.phantoms:
        for photons in size.photons:
            start = time.perf_counter()
            case = simulated(optic, name, photons, size.frame, size.window, edges=size.edges, seed=size.seed)
            followed = Followed(case, variants, size.most)
            for section, measure in PER_CASE.items():
                if section in sections:
                    measure(rows, followed, size)
            if "pictures" in sections and photons == size.pictured:
                pictures[name] = case, _pictured(followed)
            seconds = time.perf_counter() - start
            print(f"{optic:12} {name:10} {photons:5} photons  {seconds:6.1f} s", flush=True)
    if "time_to_quality" in sections:
        for name, photons in size.whole:
            case = simulated(
                optic, name, photons, size.frame, size.window, is_cut=False, edges=size.edges, seed=size.seed
            )
            time_to_quality(rows, Followed(case, variants, size.most), size)
    if pictures:
        save_picture(images / f"quality_{optic}.png", optic, pictures)


def _pictured(followed: Followed) -> dict[str, Curve]:
    curves = {n: followed.curve(n, followed.variants[n]) for n in PICTURED if n in followed.variants}
    return {name: curve for name, curve in curves.items() if isinstance(curve, Curve)}


if __name__ == "__main__":
    main()
