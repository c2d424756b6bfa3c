"""The power goes: a sample of what power_loss/power_loss.cc tries on ext4 and on xfs.

ACCRETE_POWER_LOSS_SECONDS is how long all of it takes, about.
"""
import os
import subprocess
import unittest

import mounted
from bad_disk import need_root
from frames import SEED
from mounted import program

KINDS = 6
SECONDS = float(os.environ.get("ACCRETE_POWER_LOSS_SECONDS", 60 * max(mounted.SCALE, 0.5))) / KINDS


class PowerLoss(unittest.TestCase):
    def setUp(self):
        need_root(self)

    def sample(self, *options):
        command = [program("POWER_LOSS"), "--seed", SEED, "--seconds", round(SECONDS), *options]
        print(" ".join(map(str, command[1:])), flush=True)
        result = subprocess.run([str(c) for c in command], check=False,
                                timeout=SECONDS + 2 * mounted.PATIENCE)
        self.assertEqual(result.returncode, 0)

    def test_any_operations(self):
        for kind in ("ext4", "xfs"):
            self.sample("--fs", kind, "--per-round", 100)

    def test_sequences_of_two(self):
        for kind in ("ext4", "xfs"):
            self.sample("--fs", kind, "--sequences", 2)

    def test_the_filesystem_stops(self):
        for kind in ("ext4", "xfs"):
            self.sample("--fs", kind, "--shutdowns", 1000)


if __name__ == "__main__":
    mounted.main()
