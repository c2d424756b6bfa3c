"""Frames that are taken out of the cube, brought back, replaced, and thrown away for good."""
import errno
import hashlib
import os
import random
import shutil
import subprocess
import time
import unittest

import mounted
import numpy as np
from astropy.io import fits
from frames import (SEED, assert_same, fits_bytes, generator, random_array, read_fits, write_fits,
                    write_series)
from growing import GrowingTest, Model, door, frame_table, stored_bytes, sync
from mounted import (Mounted, errno_of, fails, last_error, meta, put, run, scaled, shape_of,
                     temporary_directory)


def checksums(directory):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in directory.iterdir()}


class RemovalTest(GrowingTest):
    def fill(self, *shapes, dtype="int16", model=None, path=("append",)):
        """Frames f0, f1, … of these shapes; the model of them."""
        model = model or Model(3, dtype)
        for shape in shapes:
            array = random_array(self.rng, shape, model.dtype)
            source = self.file(array, name=f"f{len(model.frames)}")
            run("cp", source, self.cube / door(*path))
            model.add(source.name, array, *path)
        return model

    def cube_bytes(self):
        """Of the whole cube; nothing while there is none."""
        path = self.cube / "cube.npy"
        return path.read_bytes() if path.exists() else None


class OutAndBack(RemovalTest):
    def test_rm_and_mv_back(self):
        model = self.fill(*[(4, 5)] * 6)
        run("cp", self.cube / "cube.npy", self.base / "before.npy")
        for name in ("f2", "f0", "f5"):
            for place in ("append", "frames", "prepend", "insert/z/1", "append/x"):
                run("rm", self.cube / place / name)
                model.remove(name)
                model.check(self.cube, f"without {name}")
                run("cmp", self.base / name, self.cube / "removed" / name)
                self.assertFalse((self.cube / "append" / name).exists())
                self.assertFalse((self.cube / "frames" / name).exists())
                run("mv", self.cube / "removed" / name, self.cube / place)
                model.restore(name)
                run("cmp", self.cube / "cube.npy", self.base / "before.npy")
                run("cmp", self.base / name, self.cube / "append" / name)
                self.assertEqual(os.listdir(self.cube / "removed"), [])
        self.assertEqual(os.listdir(self.cube / "append"), [f"f{i}" for i in range(6)])

    def test_in_any_order(self):
        model = self.fill(*[(4, 5)] * 8)
        before = self.cube_bytes()
        for turn in range(12):
            chance = random.Random(SEED + turn)
            some = chance.sample(sorted(model.frames), chance.randint(1, 8))
            run("rm", *[self.cube / "frames" / n for n in some])
            for name in some:
                model.remove(name)
            model.check(self.cube)
            chance.shuffle(some)
            run("mv", *[self.cube / "removed" / n for n in some], self.cube / "append")
            for name in some:
                model.restore(name)
            self.assertEqual(self.cube_bytes(), before)
        self.assertEqual(os.listdir(self.cube / "frames"), sorted(model.frames))

    def test_a_frame_keeps_what_belongs_to_it(self):
        self.fill((4, 5))
        path = self.base / "dated"
        fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(random_array(self.rng, (4, 5), "int16")),
                      fits.ImageHDU(np.ones((2, 2)))]).writeto(path)
        os.chmod(path, 0o640)
        os.utime(path, ns=(5, 1_234_567_891_000_000_000))
        run("cp", "-p", path, self.cube / "prepend")
        before = (self.cube / "frames/dated").stat()
        run("rm", self.cube / "frames/dated")
        self.m.remount()
        for place in ("removed", "append"):
            found = (self.cube / place / "dated").stat()
            self.assertEqual([found.st_mode, found.st_mtime_ns, found.st_size, found.st_ino],
                             [before.st_mode, before.st_mtime_ns, before.st_size, before.st_ino])
            run("cmp", path, self.cube / place / "dated")
            if place == "removed":
                run("mv", self.cube / "removed/dated", self.cube / "append")
        # It came through prepend/ and is listed there again.
        self.assertEqual(os.listdir(self.cube / "prepend"), ["dated"])
        self.assertEqual(os.listdir(self.cube / "append"), ["f0"])

    def test_a_frame_in_the_middle_while_others_come(self):
        model = self.fill((4, 5), (4, 5), (4, 5))
        run("rm", self.cube / "frames/f1")
        model.remove("f1")
        self.fill((4, 5), model=model)
        self.fill((4, 5), model=model, path=("prepend",))
        self.fill((2, 3), model=model, path=("insert", "z", 2))
        self.fill((2, 2, 2), model=model, path=("insert", "x", 1))
        model.check(self.cube, "without it")
        run("mv", self.cube / "removed/f1", self.cube / "frames")
        model.restore("f1")
        model.check(self.cube, "with it")

    def test_removed_frames_are_neither_read_nor_listed_elsewhere(self):
        self.fill(*[(4, 5)] * 3)
        run("rm", self.cube / "frames/f1")
        self.assertEqual(os.listdir(self.cube / "append"), ["f0", "f2"])
        self.assertEqual([row["name"] for row in frame_table(self.cube)], ["f0", "f2"])
        self.assertEqual(os.getxattr(self.cube, "user.accrete.frames").strip(), b"2")
        planes = os.listdir(self.cube / "slices/xy")
        self.assertEqual(planes, ["z000000.fits", "z000001.fits"])
        self.assertFalse((self.cube / "slices/xy/z2.npy").exists())
        assert_same(read_fits(self.cube / "slices/xy/last.fits"), read_fits(self.base / "f2"))

    def test_links_to_the_last_and_the_newest_plane(self):
        model = self.fill(*[(4, 5)] * 3)
        self.fill((4, 5), model=model, path=("prepend",))

        def links():
            directory = self.cube / "slices/xy"
            return [os.readlink(directory / f"{name}.fits") for name in ("newest", "last")]

        self.assertEqual(links(), ["z000000.fits", "z000003.fits"])
        run("rm", self.cube / "frames/f3")
        self.assertEqual(links(), ["z000002.fits", "z000002.fits"])
        run("rm", self.cube / "frames/f2")
        self.assertEqual(links(), ["z000001.fits", "z000001.fits"])
        run("mv", self.cube / "removed/f3", self.cube / "frames")
        self.assertEqual(links(), ["z000000.fits", "z000002.fits"])
        self.m.remount()
        self.assertEqual(links(), ["z000000.fits", "z000002.fits"])

    def test_what_may_not_be_done_in_removed(self):
        self.fill(*[(4, 5)] * 3)
        run("rm", self.cube / "frames/f1")
        fails("cp", self.base / "f0", self.cube / "removed", because=errno.EPERM)
        fails("cp", self.base / "f0", self.cube / "removed/f1", because=errno.EROFS)
        fails("mkdir", self.cube / "removed/d", because=errno.EPERM)
        self.assertEqual(errno_of(os.truncate, self.cube / "removed/f1", 10), "EROFS")
        fails("rm", self.cube / "removed/f0", because=errno.ENOENT)
        fails("rm", self.cube / "frames/f1", because=errno.ENOENT)
        other = self.m.cube("other")
        run("mv", self.cube / "frames/f2", other / "append")  # by a copy and a removal
        self.assertEqual(sorted(os.listdir(self.cube / "removed")), ["f1", "f2"])
        run("cmp", self.base / "f2", other / "append/f2")


