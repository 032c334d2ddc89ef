"""A Letterboxd export as a history: read it, find its films among MovieLens's, keep their order.

Nothing is unpacked, written or executed; only the three lists of seen films are opened. Names and
messages may hold any text a file holds: whoever shows them as HTML has to escape them. The page of
the book does the same with book/assets/letterboxd.js, to the letter; a test holds them together.
"""

from __future__ import annotations

import math
import re
import struct
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd

from nbrec import checks
from nbrec.data import titles

# In the order in which they tell when a film was seen: a diary knows it, the others when it was
# marked or rated.
FILES = ("diary.csv", "watched.csv", "ratings.csv")
REFUSED = {  # a word in a file's name: why it is not a history
    "watchlist": "the watchlist holds films that have not been seen",
    "profile": "the profile holds a person's name and address, and no films",
}
MAX_FILE = 16 * 2**20  # bytes of a csv; 20,000 diary entries take about 2 MB
MAX_ARCHIVE = 64 * 2**20  # bytes; reviews and lists, which are not opened, make up most of it
MAX_MEMBERS = 10_000  # files in an archive; every list of a member is one
MAX_ROWS, MAX_NAME = 100_000, 500  # lines of a csv, characters of a film's name

HOW = ("exact", "article", "accent", "alternative title", "spelling", "part of the title",
       "year off by one")  # nearest first
CHOSEN = "chosen"  # by a reader, among the candidates
ARTICLE, ACCENT, ALTERNATIVE, SPELLING, PART, YEAR = range(1, 7)  # places in HOW
MAX_CANDIDATES = 5
MAX_ID = 2**63 - 1
COMMON = 20  # films of one year; a word that more of them hold, such as "of", tells nothing
MAX_WORDS = 10  # of a name, that are looked up for candidates
YEARS = {  # MovieLens has these without a year
    (140956, "Ready Player One"): 2018, (143410, "Hyena Road"): 2015,
    (149334, "Nocturnal Animals"): 2016, (156605, "Paterson"): 2016, (162414, "Moonlight"): 2016,
    (171631, "Maria Bamford: Old Baby"): 2017, (171891, "Generation Iron 2"): 2017,
}
NOT_LISTS = ("deleted", "orphaned", "lists", "likes", "__macosx")


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


