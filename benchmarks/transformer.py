"""Seconds and memory of a Transformer's training epoch at the thesis's size, against plain PyTorch.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/transformer.py --d-model 128 --batches 8 --rounds 3

Both sides train the same model on the same batches: `nbrec` packs and chunks, `plain` pads every
sequence of the batch to the longest and forms all logits. They take turns in one process; medians
of seconds per batch are scaled to the epoch. Peak memory is measured in a process of its own each.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

import numpy as np
import torch
from torch.nn import functional as F

from nbrec.book.growth import peak_megabytes
from nbrec.models.next_item import transformer
from nbrec.sequences import Sequences
from nbrec.train import SequenceTrainer, TrainSettings, batches

USERS, ITEMS, SHORTEST, LONGEST = 10_271, 13_318, 5, 90


def synthetic_sequences(users: int = USERS, items: int = ITEMS, seed: int = 0) -> Sequences:
    """Sequences with the size and skew of the thesis's training part (thesis section 2.2)."""
    rng = np.random.default_rng(seed)
    lengths = rng.triangular(SHORTEST, LONGEST + 1, LONGEST + 1, users).astype(int)
    share = 1 / np.arange(10, items + 10) ** 0.9
    flat = rng.choice(items, lengths.sum(), p=share / share.sum()).astype(np.int32)
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    return Sequences(np.arange(users), flat, offsets, np.arange(items))


def plain_step(run: SequenceTrainer, batch) -> None:
    """One step as it is usually written: pad to the longest, form all logits, ignore padding."""
    longest = max(items.shape[1] for items, *_ in batch)
    inputs, outputs = [], []
    for items, real, _, targets in batch:
        target = np.full(items.shape, -100)
        target[real] = targets
        pad = ((0, 0), (0, longest - items.shape[1]))
        inputs.append(np.pad(items, pad))
        outputs.append(np.pad(target, pad, constant_values=-100))
    x, y = torch.from_numpy(np.concatenate(inputs)), torch.from_numpy(np.concatenate(outputs))
    run.optimizer.zero_grad(set_to_none=True)
    logits = run.model.output(run.model(x))
    F.cross_entropy(logits.flatten(0, 1), y.flatten(), ignore_index=-100).backward()
    run.optimizer.step()


def nbrec_step(run: SequenceTrainer, batch) -> None:
    run.step(batch)


def flops_per_token(d: int, items: int, layers: int = 2, length: int = 58) -> float:
    """Useful floating-point operations of forward and backward, real tokens only."""
    block = 12 * d * d + length * d  # projections, FF; QK' and AV under the causal mask
    return 3 * 2 * (layers * block + d * items)


def peak_gflops(n: int = 3072) -> float:
    """The machine's fp32 matrix product rate, GFLOP/s."""
    a = torch.randn(n, n)
    a @ a
    times = []
    for _ in range(5):
        began = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - began)
    return 2 * n**3 / min(times) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--d-model", type=int, default=128)
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", choices=["nbrec", "plain"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    train = synthetic_sequences()
    settings = TrainSettings()
    run = SequenceTrainer(transformer(ITEMS, options.d_model).train(), settings)
    users = settings.batch_size * options.batches
    order = np.random.default_rng(0).permutation(len(train))[:users]
    work = list(batches(train, order, settings.batch_size, settings.micro_batches, 90))
    steps = {"plain": plain_step, "nbrec": nbrec_step}
    if options.memory:
        before = peak_megabytes()
        for batch in work[:2]:
            steps[options.memory](run, batch)
        print(peak_megabytes() - before)
        return
    targets = sum(len(m.targets) for batch in work for m in batch)
    epoch_targets = len(train.items) - len(train)
    seconds = {name: [] for name in steps}
    for name in steps:
        steps[name](run, work[0])
    for _ in range(options.rounds):
        for name, step in steps.items():
            began = time.perf_counter()
            for batch in work:
                step(run, batch)
            seconds[name].append(time.perf_counter() - began)
    peak = peak_gflops()
    print(f"d_model {options.d_model}, {torch.get_num_threads()} threads, peak {peak:.0f} GFLOP/s, "
          f"{epoch_targets:,} targets an epoch, median of {options.rounds}")
    print("| | s per epoch | share of peak | peak MB over start |\n| --- | --- | --- | --- |")
    for name, times in seconds.items():
        epoch = statistics.median(times) / targets * epoch_targets
        useful = flops_per_token(options.d_model, ITEMS) * epoch_targets
        memory = subprocess.run(
            [sys.executable, __file__, "--memory", name, "--d-model", str(options.d_model)],
            capture_output=True, text=True, check=True).stdout.strip()
        print(f"| {name} | {epoch:.1f} | {useful / epoch / 1e9 / peak:.2f} | {float(memory):.0f} |")
    ratio = statistics.median(seconds["plain"]) / statistics.median(seconds["nbrec"])
    print(f"nbrec is {ratio:.2f} times as fast as the plain loop")


if __name__ == "__main__":
    main()
