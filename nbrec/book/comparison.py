"""The thesis's printed numbers, and records beside them.

Everything here reads a table of `records.load_records` and returns a table or a few numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources
from itertools import combinations, product

import numpy as np
import pandas as pd

from nbrec import paths
from nbrec.book.significance import kendall_tau, summary
from nbrec.metrics import per_user
from nbrec.records import load_records, read_record

ERRATA = {
    ("5.1", "item-knn", "original", "ndcg@20"): (
        0.0879,
        "Table 5.1 prints 0.1489, which is the NDCG@100 of Table A.2; its NDCG@20 is 0.0879",
    ),
    ("5.2", "transformer+minibert", "truncated", "seconds"): (
        307.8,
        "Table 5.2 prints 5.56 min, Table A.11 gives 5.13 min",
    ),
}  # (table, model, variant, metric): (right value, footnote)


THESIS_METRICS = ("hr@1", "hr@20", "hr@300", "ndcg@20", "stars", "seconds")  # of 5.1 and 5.2
OVERVIEWS = {"original": "5.1", "truncated": "5.2"}  # variant: table


def truncation_effect(
    df: pd.DataFrame, metrics: Iterable[str] = ("hr@20",), n: int = 2000, seed: int = 0,
) -> pd.DataFrame:
    """What truncation does to each model, on all test users and on those of both variants.

    Cutting off the first films leaves the last one alone, so a user who is in both variants has the
    same target in both, and the two ranks are a pair. Other users are in one variant only: short
    histories leave, histories that were too long enter. A comparison of the two means, such as the
    thesis's, mixes truncation with this exchange.

    Args:
        df: of `load_records`, one profile and dataset.
        metrics: such as "hr@20" or "ndcg@20".
        n: number of resamples for the intervals of the two means and of their difference, which
            take the trained models as given.

    Returns:
        For the models that have records of both variants: metric, model; three means over all users
        with 95% bootstrap intervals over the users (original, original_low, original_high, the same
        for truncated and for difference: truncated minus original); users (in both variants), same
        (mean difference of those), same_low, same_high (95%, normal, its variance widened for
        training parts that overlap by Nadeau and Bengio 2003, as in `significance.paired_test`; NaN
        with fewer than two users); left, entered (means of the users who are in the original, in
        the truncated sequences only; NaN without any); folds (of the variant that has fewer),
        thesis (its difference of means; NaN for a model that it does not have).
    """
    generator, rows, metrics = np.random.default_rng(seed), [], list(metrics)
    for model, part in df.groupby("model", sort=False):
        parts = {v: part[part["variant"] == v] for v in OVERVIEWS}
        if not all(map(len, parts.values())):
            continue
        ranks = {v: _ranks_by_user(own["path"]) for v, own in parts.items()}
        share = (part["n_test"] / part["n_train"]).mean()
        for metric in metrics:
            row = {"metric": metric, "model": model, "folds": min(map(len, parts.values()))}
            mean, drawn = {}, {}
            own = {v: pd.Series(per_user(metric, r.to_numpy()), r.index)
                   for v, r in ranks.items()}
            for v in OVERVIEWS:
                values, counts = np.unique(own[v], return_counts=True)
                times = generator.multinomial(counts.sum(), counts / counts.sum(), size=n)
                mean[v], drawn[v] = counts @ values / counts.sum(), times @ values / counts.sum()
            for source in (mean, drawn):
                source["difference"] = source["truncated"] - source["original"]
            for name, means in drawn.items():
                row[name] = float(mean[name])
                row[f"{name}_low"], row[f"{name}_high"] = np.quantile(means, [0.025, 0.975])
            d = (own["truncated"] - own["original"]).dropna()
            half = 1.96 * d.std() * math.sqrt((1 + row["folds"] * share) / len(d)) if len(d) else 0
            row |= {"users": len(d), "same": d.mean(), "same_low": d.mean() - half,
                    "same_high": d.mean() + half,
                    "left": own["original"].drop(d.index).mean(),
                    "entered": own["truncated"].drop(d.index).mean()}
            rows.append(row)
    quantities = [f"{q}{end}" for q in (*OVERVIEWS, "difference", "same")
                  for end in ("", "_low", "_high")]
    out = pd.DataFrame(rows, columns=["metric", "model", *quantities, "users", "left", "entered",
                                      "folds"])
    there = {m: _corrected("5.2", m) - _corrected("5.1", m)
             for m in metrics if m in THESIS_METRICS}
    out["thesis"] = [there[m].get(model, np.nan) if m in there else np.nan
                     for m, model in zip(out["metric"], out["model"], strict=True)]
    return out


def _ranks_by_user(paths: Iterable[str]) -> pd.Series:
    """The rank of each test user's target, by the user's id, over all these records."""
    found = map(read_record, paths)
    return pd.concat([pd.Series(record["ranks"], record["users"]) for record in found])


def reference_notice(folder: str = "laptop", data: str = "[chapter 2](02_data.ipynb)") -> str:
    """What the reference run is and which records it has: the sentence that the chapters show.

    The runs are being made on the rebuilt MovieLens 1M, a model and a fold at a time.

    Args:
        folder: of committed records, such as "laptop" or "verification"; it need not exist.
        data: where the data are described, as Markdown that works on the page that shows it.

    Returns:
        Markdown; models by the number of their folds, for each variant of the sequences.
    """
    from nbrec.book.plots import model_label  # here: tables alone need no figures

    made = ("The reference run is being made anew on the rebuilt MovieLens 1M "
            f"({data} says what that is)")
    try:
        df = load_records(paths.reference_folder(folder))
    except FileNotFoundError:
        return f"{made}; `results/{folder}` has no records yet."
    there = []
    for variant, part in df.groupby("variant"):
        folds = part.groupby("model", sort=False)["fold"].nunique()
        groups = [f"{n} fold{'s' * (n > 1)} of {', '.join(map(model_label, models.index))}"
                  for n, models in sorted(folds.groupby(folds), reverse=True)]
        there.append(f"on {variant} sequences {'; '.join(groups)}")
    return f"{made}. There are now, {'. And '.join(there)}."


# --- the thesis's printed numbers ----------------------------------------------------------------


# The thesis does not say which of its two encoders stands behind "Transformer + BERT".
OUR_NAMES = {"transformer+bert": "transformer+minibert"}


@cache
def _thesis_file(name: str) -> pd.DataFrame:
    thesis = resources.files("nbrec.book") / "thesis"
    with (thesis / f"{name}.csv").open(encoding="utf-8") as file:
        table = pd.read_csv(file, dtype={"table": str, "k": "Int64"})
    return table.replace({"model": OUR_NAMES}) if "model" in table else table


def thesis_table(name: str) -> pd.DataFrame:
    """Printed numbers of one table of the thesis, such as "5.1", "A.5" or "3.2".

    Models have our names: see `OUR_NAMES`.
    Hit rates are fractions, times are seconds (minutes in the sweeps 2.1, 3.2, 3.4, 5.3).

    Raises:
        ValueError: if the thesis has no such table of results.
    """
    known: list[str] = []
    for file in ("overview", "cross_validation", "sweeps"):
        df = _thesis_file(file)
        if name in set(df["table"]):
            rows = df[df["table"] == name].drop(columns="table")
            return rows.dropna(axis="columns", how="all").reset_index(drop=True)
        known += df["table"].unique().tolist()
    raise ValueError(f"the thesis has no table {name!r} of results; there are {', '.join(known)}")


def _thesis_long(table: str) -> pd.DataFrame:
    """One row per model, variant and metric: thesis, thesis_sd."""
    names = ["model", "sequences", "metric"]
    details = _thesis_file("cross_validation").rename(
        columns={"mean": "thesis", "std": "thesis_sd"}
    )
    with_k = details["metric"] + "@" + details["k"].astype("string")
    details = details.assign(metric=with_k.fillna(details["metric"]))
    if table in set(details["table"]):
        long = details[details["table"] == table][[*names, "thesis", "thesis_sd"]]
    elif table in ("5.1", "5.2"):
        wide = thesis_table(table).rename(columns={"personalisation_stars": "stars"})
        long = wide.melt(names[:2], var_name="metric", value_name="thesis")
        long = long.merge(details[[*names, "thesis_sd"]], on=names, how="left")
    else:
        raise ValueError(f"table {table!r} cannot be compared; choose 5.1, 5.2 or A.1 to A.13")
    return long.rename(columns={"sequences": "variant"})


def compare_with_thesis(df: pd.DataFrame, table: str = "5.1") -> pd.DataFrame:
    """Thesis, this run and their difference, for the models that both have.

    Where the printed number is known to be wrong, `thesis` keeps it, `corrected` holds the right
    one, the difference is taken to that, and `note` says so.

    Args:
        df: of `load_records`, one profile and dataset.
        table: "5.1", "5.2", or one of "A.1" to "A.13".

    Returns:
        model, variant, metric, thesis, corrected, thesis_sd, this_run, sd, n, difference, dataset,
        note; in the thesis's order.
    """
    right = _thesis_long(table)
    notes = [
        ERRATA.get((table, *row))
        for row in zip(right["model"], right["variant"], right["metric"], strict=True)
    ]
    right["corrected"] = [e[0] if e else v for e, v in zip(notes, right["thesis"], strict=True)]
    right["note"] = [e[1] if e else "" for e in notes]
    ours = summary(df).rename(columns={"mean": "this_run"})
    out = right.merge(ours.drop(columns=["low", "high"]), on=["model", "variant", "metric"])
    out["difference"] = out["this_run"] - out["corrected"]
    return out[["model", "variant", "metric", "thesis", "corrected", "thesis_sd", "this_run", "sd",
                "n", "difference", "dataset", "note"]]


def beside_thesis(runs: Mapping[str, pd.DataFrame], table: str = "5.1") -> pd.DataFrame:
    """Thesis, several runs, and their differences to it, one below the other.

    Args:
        runs: label -> records of one profile and dataset; a run need not have all models.
        table: as in `compare_with_thesis`.

    Returns:
        model, variant, metric, source ("thesis", a label, or "difference, <label>"), value, sd,
        note, for all models of the table that some run has, in the thesis's order.
    """
    names = ["model", "variant", "metric"]
    parts = []
    for label, df in runs.items():
        both = compare_with_thesis(df, table)
        if both.empty:
            continue
        for source, value, sd in (("thesis", "thesis", "thesis_sd"), (label, "this_run", "sd"),
                                  (f"difference, {label}", "difference", None)):
            part = both[names].assign(source=source, value=both[value])
            part["sd"] = both[sd] if sd else np.nan
            parts.append(part.assign(note=both["note"] if source == "thesis" else ""))
    if not parts:
        return pd.DataFrame(columns=[*names, "source", "value", "sd", "note"])
    long = pd.concat(parts, ignore_index=True).drop_duplicates([*names, "source"])
    place = pd.Series(range(len(order := _thesis_long(table))), order.set_index(names).index)
    rank = place.loc[pd.MultiIndex.from_frame(long[names])].to_numpy()
    return long.iloc[np.argsort(rank, kind="stable")].reset_index(drop=True)


def _corrected(table: str, metric: str) -> pd.Series:
    """Model -> the thesis's number, the right one where the printed one is wrong."""
    printed = _thesis_long(table).set_index(["model", "variant", "metric"])["thesis"]
    own = printed.xs(metric, level="metric").droplevel("variant").dropna()
    variant = next(v for v, t in OVERVIEWS.items() if t == table)
    right = {m: ERRATA.get((table, m, variant, metric), (value,))[0] for m, value in own.items()}
    return pd.Series(right, dtype=float)


