"""Frames that come in any order and stand in order of their names or keywords."""
import errno
import os
import random

import mounted
import numpy as np
from astropy.io import fits
from frames import SEED, assert_same, fits_bytes, generator, random_array, read_fits
from growing import GrowingTest, Model, frame_table, stored_bytes
from mounted import errno_of, last_error, meta, put, run, scaled, shape_of


def card(keyword, value):
    """A card of a FITS header; text is quoted."""
    if isinstance(value, bool):
        value = "T" if value else "F"
    if isinstance(value, str) and value not in "TF":
        return f"{keyword:<8}= '{value:<8}'"
    return f"{keyword:<8}= {value:>20}"


class OrderTest(GrowingTest):
    def take(self, name, value, *cards, cube=None):
        """cp of a frame all of whose elements are `value`."""
        path = self.file(np.full((3, 4), value, "int16"), cards, name=name)
        run("cp", path, (cube or self.cube) / "append")

    def values(self, cube=None):
        """The value of each plane, all elements of which must have it."""
        whole = np.load((cube or self.cube) / "cube.npy")
        self.assertTrue((whole == whole[:, :1, :1]).all())
        return whole[:, 0, 0].tolist()

    def names(self, cube=None):
        """In order of place, by three ways that must agree."""
        cube = cube or self.cube
        rows = frame_table(cube)
        listed = os.listdir(cube / "frames")
        self.assertEqual([row["name"] for row in rows], listed)
        self.assertEqual([int(row["index"]) for row in rows],
                         np.cumsum([0] + [int(row["extent"]) for row in rows[:-1]]).tolist())
        return listed


class ByName(OrderTest):
    NAMES = ["a", "a1", "a2", "a10", "a10b", "b9.fits", "b010.fits", "b11.fits",
             "frame-1-2.fits", "frame-1-10.fits", "frame-2-1.fits", "frame-10-1.fits",
             "x99999999999999999998", "x99999999999999999999", "x100000000000000000000", "zz"]

    def test_numbers_by_value(self):
        put(self.cube, "order", "name")
        shuffled = random.Random(SEED).sample(range(len(self.NAMES)), len(self.NAMES))
        for i in shuffled:
            self.take(self.NAMES[i], i)
        self.assertEqual(self.names(), self.NAMES)
        self.assertEqual(self.values(), list(range(len(self.NAMES))))
        for i, name in enumerate(("b09.fits", "b0009.fits", "b009.fits")):  # equal by number
            self.take(name, 100 + i)
        self.assertEqual({n for n in self.names()[5:9]},
                         {"b9.fits", "b09.fits", "b009.fits", "b0009.fits"})
        before, values = self.names(), self.values()
        self.m.remount()
        self.assertEqual((self.names(), self.values()), (before, values))
        self.assertEqual(meta(self.cube, "order"), "name")

    def test_as_ls_sorts_versions(self):
        put(self.cube, "order", "name")
        names = [f"{stem}{n}.fits" for stem in ("dark", "flat", "m31-") for n in range(1, 121, 7)]
        for name in random.Random(SEED).sample(names, len(names)):
            self.take(name, 1)
        (self.base / "list").mkdir()
        for name in names:
            (self.base / "list" / name).touch()
        wanted = run("ls", "-v", self.base / "list", env=dict(os.environ, LC_ALL="C"))
        self.assertEqual(self.names(), wanted.stdout.decode().split())

    def test_a_new_name_is_a_new_place(self):
        put(self.cube, "order", "name")
        for i in (4, 2, 8, 6):
            self.take(f"f{i}", i)
        run("mv", self.cube / "append/f2", self.cube / "append/f7")
        self.assertEqual(self.names(), ["f4", "f6", "f7", "f8"])
        self.assertEqual(self.values(), [4, 6, 2, 8])
        run("mv", self.cube / "frames/f8", self.cube / "frames/f10")
        run("mv", self.cube / "frames/f10", self.cube / "frames/f1")
        self.assertEqual(self.values(), [8, 4, 6, 2])
        run("mv", self.cube / "frames/f1", self.cube / "frames/f6")  # replaces that one
        self.assertEqual(self.names(), ["f4", "f6", "f7"])
        self.assertEqual(self.values(), [4, 8, 2])
        run("rm", self.cube / "frames/f6")
        run("mv", self.cube / "removed/f6", self.cube / "frames/f9")
        self.assertEqual(self.names(), ["f4", "f7", "f9"])
        self.assertEqual(self.values(), [4, 2, 8])
        self.m.remount()
        self.assertEqual(self.values(), [4, 2, 8])

    def test_the_same_name_again(self):
        put(self.cube, "order", "name")
        for i in (1, 2, 3):
            self.take(f"f{i}", i)
        self.take("f2", 22)
        self.assertEqual(self.names(), ["f1", "f2", "f2.~1~", "f3"])
        self.assertEqual(self.values(), [1, 22, 2, 3])
        self.take("f2", 222)
        self.assertEqual(sorted(self.names()), ["f1", "f2", "f2.~1~", "f2.~2~", "f3"])
        self.assertEqual(self.values(), [1, 222, 2, 22, 3])

    def test_rsync_and_temporary_names(self):
        put(self.cube, "order", "name")
        for i in random.Random(SEED).sample(range(1, 30), 29):
            self.file(np.full((3, 4), i, "int16"), name=f"f{i}.fits")
        run("rsync", "-a", f"{self.base}/", f"{self.cube}/append/")
        self.assertEqual(self.values(), list(range(1, 30)))


