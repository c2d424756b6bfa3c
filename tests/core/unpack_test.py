"""The program accretefs-unpack, asked as core asks it: what it makes of gzip files against Python's
gzip, and of tile-compressed images against funpack and astropy, bit by bit."""
import errno
import gzip
import io
import itertools
import os
import pathlib
import random
import resource
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import unittest
import warnings

import numpy as np
from astropy.io import fits

PROGRAM = os.environ.get("ACCRETE_UNPACK", "accretefs-unpack")
SANITIZED = bool(os.environ.get("ACCRETE_SANITIZE"))
SEED = int(os.environ.get("ACCRETE_SEED", "20260101"))
INFLATE, DECOMPRESS = 1, 2
READY, PIECE, DONE, REFUSED = 1, 2, 3, 4
PLENTY = 1 << 40
CARD, BLOCK = 80, 2880


class Died(Exception):
    pass


class Worker:
    """The process and its socket; core/unpack_protocol.h tells what goes over it."""

    def __init__(self, stderr=None, limit_data=None):
        def limit():
            if limit_data:
                resource.setrlimit(resource.RLIMIT_DATA, (limit_data, limit_data))

        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket = ours
        self.process = subprocess.Popen([PROGRAM], stdin=theirs, stderr=stderr, preexec_fn=limit)
        theirs.close()
        self.ready = self.message()
        assert self.ready[:3] == (READY, 0, 0)

    def close(self):
        self.socket.close()
        return self.process.wait(timeout=60)

    def send(self, kind, source, hdu=0, keep=PLENTY, most=PLENTY):
        size = os.fstat(source.fileno()).st_size
        request = struct.pack("=IiQQQ", kind, hdu, size, keep, most)
        file = os.open(f"/proc/self/fd/{source.fileno()}", os.O_RDONLY)
        socket.send_fds(self.socket, [request], [file])
        os.close(file)

    def message(self):
        """What it tells, an error, a number, and bytes."""
        try:
            message = self.socket.recv(1 << 17)
        except ConnectionResetError:
            message = b""
        if not message:
            raise Died(self.process.wait(timeout=60))
        return *struct.unpack_from("=IiQ", message), message[16:]

    def receive(self):
        """The error, the number, the sentence, and what the file unpacks to."""
        content = bytearray()
        while True:
            tell, error, number, data = self.message()
            if tell == PIECE:
                assert error == 0 and len(data) <= 1 << 16
                content.extend(bytes(max(0, number + len(data) - len(content)) if data else 0))
                content[number:number + len(data)] = data
            elif tell == DONE:
                assert error == 0 and not data
                content.extend(bytes(max(0, min(number, self.keep) - len(content))))
                return 0, number, "", bytes(content)
            else:
                assert tell == REFUSED and error != 0 and number == 0
                return error, 0, data.decode("ascii"), b""

    def ask(self, kind, content, keep=PLENTY, **parameters):
        """As receive(); content is bytes or a path."""
        self.keep = keep
        with as_file(content) as source:
            self.send(kind, source, keep=keep, **parameters)
            return self.receive()


def as_file(content):
    if isinstance(content, pathlib.Path):
        return open(content, "rb")
    file = tempfile.TemporaryFile()
    file.write(content)
    file.flush()
    return file


class WithWorker(unittest.TestCase):
    def setUp(self):
        self.worker = Worker()
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="accrete-unpack-"))

    def tearDown(self):
        shutil.rmtree(self.directory)
        if self.worker.process.returncode is None:
            self.assertEqual(self.worker.close(), 0)

    def refused(self, kind, content, part, number=errno.EINVAL, **parameters):
        error, _, sentence, _ = self.worker.ask(kind, content, **parameters)
        self.assertEqual(error, number, sentence)
        self.assertIn(part, sentence)


