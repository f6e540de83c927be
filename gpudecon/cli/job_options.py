"""What is to be restored and how, on the command line: options of run, plan and submit, and the job they describe."""

from __future__ import annotations

import argparse
import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpudecon.backend import get_backend
from gpudecon.camera import Camera
from gpudecon.cli.method_options import add_method_options, method_options
from gpudecon.cli.optics_options import OF_CHANNELS, add_optics_options, optics_options
from gpudecon.deconvolve import MOST_ITERATIONS
from gpudecon.errors import GpudeconWarning, InputError
from gpudecon.forward import EDGES
from gpudecon.image import Image, checked_voxel_um
from gpudecon.methods import METHODS, Method, make_method
from gpudecon.optics import Optics, needs_excitation
from gpudecon.psf.psf import PSF

if TYPE_CHECKING:
    from gpudecon.engine.job import Job
    from gpudecon.engine.plan import Plan


def add_job_options(parser: argparse.ArgumentParser) -> None:
    """Input, output, point spread function, method, camera, device."""
    parser.add_argument("input", metavar="INPUT", help="image file or OME-Zarr folder")
    parser.add_argument("-o", "--output", required=True, metavar="OUTPUT", help=".ome.zarr, .zarr, .ome.tif or .tif")
    parser.add_argument("--axes", help="order of the input's axes, such as tczyx, where the file does not say")
    parser.add_argument("--voxel-um", type=float, nargs="+", metavar="UM", help="voxel size of the image: z y x")
    parser.add_argument("--channels", metavar="LIST", help="channels to restore, such as 0,2 (default: all)")
    parser.add_argument("--timepoints", metavar="A:B:S", help="time points, as a slice or a number (default: all)")

    psf = parser.add_argument_group("point spread function")
    psf.add_argument(
        "--psf",
        nargs="+",
        metavar="FILE",
        help="one PSF for all channels or one for each (as files, or as the channels of one file)",
    )
    psf.add_argument("--psf-voxel-um", type=float, nargs="+", metavar="UM", help="its voxel size: z y x")
    add_optics_options(parser, several_channels=True)

    what = parser.add_argument_group("restoration")
    what.add_argument("--method", default="rl", choices=list(METHODS), help="default rl")
    what.add_argument(
        "--background",
        metavar="auto|NUMBER",
        help="the camera's level without light, which is taken off (default auto; 0 for methods without a PSF)",
    )
    what.add_argument("--edges", default="extend", choices=EDGES, help="default extend")
    what.add_argument(
        "--stop",
        default="fixed",
        choices=("fixed", "auto"),
        help="auto: choose the number of iterations for each channel from its noise, at most --iterations "
        f"(then {MOST_ITERATIONS} by default)",
    )
    what.add_argument("--saturation", type=float, metavar="NUMBER", help="grey value from which voxels are left out")
    add_method_options(parser)

    camera = parser.add_argument_group("camera", "(where it is known)")
    camera.add_argument("--camera-gain", type=float, metavar="NUMBER", help="grey values per photo-electron")
    camera.add_argument("--camera-offset", type=float, metavar="NUMBER", help="grey value without light (default 0)")
    camera.add_argument(
        "--read-noise", type=float, metavar="NUMBER", help="standard deviation in electrons (default 0)"
    )

    how = parser.add_argument_group("device and output")
    how.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    how.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: all cores this process may use)")
    how.add_argument("--dtype", default="float32", choices=("float32", "uint16"), help="uint16: one recorded scale")
    how.add_argument("--ngff", choices=("0.4", "0.5"), help="version of OME-Zarr to write (default 0.5)")
    how.add_argument(
        "--tile",
        type=int,
        nargs=3,
        metavar=("Z", "Y", "X"),
        help="size of a tile's core in voxels, rounded up to whole chunks (default: the cheapest that fits)",
    )
    how.add_argument(
        "--memory",
        metavar="SIZE",
        help="the most memory to use, such as 4GiB or 500MB: of a GPU's, or on the CPU of the whole process (default: "
        "what is free on a GPU, half of what is free here)",
    )


def job_of(args: argparse.Namespace) -> Job:
    """The job that the options describe."""
    from gpudecon.engine.job import Job
    from gpudecon.engine.remarks import noted_warnings
    from gpudecon.io import read

    method = _method(args)
    background = _background(args.background, method)
    camera = _camera(args)
    with noted_warnings() as said:
        image = _with_voxel_size(read(args.input, axes=args.axes), args, is_needed=method.needs_psf)
        channels = _channels(args.channels, image)
        psfs = _psfs(args, image, channels) if method.needs_psf else _no_psfs(args)
    return Job(
        image=image,
        path=args.input,
        axes=args.axes,
        psfs=psfs,
        method=method,
        background=background,
        camera=camera,
        saturation=args.saturation,
        stop=args.stop,
        edges=args.edges,
        device=args.device,
        threads=args.threads,
        channels=channels,
        timepoints=_timepoints(args.timepoints, image),
        dtype=args.dtype,
        remarks=tuple(said),
    )


