"""Each pixel of a mapped image has the world coordinates of the pixel it is, as astropy reads both.

ACCRETE_SEED=N repeats a run; ACCRETE_CASES=N makes it longer.
"""
import dataclasses
import os
import random
import subprocess
import unittest
import warnings

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

MAP_WCS = os.environ.get("MAP_WCS", "map_wcs")
SEED = int(os.environ.get("ACCRETE_SEED", "20240915"))
CASES = int(os.environ.get("ACCRETE_CASES", "400"))

SPECTRAL = {"FREQ": ("Hz", 1.4e9, 1e5), "WAVE": ("m", 5e-7, 1e-10), "VELO": ("m/s", 1e5, 500.0),
            "FREQ-W2F": ("Hz", 1.4e9, 1e5), "WAVE-F2W": ("m", 5e-7, 1e-11)}
PAIRS = (("RA---", "DEC--"), ("GLON-", "GLAT-"), ("ELON-", "ELAT-"), ("HPLN-", "HPLT-"))


@dataclasses.dataclass
class Alternate:
    """One description and what a mapping must know of it."""
    letter: str
    kinds: list                 # of each world axis: lon, lat, spectral, stokes, linear, none
    steps: list                 # how much each coordinate changes per pixel, about
    cards: list = dataclasses.field(default_factory=list)
    couplings: set = dataclasses.field(default_factory=set)
    carded: set = dataclasses.field(default_factory=set)  # axes with cards
    count: int = 0              # of axes, by the numbers in keywords
    sip: bool = False
    tpv: bool = False

    def put(self, keyword, value, axis=None):
        self.cards.append((keyword + self.letter.strip(), value))
        if axis is not None:
            self.carded.add(axis)
            self.count = max(self.count, axis + 1)

    def put_element(self, stem, i, j, value):
        self.put(f"{stem}{i + 1}_{j + 1}", value)
        self.count = max(self.count, i + 1, j + 1)
        if i == j or value != 0:  # no axis has a 0 between two for its own
            self.carded |= {i, j}
        if i != j and value != 0:
            self.couplings.add((i, j))

    def linked(self, axis):
        """All axes that depend on this one, itself too."""
        found, todo = {axis}, [axis]
        while todo:
            at = todo.pop()
            for pair in self.couplings:
                if at in pair:
                    todo += set(pair) - found
                    found |= set(pair)
        return found


@dataclasses.dataclass
class Case:
    naxis: int
    alternates: list
    lines: list                 # the cards, with others between them
    axes: list = None           # (source or None, begin)
    fixed: dict = None
    broken: list = None

    def is_identity(self):
        return (not self.fixed and not self.broken and
                all(axis == (d, 0) for d, axis in enumerate(self.axes)))


def card(keyword, value, comment=""):
    return fits.Card(keyword, value, comment).image


def put_linear(rng, alt, steps):
    """PCi_j, CDi_j, CROTAi or CDELTi alone."""
    n = len(alt.kinds)
    lon, lat = (alt.kinds.index(k) if k in alt.kinds else None for k in ("lon", "lat"))
    mode = "cd" if alt.tpv else rng.choice(("cd", "pc", "crota", "plain"))
    matrix = np.eye(n)
    shown = {(i, i) for i in range(n) if rng.random() < 0.7 or mode == "cd"}
    blocks = [(lon, lat)] if lon is not None else []
    others = [i for i in range(n) if alt.kinds[i] in ("linear", "spectral", "stokes")]
    if len(others) > 1 and rng.random() < 0.4:
        blocks.append(tuple(rng.sample(others, 2)))
    if lon is not None and others and not alt.sip and rng.random() < 0.15:
        blocks.append((lon, rng.choice(others)))
    for i, j in blocks:
        a = np.radians(rng.uniform(-180, 180))
        turn = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
        if rng.random() < 0.3:
            turn = np.array([[1, rng.uniform(-0.4, 0.4)], [0, 1]])
        matrix[np.ix_((i, j), (i, j))] = turn
        shown |= {(i, j), (j, i), (i, i), (j, j)}
    if n > 1 and rng.random() < 0.5:  # a 0 that is told
        pair = tuple(rng.sample(range(n), 2))
        shown.add(pair)
    if mode == "cd":
        if n > 2 and rng.random() < 0.2:  # an axis that CDi_j do not tell of
            gone = rng.choice([i for i in range(n)])
            if all(gone not in b for b in blocks) and alt.kinds[gone] not in ("lon", "lat"):
                shown = {e for e in shown if gone not in e}
        if not shown:
            shown = {(0, 0)}
        for i, j in sorted(shown, key=lambda _: rng.random()):
            alt.put_element("CD", i, j, float(matrix[i, j] * steps[i]))
    if mode != "cd" or rng.random() < 0.2:
        for i in range(n):
            if alt.kinds[i] != "none" and (alt.kinds[i] != "linear" or rng.random() < 0.8):
                alt.put(f"CDELT{i + 1}", steps[i], i)
    if mode == "pc":
        for i, j in sorted(shown, key=lambda _: rng.random()):
            alt.put_element("PC", i, j, float(matrix[i, j]))
    if mode == "crota" or (mode == "cd" and rng.random() < 0.1):
        for i in range(n):
            if i == lat or rng.random() < 0.2:
                alt.put(f"CROTA{i + 1}", rng.choice((0.0, 90.0, -180.0, rng.uniform(-180, 180))), i)


