"""Seconds of a Transformer's training epoch here and in RecTools' SASRec, in turn in one process.

    pip install "rectools[torch]==0.19.0"      # in an environment of its own
    OMP_WAIT_POLICY=PASSIVE PYTHONPATH=. python benchmarks/peer_rectools.py --users 1284

Same sequences, width 128, 2 blocks, 8 heads, batches of 128, at most 90 items, cross-entropy over
the whole catalogue at every position. RecTools' epoch is its `fit` with one epoch less its `fit`
on two users, which holds the start of the trainer.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import time
import warnings

import numpy as np
import pandas as pd
import torch
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel
from rectools.models.nn.item_net import IdEmbeddingsItemNet
from transformer import synthetic_sequences

from nbrec.models.next_item import transformer
from nbrec.sequences import Sequences
from nbrec.train import SequenceTrainer, TrainSettings, batches

WIDTH, LONGEST, BATCH = 128, 90, 128


def seen_only(train: Sequences) -> Sequences:
    """The same sequences over the films that occur in them: RecTools knows no others."""
    catalogue, items = np.unique(train.items, return_inverse=True)
    return Sequences(train.users, items.astype(np.int32), train.offsets, catalogue)


def ours(train: Sequences) -> float:
    net = transformer(train.n_items, WIDTH).train()
    trainer = SequenceTrainer(net, TrainSettings(batch_size=BATCH))
    order = np.random.default_rng(0).permutation(len(train))
    began = time.perf_counter()
    for batch in batches(train, order, BATCH, trainer.settings.micro_batches, LONGEST):
        trainer.step(batch)
    return time.perf_counter() - began


def rectools(train: Sequences) -> float:
    owner = np.repeat(train.users, train.lengths)
    place = np.arange(len(train.items))
    when = pd.Timestamp("2020-01-01") + pd.to_timedelta(place, "s")
    seen = pd.DataFrame({Columns.User: owner, Columns.Item: train.items, Columns.Weight: 1.0,
                         Columns.Datetime: when})
    model = SASRecModel(n_factors=WIDTH, n_blocks=2, n_heads=8, session_max_len=LONGEST,
                        batch_size=BATCH, epochs=1, loss="softmax", lr=1e-4, dropout_rate=0.1,
                        dataloader_num_workers=0, verbose=0, deterministic=False,
                        train_min_user_interactions=2,
                        item_net_block_types=(IdEmbeddingsItemNet,))
    began = time.perf_counter()
    model.fit(Dataset.construct(seen))
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=1_284)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    data = synthetic_sequences()
    train = seen_only(data.select(np.arange(options.users)))
    few = train.select(np.arange(2))
    mine, theirs = [], []
    for _ in range(options.rounds):
        mine.append(ours(train))
        theirs.append(rectools(train) - rectools(few))
    a, b = statistics.median(mine), statistics.median(theirs)
    print(f"{options.users:,} users, {torch.get_num_threads()} threads, medians of "
          f"{options.rounds}: nbrec {a:.1f} s, RecTools {b:.1f} s over "
          f"{train.n_items:,} films; RecTools takes {b / a:.2f} times as long")


if __name__ == "__main__":
    main()