@dataclass(frozen=True)
class Match:
    """Which films were found among MovieLens's, and how.

    Args:
        matched: the columns of `Films.table`, row (int64, in that table), movieId (int64), title
            (MovieLens's), how: the last of the steps `HOW` that it took; in the order of viewing.
        unmatched: the columns of `Films.table`, row, reason, candidates (movieIds that a reader
            may choose from, as a tuple of at most five, best first); in the order of viewing.
    """

    matched: pd.DataFrame = field(repr=False)
    unmatched: pd.DataFrame = field(repr=False)

    def choose(self, row: int, movie: int, title: str) -> Match:
        """The match with a film that a reader chose for a row of `unmatched`.

        Args:
            row: in the column row of `unmatched`.
            movie: movieId of the film; any, not a candidate only.
            title: MovieLens's.

        Raises:
            ValueError: the row is none of `unmatched`, the movieId no whole number, or the title
                no text.
        """
        checks.whole("row", row)
        checks.whole("movie", movie, high=MAX_ID)
        if not isinstance(title, str) or not title:
            raise ValueError(f"title={title!r}: expected that of movieId {movie}, as MovieLens "
                             "writes it")
        at = self.unmatched["row"] == row
        if not at.any():
            raise ValueError(f"row {row} is not among the unmatched rows "
                             f"{self.unmatched['row'].tolist()}")
        chosen = self.unmatched[at].drop(columns=["reason", "candidates"]).assign(
            movieId=np.int64(movie), title=title, how=CHOSEN)
        matched = pd.concat([self.matched, chosen] if len(self.matched) else [chosen])
        return Match(matched.sort_values("row", ignore_index=True),
                     self.unmatched[~at].reset_index(drop=True))

    def history(self, catalogue: Sequence[int], min_rating: float | None = None) -> np.ndarray:
        """The matched films as a model's history, oldest first.

        Args:
            catalogue: int64 (V,), the movieId of each index; films outside it are left out.
            min_rating: films rated lower are left out, as in training (`SequenceSettings`), 0 to
                5; those without a rating stay. None keeps all.

        Returns:
            int64 (n,), indices in 0..V-1.

        Raises:
            ValueError: the catalogue is no list of movieIds, each once, or the rating no number
                of its range.
        """
        films = self.matched
        checks.number("min_rating", min_rating, low=0, high=5, none=True)
        known = checks.indices(catalogue, MAX_ID + 1, "movieId of the catalogue")
        if known.ndim != 1 or len(np.unique(known)) < len(known):
            raise ValueError(f"a catalogue of {known.size} movieIds in {known.ndim} dimensions: "
                             "expected one dimension and each once, such as `bundle.catalogue`")
        if min_rating is not None:
            films = films[~(films["rating"] < min_rating)]
        found = pd.Index(known.astype(np.int64)).get_indexer(films["movieId"])
        return found[found >= 0].astype(np.int64)


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
    path = Path(source) if isinstance(source, (str, Path)) else None
    name = re.split(r"[\\/]", str(name or path or ""))[-1] or "the file"
    if path is None and not isinstance(source, bytes | bytearray | memoryview):
        raise _bad(name, f"a value of type {type(source).__name__}", "a path, or the content of a "
                   "file as bytes", "Of an open file give file.read(), and its name.")
    if name.lower().endswith(".csv"):  # the profile is not even opened
        _refuse(name)
    if path is None:
        data = memoryview(source).tobytes()
    else:
        try:
            found = "" if path.is_file() else "a folder" if path.is_dir() else "no such file"
            data = b"" if found else _start(path)
        except OSError as error:
            found = f"what cannot be opened ({error.strerror})"
        if found:
            raise _bad(name, found, "a file", _GIVE)
    # A whole export is named after its member, who may be called anything, so "watchlist" in the
    # name of an archive says nothing.
    if data.startswith(b"PK"):
        return _films(list(_members(data, name)))
    if name.lower().endswith(".zip"):
        raise _bad(name, "no zip archive, in spite of its name", "a zip archive")
    _refuse(name)
    rows, kind = _rows(data, name)
    if kind == "watched.csv" and "watched" not in name.lower():
        raise _bad(name, "the header of both watched.csv and watchlist.csv",
                   "a file name with the word 'watched' in it, since nothing else tells them apart",
                   "If these are seen films, name the file watched.csv.")
    return _films([(kind, rows)])


def _start(path: Path) -> bytes:
    """What a file holds, at most one byte more than may be read."""
    with path.open("rb") as stream:
        return stream.read(MAX_ARCHIVE + 1)


