import gc
import json
import os
import runpy
import signal
import subprocess
import sys
import textwrap
import time
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from nbrec import experiment, files, recommenders, records, tasks
from nbrec.data.movielens import MovieLens
from nbrec.evaluate import Evaluation, evaluate
from nbrec.models.item_knn import ItemKNN
from nbrec.preprocessing import SequenceSettings
from nbrec.profiles import PROFILES, Chosen, Profile, get_profile
from nbrec.sequences import Sequences
from nbrec.train import CheckpointError
from nbrec.trained import Trained

MODELS = {
    "popularity": {},
    "item-knn": {},
    "transformer": {"d_model": 8, "n_heads": 2, "n_layers": 1, "d_ff": 16, "batch_size": 16,
                    "max_epochs": 4, "learning_rate": 0.01, "patience": 9, "device": "cpu"},
}
PROFILE = Profile("tiny", "toy", SequenceSettings(min_rating=3.0), n_folds=5, folds_run=(0, 3),
                  models=MODELS, top_k=5,
                  variants={"original": {}, "truncated": {"left_truncate": 2}})


def toy_data() -> MovieLens:
    """60 users walk round a circle of 30 films, now and then jumping."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(60):
        steps = rng.choice([1, 1, 1, 7], size=rng.integers(8, 14))
        films = list(dict.fromkeys((rng.integers(30) + np.cumsum(steps)) % 30))
        rows += [(user, film, rng.choice([2.0, 4.0, 5.0]), t) for t, film in enumerate(films)]
    ratings = pd.DataFrame(rows, columns=["userId", "movieId", "rating", "timestamp"])
    return MovieLens(name="toy", ratings=ratings, movies=None, links=None, tags=None, notice="",
                     origin="memory", sha256="0" * 64)


def run(folder, profile=PROFILE, **options):
    return experiment.run(profile, folder=folder, data=toy_data(), progress=False, **options)


def results(folder) -> dict[str, dict]:
    """All that a record says, but for times, versions and dates."""
    found = {}
    for path in sorted(Path(folder).rglob("*.json")):
        record = records.read_record(path)
        if record["history"]:
            assert len(record["history"].pop("seconds")) == len(record["history"]["train_loss"])
        del record["seconds"], record["provenance"]
        found[str(path.relative_to(folder))] = record
    return found


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """As in the processes that are killed: the last digit of a sum depends on the threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """All runs in one go."""
    folder = tmp_path_factory.mktemp("whole")
    run(folder)
    return folder


def start(folder, kill: str = "", n_jobs: int = 1) -> int:
    """Run the experiment in a process of its own; return its exit code.

    Args:
        kill: "name:n", die of SIGKILL just before the n-th call of name, or "name!n" just after.
    """
    code = f"""
    import os, re, signal, sys
    sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(Path(__file__).parents[1])!r}]
    import test_experiment
    from nbrec import records
    from nbrec.train import SequenceTrainer, checkpoint

    name, when, n = re.fullmatch("([a-z_]*)([:!]?)([0-9]*)", {kill!r}).groups()
    owner = {{"step": SequenceTrainer, "save": checkpoint, "replace": os, "fsync": os,
             "write_record": records}}.get(name)
    calls = 0

    def deadly(*args, **kwargs):
        global calls
        calls += 1
        if calls == int(n) and when == ":":
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*args, **kwargs)
        if calls == int(n) and when == "!":
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    if owner:
        original = getattr(owner, name)
        setattr(owner, name, deadly)
    test_experiment.run({str(folder)!r}, n_jobs={n_jobs})
    """
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], env=environment,
                          capture_output=True, text=True, timeout=300)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


