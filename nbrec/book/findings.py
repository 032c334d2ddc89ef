"""The findings of the thesis, one by one, and which model to choose for what."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import product

import numpy as np
import pandas as pd

from nbrec import records
from nbrec.book import costs, growth
from nbrec.book.claims import EVIDENCE, FAILS, HOLDS, OPEN, Claim, Verdict, judge
from nbrec.book.significance import holm, paired_test
from nbrec.metrics import STARS, per_user

SEQUENCE, GRAPH = ("transformer", "mamba", "xlstm"), ("gcn", "lightgcn", "gat")
HYBRIDS = {"transformer+minibert": "transformer", "transformer+gat": "transformer",
           "xlstm+gat": "xlstm"}  # hybrid: its backbone
FAMILIES = {"item-knn": "Item-KNN", **dict.fromkeys(SEQUENCE, "sequence models"),
            **dict.fromkeys(GRAPH, "graph models"), **dict.fromkeys(HYBRIDS, "hybrids")}
THESIS_MODELS = tuple(FAMILIES)  # of Tables 5.1 and 5.2
LOG_SECONDS = "log_seconds"  # decades, of `costs.steady`


def _over(model: str, *others: str) -> tuple[tuple[str, str], ...]:
    return tuple((model, other) for other in others)


CLAIMS = (
    Claim("sequence models rank better than Item-KNN",
          tuple((m, "item-knn") for m in SEQUENCE), section="5.1.1"),
    Claim("they do so within 300 films, too", tuple((m, "item-knn") for m in SEQUENCE), "hr@300",
          section="5.1.1", note="against the thesis's own Table 5.1 (errata E6)"),
    Claim("Item-KNN is the best classical method",
          _over("item-knn", "user-knn", "svd", "ease", "markov"), section="5",
          note="in the thesis User-KNN and SVD seem to have kept seen items in the ranking (D1)"),
    Claim("graph models rank worse than Item-KNN", _over("item-knn", *GRAPH), section="5.1.1"),
    Claim("hybrids rank better than their backbones", tuple(HYBRIDS.items()), section="5.1.1"),
    Claim("xLSTM + GAT is the best of the thesis's ten models",
          _over("xlstm+gat", *(m for m in THESIS_MODELS if m != "xlstm+gat")), section="5.1.1"),
    Claim("the Transformer ranks better than xLSTM, and xLSTM better than Mamba",
          (("transformer", "xlstm"), ("xlstm", "mamba")), section="Table 5.1"),
    Claim("xLSTM is more accurate than the Transformer", (("xlstm", "transformer"),),
          section="Table 5.4", note="against the thesis's own Table 5.1 (errata E5)"),
    Claim("truncation makes the sequence models worse", tuple((m, m) for m in SEQUENCE), "hr@20",
          truncation=True, section="5.1.1"),
    Claim("Item-KNN hardly changes with truncation", (("item-knn", "item-knn"),), "hr@20",
          within=0.01, truncation=True, section="5.1.1",
          note="hardly: by less than one user in a hundred"),
    Claim("the loss by truncation is not one of fewer users to learn from", section="5.1.1",
          note="needs original sequences of as many users as the truncated ones have"),
    Claim("GCN and LightGCN recommend blockbusters alone", (("gcn", None), ("lightgcn", None)),
          "wasserstein", margin=STARS[1][0], section="5.1.2",
          note="one star: further from what users watch than the limit of two stars"),
    Claim("sequence models and hybrids come closer to what users watch than the others",
          tuple(product(("item-knn", *GRAPH), (*SEQUENCE, *HYBRIDS))), "wasserstein",
          section="5.1.2"),
    Claim("GAT and Item-KNN come closer to it than GCN and LightGCN",
          tuple(product(("gcn", "lightgcn"), ("gat", "item-knn"))), "wasserstein", section="5.1.2"),
    Claim("Item-KNN is extremely fast beside any sequence model",
          tuple((m, "item-knn") for m in SEQUENCE), LOG_SECONDS, margin=1.0, section="5.1.3",
          note="extremely: ten times as fast, fitting and scoring"),
    Claim("GAT trains as long as the sequence models", _over("gat", *SEQUENCE), LOG_SECONDS,
          margin=math.log10(0.8), section="5.1.3", note="as long: at least 0.8 times"),
    Claim("GAT ranks worse than the sequence models", tuple((m, "gat") for m in SEQUENCE),
          section="5.1.3"),
    Claim("GAT ranks better than GCN and LightGCN", _over("gat", "gcn", "lightgcn"),
          section="Table 5.4"),
    Claim("a wider embedding can train faster, because it needs fewer epochs", section="5.1.3",
          note="needs several trainings of each width (chapter 15 has one)"),
    Claim("the Transformer's cost grows faster with the history than Mamba's",
          (("transformer", "mamba"),), "seconds of a step", section="5.1.4",
          note="the power of the length with which the ratio of the two grows (chapter 10)"),
    Claim("xLSTM's times suffer from an implementation that is not parallel", section="3.4.2",
          note="needs the thesis's graphics card and code"),
    Claim("users have to be in the graph, or accuracy is lost",
          (("xlstm+gat", "xlstm+gat-inductive"),), section="Table 5.4",
          note="the second model has a graph of the training users alone (chapter 8)"),
    Claim("ModernBERT captures deeper similarities than MiniBERT",
          (("transformer+modernbert", "transformer+minibert"),), section="Table 5.4"),
    Claim("hybrids soften the cold start of new films", section="Table 5.4",
          note="needs targets that no training user has watched"),
)


def judge_growth(claim: Claim, steps: pd.DataFrame) -> Verdict:
    """Whether the ratio of two models' costs grows with the history, by the slope's 95% interval.

    Args:
        claim: its first pair is (numerator, denominator).
        steps: columns model, length, seconds, as `growth.measure` has them.
    """
    [(first, second)] = claim.pairs
    long = steps[steps["length"] >= 200]  # below it other costs hide the power
    wide = long.pivot_table("seconds", "length", "model", "median")
    if second is None or not {first, second} <= set(wide) or len(wide) < 3:
        return judge(steps.iloc[:0].reindex(columns=["variant", "model", "fold"]), claim)
    slope = growth.exponent(wide.index, wide[first] / wide[second])
    row = (first, second, *slope, np.nan, len(wide), "slope", np.nan)
    verdict = HOLDS if slope.low > 0 else FAILS if slope.high < 0 else OPEN
    return Verdict(claim, verdict, pd.DataFrame([row], columns=EVIDENCE))


def judge_all(df: pd.DataFrame, steps: pd.DataFrame, level: float = 0.05) -> list[Verdict]:
    """Every finding of the thesis, of `CLAIMS`, against records.

    Args:
        df: of `costs.steady`, one profile and dataset.
        steps: of `growth.measure`, one width and catalogue.
        level: see `claims.judge`.
    """
    df = df.assign(**{LOG_SECONDS: np.log10(df["steady"].astype(float))})
    return [judge_growth(claim, steps) if claim.metric == "seconds of a step"
            else judge(df, claim, level=level) for claim in CLAIMS]


# --- which model for what ------------------------------------------------------------------------


def choices(df: pd.DataFrame, budgets: Iterable[float] = (10, 600), level: float = 0.05
            ) -> pd.DataFrame:
    """The cheapest of the models not significantly different from the best one, by situation.

    Only models that have every fold of the original sequences are chosen from, so that all means
    are of the same users. The test is the corrected t-test over folds, with Holm's correction
    over the others.

    Args:
        df: of `costs.steady`, one profile and dataset.
        budgets: seconds that a fold may take.
        level: of the test.

    Returns:
        situation ("histories of 5 to 20 films", "up to 10 s a fold"), users, choose, value (its
        NDCG@20), seconds (a fold, at a steady pace), equals (the others that do not differ
        significantly from the best, the cheapest first); no row without two folds, or a model.
    """
    whole = costs.complete(df[df["variant"] == "original"])
    if whole.empty or whole["fold"].nunique() < 2:
        return pd.DataFrame(columns=CHOICE)
    cost = whole.groupby("model")["steady"].mean()
    users = records.per_user(whole)
    users["value"] = per_user("ndcg@20", users["rank"].to_numpy())
    situations = []
    if "history_length" in users:
        lengths = users["history_length"].to_numpy(int)
        ends = np.unique(np.quantile(lengths, [1 / 3, 2 / 3, 1], method="inverted_cdf"))
        for low, high in zip([lengths.min() - 1, *ends[:-1]], ends, strict=True):
            situations.append((f"histories of {low + 1} to {high} films",
                               users[(lengths > low) & (lengths <= high)]))
    for budget in budgets:
        cheap = cost.index[cost <= budget]
        situations.append((f"up to {budget:g} s a fold", users[users["model"].isin(cheap)]))
    return pd.DataFrame([(words, *_choice(part, whole, cost, level))
                         for words, part in situations if len(part)], columns=CHOICE)


CHOICE = ["situation", "users", "choose", "value", "seconds", "equals"]


def _choice(users: pd.DataFrame, whole: pd.DataFrame, cost: pd.Series, level: float
            ) -> tuple[int, str, float, float, tuple[str, ...]]:
    means = users.groupby(["model", "fold"])["value"].mean().rename("value").reset_index()
    own = whole[["variant", "model", "fold", "split_hash", "n_test", "n_train"]].merge(means)
    order = users.groupby("model")["value"].mean().sort_values(ascending=False, kind="stable")
    best, others = order.index[0], order.index[1:]
    p = holm(paired_test(own, best, m, "value").p_value for m in others)
    equal = [best, *(m for m, value in zip(others, p, strict=True) if value >= level)]
    chosen, *rest = sorted(equal, key=lambda m: cost[m])
    n = len(users.drop_duplicates(["fold", "user"]))
    return n, chosen, order[chosen], cost[chosen], tuple(rest)


def families(df: pd.DataFrame, models: Iterable[str] = THESIS_MODELS) -> pd.DataFrame:
    """What stands behind the thesis's Table 5.4: a row for each model that has records.

    Args:
        df: of `costs.steady`, one profile and dataset, original and truncated sequences.

    Returns:
        family, model, folds, ndcg@20, hr@20, steady (seconds a fold), wasserstein, stars, coverage:
        means over the folds of original sequences.
    """
    own = df[df["variant"] == "original"].groupby("model")
    columns = ["ndcg@20", "hr@20", "steady", "wasserstein", "stars", "coverage"]
    table = own[columns].mean().assign(folds=own["fold"].nunique())
    table = table.reindex([m for m in models if m in table.index]).reset_index()
    table.insert(0, "family", table["model"].map(FAMILIES))
    return table[["family", "model", "folds", *columns]]