class RaggedIndexes(RemovalTest):
    def test_an_index_lives_as_long_as_a_frame_covers_it(self):
        model = self.fill((2, 9), (7, 3), (2, 3))
        self.assertEqual(shape_of(self.cube), [9, 7, 3])
        before = self.cube_bytes()
        for name, shape in (("f0", [3, 7, 2]), ("f1", [3, 2, 1])):
            run("rm", self.cube / "frames" / name)
            model.remove(name)
            self.assertEqual(shape_of(self.cube), shape)
            model.check(self.cube)
        for name in ("f0", "f1"):
            run("mv", self.cube / "removed" / name, self.cube / "frames")
            model.restore(name)
            model.check(self.cube)
        self.assertEqual(self.cube_bytes(), before)

    def test_elsewhere_the_slab_turns_pad(self):
        put(self.cube, "pad", "-7")
        model = self.fill((2, 4, 5), model=Model(3, "int16", -7))
        self.fill((2, 4, 2), model=model, path=("append", "x"))
        self.fill((1, 1, 9), model=model, path=("append", "y"))
        before = self.cube_bytes()
        run("rm", self.cube / "frames/f0")  # f2 covers its x, f1 its y and z
        model.remove("f0")
        model.check(self.cube)
        self.assertEqual(shape_of(self.cube), [9, 5, 2])
        self.assertTrue((np.load(self.cube / "cube.npy")[:, :4, :5] == -7).all())
        assert_same(np.load(self.cube / "mask/xyz/x0...npy"), model.mask())
        run("mv", self.cube / "removed/f0", self.cube / "frames")
        self.assertEqual(self.cube_bytes(), before)

    def test_a_wider_frame_takes_the_indexes_of_removed_ones_first(self):
        model = self.fill((3, 4), (3, 8))
        run("rm", self.cube / "frames/f1")
        model.remove("f1")
        self.assertEqual(shape_of(self.cube), [4, 3, 1])
        self.fill((5, 10), model=model)
        model.check(self.cube, "in between")
        self.assertEqual(shape_of(self.cube), [10, 5, 2])
        run("mv", self.cube / "removed/f1", self.cube / "frames")
        model.restore("f1")
        model.check(self.cube, "all")
        self.assertEqual(shape_of(self.cube), [10, 5, 3])

    def test_strips_that_are_taken_out_of_a_mosaic(self):
        put(self.cube, "axes", "x y")
        model = self.fill((4, 5), model=Model(2, "int16"))
        for path, shape in ((("append", "x"), (4, 2)), (("prepend", "y"), (1, 7)),
                            (("insert", "x", 3), (5, 1)), (("append", "y"), (2, 8)),
                            (("prepend", "x"), (9, 1))):
            self.fill(shape, model=model, path=path)
        before = self.cube_bytes()
        chance = random.Random(SEED)
        for turn in range(20):
            some = chance.sample(sorted(model.frames), chance.randint(1, 5))
            for name in some:
                run("rm", self.cube / "frames" / name)
                model.remove(name)
            model.check(self.cube, f"turn {turn} without {some}")
            for name in some:
                run("mv", self.cube / "removed" / name, self.cube / "append")
                model.restore(name)
            self.assertEqual(self.cube_bytes(), before)

    def test_at_random(self):
        """Everything at once: grow, remove, restore, rename, discard, mount again, kill."""
        for turn in range(scaled(12, 4)):
            with self.subTest(turn):
                self.cube = self.m.cube(f"at-random-{turn}")
                self.at_random(random.Random(SEED + turn), 35)

    def at_random(self, chance, steps):
        rank = chance.randint(1, 4)
        most = {1: 9, 2: 6, 3: 5, 4: 3}[rank]
        dtype = chance.choice(["uint8", "int16", "float32", "float64"])
        letters = "xyzt"[:rank]
        put(self.cube, "axes", " ".join(letters))
        model = Model(rank, dtype)
        done = []
        for number in range(steps):
            live, removed = sorted(model.live()), sorted(model.removed())
            pick = chance.random()
            if pick < 0.45 or not model.frames:
                if not model.frames:
                    model = Model(rank, dtype)
                side = chance.choice(["append", "prepend", "insert"])
                axis = chance.choice(letters) if side == "insert" \
                    else chance.choice([None, *letters])
                index = chance.randint(0, len(model.shown(letters.index(axis)))) \
                    if side == "insert" else None
                shape = [chance.randint(1, most) for _ in range(chance.randint(1, rank))]
                array = random_array(self.rng, shape, dtype)
                path = self.file(array, name=f"f{number}")
                step = ["cp", path, self.cube / door(side, axis, index)]
                model.add(path.name, array, side, axis, index)
            elif pick < 0.63 and live:
                name = chance.choice(live)
                step = ["rm", self.cube / chance.choice(["append", "frames", "prepend"]) / name]
                model.remove(name)
            elif pick < 0.8 and removed:
                name = chance.choice(removed)
                to = chance.choice([name, name, f"{name}-{number}"])
                step = ["mv", self.cube / "removed" / name,
                        self.cube / chance.choice(["append", "frames"]) / to]
                model.restore(name, to)
            elif pick < 0.88 and removed:
                name = chance.choice(removed)
                step = ["rm", self.cube / "removed" / name]
                model.discard(name)
            elif pick < 0.95 and live:
                name = chance.choice(live)
                to = chance.choice([n for n in model.frames if n != name
                                    and model.frames[n].axis == model.frames[name].axis]
                                   or [f"{name}-{number}"])
                step = ["mv", self.cube / "frames" / name, self.cube / "frames" / to]
                model.rename(name, to)
            else:
                step = [chance.choice(["mount again", "kill"])]
            done.append(" ".join(map(str, step)))
            if step == ["mount again"]:
                self.m.remount()
            elif step == ["kill"]:
                self.m.kill()
                self.m.start()
            else:
                run(*step)
            model.check(self.cube, "\n".join(done))