def match(films: Films, movies: pd.DataFrame) -> Match:
    """Find films by name and year; in doubt none is taken.

    A film of the same year may differ from MovieLens's in letter case, in the place or lack of
    "The", "A" or "An", in accents and signs; its name may be one in brackets, be spelled otherwise
    ("Colours", "Vol. 2") or be a part that tells enough ("Star Wars", "The Empire Strikes Back",
    "Life of Brian"). The year may be off by one where a name is the same but for letter case.
    The nearest movie is taken, first of the same year, then by the order of `HOW`, if only one is
    as near and no other film of the export is as near to it. Another spelling or a part is taken
    only if no other movie is near at all.

    Args:
        films: of `read`.
        movies: movieId, title (as MovieLens writes it, with the year). Give all movies, not a
            model's catalogue only: what is known can be told apart.

    Raises:
        ValueError: it is no `Films`, a column is missing, or a movieId or title is none; the
            message gives its row.
    """
    if not isinstance(films, Films):
        raise ValueError(f"films of type {type(films).__name__}: expected what `read` gives")
    if not isinstance(movies, pd.DataFrame):
        raise ValueError(f"movies of type {type(movies).__name__}: expected a table with movieId "
                         "and title: take `movielens.load(name).movies`")
    if missing := {"movieId", "title"} - set(movies):
        raise ValueError(f"the movies have the columns {list(movies)}; expected "
                         f"{' and '.join(sorted(missing))} as well: take `movielens.load(name)"
                         ".movies`")
    checks.indices(movies["movieId"].to_numpy(), MAX_ID + 1, "movieId")
    for row, title in enumerate(movies["title"]):
        if not isinstance(title, str):
            raise ValueError(f"movies: the title in row {row} (movieId "
                             f"{movies['movieId'].iloc[row]}) is {title!r}: expected text; leave "
                             "out the movies without a title")
    known = _Titles(movies)
    rows = [(name, None if year is pd.NA else int(year)) for name, year in zip(
        films.table["name"], films.table["year"], strict=True)]
    times = Counter(rows)
    found, failed = {}, {}  # row: ((years apart, step), movie); row: (reason, candidates)
    for row, (name, year) in enumerate(rows):
        steps = known.steps(name)
        near = {movie: (known.apart(year, movie), step) for movie, step in steps.items()}
        near = {movie: score for movie, score in near.items() if score[0] == 0 or (
            score[0] == 1 and titles.folded(name) in map(titles.folded, known.names[movie]))}
        best = [movie for movie in near if near[movie] == min(near.values())]
        if best and near[best[0]][1] >= SPELLING:
            best = list(near)
        if len(best) == 1 and times[name, year] == 1:
            found[row] = (near[best[0]], best[0])
        else:
            failed[row] = known.why_not(name, year, times[name, year] > 1, best, steps)
    nearest = {}
    for score, movie in found.values():
        nearest[movie] = min(nearest.get(movie, score), score)
    as_near = Counter(movie for score, movie in found.values() if score == nearest[movie])
    for row, (score, movie) in list(found.items()):
        if score > nearest[movie] or as_near[movie] > 1:
            del found[row]
            failed[row] = (f"another film of the export fits {known.named(movie)} "
                           + ("better" if score > nearest[movie] else "as well"),
                           (known.ids[movie],))
    matched = _rows_of(films.table, sorted(found))
    matched["movieId"] = np.array([known.ids[found[row][1]] for row in sorted(found)], np.int64)
    matched["title"] = [known.titles[found[row][1]] for row in sorted(found)]
    # An article that MovieLens has moved is a step to tell, and no reason to doubt.
    matched["how"] = [HOW[YEAR if years else max(step, ARTICLE * known.moved(movie))]
                      for _, ((years, step), movie) in sorted(found.items())]
    unmatched = _rows_of(films.table, sorted(failed))
    unmatched["reason"] = [failed[row][0] for row in sorted(failed)]
    unmatched["candidates"] = [failed[row][1] for row in sorted(failed)]
    return Match(matched, unmatched)


def _rows_of(table: pd.DataFrame, rows: list[int]) -> pd.DataFrame:
    return table.iloc[rows].assign(row=np.array(rows, np.int64)).reset_index(drop=True)


