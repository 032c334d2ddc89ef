"""Whatever comes in ends in a right answer or in a ValueError that says what was expected."""

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbrec import checks, experiment, recommenders
from nbrec.book import growth, ties
from nbrec.data.movielens import MovieLens
from nbrec.evaluate import evaluate, top_items
from nbrec.metrics import personalisation, popularity, target_ranks
from nbrec.models.graph import Graph
from nbrec.models.sparse import history_matrix
from nbrec.play import bundle
from nbrec.profiles import Profile
from nbrec.sequences import Sequences
from nbrec.train import TrainSettings

V = 12
TINY = {"d_model": 8, "max_epochs": 1, "batch_size": 8, "device": "cpu"}
HEADS = {"n_heads": 2, **TINY}
NAMES = {"popularity": {}, "markov": {}, "ease": {}, "item-knn": {}, "user-knn": {},
         "svd": {"rank": 3}, "tfidf": {}, "gcn": TINY, "lightgcn": TINY, "gat": HEADS,
         "transformer": HEADS, "sasrec": TINY, "mamba": TINY, "mamba4rec": TINY, "xlstm": HEADS,
         "attention-slstm": HEADS, "xlstm+lightgcn": HEADS, "mamba+tfidf+tfidf-user": TINY,
         "transformer+gat+gat-user-literal": HEADS}


def sequences(catalogue=V, seed=0):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, 8, 30)
    items = np.concatenate([rng.choice(V, n, replace=False) for n in lengths]).astype(np.int32)
    return Sequences(np.arange(30), items, np.concatenate(([0], np.cumsum(lengths))),
                     np.arange(10, 10 * catalogue + 10, 10))


@pytest.fixture(scope="module")
def fitted():
    data = sequences()
    documents = pd.Series([f"film {chr(97 + i) * 3}" for i in range(V)], index=data.catalogue)
    parts = data.select(np.arange(20)), data.select(np.arange(20, 30))
    return {name: recommenders.create(name, documents, **options).fit(*parts)
            for name, options in NAMES.items()}


HISTORIES = {
    "not in the catalogue": ([[3, -1]], r"history 0 has -1 at position 1: expected .* 0\.\.11"),
    "a movieId": ([[3], [3, 5, 1_000_000]], r"history 1 has 1000000 at position 2.*movieIds"),
    "beyond 32 bits": ([[2**40]], r"history 0 has 1099511627776 at position 0"),
    "beyond 64 bits": ([[2**70]], "history 0 is .*object"),
    "parts of films": ([[1.5]], "history 0 is .*float64"),
    "whole numbers as floats": ([np.array([1.0])], "history 0 is .*float64"),
    "truth values": ([[True, False]], "history 0 is .*bool"),
    "text": ([["3"]], "history 0 is .*<U1"),
    "a word": (["abc"], "history 0 is 'abc'"),
    "nothing": ([[1], []], "history 1 is empty"),
    "two dimensions": ([[[1, 2]]], "history 0 is 2-dimensional"),
    "ragged": ([[[1, 2], [3]]], "history 0 is"),
    "one history for a list": (np.array([1, 2, 3]), r"make \[history\]"),
    "one list for a list of lists": ([1, 2, 3], r"history 0 is 1.*make \[history\]"),
    "None": (None, "expected a list of histories"),
    "a set, which has no order": ([{1, 2}], "history 0 is {1, 2}"),
    "a table of names": ([{1: 2}], "history 0 is {1: 2}"),
    "a stream, which is read once": ([iter([1, 2])], "history 0 is <list_iterator"),
    "a number for a list": (np.array(3), r"make \[history\]"),
}


@pytest.mark.parametrize("given, message", HISTORIES.values(), ids=HISTORIES)
def test_no_model_scores_what_is_no_history(fitted, given, message):
    for name, model in fitted.items():
        with pytest.raises(ValueError, match=message):
            model.score(given)
            pytest.fail(name)


