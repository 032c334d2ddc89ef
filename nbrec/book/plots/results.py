"""Figures and tables of the comparison: each reads a table of `nbrec.book.comparison`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from nbrec.book import NoRecords
from nbrec.book.orders import MeanRanks
from nbrec.book.plots.style import (
    BLUE,
    INK,
    MUTED,
    PAPER,
    UNKNOWN,
    VERMILION,
    WIDTH,
    metric_label,
    model_label,
    model_style,
)


def metric_intervals(
    summary: pd.DataFrame, metric: str | Sequence[str] = "ndcg@20", variant: str = "original",
    thesis: pd.DataFrame | None = None,
) -> Figure:
    """Mean of a metric with its 95% interval, one row per model, best on top.

    Args:
        summary: of `significance.summary` or `user_level.over_users`.
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
    n = chosen.loc[metrics[0], "folds" if "folds" in chosen else "n"]
    folds = f"{n.max()}" if n.min() == n.max() else f"{n.min()} to {n.max()}"
    handles = [plt.Line2D([], [], color=MUTED, marker="o", linewidth=2.2, markersize=7,
                          label=f"mean of {folds} folds, 95% interval")]
    if thesis is not None:
        handles.append(plt.Line2D([], [], color=INK, marker="o", markerfacecolor=PAPER,
                                  linestyle="none", label="thesis"))
    fig.legend(handles=handles, loc="outside upper right", ncols=2)
    return fig


def intervals(ax: plt.Axes, lines: Mapping[str, np.ndarray], ticks: Sequence[str]) -> None:
    """Means with their intervals over the same groups, a line for each model, side by side.

    Args:
        ax: where to draw.
        lines: model -> (G, 3) float: mean, low and high of each group, NaN where there is none;
            other labels get colours and markers in turn.
        ticks: names of the G groups.
    """
    for number, (name, values) in enumerate(lines.items()):
        label, colour, marker = model_style(name)
        if colour == UNKNOWN[0]:
            colour, marker = f"C{number}", "osD^vP"[number % 6]
        mean, low, high = np.asarray(values, float).T
        places = np.flatnonzero(~np.isnan(mean))
        mean, low, high = mean[places], low[places], high[places]
        shift = 0.6 * ((number + 0.5) / len(lines) - 0.5)
        ax.errorbar(places + shift, mean, [mean - low, high - mean], color=colour, marker=marker,
                    markersize=5, linewidth=1, elinewidth=1.4, label=label)
    ax.set_xticks(range(len(ticks)), ticks)
    ax.grid(axis="x", visible=False)


def pair_matrix(pairs: pd.DataFrame, metric: str = "ndcg@20") -> Figure:
    """All pairs of models at once: how far the row's model is ahead of the column's.

    A dot marks pairs that differ significantly; only the half with the better mean first is drawn.

    Args:
        pairs: of `significance.compare_all`.
        metric: what the differences are of.

    Raises:
        NoRecords: there is no pair.
    """
    if pairs.empty:
        raise NoRecords("no two models have two folds in common")
    wins = pairs["better"].value_counts().sub(pairs["worse"].value_counts(), fill_value=0)
    order = wins.sort_values(ascending=False, kind="stable").index.tolist()
    n = len(order)
    place = {model: i for i, model in enumerate(order)}
    ahead, sure = np.full((n, n), np.nan), []
    for r in pairs.itertuples():
        i, j = sorted((place[r.better], place[r.worse]))
        ahead[i, j] = r.difference if place[r.better] == i else -r.difference
        sure += [(j, i)] if r.significant else []
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


def critical_difference(found: MeanRanks, metric: str = "ndcg@20") -> Figure:
    """Mean ranks on an axis, the best on the left; a bar joins models that do not differ.

    Demsar (2006), Figure 1.

    Args:
        found: of `orders.mean_ranks`.
        metric: what the ranks are by.
    """
    ranks, width, groups = found.ranks, found.critical_difference, found.groups
    ranks = ranks.sort_values(kind="stable")
    k, half = len(ranks), math.ceil(len(ranks) / 2)
    step, first = 0.42, 0.55 + 0.22 * len(groups)  # of the label lines, in units of the y axis
    depth = first + step * half
    fig, ax = plt.subplots(figsize=(WIDTH, 0.62 * (depth + 1.2)))
    longest = max(len(f"{model_label(m)}  {r:.1f}") for m, r in ranks.items())
    room = max(0.078 * longest + 0.2, 1.2) / WIDTH  # for the names, on either side
    side = (k - 1) * room / (1 - 2 * room)
    ax.set(xlim=(1 - side, k + side), ylim=(-depth, 1.05))
    ax.axis("off")
    ax.plot([1, k], [0, 0], color=INK, linewidth=1)
    for rank in range(1, k + 1):
        ax.plot([rank, rank], [0, 0.1], color=INK, linewidth=1)
        ax.text(rank, 0.16, f"{rank}", ha="center", va="bottom", fontsize=9)
    ax.text(k + 0.06 * side, 0, f"mean rank by\n{metric_label(metric)}", ha="left", va="center",
            color=MUTED, fontsize=8.5)
    ax.plot([1, 1 + width], [0.72, 0.72], color=VERMILION, linewidth=2, solid_capstyle="butt",
            label="critical difference")
    ax.text(1 + width / 2, 0.78, f"critical difference {width:.2f}", color=VERMILION, ha="center",
            va="bottom", fontsize=8.5)
    for i, (model, rank) in enumerate(ranks.items()):
        label, colour, marker = model_style(model)
        left = i < half
        y = -(first + step * (i if left else k - 1 - i))
        edge = 1 - 0.05 * side if left else k + 0.05 * side
        ax.plot([rank, rank, edge], [0, y, y], color=colour, linewidth=1.1, zorder=1)
        ax.plot(rank, 0, marker, color=colour, markersize=6.5, zorder=3, clip_on=False)
        text = f"{label}  {rank:.1f}" if left else f"{rank:.1f}  {label}"
        ax.text(edge + (-0.03 if left else 0.03) * side, y, text, va="center", fontsize=9,
                ha="right" if left else "left")
    for i, group in enumerate(groups):
        y = -(0.3 + 0.22 * i)
        ax.plot([ranks[group[0]] - 0.05, ranks[group[-1]] + 0.05], [y, y], color=INK, linewidth=3.2,
                solid_capstyle="round", zorder=2, gid="group")
    return fig