class _Titles:
    """MovieLens's titles, to be found by name. A movie is its row here, not its movieId."""

    def __init__(self, movies: pd.DataFrame):
        self.ids = movies["movieId"].tolist()
        self.titles = movies["title"].tolist()
        self.names, self.years, self.shown = [], [], []
        self.words: list[dict[str, None]] = []
        self.by_key, self.by_word = defaultdict(list), defaultdict(list)
        self.by_spelling: dict[str, dict[int, int]] = defaultdict(dict)
        for movie, title in enumerate(self.titles):
            name, year = titles.split(title)
            self.names.append((name, *titles.names(name)))
            self.years.append(int(year) if year else YEARS.get((self.ids[movie], title)))
            self.shown.append(f"{name} ({year})" if year else name)
            self.words.append(_words(self.names[-1][1]))
            for key in sorted(titles.keys(name)):
                self.by_key[key].append(movie)
            for word in self.words[-1]:
                self.by_word[word, self.years[-1]].append(movie)
            for other in dict.fromkeys(self.names[-1]):
                self.by_spelling[titles.spelling(other)][movie] = SPELLING
            for part in titles.parts(self.names[-1][1]):
                self.by_spelling[part].setdefault(movie, PART)

    def moved(self, movie: int) -> bool:
        """Whether the title has its article behind the name."""
        return not self.titles[movie].startswith(self.names[movie][1])

    def named(self, movie: int) -> str:
        return f"'{self.shown[movie]}' (movieId {self.ids[movie]})"

    def steps(self, name: str) -> dict[int, int]:
        """The movies that a name may mean, and which step of `HOW` it takes to each."""
        found = {}
        for key in titles.keys(name):
            for movie in self.by_key.get(key, ()):
                if (step := self._step(name, movie)) is not None:
                    found[movie] = step
        own = titles.without_owner(name)
        shorter = {titles.unnumbered(name), own if " " in own else ""} - {"", titles.folded(name)}
        for other, least in ((name, SPELLING), *((part, PART) for part in shorter)):
            for movie, step in self.by_spelling.get(titles.spelling(other), {}).items():
                if least == SPELLING or step == SPELLING:  # parts of both names say nothing
                    found[movie] = min(found.get(movie, PART), max(step, least))
        return found

    def _step(self, name: str, movie: int) -> int | None:
        whole, main, *others = self.names[movie]
        steps = [step for known in (whole, main) if (step := _difference(name, known)) is not None]
        if steps:
            return min(steps)
        # Of a name with brackets every part has to be a name of the film.
        same = all(any(_difference(part, known) is not None for known in (main, *others))
                   for part in titles.names(name))
        return ALTERNATIVE if same else None

    def apart(self, year: int | None, movie: int) -> float:
        """Years between a film and a movie; infinite where one of them has none."""
        other = self.years[movie]
        return math.inf if year is None or other is None else abs(year - other)

    def candidates(self, name: str, year: int | None, best: list[int], steps: dict[int, int]
                   ) -> tuple[int, ...]:
        """movieIds to choose from: of this name, then of all its words, or no others, that year."""
        def near(movie):
            return self.apart(year, movie), steps[movie], self.ids[movie]

        found = [*sorted(best, key=near), *sorted(steps.keys() - set(best), key=near)]
        mine, years = _words(name), () if year is None else (year - 1, year, year + 1)
        having = [self.by_word.get((word, other), ()) for word in list(mine)[:MAX_WORDS]
                  for other in years]
        alike = []
        for movie in {movie for movies in having if len(movies) <= COMMON
                      for movie in movies} - steps.keys():
            theirs = self.words[movie].keys()
            if theirs <= mine.keys() or mine.keys() <= theirs:
                alike.append((len(theirs ^ mine.keys()), self.apart(year, movie), self.ids[movie]))
        return tuple([self.ids[movie] for movie in found]
                     + [movie for *_, movie in sorted(alike)])[:MAX_CANDIDATES]

    def why_not(self, name: str, year: int | None, twice: bool, best: list[int],
                steps: dict[int, int]) -> tuple[str, tuple[int, ...]]:
        """The reason why no movie is taken, and the candidates."""
        candidates = self.candidates(name, year, best, steps)
        row = {self.ids[movie]: movie for movie in steps}

        def listed(movies):
            first = [self.named(row[i]) for i in candidates if row.get(i) in movies]
            more = len(movies) - len(first)
            return ", ".join(first) + (f" and {more} more" if more else "")

        if twice:
            return "the export has several films of this name and year", candidates
        if best:
            alike = "equally near" if len({steps[movie] for movie in best}) == 1 else "near"
            return f"several films are {alike}: {listed(set(best))}", candidates
        named = {movie for movie, step in steps.items() if step < SPELLING}
        if not named:
            return "no film of this name", candidates
        if year is None:
            return (f"the export gives no year, so it may or may not be {listed(named)}",
                    candidates)
        return f"films of this name are of another or no year: {listed(named)}", candidates


def _words(name: str) -> dict[str, None]:
    """The words of a name, each once, in their order, without articles."""
    return dict.fromkeys(word for word in titles.words(name) if word not in titles.ENGLISH)


