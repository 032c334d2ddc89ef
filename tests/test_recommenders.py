"""Names, settings and batches of recommenders."""

import re

import numpy as np
import pandas as pd
import pytest
import torch

from nbrec import recommenders
from nbrec.sequences import Sequences


def data(users=25, n_items=12):
    rng = np.random.default_rng(0)
    parts = [rng.integers(0, n_items, rng.integers(2, 14)) for _ in range(users)]
    offsets = np.concatenate(([0], np.cumsum([len(p) for p in parts])))
    return Sequences(np.arange(users), np.concatenate(parts).astype(np.int32), offsets,
                     np.arange(n_items))


DOCUMENTS = pd.Series([f"a film about {'war love space ghost'.split()[i % 4]} and {i}"
                       for i in range(12)])


@pytest.fixture(scope="module")
def fitted():
    return recommenders.create("transformer", d_model=8, n_heads=2, max_length=6, max_epochs=1,
                               learning_rate=0.01).fit(data(), data())


def test_a_setting_that_no_model_has_is_refused_before_training():
    for name in (*recommenders.names(), "xlstm+gat", "mamba-attention"):
        with pytest.raises(ValueError, match=f"{re.escape(name)} has no setting depth; expected"):
            recommenders.create(name, DOCUMENTS, depth=3)


def test_settings_reach_the_model_and_the_training(fitted):
    assert fitted.model.embedding.weight.shape == (12, 8) and fitted.model.blocks[0].n_heads == 2
    assert fitted.train_settings.learning_rate == 0.01 and len(fitted.curve.seconds) == 1


def test_scores_come_back_in_the_order_of_the_histories(fitted):
    histories = data().histories()
    whole = fitted.score(histories)
    fitted.batch_size = 4
    try:
        assert fitted.score(histories) == pytest.approx(whole, abs=1e-5)
    finally:
        fitted.batch_size = 256
    for history, row in zip(histories, whole, strict=True):
        items = torch.from_numpy(history[-6:].astype(np.int64))  # max_length
        with torch.no_grad():
            plain = fitted.model.output(fitted.model(items[None])[0, -1])
        assert row == pytest.approx(plain.numpy(), abs=1e-5)
    assert np.ptp(whole, axis=0).max() > 1e-3  # rows differ, so their order can be seen


def test_the_callers_seed_does_not_matter():
    scores = []
    for outside in (1, 2):
        torch.manual_seed(outside)
        np.random.seed(outside)
        scores.append(recommenders.create("transformer", d_model=8, n_heads=2, max_epochs=1)
                      .fit(data(), data()).score(data().histories()))
    assert np.array_equal(*scores)


@pytest.mark.parametrize("name", [*recommenders.names(), "mamba+gcn+gcn-user"])
def test_no_histories_give_no_scores(name):
    if reason := recommenders.missing(name):
        pytest.skip(reason)
    trained = name not in recommenders.names("classical", "content")
    kw = {"d_model": 8, "max_epochs": 1} if trained else {"rank": 3} if name == "svd" else {}
    model = recommenders.create(name, DOCUMENTS, **kw).fit(data(), data())
    assert model.score([]).shape == (0, 12)


def test_scores_before_training_are_refused():
    with pytest.raises(RuntimeError, match="call fit first"):
        recommenders.create("mamba", d_model=8).score([np.array([1])])


@pytest.mark.parametrize("name, parts", [
    ("svd", ("svd", (), "", False)),
    ("gat", ("gat", (), "", False)),
    ("xlstm+gat", ("xlstm", ("gat",), "", False)),
    ("transformer+minibert+gat", ("transformer", ("minibert", "gat"), "", False)),
    ("mamba+gat+lightgcn-user", ("mamba", ("gat",), "lightgcn", False)),
    ("xlstm+gat-user-literal", ("xlstm", (), "gat", True)),
    ("attention-mamba-mamba-attention+tfidf",
     ("attention-mamba-mamba-attention", ("tfidf",), "", False)),
])
def test_names_are_taken_apart(name, parts):
    found = recommenders.parse(name)
    assert (found.base, found.items, found.user, found.literal) == parts
    assert found.contexts == tuple(dict.fromkeys([*parts[1], *([parts[2]] if parts[2] else [])]))