class Inflate(WithWorker):
    content = random.Random(SEED).randbytes(300_000) + b"frame " * 100_000

    def unpacked(self, packed, **parameters):
        error, number, sentence, written = self.worker.ask(INFLATE, packed, **parameters)
        self.assertEqual(error, 0, sentence)
        return number, written

    def test_whole_content(self):
        for content in (b"", b"x", self.content):
            for level in (0, 1, 9):
                packed = gzip.compress(content, level)
                self.assertEqual(self.unpacked(packed), (len(content), content))

    def test_all_that_a_member_may_begin_with(self):
        body = gzip.compress(self.content)[10:]
        start = b"\x1f\x8b\x08%c\0\0\0\0\0\x03"
        extra = b"\x06\0AB\x02\0xy"
        self.assertEqual(self.unpacked(start % 4 + extra + body)[1], self.content)
        self.assertEqual(self.unpacked(start % 8 + b"name.fits\0" + body)[1], self.content)
        self.assertEqual(self.unpacked(start % 28 + extra + b"name\0comment\0" + body)[1],
                         self.content)

    def test_several_members(self):
        parts = [self.content[i:i + 77_777] for i in range(0, len(self.content), 77_777)]
        packed = b"".join(map(gzip.compress, parts))
        self.assertEqual(self.unpacked(packed), (len(self.content), self.content))
        packed = b"".join(map(gzip.compress, [b"", b"a", b"", b"b", b""]))
        self.assertEqual(self.unpacked(packed), (2, b"ab"))

    def test_keeps_the_first_bytes(self):
        packed = gzip.compress(self.content)
        for keep in (0, 1, 2880, 262_144, len(self.content) - 1, len(self.content)):
            self.assertEqual(self.unpacked(packed, keep=keep),
                             (len(self.content), self.content[:keep]))

    def test_zeros_may_follow_but_nothing_else(self):
        packed = gzip.compress(self.content)
        for zeros in (1, 511, 1_000_000):
            self.assertEqual(self.unpacked(packed + bytes(zeros))[1], self.content)
        for rest in (b"x", b"\x1f", b"\x1f\x8b", b"\0x", bytes(300_000) + b"x",
                     bytes(7) + packed):
            self.refused(INFLATE, packed + rest, "the gzip file is ")

    def test_truncated(self):
        packed = gzip.compress(self.content)
        for length in (0, 1, 2, 9, 10, 11, 1000, 262_144, len(packed) - 9, len(packed) - 8,
                       len(packed) - 4, len(packed) - 1):
            for keep in (0, PLENTY):
                self.refused(INFLATE, packed[:length], "truncated", keep=keep)

    def test_damaged(self):
        packed = gzip.compress(self.content)
        for at in (0, 1, 2, 50, 5000, -8, -5, -4, -1):
            damaged = bytearray(packed)
            damaged[at] ^= 0x55
            self.refused(INFLATE, bytes(damaged), "the gzip file is ", keep=0)
        self.assertEqual(self.unpacked(packed)[1], self.content)

    def test_bound(self):
        packed = gzip.compress(self.content)
        self.unpacked(packed, most=len(self.content))
        self.refused(INFLATE, packed, "more than", errno.EFBIG, most=len(self.content) - 1)
        self.refused(INFLATE, packed, "more than", errno.EFBIG, most=0)
        self.assertEqual(self.unpacked(gzip.compress(b""), most=0), (0, b""))

    def test_offset_stays(self):
        with as_file(gzip.compress(b"short")) as source:
            place = source.seek(3)
            self.worker.keep = PLENTY
            self.worker.send(INFLATE, source)
            self.assertEqual(self.worker.receive(), (0, 5, "", b"short"))
            self.assertEqual(os.lseek(source.fileno(), 0, os.SEEK_CUR), place)

    def test_tells_how_far_it_is(self):
        with as_file(gzip.compress(bytes(10 << 20))) as source:
            self.worker.send(INFLATE, source, keep=3)
            told = [self.worker.message()]
            while told[-1][0] == PIECE:
                told.append(self.worker.message())
        self.assertEqual(told.pop(), (DONE, 0, 10 << 20, b""))
        self.assertIn((PIECE, 0, 0, bytes(3)), told)
        reached = [number for _, _, number, data in told if not data]
        self.assertEqual(reached, sorted(reached))
        self.assertTrue(5 < len(reached) < 15)


def make_image(rng, bitpix, shape):
    """Shape as numpy has it. Smooth, with noise, as every codec can take it."""
    values = rng.normal(0, 5, shape) + np.arange(shape[-1]) % 97
    if bitpix == 8:
        return np.clip(values + 20, 0, 255).astype(np.uint8)
    if bitpix == 16:
        return (values * 20).astype(np.int16)
    if bitpix == 32:
        return (values * 1000).astype(np.int32)
    return values.astype(np.float32 if bitpix == -32 else np.float64)


