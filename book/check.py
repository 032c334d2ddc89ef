"""Open every page of the built book as a reader does; `make check` calls this.

Fails on a broken link, anchor or image, on any request to another host, on an error in the
browser's console, on a formula that was not typeset, on a table that sorts or filters its rows
wrongly, and on a page wider than its window, at desktop and phone width. Uses the playground and
the movie space, and holds what they say against nbrec.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parent.parent
HTML = ROOT / "_build" / "html"
WIDTHS = {"desktop": (1280, 900), "phone": (390, 844)}
# The theme speaks of a service that this book does not use, and of a reader's first visit.
HARMLESS = ("THEBE_JS_URL", "Got invalid theme mode")
OVERFLOW = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
TYPESET = """() => document.querySelector('.math') === null
    || document.querySelector('mjx-container') !== null"""
ALL_SET = "() => window.MathJax?.startup?.promise?.then(() => true)"
PATIENCE = 30_000  # milliseconds: a busy machine may need many of them to set a page's formulas


STANDS_ABOVE = """button => {
    const left = (cell) => Math.round(cell.getBoundingClientRect().left);
    const cells = [...button.closest('table').tBodies[0].rows[0].cells];
    return cells.map(left).indexOf(left(button.parentElement));
}"""


class _Page(HTMLParser):
    """Collects the ids of a page and what it refers to."""

    def __init__(self, path: Path):
        super().__init__()
        self.ids, self.references, self.images = set(), [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.ids |= {values[name] for name in ("id", "name") if values.get(name)}
        for name in ("href", "src"):
            if values.get(name):
                self.references.append(values[name])
        if tag == "img":
            self.images.append((values.get("src", ""), values.get("alt")))


def documents(html: Path) -> list[Path]:
    """The pages of the book, without the theme's templates."""
    return [path for path in sorted(html.rglob("*.html")) if "_static" not in path.parts]


def check_links(html: Path) -> list[str]:
    """Every broken internal link, anchor or image of the pages below a folder, as sentences."""
    pages = {path.resolve(): _Page(path) for path in documents(html)}
    problems = []
    for path, page in pages.items():
        name = path.relative_to(html.resolve())
        for reference in page.references:
            parts = urlsplit(reference)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if target.is_dir():
                target = target / "index.html"
            if not target.exists():
                problems.append(f"{name}: {reference} does not exist")
            elif parts.fragment and target in pages and (
                    unquote(parts.fragment) not in pages[target].ids):
                problems.append(f"{name}: {reference} names an anchor that is not there")
        problems += [f"{name}: image {source} has no alternative text"
                     for source, alt in page.images if not alt and "logo" not in source]
    return problems


