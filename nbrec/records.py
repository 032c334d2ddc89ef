"""One run, one record: a JSON file with the numbers of a run and all that is needed to repeat it.

A run is one model, fitted on one fold of one variant of the sequences. This module writes and
reads the records; `nbrec.book` sums them up, compares models, and joins the thesis's numbers.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nbrec import metrics, paths, provenance
from nbrec.files import atomic

SCHEMA = 1  # raise it when the meaning of a field changes: older records are then run again
CODE = 2  # raise it when a change of the code moves a number: older records are then run again
IDENTITY = ["profile", "dataset", "model", "variant", "fold"]
FIELDS = [
    *IDENTITY, "schema", "key", "seed", "settings", "data", "metrics", "personalisation",
    "seconds", "users", "ranks", "target_popularity", "popularity", "history", "provenance",
]


# --- where a record lives, and what decides whether it still holds -------------------------------


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
    root = paths.runs_folder() if folder is None else Path(folder)
    return root / profile / name / model / f"{variant}-fold{fold:02d}.json"


def record_key(facts: Mapping[str, Any]) -> str:
    """Hash of everything that decides a result: a record with another key does not answer it.

    Args:
        facts: nested dict of plain values (settings, seed, hashes of data and split, ...).

    Returns:
        hex sha256 of the facts and the versions of schema and code; the order of the facts plays no
        part.
    """
    text = json.dumps({"schema": SCHEMA, "code": CODE, **facts}, sort_keys=True, default=_plain)
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


def popularity_histogram(popularity: np.ndarray) -> list[list[float | None]]:
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
    with atomic(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    return path


class Record(dict[str, Any]):
    """The fields of a record; in a table of runs it prints as the run's name alone."""

    def __repr__(self) -> str:
        return f"<{self.get('model')}, {self.get('variant')}, fold {self.get('fold')}>"


