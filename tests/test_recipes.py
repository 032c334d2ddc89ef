"""The recipes of CONTRIBUTING.md, as they stand there: each added in one place, seen everywhere."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_experiment import HYBRID, PROFILE, TITLES, toy_data

from nbrec import experiment, metrics, recommenders, records
from nbrec.data import datasets, movielens
from nbrec.profiles import PROFILES, get_profile
from nbrec.sequences import Sequences

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
TINY = {k: v for k, v in HYBRID.items() if k not in ("n_heads", "n_layers")}


def recipe(title: str) -> str:
    """The code under a heading."""
    section = re.search(rf"### {title}\n(.*?)\n##", GUIDE, re.S)[1]
    return re.search(r"```python\n(.*?)```", section, re.S)[1]


@pytest.fixture(autouse=True)
def tables(monkeypatch):
    """What a recipe adds is gone after its test."""
    for table in (recommenders.MODELS, metrics.METRICS, datasets.DATASETS):
        for name in ("gru4rec", "genres", "rbp", "toy"):
            monkeypatch.delitem(table, name, raising=False)
            monkeypatch.setitem(table, name, None)
            del table[name]
    monkeypatch.delenv("NBREC_DATA", raising=False)


def chapter(tmp_path, monkeypatch, models, measures=("ndcg@20",), shown=None, **options):
    """Records, table and figure of the chapter's recipe, with a tiny profile."""
    profile = replace(PROFILE, folds_run=(0, 1), variants={"original": {}}, models=models,
                      **options)
    if profile.dataset not in datasets.DATASETS:
        data = replace(toy_data(), movies=TITLES)
        monkeypatch.setattr(movielens, "load", lambda name: data)
    monkeypatch.setenv("NBREC_RUNS", str(tmp_path / "runs"))
    space = {"profile": profile, "models": list(shown or models), "metrics": list(measures)}
    exec(recipe("A chapter"), space)
    words = {text.get_text() for text in space["figure"].findobj(lambda a: hasattr(a, "get_text"))}
    return space["runs"].set_index("model"), space["table"].to_html(), words


def run_toy(profile, folder):
    data = replace(toy_data(), movies=TITLES)
    return experiment.run(profile, folder=folder, data=data, progress=False)


def test_a_model_in_one_place_is_in_records_hybrids_tables_and_figures(tmp_path, monkeypatch):
    exec(recipe("A model"), {"__name__": "recipe"})
    assert {"gru4rec", "gru4rec+gat"} <= set(get_profile("sample").models)
    assert "gru4rec" not in PROFILES["laptop"].models
    runs, table, words = chapter(tmp_path, monkeypatch, {
        "gru4rec": TINY, "gru4rec+tfidf": TINY, "tfidf": {}, "popularity": {}})
    record = records.read_record(runs.loc["gru4rec", "path"].iloc[0])
    assert record["settings"]["model"]["name"] == "gru4rec"
    assert record["settings"]["model"]["dropout"] == 0.1  # a default that nobody named
    hybrid = records.read_record(runs.loc["gru4rec+tfidf", "path"].iloc[0])["settings"]["model"]
    assert hybrid["contexts"]["tfidf"]["encoder"] == "tfidf" and hybrid["fusion_dropout"] == 0.1
    for label in ("GRU4Rec", "GRU4Rec + TF-IDF"):
        assert f">{label}</th>" in table and label in words


def test_a_context_in_one_place_joins_every_backbone(tmp_path, monkeypatch):
    exec(recipe("A context"), {"__name__": "recipe"})
    assert {"xlstm+genres", "mamba+genres"} <= set(get_profile("sample").models)
    models = {"transformer+genres+genres-user": HYBRID, "genres": {}}
    profile = replace(PROFILE, models=models)
    assert profile.chosen("transformer+genres+genres-user").parts.user == "genres"
    del models["genres"]
    with pytest.raises(ValueError, match="no settings for .'genres'."):
        chapter(tmp_path, monkeypatch, models)
    train = Sequences(np.arange(2), np.array([0, 1, 1, 0], np.int32), np.array([0, 2, 4]),
                      np.arange(2))
    context = recommenders.create("genres", experiment.make_documents(
        replace(toy_data(), movies=TITLES))).fit(train)
    assert context.item_vectors().tolist() == [[1, 0, 0], [0, 1, 1]]
    hybrid = recommenders.create("transformer+genres+genres-user", contexts={"genres": context},
                                 **HYBRID).fit(train, train)
    assert hybrid.model.early.frozen_genres.tolist() == context.item_vectors().tolist()
    assert hybrid.describe()["contexts"] == {"genres": {"genres": ("Comedy", "Drama", "War")}}
    runs, table, words = chapter(tmp_path, monkeypatch, {
        "transformer+genres": HYBRID, "genres": {}}, shown=["transformer+genres"])
    assert "Transformer + Genres" in table and "Transformer + Genres" in words
    assert runs.loc["transformer+genres", "seconds_context"].notna().all()


