import math

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from test_plots import comparison, rendered, summary

from nbrec.book import NoRecords, plots
from nbrec.book.orders import MeanRanks

pytestmark = pytest.mark.usefixtures("style")


def words(fig):
    return [t for ax in fig.axes for t in [*ax.texts, ax.title, *(
        [ax.xaxis.label, *ax.get_yticklabels()] if ax.axison else [])] if t.get_text()]


def inside(fig):
    """All words lie in the figure."""
    fig.draw_without_rendering()
    whole = fig.bbox.padded(1)
    boxes = [t.get_window_extent() for t in words(fig)]
    return all(whole.x0 <= b.x0 and b.x1 <= whole.x1 and whole.y0 <= b.y0 and b.y1 <= whole.y1
               for b in boxes)


# --- means and pairs -----------------------------------------------------------------------------


def test_intervals_are_drawn_in_order_beside_the_corrected_thesis():
    fig = plots.metric_intervals(summary(), "ndcg@20", thesis=comparison())
    ax = fig.axes[0]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["Item-KNN", "EASE", "Transformer"]
    bars, points = ax.lines[0:6:2], ax.lines[1:6:2]
    assert [list(b.get_xdata()) for b in bars] == [[0.08, 0.10], [0, 0.26], [0.15, 0.19]]
    assert [float(p.get_xdata()[0]) for p in points] == [0.09, 0.12, 0.17]
    assert [p.get_color() for p in points] == [
        plots.model_style(m)[1] for m in ("item-knn", "ease", "transformer")]
    hollow = ax.lines[6]
    assert hollow.get_xydata().tolist() == [[0.0879, 0], [0.1753, 2]]
    with pytest.raises(ValueError, match="hr@7"):
        plots.metric_intervals(summary(), "hr@7")


def test_intervals_stand_side_by_side():
    _, ax = plt.subplots()
    nan = math.nan
    plots.intervals(ax, {"mamba": [(0.2, 0.1, 0.5), (nan, nan, nan)],
                         "own words": [(0.3, 0.2, 0.4), (0.6, 0.5, 0.7)]}, ["few", "many"])
    mamba, other = ax.containers
    assert mamba[0].get_color() == plots.model_style("mamba")[1] and mamba.get_label() == "Mamba"
    assert other.get_label() == "own words"
    assert mamba[0].get_xdata()[0] == pytest.approx(-0.15)
    assert other[0].get_xdata().tolist() == pytest.approx([0.15, 1.15])
    assert [s[:, 1].tolist() for s in other[2][0].get_segments()] == [
        pytest.approx([0.2, 0.4]), pytest.approx([0.5, 0.7])]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["few", "many"]


def test_pairs_table_says_what_is_significant_and_over_what():
    pairs = pd.DataFrame({
        "first": ["gat", "xlstm+gat"], "second": ["item-knn", "xlstm"], "difference": [-0.02, 0.01],
        "low": [-0.03, -0.01], "high": [-0.01, 0.03], "p_value": [0.001, 0.4], "n": [10, 1234],
        "basis": ["folds", "users"], "p_holm": [0.002, 0.4]})
    shown = plots.pairs_table(pairs, "hr@20", "Here.")
    assert shown.data.to_dict("index") == {
        "GAT minus Item-KNN": {"HR@20": "−0.0200", "95% interval": "−0.0300 to −0.0100",
                               "p (Holm)": 0.002, "significant": "yes", "over": "10 folds"},
        "xLSTM + GAT minus xLSTM": {"HR@20": "+0.0100", "95% interval": "−0.0100 to +0.0300",
                                    "p (Holm)": 0.4, "significant": "no", "over": "1,234 users"}}
    assert shown.caption.startswith("Here. Tests over folds") and "all 2 pairs" in shown.caption


def test_pairs_stand_in_the_upper_half_and_dots_mark_those_significant():
    pairs = pd.DataFrame([("ease", "item-knn", 0.02, True), ("ease", "svd", 0.05, True),
                          ("svd", "item-knn", 0.01, False)],
                         columns=["better", "worse", "difference", "significant"])
    fig = plots.pair_matrix(pairs)
    ax = fig.axes[0]
    drawn = np.ma.filled(ax.images[0].get_array().astype(float), np.nan)
    assert np.array_equal(drawn, [[np.nan, 0.05, 0.02], [np.nan, np.nan, 0.01],
                                  [np.nan] * 3], equal_nan=True)
    assert sorted((float(d.get_xdata()[0]), float(d.get_ydata()[0])) for d in ax.lines) == [
        (1, 0), (2, 0)]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["EASE", "SVD", "Item-KNN"]  # by wins
    # On few folds pairs need not agree: a model with as many wins may be behind the one below it.
    ring = pd.DataFrame([("ease", "svd", 0.1, False), ("svd", "item-knn", 0.2, False),
                         ("item-knn", "ease", 0.3, True)], columns=pairs.columns)
    drawn = np.ma.filled(plots.pair_matrix(ring).axes[0].images[0].get_array(), np.nan)
    assert np.nanmin(drawn) == -0.3 and np.isfinite(drawn).sum() == 3
    with pytest.raises(NoRecords, match="two folds in common"):
        plots.pair_matrix(pairs.iloc[:0])


