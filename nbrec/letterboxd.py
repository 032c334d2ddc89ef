"""A Letterboxd export as a history: read it, find its films among MovieLens's, keep their order.

Nothing is unpacked, written or executed; only the three lists of seen films are opened. Names and
messages may hold any text a file holds: whoever shows them as HTML has to escape them.
"""

from __future__ import annotations

import csv
import io
import math
import re
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from nbrec import titles

# In the order in which they tell when a film was seen: a diary knows it, the others when it was
# marked or rated.
FILES = ("diary.csv", "watched.csv", "ratings.csv")
REFUSED = {  # a word in a file's name: why it is not a history
    "watchlist": "the watchlist holds films that have not been seen",
    "profile": "the profile holds a person's name and address, and no films; it was not opened",
    "reviews": "the reviews are in diary.csv too, without their texts",
}
MAX_FILE = 16 * 2**20  # bytes of a csv; 20,000 diary entries take about 2 MB
MAX_ARCHIVE = 64 * 2**20  # bytes; reviews and lists, which are not opened, make up most of it
MAX_MEMBERS = 10_000  # files in an archive; every list of a member is one
MAX_ROWS, MAX_NAME = 100_000, 500  # lines of a csv, characters of a film's name

HOW = ("exact", "article", "accent", "alternative title", "year off by one")  # nearest first
YEARS = {  # MovieLens has these without a year
    (140956, "Ready Player One"): 2018, (143410, "Hyena Road"): 2015,
    (149334, "Nocturnal Animals"): 2016, (156605, "Paterson"): 2016, (162414, "Moonlight"): 2016,
    (171631, "Maria Bamford: Old Baby"): 2017, (171891, "Generation Iron 2"): 2017,
}
ENGLISH = {"", "the", "a", "an"}
NOT_LISTS = {"deleted", "orphaned", "lists", "likes", "__macosx"}


@dataclass(frozen=True)
class Films:
    """The films of an export, each once, in the order of viewing.

    Args:
        table: name, year (Int64), date (of the last viewing), rating (float64, 0.5 to 5 stars, NaN
            if there is none), viewings (int64, lines of the list that the date comes from).
        files: names of the lists that were read.
    """

    table: pd.DataFrame = field(repr=False)
    files: tuple[str, ...]


@dataclass(frozen=True)
class Match:
    """Which films were found among MovieLens's, and how.

    Args:
        matched: the columns of `Films.table`, movieId (int64), title (MovieLens's), how: the last
            of the steps `HOW` that it took; in the order of viewing.
        unmatched: the columns of `Films.table`, reason, candidates (movieIds that a reader may
            choose from, as a tuple); in the order of viewing.
    """

    matched: pd.DataFrame = field(repr=False)
    unmatched: pd.DataFrame = field(repr=False)

    def history(self, catalogue: Sequence[int], min_rating: float | None = None) -> np.ndarray:
        """The matched films as a model's history, oldest first.

        Args:
            catalogue: int64 (V,), the movieId of each index; films outside it are left out.
            min_rating: films rated lower are left out, as in training (`SequenceSettings`); those
                without a rating stay. None keeps all.

        Returns:
            int64 (n,), indices in 0..V-1.
        """
        films = self.matched
        if min_rating is not None:
            films = films[~(films["rating"] < min_rating)]
        found = pd.Index(np.asarray(catalogue, dtype=np.int64)).get_indexer(films["movieId"])
        return found[found >= 0].astype(np.int64)


def read(source: str | Path | bytes, name: str = "") -> Films:
    """The films of watched.csv, ratings.csv or diary.csv, or of the whole exported zip.

    Of a film seen several times the last viewing counts: it tells best where it stands in the order
    now. The date is the diary's "Watched Date", else the "Date" of the diary, of watched.csv, of
    ratings.csv; films of one day keep the order of their lines. The rating is that of ratings.csv,
    else the last one in the diary.

    Args:
        source: path, or the content of the file.
        name: file name, if ``source`` is the content. Needed for watched.csv, which differs from
            watchlist.csv in nothing else.

    Raises:
        ValueError: the file is none of these, too large, damaged or holds a bad line; the message
            says where, what was found, what was expected and what to do.
    """
    path = Path(source) if isinstance(source, (str, Path)) else None
    name = PurePosixPath((name or str(path or "")).replace("\\", "/")).name
    for word, reason in REFUSED.items():
        # A whole export is named after its member, who may be called anything.
        if word in name.casefold() and not name.casefold().endswith(".zip"):
            raise _bad(name, reason, "a list of seen films", _GIVE)
    if path is None:
        data = memoryview(source).tobytes()
    elif path.is_file():
        with path.open("rb") as stream:
            data = stream.read(MAX_ARCHIVE + 1)
    else:
        raise _bad(name, "a folder" if path.is_dir() else "no such file", "a file", _GIVE)
    name = name or "the file"
    if data.startswith(b"PK"):
        return _films(list(_members(data, name)))
    if name.casefold().endswith(".zip"):
        raise _bad(name, f"a file that begins with {data[:8]!r}", "a zip archive")
    rows, kind = _rows(data, name)
    if kind == "watched.csv" and "watched" not in name.casefold():
        raise _bad(name, "the header of both watched.csv and watchlist.csv",
                   "a file name with the word 'watched' in it, since nothing else tells them apart",
                   "If these are seen films, name the file watched.csv.")
    return _films([(kind, rows)])


