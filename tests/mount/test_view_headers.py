"""Headers of FITS views: cards of frames and of the cube, world coordinates, IRAF's transform."""
import collections
import errno
import os
import random
import re
import shutil
import subprocess
import unittest
import warnings

import mounted
import numpy as np
from astropy import wcs as astropy_wcs
from astropy.io import fits
from frames import LETTERS, SEED, TYPES, fits_bytes, random_array, read_fits
from growing import GrowingTest, Model, door
from mounted import (errno_of, fails, last_error, meta, put, run, scaled, shape_of, shell,
                     temporary_directory)

STRUCTURE = re.compile(r"(SIMPLE|BITPIX|NAXIS\d*|BSCALE|BZERO|EXTEND) *$")
PHYSICAL = re.compile(r"(LTV\d+|LTM\d+_\d+) *$")


def raw_cards(path):
    """The 80 characters of every card of a file's first header, those behind END included."""
    data = b""
    with open(path, "rb") as file:
        while b"END".ljust(80) not in [data[i:i + 80] for i in range(0, len(data), 80)]:
            block = file.read(2880)
            assert len(block) == 2880, f"{path}: the header does not end with a block"
            data += block
    return [data[i:i + 80].decode("ascii") for i in range(0, len(data), 80)]


def own_cards(path):
    """Those that tell neither structure nor IRAF's transform, a string with its CONTINUE cards."""
    cards = []
    for card in raw_cards(path)[:-1]:
        if card.startswith("CONTINUE") and cards:
            cards[-1] += card
        elif not STRUCTURE.match(card[:8]) and not PHYSICAL.match(card[:8]):
            cards.append(card)
    while cards and not cards[-1].strip():
        cards.pop()
    return cards


def card(keyword, value, comment=""):
    """A card of the fixed format."""
    if isinstance(value, str):
        value = "'" + value.replace("'", "''").ljust(8) + "'"
        text = f"{keyword:<8}= {value:<20}"
    else:
        value = {True: "T", False: "F"}.get(value, value) if isinstance(value, bool) else value
        text = f"{keyword:<8}= {value!r:>20}" if not isinstance(value, str) else \
            f"{keyword:<8}= {value:>20}"
    text = text.replace("e+", "E+").replace("e-", "E-") if not text[10:].startswith("'") else text
    text += f" / {comment}" if comment else ""
    assert len(text) <= 80, text
    return text.ljust(80)


def verified(path):
    """What fitsverify objects to."""
    said = run("fitsverify", path, check=False).stdout.decode()
    if "0 warning(s) and 0 error(s)" in said:
        return []
    return re.findall(r"^\*\*\* .*", said, re.M) or [said]


# ---- Descriptions of the world ----


class World:
    """A random description of an image's axes: cards, and which axes depend on each other."""

    def __init__(self, rng, rank, letter=""):
        self.letter = letter
        self.rank = rank
        # Some describe axes that the image does not have.
        self.count = rank + (1 if rank < 4 and rng.random() < 0.15 else 0)
        self.with_sip = False
        kinds = [str(k) for k in rng.choice(["spectral", "stokes", "linear", "linear"], self.count,
                                            replace=False)]
        self.pair = None
        if rng.random() < 0.85:
            at = [0, 1] if rng.random() < 0.7 else sorted(rng.choice(self.count, 2, replace=False))
            if rng.random() < 0.3:
                at = at[::-1]
            kinds[at[0]], kinds[at[1]] = "longitude", "latitude"
            self.pair = (int(at[0]), int(at[1]))
        self.kinds = kinds
        self.parent = list(range(self.count))
        if self.pair:
            self.join(*self.pair)
        self.cards = self.make(rng)

    def join(self, i, j):
        a, b = self.parent[i], self.parent[j]
        self.parent = [a if p == b else p for p in self.parent]

    def make(self, rng):
        a, cards = self.letter, []
        if self.count != self.rank or rng.random() < 0.3:
            cards.append(card(f"WCSAXES{a}", self.count))
        form = str(rng.choice(["CD", "PC", "CROTA", "plain"], p=[0.4, 0.2, 0.2, 0.2]))
        projection = str(rng.choice(["TAN", "SIN", "CAR"], p=[0.6, 0.2, 0.2]))
        if a == "" and self.rank == self.count == 2 and rng.random() < 0.3:
            form, projection = "CD", "TAN"  # for SIP
        prefix = [("RA--", "DEC-"), ("GLON", "GLAT"), ("ELON", "ELAT")][rng.integers(3)]
        self.with_sip = (a == "" and self.rank == self.count == 2 and self.pair is not None
                         and form == "CD" and projection == "TAN")
        scale, value, types, units = [], [], [], []
        for kind in self.kinds:
            step, unit = float(rng.uniform(0.5, 2)) * float(rng.choice([-1, 1])), ""
            if kind in ("longitude", "latitude"):
                types.append(f"{prefix[kind == 'latitude']}-{projection}"
                             + ("-SIP" if self.with_sip else ""))
                step, unit = step * 0.01, "deg"
                centre = rng.uniform(5, 355) if kind == "longitude" else \
                    0.0 if projection == "CAR" else rng.uniform(-70, 70)
            elif kind == "spectral":
                name, unit, factor, centre = [
                    ("FREQ", "Hz", 1e6, 1.4e9), ("WAVE", "m", 1e-10, 5e-7),
                    ("VELO", "m/s", 1e3, 2e4)][rng.integers(3)]
                types.append(name)
                step, centre = step * factor, centre * float(rng.uniform(0.9, 1.1))
            elif kind == "stokes":
                types.append("STOKES")
                step, centre = float(rng.choice([-1, 1])), 1.0
            else:
                types.append(str(rng.choice(["TIME", "LINEAR", "POS"])))
                unit, centre = str(rng.choice(["s", "mm"])), float(rng.uniform(-50, 50))
            scale.append(step)
            units.append(unit)
            value.append(float(centre))
        for i in range(self.count):
            n = f"{i + 1}{a}"
            cards.append(card(f"CTYPE{n}", types[i]))
            if units[i]:
                cards.append(card(f"CUNIT{n}", units[i]))
            cards.append(card(f"CNAME{n}", f"w{i}"))
            cards.append(card(f"CRVAL{n}", value[i], "the world" if rng.random() < 0.3 else ""))
            if self.with_sip or rng.random() < 0.9:
                cards.append(card(f"CRPIX{n}", round(float(rng.uniform(-20, 20)), 3)))
        self.add_matrix(rng, cards, form, scale)
        if self.pair and rng.random() < 0.5:
            cards.append(card(f"RADESYS{a}", "FK5"))
            cards.append(card(f"EQUINOX{a}", 2000.0))
        if self.pair and rng.random() < 0.3:
            cards.append(card(f"LONPOLE{a}", 170.0))
        if "spectral" in self.kinds and rng.random() < 0.5:
            cards.append(card(f"RESTFRQ{a}", 1.42e9))
            cards.append(card(f"SPECSYS{a}", "LSRK"))
        if self.with_sip:
            self.join(0, 1)
            for stem in "AB":
                cards.append(card(f"{stem}_ORDER", 2))
                for p, q in ((2, 0), (1, 1), (0, 2)):
                    if rng.random() < 0.8:
                        cards.append(card(f"{stem}_{p}_{q}", float(rng.normal()) * 1e-4))
        if rng.random() < 0.3:
            cards.append(card(f"WCSNAME{a}", "a name"))
        return cards

    def add_matrix(self, rng, cards, form, scale):
        a, n = self.letter, self.count
        matrix = np.eye(n)
        if form in ("CD", "PC"):
            if self.pair:
                angle = rng.uniform(-3, 3)
                i, j = self.pair
                matrix[i, i] = matrix[j, j] = np.cos(angle)
                matrix[i, j], matrix[j, i] = -np.sin(angle), np.sin(angle)
            if n > 2 and rng.random() < 0.2:  # something skewed
                i, j = (int(k) for k in rng.choice(n, 2, replace=False))
                if matrix[i, j] == 0:
                    matrix[i, j] = 0.1
                    self.join(i, j)
        for i in range(n):
            if form != "CD":
                cards.append(card(f"CDELT{i + 1}{a}", scale[i]))
        if form == "CROTA" and self.pair and not a:
            cards.append(card(f"CROTA{self.pair[1] + 1}", float(rng.uniform(-180, 180))))
        if form in ("CD", "PC"):
            for i in range(n):
                for j in range(n):
                    if matrix[i, j] != float(i == j) or (form == "CD" and i == j):
                        value = float(matrix[i, j]) * (scale[i] if form == "CD" else 1)
                        cards.append(card(f"{form}{i + 1}_{j + 1}{a}", value))

    def axes_left(self, spanned, broken):
        """World axes that must be on an image that spans those of the source's axes, in order."""
        if self.with_sip and (set(broken) & {0, 1} or spanned[:2] not in ([0, 1], [1, 0])):
            return set()
        has_pixels = {axis for axis in spanned if axis < self.rank}
        has_pixels |= set(range(self.rank, self.count))
        left = set()
        for i in range(self.count):
            own = {j for j in range(self.count) if self.parent[j] == self.parent[i]}
            if own & has_pixels and not own & set(broken):
                left.add(i)
        return left