# --- mean ranks ----------------------------------------------------------------------------------


def diagram(k=5):
    models = ["xlstm", "transformer", "ease", "item-knn", "transformer+minibert", "popularity"][:k]
    ranks = pd.Series(np.linspace(1.2, k - 0.1, k), models)
    return ranks, plots.critical_difference(MeanRanks(
        ranks.sample(frac=1, random_state=0), 1.5, 0.01, [models[:2], models[1:4]], 10))


def test_ranks_bars_and_the_difference_are_to_scale():
    ranks, fig = diagram()
    ax = fig.axes[0]
    points = {line.get_marker(): float(line.get_xdata()[0]) for line in ax.lines
              if line.get_marker() != "None"}
    assert points == {plots.model_style(m)[2]: r for m, r in ranks.items()}
    bars = [line.get_xdata() for line in ax.lines if line.get_gid() == "group"]
    # A bar reaches just beyond its outermost models, and not to the next one.
    for bar, (first, last) in zip(bars, [(0, 1), (1, 3)], strict=True):
        assert ranks.iloc[first] - 0.1 < bar[0] < ranks.iloc[first]
        assert ranks.iloc[last] < bar[1] < ranks.iloc[last] + 0.1
    ruler = next(line for line in ax.lines if line.get_label() == "critical difference")
    assert np.ptp(ruler.get_xdata()) == 1.5
    assert "critical difference 1.50" in [t.get_text() for t in ax.texts]


@pytest.mark.parametrize("k", [3, 4, 5, 6])
def test_each_name_has_a_line_of_its_own(k):
    ranks, fig = diagram(k)
    names = {t.get_text(): t for t in fig.axes[0].texts if any(
        plots.model_label(m) in t.get_text() for m in ranks.index)}
    left = [t for t in names.values() if t.get_ha() == "right"]
    assert len(names) == k and len(left) == math.ceil(k / 2)
    # Best on the left and on top, worst on the right and on top: no two lines cross.
    assert [t.get_position()[1] for t in left] == sorted(
        (t.get_position()[1] for t in left), reverse=True)
    assert left[0].get_text() == f"xLSTM  {ranks.iloc[0]:.1f}"
    right = [t for t in names.values() if t.get_ha() == "left"]
    assert max(right, key=lambda t: t.get_position()[1]).get_text().startswith(
        f"{ranks.iloc[-1]:.1f}  ")
    assert inside(fig)
    fig.draw_without_rendering()
    boxes = [t.get_window_extent() for t in names.values()]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


# --- the thesis's order --------------------------------------------------------------------------


def agreement(shift=0.0):
    rows = [("original", "hr@20", 0.7, 0.5, 0.9), ("original", "stars", 0.4, np.nan, np.nan),
            ("truncated", "hr@20", -0.2, -0.6, 0.1)]
    df = pd.DataFrame(rows, columns=["variant", "metric", "tau", "low", "high"])
    return df.assign(tau=df["tau"] + shift)


def test_agreement_has_a_panel_for_each_variant_and_a_colour_for_each_run():
    fig = plots.rank_agreement({"reference run": agreement(), "this run": agreement(0.05)})
    left, right = fig.axes
    assert [left.get_title(loc="left"), right.get_title(loc="left")] == [
        "original sequences", "truncated sequences"]
    assert [t.get_text() for t in left.get_yticklabels()] == ["HR@20", "stars of personalisation"]
    assert left.get_ylim()[0] > left.get_ylim()[1]  # the first metric on top
    first, second = (line for line in left.lines if line.get_marker() != "None")
    assert first.get_xdata().tolist() == [0.7, 0.4]
    assert second.get_xdata().tolist() == pytest.approx([0.75, 0.45])
    assert first.get_color() != second.get_color()
    assert np.all(np.abs(first.get_ydata() - [0, 1]) < 0.3)
    assert not np.allclose(first.get_ydata(), second.get_ydata())
    bars = [path.vertices[:, 0].tolist() for c in right.collections for path in c.get_paths()]
    assert bars == [[-0.6, 0.1]] * 2
    assert inside(fig)
    with pytest.raises(ValueError, match="three models"):
        plots.rank_agreement({"this run": agreement().iloc[:0]})


