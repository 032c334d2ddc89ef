import matplotlib

matplotlib.use("agg")

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from nbrec.book import plots

pytestmark = pytest.mark.usefixtures("style")


def histograms(**models):
    """Tables as of `records.popularity_histograms`: model -> recommended popularity -> times."""
    rows = [(model.replace("_", "-"), source, popularity, times) for model, recommended in
            models.items() for source, pairs in (("behaviour", {1.0: 10, 100.0: 30}),
                                                 ("recommended", recommended))
            for popularity, times in pairs.items()]
    return pd.DataFrame(rows, columns=["model", "source", "popularity", "times"]).assign(
        variant="original")


def legend(ax):
    return [t.get_text() for t in ax.get_legend().get_texts()]


# --- densities -----------------------------------------------------------------------------------


def test_the_curve_is_the_sum_of_a_gaussian_for_every_recommendation():
    times = {0.0: 2, 1.0: 5, 10.0: 20, 300.0: 3}
    (ax,) = plots.popularity_density(histograms(a=times)).axes
    x, density = ax.lines[0].get_data()
    logs = np.log10(np.repeat([0.5, 1, 10, 300], [2, 5, 20, 3]))  # half of the least stands for 0
    width = 1.06 * logs.std() * 30**-0.2
    expected = norm(logs[:, None], width).pdf(np.log10(x)).mean(axis=0)
    assert density == pytest.approx(expected, abs=1e-4) and density.max() > 0.5
    shade = ax.collections[0].get_paths()[0].vertices
    upper = shade[shade[:, 1] > 0]
    logs = np.log10(np.repeat([1, 100], [10, 30]))
    width = 1.06 * logs.std() * 40**-0.2
    expected = norm(logs[:, None], width).pdf(np.log10(upper[:, 0])).mean(axis=0)
    assert upper[:, 1] == pytest.approx(expected, abs=1e-4) and len(upper) > 100


def test_a_model_with_one_film_has_the_least_bandwidth():
    fig = plots.popularity_density(histograms(a={100.0: 7}, b={99.0: 10_000, 101.0: 10_000}))
    for ax, logs in zip(fig.axes, ([2.0], np.log10([99, 101])), strict=True):
        x, density = ax.lines[0].get_data()
        expected = norm(np.array(logs)[:, None], 0.04).pdf(np.log10(x)).mean(axis=0)
        assert density == pytest.approx(expected, rel=0.02, abs=0.02)


def test_the_legend_has_the_means_and_the_areas_are_one():
    fig = plots.popularity_density(histograms(a={100.0: 20}, b={0.0: 1, 10.0: 3}), ["b", "a"])
    b, a = fig.axes
    # (1 x 10 + 100 x 30) / 40 = 75.25; (0 x 1 + 10 x 3) / 4 = 7.5, rounded to even.
    assert sorted(legend(a)) == ["model, mean 100‰\npeak 10.0", "users, mean 75‰"]
    assert sorted(legend(b)) == ["model, mean 8‰", "users, mean 75‰"]
    for ax in (a, b):
        x, y = ax.lines[0].get_data()
        assert np.trapezoid(y, np.log10(x)) == pytest.approx(1, abs=0.01)
    shades = [ax.collections[0].get_paths()[0].vertices for ax in (a, b)]
    assert shades[0] == pytest.approx(shades[1])  # the users are the same in every panel
    with pytest.raises(ValueError, match=r"no records of \['c'\]"):
        plots.popularity_density(histograms(a={1.0: 1}), ["c"])


def test_a_needle_leaves_the_frame_and_its_legend_keeps_clear_of_it():
    fig = plots.popularity_density(histograms(rare={1.0: 9}, hits={100.0: 9}, a={1.0: 9, 100.0: 9},
                                              b={30.0: 9}), columns=2)
    fig.draw_without_rendering()
    shade = fig.axes[0].collections[0].get_paths()[0].vertices[:, 1].max()
    assert fig.axes[0].get_ylim() == pytest.approx((0, 3.15 * shade))
    for ax in fig.axes[:2]:
        box = ax.get_legend().get_window_extent()
        x, y = ax.transData.transform(ax.lines[0].get_xydata()).T
        assert not np.any((x > box.x0) & (x < box.x1) & (y > box.y0) & (y < box.y1))
        assert "peak" in legend(ax)[1] and ax.lines[0].get_ydata().max() > 3 * shade


