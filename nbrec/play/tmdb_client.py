"""Requests to the API of The Movie Database: one pace for all threads, answers checked."""

from __future__ import annotations

import email.utils
import json
import os
import random
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic, time
from typing import Any

import requests

from nbrec.data import titles
from nbrec.data.text import COLUMNS

ADDRESS = "https://api.themoviedb.org/3"
KEY_HELP = (
    "TMDB gives every account a key, free of charge for non-commercial use: get yours at "
    "https://www.themoviedb.org/settings/api and set the environment variable TMDB_API_KEY"
)
ANSWER = ("tmdbId", "year", "director", "cast", "adult", "keywords", "overview", "poster_path")
N_CAST = 3  # actors that are kept (thesis 3.5.2)
SEARCH_PAGES = 5  # of 20 films each
THREADS = 8  # enough for 40 requests a second at 0.2 s each
LONGEST_WAIT = 300.0  # seconds; if the server asks for more, the run ends and can be resumed


@dataclass(frozen=True)
class Film:
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
        known: dict[str, str | int] = {
            "movieId": self.movie, "tmdbId": self.tmdb or answer.get("tmdbId", ""),
            "title": self.title, "genres": self.genres,
            "year": self.year or answer.get("year", "")}
        return [known.get(name, answer.get(name, "")) for name in COLUMNS]


def _asked_title(title: str) -> str:
    """The first name of a title: of "Ring, The (Ringu)" it is "The Ring"."""
    return titles.split(title)[0].partition(" (")[0]


def checked_key(key: str | None) -> str:
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
class Client:
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
        def authorise(request: requests.PreparedRequest) -> requests.PreparedRequest:
            if self.key.startswith("eyJ"):  # a v4 token is a JSON web token
                request.headers["Authorization"] = f"Bearer {self.key}"
            return request

        self.session.auth = authorise
        self.session.headers["Accept"] = "application/json"
        self.session.params = {} if self.key.startswith("eyJ") else {"api_key": self.key}
        self.session.mount(self.address, requests.adapters.HTTPAdapter(pool_maxsize=THREADS))

    def answer(self, film: Film) -> dict[str, str] | None:
        """What TMDB knows of a film, None if it does not have it."""
        tmdb: int | str | None = film.tmdb
        if not tmdb:
            tmdb = self._find(film) if film.imdb else self._search(film)
        if tmdb is None:
            return None
        parameters = {"append_to_response": "credits,keywords", "language": "en-US"}
        return self._get(film, f"movie/{tmdb}", parameters, _details)

    def _find(self, film: Film) -> int | None:
        found = self._get(film, f"find/tt{film.imdb}", {"external_source": "imdb_id"},
                          lambda answer: [_of(hit, "id", int) for hit in
                                          _of(answer, "movie_results", list)])
        return found[0] if found else None

    def _search(self, film: Film) -> int | None:
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

    def _get(self, film: Film, place: str, parameters: dict, read: Callable[[Any], Any]) -> Any:
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
            if response is not None and (status == 429 or status >= 500):
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
