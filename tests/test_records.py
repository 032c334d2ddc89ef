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

from nbrec import metrics, records


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
        "ranks": ranks, "target_popularity": [10.0] * len(ranks),
        "popularity": {"recommended": [[1.0, 3], [100.0, 1]], "behaviour": [[0, 1], [2.0, 2]]},
        "history": history,
        "provenance": {"commit": None, "dirty": None, "device": "cpu", "date": "2026-01-02T03:04"},
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
    with pytest.raises(ValueError, match=r"disagree: \[2, 3\]"):
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


def test_the_key_changes_with_every_fact_and_not_with_their_order():
    facts = {"dataset": "a", "settings": {"d_model": 64, "dropout": 0.1}, "fold": 0}
    key = records.record_key(facts)
    assert records.record_key(dict(reversed(facts.items()))) == key
    assert len({key, records.record_key(facts | {"fold": 1}),
                records.record_key(facts | {"settings": {"d_model": 64, "dropout": 0.2}}),
                records.record_key(facts | {"dataset": "b"})}) == 4


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


def frame(values_a, values_b, n_train=80, n_test=10, split=("s", "s")):
    rows = []
    for model, values, s in (("a", values_a, split[0]), ("b", values_b, split[1])):
        for fold, value in enumerate(values):
            rows.append({"profile": "p", "dataset": "d", "variant": "original", "model": model,
                         "fold": fold, "ndcg@20": value, "n_train": n_train, "n_test": n_test,
                         "split_hash": s, "seconds": 2.0})
    return pd.DataFrame(rows)


def test_summary_by_hand():
    s = records.summary(frame([0.1, 0.2, 0.3], [0.5]), ["ndcg@20"]).set_index("model")
    a = s.loc["a"]
    assert a["n"] == 3
    # Student's t at 97.5%, two degrees of freedom: 4.302653; times 0.1 / sqrt(3).
    assert a[["mean", "sd"]].to_list() == pytest.approx([0.2, 0.1])
    assert a[["low", "high"]].to_list() == pytest.approx([0.2 - 0.248414, 0.2 + 0.248414], abs=1e-6)
    assert s.loc["b", "mean"] == 0.5 and s.loc["b", ["sd", "low", "high"]].isna().all()


def test_corrected_t_test_by_hand():
    # d = 0.02, 0.04, 0.06: mean 0.04, s^2 = 0.0004. With k = 3 and n_test / n_train = 1/8 the
    # variance of the mean is (1/3 + 1/8) 0.0004 = 0.00018333, so t^2 = 8.72727. On two degrees
    # of freedom P(|T| > t) = 1 - t / sqrt(t^2 + 2) = 0.09801.
    result = records.paired_test(frame([0.12, 0.24, 0.36], [0.10, 0.20, 0.30]), "a", "b")
    assert result.difference == pytest.approx(0.04)
    assert result.p_value == pytest.approx(1 - math.sqrt(8.7272727 / 10.7272727), abs=1e-7)
    half = 4.3026527 * math.sqrt(0.00018333333)
    assert (result.low, result.high) == pytest.approx((0.04 - half, 0.04 + half), abs=1e-8)
    back = records.paired_test(frame([0.12, 0.24, 0.36], [0.10, 0.20, 0.30]), "b", "a")
    assert back.difference == pytest.approx(-0.04) and back.p_value == result.p_value


def test_the_correction_is_stricter_than_the_plain_t_test():
    from scipy.stats import ttest_rel

    rng = np.random.default_rng(1)
    a, b = rng.normal(0.3, 0.01, 10), rng.normal(0.29, 0.01, 10)
    plain = ttest_rel(a, b).pvalue
    assert records.paired_test(frame(a, b), "a", "b").p_value > plain
    # Without any test users the correction vanishes.
    assert records.paired_test(frame(a, b, n_test=0), "a", "b").p_value == pytest.approx(plain)


def test_pairs_that_cannot_be_compared_are_refused():
    with pytest.raises(ValueError, match="no fold"):
        records.paired_test(frame([0.1, 0.2], []), "a", "b")
    with pytest.raises(ValueError, match="two folds, there is 1"):
        records.paired_test(frame([0.1], [0.2]), "a", "b")
    with pytest.raises(ValueError, match="different splits"):
        records.paired_test(frame([0.1, 0.2], [0.2, 0.3], split=("s", "other")), "a", "b")
    same = records.paired_test(frame([0.1, 0.2], [0.1, 0.2]), "a", "b")
    assert same.difference == 0 and same.p_value == 1


def test_ranks_are_paired_by_fold(tmp_path):
    for fold, (a, b) in enumerate([((1, 2), (3, 4)), ((5, 6), (7, 8))]):
        save(tmp_path, model="item-knn", ranks=a, fold=fold)
        save(tmp_path, model="ease", ranks=b, fold=fold)
    save(tmp_path, model="item-knn", ranks=(9, 9), fold=2)  # ease has no such fold
    df = records.load_records(tmp_path).sample(frac=1, random_state=0)
    a, b = records.paired_ranks(df, "item-knn", "ease")
    assert a.tolist() == [1, 2, 5, 6] and b.tolist() == [3, 4, 7, 8]


