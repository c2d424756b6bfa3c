"""Properties of a cube: meta/, extended attributes, statfs, history, last-error."""
import errno
import json
import os

import mounted
import numpy as np
from astropy.io import fits
from frames import TYPES, assert_same, fits_bytes, generator, npy_bytes, random_array
from mounted import OneMountTest, errno_of, fails, last_error, meta, put, run, shell


class MetaTest(OneMountTest):
    def setUp(self):
        super().setUp()
        self.rng = generator()

    def grow(self, array, name="f.npy"):
        (self.cube / "append" / name).write_bytes(npy_bytes(array))


class Reading(MetaTest):
    def test_every_property_can_be_read_at_any_time(self):
        for defined in (False, True):
            if defined:
                self.grow(random_array(self.rng, (3, 4), "uint16"))
            names = os.listdir(self.cube / "meta")
            self.assertLessEqual({"shape", "dtype", "axes", "grow", "pad", "durability", "formats",
                                  "header", "frames", "bytes", "generation"}, set(names))
            for name in names:
                text = (self.cube / "meta" / name).read_text()
                self.assertTrue(text == "" or text.endswith("\n"), name)
                run("cat", self.cube / "meta" / name)

    def test_what_they_say(self):
        self.grow(random_array(self.rng, (3, 4), "uint16"), "first.npy")
        self.grow(random_array(self.rng, (3, 4), "uint16"), "second.npy")
        says = {name: meta(self.cube, name) for name in ("shape", "dtype", "axes", "grow", "pad",
                                                         "formats", "durability")}
        self.assertEqual(says, {"shape": "4 3 2", "dtype": "uint16", "axes": "x y z", "grow": "z",
                                "pad": "0", "formats": "npy", "durability": "close"})
        table = [line.split("\t") for line in meta(self.cube, "frames").split("\n")]
        self.assertEqual(table[0][:7],
                         ["name", "axis", "index", "extent", "shape", "type", "arrival"])
        self.assertEqual([row[:4] for row in table[1:]],
                         [["first.npy", "z", "0", "1"], ["second.npy", "z", "1", "1"]])
        self.assertEqual([row[5] for row in table[1:]], ["uint16"] * 2)

    def test_generation_counts_changes(self):
        self.grow(np.ones((3, 4), "f4"))
        before = int(meta(self.cube, "generation"))
        self.grow(np.ones((3, 4), "f4"), "g.npy")
        self.assertGreater(int(meta(self.cube, "generation")), before)

    def test_pad_of_floats_is_nan(self):
        self.grow(np.ones((3, 4), "f4"))
        self.assertEqual(meta(self.cube, "pad").lower(), "nan")

    def test_extended_attributes(self):
        self.grow(random_array(self.rng, (3, 4), "uint16"), "first.npy")
        self.assertEqual(os.getxattr(self.cube, "user.accrete.shape").strip(), b"4 3 1")
        self.assertEqual(os.getxattr(self.cube, "user.accrete.dtype").strip(), b"uint16")
        plane = self.cube / "slices/xy/z0.npy"
        self.assertEqual(os.getxattr(plane, "user.accrete.shape").strip(), b"4 3")
        self.assertIn("first.npy", {os.getxattr(plane, n).decode().strip()
                                    for n in os.listxattr(plane)})
        self.assertIn("user.accrete.shape", os.listxattr(self.cube))
        self.assertEqual(errno_of(os.getxattr, plane, "user.nothing"), "ENODATA")
        said = run("getfattr", "-d", self.cube).stdout.decode()
        self.assertIn('user.accrete.shape="4 3 1"', said)

    def test_statfs_tells_the_space_of_the_store(self):
        here, store = os.statvfs(self.cube), os.statvfs(self.m.store)
        self.assertEqual(here.f_blocks * here.f_frsize, store.f_blocks * store.f_frsize)
        self.assertLess(abs(here.f_bavail * here.f_frsize - store.f_bavail * store.f_frsize),
                        1 << 30)
        run("df", self.cube)

    def test_history_is_json_lines(self):
        self.grow(np.ones((3, 4), "f4"), "good.npy")
        run("cp", "/dev/null", self.cube / "append/bad", check=False)
        fails("cp", "/proc/self/status", self.cube / "append/worse", because=errno.EINVAL)
        events = [json.loads(line) for line in (self.cube / "history").read_text().splitlines()]
        by_name = {e["name"]: e for e in events if "name" in e}
        self.assertEqual(by_name["good.npy"].get("errno", 0), 0)
        self.assertEqual(by_name["worse"]["errno"], errno.EINVAL)
        self.assertIn(by_name["worse"]["sentence"], last_error(self.cube))
        before = (self.cube / "history").read_text()
        self.m.remount()
        self.assertTrue((self.cube / "history").read_text().startswith(before))

    def test_no_error_no_sentence(self):
        self.assertEqual((self.cube / "last-error").read_text(), "")


