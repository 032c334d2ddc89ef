"""Users and films as one graph, and vectors by passing messages along it (thesis section 3.6)."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from nbrec import checks
from nbrec.models.next_item import evaluating
from nbrec.models.sparse import history_matrix

if TYPE_CHECKING:  # scipy is loaded where a graph is made
    from scipy import sparse


class Graph:
    """The bipartite graph of who has seen what, as sparse rows of neighbours.

    Nodes 0..V-1 are the films, node V + u is user u. Row i of ``rows`` holds the neighbours N(i).

    Args:
        histories: int arrays of catalogue indices, one per user; a user may have none.
        n_items: size V of the catalogue.

    Raises:
        ValueError: a history holds anything but catalogue indices.
    """

    def __init__(self, histories: Sequence[np.ndarray], n_items: int):
        from scipy import sparse

        checks.whole("n_items", n_items, low=1)
        m = history_matrix(histories, n_items, empty=True)
        self.n_items = n_items
        self.rows = sparse.block_array([[None, m.T], [m, None]], format="csr", dtype=np.float32)
        self.rows.resize((n_items + len(histories),) * 2)  # where a block has no entry at all
        self._made: dict[str, Tensor] = {}

    def __getstate__(self) -> dict:
        """Without the matrices that are made of it: other processes make their own."""
        return vars(self) | {"_made": {}}

    @property
    def n_nodes(self) -> int:
        """V + U."""
        return self.rows.shape[0]

    @property
    def interactions(self) -> sparse.csr_array:
        """float32 (U, V): 1 where user u has seen film i."""
        return self.rows[self.n_items :, : self.n_items]

    def digest(self) -> str:
        """A sha256 of the edges."""
        digest = hashlib.sha256(str(self.rows.shape).encode())
        for array in (self.rows.indptr, self.rows.indices):
            digest.update(np.ascontiguousarray(array, "<i8").tobytes())
        return digest.hexdigest()

    def with_users(self, histories: Sequence[np.ndarray]) -> Graph:
        """The same graph and, at its end, users whom no film knows: they listen, unheard.

        Messages reach them, so they get vectors; nobody gets a message from them, so all other
        vectors stay as they are, whoever is added.
        """
        from scipy import sparse

        new = history_matrix(histories, self.n_items)
        new.resize((len(histories), self.n_nodes))
        graph = object.__new__(Graph)
        graph.n_items, graph._made = self.n_items, {}
        graph.rows = sparse.vstack([self.rows, new], format="csr")
        graph.rows.resize((self.n_nodes + len(histories),) * 2)
        return graph

    def matrix(self, self_loops: bool, like: Tensor | None = None) -> Tensor:
        """Sparse CSR float (N, N) with entries 1 / sqrt(|N(i)| |N(j)|) for j in N(i).

        Args:
            self_loops: whether every node is its own neighbour, too, and is counted as one.
            like: of the same type and on the same device; by default float32 on the CPU.
        """
        from scipy import sparse

        like = torch.empty(0) if like is None else like
        key = f"{self_loops} {like.device} {like.dtype}"
        if key not in self._made:
            a = self.rows
            if self_loops:
                a = (a + sparse.eye_array(self.n_nodes, dtype=np.float32)).tocsr()
            a.sort_indices()
            degree = np.maximum(np.diff(a.indptr), 1.0)  # 1: a film that nobody has seen
            owner = np.repeat(np.arange(self.n_nodes), np.diff(a.indptr))
            values = torch.as_tensor(1 / np.sqrt(degree[owner] * degree[a.indices])).to(like)
            self._made[key] = csr(a.indptr, a.indices, values)
        return self._made[key]

    def reverse(self, device: torch.device | str = "cpu") -> Tensor:
        """int64 (E,): where in ``matrix(True)`` the edge (j, i) stands, for each edge (i, j)."""
        from scipy import sparse

        key = f"reverse {device}"
        if key not in self._made:
            a = self.matrix(True)
            places = sparse.csr_array(
                (np.arange(a.values().numel()), a.col_indices().numpy(), a.crow_indices().numpy()),
                shape=a.shape)
            self._made[key] = torch.as_tensor(places.T.tocsr().data, device=device)
        return self._made[key]


def csr(indptr, indices, values: Tensor) -> Tensor:
    """A square sparse tensor; 32-bit indices, which the CPU's kernel multiplies faster."""
    rows, columns = (torch.as_tensor(a, dtype=torch.int32, device=values.device)
                     for a in (indptr, indices))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse")  # "CSR is in beta", in every process anew
        return torch.sparse_csr_tensor(rows, columns, values, size=(len(rows) - 1,) * 2,
                                       check_invariants=False)


