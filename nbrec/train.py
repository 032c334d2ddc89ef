"""One training loop for every neural model (thesis sections 3.2.2, 3.6.2 and 4.1)."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from scipy.sparse import csr_array
from torch import Tensor
from tqdm import tqdm

from nbrec import checks, files, metrics
from nbrec.losses import bpr, chunked_cross_entropy
from nbrec.models.graph import GraphModel
from nbrec.models.next_item import NextItemModel
from nbrec.sequences import Sequences

log = logging.getLogger(__name__)

STOP_ON = ("loss", "ndcg@10", "ndcg@10 with seen")
PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


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
        every_item: whether sequences that are longer than the model's history are cut into pieces
            (`Sequences.pieces`), so that all their items are targets, and not the last ones only.
        groups: a batch passes through the model in this many groups of similar length.
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
    groups: int = 4
    precision: str = "auto"
    device: str = "auto"
    seed: int = 0

    def __post_init__(self):
        checks.number("learning_rate", self.learning_rate, above=0)
        checks.number("weight_decay", self.weight_decay, low=0)
        for name in ("batch_size", "max_epochs", "groups"):
            checks.whole(name, getattr(self, name), low=1)
        checks.whole("patience", self.patience)
        checks.number("min_improvement", self.min_improvement, low=0, below=1)
        checks.choice("stop_on", self.stop_on, STOP_ON)
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
        for name, only in (("stop_on", "loss"), ("every_item", False)):
            if settings[name] == only:  # unnamed in records from before there was a choice
                del settings[name]
        return settings

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

    def autocast_dtype(self) -> torch.dtype | None:
        """The type of the products; None for plain fp32."""
        return PRECISIONS[self.resolved_precision()]


class CheckpointError(ValueError):
    """A checkpoint that cannot be used: it is damaged, or belongs to another run."""

    def __init__(self, path: Path, message: str):
        super().__init__(message)
        self.path = path

    def __reduce__(self):  # as it is, a ValueError from a worker process would lack the path
        return type(self), (self.path, str(self))


@dataclass
class History:
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


def fit(model: NextItemModel | GraphModel, train: Sequences, validation: Sequences,
        settings: TrainSettings | None = None, progress: bool = False,
        checkpoint: str | Path | None = None,
        users: tuple[np.ndarray, np.ndarray] | None = None) -> History:
    """Minimise a model's loss with AdamW and early stopping on the validation part.

    A sequence model gets the cross-entropy at every position. A sequence s_1 .. s_n gives n - 1
    predictions, (s_1) -> s_2 up to (s_1 .. s_(n-1)) -> s_n. The loss of a batch is their mean over
    all its sequences. The weights of the epoch with the lowest validation loss are restored at the
    end.

    Batches are drawn at random. Inside a batch the sequences are sorted by length and pass through
    the model in groups, whose gradients add up to that of the whole batch: little padding is
    computed, and it is dropped before the output layer, while every step stays the one that a
    plain loop would take.

    A graph model gets BPR: each interaction of the graph is held against an item, drawn anew in
    every epoch, that the user has not seen. It stops on how well it ranks the validation targets.

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
    for name, data in (("training", train), ("validation", validation)):
        if data.n_items != model.n_items:
            raise ValueError(f"the model knows {model.n_items} items, the {name} sequences "
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
    data = {"train": train.digest(), "validation": validation.digest()}
    model = model.to(settings.resolved_device())
    if isinstance(model, GraphModel):
        run = RankingRun(model, settings, data | {"graph": model.graph.digest()})
    else:
        if (model.late is None) != (users is None):
            raise ValueError("a model with late fusion needs the vectors of the users, and only "
                             f"that: got late={model.late}, users={type(users).__name__}")
        context = None
        if settings.every_item:
            if users is not None:
                raise ValueError("every_item=True: the vectors of the users belong to whole "
                                 "sequences; train a model with late fusion without it")
            train, context = train.pieces(model.max_length)
        early = {} if model.early is None else {"contexts": model.early.digest()}
        run = Run(model, settings, data | early, users, context)
    if checkpoint is not None:
        files.output_file(checkpoint)
    if checkpoint is not None and Path(checkpoint).exists():
        run.load(Path(checkpoint))
    bar = tqdm(total=settings.max_epochs, initial=len(run.history.seconds), unit="epoch",
               disable=not progress, desc="training")
    with bar:
        while len(run.history.seconds) < settings.max_epochs and run.waited <= settings.patience:
            began = time.perf_counter()
            loss = run.train_epoch(train, bar)
            validation_loss = run.mean_loss(validation)
            run.record(loss, validation_loss, time.perf_counter() - began)
            if checkpoint is not None:
                run.save(Path(checkpoint))
            bar.update()
            bar.set_postfix(train=f"{loss:.4f}", validation=f"{validation_loss:.4f}",
                            best=run.history.best_epoch + 1, waited=run.waited)
    run.restore_best()
    return run.history


def batches(sequences: Sequences, order: np.ndarray, batch_size: int, groups: int,
            max_length: int, context: np.ndarray | None = None
            ) -> Iterator[list[tuple[np.ndarray, ...]]]:
    """Cut users into batches, and each batch into groups of similar length.

    Args:
        order: int (U,), positions of the users in the order in which they are used.
        max_length: longest input; of longer sequences the last items are used.
        context: int (U,), the number of first inputs of each user after which no item is asked
            for; 0 by default.

    Yields:
        For each batch a list of groups (items, asked, places, targets): int64 (b, L) inputs padded
        on the right, bool (b, L) after which of them the next item is asked for, and for each of
        these, row by row, int64 (T,) its place in ``sequences.items`` and int64 (T,) the item
        after it.
    """
    for start in range(0, len(order), batch_size):
        users = order[start : start + batch_size]
        lengths = np.minimum(sequences.lengths[users] - 1, max_length)
        by_length = np.argsort(-lengths, kind="stable")
        batch = []
        for part in np.array_split(by_length, min(groups, len(users))):
            length = lengths[part]
            first = sequences.offsets[users[part] + 1] - 1 - length
            real = np.arange(length.max()) < length[:, None]
            rows = first[:, None] + np.arange(length.max())
            items = np.where(real, sequences.items[np.where(real, rows, 0)], 0)
            asked = real
            if context is not None:
                asked = real & (np.arange(length.max()) >= context[users[part], None])
            places = rows[asked]
            batch.append((items.astype(np.int64), asked, places,
                          sequences.items[places + 1].astype(np.int64)))
        yield batch


class Run:
    """A training run between two epochs: everything that a checkpoint has to hold."""

    def __init__(self, model: NextItemModel, settings: TrainSettings,
                 data: dict[str, str] | None = None,
                 users: tuple[np.ndarray, np.ndarray] | None = None,
                 context: np.ndarray | None = None):
        self.model, self.settings = model, settings
        self.data = data or {}  # digests of the sequences
        self.users = users
        self.context = context  # of the training part, as in `batches`
        self.device = settings.resolved_device()
        self.dtype = settings.autocast_dtype()
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay,
            fused=True)
        self.scaler = torch.amp.GradScaler(self.device, enabled=self.dtype == torch.float16)
        self.history = History()
        self.reference = float("inf")  # the loss of the last productive epoch
        self.waited = 0
        self.best = self._weights()

    def train_batches(self, train: Sequences, rng: np.random.Generator) -> Iterator[list]:
        """Every sequence once, in random order; the last array of a group has the targets."""
        return batches(train, rng.permutation(len(train)), self.settings.batch_size,
                       self.settings.groups, self.model.max_length, self.context)

    def validation_batches(self, validation: Sequences) -> Iterator[list]:
        """Every sequence once, neighbours of similar length."""
        return batches(validation, np.argsort(validation.lengths, kind="stable"),
                       self.settings.batch_size, 1, self.model.max_length)

    def loss(self, group: tuple[np.ndarray, ...]) -> Tensor:
        """The summed loss of a group."""
        items, asked, places, targets = (torch.from_numpy(a).to(self.device) for a in group)
        hidden = self.model(items)[asked]
        if self.model.late is not None:
            part = torch.from_numpy(self.users[0 if self.model.training else 1])
            hidden = self.model.late(hidden, part[places.cpu()].to(self.device))
        output = self.model.output
        return chunked_cross_entropy(hidden, output.weight, output.bias, targets)

    def train_epoch(self, train: Sequences, bar: tqdm) -> float:
        """One pass over the data in random order; the mean loss per example."""
        epoch = len(self.history.seconds)
        rng = np.random.default_rng((self.settings.seed, epoch))
        self.model.train()
        total, count = torch.zeros((), dtype=torch.float64, device=self.device), 0
        shown = time.perf_counter()
        # Dropout depends on the seed and the epoch alone, so that a resumed run repeats it.
        with seeded(self.settings.seed, epoch):
            for batch in self.train_batches(train, rng):
                loss, n = self.step(batch)
                if self.scaler.is_enabled():  # which takes no step on such a batch, and goes on
                    good = torch.isfinite(loss)
                    loss, n = torch.where(good, loss, 0.0), torch.where(good, n, 0)
                total, count = total + loss, count + n
                # Reading the loss makes a GPU wait, so only once a second, and only for a reader.
                if not bar.disable and time.perf_counter() > shown + 1:
                    bar.set_postfix(epoch=epoch + 1,
                                    loss=f"{float(total) / max(float(count), 1):.4f}")
                    shown = time.perf_counter()
        return self._finite(float(total) / float(count) if count else math.nan, "training")

    def step(self, batch: list) -> tuple[Tensor, int]:
        """One optimiser step on one batch; its summed loss and its number of examples."""
        n = sum(len(group[-1]) for group in batch)
        total = 0.0
        self.optimizer.zero_grad(set_to_none=True)
        for group in batch:
            with self._autocast():
                loss = self.loss(group)
            self.scaler.scale(loss / n).backward()
            total += loss.detach().double()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return total, n

    @torch.no_grad()
    def mean_loss(self, validation: Sequences) -> float:
        """What early stopping watches."""
        self.model.eval()
        if self.settings.stop_on != "loss":
            histories = validation.histories()
            last = None if self.users is None else torch.from_numpy(
                self.users[1][validation.offsets[1:] - 2])
            scores = self.model.score_histories(histories, last)
            seen = None if self.settings.stop_on.endswith("with seen") else histories
            ranks = metrics.target_ranks(scores, validation.targets(), seen)
            return self._finite(1 - metrics.ndcg(ranks, 10), "validation")
        total, count = 0.0, 0
        for batch in self.validation_batches(validation):
            for group in batch:
                with self._autocast():
                    total += float(self.loss(group))
                count += len(group[-1])
        return self._finite(total / count, "validation")

    def record(self, train_loss: float, validation_loss: float, seconds: float) -> None:
        history = self.history
        if validation_loss < min(history.validation_loss, default=float("inf")):
            history.best_epoch = len(history.seconds)
            self.best = self._weights()
        history.train_loss.append(train_loss)
        history.validation_loss.append(validation_loss)
        history.seconds.append(seconds)
        if validation_loss < self.reference * (1 - self.settings.min_improvement):
            self.reference, self.waited = validation_loss, 0
        else:
            self.waited += 1

    def restore_best(self) -> None:
        self.model.load_state_dict(self.best)
        self.model.eval()

    def save(self, path: Path) -> None:
        """Write the state atomically: a kill at any instant leaves the old file or the new one."""
        tensors = {f"model/{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"best/{k}": v for k, v in self.best.items()}
        for k, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{k}/{name}": value for name, value in state.items()}
        meta = {"settings": self._identity(), "history": asdict(self.history),
                "reference": self.reference, "waited": self.waited,
                "scaler": self.scaler.state_dict(),
                "optimizer": sorted(self.optimizer.state_dict()["state"])}
        # Clones: a tied output layer shares its memory, which the format does not allow.
        tensors = {k: v.detach().cpu().clone().contiguous() for k, v in tensors.items()}
        with files.atomic(path) as temporary:
            save_file(tensors, temporary, metadata={"run": json.dumps(meta)})

    def load(self, path: Path) -> None:
        """Go on from a checkpoint; nothing is changed if it cannot be used.

        Raises:
            CheckpointError: it is none, is damaged, or belongs to another run.
        """
        damaged = (f"{path} is not a whole checkpoint of a training run ({{}}): delete it to "
                   "train from the start")
        try:
            with safe_open(path, framework="pt", device=self.device) as file:
                meta = json.loads(file.metadata()["run"])
                tensors = {key: file.get_tensor(key) for key in file.keys()}
            found, history = meta["settings"], History(**meta["history"])
            reference, waited, scaler = meta["reference"], meta["waited"], meta["scaler"]
            stepped = [int(number) for number in meta["optimizer"]]
            checks.whole("waited", waited)
            epochs = {len(history.train_loss), len(history.validation_loss), len(history.seconds)}
            checks.whole("best_epoch", history.best_epoch, high=min(epochs) - 1)
            parameters = self.optimizer.param_groups[0]["params"]
            checks.indices(stepped, len(parameters), "parameter")
            if len(epochs) > 1 or "precision" not in found or math.isnan(reference):
                raise ValueError("settings or losses are missing")
        except (SafetensorError, OSError, LookupError, TypeError, AttributeError,
                ValueError) as error:
            raise CheckpointError(path, damaged.format(error)) from error
        asked = self._identity()
        differ = [f"  {key}: it has {found.get(key)}, asked for {asked.get(key)}"
                  for key in sorted(asked | found)
                  if found.get(key) != asked.get(key) and key != "precision"]
        if differ:
            raise CheckpointError(path, "\n".join([f"{path} belongs to another run:", *differ,
                                                   "Delete it, or name another checkpoint."]))
        # A tensor that is missing, or of another shape, would begin anew or be read past its end.
        shapes = {f"{part}/{k}": v.shape for k, v in self.model.state_dict().items()
                  for part in ("model", "best")}
        for number in stepped:
            shapes |= {f"optimizer/{number}/{name}": parameters[number].shape
                       for name in ("exp_avg", "exp_avg_sq")}
            shapes[f"optimizer/{number}/step"] = torch.Size([])
        wrong = [key for key in sorted(shapes.keys() | tensors.keys())
                 if key not in tensors or tensors[key].shape != shapes.get(key)]
        if wrong:
            raise CheckpointError(
                path, damaged.format(f"{wrong[0]} is missing or of another shape"))
        self.model.load_state_dict(below("model/", tensors))
        self.best = below("best/", tensors)
        state = self.optimizer.state_dict()
        for key, value in below("optimizer/", tensors).items():
            number, name = key.split("/")
            # AdamW keeps its step count on the CPU unless it is fused on a GPU.
            state["state"].setdefault(int(number), {})[name] = value
        self.optimizer.load_state_dict(state)
        if found["precision"] != asked["precision"]:
            log.warning("%s was begun in %s and goes on in %s: the result is that of neither "
                        "alone.", path, found["precision"], asked["precision"])
        if scaler and self.scaler.is_enabled():  # else it begins with its first scale
            self.scaler.load_state_dict(scaler)
        self.history, self.reference, self.waited = history, reference, waited

    def _finite(self, loss: float, part: str) -> float:
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the {part} loss of epoch {len(self.history.seconds) + 1} is {loss}: lower "
                f"learning_rate={self.settings.learning_rate}, or train with precision='fp32'"
            )
        return loss

    def _autocast(self):
        return torch.autocast(self.device, self.dtype) if self.dtype else nullcontext()

    def _weights(self) -> dict[str, Tensor]:
        return {k: v.detach().clone() for k, v in self.model.state_dict().items()}

    def _identity(self) -> dict:
        """What a checkpoint shares with the run that resumes it; stopping rules may differ, and
        the precision, with a warning."""
        free = ("max_epochs", "patience", "min_improvement", "groups")
        settings = {k: v for k, v in self.settings.described().items() if k not in free}
        shapes = {k: list(v.shape) for k, v in self.model.state_dict().items()}
        # The description holds what no shape tells: heads, dropout.
        return {**settings, **self.data, "shapes": shapes, "model": str(self.model)}


