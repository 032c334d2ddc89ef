"""GCN, LightGCN and GAT: the layers that pass messages, and the models made of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nbrec import checks
from nbrec.models.graph import Graph, GraphModel
from nbrec.models.graph_attention import Attend, attention


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
        return Attend.apply(*self._scores(z), z, graph).flatten(1)

    def attention(self, z: Tensor, graph: Graph) -> Tensor:
        """alpha, float (E, H): one row per edge, in the order of ``graph.matrix(True)``.

        Args:
            z: float (N, H, D / H), W h in heads.
        """
        return attention(*self._scores(z), graph.matrix(True, z))[0]

    def _scores(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """a . z_i and b . z_j: float (N, H) each."""
        return (z * self.receiver).sum(-1), (z * self.sender).sum(-1)


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
