"""Published numbers beside ours: every verdict worked by hand."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_records import save

from nbrec import recommenders, records
from nbrec.book import verification


def users(model, ranks, with_seen=None):
    return pd.DataFrame({"model": model, "rank": ranks,
                         "rank_with_seen": ranks if with_seen is None else with_seen})


def test_scores_by_hand():
    table = verification.scores(users("mamba", [1, 2, 11, 40], [2, 3, 12, 9]))
    table = table.set_index(["protocol", "metric"])
    assert table.loc[("A", "hr@10"), "value"] == 0.5
    assert table.loc[("E", "hr@10"), "value"] == 0.75
    assert table.loc[("A", "mrr@10"), "value"] == pytest.approx((1 + 1 / 2) / 4)
    assert table.loc[("A", "ndcg@10"), "value"] == pytest.approx((1 + 1 / math.log2(3)) / 4)
    error = math.sqrt((0.5**2 * 4 / 3) / 4)  # of 1, 1, 0, 0
    assert table.loc[("A", "hr@10"), "high"] == pytest.approx(0.5 + 1.959964 * error, rel=1e-6)


def test_verdicts():
    n = 6040
    hits = round(0.3152 * n)  # as many as SASRec of protocol A has
    ranks = np.array([1] * hits + [99] * (n - hits))
    table = verification.compare(users("transformer", ranks, np.full(n, 99)))
    table = table.set_index(["published", "protocol", "metric"])
    same = table.loc[("SASRec, cross-entropy", "A", "hr@10")]
    assert same["verdict"] == "agrees" and abs(same["difference"]) < 1e-4
    assert same["reach"] == pytest.approx(1.959964 * math.sqrt(2 * 0.3152 * 0.6848 / n), rel=1e-3)
    assert table.loc[("SASRec, one negative", "A", "hr@10"), "verdict"] == "above"
    assert table.loc[("SASRec, cross-entropy", "E", "hr@10"), "verdict"] == "below"
    assert table.loc[("SASRec, cross-entropy", "A", "mrr@10"), "verdict"] == "above"
    assert ("SASRec, one negative", "A", "mrr@10") not in table.index  # none is printed


def test_a_sample_flatters_as_drawing_it_shows():
    rng = np.random.default_rng(0)
    ranks, n = np.array([1, 8, 120, 400, 999]), 1000
    drawn = np.mean([[(rng.choice(n - 1, 100, replace=False) < r - 1).sum() < 10 for r in ranks]
                     for _ in range(2000)])
    exact = verification.sampled_hit_rate(ranks, n)
    assert exact == pytest.approx(drawn, abs=0.01)
    assert exact > np.mean(ranks <= 10) + 0.04
    assert verification.sampled_hit_rate(ranks, n, n - 1) == np.mean(ranks <= 10)
    each = [verification.sampled_hit_rate(ranks[i : i + 1], c) for i, c in ((1, 500), (2, 1000))]
    both = verification.sampled_hit_rate(ranks[1:3], np.array([500, 1000]))
    assert both == pytest.approx(np.mean(each)) and each[0] != each[1]
    with pytest.raises(ValueError, match="1000 negatives of 1000"):
        verification.sampled_hit_rate(ranks, np.array([2000, n]), n)


def test_published_numbers_name_our_models_and_sources():
    table = verification.published()
    assert set(table["ours"]) <= set(recommenders.names())
    assert table[["hr@10", "ndcg@10"]].lt(0.5).all(axis=None)
    keys = (Path(__file__).parents[1] / "references.bib").read_text(encoding="utf-8")
    assert all(f"{{{s}," in keys or s == "unreviewed preprint" for s in table["source"])


def test_four_protocols_of_the_same_scores():
    table = users("ease", [1, 11, 30], [5, 20, 30]).assign(history_length=[10, 20, 30])
    row = verification.protocols(table, 2000).iloc[0]
    assert (row["unseen"], row["all"]) == (1 / 3, 1 / 3)
    assert row["sampled_1000"] <= row["sampled_100"] <= 1 and row["sampled_100"] > 0.99
    assert (row["ahead"], row["history"]) == (4, 20)


def test_a_band_is_kept_or_left():
    ours = pd.DataFrame([("sasrec", "A", "hr@10", 0.30, 0.29, 0.31),
                         ("sasrec", "E", "hr@10", 0.28, 0.27, 0.295),
                         ("sasrec", "A", "ndcg@10", 0.20, 0.19, 0.21),
                         ("sasrec", "A", "mrr@10", 0.1, 0.1, 0.1),
                         ("mamba", "A", "hr@10", 0.3, 0.3, 0.3)],
                        columns=["model", "protocol", "metric", "value", "low", "high"])
    band = verification.within_band(ours)
    assert band["verdict"].tolist() == ["inside", "below", "above"]
    assert band["reaches"].tolist() == [True, True, False]
    assert verification.within_band(ours.iloc[:0]).empty


def test_changes_are_of_the_same_users():
    both = pd.concat([users("sasrec", [1, 50, 2, 50], [50] * 4), users("transformer", [50] * 4)])
    out = verification.changes(both.assign(user=[0, 1, 2, 3] * 2))
    assert out["protocol"].tolist() == ["A", "E"] and set(out["second"]) == {"transformer"}
    assert out["difference"].tolist() == [0.5, 0] and out.loc[0, "low"] < 0.5 < out.loc[0, "high"]


def test_what_is_run_again_is_held_to_its_record():
    now = pd.concat([users("ease", [1, 20, 3, 4]), users("svd", [1, 2, 3, 4])])
    out = verification.same_ranks(now, users("ease", [1, 20, 9, 4])).set_index("model")
    assert out.loc["ease", ["hr_now", "hr_then", "same"]].tolist() == [0.75, 0.75, 0.75]
    assert out.loc["svd", "hr_now"] == 1 and np.isnan(out.loc["svd", "same"])
    assert verification.same_ranks(now, now.iloc[:0])["same"].isna().all()


def test_trainings_say_what_a_model_has_and_dash_the_rest(tmp_path):
    history = {"train_loss": [3.0, 2.0], "validation_loss": [3.0, 2.0], "best_epoch": 1}
    save(tmp_path, model="sasrec", history=history, settings={"model": {"d_model": 64}},
         seconds={"fit": 90.0, "score": 30.0})
    row = verification.trainings(records.load_records(tmp_path)).iloc[0]
    assert row[["d_model", "epochs", "best_epoch", "minutes"]].tolist() == [64, 2, 2, 2]
    assert np.isnan(row["dropout"])
