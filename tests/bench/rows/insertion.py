"""Growth where it is hard: at the front, at a side, in the middle."""
import functools
import itertools
import os

import numpy as np
from frames import fits_bytes
from measure import Line, Stopwatch, has, work
from mounted import run
from place import sync_cube
from rows.append import SIDE, BigFile

COUNT = 10  # frames that a side inserts in a round
MEBI = 1 << 20


class Inserter:
    """Puts `count` frames of one shape through a door, as cp does it."""

    def __init__(self, shape, count=COUNT):
        self.count = count
        self.random = np.random.default_rng(4)
        self.values = self.random.standard_normal(shape, dtype=np.float32)
        self.numbers = itertools.count()

    def into(self, cube, door):
        """Seconds that they take. `door` makes the name of one, for each frame."""
        seconds = 0
        for _ in range(self.count):
            self.values += np.float32(1)
            data = memoryview(fits_bytes(self.values))
            path = cube / door() / f"{next(self.numbers):06}.fits"
            with Stopwatch() as watch:
                file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
                for at in range(0, len(data), MEBI):
                    os.write(file, data[at:at + MEBI])
                os.close(file)
            seconds += watch.seconds
        sync_cube(cube)
        return seconds


@work("insert 10 frames into a cube of 4 GiB",
      Line("front (prepend) to append", "front", ("append",), "time", 1.2, 1.0, "append"),
      Line("interior, random index, to append", "interior", ("append",), "time", 1.2, 1.0, "append"),
      Line("side (append/x) to append of as many bytes", "side", ("append like side",), "time", 1.2, 1.0,
           "append like side"),
      Line("interior of a side (insert/x) to append", "side interior", ("append like side",), "time", 1.2,
           1.0, "append like side"),
      pinned=True)
def door(place):
    big = place.made(BigFile)
    planes = big.shape[0]
    across, along = Inserter((1, SIDE, SIDE)), Inserter((planes, SIDE, 1))
    with place.mount() as m:
        cube, wide, inside, like = (m.cube(name) for name in ("cube", "wide", "inside", "like"))
        for target in (cube, wide, inside):
            run("cp", big.path, target / "append")
            sync_cube(target)
        # Planes like the side; as many as make what is measured no start.
        similar = Inserter((planes, SIDE))
        for _ in range(2):
            similar.into(like, lambda: "append")

        def anywhere(axis, extent):
            return lambda: f"insert/{axis}/{int(across.random.integers(1, extent))}"

        yield {"append": lambda: across.into(cube, lambda: "append"),
               "front": lambda: across.into(cube, lambda: "prepend"),
               "interior": lambda: across.into(cube, anywhere("z", planes)),
               "append like side": lambda: similar.into(like, lambda: "append"),
               "side": lambda: along.into(wide, lambda: "append/x"),
               "side interior": lambda: along.into(inside, anywhere("x", SIDE))}


@work("insert 1 plane in the middle of a cube of 1 GiB",
      Line("numpy: concatenate, save", "accretefs", ("numpy",), "speed", limit="append"),
      Line("h5py, planar, what lies behind is moved", "accretefs", ("h5py planar",), "speed",
           limit="append"),
      Line("h5py, chunks of 64×64×64", "accretefs", ("h5py cubic",), "speed", limit="append"),
      Line("zarr, planar, what lies behind is moved", "accretefs", ("zarr planar",), "speed",
           limit="append"),
      rounds=3, rehearse=False)
def rewriting(place):
    planes = place.scaled(1024, 64)
    first = np.random.default_rng(5).standard_normal((planes, SIDE, SIDE), dtype=np.float32)
    frame = np.ones((1, SIDE, SIDE), np.float32)
    middle = f"insert/z/{planes // 2}"
    one = Inserter(frame.shape, 1)
    with place.mount() as m, place.scratch() as directory:
        cube = m.cube("c")
        np.save(directory / "first.npy", first)
        run("cp", directory / "first.npy", cube / "append")
        sync_cube(cube)
        others = rewriters(directory, first)
        yield {"append": lambda: one.into(cube, lambda: "append"),
               "accretefs": lambda: one.into(cube, lambda: middle),
               **{name: functools.partial(other.insert, middle, frame) for name, other in others.items()}}


def rewriters(directory, first):
    """Other ways to keep `first`, none where a library is missing."""
    if not (has("h5py") and has("zarr")):
        return {}
    import cubes
    planar, cubic = (1, SIDE, SIDE), (64, 64, 64)
    return {"numpy": cubes.Numpy(directory, first),
            "h5py planar": cubes.Hdf5(directory, "planar", first, planar),
            "h5py cubic": cubes.Hdf5(directory, "cubic", first, cubic),
            "zarr planar": cubes.Zarr(directory, "planar", first, planar)}
