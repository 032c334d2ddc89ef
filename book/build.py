"""Run the notebooks of _toc.yml and build the book; `make book` calls this.

    python book/build.py --profile sample

A notebook runs again only if it, the package, the profile, the pinned versions or the data
changed. Nothing half-made replaces what was finished: notebooks and pages move into place last.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "_build"
# Files beside _config.yml that name the public address.
ADDRESSED = ("README.md", "CITATION.cff", "pyproject.toml", "_config.yml", "notebooks/*.ipynb",
             "book/*.md")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="sample")
    parser.add_argument("--set-address", metavar="URL", nargs="?", const="")
    options = parser.parse_args()
    if options.set_address is not None:
        return set_address(options.set_address)
    os.chdir(ROOT)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.path.insert(0, str(ROOT))
    from nbrec.profiles import PROFILES

    if options.profile not in PROFILES:
        sys.exit(f"PROFILE={options.profile}: expected one of {', '.join(PROFILES)}")
    began = time.perf_counter()
    notebooks = [ROOT / f"{page}.ipynb" for page in pages() if page.startswith("notebooks/")]
    executed = execute(notebooks, options.profile)
    print(f"notebooks: {time.perf_counter() - began:.0f} s; building the pages ...", flush=True)
    html = build(executed)
    print(f"\nThe book is ready after {time.perf_counter() - began:.0f} s. Open it in a browser:\n"
          f"  {(html / 'index.html').as_uri()}")


def pages() -> list[str]:
    """Every page of the book in order, as paths without suffix."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    chapters = [chapter["file"] for part in toc["parts"] for chapter in part["chapters"]]
    return [toc["root"], *chapters]


def execute(notebooks: list[Path], profile: str, folder: Path | None = None) -> list[Path]:
    """Run each notebook with papermill unless its last run still holds.

    Args:
        notebooks: in the order in which they run.
        profile: value of each notebook's parameter `profile`.
        folder: where executed notebooks go; `_build/executed/<profile>` by default.

    Returns:
        The executed notebooks.
    """
    folder = folder or BUILD / "executed" / profile
    folder.mkdir(parents=True, exist_ok=True)
    shared = fingerprint(profile)
    quiet_kernels()
    done = []
    for number, notebook in enumerate(notebooks, 1):
        check_parameters(notebook)
        source = shared + notebook.read_bytes()
        output, stamp = folder / notebook.name, folder / f"{notebook.stem}.key"
        label = f"[{number}/{len(notebooks)}] {notebook.stem}"
        if output.exists() and stamp.exists() and stamp.read_text() == key(source, profile):
            print(f"{label}: unchanged", flush=True)
        else:
            print(f"{label}: running ...", end=" ", flush=True)
            began = time.perf_counter()
            run_notebook(notebook, output, profile)
            stamp.write_text(key(source, profile))  # the run may have downloaded the data
            print(f"{time.perf_counter() - began:.0f} s", flush=True)
        done.append(output)
    return done


def run_notebook(notebook: Path, output: Path, profile: str) -> None:
    """Execute one notebook in a kernel of its own; the output appears only if every cell ran.

    Raises:
        SystemExit: a cell failed, or the kernel was killed; the message names the notebook and the
            way out.
    """
    import papermill
    from nbclient.exceptions import DeadKernelError

    partial = output.with_name(f"{output.stem}.partial.ipynb")
    os.environ |= {"NBREC_BOOK": "1", "NBREC_NOTEBOOK": str(notebook), "PYTHONPATH": str(ROOT)}
    try:
        papermill.execute_notebook(str(notebook), str(partial), {"profile": profile},
                                   kernel_name="python3", cwd=str(notebook.parent),
                                   progress_bar=False, log_output=False)
        tidy(partial)
        os.replace(partial, output)
    except papermill.PapermillExecutionError as error:
        partial.unlink(missing_ok=True)
        trace = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error.traceback))
        sys.exit(f"\n{notebook.name} stopped in code cell {error.exec_count}:\n\n{error.source}\n\n"
                 f"{trace}\n\nFix it and run the command again: finished notebooks are kept.")
    except DeadKernelError:
        sys.exit(f"\n{notebook.name}: its process was killed, most likely because the memory ran "
                 f"out with profile {profile!r}. Close other programs or choose a smaller profile "
                 "(make book PROFILE=sample), and run the command again: finished notebooks are "
                 "kept.")
    finally:
        partial.unlink(missing_ok=True)


def tidy(path: Path) -> None:
    """Drop what belongs to the run and not to the page: standard error and papermill's cell."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        cell["outputs"] = [o for o in cell.get("outputs", []) if o.get("name") != "stderr"]
        if cell["cell_type"] != "code":
            del cell["outputs"]
        tags = cell["metadata"].get("tags", [])
        if "injected-parameters" in tags:
            cell["metadata"]["tags"] = [*tags, "remove-cell"]
    path.write_text(json.dumps(notebook), encoding="utf-8")


def check_parameters(notebook: Path) -> None:
    """papermill only warns of a parameter that a notebook does not have; here it is an error."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    tagged = [c for c in cells if "parameters" in c["metadata"].get("tags", [])]
    if len(tagged) != 1 or not re.search(r"^profile\s*=", "".join(tagged[0]["source"]), re.M):
        sys.exit(f"{notebook}: found {len(tagged)} cells tagged `parameters`; expected one, and in "
                 "it a line `profile = ...`")