def world_of(header, letter):
    """astropy's reading; nothing when there is no such description."""
    if not any(re.fullmatch(rf"C(TYPE|RPIX|RVAL|NAME)\d+{letter}", k) for k in header):
        return None
    header = header.copy()
    if letter:  # astropy would use them with all descriptions
        for keyword in [k for k in header if re.fullmatch(r"[AB]P?_(ORDER|DMAX|\d_\d)", k)]:
            del header[keyword]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Where there are other axes besides, it has to be told which ones SIP is about.
        count = 2 if "A_ORDER" in header or "B_ORDER" in header else None
        return astropy_wcs.WCS(header, key=letter or " ", fix=False, naxis=count)


def world_at(world, pixels):
    """World axis by CNAME -> values, for pixels (one a row) of the image's axes."""
    pixels = np.asarray(pixels, float)[:, : world.naxis]
    full = np.zeros((len(pixels), world.naxis))
    full[:, : pixels.shape[1]] = pixels
    values = world.all_pix2world(full, 0)
    return {name: (values[:, i], i == world.wcs.lng)
            for i, name in enumerate(world.wcs.cname) if name}


class Source:
    def __init__(self, name, array, worlds, path):
        self.name = name
        self.array = array
        self.worlds = worlds
        self.header = fits.getheader(path)


