#!/usr/bin/python3
"""What it costs to insert one plane, at each side of a cube and in its middle.

README.md beside this file says how to run it and how to read the table.
"""
import argparse
import contextlib
import math
import os
import pathlib
import shutil
import signal
import statistics
import sys
import tempfile
import unittest

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/support"))
from cubes import AccreteCube, Hdf5, Numpy, Refused, Zarr, place
from mounted import Mounted

GIBI, MEBI = 1 << 30, 1 << 20
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# The doors of a group are used in turn; {} is the middle. Axes z, y, x are numpy's 0, 1, 2.
GROUPS = (("append/", "prepend/", "insert/z/{}/"), ("append/x/",), ("append/y/",))
LIMITS = {"time": 2, "written": 1.2, "space": 1.2}
RATIOS = ("time", "written", "dirtied", "space", "du", "meta/bytes")
COLUMNS = ("door", "program", "new MiB", "median ms", "least..most",
           *(f"{name} " for name in RATIOS), "layers")
LEGEND = f"""
Medians of {{}} rounds. From "time" on, all are ratios: time to that of the row that the heading
names, the others to the bytes of the new planes.
  written     by write() and the like          dirtied     as pages of files
  space       disk under data                  du          by blocks, with what is allocated only
  meta/bytes  as the cube tells of itself      layers      whether what was stored is unchanged
Limits for AccreteFS: {", ".join(f"{n} {most}" for n, most in LIMITS.items())}; ! is beyond."""


class Row:
    """A line of the table: what several insertions of one kind cost, and relative to which row."""

    def __init__(self, door, program, base=None):
        self.door, self.program, self.base = door, program, base or self
        self.times, self.new, self.costs, self.refused, self.layers = [], 0, {}, "", ""

    def measure(self, cube, door, frame, seen=True):
        """Inserts a frame; `seen`: it has all axes, so look whether it is where it belongs."""
        if self.refused:
            return
        axis, at = place(door, cube.shape)
        before, layers = cube.state(), cube.watch()
        try:
            self.times.append(cube.insert(door, frame))
        except Refused as refused:
            self.refused = str(refused)
            say(f"{door} refuses: {refused}")
            return
        after = cube.state()
        self.new += frame.nbytes
        for name in before:
            self.costs[name] = self.costs.get(name, 0) + after[name] - before[name]
        found = layers() if not seen or cube.shows(axis, at, frame) else "WRONG DATA"
        if not self.is_bad():
            self.layers = found

    def is_bad(self):
        return self.layers in ("CHANGED", "WRONG DATA")

    def cells(self):
        if self.refused or not self.times:
            return [self.door, self.program, f"REFUSED: {self.refused}"]
        ratios = {name: cost / self.new for name, cost in self.costs.items()}
        median = statistics.median(self.times)
        if self.base.times:
            ratios["time"] = median / statistics.median(self.base.times)
        limits = LIMITS if self.program == AccreteCube.name else {}

        def cell(column):
            value = ratios[column]
            mark = "!" if value > limits.get(column, math.inf) else " "
            return f"{value:.{3 if value < 10 else 1}f}{mark}"

        return [self.door, self.program, f"{self.new / len(self.times) / MEBI:.2f}",
                f"{median * 1e3:.1f}", f"{min(self.times) * 1e3:.1f}..{max(self.times) * 1e3:.1f}",
                *(cell(column) if column in ratios else "- " for column in RATIOS), self.layers]


def cube_shape(size):
    """Of float32, in numpy's order: nz, ny, nx, where nx = ny >= nz."""
    edge = 1 << math.ceil(math.log2(size / 4) / 3)
    return max(1, size // (4 * edge * edge)), edge, edge


def new_frame(rng, shape, axis):
    return rng.random([1 if a == axis else n for a, n in enumerate(shape)], np.float32)


def say(text):
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def undisturbed():
    """Signals wait for the end of the block; programs started in it never get them."""
    old = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)


class Mount(Mounted):
    """Ctrl-C ends neither the daemon, which is still in use then, nor the cleaning up."""

    def start(self):
        with undisturbed():
            return super().start()

    def __exit__(self, *error):
        with undisturbed():
            return super().__exit__(*error)


def end(*_):
    raise KeyboardInterrupt("interrupted")


