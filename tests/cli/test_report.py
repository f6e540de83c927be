"""The report: a page that stands alone, whose pictures and numbers are those of the files."""

import base64
import io
import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.image import imread

import gpudecon as gd

VOXEL = (0.2, 0.1, 0.15)
RESTORE = (
    "run in.ome.tif -o out.ome.zarr --psf psf.ome.tif --device cpu --iterations 4 --background 10 --camera-gain 2 "
    "--channels 1,0"
)


class Page(HTMLParser):
    """Texts, pictures by what is said of them, addresses, and the cells of all tables."""

    def __init__(self, path):
        super().__init__()
        self.pictures, self.addresses, self.cells, self.texts, self.tags = {}, [], [], [], []
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs.items() if name in ("src", "href")]
        if tag == "img":
            data = base64.b64decode(attrs["src"].removeprefix("data:image/png;base64,"), validate=True)
            picture = imread(io.BytesIO(data), format="png")[..., :3].sum(axis=2)
            self.pictures.setdefault(attrs["alt"], []).append((picture, int(attrs["width"]), int(attrs["height"])))
        elif tag == "tr":
            self.cells.append([])

    def handle_data(self, data):
        self.texts.append(data)
        if self.cells:
            self.cells[-1].append(data)

    @property
    def words(self):
        return " ".join(" ".join(self.texts).split())

    def row(self, name, number=0):
        return [row for row in self.cells if row and row[0] == name][number]


@pytest.fixture
def specimen(cli):
    """Two channels of (11, 24, 33) with one bright voxel each, at places that a flip would show; a PSF."""
    z, y, x = np.indices((11, 24, 33))
    data = np.full((2, 11, 24, 33), 10, np.uint16)
    for c, (a, b, d) in enumerate(((2, 5, 28), (8, 17, 4))):
        data[c] += np.rint(500 * (c + 1) * np.exp(-((z - a) ** 2 + (y - b) ** 2 + (x - d) ** 2) / 2)).astype(np.uint16)
    channels = (gd.Channel("<script>GFP", 520), gd.Channel("red & far", 600))
    gd.write(cli.folder / "in.ome.tif", gd.Image(data, "czyx", VOXEL, channels, "in"))
    spot = np.exp(-((z[:7, :7, :7] - 3) ** 2 + (y[:7, :7, :7] - 3) ** 2 + (x[:7, :7, :7] - 3) ** 2) / 2)
    gd.write(cli.folder / "psf.ome.tif", gd.Image(spot.astype(np.float32), "zyx", VOXEL))
    return data


def check(page, data, restored, rounding=0.0):
    """Channels are in the order of the output, pictures in proportion and the right way round."""
    assert all(address.startswith("data:") for address in page.addresses)
    assert "script" not in page.tags
    assert page.words.index("red & far") < page.words.index("<script>GFP")
    for position, channel in enumerate((1, 0)):
        for name, stack in (("input", data[channel]), ("restored", restored[position])):
            for words, axis in (("along z", 0), ("along y", 1)):
                picture, width, height = page.pictures[f"{name}, {words}"][position]
                flat = stack.max(axis=axis)
                assert picture.shape == flat.shape
                assert picture[np.unravel_index(flat.argmax(), flat.shape)] == picture.max()
                step = (VOXEL[1] if axis == 0 else VOXEL[0]) / VOXEL[2]
                assert height / width == pytest.approx(flat.shape[0] * step / flat.shape[1], abs=1 / width)
            cells = page.row(name, position)
            said = [float(cell) for cell in cells[1:4]]
            assert said == pytest.approx([stack.min(), stack.mean(), stack.max()], rel=1e-4, abs=1e-4 + rounding)


@pytest.mark.parametrize("output", ["out.ome.zarr", "out.ome.tif"])
def test_a_run_with_its_report(cli, specimen, output):
    said = cli(RESTORE.replace("out.ome.zarr", output) + " --report").stderr
    assert "out.report.html written" in said
    page, restored = Page(cli.folder / "out.report.html"), cli.read(output)
    check(page, specimen, np.asarray(restored.data))
    assert page.row("camera")[1] == "offset 0.0, gain 2.0, read_noise 0.0"
    assert "4 iterations" in page.words
    assert "The point spread function was read from psf.ome.tif, 0." in page.words
    (record,) = re.findall(r"The record in the file (\{.*\})", page.words)
    assert json.loads(record) == json.loads(json.dumps(restored.provenance))


