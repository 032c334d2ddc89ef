"""Users and films as one graph: GCN, LightGCN and GAT (thesis section 3.6)."""

from __future__ import annotations

import hashlib
import warnings

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn
from torch.nn import functional as F

from nbrec import checks
from nbrec.models.baselines import history_matrix
from nbrec.models.next_item import evaluating


class Graph:
    """The bipartite graph of who has seen what, as sparse rows of neighbours.

    Nodes 0..V-1 are the films, node V + u is user u. Row i of ``rows`` holds the neighbours N(i).

    Args:
        histories: int arrays of catalogue indices, one per user; a user may have none.
        n_items: size V of the catalogue.

    Raises:
        ValueError: a history holds anything but catalogue indices.
    """

    def __init__(self, histories: list[np.ndarray], n_items: int):
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

    def with_users(self, histories: list[np.ndarray]) -> Graph:
        """The same graph and, at its end, users whom no film knows: they listen, unheard.

        Messages reach them, so they get vectors; nobody gets a message from them, so all other
        vectors stay as they are, whoever is added.
        """
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
    index = [torch.as_tensor(a, dtype=torch.int32, device=values.device)
             for a in (indptr, indices)]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse")  # "CSR is in beta", in every process anew
        return torch.sparse_csr_tensor(*index, values, size=(len(indptr) - 1,) * 2,
                                       check_invariants=False)


class _Propagate(torch.autograd.Function):
    """A h for a symmetric A, whose backward is the same product."""

    @staticmethod
    def forward(ctx, matrix, h):
        ctx.matrix = matrix
        return matrix @ h

    @staticmethod
    def backward(ctx, grad):
        return None, ctx.matrix @ grad.contiguous()


class LightGCNLayer(nn.Module):
    """h_i' = sum over j in N(i) of h_j / sqrt(|N(i)| |N(j)|) (He et al., 2020, eq. 3)."""

    def forward(self, h: Tensor, graph: Graph) -> Tensor:
        """float (N, D) -> (N, D)."""
        return _Propagate.apply(graph.matrix(False, h), h)


class GCNLayer(nn.Module):
    """h_i' = sum over j in N(i) and i of h_j W / sqrt(|N(i)+| |N(j)+|) (Kipf and Welling, 2017).

    N(i)+ holds i itself. The activation stands between layers, in ``GraphModel``.
    """

    def __init__(self, d_model: int):
        super().__init__()
        checks.whole("d_model", d_model, low=1)
        self.weight = nn.Linear(d_model, d_model, bias=False)

    def forward(self, h: Tensor, graph: Graph) -> Tensor:
        """float (N, D) -> (N, D)."""
        return _Propagate.apply(graph.matrix(True, h), self.weight(h))


