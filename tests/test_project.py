"""The frame: files that must say the same, notebooks that must be clean, and the build's logic."""

import ast
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

import nbrec
from nbrec.book import prose
from nbrec.recommenders import MODELS

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SETUP = "# On Colab: install the package."


def load(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "book" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


build, check = load("build"), load("check")


def cells(notebook, kind="code"):
    return [c for c in json.loads(notebook.read_text(encoding="utf-8"))["cells"]
            if c["cell_type"] == kind]


def tracked():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.splitlines() if (ROOT / name).exists()]


def requirements(text):
    """name -> list of (operator, version) from lines such as `torch>=2.4,<3`."""
    found = {}
    for name, bounds in re.findall(r'"([A-Za-z][\w.-]*)((?:[<>=!~]=?[\w.*]+,?)+)', text):
        found[name.lower()] = re.findall(r"([<>=]=?)([\d.]+)", bounds)
    return found


def numbers(version):
    return tuple(int(n) for n in re.findall(r"\d+", version)[:3])


def test_every_dependency_is_pinned_within_its_bounds():
    pins = dict(re.findall(r"^([\w.-]+)==([\w.]+)$", (ROOT / "constraints.txt").read_text(), re.M))
    pins = {name.lower().replace("_", "-"): version for name, version in pins.items()}
    wanted = requirements((ROOT / "pyproject.toml").read_text().split("[project.urls]")[0])
    wanted.pop("mamba-ssm"), wanted.pop("setuptools")
    assert len(wanted) > 20 and pins["torch"] == "2.13.0"
    for name, bounds in wanted.items():
        assert name in pins, f"{name} is not pinned"
        for operator, bound in bounds:
            inside = {">=": numbers(pins[name]) >= numbers(bound),
                      "<": numbers(pins[name]) < numbers(bound)}[operator]
            assert inside, f"{name}=={pins[name]} is not {operator}{bound}"


def test_the_package_itself_pins_nothing():
    base = (ROOT / "pyproject.toml").read_text().split("dependencies = [")[1].split("]")[0]
    bounds = [b for group in requirements(base).values() for b in group]
    assert bounds and {operator for operator, _ in bounds} == {">="}


def test_conda_and_make_install_the_same():
    pip = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"][-1]["pip"]
    assert pip == ["--constraint constraints.txt", "--editable .[book,test,graphs,text]"]
    make = (ROOT / "Makefile").read_text()
    assert "--constraint constraints.txt --editable '.[book,test,graphs,text]'" in make
    assert "mamba" not in make


def test_the_public_address_stands_in_one_place_and_the_others_follow():
    address = build.address()
    slug = address.split("/", 3)[3]
    for notebook in NOTEBOOKS:
        setup = [c for c in cells(notebook) if "".join(c["source"]).startswith(SETUP)]
        assert len(setup) == 1, notebook.name
        assert f"git+{address}" in "".join(setup[0]["source"]), notebook.name
    for name in ("README.md", "CITATION.cff", "pyproject.toml"):
        assert address in (ROOT / name).read_text(), name
    assert f"colab.research.google.com/github/{slug}/" in (ROOT / "README.md").read_text()


def test_setup_cells_are_equal():
    assert len({"".join(c["source"]) for n in NOTEBOOKS for c in cells(n)
                if "".join(c["source"]).startswith(SETUP)}) == 1


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebooks_are_stored_clean(notebook):
    assert all(not c["outputs"] and c["execution_count"] is None for c in cells(notebook))
    build.check_parameters(notebook)
    first = [c for c in cells(notebook) if "parameters" in c["metadata"].get("tags", [])][0]
    assert 'profile = "sample"' in "".join(first["source"])


def test_the_book_lists_every_page():
    listed = build.pages()
    assert [p for p in listed if p.startswith("notebooks")] == [
        f"notebooks/{n.stem}" for n in NOTEBOOKS]
    assert {p for p in listed if p.startswith("book")} == {
        f"book/{p.stem}" for p in (ROOT / "book").glob("*.md")}


