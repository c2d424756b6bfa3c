"""Cards and lines of text that programs change in place, and frames' own files under pokes."""
import mmap
import os
import subprocess
import sys
import unittest

import fitsio
import mounted
import numpy as np
from astropy.io import fits
from frames import assert_same, fits_bytes, generator, npy_bytes, random_array, read_fits
from mounted import Mounted, errno_of, meta, put, run, temporary_directory

NX, NY = 24, 16
WCS = ["CTYPE1  = 'RA---TAN'", "CTYPE2  = 'DEC--TAN'", "CRPIX1  =                  3.0",
       "CRPIX2  =                  4.0", "CRVAL1  =                 10.0",
       "CRVAL2  =                 20.0", "CDELT1  =                 -0.1",
       "CDELT2  =                  0.1"]


def card(keyword, value):
    return f"{keyword:8}= {value:>20}"


def header_of(path):
    return {(c.keyword, c.value) for c in fits.getheader(path).cards if c.keyword}


class CardsTest(unittest.TestCase):
    options = ()

    def setUp(self):
        self.base = self.enterContext(temporary_directory())
        self.m = self.enterContext(Mounted(options=self.options))
        self.rng = generator()
        self.cube = self.m.cube("c")

    def add(self, name, cards=(), dtype="float32", behind=b""):
        array = random_array(self.rng, (NY, NX), dtype)
        (self.base / name).write_bytes(fits_bytes(array, cards) + behind)
        run("cp", self.base / name, self.cube / "append")
        return array

    def plane(self, z, kind="fits", axes="xy"):
        return self.cube / f"slices/{axes}/z{z}.{kind}"

    def refused(self, name, function, *arguments, **more):
        """It fails by that errno, and no view or frame has changed."""
        def look():
            return {path: path.read_bytes() for path in
                    [self.plane(0), self.plane(1), self.cube / "cube.fits",
                     *(self.cube / "frames" / f for f in os.listdir(self.cube / "frames"))]}
        before = look()
        self.assertEqual(errno_of(function, *arguments, **more), name)
        self.assertEqual(look(), before)
        self.assertIn(name, (self.cube / "history").read_text().splitlines()[-1])