def test_bootstrap_interval_is_that_of_a_mean():
    rng = np.random.default_rng(0)
    a, b = rng.integers(1, 100, 400), rng.integers(1, 100, 400)
    hits_a, hits_b = metrics.hits(a, 40), metrics.hits(b, 30)
    result = records.bootstrap_difference(hits_a, hits_b, n=20_000)
    d = hits_a - hits_b
    error = d.std() / math.sqrt(len(d))
    assert result.difference == pytest.approx(d.mean())
    assert result.low == pytest.approx(d.mean() - 1.96 * error, abs=0.1 * error)
    assert result.high == pytest.approx(d.mean() + 1.96 * error, abs=0.1 * error)
    assert result == records.bootstrap_difference(hits_a, hits_b, n=20_000)  # seeded
    # Drawing users one by one, the plain way, gives the same interval.
    plain = d[rng.integers(0, len(d), (20_000, len(d)))].mean(axis=1)
    assert (result.low, result.high) == pytest.approx(tuple(np.quantile(plain, [0.025, 0.975])),
                                                      abs=0.1 * error)
    same = records.bootstrap_difference(hits_a, hits_a)
    assert (same.difference, same.low, same.high, same.p_value) == (0, 0, 0, 1)


def test_holm_by_hand():
    # Ordered 0.01, 0.03, 0.04: 3 x 0.01 = 0.03; 2 x 0.03 = 0.06; 1 x 0.04, but not below 0.06.
    assert records.holm([0.01, 0.04, 0.03]).tolist() == pytest.approx([0.03, 0.06, 0.06])
    assert records.holm([0.9, 0.8]).max() == 1.0


# --- the thesis ----------------------------------------------------------------------------------


def test_thesis_tables():
    knn = records.thesis_table("A.2")
    row = knn.query("sequences == 'truncated' and metric == 'hr' and k == 100").iloc[0]
    assert (row["mean"], row["std"]) == (0.5137, 0.0138)
    assert len(records.thesis_table("5.1")) == 10
    sweep = records.thesis_table("3.2")
    assert sweep.loc[sweep["value"] == 512, "hr@20"].item() == 0.329
    assert "train_users" not in sweep and "train_users" in records.thesis_table("2.1")
    with pytest.raises(ValueError, match="no table '9.9'.*5.1.*A.13.*3.2"):
        records.thesis_table("9.9")


def test_tables_5_round_the_appendix_but_for_the_errata():
    """The summary tables repeat the appendix; all that differs is listed as an erratum."""
    for table, variant in (("5.1", "original"), ("5.2", "truncated")):
        wide = records.thesis_table(table).set_index("model")
        for model in wide.index:
            details = pd.concat([records.thesis_table(f"A.{i}") for i in range(1, 14)])
            details = details[(details["model"] == model) & (details["sequences"] == variant)]
            for metric, k in (("hr", 1), ("hr", 20), ("hr", 300), ("ndcg", 20)):
                value = details.query("metric == @metric and k == @k")["mean"].item()
                printed = wide.at[model, f"{metric}@{k}"]
                right, note = records.ERRATA.get((table, model, variant, f"{metric}@{k}"),
                                                 (printed, ""))
                assert abs(right - value) < 0.00051, (table, model, metric, k)
                assert bool(note) == (abs(printed - value) >= 0.00051)


def test_the_comparison_shows_the_erratum_and_corrects_for_it(tmp_path):
    for fold, ndcg in enumerate([0.09, 0.11]):
        save(tmp_path, fold=fold, metrics={"ndcg@20": ndcg, "hr@20": 0.25})
    out = records.compare_with_thesis(records.load_records(tmp_path), "5.1").set_index("metric")
    row = out.loc["ndcg@20"]
    assert row["thesis"] == 0.1489 and row["corrected"] == 0.0879 and "Table A.2" in row["note"]
    assert row["this_run"] == pytest.approx(0.1) and row["sd"] == pytest.approx(0.01 * 2**0.5)
    assert row["difference"] == pytest.approx(0.1 - 0.0879)
    assert row["thesis_sd"] == 0.0042 and row["n"] == 2
    assert out.loc["hr@20", "note"] == "" and out.loc["hr@20", "difference"] == pytest.approx(0.031)
    detailed = records.compare_with_thesis(records.load_records(tmp_path), "A.2")
    assert detailed.set_index("metric").loc["ndcg@20", "thesis"] == 0.0879
    with pytest.raises(ValueError, match="cannot be compared"):
        records.compare_with_thesis(records.load_records(tmp_path), "3.2")


# --- provenance ----------------------------------------------------------------------------------


def test_provenance_says_what_ran():
    import torch

    here = records.provenance()
    assert here["versions"]["torch"] == torch.__version__
    assert here["versions"]["numpy"] == np.__version__
    assert here["threads"] == torch.get_num_threads()
    assert here["date"].endswith("+00:00")
    git = subprocess.run(["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"],
                         capture_output=True, text=True)
    assert here["commit"] == (git.stdout.strip() if git.returncode == 0 else None)


def test_provenance_works_without_git(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    here = records.provenance()
    assert here["commit"] is None and here["dirty"] is None
    assert records.provenance_table().loc["commit", "value"] == "unknown"


def test_provenance_table_lists_what_the_numbers_rest_on(tmp_path):
    save(tmp_path, fold=0)
    save(tmp_path, fold=4)
    table = records.provenance_table(records.load_records(tmp_path), alphabet="abc")["value"]
    assert table["dataset"] == "toy" and table["folds"] == "0, 4" and table["alphabet"] == "abc"
    assert table["split hash, original"] == "c" * 16
