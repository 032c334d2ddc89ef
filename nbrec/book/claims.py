"""Claims about models against records: each one holds, does not hold, or stays open.

A claim is about pairs of models ("sequence models rank better than Item-KNN"). It holds if every
pair differs significantly in its direction, it does not if one does in the other, and it is open
if the records cannot say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from nbrec.book.significance import (
    Difference,
    bootstrap_difference,
    fold_test,
    holm,
    paired_ranks,
    paired_test,
)
from nbrec.book.user_level import truncation_effect
from nbrec.metrics import per_user

HOLDS, FAILS, OPEN, UNTESTED = "holds", "does not hold", "open", "not testable here"
ENOUGH_FOLDS = 5  # with fewer a t-test over folds has next to no power
EVIDENCE = ["first", "second", *Difference._fields, "basis", "p_holm"]

Pair = tuple[str, str | None]


@dataclass(frozen=True)
class Claim:
    """The first model of every pair has more of a metric than the second, by more than a margin.

    Args:
        text: in words.
        pairs: (more, less) as the claim has them; None stands for the number 0.
        metric: a column of the records, such as "ndcg@20" or "wasserstein".
        margin: what the difference has to exceed.
        within: if given, the claim is that the two are equal: the difference lies in +-within.
        truncation: the pairs are (model, model), on original and on truncated sequences, and the
            users are those of both.
        section: of the thesis, where it stands.
        note: what a reader has to know; without pairs, why it cannot be tested.
    """

    text: str
    pairs: tuple[Pair, ...] = ()
    metric: str = "ndcg@20"
    margin: float = 0.0
    within: float | None = None
    truncation: bool = False
    section: str = ""
    note: str = ""


class Verdict(NamedTuple):
    """What records say about a claim, and the differences that it rests on.

    Args:
        claim: what was judged.
        verdict: `HOLDS`, `FAILS`, `OPEN` or `UNTESTED`.
        evidence: a row for each pair with records: first, second, difference (first minus second)
            with its 95% interval low and high, p_value, n, basis (see `difference`), p_holm
            (corrected for the pairs of the claim).
        missing: the pairs without records; a claim with some of them cannot hold.
    """

    claim: Claim
    verdict: str
    evidence: pd.DataFrame
    missing: tuple[Pair, ...] = ()


def difference(df: pd.DataFrame, a: str, b: str | None, metric: str = "ndcg@20",
               variant: str = "original", margin: float = 0.0) -> tuple[Difference, str]:
    """Two models on the same users: a minus b, with the interval that the records allow.

    With five folds or more it is the corrected t-test over folds. With fewer it is the bootstrap
    over users, which takes the trained models as given: it leaves out what another training part
    or seed would change, and is too narrow by that. Measures that single users do not have, such
    as seconds, have no interval then.

    Args:
        a, b: models; without b the value of a stands alone.
        margin: what the p-value is of.

    Returns:
        the difference, and "folds", "users" or "too few folds" (no interval, p-value 1).

    Raises:
        ValueError: there is no fold that both models have.
    """
    folds = _common_folds(df, a, b, variant)
    if not folds:
        raise ValueError(f"no fold of variant {variant!r} has records of {a!r} and {b!r}")
    if len(folds) >= ENOUGH_FOLDS and b is not None:
        return paired_test(df, a, b, metric, variant, margin), "folds"
    if b is not None and "@" in metric and not margin:
        first, second = paired_ranks(df, a, b, variant)
        return bootstrap_difference(per_user(metric, first), per_user(metric, second)), "users"
    own = df[(df["variant"] == variant) & df["fold"].isin(folds)]
    values = own[own["model"] == a].set_index("fold")[metric].astype(float)
    if b is not None:
        values = values - own[own["model"] == b].set_index("fold")[metric].astype(float)
    if len(folds) >= ENOUGH_FOLDS:
        ratio = float((own["n_test"] / own["n_train"]).mean())
        return fold_test(values.to_numpy(), ratio, margin), "folds"
    return Difference(float(values.mean()), np.nan, np.nan, 1.0, len(folds)), "too few folds"


def judge(df: pd.DataFrame, claim: Claim, variant: str = "original", level: float = 0.05
          ) -> Verdict:
    """Whether a claim holds, by Holm's correction over its pairs.

    Args:
        df: of `records.load_records`, one profile and dataset. Pairs without a fold in common are
            missing; without any the claim is not testable.
        variant: which sequences; truncation has both.
        level: pairs differ significantly if their corrected p-value is below it.
    """
    df = df[df[claim.metric].notna()] if claim.metric in df else df.iloc[:0]
    if claim.truncation:
        table = _truncation(df, claim)
    else:
        rows = []
        for a, b in claim.pairs:
            if _common_folds(df, a, b, variant):
                found, basis = difference(df, a, b, claim.metric, variant, claim.margin)
                rows.append((a, b, *found, basis))
        table = pd.DataFrame(rows, columns=EVIDENCE[:-1])
    table["p_holm"] = holm(table["p_value"])
    there = set(zip(table["first"], table["second"], strict=True))
    missing = tuple(pair for pair in claim.pairs if pair not in there)
    if claim.within is None:
        above = table["difference"] > claim.margin
        verdict = _verdict(above & (table["p_holm"] < level), ~above & (table["p_holm"] < level))
    else:
        verdict = _verdict((table["low"] > -claim.within) & (table["high"] < claim.within),
                           (table["low"] > claim.within) | (table["high"] < -claim.within))
    return Verdict(claim, OPEN if verdict == HOLDS and missing else verdict, table, missing)


def with_enough_folds(df: pd.DataFrame) -> pd.DataFrame:
    """Records of the models that have `ENOUGH_FOLDS`, if there are three or more, else all.

    A pair without a significant difference costs the others power when all are corrected together.

    Args:
        df: of `records.load_records`, one profile, dataset and variant.
    """
    folds = df.groupby("model")["fold"].nunique()
    enough = folds.index[folds >= ENOUGH_FOLDS]
    return df[df["model"].isin(enough)] if len(enough) >= 3 else df


def evidence(df: pd.DataFrame, pairs: Iterable[Pair], metric: str = "ndcg@20") -> pd.DataFrame:
    """The differences of pairs of models with intervals and p-values, corrected together.

    Returns:
        as `Verdict.evidence`.
    """
    return judge(df, Claim("", tuple(pairs), metric)).evidence


def counted(verdicts: Iterable[Verdict]) -> dict[str, int]:
    """How many claims have each of the four verdicts."""
    count = Counter(v.verdict for v in verdicts)
    return {word: count[word] for word in (HOLDS, FAILS, OPEN, UNTESTED)}


def _truncation(df: pd.DataFrame, claim: Claim) -> pd.DataFrame:
    """Original minus truncated for the users of both, as `user_level.truncation_effect` has it."""
    models = [a for a, _ in claim.pairs]
    effect = truncation_effect(df[df["model"].isin(models)], (claim.metric,))
    effect = effect[effect["users"] > 1].astype({"same": float, "same_low": float,
                                                 "same_high": float})
    error = (effect["same_high"] - effect["same_low"]) / (2 * 1.96)
    with np.errstate(divide="ignore", invalid="ignore"):
        p_value = 2 * stats.norm.sf((-effect["same"] - claim.margin).abs() / error)
    return pd.DataFrame({
        "first": effect["model"], "second": effect["model"], "difference": -effect["same"],
        "low": -effect["same_high"], "high": -effect["same_low"],
        "p_value": np.nan_to_num(p_value, nan=1.0), "n": effect["users"], "basis": "same users"})


def _common_folds(df: pd.DataFrame, a: str, b: str | None, variant: str) -> list[int]:
    models = {a, b} - {None}
    own = df[(df["variant"] == variant) & df["model"].isin(models)]
    count = own.groupby("fold")["model"].nunique()
    return count.index[count == len(models)].tolist()


def _verdict(right: pd.Series, wrong: pd.Series) -> str:
    if not len(right):
        return UNTESTED
    return FAILS if wrong.any() else HOLDS if right.all() else OPEN