class OfFrames(CardsTest):
    def test_a_plane_s_cards_are_its_frame_s(self):
        for i in range(3):
            self.add(f"f{i}.fits", [card("OBJECT", "'M 42'"), card("SEQ", i)])
        before = [(self.cube / f"frames/f{i}.fits").stat() for i in range(3)]
        fits.setval(self.plane(1), "OBJECT", value="M 43")
        fits.setval(self.plane(1), "OBSERVER", value="Bee", comment="who")
        for _ in range(2):
            for path in (self.plane(1), self.plane(1, axes="yx"), self.cube / "frames/f1.fits",
                         self.cube / "slices/x/z1/y3.fits",
                         self.cube / "slices/xy/x2..9_y3..5_z1.fits"):
                self.assertEqual(fits.getval(path, "OBJECT"), "M 43", path)
                self.assertEqual(fits.getheader(path).comments["OBSERVER"], "who", path)
                self.assertEqual(fits.getval(path, "SEQ"), 1, path)
            for path in (self.plane(0), self.plane(2), self.cube / "frames/f0.fits"):
                self.assertEqual(fits.getval(path, "OBJECT"), "M 42", path)
                self.assertNotIn("OBSERVER", fits.getheader(path))
            self.assertNotIn("OBJECT", fits.getheader(self.cube / "cube.fits"))
            self.m.remount()
        for i, old in enumerate(before):
            now = (self.cube / f"frames/f{i}.fits").stat()
            self.assertEqual((now.st_size, now.st_mtime_ns), (old.st_size, old.st_mtime_ns))
        for i in (0, 2):
            run("cmp", self.base / f"f{i}.fits", self.cube / f"frames/f{i}.fits")

    def test_what_all_frames_share_follows(self):
        for i in range(3):
            self.add(f"f{i}.fits", [card("OBJECT", f"'M {i}'")])
        for i in range(3):
            self.assertNotIn("OBJECT", fits.getheader(self.cube / "cube.fits"))
            fits.setval(self.plane(i), "OBJECT", value="M 42")
        self.assertEqual(fits.getval(self.cube / "cube.fits", "OBJECT"), "M 42")
        fits.delval(self.plane(0), "OBJECT")
        self.assertNotIn("OBJECT", fits.getheader(self.cube / "cube.fits"))
        self.assertNotIn("OBJECT", fits.getheader(self.cube / "frames/f0.fits"))

    def test_in_the_frame_s_own_file(self):
        table = fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns(
            [fits.Column("a", "J", array=[1, 2, 3])])])
        table.writeto(self.base / "table")
        behind = (self.base / "table").read_bytes()[2880:]
        self.add("f0.fits")
        array = self.add("f1.fits", [card("OBJECT", "'M 42'")], behind=behind)
        frame, plain = self.cube / "frames/f1.fits", self.base / "f1.fits"
        for change in (lambda path: fits.setval(path, "OBJECT", value="M 43"),
                       lambda path: fits.setval(path, "NEW", value=1.5),
                       lambda path: fits.delval(path, "NEW"),
                       lambda path: fitsio.FITS(str(path), "rw")[0].write_key("BY", "cfitsio")):
            change(frame)
            change(plain)
            run("cmp", plain, frame)
            self.assertLessEqual(header_of(plain) - {("EXTEND", True)}, header_of(self.plane(1)))
        assert_same(read_fits(self.plane(1)), array)
        self.refused("EPERM", fits.setval, frame, "TFORM1", value="1I", ext=1)

    def test_of_an_extension(self):
        hdus = fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.ones((NY, NX), "i2"), name="SCI"),
                             fits.ImageHDU(np.zeros((NY, NX), "i2"), name="DQ")])
        hdus[0].header["TELESCOP"] = "Big"
        hdus.writeto(self.base / "m.fits")
        run("cp", self.base / "m.fits", self.cube / "append/m0.fits")
        run("cp", self.base / "m.fits", self.cube / "append/m1.fits")
        fits.setval(self.plane(1), "OBJECT", value="M 43")
        self.assertEqual(fits.getval(self.cube / "frames/m1.fits", "OBJECT", 1), "M 43")
        fits.setval(self.cube / "frames/m1.fits", "TELESCOP", value="Small", ext=0)
        fits.setval(self.cube / "frames/m1.fits", "OBJECT", value="M 44", ext=1)
        self.assertEqual(fits.getval(self.cube / "frames/m1.fits", "TELESCOP"), "Small")
        self.assertEqual(fits.getval(self.plane(1), "OBJECT"), "M 44")
        run("cmp", self.base / "m.fits", self.cube / "frames/m0.fits")

    def test_more_cards_than_the_frame_s_header_has_room_for(self):
        self.add("f0.fits")
        self.add("f1.fits", [card(f"KEY{i}", i) for i in range(28)])
        size = (self.cube / "frames/f1.fits").stat().st_size
        with fits.open(self.plane(1), "update") as hdus:
            for i in range(28, 40):
                hdus[0].header[f"KEY{i}"] = i
        for _ in range(2):
            header = fits.getheader(self.plane(1))
            self.assertEqual([header[f"KEY{i}"] for i in range(40)], list(range(40)))
            self.assertEqual((self.cube / "frames/f1.fits").stat().st_size, size)
            run("cmp", self.base / "f1.fits", self.cube / "frames/f1.fits")
            self.m.remount()
        fits.setval(self.cube / "frames/f1.fits", "KEY3", value=33)
        header = fits.getheader(self.plane(1))
        self.assertEqual((header["KEY3"], header["KEY38"]), (33, 38))
        self.assertEqual(fits.getval(self.cube / "frames/f1.fits", "KEY3"), 33)
        self.m.remount()
        fits.delval(self.plane(1), "KEY39")
        self.assertNotIn("KEY39", fits.getheader(self.plane(1)))
        with fits.open(self.plane(1), "update") as hdus:
            for i in range(20, 39):
                del hdus[0].header[f"KEY{i}"]
        self.assertEqual(fits.getval(self.cube / "frames/f1.fits", "KEY19"), 19)
        self.assertNotIn("KEY20", fits.getheader(self.cube / "frames/f1.fits"))

    def test_frames_without_cards_of_their_own(self):
        for i in range(2):
            array = random_array(self.rng, (NY, NX), "int16")
            (self.cube / f"append/n{i}.npy").write_bytes(npy_bytes(array))
        (self.cube / "append/r").write_bytes(array.tobytes())
        for z, keyword in ((1, "FOO"), (2, "BAR")):
            fits.setval(self.plane(z), keyword, value="yes")
        self.m.remount()
        self.assertEqual([fits.getheader(self.plane(z)).get("FOO") for z in range(3)],
                         [None, "yes", None])
        self.assertEqual(fits.getval(self.plane(2), "BAR"), "yes")

    def test_compressed_frames(self):
        plain = fits_bytes(random_array(self.rng, (NY, NX), "int16"), [card("OBJECT", "'M 42'")])
        (self.base / "a.fits").write_bytes(plain)
        run("gzip", "-k", self.base / "a.fits")
        run("cp", self.base / "a.fits.gz", self.cube / "append")
        fits.setval(self.plane(0), "OBJECT", value="M 43")
        self.m.remount()
        self.assertEqual(fits.getval(self.plane(0), "OBJECT"), "M 43")
        fits.delval(self.plane(0), "OBJECT")
        self.assertNotIn("OBJECT", fits.getheader(self.plane(0)))
        run("cmp", self.base / "a.fits.gz", self.cube / "frames/a.fits.gz")

    def test_comments_and_long_strings(self):
        self.add("f0.fits")
        self.add("f1.fits", ["COMMENT one", "HISTORY made"])
        text = "a long string that goes on and on, " * 5
        with fits.open(self.plane(1), "update") as hdus:
            hdus[0].header.add_history("poked")
            hdus[0].header.add_comment("two")
            hdus[0].header["LONG"] = text
        for path in (self.plane(1), self.cube / "frames/f1.fits"):
            header = fits.getheader(path)
            self.assertEqual(list(header["HISTORY"]), ["made", "poked"])
            self.assertEqual(list(header["COMMENT"])[:2], ["one", "two"])
            self.assertEqual(header["LONG"], text.strip())

    def test_a_keyword_that_orders_the_frames(self):
        put(self.cube, "order", "SEQ")
        arrays = [self.add(f"f{i}.fits", [card("SEQ", 10 * i)]) for i in range(3)]
        fits.setval(self.plane(0), "SEQ", value=15)
        self.assertEqual(os.listdir(self.cube / "frames"), ["f1.fits", "f0.fits", "f2.fits"])
        assert_same(np.load(self.cube / "cube.npy"), np.stack([arrays[i] for i in (1, 0, 2)]))
        self.refused("EINVAL", fits.delval, self.plane(0), "SEQ")

    def test_world_coordinates(self):
        for i in range(2):
            self.add(f"f{i}.fits", WCS)
        fits.setval(self.plane(1), "CRVAL1", value=11.5)
        self.assertEqual(fits.getval(self.plane(1, axes="yx"), "CRVAL2"), 11.5)
        self.assertEqual(fits.getval(self.cube / "slices/xy/x2..9_z1.fits", "CRPIX1"), 1.0)
        # Those of a cut-out are not the frame's own.
        self.refused("EPERM", fits.setval, self.cube / "slices/xy/x2..9_z1.fits", "CRPIX1", value=2.0)

    def test_what_is_made_for_each_view(self):
        for i in range(2):
            self.add(f"f{i}.fits")
        for keyword, value in (("LTV1", 5.0), ("LTM1_1", 2.0), ("ACRFRAME", "x"), ("BZERO", 1.0),
                               ("BSCALE", 2.0), ("BLANK", 1)):
            with self.subTest(keyword):
                self.write_card(keyword, value)

    def write_card(self, keyword, value):
        data = bytearray(self.plane(1).read_bytes())
        begin = next((at for at in range(0, 2880, 80) if data[at: at + 8] == f"{keyword:8}".encode()),
                     None)
        if begin is None:  # in front of END
            begin = next(at for at in range(0, 5760, 80) if data[at: at + 80].isspace())
        text = f"'{value}'" if isinstance(value, str) else value
        data[begin: begin + 80] = f"{card(keyword, text):80}".encode()

        def write():
            file = os.open(self.plane(1), os.O_WRONLY)
            try:
                os.write(file, data)
            finally:
                os.close(file)
        self.refused("EPERM", write)

    def test_cards_that_say_how_the_file_is_built_fail_at_once(self):
        self.add("f0.fits")
        self.add("f1.fits", [card("OBJECT", "'M 42'")])
        for path in (self.plane(1), self.cube / "frames/f1.fits", self.cube / "cube.fits"):
            for at, text in ((0, b"simple"), (90, b"=  16"), (240, b"NAXIS1  =                   12")):
                with self.subTest(path.name, at=at), open(path, "r+b", buffering=0) as file:
                    self.refused("EPERM", os.pwrite, file.fileno(), text, at)
                    self.refused("EPERM", os.pwrite, file.fileno(), text[:1] + b"?", at)
                    # What else comes with it is not written either.
                    data = bytearray(path.read_bytes())
                    data[at: at + len(text)] = text
                    data[-2880:-2870] = b"0123456789"
                    self.refused("EPERM", os.pwrite, file.fileno(), data, 0)

    def test_no_header_any_more(self):
        self.add("f0.fits")
        self.add("f1.fits")
        for path in (self.plane(1), self.cube / "frames/f1.fits"):
            data = path.read_bytes()
            end = data.index(b"END     ")
            for text in (b"ENDE", b"   ", b"\0\0\0", b"\xff"):
                def write():
                    file = os.open(path, os.O_WRONLY)
                    os.pwrite(file, text, end)
                    try:
                        os.fsync(file)
                    finally:
                        os.close(file)
                with self.subTest(path.name, text=text):
                    self.refused("EINVAL", write)

    def test_the_writer_reads_what_it_wrote_others_after_the_close(self):
        self.add("f0.fits", [card("OBJECT", "'M 42'")])
        self.add("f1.fits", [card("OBJECT", "'M 42'")])
        for path in (self.plane(1), self.cube / "frames/f1.fits"):
            before = path.read_bytes()
            at = before.index(b"M 4")
            with open(path, "r+b", buffering=0) as file, open(path, "rb", buffering=0) as other:
                os.pwrite(file.fileno(), b"M 7", at)
                self.assertEqual(os.pread(file.fileno(), 10, at - 3)[3:6], b"M 7")
                self.assertEqual(os.pread(other.fileno(), len(before) + 1, 0), before)
                self.assertEqual(path.read_bytes(), before)
                os.fsync(file.fileno())
                self.assertEqual(fits.getval(self.plane(1), "OBJECT"), "M 72")
                self.assertEqual(os.pread(file.fileno(), 10, at - 3)[3:6], b"M 7")
                os.pwrite(file.fileno(), b"M 4", at)
            self.assertEqual(fits.getval(self.plane(1), "OBJECT"), "M 42")

    def test_byte_by_byte(self):
        self.add("f0.fits", [card("OBJECT", "'M 42'")])
        self.add("f1.fits", [card("OBJECT", "'M 42'")])
        data = self.plane(1).read_bytes().replace(b"M 42", b"M 99")
        (self.base / "new").write_bytes(data[:2880])
        run("dd", f"if={self.base}/new", f"of={self.plane(1)}", "bs=1", "conv=notrunc")
        self.assertEqual(fits.getval(self.cube / "frames/f1.fits", "OBJECT"), "M 99")


