"""tests/bench/bench.py measures all that it says, in a small run; what comes of it means nothing."""
import json
import os
import pathlib
import unittest

import mounted
from mounted import need_fuse, run, temporary_directory

BENCH = pathlib.Path(__file__).resolve().parent.parent / "bench" / "bench.py"


class Bench(unittest.TestCase):
    def test_each_work_is_measured(self):
        need_fuse()
        with temporary_directory() as base:
            out = base / "out.json"
            said = run(BENCH, "--scale", "0.003", "--rounds", 1, "--no-pin", "--directory", base,
                       "--json", out, check=False)
            self.assertIn(said.returncode, (0, 1), said.stderr.decode())  # 1: a bound is missed
            found = json.loads(out.read_text())
            names = run(BENCH, "--list").stdout.decode().splitlines()
            self.assertEqual({name.split()[0] for name in names}, set(found["times"]))
            for line in found["lines"]:
                with self.subTest(f"{line['title']}: {line['against']}"):
                    # Libraries that are not installed, and caches that only root can drop.
                    allowed = ["", "no h5py", "no zarr", "no numpy"]
                    if os.geteuid() != 0:
                        allowed.append("needs root to drop caches")
                    self.assertIn(line["missing"].removesuffix(" planar").removesuffix(" cubic"),
                                  allowed, said.stderr.decode())
                    if not line["missing"]:
                        self.assertGreater(line["ratio"][1], 0)
            table = said.stdout.decode()
            for line in found["lines"]:
                self.assertIn(line["title"], table)
            self.assertEqual([path.name for path in base.iterdir()], ["out.json"])

    def test_a_bound_decides_the_exit_status(self):
        need_fuse()
        with temporary_directory() as base:
            run(BENCH, "--scale", "0.003", "--rounds", 1, "--no-pin", "--directory", base,
                "--rows", "many.mount")  # a second and 64 MiB are enough for 500 frames
            said = run(BENCH, "--rows", "none.such", check=False)
            self.assertNotEqual(said.returncode, 0)
            self.assertIn("none.such", said.stderr.decode())


if __name__ == "__main__":
    mounted.main()