def fingerprint(profile: str) -> bytes:
    """A hash of what every notebook depends on, itself apart."""
    digest = hashlib.sha256(profile.encode())
    for path in sorted([*ROOT.glob("nbrec/**/*.py"), *ROOT.glob("nbrec/*/*.csv"),
                        ROOT / "constraints.txt", *ROOT.glob("results/**/*.json"),
                        *ROOT.glob("results/*.csv")]):
        digest.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    return digest.digest()


def key(source: bytes, profile: str) -> str:
    """A hash of a notebook with its code, and of the profile's data as they are on disk now."""
    from nbrec.profiles import PROFILES

    digest = hashlib.sha256(source)
    for folder in (os.environ.get("NBREC_DATA"), ROOT / "data"):
        for path in sorted(Path(folder).glob(f"{PROFILES[profile].dataset}*")) if folder else []:
            digest.update(f"{path.name} {path.stat().st_size}".encode())
    return digest.hexdigest()


def quiet_kernels() -> None:
    """Kernels of the build read this configuration alone, and speak only of errors."""
    folder = BUILD / "ipython" / "profile_default"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ipython_kernel_config.py").write_text("c.IPKernelApp.log_level = 'ERROR'\n")
    os.environ["IPYTHONDIR"] = str(folder.parent)


def build(executed: list[Path]) -> Path:
    """Stage the sources, build them without a single warning, move the pages into place."""
    from importlib.resources import files

    source = BUILD / "source"
    shutil.rmtree(source, ignore_errors=True)
    (source / "notebooks").mkdir(parents=True)
    for name in ("_config.yml", "_toc.yml", "references.bib"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "book", source / "book", ignore=shutil.ignore_patterns("*.py"))
    for notebook in executed:
        shutil.copy(notebook, source / "notebooks")
    # Scripts and fonts that pages would otherwise ask a server for.
    assets = source / "_assets"
    shutil.copytree(ROOT / "book" / "assets", assets)
    shutil.copy(files("plotly") / "package_data" / "plotly.min.js", assets)
    mathjax = files("mathjax") / "static" / "mathjax" / "es5"
    for part in ("output/chtml/fonts/woff-v2", "input/tex/extensions"):
        shutil.copytree(mathjax / part, assets / "mathjax" / part)
    shutil.copy(mathjax / "tex-mml-chtml.js", assets / "mathjax")
    if {"book/playground", "book/movie_space"} & set(pages()):
        import play

        play.make(assets / "play", BUILD / "play")
    made = BUILD / "pages"
    shutil.rmtree(made, ignore_errors=True)
    command = [Path(sys.executable).with_name("jupyter-book"), "build", source, "--path-output",
               made, "--warningiserror", "--keep-going", "--quiet"]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"{result.stdout}\n{result.stderr}\nThe book was not built: each warning above "
                 "counts as an error.")
    new = made / "_build" / "html"
    script = re.compile(r'\s*<script src="[^"]*plotly\.min\.js[^"]*"></script>')
    for page in new.rglob("*.html"):
        whole = page.read_text(encoding="utf-8")
        # A list without list items misleads a screen reader.
        text = inline_diagrams(
            whole.replace('role="list" class="citation-list"', 'class="citation-list"'))
        if "Plotly.newPlot" not in text and "movie_space.js" not in text:  # 4 MB for nothing
            text = script.sub("", text)
        if text != whole:
            page.write_text(text, encoding="utf-8")
    html, old = BUILD / "html", BUILD / "html.old"
    shutil.rmtree(old, ignore_errors=True)
    if html.exists():
        html.rename(old)
    new.rename(html)
    shutil.rmtree(old, ignore_errors=True)
    return html


def inline_diagrams(page: str) -> str:
    """A page whose diagrams are part of it: their words can be searched and read aloud, and they
    follow the page's switch of light and dark, which an <img> cannot see."""
    def whole(image: re.Match) -> str:
        path = ROOT / "book" / "diagrams" / image[1]
        return path.read_text(encoding="utf-8") if path.exists() else image[0]

    return re.sub(r'<img [^>]*src="(?:\.\./)*_images/([\w-]+\.svg)"[^>]*>', whole, page)


def address() -> str:
    """The public address of the repository, from _config.yml."""
    return yaml.safe_load((ROOT / "_config.yml").read_text())["repository"]["url"].rstrip("/")


def set_address(url: str) -> None:
    """Carry a new public address to every file that names the old one."""
    if not re.fullmatch(r"https://[\w.-]+/[\w.-]+/[\w.-]+", url):
        sys.exit(f"URL={url!r}: expected the repository's page, as in https://github.com/you/nbrec")
    old = address()
    old_slug, slug = old.split("/", 3)[3], url.split("/", 3)[3]
    for pattern in ADDRESSED:
        for path in ROOT.glob(pattern):
            text = path.read_text(encoding="utf-8")
            new = text.replace(old, url).replace(f"github/{old_slug}", f"github/{slug}")
            if new != text:
                path.write_text(new, encoding="utf-8")
                print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
