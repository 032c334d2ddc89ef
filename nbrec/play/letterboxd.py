"""A Letterboxd export as a list of films in the order of viewing; `nbrec.play.matching` finds them.

Nothing is unpacked, written or executed; only the three lists of seen films are opened. Names and
messages may hold any text a file holds: whoever shows them as HTML has to escape them. The page of
the book does the same with book/assets/letterboxd.js, to the letter; a test holds them together.
"""

from __future__ import annotations

import io
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import pandas as pd

from nbrec.data import untrusted
from nbrec.data.untrusted import BLANKS, CONTROL, quoted

# In the order in which they tell when a film was seen: a diary knows it, the others when it was
# marked or rated.
FILES = ("diary.csv", "watched.csv", "ratings.csv")
REFUSED = {  # a word in a file's name: why it is not a history
    "watchlist": "the watchlist holds films that have not been seen",
    "profile": "the profile holds a person's name and address, and no films",
}
NOT_LISTS = ("deleted", "orphaned", "lists", "likes", "__macosx")  # folders of an archive
MAX_FILE = 16 * 2**20  # bytes of a csv; 20,000 diary entries take about 2 MB
MAX_ARCHIVE = 64 * 2**20  # bytes; reviews and lists, which are not opened, make up most of it
MAX_ROWS, MAX_NAME = 100_000, 500  # lines of a csv, characters of a film's name
# The page reads with these, too, as JavaScript's regular expressions: both have to take them.
IS_YEAR, IS_DAY = "[0-9]{4}", "[0-9]{4}-[0-9]{2}-[0-9]{2}"
IS_RATING = r"0\.5|[1-4](?:\.[05])?|5(?:\.0)?"

_EXPORT = "Export your data anew from Letterboxd (settings, data) and give that file unchanged."
_GIVE = "Give watched.csv, ratings.csv, diary.csv or the whole zip of the Letterboxd export."
_COLUMNS = "Date, Name and Year, each once, between commas"
MESSAGES = {  # what was found, what was expected, what to do; the page says the same
    "refused": ("{}", "a list of seen films", _GIVE),
    "no zip": ("no zip archive, in spite of its name", "a zip archive", _EXPORT),
    "watchlist": (
        "the header of both watched.csv and watchlist.csv",
        "a file name with the word 'watched' in it, since nothing else tells them apart",
        "If these are seen films, name the file watched.csv."),
    "large archive": ("more than {} bytes", "a smaller archive", _GIVE),
    "large file": ("more than {} bytes", "a smaller file", _EXPORT),
    "twice": ("{} twice", "each list once", _EXPORT),
    "no list": ("none of its lists", f"one of {', '.join(FILES)}", _GIVE),
    "archive in it": ("another archive in it ({})", f"one of {', '.join(FILES)}",
                      "Unpack the outer one."),
    "archive": ("an archive in the archive", "a csv file", "Unpack it."),
    "control": ("the control character '\\x{}'", "text", _EXPORT),
    "lines": ("{} lines", f"at most {MAX_ROWS:,}", _EXPORT),
    "fields": ("{} fields", "{}, as in the header", _EXPORT),
    "reviews": ("reviews, whose films are in diary.csv too, without the texts",
                "a list of seen films", _GIVE),
    "import": ("the header {} of a list for import into Letterboxd",
               "a list that Letterboxd exports, with Date, Name and Year", _GIVE),
    "semicolons": ("semicolons in the header {}", _COLUMNS, _EXPORT),
    "columns": ("'{}' {} times in the header {}", _COLUMNS, _GIVE),
    "name": ("a film's name of {} characters", f"1 to {MAX_NAME}", _EXPORT),
    "year": ("the year {}", "1870 to 2100, or nothing", _EXPORT),
    "rating": ("the rating {}", "0.5 to 5 in half steps, or nothing", _EXPORT),
    "date": ("the date {}", "a day such as 2024-02-03", _EXPORT),
} | {key: (*words, _EXPORT) for key, words in untrusted.MESSAGES.items()}