def test_every_integer_type_and_every_kind_of_list_means_the_same(fitted):
    for model in fitted.values():
        expected = model.score([np.array([3, 1], np.int32), np.array([7], np.int32)])
        for same in ([[3, 1], [7]], [(3, 1), np.array([7], np.uint64)], ((3, 1), (7,)),
                     [np.array([3, 1], np.int8), pd.Series([7])]):
            np.testing.assert_allclose(model.score(same), expected, atol=1e-5)
        assert model.score([]).shape == (0, V)


ODD = st.one_of(st.integers(-3, V + 2), st.integers(), st.floats(), st.none(), st.text(max_size=2),
                st.booleans())
LISTS = st.one_of(st.lists(st.lists(ODD, max_size=4), max_size=3), st.lists(ODD, max_size=4), ODD)


@settings(max_examples=60, deadline=None)
@given(LISTS)
def test_histories_are_right_or_refused(given):
    try:
        items, offsets = checks.histories(given, V)
    except ValueError as error:
        assert re.search("expected|give", str(error))
        return
    assert [items[a:b].tolist() for a, b in zip(offsets, offsets[1:], strict=False)] == given
    assert all(type(i) is int and 0 <= i < V for history in given for i in history)


@settings(max_examples=30, deadline=None)
@given(LISTS.filter(lambda given: given is not None))  # which leaves nobody's films out
def test_seen_items_and_graphs_are_right_or_refused(given):
    scores = np.tile(np.arange(float(V)), (len(given) if isinstance(given, list) else 1, 1))
    try:
        expected = [set(history) for history in checks.histories(given, V, empty=True) and given]
    except ValueError as error:
        for use in (lambda: target_ranks(scores, np.zeros(len(scores), int), given),
                    lambda: top_items(scores, 3, given), lambda: Graph(given, V)):
            with pytest.raises(ValueError, match=re.escape(str(error))):
                use()
        return
    assert [set(np.flatnonzero(row)) for row in history_matrix(given, V, empty=True).toarray()
            ] == expected
    best = [[i for i in range(V)[::-1] if i not in seen][:3] for seen in expected]
    assert top_items(scores, 3, given).tolist() == best
    ranks = [V - len(seen - {0}) for seen in expected]  # the target 0 has the lowest score
    assert target_ranks(scores, np.zeros(len(scores), int), given).tolist() == ranks


def test_a_graph_may_have_users_without_films():
    graph = Graph([np.array([1, 2]), []], V)
    assert graph.interactions.toarray().sum(1).tolist() == [2, 0]


def test_more_items_than_there_are_means_all():
    assert top_items(np.array([[0.1, 0.3, 0.2]]), 9).tolist() == [[1, 2, 0]]
    for k in (0, -1, 1.5, None):
        with pytest.raises(ValueError, match=f"k={k}: expected a whole number, 1 or more"):
            top_items(np.zeros((1, 3)), k)


def test_train_and_validation_share_one_catalogue():
    data, other = sequences(), sequences()
    other = Sequences(other.users, other.items, other.offsets, other.catalogue + 1)
    model = recommenders.create("transformer", **HEADS)
    with pytest.raises(ValueError, match="index 0 is movieId 10 in the training and 11 in the"):
        model.fit(data, other)
    network = recommenders.create("gat", **TINY, n_heads=2)
    with pytest.raises(ValueError, match="expected one catalogue"):
        network.fit(data, other)


def test_a_model_that_was_not_fitted_says_so(fitted):
    documents = pd.Series(["a"] * V, index=sequences().catalogue)
    for name, options in NAMES.items():
        with pytest.raises(RuntimeError, match="call fit first"):
            recommenders.create(name, documents, **options).score([[1]])


