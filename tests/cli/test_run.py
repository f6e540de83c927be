"""gpudecon run: what it computes is what Python computes, for every layout of channels and time points."""

import numpy as np
import pytest
import tifffile

import gpudecon as gd
from gpudecon.backend.cupy import missing_for_cuda
from gpudecon.errors import InputError

VOXEL_UM = (0.2, 0.1, 0.1)


@pytest.fixture
def python(cli, files):
    """The same restoration in this process."""

    def restore(image, psf=None, method="rl", **options):
        if psf is None and gd.METHODS[method].needs_psf:
            psf = gd.read_psf(cli.folder / "psf.tif", voxel_um=VOXEL_UM)
        options = {"iterations": 5} | options if method == "rl" else options
        settings = {"background": "auto", "voxel_um": VOXEL_UM[-image.ndim :], "device": "cpu"} | options
        return gd.deconvolve(image, psf, method, **settings)

    return restore


def save_imagej(path, values, axes, **metadata):
    """Pixels of 0.1 um and planes 0.2 um apart."""
    tifffile.imwrite(
        path,
        values,
        imagej=True,
        resolution=(10, 10),
        metadata={"axes": axes, "spacing": 0.2, "unit": "um"} | metadata,
    )


SETTINGS = {
    "plain": ("", {}),
    "accelerated": ("--acceleration shb --iterations 7", {"acceleration": "shb", "iterations": 7}),
    "known background": ("--background 90.5", {"background": 90.5}),
    "reflect": ("--edges reflect", {"edges": "reflect"}),
    "periodic": ("--edges periodic", {"edges": "periodic"}),
    "wiener": ("--method wiener", {"method": "wiener"}),
    "wiener ratio": ("--method wiener --noise-to-signal 0.01", {"method": "wiener", "noise_to_signal": 0.01}),
    "wiener spectrum": (
        "--method wiener --noise-to-signal spectrum",
        {"method": "wiener", "noise_to_signal": "spectrum"},
    ),
    "cls": ("--method cls", {"method": "cls"}),
    "cls gcv": ("--method cls --gamma gcv", {"method": "cls", "gamma": "gcv"}),
    "inverse": (
        "--method inverse --threshold 0.2 --below zero",
        {"method": "inverse", "threshold": 0.2, "below": "zero"},
    ),
    "camera": (
        "--camera-offset 90 --camera-gain 2.5 --read-noise 1.5",
        {"camera": gd.Camera(90, 2.5, 1.5), "iterations": 5},
    ),
    "saturation": ("--saturation 300", {"saturation": 300.0, "iterations": 5}),
    "stop": ("--stop auto --iterations 40 --camera-gain 1", {"stop": "auto", "iterations": 40, "camera": gd.Camera()}),
    "cls gamma": ("--method cls --gamma 1e-3 --nonnegative", {"method": "cls", "gamma": 1e-3, "nonnegative": True}),
}


def test_a_process_equals_python(cli, run_line, python, stack):
    cli(run_line)
    np.testing.assert_array_equal(cli.read().volume(), python(stack))


@pytest.mark.parametrize("name", SETTINGS)
def test_equals_python(cli, here, run_line, python, stack, name):
    words, settings = SETTINGS[name]
    line = run_line.replace("--iterations 5", "") if "method" in settings else run_line
    here(f"{line} {words}")
    image = cli.read()
    assert (image.axes, image.dtype, image.voxel_um) == ("zyx", np.float32, VOXEL_UM)
    np.testing.assert_array_equal(image.volume(), python(stack, **settings))


def test_same_bits_again_and_for_any_number_of_threads(cli, run_line):
    outputs = {"again.ome.zarr": "", "one.ome.tif": " --threads 1", "two.ome.tif": " --threads 2"}
    cli(run_line)
    for name, threads in outputs.items():
        cli(run_line.replace("out.ome.zarr", name) + threads)
        np.testing.assert_array_equal(cli.read(name).volume(), cli.read().volume())


FILTERS = {
    "median": ("--size 5 --threshold 3", {"size": 5, "threshold": 3.0}),
    "homomorphic": ("--length-um 1.5 --background auto", {"length_um": 1.5, "background": "auto"}),
}


