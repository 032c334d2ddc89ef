"""Tables as the book shows them, and figures that move."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from nbrec.book.comparison import metric_and_cutoff
from nbrec.book.plots.style import CYCLE, metric_label, model_label, model_style
from nbrec.sequences import Sequences


def show_plotly(fig: Any, name: str) -> Any:
    """Show a Plotly figure: inside the book without any request, elsewhere as Plotly does.

    Args:
        fig: a plotly Figure; it gets a white ground, the book's colours, and narrow margins if it
            sets none.
        name: id of the element, unique on its page; fixed, so that the page stays the same.

    Returns:
        IPython HTML if `$NBREC_BOOK` is set to 1 (the pages load plotly.min.js), else None after
        `fig.show()`.
    """
    narrow = {"l": 10, "r": 10, "t": 40 if fig.layout.title.text else 10, "b": 10}
    fig.update_layout(template="plotly_white", colorway=CYCLE,
                      margin=narrow | fig.layout.margin.to_plotly_json())
    if os.environ.get("NBREC_BOOK") != "1":
        return fig.show()
    from IPython.display import HTML
    from plotly.io import to_html

    html = to_html(fig, include_plotlyjs=False, full_html=False, div_id=name, auto_play=False,
                   config={"responsive": True, "displaylogo": False})
    return HTML(f'<div class="plotly-figure">{html}</div>')


def add_slider(
    fig: Any, steps: Mapping[str, Sequence[Any]], method: str = "restyle", prefix: str = "",
    active: int = 0,
) -> None:
    """Put a slider below a Plotly figure.

    Args:
        fig: a plotly Figure, drawn as it is at the active step.
        steps: label -> arguments of the Plotly method.
        method: "restyle" changes traces, "update" traces and layout, "animate" shows frames.
        prefix: stands before the label.
        active: place of the step that is shown first.
    """
    fig.update_layout(sliders=[{
        "active": active, "currentvalue": {"prefix": prefix}, "pad": {"t": 45},
        "steps": [{"label": label, "method": method, "args": list(args)}
                  for label, args in steps.items()]}])


def mean_sd(
    mean: float, sd: float | None = None, percent: bool = False, digits: int | None = 4
) -> str:
    """ "0.1753 ± 0.0105", or "17.53% ± 1.05" with percent; a dash for what is not known.

    Without `digits` the mean has three significant ones, but at most three decimals: for times.
    """
    if mean is None or not math.isfinite(mean):
        return "–"
    if digits is None:
        digits = min(3, max(0, 2 - math.floor(math.log10(mean)))) if mean > 0 else 0
    scale, unit, digits = (100, "%", max(digits - 2, 0)) if percent else (1, "", digits)
    text = f"{scale * mean:.{digits}f}{unit}"
    if sd is None or not math.isfinite(sd):
        return text
    # No-break spaces: a narrow column must not tear the two apart.
    return f"{text}\u00a0±\u00a0{scale * sd:.{digits}f}"


def signed(value: float, digits: int = 4) -> str:
    """A difference with its sign: "+0.0123", "\u22120.0123" (a true minus)."""
    return f"{value:+.{digits}f}".replace("-", "\u2212")


def interval(value: float, low: float, high: float, digits: int = 3) -> str:
    """A difference with its interval: "+0.012 (+0.001 to +0.023)"; without one it stands alone."""
    if not math.isfinite(value):
        return "–"
    ends = f" ({signed(low, digits)} to {signed(high, digits)})" if math.isfinite(low) else ""
    return signed(value, digits) + ends


def p_value(p: float) -> str:
    """ "0.012", "< 0.001"; a dash for what was not tested."""
    return "–" if math.isnan(p) else f"{p:.3f}" if p >= 0.001 else "< 0.001"


def span(values: Iterable[float]) -> str:
    """ "10", or "3 to 10" where not all are alike."""
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def table(
    df: pd.DataFrame, caption: str | None = None, percent: Iterable[str] = (), digits: int = 4,
    best: Mapping[str, str] | None = None, index: bool = True, small: bool = False,
    sortable: bool = False,
) -> Styler:
    """A table as the book shows it.

    Args:
        df: numbers and text; whole numbers get thousands separators, others `digits` decimals.
        caption: stands below the table.
        percent: columns of fractions to be shown as per cent, with two decimals less.
        digits: decimals.
        best: column -> "max" or "min": its best values are set in bold.
        index: whether to show the index.
        small: small type, for wide tables.
        sortable: on the book's pages readers can sort and filter the rows.

    Returns:
        a pandas Styler.
    """
    percent = set(percent)

    def show(column: str) -> Callable[[Any], str]:
        def text(value: Any) -> str:
            if isinstance(value, str):
                return value
            if value is None or pd.isna(value):
                return "–"
            if column in percent:
                return mean_sd(value, percent=True, digits=digits)
            whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
            return f"{value:,}" if whole else (
                f"{value:,.{digits}f}" if isinstance(value, float | np.floating) else str(value))
        return text

    styler = df.style.format({column: show(column) for column in df.columns})
    for column, which in (best or {}).items():
        winner = getattr(df[column], which)()
        styler = styler.map(
            lambda v, w=winner: "font-weight: bold" if v == w else "", subset=[column])
    numbers = df.select_dtypes("number").columns
    styler = styler.set_properties(subset=list(numbers), **{"text-align": "right"})
    return _dress(styler if index else styler.hide(axis="index"), caption, small, sortable)


def _dress(styler: Styler, caption: str | None, small: bool = False, sortable: bool = False
           ) -> Styler:
    sortable = sortable and len(styler.index) > 1  # one row has no order
    classes = "dataframe nbrec-table" + " nbrec-sortable" * sortable  # see book/assets/tables.js
    styler = styler.set_table_attributes(f'class="{classes}"')
    styler = styler.set_table_styles([
        {"selector": "caption", "props": "caption-side: bottom; text-align: left"},
        {"selector": "th.row_heading", "props": "text-align: left"},
        *([{"selector": "td, th", "props": "padding: 0.2em 0.3em; font-size: 0.77rem"}]
          if small else []),
    ])
    return styler.set_caption(caption) if caption else styler


def sequences_table(parts: Mapping[str, Sequences], caption: str | None = None):
    """What variants or parts of the sequences hold, a column for each.

    Predictions are what a sequence model learns from or is tested on place by place: every film
    of a user but the first.

    Args:
        parts: heading -> Sequences.
        caption: stands below the table.
    """
    return table(pd.DataFrame({name: {
        "users": len(part), "interactions": len(part.items),
        "predictions": len(part.items) - len(part), "films": len(np.unique(part.items)),
        "films per user, median": int(np.median(part.lengths))}
        for name, part in parts.items()}), caption)


def results_table(
    summary: pd.DataFrame, metrics: Sequence[str] = ("hr@1", "hr@20", "hr@300", "ndcg@20"),
    variant: str = "original", caption: str | None = None, sort: str | None = None,
    small: bool = False, sortable: bool = False,
) -> Styler:
    """Mean ± standard deviation over folds, one row per model, the best of each column in bold.

    Args:
        summary: of `significance.summary`, one profile and dataset.
        metrics: columns; "seconds" and other measures may be among them.
        sort: a metric to order by, best first; by default the order of the summary.
        small, sortable: as in `table`.
    """
    chosen = summary[(summary["variant"] == variant) & summary["metric"].isin(metrics)]
    models = list(dict.fromkeys(chosen["model"]))
    mean, sd = (chosen.pivot(index="model", columns="metric", values=v).reindex(models)
                for v in ("mean", "sd"))
    if sort:
        mean = mean.sort_values(sort, ascending=_smaller_is_better(sort))
    names = [model_style(m)[0] for m in mean.index]
    cells, weights = {}, {}
    for metric in metrics:
        digits = None if metric.startswith("seconds") else 4 if "@" in metric else 2
        cells[metric_label(metric)] = [
            mean_sd(mean.at[m, metric], sd.at[m, metric], digits=digits) for m in mean.index]
        best = mean[metric].min() if _smaller_is_better(metric) else mean[metric].max()
        weights[metric_label(metric)] = np.where(mean[metric] == best, "font-weight: bold", "")
    frame = pd.DataFrame(cells, index=names)
    bold = pd.DataFrame(weights, index=frame.index)
    styler = frame.style.apply(lambda _: bold, axis=None).set_properties(**{"text-align": "right"})
    return _dress(styler, caption, small, sortable)


def _smaller_is_better(metric: str) -> bool:
    return metric.startswith("seconds") or metric in ("wasserstein", "gini", "mean_popularity")


def comparison_table(
    comparison: pd.DataFrame, metrics: Sequence[str] = ("hr@20", "ndcg@20"),
    caption: str | None = None,
) -> Styler:
    """Thesis | this run | difference for a few metrics; notes on wrong printed numbers below.

    Args:
        comparison: of `comparison.compare_with_thesis`.
        metrics: groups of columns.
    """
    chosen = comparison[comparison["metric"].isin(metrics)]
    notes = list(dict.fromkeys(n for n in chosen["note"] if n))
    signs = {note: "*" * (i + 1) for i, note in enumerate(notes)}
    models = list(dict.fromkeys(chosen["model"]))
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for metric in metrics:
        digits = 1 if metric.startswith("seconds") else 4
        rows = chosen[chosen["metric"] == metric].set_index("model")
        for part in ("thesis", "this run", "difference"):
            cells[metric_label(metric), part] = {}
        for model, row in rows.iterrows():
            thesis = mean_sd(row["thesis"], digits=digits) + signs.get(row["note"], "")
            ours = mean_sd(row["this_run"], row["sd"], digits=digits)
            gap = signed(row["difference"], digits)
            for part, text in (("thesis", thesis), ("this run", ours), ("difference", gap)):
                cells[metric_label(metric), part][model] = text
    frame = pd.DataFrame(cells).reindex(models).fillna("–")
    frame.index = [model_style(m)[0] for m in models]
    below = [f"{sign} {note}; the difference is taken to that." for note, sign in signs.items()]
    text = " ".join(([caption] if caption else []) + below)
    return _dress(frame.style.set_properties(**{"text-align": "right"}), text or None)


def beside_table(beside: pd.DataFrame, metrics: Sequence[str], caption: str | None = None):
    """A few metrics of the thesis beside those of runs: a column for each source.

    Args:
        beside: of `comparison.beside_thesis`; several tables may stand below each other.
        metrics: rows of each model, in this order.
        caption: stands below the table.
    """
    chosen = beside[beside["metric"].isin(metrics)]
    cells: dict[str, dict[tuple[str, str, str], str]] = {}
    for row in chosen.itertuples():
        text = signed(row.value) if row.source.startswith("difference") else mean_sd(
            row.value, row.sd, digits=4 if "@" in row.metric else None)
        cells.setdefault(row.source, {})[row.variant, row.model, row.metric] = text
    models = dict.fromkeys(zip(chosen["variant"], chosen["model"], strict=True))
    rows = [(*model, metric) for model in models for metric in metrics]
    frame = pd.DataFrame(cells).reindex(pd.MultiIndex.from_tuples(rows)).dropna(how="all")
    frame = frame.fillna("–")
    frame = frame.rename(model_label, level=1).rename(metric_label, level=2)
    for level in (1, 0):  # what is the same everywhere belongs into the caption
        if frame.index.get_level_values(level).nunique() == 1:
            frame = frame.droplevel(level)
    return _dress(frame.style.set_properties(**{"text-align": "right"}), caption)


def detailed_table(
    printed: pd.DataFrame, beside: pd.DataFrame, runs: Sequence[str], caption: str | None = None,
) -> Styler:
    """A table of the thesis's appendix beside runs: a row for each metric, and one for the time.

    Args:
        printed: of `comparison.thesis_table`, "A.1" to "A.13".
        beside: of `comparison.beside_thesis` for the same table; a run may be missing in it.
        runs: labels in the order of the columns; a run without the model gets dashes.
        caption: stands below the table.
    """
    names = metric_and_cutoff(printed)
    index = pd.MultiIndex.from_arrays([printed["sequences"], names])
    known = beside.set_index(["source", "variant", "metric"])[["value", "sd"]]

    def cells(source: str, show: Callable[[float, float, str], str]) -> list[str]:
        chosen = [known.loc[(source, *row)] if (source, *row) in known.index else None
                  for row in index]
        return ["–" if c is None else show(c["value"], c["sd"], metric)
                for c, metric in zip(chosen, names, strict=True)]

    def mean(value: float, sd: float, metric: str) -> str:
        return mean_sd(value, sd, digits=4 if "@" in metric else None)

    columns = {("thesis", "mean ± sd"): [
        mean(*row) for row in zip(printed["mean"], printed["std"], names, strict=True)]}
    for run in runs:
        columns[run, "mean ± sd"] = cells(run, mean)
        columns[run, "minus thesis"] = cells(
            f"difference, {run}", lambda v, _, metric: signed(v, 4 if "@" in metric else 1))
    frame = pd.DataFrame(columns, index=index)
    frame = frame.rename(lambda m: metric_label(m) if "@" in m else m, level=1)
    frame = frame.rename_axis(index=[None, None])
    styler = frame.style.set_properties(**{"text-align": "right"})
    return _dress(styler, caption, small=True, sortable=True)
