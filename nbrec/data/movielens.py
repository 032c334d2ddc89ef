"""Find, verify and read the tables: MovieLens by name, or any interactions by path (thesis 2.1).

A name is searched in `$NBREC_DATA`, then in `data/`, then downloaded into `data/`. A path may be
that of an archive, of a folder, or of one file of interactions with the other tables beside it.
Archives are read in place and never unpacked. What is read is checked, row by row if need be,
before it is used.
"""

from __future__ import annotations

import csv
import hashlib
import io
import logging
import lzma
import os
import re
import struct
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from nbrec import checks, paths

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
TOP = 1 << 13  # bytes in which the header and the first row are looked for
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
        unpacked: folder that the archive unpacks to, where it is not of the archive's name.
        citation: what a publication has to cite.
    """

    name: str
    version: str
    size: int
    checksum: str
    ratings: str
    ratings_sha256: str
    licence: str
    unpacked: str = ""
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
            "ml-20m", "20,000,263 ratings of 138,493 users, April 2015", 198_702_078,
            "sha256:96f243c338a8665f6bcc89c53edf6ee39162a846940de6b7c8c48aeada765ff3",
            "ratings.csv", "",
            _SHARE,
        ),
        Source(
            "ml-10m", "10,000,054 ratings of 69,878 users, January 2009", 65_566_137,
            "sha256:813c411ccb6122564edfe752e7f80c4dcc5aa25fa94c93622f6877a7ba252862",
            "ratings.dat", "",
            _NO_SHARE, "ml-10M100K",
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

# Copies that are not as published, but known: sha256 of the file of ratings -> what it is.
COPIES = {
    "299974cb01ee5c62c974e0893bba034af07720a8ab5caf6a65326029af423513":
        "It is a known rebuild of 999,964 rows: 245 ratings of rare films are missing, and films "
        "of one second stand in the order of the original file.",
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
        name: name of the source, or of the file, folder or archive.
        ratings: userId and movieId (int64), rating (float32, stars; absent if not known for all
            rows), and either timestamp (int64, seconds since 1970 UTC) or position (int64, place in
            the user's order of time). Rows stand in the order of their file.
        movies: movieId (int64), title, genres (joined by "|"); None if there is no such table.
        links: movieId (int64), imdbId (str), tmdbId (Int64); None if there is no such table.
        tags: userId, movieId, tag (str), timestamp; None if there is no such table.
        notice: what a reader of results has to know about these data; "" if nothing.
        origin: path or address that the data came from.
        sha256: of the bytes of the ratings file.
        user_names, movie_names: with `ids="text"`, the id in the file (str) of each userId and
            movieId, indexed by these; else None.
    """

    name: str
    ratings: pd.DataFrame = field(repr=False)
    movies: pd.DataFrame | None = field(repr=False)
    links: pd.DataFrame | None = field(repr=False)
    tags: pd.DataFrame | None = field(repr=False)
    notice: str
    origin: str
    sha256: str
    user_names: pd.Series | None = field(default=None, repr=False)
    movie_names: pd.Series | None = field(default=None, repr=False)

    @property
    def titles(self) -> pd.Series:
        """Title of each movie, indexed by movieId.

        A rated movie that no table of movies has is called by its id in the file: "movie 7", or
        what `movie_names` says.
        """
        known = (pd.Series([], pd.Index([], dtype="int64", name="movieId"), str, "title")
                 if self.movies is None else self.movies.set_index("movieId")["title"])
        ids = _untitled(self.ratings, self.movies)
        if not len(ids):
            return known
        names = [f"movie {i}" for i in ids] if self.movie_names is None else self.movie_names[ids]
        other = pd.Series(names, pd.Index(ids, name="movieId"), known.dtype, "title")
        return pd.concat([known, other]) if len(known) else other


