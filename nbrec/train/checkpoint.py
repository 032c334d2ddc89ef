"""A training run between two epochs as a file, so that it can go on as if it had never stopped."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from nbrec import checks, files
from nbrec.train.settings import LearningCurve

if TYPE_CHECKING:
    from nbrec.train.loop import Trainer

log = logging.getLogger(__name__)


class CheckpointError(ValueError):
    """A checkpoint that cannot be used: it is damaged, or belongs to another run."""

    def __init__(self, path: Path, message: str):
        super().__init__(message)
        self.path = path

    def __reduce__(self):  # as it is, a ValueError from a worker process would lack the path
        return type(self), (self.path, str(self))


def save(trainer: Trainer, path: Path) -> None:
    """Write the state atomically: a kill at any instant leaves the old file or the new one."""
    tensors = {f"model/{k}": v for k, v in trainer.model.state_dict().items()}
    tensors |= {f"best/{k}": v for k, v in trainer.best.items()}
    optimizer = trainer.optimizer.state_dict()["state"]
    for number, state in optimizer.items():
        tensors |= {f"optimizer/{number}/{name}": value for name, value in state.items()}
    meta = {"settings": trainer.identity(), "history": asdict(trainer.curve),
            "reference": trainer.reference, "waited": trainer.waited,
            "scaler": trainer.scaler.state_dict(), "optimizer": sorted(optimizer)}
    # Clones: a tied output layer shares its memory, which the format does not allow.
    tensors = {k: v.detach().cpu().clone().contiguous() for k, v in tensors.items()}
    with files.atomic(path) as temporary:
        save_file(tensors, temporary, metadata={"run": json.dumps(meta)})


def load(trainer: Trainer, path: Path) -> None:
    """Go on from a checkpoint; nothing is changed if it cannot be used.

    Raises:
        CheckpointError: it is none, is damaged, or belongs to another run.
    """
    damaged = f"{path} is not a whole checkpoint of a training run ({{}}): delete it to train anew"
    model, optimizer = trainer.model, trainer.optimizer
    parameters = optimizer.param_groups[0]["params"]
    try:
        with safe_open(path, framework="pt", device=trainer.device) as file:
            meta = json.loads(file.metadata()["run"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}
        found, curve = meta["settings"], LearningCurve(**meta["history"])
        reference, waited, scaler = meta["reference"], meta["waited"], meta["scaler"]
        stepped = [int(number) for number in meta["optimizer"]]
        checks.whole("waited", waited)
        epochs = {len(curve.train_loss), len(curve.validation_loss), len(curve.seconds)}
        checks.whole("best_epoch", curve.best_epoch, high=min(epochs) - 1)
        checks.indices(stepped, len(parameters), "parameter")
        if len(epochs) > 1 or "precision" not in found or math.isnan(reference):
            raise ValueError("settings or losses are missing")
    except (SafetensorError, OSError, LookupError, TypeError, AttributeError, ValueError) as error:
        raise CheckpointError(path, damaged.format(error)) from error
    asked = trainer.identity()
    differ = [f"  {key}: it has {found.get(key)}, asked for {asked.get(key)}"
              for key in sorted(asked | found)
              if found.get(key) != asked.get(key) and key != "precision"]
    if differ:
        raise CheckpointError(path, "\n".join([f"{path} belongs to another run:", *differ,
                                               "Delete it, or name another checkpoint."]))
    # A tensor that is missing, or of another shape, would begin anew or be read past its end.
    shapes = {f"{part}/{k}": v.shape for k, v in model.state_dict().items()
              for part in ("model", "best")}
    for number in stepped:
        shapes |= {f"optimizer/{number}/{name}": parameters[number].shape
                   for name in ("exp_avg", "exp_avg_sq")}
        shapes[f"optimizer/{number}/step"] = torch.Size([])
    wrong = [key for key in sorted(shapes.keys() | tensors.keys())
             if key not in tensors or tensors[key].shape != shapes.get(key)]
    if wrong:
        raise CheckpointError(path, damaged.format(f"{wrong[0]} is missing or of another shape"))
    model.load_state_dict(below("model/", tensors))
    trainer.best = below("best/", tensors)
    state = optimizer.state_dict()
    for key, value in below("optimizer/", tensors).items():
        place, name = key.split("/")
        # AdamW keeps its step count on the CPU unless it is fused on a GPU.
        state["state"].setdefault(int(place), {})[name] = value
    optimizer.load_state_dict(state)
    if found["precision"] != asked["precision"]:
        log.warning("%s was begun in %s and goes on in %s: the result is that of neither alone.",
                    path, found["precision"], asked["precision"])
    if scaler and trainer.scaler.is_enabled():  # else it begins with its first scale
        trainer.scaler.load_state_dict(scaler)
    trainer.curve, trainer.reference, trainer.waited = curve, reference, waited


def below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with a prefix, without it."""
    return {k[len(prefix):]: v for k, v in tensors.items() if k.startswith(prefix)}
