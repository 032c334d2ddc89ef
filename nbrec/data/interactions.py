"""A file of interactions: read the fast way, and again line by line once something is wrong."""

from __future__ import annotations

import hashlib
import io
import re
from dataclasses import dataclass

import numpy as np
import pandas as pd

from nbrec import checks
from nbrec.checks import HIGHEST, LOWEST
from nbrec.data import untrusted
from nbrec.data.datasets import Format
from nbrec.data.tables import Place
from nbrec.data.untrusted import bad, quoted

FIRST_TIME = 788_918_400  # 1995-01-01: MovieLens opened in 1995
LAST_TIME = 4_102_444_800  # 2100-01-01: beyond it, a time is most likely in milliseconds
TOP = 1 << 13  # bytes in which the header and the first row are looked for
NEEDED = ("userId", "movieId", "timestamp (or position)")


@dataclass(frozen=True)
class Interactions:
    """A file of interactions, read and checked.

    Args:
        ratings: as of `movielens.MovieLens`.
        sha256: of the file's bytes.
        notices: what a reader of results has to know.
        user_names, movie_names: with ids of text, the text of each number; else None.
    """

    ratings: pd.DataFrame
    sha256: str
    notices: tuple[str, ...]
    user_names: pd.Series | None = None
    movie_names: pd.Series | None = None


def read(place: Place, name: str, form: Format, rating_required: bool, repeats: str, ids: str
         ) -> Interactions:
    """Read and check a file.

    Args:
        form: how it is written.
        rating_required: whether every row has to have a rating, if there is a column of them.
        repeats, ids: as of `movielens.load`.

    Raises:
        ValueError: a row is bad; the message says which and why.
    """
    columns = _columns(place, name, form)
    order = "position" if "position" in columns else "timestamp"
    rules = _Rules(place, name, form, columns, order, rating_required, ids == "text")
    names = [column or f"empty {i}" for i, column in enumerate(columns)]
    id_type = "int64" if ids == "number" else str  # a category would take 007 for 7
    types = {c: "category" for c in names} | {"userId": id_type, "movieId": id_type,
                                              "rating": "float32", order: "int64"}
    with place.open(name) as stream, np.errstate(invalid="ignore"):  # "inf" is refused below
        hashed = _Hashed(stream)
        try:
            table = pd.read_csv(hashed, sep=form.separator, header=None if form.columns else 0,
                                names=names, dtype=types, engine="c",
                                keep_default_na=False, na_values=[""])
        except (ValueError, OverflowError) as error:
            said = " ".join(str(error).split())[:300]
            raise rules.first_bad(what=f"what cannot be read ({said})") from error
    between = [table[c].cat.codes.to_numpy() for c in names if c.startswith("empty ")
               and form.columns and len(table[c].cat.categories)]
    table = table[[c for c in ("userId", "movieId", "rating", order) if c in columns]]
    texts: dict[str, pd.Series] = {}
    if ids == "text":
        for column in ("userId", "movieId"):
            table[column], texts[column] = _coded(table[column])
    wrong = [int(np.argmax(codes >= 0)) for codes in between] + rules.out_of_range(table)
    if wrong:
        raise rules.first_bad(min(wrong), "a value out of its range")
    if not len(table):
        raise bad(rules.label, "no row of interactions", "at least one", "Fetch the file anew.")
    if any(_doubtful(table[c].to_numpy()) for c in table if c not in texts):
        rules.every_line()
    users, movies = table["userId"].to_numpy(), table["movieId"].to_numpy()
    pair, notices = checks.repeated_pair(users, movies), []
    if pair is not None:
        if repeats == "error":
            raise rules.repeated(*pair)
        count, in_time = len(table), table.sort_values(order, kind="stable")
        again = in_time.duplicated(["userId", "movieId"], keep=repeats)
        table = in_time[~again].sort_index().reset_index(drop=True)
        notices += [f"{count - len(table):,} of {count:,} interactions were left out, because "
                    f"their pair of user and movie stands in several rows: the {repeats} of each "
                    "in time was kept."]
    if "rating" in table and table["rating"].isna().any():
        known = int(table["rating"].notna().sum())
        notices += [f"Ratings are known for {known:,} of {len(table):,} interactions only, so they "
                    "are left out and no filter by rating is possible."]
        table = table.drop(columns="rating")
    return Interactions(table, hashed.sha256.hexdigest(), tuple(notices), texts.get("userId"),
                        texts.get("movieId"))


