"""accretefs-check and accretefs-export beside real mounts."""
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import unittest

import mounted
import numpy as np
from frames import fits_bytes, generator, npy_bytes, random_array, read_fits, write_fits
from mounted import Mounted, meta, put, run, temporary_directory

GOOD, DAMAGED, _, COULD_NOT_CHECK = range(4)


def check(store, *words, expect=GOOD):
    result = run(mounted.program("ACCRETEFS_CHECK"), store, *words, check=False)
    said = result.stdout.decode() + result.stderr.decode()
    if result.returncode != expect:
        raise AssertionError(f"ended with {result.returncode} instead of {expect}: {said}")
    return said


def export(*words, expect=0):
    result = run(mounted.program("ACCRETEFS_EXPORT"), *words, check=False)
    said = result.stderr.decode()
    if result.returncode != expect:
        raise AssertionError(f"ended with {result.returncode} instead of {expect}: {said}")
    return said


def hashes(directory):
    return {path.relative_to(directory): (hashlib.sha256(path.read_bytes()).hexdigest(),
                                          path.stat().st_mtime_ns)
            for path in sorted(directory.rglob("*")) if path.is_file()}


def fill(cube, rng, dtype="float32"):
    """Ragged frames with cards, one removed; then pokes, some of them in pad, and the cube's own
    cards."""
    with temporary_directory() as base:
        for i, shape in enumerate([(30, 40), (20, 50), (33, 12), (30, 40), (1, 1)]):
            write_fits(base / f"f{i}.fits", random_array(rng, shape, dtype),
                       [f"OBJECT  = 'M 42    '", f"EXPOSURE= {i:>20}"])
        run("cp", *(base / f"f{i}.fits" for i in range(5)), cube / "append")
    (cube / "frames/f3.fits").unlink()
    put(cube, "header", "OBSERVER= 'Galilei'")
    with open(cube / "slices/xy/z000001.raw", "r+b") as view:
        view.seek(4 * 100)
        view.write(np.arange(20, dtype=dtype).tobytes())
    with open(cube / "slices/xy/z000003.raw", "r+b") as view:  # where no frame gave any
        view.seek(4 * 700)
        view.write(np.arange(9, dtype=dtype).tobytes())


VIEWS = ["cube.fits", "cube.npy", "cube.raw", "slices/xy/z000001.fits", "slices/zx/y000003.npy",
         "slices/z/x000004/y000005.fits", "slices/z/x000004/y000005.txt",
         "slices/xyz/x5..20_z1..3.npy", "mask/xyz/z0...npy"]


