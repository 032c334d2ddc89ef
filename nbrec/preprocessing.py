"""From a table of ratings to one time-ordered sequence of films per user (thesis chapter 2)."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from numbers import Integral
from typing import Any

import numpy as np
import pandas as pd

from nbrec import checks
from nbrec.checks import HIGHEST, LOWEST
from nbrec.ordering import TIES, time_order
from nbrec.sequences import SHORTEST_SEQUENCE, FunnelStep, Sequences, offsets_of, ranges

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
        seed: seed of the sample and of random ties, 0 or more.
        ties, time_resolution: the order of ratings of one instant, and how many seconds an instant
            is long; see `ordering.time_order`.
        session_gap: ask for the first item of a session only: every sequence ends with the last
            item that came at least so many seconds after the one before it, and users who have no
            such item are dropped; None asks for whatever comes last.

    Raises:
        ValueError: a number is of another kind or out of its range; the message names it.
    """

    min_length: int = 5
    max_length: int = 90
    left_truncate: int = 0
    min_rating: float | None = 3.0
    random_sample: float = 1.0
    seed: int = 0
    ties: str = "file"
    time_resolution: int = 1
    session_gap: int | None = None

    def __post_init__(self) -> None:
        checks.whole("min_length", self.min_length, 1)
        checks.whole("max_length", self.max_length, 1)
        checks.whole("left_truncate", self.left_truncate)
        checks.number("min_rating", self.min_rating, 0, HIGHEST, none=True)
        checks.number("random_sample", self.random_sample, above=0, high=1)
        checks.whole("seed", self.seed)
        checks.choice("ties", self.ties, TIES)
        checks.whole("time_resolution", self.time_resolution, 1)
        checks.whole("session_gap", self.session_gap, 1, none=True)
        if self.min_length > self.max_length:
            raise ValueError(f"min_length={self.min_length} with max_length={self.max_length}: "
                             "expected min_length <= max_length")

    def described(self) -> dict[str, Any]:
        """The settings as records keep them: those of the order only where they are not usual."""
        settings = asdict(self)
        for name in ("ties", "time_resolution", "session_gap"):
            if settings[name] == type(self).__dataclass_fields__[name].default:
                del settings[name]
        return settings


