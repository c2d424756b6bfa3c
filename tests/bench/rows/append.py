"""Copying frames in."""
import copy

import numpy as np
from astropy.io import fits
from frames import fits_bytes, fits_header, npy_bytes
from measure import Line, Stopwatch, present, timed, work
from mounted import run
from place import fetch_memory, sync_cube, sync_disk, warm

SIDE = 512  # of a frame of 1 MiB


class Frames:
    """Files of a directory, by name."""

    def __init__(self, directory):
        self.directory = directory
        self.names = []

    def add(self, name, content):
        (self.directory / name).write_bytes(content)
        self.names.append(name)

    def first(self, count):
        some = copy.copy(self)
        some.names = self.names[:count]
        return some

    def ready(self):
        """They are in the page cache, and there is memory for two copies."""
        paths = [self.directory / name for name in self.names]
        fetch_memory(2 * sum(path.stat().st_size for path in paths))
        warm(*paths)


class BigFrames(Frames):
    """1,000 FITS files of 512 × 512 float32."""

    def __init__(self, place):
        super().__init__(place.made_directory("big-frames"))
        values = np.random.default_rng(1).standard_normal((SIDE, SIDE), dtype=np.float32)
        for i in range(place.scaled(1000, 4)):
            values += np.float32(1)
            self.add(f"f{i:06}.fits", fits_bytes(values))

    def values(self, name):
        """As a program reads a FITS file."""
        return fits.getdata(self.directory / name)

    def bare_values(self, name):
        """As fast as numpy reads them, who is told where they are: in the byte order that FITS has."""
        return np.fromfile(self.directory / name, ">f4", SIDE * SIDE, offset=2880).reshape(SIDE, SIDE)


class SmallFrames(Frames):
    """20,000 NPY files of 4 KiB each: a header of 128 bytes and 31 × 32 float32."""

    def __init__(self, place):
        super().__init__(place.made_directory("small-frames"))
        for i in range(place.scaled(20_000, 20)):
            self.add(f"f{i:06}.npy", npy_bytes(np.full((31, 32), i, np.float32)))


def cp(frames, target):
    """Seconds that one cp of all frames takes; made ready."""
    frames.ready()
    with Stopwatch() as watch:
        run("cp", *frames.names, f"{target}/", cwd=frames.directory)
    return watch.seconds


def copies(place, frames):
    """cp to AccreteFS, to a plain directory, and to passthrough mounts of one."""
    def accretefs():
        with place.mount() as m:
            cube = m.cube("c")
            seconds = cp(frames, cube / "append")
            return {"": seconds, "and sync": seconds + timed(sync_cube, cube)}

    def plain():
        with place.scratch() as directory:
            seconds = cp(frames, directory)
            return {"": seconds, "and sync": seconds + timed(sync_disk, directory)}

    def passthrough(io):
        with place.scratch() as directory, place.passthrough(directory, io) as m:
            return cp(frames, m.mnt)

    return {"accretefs": accretefs, "plain": plain,
            "passthrough": lambda: passthrough("cached"),
            "passthrough direct": lambda: passthrough("direct")}


def appends(place, frames):
    """Loops of this process over the same files, each frame to the end of an uncompressed data set."""
    shape, chunks = (0, SIDE, SIDE), (1, SIDE, SIDE)

    def h5py_loop(values):
        import h5py
        frames.ready()
        with place.scratch() as directory, Stopwatch() as watch:
            with h5py.File(directory / "cube.h5", "w", libver="latest") as file:
                data = file.create_dataset("cube", shape, ">f4", maxshape=(None, SIDE, SIDE),
                                           chunks=chunks)
                for i, name in enumerate(frames.names):
                    data.resize(i + 1, axis=0)
                    data[i] = values(name)
        return watch.seconds

    def zarr_loop():
        import zarr
        frames.ready()
        with place.scratch() as directory, Stopwatch() as watch:
            data = zarr.open(str(directory / "cube.zarr"), "w", shape=shape, chunks=chunks, dtype=">f4",
                             compressor=None)
            for name in frames.names:
                data.append(frames.values(name)[None])
        return watch.seconds

    return present({"h5py": lambda: h5py_loop(frames.values),
                    "h5py bare": lambda: h5py_loop(frames.bare_values), "zarr": zarr_loop})


