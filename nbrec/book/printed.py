"""All numbers that the thesis prints, and how many of its appendix ours agree with."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from importlib import resources

import numpy as np
import pandas as pd

from nbrec import metrics, records
from nbrec.book import comparison

ANNEX = tuple(f"A.{i}" for i in range(1, 14))
SAME_AT_ONE = ("mrr@1", "ndcg@1")  # at the first place all metrics are one number


def agreement(both: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """How many metrics of each table of the appendix agree with ours, and where the others lie.

    Two means agree if they differ by no more than two deviations of their difference,
    sqrt(s1^2 + s2^2) with the deviations over folds; a single fold has none of its own.

    Args:
        both: label of a run -> records.

    Returns:
        table, model, run, variant, folds, metrics (how many), agree, higher, lower.
    """
    rows = []
    for name, (run, df) in ((name, item) for name in ANNEX for item in both.items()):
        own = comparison.compare_with_thesis(df, name)
        own = own[own["metric"].str.contains("@") & ~own["metric"].isin(SAME_AT_ONE)]
        for (model, variant), part in own.groupby(["model", "variant"], sort=False):
            gap = part["difference"]
            far = gap.abs() > 2 * np.hypot(part["sd"].fillna(0), part["thesis_sd"])
            rows.append((name, model, run, variant, int(part["n"].max()), len(part),
                         int((~far).sum()), int((far & (gap > 0)).sum()),
                         int((far & (gap < 0)).sum())))
    return pd.DataFrame(rows, columns=["table", "model", "run", "variant", "folds", "metrics",
                                       "agree", "higher", "lower"])


def everything() -> pd.DataFrame:
    """All printed numbers of the thesis's result tables.

    Returns:
        table, model, variant, setting and value (of a sweep; else "" and NaN), metric, mean, sd
        (NaN where none is printed), note (on a number that is known to be wrong). Times are
        seconds, in Tables 2.1, 3.2, 3.4 and 5.3 minutes.
    """
    parts = []
    for name in ANNEX:
        df = comparison.thesis_table(name)
        parts.append(df[["model", "sequences"]].assign(
            table=name, metric=comparison.metric_and_cutoff(df), mean=df["mean"], sd=df["std"]))
    for variant, name in comparison.OVERVIEWS.items():
        df = comparison.thesis_table(name).rename(columns={"personalisation_stars": "stars"})
        df = df.melt(["model", "sequences"], list(comparison.THESIS_METRICS), "metric", "mean")
        note = [comparison.ERRATA.get((name, model, variant, metric), ("", ""))[1]
                for model, metric in zip(df["model"], df["metric"], strict=True)]
        parts.append(df.assign(table=name, note=note))
    for name in ("2.1", "3.2", "3.4", "5.3"):
        df = comparison.thesis_table(name).rename(columns={"parameter": "setting"})
        keys = ["model", "sequences", "setting", "value"]
        parts.append(df.melt(keys, var_name="metric", value_name="mean").assign(table=name))
    out = pd.concat(parts, ignore_index=True).rename(columns={"sequences": "variant"})
    out = out.fillna({"note": "", "setting": ""})
    return out[["table", "model", "variant", "setting", "value", "metric", "mean", "sd", "note"]]


def annex(name: str, variant: str = "original", column: str = "mean") -> pd.Series:
    """A table of the appendix: "hr@1" .. "ndcg@300" and "seconds" -> number.

    Args:
        name: "A.1" to "A.13".
        variant: of the sequences.
        column: "mean" or "std".
    """
    df = comparison.thesis_table(name)
    df = df[df["sequences"] == variant]
    return df.set_index(comparison.metric_and_cutoff(df))[column]


def tables_by_model() -> dict[str, str]:
    """Which table of the appendix a model has."""
    return {comparison.thesis_table(name)["model"].iloc[0]: name for name in ANNEX}


def seen_both_ways(df: pd.DataFrame, models: Iterable[str]) -> pd.DataFrame:
    """Hit rates of records with seen items left out and with them in the ranking.

    Args:
        df: of `load_records`, one profile and dataset; original sequences are used.
        models: those wanted; one without both kinds of ranks is left out.

    Returns:
        model, "seen items" (data, and "left out" or "kept"), hr@1, hr@20, hr@100, hr@300.
    """
    rows, own = [], df[(df["variant"] == "original") & df["model"].isin(list(models))]
    users = records.per_user(own) if len(own) else pd.DataFrame(columns=["model"])
    for model, part in users.groupby("model", sort=False):
        for how, column in (("left out", "rank"), ("kept", "rank_with_seen")):
            if column in part and part[column].notna().all():
                ranks = part[column].to_numpy(int)
                rows.append((model, f"{part['dataset'].iloc[0]}, {how}",
                             *(metrics.hit_rate(ranks, k) for k in metrics.KS)))
    return pd.DataFrame(rows, columns=["model", "seen items", *(f"hr@{k}" for k in metrics.KS)])


def checked(done: Collection[str]) -> pd.DataFrame:
    """The errata and deviations, and which of them code has checked.

    Args:
        done: rows that were checked, such as "E1" or "D12".

    Returns:
        row, topic, "by code" ("yes" or "no"), "why not" ("" for those that were checked).

    Raises:
        ValueError: there is no such row, or one was not checked and has no reason why.
    """
    with (resources.files("nbrec.book") / "thesis" / "errata.csv").open(encoding="utf-8") as file:
        table = pd.read_csv(file, keep_default_na=False)
    if unknown := sorted(set(done) - set(table["row"])):
        raise ValueError(f"checked rows {unknown}: there are none of these names in errata.csv")
    by_code = table["row"].isin(list(done))
    if lacking := table.loc[~by_code & (table["reason"] == ""), "row"].tolist():
        raise ValueError(f"rows {lacking} were not checked, and errata.csv has no reason for that")
    return pd.DataFrame({"row": table["row"], "topic": table["topic"],
                         "by code": np.where(by_code, "yes", "no"),
                         "why not": table["reason"].where(~by_code, "")})
