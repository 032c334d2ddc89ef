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
