"""Cubes into which planes are inserted: of AccreteFS, and as other programs keep them.

All have a name, a shape and an array, in numpy's order of axes, and the same methods.
"""
import contextlib
import errno
import fcntl
import hashlib
import io
import math
import os
import pathlib
import struct
import subprocess
import time

import h5py
import numpy as np
import zarr
from mounted import last_error, meta, shape_of

MEBI = 1 << 20


class Refused(Exception):
    """A door did not take a frame."""


def place(door, shape):
    """The axis that a frame copied into the door extends, and its index there."""
    side, axis, index, *_ = [*door.split("/"), "", ""]
    axis = {"x": 2, "y": 1}.get(axis, 0)
    return axis, int(index) if side == "insert" else 0 if side == "prepend" else shape[axis]


def span(axis, begin, end):
    return (slice(None),) * axis + (slice(begin, end),)


def disk_usage(path):
    return sum(p.lstat().st_blocks * 512 for p in (path, *path.rglob("*")))


def process_io(pid):
    lines = pathlib.Path(f"/proc/{pid}/io").read_text().splitlines()
    counts = dict(line.split(": ") for line in lines)
    return {"written": int(counts["wchar"]), "dirtied": int(counts["write_bytes"])}


def npy_header(shape):
    target = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        target, {"descr": "<f4", "fortran_order": False, "shape": tuple(shape)})
    return target.getvalue()


def file_extents(path):
    """(begin, end, whether it is only reserved) of what a file has on the disk, by FIEMAP.

    SEEK_DATA takes reserved blocks for data when they lie in the page cache.
    """
    request, extent = struct.Struct("=QQIIII"), struct.Struct("=QQQ16xI12x")
    sync, last, unwritten, at_once = 1, 1, 0x800, 1024
    at, flags, count, found = 0, 0, at_once, []
    with open(path, "rb") as file:
        while count and not flags & last:
            answer = bytearray(request.size + at_once * extent.size)
            request.pack_into(answer, 0, at, (1 << 63) - at, sync, 0, at_once, 0)
            try:
                fcntl.ioctl(file, 0xC020660B, answer)
            except OSError as error:
                raise SystemExit(f"{path.parent}: {error.strerror}; choose a --directory on ext4, "
                                 "xfs or btrfs, which tell what they have allocated") from None
            count = request.unpack_from(answer)[3]
            for i in range(count):
                begin, _, length, flags = extent.unpack_from(answer, request.size + i * extent.size)
                at = begin + length
                found.append((begin, at, bool(flags & unwritten)))
    return found


