"""Figures of personalisation: how popular the recommended films are, and whom they serve."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from nbrec.book import NoRecords
from nbrec.book.plots.results import intervals
from nbrec.book.plots.style import INK, WIDTH, metric_label, model_style

# Which figure of the thesis shows which model, on original sequences.
THESIS_FIGURES = {
    "transformer": "5.1", "lightgcn": "5.2", "item-knn": "A.1", "mamba": "A.2", "xlstm": "A.3",
    "gcn": "A.4", "gat": "A.5", "xlstm+gat": "A.6",
}
NARROWEST = 0.04  # decades: a model that recommends a handful of films would have needles otherwise


def popularity_density(
    histograms: pd.DataFrame, models: Iterable[str] | None = None, variant: str = "original",
    columns: int = 2,
) -> Figure:
    """Popularity of what users watch (shaded) and of what a model recommends (dashed).

    Thesis Figures 4.2, 5.1, 5.2 and A.1 to A.6, as Gaussian kernel densities of log10 popularity.
    Silverman's rule of thumb gives the bandwidth, which is `NARROWEST` at least. The legend gives
    mean popularity, and the peak of a curve that leaves the frame.

    Args:
        histograms: of `records.popularity_histograms`; folds are pooled.
        models: one panel each, in this order; by default all in the table.
        variant: which sequences.
        columns: panels side by side.

    Raises:
        NoRecords: a model has no records of the variant.
    """
    chosen = histograms[histograms["variant"] == variant]
    models = list(dict.fromkeys(chosen["model"])) if models is None else list(models)
    if missing := [m for m in models if m not in set(chosen["model"])]:
        raise NoRecords(f"no records of {missing} on variant {variant!r}; there are "
                         f"{sorted(set(chosen['model']))}")
    floor = chosen.loc[chosen["popularity"] > 0, "popularity"].min() / 2  # 0 has no logarithm
    columns = min(columns, len(models))
    rows, small = math.ceil(len(models) / columns), columns > 2
    height = (3.4, 2.35, 1.9)[min(columns, 3) - 1]
    fig, axes = plt.subplots(rows, columns, sharex=True, sharey=True, squeeze=False,
                             figsize=(WIDTH, height * rows + 0.3 * (columns > 1)))
    for ax, model in zip(axes.flat, models, strict=False):
        label, colour, _ = model_style(model)
        figure = THESIS_FIGURES.get(model) if variant == "original" else None
        title = label + f" (thesis Figure {figure})" * bool(figure)
        ax.set_title(textwrap.fill(title, 26) if small else title,
                     fontsize=8.5 if small else None)
        part = chosen[chosen["model"] == model]
        _draw(ax, part[part["source"] == "behaviour"], floor, fill=True, color="#aab4be",
              alpha=0.55, linewidth=0, label="users", zorder=1)
        _draw(ax, part[part["source"] == "recommended"], floor, color=colour,
              linestyle=(0, (4, 1.5)), label="model", zorder=3)
        ax.set(xlabel="", ylabel="")
    # A model that knows only hits has a needle; it may leave the frame.
    used, unused = axes.flat[:len(models)], axes.flat[len(models):]
    highest = max(ax.lines[0].get_ydata().max() for ax in used)
    shade = max(ax.collections[0].get_paths()[0].vertices[:, 1].max() for ax in used)
    top = (1.3 if small else 1.05) * max(shade, min(highest, (2 if small else 3) * shade))
    axes[0, 0].set_ylim(0, top)
    axes[0, 0].xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axes[0, 0].xaxis.set_minor_formatter(NullFormatter())
    middle = math.sqrt(math.prod(axes[0, 0].get_xlim()))
    for ax in used:
        x, y = ax.lines[0].get_data()
        if y.max() > top:
            ax.lines[0].set_label(f"{ax.lines[0].get_label()}\npeak {y.max():.1f}")
        ax.legend(loc="upper right" if x[y.argmax()] < middle else "upper left",
                  fontsize=7.5 if small else None, handlelength=1.7 if small else 2.2,
                  frameon=True, framealpha=0.8, edgecolor="none", borderpad=0.2)
    for ax in unused:
        ax.set_visible(False)
    for ax in axes[:, 0]:
        ax.set_ylabel("density per decade")
    for column in range(columns):  # the lowest visible panel of each column carries the label
        lowest = [ax for ax in axes[:, column] if ax.get_visible()][-1]
        lowest.set_xlabel("popularity (‰ of users)" if small
                          else "popularity of the film (per mille of users)")
        lowest.tick_params(labelbottom=True)
    return fig


def _draw(ax: plt.Axes, histogram: pd.DataFrame, floor: float, label: str, **style) -> None:
    """One density; to its label comes the mean popularity."""
    popularity, times = histogram["popularity"].to_numpy(float), histogram["times"].to_numpy(float)
    x = np.log10(np.maximum(popularity, floor))
    spread = math.sqrt(np.cov(x, ddof=0, aweights=times))
    width = max(1.06 * spread * times.sum() ** -0.2, NARROWEST)
    # Each value stands for a bin: with two halves of it even a single bin has a spread.
    x, times_of_halves = np.r_[x - 0.0025, x + 0.0025], np.r_[times, times]
    # seaborn counts bins where Silverman counts films, so it is told the bandwidth.
    factor = width / math.sqrt(np.cov(x, aweights=times_of_halves))
    sns.kdeplot(x=10**x, weights=times_of_halves, log_scale=True, bw_method=factor, gridsize=200,
                label=f"{label}, mean {np.average(popularity, weights=times):.0f}‰", ax=ax, **style)


def by_group(groups: pd.DataFrame, xlabel: str) -> Figure:
    """Means with their intervals over groups of users: a row per variant, a column per metric.

    Args:
        groups: of `user_level.by_group`, with a column "variant" if there are several.
        xlabel: what the users are grouped by.
    """
    groups = groups if "variant" in groups else groups.assign(variant="")
    variants, metrics = (list(dict.fromkeys(groups[name])) for name in ("variant", "metric"))
    models = list(dict.fromkeys(groups["model"]))
    fig, axes = plt.subplots(len(variants), len(metrics), squeeze=False, sharey="col",
                             figsize=(WIDTH, 2.7 * len(variants) + 0.5))
    for (variant, metric), part in groups.groupby(["variant", "metric"], sort=False):
        ax = axes[variants.index(variant), metrics.index(metric)]
        names = part.sort_values("place").drop_duplicates("place").set_index("place")["group"]
        places = range(names.index.max() + 1)
        lines = {model: part[part["model"] == model].set_index("place").reindex(places)
                 for model in models}
        intervals(ax, {m: own[["mean", "low", "high"]] for m, own in lines.items()},
                  names.reindex(places).fillna(""))
        ax.set_ylabel(metric_label(metric))
        ax.set_title(f"{variant} sequences" if variant else "")
    for ax in axes[-1]:
        ax.set_xlabel(xlabel)
        if groups["low"].min() < 0:  # differences
            ax.axhline(0, color=INK, linewidth=0.8)
        else:
            ax.set_ylim(bottom=0)
    handles = {label: handle for ax in axes.flat
               for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    fig.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=3,
               labelcolor=INK)
    return fig