class ByKeyword(OrderTest):
    def check_values(self, keyword, values):
        """Frames with these values, taken in random order, stand in the order given."""
        name = f"by-{keyword}-{len(os.listdir(self.m.mnt))}"
        cube = self.m.cube(name)
        put(cube, "order", keyword)
        for i in random.Random(SEED).sample(range(len(values)), len(values)):
            self.take(f"f{i}", i, card(keyword, values[i]), cube=cube)
        self.assertEqual(self.values(cube), list(range(len(values))))
        self.assertEqual([row[keyword] for row in frame_table(cube)], [str(v) for v in values])

    def test_numbers(self):
        self.check_values("OBSNUM", [-100, -9, -1, 0, 3, 5, 20, 100, 1000, 12345678901])
        self.check_values("EXPTIME", [-1e300, -1500.0, -0.5, 1e-300, 1e-05, 0.1, 2.0, 25.0, 9.9e99])
        # More digits than a double holds.
        self.check_values("TICKS", [9007199254740992, 9007199254740993, 9007199254740994,
                                    9223372036854775806, 9223372036854775807])

    def test_exponents_in_the_manner_of_fortran(self):
        put(self.cube, "order", "VALUE")
        texts = ["-2.5D+2", "-1E1", "0.", "1.D-3", ".5", "1d0", "12", "1.25D2", "+1000"]
        for i in random.Random(SEED).sample(range(len(texts)), len(texts)):
            self.take(f"f{i}", i, f"VALUE   = {texts[i]:>20}")
        self.assertEqual(self.values(), list(range(len(texts))))

    def test_texts(self):
        self.check_values("FILTER", ["B", "Halpha", "OIII", "R", "V", "r"])

    def test_dates(self):
        self.check_values("DATE-OBS", [
            "1999-12-31T23:59:59.999", "2000-01-01", "2000-01-01T00:00:00",
            "2000-01-01T00:00:00.5", "2024-02-29T12:00:00", "2024-02-29T12:00:01",
            "2024-03-01T00:00:00.000001", "2024-11-05T07:00:00"])

    def test_logical_values(self):
        put(self.cube, "order", "FLAG OBSNUM")
        for i, (flag, number) in enumerate(((True, 2), (False, 9), (True, 1), (False, 3))):
            self.take(f"f{i}", i, card("FLAG", flag), card("OBSNUM", number))
        self.assertEqual(self.values(), [3, 1, 2, 0])

    def test_numbers_stand_before_texts(self):
        put(self.cube, "order", "MIXED")
        for i, value in ((3, "1"), (0, -5), (4, "a"), (2, 77), (1, 2.5)):
            self.take(f"f{i}", i, card("MIXED", value))
        self.assertEqual(self.values(), list(range(5)))

    def test_two_keywords(self):
        put(self.cube, "order", "FILTER DATE-OBS")
        self.assertEqual(meta(self.cube, "order"), "FILTER DATE-OBS")
        frames = [(f, f"2024-01-{d:02}T00:00:00") for f in "BRV" for d in range(1, 8)]
        for i in random.Random(SEED).sample(range(len(frames)), len(frames)):
            self.take(f"f{i}", i, card("FILTER", frames[i][0]), card("DATE-OBS", frames[i][1]))
        self.assertEqual(self.values(), list(range(len(frames))))
        self.assertEqual([(row["FILTER"], row["DATE-OBS"]) for row in frame_table(self.cube)],
                         frames)
        put(self.cube, "order", "date-obs FILTER")
        self.assertEqual(meta(self.cube, "order"), "DATE-OBS FILTER")
        self.assertEqual([(row["DATE-OBS"], row["FILTER"]) for row in frame_table(self.cube)],
                         sorted((d, f) for f, d in frames))

    def test_equal_keys_keep_the_order_of_arrival(self):
        put(self.cube, "order", "OBSNUM")
        numbers = self.rng.integers(0, 4, 40).tolist()
        for i, number in enumerate(numbers):
            # 2 and 2.0 are the same number.
            self.take(f"f{i}", i, card("OBSNUM", number if i % 3 else float(number)))
        wanted = sorted(range(40), key=lambda i: numbers[i])
        self.assertEqual(self.values(), wanted)
        put(self.cube, "order", "arrival")
        self.take("last", 40, card("OBSNUM", 0))
        self.assertEqual(self.values(), [*wanted, 40])
        put(self.cube, "order", "OBSNUM")
        numbers.append(0)
        self.assertEqual(self.values(), sorted(range(41), key=lambda i: numbers[i]))

    def test_keyword_of_the_primary_header_for_an_image_of_an_extension(self):
        put(self.cube, "order", "OBSNUM")
        for number in random.Random(SEED).sample(range(10), 10):
            image = fits.ImageHDU(np.full((3, 4), number, "int16"), name="SCI")
            primary = fits.PrimaryHDU()
            # Where both have it, the image's own counts.
            (primary if number % 2 else image).header["OBSNUM"] = number
            if number % 4 == 2:
                primary.header["OBSNUM"] = 99
            fits.HDUList([primary, image]).writeto(self.base / f"f{number}.fits")
            run("cp", self.base / f"f{number}.fits", self.cube / "append")
        self.assertEqual(self.values(), list(range(10)))

    def test_frames_of_several_planes(self):
        put(self.cube, "axes", "x y z")
        put(self.cube, "order", "OBSNUM")
        model, numbers = Model(3, "int16"), {}
        for i in range(25):
            number = int(self.rng.integers(0, 9))
            array = random_array(self.rng, self.rng.integers(1, 6, 3), "int16")
            path = self.file(array, [card("OBSNUM", number)])
            run("cp", path, self.cube / "append")
            numbers[path.name] = number
            model.add(path.name, array)
            model.sort(numbers.get)
        model.check(self.cube)
        self.assertEqual(self.names(), model.names())