def load(name: str | Path, folder: str | Path | None = None, *, mirror: str | None = None,
         fallback: bool = True, repeats: str = "error", ids: str = "number") -> MovieLens:
    """Load a data set by name or by path.

    Args:
        name: a key of `SOURCES`; or the path of a zip archive or of a folder that holds
            interactions as one of these does (ratings.csv, ratings.dat or u.data); or of one file
            of interactions: any of the former, or any csv with the columns userId, movieId,
            timestamp (seconds) or position, and optionally rating. Tables of movies, links and tags
            are read where they stand beside it. They may be UTF-8, with a byte order mark or
            without, or Latin-1.
        folder: of a name, the only folder to search and to download to; by default `$NBREC_DATA`
            and `data/` are searched, and downloads go to `data/`.
        mirror: address that holds the archives; by default `$NBREC_MIRROR`, else GroupLens.
        fallback: if ml-latest-small can neither be found nor downloaded, use MovieLens 100K from a
            package index in its place; the result's `name` and `notice` say so.
        repeats: what to do where a pair of user and movie stands in several rows: "error", or keep
            the "first" or the "last" of them in time (of one instant, in the file); the result's
            `notice` says how many rows were left out.
        ids: "number", userId and movieId are whole numbers; "text", they are any text, and are
            numbered from 0 in the text's order. `user_names` and `movie_names` map them back.

    Returns:
        the tables, checked.

    Raises:
        ValueError: the name is not known, or a file is damaged or holds bad rows: the message gives
            the file, the line, what was found and what was expected.
        FileNotFoundError: the data can be had from nowhere; the message gives the ways out.
    """
    checks.choice("repeats", repeats, ("error", "first", "last"))
    checks.choice("ids", ids, ("number", "text"))
    how = _How(repeats, ids)
    if isinstance(name, Path) or str(name) not in SOURCES:
        return _load_path(Path(name), how)
    source = SOURCES[name]
    target = Path(folder) if folder is not None else paths.data_folder()
    searched = [target] if folder is not None or not os.environ.get("NBREC_DATA") else [
        Path(os.environ["NBREC_DATA"]), target]
    for place in searched:
        for path in (place / source.archive, place / source.name,
                     place / (source.unpacked or source.name)):
            if path.exists():
                return _load_source(source, _Files(path), str(path), how)
    fallback = fallback and source.name == "ml-latest-small"
    if fallback and (target / FALLBACK_FOLDER).is_dir():  # one book, one data set: no second try
        return _load_fallback(target / FALLBACK_FOLDER, how)
    mirror = mirror or os.environ.get("NBREC_MIRROR") or MIRROR
    url = f"{mirror.rstrip('/')}/{source.archive}"
    path, failed = None, ""
    try:
        path = _download(source, url, target)
    except OSError as error:  # requests' exceptions are OSErrors, too
        failed = f"download of {url}: {_short(error)}"
    if path is not None:
        return _load_source(source, _Files(path), url, how)
    if fallback:
        log.warning("%s is not in %s; %s. Trying MovieLens 100K from the package index.",
                    source.name, " or ".join(map(str, searched)), failed)
        try:
            path = _fetch_fallback(target)
        except OSError as error:
            failed += f"; pip download {FALLBACK}: {_short(error)}"
    if path is not None:
        return _load_fallback(path, how)
    ways = [f"put {source.archive} into {target} or into the folder $NBREC_DATA",
            f"allow the download of {url}"]
    ways += [f"allow pip to reach a package index that has {FALLBACK}"] if fallback else []
    raise FileNotFoundError(
        f"{source.name} was not found in {' or '.join(map(str, searched))}, and could not be "
        f"fetched ({failed}). Ways out: "
        + "; ".join(f"({i}) {way}" for i, way in enumerate(ways, 1)) + "."
    )


# --- from a place to tables ----------------------------------------------------------------------


@dataclass(frozen=True)
class _How:
    """What `load` was asked for."""

    repeats: str
    ids: str