class RankingRun(Run):
    """A training run of a graph model: BPR over the interactions of its graph."""

    def __init__(self, model: GraphModel, settings: TrainSettings,
                 data: dict[str, str] | None = None):
        # Vectors of 64 numbers gain nothing from half precision, and sparse products lack it.
        if settings.precision == "auto":
            settings = replace(settings, precision="fp32")
        if settings.precision != "fp32":
            raise ValueError(f"precision={settings.precision!r}: a graph model trains in fp32; "
                             "expected fp32 or auto")
        super().__init__(model, settings, data)
        self.seen = model.graph.interactions

    def train_batches(self, train: Sequences, rng: np.random.Generator) -> Iterator[list]:
        """Every interaction once, in random order, with an item that the user has not seen."""
        users = np.repeat(np.arange(self.seen.shape[0]), np.diff(self.seen.indptr))
        order = rng.permutation(len(users))
        users, positive = users[order], self.seen.indices[order]
        negative = unseen(self.seen, users, rng)
        for start in range(0, len(users), self.settings.batch_size):
            part = slice(start, start + self.settings.batch_size)
            yield [(users[part], positive[part].astype(np.int64), negative[part])]

    @torch.no_grad()
    def mean_loss(self, validation: Sequences) -> float:
        """1 - NDCG of the validation targets over the whole catalogue.

        BPR's own loss rises again long before the ranking is at its best: it mostly counts how
        far easy items lie behind.
        """
        self.model.eval()
        histories = validation.histories()
        users, items = self.model.vectors(histories)
        scores = (users @ items.T).cpu().numpy()
        ranks = metrics.target_ranks(scores, validation.targets(), histories)
        return self._finite(1 - metrics.ndcg(ranks, validation.n_items), "validation")

    def loss(self, group: tuple[np.ndarray, ...]) -> Tensor:
        users, positive, negative = (torch.from_numpy(a).to(self.device) for a in group)
        h = self.model()
        user = h[self.model.n_items + users]
        return bpr((user * h[positive]).sum(1), (user * h[negative]).sum(1))