@dataclass(frozen=True)
class Films:
    """The films of an export, each once, in the order of viewing.

    Args:
        table: name, year (Int64), date (of the last viewing), rating (float64, 0.5 to 5 stars, NaN
            if there is none), viewings (int64, lines of the list that the date comes from). A name
            and a year stand twice where watched.csv or ratings.csv link to two films of them.
        files: names of the lists that were read.
    """

    table: pd.DataFrame = field(repr=False)
    files: tuple[str, ...]


def read(source: str | Path | bytes, name: str = "") -> Films:
    """The films of watched.csv, ratings.csv or diary.csv, or of the whole exported zip.

    Of a film seen several times the last viewing counts: it tells best where it stands in the order
    now. The date is the diary's "Watched Date", else the "Date" of the diary, of watched.csv, of
    ratings.csv; films of one day keep the order of their lines. The rating is that of ratings.csv,
    else the last one in the diary. Blanks around a value, and lines without one, count for nothing.

    Args:
        source: path, or the content of the file as bytes.
        name: file name, if ``source`` is the content. Needed for watched.csv, which differs from
            watchlist.csv in nothing else.

    Raises:
        ValueError: the file is none of these, too large, damaged or holds a bad line; the message
            says where, what was found, what was expected and what to do.
    """
    path = Path(source) if isinstance(source, str | Path) else None
    name = re.split(r"[\\/]", str(name or path or ""))[-1] or "the file"
    if path is None and not isinstance(source, bytes | bytearray | memoryview):
        raise untrusted.bad(quoted(name), f"a value of type {type(source).__name__}", "a path, or "
                            "the content of a file as bytes", "Of an open file give file.read(), "
                            "and its name.")
    if name.lower().endswith(".csv"):  # the profile is not even opened
        _refuse(name)
    if isinstance(source, bytes | bytearray | memoryview):
        data = bytes(source)
    elif path is not None:
        with untrusted.opened(path, quoted(name), _GIVE) as stream:
            data = stream.read(MAX_ARCHIVE + 1)  # one byte more than may be read
    # A whole export is named after its member, who may be called anything, so "watchlist" in the
    # name of an archive says nothing.
    if data.startswith(b"PK"):
        return _films(list(_members(data, name)))
    if name.lower().endswith(".zip"):
        raise _bad(name, "no zip")
    _refuse(name)
    rows, kind = _rows(data, name)
    if kind == "watched.csv" and "watched" not in name.lower():
        raise _bad(name, "watchlist")
    return _films([(kind, rows)])


def rules() -> dict[str, object]:
    """What the page needs to read in the same way (JSON)."""
    return {
        "files": FILES, "refused": REFUSED, "notLists": NOT_LISTS, "messages": MESSAGES,
        "limits": {"MAX_FILE": MAX_FILE, "MAX_ARCHIVE": MAX_ARCHIVE, "MAX_ROWS": MAX_ROWS,
                   "MAX_NAME": MAX_NAME, "MAX_MEMBERS": untrusted.MAX_MEMBERS,
                   "MAX_FIELD": untrusted.MAX_FIELD},
        "blanks": BLANKS, "control": CONTROL,
        "isYear": IS_YEAR, "isDay": IS_DAY, "isRating": IS_RATING,
    }


def _bad(name: str, what: str, *values: object, line: int = 0) -> ValueError:
    found, expected, advice = MESSAGES[what]
    n = found.count("{}")
    return untrusted.bad(quoted(name), found.format(*values[:n]), expected.format(*values[n:]),
                         advice, line)


def _refuse(name: str) -> None:
    for word, reason in REFUSED.items():
        if word in name.lower():
            raise _bad(name, "refused", reason)


def _members(data: bytes, name: str) -> Iterator[tuple[str, list[dict]]]:
    """The rows of each list of seen films in an archive; nothing else of it is unpacked."""
    if len(data) > MAX_ARCHIVE:
        raise _bad(name, "large archive", f"{MAX_ARCHIVE:,}")
    archive = untrusted.Archive(data, quoted(name), _EXPORT)
    found: dict[str, untrusted.Member] = {}
    for member in archive.members:
        parts = member.name.replace("\\", "/").split("/")
        # An archive packed anew may have one folder around the lists; deleted/ has old ones.
        if parts[-1] not in FILES or len(parts) > 2 or parts[0].lower() in NOT_LISTS:
            continue
        if parts[-1] in found:
            raise _bad(name, "twice", parts[-1])
        found[parts[-1]] = member
    if not found:
        inner = [m.name for m in archive.members if m.name.lower().endswith(".zip")]
        raise _bad(name, "archive in it", quoted(inner[0])) if inner else _bad(name, "no list")
    for file in FILES:
        if file in found:
            where = f"{name}/{file}"
            with archive.open(found[file], quoted(where), MAX_FILE) as stream:
                content = stream.read()
            yield file, _rows(content, where)[0]


