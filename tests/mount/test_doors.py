"""The ways in which programs write files into a door, good and bad. Tools: test_copying_tools.py."""
import errno
import json
import os
import pathlib
import signal
import subprocess
import time

import mounted
import numpy as np
from astropy.io import fits
from frames import (assert_same, fits_bytes, generator, npy_bytes, random_array, read_fits,
                    write_fits, write_series)
from mounted import (OneMountTest, errno_of, fails, last_error, meta, run, scaled, shape_of,
                     shell, temporary_directory)

NY, NX = 24, 36


class DoorTest(OneMountTest):
    """One mount for all tests of a class, a fresh cube for each."""

    def setUp(self):
        super().setUp()
        self.directory = temporary_directory()
        self.base = self.directory.__enter__()
        self.addCleanup(self.directory.__exit__, None, None, None)
        self.door = self.cube / "append"
        self.rng = generator()
        self.frames = []

    def frame(self):
        return random_array(self.rng, (NY, NX), "float32")

    def expect(self, *frames):
        """The cube is exactly these frames."""
        self.frames.extend(frames)
        if self.frames:
            self.assertEqual(shape_of(self.cube), [NX, NY, len(self.frames)])
            assert_same(np.load(self.cube / "cube.npy"), np.stack(self.frames))

    def define(self):
        frame = self.frame()
        (self.door / "first.fits").write_bytes(fits_bytes(frame))
        self.expect(frame)


