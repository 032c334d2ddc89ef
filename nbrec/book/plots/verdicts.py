"""Tables of claims and of the differences that they rest on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from nbrec.book.claims import Verdict
from nbrec.book.plots.style import metric_label, model_label
from nbrec.book.plots.tables import interval, mean_sd, p_value, signed, table


def claims_table(verdicts: Iterable[Verdict], caption: str | None = None) -> Styler:
    """One row per claim: what it says, its verdict, and the pairs that lack records."""
    verdicts = list(verdicts)
    known = {m for v in verdicts for side in ("first", "second") for m in v.evidence[side]}
    rows = [{"section": v.claim.section, "the thesis finds": v.claim.text,
             "here": v.verdict, "measure": metric_label(v.claim.metric) if v.claim.pairs else "–",
             "pairs": f"{len(v.evidence)} of {len(v.claim.pairs)}" if v.claim.pairs else "–",
             "no records yet": ", ".join(dict.fromkeys(
                 model_label(m) for pair in v.missing
                 for m in sorted({m for m in pair if m} - known) or pair if m)) or "–",
             "note": v.claim.note or "–"} for v in verdicts]
    return table(pd.DataFrame(rows), caption, index=False, small=True)


def evidence_table(verdicts: Sequence[Verdict], caption: str | None = None) -> Styler:
    """One row per pair of models behind the claims, with the interval of its difference."""
    rows = [{"section": v.claim.section, "measure": metric_label(v.claim.metric),
             "first": model_label(r.first) + ", original" * v.claim.truncation,
             "second": "–" if r.second is None else (
                 "truncated" if v.claim.truncation else model_label(r.second)),
             "difference (95% interval)": interval(r.difference, r.low, r.high),
             "p (Holm)": p_value(r.p_holm),
             "over": r.basis if r.basis == "too few folds" else f"{r.n:,.0f} {r.basis}"}
            for v in verdicts for r in v.evidence.itertuples()]
    if not rows:
        rows = [{"section": "–", "measure": "no pair has records yet"}]
    return table(pd.DataFrame(rows), caption, index=False, small=True, sortable=True)


def order_table(order: pd.DataFrame, caption: str | None = None) -> Styler:
    """Pairs confirmed, reversed and open, by group of models and metric.

    Args:
        order: of `orders.thesis_order`, one variant.
    """
    if order.empty:
        return table(pd.DataFrame({"pairs": ["none has records yet"]}), caption, index=False)
    order = pd.concat([order, order.assign(group="all pairs")])
    count = order.groupby(["group", "metric", "verdict"], sort=False).size().unstack(fill_value=0)
    count = count.reindex(columns=["confirmed", "reversed", "open"], fill_value=0)
    cells = count.astype(str).agg(" · ".join, axis=1).unstack(sort=False).fillna("–")
    return table(cells.rename(columns=metric_label).rename_axis(None).rename_axis(None, axis=1),
                 caption, small=True)


def reversed_table(order: pd.DataFrame, caption: str | None = None) -> Styler:
    """The pairs that stand in the other order than in the thesis, beyond chance.

    Args:
        order: of `orders.thesis_order`.
    """
    rows = [{"sequences": r.variant, "measure": metric_label(r.metric),
             "first in the thesis": model_label(r.first), "first here": model_label(r.second),
             "difference (95% interval)": interval(r.difference, r.low, r.high),
             "p (Holm)": p_value(r.p_holm), "over": f"{r.n:,.0f} {r.basis}"}
            for r in order[order["verdict"] == "reversed"].itertuples()]
    return table(pd.DataFrame(rows or [{"sequences": "–", "measure": "no pair is reversed"}]),
                 caption, index=False, small=True, sortable=True)


def choices_table(choices: pd.DataFrame, caption: str | None = None) -> Styler:
    """What to choose for what.

    Args:
        choices: of `findings.choices`.
    """
    shown = pd.DataFrame({
        "situation": choices["situation"], "test users": choices["users"],
        "choose": choices["choose"].map(model_label), "NDCG@20": choices["value"].astype(float),
        "seconds a fold": choices["seconds"].astype(float),
        "not significantly different from the best": [", ".join(map(model_label, others)) or "none"
                                         for others in choices["equals"]]})
    return table(shown, caption, index=False, small=True, digits=3)


def families_table(families: pd.DataFrame, caption: str | None = None) -> Styler:
    """The models by family, with their means.

    Args:
        families: of `findings.families`.
    """
    shown = families.assign(
        family=families["family"].fillna("baselines"), model=families["model"].map(model_label))
    shown = shown.rename(columns=metric_label).astype({"folds": int})
    return table(shown, caption, index=False, small=True, sortable=True, digits=3)


def counts(counted: Mapping[str, int], name: str) -> pd.DataFrame:
    """One row of counts, for `table`."""
    return pd.DataFrame([counted], index=[name])


def sweeps_table(tried: pd.DataFrame, caption: str | None = None,
                 models: Iterable[str] | None = None) -> Styler:
    """One row per model and setting: the gap of each value that was tried to the value as it is.

    Args:
        tried: of `sweeps.tried`; its metric "ndcg@20" is shown.
        models: some of its models; all by default.
    """
    chosen = tried[tried["metric"] == "ndcg@20"]
    chosen = chosen if models is None else chosen[chosen["model"].isin(list(models))]
    rows = [{"model": model_label(r.model), "setting": r.setting, "value": f"{r.value:g}",
             "NDCG@20": f"{r.mean:.4f}", "epochs": r.epochs, "seconds": r.steady,
             "gap (95% interval)": "as it is" if r.chosen else interval(
                 r.gap, r.gap_low, r.gap_high, 4)} for r in chosen.itertuples()]
    if not rows:
        rows = [{"model": "–", "setting": "no records yet"}]
    return table(pd.DataFrame(rows), caption, index=False, small=True, sortable=True, digits=1)


def pairs_table(pairs: pd.DataFrame, metric: str = "ndcg@20", caption: str | None = None
                ) -> Styler:
    """How far models are apart, pair by pair, with 95% intervals and Holm's correction.

    Args:
        pairs: of `claims.evidence`.
        metric: what the differences are of.
        caption: stands below the table, before the sentence on the tests.
    """
    frame = pd.DataFrame({
        metric_label(metric): [signed(d) for d in pairs["difference"]],
        "95% interval": [f"{signed(low)} to {signed(high)}"
                         for low, high in zip(pairs["low"], pairs["high"], strict=True)],
        "p (Holm)": pairs["p_holm"].to_numpy(),
        "significant": np.where(pairs["p_holm"] < 0.05, "yes", "no"),
        "over": [f"{n:,} {basis}" for n, basis in zip(pairs["n"], pairs["basis"], strict=True)]},
        index=[f"{model_label(a)} minus {model_label(b)}"
               for a, b in zip(pairs["first"], pairs["second"], strict=True)])
    text = (f"Tests over folds are corrected t-tests, those over users bootstraps; p-values are "
            f"corrected for all {len(pairs)} pairs (Holm), and significant is 5%.")
    if "users" in set(pairs["basis"]):
        text += (" Those over users take the trained models as given: what another seed or other "
                 "training users would change is missing, so their intervals are too narrow.")
    return table(frame, " ".join(([caption] if caption else []) + [text]), digits=3)


def agreement_table(agreement: pd.DataFrame, caption: str | None = None) -> Styler:
    """How many metrics agree with the thesis's appendix; `agreement` is of `printed.agreement`."""
    shown = agreement.assign(model=agreement["model"].map(model_label))
    return table(shown.rename(columns={"variant": "sequences"}), caption, index=False, small=True,
                 sortable=True)


def printed_table(everything: pd.DataFrame, caption: str | None = None) -> Styler:
    """All printed numbers; `everything` is of `printed.everything`."""
    def text(mean: float, sd: float, metric: str) -> str:
        digits = 4 if "@" in metric else None
        return "★" * int(mean) if metric == "stars" else mean_sd(mean, sd, digits=digits)

    shown = pd.DataFrame({
        "table": everything["table"], "model": everything["model"].map(model_label),
        "sequences": everything["variant"],
        "setting": [f"{s} = {v:g}" if s else "" for s, v in zip(
            everything["setting"], everything["value"], strict=True)],
        "metric": [metric_label(m) if "@" in m else m.replace("_", " ")
                   for m in everything["metric"]],
        "printed": list(map(text, everything["mean"], everything["sd"], everything["metric"])),
        "note": everything["note"]})
    return table(shown, caption, index=False, small=True, sortable=True)