def match(films: Films, movies: pd.DataFrame) -> Match:
    """Find films by name and year; in doubt none is taken.

    The name may differ from MovieLens's in letter case, the place or lack of "The", "A" or "An",
    accents and signs, or be one of those in brackets; the year by one. The nearest film in this
    order is taken, first of the same year, if only one is as near and no other film of the export
    is as near to it.

    Args:
        films: of `read`.
        movies: movieId, title (as MovieLens writes it, with the year). Give all movies, not a
            model's catalogue only: what is known can be told apart.

    Raises:
        ValueError: a column is missing.
    """
    if missing := {"movieId", "title"} - set(movies):
        raise ValueError(f"the movies have the columns {list(movies)}; expected "
                         f"{' and '.join(sorted(missing))} as well: take `movielens.load(name)"
                         ".movies`")
    written, by_key = {}, defaultdict(list)
    for movie, title in zip(movies["movieId"].tolist(), movies["title"], strict=True):
        name, year = titles.split(title)
        year = int(year) if year else YEARS.get((movie, title))
        written[movie] = (title, name, year)
        for key in titles.keys(name):
            by_key[key].append(movie)
    found, failed = {}, {}  # row: ((years apart, step), movieId); row: (reason, candidates)
    rows = list(films.table.itertuples(index=False))
    for row, film in enumerate(rows):
        same_name = {movie: step for key in titles.keys(film.name) for movie in by_key[key]
                     if (step := _step(film.name, *written[movie][:2])) is not None}
        near = {movie: (abs(film.year - year), step) for movie, step in same_name.items()
                if film.year is not pd.NA and (year := written[movie][2]) is not None
                and abs(film.year - year) <= 1}
        best = [movie for movie in near if near[movie] == min(near.values())]
        if len(best) == 1:
            found[row] = (near[best[0]], best[0])
        else:
            failed[row] = _why_not(film, best, {m: written[m] for m in same_name})
    nearest = {}
    for score, movie in found.values():
        nearest[movie] = min(nearest.get(movie, score), score)
    as_near = Counter(movie for score, movie in found.values() if score == nearest[movie])
    for row, (score, movie) in list(found.items()):
        if score > nearest[movie] or as_near[movie] > 1:
            del found[row]
            failed[row] = (f"another film of the export fits {written[movie][0]!r} "
                           + ("better" if score > nearest[movie] else "as well"), (movie,))
    matched = films.table.iloc[sorted(found)].reset_index(drop=True)
    matched["movieId"] = np.array([found[r][1] for r in sorted(found)], dtype=np.int64)
    matched["title"] = [written[m][0] for m in matched["movieId"]]
    matched["how"] = [HOW[-1 if found[r][0][0] else found[r][0][1]] for r in sorted(found)]
    unmatched = films.table.iloc[sorted(failed)].reset_index(drop=True)
    unmatched["reason"] = [failed[r][0] for r in sorted(failed)]
    unmatched["candidates"] = [failed[r][1] for r in sorted(failed)]
    return Match(matched, unmatched)


def _step(name: str, title: str, natural: str) -> int | None:
    """Which step of `HOW` makes a name one of a title's; None if none does."""
    main, *others = titles.names(natural)
    steps = [step for known in (natural, main) if (step := _difference(name, known)) is not None]
    if steps:
        return max(min(steps), 0 if title.startswith(main) else 1)
    # Of a name with brackets every part has to be a name of the film.
    same = all(any(_difference(part, known) is not None for known in (main, *others))
               for part in titles.names(name))
    return 3 if same else None