def test_killed_again_and_again_the_numbers_are_the_same(uninterrupted, tmp_path):
    expected = results(uninterrupted)
    assert len(expected) == 3 * 2 * 2  # models, variants, folds
    # In the middle of an epoch, with the first epoch's checkpoint written; between the writing of
    # a record and its move into place; just after it, with the checkpoint still there.
    assert start(tmp_path, "step:5") == -signal.SIGKILL
    folder = tmp_path / "tiny" / "toy" / "transformer"
    assert len(list(folder.glob("*.safetensors"))) == 1 and not list(folder.glob("*.json"))
    assert start(tmp_path, "write_record:1") == -signal.SIGKILL  # trained, but not yet recorded
    assert start(tmp_path, "fsync:2") == -signal.SIGKILL
    assert start(tmp_path, "write_record!3") == -signal.SIGKILL
    done = results(tmp_path)
    assert 0 < len(done) < len(expected)
    assert done == {name: expected[name] for name in done}
    times = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.json")}
    assert start(tmp_path) == 0
    assert results(tmp_path) == expected
    assert {p: p.stat().st_mtime_ns for p in times} == times  # what was finished was not run again
    files = [p.name for p in tmp_path.rglob("*") if p.is_file()]
    assert len(files) == len(expected)  # checkpoints and half-written files are gone
    ranks = [record["ranks"] for record in expected.values()]
    assert len({tuple(r) for r in ranks}) > len(ranks) / 2  # equality above is not trivial


def test_runs_side_by_side_give_the_same_numbers(uninterrupted, tmp_path):
    assert start(tmp_path, n_jobs=2) == 0
    assert results(tmp_path) == results(uninterrupted)


def test_results_do_not_depend_on_what_else_is_run(uninterrupted, tmp_path):
    run(tmp_path, models=["transformer"], variants=["truncated"], folds=[3])
    name = "tiny/toy/transformer/truncated-fold03.json"
    assert results(tmp_path) == {name: results(uninterrupted)[name]}


def test_a_record_holds_what_its_run_says(uninterrupted):
    """Recompute popularity, targets and metrics of one run from the data alone."""
    data = toy_data()
    sequences = experiment.make_sequences(PROFILE, data, "truncated")
    fold = experiment.make_folds(PROFILE, sequences)[3]
    record = results(uninterrupted)["tiny/toy/popularity/truncated-fold03.json"]
    assert record["data"]["n_test"] == len(fold.test) and record["seed"] == 3
    count = {}
    for user in fold.train:
        for item in set(sequences[user].tolist()):
            count[item] = count.get(item, 0) + 1
    ranks, popularity, recommended = [], [], []
    for user in fold.test:
        *history, target = sequences[user].tolist()
        rivals = [i for i in range(sequences.n_items) if i != target and i not in history]
        ranks.append(1 + sum(count.get(i, 0) >= count.get(target, 0) for i in rivals))
        popularity.append(1000 * count.get(target, 0) / len(fold.train))
        free = [i for i in range(sequences.n_items) if i not in history]
        best = sorted((count.get(i, 0) for i in free), reverse=True)[: PROFILE.top_k]
        recommended += [1000 * c / len(fold.train) for c in best]
    assert record["ranks"] == ranks
    assert np.allclose(record["target_popularity"], popularity, rtol=5e-3)
    assert record["metrics"]["hr@20"] == pytest.approx(np.mean(np.array(ranks) <= 20), abs=1e-6)
    p, n = np.array(record["popularity"]["recommended"]).T
    assert n.sum() == len(recommended)
    assert p @ n == pytest.approx(sum(recommended), rel=1e-4)
    behaviour = np.array(record["popularity"]["behaviour"])[:, 1].sum()
    assert behaviour == sum(len(sequences[user]) for user in fold.test)


@pytest.fixture
def finished(tmp_path):
    profile = replace(PROFILE, folds_run=(0,), variants={"original": {}},
                      models={"popularity": {}, "item-knn": {}})
    run(tmp_path, profile)
    return tmp_path, profile


def rerun(finished, profile=None, **options):
    """Which records a second run writes anew."""
    folder, same = finished
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*.json")}
    run(folder, profile or same, **options)
    return sorted(p.parent.name for p in folder.rglob("*.json")
                  if p.stat().st_mtime_ns != before.get(p))


def test_a_finished_run_is_not_repeated(finished):
    assert rerun(finished) == []