def test_every_citation_has_its_entry():
    known = set(re.findall(r"^@\w+\{(\S+),", (ROOT / "references.bib").read_text(), re.M))
    pages = [*(ROOT / "book").glob("*.md"), *NOTEBOOKS]
    cited = {key.strip() for page in pages
             for keys in re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", page.read_text(encoding="utf-8"))
             for key in keys.split(",")}
    assert cited and cited <= known, sorted(cited - known)


SVG = "{http://www.w3.org/2000/svg}"
DIAGRAMS = sorted((ROOT / "book" / "diagrams").glob("*.svg"))


@pytest.mark.parametrize("path", DIAGRAMS, ids=lambda p: p.stem)
def test_a_diagram_can_be_read(path):
    """On a phone, which shows 360 of its units on 340 pixels or more; aloud; and in the dark."""
    root = ElementTree.parse(path).getroot()
    width, height = (float(n) for n in root.get("viewBox").split()[2:])
    assert (width, float(root.get("width")), float(root.get("height"))) == (360, 360, height)
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert ids == [f"{path.stem}-{part}" for part in ("title", "desc", "head")]
    assert root.get("role") == "img" and root.get("aria-labelledby") == " ".join(ids[:2])
    assert len(root.find(f"{SVG}title").text) > 5 and len(root.find(f"{SVG}desc").text) > 50
    style = root.find(f"{SVG}style").text
    assert style == ElementTree.parse(DIAGRAMS[0]).getroot().find(f"{SVG}style").text
    sizes = [float(size) for size in re.findall(r"([\d.]+)px", style)]
    assert len(sizes) == 4 and min(sizes) >= 10
    assert not re.search("font-size|font=", path.read_text(encoding="utf-8").replace(style, ""))
    dark = re.findall(r"\{ (--ink[^}]*) \}", style)
    assert len(dark) == 3 and dark[1] == dark[2] != dark[0] and "url(" not in style


def test_diagrams_have_the_colours_of_their_models():
    colours = {name: model.colour for name, model in MODELS.items()}
    colours["transformer+gat"] = MODELS["transformer"].hybrids["gat"]
    for stem, name in (("transformer-block", "transformer"), ("mamba-block", "mamba"),
                       ("mlstm-block", "xlstm"), ("message-passing", "lightgcn"),
                       ("fusion", "transformer+gat")):
        text = (ROOT / "book" / "diagrams" / f"{stem}.svg").read_text(encoding="utf-8")
        assert f"--light: {colours[name]};" in text, stem


def test_every_diagram_stands_in_one_chapter_and_in_its_page():
    shown = [(n.stem, alt, name) for n in NOTEBOOKS for c in cells(n, "markdown") for alt, name in
             re.findall(r"!\[([^]]*)\]\(\.\./book/diagrams/([\w.-]+)\)", "".join(c["source"]))]
    assert sorted(name for _, _, name in shown) == [path.name for path in DIAGRAMS]
    assert all(len(alt) > 20 for _, alt, _ in shown)
    page = '<p><img alt="a" src="../_images/fusion.svg" /><img alt="b" src="../_images/no.svg"></p>'
    fusion = (ROOT / "book" / "diagrams" / "fusion.svg").read_text(encoding="utf-8")
    assert build.inline_diagrams(page) == (
        f'<p>{fusion}<img alt="b" src="../_images/no.svg"></p>')


GROUND = {"checks", "files", "paths"}
FLOORS = {  # what a part of the package may import of it, the ground apart
    "data": {"data"}, "models": {"models", "sequences"}, "sequences": set(),
    "ordering": set(), "preprocessing": {"ordering", "sequences"}, "metrics": {"sequences"},
    "losses": set(), "provenance": set(),
    "records": {"metrics", "provenance"}, "tuning": {"recommenders", "records"},
    "evaluate": {"metrics", "sequences"},
    "train": {"losses", "metrics", "models", "sequences", "train"},
    "content": {"data", "models", "sequences"}, "trained": {"models", "sequences", "train"},
    "recommenders": {"content", "data", "models", "train", "trained"},
    "profiles": {"preprocessing", "recommenders", "tuning"},
    "tasks": {"data", "evaluate", "metrics", "models", "preprocessing", "profiles", "provenance",
              "recommenders", "records", "sequences", "train", "trained"},
    "experiment": {"data", "preprocessing", "profiles", "recommenders", "records", "sequences",
                   "tasks"},
}


