"""Open every page of the built book as a reader does; `make check` calls this.

Fails on a broken link, anchor or image, on any request to another host, on an error in the
browser's console, on a formula that was not typeset, and on a page wider than its window, at
desktop and phone width.
"""

from __future__ import annotations

import argparse
import os
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
UNTYPESET = """() => document.querySelector('.math') !== null
    && document.querySelector('mjx-container') === null"""


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


def chromium() -> str | None:
    """The system's browser; None leaves the choice to playwright's own."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


def open_pages(html: Path, screenshots: Path | None) -> list[str]:
    """What goes wrong when Chromium opens each page from the folder."""
    from playwright.sync_api import sync_playwright

    problems = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium(),
            args=["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
                  "--disable-background-networking", "--disable-component-update",
                  "--disable-sync"])
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
                page.wait_for_timeout(1500 if "math" in path.read_text(encoding="utf-8") else 300)
                if page.evaluate(UNTYPESET):
                    seen.append("formulas are not typeset")
                if page.evaluate("() => document.querySelectorAll('mjx-merror').length"):
                    seen.append("a formula has an error")
                if (extra := page.evaluate(OVERFLOW)) > 1:
                    seen.append(f"is {extra} px wider than its window")
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
    parser.add_argument("--html", type=Path, default=HTML)
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