def _columns(place: Place, name: str, form: Format) -> list[str]:
    """The columns' names, from the format or from line 1; checks what can be seen at the top."""
    label = place.label(name)
    with place.open(name) as stream:
        top = stream.read(TOP)
    if top[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in top:
        raise bad(label, "UTF-16 or binary data", "text in UTF-8", "Save it anew as csv in UTF-8.",
                  line=1)
    # Without its last line, which may be cut; of a single line all is taken.
    text = (top.rpartition(b"\n")[0] if len(top) == TOP else b"") or top
    lines = untrusted.rows(io.StringIO(text.decode("utf-8-sig", errors="replace"), newline=""),
                           label, form.separator)
    line, row = next(lines, (1, []))
    if not row:
        raise bad(label, "an empty file", "rows of a table", "Fetch the file anew.")
    columns = list(form.columns)
    if not columns:
        untrusted.columns([c.strip() for c in row], tuple(form.rename), label, line, form.separator)
        columns = [form.rename.get(c.strip(), c.strip()) for c in row]
        untrusted.columns(columns, NEEDED, label, line, form.separator)
        line, row = next(lines, (1, []))
    if len(row) > len(columns):  # pandas would take the first field for an index
        raise bad(label, f"too many fields in {quoted(form.separator.join(row), 200)}",
                  ", ".join(filter(None, columns)), "Correct or remove the line.", line)
    return columns


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


def _doubtful(values: np.ndarray) -> bool:
    """Whether numbers may not be those of the file, so that it has to be read line by line.

    Beside a 1.0, pandas reads whole numbers by way of float64, exact below 2^53 only; and a column
    of nothing but True it reads as ones.
    """
    return bool(len(values) and (values.max() >= 2**53 or values.max() <= 1))


@dataclass(frozen=True)
class _Rules:
    """What a row has to look like."""

    place: Place
    name: str
    form: Format
    columns: list[str]
    order: str
    rating_required: bool
    text_ids: bool

    @property
    def label(self) -> str:
        return self.place.label(self.name)

    def bounds(self, column: str) -> tuple[int, int]:
        """The lowest and the highest value of an id or a time."""
        return (FIRST_TIME, LAST_TIME) if column == "timestamp" else (0, 2**63 - 1)

    def out_of_range(self, table: pd.DataFrame) -> list[int]:
        """The first row with a value out of its range, by column: `problem` as a whole."""
        wrong: list[int] = []
        for column in ("userId", "movieId", self.order):
            lowest, highest = self.bounds(column)
            values = table[column].to_numpy()
            if len(values) and (values.min() < lowest or values.max() > highest):
                wrong.append(int(np.argmax((values < lowest) | (values > highest))))
        if "rating" in table:
            rating = table["rating"].to_numpy()
            fine = (rating >= LOWEST) & (rating <= HIGHEST)  # False where there is none
            if not self.rating_required:
                fine |= np.isnan(rating)
            if not fine.all():
                wrong.append(int(np.argmin(fine)))
        return wrong

    def problem(self, row: list[str]) -> tuple[str, str] | None:
        """What is wrong with a row, and what was expected; None if nothing."""
        if len(row) != len(self.columns):
            return (f"too {'few' if len(row) < len(self.columns) else 'many'} fields",
                    ", ".join(filter(None, self.columns)))
        if any(re.search("[\udc80-\udcff]", value) for value in row if not value.isascii()):
            return "bytes that are not UTF-8", "text in UTF-8 (save the file anew as csv in UTF-8)"
        values = dict(zip(self.columns, row, strict=True))
        between = [v for c, v in zip(self.columns, row, strict=True) if not c]
        if len(between) > 1 and any(between):  # one column without a name is a csv's own index
            return "more than a separator between two fields", "'::' between them"
        for column in ("userId", "movieId", self.order):
            value = values[column].strip()
            if self.text_ids and column != self.order:
                if not value or re.search("[\r\n]", value):
                    return f"{column} {values[column]!r}", "a text in one line"
                continue
            if not re.fullmatch(r"[+-]?[0-9]{1,4000}", value):
                return f"{column} {values[column]!r}", "a whole number" + (
                    ' (ids="text" reads ids that are text)' * bool(value and column != self.order))
            lowest, highest = self.bounds(column)
            if not lowest <= int(value) <= highest:
                hint = ("" if column != "timestamp" else " (1995 to 2100 in seconds since 1970; of "
                        "milliseconds, divide by 1,000)" if int(value) > highest else " (1995 to "
                        "2100 in seconds since 1970; an order number belongs in a column called "
                        "position)")
                return f"{column} {value}", f"{lowest} to {highest}{hint}"
        rating = values.get("rating")
        if rating is None or (not rating and not self.rating_required):
            return None
        try:
            right = LOWEST <= float(rating) <= HIGHEST
        except ValueError:
            right = False
        return None if right else (f"rating {rating!r}", f"{LOWEST} to {HIGHEST} stars")

    def _rows(self):
        """Line and fields of each row, the header apart, whatever its bytes are."""
        with self.place.open(self.name) as stream:
            text = io.TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape", newline="")
            rows = untrusted.rows(text, self.label, self.form.separator)
            if not self.form.columns:
                next(rows)
            yield from rows

    def every_line(self, start: int = 0) -> None:
        """Stop at the first bad row; those before the row ``start``, counted from 0, are good."""
        for number, (line, row) in enumerate(self._rows()):
            if number >= start and (problem := self.problem(row)):
                shown = self.form.separator.join(row)[:200].encode("utf-8", "surrogateescape")
                raise bad(self.label, f"{problem[0]} in "
                          f"{quoted(shown.decode('utf-8', 'backslashreplace'), 200)}", problem[1],
                          "Correct or remove the line, or fetch the file anew.", line)

    def first_bad(self, start: int = 0, what: str = "") -> ValueError:
        """What to say about the first bad row from ``start`` on; ``what`` if none is found."""
        try:
            self.every_line(start)
        except ValueError as error:
            return error
        return bad(self.label, what, ", ".join(filter(None, self.columns)))

    def repeated(self, first: int, second: int) -> ValueError:
        """What to say about two rows, counted from 0, of one pair of user and movie."""
        found = [(line, row) for number, (line, row) in enumerate(self._rows())
                 if number in (first, second)]
        user, movie = (found[1][1][self.columns.index(c)] for c in ("userId", "movieId"))
        return bad(self.label, f"user {user} and movie {movie} here and in line {found[0][0]}",
                   "each pair once", "Keep one of the two lines, or load with repeats='first' or "
                   "'last'.", found[1][0])


class _Hashed(io.RawIOBase):
    """A stream that keeps the sha256 of what passes through."""

    def __init__(self, stream) -> None:
        self.stream, self.sha256 = stream, hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        block = self.stream.read(len(buffer))
        buffer[: len(block)] = block
        self.sha256.update(block)
        return len(block)