class Setting(MetaTest):
    def refuse(self, name, text, because="EINVAL"):
        before = meta(self.cube, name)
        self.assertEqual(errno_of(put, self.cube, name, text), because, f"{name} = {text!r}")
        self.assertEqual(meta(self.cube, name), before)
        self.assertTrue(last_error(self.cube))

    def test_with_echo(self):
        shell(f"echo int16 > {self.cube}/meta/dtype")
        self.assertEqual(meta(self.cube, "dtype"), "int16")
        result = shell(f"echo nonsense > {self.cube}/meta/dtype", check=False)
        self.assertNotEqual(result.returncode, 0, "bash's echo did not see the failure")
        self.assertEqual(meta(self.cube, "dtype"), "int16")

    def test_dtype_before_the_first_frame(self):
        for dtype in TYPES:
            put(self.cube, "dtype", f"{dtype}\n")
            self.assertEqual(meta(self.cube, "dtype"), dtype)
        put(self.cube, "dtype", "int16")
        frame = random_array(self.rng, (3, 4), "int16")
        self.grow(frame)
        assert_same(np.load(self.cube / "slices/xy/z0.npy"), frame)
        self.refuse("dtype", "float32", "EPERM")

    def test_axes_before_the_first_frame(self):
        put(self.cube, "axes", "x y f s\n")
        frame = random_array(self.rng, (3, 4), "int16")
        self.grow(frame)
        self.assertEqual(meta(self.cube, "axes").split()[:2], ["x", "y"])
        self.assertEqual(meta(self.cube, "shape"), "4 3 1 1")
        assert_same(np.load(self.cube / "slices/xy/f0_s0.npy"), frame)
        assert_same(np.load(self.cube / "slices/xy/s0/f0.npy"), frame)
        self.assertEqual(errno_of(os.stat, self.cube / "slices/xy/z0.npy"), "ENOENT")
        self.refuse("axes", "x y z t", "EPERM")

    def test_letters_of_axes(self):
        put(self.cube, "axes", "a b w\n")
        frame = random_array(self.rng, (3, 4), "int16")
        self.grow(frame)
        assert_same(np.load(self.cube / "slices/ba/w0.npy"), np.ascontiguousarray(frame.T))
        self.assertIn("wa", os.listdir(self.cube / "slices"))

    def test_pad_before_the_first_frame(self):
        put(self.cube, "dtype", "int16\n")
        put(self.cube, "pad", "-32768\n")
        self.grow(random_array(self.rng, (3, 4), "int16"))
        self.assertEqual(meta(self.cube, "pad"), "-32768")
        self.refuse("pad", "5", "EPERM")

    def test_grow_along_another_axis(self):
        put(self.cube, "axes", "x y z\n")
        put(self.cube, "grow", "x\n")
        first = random_array(self.rng, (2, 3, 4), "float32")
        second = random_array(self.rng, (2, 3, 5), "float32")
        self.grow(first)
        self.grow(second, "g.npy")
        self.assertEqual(meta(self.cube, "shape"), "9 3 2")
        whole = np.concatenate([first, second], axis=2)
        assert_same(np.load(self.cube / "cube.npy"), whole)
        assert_same(np.load(self.cube / "slices/zyx/x0...npy"),
                    np.ascontiguousarray(whole.transpose(2, 1, 0)))
        put(self.cube, "grow", "y\n")
        third = random_array(self.rng, (2, 1, 9), "float32")
        self.grow(third, "h.npy")
        whole = np.concatenate([whole, third], axis=1)
        assert_same(np.load(self.cube / "cube.npy"), whole)
        put(self.cube, "grow", "z\n")
        fourth = random_array(self.rng, (4, 9), "float32")
        self.grow(fourth, "i.npy")
        assert_same(np.load(self.cube / "cube.npy"), np.concatenate([whole, fourth[None]]))
        self.m.remount()
        assert_same(np.load(self.cube / "cube.npy"), np.concatenate([whole, fourth[None]]))

    def test_append_to_an_axis_by_its_letter(self):
        first = random_array(self.rng, (3, 4), "float32")
        self.grow(first)
        second = random_array(self.rng, (3, 4), "float32")
        (self.cube / "append/z/g.npy").write_bytes(npy_bytes(second))
        assert_same(np.load(self.cube / "cube.npy"), np.stack([first, second]))
        self.assertEqual(os.listdir(self.cube / "append"), ["f.npy"])
        self.assertEqual(os.listdir(self.cube / "append/z"), ["g.npy"])
        self.assertEqual(errno_of(os.stat, self.cube / "append/q"), "ENOENT")
        put(self.cube, "grow", "x\n")
        third = random_array(self.rng, (2, 3, 2), "float32")
        (self.cube / "append/x/east.npy").write_bytes(npy_bytes(third))
        self.assertEqual(meta(self.cube, "shape"), "6 3 2")
        assert_same(np.load(self.cube / "cube.npy"),
                    np.concatenate([np.stack([first, second]), third], axis=2))

    def test_formats(self):
        self.grow(random_array(self.rng, (3, 4), "int16"))
        self.assertEqual(os.listdir(self.cube / "slices/xy"), ["z000000.npy"])
        put(self.cube, "formats", "fits raw\n")
        self.assertEqual(sorted(os.listdir(self.cube / "slices/xy")),
                         ["z000000.fits", "z000000.raw"])
        self.refuse("formats", "fits jpeg2000")
        self.m.remount()
        self.assertEqual(meta(self.cube, "formats"), "fits raw")

    def test_durability(self):
        put(self.cube, "durability", "disk\n")
        self.grow(random_array(self.rng, (3, 4), "int16"))
        self.assertEqual(meta(self.cube, "durability"), "disk")
        self.refuse("durability", "maybe")
        put(self.cube, "durability", "close\n")

    def test_header_of_the_cube(self):
        if errno_of(put, self.cube, "header", "OBSERVER= 'nobody'\n") in ("EPERM", "EACCES"):
            self.skipTest("meta/header cannot be set yet")
        self.grow(random_array(self.rng, (3, 4), "int16"))
        self.assertEqual(fits.getheader(self.cube / "cube.fits")["OBSERVER"], "nobody")

    def test_bad_values_change_nothing(self):
        put(self.cube, "dtype", "int16\n")
        for name, values in {
                "dtype": ["float16", "f4", "complex64", "int16 int32", "\0"],
                "axes": ["x x", "X y", "x yy", "x y z t s u v w a", "1 2", "x,y"],
                "pad": ["many", "1 2", "70000", "0.5"],
                "grow": ["q", "xy", "Z"],
                "formats": ["exe", "fits fitz"],
                "durability": ["DISK", "disk close"]}.items():
            for value in values:
                with self.subTest(name, value=value):
                    self.refuse(name, value + "\n")

    def test_what_cannot_be_set(self):
        for name in ("shape", "frames", "bytes", "generation"):
            with self.subTest(name):
                self.assertIn(errno_of(put, self.cube, name, "1\n"), ("EPERM", "EACCES"))

    def test_settings_survive_a_remount(self):
        put(self.cube, "axes", "x y f\n")
        put(self.cube, "dtype", "float64\n")
        put(self.cube, "pad", "-1.5\n")
        put(self.cube, "durability", "disk\n")
        self.m.remount()
        self.assertEqual([meta(self.cube, n) for n in ("axes", "dtype", "pad", "durability")],
                         ["x y f", "float64", "-1.5", "disk"])

    def test_several_writes_to_one_property(self):
        put(self.cube, "dtype", "int16\n")
        file = os.open(self.cube / "meta/dtype", os.O_RDWR)
        self.assertEqual(os.pread(file, 100, 0), b"int16\n")
        self.assertEqual(os.pread(file, 3, 2), b"t16")
        os.close(file)

    def test_every_frame_type_into_a_cube_with_a_set_type(self):
        put(self.cube, "dtype", "int16\n")
        file = self.cube / "append/f.fits"
        try:
            file.write_bytes(fits_bytes(np.ones((3, 4), "float32")))
        except OSError as error:  # until frames are converted
            self.assertEqual(error.errno, errno.EINVAL)
            self.assertIn("float32", last_error(self.cube))
            self.assertIn("int16", last_error(self.cube))


if __name__ == "__main__":
    mounted.main()