@pytest.mark.parametrize("name", [
    "", "bert", "xlstm+", "xlstm+bert", "gat+xlstm", "svd+gat", "xlstm+gat+gat", "xlstm gat",
    "xlstm+gat-user+gcn-user", "xlstm+-user", "attention", "attention-lstm", "mamba+gat-users",
])
def test_what_is_no_name_is_refused_with_all_that_are(name):
    with pytest.raises(ValueError) as error:
        recommenders.create(name, DOCUMENTS)
    for word in (repr(name), "item-knn", "modernbert", "lightgcn", "xlstm", "slstm", "-user"):
        assert word in str(error.value)


def test_models_that_read_need_documents_and_weights(monkeypatch):
    for name in ("tfidf", "mamba+minibert"):
        with pytest.raises(ValueError, match="documents of the films"):
            recommenders.create(name)
    monkeypatch.setattr(recommenders.encoders, "find_weights", lambda encoder: None)
    assert "answerdotai/ModernBERT-base" in recommenders.missing("xlstm+gat+modernbert")
    assert recommenders.missing("xlstm+gat+tfidf") == recommenders.missing("svd") == ""


def test_settings_of_contexts_are_told_apart():
    def told(**context):
        made = recommenders.create("gat", **context)
        return recommenders.create("mamba+gat", contexts={"gat": made}).describe()

    assert told(dropout=0.5) == told() and told(dropout=0.4) != told() != told(seed=3)
    assert told()["contexts"]["gat"]["n_heads"] == 4
    documents = [recommenders.create("tfidf", d).describe() for d in (DOCUMENTS, DOCUMENTS[::-1])]
    assert documents[0] != documents[1]


def test_a_context_that_is_fitted_is_not_fitted_again():
    context = recommenders.create("lightgcn", max_epochs=2).fit(data(), data())
    before = context.item_vectors().clone()
    hybrid = recommenders.create("mamba+lightgcn", contexts={"lightgcn": context}, d_model=8,
                                 max_epochs=1).fit(data(), data())
    assert torch.equal(hybrid.model.early.frozen_lightgcn, before)
    assert len(context.curve.seconds) == 2
    assert hybrid.contexts["lightgcn"].seconds == sum(context.curve.seconds)


def test_a_film_without_a_document_scores_nothing():
    model = recommenders.create("tfidf", DOCUMENTS.drop([5])).fit(data())
    scores = model.score([np.array([1])])[0]
    assert scores[5] == 0 and scores[1] == pytest.approx(1) and scores[9] > 0
    assert not model.item_vectors()[5].any()


def held_out():
    """Other users than those of ``data``, with distinct histories."""
    parts = [np.array(p, np.int32) for p in ([0, 5, 7, 2], [9, 1, 4], [3, 8, 11, 6, 10])]
    return Sequences(np.arange(3) + 90, np.concatenate(parts), np.array([0, 4, 7, 12]),
                     np.arange(12))


@pytest.mark.parametrize("inductive, users", [(False, 25 + 3 + 2), (True, 25)])
def test_the_graph_of_a_context_holds_all_histories_that_are_known(inductive, users):
    """Dropped others would be in no graph, and be scored as newcomers, unseen by any test."""
    others = [np.array([0, 11]), np.array([5, 6, 10])]
    context = recommenders.create("lightgcn", max_epochs=1, d_model=4, inductive=inductive)
    hybrid = recommenders.create("mamba+lightgcn", contexts={"lightgcn": context}, d_model=8,
                                 max_epochs=1).fit(data(), held_out(), others=others)
    seen = hybrid.contexts["lightgcn"].model.graph.interactions.toarray()
    assert len(seen) == users
    known = held_out().histories() + others
    for row, history in zip(seen[25:], known, strict=False):
        assert np.flatnonzero(row).tolist() == sorted(history)


