"""Writing elements in place. Neither side waits for the disk: what is written is in the page cache."""
import itertools
import os

import numpy as np
from measure import Line, timed, work
from place import sync_cube, warm
from series import CameraSeries, Series, column_view

numbers = itertools.count(1)  # of the works that were begun
COUNT = 100  # columns or planes that a side writes in a round


def write_whole(path, values):
    file = os.open(path, os.O_WRONLY)
    try:
        if os.write(file, values) != values.nbytes:
            raise AssertionError(f"{path} took less than all")
    finally:
        os.close(file)


def writing(place, series, count, values, places, path_of, assign):
    """`values`, and others in each round, to the same places on both sides: through open, write and
    close of views, and by assignment to a memmap that stays open. `places(random, count)` are those of
    a round."""
    cube = series.memmap("r+")
    rounds = {"accretefs": 0, "numpy": 0}
    base = next(numbers) * 1000  # what is there already would be no work for one side

    def some(side):
        rounds[side] += 1
        random = np.random.default_rng(rounds[side])
        return places(random, count), values + np.float32(base + rounds[side])

    with place.mount(series.store) as m:
        def accretefs():
            chosen, fresh = some("accretefs")
            paths = [m / "c" / path_of(at) for at in chosen]
            warm(series.bricks)
            seconds = timed(lambda: [write_whole(path, fresh) for path in paths])
            sync_cube(m / "c")
            return seconds

        def numpy():
            chosen, fresh = some("numpy")
            warm(series.flat)
            seconds = timed(lambda: [assign(cube, at, fresh) for at in chosen])
            cube.flush()
            return seconds

        yield {"accretefs": accretefs, "numpy": numpy}


@work("write 100 whole columns of 4,096 values, each open, write, close",
      Line("numpy.memmap r+, kept open", "accretefs", ("numpy",), "time", 3, 1.5, "numpy"), pinned=True)
def columns(place):
    def assign(cube, at, values):
        cube[:, at[1], at[0]] = values

    series = place.made(Series)
    yield from writing(place, series, COUNT, np.arange(series.depth, dtype=np.float32),
                       lambda random, n: list(zip(random.integers(series.nx, size=n),
                                                  random.integers(series.ny, size=n))),
                       lambda at: column_view(*at), assign)


def writing_planes(place, series, count):
    def assign(cube, at, values):
        cube[at] = values

    depth = series.depth
    plane = np.arange(series.noise.size, dtype=np.float32).reshape(series.noise.shape)
    yield from writing(place, series, min(count, depth // 2), plane,
                       lambda random, n: random.permutation(depth)[:n],
                       lambda at: f"slices/xy/z{at:06}.raw", assign)


@work("write 16 whole planes of 8 MiB, each open, write, close",
      Line("numpy.memmap r+, kept open", "accretefs", ("numpy",), "time", 3, 1.5, "numpy"), pinned=True)
def planes(place):
    yield from writing_planes(place, place.made(CameraSeries), 16)


@work("write 100 small planes of 512 KiB, each open, write, close",
      Line("numpy.memmap r+, kept open", "accretefs", ("numpy",), limit="numpy"), pinned=True)
def small_planes(place):
    yield from writing_planes(place, place.made(Series), COUNT)
