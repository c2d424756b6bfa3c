"""Reading along the growth axis."""
import contextlib

import numpy as np
from astropy.io import fits
from measure import Line, drop_caches, present, timed, work
from mounted import shape_of
from place import read, warm
from series import Series, column_view, open_hdf5, open_zarr, row_view

COUNT = 200  # columns that a side reads in a round
BUFFER = 128 << 10  # that of cat for a small file


@work("200 columns of 4,096 values, each open, read, close",
      Line("memmap gather + small file on passthrough", "accretefs", ("numpy", "small file"), "time", 1.5,
           1.1, "small file"),
      Line("the same, direct", "accretefs", ("numpy", "small file direct"), limit="small file direct"),
      pinned=True)
def one(place):
    series = place.made(Series)
    small = place.made(SmallFiles)
    cube = series.memmap()

    def numpy(columns):
        warm(series.flat)
        return timed(lambda: [np.array(cube[:, y, x]) for x, y in columns])

    with (place.mount(series.store) as m, place.passthrough(small.directory, "cached") as cached,
          place.passthrough(small.directory, "direct") as direct):
        def accretefs():
            warm(series.bricks)
            return read([m / "c" / column_view(x, y) for x, y in series.columns(COUNT)], BUFFER)

        yield {"accretefs": accretefs, "numpy": lambda: numpy(series.columns(COUNT)),
               "small file": lambda: read(small.fresh(cached.mnt), BUFFER),
               "small file direct": lambda: read(small.fresh(direct.mnt), BUFFER)}


class SmallFiles:
    """As large as a column; a new directory of them each time."""

    def __init__(self, place):
        self.directory = place.made_directory("small-files")
        self.size = 4 * place.made(Series).depth
        self.count = 0

    def fresh(self, mount):
        """The paths below a mount of the directory: the kernel has not seen them."""
        self.count += 1
        name = f"{self.count}"
        (self.directory / name).mkdir()
        for i in range(COUNT):
            (self.directory / name / f"{i:06}.raw").write_bytes(bytes(self.size))
        return [mount / name / f"{i:06}.raw" for i in range(COUNT)]


@work("all columns, slices/zx/* in sequence, 2 GiB",
      Line("numpy: ascontiguousarray of each transposed plane", "accretefs", ("numpy",), "speed", 2, 5,
           "memcpy"),
      Line("cat of a flat file", "accretefs", ("cat",), "speed", limit="memcpy"),
      pinned=True, rounds=5)
def all_warm(place):
    series = place.made(Series)
    cube = series.memmap()
    source, target = np.zeros((2, series.noise.size * 64), np.float32)

    def memcpy():
        for _ in range(cube.size // source.size):
            np.copyto(target, source)

    def numpy():
        warm(series.flat)
        return timed(lambda: [np.ascontiguousarray(cube[:, y, :].T) for y in range(series.ny)])

    def cat():
        warm(series.flat)
        return read([series.flat])

    with place.mount(series.store) as m:
        def accretefs():
            warm(series.bricks)
            return read([m / "c" / row_view(y) for y in range(series.ny)])

        yield {"accretefs": accretefs, "numpy": numpy, "cat": cat, "memcpy": lambda: timed(memcpy)}


@work("all columns, slices/zx/* in sequence, 2 GiB, cold",
      Line("cat of a flat file", "accretefs", ("cat",), "speed", 0.5, 0.9, "cat"),
      cold=True, rounds=5, rehearse=False)
def all_cold(place):
    series = place.made(Series)

    def accretefs():
        drop_caches(series.bricks)
        with place.mount(series.store) as m:
            return read([m / "c" / row_view(y) for y in range(series.ny)])

    def cat():
        drop_caches(series.flat)
        return read([series.flat])

    yield {"accretefs": accretefs, "cat": cat}


def chunked(series, before, cubic_count):
    """Sides that read columns of chunked data sets, opened without being timed; seconds for one column.
    `before` gets the file or directory that is read. `cubic_count`: how many a side reads where that is
    quick."""
    def side(kind, path_of, opened):
        count = cubic_count if kind == "cubic" else 1

        def some_columns():
            path = path_of(kind)
            before(path)
            columns = series.columns(count)
            with contextlib.ExitStack() as stack:
                cube = opened(path, stack)
                return timed(lambda: [cube[:, y, x] for x, y in columns]) / count

        return some_columns

    def hdf5(path, stack):
        return stack.enter_context(open_hdf5(path))["cube"]

    def zarr(path, _):
        return open_zarr(path)

    sides = {"h5py planar": ("planar", series.hdf5, hdf5), "h5py cubic": ("cubic", series.hdf5, hdf5),
             "zarr planar": ("planar", series.zarr, zarr), "zarr cubic": ("cubic", series.zarr, zarr)}
    made = present({name: side(*how) for name, how in sides.items()})
    for name in made:
        sides[name][1](sides[name][0])
    return made


LINES = (Line("h5py, chunks are planes", "accretefs", ("h5py planar",), "speed", 50, 300, "memmap"),
         Line("zarr, chunks are planes", "accretefs", ("zarr planar",), "speed", 50, 300, "memmap"),
         Line("h5py, chunks of 64×64×64", "accretefs", ("h5py cubic",), "speed", 3, 10, "memmap"),
         Line("zarr, chunks of 64×64×64", "accretefs", ("zarr cubic",), "speed", limit="memmap"),
         Line("numpy.memmap of a flat file", "accretefs", ("memmap",), "speed", limit="memmap"),
         Line("a directory of FITS files, astropy", "accretefs", ("fits files",), "speed",
              limit="memmap"))


def from_files(series):
    """Seconds that astropy takes to get one element of each of the frames."""
    (x, y), = series.columns(1)

    def column():
        values = []
        for z in range(series.depth):
            with fits.open(series.frame(z), memmap=True) as file:
                values.append(file[0].data[y, x])
        return values

    return timed(column)


@work("one random column, warm", *LINES, rounds=10)
def random_warm(place):
    series = place.made(Series)
    some = 50
    others = chunked(series, warm, some)
    cube = series.memmap()

    def memmap():
        warm(series.flat)
        columns = series.columns(some)
        return timed(lambda: [np.array(cube[:, y, x]) for x, y in columns]) / some

    with place.mount(series.store) as m:
        def accretefs():
            warm(series.bricks)
            return read([m / "c" / column_view(x, y) for x, y in series.columns(some)], BUFFER) / some

        def fits_files():
            warm(series.frames)
            return from_files(series)

        yield {"accretefs": accretefs, "memmap": memmap, **others, "fits files": fits_files}


@work("one random column, cold", *LINES, cold=True, rounds=5, rehearse=False)
def random_cold(place):
    series = place.made(Series)
    others = chunked(series, lambda path: drop_caches(*([path] if path.is_file() else [])), 1)

    def accretefs():
        drop_caches(series.bricks)
        with place.mount(series.store) as m:
            shape_of(m / "c")  # it is open, as the others' files are
            (x, y), = series.columns(1)
            return read([m / "c" / column_view(x, y)], BUFFER)

    def memmap():
        drop_caches(series.flat)
        cube = series.memmap()
        (x, y), = series.columns(1)
        return timed(lambda: np.array(cube[:, y, x]))

    def fits_files():
        drop_caches()
        return from_files(series)

    yield {"accretefs": accretefs, "memmap": memmap, **others, "fits files": fits_files}
