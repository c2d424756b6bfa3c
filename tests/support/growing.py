"""What a cube must hold after any sequence of copies into its doors, removals and restorations.

The model is as simple as can be: every index of an axis is an object, and an array a frame. Objects
are shared by the frames that cover the index; an index is shown as long as a live frame covers it,
and kept in its place as long as a removed one does.
"""
import copy
import itertools
import os

import numpy as np
from frames import LETTERS, assert_same, fits_bytes, generator, npy_bytes
from mounted import OneMountTest, fails, last_error, meta, shape_of, temporary_directory


def default_pad(dtype):
    return np.dtype(dtype).type(np.nan if np.dtype(dtype).kind == "f" else 0)


def of_rank(array, rank):
    """With extents of 1 along the missing slowest axes; superfluous ones taken away."""
    array = np.asarray(array)
    while array.ndim > rank and array.shape[0] == 1:
        array = array[0]
    return array.reshape((1,) * (rank - array.ndim) + array.shape)


def door(side, axis=None, index=None):
    """The path of a door below the cube; `axis` is a letter or nothing."""
    return "/".join(str(part) for part in (side, axis, index) if part is not None)


class Index:
    """One index of an axis; compared by identity."""


class Frame:
    def __init__(self, number, array, axis, indexes):
        self.number = number  # counts what came
        self.array = array
        self.axis = axis  # that it grew, 0 the fastest
        self.indexes = indexes  # for each axis, the fastest first
        self.removed = False


class Model:
    def __init__(self, rank, dtype, pad=None, letters=LETTERS):
        self.letters = letters[:rank]
        self.dtype = np.dtype(dtype)
        self.pad = default_pad(dtype) if pad is None else self.dtype.type(pad)
        self.axes = [[] for _ in range(rank)]
        self.frames = {}
        self.numbers = itertools.count()

    def live(self):
        return {n: f for n, f in self.frames.items() if not f.removed}

    def removed(self):
        return {n: f for n, f in self.frames.items() if f.removed}

    def shown(self, axis):
        covered = {i for f in self.live().values() for i in f.indexes[axis]}
        return [i for i in self.axes[axis] if i in covered]

    def shape(self):
        """The fastest axis first, as in meta/shape."""
        return [len(self.shown(a)) for a in range(len(self.axes))]

    def array(self):
        shown = [{index: i for i, index in enumerate(self.shown(a))}
                 for a in range(len(self.axes))]
        cube = np.full([len(s) for s in reversed(shown)], self.pad, self.dtype)
        for frame in self.live().values():
            places = [[s[i] for i in own] for s, own in zip(shown, frame.indexes)]
            cube[np.ix_(*reversed(places))] = frame.array
        return cube

    def mask(self):
        """1 where a frame gave the element."""
        ones = copy.copy(self)
        ones.dtype, ones.pad = np.dtype("uint8"), 0
        ones.frames = {n: copy.copy(f) for n, f in self.frames.items()}
        for frame in ones.frames.values():
            frame.array = np.ones(frame.array.shape, "uint8")
        return ones.array()

    # ---- What a user does ----

    def add(self, name, array, side="append", axis=None, index=None):
        """`axis`: a letter, the slowest one if not given."""
        array = of_rank(array, len(self.axes))
        grown = len(self.axes) - 1 if axis is None else self.letters.index(axis)
        indexes = []
        for a, extent in enumerate(reversed(array.shape)):
            everything, shown = self.axes[a], self.shown(a)
            if a == grown:
                own = [Index() for _ in range(extent)]
                at = {"append": len(everything), "prepend": 0}.get(side)
                if side == "insert":
                    at = everything.index(shown[index]) if index < len(shown) else len(everything)
                everything[at:at] = own
            else:
                own = shown[:extent]
                if extent > len(own):
                    behind = everything.index(shown[-1]) + 1 if shown else 0
                    own = own + everything[behind:][: extent - len(own)]
                fresh = [Index() for _ in range(extent - len(own))]
                everything.extend(fresh)
                own = own + fresh
            indexes.append(own)
        self.frames[name] = Frame(next(self.numbers), array, grown, indexes)

    def remove(self, name):
        self.frames[name].removed = True

    def restore(self, name, to=None):
        frame = self.frames.pop(name)
        frame.removed = False
        self.frames[to or name] = frame

    def discard(self, name):
        del self.frames[name]
        self.forget_indexes()

    def forget_indexes(self):
        """Those that no frame covers, live or removed."""
        for a, everything in enumerate(self.axes):
            held = {i for f in self.frames.values() for i in f.indexes[a]}
            self.axes[a] = [i for i in everything if i in held]

    def rename(self, name, to):
        """Onto a name that is used: at the place of that frame, which is gone."""
        frame = self.frames.pop(name)
        if to in self.frames:
            target = self.frames[to]
            assert target.axis == frame.axis
            everything = self.axes[frame.axis]
            own = [i for i in everything if i in frame.indexes[frame.axis]]
            others = [i for i in everything if i not in own]
            at = others.index(target.indexes[frame.axis][0])
            self.axes[frame.axis] = others[:at] + own + others[at:]
        self.frames[to] = frame
        self.forget_indexes()

    def sort(self, key):
        """Frames that grew the slowest axis in order of key(name); equal ones as they came."""
        frames = [(key(name), frame.number, frame) for name, frame in self.frames.items()
                  if frame.axis == len(self.axes) - 1]
        frames.sort(key=lambda f: f[:2])
        own = [i for _, _, frame in frames for i in frame.indexes[-1]]
        self.axes[-1] = own + [i for i in self.axes[-1] if i not in own]

    def names(self):
        """Of the live frames, in order of place along the slowest axis."""
        place = {index: i for i, index in enumerate(self.axes[-1])}
        return sorted(self.live(), key=lambda n: place[self.frames[n].indexes[-1][0]])

    # ---- What the cube shows ----

    def check(self, cube, what=""):
        """The cube shows all of this and nothing else."""
        live, removed = self.live(), self.removed()
        assert sorted(os.listdir(cube / "frames")) == sorted(live), f"{what}: names in frames/"
        assert sorted(os.listdir(cube / "removed")) == sorted(removed), f"{what}: in removed/"
        if not self.frames:
            assert meta(cube, "shape") == "", f"{what}: the cube is still defined"
            return
        assert shape_of(cube) == self.shape(), f"{what}: {shape_of(cube)}, not {self.shape()}"
        if live:
            assert_same(np.load(cube / "cube.npy"), self.array(), what)
        for name, frame in live.items():
            assert_file_shows(cube / "frames" / name, frame.array, f"{what}: frames/{name}")
        for name, frame in removed.items():
            assert_file_shows(cube / "removed" / name, frame.array, f"{what}: removed/{name}")


