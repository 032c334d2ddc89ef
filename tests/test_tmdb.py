"""The client of TMDB, against a local server that speaks the API's documented JSON."""

import gzip
import http.server
import itertools
import json
import threading
import time
import traceback
from collections import Counter
from email.utils import formatdate
from urllib.parse import parse_qs, urlsplit

import pandas as pd
import pytest

from nbrec import files
from nbrec.data import movielens
from nbrec.play import tmdb, tmdb_client
from nbrec.play.tmdb import fetch_metadata

KEY = "0123456789abcdef0123456789abcdef"
SLEEP = tmdb_client.Client._pause  # the real one
TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJhdWQiOiJ4In0.c2VjcmV0LXNpZ25hdHVyZQ"

MOVIES = pd.DataFrame(
    [(1, "Toy Story (1995)", "Adventure|Animation"), (7, "Amélie, Le (2001)", "Romance"),
     (29, "City of Lost Children, The (Cité des enfants perdus, La) (1995)", "Fantasy|Sci-Fi"),
     (40, "Nowhere", "(no genres listed)")],
    columns=["movieId", "title", "genres"])
LINKS = pd.DataFrame({"movieId": [1, 7, 29, 40], "imdbId": ["0114709", "0211915", "0112682", ""],
                      "tmdbId": pd.array([862, 194, None, 99], dtype="Int64")})


def details(tmdb_id, title="A film", date="1990-01-31", *, crew=(), cast=(), keywords=(), **fields):
    """A film as /movie/{id} gives it, with credits and keywords appended."""
    return {
        "adult": False, "genres": [{"id": 18, "name": "Drama"}], "id": tmdb_id, "imdb_id": None,
        "original_title": title, "overview": "What happens.", "popularity": 3.25,
        "poster_path": f"/{tmdb_id}.jpg", "release_date": date, "runtime": 81, "title": title,
        "credits": {
            "cast": [{"id": i, "name": name, "order": order, "character": "X"}
                     for i, (name, order) in enumerate(cast)],
            "crew": [{"id": i, "name": name, "job": job, "department": "Y"}
                     for i, (name, job) in enumerate(crew)],
        },
        "keywords": {"keywords": [{"id": i, "name": name} for i, name in enumerate(keywords)]},
        **fields,
    }


FILMS = {
    862: details(862, "Toy Story", "1995-11-22", adult=False,
                 crew=[("Andrew Stanton", "Screenplay"), ("John Lasseter", "Director")],
                 cast=[("Don Rickles", 2), ("Tom Hanks", 0), ("Jim Varney", 3), ("Tim Allen", 1)],
                 keywords=["toy", "rivalry | envy"],
                 overview='Woody, a "cowboy",\r\nmeets Buzz.\nThey fight; 友達.'),
    194: details(194, "Le Fabuleux Destin d'Amélie Poulain", "2001-04-25", adult=True,
                 crew=[("Jean-Pierre Jeunet", "Director"), ("Marc Caro", "Director"),
                       ("Jean-Pierre Jeunet", "Director")],
                 cast=[("Audrey Tautou", 0)], overview=None, poster_path=None),
    902: details(902, "La Cité des enfants perdus", "", adult=None, overview="Krank cannot dream."),
}
CSV = (
    "movieId,tmdbId,title,year,genres,director,cast,adult,keywords,overview,poster_path\n"
    "1,862,Toy Story,1995,Adventure|Animation,John Lasseter,Tom Hanks|Tim Allen|Don Rickles,no,"
    'toy|rivalry envy,"Woody, a ""cowboy"",\nmeets Buzz.\nThey fight; 友達.",/862.jpg\n'
    '7,194,"Amélie, Le",2001,Romance,Jean-Pierre Jeunet|Marc Caro,Audrey Tautou,yes,,,\n'
    '29,902,"City of Lost Children, The (Cité des enfants perdus, La)",1995,Fantasy|Sci-Fi,,,,,'
    "Krank cannot dream.,/902.jpg\n"
    "40,99,Nowhere,,(no genres listed),,,,,,\n"
)
GONE = {"success": False, "status_code": 34, "status_message": "The resource ... not be found."}


