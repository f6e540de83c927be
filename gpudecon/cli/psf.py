"""gpudecon psf: make a PSF from theory or from beads, or check one."""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from gpudecon._version import __version__
from gpudecon.cli.optics_options import add_optics_options, optics_of, optics_options
from gpudecon.errors import InputError
from gpudecon.image import Channel, Image
from gpudecon.optics import Optics
from gpudecon.psf.theory import Model

if TYPE_CHECKING:
    from gpudecon.psf.beads import DistilledPSF
    from gpudecon.psf.psf import PSF


def add_parser(verbs: Any) -> None:
    """Describe the verb, its three tasks and their options."""
    parser: argparse.ArgumentParser = verbs.add_parser(
        "psf", help="make a PSF from theory or from beads, or check one", description="Make or check a PSF."
    )
    tasks = parser.add_subparsers(metavar="TASK", required=True, parser_class=type(parser))

    theory = tasks.add_parser(
        "theory",
        help="compute a PSF from the optics",
        description="Compute a PSF from the optics; write it with a picture of it beside it (.png).",
    )
    theory.set_defaults(act=act_theory)
    _add_output(theory)
    theory.add_argument("--shape", type=int, nargs="+", required=True, metavar="N", help="voxels: z y x, or y x")
    theory.add_argument("--voxel-um", type=float, nargs="+", required=True, metavar="UM", help="voxel size: z y x")
    theory.add_argument("--model", choices=get_args(Model), default="vectorial", help="default vectorial")
    add_optics_options(theory)

    beads = tasks.add_parser(
        "beads",
        help="distil a PSF from a stack of beads",
        description="Distil one PSF from a stack of many beads; say of each bead why it was not used; write the PSF "
        "with its quality figures and a picture of it beside it (.png).",
    )
    beads.set_defaults(act=act_beads)
    beads.add_argument("input", metavar="INPUT", help="stack of beads")
    _add_output(beads)
    beads.add_argument("--channel", type=int, default=0, metavar="N", help="default 0")
    beads.add_argument("--voxel-um", type=float, nargs=3, metavar="UM", help="voxel size of the stack: z y x")
    beads.add_argument("--bead-diameter-um", type=float, metavar="UM", help="take the size of the beads out of the PSF")
    beads.add_argument("--image-voxel-um", type=float, nargs=3, metavar="UM", help="voxels of the images it is for")
    beads.add_argument("--extent-um", type=float, nargs=3, metavar="UM", help="size of the PSF: z y x")
    beads.add_argument("--radial-average", action="store_true", help="average over the angle: only for a round PSF")
    beads.add_argument("--energy", type=float, default=0.999, help="fraction of the light to keep (default 0.999)")
    beads.add_argument("--saturation", type=float, metavar="GREY", help="highest value of the camera (default: found)")
    add_optics_options(beads)

    check = tasks.add_parser(
        "check",
        help="say what is wrong with a PSF",
        description="Say what is wrong with the PSF in a file, as it is and for an image and its optics. The exit "
        "status is 2 where it cannot be used, else 0.",
    )
    check.set_defaults(act=act_check)
    check.add_argument("input", metavar="PSF", help="PSF file")
    check.add_argument("--channel", type=int, default=0, metavar="N", help="default 0")
    check.add_argument("--voxel-um", type=float, nargs="+", metavar="UM", help="voxel size of the PSF: z y x")
    check.add_argument("--image-voxel-um", type=float, nargs="+", metavar="UM", help="that of the image to restore")
    check.add_argument("--json", action="store_true", help="print the findings as JSON")
    add_optics_options(check)


def act_theory(args: argparse.Namespace) -> int:
    """Carry out ``psf theory``."""
    from gpudecon.psf.theory import theoretical_psf

    optics = optics_of(optics_options(args), "A theoretical PSF")
    picture = _checked_outputs(args)
    psf = theoretical_psf(optics, tuple(args.shape), tuple(args.voxel_um), model=args.model)
    record = {"optics": optics.record, "model": args.model}
    _save(args, picture, psf, f"{args.model}, {optics.modality}, NA {optics.na:g}", optics, "psf theory", record)
    return 0


