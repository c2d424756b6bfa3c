"""A store with damage in it: other cubes are as they were, and the damaged one is recovered, read-only with
a sentence, or cannot be opened; what it shows is right. Every place of damage by itself: core's tests."""
import errno
import hashlib
import os
import shutil
import unittest

import mounted
import numpy as np
from frames import assert_same, fits_bytes, generator, random_array
from mounted import Mounted, errno_of, last_error, meta, run, scaled, shape_of, temporary_directory
from refusals import events_of

SHAPE = (12, 20, 30)


class Damage(unittest.TestCase):
    """A victim and another cube, with and without an orderly end."""

    @classmethod
    def setUpClass(cls):
        cls.rng = generator()
        cls.frames = random_array(cls.rng, SHAPE, "int16")
        directory = temporary_directory()
        cls.base = directory.__enter__()
        cls.addClassCleanup(directory.__exit__, None, None, None)
        with Mounted() as m:
            for name in ("victim", "other"):
                cls.grow(m.cube(name), 0, 9)
                run("sync", m / name / "meta")
            shutil.copytree(m.store, cls.base / "marked")
            # These are behind the last mark.
            cls.grow(m / "victim", 9, 12)
            m.process.kill()
            m.process.wait()
            m.process = None
            m.unmount_dead()
            shutil.copytree(m.store, cls.base / "killed")
            m.start()
            # Two generations: a journal that is long enough gets a checkpoint at the end.
            for i in range(400):
                os.rename(m / f"victim/frames/f{i % 12}.fits", m / "victim/frames/x.fits")
                os.rename(m / "victim/frames/x.fits", m / f"victim/frames/f{i % 12}.fits")
            m.stop()
            shutil.copytree(m.store, cls.base / "clean")
        generations = [n for n in os.listdir(cls.base / "clean/victim") if n.startswith("checkpoint.")]
        assert len(generations) == 2, generations

    @classmethod
    def grow(cls, cube, begin, end):
        for i in range(begin, end):
            (cube / f"append/f{i}.fits").write_bytes(fits_bytes(cls.frames[i]))

    def mount(self, kind, harm):
        """A copy of that store, which `harm` was done to."""
        directory = temporary_directory()
        base = directory.__enter__()
        self.addCleanup(directory.__exit__, None, None, None)
        store = base / "store"
        shutil.copytree(self.base / kind, store)
        harm(store / "victim")
        return Mounted(store=store)

    def check_other(self, m):
        """The other cube is right, and goes on."""
        other = m / "other"
        assert_same(np.load(other / "cube.npy"), self.frames[:9])
        self.grow(other, 9, 10)
        assert_same(np.load(other / "cube.npy"), self.frames[:10])
        self.assertIsNone(m.process.poll(), "the daemon died")

    def check_read_only(self, m, frames):
        """It shows what it has, and takes nothing."""
        victim = m / "victim"
        found = np.load(victim / "cube.npy")
        assert_same(found, self.frames[:frames])
        damage = [e for e in events_of(victim) if e["event"] == "damage"]
        self.assertGreaterEqual(len(damage), 1)
        self.assertIn("read-only", damage[-1]["sentence"])
        self.assertEqual(last_error(victim), damage[-1]["sentence"])
        for call in (lambda: (victim / "append/new.fits").write_bytes(fits_bytes(self.frames[0])),
                     lambda: os.unlink(victim / "frames/f1.fits"),
                     lambda: self.poke(victim / "slices/xy/z0.raw"),
                     lambda: mounted.put(victim, "samename", "refuse")):
            with self.assertRaises(OSError) as raised:
                call()
            self.assertEqual(raised.exception.errno, errno.EROFS)
        assert_same(np.load(victim / "cube.npy"), found)

    @staticmethod
    def poke(path):
        file = os.open(path, os.O_WRONLY)
        try:
            os.pwrite(file, b"new", 0)
        finally:
            os.close(file)

    def check_cannot_be_opened(self, m):
        self.assertIn(errno_of(os.listdir, m / "victim"), ("EIO",))
        self.assertEqual(errno_of(os.open, m / "victim/cube.npy", os.O_RDONLY), "EIO")
        self.assertIn("other", os.listdir(m.mnt))

    @staticmethod
    def flip(path, at):
        with open(path, "r+b") as file:
            size = os.fstat(file.fileno()).st_size
            at = at if at >= 0 else size + at
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ 0x10]))

    @staticmethod
    def contents(directory):
        return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in directory.iterdir()
                if p.name != "history"}

    def test_a_brick_file_that_is_cut_off(self):
        for kind in ("marked", "killed", "clean"):
            for size in (0, 4096):
                with self.subTest(kind, size=size), \
                        self.mount(kind, lambda v, s=size: os.truncate(v / "bricks", s)) as m:
                    before = self.contents(m.store / "victim")
                    self.check_cannot_be_opened(m)
                    self.check_other(m)
                    self.assertEqual(self.contents(m.store / "victim"), before)

    def test_the_tail_of_the_journal(self):
        with self.mount("killed", lambda v: self.flip(v / "journal.000001", -20)) as m:
            self.assertEqual(shape_of(m / "victim")[2], 11)
            assert_same(np.load(m / "victim/cube.npy"), self.frames[:11])
            self.assertEqual(events_of(m / "victim")[-1]["event"], "recover")
            self.grow(m / "victim", 11, 12)
            assert_same(np.load(m / "victim/cube.npy"), self.frames)
            self.check_other(m)

    def test_the_middle_of_the_journal(self):
        for kind, journal in (("marked", "journal.000001"), ("killed", "journal.000001")):
            with self.subTest(kind), self.mount(kind, lambda v, j=journal: self.flip(v / j, 4000)) as m:
                before = self.contents(m.store / "victim")
                shown = shape_of(m / "victim")[2]
                self.assertGreater(shown, 0)
                self.assertLess(shown, 9)
                self.check_read_only(m, shown)
                self.check_other(m)
                m.remount()
                self.check_read_only(m, shown)
                self.assertEqual(self.contents(m.store / "victim"), before)

    def test_elements_behind_the_last_mark(self):
        """Their checksums are looked at: the frame had not reached the disk."""
        def harm(victim):
            content = (victim / "bricks").read_bytes()
            stored = self.frames[10].byteswap().tobytes()
            at = content.index(stored[:60])
            self.flip(victim / "bricks", at + 7)

        with self.mount("killed", harm) as m:
            assert_same(np.load(m / "victim/cube.npy"), self.frames[:10])
            self.check_other(m)

    def test_elements_that_were_marked(self):
        """One bit of one element: found by a check of the store, not by reading."""
        def harm(victim):
            content = (victim / "bricks").read_bytes()
            self.flip(victim / "bricks", content.index(self.frames[3].byteswap().tobytes()[:60]) + 7)

        for kind in ("marked", "clean"):
            with self.subTest(kind), self.mount(kind, harm) as m:
                found = np.load(m / "victim/cube.npy")
                expected = self.frames[: len(found)]
                self.assertEqual(np.count_nonzero(found != expected), 1)
                self.check_other(m)

    def test_the_heap(self):
        for kind in ("marked", "clean"):
            def harm(victim):
                content = (victim / "heap").read_bytes()
                at = [i for i in range(len(content) - 9) if content[i: i + 9] == b"SIMPLE  ="]
                self.flip(victim / "heap", at[2] + 400)

            with self.subTest(kind), self.mount(kind, harm) as m:
                victim = m / "victim"
                count = shape_of(victim)[2]
                # The elements are as they were, and other frames. A view of the one that is not has no
                # cards of it.
                assert_same(np.load(victim / "cube.npy"), self.frames[:count])
                for z in [0, 1, *range(3, count)]:
                    self.assertEqual((victim / f"frames/f{z}.fits").read_bytes(), fits_bytes(self.frames[z]))
                for z in range(count):
                    outcome = errno_of((victim / f"slices/xy/z{z}.fits").read_bytes)
                    self.assertIn(outcome, ("OK", "EIO") if z == 2 else ("OK",))
                    print(z, outcome, end=" ")
                self.check_other(m)

    def test_the_newest_checkpoint(self):
        newest = max(n for n in os.listdir(self.base / "clean/victim") if n.startswith("checkpoint."))
        for at in (3, 40, 200, -100, -3):
            with self.subTest(at=at), self.mount("clean", lambda v, a=at: self.flip(v / newest, a)) as m:
                self.check_read_only(m, 12)  # the older one and its journal lead as far
                self.check_other(m)

    def test_the_only_checkpoint(self):
        for harm in (lambda v: self.flip(v / "checkpoint.000001", 100), lambda v: os.unlink(v / "checkpoint.000001"),
                     lambda v: os.truncate(v / "checkpoint.000001", 0),
                     lambda v: os.truncate(v / "checkpoint.000001", 100)):
            with self.subTest(harm), self.mount("marked", harm) as m:
                self.check_cannot_be_opened(m)
                self.check_other(m)

    def test_files_that_are_something_else(self):
        def by(make):
            def harm_to(name):
                def harm(victim):
                    os.unlink(victim / name)
                    make(victim / name)
                return harm
            return harm_to

        outside = self.base / "outside"
        outside.write_bytes(b"x" * 100_000)
        link, directory, nothing = by(lambda p: os.symlink(outside, p)), by(os.mkdir), by(lambda p: None)
        for name in ("bricks", "heap", "journal.000001", "checkpoint.000001"):
            for kind, harm in (("link", link), ("directory", directory), ("nothing", nothing)):
                with self.subTest(name, kind=kind), self.mount("marked", harm(name)) as m:
                    outcome = errno_of(os.listdir, m / "victim")
                    self.assertIn(outcome, ("OK", "EIO"))
                    if outcome == "OK":
                        self.assertEqual(errno_of((m / "victim/append/n.fits").write_bytes,
                                                  fits_bytes(self.frames[0])), "EROFS")
                    self.check_other(m)
                    self.assertEqual(outside.read_bytes(), b"x" * 100_000)

    def test_any_byte(self):
        """Wherever it is: nothing but that cube comes to harm, and of it what is shown is right."""
        outcomes = {}
        for turn in range(scaled(30, 6)):
            kind = ("marked", "killed", "clean")[turn % 3]
            files = [p for p in sorted((self.base / kind / "victim").iterdir())
                     if p.stat().st_size > 0 and p.name != "history"]
            file = files[int(self.rng.integers(len(files)))]
            at = int(self.rng.integers(file.stat().st_size))
            with self.subTest(kind, file=file.name, at=at), \
                    self.mount(kind, lambda v, n=file.name, a=at: self.flip(v / n, a)) as m:
                outcome = errno_of(os.listdir, m / "victim")
                if outcome == "OK":
                    count = shape_of(m / "victim")[2] if meta(m / "victim", "shape") else 0
                    found = np.load(m / "victim/cube.npy") if count else self.frames[:0]
                    wrong = np.count_nonzero(found != self.frames[:count])
                    self.assertLessEqual(wrong, 1 if file.name == "bricks" else 0)
                    for name in os.listdir(m / "victim/frames"):
                        errno_of((m / "victim/frames" / name).read_bytes)
                    outcome = f"{count} frames, {wrong} wrong"
                outcomes[outcome] = outcomes.get(outcome, 0) + 1
                self.check_other(m)
        print(outcomes)


if __name__ == "__main__":
    mounted.main()
