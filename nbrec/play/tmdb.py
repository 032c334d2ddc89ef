"""Films' metadata from The Movie Database, asked for with the reader's own key (thesis 3.5.2).

TMDB's API, version 3: https://developer.themoviedb.org/reference. Nothing is sent but the key and
the films' identifiers, or titles and years where a table has no identifiers.
"""

from __future__ import annotations

import argparse
import email.utils
import gzip
import json
import os
import random
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, time
from typing import Any

import pandas as pd
import requests
from tqdm.auto import tqdm

from nbrec.data import titles
from nbrec.data.text import COLUMNS
from nbrec.files import atomic

ADDRESS = "https://api.themoviedb.org/3"
ATTRIBUTION = "This product uses the TMDB API but is not endorsed or certified by TMDB."
KEY_HELP = (
    "TMDB gives every account a key, free of charge for non-commercial use: get yours at "
    "https://www.themoviedb.org/settings/api and set the environment variable TMDB_API_KEY"
)
ANSWER = ("tmdbId", "year", "director", "cast", "adult", "keywords", "overview", "poster_path")
N_CAST = 3  # actors that are kept (thesis 3.5.2)
SEARCH_PAGES = 5  # of 20 films each
THREADS = 8  # enough for 40 requests a second at 0.2 s each
LONGEST_WAIT = 300.0  # seconds; if the server asks for more, the run ends and can be resumed


def fetch_metadata(movies: pd.DataFrame, links: pd.DataFrame | None, path: str | Path,
                   key: str | None = None, *, address: str = ADDRESS, rate: float = 40.0,
                   retries: int = 5, progress: bool = True, timeout: float = 10) -> Path:
    """Ask TMDB for each film's metadata and write them as one csv.

    Each answer is added to `<path>.answers.jsonl` as it comes, so that a run that was interrupted
    goes on where it stopped. A film that TMDB does not have is remembered, too; it keeps its
    fields of MovieLens. Films without tmdbId are found by imdbId; those without both are searched
    by title and year.

    Args:
        movies: movieId (int64), title ("Toy Story (1995)"), genres (joined by "|").
        links: movieId (int64), imdbId (str), tmdbId (Int64); None if the data have none.
        path: of the csv; packed if it ends in ".gz".
        key: the reader's own: a v3 API key, or a v4 read access token; default $TMDB_API_KEY.
        address: where the API is.
        rate: requests per second at most, > 0; TMDB allows about 40.
        retries: how often a request is tried again, >= 0.
        progress: show a bar.
        timeout: seconds to wait for an answer, > 0.

    Returns:
        path of the csv: columns `COLUMNS`, one row per film in the order of `movies`; lists are
        joined by "|", adult is "yes" or "no", and "" means not known.

    Raises:
        ValueError: there is no key, or the file of answers is damaged.
        PermissionError: TMDB does not accept the key.
        ConnectionError: a request failed for good; the message names the film and the address.
    """
    if not (rate > 0 and retries >= 0 and timeout > 0):
        raise ValueError(f"got rate={rate}, retries={retries}, timeout={timeout}; expected a "
                         "positive rate and timeout, and retries of 0 or more")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    films = _films(movies, links)
    answers_path = path.with_name(path.name + ".answers.jsonl")
    answers = _read_answers(answers_path)
    pending = {film.asked: film for film in films if film.asked and film.asked not in answers}
    if pending:  # a table that is complete needs no key
        client = _Client(address.rstrip("/"), _checked_key(key), rate, retries, timeout)
        lock, pool = threading.Lock(), ThreadPoolExecutor(THREADS)

        def ask(film: _Film) -> None:
            answer = client.answer(film) or {"gone": True}
            with lock:
                answers[film.asked] = answer
                stream.write(json.dumps({"asked": film.asked, **answer}) + "\n")
                stream.flush()

        with (answers_path.open("a", encoding="utf-8") as stream, client.session,
              tqdm(total=len(pending), desc="TMDB", unit="film", disable=not progress) as bar):
            try:
                for job in as_completed([pool.submit(ask, film) for film in pending.values()]):
                    job.result()
                    bar.update()
            finally:  # answers on their way are kept, nothing new is asked
                client.stop.set()
                pool.shutdown(cancel_futures=True)
    rows = [film.row(answers.get(film.asked, {})) for film in films]
    content = pd.DataFrame(rows, columns=COLUMNS).to_csv(index=False, lineterminator="\n").encode()
    with atomic(path) as temporary:
        temporary.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
    return path


