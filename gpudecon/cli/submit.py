"""gpudecon submit: a run as a SLURM job array, and a job that finishes it."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from gpudecon.cli.cluster_options import SLURM, add_slurm_options, resources_of
from gpudecon.cli.job_options import add_job_options, check_format, plan_of
from gpudecon.cli.run_options import add_common_options, checked_job, with_psfs_checked
from gpudecon.errors import GpudeconError, InputError


def add_parser(verbs: Any) -> None:
    """Describe the verb and its options."""
    parser: argparse.ArgumentParser = verbs.add_parser(
        "submit",
        help="restore an image file by a SLURM job array",
        description="Plan what `gpudecon run` would do with the same options, and hand it to SLURM: a job array whose "
        "elements restore the tiles, and a job that makes the output of them when all have ended, or says which tiles "
        "are missing. Input and output must be where all nodes see them by the same path; see docs/hpc.md.",
    )
    parser.set_defaults(act=act)
    add_job_options(parser)
    add_common_options(parser)
    array = parser.add_argument_group("job array")
    array.add_argument("--elements", type=int, default=16, metavar="N", help="at most so many (default 16)")
    array.add_argument("--concurrent", type=int, metavar="N", help="at most so many at once (default: no limit)")
    array.add_argument("--command", metavar="WORDS", help="what starts gpudecon on the nodes (default: this Python)")
    instead = array.add_mutually_exclusive_group()
    instead.add_argument("--dry-run", action="store_true", help="print the scripts, change and submit nothing")
    instead.add_argument(
        "--prepare",
        action="store_true",
        help="make the workspace and submit nothing: print the commands that do the work, for another batch system",
    )
    add_slurm_options(parser)


def act(args: argparse.Namespace) -> int:
    """Carry out the verb."""
    from gpudecon.engine.finish import finish
    from gpudecon.engine.run import made, prepare
    from gpudecon.engine.slurm import Array, elements_left
    from gpudecon.engine.workspace import folder_of

    _check(args)
    check_format(args, replaces=args.overwrite or args.resume)
    job = checked_job(args, elsewhere=True)
    plan = plan_of(job, args)
    if args.resume and made(plan) is not None:
        return _nothing_left(args)
    array = Array(
        folder=folder_of(plan.output),
        output=Path(plan.output),
        elements=min(args.elements, len(plan)),
        resources=resources_of(args),
        command=args.command or f"{shlex.quote(sys.executable)} -m gpudecon",
        device=args.device,
        threads=args.threads or args.cpus,
        concurrent=args.concurrent,
        verify=args.verify,
    )
    if args.dry_run:
        print(array.script(range(array.elements)))
        print(array.finish_script(), end="")
        return 0
    array.check_idle()
    job = with_psfs_checked(args, job, plan)
    with prepare(job, plan, resume=args.resume, overwrite=args.overwrite) as workspace:
        if workspace.completed is not None:  # and moved, perhaps, before the process ended
            finish(workspace)
            return _nothing_left(args)
        tasks = len(workspace.plan)
        remaining = set(workspace.remaining())
        left = elements_left(array.elements, tasks, set(range(tasks)) - remaining)
    if args.prepare:
        print(*(array.work(f"{element}/{array.elements}") for element in left), array.finish(), sep="\n")
        return 0
    try:
        jobs = array.submit(left)
    except GpudeconError:
        if not array.jobs:
            _discard_if_untouched(array.folder)
        raise
    print(
        f"gpudecon: {len(remaining)} of {tasks} tiles to do in {len(left)} elements: job{'s' * (len(jobs) > 1)} "
        f"{' and '.join(jobs)}; logs in {array.folder / 'slurm'}, of the last job in {array.output}.slurm.log",
        file=sys.stderr,
    )
    return 0


def _nothing_left(args: argparse.Namespace) -> int:
    print(f"gpudecon: {args.output} is complete; nothing is left to be done", file=sys.stderr)
    return 0


def _discard_if_untouched(folder: Path) -> None:
    from gpudecon.engine.workspace import Workspace

    with suppress(InputError), Workspace.open(folder, alone=True) as workspace:  # or somebody is at work in it
        if len(workspace.remaining()) == len(workspace.plan):
            workspace.discard()


def _check(args: argparse.Namespace) -> None:
    from gpudecon.engine.slurm import MOST_ELEMENTS

    if not 1 <= args.elements <= MOST_ELEMENTS:
        raise InputError(f"--elements is {args.elements}; give a number from 1 to {MOST_ELEMENTS}.")
    if args.concurrent is not None and args.concurrent < 1:
        raise InputError(f"--concurrent is {args.concurrent}; give a number from 1 on.")
    given = [name for name in ("concurrent", *SLURM) if getattr(args, name) is not None]
    if args.prepare and given:
        raise InputError(f"--{given[0]} has no meaning with --prepare, which submits nothing; leave it out.")
    if args.command is not None:
        _check_command(args.command)


def _check_command(command: str) -> None:
    """Refuse what is no single program: signals would reach the shell in between, and not gpudecon."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars=";&|")
    lexer.whitespace_split = True
    lexer.commenters = ""
    try:
        words = list(lexer)
    except ValueError as error:
        raise InputError(f"--command is {command!r}, which the shell would not read ({error}).") from error
    is_program = bool(words) and re.match(r"\w+=", words[0]) is None  # exec takes no assignment
    if not is_program or "\n" in command or any(set(word) <= set(";&|") for word in words):
        raise InputError(
            f"--command is {command!r}; give one program with its arguments, such as a script that loads what is "
            'needed and ends in: exec gpudecon "$@" (and for A=1 gpudecon: env A=1 gpudecon).'
        )
