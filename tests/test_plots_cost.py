import matplotlib

matplotlib.use("agg")

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from nbrec.book import plots
from nbrec.book.costs import pareto_front

pytestmark = pytest.mark.usefixtures("style")


def texts(ax):
    return [t.get_text() for t in ax.texts]


# --- the front -----------------------------------------------------------------------------------


def test_the_front_by_hand():
    costs, values = [1, 2, 3, 4, 2, 5], [0.1, 0.3, 0.2, 0.4, 0.3, 0.4]
    # The third costs more than the second for less; the last costs more than the fourth for the
    # same; the second and fifth are alike.
    assert pareto_front(costs, values).tolist() == [True, True, False, True, True, False]


def test_the_front_is_what_a_plain_double_loop_finds():
    rng = np.random.default_rng(0)
    costs, values = rng.integers(0, 9, 60), rng.integers(0, 9, 60)
    plain = [not any((c <= cost and v >= value) and (c < cost or v > value)
                     for c, v in zip(costs, values, strict=True))
             for cost, value in zip(costs, values, strict=True)]
    assert pareto_front(costs, values).tolist() == plain and 0 < sum(plain) < 60


# --- accuracy against time -----------------------------------------------------------------------


def summary(**points):
    """Model -> (seconds, mean, low, high)."""
    rows = [(model.replace("_", "-"), metric, mean, low, high)
            for model, (seconds, accuracy, down, up) in points.items()
            for metric, mean, low, high in (("ndcg@20", accuracy, down, up),
                                            ("seconds", seconds, seconds, seconds))]
    df = pd.DataFrame(rows, columns=["model", "metric", "mean", "low", "high"])
    return df.assign(variant="original", n=10, profile="full", dataset="ml")


FOUR = summary(item_knn=(0.5, 0.09, 0.08, 0.10), transformer=(500, 0.17, 0.15, 0.19),
               ease=(8, 0.12, -0.02, 0.26), gat=(90, 0.05, 0.04, 0.06))


def test_accuracy_against_time():
    front, *lines = plots.accuracy_vs_time(FOUR).axes[0].lines
    assert front.axes.get_xscale() == "log"
    assert front.get_xydata().tolist() == [[0.5, 0.09], [8, 0.12], [500, 0.17]]
    bars, points = lines[::2], lines[1::2]
    drawn = {tuple(map(float, p.get_xydata()[0])): (b.get_ydata().tolist(), p.get_alpha())
             for b, p in zip(bars, points, strict=True)}
    assert drawn == {(0.5, 0.09): ([0.08, 0.10], 1), (500, 0.17): ([0.15, 0.19], 1),
                     (8, 0.12): ([0, 0.26], 1), (90, 0.05): ([0.04, 0.06], 0.4)}  # GAT is faded
    assert sorted(texts(front.axes)) == ["EASE", "GAT", "Item-KNN", "Transformer"]
    front.axes.figure.draw_without_rendering()
    boxes = [t.get_window_extent() for t in front.axes.texts]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[i + 1:])


def test_in_a_crowd_the_front_keeps_its_names():
    """Forty models on one spot have no room for their names, but for the two that are best."""
    crowd = {f"m{i}": (100 + i / 100, 0.1, 0.09, 0.11) for i in range(40)}
    fig = plots.accuracy_vs_time(summary(**crowd, svd=(99, 0.1001, 0.09, 0.11),
                                         ease=(99.5, 0.1002, 0.09, 0.11)))
    shown = texts(fig.axes[0])
    assert {"SVD", "EASE"} <= set(shown) and len(shown) < 20


def test_models_without_a_time_are_left_out_and_none_is_an_error():
    some = FOUR[(FOUR["model"] != "gat") | (FOUR["metric"] != "seconds")]
    assert "GAT" not in texts(plots.accuracy_vs_time(some).axes[0])
    with pytest.raises(ValueError, match="'hours'.*'original'"):
        plots.accuracy_vs_time(FOUR, time="hours")
    with pytest.raises(ValueError, match="'truncated'"):
        plots.accuracy_vs_time(FOUR, variant="truncated")


# --- sweeps --------------------------------------------------------------------------------------


def sweep():
    rows = [("thesis", "mamba", 64, "hr@20", 0.3, np.nan, np.nan),
            ("thesis", "mamba", 16, "hr@20", 0.2, np.nan, np.nan),
            ("here", "mamba", 32, "hr@20", 0.25, 0.2, 0.31),
            ("thesis", "mamba", 16, "minutes", 5, np.nan, np.nan),
            ("thesis", "mamba", 64, "minutes", 3, np.nan, np.nan),
            ("here", "mamba", 32, "minutes", 0.5, np.nan, np.nan)]
    return pd.DataFrame(rows, columns=["source", "model", "value", "metric", "mean", "low", "high"])


def test_a_sweep_has_ours_with_bars_and_the_thesis_hollow():
    fig = plots.setting_sweep(sweep(), ["hr@20", "minutes"], "width d")
    left, right = fig.axes
    thesis, ours = (c[0] for c in left.containers)
    assert thesis.get_xydata().tolist() == [[16, 0.2], [64, 0.3]]
    assert to_rgb(thesis.get_markerfacecolor()) == to_rgb(plots.PAPER)
    assert ours.get_color() == thesis.get_color() == plots.model_style("mamba")[1]
    assert left.containers[1][2][0].get_segments()[0][:, 1].tolist() == pytest.approx([0.2, 0.31])
    assert not left.containers[0].has_yerr and not right.containers[1].has_yerr
    assert [t.get_text() for t in left.get_xticklabels()] == ["16", "32", "64"]
    assert (left.get_yscale(), right.get_yscale()) == ("linear", "log")
    assert [t.get_text() for t in fig.legends[0].get_texts()] == ["thesis: Mamba", "here: Mamba"]


@pytest.mark.parametrize("draw", [
    lambda: plots.accuracy_vs_time(FOUR),
    lambda: plots.setting_sweep(sweep(), ["hr@20", "minutes"], "width d"),
])
def test_all_words_lie_inside_the_figure(draw):
    fig = draw()
    fig.draw_without_rendering()
    inside = fig.bbox.padded(1)
    for ax in fig.axes:
        for text in [*ax.texts, ax.xaxis.label, ax.yaxis.label]:
            box = text.get_window_extent()
            assert inside.x0 <= box.x0 and box.x1 <= inside.x1, text
            assert inside.y0 <= box.y0 and box.y1 <= inside.y1, text
    assert fig.get_figwidth() == plots.WIDTH