def make_alternate(rng, letter, naxis):
    n = max(1, naxis + rng.choice((-1, 0, 0, 0, 0, 1, 1, 2)))
    kinds = [rng.choice(("spectral", "stokes", "linear", "linear", "none")) for _ in range(n)]
    if kinds.count("spectral") > 1:
        kinds = ["linear" if k == "spectral" else k for k in kinds]
    flavour = rng.random()
    if n >= 2 and flavour < 0.75:
        if flavour < 0.3:
            lon, lat = 0, 1
        else:
            lon, lat = rng.sample(range(n), 2)
        kinds[lon], kinds[lat] = "lon", "lat"
    alt = Alternate(letter, kinds, [1.0] * n)
    steps = alt.steps
    projected = "lon" in kinds
    if projected:
        alt.couplings.add((lon, lat))
    alt.tpv = projected and letter == " " and flavour < 0.1
    alt.sip = (projected and letter == " " and 0.1 <= flavour < 0.2 and naxis >= 2)
    if n > naxis or rng.random() < 0.4:
        alt.put("WCSAXES", n)
    system = rng.choice(PAIRS)
    code = "TPV" if alt.tpv else "TAN-SIP" if alt.sip else rng.choice(("TAN", "SIN", "CAR", "ZEA"))
    plain = projected and not (alt.tpv or alt.sip) and system[0][4] == "-" and rng.random() < 0.08
    for i, kind in enumerate(kinds):
        if kind == "none":
            continue
        ctype, unit, value = f"LIN{i}", "", rng.uniform(-50, 50)
        steps[i] = rng.choice((-1, 1)) * rng.uniform(0.1, 3)
        if kind in ("lon", "lat"):
            ctype, unit = system[kind == "lat"] + code, "deg"
            if plain:
                ctype = ctype[:4].rstrip("-")
            value = rng.uniform(0, 360) if kind == "lon" else rng.uniform(-60, 60)
            steps[i] = rng.choice((-1, 1)) * rng.uniform(1e-4, 1e-3)
        elif kind == "spectral":
            ctype = rng.choice(list(SPECTRAL))
            unit, value, step = SPECTRAL[ctype]
            value *= rng.uniform(1, 1.5)
            steps[i] = step * rng.uniform(0.5, 1)
        elif kind == "stokes":
            ctype, value, steps[i] = "STOKES", 1.0, 1.0
        alt.put(f"CTYPE{i + 1}", ctype, i)
        if kind != "linear" or rng.random() < 0.8:
            alt.put(f"CRPIX{i + 1}", rng.choice((1.0, 50, rng.uniform(-20, 120))), i)
        if kind != "linear" or rng.random() < 0.8:
            alt.put(f"CRVAL{i + 1}", value, i)
        if unit:
            alt.put(f"CUNIT{i + 1}", unit, i)
        if rng.random() < 0.2:
            alt.put(f"CNAME{i + 1}", f"name of {i}", i)
    put_linear(rng, alt, steps)
    if projected:
        if code != "CAR" and rng.random() < 0.3:
            alt.put("LONPOLE", rng.uniform(0, 360))
        if rng.random() < 0.3:
            alt.put("RADESYS", "FK5")
            alt.put("EQUINOX", 2000.0)
        if code == "SIN" and rng.random() < 0.5:
            alt.put(f"PV{lat + 1}_1", 0.01, lat)
            alt.put(f"PV{lat + 1}_2", -0.02, lat)
        if code == "CAR" and rng.random() < 0.5:
            alt.put(f"PV{lon + 1}_1", 0.0, lon)
            alt.put(f"PV{lon + 1}_2", 0.0, lon)
    if alt.tpv:
        for i, own in ((lon, 1.0), (lat, 1.01)):
            alt.put(f"PV{i + 1}_1", own, i)
            alt.put(f"PV{i + 1}_2", rng.uniform(-0.01, 0.01), i)
            alt.put(f"PV{i + 1}_4", rng.uniform(-0.1, 0.1), i)
            alt.put(f"PV{i + 1}_5", rng.uniform(-0.1, 0.1), i)
    if alt.sip:
        alt.couplings.add((0, 1))
        for stem in "AB":
            alt.put(f"{stem}_ORDER", 3)
            for p, q in ((2, 0), (1, 1), (0, 2), (3, 0), (1, 2)):
                if rng.random() < 0.7:
                    alt.put(f"{stem}_{p}_{q}", rng.uniform(-1e-5, 1e-5))
    if "spectral" in kinds:
        alt.put("RESTFRQ", 1.42e9)
        alt.put("SPECSYS", "LSRK")
    if n <= naxis and not any(keyword.startswith("WCSAXES") for keyword, _ in alt.cards):
        del kinds[alt.count:]  # axes beyond the description
    rng.shuffle(alt.cards)
    alt.cards.sort(key=lambda item: not item[0].startswith("WCSAXES"))
    return alt


