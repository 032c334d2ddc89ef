import math
import re
from types import SimpleNamespace

import matplotlib

matplotlib.use("agg")

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from nbrec.book import plots
from nbrec.recommenders import MODELS
from nbrec.sequences import FunnelStep, Sequences

pytestmark = pytest.mark.usefixtures("style")


def sequences(*users):
    flat = np.concatenate([np.array(u) for u in users])
    return SimpleNamespace(items=flat, lengths=np.array([len(u) for u in users]))


def texts(ax):
    return [t.get_text() for t in ax.texts]


# --- style ---------------------------------------------------------------------------------------


def with_a_look():
    """Every model, and every hybrid whose colour is chosen."""
    return [*MODELS, *(f"{name}+{behind}" for name, model in MODELS.items()
                       for behind in model.hybrids)]


def test_every_model_of_the_thesis_has_a_look_of_its_own():
    from nbrec.book.comparison import thesis_table

    needed = {"popularity", "markov", "ease"}
    needed |= {m for i in range(1, 14) for m in thesis_table(f"A.{i}")["model"]}
    models = with_a_look()
    assert needed <= set(models)
    labels, colours, _ = zip(*map(plots.model_style, models), strict=True)
    assert len(set(colours)) == len(set(labels)) == len(models)


def lightness(colour):
    """CIE L* of an sRGB colour."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    y = np.dot(linear, [0.2126, 0.7152, 0.0722])
    return 116 * y ** (1 / 3) - 16 if y > 0.008856 else 903.3 * y


def test_models_can_be_told_apart_without_hue():
    """Two models differ in marker, or clearly in lightness, so that no eye is left out."""
    models = with_a_look()
    for i, a in enumerate(models):
        for b in models[i + 1:]:
            (_, first, marker), (_, second, other) = map(plots.model_style, (a, b))
            apart = abs(lightness(first) - lightness(second))
            assert marker != other or apart > 4, (a, b)


def test_an_unknown_model_keeps_its_name():
    assert plots.model_style("alexnet")[0] == "alexnet"
    assert plots.model_label("alexnet-d_model-64") == "alexnet-d_model-64"  # nothing is parsed
    assert plots.model_style("mamba+gat+gat-user")[0] == "Mamba + GAT + user"
    assert plots.model_style("attention-mamba+minibert")[0] == "attention-mamba + MiniBERT"
    assert plots.metric_label("ndcg@20") == "NDCG@20"


def test_changed_settings_are_spelt_as_the_profiles_have_them():
    assert plots.model_label("mamba-learning_rate-0.0003") == "Mamba, learning_rate 0.0003"
    assert plots.model_label("transformer-d_model-64") == "Transformer, d_model 64"
    assert plots.model_label("sasrec-every_item-1") == "SASRec, every_item 1, batch_size 20"
    assert plots.model_label("gat-inductive") == "GAT (inductive)"


# --- data ----------------------------------------------------------------------------------------


def test_popularity_top_draws_the_shares():
    ax = plots.popularity_top(sequences([0, 1, 2], [0, 1], [0]), sequences([3], [3, 4]), 2).axes[0]
    original, truncated = ax.lines
    assert original.get_ydata() == pytest.approx([50, 100 / 3])  # 3 and 2 of 6 interactions
    assert truncated.get_ydata() == pytest.approx([200 / 3, 100 / 3])
    assert "together 83%" in original.get_label() and "together 100%" in truncated.get_label()


def test_length_histogram_counts_everybody_once():
    lengths = np.array([2, 5, 5, 6, 90, 90, 91, 300])
    for log in (False, True):
        ax = plots.length_histogram(lengths, keep=(5, 90), log=log).axes[0]
        assert sum(bar.get_height() for bar in ax.patches) == len(lengths)
        (text,) = texts(ax)
        assert "kept, 5 to 90: 62.5%" in text
        assert "shorter: 12.5%" in text and "longer: 25.0%" in text


def test_length_histogram_heights():
    ax = plots.length_histogram(np.array([3, 3, 4, 6])).axes[0]
    heights = {round(b.get_x() + b.get_width() / 2, 6): b.get_height() for b in ax.patches}
    assert heights == {3: 2, 4: 1, 5: 0, 6: 1}


def test_funnel_bars_are_the_numbers():
    funnel = (FunnelStep(1, "order", 610, 9724, 100_836, ""),
              FunnelStep(2, "cut", 300, 4000, 15_003, ""),
              FunnelStep(0, "left", 300, 4000, 15_003, ""))
    for ax, column in zip(plots.funnel_chart(funnel).axes, ("users", "movies", "ratings"),
                          strict=True):
        assert [bar.get_width() for bar in ax.patches] == [getattr(step, column) for step in funnel]
        assert texts(ax) == [f"{getattr(step, column):,}" for step in funnel]
    assert [t.get_text() for t in plots.funnel_chart(funnel).axes[0].get_yticklabels()] == [
        "1. order", "2. cut", "left"]
    assert [ax.get_title(loc="left") for ax in plots.funnel_chart(funnel).axes] == [
        "users", "films", "interactions"]


def test_lorenz_curve_and_gini_by_hand():
    # 1 + 1 + 2 + 6 = 10 interactions. Area under the curve: (0.05 + 0.15 + 0.3 + 0.7) / 4 = 0.3,
    # so Gini = 1 - 2 x 0.3 = 0.4; four films alike have 0.
    fig = plots.lorenz_curves({"original": [6, 1, 2, 1], "alike": [5, 5, 5, 5]})
    uneven, even, diagonal = fig.axes[0].lines
    assert uneven.get_xydata() == pytest.approx(
        np.array([[0, 0], [0.25, 0.1], [0.5, 0.2], [0.75, 0.4], [1, 1]]))
    assert uneven.get_label() == "original, Gini 0.40"
    assert even.get_ydata() == pytest.approx(even.get_xdata())
    assert even.get_label() == "alike, Gini 0.00" and diagonal.get_label() == "equality"


def test_by_position_draws_means_and_quantiles():
    draws = np.stack([np.arange(41.0), 100 + 2 * np.arange(41.0)], axis=1)  # (41 draws, 2 places)
    fig = plots.by_position({"bits": draws, "films": draws + 7, "share": draws}, cut=1)
    for ax, more in zip(fig.axes, (0, 7, 0), strict=False):
        mean, cut = ax.lines
        assert mean.get_xydata().tolist() == [[1, 20 + more], [2, 140 + more]]
        assert set(cut.get_xdata()) == {1.5}
        band = ax.collections[0].get_paths()[0].vertices
        for place, low, high in ((1, 1, 39), (2, 102, 178)):  # the second and second last draw
            heights = band[band[:, 0] == place, 1]
            assert (heights.min(), heights.max()) == pytest.approx((low + more, high + more))
    assert [ax.get_ylabel() for ax in fig.axes if ax.get_visible()] == ["bits", "films", "share"]


def sweep():
    ours = pd.DataFrame({"share": [1.0, 0.1, 1.0, 0.1], "mean": [0.2, 0.1, 0.7, 0.5],
                         "metric": ["hr@20", "hr@20", "hr@300", "hr@300"],
                         "low": [0.15, 0.07, 0.6, 0.4], "high": [0.3, 0.14, 0.8, 0.6]})
    return ours, pd.DataFrame({"share": [0.03, 1], "hr@20": [0.08, 0.29], "hr@300": [0.47, 0.77]})


def test_sample_sweep_has_intervals_and_the_thesis():
    upper, lower = plots.sample_sweep(*sweep()).axes
    (bars,) = upper.containers
    assert bars[0].get_xydata().tolist() == [[0.1, 0.1], [1, 0.2]]  # in order of the share
    assert [s[:, 1].tolist() for s in bars[2][0].get_segments()] == [
        pytest.approx([0.07, 0.14]), pytest.approx([0.15, 0.3])]
    thesis = next(line for line in lower.lines if line.get_label() == "thesis: Transformer")
    assert thesis.get_xydata().tolist() == [[0.03, 0.47], [1, 0.77]]
    assert [t.get_text() for t in upper.get_xticklabels()] == ["3%", "10%", "100%"]


# --- training ------------------------------------------------------------------------------------


def test_training_curves_mark_the_best_epoch():
    history = {"train_loss": [3.0, 2.0, 1.0], "validation_loss": [3.5, 2.5, 2.75], "best_epoch": 1}
    for form in (history, SimpleNamespace(**history)):
        ax = plots.training_curves(form).axes[0]
        lines = {line.get_label(): line for line in ax.lines}
        assert lines["training"].get_xydata().tolist() == [[1, 3], [2, 2], [3, 1]]
        assert lines["validation"].get_ydata().tolist() == history["validation_loss"]
        assert lines["best: epoch 2, loss 2.500"].get_xydata().tolist() == [[2, 2.5]]


def test_training_curves_name_what_they_are_compared_with():
    history = {"train_loss": [3.0, 2.0], "validation_loss": [3.5, 2.5], "best_epoch": 1}
    ax = plots.training_curves(history, lines={"chance": 7.0, "popularity": 3.25}).axes[0]
    assert texts(ax) == ["chance: 7.00", "popularity: 3.25"]
    assert [t.get_position() for t in ax.texts] == [(2, 7.0), (2, 3.25)]  # above the best epoch
    assert ax.get_ylim()[1] > 7


def test_loss_curves_draw_one_model_each_and_mark_its_best_epoch():
    curves = pd.DataFrame({
        "model": ["mamba"] * 3 + ["xlstm"] * 2, "epoch": [1, 2, 3, 1, 2],
        "train_loss": [5.0, 4.0, 3.0, 6.0, 5.0], "validation_loss": [5.5, 4.5, 4.75, 6.5, 5.5],
        "best": [False, True, False, False, True]})
    first, second = plots.loss_curves(curves, [["mamba"], ["xlstm", "mamba"]], True).axes
    training, validation, best = first.lines
    assert training.get_ydata().tolist() == [5, 4, 3] and training.get_linestyle() == "--"
    assert validation.get_xydata().tolist() == [[1, 5.5], [2, 4.5], [3, 4.75]]
    assert best.get_xydata().tolist() == [[2, 4.5]]
    assert [t.get_text() for t in second.get_legend().get_texts()] == ["xLSTM", "Mamba"]
    assert len(plots.loss_curves(curves, [["mamba"]]).axes[0].lines) == 2  # no training loss


def test_attention_map_shows_the_past_only():
    weights = np.array([[[1, 0, 0], [0.25, 0.75, 0], [0.2, 0.3, 0.5]]] * 2)
    weights[1, 2] = [0.6, 0.4, 0]
    fig = plots.attention_map(weights, ["Alien", "Brazil", "C" * 99], longest=10)
    images = [ax.images[0].get_array() for ax in fig.axes[:2]]
    assert images[1][2].tolist() == [0.6, 0.4, 0]
    assert np.ma.getmaskarray(np.ma.masked_invalid(images[0])).tolist() == [
        [False, True, True], [False, False, True], [False, False, False]]
    labels = [t.get_text() for t in fig.axes[0].get_yticklabels()]
    assert labels == ["Alien  1", "Brazil  2", "CCCCCCCCC…  3"]
    with pytest.raises(ValueError, match="3 titles|2 titles"):
        plots.attention_map(weights, ["Alien", "Brazil"])


def test_matrices_share_a_scale_only_in_an_equation():
    a, b = np.array([[1.0, 0.0], [0.25, 2.0]]), np.array([[3.0], [0.5]])
    fig = plots.matrices({"A": a, "Aq": b}, ["up", "down"], ["left", "right"], signs=["→"])
    left, right = fig.axes
    assert texts(left) == ["1.00", "0.00", "0.25", "2.00", "→"]
    assert texts(right) == ["3.00", "0.50"]
    assert left.images[0].get_clim() == right.images[0].get_clim() == (0, 3)
    assert [t.get_text() for t in left.get_xticklabels()] == ["left", "right"]
    assert [t.get_text() for t in right.get_xticklabels()] == [""]  # not as wide as the first

    fig = plots.matrices({"a": a, "signed": -a[::-1], "gates": 1 - a / 10}, chunk=1)
    a, signed, gates = fig.axes[:3]
    assert [ax.images[0].get_clim() for ax in (a, signed)] == [(0, 2), (-2, 2)]
    assert gates.images[0].get_clim() == (0.8, 1)  # from 0 all cells would look alike
    assert not texts(a) and [p.get_xy() for p in a.patches] == [(-0.5, -0.5), (0.5, 0.5)]


def test_matrices_with_numbers_need_no_bar_of_colours():
    fig = plots.matrices({"a": np.array([[10.0, 62.04, math.nan]])}, ["row"], numbers="{:.1f}")
    assert len(fig.axes) == 1 and texts(fig.axes[0]) == ["10.0", "62.0", ""]
    assert [to_rgb(t.get_color()) for t in fig.axes[0].texts[:2]] == [
        to_rgb(plots.INK), to_rgb(plots.PAPER)]


def test_matrices_names_the_panel_that_does_not_fit():
    with pytest.raises(ValueError, match=r"\['b'\].*2 rows"):
        plots.matrices({"a": np.ones((2, 2)), "b": np.ones((3, 2))})
    with pytest.raises(ValueError, match="1 names for 2 rows"):
        plots.matrices({"a": np.ones((2, 2))}, ["up"])


# --- results -------------------------------------------------------------------------------------


def summary():
    rows = [("item-knn", "ndcg@20", 0.09, 0.01, 0.08, 0.10),
            ("item-knn", "seconds", 0.5, 0, 0.5, 0.5),
            ("transformer", "ndcg@20", 0.17, 0.02, 0.15, 0.19),
            ("transformer", "seconds", 500, 9, 490, 510),
            ("ease", "ndcg@20", 0.12, 0.01, -0.02, 0.26),
            ("ease", "seconds", 8, 1, 7, 9)]
    df = pd.DataFrame(rows, columns=["model", "metric", "mean", "sd", "low", "high"])
    return df.assign(variant="original", n=10, profile="full", dataset="ml")


def comparison():
    return pd.DataFrame({
        "model": ["item-knn", "transformer"], "variant": "original", "metric": "ndcg@20",
        "thesis": [0.1489, 0.1753], "corrected": [0.0879, 0.1753], "this_run": [0.09, 0.17],
        "sd": [0.01, 0.02], "difference": [0.0021, -0.0053],
        "note": ["Table 5.1 prints another number", ""]})


@pytest.mark.parametrize("draw", [
    lambda: plots.metric_intervals(summary(), ["ndcg@20", "seconds"]),
    lambda: plots.attention_map(np.tril(np.ones((4, 9, 9))), ["A rather long title"] * 9),
    lambda: plots.matrices({"a": np.eye(12), "b": -np.eye(12)}, ["A rather long title " * 3] * 12,
                           xlabel="head"),
    lambda: plots.length_histogram(np.arange(1, 3000), (5, 90), log=True),
    lambda: plots.by_position({f"measure {i}": np.ones((9, 40)) for i in range(4)}, cut=20),
    lambda: plots.sample_sweep(*sweep()),
])
def test_all_words_lie_inside_the_figure(draw):
    fig = draw()
    fig.draw_without_rendering()
    inside = fig.bbox.padded(1)
    for ax in fig.axes:
        for text in [*ax.texts, ax.title, ax.xaxis.label, ax.yaxis.label,
                     *ax.get_xticklabels(), *ax.get_yticklabels()]:
            box = text.get_window_extent()
            if not text.get_text() or not text.get_visible() or not ax.get_visible():
                continue
            # Tick labels beyond the end of an axis exist, but are not drawn.
            named = text in (ax.title, ax.xaxis.label, ax.yaxis.label)
            if named or ax.bbox.padded(3).overlaps(box):
                assert inside.x0 <= box.x0 and box.x1 <= inside.x1, text
                assert inside.y0 <= box.y0 and box.y1 <= inside.y1, text
    assert fig.get_figwidth() == plots.WIDTH


# --- tables --------------------------------------------------------------------------------------


def test_mean_sd():
    assert plots.mean_sd(0.17534, 0.0105) == "0.1753\u00a0±\u00a00.0105"
    assert plots.mean_sd(0.17534, 0.0105, percent=True) == "17.53%\u00a0±\u00a01.05"
    assert plots.mean_sd(0.5, math.nan, digits=1) == "0.5"
    assert plots.mean_sd(math.nan) == "–"
    assert [plots.mean_sd(v, digits=None) for v in (0.01234, 6.886, 516.0)] == [
        "0.012", "6.89", "516"]


def rendered(styler):
    """A table as HTML, and the texts of its cells that are set in bold."""
    html = styler.to_html()
    rules = re.findall(r"([^{}]+)\{\s*([^}]*)\}", html[: html.index("</style>")])
    bold = {name for selector, rule in rules if "font-weight: bold" in rule
            for name in re.findall(r"#(\w+)", selector)}
    return html, {text for name, text in re.findall(r'<td id="(\w+)"[^>]*>([^<]*)</td>', html)
                  if name in bold}


def test_table_formats_and_marks_the_best():
    df = pd.DataFrame({"users": [12_839, 345], "hr": [0.25, 0.3], "loss": [2.0, math.nan],
                       "name": ["a", "b"]})
    html, bold = rendered(plots.table(df, "A caption.", percent=["hr"], digits=3,
                                      best={"hr": "max", "users": "min"}, index=False))
    for text in ("12,839", "25.0%", "30.0%", "2.000", "–", "A caption."):
        assert f">{text}<" in html
    assert bold == {"30.0%", "345"}


def test_sequences_table_counts_what_is_predicted():
    held = Sequences(np.array([1, 2]), np.array([5, 6, 7, 5, 6], np.int32), np.array([0, 3, 5]),
                     np.arange(8))
    assert plots.sequences_table({"test": held}).data["test"].to_dict() == {
        "users": 2, "interactions": 5, "predictions": 3, "films": 3, "films per user, median": 2}


def test_beside_table_has_a_row_for_each_metric_of_each_model():
    rows = [("ease", "original", "hr@20", "thesis", 0.2, 0.01),
            ("ease", "original", "hr@20", "ours", 0.25, math.nan),
            ("ease", "original", "hr@20", "difference, ours", -0.05, math.nan),
            ("ease", "original", "hr@1", "thesis", 0.1, 0.01),
            ("ease", "original", "mrr@1", "thesis", 0.1, 0.01),
            ("gat", "original", "hr@20", "ours", 0.5, 0.1)]
    df = pd.DataFrame(rows, columns=["model", "variant", "metric", "source", "value", "sd"])
    shown = plots.beside_table(df, ["hr@1", "hr@20"]).data
    assert shown.index.tolist() == [("EASE", "HR@1"), ("EASE", "HR@20"), ("GAT", "HR@20")]
    assert shown.loc[("EASE", "HR@20")].tolist() == [
        "0.2000\u00a0±\u00a00.0100", "0.2500", "−0.0500"]
    assert shown.loc[("GAT", "HR@20")].tolist() == ["–", "0.5000\u00a0±\u00a00.1000", "–"]
    both = pd.concat([df, df.assign(variant="truncated")]).query("model == 'ease'")
    assert plots.beside_table(both, ["hr@20"]).data.index.tolist() == [
        ("original", "HR@20"), ("truncated", "HR@20")]


def test_results_table_marks_the_best_of_each_column():
    styler = plots.results_table(summary(), ["ndcg@20", "seconds"], sort="ndcg@20")
    assert styler.data.index.tolist() == ["Transformer", "EASE", "Item-KNN"]
    assert styler.data["NDCG@20"].tolist()[0] == "0.1700\u00a0±\u00a00.0200"
    assert rendered(styler)[1] == {"0.1700\u00a0±\u00a00.0200", "0.500\u00a0±\u00a00.000"}


def test_comparison_table_keeps_what_is_printed_and_says_what_is_wrong():
    styler = plots.comparison_table(comparison(), ["ndcg@20"], "Table 5.1.")
    row = styler.data.loc["Item-KNN"]
    assert row["NDCG@20"].tolist() == ["0.1489*", "0.0900\u00a0±\u00a00.0100", "+0.0021"]
    assert styler.data.loc["Transformer"]["NDCG@20"].tolist() == [
        "0.1753", "0.1700\u00a0±\u00a00.0200", "−0.0053"]
    assert "* Table 5.1 prints another number" in styler.to_html()


def test_only_sortable_tables_are_marked_for_the_script():
    df = pd.DataFrame({"hr": [0.2, 0.1]})
    assert 'class="dataframe nbrec-table"' in plots.table(df).to_html()
    for styler in (plots.table(df, sortable=True),
                   plots.results_table(summary(), ["ndcg@20"], sortable=True)):
        assert 'class="dataframe nbrec-table nbrec-sortable"' in styler.to_html()


def test_detailed_table_keeps_thesis_and_runs_apart():
    printed = pd.DataFrame([
        ("original", "hr", 20, 0.2186, 0.0105), ("original", "seconds", None, 0.49, 0.03),
        ("truncated", "hr", 20, 0.218, 0.0112),
    ], columns=["sequences", "metric", "k", "mean", "std"])
    printed["k"] = printed["k"].astype("Int64")
    beside = pd.DataFrame([
        ("original", "hr@20", "thesis", 0.2186, 0.0105), ("original", "hr@20", "large", 0.2, 0.02),
        ("original", "hr@20", "difference, large", -0.0186, math.nan),
        ("original", "seconds", "large", 1.0, math.nan),
        ("original", "seconds", "difference, large", 0.51, math.nan),
    ], columns=["variant", "metric", "source", "value", "sd"])
    styler = plots.detailed_table(printed, beside, ["large", "small"], "Table A.2.")
    cells = styler.data
    assert cells.index.tolist() == [
        ("original", "HR@20"), ("original", "seconds"), ("truncated", "HR@20")]
    assert cells["thesis", "mean ± sd"].tolist() == [
        "0.2186\u00a0±\u00a00.0105", "0.490\u00a0±\u00a00.030", "0.2180\u00a0±\u00a00.0112"]
    assert cells["large", "mean ± sd"].tolist() == ["0.2000\u00a0±\u00a00.0200", "1.00", "–"]
    assert cells["large", "minus thesis"].tolist() == ["−0.0186", "+0.5", "–"]
    assert (cells["small"] == "–").all(axis=None) and "Table A.2." in styler.to_html()


# --- interactive figures -------------------------------------------------------------------------


def test_a_slider_has_a_step_for_each_label():
    go = pytest.importorskip("plotly.graph_objects")
    fig = go.Figure(go.Bar(x=[1], y=[2]))
    plots.add_slider(fig, {"0.5": [{"y": [[3]]}], "1": [{"y": [[2]]}]}, prefix="t = ", active=1)
    (slider,) = fig.layout.sliders
    assert slider.active == 1 and slider.currentvalue.prefix == "t = "
    assert [(s.label, s.method, s.args) for s in slider.steps] == [
        ("0.5", "restyle", ({"y": [[3]]},)), ("1", "restyle", ({"y": [[2]]},))]


def test_plotly_in_the_book_asks_no_other_host(monkeypatch):
    go = pytest.importorskip("plotly.graph_objects")
    fig = go.Figure(go.Scatter(x=[1, 2], y=[3, 4]))
    monkeypatch.setenv("NBREC_BOOK", "1")
    html = plots.show_plotly(fig, "fig-toy").data
    assert 'id="fig-toy"' in html and "Plotly.newPlot" in html
    assert "<script src=" not in html and len(html) < 20_000  # the library itself is not in it
    assert html == plots.show_plotly(fig, "fig-toy").data
    shown = []
    monkeypatch.setenv("NBREC_BOOK", "0")
    monkeypatch.setattr(go.Figure, "show", lambda self: shown.append(self))
    assert plots.show_plotly(fig, "fig-toy") is None and shown == [fig]


def test_a_table_of_one_row_offers_no_order():
    two = pd.DataFrame({"model": ["a", "b"], "hr": [0.1, 0.2]})
    assert "nbrec-sortable" in plots.table(two, sortable=True).to_html()
    assert "nbrec-sortable" not in plots.table(two[:1], sortable=True).to_html()
    assert "nbrec-sortable" not in plots.table(two).to_html()
