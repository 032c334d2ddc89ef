"""Find, verify and read the tables: MovieLens by name, or any interactions csv (thesis 2.1).

A data set is searched in `$NBREC_DATA`, then in `data/`, then downloaded into `data/`. Archives are
read in place and never unpacked. What is read is checked, row by row if need be, before it is used.
"""

from __future__ import annotations

import csv
import hashlib
import io
import logging
import os
import re
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

log = logging.getLogger(__name__)

MIRROR = "https://files.grouplens.org/datasets/movielens"
CITATION = (
    "F. Maxwell Harper and Joseph A. Konstan. 2015. The MovieLens Datasets: History and Context. "
    "ACM Transactions on Interactive Intelligent Systems 5, 4: 19. doi:10.1145/2827872"
)
_RESEARCH = (
    "Research use with acknowledgement; no endorsement by the University of Minnesota or GroupLens "
    "may be implied; no commercial use without permission. "
)
_SHARE = _RESEARCH + "May be redistributed, transformations included, under the same terms."
_NO_SHARE = _RESEARCH + "May not be redistributed without separate permission."

FIRST_TIME = 788_918_400  # 1995-01-01: MovieLens opened in 1995
LAST_TIME = 4_102_444_800  # 2100-01-01: beyond it, a time is most likely in milliseconds
LOWEST, HIGHEST = 0.5, 5.0  # stars
MAX_UNPACKED = 8 * 2**30  # bytes; the largest official archive unpacks to 1.6e9
MAX_RATIO = 200  # unpacked to packed size; the tables reach about 5


@dataclass(frozen=True)
class Source:
    """A published MovieLens archive.

    Args:
        name: what `load` calls it.
        version: what it holds, and when it was made.
        size: bytes of the archive.
        checksum: of the archive, "sha256:...".
        ratings: name of the file of ratings in it.
        ratings_sha256: of that file, so that a repacked archive can be told from a changed one.
        licence: the publisher's terms in short.
        citation: what a publication has to cite.
    """

    name: str
    version: str
    size: int
    checksum: str
    ratings: str
    ratings_sha256: str
    licence: str
    citation: str = CITATION

    @property
    def archive(self) -> str:
        """File name of the archive."""
        return f"{self.name}.zip"

    @property
    def url(self) -> str:
        """Official address of the archive."""
        return f"{MIRROR}/{self.archive}"


# GroupLens may replace the two "latest" archives at any time. The checksums are those of the
# versions of September 2018 and July 2023 (the thesis's "Full"), which have stood since. Should a
# newer one appear, the download says so; a copy of it in data/ is read, with a notice.
SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        Source(
            "ml-latest-small", "100,836 ratings of 610 users, September 2018", 978_202,
            "sha256:696d65a3dfceac7c45750ad32df2c259311949efec81f0f144fdfb91ebc9e436",
            "ratings.csv", "aa289ca83157595d0df6aea1be6a4ded676ddc4385472e8313a8ed9805352646",
            _SHARE,
        ),
        Source(
            "ml-latest", "33,832,162 ratings of 330,975 users, July 2023", 350_896_731,
            "sha256:66a9e518c747d76b241d9a859b001a2619d3ed1672ceef599eb50daf73a7b4a3",
            "ratings.csv", "ae77c01e7c895e7d61ba3594a1c5ff191b5f7f3a9d788000315a463322fa44f6",
            _SHARE,
        ),
        Source(
            "ml-25m", "25,000,095 ratings of 162,541 users, November 2019", 261_978_986,
            "sha256:8b21cfb7eb1706b4ec0aac894368d90acf26ebdfb6aced3ebd4ad5bd1eb9c6aa",
            "ratings.csv", "",
            _SHARE,
        ),
        Source(
            "ml-32m", "32,000,204 ratings of 200,948 users, October 2023", 238_950_008,
            "sha256:e4a68655d7386b8f95f2f2424b2ff975dfdd15ffd59e0d864a14dca43e99d6ee",
            "ratings.csv", "91159850e41ee59c86231165a688709647e2726cab2e7ba9faf04001bd5261ee",
            _SHARE,
        ),
        Source(
            "ml-1m", "1,000,209 ratings of 6,040 users, 2000 to 2003", 5_917_549,
            "sha256:a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20",
            "ratings.dat", "506d64ca44484487c11dc2d9a28de5c54948213e6b96285e298afe28d6ea4e0f",
            _NO_SHARE,
        ),
        Source(
            "ml-100k", "100,000 ratings of 943 users, 1997 and 1998", 4_924_029,
            "sha256:50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229",
            "u.data", "06416e597f82b7342361e41163890c81036900f418ad91315590814211dca490",
            _NO_SHARE,
        ),
    )
}

