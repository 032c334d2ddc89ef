"""Which faults would the tests not notice? One small change at a time, and the tests are run.

    python benchmarks/mutants.py nbrec/models/graph.py [--tests tests/test_graph.py ..]
        [--sample 40] [--seed 0] [--lines 100-180] [--jobs 2]

A change (a mutant) that makes a test fail, or run far longer, is killed. What survives is printed:
either a test is missing, or the change makes no difference that anybody could observe.

Mutants live in a copy of the package in a temporary folder, so the working tree is never touched.
A parent process imports torch and the like once; each mutant is a fork of it, and takes as long as
its tests take. What hypothesis tries is the same for all mutants.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import math
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
MEMORY = 16 * 2**30  # bytes that one run of the tests may ask for
COMPARISONS = {"<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "==", "is": "is not",
               "is not": "is", "in": "not in", "not in": "in"}
ARITHMETIC = {"+": "-", "-": "+", "*": "/", "/": "*", "//": "*", "%": "*", "**": "*", "|": "&",
              "&": "|", "<<": ">>"}
NAMES = [("min", "max"), ("amin", "amax"), ("minimum", "maximum"), ("argmin", "argmax"),
         ("any", "all"), ("sum", "mean"), ("zeros", "ones"), ("zeros_like", "ones_like"),
         ("zeros_", "ones_"), ("sin", "cos"), ("floor", "ceil"), ("log", "log1p"),
         ("exp", "expm1"), ("silu", "gelu"), ("relu", "gelu"), ("sigmoid", "tanh")]
SWAPS = {a: b for pair in reversed(NAMES) for a, b in (pair, pair[::-1])}
# Calls whose argument would do as well, or that name what a change of no result is called.
KEPT = {"len", "super", "range", "iter", "int", "float", "bool", "str", "list", "tuple", "dict",
        "contiguous", "cpu", "numpy", "print", "isinstance", "sorted", "set", "enumerate"}


class Mutant(NamedTuple):
    """Bytes start..end of a module replaced by others."""

    start: int
    end: int
    text: str

    def apply(self, source: bytes) -> bytes:
        return source[: self.start] + self.text.encode() + source[self.end :]

    def line(self, source: bytes) -> int:
        return source.count(b"\n", 0, self.start) + 1

    def shown(self, source: bytes) -> str:
        """The lines that it changes, before and after."""
        low = source.rfind(b"\n", 0, self.start) + 1
        high = source.find(b"\n", self.end)
        new = self.apply(source)[low : high + len(self.apply(source)) - len(source)]
        return "".join(f"  {sign} {line}\n" for sign, text in (("-", source[low:high]), ("+", new))
                       for line in text.decode().split("\n"))


class Mutator(ast.NodeVisitor):
    """Collects the mutants of a module; see ``mutants``."""

    def __init__(self, source: bytes):
        self.source, self.found = source, []
        self.lines = [0]
        for line in source.splitlines(keepends=True):
            self.lines.append(self.lines[-1] + len(line))

    def start(self, node: ast.AST) -> int:
        return self.lines[node.lineno - 1] + node.col_offset

    def end(self, node: ast.AST) -> int:
        return self.lines[node.end_lineno - 1] + node.end_col_offset

    def text(self, node: ast.AST) -> str:
        return self.source[self.start(node) : self.end(node)].decode()

    def replace(self, node: ast.AST, text: str) -> None:
        self.found.append(Mutant(self.start(node), self.end(node), text))

    def between(self, left: int, right: int, table: dict[str, str]) -> None:
        """An operator, which has no place of its own in the tree, only its operands have."""
        gap = re.sub(b"#.*", lambda m: b" " * len(m[0]), self.source[left:right])
        words = "|".join(re.escape(w) for w in sorted(table, key=len, reverse=True))
        if match := re.search(rf"(?<![\w=])({words})(?![\w=])".encode(), gap):
            self.found.append(Mutant(left + match.start(), left + match.end(),
                                     table[match[0].decode()]))

    def visit(self, node: ast.AST) -> None:
        if isinstance(node, ast.stmt):
            self.statement(node)
        elif isinstance(node, ast.expr):
            self.expression(node)
        match node:
            case ast.Raise() | ast.JoinedStr() | ast.Import() | ast.ImportFrom():
                return  # what messages say
            case ast.Call(func=ast.Attribute(value=ast.Name(id="warnings" | "log"))):
                return
            case ast.FunctionDef(name="__repr__" | "extra_repr"):
                return
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns", "decorator_list", "op", "ops", "ctx"):
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    self.visit(child)

    def statement(self, node: ast.stmt) -> None:
        match node:
            case ast.Expr(value=ast.Constant()):
                return  # a docstring
            case ast.Return(value=ast.expr() as value) if self.text(value) != "None":
                self.replace(value, "None")
            case ast.AugAssign():
                self.between(self.end(node.target), self.start(node.value),
                             {f"{a}=": f"{b}=" for a, b in ARITHMETIC.items()} | {"@=": "="})
                self.between(self.end(node.target), self.start(node.value),
                             {f"{a}=": "=" for a in ARITHMETIC})
            case ast.FunctionDef() | ast.ClassDef():
                for decorator in node.decorator_list:
                    self.found.append(Mutant(self.start(decorator) - 1, self.end(decorator), ""))
            case ast.If() | ast.While():
                self.replace(node.test, f"not ({self.text(node.test)})")
        if isinstance(node, ast.Expr | ast.Assign | ast.AugAssign | ast.Raise | ast.Continue
                      | ast.Break | ast.Assert):
            self.replace(node, "pass")

    def expression(self, node: ast.expr) -> None:
        match node:
            case ast.Constant(value=bool(value)):
                self.replace(node, str(not value))
            case ast.Constant(value=int(value)):
                self.replace(node, str(0 if value == 1 else value + 1))
            case ast.Constant(value=float(value)):
                self.replace(node, repr(1.1 * value or 1.0))
            case ast.Compare():
                for left, right in pairwise([node.left, *node.comparators]):
                    self.between(self.end(left), self.start(right), COMPARISONS)
            case ast.BinOp():
                self.between(self.end(node.left), self.start(node.right), ARITHMETIC)
            case ast.BoolOp():
                for left, right in pairwise(node.values):
                    self.between(self.end(left), self.start(right), {"and": "or", "or": "and"})
            case ast.UnaryOp(op=ast.Not() | ast.USub() | ast.Invert()):
                self.replace(node, f"({self.text(node.operand)})")
            case ast.IfExp():
                self.replace(node.test, f"not ({self.text(node.test)})")
            case ast.Slice():
                for bound in filter(None, (node.lower, node.upper, node.step)):
                    self.replace(bound, "")
            case ast.Call():
                self.call(node)
            case ast.Name(id=name) if name in SWAPS:
                self.replace(node, SWAPS[name])
            case ast.Attribute(attr=name) if name in SWAPS:
                self.found.append(Mutant(self.end(node) - len(name), self.end(node), SWAPS[name]))

    def call(self, node: ast.Call) -> None:
        """Keyword arguments dropped; f(x) and x.f() are x."""
        arguments = sorted([*node.args, *node.keywords], key=self.start)
        for i, argument in enumerate(arguments):
            if isinstance(argument, ast.keyword):
                start = self.end(arguments[i - 1]) if i else self.start(argument)
                self.found.append(Mutant(start, self.end(argument), ""))
        name = getattr(node.func, "attr", getattr(node.func, "id", "S"))
        if name in KEPT or name.lstrip("_")[:1].isupper() or node.keywords:
            return
        if len(node.args) == 1 and not isinstance(node.args[0], ast.Starred | ast.GeneratorExp):
            self.replace(node, f"({self.text(node.args[0])})")
        elif not node.args and isinstance(node.func, ast.Attribute):
            self.replace(node, f"({self.text(node.func.value)})")


def mutants(source: bytes) -> list[Mutant]:
    """All mutants of a module that are Python, without messages, annotations and docstrings."""
    mutator = Mutator(source)
    mutator.visit(ast.parse(source))
    good = []
    for mutant in sorted(set(mutator.found)):
        with suppress(SyntaxError):
            ast.parse(mutant.apply(source))
            good.append(mutant)
    return good


def copy_tree(folder: Path) -> None:
    """The package and its tests; of the rest, which nobody changes, links."""
    for path in ROOT.iterdir():
        if path.name in ("nbrec", "tests"):
            shutil.copytree(path, folder / path.name,
                            ignore=shutil.ignore_patterns("__pycache__"))
        elif path.name[0] != ".":
            (folder / path.name).symlink_to(path)


def fork(folder: Path, tests: list[str], limit: float, modules: Path | None = None) -> int:
    """Run the tests of a copy in a child process, whose status says whether they passed.

    After ``limit`` seconds it ends itself. ``modules`` is where it writes what it has imported.
    """
    os.environ["PYTHONPATH"] = str(folder)  # for processes that the tests start
    if pid := os.fork():
        return pid
    status = 1
    try:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.alarm(math.ceil(limit))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        os.chdir(folder)
        sys.path.insert(0, str(folder))
        if modules is None:
            silence = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silence, 1), os.dup2(silence, 2)
        import hypothesis
        import pytest

        hypothesis.settings.register_profile("mutants", derandomize=True, database=None,
                                             deadline=None)
        hypothesis.settings.load_profile("mutants")
        status = int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist",
                                  "-W", "ignore::pytest.PytestAssertRewriteWarning", *tests]))
        if modules is not None:
            modules.write_text("\n".join(
                name for name, module in list(sys.modules.items()) if "nbrec" not in name and
                not (getattr(module, "__file__", None) or "").startswith(str(folder))))
    finally:
        sys.stdout.flush()
        os._exit(status)


def survivors(module: str, chosen: list[Mutant], tests: list[str], jobs: int) -> Iterator[Mutant]:
    """The mutants under which all tests pass."""
    source = (ROOT / module).read_bytes()
    running: dict[int, tuple[Mutant | None, Path]] = {}

    def wait() -> tuple[Mutant | None, Path, bool]:
        """Until a child ends, with all that it started: its mutant, its copy, whether it passed."""
        pid, status = os.wait()
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        return *running.pop(pid), status == 0

    with tempfile.TemporaryDirectory(prefix="mutants-") as temporary:
        os.environ["NUMBA_CACHE_DIR"] = f"{temporary}/numba"
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        sys.dont_write_bytecode = True
        free = [Path(temporary, str(i)) for i in range(jobs)]
        for folder in free:
            folder.mkdir()
            copy_tree(folder)
        try:
            began, loaded = time.monotonic(), Path(temporary, "modules")
            running[fork(free[0], tests, 600, loaded)] = None, free[0]
            if not wait()[2]:
                raise SystemExit("the tests fail without any change")
            limit = 20 + 4 * jobs * (time.monotonic() - began)  # beyond it, a loop has no end
            for name in loaded.read_text().split("\n"):
                with suppress(Exception):
                    importlib.import_module(name)
            todo = list(reversed(chosen))
            while todo or running:
                while todo and free:
                    mutant, folder = todo.pop(), free.pop()
                    (folder / module).write_bytes(mutant.apply(source))
                    running[fork(folder, tests, limit)] = mutant, folder
                mutant, folder, passed = wait()
                free.append(folder)
                if passed:
                    yield mutant
        finally:
            for pid in running:
                with suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("module", help="such as nbrec/models/graph.py")
    parser.add_argument("--tests", nargs="+", help="files, or tests as pytest names them; default: "
                        "tests/test_MODULE.py")
    parser.add_argument("--sample", type=int, help="so many mutants, drawn at random; default: all")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--lines", help="only the mutants that begin on these lines: 100-180")
    parser.add_argument("--jobs", type=int, default=1, choices=(1, 2), help="at the same time")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the temporary folder goes, too
    module = str(Path(asked.module).resolve().relative_to(ROOT))
    source = (ROOT / module).read_bytes()
    tests = asked.tests or [f"tests/test_{Path(module).stem}.py"]
    chosen = mutants(source)
    if asked.lines:
        low, _, high = asked.lines.partition("-")
        chosen = [m for m in chosen
                  if int(low) <= m.line(source) <= int(high or low)]
    total = len(chosen)
    if asked.sample and asked.sample < total:
        chosen = sorted(random.Random(asked.seed).sample(chosen, asked.sample))
    left = 0
    for mutant in survivors(module, chosen, tests, asked.jobs):
        left += 1
        print(f"{module}:{mutant.line(source)}\n{mutant.shown(source)}", end="", flush=True)
    print(f"{module}: {total} mutants, {len(chosen)} tried (seed {asked.seed}), "
          f"{len(chosen) - left} killed ({1 - left / max(1, len(chosen)):.1%}), {left} survived")


if __name__ == "__main__":
    main()