class Api:
    """What the server knows, what it was asked, and what it is to answer instead, in order."""

    def __init__(self):
        self.films = dict(FILMS)
        self.found = {"tt0112682": [902]}
        self.pages = []  # of searches
        self.instead = {}  # path -> list of (status, headers, body)
        self.asked = []  # (path, parameters, headers)
        self.lock = threading.Lock()

    @property
    def counts(self):
        return Counter(path for path, _, _ in self.asked)

    def reply(self, path, query, headers):
        with self.lock:
            self.asked.append((path, query, headers))
            if self.instead.get(path):
                return self.instead[path].pop(0)
        if query.get("api_key") != KEY and headers.get("Authorization") != f"Bearer {TOKEN}":
            return 401, {}, {"success": False, "status_code": 7, "status_message": "Invalid key"}
        kind, _, name = path.strip("/").partition("/")
        if kind == "movie" and int(name) in self.films:
            extra = query.get("append_to_response", "").split(",")
            film = self.films[int(name)]
            return 200, {}, {k: v for k, v in film.items()
                             if k not in ("credits", "keywords") or k in extra}
        if kind == "find" and query["external_source"] == "imdb_id":
            return 200, {}, {"movie_results": [{"id": i} for i in self.found.get(name, [])],
                             "tv_results": [{"id": 5}]}
        if kind == "search":
            page = int(query["page"])
            return 200, {}, {"page": page, "results": self.pages[page - 1],
                             "total_pages": len(self.pages), "total_results": 20}
        return 404, {}, GONE


@pytest.fixture(scope="module")
def server():
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # one packet per answer

        def do_GET(self):
            parts = urlsplit(self.path)
            query = {k: v[0] for k, v in parse_qs(parts.query).items()}
            status, headers, body = self.server.api.reply(parts.path, query, dict(self.headers))
            if not isinstance(body, bytes):
                body = json.dumps(body).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.daemon_threads = True
        thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield running
        running.shutdown()


@pytest.fixture
def api(server):
    server.api = Api()
    return server.api


class Clock:
    """A clock that only sleepers move."""

    def __init__(self):
        self.now, self.pauses, self.lock = 1000.0, [], threading.Lock()

    def pause(self, seconds):
        with self.lock:
            self.pauses.append(seconds)
            self.now += max(seconds, 1e-6)


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """No test sleeps, none has a key of its own, and one thread asks in the order of the films."""
    clock = Clock()
    monkeypatch.setattr(tmdb_client, "monotonic", lambda: clock.now)
    monkeypatch.setattr(tmdb_client.Client, "_pause", lambda _, seconds: clock.pause(seconds))
    monkeypatch.setattr(tmdb_client, "THREADS", 1)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("TMDB_API_KEY", raising=False)
    return clock


@pytest.fixture
def fetch(server, tmp_path):
    def fetch(movies=MOVIES, links=LINKS, name="m.csv", key=KEY, **settings):
        settings = {"rate": 1e6, "progress": False,
                    "address": f"http://127.0.0.1:{server.server_port}", **settings}
        return fetch_metadata(movies, links, tmp_path / name, key, **settings)
    return fetch


def texts(error):
    """All that a traceback could show of an exception and of those that it was raised from."""
    shown = "".join(traceback.format_exception(error))
    while error is not None:
        shown += repr(error) + str(error)
        error = error.__cause__ or error.__context__
    return shown