# MovieLens 100K as the wheel of RecBole carries it, for places that reach a package index only.
FALLBACK = "recbole==1.2.1"
FALLBACK_WHEEL = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
FALLBACK_INSIDE = "recbole/dataset_example/ml-100k"
FALLBACK_FOLDER = "ml-100k-recbole"


@dataclass(frozen=True)
class MovieLens:
    """The tables of one data set, checked.

    Args:
        name: name of the source, or of the csv file.
        ratings: userId and movieId (int64), rating (float32, stars; absent if not known for all
            rows), and either timestamp (int64, seconds since 1970 UTC) or position (int64, place in
            the user's order of time). Rows stand in the order of their file.
        movies: movieId (int64), title, genres (joined by "|"); None if there is no such table.
        links: movieId (int64), imdbId (str), tmdbId (Int64); None if there is no such table.
        tags: userId, movieId, tag, timestamp; None if there is no such table.
        notice: what a reader of results has to know about these data; "" if nothing.
        origin: path or address that the data came from.
        sha256: of the bytes of the ratings file.
    """

    name: str
    ratings: pd.DataFrame = field(repr=False)
    movies: pd.DataFrame | None = field(repr=False)
    links: pd.DataFrame | None = field(repr=False)
    tags: pd.DataFrame | None = field(repr=False)
    notice: str
    origin: str
    sha256: str

    @property
    def titles(self) -> pd.Series:
        """Title of each movie, indexed by movieId; "movie 7" where no table of movies is there."""
        if self.movies is not None:
            return self.movies.set_index("movieId")["title"]
        ids = np.unique(self.ratings["movieId"])
        return pd.Series([f"movie {i}" for i in ids], index=pd.Index(ids, name="movieId"),
                         name="title")


def data_folder() -> Path:
    """Where data are kept and downloaded to: `data` in the checkout or right here."""
    checkout = Path(__file__).resolve().parents[1]
    return (checkout if (checkout / "pyproject.toml").is_file() else Path()) / "data"


def load(name: str | Path, folder: str | Path | None = None, *, mirror: str | None = None,
         fallback: bool = True) -> MovieLens:
    """Load a data set by name, or an interactions csv by path.

    Args:
        name: a key of `SOURCES`, or the path of a csv with the columns userId, movieId, timestamp
            (seconds) or position, and optionally rating.
        folder: the only folder to search and to download to; by default `$NBREC_DATA` and `data/`
            are searched, and downloads go to `data/`.
        mirror: address that holds the archives; by default `$NBREC_MIRROR`, else GroupLens.
        fallback: if ml-latest-small can neither be found nor downloaded, use MovieLens 100K from a
            package index in its place; the result's `name` and `notice` say so.

    Returns:
        the tables, checked.

    Raises:
        ValueError: the name is not known, or a file is damaged or holds bad rows: the message gives
            the file, the line, what was found and what was expected.
        FileNotFoundError: the data can be had from nowhere; the message gives the ways out.
    """
    if str(name) not in SOURCES:
        return _load_csv(Path(name))
    source = SOURCES[str(name)]
    target = Path(folder) if folder is not None else data_folder()
    searched = [target] if folder is not None or not os.environ.get("NBREC_DATA") else [
        Path(os.environ["NBREC_DATA"]), target]
    for place in searched:
        for path in (place / source.archive, place / source.name):
            if path.exists():
                return _load_source(source, _Files(path), str(path))
    fallback = fallback and source.name == "ml-latest-small"
    if fallback and (target / FALLBACK_FOLDER).is_dir():  # one book, one data set: no second try
        return _load_fallback(target / FALLBACK_FOLDER)
    mirror = mirror or os.environ.get("NBREC_MIRROR") or MIRROR
    url = f"{mirror.rstrip('/')}/{source.archive}"
    path, failed = None, ""
    try:
        path = _download(source, url, target)
    except OSError as error:  # requests' exceptions are OSErrors, too
        failed = f"download of {url}: {_short(error)}"
    if path is not None:
        return _load_source(source, _Files(path), url)
    if fallback:
        log.warning("%s is not in %s; %s. Trying MovieLens 100K from the package index.",
                    source.name, " or ".join(map(str, searched)), failed)
        try:
            path = _fetch_fallback(target)
        except OSError as error:
            failed += f"; pip download {FALLBACK}: {_short(error)}"
    if path is not None:
        return _load_fallback(path)
    ways = [f"put {source.archive} into {target} or into the folder $NBREC_DATA",
            f"allow the download of {url}"]
    ways += [f"allow pip to reach a package index that has {FALLBACK}"] if fallback else []
    raise FileNotFoundError(
        f"{source.name} was not found in {' or '.join(map(str, searched))}, and could not be "
        f"fetched ({failed}). Ways out: "
        + "; ".join(f"({i}) {way}" for i, way in enumerate(ways, 1)) + "."
    )


