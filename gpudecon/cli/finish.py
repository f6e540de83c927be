"""gpudecon finish: the output of a run whose tiles others have restored."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpudecon.errors import RunError

if TYPE_CHECKING:
    from gpudecon.engine.workspace import Workspace

MOST_NAMED = 10


def add_parser(verbs: Any) -> None:
    """Describe the verb and its options."""
    parser: argparse.ArgumentParser = verbs.add_parser(
        "finish",
        help="make the output of a prepared run whose tiles are all done",
        description="Make the pyramid and the metadata of a run that `gpudecon submit` has prepared, and move the "
        "output into its place; where tiles are missing, say which.",
    )
    parser.set_defaults(act=act)
    parser.add_argument("workspace", metavar="WORKSPACE", help="the folder .NAME.gpudecon beside the output")
    parser.add_argument("--verify", action="store_true", help="read all that was written again and compare checksums")


def act(args: argparse.Namespace) -> int:
    """Carry out the verb."""
    from gpudecon.cli.stopping import stopping
    from gpudecon.engine.finish import finish
    from gpudecon.engine.workspace import Workspace

    with stopping() as stop, Workspace.open(Path(args.workspace), alone=True) as workspace:
        _check_complete(workspace)
        finish(workspace, verify=args.verify, stop=stop)
        print(f"gpudecon: {workspace.plan.output} written: {len(workspace.plan)} tiles", file=sys.stderr)
    return 0


def _check_complete(workspace: Workspace) -> None:
    from gpudecon.engine.tile import name_of

    plan = workspace.plan
    missing = [] if workspace.completed else workspace.remaining()
    if not missing:
        return
    names = [name_of(plan, plan.task(index)) for index in missing[:MOST_NAMED]]
    more = ", ..." if len(missing) > MOST_NAMED else ""
    raise RunError(
        f"{len(missing)} of {len(plan)} tiles are not restored: {'; '.join(names)}{more}. What happened is in "
        f"{workspace.folder / 'slurm'}; go on by gpudecon submit with the same options and --resume."
    )
