"""Letterboxd exports: what is read, in which order, and which films are found."""

import base64
import importlib.util
import io
import itertools
import json
import random
import re
import shutil
import subprocess
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbrec.data import titles
from nbrec.play import letterboxd, matching
from nbrec.play.matching import match

ROOT = Path(__file__).resolve().parent.parent
SEEN = {}  # every content read here, with its name: the page has to say the same of it


def read(source, name=""):
    if isinstance(source, bytes):
        SEEN[name or "the file", source] = None
    return letterboxd.read(source, name)


WATCHED = "Date,Name,Year,Letterboxd URI\n"
RATINGS = "Date,Name,Year,Letterboxd URI,Rating\n"
DIARY = "Date,Name,Year,Letterboxd URI,Rating,Rewatch,Tags,Watched Date\n"
REVIEWS = "Date,Name,Year,Letterboxd URI,Rating,Rewatch,Review,Tags,Watched Date\n"

MOVIES = pd.DataFrame([
    (1, "Toy Story (1995)"), (2, "Matrix, The (1999)"), (3, "Seven (a.k.a. Se7en) (1995)"),
    (4, "Hate (Haine, La) (1995)"), (5, "Amélie (Fabuleux destin d'Amélie Poulain, Le) (2001)"),
    (6, "War of the Worlds (2005)"), (7, "War of the Worlds (2005)"),
    (8, "War of the Worlds, The (1953)"), (9, "King of Comedy, The (1983)"),
    (10, "Best Man, The (1998)"), (11, "Best Man, The (1999)"), (12, "Cosmos"),
    (162414, "Moonlight"), (13, "Die Hard (1988)"), (14, "Avventura, L' (Adventure, The) (1960)"),
    (15, "Brothers (Brødre) (2004)"), (16, "Evangelion: 3.0 You Can (Not) Redo (2012)"),
    (17, "Ring, The (2002)"), (18, "Ring (Ringu) (1998)"), (19, "Pride & Prejudice (2005)"),
    (20, "Separation, A (2011)"), (21, "Solo (Alone) (1996)"), (22, "Seven Samurai (1954)"),
    (23, "Circle, The (2016)"), (24, "Dead Poets Society (1989)"),
    (25, "Raiders of the Lost Ark (1981)"),
    (307, "Three Colors: Blue (Trois couleurs: Bleu) (1993)"),
    (260, "Star Wars: Episode IV - A New Hope (1977)"), (28, "Che: Part One (2008)"),
    (29, "Che: Part Two (2008)"), (30, "Pan's Labyrinth (Laberinto del fauno, El) (2006)"),
    (93838, "The Raid: Redemption (2011)"), (32, "Red Cliff Part II (Chi Bi Xia) (2009)"),
    (1080, "Monty Python's Life of Brian (1979)"), (34, "Mission: Impossible - Fallout (2018)"),
    (35, "Thor: Ragnarok (2017)"), (36, "Hidden Fortress: The Last Princess (2008)"),
    (37, "Hidden Fortress (2009)"),
], columns=["movieId", "title"])


def watched(*films):
    """A watched.csv of films as "name,year", one a day."""
    rows = [f"2024-01-{day:02},{film},\n" for day, film in enumerate(films, 1)]
    return (WATCHED + "".join(rows)).encode()


def packed(files, **options):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, **options) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def found(*films, movies=MOVIES):
    return match(read(watched(*films), "watched.csv"), movies)


# --- reading -------------------------------------------------------------------------------------


def test_watched_films_stand_in_the_order_of_their_dates_then_lines():
    rows = ("2024-03-01,Late,2001,u\n2024-01-05,B,2002,u\n2024-01-05,A,2003,u\n"
            "2023-12-31,\"First, of all\",,\n")
    films = read((WATCHED + rows).encode(), "watched.csv")
    assert films.table["name"].tolist() == ["First, of all", "B", "A", "Late"]
    assert films.table["year"].fillna(0).tolist() == [0, 2002, 2003, 2001]
    assert films.table["date"].dt.strftime("%Y%m%d").tolist() == [
        "20231231", "20240105", "20240105", "20240301"]
    assert films.table["rating"].isna().all() and films.files == ("watched.csv",)


def test_a_diary_goes_by_the_day_of_viewing_and_the_last_viewing_counts():
    rows = ("2024-05-01,Alien,1979,,4.5,,,2024-02-01\n"
            "2024-05-02,Heat,1995,,3,,,2024-03-01\n"
            "2024-05-03,Alien,1979,,,Yes,again,2024-04-01\n"
            "2024-05-04,Boyhood,2014,,0.5,,,\n"
            "2024-05-05,Heat,1995,,5,Yes,,2024-01-01\n")  # logged late, seen before
    table = read((DIARY + rows).encode()).table
    assert table["name"].tolist() == ["Heat", "Alien", "Boyhood"]
    assert table["date"].dt.strftime("%m%d").tolist() == ["0301", "0401", "0504"]
    assert table["rating"].tolist() == [3.0, 4.5, 0.5] and table["viewings"].tolist() == [2, 2, 1]


def test_ratings_keep_the_scale_of_half_stars():
    written = ["0.5", "1", "1.5", "2", "2.5", "3", "3.5", "4", "4.5", "5"]
    rows = "".join(f"2024-01-{i:02},F{i},2000,,{r}\n" for i, r in enumerate(written, 1))
    table = read((RATINGS + rows).encode()).table
    assert table["rating"].tolist() == [i / 2 for i in range(1, 11)]


def test_a_whole_export_is_one_history():
    files = {
        "watched.csv": WATCHED + "2024-01-01,Alien,1979,\n2024-01-02,Heat,1995,\n"
                                 "2024-01-03,Up,2009,\n",
        "ratings.csv": RATINGS + "2024-02-01,Alien,1979,,5\n2024-02-02,Heat,1995,,2\n"
                                 "2024-02-03,Her,2013,,4\n2024-02-04,Up,2009,,2\n",
        "diary.csv": DIARY + "2024-03-01,Alien,1979,,3,,,2020-06-01\n"
                             "2024-03-02,Up,2009,,1,,,2024-04-01\n",
        "watchlist.csv": WATCHED + "2024-01-01,Unseen,2000,\n",
        "reviews.csv": REVIEWS + "2024-01-01,Reviewed,2000,,,,text,,\n",
        "deleted/diary.csv": DIARY + "2024-01-01,Deleted,2000,,,,,\n",
        "lists/watched.csv": "Letterboxd list export v7\n",
        "__MACOSX/._watched.csv": "\0\5\26\7",
    }
    films = read(packed(files))
    table = films.table.set_index("name")
    assert films.files == ("diary.csv", "watched.csv", "ratings.csv")
    # Diary before watched before ratings for the date; ratings before diary for the rating.
    assert table["date"].dt.strftime("%Y-%m-%d").to_dict() == {
        "Alien": "2020-06-01", "Heat": "2024-01-02", "Her": "2024-02-03", "Up": "2024-04-01"}
    assert table["rating"].to_dict() == {"Alien": 5, "Heat": 2, "Her": 4, "Up": 2}
    around = read(packed({f"export/{name}": content for name, content in files.items()}))
    pd.testing.assert_frame_equal(around.table, films.table)


