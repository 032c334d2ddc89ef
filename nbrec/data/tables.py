"""The tables that stand beside a file of interactions: movies, links and tags."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from nbrec.data import untrusted
from nbrec.data.untrusted import bad, quoted

MAX_UNPACKED = 8 * 2**30  # bytes; the largest official file unpacks to 9e8
MAX_RATIO = 200  # unpacked to packed size; the tables reach about 5
GENRES = ("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime",
          "Documentary", "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery",
          "Romance", "Sci-Fi", "Thriller", "War", "Western")  # the order of u.genre


class Place:
    """The files of one data set, in a folder or in a zip archive, by their bare names.

    They are those that stand together with a file of interactions: in the archive's topmost folder
    that has one; in a folder itself or, if ``nested``, in its only subfolder that has one.

    Args:
        path: of the folder or archive.
        names: of files of interactions.

    Raises:
        ValueError: it cannot be read, is damaged, or holds several data sets.
    """

    def __init__(self, path: Path, names: Iterable[str], nested: bool = True) -> None:
        names = set(names)
        self.path, self.archive, self.packed = path, None, {}
        if not path.is_dir():
            self.archive = untrusted.Archive(path, path)
            self.packed = {m.name.replace("\\", "/"): m for m in self.archive.members}
            found = [name for name in self.packed if not name.endswith("/")]
        else:
            try:
                files = [p for p in path.iterdir() if p.is_file()]
                if nested and not any(p.name in names for p in files):
                    files += [p for inner in path.iterdir() if inner.is_dir()
                              for p in inner.iterdir() if p.is_file()]
            except OSError as error:
                raise bad(path, f"what cannot be read ({error.strerror})", "a folder that may be "
                          "read", "Give another path.") from error
            found = [p.relative_to(path).as_posix() for p in files]
        homes = {PurePosixPath(p).parent for p in found if PurePosixPath(p).name in names}
        top = min((len(home.parts) for home in homes), default=0)
        tops = sorted(str(home) for home in homes if len(home.parts) == top)
        if len(tops) > 1:
            raise bad(path, f"several data sets ({', '.join(tops)})", "one",
                      "Give the path of one of them, unpacked.")
        self.members = {PurePosixPath(p).name: p for p in found
                        if not tops or str(PurePosixPath(p).parent) == tops[0]}

    def __contains__(self, name: str) -> bool:
        return name in self.members

    def listing(self) -> str:
        """What is there, for messages."""
        return ", ".join(sorted(self.members))[:300] or "nothing"

    def label(self, name: str) -> str:
        """How messages call a file."""
        inside = self.members[name]
        return f"{self.path}: {inside}" if self.archive else str(self.path / inside)

    def open(self, name: str) -> AbstractContextManager[Any]:
        """A file as a stream of bytes."""
        inside = self.members[name]
        if self.archive is None:
            return untrusted.opened(self.path / inside)
        member = self.packed[inside]
        most = min(MAX_UNPACKED, MAX_RATIO * max(member.packed, 1 << 10))
        return self.archive.open(member, self.label(name), most)

    def text(self, name: str) -> str:
        """A small file as a whole."""
        with self.open(name) as stream:
            return untrusted.decode(stream.read(), self.label(name), latin=True)


def movies(place: Place, kind: type | str) -> pd.DataFrame | None:
    """movieId, title, genres (joined by "|"); None if there is no such table.

    Args:
        kind: of the ids, "int64" or str; here and below.
    """
    types = {"movieId": kind, "title": str, "genres": str}
    if "movies.csv" in place:
        return _table(place, "movies.csv", types, _csv(place, "movies.csv", types))
    if "movies.dat" in place:
        return _table(place, "movies.dat", types, _lines(place, "movies.dat", "::", 3))
    if "u.item" in place:
        rows = ((line, [row[0], row[1], "|".join(g for g, flag in zip(GENRES, row[5:], strict=True)
                                                 if flag == "1")])
                for line, row in _lines(place, "u.item", "|", 5 + len(GENRES)))
        return _table(place, "u.item", types, rows)
    if "ml-100k.item" in place:
        rows = ((line, [row[0], f"{row[1]} ({row[2]})" if row[2].isdigit() else row[1],
                        row[3].replace(" ", "|")])
                for line, row in _lines(place, "ml-100k.item", "\t", 4) if line > 1)
        return _table(place, "ml-100k.item", types, rows)
    return None


def links(place: Place, kind: type | str) -> pd.DataFrame | None:
    """movieId, imdbId (str), tmdbId (Int64); None if there is no such table."""
    types = {"movieId": kind, "imdbId": str, "tmdbId": "Int64"}
    if "links.csv" not in place:
        return None
    return _table(place, "links.csv", types, _csv(place, "links.csv", types))


def tags(place: Place, kind: type | str) -> pd.DataFrame | None:
    """userId, movieId, tag, timestamp (int64, seconds since 1970 UTC); None if there is none."""
    types = {"userId": kind, "movieId": kind, "tag": str, "timestamp": "int64"}
    if "tags.csv" in place:
        return _table(place, "tags.csv", types, _csv(place, "tags.csv", types))
    if "tags.dat" in place:  # a tag may hold the separator
        return _table(place, "tags.dat", types, _lines(place, "tags.dat", "::", 4, joined=2))
    return None


def _csv(place: Place, name: str, types: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """The rows of a csv: of each these columns, in this order."""
    label = place.label(name)
    lines = untrusted.rows(io.StringIO(place.text(name), newline=""), label)
    line, row = next(lines, (1, []))
    columns = [column.strip() for column in row]
    untrusted.columns(columns, types, label, line)
    places = [columns.index(column) for column in types]
    for line, row in lines:
        if len(row) != len(columns):
            raise bad(label, f"{len(row)} fields in {quoted(','.join(row), 200)}",
                      f"{len(columns)}, as in the header", line=line)
        yield line, [row[i] for i in places]


def _lines(place: Place, name: str, separator: str, count: int, joined: int | None = None
           ) -> Iterator[tuple[int, list[str]]]:
    """The rows of a table without quotes, each of ``count`` fields.

    Args:
        joined: place of a field that may hold the separator.
    """
    for line, text in enumerate(place.text(name).split("\n"), 1):
        row = text.rstrip("\r").split(separator)
        if joined is not None and len(row) > count:
            behind = len(row) - count + joined + 1
            row[joined:behind] = [separator.join(row[joined:behind])]
        if row == [""]:
            continue
        if len(row) != count:
            raise bad(place.label(name), f"{len(row)} fields in {quoted(text, 200)}",
                      f"{count}, separated by {separator!r}", line=line)
        yield line, row


def _table(place: Place, name: str, types: dict[str, type | str],
           rows: Iterable[tuple[int, list[str]]]) -> pd.DataFrame:
    """A small table, checked row by row."""
    wholes = [(i, kind == "Int64") for i, kind in enumerate(types.values()) if kind is not str]
    title, found = list(types).index("title") if "title" in types else None, []
    for line, row in rows:
        for i, optional in wholes:
            text = row[i] = row[i].strip()
            if not (text.isascii() and text.isdigit() and len(text) < 19 or optional and not text):
                raise bad(place.label(name), f"{list(types)[i]} {quoted(text)}", "a whole number",
                          line=line)
        if title is not None and ("\n" in row[title] or "\r" in row[title]):
            raise bad(place.label(name), f"a title of several lines ({quoted(row[title])})",
                      "one line", line=line)
        found.append(row)
    columns: dict[str, Any] = dict(zip(types, zip(*found, strict=True), strict=False))
    for i, _ in wholes:
        column = list(types)[i]
        columns[column] = [int(text) if text else None for text in columns.get(column, ())]
    return pd.DataFrame(columns, columns=list(types)).astype(types)