def _difference(one: str, other: str) -> int | None:
    """The step of `HOW` between two names: the same, but for an article, but for signs, or none."""
    articles = titles.article(one), titles.article(other)
    # "Die Hard" is not "Hard", nor "A Man Apart" the same as "The Man Apart".
    if articles[0] != articles[1] and not (
            "" in articles and all(a in ("", *titles.ENGLISH) for a in articles)):
        return None
    one, other = titles.folded(one), titles.folded(other)
    if one == other:
        return 0
    one, other = (n[len(a):].strip(" ") for n, a in zip((one, other), articles, strict=True))
    if one == other:
        return ARTICLE
    return ACCENT if titles.without_signs(one) == titles.without_signs(other) else None


# --- from bytes to films -------------------------------------------------------------------------

# The page reads with these rules too, as JavaScript's regular expressions: both have to take them.
BLANKS = ("\t\n\r \xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
          "\u2028\u2029\u202f\u205f\u3000\ufeff")
CONTROL = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]"
IS_YEAR, IS_DAY = "[0-9]{4}", "[0-9]{4}-[0-9]{2}-[0-9]{2}"
IS_RATING = r"0\.5|[1-4](?:\.[05])?|5(?:\.0)?"
# A field with quotes, one without, and what ends a field.
_QUOTED = re.compile(r'"([^"]*+(?:""[^"]*+)*+)"')
_BARE, _END = re.compile(r"[^,\r\n]*"), re.compile(r",|\r\n|\r|\n|\Z")
_BLANKS = re.compile(f"[{BLANKS}]+")

_EXPORT = "Export your data anew from Letterboxd (settings, data) and give that file unchanged."
_GIVE = "Give watched.csv, ratings.csv, diary.csv or the whole zip of the Letterboxd export."


def _bad(name: str, found: str, expected: str, advice: str = _EXPORT, line: int = 0) -> ValueError:
    where = f"{_quoted(name)}, line {line}" if line else _quoted(name)
    return ValueError(f"{where}: found {found}; expected {expected}. {advice}")


def _quoted(text: str, most: int = 80) -> str:
    """The first characters of a text from a file, on one line."""
    return f"'{re.sub(CONTROL, '?', _BLANKS.sub(' ', text))[:most]}'"


def _refuse(name: str) -> None:
    for word, reason in REFUSED.items():
        if word in name.lower():
            raise _bad(name, reason, "a list of seen films", _GIVE)


def _members(data: bytes, name: str) -> Iterator[tuple[str, list[dict]]]:
    """The rows of each list of seen films in an archive; nothing else of it is unpacked.

    The format is read here and not by zipfile, because the page has to read and to refuse the same.
    """
    if len(data) > MAX_ARCHIVE:
        raise _bad(name, f"more than {MAX_ARCHIVE:,} bytes", "a smaller archive", _GIVE)
    for file, member in _wanted(_index(data, name), name).items():
        where = f"{name}/{file}"
        yield file, _rows(_unpacked(data, name, member, where), where)[0]


@dataclass(frozen=True)
class _Member:
    name: str
    flags: int
    method: int
    checksum: int
    packed: int  # bytes
    size: int  # bytes
    start: int  # of its local header, in bytes


def _damaged(name: str) -> ValueError:
    return _bad(name, "a damaged archive", "a readable zip")


def _index(data: bytes, name: str) -> list[_Member]:
    """What an archive says, at its end, that it holds."""
    last = len(data) - 22  # where the record of the end begins if no comment follows it
    end = data.rfind(b"PK\5\6", max(0, last - 65535), max(0, last + 4))
    while end >= 0 and struct.unpack_from("<H", data, end + 20)[0] != last - end:
        end = data.rfind(b"PK\5\6", max(0, last - 65535), end)
    if end < 0:
        raise _damaged(name)
    count, _, at = struct.unpack_from("<HII", data, end + 10)
    if count > MAX_MEMBERS:
        raise _bad(name, f"more than {MAX_MEMBERS:,} files", "fewer", _GIVE)
    members = []
    for _ in range(count):
        if at + 46 > end or data[at : at + 4] != b"PK\1\2":
            raise _damaged(name)
        flags, method = struct.unpack_from("<HH", data, at + 8)
        checksum, packed, size, *lengths = struct.unpack_from("<IIIHHH", data, at + 16)
        start = struct.unpack_from("<I", data, at + 42)[0]
        file = data[at + 46 : at + 46 + lengths[0]].decode("utf-8", "replace")
        members.append(_Member(file, flags, method, checksum, packed, size, start))
        at += 46 + sum(lengths)
    return members


