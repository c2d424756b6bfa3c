"""Reading planes."""
import itertools
import os

import numpy as np
from measure import Line, drop_caches, timed, work
from place import read, warm
from series import CameraSeries, Series, plane_view

BYTES = 200 << 20  # that a side reads in a round, about


def turns(order, count):
    """For one side: the next planes, each time it is asked. All sides go through the same order."""
    planes = itertools.cycle(order)
    return lambda: list(itertools.islice(planes, count))


def reading(place, kind, io):
    """Each side opens, reads and closes planes that it has not read before, twice, while what lies
    on the disk is in the page cache."""
    series = place.made(kind)
    count = min(BYTES // series.noise.nbytes, series.depth // 8)
    order = [int(z) for z in series.random.permutation(series.depth)]

    def side(path_of, below=None):
        """`below`: the file behind the paths; else it is each plane's own."""
        turn = turns(order, count)

        def both():
            planes = turn()
            paths = [path_of(z) for z in planes]
            warm(*([below] if below else map(series.frame, planes)))
            first = read(paths)
            return {"": first, "again": read(paths)}

        return both

    with (place.mount(series.store, io) as m, place.passthrough(series.frames, "cached") as cached,
          place.passthrough(series.frames, "direct") as direct):
        yield {"accretefs": side(lambda z: m / "c" / plane_view(z), series.bricks),
               "plain": side(series.frame),
               "passthrough": side(lambda z: cached / series.frame(z).name),
               "passthrough direct": side(lambda z: direct / series.frame(z).name)}


@work("read planes of 8 MiB, io=direct",
      Line("a passthrough mount", "accretefs", ("passthrough",), "speed", 1.5, None, "plain"),
      Line("the same, direct", "accretefs", ("passthrough direct",), "speed", limit="plain"),
      Line("plain FITS files", "accretefs", ("plain",), "speed", 0.5, 0.8, "plain"),
      Line("plain FITS files, both again", "accretefs again", ("plain again",), "speed", 0.5, 0.8,
           "plain again"),
      pinned=True)
def direct(place):
    yield from reading(place, CameraSeries, "direct")


@work("read planes of 8 MiB, io=cached",
      Line("a passthrough mount", "accretefs", ("passthrough",), "speed", limit="plain"),
      Line("plain FITS files", "accretefs", ("plain",), "speed", limit="plain"),
      Line("plain FITS files, both again", "accretefs again", ("plain again",), "speed", 0.9, 1.0,
           "plain again"),
      pinned=True)
def cached(place):
    yield from reading(place, CameraSeries, "cached")


@work("read small planes of 512 KiB, io=direct",
      Line("a passthrough mount", "accretefs", ("passthrough",), "speed", 1.5, None, "plain"),
      Line("the same, direct", "accretefs", ("passthrough direct",), "speed", limit="plain"),
      Line("plain FITS files", "accretefs", ("plain",), "speed", limit="plain"),
      Line("plain FITS files, both again", "accretefs again", ("plain again",), "speed",
           limit="plain again"),
      pinned=True)
def small_direct(place):
    yield from reading(place, Series, "direct")


@work("read small planes of 512 KiB, io=cached",
      Line("a passthrough mount", "accretefs", ("passthrough",), "speed", limit="plain"),
      Line("plain FITS files, both again", "accretefs again", ("plain again",), "speed",
           limit="plain again"),
      pinned=True)
def small_cached(place):
    yield from reading(place, Series, "cached")


@work("64 random planes, cold",
      Line("numpy.memmap of a flat file", "accretefs", ("numpy",), "speed", 2, 4, "pread"),
      cold=True)
def cold(place):
    series = place.made(Series)
    order = [int(z) for z in series.random.permutation(series.depth)]
    count = min(64, series.depth // 8)
    turn = {side: turns(order, count) for side in ("accretefs", "numpy", "pread")}

    def accretefs():
        drop_caches(series.bricks)
        with place.mount(series.store) as m:
            return read([m / "c" / plane_view(z) for z in turn["accretefs"]()])

    def numpy():
        drop_caches(series.flat)
        cube = series.memmap()
        return timed(lambda: [np.array(cube[z]) for z in turn["numpy"]()])

    def pread():
        planes = turn["pread"]()
        drop_caches(series.flat)
        with open(series.flat, "rb", buffering=0) as file:
            size = series.noise.nbytes
            return timed(lambda: [os.pread(file.fileno(), size, z * size) for z in planes])

    yield {"accretefs": accretefs, "numpy": numpy, "pread": pread}