def test_a_metric_in_one_place_is_in_records_tables_and_figures(tmp_path, monkeypatch):
    exec(recipe("A metric"), {"__name__": "recipe"})
    runs, table, words = chapter(tmp_path, monkeypatch, {"popularity": {}, "item-knn": {}},
                                 ["rbp@20"])
    for _, row in runs.iterrows():
        ranks = np.array(records.read_record(row["path"])["ranks"])
        by_hand = sum(0.2 * 0.8 ** (rank - 1) for rank in ranks if rank <= 20) / len(ranks)
        assert row["rbp@20"] == pytest.approx(by_hand, abs=1e-6) and by_hand > 0
    assert "RBP@20" in table and any("RBP@20" in text for text in words)


def test_worker_processes_need_not_know_what_was_added(tmp_path):
    """They import the package anew; what the main process added reaches them, or is done here."""
    space = {"__name__": "recipe"}
    exec(recipe("A model"), space)
    exec(recipe("A metric"), space)
    profile = replace(PROFILE, folds_run=(0,), variants={"original": {}}, models={
        "gru4rec": TINY, "gru4rec+gat": TINY, "gat": {"d_model": 4, "max_epochs": 1}})
    first, again = (experiment.run(profile, folder=tmp_path, data=toy_data(), n_jobs=2,
                                   progress=False) for _ in range(2))
    for run, row in zip(first.itertuples(), again.to_dict("records"), strict=True):
        ranks = np.array(run.record["ranks"])
        by_hand = np.where(ranks <= 20, 0.2 * 0.8 ** (ranks - 1.0), 0).mean()
        assert row["rbp@20"] == pytest.approx(by_hand, abs=1e-6) and by_hand > 0
    assert first["rbp@20"].tolist() == again["rbp@20"].tolist()


def test_a_context_without_a_score_is_left_out_where_it_would_stand_alone(tmp_path, caplog):
    exec(recipe("A context"), {"__name__": "recipe"})
    profile = replace(PROFILE, folds_run=(0,), variants={"original": {}},
                      models={"genres": {}, "transformer+genres": HYBRID, "popularity": {}})
    runs = run_toy(profile, tmp_path)
    assert runs["model"].tolist() == ["transformer+genres", "popularity"]
    assert "genres is left out: it has no score" in caplog.text


def test_a_data_set_in_one_place_can_be_run(tmp_path, monkeypatch):
    exec(recipe("A data set"), {"__name__": "recipe"})
    ratings = toy_data().ratings.rename(columns={
        "userId": "reader", "movieId": "book", "rating": "stars", "timestamp": "place"})
    ratings.to_csv(tmp_path / "toy.csv", index=False)
    monkeypatch.chdir(tmp_path)
    runs, table, words = chapter(tmp_path, monkeypatch, {"popularity": {}, "item-knn": {}},
                                 dataset="toy")
    assert (runs["dataset"] == "toy").all() and len(runs) == 4
    assert "Item-KNN" in table and "Item-KNN" in words


ROOMS = {
    "data": "data/*.py", "sequences": "ordering.py preprocessing.py sequences.py",
    "models": "models/*.py", "train": "train/*.py losses.py",
    "recommenders": "content.py trained.py recommenders.py", "evaluate": "evaluate.py metrics.py",
    "experiment": "profiles.py tuning.py tasks.py experiment.py records.py provenance.py",
    "book": "book/**/*.py", "play": "play/*.py"}


def test_the_picture_of_the_house_has_the_lines_that_there_are():
    picture = re.search(r"```text\n(.*?)```", GUIDE, re.S)[1]
    drawn = {room: int(lines.replace(",", "")) for room, lines in
             re.findall(r"^ *(?:\+-- )?([a-z]+) +([\d,]+) ", picture, re.M)}
    counted = {room: sum(len(path.read_text(encoding="utf-8").splitlines())
                         for pattern in patterns.split()
                         for path in (ROOT / "nbrec").glob(pattern))
               for room, patterns in ROOMS.items()}
    assert drawn.keys() == counted.keys()
    off = {room: n for room, n in counted.items() if abs(drawn[room] - n) > n / 5}
    assert not off, off
    words = {name for patterns in ROOMS.values() for name in re.findall(r"(\w+)\.py", patterns)}
    inside = {path.stem for path in (ROOT / "nbrec").glob("[!_]*.py")}
    assert words | {"checks", "files", "paths"} == inside
