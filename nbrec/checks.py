"""What comes from outside is checked once, where it enters; all messages have one form.

    SETTING=VALUE: expected WHAT; what to do

The checks are vectorised and cost next to nothing beside what follows them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np

LOWEST, HIGHEST = 0.5, 5.0  # stars of a rating


def whole(name: str, value: Any, low: int = 0, high: int | None = None, none: bool = False) -> None:
    """A setting that counts something.

    Args:
        name: of the setting, for the message.
        value: what was given.
        low, high: the bounds, both allowed; high None: no upper bound.
        none: whether None is allowed, too.

    Raises:
        ValueError: it is no whole number (True and 2.0 are none), or out of its bounds.
    """
    if none and value is None:
        return
    right = isinstance(value, Integral) and not isinstance(value, bool | np.bool_)
    if not right or value < low or (high is not None and value > high):
        bounds = f"{low} or more" if high is None else f"{low} to {high}"
        raise ValueError(f"{name}={value!r}: expected a whole number, {bounds}"
                         + (", or None" if none else ""))


def number(name: str, value: Any, low: float = -math.inf, high: float = math.inf,
           above: float | None = None, below: float | None = None, none: bool = False) -> None:
    """A setting that measures something.

    Args:
        name, value, none: as in ``whole``.
        low, high: bounds that are allowed.
        above, below: bounds that are not allowed; in place of low and high.

    Raises:
        ValueError: it is not a finite number, or out of its bounds.
    """
    if none and value is None:
        return
    right = isinstance(value, Real) and not isinstance(value, bool | np.bool_)
    right = right and math.isfinite(value) and low <= value <= high
    right = right and (above is None or value > above) and (below is None or value < below)
    if not right:
        parts = [f"above {above:g}" if above is not None else
                 f"{low:g} or more" if low > -math.inf else "",
                 f"below {below:g}" if below is not None else
                 f"at most {high:g}" if high < math.inf else ""]
        bounds = " and ".join(filter(None, parts))
        raise ValueError(f"{name}={value!r}: expected a number{' ' * bool(bounds)}{bounds}"
                         + (", or None" if none else ""))


def choice(name: str, value: Any, options: Iterable[Any]) -> None:
    """A setting that names one of a few.

    Raises:
        ValueError: it is none of them.
    """
    options = list(options)
    if not any(value is option or type(value) is type(option) and value == option
               for option in options):  # 1 is not True
        raise ValueError(f"{name}={value!r}: expected one of {', '.join(map(str, options))}")


def indices(values: Any, n: int, what: str = "catalogue index") -> np.ndarray:
    """Whole numbers in 0..n-1, whatever integer type they come in.

    Args:
        values: array-like.
        n: how many there are to choose from.
        what: the name of one, for the message.

    Returns:
        the array, of its own integer type.

    Raises:
        ValueError: another type, or out of range; the message gives the first place.
    """
    array = np.asarray(values)
    if not array.size:
        return array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise ValueError(f"{what} of type {array.dtype} ({_short(array)}): expected whole numbers "
                         f"in 0..{n - 1}")
    if array.min() < 0 or array.max() >= n:
        flat = array.ravel()
        at = int(np.argmax((flat < 0) | (flat >= n)))
        raise ValueError(f"{what} {flat[at]} at position {at}: expected 0..{n - 1}"
                         + (MOVIE_IDS if what == "catalogue index" else ""))
    return array


MOVIE_IDS = "; if these are movieIds, give them to recommend, or make indices of them first"


def histories(histories: Sequence[Any], n_items: int, empty: bool = False
              ) -> tuple[np.ndarray, np.ndarray]:
    """Many users' histories as one flat array, checked.

    Args:
        histories: for each user int (L,), catalogue indices in 0..n_items-1, oldest first.
        n_items: size V of the catalogue.
        empty: whether a history may be empty.

    Returns:
        int32 (M,), all items one after the other, and int64 (B + 1,), where each history begins.

    Raises:
        ValueError: it is not a list of histories, a history holds anything but indices of the
            catalogue, or is empty where it may not be; the message gives history and position.
    """
    flat = isinstance(histories, np.ndarray) and (
        histories.ndim == 0 or histories.ndim == 1 and histories.dtype != object)
    if flat or isinstance(histories, str) or not isinstance(histories, Sequence | np.ndarray):
        raise ValueError(f"histories={_short(histories)}: expected a list of histories, one array "
                         "of catalogue indices a user; of a single history make [history]")
    arrays = [history if isinstance(history, np.ndarray) else _array(history, u)
              for u, history in enumerate(histories)]
    lengths = np.fromiter((a.size for a in arrays), np.int64, len(arrays))
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    filled = [a for a in arrays if a.size]  # an empty list has no type of its own
    for u, a in enumerate(arrays):
        if a.ndim != 1 or a.size and a.dtype.kind not in "iu":
            raise ValueError(f"history {u} is {a.ndim}-dimensional of type {a.dtype} "
                             f"({_short(a)}): expected one dimension of whole numbers in "
                             f"0..{n_items - 1}")
    if not empty and len(lengths) and not lengths.min():
        raise ValueError(f"history {int(lengths.argmin())} is empty, so it has no next item: give "
                         "at least one item (for nobody's history, recommend what is popular)")
    items = np.concatenate(filled) if filled else np.empty(0, np.int32)
    if len(items) and (items.min() < 0 or items.max() >= n_items):
        at = int(np.argmax((items < 0) | (items >= n_items)))
        u = int(np.searchsorted(offsets, at, side="right")) - 1
        raise ValueError(f"history {u} has {int(items[at])} at position {at - offsets[u]}: "
                         f"expected catalogue indices in 0..{n_items - 1}{MOVIE_IDS}")
    return items.astype(np.int32, copy=False), offsets


def movie_ids(movies: Iterable[int], catalogue: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """MovieIds as catalogue indices, int64 (L,) in the same order; and those that are not in the
    catalogue, int64.

    Args:
        movies: movieIds.
        catalogue: int64 (V,), the movieId of each index, ascending.

    Raises:
        ValueError: it is no list, or a movieId is no whole number, or out of range.
    """
    listed = isinstance(movies, Iterable) and not isinstance(movies, str | bytes)
    if not listed or isinstance(movies, np.ndarray) and movies.ndim != 1:
        raise ValueError(f"movies={movies!r}: expected a list of movieIds; of a single one make "
                         "[movieId]")
    listing = list(movies)
    for place, movie in enumerate(listing):
        whole(f"movies[{place}]", movie, high=2**63 - 1)
    ids = np.array(listing, np.int64)
    known = np.isin(ids, catalogue)
    return np.searchsorted(catalogue, ids[known]), ids[~known]


def repeated_pair(users: np.ndarray, movies: np.ndarray) -> tuple[int, int] | None:
    """The first two rows of a pair of user and movie that stands in more than one, or None.

    Args:
        users, movies: int64 (M,), 0 or more; row by row.
    """
    if not len(users):
        return None
    width = int(movies.max()) + 1
    if (int(users.max()) + 1) * width <= 32 * len(users):  # dense: marking is faster than sorting
        key = users * width
        key += movies
        there = np.zeros(int(key.max()) + 1, bool)
        there[key] = True
        if np.count_nonzero(there) == len(key):
            return None
    if users.max() >= 2**32 or movies.max() >= 2**32:
        users, movies = (np.unique(ids, return_inverse=True)[1] for ids in (users, movies))
    # One 64-bit key a row: 8 bytes a rating, and files sorted by (user, movie) need no sorting.
    key = users.astype(np.uint64)
    key <<= np.uint64(32)
    key |= movies.astype(np.uint64)
    if (key[1:] > key[:-1]).all():
        return None
    ordered = np.sort(key)
    again = ordered[1:][ordered[1:] == ordered[:-1]]
    if not len(again):
        return None
    first, second = np.flatnonzero(key == again[0])[:2]
    return int(first), int(second)


def _array(history: Any, u: int) -> np.ndarray:
    ordered = isinstance(history, Sequence) or hasattr(history, "__array__")
    if isinstance(history, str | bytes) or not ordered:  # a set has no order, a stream one reading
        raise ValueError(f"history {u} is {_short(history)}: expected a list of histories, one "
                         "array of catalogue indices a user; of a single history make [history]")
    if hasattr(history, "__array__"):
        return np.asarray(history)
    if any(isinstance(item, bool | np.bool_) for item in history):
        return np.array(history, bool)  # numpy would make 0 or 1 of it beside numbers
    try:
        return np.asarray(history)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"history {u} is {_short(history)}: expected one dimension of whole "
                         "numbers, indices of the catalogue") from error


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else text[:77] + "..."
