"""A full disk refuses what does not fit, keeps what is there, and takes frames out."""
import errno
import gzip
import os
import shutil
import unittest
from contextlib import ExitStack, contextmanager

import mounted
import numpy as np
from astropy.io import fits
from disks import disk, fill_to_the_last_block, free_bytes, need_root
from frames import assert_same, fits_bytes, generator, random_array, read_view, write_series
from mounted import (Mounted, errno_of, fails, last_error, meta, put, run, scaled, shape_of, temporary_directory,
                     wait_until)
from refusals import blocks_of, resources_of


class FullDiskTest(unittest.TestCase):
    def setUp(self):
        need_root(self)

    @contextmanager
    def mounted_on(self, kind, size, frames, **more):
        """A mount, a cube, and files of these frames, which lie on another disk."""
        with disk(kind, size, **more) as place, temporary_directory() as base:
            (place / "store").mkdir()
            (place / "filler").touch()  # which a full disk would not let us
            self.prepare(place)
            with Mounted(store=place / "store") as m:
                yield place, m, m.cube("c"), write_series(base, frames)

    def prepare(self, place):
        """For those that limit the store."""

    def fill_up(self, cube, paths, because=errno.ENOSPC):
        """How many of them fit."""
        for taken, path in enumerate(paths):
            if run("cp", path, cube / "append", check=False).returncode != 0:
                fails("cp", path, cube / "append", because=because)
                self.assertIn(os.strerror(because), last_error(cube))
                return taken
        raise AssertionError("the disk is not full")

    def check(self, cube, frames):
        self.assertEqual(len(os.listdir(cube / "frames")), len(frames))
        assert_same(read_view(cube / "cube.npy", None, None), frames)


