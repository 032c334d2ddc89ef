"""How far the ONNX files of the playground are from PyTorch, and how long a history takes.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/export_error.py --histories 1000

Histories have 1 to 90 random films of the catalogue; those of the test users come first. The bound
that has to hold is 1e-4.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from nbrec.play import bundle, export

BOUND = 1e-4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--histories", type=int, default=1000)
    parser.add_argument("--models", nargs="+",
                        default=["transformer", "mamba", "xlstm", "xlstm+gat"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    worst = 0.0
    print("model            largest difference   same order of the first 20   MB    ms a history")
    for name in options.models:
        one = bundle.load(name)
        rng = np.random.default_rng(0)
        histories = [one.sequences[int(u)][:-1] for u in one.fold.test][: options.histories]
        histories += [rng.choice(len(one.catalogue), rng.integers(1, 91), replace=False)
                      for _ in range(options.histories - len(histories))]
        with tempfile.TemporaryDirectory() as folder:
            path = export.export(one, Path(folder) / "model.onnx")
            size = path.stat().st_size / 1e6
            began = time.perf_counter()
            found = export.scores(path, histories, one.recommender.model.max_length)
            seconds = time.perf_counter() - began
        expected = one.recommender.score(histories)
        difference = float(np.abs(found - expected).max())
        first = [np.argsort(-scores, axis=1, kind="stable")[:, :20] for scores in (found, expected)]
        same = (first[0] == first[1]).all(1).mean()
        worst = max(worst, difference)
        print(f"{name:16} {difference:.2e} {same:26.1%} {size:18.2f} "
              f"{1000 * seconds / len(histories):10.1f}", flush=True)
    if worst > BOUND:
        raise SystemExit(f"{worst:.2e} is more than {BOUND:g}")


if __name__ == "__main__":
    main()
