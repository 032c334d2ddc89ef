"""Early fusion of items and late fusion of the user (thesis sections 3.5.3 and 3.6.4)."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nbrec import checks


class EarlyFusion(nn.Module):
    """What is learned about an item, joined with what was known of it before.

        u_c = LayerNorm(e_c) W_up + b_up            for each context c, e_c frozen
        c = concat(e, u_1, .., u_n)                 in R^((n + 1) d)
        z = Dropout(ReLU(W_f1 c + b_f1))            in R^(2/3 (n + 1) d)
        x = W_f2 z + b_f2                           in R^d       (thesis eq. 3.14 for n = 1)

    Args:
        contexts: name -> float (V, d_c), one frozen vector per item.
        d_model: width d.
        dropout: in [0, 1). The thesis has it in the graph version only.

    Raises:
        ValueError: there is no context, or one is not a table of finite numbers.
    """

    def __init__(self, contexts: dict[str, Tensor], d_model: int, dropout: float = 0.1):
        super().__init__()
        checks.number("dropout", dropout, low=0, below=1)
        if not contexts:
            raise ValueError("there is no context to join with: expected one or more")
        for name, vectors in contexts.items():
            if vectors.ndim != 2 or not torch.isfinite(vectors).all():
                raise ValueError(f"context {name!r}: got {tuple(vectors.shape)} with "
                                 f"{int((~torch.isfinite(vectors)).sum())} values that are not "
                                 "finite; expected one row of finite numbers per item")
            self.register_buffer(f"frozen_{name}", vectors.detach().float().clone())
        self.names = list(contexts)
        widths = [contexts[name].shape[1] for name in self.names]
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in widths)
        self.up = nn.ModuleList(nn.Linear(width, d_model) for width in widths)
        joined = (len(widths) + 1) * d_model
        self.f1 = nn.Linear(joined, 2 * joined // 3)
        self.f2 = nn.Linear(2 * joined // 3, d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, e: Tensor, items: Tensor) -> Tensor:
        """x: float (.., d) learned embeddings of int64 (..) items -> float (.., d)."""
        known = [up(norm(F.embedding(items, getattr(self, f"frozen_{name}"))))
                 for name, norm, up in zip(self.names, self.norms, self.up, strict=True)]
        z = self.dropout(F.relu(self.f1(torch.cat([e, *known], -1))))
        return self.f2(z)

    def digest(self) -> str:
        """A sha256 of the frozen vectors."""
        digest = hashlib.sha256()
        for name in self.names:
            vectors = getattr(self, f"frozen_{name}").cpu().contiguous().numpy()
            digest.update(name.encode() + vectors.tobytes())
        return digest.hexdigest()


class LateFusion(nn.Module):
    """What the sequence says, weighed against who the user is, dimension by dimension.

        u~ = u W_u + b_u
        G = sigmoid(concat(h, u~) W_gate + b_gate)
        h_fused = G * h + (1 - G) * u~              (thesis section 3.6.4)

    Args:
        d_user: width of the frozen user vectors.
        d_model: width d of the states.
    """

    def __init__(self, d_user: int, d_model: int):
        super().__init__()
        self.project = nn.Linear(d_user, d_model)
        self.gate = nn.Linear(2 * d_model, d_model)

    def forward(self, h: Tensor, user: Tensor) -> Tensor:
        """float (.., d) states and (.., d_user) user vectors -> float (.., d)."""
        u = self.project(user)
        g = torch.sigmoid(self.gate(torch.cat([h, u], -1)))
        return g * h + (1 - g) * u
