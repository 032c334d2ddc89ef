"""The thesis's printed numbers, and records beside them."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from test_records import save
from test_significance import several

from nbrec import paths, records
from nbrec.book import comparison, costs, orders, user_level

# --- the thesis ----------------------------------------------------------------------------------


def test_thesis_tables():
    knn = comparison.thesis_table("A.2")
    row = knn.query("sequences == 'truncated' and metric == 'hr' and k == 100").iloc[0]
    assert (row["mean"], row["std"]) == (0.5137, 0.0138)
    assert len(comparison.thesis_table("5.1")) == 10
    sweep = comparison.thesis_table("3.2")
    assert sweep.loc[sweep["value"] == 512, "hr@20"].item() == 0.329
    assert "train_users" not in sweep and "train_users" in comparison.thesis_table("2.1")
    with pytest.raises(ValueError, match="no table '9.9'.*5.1.*A.13.*3.2"):
        comparison.thesis_table("9.9")


def test_tables_5_round_the_appendix_but_for_the_errata():
    """The summary tables repeat the appendix; all that differs is listed as an erratum."""
    for table, variant in (("5.1", "original"), ("5.2", "truncated")):
        wide = comparison.thesis_table(table).set_index("model")
        for model in wide.index:
            details = pd.concat([comparison.thesis_table(f"A.{i}") for i in range(1, 14)])
            details = details[(details["model"] == model) & (details["sequences"] == variant)]
            for metric, k in (("hr", 1), ("hr", 20), ("hr", 300), ("ndcg", 20)):
                value = details.query("metric == @metric and k == @k")["mean"].item()
                printed = wide.at[model, f"{metric}@{k}"]
                right, note = comparison.ERRATA.get((table, model, variant, f"{metric}@{k}"),
                                                 (printed, ""))
                assert abs(right - value) < 0.00051, (table, model, metric, k)
                assert bool(note) == (abs(printed - value) >= 0.00051)


def test_the_comparison_shows_the_erratum_and_corrects_for_it(tmp_path):
    for fold, ndcg in enumerate([0.09, 0.11]):
        save(tmp_path, fold=fold, metrics={"ndcg@20": ndcg, "hr@20": 0.25})
    out = comparison.compare_with_thesis(records.load_records(tmp_path), "5.1").set_index("metric")
    row = out.loc["ndcg@20"]
    assert row["thesis"] == 0.1489 and row["corrected"] == 0.0879 and "Table A.2" in row["note"]
    assert row["this_run"] == pytest.approx(0.1) and row["sd"] == pytest.approx(0.01 * 2**0.5)
    assert row["difference"] == pytest.approx(0.1 - 0.0879)
    assert row["thesis_sd"] == 0.0042 and row["n"] == 2
    assert out.loc["hr@20", "note"] == "" and out.loc["hr@20", "difference"] == pytest.approx(0.031)
    detailed = comparison.compare_with_thesis(records.load_records(tmp_path), "A.2")
    assert detailed.set_index("metric").loc["ndcg@20", "thesis"] == 0.0879
    with pytest.raises(ValueError, match="cannot be compared"):
        comparison.compare_with_thesis(records.load_records(tmp_path), "3.2")


def test_runs_stand_below_the_thesis_even_with_different_models(tmp_path):
    numbers = {"item-knn": 0.2, "transformer": 0.3, "ease": 0.4}  # the thesis has no EASE
    for run, models in (("small", ["item-knn", "ease"]), ("large", ["transformer", "item-knn"])):
        for model in models:
            for fold in (0, 1):
                save(tmp_path / run, model=model, fold=fold,
                     metrics={"hr@20": numbers[model] + 0.02 * fold, "ndcg@20": 0.1})
    runs = {run: records.load_records(tmp_path / run) for run in ("small", "large")}
    out = comparison.beside_thesis(runs, "5.1")
    assert list(dict.fromkeys(out["model"])) == ["item-knn", "transformer"]  # the thesis's order
    rows = out[out["metric"] == "hr@20"].set_index(["model", "source"])
    assert rows.loc["item-knn"].index.tolist() == [
        "thesis", "small", "difference, small", "large", "difference, large"]
    assert rows.loc["transformer"].index.tolist() == ["thesis", "large", "difference, large"]
    assert rows.loc[("transformer", "difference, large"), "value"] == pytest.approx(0.31 - 0.326)
    assert rows.loc[("item-knn", "large"), ["value", "sd"]].tolist() == pytest.approx(
        [0.21, 0.02 / math.sqrt(2)])
    knn = out[(out["model"] == "item-knn") & (out["metric"] == "ndcg@20")].set_index("source")
    assert knn.loc["thesis", "value"] == 0.1489 and "Table A.2" in knn.loc["thesis", "note"]
    assert knn.loc["difference, small", "value"] == pytest.approx(0.1 - 0.0879)
    assert (knn.drop("thesis")["note"] == "").all()
    stars = out[(out["metric"] == "stars") & (out["source"] == "thesis")].set_index("model")
    assert stars["value"].to_dict() == {"item-knn": 2, "transformer": 3}
    apart = {m: runs["large"].query("model == @m") for m in ("transformer", "item-knn")}
    out = comparison.beside_thesis(apart, "5.1")  # the order is the thesis's, not that of the runs
    assert list(dict.fromkeys(out["model"])) == ["item-knn", "transformer"]
    assert comparison.beside_thesis(runs, "A.6").empty  # neither run has Mamba


# --- over users, mean ranks, and the thesis's order ----------------------------------------------


def test_means_over_users_pool_the_folds(tmp_path):
    save(tmp_path, model="ease", ranks=(1, 30, 2), fold=0)
    save(tmp_path, model="ease", ranks=(40, 3), fold=1)
    save(tmp_path, model="item-knn", ranks=(50, 20, 21), fold=0)
    df = records.load_records(tmp_path)
    out = user_level.over_users(df, ["hr@20", "ndcg@20"]).set_index(["model", "metric"])
    assert out.loc[("ease", "hr@20"), ["mean", "n", "folds"]].tolist() == [3 / 5, 5, 2]
    gains = 1 + 1 / math.log2(3) + 1 / math.log2(4)  # ranks 1, 2 and 3
    assert out.loc[("ease", "ndcg@20"), "mean"] == pytest.approx(gains / 5)
    assert out.loc[("item-knn", "hr@20"), ["mean", "n", "folds"]].tolist() == [1 / 3, 3, 1]
    ahead = user_level.over_users(df, ["hr@20"], against="item-knn")
    # On fold 0 alone: hits 1, 0, 1 against 0, 1, 0.
    assert ahead["model"].tolist() == ["ease"]
    assert ahead.loc[0, ["mean", "n", "folds"]].tolist() == [1 / 3, 3, 1]
    assert ahead.loc[0, "low"] == -1 and ahead.loc[0, "high"] == 1
    assert user_level.over_users(df, against="svd").empty


def test_truncation_effect_by_hand_and_beside_the_thesis(tmp_path):
    rng = np.random.default_rng(4)
    ranks = {"original": rng.integers(1, 50, 600), "truncated": rng.integers(1, 70, 400)}
    for variant, own in ranks.items():
        save(tmp_path, model="item-knn", variant=variant, ranks=own[:300], fold=0)
        save(tmp_path, model="ease", variant=variant, ranks=own, fold=0)
    save(tmp_path, model="item-knn", ranks=ranks["original"][300:], fold=1)
    save(tmp_path, model="svd", ranks=(1, 2, 3))  # has one variant only
    out = user_level.truncation_effect(records.load_records(tmp_path), ["hr@20", "ndcg@20"], 20_000)
    rows = out.set_index(["model", "metric"])
    assert set(out["model"]) == {"ease", "item-knn"}
    assert rows.loc[("item-knn", "hr@20"), "original"] == pytest.approx(
        np.mean(ranks["original"] <= 20))
    assert rows.loc[("item-knn", "hr@20"), "folds"] == 1
    row = rows.loc[("ease", "hr@20")]
    share = {v: np.mean(own <= 20) for v, own in ranks.items()}
    error = {v: math.sqrt(share[v] * (1 - share[v]) / len(own)) for v, own in ranks.items()}
    error["difference"] = math.hypot(error["original"], error["truncated"])
    share["difference"] = share["truncated"] - share["original"]
    for part, mean in share.items():
        e = error[part]
        assert row[part] == pytest.approx(mean)
        assert (row[f"{part}_low"], row[f"{part}_high"]) == pytest.approx(
            (mean - 1.96 * e, mean + 1.96 * e), abs=0.1 * e)
    # Tables 5.2 and 5.1, the NDCG@20 of the latter corrected: 0.0879, not 0.1489.
    assert rows.loc[("item-knn", "hr@20"), "thesis"] == pytest.approx(0.218 - 0.219)
    assert rows.loc[("item-knn", "ndcg@20"), "thesis"] == pytest.approx(0.0953 - 0.0879)
    assert math.isnan(row["thesis"])


def test_truncation_compares_the_users_of_both_variants_with_themselves(tmp_path):
    # Users 3 to 8 are in both variants, in other folds and another order. Hits at 20, by hand.
    runs = {"original": [((1, 3, 5, 7), (1, 30, 2, 3)), ((2, 4, 6, 8), (9, 4, 5, 99))],
            "truncated": [((8, 7, 6), (1, 50, 50)), ((9, 5, 4, 3), (50, 1, 50, 60))]}
    for variant, folds in runs.items():
        for fold, (users, ranks) in enumerate(folds):
            save(tmp_path, fold=fold, users=users, ranks=ranks, variant=variant)
    [row] = user_level.truncation_effect(records.load_records(tmp_path)).to_dict("records")
    d = np.array([0, -1, 0, -1, -1, 1])  # users 3 to 8
    assert (row["users"], row["same"]) == (6, pytest.approx(d.mean()))
    # Two folds, test parts of 4, 4, 3 and 4 users for 80 to train with.
    half = 1.96 * d.std(ddof=1) * math.sqrt((1 + 2 * 3.75 / 80) / 6)
    assert (row["same_low"], row["same_high"]) == pytest.approx(
        (row["same"] - half, row["same"] + half))
    assert (row["left"], row["entered"]) == (1, 0)  # users 1 and 2; user 9
    assert row["difference"] == pytest.approx(2 / 7 - 6 / 8)


def test_pairs_of_the_thesis_have_its_direction():
    df = several(**{m: [0.1] for m in ("gat", "mamba", "item-knn", "ease", "transformer")})
    assert comparison.thesis_pairs(df) == [
        ("transformer", "mamba"), ("transformer", "item-knn"), ("transformer", "gat"),
        ("mamba", "item-knn"), ("mamba", "gat"), ("item-knn", "gat")]
    assert comparison.thesis_pairs(df, "hr@300")[0] == ("item-knn", "transformer")
    # Three stars each: the thesis does not say which of the two is ahead.
    stars = comparison.thesis_pairs(df, "stars")
    assert ("transformer", "item-knn") in stars and ("transformer", "mamba") not in stars
    assert comparison.thesis_pairs(df, variant="truncated") == []


# HR@20 of the thesis, original: 0.361, 0.326, 0.219, 0.145.
BEST_FIRST = ["xlstm+gat", "transformer", "item-knn", "lightgcn"]


def test_agreement_with_the_same_order_and_with_the_reverse(tmp_path):
    for run, models in (("same", BEST_FIRST), ("reverse", BEST_FIRST[::-1])):
        for place, model in enumerate([*models, "ease"]):
            for fold in range(5):
                hits = [1] * (40 - 10 * place) + [99] * (10 + 10 * place)
                save(tmp_path / run, model=model, fold=fold, ranks=hits,
                     seconds={"fit": 10.0 ** -place, "score": 0.0})
        out = orders.rank_agreement(records.load_records(tmp_path / run), ["hr@20", "seconds"])
        hr, seconds = out.to_dict("records")
        tau = 1 if run == "same" else -1
        assert [hr[k] for k in ("variant", "tau", "models", "pairs", "least", "most", "over")] == [
            "original", tau, 4, 6, 5, 5, "users"]
        assert (hr["low"], hr["high"]) == (tau, tau)  # no drawing turns such gaps round
        # The thesis's seconds: xlstm+gat, transformer, lightgcn, item-knn: one pair the other way.
        # Reversed, the slowest is the thesis's second fastest.
        assert seconds["tau"] == pytest.approx(tau * 2 / 3)
        assert seconds["over"] == "folds" and seconds["low"] == seconds["tau"]
    few = records.load_records(tmp_path / "same").query("fold < 4 or model != 'item-knn'")
    seconds = orders.rank_agreement(few, ["seconds"]).iloc[0]
    assert seconds["over"] == "" and math.isnan(seconds["low"]) and seconds["least"] == 4
    two = few[few["model"].isin(["transformer", "ease", "item-knn"])]
    assert orders.rank_agreement(two).empty


def test_the_interval_of_agreement_draws_the_same_users_for_all_models(tmp_path):
    rng = np.random.default_rng(5)
    hard = rng.random(120) < 0.5  # users are alike for all models: a drawing for each would differ
    ranks = {m: np.where(hard | (rng.random(120) < 0.1 * i), 50, 1)
             for i, m in enumerate(BEST_FIRST[:3])}
    for model, own in ranks.items():
        save(tmp_path, model=model, ranks=own)
    df = records.load_records(tmp_path)
    row = orders.rank_agreement(df, ["hr@20"], n=4000).iloc[0]
    order, hits = [3, 2, 1], np.array([ranks[m] <= 20 for m in BEST_FIRST[:3]], float)
    taus = [stats.kendalltau(order, hits[:, rng.integers(0, 120, 120)].mean(axis=1)).statistic
            for _ in range(2000)]
    assert row["tau"] == pytest.approx(stats.kendalltau(order, hits.mean(axis=1)).statistic)
    low, high = np.nanquantile(taus, [0.025, 0.975])
    assert (row["low"], row["high"]) == pytest.approx((low, high))
    assert row["low"] < row["high"]
    df.loc[df["model"] == "item-knn", "split_hash"] = "other"
    with pytest.raises(ValueError, match="different splits"):
        orders.rank_agreement(df)


def test_seconds_draw_the_folds(tmp_path):
    rng = np.random.default_rng(6)
    seconds = np.array([[9, 5, 7, 3, 8, 6], [4, 8, 3, 9, 2, 7], [1, 2, 6, 8, 5, 4]], float)
    for model, own in zip(("transformer", "item-knn", "lightgcn"), seconds, strict=True):
        for fold, value in enumerate(own):
            save(tmp_path, model=model, fold=fold, seconds={"fit": value, "score": 0.0})
    row = orders.rank_agreement(records.load_records(tmp_path), ["seconds"], n=4000).iloc[0]
    order = [516, 0.5, 4.78]  # Table 5.1
    taus = [stats.kendalltau(order, seconds[:, rng.integers(0, 6, 6)].sum(axis=1)).statistic
            for _ in range(2000)]
    assert row["tau"] == pytest.approx(stats.kendalltau(order, seconds.sum(axis=1)).statistic)
    assert (row["low"], row["high"]) == pytest.approx(tuple(np.nanquantile(taus, [0.025, 0.975])))
    assert row["low"] < row["tau"] - 0.1


def test_the_notice_says_which_models_and_folds_the_reference_has(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "reference_folder", lambda name: tmp_path / name)
    said = comparison.reference_notice("laptop", data="there")
    assert said == ("The reference run is being made anew on the rebuilt MovieLens 1M (there says "
                    "what that is); `results/laptop` has no records yet.")
    for fold in range(2):
        for variant in ("original", "truncated"):
            save(tmp_path / "laptop", model="item-knn", variant=variant, fold=fold)
        save(tmp_path / "laptop", model="xlstm+gat", fold=fold)
    save(tmp_path / "laptop", model="mamba", fold=7)
    assert comparison.reference_notice("laptop", data="there") == (
        "The reference run is being made anew on the rebuilt MovieLens 1M (there says what that "
        "is). There are now, on original sequences 2 folds of Item-KNN, xLSTM + GAT; 1 fold of "
        "Mamba. And on truncated sequences 2 folds of Item-KNN.")


def test_the_reference_is_taken_on_the_folds_of_the_model_that_others_are_held_against(
        tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "reference_folder", lambda name: tmp_path / name)
    assert comparison.reference_runs(["gat"], "item-knn").empty  # no folder
    for model, folds in {"item-knn": (0, 1, 2), "gat": (1, 2, 3), "mamba": (0, 5), "gcn": (0, 1),
                         "ease": ()}.items():
        for fold in folds:
            save(tmp_path / "laptop", model=model, fold=fold)
    save(tmp_path / "laptop", model="mamba", fold=1, variant="truncated")
    held = comparison.reference_runs(["gat", "mamba", "ease"], "item-knn")
    assert held.groupby("model")["fold"].agg(sorted).to_dict() == {
        "gat": [1, 2], "item-knn": [0, 1, 2]}  # Mamba shares one fold, GCN was not asked for
    assert comparison.reference_runs(["ease"], "item-knn").empty


# --- runs ----------------------------------------------------------------------------------------


def test_what_was_run_and_who_lacks_folds(tmp_path):
    for fold in range(3):
        save(tmp_path, model="ease", fold=fold, ranks=(1, 2, 3))
    save(tmp_path, model="svd", ranks=(1, 2, 3), seconds={"fit": 3600.0, "score": 0.0})
    save(tmp_path, model="svd", ranks=(1, 2), variant="truncated")
    both = {"this run": records.load_records(tmp_path)}
    runs = comparison.runs(both).set_index("variant")
    assert runs.loc["original", ["models", "least", "most", "test", "train"]].tolist() == [
        2, 1, 3, 9, 80]
    assert runs.loc["original", "hours"] == pytest.approx(1 + 3 * 1.75 / 3600)
    assert runs.loc["truncated", ["models", "most", "test"]].tolist() == [1, 1, 2]
    counts = comparison.fold_counts(both)
    assert counts["this run", "original"].to_dict() == {"ease": 3, "svd": 1}
    assert counts["this run", "truncated"].to_dict() == {"ease": 0, "svd": 1}


def test_records_that_are_not_there_are_a_table_without_rows():
    df = comparison.load("nosuch")
    assert df.empty and {"model", "ndcg@20", "record", "steady"} - set(df) == {"steady"}
    steady = costs.steady(df)
    assert steady.empty and "steady" in steady and comparison.runs({"x": df}).empty
    assert comparison.fold_counts({"x": df}).empty


def test_committed_records_are_read_once(monkeypatch):
    first = comparison.load("sample")
    monkeypatch.setattr(records, "read_record", lambda path: pytest.fail(f"{path} read again"))
    again = comparison.load("sample")
    assert again["record"].iloc[0] is first["record"].iloc[0]
    assert len(records.per_user(again.iloc[:2])) == again["n_test"].iloc[:2].sum()
    again["fold"] = -1
    assert (comparison.load("sample")["fold"] >= 0).all()  # what a chapter does with it stays there


# --- the thesis's order --------------------------------------------------------------------------


def test_pairs_of_the_thesis_are_confirmed_reversed_or_open(tmp_path):
    """By NDCG@20 the thesis has Transformer > xLSTM > Mamba > Item-KNN on original sequences."""
    rng = np.random.default_rng(0)
    for model, last in (("transformer", 10), ("xlstm", 10), ("mamba", 900), ("item-knn", 60)):
        for fold in range(6):
            ranks = rng.permutation(np.linspace(1, last, 80).astype(int))
            if model == "xlstm":  # as good as the Transformer, for other users
                ranks = rng.permutation(np.linspace(1, 10, 80).astype(int))
            save(tmp_path, model=model, fold=fold, ranks=ranks)
    out = orders.thesis_order(records.load_records(tmp_path), ["hr@20", "ndcg@20"])
    assert set(out["variant"]) == {"original"} and len(out) == 2 * 6
    ndcg = out[out["metric"] == "ndcg@20"].set_index(["first", "second"])
    assert ndcg["verdict"].to_dict() == {
        ("transformer", "xlstm"): "open", ("transformer", "mamba"): "confirmed",
        ("transformer", "item-knn"): "confirmed", ("xlstm", "mamba"): "confirmed",
        ("xlstm", "item-knn"): "confirmed", ("mamba", "item-knn"): "reversed"}
    assert ndcg.loc[("mamba", "item-knn"), "difference"] < 0
    assert ndcg["group"].to_dict()["transformer", "xlstm"] == "among sequence models"
    assert ndcg.loc[("mamba", "item-knn"), "group"] == "Item-KNN and sequence models"


def test_pairs_significant_by_mean_ranks():
    found = orders.MeanRanks(pd.Series({"a": 1.0, "b": 2.0, "c": 3.5}), 1.5, 0.01, [["a", "b"]], 9)
    assert orders.significant_pairs(found) == {frozenset("ac"), frozenset("bc")}


def test_a_model_beside_a_baseline(tmp_path):
    save(tmp_path, model="ease", ranks=(1, 30, 2), fold=0)
    save(tmp_path, model="ease", ranks=(40, 3), fold=1)
    save(tmp_path, model="item-knn", ranks=(50, 20, 21), fold=0)
    out = user_level.beside_baseline(records.load_records(tmp_path), "item-knn", "hr@20")
    assert out["model"].tolist() == ["ease", "item-knn"]
    ease, knn = out.to_dict("records")
    assert (ease["mean"], ease["folds"], ease["users"]) == (3 / 5, 2, 5)
    assert ease["ahead"] == pytest.approx(1 / 3) and ease["fold_low"] < 0.58 < ease["fold_high"]
    assert math.isnan(knn["ahead"]) and math.isnan(knn["fold_low"])
    nobody = user_level.beside_baseline(records.load_records(tmp_path), "svd", "hr@20")
    assert nobody["ahead"].isna().all() and len(nobody) == 2