def _load_source(source: Source, files: _Files, origin: str, how: _How) -> MovieLens:
    if source.ratings in files:
        read = _read_interactions(files, source.ratings, False, how)
        notices = []
        if source.ratings_sha256 and read.sha256 != source.ratings_sha256:
            notices = [f"{source.ratings} of this copy of {source.name} is not the published "
                       f"version ({source.version}): its content differs.",
                       COPIES.get(read.sha256, "")]
        return _finish(source.name, files, read, notices, origin, how)
    if found := files.interactions(("sequences.csv", *INTERACTIONS)):
        notice = (f"This is not the official archive of {source.name}: it holds {found[0]} in "
                  f"place of {source.ratings}.")
        read = _read_interactions(files, found[0], True, how)
        return _finish(source.name, files, read, [notice], origin, how)
    raise ValueError(
        f"{files.path} holds no {source.ratings} (found: {files.listing()}); expected the archive "
        f"of {source.url}. Fetch it anew."
    )


def _load_path(path: Path, how: _How) -> MovieLens:
    try:
        is_folder, is_file = path.is_dir(), path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        is_folder = is_file = False
    if not is_folder and not is_file:
        raise ValueError(
            f"{_short(repr(str(path)))} is neither a known data set nor a file or folder; expected "
            f"one of {', '.join(SOURCES)}, or the path of a zip archive, a folder or a csv of "
            "interactions"
        )
    if is_file and not (path.suffix.lower() == ".zip" or _is_zip(path)):
        files = _Files(path.parent, nested=False)
        read = _read_interactions(files, path.name, path.name not in _LAYOUTS, how)
        return _finish(path.stem, files, read, [], str(path), how)
    files = _Files(path)
    name = path.resolve().name if is_folder else path.stem
    for source in SOURCES.values():
        if name in (source.name, source.unpacked):
            return _load_source(source, files, str(path), how)
    found = files.interactions(INTERACTIONS)
    if not found:
        raise ValueError(f"{path} holds none of {', '.join(INTERACTIONS)} (found: "
                         f"{files.listing()}); expected one of them. Rename the file of "
                         "interactions, or give its own path.")
    notices = [f"{found[0]} was read; {' and '.join(found[1:])} beside it was not."
               ] if len(found) > 1 else []
    read = _read_interactions(files, found[0], found[0] not in _LAYOUTS, how)
    return _finish(name, files, read, notices, str(path), how)


def _load_fallback(folder: Path, how: _How) -> MovieLens:
    files = _Files(folder)
    notice = (
        "MovieLens 100K (943 users, 1997 and 1998) stands in for ml-latest-small, which could "
        f"neither be found nor downloaded. It comes from the package {FALLBACK}. To try "
        f"ml-latest-small again, remove the folder {folder.name} from the data folder."
    )
    read = _read_interactions(files, "ml-100k.inter", False, how)
    return _finish("ml-100k", files, read, [notice], str(folder), how)


def _finish(name: str, files: _Files, read: _Interactions, notices: list[str], origin: str,
            how: _How) -> MovieLens:
    """Add the tables that stand beside the interactions."""
    kind = "int64" if how.ids == "number" else str
    movies, links, tags = (reader(files, kind) for reader in (_read_movies, _read_links,
                                                              _read_tags))
    user_names, movie_names = read.user_names, read.movie_names
    if how.ids == "text":
        movie_names = _number_ids("movieId", movie_names, (movies, links, tags))
        user_names = _number_ids("userId", user_names, (tags,))
    notices = [*notices, read.notice]
    if movies is not None:
        if twice := movies["movieId"].duplicated().to_numpy().nonzero()[0].tolist():
            again = movies["movieId"].iloc[twice[0]]
            again = again if movie_names is None else movie_names[again]
            raise ValueError(f"{files.path}: the table of movies has movieId {again} twice; "
                             "expected each movie once. Fetch the file anew, or remove one of the "
                             "rows.")
        if (lacking := len(_untitled(read.ratings, movies))):
            notices += [f"{lacking:,} of the rated movies are not in the table of movies, so they "
                        "have no title."]
    notice = " ".join(filter(None, notices))
    if notice:
        log.warning("%s: %s", name, notice)
    return MovieLens(name, read.ratings, movies, links, tags, notice, origin, read.sha256,
                     user_names, movie_names)


