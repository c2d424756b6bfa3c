#!/usr/bin/python3
"""Makes inputs to begin with: make_seeds.py DIRECTORY writes DIRECTORY/TARGET/seed-*.

They are in the forms that the targets describe at their top. What the corpora hold already was
found from these, so they are needed again only for a new target or form.
"""
import gzip
import io
import pathlib
import struct
import sys
import warnings

import numpy as np
from astropy.io import fits

CARD = 80
BLOCK = 2880


def lines_of(header):
    """The cards of a header, up to END, as lines."""
    cards = [header[i:i + CARD].rstrip() for i in range(0, len(header), CARD)]
    return "\n".join(cards[:cards.index("END") + 1]) + "\n"


def header(*cards):
    return "\n".join(cards + ("END",)) + "\n"


PRIMARY = ("SIMPLE  =                    T", "BITPIX  =                    8",
           "NAXIS   =                    0", "EXTEND  =                    T")
IMAGE = ("XTENSION= 'IMAGE   '", "BITPIX  =                   16", "NAXIS   =                    2",
         "NAXIS1  =                    3", "NAXIS2  =                    2",
         "PCOUNT  =                    0", "GCOUNT  =                    1")


def fits_seeds():
    simple = ("SIMPLE  =                    T", "BITPIX  =                  -32",
              "NAXIS   =                    2", "NAXIS1  =                    3",
              "NAXIS2  =                    2")
    yield b"\0" + header(*simple, "OBJECT  = 'M 42    '           / what", "COMMENT c",
                         "LONG    = 'begins &'", "CONTINUE  'and ends'", "",
                         "CHECKSUM= 'abcdefghijklmnop'", "DATASUM = '0'").encode()
    yield b"\0" + header(*PRIMARY).encode() + header(*IMAGE, "BZERO   = 32768.0D0",
                                                     "BSCALE  = 1", "EXTNAME = 'sci'").encode()
    scaled = (*IMAGE, "BZERO   = 1.5", "BSCALE  = 0.25E-3", "BLANK   = -32768", "EXTNAME = 'SCI'")
    yield b"\6" + (header(*PRIMARY) + header(*IMAGE, "EXTNAME = 'SCI'") +
                   header(*scaled, "EXTVER  = 2")).encode()
    yield b"\3" + (header(*PRIMARY) + header(*IMAGE) + header(*scaled)).encode()
    yield b"\0" + header("SIMPLE  = T", "BITPIX  = 64", "NAXIS   = 9",
                         *(f"NAXIS{i}  = {2 if i < 3 else 1}" for i in range(1, 10)),
                         "BZERO   = 9223372036854775808").encode()
    yield b"\0" + header("SIMPLE  = T", "BITPIX  = -32", "NAXIS   = 3", "NAXIS1  = 0", "NAXIS2  = 2",
                         "NAXIS3  = 1", "GROUPS  = T", "PCOUNT  = 3", "GCOUNT  = 2").encode()
    yield b"\0" + (header(*PRIMARY) +
                   header("XTENSION= 'BINTABLE'", "BITPIX  = 8", "NAXIS   = 2", "NAXIS1  = 8",
                          "NAXIS2  = 2", "PCOUNT  = 100", "GCOUNT  = 1", "ZIMAGE  = T")).encode()
    file = io.BytesIO()
    fits.PrimaryHDU(np.arange(6, dtype=np.uint16).reshape(2, 3)).writeto(file)
    yield b"\x80" + file.getvalue()


def npy_seeds():
    for version, array in ((1, np.zeros((2, 3), ">f4")), (2, np.zeros(5, "u1")),
                           (3, np.asfortranarray(np.zeros((2, 3, 4), "<i8")))):
        file = io.BytesIO()
        np.lib.format.write_array(file, array, (version, 0))
        yield file.getvalue()
    yield b"\1{'descr': '<u2', 'fortran_order': False, 'shape': (3, 2), }\n"
    yield b"\2{\"shape\": (7L,), 'fortran_order':True,'descr':'|i1'}"
    yield b"\3{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1, 1, 1)}"
    yield b"\1{'descr': '=f8', 'fortran_order': True, 'shape': (1,1,2,2,2,2,2,2,2,2), }"


