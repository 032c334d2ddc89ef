"""What a training step takes: parameters, memory and operations by formula, and the step itself.

"Wide" numbers have 4 bytes. On a GPU in mixed precision what products read ("half") has 2, and the
"mask" of dropout 1. A "copy" is a wide one that mixed precision alone needs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.profiler import ProfilerActivity, profile

from nbrec.losses import CHUNK_LOGITS
from nbrec.models import mlstm, selective_scan
from nbrec.models.next_item import NextItemModel
from nbrec.profiles import Profile
from nbrec.train import MicroBatch, SequenceTrainer, TrainSettings

BYTES = {False: {"half": 4, "wide": 4, "mask": 4, "copy": 0},
         True: {"half": 2, "wide": 4, "mask": 1, "copy": 4}}  # of the kinds, by mixed precision


@dataclass(frozen=True)
class Size:
    """A backbone and its shape; ``contexts`` are the widths of the vectors of an early fusion."""

    backbone: str
    n_items: int = 13_318
    d_model: int = 512
    n_layers: int = 2
    n_heads: int = 8
    d_ff: int = 2048
    d_state: int = 16
    d_conv: int = 8
    expand: int = 2
    contexts: tuple[int, ...] = ()

    def letters(self) -> tuple[int, ...]:
        """d, e, heads, Mamba's states and rank, and the two widths of an early fusion."""
        joined = (len(self.contexts) + 1) * self.d_model if self.contexts else 0
        return (self.d_model, self.expand * self.d_model, self.n_heads, self.d_state,
                math.ceil(self.d_model / 16), joined, 2 * joined // 3)


def parameters(s: Size) -> dict[str, int]:
    """Trained numbers by part of the model."""
    d, e, h, n, r, j, m = s.letters()
    block = {
        "transformer": 4 * d * d + 2 * d * s.d_ff + s.d_ff + 5 * d,
        "mamba": 2 * d + 3 * d * e + e * (r + 2 * n) + (r + 1) * e + e * (s.d_conv + 1 + n + 1),
        "xlstm": 2 * d + 2 * d * e + 4 * e * e + e + 2 * h * (e + 1)}[s.backbone]
    last = s.n_items if s.backbone == "transformer" else 2 * d  # a bias, or a norm before
    fusion = sum(2 * c + (c + 1) * d for c in s.contexts) + (j + 1) * m + (m + 1) * d
    return {"embedding": s.n_items * d, "blocks": s.n_layers * block,
            "fusion": fusion if s.contexts else 0, "output": s.n_items * d + last}


def kept(s: Size, length: int) -> dict[str, dict[str, float]]:
    """What is kept for the backward pass: part -> kind -> numbers per position, N > 64 in xLSTM."""
    d, e, h, n, r, j, m = s.letters()
    entering = math.ceil(length / selective_scan.CHUNK) + 1  # states of Mamba
    chunks = math.ceil(length / mlstm.CHUNK)
    blocks: dict[str, dict[str, float]] = {
        "transformer": {"half": 6 * d + s.d_ff, "mask": 2 * d, "wide": 2 * d + h + 4},
        "mamba": {"half": d + 8 * e + e * (s.d_conv - 1) / length + r + 2 * n, "mask": e,
                  "wide": d + 2 + 2 * e + 2 * n + e * n * entering / length, "copy": e},
        "xlstm": {"half": d + 4 * e, "mask": d,
                  "wide": d + 2 + 10 * e + 12 * h + 4 * h * length / chunks
                  + 2 * chunks * e * e / h / length}}
    ends: dict[str, float] = (
        {"mask": d, "wide": 2} if s.backbone == "transformer" else {"wide": d + 4})
    known = sum(s.contexts)
    fusion: dict[str, float] = {"half": known + j + 2 * m, "mask": m,
                                "wide": known + 2 * len(s.contexts)}
    block = {kind: s.n_layers * v for kind, v in blocks[s.backbone].items()}
    return {"blocks": block, "first and last layer": ends, "fusion": fusion if s.contexts else {}}


def memory(s: Size, sequences: int, length: int, groups: int = 1, device: str = "cpu",
           mixed: bool = False) -> dict[str, float]:
    """Bytes at the highest point of a training step, term by term.

    Args:
        sequences: in a batch, all of the same length.
        groups: in how many parts a batch passes through the model.
        device: decides how many logits are held at once.
        mixed: mixed precision, instead of wide numbers throughout.
    """
    counts, b = parameters(s), BYTES[mixed]
    every, matrix = sum(counts.values()), s.n_items * s.d_model
    positions = math.ceil(sequences / groups) * length
    made: dict[str, float] = {
        "weights": 4 * every, "weights of the best epoch": 4 * every,
        "moments of AdamW": 8 * every, "gradients": 4 * every if groups > 1 else 0,
        "frozen vectors": 4 * s.n_items * sum(s.contexts),
        "half copies of weights": 2 * (every - counts["embedding"]) if mixed else 0}
    for part, kinds in kept(s, length).items():
        made[f"kept by: {part}"] = positions * sum(b[kind] * v for kind, v in kinds.items())
    # At the highest point either the loss is formed, or the backward pass is in its widest layer.
    logits = min(CHUNK_LOGITS[device], positions * s.n_items) * (4 + 2 * mixed)
    widest = {"transformer": s.d_ff, "mamba": 4 * s.d_model, "xlstm": 6 * s.d_model}[s.backbone]
    made["loss"] = max(4 * (2 * positions * s.d_model + 2 * matrix) + logits,
                       2 * positions * widest * b["half"] + 4 * matrix)
    return {name: value for name, value in made.items() if value}


def flops(s: Size, length: float) -> dict[str, float]:
    """Operations of all products for one position, forwards; training takes three times as many.

    A row times an a x b matrix takes 2ab. Attention and chunks count as full squares. Norms, gates
    and Mamba's scan, which go number by number, do not count.
    """
    d, e, h, n, r, j, m = s.letters()
    chunks, known = math.ceil(length / mlstm.CHUNK), sum(s.contexts)
    block = {"transformer": 8 * d * d + 4 * d * s.d_ff + 4 * length * d,
             "mamba": 6 * d * e + 2 * e * (2 * r + 2 * n + s.d_conv),
             "xlstm": 4 * d * e + 8 * e * e + 4 * h * e + 4 * e * length / chunks
             + (4 * e * e / h + 2 * e if chunks > 1 else 0)}[s.backbone]
    return {"blocks": s.n_layers * block, "fusion": 2.0 * (d * known + j * m + m * d),
            "output layer": 2.0 * d * s.n_items}


STANDING = ("weights", "weights of the best epoch", "moments of AdamW", "frozen vectors")
SCAN_PASSES = 41  # numbers read or written for each number of Mamba's states, by torch operations
T4 = {"fp16": 65e12, "fp32": 8.1e12, "bandwidth": 320e9}  # operations, bytes a second: data sheet


def settings(profile: Profile) -> pd.DataFrame:
    """The settings of a profile that decide what a training takes, in one column."""
    cut, own = profile.sequences, profile.models["transformer"]
    rows = {
        "data": profile.dataset, "share of the users": cut.random_sample,
        "fewest films": cut.min_length, "most films": cut.max_length,
        "least rating": cut.min_rating,
        "folds": len(profile.folds_run), "width d": own["d_model"], "blocks": own["n_layers"],
        "inner width of the FF": own["d_ff"],
        "inner width of Mamba and xLSTM, in d": profile.models["mamba"]["expand"],
        "learning rate": f"{own['learning_rate']:g}", "sequences in a batch": own["batch_size"],
        "patience": own["patience"], "least improvement": own["min_improvement"],
        "most epochs": own["max_epochs"]}
    return pd.DataFrame({f"profile {profile.name}": [
        v if isinstance(v, str) else f"{v:,g}" for v in rows.values()]}, index=list(rows))


def kept_bytes(s: Size, length: int, mixed: bool = False) -> float:
    """Bytes that the forward pass keeps of each item of a history."""
    return sum(BYTES[mixed][kind] * v for kinds in kept(s, length).values()
               for kind, v in kinds.items())


def largest(s: Size, length: int, room: float = 15e9) -> int:
    """The most sequences in one piece that fit into so many bytes of a GPU, by halving."""
    low, high = 1, 2**16
    while high - low > 1:
        middle = (low + high) // 2
        fits = sum(memory(s, middle, length, 1, "cuda", mixed=True).values()) <= room
        low, high = (middle, high) if fits else (low, middle)
    return low


def beside_processes(steps: pd.DataFrame, sizes: Mapping[str, Size]) -> pd.DataFrame:
    """Peak memory of whole processes beside the formula.

    Args:
        steps: of `growth.load`.
        sizes: model -> what was measured.

    Returns:
        index model; "MB on paper", "MB of the process", "process / paper", means over the rows.
    """
    rows = []
    for r in steps[steps["model"].isin(sizes)].itertuples():
        made = memory(sizes[r.model], int(r.batch), int(r.length), 1)
        paper = sum(v for k, v in made.items() if k not in STANDING) + made["moments of AdamW"]
        rows.append((r.model, paper / 1e6, r.megabytes * 2**20 / 1e6))
    table = pd.DataFrame(rows, columns=["model", "MB on paper", "MB of the process"])
    table = table.groupby("model", sort=False).mean()
    return table.assign(**{"process / paper": table["MB of the process"] / table["MB on paper"]})


def estimate(s: Size, tera: float, targets: int, utilisation: tuple[float, float], epochs: float,
             most: int) -> dict[str, float]:
    """How long ten folds should take on a T4.

    Args:
        tera: 10^12 operations of an epoch.
        targets: of an epoch.
        utilisation: least and most share of the card's half-precision peak.
        epochs: of a fold, NaN if not known.
        most: epochs that a fold may have.

    Returns:
        seconds of an epoch (least and most in fp16, the scan's part of the most, fp32 at 70%), and
        hours of ten folds with so many epochs and with the most.
    """
    states = s.n_layers * s.expand * s.d_model * s.d_state * targets
    scan = 4 * SCAN_PASSES * states / T4["bandwidth"] if s.backbone == "mamba" else 0.0
    fast, slow = (tera * 1e12 / T4["fp16"] / u for u in reversed(utilisation))
    slow += scan  # without a kernel that keeps the scan inside the card
    return {"s an epoch, least": fast, "most": slow, "of it the scan": scan,
            "s an epoch, fp32 at 70%": tera * 1e12 / T4["fp32"] / 0.7 + scan,
            "epochs of our reference": epochs, "hours, least": 10 * epochs * fast / 3600,
            "hours, most": 10 * epochs * slow / 3600,
            f"hours at {most} epochs, least": 10 * most * fast / 3600,
            f"hours at {most} epochs, most": 10 * most * slow / 3600}


def step(net: NextItemModel, sequences: int, length: int, groups: int = 1, device: str = "cpu"
         ) -> dict[str, Any]:
    """A real training step with random histories, and what it took.

    Returns:
        parameters (count), loss (nats per target), finite (all gradients), and "bytes": the
        highest memory by torch's own count, above that of the model and AdamW's moments.
    """
    trainer = SequenceTrainer(net.train(), TrainSettings(micro_batches=groups, device=device))
    items = np.random.default_rng(0).integers(0, net.n_items, (sequences, length + 1))
    batch = [MicroBatch(part[:, :-1], np.ones((len(part), length), bool),
                        np.arange(len(part) * length), part[:, 1:].ravel())
             for part in np.array_split(items, groups)]
    while not trainer.optimizer.state:  # loss scaling may leave out the first steps
        trainer.step([MicroBatch(items[:1, :2], np.ones((1, 2), bool), np.arange(2),
                                 items[0, 1:3])])
    trainer.optimizer.zero_grad(set_to_none=True)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        loss, n = trainer.step(batch)
        high = torch.cuda.max_memory_allocated() - before
    else:
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
            loss, n = trainer.step(batch)
        events = [e for e in watched.profiler.kineto_results.events() if e.name() == "[memory]"]
        events.sort(key=lambda event: event.start_ns())
        high = int(np.cumsum([event.nbytes() for event in events]).max())
    return {"parameters": sum(p.numel() for p in net.parameters()), "loss": float(loss) / n,
            "finite": all(p.grad is not None and bool(p.grad.isfinite().all())
                          for p in net.parameters()), "bytes": high}