def _rows(data: bytes, name: str) -> tuple[list[dict], str]:
    """The checked rows of a csv, and which of `FILES` has its header."""
    if len(data) > MAX_FILE:
        raise _bad(name, "large file", f"{MAX_FILE:,}")
    if data.startswith(b"PK\3\4"):
        raise _bad(name, "archive")
    text = untrusted.decode(data, quoted(name), _EXPORT)
    if control := re.search(CONTROL, text):
        raise _bad(name, "control", f"{ord(control[0]):02x}",
                   line=untrusted.breaks(text[:control.start()]) + 1)
    if (n := untrusted.breaks(text)) > MAX_ROWS:
        raise _bad(name, "lines", f"{n:,}")
    lines = ((line, [value.strip(BLANKS) for value in fields]) for line, fields in
             untrusted.rows(io.StringIO(text, newline=""), quoted(name), advice=_EXPORT))
    line, header = next(lines, (1, []))
    kind = _kind(header, name, line)
    rows = []
    for line, fields in lines:
        if len(fields) != len(header):
            raise _bad(name, "fields", len(fields), len(header), line=line)
        rows.append(_row(dict(zip(header, fields, strict=True)), name, line))
    return rows, kind


def _kind(header: list[str], name: str, line: int) -> str:
    """Which of `FILES` has this header."""
    if "Review" in header:
        raise _bad(name, "reviews")
    text = quoted(",".join(header))
    if "Title" in header and "Name" not in header:
        raise _bad(name, "import", text, line=line)
    if len(header) == 1 and ";" in header[0]:
        raise _bad(name, "semicolons", text, line=line)
    for column in ("Date", "Name", "Year", "Rating", "Watched Date", "Letterboxd URI"):
        if header.count(column) != 1 and (column in header or column in ("Date", "Name", "Year")):
            raise _bad(name, "columns", column, header.count(column), text, line=line)
    return FILES[0 if "Watched Date" in header else 2 if "Rating" in header else 1]


def _row(row: dict[str, str], name: str, line: int) -> dict:
    film, year = re.sub(f"[{BLANKS}]+", " ", row["Name"]), row["Year"]
    rating = row.get("Rating", "")
    day = row.get("Watched Date") or row["Date"]
    if not 0 < len(film) <= MAX_NAME:
        raise _bad(name, "name", f"{len(film):,}", line=line)
    if year and not (re.fullmatch(IS_YEAR, year) and 1870 <= int(year) <= 2100):
        raise _bad(name, "year", quoted(year, 20), line=line)
    if rating and not re.fullmatch(IS_RATING, rating):
        raise _bad(name, "rating", quoted(rating, 20), line=line)
    try:
        # fromisoformat alone takes "2024-W05-6" as well.
        when = date.fromisoformat(day if re.fullmatch(IS_DAY, day) else "")
    except ValueError:
        when = None
    if when is None or not 1900 <= when.year <= 2100:
        raise _bad(name, "date", quoted(day, 20), line=line)
    return {"name": film, "year": int(year) if year else None, "date": when, "line": line,
            "rating": float(rating or "nan"), "link": row.get("Letterboxd URI", "")}


def _films(lists: Sequence[tuple[str, list[dict]]]) -> Films:
    rows = [row | {"file": FILES.index(file)} for file, rows in lists for row in rows]
    links = defaultdict(set)  # of films; those of a diary lead to its entries
    for row in rows:
        if row["file"] != 0 and row["link"]:
            links[row["name"], row["year"]].add(row["link"])
    by_film: dict[tuple, list[dict]] = defaultdict(list)
    for row in rows:
        film = row["name"], row["year"]
        link = row["link"] if row["file"] != 0 and len(links[film]) > 1 else ""
        by_film[*film, link].append(row)
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
