"""What a training step and a recommendation cost as histories grow (thesis section 5.1.4).

    OMP_WAIT_POLICY=PASSIVE python -m nbrec.book.growth --output results/growth.csv
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy import stats

from nbrec import paths, recommenders
from nbrec.book import comparison
from nbrec.models.next_item import NextItemModel
from nbrec.train import MicroBatch, SequenceTrainer, TrainSettings

MODELS = ("transformer", "mamba", "xlstm")
LENGTHS = (20, 60, 90, 200, 500, 1000, 2000, 4000)


def step_cost(model: str, length: int, batch: int = 8, d_model: int = 128, n_items: int = 13_318,
              repeats: int = 3) -> dict[str, float]:
    """Seconds and memory of one training step, measured here and now.

    Args:
        model: a sequence model by its name; two layers, other settings as in the thesis.
        length: N, items in each history; every sequence has N + 1 items, so nothing is padded.
        batch: sequences per step.
        d_model: width.
        n_items: size of the catalogue.
        repeats: steps that are timed, after one that is not.

    Returns:
        "seconds": median of a step (forward, backward, optimiser). "megabytes": highest memory of
        this process above what it had when the model stood ready. On a CPU that is a peak over the
        life of the process: ``measure`` gives each step a process of its own.
    """
    torch.manual_seed(0)
    settings = TrainSettings(batch_size=batch, micro_batches=1)
    net = recommenders.MODELS[model].build(n_items, d_model=d_model, max_length=length)
    trainer = SequenceTrainer(net.train(), settings)
    rng = np.random.default_rng(0)
    items = rng.integers(0, n_items, (batch, length + 1))
    real = np.ones((batch, length), bool)
    micro_batch = MicroBatch(items[:, :-1], real, np.flatnonzero(real), items[:, 1:].ravel())
    before = peak_megabytes(trainer.device)
    seconds = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        trainer.step([micro_batch])
        if trainer.device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return {"seconds": statistics.median(seconds[1:]),
            "megabytes": peak_megabytes(trainer.device) - before}


def peak_megabytes(device: str = "cpu") -> float:
    """The highest memory so far: of the GPU, or of this process."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count the parent's memory too
        [kilobytes] = re.findall(r"VmHWM:\s*(\d+)", status.read_text())
        return int(kilobytes) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # bytes on macOS


def measure(lengths: Iterable[int], models: Iterable[str] = MODELS, **settings: int
            ) -> pd.DataFrame:
    """``step_cost`` of every model and length, each in a fresh process.

    Returns:
        Columns model, length, seconds, megabytes, one row each.
    """
    rows = []
    for length in lengths:
        for model in models:
            asked = json.dumps({"model": model, "length": int(length), **settings})
            made = subprocess.run([sys.executable, "-m", "nbrec.book.growth", "--step", asked],
                                  capture_output=True, text=True, check=True)
            rows.append({"model": model, "length": length, **json.loads(made.stdout)})
    return pd.DataFrame(rows)


def load(d_model: int = 128) -> pd.DataFrame:
    """The committed measurements, `results/growth.csv`, of one width and the thesis's catalogue.

    Returns:
        as `measure`, with batch, d_model, n_items and milliseconds_next; without rows if the file
        is not there.
    """
    columns = ["model", "length", "seconds", "megabytes", "batch", "d_model", "n_items",
               "milliseconds_next"]
    try:
        path = paths.reference_folder("sample").parent / "growth.csv"
    except FileNotFoundError:
        path = Path("growth.csv")
    if not path.exists():
        return pd.DataFrame({c: pd.Series(dtype=float) for c in columns})
    table = pd.read_csv(path)[columns]
    return table[(table["d_model"] == d_model) & (table["n_items"] > 100)].reset_index(drop=True)


