"""Titles in natural order, and which of them name the same film."""

import pytest

from nbrec import titles


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
    ("Amélie (2001)", "Amelie", "2001", True),
    ("Matrix, The (1999)", "The Matrix", "2000", True),
    ("Matrix, The (1999)", "The Matrix", "2001", False),
    ("Ring, The (Ringu) (1998)", "Ringu", "", True),
    ("Lilo & Stitch (2002)", "Lilo and Stitch (2002)", "", True),
    ("Toy Story (1995)", "Toy Story 2", "1995", False),
    ("It (1990)", "The It", "1990", True),
    ("GoldenEye (1995)", "Jumanji", "1995", False),
])
def test_the_same_film_is_known_by_any_of_its_names(one, other, year, same):
    assert titles.same_film(one, other, year) is same