class OfTheCube(CardsTest):
    def test_they_go_to_the_header_of_the_cube(self):
        for i in range(3):
            self.add(f"f{i}.fits", [card("OBJECT", "'M 42'"), card("SEQ", i)])
        fits.setval(self.cube / "cube.fits", "TELESCOP", value="Big")
        fits.setval(self.cube / "slices/xz/y3.fits", "OBSERVER", value="Bee")
        self.assertEqual([line[:22].strip() for line in meta(self.cube, "header").splitlines()],
                         ["TELESCOP= 'Big     '", "OBSERVER= 'Bee     '"])
        self.m.remount()
        for name in ("cube.fits", "slices/xz/y0.fits", "slices/z/x1_y2.fits"):
            self.assertEqual(fits.getval(self.cube / name, "TELESCOP"), "Big")
            self.assertEqual(fits.getval(self.cube / name, "OBSERVER"), "Bee")
        self.assertNotIn("TELESCOP", fits.getheader(self.plane(1)))
        # One that all frames share gets another value for the cube, and its own again.
        fits.setval(self.cube / "cube.fits", "OBJECT", value="all")
        self.assertEqual(fits.getval(self.cube / "cube.fits", "OBJECT"), "all")
        self.assertEqual(fits.getval(self.plane(1), "OBJECT"), "M 42")
        fits.delval(self.cube / "cube.fits", "TELESCOP")
        self.assertNotIn("TELESCOP", meta(self.cube, "header"))
        for i in range(3):
            run("cmp", self.base / f"f{i}.fits", self.cube / f"frames/f{i}.fits")

    def test_what_all_frames_share_is_not_taken_from_them(self):
        for i in range(2):
            self.add(f"f{i}.fits", [card("OBJECT", "'M 42'")])
        self.refused("EPERM", fits.delval, self.cube / "cube.fits", "OBJECT")


