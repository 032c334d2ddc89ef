"""Folds x models -> records: every number of the results chapter comes from here.

A run can be killed at any instant and started again: finished runs are read from their records,
a training run goes on after its last finished epoch, and the numbers are those of a run that was
never interrupted. `python -m nbrec.experiment --help` does the same from a terminal.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from numbers import Integral, Real
from pathlib import Path

import pandas as pd
from joblib import Parallel, delayed
from tqdm import tqdm

from nbrec import checks, files, paths, recommenders, records
from nbrec.data import movielens, text
from nbrec.data.movielens import MovieLens
from nbrec.preprocessing import SequenceSettings, build_sequences
from nbrec.profiles import PROFILES, Profile, get_profile
from nbrec.sequences import Fold, Sequences, k_folds, leave_one_out
from nbrec.tasks import Task, make_task, shared_facts, valid_row

log = logging.getLogger(__name__)


def sequence_settings(
    profile: Profile, data: MovieLens, variant: str = "original"
) -> SequenceSettings:
    """Preprocessing of a variant; without a rating filter if some of the ratings are not known."""
    settings = profile.preprocessing(variant)
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
        reading = [name for name, model in recommenders.MODELS.items() if model.reads]
        raise ValueError(f"{data.name} has no table of movies, so there is nothing to read: leave "
                         f"out {', '.join(reading)} and what is joined with them")
    path = text.find_metadata()
    return text.documents(data.movies, text.read_metadata(path) if path else None, data.tags)


def make_folds(profile: Profile, sequences: Sequences) -> list[Fold]:
    """The folds, as the experiment uses them."""
    if profile.leave_one_out:
        return leave_one_out(len(sequences), profile.n_folds)
    return k_folds(len(sequences), profile.n_folds, profile.seed)


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
    same kind of processor, with the same versions and number of threads. Others add floats in
    another order, and over many epochs of training a network drifts apart; every record states
    its processor, versions and threads.

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
    reads = any(part.reads for m in models
                for part in recommenders.models_in(profile.chosen(m).name))
    documents = make_documents(data) if reads else None
    rows: dict[Path, dict] = {}
    jobs = []
    for variant in variants:
        settings = sequence_settings(profile, data, variant)
        sequences = build_sequences(data.ratings, settings)
        split = make_folds(profile, sequences)
        shared = shared_facts(profile, data, variant, settings, sequences, split)
        for fold in folds:  # all models of a fold, then the next: a stopped run compares them all
            for model in models:
                task = make_task(profile, shared, model, fold, folder, documents)
                rows[task.path] = valid_row(task)
                if not rows[task.path]:
                    jobs.append((task, sequences, split[fold]))
    bar = tqdm(total=len(jobs), disable=not (progress and jobs), desc="runs", unit="run")
    threads = 1 if n_jobs != 1 else None
    inner = progress and n_jobs == 1 and sys.stderr.isatty()
    parallel = Parallel(n_jobs=n_jobs, return_as="generator_unordered")
    with bar:
        for record in parallel(_calls(jobs, threads, inner)):
            path = records.record_path(
                **{name: record[name] for name in records.IDENTITY}, folder=folder)
            rows[path] = records.flatten(record, path)  # here, where all metrics are known
            bar.set_postfix_str(
                f"{record['model']}, {record['variant']}, fold {record['fold']}", refresh=False
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


def _chosen(what: str, asked: Iterable | None, known: Iterable, profile: Profile,
            default: Iterable | None = None) -> list:
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


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m nbrec.experiment", description=(run.__doc__ or "").splitlines()[0]
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
