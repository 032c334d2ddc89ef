"""Trained models in files: what is kept, what is recommended, and why."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from sklearn.preprocessing import normalize

from nbrec import metrics, recommenders
from nbrec.data.movielens import MovieLens
from nbrec.evaluate import evaluate
from nbrec.models.item_knn import ItemKNN
from nbrec.play import bundle, explore, space
from nbrec.play.bundle import Bundle
from nbrec.preprocessing import SequenceSettings, build_sequences
from nbrec.profiles import Profile
from nbrec.sequences import Fold, Sequences

TINY = {"d_model": 16, "n_layers": 2, "max_epochs": 1, "learning_rate": 0.01}
PROFILE = Profile(
    "tiny", "made", SequenceSettings(min_length=3, min_rating=None), {"original": {}}, 5, (0,),
    {"item-knn": {}, "transformer": {"n_heads": 2, **TINY}, "mamba": TINY,
     "xlstm": {"n_heads": 4, **TINY}, "xlstm+gat": {"n_heads": 4, **TINY},
     "gat": {"max_epochs": 2}, "xlstm+gat+gat-user": {"n_heads": 4, **TINY}, "tfidf": {}})
NEURAL = ("transformer", "mamba", "xlstm", "xlstm+gat")


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    rows = [(u, 10 * m, 5.0, t) for u in range(1, 41)
            for t, m in enumerate(rng.choice(30, rng.integers(4, 12), replace=False) + 1)]
    ratings = pd.DataFrame(rows, columns=["userId", "movieId", "rating", "timestamp"])
    movies = pd.DataFrame({"movieId": range(10, 320, 10),
                           "title": [f"Film {i} (1999)" for i in range(31)],
                           "genres": ["Horror" if i % 3 == 0 else "Drama|War" for i in range(31)]})
    return MovieLens("made", ratings, movies, None, None, "", "", "")


@pytest.fixture(scope="module")
def made(data):
    return {name: bundle.train(name, PROFILE, 0, data) for name in (*NEURAL, "item-knn", "gat")}


def test_a_file_gives_the_same_model_back(made, tmp_path):
    for name, one in made.items():
        bundle.save(one, tmp_path)
        other = bundle.load(name, tmp_path)
        histories = [one.sequences[int(u)][:-1] for u in one.fold.test] + [np.array([3, 1])]
        np.testing.assert_array_equal(other.recommender.score(histories),
                                      one.recommender.score(histories))
        assert other.sequences.digest() == one.sequences.digest()
        np.testing.assert_array_equal(other.fold.test, one.fold.test)
        assert (other.metrics, other.settings) == (one.metrics, one.settings)
    assert bundle.available(tmp_path) == ["transformer", "mamba", "xlstm", "xlstm+gat",
                                          "item-knn", "gat"]


def test_nobody_is_trained_on_the_test_users(data, made):
    fold = made["item-knn"].fold
    assert not set(fold.test) & (set(fold.train) | set(fold.validation))
    test = made["item-knn"].sequences.users[fold.test]
    ratings = data.ratings.copy()
    # Their targets may be anything: the weights stay the same.
    last = ratings.groupby("userId")["timestamp"].transform("max") == ratings["timestamp"]
    rows = last & ratings["userId"].isin(test)
    assert rows.sum() == len(test)
    free = [sorted(set(ratings["movieId"]) - set(ratings["movieId"][ratings["userId"] == user]))
            for user in ratings.loc[rows, "userId"]]
    ratings.loc[rows, "movieId"] = [films[0] for films in free]
    assert (ratings["movieId"] != data.ratings["movieId"]).any()
    other = bundle.train("xlstm", PROFILE, 0, replace(data, ratings=ratings))
    for key, value in made["xlstm"].recommender.model.state_dict().items():
        assert torch.equal(value, other.recommender.model.state_dict()[key])


def test_weights_are_those_of_half_precision_and_hardly_move(made):
    for name in NEURAL:
        for weight in made[name].recommender.model.state_dict().values():
            assert torch.equal(weight, weight.half().float())
        assert 0 < made[name].metrics["rounding_score"] < 1e-2


def test_what_a_bundle_cannot_hold_is_refused(data, tmp_path):
    for name in ("xlstm+gat+gat-user", "tfidf"):
        with pytest.raises(ValueError, match="holds no"):
            bundle.train(name, PROFILE, 0, data)
    with pytest.raises(ValueError, match="no model 'oracle'"):
        bundle.train("oracle", PROFILE, 0, data)
    with pytest.raises(FileNotFoundError, match="python -m nbrec.play.bundle mamba"):
        bundle.load("mamba", tmp_path)
    (tmp_path / "mamba.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="delete it"):
        bundle.load("mamba", tmp_path)


class Fixed:
    """Scores that are given, whoever asks."""

    def __init__(self, scores):
        self.scores = np.array(scores, np.float32)

    def score(self, histories):
        return np.stack([self.scores] * len(histories))


def fixed(scores, **more):
    sequences = Sequences(np.arange(3), np.array([0, 1, 0, 2, 0, 1], np.int32),
                          np.array([0, 2, 4, 6]), np.array([5, 6, 7, 9]))
    return Bundle("fixed", Fixed(scores), sequences,
                  Fold(0, np.array([0, 1]), np.array([], int), np.array([2])), **more)


def test_confidence_is_the_softmax_of_the_films_shown():
    one = fixed(np.log([8, 1, 6, 2]))
    found = explore.recommend(one, [1], k=2)
    assert list(found["movieId"]) == [5, 7]
    assert found["confidence"].to_numpy() == pytest.approx([8 / 14, 6 / 14])
    assert list(explore.recommend(one, [0], k=2)["item"]) == [2, 3]
    assert list(explore.recommend(one, [0], k=2, hide_seen=False)["item"]) == [0, 2]
    assert len(explore.recommend(one, [0, 1, 2], k=9)) == 1
    assert len(explore.recommend(one, [0, 1, 2, 3], k=9)) == 0
    assert [explore.rank(one, [0], t) for t in (2, 3, 1)] == [1, 2, 3]
    assert explore.rank(one, [0], 2, hide_seen=False) == 2
    for history, k in (([4], 2), ([-1], 2), ([1], 0)):
        with pytest.raises(ValueError, match="expected"):
            explore.recommend(one, history, k)


def test_a_cold_start_is_popular_films_or_films_of_like_content():
    vectors = np.array([[1, 0], [0, 1], [0.6, 0.8], [-1, 0]], np.float32)
    reader = recommenders.create("minibert", pd.Series(dtype=str))
    reader.keep(normalize(vectors))
    content = fixed([0] * 4, others=(np.array([100, 200]), np.array([[0, 1], [1, 0.0]])))
    content = Bundle("minibert", reader, content.sequences, content.fold, others=content.others)
    one = fixed([1, 2, 3, 4])
    popular, how = explore.suggest(one, [], 1)
    assert (how, popular["movieId"].item()) == ("popular", 5)  # both training users have seen it
    similar, how = explore.suggest(one, [100, 555], 2, content=content)
    assert (how, list(similar["movieId"])) == ("content", [6, 7])
    assert similar["score"].to_numpy() == pytest.approx([1, 0.8])
    assert explore.suggest(one, [555], 1, content=content)[1] == "popular"
    usual, how = explore.suggest(one, [100, 9], 1, content=content)
    assert (how, usual["movieId"].item()) == ("model", 7)


def test_contributions_of_item_knn_sum_to_its_score(made):
    one = made["item-knn"]
    history = one.sequences[int(one.fold.test[0])][:-1]
    for item in explore.recommend(one, history, 3)["item"]:
        parts, how = explore.explain(one, history, item)
        assert how == "contributions" and list(parts["item"]) == list(history)
        assert parts["weight"].sum() == pytest.approx(one.recommender.score([history])[0, item])
        assert parts["weight"].max() > 0


def test_attention_is_that_of_the_last_position(made):
    one = made["transformer"]
    history = np.arange(7)
    parts, how = explore.explain(one, history, 20)
    network = one.recommender.model
    block = network.blocks[1]
    with torch.no_grad():
        h = network.blocks[0](network.inputs(torch.arange(7)[None]))[0]
        q, k = (h @ block.w_qkv.weight[16 * i : 16 * (i + 1)].T for i in (0, 1))
        heads = [(q[-1, a : a + 8] @ k[:, a : a + 8].T / 8**0.5).softmax(0) for a in (0, 8)]
    assert how == "attention"
    assert parts["weight"].to_numpy() == pytest.approx(torch.stack(heads).mean(0).numpy(), abs=1e-6)
    assert np.ptp(parts["weight"]) > 1e-3


def test_other_models_are_asked_without_each_film(made):
    one = made["mamba"]
    parts, how = explore.explain(one, [4, 2, 9], 12)
    score = one.recommender.score
    expected = score([np.array([4, 2, 9])])[0, 12] - score([np.array([4, 9])])[0, 12]
    assert how == "left out" and parts["weight"][1] == pytest.approx(expected, abs=1e-6)
    only, _ = explore.explain(one, [4], 12)
    row = score([np.array([4])])[0]
    assert only["weight"].item() == pytest.approx(row[12] - row.mean(), abs=1e-6)
    with pytest.raises(ValueError, match="empty"):
        explore.explain(one, [], 12)


def test_vectors_are_those_that_the_models_use(made):
    gat, hybrid, plain = (made[n].recommender for n in ("gat", "xlstm+gat", "xlstm"))
    np.testing.assert_array_equal(space.vectors(made["gat"]), gat.item_vectors())
    own = plain.model.embedding.weight.detach()
    np.testing.assert_array_equal(space.vectors(made["xlstm"]), own)
    joined = space.vectors(made["xlstm+gat"])
    e = hybrid.model.embedding.weight[3:4]
    with torch.no_grad():
        expected = hybrid.model.early(e, torch.tensor([3]))[0]
    np.testing.assert_allclose(joined[3], expected, atol=1e-6)
    with pytest.raises(ValueError, match="no vectors"):
        space.vectors(made["item-knn"])


def test_neighbours_and_their_places():
    angles = np.deg2rad([0, 10, 20, 60, 180, 95])
    vectors = 3 * np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    near = space.neighbours(vectors, 0, 4)
    assert list(near["item"]) == [1, 2, 3, 5]
    assert near["cosine"].to_numpy() == pytest.approx(np.cos(angles[[1, 2, 3, 5]]), abs=1e-6)
    places = space.layout(vectors, 0, 4)
    assert places[0] == pytest.approx([0, 0, 0])
    assert np.linalg.norm(places[1:], axis=1) == pytest.approx(1 - near["cosine"].to_numpy())
    np.testing.assert_array_equal(places, space.layout(vectors, 0, 4))


def test_films_that_are_alike_stand_side_by_side():
    rng = np.random.default_rng(0)
    centres = np.array([[1, 1, 0, 0, 0, 0], [1, 0, 1, 0, 0, 0], [1, 0, 0, 1, 0, 0.0]])
    groups = np.arange(15) % 3
    around = centres[groups] + 0.1 * rng.normal(size=(15, 6))
    vectors = np.concatenate([[[1, 0, 0, 0, 0, 0]], around])
    order = space.neighbours(vectors, 0, 15)["item"].to_numpy() - 1
    places = space.layout(vectors, 0, 15)[1:]
    unit = places / np.linalg.norm(places, axis=1, keepdims=True)
    alike = groups[order][:, None] == groups[order]
    cosines = unit @ unit.T
    own = ~np.eye(15, dtype=bool)
    assert cosines[alike & own].mean() > cosines[~alike].mean() + 0.3


def test_random_histories(made, data):
    one = made["item-knn"]
    drawn = {explore.random_test_user(one, seed)[0] for seed in range(50)}
    assert drawn == set(one.fold.test)
    user, history, target = explore.random_test_user(one, 3)
    assert [*history, target] == list(one.sequences[user])
    horror = explore.random_genre_history(one, data.movies, "Horror", 5, 0)
    genres = data.movies.set_index("movieId")["genres"]
    assert len(set(horror)) == 5 and set(genres[one.catalogue[horror]]) == {"Horror"}
    other = explore.random_genre_history(one, data.movies, "Horror", 5, 1)
    assert not np.array_equal(horror, other)
    with pytest.raises(ValueError, match="expected one of Drama, Horror, War"):
        explore.random_genre_history(one, data.movies, "Opera", 5, 0)


def test_the_embedded_models_are_small_and_of_data_that_may_be_passed_on():
    names = bundle.available()
    assert {*NEURAL, "item-knn", "gat", "lightgcn", "minibert"} <= set(names)
    assert sum(path.stat().st_size for path in bundle.FOLDER.iterdir()) < 12e6
    films = bundle.films()
    for name in names:
        one = bundle.load(name)
        assert one.settings["dataset"] == "ml-latest-small"
        assert set(one.catalogue) <= set(films["movieId"])
        histories = [one.sequences[int(u)][:-1] for u in one.fold.test]
        ranks = [explore.rank(one, h, int(one.sequences[int(u)][-1]))
                 for h, u in zip(histories, one.fold.test, strict=True)]
        assert np.mean(np.array(ranks) <= 20) == pytest.approx(one.metrics["hr@20"])
        assert one.metrics.get("rounding_score", 0) < 1e-2


def test_the_command_writes_films_and_models(data, tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit):  # ml-1m may not be passed on
        bundle.main(["item-knn", "--profile", "laptop"])
    assert "another --folder" in capsys.readouterr().err
    monkeypatch.setattr("nbrec.play.bundle.get_profile", lambda name: PROFILE)
    monkeypatch.setattr("nbrec.data.movielens.load", lambda name: data)
    bundle.main(["item-knn", "--folder", str(tmp_path)])
    assert bundle.available(tmp_path) == ["item-knn"] and len(bundle.films(tmp_path)) == 31
    assert "item-knn.safetensors" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        bundle.main(["oracle", "--folder", str(tmp_path)])


def test_a_bundle_whose_last_items_were_left_out_is_the_same_after_it_was_kept(data, tmp_path):
    profile = replace(PROFILE, leave_one_out=True)
    one = bundle.train("item-knn", profile, 0, data)
    bundle.save(one, tmp_path)
    other = bundle.load("item-knn", tmp_path)
    assert one.fold.leave_out and other.fold.leave_out
    test = one.fold.parts(one.sequences)[2]
    ranks = evaluate(one.recommender, test).ranks
    np.testing.assert_array_equal(evaluate(other.recommender, test).ranks, ranks)
    leaked = ItemKNN().fit(one.sequences)
    assert metrics.hit_rate(evaluate(leaked, test).ranks, 5) > metrics.hit_rate(ranks, 5) + 0.1
    np.testing.assert_array_equal(one.popularity, metrics.popularity(one.sequences.shorten(2)))


def test_ids_of_any_width_are_kept(tmp_path):
    users, films = [1, 2**31, 76561197960265728], [7, 2**31 - 1, 3_000_000_000]
    ratings = pd.DataFrame([(u, f, 5.0, t) for u in users for t, f in enumerate(films)],
                           columns=["userId", "movieId", "rating", "timestamp"])
    ratings["timestamp"] += 10**9
    sequences = build_sequences(ratings, replace(PROFILE.sequences, min_length=2))
    fold = Fold(0, np.array([0]), np.array([1]), np.array([2]))
    model = recommenders.create("item-knn").fit(fold.parts(sequences)[0])
    one = Bundle("item-knn", model, sequences, fold, {"model": {}})
    bundle.save(one, tmp_path)
    other = bundle.load("item-knn", tmp_path)
    assert other.sequences.users.tolist() == users and other.catalogue.tolist() == films
    assert other.indices([3_000_000_000, 5])[0].tolist() == [2]


@pytest.mark.parametrize("settings", [{}, {"neighbours": 3}, {"last_n": 2},
                                      {"neighbours": 1, "last_n": 3}])
def test_reasons_of_item_knn_add_up_to_the_score_exactly(data, settings):
    one = bundle.train("item-knn", replace(PROFILE, models={"item-knn": settings}), 0, data)
    for history in (one.sequences[int(one.fold.test[0])][:-1], [3, 1, 3], [2]):
        scores = one.recommender.score([np.array(history)])[0]
        for item in range(len(scores)):
            weights = explore.explain(one, history, item)[0]["weight"]
            assert weights.sum() == pytest.approx(scores[item], abs=1e-6)
        assert scores.max() > 0


def test_films_that_nobody_has_seen_together_are_no_recommendation(data):
    """Item 4 is in the catalogue, but no training user has it: nothing is known of it."""
    items = np.array([0, 1, 0, 2, 3, 4], np.int32)
    sequences = Sequences(np.arange(3), items, np.array([0, 2, 4, 6]), np.arange(10, 15))
    fold = Fold(0, np.array([0, 1]), np.array([], int), np.array([2]))
    one = Bundle("item-knn", ItemKNN().fit(sequences.select(fold.train)), sequences, fold)
    found, how = explore.suggest(one, [14], 3)
    assert how == "popular" and found["confidence"].isna().all()
    assert list(found["movieId"])[0] == 10 and list(found["score"])[0] == 1000  # all have seen it
    assert explore.recommend(one, [4], 3).equals(found)
    found, how = explore.suggest(one, [11, 14], 4)
    assert how == "model" and list(found["movieId"]) == [10] and list(found["confidence"]) == [1]
    reader = recommenders.create("minibert", pd.Series(dtype=str))
    reader.keep(normalize(np.array([[1, 0], [0, 1], [1, 1], [1, 0.1], [0.1, 1]])))
    content = Bundle("minibert", reader, sequences, fold,
                     others=(np.array([99]), np.array([[1.0, 0]])))
    found, how = explore.suggest(one, [14], 2, content=content)
    assert how == "content" and list(found["movieId"]) == [11, 12]
    found, how = explore.suggest(one, [14], 1, hide_seen=False, content=content)
    assert how == "content" and list(found["movieId"]) == [14]


def test_an_empty_history_has_no_confidence(made):
    for one in made.values():
        found = explore.recommend(one, [], 3)
        assert found["confidence"].isna().all() and (found["score"] > 0).all()


def opened(path):
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["bundle"]), {k: file.get_tensor(k) for k in file.keys()}


def without(key):
    return lambda meta, tensors: (meta if key in meta else tensors).pop(key)


def meta(**changes):
    return lambda meta, tensors: meta.update(changes)


def model(**changes):
    return lambda meta, tensors: meta["settings"]["model"].update(changes)


def tensor(key, change):
    return lambda meta, tensors: tensors.update({key: change(tensors[key])})


EMBEDDING = "model/embedding.weight"
DAMAGE = {  # what was done to a file, and what is said of it
    **{f"no {key}": (without(key), f"KeyError: '{key}'") for key in (
        "schema", "name", "fold", "leave_out", "settings", "metrics", "provenance")},
    "no model": (lambda meta, tensors: meta["settings"].pop("model"), "KeyError: 'model'"),
    "no users": (without("data/users"), "KeyError: 'users'"),
    "no test": (without("data/test"), "KeyError: 'test'"),
    "a weight is missing": (without(EMBEDDING), "embedding.weight"),
    "another schema": (meta(schema=1), "schema 1"),
    "another name": (meta(name="mamba"), "of 'mamba': expected 2 of 'xlstm.gat'"),
    "a name that is none": (meta(name=["xlstm"]), "expected 2 of 'xlstm.gat'"),
    "a fold in words": (meta(fold="first"), "fold='first'"),
    "leave_out in words": (meta(leave_out="no"), "leave_out='no'"),
    "leave_out as a number": (meta(leave_out=1), "leave_out=1"),
    "settings of another kind": (meta(settings=[1]), r"settings=\[1\]"),
    "no table of settings": (meta(settings={"model": [3]}), "Error"),
    "metrics of another kind": (meta(metrics=None), "metrics=None"),
    "metrics in words": (meta(metrics={"hr@20": "high"}), "hr@20='high'"),
    "metrics that are not finite": (meta(metrics={"hr@20": float("nan")}), "hr@20=nan"),
    "provenance of another kind": (meta(provenance="here"), "provenance='here'"),
    "an unknown setting": (model(colour=3), "colour"),
    "a setting out of range": (model(n_heads=0), "n_heads"),
    "a wrong width": (model(d_model=32), "size mismatch"),
    "a wrong number of layers": (model(n_layers=1), "Unexpected key"),
    "too many films": (tensor(EMBEDDING, lambda w: torch.cat([w, w])), "size mismatch"),
    "a NaN": (tensor(EMBEDDING, lambda w: w * float("nan")), "embedding.weight .* not finite"),
    "films of a context": (tensor("model/early.frozen_gat", lambda w: w[:3]),
                           "vectors of gat .*expected 30 rows"),
    "users as floats": (tensor("data/users", lambda u: u.float() + 0.5), "users is .*float32"),
    "offsets of others": (tensor("data/offsets", lambda o: o[:-1]), "offsets"),
    "items outside": (tensor("data/items", lambda i: i + 7), "expected 0..29"),
    "a test user who is not there": (tensor("data/test", lambda t: t + 40), "user position"),
    "a test user who is trained on": (lambda meta, tensors: tensors.update(
        {"data/test": tensors["data/train"].clone()}), "nobody in two parts"),
    "nobody to train on": (tensor("data/train", lambda t: t[:0]), "0 users to train"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_file_is_refused_by_name(made, tmp_path, case):
    path = bundle.save(made["xlstm+gat"], tmp_path)
    facts, tensors = opened(path)
    damage, said = DAMAGE[case]
    damage(facts, tensors)
    save_file(tensors, path, metadata={"bundle": json.dumps(facts)})
    said = rf"xlstm\+gat\.safetensors is no bundle .*{said}"
    with pytest.raises(ValueError, match=said) as found:
        bundle.load("xlstm+gat", tmp_path)
    assert str(found.value).endswith("run `python -m nbrec.play.bundle xlstm+gat`")
    assert "\n" not in str(found.value)


def test_files_of_others_are_refused(made, tmp_path):
    path = bundle.save(made["item-knn"], tmp_path)
    whole, (_, tensors) = path.read_bytes(), opened(path)
    for content in (b"", b"nothing", whole[:100], whole[:-5]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="item-knn.safetensors is no bundle.*delete it"):
            bundle.load("item-knn", tmp_path)
    for metadata in (None, {}, {"bundle": "no JSON"}, {"bundle": "[1]"}, {"bundle": "[" * 5000}):
        save_file(tensors, path, metadata=metadata)
        with pytest.raises(ValueError, match="item-knn.safetensors is no bundle.*delete it"):
            bundle.load("item-knn", tmp_path)
    path.unlink()
    path.mkdir()
    with pytest.raises(ValueError, match="item-knn.safetensors is no bundle.*delete it"):
        bundle.load("item-knn", tmp_path)


def test_content_vectors_belong_to_the_films(tmp_path):
    reader = recommenders.create("minibert", pd.Series(dtype=str))
    reader.keep(normalize(np.array([[1, 0], [0, 1], [0.6, 0.8], [-1, 0]], np.float32)))
    one = replace(fixed([0] * 4), name="minibert", recommender=reader, settings={"model": {}},
                  others=(np.array([100, 200]), np.array([[0, 1], [1, 0.0]])))
    path = bundle.save(one, tmp_path)
    other = bundle.load("minibert", tmp_path)
    np.testing.assert_allclose(other.recommender.vectors, reader.vectors, atol=0.02)
    assert other.others[0].tolist() == [100, 200] and other.others[1].tolist() == [[0, 1], [1, 0]]
    for key in ("model/vectors", "others/vectors"):
        facts, tensors = opened(path)
        save_file(tensors | {key: tensors[key][:1]}, path, metadata={"bundle": json.dumps(facts)})
        with pytest.raises(ValueError, match=r"content vectors of shape \(1, 2\): expected [24]"):
            bundle.load("minibert", tmp_path)
        save_file(tensors, path, metadata={"bundle": json.dumps(facts)})


def test_a_label_of_the_profile_is_the_model_that_it_names(data, tmp_path):
    profile = replace(PROFILE, models={
        "item-knn": {}, "mine": {"model": "item-knn", "neighbours": 2},
        "flat": {"model": "gat", "max_epochs": 1, "inductive": True},
        "both": {"model": "xlstm+gat", "contexts": {"gat": "flat"}, "n_heads": 4, **TINY},
        "half": {"model": "item-knn", "train_share": 0.5},
        "lost": {"model": "xlstm+gat", "n_heads": 4, **TINY},
        "mixed": {"model": "xlstm+gat", "contexts": {"gat": "mine"}, "n_heads": 4, **TINY},
        "words": {"model": "tfidf"}})
    histories = [np.array([3, 1]), np.array([7])]
    for label in ("mine", "flat", "both"):
        one = bundle.train(label, profile, 0, data)
        assert bundle.save(one, tmp_path).name == f"{label}.safetensors"
        scores = bundle.load(label, tmp_path).recommender.score(histories)
        np.testing.assert_array_equal(scores, one.recommender.score(histories))
        if label == "mine":
            again = ItemKNN(neighbours=2).fit(one.fold.parts(one.sequences)[0])
            np.testing.assert_array_equal(scores, again.score(histories))
    assert one.recommender.contexts["gat"].inductive
    for label, message in (("half", "half: .*without a train_share"),
                           ("lost", "no model 'gat' that is gat, of which lost is made"),
                           ("mixed", "no model 'mine' that is gat, of which mixed is made"),
                           ("words", "words: a bundle holds no")):
        with pytest.raises(ValueError, match=message):
            bundle.train(label, profile, 0, data)


@pytest.mark.parametrize("asked, message", [
    (["item-knn", "tfidf"], "tfidf: a bundle holds no"), (["item-knn", "--fold", "77"], "fold=77"),
    (["item-knn", "oracle"], "no model 'oracle'"), (["item-knn", "minibert"], "minibert is left")])
def test_what_cannot_be_made_is_said_before_anything_is_written(monkeypatch, tmp_path, capsys,
                                                                asked, message):
    profile = replace(PROFILE, models=PROFILE.models | {"minibert": {}})
    monkeypatch.setattr("nbrec.play.bundle.get_profile", lambda name: profile)
    monkeypatch.setattr("nbrec.data.encoders.find_weights", lambda name: None)
    monkeypatch.setattr("nbrec.data.movielens.load", lambda name: pytest.fail("data were loaded"))
    with pytest.raises(SystemExit) as stopped:
        bundle.main([*asked, "--folder", str(tmp_path / "new")])
    assert stopped.value.code == 2 and message in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_films_are_written_whole_or_not_at_all(data, monkeypatch, tmp_path):
    monkeypatch.setattr("nbrec.play.bundle.get_profile", lambda name: PROFILE)
    monkeypatch.setattr("nbrec.data.movielens.load", lambda name: data)
    bundle.main(["item-knn", "--folder", str(tmp_path)])
    before = (tmp_path / bundle.FILMS).read_bytes()
    assert bundle.films(tmp_path).equals(data.movies)

    def full(self, content):
        raise OSError("no space left")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(OSError, match="no space"):
        bundle.main(["item-knn", "--folder", str(tmp_path)])
    assert (tmp_path / bundle.FILMS).read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["films.csv.gz", "item-knn.safetensors"]