class Filled(FullDiskTest):
    def test_sixty_four_mebibytes_hold_forty_and_more_frames_of_one(self):
        # 512 x 500 float32 and the header are less than 1 MiB, so that a frame is at most that.
        frames = random_array(generator(), (70, 500, 512), "float32")
        with self.mounted_on("tmpfs", 64, frames) as (_, m, cube, paths):
            taken = self.fill_up(cube, paths)
            print(f"64 MiB hold {taken} frames of 1 MiB")
            self.assertGreaterEqual(taken, 41)
            self.assertLess(taken, 70)
            self.assertTrue(last_error(cube))
            self.check(cube, frames[:taken])
            self.assertEqual(len(os.listdir(cube / "append")), taken)

    def test_what_a_cube_holds_for_frames_to_come_another_one_gets(self):
        frames = random_array(generator(2), (33, 128, 256), "float32")
        large = random_array(generator(3), (70, 500, 512), "float32")
        with self.mounted_on("tmpfs", 64, frames) as (place, m, cube, paths), \
                temporary_directory() as base:
            for path in paths:
                run("cp", path, cube / "append")
            run("sync", cube)
            needed = frames.nbytes + (1 << 20)
            self.assertGreater(blocks_of(place / "store" / "c"), needed + (2 << 20), "for a series")
            other = m.cube("d")
            others = write_series(base, large)
            taken = self.fill_up(other, others)
            self.assertLess(blocks_of(place / "store" / "c"), needed)
            self.check(cube, frames)
            self.check(other, large[:taken])
            os.unlink(other / "frames" / others[0].name)
            os.unlink(other / "removed" / others[0].name)
            run("cp", paths[0], cube / "append" / "one-more.fits")
            self.check(cube, np.concatenate([frames, frames[:1]]))

    def live_on_it(self, kind, size):
        """Full to the last block, again and again: what is there is there, and frames go and come."""
        frames = random_array(generator(1), (60, 250, 512), "float32")
        with self.mounted_on(kind, size, frames) as (place, m, cube, paths):
            with open(place / "ballast", "wb") as file:
                os.posix_fallocate(file.fileno(), 0, free_bytes(place) - (12 << 20))
            taken = self.fill_up(cube, paths)
            self.assertGreater(taken, 15)
            live = list(range(taken))
            fresh = iter(range(taken, len(frames)))

            def drop(number):
                run("rm", cube / "frames" / paths[number].name)
                run("rm", cube / "removed" / paths[number].name)
                live.remove(number)

            def grow():
                number = next(fresh)
                run("cp", paths[number], cube / "append")
                live.append(number)

            def fill():
                os.truncate(place / "filler", 0)
                fill_to_the_last_block(place)
                fails("cp", paths[-1], cube / "append", because=errno.ENOSPC)
                self.check(cube, frames[live])

            def kill():
                m.kill()
                m.start()

            fill()
            for end in (lambda: None, m.remount, kill, m.remount):
                end()
                self.check(cube, frames[live])
                self.assertEqual(errno_of(os.mkdir, m / "other"), "ENOSPC")
                # Out and back.
                run("rm", cube / "frames" / paths[live[1]].name)
                self.check(cube, frames[[live[0], *live[2:]]])
                run("mv", cube / "removed" / paths[live[1]].name, cube / "append")
                self.check(cube, frames[live])
                # Another takes the place of two that were thrown away, without any sync by the user:
                # it needs more than elements.
                drop(live[2])
                drop(live[2])
                grow()
                self.check(cube, frames[live])
                fill()
            # Wherever in a block the journal ends, there is space for what a start has to add.
            for turn in range(6):
                name = paths[live[turn % 2]].name
                os.rename(cube / "frames" / name, cube / "frames" / ("n" * turn * 20 + name))
                os.rename(cube / "frames" / ("n" * turn * 20 + name), cube / "frames" / name)
                os.unlink(cube / "frames" / name)
                kill()
                self.assertEqual(errno_of(os.rename, cube / "removed" / name, cube / "append" / name), "OK")
            self.check(cube, frames[live])
            self.assertNotIn("damage", (cube / "history").read_text())
            # Everything goes, and its space comes back.
            os.truncate(place / "filler", 0)
            before = free_bytes(place)
            run("rm", *[cube / "frames" / paths[i].name for i in live])
            run("rm", *[cube / "removed" / paths[i].name for i in live])
            self.assertEqual(meta(cube, "shape"), "")
            wait_until(lambda: free_bytes(place) > before + len(live) * frames[0].nbytes * 9 // 10,
                       "space is free again")
            m.remount()
            run("cp", *paths[:3], cube / "append")
            self.check(cube, frames[:3])

    def test_ext4(self):
        self.live_on_it("ext4", 64)

    def test_xfs(self):
        self.live_on_it("xfs", 320)

    def test_tmpfs(self):
        self.live_on_it("tmpfs", 16)

    def test_many_frames_are_taken_out_of_a_full_disk(self):
        count = scaled(400, 200)
        frames = random_array(generator(2), (count, 20, 64), "float32")
        for kind, size in (("tmpfs", 16), ("ext4", 32)):
            with self.subTest(kind), self.mounted_on(kind, size, frames) as (place, m, cube, paths):
                run("cp", *paths, cube / "append")
                fill_to_the_last_block(place)
                for path in paths[:-1]:
                    # Frame by frame: so many at once do not fit in what is held for that.
                    os.unlink(cube / "frames" / path.name)
                    os.unlink(cube / "removed" / path.name)
                self.check(cube, frames[-1:])
                m.kill()
                m.start()
                self.check(cube, frames[-1:])
                os.truncate(place / "filler", 0)
                run("cp", *paths[:5], cube / "append")
                self.check(cube, frames[[-1, *range(5)]])

    def test_a_cube_without_space_for_any_removal_is_opened_to_throw_frames_away(self):
        count = 320  # fills the last box of the series: nothing is held for more, which could be freed
        frames = random_array(generator(8), (count, 64, 64), "float32")
        for kind, size in (("tmpfs", 16), ("ext4", 32)):
            with self.subTest(kind), self.mounted_on(kind, size, frames) as (place, m, cube, paths):
                for path in paths:
                    (cube / "append" / path.name).write_bytes(path.read_bytes())
                fill_to_the_last_block(place)
                taken = 0
                while errno_of(os.unlink, cube / "frames" / paths[taken].name) == "OK":
                    taken += 1
                print(f"{kind}: {taken} frames taken out")
                self.assertGreater(taken, 40)
                self.check(cube, frames[taken:])
                m.kill()
                m.start()
                self.check(cube, frames[taken:])
                for path in paths[:taken]:
                    self.assertEqual(errno_of(os.unlink, cube / "removed" / path.name), "OK")
                self.assertEqual(errno_of(os.unlink, cube / "frames" / paths[taken].name), "OK")
                self.check(cube, frames[taken + 1:])