@pytest.mark.parametrize("change", [
    lambda text: b"\xef\xbb\xbf" + text.encode(),
    lambda text: text.replace("\n", "\r\n").encode(),
    lambda text: text.replace("\n", "\r").encode(),
    lambda text: text.replace("\n", "\r\n", 2).encode() + b"\r\n\n",
    lambda text: text.rstrip("\n").encode(),
])
def test_byte_order_marks_and_line_ends_change_nothing(change):
    text = WATCHED + "2024-01-01,Alien,1979,\n2024-01-02,Amélie,2001,\n2024-01-03,Heat,1995,\n"
    films = read(change(text), "watched.csv").table
    assert films["name"].tolist() == ["Alien", "Amélie", "Heat"]
    pd.testing.assert_frame_equal(films, read(text.encode(), "watched.csv").table)


def test_an_export_without_films_is_an_empty_history():
    films = read(WATCHED.encode(), "watched.csv")
    result = match(films, MOVIES)
    assert len(films.table) == len(result.matched) == len(result.unmatched) == 0
    assert result.history([1, 2]).tolist() == [] and result.history([1]).dtype == np.int64
    assert films.table["date"].dtype.kind == "M" and films.table["rating"].dtype == np.float64


# --- what is refused -----------------------------------------------------------------------------

ROW = "2024-01-01,Alien,1979,\n"


@pytest.mark.parametrize("data, name, says", [
    (WATCHED + ROW, "watchlist.csv", "have not been seen.*Give watched.csv"),
    (WATCHED + ROW, "my Watchlist (1).CSV", "have not been seen"),
    (REVIEWS, "reviews.csv", "diary.csv"),
    (REVIEWS, "texts.csv", "diary.csv"),
    (WATCHED + ROW, "", "watched.csv and watchlist.csv.*'watched' in it"),
    (WATCHED + ROW, "films.csv", "watched.csv and watchlist.csv.*'watched' in it"),
    ("", "watched.csv", "line 1: found 'Date' 0 times.*expected Date, Name and Year"),
    ("<html><body>Sign in</body></html>", "watched.csv", "line 1: found 'Date' 0 times.*<html>"),
    ("Date;Name;Year\n2024-01-01;Alien;1979\n", "watched.csv",
     "line 1: found semicolons in the header 'Date;Name;Year'.*between commas"),
    ("Date,Name,Letterboxd URI\n", "watched.csv", "'Year' 0 times"),
    ("Date,Name,Year,Name\n", "watched.csv", "'Name' 2 times"),
    (WATCHED + ROW + "2024-01-02,Heat\n", "watched.csv", "line 3: found 2 fields; expected 4"),
    (WATCHED + ROW + "\n\n2024-01-02,Heat,95,\n", "watched.csv", "line 5: found the year '95'"),
    (WATCHED + "2024-01-02,Heat,١٩٩٥,\n", "watched.csv", "line 2: found the year"),
    (WATCHED + "02/01/2024,Heat,1995,\n", "watched.csv", "line 2: found the date '02/01/2024'"),
    (WATCHED + "2024-02-30,Heat,1995,\n", "watched.csv", "line 2: found the date '2024-02-30'"),
    (WATCHED + "2024-W05-6,Heat,1995,\n", "watched.csv", "line 2: found the date"),
    (WATCHED + ",Heat,1995,\n", "watched.csv", "line 2: found the date ''"),
    (WATCHED + "2024-01-02, ,1995,\n", "watched.csv", "line 2: found a film's name of 0"),
    (WATCHED + f"2024-01-02,{'x' * 501},1995,\n", "watched.csv", "name of 501 characters"),
    (WATCHED + f"2024-01-02,{'x' * 131_072},1995,\n", "watched.csv", "name of 131,072 characters"),
    (WATCHED + f"2024-01-02,{'é' * 131_073},1995,\n", "watched.csv", "line 2: .*row.*131,072"),
    (WATCHED + f'2024-01-02,"{"🎬" * 131_073}",1995,\n', "watched.csv", "line 2: .*row.*131,072"),
    (WATCHED + '2024-01-02,"' + '""' * 3_000_000, "watched.csv", "line 2: found a broken row"),
    (WATCHED + ROW + '2024-01-02,"Heat" ,1995,\n', "watched.csv", "line 3: found a broken row"),
    (WATCHED + ROW + '2024-01-02,"Heat""', "watched.csv", "line 3: found a broken row"),
    ("Title,Year,Rating10,WatchedDate\nHeat,1995,8,2024-01-02\n", "letterboxd.csv",
     "line 1: found the header 'Title,Year,Rating10,WatchedDate' of a list for import"),
    ("\n\nDate,Name,Year,Letterboxd URI,Letterboxd URI\n", "watched.csv",
     "line 3: found 'Letterboxd URI' 2 times"),
    (WATCHED + ROW, "mywatchlist", "have not been seen"),
    ("Date Joined,Username\n", "profile.csv", "no films"),
    (WATCHED + "2024-01-02,Heat,1869,\n", "watched.csv", "line 2: found the year '1869'"),
    (WATCHED + "2024-01-02,Heat,2101,\n", "watched.csv", "line 2: found the year '2101'"),
    (WATCHED + "1899-12-31,Heat,1995,\n", "watched.csv", "line 2: found the date '1899-12-31'"),
    (WATCHED + "2101-01-01,Heat,1995,\n", "watched.csv", "line 2: found the date '2101-01-01'"),
    (b"\xef\xbb\xbf" + WATCHED.encode() + b"\xe2\x82(", "watched.csv", "line 2: found byte 0xe2"),
    (WATCHED.encode() + b"\xe2\x82", "watched.csv", "line 2: found byte 0xe2"),
    (WATCHED.encode() + b"\x80", "watched.csv", "line 2: found byte 0x80"),
    ("", "", "^'the file', line 1: found 'Date' 0 times"),
    (WATCHED + ROW + '2024-01-02,"Heat,1995,\n', "watched.csv", "line 3: found a broken row"),
    (WATCHED + ROW + "2024-01-02,He\0at,1995,\n", "watched.csv", r"line 3: .*character '\\x00'"),
    (WATCHED + "2024-01-02,\x1b[31mHeat,1995,\n", "watched.csv", "line 2: found the control"),
    (WATCHED + ROW * 100_001, "watched.csv", "100,002 lines; expected at most 100,000"),
    (RATINGS + "2024-01-02,Heat,1995,,10\n", "ratings.csv", "line 2: found the rating '10'"),
    (RATINGS + "2024-01-02,Heat,1995,,0\n", "ratings.csv", "the rating '0'"),
    (RATINGS + "2024-01-02,Heat,1995,,5.5\n", "ratings.csv", "the rating '5.5'"),
    (RATINGS + "2024-01-02,Heat,1995,,nan\n", "ratings.csv", "expected 0.5 to 5 in half steps"),
    ((WATCHED + ROW).encode("utf-16"), "watched.csv", "line 1: found byte 0xff.*UTF-8"),
    ((WATCHED + ROW + "2024-01-02,Amélie,2001,\n").encode("latin-1"), "watched.csv",
     "line 3: found byte 0xe9, which is not UTF-8.*anew"),
    ((WATCHED + ROW).encode("utf-16-le"), "watched.csv", r"line 1: .*'\\x00'"),
    (WATCHED + ROW, "export.zip", "expected a zip archive"),
    (b" " * (letterboxd.MAX_FILE + 1), "watched.csv", "more than 16,777,216 bytes"),
])
def test_what_is_no_list_of_seen_films_is_refused_with_its_place(data, name, says):
    data = data.encode() if isinstance(data, str) else data
    with pytest.raises(ValueError, match=says) as error:
        read(data, name)
    assert len(str(error.value)) < 450