def view_name_seeds():
    for letters, path in ((0, "xy/z000017"), (0, "zx/y3"), (0, "z/x1/y0"), (0, "xy/x1..3_y..2_z0"),
                          (1, "x/y1_z2_t3/s1/u0_v0/w0"), (1, "xyztsuvw/x1.."), (2, "x/x..2"),
                          (4, "fs/x1/y0"), (0, "xyz/z9223372036854775807..")):
        yield bytes([letters]) + path.encode()


def txt_seeds():
    texts = ("0", "-1", "255", "1e3", "1.50e1", "18446744073709551615", "-9223372036854775808", "nan",
             "-inf", "1e-45", "3.4028235e38", "0x10", " 7 ", "+5", "1e400", "2.5", "-0.0")
    for i, text in enumerate(texts):
        yield bytes([i % 10, 0]) + text.encode()
    for kind in range(10):
        yield bytes([kind, 1]) + struct.pack("<dfqI", -1 / 3, 1e-40, -2**63, 0x7fc00001)


def cards_seeds():
    old = ("OBJECT  = 'M 42    '           / what it is", "EXPTIME =                  1.5",
           "COMMENT c", "HISTORY h")
    new = ("OBJECT  = 'M 43    '", "EXPTIME = 1.50", "COMMENT c", "COMMENT d",
           "LONG    = 'begins &'", "CONTINUE  'and ends'", "HIERARCH ESO TEL = 5 / five")
    yield b"\0" + (header(*old) + header(*new)).encode()
    yield b"\0" + (header(*new) + header(*old)).encode()
    yield b"\0" + (header("A       = 1", "B       = 2", "") + header("B       = 2", "A       = 3",
                                                                      "CHECKSUM= 'x'")).encode()
    yield (b"\1OBJECT = 'M42' / name\nEXPTIME = 1.5d3\nCOMMENT text\nHIERARCH A B = T\n\n"
           b"LONG = 'begins &'\nCONTINUE  'ends'\nWCSAXES = 3\nCRPIX1 = 1\nEND\n")
    yield b"\1" + b"".join(f"{key:8}= {i:20}".ljust(80).encode()
                           for i, key in enumerate(("CRVAL1", "WCSAXES", "OBJECT")))


def properties_seeds():
    names = ("shape", "dtype", "axes", "grow", "pad", "ragged", "convert", "order", "samename", "hdu",
             "residue", "durability", "formats", "header", "frames", "bytes", "generation")

    def settings(defined, *pairs):
        return bytes([defined]) + b"".join(
            bytes([names.index(name.lstrip("+")) | (0x80 if name.startswith("+") else 0)]) +
            text.encode() + b"\0" for name, text in pairs)

    yield settings(0, ("dtype", "float32\n"), ("axes", "x y f s\n"), ("grow", "f"), ("pad", "-1.5"),
                   ("formats", "npy fits npy"), ("order", "name"))
    yield settings(0, ("axes", "xyz"), ("pad", "nan"), ("dtype", "int16"), ("hdu", "sci,2"))
    yield settings(1, ("ragged", "smaller"), ("samename", "replace"), ("convert", "nearest"),
                   ("residue", "drop"), ("durability", "disk"), ("hdu", "1"), ("grow", "x"))
    yield settings(1, ("order", "DATE-OBS exptime"), ("order", "object"), ("order", "arrival"))
    yield settings(1, ("header", "OBJECT = 'M42' / x\nCRVAL1 = 5.0\nCRPIX3 = 2\nCD3_3 = 1\n"),
                   ("+header", "COMMENT a\nCTYPE3 = 'FREQ'\n"), ("shape", "1"), ("formats", "txt"))
    yield settings(0, ("header", "CRVAL1 = 1\nWCSAXES = 2\nCROTA2 = 45\n"), ("generation", "1"))