def assert_file_shows(path, array, what=""):
    """The file holds the array; how many axes of extent 1 its header tells is left open."""
    data = path.read_bytes()
    if data.startswith(b"\x93NUMPY"):
        assert_same(of_rank(np.load(path), array.ndim), array, what)
        return
    made = elements_of(fits_bytes(array))[: array.nbytes]
    assert elements_of(data).startswith(made), f"{what}: other elements"


def elements_of(data):
    """A FITS file's bytes behind its first header."""
    ends = (at for at in range(2880, len(data) + 1, 2880) if data[:at].rstrip().endswith(b"END"))
    return data[next(ends):]


def frame_table(cube):
    """meta/frames as a list of dictionaries."""
    head, *rows = [line.split("\t") for line in meta(cube, "frames").split("\n")]
    return [dict(zip(head, row)) for row in rows]


def stored_bytes(cube):
    return int(meta(cube, "bytes"))


def sync(cube):
    """Of the kernel's calls only fsync reaches the daemon, not sync or syncfs."""
    file = os.open(cube, os.O_RDONLY)
    os.fsync(file)
    os.close(file)


class GrowingTest(OneMountTest):
    """One mount for all tests of a class, a fresh cube and a directory beside for each."""

    def setUp(self):
        super().setUp()
        directory = temporary_directory()
        self.base = directory.__enter__()
        self.addCleanup(directory.__exit__, None, None, None)
        self.rng = generator()
        self.count = 0

    def file(self, array, cards=(), name=None, kind="fits"):
        """A file beside the mount that holds the array; its path."""
        path = self.base / (name or f"f{self.count:04}.{kind}")
        self.count += 1
        data = fits_bytes(array, cards) if kind == "fits" else npy_bytes(array)
        path.write_bytes(data)
        return path

    def refuse(self, path, door_path, because, *words, cube=None):
        """cp fails for that reason, the cube is as before, a sentence with these words tells why."""
        cube = cube or self.cube
        before = self.state(cube)
        fails("cp", path, cube / door_path, because=because)
        self.assertEqual(self.state(cube), before)
        sentence = last_error(cube)
        for word in words:
            self.assertIn(word, sentence)
        return sentence

    def state(self, cube):
        """What a refusal must leave alone."""
        whole = cube / "cube.npy"
        return (meta(cube, "shape"), sorted(os.listdir(cube / "frames")),
                sorted(os.listdir(cube / "removed")),
                whole.read_bytes() if whole.exists() else None)
