"""gpudecon report: a page of HTML on a restored image."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpudecon.errors import InputError, RunError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gpudecon.image import Image


def add_parser(verbs: Any) -> None:
    """Describe the verb and its options."""
    parser: argparse.ArgumentParser = verbs.add_parser(
        "report",
        help="write a page of HTML on a restored image",
        description="Write one page of HTML that needs no other file: pictures of input and restored image, warnings, "
        "intensities, what was done with what, and a text for a methods section.",
    )
    parser.set_defaults(act=act)
    parser.add_argument("image", metavar="OUTPUT", help="what gpudecon has restored")
    parser.add_argument("-o", "--page", metavar="PAGE", help="default: NAME.report.html beside NAME.ome.zarr")
    parser.add_argument("--input", metavar="INPUT", help="what it was made of (default: the file of that name beside)")
    parser.add_argument("--axes", help="order of the input's axes, where its file does not say")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing page")


def act(args: argparse.Namespace) -> int:
    """Carry out the verb."""
    from gpudecon.io import read

    page = Path(args.page) if args.page else page_of(args.image)
    check_page(page, replaces=args.overwrite)
    output = read(args.image)
    if args.input is not None:
        source: Image | None = read(args.input, axes=args.axes)
    else:
        source = _source_beside(output, Path(args.image).parent, args.axes)
        if source is None:
            print("gpudecon: the input is not beside the output; give --input to picture it, too", file=sys.stderr)
    write_report(page, output, source)
    print(f"gpudecon: {page} written", file=sys.stderr)
    return 0


def _source_beside(output: Image, folder: Path, axes: str | None) -> Image | None:
    """What lies in a folder under the input's name, if the output can have been made of it."""
    from gpudecon.io import read
    from gpudecon.quality.report import check_source

    try:
        source = read(folder / output.provenance["source"], axes=axes)
        check_source(source, output)
    except (InputError, KeyError):
        return None
    return source


def page_of(output: str) -> Path:
    """Where the page of an output is put unless another place is asked for."""
    path = Path(output)
    return path.with_name(re.sub(r"(\.ome)?\.[^.]+$", "", path.name) + ".report.html")


def check_page(page: Path, *, replaces: bool) -> None:
    """InputError where the page cannot be written."""
    if page.suffix not in (".html", ".htm"):
        raise InputError(f"The page is {page}; give a name that ends in .html.")
    if page.is_dir() or not page.parent.is_dir():
        raise InputError(f"The page {page} cannot be written: it is a folder, or its folder is not there.")
    if page.exists() and not replaces:
        raise InputError(f"The page {page} exists; choose another name or ask to overwrite it.")


def write_report(
    page: Path, output: Image, source: Image | None, others: Mapping[str, Image] | None = None, remark: str = ""
) -> None:
    """Put the page where it is to be; see `gpudecon.quality.report.report_page`."""
    from gpudecon.io.durable import write_durably
    from gpudecon.quality.report import report_page

    text = report_page(output, source, others, remark)
    try:
        write_durably(page, text.encode())
    except OSError as error:
        raise RunError(f"The page {page} cannot be written: {error.strerror or error}.") from error
