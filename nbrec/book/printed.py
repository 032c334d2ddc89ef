"""All numbers that the thesis prints, and how many of its appendix ours agree with."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from nbrec.book import comparison

ANNEX = tuple(f"A.{i}" for i in range(1, 14))
SAME_AT_ONE = ("mrr@1", "ndcg@1")  # at the first place all metrics are one number


def agreement(both: Mapping[str, pd.DataFrame], deviations: float = 2.0) -> pd.DataFrame:
    """How many metrics of each table of the appendix agree with ours, and where the others lie.

    Two means agree if they differ by no more than so many deviations of their difference,
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
            far = gap.abs() > deviations * np.hypot(part["sd"].fillna(0), part["thesis_sd"])
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
        metric = df["metric"] + ("@" + df["k"].astype("string")).fillna("")
        parts.append(df[["model", "sequences"]].assign(table=name, metric=metric, mean=df["mean"],
                                                       sd=df["std"]))
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
