"""Sentences are written by hand, numbers included; a check behind each section holds them true.

    says("0.197", results.mean("xlstm+gat", "ndcg@20"))
    says("two of ten", 2)
    holds(gain.low > 0, "hybrids beat their backbone")

Such a cell stands, hidden, below the section that it belongs to. If a record moves, it stops the
build with the chapter, the sentence, the old words and the new value. ``unchecked`` finds numbers
in prose that no cell stands behind.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

NOTEBOOK = "NBREC_NOTEBOOK"  # the build names the chapter that runs in this variable
SMALL = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
         "eleven", "twelve")
MINUS = "\u2212"
NUMBER = re.compile(rf"(?<![\w.,@])[-+{MINUS}]?(?:\d{{1,3}}(?:,\d{{3}})+|\d+)?(?:\.\d+|(?<=\d))"
                    r"(?:\s?%)?(?![\w]|[.,]\d)")


class Wrong(AssertionError):
    """A sentence of the book is not true of the records any more."""


def says(words: str, value: float) -> None:
    """Hold a number in the section above to a value.

    The words hold one number, in figures or, up to twelve, as a word. The value is rounded as the
    number is written: "0.197" has three decimals, "20%" is 0.2 rounded to whole per cent, "12,839"
    a whole number.

    Args:
        words: as they stand in the text, such as "0.197" or "ten folds".
        value: what they have to be.

    Raises:
        Wrong: the value is another one, or the words do not stand in the section above; the message
            names the chapter, the sentence, the old words and the new value.
        ValueError: the words hold no number, or several.
    """
    written, shown = _written(words), _shown(words, value)
    section = _section(f"says({json.dumps(words, ensure_ascii=False)}")
    sentence = None if section is None else _sentence(section, words)
    if section is not None and sentence is None:
        raise Wrong(f"{_chapter()}: the words {words!r} do not stand in the section above this "
                    f"check; the value is {shown}. Write them there, or drop the check.")
    if written != shown:
        where = "" if sentence is None else f" in the sentence {sentence!r}"
        raise Wrong(f"{_chapter()}: {written!r}{where} is {shown!r} now (value {value!r}). Change "
                    "the sentence, here and wherever it follows from this number.")


def holds(condition: bool, sentence: str) -> None:
    """Hold a conclusion in the section above to the records.

    Args:
        condition: whether it is true.
        sentence: what is said, in short; it need not stand in the text word by word.

    Raises:
        Wrong: it is not true; the message names the chapter and the sentence.
        TypeError: the condition is no truth value: a table or NaN would pass in silence.
    """
    if type(condition).__name__ not in ("bool", "bool_"):
        raise TypeError(f"the condition of {sentence!r} is {condition!r}: expected True or False")
    if not condition:
        raise Wrong(f"{_chapter()}: it does not hold any more that {sentence}. Change the text, "
                    "here and wherever it follows from this.")


class Unchecked(NamedTuple):
    """A number in prose that no check stands behind: its cell (from 0), itself, its sentence."""

    cell: int
    number: str
    sentence: str


def unchecked(notebook: str | Path) -> list[Unchecked]:
    """The numbers in a chapter's prose that no ``says`` stands behind.

    Not counted: code, formulas, links, citations, headings, tables of the protocol, years, numbers
    of chapters, sections, tables, figures, equations and steps, and whole numbers up to twelve.
    """
    found = []
    for prose, checks in _sections(_cells(notebook)):
        checked = [_digits(words) for words in checks]
        for cell, text in prose:
            for sentence in _sentences(_plain(text)):
                found += [Unchecked(cell, m[0].strip(), sentence)
                          for m in NUMBER.finditer(sentence)
                          if _counts(m[0]) and _digits(m[0]) not in checked]
    return found


# --- numbers in words ----------------------------------------------------------------------------


def _written(words: str) -> str:
    """The one number in the words, as it is written."""
    numbers = [m[0] for m in NUMBER.finditer(words)]
    numbers = numbers or [w for w in re.findall(r"[a-z]+", words.lower()) if w in SMALL]
    if len(numbers) != 1:
        raise ValueError(f"the words {words!r} hold {len(numbers)} numbers: expected one, in "
                         f"figures or as a word up to {SMALL[-1]}; check each with its own words")
    return numbers[0].strip()


def _shown(words: str, value: float) -> str:
    """A value as the number in the words is written."""
    written = _written(words)
    value = float(value)
    if not math.isfinite(value):
        return str(value)
    if written in SMALL:
        return SMALL[int(value)] if value in range(len(SMALL)) else f"{value:g}"
    percent = re.search(r"\s?%$", written)
    number = written[: percent.start()] if percent else written
    decimals = len(number.partition(".")[2])
    text = f"{100 * value if percent else value:,.{decimals}f}"
    if "," not in number and not re.fullmatch(r"\D*\d{1,3}(\.\d*)?", number):
        text = text.replace(",", "")  # years, and whoever writes 1234
    if re.match(r"\D?\.", number):  # .197 as well as 0.197
        text = text.replace("0.", ".", 1)
    negative, text = text.startswith("-"), text.lstrip("-")
    sign = (MINUS if MINUS in number else "-") if negative else "+" if "+" in number else ""
    return sign + text + (percent[0] if percent else "")


def _digits(words: str) -> str:
    """What two ways to write one number have in common."""
    m = NUMBER.search(words)
    return re.sub(r"[,\s]", "", m[0]).replace(MINUS, "-").lstrip("+") if m else words


def _counts(number: str) -> bool:
    """Whether a number states something that may change."""
    text = _digits(number)
    if re.fullmatch(r"\d+", text):
        return int(text) > len(SMALL) - 1 and not 1900 <= int(text) <= 2100
    return True


# --- sections of a notebook ----------------------------------------------------------------------


def _cells(notebook: str | Path) -> list[dict[str, Any]]:
    cells = json.loads(Path(notebook).read_text(encoding="utf-8"))["cells"]
    return [c | {"source": c["source"] if isinstance(c["source"], str) else "".join(c["source"])}
            for c in cells]


def _sections(cells: list[dict[str, Any]]) -> Iterator[tuple[list[tuple[int, str]], list[str]]]:
    """Stretches of prose, (number of the cell, text), and the words that are checked below each."""
    prose: list[tuple[int, str]] = []
    words: list[str] = []
    for number, cell in enumerate(cells):
        if cell["cell_type"] == "markdown":
            if words and cell["source"].lstrip().startswith("#"):
                yield prose, words
                prose, words = [], []
            prose.append((number, cell["source"]))
        else:
            words += [json.loads(m[1]) for m in
                      re.finditer(r'^\s*says\(("(?:[^"\\]|\\.)*")', cell["source"], re.M)]
    yield prose, words


def _section(call: str) -> str | None:
    """The prose above the check that runs now; None outside of a build."""
    if not os.environ.get(NOTEBOOK):
        return None
    words = json.loads(call.removeprefix("says("))
    texts = ["\n\n".join(text for _, text in prose)
             for prose, checked in _sections(_cells(os.environ[NOTEBOOK])) if words in checked]
    return next((t for t in texts if _sentence(t, words)), texts[0] if texts else None)


def _sentence(text: str, words: str) -> str | None:
    whole = rf"(?<![\w.,])(?<![\w.,][-+{MINUS}]){re.escape(words)}(?!\w|[.,]\d|\s?%)"
    return next((s for s in _sentences(_plain(text)) if re.search(whole, s)), None)


def _sentences(text: str) -> list[str]:
    parts = re.split(r"(?<=[.!?:])\s+(?=[A-Z*\[])|\n\s*\n|\n(?=[-*|]|\d+\.\s)", text)
    return [" ".join(part.split()) for part in parts if part.strip()]


def _plain(text: str) -> str:
    """Markdown without what is no prose."""
    for pattern in (r"(?s)(````+).*?\1", r"(?s)```.*?```", r"(?ms)^:::.*?^:::", r"(?s)\$\$.*?\$\$",
                    r"(?<!\\)\$[^$\n]+\$", r"\{\w+(:\w+)?\}`[^`]*`", r"`[^`]*`",
                    r"(?<=\])\([^)]*\)", r"https?://\S+", r"(?m)^#+ .*$", r"(?m)^\|.*$",
                    r"<[^>]+>"):
        text = re.sub(pattern, " ", text)
    named = (r"(?i)\b(chapters?|sections?|tables?|figures?|eq(uations?)?\.?|steps?|appendix|annex|"
             r"pages?|exercises?)\s+[\dA-Z][\d.]*((,| and| to| or)\s+[\dA-Z]?[\d.]*\d)*")
    return re.sub(r"(?m)^(\s*)\d+\.\s", r"\1", re.sub(named, r"\1", text))


def _chapter() -> str:
    return Path(os.environ[NOTEBOOK]).name if os.environ.get(NOTEBOOK) else "this chapter"