class Told:
    """A context whose vectors say what it was asked."""

    seconds, curve, catalogue = 0.0, None, None

    def __init__(self):
        self.asked = []

    def fit(self, train, validation=None):
        self.catalogue = train.catalogue

    def describe(self):
        return {}

    def user_vectors(self, histories, fold_in=True):
        self.asked.append(([list(map(int, h)) for h in histories], fold_in))
        rng = np.random.default_rng(0)
        table = rng.normal(size=(12, 3)) + (5 if fold_in else 0)
        return torch.from_numpy(np.array([table[np.asarray(h)].sum(0) for h in histories])).float()


@pytest.mark.parametrize("form, fold_in", [("gat-user", True), ("gat-user-literal", False)])
def test_only_a_literal_late_fusion_takes_users_as_the_graph_has_them(form, fold_in):
    told = Told()
    fitted = recommenders.create(f"transformer+{form}", contexts={"gat": told}, d_model=8,
                                 n_heads=2, max_epochs=1).fit(data(), held_out())
    train, held = data(), held_out()
    whole = [train[u].tolist() for u in range(len(train))]
    histories = [h.tolist() for h in held.histories()]
    asked = [a for a in told.asked if len(a[0]) > 1]  # one alone tells the width
    if fold_in:
        prefixes = [[s[: t + 1] for s in part for t in range(len(s))]
                    for part in (whole, [held[u].tolist() for u in range(3)])]
        assert asked == [(part, True) for part in prefixes]
    else:  # of those who are held out the graph must not know the target
        assert asked == [(whole, False), (histories, False)]
    del told.asked[:]
    scores = fitted.score(held.histories())
    assert told.asked == [(histories, fold_in)]
    by_hand, other = (fitted.model.score_histories(held.histories(),
                                                   told.user_vectors(histories, way))
                      for way in (fold_in, not fold_in))
    assert np.array_equal(scores, by_hand)
    assert np.abs(scores - other).max() > 1e-3


def test_literal_vectors_stand_at_every_item_of_their_user():
    told = Told()
    fitted = recommenders.create("transformer+gat-user-literal", contexts={"gat": told}, d_model=8,
                                 n_heads=2, max_epochs=1).fit(data(), held_out())
    held = held_out()
    for train, known in ((True, [held[u] for u in range(3)]), (False, held.histories())):
        vectors = fitted._user_vectors(held, train=train)
        expected = told.user_vectors(known, False).numpy()
        assert np.array_equal(vectors, expected[[0] * 4 + [1] * 3 + [2] * 5])


def small(name, documents=DOCUMENTS, **more):
    """A model at the smallest size."""
    entry = recommenders.models_in(name)[0]
    sizes = {"d_model": 8, "max_epochs": 1} if entry.trained else {}
    return recommenders.create(name, documents, **sizes, **({"rank": 3} if name == "svd" else {}),
                               **more)


def films():
    """Films whose movieIds are no indices."""
    d = data()
    return Sequences(d.users, d.items, d.offsets, 100 + 7 * np.arange(12))


@pytest.mark.parametrize("name", [*recommenders.names(), "mamba+gcn+gcn-user", "mamba-attention"])
def test_the_training_part_alone_is_enough_to_recommend(name):
    if reason := recommenders.missing(name):
        pytest.skip(reason)
    train = films()
    model = small(name, DOCUMENTS.set_axis(train.catalogue))
    with pytest.raises(RuntimeError, match="call fit first"):
        model.recommend([100])
    model.fit(train)
    seen, scores = [107, 142, 121], model.score([np.array([1, 6, 3])])[0]
    table = model.recommend(seen, 4)
    assert list(table) == ["movieId", "score"] and len(table) == 4
    assert not set(table["movieId"]) & set(seen)
    index = (table["movieId"].to_numpy() - 100) // 7
    assert np.array_equal(table["score"].to_numpy(), scores[index])
    others = np.delete(scores, [1, 6, 3])
    assert np.array_equal(table["score"].to_numpy(), np.sort(others)[::-1][:4])
    assert len(model.recommend(seen, 50)) == 9  # all that is left
    popular = model.recommend([], 12)
    counts = np.bincount(train.items, minlength=12)
    assert popular["movieId"].iloc[0] == 100 + 7 * counts.argmax()
    assert popular["score"].is_monotonic_decreasing
    with pytest.raises(ValueError, match="movieIds 5, 1000: expected some of the 12 films"):
        model.recommend([107, 5, 1000])
    with pytest.raises(ValueError, match="k=0"):
        model.recommend(seen, 0)