# --- from a place to tables ----------------------------------------------------------------------


def _load_source(source: Source, files: _Files, origin: str) -> MovieLens:
    notice = ""
    if source.ratings in files:
        ratings, sha256, _ = _read_interactions(files, source.ratings, partial_ratings=False)
        if source.ratings_sha256 and sha256 != source.ratings_sha256:
            notice = (f"{source.ratings} of this copy of {source.name} is not the published "
                      f"version ({source.version}): its content differs.")
    elif "sequences.csv" in files:
        ratings, sha256, partial = _read_interactions(files, "sequences.csv", partial_ratings=True)
        notice = (f"This is not the official archive of {source.name}: it holds the order of the "
                  f"interactions (sequences.csv) in place of {source.ratings}. {partial}").strip()
    else:
        raise ValueError(
            f"{files.path} holds no {source.ratings} (found: {', '.join(sorted(files.members))}); "
            f"expected the archive of {source.url}. Fetch it anew."
        )
    return _finish(source.name, files, ratings, notice, origin, sha256)


def _load_csv(path: Path) -> MovieLens:
    if not path.is_file():
        raise ValueError(
            f"{str(path)!r} is neither a known data set nor a file; expected one of "
            f"{', '.join(SOURCES)}, or the path of a csv of interactions"
        )
    files = _Files(path.parent)
    ratings, sha256, notice = _read_interactions(files, path.name, partial_ratings=True)
    if notice:
        log.warning("%s", notice)
    return MovieLens(path.stem, ratings, None, None, None, notice, str(path), sha256)


def _load_fallback(folder: Path) -> MovieLens:
    files = _Files(folder)
    ratings, sha256, _ = _read_interactions(files, "ml-100k.inter", partial_ratings=False)
    notice = (
        "MovieLens 100K (943 users, 1997 and 1998) stands in for ml-latest-small, which could "
        f"neither be found nor downloaded. It comes from the package {FALLBACK}. To try "
        f"ml-latest-small again, remove the folder {folder.name} from the data folder."
    )
    return _finish("ml-100k", files, ratings, notice, str(folder), sha256)


def _finish(name, files, ratings, notice, origin, sha256) -> MovieLens:
    if notice:
        log.warning("%s: %s", name, notice)
    return MovieLens(name, ratings, _read_movies(files), _read_links(files), _read_tags(files),
                     notice, origin, sha256)


def _read_movies(files: _Files) -> pd.DataFrame | None:
    if "movies.csv" in files:
        movies = _read_csv(files, "movies.csv", {"movieId": "int64", "title": str, "genres": str})
    elif "movies.dat" in files:
        rows = _fields(files, "movies.dat", "latin-1", "::", 3)
        movies = pd.DataFrame(rows, columns=["movieId", "title", "genres"])
    elif "u.item" in files:
        rows = _fields(files, "u.item", "latin-1", "|", 5 + len(_GENRES))
        movies = pd.DataFrame(
            [(row[0], row[1], "|".join(g for g, flag in zip(_GENRES, row[5:], strict=True)
                                       if flag == "1")) for row in rows],
            columns=["movieId", "title", "genres"])
    elif "ml-100k.item" in files:
        rows = _fields(files, "ml-100k.item", "utf-8", "\t", 4, header=True)
        movies = pd.DataFrame(
            [(i, f"{title} ({year})" if year.isdigit() else title, genres.replace(" ", "|"))
             for i, title, year, genres in rows], columns=["movieId", "title", "genres"])
    else:
        return None
    movies = movies.astype({"movieId": "int64"})
    if movies["movieId"].duplicated().any():
        twice = movies.loc[movies["movieId"].duplicated(), "movieId"].iloc[0]
        raise ValueError(f"{files.path}: the table of movies has movieId {twice} twice; expected "
                         "each movie once. Fetch the file anew, or remove one of the rows.")
    return movies