# --- truncation ----------------------------------------------------------------------------------


def effect():
    rows = [("item-knn", 0.20, 0.21, 0.01, -0.002), ("ease", 0.25, 0.22, -0.03, np.nan),
            ("transformer", 0.35, 0.28, -0.07, -0.086)]
    df = pd.DataFrame(rows, columns=["model", "original", "truncated", "difference", "thesis"])
    for part in ("original", "truncated", "difference"):
        df[f"{part}_low"], df[f"{part}_high"] = df[part] - 0.02, df[part] + 0.03
    df["same"] = df["difference"] + 0.03
    df["same_low"], df["same_high"] = df["same"] - 0.01, df["same"] + 0.01
    return df.assign(metric="hr@20", folds=2)


def test_truncation_draws_both_means_and_the_thesis_beside_the_difference():
    fig = plots.truncation_effect(effect())
    left, right = fig.axes
    assert [t.get_text() for t in left.get_yticklabels()] == ["Item-KNN", "EASE", "Transformer"]
    marks = [(round(float(line.get_ydata()[0])), float(line.get_xdata()[0])) for line in left.lines
             if line.get_marker() == "|"]
    assert marks == [(0, 0.20), (1, 0.25), (2, 0.35)]
    bars = [line.get_xdata() for line in left.lines if line.get_marker() == "None"]
    assert np.allclose(bars, [[0.18, 0.23], [0.19, 0.24], [0.23, 0.28], [0.20, 0.25],
                              [0.33, 0.38], [0.26, 0.31]])
    *_, hollow, zero = right.lines
    assert hollow.get_xdata()[[0, 2]].tolist() == [-0.002, -0.086]
    assert np.isnan(hollow.get_xdata()[1]) and to_rgb(hollow.get_markerfacecolor()) == (1, 1, 1)
    assert list(zero.get_xdata()) == [0, 0]
    bars, same, means = (np.array([line.get_xdata() for line in right.lines[start:9:3]])
                         for start in range(3))
    assert np.allclose(bars, [[0.03, 0.05], [-0.01, 0.01], [-0.05, -0.03]])
    assert np.allclose(same.ravel(), [0.04, 0, -0.04])
    assert np.allclose(means.ravel(), [0.01, -0.03, -0.07])
    assert inside(fig)
    with pytest.raises(ValueError, match="ndcg@20"):
        plots.truncation_effect(effect(), "ndcg@20")


# --- Tables 5.1 and 5.2 --------------------------------------------------------------------------


def test_overview_marks_the_best_of_each_source_but_no_wrong_number():
    rows = [  # model, metric, source, value, sd, note
        ("item-knn", "ndcg@20", "thesis", 0.1489, 0.0042, "Table 5.1 prints another number"),
        ("item-knn", "ndcg@20", "this run", 0.09, 0.01, ""),
        ("item-knn", "ndcg@20", "difference, this run", 0.5, np.nan, ""),
        ("gat", "ndcg@20", "thesis", 0.0744, 0.014, ""),
        ("gat", "ndcg@20", "this run", 0.07, np.nan, ""),
        ("item-knn", "seconds", "thesis", 0.5, 0.03, ""),
        ("item-knn", "seconds", "this run", 0.1, 0.02, ""),
        ("gat", "seconds", "thesis", 330.0, 79.0, ""),
        ("gat", "stars", "thesis", 2, np.nan, ""), ("gat", "stars", "this run", 2.5, 0.7, "")]
    beside = pd.DataFrame(rows, columns=["model", "metric", "source", "value", "sd", "note"])
    styler = plots.overview_table(beside, {"this run": {"item-knn": 3, "gat": 1}},
                                  ["ndcg@20", "stars", "seconds"], caption="Words.")
    frame = styler.data
    assert frame.index.tolist() == [("Item-KNN", "thesis"), ("Item-KNN", "this run"),
                                    ("GAT", "thesis"), ("GAT", "this run")]
    nb = "\u00a0"
    assert frame["NDCG@20"].tolist() == [
        f"0.1489{nb}±{nb}0.0042*", f"0.0900{nb}±{nb}0.0100", f"0.0744{nb}±{nb}0.0140", "0.0700"]
    assert frame["stars"].tolist() == ["–", "–", "★★", f"2.5{nb}±{nb}0.7"]
    assert frame["folds"].tolist() == ["10", "3", "10", "1"]
    assert frame.loc[("GAT", "this run"), "seconds"] == "–"
    html, bold = rendered(styler)
    assert bold == {frame.loc[("GAT", "thesis"), "NDCG@20"],
                    frame.loc[("Item-KNN", "this run"), "NDCG@20"],
                    *frame.loc["Item-KNN", "seconds"]}
    assert "Words. * Table 5.1 prints another number." in html