def value_in(text: str) -> tuple[int, float, str]:
    """What a cell is sorted by: the number in front, else its words; empty cells come last."""
    plain = re.sub(r"(?<=\d),(?=\d{3})", "", text.replace("\u2212", "-"))
    number = re.match(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", plain, re.I)
    if text in ("", "–"):
        return 2, 0.0, ""
    return (0, float(number[0]), "") if number else (1, 0.0, text)


def check_tables(page) -> list[str]:
    """Sort each sortable table of a page by each of its columns of numbers, and filter it."""
    problems = []
    for number, table in enumerate(page.query_selector_all("table.nbrec-sortable"), 1):
        def rows(table=table):
            return [[" ".join(text.split()) for text in row] for row in table.evaluate(
                "t => [...t.tBodies[0].rows].filter(r => !r.hidden)"
                ".map(r => [...r.cells].map(c => c.textContent))")]

        def wrong(what, number=number):
            problems.append(f"sortable table {number}: {what}")

        before = rows()
        bar = table.evaluate_handle("t => t.previousElementSibling").as_element()
        box = bar and bar.query_selector("input")
        if box is None:
            wrong("has no box to filter its rows")
            continue
        widths = {len(row) for row in before}
        if len(widths) > 1:
            wrong(f"has rows of {sorted(widths)} cells")
            continue
        buttons = table.query_selector_all("thead button")
        if len(buttons) != max(widths):
            wrong(f"has {len(buttons)} headings to sort by for {max(widths)} columns")
            continue
        # A click on a heading may be far outside the window: the table scrolls in its own box.
        press = "b => b.click()"
        for button in buttons:
            column = button.evaluate(STANDS_ABOVE)
            values = [value_in(row[column]) for row in before]
            if 1 in {kind for kind, _, _ in values}:
                continue  # words: their order is the browser's
            for direction, sign in (("ascending", 1), ("descending", -1)):
                button.evaluate(press)
                expected = [row for _, row in sorted(
                    zip(values, before, strict=True),
                    key=lambda pair: (pair[0][0], sign * pair[0][1]))]
                if rows() != expected:
                    wrong(f"column {column + 1} is not {direction} after a click")
                if button.evaluate("b => b.parentElement.ariaSort") != direction:
                    wrong(f"column {column + 1} does not say that it is {direction}")
            button.evaluate(press)
            if rows() != before:
                wrong(f"column {column + 1}: a third click does not bring the first order back")
        word = " ".join(before[-1][:2])
        box.fill(word)
        kept = [row for row in before
                if all(part in " ".join(row).lower() for part in word.lower().split())]
        said = bar.query_selector("output").text_content()
        if rows() != kept or said != f"{len(kept)} of {len(before)} rows":
            wrong(f"{word!r} keeps {len(rows())} rows, says {said!r}; expected {len(kept)}")
        box.fill("")
        if rows() != before:
            wrong("an empty box does not bring all rows back")
    return problems


def play(page, name: str, kind: str) -> list[str]:
    """What goes wrong when the pages that one plays with are used."""
    if name not in ("playground", "movie_space"):
        return []
    sys.path.insert(0, str(ROOT))
    import check_play

    try:
        if name == "movie_space":
            return check_play.check_movie_space(page)
        problems, seconds = check_play.check_playground(page)
    except Exception as error:  # playwright's own, of an element that does not come
        return [f"stopped: {error}"]
    print(f"playground ({kind}), seconds of the first and of a later recommendation: " + ", ".join(
        f"{model} {first:.2f} {later:.3f}" for model, (first, later) in seconds.items()))
    return problems


def chromium() -> str | None:
    """The system's browser; None leaves the choice to playwright's own."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


def open_pages(html: Path, screenshots: Path | None) -> list[str]:
    """What goes wrong when Chromium opens each page from the folder."""
    from playwright.sync_api import TimeoutError as PlaywrightTimeout
    from playwright.sync_api import sync_playwright

    problems = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium(),
            args=["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
                  "--disable-background-networking", "--disable-component-update",
                  "--disable-sync", "--enable-unsafe-swiftshader"])  # draws 3-D without a GPU
        for kind, (width, height) in WIDTHS.items():
            page = browser.new_page(viewport={"width": width, "height": height})
            seen: list[str] = []
            page.route("**/*", lambda route: route.continue_() if route.request.url.startswith(
                ("file:", "data:", "blob:")) else route.abort())
            page.on("request", lambda request, seen=seen: seen.append(f"asks for {request.url}")
                    if not request.url.startswith(("file:", "data:", "blob:")) else None)
            page.on("console", lambda message, seen=seen: seen.append(f"console: {message.text}")
                    if message.type == "error" else None)
            page.on("pageerror", lambda error, seen=seen: seen.append(f"script error: {error}"))
            for path in documents(html):
                name = path.relative_to(html)
                seen.clear()
                page.goto(path.as_uri(), wait_until="load")
                try:
                    page.wait_for_function(TYPESET, timeout=PATIENCE)
                    page.evaluate(ALL_SET)
                except PlaywrightTimeout:
                    seen.append("formulas are not typeset")
                page.wait_for_timeout(300)  # for what other scripts have to say
                if page.evaluate("() => document.querySelectorAll('mjx-merror').length"):
                    seen.append("a formula has an error")
                if (extra := page.evaluate(OVERFLOW)) > 1:
                    seen.append(f"is {extra} px wider than its window")
                if kind == "desktop":
                    seen += check_tables(page)
                seen += play(page, name.stem, kind)
                problems += [f"{name} ({kind}): {text}" for text in seen
                             if not any(word in text for word in HARMLESS)]
                if screenshots:
                    screenshots.mkdir(parents=True, exist_ok=True)
                    target = screenshots / f"{name.with_suffix('').as_posix().replace('/', '-')}"
                    page.screenshot(path=f"{target}-{kind}.png", full_page=True)
        browser.close()
    return problems


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--screenshots", action="store_true", help="into _build/screenshots")
    parser.add_argument("--html", type=lambda name: Path(name).resolve(), default=HTML)
    options = parser.parse_args()
    if not (options.html / "index.html").exists():
        sys.exit(f"{options.html} holds no book: run `make book` first")
    own = Path(os.environ.get("PLAYWRIGHT_BROWSERS_PATH", Path.home() / ".cache/ms-playwright"))
    if not (chromium() or own.exists()):
        sys.exit("Chromium is not installed: `apt-get install chromium`, or `.venv/bin/playwright "
                 "install chromium`")
    folder = ROOT / "_build" / "screenshots" if options.screenshots else None
    problems = check_links(options.html) + open_pages(options.html, folder)
    if problems:
        sys.exit("\n".join([*problems, f"{len(problems)} problems"]))
    print(f"{len(documents(options.html))} pages: no problem")


if __name__ == "__main__":
    main()
