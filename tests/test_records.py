import json
import math
import os
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbrec import paths, provenance, records


def record(model="item-knn", fold=0, variant="original", ranks=(1, 5, 400), history=None, **more):
    ranks = list(ranks)
    base = {
        "schema": records.SCHEMA, "key": "k", "profile": "sample", "dataset": "toy",
        "model": model, "variant": variant, "fold": fold, "seed": 0, "settings": {},
        "data": {"n_train": 80, "n_validation": 10, "n_test": len(ranks), "n_items": 50,
                 "ratings_sha256": "a" * 64, "sequences_digest": "b" * 64, "split_hash": "c" * 64,
                 "funnel": []},
        "metrics": {f"hr@{k}": float(np.mean(np.array(ranks) <= k)) for k in (1, 20, 100, 300)},
        "personalisation": {"mean_popularity": 100.0, "stars": 2},
        "seconds": {"fit": 1.5, "score": 0.25},
        "users": list(range(len(ranks))), "ranks": ranks, "target_popularity": [10.0] * len(ranks),
        "popularity": {"recommended": [[1.0, 3], [100.0, 1]], "behaviour": [[0, 1], [2.0, 2]]},
        "history": history,
        "provenance": {"commit": None, "dirty": None, "device": "cpu", "cpu": "abacus",
                       "date": "2026-01-02T03:04"},
    }
    return base | more


def save(folder, **options):
    r = record(**options)
    path = records.record_path(r["profile"], r["dataset"], r["model"], r["variant"], r["fold"],
                               folder)
    return records.write_record(r, path)


# --- files ---------------------------------------------------------------------------------------


def test_a_record_lives_where_its_names_say():
    path = records.record_path("laptop", "ml-1m", "xlstm+gat", "truncated", 7, "runs")
    assert path == Path("runs/laptop/ml-1m/xlstm+gat/truncated-fold07.json")
    # A dataset given as a path must not lead out of the folder.
    path = records.record_path("sample", "/tmp/../my data.csv", "ease", "original", 0, "runs")
    assert path == Path("runs/sample/my-data.csv/ease/original-fold00.json")


def test_what_is_written_is_read_again(tmp_path):
    history = {"train_loss": [3.0, 2.0], "validation_loss": [3.5, 3.25], "seconds": [1.0, 1.0],
               "best_epoch": 1}
    r = record(history=history, ranks=[np.int64(3), np.iinfo(np.int64).max, 7])
    path = records.write_record(r, tmp_path / "a" / "x-fold00.json")
    assert records.read_record(path) == json.loads(json.dumps(r, default=int))
    assert [p.name for p in path.parent.iterdir()] == ["x-fold00.json"]  # no temporary file stays


def test_not_a_number_becomes_null(tmp_path):
    path = records.write_record(record(metrics={"hr@1": math.nan}), tmp_path / "x-fold00.json")
    assert records.read_record(path)["metrics"] == {"hr@1": None}


def test_a_failure_while_writing_leaves_the_old_record(tmp_path, monkeypatch):
    path = save(tmp_path, ranks=[1, 2])
    before = path.read_bytes()

    def fail(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no space"):
        save(tmp_path, ranks=[3, 4, 5])
    assert path.read_bytes() == before
    assert len(list(path.parent.iterdir())) == 1


def test_a_half_written_record_is_named_at_every_length(tmp_path):
    whole = save(tmp_path).read_bytes()
    path = tmp_path / "half-fold00.json"
    for length in range(0, len(whole) - 2, 7):  # the last two bytes are "}" and a line end
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="half-fold00.json: damaged record"):
            records.read_record(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe\x00", "damaged record"),
        (b'[1, 2, 3]', "not a record of nbrec"),
        (b'{"name": "jovyan"}', "not a record of nbrec"),
        (b'{"schema": 999}', "schema 999, this version reads"),
        (b'{"schema": 1}', "fields .*'ranks'.* are missing"),
    ],
)
def test_a_foreign_file_is_refused_by_name(tmp_path, content, message):
    path = tmp_path / "other-fold01.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"other-fold01.json: {message}"):
        records.read_record(path)
    with pytest.raises(ValueError, match="other-fold01.json"):
        records.load_records(tmp_path)


def test_lost_ranks_are_noticed(tmp_path):
    r = record(ranks=[1, 2, 3])
    r["ranks"].pop()
    path = records.write_record(r, tmp_path / "x-fold00.json")
    with pytest.raises(ValueError, match=r"n_test 3 and the lengths"):
        records.read_record(path)


def test_a_record_with_a_missing_field_is_not_written(tmp_path):
    r = record()
    del r["ranks"]
    with pytest.raises(ValueError, match=r"\['ranks'\] are missing"):
        records.write_record(r, tmp_path / "x-fold00.json")
    assert not list(tmp_path.iterdir())


def test_no_records_at_all_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="no records below"):
        records.load_records(tmp_path)


