"""Titles of films: "Shining, The (Shining) (1980)" is "The Shining" of 1980."""

from __future__ import annotations

import re
import unicodedata

ARTICLES = ("The|A|An|Le|La|Les|L'|Un|Une|El|Los|Las|Una|Il|Lo|Gli|I|Der|Die|Das|Ein|Eine|"
             "De|Den|Det|Het|En|Ett")
# Letters that Unicode does not take apart into a letter and its accent.
NO_ACCENT = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "æ": "ae", "œ": "oe", "ı": "i"})


def split(title: str) -> tuple[str, str]:
    """A title in natural order, and its year.

    "City of Lost Children, The (Cité des enfants perdus, La) (1995)" becomes
    ("The City of Lost Children (La Cité des enfants perdus)", "1995"). Of a series "(2006-2007)" it
    is the first year; without one it is "".
    """
    whole = re.fullmatch(r"(.*?)\s*(?:\((\d{4})(?:[-–]\d{0,4})?\))?\s*", title, re.DOTALL)
    text, year = whole[1], whole[2] or ""
    main, bracket, rest = text.partition(" (")
    rest = re.sub(r"(?<=\()[^()]+(?=\))", lambda found: natural(found[0]), bracket + rest)
    return natural(main) + rest, year


def natural(name: str) -> str:
    """The natural order of a name: "Boot, Das" becomes "Das Boot"."""
    found = re.fullmatch(rf"(a\.k\.a\. )?(.+), ({ARTICLES})\s*", name, re.DOTALL)
    if not found:
        return name
    aka, rest, article = found.groups()
    return (aka or "") + article + ("" if article.endswith("'") else " ") + rest


def names(title: str) -> list[str]:
    """The main name in a title, then those in brackets, without their "a.k.a.".

    Args:
        title: without its year, in natural order.
    """
    # Brackets within a name, as in "1.0 You Are (Not) Alone", belong to it.
    main, brackets = re.fullmatch(r"(.*?)((?: \([^()]+\))*)", title, re.DOTALL).groups()
    return [re.sub(r"^a\.k\.a\.\s*", "", part, flags=re.IGNORECASE)
            for part in (main, *re.findall(r"\(([^()]+)\)", brackets))]


def article(name: str) -> str:
    """The article that a name begins with, in small letters, or ""."""
    found = re.match(rf"(?:{ARTICLES})(?=\s+\S|(?<=')\S)", name.replace("’", "'"),
                     re.IGNORECASE)
    return found[0].casefold() if found else ""


def without_signs(name: str) -> str:
    """A name in small letters without accents, punctuation and spaces, and with "and" for "&"."""
    # Combining accents are no letters: they go with the spaces and signs.
    plain = unicodedata.normalize("NFKD", name.casefold()).translate(NO_ACCENT)
    return re.sub(r"[\W_]+", "", re.sub("[&+]", "and", plain)) or name


def keys(title: str) -> set[str]:
    """The names in a title, each without what editions write differently.

    That is letter case, accents, punctuation, spaces, a leading article, and "&" for "and". Names
    in brackets count as well.

    Args:
        title: without its year, in natural order.
    """
    return {without_signs(name[len(article(name)):]) for name in names(title)}


def same_film(one: str, title: str, year: str = "") -> bool:
    """Whether two titles share a name, and their years, if both are known, differ by one at most.

    Args:
        one: with its year in brackets, as MovieLens writes it.
        title: with or without its year.
        year: of ``title``; "" if it stands in it, or is not known.
    """
    (name, its_year), (other, in_title) = split(one), split(title)
    year = year or in_title
    near = not year or not its_year or abs(int(year) - int(its_year)) <= 1
    return near and not keys(name).isdisjoint(keys(other))
