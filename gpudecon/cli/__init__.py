"""The command line: one file per verb.  Errors are one sentence on stderr and an exit status."""

from __future__ import annotations

import argparse
import signal
import sys
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

from gpudecon._version import __version__
from gpudecon.errors import GpudeconError, StoppedError


class _Parser(argparse.ArgumentParser):
    def __init__(self, **options: Any) -> None:
        """Without abbreviations: what says how to go on looks for the options by their names."""
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """One sentence instead of the whole usage."""
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0, 1 failed, 2 bad input, 75 stopped, 130 interrupted, 143 ended.

    75, the EX_TEMPFAIL of sysexits.h, says that the run was asked to stop by SIGTERM or SIGUSR1 and can be resumed.
    """
    from gpudecon.cli import demo, doctor, finish, plan, psf, report, run, submit, work

    parser = _Parser(
        prog="gpudecon", description="Restore 3-D fluorescence microscopy: quantitative deconvolution on GPU and CPU."
    )
    parser.add_argument("--version", action="version", version=f"gpudecon {__version__}")
    verbs = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)
    for verb in (run, plan, submit, work, finish, report, psf, demo, doctor):
        verb.add_parser(verbs)
    args = parser.parse_args(argv)
    warnings.showwarning = _show_warning
    signal.signal(signal.SIGTERM, _terminate)
    try:
        status: int = args.act(args)
    except GpudeconError as error:
        print(f"gpudecon: {'' if isinstance(error, StoppedError) else 'error: '}{error}", file=sys.stderr)
        return error.exit_status
    except MemoryError as error:
        print(f"gpudecon: error: out of memory ({error}); use a smaller image or PSF.{_notes(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as error:
        print(f"gpudecon: interrupted{_notes(error)}", file=sys.stderr)
        return 130
    except SystemExit as error:
        if notes := _notes(error):
            print(f"gpudecon: ended{notes}", file=sys.stderr)
        raise
    except BrokenPipeError:
        sys.stderr.close()  # whoever read our output has gone; there is nobody to tell
        return 1
    return status


def _notes(error: BaseException) -> str:
    """What was added to an error on its way: where it came up, and how to go on."""
    return "".join(f" {note}" for note in getattr(error, "__notes__", ()))


def _terminate(number: int, _: object) -> NoReturn:
    """End as a scheduler or container asks for, but by way of the clean-up of half-written outputs."""
    sys.exit(128 + number)


def _show_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    from tqdm import tqdm

    tqdm.write(f"gpudecon: warning: {message}", file=sys.stderr)
