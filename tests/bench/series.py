"""Cubes that are read, as each side keeps them, all with the same values. What a side keeps is made
when it is first asked for."""
import functools

import numpy as np
from frames import fits_bytes
from mounted import run
from place import sync_cube

SLICE = 64  # planes that are made at once


class Series:
    """2 GiB: 4,096 planes of 512 KiB, 512 × 256 float32."""
    nx, ny, planes_in_all = 512, 256, 4096

    def __init__(self, place):
        self.place = place
        self.depth = place.scaled(self.planes_in_all, 128) // SLICE * SLICE
        self.shape = (self.depth, self.ny, self.nx)
        self.directory = place.made_directory(type(self).__name__)
        self.random = np.random.default_rng(3)
        self.noise = self.random.standard_normal((self.ny, self.nx), dtype=np.float32)

    def planes(self):
        """(index, some planes), to the end."""
        for z in range(0, self.depth, SLICE):
            yield z, self.noise + np.arange(z, z + SLICE, dtype=np.float32)[:, None, None]

    def columns(self, count):
        """Random (x, y)."""
        return [(int(self.random.integers(self.nx)), int(self.random.integers(self.ny)))
                for _ in range(count)]

    @functools.cached_property
    def frames(self):
        """A directory of FITS files, by index."""
        path = self.directory / "frames"
        path.mkdir()
        for z, planes in self.planes():
            for i, plane in enumerate(planes, z):
                (path / f"f{i:06}.fits").write_bytes(fits_bytes(plane))
        return path

    def frame(self, z):
        return self.frames / f"f{z:06}.fits"

    @functools.cached_property
    def store(self):
        """With the cube `c`, to which the frames were copied."""
        names = sorted(path.name for path in self.frames.iterdir())
        path = self.directory / "store"
        with self.place.mount(path) as m:
            cube = m.cube("c")
            run("cp", *names, cube / "append", cwd=self.frames)
            sync_cube(cube)
            for x, y in self.columns(10):
                column = np.fromfile(cube / column_view(x, y), np.float32)
                if not np.array_equal(column, self.memmap()[:, y, x]):
                    raise AssertionError(f"the column {x} {y} differs")
        return path

    @property
    def bricks(self):
        """The file in which the store keeps the elements."""
        return self.store / "c/bricks"

    @functools.cached_property
    def flat(self):
        """A file of the elements alone, to which one plane after the other was appended."""
        path = self.directory / "flat"
        with open(path, "wb") as file:
            for _, planes in self.planes():
                for plane in planes:
                    plane.tofile(file)
        return path

    def memmap(self, mode="r"):
        return np.memmap(self.flat, np.float32, mode, shape=self.shape)

    # ---- Peers, uncompressed, in chunks of a plane or of a cube ----

    def hdf5(self, kind):
        return self._chunked(f"h5py-{kind}")

    def zarr(self, kind):
        return self._chunked(f"zarr-{kind}")

    @functools.cache
    def _chunked(self, name):
        path = self.directory / name
        chunks = (1, self.ny, self.nx) if name.endswith("planar") else (64, 64, 64)
        target = open_hdf5(path, "w") if name.startswith("h5py") else None
        if target is not None:
            data = target.create_dataset("cube", self.shape, "f4", chunks=chunks)
        else:
            import zarr
            data = zarr.open(str(path), "w", shape=self.shape, chunks=chunks, dtype="f4", compressor=None)
        for z, planes in self.planes():
            data[z:z + SLICE] = planes
        if target is not None:
            target.close()
        return path


class CameraSeries(Series):
    """2 GiB: 256 planes of 8 MiB, 2,048 × 1,024 float32, as cameras give them."""
    nx, ny, planes_in_all = 2048, 1024, 256


def open_hdf5(path, mode="r"):
    import h5py
    return h5py.File(path, mode, libver="latest")


def open_zarr(path):
    import zarr
    return zarr.open(str(path), "r")


def plane_view(z):
    return f"slices/xy/z{z:06}.fits"


def column_view(x, y):
    return f"slices/z/x{x:06}/y{y:06}.raw"


def row_view(y):
    """All columns of a row, one after the other."""
    return f"slices/zx/y{y:06}.raw"