class Export(unittest.TestCase):
    def test_is_the_file_in_the_mount(self):
        rng = generator(1)
        with temporary_directory() as base, Mounted() as m:
            cube = m.cube("c")
            fill(cube, rng)
            wanted = {view: (cube / view).read_bytes() for view in VIEWS}
            # The store as it is, cut off without a sync, and after an end in order.
            shutil.copytree(m.store, base / "live")
            m.kill()
            for store in (base / "live", m.store):
                before = hashes(store)
                for view, bytes in wanted.items():
                    with self.subTest(store=store.name, view=view):
                        out = base / f"out{pathlib.Path(view).suffix}"
                        words = [] if view.startswith("cube") else ["--view", view]
                        export("--force", *words, store, "c", out)
                        self.assertEqual(out.read_bytes(), bytes)
                self.assertEqual(hashes(store), before)
                self.assertIn("good", check(store))
                self.assertEqual(hashes(store), before)
            m.start()
            self.assertEqual((cube / "cube.fits").read_bytes(), wanted["cube.fits"])

    def test_a_replacement_that_was_cut_off_is_laid_over(self):
        """Of a store as a crash leaves it that stored none of the new elements."""
        with temporary_directory() as base, Mounted() as m:
            cube = m.cube("c")
            write_fits(cube / "append/a.fits", np.zeros((30, 40), "int16"))
            os.sync()
            old = (m.store / "c/bricks").read_bytes()
            new = np.arange(1200, dtype="int16").reshape(30, 40)
            with open(cube / "slices/xy/z000000.npy", "wb") as view:
                view.write(npy_bytes(new))
            shutil.copytree(m.store, base / "live")
            (base / "live/c/bricks").write_bytes(old)
            before = hashes(base / "live")
            export(base / "live", "c", base / "out.fits")
            self.assertTrue((read_fits(base / "out.fits")[0] == new).all())
            check(base / "live")
            self.assertEqual(hashes(base / "live"), before)

    def test_a_store_on_a_read_only_filesystem(self):
        with temporary_directory() as base, Mounted() as m:
            fill(m.cube("c"), generator(2), "int32")
            wanted = (m / "c/cube.fits").read_bytes()
            m.kill()
            run("mount", "--bind", m.store, m.store)
            try:
                run("mount", "-o", "remount,ro,bind", m.store)
                self.assertIn("good", check(m.store))
                export(m.store, "c", base / "out.fits")
                self.assertEqual((base / "out.fits").read_bytes(), wanted)
            finally:
                run("umount", m.store)
            m.start()

    def test_what_is_there_stays_unless_forced(self):
        with temporary_directory() as base, Mounted() as m:
            write_fits(m.cube("c") / "append/a.fits", np.ones((3, 4), "uint8"))
            m.cube("empty")
            m.stop()
            out = base / "out.npy"
            out.write_text("mine")
            self.assertIn("there already", export(m.store, "c", out, expect=1))
            self.assertEqual(out.read_text(), "mine")
            export("--force", m.store, "c", out)
            self.assertEqual(np.load(out).tolist(), np.ones((1, 3, 4)).tolist())
            for words, sentence in (([m.store, "none", base / "a.fits"], "no cube"),
                                    ([m.store, "empty", base / "a.fits"], "no frame"),
                                    ([m.store, "c", base / "a.png"], "does not end in"),
                                    ([m.store, "c", base / "no/a.fits"], "No such file"),
                                    (["--view", "xy/z7.fits", m.store, "c", base / "a.fits"], ""),
                                    (["--view", "xy/z0.png", m.store, "c", base / "a.fits"], ""),
                                    ([base, "c", base / "a.fits"], "")):
                with self.subTest(words):
                    said = export(*words, expect=1)
                    self.assertIn(sentence, said)
                    self.assertEqual(said.count("\n"), 1)
            export(m.store, "c", expect=2)
            self.assertEqual(sorted(os.listdir(base)), ["out.npy"])
            m.start()

    def test_a_full_disk_leaves_nothing(self):
        with temporary_directory() as base, Mounted() as m:
            write_fits(m.cube("c") / "append/a.fits", np.ones((2000, 1000), "float32"))
            m.stop()
            small = base / "small"
            small.mkdir()
            run("mount", "-t", "tmpfs", "-o", "size=4m", "none", small)
            try:
                self.assertIn("No space left", export(m.store, "c", small / "c.fits", expect=1))
                self.assertEqual(os.listdir(small), [])
            finally:
                run("umount", small)
            m.start()