def _difference(one: str, other: str) -> int | None:
    articles = titles.article(one), titles.article(other)
    # "Die Hard" is not "Hard", nor "A Man Apart" the same as "The Man Apart".
    if articles[0] != articles[1] and not ("" in articles and ENGLISH.issuperset(articles)):
        return None
    one, other = one.casefold(), other.casefold()
    if one == other:
        return 0
    one, other = (n[len(a):].strip() for n, a in zip((one, other), articles, strict=True))
    if one == other:
        return 1
    return 2 if titles.without_signs(one) == titles.without_signs(other) else None


def _why_not(film, best: list[int], same: dict[int, tuple]) -> tuple[str, tuple[int, ...]]:
    listed = ", ".join(f"{same[m][0]!r} (movieId {m})" for m in sorted(best or same))
    if not same:
        return "no film of this name", ()
    if best:
        return f"several films are equally near: {listed}", tuple(sorted(best))
    if film.year is pd.NA:
        return f"the export gives no year, so it may or may not be {listed}", tuple(sorted(same))
    return f"films of this name are of another or no year: {listed}", tuple(sorted(same))


# --- from bytes to films -------------------------------------------------------------------------

_EXPORT = "Export your data anew from Letterboxd (settings, data) and give that file unchanged."
_GIVE = "Give watched.csv, ratings.csv, diary.csv or the whole zip of the Letterboxd export."


class _Bad(ValueError):
    """What this module itself finds, apart from what zipfile does."""


def _bad(name: str, found: str, expected: str, advice: str = _EXPORT, line: int = 0) -> _Bad:
    where = f"{name!r}, line {line}" if line else repr(name)
    return _Bad(f"{where}: found {found}; expected {expected}. {advice}")


def _members(data: bytes, name: str) -> Iterator[tuple[str, list[dict]]]:
    """The rows of each list of seen films in an archive; nothing else of it is opened."""
    if len(data) > MAX_ARCHIVE:
        raise _bad(name, f"more than {MAX_ARCHIVE:,} bytes", "a smaller archive", _GIVE)
    if data.count(b"PK\1\2") > MAX_MEMBERS:  # counted here, as opening it reads its whole index
        raise _bad(name, f"more than {MAX_MEMBERS:,} files", "fewer", _GIVE)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for file, member in _wanted(archive.infolist(), name).items():
                where = f"{name}/{file}"
                yield file, _rows(_unpacked(archive, member, where), where)[0]
    except _Bad:
        raise
    except Exception as error:  # zipfile meets damage with many kinds of them
        raise _bad(name, f"a damaged archive ({error})", "a readable zip") from error


def _wanted(members: list[zipfile.ZipInfo], name: str) -> dict[str, zipfile.ZipInfo]:
    found: dict[str, zipfile.ZipInfo] = {}
    for member in members:
        parts = PurePosixPath(member.filename.replace("\\", "/")).parts
        if ".." in parts or parts[:1] == ("/",) or ":" in "".join(parts[:1]):
            raise _bad(name, f"a file named {member.filename[:80]!r}", "names inside the archive")
        # An archive packed anew may have one folder around the lists; deleted/ has old ones.
        if not parts or member.is_dir() or parts[-1] not in FILES or len(parts) > 2 or (
                parts[0].casefold() in NOT_LISTS):
            continue
        if parts[-1] in found:
            raise _bad(name, f"{parts[-1]} twice", "each list once")
        found[parts[-1]] = member
    if not found:
        inner = [m.filename[:80] for m in members if m.filename.casefold().endswith(".zip")]
        raise _bad(name, f"another archive in it ({inner[0]!r})" if inner else "none of its lists",
                   f"one of {', '.join(FILES)}", "Unpack the outer one." if inner else _GIVE)
    return {file: found[file] for file in FILES if file in found}


def _unpacked(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str) -> bytes:
    if member.flag_bits & 1:
        raise _bad(name, "a file with a password", "one without")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise _bad(name, f"compression method {member.compress_type}", "0 (stored) or 8 (deflated)")
    if member.file_size > MAX_FILE:
        raise _bad(name, f"{member.file_size:,} bytes when unpacked", f"at most {MAX_FILE:,}")
    with archive.open(member) as stream:
        return stream.read(MAX_FILE + 1)


