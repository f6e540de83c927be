"""Whether a file is still the same: an image in several OME-TIFF files, as microscopes write one for each plane."""

import os
from xml.sax.saxutils import quoteattr

import numpy as np
import pytest
import tifffile

from gpudecon import io
from gpudecon.errors import InputError
from gpudecon.image import Image
from gpudecon.io.fingerprint import check_apart, fingerprint


def ome(names):
    """OME-XML of planes of 5 x 7 along z, one in each file."""
    planes = "".join(
        f'<TiffData FirstZ="{z}" IFD="0" PlaneCount="1"><UUID FileName={quoteattr(name)}>urn:uuid:{z}</UUID></TiffData>'
        for z, name in enumerate(names)
    )
    return (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:0">'
        f'<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" SizeX="7" SizeY="5" '
        f'SizeZ="{len(names)}" SizeC="1" SizeT="1"><Channel ID="Channel:0:0" SamplesPerPixel="1"/>{planes}'
        "</Pixels></Image></OME>"
    )


@pytest.fixture
def files(tmp_path):
    """Three files of one image; the first says so, and has a link elsewhere."""
    names = ["z0.ome.tif", "z1.ome.tif", "z2.ome.tif"]
    for z, name in enumerate(names):
        description = ome(names) if z == 0 else None
        tifffile.imwrite(tmp_path / name, np.full((5, 7), z, "u2"), description=description, metadata=None)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "link.ome.tif").symlink_to(tmp_path / names[0])
    return [tmp_path / name for name in names]


@pytest.mark.parametrize("through_link", [False, True])
@pytest.mark.parametrize("changed", range(3))
def test_all_files_of_an_image_count(files, changed, through_link):
    path = files[0].parent / "elsewhere" / "link.ome.tif" if through_link else files[0]
    np.testing.assert_array_equal(io.read(path).volume()[:, 0, 0], [0, 1, 2])
    before = fingerprint(path)
    (files[0].parent / "z3.ome.tif").write_bytes(files[2].read_bytes())  # of no concern
    assert fingerprint(path) == before
    status = files[changed].stat()
    os.utime(files[changed], ns=(status.st_atime_ns, status.st_mtime_ns + 1000))
    assert fingerprint(path) != before


def test_an_image_in_one_file(tmp_path):
    for name in ("a.tif", "a.ome.tif"):
        tifffile.imwrite(tmp_path / name, np.ones((3, 5, 7), "u2"), photometric="minisblack")
        before = fingerprint(tmp_path / name)
        assert fingerprint(tmp_path / name) == before
        os.utime(tmp_path / name, ns=(1, 1))
        assert fingerprint(tmp_path / name) != before


def test_axes_of_an_image_at_an_address(tmp_path):
    """Without them it could not be read."""
    tifffile.imwrite(tmp_path / "a.tif", np.ones((2, 3, 5, 7), "u2"), metadata=None, photometric="minisblack")
    address = f"file://{tmp_path}/a.tif"
    assert fingerprint(address, "tzyx") == fingerprint(address, "tzyx") != fingerprint(address, "czyx")


def test_an_output_is_apart_from_all_files_of_the_input(files, tmp_path):
    refused = "would replace or change the input .*choose another output"
    for output in (files[2], tmp_path / "elsewhere" / "link.ome.tif", tmp_path / "elsewhere" / ".." / "z1.ome.tif"):
        for name in (str(files[0]), f"file://{files[0]}"):
            with pytest.raises(InputError, match=refused):
                check_apart(name, output)
    with pytest.raises(InputError, match=refused):
        check_apart(str(tmp_path / "z{z}.ome.tif"), files[1])
    check_apart(files[0], tmp_path / "z3.ome.tif")
    check_apart("https://127.0.0.1/z0.ome.tif", files[0])


def test_an_output_is_not_in_a_store_that_is_read_and_holds_none(tmp_path):
    path = tmp_path / "plate.zarr" / "a.ome.zarr"
    path.parent.mkdir()
    io.write(path, Image(np.ones((5, 7), "u2"), "yx"))
    for output in (path, path.parent, path / "0.zarr"):
        with pytest.raises(InputError, match="would replace or change the input"):
            check_apart(path, output)
    check_apart(path, path.parent / "b.ome.zarr")


def test_an_image_may_be_written_over_itself(tmp_path):
    """What `write` replaces has been read by then."""
    for name in ("a.ome.zarr", "a.ome.tif"):
        io.write(tmp_path / name, Image(np.arange(35, dtype="u2").reshape(5, 7), "yx"))
        io.write(tmp_path / name, io.read(tmp_path / name), dtype="f4", overwrite=True)
        np.testing.assert_array_equal(io.read(tmp_path / name).volume(), np.arange(35.0).reshape(5, 7))
