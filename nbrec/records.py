"""One run, one record: a JSON file with the numbers of a run and all that is needed to repeat it.

A run is one model, fitted on one fold of one variant of the sequences. This module writes and
reads the records, sums them up over folds, compares models, and joins the thesis's numbers.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import cache
from importlib import metadata, resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

SCHEMA = 1  # raise it when the meaning of a field changes: older records are then run again
IDENTITY = ["profile", "dataset", "model", "variant", "fold"]
FIELDS = [
    *IDENTITY, "schema", "key", "seed", "settings", "data", "metrics", "personalisation",
    "seconds", "ranks", "target_popularity", "popularity", "history", "provenance",
]
PACKAGES = ["torch", "numpy", "pandas", "scipy", "nbrec"]
ERRATA = {
    ("5.1", "item-knn", "original", "ndcg@20"): (
        0.0879,
        "Table 5.1 prints 0.1489, which is the NDCG@100 of Table A.2; its NDCG@20 is 0.0879",
    ),
    ("5.2", "transformer+bert", "truncated", "seconds"): (
        307.8,
        "Table 5.2 prints 5.56 min, Table A.11 gives 5.13 min",
    ),
}  # (table, model, variant, metric): (right value, footnote)


# --- where a record lives, and what decides whether it still holds -------------------------------


def runs_folder() -> Path:
    """Folder of the working records: `$NBREC_RUNS`, else `runs` in the checkout or right here."""
    if os.environ.get("NBREC_RUNS"):
        return Path(os.environ["NBREC_RUNS"])
    checkout = Path(__file__).resolve().parents[1]
    return (checkout if (checkout / "pyproject.toml").is_file() else Path()) / "runs"


def record_path(
    profile: str,
    dataset: str,
    model: str,
    variant: str,
    fold: int,
    folder: str | Path | None = None,
) -> Path:
    """Path of a record: `<folder>/<profile>/<dataset>/<model>/<variant>-fold07.json`."""
    name = re.sub(r"[^\w.+-]+", "-", Path(dataset).name)  # a dataset may be given as a path
    root = runs_folder() if folder is None else Path(folder)
    return root / profile / name / model / f"{variant}-fold{fold:02d}.json"


def record_key(facts: Mapping[str, Any]) -> str:
    """Hash of everything that decides a result: a record with another key does not answer it.

    Args:
        facts: nested dict of plain values (settings, seed, hashes of data and split, ...).

    Returns:
        hex sha256 of the facts and the schema version; the order of the facts plays no part.
    """
    text = json.dumps({"schema": SCHEMA, **facts}, sort_keys=True, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any) -> Any:
    """Turn numpy values, tuples, paths and NaN into what JSON knows."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def significant(values: Iterable[float], digits: int) -> list[float | None]:
    """Round to so many significant digits; whole numbers lose their `.0`, NaN becomes None."""
    rounded = (float(f"{v:.{digits}g}") if math.isfinite(v) else None for v in map(float, values))
    return [int(v) if v is not None and v.is_integer() else v for v in rounded]


def popularity_histogram(popularity: np.ndarray) -> list[list[float]]:
    """Count popularities in narrow logarithmic bins, a hundred to a factor of ten.

    Args:
        popularity: (N,) float, per mille of the training sequences, 0 for items not in them.

    Returns:
        ascending `[popularity, times]` pairs; the first number is the mean within the bin, so the
        mean over the histogram is that of the values (to five digits).
    """
    popularity = np.asarray(popularity, dtype=np.float64)
    with np.errstate(divide="ignore"):
        bins = np.floor(100 * np.log10(popularity))
    _, place, times = np.unique(bins, return_inverse=True, return_counts=True)
    means = np.bincount(place, weights=popularity, minlength=len(times)) / times
    return [[p, int(n)] for p, n in zip(significant(means, 5), times, strict=True)]


# --- reading and writing -------------------------------------------------------------------------


