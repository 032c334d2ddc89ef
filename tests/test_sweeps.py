"""Runs with one setting changed, by hand."""

import numpy as np
import pandas as pd
import pytest
from test_costs import run

from nbrec import records
from nbrec.book import sweeps


def test_tried_settings_by_hand(tmp_path):
    """Hits at 20 of four users: as it is 2, narrow 1 (a user lost), wide 3 (a user won)."""
    usual = {"name": "mamba", "d_model": 64, "d_ff": 256, "learning_rate": 0.001}
    narrow, wide = ({"d_model": n, "d_ff": 4 * n} for n in (32, 128))
    run(tmp_path, "mamba", seconds=[6, 6], ranks=(1, 2, 99, 99), settings=usual)
    run(tmp_path, "narrow", seconds=[2], ranks=(1, 99, 99, 99), settings=usual | narrow)
    run(tmp_path, "mamba-wide-7", seconds=[9, 9, 9], ranks=(1, 2, 20, 21), settings=usual | wide)
    run(tmp_path, "c", seconds=[6], ranks=(1, 2, 99, 99), settings=usual | {"learning_rate": 0.01})
    run(tmp_path, "two changes", seconds=[6], ranks=(1, 2, 3, 4),
        settings=usual | {"learning_rate": 0.1, "d_model": 8})
    run(tmp_path, "no number", seconds=[6], ranks=(1, 2, 3, 4), settings=usual | {"form": "x"})
    t = sweeps.tried(records.load_records(tmp_path), ["hr@20", "mrr@20"])
    assert set(t["metric"]) == {"hr@20", "mrr@20"} and set(t["model"]) == {"mamba"}
    width = t[(t["setting"] == "d_model") & (t["metric"] == "hr@20")].set_index("value")
    assert width.index.tolist() == [32, 64, 128]
    assert width["chosen"].tolist() == [False, True, False]
    assert width["mean"].tolist() == [0.25, 0.5, 0.75]
    assert width["gap"].tolist() == [-0.25, 0, 0.25]
    assert width["steady"].tolist() == [2 + 1, 2 * 6 + 1, 3 * 9 + 1]
    assert width["epochs"].tolist() == [1, 2, 3] and set(width["n"]) == {4}
    # One user in four differs: of the resamples (3/4)^4 = 32% have no such user.
    assert width.loc[128, ["gap_low", "gap_high"]].tolist() == [0, 0.75]
    assert width.loc[64, ["gap_low", "gap_high"]].tolist() == [0, 0]
    rate = t[(t["setting"] == "learning_rate") & (t["metric"] == "hr@20")]
    assert rate["value"].tolist() == [0.001, 0.01] and rate["chosen"].tolist() == [True, False]
    assert rate["gap"].tolist() == [0, 0]
    mrr = t[(t["setting"] == "d_model") & (t["metric"] == "mrr@20")]["mean"]
    assert mrr.tolist() == pytest.approx([1 / 4, 1.5 / 4, (1.5 + 1 / 20) / 4])


def test_a_share_of_the_users_is_all_where_none_is_named(tmp_path):
    run(tmp_path, "transformer", seconds=[1], settings={"d_model": 8})
    run(tmp_path, "a tenth", seconds=[1],
        settings={"name": "transformer", "d_model": 8, "train_share": 0.1})
    t = sweeps.tried(records.load_records(tmp_path))
    assert t[["value", "chosen"]].to_numpy().tolist() == [[0.1, False], [1.0, True]]


def test_a_setting_that_records_leave_out_when_off_counts_as_zero(tmp_path):
    run(tmp_path, "sasrec", seconds=[1], settings={"d_model": 8})
    run(tmp_path, "on all", seconds=[1],
        settings={"name": "sasrec", "d_model": 8, "every_item": True})
    t = sweeps.tried(records.load_records(tmp_path))
    assert t[["value", "chosen"]].to_numpy().tolist() == [[0.0, True], [1.0, False]]


def test_without_the_model_as_it_is_nothing_is_a_change(tmp_path):
    run(tmp_path, "strong", ranks=(1, 2), settings={"name": "ease", "l2": 10})
    assert sweeps.tried(records.load_records(tmp_path), ["hr@1"]).empty
    # Another split has other users, who cannot be compared one by one.
    run(tmp_path, "ease", settings={"l2": 5}, ranks=(1, 1), data={
        "n_train": 80, "n_validation": 10, "n_test": 2, "n_items": 50, "ratings_sha256": "a",
        "sequences_digest": "b", "split_hash": "another", "funnel": []})
    t = sweeps.tried(records.load_records(tmp_path), ["hr@1"]).set_index("value")
    assert t["label"].to_dict() == {5: "ease", 10: "strong"} and t["mean"].tolist() == [1, 0.5]
    assert np.isnan(t.loc[10, "gap"]) and t.loc[5, "gap"] == 0


def test_nothing_tried_is_an_empty_table(tmp_path):
    run(tmp_path, "ease")
    assert sweeps.tried(records.load_records(tmp_path)).empty
    assert sweeps.tried(pd.DataFrame()).empty


def test_a_sweep_stands_beside_the_thesis(tmp_path):
    usual = {"name": "transformer", "d_model": 128, "d_ff": 512}
    run(tmp_path, "transformer", seconds=[60, 60], score=0, settings=usual)
    run(tmp_path, "narrow", seconds=[30], score=0, settings=usual | {"d_model": 64, "d_ff": 256})
    tried = sweeps.tried(records.load_records(tmp_path), ["hr@20"])
    out = sweeps.beside_thesis("3.2", tried, "d_model").set_index(["source", "metric", "value"])
    assert out.loc[("thesis", "hr@20", 512), "mean"] == 0.329
    assert out.loc[("ours", "minutes"), "mean"].to_dict() == {64: 0.5, 128: 2}
    assert out.loc[("ours", "hr@20", 64), "mean"] == pytest.approx(2 / 3)
    assert "users" not in out.index.get_level_values("metric")
    assert set(sweeps.beside_thesis("2.1", tried.iloc[:0], "train_share")["source"]) == {"thesis"}
