"""gpudecon work: some of the tasks of a run that others take part in, as each element of a job array does."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any

from gpudecon.errors import InputError


def add_parser(verbs: Any) -> None:
    """Describe the verb and its options."""
    parser: argparse.ArgumentParser = verbs.add_parser(
        "work",
        help="do a share of the tiles of a prepared run",
        description="Restore the tiles of one share of a run that `gpudecon submit` has prepared, those that are done "
        "left out. SIGTERM and SIGUSR1 stop it after the tile in hand, with status 75; calling it again goes on.",
    )
    parser.set_defaults(act=act)
    parser.add_argument("workspace", metavar="WORKSPACE", help="the folder .NAME.gpudecon beside the output")
    parser.add_argument("--share", default="0/1", metavar="K/N", help="tiles K, K + N, K + 2 N, ... (default 0/1: all)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument(
        "--threads", type=int, metavar="N", help="CPU threads (default: all cores this process may use)"
    )


def act(args: argparse.Namespace) -> int:
    """Carry out the verb."""
    from gpudecon.cli.progress import Progress
    from gpudecon.cli.stopping import stopping
    from gpudecon.engine.run import in_this_process
    from gpudecon.engine.slurm import share
    from gpudecon.engine.tile import Worker
    from gpudecon.engine.workspace import Workspace

    found = re.fullmatch(r"(\d+)/(\d+)", args.share)
    if found is None or not int(found[1]) < int(found[2]):
        raise InputError(f"--share is {args.share!r}; give K/N with K from 0 to N - 1, such as 0/16.")
    with stopping() as stop, Workspace.open(Path(args.workspace)) as workspace:
        own = share(int(found[1]), int(found[2]), len(workspace.plan))
        tasks = [index for index in workspace.remaining() if index in own]
        print(
            f"gpudecon: {len(tasks)} of the {len(own)} tiles of share {args.share} to do", file=sys.stderr, flush=True
        )
        if tasks:
            worker = Worker(workspace, device=args.device, threads=args.threads)
            with Progress() as progress:
                print(f"gpudecon: {in_this_process(worker, tasks, progress, stop)}", file=sys.stderr)
    return 0
