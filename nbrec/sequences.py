"""From a table of ratings to one time-ordered sequence of films per user (thesis chapter 2)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

# The last item of a sequence is the target, so a sequence needs one more item to be a history.
SHORTEST_SEQUENCE = 2


@dataclass(frozen=True)
class SequenceSettings:
    """The five preprocessing steps of thesis section 2.2 as numbers.

    Args:
        min_length: users with fewer items than this, after truncation, are dropped (>= 1).
        max_length: users with more items than this, after truncation, are dropped.
        left_truncate: how many of each user's first items are cut off (0 or 20 in the thesis).
        min_rating: items rated lower than this are dropped, in stars; None keeps all.
        random_sample: share of the users that are kept, in (0, 1].
        seed: seed of the sample.
    """

    min_length: int = 5
    max_length: int = 90
    left_truncate: int = 0
    min_rating: float | None = 3.0
    random_sample: float = 1.0
    seed: int = 0

    def __post_init__(self):
        if not 1 <= self.min_length <= self.max_length:
            raise ValueError(
                f"lengths min_length={self.min_length}, max_length={self.max_length}: expected "
                "1 <= min_length <= max_length"
            )
        if self.left_truncate < 0:
            raise ValueError(f"left_truncate={self.left_truncate}: expected 0 or more items")
        if not 0 < self.random_sample <= 1:
            raise ValueError(f"random_sample={self.random_sample}: expected a share in (0, 1]")


@dataclass(frozen=True)
class Sequences:
    """The histories of many users, flat in memory.

    User ``u`` owns ``items[offsets[u]:offsets[u + 1]]``, oldest first.

    Args:
        users: int64 (U,), the users' original ids, ascending.
        items: int32 (M,), catalogue indices in 0..V-1.
        offsets: int64 (U + 1,), where each user's items begin; the last entry is M.
        catalogue: int64 (V,), the movieId of each index, ascending.
        funnel: one row per preprocessing step with the users, movies and ratings that are left.
    """

    users: np.ndarray
    items: np.ndarray
    offsets: np.ndarray
    catalogue: np.ndarray
    funnel: pd.DataFrame = field(default_factory=pd.DataFrame, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.users)

    def __getitem__(self, user: int) -> np.ndarray:
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
            positions: int (P,), positions in 0..U-1.
        """
        positions = np.asarray(positions, dtype=np.int64)
        lengths = self.lengths[positions]
        rows = _ranges(self.offsets[positions], lengths)
        return Sequences(
            self.users[positions], self.items[rows], _offsets(lengths), self.catalogue, self.funnel
        )

    def shorten(self, n: int) -> Sequences:
        """The same users without each one's last n items.

        Raises:
            ValueError: a sequence would be left with fewer than two items.
        """
        lengths = self.lengths - n
        if len(self) and lengths.min() < SHORTEST_SEQUENCE:
            short = int(lengths.argmin())
            raise ValueError(
                f"user {self.users[short]} has {self.lengths[short]} items, {n} are to be cut off: "
                f"expected {SHORTEST_SEQUENCE} or more to be left; raise min_length"
            )
        rows = _ranges(self.offsets[:-1], lengths)
        return Sequences(
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
        """
        new = -(-n // 2)
        later = -(-np.maximum(self.lengths - 1 - n, 0) // new)  # pieces after a user's first
        owner = np.repeat(np.arange(len(self)), later + 1)
        to_come = np.cumsum(later + 1)[owner] - 1 - np.arange(len(owner))
        ends = self.lengths[owner] - new * to_come
        starts = np.where(to_come < later[owner], ends - n - 1, 0)
        rows = _ranges(self.offsets[owner] + starts, ends - starts)
        pieces = Sequences(self.users[owner], self.items[rows], _offsets(ends - starts),
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
        ratings: columns userId, movieId and timestamp (seconds) or position; rating is optional.
            Rows stand in the order of their file.
        settings: the steps' numbers; the thesis's by default.

    Returns:
        The sequences, with a funnel of what every step left.

    Raises:
        ValueError: a column or a value is missing, or no user is left.
    """
    settings = settings or SequenceSettings()
    time = next((c for c in ("timestamp", "position") if c in ratings), None)
    missing = [c for c in ("userId", "movieId", time or "timestamp") if c not in ratings]
    if missing:
        raise ValueError(
            f"the ratings lack the column(s) {', '.join(missing)} (found: "
            f"{', '.join(map(str, ratings.columns))}); expected userId, movieId and timestamp or "
            "position"
        )
    for column in ("userId", "movieId", time):
        if ratings[column].isna().any():
            raise ValueError(f"{int(ratings[column].isna().sum()):,} of {len(ratings):,} ratings "
                             f"have no {column}: expected a value in every row")
    movie_codes, movie_ids = pd.factorize(ratings["movieId"].to_numpy())
    funnel = _Funnel(len(movie_ids))

    # Step 1. A stable sort by (user, time) leaves ties in the order of the file.
    order = _stable_order(ratings["userId"].to_numpy(), ratings[time].to_numpy())
    user_ids = ratings["userId"].to_numpy()[order]
    movies = movie_codes.astype(np.int32)[order]
    starts = np.flatnonzero(np.r_[True, user_ids[1:] != user_ids[:-1]]) if len(order) else order
    users = user_ids[starts].astype(np.int64)
    counts = np.diff(np.r_[starts, len(order)])
    del user_ids
    funnel.add("1 order in time", counts, movies)

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
    funnel.add(f"3 {settings.min_length} to {settings.max_length} items", counts,
               movies[_ranges(starts, counts)], f"{short:,} users too short, {long:,} too long")

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
    if settings.min_rating is None or "rating" not in ratings:
        why = "no filter asked for" if "rating" in ratings else "the data have no ratings: skipped"
        funnel.repeat("5 rating filter", why)
    else:
        good = ratings["rating"].to_numpy()[order[rows]] >= settings.min_rating
        owner = np.repeat(np.arange(len(users)), counts)
        counts = np.bincount(owner[good], minlength=len(users))
        movies = movies[good]
        funnel.add(f"5 ratings of {settings.min_rating:g} or more", counts, movies)

    keep = counts >= SHORTEST_SEQUENCE
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
    catalogue, items = np.unique(movie_ids[movies], return_inverse=True)
    return Sequences(users, items.astype(np.int32), _offsets(counts),
                     catalogue.astype(np.int64), table)


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

    Raises:
        ValueError: fewer than three folds, or fewer users than folds.
    """
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
    """
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


def _stable_order(users: np.ndarray, times: np.ndarray) -> np.ndarray:
    """int64 (M,): the rows sorted by (user, time, place in the file)."""
    whole = users.dtype.kind in "iu" and times.dtype.kind in "iu"
    if not whole or len(users) and (users.min() < 0 or users.max() >= 2**31 or times.min() < 0
                                    or times.max() >= 2**32):
        # Ids or times too wide, or too fine (fractions of a second), to share one 64-bit key:
        # two stable sorts, the finer one first.
        order = np.argsort(times, kind="stable")
        return order[np.argsort(users[order], kind="stable")]
    key = (users.astype(np.int64) << 32) | times.astype(np.int64)
    return np.argsort(key, kind="stable")


def _ranges(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The integers starts[0] .. starts[0] + counts[0] - 1, then those of starts[1], and so on."""
    total = int(counts.sum())
    shift = np.repeat(starts - _offsets(counts)[:-1], counts)
    shift += np.arange(total)
    return shift


def _offsets(counts: np.ndarray) -> np.ndarray:
    return np.concatenate(([0], np.cumsum(counts, dtype=np.int64)))