def unseen(seen: csr_array, users: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """For each user an item, drawn uniformly from those that they have not seen.

    Args:
        seen: sparse (U, V), sorted indices.
        users: int (T,).

    Returns:
        int64 (T,).

    Raises:
        ValueError: a user has seen everything.
    """
    n_items = seen.shape[1]
    counts = np.diff(seen.indptr)
    if len(counts) and counts.max() >= n_items:
        raise ValueError(f"user {int(counts.argmax())} has seen all {n_items} items: there is none "
                         "to hold against them. Leave the user out")
    taken = np.repeat(np.arange(len(counts)), counts) * n_items + seen.indices  # ascending
    drawn = rng.integers(0, n_items, len(users))
    again = np.arange(len(users))
    while len(again):
        keys = users[again] * n_items + drawn[again]
        place = np.minimum(np.searchsorted(taken, keys), len(taken) - 1)
        again = again[taken[place] == keys]
        drawn[again] = rng.integers(0, n_items, len(again))
    return drawn


def below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with a prefix, without it."""
    return {k[len(prefix):]: v for k, v in tensors.items() if k.startswith(prefix)}


@contextmanager
def seeded(*entropy: int) -> Iterator[None]:
    """Torch's generators seeded inside, and as they were outside."""
    with torch.random.fork_rng():
        torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))
        yield
