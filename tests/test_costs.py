import numpy as np
import pandas as pd
import pytest
from test_records import save

from nbrec import records
from nbrec.book import costs


def run(folder, model, seconds=None, fold=0, fit=100.0, score=1.0, context=None, ranks=(1, 5, 400),
        settings=None, **more):
    history = None if seconds is None else {
        "train_loss": [1.0] * len(seconds), "validation_loss": [1.0] * len(seconds),
        "seconds": list(seconds), "best_epoch": 0}
    times = {"fit": fit, "score": score} | ({} if context is None else {"context": context})
    save(folder, model=model, fold=fold, history=history, ranks=ranks, seconds=times,
         settings={"model": settings or {}}, **more)


def by_model(df, column):
    return df.set_index(["model", "fold"])[column].to_dict()


def test_steady_times_by_hand(tmp_path):
    run(tmp_path, "item-knn", fit=3.0)
    run(tmp_path, "gat", seconds=[2, 8, 4], fit=14)
    run(tmp_path, "gat", seconds=[3, 3], fit=6, fold=1)
    run(tmp_path, "xlstm+gat+gat-user", seconds=[10, 500], context=14)
    run(tmp_path, "xlstm+gat+gat-user", seconds=[20], context=9, fold=7)
    run(tmp_path, "mamba+tfidf", seconds=[5], context=0.5)
    df = costs.steady(records.load_records(tmp_path))
    assert by_model(df, "steady_fit") == {
        ("item-knn", 0): 3, ("gat", 0): 3 * 2, ("gat", 1): 2 * 2, ("mamba+tfidf", 0): 5,
        ("xlstm+gat+gat-user", 0): 2 * 10, ("xlstm+gat+gat-user", 7): 10}
    assert by_model(df, "steady_context") == {
        ("item-knn", 0): 0, ("gat", 0): 0, ("gat", 1): 0,
        ("mamba+tfidf", 0): 0.5,  # no run of its own: as measured
        ("xlstm+gat+gat-user", 0): (6 + 4) / 2, ("xlstm+gat+gat-user", 7): (6 + 4) / 2}
    assert by_model(df, "steady")["xlstm+gat+gat-user", 0] == 20 + 5 + 1
    assert df["epoch_seconds"].isna().sum() == 1


def test_variants_and_profiles_have_epochs_of_their_own(tmp_path):
    for variant, second in (("original", 4), ("truncated", 1)):
        run(tmp_path, "mamba", seconds=[9, second], variant=variant)
    run(tmp_path, "mamba", seconds=[0.5], profile="other")
    df = costs.steady(records.load_records(tmp_path)).set_index(["profile", "variant"])
    assert df["epoch_seconds"].to_dict() == {
        ("sample", "original"): 4, ("sample", "truncated"): 1, ("other", "original"): 0.5}


def test_an_encoder_whose_vectors_were_kept_costs_what_encoding_took(tmp_path):
    for fold, fit in enumerate((80, 0.1, 150)):  # fold 1 read what fold 0 had kept
        run(tmp_path, "minibert", fit=fit, fold=fold)
        run(tmp_path, "mamba+minibert", seconds=[1], fold=fold)
    df = costs.steady(records.load_records(tmp_path))
    assert df.loc[df["model"] == "mamba+minibert", "steady_context"].tolist() == [80] * 3


def test_records_without_epochs_keep_their_times(tmp_path):
    run(tmp_path, "ease", fit=2.5, score=0.5)
    df = costs.steady(records.load_records(tmp_path))
    assert df[["steady_fit", "steady_context", "steady"]].to_numpy().tolist() == [[2.5, 0, 3]]


@pytest.mark.parametrize("label, parts", [
    ("item-knn-last_n-5", ("item-knn", "last_n", "5")),
    ("transformer-learning_rate-0.0003", ("transformer", "learning_rate", "0.0003")),
    ("ease-l2-1e-05", ("ease", "l2", "1e-05")),
    ("xlstm+gat-d_model-64", ("xlstm+gat", "d_model", "64")),
    ("transformer", None), ("item-knn", None), ("gat-inductive", None),
    ("xlstm+gat+gat-user", None),
])
def test_labels_of_changed_settings(label, parts):
    match = costs.LABEL.fullmatch(label)
    assert (match and match.groups()) == parts


def test_a_model_without_some_fold_is_not_complete(tmp_path):
    for variant, folds in (("original", 3), ("truncated", 2)):
        for fold in range(folds):
            run(tmp_path, "ease", fold=fold, variant=variant)
            if fold != 2:
                run(tmp_path, "svd", fold=fold, variant=variant)
    whole = costs.complete(records.load_records(tmp_path))
    assert sorted(zip(whole["variant"], whole["model"], whole["fold"], strict=True)) == [
        *(("original", "ease", fold) for fold in range(3)),
        *(("truncated", model, fold) for model in ("ease", "svd") for fold in range(2))]


def test_tried_settings_by_hand(tmp_path):
    """Hits at 20 of four users: as it is 2, narrow 1 (a user lost), wide 3 (a user won)."""
    usual = {"d_model": 64, "learning_rate": 0.001}
    run(tmp_path, "mamba", seconds=[6, 6], ranks=(1, 2, 99, 99), settings=usual)
    run(tmp_path, "mamba-d_model-32", seconds=[2], ranks=(1, 99, 99, 99))
    run(tmp_path, "mamba-d_model-128", seconds=[9, 9, 9], ranks=(1, 2, 20, 21))
    run(tmp_path, "mamba-learning_rate-0.01", seconds=[6], ranks=(1, 2, 99, 99))
    t = costs.tried(records.load_records(tmp_path), ["hr@20", "mrr@20"])
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
    run(tmp_path, "transformer-train_share-0.1", seconds=[1])
    t = costs.tried(records.load_records(tmp_path))
    assert t[["value", "chosen"]].to_numpy().tolist() == [[0.1, False], [1.0, True]]


def test_a_setting_that_records_leave_out_when_off_counts_as_zero(tmp_path):
    run(tmp_path, "sasrec", seconds=[1], settings={"d_model": 8})
    run(tmp_path, "sasrec-every_item-1", seconds=[1])
    t = costs.tried(records.load_records(tmp_path))
    assert t[["value", "chosen"]].to_numpy().tolist() == [[0.0, True], [1.0, False]]


def test_without_the_model_as_it_is_there_is_no_gap(tmp_path):
    run(tmp_path, "ease-l2-10", ranks=(1, 2))
    t = costs.tried(records.load_records(tmp_path), ["hr@1"])
    assert t["mean"].tolist() == [0.5] and np.isnan(t["gap"]).all() and not t["chosen"].any()
    # Another split has other users, who cannot be compared one by one.
    run(tmp_path, "ease", settings={"l2": 5}, ranks=(1, 1), data={
        "n_train": 80, "n_validation": 10, "n_test": 2, "n_items": 50, "ratings_sha256": "a",
        "sequences_digest": "b", "split_hash": "another", "funnel": []})
    t = costs.tried(records.load_records(tmp_path), ["hr@1"]).set_index("value")
    assert np.isnan(t.loc[10, "gap"]) and t.loc[5, "gap"] == 0


def test_nothing_tried_is_an_empty_table(tmp_path):
    run(tmp_path, "ease")
    assert costs.tried(records.load_records(tmp_path)).empty
    assert costs.tried(pd.DataFrame()).empty
