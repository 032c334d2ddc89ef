"""Items in, a score for every next item out: the frame around any causal backbone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from nbrec import checks
from nbrec.models.fusion import EarlyFusion, LateFusion
from nbrec.models.mamba import Mamba4RecBlock, MambaBlock
from nbrec.models.mlstm import MLSTMBlock
from nbrec.models.mlstm_beck import BeckMLSTMBlock
from nbrec.models.slstm import SLSTMBlock
from nbrec.models.transformer import PreNormBlock, TransformerBlock, sinusoidal_positions


class NextItemModel(nn.Module):
    """Embedding, a stack of causal blocks, output layer (thesis sections 3.2.1 and 3.3.1).

        h_t^0 = Dropout(m_i sqrt(d) + p_t)      m_i: the embedding of item i, p_t: its position
        H^l = block_l(H^(l-1))
        y_t = LayerNorm(h_t^L) W_out + b_out    (thesis eq. 3.5 and 3.11)

    A hybrid has an ``early`` fusion, which joins m_i with frozen vectors of item i, or a ``late``
    one, which joins what enters the output layer with a frozen vector of the user, or both.

    Args:
        n_items: size V of the catalogue.
        blocks: modules (B, L, D) -> (B, L, D) whose output t depends on inputs 0..t only.
        d_model: width D.
        max_length: longest history; longer ones keep their last items.
        dropout: on the first layer, in [0, 1).
        positions: add sinusoidal positions ("learned": trained ones) and scale the embedding by
            sqrt(d), as a Transformer needs and a recurrent backbone does not.
        final_norm: whether there is a LayerNorm before the output layer, as a stack of blocks with
            a bare residual needs.
        output_bias: whether the output layer has b_out.
        tied: whether W_out is the transposed embedding.

    Raises:
        ValueError: a size is no whole number of 1 or more, or dropout is out of its range.
    """

    def __init__(self, n_items: int, blocks: Sequence[nn.Module], d_model: int,
                 max_length: int = 90, dropout: float = 0.1, positions: bool | str = True,
                 final_norm: bool = False, output_bias: bool = True, tied: bool = False):
        super().__init__()
        for name, value in (("n_items", n_items), ("d_model", d_model), ("max_length", max_length)):
            checks.whole(name, value, low=1)
        checks.number("dropout", dropout, low=0, below=1)
        self.max_length = max_length
        self.early: EarlyFusion | None = None
        self.late: LateFusion | None = None
        self.embedding = nn.Embedding(n_items, d_model)
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(d_model) if final_norm else nn.Identity()
        self.output = nn.Linear(d_model, n_items, bias=output_bias)
        self.dropout = nn.Dropout(dropout)
        self.scale = math.sqrt(d_model) if positions else 1.0
        # Entries of m_i sqrt(d) then have variance 1, the order of those of p_t.
        nn.init.normal_(self.embedding.weight, std=1 / math.sqrt(d_model))
        if tied:
            self.output.weight = self.embedding.weight
        if positions == "learned":
            self.positions = nn.Parameter(torch.randn(max_length, d_model) / math.sqrt(d_model))
        else:
            self.register_buffer(
                "positions", sinusoidal_positions(max_length, d_model) if positions else None,
                persistent=False,
            )

    @property
    def n_items(self) -> int:
        """Size V of the catalogue."""
        return self.embedding.num_embeddings

    def item_vectors(self, items: Tensor) -> Tensor:
        """What the first block gets of each item: int64 (..) -> float (.., D)."""
        h = self.embedding(items) * self.scale
        return h if self.early is None else self.early(h, items)

    def inputs(self, items: Tensor) -> Tensor:
        """H^0: int64 (B, L) catalogue indices -> float (B, L, D)."""
        h = self.item_vectors(items)
        if self.positions is not None:
            h = h + self.positions[: items.shape[1]]
        return self.dropout(h)

    def forward(self, items: Tensor) -> Tensor:
        """What enters the output layer: int64 (B, L), padded on the right -> float (B, L, D).

        With a late fusion it goes through that before: ``model.late(h, user)``. What stands at
        padded positions is meaningless and must be dropped.
        """
        h = self.inputs(items)
        for block in self.blocks:
            h = block(h)
        return self.norm(h)

    def with_attention(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """``forward``, and the weights of the last block, which must be one of attention.

        Args:
            items: int64 (B, L), padded on the right.

        Returns:
            float (B, L, D), and float (B, H, L, L) as ``TransformerBlock.with_weights`` gives it.
        """
        h = self.inputs(items)
        for block in self.blocks[:-1]:
            h = block(h)
        h, weights = self.blocks[-1].with_weights(h)  # type: ignore[operator]
        return self.norm(h), weights

    @torch.inference_mode()
    def step(self, items: Tensor, state: tuple | None = None) -> tuple[Tensor, tuple]:
        """``forward`` for one more item of each sequence, without looking at the others again.

        Args:
            items: int64 (B,), catalogue indices.
            state: what the previous call returned; None before the first item.

        Returns:
            float (B, D), what enters the output layer, and the new state. The state of recurrent
            blocks has one size for ever; that of attention grows with every item.

        Raises:
            ValueError: there are positions, and none is left for this item.
        """
        t, states = state or (0, [None] * len(self.blocks))
        h = self.item_vectors(items)
        if self.positions is not None:
            if t >= self.max_length:
                raise ValueError(f"item {t + 1} has no position: max_length={self.max_length}. "
                                 "Start again from the last items")
            h = h + self.positions[t]
        after = []
        with evaluating(self):
            for block, before in zip(self.blocks, states, strict=True):
                h, new = block.step(h, before)  # type: ignore[operator]
                after.append(new)
            return self.norm(h), (t + 1, after)

    @torch.inference_mode()
    def score(self, items: Tensor, lengths: Tensor, users: Tensor | None = None) -> Tensor:
        """Scores of every item as the next one after each history.

        Args:
            items: int64 (B, L), padded on the right.
            lengths: int64 (B,), how many items of each row are real, >= 1.
            users: float (B, d_user), the vectors of the users; for a late fusion only.

        Returns:
            float (B, V): the logits y.
        """
        with evaluating(self):
            h = self(items)[torch.arange(len(items), device=items.device), lengths - 1]
            return self.output(h if self.late is None else self.late(h, users))

    def score_histories(self, histories: Sequence[np.ndarray], users: Tensor | None = None,
                        batch_size: int = 256) -> np.ndarray:
        """``score`` for histories of any length, a batch of similar ones at a time.

        Args:
            histories: int (L,) each, catalogue indices, oldest first; of longer ones than
                ``max_length`` the last items are used.
            users: float (B, d_user), the vectors of the users; for a late fusion only.

        Returns:
            float32 (B, V): the logits.

        Raises:
            ValueError: a history is empty, or holds anything but catalogue indices.
        """
        device = self.embedding.weight.device
        flat, offsets = checks.histories(histories, self.n_items)
        lengths = np.minimum(np.diff(offsets), self.max_length)
        starts = offsets[1:] - lengths
        scores = np.empty((len(lengths), self.n_items), np.float32)
        order = np.argsort(lengths, kind="stable")  # neighbours need little padding
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            items = np.zeros((len(rows), lengths[rows].max()), np.int64)
            for i, row in enumerate(rows):
                items[i, : lengths[row]] = flat[starts[row] : offsets[row + 1]]
            scores[rows] = self.score(
                torch.from_numpy(items).to(device), torch.from_numpy(lengths[rows]).to(device),
                None if users is None else users[rows].to(device),
            ).float().cpu().numpy()
        return scores


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """No dropout inside, whoever asks and whenever; after it the mode is as it was."""
    if not model.training:
        yield
        return
    model.eval()
    try:
        yield
    finally:
        model.train()


def transformer(n_items: int, d_model: int = 512, n_layers: int = 2, n_heads: int = 8,
                d_ff: int | None = None, dropout: float = 0.1, input_dropout: float | None = None,
                max_length: int = 90) -> NextItemModel:
    """The thesis's Transformer; the defaults are those of its Table 3.1.

    ``input_dropout`` acts on the embeddings; None takes ``dropout``, as the thesis does.
    """
    blocks = [TransformerBlock(d_model, n_heads, d_ff, dropout) for _ in _layers(n_layers)]
    return NextItemModel(n_items, blocks, d_model, max_length,
                         dropout if input_dropout is None else input_dropout)


def sasrec(n_items: int, d_model: int = 64, n_layers: int = 2, n_heads: int = 1,
           d_ff: int | None = None, dropout: float = 0.1, max_length: int = 200) -> NextItemModel:
    """A Transformer as most published numbers have it, after SASRec (Kang and McAuley 2018).

    Unlike the thesis's: learned positions, norms inside the blocks, the output layer shares the
    matrix of the embedding and has no bias, and the feed-forward network is no wider than the
    model. Unlike SASRec's own code: a plain pre-norm block, whose queries are no special case.
    """
    d_ff = d_model if d_ff is None else d_ff
    blocks = [PreNormBlock(d_model, n_heads, d_ff, dropout) for _ in _layers(n_layers)]
    return NextItemModel(n_items, blocks, d_model, max_length, dropout, positions="learned",
                         final_norm=True, output_bias=False, tied=True)


def mamba(n_items: int, d_model: int = 512, n_layers: int = 2, d_state: int = 16, d_conv: int = 8,
          expand: int = 2, dropout: float = 0.1, input_dropout: float = 0.0, max_length: int = 90,
          residual: bool = True, zoh: bool = False) -> NextItemModel:
    """The thesis's Mamba; the defaults are those of its Table 3.3.

    ``input_dropout`` acts on the embeddings, as ``dropout`` does in the Transformer; the thesis has
    none there.
    """
    blocks = [MambaBlock(d_model, d_state, d_conv, expand, dropout, residual, zoh)
              for _ in _layers(n_layers)]
    return _recurrent(n_items, blocks, d_model, input_dropout, max_length)


def mamba4rec(n_items: int, d_model: int = 64, d_state: int = 32, d_conv: int = 4, expand: int = 2,
              dropout: float = 0.2, max_length: int = 200) -> NextItemModel:
    """Mamba as published numbers have it: Mamba4Rec with one layer (Liu et al. 2024).

    Unlike the thesis's: no residual, a feed-forward network, and the output layer shares the matrix
    of the embedding. All matrices start with a deviation of 0.02 and all their biases with 0, that
    of the step size included, as in its authors' code.
    """
    model = NextItemModel(n_items, [Mamba4RecBlock(d_model, d_state, d_conv, expand, dropout)],
                          d_model, max_length, dropout, positions=False, output_bias=False,
                          tied=True)
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
    return model


def xlstm(n_items: int, d_model: int = 512, n_layers: int = 2, n_heads: int = 8, expand: int = 2,
          dropout: float = 0.1, input_dropout: float = 0.0, max_length: int = 90,
          form: str = "thesis", slstm_at: tuple[int, ...] = ()) -> NextItemModel:
    """The thesis's xLSTM; the defaults are those of its Table 3.5; ``input_dropout`` as in Mamba.

    The layers named in ``slstm_at`` (from 0) are sLSTM blocks, the others mLSTM blocks: ``()`` is
    xLSTM[1:0], all layers are xLSTM[0:1]. Their form is "thesis" or "literal" (``MLSTMBlock``), or
    "beck" (``BeckMLSTMBlock``).
    """
    checks.indices(np.atleast_1d(slstm_at), n_layers, "layer in slstm_at")
    checks.choice("form", form, ("thesis", "literal", "beck"))
    blocks = [SLSTMBlock(d_model, n_heads, dropout) if layer in slstm_at else
              BeckMLSTMBlock(d_model, n_heads, expand, dropout) if form == "beck" else
              MLSTMBlock(d_model, n_heads, expand, dropout, form == "literal")
              for layer in _layers(n_layers)]
    return _recurrent(n_items, blocks, d_model, input_dropout, max_length)


BLOCKS = ("attention", "mamba", "mlstm", "slstm")


def stack(n_items: int, blocks: tuple[str, ...], d_model: int = 512, n_heads: int = 8,
          d_ff: int | None = None, d_state: int = 16, d_conv: int = 8, expand: int = 2,
          dropout: float = 0.1, input_dropout: float = 0.0, max_length: int = 90) -> NextItemModel:
    """Blocks of several kinds in any order, as Lieber et al. (2024) propose.

    A recurrent block tells the blocks above it the order of the items; positions are added only
    where attention comes first.

    Args:
        blocks: kinds from the first to the last, each one of ``BLOCKS``.
    """
    make = {"attention": lambda: TransformerBlock(d_model, n_heads, d_ff, dropout),
            "mamba": lambda: MambaBlock(d_model, d_state, d_conv, expand, dropout),
            "mlstm": lambda: MLSTMBlock(d_model, n_heads, expand, dropout),
            "slstm": lambda: SLSTMBlock(d_model, n_heads, dropout)}
    if not blocks or not set(blocks) <= set(make):
        raise ValueError(f"blocks={blocks!r}: expected one or more of {', '.join(BLOCKS)}")
    return NextItemModel(n_items, [make[kind]() for kind in blocks], d_model, max_length,
                         input_dropout, positions=blocks[0] == "attention", final_norm=True)


def _layers(n_layers: int) -> range:
    checks.whole("n_layers", n_layers, low=1)
    return range(n_layers)


def _recurrent(n_items: int, blocks: Sequence[nn.Module], d_model: int, dropout: float,
               max_length: int) -> NextItemModel:
    """Blocks that know the order by themselves (thesis sections 3.3.1 and 3.4.1)."""
    return NextItemModel(n_items, blocks, d_model, max_length, dropout, positions=False,
                         final_norm=True, output_bias=False)