# --- what is written -----------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 8])
def test_the_csv_is_the_one_written_by_hand(api, fetch, monkeypatch, threads):
    monkeypatch.setattr(tmdb_client, "THREADS", threads)
    path = fetch()
    assert path.read_bytes().decode() == CSV
    assert api.counts == {"/movie/862": 1, "/movie/194": 1, "/find/tt0112682": 1, "/movie/902": 1,
                          "/movie/99": 1}
    first = next(query for path, query, _ in api.asked if path == "/movie/862")
    assert first == {"api_key": KEY, "append_to_response": "credits,keywords", "language": "en-US"}
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    assert table["overview"][0] == 'Woody, a "cowboy",\nmeets Buzz.\nThey fight; 友達.'


def test_a_packed_csv_holds_the_same_and_is_always_the_same(api, fetch):
    path = fetch(name="m.csv.gz")
    packed = path.read_bytes()
    assert gzip.decompress(packed).decode() == CSV
    assert packed[4:8] == bytes(4)  # no time of writing in it
    path.unlink()
    assert fetch(name="m.csv.gz").read_bytes() == packed


def test_what_is_known_already_is_not_asked_again_not_even_what_is_gone(api, fetch):
    fetch()
    api.asked.clear()
    assert fetch(key=None).read_text() == CSV  # nothing to ask, so no key is needed
    assert api.asked == []
    # A film whose identifier has changed is another question.
    assert "40,862,Nowhere,1995," in fetch(links=LINKS.fillna({"tmdbId": 862}).assign(
        tmdbId=[862, 194, 902, 862])).read_text()
    assert api.counts == {"/movie/902": 1}


def test_a_year_that_the_title_lacks_is_taken_from_the_release(api, fetch):
    api.films[99] = details(99, date="2014-10-14")
    assert fetch().read_text().splitlines()[-1].startswith("40,99,Nowhere,2014,(no genres listed)")


def test_titles_lose_their_year_in_each_of_its_forms(api, fetch):
    titles = ["Death Note: Desu nôto (2006–2007)", "Angst  (1983)", "96 Minutes (2011) ",
              "2001: A Space Odyssey (1968)", "(500) Days of Summer (2009)", "Nowhere (a place)"]
    movies = pd.DataFrame({"movieId": range(6), "title": titles, "genres": ""})
    links = pd.DataFrame({"movieId": range(6), "imdbId": "", "tmdbId": [5] * 6})
    api.films[5] = details(5, date="1901-01-01")
    table = pd.read_csv(fetch(movies, links), dtype=str)
    assert list(zip(table["title"], table["year"], strict=True)) == [
        ("Death Note: Desu nôto", "2006"), ("Angst", "1983"), ("96 Minutes", "2011"),
        ("2001: A Space Odyssey", "1968"), ("(500) Days of Summer", "2009"),
        ("Nowhere (a place)", "1901")]
    assert api.counts == {"/movie/5": 1}  # one film of TMDB is asked for once


def test_halves_of_characters_do_not_stop_the_writing(api, fetch):
    api.films[862] = details(862, overview="A \ud83d half")
    assert "A ? half" in fetch().read_text()