def test_a_large_file_is_not_read_to_its_end(tmp_path):
    path = tmp_path / "watched.csv"
    with path.open("wb") as stream:
        stream.truncate(2**33)  # a hole of 8 GB
    with pytest.raises(ValueError, match="more than"):
        read(path)


def test_one_film_on_every_line_takes_no_longer_than_many():
    """Time that grows with the square of the lines would be hours here."""
    films = read((WATCHED + ROW * 99_000).encode(), "watched.csv").table
    assert films[["name", "viewings"]].values.tolist() == [["Alien", 99_000]]


@pytest.mark.parametrize("path, says", [
    ("watched.csv", "a folder"), ("other/watched.csv", "no such file"),
    ("other/profile.csv", "profile holds a person's name"),  # refused before it is looked for
])
def test_what_is_no_file(tmp_path, path, says):
    (tmp_path / "watched.csv").mkdir()
    with pytest.raises(ValueError, match=says):
        read(tmp_path / path)


def test_a_path_may_be_a_text_and_a_member_may_be_called_anything(tmp_path):
    data = packed({"watched.csv": WATCHED + ROW})
    for name in ("letterboxd-profile-watchlist-2024.zip", "letterboxd-filmreviewsanna-2026.zip",
                 "letterboxd-mywatchlist-2026", "letterboxd-mywatchlist-2026.zip (1)"):
        path = tmp_path / name
        path.write_bytes(data)
        assert read(str(path)).table["name"].tolist() == ["Alien"]
        assert read(data, name).table["name"].tolist() == ["Alien"]


def test_blanks_around_values_and_empty_lines_count_for_nothing():
    rows = ("2024-01-02,\u00a0The  Heat ,\t1995 ,u, 4 , , , \n \n"
            "2024-01-03,Up,2009,,,,,2024-01-01 \n")
    table = read(("\n" + DIARY.replace(",", " , ") + rows).encode()).table
    assert table["name"].tolist() == ["Up", "The Heat"]
    assert table["year"].tolist() == [2009, 1995] and table["rating"].iloc[1] == 4
    assert table["date"].dt.strftime("%Y%m%d").tolist() == ["20240101", "20240102"]


def test_films_of_one_day_stand_in_the_order_of_the_files_then_the_lines():
    """The diary comes first although its film stands on a later line than the others."""
    films = read(packed({
        "watched.csv": WATCHED + "2024-01-01,Watched,2001,\n",
        "ratings.csv": RATINGS + "2024-01-01,Rated,2002,,4\n",
        "diary.csv": DIARY + "2024-01-02,Late,2003,,,,,\n2024-01-01,Diary,2004,,,,,\n"
                             "2024-01-01,Diary too,2004,,,,,\n"}))
    assert films.table["name"].tolist() == ["Diary", "Diary too", "Watched", "Rated", "Late"]


def test_two_links_are_two_films_and_none_is_taken():
    rows = ("2024-01-01,Toy Story,1995,https://boxd.it/a\n2024-01-02,Toy Story,1995,https://boxd.it/b\n"
            "2024-01-03,Toy Story,1995,https://boxd.it/a\n2024-01-04,Up,2009,https://boxd.it/c\n"
            "2024-01-05,Up,2009,\n")
    films = read((WATCHED + rows).encode(), "watched.csv")
    assert films.table[["name", "viewings"]].values.tolist() == [
        ["Toy Story", 1], ["Toy Story", 2], ["Up", 2]]
    result = match(films, MOVIES)
    assert len(result.matched) == 0
    assert result.unmatched["reason"].tolist()[:2] == [
        "the export has several films of this name and year"] * 2
    assert result.unmatched["candidates"].tolist() == [(1,), (1,), ()]


def test_links_of_a_diary_lead_to_entries_and_not_to_films():
    rows = "2024-01-01,Toy Story,1995,a,,,,\n2024-01-02,Toy Story,1995,b,,,,\n"
    films = read((DIARY + rows).encode())
    assert films.table["viewings"].tolist() == [2]
    assert match(films, MOVIES).matched["movieId"].tolist() == [1]
    whole = read(packed({"diary.csv": DIARY + rows, "watched.csv": WATCHED
                         + "2024-01-01,Toy Story,1995,c\n"}))
    assert whole.table["viewings"].tolist() == [2]
    two = read(packed({"diary.csv": DIARY + rows, "watched.csv": WATCHED
                       + "2024-01-01,Toy Story,1995,c\n2024-01-01,Toy Story,1995,d\n"}))
    assert two.table["viewings"].tolist() == [1, 1, 2]  # the diary's may be either
    assert len(match(two, MOVIES).matched) == 0


@pytest.mark.parametrize("files, says", [
    ({"watchlist.csv": WATCHED + ROW}, "none of its lists; expected one of diary.csv, watched.csv"),
    ({"deleted/watched.csv": WATCHED + ROW}, "none of its lists"),
    ({"a/b/watched.csv": WATCHED + ROW}, "none of its lists"),
    ({"watched.csv/": ""}, "none of its lists"),
    ({}, "none of its lists"),
    ({"inner.zip": packed({"watched.csv": WATCHED})}, "another archive in it .'inner.zip'"),
    ({"watched.csv": packed({"watched.csv": WATCHED})}, "archive in the archive"),
    ({"watched.csv": WATCHED + ROW, "../../evil.csv": "x"}, r"named '../../evil.csv'"),
    ({"watched.csv": WATCHED + ROW, "/etc/passwd": "x"}, "named '/etc/passwd'"),
    ({"watched.csv": WATCHED + ROW, "..\\evil.csv": "x"}, "evil.csv"),
    ({"watched.csv": WATCHED + ROW, "C:/evil.csv": "x"}, "named 'C:/evil.csv'"),
    ({"watched.csv": WATCHED + ROW, "e/watched.csv": WATCHED + ROW}, "watched.csv twice"),
    ({"watched.csv": WATCHED + " " * letterboxd.MAX_FILE}, "bytes when unpacked; expected at most"),
    ({"watched.csv": WATCHED, "diary.csv": DIARY + "x\n"}, "a.zip/diary.csv', line 2: found 1"),
    ({f"lists/{i}.csv": "" for i in range(10_001)}, "more than 10,000 files"),
])
def test_archives_that_are_no_export_are_refused(files, says):
    with pytest.raises(ValueError, match=says):
        read(packed(files), "a.zip")


