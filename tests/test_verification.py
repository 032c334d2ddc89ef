"""Published numbers beside ours: every verdict worked by hand."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nbrec import recommenders
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
