"""In which order a user's ratings stand: by time, and what decides where the time does not."""

from __future__ import annotations

import numpy as np

from nbrec import checks

TIES = ("file", "random", "hash")


def time_order(users: np.ndarray, movies: np.ndarray, times: np.ndarray, ties: str = "file",
               resolution: int = 1, seed: int = 0) -> np.ndarray:
    """The rows of a table of ratings by user and time.

    Args:
        users, movies: int64 (M,), ids, 0 or more.
        times: int64 or float64 (M,), seconds.
        ties: what decides between ratings of one instant: "file", their order in the file;
            "random", a draw; "hash", the order in which ``hash_places`` says that MovieLens 1M
            was written.
        resolution: the length of an instant in seconds. Times are rounded to multiples of it,
            halves to even ones: with 64 that is what float32 does to times from 1987 to 2004, so
            "hash" and 64 give the order of RecBole 1.1 to 1.2.1 on MovieLens 1M.
        seed: of the draw.

    Returns:
        int64 (M,), the rows' places in the table.

    Raises:
        ValueError: ties is none of those, or resolution no whole number of 1 or more.
    """
    checks.choice("ties", ties, TIES)
    checks.whole("resolution", resolution, low=1)
    if resolution > 1:
        times = np.rint(times / resolution).astype(np.int64)
    if ties == "file":
        return _stable_order(users, times)
    places = (np.random.default_rng(seed).permutation(len(users)) if ties == "random"
              else hash_places(users, movies))
    first = np.argsort(places, kind="stable")
    return first[_stable_order(users[first], times[first])]


def hash_places(users: np.ndarray, movies: np.ndarray) -> np.ndarray:
    """Where a film of a user stood in the hash table that MovieLens 1M was written from.

    The ratings of a user stand in ratings.dat neither by time nor by film, but in the order in
    which a Perl 5.6 hash hands out its keys, the decimal digits of the film's number:

        h = 33 h + byte over the digits, modulo 2^32;  h = h + h >> 5;  place = h mod B

    B, a power of two from 8 on, doubles when the table is full, and stays so for the users after.
    (Perl looks only when a key falls into an empty place, so a table may hold a key more: user 2
    has 129 films in 128 places.) Films of one place stand in an order that is not known.

    Args:
        users, movies: int64 (M,), ids, 0 or more; users are taken in ascending order.

    Returns:
        int64 (M,), in 0..B-1.
    """
    ids, film = np.unique(movies, return_inverse=True)
    hashes = np.zeros(len(ids), np.uint32)
    for i, movie in enumerate(ids):
        h = 0
        for byte in str(movie).encode():
            h = (33 * h + byte) & 0xFFFFFFFF
        hashes[i] = (h + (h >> 5)) & 0xFFFFFFFF
    _, user, counts = np.unique(users, return_inverse=True, return_counts=True)
    most = np.maximum.accumulate(counts)  # of this user and all before
    buckets = 2 ** np.maximum(3, np.ceil(np.log2(np.maximum(most - 1, 1)))).astype(np.int64)
    return hashes[film].astype(np.int64) % buckets[user]


def _stable_order(users: np.ndarray, times: np.ndarray) -> np.ndarray:
    """int64 (M,): the rows sorted by (user, time, place in the table)."""
    whole = users.dtype.kind in "iu" and times.dtype.kind in "iu"
    if not whole or len(users) and (users.min() < 0 or users.max() >= 2**31 or times.min() < 0
                                    or times.max() >= 2**32):
        # Ids or times too wide, or too fine (fractions of a second), to share one 64-bit key:
        # two stable sorts, the finer one first.
        order = np.argsort(times, kind="stable")
        return order[np.argsort(users[order], kind="stable")]
    key = users << 32
    key |= times
    return np.argsort(key, kind="stable")