class WorldCoordinates(GrowingTest):
    """Each pixel of a view has the world coordinates that it has in the frame's own file.

    An axis may be missing only where something was inserted into one that it depends on, where what
    it depends on is not spanned at all, or (SIP) where the first two axes are not the frame's first
    two; and on what shows many frames, where these have not the same description, or not the same
    indexes. All else must be there.
    """

    def test_against_the_sources(self):
        self.seen = collections.Counter()
        for turn in range(scaled(90, 6)):
            rng = np.random.default_rng([SEED, 77, turn])
            with self.subTest(turn=turn):
                self.one_cube(turn, rng)
        print(dict(self.seen))
        if mounted.SCALE == 1:
            for what, least in {"frame, described": 400, "common, described": 80,
                                "frame, broken": 30, "frame, axes behind": 100,
                                "frame, sip": 3}.items():
                self.assertGreater(self.seen[what], least)

    def one_cube(self, turn, rng):
        rank = int(rng.choice([3, 3, 4]))
        cube = self.m.cube(f"wcs{turn}")
        letters = LETTERS[:rank]
        put(cube, "axes", " ".join(letters))
        model = Model(rank, "int16")
        sources = {}
        shared = None
        if rng.random() < 0.4:  # all have the same cards
            shared_rank = int(rng.integers(2, rank + 1))
            shared = [World(rng, shared_rank, a) for a in ("", "A")[: rng.integers(1, 3)]]
        log = []
        for number in range(int(rng.integers(3, 8))):
            action = "frame" if number == 0 else str(rng.choice(
                ["frame", "frame", "strip", "insert"] if shared is None else ["frame"]))
            if action == "frame":
                source_rank = shared[0].rank if shared else int(rng.integers(2, rank + 1))
                shape = [int(rng.integers(4, 8)) for _ in range(source_rank)]
                if source_rank == rank:
                    shape[-1] = int(rng.integers(1, 3))
                worlds = shared or [World(rng, source_rank, a)
                                    for a in ("", "A", "Q")[: rng.integers(0, 4)]]
                place = (str(rng.choice(["append", "prepend"])),)
            else:
                axis = int(rng.integers(0, rank - 1))
                shape = list(model.shape())
                shape[axis] = int(rng.integers(1, 3))
                worlds = []
                place = (str(rng.choice(["append", "prepend"])), letters[axis])
                if action == "insert":
                    axis = int(rng.integers(0, rank)) if rng.random() < 0.3 else axis
                    shape = list(model.shape())
                    shape[axis] = 1
                    place = ("insert", letters[axis], int(rng.integers(0, model.shape()[axis] + 1)))
            array = random_array(rng, shape[::-1], "int16")
            cards = [c for w in worlds for c in w.cards]
            path = self.file(array, cards + [card("NUMBER", number)], name=f"t{turn}f{number}.fits")
            run("cp", path, cube / door(*place))
            model.add(path.name, array, *place)
            sources[path.name] = Source(path.name, array, worlds, path)
            log.append(f"{'/'.join(map(str, place))} {shape}")
        self.assertEqual(shape_of(cube), model.shape(), log)
        views = ["cube"] + [self.random_view(rng, model) for _ in range(14)]
        for view in views:
            self.check(cube, model, sources, view, f"seed {SEED}, cube {turn}: {log}, {view}")

    def random_view(self, rng, model):
        """Spanned axes in order, ranges of them, indexes of the others."""
        rank = len(model.axes)
        extents = model.shape()
        axes = [int(a) for a in rng.permutation(rank)]
        spanned = axes[: int(rng.integers(1, rank + 1))] if rng.random() < 0.6 else \
            ([0, 1] if rng.random() < 0.6 else [1, 0])
        ranges = {}
        for axis in spanned:
            if rng.random() < 0.3:
                begin = int(rng.integers(0, extents[axis]))
                ranges[axis] = (begin, int(rng.integers(begin, extents[axis])) + 1)
        fixed = {a: int(rng.integers(0, extents[a])) for a in range(rank) if a not in spanned}
        return spanned, ranges, fixed

    def check(self, cube, model, sources, view, what):
        extents = model.shape()
        rank = len(extents)
        if view == "cube":
            path, spanned, ranges, fixed = cube / "cube.fits", list(range(rank)), {}, {}
        else:
            spanned, ranges, fixed = view
            terms = [f"{LETTERS[a]}{b}..{e}" for a, (b, e) in ranges.items()]
            terms += [f"{LETTERS[a]}{i}" for a, i in fixed.items()]
            if not terms:
                terms = [f"{LETTERS[spanned[0]]}0.."]
            axes = "".join(LETTERS[a] for a in spanned)
            path = cube / f"slices/{axes}/{'_'.join(terms)}.fits"
        header = fits.getheader(path)
        shown = [model.shown(a) for a in range(rank)]
        begins = {a: ranges.get(a, (0, extents[a]))[0] for a in spanned}
        ends = {a: ranges.get(a, (0, extents[a]))[1] for a in spanned}
        for d, axis in enumerate(spanned):
            self.assertEqual((1 - header[f"LTV{d + 1}"]) / header[f"LTM{d + 1}_{d + 1}"],
                             begins[axis], what)

        # Of the frames that brought one of the fixed indexes that which has all, then the newest.
        at = {axis: shown[axis][index] for axis, index in fixed.items()}
        owners = [(all(at[a] in f.indexes[a] for a in at), arrival, name)
                  for arrival, (name, f) in enumerate(model.frames.items())
                  if f.axis in at and at[f.axis] in f.indexes[f.axis]]
        frame = max(owners)[2] if owners else None
        kind = "frame" if frame else "common"
        if frame:
            self.assertEqual(header["ACRFRAME"], frame, what)
            self.assertEqual(header["NUMBER"], sources[frame].header["NUMBER"], what)
        else:
            frame = model.names()[0]
        source = sources[frame]
        rows = model.frames[frame].indexes
        own_rank = source.array.ndim
        starts, broken = {}, set()
        for axis in range(rank):
            at = [shown[axis].index(i) for i in rows[axis]]
            if axis in spanned and at != list(range(at[0], at[0] + len(at))) and axis < own_rank:
                broken.add(axis)
            starts[axis] = at[0]
        described = source.worlds
        if kind == "common":
            described = [w for w in described if all(w in s.worlds for s in sources.values())]
            for axis in range(own_rank):
                if any(f.indexes[axis][0] is not rows[axis][0] for f in model.frames.values()):
                    broken.add(axis)
        local = {}
        for axis, at in fixed.items():
            index = shown[axis][at]
            if axis >= own_rank:
                local[axis] = 0
            elif index in rows[axis]:
                local[axis] = rows[axis].index(index)
            else:
                return  # somebody else's elements
        pixels, sources_pixels = [], []
        chance = random.Random(SEED)
        for _ in range(6):
            pixel = [chance.randrange(ends[a] - begins[a]) for a in spanned]
            origin = [local.get(a, 0) for a in range(own_rank)]
            for axis, p in zip(spanned, pixel):
                if axis < own_rank:
                    origin[axis] = begins[axis] + p - starts[axis]
            pixels.append(pixel)
            sources_pixels.append(origin)
        self.seen[f"{kind}, views"] += 1

        known = {w.letter for w in described}
        for letter in ("", "A", "Q"):
            if letter not in known:
                self.assertIsNone(world_of(header, letter), f"{what}: '{letter}' is not of this")
        if broken:
            self.seen[f"{kind}, broken"] += 1
        for world in described:
            left = world.axes_left(spanned, broken)
            found = world_of(header, world.letter)
            where = f"{what} '{world.letter}' of {frame}"
            if not left:
                self.seen[f"{kind}, gone"] += 1
                self.assertIsNone(found, where)
                continue
            self.assertIsNotNone(found, f"{where}: is not there")
            values = world_at(found, pixels)
            expected = world_at(world_of(source.header, world.letter), sources_pixels)
            missing = set(expected) - set(values)
            self.assertEqual(missing, {f"w{i}" for i in range(world.count) if i not in left}, where)
            self.seen[f"{kind}, described"] += 1
            self.seen[f"{kind}, sip"] += found.sip is not None
            self.seen[f"{kind}, axes missing"] += bool(missing)
            self.seen[f"{kind}, axes behind"] += found.naxis > len(spanned)
            for name, (value, is_longitude) in values.items():
                target = expected[name][0]
                difference = value - target
                if is_longitude:
                    difference = (difference + 180) % 360 - 180
                most = 1e-9 * np.maximum(1 if is_longitude else 0, np.abs(target)) + 1e-18
                if world.pair and name in (f"w{world.pair[0]}", f"w{world.pair[1]}"):
                    most = most + 1e-9
                self.assertTrue((np.abs(difference) <= most).all() or np.isnan(target).all(),
                                f"{where} {name}: {value}, not {target}")