@pytest.mark.parametrize("method", FILTERS)
@pytest.mark.parametrize("voxel_um", [VOXEL_UM, None])
def test_methods_without_a_psf(cli, here, files, python, stack, method, voxel_um):
    """They ask for no PSF, and for no voxel size either; the camera's level stays in unless it is given."""
    words, settings = FILTERS[method]
    sizes = "" if voxel_um is None else "--voxel-um 0.2 0.1 0.1"
    done = here(f"run stack.tif -o out.ome.zarr --device cpu --method {method} {words} {sizes}")
    assert "warning" not in done.stderr
    image = cli.read()
    assert image.voxel_um == voxel_um
    expected = python(stack, method=method, **({"background": 0.0, "voxel_um": voxel_um} | settings))
    np.testing.assert_array_equal(image.volume(), expected)
    assert "psf" not in image.provenance
    assert image.provenance["settings"]["edges"] is None
    assert image.provenance["settings"]["background"] == settings.get("background", 0.0)


def test_iterations_chosen_for_each_channel(cli, here, psf, stack, rng):
    """The brighter of two channels bears more iterations, all of its time points the same; the record says how many."""
    few, many = (rng.poisson(stack * factor, (2, *stack.shape)) for factor in (0.05, 10.0))
    frames = np.stack([few, many], axis=2).astype(np.uint16)
    save_imagej(cli.folder / "in.tif", frames, "TZCYX")
    tifffile.imwrite(cli.folder / "psf.tif", psf, photometric="minisblack")
    done = here(
        "run in.tif -o out.ome.zarr --psf psf.tif --psf-voxel-um 0.2 0.1 0.1 --device cpu --stop auto --camera-gain 1"
    )
    record = cli.read().provenance
    assert record["settings"]["stop"] == "auto"
    assert record["options"]["iterations"] == 300
    chosen = [(entry["channel"], entry["timepoint"]) for entry in record["stopped"]]
    assert chosen == [(0, 0), (0, 1), (1, 0), (1, 1)]
    counts = [entry["iterations"] for entry in record["stopped"]]
    assert counts[0] == counts[1] < counts[2] == counts[3]
    for channel, count in enumerate(counts[::2]):
        assert f"gpudecon: in.tif, channel {channel}: {count} iterations chosen\n" in done.stderr


@pytest.mark.gpu
def test_on_a_gpu(cli, run_line, python, stack):
    if missing_for_cuda() is not None:
        pytest.skip("no CUDA device")
    cli(run_line.replace("--device cpu", "--device cuda"))
    expected = python(stack)
    np.testing.assert_allclose(cli.read().volume(), expected, rtol=0, atol=1e-5 * expected.max())


def test_channels_of_imagej_into_ome_tiff(cli, here, python, stack):
    channels = np.stack([stack, stack[:, ::-1], stack[:, :, ::-1]], axis=1)
    save_imagej(cli.folder / "in.tif", channels, "ZCYX", Labels=["DAPI", "GFP", "Cy5"])
    here(
        "run in.tif -o out.ome.tif --psf psf.tif --psf-voxel-um 0.2 0.1 0.1 --iterations 5 --device cpu --channels 2,0"
    )
    image = cli.read("out.ome.tif")
    assert (image.axes, image.shape) == ("czyx", (2, *stack.shape))
    assert image.voxel_um == pytest.approx(VOXEL_UM)
    assert [channel.name for channel in image.channels] == ["Cy5", "DAPI"]
    np.testing.assert_array_equal(image.volume(c=0), python(channels[:, 2]))
    np.testing.assert_array_equal(image.volume(c=1), python(channels[:, 0]))


@pytest.mark.filterwarnings("ignore:The image holds structure finer")  # the stack was not made with these optics
def test_wavelengths_of_ome_tiff_and_computed_psfs(cli, here, python, stack):
    channels = (gd.Channel("DAPI", 461, 405, "0000FF"), gd.Channel("far red", 670.5, 640, "FF0000"))
    image = gd.Image(np.stack([stack, stack[::-1]]), "czyx", VOXEL_UM, channels, name="cell 3")
    gd.write(cli.folder / "in.ome.tif", image)
    here("run in.ome.tif -o out.ome.zarr --na 1.2 --immersion-index 1.33 --iterations 5 --device cpu")
    restored = cli.read()
    assert (restored.name, restored.channels, restored.voxel_um) == ("cell 3", channels, VOXEL_UM)
    records = restored.provenance["psf"]
    assert len(records) == 2
    for c, (channel, record) in enumerate(zip(channels, records, strict=True)):
        optics = gd.Optics(na=1.2, emission_nm=channel.emission_nm, immersion_index=1.33)
        psf = gd.theoretical_psf(optics, record["shape"], VOXEL_UM)
        assert record["sha256"] == psf.sha256
        np.testing.assert_array_equal(restored.volume(c=c), python(image.data[c], psf))


