"""Folds x models -> records: every number of the results chapter comes from here.

A run can be killed at any instant and started again: finished runs are read from their records,
a training run goes on after its last finished epoch, and the numbers are those of a run that was
never interrupted. `python -m nbrec.experiment --help` does the same from a terminal.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed
from tqdm import tqdm

from nbrec import checks, files, metrics, paths, recommenders, records
from nbrec.data import movielens, text
from nbrec.data.movielens import MovieLens
from nbrec.evaluate import Evaluation, evaluate
from nbrec.preprocessing import SequenceSettings, build_sequences
from nbrec.profiles import PROFILES, Profile, get_profile
from nbrec.sequences import Fold, Sequences, k_folds, leave_one_out, split_hash
from nbrec.train import CheckpointError

log = logging.getLogger(__name__)


def sequence_settings(
    profile: Profile, data: MovieLens, variant: str = "original"
) -> SequenceSettings:
    """Preprocessing of a variant; without a rating filter if some of the ratings are not known."""
    if variant not in profile.variants:
        raise ValueError(
            f"profile {profile.name!r} has no variant {variant!r}; expected one of "
            f"{', '.join(profile.variants)}"
        )
    settings = replace(profile.sequences, left_truncate=profile.variants[variant])
    if "rating" not in data.ratings or data.ratings["rating"].isna().any():
        settings = replace(settings, min_rating=None)
    return settings


def make_sequences(profile: Profile, data: MovieLens, variant: str = "original") -> Sequences:
    """The sequences of a variant, as the experiment uses them."""
    return build_sequences(data.ratings, sequence_settings(profile, data, variant))


def make_documents(data: MovieLens) -> pd.Series:
    """What the text models read of each film, by movieId, as the experiment uses it.

    Raises:
        ValueError: the data have no table of movies.
    """
    if data.movies is None:
        raise ValueError(f"{data.name} has no table of movies, so there is nothing to read: leave "
                         f"out {', '.join(recommenders.CONTENT)} and what is joined with them")
    path = text.find_metadata()
    return text.documents(data.movies, text.read_metadata(path) if path else None, data.tags)


def make_folds(profile: Profile, sequences: Sequences) -> list[Fold]:
    """The folds, as the experiment uses them."""
    if profile.leave_one_out:
        return leave_one_out(len(sequences), profile.n_folds)
    return k_folds(len(sequences), profile.n_folds, profile.seed)


def seed_of(profile: Profile, fold: int) -> int:
    """The seed of every training run on a fold; it never depends on the order of the runs."""
    return 1000 * profile.seed + fold


@dataclass(frozen=True)
class Task:
    """One run that is still to be done: a model on a fold, and where its record goes."""

    model: Any  # not fitted yet; whoever runs many tasks lets go of each one that is done
    facts: dict[str, Any]  # the beginning of the record
    path: Path
    checkpoint: Path
    context_checkpoints: dict[str, Path] = field(default_factory=dict)
    train_share: float = 1.0  # of the training users

    def __call__(
        self, sequences: Sequences, fold: Fold, threads: int | None, progress: bool
    ) -> dict:
        """Fit, score, write the record, and return its flat row."""
        if threads:
            torch.set_num_threads(threads)
        train, validation, test = fold.parts(sequences)
        if self.train_share < 1:  # a smaller share is part of every larger one
            order = np.random.default_rng(self.facts["settings"]["folds"]["seed"]).permutation(
                len(train))
            train = train.select(np.sort(order[: max(1, round(self.train_share * len(train)))]))
        began = time.perf_counter()
        self._fit(train, validation, test.histories(), progress)
        seconds = {"fit": time.perf_counter() - began}
        history = getattr(self.model, "history", None)
        if history is not None:  # epochs from before an interruption count as well, contexts apart
            seconds["fit"] = sum(history.seconds)
        if contexts := getattr(self.model, "context_seconds", None):
            seconds["context"] = sum(contexts.values())
        chosen = self.facts["settings"]["evaluation"]
        asked = validation if chosen.get("part") == "validation" else test
        asked = asked.prefixes(chosen.get("n_targets", 1))
        result = evaluate(self.model, asked, chosen["mask_seen"], chosen["top_k"])
        record = self.facts | {
            "data": self.facts["data"]
            | {"n_train": len(train), "n_validation": len(validation), "n_test": len(asked)},
            "seconds": {k: round(v, 4) for k, v in (seconds | {"score": result.seconds}).items()},
            "history": None if history is None else _rounded_history(asdict(history)),
            "provenance": records.provenance(device_of(self.model)),
            **measures(result, train, asked),
        }
        records.write_record(record, self.path)
        self.tidy()
        return records.flatten(record, self.path)

    def tidy(self) -> None:
        """Remove the checkpoint, old ones of other settings, and what killed processes have left;
        nothing that another process may be at work on."""
        folder, path = self.path.parent, self.path
        if not self.is_context:
            self.checkpoint.unlink(missing_ok=True)
        left = [p for p in folder.glob(f"{path.stem}.*.safetensors")
                if p != self.checkpoint and files.old(p)]
        left += [p for p in folder.glob(f".{path.stem}.*.tmp") if files.abandoned(p)]
        for leftover in left:
            leftover.unlink(missing_ok=True)

    @property
    def is_context(self) -> bool:
        """Whether hybrids use the trained model, so that its last checkpoint is kept."""
        return isinstance(self.model, recommenders.GraphRecommender)

    def _fit(self, train: Sequences, validation: Sequences, others: list, progress: bool) -> None:
        if not hasattr(self.model, "train_settings"):
            self.model.fit(train, validation)
            return
        options = {"checkpoint": self.checkpoint, "progress": progress, "others": others}
        if self.context_checkpoints:
            options["context_checkpoints"] = self.context_checkpoints
        for left in range(len(self.context_checkpoints), -1, -1):  # each may be of no use
            try:
                self.model.fit(train, validation, **options)
                return
            except CheckpointError as error:
                warnings.warn(f"{error}\nTraining starts again from the first epoch.",
                              stacklevel=2)
                error.path.unlink(missing_ok=True)
                if not left:
                    self.model.fit(train, validation, **options)


def measures(result: Evaluation, train: Sequences, test: Sequences) -> dict[str, Any]:
    """What a record keeps of an evaluation: metrics, ranks, popularity of items."""
    popularity = metrics.popularity(train)
    ranks, recommended = result.ranks, result.recommended
    personal = metrics.personalisation(popularity, recommended, test.items, 500 / len(train))
    return {
        "metrics": {name: round(metrics.mean(name, ranks), 6) for name in metrics.names()},
        "personalisation": {k: round(v, 5) for k, v in personal.items()},
        "users": test.users.tolist(),
        "ranks": ranks.tolist(),
        "ranks_with_seen": result.ranks_with_seen.tolist(),
        "history_lengths": (test.lengths - 1).tolist(),
        "target_gaps": records.significant(test.target_gaps(), 12),
        "target_popularity": records.significant(popularity[test.targets()], 3),
        "popularity": {
            "recommended": records.popularity_histogram(popularity[recommended.ravel()]),
            "behaviour": records.popularity_histogram(popularity[test.items]),
        },
    }


def device_of(model: Any) -> str:
    """Where a fitted model's numbers were computed: "cuda" or "cpu"."""
    network = getattr(model, "model", None)
    if not isinstance(network, torch.nn.Module):
        return "cpu"
    return next(network.parameters()).device.type