def unpack_seeds():
    yield b"\0\xff\xff" + gzip.compress(b"some text, some text", mtime=0)
    yield b"\0\5\0" + gzip.compress(b"a", mtime=0) + gzip.compress(b"bcd" * 50, mtime=0) + b"\0" * 9
    yield b"\0\xff\xff" + gzip.compress(bytes(70000), mtime=0)
    image = (np.arange(64).reshape(8, 8) % 11).astype(np.int16)
    kinds = [("RICE_1", image), ("GZIP_1", image), ("GZIP_2", image), ("PLIO_1", image),
             ("HCOMPRESS_1", image.astype(np.int32)), ("RICE_1", image.astype(np.float32)),
             ("GZIP_2", image.astype(np.float64)), ("RICE_1", image.astype(np.uint8)),
             ("HCOMPRESS_1", image.astype(np.float32))]
    for codec, pixels in kinds:
        size = (8, 4) if codec == "HCOMPRESS_1" else (5, 3)
        for quantise in (16, 0) if pixels.dtype.kind == "f" and codec.startswith("GZIP") else (16,):
            file = io.BytesIO()
            fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(
                pixels, compression_type=codec, tile_size=size, quantize_level=quantise,
                quantize_method=2, dither_seed=1)]).writeto(file)
            hdu = fits.open(io.BytesIO(file.getvalue()), disable_image_compression=True)[1]
            text = hdu.header.tostring()
            data = file.getvalue()[hdu.fileinfo()["datLoc"]:]
            length = hdu.header["NAXIS1"] * hdu.header["NAXIS2"] + hdu.header["PCOUNT"]
            yield b"\1" + lines_of(text).encode() + data[:length]


def rows_seeds():
    rank = 2
    box = struct.pack("<QII8q8Q8QQQQQQQQ", 1, rank, 1, *[0] * 8, 3, 4, *[0] * 6, 3, 4, *[0] * 6, 1, 3,
                      0, 0, 0, 3, 0)
    ref = struct.pack("<QQQ", 0, 5, 99)
    frame = (struct.pack("<Q8B", 1, 1, 2, 1, 0, 1, rank, 1, 0) + ref + bytes(8) + ref * 2 +
             bytes(48) + bytes(24) + struct.pack("<4Q", 128, 3, 131, 131) + bytes(40) +
             struct.pack("<8q8Q8Q", *[0] * 8, 3, 1, *[0] * 6, 3, *[0] * 7) + bytes(24) +
             struct.pack("<ddqBB", 1, 0, 0, 9, 1) + bytes(6) + bytes(16) + bytes(24))
    assert len(box) == 264 and len(frame) == 528

    def text(value):
        return struct.pack("<I", len(value)) + value

    definition = (bytes([1, 1, 0, rank, 0, 0, 0, rank]) + bytes(16) + text(b"xy") + text(b"npy") +
                  text(b"uint8") + text(b"") + text(b"1") + text(b"y") + text(b"") + text(b"name") +
                  text(b"A       = 1".ljust(80)) + text(b"SCI,2") + struct.pack("<4q2Q", 0, 0, 2, 1, 3, 2))
    run = struct.pack("<qQ", 0, 3)
    edits = b"".join(struct.pack("<BBQqQ", kind, 0, 0, 0, 3) for kind in (1, 2, 3, 5, 4))
    count = struct.pack("<I", 1)
    redo = bytes([1, 2, 1, 0, rank]) + count + run + count + run + ref
    delta = (b"\1" + definition + struct.pack("<I", 5) + edits + count + b"\0" + count + b"\0" + run +
             count + box + count + struct.pack("<Q", 7) + bytes(8) + count + frame + redo)
    yield b"\0" + frame
    yield b"\0" + frame + count + run + count + struct.pack("<qQ", 0, 1)
    yield b"\1" + box
    yield b"\2" + definition
    yield b"\3" + delta
    yield b"\3\0" + struct.pack("<I", 2) + struct.pack("<BBQqQ", 1, 0, 0, 0, 3) * 2 + bytes(25)


def store_seeds():
    yield b"\0"
    for included in (0, 3, 8, 12, 20, 40):
        yield bytes([included])
        yield bytes([included | 0x80])
        for record in (1, 4, 9):
            yield bytes([included, 1, record, 0]) + struct.pack("<HBB", 200, 1, 3)
            yield bytes([included, 3, record])
            yield bytes([included, 4, record, 2])
        yield bytes([included, 5, 2, 5, 9])
        yield bytes([included, 0, 0, 0]) + struct.pack("<HBB", 40 * included, 0, 40)
        yield bytes([included, 7, 0, 1, 3]) + struct.pack("<HB", 100, 4) + b"abcd"
        yield bytes([included, 6, 1, 3]) + struct.pack("<HB", 10, 4) + b"abcd"


def main(directory):
    warnings.simplefilter("ignore")
    for name, make in sorted(globals().items()):
        if not name.endswith("_seeds"):
            continue
        target = pathlib.Path(directory) / name.removesuffix("_seeds")
        target.mkdir(parents=True, exist_ok=True)
        for i, seed in enumerate(make()):
            (target / f"seed-{i:02}").write_bytes(seed)


if __name__ == "__main__":
    main(sys.argv[1])
