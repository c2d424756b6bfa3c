"""SIGKILL in the middle of the copying loses nothing that cp had finished."""
import os
import random
import subprocess
import threading
import time
import unittest

import mounted
import numpy as np
from frames import SEED, assert_same, generator, random_array, read_view, write_series
from mounted import Mounted, run, scaled, shape_of, temporary_directory

COPY_LOOP = 'for f in "$1"/*; do cp "$f" "$2" || exit 1; echo "${f##*/}" >> "$3"; done'


def frame_names(cube):
    """Names in order of place."""
    rows = [line.split("\t") for line in (cube / "meta/frames").read_text().splitlines()]
    index = rows[0].index("index")
    name = rows[0].index("name")
    return [row[name] for row in sorted(rows[1:], key=lambda row: int(row[index]))]


class Kill(unittest.TestCase):
    def kill_while_copying(self, m, copy, writers=1, rounds=1):
        """`copy(base, cube, done)` starts a process that notes finished frames in `done`."""
        chance = random.Random(SEED)
        rng = generator()
        (m / "c").mkdir()
        cube = m / "c"
        there = {}
        for turn in range(rounds):
            with temporary_directory() as base:
                (base / "in").mkdir()
                frames = random_array(rng, (400, 40, 300), "float32")
                paths = write_series(base / "in", frames, prefix=f"r{turn}-")
                arrays = {p.name: frame for p, frame in zip(paths, frames)}
                (base / "done").touch()
                copier = copy(base / "in", cube / "append", base / "done")
                time.sleep(chance.uniform(0.02, 0.5) * (4 if mounted.SANITIZE else 1))
                m.process.kill()
                m.process.wait()
                m.process = None
                copier.wait(mounted.PATIENCE)
                m.unmount_dead()
                m.start()
                done = (base / "done").read_text().split()
                names = frame_names(cube)
                self.assertEqual(len(names), len(set(names)))
                fresh = [n for n in names if n not in there]
                print(f"round {turn}: cp had returned for {len(done)}, there are {len(fresh)}")
                self.assertEqual(set(done) - set(fresh), set(), "a finished frame is lost")
                self.assertLessEqual(len(set(fresh) - set(done)), writers)
                if writers == 1:
                    self.assertEqual(fresh, sorted(fresh))
                there.update({n: arrays[n] for n in fresh})
                if names:
                    self.assertEqual(shape_of(cube), [300, 40, len(names)])
                for z, name in enumerate(names):
                    assert_same(read_view(cube / f"slices/xy/z{z}.npy", np.float32, None),
                                there[name], name)
                self.assertEqual(sorted(os.listdir(cube / "frames")), sorted(names))
        # And it grows on as if nothing had been.
        with temporary_directory() as base:
            more = random_array(rng, (3, 40, 300), "float32")
            run("cp", *write_series(base, more, prefix="more"), cube / "append")
            self.assertEqual(shape_of(cube)[2], len(there) + 3)
            found = read_view(cube / "slices/xyz/x0...raw", np.float32, (-1, 40, 300))
            expected = np.stack([there[n] for n in frame_names(cube)[:-3]] + list(more))
            assert_same(found, expected)

    def test_one_copying_loop(self):
        def copy(source, door, done):
            return subprocess.Popen(["bash", "-c", COPY_LOOP, "copy", source, door, done],
                                    stderr=subprocess.DEVNULL)

        with Mounted() as m:
            self.kill_while_copying(m, copy, rounds=scaled(6, 3))

    def test_four_writers_at_once(self):
        def copy(source, door, done):
            line = f"ls -d '{source}'/* | xargs -P4 -I@ sh -c " \
                   f"'cp @ {door} && basename @ >> {done}'"
            return subprocess.Popen(["bash", "-c", line], stderr=subprocess.DEVNULL)

        with Mounted() as m:
            self.kill_while_copying(m, copy, writers=4, rounds=scaled(3, 2))

    def test_a_reader_meanwhile_ends_with_an_error(self):
        with Mounted() as m, temporary_directory() as base:
            cube = m.cube("c")
            run("cp", *write_series(base, random_array(generator(1), (50, 40, 300), "float32")),
                cube / "append")
            stopped = threading.Event()

            def read():
                try:
                    while True:
                        (cube / "cube.raw").read_bytes()
                except OSError:
                    stopped.set()

            reader = threading.Thread(target=read)
            reader.start()
            time.sleep(0.2)
            m.kill()
            self.assertTrue(stopped.wait(mounted.PATIENCE), "the reader hangs")
            reader.join()
            m.start()
            self.assertEqual(shape_of(cube), [300, 40, 50])


if __name__ == "__main__":
    mounted.main()