_GENRES = ("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime",
           "Documentary", "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery",
           "Romance", "Sci-Fi", "Thriller", "War", "Western")  # the order of u.genre


def _read_links(files: _Files) -> pd.DataFrame | None:
    types = {"movieId": "int64", "imdbId": str, "tmdbId": "Int64"}
    return _read_csv(files, "links.csv", types) if "links.csv" in files else None


def _read_tags(files: _Files) -> pd.DataFrame | None:
    types = {"userId": "int64", "movieId": "int64", "tag": str, "timestamp": "int64"}
    return _read_csv(files, "tags.csv", types) if "tags.csv" in files else None


def _read_csv(files: _Files, name: str, types: dict) -> pd.DataFrame:
    """A small table beside the ratings, all columns in `types` required."""
    with files.open(name) as stream:
        try:
            return pd.read_csv(stream, usecols=list(types), dtype=types, keep_default_na=False,
                               na_values={"tmdbId": [""]})[list(types)]
        except (ValueError, OverflowError) as error:
            raise ValueError(f"{files.label(name)}: {_short(error)}; expected UTF-8 text with the "
                             f"columns {', '.join(types)}. Fetch the file anew.") from error


def _fields(files: _Files, name: str, encoding: str, separator: str, count: int,
            header: bool = False) -> list[list[str]]:
    """The rows of a small table that is not a csv, each of `count` fields, the first a movieId."""
    with files.open(name) as stream:
        lines = stream.read().decode(encoding).split("\n")
    rows = []
    for number, line in enumerate(lines, 1):
        row = line.rstrip("\r").split(separator)
        if row == [""] or (header and number == 1):
            continue
        if len(row) != count or not row[0].isdecimal():
            raise ValueError(f"{files.label(name)}, line {number}: {line[:200]!r}; expected "
                             f"{count} fields separated by {separator!r}, the first a movieId. "
                             "Fetch the file anew.")
        rows.append(row)
    return rows


# --- interactions: the fast way, and the slow way that finds the bad line ------------------------


@dataclass(frozen=True)
class _Layout:
    """How a file of interactions is written: separator, and columns if line 1 has no names."""

    separator: str = ","
    columns: tuple[str, ...] = ()
    rename: tuple[tuple[str, str], ...] = ()


_FOUR = ("userId", "movieId", "rating", "timestamp")
_LAYOUTS = {
    # "::" is read as ":" with empty columns in between: pandas is fast with one character only.
    "ratings.dat": _Layout(":", ("userId", "", "movieId", "", "rating", "", "timestamp")),
    "u.data": _Layout("\t", _FOUR),
    "ml-100k.inter": _Layout("\t", rename=tuple(zip(
        ("user_id:token", "item_id:token", "rating:float", "timestamp:float"), _FOUR,
        strict=True))),
}