class Check(unittest.TestCase):
    def test_a_store_in_use_is_refused(self):
        with temporary_directory() as base, Mounted() as m:
            write_fits(m.cube("c") / "append/a.fits", np.ones((3, 4), "uint8"))
            for words in ([], ["--repair"]):
                self.assertIn("in use", check(m.store, *words, expect=COULD_NOT_CHECK))
            self.assertIn("in use", export(m.store, "c", base / "a.fits", expect=1))

    def test_a_repaired_cube_takes_frames_again(self):
        rng = generator(3)
        arrays = [random_array(rng, (64, 64), "int16") for _ in range(6)]
        with Mounted() as m:
            cube = m.cube("c")
            for i, array in enumerate(arrays):
                write_fits(cube / f"append/f{i}.fits", array)
                os.sync()
            m.stop()
            journal = m.store / "c/journal.000001"
            data = bytearray(journal.read_bytes())
            data[data.rindex(b"ACRMARK1") - 400] ^= 1  # in the last frame's record
            journal.write_bytes(data)
            m.start()
            self.assertEqual(mounted.errno_of(os.mkdir, cube / "x"), "EPERM")
            with self.assertRaises(OSError):
                write_fits(cube / "append/g.fits", arrays[0])
            m.stop()
            self.assertIn("before its last mark", check(m.store, expect=DAMAGED))
            self.assertIn("f5.fits", check(m.store, "--repair", expect=DAMAGED))
            self.assertIn("5 frames", check(m.store))
            m.start()
            self.assertTrue((read_fits(cube / "cube.fits") == np.stack(arrays[:5])).all())
            write_fits(cube / "append/f5.fits", arrays[5])
            self.assertTrue((read_fits(cube / "cube.fits") == np.stack(arrays)).all())
            m.remount()
            self.assertTrue((read_fits(cube / "cube.fits") == np.stack(arrays)).all())
            self.assertIn("repair", (cube / "history").read_text())

    def test_damaged_elements_are_replaced_in_place_by_a_good_copy(self):
        rng = generator(4)
        arrays = [random_array(rng, (64, 64), "int16") for _ in range(3)]
        with temporary_directory() as base, Mounted() as m:
            cube = m.cube("c")
            for i, array in enumerate(arrays):
                write_fits(base / f"f{i}.fits", array)
            run("cp", *base.glob("*.fits"), cube / "append")
            order = [p.name for p in sorted((cube / "frames").iterdir())]
            m.stop()
            with open(m.store / "c/bricks", "r+b") as bricks:
                bricks.write(b"damaged!")
            said = check(m.store, "--repair", expect=DAMAGED)
            bad = re.search(r"\(frame (\S+)\)", said)[1]
            m.start()
            before = meta(cube, "shape")
            run("rsync", "-c", base / bad, cube / "append")
            self.assertEqual(meta(cube, "shape"), before)
            self.assertEqual([p.name for p in sorted((cube / "frames").iterdir())], order)
            self.assertEqual((cube / "frames" / bad).read_bytes(), (base / bad).read_bytes())
            m.stop()
            check(m.store)
            m.start()

    def test_a_repair_on_a_full_disk(self):
        with temporary_directory() as base:
            disk = base / "disk"
            disk.mkdir()
            run("mount", "-t", "tmpfs", "-o", "size=8m", "none", disk)
            try:
                with Mounted(store=disk / "store") as m:
                    cube = m.cube("c")
                    for i in range(3):
                        write_fits(cube / f"append/f{i}.fits", np.full((64, 64), i, "int16"))
                    wanted = (cube / "cube.fits").read_bytes()
                checkpoint = disk / "store/c/checkpoint.000001"
                data = bytearray(checkpoint.read_bytes())
                data[20] ^= 1
                checkpoint.write_bytes(data)
                with open(disk / "ballast", "wb") as ballast, self.assertRaises(OSError):
                    while True:
                        os.write(ballast.fileno(), bytes(4096))
                before = hashes(disk / "store")
                self.assertIn("No space left",
                              check(disk / "store", "--repair", expect=COULD_NOT_CHECK))
                after = hashes(disk / "store")
                clean = pathlib.Path("c/clean")  # goes first: the next start has more to do
                self.assertEqual({p: h for p, h in before.items() if p != clean}, after)
                (disk / "ballast").unlink()
                check(disk / "store", "--repair", expect=DAMAGED)
                check(disk / "store")
                with Mounted(store=disk / "store") as m:
                    self.assertEqual((m / "c/cube.fits").read_bytes(), wanted)
            finally:
                run("umount", disk)

    def test_a_disk_that_cannot_be_read(self):
        """A frame is named, and the program does not end by the fault."""
        with temporary_directory() as base:
            image, disk = base / "image", base / "disk"
            disk.mkdir()
            with open(image, "wb") as file:
                file.truncate(64 << 20)
            run("mkfs.ext4", "-q", "-O", "^has_journal", image)
            loop = run("losetup", "-f", "--show", image).stdout.decode().strip()
            try:
                run("mount", loop, disk)
                try:
                    with Mounted(store=disk / "store") as m:
                        cube = m.cube("c")
                        for i in range(4):
                            write_fits(cube / f"append/f{i}.fits",
                                       np.full((1024, 1024), i, "float32"))
                    mapped = run("filefrag", "-v", "-b4096", disk / "store/c/bricks").stdout
                finally:
                    run("umount", disk)
                extents = [int(found[1]) for found in re.finditer(
                    r"^ *\d+: *\d+\.\. *\d+: *(\d+)\.\.", mapped.decode(), re.M)]
                run("mount", "-o", "ro", loop, disk)
                try:
                    run("sync")
                    os.truncate(image, max(extents) * 4096 + (1 << 20))
                    pathlib.Path("/proc/sys/vm/drop_caches").write_text("3")
                    said = check(disk / "store", expect=DAMAGED)
                    self.assertIn("cannot be read (frame f", said)
                    self.assertIn("cannot be read",
                                  export(disk / "store", "c", base / "c.fits", expect=1))
                    self.assertFalse((base / "c.fits").exists())
                finally:
                    run("umount", disk)
            finally:
                run("losetup", "-d", loop)


if __name__ == "__main__":
    mounted.main()