def test_the_package_lists_its_commands():
    made = subprocess.run([sys.executable, "-m", "nbrec"], cwd=ROOT, capture_output=True, text=True,
                          check=True)
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts)
               for path in (ROOT / "nbrec").rglob("*.py")
               if path.name != "__main__.py" and '__name__ == "__main__"' in path.read_text()}
    assert set(re.findall(r"python -m (\S+)", made.stdout)) == modules


def test_every_floor_of_the_package_stands_on_those_below():
    root, wrong = ROOT / "nbrec", []
    core = {*FLOORS, *GROUND}
    found = {path.stem for path in root.glob("*.py")} | {p.name for p in root.glob("*/")}
    assert found - {"__init__", "__main__", "__pycache__"} == core | {"book", "play"}
    for path in root.rglob("*.py"):
        part = path.relative_to(root).parts[0].removesuffix(".py")
        allowed = FLOORS.get(part, set()) | (set() if part in GROUND else GROUND)
        if part in ("book", "play"):
            allowed = core | {part}
        for node in ast.walk(ast.parse(path.read_text())):
            module = getattr(node, "module", None) or ""
            names = [f"{module}.{a.name}" for a in node.names] if (
                isinstance(node, ast.ImportFrom)) else (
                [a.name for a in node.names] if isinstance(node, ast.Import) else [])
            used = {name.split(".")[1] for name in names if name.startswith("nbrec.")}
            if part == "experiment":
                used -= {"experiment"}  # by name, for worker processes
            wrong += [f"{path.relative_to(root)} imports {u}" for u in sorted(used - allowed)]
    assert not wrong, wrong


@pytest.mark.parametrize("refuse", [True, False])
def test_architectures_need_torch_and_numpy_alone(refuse):
    """Where other packages are there, they are loaded when they are used."""
    code = """
import importlib, pkgutil, sys
import torch  # with what it needs itself

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in {*sys.stdlib_module_names, "torch", "numpy", "nbrec"}:
            raise ImportError(f"{name} is not allowed here")

if REFUSE:
    sys.meta_path.insert(0, Refuse())
import nbrec.models
for module in pkgutil.iter_modules(nbrec.models.__path__, "nbrec.models."):
    if REFUSE or not module.name.endswith("_loops"):
        importlib.import_module(module.name)
assert not {"numba", "scipy", "pandas"} & set(sys.modules)
"""
    code = code.replace("REFUSE", str(refuse))
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert not done.returncode, done.stderr


# Numbers in prose that no `says` stands behind yet: no chapter may have more.
UNCHECKED = {
    "00": 2, "01": 3, "02": 9, "03": 7, "04": 5, "05": 4, "06": 9, "07": 4, "08": 0, "09": 2,
    "10": 5, "11": 22, "12": 27, "13": 4, "14": 3, "15": 5, "16": 8, "17": 1, "18": 7, "19": 11}


@pytest.mark.parametrize("notebook", sorted((ROOT / "notebooks").glob("*.ipynb")),
                         ids=lambda path: path.stem)
def test_no_number_in_prose_is_new_and_unchecked(notebook):
    found = prose.unchecked(notebook)
    assert len(found) <= UNCHECKED.get(notebook.stem[:2], 0), "\n".join(map(str, found))


