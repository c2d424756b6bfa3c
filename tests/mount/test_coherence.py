"""Many processes poke and read a cube through all kinds of views while frames come and go: nobody
sees an old, torn or foreign element, and no poke is lost. See coherence_stress.cc.

ACCRETE_STRESS_SECONDS is how long all of it takes, about.
"""
import ctypes
import os
import subprocess
import unittest

import mounted
import numpy as np
from frames import SEED, assert_same, cut, read_view, view_name
from mounted import Mounted, program, shape_of, temporary_directory

MODES = 4
SECONDS = float(os.environ.get("ACCRETE_STRESS_SECONDS", "120")) / MODES
if "ACCRETE_STRESS_SECONDS" not in os.environ:
    SECONDS = max(4, SECONDS * mounted.SCALE)
HUNG = 3
MNT_FORCE, MNT_DETACH = 1, 2


def stress(*arguments, **more):
    command = [program("COHERENCE_STRESS"), "--seed", SEED, *arguments]
    print(" ".join(map(str, command[1:])), flush=True)
    # Not through a pipe: processes that hang would keep it open.
    return subprocess.run([str(c) for c in command], timeout=SECONDS + 20 * mounted.PATIENCE,
                          check=False, **more).returncode


def abort(m):
    """Ends a mount on which processes hang. The death of the daemon alone would not do while one of
    its threads waits in the kernel for them."""
    m.process.kill()
    ctypes.CDLL(None, use_errno=True).umount2(os.fsencode(m.mnt), MNT_FORCE | MNT_DETACH)


class Coherence(unittest.TestCase):
    def assert_shows(self, cube, expected):
        self.assertEqual(shape_of(cube), list(reversed(expected.shape)))
        depth, height, width = expected.shape
        for extension in ("raw", "npy", "fits"):
            def check(path, part, kind=extension):
                path = cube / f"{path}.{kind}"
                assert_same(read_view(path, expected.dtype, part.shape), part, path)

            check("cube", expected)
            for axes, letter, extent in (("xy", "z", depth), ("yx", "z", depth),
                                         ("zx", "y", height), ("xz", "y", height),
                                         ("zy", "x", width), ("yz", "x", width)):
                for i in range(0, extent, 5):
                    check(f"slices/{view_name(axes, {letter: i})}",
                          cut(expected, axes, {letter: i}))

    def run_mode(self, mount_options, dtype, frames):
        with Mounted(options=["-o", mount_options]) as m, temporary_directory() as base:
            options = ["--cached"] if "io=cached" in mount_options else []
            cube = m.cube("c")
            code = stress("--seconds", SECONDS, "--patience", mounted.PATIENCE / 2, "--type", dtype,
                          "--frames", frames, "--save", base / "expected", *options, cube)
            if code == HUNG:
                abort(m)
            self.assertEqual(code, 0)
            expected = np.fromfile(base / "expected", dtype).reshape(shape_of(cube)[::-1])
            self.assertGreater(len(expected), 16)
            self.assert_shows(cube, expected)
            m.remount()
            self.assert_shows(cube, expected)

    def test_direct(self):
        self.run_mode("io=direct", "uint64", "npy")

    def test_cached(self):
        self.run_mode("io=cached", "int64", "fits")

    def test_direct_with_fewest_threads(self):
        self.run_mode("io=direct,threads=2", "uint32", "fits")

    def test_cached_with_fewest_threads(self):
        self.run_mode("io=cached,threads=2", "uint64", "fits")


class TheStressItself(unittest.TestCase):
    """On an ordinary file, which is coherent, and with faults made on purpose."""

    def on_a_plain_file(self, fault, *options):
        with temporary_directory() as base:
            (base / "plain").mkdir()
            with open(base / "out", "wb") as out:
                code = stress("--seconds", 1 if fault == "none" else 20, "--inject", fault, *options,
                              "--plain", base / "plain", stdout=out, stderr=out)
            text = (base / "out").read_text()
            print(text[-2000:] if code and fault == "none" else text[:300])
            return code, text

    def test_an_ordinary_file_passes(self):
        for dtype in ("uint64", "int64", "uint32"):
            self.assertEqual(self.on_a_plain_file("none", "--type", dtype)[0], 0)

    def test_faults_are_found(self):
        for fault in ("stale", "torn", "lost"):
            code, text = self.on_a_plain_file(fault)
            self.assertEqual(code, 1)
            self.assertIn(f": {fault.upper()}: ", text)

    def test_a_process_that_hangs_is_found_and_told(self):
        code, text = self.on_a_plain_file("hang", "--patience", "3")
        self.assertEqual(code, HUNG)
        self.assertRegex(text, r"no progress for 3 s:\nprocess \d+ .*: pwrite \d+ bytes at \d+ of cube")


if __name__ == "__main__":
    mounted.main()