def _rounded_history(history: dict[str, Any]) -> dict[str, Any]:
    return {
        name: records.significant(value, 6) if isinstance(value, list) else value
        for name, value in history.items()
    }


def run(
    profile: Profile | str | None = None,
    models: Iterable[str] | None = None,
    variants: Iterable[str] | None = None,
    folds: Iterable[int] | None = None,
    n_jobs: int = 1,
    progress: bool = True,
    folder: str | Path | None = None,
    data: MovieLens | None = None,
) -> pd.DataFrame:
    """Run models on folds of variants, skip what has a valid record, and return all records.

    A record counts as valid if data, split, settings, evaluation and seed are those asked for now.
    A damaged record, or one of other settings, is run again into its place.

    A run that is repeated, or killed and resumed, gives the same numbers to the last digit on the
    same number of threads. Another number adds floats in another order, and over many epochs of
    training a network drifts apart; every record states its threads.

    Args:
        profile: a Profile or its name.
        models, variants, folds: which of the profile's; by default all.
        n_jobs: runs at the same time, each in its own process with one thread, -1 for as many as
            there are cores; 1 runs them here, one after the other, with all threads.
        folder: where the records are kept; by default `paths.runs_folder()`.
        data: tables that are loaded already; by default those of the profile's dataset.

    Returns:
        one row per run, as `records.load_records` gives.

    Raises:
        ValueError: if the profile has no such model, variant or fold, or nothing can be written
            into the folder.
    """
    profile = profile if isinstance(profile, Profile) else get_profile(profile)
    if n_jobs != -1:
        checks.whole("n_jobs", n_jobs, low=1)
    files.writable(paths.runs_folder() if folder is None else folder)
    models = _chosen("model", models, profile.models, profile)
    variants = _chosen("variant", variants, profile.variants, profile)
    folds = _chosen("fold", folds, range(profile.n_folds), profile, profile.folds_run)
    data = movielens.load(profile.dataset) if data is None else data
    models = _usable(profile, models)
    if not models:
        raise ValueError("none of the models that were asked for can be used here; the warnings "
                         "above say why")
    made = {part for m in models for part in (parts(profile, m).base, *parts(profile, m).contexts)}
    documents = make_documents(data) if made & set(recommenders.CONTENT) else None
    rows: dict[Path, dict] = {}
    jobs = []
    for variant in variants:
        settings = sequence_settings(profile, data, variant)
        sequences = build_sequences(data.ratings, settings)
        split = make_folds(profile, sequences)
        shared = _shared_facts(profile, data, variant, settings, sequences, split)
        for fold in folds:  # all models of a fold, then the next: a stopped run compares them all
            for model in models:
                task = _task(profile, shared, model, fold, folder, documents)
                rows[task.path] = _valid_row(task)
                if not rows[task.path]:
                    jobs.append((task, sequences, split[fold]))
    bar = tqdm(total=len(jobs), disable=not (progress and jobs), desc="runs", unit="run")
    threads = 1 if n_jobs != 1 else None
    inner = progress and n_jobs == 1 and sys.stderr.isatty()
    parallel = Parallel(n_jobs=n_jobs, return_as="generator_unordered")
    with bar:
        for row in parallel(_calls(jobs, threads, inner)):
            rows[Path(row["path"])] = row
            bar.set_postfix_str(
                f"{row['model']}, {row['variant']}, fold {row['fold']}", refresh=False
            )
            bar.update()
    return pd.DataFrame(list(rows.values()))