class Refused(FullDiskTest):
    def test_a_frame_larger_than_the_disk_takes_no_space(self):
        with self.mounted_on("tmpfs", 64, random_array(generator(), (1, 512, 500), "uint8")) \
                as (place, m, cube, (small,)), temporary_directory() as base:
            large, = write_series(base, np.ones((1, 400, 512, 512), "uint8"), prefix="l")
            run("cp", small, cube / "append")
            run("sync", cube / "meta")
            before = free_bytes(place)
            for _ in range(5):
                fails("cp", large, cube / "append", because=errno.ENOSPC)
            # Space is given back in the background.
            wait_until(lambda: before - free_bytes(place) < 1 << 20, "space is free again")
            self.assertEqual(shape_of(cube), [500, 512, 1])
            self.assertEqual(errno_of(os.mkdir, m / "d"), "OK")

    def test_a_thousand_refused_copies_leave_nothing(self):
        frames = random_array(generator(3), (40, 250, 512), "float32")
        with self.mounted_on("tmpfs", 16, frames) as (place, m, cube, paths):
            taken = self.fill_up(cube, paths)
            kinds = [fits_bytes(frames[-1]), gzip.compress(fits_bytes(frames[-1]), 1),
                     fits_bytes(frames[-1].T[::2].copy()), fits_bytes(frames[-1].astype("float64"))]

            def refuse(count):
                for i in range(count):
                    file = os.open(cube / f"append/more{i}.fits", os.O_WRONLY | os.O_CREAT)
                    content = memoryview(kinds[i % len(kinds)])
                    results = [errno_of(os.write, file, content[at: at + (1 << 17)])
                               for at in range(0, len(content), 1 << 17)]
                    results.append(errno_of(os.close, file))
                    self.assertIn("ENOSPC", results)
                    self.assertEqual(set(results) - {"OK"}, {"ENOSPC"})
                wait_until(lambda: len(os.listdir(cube / "append")) == taken, "the last one is gone")

            refuse(100)
            before = free_bytes(place), blocks_of(m.store), resources_of(m)
            refuse(scaled(1000, 100))
            wait_until(lambda: resources_of(m).descriptors <= before[2].descriptors,
                       "all files are closed", patience=20)
            after = free_bytes(place), blocks_of(m.store), resources_of(m)
            print(before, after)
            history = (cube / "history").stat().st_size
            self.assertGreater(after[0] + history, before[0] - (64 << 10))
            self.assertLess(after[1], before[1] + (64 << 10))
            if not mounted.SANITIZE:
                self.assertLess(after[2].private, before[2].private + (8 << 20))
            self.check(cube, frames[:taken])

    def test_unpacking_makes_room(self):
        """What a packed file unpacks to needs the space of frames that were thrown away."""
        frames = random_array(generator(4), (40, 250, 512), "float32")
        flat = np.full((250, 512), 7, "float32")
        with self.mounted_on("tmpfs", 16, frames) as (place, m, cube, paths), temporary_directory() as base:
            taken = self.fill_up(cube, paths)
            (base / "flat.fits.gz").write_bytes(gzip.compress(fits_bytes(flat)))
            fill_to_the_last_block(place)
            os.truncate(place / "filler", (place / "filler").stat().st_size - (64 << 10))
            fails("cp", base / "flat.fits.gz", cube / "append", because=errno.ENOSPC)
            for path in paths[:3]:
                os.unlink(cube / "frames" / path.name)
                os.unlink(cube / "removed" / path.name)
            run("cp", base / "flat.fits.gz", cube / "append")
            self.check(cube, np.concatenate([frames[3:taken], flat[None]]))
            run("cmp", base / "flat.fits.gz", cube / "frames/flat.fits.gz")

    def test_replacing_a_view_makes_room(self):
        frames = random_array(generator(5), (40, 250, 512), "float32")
        other = random_array(generator(6), (250, 512), "float32")
        with self.mounted_on("tmpfs", 16, frames) as (place, _, cube, paths), temporary_directory() as base:
            taken = self.fill_up(cube, paths)
            np.save(base / "other.npy", other)
            fill_to_the_last_block(place)
            plane = cube / "slices/xy/z000000.npy"
            fails("cp", base / "other.npy", plane, because=errno.ENOSPC)
            self.check(cube, frames[:taken])
            for path in paths[taken - 8:taken]:
                os.unlink(cube / "frames" / path.name)
                os.unlink(cube / "removed" / path.name)
            run("cp", base / "other.npy", plane)
            self.check(cube, np.concatenate([other[None], frames[1:taken - 8]]))

    def test_changes_in_place(self):
        """Each succeeds, or fails with ENOSPC and has changed nothing."""
        for kind, size in (("tmpfs", 16), ("ext4", 32)):
            frames = random_array(generator(5), (80, 250, 512), "float32")
            with self.subTest(kind), self.mounted_on(kind, size, frames) as (place, m, cube, paths):
                run("cp", *paths[:4], cube / "append")
                (cube / "append/small.fits").write_bytes(fits_bytes(np.ones((3, 3), "float32")))
                expected = np.load(cube / "cube.npy")
                mask = np.load(cube / "mask/xyz/z0...npy")
                fill_to_the_last_block(place)
                outcomes = {}

                def attempt(what, change, wanted):
                    try:
                        change()
                    except OSError as error:
                        self.assertEqual(error.errno, errno.ENOSPC, what)
                        self.assertGreater(len(last_error(cube)), 10)
                        outcomes[what] = "ENOSPC"
                    else:
                        nonlocal expected
                        expected = wanted
                        outcomes[what] = "OK"
                    assert_same(np.load(cube / "cube.npy"), expected, what)

                def poke(z, y, x, value):
                    wanted = expected.copy()
                    wanted[z, y, x] = value
                    file = os.open(cube / f"slices/xy/z{z}.raw", os.O_WRONLY)
                    try:
                        os.pwrite(file, np.float32(value).tobytes(), (y * 512 + x) * 4)
                    finally:
                        os.close(file)
                    return wanted

                for z in range(4):
                    wanted = expected.copy()
                    wanted[z, 7, 9] = 42 + z
                    attempt(f"poke {z}", lambda z=z: poke(z, 7, 9, 42 + z), wanted)
                wanted = expected.copy()
                wanted[4, 200, 300] = 5
                attempt("poke of pad", lambda: poke(4, 200, 300, 5), wanted)
                for z in (1, 4):
                    wanted = expected.copy()
                    wanted[z] = frames[30 + z]

                    def replace(z=z):
                        np.save(cube / f"slices/xy/z{z}.npy", frames[30 + z])

                    attempt(f"replace {z}", replace, wanted)
                header = fits.getheader(cube / f"frames/{paths[0].name}")

                def edit():
                    name = cube / f"frames/{paths[0].name}"
                    content = name.read_bytes()
                    at = content.index(b"END     ")
                    file = os.open(name, os.O_WRONLY)
                    try:
                        os.pwrite(file, b"OBJECT  = 'M 42    '".ljust(80) + b"END".ljust(80), at)
                        os.fsync(file)
                    finally:
                        os.close(file)

                attempt("header", edit, expected)
                found = fits.getheader(cube / f"frames/{paths[0].name}")
                self.assertEqual(found.get("OBJECT"), "M 42" if outcomes["header"] == "OK" else None)
                self.assertEqual(found["NAXIS1"], header["NAXIS1"])
                for name, value in (("pad", None), ("header", "OBSERVER= 'me'\n"), ("order", "name"),
                                    ("samename", "refuse")):
                    if value is not None:
                        before = meta(cube, name)
                        attempt(f"meta/{name}", lambda n=name, v=value: put(cube, n, v), expected)
                        if outcomes[f"meta/{name}"] == "ENOSPC":
                            self.assertEqual(meta(cube, name), before)
                if outcomes["meta/order"] == "OK":
                    put(cube, "order", "arrival")
                print(kind, outcomes)
                last = expected.copy()
                m.kill()
                m.start()
                assert_same(np.load(cube / "cube.npy"), last)
                if outcomes["poke of pad"] == "ENOSPC" and outcomes["replace 4"] == "ENOSPC":
                    assert_same(np.load(cube / "mask/xyz/z0...npy"), mask)
                # With space everything goes.
                os.truncate(place / "filler", 0)
                outcomes.clear()
                attempt("poke of pad", lambda: poke(4, 201, 300, 5),
                        np.where(np.arange(expected.size).reshape(expected.shape)
                                 == np.ravel_multi_index((4, 201, 300), expected.shape), np.float32(5), expected))
                attempt("header", edit, expected)
                self.assertEqual(set(outcomes.values()), {"OK"})