def test_values_of_16_bits_are_those_that_they_stand_for(cli, here, specimen):
    here(RESTORE)
    whole = np.asarray(cli.read().data)
    here(RESTORE.replace("out.", "small.") + " --dtype uint16 --report")
    scale = cli.read("small.ome.zarr").provenance["intensity"]["scale"]
    check(Page(cli.folder / "small.report.html"), specimen, whole, rounding=scale / 2)


def test_the_report_of_an_earlier_output(cli, here, specimen):
    here(RESTORE)
    here("report out.ome.zarr")
    first = (cli.folder / "out.report.html").read_bytes()
    check(Page(cli.folder / "out.report.html"), specimen, np.asarray(cli.read().data))
    assert "exists" in here("report out.ome.zarr", status=2).stderr
    assert (cli.folder / "out.report.html").read_bytes() == first
    shutil.move(cli.folder / "in.ome.tif", cli.folder / "elsewhere.ome.tif")
    assert "give --input" in here("report out.ome.zarr -o alone.html").stderr
    assert {words.split(",")[0] for words in Page(cli.folder / "alone.html").pictures} == {"restored"}
    gd.write(cli.folder / "in.ome.tif", gd.Image(np.ones((3, 4, 5), np.uint8), "zyx"))  # of the same name, another one
    assert "give --input" in here("report out.ome.zarr -o alone.html --overwrite").stderr
    here("report out.ome.zarr --overwrite --input elsewhere.ome.tif")
    assert (cli.folder / "out.report.html").read_bytes() == first


@pytest.mark.usefixtures("specimen")
def test_what_cannot_be_reported(cli, here):
    assert "no record of a restoration" in here("report in.ome.tif", status=2).stderr
    here(RESTORE)
    assert "stacks of shape (7, 7, 7)" in here("report out.ome.zarr --input psf.ome.tif", status=2).stderr
    gd.write(cli.folder / "one.ome.tif", gd.Image(np.ones((11, 24, 33), np.uint8), "zyx"))
    assert "has 1 channels" in here("report out.ome.zarr --input one.ome.tif", status=2).stderr
    assert "ends in .html" in here("report out.ome.zarr -o in.ome.tif --overwrite", status=2).stderr
    assert "its folder is not there" in here("report out.ome.zarr -o no/page.html", status=2).stderr
    (cli.folder / "kept.report.html").write_text("mine")
    said = here(RESTORE.replace("out.", "kept.") + " --report", status=2).stderr
    assert "kept.report.html exists" in said
    assert not (cli.folder / "kept.ome.zarr").exists()  # refused before the work
    assert (cli.folder / "kept.report.html").read_text() == "mine"


def test_direct_filters_know_no_outside(cli, here, specimen):
    here("run in.ome.tif -o out.ome.zarr --psf psf.ome.tif --device cpu --method wiener --report")
    page = Page(cli.folder / "out.report.html")
    assert "continued by its mirror image" in page.words
    assert "light from outside" not in page.words


def test_every_warning_is_on_the_page(cli, here, run_line):
    (cli.folder / "psf.tif").unlink()
    z, y, x = np.indices((7, 9, 9))  # on a background, off its centre: both are mended, and said
    spot = 1000 * np.exp(-((z - 4) ** 2 + (y - 4) ** 2 + (x - 5) ** 2) / 3) + 100
    gd.write(cli.folder / "psf.tif", gd.Image(spot.astype(np.uint16), "zyx"))
    here(run_line + " --report")
    page, said = Page(cli.folder / "out.report.html"), cli.read().provenance["warnings"]
    assert said
    above = page.words.partition("The record in the file")[0]
    assert all(" ".join(warning.split()) in above for warning in said)
    assert "No warnings." not in above
