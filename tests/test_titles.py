"""Titles in natural order, and which of them name the same film."""

import pytest

from nbrec.data import titles


@pytest.mark.parametrize("written, name, year", [
    ("Toy Story (1995)", "Toy Story", "1995"),
    ("Boot, Das (Boat, The) (1981)", "Das Boot (The Boat)", "1981"),
    ("Avventura, L' (Adventure, The) (1960)", "L'Avventura (The Adventure)", "1960"),
    ("Shall We Dance? (Shall We Dansu?) (1996)", "Shall We Dance? (Shall We Dansu?)", "1996"),
    ("Fargo (2014-2017)", "Fargo", "2014"),
    ("Ready Player One", "Ready Player One", ""),
    ("2001: A Space Odyssey (1968)", "2001: A Space Odyssey", "1968"),
    ("(500) Days of Summer (2009)", "(500) Days of Summer", "2009"),
])
def test_titles_and_years_are_taken_apart(written, name, year):
    assert titles.split(written) == (name, year)


@pytest.mark.parametrize("one, other, year, same", [
    ("City of Lost Children, The (1995)",
     "City of Lost Children, The (Cité des enfants perdus, La)", "1995", True),
    ("Postino, Il (The Postman) (1994)", "Postman, The (Postino, Il)", "1994", True),
    ("Seven (Se7en) (1995)", "Seven (a.k.a. Se7en)", "1995", True),
    ("Amélie (2001)", "AMELIE", "2002", True),
    ("Willy Wonka and the Chocolate Factory (1971)", "Willy Wonka & the Chocolate Factory", "1971",
     True),
    ("Underneath, The (1995)", "Underneath", "1995", True),
    ("Moonlight", "Moonlight", "2016", True),
    ("Heat (1995)", "Heat (1994)", "", True),
    ("Heat (1995)", "Heat (1986)", "", False),
    ("Metropolis (1926)", "Metropolis", "1928", False),
    ("Halloween (1978)", "Halloween II", "1978", False),
    ("!!! (1990)", "???", "1990", False),
    ("Matrix, The (1999)", "The Matrix", "2000", True),
    ("Matrix, The (1999)", "The Matrix", "2001", False),
    ("Ring, The (Ringu) (1998)", "Ringu", "", True),
    ("Toy Story (1995)", "Toy Story 2", "1995", False),
    ("It (1990)", "The It", "1990", True),
    ("GoldenEye (1995)", "Jumanji", "1995", False),
])
def test_the_same_film_is_known_by_any_of_its_names(one, other, year, same):
    assert titles.same_film(one, other, year) is same


@pytest.mark.parametrize("title, names", [
    ("Seven (a.k.a. Se7en)", ["Seven", "Se7en"]),
    ("Hate (La Haine) (A.K.A. Hatred)", ["Hate", "La Haine", "Hatred"]),
    ("(500) Days of Summer", ["(500) Days of Summer"]),
    ("Evangelion: 3.0 You Can (Not) Redo (Q)", ["Evangelion: 3.0 You Can (Not) Redo", "Q"]),
    ("", [""]),
])
def test_names_in_brackets_stand_at_the_end_of_a_title(title, names):
    assert titles.names(title) == names


@pytest.mark.parametrize("name, article", [
    ("The Matrix", "the"), ("THE MATRIX", "the"), ("Theatre", ""), ("A", ""), ("Die Hard", "die"),
    ("L'Avventura", "l'"), ("L’Avventura", "l'"), ("Lost", ""), ("Jaws", ""), ("Anna", ""),
])
def test_articles(name, article):
    assert titles.article(name) == article


@pytest.mark.parametrize("name, plain", [
    ("WALL·E", "walle"), ("Alien³", "alien3"), ("Brødre & Søstre", "brodreandsostre"),
    ("Łódź", "lodz"), ("M*A*S*H", "mash"), ("Æon Flux", "aeonflux"), ("!!!", "!!!"),
])
def test_names_without_signs(name, plain):
    assert titles.without_signs(name) == plain


@pytest.mark.parametrize("one, other", [
    ("Three Colours: Blue", "Three Colors: Blue"), ("The Theatres of Grey", "The Theaters of Gray"),
    ("Guardians of the Galaxy Vol. 2", "Guardians of the Galaxy 2"),
    ("Red Cliff Part II", "Red Cliff 2"),
    ("John Wick: Chapter 2", "John Wick: Chapter Two"), ("Ocean's 11", "Ocean’s Eleven"),
    ("Nymphomaniac: Vol. I", "Nymphomaniac: Volume One"), ("M.I.B. & Co", "MIB and Co"),
    ("Star Wars: Episode V", "Star Wars: Episode Five"), ("GARÇON", "Garcon"),
])
def test_names_of_one_spelling(one, other):
    assert titles.spelling(one) == titles.spelling(other) != ""


@pytest.mark.parametrize("one, other", [
    ("Malcolm X", "Malcolm 10"), ("I", "1"), ("Our Hour", "Or Hor"), ("Part Time", "Time"),
    ("Toy Story 2", "Toy Story 3"), ("The Raid", "Raid"), ("Saw II", "Saw"), ("Retreat", "Erteat"),
    ("No Man", "Man"), ("Chapter 2 3", "Chapter 2"),
])
def test_names_of_two_spellings(one, other):
    assert titles.spelling(one) != titles.spelling(other)


@pytest.mark.parametrize("name, parts", [
    ("Star Wars: Episode IV - A New Hope",
     {"starwars", "starwars4", "anewhope", "4anewhope", "starwarsanewhope"}),
    ("The Raid: Redemption", {"theraid"}), ("Thor: Ragnarok", set()), ("Alien", set()),
    ("X2: X-Men United", {"x2"}), ("Birdman: Or", {"birdman"}), ("X-Men: First Class", set()),
    ("Dr. Strangelove or: How I Learned to Worry", {"drstrangelove", "howilearnedtoworry"}),
    ("Ice Age 2: The Meltdown", {"iceage2", "iceagethemeltdown"}),
    ("2001: A Space Odyssey", {"aspaceodyssey"}), ("Avengers: Infinity War", set()),
    ("Monty Python's Life of Brian", {"lifeofbrian"}), ("Lee Daniels' The Butler", {"thebutler"}),
    ("Pan's Labyrinth", set()), ("Ferris Bueller's Day Off", set()), ("Dead Poets Society", set()),
    ("The Secret Policeman's Other Big Ball", set()), ("Kill Bill: Vol. 1", {"killbill"}),
])
def test_parts_that_tell_enough_to_stand_for_a_film(name, parts):
    assert titles.parts(name) == parts


def test_words_stand_without_accents_and_signs():
    assert titles.words("L'été & the M.I.B.: 8½") == ["lete", "and", "the", "mib", "81", "2"]
