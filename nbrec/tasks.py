"""One run: fit a model on a fold, rank, write the record.

What decides the numbers is known before the run and hashed; see `records.record_key`.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from nbrec import files, metrics, provenance, recommenders, records
from nbrec.data.movielens import MovieLens
from nbrec.evaluate import Evaluation, evaluate
from nbrec.models.recommender import Context, Recommender
from nbrec.preprocessing import SequenceSettings
from nbrec.profiles import Profile
from nbrec.recommenders import Parts
from nbrec.sequences import Fold, Sequences, split_hash
from nbrec.train import CheckpointError
from nbrec.trained import SequenceRecommender, Trained


@dataclass(frozen=True)
class Task:
    """One run that is still to be done: a model on a fold, and where its record goes."""

    model: Recommender  # not fitted yet; whoever runs many tasks lets go of each one that is done
    facts: dict[str, Any]  # the beginning of the record
    path: Path
    checkpoint: Path
    context_checkpoints: dict[str, Path] = field(default_factory=dict)
    train_share: float = 1.0  # of the training users

    def __call__(
        self, sequences: Sequences, fold: Fold, threads: int | None, progress: bool
    ) -> dict:
        """Fit, score, write the record, and return it."""
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
        curve = self.model.curve
        if curve is not None:  # epochs from before an interruption count as well, contexts apart
            seconds["fit"] = sum(curve.seconds)
        if isinstance(self.model, SequenceRecommender) and self.model.contexts:
            seconds["context"] = sum(c.seconds for c in self.model.contexts.values())
        chosen = self.facts["settings"]["evaluation"]
        asked = validation if chosen.get("part") == "validation" else test
        asked = asked.prefixes(chosen.get("n_targets", 1))
        result = evaluate(self.model, asked, chosen["mask_seen"], chosen["top_k"])
        record = self.facts | {
            "data": self.facts["data"]
            | {"n_train": len(train), "n_validation": len(validation), "n_test": len(asked)},
            "seconds": {k: round(v, 4) for k, v in (seconds | {"score": result.seconds}).items()},
            "history": None if curve is None else {
                name: records.significant(value, 6) if isinstance(value, list) else value
                for name, value in asdict(curve).items()},
            "provenance": provenance.facts(self.model.device),
            **measures(result, train, asked),
        }
        records.write_record(record, self.path)
        self.tidy()
        return records.Record(record)

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
        return isinstance(self.model, Context)

    def _fit(self, train: Sequences, validation: Sequences, others: Sequence[np.ndarray],
             progress: bool) -> None:
        if not isinstance(self.model, Trained):
            self.model.fit(train, validation)
            return
        options: dict[str, Any] = {"checkpoint": self.checkpoint, "progress": progress,
                                   "others": others}
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


def shared_facts(
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


def make_task(
    profile: Profile, shared: Mapping[str, Any], label: str, fold: int, folder: str | Path | None,
    documents: pd.Series | None,
) -> Task:
    """The task of a label of a profile on a fold.

    Args:
        shared: of ``shared_facts``.
        documents: text of each film by movieId, for models that read.

    Raises:
        ValueError: the profile's settings contradict themselves, or a context is not among its
            models.
    """
    chosen = profile.chosen(label)
    name, settings, share = chosen.name, dict(chosen.settings), chosen.train_share
    seed = profile.seed_of(fold)
    if recommenders.models_in(name)[0].trained:
        settings["seed"] = seed
    if unset := [c for c in chosen.contexts.values() if c not in profile.models]:
        raise ValueError(f"profile {profile.name!r} has no settings for {unset}, of which {label} "
                         "is made; expected them among its models")
    if wrong := [other for c, other in chosen.contexts.items()
                 if profile.chosen(other).parts != Parts(c)]:
        raise ValueError(f"profile {profile.name!r}: {label} takes {wrong[0]!r} for a context that "
                         "is of another kind: expected a label of that very model")
    tasks = {c: make_task(profile, shared, other, fold, folder, documents)
             for c, other in chosen.contexts.items()}
    contexts: dict[str, Any] = {c: task.model for c, task in tasks.items()}
    model = recommenders.create(name, documents, contexts, **settings)
    facts = dict(shared) | {
        "model": label,
        "fold": fold,
        "seed": seed,
        "settings": shared["settings"] | {"model": {"name": name} | model.describe()
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


def valid_row(task: Task) -> dict[str, Any]:
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
