"""XXH3-64, the checksum of everything in a store, in numpy.

Written from the algorithm's published description (XXH3, stable since xxHash 0.8), so that
read_store.py needs nothing but numpy. Not meant to be fast: about 100 MB/s on long input.
"""
import struct

import numpy as np

MASK = (1 << 64) - 1
P32_1, P32_2, P32_3 = 0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D
P64_1, P64_2, P64_3 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9
P64_4, P64_5 = 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5
PRIME_MX1, PRIME_MX2 = 0x165667919E3779F9, 0x9FB21C651E98DF25
SECRET = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671f"
    "cb79e64eccc0e578825ad07dccff7221b8084674f743248ee03590e6813a264c"
    "3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8"
    "a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364"
    "eac5ac8334d3ebc3c581a0fffa1363eb170ddd51b7f0da49d316552629d4689e"
    "2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e")
STRIPE = 64
STRIPES = (len(SECRET) - STRIPE) // 8  # in a block
BLOCK = STRIPE * STRIPES


def u32(b, at):
    return struct.unpack_from("<I", b, at)[0]


def u64(b, at):
    return struct.unpack_from("<Q", b, at)[0]


def fold(a, b):
    product = a * b
    return (product ^ (product >> 64)) & MASK


def rotate(n, by):
    return (n << by | n >> (64 - by)) & MASK


def swap(n, size):
    return int.from_bytes(n.to_bytes(size, "little"), "big")


def avalanche(h):
    h ^= h >> 37
    h = h * PRIME_MX1 & MASK
    return h ^ h >> 32


def avalanche_xxh64(h):
    h ^= h >> 33
    h = h * P64_2 & MASK
    h ^= h >> 29
    h = h * P64_3 & MASK
    return h ^ h >> 32


def mix16(data, at, secret_at, seed):
    return fold(u64(data, at) ^ (u64(SECRET, secret_at) + seed & MASK),
                u64(data, at + 8) ^ (u64(SECRET, secret_at + 8) - seed & MASK))


def short(data, seed):
    n = len(data)
    if n > 8:
        low = u64(data, 0) ^ ((u64(SECRET, 24) ^ u64(SECRET, 32)) + seed & MASK)
        high = u64(data, n - 8) ^ ((u64(SECRET, 40) ^ u64(SECRET, 48)) - seed & MASK)
        return avalanche(n + swap(low, 8) + high + fold(low, high) & MASK)
    if n >= 4:
        seed ^= swap(seed & 0xFFFFFFFF, 4) << 32
        key = (u64(SECRET, 8) ^ u64(SECRET, 16)) - seed & MASK
        h = (u32(data, n - 4) + (u32(data, 0) << 32)) ^ key
        h ^= rotate(h, 49) ^ rotate(h, 24)
        h = h * PRIME_MX2 & MASK
        h ^= (h >> 35) + n & MASK
        h = h * PRIME_MX2 & MASK
        return h ^ h >> 28
    if n > 0:
        combined = data[0] << 16 | data[n >> 1] << 24 | data[n - 1] | n << 8
        return avalanche_xxh64(combined ^ ((u32(SECRET, 0) ^ u32(SECRET, 4)) + seed & MASK))
    return avalanche_xxh64(seed ^ u64(SECRET, 56) ^ u64(SECRET, 64))


def middle(data, seed):
    n = len(data)
    total = n * P64_1
    if n <= 128:
        for i in range((n - 1) // 32, -1, -1):
            total += mix16(data, 16 * i, 32 * i, seed)
            total += mix16(data, n - 16 * (i + 1), 32 * i + 16, seed)
        return avalanche(total & MASK)
    total += sum(mix16(data, 16 * i, 16 * i, seed) for i in range(8))
    total = avalanche(total & MASK)
    total += sum(mix16(data, 16 * i, 16 * (i - 8) + 3, seed) for i in range(8, n // 16))
    total += mix16(data, n - 16, 136 - 17, seed)
    return avalanche(total & MASK)


def stripe_sums(stripes, keys):
    """What each stripe (row of 8 words) adds to the accumulators; `keys`: a row a stripe."""
    keyed = stripes ^ keys
    product = (keyed & np.uint64(0xFFFFFFFF)) * (keyed >> np.uint64(32))
    return product + stripes[..., [1, 0, 3, 2, 5, 4, 7, 6]]


def long(data, seed):
    n = len(data)
    parts = np.frombuffer(SECRET, "<u8").reshape(-1, 2) + np.array([[seed, -seed & MASK]], "<u8")
    secret = parts.tobytes()
    keys = np.stack([np.frombuffer(secret, "<u8", 8, 8 * i) for i in range(STRIPES)])
    last_key = np.frombuffer(secret, "<u8", 8, len(secret) - STRIPE)
    acc = np.array([P32_3, P64_1, P64_2, P64_3, P64_4, P32_2, P64_5, P32_1], "<u8")

    blocks = (n - 1) // BLOCK
    words = np.frombuffer(data, "<u8", blocks * BLOCK // 8).reshape(blocks, STRIPES, 8)
    for block in stripe_sums(words, keys).sum(axis=1, dtype="<u8"):
        acc = acc + block
        acc = (acc ^ acc >> np.uint64(47) ^ last_key) * np.uint64(P32_1)
    rest = (n - 1 - blocks * BLOCK) // STRIPE
    words = np.frombuffer(data, "<u8", rest * 8, blocks * BLOCK).reshape(rest, 8)
    acc = acc + stripe_sums(words, keys[:rest]).sum(axis=0, dtype="<u8")
    final = np.frombuffer(data, "<u8", 8, n - STRIPE)
    acc = acc + stripe_sums(final, np.frombuffer(secret, "<u8", 8, len(secret) - STRIPE - 7))

    lanes = [int(lane) for lane in acc]
    total = n * P64_1
    for i in range(4):
        total += fold(lanes[2 * i] ^ u64(secret, 11 + 16 * i),
                      lanes[2 * i + 1] ^ u64(secret, 11 + 16 * i + 8))
    return avalanche(total & MASK)


def xxh3_64(data, seed=0):
    data = bytes(data)
    if len(data) <= 16:
        return short(data, seed)
    return middle(data, seed) if len(data) <= 240 else long(data, seed)
