"""Titles of films: "Shining, The (Shining) (1980)" is "The Shining" of 1980."""

from __future__ import annotations

import re
import unicodedata

ARTICLES = ("The|A|An|Le|La|Les|L'|Un|Une|El|Los|Las|Una|Il|Lo|Gli|I|Der|Die|Das|Ein|Eine|"
            "De|Den|Det|Het|En|Ett")
ENGLISH = ("the", "a", "an")
# Letters that Unicode does not take apart into a letter and its accent.
LETTERS = {"ø": "o", "ł": "l", "đ": "d", "æ": "ae", "œ": "oe", "ı": "i"}
# Signs as ranges, not as what Unicode calls no letter: Python and browsers know different editions
# of it, and have to agree. Combining accents are among them.
SIGNS = ("\\x00-/:-@\\[-`{-©«-±´¶-¸»¿×÷\\u02b9-\\u036f\\u2000-\\u206f\\u20a0-\\u2bff\\u3000-\\u303f"
         "\\ufe00-\\ufe6f\\uff00-\\uff0f\\ufeff")
LABELS = ("part", "pt", "vol", "volume", "chapter", "episode", "no", "number")  # before a number
NUMBERS = {word: str(number) for words in (
    "one two three four five six seven eight nine ten eleven twelve",
    "- ii iii iv - vi vii viii ix - xi xii xiii xiv xv")
    for number, word in enumerate(words.split(), 1) if word != "-"}
LETTER_NUMBERS = {"i": "1", "v": "5", "x": "10"}  # behind a label only: "Malcolm X" is no tenth
SPELLINGS = (  # British and American: colour, theatre, grey
    (r"(?<![^ ])([a-z]{3,})our(?=(?:s|ed|ing|ful|less|able|ites?|hood)?(?: |$))", r"\1or"),
    (r"(?<![^ ])([a-z]{3,}t)re(?=s?(?: |$))", r"\1er"), (r"(?<![^ ])grey(?=s?(?: |$))", "gray"))
SEPARATOR = r"[,:]? or(?:: |$)|: | [-–—] "  # between a title and its subtitle
NUMBERED = (rf"(?<=[^ ])[ :,–—-]+(?:(?:{'|'.join(LABELS)})\.? )?"
            rf"(?:[0-9]+|[ivx]+|{'|'.join(NUMBERS)})(?=: | [-–—] )")
OWNER = r"^(?!(?:the|a|an) )[^ ]+ (?:[^ ]+ )?[^ ]*(?:'s|s') "  # "Monty Python's"

_SIGNS, _WORD, _WITHIN = (re.compile(p) for p in (f"[{SIGNS}]+", f"[^{SIGNS}]+",
                                                  "[\u0300-\u036f'.]"))
_SPELLINGS = [(re.compile(pattern), other) for pattern, other in SPELLINGS]
_SEPARATOR, _NUMBERED, _OWNER = map(re.compile, (f"({SEPARATOR})", NUMBERED, OWNER))
_ARTICLE = re.compile(rf"(?:{ARTICLES.lower()})(?= +[^ ]|(?<=')[^ ])")
_LETTERS = str.maketrans(LETTERS)


def split(title: str) -> tuple[str, str]:
    """A title in natural order, and its year.

    "City of Lost Children, The (Cité des enfants perdus, La) (1995)" becomes
    ("The City of Lost Children (La Cité des enfants perdus)", "1995"). Of a series "(2006-2007)" it
    is the first year; without one it is "".
    """
    [(text, year)] = re.findall(r"(?s)\A(.*?)\s*(?:\((\d{4})(?:[-–]\d{0,4})?\))?\s*\Z", title)
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
    others: list[str] = []
    while title.endswith(")"):
        # Brackets within a name, as in "1.0 You Are (Not) Alone", belong to it.
        main, found, inner = title[:-1].rpartition(" (")
        if not found or not inner or "(" in inner or ")" in inner:
            break
        title, others = main, [inner, *others]
    return [re.sub(r"^[aA]\.[kK]\.[aA]\. *", "", name) for name in (title, *others)]


def folded(name: str) -> str:
    """A name in small letters, with the plain form of "ß", a final "ς" and "’"."""
    return name.lower().replace("ß", "ss").replace("ς", "σ").replace("’", "'")


def article(name: str) -> str:
    """The article that a name begins with, in small letters, or ""."""
    found = _ARTICLE.match(folded(name))
    return found[0] if found else ""


def without_signs(name: str) -> str:
    """A name in small letters without accents, punctuation and spaces, and with "and" for "&"."""
    return _SIGNS.sub("", _plain(name)) or name


def words(name: str) -> list[str]:
    """The words of a name in small letters, without accents and signs, "and" for "&"."""
    return _WORD.findall(_WITHIN.sub("", _plain(name)))


def spelling(name: str) -> str:
    """A name without signs, where "colour" is "color" and "Chapter Two" and "Vol. II" are "2"."""
    text, found = " ".join(words(name)), list[str]()
    for pattern, other in _SPELLINGS:
        text = pattern.sub(other, text)
    for word in text.split(" "):
        labelled = bool(found) and found[-1] in LABELS
        number = word if word.isascii() and word.isdigit() else NUMBERS.get(
            word, LETTER_NUMBERS.get(word) if labelled else None)
        if number and labelled:
            found.pop()
        found.append(number or word)
    return "".join(found)


def _plain(name: str) -> str:
    plain = folded(unicodedata.normalize("NFKD", name)).translate(_LETTERS)
    return plain.replace("&", " and ").replace("+", " and ")


def unnumbered(name: str) -> str:
    """A name without the number before its subtitle: "Ice Age 2: The Meltdown" has none then."""
    return _NUMBERED.sub("", folded(name))


def without_owner(name: str) -> str:
    """A name without whose it is: "Monty Python's Life of Brian" becomes "life of brian"."""
    return _OWNER.sub("", folded(name))


def parts(name: str) -> set[str]:
    """The `spelling` of what is left if a name loses its subtitle, its series, number or owner.

    A part has to tell enough to stand for a film: a title has two words at least, or letters and
    digits in one ("X2"), or an "or" behind it; a subtitle three; what an owner has three, or an
    article and one. Articles count as words.

    Args:
        name: one of `names`.
    """
    pieces = _SEPARATOR.split(folded(name))
    found = {unnumbered(name)} - {folded(name)}
    for at in range(1, len(pieces), 2):
        title, subtitle = "".join(pieces[:at]), "".join(pieces[at + 1:])
        if " " in title or " or" in pieces[at] or re.search("[a-z][0-9]|[0-9][a-z]", title):
            found.add(title)
        if subtitle.count(" ") > 1:
            found.add(subtitle)
    own = without_owner(name)
    if own != folded(name) and (own.count(" ") > 1 or article(own) in ENGLISH):
        found.add(own)
    return {spelling(part) for part in found} - {"", spelling(name)} if found else found


def keys(title: str) -> set[str]:
    """The names in a title, each without what editions write differently.

    That is letter case, accents, punctuation, spaces, a leading article, and "&" for "and". Names
    in brackets count as well.

    Args:
        title: without its year, in natural order.
    """
    return {without_signs(folded(name)[len(article(name)):]) for name in names(title)}


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
