"""Sequence models as ONNX files, for the page that runs them in a browser."""

from __future__ import annotations

import copy
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from nbrec.files import atomic
from nbrec.models import mamba
from nbrec.models.next_item import NextItemModel
from nbrec.models.transformer import TransformerBlock
from nbrec.play.bundle import Bundle
from nbrec.trained import SequenceRecommender

SMALL = 1000  # numbers: smaller tensors are not worth a cast


class Exported(nn.Module):
    """What the browser calls: one history in, the scores of all films out.

    Of a model whose last block is attention a second output says where its last position looked.
    """

    def __init__(self, network: NextItemModel):
        super().__init__()
        self.network = network

    @property
    def attends(self) -> bool:
        """Whether there is a second output."""
        return isinstance(self.network.blocks[-1], TransformerBlock)

    def forward(self, items: Tensor, length: Tensor) -> tuple[Tensor, ...]:
        """Scores of the next item.

        Args:
            items: int32 (1, L), catalogue indices, oldest first, padded on the right.
            length: int32 (1,), how many of them are real, 1..L.

        Returns:
            float (1, V); and of attention float (1, L), the mean of the heads.
        """
        network, last = self.network, (length - 1).long()
        if not self.attends:
            return (network.output(network(items.long()).index_select(1, last)[:, 0]),)
        hidden, weights = network.with_attention(items.long())
        scores = network.output(hidden.index_select(1, last)[:, 0])
        return scores, weights.mean(1).index_select(1, last)[:, 0]


def export(bundle: Bundle, path: str | Path) -> Path:
    """Write the model of a bundle as an ONNX file with weights in half precision.

    Computation is in single precision: the file casts its weights when it is loaded. A bundle's
    weights are rounded already, so nothing is lost.

    Raises:
        ValueError: the bundle holds no sequence model, or one that needs vectors of users.
    """
    if not isinstance(bundle.recommender, SequenceRecommender):
        raise ValueError(f"{bundle.name} is no sequence model: there is nothing to export")
    network = bundle.recommender.model
    if network.late is not None:
        raise ValueError(f"{bundle.name} needs a vector of each user, which a page does not have: "
                         "expected a model without late fusion")
    module = Exported(copy.deepcopy(network).cpu()).eval()
    example = (torch.zeros(1, network.max_length, dtype=torch.int32),
               torch.ones(1, dtype=torch.int32))
    names = ["scores", *(["attention"] if module.attends else [])]
    with _scan_of_torch(), _quiet(), torch.no_grad():
        program = torch.onnx.export(module, example, dynamo=True, verbose=False,
                                    input_names=["items", "length"], output_names=names)
    assert program is not None  # as it was asked for by dynamo
    model = program.model_proto
    halve(model)
    path = Path(path)
    with atomic(path) as temporary:
        temporary.write_bytes(model.SerializeToString())
    return path


def halve(model) -> None:
    """Keep large float weights of an ONNX model in half precision, where that is exact."""
    import onnx
    from onnx import numpy_helper

    graph, casts = model.graph, []
    for tensor in graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT:
            continue
        whole = numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            half = whole.astype(np.float16)
        if whole.size < SMALL or not np.array_equal(half.astype(np.float32), whole):
            continue
        name, kept = tensor.name, f"{tensor.name}_half"
        tensor.CopyFrom(numpy_helper.from_array(half, kept))
        casts.append(onnx.helper.make_node("Cast", [kept], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.value_info[:], model.metadata_props[:], graph.metadata_props[:]
    for node in graph.node:  # what the exporter says of where it came from
        del node.metadata_props[:]
        node.doc_string = ""


def scores(path: str | Path, histories: list[np.ndarray], length: int) -> np.ndarray:
    """What onnxruntime makes of a file: float32 (B, V).

    Args:
        histories: int (L,), L >= 1; of longer ones than ``length`` the last items are used.
        length: of the input that the file was made for.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    found = []
    for history in histories:
        history = history[-length:]
        items = np.zeros((1, length), np.int32)
        items[0, : len(history)] = history
        found.append(session.run(["scores"], {
            "items": items, "length": np.array([len(history)], np.int32)})[0][0])
    return np.stack(found)


def scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None = None,
         zoh: bool = False) -> Tensor:
    """``selective_scan`` as one loop that an exporter can read; same arguments, same result."""
    from torch._higher_order_ops.scan import scan as loop

    # Time first: all of these are (L, B, ..).
    u_, delta, B, C = (a.transpose(0, 1) for a in (u, delta, B, C))
    x = delta[:, :, None] * A.T
    gain = torch.expm1(x) / A.T if zoh else delta[:, :, None]
    write = (gain * B[..., None] * u_[:, :, None]).contiguous()

    def step(h, inputs):
        decay, write, read = inputs
        h = decay * h + write
        return h, (read[:, :, None] * h).sum(1)

    start = write.new_zeros(write.shape[1:])
    y = loop(step, start, (x.exp().contiguous(), write, C.contiguous()), dim=0)[1].transpose(0, 1)
    return y if D is None else y + D * u


@contextmanager
def _scan_of_torch() -> Iterator[None]:
    """Compiled loops are closed to an exporter: Mamba blocks use ``scan`` inside."""
    usual, mamba.selective_scan = mamba.selective_scan, scan
    try:
        yield
    finally:
        mamba.selective_scan = usual


@contextmanager
def _quiet() -> Iterator[None]:
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