def plan_of(job: Job, args: argparse.Namespace, *, processes: int = 1) -> Plan:
    """Its tasks, as the options of memory, tile and output want them; ``processes`` share the memory."""
    from gpudecon.engine.plan import plan_job

    memory = _bytes(args.memory)
    if processes > 1:
        memory = (memory or get_backend("cpu").memory()[0] // 2) // processes
    tile = args.tile and tuple(args.tile)
    return plan_job(job, args.output, ngff=args.ngff or "0.5", tile=tile, memory=memory)


def check_format(args: argparse.Namespace, *, replaces: bool) -> None:
    """InputError where the output cannot be written as it was asked for."""
    from gpudecon.io import check_output

    output_format = check_output(args.output, overwrite=replaces)
    if args.ngff is not None and output_format != "OME-Zarr":
        raise InputError(f"--ngff is a version of OME-Zarr, but {args.output} becomes {output_format}; leave it out.")


def _bytes(text: str | None) -> int | None:
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(?:([KMGT])(i?B?))?", text, re.IGNORECASE)
    if found is None or float(found[1]) == 0:
        raise InputError(f"--memory is {text!r}; give a size such as 4GiB, 500MB or a number of bytes.")
    step = 1000 if (found[3] or "").upper() == "B" else 1024
    return int(float(found[1]) * step ** (" KMGT".index((found[2] or " ").upper())))


def _method(args: argparse.Namespace) -> Method:
    options = method_options(args)
    if args.stop != "fixed" and "iterations" in METHODS[args.method].__dataclass_fields__:
        options = {"iterations": MOST_ITERATIONS} | options
    return make_method(args.method, options)


def _camera(args: argparse.Namespace) -> Camera | None:
    given = {"offset": args.camera_offset, "gain": args.camera_gain, "read_noise": args.read_noise}
    given = {name: value for name, value in given.items() if value is not None}
    if not given:
        return None
    if "gain" not in given:
        raise InputError("A camera needs its gain: give --camera-gain, in grey values per photo-electron.")
    return Camera(**given)


def _background(text: str | None, method: Method) -> Any:
    if text is None:
        return "auto" if method.needs_psf else 0.0
    if text == "auto":
        return text
    try:
        return float(text)
    except ValueError:
        raise InputError(f"--background is {text!r}; give a number in the image's units, or auto.") from None


def _with_voxel_size(image: Image, args: argparse.Namespace, *, is_needed: bool) -> Image:
    if args.voxel_um is not None:
        sizes = checked_voxel_um(args.voxel_um, len(image.spatial_axes), "--voxel-um")
        return replace(image, voxel_um=sizes)
    if image.voxel_um is None and is_needed:
        wanted = "Z Y X" if len(image.spatial_axes) == 3 else "Y X"
        raise InputError(f"{args.input} does not say its voxel size; give --voxel-um {wanted} in micrometres.")
    return image


def _channels(text: str | None, image: Image) -> tuple[int, ...]:
    count = image.sizes["c"]
    if text is None:
        return tuple(range(count))
    try:
        chosen = tuple(int(part) for part in text.split(","))
    except ValueError:
        chosen = ()
    if not chosen or not all(0 <= c < count for c in chosen) or len(set(chosen)) < len(chosen):
        raise InputError(f"--channels is {text!r}; give different numbers from 0 to {count - 1}, separated by commas.")
    return chosen


def _timepoints(text: str | None, image: Image) -> tuple[int, ...]:
    count = image.sizes["t"]
    if text is None:
        return tuple(range(count))
    try:
        parts = [int(part) if part else None for part in text.split(":")]
        whole = range(count)
        chosen = tuple(whole[slice(*parts)]) if len(parts) > 1 else (whole[int(text)],)
    except (ValueError, IndexError, TypeError):
        chosen = ()
    if not chosen:
        raise InputError(f"--timepoints is {text!r}; give a slice A:B:S or a number within the {count} there are.")
    return chosen


def _no_psfs(args: argparse.Namespace) -> tuple[PSF, ...]:
    """Nothing, for a method that needs no PSF; one that is given would be a misunderstanding."""
    given = [name for name in ("psf", "psf_voxel_um") if getattr(args, name) is not None]
    flags = ["--" + name.replace("_", "-") for name in [*given, *optics_options(args)]]
    if flags:
        raise InputError(
            f"{', '.join(flags)} {'was' if len(flags) == 1 else 'were'} given, but {args.method} needs no PSF; "
            "leave them out."
        )
    return ()


def _psfs(args: argparse.Namespace, image: Image, channels: tuple[int, ...]) -> tuple[PSF, ...]:
    given = optics_options(args)
    if args.psf and given:
        flags = ", ".join("--" + name.replace("_", "-") for name in given)
        raise InputError(f"--psf and {flags} were given; a PSF is either measured or computed, so give one of the two.")
    if args.psf:
        return _measured(args, image, channels)
    if args.psf_voxel_um is not None:
        raise InputError("--psf-voxel-um was given without --psf.")
    return _theoretical(given, image, channels)


def _measured(args: argparse.Namespace, image: Image, channels: tuple[int, ...]) -> tuple[PSF, ...]:
    """One PSF for each file, or for each chosen channel of a file that has all channels of the image or only those."""
    from gpudecon.io import read

    psfs = []
    for path in args.psf:
        count = read(path).sizes["c"]
        if count > 1 and (len(args.psf) > 1 or count not in (image.sizes["c"], len(channels))):
            raise InputError(
                f"{path} is a PSF of {count} channels and the image has {image.sizes['c']}; give one file per channel, "
                "or a single one with as many channels as the image has or are chosen."
            )
        for c in channels if count == image.sizes["c"] else range(count):
            name = Path(path).name + (f", channel {c}" if count > 1 else "")
            psfs.append(_measured_psf(args, image, path, c, name))
    return tuple(psfs)


def _measured_psf(args: argparse.Namespace, image: Image, path: str, channel: int, name: str) -> PSF:
    from gpudecon.io.psf_file import is_finished, psf_of, read_stack
    from gpudecon.psf.check import check_psf

    stack = read_stack(path, channel)
    # what reading repairs it also says; a cut-off peak is no longer seen afterwards
    lost = [] if is_finished(stack) else [finding for finding in check_psf(stack.data) if finding.name == "saturated"]
    psf = psf_of(stack, name)
    if psf.array.ndim != len(image.spatial_axes):
        raise InputError(
            f"{path} is a PSF of {psf.array.ndim} dimensions, shape {psf.shape}, but the image's stacks have "
            f"{len(image.spatial_axes)}, shape {image.spatial_shape}; give a PSF of the same dimensions."
        )
    if args.psf_voxel_um is not None:
        psf = replace(psf, voxel_um=checked_voxel_um(args.psf_voxel_um, psf.array.ndim, "--psf-voxel-um"))
    if psf.voxel_um is None:
        raise InputError(
            f"{path} does not say its voxel size; give --psf-voxel-um (that of the image, if it was taken alike)."
        )
    for finding in [*check_psf(psf, image_voxel_um=image.voxel_um), *lost]:
        if finding.severity == "fatal":
            raise InputError(f"{name}: {finding}")
        if finding.severity == "warning":
            warnings.warn(f"{name}: {finding}", GpudeconWarning, stacklevel=2)
    return psf


def _theoretical(given: dict[str, Any], image: Image, channels: tuple[int, ...]) -> tuple[PSF, ...]:
    from gpudecon.psf.theory import psf_window, theoretical_psf

    wanted = OF_CHANNELS if needs_excitation(given) else ("emission_nm",)
    wavelengths = {name: given.pop(name) for name in OF_CHANNELS if name in given}
    for name in wanted:
        of_file = [getattr(image.channels[c], name) for c in channels] if image.channels else [None]
        if name not in wavelengths and all(of_file):
            wavelengths[name] = of_file
    missing = [
        "--" + name.replace("_", "-")
        for name in ("na", "immersion_index", *wanted)
        if name not in given and name not in wavelengths
    ]
    if missing:
        raise InputError(
            f"A PSF is needed: give --psf FILE, or the optics, of which {', '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} missing."
        )
    for name, values in wavelengths.items():
        if len(values) not in (1, len(channels)):
            raise InputError(
                f"--{name.replace('_', '-')} has {len(values)} values for {len(channels)} channels; give one for all "
                "or one for each."
            )
    psfs = []
    assert image.voxel_um is not None  # asked for before
    for i in range(max(map(len, wavelengths.values()))):
        of_channel = {name: values[i % len(values)] for name, values in wavelengths.items()}
        optics = Optics(**given, **of_channel)
        shape = psf_window(optics, image.spatial_shape, image.voxel_um)
        psfs.append(theoretical_psf(optics, shape, image.voxel_um))
    return tuple(psfs)