def test_titles_name_the_figure_of_the_thesis():
    table = histograms(item_knn={1.0: 1, 9.0: 2}, ease={1.0: 1, 9.0: 2})
    titles = [ax.get_title(loc="left") for ax in plots.popularity_density(table).axes]
    assert titles == ["Item-KNN (thesis Figure A.1)", "EASE"]
    cut = table.assign(variant="truncated")  # the thesis draws original sequences
    assert plots.popularity_density(cut, variant="truncated").axes[0].get_title(
        loc="left") == "Item-KNN"
    # The captions of its chapter 5 and appendix A, in their order.
    assert {v: k for k, v in plots.THESIS_FIGURES.items()} == {
        "5.1": "transformer", "5.2": "lightgcn", "A.1": "item-knn", "A.2": "mamba",
        "A.3": "xlstm", "A.4": "gcn", "A.5": "gat", "A.6": "xlstm+gat"}


# --- groups of users -----------------------------------------------------------------------------


def groups():
    rows = [("original", "hr@20", "mamba", 0, "up to 10", 0.1, 0.05, 0.2),
            ("original", "hr@20", "mamba", 1, "over 10", 0.3, 0.2, 0.5),
            ("original", "hr@20", "ease", 1, "over 10", 0.4, 0.3, 0.45),
            ("truncated", "hr@20", "ease", 0, "up to 10", 0.6, 0.5, 0.9),
            ("original", "ndcg@20", "ease", 1, "over 10", 0.2, 0.1, 0.25)]
    return pd.DataFrame(rows, columns=["variant", "metric", "model", "place", "group", "mean",
                                       "low", "high"])


def test_every_point_has_its_interval_and_its_colour():
    fig = plots.by_group(groups(), "films")
    (first, second), (third, _) = np.reshape(fig.axes, (2, 2))
    drawn = {}
    for bars in first.containers:
        points, _, (sticks,) = bars
        drawn[bars.get_label()] = (points.get_color(), points.get_ydata().tolist(),
                                   [s[:, 1].tolist() for s in sticks.get_segments()])
        places = points.get_xdata().astype(float).round().tolist()
        assert places == ([0, 1] if bars.get_label() == "Mamba" else [1])
    assert drawn == {
        "Mamba": (plots.model_style("mamba")[1], [0.1, 0.3], [pytest.approx([0.05, 0.2]),
                                                             pytest.approx([0.2, 0.5])]),
        "EASE": (plots.model_style("ease")[1], [0.4], [pytest.approx([0.3, 0.45])])}
    assert [t.get_text() for t in first.get_xticklabels()] == ["up to 10", "over 10"]
    assert [ax.get_ylabel() for ax in (first, second)] == ["HR@20", "NDCG@20"]
    assert [ax.get_title(loc="left") for ax in (first, third)] == [
        "original sequences", "truncated sequences"]
    assert [t.get_text() for t in fig.legends[0].get_texts()] == ["Mamba", "EASE"]
    for ax in (first, third):  # both are read on one scale, on which nothing is cut off
        assert ax.get_ylim()[0] == 0 and ax.get_ylim()[1] > 0.9


def test_differences_have_a_line_at_zero_and_room_below_it():
    below = groups().assign(low=-0.4)
    ax = plots.by_group(below, "films").axes[-1]
    assert ax.get_ylim()[0] < -0.4
    assert [0, 0] in [line.get_ydata() for line in ax.lines if len(line.get_ydata()) == 2]


@pytest.mark.parametrize("draw", [
    lambda: plots.popularity_density(histograms(a={1.0: 1}, b={9.0: 9}, c={9.0: 9, 99.0: 9})),
    lambda: plots.popularity_density(histograms(**{
        "xlstm+gat+gat_user_literal": {1.0: 9}, "gat_inductive": {30.0: 9}, "gcn": {99.0: 9},
        "xlstm+gat": {9.0: 9}}), columns=3),
    lambda: plots.by_group(groups(), "films in the history"),
])
def test_all_words_lie_inside_the_figure(draw):
    fig = draw()
    fig.draw_without_rendering()
    inside = fig.bbox.padded(1)
    words = [text for ax in fig.axes if ax.get_visible() for text in (
        ax.xaxis.label, ax.yaxis.label, ax._left_title, *(ax.get_legend() or fig).findobj(
            matplotlib.text.Text)) if text.get_text() and text.get_visible()]
    assert len(words) > 6
    for text in words:
        box = text.get_window_extent()
        assert inside.x0 <= box.x0 and box.x1 <= inside.x1, text
        assert inside.y0 <= box.y0 and box.y1 <= inside.y1, text
    assert fig.get_figwidth() == plots.WIDTH