def test_reference_records_are_found_beside_the_package_or_above_the_working_folder(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(paths, "PACKAGE", tmp_path / "checkout" / "nbrec")
    (deep := tmp_path / "copy" / "notebooks" / "mine").mkdir(parents=True)
    monkeypatch.chdir(deep)
    for place in ("copy", "copy/notebooks/mine", "checkout"):  # each comes before those made so far
        folder = tmp_path / place / "results" / "laptop"
        folder.mkdir(parents=True)
        assert paths.reference_folder("laptop") == folder
    with pytest.raises(FileNotFoundError, match="no folder results/full.*clone the repository"):
        paths.reference_folder("full")


def test_the_committed_records_can_be_read_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = paths.reference_folder("sample")
    assert folder.parent.name == "results" and (folder.parents[1] / "pyproject.toml").is_file()
    df = records.load_records(folder)
    assert {"transformer", "item-knn"} <= set(df["model"]) and set(df["profile"]) == {"sample"}


def test_committed_records_of_one_folder_are_of_the_same_data_and_folds():
    """So that records of another copy of the data, or of other folds, are never among them."""
    results = paths.reference_folder("sample").parent
    for folder in (f for f in results.iterdir() if f.is_dir() and any(f.rglob("*.json"))):
        df = records.load_records(folder)
        assert not df.duplicated(records.IDENTITY).any(), folder
        same = df.groupby(["dataset", "variant"])[["ratings_sha256", "split_hash"]].nunique()
        assert same.eq(1).all(axis=None), f"{folder}: {same}"


def test_void_records_lie_where_no_code_reads_them():
    root = paths.reference_folder("sample").parents[1]
    void = root / "archive" / "first-edition"
    files = list(void.rglob("*-fold0*.json"))
    assert files and "void" in (void / "README.md").read_text(encoding="utf-8")
    old = {records.read_record(p)["data"]["ratings_sha256"] for p in files[:: len(files) // 8]}
    read = records.load_records(root / "results")
    assert not old & set(read["ratings_sha256"])


def test_the_key_changes_with_every_fact_and_not_with_their_order():
    facts = {"dataset": "a", "settings": {"d_model": 64, "dropout": 0.1}, "fold": 0}
    key = records.record_key(facts)
    assert records.record_key(dict(reversed(facts.items()))) == key
    assert len({key, records.record_key(facts | {"fold": 1}),
                records.record_key(facts | {"settings": {"d_model": 64, "dropout": 0.2}}),
                records.record_key(facts | {"dataset": "b"})}) == 4


def test_another_version_of_the_code_has_another_key(monkeypatch):
    key = records.record_key({"fold": 0})
    monkeypatch.setattr(records, "CODE", records.CODE + 1)
    assert records.record_key({"fold": 0}) != key


def test_the_digest_of_the_code_sees_statements_and_not_comments(tmp_path, monkeypatch):
    def digest(text):
        (tmp_path / "metrics.py").write_text(text)
        provenance.code_digest.cache_clear()
        return provenance.code_digest()

    monkeypatch.setattr(records.paths, "PACKAGE", tmp_path)
    assert digest("x = 1\n") == digest("# why\nx   =  1\n") != digest("x = 2\n")
    provenance.code_digest.cache_clear()


def test_a_record_of_the_thesis_size_is_small(tmp_path):
    # 20 models x 20 runs under 20 MB means at most 50 kB each; the thesis tests 1,284 users.
    rng = np.random.default_rng(0)
    n, popularity = 1284, 1000 * rng.integers(0, 4000, 13_318) / 10_271
    r = record(
        ranks=rng.integers(1, 13_319, n),
        target_popularity=records.significant(rng.choice(popularity, n), 3),
        popularity={name: records.popularity_histogram(rng.choice(popularity, 60_000))
                    for name in ("recommended", "behaviour")},
    )
    assert records.write_record(r, tmp_path / "x-fold00.json").stat().st_size < 30_000


@given(st.lists(st.one_of(st.just(0.0), st.floats(0.01, 1000)), min_size=1, max_size=200))
@settings(deadline=None)
def test_a_histogram_keeps_count_mean_and_order(values):
    pairs = records.popularity_histogram(np.array(values))
    popularity, times = np.array(pairs).T
    assert times.sum() == len(values)
    assert np.isclose(popularity @ times / times.sum(), np.mean(values), rtol=5.1e-5)
    assert (np.diff(popularity) >= 0).all()
    assert times[popularity == 0].sum() == values.count(0.0)  # never mixed with what was seen
    for value in values:  # no value lies further from its bin than a hundredth of a decade
        assert min(abs(np.log10(max(p, 1e-9) / max(value, 1e-9))) for p in popularity) < 0.0101


def test_significant_digits():
    rounded = records.significant([123.456, 0.00123456, 5.0, 0, math.nan], 3)
    assert rounded == [123, 0.00123, 5, 0, None]
    assert [type(v) for v in rounded[:3]] == [int, float, int]


# --- tables --------------------------------------------------------------------------------------


def test_records_become_rows(tmp_path):
    history = {"train_loss": [3, 2, 1], "validation_loss": [3, 2.5, 2.75], "seconds": [1, 1, 1],
               "best_epoch": 1}
    save(tmp_path, model="transformer", history=history, fold=3)
    save(tmp_path, model="item-knn", ranks=[1, 20, 21, 400])
    df = records.load_records(tmp_path).set_index("model")
    assert df.loc["item-knn", ["hr@1", "hr@20", "hr@300"]].tolist() == [0.25, 0.5, 0.75]
    seconds = df.loc["item-knn", ["seconds_fit", "seconds_score", "seconds"]]
    assert seconds.tolist() == [1.5, 0.25, 1.75]
    assert df.loc["transformer", ["fold", "epochs", "best_epoch"]].tolist() == [3, 3, 2]
    curves = records.histories(df.reset_index())
    assert curves["epoch"].tolist() == [1, 2, 3]
    assert curves.loc[curves["best"], "validation_loss"].tolist() == [2.5]
    users = records.per_user(df.reset_index())
    chosen = users[users["model"] == "item-knn"]
    assert chosen["rank"].tolist() == [1, 20, 21, 400] and chosen["user"].tolist() == [0, 1, 2, 3]
    pooled = records.popularity_histograms(df.reset_index())
    assert pooled.groupby("source")["times"].sum().to_dict() == {"behaviour": 6, "recommended": 8}


# --- provenance ----------------------------------------------------------------------------------


def test_provenance_says_what_ran():
    import torch

    here = provenance.facts()
    assert here["versions"]["torch"] == torch.__version__
    assert here["versions"]["numpy"] == np.__version__
    assert here["threads"] == torch.get_num_threads()
    assert here["date"].endswith("+00:00")
    git = subprocess.run(["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"],
                         capture_output=True, text=True)
    assert here["commit"] == (git.stdout.strip() if git.returncode == 0 else None)


def test_provenance_works_without_git(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    here = provenance.facts()
    assert here["commit"] is None and here["dirty"] is None
    assert records.provenance_table().loc["commit", "value"] == "unknown"


def test_provenance_table_lists_what_the_numbers_rest_on(tmp_path):
    save(tmp_path, fold=0)
    save(tmp_path, fold=4)
    table = records.provenance_table(records.load_records(tmp_path), alphabet="abc")["value"]
    assert table["dataset"] == "toy" and table["folds"] == "0, 4" and table["alphabet"] == "abc"
    assert table["split hash, original"] == "c" * 16
    assert table["processors of the records"] == "abacus"


def test_folds_from_a_hundred_on_are_found(tmp_path):
    for fold in (7, 99, 100, 1234):
        path = records.record_path("p", "d", "m", "v", fold, tmp_path)
        records.write_record(record(fold=fold), path)
    (tmp_path / "p" / "d" / "m" / "notes.json").write_text("{}")
    assert sorted(records.load_records(tmp_path)["fold"]) == [7, 99, 100, 1234]


def test_the_device_of_a_record_is_the_one_at_work(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "A GPU")
    assert provenance.facts()["device"] == "cpu"  # a processor's model beside an idle GPU
    assert provenance.facts("cuda")["device"] == "A GPU"


def test_a_package_from_a_repository_knows_its_commit(tmp_path, monkeypatch):
    package = tmp_path / "nbrec"
    package.mkdir()
    monkeypatch.setattr(paths, "PACKAGE", package)

    class Installed:
        text = json.dumps({"url": "https://example.org/nbrec", "vcs_info": {
            "vcs": "git", "commit_id": "c0ffee"}})

        def locate_file(self, name):
            return tmp_path / name

        def read_text(self, name):
            return self.text if name == "direct_url.json" else None

    installed = Installed()
    monkeypatch.setattr(provenance.metadata, "distribution", lambda name: installed)
    monkeypatch.setattr(provenance, "_git", lambda *arguments: None)
    assert provenance._commit() == ("c0ffee", False)
    Installed.text = json.dumps({"url": "file:///wheel", "archive_info": {}})
    assert provenance._commit() == (None, None)
    Installed.text = None
    assert provenance._commit() == (None, None)
    Installed.locate_file = lambda self, name: tmp_path / "another" / name
    assert provenance._commit() == (None, None)


def test_a_rank_stands_beside_the_gap_before_its_target(tmp_path):
    rows = []
    for fold, gaps in enumerate(([0, 61, None], [None] * 3)):
        made = record(fold=fold) | {"users": [7, 8, 9], "target_gaps": gaps}
        path = records.write_record(made, tmp_path / f"original-fold0{fold}.json")
        rows.append(records.flatten(records.read_record(path), path))
    users = records.per_user(pd.DataFrame(rows))
    assert users["user_id"].tolist() == [7, 8, 9] * 2 and users["rank"].tolist() == [1, 5, 400] * 2
    assert users["target_gap"].isna().tolist() == [False, False, True, True, True, True]
    assert users["target_gap"].dtype == float and users["target_gap"].tolist()[:2] == [0, 61]
    short = record() | {"target_gaps": [1]}
    records.write_record(short, tmp_path / "short.json")
    with pytest.raises(ValueError, match="target_gaps"):
        records.read_record(tmp_path / "short.json")
