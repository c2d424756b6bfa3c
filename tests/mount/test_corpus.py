"""Frames of other people's making: each is taken with the values that astropy finds and given back
byte for byte, or refused with a sentence that says what is wrong with it, and leaves no trace."""
import collections
import fnmatch
import gzip
import io
import os
import pathlib
import unittest
import warnings

import astropy
import mounted
import numpy as np
from astropy.io import fits
from corpus import Trial, as_cube, assert_values, first_image, hdus_of
from frames import TYPES, fits_bytes, generator, npy_bytes, random_array
from mounted import Mounted, meta, put, run, temporary_directory

PACKAGES = pathlib.Path(astropy.__file__).parent.parent

# ---- Files that packages install ----

# Files of which astropy's account of the HDUs does not tell why they are refused: pattern of the
# name, meta/hdu, part of the sentence. The first that fits counts.
REFUSALS = [
    # Their sums are not those of the data: the images were cut to a pixel or to a smaller field.
    ("astropy/*/checksum_false.fits", "first 0", "the header says DATASUM = '3949466131'"),
    ("astropy/*/header_newlines.fits", "first 0", "the header says DATASUM = '395763289'"),
    ("photutils/*/fermi_counts.fits.gz", "first 1", "the header says DATASUM = '265181'"),
    ("astropy/*/header_with_time*.fits", "first 0", "SIMPLE = F"),
    ("astropy/*/verify.fits", "first 0", "has NAXIS where BITPIX belongs"),
    ("astropy/*/zerowidth.fits", "first 0", "NAXIS2 = 0: there are no data"),
    ("astropy/*/group_invalid.fits", "0", "no data (NAXIS = 0)"),
    # Headers without the data that they tell of.
    ("astropy/wcs/*/2wcses.hdr", "first", "truncated"),
    ("astropy/wcs/*/siponly.hdr", "first", "truncated"),
    ("astropy/wcs/*/too_many_pv.hdr", "first", "truncated"),
    ("astropy/wcs/*/tpvonly.hdr", "first", "truncated"),
    ("astropy/wcs/*/unit.hdr", "first", "truncated"),
    # Headers as text, the lines ended by newlines or not padded.
    ("astropy/modeling/*/*.hdr", "first", "where BITPIX belongs"),
    ("astropy/wcs/*.hdr", "first", "ends in the header of the primary HDU"),
    ("reproject/*/mwpan2_RGB_3600.hdr", "first", "where BITPIX belongs"),
    ("spectral_cube/*/greisen2006.hdr", "first", "SIMPLE has no valid value"),
    ("spectral_cube/*.hdr", "first", "where BITPIX belongs"),
]


def starts_fits(path):
    with open(path, "rb") as file:
        start = file.read(9)
    if start.startswith(b"\x1f\x8b"):
        try:
            with gzip.open(path) as file:
                start = file.read(9)
        except (OSError, EOFError):
            return False
    return start.startswith(b"SIMPLE")


def installed_files():
    """Names and paths. Python's packages bring what FITS files Debian has; ACCRETE_REAL_FRAMES names
    a directory with more."""
    roots = [PACKAGES]
    if "ACCRETE_REAL_FRAMES" in os.environ:
        roots.append(pathlib.Path(os.environ["ACCRETE_REAL_FRAMES"]))
    patterns = ("*.fit", "*.fits", "*.fts", "*.fz", "*.gz", "*.hdr")
    for root in roots:
        for path in sorted(root.rglob("*")):
            if any(fnmatch.fnmatch(path.name.lower(), p) for p in patterns) and path.is_file() \
                    and starts_fits(path):
                yield str(path.relative_to(root)), path


def expected_sentence(name, hdus, hdu):
    """Part of the sentence of a refusal; None: it must be taken."""
    for pattern, choices, part in REFUSALS:
        if fnmatch.fnmatch(name, pattern) and hdu in choices.split():
            return part
    if hdus is None:
        return "(astropy cannot open it, and it is not in REFUSALS)"
    if hdu == "first":
        return None if any(h.kind == "image" for h in hdus) else "the FITS file has no image"
    chosen = hdus[int(hdu)]
    return {"image": None, "groups": "random groups", "no data": "has no data (NAXIS = 0)",
            "table": f"is no image (XTENSION = '{chosen.extension}')"}[chosen.kind]