class Refusals(OrderTest):
    def fill(self, *numbers):
        put(self.cube, "order", "OBSNUM")
        for number in numbers:
            self.take(f"f{number}", number, card("OBSNUM", number))

    def test_a_frame_without_the_keyword(self):
        self.fill(3, 1)
        plain = self.file(np.full((3, 4), 7, "int16"))
        print(self.refuse(plain, "append", errno.EINVAL, "OBSNUM", "meta/order"))
        self.refuse(self.file(np.full((3, 4), 7, "int16"), ["OBSNUM  ="]), "append", errno.EINVAL,
                    "OBSNUM")
        self.refuse(self.file(np.full((3, 4), 7, "int16"), ["COMMENT OBSNUM = 5"]), "append",
                    errno.EINVAL, "OBSNUM")
        self.refuse(self.file(np.full((3, 4), 7, "int16"), kind="npy"), "append", errno.EINVAL,
                    "OBSNUM")
        self.assertEqual(errno_of((self.cube / "append/f.raw").write_bytes, b"\0" * 24), "EINVAL")
        two = self.m.cube("two")
        put(two, "order", "OBSNUM FILTER")
        self.refuse(self.file(np.full((3, 4), 7, "int16"), [card("OBSNUM", 7)]), "append",
                    errno.EINVAL, "FILTER", cube=two)
        self.assertEqual(meta(two, "shape"), "")
        self.assertEqual(self.values(), [1, 3])
        self.take("f2", 2, card("OBSNUM", 2))
        self.assertEqual(self.values(), [1, 2, 3])

    def test_only_append_leads_to_the_sorted_axis(self):
        self.fill(3, 1)
        path = self.file(np.full((3, 4), 2, "int16"), [card("OBSNUM", 2)])
        for door in ("prepend", "prepend/z", "insert/z/1"):
            self.refuse(path, door, errno.EINVAL, "meta/order", "append")
        run("cp", path, self.cube / "append/z")
        self.assertEqual(self.values(), [1, 2, 3])
        # The other axes are free.
        west = self.file(np.full((3, 3, 2), 9, "int16"))
        run("cp", west, self.cube / "prepend/x")
        south = self.file(np.full((3, 1, 6), 8, "int16"))
        run("cp", south, self.cube / "insert/y/1")
        self.assertEqual(np.load(self.cube / "cube.npy")[:, 0].tolist(),
                         [[9, 9, i, i, i, i] for i in (1, 2, 3)])
        put(self.cube, "order", "arrival")
        run("cp", path, self.cube / "prepend/again.fits")
        self.assertEqual(shape_of(self.cube), [6, 4, 4])

    def test_values_of_the_setting(self):
        for text in ("\n", "TOOLONGKEY", "DATE/OBS", "A,B", "name DATE-OBS x*"):
            self.assertEqual(errno_of(put, self.cube, "order", text), "EINVAL", text)
            self.assertTrue(last_error(self.cube))
        self.assertEqual(meta(self.cube, "order"), "arrival")

    def test_set_late_where_a_frame_lacks_the_keyword(self):
        for i, cards in enumerate(([card("OBSNUM", 2)], [], [card("OBSNUM", 1)])):
            self.take(f"f{i}", i, *cards)
        self.assertEqual(errno_of(put, self.cube, "order", "OBSNUM"), "EINVAL")
        for word in ("f1", "OBSNUM"):
            self.assertIn(word, last_error(self.cube))
        self.assertEqual(meta(self.cube, "order"), "arrival")
        self.assertEqual(self.values(), [0, 1, 2])
        run("rm", self.cube / "frames/f1")
        # A removed frame may come back, so it has to have a place.
        self.assertEqual(errno_of(put, self.cube, "order", "OBSNUM"), "EINVAL")
        run("rm", self.cube / "removed/f1")
        put(self.cube, "order", "OBSNUM")
        self.assertEqual(self.values(), [2, 0])

    def test_a_header_that_is_written_again_behind_a_close(self):
        """The first close of a copied descriptor commits; what follows may move the frame."""
        self.fill(1, 3, 5, 7)
        array = np.full((3, 4), 100, "int16")
        for number, wanted in ((4, [1, 3, 100, 5, 7]), (6, [1, 3, 5, 100, 7]),
                               (0, [100, 1, 3, 5, 7]), (9, [1, 3, 5, 7, 100])):
            with self.subTest(number):
                file = os.open(self.cube / "append/late.fits", os.O_RDWR | os.O_CREAT)
                try:
                    os.write(file, fits_bytes(array, [card("OBSNUM", 2)]))
                    os.close(os.dup(file))
                    self.assertEqual(self.values(), [1, 100, 3, 5, 7])
                    os.pwrite(file, fits_bytes(array, [card("OBSNUM", number)])[:2880], 0)
                finally:
                    os.close(file)
                self.assertEqual(self.values(), wanted)
                self.m.remount()
                self.assertEqual(self.values(), wanted)
                for other in (2, 8):
                    self.take(f"f{other}", other, card("OBSNUM", other))
                order = sorted(((n, n) for n in (1, 2, 3, 5, 7, 8)), key=lambda p: p[0])
                order = sorted([*order, (number, 100)], key=lambda p: p[0])
                self.assertEqual(self.values(), [v for _, v in order])
                for name in ("late.fits", "f2", "f8"):
                    run("rm", self.cube / "frames" / name)
                    run("rm", self.cube / "removed" / name)

    def test_a_header_written_again_without_the_keyword(self):
        self.fill(1, 3)
        array = np.full((3, 4), 2, "int16")
        file = os.open(self.cube / "append/late.fits", os.O_RDWR | os.O_CREAT)
        try:
            os.write(file, fits_bytes(array, [card("OBSNUM", 2)]))
            os.close(os.dup(file))
            os.pwrite(file, fits_bytes(array)[:2880], 0)
        finally:
            self.assertEqual(errno_of(os.close, file), "EINVAL")
        self.assertIn("OBSNUM", last_error(self.cube))
        self.assertEqual(self.values(), [1, 2, 3])
        self.assertEqual((self.cube / "frames/late.fits").read_bytes(),
                         fits_bytes(array, [card("OBSNUM", 2)]))