def _read_interactions(files: _Files, name: str, partial_ratings: bool):
    """Read and check a file of interactions: (ratings, sha256, notice)."""
    layout = _LAYOUTS.get(name, _Layout())
    columns = _columns(files, name, layout)
    order = "position" if "position" in columns else "timestamp"
    wanted = [c for c in ("userId", "movieId", "rating", order) if c in columns]
    names = [column or f"empty {i}" for i, column in enumerate(columns)]
    types = {c: "float32" if c == "rating" else "int64" if c in wanted else "category"
             for c in names}
    rules = _Rules(columns, order, rating_required=not partial_ratings)
    table, failure = None, None
    with files.open(name) as stream:
        hashed = _Hashed(stream)
        try:
            table = pd.read_csv(hashed, sep=layout.separator, header=None if layout.columns else 0,
                                names=names, dtype=types, engine="c",
                                keep_default_na=False, na_values=[""])[wanted]
        except (ValueError, OverflowError) as error:
            failure = error
        sha256 = hashed.digest()
    if failure is not None:
        raise ValueError(rules.explain(files, name, layout) or (
            f"{files.label(name)} cannot be read: {_short(failure)}")) from failure
    if (bad := _first_out_of_range(table, rules)) is not None:
        raise ValueError(rules.explain(files, name, layout, start=bad))
    if not len(table):
        raise ValueError(f"{files.label(name)} has no row of interactions; expected at least one. "
                         "Fetch the file anew.")
    pair = _repeated_pair(table["userId"].to_numpy(), table["movieId"].to_numpy())
    if pair is not None:
        raise ValueError(rules.explain(files, name, layout, start=len(table), pair=pair))
    notice = ""
    if "rating" in table and table["rating"].isna().any():
        known = int(table["rating"].notna().sum())
        notice = (f"Ratings are known for {known:,} of {len(table):,} interactions only, so they "
                  "are left out and no filter by rating is possible.")
        table = table.drop(columns="rating")
    return table, sha256, notice


