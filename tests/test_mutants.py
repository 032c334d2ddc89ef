"""The tool that changes a module in one place: what it changes, and what it leaves alone."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

PATH = Path(__file__).parents[1] / "benchmarks" / "mutants.py"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("mutants", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("line, expected", [
    ("x = a < b", {"x = a <= b", "pass"}),
    ("x = a - 1", {"x = a + 1", "x = a - 0", "pass"}),
    ("x = 0.5", {"x = 0.55", "pass"}),
    ("x = not a and b", {"x = (a) and b", "x = not a or b", "pass"}),
    ("x = a[1:b]", {"x = a[0:b]", "x = a[:b]", "x = a[1:]", "pass"}),
    ("x += y", {"x -= y", "x = y", "pass"}),
    ("x = f(a, k=True)", {"x = f(a, k=False)", "x = f(a)", "pass"}),
    ("x = np.sqrt(a)", {"x = (a)", "pass"}),
    ("x = a.detach()", {"x = (a)", "pass"}),
    ("x = a.min()", {"x = a.max()", "x = (a)", "pass"}),
    ("x = a if b else c", {"x = a if not (b) else c", "pass"}),
    ("x = (a  # é <\n     <= b)", {"x = (a  # é <\n     < b)", "pass"}),
    ("raise E(f'{a + 1}')", {"pass"}),
    ("'What it does: 1 + 1.'", set()),
    ("x: int = 3", {"x: int = 4"}),
])
def test_changes_by_hand(tool, line, expected):
    source = line.encode()
    assert {m.apply(source).decode() for m in tool.mutants(source)} == expected


def test_results_decorators_and_defaults_change_and_descriptions_do_not(tool):
    source = (b"@once\ndef f(a: int = 1) -> g[2]:\n    return a\n\n"
              b"def __repr__(self):\n    return 1\n")
    assert {(m.line(source), m.text) for m in tool.mutants(source)} == {
        (1, ""), (2, "0"), (3, "None")}


def test_a_mutant_is_shown_as_its_lines(tool):
    source = b"a = 1\nb = (a +\n     1)\n"
    (mutant,) = [m for m in tool.mutants(source) if m.text == "-"]
    assert mutant.line(source) == 2
    assert mutant.shown(source) == "  - b = (a +\n  + b = (a -\n"


def test_what_no_test_notices_is_printed_and_the_tree_is_left_alone():
    module = PATH.parents[1] / "nbrec" / "models" / "svd.py"
    before = module.read_bytes()
    lines = before.decode().splitlines()
    line = next(i for i, text in enumerate(lines, 1) if "default_rng(self.seed)" in text)
    test = "tests/test_svd.py::test_impossible_settings_are_refused"  # which never comes so far
    found = subprocess.run([sys.executable, PATH, module, "--lines", str(line), "--tests", test],
                           capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, found.stderr
    assert module.read_bytes() == before
    shown = found.stdout.splitlines()
    assert f"nbrec/models/svd.py:{line}" in shown and f"  - {lines[line - 1]}" in shown
    assert "0 killed (0.0%)" in shown[-1]