def test_a_psf_for_each_channel(cli, here, python, stack, psf):
    tifffile.imwrite(cli.folder / "other.tif", psf[..., ::-1].copy(), photometric="minisblack")
    save_imagej(cli.folder / "in.tif", np.stack([stack, stack], axis=1), "ZCYX")
    here("run in.tif -o out.zarr --psf psf.tif other.tif --psf-voxel-um 0.2 0.1 0.1 --iterations 5 --device cpu")
    image = cli.read("out.zarr")
    mirrored = gd.read_psf(cli.folder / "other.tif", voxel_um=VOXEL_UM)
    np.testing.assert_array_equal(image.volume(c=0), python(stack))
    np.testing.assert_array_equal(image.volume(c=1), python(stack, mirrored))
    assert image.provenance["psf"][1]["sha256"] == mirrored.sha256


@pytest.mark.parametrize(("words", "chosen"), [("", [0, 1]), ("--channels 1,0", [1, 0]), ("--channels 1", [1])])
def test_a_psf_of_as_many_channels_as_the_image(cli, here, python, stack, psf, words, chosen):
    both = np.stack([psf, psf[..., ::-1]], axis=1)
    save_imagej(cli.folder / "both.tif", 7 * both, "ZCYX")
    save_imagej(cli.folder / "in.tif", np.stack([stack, stack[::-1]], axis=1), "ZCYX")
    done = here(f"run in.tif -o out.zarr --psf both.tif --iterations 5 --device cpu {words}")
    assert all(f"both.tif, channel {c}: divided by its sum" in done.stderr for c in chosen)
    image = cli.read("out.zarr")
    for place, c in enumerate(chosen):
        with pytest.warns(gd.GpudeconWarning, match=r"both\.tif: divided by its sum 7"):
            alone = gd.read_psf(cli.folder / "both.tif", channel=c)
        assert np.abs(alone.array - both[:, c]).max() < 1e-3 * psf.max()
        assert image.provenance["psf"][place]["sha256"] == alone.sha256
        np.testing.assert_array_equal(image.volume(c=place), python((stack, stack[::-1])[c], alone))


def test_a_psf_of_other_channels_than_the_image_is_refused(cli, refused_here, stack, psf):
    save_imagej(cli.folder / "both.tif", np.stack([psf, psf], axis=1), "ZCYX")
    words = "-o out.zarr --iterations 5 --device cpu --psf both.tif"
    for channels in (1, 3):
        save_imagej(cli.folder / "in.tif", np.stack([stack] * channels, axis=1), "ZCYX")
        refused_here(f"run in.tif {words}", f"both.tif is a PSF of 2 channels and the image has {channels}")
    save_imagej(cli.folder / "in.tif", np.stack([stack] * 2, axis=1), "ZCYX")
    refused_here(f"run in.tif {words} both.tif", "both.tif is a PSF of 2 channels", "one file per channel")
    with pytest.raises(InputError, match=r"both\.tif has 2 channels; choose one of them by channel="):
        gd.read_psf(cli.folder / "both.tif")


@pytest.mark.filterwarnings("ignore:The image holds structure finer")  # the stack was not made with these optics
def test_excitation_of_each_channel(cli, here, refused_here, stack):
    """From the file or from the options, with the emission of one for all or one for each."""
    wavelengths = [(461, 405), (670, 640)]
    channels = tuple(gd.Channel("", *pair) for pair in wavelengths)
    gd.write(cli.folder / "in.ome.tif", gd.Image(np.stack([stack, stack]), "czyx", VOXEL_UM, channels))
    fields = {"na": 1.2, "immersion_index": 1.33, "modality": "confocal", "pinhole_au": 1.0}
    words = "-o out.ome.zarr --overwrite --device cpu --iterations 1 " + " ".join(
        f"--{name.replace('_', '-')} {value}" for name, value in fields.items()
    )

    def expected(emission_nm, excitation_nm, shape):
        optics = gd.Optics(**fields, emission_nm=emission_nm, excitation_nm=excitation_nm)
        return gd.theoretical_psf(optics, shape, VOXEL_UM).sha256

    for given, pairs in (
        ("", wavelengths),
        ("--channels 1", wavelengths[1:]),
        ("--excitation-nm 400 600", [(461, 400), (670, 600)]),
        ("--excitation-nm 450", [(461, 450), (670, 450)]),
        ("--emission-nm 700", [(700, 405), (700, 640)]),
        ("--emission-nm 700 --excitation-nm 480", [(700, 480)]),
    ):
        here(f"run in.ome.tif {words} {given}")
        records = cli.read().provenance["psf"]
        assert [r["sha256"] for r in records] == [
            expected(*pair, r["shape"]) for pair, r in zip(pairs, records, strict=True)
        ]
    refused_here(f"run in.ome.tif {words} --excitation-nm 400 500 600", "--excitation-nm has 3 values for 2 channels")
    gd.write(cli.folder / "bare.ome.tif", gd.Image(stack, "zyx", VOXEL_UM))
    refused_here(f"run bare.ome.tif {words}", "--emission-nm, --excitation-nm are missing")


