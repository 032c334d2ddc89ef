"""GAT's attention over the edges of a graph, and its gradient in little memory."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from nbrec.models.graph import csr

SLOPE = 0.2  # of LeakyReLU below 0 (Velickovic et al., 2018)


def attention(receiver: Tensor, sender: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor]:
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


class Attend(torch.autograd.Function):
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
        alpha, negative = attention(receiver, sender, a)
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