SETTINGS = [
    ("markov", "smoothing", (0, -1.0, float("nan"), float("inf"), "a", None, True)),
    ("ease", "l2", (0.0, float("nan"), -3, "a", None)),
    ("item-knn", "neighbours", (0, 2.5, -1, float("nan"), True, "3")),
    ("item-knn", "last_n", (0, 1.0, -2)),
    ("user-knn", "neighbours", (2.5, 0, None, True)),
    ("svd", "rank", (0, 1.5, None)), ("svd", "seed", (-1, 0.5)),
    *((model, "dropout", (1, 1.0, -0.1, float("nan"), None, "x"))
      for model in ("transformer", "sasrec", "mamba", "mamba4rec", "xlstm", "gcn", "gat")),
    *((model, "d_model", (0, -8, 8.0, None, True))
      for model in ("transformer", "sasrec", "mamba", "mamba4rec", "xlstm", "gcn", "gat",
                    "lightgcn")),
    *((model, "n_layers", (0, -1, 1.5))
      for model in ("transformer", "sasrec", "mamba", "xlstm", "gcn", "gat")),
    *((model, "n_heads", (0, 1.0, -2)) for model in ("transformer", "sasrec", "xlstm", "gat")),
    *((model, "max_length", (0, -1, 2.5)) for model in ("transformer", "mamba", "xlstm")),
    ("transformer", "d_ff", (0, 2.5)), ("sasrec", "d_ff", (0, -1)),
    ("mamba", "d_state", (0, 1.5)), ("mamba", "d_conv", (0,)), ("mamba", "expand", (0, 0.5)),
    ("xlstm", "expand", (0,)), ("xlstm", "form", ("none", None)),
    ("xlstm+lightgcn", "fusion_dropout", (1, -0.1, float("nan"), "a")),
]


@pytest.mark.parametrize("name, setting, values", SETTINGS,
                         ids=[f"{name} {setting}" for name, setting, _ in SETTINGS])
def test_settings_are_refused_by_name_and_value(name, setting, values):
    data = sequences()
    for value in values:
        own = {k: v for k, v in NAMES[name].items() if k != setting}
        with pytest.raises(ValueError, match=re.escape(f"{setting}={value!r}: expected")):
            model = recommenders.create(name, **own, **{setting: value})
            model.fit(data, data)  # what a network is made of is known once there are data


@pytest.mark.parametrize("setting, values", {
    "patience": (-1, float("nan"), 1.5, None), "learning_rate": (0, -1e-3, float("nan"), "a"),
    "weight_decay": (-1, float("inf")), "batch_size": (0, 2.0), "max_epochs": (0, 1.5),
    "min_improvement": (-0.1, 1, float("nan")), "micro_batches": (0,), "seed": (-1, 0.5, None),
    "precision": ("half", None), "device": ("gpu", "tpu", None), "stop_on": ("hr@10",),
    "every_item": (2, "yes"),
}.items())
def test_training_settings_are_refused_by_name_and_value(setting, values):
    for value in values:
        with pytest.raises(ValueError, match=re.escape(f"{setting}={value!r}: expected")):
            TrainSettings(**{setting: value})


def test_a_gpu_that_is_not_there_is_not_asked_for(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ValueError, match="device='cuda': torch finds no GPU here.*device='auto'"):
        TrainSettings(device="cuda")


def test_layers_that_are_not_there_cannot_be_slstm():
    with pytest.raises(ValueError, match=r"layer in slstm_at 2 at position 1: expected 0\.\.1"):
        recommenders.create("xlstm", **HEADS, slstm_at=(0, 2)).fit(sequences(), sequences())


def test_graphs_train_in_single_precision_only():
    model = recommenders.create("gat", **TINY, n_heads=2, precision="bf16")
    with pytest.raises(ValueError, match="precision='bf16': a graph model trains in fp32"):
        model.fit(sequences(), sequences())


def test_measures_of_nothing_are_refused():
    nobody = sequences().select(np.arange(0))
    with pytest.raises(ValueError, match="no training sequence"):
        popularity(nobody)
    with pytest.raises(ValueError, match="no test sequence"):
        evaluate(None, nobody)
    some = np.ones(V)
    for recommended, behaviour, floor, message in (
            ([[]], [1], 1, "0 recommended and 1 watched"), ([[1]], [], 1, "1 recommended and 0"),
            ([[1]], [1], 0, "floor=0: expected"), ([[1]], [1], float("nan"), "floor=nan"),
            ([[V]], [1], 1, "catalogue index 12"), ([[1]], [-1], 1, "catalogue index -1")):
        with pytest.raises(ValueError, match=message):
            personalisation(some, np.array(recommended), np.array(behaviour), floor)