def _number_ids(column: str, names: pd.Series, tables: Sequence[pd.DataFrame | None]) -> pd.Series:
    """Put numbers for the ids of the other tables; ids that nobody rated follow the rated ones."""
    tables = [table for table in tables if table is not None]
    for table in tables:
        table[column] = table[column].str.strip()
    new = set().union(*(table[column] for table in tables)) - set(names)
    names = pd.Series([*names, *sorted(new)], name=column, dtype=str)
    numbers = pd.Series(names.index, names)
    for table in tables:
        table[column] = table[column].map(numbers).astype("int64")
    return names


def _untitled(ratings: pd.DataFrame, movies: pd.DataFrame | None) -> np.ndarray:
    """int64, ascending: movies that are rated, but in no table of movies."""
    ids = ratings["movieId"].to_numpy()
    known = np.empty(0, np.int64) if movies is None else movies["movieId"].to_numpy()
    if ids.max() >= 2**24:
        return np.setdiff1d(ids, known)
    marks = np.zeros(ids.max() + 1, bool)  # a table of marks is faster than a set
    marks[ids] = True
    marks[known[(known >= 0) & (known < len(marks))]] = False
    return np.flatnonzero(marks)


def _read_movies(files: _Files, kind: type | str) -> pd.DataFrame | None:
    columns = ["movieId", "title", "genres"]
    if "movies.csv" in files:
        return _read_csv(files, "movies.csv", {"movieId": kind, "title": str, "genres": str})
    if "movies.dat" in files:
        rows = _fields(files, "movies.dat", "::", 3, kind)
    elif "u.item" in files:
        rows = [(row[0], row[1], "|".join(g for g, flag in zip(_GENRES, row[5:], strict=True)
                                          if flag == "1"))
                for row in _fields(files, "u.item", "|", 5 + len(_GENRES), kind)]
    elif "ml-100k.item" in files:
        rows = [(i, f"{title} ({year})" if year.isdigit() else title, genres.replace(" ", "|"))
                for i, title, year, genres in _fields(files, "ml-100k.item", "\t", 4, kind,
                                                      header=True)]
    else:
        return None
    return pd.DataFrame(rows, columns=columns, dtype=str).astype({"movieId": kind})


_GENRES = ("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime",
           "Documentary", "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery",
           "Romance", "Sci-Fi", "Thriller", "War", "Western")  # the order of u.genre


def _read_links(files: _Files, kind: type | str) -> pd.DataFrame | None:
    types = {"movieId": kind, "imdbId": str, "tmdbId": "Int64"}
    return _read_csv(files, "links.csv", types) if "links.csv" in files else None


def _read_tags(files: _Files, kind: type | str) -> pd.DataFrame | None:
    types = {"userId": kind, "movieId": kind, "tag": str, "timestamp": "int64"}
    if "tags.csv" in files:
        return _read_csv(files, "tags.csv", types)
    if "tags.dat" in files:
        rows = _fields(files, "tags.dat", "::", 4, kind, tags=True)
        return pd.DataFrame(rows, columns=list(types), dtype=str).astype(types)
    return None


