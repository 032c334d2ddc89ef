"""Figures and tables of verification: our numbers beside published ones."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from pandas.io.formats.style import Styler

from nbrec.book import NoRecords
from nbrec.book.plots.style import (
    INK,
    MUTED,
    PAPER,
    WIDTH,
    metric_label,
    model_label,
    model_style,
)
from nbrec.book.plots.tables import interval, table

ORDERS = {"file": "as in the file", "id": "by film number", "random": "by chance"}


def protocols_table(protocols: pd.DataFrame, caption: str | None = None) -> Styler:
    """HR@10 under four protocols; `protocols` is of `verification.protocols`."""
    _need(protocols)
    shown = protocols.set_index(protocols["model"].map(model_label).rename(None)).rename(columns={
        "unseen": "all items, seen ones left out", "all": "all items, seen ones too",
        "sampled_100": "100 items by chance", "sampled_1000": "1,000 items by chance",
        "ahead": "seen films ahead (median)", "history": "films of the history (median)"})
    return table(shown.drop(columns="model"), caption, digits=3)


def trainings_table(trainings: pd.DataFrame, caption: str | None = None) -> Styler:
    """Size and training of each run; `trainings` is of `verification.trainings`."""
    _need(trainings)
    shown = trainings.set_index(trainings["model"].map(model_label).rename(None)).drop(
        columns="model").astype(float).map(lambda v: "–" if pd.isna(v) else f"{v:.3g}")
    return table(shown.rename(columns=lambda name: name.replace("_", " ")), caption)


def validation_curves(histories: pd.DataFrame, models: Sequence[str], ylabel: str) -> Figure:
    """1 - validation loss after each epoch; a marker where the weights were kept.

    Args:
        histories: of `records.histories`.
        models: which, in this order.
    """
    _need(histories)
    fig, ax = plt.subplots(figsize=(WIDTH, 3.2))
    for model in models:
        part = histories[histories["model"] == model]
        name, colour, marker = model_style(model)
        ax.plot(part["epoch"], 1 - part["validation_loss"], color=colour, label=name)
        best = part[part["best"]]
        ax.plot(best["epoch"], 1 - best["validation_loss"], marker, color=colour)
    ax.set(xlabel="epoch", ylabel=ylabel, ylim=(0, None))
    ax.legend()
    return fig


def published_table(compared: pd.DataFrame, caption: str | None = None) -> Styler:
    """Published and ours, row by row; `compared` is of `verification.compare`."""
    _need(compared)
    shown = pd.DataFrame({
        "protocol": compared["protocol"], "published": compared["published"],
        "ours, this model": compared["model"].map(model_label),
        "metric": compared["metric"].map(metric_label), "published value": compared["theirs"],
        "ours": compared["ours"], "difference (95% interval)": list(map(
            interval, compared["difference"], compared["difference"] - compared["reach"],
            compared["difference"] + compared["reach"])), "verdict": compared["verdict"]})
    return table(shown, caption, index=False, small=True, sortable=True)


def published_figure(compared: pd.DataFrame, metrics: Sequence[str] = ("hr@10", "ndcg@10")
                     ) -> Figure:
    """Published values (hollow) and ours with intervals (filled), a row for each published model.

    Args:
        compared: of `verification.compare`.
        metrics: a panel each.
    """
    shown = compared[compared["metric"].isin(metrics)]
    _need(shown)
    keys = ["protocol", "published", "model"]
    rows = list(shown[keys].drop_duplicates().itertuples(index=False, name=None))[::-1]
    fig, axes = plt.subplots(1, len(metrics), sharey=True, squeeze=False,
                             figsize=(WIDTH, 0.34 * max(len(rows), 3) + 1.2))
    for ax, metric in zip(axes[0], metrics, strict=True):
        part = shown[shown["metric"] == metric].set_index(keys)
        for place, row in enumerate(rows):
            if row not in part.index:
                continue
            r, (_, colour, marker) = part.loc[[row]].iloc[0], model_style(row[2])
            ax.plot([r["low"], r["high"]], [place] * 2, color=colour, linewidth=2.2, alpha=0.55)
            ax.plot(r["ours"], place, marker, color=colour)
            ax.plot(r["theirs"], place, "o", markerfacecolor=PAPER, markeredgecolor=INK)
        ax.set(xlabel=metric_label(metric))
        ax.grid(axis="y", visible=False)
    axes[0][0].set_yticks(range(len(rows)), [f"{protocol}: {published} | {model_label(model)}"
                                             for protocol, published, model in rows])
    handles = [plt.Line2D([], [], color=MUTED, marker="o", linewidth=2.2, label="ours"),
               plt.Line2D([], [], color=INK, marker="o", markerfacecolor=PAPER, linestyle="none",
                          label="published")]
    fig.legend(handles=handles, loc="outside upper right", ncols=2)
    return fig


def band_table(band: pd.DataFrame, caption: str | None = None) -> Styler:
    """Whether models lie where they were expected; `band` is of `verification.within_band`."""
    _need(band)
    shown = pd.DataFrame({
        "model": band["model"].map(model_label), "protocol": band["protocol"],
        "metric": band["metric"].map(metric_label), "ours": band["value"], "from": band["low"],
        "to": band["high"], "band from": band["band_low"], "band to": band["band_high"],
        "verdict": band["verdict"], "interval reaches it": band["reaches"].map({True: "yes",
                                                                                False: "no"})})
    return table(shown, caption, index=False, small=True)


def changes_table(changes: pd.DataFrame, caption: str | None = None) -> Styler:
    """Differences of our own models; `changes` is of `verification.changes`."""
    _need(changes)
    shown = pd.DataFrame({
        "first": changes["first"].map(model_label), "second": changes["second"].map(model_label),
        "protocol": changes["protocol"], "HR@10, first minus second": list(map(
            interval, changes["difference"], changes["low"], changes["high"]))})
    return table(shown, caption, index=False, small=True)


def ties_table(orders: pd.DataFrame, caption: str | None = None) -> Styler:
    """What the order of ties does to HR@10; `orders` is of `ties.by_order`."""
    _need(orders)
    cells = orders.assign(
        model=orders["model"].map(model_label), order=orders["order"].map(ORDERS),
        text=[f"{r['hr@10']:.3f} ± {1.96 * r['error']:.3f}" for _, r in orders.iterrows()])
    wide = cells.pivot(index=["dataset", "model", "protocol"], columns="order", values="text")
    gain = cells[cells["order"] == ORDERS["file"]].set_index(["dataset", "model", "protocol"])
    wide = wide.reindex(columns=list(ORDERS.values())).fillna("–")
    wide["file over chance"] = gain["gain"].reindex(wide.index).map(
        lambda v: "–" if pd.isna(v) else f"{v:+.0%}".replace("-", "\u2212"))
    return table(wide.reset_index().rename_axis(None, axis=1), caption, index=False, small=True)


def _need(rows: pd.DataFrame) -> None:
    if rows.empty:
        raise NoRecords("none of these models has a record yet")