def test_a_bomb_that_lies_about_its_size_is_not_unpacked():
    data = packed({"watched.csv": WATCHED + "\n" * 3_000_000})
    size = len(WATCHED) + 3_000_000
    assert data.count(size.to_bytes(4, "little")) == 2  # before the data, and in the index
    with pytest.raises(ValueError, match="damaged archive"):
        read(data.replace(size.to_bytes(4, "little"), (60).to_bytes(4, "little")), "a.zip")


def test_passwords_and_other_compression_are_refused():
    data = bytearray(packed({"watched.csv": WATCHED + ROW}))
    data[data.index(b"PK\1\2") + 8] |= 1
    with pytest.raises(ValueError, match="with a password"):
        read(bytes(data))
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("watched.csv", WATCHED + ROW)
    with pytest.raises(ValueError, match="compression method 14"):
        read(stream.getvalue())


def test_only_the_lists_of_seen_films_are_unpacked():
    """The profile is a bomb of 100 MB here; nobody notices."""
    data = packed({"profile.csv": b"\0" * 100_000_000, "watchlist.csv": "x", "comments.csv": "x",
                   "reviews.csv": "x", "watched.csv": WATCHED + ROW}, compresslevel=1)
    tracemalloc.start()
    assert read(data).table["name"].tolist() == ["Alien"]
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 10_000_000


@pytest.mark.parametrize("method, field, off", [
    (zipfile.ZIP_DEFLATED, 20, 1), (zipfile.ZIP_DEFLATED, 20, -1), (zipfile.ZIP_DEFLATED, 24, 1),
    (zipfile.ZIP_DEFLATED, 24, -1), (zipfile.ZIP_STORED, 20, 1), (zipfile.ZIP_STORED, 24, 1)])
