"""The files of the pages "Playground" and "Movie space": models, films, vectors, a runtime.

Each is a gzip as base64 text in a few scripts, because a page that was opened from a folder may
load scripts from there and nothing else. See book/assets/play.js, which reads them.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import math
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd

# MIT licence. `npm pack` brings the package; what is taken out of it is checked.
RUNTIME = "onnxruntime-web@1.30.0"
RUNTIME_SHA256 = "d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71"
RUNTIME_FILES = {"runtime": "ort-wasm-simd-threaded.wasm",
                 "runtime-module": "ort-wasm-simd-threaded.mjs"}
RUNTIME_SCRIPT = "ort.wasm.min.js"
PART = 400_000  # characters of base64 in one script: the progress bar moves once for each
NETWORKS = ("transformer", "mamba", "xlstm", "xlstm+gat")
SPACES = ("minibert", "gat", "lightgcn", *NETWORKS)


def make(folder: Path, cache: Path) -> None:
    """Put everything that the two pages load into a folder.

    Without npm and without the archive that it brings, the runtime is missing: Item-KNN and the
    movie space work, and the page says of the networks what is not there.

    Args:
        folder: is made; holds scripts alone.
        cache: where finished files and the runtime are kept for the next build.
    """
    cache.mkdir(parents=True, exist_ok=True)
    runtime, ready = cache / f"runtime-{RUNTIME_SHA256[:16]}", cache / f"models-{fingerprint()}"
    for old in cache.glob("*/"):
        if old not in (runtime, ready):
            shutil.rmtree(old)
    for kept, steps in ((runtime, [write_runtime]), (ready, [write_models, write_films])):
        if not kept.exists():
            partial = cache / "partial"
            partial.mkdir()
            for step in steps:
                step(partial)
            if not any(partial.iterdir()):  # tried again by the next build
                partial.rmdir()
                continue
            partial.rename(kept)
        shutil.copytree(kept, folder, dirs_exist_ok=True)


def fingerprint() -> str:
    """A hash of what the files are made of."""
    from nbrec.play import bundle

    root = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256()
    for path in [Path(__file__), *(root / "nbrec").rglob("*.py"), *bundle.FOLDER.glob("*.*")]:
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def write(folder: Path, name: str, data: bytes) -> None:
    """One file in parts, as nbrecPlay.give takes them."""
    text = base64.b64encode(gzip.compress(data, 9, mtime=0)).decode()
    parts = math.ceil(len(text) / PART)
    for part in range(parts):
        piece = text[part * PART : (part + 1) * PART]
        (folder / f"{name}.{part}.js").write_text(
            f"nbrecPlay.give({json.dumps(name)},{part},{parts},{json.dumps(piece)})\n")


def write_models(folder: Path) -> None:
    """The networks as ONNX, and the item vectors of each space as whole numbers."""
    from nbrec.play import bundle, export, space

    for name in NETWORKS:
        path = export.export(bundle.load(name), folder / "model.onnx")
        write(folder, name, path.read_bytes())
        path.unlink()
    for name in SPACES:
        one = bundle.load(name)
        vectors, largest = space.vectors(one), 32767
        if one.others is not None:  # films outside the catalogue come after it
            vectors, largest = np.concatenate([vectors, one.others[1]]), bundle.COARSE
        write(folder, f"vectors-{name}", packed(vectors, largest))


def packed(vectors: np.ndarray, largest: int) -> bytes:
    """Their width and the bytes of a number, as int32; then whole numbers up to the largest."""
    kind = "<i1" if largest < 128 else "<i2"
    whole = np.round(largest * vectors / np.abs(vectors).max(1, keepdims=True)).astype(kind)
    head = np.array([vectors.shape[1], whole.itemsize], "<i4")
    return head.tobytes() + whole.tobytes()


def write_films(folder: Path) -> None:
    """Titles, rules to find them, the catalogue, training sequences and test users."""
    from nbrec.book import plots
    from nbrec.data import titles
    from nbrec.play import bundle, explore
    from nbrec.profiles import get_profile

    one, network = bundle.load("item-knn"), bundle.load(NETWORKS[0])
    table = bundle.films()
    row = {movie: number for number, movie in enumerate(table["movieId"])}
    genres = sorted({g for found in table["genres"] for g in found.split("|")}
                    - {"(no genres listed)"})
    place = {genre: number for number, genre in enumerate(genres)}
    names = [titles.split(title) for title in table["title"]]
    content = bundle.load("minibert")
    data = {
        "genres": genres,
        "films": [[movie, title, year, [place[g] for g in found.split("|") if g in place]]
                  for movie, (title, year), found in zip(
                      table["movieId"].tolist(), names, table["genres"], strict=True)],
        **for_letterboxd(table),
        **explore.rules(),
        "length": network.recommender.model.max_length,  # what the networks see of a history
        "lowest": get_profile(one.settings["profile"]).sequences.min_rating,  # stars, in training
        "labels": {name: plots.model_label(name) for name in (*NETWORKS, "item-knn", "minibert")},
        "catalogue": [row[movie] for movie in one.catalogue.tolist()],
        # Rows of the content vectors behind those of the catalogue.
        "others": [row[movie] for movie in content.others[0].tolist()],
        "train": [one.sequences[int(u)].tolist() for u in one.fold.train],
        "test": [one.sequences[int(u)].tolist() for u in one.fold.test],
        "popularity": np.round(one.popularity, 6).tolist(),
        "metrics": {name: bundle.load(name).metrics for name in (*NETWORKS, "item-knn")},
    }
    write(folder, "films", json.dumps(data, separators=(",", ":"), ensure_ascii=False).encode())


def for_letterboxd(films: pd.DataFrame) -> dict[str, object]:
    """What letterboxd.js needs besides natural titles and years (JSON).

    Args:
        films: movieId, title (MovieLens's).

    Returns:
        moved: rows of the films whose article stands behind the name; years: of films that have
        none in their title, by movieId; letterboxd: the rules of `nbrec.play.letterboxd` and
        `nbrec.play.matching`.
    """
    from nbrec.data import titles
    from nbrec.play import letterboxd, matching

    known = matching.YEARS
    return {
        "moved": [row for row, title in enumerate(films["title"]) if not title.startswith(
            titles.names(titles.split(title)[0])[0])],
        "years": {movie: known[movie, title] for movie, title in zip(
            films["movieId"].tolist(), films["title"], strict=True) if (movie, title) in known},
        "letterboxd": letterboxd.rules() | matching.rules(),
    }


def write_runtime(folder: Path) -> None:
    """onnxruntime for browsers, from its npm package; nothing where that cannot be had."""
    package, version = RUNTIME.split("@")
    archive = folder.parent / f"{package}-{version}.tgz"
    if not archive.exists():
        npm = shutil.which("npm")
        result = npm and subprocess.run([npm, "pack", "--silent", RUNTIME], cwd=archive.parent,
                                        capture_output=True, text=True)
        if not archive.exists():
            print(f"The playground is built without its networks: they need {RUNTIME}, and "
                  + (f"npm could not bring it.\n{result.stderr.strip()}" if npm else
                     "npm is not installed.")
                  + f"\nInstall Node.js, or put the package's archive at {archive}", flush=True)
            return
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != RUNTIME_SHA256:
        archive.unlink()
        sys.exit(f"{archive.name}: sha256 {found}; expected {RUNTIME_SHA256}. It was removed: "
                 "build again")
    with tarfile.open(archive) as tar:
        def member(name):
            return tar.extractfile(f"package/dist/{name}").read()

        for name, source in RUNTIME_FILES.items():
            write(folder, name, member(source))
        (folder / RUNTIME_SCRIPT).write_bytes(member(RUNTIME_SCRIPT))
