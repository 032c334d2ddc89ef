"""Who has seen what as sparse matrices: shared by the models that count."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from nbrec import checks

if TYPE_CHECKING:  # scipy is loaded where a matrix is made: an architecture does without
    from scipy import sparse

    from nbrec.sequences import Sequences


def interactions(sequences: Sequences) -> sparse.csr_array:
    """The interaction matrix M of thesis section 3.1: float32 (U, V), 1 where user u has item i."""
    return _binary(sequences.items, sequences.offsets, sequences.n_items)


def history_matrix(histories: Sequence[np.ndarray], n_items: int, last_n: int | None = None,
                   empty: bool = False) -> sparse.csr_array:
    """float32 (B, V): 1 where the history contains the item.

    Args:
        histories: int (L,) each, L >= 1, catalogue indices in 0..V-1, oldest first.
        n_items: size V of the catalogue.
        last_n: use only the last n items of a history; None uses all.
        empty: whether L may be 0. For whoever scores it may not: nothing follows from nothing.

    Raises:
        ValueError: a history is empty, or holds anything but catalogue indices.
    """
    items, offsets = checks.histories(histories, n_items, empty)
    if last_n is not None:
        late = np.arange(len(items)) >= np.repeat(offsets[1:] - last_n, np.diff(offsets))
        items = items[late]
        offsets = np.concatenate(([0], np.cumsum(np.minimum(np.diff(offsets), last_n))))
    return _binary(items, offsets, n_items)


def product(a: sparse.csr_array, b: sparse.csr_array, dense: bool = False) -> Any:
    """a @ b on all cores: scipy multiplies on one, but lets other threads run meanwhile.

    Args:
        a, b: sparse (m, n) and (n, p).
        dense: return a numpy array instead of a sparse one.
    """
    from scipy import sparse

    threads = max(1, min(os.cpu_count() or 1, a.shape[0]))
    work = np.concatenate(([0], np.cumsum(np.diff(b.indptr)[a.indices])))[a.indptr]
    cuts = np.searchsorted(work, np.linspace(0, work[-1], threads + 1)[1:-1])
    bounds = np.concatenate(([0], cuts, [a.shape[0]]))

    def part(rows: tuple[int, int]) -> Any:
        result = a[rows[0] : rows[1]] @ b
        return result.toarray() if dense else result

    with ThreadPoolExecutor(threads) as pool:
        parts = list(pool.map(part, zip(bounds[:-1], bounds[1:], strict=True)))
    return np.concatenate(parts) if dense else sparse.vstack(parts, format="csr")


def _binary(items: np.ndarray, offsets: np.ndarray, n_items: int) -> sparse.csr_array:
    from scipy import sparse

    matrix = sparse.csr_array(
        (np.ones(len(items), np.float32), items.astype(np.int32), offsets.astype(np.int32)),
        shape=(len(offsets) - 1, n_items),
    )
    matrix.sum_duplicates()  # an item seen twice counts once
    matrix.data[:] = 1.0
    return matrix