@pytest.mark.parametrize("damage", [b"", b'{"schema":1,"key":"ab', b"[]", b"\xff"])
def test_a_damaged_record_is_reported_and_run_again(finished, damage):
    folder, _ = finished
    (path,) = folder.rglob("item-knn/*.json")
    whole = results(folder)
    path.write_bytes(damage)
    with pytest.warns(UserWarning, match="item-knn/original-fold00.json"):
        assert rerun(finished) == ["item-knn"]
    assert results(folder) == whole


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"models": {"popularity": {}, "item-knn": {"last_n": 3}}}, ["item-knn"]),
        ({"mask_seen": False}, ["item-knn", "popularity"]),
        ({"top_k": 7}, ["item-knn", "popularity"]),
        ({"seed": 1}, ["item-knn", "popularity"]),
        ({"n_folds": 6}, ["item-knn", "popularity"]),
        ({"sequences": SequenceSettings(min_rating=4.5)}, ["item-knn", "popularity"]),
        ({"variants": {"original": {"left_truncate": 1}}}, ["item-knn", "popularity"]),
    ],
)
def test_a_changed_setting_runs_again_into_place(finished, change, expected):
    folder, profile = finished
    assert rerun(finished, replace(profile, **change)) == expected
    assert len(list(folder.rglob("*.json"))) == 2
    assert rerun(finished, replace(profile, **change)) == []


def test_a_changed_default_of_the_code_runs_again(finished, monkeypatch):
    from nbrec.models.item_knn import ItemKNN

    monkeypatch.setattr(ItemKNN.__init__, "__defaults__", (None, 7, 0.0))
    assert rerun(finished) == ["item-knn"]


def test_another_file_of_ratings_runs_again(finished):
    folder, profile = finished
    other = replace(toy_data(), sha256="1" * 64)
    before = {p: p.read_text() for p in folder.rglob("*.json")}
    experiment.run(profile, folder=folder, data=other, progress=False)
    assert all(p.read_text() != text for p, text in before.items())


def test_a_damaged_checkpoint_starts_the_training_again(uninterrupted, tmp_path):
    assert start(tmp_path, "save!2") == -signal.SIGKILL
    (checkpoint,) = tmp_path.rglob("*.safetensors")
    checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    with pytest.warns(UserWarning, match="starts again"):
        run(tmp_path, models=["transformer"], variants=["original"], folds=[0])
    name = "tiny/toy/transformer/original-fold00.json"
    assert results(tmp_path)[name] == results(uninterrupted)[name]


def test_a_label_can_stand_for_other_settings_of_a_model(tmp_path):
    profile = replace(PROFILE, models={"narrow": {"model": "item-knn", "last_n": 2}})
    df = run(tmp_path, profile, variants=["original"], folds=[0])
    record = records.read_record(df["path"].item())
    assert record["model"] == "narrow"
    assert record["settings"]["model"] == {"name": "item-knn", "last_n": 2, "neighbours": None,
                                           "shrinkage": 0.0}


def test_ratings_that_are_partly_unknown_switch_the_filter_off(tmp_path):
    data = toy_data()
    assert experiment.sequence_settings(PROFILE, data).min_rating == 3.0
    data.ratings.loc[3, "rating"] = np.nan
    assert experiment.sequence_settings(PROFILE, data).min_rating is None
    data = replace(data, ratings=data.ratings.drop(columns="rating"))
    assert experiment.sequence_settings(PROFILE, data, "truncated").left_truncate == 2


@pytest.mark.parametrize(
    ("asked", "message"),
    [({"models": ["alexnet"]}, "no model .*alexnet.*popularity"),
     ({"variants": ["shuffled"]}, "no variant .*shuffled.*original"),
     ({"folds": [5]}, r"no fold \[5\]")],
)
def test_what_the_profile_lacks_is_refused(tmp_path, asked, message):
    with pytest.raises(ValueError, match=message):
        run(tmp_path, **asked)


def test_profiles(monkeypatch):
    full = get_profile("full")
    thesis = {"d_model": 512, "n_heads": 8, "n_layers": 2, "d_ff": 2048, "dropout": 0.1,
              "learning_rate": 1e-4, "patience": 5, "min_improvement": 0.01}
    assert thesis.items() <= full.models["transformer"].items()
    assert full.sequences == SequenceSettings(random_sample=0.3) and len(full.folds_run) == 10
    counted = get_profile("thesis")
    assert counted.models is full.models and counted.folds_run == full.folds_run
    left = 330_975 * (1 - 0.073 - 0.261)  # users, thesis section 2.2
    assert counted.sequences.random_sample * left == pytest.approx(12_839, abs=2)
    assert get_profile().name == "sample"
    monkeypatch.setenv("NBREC_PROFILE", "laptop")
    assert get_profile().name == "laptop"
    with pytest.raises(ValueError, match="no profile 'huge'.*sample, laptop, full"):
        get_profile("huge")
    with pytest.raises(ValueError, match="folds_run"):
        replace(PROFILES["sample"], folds_run=(10,))