PROFILE = {"name": "p", "dataset": "toy", "models": {"popularity": {}}, "n_folds": 5,
           "folds_run": (0,), "variants": {"original": {}}}


@pytest.mark.parametrize("changed, message", [
    ({"n_folds": 10**30, "folds_run": (10**30,)}, "folds_run=10{30}: expected a whole number"),
    ({"n_folds": 2.0}, "n_folds=2.0"), ({"n_folds": None}, "n_folds=None"),
    ({"folds_run": (0.0,)}, "folds_run=0.0"), ({"folds_run": (True,)}, "folds_run=True"),
    ({"folds_run": ()}, r"folds_run=\(\); expected some of 0..4"), ({"folds_run": (5,)}, "0 to 4"),
    ({"name": "../q"}, "name '../q': expected a name"), ({"name": None}, "name None"),
    ({"name": ""}, "name ''"), ({"variants": {"../../z": {}}}, "variant '../../z'"),
    ({"variants": {}}, "no variant"), ({"variants": None}, "variants=None"),
    ({"variants": {"a": -1}}, r"variants\['a'\]=-1: expected some of left_truncate"),
    ({"variants": {"a": {"cut": 2}}}, r"variants\['a'\]=.*expected some of left_truncate"),
    ({"variants": {"a": {"left_truncate": -1}}}, "left_truncate=-1"),
    ({"models": {"../../../z": {}}}, "model '../../../z'"), ({"models": {7: {}}}, "model 7"),
    ({"models": {"popularity": None}}, "settings of 'popularity'=None: expected a Mapping"),
    ({"sequences": None}, "sequences=None: expected a SequenceSettings"),
    ({"mask_seen": "no"}, "mask_seen='no': expected one of False, True"),
    ({"leave_one_out": 1}, "leave_one_out=1"), ({"top_k": 0}, "top_k=0"),
    ({"seed": -1}, "seed=-1"),
])
def test_a_profile_that_cannot_be_run_is_refused(changed, message):
    Profile(**PROFILE | {"models": {"as above, d = 8": {"model": "popularity"}}})
    with pytest.raises(ValueError, match=message):
        Profile(**PROFILE | changed)


@pytest.mark.parametrize("models, message", [
    ({"svd": {"nosuch": 1}}, "svd has no setting nosuch; expected some of rank, seed"),
    ({"x": {"model": None}}, "model None: expected a name"),
    ({"ease": {"train_share": 0}}, "train_share=0: expected a number above 0 and at most 1"),
    ({"ease": {"train_share": 2}}, "train_share=2"), ({"ease": {"train_share": "x"}}, "'x'"),
    ({"ease": {"contexts": {"gat": "gat"}}}, "ease: contexts=.*it has no contexts"),
    ({"xlstm+gat": {"contexts": "gat"}, "gat": {}}, "contexts='gat': expected labels for some of"),
    ({"xlstm+gat": {"contexts": {"gat": "popularity"}}, "popularity": {}},
     "takes 'popularity' for a context that is of another kind"),
    ({"xlstm+gat": {"contexts": {"gat": "xlstm+gat"}}}, "takes 'xlstm.gat' for a context"),
    ({"xlstm+gat": {}}, r"no settings for \['gat'\]"),
    ({"gat": {"inductive": "no"}}, "inductive='no': expected one of False, True"),
    ({"mamba": {"zoh": "no"}}, "zoh='no'"), ({"xlstm": {"slstm_at": 9}}, "layer in slstm_at 9"),
])
def test_models_of_a_profile_are_refused_before_anything_is_written(models, message, tmp_path):
    rows = [(u, 10 * f, 5.0, 10**9 + f) for u in range(30) for f in range(u % 3, u % 3 + 6)]
    ratings = pd.DataFrame(rows, columns=["userId", "movieId", "rating", "timestamp"])
    data = MovieLens("toy", ratings, None, None, None, "", "", "0" * 64)
    models = {m: s | ({} if m in ("svd", "ease", "x", "popularity") else {
        "d_model": 8, "max_epochs": 1}) for m, s in models.items()}
    profile = Profile(**PROFILE | {"models": models})
    with pytest.raises(ValueError, match=message):
        experiment.run(profile, folder=tmp_path, data=data, progress=False)
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize("folds", [[0.0], [False], [5], np.int64(7)])
def test_folds_are_whole_numbers(folds, tmp_path):
    with pytest.raises(ValueError, match="has no fold"):
        experiment.run(Profile(**PROFILE), folds=folds, folder=tmp_path)