def _rows(data: bytes, name: str) -> tuple[list[dict], str]:
    """The checked rows of a csv, and which of `FILES` has its header."""
    if len(data) > MAX_FILE:
        raise _bad(name, f"more than {MAX_FILE:,} bytes", "a smaller file")
    if data.startswith(b"PK\3\4"):
        raise _bad(name, "an archive in the archive", "a csv file", "Unpack it.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _bad(name, f"byte 0x{data[error.start]:02x}, which is not UTF-8", "text in UTF-8",
                   line=_breaks(data[:error.start].decode("utf-8", "replace")) + 1) from None
    if control := re.search(r"[\0-\x08\x0b\x0c\x0e-\x1f\x7f]", text):
        raise _bad(name, f"the control character {control[0]!r}", "text",
                   line=_breaks(text[:control.start()]) + 1)
    if (n := _breaks(text)) > MAX_ROWS:
        raise _bad(name, f"{n:,} lines", f"at most {MAX_ROWS:,}")
    reader, rows, line = csv.reader(io.StringIO(text, newline=""), strict=True), [], 1
    try:
        header = next(reader, [])
        if "Review" in header:
            raise _bad(name, REFUSED["reviews"], "a list of seen films", _GIVE)
        for column in ("Date", "Name", "Year", *{"Rating", "Watched Date"}.intersection(header)):
            if header.count(column) != 1:
                raise _bad(name, f"{column!r} {header.count(column)} times in the header "
                           f"{','.join(header)[:80]!r}", "Date, Name and Year, each once, between "
                           "commas", _GIVE, line=1)
        kind = FILES[0 if "Watched Date" in header else 2 if "Rating" in header else 1]
        while True:
            line = reader.line_num + 1
            fields = next(reader, None)
            if fields is None:
                return rows, kind
            if fields and len(fields) != len(header):
                raise _bad(name, f"{len(fields)} fields", f"{len(header)}, as in the header",
                           line=line)
            if fields:
                rows.append(_row(dict(zip(header, fields, strict=True)), name, line))
    except csv.Error as error:
        raise _bad(name, f"a broken row ({error})", "fields between commas, quotes in pairs",
                   line=line) from error


def _breaks(text: str) -> int:
    return text.count("\n") + text.count("\r") - text.count("\r\n")


def _row(row: dict[str, str], name: str, line: int) -> dict:
    film, year, rating = " ".join(row["Name"].split()), row["Year"], row.get("Rating", "")
    day = row.get("Watched Date") or row["Date"]
    if not 0 < len(film) <= MAX_NAME:
        raise _bad(name, f"a film's name of {len(film):,} characters", f"1 to {MAX_NAME}",
                   line=line)
    if year and not (re.fullmatch("[0-9]{4}", year) and 1870 <= int(year) <= 2100):
        raise _bad(name, f"the year {year[:20]!r}", "1870 to 2100, or nothing", line=line)
    if rating and not re.fullmatch(r"(0\.5|[1-4](\.[05])?|5(\.0)?)", rating):
        raise _bad(name, f"the rating {rating[:20]!r}", "0.5 to 5 in half steps, or nothing",
                   line=line)
    try:
        # fromisoformat alone takes "2024-W05-6" as well.
        when = date.fromisoformat(day if re.fullmatch("[0-9]{4}-[0-9]{2}-[0-9]{2}", day) else "")
    except ValueError:
        when = None
    if when is None or not 1900 <= when.year <= 2100:
        raise _bad(name, f"the date {day[:20]!r}", "a day such as 2024-02-03", line=line)
    return {"name": film, "year": int(year) if year else None, "date": when, "line": line,
            "rating": float(rating or "nan")}


def _films(lists: Sequence[tuple[str, list[dict]]]) -> Films:
    by_film: dict[tuple, list[dict]] = defaultdict(list)
    for file, rows in lists:
        for row in rows:
            by_film[row["name"], row["year"]].append(row | {"file": FILES.index(file)})
    films = []
    for rows in by_film.values():
        first = min(row["file"] for row in rows)
        dated = [row for row in rows if row["file"] == first]
        last = max(dated, key=lambda row: (row["date"], row["line"]))
        rated = [row for row in rows if not math.isnan(row["rating"])]
        # ratings.csv, the last of FILES, holds the rating of today.
        rating = max(rated, key=lambda r: (r["file"], r["date"], r["line"]), default=last)["rating"]
        films.append(last | {"rating": rating, "viewings": len(dated)})
    films.sort(key=lambda film: (film["date"], film["file"], film["line"]))
    columns = {"name": object, "year": "Int64", "date": "datetime64[ns]", "rating": "float64",
               "viewings": "int64"}
    table = pd.DataFrame(films, columns=list(columns)).astype(columns)
    return Films(table, tuple(file for file, _ in lists))