# ---- Programs ----


def plain_world(reference=(2.0, 3.0), value=10.0):
    return [card("CTYPE1", "RA---TAN"), card("CTYPE2", "DEC--TAN"), card("CRVAL1", value),
            card("CRVAL2", 20.0), card("CRPIX1", reference[0]), card("CRPIX2", reference[1]),
            card("CDELT1", -0.01), card("CDELT2", 0.01)]


LONG = [f"{'LONGTEXT':<8}= '{'a long text ' * 5}&'".ljust(80),
        f"CONTINUE  '{'that goes on ' * 4}&' / of words".ljust(80),
        "CONTINUE  'and ends.'".ljust(80)]
ASSORTED = [card("OBJECT", "M 42"), card("EXPTIME", 12.5, "s"), card("FLAG", True), card("N", -3),
            "HIERARCH ESO DET CHIP GAIN = 1.75 / e-/ADU".ljust(80),
            "COMMENT what was seen".ljust(80),
            "HISTORY flat".ljust(80), "HISTORY flat".ljust(80), " " * 80, *LONG,
            "COMMENT".ljust(80), card("QUOTES", "it's"),
            "COMPLEX = (1.0, 2.0)".ljust(80)]


class HeaderTest(GrowingTest):
    def frame(self, name, cards=(), shape=(5, 6), to="append", dtype="int16", cube=None):
        path = self.file(random_array(self.rng, shape, dtype), cards, name=name)
        run("cp", path, (cube or self.cube) / to)
        return path

    def header(self, name="cube.fits"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return fits.getheader(self.cube / name)

    def set_header(self, text, operator=">"):
        (self.base / "text").write_text(text)
        shell(f"cat {self.base}/text {operator} {self.cube}/meta/header")


class Programs(HeaderTest):
    VIEWS = ("cube.fits", "slices/xy/z1.fits", "slices/xy/newest.fits", "slices/yx/z1.fits",
             "slices/xyz/x1..4_z1...fits", "slices/xy/x3..5_y..2_z1.fits", "slices/xyz/z0..1.fits",
             "slices/z/x3_y4.fits", "slices/x/y1_z2.fits", "slices/y/x0_z0.fits",
             "mask/xyz/x0...fits", "mask/zx/y2.fits", "slices/zyx/x0...fits",
             "slices/zx/y2.fits", "slices/zy/x5.fits")

    def check(self, cube, names, programs=("fitscopy", "imcopy")):
        for name in names:
            with self.subTest(cube.name, name=name):
                self.assertEqual(verified(cube / name), [])
                target = self.base / "copy.fits"
                for program in programs:
                    target.unlink(missing_ok=True)
                    run(program, cube / name, target)
                with warnings.catch_warnings():
                    warnings.simplefilter("error")
                    with fits.open(cube / name) as hdus:
                        hdus.verify("exception")
                        str(hdus[0].header)
                        list(hdus[0].header.values())
                        copied = read_fits(target)
                        self.assertTrue(np.array_equal(copied, hdus[0].data,
                                                       equal_nan=copied.dtype.kind == "f"))

    def test_views_of_every_type(self):
        for dtype in TYPES:
            cube = self.m.cube(f"type-{dtype}")
            for i in range(3):
                self.frame(f"{dtype}-{i}", ASSORTED + [card("NUMBER", i)], dtype=dtype, cube=cube)
            # imcopy cannot copy any file of large integers: it takes them for floating point ones.
            self.check(cube, self.VIEWS, ("fitscopy",) if dtype in ("int64", "uint64") else
                       ("fitscopy", "imcopy"))

    def test_world_coordinates(self):
        for i in range(3):
            self.frame(f"f{i}", plain_world())
        self.check(self.cube, self.VIEWS[:-3])

    def test_an_axis_that_nobody_described_in_front_of_others(self):
        for i in range(3):
            self.frame(f"f{i}", plain_world())
        self.check(self.cube, self.VIEWS[-3:])

    def test_long_names(self):
        names = ["x" * 255, "'" * 255, "q'" * 120, "ä" * 127, "&" * 66]
        for name in names:
            self.frame(name)
        self.check(self.cube, [f"slices/xy/z{i}.fits" for i in range(len(names))])

    def test_what_astropy_wrote(self):
        header = fits.Header()
        header["OBJECT"] = "long " * 40
        header["HIERARCH ESO TEL ALT"] = 33.5
        header["BLANK"] = -1
        header.add_comment("one " * 40)
        for i in range(3):
            path = self.base / f"a{i}.fits"
            fits.PrimaryHDU(random_array(self.rng, (5, 6), "int16"), header).writeto(
                path, checksum=True)
            run("cp", path, self.cube / "append")
        self.check(self.cube, self.VIEWS)
        for name in self.VIEWS:
            found = self.header(name)
            for keyword in ("CHECKSUM", "DATASUM", "BLANK", "BSCALE", "BZERO"):
                self.assertNotIn(keyword, found, name)
            if not name.startswith("mask"):
                self.assertEqual(found["OBJECT"], ("long " * 40).rstrip())
                self.assertEqual(found["ESO TEL ALT"], 33.5)


# ---- What frames have in common ----


class SharedCards(HeaderTest):
    def test_against_a_model(self):
        pool = [card("A", 1), card("A", 2), "UNDEFINE=".ljust(80), card("B", "text"),
                card("B", "other"),
                "COMMENT same".ljust(80), "COMMENT same".ljust(80), "COMMENT differs".ljust(80),
                "HISTORY one".ljust(80), "HISTORY one".ljust(80), "HISTORY two".ljust(80),
                "HIERARCH ESO X = 1".ljust(80), "HIERARCH ESO X = 2".ljust(80), "".join(LONG),
                " " * 80]
        chance = random.Random(SEED)
        kept = 0
        for turn in range(scaled(6, 2)):
            cube = self.cube = self.m.cube(f"shared{turn}")
            put(cube, "samename", "replace\n")
            frames, removed, number = {}, {}, 0  # name: cards
            opened = None
            for step in range(scaled(40, 10)):
                action = chance.choice(["append", "append", "prepend", "rm", "rm", "back",
                                        "replace", "rename", "discard", "remount"])
                if action in ("append", "prepend") or not frames:
                    name, number = f"f{number}", number + 1
                    frames[name] = self.some(chance, pool)
                    self.copy(name, frames[name], action if action == "prepend" else "append")
                elif action == "replace":
                    name = chance.choice(sorted(frames))
                    frames[name] = self.some(chance, pool)
                    self.copy(name, frames[name], "append")
                elif action == "rm" and len(frames) > 1:
                    name = chance.choice(sorted(frames))
                    run("rm", cube / "append" / name)
                    removed[name] = frames.pop(name)
                elif action == "back" and removed:
                    name = chance.choice(sorted(removed))
                    run("mv", cube / "removed" / name, cube / "append")
                    frames[name] = removed.pop(name)
                elif action == "discard" and removed:
                    name = chance.choice(sorted(removed))
                    run("rm", cube / "removed" / name)
                    del removed[name]
                elif action == "rename":
                    name, number = chance.choice(sorted(frames)), number + 1
                    run("mv", cube / "frames" / name, cube / f"frames/g{number}")
                    frames[f"g{number}"] = frames.pop(name)
                elif action == "remount" and step % 3 == 0:
                    if opened:
                        opened[0].close()
                        opened = None
                    self.m.remount()
                order = [line.split("\t")[0] for line in meta(cube, "frames").split("\n")[1:]]
                self.assertEqual(sorted(order), sorted(frames))
                expected = self.common(frames[order[0]], frames.values())
                kept += len(expected)
                found = [c for c in own_cards(cube / "cube.fits")
                         if not c.startswith("LONGSTRN")]
                self.assertEqual(found, expected, f"turn {turn}, step {step}: {action}, {order}")
                if opened:  # the header has the length that it had
                    file, head, size = opened
                    self.assertEqual(os.pread(file.fileno(), len(head), 0), head)
                    self.assertEqual(os.fstat(file.fileno()).st_size, size)
                    file.close()
                opened = None
                if chance.random() < 0.5:
                    file = open(cube / "cube.fits", "rb")
                    size = os.fstat(file.fileno()).st_size
                    opened = (file, os.pread(file.fileno(), 2880, 0), size)
            if opened:
                opened[0].close()
        self.assertGreater(kept, scaled(300, 10))

    def some(self, chance, pool):
        return [c for c in pool if chance.random() < 0.85] + [card("Z", 1)]

    def copy(self, name, cards, to):
        self.frame(name, [c[i:i + 80] for c in cards for i in range(0, len(c), 80)], to=to)

    def common(self, first, frames):
        """Cards of the first that all have, each as often as all have it."""
        seen, common = collections.Counter(), []
        for text in first:
            seen[text] += 1
            if all(f.count(text) >= seen[text] for f in frames):
                common.append(text)
        while common and not common[-1].strip():
            common.pop()
        return common

    def test_world_coordinates_go_all_or_none(self):
        self.frame("a", plain_world() + [card("OBJECT", "x")])
        self.frame("b", plain_world() + [card("OBJECT", "x")])
        self.assertEqual(self.header()["CRVAL1"], 10.0)
        self.frame("c", plain_world(value=11.0) + [card("OBJECT", "x")])
        self.assertEqual(own_cards(self.cube / "cube.fits"), [card("OBJECT", "x")])
        self.frame("d", [card("OBJECT", "x")])
        run("rm", self.cube / "frames/c")
        self.assertNotIn("CTYPE1", self.header())
        run("rm", self.cube / "frames/d")
        self.assertEqual(self.header()["CRVAL1"], 10.0)

    def test_frames_that_leave_out_what_others_have(self):
        """Their indexes are not the same, though they begin at the same one."""
        self.frame("a", plain_world())
        self.frame("strip", shape=(5, 2), to="insert/x/3")
        self.frame("b", plain_world(), shape=(5, 8), to="prepend")
        run("rm", self.cube / "frames/strip")
        self.assertEqual(shape_of(self.cube), [8, 5, 2])
        self.assertNotIn("CTYPE1", self.header())
        self.assertIn("CTYPE1", self.header("slices/xy/z0.fits"))
        self.assertNotIn("CTYPE1", self.header("slices/xy/z1.fits"))
        run("rm", self.cube / "frames/b")
        self.assertEqual(shape_of(self.cube), [6, 5, 1])
        self.assertIn("CTYPE1", self.header())

    def test_an_open_file_keeps_its_header(self):
        self.frame("a", [card("OBJECT", "x")])
        with open(self.cube / "cube.fits", "rb") as file:
            before = file.read()
            run("bash", "-c", f"for i in $(seq 100); do echo \"KEY$i = $i\"; done > "
                f"{self.cube}/meta/header")
            self.assertEqual(self.header()["KEY100"], 100)
            self.assertGreater((self.cube / "cube.fits").stat().st_size, len(before))
            self.assertEqual(os.fstat(file.fileno()).st_size, len(before))
            self.assertEqual(os.pread(file.fileno(), 1 << 20, 0), before)

    def test_a_removal_reads_one_header(self):
        def rchar():
            with open(f"/proc/{self.m.pid}/io", encoding="ascii") as lines:
                return int(next(l for l in lines if l.startswith("rchar")).split()[1])

        read = {}
        for count in (100, scaled(1000, 200)):
            cube = self.m.cube(f"cost{count}")
            data = fits_bytes(np.zeros((2, 3), "int16"), [card(f"KEY{i}", i) for i in range(200)])
            for i in range(count):
                (cube / f"append/f{i:05}").write_bytes(data)
            (cube / "cube.fits").stat()
            before = rchar()
            for i in range(10, 20):
                os.unlink(cube / f"append/f{i:05}")
                self.assertIn("KEY199", fits.getheader(cube / "cube.fits"))
            read[count] = (rchar() - before) / 10
        print(f"bytes read for each removal: {read}")
        few, many = read.values()
        self.assertLess(many, 1.5 * few + 20000)


# ---- meta/header ----


class OwnCards(HeaderTest):
    def test_set_append_and_replace(self):
        self.frame("a", [card("OBSERVER", "of the frame"), card("GAIN", 2)])
        shell(f"""echo "OBJECT  = 'M42'" > {self.cube}/meta/header""")
        self.assertEqual(meta(self.cube, "header"), "OBJECT  = 'M42'")
        self.assertEqual(self.header()["OBJECT"], "M42")
        shell(f"""echo "OBSERVER = 'me' / who" >> {self.cube}/meta/header""")
        shell(f"""echo "OBJECT='M43'" >> {self.cube}/meta/header""")
        shell(f"""echo "COMMENT one" >> {self.cube}/meta/header""")
        shell(f"""echo "COMMENT one" >> {self.cube}/meta/header""")
        self.assertEqual(meta(self.cube, "header").split("\n"),
                         ["OBJECT  = 'M43'", "OBSERVER= 'me' / who", "COMMENT one", "COMMENT one"])
        found = self.header()
        self.assertEqual([found["OBJECT"], found["OBSERVER"], found["GAIN"]], ["M43", "me", 2])
        self.assertEqual(found.count("OBSERVER"), 1)
        plane = self.header("slices/xy/z0.fits")
        self.assertEqual(plane["OBSERVER"], "of the frame")
        self.assertNotIn("OBJECT", plane)
        shell(f": > {self.cube}/meta/header; echo 'A = 1' > {self.cube}/meta/header")
        self.assertEqual(own_cards(self.cube / "cube.fits"),
                         [card("OBSERVER", "of the frame"), card("GAIN", 2), card("A", 1)])
        self.assertEqual(verified(self.cube / "cube.fits"), [])

    def test_hierarch_is_known_by_all_its_words(self):
        self.frame("a", ["HIERARCH ESO A = 1".ljust(80), "HIERARCH ESO B = 1".ljust(80)])
        self.set_header("HIERARCH ESO A = 2\n")
        self.set_header("HIERARCH ESO C = 3\n", ">>")
        self.set_header("HIERARCH ESO C = 4\n", ">>")
        found = self.header()
        self.assertEqual([found[f"ESO {n}"] for n in "ABC"], [2, 1, 4])
        self.assertEqual(meta(self.cube, "header").count("ESO C"), 1)

    def test_as_an_editor_writes(self):
        self.frame("a")
        self.set_header("OBJECT  = 'M42'\nEXPTIME = 3.5 / s\n")
        text = meta(self.cube, "header").replace("M42", "M43") + "\n"
        file = os.open(self.cube / "meta/header", os.O_WRONLY | os.O_TRUNC)
        self.assertEqual(os.write(file, text.encode()), len(text))
        os.fsync(file)
        os.close(file)
        self.assertEqual(self.header()["OBJECT"], "M43")
        if shutil.which("vim"):
            run("vim", "-u", "NONE", "-es", "-n", "-c", "%s/M43/M44/", "-c", "w!", "-c", "qa!",
                self.cube / "meta/header", stdin=subprocess.DEVNULL)
            self.assertEqual(self.header()["OBJECT"], "M44")

    def test_cards_without_line_ends(self):
        self.frame("a")
        cards = [card("OBJECT", "M42"), card("EXPTIME", 3.5, "s"), *LONG, "COMMENT x".ljust(80),
                 " " * 80, card("N", 3), "END".ljust(80)]
        self.set_header("".join(cards).ljust(2880))
        self.assertEqual([c for c in own_cards(self.cube / "cube.fits")
                          if not c.startswith("LONGSTRN")],
                         [*cards[:2], "".join(LONG), *cards[5:8]])
        self.assertEqual(verified(self.cube / "cube.fits"), [])
        path = self.frame("b", [c for c in cards if not c.startswith("END")])
        whole = "".join(raw_cards(path))
        self.assertEqual(errno_of(put, self.cube, "header", whole), "EPERM")
        # As a user takes the structure off.
        without = "\n".join(c for c in raw_cards(path) if not STRUCTURE.match(c[:8]))
        self.set_header(without)
        self.assertEqual(self.header()["N"], 3)

    def test_bad_ones(self):
        self.frame("a")
        self.set_header("OBJECT = 'x'\n")
        for text, word in {
                "lower = 3": "keyword", "hello": "keyword", " OBJECT = 'x'": "keyword",
                "= 3": "keyword", "COMMENT='x'": "keyword", "TOOLONGKEY = 3": "keyword",
                "K": "form", "K 3": "form", "HIERARCH": "form", "HIERARCH = 3": "form",
                "HIERARCH ESO A": "form", "K =": "value", "K = 1 2": "value", "K = nan": "value",
                "K = 0x10": "value", "K = word": "value", "K = 'abc": "end|value",
                "K = 'abc' def": "value", "K = 'it's'": "value", "HIERARCH ESO A = x": "value",
                "K = '" + "x" * 70 + "'": "80 characters", "COMMENT " + "x" * 73: "80 characters",
                "COMMENT \t": "allow", "COMMENT ä": "allow", "CONTINUE  'x'": "continue",
                "K = 'a'\nCONTINUE  'x'": "continue", "K = 'a&'\nCONTINUE  x": "continue"}.items():
            with self.subTest(text):
                for operator in (">", ">>"):
                    (self.base / "text").write_text(text + "\n")
                    said = fails("bash", "-c",
                                 f"cat {self.base}/text {operator} {self.cube}/meta/header",
                                 because=errno.EINVAL)
                    self.assertIn("cat", said)
                    self.assertRegex(last_error(self.cube), word)
                    self.assertIn(text.split("\n")[-1][:8].rstrip(), last_error(self.cube))
        for keyword in ("SIMPLE", "BITPIX", "NAXIS", "NAXIS1", "EXTEND", "BSCALE", "BZERO", "BLANK",
                        "CHECKSUM", "DATASUM", "PCOUNT", "GCOUNT", "XTENSION", "ACRFRAME", "LTV1",
                        "LTM1_1", "LTM2_2"):
            with self.subTest(keyword):
                self.assertEqual(errno_of(put, self.cube, "header", f"{keyword} = 1\n"), "EPERM")
                self.assertIn(keyword, last_error(self.cube))
        self.assertEqual(errno_of(put, self.cube, "header", "COMMENT x\n" * 801), "EINVAL")
        self.assertEqual(meta(self.cube, "header"), "OBJECT  = 'x'")
        self.assertEqual(verified(self.cube / "cube.fits"), [])

    def test_in_any_order(self):
        self.frame("a")
        self.set_header("A = 1\nB = 2\nA = 3\n")  # of a keyword twice the last counts
        self.assertEqual(self.header()["A"], 3)
        self.assertEqual(verified(self.cube / "cube.fits"), [])
        # WCSAXES has to be in front.
        self.set_header(f"OBJECT = 'x'\n{self.SKY}CTYPE3 = 'FREQ'\nCRPIX3 = 1.0\nCRVAL3 = 1.0\n")
        self.set_header("CTYPE1A = 'TIME'\nWCSAXES = 3\nWCSAXESA= 3\n", ">>")
        self.assertEqual(verified(self.cube / "cube.fits"), [])
        keywords = [k.split()[0] for k in meta(self.cube, "header").split("\n")]
        self.assertEqual(keywords[:3], ["OBJECT", "WCSAXES", "CTYPE1"])
        self.assertEqual(keywords[-2:], ["WCSAXESA=", "CTYPE1A"])

    def test_survives(self):
        self.frame("a", plain_world())
        text = "OBJECT  = 'M42'\nCTYPE3  = 'FREQ'\nCRPIX3  = 1.0\nCRVAL3  = 5.0\nCDELT3  = 1.0\n"
        self.set_header(text)
        self.frame("b", plain_world(), to="prepend")
        before = own_cards(self.cube / "cube.fits")
        said = meta(self.cube, "header")
        self.m.remount()
        self.assertEqual(own_cards(self.cube / "cube.fits"), before)
        self.set_header("FILTER = 'Ha'\n", ">>")
        file = os.open(self.cube, os.O_RDONLY)
        os.fsync(file)
        os.close(file)
        self.m.kill()
        self.m.start()
        self.assertEqual(meta(self.cube, "header"), said + "\nFILTER  = 'Ha'")
        self.assertEqual(self.header()["FILTER"], "Ha")

    SKY = "".join(c.rstrip() + "\n" for c in plain_world())

    def test_world_coordinates_follow_what_comes_in_front(self):
        for defined in (True, False):
            with self.subTest(defined=defined):
                self.cube = self.m.cube(f"front-{defined}")
                if defined:
                    self.frame(f"a{defined}")
                self.set_header(self.SKY)
                if not defined:
                    self.frame(f"a{defined}")
                self.frame(f"s{defined}", shape=(5, 4), to="prepend/x")
                self.assertEqual(self.header()["CRPIX1"], 6.0)
                self.frame(f"b{defined}", shape=(5, 4), to="append/x")
                self.assertEqual(self.header()["CRPIX1"], 6.0)
                self.assertEqual(self.header("slices/xy/z0.fits")["CRPIX1"], 6.0)
                self.assertEqual(self.header("slices/yx/x3.._z0.fits")["CRPIX2"], 3.0)
                self.frame(f"i{defined}", shape=(5, 1), to="insert/x/7")
                self.assertNotIn("CTYPE1", self.header())
                self.assertNotIn("CTYPE1", self.header("slices/xy/z0.fits"))
                run("rm", self.cube / f"frames/i{defined}")
                self.assertEqual(self.header()["CRPIX1"], 6.0)

    def test_it_counts_from_when_it_is_set(self):
        self.frame("a")
        with open(self.cube / "cube.fits", "rb"):
            self.set_header(self.SKY)
            self.frame("i", shape=(5, 1), to="insert/x/2")
            with open(self.cube / "cube.fits", "rb"):  # the kernel keeps what it knows
                self.assertNotIn("CTYPE1", self.header())
                self.set_header(self.SKY)
                self.assertEqual(self.header()["CRPIX1"], 2.0)

    def test_a_text_in_blocks_is_set_whole(self):
        lines = [f"K{i:<7}= {i:>20} / number {i}" for i in range(300)]
        text = "\n".join(lines) + "\n"
        source = self.enterContext(temporary_directory()) / "header"
        for block in (512, 4096, 1 << 20):
            for dump in (False, True):
                with self.subTest(block, dump=dump):
                    source.write_text("".join(f"{line:80}" for line in lines) if dump else text)
                    self.set_header("OLD = 1\n")
                    run("dd", f"if={source}", f"of={self.cube}/meta/header", f"bs={block}",
                        "conv=notrunc", "status=none")
                    self.assertEqual(meta(self.cube, "header"), text.rstrip("\n"))
        # A bad line anywhere changes nothing.
        source.write_text(text + "no card\n")
        self.assertNotEqual(run("dd", f"if={source}", f"of={self.cube}/meta/header", "bs=512",
                                "conv=notrunc", "status=none", check=False).returncode, 0)
        self.assertEqual(meta(self.cube, "header"), text.rstrip("\n"))

    def test_adding_a_card_moves_nothing(self):
        self.frame("a")
        self.set_header(self.SKY)
        self.frame("s", shape=(5, 4), to="prepend/x")
        self.set_header("OBJECT = 'x'\n", ">>")
        self.assertEqual(self.header()["CRPIX1"], 6.0)

    def test_it_replaces_a_description_of_the_frames(self):
        self.frame("a", plain_world() + [card("CTYPE1A", "LINEAR"), card("CRPIX1A", 1.0)])
        self.set_header("CTYPE1 = 'GLON-CAR'\nCTYPE2 = 'GLAT-CAR'\nCRPIX1 = 1.0\nCRPIX2 = 1.0\n")
        found = self.header()
        self.assertEqual(found["CTYPE1"], "GLON-CAR")
        self.assertEqual(found["CRVAL1"], 0.0)
        self.assertEqual(found["CTYPE1A"], "LINEAR")
        plane = self.header("slices/xy/z0.fits")
        self.assertEqual([plane["CTYPE1"], plane["CRVAL1"]], ["RA---TAN", 10.0])

    def test_planes_of_frames_without_a_description(self):
        self.frame("a")
        self.frame("b", plain_world(value=50.0))
        self.set_header(self.SKY + "CTYPE3 = 'FREQ'\nCRPIX3 = 1.0\nCRVAL3 = 7.0\nOBJECT = 'x'\n")
        plane = self.header("slices/xy/z0.fits")
        self.assertEqual([plane["CRVAL1"], plane["CRPIX2"]], [10.0, 3.0])
        self.assertNotIn("OBJECT", plane)
        self.assertNotIn("CTYPE3", plane)
        self.assertEqual(self.header("slices/xy/z1.fits")["CRVAL1"], 50.0)
        self.frame("c", to="prepend")
        self.assertEqual(self.header()["CRPIX3"], 2.0)


# ---- What says of the image ----


class OfTheImage(HeaderTest):
    def test_physical_coordinates_are_the_cubes_indexes(self):
        self.frame("a", [card("LTV1", 50.0), card("LTM1_1", 2.0), card("LTM1_2", 0.5)])
        self.frame("b")
        for name, begins in {"cube.fits": [0, 0, 0], "slices/xy/z1.fits": [0, 0],
                             "slices/yx/x2..4_y1..3_z0.fits": [1, 2], "slices/z/x3_y2.fits": [0],
                             "slices/xyz/x3.._z1...fits": [3, 0, 1]}.items():
            with self.subTest(name):
                found = self.header(name)
                self.assertEqual([(1 - found[f"LTV{i}"]) / found[f"LTM{i}_{i}"]
                                  for i in range(1, len(begins) + 1)], begins)
                self.assertEqual(len(found["LT*"]), 2 * len(begins))

    def test_sections_are_kept_on_whole_planes(self):
        sections = [card("TRIMSEC", "[1:3,2:4]"), card("BIASSEC", "[4:6,1:5]"),
                    card("SECTION", "north"), card("EXPSEC", 30)]
        self.frame("a", sections)
        self.frame("b", sections, shape=(1, 5, 6))
        for name, kept in {"slices/xy/z0.fits": 4, "slices/xy/z1.fits": 4, "slices/yx/z0.fits": 2,
                           "slices/xy/x1.._z0.fits": 2, "slices/xy/y..4_z1.fits": 2,
                           "slices/x/y1_z0.fits": 2, "slices/zx/y0.fits": 2}.items():
            with self.subTest(name):
                self.assertEqual(len([k for k in self.header(name) if "SEC" in k]), kept)
        self.frame("s", shape=(5, 1), to="prepend/x")
        self.assertNotIn("TRIMSEC", self.header("slices/xy/z0.fits"))

    def test_names_of_frames(self):
        names = ["it's", "ä.fits", "x" * 255, "q'" * 127, "€" * 85, "y" * 68, "a&", "two  words"]
        for name in names:
            self.frame(name)
        for z, name in enumerate(names):
            with self.subTest(name):
                shown = "".join(chr(b) if 32 <= b < 127 else "?" for b in name.encode())
                self.assertEqual(self.header(f"slices/xy/z{z}.fits")["ACRFRAME"], shown)
                self.assertEqual(self.header(f"slices/y/x1_z{z}.fits")["ACRFRAME"], shown)
        self.assertNotIn("ACRFRAME", self.header())
        run("mv", self.cube / "frames/a&", self.cube / "frames/renamed")
        self.assertEqual(self.header("slices/xy/z6.fits")["ACRFRAME"], "renamed")
        # A view's own card is not a frame's.
        run("cp", self.cube / "slices/xy/z6.fits", self.base / "again.fits")
        run("cp", self.base / "again.fits", self.cube / "append")
        found = self.header("slices/xy/newest.fits")
        self.assertEqual([found["ACRFRAME"], found.count("ACRFRAME")], ["again.fits", 1])

    def test_there_is_room(self):
        for count in range(0, 80, 3):
            cube = self.cube = self.m.cube(f"room{count}")
            self.frame(f"room-{count}", [card(f"KEY{i}", i) for i in range(count)])
            for name in ("cube.fits", "slices/xy/z0.fits", "slices/z/x1_y1.fits",
                         "mask/xy/z0.fits"):
                cards = raw_cards(cube / name)
                self.assertEqual(len(cards) % 36, 0)
                self.assertEqual(cards[-1], "END".ljust(80))
                self.assertTrue(all(c == " " * 80 for c in cards[-37:-1]), name)
                self.assertLess(len(cards), len(own_cards(cube / name)) + 36 + 36 + 16)

    def test_a_header_that_is_edited(self):
        path = self.frame("a", plain_world() + [card("OBJECT", "x"), card("OLD", 1)])
        self.frame("b", plain_world() + [card("OBJECT", "x")])
        for count in (100, 300):  # too many for the blocks that there are: astropy makes a new file
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with fits.open(self.cube / "append/a", mode="update") as hdus:
                    header = hdus[0].header
                    header["OBJECT"] = f"edited {count}"
                    header.remove("OLD", ignore_missing=True)
                    for i in range(count):
                        header[f"NEW{i}"] = i
            plane = self.header("slices/xy/z0.fits")
            self.assertEqual([plane["OBJECT"], plane[f"NEW{count - 1}"]],
                             [f"edited {count}", count - 1])
            self.assertNotIn("OLD", plane)
            self.assertEqual([plane["ACRFRAME"], plane["CRVAL1"]], ["a", 10.0])
            self.assertNotIn("OBJECT", self.header())
            self.assertEqual(self.header()["CRVAL1"], 10.0)
            self.assertEqual(self.header("slices/xy/z1.fits")["OBJECT"], "x")
        self.assertTrue(np.array_equal(read_fits(self.cube / "slices/xy/z0.fits"),
                                       read_fits(path)))

    def test_a_frame_with_another_header(self):
        path = self.frame("a", [card("OBJECT", "x")])
        self.frame("b", [card("OBJECT", "x")])
        put(self.cube, "samename", "replace\n")
        data = read_fits(path)
        for turn in range(3):
            with open(self.cube / "slices/xy/z0.fits", "rb") as old:
                before = old.read()
                cards = [card("OBJECT", f"x{turn}")] + [card(f"K{i}", i) for i in range(50 * turn)]
                path.write_bytes(fits_bytes(data, cards))
                run("cp", path, self.cube / "append")
                self.assertEqual(self.header("slices/xy/z0.fits")["OBJECT"], f"x{turn}")
                self.assertEqual(shape_of(self.cube), [6, 5, 2])
                self.assertEqual(os.pread(old.fileno(), 1 << 20, 0), before)


if __name__ == "__main__":
    mounted.main()
