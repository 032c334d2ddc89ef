"""Figures of the comparison: every one reads a table of `nbrec.comparison` or `nbrec.records`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from nbrec.plots.style import INK, MUTED, PAPER, WIDTH, metric_label, model_style


def log_density(
    popularity: np.ndarray, times: np.ndarray, grid: np.ndarray, floor: float
) -> np.ndarray:
    """Gaussian kernel density of log10 popularity, from weighted values.

    Silverman's rule of thumb gives the bandwidth, at least 0.04 decades: a model that recommends
    a handful of films a thousand times would get needles otherwise.

    Args:
        popularity: (N,) float, per mille, >= 0.
        times: (N,) how often each value comes up.
        grid: (G,) values of log10 popularity.
        floor: per mille, stands in for 0, whose logarithm does not exist.

    Returns:
        (G,) density per decade; its integral over the whole line is 1.
    """
    x = np.log10(np.maximum(np.asarray(popularity, dtype=float), floor))
    w = np.asarray(times, dtype=float) / np.sum(times)
    spread = math.sqrt(np.sum(w * (x - np.sum(w * x)) ** 2))
    width = max(1.06 * spread * np.sum(times) ** -0.2, 0.04)
    z = (np.asarray(grid)[:, None] - x) / width
    return np.exp(-0.5 * z**2) @ w / (width * math.sqrt(2 * math.pi))


def popularity_density(
    histograms: pd.DataFrame, models: Iterable[str] | None = None, variant: str = "original",
    columns: int = 2,
) -> Figure:
    """Popularity of what users watch (shaded) and of what a model recommends (dashed).

    Thesis Figures 4.2, 5.1 and A.1 to A.6; the legend gives mean popularity in per mille.

    Args:
        histograms: of `records.popularity_histograms`; folds are pooled.
        models: one panel each, in this order; by default all in the table.
        variant: which sequences.
        columns: panels side by side.
    """
    chosen = histograms[histograms["variant"] == variant]
    models = list(dict.fromkeys(chosen["model"])) if models is None else list(models)
    if missing := [m for m in models if m not in set(chosen["model"])]:
        raise ValueError(f"no records of {missing} on variant {variant!r}; there are "
                         f"{sorted(set(chosen['model']))}")
    positive = chosen.loc[chosen["popularity"] > 0, "popularity"]
    floor = positive.min() / 2
    low, high = np.log10(floor), np.log10(positive.max())
    grid = np.linspace(low - 0.3, high + 0.3, 500)
    columns = min(columns, len(models))
    rows = math.ceil(len(models) / columns)
    fig, axes = plt.subplots(rows, columns, sharex=True, sharey=True, squeeze=False,
                             figsize=(WIDTH, 2.35 * rows + 0.3 if columns > 1 else 3.4 * rows))
    for ax in axes.flat[len(models):]:
        ax.set_visible(False)
    peaks = {"behaviour": 0.0, "recommended": 0.0}
    for ax, model in zip(axes.flat, models, strict=False):
        label, colour, _ = model_style(model)
        rows_of_model = chosen[chosen["model"] == model]
        for source, part in rows_of_model.groupby("source", sort=False):
            p, n = part["popularity"].to_numpy(float), part["times"].to_numpy(float)
            density, mean = log_density(p, n, grid, floor), np.average(p, weights=n)
            peaks[source] = max(peaks[source], density.max())
            if source == "behaviour":
                ax.fill_between(10**grid, density, color="#aab4be", alpha=0.55, linewidth=0,
                                label=f"users, mean {mean:.0f}‰", zorder=1)
            else:
                ax.plot(10**grid, density, color=colour, linestyle=(0, (4, 1.5)),
                        label=f"model, mean {mean:.0f}‰", zorder=3)
        ax.set_title(label)
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        ax.legend(loc="upper left", handlelength=2.2)
    # A model that knows only hits has a needle; it may leave the frame, with its height beside it.
    top = 1.05 * min(max(peaks.values()), 3 * peaks["behaviour"])
    axes[0, 0].set_ylim(0, top)
    for ax in axes.flat[: len(models)]:
        curve = ax.lines[0].get_ydata()
        if curve.max() > top:
            x = 10 ** grid[curve > top].max()
            ax.annotate(f"up to {curve.max():.1f}", (x, top), (7, -2), textcoords="offset points",
                        va="top", fontsize=8.5, color=MUTED)
    for ax in axes[:, 0]:
        ax.set_ylabel("density per decade")
    for column in range(columns):  # the lowest visible panel of each column carries the label
        lowest = [ax for ax in axes[:, column] if ax.get_visible()][-1]
        lowest.set_xlabel("popularity of the film (per mille of users)")
        lowest.tick_params(labelbottom=True)
    return fig


def metric_intervals(
    summary: pd.DataFrame, metric: str | Sequence[str] = "ndcg@20", variant: str = "original",
    thesis: pd.DataFrame | None = None,
) -> Figure:
    """Mean of a metric over folds with its 95% interval, one row per model, best on top.

    Args:
        summary: of `comparison.summary`.
        metric: one or several; each has a panel, all share the order of the first.
        variant: which sequences.
        thesis: of `comparison.compare_with_thesis`; its (corrected) values are hollow markers.
    """
    metrics = [metric] if isinstance(metric, str) else list(metric)
    chosen = summary[summary["variant"] == variant].set_index(["metric", "model"])
    if missing := [m for m in metrics if m not in chosen.index.get_level_values(0)]:
        raise ValueError(f"no {missing} on variant {variant!r} in the summary")
    order = chosen.loc[metrics[0], "mean"].sort_values().index
    fig, axes = plt.subplots(1, len(metrics), sharey=True, squeeze=False,
                             figsize=(WIDTH, 0.36 * len(order) + 1.25))
    for ax, name in zip(axes[0], metrics, strict=True):
        rows = chosen.loc[name].reindex(order)
        for place, (model, row) in enumerate(rows.iterrows()):
            _, colour, marker = model_style(model)
            low = max(row["low"], 0)  # no measure here can be negative
            ax.plot([low, row["high"]], [place, place], color=colour, linewidth=2.2,
                    alpha=0.55, solid_capstyle="round")
            ax.plot(row["mean"], place, marker, color=colour, markersize=7.5, clip_on=False)
        if thesis is not None:
            same = thesis[(thesis["metric"] == name) & (thesis["variant"] == variant)]
            same = same[same["model"].isin(order)]
            places = [order.get_loc(m) for m in same["model"]]
            ax.plot(same["corrected"], places, "o", markerfacecolor=PAPER, markeredgecolor=INK,
                    markeredgewidth=1.2, markersize=6.5, linestyle="none", zorder=4)
        ax.set_xlabel(metric_label(name))
        ax.set_ylim(-0.6, len(order) - 0.4)
        ax.set_xlim(left=-0.02 * ax.get_xlim()[1])
        ax.grid(axis="y", visible=False)
        ax.xaxis.set_major_locator(MaxNLocator(8 // len(metrics) + 2, steps=[1, 2, 5, 10]))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axes[0][0].set_yticks(range(len(order)), [model_style(m)[0] for m in order])
    for ax in axes[0]:
        ax.tick_params(axis="y", length=0)
    n = chosen.loc[metrics[0], "n"]
    folds = f"{n.max()}" if n.min() == n.max() else f"{n.min()} to {n.max()}"
    whose = "" if thesis is None else "this run, "
    handles = [plt.Line2D([], [], color=MUTED, marker="o", linewidth=2.2, markersize=7,
                          label=f"{whose}mean of {folds} folds, 95% interval")]
    if thesis is not None:
        handles.append(plt.Line2D([], [], color=INK, marker="o", markerfacecolor=PAPER,
                                  linestyle="none", label="thesis"))
    fig.legend(handles=handles, loc="outside upper right", ncols=2)
    return fig


def pair_matrix(pairs: pd.DataFrame, order: list[str], metric: str = "ndcg@20") -> Figure:
    """All pairs of models at once: how far the row's model is ahead of the column's.

    A dot marks pairs that are told apart; only the half with the better mean first is drawn.

    Args:
        pairs: of `comparison.compare_all`.
        order: models from the best to the worst.
        metric: what the differences are of.
    """
    n = len(order)
    place = {model: i for i, model in enumerate(order)}
    ahead, sure = np.full((n, n), np.nan), []
    for r in pairs.itertuples():
        if r.better in place and r.worse in place:
            i, j = sorted((place[r.better], place[r.worse]))
            ahead[i, j] = r.difference if place[r.better] == i else -r.difference
            sure += [(j, i)] if r.told_apart else []
    size = 0.32 * n + 1.8
    fig, ax = plt.subplots(figsize=(min(size + 0.6, 9.5), min(size, 8.2)))
    top = np.nanmax(np.abs(ahead), initial=1e-9)
    image = ax.imshow(ahead, cmap="Blues", vmin=0, vmax=top)
    for j, i in sure:
        ax.plot(j, i, "o", ms=3.2, color="white" if ahead[i, j] > 0.55 * top else INK)
    labels = [model_style(model)[0] for model in order]
    ax.set_xticks(range(n), labels, rotation=90, fontsize=8)
    ax.set_yticks(range(n), labels, fontsize=8)
    ax.grid(False)
    fig.colorbar(image, ax=ax, shrink=0.7, label=f"ahead in {metric_label(metric)}")
    return fig


def accuracy_vs_time(
    summary: pd.DataFrame, metric: str = "ndcg@20", time: str = "seconds",
    variant: str = "original",
) -> Figure:
    """Accuracy of each model against the time that it takes, time on a logarithmic axis."""
    chosen = summary[summary["variant"] == variant]
    wide = chosen[chosen["metric"].isin([metric, time])]
    mean = wide.pivot(index="model", columns="metric", values="mean")
    ends = chosen[chosen["metric"] == metric].set_index("model")[["low", "high"]]
    fig, ax = plt.subplots(figsize=(WIDTH, 4.2))
    ax.set_xscale("log")
    for model, row in mean.iterrows():
        label, colour, marker = model_style(model)
        ax.plot([row[time]] * 2, ends.loc[model].clip(lower=0), color=colour, linewidth=2,
                alpha=0.45, solid_capstyle="round")
        ax.plot(row[time], row[metric], marker, color=colour, markersize=9)
    ax.set(xlabel=metric_label(time), ylabel=metric_label(metric))
    ax.margins(x=0.2, y=0.08)
    ax.set_ylim(bottom=0)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    fig.draw_without_rendering()  # settle the layout before the labels look for room
    _place_labels(ax, [(model_style(m)[0], r[time], r[metric], *ends.loc[m].clip(lower=0))
                       for m, r in mean.iterrows()])
    return fig


def _place_labels(ax: Axes, points: list[tuple[str, float, float, float, float]]) -> None:
    """Write a label beside each point, on the first side where it covers nothing.

    Args:
        points: label, x, y, and the ends of the interval around y.
    """
    pixels, scale = ax.transData.transform, ax.figure.dpi / 72
    taken = []
    for _, x, y, low, high in points:
        (left, middle), (_, bottom), (_, top) = pixels([(x, y), (x, low), (x, high)])
        taken.append((left - 6, middle - 6, left + 6, middle + 6))
        if np.isfinite(top):
            taken.append((left - 2, bottom, left + 2, top))
    sides = [(9, 0, "left", "center"), (-9, 0, "right", "center"), (8, 9, "left", "bottom"),
             (8, -9, "left", "top"), (-8, 9, "right", "bottom"), (-8, -9, "right", "top"),
             (0, 9, "center", "bottom"), (0, -9, "center", "top")]
    frame = ax.get_window_extent()
    for label, x, y, _, _ in points:
        tried = []
        for place, (dx, dy, ha, va) in enumerate(sides):
            text = ax.annotate(label, (x, y), (dx, dy), textcoords="offset points", ha=ha, va=va,
                               fontsize=9)
            text.set_in_layout(False)  # else the axes would shrink for it, and move the points
            box = text.get_window_extent().padded(scale)
            covered = sum(box.x0 < r and left < box.x1 and box.y0 < t and b < box.y1
                          for left, b, r, t in taken)
            outside = box.x0 < frame.x0 or box.x1 > frame.x1 or box.y0 < frame.y0
            tried.append((covered + 2 * outside, place, text, tuple(box.extents)))
        _, chosen, _, extents = min(tried)
        for _, place, text, _ in tried:
            if place != chosen:
                text.remove()
        taken.append(extents)