# --- what is asked, and what is kept -------------------------------------------------------------


@dataclass(frozen=True)
class _Film:
    """A film of MovieLens: `title` is without the year; "" means not known."""

    movie: int
    tmdb: str
    imdb: str
    title: str
    year: str
    genres: str

    @property
    def asked(self) -> str:
        """The first request, which names the answer in the file; "" if there is none to ask."""
        if self.tmdb:
            return f"movie/{self.tmdb}"
        if self.imdb:
            return f"find/tt{self.imdb}"
        # Without a year, films of the same title cannot be told apart.
        query = f"search/movie?query={_asked_title(self.title)}&year={self.year}"
        return query if self.year else ""

    def row(self, answer: dict[str, str]) -> list[str | int]:
        """Its row of the csv: MovieLens's fields, and TMDB's where it has any."""
        known = {"movieId": self.movie, "tmdbId": self.tmdb or answer.get("tmdbId", ""),
                 "title": self.title, "genres": self.genres,
                 "year": self.year or answer.get("year", "")}
        return [known.get(name, answer.get(name, "")) for name in COLUMNS]


def _films(movies: pd.DataFrame, links: pd.DataFrame | None) -> list[_Film]:
    ids = {}
    if links is not None:
        ids = {movie: (imdb, tmdb) for movie, imdb, tmdb
               in links[["movieId", "imdbId", "tmdbId"]].itertuples(index=False)}
    films = []
    for movie, title, genres in movies[["movieId", "title", "genres"]].itertuples(index=False):
        imdb, tmdb = ("" if pd.isna(value) else value for value in ids.get(movie, ("", "")))
        # The year is "(2006)" or, for a series, "(2006–2007)"; a few titles have none.
        parts = re.fullmatch(r"(.*?)\s*\((\d{4})(?:[-–]\d*)?\)\s*", title, re.DOTALL)
        name, year = parts.groups() if parts else (title.strip(), "")
        imdb = str(imdb).strip().removeprefix("tt")
        films.append(_Film(int(movie), str(int(tmdb)) if tmdb != "" else "", imdb, name, year,
                           genres))
    return films


def _asked_title(title: str) -> str:
    """The first name of a title: of "Ring, The (Ringu)" it is "The Ring"."""
    return titles.split(title)[0].partition(" (")[0]