def test_all_models_of_the_profiles_exist():
    from nbrec import recommenders

    for profile in PROFILES.values():
        for label, settings in profile.models.items():
            chosen = Chosen.read(label, settings)
            assert set(chosen.contexts.values()) <= set(profile.models)
            recommenders.create(chosen.name, pd.Series({1: "a film"}), **chosen.settings)
            assert set(profile.chosen(label).parts.contexts) <= set(profile.models)


HYBRID = {"d_model": 8, "n_heads": 2, "n_layers": 1, "batch_size": 16, "max_epochs": 2,
          "learning_rate": 0.01}
MADE = replace(PROFILE, folds_run=(0,), variants={"original": {}}, models={
    "gcn": {"d_model": 4, "max_epochs": 2}, "transformer+gcn": HYBRID,
    "transformer+gcn+gcn-user": HYBRID, "transformer+tfidf": HYBRID, "tfidf": {}})
TITLES = pd.DataFrame({"movieId": np.arange(30),
                       "title": [f"Film {'ABC'[i % 3]} {i} (1999)" for i in range(30)],
                       "genres": ["Drama|War" if i % 2 else "Comedy" for i in range(30)]})


def run_made(folder, profile=MADE, **options):
    return experiment.run(profile, folder=folder, data=replace(toy_data(), movies=TITLES),
                          progress=False, **options)


def test_hybrids_share_the_training_of_their_context(tmp_path, monkeypatch):
    monkeypatch.delenv("NBREC_DATA", raising=False)
    made = run_made(tmp_path).set_index("model")
    assert set(made.index) == set(MADE.models)
    steps = made.loc[["transformer+gcn", "transformer+gcn+gcn-user"], "seconds_context"]
    graph = records.histories(made.reset_index()).query("model == 'gcn'")["seconds"].sum()
    assert steps.to_numpy() == pytest.approx(graph, abs=1e-4)  # trained once, counted twice
    assert np.isnan(made.loc["gcn", "seconds_context"])
    assert made.loc["transformer+gcn", "seconds"] > steps.iloc[0]
    kept = list(tmp_path.rglob("*.safetensors"))
    assert [path.parent.name for path in kept] == ["gcn"]
    # alone, without the checkpoint: the same numbers
    alone = run_made(tmp_path / "alone", models=["transformer+gcn"])
    assert alone.iloc[0]["key"] == made.loc["transformer+gcn", "key"]
    two = [records.read_record(p)["ranks"] for p in
           (alone.iloc[0]["path"], made.loc["transformer+gcn", "path"])]
    assert two[0] == two[1]


def test_a_hybrid_runs_again_when_its_context_changes(tmp_path):
    first = run_made(tmp_path, models=["transformer+gcn", "tfidf"]).set_index("model")
    other = replace(MADE, models=MADE.models | {"gcn": {"d_model": 5, "max_epochs": 2}})
    second = run_made(tmp_path, other, models=["transformer+gcn", "tfidf"]).set_index("model")
    assert first.loc["transformer+gcn", "key"] != second.loc["transformer+gcn", "key"]
    assert first.loc["tfidf", "date"] == second.loc["tfidf", "date"]
    alone = replace(MADE, models={"transformer+gcn": HYBRID})
    with pytest.raises(ValueError, match="no settings for .'gcn'., of which transformer.gcn"):
        run_made(tmp_path, alone)