def _read_csv(files: _Files, name: str, types: dict) -> pd.DataFrame:
    """A small table beside the ratings, all columns in `types` required."""
    label = files.label(name)
    with files.open(name) as stream:
        content = stream.read()
    columns = _header(content[:TOP], label, _Layout(), tuple(types))
    # Columns that nobody asked for are read all the same: pandas would else cut rows that are too
    # long, and with them a title with a comma in it.
    options = {"header": 0, "names": columns, "keep_default_na": False,
               "na_values": {"tmdbId": [""]}, "dtype": {c: types.get(c, "category")
                                                        for c in columns}}
    try:
        with np.errstate(invalid="ignore"):  # of "inf" for a whole number; refused below
            try:
                table = pd.read_csv(io.BytesIO(content), **options)[list(types)]
            except UnicodeDecodeError:
                text = io.StringIO(_decode(content, label))
                table = pd.read_csv(text, **options)[list(types)]
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{label}: {_short(error)}; expected UTF-8 text with the columns "
                         f"{', '.join(types)}. Correct the file, or fetch it anew.") from error
    numbers = [column for column, kind in types.items() if kind == "int64"]
    # To pandas a row that is too short looks as if its last field were empty.
    short = types.get(columns[-1]) is str and (table[columns[-1]] == "").any()
    swallowed = "title" in types and table["title"].str.contains("\n", regex=False).any()
    if short or swallowed or any(_doubtful(table[column].to_numpy()) for column in numbers):
        lines = csv.reader(io.StringIO(_decode(content, label), newline=""))
        rows = (row for row in lines if any(map(str.strip, row)))
        next(rows)
        for row in rows:
            values = dict(zip(columns, row, strict=False))
            if len(row) < len(columns) or not all(_is_whole(values[c]) for c in numbers) or (
                    "title" in values and re.search("[\r\n]", values["title"])):
                raise ValueError(f"{label}, line {lines.line_num}: {','.join(row)[:200]!r}; "
                                 f"expected {', '.join(columns)} in one line"
                                 f"{', whole numbers for ' * bool(numbers)}"
                                 f"{' and '.join(numbers)}. Correct the line, or fetch the "
                                 "file anew.")
    return table


def _doubtful(values: np.ndarray) -> bool:
    """Whether numbers may not be those of the file, so that it has to be read line by line.

    Beside a 1.0, pandas reads whole numbers by way of float64, exact below 2^53 only; and a column
    of nothing but True it reads as ones.
    """
    return bool(len(values) and (values.max() >= 2**53 or values.max() <= 1))


def _is_whole(value: str) -> bool:
    return re.fullmatch(r"[+-]?[0-9]{1,4000}", value.strip()) is not None


def _fields(files: _Files, name: str, separator: str, count: int, kind: type | str,
            tags: bool = False, header: bool = False) -> list[list[str]]:
    """The rows of a small table that is not a csv, each of `count` fields, the first a movieId.

    Of tags, the first two are ids, the third is a text that may hold the separator, and the last a
    time.
    """
    with files.open(name) as stream:
        lines = _decode(stream.read(), files.label(name)).split("\n")
    whole = (3,) * tags + ((0, 1)[: 1 + tags] if kind == "int64" else ())
    rows = []
    for number, line in enumerate(lines, 1):
        row = line.rstrip("\r").split(separator)
        if row == [""] or (header and number == 1):
            continue
        if tags and len(row) > count:
            row[2:-1] = [separator.join(row[2:-1])]
        if len(row) != count or not all(re.fullmatch("[0-9]{1,18}", row[i]) for i in whole):
            what = "userId, movieId, tag and seconds" if tags else "the first a movieId"
            raise ValueError(f"{files.label(name)}, line {number}: {line[:200]!r}; expected "
                             f"{count} fields separated by {separator!r}, {what}. "
                             "Fetch the file anew.")
        rows.append(row)
    return rows


