"""gpudecon plan: what a run would do, and what it would need."""

from __future__ import annotations

import argparse
import json
import math
from typing import TYPE_CHECKING, Any

from gpudecon.backend import get_backend
from gpudecon.cli.cluster_options import executor_of
from gpudecon.cli.job_options import add_job_options, check_format, plan_of
from gpudecon.cli.report import page_of
from gpudecon.cli.run_options import add_run_options, check_places, checked_job, is_elsewhere, with_psfs_checked
from gpudecon.errors import InputError

if TYPE_CHECKING:
    from gpudecon.engine.calibration import Calibration
    from gpudecon.engine.plan import Plan


def add_parser(verbs: Any) -> None:
    """Describe the verb and its options."""
    parser: argparse.ArgumentParser = verbs.add_parser(
        "plan",
        help="show what a run would do: tiles, memory, time",
        description="Show what 'gpudecon run' with the same options would do, without doing it: the tiles, the buffers "
        "and their bytes, what the margins of the tiles cost, the time, what limits the tiles, and what is in the way.",
    )
    parser.set_defaults(act=act)
    add_job_options(parser)
    add_run_options(parser)
    parser.add_argument("--json", action="store_true", help="print the whole plan as JSON")


def act(args: argparse.Namespace) -> int:
    """Carry out the verb."""
    from gpudecon.engine.calibration import calibrated

    check_format(args, replaces=True)  # nothing is written
    job = checked_job(args, elsewhere=is_elsewhere(args))
    execute = executor_of(args, stop=lambda: False)
    plan = plan_of(job, args, processes=1 if execute is None else execute.processes)
    plan, done, obstacle = _what_is_there(plan, args)
    backend = get_backend(job.device, threads=job.threads)
    calibration = calibrated(plan, backend)
    seconds = calibration.predict(plan, backend) * (1 - done / len(plan))
    then = _afterwards(args, plan)
    with_psfs_checked(args, job, plan)
    if args.json:
        more = {
            "tasks": len(plan),
            "done": done,
            "tiles": len(plan.tiling),
            "halo_cost": _halo_cost(plan),
            "bytes": plan.needs.bytes,
        }
        time = {"seconds": seconds, "calibration": {"measured": calibration.measured, "kept": calibration.kept}}
        print(json.dumps(json.loads(plan.to_json()) | more | time | {"then": then, "obstacle": obstacle}, indent=1))
    else:
        where = "" if args.scheduler is None else f"workers of Dask ({args.scheduler}); the time is that of one"
        extra = {"carried out by": where, "done already": f"{done} of {len(plan)} tiles" * (done > 0)}
        print(_table(plan, calibration, seconds, extra | {"then": "; ".join(then), "refused as it is": obstacle}))
    return 0


def _what_is_there(plan: Plan, args: argparse.Namespace) -> tuple[Plan, int, str]:
    """The plan as a run would carry it out, how many of its tasks it would find done, and what it would refuse."""
    from gpudecon.engine.run import made
    from gpudecon.engine.workspace import earlier, tiles_done

    if args.resume and made(plan) is not None:
        return plan, len(plan), ""
    try:
        check_places(args)
        begun = earlier(plan, resume=args.resume, overwrite=args.overwrite)
    except InputError as error:
        return plan, 0, str(error)
    return (plan, 0, "") if begun is None else (plan.with_tiles_of(begun), tiles_done(plan), "")


def _afterwards(args: argparse.Namespace, plan: Plan) -> list[str]:
    """What the run would do when all tiles are restored, beside moving the output into its place."""
    found = []
    if args.check_seams and len(plan.tiling) > 1:
        found.append("some places between tiles are restored again with twice the halo")
    if args.verify:
        found.append("all that was written is read again and compared")
    if args.report:
        found.append(f"{page_of(args.output)} is written")
    return found


def _halo_cost(plan: Plan) -> float:
    """Voxels that all tiles of a stack read beyond those of the stack, as a fraction of these."""
    return len(plan.tiling) * math.prod(plan.tiling.read_shape) / math.prod(plan.tiling.stack) - 1


def _table(plan: Plan, calibration: Calibration, seconds: float, extra: dict[str, str]) -> str:
    from gpudecon.engine.memory import in_words

    tiling, needs = plan.tiling, plan.needs
    stored = f"in chunks of {_shape(plan.chunks)}" + (f", shards of {_shape(plan.shards)}" if plan.shards else "")
    iterations = plan.options.get("iterations")
    steps = "" if iterations is None else f", {'at most ' * (plan.settings['stop'] != 'fixed')}{iterations} iterations"
    origin = "kept from" if calibration.kept else "measured now,"
    facts = {
        "input": f"{plan.source.path}: {len(plan.channels)} x {len(plan.timepoints)} stacks (channels x time points) "
        f"of {_shape(tiling.stack)} voxels, {plan.source.dtype}",
        "output": f"{plan.output}, {plan.dtype}, {stored}",
        "method": f"{plan.method}{steps}, on {needs.device}",
        "tiles": f"{len(tiling)} ({_shape(tiling.counts)}) of {_shape(tiling.core_shape)} voxels in each stack, "
        f"{len(plan)} in all",
        "read for each": f"{_shape(tiling.read_shape)}: a halo of {_shape(tiling.halo)}, "
        f"{_halo_cost(plan):.0%} more voxels than the stack has",
        "transformed": f"{_shape(needs.padded_shape)}",
        "limited by": needs.limit,
        "time": f"{_duration(seconds)} of computing, reading and writing beside it (speed {origin} "
        f"{calibration.measured})",
        **{name: text for name, text in extra.items() if text},
        "plan": plan.hash,
    }
    width = max(map(len, facts))
    lines = [f"{name:<{width}}  {value}" for name, value in facts.items()]
    wide = max(map(len, needs.buffers))
    lines += ["", f"{'buffer':<{wide}}  memory"]
    lines += [f"{name:<{wide}}  {in_words(size)}" for name, size in needs.buffers.items() if size]
    lines += [f"{'all':<{wide}}  {in_words(needs.bytes)} of {in_words(needs.available)}"]
    return "\n".join(lines)


def _shape(lengths: tuple[int, ...]) -> str:
    return " x ".join(map(str, lengths))


def _duration(seconds: float) -> str:
    """90 -> "about 1.5 minutes"."""
    for unit, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= unit:
            return f"about {seconds / unit:.3g} {name}"
    return f"about {max(seconds, 0.1):.2g} seconds"
