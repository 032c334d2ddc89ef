"""ONNX files give the scores of the models that they were made of."""

import numpy as np
import pytest
import torch

from nbrec.models.selective_scan import selective_scan_recurrent
from nbrec.play import bundle, explore, export

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
NAMES = ("transformer", "mamba", "xlstm", "xlstm+gat")


@pytest.fixture(scope="module", params=NAMES)
def exported(request, tmp_path_factory):
    one = bundle.load(request.param)
    return one, export.export(one, tmp_path_factory.mktemp("onnx") / "model.onnx")


def test_scores_are_those_of_pytorch(exported):
    one, path = exported
    rng = np.random.default_rng(0)
    lengths = [1, 2, 8, 9, 44, 45, 46, 89, 90, 91, 200]
    histories = [rng.integers(0, len(one.catalogue), n) for n in lengths]
    expected = one.recommender.score(histories)
    found = export.scores(path, histories, 90)
    assert np.abs(found - expected).max() < 1e-4
    # Another history gives other scores, so that agreement means something.
    assert np.abs(expected[1:] - expected[:-1]).max(1).min() > 0.1


def test_what_stands_behind_the_last_film_changes_nothing(exported):
    import onnxruntime

    one, path = exported
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    items = np.arange(90, dtype=np.int32)[None]
    other = items.copy()
    other[0, 7:] = 3
    scores = [session.run(["scores"], {"items": x, "length": np.array([7], np.int32)})[0]
              for x in (items, other)]
    longer = session.run(["scores"], {"items": items, "length": np.array([8], np.int32)})[0]
    assert np.abs(scores[0] - scores[1]).max() < 1e-5 < np.abs(scores[0] - longer).max()


def test_attention_comes_with_the_scores(exported):
    import onnxruntime

    one, path = exported
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    if one.name != "transformer":
        assert names == ["scores"]
        return
    items = np.arange(90, dtype=np.int32)[None]
    weights = session.run(["attention"], {"items": items, "length": np.array([12], np.int32)})[0][0]
    expected = explore.attention(one.recommender.model, np.arange(12))
    assert weights[:12] == pytest.approx(expected, abs=1e-5) and not weights[12:].any()
    assert weights[:12].sum() == pytest.approx(1, abs=1e-5)


def test_files_are_small(exported):
    one, path = exported
    n = sum(p.numel() for p in one.recommender.model.state_dict().values())
    assert path.stat().st_size < 2.5 * n + 2e5  # two bytes a weight, and the graph


def test_only_what_is_exact_is_halved():
    exact = np.linspace(-1, 1, 2000).astype(np.float16).astype(np.float32)
    finer, large = np.linspace(-1, 1, 2000, dtype=np.float32), np.full(2000, 1e6, np.float32)
    arrays = {"exact": exact, "finer": finer, "large": large, "short": exact[:10]}
    make = onnx.helper
    nodes = [make.make_node("Identity", [name], [f"{name}_out"]) for name in arrays]
    outputs = [make.make_tensor_value_info(f"{n}_out", onnx.TensorProto.FLOAT, a.shape)
               for n, a in arrays.items()]
    graph = make.make_graph(nodes, "g", [], outputs,
                            [onnx.numpy_helper.from_array(a, n) for n, a in arrays.items()])
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 18)])
    export.halve(model)
    onnx.checker.check_model(model)
    kinds = {t.name: t.data_type for t in model.graph.initializer}
    half, single = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    assert kinds == {"exact_half": half, "finer": single, "large": single, "short": single}
    found = onnx.reference.ReferenceEvaluator(model).run(None, {})
    for array, expected in zip(found, arrays.values(), strict=True):
        np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize(("zoh", "length"), [(False, 7), (True, 7), (False, 3)])
def test_the_scan_is_the_recurrence(zoh, length):
    torch.manual_seed(0)
    u, delta = torch.randn(3, length, 4), torch.rand(3, length, 4)
    B, C = torch.randn(3, length, 2), torch.randn(3, length, 2)
    A, D = -torch.rand(4, 2) - 0.1, torch.randn(4)
    with torch.no_grad():
        torch.testing.assert_close(export.scan(u, delta, A, B, C, D, zoh),
                                   selective_scan_recurrent(u, delta, A, B, C, D, zoh))


def test_a_model_without_a_network_is_refused(tmp_path):
    for name in ("item-knn", "gat"):
        with pytest.raises(ValueError, match="no sequence model"):
            export.export(bundle.load(name), tmp_path / "model.onnx")
