#!/usr/bin/python3
"""What it costs that frames came in any order: reading a cube of many runs, and sorting on arrival.

README.md beside this file says how to run it and how to read the table.
"""
import argparse
import os
import pathlib
import random
import statistics
import sys
import time

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/support"))
from frames import npy_bytes
from mounted import Mounted


def timed(action):
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def write_frame(cube, door, name, data):
    (cube / door / name).write_bytes(data)


def fill(cube, planes, side, interior):
    """A cube of `planes` planes, appended in order or inserted at random places."""
    rng = np.random.default_rng(1)
    for i in range(planes):
        door = f"insert/z/{random.randint(0, i)}" if interior else "append"
        write_frame(cube, door, f"f{i:06}.npy", npy_bytes(rng.random((side, side), np.float32)))


def read_all(paths):
    for path in paths:
        with open(path, "rb", buffering=0) as file:
            while file.read(1 << 20):
                pass


def compare_reading(m, planes, side, rounds):
    cubes = {}
    for kind in ("appended", "inserted"):
        cubes[kind] = m.cube(kind)
        fill(cubes[kind], planes, side, kind == "inserted")
    some = [random.randrange(planes) for _ in range(min(planes, 300))]
    pixels = [(random.randrange(side), random.randrange(side)) for _ in range(300)]
    views = {
        "planes, slices/xy": [f"slices/xy/z{z}.raw" for z in some],
        "rows, slices/xz": [f"slices/xz/y{y}.raw" for y in range(0, side, 4)],
        "all columns, slices/zx": [f"slices/zx/y{y}.raw" for y in range(0, side, 4)],
        "single columns, slices/z": [f"slices/z/x{x}/y{y}.raw" for x, y in pixels],
    }
    print(f"\nReading {planes} planes of {side}x{side} float32, inserted at random places, "
          "by the time of the same appended in order")
    for what, names in views.items():
        times = {kind: [] for kind in cubes}
        for _ in range(rounds):
            for kind, cube in cubes.items():
                times[kind].append(timed(lambda: read_all(cube / name for name in names)))
        medians = {kind: statistics.median(t) for kind, t in times.items()}
        print(f"  {what:28}{medians['inserted'] / medians['appended']:6.2f}   "
              f"(median {1e3 * medians['appended']:.0f} ms, {1e3 * medians['inserted']:.0f} ms)")


def compare_arrival(m, frames):
    """Frames of 16 bytes under names in random order; the time of each tenth of them."""
    names = list(range(frames))
    random.shuffle(names)
    step = frames // 10
    data = npy_bytes(np.zeros((2, 2), np.float32))
    print(f"\nArrival of {frames} frames in random order, by tenths, microseconds a frame")
    for order in ("arrival", "name"):
        cube = m.cube(order)
        (cube / "meta/order").write_text(order)
        times = []
        for begin in range(0, frames, step):
            times.append(timed(lambda: [write_frame(cube, "append", f"f{n}.npy", data)
                                        for n in names[begin:begin + step]]))
        per_frame = [f"{1e6 * t / step:.0f}" for t in times]
        print(f"  order={order:8} {' '.join(per_frame)}   last tenth / first {times[-1] / times[0]:.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--daemon", default=str(ROOT / "build/accretefs"))
    parser.add_argument("--planes", type=int, default=1000)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--frames", type=int, default=100000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    random.seed(1)
    os.environ["ACCRETEFS"] = str(pathlib.Path(arguments.daemon).resolve())
    with Mounted() as m:
        compare_reading(m, arguments.planes, arguments.side, arguments.rounds)
        compare_arrival(m, arguments.frames)


if __name__ == "__main__":
    main()