def rank_agreement(agreement: Mapping[str, pd.DataFrame]) -> Figure:
    """Kendall's tau of each metric with its 95% interval, a panel for each variant.

    Args:
        agreement: label of a run -> table of `orders.rank_agreement`.
    """
    variants = list(dict.fromkeys(v for df in agreement.values() for v in df["variant"]))
    metrics = list(dict.fromkeys(m for df in agreement.values() for m in df["metric"]))
    if not variants:
        raise NoRecords("no run has three models of the thesis: there is no order to compare")
    fig, axes = plt.subplots(1, len(variants), sharey=True, squeeze=False,
                             figsize=(WIDTH, 0.42 * len(metrics) + 1.3))
    looks = [(BLUE, "o"), (VERMILION, "s"), (INK, "D")]
    for ax, variant in zip(axes[0], variants, strict=True):
        for i, ((label, df), (colour, marker)) in enumerate(zip(agreement.items(), looks,
                                                                strict=False)):
            shift = 0.24 * (i - (len(agreement) - 1) / 2)
            own = df[df["variant"] == variant]
            places = np.array([metrics.index(m) for m in own["metric"]]) + shift
            ax.hlines(places, own["low"], own["high"], color=colour, linewidth=2.2, alpha=0.5)
            ax.plot(own["tau"], places, marker, color=colour, label=label, linestyle="none")
        ax.axvline(0, color=MUTED, linewidth=0.9)
        ax.set(xlim=(-1.04, 1.04), ylim=(len(metrics) - 0.5, -0.5), title=f"{variant} sequences",
               xlabel="Kendall's τ with the thesis's order")
        ax.set_yticks(range(len(metrics)), [metric_label(m) for m in metrics])
        ax.tick_params(axis="y", length=0)
        ax.grid(axis="y", visible=False)
    fig.legend(*axes[0][0].get_legend_handles_labels(), loc="outside upper right", ncols=3)
    return fig


def truncation_effect(effect: pd.DataFrame, metric: str = "hr@20") -> Figure:
    """A metric on original and truncated sequences, and two differences, with 95% intervals.

    The marker is the difference for the users who are in both variants, the upright line that of
    the two means, which are of other users in part.

    Args:
        effect: of `user_level.truncation_effect`; the largest loss of all users on top.
        metric: one that is in it.
    """
    rows = effect[effect["metric"] == metric].sort_values("difference", ascending=False)
    if rows.empty:
        raise NoRecords(f"no model has {metric!r} on both kinds of sequences")
    fig, (left, right) = plt.subplots(1, 2, sharey=True, figsize=(WIDTH, 0.36 * len(rows) + 1.35),
                                      width_ratios=(3, 2))
    for place, row in enumerate(rows.to_dict("records")):
        _, colour, marker = model_style(row["model"])
        for part, shift, alpha in (("original", 0.14, 0.45), ("truncated", -0.14, 1)):
            y = place + shift
            left.plot([row[f"{part}_low"], row[f"{part}_high"]], [y, y], color=colour,
                      linewidth=1.8, alpha=0.5 * alpha + 0.1)
            left.plot(row[part], y, marker if part == "truncated" else "|", color=colour,
                      markersize=6.5 if part == "truncated" else 11, markeredgewidth=1.8
                      if part == "original" else 1)
        right.plot([row["same_low"], row["same_high"]], [place, place], color=colour,
                   linewidth=2.2, alpha=0.55, solid_capstyle="round")
        right.plot(row["same"], place, marker, color=colour, markersize=7)
        right.plot(row["difference"], place, "|", color=colour, markersize=11, markeredgewidth=1.8)
    right.plot(rows["thesis"], range(len(rows)), "o", markerfacecolor=PAPER, markeredgecolor=INK,
               markeredgewidth=1.2, markersize=6.5, linestyle="none", zorder=4)
    right.axvline(0, color=MUTED, linewidth=0.9)
    left.set_yticks(range(len(rows)), [model_label(m) for m in rows["model"]])
    left.set(xlabel=metric_label(metric), ylim=(-0.6, len(rows) - 0.4), xlim=(0, None))
    right.set_xlabel("truncated minus original")
    for ax in (left, right):
        ax.tick_params(axis="y", length=0)
        ax.grid(axis="y", visible=False)
    handles = [plt.Line2D([], [], color=MUTED, marker="|", markersize=11, markeredgewidth=1.8,
                          linestyle="none", label="original; all users"),
               plt.Line2D([], [], color=MUTED, marker="o", label="truncated; same users"),
               plt.Line2D([], [], color=INK, marker="o", markerfacecolor=PAPER, linestyle="none",
                          label="thesis")]
    fig.legend(handles=handles, loc="outside upper right", ncols=3)
    return fig