def _wanted(members: list[_Member], name: str) -> dict[str, _Member]:
    found: dict[str, _Member] = {}
    for member in members:
        parts = member.name.replace("\\", "/").split("/")
        if parts[0] == "" and len(parts) > 1 or ".." in parts or ":" in parts[0]:
            raise _bad(name, f"a file named {_quoted(member.name)}", "names inside the archive")
        # An archive packed anew may have one folder around the lists; deleted/ has old ones.
        if parts[-1] not in FILES or len(parts) > 2 or parts[0].lower() in NOT_LISTS:
            continue
        if parts[-1] in found:
            raise _bad(name, f"{parts[-1]} twice", "each list once")
        found[parts[-1]] = member
    if not found:
        inner = [m.name for m in members if m.name.lower().endswith(".zip")]
        raise _bad(name, f"another archive in it ({_quoted(inner[0])})" if inner else
                   "none of its lists", f"one of {', '.join(FILES)}",
                   "Unpack the outer one." if inner else _GIVE)
    return {file: found[file] for file in FILES if file in found}


def _unpacked(data: bytes, name: str, member: _Member, where: str) -> bytes:
    if member.flags & 1:
        raise _bad(where, "a file with a password", "one without")
    if member.method not in (0, 8):
        raise _bad(where, f"compression method {member.method}", "0 (stored) or 8 (deflated)")
    if member.size > MAX_FILE:
        raise _bad(where, f"{member.size:,} bytes when unpacked", f"at most {MAX_FILE:,}")
    head = member.start
    if head + 30 > len(data) or data[head : head + 4] != b"PK\3\4":
        raise _damaged(name)
    head += 30 + sum(struct.unpack_from("<HH", data, head + 26))
    content = data[head : head + member.packed]
    if member.method == 8:
        inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        try:  # one byte more than it should have, whatever it holds
            content = inflate.decompress(content, member.size + 1)
        except zlib.error:
            raise _damaged(name) from None
        if not inflate.eof or inflate.unused_data:
            raise _damaged(name)
    if len(content) != member.size or zlib.crc32(content) != member.checksum:
        raise _damaged(name)
    return content


