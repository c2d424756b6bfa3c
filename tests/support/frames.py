"""Frames as files, and what views of them must show."""
import io
import os

import numpy as np
from astropy.io import fits

# numpy type: BITPIX and BZERO
FITS_TYPES = {
    "uint8": (8, 0), "int8": (8, -128), "uint16": (16, 1 << 15), "int16": (16, 0),
    "uint32": (32, 1 << 31), "int32": (32, 0), "uint64": (64, 1 << 63), "int64": (64, 0),
    "float32": (-32, 0), "float64": (-64, 0),
}
TYPES = list(FITS_TYPES)
LETTERS = "xyztsuvw"
SEED = int(os.environ.get("ACCRETE_SEED", "20240115"))


def generator(salt=0):
    print(f"ACCRETE_SEED={SEED}", flush=True)
    return np.random.default_rng([SEED, salt])


def random_array(rng, shape, dtype):
    """All bit patterns of integers; floats of all magnitudes, with some infinities and NaNs."""
    dtype = np.dtype(dtype)
    if dtype.kind != "f":
        info = np.iinfo(dtype)
        return rng.integers(info.min, info.max, shape, dtype, endpoint=True)
    values = (rng.standard_normal(shape) * 10.0 ** rng.integers(-30, 30, shape)).astype(dtype)
    values[rng.random(shape) < 0.01] = np.nan
    values[rng.random(shape) < 0.01] = np.inf
    return values


def fits_header(shape, dtype, cards=()):
    """Of a file of one image; `shape` in numpy's order."""
    bitpix, zero = FITS_TYPES[dtype]
    header = [f"SIMPLE  = {'T':>20}", f"BITPIX  = {bitpix:>20}", f"NAXIS   = {len(shape):>20}"]
    header += [f"NAXIS{i + 1:<3}= {n:>20}" for i, n in enumerate(reversed(shape))]
    if zero:
        header += [f"BSCALE  = {1:>20}", f"BZERO   = {zero:>20}"]
    header += [*cards, "END"]
    text = "".join(f"{card:<80}" for card in header).encode()
    return text + b" " * (-len(text) % 2880)


def fits_bytes(array, cards=(), padded=True):
    """A FITS file of one image, made without any library. `array` in numpy's order."""
    text = fits_header(array.shape, array.dtype.name, cards)
    zero = FITS_TYPES[array.dtype.name][1]
    stored = array
    if zero:  # flipping the top bit is the subtraction of BZERO
        unsigned = np.dtype(f"u{array.itemsize}")
        stored = array.view(unsigned) ^ unsigned.type(1 << (8 * array.itemsize - 1))
    data = stored.astype(stored.dtype.newbyteorder(">"), copy=False).tobytes()
    return text + data + (b"\0" * (-len(data) % 2880) if padded else b"")


def npy_bytes(array):
    target = io.BytesIO()
    np.save(target, array)
    return target.getvalue()


def write_fits(path, array, cards=()):
    with open(path, "wb") as file:
        file.write(fits_bytes(array, cards))


def write_series(directory, frames, prefix="f"):
    """Files f00000.fits … in a directory that exists; returns their paths."""
    paths = []
    for i, frame in enumerate(frames):
        paths.append(directory / f"{prefix}{i:05}.fits")
        write_fits(paths[-1], frame)
    return paths


def cut(cube, axes, fixed=None, ranges=None):
    """What the view of `axes` (fastest first) shows of a cube, both in numpy's order."""
    letters = LETTERS[: cube.ndim]
    index = [slice(None)] * cube.ndim
    for letter, at in (fixed or {}).items():
        index[cube.ndim - 1 - letters.index(letter)] = at
    for letter, (begin, end) in (ranges or {}).items():
        index[cube.ndim - 1 - letters.index(letter)] = slice(begin, end)
    part = cube[tuple(index)]
    left = [letter for letter in reversed(letters) if letter in axes]
    return part.transpose([left.index(letter) for letter in reversed(axes)])


def view_name(axes, fixed=None, ranges=None):
    """The path below slices/ without extension, all terms in one component."""
    terms = [f"{a}{b}..{e}" for a, (b, e) in (ranges or {}).items()]
    terms += [f"{a}{i:06}" for a, i in reversed(list((fixed or {}).items()))]
    return f"{axes}/{'_'.join(terms)}"


def read_fits(path, **more):
    """Data as astropy sees it, in native byte order."""
    with fits.open(path, memmap=False, **more) as hdus:
        data = hdus[0].data
        return data.astype(data.dtype.newbyteorder("="))


def read_view(path, dtype, shape):
    """The array that a view's file holds, by its extension."""
    path = str(path)
    if path.endswith(".npy"):
        return np.load(path)
    if path.endswith(".fits"):
        return read_fits(path)
    if path.endswith(".raw"):
        return np.fromfile(path, dtype).reshape(shape)
    with open(path, encoding="ascii") as lines:
        return np.array([np.dtype(dtype).type(line.strip()) for line in lines]).reshape(shape)


def assert_same(found, expected, what=""):
    """Bit for bit, NaNs included."""
    assert found.dtype == expected.dtype, f"{what}: type {found.dtype}, not {expected.dtype}"
    assert found.shape == expected.shape, f"{what}: shape {found.shape}, not {expected.shape}"
    unsigned = np.dtype(f"u{expected.itemsize}")
    different = np.ascontiguousarray(found).view(unsigned) != \
        np.ascontiguousarray(expected).view(unsigned)
    if different.any():
        at = tuple(np.argwhere(different)[0])
        raise AssertionError(f"{what}: {different.sum()} of {expected.size} elements differ, first "
                             f"{list(map(int, at))}: {found[at]!r}, not {expected[at]!r}")
