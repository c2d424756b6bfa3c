"""Files that are cut off, lie about themselves or are made to do harm, odd names, and programs that
end in the middle: each is refused with its errno and a sentence, or taken, and nothing is left behind.
What a single bit does to packed files: test_corpus.py."""
import errno
import gzip
import io
import os
import re
import resource
import signal
import subprocess
import time
import unittest
import warnings
import zlib

import mounted
import numpy as np
from astropy.io import fits
from frames import FITS_TYPES, fits_bytes, generator, npy_bytes
from mounted import (Mounted, errno_of, last_error, meta, run, scaled, temporary_directory, wait_until)
from refusals import Refusals, blocks_of, events_of, resources_of

BLOCK = 2880
FRAME = np.arange(35, dtype="float64").reshape(5, 7)


# ---- FITS ----

def card(keyword, value):
    return f"{keyword:<8}= {value:>20}".ljust(80)


def header_bytes(*cards, end="END"):
    text = "".join(c.ljust(80) for c in [*cards, end]).encode("latin-1")
    return text + b" " * (-len(text) % BLOCK)


def image_cards(bitpix=-64, shape=(7, 5), naxis=None):
    return [card("SIMPLE", "T"), card("BITPIX", bitpix), card("NAXIS", len(shape) if naxis is None else naxis),
            *(card(f"NAXIS{i + 1}", n) for i, n in enumerate(shape))]


DATA = fits_bytes(FRAME)[BLOCK:]