def test_hybrids_and_their_contexts_know_one_catalogue():
    data, other = sequences(), sequences()
    other = Sequences(other.users, other.items, other.offsets, other.catalogue + 1)
    context = recommenders.create("lightgcn", **TINY).fit(data, data)
    hybrid = recommenders.create("xlstm+lightgcn", contexts={"lightgcn": context}, **HEADS)
    with pytest.raises(ValueError, match="'lightgcn' was fitted on another catalogue"):
        hybrid.fit(other, other)
    with pytest.raises(ValueError, match="context 'gat' of xlstm.gat is lightgcn"):
        recommenders.create("xlstm+gat", contexts={"gat": context}, **HEADS)


def test_scores_that_are_no_numbers_are_refused():
    with pytest.raises(ValueError, match="scores of type object"):
        target_ranks(np.array([[None, 1]]), [0])

    class Lists:
        def score(self, histories):
            return [list(range(V)) for _ in histories]

    data = sequences()
    assert (evaluate(Lists(), data).ranks >= 1).all()  # a list of lists is a table, too
    assert top_items([[np.nan, 0.0, 1.0]], 3, [[1]]).tolist() == [[2, 0, 1]]  # the seen one last


# --- commands ------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    path.write_text("kept")
    return path


COMMANDS = {
    "no profile": (experiment.main, ["--profile", "nosuch"], "nosuch"),
    "no model": (experiment.main, ["--models", "nosuch"], r"no model \['nosuch'\]"),
    "no fold 99": (experiment.main, ["--folds", "99"], r"no fold \[99\]"),
    "no fold -1": (experiment.main, ["--folds", "-1"], r"no fold \[-1\]"),
    "no jobs": (experiment.main, ["--jobs", "0"], "n_jobs=0: expected"),
    "a file for a folder": (experiment.main, ["--folder", "FILE"], "FILE cannot take results"),
    "bundle: no profile": (bundle.main, ["--profile", "nosuch"], "no profile 'nosuch'"),
    "bundle: no model": (bundle.main, ["nosuch", "--folder", "NEW"], "no model 'nosuch'"),
    "bundle: no fold": (bundle.main, ["item-knn", "--fold", "99", "--folder", "NEW"],
                        "fold=99: expected a whole number, 0 to 9"),
    "bundle: a file for a folder": (bundle.main, ["item-knn", "--folder", "FILE"],
                                    "FILE cannot take results"),
    "verification: no data": (ties.main, ["nosuch"], "'nosuch' is neither"),
    "verification: no seeds": (ties.main, ["ml-latest-small", "--seeds", "0"], "seeds=0"),
    "verification: a folder for a file": (
        ties.main, ["ml-latest-small", "--output", "."], "is a folder"),
    "growth: a folder for a file": (growth.main, ["--output", "."], "is a folder"),
    "growth: no length": (growth.main, ["--lengths", "0"], "length=0: expected"),
}


@pytest.mark.parametrize("command, arguments, message", COMMANDS.values(), ids=COMMANDS)
def test_commands_refuse_in_one_line_with_status_2(command, arguments, message, file, capsys,
                                                   monkeypatch):
    monkeypatch.setenv("NBREC_RUNS", str(file.parent / "runs"))
    names = {"FILE": str(file), "NEW": str(file.parent / "new")}
    with pytest.raises(SystemExit) as stopped:
        command([names.get(argument, argument) for argument in arguments])
    said = capsys.readouterr().err.strip().splitlines()
    assert stopped.value.code == 2
    assert re.search(message.replace("FILE", str(file)), said[-1])
    assert "Traceback" not in "\n".join(said) and file.read_text() == "kept"