class Throughout(CardsTest):
    """Elements and cards in one go, and many at once."""

    def test_astropy_changes_both(self):
        for dtype in ("uint16", "int8", "float64", "uint8", "int32"):
            with self.subTest(dtype):
                self.cube = self.m.cube(dtype)
                arrays = [self.add(f"{dtype}{i}.fits", [card("OBJECT", "'M 42'")], dtype)
                          for i in range(2)]
                scaled = dtype in ("uint16", "int8")  # which astropy does not map
                for memmap in (False, True)[:1 if scaled else 2]:
                    with fits.open(self.plane(1), "update", memmap=memmap) as hdus:
                        hdus[0].data[3, 4:9] = 7
                        hdus[0].header["OBJECT"] = f"both {memmap}"
                    arrays[1][3, 4:9] = 7
                    self.assertEqual(fits.getval(self.plane(1), "OBJECT"), f"both {memmap}")
                    assert_same(np.load(self.cube / "cube.npy"), np.stack(arrays))

    def test_checksums_of_what_was_poked_are_not_told(self):
        array = random_array(self.rng, (NY, NX), "int16")
        for i in range(2):
            fits.writeto(self.base / f"f{i}.fits", array, checksum=True)
            run("cp", self.base / f"f{i}.fits", self.cube / "append")
        np.load(self.plane(1, "npy"), mmap_mode="r+")[2, 3] = array[2, 3] ^ 1
        for i in range(2):
            header = fits.getheader(self.cube / f"frames/f{i}.fits")
            self.assertEqual("CHECKSUM" in header, i == 0)
            self.assertEqual("DATASUM" in header, i == 0)
            other = self.m.cube(f"again{i}")
            run("cp", self.cube / f"frames/f{i}.fits", other / "append")
        run("cmp", self.base / "f0.fits", self.cube / "frames/f0.fits")
        self.assertEqual((self.cube / "frames/f1.fits").stat().st_size,
                         (self.base / "f1.fits").stat().st_size)

    def test_many_at_once_on_different_keywords(self):
        for i in range(2):
            self.add(f"f{i}.fits")
        names = [f"KEY{i}" for i in range(6)]
        for name in names:
            fits.setval(self.plane(1), name, value=0)
        script = ("import sys\nfrom astropy.io import fits\nfor i in range(1, 21):\n"
                  "    fits.setval(sys.argv[1], sys.argv[2], value=i)")
        editing = [subprocess.Popen([sys.executable, "-c", script, self.plane(1), name])
                   for name in names]
        self.assertEqual([process.wait() for process in editing], [0] * 6)
        header = fits.getheader(self.plane(1))
        self.assertEqual([header[name] for name in names], [20] * 6)