def write_record(record: Mapping[str, Any], path: str | Path) -> Path:
    """Write a record so that at any instant the path holds the old file, the new one, or none.

    Raises:
        ValueError: if a field of the record is missing.
    """
    path = Path(path)
    if missing := [f for f in FIELDS if f not in record]:
        raise ValueError(f"record for {path}: fields {missing} are missing; expected {FIELDS}")
    text = json.dumps(_plain(record), separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp makes it readable by its owner alone
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
    return path


def read_record(path: str | Path) -> dict[str, Any]:
    """Read one record and check that it is whole.

    Raises:
        ValueError: if the file is damaged, is no record, or is one of another schema version.
    """
    path, cure = Path(path), "delete the file and run the experiment again"
    try:
        record = json.loads(path.read_bytes().decode("utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: damaged record ({error}); {cure}") from error
    if not isinstance(record, dict) or "schema" not in record:
        raise ValueError(f"{path}: not a record of nbrec (no field 'schema'); move it elsewhere")
    if record["schema"] != SCHEMA:
        raise ValueError(
            f"{path}: schema {record['schema']!r}, this version reads {SCHEMA}; {cure}"
        )
    if missing := [f for f in FIELDS if f not in record]:
        raise ValueError(f"{path}: fields {missing} are missing from the record; {cure}")
    counts = {len(record["ranks"]), len(record["target_popularity"]), record["data"]["n_test"]}
    if len(counts) > 1:
        raise ValueError(
            f"{path}: ranks, popularities and n_test disagree: {sorted(counts)}; {cure}"
        )
    return record


def flatten(record: Mapping[str, Any], path: str | Path = "") -> dict[str, Any]:
    """One flat row of a record: who it is, its metrics, seconds, counts, hashes; no long lists."""
    row = {name: record[name] for name in IDENTITY} | dict(record["metrics"])
    row |= {f"seconds_{part}": s for part, s in record["seconds"].items()}
    row["seconds"] = sum(record["seconds"].values())
    row |= dict(record["personalisation"])
    row |= {k: v for k, v in record["data"].items() if k != "funnel"}
    if record["history"]:
        row["epochs"] = len(record["history"]["train_loss"])
        row["best_epoch"] = record["history"]["best_epoch"] + 1  # counted from 1, like epochs
    made = {name: record["provenance"].get(name) for name in ("commit", "dirty", "device", "date")}
    return row | {"seed": record["seed"], "key": record["key"]} | made | {"path": str(path)}


def load_records(folder: str | Path | None = None) -> pd.DataFrame:
    """Read all records below a folder into a table, one row per run.

    Args:
        folder: such as `runs/sample` or `results`; by default all of `runs_folder()`.

    Raises:
        FileNotFoundError: if there is no record below the folder.
        ValueError: if one of the records is damaged (the message names it).
    """
    root = runs_folder() if folder is None else Path(folder)
    paths = sorted(root.rglob("*-fold[0-9][0-9].json"))
    if not paths:
        raise FileNotFoundError(
            f"no records below {root}; make some with nbrec.experiment.run(...)"
        )
    return pd.DataFrame([flatten(read_record(path), path) for path in paths])


def per_user(df: pd.DataFrame) -> pd.DataFrame:
    """Ranks of the targets: one row per run and test user (its place in the fold's test part)."""
    parts = []
    for _, record in _whole(df):
        part = pd.DataFrame({k: record[k] for k in ("ranks", "target_popularity")})
        part.insert(0, "user", np.arange(len(part)))
        parts.append(_with_identity(part.rename(columns={"ranks": "rank"}), record))
    return pd.concat(parts, ignore_index=True)


def histories(df: pd.DataFrame) -> pd.DataFrame:
    """Training curves: one row per neural run and epoch (counted from 1)."""
    parts = []
    for _, record in _whole(df):
        if record["history"]:
            curves = {k: v for k, v in record["history"].items() if isinstance(v, list)}
            part = pd.DataFrame(curves)
            part.insert(0, "epoch", np.arange(1, len(part) + 1))
            part["best"] = part["epoch"] == record["history"]["best_epoch"] + 1
            parts.append(_with_identity(part, record))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def popularity_histograms(df: pd.DataFrame) -> pd.DataFrame:
    """How often items of each popularity were recommended, and how often users chose them.

    Returns:
        columns of IDENTITY, source ("behaviour" or "recommended"), popularity (per mille), times.
    """
    parts = []
    for _, record in _whole(df):
        for source, pairs in record["popularity"].items():
            part = pd.DataFrame(pairs, columns=["popularity", "times"])
            part.insert(0, "source", source)
            parts.append(_with_identity(part, record))
    return pd.concat(parts, ignore_index=True)


def _whole(df: pd.DataFrame) -> Iterable[tuple[str, dict[str, Any]]]:
    return ((path, read_record(path)) for path in df["path"])


def _with_identity(part: pd.DataFrame, record: Mapping[str, Any]) -> pd.DataFrame:
    for place, name in enumerate(IDENTITY):
        part.insert(place, name, record[name])
    return part


# --- sums over folds, and comparisons ------------------------------------------------------------


def metric_names(df: pd.DataFrame) -> list[str]:
    """The columns `hr@1`, `mrr@20`, ... of a table of records."""
    return [c for c in df.columns if re.fullmatch(r"(hr|mrr|ndcg)@\d+", c)]


def summary(df: pd.DataFrame, metrics: list[str] | None = None) -> pd.DataFrame:
    """Mean, sample standard deviation and 95% Student interval over folds.

    The interval takes folds as independent. They share training users, so it is somewhat narrow;
    to compare two models use `paired_test`.

    Args:
        df: of `load_records`.
        metrics: columns to sum up; by default all metrics, times and personalisation measures.

    Returns:
        one row per profile, dataset, variant, model and metric, with mean, sd, n, low and high
        (sd, low and high are NaN for a single fold).
    """
    if metrics is None:
        extra = ["mean_popularity", "behaviour_popularity", "wasserstein", "coverage", "gini",
                 "stars", "seconds_fit", "seconds_score", "seconds", "epochs", "best_epoch"]
        metrics = metric_names(df) + [name for name in extra if name in df]
    by = ["profile", "dataset", "variant", "model"]
    long = df.melt(by, metrics, var_name="metric").dropna(subset="value")
    long["value"] = long["value"].astype(float)
    groups = long.groupby([*by, "metric"], sort=False)["value"]
    out = groups.agg(mean="mean", sd="std", n="count").reset_index()
    half = stats.t.ppf(0.975, (out["n"] - 1).clip(lower=1)) * out["sd"] / np.sqrt(out["n"])
    return out.assign(low=out["mean"] - half, high=out["mean"] + half)


class Difference(NamedTuple):
    """Difference of two models (a minus b) with its 95% interval; p_value is two-sided."""

    difference: float
    low: float
    high: float
    p_value: float
    n: int


def _pair(df: pd.DataFrame, a: str, b: str, variant: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    chosen = df[df["variant"] == variant].drop_duplicates(["model", "fold"], keep=False)
    first, second = (chosen[chosen["model"] == m].set_index("fold").sort_index() for m in (a, b))
    folds = first.index.intersection(second.index)
    if len(folds) == 0:
        raise ValueError(
            f"no fold of variant {variant!r} has one record each of {a!r} and {b!r}; the table "
            f"holds {sorted(set(df['model']))}, variants {sorted(set(df['variant']))} (several "
            "profiles or datasets in it? choose one first)"
        )
    first, second = first.loc[folds], second.loc[folds]
    if list(first["split_hash"]) != list(second["split_hash"]):
        raise ValueError(f"{a!r} and {b!r} were run on different splits; run one of them again")
    return first, second


def paired_test(
    df: pd.DataFrame, a: str, b: str, metric: str = "ndcg@20", variant: str = "original"
) -> Difference:
    """Corrected resampled t-test of a difference between two models over the same folds.

    Nadeau and Bengio (2003), section 3: folds share training users, so the variance of the mean
    difference is (1/k + n_test/n_train) s^2 instead of s^2/k, on k - 1 degrees of freedom.

    Raises:
        ValueError: if fewer than two folds hold both models, or their splits differ.
    """
    first, second = _pair(df, a, b, variant)
    d, k = (first[metric] - second[metric]).to_numpy(float), len(first)
    if k < 2:
        raise ValueError(f"a paired test of {a!r} and {b!r} needs two folds, there is {k}")
    ratio = float((first["n_test"] / first["n_train"]).mean())
    error = math.sqrt((1 / k + ratio) * d.var(ddof=1))
    mean, half = float(d.mean()), stats.t.ppf(0.975, k - 1) * error
    if error == 0:  # all folds agree exactly: certain, unless there is no difference at all
        return Difference(mean, mean, mean, 1.0 if mean == 0 else 0.0, k)
    p_value = float(2 * stats.t.sf(abs(mean) / error, k - 1))
    return Difference(mean, float(mean - half), float(mean + half), p_value, k)


def paired_ranks(
    df: pd.DataFrame, a: str, b: str, variant: str = "original"
) -> tuple[np.ndarray, np.ndarray]:
    """Ranks of the same test users under two models, over all folds that both have: two (U,)."""
    first, second = _pair(df, a, b, variant)
    ranks = [np.concatenate([r["ranks"] for _, r in _whole(f)]) for f in (first, second)]
    return ranks[0], ranks[1]


def bootstrap_difference(a: np.ndarray, b: np.ndarray, n: int = 2000, seed: int = 0) -> Difference:
    """Percentile bootstrap over users of the difference of two means (Efron and Tibshirani 1993).

    Args:
        a, b: (U,) float, values of the same users under two models, such as
            `metrics.hits(ranks, 20)` or `metrics.discounted_gains(ranks, 20)`.
        n: number of resamples.

    Returns:
        Difference; its p_value is twice the smaller share of resamples on either side of zero.
    """
    d = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    if d.ndim != 1 or len(d) == 0:
        raise ValueError(
            f"expected two equally long (U,) arrays, got shapes {np.shape(a)}, {np.shape(b)}"
        )
    # Users with the same difference are interchangeable: draw how often each value comes up.
    values, counts = np.unique(d, return_counts=True)
    draws = np.random.default_rng(seed).multinomial(len(d), counts / len(d), size=n)
    means = draws @ values / len(d)
    low, high = np.quantile(means, [0.025, 0.975])
    p_value = min(1.0, 2 * min(np.mean(means <= 0), np.mean(means >= 0)))
    return Difference(float(d.mean()), float(low), float(high), float(p_value), len(d))


def holm(p_values: Iterable[float]) -> np.ndarray:
    """Holm's (1979) correction: p-values of several tests, valid all at once."""
    p = np.asarray(list(p_values), dtype=np.float64)
    order = np.argsort(p, kind="stable")
    adjusted = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1.0)
    out = np.empty_like(p)
    out[order] = adjusted
    return out


# --- the thesis's printed numbers ----------------------------------------------------------------


@cache
def _thesis_file(name: str) -> pd.DataFrame:
    with resources.files("nbrec").joinpath("thesis", f"{name}.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file, dtype={"table": str, "k": "Int64"})


def thesis_table(name: str) -> pd.DataFrame:
    """Printed numbers of one table of the thesis, such as "5.1", "A.5" or "3.2".

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
        wide = thesis_table(table).drop(columns="personalisation_stars")
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


# --- provenance ----------------------------------------------------------------------------------


def _git(*arguments: str) -> str | None:
    """Output of git in the checkout that this package is part of, None if it is part of none."""
    package = Path(__file__).resolve().parent
    try:
        done = subprocess.run(
            ["git", "-C", str(package), *arguments], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _commit() -> tuple[str | None, bool | None]:
    """Commit and whether tracked files differ from it."""
    top = _git("rev-parse", "--show-toplevel")
    # An environment inside some other checkout must not borrow that checkout's commit.
    if top is None or Path(top).resolve() != Path(__file__).resolve().parents[1]:
        return None, None
    commit, changes = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "-uno")
    return commit, (None if commit is None or changes is None else bool(changes))


def _cpu() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
        return re.search(r"model name\s*:\s*(.+)", text)[1].strip()  # type: ignore[index]
    except (OSError, TypeError):
        return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return getattr(sys.modules.get(package), "__version__", None)


def provenance() -> dict[str, Any]:
    """What a result was made with: versions, commit, device, processor, threads, date (UTC)."""
    import torch  # here, so that tables and records can be read without loading it

    gpu = torch.cuda.is_available()
    commit, dirty = _commit()
    return {
        "versions": {"python": platform.python_version(), **{p: _version(p) for p in PACKAGES}},
        "commit": commit,
        "dirty": dirty,
        "device": torch.cuda.get_device_name() if gpu else "cpu",
        "cpu": _cpu(),
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def provenance_table(df: pd.DataFrame | None = None, **facts: Any) -> pd.DataFrame:
    """The last cell of a chapter: with what, from what and on what its numbers were made.

    Args:
        df: records that the chapter shows, if any; their dataset, seed and hashes are listed.
        facts: further rows, such as `dataset=data.name, sequences_digest=sequences.digest()`.

    Returns:
        one column "value", one row per fact.
    """
    here = provenance()
    versions = ", ".join(f"{name} {number}" for name, number in here["versions"].items() if number)
    rows: dict[str, Any] = {
        "commit": _commit_text(here["commit"], here["dirty"]),
        "versions": versions,
        "device": f"{here['device']}, {here['threads']} thread(s) ({here['cpu']})",
        "date (UTC)": here["date"],
    }
    if df is not None and len(df):
        made = df[["commit", "dirty"]].drop_duplicates().itertuples(index=False)
        commits = ", ".join(sorted({_commit_text(*pair) for pair in made}))
        rows["records"] = f"{len(df)} runs, made at commit {commits}, until {df['date'].max()[:10]}"
        rows["dataset"] = ", ".join(df["dataset"].unique())
        rows["ratings_sha256"] = ", ".join(h[:16] for h in df["ratings_sha256"].unique())
        rows["folds"] = ", ".join(map(str, sorted(df["fold"].unique())))
        rows["seeds"] = ", ".join(map(str, sorted(df["seed"].unique())))
        for variant, part in df.groupby("variant", sort=False):
            for name in ("sequences_digest", "split_hash"):
                rows[f"{name}, {variant}"] = ", ".join(h[:16] for h in part[name].unique())
    rows |= facts
    table = pd.DataFrame({"value": [str(value) for value in rows.values()]})
    table.index = [name.replace("_", " ") for name in rows]
    return table


def _commit_text(commit: str | None, dirty: bool | None) -> str:
    if not isinstance(commit, str):
        return "unknown"
    return commit[:12] + (" with uncommitted changes" if dirty is True else "")