def test_a_sentence_that_a_record_has_left_behind_stops_the_build(tmp_path):
    notebook, out = tmp_path / "n.ipynb", tmp_path / "out"
    notebook_with(notebook, 'from nbrec.book.prose import says\nsays("0.20", 0.31)')
    made = json.loads(notebook.read_text())
    made["cells"].insert(1, {"cell_type": "markdown", "id": "m", "metadata": {}, "source": (
        "## What was found\n\nIt reaches 0.20 on them. Nothing else.")})
    notebook.write_text(json.dumps(made))
    with pytest.raises(SystemExit, match="n.ipynb: '0.20' in the sentence 'It reaches 0.20 on "
                                         "them.' is '0.31' now"):
        build.execute([notebook], "laptop", out)


def test_one_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == nbrec.__version__
    assert f"[{nbrec.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_no_file_speaks_of_a_machine():
    local = re.compile(r"/(?:work|home|root|tmp)/\w|\.library")
    hits = [f"{path.name}: {line.strip()[:80]}" for path in tracked()
            if path.suffix in {".py", ".md", ".yml", ".toml", ".ipynb", ".cff", ".bib", ".txt"}
            and path != Path(__file__)
            for line in path.read_text(encoding="utf-8").splitlines() if local.search(line)]
    assert not hits, hits


def notebook_with(path, code):
    source = lambda text: text.splitlines(keepends=True)  # noqa: E731
    made = [("profile = 'sample'\n", {"tags": ["parameters"]}), (code, {})]
    path.write_text(json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {
        "kernelspec": {"name": "python3", "display_name": "p", "language": "python"}}, "cells": [
        {"cell_type": "code", "id": f"c{i}", "metadata": meta, "outputs": [],
         "execution_count": None, "source": source(text)} for i, (text, meta) in enumerate(made)]}))


def test_a_notebook_runs_again_only_if_it_changed(tmp_path, capsys):
    notebook, out = tmp_path / "n.ipynb", tmp_path / "out"
    notebook_with(notebook, "print('profile is', profile)")
    [made] = build.execute([notebook], "laptop", out)
    assert "profile is laptop" in made.read_text()
    first = made.stat().st_mtime_ns
    build.execute([notebook], "laptop", out)
    assert made.stat().st_mtime_ns == first and "unchanged" in capsys.readouterr().out
    notebook_with(notebook, "1 / 0")
    with pytest.raises(SystemExit, match="code cell 3") as error:
        build.execute([notebook], "laptop", out)
    assert "ZeroDivisionError" in str(error.value) and "1 / 0" in str(error.value)
    assert made.stat().st_mtime_ns == first  # the finished one is kept
    assert sorted(p.name for p in out.iterdir()) == ["n.ipynb", "n.key"]


