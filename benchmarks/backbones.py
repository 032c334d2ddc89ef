"""Seconds and memory of a training epoch of each sequence model, at the thesis's size.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/backbones.py --d-model 128 --batches 4 --rounds 3

All models train on the same batches with nbrec's loop and loss; only the blocks differ. They take
turns in one process; medians are scaled to the epoch. Peak memory is measured in a process of its
own each. With ``--peers`` the blocks of transformers (Mamba's slow path) and of the PyPI package
``xlstm`` (needs ``pip install xlstm``) are measured too: in nbrec's frame, and in a plain loop that
pads every batch and forms all logits.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

import numpy as np
import torch
from torch import nn
from transformer import (  # the script next to this one
    ITEMS,
    nbrec_step,
    plain_step,
    synthetic_sequences,
)

from nbrec.book.growth import peak_megabytes
from nbrec.models.next_item import NextItemModel, mamba, transformer, xlstm
from nbrec.train import SequenceTrainer, TrainSettings, batches


class Residual(nn.Module):
    """x + mixer(norm(x)) around a mixer of another package."""

    def __init__(self, mixer: nn.Module, d_model: int):
        super().__init__()
        self.norm, self.mixer = nn.LayerNorm(d_model), mixer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.mixer(self.norm(x))


def transformers_mamba(n_items: int, d_model: int) -> NextItemModel:
    from transformers import MambaConfig
    from transformers.models.mamba.modeling_mamba import MambaMixer
    config = MambaConfig(hidden_size=d_model, state_size=16, conv_kernel=8, expand=2,
                         time_step_rank=max(1, d_model // 16), num_hidden_layers=2)
    blocks = [Residual(MambaMixer(config, layer), d_model) for layer in range(2)]
    return NextItemModel(n_items, blocks, d_model, positions=False, final_norm=True)


def pypi_xlstm(n_items: int, d_model: int) -> NextItemModel:
    from xlstm import mLSTMLayer, mLSTMLayerConfig
    config = mLSTMLayerConfig(embedding_dim=d_model, context_length=90, num_heads=8)
    blocks = [Residual(mLSTMLayer(config), d_model) for _ in range(2)]
    return NextItemModel(n_items, blocks, d_model, positions=False, final_norm=True)


MODELS = {"transformer": transformer, "mamba": mamba, "xlstm": xlstm,
          "xlstm beck": lambda n, d_model: xlstm(n, d_model, form="beck"),
          "xlstm slstm": lambda n, d_model: xlstm(n, d_model, slstm_at=(0, 1))}
PEERS = {"transformers mamba": transformers_mamba, "PyPI xlstm": pypi_xlstm,
         "transformers mamba, plain loop": transformers_mamba,
         "PyPI xlstm, plain loop": pypi_xlstm}


def step(name: str, run: SequenceTrainer, batch: list) -> None:
    (plain_step if name.endswith("plain loop") else nbrec_step)(run, batch)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--d-model", type=int, default=128)
    parser.add_argument("--batches", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--models", nargs="*", default=["transformer", "mamba", "xlstm"])
    parser.add_argument("--micro-batches", type=int, default=4)
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    options = parser.parse_args()
    makers = MODELS | PEERS
    names = [options.memory] if options.memory else options.models
    names = names + list(PEERS) if options.peers else names
    train, settings = synthetic_sequences(), TrainSettings(micro_batches=options.micro_batches)
    users = settings.batch_size * options.batches
    order = np.random.default_rng(0).permutation(len(train))[:users]
    work = list(batches(train, order, settings.batch_size, settings.micro_batches, 90))
    runs = {name: SequenceTrainer(makers[name](ITEMS, d_model=options.d_model).train(), settings)
            for name in names}
    if options.memory:
        before = peak_megabytes()
        for batch in work[:2]:
            step(options.memory, runs[options.memory], batch)
        print(peak_megabytes() - before)
        return
    scale = (len(train.items) - len(train)) / sum(len(m.targets) for batch in work for m in batch)
    seconds = {name: [] for name in names}
    for name, run in runs.items():
        step(name, run, work[0])
    for _ in range(options.rounds):
        for name, run in runs.items():
            part = work[:1] if name in PEERS else work
            began = time.perf_counter()
            for batch in part:
                step(name, run, batch)
            seconds[name].append((time.perf_counter() - began) * len(work) / len(part))
    print(f"d_model {options.d_model}, {torch.get_num_threads()} threads, median of "
          f"{options.rounds}")
    print("| | s per epoch | times the Transformer | peak MB over start | weights in blocks |\n"
          "| --- | --- | --- | --- | --- |")
    first = statistics.median(seconds[names[0]])
    for name, times in seconds.items():
        memory = subprocess.run(
            [sys.executable, __file__, "--memory", name, "--d-model", str(options.d_model)],
            capture_output=True, text=True, check=True).stdout.strip()
        weights = sum(p.numel() for block in runs[name].model.blocks for p in block.parameters())
        print(f"| {name} | {statistics.median(times) * scale:.1f} | "
              f"{statistics.median(times) / first:.2f} | {float(memory):.0f} | {weights:,} |",
              flush=True)


if __name__ == "__main__":
    main()
