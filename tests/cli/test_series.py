"""gpudecon run on a series of files."""

import numpy as np
import tifffile


def test_a_series_is_restored_as_its_stack_is(cli, run_line, stack):
    for z, plane in enumerate(stack):
        tifffile.imwrite(cli.folder / f"img_z{z:02d}.tif", plane)
    cli(run_line)
    cli(run_line.replace("stack.tif", "'img_z{z}.tif'").replace("out.ome.zarr", "series.ome.zarr"))
    np.testing.assert_array_equal(cli.read("series.ome.zarr").volume(), cli.read().volume())
    assert cli.read("series.ome.zarr").provenance["source"] == "img_z{z}.tif"
    (cli.folder / "img_z03.tif").unlink()
    done = cli(run_line.replace("stack.tif", "'img_z{z}.tif'") + " --overwrite", status=2)
    assert "Files of the pattern img_z{z}.tif are missing: z = 3" in done.stderr