def _calls(jobs: list[tuple[Task, Sequences, Fold]], threads: int | None, progress: bool
           ) -> Iterator:
    """The jobs as joblib takes them, each forgotten once it is handed out: a fitted model may hold
    gigabytes, and nobody needs it after its record is written."""
    while jobs:
        task, sequences, fold = jobs.pop(0)
        yield delayed(task)(sequences, fold, threads, progress)
        del task


def beside_reference(
    profile: Profile | str | None = None, models: Iterable[str] | None = None,
    reference: str = "laptop", data: MovieLens | None = None,
) -> dict[str, pd.DataFrame]:
    """The two runs that the chapters on results show.

    Args:
        profile, models, data: as in `run`, which makes what is missing of this run.
        reference: profile of the committed records.

    Returns:
        "this run" and, where there are any, "reference run" -> records, as `run` gives them.
    """
    both = {"this run": run(profile, models, data=data, n_jobs=2, progress=False)}
    try:
        both["reference run"] = records.load_records(paths.reference_folder(reference))
    except FileNotFoundError as error:
        log.warning("There is no reference run here: %s", error)
    return both


def _chosen(what: str, asked: Iterable | None, known: Iterable, profile: Profile, default=None):
    known = list(known)
    if asked is None:
        return known if default is None else list(default)
    asked = [asked] if isinstance(asked, str | Integral) else list(asked)
    if unknown := [a for a in asked if a not in known or type(a) is bool or isinstance(a, Real)
                   and not isinstance(a, Integral)]:
        raise ValueError(
            f"profile {profile.name!r} has no {what} {unknown}; expected some of {known}"
        )
    return asked


def _usable(profile: Profile, models: Iterable[str]) -> list[str]:
    """Without the models whose weights cannot be had; each is named in a warning."""
    reasons = {m: recommenders.missing(profile.chosen(m).name) for m in models}
    for reason in filter(None, reasons.values()):
        log.warning(reason)
    return [m for m, reason in reasons.items() if not reason]


def _shared_facts(
    profile: Profile, data: MovieLens, variant: str, settings: SequenceSettings,
    sequences: Sequences, split: list[Fold],
) -> dict[str, Any]:
    """What all records of a variant have in common."""
    return {
        "schema": records.SCHEMA,
        "profile": profile.name,
        "dataset": data.name,
        "variant": variant,
        "settings": {
            "sequences": settings.described(),
            "folds": {"n_folds": profile.n_folds, "seed": profile.seed}
            | ({"leave_one_out": True} if profile.leave_one_out else {}),
            "evaluation": {
                "mask_seen": profile.mask_seen,
                "top_k": profile.top_k,
                "ties": "pessimistic",
                "ks": list(metrics.KS),
            } | ({"part": "validation"} if profile.on_validation else {})
            | ({"n_targets": profile.n_targets} if profile.n_targets > 1 else {}),
        },
        "data": {
            "ratings_sha256": data.sha256,
            "sequences_digest": sequences.digest(),
            "split_hash": split_hash(sequences, split),
            "n_items": sequences.n_items,
            "funnel": [step._asdict() for step in sequences.funnel],
        },
    }