def _columns(files: _Files, name: str, layout: _Layout) -> list[str]:
    """The columns' names, from the layout or from line 1; checks what can be seen at the top."""
    label = files.label(name)
    with files.open(name) as stream:
        top = stream.read(1 << 16)
    if not top.strip():
        raise ValueError(f"{label} is empty; expected rows of interactions. Fetch the file anew.")
    if top[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in top:
        raise ValueError(f"{label}, line 1: the file is not UTF-8 text (it looks like UTF-16 or "
                         "binary data); expected UTF-8. Save it anew as csv in UTF-8.")
    lines = top.decode("utf-8-sig", errors="replace").splitlines()
    rows = list(csv.reader(lines[:2], delimiter=layout.separator))
    columns = list(layout.columns)
    if not columns:
        columns = [dict(layout.rename).get(c.strip(), c.strip()) for c in rows.pop(0)]
        missing = [c for c in ("userId", "movieId") if c not in columns]
        missing += [] if {"timestamp", "position"} & set(columns) else ["timestamp (or position)"]
        if missing or len(set(columns)) != len(columns):
            what = f"lacks {', '.join(missing)}" if missing else "names a column twice"
            raise ValueError(f"{label}, line 1: the header {lines[0][:200]!r} {what}; expected "
                             "userId, movieId, timestamp or position, and optionally rating, "
                             f"separated by {layout.separator!r}. Rename the columns.")
    if rows and len(rows[0]) > len(columns):  # pandas would take the first field for an index
        at = 1 if layout.columns else 2
        raise ValueError(f"{label}, line {at}: too many fields in {lines[at - 1][:200]!r}; "
                         f"expected {', '.join(filter(None, columns))}. Correct or remove the "
                         "line.")
    return columns


def _first_out_of_range(table: pd.DataFrame, rules: _Rules) -> int | None:
    """The first row with a value out of its range, or None: `_Rules.problem` on whole columns."""
    bad: list[int] = []
    for column in ("userId", "movieId", rules.order):
        lowest, highest = rules.bounds(column)
        values = table[column].to_numpy()
        if len(values) and (values.min() < lowest or values.max() > highest):
            bad.append(int(np.argmax((values < lowest) | (values > highest))))
    if "rating" in table:
        rating = table["rating"].to_numpy()
        fine = (rating >= LOWEST) & (rating <= HIGHEST)  # False where there is none
        if not rules.rating_required:
            fine |= np.isnan(rating)
        if not fine.all():
            bad.append(int(np.argmin(fine)))
    return min(bad, default=None)


def _repeated_pair(users: np.ndarray, movies: np.ndarray) -> tuple[int, int] | None:
    """The first two rows of a (user, movie) that stands in more than one, or None."""
    if users.max() >= 2**32 or movies.max() >= 2**32:
        users, movies = pd.factorize(users)[0], pd.factorize(movies)[0]
    # One 64-bit key a row: 8 bytes a rating, and files sorted by (user, movie) need no sorting.
    key = (users.astype(np.uint64) << np.uint64(32)) | movies.astype(np.uint64)
    if (key[1:] > key[:-1]).all():
        return None
    ordered = np.sort(key)
    again = ordered[1:][ordered[1:] == ordered[:-1]]
    if not len(again):
        return None
    first, second = np.flatnonzero(key == again[0])[:2]
    return int(first), int(second)


@dataclass(frozen=True)
class _Rules:
    """What a row has to look like; used line by line only once something is known to be wrong."""

    columns: list[str]
    order: str
    rating_required: bool

    def bounds(self, column: str) -> tuple[int, int]:
        """The lowest and the highest value of an id or a time."""
        return (FIRST_TIME, LAST_TIME) if column == "timestamp" else (0, 2**63 - 1)

    def problem(self, row: list[str]) -> str:
        """What is wrong with a row, and what was expected; "" if nothing."""
        if len(row) != len(self.columns):
            return (f"too {'few' if len(row) < len(self.columns) else 'many'} fields; expected "
                    f"{', '.join(c for c in self.columns if c)}")
        if any(re.search("[\udc80-\udcff]", value) for value in row if not value.isascii()):
            return ("bytes that are not UTF-8; expected UTF-8 text (save the file anew as csv in "
                    "UTF-8)")
        values = dict(zip(self.columns, row, strict=True))
        for column in ("userId", "movieId", self.order):
            if not re.fullmatch(r"\s*-?[0-9]+\s*", values[column]):
                return f"{column} {values[column]!r}; expected a whole number"
            lowest, highest = self.bounds(column)
            if not lowest <= int(values[column]) <= highest:
                return f"{column} {values[column]}; expected " + (
                    f"seconds since 1970, from {lowest} (1995-01-01) to {highest} (2100-01-01)"
                    if column == "timestamp" else f"{lowest} to {highest}")
        rating = values.get("rating")
        if rating is None or (not rating and not self.rating_required):
            return ""
        try:
            right = LOWEST <= float(rating) <= HIGHEST
        except ValueError:
            right = False
        return "" if right else f"rating {rating!r}; expected {LOWEST} to {HIGHEST} stars"

    def explain(self, files: _Files, name: str, layout: _Layout, start: int = 0,
                pair: tuple[int, int] = (-1, -1)) -> str:
        """What to say about the first bad row from `start` on, or about a pair of equal rows.

        Rows are counted from 0, without blank lines. Returns "" if nothing is found.
        """
        label, first = files.label(name), 0
        with files.open(name) as stream:
            text = io.TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape", newline="")
            lines = csv.reader(text, delimiter=layout.separator)
            rows = filter(None, lines)
            try:
                if not layout.columns:
                    next(rows)
                for number, row in enumerate(rows):
                    if number == pair[0]:
                        first = lines.line_num
                    elif number == pair[1]:
                        user, movie = (row[self.columns.index(c)] for c in ("userId", "movieId"))
                        return (f"{label}, line {lines.line_num}: user {user} and movie {movie} "
                                f"stand here and in line {first}; expected each pair once. Keep "
                                "one of the two lines.")
                    elif number >= start and (problem := self.problem(row)):
                        what, _, expected = problem.partition("; ")
                        shown = layout.separator.join(row)[:200].encode("utf-8", "surrogateescape")
                        shown = shown.decode("utf-8", "backslashreplace")
                        return (f"{label}, line {lines.line_num}: {what} in '{shown}'; {expected}. "
                                "Correct or remove the line, or fetch the file anew.")
            except csv.Error as error:
                return f"{label}, line {lines.line_num}: {error}; expected plain csv."
        return ""


class _Hashed(io.RawIOBase):
    """A stream that keeps the sha256 of what passes through."""

    def __init__(self, stream):
        self.stream, self.sha256 = stream, hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        block = self.stream.read(len(buffer))
        buffer[: len(block)] = block
        self.sha256.update(block)
        return len(block)

    def digest(self) -> str:
        return self.sha256.hexdigest()


# --- files in a folder or in an archive ----------------------------------------------------------


class _Files:
    """The files of one data set, in a folder or in a zip archive, by their bare names."""

    def __init__(self, path: Path):
        self.path = path
        if path.is_dir():
            self.members = {p.name: p.name for p in path.iterdir() if p.is_file()}
        else:
            self.members = _safe_members(path)

    def __contains__(self, name: str) -> bool:
        return name in self.members

    def label(self, name: str) -> str:
        """How messages call a file."""
        return str(self.path / name) if self.path.is_dir() else f"{self.path}: {self.members[name]}"

    @contextmanager
    def open(self, name: str) -> Iterator[io.BufferedIOBase]:
        """A file as a stream of bytes."""
        if self.path.is_dir():
            with open(self.path / name, "rb") as stream:
                yield stream
            return
        with _reading(self.path), zipfile.ZipFile(self.path) as archive:
            with archive.open(self.members[name]) as stream:
                yield stream


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what a damaged archive throws into one clear error."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise ValueError(f"{path} is not a whole zip archive ({_short(error)}); expected one with "
                         "all its bytes. Remove it and fetch it anew.") from error