def test_lengths_that_are_off_by_one_are_damage(method, field, off):
    """At 20 stands the length in the archive, at 24 that of the content."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        archive.writestr("watched.csv", WATCHED + ROW)
    data = bytearray(stream.getvalue())
    data[data.index(b"PK\1\2") + field] += off
    with pytest.raises(ValueError, match="damaged archive"):
        read(bytes(data), "a.zip")


def test_archives_of_other_programs_are_read():
    """Stored members, sizes behind the data, a comment, a folder: as zip programs write them."""
    class Unseekable(io.RawIOBase):
        def __init__(self):
            self.data = bytearray()

        def writable(self):
            return True

        def write(self, piece):
            self.data += piece
            return len(piece)

    for method, name, comment in itertools.product(
            (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED), ("watched.csv", "Export é/watched.csv"),
            (b"", b"PK\5\6 a comment" + b"x" * 60_000)):
        stream = Unseekable()
        with zipfile.ZipFile(stream, "w", method) as archive:
            archive.comment = comment
            archive.mkdir("Export é")
            archive.writestr(name, WATCHED + ROW)
        assert read(bytes(stream.data), "a.zip").table["name"].tolist() == ["Alien"]


@pytest.mark.parametrize("cut, changed", [
    (slice(0, -1), None), (slice(1, None), None), (slice(0, 40), None), (slice(0, 3), None),
    (slice(None), (-20, 1)), (slice(None), (14, 1)), (slice(None), (0, 2))])
def test_damaged_archives_are_refused(cut, changed):
    """Cut short; or a byte of the index, of the data and of the first signature is another one."""
    data = bytearray(packed({"watched.csv": WATCHED + ROW})[cut])
    if changed == (0, 2):
        data[3] ^= 1
    elif changed:
        place = data.index(b"PK\1\2") + 16 if changed[0] < 0 else 30 + len("watched.csv") + 3
        data[place] ^= changed[1]
    name = "a.zip" if data.startswith(b"PK") else "watched.zip"
    with pytest.raises(ValueError, match="damaged archive|no zip archive"):
        read(bytes(data), name)


def test_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    read(packed({"watched.csv": WATCHED + ROW, "a/b.txt": "x"}))
    assert not list(Path().iterdir())


def test_any_damage_of_an_archive_is_a_clear_error_or_no_harm():
    """Archives with a few bytes changed or cut off: the films, or a ValueError that says it."""
    whole = packed({"watched.csv": WATCHED + ROW * 3, "profile.csv": "x", "diary.csv": DIARY})
    generator, outcomes = random.Random(0), set()
    for _ in range(1000):
        data = bytearray(whole)
        for _ in range(generator.randint(1, 3)):
            data[generator.randrange(2, len(data))] = generator.randrange(256)
        if generator.random() < 0.2:
            del data[generator.randrange(2, len(data)):]
        try:
            assert set(read(bytes(data)).table["name"]) <= {"Alien"}
            outcomes.add("films")
        except ValueError as error:
            assert re.search(r"found .+; expected .+\. [A-Z]", str(error), re.DOTALL), error
            outcomes.add("refused")
    assert outcomes == {"films", "refused"}


def test_formulas_and_html_are_names_like_any_other():
    """Some films are called "=3" or "+1", so such names are kept, as text, and match nothing."""
    names = ["=HYPERLINK(1)", "<script>alert(1)</script>", "+1", "{{ 7*7 }}", "<b>Alien</b>"]
    result = found(*(f"{name},1995" for name in names), "Toy Story,1995")
    assert result.unmatched["name"].tolist() == names
    assert set(result.unmatched["reason"]) == {"no film of this name"}
    assert result.matched["movieId"].tolist() == [1]


# --- matching ------------------------------------------------------------------------------------


@pytest.mark.parametrize("film, movie, how", [
    ("Toy Story,1995", 1, "exact"), ("TOY STORY,1995", 1, "exact"),
    ("The Matrix,1999", 2, "article"), ("Matrix,1999", 2, "article"),
    ("Se7en,1995", 3, "alternative title"), ("Seven,1995", 3, "exact"),
    ("Seven (Se7en),1995", 3, "alternative title"),
    ("La Haine,1995", 4, "alternative title"), ("Hate,1995", 4, "exact"),
    ("Amelie,2001", 5, "accent"), ("Amélie,2002", 5, "year off by one"),
    ("Le fabuleux destin d’Amelie Poulain,2001", 5, "alternative title"),
    ("War of the Worlds,1953", 8, "article"),
    ("The King of Comedy,1982", 9, "year off by one"),
    ("The Best Man,1999", 11, "article"), ("The Best Man,2000", 11, "year off by one"),
    ("Moonlight,2016", 162414, "exact"), ("L’Avventura,1960", 14, "article"),
    ("Brodre,2004", 15, "alternative title"),
    ("Evangelion: 3.0 You Can (Not) Redo,2012", 16, "exact"),
    ("Ring,1998", 18, "exact"), ("The Ring,2002", 17, "article"),
    ("La Haine,1996", 4, "year off by one"),
    ("Three Colours: Blue,1993", 307, "spelling"), ("Red Cliff 2,2009", 32, "spelling"),
    ("Star Wars,1977", 260, "part of the title"), ("The Raid,2011", 93838, "part of the title"),
    ("Star Wars: A New Hope,1977", 260, "part of the title"),
    ("Life of Brian,1979", 1080, "part of the title"),
    ("Steven Spielberg's Raiders of the Lost Ark,1981", 25, "part of the title"),
    ("Mission: Impossible – Fallout,2018", 34, "accent"),
    ("Pride and Prejudice,2005", 19, "accent"), ("A Separation,2011", 20, "article"),
])
def test_films_are_found_and_it_is_said_how(film, movie, how):
    result = found(film)
    assert result.matched[["movieId", "how"]].values.tolist() == [[movie, how]]
    assert result.matched["title"].tolist() == [MOVIES.set_index("movieId").at[movie, "title"]]
    assert len(result.unmatched) == 0 and how in matching.HOW


@pytest.mark.parametrize("film, reason, candidates", [
    ("Nowhere,1997", "no film of this name", ()),
    ("War of the Worlds,2005", "several films are equally near: 'War of the Worlds (2005)' "
     "(movieId 6), 'War of the Worlds (2005)' (movieId 7)", (6, 7, 8)),
    ("War of the Worlds,2025", "another or no year", (6, 7, 8)),
    ("King of Comedy,1981", "another or no year: 'The King of Comedy (1983)' (movieId 9)", (9,)),
    ("King of Comedy,", "the export gives no year", (9,)),
    ("Moonlight,2002", "another or no year: 'Moonlight' (movieId 162414)", (162414,)),
    ("Cosmos,2015", "another or no year", (12,)),
    ("Circle,2015", "another or no year: 'The Circle (2016)' (movieId 23)", (23,)),
    ("Amelie,2002", "another or no year", (5,)),
    ("Society,1989", "no film of this name", (24,)),
    ("Hard,1988", "no film of this name", (13,)),
    ("The Separation,2011", "no film of this name", (20,)),
    ("Solo (Duo),1996", "no film of this name", (21,)),
    ("Not,2012", "no film of this name", (16,)),
    ("The Seven Samurais,1954", "no film of this name", ()),
    ("Star Wars,1978", "no film of this name", (260,)),
    ("Raid,2011", "no film of this name", (93838,)),
    ("Redemption,2011", "no film of this name", (93838,)),
    ("Labyrinth,2006", "no film of this name", (30,)),
    ("The Mission,2018", "no film of this name", (34,)),
    ("Thor,2017", "no film of this name", (35,)),
    ("Che,2008", "no film of this name", (28, 29)),
    ("Barry Jenkins's Moonlight,2016", "no film of this name", (162414,)),
    ("Hidden Fortress,2008", "several films are near: 'Hidden Fortress: The Last Princess (2008)' "
     "(movieId 36), 'Hidden Fortress (2009)' (movieId 37)", (36, 37)),
])
def test_in_doubt_no_film_is_taken_and_it_is_said_why(film, reason, candidates):
    result = found(film)
    assert len(result.matched) == 0 and reason in result.unmatched.at[0, "reason"]
    assert result.unmatched.at[0, "candidates"] == candidates


@pytest.mark.parametrize("years", [(1996, 1995), (1995, 1996)])
def test_of_two_films_the_nearer_one_takes_the_movie(years):
    result = found(*(f"Toy Story,{year}" for year in years))
    assert result.matched["year"].tolist() == [1995] and result.matched["movieId"].tolist() == [1]
    assert "fits 'Toy Story (1995)' (movieId 1) better" in result.unmatched.at[0, "reason"]


def test_of_two_films_that_are_as_near_none_takes_the_movie():
    both = found("Toy Story,1996", "Toy Story,1994")
    assert len(both.matched) == 0 and both.unmatched["reason"].str.contains("as well").all()


def test_years_that_movielens_lacks_hold_for_its_own_movies_only():
    other = pd.DataFrame({"movieId": [5], "title": ["Moonlight"]})
    assert len(found("Moonlight,2016", movies=other).matched) == 0


def test_movies_without_titles_are_refused():
    with pytest.raises(ValueError, match="expected movieId, title|title as well"):
        match(read(watched("Up,2009"), "watched.csv"), pd.DataFrame({"movieId": [1]}))


def test_the_history_is_in_catalogue_indices_and_in_the_order_of_viewing():
    rows = ("2024-01-01,The Matrix,1999,,2.5\n2024-01-02,Nowhere,1997,,5\n"
            "2024-01-03,Toy Story,1995,,3\n2024-01-04,Se7en,1995,,\n2024-01-05,Hate,1995,,5\n")
    result = match(read((RATINGS + rows).encode()), MOVIES)
    assert result.history([1, 2, 3, 8]).tolist() == [1, 0, 2]  # "Hate" is not in this catalogue
    assert result.history([8, 4, 1, 2]).tolist() == [3, 2, 1]
    assert result.history([1, 2, 3, 8], min_rating=3).tolist() == [0, 2]
    assert result.matched["rating"].fillna(0).tolist() == [2.5, 3, 0, 5]


def test_at_most_five_films_are_offered():
    movies = pd.DataFrame({"movieId": range(9), "title": ["Emma (1996)"] * 9})
    lost = found("Emma,1996", movies=movies).unmatched
    assert lost.at[0, "candidates"] == (0, 1, 2, 3, 4)
    assert lost.at[0, "reason"].endswith("(movieId 4) and 4 more")


def test_words_of_many_films_and_of_long_names_offer_nothing():
    movies = pd.DataFrame({"movieId": range(25), "title": [
        *(f"Love and Film {i} (1996)" for i in range(21)),
        *(f"War Film {i} (1995)" for i in range(3)), "Peace (1995)"]})
    names = ["Love,1996", "War,1995", "Film,1995", "a b c d e f g h i Peace,1995",
             "b b c d e f g h i j k Peace,1995"]
    offered = found(*names, movies=movies).unmatched["candidates"]
    assert offered.tolist() == [(), (21, 22, 23), (21, 22, 23), (24,), ()]


def test_a_reader_may_choose_a_film_and_it_stands_in_its_place():
    result = found("Toy Story,1995", "Raid,2011", "Nowhere,1997", "Hate,1995")
    assert result.unmatched[["row", "candidates"]].values.tolist() == [[1, (93838,)], [2, ()]]
    chosen = result.choose(1, 93838, "The Raid: Redemption (2011)")
    assert chosen.matched["movieId"].tolist() == [1, 93838, 4]
    assert chosen.matched["how"].tolist() == ["exact", matching.CHOSEN, "exact"]
    assert chosen.matched["row"].tolist() == [0, 1, 3] and chosen.matched["movieId"].dtype == int
    assert chosen.unmatched["name"].tolist() == ["Nowhere"]
    assert found("Raid,2011").choose(0, 93838, "x").history([93838]).tolist() == [0]
    with pytest.raises(ValueError, match=r"row 0 is not among the unmatched rows \[1, 2\]"):
        result.choose(0, 1, "Toy Story (1995)")


# --- whatever comes in ---------------------------------------------------------------------------

LISTS = {"watched.csv": WATCHED, "ratings.csv": RATINGS, "diary.csv": DIARY}
VALUES = st.sampled_from(["", " ", "2024-01-02", "2023-12-31", "Toy Story", "The Matrix", "Se7en",
                          '"Heat', 'He"at', '"Up, and ""down"""', "1995", " 1999", "4", "0.5", "6",
                          "\u2028", "\x07", "é", "\U0001f3ac", "a;b", "\r", "x" * 501])