def read_record(path: str | Path) -> Record:
    """Read one record and check that it is whole.

    Raises:
        ValueError: if the file is damaged, is no record, or is one of another schema version.
    """
    path, cure = Path(path), "delete the file and run the experiment again"
    try:
        record = json.loads(path.read_bytes().decode("utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: damaged record ({error}); {cure}") from error
    if not isinstance(record, dict) or "schema" not in record:
        raise ValueError(f"{path}: not a record of nbrec (no field 'schema'); move it elsewhere")
    if record["schema"] != SCHEMA:
        raise ValueError(
            f"{path}: schema {record['schema']!r}, this version reads {SCHEMA}; {cure}"
        )
    if missing := [f for f in FIELDS if f not in record]:
        raise ValueError(f"{path}: fields {missing} are missing from the record; {cure}")
    kinds = {"data": dict, "metrics": dict, "personalisation": dict, "seconds": dict,
             "popularity": dict, "provenance": dict, "settings": dict, "ranks": list,
             "users": list, "target_popularity": list}
    for field, kind in kinds.items():
        if not isinstance(record[field], kind):
            raise ValueError(f"{path}: {field} is {record[field]!r:.80}; expected a "
                             f"{'table' if kind is dict else 'list'}; {cure}")
    if not all(type(rank) is int and rank >= 1 for rank in record["ranks"]):
        raise ValueError(f"{path}: ranks are not all whole numbers of 1 or more; {cure}")
    for field in ("metrics", "personalisation", "seconds"):
        if not all(isinstance(v, int | float | None) for v in record[field].values()):
            raise ValueError(f"{path}: {field} are not all numbers; {cure}")
    history = record["history"]
    if history is not None and not (
            isinstance(history, dict) and isinstance(history.get("train_loss"), list)
            and type(history.get("best_epoch")) is int):
        raise ValueError(f"{path}: history is no training curve; {cure}")
    lengths = {name: len(record[name]) for name in (
        "ranks", "users", "target_popularity", "ranks_with_seen", "history_lengths", "target_gaps")
        if name in record}
    if {record["data"].get("n_test"), *lengths.values()} != {lengths["ranks"]}:
        raise ValueError(f"{path}: n_test {record['data'].get('n_test')} and the lengths of "
                         f"{lengths} disagree; {cure}")
    return Record(record)


def flatten(record: Mapping[str, Any], path: str | Path = "") -> dict[str, Any]:
    """One flat row of a record: who it is, its metrics, seconds, counts, hashes, and itself.

    A metric that the record does not have, because it is older or was written by a process that did
    not know it, is computed from its ranks. The last column, "record", is the whole record: what
    needs ranks, settings or curves has them without reading them again.
    """
    ranks = np.array(record["ranks"])
    row = {name: record[name] for name in IDENTITY} | dict(record["metrics"])
    row |= {name: round(metrics.mean(name, ranks), 6)
            for name in metrics.names() if name not in row}
    row |= {f"seconds_{part}": s for part, s in record["seconds"].items()}
    row["seconds"] = sum(record["seconds"].values())
    row |= dict(record["personalisation"])
    row |= {k: v for k, v in record["data"].items() if k != "funnel"}
    if record["history"]:
        row["epochs"] = len(record["history"]["train_loss"])
        row["best_epoch"] = record["history"]["best_epoch"] + 1  # counted from 1, like epochs
    kept = ("commit", "dirty", "device", "cpu", "date")
    made = {name: record["provenance"].get(name) for name in kept}
    return row | {"seed": record["seed"], "key": record["key"]} | made | {"path": str(path),
                                                                             "record": record}


def load_records(folder: str | Path | None = None) -> pd.DataFrame:
    """Read all records below a folder into a table, one row per run.

    Args:
        folder: such as `runs/sample` or `results`; by default all of `paths.runs_folder()`.

    Raises:
        FileNotFoundError: if there is no record below the folder.
        ValueError: if one of the records is damaged (the message names it).
    """
    root = paths.runs_folder() if folder is None else Path(folder)
    files = sorted(path for path in root.rglob("*.json")
                   if re.search(r"-fold\d{2,}\.json$", path.name) and path.name[0] != ".")
    if not files:
        raise FileNotFoundError(
            f"no records below {root}; make some with nbrec.experiment.run(...)"
        )
    return pd.DataFrame([flatten(read_record(path), path) for path in files])


def per_user(df: pd.DataFrame) -> pd.DataFrame:
    """Ranks of the targets: one row per run and test user (its place in the fold's test part).

    Columns beside the rank, as far as records have them: user_id (of the data), target_popularity,
    rank_with_seen, history_length, target_gap (seconds since the item before).
    """
    names = {"users": "user_id", "ranks": "rank", "target_popularity": "target_popularity",
             "ranks_with_seen": "rank_with_seen", "history_lengths": "history_length",
             "target_gaps": "target_gap"}
    parts = []
    for record in df["record"]:
        part = pd.DataFrame({name: record[k] for k, name in names.items() if k in record})
        if "target_gap" in part:
            part["target_gap"] = part["target_gap"].astype(float)  # None is NaN, in columns of None
        part.insert(0, "user", np.arange(len(part)))
        parts.append(_with_identity(part, record))
    return pd.concat(parts, ignore_index=True)


def histories(df: pd.DataFrame) -> pd.DataFrame:
    """Training curves: one row per neural run and epoch (counted from 1)."""
    parts = []
    for record in df["record"]:
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
    for record in df["record"]:
        for source, pairs in record["popularity"].items():
            part = pd.DataFrame(pairs, columns=["popularity", "times"])
            part.insert(0, "source", source)
            parts.append(_with_identity(part, record))
    return pd.concat(parts, ignore_index=True)


def _with_identity(part: pd.DataFrame, record: Mapping[str, Any]) -> pd.DataFrame:
    for place, name in enumerate(IDENTITY):
        part.insert(place, name, record[name])
    return part


# --- provenance ----------------------------------------------------------------------------------


def provenance_table(df: pd.DataFrame | None = None, **facts: Any) -> pd.DataFrame:
    """The last cell of a chapter: with what, from what and on what its numbers were made.

    Args:
        df: records that the chapter shows, if any; their dataset, seed and hashes are listed.
        facts: further rows, such as `dataset=data.name, sequences_digest=sequences.digest()`.

    Returns:
        one column "value", one row per fact.
    """
    import torch

    here = provenance.facts("cuda" if torch.cuda.is_available() else "cpu")
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
        rows["processors of the records"] = ", ".join(sorted(map(str, df["cpu"].unique())))
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
