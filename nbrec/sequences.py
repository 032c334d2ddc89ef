"""From a table of ratings to one time-ordered sequence of films per user (thesis chapter 2)."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from numbers import Integral

import numpy as np
import pandas as pd

from nbrec import checks

# The last item of a sequence is the target, so a sequence needs one more item to be a history.
SHORTEST_SEQUENCE = 2
LOWEST, HIGHEST = 0.5, 5.0  # stars
EXACT = 2**53  # from here on, float64 no longer tells neighbouring whole numbers apart


@dataclass(frozen=True)
class SequenceSettings:
    """The five preprocessing steps of thesis section 2.2 as numbers.

    Args:
        min_length: users with fewer items than this, after truncation, are dropped (>= 1).
        max_length: users with more items than this, after truncation, are dropped.
        left_truncate: how many of each user's first items are cut off (0 or 20 in the thesis).
        min_rating: items rated lower than this are dropped, in stars (0 to 5); None keeps all.
        random_sample: share of the users that are kept, in (0, 1].
        seed: seed of the sample, 0 or more.

    Raises:
        ValueError: a number is of another kind or out of its range; the message names it.
    """

    min_length: int = 5
    max_length: int = 90
    left_truncate: int = 0
    min_rating: float | None = 3.0
    random_sample: float = 1.0
    seed: int = 0

    def __post_init__(self):
        checks.whole("min_length", self.min_length, 1)
        checks.whole("max_length", self.max_length, 1)
        checks.whole("left_truncate", self.left_truncate)
        checks.number("min_rating", self.min_rating, 0, HIGHEST, none=True)
        checks.number("random_sample", self.random_sample, above=0, high=1)
        checks.whole("seed", self.seed)
        if self.min_length > self.max_length:
            raise ValueError(f"min_length={self.min_length} with max_length={self.max_length}: "
                             "expected min_length <= max_length")


@dataclass(frozen=True)
class Sequences:
    """The histories of many users, flat in memory.

    User ``u`` owns ``items[offsets[u]:offsets[u + 1]]``, oldest first. Arrays of other integer
    types are converted.

    Args:
        users: int64 (U,), the users' original ids, one for each row; ascending from
            `build_sequences`, in the order asked for from `select`.
        items: int32 (M,), catalogue indices in 0..V-1.
        offsets: int64 (U + 1,), where each user's items begin; the last entry is M.
        catalogue: int64 (V,), the movieId of each index, ascending.
        funnel: one row per preprocessing step with the users, movies and ratings that are left.

    Raises:
        ValueError: the arrays do not fit together; the message names the array and the place.
    """

    users: np.ndarray
    items: np.ndarray
    offsets: np.ndarray
    catalogue: np.ndarray
    funnel: pd.DataFrame = field(default_factory=pd.DataFrame, repr=False, compare=False)

    def __post_init__(self):
        for name in ("users", "items", "offsets", "catalogue"):
            array = np.asarray(getattr(self, name))
            if array.ndim != 1 or array.size and array.dtype.kind not in "iu":
                raise ValueError(f"{name} is {array.ndim}-dimensional of type {array.dtype}: "
                                 "expected one dimension of whole numbers")
            if name == "items":
                checks.indices(array, len(self.catalogue))
            elif array.size and (array.min() < 0 or array.max() >= 2**63):
                at = int(np.argmax((array < 0) | (array >= 2**63)))
                raise ValueError(f"{name} has {array[at]} at position {at}: expected 0 to 2^63 - 1")
            dtype = np.int32 if name == "items" else np.int64
            object.__setattr__(self, name, array.astype(dtype, copy=False))
        if len(self.offsets) != len(self.users) + 1:
            raise ValueError(f"{len(self.offsets)} offsets of {len(self.users)} users: expected "
                             "one for each user, and the number of items at the end")
        if self.offsets[0] != 0 or self.offsets[-1] != len(self.items):
            raise ValueError(f"offsets from {self.offsets[0]} to {self.offsets[-1]}: expected 0 to "
                             f"{len(self.items)}, the number of items")
        for name, lowest in (("offsets", 0), ("catalogue", 1)):
            steps = np.diff(getattr(self, name))
            if len(steps) and steps.min() < lowest:
                at = int(np.argmax(steps < lowest)) + 1
                before, here = getattr(self, name)[at - 1 : at + 1]
                raise ValueError(f"{name} has {here} after {before} at position {at}: expected "
                                 f"ascending numbers{', each once' * lowest}")

    @classmethod
    def _made(cls, *values) -> Sequences:
        """From arrays that are parts of checked ones, so that nothing is checked twice."""
        sequences = object.__new__(cls)
        for name, value in zip(cls.__dataclass_fields__, values, strict=True):
            object.__setattr__(sequences, name, value)
        return sequences

    def __len__(self) -> int:
        return len(self.users)

    def __getitem__(self, user: int) -> np.ndarray:
        if not isinstance(user, Integral) or isinstance(user, bool):
            raise ValueError(f"user position {user!r}: expected one whole number in "
                             f"0..{len(self) - 1}; select takes many")
        if not 0 <= user < len(self):
            raise IndexError(f"user position {user}: expected 0..{len(self) - 1}")
        return self.items[self.offsets[user] : self.offsets[user + 1]]

    @property
    def lengths(self) -> np.ndarray:
        """int64 (U,): the number of items of each user."""
        return np.diff(self.offsets)

    @property
    def n_items(self) -> int:
        """The size V of the catalogue."""
        return len(self.catalogue)

    def select(self, positions: np.ndarray) -> Sequences:
        """The users at these positions, in this order, with the same catalogue.

        Args:
            positions: int (P,), positions in 0..U-1; or bool (U,), which users.

        Raises:
            ValueError: a position is out of range or no whole number, or a mask has another length.
        """
        positions = np.asarray(positions)
        if positions.ndim != 1:
            raise ValueError(f"user positions of shape {positions.shape}: expected one dimension; "
                             "of a single position make [position]")
        if positions.dtype == bool and len(positions):
            if len(positions) != len(self):
                raise ValueError(f"a mask of {len(positions)} entries for {len(self)} users: "
                                 "expected one entry for each user")
            positions = np.flatnonzero(positions)
        positions = checks.indices(positions, len(self), "user position").astype(np.int64)
        lengths = self.lengths[positions]
        rows = _ranges(self.offsets[positions], lengths)
        return Sequences._made(
            self.users[positions], self.items[rows], _offsets(lengths), self.catalogue, self.funnel
        )

    def shorten(self, n: int) -> Sequences:
        """The same users without each one's last n items.

        Raises:
            ValueError: n is no whole number of 0 or more, or a sequence would be left with fewer
                than two items.
        """
        checks.whole("n", n)
        lengths = self.lengths - n
        if len(self) and lengths.min() < SHORTEST_SEQUENCE:
            short = int(lengths.argmin())
            raise ValueError(
                f"user {self.users[short]} has {self.lengths[short]} items, {n} are to be cut off: "
                f"expected {SHORTEST_SEQUENCE} or more to be left; raise min_length"
            )
        rows = _ranges(self.offsets[:-1], lengths)
        return Sequences._made(
            self.users, self.items[rows], _offsets(lengths), self.catalogue, self.funnel
        )

    def pieces(self, n: int) -> tuple[Sequences, np.ndarray]:
        """Cut into pieces of at most n + 1 items: every item but a user's first is a target once.

        A user's first piece begins with the first item. Each later one has n + 1 items, of which
        only the last ceil(n / 2) are targets: those before them are targets of earlier pieces and
        stand there as context, so that no target far into a history is predicted from less than
        half of what the model may see.

        Returns:
            The pieces, as many rows for a user as there are pieces; and int64 (pieces,), how many
            items after the first are no targets of that piece.

        Raises:
            ValueError: n is no whole number of 1 or more.
        """
        checks.whole("n", n, 1)
        new = -(-n // 2)
        later = -(-np.maximum(self.lengths - 1 - n, 0) // new)  # pieces after a user's first
        owner = np.repeat(np.arange(len(self)), later + 1)
        to_come = np.cumsum(later + 1)[owner] - 1 - np.arange(len(owner))
        ends = self.lengths[owner] - new * to_come
        starts = np.where(to_come < later[owner], ends - n - 1, 0)
        rows = _ranges(self.offsets[owner] + starts, ends - starts)
        pieces = Sequences._made(self.users[owner], self.items[rows], _offsets(ends - starts),
                                 self.catalogue, self.funnel)
        return pieces, np.where(starts > 0, n - new, 0)

    def histories(self) -> list[np.ndarray]:
        """What a model may see in evaluation: each sequence without its last item."""
        return [self[u][:-1] for u in range(len(self))]

    def targets(self) -> np.ndarray:
        """int64 (U,): the last item of each sequence, the next best item to be found."""
        return self.items[self.offsets[1:] - 1].astype(np.int64)

    def digest(self) -> str:
        """A sha256 of users, items and catalogue: equal digests mean equal data."""
        digest = hashlib.sha256()
        for array, dtype in ((self.users, "<i8"), (self.items, "<i4"), (self.offsets, "<i8"),
                             (self.catalogue, "<i8")):
            digest.update(np.ascontiguousarray(array, dtype=dtype).tobytes())
        return digest.hexdigest()


def build_sequences(ratings: pd.DataFrame, settings: SequenceSettings | None = None) -> Sequences:
    """Turn a table of ratings into sequences with the five steps of thesis section 2.2.

    1. order each user's items in time; 2. cut the first ``left_truncate``; 3. keep users with
    ``min_length`` to ``max_length`` items; 4. draw a simple random sample of the users; 5. drop
    items rated under ``min_rating``. A sequence of fewer than two items cannot be evaluated and is
    dropped, in a step of its own.

    Items of one instant stay in the order of the file. Without a column ``rating`` step 5 is
    skipped, and the funnel says so.

    Args:
        ratings: columns userId and movieId (whole numbers, 0 to 2^63 - 1), position (whole numbers,
            0 or more) or timestamp (seconds as whole numbers or float64, or dates of pandas), and
            optionally rating (0.5 to 5 stars). Where both are there, position decides. Whole
            numbers may be written as text or float64. Each pair of user and movie stands once; rows
            stand in the order of their file.
        settings: the steps' numbers; the thesis's by default.

    Returns:
        The sequences, with a funnel of what every step left.

    Raises:
        ValueError: a column or a value is missing or of another kind (the message gives column,
            type, row and value), a pair stands twice, or no user is left.
    """
    settings = settings or SequenceSettings()
    if not isinstance(ratings, pd.DataFrame):
        raise ValueError(f"ratings of type {type(ratings).__name__}: expected a table "
                         "(pandas.DataFrame); of a loaded data set give its ratings")
    time = next((c for c in ("position", "timestamp") if c in ratings), None)
    needed = ["userId", "movieId", time or "timestamp"]
    missing = [c for c in needed if c not in ratings]
    if missing:
        raise ValueError(
            f"the ratings lack the column(s) {', '.join(missing)} (found: "
            f"{', '.join(map(str, ratings.columns))}); expected userId, movieId and timestamp or "
            "position"
        )
    all_users, all_movies, times = (_numbers(ratings, column) for column in needed)
    if pair := checks.repeated_pair(all_users, all_movies):
        first, second = pair
        raise ValueError(f"user {all_users[first]} and movie {all_movies[first]} stand in rows "
                         f"{first} and {second}, counted from 0: expected each pair once; keep one "
                         "of them, as ratings.drop_duplicates(['userId', 'movieId']) does")
    filtered = settings.min_rating is not None and "rating" in ratings
    stars = _stars(ratings) if filtered else None
    movie_codes, movie_ids = _coded(all_movies)
    funnel = _Funnel(len(movie_ids))

    # Step 1. A stable sort by (user, time) leaves ties in the order of the file.
    order = _stable_order(all_users, times)
    user_ids = all_users[order]
    movies = movie_codes[order]
    starts = np.flatnonzero(np.r_[True, user_ids[1:] != user_ids[:-1]]) if len(order) else order
    users = user_ids[starts]
    counts = np.diff(np.r_[starts, len(order)])
    del user_ids, movie_codes
    funnel.add("1 order in time", counts, np.arange(len(movie_ids)))

    # Step 2.
    cut = np.minimum(counts, settings.left_truncate)
    starts, counts = starts + cut, counts - cut
    if settings.left_truncate:
        funnel.add(f"2 cut the first {settings.left_truncate}", counts,
                   movies[_ranges(starts, counts)])
    else:
        funnel.repeat("2 cut the first 0", "original sequences: nothing is cut")

    # Step 3.
    keep = (counts >= settings.min_length) & (counts <= settings.max_length)
    short = int((counts < settings.min_length).sum())
    long = int((counts > settings.max_length).sum())
    users, starts, counts = users[keep], starts[keep], counts[keep]
    rows = _ranges(starts, counts)
    funnel.add(f"3 {settings.min_length} to {settings.max_length} items", counts, movies[rows],
               f"{short:,} users too short, {long:,} too long")

    # Step 4.
    if settings.random_sample < 1:
        size = round(settings.random_sample * len(users))
        chosen = np.random.default_rng(settings.seed).choice(len(users), size, replace=False)
        chosen.sort()
        users, starts, counts = users[chosen], starts[chosen], counts[chosen]
        rows = _ranges(starts, counts)
    movies = movies[rows]
    funnel.add(f"4 sample {settings.random_sample:.0%} of the users", counts, movies)

    # Step 5.
    if not filtered:
        why = "no filter asked for" if "rating" in ratings else "the data have no ratings: skipped"
        funnel.repeat("5 rating filter", why)
    else:
        good = stars[order[rows]] >= float(settings.min_rating)
        owner = np.repeat(np.arange(len(users)), counts)
        counts = np.bincount(owner[good], minlength=len(users))
        movies = movies[good]
        funnel.add(f"5 ratings of {settings.min_rating:g} or more", counts, movies)

    keep = counts >= SHORTEST_SEQUENCE
    if not keep.all():
        movies = movies[np.repeat(keep, counts)]
        users, counts = users[keep], counts[keep]
    funnel.add(f"at least {SHORTEST_SEQUENCE} items left", counts, movies,
               "a history and a target")
    table = funnel.table()
    if not len(users):
        raise ValueError(
            f"no user is left with {settings}. What each step left:\n{table.to_string(index=False)}"
            "\nWiden min_length..max_length, or lower min_rating or left_truncate."
        )
    items, left = _coded(movies)
    return Sequences(users, items, _offsets(counts), movie_ids[left], table)


@dataclass(frozen=True)
class Fold:
    """One split of the users: positions into ``Sequences.users``.

    Args:
        index: the number of the fold, 0..k-1.
        train, validation, test: int64 arrays; they share no user, or hold all of them where the
            last items are left out.
        leave_out: whether test targets are the users' last items, validation targets their last
            but one, and training knows what came before.
    """

    index: int
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    leave_out: bool = False

    def parts(self, sequences: Sequences) -> tuple[Sequences, Sequences, Sequences]:
        """The sequences to train, validate and test on; a target is the last item of one."""
        parts = map(sequences.select, (self.train, self.validation, self.test))
        return tuple(
            part.shorten(n) if self.leave_out and n else part
            for part, n in zip(parts, (2, 1, 0), strict=True)
        )


def k_folds(n_users: int, k: int = 10, seed: int = 0) -> list[Fold]:
    """Split users into k folds; each user stands exactly once in a test part (thesis section 4.1).

    The shuffled users are cut into k parts. Fold i tests on part i, validates on part i + 1 and
    trains on the others: 80/10/10 for k = 10.

    Args:
        n_users: how many users there are.
        k: how many folds, 3 or more.
        seed: seed of the shuffle, 0 or more.

    Raises:
        ValueError: fewer than three folds, fewer users than folds, or no whole numbers.
    """
    checks.whole("n_users", n_users)
    checks.whole("k", k)
    checks.whole("seed", seed)
    if not 3 <= k <= n_users:
        raise ValueError(f"{k} folds of {n_users} users: expected 3 <= folds <= users")
    parts = np.array_split(np.random.default_rng(seed).permutation(n_users), k)
    folds = []
    for i in range(k):
        j = (i + 1) % k
        train = np.concatenate([part for p, part in enumerate(parts) if p not in (i, j)])
        folds.append(Fold(i, np.sort(train), np.sort(parts[j]), np.sort(parts[i])))
    return folds


def leave_one_out(n_users: int, repetitions: int = 1) -> list[Fold]:
    """All users in every part: the split of most published numbers, not of the thesis.

    The model is trained on what came before in the histories that it is tested on, but in other
    users' futures as well: nothing is split by time. The repetitions differ in the seed of the
    training that follows from their index.

    Raises:
        ValueError: n_users or repetitions is no whole number of 1 or more.
    """
    checks.whole("n_users", n_users, 1)
    checks.whole("repetitions", repetitions, 1)
    everybody = np.arange(n_users)
    return [Fold(i, everybody, everybody, everybody, leave_out=True) for i in range(repetitions)]


def split_hash(sequences: Sequences, folds: list[Fold]) -> str:
    """A sha256 of the data and of who trains, validates and tests: stored with every result."""
    digest = hashlib.sha256(sequences.digest().encode())
    for fold in folds:
        for part in (fold.train, fold.validation, fold.test):
            digest.update(np.ascontiguousarray(part, dtype="<i8").tobytes() + b"|")
    return digest.hexdigest()


class _Funnel:
    """Collects what every preprocessing step leaves."""

    def __init__(self, n_movies: int):
        self.n_movies = n_movies
        self.rows: list[dict] = []

    def add(self, step: str, counts: np.ndarray, movies: np.ndarray, note: str = "") -> None:
        seen = np.zeros(self.n_movies, dtype=bool)
        seen[movies] = True
        self.rows.append({"step": step, "users": int((counts > 0).sum()),
                          "movies": int(seen.sum()), "ratings": int(counts.sum()), "note": note})

    def repeat(self, step: str, note: str) -> None:
        self.rows.append({**self.rows[-1], "step": step, "note": note})

    def table(self) -> pd.DataFrame:
        return pd.DataFrame(self.rows)


def _numbers(ratings: pd.DataFrame, column: str) -> np.ndarray:
    """A column as int64, or a timestamp in parts of a second as float64, checked.

    Ids and places are what they are or refused, never rounded or wrapped. Of times only the order
    is used, so dates become whole numbers in whatever unit they have.
    """
    series = ratings[column]
    if not isinstance(series, pd.Series):
        raise ValueError(f"the ratings have {column} in {series.shape[1]} columns: expected one")
    if series.dtype != np.int64 and (missing := int(series.isna().sum())):
        raise ValueError(f"{missing:,} of {len(series):,} ratings have no {column}: expected a "
                         "value in every row")
    if isinstance(series.dtype, pd.CategoricalDtype):
        series = series.astype(series.cat.categories.dtype)
    if column == "timestamp" and pd.api.types.is_datetime64_any_dtype(series):
        return series.astype("int64").to_numpy()
    lowest = -(2**63) if column == "timestamp" else 0
    expected = ("seconds since 1970 as whole numbers or float64, or dates as pandas.to_datetime "
                "makes them" if column == "timestamp" else "whole numbers, 0 to 2^63 - 1")
    values = series.to_numpy()
    if values.dtype.kind in "iu":
        if not len(values) or values.min() >= lowest and values.max() < 2**63:
            return values.astype(np.int64, copy=False)
        good = (values >= lowest) & (values < 2**63)
    elif values.dtype == np.float64:
        good = np.abs(values) < EXACT  # False for inf
        if column != "timestamp":
            good &= (values == np.floor(values)) & (values >= lowest)
    elif values.dtype == object or not len(values):
        values = np.array([_whole(value) for value in values], dtype=object)
        good = np.array([v is not None and lowest <= v < 2**63 for v in values], dtype=bool)
    else:
        good = np.zeros(len(values), bool)
    if not good.all():
        at = int(np.argmin(good))
        raise ValueError(f"column {column} of type {series.dtype} has {series.iloc[at]!r} in row "
                         f"{at}, counted from 0: expected {expected}")
    keep = column == "timestamp" and values.dtype == np.float64
    return values if keep else values.astype(np.int64, copy=False)


def _whole(value: object) -> int | None:
    """The whole number that a cell of a mixed column is, or None."""
    if isinstance(value, str):
        return int(value) if re.fullmatch(r"\s*-?[0-9]{1,25}\s*", value, re.ASCII) else None
    if isinstance(value, bool | np.bool_):
        return None
    if isinstance(value, Integral):
        return int(value)
    exact = isinstance(value, float) and value.is_integer() and abs(value) < EXACT
    return int(value) if exact else None


def _stars(ratings: pd.DataFrame) -> np.ndarray:
    """The column of ratings, checked."""
    series = ratings["rating"]
    if not isinstance(series, pd.Series):
        raise ValueError(f"the ratings have rating in {series.shape[1]} columns: expected one")
    values = series.to_numpy()
    if not len(values):
        return np.empty(0)
    if not pd.api.types.is_numeric_dtype(series) or values.dtype.kind not in "iuf":
        if not pd.api.types.is_numeric_dtype(series) or values.dtype.kind in "bc":
            raise ValueError(f"column rating of type {series.dtype} has {series.iloc[0]!r} in row "
                             f"0: expected numbers, {LOWEST} to {HIGHEST} stars")
        values = series.to_numpy(dtype=np.float64, na_value=np.nan)  # a type of pandas's own
    if not (values.min() >= LOWEST and values.max() <= HIGHEST):  # a NaN makes both NaN
        at = int(np.argmin((values >= LOWEST) & (values <= HIGHEST)))
        raise ValueError(f"column rating of type {series.dtype} has {series.iloc[at]!r} in row "
                         f"{at}, counted from 0: expected {LOWEST} to {HIGHEST} stars in every "
                         "row; min_rating=None filters nothing and asks for no ratings")
    return values


def _coded(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int32 (M,), the place of each id among the distinct ones; and those, ascending."""
    if len(ids) and ids.max() > 4 * len(ids) + 2**20:
        codes, distinct = pd.factorize(ids, sort=True)
        return codes.astype(np.int32), distinct
    there = np.zeros(int(ids.max(initial=-1)) + 1, bool)  # ids are dense: a table is faster
    there[ids] = True
    return (np.cumsum(there, dtype=np.int32) - 1)[ids], np.flatnonzero(there)


def _stable_order(users: np.ndarray, times: np.ndarray) -> np.ndarray:
    """int64 (M,): the rows sorted by (user, time, place in the file)."""
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


def _ranges(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The integers starts[0] .. starts[0] + counts[0] - 1, then those of starts[1], and so on."""
    total = int(counts.sum())
    shift = np.repeat(starts - _offsets(counts)[:-1], counts)
    shift += np.arange(total)
    return shift


def _offsets(counts: np.ndarray) -> np.ndarray:
    return np.concatenate(([0], np.cumsum(counts, dtype=np.int64)))