@st.composite
def files(draw):
    """A name, and bytes that are a list, a list with odd values, an archive, or anything."""
    name = draw(st.sampled_from(["watched.csv", "ratings.csv", "diary.csv", "watchlist.csv", "",
                                 "a.zip", "letterboxd-mywatchlist-2026.zip", "x/watched.csv"]))
    header = draw(st.sampled_from([WATCHED, RATINGS, DIARY, REVIEWS, "\ufeff" + WATCHED, ""]))
    rows = draw(st.lists(st.lists(VALUES, min_size=1, max_size=9).map(",".join), max_size=4))
    good = draw(st.lists(st.sampled_from(["2024-01-02,Toy Story,1995,", "2024-01-03,Se7en,1995,u",
                                          '"2024-01-03","The Matrix", 1999 ,"v"']), max_size=4))
    breaks = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    width = header.count(",") - 3
    good = [row + "," * max(width, 0) for row in good]
    text = header.rstrip("\n") + breaks + breaks.join([*good, *rows])
    data = text.encode()
    if draw(st.booleans()):
        data = packed({draw(st.sampled_from([*LISTS, "deleted/watched.csv", "a/diary.csv"])): data,
                       "profile.csv": "x"})
    for place, byte in draw(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)),
                                     max_size=2)):
        data = data[:place % (len(data) + 1)] + bytes([byte]) + data[place % (len(data) + 1) + 1:]
    return name, draw(st.sampled_from([data, data[:-3]])) if draw(st.booleans()) else data


@settings(max_examples=150, deadline=None, derandomize=True)
@given(files() | st.tuples(st.text(max_size=20), st.binary(max_size=200)))
def test_any_content_is_films_or_an_error_that_names_the_file(file):
    name, data = file
    try:
        films = read(data, name)
    except ValueError as error:
        own = re.split(r"[\\/]", name)[-1] or "the file"
        form = r"'.*?'(, line \d+)?: found .+; expected .+\. [A-Z].+\.$"
        assert re.match(form, str(error)), error
        assert str(error)[1:].startswith(re.match(r"[\w.-]*", own)[0])
        return
    assert films.files and set(films.files) <= set(letterboxd.FILES)
    assert films.table["date"].is_monotonic_increasing
    assert films.table["name"].str.len().between(1, letterboxd.MAX_NAME).all()
    result = match(films, MOVIES)
    rows = sorted([*result.matched["row"], *result.unmatched["row"]])
    assert rows == list(range(len(films.table)))


# --- real data -----------------------------------------------------------------------------------

# Films of the sample that MovieLens's small data set lacks, found by reading its titles word by
# word: those later than its last update in 2018, and six others.
ABSENT = {("The River", 1938), ("Leviathan", 2012), ("Three Little Pigs", 1933), ("Daisies", 1966),
          ("Open Season 2", 2008), ("Open Season 3", 2010)}
# Films that a careless rule would miss, or take for another one.
DOUBTFUL = {
    "Se7en": 47, "La Haine": 97, "Ghost in the Shell": 741, "Vertigo": 903, "12 Angry Men": 1203,
    "GoodFellas": 1213, "Alien": 1214, "The Killer": 1218, "RoboCop": 2985, "Bicycle Thieves": 3089,
    "Mulholland Drive": 4848, "The King of Comedy": 6001,
    "Neon Genesis Evangelion: The End of Evangelion": 27156, "Memories of Murder": 31364,
    "Pride & Prejudice": 40629, "Her": 106920, "Kingsman: The Secret Service": 119145,
    "Moonlight": 162414,
}
SAME_FILM = {  # of ml-1m; the small set has them under another number, and some under two names
    "Aparajito (1956)", "Blue Angel, The (Blaue Engel, Der) (1930)", "M*A*S*H (1970)",
    "Transformers: The Movie, The (1986)", "Sixth Man, The (1997)", "Dangerous Beauty (1998)",
    "Dracula (1958)", "Where Eagles Dare (1969)", "Trial, The (Le Procès) (1963)",
    "Freedom for Us (À nous la liberté ) (1931)",
}


@pytest.fixture(scope="module")
def small(data_folder):
    with zipfile.ZipFile(data_folder / "ml-latest-small.zip") as archive:
        return pd.read_csv(archive.open("ml-latest-small/movies.csv"))


def test_every_film_of_a_real_export_that_movielens_has_is_found(data_folder, small):
    films = read(data_folder / "letterboxd-watched-sample.csv")
    assert len(films.table) == 109 and films.table["date"].is_monotonic_increasing
    result = match(films, small)
    absent = ABSENT | {(f.name, f.year) for f in films.table.itertuples() if f.year >= 2019}
    assert set(zip(result.unmatched["name"], result.unmatched["year"], strict=True)) == absent
    assert len(result.matched) == 109 - len(absent) == 81
    assert set(result.matched["how"]) == {"exact", "article", "alternative title",
                                          "year off by one"}
    movies = result.matched.set_index("name")["movieId"]
    assert movies[list(DOUBTFUL)].to_dict() == DOUBTFUL
    for film in result.matched.itertuples():  # a plainer rule: the longest word, and the year
        word = max(re.findall(r"[\w'-]+", film.name), key=len)
        year = re.search(r"\((\d{4})\)$", film.title)
        assert word.casefold() in film.title.casefold(), film
        assert abs(int(year[1]) - film.year) <= 1 if year else film.name == "Moonlight", film
    history = result.history(small["movieId"])
    assert small["movieId"].to_numpy()[history].tolist() == result.matched["movieId"].tolist()


def test_the_titles_of_another_edition_of_movielens_are_found_again(data_folder, small):
    """The 1M set's names, spelled by others years before, against ids that both sets share."""
    with zipfile.ZipFile(data_folder / "ml-1m.zip") as archive:
        old = pd.read_csv(archive.open("ml-1m/movies.csv"))
    names = old["title"].str.extract(
        r"^(.*?)(?:, (The|A|An))? *(?:\(.*\))? *\((\d{4})\)\s*$").fillna({1: ""})
    assert names.notna().all(axis=None)
    films = pd.DataFrame({"name": (names[1] + " " + names[0]).str.strip(), "old": old["title"],
                          "year": names[2].astype("Int64"), "id": old["movieId"]})
    films = films.drop_duplicates(["name", "year"])
    result = match(letterboxd.Films(films, ()), small)
    other = result.matched[result.matched["id"] != result.matched["movieId"]]
    # The same films under another number, each looked at.
    assert set(other["old"]) == SAME_FILM
    there = films["id"].isin(small["movieId"]).sum()
    assert len(result.matched) - len(other) > 0.98 * there > 2800