@pytest.mark.parametrize(
    ("words", "chosen", "step_s"),
    [
        ("", [0, 1, 2], 1.5),
        ("--timepoints ::2", [0, 2], 3.0),
        ("--timepoints 2::-2", [2, 0], None),
        ("--timepoints -2", [1], 1.5),
    ],
)
def test_time_series(cli, here, python, stack, words, chosen, step_s):
    frames = np.stack([stack, stack[::-1], stack[:, ::-1]])
    save_imagej(cli.folder / "in.tif", frames, "TZYX", finterval=1.5)
    here(f"run in.tif -o out.ome.zarr --psf psf.tif --psf-voxel-um 0.2 0.1 0.1 --iterations 5 --device cpu {words}")
    image = cli.read()
    assert (image.axes, image.shape[0], image.time_step_s) == ("tzyx", len(chosen), step_s)
    assert image.provenance["settings"]["timepoints"] == chosen
    for when, timepoint in enumerate(chosen):  # their common constants are means over them, rounded once more
        expected = python(frames[timepoint])
        np.testing.assert_allclose(image.volume(when), expected, rtol=0, atol=1e-5 * expected.max())


@pytest.mark.parametrize("words", ["--edges periodic", "--method homomorphic"])
def test_time_points_that_do_without_constants(cli, here, files, python, stack, words):
    """What cannot be done in parts is done for each time point as if there were no other."""
    frames = np.stack([stack, 2 * stack])
    save_imagej(cli.folder / "in.tif", frames, "TZYX")
    psf = "" if "homomorphic" in words else "--psf psf.tif --psf-voxel-um 0.2 0.1 0.1 --iterations 5"
    here(f"run in.tif -o out.ome.zarr --device cpu {psf} {words}")
    settings = {"edges": "periodic"} if psf else {"method": "homomorphic", "background": 0.0}
    for when, frame in enumerate(frames):
        np.testing.assert_array_equal(cli.read().volume(when), python(frame, **settings))


@pytest.mark.parametrize("output", ["out.ome.tif", "out.ome.zarr"])
def test_plane(cli, here, python, stack, psf, output):
    plane = psf.sum(axis=0)
    tifffile.imwrite(cli.folder / "plane.tif", stack[4], photometric="minisblack")
    tifffile.imwrite(cli.folder / "psf.tif", plane, photometric="minisblack")
    here(f"run plane.tif -o {output} --psf psf.tif --voxel-um .1 .1 --psf-voxel-um .1 .1 --iterations 5 --device cpu")
    image = cli.read(output)
    assert (image.axes, image.voxel_um) == ("yx", (0.1, 0.1))
    np.testing.assert_array_equal(
        image.volume(), python(stack[4], gd.read_psf(cli.folder / "psf.tif", voxel_um=(0.1, 0.1)))
    )


def test_axes_that_the_file_does_not_say(cli, here, run_line, python, stack):
    values = np.stack([stack, stack[::-1]])[:, None]
    tifffile.imwrite(cli.folder / "stack.tif", values, photometric="minisblack")
    here(f"{run_line} --axes tczyx")
    image = cli.read()
    assert (image.axes, image.shape) == ("tczyx", values.shape)
    alone = python(values[1, 0])  # from a level of its own; a series has one for all time points
    np.testing.assert_allclose(image.volume(1), alone, rtol=0, atol=1e-5 * alone.max())


def test_psf_on_other_voxels_is_resampled(cli, here, run_line, python, stack):
    done = here(run_line.replace("--psf-voxel-um 0.2 0.1 0.1", "--psf-voxel-um 0.1 0.1 0.1"))
    assert "resampled to the image's (0.2, 0.1, 0.1) um" in done.stderr
    psf = gd.read_psf(cli.folder / "psf.tif", voxel_um=(0.1, 0.1, 0.1)).resample(VOXEL_UM)
    np.testing.assert_array_equal(cli.read().volume(), python(stack, psf))