class Installed(unittest.TestCase):
    def test_every_file_and_every_hdu(self):
        rows = []
        with Mounted() as m, temporary_directory() as base:
            trial = Trial(m)
            for name, path in installed_files():
                hdus = hdus_of(path)
                for hdu in ["first", *(str(h.index) for h in hdus or ())]:
                    with self.subTest(name=name, hdu=hdu):
                        rows.append([name, hdu, "failed", ""])
                        rows[-1][2:] = self.try_one(trial, name, path, hdus, hdu)
            m.remount()
            for i in range(1, trial.count + 1, 10):
                run("cat", m / f"cube{i}/cube.npy") if meta(m / f"cube{i}", "shape") else None
        for name, hdu, outcome, sentence in rows:
            print(f"{name}\t{hdu}\t{outcome}\t{sentence}")
        print(dict(collections.Counter(row[2] for row in rows)))
        # Those of astropy alone, which the tests need anyway.
        self.assertGreater(sum(row[2] == "taken" for row in rows), 50)
        self.assertGreater(sum(row[2] == "refused" for row in rows), 100)

    def try_one(self, trial, name, path, hdus, hdu):
        expected = expected_sentence(name, hdus, hdu)
        cube, sentence = trial.copy(path, hdu=hdu)
        if sentence is not None:
            self.assertIsNotNone(expected, f"refused: {sentence}")
            self.assertIn(expected, sentence)
            return "refused", sentence
        self.assertIsNone(expected, "taken")
        values = first_image(path) if hdu == "first" else hdus[int(hdu)].values
        trial.check_taken(cube, path, values)
        self.check_views(cube, path, hdu, values)
        return "taken", f"{values.dtype} {values.shape}"

    def check_views(self, cube, path, hdu, values):
        """The frame's own cards are kept, and the cube is as clean as the frame."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with fits.open(cube / "cube.fits", memmap=False) as file:
                data = file[0].data
                assert_values(data.astype(data.dtype.newbyteorder("=")), as_cube(values))
        if values.ndim == 2:
            plane = fits.getheader(cube / "slices/xy/z0.fits")
            header = fits.getheader(path) if hdu == "first" else fits.getheader(path, int(hdu))
            for key in ("OBJECT", "TELESCOP", "DATE-OBS", "EXPTIME"):
                if key in header and header.get("NAXIS"):
                    self.assertEqual(plane[key], header[key], key)
        original = run("fitsverify", path, check=False).stdout.decode()
        # Headers of old files may break rules of today; ours are not to add to that.
        if " 0 error(s)" in original:
            said = run("fitsverify", cube / "cube.fits", check=False).stdout.decode()
            self.assertIn(" 0 error(s)", said, said)


# ---- Files made here ----

def card(keyword, value, comment=""):
    text = f"{keyword:<8}= {value:>20}" + (f" / {comment}" if comment else "")
    assert len(text) <= 80, text
    return f"{text:<80}"


def hdu_bytes(raw, cards=(), extension=None, structure=None, padded=True):
    """A header and data as they are to be stored, each card as it is given. `structure`: in place of
    the mandatory cards."""
    bitpix = {"u1": 8, "i2": 16, "i4": 32, "i8": 64, "f4": -32, "f8": -64}[raw.dtype.str[1:]]
    if structure is None:
        structure = [card("XTENSION", f"'{extension:<8}'") if extension else card("SIMPLE", "T"),
                     card("BITPIX", bitpix), card("NAXIS", raw.ndim)]
        structure += [card(f"NAXIS{i + 1}", n) for i, n in enumerate(reversed(raw.shape))]
        if extension:
            structure += [card("PCOUNT", 0), card("GCOUNT", 1)]
    text = "".join(f"{c:<80}" for c in [*structure, *cards, "END"]).encode("latin-1")
    data = raw.astype(raw.dtype.newbyteorder(">")).tobytes()
    return (text + b" " * (-len(text) % 2880) + data
            + (b"\0" * (-len(data) % 2880) if padded else b""))


EMPTY = hdu_bytes(np.zeros(0, "u1"), structure=[card("SIMPLE", "T"), card("BITPIX", 8), card("NAXIS", 0)])


def astropy_bytes(*hdus, **more):
    target = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fits.HDUList(list(hdus)).writeto(target, **more)
    return target.getvalue()


def flipped(content, at, bit=0):
    changed = bytearray(content)
    changed[at] ^= 1 << bit
    return bytes(changed)


class Own(unittest.TestCase):
    """One mount for all. A case is a name, the bytes of a file, and what must become of it: an array,
    part of a sentence, or ASTROPY for what astropy finds in it."""
    ASTROPY = object()

    @classmethod
    def setUpClass(cls):
        cls.m = cls.enterClass(Mounted())
        cls.base = cls.enterClass(temporary_directory())
        cls.trial = Trial(cls.m)

    @classmethod
    def enterClass(cls, manager):  # unittest has enterClassContext from Python 3.11 on
        result = manager.__enter__()
        cls.addClassCleanup(manager.__exit__, None, None, None)
        return result

    def setUp(self):
        self.rng = generator()
        self.counts = collections.Counter()

    def tearDown(self):
        print(dict(self.counts), end=" ", flush=True)

    def check(self, name, content, expected, **properties):
        source = self.base / name
        source.write_bytes(content)
        with self.subTest(name, **properties):
            if expected is self.ASTROPY:
                hdus = hdus_of(source)
                hdu = properties.get("hdu", "first")
                expected = first_image(source) if hdu == "first" else hdus[int(hdu)].values
                self.assertIsNotNone(expected, "astropy finds nothing")
            cube, sentence = self.trial.copy(source, **properties)
            if isinstance(expected, str):
                self.assertIsNotNone(sentence, "taken")
                self.assertIn(expected, sentence)
                self.counts["refused"] += 1
            else:
                self.assertIsNone(sentence)
                self.trial.check_taken(cube, source, expected)
                self.counts["taken"] += 1
            return cube
        return None


class Scaled(Own):
    # Each as on the cards. None: no card.
    SCALES = [(None, None), ("1", "0"), ("1.0", "{convention}"), ("2", None), ("0.5", "100"),
              (None, "100"), ("1.5E-3", "-7.25"), ("-1", "0.0"), ("0.0", "3"), ("1D0", "{convention}"),
              ("1.5d-3", "1.0d2"), ("1e0", "{convention}.0"), ("1d0", "0d0"), ("1d0", "{convention}")]
    CONVENTION = {8: -128, 16: 1 << 15, 32: 1 << 31, 64: 1 << 63, -32: 12, -64: 12}

    def test_all_types_scalings_and_blanks(self):
        stored = {8: "u1", 16: "i2", 32: "i4", 64: "i8", -32: "f4", -64: "f8"}
        shapes = [(50,), (6, 9), (3, 4, 5), (2, 3, 2, 5)]
        number = 0
        for bitpix, kind in stored.items():
            for scale, zero in self.SCALES:
                for blank in (None, 0, 7, -1, 300):
                    raw = random_array(self.rng, shapes[number % 4], kind)
                    if bitpix > 0:
                        raw.flat[::7] = 7
                        raw.flat[1::9] = 0
                    zero_text = None if zero is None else zero.format(convention=self.CONVENTION[bitpix])
                    cards = [card(key, value) for key, value in
                             (("BSCALE", scale), ("BZERO", zero_text), ("BLANK", blank))
                             if value is not None]
                    number += 1
                    expected = self.ASTROPY
                    if zero is not None and "convention" in zero and bitpix > 0:
                        # Integers; BLANK is ignored.
                        unsigned = np.dtype(f"u{raw.itemsize}")
                        target = np.dtype("int8") if bitpix == 8 else unsigned
                        top = unsigned.type(1 << (bitpix - 1))
                        expected = (raw.view(unsigned) ^ top).view(target)
                    self.check(f"{bitpix}_{scale}_{zero_text}_{blank}.fits", hdu_bytes(raw, cards),
                               expected)

    def test_a_blank_that_is_no_integer_is_none(self):
        raw = np.arange(20, dtype="i2").reshape(4, 5)
        for value in ("7.5", "'7'", "T"):
            self.check(f"blank_{value}.fits", hdu_bytes(raw, [card("BLANK", value)]), raw)

    def test_scalings_that_are_no_numbers(self):
        raw = np.arange(20, dtype="i2").reshape(4, 5)
        for value in ("'two'", "1E999", "NaN", "T", "1.0.0", "0x10"):
            for key in ("BSCALE", "BZERO"):
                self.check(f"{key}_{value.strip(chr(39))}.fits", hdu_bytes(raw, [card(key, value)]), key)


class Structure(Own):
    def setUp(self):
        super().setUp()
        self.raw = random_array(self.rng, (6, 11), "i2")
        self.whole = hdu_bytes(self.raw)

    def test_tolerated(self):
        raw = self.raw
        long = "x" * 70
        continued = [f"LONGSTR = '{'a' * 67}&'", f"CONTINUE  '{'b' * 67}&'", "CONTINUE  'end' / comment"]
        hierarch = ["HIERARCH ESO DET CHIP1 ID = 'CCD-44' / [m] comment",
                    "HIERARCH ESO TEL ABS ROT START = -1.5E-3"]
        cases = {
            "plain": self.whole,
            "unpadded": hdu_bytes(raw, padded=False),
            "half padded": self.whole[:-1000],
            "junk": self.whole + b"junk at the end",
            "zeros": self.whole + bytes(2880),
            "xxx": self.whole + b"XTENSION",
            "long junk": self.whole + random_array(self.rng, 100_000, "u1").tobytes(),
            "continue": hdu_bytes(raw, continued),
            "hierarch": hdu_bytes(raw, hierarch),
            "many cards": hdu_bytes(raw, [card(f"KEY{i}", i) for i in range(3000)]),
            "comments": hdu_bytes(raw, [f"COMMENT {long}", f"HISTORY {long}", "", "        blank"] * 300),
            "latin-1": hdu_bytes(raw, [card("OBSERVER", "'J\xfcrgen'"), "COMMENT \xb5 \t tab"]),
            "no equals": hdu_bytes(raw, ["SOMETHING ELSE", "LOWER    = 3", "lower   = 3"]),
            "repeated": hdu_bytes(raw, [card("OBJECT", "'A'"), card("OBJECT", "'B'")]),
            "comment on cards": hdu_bytes(raw, structure=[
                card("SIMPLE", "T", "c"), card("BITPIX", 16, "d"), card("NAXIS", 2, "/ /"),
                card("NAXIS1", 11, "e"), card("NAXIS2", 6, "f")]),
            "free format": hdu_bytes(raw, structure=["SIMPLE  = T", "BITPIX  = 16", "NAXIS   =  2 /",
                                                     "NAXIS1  =  +11", "NAXIS2  = 6"]),
            "extend": hdu_bytes(raw, [card("EXTEND", "T"), card("BLOCKED", "T")]),
        }
        for name, content in cases.items():
            self.check(f"{name}.fits", content, raw)
        single = raw.reshape((1,) * 7 + raw.shape)
        self.check("nine axes.fits", hdu_bytes(single), single[0])

    def test_refused(self):
        raw, whole = self.raw, self.whole
        first = [card("SIMPLE", "T"), card("BITPIX", 16), card("NAXIS", 2), card("NAXIS1", 11),
                 card("NAXIS2", 6)]

        def changed(at, text):
            return hdu_bytes(raw, structure=[*first[:at], text, *first[at + 1:]])

        for name, content, part in [
                ("empty", b"", "empty"), ("magic", whole[:5], ""), ("card", whole[:80], "ends in the header"),
                ("block", whole[:2879], "ends in the header"), ("no data", whole[:2880], "truncated"),
                ("data", whole[:2880 + raw.nbytes - 1], "truncated"),
                ("not simple", changed(0, card("SIMPLE", "F")), "SIMPLE = F"),
                ("simple 1", changed(0, card("SIMPLE", "1")), "SIMPLE has no valid value"),
                ("bitpix 17", changed(1, card("BITPIX", 17)), "BITPIX = 17"),
                ("bitpix text", changed(1, card("BITPIX", "'16'")), "BITPIX"),
                ("bitpix real", changed(1, card("BITPIX", "16.0")), "BITPIX = 16.0"),
                ("naxis -1", changed(2, card("NAXIS", -1)), "NAXIS = -1 is negative"),
                ("naxis 1000", changed(2, card("NAXIS", 1000)), "NAXIS = 1000"),
                ("naxis1 -5", changed(3, card("NAXIS1", -5)), "NAXIS1 = -5 is negative"),
                ("naxis1 0", changed(3, card("NAXIS1", 0)), "NAXIS1 = 0"),
                ("naxis2 huge", changed(4, card("NAXIS2", 10 ** 30)), "63 bits"),
                ("naxis2 large", changed(4, card("NAXIS2", 10 ** 15)), ""),
                ("naxis1 missing", changed(3, card("OBJECT", "'x'")), "OBJECT where NAXIS1 belongs"),
                ("groups", hdu_bytes(raw, [card("GROUPS", "T"), card("PCOUNT", 0), card("GCOUNT", 1)],
                                     structure=[*first[:3], card("NAXIS1", 0), first[4]]),
                 "has no image"),
                ("pcount", hdu_bytes(raw, [card("PCOUNT", 5)]), "PCOUNT = 5"),
                ("nine axes", hdu_bytes(random_array(self.rng, (2,) * 9, "u1")), "at most 8 axes"),
                ("no image", EMPTY, "the FITS file has no image"),
                ("text", b"SIMPLE is no FITS file\n" * 100, "not a FITS or NPY file"),
                ("tiff", b"II*\0" + bytes(5000), "not a FITS or NPY file")]:
            self.check(f"{name}.fits", content, part)

    def test_which_hdu(self):
        images = [random_array(self.rng, (4, 5), t) for t in ("i2", "f4", "i4", "f8")]
        table = fits.BinTableHDU.from_columns([fits.Column("a", "J", array=np.arange(9))], name="TAB")
        ascii_table = fits.TableHDU.from_columns([fits.Column("a", "I10", array=np.arange(9))])
        content = astropy_bytes(
            fits.PrimaryHDU(), table, fits.ImageHDU(images[0], name="SCI"), ascii_table,
            fits.ImageHDU(images[1], name="DQ"), fits.ImageHDU(images[2], name="SCI", ver=2),
            fits.ImageHDU(name="NODATA"), fits.ImageHDU(images[3].astype(">f8")),
            fits.CompImageHDU(images[2], name="PACKED"), checksum=True)
        for choice, expected in {
                "first": images[0], "2": images[0], "SCI": images[0], "sci": images[0],
                "SCI,1": images[0], "4": images[1], "DQ": images[1], "DQ,1": images[1],
                "5": images[2], "SCI,2": images[2], "7": images[3], "8": images[2],
                "PACKED": images[2], "packed,1": images[2],
                "0": "the primary HDU has no data (NAXIS = 0)",
                "1": "HDU 1 is no image (XTENSION = 'BINTABLE')", "TAB": "HDU 1 is no image",
                "3": "HDU 3 is no image (XTENSION = 'TABLE')", "6": "HDU 6 has no data",
                "NODATA": "HDU 6 has no data", "9": "the FITS file has no HDU 9",
                "SCI,3": "no HDU named 'SCI' with EXTVER = 3", "NOPE": "no HDU named 'NOPE'"}.items():
            cube = self.check("mef.fits", content, expected, hdu=choice)
            if cube is not None and not isinstance(expected, str):
                assert_values(np.load(cube / "slices/xy/z0.npy"), expected)
            self.check("mef.fits.gz", gzip.compress(content), expected, hdu=choice)

    def test_truncated_within_the_hdu_that_is_chosen_or_before(self):
        images = [random_array(self.rng, (40, 50), "i2") for _ in range(3)]
        hdus = [EMPTY] + [hdu_bytes(image, extension="IMAGE") for image in images]
        content = b"".join(hdus)
        ends = np.cumsum([len(h) for h in hdus])
        for hdu in (1, 2, 3):
            begin, end = ends[hdu - 1], ends[hdu]
            data_end = begin + 2880 + images[hdu - 1].nbytes
            self.check("whole.fits", content[:end], images[hdu - 1], hdu=str(hdu))
            self.check("whole.fits", content[:data_end], images[hdu - 1], hdu=str(hdu))
            self.check("cut.fits", content[:data_end - 1], "truncated", hdu=str(hdu))
            self.check("cut.fits", content[:begin + 2879], "ends in the header", hdu=str(hdu))
            self.check("cut.fits", content[:begin], f"no HDU {hdu}", hdu=str(hdu))
            if hdu > 1:
                self.check("cut.fits", content[:begin - 3000], "ends in the data", hdu=str(hdu))


class Sums(Own):
    def test_right_and_wrong(self):
        array = random_array(self.rng, (30, 40), "int16")
        sums = {"both": True, "data only": "datasum"}
        for place in (0, 1):
            for name, kind in sums.items():
                image = fits.PrimaryHDU(array) if place == 0 else fits.ImageHDU(array)
                image.header["OBJECT"] = "M 42"
                hdus = [image] if place == 0 else [fits.PrimaryHDU(), image]
                content = astropy_bytes(*hdus, fits.ImageHDU(array[::2]), checksum=kind)
                begin = 2880 * place
                for pack in (bytes, gzip.compress):
                    end = "" if pack is bytes else ".gz"

                    def put_in(label, changed, expected):
                        self.check(f"{name} {place} {label}.fits{end}", pack(changed), expected)

                    put_in("right", content, array)
                    put_in("other hdu", flipped(content, len(content) - 4000), array)
                    for at in (0, 1001, array.nbytes - 1):
                        put_in(f"data {at}", flipped(content, begin + 2880 + at, at % 8), "damaged")
                    put_in("padding", flipped(content, begin + 2880 + array.nbytes + 7), "damaged")
                    header = flipped(content, content.index(b"M 42", begin), 0)
                    put_in("header", header, "CHECKSUM" if kind is True else array)
                    sum_at = content.index(b"DATASUM = '", begin) + 11
                    put_in("said", flipped(content, sum_at), "DATASUM")

    def test_without_value(self):
        array = random_array(self.rng, (30, 40), "int16")
        for cards in ([card("CHECKSUM", "'        '"), card("DATASUM", "'        '")],
                      [card("CHECKSUM", "''")], ["CHECKSUM=", "DATASUM ="]):
            self.check("undefined.fits", hdu_bytes(array, cards), array)
        self.check("text.fits", hdu_bytes(array, [card("DATASUM", "'many'")]), "DATASUM = 'many'")

    def test_missing_padding_counts_as_zeros(self):
        array = random_array(self.rng, (30, 41), "int16")
        content = astropy_bytes(fits.PrimaryHDU(array), checksum=True)
        self.check("unpadded.fits", content[:2880 + array.nbytes], array)


class Gzip(Own):
    def setUp(self):
        super().setUp()
        self.array = random_array(self.rng, (60, 70), "int16")
        self.content = fits_bytes(self.array)
        self.packed = gzip.compress(self.content)

    def test_taken(self):
        content, packed = self.content, self.packed
        third = len(content) // 3
        members = b"".join(gzip.compress(content[i:i + third]) for i in range(0, len(content), third))
        named = io.BytesIO()
        with gzip.GzipFile("name.fits", "wb", 1, named, mtime=1) as file:
            file.write(content)
        for name, changed in {
                "one": packed, "stored": gzip.compress(content, 0), "members": members,
                "empty members": gzip.compress(b"") + packed + gzip.compress(b""),
                "zeros": packed + bytes(512), "named": named.getvalue(), "twice": gzip.compress(packed),
                "unpadded": gzip.compress(content[:2880 + self.array.nbytes]),
                "tail": gzip.compress(content + b"tail" * 100000)}.items():
            self.check(f"{name}.fits.gz", changed, self.array)
            self.check(f"{name}.fits", changed, self.array)  # content counts, not the name
        self.check("array.npy.gz", gzip.compress(npy_bytes(self.array)), self.array)
        fortran = io.BytesIO()
        np.save(fortran, np.asfortranarray(self.array))
        self.check("fortran.npy.gz", gzip.compress(fortran.getvalue()), self.array)

    def test_refused(self):
        content, packed = self.content, self.packed
        for name, changed, part in [
                ("garbage", packed + b"garbage", "gzip file is damaged"),
                ("zeros and garbage", packed + bytes(100) + b"x", "gzip file is damaged"),
                ("half member", packed + packed[:100], "gzip file is truncated"),
                ("thrice", gzip.compress(gzip.compress(packed)), "packed more than twice"),
                ("of nothing", gzip.compress(b""), "empty"),
                ("of text", gzip.compress(b"text" * 999), "not a FITS"),
                ("of cut", gzip.compress(content[:5000]), "truncated: what the file unpacks to"),
                ("of header", gzip.compress(content[:2000]), "ends in the header"),
                ("of table", gzip.compress(EMPTY), "the FITS file has no image"),
                ("of long npy", gzip.compress(npy_bytes(self.array) + b"x"), "unpacks to")]:
            self.check(f"{name}.fits.gz", changed, part)
        for at in (3, 9, 17, len(packed) // 2, len(packed) - 9, len(packed) - 8, len(packed) - 1):
            self.check(f"cut {at}.gz", packed[:at], "gzip file is truncated")
        for at in [*range(10, len(packed), len(packed) // 12), *range(len(packed) - 8, len(packed))]:
            self.check(f"flipped {at}.gz", flipped(packed, at, at % 8), "gzip file is")


class Tiles(Own):
    def fpack(self, content, *options):
        source = self.base / "source.fits"
        packed = self.base / "packed.fits.fz"
        source.write_bytes(content)
        packed.unlink(missing_ok=True)
        run("fpack", *options, "-O", packed, source)
        return packed.read_bytes()

    def images(self):
        rng = self.rng
        y, x = np.mgrid[:48, :60]
        sky = rng.normal(500, 12, (48, 60)) + 4000 * np.exp(-((x - 30) ** 2 + (y - 20) ** 2) / 30)
        yield "u8", fits_bytes(np.clip(sky / 20, 0, 255).astype("uint8"))
        yield "i16", fits_bytes(sky.astype("int16"))
        yield "u16", fits_bytes((sky * 10).astype("uint16"))
        yield "i32", fits_bytes((sky * 100).astype("int32"))
        yield "scaled", hdu_bytes(sky.astype("int16"), [card("BSCALE", "0.5"), card("BZERO", "100")])
        blank = sky.astype("int16")
        blank[5:9, 7:30] = -999
        yield "blank", hdu_bytes(blank, [card("BLANK", -999)])
        yield "f32", fits_bytes(sky.astype("float32"))
        yield "f64", fits_bytes(sky)
        holes = sky.astype("float32")
        holes[3:9, 11:40] = np.nan
        yield "nan", fits_bytes(holes)
        yield "cube", fits_bytes((sky[:, :, None] + rng.normal(0, 3, (48, 60, 17))).astype("int16"))
        yield "line", fits_bytes(sky.ravel().astype("int32"))

    def test_every_codec(self):
        codecs = [["-r"], ["-g1"], ["-g2"], ["-h"], ["-p"]]
        for name, content in self.images():
            for codec in codecs:
                floats = name in ("f32", "f64", "nan")
                if codec in (["-p"], ["-h"]) and name not in ("u8", "i16", "blank"):
                    continue  # PLIO takes small positive integers, HCOMPRESS planes
                if codec == ["-p"] and name != "u8":
                    continue
                ways = [[]]
                if codec == ["-r"] and name not in ("cube", "line"):
                    ways += [["-w"], ["-t", "17,13"]]
                if floats and codec == ["-r"]:
                    ways += [["-q", "8"], ["-q0", "4"], ["-qz", "4"], ["-q7", "4"]]
                if floats and codec in (["-g1"], ["-g2"]):
                    ways += [["-q", "0"]]
                for way in ways:
                    label = "_".join([name, *codec, *way])
                    packed = self.fpack(content, *codec, *way)
                    lossless = not floats or way == ["-q", "0"]
                    expected = self.first_of(content) if lossless else self.ASTROPY
                    if name == "nan" and not lossless:
                        # This astropy knows no undefined pixels among quantised floats, and this
                        # funpack misplaces them where tiles are narrower than the image.
                        expected = self.first_of(packed)
                        expected[np.isnan(self.first_of(content))] = np.nan
                    self.check(f"{label}.fits.fz", packed, expected)
                    if way in ([], ["-q", "0"]):
                        self.check(f"{label}.fits.fz.gz", gzip.compress(packed), expected)
                    if lossless and name != "blank":  # of which astropy says nothing
                        self.check(f"{label} again.fits.fz", packed, self.ASTROPY)

    def first_of(self, content):
        path = self.base / "plain.fits"
        path.write_bytes(content)
        return first_image(path)

    def test_several_images(self):
        arrays = [random_array(self.rng, (8, 9 + i), "int16") for i in range(3)]
        content = b"".join([EMPTY, *(hdu_bytes(a, [card("EXTNAME", f"'E{i}'")], extension="IMAGE")
                                     for i, a in enumerate(arrays))])
        packed = self.fpack(content, "-g1")
        for i, array in enumerate(arrays):
            self.check("mef.fits.fz", packed, array, hdu=str(i + 1))
            self.check("mef.fits.fz", packed, array, hdu=f"E{i}")
            self.check("mef.fits.fz.gz", gzip.compress(packed), array, hdu=f"E{i}")
        self.check("mef.fits.fz", packed, arrays[0])
        self.check("mef.fits.fz", packed, "no HDU 4", hdu="4")

    def test_packed_by_astropy(self):
        for kind in ("RICE_1", "GZIP_1", "GZIP_2", "HCOMPRESS_1"):
            for dtype in ("uint8", "int16", "int32", "float32", "float64"):
                array = (self.rng.normal(100, 9, (24, 30))).astype(dtype)
                content = astropy_bytes(fits.PrimaryHDU(), fits.CompImageHDU(array, compression_type=kind),
                                        checksum=True)
                self.check(f"{kind}_{dtype}.fits", content, self.ASTROPY)

    def test_damaged(self):
        array = (self.rng.normal(100, 9, (40, 50))).astype("int16")
        for codec in ("-r", "-g1", "-g2", "-h"):
            packed = self.fpack(fits_bytes(array), codec)
            table = packed.index(b"XTENSION")
            data = packed.index(b"END" + b" " * 77, table) // 2880 * 2880 + 2880
            for at in range(data + 3, data + 40 * 8, 37):
                self.check(f"{codec} {at}.fits.fz", flipped(packed, at), "damaged")
            used = len(packed.rstrip(b"\0"))
            for at in range(data + 330, used, (used - data) // 9):
                self.check(f"{codec} {at}.fits.fz", flipped(packed, at), "damaged")
            for size in (table + 100, data - 1):
                self.check(f"{codec} to {size}.fits.fz", packed[:size], "")
            for size in (data, data + 100, used - 1):
                self.check(f"{codec} to {size}.fits.fz", packed[:size], "truncated")
            other = packed.replace(b"'RICE_1", b"'LZMA_9").replace(b"'GZIP_", b"'BZIP_") \
                .replace(b"'HCOMPR", b"'XCOMPR")
            self.check(f"{codec} unknown.fits.fz", other, "not supported")

    def test_damaged_without_sums(self):
        """Taken or refused, as the codec sees it: nothing else comes to harm."""
        array = (self.rng.normal(100, 9, (40, 50))).astype("int16")
        for codec in ("-r", "-h", "-g1", "-g2"):
            packed = self.fpack(fits_bytes(array), codec, "-C")
            self.assertNotIn(b"DATASUM", packed)
            begin = packed.index(b"END" + b" " * 77, packed.index(b"XTENSION")) // 2880 * 2880 + 2880
            for at in range(begin + 1, len(packed.rstrip(b"\0")), 101):
                source = self.base / "damaged.fits.fz"
                source.write_bytes(flipped(packed, at, at % 8))
                cube, sentence = self.trial.copy_any(source)
                self.counts["taken" if sentence is None else "refused"] += 1
                if sentence is None:
                    self.assertEqual((cube / "append" / source.name).read_bytes(), source.read_bytes())
                    self.assertEqual(np.load(cube / "cube.npy").shape, (1, *array.shape))


class Npy(Own):
    @staticmethod
    def npy(array, version):
        target = io.BytesIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            np.lib.format.write_array(target, array, version)
        return target.getvalue()

    def test_versions_orders_and_types(self):
        shapes = [(40,), (5, 8), (3, 4, 5), (2, 3, 4, 5)]
        number = 0
        for dtype in TYPES:
            for version in ((1, 0), (2, 0), (3, 0)):
                for order in "<>":
                    for layout in "CF":
                        shape = shapes[number % 4] if dtype == "int16" else shapes[1 + number % 3]
                        number += 1
                        array = random_array(self.rng, shape, dtype)
                        stored = np.asarray(array.astype(array.dtype.newbyteorder(order)), order=layout)
                        self.check(f"{dtype}_{version[0]}_{order}_{layout}.npy",
                                   self.npy(stored, version), array)

    def test_refused(self):
        array = random_array(self.rng, (5, 8), "int16")
        for version in ((1, 0), (2, 0), (3, 0)):
            content = self.npy(array, version)
            begin = content.index(b"{")
            for name, changed, part in [
                    ("magic", content[:4], ""), ("version", content[:7], "ends in its header"),
                    ("header", content[:60], "ends in its header"), ("no data", content[:128], "truncated"),
                    ("data", content[:-1], "truncated"), ("more", content + b"\0", "its header says"),
                    ("version 4", content[:6] + b"\4" + content[7:], "NPY version 4.0"),
                    ("version 1.1", content[:7] + b"\1" + content[8:], ".1 is not supported"),
                    ("brace", content[:begin] + b"[" + content[begin + 1:], "dictionary"),
                    ("key", content.replace(b"descr", b"xescr"), "key"),
                    ("type", content.replace(b"<i2", b"<x2"), "which are not supported"),
                    ("order", content.replace(b"False", b"Maybe"), "fortran_order"),
                    ("shape", content.replace(b"(5, 8)", b"(5,-8)"), "negative")]:
                self.check(f"{name} {version[0]}.npy", changed, part)
        for name, other, part in [
                ("complex", array + 1j, "complex"), ("bool", array > 0, "boolean"),
                ("half", array.astype("f2"), "neither float32 nor float64"),
                ("text", np.array(["a"]), "strings"),
                ("bytes", np.array([b"a"]), "strings"), ("date", np.array(["2020"], "M8[D]"), "dates"),
                ("struct", np.zeros(3, [("a", "i4"), ("b", "f4")]), "structured"),
                ("object", np.array([None]), "Python objects"), ("scalar", np.array(3), "without axes"),
                ("no elements", np.zeros((3, 0)), "extent 0"), ("nine", np.zeros((2,) * 9), "9 axes")]:
            self.check(f"{name}.npy", self.npy(other, (1, 0)), part)
        eight = np.zeros((1, 1, 2, 1, 2, 1, 2, 1, 2, 2), "u1")
        self.check("ten.npy", self.npy(eight, (1, 0)), eight[0, 0])


class Rsync(unittest.TestCase):
    def test_copied_thrice_and_after_a_remount(self):
        rng = generator(3)
        arrays = [random_array(rng, (20, 30), "int16") for _ in range(5)]
        with Mounted() as m, temporary_directory() as base:
            source = base / "frames"
            source.mkdir()
            (source / "a.fits").write_bytes(fits_bytes(arrays[0]))
            (source / "b.fits.gz").write_bytes(gzip.compress(fits_bytes(arrays[1])))
            (base / "c.fits").write_bytes(fits_bytes(arrays[2]))
            run("fpack", "-O", source / "c.fits.fz", base / "c.fits")
            (source / "d.fits").write_bytes(EMPTY + hdu_bytes(arrays[3], extension="IMAGE")
                                            + hdu_bytes(arrays[4], extension="IMAGE"))
            scaled = arrays[4].copy()
            (source / "e.fits").write_bytes(hdu_bytes(scaled, [card("BSCALE", "0.5"), card("BZERO", "3")]))
            (source / "f.npy").write_bytes(npy_bytes(arrays[4]))
            for i, path in enumerate(sorted(source.iterdir())):
                os.utime(path, ns=(10 ** 18 + i * 10 ** 9 + 123456789,) * 2)
            values = [*arrays[:4], np.float32(0.5) * scaled.astype("f4") + np.float32(3), arrays[4]]
            for properties in ({"dtype": "float32"}, {"dtype": "int16", "convert": "nearest"}):
                cube = m.cube("of_" + properties["dtype"])
                for name, value in properties.items():
                    put(cube, name, value)
                names = sorted(os.listdir(source))
                for turn in range(5):
                    said = run("rsync", "-a", "-i", f"{source}/", f"{cube}/append/").stdout.decode()
                    # The times of a door are its own, so "." may be told.
                    told = [line.split(" ", 1)[1] for line in said.splitlines()
                            if not line.endswith(" ./")]
                    self.assertEqual(told, names if turn == 0 else [], f"turn {turn}: {said}")
                    self.assertEqual(sorted(os.listdir(cube / "frames")), names)
                    self.assertEqual(meta(cube, "shape"), "30 20 6")
                    if turn == 2:
                        before = (cube / "cube.npy").read_bytes()
                        m.remount()
                        self.assertEqual((cube / "cube.npy").read_bytes(), before)
                for name in names:
                    run("cmp", source / name, cube / "append" / name)
                found = np.load(cube / "cube.npy")
                expected = np.stack(values).astype("f4")
                if properties["dtype"] == "int16":
                    expected = np.clip(np.rint(np.stack([v.astype("f8") for v in values])),
                                       -32768, 32767).astype("int16")
                assert_values(found, expected)


if __name__ == "__main__":
    mounted.main()
