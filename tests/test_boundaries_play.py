"""What the models to play with are asked: a right answer, or a ValueError that says what to do."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.preprocessing import normalize

from nbrec import recommenders
from nbrec.play import explore, space
from nbrec.play.bundle import Bundle
from nbrec.sequences import Fold, Sequences

# Six films; nobody who is trained on has seen films 4 and 5.
SEQUENCES = Sequences(np.arange(6), np.array([0, 1, 2, 3, 0, 1, 2, 0, 1, 3, 2, 3, 0, 4, 5],
                                             np.int32),
                      np.array([0, 3, 5, 7, 9, 12, 15]), np.arange(10, 70, 10))
FOLD = Fold(0, np.arange(5), np.array([], int), np.array([5]))
FILMS = pd.DataFrame({"movieId": SEQUENCES.catalogue, "genres": ["Horror", "War"] * 3})
VECTORS = np.array([[1, 0], [0, 1], [1, 1], [0, 0], [0, 0], [1, 2.0]], np.float32)


def reader():
    """A content model that knows nothing of films 3 and 4."""

    model = recommenders.create("minibert", pd.Series(dtype=str))
    model.remember(SEQUENCES)
    model.keep(normalize(VECTORS))
    return Bundle("minibert", model, SEQUENCES, FOLD,
                  others=(np.array([99, 98]), np.array([[1, 0], [0, 0.0]])))


def bundled(name, **settings):
    if name == "minibert":
        return reader()
    model = recommenders.create(name, **settings).fit(FOLD.parts(SEQUENCES)[0])
    return Bundle(name, model, SEQUENCES, FOLD)


ONE = bundled("item-knn")
SUMS = {"item-knn": {}, "user-knn": {}, "ease": {"l2": 1.0}, "svd": {"rank": 2}}


# --- who has spoken ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SUMS)
def test_of_films_that_nobody_has_seen_nothing_follows(name):
    one = bundled(name, **SUMS[name])
    found, how = explore.suggest(one, [50, 60], 3)
    assert how == "popular" and found["confidence"].isna().all()
    assert list(found["movieId"]) == [10, 20, 30]  # seen by three each, and film 40 by three, too
    assert list(found["score"]) == [600, 600, 600]
    assert explore.recommend(one, [4], 3).equals(explore.suggest(one, [50], 3)[0])
    found, how = explore.suggest(one, [50], 2, content=reader())
    assert how == "popular"  # of film 50 the content model knows nothing either
    found, how = explore.suggest(one, [60], 2, content=reader())
    assert how == "content" and list(found["movieId"]) == [30, 20]
    assert found["score"].to_numpy() == pytest.approx([3 / 10**0.5, 2 / 5**0.5])
    found, how = explore.suggest(one, [50, 10], 2)
    assert how == "model" and list(found["movieId"]) == ([30, 20] if name == "svd" else [20, 40])
    assert found["confidence"].sum() == pytest.approx(1)


def test_user_knn_speaks_of_films_of_its_neighbours_alone():
    assert explore.suggest(bundled("user-knn", neighbours=1), [10, 20], 6)[1] == "popular"
    found, how = explore.suggest(bundled("user-knn", neighbours=2), [10, 20], 6)
    assert how == "model" and list(found["movieId"]) == [30]


def test_scores_below_0_are_opinions():
    one = bundled("ease", l2=1.0)
    scores = one.recommender.score([np.array([1])])[0]
    assert scores[3] < 0
    found, how = explore.suggest(one, [20], 6)
    assert how == "model" and 40 in set(found["movieId"]) and len(found) == 5


def test_a_content_model_without_a_word_on_the_history_does_not_speak():
    one = reader()
    found, how = explore.suggest(one, [40], 3)
    assert how == "popular" and found["confidence"].isna().all()
    assert explore.suggest(one, [98], 3, content=one)[1] == "popular"  # a vector of zeros
    assert explore.suggest(one, [99], 1, content=one)[0]["movieId"].item() == 10
    found, how = explore.suggest(one, [10], 2)
    assert how == "model" and list(found["movieId"]) == [30, 60]


def test_a_model_may_speak_of_the_history_alone_if_it_is_all_there_is():
    one = bundled("ease", l2=1.0)
    found, how = explore.suggest(one, SEQUENCES.catalogue, 2, hide_seen=False)
    assert how == "model" and len(found) == 2
    assert explore.suggest(one, SEQUENCES.catalogue, 2)[0].empty


# --- what is asked -------------------------------------------------------------------------------

ASKED = {
    "neighbours: past the last": (lambda: space.neighbours(VECTORS, 6), r"item=6: .*0 to 5"),
    "neighbours: -1": (lambda: space.neighbours(VECTORS, -1), "item=-1: .*0 to 5"),
    "neighbours: 1.5": (lambda: space.neighbours(VECTORS, 1.5), "item=1.5"),
    "neighbours: None": (lambda: space.neighbours(VECTORS, None), "item=None"),
    "neighbours: True": (lambda: space.neighbours(VECTORS, True), "item=True"),
    "neighbours: a list": (lambda: space.neighbours(VECTORS, [1]), r"item=\[1\]"),
    "neighbours: no k": (lambda: space.neighbours(VECTORS, 1, None), "k=None: .*1 or more"),
    "neighbours: k 0": (lambda: space.neighbours(VECTORS, 1, 0), "k=0"),
    "layout: past the last": (lambda: space.layout(VECTORS, 6), r"item=6: .*0 to 5"),
    "layout: -1": (lambda: space.layout(VECTORS, -1), "item=-1"),
    "layout: 1.5": (lambda: space.layout(VECTORS, 1.5), "item=1.5"),
    "layout: None": (lambda: space.layout(VECTORS, None), "item=None"),
    "layout: True": (lambda: space.layout(VECTORS, True), "item=True"),
    "layout: a list": (lambda: space.layout(VECTORS, [1]), r"item=\[1\]"),
    "layout: no k": (lambda: space.layout(VECTORS, 1, None), "k=None"),
    "layout: seed 1.5": (lambda: space.layout(VECTORS, 1, 2, 1.5), "seed=1.5"),
    "layout: seed 'a'": (lambda: space.layout(VECTORS, 1, 2, "a"), "seed='a'"),
    "layout: seed 2^32": (lambda: space.layout(VECTORS, 1, 2, 2**32), "0 to 4294967295"),
    "explain: a list": (lambda: explore.explain(ONE, [0], [1]), r"item=\[1\]: .*0 to 5"),
    "explain: True": (lambda: explore.explain(ONE, [0], True), "item=True"),
    "explain: -1": (lambda: explore.explain(ONE, [0], -1), "item=-1"),
    "rank: a list": (lambda: explore.rank(ONE, [0], [1]), r"target=\[1\]: .*0 to 5"),
    "rank: True": (lambda: explore.rank(ONE, [0], True), "target=True"),
    "recommend: no k": (lambda: explore.recommend(ONE, [0], None), "k=None"),
    "genre: no length": (lambda: explore.random_genre_history(ONE, FILMS, "War", None),
                         "length=None: .*1 or more"),
    "genre: 1.5": (lambda: explore.random_genre_history(ONE, FILMS, "War", 1.5), "length=1.5"),
    "genre: '3'": (lambda: explore.random_genre_history(ONE, FILMS, "War", "3"), "length='3'"),
    "genre: True": (lambda: explore.random_genre_history(ONE, FILMS, "War", True), "length=True"),
    "genre: -1": (lambda: explore.random_genre_history(ONE, FILMS, "War", -1), "length=-1"),
    "genre: seed": (lambda: explore.random_genre_history(ONE, FILMS, "War", 1, "a"), "seed='a'"),
    "genre: no genres": (lambda: explore.random_genre_history(ONE, FILMS[["movieId"]], "War"),
                         "films without genres: .*columns movieId and genres"),
    "genre: no films": (lambda: explore.random_genre_history(ONE, None, "War"),
                        "films without movieId and genres"),
    "user: 1.5": (lambda: explore.random_test_user(ONE, 1.5), "seed=1.5"),
    "user: 'a'": (lambda: explore.random_test_user(ONE, "a"), "seed='a'"),
    "user: None": (lambda: explore.random_test_user(ONE, None), "seed=None"),
    "suggest: None": (lambda: explore.suggest(ONE, None), r"movies=None: .*\[movieId\]"),
    "suggest: 5": (lambda: explore.suggest(ONE, 5), "movies=5"),
    "suggest: an array of none": (lambda: explore.suggest(ONE, np.array(3)), "movies=array"),
    "suggest: a word": (lambda: explore.suggest(ONE, "10"), "movies='10'"),
    "suggest: True beside numbers": (lambda: explore.suggest(ONE, [10, True]), r"movies\[1\]=True"),
    "indices: 2^63": (lambda: ONE.indices(np.array([10, 2**63], np.uint64)),
                      r"movies\[1\]=.*9223372036854775808.*0 to 9223372036854775807"),
    "indices: 2^64": (lambda: ONE.indices([2**64]), r"movies\[0\]=18446744073709551616"),
    "indices: -1": (lambda: ONE.indices([-1]), r"movies\[0\]=-1"),
    "indices: floats": (lambda: ONE.indices([1.5]), r"movies\[0\]=1.5"),
    "indices: a list in it": (lambda: ONE.indices([10, [20]]), r"movies\[1\]=\[20\]"),
}


@pytest.mark.parametrize("case", ASKED)
def test_what_makes_no_sense_is_refused(case):
    ask, message = ASKED[case]
    with pytest.raises(ValueError, match=message):
        ask()


def test_whole_numbers_of_numpy_are_whole_numbers():
    near = space.neighbours(VECTORS, np.int64(2), np.uint8(2))
    assert list(near["item"]) == [5, 0]
    known, unknown = ONE.indices(np.array([60, 10, 70], np.uint64))
    assert known.tolist() == [5, 0] and unknown.tolist() == [70]
    assert ONE.indices(iter([]))[0].tolist() == []
    assert ONE.indices(pd.Series([20, 2**62]))[1].tolist() == [2**62]


def test_a_film_alone_has_no_neighbours():
    assert space.neighbours(VECTORS[:1], 0).empty
    assert space.layout(VECTORS[:1], 0).tolist() == [[0, 0, 0]]


def test_a_film_that_stands_twice_in_the_table_is_one_film():
    twice = pd.concat([FILMS, FILMS])
    one = replace(ONE, name="other")
    assert sorted(explore.random_genre_history(one, twice, "War", 9)) == [1, 3, 5]
