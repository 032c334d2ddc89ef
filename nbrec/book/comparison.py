"""The thesis's printed numbers, and records beside them.

Everything here reads a table of `records.load_records` and returns a table or a few numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources
from itertools import combinations

import numpy as np
import pandas as pd

from nbrec import experiment, paths
from nbrec.book import costs
from nbrec.book.significance import summary
from nbrec.metrics import names
from nbrec.profiles import Profile
from nbrec.records import load_records

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


# Columns of a table of records that analysis asks for, so that none at all is a table, too.
TEXTS = ["profile", "dataset", "model", "variant", "split_hash", "sequences_digest",
         "ratings_sha256", "commit", "dirty", "cpu", "date", "key", "path", "record"]
NUMBERS = ["n_train", "n_test", "n_items", "seconds", "seconds_fit",
           "seconds_score", "seconds_context", "epochs", "best_epoch", "mean_popularity",
           "behaviour_popularity", "wasserstein", "coverage", "gini", "stars"]


def load(folder: str = "laptop") -> pd.DataFrame:
    """Committed records, read once a process; a table without rows if there are none.

    Args:
        folder: below `results`, such as "laptop", "search" or "verification".
    """
    try:
        return _read(paths.reference_folder(folder)).copy()
    except FileNotFoundError:
        columns = dict.fromkeys(TEXTS, "object") | dict.fromkeys(["fold", "seed"], "int64")
        columns |= dict.fromkeys([*NUMBERS, *names()], "float64")
        return pd.DataFrame({c: pd.Series(dtype=kind) for c, kind in columns.items()})


_read = cache(load_records)


def beside_reference(profile: Profile, reference: str = "laptop",
                     models: Iterable[str] | None = None) -> dict[str, pd.DataFrame]:
    """The two runs that the chapters on results show, as far as they have original sequences.

    Args:
        profile: of this run, which is made where it is not there yet.
        reference: folder of the committed records.
        models: which of both; by default those of the thesis's tables and their baselines.

    Returns:
        "reference run" and "this run", in this order -> records; seconds are steady ones.
    """
    wanted = set(shown_models() if models is None else models)
    chosen = [m for m in profile.models if m in wanted]
    both = {"reference run": load(reference),
            "this run": experiment.run(profile, chosen, n_jobs=2, progress=False)}
    both = {label: costs.steady(df[df["model"].isin(wanted)]) for label, df in both.items()}
    return {label: df.assign(seconds=df["steady"]) for label, df in both.items()
            if "original" in set(df["variant"])}


def runs(both: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """What was run: a row for each run and variant.

    Returns:
        run, variant, data, models, least, most (folds of a model), films, train (users, mean of
        the folds), test (users of all folds), hours (of computing, as measured).
    """
    rows = []
    for label, df in both.items():
        for variant, part in df.groupby("variant", sort=False):
            folds, fold = part.groupby("model")["fold"].nunique(), part.groupby("fold").first()
            hours = part[["seconds_fit", "seconds_score"]].astype(float).sum().sum() / 3600
            rows.append((label, variant, ", ".join(part["dataset"].unique()), len(folds),
                         folds.min(), folds.max(), int(part["n_items"].max()),
                         round(fold["n_train"].mean()), int(fold["n_test"].sum()), hours))
    return pd.DataFrame(rows, columns=["run", "variant", "data", "models", "least", "most", "films",
                                       "train", "test", "hours"])


def fold_counts(both: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """How many folds each model has: a row per model, a column per (run, variant); 0 for none."""
    counts = {(label, variant): part.groupby("model", sort=False)["fold"].nunique()
              for label, df in both.items() for variant, part in df.groupby("variant", sort=False)}
    return pd.DataFrame(counts).fillna(0).astype(int)


def shown_models() -> set[str]:
    """The models of the thesis's appendix, and the baselines that the book has besides."""
    printed = {m for i in range(1, 14) for m in thesis_table(f"A.{i}")["model"]}
    return printed | {"popularity", "markov", "ease", "minibert", "modernbert"}


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
    df = load(folder)
    if df.empty:
        return f"{made}; `results/{folder}` has no records yet."
    there = []
    for variant, part in df.groupby("variant"):
        folds = part.groupby("model", sort=False)["fold"].nunique()
        groups = [f"{n} fold{'s' * (n > 1)} of {', '.join(map(model_label, models.index))}"
                  for n, models in sorted(folds.groupby(folds), reverse=True)]
        there.append(f"on {variant} sequences {'; '.join(groups)}")
    return f"{made}. There are now, {'. And '.join(there)}."


def reference_runs(models: Iterable[str], against: str, folder: str = "laptop") -> pd.DataFrame:
    """Committed records of some models on the folds that another model has as well, of the
    original sequences.

    Args:
        models: those wanted.
        against: the model that they are compared with; it comes along.
        folder: of committed records; it need not exist.

    Returns:
        as `load_records`; without models that share fewer than two folds with `against`, and
        empty if no other model is left.
    """
    df = load(folder)
    df = df[df["variant"] == "original"]
    df = df[df["fold"].isin(df.loc[df["model"] == against, "fold"])]
    folds = df.groupby("model")["fold"].nunique()
    chosen = [m for m in dict.fromkeys([against, *models]) if folds.get(m, 0) > 1]
    return df[df["model"].isin(chosen if len(chosen) > 1 else [])]


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


def metric_and_cutoff(table: pd.DataFrame) -> pd.Series:
    """"hr@20", or "seconds" where there is no cut-off, of each row of a table of the appendix."""
    return table["metric"] + ("@" + table["k"].astype("string")).fillna("")


def _thesis_long(table: str) -> pd.DataFrame:
    """One row per model, variant and metric: thesis, thesis_sd."""
    names = ["model", "sequences", "metric"]
    details = _thesis_file("cross_validation").rename(
        columns={"mean": "thesis", "std": "thesis_sd"}
    )
    details = details.assign(metric=metric_and_cutoff(details))
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


def corrected(table: str, metric: str) -> pd.Series:
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
    right = corrected(OVERVIEWS[variant], metric)
    have = set(df.loc[df["variant"] == variant, "model"])
    right = right[[m for m in right.index if m in have]].sort_values(ascending=False, kind="stable")
    return [(a, b) for a, b in combinations(right.index, 2) if right[a] > right[b]]