def act_beads(args: argparse.Namespace) -> int:
    """Carry out ``psf beads``."""
    from gpudecon.engine.remarks import noted_warnings
    from gpudecon.io.psf_file import read_stack
    from gpudecon.psf.beads import distill_psf

    given = optics_options(args)
    optics = optics_of(given, "Distilling with optics") if given else None
    picture = _checked_outputs(args)
    image = read_stack(args.input, args.channel)
    voxel = args.voxel_um or image.voxel_um
    if voxel is None:
        raise InputError(f"{args.input} does not say its voxel size; give --voxel-um Z Y X in micrometres.")
    with noted_warnings() as said:
        psf = distill_psf(
            image.data,
            voxel_um=tuple(voxel),
            optics=optics,
            bead_diameter_um=args.bead_diameter_um,
            image_voxel_um=None if args.image_voxel_um is None else tuple(args.image_voxel_um),
            extent_um=None if args.extent_um is None else tuple(args.extent_um),
            radial_average=args.radial_average,
            energy=args.energy,
            saturation=args.saturation,
        )
    record = {
        "source": Path(args.input).name,
        "optics": None if optics is None else optics.record,
        "bead_diameter_um": args.bead_diameter_um,
        "radial_average": args.radial_average,
        "energy": args.energy,
        "quality": asdict(psf.qc),
        "beads": [asdict(bead) for bead in psf.beads],
        "warnings": said,
    }
    print(_report(psf))
    title = f"{psf.qc.beads_used} of {psf.qc.beads_found} beads of {Path(args.input).name}"
    _save(args, picture, psf, title, optics, "psf beads", record)
    return 0


def act_check(args: argparse.Namespace) -> int:
    """Carry out ``psf check``."""
    from gpudecon.io.psf_file import read_stack
    from gpudecon.psf.check import findings

    image = read_stack(args.input, args.channel)
    given = optics_options(args)
    optics = optics_of(given, "Checking against optics") if given else None
    found = findings(image.data, args.voxel_um or image.voxel_um, args.image_voxel_um, optics, is_resampled=True)
    if args.json:
        print(json.dumps([asdict(finding) for finding in found], indent=2))
    else:
        for finding in found:
            print(f"{finding.severity}: {finding.name}: {finding}")
        if not found:
            print("nothing is wrong with it" + ("" if optics else "; give the optics to check it against them"))
    return 2 if any(finding.severity == "fatal" for finding in found) else 0


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", required=True, metavar="OUTPUT", help=".ome.zarr, .zarr, .ome.tif or .tif")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output and its picture")


def _checked_outputs(args: argparse.Namespace) -> Path:
    """The path of the picture, where neither it nor the output is in the way."""
    from gpudecon.io import check_output

    check_output(args.output, overwrite=args.overwrite)
    output = Path(args.output)
    stem = output.name
    for suffix in (".ome.zarr", ".zarr", ".ome.tif", ".ome.tiff", ".tif", ".tiff"):
        if stem.lower().endswith(suffix):
            stem = stem[: -len(suffix)]
            break
    picture = output.with_name(f"{stem}.png")
    if picture.exists() and not args.overwrite:
        raise InputError(f"The output {picture} exists; choose another name or ask to overwrite it.")
    return picture


def _save(
    args: argparse.Namespace,
    picture: Path,
    psf: PSF,
    title: str,
    optics: Optics | None,
    command: str,
    record: dict[str, Any],
) -> None:
    """The PSF with its record, and its picture."""
    from gpudecon.io import write
    from gpudecon.psf.otf_support import otf_support
    from gpudecon.quality.psf_figure import save_psf_figure

    assert psf.voxel_um is not None
    channels = () if optics is None else (Channel("PSF", optics.emission_nm, optics.excitation_nm),)
    array = psf.array[None] if channels else psf.array
    axes = ("c" if channels else "") + "zyx"[-psf.array.ndim :]
    provenance = {
        "version": __version__,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": command,
        **record,
        "psf": {"sha256": psf.sha256, "shape": list(psf.shape), "voxel_um": list(psf.voxel_um)},
    }
    image = Image(array, axes, psf.voxel_um, channels, "PSF")
    write(args.output, image, overwrite=args.overwrite, provenance=provenance)
    save_psf_figure(picture, psf, title, None if optics is None else otf_support(optics))
    print(f"gpudecon: {args.output} and {picture} written", file=sys.stderr)


def _report(psf: DistilledPSF) -> str:
    """What was found, why beads were left out, and what the PSF is like."""
    qc = psf.qc
    lines = [f"{qc.beads_used} of {qc.beads_found} beads used"]
    for bead in psf.beads:
        if bead.rejected is not None:
            place = ", ".join(f"{p:.2f}" for p in bead.position_um)
            lines.append(f"  not used: ({place}) um: {bead.rejected}")
    lines.append("full width at half maximum z, y, x: " + ", ".join(f"{w:.3f}" for w in qc.fwhm_um) + " um")
    if qc.theory_ratio is not None:
        lines.append("  over that of theory: " + ", ".join(f"{r:.2f}" for r in qc.theory_ratio))
        lines.append(f"correlation with theory: {qc.theory_correlation:.4f}")
    lines.append(f"longest over shortest lateral width: {qc.asymmetry:.3f}")
    lines.append(f"axial skew: {qc.axial_skew:+.3f}")
    lines.append(f"signal over background: {qc.signal_to_background:.2f}")
    return "\n".join(lines)