def test_a_context_may_have_settings_of_another_label(tmp_path):
    profile = replace(MADE, models=MADE.models | {
        "gcn-inductive": MADE.models["gcn"] | {"model": "gcn", "inductive": True},
        "own": HYBRID | {"model": "transformer+gcn", "contexts": {"gcn": "gcn-inductive"}}})
    made = run_made(tmp_path, profile, models=["transformer+gcn", "own", "gcn-inductive"])
    settings = {row.model: records.read_record(row.path)["settings"]["model"]
                for row in made.itertuples()}
    assert settings["own"]["contexts"]["gcn"]["inductive"]
    assert "inductive" not in settings["transformer+gcn"]["contexts"]["gcn"]
    kept = {path.parent.name for path in tmp_path.rglob("*.safetensors")}
    assert kept == {"gcn", "gcn-inductive"}


def test_models_without_weights_are_left_out_and_named(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(recommenders.encoders, "find_weights", lambda encoder: None)
    profile = replace(MADE, models=MADE.models | {"modernbert": {}})
    made = run_made(tmp_path, profile, models=["modernbert", "tfidf"])
    assert made["model"].tolist() == ["tfidf"] and "ModernBERT-base" in caplog.text
    with pytest.raises(ValueError, match="toy has no table of movies"):
        experiment.run(profile, models=["tfidf"], folder=tmp_path, data=toy_data())


def test_the_command_line_runs_and_refuses(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(experiment.movielens, "load", lambda name: toy_data())
    experiment.main(["--profile", "sample", "--models", "popularity", "--variants", "original",
                     "--folds", "0", "--folder", str(tmp_path), "--quiet"])
    assert "popularity" in capsys.readouterr().out
    (path,) = tmp_path.rglob("*.json")
    assert json.loads(path.read_text())["fold"] == 0
    with pytest.raises(SystemExit):
        experiment.main(["--models", "alexnet", "--folder", str(tmp_path)])
    assert "alexnet" in capsys.readouterr().err


def test_settings_are_searched_on_the_validation_part(tmp_path):
    search = replace(PROFILE, name="search", on_validation=True, folds_run=(0,),
                     variants={"original": {}}, models={"item-knn": {}})
    run(tmp_path, search)
    run(tmp_path, replace(search, name="test", on_validation=False))
    paths = [tmp_path / name / "toy/item-knn/original-fold00.json" for name in ("search", "test")]
    chosen, tested = map(records.read_record, paths)
    sequences = experiment.make_sequences(search, toy_data())
    fold = experiment.make_folds(search, sequences)[0]
    train, validation, test = fold.parts(sequences)
    model = ItemKNN().fit(train)
    assert chosen["ranks"] == evaluate(model, validation).ranks.tolist()
    assert tested["ranks"] == evaluate(model, test).ranks.tolist() != chosen["ranks"]
    assert tested["ranks_with_seen"] == evaluate(model, test).ranks_with_seen.tolist()
    assert tested["history_lengths"] == [len(h) for h in test.histories()]
    assert chosen["key"] != tested["key"]


def test_smaller_shares_of_the_training_users(tmp_path):
    profile = replace(PROFILE, folds_run=(0,), variants={"original": {}}, models={
        f"markov-train_share-{s}": {"model": "markov", "train_share": s} for s in (0.25, 0.5)} | {
        "markov": {}})
    table = run(tmp_path, profile).set_index("model")
    whole = table.loc["markov", "n_train"]
    assert table.loc["markov-train_share-0.5", "n_train"] == round(whole / 2)
    assert table.loc["markov-train_share-0.25", "n_train"] == round(whole / 4)
    assert table["n_test"].nunique() == 1 and table["key"].nunique() == 3


def test_leaving_one_out(tmp_path):
    profile = replace(PROFILE, name="loo", leave_one_out=True, n_folds=2, folds_run=(0, 1),
                      variants={"original": {}})
    run(tmp_path, profile)
    sequences = experiment.make_sequences(profile, toy_data())
    by_model = {m: [records.read_record(tmp_path / f"loo/toy/{m}/original-fold0{i}.json")
                    for i in (0, 1)] for m in ("item-knn", "transformer")}
    first, second = by_model["item-knn"]
    model = ItemKNN().fit(sequences.shorten(2))
    assert first["ranks"] == second["ranks"] == evaluate(model, sequences).ranks.tolist()
    assert first["data"]["n_train"] == first["data"]["n_test"] == len(sequences)
    first, second = by_model["transformer"]
    assert first["ranks"] != second["ranks"]  # repetitions have their own seeds


def test_a_search_changes_one_setting_at_a_time():
    models = PROFILES["search"].models
    changed = {label: s for label, s in models.items() if "model" in s}
    assert len(changed) > 20
    for label, settings in changed.items():
        base = models[settings["model"]]
        (setting,) = {k for k in settings if settings[k] != base.get(k)} - {"d_ff", "model"}
        assert label == f"{settings['model']}-{setting}-{settings[setting]:g}"


def test_whoever_is_tested_is_in_the_graph_without_their_target(tmp_path, monkeypatch):
    graphs = {}

    def keep(model, *arguments):
        model_of = getattr(model, "contexts", {}).get("gcn", model)
        graphs[type(model).__name__] = model_of.model.graph.interactions.toarray()
        return evaluate(model, *arguments)

    monkeypatch.setattr(tasks, "evaluate", keep)
    run_made(tmp_path, models=["transformer+gcn", "gcn"])
    sequences = experiment.make_sequences(MADE, toy_data())
    train, validation, test = experiment.make_folds(MADE, sequences)[0].parts(sequences)
    expected = [train[u] for u in range(len(train))] + validation.histories() + test.histories()
    assert set(graphs) == {"SequenceRecommender", "GraphRecommender"}
    for seen in graphs.values():
        assert [np.flatnonzero(row).tolist() for row in seen] == [
            sorted(set(h.tolist())) for h in expected]


def test_an_item_that_nobody_trains_with_counts_as_half_a_sequence():
    train = Sequences(np.arange(4), np.array([0, 1, 0, 1, 0, 1, 1, 1], np.int32),
                      np.array([0, 2, 4, 6, 8]), np.arange(3))
    test = Sequences(np.arange(9, 10), np.array([0, 1], np.int32), np.array([0, 2]), np.arange(3))
    result = Evaluation(np.array([2]), np.array([3]), np.array([[2]], np.int32), 0.1)
    found = tasks.measures(result, train, test)
    # 2 was seen by nobody: 125 per mille of four. 0 and 1 were seen by three and all of them.
    expected = (np.log10(750 / 125) + np.log10(1000 / 125)) / 2
    assert found["personalisation"]["wasserstein"] == pytest.approx(expected, abs=1e-5)
    assert found["personalisation"]["mean_popularity"] == 0
    assert found["personalisation"]["behaviour_popularity"] == 875
    assert found["ranks"] == [2] and found["ranks_with_seen"] == [3] and found["users"] == [9]
    assert found["history_lengths"] == [1] and found["target_popularity"] == [1000]
    assert found["metrics"]["mrr@20"] == 0.5 and found["metrics"]["hr@1"] == 0
    assert found["metrics"]["ndcg@20"] == pytest.approx(0.63093)
    assert found["popularity"] == {"recommended": [[0, 1]], "behaviour": [[750, 1], [1000, 1]]}


# --- what is left behind, and what is kept alive --------------------------------------------------


def task_of(folder):
    shared = tasks.shared_facts(PROFILE, toy_data(), "original",
                                *_made(PROFILE, toy_data()))
    return tasks.make_task(PROFILE, shared, "transformer", 0, folder, None)


def _made(profile, data):
    settings = experiment.sequence_settings(profile, data)
    sequences = experiment.make_sequences(profile, data)
    return settings, sequences, experiment.make_folds(profile, sequences)


def test_nothing_that_another_process_may_be_at_work_on_is_removed(tmp_path):
    task = task_of(tmp_path)
    folder = task.path.parent
    folder.mkdir(parents=True)
    mine, other = files._host(), "elsewhere"
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    day = {"own checkpoint": (task.checkpoint.name, 0, False),
           "new, of other settings": (f"{task.path.stem}.{'a' * 12}.safetensors", 0, True),
           "old, of other settings": (f"{task.path.stem}.{'b' * 12}.safetensors", 25, False),
           "half, of a live process": (f".{task.path.name}.{mine}.{os.getpid()}.01234567.tmp", 0,
                                       True),
           "half, of a dead one": (f".{task.path.name}.{mine}.{ended.pid}.01234567.tmp", 0, False),
           "half, checkpoint of a dead one": (
               f".{task.checkpoint.name}.{mine}.{ended.pid}.01234567.tmp", 0, False),
           "half, on another machine": (f".{task.path.name}.{other}.{ended.pid}.01234567.tmp", 23,
                                        True),
           "half, on another machine, old": (f".{task.path.name}.{other}.1.01234567.tmp", 25,
                                             False),
           "of another fold": (f".original-fold03.json.{mine}.{ended.pid}.01234567.tmp", 25, True)}
    for name, hours, _ in day.values():
        (folder / name).write_text("x")
        os.utime(folder / name, (time.time() - 3600 * hours,) * 2)
    task.tidy()
    assert {what for what, (name, *_) in day.items() if (folder / name).exists()} == {
        what for what, (*_, stays) in day.items() if stays}


def test_models_are_forgotten_once_their_records_are_written(tmp_path, monkeypatch):
    alive, seen = weakref.WeakSet(), []
    call = experiment.Task.__call__

    def watched(self, *arguments):
        gc.collect()
        seen.append(len(alive))  # fitted models of tasks before this one
        row = call(self, *arguments)
        alive.add(self.model)
        return row

    monkeypatch.setattr(experiment.Task, "__call__", watched)
    run(tmp_path, n_jobs=1)
    assert len(seen) == 12 and max(seen) <= 1  # the last one may still stand on the stack


def test_the_key_holds_what_decides_the_numbers(tmp_path):
    def key(**settings):
        models = MODELS | {"gat": {}, "transformer+gat": MODELS["transformer"] | settings}
        profile = replace(PROFILE, models=models)
        shared = tasks.shared_facts(profile, toy_data(), "original",
                                          *_made(profile, toy_data()))
        task = tasks.make_task(profile, shared, "transformer+gat", 0, tmp_path, None)
        return task.facts["key"], task.facts["settings"]["model"]

    usual, described = key()
    assert described["fusion_dropout"] == described["dropout"] == 0.1
    assert described["precision"] == described["contexts"]["gat"]["precision"] == "fp32"
    assert "device" not in described and key(device="auto")[0] == usual
    assert key(precision="fp32")[0] == usual != key(precision="bf16")[0]
    assert key(fusion_dropout=0.1)[0] == usual != key(fusion_dropout=0.3)[0]
    assert key(dropout=0.3)[1]["fusion_dropout"] == 0.3


def test_a_record_names_the_device_that_its_model_stands_on():
    class OnGPU(torch.nn.Module):
        def parameters(self):
            return iter([type("P", (), {"device": torch.device("cuda:0")})])

    model = recommenders.create("mamba", d_model=8)
    model.model, model.catalogue = OnGPU(), np.arange(3)
    assert model.device == "cuda" and ItemKNN().device == "cpu"


@pytest.mark.parametrize("threads", [None, 3])
def test_a_run_takes_the_threads_it_is_given(tmp_path, monkeypatch, threads):
    asked = []
    monkeypatch.setattr(tasks.torch, "set_num_threads", asked.append)
    _, sequences, folds = _made(PROFILE, toy_data())
    task_of(tmp_path)(sequences, folds[0], threads, False)
    assert asked == ([] if threads is None else [3])


def test_seeds_tell_folds_and_profiles_apart():
    seeds = [replace(PROFILE, seed=s).seed_of(f) for s in (0, 1, 2) for f in range(10)]
    assert seeds[:3] == [0, 1, 2] and seeds[10:12] == [1000, 1001] and len(set(seeds)) == 30


@pytest.mark.parametrize("resumed", [False, True])
def test_training_starts_again_only_where_a_checkpoint_was_to_blame(tmp_path, resumed):
    class Refusing(Trained):
        calls = 0

        def __init__(self):
            pass

        def fit(self, train, validation, checkpoint, progress, others):
            self.calls += 1
            if not resumed:
                raise ValueError("cannot train")
            if self.calls == 1:
                raise CheckpointError(checkpoint, "cannot train")
            assert not checkpoint.exists() and others == [7] and progress is False

    task = replace(task_of(tmp_path), model=Refusing())
    task.checkpoint.parent.mkdir(parents=True)
    if resumed:
        task.checkpoint.write_bytes(b"of another run")
        with pytest.warns(UserWarning, match="cannot train\nTraining starts again"):
            task._fit(None, None, [7], False)
    else:
        with pytest.raises(ValueError, match="cannot train"):
            task._fit(None, None, [7], False)
    assert task.model.calls == 1 + resumed


@pytest.mark.parametrize("named", [True, False])
def test_a_folder_that_takes_no_records_is_refused_before_any_work(tmp_path, monkeypatch, named):
    (tmp_path / "file").write_text("x")
    folder = tmp_path / "file" / "runs"
    monkeypatch.setenv("NBREC_RUNS", str(folder))
    monkeypatch.setattr(experiment, "_calls", lambda *_: pytest.fail("began to work"))
    with pytest.raises(ValueError, match="cannot take results.*name another one"):
        run(folder if named else None)


@pytest.mark.parametrize("progress, n_jobs, terminal, threads, inner", [
    (True, 1, True, None, True), (True, 1, False, None, False), (False, 1, True, None, False),
    (True, 2, True, 1, False)])
def test_bars_of_single_runs_are_for_a_terminal_and_one_at_a_time(
        tmp_path, monkeypatch, progress, n_jobs, terminal, threads, inner):
    asked = []
    monkeypatch.setattr(experiment, "_calls",
                        lambda jobs, *options: asked.append(options) or iter(()))
    monkeypatch.setattr(experiment.sys.stderr, "isatty", lambda: terminal, raising=False)
    experiment.run(PROFILE, folder=tmp_path, data=toy_data(), progress=progress, n_jobs=n_jobs)
    assert asked == [(threads, inner)]


@pytest.mark.parametrize("words, expected", [
    ([], (None, None, None, None, 1, True, None)),
    (["--profile", "sample", "--models", "svd", "ease", "--variants", "original", "--folds", "2",
      "0", "--jobs", "2", "--folder", "f", "--quiet"],
     ("sample", ["svd", "ease"], ["original"], [2, 0], 2, False, "f"))])
def test_the_words_of_the_command_line_reach_the_run(monkeypatch, words, expected):
    asked = []

    def told(*arguments):
        asked.append(arguments)
        raise ValueError("seen")

    told.__doc__ = experiment.run.__doc__  # which the help begins with
    monkeypatch.setattr(experiment, "run", told)
    with pytest.raises(SystemExit):
        experiment.main(words)
    assert asked == [expected]


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
def test_the_module_is_a_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["experiment", "--folds", "no number"])
    with pytest.raises(SystemExit, match="2"):
        runpy.run_module("nbrec.experiment", run_name="__main__")
    assert "--folds: invalid int value: 'no number'" in capsys.readouterr().err


def test_the_smallest_share_is_one_user(tmp_path):
    profile = replace(PROFILE, folds_run=(0,), variants={"original": {}},
                      models={"one": {"model": "popularity", "train_share": 1e-6}})
    assert run(tmp_path, profile)["n_train"].tolist() == [1]


def test_a_damaged_checkpoint_of_a_context_is_made_anew(tmp_path):
    models = {"gat": {"max_epochs": 1, "device": "cpu"},
              "transformer+gat": MODELS["transformer"] | {"max_epochs": 1}}
    profile = replace(PROFILE, models=models, variants={"original": {}}, folds_run=(0,))
    run(tmp_path / "whole", profile)
    run(tmp_path / "torn", profile, models=["gat"])
    [kept] = (tmp_path / "torn").rglob("*.safetensors")
    kept.write_bytes(kept.read_bytes()[:1000])
    with pytest.warns(UserWarning, match="not a whole checkpoint.*\n.*starts again"):
        run(tmp_path / "torn", profile)
    assert results(tmp_path / "torn") == results(tmp_path / "whole")


def test_what_is_no_fault_of_a_checkpoint_leaves_it_where_it_is(tmp_path, monkeypatch):
    task = task_of(tmp_path)
    settings, sequences, folds = _made(PROFILE, toy_data())
    task.checkpoint.parent.mkdir(parents=True)
    task.checkpoint.write_text("finished work")
    monkeypatch.setattr(task.model, "fit", lambda *a, **o: (_ for _ in ()).throw(ValueError("x")))
    with pytest.raises(ValueError, match="^x$"):
        task(sequences, folds[0], None, False)
    assert task.checkpoint.read_text() == "finished work"