def test_a_finished_csv_is_replaced_whole_or_not_at_all(api, fetch, tmp_path, monkeypatch):
    fetch()
    more = pd.concat([MOVIES, pd.DataFrame([(50, "New (2000)", "Drama")], columns=MOVIES.columns)])
    links = pd.concat([LINKS, pd.DataFrame([(50, "", 60)], columns=LINKS.columns)])
    api.films[60] = details(60)
    api.instead["/movie/60"] = [(500, {}, b"")] * 3
    with pytest.raises(ConnectionError):
        fetch(more, links, retries=2)
    assert (tmp_path / "m.csv").read_text() == CSV

    def full_disk(*paths):
        raise OSError("no space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="no space"):
        patch.setattr(files.os, "replace", full_disk)
        fetch(more, links)
    assert (tmp_path / "m.csv").read_text() == CSV
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.csv", "m.csv.answers.jsonl"]
    assert fetch(more, links).read_text().startswith(CSV)


# --- finding films without identifiers -----------------------------------------------------------


def hit(tmdb_id, title, date, original=None):
    return {"id": tmdb_id, "title": title, "original_title": original or title,
            "release_date": date}


def search_for(fetch, title, links=None):
    movies = pd.DataFrame([(3, title, "Drama")], columns=["movieId", "title", "genres"])
    return pd.read_csv(fetch(movies, links), dtype=str, keep_default_na=False)["tmdbId"][0]


def test_a_film_that_imdb_knows_as_a_series_only_is_gone(api, fetch):
    api.found = {}
    assert fetch().read_text().splitlines()[-2].startswith('29,,"City of Lost')
    assert api.counts["/search/movie"] == 0


def test_a_search_goes_through_its_pages_until_title_and_year_agree(api, fetch):
    api.films[11] = details(11)
    api.pages = [[hit(8, "The Ring Two", "2002-01-01"), hit(9, "The Ring", "2000-01-01")],
                 [hit(10, "The Ring!", "2003-03-03"), {"id": 4, "title": None}],
                 [hit(11, "THE RÎNG", "2002-10-18")], [hit(12, "The Ring", "2002-05-05")]]
    assert search_for(fetch, "Ring, The (2002)") == "11"  # not 10, which is a year away
    searches = [query for path, query, _ in api.asked if path == "/search/movie"]
    assert searches == [{"api_key": KEY, "query": "The Ring", "year": "2002", "page": str(page)}
                        for page in (1, 2, 3)]


@pytest.mark.parametrize(("found", "expected"), [
    ([hit(7, "Ringu", "1999-01-31")], "7"),  # one year away
    ([hit(7, "Ringu", "2000-01-31")], ""),  # two
    ([hit(7, "Ringu", "")], ""),
    ([hit(7, "Ringu 2", "1998-01-31")], ""),
    ([hit(7, "リング", "1998-01-31", "Ringu")], "7"),  # its original title
    ([hit(6, "The Ringing", "1998-01-31"), hit(7, "The Ring", "1998-01-31")], "7"),
])
def test_a_search_accepts_the_exact_film_only(api, fetch, found, expected):
    api.films[7] = details(7)
    api.pages = [found]
    assert search_for(fetch, "Ring, The (Ringu) (1998)") == expected


def test_a_search_ends_after_five_pages_and_is_not_repeated(api, fetch):
    api.pages = [[hit(8, "Other", "1998-01-01")]] * 9
    assert search_for(fetch, "Ring (1998)") == search_for(fetch, "Ring (1998)") == ""
    assert api.counts == {"/search/movie": 5}


def test_a_film_without_year_and_identifiers_is_not_guessed(api, fetch):
    assert search_for(fetch, "Nowhere", LINKS) == ""
    assert api.asked == []


# --- a server that is busy, ill or broken --------------------------------------------------------


def test_a_busy_server_is_given_the_time_it_asks_for(api, fetch, clock):
    api.instead["/movie/862"] = [(429, {"Retry-After": "7"}, {"status_code": 25}),
                                 (429, {"Retry-After": "11"}, {"status_code": 25})]
    assert fetch().read_text() == CSV
    waits = [pause for pause in clock.pauses if pause > 0.001]
    assert waits == pytest.approx([7, 11], abs=1e-5)
    assert api.counts["/movie/862"] == 3


def test_all_threads_wait_when_one_was_told_to(api, server, clock):
    api.instead["/movie/862"] = [(429, {"Retry-After": "9"}, {})]
    client = tmdb_client.Client(f"http://127.0.0.1:{server.server_port}", KEY, 1e6, 0, 5.0)
    with client.session, pytest.raises(ConnectionError, match="status 429"):
        client.answer(tmdb._films(MOVIES, LINKS)[0])
    client._take_turn()  # somebody else's
    assert clock.pauses == pytest.approx([9])


def test_the_time_may_be_a_date(api, fetch, clock):
    date = formatdate(time.time() + 100, usegmt=True)
    api.instead["/movie/862"] = [(429, {"Retry-After": date}, {})]
    fetch()
    assert max(clock.pauses) == pytest.approx(100, abs=2.5)


def test_a_wait_of_hours_ends_the_run(api, fetch, clock):
    api.instead["/movie/862"] = [(429, {"Retry-After": "7200"}, {})]
    with pytest.raises(ConnectionError, match="asks to wait for 7200 s"):
        fetch()
    assert max(clock.pauses, default=0) < 1


@pytest.mark.parametrize("bad", [
    (500, {}, {}), (503, {}, b"<html>"), (404, {}, b"<html>not here"), (404, {}, b"404"),
    (200, {}, json.dumps(FILMS[862]).encode()[:-40]),  # JSON that was cut off
    (200, {"Content-Length": "100000", "Connection": "close"}, b'{"id": 862'),  # a body, too
    (200, {}, b"[]"), (200, {}, b"null"), (200, {}, b"\xff\xfe\xfa"),
    (200, {}, {**FILMS[862], "id": "862"}), (200, {}, {**FILMS[862], "overview": 3}),
    (200, {}, {**FILMS[862], "id": True}), (200, {}, {**FILMS[862], "adult": 0}),
    (200, {}, {**FILMS[862], "credits": {"cast": {}, "crew": []}}),
    (200, {}, {**FILMS[862], "credits": {"cast": [], "crew": ["John Lasseter"]}}),
    (200, {}, {**FILMS[862], "credits": {"cast": [{"name": "A", "order": "0"}], "crew": []}}),
    (200, {}, {k: v for k, v in FILMS[862].items() if k != "keywords"}),
])
def test_two_bad_answers_are_survived_and_three_are_an_error(api, fetch, clock, bad):
    api.instead["/movie/862"] = [bad] * 3
    with pytest.raises(ConnectionError) as caught:
        fetch(retries=2)
    message = str(caught.value)
    assert "movie 1 ('Toy Story')" in message and "/movie/862" in message
    assert "3 attempt" in message
    assert KEY not in texts(caught.value)
    first, second = (pause for pause in clock.pauses if pause > 0.01)
    assert 0.5 <= first <= 1.5 and 1 <= second <= 3  # longer each time, with chance in it
    api.instead["/movie/862"] = [bad] * 2
    assert fetch(retries=2).read_text() == CSV


def test_what_was_fetched_before_the_end_is_not_fetched_again(api, fetch, tmp_path):
    api.instead["/movie/902"] = [(500, {}, {})] * 6
    with pytest.raises(ConnectionError, match=r"movie 29 .* in 6 attempt.*status 500"):
        fetch()
    assert api.counts["/movie/902"] == 6
    assert not (tmp_path / "m.csv").exists()
    api.asked.clear()
    assert fetch().read_text() == CSV
    assert not {"/movie/862", "/movie/194"} & set(api.counts)
    assert api.counts["/movie/902"] == 1


def test_an_error_stops_the_other_threads_and_keeps_their_answers(api, fetch, monkeypatch):
    monkeypatch.setattr(tmdb_client, "THREADS", 4)
    movies = pd.DataFrame({"movieId": range(300), "title": "A (1990)", "genres": ""})
    links = pd.DataFrame({"movieId": range(300), "imdbId": "", "tmdbId": range(1000, 1300)})
    api.films = {i: details(i) for i in range(1000, 1300)}
    api.instead["/movie/1003"] = [(500, {}, {})]
    with pytest.raises(ConnectionError, match="movie 3 "):
        fetch(movies, links, retries=0)
    assert len(api.counts) < 300
    assert len(fetch(movies, links).read_text().splitlines()) == 301
    assert api.counts == {f"/movie/{i}": 2 if i == 1003 else 1 for i in range(1000, 1300)}


def test_the_end_does_not_wait_for_a_thread_that_sleeps(api, fetch, monkeypatch):
    monkeypatch.setattr(tmdb_client, "THREADS", 2)
    monkeypatch.setattr(tmdb_client, "monotonic", time.monotonic)
    monkeypatch.setattr(tmdb_client.Client, "_pause", SLEEP)
    api.instead["/movie/862"] = [(503, {"Retry-After": "20"}, {})]
    api.instead["/movie/194"] = [(400, {}, {})]
    start = time.monotonic()
    with pytest.raises(ConnectionError, match="status 400"):
        fetch()
    assert time.monotonic() - start < 10


def test_an_address_where_nobody_listens(fetch, tmp_path):
    with pytest.raises(ConnectionError, match="movie 1 .*Connection") as caught:
        fetch(address="http://127.0.0.1:9", retries=1)
    assert KEY not in texts(caught.value)
    assert KEY not in (tmp_path / "m.csv.answers.jsonl").read_text()


def test_a_server_that_is_silent(api, fetch, monkeypatch):
    slow = api.reply

    def reply(*question):
        time.sleep(0.2)
        return slow(*question)

    monkeypatch.setattr(api, "reply", reply)
    with pytest.raises(ConnectionError, match="Timeout"):
        fetch(retries=0, timeout=0.05)


@pytest.mark.parametrize("status", [302, 400, 405, 422])
def test_a_request_that_is_refused_is_not_repeated(api, fetch, status):
    api.instead["/movie/862"] = [(status, {"Location": "http://127.0.0.1:9/"}, {})]
    with pytest.raises(ConnectionError, match=f"in 1 attempt.*status {status}"):
        fetch()
    assert api.counts["/movie/862"] == 1


# --- the file of answers -------------------------------------------------------------------------


def test_an_answer_is_on_disk_before_the_next_film_is_asked_for(api, fetch, tmp_path, monkeypatch):
    lines = []
    reply = api.reply

    def watched(*question):
        lines.append((tmp_path / "m.csv.answers.jsonl").read_text().count("\n"))
        return reply(*question)

    monkeypatch.setattr(api, "reply", watched)
    fetch()
    assert lines == [0, 1, 2, 2, 3]  # the third film takes two requests


@pytest.mark.parametrize("cut", [1, 30, "newline"])
def test_a_last_line_that_was_cut_off_is_asked_anew(api, fetch, tmp_path, cut):
    fetch()
    answers = tmp_path / "m.csv.answers.jsonl"
    lines = answers.read_text().splitlines(keepends=True)
    assert len(lines) == 4
    answers.write_text("".join(lines[:3]) + (lines[3][:-1] if cut == "newline" else lines[3][:cut]))
    api.asked.clear()
    (tmp_path / "m.csv").unlink()
    assert fetch().read_text() == CSV
    assert sum(api.counts.values()) == 1
    assert answers.read_text().splitlines(keepends=True) == lines


@pytest.mark.parametrize("line", ['{"asked": "movie/8', "7", "[]", '{"asked": "movie/8"}',
                                  '{"gone": true}', "null"])
def test_a_damaged_line_in_the_middle_is_named(api, fetch, tmp_path, line):
    fetch()
    answers = tmp_path / "m.csv.answers.jsonl"
    lines = answers.read_text().splitlines()
    answers.write_text("\n".join([lines[0], line, *lines[1:]]) + "\n")
    with pytest.raises(ValueError, match=r"m\.csv\.answers\.jsonl, line 2: .*Remove the line"):
        fetch()


# --- the key -------------------------------------------------------------------------------------


def test_a_token_is_sent_as_a_header_and_nothing_else_is(api, fetch, tmp_path, monkeypatch):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1\nlogin me\npassword mine\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("TMDB_API_KEY", f" {TOKEN}\n")
    assert fetch(key=None).read_text() == CSV
    assert {headers["Authorization"] for _, _, headers in api.asked} == {f"Bearer {TOKEN}"}
    assert not any("api_key" in query for _, query, _ in api.asked)
    api.asked.clear()
    fetch(key=KEY, name="other.csv")
    assert not any("Authorization" in headers for _, _, headers in api.asked)
    for answers in tmp_path.glob("*.jsonl"):
        assert KEY not in answers.read_text() and TOKEN not in answers.read_text()


@pytest.mark.parametrize("key", ["f" * 32, "eyJ.wrong.token"])
@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_is_refused_is_not_shown(api, fetch, tmp_path, key, status):
    api.instead["/movie/862"] = [(status, {}, {"status_message": f"bad {key}"})]
    with pytest.raises(PermissionError, match="themoviedb.org/settings/api") as caught:
        fetch(key=key)
    assert f"status {status}" in str(caught.value)
    assert key not in texts(caught.value)
    assert key not in (tmp_path / "m.csv.answers.jsonl").read_text()
    assert api.counts["/movie/862"] == 1  # not tried again


@pytest.mark.parametrize("key", [None, "", "two words", "line\nbreak", "ключ", "a&b=c"])
def test_a_key_that_cannot_be_one_is_said_before_anything_is_asked(api, fetch, key):
    with pytest.raises(ValueError, match="settings/api.*TMDB_API_KEY") as caught:
        fetch(key=key)
    assert not key or key not in texts(caught.value)
    assert api.asked == []


# --- the pace ------------------------------------------------------------------------------------


def test_requests_keep_their_distance(api, fetch, clock, monkeypatch):
    monkeypatch.setattr(tmdb_client, "THREADS", 3)
    times = []
    reply = api.reply

    def noted(*question):
        with api.lock:
            times.append(clock.now)
        return reply(*question)

    client = tmdb_client.Client("http://x", KEY, 4.0, 0, 1.0)
    starts = []
    for _ in range(9):
        client._take_turn()
        starts.append(clock.now)
    assert [b - a for a, b in itertools.pairwise(starts)] == [0.25] * 8
    monkeypatch.setattr(api, "reply", noted)
    before = clock.now
    fetch(rate=4.0)
    assert len(times) == 5
    assert clock.now - before >= 4 / 4.0  # five requests, four gaps


def test_time_that_has_passed_is_not_waited_for(clock):
    client = tmdb_client.Client("http://x", KEY, 4.0, 0, 1.0)
    client._take_turn()
    clock.now += 0.1875
    client._take_turn()
    clock.now += 60
    client._take_turn()
    assert clock.pauses == [0.0625]


@pytest.mark.parametrize("settings", [{"rate": 0}, {"retries": -1}, {"timeout": 0}])
def test_settings_that_make_no_sense(fetch, settings):
    with pytest.raises(ValueError, match="expected a positive rate"):
        fetch(**settings)


# --- from the terminal ---------------------------------------------------------------------------


def test_help_says_where_the_data_are_from(capsys):
    with pytest.raises(SystemExit):
        tmdb.main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert tmdb.ATTRIBUTION in text
    assert tmdb.ATTRIBUTION == (
        "This product uses the TMDB API but is not endorsed or certified by TMDB.")
    assert "https://www.themoviedb.org/settings/api" in text


def test_the_command_writes_the_csv_of_a_data_set(api, server, tmp_path, monkeypatch, capsys):
    data = movielens.MovieLens("x", pd.DataFrame(), MOVIES, LINKS, None, "", "", "")
    monkeypatch.setattr(movielens, "load", {"ml-25m": data}.__getitem__)
    monkeypatch.setitem(fetch_metadata.__kwdefaults__, "address",
                        f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("TMDB_API_KEY", KEY)
    output = tmp_path / "new" / "m.csv.gz"
    tmdb.main(["--dataset", "ml-25m", "--output", str(output)])
    assert gzip.decompress(output.read_bytes()).decode() == CSV
    assert tmdb.ATTRIBUTION in capsys.readouterr().out
    monkeypatch.delenv("TMDB_API_KEY")
    with pytest.raises(SystemExit):
        tmdb.main(["--dataset", "ml-25m", "--output", str(tmp_path / "other.csv")])
    assert "there is no key for TMDB" in capsys.readouterr().err