class Names(RemovalTest):
    def test_back_under_another_name(self):
        model = self.fill(*[(4, 5)] * 3)
        before = self.cube_bytes()
        run("rm", self.cube / "frames/f1")
        run("mv", self.cube / "removed/f1", self.cube / "append/g")
        model.remove("f1")
        model.restore("f1", "g")
        model.check(self.cube)
        self.assertEqual(self.cube_bytes(), before)
        self.assertEqual(os.listdir(self.cube / "append"), ["f0", "g", "f2"])
        self.m.remount()
        run("cmp", self.base / "f1", self.cube / "frames/g")
        run("cp", self.base / "f1", self.cube / "append")  # the name is free again
        self.assertEqual(shape_of(self.cube), [5, 4, 4])

    def test_renamed_among_the_removed(self):
        model = self.fill(*[(4, 5)] * 3)
        run("rm", self.cube / "frames/f1", self.cube / "frames/f2")
        run("mv", self.cube / "removed/f1", self.cube / "removed/g")
        self.assertEqual(sorted(os.listdir(self.cube / "removed")), ["f2", "g"])
        fails("mv", "-T", self.cube / "removed/g", self.cube / "removed/f2", because=errno.EEXIST)
        run("mv", self.cube / "removed/g", self.cube / "frames/f1")
        for name in ("f1", "f2"):
            model.remove(name)
        model.restore("f1")
        model.check(self.cube)

    def test_onto_a_name_that_is_used(self):
        """Neither a live nor a removed frame is lost by what is moved between the two places."""
        model = self.fill(*[(4, 5)] * 4)
        run("rm", self.cube / "frames/f0", self.cube / "frames/f1")
        model.remove("f0")
        model.remove("f1")
        for source, target in (("removed/f0", "frames/f2"), ("removed/f0", "append/f3"),
                               ("removed/f0", "append/f1"), ("frames/f2", "removed/f0"),
                               ("append/f2", "removed/f3")):
            with self.subTest(f"{source} {target}"):
                fails("mv", self.cube / source, self.cube / target, because=errno.EEXIST)
                self.assertIn("already", last_error(self.cube))
                model.check(self.cube)

    def test_moved_into_removed(self):
        model = self.fill(*[(4, 5)] * 4)
        run("mv", self.cube / "frames/f1", self.cube / "removed")
        model.remove("f1")
        model.check(self.cube)
        run("mv", self.cube / "append/f2", self.cube / "removed/g")
        self.assertEqual(sorted(os.listdir(self.cube / "removed")), ["f1", "g"])
        self.assertEqual(shape_of(self.cube), [5, 4, 2])
        run("mv", "-n", self.cube / "append/f3", self.cube / "removed/f3")
        run("mv", self.cube / "removed/g", self.cube / "append/f2")
        model.remove("f3")
        model.check(self.cube)
        self.m.remount()
        model.check(self.cube)

    def test_a_rename_onto_a_live_frame_takes_its_place(self):
        model = self.fill(*[(4, 5)] * 5)
        run("mv", self.cube / "frames/f4", self.cube / "frames/f1")
        model.rename("f4", "f1")
        model.check(self.cube)
        self.assertEqual(os.listdir(self.cube / "frames"), ["f0", "f1", "f2", "f3"])
        run("mv", self.cube / "append/f0", self.cube / "append/f3")
        model.rename("f0", "f3")
        model.check(self.cube)
        run("mv", "-n", self.cube / "append/f1", self.cube / "append/f3", check=False)
        model.check(self.cube)
        self.m.kill()
        self.m.start()
        model.check(self.cube)

    def test_a_rename_onto_a_removed_frame_takes_its_place(self):
        model = self.fill(*[(4, 5)] * 4)
        run("rm", self.cube / "frames/f1")
        model.remove("f1")
        run("mv", self.cube / "frames/f3", self.cube / "frames/f1")
        model.rename("f3", "f1")
        model.check(self.cube)
        self.assertEqual(os.listdir(self.cube / "frames"), ["f0", "f1", "f2"])
        self.m.remount()
        model.check(self.cube)

    def test_frames_that_grew_different_axes_do_not_take_each_others_place(self):
        model = self.fill((2, 4, 5))
        self.fill((2, 4, 1), model=model, path=("append", "x"))
        fails("mv", self.cube / "frames/f1", self.cube / "frames/f0", because=errno.EPERM)
        self.assertIn("axes", last_error(self.cube))
        model.check(self.cube)

    def test_rsync_of_a_changed_file_takes_the_place(self):
        model = self.fill(*[(4, 5)] * 3)
        changed = random_array(self.rng, (6, 2), "int16")
        write_fits(self.base / "f1", changed)
        os.utime(self.base / "f1", (1, 1))
        run("rsync", "-a", f"{self.base}/", f"{self.cube}/append/")
        model.add("new", changed)
        model.rename("new", "f1")
        model.check(self.cube)
        self.assertEqual(os.listdir(self.cube / "frames"), ["f0", "f1", "f2"])
        said = run("rsync", "-a", "--itemize-changes", f"{self.base}/", f"{self.cube}/append/")
        self.assertNotIn(b">f", said.stdout)

    def test_rsync_in_place_changes_the_frame(self):
        model = self.fill(*[(4, 5)] * 3)
        new = random_array(self.rng, (4, 5), "int16")
        write_fits(self.base / "f1", new)
        os.utime(self.base / "f1", (1, 1))
        for _ in range(2):
            run("rsync", "-a", "--inplace", f"{self.base}/", f"{self.cube}/append/")
            model.frames["f1"].array = new
            model.check(self.cube)
            self.assertEqual((self.cube / "frames/f1").stat().st_mtime, 1)
        write_fits(self.base / "f1", random_array(self.rng, (5, 5), "int16"))
        result = run("rsync", "-a", "--inplace", f"{self.base}/", f"{self.cube}/append/", check=False)
        self.assertNotEqual(result.returncode, 0)
        model.check(self.cube)
        self.assertIn("in place", last_error(self.cube))

    def test_rsync_neither_duplicates_nor_resurrects(self):
        model = self.fill(*[(4, 5)] * 4)
        run("rsync", "-a", f"{self.base}/", f"{self.cube}/append/")
        run("rm", self.cube / "frames/f2", self.cube / "frames/f0")
        model.remove("f2")
        model.remove("f0")
        for turn in range(3):
            run("rsync", "-a", f"{self.base}/", f"{self.cube}/append/")
            model.check(self.cube, f"turn {turn}")
            if turn == 1:
                self.m.remount()
        for copy in (["cp"], ["cp", "-p"], ["cp", "-a"]):
            run(*copy, self.base / "f0", self.cube / "append")
            model.check(self.cube, f"{copy}")
        self.assertIn("removed", (self.cube / "history").read_text().splitlines()[-1])
        run("rm", self.cube / "removed/f2")  # thrown away: it may come again
        model.discard("f2")
        run("rsync", "-a", f"{self.base}/", f"{self.cube}/append/")
        model.add("f2", read_fits(self.base / "f2"))
        model.check(self.cube, "again")

    def test_other_bytes_under_the_name_of_a_removed_frame(self):
        model = self.fill(*[(4, 5)] * 2)
        run("rm", self.cube / "frames/f0")
        other = random_array(self.rng, (4, 5), "int16")
        run("cp", self.file(other, name="f0"), self.cube / "append")
        self.assertEqual(os.listdir(self.cube / "frames"), ["f1", "f0"])
        self.assertEqual(os.listdir(self.cube / "removed"), ["f0.~1~"])
        model.remove("f0")
        model.frames["f0.~1~"] = model.frames.pop("f0")
        model.add("f0", other)
        model.check(self.cube)
        run("mv", self.cube / "removed/f0.~1~", self.cube / "append")
        model.restore("f0.~1~")
        model.check(self.cube)

    def test_astropy_edits_a_header(self):
        """It writes another file, removes the frame, and renames onto its name."""
        model = self.fill(*[(4, 5)] * 3)
        before = self.cube_bytes()
        with fits.open(self.cube / "append/f1", mode="update", memmap=False) as hdus:
            for i in range(60):
                hdus[0].header[f"KEY{i}"] = i
        self.assertEqual(self.cube_bytes(), before)
        model.check(self.cube)
        self.assertEqual(os.listdir(self.cube / "append"), ["f0", "f1", "f2"])
        self.assertEqual(fits.getheader(self.cube / "slices/xy/z1.fits")["KEY59"], 59)
        run("fitsverify", "-q", self.cube / "append/f1")

    def test_empty_files_of_tempfile(self):
        self.fill((4, 5))
        name = self.cube / "append/tmpab_12345"
        os.close(os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        self.assertTrue(name.exists())
        self.assertEqual(shape_of(self.cube), [5, 4, 1])
        name.write_bytes(fits_bytes(np.ones((4, 5), "int16")))
        self.assertEqual(shape_of(self.cube), [5, 4, 2])
        other = self.cube / "append/tmp00000000"
        os.close(os.open(other, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        run("rm", other)
        self.assertFalse(other.exists())


class SameName(RemovalTest):
    def copy(self, value):
        """cp of f.fits full of a value; whether it was taken."""
        path = self.file(np.full((3, 4), value, "int16"), name="f.fits")
        return run("cp", path, self.cube / "append", check=False).returncode == 0

    def frames(self):
        """Name and value of each, in order of place."""
        names = os.listdir(self.cube / "frames")
        if not names:
            return []
        whole = np.load(self.cube / "cube.npy")
        self.assertEqual(len(names), len(whole))
        return [(name, int(plane[0, 0])) for name, plane in zip(names, whole)]

    def test_once(self):
        self.assertEqual(meta(self.cube, "samename"), "once")
        for value in (1, 1, 2, 2, 3, 1):
            self.assertTrue(self.copy(value))
        self.assertEqual(self.frames(), [("f.fits.~1~", 1), ("f.fits.~2~", 2), ("f.fits.~3~", 3),
                                         ("f.fits", 1)])

    def test_numbers_are_not_given_twice(self):
        for value in range(12):
            self.copy(value)
        run("rm", *[self.cube / f"frames/f.fits.~{n}~" for n in (3, 7)])  # still in use
        self.copy(12)
        self.assertTrue((self.cube / "frames/f.fits.~12~").exists())
        run("rm", self.cube / "removed/f.fits.~3~")
        self.copy(13)
        names = os.listdir(self.cube / "frames") + os.listdir(self.cube / "removed")
        self.assertEqual(len(names), len(set(names)))
        self.assertEqual(len(names), 13)
        self.m.remount()
        self.copy(14)
        self.assertEqual([v for _, v in self.frames()], [0, 1, 3, 4, 5, 7, 8, 9, 10, 11, 12, 13,
                                                         14])

    def test_append(self):
        put(self.cube, "samename", "append")
        for value in (1, 1, 2):
            self.assertTrue(self.copy(value))
        self.assertEqual(self.frames(), [("f.fits.~1~", 1), ("f.fits.~2~", 1), ("f.fits", 2)])
        run("rm", self.cube / "frames/f.fits")
        self.assertTrue(self.copy(2))
        self.assertEqual(self.frames(), [("f.fits.~1~", 1), ("f.fits.~2~", 1), ("f.fits", 2)])
        self.assertEqual(os.listdir(self.cube / "removed"), ["f.fits.~3~"])

    def test_replace(self):
        put(self.cube, "samename", "replace")
        for i, value in enumerate((7, 1, 8)):
            run("cp", self.file(np.full((3, 4), value, "int16"), name=f"{'afz'[i]}.fits"),
                self.cube / "append")
        for value in (2, 2, 3):
            self.assertTrue(self.copy(value))
            self.assertEqual(self.frames(), [("a.fits", 7), ("f.fits", value), ("z.fits", 8)])
        run("rm", self.cube / "frames/f.fits")
        self.assertTrue(self.copy(3))  # the very frame that was removed stays removed
        self.assertEqual(self.frames(), [("a.fits", 7), ("z.fits", 8)])
        self.assertTrue(self.copy(4))
        self.assertEqual(self.frames(), [("a.fits", 7), ("f.fits", 4), ("z.fits", 8)])
        self.assertEqual(os.listdir(self.cube / "removed"), [])
        self.m.remount()
        self.assertEqual(self.frames(), [("a.fits", 7), ("f.fits", 4), ("z.fits", 8)])

    def test_replace_is_whole_or_not_at_all(self):
        put(self.cube, "samename", "replace")
        self.copy(1)
        before = self.state(self.cube)
        (self.base / "cut").write_bytes(fits_bytes(np.full((3, 4), 2, "int16"))[:2890])
        fails("cp", self.base / "cut", self.cube / "append/f.fits", because=errno.EINVAL)
        fails("cp", self.file(np.full((3, 4), 0.5, "float32"), name="other"),
              self.cube / "append/f.fits", because=errno.EINVAL)
        self.assertEqual(self.state(self.cube), before)
        run("cmp", self.base / "f.fits", self.cube / "append/f.fits")

    def test_refuse(self):
        put(self.cube, "samename", "refuse")
        self.assertTrue(self.copy(1))
        before = self.state(self.cube)
        for value in (1, 2):
            self.assertFalse(self.copy(value))
            self.assertIn("meta/samename", last_error(self.cube))
            self.assertEqual(self.state(self.cube), before)
        run("rm", self.cube / "frames/f.fits")
        before = self.state(self.cube)
        for value in (1, 2):
            self.assertFalse(self.copy(value))
            self.assertEqual(self.state(self.cube), before)
        run("rm", self.cube / "removed/f.fits")
        self.assertTrue(self.copy(2))

    def test_values_of_the_setting(self):
        for value in ("never", "Once", "\n", "append replace"):
            self.assertEqual(errno_of(put, self.cube, "samename", value), "EINVAL")
            self.assertIn("once, append, replace or refuse", last_error(self.cube))
        self.assertEqual(meta(self.cube, "samename"), "once")

    def test_through_another_door(self):
        for value in (1, 2):
            self.copy(value)
        put(self.cube, "samename", "replace")
        run("cp", self.file(np.full((3, 4), 5, "int16"), name="f.fits.~1~"), self.cube / "append")
        self.assertEqual(self.frames(), [("f.fits.~1~", 5), ("f.fits", 2)])
        run("cp", self.file(np.full((3, 4), 6, "int16"), name="f.fits"), self.cube / "prepend")
        self.assertEqual(self.frames(), [("f.fits.~1~", 5), ("f.fits", 6)])
        put(self.cube, "samename", "once")
        run("cp", self.file(np.full((3, 4), 7, "int16"), name="f.fits"), self.cube / "prepend")
        self.assertEqual(self.frames(), [("f.fits", 7), ("f.fits.~1~", 5), ("f.fits.~2~", 6)])


class Space(RemovalTest):
    def test_a_frame_thrown_away_gives_its_space_back(self):
        model = self.fill(*[(256, 256)] * 20, dtype="float32")
        sync(self.cube)
        before = stored_bytes(self.cube)
        sums = checksums(self.cube / "frames")
        gone = ["f3", "f9", "f10", "f19"]
        run("rm", *[self.cube / "frames" / n for n in gone])
        sync(self.cube)
        self.assertGreater(stored_bytes(self.cube), before - (64 << 10))  # they may come back
        run("rm", *[self.cube / "removed" / n for n in gone])
        run("sync", self.cube / "meta")
        for name in gone:
            model.remove(name)
            model.discard(name)
            del sums[name]
        # The host's filesystem may need a block or two for the holes.
        given_back = 4 * 256 * 256 * 4 - (64 << 10)
        mounted.wait_until(lambda: stored_bytes(self.cube) <= before - given_back,
                           "the space is free")
        self.assertEqual(checksums(self.cube / "frames"), sums)
        model.check(self.cube)
        self.m.remount()
        self.assertLess(stored_bytes(self.cube), before - given_back)
        self.assertEqual(checksums(self.cube / "frames"), sums)

    def test_space_is_used_again(self):
        """Frames come and go; the store holds no more than what is there."""
        shapes = [(200, 200), (90, 310), (256, 256), (3, 100, 100)]
        self.fill((8, 8), dtype="float32")
        chance = random.Random(SEED)
        most = 0
        for turn in range(scaled(60, 20)):
            array = random_array(self.rng, chance.choice(shapes), "float32")
            path = self.file(array, name=f"t{turn}")
            run("cp", path, self.cube / chance.choice(["append", "prepend", "insert/z/1"]))
            if len(os.listdir(self.cube / "frames")) > 8:
                name = chance.choice([n for n in os.listdir(self.cube / "frames") if n != "f0"])
                sums = checksums(self.cube / "frames")
                run("rm", self.cube / "frames" / name)
                run("rm", self.cube / "removed" / name)
                sync(self.cube)
                del sums[name]
                self.assertEqual(checksums(self.cube / "frames"), sums)
                most = max(most, stored_bytes(self.cube))
        print(f"at most {most} bytes for 8 frames; the file has "
              f"{(self.m.store / self.cube.name / 'bricks').stat().st_size}")
        self.assertLess(most, 8 * 256 * 256 * 4 * 2)
        self.assertLess((self.m.store / self.cube.name / "bricks").stat().st_size,
                        8 * 256 * 256 * 4 * 4)

    def test_a_mapped_view_keeps_showing_what_it_showed(self):
        frames = random_array(self.rng, (8, 64, 64), "float32")
        run("cp", *[self.file(f, name=f"f{i}") for i, f in enumerate(frames)],
            self.cube / "append")
        whole = np.load(self.cube / "cube.npy", mmap_mode="r")
        plane = np.load(self.cube / "slices/xy/z3.npy", mmap_mode="r")
        columns = np.load(self.cube / "slices/zx/y5.npy", mmap_mode="r")
        raw = np.memmap(self.cube / "slices/xyz/z2..5.raw", "float32", "r", shape=(3, 64, 64))
        with open(self.cube / "cube.fits", "rb") as open_cube, \
                open(self.cube / "frames/f3", "rb") as open_frame:
            cube_bytes = os.pread(open_cube.fileno(), 1 << 20, 0)

            def unchanged(what):
                assert_same(np.array(whole), frames, what)
                assert_same(np.array(plane), frames[3], what)
                assert_same(np.array(columns), np.ascontiguousarray(frames[:, 5].T), what)
                assert_same(np.array(raw), frames[2:5], what)
                for file, bytes_ in ((open_cube, cube_bytes), (open_frame, fits_bytes(frames[3]))):
                    self.assertEqual(os.pread(file.fileno(), len(bytes_) + 1, 0), bytes_, what)

            run("rm", self.cube / "frames/f3")
            unchanged("removed")
            assert_same(np.load(self.cube / "cube.npy"), np.delete(frames, 3, 0))
            run("rm", self.cube / "removed/f3")
            unchanged("thrown away")
            sync(self.cube)
            unchanged("and synced")
            for i in range(6):  # would take the space if it could
                run("cp", self.file(-frames[i], name=f"g{i}"), self.cube / "append")
                sync(self.cube)
            unchanged("and others came")
            run("mv", self.cube / "frames/g0", self.cube / "frames/f6")
            sync(self.cube)
            unchanged("and one was replaced")
        before = stored_bytes(self.cube)
        del whole, plane, columns, raw
        mounted.wait_until(lambda: (sync(self.cube), stored_bytes(self.cube))[1] <= before - 16384,
                           "the space is free")

    def test_a_view_that_followed_growth_keeps_all_that_it_told_of(self):
        """Its size was seen, so its bytes are there, whatever became of the cube since."""
        frames = random_array(self.rng, (4, 64, 64), "float32")
        paths = [self.file(f, name=f"f{i}") for i, f in enumerate(frames)]
        run("cp", *paths[:3], self.cube / "append")
        with open(self.cube / "cube.raw", "rb") as whole, \
                open(self.cube / "slices/z/x1/y2.txt", "rb") as line:
            run("cp", paths[3], self.cube / "append")
            self.assertEqual(os.fstat(whole.fileno()).st_size, frames.nbytes)
            size = os.fstat(line.fileno()).st_size
            run("rm", self.cube / "frames/f0")
            run("rm", self.cube / "removed/f0")
            sync(self.cube)
            self.assertEqual(os.fstat(whole.fileno()).st_size, frames.nbytes)
            mapped = np.memmap(whole, "float32", "r", shape=frames.shape)
            assert_same(np.array(mapped), frames)
            whole.seek(0)
            self.assertEqual(whole.read(), frames.tobytes())
            text = line.read()
            self.assertEqual(len(text), size)
            assert_same(np.array(text.split(), "float32"), frames[:, 2, 1].copy())
            del mapped

    def test_an_open_file_of_a_frame_that_is_thrown_away(self):
        """As an unlinked file of any filesystem: it can be read to its end."""
        data = fits_bytes(random_array(self.rng, (64, 64), "float32"))
        paths = [self.cube / "append" / f"f{i}" for i in range(3)]
        for path in paths:
            path.write_bytes(data)
        with open(paths[1], "rb") as thrown_away, open(paths[2], "rb") as replaced:
            run("rm", self.cube / "frames/f1")
            run("rm", self.cube / "removed/f1")
            run("mv", self.cube / "frames/f0", self.cube / "frames/f2")
            sync(self.cube)
            for file in (thrown_away, replaced):
                self.assertEqual(os.fstat(file.fileno()).st_size, len(data))
                self.assertEqual(os.fstat(file.fileno()).st_nlink, 0)
                self.assertEqual(file.read(), data)
        self.assertEqual(os.listdir(self.cube / "frames"), ["f2"])

    def test_a_view_whose_indexes_stay_shows_what_turns_pad(self):
        """It shows the same elements, and is live."""
        put(self.cube, "axes", "x y z")
        first = random_array(self.rng, (2, 64, 64), "float32")
        run("cp", self.file(first, name="first"), self.cube / "append")
        run("cp", self.file(random_array(self.rng, (2, 64, 64), "float32"), name="second"),
            self.cube / "append/x")
        run("cp", self.file(random_array(self.rng, (2, 64, 128), "float32"), name="third"),
            self.cube / "append/z")
        view = np.load(self.cube / "slices/xy/x0..64_z1.npy", mmap_mode="r")
        assert_same(np.array(view), first[1])
        run("rm", self.cube / "frames/first")
        self.assertTrue(np.isnan(np.load(self.cube / "slices/xy/x0..64_z1.npy")).all())
        self.assertTrue(np.isnan(view).all())
        run("mv", self.cube / "removed/first", self.cube / "frames")
        assert_same(np.array(view), first[1])
        run("rm", self.cube / "frames/first")
        run("rm", self.cube / "removed/first")
        sync(self.cube)
        self.assertTrue(np.isnan(view).all())


class Emptied(RemovalTest):
    def test_all_frames_removed(self):
        model = self.fill((4, 5), (3, 6))
        run("rm", self.cube / "frames/f0", self.cube / "frames/f1")
        for name in ("f0", "f1"):
            model.remove(name)
        model.check(self.cube)
        self.assertEqual(shape_of(self.cube), [0, 0, 0])
        self.assertEqual(os.listdir(self.cube / "slices/xy"), [])
        for name in ("cube.fits", "cube.npy", "slices/xy/z0.fits", "slices/xy/last.fits"):
            self.assertFalse((self.cube / name).exists(), name)
        # Its frames may come back, so it is still defined.
        self.refuse(self.file(np.full((4, 5), 0.5, "float32")), "append", errno.EINVAL, "float32",
                    "int16")
        self.assertEqual(errno_of(put, self.cube, "pad", "3"), "EPERM")
        self.m.remount()
        model.check(self.cube)
        self.fill((2, 2), model=model)
        model.check(self.cube)
        for name in ("f0", "f1"):
            run("mv", self.cube / "removed" / name, self.cube / "frames")
            model.restore(name)
        model.check(self.cube)

    def test_undefined_again(self):
        put(self.cube, "formats", "npy fits")
        self.fill((4, 5), (3, 6))
        run("rm", self.cube / "frames/f0", self.cube / "frames/f1")
        run("rm", self.cube / "removed/f0")
        self.assertEqual(meta(self.cube, "shape"), "0 0 0")
        run("rm", self.cube / "removed/f1")
        for name, text in (("shape", ""), ("dtype", ""), ("axes", ""), ("formats", "npy fits")):
            self.assertEqual(meta(self.cube, name), text, name)
        other = random_array(self.rng, (2, 3, 4, 5), "float64")
        put(self.cube, "pad", "inf")
        run("cp", self.file(other, name="other"), self.cube / "append")
        self.assertEqual(meta(self.cube, "axes"), "x y z t")
        assert_same(np.load(self.cube / "cube.npy"), other)
        self.m.remount()
        assert_same(np.load(self.cube / "cube.npy"), other)
        run("cp", self.file(np.ones((1, 1, 1, 6)), name="wide"), self.cube / "append")
        expected = np.full((3, 3, 4, 6), np.inf)
        expected[:2, :, :, :5] = other
        expected[2, 0, 0] = 1
        assert_same(np.load(self.cube / "cube.npy"), expected)
        sync(self.cube)
        self.assertLess(stored_bytes(self.cube), 64 << 10)

    def test_open_views_outlive_the_definition(self):
        """Also those that would follow growth, and though the cube is of another type by then."""
        frames = random_array(self.rng, (5, 64, 64), "float32")
        run("cp", *[self.file(f, name=f"f{i}") for i, f in enumerate(frames)],
            self.cube / "append")
        names = ["cube.npy", "cube.fits", "cube.raw", "cube.txt", "slices/xy/z3.npy",
                 "slices/zx/y3.fits", "slices/z/x3/y3.raw", "mask/xy/z1.npy", "mask/xyz/x0...raw",
                 "slices/xy/x3..9_z2.txt", "frames/f2"]
        wanted = {name: (self.cube / name).read_bytes() for name in names}
        mapped = np.memmap(self.cube / "cube.raw", "float32", "r", shape=frames.shape)
        files = {name: os.open(self.cube / name, os.O_RDONLY) for name in names}

        def unchanged(what):
            for name, file in files.items():
                self.assertEqual(os.fstat(file).st_size, len(wanted[name]), f"{name} {what}")
                self.assertEqual(os.pread(file, 1 << 20, 0), wanted[name], f"{name} {what}")
            assert_same(np.array(mapped), frames, what)

        try:
            for i in (4, 1, 0, 2, 3):
                run("rm", self.cube / f"frames/f{i}")
                unchanged(f"without f{i}")
            run("rm", *[self.cube / f"removed/f{i}" for i in range(5)])
            unchanged("undefined")
            sync(self.cube)
            for i in range(3):
                run("cp", self.file(random_array(self.rng, (2, 2, 70, 70), "float64"),
                                    name=f"g{i}"), self.cube / "append")
                sync(self.cube)
                unchanged("defined anew")
        finally:
            for file in files.values():
                os.close(file)
        self.assertEqual(shape_of(self.cube), [70, 70, 2, 6])

    def test_emptied_again_and_again(self):
        for turn in range(12):
            dtype = ["int16", "float32", "uint8", "float64"][turn % 4]
            frames = random_array(self.rng, (3, 5 + turn, 7), dtype)
            paths = [self.file(f, name=f"t{turn}-{i}") for i, f in enumerate(frames)]
            run("cp", *paths, self.cube / ["append", "prepend"][turn % 2])
            found = np.load(self.cube / "cube.npy")
            assert_same(found, frames[:: -1 if turn % 2 else 1])
            if turn % 3 == 0:
                self.m.remount()
            run("rm", *[self.cube / "frames" / p.name for p in paths])
            if turn % 3 == 1:
                self.m.remount()
            run("rm", *[self.cube / "removed" / p.name for p in paths])
            self.assertEqual(meta(self.cube, "shape"), "")
            if turn % 3 == 2:
                self.m.remount()
            if turn % 4 == 3:
                self.m.kill()
                self.m.start()
            self.assertEqual(meta(self.cube, "shape"), "")
        sync(self.cube)
        mounted.wait_until(lambda: stored_bytes(self.cube) == 0, "no space is used")

    def test_a_stream_that_is_open_while_the_last_frame_goes(self):
        self.fill((4, 5))
        data = fits_bytes(random_array(self.rng, (4, 5), "int16"))
        file = os.open(self.cube / "append/late", os.O_WRONLY | os.O_CREAT)
        try:
            os.write(file, data[:2890])
            os.unlink(self.cube / "frames/f0")
            os.unlink(self.cube / "removed/f0")
            os.write(file, data[2890:])
        finally:
            os.close(file)
        self.assertEqual(shape_of(self.cube), [5, 4, 1])
        self.assertEqual((self.cube / "frames/late").read_bytes(), data)
        file = os.open(self.cube / "append/cut", os.O_WRONLY | os.O_CREAT)
        os.write(file, data[:2890])
        os.unlink(self.cube / "frames/late")
        os.unlink(self.cube / "removed/late")
        self.assertEqual(errno_of(os.close, file), "EINVAL")
        mounted.wait_until(lambda: meta(self.cube, "shape") == "", "the cube is undefined")
        run("cp", self.file(np.ones((2, 2), "float64")), self.cube / "append")
        self.assertEqual(meta(self.cube, "dtype"), "float64")

    def test_rmdir(self):
        self.fill((4, 5))
        fails("rmdir", self.cube, because=errno.ENOTEMPTY)
        run("rm", self.cube / "frames/f0")
        fails("rmdir", self.cube, because=errno.ENOTEMPTY)
        self.m.remount()
        fails("rmdir", self.cube, because=errno.ENOTEMPTY)
        run("cmp", self.base / "f0", self.cube / "removed/f0")
        run("rm", self.cube / "removed/f0")
        run("rmdir", self.cube)
        self.assertFalse(self.cube.exists())


    def test_a_door_of_a_cube_that_was_removed(self):
        """A program that stands in it must not believe that its frames are taken."""
        data = fits_bytes(np.ones((3, 4), "int16"))
        for made_again in (False, True):
            cube = self.m.cube(f"removed-{made_again}")
            door = os.open(cube / "append", os.O_RDONLY)
            try:
                run("rmdir", cube)
                if made_again:
                    run("mkdir", cube)
                with self.assertRaises(FileNotFoundError):
                    file = os.open("f", os.O_WRONLY | os.O_CREAT, dir_fd=door)
                    try:
                        os.write(file, data)
                    finally:
                        os.close(file)
            finally:
                os.close(door)

    def test_rmdir_while_a_frame_comes_in(self):
        data = fits_bytes(np.ones((3, 4), "int16"))
        with open(self.cube / "append/f", "wb", buffering=0) as file:
            file.write(data[:2890])
            self.assertEqual(errno_of(os.rmdir, self.cube), "ENOTEMPTY")
            file.write(data[2890:])
        self.assertEqual((self.cube / "frames/f").read_bytes(), data)


class MountedAgain(RemovalTest):
    def test_at_each_stage(self):
        model = self.fill((4, 5), (6, 3), (2, 9), (4, 5))
        before = self.cube_bytes()
        for again in (self.m.remount, lambda: (self.m.kill(), self.m.start())):
            for change, name in ((model.remove, "f2"), (model.remove, "f0"), (model.restore, "f2"),
                                 (model.restore, "f0")):
                if change == model.remove:
                    run("rm", self.cube / "append" / name)
                else:
                    run("mv", self.cube / "removed" / name, self.cube / "append")
                change(name)
                again()
                model.check(self.cube, f"{change.__name__} {name}")
            self.assertEqual(self.cube_bytes(), before)
            name = f"g{len(model.frames)}"
            array = random_array(self.rng, (8, 8), "int16")
            run("cp", self.file(array, name=name), self.cube / "append")
            model.add(name, array)
            again()
            run("mv", self.cube / "append" / name, self.cube / "append/f3")
            model.rename(name, "f3")
            again()
            model.check(self.cube, "replaced")
            before = self.cube_bytes()
        run("rm", self.cube / "append/f3")
        run("rm", self.cube / "removed/f3")
        model.remove("f3")
        model.discard("f3")
        self.m.remount()
        model.check(self.cube, "thrown away")

    def test_the_last_bytes_of_the_store_given_back(self):
        """What the journal tells of was cut off the end of the brick file since."""
        model = self.fill((4, 5), (300, 300))
        run("rm", self.cube / "frames/f1")
        run("rm", self.cube / "removed/f1")
        model.remove("f1")
        model.discard("f1")
        sync(self.cube)
        self.m.remount()
        model.check(self.cube, "from the journal")
        self.fill((200, 200), (310, 310), model=model)
        for i in range(4000):  # a long journal is replaced by a checkpoint at the end
            os.chmod(self.cube / "frames/f0", 0o600 + i % 2)
        self.m.remount()
        run("rm", self.cube / "frames/f2")
        run("rm", self.cube / "removed/f2")
        model.remove("f2")
        model.discard("f2")
        sync(self.cube)
        for again in (self.m.remount, lambda: (self.m.kill(), self.m.start())):
            again()
            model.check(self.cube, "from a checkpoint")
            self.assertNotIn("damage", (self.cube / "history").read_text())

    def test_killed_while_frames_come_and_go(self):
        chance = random.Random(SEED)
        script = '''
            n=0
            while read -r what from to; do
              case $what in
                cp) cp "$from" "$to";; rm) rm "$from";; mv) mv "$from" "$to";;
              esac || exit 1
              n=$((n + 1)); echo $n > "$1"
            done'''
        model = Model(3, "int16")
        put(self.cube, "axes", "x y z")
        number = 0
        for turn in range(scaled(8, 3)):
            plan, names = [], {n: f.removed for n, f in model.frames.items()}
            for _ in range(120):
                live = [n for n, removed in names.items() if not removed]
                removed = [n for n, is_removed in names.items() if is_removed]
                pick = chance.random()
                if pick < 0.5 or not names:
                    array = random_array(self.rng, [chance.randint(1, 3) for _ in range(3)],
                                         "int16")
                    path = self.file(array, name=f"n{number}")
                    number += 1
                    names[path.name] = False
                    plan.append((f"cp {path} {self.cube}/append",
                                 lambda m, n=path.name, a=array: m.add(n, a)))
                elif pick < 0.7 and live:
                    name = chance.choice(live)
                    names[name] = True
                    plan.append((f"rm {self.cube}/frames/{name}", lambda m, n=name: m.remove(n)))
                elif pick < 0.85 and removed:
                    name = chance.choice(removed)
                    names[name] = False
                    plan.append((f"mv {self.cube}/removed/{name} {self.cube}/append",
                                 lambda m, n=name: m.restore(n)))
                elif removed and len(names) > 1:
                    name = chance.choice(removed)
                    del names[name]
                    plan.append((f"rm {self.cube}/removed/{name}", lambda m, n=name: m.discard(n)))
            (self.base / "done").write_text("0")
            worker = subprocess.Popen(["bash", "-c", script, "-", self.base / "done"],
                                      stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
            worker.stdin.write("".join(f"{line}\n" for line, _ in plan).encode())
            worker.stdin.close()
            time.sleep(chance.uniform(0.02, 0.3) * (4 if mounted.SANITIZE else 1))
            self.m.process.kill()
            self.m.process.wait()
            self.m.process = None
            worker.wait(mounted.PATIENCE)
            self.m.unmount_dead()
            self.m.start()
            done = int((self.base / "done").read_text() or 0)
            for _, change in plan[:done]:
                change(model)
            # The step that was under way has happened, or it has not.
            try:
                model.check(self.cube, f"round {turn}")
            except AssertionError:
                if done == len(plan):
                    raise
                plan[done][1](model)
                model.check(self.cube, f"round {turn}, {done} of {len(plan)} done and one more")

    def test_removals_and_copies_at_once(self):
        count = scaled(160, 60)
        frames = random_array(self.rng, (count, 6, 9), "int16")
        paths = [self.file(f, name=f"n{i}") for i, f in enumerate(frames)]
        half = count // 2
        run("cp", *paths[:half], self.cube / "append")
        lines = [f"cp {p} {self.cube}/append" for p in paths[half:]]
        lines += [f"rm {self.cube}/frames/n{i}" for i in range(0, half, 2)]
        random.Random(SEED).shuffle(lines)
        run("xargs", "-P4", "-L1", "env", input="\n".join(lines).encode())
        live = set(range(1, half, 2)) | set(range(half, count))
        self.assertEqual(set(os.listdir(self.cube / "frames")), {f"n{i}" for i in live})
        whole = np.load(self.cube / "cube.npy")
        self.assertEqual(len(whole), len(live))
        for row in frame_table(self.cube):
            assert_same(whole[int(row["index"])], frames[int(row["name"][1:])], row["name"])
        lines = [f"mv {self.cube}/removed/n{i} {self.cube}/append" for i in range(0, half, 2)]
        lines += [f"rm {self.cube}/frames/n{i}" for i in range(half, count)]
        random.Random(SEED).shuffle(lines)
        run("xargs", "-P4", "-L1", "env", input="\n".join(lines).encode())
        assert_same(np.load(self.cube / "cube.npy"), frames[:half])
        run("xargs", "-P4", "-L1", "rm", input="\n".join(
            f"{self.cube}/removed/n{i}" for i in range(half, count)).encode())
        self.m.remount()
        assert_same(np.load(self.cube / "cube.npy"), frames[:half])


class FullDisk(unittest.TestCase):
    def setUp(self):
        if os.geteuid() != 0:
            if os.environ.get("CI") == "true":
                self.fail("mounting a small tmpfs needs root")
            self.skipTest("mounting a small tmpfs needs root")

    def run_on(self, size, test):
        with temporary_directory() as base:
            disk = base / "disk"
            disk.mkdir()
            run("mount", "-t", "tmpfs", "-o", f"size={size}m", "tmpfs", disk)
            try:
                (base / "in").mkdir()
                (disk / "store").mkdir()
                with Mounted(store=disk / "store") as m:
                    test(m, m.cube("c"), base / "in")
            finally:
                run("umount", disk)

    def fill_up(self, cube, paths):
        taken = 0
        for path in paths:
            if run("cp", path, cube / "append", check=False).returncode != 0:
                return taken
            taken += 1
        raise AssertionError("the disk is not full")

    def test_no_space_is_answered_by_the_space_of_frames_thrown_away(self):
        frames = random_array(generator(5), (70, 500, 512), "float32")

        def test(m, cube, source):
            paths = write_series(source, frames)
            taken = self.fill_up(cube, paths)
            print(f"{taken} frames of 1 MiB")
            fails("cp", paths[-1], cube / "append", because=errno.ENOSPC)
            live = list(range(taken))
            # Taking out makes no room, as they may come back.
            run("rm", *[cube / "frames" / paths[i].name for i in (5, 6, 7)])
            fails("cp", paths[-1], cube / "append", because=errno.ENOSPC)
            for i in (5, 6, 7):
                live.remove(i)
            assert_same(np.load(cube / "cube.npy"), frames[live])
            # Throwing away does, without any sync by the user.
            run("rm", *[cube / "removed" / paths[i].name for i in (5, 6, 7)])
            for i in (67, 68, 69):
                run("cp", paths[i], cube / "append")
                live.append(i)
            fails("cp", paths[66], cube / "append", because=errno.ENOSPC)
            assert_same(np.load(cube / "cube.npy"), frames[live])
            m.kill()
            m.start()
            assert_same(np.load(cube / "cube.npy"), frames[live])
            # One in, one out, for a while.
            for turn in range(10):
                gone = live.pop(turn)
                run("rm", cube / "frames" / paths[gone].name)
                run("rm", cube / "removed" / paths[gone].name)
                shutil.copy(paths[66], source / f"more{turn}.fits")
                run("cp", source / f"more{turn}.fits", cube / "append")
                live.append(66)
            assert_same(np.load(cube / "cube.npy"), frames[live])
            m.remount()
            assert_same(np.load(cube / "cube.npy"), frames[live])

        self.run_on(64, test)

    def test_removal_works_when_nothing_else_does(self):
        frames = random_array(generator(6), (40, 250, 512), "float32")

        def test(m, cube, source):
            paths = write_series(source, frames)
            taken = self.fill_up(cube, paths)
            # Every last block.
            with open(m.store / "filler", "wb", buffering=0) as filler:
                try:
                    while True:
                        filler.write(bytes(4096))
                except OSError as error:
                    self.assertEqual(error.errno, errno.ENOSPC)
            fails("cp", paths[-1], cube / "append", because=errno.ENOSPC)
            run("rm", *[cube / "frames" / paths[i].name for i in range(taken - 1)])
            assert_same(np.load(cube / "cube.npy"), frames[taken - 1: taken])
            run("mv", cube / "removed" / paths[1].name, cube / "append")
            assert_same(np.load(cube / "cube.npy"), frames[[1, taken - 1]])
            m.remount()
            assert_same(np.load(cube / "cube.npy"), frames[[1, taken - 1]])
            run("rm", *[cube / "removed" / n for n in os.listdir(cube / "removed")])
            run("cp", *paths[-6:], cube / "append")
            assert_same(np.load(cube / "cube.npy"), frames[[1, taken - 1, *range(34, 40)]])

        self.run_on(12, test)

    def test_what_is_looked_at_is_not_reused(self):
        frames = random_array(generator(7), (24, 500, 512), "float32")

        def test(_, cube, source):
            paths = write_series(source, frames)
            taken = self.fill_up(cube, paths)
            view = np.load(cube / "cube.npy", mmap_mode="r")
            run("rm", *[cube / "frames" / paths[i].name for i in range(4)])
            run("rm", *[cube / "removed" / paths[i].name for i in range(4)])
            fails("cp", paths[-1], cube / "append", because=errno.ENOSPC)
            assert_same(np.array(view[:5]), frames[:5])
            del view
            mounted.wait_until(lambda: run("cp", paths[-1], cube / "append",
                                           check=False).returncode == 0, "there is room")
            assert_same(np.load(cube / "cube.npy"), frames[[*range(4, taken), 23]])

        self.run_on(18, test)


if __name__ == "__main__":
    mounted.main()
