import math

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


def test_times_are_means_of_the_parts(tmp_path):
    run(tmp_path, "gat", seconds=[2, 8], fit=20, score=1)
    run(tmp_path, "mamba+gat", seconds=[5], fit=10, score=3, context=99)
    run(tmp_path, "ease", fit=4, score=2)
    t = costs.times(costs.steady(records.load_records(tmp_path)))
    assert t.loc["gat", ["fit", "score", "epochs", "steady", "slowed"]].tolist() == [
        4, 1, 2, 5, 20 / 4]
    assert t.loc["mamba+gat", ["fit", "contexts", "steady"]].tolist() == [5, 4, 12]
    assert math.isnan(t.loc["ease", "contexts"]) and math.isnan(t.loc["ease", "epoch_seconds"])


def test_the_front_has_a_test_for_each_step(tmp_path):
    """Cheap and poor, dear and good, dear and poor, and a model with a fold less."""
    for fold in range(3):
        for model, fit, hit in (("svd", 1, 30 + fold), ("ease", 10, 90 - fold),
                                ("item-knn", 20, 50)):
            run(tmp_path, model, fit=fit, score=0, fold=fold, ranks=[1] * hit + [99] * (99 - hit))
    run(tmp_path, "mamba", fit=0.1, score=0, ranks=[1] * 99)
    df = costs.steady(records.load_records(tmp_path))
    front = costs.front(df, "hr@20")
    assert front["model"].tolist() == ["svd", "ease"] and front["steady"].tolist() == [1, 10]
    step = front.iloc[1]
    assert step["times"] == 10 and step["difference"] == pytest.approx((89 - 31) / 99, abs=1e-5)
    assert step["low"] < step["difference"] < step["high"] and math.isnan(front["times"][0])
    found = costs.within(front, {"soon": 0.5, "now": 1, "later": 60})
    assert found["model"].tolist() == ["", "svd", "ease"] and math.isnan(found["value"].iloc[0])