class KeptFrames(CardsTest):
    """Frames whose files are kept whole, as their elements cannot make them again."""

    def test_pokes_show_in_a_file_of_another_type(self):
        put(self.cube, "convert", "nearest")
        self.add("f0.fits")
        array = self.rng.standard_normal((NY, NX))
        extra = fits.ImageHDU(np.arange(10)).header.tostring().encode() + bytes(2880)
        source = self.base / "wide.fits"
        source.write_bytes(fits_bytes(array) + extra)
        run("cp", source, self.cube / "append")
        frame = self.cube / "frames/wide.fits"
        run("cmp", source, frame)
        made = np.load(self.plane(1, "npy"), mmap_mode="r+")
        made[2, 3:6] = [1.5, np.nan, -7]
        made.flush()
        del made
        array[2, 3:6] = [1.5, np.nan, -7]
        for _ in range(2):
            assert_same(read_fits(frame), array)
            self.assertEqual(frame.read_bytes()[-len(extra):], extra)
            self.assertEqual(frame.stat().st_size, source.stat().st_size)
            self.m.remount()
        self.refused("EROFS", self.write, frame, 4000)

    def write(self, path, at):
        with open(path, "r+b", buffering=0) as file:
            os.pwrite(file.fileno(), b"12345678", at)

    def test_scaled_integers(self):
        elements = random_array(self.rng, (NY, NX), "int16")
        data = fits_bytes(elements, [card("BSCALE", "0.1"), card("BZERO", "3.7")])
        for i in range(2):
            (self.base / f"s{i}.fits").write_bytes(data)
            run("cp", self.base / f"s{i}.fits", self.cube / "append")
        with open(self.plane(1, "raw"), "r+b") as file:
            file.seek(4 * (NX * 2 + 5))
            file.write(np.float32(0.1 * 20 + 3.7).tobytes())
        elements[2, 5] = 20
        with fits.open(self.cube / "frames/s1.fits", do_not_scale_image_data=True) as hdus:
            assert_same(hdus[0].data.astype("i2"), elements)
        run("cmp", self.base / "s0.fits", self.cube / "frames/s0.fits")

    def test_compressed_files_stay_as_they_came(self):
        array = random_array(self.rng, (NY, NX), "int16")
        (self.base / "a.fits").write_bytes(fits_bytes(array))
        run("gzip", "-k", self.base / "a.fits")
        run("cp", self.base / "a.fits.gz", self.cube / "append")
        with open(self.plane(0, "raw"), "r+b") as file:
            file.write(b"ab")
        run("cmp", self.base / "a.fits.gz", self.cube / "frames/a.fits.gz")


