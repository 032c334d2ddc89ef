"""What the pages share: models that are loaded once, films as they are shown, and posters.

A title may hold anything. It is escaped wherever it meets HTML, SVG or Markdown.
"""

from __future__ import annotations

import base64
import html
import io
import os
import re
import textwrap
import threading
from collections.abc import Callable, Iterable, Mapping

import matplotlib.pyplot as plt
import pandas as pd
import streamlit as st

from nbrec import paths, profiles, recommenders
from nbrec.book import plots
from nbrec.data import text, titles
from nbrec.play import bundle, explore, tmdb, tmdb_client
from nbrec.play.bundle import Bundle

ACKNOWLEDGEMENT = (
    "Films, users and models come from MovieLens (ml-latest-small) of GroupLens, University of "
    "Minnesota: F. Maxwell Harper and Joseph A. Konstan, “The MovieLens Datasets: History and "
    "Context”, ACM Transactions on Interactive Intelligent Systems 5(4), 2015.")
IMAGES = "https://image.tmdb.org/t/p/w185"
PAPERS = ("#0072B2", "#006B4E", "#7A5200", "#003F66", "#682C82", "#993C00", "#57606a", "#97326F")

STYLE = """<style>
ol.films { list-style: none; margin: 0; padding: 0; display: grid; gap: 0.9rem;
  grid-template-columns: repeat(auto-fill, minmax(8.2rem, 1fr)); }
ol.films li { margin: 0; padding: 0.4rem; border-radius: 6px; font-size: 0.85rem; line-height: 1.25;
  border: 1px solid transparent; overflow-wrap: anywhere; }
ol.films li.truth { border: 2px solid #D55E00; }
ol.films img { width: 100%; aspect-ratio: 2 / 3; object-fit: cover; border-radius: 4px;
  display: block; margin-bottom: 0.35rem; }
.bar { height: 0.45rem; margin: 0.25rem 0; border-radius: 3px; background: rgba(128,128,128,.25); }
.bar span { display: block; height: 100%; border-radius: 3px; background: #0072B2; }
.bar span.less { background: #D55E00; }
.small { font-size: 0.8rem; opacity: 0.85; }
ol.why { margin: 0; padding-left: 1.6rem; max-width: 40rem; }
ol.why li { margin-bottom: 0.3rem; overflow-wrap: anywhere; }
.figure { background: #fff; border-radius: 4px; padding: 0.4rem; }
.figure svg { width: 100%; height: auto; max-width: 60rem; }
.scroll { overflow-x: auto; }
.scroll table { border-collapse: collapse; }
.scroll td, .scroll th { padding: 0.25rem 0.5rem; font-size: 0.85rem;
  border-bottom: 1px solid rgba(128, 128, 128, 0.3); }
.scroll caption { caption-side: bottom; text-align: left; font-size: 0.85rem; padding-top: 0.4rem; }
</style>"""


# --- models --------------------------------------------------------------------------------------


@st.cache_resource(show_spinner="Loading the model …", max_entries=32)
def _load(name: str, changed: int) -> Bundle:
    found = bundle.load(name)
    explore.recommend(found, [0], 1)  # the first call of some models compiles them
    return found


def model(name: str) -> Bundle:
    """The model of this name, loaded once for all sessions, and anew when its file has changed."""
    path = bundle.FOLDER / f"{name}.safetensors"
    return _load(name, path.stat().st_mtime_ns if path.exists() else 0)


def models() -> list[str]:
    """Those that are trained first, then all others that a bundle can hold."""
    there = bundle.available()
    return there + [m for m in profiles.PROFILES["sample"].models if m not in there
                    and m in (*recommenders.names(), *_hybrids()) and m != "tfidf"]


def _hybrids() -> list[str]:
    return [f"{backbone}+{context}" for backbone in recommenders.names("sequence")
            for context in recommenders.names("content", "graph") if context != "tfidf"]


def label(name: str) -> str:
    return plots.model_label(name) + ("" if name in bundle.available() else " (not trained)")


def model_or_stop(name: str) -> Bundle:
    """The model; where there is none, the page ends with how to train it."""
    try:
        return model(name)
    except (FileNotFoundError, ValueError) as error:
        if isinstance(error, FileNotFoundError):
            st.warning(f"{plots.model_label(name)} has not been trained here. This trains it in "
                       "about a minute; then choose it again:")
        else:
            st.error(markdown(str(error)))
        st.code(f"python -m nbrec.play.bundle {name}", language="bash")
        st.stop()


# --- films ---------------------------------------------------------------------------------------


# Kept as a resource: every session reads the same tables, and none may change them.
@st.cache_resource
def films() -> pd.DataFrame:
    """All films by movieId: movieId, title and genres as MovieLens writes them, name, year."""
    table = bundle.films().set_index("movieId", drop=False)
    table["name"], table["year"] = zip(*map(titles.split, table["title"]), strict=True)
    return table


@st.cache_resource
def genres() -> list[str]:
    """All genres, in the order of the alphabet."""
    found = {genre for joined in films()["genres"] for genre in joined.split("|")}
    return sorted(found - {"", "(no genres listed)"})