def parts(profile: Profile, label: str) -> recommenders.Parts:
    """What the model with this label is made of."""
    return recommenders.parse(profile.chosen(label).name)


def _task(
    profile: Profile, shared: Mapping[str, Any], label: str, fold: int, folder: str | Path | None,
    documents: pd.Series | None,
) -> Task:
    chosen = profile.chosen(label)
    name, settings, share = chosen.name, chosen.settings, chosen.train_share
    made = parts(profile, label)
    seed = seed_of(profile, fold)
    if made.base not in (*recommenders.CLASSICAL, *recommenders.CONTENT):
        settings["seed"] = seed
    own = chosen.contexts
    if not isinstance(own, Mapping) or not set(own) <= set(made.contexts):
        raise ValueError(f"{label}: contexts={own!r}: expected labels for some of "
                         f"{', '.join(made.contexts) or 'none, it has no contexts'}")
    labels = {c: c for c in made.contexts} | dict(own)
    if unset := [c for c in labels.values() if c not in profile.models]:
        raise ValueError(f"profile {profile.name!r} has no settings for {unset}, of which {label} "
                         "is made; expected them among its models")
    if wrong := [label for c, label in labels.items()
                 if parts(profile, label) != recommenders.Parts(c)]:
        raise ValueError(f"profile {profile.name!r}: {label} takes {wrong[0]!r} for a context that "
                         "is of another kind: expected a label of that very model")
    tasks = {c: _task(profile, shared, labels[c], fold, folder, documents) for c in labels}
    model = recommenders.create(name, documents, {c: t.model for c, t in tasks.items()}, **settings)
    facts = dict(shared) | {
        "model": label,
        "fold": fold,
        "seed": seed,
        "settings": shared["settings"] | {"model": {"name": name} | _resolved(model)
                                          | ({"train_share": share} if share < 1 else {})},
    }
    # Everything but the numbers that follow from the rest, and the names that only label it.
    facts["key"] = records.record_key(
        {k: facts[k] for k in ("dataset", "settings", "fold", "seed")}
        | {k: facts["data"][k] for k in ("ratings_sha256", "sequences_digest", "split_hash")}
    )
    path = records.record_path(
        profile.name, facts["dataset"], label, facts["variant"], fold, folder
    )
    # The key in the name keeps a training run of other settings from being continued.
    checkpoints = {c: t.checkpoint for c, t in tasks.items() if t.is_context}
    return Task(model, facts, path, path.with_suffix(f".{facts['key'][:12]}.safetensors"),
                checkpoints, share)


def _resolved(model: Any) -> dict[str, Any]:
    """All settings of a model that is not fitted yet, defaults included."""
    return model.describe() if hasattr(model, "describe") else dict(vars(model))


def _valid_row(task: Task) -> dict[str, Any]:
    """The row of a task's record; empty if the task has to be run."""
    if not task.path.exists():
        return {}
    try:
        record = records.read_record(task.path)
        row = records.flatten(record, task.path)
    except ValueError as error:
        warnings.warn(f"{error} (this is done now)", stacklevel=3)
        return {}
    if record["key"] != task.facts["key"]:
        return {}
    task.tidy()  # the process may have died between writing the record and doing this
    return row


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m nbrec.experiment", description=run.__doc__.splitlines()[0]
    )
    parser.add_argument(
        "--profile", choices=list(PROFILES), help="default: $NBREC_PROFILE or sample"
    )
    parser.add_argument("--models", nargs="+", help="default: all of the profile")
    parser.add_argument("--variants", nargs="+", help="default: all of the profile")
    parser.add_argument("--folds", nargs="+", type=int, help="default: those of the profile")
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time")
    parser.add_argument("--folder", help="where records are kept; default: $NBREC_RUNS or runs")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    chosen = parser.parse_args(arguments)
    try:
        df = run(chosen.profile, chosen.models, chosen.variants, chosen.folds, chosen.jobs,
                 not chosen.quiet, chosen.folder)
    except (ValueError, FileNotFoundError, FloatingPointError) as error:
        parser.error(" ".join(str(error).split()))
    wanted = ["hr@1", "hr@20", "hr@300", "mrr@20", "ndcg@20", "seconds"]
    print(df.groupby(["variant", "model"])[wanted].mean().round(4).to_string())


if __name__ == "__main__":
    # Imported by name, so that worker processes find the functions where they live.
    from nbrec.experiment import main as run_from_terminal

    run_from_terminal()