def _read_answers(path: Path) -> dict[str, dict]:
    """The answers of earlier runs; a last line that was cut off is removed from the file."""
    if not path.exists():
        return {}
    content = path.read_bytes()
    whole = content[:content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        os.truncate(path, len(whole))
    answers = {}
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            answer = json.loads(line)
            asked = answer.pop("asked")
            good = answer == {"gone": True} or all(isinstance(answer[name], str) for name in ANSWER)
        except (ValueError, KeyError, AttributeError, TypeError):
            good = False
        if not good:
            raise ValueError(f"{path}, line {number}: found {line[:60]!r}, expected an answer of "
                             "TMDB as one JSON object. Remove the line; the film is asked anew.")
        answers[asked] = answer
    return answers


# --- how it is asked -----------------------------------------------------------------------------


def _checked_key(key: str | None) -> str:
    key = (key or os.environ.get("TMDB_API_KEY", "")).strip()
    if not key:
        raise ValueError(f"there is no key for TMDB. {KEY_HELP}.")
    if not re.fullmatch(r"[\w.~-]+", key, re.ASCII):
        raise ValueError("the key for TMDB has characters that no key has (it is not shown here); "
                         f"expected letters, digits, '.', '_' and '-' only. {KEY_HELP}.")
    return key


_chance = random.Random()  # its own, so that the reader's seed is not used up


class _Stopped(Exception):
    """The run ends; what is still waiting is not asked."""


@dataclass
class _Client:
    """Requests to TMDB; all threads share one pace."""

    address: str
    key: str = field(repr=False)
    rate: float
    retries: int
    timeout: float
    session: requests.Session = field(default_factory=requests.Session, repr=False)
    stop: threading.Event = field(default_factory=threading.Event, repr=False)
    lock: Any = field(default_factory=threading.Lock, repr=False)
    next: float = 0.0  # time of the clock at which the next request may start

    def __post_init__(self) -> None:
        # Given as `auth`, since requests would otherwise send a password that ~/.netrc may hold.
        def authorise(request):
            if self.key.startswith("eyJ"):  # a v4 token is a JSON web token
                request.headers["Authorization"] = f"Bearer {self.key}"
            return request

        self.session.auth = authorise
        self.session.headers["Accept"] = "application/json"
        self.session.params = {} if self.key.startswith("eyJ") else {"api_key": self.key}
        self.session.mount(self.address, requests.adapters.HTTPAdapter(pool_maxsize=THREADS))

    def answer(self, film: _Film) -> dict[str, str] | None:
        """What TMDB knows of a film, None if it does not have it."""
        tmdb: int | str | None = film.tmdb
        if not tmdb:
            tmdb = self._find(film) if film.imdb else self._search(film)
        if tmdb is None:
            return None
        parameters = {"append_to_response": "credits,keywords", "language": "en-US"}
        return self._get(film, f"movie/{tmdb}", parameters, _details)

    def _find(self, film: _Film) -> int | None:
        found = self._get(film, f"find/tt{film.imdb}", {"external_source": "imdb_id"},
                          lambda answer: [_of(hit, "id", int) for hit in
                                          _of(answer, "movie_results", list)])
        return found[0] if found else None

    def _search(self, film: _Film) -> int | None:
        """The film of exactly this title whose year is nearest, at most one year away."""
        names = titles.keys(titles.split(film.title)[0])
        best = (2, None)  # years away, tmdbId
        parameters = {"query": _asked_title(film.title), "year": film.year}
        page, pages = 1, 1
        while page <= min(pages, SEARCH_PAGES):
            answer = self._get(film, "search/movie", {**parameters, "page": page}, _found)
            if answer is None:
                break
            pages, hits = answer
            for tmdb, called, year in hits:
                if year and any(names & titles.keys(titles.split(name)[0]) for name in called):
                    best = min(best, (abs(int(year) - int(film.year)), tmdb), key=lambda b: b[0])
            if best[0] == 0:
                break
            page += 1
        return best[1]

    def _get(self, film: _Film, place: str, parameters: dict, read: Callable[[Any], Any]) -> Any:
        """`read` of the answer, None if TMDB does not have what is asked for."""
        problem = ""
        for attempt in range(self.retries + 1):
            self._take_turn()
            response = None
            try:
                response = self.session.get(f"{self.address}/{place}", params=parameters,
                                            timeout=self.timeout, allow_redirects=False)
                if response.status_code == 200:
                    return read(json.loads(response.content))
                if response.status_code == 404 and "status_code" in json.loads(response.content):
                    return None  # said by TMDB, and not by something on the way
                problem = f"status {response.status_code}"
            except (requests.RequestException, ValueError, TypeError) as error:
                text = " ".join(str(error).replace(self.key, "<key>").split())
                problem = f"{type(error).__name__}: {text[:300]}"
            # From here on outside `except`: requests' errors, which hold the key, are not chained.
            status = response.status_code if response is not None else 0
            if status in (401, 403):
                raise PermissionError(f"TMDB refused the key (status {status}). {KEY_HELP}.")
            if status not in (0, 200, 404, 408, 429) and status < 500:
                break
            wait = min(2.0**attempt, 60.0) * _chance.uniform(0.5, 1.5)
            if status == 429 or status >= 500:
                wait = _retry_after(response, wait)
            if wait > LONGEST_WAIT:
                problem += f", and the server asks to wait for {wait:.0f} s"
                break
            if status == 429:  # meant for all threads; the next turn waits
                with self.lock:
                    self.next = max(self.next, monotonic() + wait)
            elif attempt < self.retries:
                self._pause(wait)
        raise ConnectionError(
            f"movie {film.movie} ({film.title!r}): {self.address}/{place} gave no usable answer in "
            f"{attempt + 1} attempt(s); the last one: {problem}. What has been fetched is kept: "
            "run it again to go on.")

    def _take_turn(self) -> None:
        """Wait until `1 / rate` seconds have passed since the last request of any thread."""
        while not self.stop.is_set():
            with self.lock:
                now = monotonic()
                if now >= self.next:
                    self.next = now + 1 / self.rate
                    return
                wait = self.next - now
            self._pause(wait)
        raise _Stopped

    def _pause(self, seconds: float) -> None:
        self.stop.wait(seconds)  # a sleep that the end of the run cuts short


def _retry_after(response: requests.Response, otherwise: float) -> float:
    """Seconds that the header Retry-After asks for: a number, or a date."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isdecimal():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time())
    except (TypeError, ValueError):
        return otherwise


# --- from JSON to fields -------------------------------------------------------------------------


def _details(answer: Any) -> dict[str, str]:
    """The fields `ANSWER` of a film's details with credits and keywords appended."""
    credits = _of(answer, "credits", dict)
    directors = [person for person in _of(credits, "crew", list)
                 if _of(person, "job", str, None) == "Director"]
    last = float("inf")
    cast = sorted(_of(credits, "cast", list), key=lambda person: _of(person, "order", int, last))
    adult = _of(answer, "adult", bool, None)
    overview = _of(answer, "overview", str, "").replace("\r\n", "\n").replace("\r", "\n").strip()
    fields = {
        "tmdbId": str(_of(answer, "id", int)),
        "year": _year(answer),
        "director": _joined(directors),
        "cast": _joined(cast[:N_CAST]),
        "adult": "" if adult is None else "yes" if adult else "no",
        "keywords": _joined(_of(_of(answer, "keywords", dict), "keywords", list)),
        "overview": overview,
        "poster_path": _of(answer, "poster_path", str, ""),
    }
    # JSON can spell halves of characters, which no file can hold.
    return {name: text.encode("utf-8", "replace").decode() for name, text in fields.items()}


def _found(answer: Any) -> tuple[int, list[tuple[int, list[str], str]]]:
    """A page of a search: number of pages, and tmdbId, titles and year of each film."""
    hits = [(_of(hit, "id", int), [_of(hit, "title", str, ""), _of(hit, "original_title", str, "")],
             _year(hit)) for hit in _of(answer, "results", list)]
    return _of(answer, "total_pages", int), hits


_REQUIRED = object()


def _of(owner: Any, name: str, kind: type, otherwise: Any = _REQUIRED) -> Any:
    """`owner[name]`, checked; `otherwise`, if given, where it is missing or null."""
    if not isinstance(owner, dict):
        raise TypeError(f"found {type(owner).__name__} around {name!r}, expected an object")
    value = owner.get(name)
    if value is None and otherwise is not _REQUIRED:
        return otherwise
    if not isinstance(value, kind) or isinstance(value, bool) and kind is not bool:
        raise TypeError(f"{name!r} is {type(value).__name__}, expected {kind.__name__}")
    return value


def _year(film: dict) -> str:
    year = _of(film, "release_date", str, "")[:4]
    return year if re.fullmatch("[0-9]{4}", year) else ""


def _joined(owners: list[dict]) -> str:
    """Names, each once and without the "|" that divides them."""
    names = (" ".join(_of(owner, "name", str, "").replace("|", " ").split()) for owner in owners)
    return "|".join(dict.fromkeys(name for name in names if name))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m nbrec.play.tmdb", description=fetch_metadata.__doc__.splitlines()[0],
        epilog=f"The key is read from $TMDB_API_KEY. {KEY_HELP}. {ATTRIBUTION}")
    parser.add_argument("--dataset", default="ml-latest-small",
                        help="as nbrec.data.movielens knows it; default: %(default)s")
    parser.add_argument("--output", type=Path, default=Path("data/tmdb-metadata.csv.gz"),
                        help="the csv; default: %(default)s")
    chosen = parser.parse_args(arguments)
    from nbrec.data import movielens

    try:
        data = movielens.load(chosen.dataset)
        if data.movies is None:
            raise ValueError(f"{data.name} has no table of movies; expected one with titles")
        path = fetch_metadata(data.movies, data.links, chosen.output)
    except (ValueError, OSError) as error:  # all that a reader can put right; no traceback
        parser.error(str(error))
    print(f"{path} is written. {ATTRIBUTION}")


if __name__ == "__main__":
    main()
