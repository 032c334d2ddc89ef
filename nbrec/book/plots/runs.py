"""Tables of runs: what was run, with intervals, pairs and the effect of truncation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any

import pandas as pd
from pandas.io.formats.style import Styler

from nbrec.book import NoRecords, comparison, orders, significance
from nbrec.book.comparison import THESIS_METRICS
from nbrec.book.plots.style import metric_label, model_label
from nbrec.book.plots.tables import _dress, interval, mean_sd, p_value, signed, table


def shown(runs: Mapping[str, Any], label: str, draw: Callable[..., Any], *more: Any) -> Any:
    """A figure or table of a run; where its records do not suffice, a line that says so.

    Args:
        runs: label -> what is drawn; a run may be missing.
        draw: makes the figure or the table from it.
        more: further arguments of `draw`.
    """
    from IPython.display import Markdown, display

    try:
        if label not in runs:
            raise NoRecords(f"the {label} has no records here")
        return draw(runs[label], *more)
    except NoRecords as lack:
        text = str(lack)
        display(Markdown(f"*{text[0].upper()}{text[1:]}.*"))
        return None


def runs_table(both: Mapping[str, pd.DataFrame], caption: str | None = None) -> Styler:
    """What was run.

    Args:
        both: of `comparison.beside_reference`.
    """
    df = comparison.runs(both)
    folds = [f"{a}" if a == b else f"{a} to {b}" for a, b in zip(df["least"], df["most"],
                                                                 strict=True)]
    df = df.drop(columns=["least", "most"]).rename(columns={
        "variant": "sequences", "train": "training users", "test": "test users in all",
        "hours": "hours of computing"})
    df.insert(4, "folds of a model", folds)
    return table(df, caption, index=False, small=True, digits=1)


def folds_table(both: Mapping[str, pd.DataFrame], caption: str | None = None) -> Styler:
    """How many folds each model has in each run."""
    counts = comparison.fold_counts(both).rename(index=model_label).rename_axis(None)
    return table(counts, caption, small=True, sortable=True)


def intervals_table(beside: pd.DataFrame, baseline: str, caption: str | None = None) -> Styler:
    """A metric with its intervals over users and over folds, and the difference to a baseline.

    Args:
        beside: of `user_level.beside_baseline`.
    """
    def ends(low: float, high: float) -> str:  # no measure here can be negative
        return "–" if pd.isna(low) else f"{max(low, 0):.3f} to {high:.3f}"

    shown = pd.DataFrame({
        "folds": beside["folds"], "users": beside["users"], "mean": beside["mean"],
        "over users": list(map(ends, beside["low"], beside["high"])),
        "over folds": list(map(ends, beside["fold_low"], beside["fold_high"])),
        f"minus {model_label(baseline)}": list(map(interval, beside["ahead"], beside["ahead_low"],
                                                   beside["ahead_high"]))})
    shown.index = beside["model"].map(model_label).to_list()
    return table(shown, caption, digits=3, small=True, sortable=True)


def apart_table(tested: Mapping[Any, pd.DataFrame], caption: str | None = None) -> Styler:
    """How many pairs of models differ significantly, and the first model of each run.

    Args:
        tested: (run, variant) -> table of `significance.compare_all`.
    """
    rows = []
    for (run, variant), pairs in tested.items():
        wins = pairs["better"].value_counts()
        first = wins.index[0] if len(wins) else None
        own = pairs[pairs["better"] == first]
        level = own.loc[~own["significant"], "worse"].map(model_label)
        rows.append({
            "run": run, "sequences": variant, "pairs": len(pairs),
            "significant": int(pairs["significant"].sum()),
            "typical interval": f"±{((pairs['high'] - pairs['low']) / 2).median():.3f}",
            "first": model_label(first) if first else "–",
            "not significantly different from it": ", ".join(level[:6]) + (
                f" and {len(level) - 6} more" if len(level) > 6 else "") or "none"})
    return table(pd.DataFrame(rows), caption, index=False, small=True)


def tests_table(found: orders.MeanRanks, pairs: pd.DataFrame, caption: str | None = None
                ) -> Styler:
    """What mean ranks and corrected t-tests say of the same pairs.

    Args:
        found: of `orders.mean_ranks`.
        pairs: of `significance.compare_all`.
    """
    told = pairs[pairs["significant"] & pairs["better"].isin(found.ranks.index)
                 & pairs["worse"].isin(found.ranks.index)]
    n = len(found.ranks)
    return table(pd.DataFrame([{
        "models": n, "folds": found.folds, "Friedman's p": p_value(found.p_value),
        "pairs": n * (n - 1) // 2, "significant by Nemenyi": len(orders.significant_pairs(found)),
        "by the corrected t-test": len(told)}]), caption, index=False)


def truncation_table(effect: pd.DataFrame, metric: str, caption: str | None = None) -> Styler:
    """Truncated minus original, for the same users and for all, beside the thesis.

    Args:
        effect: of `user_level.truncation_effect`.
        metric: one that is in it.
    """
    rows = effect[effect["metric"] == metric].sort_values("difference")
    if rows.empty:
        raise NoRecords("no model has records of both kinds of sequences")
    shown = pd.DataFrame({
        "users of both": rows["users"].astype(int),
        "same users": list(map(interval, rows["same"], rows["same_low"], rows["same_high"])),
        "all users": rows["difference"].map(lambda v: signed(v, 3)),
        "thesis": rows["thesis"].map(lambda v: "–" if pd.isna(v) else signed(v, 3)),
        f"{metric_label(metric)} of those who leave": rows["left"].astype(float),
        "of those who enter": rows["entered"].astype(float), "folds": rows["folds"].astype(int)})
    shown.index = rows["model"].map(model_label).to_list()
    return table(shown, caption, digits=3, small=True, sortable=True)


def overview_table(
    beside: pd.DataFrame, folds: Mapping[str, Mapping[str, int]],
    metrics: Sequence[str] = THESIS_METRICS, caption: str | None = None,
) -> Styler:
    """A table like the thesis's 5.1 and 5.2: for each model the thesis and each run, one per row.

    The best of each source is in bold, stars apart. An asterisk marks a printed number known to be
    wrong, which stays out of that; what is right comes after the caption.

    Args:
        beside: of `comparison.beside_thesis`, table "5.1" or "5.2".
        folds: label of a run -> model -> how many folds it has.
        metrics: columns.
        caption: stands below the table.
    """
    chosen = beside[beside["metric"].isin(metrics)
                    & ~beside["source"].str.startswith("difference")]
    sources = ["thesis", *folds]
    index = pd.MultiIndex.from_tuples(
        [(m, s) for m in dict.fromkeys(chosen["model"]) for s in sources
         if ((chosen["model"] == m) & (chosen["source"] == s)).any()])
    frame = pd.DataFrame("–", index=index, columns=list(metrics))
    bold = pd.DataFrame("", index=index, columns=list(metrics))
    for metric, source in product(metrics, sources):
        rows = chosen[(chosen["metric"] == metric) & (chosen["source"] == source)]
        right = rows.loc[rows["note"] == "", "value"]
        best = right.min() if metric == "seconds" else right.max()
        for r in rows.itertuples():
            frame.loc[(r.model, source), metric] = _cell(metric, source, r.value, r.sd) + (
                "*" if r.note else "")
            if r.value == best and not r.note and metric != "stars":  # most have three of them
                bold.loc[(r.model, source), metric] = "font-weight: bold"
    frame["folds"] = [f"{folds[s][m]}" if s in folds else "10" for m, s in index]
    bold["folds"] = ""
    names = dict(zip(metrics, map(metric_label, metrics), strict=True), seconds="seconds",
                 stars="stars")
    shown = pd.MultiIndex.from_tuples([(model_label(m), s) for m, s in index])
    frame, bold = (df.set_axis(shown).rename(columns=names) for df in (frame, bold))
    notes = [f"* {note}." for note in chosen["note"].unique() if note]
    styler = frame.style.apply(lambda _: bold, axis=None).set_properties(**{"text-align": "right"})
    return _dress(styler, " ".join([*([caption] if caption else []), *notes]) or None, small=True)


def _cell(metric: str, source: str, value: float, sd: float) -> str:
    if metric == "stars":
        return "★" * int(value) if source == "thesis" else mean_sd(value, sd, digits=1)
    return mean_sd(value, sd, digits=4 if "@" in metric else None)


def measured_table(df: pd.DataFrame, metrics: Sequence[str], caption: str | None = None) -> Styler:
    """A row per model and kind of sequences: means and deviations over folds of all measures.

    Args:
        df: of `load_records`, one profile and dataset.
        metrics: of accuracy; seconds, epochs and measures of personalisation come behind them.
    """
    if df.empty:
        raise NoRecords("there are no records of these data here")
    others = {"seconds": "seconds", "mean_popularity": "popularity ‰", "wasserstein": "distance",
              "coverage": "coverage", "gini": "Gini", "stars": "stars", "epochs": "epochs"}
    rows = []
    for (model, variant), part in significance.summary(df).groupby(["model", "variant"],
                                                                   sort=False):
        part = part.set_index("metric")
        row = {"model": model_label(model), "sequences": variant, "folds": int(part["n"].max())}
        for metric in [*metrics, *others]:
            digits = 4 if "@" in metric else None if metric == "seconds" else 2
            row[others.get(metric, metric_label(metric))] = (
                mean_sd(part.at[metric, "mean"], part.at[metric, "sd"], digits=digits)
                if metric in part.index else "–")
        rows.append(row)
    frame = pd.DataFrame(rows).set_index(["model", "sequences"]).rename_axis([None, None])
    return table(frame, f"{caption or 'Records'}: {significance.described(df)}.", small=True,
                 sortable=True)