def measure_big(options, rng):
    """Rows for a cube too large for others: what each door costs, beside a plain append."""
    shape, rows = cube_shape(options.size), []
    say(f"making a cube of {options.size / GIBI:g} GiB")
    with Mount(parent=options.directory) as mount:
        big = AccreteCube(mount, "big")
        big.make_sparse(shape)
        for doors in GROUPS:
            axis, _ = place(doors[0], shape)
            base, plain = Row("append/", big.name), big
            if axis:  # the same bytes, in a cube whose planes are like those of the side
                base, plain = Row("append/ (as much)", big.name), AccreteCube(mount, f"plain{axis}")
                plain.insert("append/", new_frame(rng, shape, axis).squeeze(axis))
            group = [(base, plain, "append/")]
            for door in doors:
                if door != "append/":
                    door = door.format(shape[0] // 2)
                    group.append((Row(door, big.name, base), big, door))
            say("measuring " + ", ".join(row.door for row, *_ in group))
            for _ in range(options.rounds):
                for row, cube, door in group:
                    frame = new_frame(rng, big.shape, axis)
                    if cube is not big:
                        frame = frame.squeeze(axis)
                    row.measure(cube, door, frame, seen=cube is big)
            rows += (row for row, *_ in group)
    return rows


def measure_small(options, rng):
    """Rows for a cube that others can grow too: what they need beside AccreteFS."""
    shape, rows = cube_shape(options.small), {}
    say(f"making cubes of {options.small / GIBI:g} GiB")
    with Mount(parent=options.directory) as mount:
        first = rng.random(shape, np.float32)
        cubes = [AccreteCube(mount, "small"), Numpy(mount.base, first)]
        cubes[0].insert("append/", first)
        for kind, chunks in (("planes", (1, *shape[1:])), ("64x64x64", (64, 64, 64))):
            cubes += (Hdf5(mount.base, kind, first, chunks), Zarr(mount.base, kind, first, chunks))
        del first
        for doors in GROUPS:
            doors = [door.format(shape[0] // 2) for door in doors]
            for door in doors:
                for cube in cubes:
                    base = rows.get((door, AccreteCube.name))
                    rows[door, cube.name] = Row(door, cube.name, base)
            say("measuring " + ", ".join(doors))
            for _ in range(options.rounds):
                for door in doors:
                    frame = new_frame(rng, cubes[1].shape, place(door, shape)[0])
                    for cube in cubes:
                        fitting = frame[tuple(slice(n) for n in cube.shape)]
                        rows[door, cube.name].measure(cube, door, np.ascontiguousarray(fitting))
        for cube in cubes:
            own = [row for row in rows.values() if row.program == cube.name]
            if not any(row.refused for row in own) and not same(cube.array, cubes[1].array):
                own[-1].layers = "WRONG DATA"
    return list(rows.values())


def same(a, b):
    return a.shape == b.shape and all(np.array_equal(a[z:z + 16], b[z:z + 16])
                                      for z in range(0, len(b), 16))


def print_table(parts):
    table = [COLUMNS, *(row.cells() for _, rows in parts for row in rows)]
    full = [cells for cells in table if len(cells) == len(COLUMNS)]
    widths = [max(len(cells[i]) for cells in full) for i in range(len(COLUMNS))]
    widths[0] = max(len(cells[0]) for cells in table)

    def show(cells):
        texts = [cell.ljust(width) if i < 2 else cell.rjust(width)
                 for i, (cell, width) in enumerate(zip(cells, widths))]
        print("  ".join(texts).rstrip())

    show(COLUMNS)
    for heading, rows in parts:
        print(f"-- {heading}")
        for row in rows:
            show(row.cells())


def size(text):
    factor = {"K": 1 << 10, "M": MEBI, "G": GIBI, "T": 1 << 40}.get(text[-1:].upper())
    return int(float(text[:-1]) * factor) if factor else int(text)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--daemon", type=pathlib.Path, default=ROOT / "build/accretefs")
    parser.add_argument("--size", type=size, default=16 * GIBI,
                        help="of the large cube, which is sparse; 0: leave it out (16G)")
    parser.add_argument("--small", type=size, default=GIBI,
                        help="of the cube that others grow too; 0: leave it out (1G)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--directory", help="where cubes are made for the time of the run (/tmp)")
    options = parser.parse_args()
    os.environ["ACCRETEFS"] = str(options.daemon.resolve())
    if not os.access(options.daemon, os.X_OK):
        sys.exit(f"there is no {options.daemon}: build it, or name it by --daemon")
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, end)
    space = shutil.disk_usage(options.directory or tempfile.gettempdir()).free
    if space < 14 * options.small + options.size // 16:
        sys.exit("too little space for --small: it takes up to 14 times that much on the disk")

    rng, parts = np.random.default_rng(1), []
    try:
        if options.size:
            parts.append((f"a cube of {options.size / GIBI:g} GiB; time to that of a plain append",
                          measure_big(options, rng)))
        if options.small:
            parts.append((f"a cube of {options.small / GIBI:g} GiB; time to that of AccreteFS",
                          measure_small(options, rng)))
    except (unittest.SkipTest, KeyboardInterrupt) as reason:
        sys.exit(f"not measured: {reason}")
    print_table(parts)
    print(LEGEND.format(options.rounds))
    sys.exit(any(row.is_bad() for _, rows in parts for row in rows))


if __name__ == "__main__":
    main()
