"""The loop that every neural model is trained in (thesis sections 3.2.2 and 4.1)."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from nbrec import files
from nbrec.sequences import Sequences
from nbrec.train import checkpoint as checkpoints
from nbrec.train.settings import PRECISIONS, LearningCurve, TrainSettings


class Trainer(ABC):
    """A model in training. Between two epochs it is all that a checkpoint has to hold.

    What a model learns from and how well it does is said by a subclass: ``train_batches``,
    ``loss`` and ``validate``.

    Args:
        model: trained in place, on the device of the settings.
        digests: of the data; a checkpoint belongs to them.
    """

    def __init__(self, model: nn.Module, settings: TrainSettings,
                 digests: dict[str, str] | None = None):
        self.settings, self.digests = settings, digests or {}
        self.device = settings.resolved_device()
        self.dtype = PRECISIONS[settings.resolved_precision()]
        self.model = model.to(self.device)
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay,
            fused=True)
        self.scaler = torch.amp.GradScaler(self.device, enabled=self.dtype == torch.float16)
        self.curve = LearningCurve()
        self.reference = float("inf")  # the loss of the last productive epoch
        self.waited = 0
        self.best = self._weights()

    @abstractmethod
    def train_batches(self, train: Sequences, rng: np.random.Generator) -> Iterator[list]:
        """Every example once, in random order: batches of micro-batches, which have ``targets``."""

    @abstractmethod
    def loss(self, micro_batch: Any) -> Tensor:
        """Summed over the targets."""

    @abstractmethod
    def validate(self, validation: Sequences) -> float:
        """What early stopping watches: the lower, the better."""

    def run(self, train: Sequences, validation: Sequences, progress: bool = False,
            checkpoint: str | Path | None = None) -> LearningCurve:
        """Epoch after epoch until one of the rules says stop; see ``fit``."""
        if checkpoint is not None:
            files.output_file(checkpoint)
        if checkpoint is not None and Path(checkpoint).exists():
            checkpoints.load(self, Path(checkpoint))
        settings = self.settings
        bar = tqdm(total=settings.max_epochs, initial=len(self.curve.seconds), unit="epoch",
                   disable=not progress, desc="training")
        with bar:
            while len(self.curve.seconds) < settings.max_epochs and (
                    self.waited <= settings.patience):
                began = time.perf_counter()
                loss = self._finite(self.train_epoch(train, bar), "training")
                validation_loss = self._finite(self.validate(validation), "validation")
                self.record(loss, validation_loss, time.perf_counter() - began)
                if checkpoint is not None:
                    checkpoints.save(self, Path(checkpoint))
                bar.update()
                bar.set_postfix(train=f"{loss:.4f}", validation=f"{validation_loss:.4f}",
                                best=self.curve.best_epoch + 1, waited=self.waited)
        self.restore_best()
        return self.curve

    def train_epoch(self, train: Sequences, bar: tqdm) -> float:
        """One pass over the data in random order; the mean loss per example."""
        epoch = len(self.curve.seconds)
        rng = np.random.default_rng((self.settings.seed, epoch))
        self.model.train()
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        count: Tensor | int = 0
        shown = time.perf_counter()
        # Dropout depends on the seed and the epoch alone, so that a resumed run repeats it.
        with seeded(self.settings.seed, epoch):
            for batch in self.train_batches(train, rng):
                loss, n = self.step(batch)
                if self.scaler.is_enabled():  # which takes no step on such a batch, and goes on
                    good = torch.isfinite(loss)
                    loss, count = torch.where(good, loss, 0.0), count + torch.where(good, n, 0)
                else:
                    count += n
                total = total + loss
                # Reading the loss makes a GPU wait, so only once a second, and only for a reader.
                if not bar.disable and time.perf_counter() > shown + 1:
                    bar.set_postfix(epoch=epoch + 1,
                                    loss=f"{float(total) / max(float(count), 1):.4f}")
                    shown = time.perf_counter()
        return float(total) / float(count) if count else math.nan

    def step(self, batch: list) -> tuple[Tensor, int]:
        """One optimiser step on one batch; its summed loss and its number of examples."""
        n = sum(len(micro_batch.targets) for micro_batch in batch)
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        self.optimizer.zero_grad(set_to_none=True)
        for micro_batch in batch:
            with self.autocast():
                loss = self.loss(micro_batch)
            self.scaler.scale(loss / n).backward()
            total += loss.detach()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return total, n

    def record(self, train_loss: float, validation_loss: float, seconds: float) -> None:
        """Note an epoch, and keep its weights if they are the best so far."""
        curve = self.curve
        if validation_loss < min(curve.validation_loss, default=float("inf")):
            curve.best_epoch = len(curve.seconds)
            self.best = self._weights()
        curve.train_loss.append(train_loss)
        curve.validation_loss.append(validation_loss)
        curve.seconds.append(seconds)
        if validation_loss < self.reference * (1 - self.settings.min_improvement):
            self.reference, self.waited = validation_loss, 0
        else:
            self.waited += 1

    def restore_best(self) -> None:
        """Put the best weights back, and the model in evaluation mode."""
        self.model.load_state_dict(self.best)
        self.model.eval()

    def identity(self) -> dict:
        """What a checkpoint shares with the run that resumes it; stopping rules may differ, and
        the precision, with a warning."""
        free = ("max_epochs", "patience", "min_improvement", "groups")
        settings = {k: v for k, v in self.settings.described().items() if k not in free}
        shapes = {k: list(v.shape) for k, v in self.model.state_dict().items()}
        # The description holds what no shape tells: heads, dropout.
        return {**settings, **self.digests, "shapes": shapes, "model": str(self.model)}

    def autocast(self) -> AbstractContextManager:
        """In which the products are of the precision of the settings."""
        return torch.autocast(self.device, self.dtype) if self.dtype else nullcontext()

    def _finite(self, loss: float, part: str) -> float:
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the {part} loss of epoch {len(self.curve.seconds) + 1} is {loss}: lower "
                f"learning_rate={self.settings.learning_rate}, or train with precision='fp32'"
            )
        return loss

    def _weights(self) -> dict[str, Tensor]:
        return {k: v.detach().clone() for k, v in self.model.state_dict().items()}


def check_parts(n_items: int, train: Sequences, validation: Sequences) -> None:
    """Whether a model with this catalogue can be trained on these sequences.

    Raises:
        ValueError: as in ``fit``.
    """
    for name, data in (("training", train), ("validation", validation)):
        if data.n_items != n_items:
            raise ValueError(f"the model knows {n_items} items, the {name} sequences "
                             f"{data.n_items}")
        if not len(data) or data.lengths.min() < 2:
            raise ValueError(f"the {name} part has {len(data)} sequences, the shortest of "
                             f"{min(data.lengths, default=0)} items: expected one sequence or "
                             "more, and two items or more in each, an input and a target")
    if not np.array_equal(train.catalogue, validation.catalogue):
        at = int(np.argmax(train.catalogue != validation.catalogue))
        raise ValueError(f"index {at} is movieId {train.catalogue[at]} in the training and "
                         f"{validation.catalogue[at]} in the validation sequences: expected one "
                         "catalogue; cut both parts from the same Sequences (Sequences.select)")


@contextmanager
def seeded(*entropy: int) -> Iterator[None]:
    """Torch's generators seeded inside, and as they were outside."""
    with torch.random.fork_rng():
        torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))
        yield