def make_case(seed):
    rng = random.Random(seed)
    naxis = rng.randint(1, 4)
    alternates = [make_alternate(rng, " ", naxis)]
    if rng.random() < 0.4:
        alternates.append(make_alternate(rng, rng.choice("ABZ"), naxis))
    lines = [card("OBJECT", "a field", "not of the coordinates")]
    for alt in alternates:
        for keyword, value in alt.cards:
            lines.append(card(keyword, value, rng.choice(("", "a comment"))))
            if rng.random() < 0.1:
                lines.append(card("COMMENT", f"{len(lines)}"))
    lines.append(card("MJD-OBS", 60000.5))
    case = Case(naxis, alternates, lines)
    if rng.random() < 0.05:
        case.axes, case.fixed, case.broken = [(d, 0) for d in range(naxis)], {}, []
        return case
    order = rng.sample(range(naxis), naxis)
    if rng.random() < 0.5:
        order.sort()
    spanned = [s for s in order if rng.random() < 0.7]
    if alternates[0].sip and rng.random() < 0.6:  # where its axes stay the first ones
        spanned = rng.sample((0, 1), 2) + [s for s in spanned if s > 1]
    case.axes = [(s, rng.choice((0, 0, rng.randint(-30, 100)))) for s in spanned]
    case.fixed = {s: rng.choice((0, rng.randint(0, 100))) for s in range(naxis) if s not in spanned}
    for _ in range(rng.choice((0, 0, 0, 1, 2))):
        case.axes.insert(rng.choice((0, len(case.axes), len(case.axes))), (None, 0))
    if not case.axes:
        case.axes = [(None, 0)]
    case.broken = [s for s in spanned if rng.random() < 0.06]
    return case


def run_all(cases):
    text = []
    for case in cases:
        text.append(f"{len(case.axes)} {len(case.fixed)} {len(case.broken)} {len(case.lines)}")
        text += [f"{-1 if s is None else s} {begin}" for s, begin in case.axes]
        text += [f"{s} {index}" for s, index in case.fixed.items()]
        text += [f"{s}" for s in case.broken]
        text += case.lines
    done = subprocess.run([MAP_WCS], input="\n".join(text) + "\n", capture_output=True, text=True,
                          check=True)
    lines = iter(done.stdout.split("\n"))
    return [[next(lines) for _ in range(int(next(lines)))] for _ in cases]


def read(lines, pixel_axes, letter, **options):
    begin = [card("SIMPLE", True), card("BITPIX", -32), card("NAXIS", pixel_axes)]
    begin += [card(f"NAXIS{i + 1}", 100) for i in range(pixel_axes)]
    if letter != " ":  # astropy looks for the primary's SIP in all alternates
        lines = [line for line in lines if not line.startswith(("A_", "B_"))]
    return WCS(fits.Header.fromstring("".join(begin + lines)), key=letter, **options)


def keywords_of(lines, letter):
    """Of the alternate's cards, told by their last character: no keyword else here ends so."""
    words = [line[:8].rstrip() for line in lines]
    words = [w for w in words if w not in ("OBJECT", "COMMENT", "MJD-OBS")]
    if letter == " ":
        return [w for w in words if w[-1] not in "ABZ" or w in ("A", "B")]
    return [w for w in words if w[-1] == letter]


