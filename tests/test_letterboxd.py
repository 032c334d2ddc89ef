"""Letterboxd exports: what is read, in which order, and which films are found."""

import io
import random
import re
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nbrec import letterboxd
from nbrec.letterboxd import match, read

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
    ("Date;Name;Year\n2024-01-01;Alien;1979\n", "watched.csv", "between commas"),
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
    (WATCHED + f"2024-01-02,{'x' * 200_000},1995,\n", "watched.csv", "line 2: found a broken row"),
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
    path = tmp_path / "letterboxd-profile-watchlist-2024.zip"
    path.write_bytes(packed({"watched.csv": WATCHED + ROW}))
    assert read(str(path)).table["name"].tolist() == ["Alien"]


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


def test_only_the_lists_of_seen_films_are_opened(monkeypatch):
    """The profile is a bomb of 100 MB here; nobody notices."""
    data = packed({"profile.csv": b"\0" * 100_000_000, "watchlist.csv": "x", "comments.csv": "x",
                   "reviews.csv": "x", "watched.csv": WATCHED + ROW}, compresslevel=1)
    opened, real = [], zipfile.ZipFile.open

    def spy(archive, member, *args, **kwargs):
        opened.append(member.filename)
        return real(archive, member, *args, **kwargs)

    monkeypatch.setattr(zipfile.ZipFile, "open", spy)
    assert read(data).table["name"].tolist() == ["Alien"] and opened == ["watched.csv"]


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
    ("Pride and Prejudice,2005", 19, "accent"), ("A Separation,2011", 20, "article"),
])
def test_films_are_found_and_it_is_said_how(film, movie, how):
    result = found(film)
    assert result.matched[["movieId", "how"]].values.tolist() == [[movie, how]]
    assert result.matched["title"].tolist() == [MOVIES.set_index("movieId").at[movie, "title"]]
    assert len(result.unmatched) == 0 and how in letterboxd.HOW


@pytest.mark.parametrize("film, reason, candidates", [
    ("Nowhere,1997", "no film of this name", ()),
    ("War of the Worlds,2005", "several films are equally near", (6, 7)),
    ("War of the Worlds,2025", "another or no year", (6, 7, 8)),
    ("King of Comedy,1981", "another or no year", (9,)),
    ("King of Comedy,", "the export gives no year", (9,)),
    ("Moonlight,2002", "another or no year", (162414,)),
    ("Cosmos,2015", "another or no year", (12,)),
    ("Hard,1988", "no film of this name", ()),
    ("The Separation,2011", "no film of this name", ()),
    ("Solo (Duo),1996", "no film of this name", ()),
    ("Not,2012", "no film of this name", ()),
    ("The Seven Samurais,1954", "no film of this name", ()),
])
def test_in_doubt_no_film_is_taken_and_it_is_said_why(film, reason, candidates):
    result = found(film)
    assert len(result.matched) == 0 and reason in result.unmatched.at[0, "reason"]
    assert result.unmatched.at[0, "candidates"] == candidates


@pytest.mark.parametrize("years", [(1996, 1995), (1995, 1996)])
def test_of_two_films_the_nearer_one_takes_the_movie(years):
    result = found(*(f"Toy Story,{year}" for year in years))
    assert result.matched["year"].tolist() == [1995] and result.matched["movieId"].tolist() == [1]
    assert "fits 'Toy Story (1995)' better" in result.unmatched.at[0, "reason"]


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
