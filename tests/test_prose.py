"""A changed record stops the build with the sentence; a number without a check is found."""

import json

import numpy as np
import pytest

from nbrec.book import prose
from nbrec.book.prose import Wrong, holds, says, unchecked

TEXT = ("## Results\n\nThe xLSTM with GAT reaches an NDCG@20 of 0.197, 12% more than alone. "
        "It gains +.021 in HR@1.\nOf ten folds, two are below; 12,839 users were drawn.\n\n"
        "Its loss falls by \u22120.5.")


def notebook(path, *cells):
    """Cells as text: those that begin with '>' are code."""
    path.write_text(json.dumps({"cells": [
        {"cell_type": "code", "source": c[1:]} if c.startswith(">") else
        {"cell_type": "markdown", "source": c.splitlines(keepends=True)} for c in cells]}))
    return path


@pytest.fixture
def chapter(tmp_path, monkeypatch):
    def make(*cells):
        path = notebook(tmp_path / "13_results.ipynb", *cells)
        monkeypatch.setenv(prose.NOTEBOOK, str(path))
        return path
    return make


@pytest.mark.parametrize("words, value, new, now", [
    ("0.197", 0.1974, 0.1976, "0.198"), ("12%", 0.124, 0.126, "13%"),
    ("+.021", 0.0213, -0.02, "-.020"),
    ("two", 2, 3, "three"), ("12,839 users", 12839, 13000, "13,000"),
    ("\u22120.5", -0.52, 0.52, "0.5"), ("ten folds", np.int64(10), np.int64(40), "40"),
    ("0.197", 0.197, float("nan"), "nan")])
def test_a_record_that_moved_stops_with_chapter_sentence_words_and_value(
        chapter, words, value, new, now):
    chapter("# Title", TEXT, f"> says({json.dumps(words)}, value)")
    says(words, value)
    with pytest.raises(Wrong) as wrong:
        says(words, new)
    said = str(wrong.value)
    assert said.startswith("13_results.ipynb") and f"is {now!r} now" in said
    assert prose._sentence(TEXT, words) in said and prose._written(words) in said


def test_words_that_do_not_stand_above_are_found(chapter):
    chapter("# Title", TEXT, '> says("0.97", 0.97)', "## Next\n\nHere is 0.97.", "> pass")
    with pytest.raises(Wrong, match="'0.97' do not stand in the section above"):
        says("0.97", 0.97)  # part of no number above, and what follows is another section
    chapter("# Title", TEXT, '> says("97", 97)\nsays("197", 197)')
    for words in ("97", "197"):
        with pytest.raises(Wrong, match="do not stand"):
            says(words, float(words))


def test_outside_of_a_build_the_value_is_checked_all_the_same(monkeypatch):
    monkeypatch.delenv(prose.NOTEBOOK, raising=False)
    says("0.2", 0.2)
    with pytest.raises(Wrong, match="this chapter: '0.2' is '0.3' now"):
        says("0.2", 0.3)


@pytest.mark.parametrize("words", ["many", "0.1 and 0.2", ""])
def test_words_need_one_number(words):
    with pytest.raises(ValueError, match="expected one"):
        says(words, 1)


def test_conclusions_hold_or_stop_the_build(chapter):
    chapter("# Title")
    holds(True, "hybrids beat their backbone")
    holds(np.float64(1) > 0, "one is more than nothing")
    with pytest.raises(Wrong, match="13_results.ipynb: it does not hold any more that hybrid"):
        holds(False, "hybrids beat their backbone")
    for odd in (np.array([True]), float("nan"), None, "yes", 1):
        with pytest.raises(TypeError, match="expected True or False"):
            holds(odd, "x")


def test_numbers_without_a_check_are_found(tmp_path):
    path = notebook(
        tmp_path / "n.ipynb", "# Chapter 99\n\nIn 2024 {cite:t}`a2020` had 0.3. See chapter 14, "
        "Table 5.1 and sections 3.2 to 3.4.", TEXT, '> says("0.197", x)\nsays("12%", y)',
        "## Next\n\nAgain 0.197, and $x = 0.5$, `k=300`, [0.9](a_0.9.html), 11 folds.\n\n"
        "| 0.4 | 0.5 |\n| --- | --- |\n\n```\n0.77\n```\n\n13. Thirteenth\n\n"
        "````{dropdown} Solution\nIt is 0.6.\n```python\nprint(0.88)\n```\n````\n",
        '> says("0.3", x)')
    found = unchecked(path)
    assert [(u.cell, u.number) for u in found] == [
        (0, "0.3"), (1, "+.021"), (1, "12,839"), (1, "\u22120.5"), (3, "0.197"),
        (3, "0.9")]
    assert found[1].sentence == "It gains +.021 in HR@1."