def _decode(content: bytes, label: str) -> str:
    """Text of UTF-8, with a byte order mark or without, or else of Latin-1.

    Latin-1 is read as Windows-1252, which has the same letters and quotation marks in place of
    control characters. A file that holds letters of both kinds is damaged: neither would be right.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        if not re.search(rb"[\xc2-\xf4][\x80-\xbf]", content) and b"\0" not in content:
            try:
                return content.decode("cp1252")
            except UnicodeDecodeError:
                pass  # a byte that stands for nothing
        raise ValueError(f"{label}, line {line}: bytes that are neither UTF-8 nor Latin-1 text; "
                         "expected one of them. Save the file anew in UTF-8.") from error


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
INTERACTIONS = ("ratings.csv", "ratings.dat", "u.data", "ml-100k.inter", "sequences.csv")


@dataclass(frozen=True)
class _Interactions:
    """A file of interactions, read and checked."""

    ratings: pd.DataFrame
    sha256: str
    notice: str
    user_names: pd.Series | None = None
    movie_names: pd.Series | None = None


def _read_interactions(files: _Files, name: str, partial_ratings: bool, how: _How
                       ) -> _Interactions:
    """Read and check a file of interactions."""
    layout = _LAYOUTS.get(name, _Layout())
    with files.open(name) as stream:
        columns = _header(stream.read(TOP), files.label(name), layout,
                          ("userId", "movieId", "timestamp (or position)"))
    order = "position" if "position" in columns else "timestamp"
    wanted = [c for c in ("userId", "movieId", "rating", order) if c in columns]
    names = [column or f"empty {i}" for i, column in enumerate(columns)]
    id_type = "int64" if how.ids == "number" else str  # a category would take 007 for 7
    types = {c: "category" for c in names} | {"userId": id_type, "movieId": id_type,
                                              "rating": "float32", order: "int64"}
    rules = _Rules(columns, order, not partial_ratings, how.ids == "text")
    table, failure = None, None
    with files.open(name) as stream, np.errstate(invalid="ignore"):  # "inf" is refused below
        hashed = _Hashed(stream)
        try:
            table = pd.read_csv(hashed, sep=layout.separator, header=None if layout.columns else 0,
                                names=names, dtype=types, engine="c",
                                keep_default_na=False, na_values=[""])
        except (ValueError, OverflowError) as error:
            failure = error
        sha256 = hashed.digest()
    if failure is not None:
        raise ValueError(rules.explain(files, name, layout) or (
            f"{files.label(name)} cannot be read: {_short(failure)}")) from failure
    others = [table[c].cat.codes.to_numpy() for c in names if c.startswith("empty ")
              and layout.columns and len(table[c].cat.categories)]
    table, found = table[wanted], {}
    if how.ids == "text":
        for column in ("userId", "movieId"):
            table[column], found[column] = _coded(table[column])
    bad = [int(np.argmax(codes >= 0)) for codes in others]
    if (bad := min([*bad, *_out_of_range(table, rules)], default=None)) is not None:
        raise ValueError(rules.explain(files, name, layout, start=bad) or (
            f"{files.label(name)}, row {bad + 1}: a value out of its range"))
    if not len(table):
        raise ValueError(f"{files.label(name)} has no row of interactions; expected at least one. "
                         "Fetch the file anew.")
    if any(_doubtful(table[c].to_numpy()) for c in wanted if c not in found) and (
            problem := rules.explain(files, name, layout)):
        raise ValueError(problem)
    notices = []
    pair = checks.repeated_pair(table["userId"].to_numpy(), table["movieId"].to_numpy())
    if pair is not None and how.repeats == "error":
        raise ValueError(rules.explain(files, name, layout, start=len(table), pair=pair) or (
            f"{files.label(name)}, rows {pair[0] + 1} and {pair[1] + 1}: one pair of user and "
            "movie; expected each pair once"))
    if pair is not None:
        rows = len(table)
        in_time = table.sort_values(order, kind="stable")
        again = in_time.duplicated(["userId", "movieId"], keep=how.repeats)
        table = in_time[~again].sort_index().reset_index(drop=True)
        notices += [f"{rows - len(table):,} of {rows:,} interactions were left out, because their "
                    f"pair of user and movie stands in several rows: the {how.repeats} of each in "
                    "time was kept."]
    if "rating" in table and table["rating"].isna().any():
        known = int(table["rating"].notna().sum())
        notices += [f"Ratings are known for {known:,} of {len(table):,} interactions only, so they "
                    "are left out and no filter by rating is possible."]
        table = table.drop(columns="rating")
    return _Interactions(table, sha256, " ".join(notices), found.get("userId"),
                         found.get("movieId"))


def _coded(texts: pd.Series) -> tuple[np.ndarray, pd.Series]:
    """Number of each text among the distinct ones, blanks around them aside, and those in order.

    The number is -1 where there is no text, or one of several lines: a quotation mark too many.
    """
    texts = texts.astype("category")
    stripped = texts.cat.categories.astype(str).str.strip().to_numpy(object)
    names = np.unique(stripped.astype(str))
    names = names[[bool(re.fullmatch("[^\r\n]+", name)) for name in names]]
    numbers = np.append(pd.Index(names).get_indexer(stripped), -1)  # the last one for no text
    return numbers[texts.cat.codes].astype(np.int64), pd.Series(names, name=texts.name, dtype=str)


def _header(top: bytes, label: str, layout: _Layout, needed: tuple[str, ...]) -> list[str]:
    """The columns' names, from the layout or from line 1; checks what can be seen at the top."""
    if not top.strip():
        raise ValueError(f"{label} is empty; expected rows of a table. Fetch the file anew.")
    if top[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in top:
        raise ValueError(f"{label}, line 1: the file is not UTF-8 text (it looks like UTF-16 or "
                         "binary data); expected UTF-8. Save it anew as csv in UTF-8.")
    text = top.decode("utf-8-sig", errors="replace")
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=layout.separator)
    rows = []
    try:
        while len(rows) < 2 and (row := next(lines, None)) is not None:
            if any(map(str.strip, row)):
                rows.append((lines.line_num, row))
    except csv.Error as error:
        raise ValueError(f"{label}, line {lines.line_num}: {error}; expected plain csv.") from error
    if not rows:
        raise ValueError(f"{label} is empty; expected rows of a table. Fetch the file anew.")
    columns = list(layout.columns)
    if not columns:
        at, row = rows.pop(0)
        columns = [dict(layout.rename).get(c.strip(), c.strip()) for c in row]
        missing = [c for c in needed if not {*re.split(r" \(or |\)", c)} & set(columns)]
        if missing or len(set(columns)) != len(columns):
            what = f"lacks {', '.join(missing)}" if missing else "names a column twice"
            raise ValueError(f"{label}, line {at}: the header "
                             f"{layout.separator.join(row)[:200]!r} {what}; expected "
                             f"{', '.join(needed)}, separated by {layout.separator!r}. Rename the "
                             "columns.")
    if rows and len(rows[0][1]) > len(columns):  # pandas would take the first field for an index
        at, row = rows[0]
        raise ValueError(f"{label}, line {at}: too many fields in "
                         f"{layout.separator.join(row)[:200]!r}; expected "
                         f"{', '.join(filter(None, columns))}. Correct or remove the line.")
    return columns