# Names of Letterboxd that MovieLens writes otherwise, each looked up in its small set.
OTHERWISE = {
    ("Star Wars", 1977): 260, ("The Empire Strikes Back", 1980): 1196,
    ("Return of the Jedi", 1983): 1210, ("Star Wars: Episode I – The Phantom Menace", 1999): 2628,
    ("Star Wars: The Force Awakens", 2015): 122886, ("Star Wars: The Last Jedi", 2017): 179819,
    ("Guardians of the Galaxy Vol. 2", 2017): 122918, ("John Wick: Chapter 2", 2017): 168248,
    ("Interview with the Vampire", 1994): 253, ("Life of Brian", 1979): 1080,
    ("The Raid", 2011): 93838, ("Romeo + Juliet", 1996): 1059, ("Three Colours: Blue", 1993): 307,
    ("Three Colours: Red", 1994): 306, ("Three Colours: White", 1994): 308,
    ("The Godfather Part II", 1974): 1221, ("Men in Black 3", 2012): 94777,
    ("Harry Potter and the Philosopher's Stone", 2001): 4896, ("Léon: The Professional", 1994): 293,
    ("Birdman or (The Unexpected Virtue of Ignorance)", 2014): 112183,
    ("Dr. Strangelove", 1964): 750,
    ("National Lampoon's Animal House", 1978): 3421, ("The Wrong Trousers", 1993): 1148,
    ("Star Trek: The Wrath of Khan", 1982): 1374,
}
NO_FILM = [("Circle", 2015), ("Society", 1989), ("Labyrinth", 2006), ("Redemption", 2011),
           ("The Mission", 2015), ("Blood", 2009), ("Resurrection", 2002), ("Jedi", 1983),
           ("Day Off", 1986), ("The Movie", 2000), ("Star Wars", 1978), ("Holy Grail", 1975)]


def films_of(names):
    return letterboxd.Films(pd.DataFrame({"name": [name for name, _ in names],
                                          "year": pd.array([y for _, y in names], "Int64")}), ())


def test_famous_films_of_other_names_are_found_and_parts_of_names_are_not(small):
    result = match(films_of(list(OTHERWISE)), small)
    found = dict(zip(zip(result.matched["name"], result.matched["year"], strict=True),
                     result.matched["movieId"], strict=True))
    assert found == OTHERWISE
    assert len(match(films_of(NO_FILM), small).matched) == 0


def numbered_otherwise(name):
    name = re.sub(r"\bII\b", "2", re.sub(r"\bIII\b", "3", name))
    return re.sub(r"\b(Part|Vol\.|Volume|Chapter) ", "", name)


@pytest.mark.parametrize("written, least", [
    (lambda name: name, 9_720), (lambda name: name.replace(" - ", " – "), 9_720),
    (lambda name: name.replace("&", "and").replace("+", "and"), 9_720),
    (lambda name: name.replace("olor", "olour").replace("heater", "heatre"), 9_700),
    (numbered_otherwise, 9_700),
    (lambda name: name.split(": ")[0], 9_400), (lambda name: re.split(": | - ", name)[-1], 9_350),
])
def test_no_title_of_movielens_written_otherwise_is_taken_for_another(small, written, least):
    """All 9,742 of them: in natural order, without brackets, spelled or shortened otherwise."""
    rows = []
    for movie, title in zip(small["movieId"], small["title"], strict=True):
        name, year = titles.split(title)
        year = int(year) if year else matching.YEARS.get((movie, title))
        rows.append((written(titles.names(name)[0]), year, movie))
    films = pd.DataFrame(rows, columns=["name", "year", "id"]).astype({"year": "Int64"})
    films = films.drop_duplicates(["name", "year"], keep=False)
    matched = match(letterboxd.Films(films, ()), small).matched
    assert (matched["id"] == matched["movieId"]).all() and len(matched) >= least


# --- the page ------------------------------------------------------------------------------------


def page_answers(inputs, movies):
    """What letterboxd.js makes of files, in Node.js."""
    spec = importlib.util.spec_from_file_location("play", ROOT / "book" / "play.py")
    play = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(play)
    data = play.for_letterboxd(movies) | {"films": [
        dict(zip(("id", "title", "year"), (movie, *titles.split(title)), strict=True))
        for movie, title in zip(movies["movieId"].tolist(), movies["title"], strict=True)]}
    script = (ROOT / "book" / "assets" / "letterboxd.js").read_text()
    asked = {"script": script, "data": data, "files": [
        {"name": name, "content": base64.b64encode(content).decode()} for name, content in inputs]}
    out = subprocess.run([shutil.which("node"), ROOT / "tests" / "letterboxd_page.js"],
                         input=json.dumps(asked), capture_output=True, text=True, check=True)
    return [json.loads(line) for line in out.stdout.splitlines()]


def answer(content, name, movies):
    """The same of nbrec."""
    try:
        films = letterboxd.read(content, name)
    except ValueError as error:
        return {"refused": str(error)}
    result, table = match(films, movies), films.table
    rows = zip(table["name"], table["year"], table["date"].dt.strftime("%Y-%m-%d"), table["rating"],
               table["viewings"], strict=True)
    return {
        "films": [[name, None if year is pd.NA else int(year), date,
                   None if np.isnan(rating) else rating, viewings]
                  for name, year, date, rating, viewings in rows],
        "matched": result.matched[["row", "movieId", "how"]].values.tolist(),
        "unmatched": [[row, reason, list(choice)] for row, reason, choice in
                      result.unmatched[["row", "reason", "candidates"]].values.tolist()]}


def odd_names():
    """Films of MOVIES, and names around them, with letters, signs and blanks of all kinds."""
    generator, rows = random.Random(1), []
    names = [titles.split(title)[0] for title in MOVIES["title"]]
    pieces = [*names, "The", "A", "Die", "L'", "L’", ": ", " - ", " – ", " or ", " or: ", "Part II",
              "Vol. 2", "Chapter Two", "Episode VII", "(a.k.a. ", ")", "(", "Colours", "Theatre",
              "Monty Python's", "the Greys'", "&", "+", *"ßẞςΣİıŉﬁÅⅧ½³ʼ’．Ａ一ǅꟊ´ªKſ_…", "e\u0301",
              "١٩", "\U0001f3ac", "\U0001d400", "\u00ad", "\u200d", "constructor", "__proto__"]
    for _ in range(3000):
        joint, many = generator.choice(["", " "]), generator.randint(1, 4)
        name = joint.join(generator.choices(pieces, k=many))
        if generator.random() < 0.5:
            name = generator.choice(names)
            for _ in range(generator.randint(0, 2)):
                at = generator.randrange(len(name) + 1)
                name = name[:at] + generator.choice(pieces) + name[at + generator.randint(0, 3):]
        name = generator.choice([str, str.upper, str.lower, str.title])(name).replace('"', '""')
        year = generator.choice([1995, 1977, 2011, 2009, ""])
        rows.append(f'2024-01-01,"{name}",{year},\n')
    for title in MOVIES["title"]:
        name, year = titles.split(title)
        for part in (name, *titles.names(name), *re.split(r": | - |'s ", name)):
            for other in ((int(year) - 1, year, int(year) + 1) if year else ("", 2016)):
                rows.append(f'2024-01-02,"{part}",{other},\n')
    return [("watched.csv", (WATCHED + "".join(rows[at : at + 100])).encode())
            for at in range(0, len(rows), 100)]


