"""All printed numbers, and agreement with them."""

import pytest
from test_records import save

from nbrec import records
from nbrec.book import comparison, printed


def test_agreement_counts_metrics_within_two_deviations(tmp_path):
    """The thesis's Item-KNN: HR@20 0.2186 +- 0.0105, HR@300 0.7711 +- 0.0115, NDCG@20 0.0879."""
    for fold, extra in enumerate((-0.01, 0.01)):  # a deviation of 0.0141
        save(tmp_path, fold=fold, metrics={
            "hr@20": 0.2186 + 0.03 + extra, "hr@300": 0.7711 + 0.04 + extra,
            "ndcg@20": 0.0879 - 0.05 + extra, "mrr@1": 0.9})
    rows = printed.agreement({"a run": records.load_records(tmp_path)})
    [row] = rows.to_dict("records")
    assert (row["table"], row["model"], row["variant"], row["folds"]) == (
        "A.2", "item-knn", "original", 2)
    # Metrics that the record lacks are computed from its ranks (1, 5, 400): far above, HR@1 too.
    assert row["metrics"] == 10 and row["agree"] + row["higher"] + row["lower"] == 10
    few = {m: 0.0 for m in comparison.compare_with_thesis(
        records.load_records(tmp_path), "A.2")["metric"] if "@" in m}
    save(tmp_path / "b", fold=0, metrics=few | {"hr@20": 0.2186 + 0.02, "hr@300": 0.9})
    [row] = printed.agreement({"b": records.load_records(tmp_path / "b")}).to_dict("records")
    # One fold has no deviation of its own: 0.02 lies within two of the thesis's 0.0105.
    assert (row["agree"], row["higher"], row["lower"]) == (1, 1, 8)


def test_every_printed_number_is_there_once():
    df = printed.everything()
    assert not df.duplicated(["table", "model", "variant", "setting", "value", "metric"]).any()
    assert df["mean"].notna().all() or df.loc[df["mean"].isna(), "table"].isin(
        ["2.1", "3.2", "3.4", "5.3"]).all()
    assert set(df["table"]) == {*printed.ANNEX, "5.1", "5.2", "2.1", "3.2", "3.4", "5.3"}
    one = df[(df["table"] == "A.2") & (df["variant"] == "truncated") & (df["metric"] == "hr@100")]
    assert one[["mean", "sd"]].to_numpy().tolist() == [[0.5137, 0.0138]]
    assert (df["note"] != "").sum() == 2  # the two wrong ones
    wide = df[(df["table"] == "3.2") & (df["value"] == 512) & (df["metric"] == "hr@20")]
    assert wide["mean"].item() == pytest.approx(0.329) and wide["setting"].item()


def test_the_appendix_by_metric_and_model():
    assert printed.annex("A.2", "truncated")["hr@100"] == 0.5137
    assert printed.annex("A.2", "truncated", "std")["hr@100"] == 0.0138
    assert printed.tables_by_model()["xlstm+gat"] == "A.13"


def test_seen_items_both_ways(tmp_path):
    save(tmp_path, model="svd", ranks=(1, 20, 400), ranks_with_seen=[3, 21, 400])
    save(tmp_path, model="item-knn", ranks=(1, 2))
    table = printed.seen_both_ways(records.load_records(tmp_path), ["svd", "item-knn"])
    rates = table.set_index(["model", "seen items"])
    out = rates.loc[("svd", "toy, left out")].tolist()
    assert out == pytest.approx([1 / 3, 2 / 3, 2 / 3, 2 / 3])
    assert rates.loc[("svd", "toy, kept"), ["hr@1", "hr@20"]].tolist() == [0, pytest.approx(1 / 3)]
    assert len(rates) == 3 and printed.seen_both_ways(comparison.load("nosuch"), ["svd"]).empty


def test_every_erratum_is_checked_or_has_a_reason():
    rows = set(printed.checked([f"E{i}" for i in range(1, 33)] + [f"D{i}" for i in range(1, 43)])[
        "row"])
    assert len(rows) == 32 + 42
    table = printed.checked(rows - {"E27"}).set_index("row")
    assert table.loc["E27", ["by code", "why not"]].tolist() == ["no", "by reading"]
    assert (table.drop("E27")["why not"] == "").all()
    with pytest.raises(ValueError, match=r"\['E1'\] were not checked"):
        printed.checked(rows - {"E1"})
    with pytest.raises(ValueError, match="E99"):
        printed.checked(rows | {"E99"})