def _safe_members(path: Path) -> dict[str, str]:
    """Bare name -> member of an archive, the one nearest to the top; refuses what could do harm."""
    with _reading(path), zipfile.ZipFile(path) as archive:
        infos = [info for info in archive.infolist() if not info.is_dir()]
    for info in infos:
        parts = PurePosixPath(info.filename.replace("\\", "/"))
        if parts.is_absolute() or ".." in parts.parts or ":" in info.filename:
            raise ValueError(f"{path}: the member {info.filename!r} points outside of the archive; "
                             "expected plain relative names. Do not use this archive.")
        if info.flag_bits & 1:
            raise ValueError(f"{path}: {info.filename} is encrypted; expected a plain archive. "
                             "Fetch it anew.")
        if info.file_size > MAX_RATIO * max(info.compress_size, 1 << 10):
            raise ValueError(f"{path}: {info.filename} unpacks from {info.compress_size:,} to "
                             f"{info.file_size:,} bytes; expected at most {MAX_RATIO} times as "
                             "much. Do not use this archive.")
    total = sum(info.file_size for info in infos)
    if total > MAX_UNPACKED:
        raise ValueError(f"{path} unpacks to {total:,} bytes; expected at most {MAX_UNPACKED:,}. "
                         "Do not use this archive.")
    infos.sort(key=lambda info: -info.filename.count("/"))
    return {PurePosixPath(info.filename).name: info.filename for info in infos}


# --- fetching ------------------------------------------------------------------------------------


def _download(source: Source, url: str, folder: Path) -> Path:
    """Download an archive, check it and only then give it its name; returns its path."""
    import pooch

    folder.mkdir(parents=True, exist_ok=True)
    log.info("downloading %s (%.1f MB); %s", url, source.size / 1e6, source.licence)
    downloader = pooch.HTTPDownloader(progressbar=True, chunk_size=1 << 16, timeout=30)
    try:
        # pooch writes to a temporary file, compares the checksum and only then renames it.
        return Path(pooch.retrieve(url, source.checksum, source.archive, folder,
                                   downloader=downloader))
    except ValueError as error:  # pooch: the checksum differs
        raise OSError(
            f"the bytes received are not those of {source.archive} ({source.version}): "
            f"{_short(error)}. If GroupLens has published a newer version, download it by hand and "
            "put it into the data folder"
        ) from error


def _fetch_fallback(folder: Path) -> Path:
    """Fetch the fallback's wheel with pip, check it, keep its two tables; returns their folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fallback-", dir=folder) as temporary:
        command = [sys.executable, "-m", "pip", "download", FALLBACK, "--no-deps",
                   "--only-binary=:all:", "--dest", temporary, "--quiet", "--no-input",
                   "--disable-pip-version-check"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(Path(temporary).glob("*.whl"))
        if done.returncode or not wheels:
            reason = [line for line in done.stderr.splitlines() if line.strip()] or ["no wheel"]
            raise OSError(f"pip ended with status {done.returncode}: {reason[-1].strip()}")
        sha256 = hashlib.sha256(wheels[0].read_bytes()).hexdigest()
        if sha256 != FALLBACK_WHEEL:
            raise OSError(f"{wheels[0].name} has sha256 {sha256}; expected {FALLBACK_WHEEL}")
        ready = Path(temporary) / "ready"
        ready.mkdir()
        with zipfile.ZipFile(wheels[0]) as wheel:
            for name in ("ml-100k.inter", "ml-100k.item"):
                (ready / name).write_bytes(wheel.read(f"{FALLBACK_INSIDE}/{name}"))
        target = folder / FALLBACK_FOLDER
        if not target.is_dir():
            ready.rename(target)  # one step: the folder is there whole or not at all
    return target


def _short(error: object) -> str:
    """An exception in one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."