def tiled(image, tile, codec, pack, column="COMPRESSED_DATA", more=()):
    """A file whose HDU 1 is the image in tiles (fastest axis first), whose big-endian bytes `pack`
    packed into a column."""
    image = image.astype(image.dtype.newbyteorder(">"))
    width = image.itemsize
    heap, table = b"", b""
    columns = ["COMPRESSED_DATA"] + [column] * (column != "COMPRESSED_DATA")
    element = width if column == "UNCOMPRESSED_DATA" else 1
    count = 0
    for start in itertools.product(*(range(0, n, t) for n, t in zip(image.shape, tile[::-1]))):
        box = tuple(slice(s, s + t) for s, t in zip(start, tile[::-1]))
        content = image[box].tobytes()
        if codec == "GZIP_2" and column == "COMPRESSED_DATA":
            content = np.frombuffer(content, "u1").reshape(-1, width).T.tobytes()
        packed = pack(content)
        table += b"".join(struct.pack(">ii", len(packed) // element, len(heap))
                          if name == column else bytes(8) for name in columns)
        heap += packed
        count += 1
    bitpix = width * 8 * (-1 if image.dtype.kind == "f" else 1)
    forms = {"UNCOMPRESSED_DATA": {8: "1PB", 16: "1PI", 32: "1PJ", -32: "1PE", -64: "1PD"}[bitpix]}
    cards = ["XTENSION= 'BINTABLE'", "BITPIX  = 8", "NAXIS   = 2", f"NAXIS1  = {8 * len(columns)}",
             f"NAXIS2  = {count}", f"PCOUNT  = {len(heap)}", "GCOUNT  = 1",
             f"TFIELDS = {len(columns)}"]
    for i, name in enumerate(columns, 1):
        cards += [f"TTYPE{i}  = '{name}'", f"TFORM{i}  = '{forms.get(name, '1PB')}'"]
    cards += ["ZIMAGE  = T", f"ZBITPIX = {bitpix}", f"ZNAXIS  = {image.ndim}",
              f"ZCMPTYPE= '{codec}'", "ZVAL1   = 32"]
    for i, (extent, t) in enumerate(zip(image.shape[::-1], tile), 1):
        cards += [f"ZNAXIS{i} = {extent}", f"ZTILE{i}  = {t}"]
    primary = ["SIMPLE  = T", "BITPIX  = 8", "NAXIS   = 0"]
    return header_of(primary) + header_of([*cards, *more]) + padded(table + heap, b"\0")


def padded(content, fill):
    return content.ljust(-(-len(content) // BLOCK) * BLOCK, fill)


def header_of(cards):
    cards = [c if "'" in c else f"{c[:10]}{c[10:]:>20}" for c in cards]
    return padded("".join(c.ljust(CARD) for c in [*cards, "END"]).encode(), b" ")


def data_of(file):
    """Header cards and data bytes of the primary HDU, and nothing may follow them."""
    assert len(file) % BLOCK == 0
    cards = [file[i:i + CARD].decode("ascii") for i in range(0, len(file), CARD)
             if i < file.index(b"END" + b" " * 77)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with fits.open(io.BytesIO(file), do_not_scale_image_data=True) as hdus:
            hdus.verify("exception")
            assert len(hdus) == 1
            data = np.array(hdus[0].data)
            start = hdus[0]._data_offset
    length = data.size * data.itemsize
    assert file[start + length:] == bytes(len(file) - start - length)
    assert len(file) - start - length < BLOCK
    return cards, data


def keyword_of(card):
    return card[:8].rstrip()


def bits(array):
    """Its elements as unsigned integers of the machine."""
    array = np.asarray(array)
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    return np.ascontiguousarray(native).view(f"u{array.itemsize}")


class Decompress(WithWorker):
    def setUp(self):
        super().setUp()
        self.rng = np.random.default_rng(SEED)
        self.count = itertools.count()

    def path(self, suffix):
        return self.directory / f"{next(self.count)}{suffix}"

    def fpack(self, hdu, *options):
        plain = self.path(".fits")
        hdu.writeto(plain, checksum=True)
        subprocess.run(["fpack", *options, plain], check=True, stdout=subprocess.DEVNULL)
        return plain.with_name(plain.name + ".fz")

    def by_astropy(self, data, **parameters):
        packed = self.path(".fits.fz")
        fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(data, **parameters)]).writeto(packed)
        return packed

    def decompressed(self, path, hdu=1):
        error, number, sentence, file = self.worker.ask(DECOMPRESS, path, hdu=hdu)
        self.assertEqual(error, 0, sentence)
        self.assertEqual(number, len(file))
        return data_of(file)

    def compare(self, path, hdu=1, astropy=True, funpack=True):
        """Checks header and data against what astropy and funpack make of it; gives the data."""
        cards, data = self.decompressed(path, hdu)
        if astropy:
            with fits.open(path, do_not_scale_image_data=True) as hdus:
                expected = hdus[hdu].data
                header = hdus[hdu].header
            self.assertEqual(data.dtype.newbyteorder("="), expected.dtype.newbyteorder("="))
            # This astropy knows no undefined pixels among quantised floats.
            same = ~np.isnan(data)
            np.testing.assert_array_equal(bits(data)[same], bits(expected)[same])
            # It leaves some cards of the compression.
            self.assertEqual([k for k in map(keyword_of, cards) if k not in STRUCTURE],
                             [k for k in header if k not in STRUCTURE | {"ZDITHER0", "ZBLANK"}])
        if funpack:
            plain = self.path(".out")
            subprocess.run(["funpack", "-O", plain, path], check=True, stdout=subprocess.DEVNULL)
            with fits.open(plain, do_not_scale_image_data=True) as hdus:
                # funpack makes a primary array of what was one.
                image = hdus[min(hdu, len(hdus) - 1)]
                np.testing.assert_array_equal(bits(data), bits(image.data))
                header = image.header.tostring(endcard=False, padding=False)
            theirs = [header[i:i + CARD] for i in range(0, len(header), CARD)]
            dropped = {"CHECKSUM", "DATASUM"}
            if theirs[0].startswith("XTENSION"):
                dropped |= {"XTENSION", "PCOUNT", "GCOUNT", "SIMPLE"}
            keep = lambda all_cards: [c for c in all_cards if keyword_of(c) not in dropped]
            self.assertEqual(keep(cards), keep(theirs))
        return data

    def test_codecs_and_types_by_fpack(self):
        for option, bitpix in itertools.product(("-r", "-g1", "-g2", "-h", "-p", "-d"),
                                                (8, 16, 32, -32, -64)):
            # What fpack itself cannot do.
            if (option == "-p" and bitpix < 0) or (option == "-d" and bitpix in (8, -64)):
                continue
            for shape in ((37,), (29, 41), (3, 21, 35)):
                if option == "-h" and len(shape) == 1:
                    continue
                with self.subTest(option=option, bitpix=bitpix, shape=shape):
                    image = make_image(self.rng, bitpix, shape)
                    if option == "-p":
                        image = np.abs(image) % 1000
                    path = self.fpack(fits.PrimaryHDU(image), option)
                    data = self.compare(path, astropy=option != "-d")
                    if bitpix > 0:
                        np.testing.assert_array_equal(data, image)

    def test_tile_shapes(self):
        for tile, bitpix in itertools.product(
                ((41, 29, 3), (41, 1, 1), (41, 7, 1), (10, 10, 1), (10, 10, 2), (1, 29, 3),
                 (13, 1, 3), (41, 29, 1), (40, 28, 2), (5, 29, 1)), (8, 16, -32)):
            with self.subTest(tile=tile, bitpix=bitpix):
                image = make_image(self.rng, bitpix, (3, 29, 41))
                path = self.by_astropy(image, compression_type="GZIP_1" if bitpix < 0 else "RICE_1",
                                       quantize_level=0 if bitpix < 0 else 16, tile_size=tile)
                np.testing.assert_array_equal(self.compare(path), image)

    def test_many_axes(self):
        image = make_image(self.rng, 16, (2, 3, 2, 3, 5, 7))
        for codec, tile in itertools.product(
                ("GZIP_1", "GZIP_2"), ((7, 5, 3, 2, 3, 1), (7, 1, 1, 1, 1, 1), (4, 3, 2, 2, 2, 1))):
            content = tiled(image, tile, codec, gzip.compress)
            cards, data = self.decompressed(content)
            np.testing.assert_array_equal(data, image)
            self.assertIn("NAXIS   =                    6", cards[2])
        content = tiled(image, (7, 5, 3, 2, 3, 2), "GZIP_1", gzip.compress)
        self.refused(DECOMPRESS, content, "five axes", hdu=1)

    def test_quantised_with_each_dither(self):
        for codec, method, seed, dtype in itertools.product(
                ("RICE_1", "GZIP_1", "GZIP_2", "HCOMPRESS_1"), (-1, 1, 2), (1, 9999), ("f4", "f8")):
            with self.subTest(codec=codec, method=method, seed=seed, dtype=dtype):
                image = self.rng.normal(100, 10, (40, 60)).astype(dtype)
                image[3, 5:9] = 0  # kept exactly by the second dither
                path = self.by_astropy(image, compression_type=codec, quantize_level=8,
                                       quantize_method=method, dither_seed=seed,
                                       tile_size=(60, 20))
                data = self.compare(path)
                self.assertLess(np.abs(data - image).max(), 5)
                self.assertTrue((data != image).any())
                if method == 2:
                    self.assertTrue((data[3, 5:9] == 0).all())

    def test_undefined_pixels(self):
        for option, dtype in itertools.product(("-r", "-g1", "-g2", "-h"), ("f4", "f8")):
            for quantise in (["-q", "4"], ["-q0", "4"], ["-qz", "4"]):
                with self.subTest(option=option, dtype=dtype, quantise=quantise):
                    image = self.rng.normal(100, 10, (64, 60)).astype(dtype)
                    image[7, 3] = image[50, 10:30] = np.nan
                    path = self.fpack(fits.PrimaryHDU(image), option, *quantise)
                    data = self.compare(path)
                    np.testing.assert_array_equal(np.isnan(data), np.isnan(image))

    def test_lossless_floats_keep_every_bit(self):
        special = {4: [0x7f800001, 0x7fc12345, 0xffc00000, 0x80000000, 1, 0x807fffff],
                   8: [0x7ff0000000000001, 0x7ff8123456789abc, 1 << 63, 1, 0xfff << 52]}
        for width in (4, 8):
            image = np.frombuffer(self.rng.bytes(50 * 60 * width), f"f{width}").reshape(50, 60)
            image = image.copy()
            image.view(f"u{width}")[0, :len(special[width])] = special[width]
            for codec, column in (("GZIP_1", "COMPRESSED_DATA"), ("GZIP_2", "COMPRESSED_DATA"),
                                  ("RICE_1", "GZIP_COMPRESSED_DATA"),
                                  ("GZIP_1", "GZIP_COMPRESSED_DATA"),
                                  ("NOCOMPRESS", "UNCOMPRESSED_DATA"),
                                  ("RICE_1", "UNCOMPRESSED_DATA")):
                for cards in ([], ["ZQUANTIZ= 'NONE'"], ["ZQUANTIZ= 'NO_DITHER'"],
                              ["ZQUANTIZ= 'NONE'", "ZBLANK  = -2147483648"]):
                    with self.subTest(width=width, codec=codec, column=column, cards=cards):
                        pack = bytes if column == "UNCOMPRESSED_DATA" else gzip.compress
                        content = tiled(image, (60, 7), codec, pack, column, cards)
                        np.testing.assert_array_equal(bits(self.decompressed(content)[1]),
                                                      bits(image))

    def test_bytes_that_are_not_compressed(self):
        image = make_image(self.rng, 8, (20, 30))
        content = tiled(image, (30, 6), "NOCOMPRESS", bytes, "UNCOMPRESSED_DATA")
        np.testing.assert_array_equal(self.decompressed(content)[1], image)

    def test_tiles_that_could_not_be_quantised(self):
        # Constant rows have no noise to measure: such tiles are kept as they are.
        image = self.rng.normal(100, 10, (40, 60)).astype("f4")
        image[::3] = 42.5
        image[0, :2] = np.nan
        image[5, 5] = np.nan
        path = self.fpack(fits.PrimaryHDU(image), "-r", "-q", "16")
        data = self.decompressed(path)[1]
        with fits.open(path, disable_image_compression=True) as hdus:
            alone = np.array([len(row) > 0 for row in hdus[1].data["GZIP_COMPRESSED_DATA"]])
        self.assertTrue(alone.any() and not alone.all())
        np.testing.assert_array_equal(bits(data[alone][1:]), bits(image[alone][1:]))
        self.compare(path)

    def test_offset_integers_stay_as_stored(self):
        for dtype, option in itertools.product(("u2", "u4", "i1"), ("-r", "-g1", "-h", "-p")):
            with self.subTest(dtype=dtype, option=option):
                if option == "-p" and dtype != "u2":
                    continue
                info = np.iinfo(dtype)
                image = (self.rng.integers(0, 100, (40, 50)) + info.min).astype(dtype)
                if option != "-p":
                    image[0, 0], image[0, 1] = info.max, info.min
                path = self.fpack(fits.PrimaryHDU(image), option)
                # astropy's stored values of PLIO_1 lack the offset.
                self.compare(path, astropy=option != "-p")
                cards, data = self.decompressed(path)
                offset = {"u2": 1 << 15, "u4": 1 << 31, "i1": -128}[dtype]
                np.testing.assert_array_equal(data.astype("i8") + offset, image.astype("i8"))
                self.assertTrue(any(c.startswith("BZERO   =") for c in cards))

    def test_scaled_and_blank_integers_stay_as_stored(self):
        image = make_image(self.rng, 16, (20, 30))
        image[3, 4] = -32768
        for option in ("-r", "-g2", "-h"):
            hdu = fits.PrimaryHDU(image)
            hdu.header["BLANK"] = -32768
            hdu.header["BSCALE"], hdu.header["BZERO"] = 0.25, 100.0
            hdu = fits.PrimaryHDU(image, header=hdu.header, do_not_scale_image_data=True)
            hdu.header["BSCALE"], hdu.header["BZERO"] = 0.25, 100.0
            path = self.fpack(hdu, option)
            cards, data = self.decompressed(path)
            self.assertEqual({"BLANK", "BSCALE", "BZERO"} & set(map(keyword_of, cards)),
                             {"BLANK", "BSCALE", "BZERO"})
            np.testing.assert_array_equal(data, image)

    def test_header(self):
        hdu = fits.PrimaryHDU(make_image(self.rng, 16, (20, 30)))
        header = hdu.header
        header["OBJECT"] = ("M42", "a nebula")
        header["ZEROPNT"] = 25.5
        header["ZD"] = (12, "[deg] zenith distance")
        header["ZENITH1"] = "it's"
        header["TELESCOP"] = "T"
        header["HIERARCH ESO DET CHIP1 ID"] = "ccd"
        header["LONGTEXT"] = "long " * 40
        for i in range(60):
            header[f"KEY{i}"] = i
            header.add_history(f"step {i}")
        header.add_comment("end")
        path = self.fpack(hdu, "-r")
        self.compare(path, astropy=False)
        cards = self.decompressed(path)[0]
        self.assertEqual(cards[0][:30], "SIMPLE  =                    T")
        self.assertIn("ZEROPNT", set(map(keyword_of, cards)))

    def test_extensions_and_their_names(self):
        a, b = (make_image(self.rng, 16, (20, 30)) for _ in range(2))
        plain = self.path(".fits")
        fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(a, name="SCI"), fits.ImageHDU(b)]).writeto(
            plain, checksum=True)
        subprocess.run(["fpack", plain], check=True)
        path = plain.with_name(plain.name + ".fz")
        np.testing.assert_array_equal(self.compare(path, 1), a)
        np.testing.assert_array_equal(self.compare(path, 2), b)
        named = lambda n: [c for c in self.decompressed(path, n)[0] if c.startswith("EXTNAME")]
        self.assertIn("'SCI", named(1)[0])
        self.assertEqual(named(2), [])
        for hdu in (0, 3, 1000, -1):
            self.refused(DECOMPRESS, path, "HDU", hdu=hdu)

    def test_bound(self):
        path = self.fpack(fits.PrimaryHDU(make_image(self.rng, 16, (200, 300))))
        length = self.worker.ask(DECOMPRESS, path, hdu=1)[1]
        self.assertEqual(self.worker.ask(DECOMPRESS, path, hdu=1, most=length)[0], 0)
        for most in (0, 120_000, length - 1):
            self.refused(DECOMPRESS, path, "more than", errno.EFBIG, hdu=1, most=most)

    def test_wrong_checksums(self):
        path = self.fpack(fits.PrimaryHDU(make_image(self.rng, 16, (200, 300))))
        whole = path.read_bytes()
        for at, part in ((len(whole) - BLOCK - 5, "DATASUM"), (whole.index(b"ZCMPTYPE") + 70,
                                                              "CHECKSUM")):
            damaged = bytearray(whole)
            damaged[at] = damaged[at] + 1 & 0x7f
            self.refused(DECOMPRESS, bytes(damaged), part, hdu=1)

    def test_truncated(self):
        path = self.fpack(fits.PrimaryHDU(make_image(self.rng, 16, (200, 300))))
        whole = path.read_bytes()
        for length in (0, 1, 80, 2879, 2880, 2881, 2 * BLOCK, 3 * BLOCK, len(whole) - BLOCK):
            with self.subTest(length=length):
                self.refused(DECOMPRESS, whole[:length], "", hdu=1)
        self.assertEqual(self.worker.ask(DECOMPRESS, whole, hdu=1)[0], 0)

    def edited(self, path, *changes):
        """The file with values of cards of its container replaced, without checksums."""
        content = bytearray(path.read_bytes())
        for keyword, value in (*changes, ("CHECKSUM", None), ("DATASUM", None)):
            start = content.find(keyword.encode().ljust(8) + b"=", BLOCK)
            if start < 0:
                continue
            card = f"{keyword:8}= {value}" if value is not None else "COMMENT"
            content[start:start + CARD] = card.ljust(CARD).encode()
        return bytes(content)

    def test_headers_that_make_no_sense(self):
        image = make_image(self.rng, 16, (20, 30))
        path = self.fpack(fits.PrimaryHDU(image), "-r")
        self.assertEqual(self.worker.ask(DECOMPRESS, self.edited(path), hdu=1)[0], 0)
        for keyword, value, part in (
                ("ZCMPTYPE", "'BZIP2_1'", "BZIP2_1"), ("ZCMPTYPE", "'RICE_7'", "RICE_7"),
                ("ZCMPTYPE", "5", "ZCMPTYPE"), ("ZBITPIX", "17", "ZBITPIX"),
                ("ZBITPIX", "64", "64-bit"), ("ZNAXIS", "9", "ZNAXIS"), ("ZNAXIS", "0", "ZNAXIS"),
                ("ZNAXIS", "-1", "ZNAXIS"), ("ZNAXIS", "3", "ZNAXIS3"), ("ZNAXIS1", "0", "ZNAXIS1"),
                ("ZNAXIS1", "-5", "ZNAXIS1"), ("ZNAXIS2", "1000000000000", "too many"),
                ("ZNAXIS2", "x", "ZNAXIS2"), ("ZTILE1", "0", "ZTILE1"), ("ZTILE2", "-1", "ZTILE2"),
                ("ZTILE1", "99999999999", "too large"), ("ZTILE2", "5", "image"),
                ("ZNAXIS2", "21", "image"), ("ZIMAGE", "F", "no tile-compressed"),
                ("TTYPE1", "'SOMETHING'", "image"), ("TTYPE1", "x" * 70, "TTYPE1"),
                ("ZVAL1", "0", "ZVAL1"),
                ("ZVAL1", "x", "ZVAL1"), ("ZVAL2", "x", "ZVAL2"), ("ZVAL2", "0", "ZVAL2"),
                ("ZVAL2", "x" * 40, "ZVAL2"),
                ("ZVAL2", "'" + "x" * 40 + "'", "ZVAL2")):
            with self.subTest(keyword=keyword, value=value):
                self.refused(DECOMPRESS, self.edited(path, (keyword, value)), part, hdu=1)
        for changes in ([("ZNAXIS1", "3037000500"), ("ZTILE1", "2147483647")],
                        [("ZNAXIS1", "9223372036854775807"), ("ZTILE1", "2147483647")]):
            self.refused(DECOMPRESS, self.edited(path, *changes), "", errno.EINVAL, hdu=1)
        self.refused(DECOMPRESS,
                     self.edited(path, ("ZNAXIS1", "2147483647"), ("ZTILE1", "2147483647")), "",
                     errno.EFBIG, hdu=1, most=1 << 30)
        blank = self.edited(path).replace(b"COMMENT".ljust(CARD),
                                          (b"BLANK   = " + b"9" * 40).ljust(CARD), 1)
        self.refused(DECOMPRESS, blank, "BLANK", hdu=1)
        for keyword in ("ZDITHER0", "ZVAL2   ", "TTYPE1  "):  # cfitsio takes these for values
            nearly = self.edited(path).replace(b"COMMENT".ljust(CARD), f"{keyword}=".encode().ljust(CARD, b"x"), 1)
            self.refused(DECOMPRESS, nearly, keyword.rstrip(), hdu=1)
        early = self.edited(path).replace(b"COMMENT".ljust(CARD), b"ZTILE1= ".ljust(CARD, b"x"), 1)
        self.refused(DECOMPRESS, early, "keyword", hdu=1)
        unreadable = self.edited(path).replace(b"COMMENT".ljust(CARD), b"\x80".ljust(CARD), 1)
        self.refused(DECOMPRESS, unreadable, "not text", hdu=1)
        doubled = self.edited(path, ("ZVAL2", "2")).replace(b"ZNAME2  ", b"ZNAXIS1 ", 1)
        self.refused(DECOMPRESS, doubled, "two cards ZNAXIS1", hdu=1)
        self.assertEqual(self.worker.ask(DECOMPRESS, path, hdu=1)[0], 0)

    def test_far_too_many_axes(self):
        def header(first, naxis):
            cards = [first, "BITPIX  = 8", f"NAXIS   = {naxis}"]
            cards += [f"{'NAXIS' + str(i + 1):8}= 1" for i in range(naxis)]
            if first.startswith("XTENSION"):
                cards += ["PCOUNT  = 0", "GCOUNT  = 1", "TFIELDS = 0", "ZIMAGE  = T"]
            return header_of(cards)

        primary = header("SIMPLE  = T", 0)
        for naxis in (200, 999):
            for content, hdu in ((header("SIMPLE  = T", naxis) + bytes(BLOCK), 0),
                                 (header("SIMPLE  = T", naxis) + bytes(BLOCK) + primary, 1),
                                 (primary + header("XTENSION= 'BINTABLE'", naxis), 1),
                                 (primary + header("XTENSION= 'IMAGE'", naxis) + bytes(BLOCK), 2)):
                self.refused(DECOMPRESS, content, "", hdu=hdu)

    def test_not_fits_at_all(self):
        for content in (b"x", bytes(BLOCK), b"SIMPLE  =                    T".ljust(BLOCK)):
            self.refused(DECOMPRESS, content, "", hdu=0)
        self.refused(DECOMPRESS, gzip.compress(b"SIMPLE  ="), "", hdu=0)

    def test_tiles_of_a_wrong_size(self):
        image = make_image(self.rng, 16, (20, 30))
        for option in ("-d", "-h", "-g1"):
            path = self.fpack(fits.PrimaryHDU(image), option)
            smaller = self.edited(path, ("ZNAXIS1", "29"), ("ZTILE1", "29"))
            self.refused(DECOMPRESS, smaller, "wrong size", hdu=1)
        for column, pack in (("COMPRESSED_DATA", lambda b: gzip.compress(b + b)),
                             ("COMPRESSED_DATA", lambda b: gzip.compress(b * 4)),
                             ("COMPRESSED_DATA", lambda b: gzip.compress(b[1:])),
                             ("COMPRESSED_DATA", lambda b: b"xyz"),
                             ("UNCOMPRESSED_DATA", lambda b: b + b)):
            for dtype, codec in itertools.product(("i4", "f4", "f8"), ("GZIP_1", "GZIP_2")):
                content = tiled(image.astype(dtype), (30, 6), codec, pack, column)
                self.refused(DECOMPRESS, content, "a tile ", hdu=1)

    def test_tiles_that_end_too_early(self):
        # cfitsio alone would take what lies behind them in memory for pixels.
        for option, bitpix in (("-r", 8), ("-r", 16), ("-r", 32), ("-r", -32), ("-p", 16)):
            image = np.abs(make_image(self.rng, bitpix, (20, 30)))
            whole = self.edited(self.fpack(fits.PrimaryHDU(image), option))
            rows = BLOCK + len(fits.Header.fromstring(whole[BLOCK:].decode("latin1")).tostring())
            length, = struct.unpack_from(">i", whole, rows)
            for cut in (1, 2, length // 2, length - 5):
                with self.subTest(option=option, bitpix=bitpix, cut=cut):
                    content = bytearray(whole)
                    struct.pack_into(">i", content, rows, length - cut)
                    self.refused(DECOMPRESS, bytes(content), "ends too early", hdu=1)
            self.assertEqual(self.worker.ask(DECOMPRESS, whole, hdu=1)[0], 0)

    def test_truncated_gzip_tiles(self):
        # What follows a truncated tile in the heap is not of it; cfitsio alone would not end.
        image = make_image(self.rng, -32, (20, 30))
        for codec, column in (("GZIP_1", "COMPRESSED_DATA"), ("GZIP_2", "COMPRESSED_DATA"),
                              ("RICE_1", "GZIP_COMPRESSED_DATA")):
            for cut in (1, 4, 8, 9, 100):
                content = tiled(image, (30, 6), codec, lambda b: gzip.compress(b)[:-cut], column)
                self.refused(DECOMPRESS, content, "a tile ", hdu=1)

    def test_random_damage_does_no_harm(self):
        generator = random.Random(SEED)
        worker = Worker(stderr=subprocess.DEVNULL)
        outcomes = {"fine": 0, "refused": 0, "died": 0}
        for option, bitpix in (("-r", 16), ("-r", -32), ("-g1", 32), ("-g2", -32), ("-h", 16),
                               ("-p", 16), ("-d", 16)):
            image = np.abs(make_image(self.rng, bitpix, (40, 50)))
            whole = self.edited(self.fpack(fits.PrimaryHDU(image), option))
            for _ in range(60):
                damaged = bytearray(whole)
                for _ in range(generator.choice((1, 3, 20))):
                    damaged[generator.randrange(BLOCK, len(damaged))] = generator.randrange(256)
                try:
                    error = worker.ask(DECOMPRESS, bytes(damaged), hdu=1, most=1 << 24)[0]
                    outcomes["refused" if error else "fine"] += 1
                except Died:
                    outcomes["died"] += 1
                    worker.socket.close()
                    worker = Worker(stderr=subprocess.DEVNULL)
        worker.close()
        print(outcomes, file=sys.stderr)
        self.assertGreater(outcomes["refused"], 0)

    @unittest.skipIf(SANITIZED, "sanitizers need memory of their own")
    def test_memory_is_bounded(self):
        image = np.zeros((9000, 9000), np.int16)
        image[::7, ::11] = 1000
        for tile, bound in (((9000, 1), 64), ((2000, 500), 128), ((3000, 9000), 400)):
            with self.subTest(tile=tile):
                worker = Worker()
                path = self.fpack(fits.PrimaryHDU(image), "-r", "-t", ",".join(map(str, tile)))
                error, _, sentence, file = worker.ask(DECOMPRESS, path, hdu=1)
                self.assertEqual(error, 0, sentence)
                np.testing.assert_array_equal(data_of(file)[1], image)
                status = pathlib.Path(f"/proc/{worker.process.pid}/status").read_text()
                peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
                self.assertEqual(worker.close(), 0)
                self.assertLess(peak, bound)


    @unittest.skipIf(SANITIZED, "sanitizers need memory of their own")
    def test_too_little_memory_is_an_error_of_one_file(self):
        worker = Worker(limit_data=30 << 20)
        path = self.fpack(fits.PrimaryHDU(np.zeros((4000, 4000), np.int16)), "-r", "-w")
        for _ in range(3):
            error, _, sentence, _ = worker.ask(DECOMPRESS, path, hdu=1)
            self.assertEqual((error, sentence.split(" to ")[0]), (errno.ENOMEM, "not enough memory"))
            self.assertEqual(worker.ask(INFLATE, gzip.compress(b"x"))[3], b"x")
        self.assertEqual(worker.close(), 0)

    @unittest.skipIf(SANITIZED, "their memory is not bounded")
    def test_a_whole_image_in_one_tile(self):
        """The bound of memory leaves room for what each codec needs."""
        for option, bitpix in itertools.product(("-r", "-g1", "-g2", "-h", "-d"), (8, 16, 32, -64)):
            if option == "-d" and bitpix in (8, -64):
                continue
            with self.subTest(option=option, bitpix=bitpix):
                image = make_image(self.rng, bitpix, (3000, 4000))
                path = self.fpack(fits.PrimaryHDU(image), option, "-w")
                error, _, sentence, file = self.worker.ask(DECOMPRESS, path, hdu=1)
                self.assertEqual(error, 0, sentence)
                self.assertGreater(len(file), image.nbytes)


STRUCTURE = {"SIMPLE", "XTENSION", "BITPIX", "NAXIS", *(f"NAXIS{i}" for i in range(1, 9)), "EXTEND",
             "PCOUNT", "GCOUNT", "CHECKSUM", "DATASUM"}


class Process(WithWorker):
    def test_ends_with_its_socket(self):
        self.assertEqual(self.worker.ask(INFLATE, gzip.compress(b"x"))[3], b"x")
        self.assertEqual(self.worker.close(), 0)

    def test_ends_at_nonsense(self):
        self.worker.socket.send(b"nonsense")
        with self.assertRaises(Died):
            self.worker.receive()

    def test_requests_of_unknown_kind(self):
        self.refused(7, b"x", "unknown kind")

    def test_keeps_no_descriptors(self):
        descriptors = lambda: len(os.listdir(f"/proc/{self.worker.process.pid}/fd"))
        self.worker.ask(INFLATE, gzip.compress(b"x"))
        before = descriptors()
        for kind, content in itertools.product((INFLATE, DECOMPRESS), (gzip.compress(b"x"), b"x")):
            self.worker.ask(kind, content)
        self.assertEqual(descriptors(), before)

    def test_is_not_for_hands(self):
        for arguments, code in (([], 1), (["--nonsense"], 1), (["--help"], 0)):
            done = subprocess.run([PROGRAM, *arguments], stdin=subprocess.DEVNULL,
                                  capture_output=True, check=False)
            self.assertEqual(done.returncode, code)
            self.assertIn(b"accretefs starts this program", done.stderr + done.stdout)


if __name__ == "__main__":
    sys.exit(unittest.main(verbosity=2))
