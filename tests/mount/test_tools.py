"""The programs beside the daemon, and what their man pages say of them."""
import os
import pathlib
import re
import unittest

import mounted
import numpy as np
from astropy.io import fits
from frames import TYPES, assert_same, read_fits
from mounted import run, temporary_directory

ROOT = pathlib.Path(__file__).resolve().parents[2]


class ManPages(unittest.TestCase):
    def test_help_and_man_page_list_the_same_options(self):
        programs = pathlib.Path(mounted.program("ACCRETEFS")).parent
        pages = sorted([*ROOT.glob("tools/*.1"), *ROOT.glob("fs/*.1")])
        self.assertTrue(pages)
        for page in pages:
            with self.subTest(page.name):
                text = page.read_text()
                self.assertEqual(run("man", "-l", "--warnings", page).stderr, b"")
                text = text.replace("\\-", "-")
                text = re.sub(r"\\f[BIRP]", "", text)
                options = r"(?<![\w-])--?[a-z][a-z-]*\b"
                in_page = set(re.findall(options, text.partition(".SH OPTIONS")[2]
                                         .partition(".SH E")[0]))
                said = run(programs / page.stem, "--help").stdout.decode()
                in_help = set(re.findall(options, said))
                self.assertEqual(in_page, in_help)

    def test_every_tool_has_a_man_page(self):
        programs = [source for source in ROOT.glob("tools/*.cc")
                    if re.search(r"^int main\(", source.read_text(), re.MULTILINE)]
        self.assertGreater(len(programs), 4)
        for source in programs:
            self.assertTrue(source.with_suffix(".1").exists(), source.name)


class Simulate(unittest.TestCase):
    def simulate(self, *words, check=True):
        return run(mounted.program("ACCRETE_SIMULATE"), *words, check=check)

    def test_all_types_are_valid_frames(self):
        with temporary_directory() as base:
            for dtype in TYPES:
                with self.subTest(dtype):
                    self.simulate("-n", 3, "-s", "50x40", "-t", dtype, base / dtype)
                    names = sorted(os.listdir(base / dtype))
                    self.assertEqual(names, [f"frame-{i:06}.fits" for i in range(3)])
                    self.assertIn(b"0 warning(s) and 0 error(s)",
                                  run("fitsverify", base / dtype / names[0]).stdout)
                    data = read_fits(base / dtype / names[0])
                    self.assertEqual((data.shape, data.dtype), ((40, 50), np.dtype(dtype)))
                    self.assertGreater(np.median(data), np.iinfo("int8").min + 10)
                    self.assertGreater(data.std(), 1)

    def test_the_sky_has_its_level_and_noise(self):
        with temporary_directory() as base:
            self.simulate("-n", 1, "--stars", 0, "--hits", 0, base)
            data = read_fits(base / "frame-000000.fits").astype(float)
            self.assertAlmostEqual(data.mean(), 300 + 400 / 1.5, delta=0.5)
            self.assertAlmostEqual(data.std(), (400 + 25) ** 0.5 / 1.5, delta=0.2)
            self.assertLess(abs(np.corrcoef(data[:, :-1].ravel(), data[:, 1:].ravel())[0, 1]), 0.01)

    def test_truth_lists_the_planted_hits(self):
        with temporary_directory() as base:
            self.simulate("-n", 9, "--start", 5, "--hits", 7, "--truth", base / "t", base / "f")
            frames = {i: read_fits(base / f"f/frame-{i:06}.fits") for i in range(5, 14)}
            rows = [line.split() for line in (base / "t").read_text().splitlines()]
            self.assertEqual({int(r[0]) for r in rows}, set(frames))
            self.assertGreaterEqual(len(rows), 9 * 7)
            for frame, x, y, value in rows:
                self.assertEqual(frames[int(frame)][int(y), int(x)], np.float32(value))
            # A median along the series does not see them.
            middle = np.median(list(frames.values()), axis=0)
            found = [frames[int(f)][int(y), int(x)] - middle[int(y), int(x)] > 1000
                     for f, x, y, _ in rows]
            self.assertGreater(np.mean(found), 0.95)

    def test_stars_stay_at_their_place_in_the_sky(self):
        with temporary_directory() as base:
            self.simulate("-n", 2, "-s", "80x60", "--drift", 7, "--hits", 0, base)
            headers = [fits.getheader(base / f"frame-{i:06}.fits") for i in range(2)]
            self.assertAlmostEqual(headers[1]["CRPIX1"] - headers[0]["CRPIX1"], 7)
            first, second = (read_fits(base / f"frame-{i:06}.fits") for i in range(2))
            y, x = np.unravel_index(np.argmax(first[5:50, 5:70]), (45, 65))
            near = second[y + 5 + 1: y + 5 + 7, x + 5 + 5: x + 5 + 10]
            self.assertGreater(near.max(), np.median(second) + (first.max() - np.median(first)) / 4)

    def test_a_series_may_be_made_in_pieces(self):
        with temporary_directory() as base:
            self.simulate("-n", 4, "-s", "30x20", base / "whole")
            self.simulate("-n", 2, "-s", "30x20", base / "pieces")
            self.simulate("-n", 2, "-s", "30x20", "--start", 2, base / "pieces")
            self.simulate("-n", 4, "-s", "30x20", "--seed", 2, base / "other")
            for name in os.listdir(base / "whole"):
                whole = (base / "whole" / name).read_bytes()
                self.assertEqual((base / "pieces" / name).read_bytes(), whole)
                self.assertNotEqual((base / "other" / name).read_bytes(), whole)

    def test_a_directory_that_cfitsio_would_misread(self):
        with temporary_directory() as base:
            for name in ("!a", "b[1:2]", "c(d)", "e.gz", "mem:"):
                self.simulate("-n", 1, "-s", "30x20", "--prefix", name, base / name)
                assert_same(read_fits(base / name / f"{name}000000.fits").astype("float32"),
                            read_fits(base / name / f"{name}000000.fits"))

    def test_errors_are_one_sentence(self):
        with temporary_directory() as base:
            (base / "file").write_text("")
            for words in ([], ["--size", "5", base], ["--size", "0x5", base], ["-n", "many", base],
                          ["--type", "float16", base], ["--seed", "-1", base], [base, base],
                          ["--prefix", "a/b", base], ["--drift", "nan", base],
                          ["-n", "1", base / "file/x"], ["-n", "1", base / "file"],
                          ["--truth", base / "no/such", base], ["--nonsense", base]):
                with self.subTest(words[:2]):
                    result = self.simulate(*words, check=False)
                    self.assertEqual(result.returncode, 1)
                    said = result.stderr.decode()
                    self.assertEqual(said.count("\n"), 1, said)
                    self.assertIn("accrete-simulate", said)


if __name__ == "__main__":
    mounted.main()
