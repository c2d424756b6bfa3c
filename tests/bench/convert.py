#!/usr/bin/python3
"""What it costs that a frame has another element type than its cube: cp of one large frame.

README.md beside this file says how to run it and how to read the table.
"""
import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/support"))
from mounted import Mounted

# File's type, cube's type.
PAIRS = [("float64", "float32"), ("float32", "float64"), ("int16", "float32"),
         ("uint16", "int32"), ("float64", "int16"), ("int32", "float64")]


def make_frame(path, dtype, size):
    frame = np.lib.format.open_memmap(path, "w+", dtype, (size // 8192 // np.dtype(dtype).itemsize,
                                                          8192))
    frame[:] = np.arange(8192) % 1000  # values that all types have
    frame.flush()


def copy(frame, dtype):
    with Mounted() as m:
        cube = m.cube("a")
        (cube / "meta/dtype").write_text(dtype)
        start = time.perf_counter()
        subprocess.run(["cp", frame, cube / "append"], check=True)
        return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mib", type=int, default=1024, help="size of the frame")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--directory", default="/tmp", help="where stores and frames lie")
    parser.add_argument("--daemon", default=ROOT / "build/accretefs")
    args = parser.parse_args()
    os.environ["ACCRETEFS"] = str(args.daemon)
    tempfile.tempdir = args.directory
    print(f"cp of a frame of {args.mib} MiB; speed relative to the same cp into a cube of its type")
    with tempfile.TemporaryDirectory() as base:
        for of_file, of_cube in PAIRS:
            frame = pathlib.Path(base) / "frame.npy"
            make_frame(frame, of_file, args.mib << 20)
            plain, converting = [], []
            for _ in range(args.rounds):
                plain.append(copy(frame, of_file))
                converting.append(copy(frame, of_cube))
            speed = statistics.median(plain) / statistics.median(converting)
            print(f"{of_file:>8} -> {of_cube:<8} {speed:5.2f}   "
                  f"({min(plain):.2f}..{max(plain):.2f} s; "
                  f"{min(converting):.2f}..{max(converting):.2f} s)", flush=True)


if __name__ == "__main__":
    main()
