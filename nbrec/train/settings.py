"""How a model is trained, and what came of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field

import numpy as np
import torch

from nbrec import checks, metrics

# The type of the products; None for plain fp32.
PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class StopRule:
    """Early stopping on how well the last item of each validation sequence is ranked.

    Args:
        metric: called as ``metric(ranks, k)``; in [0, 1], and 1 is best.
        k: its cut-off.
        with_seen: whether items of the history are ranked, too.
    """

    metric: Callable[[np.ndarray, int], float]
    k: int
    with_seen: bool = False

    def loss(self, scores: np.ndarray, targets: np.ndarray, histories: list[np.ndarray]) -> float:
        """1 - metric: scores float (B, V), targets int (B,), histories of B users."""
        seen = None if self.with_seen else histories
        return 1 - self.metric(metrics.target_ranks(scores, targets, seen), self.k)


# None: the loss of training itself.
STOP_RULES = {"loss": None, "ndcg@10": StopRule(metrics.ndcg, 10),
              "ndcg@10 with seen": StopRule(metrics.ndcg, 10, with_seen=True)}


@dataclass(frozen=True)
class TrainSettings:
    """How a model is trained.

    Args:
        learning_rate: AdamW's step size; 1e-4 in the thesis.
        weight_decay: AdamW's decoupled weight decay.
        batch_size: sequences per optimiser step; for a graph model, interactions.
        max_epochs: upper bound on the passes over the data.
        patience: training stops when more than this many epochs in a row were unproductive.
        min_improvement: an epoch is productive if its validation loss is below
            (1 - min_improvement) times that of the last productive epoch (thesis section 4.1).
        stop_on: what early stopping watches on the validation part: "loss", the mean over all
            positions, or "ndcg@10", 1 - NDCG@10 of each sequence's last item, seen items left out;
            with "ndcg@10 with seen" they are ranked, too. Graph models have a rule of their own.
        every_item: whether sequences that are longer than the model's history are cut into windows
            (`Sequences.windows`), so that all their items are targets, and not the last ones only.
        micro_batches: a batch passes through the model in this many parts of similar length.
        precision: "fp32", "bf16", "fp16", or "auto": fp32 on a CPU, bf16 on a GPU that has it,
            otherwise fp16 with loss scaling.
        device: "cpu", "cuda", or "auto".
        seed: decides initial weights, order of batches and dropout.
    """

    learning_rate: float = 1e-4
    weight_decay: float = 0.01
    batch_size: int = 128
    max_epochs: int = 200
    patience: int = 5
    min_improvement: float = 0.01
    stop_on: str = "loss"
    every_item: bool = False
    micro_batches: int = 4
    precision: str = "auto"
    device: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        checks.number("learning_rate", self.learning_rate, above=0)
        checks.number("weight_decay", self.weight_decay, low=0)
        for name in ("batch_size", "max_epochs", "micro_batches"):
            checks.whole(name, getattr(self, name), low=1)
        checks.whole("patience", self.patience)
        checks.number("min_improvement", self.min_improvement, low=0, below=1)
        checks.choice("stop_on", self.stop_on, tuple(STOP_RULES))
        checks.choice("every_item", self.every_item, (False, True))
        checks.choice("precision", self.precision, ("auto", *PRECISIONS))
        checks.choice("device", self.device, ("auto", "cpu", "cuda"))
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("device='cuda': torch finds no GPU here; expected one, or "
                             "device='auto', which takes what there is")
        checks.whole("seed", self.seed)

    def described(self) -> dict:
        """What decides the numbers, as records and checkpoints keep it.

        The precision is the one that is used, so that runs of two precisions are never taken for
        one; where a run was computed is told by its provenance.
        """
        settings = asdict(self) | {"precision": self.resolved_precision()}
        del settings["device"]
        settings["groups"] = settings.pop("micro_batches")  # its name in records from the start on
        for name, only in (("stop_on", "loss"), ("every_item", False)):
            if settings[name] == only:  # unnamed in records from before there was a choice
                del settings[name]
        return settings

    @property
    def stop_rule(self) -> StopRule | None:
        """What ``stop_on`` means; None for the loss of training."""
        return STOP_RULES[self.stop_on]

    def resolved_device(self) -> str:
        """"cpu" or "cuda"."""
        if self.device != "auto":
            return self.device
        return "cuda" if torch.cuda.is_available() else "cpu"

    def resolved_precision(self) -> str:
        """A key of ``PRECISIONS``."""
        if self.precision != "auto":
            return self.precision
        if self.resolved_device() == "cpu":
            return "fp32"
        # Compute capability 8.0 brought bf16; a T4 (7.5) only emulates it.
        return "bf16" if torch.cuda.get_device_capability()[0] >= 8 else "fp16"


@dataclass
class LearningCurve:
    """What happened in each epoch.

    Args:
        train_loss: mean loss per predicted item (cross-entropy) or pair of items (BPR), in nats.
        validation_loss: the same of the validation part; of a graph model 1 - NDCG of its targets,
            and 1 - NDCG@10 where ``stop_on`` says so.
        seconds: time of each epoch, training and validation.
        best_epoch: index of the epoch whose weights were kept.
    """

    train_loss: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    best_epoch: int = -1
