"""A training epoch of the graph models at the thesis's size, beside torch-geometric's layers.

    python benchmarks/graphs.py [--steps 3] [--threads 1] [--peers]

An epoch is every interaction once, 2,048 to a step; each step passes messages over the whole graph.
Steps of all models take turns in one process, so that a busy moment hits all of them alike.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch
from transformer import synthetic_sequences

from nbrec.book.growth import peak_megabytes
from nbrec.models.graph import Graph
from nbrec.models.graph_layers import gat, gcn, lightgcn
from nbrec.train import GraphTrainer, TrainSettings

MODELS = {"lightgcn": lightgcn, "gcn": gcn, "gat": gat}


def peer(name: str, graph: Graph):
    """The same model with the layers of torch-geometric on a list of edges."""
    from torch_geometric import nn

    a = graph.matrix(False)
    own = torch.repeat_interleave(a.crow_indices().long().diff())
    edges = torch.stack([a.col_indices().long(), own])
    theirs = {"lightgcn": nn.LGConv, "gcn": lambda: nn.GCNConv(64, 64, bias=False),
              "gat": lambda: nn.GATConv(64, 16, heads=4, bias=False)}[name]

    class Layer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = theirs()

        def forward(self, h, graph):
            return self.layer(h, edges)

    model = MODELS[name](graph)
    model.layers = torch.nn.ModuleList([Layer(), Layer()])
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=3, help="timed steps of each model")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--peers", action="store_true", help="torch-geometric's layers as well")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    sequences = synthetic_sequences()
    graph = Graph([sequences[u] for u in range(len(sequences))], sequences.n_items)
    settings = TrainSettings(learning_rate=0.01, weight_decay=0.0, batch_size=2048)
    steps = -(-graph.interactions.nnz // settings.batch_size)
    print(f"{graph.n_nodes:,} nodes, {graph.interactions.nnz:,} interactions, {steps} steps an "
          f"epoch, {options.threads} thread(s)")
    made = {name: MODELS[name](graph) for name in options.models}
    if options.peers:
        made |= {f"{name}, torch-geometric": peer(name, graph) for name in options.models}
    runs = {name: GraphTrainer(model.train(), settings) for name, model in made.items()}
    work = {name: run.train_batches(sequences, np.random.default_rng(0))
            for name, run in runs.items()}
    seconds = {name: [] for name in runs}
    for name, run in runs.items():  # the first step makes matrices and optimiser states
        run.step(next(work[name]))
        print(f"{name}: peak {peak_megabytes():,.0f} MB so far")
    for _ in range(options.steps):
        for name, run in runs.items():
            batch = next(work[name])
            began = time.perf_counter()
            run.step(batch)
            seconds[name].append(time.perf_counter() - began)
    for name, taken in seconds.items():
        step = statistics.median(taken)
        print(f"{name:28s} {step * 1000:8.1f} ms a step, {step * steps:7.1f} s an epoch")


if __name__ == "__main__":
    main()