class WcsProperty(unittest.TestCase):
    def check(self, case, lines):
        if case.is_identity():
            self.assertEqual(lines, case.lines)
            return
        for line in lines:
            self.assertEqual(len(line), 80)
        others = [[line for line in cards if line.startswith(("OBJECT", "COMMENT", "MJD-OBS"))]
                  for cards in (case.lines, lines)]
        self.assertEqual(*others)
        for alt in case.alternates:
            with self.subTest(alternate=alt.letter):
                try:
                    self.check_alternate(case, alt, lines)
                except Exception:
                    print("\n", case.naxis, case.axes, case.fixed, case.broken)
                    print(*case.lines, "gave", *lines, sep="\n")
                    raise

    def places(self, case, alt):
        """For each old axis its new one, or None; and how many new ones there are."""
        n = len(alt.kinds)
        state = {i: "degenerate" for i in range(n)}
        state.update({s: "fixed" for s in case.fixed})
        state.update({s: "spanned" for s, _ in case.axes if s is not None})
        state.update({s: "broken" for s in case.broken})
        to, count = {}, len(case.axes)
        for i in range(n):
            states = {state[k] for k in alt.linked(i)}
            if "broken" in states or states == {"fixed"}:
                continue
            if state[i] == "spanned":
                to[i] = [s for s, _ in case.axes].index(i)
            else:
                to[i] = count
                count += 1
        return to, count

    def check_alternate(self, case, alt, lines):
        words = keywords_of(lines, alt.letter)
        self.assertEqual(len(words), len(set(words)), words)
        to, count = self.places(case, alt)
        whole = bool(alt.carded & set(to))
        if alt.sip and [s for s, _ in case.axes[:2]] not in ([0, 1], [1, 0]):
            whole = False
        if alt.sip and set(case.broken) & {0, 1}:
            whole = False
        if alt.tpv and any(to.get(i) != i for i in (alt.kinds.index("lon"), alt.kinds.index("lat"))):
            whole = False
        if not whole:
            self.assertEqual(words, [])
            return
        self.assertTrue(words)
        if any(w.startswith("WCSAXES") for w in words):
            self.assertTrue(words[0].startswith("WCSAXES"), words)
        else:
            self.assertEqual(count, len(case.axes))
        elements = [w[2:].rstrip(alt.letter).split("_") for w in words if w.startswith("CD") and
                    "_" in w]
        if elements:  # astropy would forgive an axis without any
            self.assertEqual({int(n) for e in elements for n in e}, set(range(1, count + 1)))

        options = {"naxis": 2} if alt.sip else {}
        old = read(case.lines, case.naxis, alt.letter, **options)
        new = read(lines, len(case.axes), alt.letter, **options)
        if not alt.sip:
            self.assertEqual(new.naxis, count)
            self.assertEqual(old.naxis, max(len(alt.kinds), case.naxis))
        rng = np.random.default_rng(len(lines))
        there = np.zeros((20, count))
        there[:, :len(case.axes)] = rng.integers(0, 90, (20, len(case.axes)))
        here = np.zeros((20, max(len(alt.kinds), case.naxis)))
        for s, index in case.fixed.items():
            here[:, s] = index
        for d, (s, begin) in enumerate(case.axes):
            if s is not None:
                here[:, s] = there[:, d] + begin
        want = old.all_pix2world(here[:, :old.naxis], 0)
        got = new.all_pix2world(there[:, :new.naxis], 0)
        for i, d in to.items():
            if i >= old.naxis or d >= new.naxis:
                continue
            difference = got[:, d] - want[:, i]
            if alt.kinds[i] == "lon":
                difference = (difference + 180) % 360 - 180
            limit = 1e-8 * abs(alt.steps[i]) + 1e-13 * np.abs(want[:, i])
            bad = ~(np.abs(difference) <= limit) & ~(np.isnan(got[:, d]) & np.isnan(want[:, i]))
            self.assertFalse(bad.any(), (i, d, want[:, i], got[:, d]))
        for d in set(range(new.naxis)) - set(to.values()):  # the defaults
            np.testing.assert_allclose(got[:, d], there[:, d] + 1)

    def test_random_headers_and_maps(self):
        print(f"ACCRETE_SEED={SEED}", flush=True)
        cases = [make_case(SEED * 1000003 + k) for k in range(CASES)]
        for k, (case, lines) in enumerate(zip(cases, run_all(cases))):
            with self.subTest(seed=SEED, case=k), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.check(case, lines)


if __name__ == "__main__":
    import logging
    logging.getLogger("astropy").setLevel(logging.ERROR)
    unittest.main(verbosity=2)