def build_sequences(ratings: pd.DataFrame, settings: SequenceSettings | None = None) -> Sequences:
    """Turn a table of ratings into sequences with the five steps of thesis section 2.2.

    1. order each user's items in time; 2. cut the first ``left_truncate``; 3. keep users with
    ``min_length`` to ``max_length`` items; 4. draw a simple random sample of the users; 5. drop
    items rated under ``min_rating``. A sequence of fewer than two items cannot be evaluated and is
    dropped, in a step of its own.

    Items of one instant stay in the order of the file, unless ``ties`` says otherwise. Without a
    column ``rating`` step 5 is skipped, and the funnel says so.

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
    stamps = _seconds(ratings) if "timestamp" in ratings else None
    if settings.time_resolution > 1 or settings.session_gap or settings.ties != "file":
        if stamps is None:
            raise ValueError("the ratings have no column timestamp (found: "
                             f"{', '.join(map(str, ratings.columns))}): expected one for ties, "
                             "time_resolution and session_gap")
        times = stamps
    if pair := checks.repeated_pair(all_users, all_movies):
        first, second = pair
        raise ValueError(f"user {all_users[first]} and movie {all_movies[first]} stand in rows "
                         f"{first} and {second}, counted from 0: expected each pair once; keep one "
                         "of them, as ratings.drop_duplicates(['userId', 'movieId']) does")
    stars = None
    if settings.min_rating is not None and "rating" in ratings:
        stars = _stars(_column(ratings, "rating"))
    movie_codes, movie_ids = _coded(all_movies)
    funnel: list[FunnelStep] = []

    def add(step: int, what: str, counts: np.ndarray, movies: np.ndarray, note: str = "") -> None:
        seen = np.zeros(len(movie_ids), dtype=bool)
        seen[movies] = True
        funnel.append(FunnelStep(step, what, int((counts > 0).sum()), int(seen.sum()),
                                 int(counts.sum()), note))

    # Step 1.
    order = time_order(all_users, all_movies, times, settings.ties, settings.time_resolution,
                       settings.seed)
    user_ids = all_users[order]
    movies = movie_codes[order]
    starts = np.flatnonzero(np.r_[True, user_ids[1:] != user_ids[:-1]]) if len(order) else order
    users = user_ids[starts]
    counts = np.diff(np.r_[starts, len(order)])
    del user_ids, movie_codes
    add(1, "order in time", counts, np.arange(len(movie_ids)))

    # Step 2.
    cut = np.minimum(counts, settings.left_truncate)
    starts, counts = starts + cut, counts - cut
    if settings.left_truncate:
        add(2, f"cut the first {settings.left_truncate}", counts, movies[ranges(starts, counts)])
    else:
        funnel.append(funnel[-1]._replace(step=2, what="cut the first 0",
                                          note="original sequences: nothing is cut"))

    # Step 3.
    keep = (counts >= settings.min_length) & (counts <= settings.max_length)
    short = int((counts < settings.min_length).sum())
    long = int((counts > settings.max_length).sum())
    users, starts, counts = users[keep], starts[keep], counts[keep]
    rows = ranges(starts, counts)
    add(3, f"{settings.min_length} to {settings.max_length} items", counts, movies[rows],
        f"{short:,} users too short, {long:,} too long")

    # Step 4.
    if settings.random_sample < 1:
        size = round(settings.random_sample * len(users))
        chosen = np.random.default_rng(settings.seed).choice(len(users), size, replace=False)
        chosen.sort()
        users, starts, counts = users[chosen], starts[chosen], counts[chosen]
        rows = ranges(starts, counts)
    movies = movies[rows]
    stamps = None if stamps is None else stamps[order[rows]].astype(np.float64)
    add(4, f"sample {settings.random_sample:.0%} of the users", counts, movies)

    # Step 5.
    if stars is None or settings.min_rating is None:
        why = "no filter asked for" if "rating" in ratings else "the data have no ratings: skipped"
        funnel.append(funnel[-1]._replace(step=5, what="rating filter", note=why))
    else:
        good = stars[order[rows]] >= float(settings.min_rating)
        owner = np.repeat(np.arange(len(users)), counts)
        counts = np.bincount(owner[good], minlength=len(users))
        movies = movies[good]
        stamps = None if stamps is None else stamps[good]
        add(5, f"ratings of {settings.min_rating:g} or more", counts, movies)

    if settings.session_gap and stamps is not None:
        owner = np.repeat(np.arange(len(users)), counts)
        first = np.r_[False, (np.diff(owner) == 0) & (np.diff(stamps) >= settings.session_gap)]
        place = np.arange(len(owner)) - offsets_of(counts)[:-1][owner]
        asked = np.zeros(len(users), np.int64)  # how many items stand before the one asked for
        np.maximum.at(asked, owner[first], place[first])
        kept = place <= asked[owner]
        movies, stamps = movies[kept], stamps[kept]
        counts = np.where(asked > 0, asked + 1, np.minimum(counts, 1))
        add(0, f"end with an item after {settings.session_gap:,} s", counts, movies,
            f"{int((asked == 0).sum()):,} users have none")

    keep = counts >= SHORTEST_SEQUENCE
    if not keep.all():
        left = np.repeat(keep, counts)
        movies, stamps = movies[left], None if stamps is None else stamps[left]
        users, counts = users[keep], counts[keep]
    add(0, f"at least {SHORTEST_SEQUENCE} items left", counts, movies, "a history and a target")
    if not len(users):
        table = pd.DataFrame(funnel).to_string(index=False)
        raise ValueError(f"no user is left with {settings}. What each step left:\n{table}\nWiden "
                         "min_length..max_length, or lower min_rating or left_truncate.")
    items, codes = _coded(movies)
    return Sequences(users, items, offsets_of(counts), movie_ids[codes], tuple(funnel), stamps)


def _column(ratings: pd.DataFrame, column: str) -> pd.Series:
    series = ratings[column]
    if not isinstance(series, pd.Series):
        raise ValueError(f"the ratings have {column} in {series.shape[1]} columns: expected one")
    return series


def _numbers(ratings: pd.DataFrame, column: str) -> np.ndarray:
    """A column as int64, or a timestamp in parts of a second as float64, checked.

    Ids and places are what they are or refused, never rounded or wrapped. Of times only the order
    is used, so dates become whole numbers in whatever unit they have.
    """
    series = _column(ratings, column)
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


def _seconds(ratings: pd.DataFrame) -> np.ndarray:
    """The column timestamp in seconds, int64 or float64."""
    series = _column(ratings, "timestamp")
    if pd.api.types.is_datetime64_any_dtype(series):
        return pd.DatetimeIndex(series).as_unit("ns").asi8 / 1e9
    return _numbers(ratings, "timestamp")


def _whole(value: object) -> int | None:
    """The whole number that a cell of a mixed column is, or None."""
    if isinstance(value, str):
        return int(value) if re.fullmatch(r"\s*-?[0-9]{1,25}\s*", value, re.ASCII) else None
    if isinstance(value, bool | np.bool_):
        return None
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, float) and value.is_integer() and abs(value) < EXACT:
        return int(value)
    return None


def _stars(series: pd.Series) -> np.ndarray:
    """The column of ratings, checked."""
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