class Names(dict):
    """movieId -> title, also of films that are in no table."""

    def __missing__(self, movie: int) -> str:
        return f"film {movie}"


@st.cache_resource
def shown() -> Names:
    """movieId -> title in natural order; where two films share one, with its movieId behind it."""
    table = films()
    names = table["name"] + (" (" + table["year"] + ")").where(table["year"] != "", "")
    twice = names.duplicated(keep=False)
    return Names(names.mask(twice, names + table.index.map(" [{}]".format)))


def markdown(words: str) -> str:
    """Words that Markdown shows as they are."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", words)


def drawn(name: str, year: str, number: int = 0) -> str:
    """A poster for a film that has none: SVG of its first name and year, as a data address."""
    name = "".join(c if c.isprintable() else " " for c in name.partition(" (")[0])
    lines = textwrap.wrap(name, 12, max_lines=5, placeholder=" …") or [" "]
    spans = "".join(f'<tspan x="12" dy="20">{html.escape(line)}</tspan>' for line in lines)
    svg = (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 120 180">'
           f'<rect width="120" height="180" fill="{PAPERS[number % len(PAPERS)]}"/>'
           '<path d="M0 8h120M0 172h120" stroke="#fff" stroke-opacity=".55" stroke-width="6" '
           'stroke-dasharray="6 6"/>'
           '<g fill="#fff" font-family="sans-serif">'
           f'<text y="22" font-size="13.5" font-weight="bold">{spans}</text>'
           f'<text x="12" y="160" font-size="13">{html.escape(year)}</text></g></svg>')
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode("utf-8", "replace")).decode()


def cards(movies: Iterable[int], below: Iterable[str], posters: Mapping[int, str],
          marked: int | None = None) -> None:
    """Films side by side, as many as fit: poster, place, title, and HTML below it."""
    table, names, items = films(), shown(), []
    for place, (movie, after) in enumerate(zip(movies, below, strict=True), 1):
        name, year = table.loc[movie, ["name", "year"]] if movie in table.index else (
            names[movie], "")
        address = posters.get(movie) or drawn(name, year, movie)
        items.append(
            f'<li{" class=truth" if movie == marked else ""}>'
            f'<img src="{html.escape(address)}" alt="" referrerpolicy="no-referrer">'
            f"<strong>{place}.</strong> {html.escape(names[movie])}{after}</li>")
    st.html(f'<ol class="films">{"".join(items)}</ol>')


def bar(share: float, words: str) -> str:
    """HTML of a bar of this share of the width, orange if it is negative, and words below it."""
    width = min(abs(share), 1)
    return (f'<div class="bar"><span{" class=less" if share < 0 else ""} '
            f'style="width:{width:.1%}"></span></div>'
            f'<span class="small">{html.escape(words)}</span>')


# --- figures and tables of the book ---------------------------------------------------------------

_drawing = threading.Lock()  # matplotlib has one place for the figures of all threads


def svg(draw: Callable[[], plt.Figure]) -> str:
    """What a function of `nbrec.book.plots` draws, in the book's style, as SVG."""
    with _drawing:
        plots.use_style()
        figure, file = draw(), io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
        plt.close(figure)
    return file.getvalue()


def show_table(styler) -> None:
    """A table of `nbrec.book.plots` that scrolls in its own box."""
    st.html(f'<div class="scroll">{styler.to_html()}</div>')


# --- posters -------------------------------------------------------------------------------------

_asking = threading.Lock()  # the answers of all sessions go into one file


def consent() -> str:
    """A box to agree to posters; the key if there is one and the user agrees, else ""."""
    agreed = st.checkbox("Show posters from TMDB", key="consent", persist_state="session", help=(
        "Sends titles and years of the films on this page to api.themoviedb.org, with your key; "
        "your browser then loads the pictures from image.tmdb.org. Without it nothing leaves this "
        "computer, and posters are drawn."))
    if not agreed:
        return ""
    key = os.environ.get("TMDB_API_KEY", "").strip() or st.text_input(
        "Your TMDB key", type="password", key="tmdb", persist_state="session",
        autocomplete="off").strip()
    st.caption(tmdb.ATTRIBUTION if key else
               f"No key yet, so posters are drawn. {tmdb_client.KEY_HELP}.")
    return key


def posters(movies: Iterable[int], key: str) -> dict[int, str]:
    """movieId -> address of the poster; empty, and nothing is asked, without a key."""
    chosen = films().reindex(list(movies)).dropna(subset="title")
    if not key or chosen.empty:
        return {}
    path = paths.data_folder() / "posters" / "posters.csv"
    try:
        with _asking, st.spinner("Asking TMDB …"):
            found = text.read_metadata(tmdb.fetch_metadata(
                chosen, None, path, key, retries=1, timeout=5, progress=False))
    except (ValueError, OSError) as error:  # PermissionError and ConnectionError are among them
        st.warning(markdown(f"No posters: {error}"))
        return {}
    return {movie: IMAGES + poster for movie, poster in zip(
        found["movieId"], found["poster_path"], strict=True)
        if re.fullmatch(r"/[\w-]+\.(?:jpg|png)", str(poster), re.ASCII)}