class GraphModel(nn.Module):
    """Vectors of users and films by message passing (thesis eq. 3.15); y_ui = h_u . h_i.

        h^0: learned, one vector per node
        h^(l+1) = Dropout(activation(layer(h^l)))      the last layer has neither
        h = h^L, or the mean of h^0 .. h^L

    A user who is not in the graph is folded in: they start at zero, and get messages from their
    films, whose vectors do not change.

    Args:
        graph: of U users and V films.
        layers: modules (h (N, D), graph) -> (N, D).
        d_model: width D.
        dropout: in [0, 1).
        activation: a module; None for none.
        mean: whether the result is the mean over all layers (LightGCN).
        std: of the learned vectors' first values.
    """

    def __init__(self, graph: Graph, layers: Sequence[nn.Module], d_model: int,
                 dropout: float = 0.0, activation: nn.Module | None = None, mean: bool = False,
                 std: float = 0.1):
        super().__init__()
        checks.whole("d_model", d_model, low=1)
        checks.number("dropout", dropout, low=0, below=1)
        self.graph, self.mean = graph, mean
        self.embedding = nn.Embedding(graph.n_nodes, d_model)
        nn.init.normal_(self.embedding.weight, std=std)
        self.layers = nn.ModuleList(layers)
        self.dropout = nn.Dropout(dropout)
        self.activation = activation or nn.Identity()
        # A history that is in the graph has a node: the first user with exactly these films.
        m = graph.interactions
        self.nodes = {row.tobytes(): u for u, row in
                      reversed(list(enumerate(np.split(m.indices, m.indptr[1:-1]))))}

    @property
    def n_items(self) -> int:
        """Size V of the catalogue."""
        return self.graph.n_items

    def forward(self, graph: Graph | None = None) -> Tensor:
        """float (N, D): the vectors of all films and users, of ``with_users`` if that is given."""
        graph = graph or self.graph
        h = self.embedding.weight
        if new := graph.n_nodes - len(h):
            h = torch.cat([h, h.new_zeros(new, h.shape[1])])
        outputs = [h]
        for number, layer in enumerate(self.layers, 1):
            h = layer(h, graph)
            if number < len(self.layers):
                h = self.dropout(self.activation(h))
            outputs.append(h)
        return torch.stack(outputs).mean(0) if self.mean else h

    @torch.inference_mode()
    def vectors(self, histories: Sequence[np.ndarray], fold_in: bool = False
                ) -> tuple[Tensor, Tensor]:
        """The vectors of users with these histories, in or outside the graph, and of all films.

        Args:
            fold_in: treat everybody as a newcomer, also those who have a node.

        Returns:
            float (B, D) and float (V, D).

        Raises:
            ValueError: a history is empty, or holds anything but catalogue indices.
        """
        items, offsets = checks.histories(histories, self.n_items)
        histories = np.split(items, offsets[1:-1]) if len(offsets) > 1 else []
        nodes = [None if fold_in else self.nodes.get(np.unique(h).astype(np.int32).tobytes())
                 for h in histories]
        new = [h for h, node in zip(histories, nodes, strict=True) if node is None]
        with evaluating(self):
            h = self(self.graph.with_users(new) if new else None)
        items, users = h[: self.graph.n_items], h[self.graph.n_items :]
        guests = iter(range(len(users) - len(new), len(users)))
        rows = [next(guests) if node is None else node for node in nodes]
        return users[torch.tensor(rows, dtype=torch.long, device=h.device)], items