def test_what_popular_films_score():
    train = Sequences(np.arange(4), np.array([0, 1, 0, 2, 0, 1, 1, 2], np.int32),
                      np.array([0, 2, 4, 6, 8]), np.array([10, 20, 30]))
    table = recommenders.create("item-knn").fit(train).recommend([])
    assert table.to_dict("list") == {"movieId": [10, 20, 30], "score": [750, 750, 500]}


def test_a_tenth_of_the_training_users_is_held_out_by_the_seed():
    train = data()
    parts = [small("mamba", seed=seed).split(train, None) for seed in (0, 0, 1)]
    for kept, held in parts:
        assert len(held) == 2 and len(kept) == 23  # a tenth of 25
        assert sorted([*kept.users, *held.users]) == list(train.users)
    held = [part.users.tolist() for _, part in parts]
    assert held[0] == held[1] != held[2]
    kept, held = parts[0]
    alone, told = small("mamba").fit(train), small("mamba").fit(kept, held)
    histories = train.histories()
    assert np.array_equal(alone.score(histories), told.score(histories))
    assert len(small("mamba").split(train.select([0, 1]), None)[1]) == 1
    with pytest.raises(ValueError, match="1 training users: expected two or more"):
        small("mamba").fit(train.select([0]))


@pytest.mark.parametrize("name, settings", [
    ("popularity", {}), ("markov", {"smoothing": 10.0}), ("ease", {"l2": 250.0}),
    ("item-knn", {"last_n": None, "neighbours": None, "shrinkage": 0.0}),
    ("user-knn", {"neighbours": 50, "shrinkage": 0.0}), ("svd", {"rank": 3, "seed": 0}),
])
def test_classical_models_describe_all_their_settings_before_and_after(name, settings):
    model = small(name)
    assert model.describe() == settings == model.fit(data()).describe()


def test_a_context_that_was_created_by_another_name_is_refused():
    with pytest.raises(ValueError, match="'gat' of mamba.gat is gcn: expected"):
        recommenders.create("mamba+gat", contexts={"gat": recommenders.create("gcn")})


@pytest.mark.parametrize("name, given", [("mamba+gat", "gcn"), ("mamba", "gat")])
def test_a_context_that_a_name_does_not_have_is_refused(name, given):
    expected = "gat" if "gat" in name else "no contexts"
    with pytest.raises(ValueError, match=f"not joined with '{given}': expected {expected}"):
        recommenders.create(name, contexts={given: recommenders.create(given)})


@pytest.mark.parametrize("name, breaks", [
    ("popularity", "interactions"), ("ease", "interactions"), ("item-knn", "product"),
    ("user-knn", "interactions"), ("svd", "np.ascontiguousarray"), ("markov", "np.bincount"),
    ("tfidf", "Content"),
])
def test_a_fit_that_failed_half_way_does_not_pass_for_fitted(monkeypatch, name, breaks):
    model = small(name)

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(f"{type(model).__module__}.{breaks}", stop)
    with pytest.raises(KeyboardInterrupt):
        model.fit(data())
    monkeypatch.undo()
    with pytest.raises(RuntimeError, match="call fit first"):
        model.recommend([])


@pytest.mark.parametrize("wrong, message", [
    ({"build": 3}, "build=3: expected a class or a function"),
    ({"colour": "red"}, "colour='red': expected '#rrggbb'"),
])
def test_an_entry_that_nothing_can_be_made_of_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        recommenders.Model(**{"build": dict, "kind": "classical", "label": "Own"} | wrong)


def test_what_a_context_has_to_answer():
    from nbrec.models.recommender import Context

    assert [name for name in recommenders.names() if not recommenders.missing(name)
            and isinstance(small(name), Context)] == [
        name for name in recommenders.names("content", "graph") if not recommenders.missing(name)]
    assert not isinstance(small("svd"), Context)