class GATLayer(nn.Module):
    """Neighbours weighted by attention, in H heads (Velickovic et al., 2018, eq. 1 to 5).

        z_i = W h_i
        e_ij = LeakyReLU(a . z_i + b . z_j)         for j in N(i) and i itself
        alpha_ij = exp(e_ij) / sum over j of exp(e_ij)
        h_i' = concat over heads of sum over j of alpha_ij z_j

    Args:
        d_model: width D.
        n_heads: H; each head is D / H wide.
    """

    def __init__(self, d_model: int, n_heads: int):
        super().__init__()
        checks.whole("d_model", d_model, low=1)
        checks.whole("n_heads", n_heads, low=1)
        if d_model % n_heads:
            raise ValueError(f"d_model={d_model} is not a multiple of n_heads={n_heads}")
        self.n_heads = n_heads
        self.weight = nn.Linear(d_model, d_model, bias=False)
        self.receiver = nn.Parameter(torch.empty(n_heads, d_model // n_heads))  # a
        self.sender = nn.Parameter(torch.empty(n_heads, d_model // n_heads))    # b
        for parameter in (self.weight.weight, self.receiver, self.sender):
            nn.init.xavier_uniform_(parameter)

    def forward(self, h: Tensor, graph: Graph) -> Tensor:
        """float (N, D) -> (N, D)."""
        z = self.weight(h).unflatten(1, (self.n_heads, -1))
        return _Attend.apply(*self._scores(z), z, graph).flatten(1)

    def attention(self, z: Tensor, graph: Graph) -> Tensor:
        """alpha, float (E, H): one row per edge, in the order of ``graph.matrix(True)``.

        Args:
            z: float (N, H, D / H), W h in heads.
        """
        return _attention(*self._scores(z), graph.matrix(True, z))[0]

    def _scores(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """a . z_i and b . z_j: float (N, H) each."""
        return (z * self.receiver).sum(-1), (z * self.sender).sum(-1)


def _attention(receiver: Tensor, sender: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor]:
    """alpha, float (E, H), and which of the e_ij are below 0, where LeakyReLU is flatter."""
    ends = matrix.crow_indices().long()
    e = _to_edges(receiver, ends) + sender.index_select(0, matrix.col_indices())
    negative = e < 0
    e = F.leaky_relu(e, SLOPE)
    # The largest of each row is taken off: a softmax does not change, and cannot overflow.
    p = (e - _to_edges(torch.segment_reduce(e, "max", offsets=ends, axis=0), ends)).exp()
    return p / _to_edges(_row_sums(p, ends), ends), negative


def _to_edges(x: Tensor, ends: Tensor) -> Tensor:
    """float (N, H) -> (E, H): each node's numbers at each of its edges."""
    return x.repeat_interleave(ends.diff(), 0)


def _row_sums(x: Tensor, ends: Tensor) -> Tensor:
    """float (E, H) -> (N, H): the sum over each node's edges."""
    return torch.segment_reduce(x, "sum", offsets=ends, axis=0)


SLOPE = 0.2  # of LeakyReLU below 0, as in the paper


class _Attend(torch.autograd.Function):
    """sum over j of alpha_ij z_j, without ever holding one vector per edge.

    With g the gradient of the result, and r and s the scores of receiver and sender:

        dz_j = sum over i of alpha_ij g_i
        dalpha_ij = g_i . z_j
        de_ij = alpha_ij (dalpha_ij - sum over k of alpha_ik dalpha_ik) LeakyReLU'(e_ij)
        dr_i = sum over j of de_ij,   ds_j = sum over i of de_ij

    Sums over j are sums over rows of the sparse matrix. Sums over i are, too: the edge (i, j) has
    its value in row j at ``graph.reverse()``.
    """

    @staticmethod
    def forward(ctx, receiver, sender, z, graph):
        a = graph.matrix(True, z)
        alpha, negative = _attention(receiver, sender, a)
        ctx.graph = graph
        ctx.save_for_backward(alpha, negative, z)
        return torch.stack([_with(a, values) @ part for values, part in
                            zip(alpha.T.contiguous(), _heads(z), strict=True)], 1)

    @staticmethod
    def backward(ctx, grad):
        alpha, negative, z = ctx.saved_tensors
        a, reverse = ctx.graph.matrix(True, z), ctx.graph.reverse(z.device)
        ends = a.crow_indices().long()
        back, g = alpha.index_select(0, reverse).T.contiguous(), _heads(grad)
        dz = [_with(a, values) @ part for values, part in zip(back, g, strict=True)]
        dalpha = torch.stack([torch.sparse.sampled_addmm(a, part, other.T, beta=0).values()
                              for part, other in zip(g, _heads(z), strict=True)], 1)
        weighted = alpha * dalpha
        de = weighted - alpha * _to_edges(_row_sums(weighted, ends), ends)
        de = torch.where(negative, SLOPE * de, de)
        return (_row_sums(de, ends), _row_sums(de.index_select(0, reverse), ends),
                torch.stack(dz, 1), None)


def _heads(z: Tensor) -> Tensor:
    """float (N, H, C) -> (H, N, C), each head in one piece of memory."""
    return z.transpose(0, 1).contiguous()


def _with(matrix: Tensor, values: Tensor) -> Tensor:
    """The same pattern with other values."""
    return csr(matrix.crow_indices(), matrix.col_indices(), values)


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
        activation: a function of tensors; None for none.
        mean: whether the result is the mean over all layers (LightGCN).
        std: of the learned vectors' first values.
    """

    def __init__(self, graph: Graph, layers: list[nn.Module], d_model: int, dropout: float = 0.0,
                 activation=None, mean: bool = False, std: float = 0.1):
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
    def vectors(self, histories: list[np.ndarray], fold_in: bool = False
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


def gcn(graph: Graph, d_model: int = 64, n_layers: int = 2, dropout: float = 0.5) -> GraphModel:
    """The thesis's GCN; the defaults are those of its Table 3.6."""
    checks.whole("n_layers", n_layers, low=1)
    layers = [GCNLayer(d_model) for _ in range(n_layers)]
    return GraphModel(graph, layers, d_model, dropout, nn.ReLU())


def lightgcn(graph: Graph, d_model: int = 64, n_layers: int = 2) -> GraphModel:
    """The thesis's LightGCN; the defaults are those of its Table 3.6."""
    checks.whole("n_layers", n_layers)
    layers = [LightGCNLayer() for _ in range(n_layers)]
    return GraphModel(graph, layers, d_model, mean=True, std=0.01)


def gat(graph: Graph, d_model: int = 64, n_layers: int = 2, n_heads: int = 4,
        dropout: float = 0.5) -> GraphModel:
    """The thesis's GAT; the defaults are those of its Table 3.6."""
    checks.whole("n_layers", n_layers, low=1)
    layers = [GATLayer(d_model, n_heads) for _ in range(n_layers)]
    return GraphModel(graph, layers, d_model, dropout, nn.ELU())
