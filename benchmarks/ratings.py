"""Seconds and memory from a ratings.csv of ml-latest's size to sequences, on synthetic data.

    python benchmarks/ratings.py                # full size: 33,832,162 ratings
    python benchmarks/ratings.py --scale 0.01   # a quick look

The file is made once, from a seed, and kept. It has ml-latest's numbers of users, movies and
ratings and its skew: lengths of histories are log-normal from 1 to several thousand, popularity
follows a shifted Zipf law, ratings come in half stars, and times in sessions of quick clicks.
Every case is measured in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd

RATINGS, USERS, MOVIES = 33_832_162, 330_975, 86_537  # ml-latest, July 2023
STARS = np.array([16, 31, 16, 66, 50, 196, 127, 265, 88, 145], dtype=float)  # 0.5 to 5, per mille
LIMIT_SECONDS, LIMIT_GIB = 60, 6
SEED = 0


def history_lengths(users: int, ratings: int, longest: int, rng) -> np.ndarray:
    """Log-normal lengths, at least 1 and at most `longest`, that add up to `ratings`."""
    draw = np.exp(rng.normal(3.4, 1.55, users))
    lengths = np.clip(draw * ratings / draw.sum(), 1, longest).astype(np.int64)
    while gap := int(ratings - lengths.sum()):
        room = np.flatnonzero(lengths < longest) if gap > 0 else np.flatnonzero(lengths > 1)
        chosen = rng.choice(room, min(abs(gap), len(room)), replace=False)
        lengths[chosen] += np.sign(gap)
    return lengths


def distinct_movies(lengths: np.ndarray, share: np.ndarray, rng) -> np.ndarray:
    """For each user, movies drawn by popularity without repetition; flat, ascending per user."""
    users, n_movies = np.repeat(np.arange(len(lengths)), lengths), len(share)
    cumulative = np.cumsum(share)
    movies = np.searchsorted(cumulative, rng.random(len(users)) * cumulative[-1])
    for attempt in range(200):
        key = users * n_movies + movies
        order = np.argsort(key)
        again = order[1:][key[order[1:]] == key[order[:-1]]]
        if not len(again):
            return key[order] % n_movies
        # Long histories exhaust the popular movies: later rounds draw from all alike.
        redraw = rng.random(len(again)) * cumulative[-1]
        movies[again] = (np.searchsorted(cumulative, redraw) if attempt < 5
                         else rng.integers(n_movies, size=len(again)))
    raise RuntimeError("users and movies are too few for so many distinct ratings")


def write_ratings(path: Path, scale: float) -> None:
    """Write the synthetic csv, sorted by user and movie as GroupLens does."""
    rng = np.random.default_rng(SEED)
    users, ratings = max(int(USERS * scale), 20), max(int(RATINGS * scale), 400)
    movies = max(int(MOVIES * scale**0.5), 400)
    ids = np.sort(rng.choice(np.arange(1, 290_000), movies, replace=False))
    share = 1 / (np.arange(movies) + 60) ** 1.25
    share = share[rng.permutation(movies)]
    lengths = history_lengths(users, ratings, min(movies // 3, 9_000), rng)
    begun = rng.integers(789_652_009, 1_689_800_000, users)
    temporary = path.with_suffix(".part")
    with open(temporary, "w", encoding="ascii", newline="") as out:
        out.write("userId,movieId,rating,timestamp\r\n")
        bounds = np.searchsorted(np.cumsum(lengths), np.arange(0, ratings, 2_000_000)[1:])
        for block in np.split(np.arange(users), bounds):
            n = lengths[block]
            total, owner = int(n.sum()), np.repeat(block, n)
            # A user clicks every few seconds; one click in 40 ends the session for days.
            gap = rng.integers(0, 15, total) + (rng.random(total) < 1 / 40) * rng.integers(
                3_600, 8_640_000, total)
            clock = np.cumsum(gap)
            first = np.repeat(clock[np.cumsum(n) - n], n)
            seconds = np.minimum(begun[owner] + clock - first, 1_700_000_000)
            movie = distinct_movies(n, share, rng)
            seconds = seconds[np.lexsort((rng.random(total), owner))]  # ids do not follow time
            stars = rng.choice(np.arange(1, 11) / 2, total, p=STARS / STARS.sum())
            pd.DataFrame({"u": owner + 1, "m": ids[movie], "r": stars, "t": seconds}).to_csv(
                out, header=False, index=False, lineterminator="\r\n")
    os.replace(temporary, path)


def prepare(folder: Path, scale: float) -> Path:
    """The synthetic archive in `folder`, made if it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / "ml-latest.zip"
    if not archive.exists():
        started = time.perf_counter()
        ratings = folder / "ratings.csv"
        write_ratings(ratings, scale)
        with zipfile.ZipFile(folder / "part", "w", zipfile.ZIP_DEFLATED, compresslevel=4) as out:
            out.write(ratings, "ml-latest/ratings.csv")
        os.replace(folder / "part", archive)
        print(f"made {archive} ({archive.stat().st_size / 1e6:.0f} MB) and {ratings.name} "
              f"({ratings.stat().st_size / 1e6:.0f} MB) in {time.perf_counter() - started:.0f} s")
    return archive


def measure(path: str, sample: float) -> dict:
    """One case, in this process: seconds of both steps, and what came out."""
    from nbrec.data import movielens
    from nbrec.preprocessing import SequenceSettings, build_sequences

    started = time.perf_counter()
    data = (movielens.load("ml-latest", Path(path).parent) if path.endswith(".zip")
            else movielens.load(path))
    loaded = time.perf_counter()
    loaded_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    sequences = build_sequences(data.ratings, SequenceSettings(random_sample=sample))
    done = time.perf_counter()
    return {
        "ratings": len(data.ratings), "load s": loaded - started, "sequences s": done - loaded,
        "total s": done - started, "load GiB": loaded_gib,
        "peak GiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "users kept": len(sequences), "items kept": sequences.n_items,
        "kept": len(sequences.items),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=float, default=1.0, help="share of ml-latest's size")
    parser.add_argument("--folder", type=Path, help="where the file is kept; default: temporary")
    parser.add_argument("--case", nargs=2, metavar=("PATH", "SAMPLE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(measure(options.case[0], float(options.case[1]))))
        return
    folder = options.folder or Path(tempfile.gettempdir()) / "nbrec-benchmark"
    archive = prepare(folder / f"scale-{options.scale:g}", options.scale)
    rows = []
    for path in (archive, archive.with_name("ratings.csv")):
        for sample in (0.3, 1.0):
            done = subprocess.run([sys.executable, __file__, "--case", str(path), str(sample)],
                                  capture_output=True, text=True, check=False,
                                  env=os.environ | {"OMP_WAIT_POLICY": "PASSIVE"})
            if done.returncode:
                sys.exit(done.stderr)
            rows.append({"from": path.suffix[1:], "sample": sample, **json.loads(done.stdout)})
    table = pd.DataFrame(rows)
    print(table.to_string(index=False, float_format="{:.2f}".format,
                          formatters={c: "{:,}".format for c in ("ratings", "users kept", "kept")}))
    slowest, largest = table["total s"].max(), table["peak GiB"].max()
    fits = slowest <= LIMIT_SECONDS and largest <= LIMIT_GIB
    print(f"slowest {slowest:.1f} s (limit {LIMIT_SECONDS}), largest {largest:.2f} GiB "
          f"(limit {LIMIT_GIB}): {'within' if fits else 'OVER'} the limits")
    sys.exit(not fits)


if __name__ == "__main__":
    main()
