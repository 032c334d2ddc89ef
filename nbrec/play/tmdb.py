"""Films' metadata from The Movie Database, asked for with the reader's own key (thesis 3.5.2).

TMDB's API, version 3: https://developer.themoviedb.org/reference. Nothing is sent but the key and
the films' identifiers, or titles and years where a table has no identifiers.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from nbrec.data.text import COLUMNS
from nbrec.files import atomic
from nbrec.play import tmdb_client
from nbrec.play.tmdb_client import ADDRESS, ANSWER, KEY_HELP, Client, Film

ATTRIBUTION = "This product uses the TMDB API but is not endorsed or certified by TMDB."


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
        client = Client(address.rstrip("/"), tmdb_client.checked_key(key), rate, retries, timeout)
        lock, pool = threading.Lock(), ThreadPoolExecutor(tmdb_client.THREADS)

        def ask(film: Film) -> None:
            answer: dict[str, Any] = client.answer(film) or {"gone": True}
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


def _films(movies: pd.DataFrame, links: pd.DataFrame | None) -> list[Film]:
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
        films.append(Film(int(movie), str(int(tmdb)) if tmdb != "" else "", imdb, name, year,
                           genres))
    return films


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


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m nbrec.play.tmdb", description="Ask TMDB for the metadata of films.",
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
