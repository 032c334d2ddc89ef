"""The histories of many users as one flat array, and how users are split into folds."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from numbers import Integral
from typing import NamedTuple

import numpy as np

from nbrec import checks

# The last item of a sequence is the target, so a sequence needs one more item to be a history.
SHORTEST_SEQUENCE = 2


class FunnelStep(NamedTuple):
    """What a step of the preprocessing left; `pandas.DataFrame(sequences.funnel)` is the table.

    Args:
        step: its number in thesis section 2.2, 1 to 5; 0: it has none.
        what: what it did, in words.
        users, movies, ratings: how many are left.
        note: what else there is to say; "" if nothing.
    """

    step: int
    what: str
    users: int
    movies: int
    ratings: int
    note: str


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
        funnel: what each step of the preprocessing left; empty if nobody counted.
        times: float64 (M,), when each item was rated, in seconds, NaN where that is not known;
            None if nobody asks.

    Raises:
        ValueError: the arrays do not fit together; the message names the array and the place.
    """

    users: np.ndarray
    items: np.ndarray
    offsets: np.ndarray
    catalogue: np.ndarray
    funnel: tuple[FunnelStep, ...] = field(default=(), repr=False, compare=False)
    times: np.ndarray | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
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
        if self.times is not None and np.shape(self.times) != self.items.shape:
            raise ValueError(f"times of shape {np.shape(self.times)} for {len(self.items)} items: "
                             "expected one for each item")

    def _part(self, users: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> Sequences:
        """Rows of items that begin at ``starts``; parts of checked arrays are not checked again."""
        rows = ranges(starts, lengths)
        part = object.__new__(Sequences)
        for name, value in vars(self).items():
            object.__setattr__(part, name, value)
        for name, array in (("users", users), ("items", self.items[rows]),
                            ("offsets", offsets_of(lengths)),
                            ("times", None if self.times is None else self.times[rows])):
            object.__setattr__(part, name, array)
        return part

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
        return self._part(self.users[positions], self.offsets[positions], self.lengths[positions])

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
        return self._part(self.users, self.offsets[:-1], lengths)

    def prefixes(self, n: int) -> Sequences:
        """Of each user the whole sequence, and that without the last item, the last two, .. so that
        the last n items are targets, as far as two items are left: up to n rows a user.

        Raises:
            ValueError: n is no whole number of 1 or more.
        """
        checks.whole("n", n, 1)
        rows = np.clip(self.lengths - SHORTEST_SEQUENCE + 1, 1, n)
        owner = np.repeat(np.arange(len(self)), rows)
        shorter = np.arange(len(owner)) - offsets_of(rows)[:-1][owner]
        return self._part(self.users[owner], self.offsets[owner], self.lengths[owner] - shorter)

    def windows(self, n: int) -> tuple[Sequences, np.ndarray]:
        """Cut into windows of at most n + 1 items: every item but a user's first is a target once.

        A user's first window begins with the first item. Each later one has n + 1 items, of which
        only the last ceil(n / 2) are targets: those before them are targets of earlier windows and
        stand there as context, so that no target far into a history is predicted from less than
        half of what the model may see.

        Returns:
            The windows, as many rows for a user as it takes; and int64 (windows,), how many items
            after the first are no targets of that window.

        Raises:
            ValueError: n is no whole number of 1 or more.
        """
        checks.whole("n", n, 1)
        new = -(-n // 2)
        later = -(-np.maximum(self.lengths - 1 - n, 0) // new)  # windows after a user's first
        owner = np.repeat(np.arange(len(self)), later + 1)
        to_come = np.cumsum(later + 1)[owner] - 1 - np.arange(len(owner))
        ends = self.lengths[owner] - new * to_come
        starts = np.where(to_come < later[owner], ends - n - 1, 0)
        windows = self._part(self.users[owner], self.offsets[owner] + starts, ends - starts)
        return windows, np.where(starts > 0, n - new, 0)

    def histories(self) -> list[np.ndarray]:
        """What a model may see in evaluation: each sequence without its last item."""
        return [self[u][:-1] for u in range(len(self))]

    def targets(self) -> np.ndarray:
        """int64 (U,): the last item of each sequence, the next best item to be found."""
        return self.items[self.offsets[1:] - 1].astype(np.int64)

    def target_gaps(self) -> np.ndarray:
        """float64 (U,): seconds between each target and the item before it, NaN if not known."""
        if self.times is None:
            return np.full(len(self), np.nan)
        return self.times[self.offsets[1:] - 1] - self.times[self.offsets[1:] - 2]

    def digest(self) -> str:
        """A sha256 of users, items and catalogue: equal digests mean equal data."""
        digest = hashlib.sha256()
        for array, dtype in ((self.users, "<i8"), (self.items, "<i4"), (self.offsets, "<i8"),
                             (self.catalogue, "<i8")):
            digest.update(np.ascontiguousarray(array, dtype=dtype).tobytes())
        return digest.hexdigest()


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
        train, validation, test = map(sequences.select, (self.train, self.validation, self.test))
        if self.leave_out:
            train, validation = train.shorten(2), validation.shorten(1)
        return train, validation, test


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


def ranges(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The integers starts[0] .. starts[0] + counts[0] - 1, then those of starts[1], and so on."""
    total = int(counts.sum())
    shift = np.repeat(starts - offsets_of(counts)[:-1], counts)
    shift += np.arange(total)
    return shift


def offsets_of(counts: np.ndarray) -> np.ndarray:
    return np.concatenate(([0], np.cumsum(counts, dtype=np.int64)))
