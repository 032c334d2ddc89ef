"""What sequence models do in training: cross-entropy after every item (thesis section 3.2.2)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from nbrec.losses import chunked_cross_entropy
from nbrec.models.next_item import NextItemModel
from nbrec.sequences import Sequences
from nbrec.train.loop import Trainer, check_parts
from nbrec.train.settings import LearningCurve, TrainSettings


def fit(model: NextItemModel, train: Sequences, validation: Sequences,
        settings: TrainSettings | None = None, progress: bool = False,
        checkpoint: str | Path | None = None,
        users: tuple[np.ndarray, np.ndarray] | None = None) -> LearningCurve:
    """Minimise a sequence model's cross-entropy with AdamW and early stopping.

    The loss stands at every position. A sequence s_1 .. s_n gives n - 1 predictions, (s_1) -> s_2
    up to (s_1 .. s_(n-1)) -> s_n. The loss of a batch is their mean over all its sequences. The
    weights of the epoch with the lowest validation loss are restored at the end.

    Batches are drawn at random. Inside a batch the sequences are sorted by length and pass through
    the model in micro-batches, whose gradients add up to that of the whole batch: little padding is
    computed, and it is dropped before the output layer, while every step stays the one that a
    plain loop would take.

    Args:
        model: trained in place; left on the device it was trained on, in evaluation mode.
        train, validation: sequences with the model's catalogue.
        progress: show a bar with losses, time per epoch and time left to ``max_epochs``.
        checkpoint: a .safetensors file, written after every epoch. If it exists, training goes on
            after its last epoch, with the same result as if it had never stopped.
        users: of a model with late fusion: for train and validation float32 (M, d_user), the
            user's vector after each item of ``items``; the row of a last item is not used.

    Raises:
        ValueError: the catalogues do not fit, a sequence has fewer than two items, or there are no
            sequences.
        CheckpointError: the checkpoint is damaged, or belongs to other settings, another model or
            other data.
        FloatingPointError: the loss is not a number.
    """
    settings = settings or TrainSettings()
    check_parts(model.n_items, train, validation)
    if (model.late is None) != (users is None):
        raise ValueError("a model with late fusion needs the vectors of the users, and only "
                         f"that: got late={model.late}, users={type(users).__name__}")
    digests = {"train": train.digest(), "validation": validation.digest()}
    if model.early is not None:
        digests["contexts"] = model.early.digest()
    context = None
    if settings.every_item:
        if users is not None:
            raise ValueError("every_item=True: the vectors of the users belong to whole "
                             "sequences; train a model with late fusion without it")
        train, context = train.windows(model.max_length)
    trainer = SequenceTrainer(model, settings, digests, users, context)
    return trainer.run(train, validation, progress, checkpoint)


class MicroBatch(NamedTuple):
    """Sequences of similar length that pass through the model together.

    Args:
        items: int64 (b, L), the inputs, padded on the right.
        asked: bool (b, L), after which of them the next item is asked for.
        places: int64 (T,), where in ``Sequences.items`` each of these stands, row by row.
        targets: int64 (T,), the item after it.
    """

    items: np.ndarray
    asked: np.ndarray
    places: np.ndarray
    targets: np.ndarray


def batches(sequences: Sequences, order: np.ndarray, batch_size: int, micro_batches: int,
            max_length: int, context: np.ndarray | None = None) -> Iterator[list[MicroBatch]]:
    """Cut users into batches, and each batch into micro-batches of similar length.

    Args:
        order: int (U,), positions of the users in the order in which they are used.
        max_length: longest input; of longer sequences the last items are used.
        context: int (U,), the number of first inputs of each user after which no item is asked
            for; 0 by default.
    """
    for start in range(0, len(order), batch_size):
        users = order[start : start + batch_size]
        lengths = np.minimum(sequences.lengths[users] - 1, max_length)
        by_length = np.argsort(-lengths, kind="stable")
        batch = []
        for part in np.array_split(by_length, min(micro_batches, len(users))):
            length = lengths[part]
            first = sequences.offsets[users[part] + 1] - 1 - length
            real = np.arange(length.max()) < length[:, None]
            rows = first[:, None] + np.arange(length.max())
            items = np.where(real, sequences.items[np.where(real, rows, 0)], 0)
            asked = real
            if context is not None:
                asked = real & (np.arange(length.max()) >= context[users[part], None])
            places = rows[asked]
            batch.append(MicroBatch(items.astype(np.int64), asked, places,
                                    sequences.items[places + 1].astype(np.int64)))
        yield batch


class SequenceTrainer(Trainer):
    """A sequence model in training.

    Args:
        users: as in ``fit``.
        context: of the training part, as in ``batches``.
    """

    model: NextItemModel

    def __init__(self, model: NextItemModel, settings: TrainSettings,
                 digests: dict[str, str] | None = None,
                 users: tuple[np.ndarray, np.ndarray] | None = None,
                 context: np.ndarray | None = None):
        super().__init__(model, settings, digests)
        self.users, self.context = users, context

    def train_batches(self, train: Sequences, rng: np.random.Generator
                      ) -> Iterator[list[MicroBatch]]:
        return batches(train, rng.permutation(len(train)), self.settings.batch_size,
                       self.settings.micro_batches, self.model.max_length, self.context)

    def loss(self, micro_batch: MicroBatch) -> Tensor:
        items, asked, places, targets = (torch.from_numpy(a).to(self.device) for a in micro_batch)
        hidden = self.model(items)[asked]
        if self.model.late is not None and self.users is not None:
            users = torch.from_numpy(self.users[0 if self.model.training else 1])
            hidden = self.model.late(hidden, users[places.cpu()].to(self.device))
        output = self.model.output
        return chunked_cross_entropy(hidden, output.weight, output.bias, targets)

    @torch.no_grad()
    def validate(self, validation: Sequences) -> float:
        self.model.eval()
        if rule := self.settings.stop_rule:
            histories, users = validation.histories(), None
            if self.users is not None:
                users = torch.from_numpy(self.users[1][validation.offsets[1:] - 2])
            scores = self.model.score_histories(histories, users)
            return rule.loss(scores, validation.targets(), histories)
        total, count = 0.0, 0
        # Neighbours of similar length.
        for [micro_batch] in batches(validation, np.argsort(validation.lengths, kind="stable"),
                                     self.settings.batch_size, 1, self.model.max_length):
            with self.autocast():
                total += float(self.loss(micro_batch))
            count += len(micro_batch.targets)
        return total / count
