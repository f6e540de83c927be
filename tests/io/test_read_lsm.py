"""LSM and STK as Zeiss and MetaMorph write them, and parts of an OME-TIFF: what the TIFF's private tags say."""

import struct
import uuid
import warnings

import numpy as np
import pytest
import tifffile

from gpudecon import io
from gpudecon.errors import InputError
from gpudecon.image import Channel


@pytest.fixture
def values(rng):
    """(t, c, z, y, x)."""
    return rng.integers(1, 60000, (2, 3, 4, 17, 19)).astype("u2")


def lsm(path, values, *, seconds=0.5, colors=True):
    """An LSM file of (t, c, z, y, x): pages of all channels for each plane, each followed by a thumbnail."""
    names, rgb = (b"Ch1-T1\0", b"Ch2\0", b"Ch3\0"), b"\xff\0\0\0\0\xff\x10\0\0\0\xff\0"
    texts = b"".join(struct.pack("<I", len(name)) + name for name in names)
    shown = struct.pack("<6I", 24 + len(rgb) + len(texts), 3, 3, 24, 24 + len(rgb), 0) + rgb + texts
    said = np.zeros(1, np.dtype(tifffile.TIFF.CZ_LSMINFO).newbyteorder("<"))
    t, c, z, y, x = values.shape
    for name, value in {
        "MagicNumber": 67127628, "StructureSize": said.itemsize, "DimensionX": x, "DimensionY": y, "DimensionZ": z,
        "DimensionChannels": c, "DimensionTime": t, "VoxelSizeX": 1e-7, "VoxelSizeY": 1.1e-7, "VoxelSizeZ": 3e-7,
        "TimeIntervall": seconds, "ScanType": 6, "DataType": 2,
    }.items():  # fmt: skip
        said[name] = value
    with tifffile.TiffWriter(path, byteorder="<") as file:
        for n, planes in enumerate(values.swapaxes(1, 2).reshape(-1, c, y, x)):
            own = [(65000, 1, len(shown), shown, True), (34412, 1, said.nbytes, said.tobytes(), True)] if n == 0 else []
            same = {"metadata": None, "software": None, "contiguous": False, "photometric": "minisblack"}
            file.write(planes, planarconfig="separate", extratags=own, **same)
            file.write(np.zeros((c, 4, 5), "u1"), planarconfig="separate", subfiletype=1, **same)
    tag = places(path)
    if colors:
        with path.open("r+b") as file:
            file.seek(tag[34412] + said.dtype.fields["OffsetChannelColors"][1])
            file.write(struct.pack("<I", tag[65000]))


def places(path):
    """Where the values of the first page's tags are; read without tifffile, which would say what is not right yet."""
    content = path.read_bytes()
    (first,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, first)
    entries = [struct.unpack_from("<HHII", content, first + 2 + 12 * n) for n in range(count)]
    return {code: place for code, _, _, place in entries}


def stk(path, values, steps, unit=b"um\0", calibrated=1):
    """A stack (z, y, x) in one page with the tags of MetaMorph; voxels of 0.11 and 0.1 along y and x."""
    planes = np.array([[round(step * 1000), 1000, 2459000, n, 2459000, n] for n, step in enumerate(steps)], "<u4")
    texts = struct.pack("<4I", 100, 1000, 110, 1000) + struct.pack("<I", len(unit)) + unit
    own = [(33628, 4, 8, (0,) * 8, True), (33629, 4, planes.size, planes.ravel().tolist(), True)]
    own += [(65000, 1, len(texts), texts, True)]
    tifffile.imwrite(path, values[0], metadata=None, software=None, photometric="minisblack", extratags=own)
    content, tag = bytearray(path.read_bytes()), places(path)
    at = tag[65000]
    struct.pack_into("<8I", content, tag[33628], 3, calibrated, 4, at, 5, at + 8, 6, at + 16)
    (first,) = struct.unpack_from("<I", content, 4)
    for n in range(struct.unpack_from("<H", content, first)[0]):
        entry = first + 2 + 12 * n
        code = struct.unpack_from("<H", content, entry)[0]
        if code == 33628:
            struct.pack_into("<I", content, entry + 4, 4)  # the number of pairs
        elif code == 33629:
            struct.pack_into("<HI", content, entry + 2, 5, len(steps))  # six numbers for each
    path.write_bytes(bytes(content) + values[1:].tobytes())


def test_lsm(tmp_path, values):
    lsm(tmp_path / "a.lsm", values)
    image = io.read(tmp_path / "a.lsm")  # without a warning of other images: they are thumbnails
    assert image.axes == "tczyx"
    np.testing.assert_array_equal(np.asarray(image.data), values)
    assert image.voxel_um == pytest.approx((0.3, 0.11, 0.1))
    assert image.time_step_s == 0.5
    assert image.channels == (
        Channel("Ch1-T1", color="FF0000"),
        Channel("Ch2", color="00FF10"),
        Channel("Ch3", color="0000FF"),
    )


def test_lsm_that_says_little(tmp_path, values):
    lsm(tmp_path / "a.lsm", values, seconds=0.0, colors=False)
    image = io.read(tmp_path / "a.lsm")
    assert (image.channels, image.time_step_s) == ((), None)


def test_stk(tmp_path, values):
    stk(tmp_path / "a.stk", values[0, 0], [0.25] * 4)
    image = io.read(tmp_path / "a.stk")
    assert image.axes == "zyx"
    np.testing.assert_array_equal(np.asarray(image.data), values[0, 0])
    assert image.voxel_um == pytest.approx((0.25, 0.11, 0.1))


@pytest.mark.parametrize(
    "change", [{"steps": [0.25, 0.25, 0.25, 0.5]}, {"unit": b"pixel\0"}, {"calibrated": 0}, {"steps": [0.0] * 4}]
)
def test_stk_without_a_size_of_voxels(tmp_path, values, change):
    stk(tmp_path / "a.stk", values[0, 0], **{"steps": [0.25] * 4} | change)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert io.read(tmp_path / "a.stk", axes="zyx").voxel_um is None


@pytest.mark.parametrize(
    ("described", "words"), [("x.companion.ome", "Fiji from that file"), ("x.ome.tif", "give that file")]
)
def test_a_part_of_an_ome_tiff(tmp_path, values, described, words):
    xml = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
        f'UUID="urn:uuid:{uuid.uuid4()}"><BinaryOnly MetadataFile="{described}" UUID="urn:uuid:{uuid.uuid4()}"/></OME>'
    )
    tifffile.imwrite(tmp_path / "a.ome.tif", values[0, 0], description=xml, metadata=None, photometric="minisblack")
    with pytest.raises(
        InputError, match=rf"a\.ome\.tif holds some pixels of an image that {described} describes.*{words}"
    ):
        io.read(tmp_path / "a.ome.tif")