class Quota(FullDiskTest):
    LIMIT = 24

    def prepare(self, place):
        # root's own files have no limit, but what belongs to this group has.
        os.chown(place / "store", 0, 4242)
        os.chmod(place / "store", 0o2755)
        run("xfs_quota", "-x", "-c", f"limit -g bhard={self.LIMIT}m 4242", place)

    def test_beyond_it_is_edquot(self):
        if shutil.which("xfs_quota") is None:
            self.skipTest("there is no xfs_quota")
        frames = random_array(generator(6), (40, 500, 512), "float32")
        with ExitStack() as stack:
            try:
                _, m, cube, paths = stack.enter_context(
                    self.mounted_on("xfs", 320, frames, options="gquota"))
            except AssertionError as error:
                if "gquota" not in str(error):
                    raise
                self.skipTest("the kernel has no quotas")
            taken = self.fill_up(cube, paths, because=errno.EDQUOT)
            self.assertGreater(taken, 15)
            self.assertLess(taken, self.LIMIT)
            self.check(cube, frames[:taken])
            # As on a full disk: frames go and come.
            for path in paths[:2]:
                run("rm", cube / "frames" / path.name)
                run("rm", cube / "removed" / path.name)
            run("cp", paths[30], cube / "append")
            m.kill()
            m.start()
            self.check(cube, frames[[*range(2, taken), 30]])


if __name__ == "__main__":
    mounted.main()