def test_a_killed_kernel_is_named_with_the_way_out(tmp_path):
    notebook, out = tmp_path / "n.ipynb", tmp_path / "out"
    notebook_with(notebook, "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(SystemExit, match="n.ipynb: its process was killed.*smaller profile"):
        build.execute([notebook], "laptop", out)
    assert not list(out.iterdir())


def test_a_notebook_without_the_parameter_is_refused(tmp_path):
    notebook = tmp_path / "n.ipynb"
    notebook_with(notebook, "pass")
    notebook.write_text(notebook.read_text().replace("profile = 'sample'", "other = 1"))
    with pytest.raises(SystemExit, match="expected one"):
        build.check_parameters(notebook)


def test_unknown_profile_is_refused():
    result = subprocess.run([sys.executable, ROOT / "book" / "build.py", "--profile", "huge"],
                            capture_output=True, text=True)
    assert result.returncode and "sample, laptop, full" in result.stderr


def test_broken_links_are_found(tmp_path):
    (tmp_path / "a.html").write_text(
        '<a href="b.html#there">x</a><a href="b.html#gone">x</a><a href="c.html">x</a>'
        '<img src="no.png" alt="x"><img src="yes.png"><a href="https://elsewhere.org/x">x</a>')
    (tmp_path / "b.html").write_text('<p id="there">x</p>')
    (tmp_path / "yes.png").write_bytes(b"")
    problems = check.check_links(tmp_path)
    assert len(problems) == 4
    for text, word in zip(sorted(problems), ("#gone", "c.html", "image yes.png", "no.png"),
                          strict=True):
        assert word in text


TABLE = """<!doctype html><table class="nbrec-sortable">
<thead><tr><th>&nbsp;</th><th>&nbsp;</th><th colspan="2">run</th></tr>
<tr><th>&nbsp;</th><th>&nbsp;</th><th>mean</th><th>change</th></tr></thead><tbody>
<tr><th rowspan="2">GAT</th><th>HR</th><td>0.1753 ± 0.0105</td><td>−0.02</td></tr>
<tr><th>MRR</th><td>–</td><td>17.5%</td></tr>
<tr><th>EASE</th><th>HR</th><td>12,839</td><td>+0.3</td></tr>
<tr><th>Markov</th><th>HR</th><td>9 ± 1</td><td>–</td></tr>
</tbody></table><script>SCRIPT</script>"""


def test_tables_sort_and_filter(tmp_path):
    """By hand; and the check of the built book sees a script that sorts or filters wrongly."""
    api = pytest.importorskip("playwright.sync_api")
    if check.chromium() is None:
        pytest.skip("Chromium is not installed")
    script = (ROOT / "book" / "assets" / "tables.js").read_text(encoding="utf-8")

    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=check.chromium(),
                                             args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 500, "height": 400})

        def open_with(script):
            page.set_content(TABLE.replace("SCRIPT", script))
            return page

        def column(n):
            return page.evaluate("n => [...document.querySelectorAll('tbody tr:not([hidden])')]"
                                 ".map(r => r.cells[n].textContent)", n)

        open_with(script)
        assert column(0) == ["GAT", "GAT", "EASE", "Markov"]  # the heading of two rows, repeated
        mean, change = page.get_by_role("button", name="mean"), page.get_by_role(
            "button", name="change")
        mean.click()
        assert column(2) == ["0.1753 ± 0.0105", "9 ± 1", "12,839", "–"]
        mean.click()
        assert column(2) == ["12,839", "9 ± 1", "0.1753 ± 0.0105", "–"]
        change.press("Enter")
        assert column(3) == ["−0.02", "+0.3", "17.5%", "–"]
        headings = page.locator("thead th[aria-sort]")
        assert [headings.nth(i).get_attribute("aria-sort") for i in range(4)] == [
            "none", "none", "none", "ascending"]
        page.get_by_role("button", name="sort by heading 1").click()
        assert column(0) == ["EASE", "GAT", "GAT", "Markov"]
        page.get_by_label("Filter rows").fill("hr gat")
        assert column(0) == ["GAT"] and column(1) == ["HR"]
        assert page.get_by_role("status").text_content() == "1 of 4 rows"

        assert check.check_tables(open_with(script)) == []
        for right, wrong, complaint in (
                ("number(a) - number(b)", "a.localeCompare(b)", "is not"),
                ("direction * compare", "compare", "not descending"),
                ('.replace(/\\u2212/g, "-")', "", "column 4 is not ascending"),
                ("words.every", "words.some", "keeps"),
                ("[...filled, ...keyed", "[...keyed", "is not ascending"),
                ("repeatHeadings(rows);", "", "rows of [3, 4] cells")):
            assert script.count(right) == 1, right
            problems = check.check_tables(open_with(script.replace(right, wrong)))
            assert any(complaint in p for p in problems), (right, problems)
        assert "no box" in check.check_tables(open_with(""))[0]
        browser.close()


# Hidden lines that a chapter may have: one on results 40; one that teaches 100, and 15 a cell.
HIDDEN = {"hide-input", "remove-input", "hide-cell", "remove-cell"}


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda p: p.stem)
def test_hidden_lines(notebook):
    sizes = [sum(bool(line.strip()) for line in "".join(c["source"]).splitlines())
             for c in cells(notebook) if HIDDEN & set(c["metadata"].get("tags", []))]
    results = int(notebook.stem[:2]) >= 12
    assert sum(sizes) <= (40 if results else 100), sum(sizes)
    assert results or max(sizes) <= 15, sizes