@contextlib.contextmanager
def written(path):
    """A new file. Its close() may fail, which is heard; but not when it is given up anyway."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        yield file
    except BaseException:
        with contextlib.suppress(OSError):
            os.close(file)
        raise
    os.close(file)


class AccreteCube:
    """A cube of AccreteFS; frames are copied into its doors."""

    name = "AccreteFS"

    def __init__(self, mount, name):
        self.path, self.store, self.pid = mount.cube(name), mount.store / name, mount.pid
        self.column = None  # what the line along z at x = y = 0 must hold, if that is watched

    @property
    def shape(self):
        return tuple(reversed(shape_of(self.path)))

    def view(self, name):
        return np.load(self.path / f"{name}.npy", mmap_mode="r")

    @property
    def array(self):
        return self.view("cube")

    def make_sparse(self, shape):
        """By one huge frame of holes: 16 planes and the first row of the others hold z + 1."""
        header, plane = npy_header(shape), 4 * shape[1] * shape[2]
        self.column = np.arange(1, shape[0] + 1, dtype=np.float32)
        with written(self.path / "append/first.npy") as file:
            os.write(file, header)
            for z, value in enumerate(self.column):
                os.lseek(file, len(header) + z * plane, os.SEEK_SET)
                for _ in range(1 if z % math.ceil(shape[0] / 16) else shape[1]):
                    os.write(file, np.full(shape[2], value))
            os.ftruncate(file, len(header) + shape[0] * plane)

    def insert(self, door, frame):
        """As cp does it; returns the seconds from open() to the end of close()."""
        path = self.path / door / f"{time.time_ns()}.npy"
        data = memoryview(npy_header(frame.shape) + frame.tobytes())
        begin = time.perf_counter()
        try:
            with written(path) as file:
                for at in range(0, len(data), MEBI):
                    os.write(file, data[at:at + MEBI])
        except OSError as error:
            why = "no such door" if error.errno == errno.ENOENT else last_error(self.path)
            raise Refused(f"{error.strerror}: {why}") from None
        return time.perf_counter() - begin

    def state(self):
        subprocess.run(["sync", self.path / "meta"], check=True)
        subprocess.run(["sync", "-f", self.store], check=True)
        used = disk_usage(self.store)
        extents = file_extents(self.store / "bricks")
        reserved = sum(end - begin for begin, end, only in extents if only)
        return {**process_io(self.pid), "space": used - reserved, "du": used,
                "meta/bytes": int(meta(self.path, "bytes"))}

    def watch(self):
        """A function that tells whether all bytes of elements are as they are now."""
        extents = file_extents(self.store / "bricks")
        ranges = [(begin, end) for begin, end, only in extents if not only]
        before = self.digest(ranges)
        return lambda: "kept" if self.digest(ranges) == before else "CHANGED"

    def digest(self, ranges):
        total = hashlib.blake2b()
        with open(self.store / "bricks", "rb", buffering=0) as bricks:
            for begin, end in ranges:
                for at in range(begin, end, MEBI):
                    total.update(os.pread(bricks.fileno(), min(MEBI, end - at), at))
        return total.digest()

    def shows(self, axis, at, frame):
        """Whether the frame is seen at its place, and the planes around it at theirs."""
        letter = "zyx"[axis]
        plane = self.view(f"slices/{'xyz'.replace(letter, '')}/{letter}{at}")
        if axis == 0 and self.column is not None:
            self.column = np.insert(self.column, at, frame[0, 0, 0])
        return np.array_equal(plane, frame.squeeze(axis)) and (
            self.column is None or np.array_equal(self.view("slices/z/y0_x0"), self.column))


class Rival:
    """Another way to keep a cube: in the file or directory `path`, written by this process."""

    def __init__(self, directory, name):
        self.name, self.path = name, directory / name.replace(" ", "-")

    @property
    def shape(self):
        return self.array.shape

    def insert(self, door, frame):
        begin = time.perf_counter()
        self.put(*place(door, self.shape), frame)
        return time.perf_counter() - begin

    def state(self):
        subprocess.run(["sync", "-f", self.path], check=True)
        used = disk_usage(self.path)
        return {**process_io("self"), "space": used, "du": used}

    def watch(self):
        return lambda: "-"

    def shows(self, axis, at, frame):
        return np.array_equal(self.array[span(axis, at, at + 1)], frame)


class Numpy(Rival):
    """In memory, saved after each insertion."""

    def __init__(self, directory, first):
        super().__init__(directory, "numpy")
        self.array = first
        self.save()

    def put(self, axis, at, frame):
        before, after = np.split(self.array, [at], axis)
        self.array = np.concatenate((before, frame, after), axis)
        self.save()

    def save(self):
        with open(self.path, "wb") as file:
            np.save(file, self.array)


class Chunked(Rival):
    """A chunked data set, resized; what lies behind is moved in whole chunks, the last first."""

    def put(self, axis, at, frame):
        end = self.array.shape[axis]
        self.array.resize(tuple(n + (a == axis) for a, n in enumerate(self.array.shape)))
        while end > at:
            begin = max(at, end // 64 * 64 - 1)
            self.array[span(axis, begin + 1, end + 1)] = self.array[span(axis, begin, end)]
            end = begin
        self.array[span(axis, at, at + 1)] = frame
        if isinstance(self.array, h5py.Dataset):
            self.array.file.flush()


class Hdf5(Chunked):
    def __init__(self, directory, kind, first, chunks):
        super().__init__(directory, f"h5py {kind}")
        file = h5py.File(self.path, "w", rdcc_nbytes=64 * MEBI)
        self.array = file.create_dataset("cube", data=first, chunks=chunks, maxshape=(None,) * 3)
        file.flush()


class Zarr(Chunked):
    def __init__(self, directory, kind, first, chunks):
        super().__init__(directory, f"zarr {kind}")
        self.array = zarr.array(first, chunks=chunks, compressor=None, store=str(self.path))