def cut_at_every_block(r):
    """A header and an image of some blocks each, and another HDU behind them."""
    image = np.arange(60 * 60, dtype="int16").reshape(60, 60)
    cards = [f"KEY{i:<5}= {i:>20}" for i in range(40)]
    plain = fits_bytes(image, cards)
    extension = header_bytes("XTENSION= 'IMAGE   '", *image_cards(16, (60, 60))[1:], card("PCOUNT", 0),
                             card("GCOUNT", 1)) + image.byteswap().tobytes()
    whole = plain + extension.ljust(-(-len(extension) // BLOCK) * BLOCK, b"\0")
    header, data_end = 2 * BLOCK, 2 * BLOCK + image.nbytes
    assert len(plain) > data_end and plain[header: header + 2] == b"\0\0"
    for block in range(len(whole) // BLOCK):
        for more in (0, 1, 1440, 2879):
            size = block * BLOCK + more
            name = f"cut{size}.fits"
            if size >= data_end:
                r.take(name, whole[:size], image)
            elif size >= header:
                r.refuse(name, whole[:size], errno.EINVAL, "truncated: the file has")
            else:
                r.refuse(name, whole[:size], errno.EINVAL)
    r.refuse("last byte.fits", whole[:data_end - 1], errno.EINVAL, "truncated: the file has")
    r.refuse("header.fits", plain[:header], errno.EINVAL, "truncated: the file has")


def impossible_headers(r):
    huge = 2 ** 63 - 1
    for name, cards, because in [
            ("naxis 200", image_cards(shape=(2,) * 9 + (1,) * 191), errno.EINVAL),
            ("naxis 999", image_cards(shape=(1,) * 990 + (2,) * 9), errno.EINVAL),
            ("product of 200", image_cards(shape=(2,) * 200), errno.EFBIG),
            ("naxis 200 without extents", image_cards(naxis=200), errno.EINVAL),
            ("naxis 1000", image_cards(naxis=1000), errno.EINVAL),
            ("naxis -1", image_cards(naxis=-1), errno.EINVAL),
            ("naxis 0", image_cards(naxis=0), errno.EINVAL),
            ("nine axes", image_cards(shape=(2,) * 9), errno.EINVAL),
            ("product of two", image_cards(shape=(2 ** 33, 2 ** 33)), errno.EFBIG),
            ("product of eight", image_cards(shape=(2 ** 9,) * 8), errno.EFBIG),
            ("bytes", image_cards(shape=(2 ** 61, 1)), errno.EFBIG),
            ("largest", image_cards(8, (huge, 1)), errno.EFBIG),
            ("64 bits", image_cards(8, (2 ** 63, 1)), errno.EFBIG),
            ("beyond 64 bits", image_cards(8, (2 ** 64 + 1, 1)), errno.EFBIG),
            ("address space", image_cards(8, (2 ** 50, 1)), errno.EFBIG),
            ("negative", image_cards(shape=(7, -5)), errno.EINVAL),
            ("both negative", image_cards(shape=(-7, -5)), errno.EINVAL),
            ("zero", image_cards(shape=(7, 0)), errno.EINVAL),
            ("zero and huge", image_cards(shape=(0, huge)), errno.EINVAL),
            *((f"bitpix {n}", image_cards(bitpix=n), errno.EINVAL)
              for n in (0, 1, 7, -8, -16, 24, 65, 128, -128, 2 ** 32 + 8, 2 ** 64 + 8))]:
        r.refuse(f"{name}.fits", header_bytes(*cards) + DATA, because)
    # Axes of one index more than there may be are none.
    r.take("many of one.fits", header_bytes(*image_cards(shape=(7, 5) + (1,) * 900)) + DATA, FRAME)


def endless_and_senseless_headers(r):
    cards = image_cards()
    rng = np.random.default_rng(7)
    junk = rng.integers(0, 256, BLOCK, "u1").tobytes()
    r.refuse("no end.fits", header_bytes(*cards, end="") + DATA * 100, errno.EINVAL)
    r.refuse("no end, blanks.fits", header_bytes(*cards, end="") + b" " * BLOCK * 100, errno.EINVAL)
    r.refuse("END in column 2.fits", header_bytes(*cards, end=" END") + DATA, errno.EINVAL)
    r.refuse("junk.fits", b"".join(c.encode() for c in cards).ljust(BLOCK) + junk + header_bytes() + DATA,
             errno.EINVAL, "is not text")
    r.refuse("all junk.fits", b"SIMPLE  =" + junk * 20, errno.EINVAL)
    r.refuse("zeros.fits", b"".join(c.encode() for c in cards) + bytes(BLOCK * 9), errno.EINVAL,
             "is not text")
    text = "".join(chr(c) for c in rng.integers(32, 127, BLOCK))
    r.take("printable junk.fits", header_bytes(*cards, text) + DATA, FRAME)
    begin = time.monotonic()
    r.take("many cards.fits", header_bytes(*cards, *(card(f"K{i}", i) for i in range(100_000))) + DATA, FRAME)
    r.refuse("too many.fits", header_bytes(*cards, *(card(f"K{i}", i) for i in range(220_000))) + DATA,
             errno.EINVAL, "16 MiB")
    if not mounted.SANITIZE:
        assert time.monotonic() - begin < 30
    # Without an END, however much there is: only the first 16 MiB are looked at.
    r.refuse("blanks.fits", b"".join(c.encode() for c in cards) + b" " * (24 << 20), errno.EINVAL, "16 MiB")


# ---- Packed files ----

def zeros_gz(head, mebibytes):
    """A small file that unpacks to `head` and so many MiB of zeros."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    parts = [packer.compress(head)]
    parts += [packer.compress(bytes(1 << 20)) for _ in range(mebibytes)]
    return b"".join([*parts, packer.flush()])


def gzip_files(r):
    content = fits_bytes(FRAME)
    packed = gzip.compress(content)
    for size in {1, 2, 10, 11, len(packed) // 2, len(packed) - 8, len(packed) - 1}:
        r.refuse(f"cut{size}.gz", packed[:size], errno.EINVAL)
    for at in (-8, -5, -4, -1):  # CRC and length
        changed = bytearray(packed)
        changed[at] ^= 1
        r.refuse(f"crc{at}.gz", bytes(changed), errno.EINVAL, "gzip file is damaged")
    r.refuse("garbage.gz", packed + b"garbage", errno.EINVAL, "gzip file is damaged")
    r.refuse("cut inside.gz", gzip.compress(content[:BLOCK + 9]), errno.EINVAL, "truncated")
    r.take("zeros behind.gz", packed + bytes(5000), FRAME)
    size = scaled(48, 16)
    r.refuse("bomb.gz", zeros_gz(b"", size), errno.EINVAL)
    r.refuse("bomb in a bomb.gz", gzip.compress(zeros_gz(b"", size)), errno.EINVAL)
    r.refuse("bomb with a header.gz", zeros_gz(header_bytes(*image_cards(8, (2 ** 52, 1))), size),
             errno.EFBIG, "max_frame")
    # The frame is small, whatever comes behind it.
    before = blocks_of(r.m.store)
    r.take("bomb behind a frame.gz", zeros_gz(content, size), FRAME)
    wait_until(lambda: blocks_of(r.m.store) < before + (1 << 20), "its space is free", 20)


def fpacked(content, *options):
    with temporary_directory() as base:
        (base / "plain.fits").write_bytes(content)
        run("fpack", *options, "-C", "-O", base / "packed.fits", base / "plain.fits")
        return (base / "packed.fits").read_bytes()


def packed_by_astropy(array, kind):
    target = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(array, compression_type=kind)]).writeto(target)
    return target.getvalue()


def with_card(packed, keyword, value):
    """Another value in the header of the table; the last such card counts, a table has some twice."""
    table = packed.index(b"XTENSION")
    found = re.search(rb"(?<= )" + keyword.ljust(8).encode() + b"= ", packed[table:])
    at = table + found.start()
    return packed[:at] + card(keyword, value).encode() + packed[at + 80:]


def data_of(packed):
    """Where the rows of the table begin."""
    table = packed.index(b"XTENSION")
    return packed.index(b"END" + b" " * 77, table) // BLOCK * BLOCK + BLOCK


def with_bytes(packed, at, new):
    at += data_of(packed)
    return packed[:at] + new + packed[at + len(new):]


def tiled_files(r):
    y, x = np.mgrid[:40, :50]
    image = (500 + 300 * np.sin(x / 7) * np.cos(y / 5) + generator(3).normal(0, 9, (40, 50))).astype("int16")
    files = {"rice": fpacked(fits_bytes(image), "-r"), "gzip": fpacked(fits_bytes(image), "-g1"),
             "hcompress": fpacked(fits_bytes(image), "-h"),
             "floats": fpacked(fits_bytes(image.astype("float32")), "-r")}
    for kind in ("RICE_1", "GZIP_2", "HCOMPRESS_1"):
        files[f"astropy {kind}"] = packed_by_astropy(image, kind)
    lies = [("ZNAXIS", 0), ("ZNAXIS", -1), ("ZNAXIS", 3), ("ZNAXIS", 200), ("ZNAXIS", 999),
            ("ZNAXIS1", 0), ("ZNAXIS1", -50), ("ZNAXIS1", 51), ("ZNAXIS1", 2 ** 31), ("ZNAXIS1", 2 ** 40),
            ("ZNAXIS2", 41), ("ZNAXIS2", 0), ("ZNAXIS2", 2 ** 62),
            ("ZTILE1", 0), ("ZTILE1", -1), ("ZTILE1", 2 ** 31), ("ZTILE1", 2 ** 62), ("ZTILE2", 0),
            ("ZTILE2", -1),
            ("ZBITPIX", 7), ("ZBITPIX", 0), ("ZBITPIX", 64), ("ZCMPTYPE", "'LZMA_9  '"), ("ZCMPTYPE", "''"),
            ("ZCMPTYPE", 5), ("NAXIS", 1), ("NAXIS", 3), ("NAXIS1", 0), ("NAXIS1", -8), ("NAXIS1", 2 ** 40),
            ("NAXIS2", 0), ("NAXIS2", -1), ("NAXIS2", 2 ** 31), ("NAXIS2", 2 ** 62), ("PCOUNT", -1),
            ("PCOUNT", 2 ** 31), ("PCOUNT", 2 ** 62), ("GCOUNT", 2), ("GCOUNT", -1), ("TFIELDS", 0),
            ("TFIELDS", -1), ("TFIELDS", 1000), ("BITPIX", 16), ("TFORM1", "'1J      '"),
            ("TFORM1", "'1PZ(1)  '"), ("TFORM1", "''"), ("TTYPE1", "'SOMETHING'")]
    # Lies by which nothing is read wrong: a codec may overlook them.
    harmless = [("ZTILE2", 41), ("ZTILE1", 51), ("ZTILE1", 1), ("PCOUNT", 0), ("PCOUNT", 5)]
    for number, (name, packed) in enumerate(files.items()):
        r.take(f"{name}.fits", packed)
        table = packed[packed.index(b"XTENSION"):]
        for turn, (key, value) in enumerate(lies):
            # Every lie in the first file, some of them in each of the others.
            if key.ljust(8).encode() + b"= " in table and (number == 0 or turn % 7 == number):
                because = errno.EFBIG if (key, value) == ("NAXIS2", 2 ** 62) else errno.EINVAL
                r.refuse(f"{name} {key} {turn}.fits", with_card(packed, key, value), because,
                         cubes=[r.cubes[turn % 2]])
        for key, value in harmless:
            if key.ljust(8).encode() + b"= " in table:
                r.survive(f"{name} {key}.fits", with_card(packed, key, value))
    for name, packed in files.items():
        # The first descriptor of the first row: length and offset in the heap.
        for length, offset in ((2 ** 31 - 1, 0), (0xffffffff, 0), (10, 2 ** 31 - 1), (10, 0xffffffff),
                               (0x80000000, 0x80000000), (100, 10 ** 6)):
            new = length.to_bytes(4, "big") + offset.to_bytes(4, "big")
            r.refuse(f"{name} descriptor {length} {offset}.fits", with_bytes(packed, 0, new), errno.EINVAL,
                     cubes=[r.cubes[offset % 2]])
        r.survive(f"{name} empty tile.fits", with_bytes(packed, 0, bytes(8)))
    chance = generator(5)
    for name, packed in files.items():
        heap = len(packed.rstrip(b"\0")) - data_of(packed)
        first = int(re.search(rb"NAXIS1  = +(\d+)", packed[packed.index(b"XTENSION"):])[1])
        first *= int(re.search(rb"NAXIS2  = +(\d+)", packed[packed.index(b"XTENSION"):])[1])
        for turn in range(scaled(6, 3)):
            garbage = chance.integers(0, 256, heap - first, "u1").tobytes()
            keep = (0, 4, 30)[turn % 3]  # of what the codec's own header says
            r.survive(f"{name} garbage.fits", with_bytes(packed, first + keep, garbage[keep:]))
        r.survive(f"{name} ones.fits", with_bytes(packed, first, b"\xff" * (heap - first)))
        r.survive(f"{name} zeros.fits", with_bytes(packed, first, bytes(heap - first)))
    # HCOMPRESS says extents and scale of its own: magic, nx, ny, scale.
    for name in ("hcompress", "astropy HCOMPRESS_1"):
        packed = files[name]
        at = packed.index(b"\xdd\x99") - data_of(packed)
        for nx, ny, scale in ((2 ** 31 - 1, 2 ** 31 - 1, 1), (0, 0, 0), (0x80000000, 2, 1), (1 << 15, 1 << 15, 1),
                              (0xffffffff, 0xffffffff, 0xffffffff)):
            lie = b"".join(n.to_bytes(4, "big") for n in (nx, ny, scale))
            r.survive(f"{name} extents.fits", with_bytes(packed, at + 2, lie))
        r.survive(f"{name} magic.fits", with_bytes(packed, at, b"\0\0"))
    packed = files["rice"]
    for value in (0, -1, 1, 2 ** 31 - 1):
        r.survive("rice block.fits", with_card(packed, "ZVAL1", value))
    for value in (0, 3, 8, -4, 2 ** 31 - 1):
        r.survive("rice bytes.fits", with_card(packed, "ZVAL2", value))


# ---- NPY and raw ----

def npy(text, data=FRAME.tobytes(), version=(1, 0), length=None):
    """An NPY file with any header."""
    raw = text.encode("latin-1") if isinstance(text, str) else text
    size = 2 if version[0] == 1 else 4
    raw += b" " * (-(len(raw) + 7 + size) % 64) + b"\n"
    said = len(raw) if length is None else length
    return b"\x93NUMPY" + bytes(version) + said.to_bytes(size, "little") + raw + data


def npy_files(r):
    def says(descr="'<f8'", order="False", shape="(5, 7)"):
        return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"

    good = npy(says())
    r.take("good.npy", good, FRAME)
    r.refuse("one byte short.npy", good[:-1], errno.EINVAL, "truncated")
    r.refuse("one byte long.npy", good + b"\0", errno.EINVAL, "its header says")
    r.refuse("no data.npy", npy(says(), b""), errno.EINVAL, "truncated")
    r.refuse("twice.npy", good + FRAME.tobytes(), errno.EINVAL, "its header says")
    for size in (1, 5, 6, 7, 8, 9, 10, 11, 60, 127):
        r.refuse(f"cut{size}.npy", good[:size], errno.EINVAL)
    r.refuse("header beyond.npy", npy(says(), length=60000), errno.EINVAL)
    r.refuse("header far beyond.npy", npy(says(), version=(2, 0), length=2 ** 32 - 1), errno.EINVAL)
    r.refuse("header of nothing.npy", npy(says(), length=0), errno.EINVAL)
    for name, text in {
            "list": "['descr', '<f8']", "number": "42", "empty": "", "open": "{'descr': '<f8'",
            "tuple": "(1, 2)", "call": "__import__('os').system('true')", "nul": "{'descr': '<f8'\0}",
            "missing": "{'descr': '<f8', 'shape': (5, 7)}", "deep": "{" * 5000, "quotes": "'" * 5000,
            "twice": says()[:-2] + "'descr': '<i2', }", "more": says()[:-1] + " 'x': 1}",
            "behind": says() + " 1"}.items():
        r.refuse(f"{name}.npy", npy(text), errno.EINVAL)
    r.refuse("utf-8.npy", npy(says().replace("descr", "d\u00e9scr").encode(), version=(3, 0)), errno.EINVAL)
    r.refuse("invalid utf-8.npy", npy(says().encode() + b"\xff\xfe", version=(3, 0)), errno.EINVAL)
    for descr in ("'|O'", "'<c8'", "'<c16'", "'<U5'", "'|S5'", "'<M8[s]'", "'<m8'", "'|V8'", "'<f2'",
                  "'<f16'", "'<i3'", "'>i9'", "'|b1'", "''", "'<'", "'=f8888'", "8", "None",
                  "[('a', '<f4'), ('b', '<i4')]", "('<f8', (2,))", "'<f8888888888888888888888'"):
        r.refuse(f"type {descr}.npy", npy(says(descr=descr)), errno.EINVAL)
    for order in ("Maybe", "1", "'False'", ""):
        r.refuse("order.npy", npy(says(order=order)), errno.EINVAL)
    for shape in ("(5, -7)", "(-5, -7)", "(5, 0)", "()", "(5.0, 7)", "('5', 7)", "(5 7)", "(5, 7", "5, 7)",
                  "[5, 7]", "35", "None", "(5, 7, (1,))", "(2,) * 9", "(" + "2, " * 9 + ")"):
        r.refuse(f"shape {shape}.npy", npy(says(shape=shape)), errno.EINVAL)
    for shape in (f"({2 ** 40}, {2 ** 40})", f"({2 ** 61}, 1)", f"({2 ** 63 - 1}, 1)", f"({2 ** 50}, 1)"):
        r.refuse("huge.npy", npy(says(shape=shape)), errno.EFBIG)
    r.refuse("beyond 64 bits.npy", npy(says(shape=f"({2 ** 64 + 5}, 7)")), errno.EFBIG)
    for version in ((0, 0), (1, 1), (4, 0), (9, 0), (255, 255)):
        r.refuse("version.npy", npy(says(), version=version), errno.EINVAL)
    r.refuse("pickle.npy", b"\x80\x04\x95" + bytes(500), errno.EINVAL)
    r.refuse("npz.npy", b"PK\x03\x04" + bytes(500), errno.EINVAL)


def raw_files(r):
    undefined, defined = r.cubes
    one = FRAME.nbytes
    for name, size in {"nothing": 0, "a byte": 1, "one byte short": one - 1, "one byte long": one + 1,
                       "two frames": 2 * one}.items():
        r.refuse(name, b"\x01" * size, errno.EINVAL)
    r.refuse("raw", FRAME.tobytes(), errno.EINVAL, cubes=[undefined])
    # What is endless is cut off by its reader, or by the cube.
    for cube in r.cubes:
        door = cube / "append/endless"
        r.refuse_command(["sh", "-c", "head -c 8M /dev/zero | cp /dev/stdin \"$0\"", door], cube, "endless",
                         errno.EINVAL)
    r.check_unchanged()


# ---- Names ----

def name_of_bytes(raw):
    return os.fsdecode(raw)


# cfitsio's, shells', rsync's and ds9's syntax, and what is no text.
ODD_NAMES = ["!x.fits", "a[1:2].fits", "a[bin x].fits", "a[0].fits", "a(b).fits", "http:x", "ftp:x", "mem:", "-",
             "stdin", "shmem:h1", "root:x", "gsiftp:x", "a b.fits", " ", "-x.fits", "--help", ".fits", "..fits", "a.",
             "*", "?", "~", "$HOME", "`true`", "a;b", "a|b", "a'b\"c", "e+1", "x.fits.gz", "x.fits.fz", "x.fits+1",
             "z000001.fits", "last.fits", "\u00fc.fits", "x" * 255, "\u00fc" * 127 + "x",
             name_of_bytes(b"\xff\xfe.fits"), name_of_bytes(b"\xc3")]
BAD_NAMES = {"a\nb.fits": errno.EINVAL, "a\x01b": errno.EINVAL, "\x7f.fits": errno.EINVAL, "\t": errno.EINVAL,
             "\x1b[31m": errno.EINVAL, "x" * 256: errno.ENAMETOOLONG, "x" * 1000: errno.ENAMETOOLONG,
             "\u00fc" * 128: errno.ENAMETOOLONG}


def names_of_all_kinds(r):
    plain = fits_bytes(FRAME)
    tiled = fpacked(plain, "-g1", "-q", "0")
    array = FRAME.reshape(-1)
    for turn, name in enumerate(ODD_NAMES):
        # cfitsio itself reads the packed ones.
        r.take(name, tiled if turn % 2 else plain, FRAME)
    r.take("raw \u00fc", npy_bytes(array), array)
    for name, because in BAD_NAMES.items():
        source = r.write_source(plain)
        for cube in r.cubes:
            result = run("cp", source, cube / "append" / name, check=False, env=dict(os.environ, LC_ALL="C"))
            said = result.stderr.decode(errors="replace")
            assert result.returncode != 0 and os.strerror(because) in said, (name, said)
            if len(name) < 1000:  # longer ones than any filesystem has are the kernel's to refuse
                assert events_of(cube)[-1]["errno"] == because, (name, events_of(cube)[-1])
    r.check_unchanged()


# ---- Programs that end in the middle ----

def programs_that_are_killed(r):
    """A copy that SIGKILL ends, one that a limit of its own ends, one that stops for ever."""
    frame = np.zeros((24 << 17, 8), "float64")[: scaled(24, 8) << 14]
    content = fits_bytes(frame)
    half = len(content) // 2
    for cube in r.cubes:
        fifo = r.base / "fifo"
        os.mkfifo(fifo)
        before = len((cube / "history").read_bytes())
        copier = subprocess.Popen(["cp", fifo, cube / "append/killed.fits"])
        with open(fifo, "wb", buffering=0) as pipe:
            for at in range(0, half, 1 << 16):
                pipe.write(content[at: at + (1 << 16)])
            wait_until(lambda: (cube / "append/killed.fits").stat().st_size > half // 2, "half is there")
            # Others do not wait for it.
            if cube is r.cubes[1]:
                run("cp", r.write_source(fits_bytes(FRAME + 9)), cube / "append/other.fits")
                os.unlink(cube / "frames/other.fits")
                os.unlink(cube / "removed/other.fits")
            copier.send_signal(signal.SIGSTOP)
            time.sleep(0.02)
            copier.kill()
            copier.wait()
        os.unlink(fifo)
        # What others did is in history as well.
        if cube is r.cubes[1]:
            wait_until(lambda: "killed.fits" not in os.listdir(cube / "append"), "it is gone")
            assert [e["event"] for e in events_of(cube)[-4:]] == ["append", "remove", "discard", "refuse"]
            assert events_of(cube)[-1]["name"] == "killed.fits"
            r.check_unchanged()
        else:
            r.check_refused(cube, "killed.fits", errno.EINVAL, "", before)
    source = r.write_source(content)

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (half, half))

    for ignored in (False, True):  # SIGXFSZ ends it, or write() is EFBIG
        for cube in r.cubes:
            before = len((cube / "history").read_bytes())
            program = f"trap '' XFSZ; exec cp {source} {cube}/append/limited.fits" if ignored \
                else f"exec cp {source} {cube}/append/limited.fits"
            result = run("sh", "-c", program, check=False, preexec_fn=limit)
            assert result.returncode == (1 if ignored else -signal.SIGXFSZ), result
            r.check_refused(cube, "limited.fits", errno.EINVAL, "", before)


def sources_that_are_no_files(r):
    directory = r.base / "directory"
    directory.mkdir(exist_ok=True)
    for cube in r.cubes:
        door = cube / "append"
        assert run("cp", directory, door, check=False).returncode != 0
        assert run("cp", "-r", directory, door, check=False).returncode != 0
        assert run("cp", "-r", "/dev/null", door, check=False).returncode != 0
        os.symlink("nowhere", directory / "link")
        assert run("cp", "-P", directory / "link", door, check=False).returncode != 0
        os.unlink(directory / "link")
    r.check_unchanged()


TOPICS = [cut_at_every_block, impossible_headers, endless_and_senseless_headers, gzip_files, tiled_files, npy_files,
          raw_files, names_of_all_kinds, programs_that_are_killed, sources_that_are_no_files]


class Hostile(unittest.TestCase):
    def test_each_is_refused_or_taken_and_nothing_is_left(self):
        # Twice: what the daemon takes once and keeps is no leak.
        turns = 1 if mounted.SANITIZE else 2
        with Mounted() as m, temporary_directory() as base:
            r = Refusals(self, m, base)
            npy_files(r)
            found = [(resources_of(m), blocks_of(m.store))]
            for _ in range(turns):
                for topic in TOPICS:
                    begin = time.monotonic()
                    topic(r)
                    r.check_unchanged()
                    print(f"{topic.__name__}: {time.monotonic() - begin:.1f} s", flush=True)
                # Files are released after close() has returned.
                wait_until(lambda: resources_of(m).descriptors <= found[0][0].descriptors + 1,
                           "all files are closed", 20)
                found.append((resources_of(m), blocks_of(m.store)))
            for resources, blocks in found:
                print(resources, blocks)
            first, last = found[0], found[-1]
            if not mounted.SANITIZE:
                self.assertLess(last[0].private, found[1][0].private + (4 << 20), "memory is lost")
                self.assertLess(last[0].private, 48 << 20)
            self.assertLess(last[0].threads, 16)
            self.assertLessEqual(last[0].children, 1)  # accretefs-unpack
            self.assertLess(last[1], first[1] + (256 << 10), "space of the disk is lost")


class Limits(unittest.TestCase):
    def test_what_is_beyond_them_fails_before_anything_is_allocated(self):
        with Mounted(options=["-o", "max_frame=1M,max_cube=3M"]) as m, temporary_directory() as base:
            r = Refusals(self, m, base)
            size = 1 << 20
            for name, shape in {"frame": (size // 8 + 1, 1), "planes": (256, 256, 3),
                                "terabytes": (2 ** 20, 2 ** 20), "flat": (1, 2 ** 40)}.items():
                head = header_bytes(*image_cards(shape=shape))
                r.refuse(f"{name}.fits", head + bytes(5 << 20), errno.EFBIG, "max_frame")
                r.refuse(f"{name}.npy", npy(f"{{'descr': '<f8', 'fortran_order': False, 'shape': "
                                            f"{shape[::-1]}, }}", bytes(5 << 20)), errno.EFBIG, "max_frame")
                # Where the elements are in another order it is known from the header, too.
                r.refuse(f"{name}F.npy", npy(f"{{'descr': '<f8', 'fortran_order': True, 'shape': "
                                             f"{shape[::-1]}, }}", bytes(5 << 20)), errno.EFBIG, "max_frame")
            # The write of the header fails, while nothing is there yet.
            for cube in r.cubes:
                before = blocks_of(m.store)
                file = os.open(cube / "append/open.fits", os.O_WRONLY | os.O_CREAT)
                self.assertEqual(errno_of(os.write, file, header_bytes(*image_cards(shape=(2 ** 30, 2)))),
                                 "EFBIG")
                self.assertLessEqual(blocks_of(m.store), before)
                self.assertEqual(errno_of(os.write, file, b"more"), "EFBIG")
                self.assertEqual(errno_of(os.close, file), "EFBIG")
            # A cube of frames none of which is too large; it counts what it shows, pad as well.
            cube = m.cube("c")
            frame = np.ones((1000, 125))
            for i in range(3):
                (cube / f"append/f{i}.fits").write_bytes(fits_bytes(frame))
            before = (cube / "cube.raw").read_bytes()
            for name, more in {"fourth": frame, "wide": np.ones((2, 3000))}.items():
                source = r.write_source(fits_bytes(more))
                mounted.fails("cp", source, cube / f"append/{name}.fits", because=errno.EFBIG)
                self.assertIn("max_cube", last_error(cube))
            self.assertEqual((cube / "cube.raw").read_bytes(), before)
            r.refuse("bomb.gz", zeros_gz(header_bytes(*image_cards(shape=(2 ** 18, 1))), 2), errno.EFBIG,
                     "max_frame")
            tiled = fpacked(fits_bytes(np.zeros((600, 600), "int32")), "-r")
            self.assertLess(len(tiled), 1 << 17)
            r.refuse("tiles.fits", tiled, errno.EFBIG, "max_frame")
            r.check_unchanged()


class Views(unittest.TestCase):
    """What views and doors are not for."""

    def test_each_is_eperm_with_a_sentence(self):
        with Mounted() as m, temporary_directory() as base:
            r = Refusals(self, m, base)
            cube = r.cubes[1]

            def check(expected, what, *arguments):
                told = len((cube / "history").read_bytes())
                with self.subTest(what.__name__, arguments=arguments):
                    self.assertEqual(errno_of(what, *arguments), expected)
                    if expected == "OK":
                        return
                    events = (cube / "history").read_bytes()[told:].splitlines()
                    self.assertEqual(len(events), 1, events)
                    self.assertIn(f'"error":"{expected}"', events[0].decode())
                    self.assertGreater(len(last_error(cube)), 10)

            views = ["slices/xy/z0.fits", "slices/zx/y1.npy", "slices/z/x1_y2.raw", "mask/xy/z0.fits",
                     "slices/xy/x1..3_y0..2_z1.txt", "cube.fits", "cube.raw"]
            for name in views:
                path = cube / name
                size = path.stat().st_size
                content = path.read_bytes()
                for call, *more in ((os.chmod, 0o777), (os.chown, 1, 1), (os.utime, (1, 1)), (os.unlink,),
                                    (os.truncate, 0), (os.truncate, size - 1), (os.truncate, size + 1),
                                    (os.rename, path.parent / "other.fits"), (os.rename, cube / "append/other.fits"),
                                    (os.rmdir,)):
                    if call is os.rmdir:  # the kernel knows
                        self.assertEqual(errno_of(call, path), "ENOTDIR")
                    elif call is os.truncate and name.startswith("mask"):
                        check("EROFS", call, path, *more)
                    else:
                        check("EPERM", call, path, *more)
                if name.startswith("mask"):
                    self.assertEqual(errno_of(os.open, path, os.O_WRONLY), "EROFS")
                else:
                    check("OK", os.truncate, path, size)
                    file = os.open(path, os.O_WRONLY)
                    check("EFBIG", os.pwrite, file, content[-8:] + b"x", size - 8)
                    check("EFBIG", os.pwrite, file, b"x", size)
                    check("EFBIG", os.pwrite, file, b"x", 2 ** 50)
                    check("EPERM", os.ftruncate, file, size + 1)
                    os.close(file)
                self.assertEqual(path.read_bytes(), content)
                self.assertEqual(path.stat().st_size, size)
            for name in ("", "slices", "slices/xy", "mask/xy", "meta", "append", "append/z", "prepend",
                         "insert/z/0", "frames", "removed"):
                directory = cube / name
                check("EPERM", os.mkfifo, directory / "new")
                check("EPERM", os.mknod, directory / "new", 0o020600, os.makedev(1, 3))
                check("EPERM", os.symlink, "/etc/passwd", directory / "new")
                check("EPERM", os.link, cube / "cube.fits", directory / "new")
                check("EPERM", os.mkdir, directory / "new")
            for name in ("slices", "append", "frames", "removed", "meta", "mask", "prepend"):
                self.assertEqual(errno_of(os.rmdir, cube / name), "EPERM")
                self.assertEqual(errno_of(os.rename, cube / name, cube / "other"), "EPERM")
            for name in ("history", "last-error", "meta/shape", "meta/order"):
                check("EPERM", os.unlink, cube / name)
            for name in ("history", "last-error", "meta/shape", "meta/frames"):
                self.assertEqual(errno_of(os.open, cube / name, os.O_WRONLY), "EPERM")
            r.check_unchanged()


if __name__ == "__main__":
    mounted.main()
