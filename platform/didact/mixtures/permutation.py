"""A seeded random order of any number of rows, of which any position is found without making the order."""

import functools
import hashlib
import struct

_ROUNDS = 8
_MASK64 = (1 << 64) - 1


def permuted(index: int, size: int, key: tuple[int, str, int]) -> int:
    """Position `index` of a pseudo-random permutation of `range(size)`; constant time and memory.

    A Feistel network permutes the next power of four; those outside the range are sent through again until they fall
    inside (cycle walking: Black and Rogaway 2002, "Ciphers with arbitrary finite domains").

    Args:
        index: 0 <= index < size.
        size: length of the permutation.
        key: (seed, source name, epoch); each key has its own order.
    """
    if size == 1:
        return 0
    half_bits = ((size - 1).bit_length() + 1) // 2
    keys = _round_keys(key)
    position = index
    while True:
        position = _feistel(position, half_bits, keys)
        if position < size:
            return position


def _feistel(value: int, half_bits: int, keys: tuple[int, ...]) -> int:
    mask = (1 << half_bits) - 1
    left, right = value >> half_bits, value & mask
    for key in keys:
        mixed = (right ^ key) * 0xBF58476D1CE4E5B9 & _MASK64
        mixed = (mixed ^ mixed >> 31) * 0x94D049BB133111EB & _MASK64
        left, right = right, left ^ ((mixed ^ mixed >> 31) & mask)
    return left << half_bits | right


@functools.lru_cache(maxsize=1024)
def _round_keys(key: tuple[int, str, int]) -> tuple[int, ...]:
    seed, name, epoch = key
    digest = hashlib.blake2b(f"{seed}/{epoch}/{name}".encode(), digest_size=8 * _ROUNDS).digest()
    return struct.unpack(f"<{_ROUNDS}Q", digest)