class Text(CardsTest):
    """Views as text are written in any pieces."""

    def test_in_pieces(self):
        arrays = [self.add(f"f{i}.fits", dtype="float64") for i in range(2)]
        new = self.rng.standard_normal((NY, NX))
        scratch = self.m.cube("scratch")
        np.save(scratch / "append/n.npy", new)
        text = (scratch / "slices/xy/z0.txt").read_bytes()
        view = self.plane(1, "txt")
        (self.base / "new.txt").write_bytes(text)
        for size in (1, 3, 7, 512, 4096, 1 << 20):
            with self.subTest(size):
                np.save(self.plane(1, "npy"), arrays[1])
                run("dd", f"if={self.base}/new.txt", f"of={view}", f"bs={size}", "conv=notrunc")
                assert_same(np.load(self.plane(1, "npy")), new)
        np.save(self.plane(1, "npy"), arrays[1])
        with open(view, "r+b", buffering=0) as file:
            for at in reversed(range(0, len(text), 1000)):
                os.pwrite(file.fileno(), text[at: at + 1000], at)
            assert_same(np.load(self.plane(1, "npy")), new)
        np.save(self.plane(1, "npy"), arrays[1])
        with open(view, "r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
            mapped[:] = text
            mapped.flush()
            assert_same(np.load(self.plane(1, "npy")), new)

    def test_a_part_of_a_number(self):
        self.add("f0.fits", dtype="int32")
        self.add("f1.fits", dtype="int32")
        width = len((self.plane(1, "txt")).read_bytes()) // (NX * NY)
        with open(self.plane(1, "txt"), "r+b", buffering=0) as file:
            os.pwrite(file.fileno(), f"{1234:{width - 1}}\n".encode(), 0)
            self.assertEqual(np.load(self.plane(1, "npy"))[0, 0], 1234)
            os.pwrite(file.fileno(), b"9", width - 3)
            self.assertEqual(np.load(self.plane(1, "npy"))[0, 0], 1234)
            os.fsync(file)
            self.assertEqual(np.load(self.plane(1, "npy"))[0, 0], 1294)

        def spoil():
            file = os.open(self.plane(1, "txt"), os.O_WRONLY)
            try:
                os.pwrite(file, b"x", width - 3)
                os.fsync(file)
            finally:
                os.close(file)
        self.refused("EINVAL", spoil)


class StaleHeaders(CardsTest):
    def test_a_page_does_not_bring_a_card_back(self):
        for i in range(2):
            self.add(f"f{i}.fits", [card("OBJECT", "'before'")])
        for path in (self.cube / "frames/f1.fits", self.plane(1)):
            with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
                self.assertIn(b"before", mapped[:2880])
                fits.setval(path, "OBJECT", value="after")
                mapped[3000] ^= 1
                mapped.flush()
            self.assertEqual(fits.getval(path, "OBJECT"), "after")
            fits.setval(path, "OBJECT", value="before")


class OfFramesThroughTheCache(OfFrames):
    options = ("-o", "io=cached")


if __name__ == "__main__":
    mounted.main()
