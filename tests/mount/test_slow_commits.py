"""A file that takes long to commit holds up nobody else."""
import gzip
import os
import subprocess
import time
import unittest

import numpy as np
from frames import fits_bytes
from mounted import OneMountTest, run, scaled, temporary_directory

SIZE = scaled(2000, 500)


class SlowCommits(OneMountTest):
    def test_many_packed_frames_at_once_hold_up_no_reader(self):
        cube = self.cube
        base = self.enterContext(temporary_directory())
        plain = fits_bytes(np.random.default_rng(1).integers(0, 999, (SIZE, SIZE)).astype("int32"))
        packed = gzip.compress(plain, 1)
        (cube / "append/first.fits").write_bytes(plain)
        with open(base / "f.gz", "wb") as file:
            file.write(packed)
        writers = [subprocess.Popen(["cp", base / "f.gz", cube / f"append/f{i}.gz"])
                   for i in range(16)]
        slowest = 0
        reads = 0
        while any(writer.poll() is None for writer in writers):
            start = time.monotonic()
            os.listdir(cube / "append")
            for name in os.listdir(cube / "append"):
                os.stat(cube / "append" / name)
            with open(cube / "slices/xy/z0.raw", "rb") as file:
                file.read(4096)
            slowest = max(slowest, time.monotonic() - start)
            reads += 1
        self.assertEqual([writer.returncode for writer in writers], [0] * 16)
        self.assertGreater(reads, 3)
        print(f"{reads} rounds of reading, the slowest took {slowest:.3f} s")
        self.assertEqual(len(os.listdir(cube / "frames")), 17)
        for i in range(16):
            run("cmp", base / "f.gz", cube / f"append/f{i}.gz")


if __name__ == "__main__":
    unittest.main()