def thesis_pairs(
    df: pd.DataFrame, metric: str = "ndcg@20", variant: str = "original"
) -> list[tuple[str, str]]:
    """(better, worse) for each pair of models of Tables 5.1 and 5.2, as the thesis has them.

    Args:
        df: of `load_records`; models without records of the variant are left out.
        metric: one of `THESIS_METRICS` of which more is better; pairs with the same number are
            left out. Known errors of the thesis are corrected.
    """
    right = _corrected(OVERVIEWS[variant], metric)
    have = set(df.loc[df["variant"] == variant, "model"])
    right = right[[m for m in right.index if m in have]].sort_values(ascending=False, kind="stable")
    return [(a, b) for a, b in combinations(right.index, 2) if right[a] > right[b]]


def rank_agreement(
    df: pd.DataFrame, metrics: Iterable[str] = THESIS_METRICS, n: int = 1000, seed: int = 0,
    enough: int = 5,
) -> pd.DataFrame:
    """Kendall's tau-b between the thesis's order of the models and that of a run.

    Kendall (1945): 1 for the same order, -1 for the reverse, 0 for as many pairs in one order as
    in the other; ties count in neither. Each pair of models is compared over the folds that both
    have, since one fold can be easier than another; with the same folds everywhere this is the
    tau-b of the means.

    The interval is a percentile bootstrap. For accuracy it is over users: each fold has other
    test users, and a drawn user is drawn for all models alike. Folds could not be drawn instead,
    because expensive models have one to three of them. So the trained models are taken as given.
    Stars and seconds are no properties of single users; for them folds are drawn, if all models
    share `enough` of them, else there is no interval. The thesis's numbers are taken as printed
    (and corrected). Drawing users turns close pairs round, so the interval need not lie evenly
    about tau.

    Args:
        df: of `load_records`, one profile and dataset.
        metrics: of `THESIS_METRICS`.
        n: number of resamples.
        enough: folds needed for an interval of stars and seconds.

    Returns:
        variant, metric, tau, low, high, models, pairs (with a fold in common), least and most
        (folds that a pair shares), over ("users", "folds", or "" without an interval); no row
        where fewer than three models of the thesis have records.
    """
    generator, rows, metrics = np.random.default_rng(seed), [], list(metrics)
    for variant, table in OVERVIEWS.items():
        part = df[df["variant"] == variant].drop_duplicates(["model", "fold"], keep=False)
        models = [m for m in _corrected(table, "hr@20").index if m in set(part["model"])]
        part = part[part["model"].isin(models)]
        if len(models) < 3:
            continue
        splits = part.groupby("fold")["split_hash"].nunique()
        if (splits > 1).any():
            raise ValueError(f"the models were run on different splits of folds "
                             f"{splits.index[splits > 1].tolist()}; run them again")
        held = part.pivot(index="model", columns="fold", values="split_hash").notna().loc[models]
        common = (held.to_numpy(int) @ held.T.to_numpy(int))[np.triu_indices(len(models), 1)]
        shared = np.flatnonzero(held.all())
        resampled = _resampled(part, models, [m for m in metrics if "@" in m], n, generator)
        for metric in metrics:
            thesis = _corrected(table, metric).loc[models].to_numpy()
            values = part.pivot(index="model", columns="fold", values=metric).loc[models]
            values, over = values.to_numpy(float), ""
            if metric in resampled:
                over, drawn = "users", resampled[metric]
            elif shared.size >= enough:
                over = "folds"
                drawn = values[:, generator.choice(shared, (n, shared.size))].swapaxes(0, 1)
            low, high = (np.nanquantile(kendall_tau(thesis, drawn), [0.025, 0.975]) if over
                         else (np.nan, np.nan))
            tau = float(kendall_tau(thesis, values))
            rows.append((variant, metric, tau, low, high, len(models), int((common > 0).sum()),
                         int(common.min()), int(common.max()), over))
    return pd.DataFrame(rows, columns=["variant", "metric", "tau", "low", "high", "models", "pairs",
                                       "least", "most", "over"])


def _resampled(
    df: pd.DataFrame, models: list[str], metrics: list[str], n: int, generator: np.random.Generator
) -> dict[str, np.ndarray]:
    """Means over resampled users, the same ones for all models: metric -> (n, M, F), or NaN."""
    folds = sorted(df["fold"].unique())
    out = {m: np.full((n, len(models), len(folds)), np.nan) for m in metrics}
    for i, fold in enumerate(folds):
        runs = df[df["fold"] == fold].set_index("model")["path"]
        ranks = {model: np.asarray(read_record(path)["ranks"]) for model, path in runs.items()}
        users = len(ranks[runs.index[0]])
        times = generator.multinomial(users, np.full(users, 1 / users), size=n) / users
        for metric, (model, own) in product(metrics, ranks.items()):
            out[metric][:, models.index(model), i] = times @ per_user(metric, own)
    return out
