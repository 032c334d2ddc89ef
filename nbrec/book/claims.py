"""Sentences of the thesis against records: each one holds, does not hold, or stays open.

A sentence is about pairs of models ("sequence models rank better than Item-KNN"). It holds if every
pair is told apart in its direction, it does not if one is told apart in the other, and it is open
if the records cannot say.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from nbrec.book.significance import (
    Difference,
    bootstrap_difference,
    holm,
    paired_ranks,
    paired_test,
)
from nbrec.book.user_level import truncation_effect
from nbrec.metrics import per_user

HOLDS, FAILS, OPEN, UNTESTED = "holds", "does not hold", "open", "not testable here"
ENOUGH_FOLDS = 5  # with fewer a t-test over folds has next to no power


class Verdict(NamedTuple):
    """What records say about a sentence, and the differences that it rests on.

    Args:
        verdict: `HOLDS`, `FAILS`, `OPEN` or `UNTESTED`.
        pairs: first, second, difference, low, high, p_value, n, basis (see `difference`), p_holm.
    """

    verdict: str
    pairs: pd.DataFrame


def difference(df: pd.DataFrame, a: str, b: str, metric: str = "ndcg@20",
               variant: str = "original") -> tuple[Difference, str]:
    """Two models on the same users: a minus b, with the interval that the records allow.

    With five folds or more it is the corrected t-test over folds. With fewer it is the bootstrap
    over users, which takes the trained models as given: it leaves out what another training part
    or seed would change, and is too narrow by that.

    Returns:
        the difference, and "folds" or "users".

    Raises:
        ValueError: there is no fold that both models have.
    """
    if _common_folds(df, a, b, variant) >= ENOUGH_FOLDS:
        return paired_test(df, a, b, metric, variant), "folds"
    first, second = paired_ranks(df, a, b, variant)
    return bootstrap_difference(per_user(metric, first), per_user(metric, second)), "users"


def judge(df: pd.DataFrame, pairs: Iterable[tuple[str, str]], metric: str = "ndcg@20",
          variant: str = "original", level: float = 0.05) -> Verdict:
    """Whether the first model of every pair is better than the second, by Holm's correction.

    Args:
        df: of `records.load_records`, one profile and dataset.
        pairs: (better, worse) as the sentence has them. Pairs without a fold in common are left
            out; without any the sentence is not testable.
        metric: more is better, such as "ndcg@20".
    """
    rows = []
    for a, b in pairs:
        if not _common_folds(df, a, b, variant):
            continue
        found, basis = difference(df, a, b, metric, variant)
        rows.append({"first": a, "second": b, **found._asdict(), "basis": basis})
    table = pd.DataFrame(rows, columns=["first", "second", *Difference._fields, "basis"])
    table["p_holm"] = holm(table["p_value"])
    return Verdict(_verdict(table["difference"], table["p_holm"] < level), table)


def judge_truncation(df: pd.DataFrame, models: Iterable[str], metric: str = "hr@20",
                     level: float = 0.05) -> Verdict:
    """Whether truncated sequences make every one of these models worse for the same users.

    It compares the users who are in both variants, with the interval of
    `user_level.truncation_effect` and Holm's correction over the models.
    """
    effect = truncation_effect(df[df["model"].isin(list(models))], (metric,))
    effect = effect[effect["users"] > 1].astype({"same": float, "same_low": float,
                                                 "same_high": float})
    error = (effect["same_high"] - effect["same_low"]) / (2 * 1.96)
    with np.errstate(divide="ignore", invalid="ignore"):
        p_value = 2 * stats.norm.sf(effect["same"].abs() / error)
    pairs = pd.DataFrame({
        "first": effect["model"] + ", original", "second": effect["model"] + ", truncated",
        "difference": -effect["same"], "low": -effect["same_high"], "high": -effect["same_low"],
        "p_value": np.nan_to_num(p_value, nan=1.0), "n": effect["users"], "basis": "same users"})
    pairs["p_holm"] = holm(pairs["p_value"])
    return Verdict(_verdict(pairs["difference"], pairs["p_holm"] < level), pairs)


def _common_folds(df: pd.DataFrame, a: str, b: str, variant: str) -> int:
    own = df[(df["variant"] == variant) & df["model"].isin([a, b])]
    return int(own.groupby("fold")["model"].nunique().eq(2).sum())


def _verdict(differences: pd.Series, told_apart: pd.Series) -> str:
    if not len(differences):
        return UNTESTED
    right, wrong = (differences > 0) & told_apart, (differences < 0) & told_apart
    return FAILS if np.any(wrong) else HOLDS if np.all(right) else OPEN