def beside_thesis(steps: pd.DataFrame) -> pd.DataFrame:
    """The thesis's Table 5.3 beside our steps, each relative to its shortest history.

    Args:
        steps: of `load`.

    Returns:
        index length; columns (source, model): "thesis, minutes", "thesis, ratio", "ours, ratio"
        (of a step; only models that were measured).
    """
    table = comparison.thesis_table("5.3").astype({"value": int})
    minutes = table.pivot(index="value", columns="model", values="minutes").rename_axis("length")
    first = minutes.index[0]
    parts = {"thesis, minutes": minutes, "thesis, ratio": minutes / minutes.loc[first]}
    if len(steps):
        seconds = steps.pivot_table("seconds", "length", "model", "median")
        parts["ours, ratio"] = (seconds / seconds.loc[first]).reindex(minutes.index)
    return pd.concat(parts, axis=1)


def next_item_cost(model: str, length: int, d_model: int = 128, n_items: int = 13_318,
                   repeats: int = 20) -> float:
    """Milliseconds for one more item after ``length`` items: one step of the model, and scores.

    The state of the history is there already; a state's values do not change what a step costs.
    """
    torch.manual_seed(0)
    net: NextItemModel = recommenders.MODELS[model].build(
        n_items, d_model=d_model, max_length=length + 1).eval()
    item, state = torch.tensor([0]), None
    for _ in range(2 if net.positions is None else length):
        _, state = net.step(item, state)
    milliseconds = []
    with torch.inference_mode():
        for _ in range(repeats):
            began = time.perf_counter()
            h, _ = net.step(item, state)
            net.output(h)
            milliseconds.append(1e3 * (time.perf_counter() - began))
    return statistics.median(milliseconds)


class Exponent(NamedTuple):
    """cost ~ length ** value; a 95% interval."""

    value: float
    low: float
    high: float


def exponent(lengths: Sequence[float], costs: Sequence[float]) -> Exponent:
    """The slope of log cost over log length, by least squares, with Student's interval.

    Raises:
        ValueError: fewer than three lengths, from which no interval can be had.
    """
    if len(lengths) < 3:
        raise ValueError(f"{len(lengths)} lengths: an interval needs at least 3")
    fit = stats.linregress(np.log(lengths), np.log(costs))
    half = stats.t.ppf(0.975, len(lengths) - 2) * fit.stderr
    return Exponent(fit.slope, fit.slope - half, fit.slope + half)


def crossing(lengths: Sequence[float], a: Sequence[float], b: Sequence[float]) -> float | None:
    """The length from which a costs more than b, between measured lengths on logarithmic axes.

    Returns:
        None if a costs less at the longest, or more at every length.
    """
    gap = np.log(np.asarray(a)) - np.log(np.asarray(b))
    below = np.flatnonzero(gap <= 0)
    if gap[-1] <= 0 or not len(below):
        return None
    i = int(below[-1])
    share = -gap[i] / (gap[i + 1] - gap[i])
    return float(np.exp(np.log(lengths[i]) + share * np.log(lengths[i + 1] / lengths[i])))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m nbrec.book.growth",
                                     description=__doc__.split("\n")[0])
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    parser.add_argument("--output", type=Path, help="a csv; printed if not given")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.step:
        print(json.dumps(step_cost(**json.loads(options.step))))
        return
    from nbrec import checks, files, provenance

    try:
        for length in options.lengths:
            checks.whole("length", length, low=1)
        if options.output:
            files.output_file(options.output)
    except ValueError as error:
        parser.error(str(error))
    tables = []
    long = [n for n in options.lengths if n >= 200]
    for lengths, sizes in [
            (options.lengths, {"batch": 8, "d_model": 128, "n_items": 13_318}),
            (long, {"batch": 8, "d_model": 128, "n_items": 100}),  # hardly an output layer
            ([90], {"batch": 128, "d_model": 512, "n_items": 13_318})]:  # the thesis's size
        table = measure(lengths, **sizes).assign(**sizes)  # type: ignore[arg-type]
        table["milliseconds_next"] = [
            next_item_cost(m, n, sizes["d_model"], sizes["n_items"])
            for m, n in zip(table["model"], table["length"], strict=True)]
        tables.append(table)
    facts = provenance.facts()
    made = {key: facts[key] for key in ("commit", "cpu", "threads")}
    made["torch"] = facts["versions"]["torch"]
    table = pd.concat(tables).assign(**made)
    if options.output:
        table.to_csv(options.output, index=False, float_format="%.5g")
    else:
        print(table.to_string())


if __name__ == "__main__":
    main()
