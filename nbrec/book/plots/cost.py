"""Figures of what accuracy costs: against time, and over the values of a setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator
from pandas.io.formats.style import Styler

from nbrec.book import NoRecords
from nbrec.book.costs import pareto_front
from nbrec.book.plots.style import (
    BLUE,
    INK,
    MUTED,
    PAPER,
    WIDTH,
    metric_label,
    model_label,
    model_style,
)
from nbrec.book.plots.tables import interval, mean_sd, table


def accuracy_vs_time(
    summary: pd.DataFrame, metric: str = "ndcg@20", time: str = "seconds",
    variant: str = "original",
) -> Figure:
    """Accuracy of each model against the time that it takes, time on a logarithmic axis.

    A line joins the Pareto front, the models that no other one beats in both. The others are faded,
    and named where there is room.

    Args:
        summary: of `significance.summary`; bars are its 95% intervals.
        metric, time: which of its metrics.
        variant: which sequences.

    Raises:
        NoRecords: no model has both.
    """
    chosen = summary[summary["variant"] == variant]
    wide = chosen[chosen["metric"].isin([metric, time])]
    mean = wide.pivot(index="model", columns="metric", values="mean").reindex(
        columns=[metric, time]).dropna()
    if mean.empty:
        raise NoRecords(f"no model has {metric!r} and {time!r} on variant {variant!r}; there are "
                         f"{sorted(set(summary['metric']))} on {sorted(set(summary['variant']))}")
    ends = chosen[chosen["metric"] == metric].set_index("model")[["low", "high"]].clip(lower=0)
    mean["front"] = pareto_front(mean[time], mean[metric])
    mean = mean.sort_values(["front", metric], ascending=False)
    fig, ax = plt.subplots(figsize=(WIDTH, 4.8))
    ax.set_xscale("log")
    front = mean[mean["front"]].sort_values(time)
    ax.plot(front[time], front[metric], color=MUTED, linewidth=1.2, zorder=1, label="front",
            drawstyle="steps-post")
    for model, row in mean.iterrows():
        _, colour, marker = model_style(model)
        strong = row["front"]
        ax.plot([row[time]] * 2, ends.loc[model], color=colour, linewidth=2, zorder=2,
                alpha=0.5 if strong else 0.2, solid_capstyle="round")
        ax.plot(row[time], row[metric], marker, color=colour, markersize=9 if strong else 6.5,
                alpha=1 if strong else 0.4, zorder=4 if strong else 3)
    ax.set(xlabel=metric_label(time), ylabel=metric_label(metric))
    ax.margins(x=0.2, y=0.08)
    # The interval of two folds would leave no room for anything else: bars may leave the frame.
    ax.set_ylim(0, min(ax.get_ylim()[1], 1.4 * mean[metric].max()))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    fig.draw_without_rendering()  # settle the layout before the labels look for room
    _place_labels(ax, [(model_style(m)[0], r[time], r[metric], *ends.loc[m], r["front"])
                       for m, r in mean.iterrows()])
    return fig


def _place_labels(ax: Axes, points: list[tuple[str, float, float, float, float, bool]]) -> None:
    """Write a label beside each point, on the first side where it covers nothing.

    Args:
        points: label, x, y, the ends of the interval around y, and whether the label must be
            there; one that need not is left out if it would cover anything.
    """
    pixels, scale = ax.transData.transform, ax.figure.dpi / 72
    taken: list[tuple[float, ...]] = []
    for _, x, y, low, high, _ in points:
        (left, middle), (_, bottom), (_, top) = pixels([(x, y), (x, low), (x, high)])
        taken.append((left - 6, middle - 6, left + 6, middle + 6))
        if np.isfinite(top):
            taken.append((left - 2, bottom, left + 2, top))
    sides = [(9, 0, "left", "center"), (-9, 0, "right", "center"), (8, 9, "left", "bottom"),
             (8, -9, "left", "top"), (-8, 9, "right", "bottom"), (-8, -9, "right", "top"),
             (0, 9, "center", "bottom"), (0, -9, "center", "top")]
    frame = ax.get_window_extent()
    for label, x, y, _, _, needed in points:
        tried = []
        for far in (1, 2.5, 4, 6, 8) if needed else (1,):
            for place, (dx, dy, ha, va) in enumerate(sides):
                text = ax.annotate(label, (x, y), (far * dx, far * dy), ha=ha, va=va,
                                   textcoords="offset points", fontsize=9 if needed else 7.5,
                                   color=INK if needed else MUTED, zorder=5)
                text.set_path_effects([withStroke(linewidth=2.5, foreground=PAPER)])
                text.set_in_layout(False)  # else the axes would shrink for it, and move the points
                box = text.get_window_extent().padded(scale)
                covered = sum(box.x0 < r and left < box.x1 and box.y0 < t and b < box.y1
                              for left, b, r, t in taken)
                outside = (box.x0 < frame.x0 or box.x1 > frame.x1 or box.y0 < frame.y0
                           or box.y1 > frame.y1)
                tried.append((covered + 99 * outside, far, place, text, box.extents))
            if not min(one[0] for one in tried):
                break
        covered, far, place, chosen, extents = min(tried, key=lambda one: one[:3])
        kept = needed or not covered
        for *_, text, _ in tried:
            if text is not chosen or not kept:
                text.remove()
        if kept:
            taken.append(tuple(extents))
        if kept and far > 1:  # a line leads to a label that is not close by
            end = pixels((x, y)) + np.array(sides[place][:2]) * far * scale
            ends = np.stack([(x, y), ax.transData.inverted().transform(end)])
            ax.plot(*ends.T, color=MUTED, linewidth=0.7, zorder=2, scalex=False, scaley=False)


def setting_sweep(
    sweep: pd.DataFrame, metrics: Sequence[str], setting: str, base: int = 2,
) -> Figure:
    """Metrics over the values of a setting, one panel each: thesis hollow and dashed, ours filled.

    Args:
        sweep: columns source ("thesis" or another), model, value, metric, mean, and for bars low
            and high, NaN where there are none. A metric that begins with "minutes" gets a
            logarithmic axis.
        metrics: the panels.
        setting: label of the horizontal axis.
        base: of its logarithm.
    """
    fig, axes = plt.subplots(1, len(metrics), squeeze=False, figsize=(WIDTH, 3.1))
    for ax, metric in zip(axes[0], metrics, strict=True):
        rows = sweep[sweep["metric"] == metric].sort_values("value")
        for (source, model), part in rows.groupby(["source", "model"], sort=False):
            label, colour, marker = model_style(model)
            look = {"linestyle": "--", "markerfacecolor": PAPER, "linewidth": 1.2} if (
                source == "thesis") else {}
            bars = [part["mean"] - part["low"], part["high"] - part["mean"]]
            ax.errorbar(part["value"], part["mean"], None if part["low"].isna().all() else bars,
                        color=colour, marker=marker, markersize=5, capsize=2.5, elinewidth=1.1,
                        label=f"{source}: {label}", **look)
        values = np.unique(rows["value"])
        ax.set_xscale("log", base=base)
        ax.set_xticks(values, [f"{v:g}" for v in values], rotation=45 if len(values) > 5 else 0)
        ax.minorticks_off()
        ax.set(xlabel=setting, ylabel=metric_label(metric))
        if metric.startswith("minutes"):
            ax.set_yscale("log")
            ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
            ax.yaxis.set_minor_formatter("")
        else:
            ax.set_ylim(bottom=0)
    handles, labels = axes[0][0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside upper right", ncols=2)
    return fig


def times_table(times: Mapping[str, pd.DataFrame], thesis: pd.Series, caption: str | None = None
                ) -> Styler:
    """Seconds of each part, model by model; the cheapest first.

    Args:
        times: label of a run -> table of `costs.times`.
        thesis: model -> seconds.
    """
    steady = pd.concat([t["steady"] for t in times.values()], axis=1).bfill(axis=1).iloc[:, 0]
    order = steady.sort_values().index
    columns = {("thesis", "time"): thesis.reindex(order)} | {
        (run, part): t[part].reindex(order) for run, t in times.items()
        for part in ("fit", "contexts", "score", "epochs", "steady", "slowed")}
    shown = pd.DataFrame(columns).map(lambda v: "<0.001" if 0 <= v < 0.0005 else mean_sd(
        v, digits=None))
    return table(shown.set_axis([model_label(m) for m in order]), caption, small=True,
                 sortable=True)


def ratios_table(times: Mapping[str, pd.DataFrame], thesis: pd.Series, caption: str | None = None
                 ) -> Styler:
    """Times of the thesis's models relative to the Transformer's; arguments as in `times_table`."""
    base = "transformer"
    columns = {"thesis": thesis / thesis[base]}
    for run, t in times.items():
        if base in t.index:
            columns[run] = t["steady"] / t.at[base, "steady"]
            columns[f"{run}, an epoch"] = t["epoch_seconds"] / t.at[base, "epoch_seconds"]
    ratios = pd.DataFrame(columns).reindex(thesis.index).dropna(thresh=2)
    return table(ratios.set_axis([model_label(m) for m in ratios.index]), caption, digits=3)


def front_table(fronts: Mapping[str, pd.DataFrame], caption: str | None = None) -> Styler:
    """The models on the front, and whether a step up it may be luck.

    Args:
        fronts: label of a run -> table of `costs.front`.
    """
    rows = [{"run": run, "model": model_label(r.model), "seconds": mean_sd(r.steady, digits=None),
             "NDCG@20": f"{r.value:.3f}",
             "times the time before": "–" if np.isnan(r.times) else f"{r.times:,.1f}",
             "more NDCG@20 (95% interval)": interval(r.difference, r.low, r.high)}
            for run, front in fronts.items() for r in front.itertuples()]
    return table(pd.DataFrame(rows), caption, index=False, small=True)


def within_table(within: Mapping[str, pd.DataFrame], caption: str | None = None) -> Styler:
    """The most accurate model within a time; `within` maps runs to tables of `costs.within`."""
    return table(pd.DataFrame({run: [f"{model_label(m)} ({v:.3f})" if m else "–"
                                     for m, v in zip(t["model"], t["value"], strict=True)]
                               for run, t in within.items()},
                              index=next(iter(within.values())).index), caption)


def beside_sweep_table(beside: pd.DataFrame, setting: str, caption: str | None = None) -> Styler:
    """A sweep of the thesis beside ours; `beside` is of `sweeps.beside_thesis`."""
    wide = beside.pivot_table("mean", "value", ["source", "metric"], sort=False).sort_index()
    shown = pd.DataFrame({(source, metric_label(metric)): [
        mean_sd(v, digits=4 if "@" in metric else 2 if metric == "minutes" else 0)
        for v in wide[source, metric]] for source, metric in wide})
    return table(shown.set_axis([f"{v:g}" for v in wide.index]).rename_axis(setting), caption,
                 small=True)


def memory_bars(memory: Mapping[str, Mapping[str, float]]) -> Figure:
    """Memory of a training step by what it is for.

    Args:
        memory: model -> term -> bytes, of `budget.memory`.
    """
    colours = {"weights, gradients, AdamW": BLUE, "kept by the forward pass": "#E69F00",
               "loss": "#8c959f"}
    fig, ax = plt.subplots(figsize=(WIDTH, 0.45 * len(memory) + 0.8))
    left = np.zeros(len(memory))
    for words, colour in colours.items():
        width = np.array([sum(v for term, v in terms.items() if _purpose(term) == words)
                          for terms in memory.values()]) / 1e6
        ax.barh(list(map(model_label, memory)), width, left=left, color=colour, label=words,
                height=0.6)
        left += width
    for y, total in enumerate(left):
        ax.text(total + 0.005 * left.max(), y, f"{total:,.0f} MB", va="center", fontsize=9)
    ax.set(xlabel="megabytes", xlim=(0, 1.18 * left.max()))
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    fig.legend(loc="outside upper right", ncols=3)
    return fig


def _purpose(term: str) -> str:
    return "kept by the forward pass" if term.startswith("kept by") else (
        "loss" if term == "loss" else "weights, gradients, AdamW")