@pytest.mark.skipif(not shutil.which("node"), reason="Node.js, which runs the page's script, is "
                                                     "not installed")
def test_the_page_gives_the_same_answers():
    """To every content that the tests above have read, and to odd names of films."""
    inputs = [*SEEN, *odd_names(), ("watched.csv", (WATCHED + ROW * 99_000).encode())]
    answers = page_answers(inputs, MOVIES)
    assert len(answers) == len(inputs)
    outcomes = set()
    for (name, content), page in zip(inputs, answers, strict=True):
        page.pop("milliseconds", None)
        assert page == answer(content, name, MOVIES), (name, content[:300])
        outcomes.add(page.get("refused", "films")[:20])
    assert "films" in outcomes


@pytest.mark.skipif(not shutil.which("node"), reason="Node.js is not installed")
def test_the_page_finds_the_same_films_of_real_data(data_folder, small):
    lines = [WATCHED]
    for number, title in enumerate(small["title"]):
        name, year = titles.split(title)
        others = [name, *titles.names(name), *re.split(": | - ", name)]
        quoted = others[number % len(others)].replace('"', '""')
        lines.append(f'2024-01-01,"{quoted}",{int(year or 1990) + (number % 7 == 0)},\n')
    odd = "".join(f'2024-01-01,"{name}",{year},\n' for name, year in [*OTHERWISE, *NO_FILM])
    inputs = [("watched.csv", (data_folder / "letterboxd-watched-sample.csv").read_bytes()),
              ("watched.csv", "".join(lines).encode()), ("watched.csv", (WATCHED + odd).encode())]
    for (name, content), page in zip(inputs, page_answers(inputs, small), strict=True):
        page.pop("milliseconds")
        assert page == answer(content, name, small)


@pytest.mark.skipif(not shutil.which("node"), reason="Node.js is not installed")
def test_the_page_takes_time_that_grows_with_the_lines():
    """Eight times the lines, all of one film: with their square it would be 64 times as long."""
    inputs = [("watched.csv", (WATCHED + ROW * lines).encode()) for lines in (1_000, 8_000, 64_000)]
    _, short, long = (page["milliseconds"] for page in page_answers(inputs, MOVIES))
    assert long < 30 * short


# --- what is no export, no film and no catalogue -------------------------------------------------

ONE = found("Toy Story,1995", "Nothing of this name,1995")
FILMS = letterboxd.read(watched("Toy Story,1995"), "watched.csv")
WRONG = {
    "a very long name": (lambda: letterboxd.read("x" * 5000), "'x{80}': found what cannot be opened"
                         " .*name too long"),
    "a name with a zero": (lambda: letterboxd.read("x\0.csv"), "found no such file"),
    "nothing": (lambda: letterboxd.read(None), "a value of type NoneType; expected a path"),
    "a number": (lambda: letterboxd.read(5), "a value of type int"),
    "an open file": (lambda: letterboxd.read(io.BytesIO(b"")), r"type BytesIO.*give file.read\(\)"),
    "a list of numbers": (lambda: letterboxd.read(np.arange(3)), "type ndarray"),
    "films of nobody": (lambda: match(None, MOVIES), "films of type NoneType.*`letterboxd.read`"),
    "no movies": (lambda: match(FILMS, None), "movies of type NoneType"),
    "a title that is None": (lambda: match(FILMS, titled(None)),
                             r"title in row 1 \(movieId 2\) is None: expected text"),
    "a title that is NaN": (lambda: match(FILMS, titled(float("nan"))), "row 1 .* is nan"),
    "a title in numbers": (lambda: match(FILMS, titled(1984)), "row 1 .* is 1984"),
    "movieIds as floats": (lambda: match(FILMS, MOVIES.assign(movieId=0.5)), "movieId of type"),
    "movieIds below 0": (lambda: match(FILMS, MOVIES.assign(movieId=-1)), "movieId -1"),
    "a chosen 1.5": (lambda: ONE.choose(1, 1.5, "x"), "movie=1.5: expected a whole number"),
    "a chosen -1": (lambda: ONE.choose(1, -1, "x"), "movie=-1"),
    "a chosen None": (lambda: ONE.choose(1, None, "x"), "movie=None"),
    "a chosen True": (lambda: ONE.choose(1, True, "x"), "movie=True"),
    "a chosen 2^63": (lambda: ONE.choose(1, 2**63, "x"), "movie=9223372036854775808"),
    "a row that is True": (lambda: ONE.choose(True, 2, "x"), "row=True"),
    "a row that is None": (lambda: ONE.choose(None, 2, "x"), "row=None"),
    "a title to choose": (lambda: ONE.choose(1, 2, None), "title=None: expected that of movieId 2"),
    "no catalogue": (lambda: ONE.history(None), "movieId of the catalogue of type object"),
    "a film twice": (lambda: ONE.history([6, 6]), "catalogue of 2 movieIds .*each once"),
    "a table": (lambda: ONE.history([[6]]), "in 2 dimensions"),
    "floats": (lambda: ONE.history([1.5]), "movieId of the catalogue of type float64"),
    "a rating in words": (lambda: ONE.history([1], "x"), "min_rating='x'"),
    "a rating that is NaN": (lambda: ONE.history([1], float("nan")), "min_rating=nan"),
    "a rating below 0": (lambda: ONE.history([1], -1), "min_rating=-1: .*0 or more and at most 5"),
    "a rating above 5": (lambda: ONE.history([1], 5.5), "min_rating=5.5"),
}


def titled(title):
    return pd.DataFrame({"movieId": [1, 2],
                         "title": pd.Series(["Toy Story (1995)", title], dtype=object)})


@pytest.mark.parametrize("case", WRONG)
def test_what_makes_no_sense_is_refused(case):
    ask, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        ask()


def test_the_content_may_come_in_any_bytes_and_the_name_as_a_path():
    content = watched("Toy Story,1995")
    for source in (bytearray(content), memoryview(content)):
        films = letterboxd.read(source, Path("watched.csv"))
        assert films.table["name"].tolist() == ["Toy Story"]
    chosen = ONE.choose(np.int64(1), np.uint16(2), "Matrix, The (1999)")
    assert chosen.matched["movieId"].tolist() == [1, 2]
    assert chosen.matched["movieId"].dtype == np.int64
    assert chosen.history(np.array([2, 1], np.uint64), 0).tolist() == [1, 0]
    assert chosen.history([]).tolist() == []