def _out_of_range(table: pd.DataFrame, rules: _Rules) -> list[int]:
    """The first row with a value out of its range, by column: `_Rules.problem` as a whole."""
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
    return bad


@dataclass(frozen=True)
class _Rules:
    """What a row has to look like; used line by line only once something is known to be wrong."""

    columns: list[str]
    order: str
    rating_required: bool
    text_ids: bool

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
        between = [v for c, v in zip(self.columns, row, strict=True) if not c]
        if len(between) > 1 and any(between):  # one column without a name is a csv's own index
            return "more than a separator between two fields; expected '::' between them"
        for column in ("userId", "movieId", self.order):
            value = values[column].strip()
            if self.text_ids and column != self.order:
                if not value or re.search("[\r\n]", value):
                    return f"{column} {values[column]!r}; expected a text in one line"
                continue
            if not _is_whole(value):
                return f"{column} {values[column]!r}; expected a whole number" + (
                    ' (ids="text" reads ids that are text)' if value and column != self.order
                    else "")
            lowest, highest = self.bounds(column)
            if not lowest <= int(value) <= highest:
                if column != "timestamp":
                    return f"{column} {value}; expected {lowest} to {highest}"
                hint = ("of milliseconds, divide by 1,000" if int(value) > highest else
                        "an order number belongs in a column called position")
                return (f"timestamp {value}; expected seconds since 1970, from {lowest} "
                        f"(1995-01-01) to {highest} (2100-01-01); {hint}")
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
            rows = (row for row in lines if row and (len(row) > 1 or row[0].strip()))
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
                                "one of the two lines, or load with repeats='first' or 'last'.")
                    elif number >= start and (problem := self.problem(row)):
                        what, _, expected = problem.partition("; ")
                        shown = layout.separator.join(row)[:200].encode("utf-8", "surrogateescape")
                        shown = " ".join(shown.decode("utf-8", "backslashreplace").split())
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
    """The files of one data set, in a folder or in a zip archive, by their bare names.

    They are those that stand together with a file of interactions: in the archive's topmost folder
    that has one; in a folder itself or, if `nested`, in its only subfolder that has one.
    """

    def __init__(self, path: Path, nested: bool = True):
        self.path, self.archive = path, None
        if not path.is_dir():
            self.archive, paths = path, _safe_members(path)
        else:
            with _reading(path):
                paths = [p for p in path.iterdir() if p.is_file()]
                if nested and not any(p.name in INTERACTIONS for p in paths):
                    paths += [p for inner in path.iterdir() if inner.is_dir()
                              for p in inner.iterdir() if p.is_file()]
            paths = [p.relative_to(path).as_posix() for p in paths]
        homes = {PurePosixPath(p).parent for p in paths if PurePosixPath(p).name in INTERACTIONS}
        top = min((len(home.parts) for home in homes), default=0)
        homes = sorted(str(home) for home in homes if len(home.parts) == top)
        if len(homes) > 1:
            raise ValueError(f"{path} holds several data sets ({', '.join(homes)}); expected one. "
                             "Give the path of one of them, unpacked.")
        members = [PurePosixPath(p) for p in paths]
        if homes:
            members = [p for p in members if str(p.parent) == homes[0]]
        self.members = {p.name: str(p) for p in members}

    def __contains__(self, name: str) -> bool:
        return name in self.members

    def interactions(self, names: Sequence[str]) -> list[str]:
        """Which of these files are there, in this order."""
        return [name for name in names if name in self.members]

    def listing(self) -> str:
        """What is there, for messages."""
        return _short(", ".join(sorted(self.members)) or "nothing")

    def label(self, name: str) -> str:
        """How messages call a file."""
        inside = self.members[name]
        return f"{self.path}: {inside}" if self.archive else str(self.path / inside)

    @contextmanager
    def open(self, name: str) -> Iterator[io.BufferedIOBase]:
        """A file as a stream of bytes."""
        if self.archive is None:
            with _reading(self.path / self.members[name]), open(
                    self.path / self.members[name], "rb") as stream:
                yield stream
            return
        with _reading(self.path), zipfile.ZipFile(self.path) as archive:
            with archive.open(self.members[name]) as stream:
                yield stream


def _is_zip(path: Path) -> bool:
    with _reading(path):
        return zipfile.is_zipfile(path)


@contextmanager
def _reading(path: Path, *more: type[Exception]) -> Iterator[None]:
    """Turn what a damaged archive or an unreadable file throws into one clear error."""
    try:
        yield
    except (*_DAMAGED, *more) as error:
        raise ValueError(f"{path} is not a whole zip archive ({_short(error)}); expected one with "
                         "all its bytes. Remove it and fetch it anew.") from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({_short(error)}); expected a file or folder that "
                         "may be read.") from error


_DAMAGED = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError,
            struct.error)


def _safe_members(path: Path) -> list[str]:
    """The members of an archive; refuses what could do harm."""
    # A wrong byte in the directory can make a name empty or no text.
    with _reading(path, IndexError, UnicodeDecodeError), zipfile.ZipFile(path) as archive:
        infos = [info for info in archive.infolist() if not info.is_dir()]
    for info in infos:
        parts = PurePosixPath(info.filename.replace("\\", "/"))
        if parts.is_absolute() or ".." in parts.parts or ":" in info.filename or (
                not info.filename.isprintable()):
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
    return [info.filename for info in infos]


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