def _rows(data: bytes, name: str) -> tuple[list[dict], str]:
    """The checked rows of a csv, and which of `FILES` has its header."""
    if len(data) > MAX_FILE:
        raise _bad(name, f"more than {MAX_FILE:,} bytes", "a smaller file")
    if data.startswith(b"PK\3\4"):
        raise _bad(name, "an archive in the archive", "a csv file", "Unpack it.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = error.object[:error.start].decode("utf-8")  # object: without a byte order mark
        raise _bad(name, f"byte 0x{error.object[error.start]:02x}, which is not UTF-8",
                   "text in UTF-8", line=_breaks(before) + 1) from None
    if control := re.search(CONTROL, text):
        raise _bad(name, f"the control character '\\x{ord(control[0]):02x}'", "text",
                   line=_breaks(text[:control.start()]) + 1)
    if (n := _breaks(text)) > MAX_ROWS:
        raise _bad(name, f"{n:,} lines", f"at most {MAX_ROWS:,}")
    lines = _csv(text, name)
    line, header = next(lines, (1, []))
    kind = _kind(header, name, line)
    rows = []
    for line, fields in lines:
        if len(fields) != len(header):
            raise _bad(name, f"{len(fields)} fields", f"{len(header)}, as in the header", line=line)
        rows.append(_row(dict(zip(header, fields, strict=True)), name, line))
    return rows, kind


def rules() -> dict[str, object]:
    """What the page of the book needs to read and to match in the same way (JSON)."""
    return {
        "files": FILES, "refused": REFUSED, "notLists": NOT_LISTS, "how": HOW, "chosen": CHOSEN,
        "steps": {name: globals()[name] for name in (
            "ARTICLE", "ACCENT", "ALTERNATIVE", "SPELLING", "PART", "YEAR")},
        "limits": {name: globals()[name] for name in (
            "MAX_FILE", "MAX_ARCHIVE", "MAX_MEMBERS", "MAX_ROWS", "MAX_NAME", "MAX_CANDIDATES",
            "COMMON", "MAX_WORDS")},
        "blanks": BLANKS, "control": CONTROL, "isYear": IS_YEAR,
        "isDay": IS_DAY, "isRating": IS_RATING, "advice": {"export": _EXPORT, "give": _GIVE},
        "articles": titles.ARTICLES.lower(), "english": titles.ENGLISH, "letters": titles.LETTERS,
        "signs": titles.SIGNS, "labels": titles.LABELS, "numbers": titles.NUMBERS,
        "letterNumbers": titles.LETTER_NUMBERS, "spellings": titles.SPELLINGS,
        "separator": titles.SEPARATOR, "numbered": titles.NUMBERED, "owner": titles.OWNER,
    }


def _breaks(text: str) -> int:
    return text.count("\n") + text.count("\r") - text.count("\r\n")


def _csv(text: str, name: str) -> Iterator[tuple[int, list[str]]]:
    """The line that a row begins on, and its fields without blanks around; no empty rows."""
    at, line, begins, fields = 0, 1, 1, []
    while at < len(text) or fields:
        quoted = text.startswith('"', at)
        found = (_QUOTED if quoted else _BARE).match(text, at)
        end = found and _END.match(text, found.end())
        if not end:
            raise _bad(name, "a broken row (" + ("text behind a closing quote" if found else
                       "a quote that is not closed") + ")", "fields between commas, quotes in "
                       "pairs", line=begins)
        fields.append(found[1].replace('""', '"') if quoted else found[0])
        line += _breaks(found[0] + end[0])
        at, end = end.end(), end[0]
        if end != ",":
            fields = [value.strip(BLANKS) for value in fields]
            if fields != [""]:
                yield begins, fields
            fields, begins = [], line


def _kind(header: list[str], name: str, line: int) -> str:
    """Which of `FILES` has this header."""
    if "Review" in header:
        raise _bad(name, "reviews, whose films are in diary.csv too, without the texts",
                   "a list of seen films", _GIVE)
    text = _quoted(",".join(header))
    if "Title" in header and "Name" not in header:
        raise _bad(name, f"the header {text} of a list for import into Letterboxd",
                   "a list that Letterboxd exports, with Date, Name and Year", _GIVE, line)
    if len(header) == 1 and ";" in header[0]:
        raise _bad(name, f"semicolons in the header {text}",
                   "Date, Name and Year, each once, between commas", line=line)
    for column in ("Date", "Name", "Year", "Rating", "Watched Date", "Letterboxd URI"):
        if header.count(column) != 1 and (column in header or column in ("Date", "Name", "Year")):
            raise _bad(name, f"'{column}' {header.count(column)} times in the header {text}",
                       "Date, Name and Year, each once, between commas", _GIVE, line)
    return FILES[0 if "Watched Date" in header else 2 if "Rating" in header else 1]


def _row(row: dict[str, str], name: str, line: int) -> dict:
    film, year, rating = _BLANKS.sub(" ", row["Name"]), row["Year"], row.get("Rating", "")
    day = row.get("Watched Date") or row["Date"]
    if not 0 < len(film) <= MAX_NAME:
        raise _bad(name, f"a film's name of {len(film):,} characters", f"1 to {MAX_NAME}",
                   line=line)
    if year and not (re.fullmatch(IS_YEAR, year) and 1870 <= int(year) <= 2100):
        raise _bad(name, f"the year {_quoted(year, 20)}", "1870 to 2100, or nothing", line=line)
    if rating and not re.fullmatch(IS_RATING, rating):
        raise _bad(name, f"the rating {_quoted(rating, 20)}", "0.5 to 5 in half steps, or nothing",
                   line=line)
    try:
        # fromisoformat alone takes "2024-W05-6" as well.
        when = date.fromisoformat(day if re.fullmatch(IS_DAY, day) else "")
    except ValueError:
        when = None
    if when is None or not 1900 <= when.year <= 2100:
        raise _bad(name, f"the date {_quoted(day, 20)}", "a day such as 2024-02-03", line=line)
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
