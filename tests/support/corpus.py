"""Frames of other people's making: what astropy says is in a file, and whether a cube agrees."""
import errno
import json
import os
import warnings

import numpy as np
from astropy.io import fits
from frames import npy_bytes
from mounted import Mounted, last_error, meta, put, run, wait_until


class Hdu:
    """One HDU by astropy. kind: 'image', 'no data', 'groups', 'table', 'other'."""

    def __init__(self, index, hdu):
        self.index = index
        self.header = hdu.header.copy()  # scaling takes cards away
        self.extension = "" if index == 0 else self.header.get("XTENSION", "")
        self.name = hdu.header.get("EXTNAME", "")
        self.version = hdu.header.get("EXTVER", 1)
        self.values = None
        if isinstance(hdu, fits.GroupsHDU):
            self.kind = "groups"
        elif isinstance(hdu, (fits.PrimaryHDU, fits.ImageHDU, fits.CompImageHDU)):
            self.kind = "image" if hdu.shape and np.prod(hdu.shape) > 0 else "no data"
        elif isinstance(hdu, (fits.BinTableHDU, fits.TableHDU)):
            self.kind = "table"
        else:
            self.kind = "other"
        if self.kind == "image":
            self.values = hdu.data.astype(hdu.data.dtype.newbyteorder("="))

    def mark_blanks(self, raw):
        """astropy overlooks BLANK = 0."""
        blank = self.header.get("BLANK")
        if self.kind == "image" and raw is not None and type(blank) is int and raw.dtype.kind in "iu":
            if self.values.dtype.kind == "f":
                self.values[raw == blank] = np.nan


def hdus_of(path):
    """All HDUs of a file that astropy can read, None of one that it cannot."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with fits.open(path, memmap=False) as file:
                hdus = [Hdu(i, hdu) for i, hdu in enumerate(file)]
            with fits.open(path, memmap=False, do_not_scale_image_data=True) as file:
                for found, hdu in zip(hdus, file):
                    if found.kind == "image":
                        found.mark_blanks(hdu.data)
            return hdus
        except Exception:  # pylint: disable=broad-except
            return None  # what it raises for a broken file is anything


def first_image(path):
    """The values of the first image that has data; None when there is none."""
    return next((hdu.values for hdu in hdus_of(path) or () if hdu.kind == "image"), None)


def as_cube(values):
    """The cube that one frame makes: of one or two axes, one more."""
    return values[None] if values.ndim <= 2 else values


def assert_values(found, expected, what=""):
    """The same type, shape and values bit for bit, but every NaN is like any other."""
    assert found.dtype == expected.dtype, f"{what}: type {found.dtype}, not {expected.dtype}"
    assert found.shape == expected.shape, f"{what}: shape {found.shape}, not {expected.shape}"
    bits = np.dtype(f"u{expected.itemsize}")
    different = np.ascontiguousarray(found).view(bits) != np.ascontiguousarray(expected).view(bits)
    if expected.dtype.kind == "f":
        different &= ~(np.isnan(found) & np.isnan(expected))
    if different.any():
        at = tuple(np.argwhere(different)[0])
        raise AssertionError(f"{what}: {different.sum()} of {expected.size} elements differ, first "
                             f"{list(map(int, at))}: {found[at]!r}, not {expected[at]!r}")


def history(cube):
    return [json.loads(line) for line in (cube / "history").read_text().splitlines()]


class Trial:
    """Frames put into a mount, each in a cube of its own, and once more where it is refused: into a
    cube with a frame, which must stay as it is."""

    def __init__(self, mounted: Mounted):
        self.m = mounted
        self.count = 0
        self.witness = mounted.cube("witness")
        frame = np.arange(35, dtype="float64").reshape(5, 7)
        (self.witness / "append" / "frame.npy").write_bytes(npy_bytes(frame))
        self.expected = self.state(self.witness)

    @staticmethod
    def state(cube):
        return {"bytes": meta(cube, "bytes"), "frames": os.listdir(cube / "frames"),
                "append": os.listdir(cube / "append"), "shape": meta(cube, "shape"),
                "table": meta(cube, "frames"),
                "elements": (cube / "cube.npy").read_bytes() if meta(cube, "shape") else b""}

    def wait_for(self, cube, state, what):
        """A file that was refused is gone when the kernel has released it, after close()."""
        def is_same():
            now = self.state(cube)
            # The host's filesystem counts blocks of its own for a file of which pieces were freed.
            return (now | {"bytes": 0} == state | {"bytes": 0}
                    and int(now["bytes"]) <= int(state["bytes"]) + (64 << 10))

        wait_until(is_same, what, patience=10)

    def cube(self, **properties):
        self.count += 1
        cube = self.m.cube(f"cube{self.count}")
        for name, value in properties.items():
            put(cube, name, value)
        return cube

    def copy(self, source, **properties):
        """The cube, and the sentence of the refusal, or None."""
        cube = self.cube(**properties)
        before = self.state(cube)
        result = run("cp", "-p", source, cube / "append", check=False, env=dict(os.environ, LC_ALL="C"))
        if result.returncode == 0:
            return cube, None
        sentence = last_error(cube)
        said = result.stderr.decode()
        if not any(os.strerror(e) in said for e in (errno.EINVAL, errno.EFBIG)):
            raise AssertionError(f"cp said {said!r}; last-error: {sentence!r}")
        self.wait_for(cube, before, f"the empty cube is as it was before {sentence!r}")
        if not 10 < len(sentence) < 400 or "\n" in sentence:
            raise AssertionError(f"no sentence: {sentence!r}")
        put(self.witness, "hdu", properties.get("hdu", "first"))
        again = run("cp", "-p", source, self.witness / "append", check=False)
        if again.returncode == 0:
            raise AssertionError(f"refused by an empty cube, but taken by another: {sentence}")
        self.wait_for(self.witness, self.expected, f"a cube is as it was before {sentence!r}")
        if self.m.process.poll() is not None:
            raise AssertionError(f"the daemon died: {sentence}")
        return cube, sentence

    def copy_any(self, source):
        """As copy(), where the two cubes may differ in what they say."""
        cube = self.cube()
        before = self.state(cube)
        result = run("cp", "-p", source, cube / "append", check=False)
        if self.m.process.poll() is not None:
            raise AssertionError("the daemon died")
        if result.returncode == 0:
            return cube, None
        self.wait_for(cube, before, "the cube is as it was before")
        return cube, last_error(cube)

    def check_taken(self, cube, source, values):
        """What append/FILE and cube.npy must be when it was taken."""
        frame = cube / "append" / source.name
        if frame.read_bytes() != source.read_bytes():
            raise AssertionError(f"{frame} is not what came in")
        here, there = frame.stat(), source.stat()
        if (here.st_size, here.st_mtime_ns) != (there.st_size, there.st_mtime_ns):
            raise AssertionError(f"{frame} has not the size and time of what came in")
        expected = as_cube(values)
        shape = " ".join(str(n) for n in reversed(expected.shape))
        if meta(cube, "shape") != shape:
            raise AssertionError(f"meta/shape is {meta(cube, 'shape')}, not {shape}")
        assert_values(np.load(cube / "cube.npy"), expected)


def read_image(path, hdu=0):
    """The values of one image by astropy, in native byte order."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with fits.open(path, memmap=False) as file:
            return file[hdu].data.astype(file[hdu].data.dtype.newbyteorder("="))