class Changes(OrderTest):
    def test_set_late(self):
        numbers = self.rng.permutation(30).tolist()
        for i, number in enumerate(numbers):
            self.take(f"f{i}", number, card("OBSNUM", number))
        self.assertEqual(self.values(), numbers)
        before = (self.cube / "cube.npy").read_bytes()
        view = np.load(self.cube / "cube.npy", mmap_mode="r")
        put(self.cube, "order", "OBSNUM")
        self.assertEqual(self.values(), list(range(30)))
        self.assertEqual(np.array(view)[:, 0, 0].tolist(), numbers)  # open, so as it was
        del view
        put(self.cube, "order", "name")
        self.assertEqual(self.values(), numbers)
        self.assertEqual((self.cube / "cube.npy").read_bytes(), before)
        put(self.cube, "order", "OBSNUM")
        put(self.cube, "order", "arrival")  # leaves what is there
        self.assertEqual(self.values(), list(range(30)))
        self.m.remount()
        self.assertEqual(self.values(), list(range(30)))

    def test_set_late_joins_a_frame_that_was_torn(self):
        put(self.cube, "axes", "x y z")
        first = np.full((3, 3, 4), 1, "int16")
        first[:] = np.arange(3)[:, None, None] + 1
        run("cp", self.file(first, [card("OBSNUM", 1)], name="first"), self.cube / "append")
        run("cp", self.file(np.full((3, 4), 9, "int16"), [card("OBSNUM", 0)], name="second"),
            self.cube / "insert/z/1")
        self.assertEqual(self.values(), [1, 9, 2, 3])
        run("cmp", self.cube / "frames/first", self.base / "first")
        put(self.cube, "order", "OBSNUM")
        self.assertEqual(self.values(), [9, 1, 2, 3])
        run("cmp", self.cube / "frames/first", self.base / "first")

    def test_the_axis_that_grows_is_the_one_that_is_sorted(self):
        put(self.cube, "axes", "x y")
        put(self.cube, "order", "OBSNUM")
        for number in (3, 1, 2):
            run("cp", self.file(np.full((2, 3), number, "int16"), [card("OBSNUM", number)]),
                self.cube / "append")
        for number in (30, 10, 20):
            run("cp", self.file(np.full((6, 1), number, "int16"), [card("OBSNUM", number)]),
                self.cube / "append/x")
        self.assertEqual(np.load(self.cube / "cube.npy")[::2].tolist(),
                         [[i, i, i, 30, 10, 20] for i in (1, 2, 3)])
        put(self.cube, "grow", "x")

        def first_row():
            """Strips, and what no frame brought along this axis."""
            row = np.load(self.cube / "cube.npy")[0].tolist()
            return [v for v in row if v >= 10], [v for v in row if v < 10]

        self.assertEqual(first_row(), ([10, 20, 30], [1, 1, 1]))
        run("cp", self.file(np.full((6, 1), 15, "int16"), [card("OBSNUM", 15)]),
            self.cube / "append")
        self.assertEqual(first_row(), ([10, 15, 20, 30], [1, 1, 1]))
        self.m.remount()
        self.assertEqual(first_row(), ([10, 15, 20, 30], [1, 1, 1]))

    def test_removal_and_restoration(self):
        put(self.cube, "order", "OBSNUM")
        for number in (5, 1, 9, 3, 7):
            self.take(f"f{number}", number, card("OBSNUM", number))
        before = (self.cube / "cube.npy").read_bytes()
        run("rm", self.cube / "append/f5", self.cube / "append/f1")
        self.assertEqual(self.values(), [3, 7, 9])
        for number in (6, 0, 4):
            self.take(f"f{number}", number, card("OBSNUM", number))
        self.assertEqual(self.values(), [0, 3, 4, 6, 7, 9])
        self.m.remount()
        run("mv", self.cube / "removed/f5", self.cube / "append")
        self.assertEqual(self.values(), [0, 3, 4, 5, 6, 7, 9])
        run("mv", self.cube / "removed/f1", self.cube / "append")
        self.assertEqual(self.values(), [0, 1, 3, 4, 5, 6, 7, 9])
        run("rm", *[self.cube / f"frames/f{n}" for n in (0, 4, 6)])
        self.assertEqual((self.cube / "cube.npy").read_bytes(), before)
        # Removed while another order is set.
        run("rm", self.cube / "frames/f7")
        put(self.cube, "order", "name")
        run("mv", self.cube / "removed/f7", self.cube / "frames/f2")
        self.assertEqual(self.values(), [1, 7, 3, 5, 9])
        put(self.cube, "order", "OBSNUM")
        self.assertEqual(self.values(), [1, 3, 5, 7, 9])

    def test_astropy_gives_a_frame_a_keyword_more(self):
        put(self.cube, "order", "OBSNUM")
        for number in (5, 1, 3):
            self.take(f"f{number}", number, card("OBSNUM", number))
        with fits.open(self.cube / "append/f3", mode="update", memmap=False) as hdus:
            for i in range(50):  # longer than one block
                hdus[0].header[f"KEY{i}"] = i
        self.assertEqual(self.names(), ["f1", "f3", "f5"])
        self.assertEqual(self.values(), [1, 3, 5])
        self.assertEqual(os.listdir(self.cube / "removed"), [])
        with fits.open(self.cube / "append/f3", mode="update", memmap=False) as hdus:
            hdus[0].header["OBSNUM"] = 8
            for i in range(50, 100):
                hdus[0].header[f"KEY{i}"] = i
        self.assertEqual(self.names(), ["f1", "f5", "f3"])
        self.assertEqual(self.values(), [1, 5, 3])
        self.assertEqual(fits.getheader(self.cube / "slices/xy/z2.fits")["KEY99"], 99)


