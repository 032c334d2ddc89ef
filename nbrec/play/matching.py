"""The films of a list, found among MovieLens's by name and year (see `nbrec.data.titles`).

The page of the book does the same with book/assets/letterboxd.js, to the letter; a test holds them
together.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from nbrec import checks
from nbrec.data import titles
from nbrec.play.letterboxd import Films

HOW = ("exact", "article", "accent", "alternative title", "spelling", "part of the title",
       "year off by one")  # nearest first
CHOSEN = "chosen"  # by a reader, among the candidates
ARTICLE, ACCENT, ALTERNATIVE, SPELLING, PART, YEAR = range(1, 7)  # places in HOW
REASONS = {  # why no film is taken
    "twice": "the export has several films of this name and year",
    "alike": "several films are equally near: {}",
    "near": "several films are near: {}",
    "none": "no film of this name",
    "no year": "the export gives no year, so it may or may not be {}",
    "other year": "films of this name are of another or no year: {}",
    "better": "another film of the export fits {} better",
    "as well": "another film of the export fits {} as well",
}
MAX_CANDIDATES = 5
MAX_ID = 2**63 - 1
COMMON = 20  # films of one year; a word that more of them hold, such as "of", tells nothing
MAX_WORDS = 10  # of a name, that are looked up for candidates
YEARS = {  # MovieLens has these without a year
    (140956, "Ready Player One"): 2018, (143410, "Hyena Road"): 2015,
    (149334, "Nocturnal Animals"): 2016, (156605, "Paterson"): 2016, (162414, "Moonlight"): 2016,
    (171631, "Maria Bamford: Old Baby"): 2017, (171891, "Generation Iron 2"): 2017,
}


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
        raise ValueError(f"films of type {type(films).__name__}: expected what `letterboxd.read` "
                         "gives")
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
    found: dict[int, tuple[tuple[float, int], int]] = {}  # row: (years apart, step), movie
    failed: dict[int, tuple[str, tuple[int, ...]]] = {}  # row: reason, candidates
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
    nearest: dict[int, tuple[float, int]] = {}
    for score, movie in found.values():
        nearest[movie] = min(nearest.get(movie, score), score)
    as_near = Counter(movie for score, movie in found.values() if score == nearest[movie])
    for row, (score, movie) in list(found.items()):
        if score > nearest[movie] or as_near[movie] > 1:
            del found[row]
            reason = REASONS["better" if score > nearest[movie] else "as well"]
            failed[row] = reason.format(known.named(movie)), (known.ids[movie],)
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

    def __init__(self, movies: pd.DataFrame) -> None:
        self.ids = movies["movieId"].tolist()
        self.titles = movies["title"].tolist()
        self.names: list[tuple[str, ...]] = []
        self.years: list[int | None] = []
        self.shown: list[str] = []
        self.words: list[dict[str, None]] = []
        self.by_key: dict[str, list[int]] = defaultdict(list)
        self.by_word: dict[tuple[str, int | None], list[int]] = defaultdict(list)
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
        found: dict[int, int] = {}
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
        def near(movie: int) -> tuple[float, int, int]:
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

        def because(reason: str, movies: Iterable[int] = ()) -> tuple[str, tuple[int, ...]]:
            movies = set(movies)
            first = [self.named(row[i]) for i in candidates if row.get(i) in movies]
            more = len(movies) - len(first)
            listed = ", ".join(first) + (f" and {more} more" if more else "")
            return REASONS[reason].format(listed), candidates

        if twice:
            return because("twice")
        if best:
            return because("near" if len({steps[movie] for movie in best}) > 1 else "alike", best)
        named = {movie for movie, step in steps.items() if step < SPELLING}
        if not named:
            return because("none")
        return because("no year" if year is None else "other year", named)


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


def rules() -> dict[str, object]:
    """What the page needs to match in the same way (JSON)."""
    return {
        "how": HOW, "chosen": CHOSEN, "reasons": REASONS,
        "steps": {name: globals()[name] for name in (
            "ARTICLE", "ACCENT", "ALTERNATIVE", "SPELLING", "PART", "YEAR")},
        "candidates": {name: globals()[name] for name in ("MAX_CANDIDATES", "COMMON", "MAX_WORDS")},
        "articles": titles.ARTICLES.lower(), "english": titles.ENGLISH, "letters": titles.LETTERS,
        "signs": titles.SIGNS, "labels": titles.LABELS, "numbers": titles.NUMBERS,
        "letterNumbers": titles.LETTER_NUMBERS, "spellings": titles.SPELLINGS,
        "separator": titles.SEPARATOR, "numbered": titles.NUMBERED, "owner": titles.OWNER,
    }
