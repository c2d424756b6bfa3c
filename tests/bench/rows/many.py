"""A cube of 100,000 frames."""
import itertools
import os
import pathlib
import shutil
import subprocess
import tempfile
import time

import numpy as np
from frames import npy_bytes
from measure import Line, Stopwatch, timed, work
from mounted import shape_of
from place import stat, sync_cube, walk

SHAPE = (3, 5)
COUNT = 200  # appends that a side does in a round
MEBI = 1 << 20


class Many:
    """A store with the cube `c` of 100,000 tiny planes."""

    def __init__(self, place):
        self.count = place.scaled(100_000, 500)
        self.store = place.made_path("many-store")
        self.numbers = itertools.count()
        with place.mount(self.store) as m:
            self.append(m.cube("c"), self.count)
            sync_cube(m / "c")

    def append(self, cube, count):
        """Seconds that so many frames take, each in a file: create, write, close."""
        names = [f"f{next(self.numbers):07}.npy" for _ in range(count)]
        content = npy_bytes(np.arange(15, dtype=np.int16).reshape(SHAPE))
        door = os.open(cube / "append", os.O_PATH)
        with Stopwatch() as watch:
            for name in names:
                file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, dir_fd=door)
                os.write(file, content)
                os.close(file)
        os.close(door)
        return watch.seconds


@work("200 appends of a tiny frame, at 100,000 frames",
      Line("the same at 100 frames", "many", ("few",), "time", 1.1, 1.0, "few"), pinned=True)
def append(place):
    many = place.made(Many)
    with place.mount(many.store) as m:
        def few():
            cube = m.cube(f"few{next(many.numbers)}")
            many.append(cube, 100)
            seconds = many.append(cube, COUNT)
            sync_cube(cube)
            return seconds

        def into_many():
            seconds = many.append(m / "c", COUNT)
            sync_cube(m / "c")
            return seconds

        yield {"many": into_many, "few": few}


class EmptyFiles:
    """As many in a tmpfs, of the names of the planes."""

    def __init__(self, count):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="accrete-bench-", dir="/dev/shm"))
        self.count = count

    def __enter__(self):
        for z in range(self.count):
            (self.directory / f"z{z:06}.npy").touch()
        return self.directory

    def __exit__(self, *_):
        shutil.rmtree(self.directory)


def list_all(directory):
    subprocess.run(["ls", "-f", directory], check=True, stdout=subprocess.DEVNULL)


@work("ls -f of 100,000 planes",
      Line("a directory of tmpfs", "planes", ("tmpfs",), "time", 4, 2, "tmpfs"),
      Line("a passthrough mount of that", "planes", ("passthrough",), limit="tmpfs"), pinned=True)
def listing(place):
    many = place.made(Many)
    with (place.mount(many.store) as m, EmptyFiles(many.count) as empty,
          place.passthrough(empty) as passthrough):
        yield {"planes": lambda: timed(list_all, m / "c/slices/xy"),
               "tmpfs": lambda: timed(list_all, empty),
               "passthrough": lambda: timed(list_all, passthrough.mnt)}


@work("list 100,000 planes and stat each as it comes",
      Line("a directory of tmpfs", "planes", ("tmpfs",), "time", 4, 2, "tmpfs"),
      Line("a passthrough mount of that", "planes", ("passthrough",), limit="tmpfs"), pinned=True)
def walking(place):
    many = place.made(Many)
    with (place.mount(many.store) as m, EmptyFiles(many.count) as empty,
          place.passthrough(empty) as passthrough):
        yield {"planes": lambda: walk(m / "c/slices/xy"), "tmpfs": lambda: walk(empty),
               "passthrough": lambda: walk(passthrough.mnt)}


@work("stat of 100,000 planes by name",
      Line("a directory of tmpfs", "planes", ("tmpfs",), limit="tmpfs"),
      Line("a passthrough mount of that", "planes", ("passthrough",), limit="tmpfs"), pinned=True)
def attributes(place):
    many = place.made(Many)
    with (place.mount(many.store) as m, EmptyFiles(many.count) as empty,
          place.passthrough(empty) as passthrough):
        def all_of(directory):
            return stat([directory / f"z{z:06}.npy" for z in range(many.count)])

        yield {"planes": lambda: all_of(m / "c/slices/xy"), "tmpfs": lambda: all_of(empty),
               "passthrough": lambda: all_of(passthrough.mnt)}


@work("mount a store of 100,000 frames, ask its shape",
      Line("", "mount", (), "s", 1, 0.1), Line("memory of its own then", "mount memory", (), "MiB", 64, 32))
def mount(place):
    many = place.made(Many)

    def start():
        begin = time.perf_counter()
        with place.mount(many.store) as m:
            shape_of(m / "c")
            seconds = time.perf_counter() - begin
            return {"": seconds, "memory": m.anonymous_memory() / MEBI}

    yield {"mount": start}