class Many(OrderTest):
    def test_parallel_arrival(self):
        count = scaled(400, 120)
        put(self.cube, "order", "DATE-OBS")
        order = self.rng.permutation(count).tolist()
        paths = [self.file(np.full((3, 4), i, "int16"),
                           [card("DATE-OBS", f"2024-01-01T{i // 3600:02}:{i // 60 % 60:02}:"
                                             f"{i % 60:02}")], name=f"f{i}.fits") for i in order]
        run("xargs", "-P4", "-n1", "cp", "-t", self.cube / "append",
            input="\n".join(map(str, paths)).encode())
        self.assertEqual(self.values(), list(range(count)))
        self.assertEqual(self.names(), [f"f{i}.fits" for i in range(count)])
        by_name = self.m.cube("by-name")
        put(by_name, "order", "name")
        run("xargs", "-P4", "-n7", "cp", "-t", by_name / "append",
            input="\n".join(map(str, paths)).encode())
        self.assertEqual(self.values(by_name), list(range(count)))

    def test_killed_in_the_middle(self):
        put(self.cube, "order", "OBSNUM")
        numbers = self.rng.permutation(scaled(600, 200)).tolist()
        paths = [self.file(np.full((3, 4), n, "int16"), [card("OBSNUM", n)], name=f"f{n}")
                 for n in numbers]
        for begin in range(0, len(paths), 50):
            some = paths[begin: begin + 50]
            result = run("bash", "-c", 'cp "${@:2}" && kill -9 $1; cp "${@:2}"', "-", self.m.pid,
                         *some, self.cube / "append", check=False)
            self.assertNotEqual(result.returncode, 0)
            self.m.process.wait()
            self.m.process = None
            self.m.unmount_dead()
            self.m.start()
            self.assertEqual(self.values(), sorted(numbers[: begin + len(some)]))

    def test_frames_of_random_sizes_by_date_in_one_copy(self):
        count = scaled(3000, 300)
        rng = generator(3)
        sizes = rng.integers(70, 131, (count, 2))
        frames = [rng.standard_normal(size, "float32") for size in sizes]
        seconds = np.sort(rng.choice(count * 1000, count, replace=False))
        dates = [str(np.datetime64("2024-01-01T00:00:00.000") + np.timedelta64(int(s), "ms"))
                 for s in seconds]
        paths = [self.file(frame, [card("DATE-OBS", date)], name=f"{i:04}.fits")
                 for i, (frame, date) in enumerate(zip(frames, dates))]
        put(self.cube, "order", "DATE-OBS")
        put(self.cube, "pad", "-7")
        shuffled = [paths[i] for i in rng.permutation(count)]
        run("cp", *shuffled, self.cube / "append")

        ny, nx = sizes.max(0).tolist()
        self.assertEqual(shape_of(self.cube), [nx, ny, count])
        whole = np.load(self.cube / "cube.npy", mmap_mode="r")
        for begin in range(0, count, 100):
            part = np.full((min(100, count - begin), ny, nx), -7, "float32")
            for z, frame in enumerate(frames[begin: begin + 100]):
                part[z, : frame.shape[0], : frame.shape[1]] = frame
            assert_same(np.array(whole[begin: begin + 100]), part, f"planes from {begin}")
        del whole
        self.assertEqual([row["DATE-OBS"] for row in frame_table(self.cube)], dates)
        given = sum(frame.nbytes for frame in frames)
        used = stored_bytes(self.cube)
        print(f"{count} frames of {given} bytes, {used} stored, {nx * ny * count * 4} shown")
        self.assertLess(used, 1.2 * given)
        for i in range(0, count, count // 20):
            run("cmp", paths[i], self.cube / "frames" / paths[i].name)
        self.m.remount()
        last = read_fits(self.cube / "slices/xy/last.fits")
        assert_same(last[: sizes[-1][0], : sizes[-1][1]], frames[-1])
        self.assertEqual(os.listdir(self.cube / "frames"), [p.name for p in paths])


if __name__ == "__main__":
    mounted.main()
