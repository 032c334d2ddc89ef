"""Equal chances: every model gets the same number of trials from a space that is stated here.

The settings of all trials follow from ``SPACES`` before anything is run. Each trial is a run of the
profile "tuning", judged on a validation part by the mean NDCG@20 of its users' last five items;
``python -m nbrec.tuning`` writes the best of each model to ``tuned.json``, which the profiles read.
"""

from __future__ import annotations

import argparse
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nbrec import files, paths, records
from nbrec.recommenders import CONTEXTS, MODELS, names

DRAWS = 12  # of each model, besides the settings that it starts from
TARGETS = 5  # of each validation user: their last items, so that chance weighs less in the choice
METRIC = "ndcg@20"
SEED = 2  # of the draws; the first that repeats none of them
TUNED = Path(__file__).parent / "tuned.json"

# What a sequence model may vary; each has all of these, a hybrid its fusion's dropout as well.
SEQUENCE = {
    "d_model": (64, 128),
    "n_layers": (1, 2, 3),
    "learning_rate": (5e-4, 1e-3, 2e-3, 4e-3),
    "dropout": (0.0, 0.1, 0.2, 0.4),
    "input_dropout": (0.0, 0.2, 0.4, 0.6),
    "batch_size": (64, 128),
}
FUSION = {"fusion_dropout": (0.0, 0.2, 0.4, 0.6)}
GRAPH = {
    "n_layers": (1, 2, 3),
    "learning_rate": (1e-3, 3e-3, 1e-2, 3e-2),
    "batch_size": (2048, 8192, 32768),
}
LAST = (1, 2, 3, 4, 5, 7, 10, 15, 20, 30, 50, None)
SPACES: dict[str, Mapping[str, tuple]] = {
    "markov": {"smoothing": (0.1, 0.3, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 50.0, 100.0, 300.0, 1e3)},
    "ease": {"l2": (3.0, 10.0, 30.0, 60.0, 100.0, 150.0, 250.0, 400.0, 600.0, 1e3, 2e3, 5e3)},
    "svd": {"rank": (4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)},
    "item-knn": {"last_n": (1, 2, 3, 5, 10, None), "neighbours": (20, 50, 100, 200, 500, None),
                 "shrinkage": (0.0, 2.0, 5.0, 10.0, 20.0, 50.0)},
    "user-knn": {"neighbours": (10, 20, 30, 50, 75, 100, 150, 200, 300, 500, 1000, 2000),
                 "shrinkage": (0.0, 1.0, 2.0, 5.0, 10.0, 20.0)},
    "tfidf": {"last_n": LAST},
    "minibert": {"last_n": LAST},
    "modernbert": {"last_n": LAST},
    "gcn": GRAPH | {"dropout": (0.0, 0.2, 0.4, 0.6)},
    "lightgcn": GRAPH,
    "gat": GRAPH | {"dropout": (0.0, 0.2, 0.4, 0.6)},
}
BACKBONES = [name for name in names("sequence") if MODELS[name].defaults]
SPACES |= {backbone: SEQUENCE for backbone in BACKBONES}
SPACES |= {f"{backbone}+{context}": SEQUENCE | FUSION for context in names(*CONTEXTS)
           for backbone in BACKBONES}


def draws(space: Mapping[str, tuple]) -> list[dict[str, Any]]:
    """``DRAWS`` settings out of a space.

    Each value of a setting stands in as many of them as every other, give or take one (a Latin
    hypercube); which, is drawn for each setting by itself. So the i-th draw of two models agrees in
    all settings that both have.

    Args:
        space: setting -> its values.

    Returns:
        ``DRAWS`` times setting -> value.
    """
    columns = {}
    for setting, values in space.items():
        rng = np.random.default_rng([SEED, zlib.crc32(setting.encode())])
        places = np.concatenate([rng.permutation(len(values))
                                 for _ in range(-(-DRAWS // len(values)))])[:DRAWS]
        columns[setting] = [values[place] for place in places]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def chosen(dataset: str) -> dict[str, dict[str, Any]]:
    """model -> what was chosen for it on these data, by ``choose``; empty before that."""
    return json.loads(TUNED.read_text(encoding="utf-8")).get(dataset, {}) if TUNED.exists() else {}


def label(model: str, trial: int) -> str:
    """What the run of a trial is called; trial 0 has the settings that the model starts from."""
    return f"{model}~{trial:02d}"


def choose(runs: pd.DataFrame) -> pd.DataFrame:
    """The best trial of each model of which all trials are there.

    Args:
        runs: records of the profile "tuning", as ``records.load_records`` gives them.

    Returns:
        indexed by model, in the order of ``SPACES``: trial, the metric of that trial and of the one
        that the model started from, and ``settings``, the values of what its space varies.
    """
    rows = {}
    for model, space in SPACES.items():
        labels = [label(model, trial) for trial in range(DRAWS + 1)]
        of_model = runs[runs["model"].isin(labels)].set_index("model")[METRIC]
        if len(of_model) <= DRAWS:
            continue
        trial = labels.index(of_model.reindex(labels).idxmax())
        rows[model] = {"trial": trial, METRIC: of_model[labels[trial]],
                       f"{METRIC} at the start": of_model[labels[0]],
                       "settings": ([{}, *draws(space)][trial])}
    return pd.DataFrame.from_dict(rows, orient="index")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m nbrec.tuning",
        description="Write the best trial of each model that was tuned to nbrec/tuned.json.")
    parser.add_argument("--folder", help="where the records of the trials are; default: "
                                         "results/tuning of the repository")
    folder = parser.parse_args(arguments).folder
    try:
        runs = records.load_records(folder or paths.reference_folder("tuning"))
    except (FileNotFoundError, ValueError) as error:
        parser.error(str(error))
    found = json.loads(TUNED.read_text(encoding="utf-8")) if TUNED.exists() else {}
    for dataset, part in runs.groupby("dataset"):
        table = choose(part)
        print(table.to_string())
        found[dataset] = table["settings"].to_dict() if len(table) else {}
    with files.atomic(TUNED) as temporary:
        temporary.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