@work("cp 1,000 frames of 1 MiB into append/",
      Line("cp into a plain directory", "accretefs", ("plain",), "time", 1.3, 1.0, "plain"),
      Line("the same, and sync", "accretefs and sync", ("plain and sync",), limit="plain and sync"),
      Line("cp into a passthrough mount", "accretefs", ("passthrough",), "time", 1.0, 0.8, "plain"),
      Line("the same, direct", "accretefs", ("passthrough direct",), "time", 1.0, 0.8, "plain"),
      Line("h5py, planar, resized in a loop, astropy reads", "accretefs", ("h5py",), "speed", 2, 4, "plain"),
      Line("the same, but numpy reads and knows where", "accretefs", ("h5py bare",), "speed", limit="plain"),
      Line("zarr, planar, append(), astropy reads", "accretefs", ("zarr",), "speed", 2, 4, "plain"),
      pinned=True, rounds=5)
def big_frames(place):
    frames = place.made(BigFrames)
    yield copies(place, frames) | appends(place, frames)


@work("cp 200 frames of 1 MiB into append/",
      Line("numpy.concatenate in a loop, in memory", "accretefs", ("numpy",), "speed", limit="plain"),
      rounds=3, rehearse=False)
def concatenation(place):
    frames = place.made(BigFrames).first(200)

    def numpy_loop():
        frames.ready()
        with Stopwatch() as watch:
            cube = np.empty((0, SIDE, SIDE), ">f4")
            for name in frames.names:
                cube = np.concatenate((cube, frames.values(name)[None]))
        return watch.seconds

    some = copies(place, frames)
    yield {"accretefs": some["accretefs"], "plain": some["plain"], "numpy": numpy_loop}


@work("cp 20,000 frames of 4 KiB into append/",
      Line("cp into a plain directory", "accretefs", ("plain",), limit="plain"),
      Line("cp into a passthrough mount", "accretefs", ("passthrough",), "time", 1.5, 1.0, "plain"),
      Line("the same, direct", "accretefs", ("passthrough direct",), "time", 1.5, 1.0, "plain"),
      pinned=True, rounds=3, rehearse=False)
def small_frames(place):
    yield copies(place, place.made(SmallFrames))


class BigFile(Frames):
    """A cube of 4 GiB, 512 × 512 × 4,096 float32, in one FITS file."""

    def __init__(self, place):
        super().__init__(place.made_directory("big-file"))
        self.names = ["big.fits"]
        self.path = self.directory / "big.fits"
        planes = place.scaled(4096, 64)
        plane = np.random.default_rng(2).standard_normal((SIDE, SIDE), dtype=np.float32)
        header = fits_header((planes, SIDE, SIDE), "float32")
        with open(self.path, "wb") as file:
            file.write(header)
            for _ in range(planes):
                plane += np.float32(1)
                file.write(plane.astype(">f4").tobytes())
            file.write(bytes(-file.tell() % 2880))
        self.shape = (planes, SIDE, SIDE)


@work("cp one cube of 4 GiB into append/",
      Line("cp to a plain file", "accretefs", ("plain",), "time", 1.3, 1.0, "plain"),
      Line("the same, and sync", "accretefs and sync", ("plain and sync",), limit="plain and sync"),
      Line("cp into a passthrough mount", "accretefs", ("passthrough",), limit="plain"),
      rounds=3, rehearse=False)
def one_file(place):
    sides = copies(place, place.made(BigFile))
    del sides["passthrough direct"]
    yield sides