class Writing(DoorTest):
    def test_in_order_in_pieces_of_any_size(self):
        for size in (1, 7, 512, 2880, 5000, 1 << 20):
            frame = self.frame()
            data = fits_bytes(frame)
            with open(self.door / f"by{size}.fits", "wb", buffering=0) as file:
                for at in range(0, len(data), size):
                    file.write(data[at: at + size])
            self.assertEqual((self.door / f"by{size}.fits").read_bytes(), data)
            self.expect(frame)

    def test_out_of_order(self):
        for turn in range(10):
            frame = self.frame()
            data = fits_bytes(frame) if turn % 2 else npy_bytes(frame)
            cuts = sorted(self.rng.choice(len(data), 6, replace=False).tolist()) + [len(data)]
            pieces = list(zip([0] + cuts[:-1], cuts))
            file = os.open(self.door / f"frame{turn}", os.O_RDWR | os.O_CREAT)
            for i in self.rng.permutation(len(pieces)):
                begin, end = pieces[i]
                os.pwrite(file, data[begin:end], begin)
                self.assertEqual(os.pread(file, end - begin, begin), data[begin:end])
            os.close(file)
            self.expect(frame)

    def test_a_frame_is_replaced_while_one_reads_it_who_came_before_its_writer_closed(self):
        first, second = npy_bytes(self.frame()), npy_bytes(self.frame())
        writer = os.open(self.door / "f.npy", os.O_WRONLY | os.O_CREAT)
        os.write(writer, first)
        os.close(os.dup(writer))  # commits
        reader = os.open(self.cube / "frames" / "f.npy", os.O_RDONLY)
        os.close(writer)
        try:
            (self.door / "f.npy").write_bytes(second)
            self.assertEqual(os.pread(reader, len(first) + 1, 0), first)
            self.assertEqual((self.door / "f.npy").read_bytes(), second)
        finally:
            os.close(reader)

    def test_backwards(self):
        frame = self.frame()
        data = fits_bytes(frame)
        file = os.open(self.door / "backwards.fits", os.O_WRONLY | os.O_CREAT)
        for at in reversed(range(0, len(data), 1000)):
            os.pwrite(file, data[at: at + 1000], at)
        os.close(file)
        self.expect(frame)

    def test_header_rewritten_at_the_end(self):
        """A program that knows the image's height only at the end."""
        for defined in (False, True):
            with self.subTest(defined=defined):
                frame = self.frame()
                data = fits_bytes(frame)
                wrong = data.replace(f"NAXIS2  = {NY:>20}".encode(), f"NAXIS2  = {1:>20}".encode())
                with open(self.door / f"late{defined}.fits", "wb", buffering=0) as file:
                    file.write(wrong)
                    file.seek(0)
                    file.write(data[:2880])
                self.expect(frame)
                self.assertEqual((self.door / f"late{defined}.fits").read_bytes(), data)

    def test_keyword_rewritten_at_the_end(self):
        frame = self.frame()
        data = fits_bytes(frame, ["EXPTIME =                 1.0"])
        final = data.replace(b"1.0", b"2.5", 1)
        with open(self.door / "late.fits", "wb", buffering=0) as file:
            file.write(data)
            file.seek(0)
            file.write(final[:2880])
        self.expect(frame)
        self.assertEqual(fits.getheader(self.cube / "slices/xy/z0.fits")["EXPTIME"], 2.5)

    def test_append_mode_uses_the_true_end(self):
        frame = self.frame()
        data = fits_bytes(frame)
        first = os.open(self.door / "a.fits", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        second = os.open(self.door / "a.fits", os.O_WRONLY | os.O_APPEND)
        for at in range(0, len(data), 500):
            os.write((first, second)[at // 500 % 2], data[at: at + 500])
        os.close(first)
        os.close(second)
        self.expect(frame)

    def test_flush_before_the_first_byte_and_in_the_middle(self):
        frame = self.frame()
        data = fits_bytes(frame)
        file = os.open(self.door / "a.fits", os.O_WRONLY | os.O_CREAT)
        os.close(os.dup(file))
        os.write(file, data[:3000])
        os.close(os.dup(file))
        self.assertEqual(meta(self.cube, "shape"), "")
        os.write(file, data[3000:])
        os.close(file)
        self.expect(frame)

    def test_truncated_and_written_again_while_open(self):
        frame = self.frame()
        file = os.open(self.door / "a.fits", os.O_RDWR | os.O_CREAT)
        os.write(file, fits_bytes(self.frame())[:4000])
        os.ftruncate(file, 0)
        os.lseek(file, 0, os.SEEK_SET)
        os.write(file, fits_bytes(frame))
        os.close(file)
        self.expect(frame)

    def test_final_padding_may_lack(self):
        frame = self.frame()
        data = fits_bytes(frame, padded=False)
        (self.door / "a.fits").write_bytes(data)
        self.expect(frame)
        self.assertEqual((self.door / "a.fits").read_bytes(), data)

    def test_further_hdus_are_kept(self):
        frame = self.frame()
        hdus = fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(frame, name="SCI"),
                             fits.ImageHDU(self.frame(), name="ERR")])
        hdus.writeto(self.base / "mef.fits")
        run("cp", self.base / "mef.fits", self.door)
        self.expect(frame)
        run("cmp", self.base / "mef.fits", self.door / "mef.fits")

    def test_several_writers_at_once(self):
        count = scaled(80, 40)
        frames = random_array(self.rng, (count, NY, NX), "float32")
        paths = write_series(self.base, frames)
        shell(f"ls {self.base}/*.fits | xargs -P4 -I@ cp @ {self.door}/")
        self.assertEqual(shape_of(self.cube), [NX, NY, count])
        rows = [line.split("\t") for line in meta(self.cube, "frames").split("\n")]
        index, name = rows[0].index("index"), rows[0].index("name")
        whole = np.load(self.cube / "cube.npy")
        self.assertEqual(sorted(r[name] for r in rows[1:]), [p.name for p in paths])
        for row in rows[1:]:
            assert_same(whole[int(row[index])], frames[int(row[name][1:6])], row[name])


class Tools(DoorTest):
    def test_numpy_memmap_into_a_file_of_full_size(self):
        frame = self.frame()
        data = npy_bytes(frame)
        file = os.open(self.door / "a.npy", os.O_RDWR | os.O_CREAT)
        os.ftruncate(file, len(data))
        for at in range(0, len(data), 999):
            os.pwrite(file, data[at: at + 999], at)
        os.close(file)
        self.expect(frame)

    def test_imcopy_of_an_image_without_further_cards(self):
        frame = self.frame()
        write_fits(self.base / "f.fits", frame)
        run("imcopy", self.base / "f.fits", self.door / "f.fits")
        self.expect(frame)

    def test_simulator_writes_into_the_door(self):
        run(mounted.program("ACCRETE_SIMULATE"), "--frames", 4, "--size", f"{NX}x{NY}", self.door)
        run(mounted.program("ACCRETE_SIMULATE"), "--frames", 4, "--size", f"{NX}x{NY}", self.base)
        self.expect(*[read_fits(p) for p in sorted(self.base.iterdir())])

    def test_mode_and_time_are_set_later(self):
        self.define()
        os.chmod(self.door / "first.fits", 0o640)
        self.assertEqual((self.door / "first.fits").stat().st_mode & 0o777, 0o640)
        os.utime(self.door / "first.fits", ns=(5, 7_000_000_009))
        self.assertEqual((self.door / "first.fits").stat().st_mtime_ns, 7_000_000_009)

    def test_the_same_name_again(self):
        first, second = self.frame(), self.frame()
        write_fits(self.base / "frame.fits", first)
        run("cp", self.base / "frame.fits", self.door)
        self.expect(first)
        for _ in range(3):  # the same bytes are no other frame
            run("cp", self.base / "frame.fits", self.door)
            self.expect()
        write_fits(self.base / "frame.fits", second)
        run("cp", self.base / "frame.fits", self.door)
        self.expect(second)
        self.assertEqual(sorted(os.listdir(self.door)), ["frame.fits", "frame.fits.~1~"])
        self.assertEqual((self.door / "frame.fits").read_bytes(), fits_bytes(second))
        self.assertEqual((self.door / "frame.fits.~1~").read_bytes(), fits_bytes(first))
        (self.base / "broken").write_bytes(fits_bytes(self.frame())[:-4000])
        fails("cp", self.base / "broken", self.door / "frame.fits", because=errno.EINVAL)
        self.expect()
        self.assertEqual((self.door / "frame.fits").read_bytes(), fits_bytes(second))

    def test_a_temporary_name_commits_on_rename(self):
        self.define()
        frame = self.frame()
        (self.door / ".a.fits.Xy12Zw").write_bytes(fits_bytes(frame))
        self.assertEqual(shape_of(self.cube)[2], 1)
        self.assertEqual(os.listdir(self.door).count("a.fits"), 0)
        os.rename(self.door / ".a.fits.Xy12Zw", self.door / "a.fits")
        self.expect(frame)
        (self.door / ".b.fits.Xy12Zw").write_bytes(fits_bytes(self.frame())[:4000])
        self.assertEqual(errno_of(os.rename, self.door / ".b.fits.Xy12Zw", self.door / "b.fits"),
                         "EINVAL")
        self.expect()


class Refusals(DoorTest):
    def refuse(self, name, data, because=errno.EINVAL):
        """cp fails for that reason; nothing changes; a sentence is left."""
        before = (meta(self.cube, "shape"), sorted(os.listdir(self.door)))
        (self.base / "bad").write_bytes(data)
        events = len((self.cube / "history").read_text().splitlines())
        fails("cp", self.base / "bad", self.door / name, because=because)
        # The kernel tells of the last close after close() has returned.
        mounted.wait_until(lambda: name not in os.listdir(self.door), "the file is gone")
        self.assertEqual((meta(self.cube, "shape"), sorted(os.listdir(self.door))), before)
        self.expect()
        added = (self.cube / "history").read_text().splitlines()[events:]
        self.assertEqual(len(added), 1, added)
        event = json.loads(added[0])
        self.assertEqual(event["errno"], because)
        self.assertEqual(event["name"], name)
        self.assertIn(event["sentence"], last_error(self.cube))
        self.assertGreater(len(event["sentence"]), 10)
        print(f"{name}: {event['sentence']}")

    def test_into_an_empty_cube_and_into_a_defined_one(self):
        good = fits_bytes(self.frame())

        def header(**changes):
            cards = {"SIMPLE": "T", "BITPIX": "-32", "NAXIS": "2", "NAXIS1": str(NX),
                     "NAXIS2": str(NY), **changes}
            text = "".join(f"{k:<8}= {v:>20}".ljust(80) for k, v in cards.items()) + "END"
            return text.encode().ljust(2880) + good[2880:]

        npy = npy_bytes(self.frame())
        structured = npy_bytes(np.zeros((NY, NX), [("a", "f4"), ("b", "i4")]))
        cases = {
            "truncated.fits": (good[:-3000], errno.EINVAL),
            "header-only.fits": (good[:2880], errno.EINVAL),
            "half-a-header.fits": (good[:1000], errno.EINVAL),
            "empty.fits": (b"", errno.EINVAL),
            "text.fits": (b"not a frame\n" * 1000, errno.EINVAL),
            "bitpix7.fits": (header(BITPIX="7"), errno.EINVAL),
            "no-axes.fits": (header(NAXIS="0"), errno.EINVAL),
            "naxis200.fits": (header(NAXIS="200"), errno.EINVAL),
            "naxis-negative.fits": (header(NAXIS="-2"), errno.EINVAL),
            "zero.fits": (header(NAXIS1="0"), errno.EINVAL),
            "negative.fits": (header(NAXIS1="-5"), errno.EINVAL),
            "nonsense.fits": (header(NAXIS1="abc"), errno.EINVAL),
            "overflow.fits": (header(NAXIS1=str(2**62), NAXIS2=str(2**62)), errno.EFBIG),
            "huge.fits": (header(NAXIS1=str(2**63 - 1), NAXIS2="1"), errno.EFBIG),
            "object.npy": (npy_bytes(np.array([[{}] * 5] * 4, dtype=object)), errno.EINVAL),
            "complex.npy": (npy_bytes(np.zeros((NY, NX), "complex64")), errno.EINVAL),
            "structured.npy": (structured, errno.EINVAL),
            "truncated.npy": (npy[:-1], errno.EINVAL),
            "longer.npy": (npy + b"x", errno.EINVAL),
            "lies.npy": (npy.replace(b"<f4", b"<q4"), errno.EINVAL),
            "no-version.npy": (npy[:6] + b"\x09\x00" + npy[8:], errno.EINVAL),
        }
        for defined in (False, True):
            if defined:
                self.define()
            for name, (data, because) in cases.items():
                with self.subTest(name, defined=defined):
                    self.refuse(name, data, because)

    def test_what_does_not_fit_the_cube(self):
        self.define()
        cases = {"text": b"x" * 100, "raw-too-short": self.frame().tobytes()[:-4],
                 "raw-too-long": self.frame().tobytes() + b"1234"}
        for name, data in cases.items():
            with self.subTest(name):
                self.refuse(name, data)
        self.refuse("five.npy", npy_bytes(np.zeros((2, 2, 2, 2, 2), "float32")))
        self.refuse("other-type.fits", fits_bytes(np.full((NY, NX), 2**24 + 1, "int32")))
        for word in ("int32", "float32", "16777217", "meta/dtype"):
            self.assertIn(word, last_error(self.cube))

    def test_frames_of_other_extents_are_padded(self):
        sizes = [(NY, NX), (NY - 3, NX + 5), (1, 1), (NY + 70, 2)]
        frames = [random_array(self.rng, size, "float32") for size in sizes]
        for i, frame in enumerate(frames):
            (self.door / f"f{i}.fits").write_bytes(fits_bytes(frame))
        expected = np.full((4, NY + 70, NX + 5), np.nan, "float32")
        for z, frame in enumerate(frames):
            expected[z, : frame.shape[0], : frame.shape[1]] = frame
        self.assertEqual(shape_of(self.cube), [NX + 5, NY + 70, 4])
        found = np.load(self.cube / "cube.npy")
        given = [(z, y, x) for z, (ny, nx) in enumerate(sizes) for y in range(ny)
                 for x in range(nx)]
        for at in given:
            self.assertEqual(found[at].tobytes(), expected[at].tobytes())
        self.assertEqual(int(np.isnan(found).sum()), int(np.isnan(expected).sum()))
        self.m.remount()
        assert_same(np.load(self.cube / "cube.npy"), found)

    def test_raw_into_an_undefined_cube(self):
        self.refuse("a.raw", self.frame().tobytes())
        self.define()

    def test_an_impossible_frame_fails_in_write(self):
        self.define()
        wide = fits_bytes(np.zeros((3, 3), "float32")).replace(b"BITPIX  =                  -32",
                                                               b"BITPIX  =                  -31")
        file = os.open(self.door / "bad.fits", os.O_WRONLY | os.O_CREAT)
        self.assertEqual(errno_of(os.write, file, wide), "EINVAL")
        self.assertEqual(errno_of(os.write, file, b"more"), "EINVAL")
        self.assertEqual(errno_of(os.close, file), "EINVAL")
        self.expect()
        self.assertNotIn("bad.fits", os.listdir(self.door))

    def test_a_copy_that_is_killed_leaves_nothing(self):
        self.define()
        data = fits_bytes(self.frame())
        for name in ("a.fits", "b.fits"):
            writer = subprocess.Popen(["sh", "-c", "cat > \"$0\"", self.door / name],
                                      stdin=subprocess.PIPE)
            writer.stdin.write(data[:4000])
            writer.stdin.flush()
            mounted.wait_until(lambda n=name: (self.door / n).exists()
                               and (self.door / n).stat().st_size == 4000, "cat has written")
            # The shell may have handed itself over to cat or be its parent.
            task = pathlib.Path(f"/proc/{writer.pid}/task/{writer.pid}")
            for child in [*map(int, (task / "children").read_text().split()), writer.pid]:
                os.kill(child, signal.SIGKILL)
            writer.wait()
            writer.stdin.close()
            mounted.wait_until(lambda n=name: n not in os.listdir(self.door), "it is gone")
            self.expect()
            self.assertIn(name, (self.cube / "history").read_text())
        run("cp", "/dev/stdin", self.door / "a.fits", input=fits_bytes(np.ones((NY, NX), "f4")))
        self.expect(np.ones((NY, NX), "float32"))

    def test_refused_streams_take_no_space(self):
        self.define()
        sync(self.cube)
        used = disk_usage(self.m.store)
        big = npy_bytes(np.zeros((64, NY * 40, NX * 40), "float32"))
        (self.base / "big").write_bytes(big[:-10])
        for turn in range(4):
            fails("cp", self.base / "big", self.door / f"big{turn}", because=errno.EINVAL)
        # Space is given back in the background.
        mounted.wait_until(lambda: disk_usage(self.m.store) - used < 1 << 20, "space is free again")

    def test_first_frames_of_two_kinds_at_once(self):
        one = fits_bytes(self.frame())
        other_frame = random_array(self.rng, (5, 7), "int16")
        a = os.open(self.door / "a.fits", os.O_WRONLY | os.O_CREAT)
        os.write(a, one[:4000])
        b = os.open(self.door / "b.fits", os.O_WRONLY | os.O_CREAT)
        os.write(b, fits_bytes(other_frame))
        os.close(b)
        self.assertEqual(shape_of(self.cube), [7, 5, 1])
        try:
            os.write(a, one[4000:])
        except OSError:
            pass
        self.assertEqual(errno_of(os.close, a), "EINVAL")
        self.assertEqual(shape_of(self.cube), [7, 5, 1])
        assert_same(np.load(self.cube / "cube.npy")[0], other_frame)

    def test_history_follows(self):
        self.define()
        follower = subprocess.Popen(["tail", "-n", "+1", "-f", self.cube / "history"],
                                    stdout=subprocess.PIPE, text=True)
        try:
            self.assertEqual(json.loads(follower.stdout.readline())["name"], "first.fits")
            time.sleep(0.2)
            (self.door / "second.fits").write_bytes(fits_bytes(self.frame()))
            event = json.loads(follower.stdout.readline())
            self.assertEqual(event["name"], "second.fits")
            self.assertEqual(event["place"], 1)
        finally:
            follower.kill()
            follower.wait()
            follower.stdout.close()


def sync(cube):
    """Of the kernel's calls only fsync reaches the daemon, not sync or syncfs."""
    file = os.open(cube, os.O_RDONLY)
    os.fsync(file)
    os.close(file)


def disk_usage(path):
    return int(run("du", "-s", "-B1", path).stdout.split()[0])


if __name__ == "__main__":
    mounted.main()
