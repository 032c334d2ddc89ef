"""The platform: every page and control, on a catalogue of twelve films made for it."""

import base64
import html
import json
import re
import shutil
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("streamlit", reason="the platform is installed with the extra 'app'")
import streamlit as st
from markdown_it import MarkdownIt
from streamlit.testing.v1 import AppTest

from nbrec import paths, records
from nbrec.book import plots
from nbrec.models.item_knn import ItemKNN
from nbrec.play import bundle, explore, tmdb
from nbrec.play.bundle import Bundle
from nbrec.recommenders import create
from nbrec.sequences import Fold, Sequences

ROOT = Path(__file__).resolve().parent.parent
EVIL = ('<img src=x onerror=alert(1)> **bold** [link](http://evil.example) '
        '![i](http://evil.example/i.png) :red[r] $x^2$ `c` <script>alert(2)</script> & "q"')
MOVIES = np.arange(10, 130, 10)  # twelve films in the catalogue
UNKNOWN, NOWHERE = 500, 510  # outside the catalogue; the content model has read the first
TITLES = {10: "Shining, The (1980)", 20: f"{EVIL} (1999)", 30: "Amélie (2001)",
          **{m: f"Film {m} (1990)" for m in MOVIES[3:]},
          UNKNOWN: "New Film (2018)", NOWHERE: "Nobody Read It (2018)"}
FILMS = pd.DataFrame({"movieId": list(TITLES), "title": list(TITLES.values()),
                      "genres": ["Horror|War" if i % 2 else "Drama" for i in range(len(TITLES))]})
USERS = [[0, 1, 2], [0, 1, 3, 4], [0, 2, 4], [5, 6, 0], [7, 8, 9], [1, 10, 11, 0],  # training
         [0, 1, 4], [5, 6, 7],  # validation
         [0, 1, 3, 2], [5, 0, 6, 9]]  # test


def made(name):
    lengths = [len(u) for u in USERS]
    sequences = Sequences(np.arange(1, 11), np.concatenate(USERS).astype(np.int32),
                          np.r_[0, np.cumsum(lengths)], MOVIES.astype(np.int64))
    fold = Fold(0, np.arange(6), np.array([6, 7]), np.array([8, 9]))
    train, validation, _ = fold.parts(sequences)
    others = None
    if name == "minibert":
        vectors = np.eye(12, dtype=np.float32)
        vectors[:3, 11] = [0.9, 0.5, 0.1]  # so films 0, 1, 2 are near film 11, in this order
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        model = create("minibert", pd.Series(dtype=str)).keep(vectors)
        model.remember(train)
        others = (np.array([UNKNOWN]), vectors[[11]])
    elif name == "item-knn":
        model = ItemKNN().fit(train)
    else:
        model = create("transformer", d_model=8, n_layers=1, n_heads=2, max_epochs=1)
        model.fit(train, validation)
    return Bundle(name, model, sequences, fold, {"profile": "sample", "dataset": "made"},
                  {"hr@20": 0.25, "ndcg@20": 0.125}, {}, others)


@pytest.fixture(scope="module")
def bundles():
    return {name: made(name) for name in ("transformer", "item-knn", "minibert")}


@pytest.fixture
def visit(bundles, monkeypatch, tmp_path):
    """A function that opens a page; what the embedded models would give is made here."""
    there = dict(bundles)

    def load(name):
        if name not in there:
            raise FileNotFoundError(name)
        return there[name]

    def forbidden(*_, **__):
        raise AssertionError("TMDB was asked")

    monkeypatch.setattr(bundle, "load", load)
    monkeypatch.setattr(bundle, "available", lambda: list(there))
    monkeypatch.setattr(bundle, "films", lambda: FILMS.copy())
    monkeypatch.setattr(bundle, "FOLDER", tmp_path)
    monkeypatch.setattr(tmdb, "fetch_metadata", forbidden)
    monkeypatch.delenv("TMDB_API_KEY", raising=False)

    def clear():
        st.cache_data.clear()
        st.cache_resource.clear()

    def visit(page, without=(), **state):
        for name in without:
            del there[name]
        app = AppTest.from_file(str(ROOT / "app" / f"{page}.py"), default_timeout=60)
        for name, value in state.items():
            app.session_state[name] = value
        return run(app)

    clear()
    yield visit
    clear()


def run(app):
    app.run()
    assert not app.exception, [e.message for e in app.exception]
    return app


class Page(HTMLParser):
    """Tags and text of what a page shows as HTML."""

    def __init__(self, app):
        super().__init__()
        self.tags, self.sources, self.items, self.words = set(), [], [], ""
        for part in app.html:
            self.feed(part.value)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        given = dict(attributes)
        if tag == "img":
            self.sources.append(given["src"])
        if tag == "li":
            self.items.append(["", given.get("class")])
        assert not any(name.startswith("on") for name in given)

    def handle_data(self, data):
        self.words += data
        if self.items:
            self.items[-1][0] += data


def cards(app):
    """Of each film shown: its title, the number below it, and whether it is marked."""
    found = []
    for words, kind in Page(app).items:
        if match := re.match(r"\d+\.\s*(.*?)(?:confidence|cosine|seen by) ([\d.]+)", words,
                             re.DOTALL):
            found.append((match[1], float(match[2]), kind == "truth"))
    return found


def shown(*items):
    names = {0: "The Shining (1980)", 1: f"{EVIL} (1999)", 2: "Amélie (2001)"}
    return [names.get(i, f"Film {MOVIES[i]} (1990)") for i in items]


def similarities():
    """Cosines between the columns of the training users, written out."""
    m = np.zeros((6, 12))
    for row, user in enumerate(USERS[:6]):
        m[row, user] = 1
    norms = np.linalg.norm(m, axis=0)
    s = m.T @ m / np.outer(norms, norms)
    np.fill_diagonal(s, 1)
    return s


def infos(app):
    return " ".join(i.value for i in app.info)


# --- pages ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", ["main", "home", "playground", "movie_space"])
def test_a_page_opens(visit, page):
    app = visit(page)
    assert len(app.title) == 1
    assert not app.error and not app.warning


def test_home_lists_the_trained_models_with_their_accuracy(visit):
    page = Page(visit("home"))
    for words in ("Transformer", "Item-KNN", "MiniBERT", "0.250", "0.125"):
        assert words in page.words
    assert "xLSTM" not in page.words


def test_home_says_how_to_train_when_nothing_is(visit):
    app = visit("home", without=("transformer", "item-knn", "minibert"))
    assert [c.value for c in app.code] == ["python -m nbrec.play.bundle"]


def test_nothing_is_reported_or_fetched():
    config = tomllib.loads((ROOT / "app" / ".streamlit" / "config.toml").read_text())
    assert config["browser"] == {"gatherUsageStats": False}
    assert config["server"]["address"] == "localhost" and not config["server"]["showEmailPrompt"]
    assert (ROOT / "book" / "assets" / "favicon.svg").is_file()  # else one is fetched; see main.py
    assert "--browser.gatherUsageStats false" in (ROOT / "Makefile").read_text()


# --- playground ----------------------------------------------------------------------------------


def test_a_model_that_is_not_trained_says_how_to_train_it(visit):
    app = visit("playground")
    app.selectbox(key="model").set_value("xlstm+gat")
    run(app)
    assert [c.value for c in app.code] == ["python -m nbrec.play.bundle xlstm+gat"]
    assert "xLSTM + GAT has not been trained" in app.warning[0].value
    assert not cards(app)
    app.selectbox(key="model").set_value("item-knn")
    assert len(cards(run(app))) == 12


def test_an_empty_history_gives_the_most_popular_films(visit):
    app = visit("playground", model="item-knn", k=3)
    assert infos(app).startswith("The history is empty")
    times = np.bincount(np.concatenate(USERS[:6]), minlength=12)
    assert times[0] == 5 and times[1] == 3  # the training users alone
    assert [c[0] for c in cards(app)][:2] == shown(0, 1)
    # No model's answer has no confidence, but the share of the training users.
    assert [c[1] for c in cards(app)][:2] == pytest.approx([500 / 6, 50], abs=0.05)


def test_a_history_of_unknown_films_falls_back_to_what_films_are_about(visit):
    app = visit("playground", model="transformer", k=4, history=[UNKNOWN])
    assert "MiniBERT" in infos(app) and "Transformer knows no film" in infos(app)
    assert [c[0] for c in cards(app)] == shown(11, 0, 1, 2)
    assert not [s for s in app.selectbox if s.key == "why"]


@pytest.mark.parametrize("history, without", [([NOWHERE], ()), ([UNKNOWN], ("minibert",))])
def test_a_history_of_which_nothing_is_known_gives_popular_films(visit, history, without):
    app = visit("playground", without, model="item-knn", k=1, history=history)
    assert infos(app).startswith("Item-KNN knows no film of this history")
    assert [c[0] for c in cards(app)] == shown(0)


def test_recommendations_are_the_best_scores_and_confidences_their_softmax(visit):
    app = visit("playground", model="item-knn", k=3, history=[10, UNKNOWN])
    scores = similarities()[0].copy()
    scores[0] = -1  # seen
    best = np.argsort(-scores, kind="stable")[:3]
    assert [c[0] for c in cards(app)] == shown(*best)
    share = np.exp(scores[best]) / np.exp(scores[best]).sum()
    np.testing.assert_allclose([c[1] for c in cards(app)], 100 * share, atol=0.051)
    assert re.fullmatch(r"Recommendations \(\d+ ms\)", app.subheader[0].value)
    assert "Passed over" in infos(app) and "New Film" in infos(app)


def test_k_and_seen_films(visit):
    app = visit("playground", model="item-knn", history=[10, 20])
    met = similarities()[[0, 1]].sum(0) > 0  # films that somebody has seen with one of the two
    assert met.sum() == 9
    assert len(cards(app)) == 7 and "something to say of 7 films only" in infos(app)
    app.toggle(key="hide").set_value(False)
    titles = [c[0] for c in cards(run(app))]
    assert len(titles) == 9 and set(shown(0, 1)) == set(titles[:2])
    app.selectbox(key="model").set_value("transformer")
    assert len(cards(run(app))) == 12  # of each film a network has an opinion
    app.selectbox(key="model").set_value("item-knn")
    app.slider(key="k").set_value(1)
    assert cards(run(app))[0][1] == 100.0


def test_a_test_user_comes_with_the_true_next_film(visit, bundles):
    app = visit("playground", model="item-knn", k=12)
    next(b for b in app.button if b.label == "Random test user").click()
    run(app)
    truth = app.session_state["truth"]
    user = USERS[truth["user"] - 1]
    assert truth["user"] in (9, 10)
    assert app.multiselect(key="history").value == [10 * i + 10 for i in user[:-1]]
    scores = similarities()[user[:-1]].sum(0)
    scores[user[:-1]] = -1
    rank = int((scores >= scores[user[-1]]).sum())  # ties count against it
    assert f"has rank {rank}." in Page(app).words
    # All films of which Item-KNN has something to say are shown, one of them marked.
    assert [c[0] for c in cards(app) if c[2]] == (shown(user[-1]) if scores[user[-1]] > 0 else [])
    app.selectbox(key="model").set_value("transformer")
    run(app)
    assert app.session_state["truth"] == truth
    scores = bundles["transformer"].recommender.score([np.array(user[:-1])])[0]
    scores[user[:-1]] = -np.inf
    assert f"has rank {int((scores >= scores[user[-1]]).sum())}." in Page(app).words
    app.multiselect(key="history").set_value([int(MOVIES[user[-1]])])
    assert "is in the history now (the history is not the user's any more)" in Page(run(app)).words


def test_a_rank_on_a_user_of_the_training_is_called_worthless(visit):
    truth = {"user": 1, "movie": 30, "history": [10, 20]}
    app = visit("playground", model="item-knn", history=[10, 20], truth=truth)
    assert "this model was not held back from that user" in Page(app).words
    truth = {"user": 9, "movie": 30, "history": [10, 20]}
    app = visit("playground", model="item-knn", history=[10, 20], truth=truth)
    assert "held back" not in Page(app).words


def test_a_history_of_one_genre(visit):
    app = visit("playground", genre="Horror", length=3)
    next(b for b in app.button if b.label.startswith("Random history")).click()
    history = run(app).session_state["history"]
    assert len(set(history)) == 3
    genres = FILMS.set_index("movieId")["genres"]
    assert all("Horror" in genres[m] for m in history)
    assert app.session_state["truth"] is None


@pytest.mark.parametrize("label, after", [
    ("First", [30, 10, 20, 40]), ("Earlier", [10, 30, 20, 40]), ("Later", [10, 20, 40, 30]),
    ("Last", [10, 20, 40, 30]), ("Remove", [10, 20, 40]), ("Reverse all", [40, 30, 20, 10]),
    ("Empty", [])])
def test_the_order_of_the_history_can_be_changed(visit, label, after):
    app = visit("playground", model="item-knn", history=[10, 20, 30, 40], place=2)
    next(b for b in app.button if b.label == label).click()
    assert run(app).session_state["history"] == after
    if label in ("First", "Earlier", "Later", "Last"):  # it can be moved on
        assert after[app.selectbox(key="place").value] == 30


def test_moves_end_at_the_ends(visit):
    app = visit("playground", model="item-knn", history=[10, 20], place=0)
    next(b for b in app.button if b.label == "Earlier").click()
    assert run(app).session_state["history"] == [10, 20]
    assert app.selectbox(key="place").value == 0


def test_why_names_the_films_that_add_to_a_score(visit):
    app = visit("playground", model="item-knn", k=2, history=[10, 60, 100])
    asked = MOVIES.tolist().index(app.selectbox(key="why").value)
    words = Page(app).words
    for item in (0, 5, 9):
        assert f"{similarities()[asked, item]:+.3f}" in words
    assert explore.HOW["contributions"] in " ".join(m.value for m in app.markdown)
    app.selectbox(key="model").set_value("transformer")
    assert "the same for every recommended film" in " ".join(c.value for c in run(app).caption)


# --- Letterboxd ----------------------------------------------------------------------------------

RATINGS = b"""Date,Name,Year,Letterboxd URI,Rating
2024-01-03,The Shining,1980,https://boxd.it/1,4
2024-01-01,Film 40,1991,https://boxd.it/2,5
2024-01-02,Amelie,2001,https://boxd.it/3,1
2024-01-04,<b>Nothing</b> like it,1970,https://boxd.it/4,5
"""


def upload(app, name, content):
    app.file_uploader(key="export").upload(name, content)
    return run(app)


def test_an_export_becomes_a_history_and_says_what_matched(visit):
    app = upload(visit("playground", model="item-knn"), "ratings.csv", RATINGS)
    assert app.session_state["history"] == [40, 10]  # the film of one star is left out
    matched, lost = (d.value for d in app.dataframe)
    assert matched["title"].tolist() == ["Film 40 (1990)", "Amélie (2001)", "Shining, The (1980)"]
    assert matched["how"].tolist() == ["year off by one", "accent", "article"]
    assert lost["name"].tolist() == ["<b>Nothing</b> like it"]
    assert "Matched 3 of 4 films" in " ".join(m.value for m in app.markdown)
    app.toggle(key="liked").set_value(False)
    assert run(app).session_state["history"] == [40, 30, 10]
    app.number_input(key="newest").set_value(2)
    assert run(app).session_state["history"] == [30, 10]


def test_what_is_no_history_is_refused_with_the_reason(visit):
    app = visit("playground", model="item-knn", history=[10])
    upload(app, "watchlist.csv", RATINGS)
    assert "have not been seen" in html.unescape(app.error[0].value.replace("\\", ""))
    assert app.session_state["history"] == [10] and not app.dataframe
    upload(app, "ratings.csv", RATINGS.replace(b"1980", b"<i>**x**"))
    assert MarkdownIt().render(app.error[0].value).count("<") == 2  # a paragraph and nothing else
    upload(app, "ratings.csv", RATINGS)
    assert not app.error and len(app.dataframe) == 2


# --- what is hostile -----------------------------------------------------------------------------


def test_hostile_titles_are_shown_as_they_are(visit):
    truth = {"user": 9, "movie": 20, "history": [10]}
    playground = visit("playground", model="item-knn", history=[10], truth=truth)
    history = visit("playground", model="item-knn", history=[20, UNKNOWN])
    space = visit("movie_space", space="minibert", film=20)
    for app in (playground, history, space):
        page = Page(app)
        assert page.tags <= {"ol", "li", "img", "strong", "div", "span", "p"}
        assert EVIL in page.words or app is space
        assert all(s.startswith("data:image/svg+xml;base64,") for s in page.sources)
        for part in (*app.markdown, *app.caption, *app.info, *app.warning, *app.error):
            assert "evil.example" not in part.value
    assert Page(visit("movie_space", space="minibert", film=120)).words.count(EVIL) == 1


def test_words_mean_nothing_to_markdown(visit):
    visit("home")
    import shared
    rendered = MarkdownIt().enable(["table", "strikethrough"]).render(shared.markdown(EVIL))
    assert html.unescape(rendered) == f"<p>{EVIL}</p>\n"
    assert all(rf"\{sign}" in shared.markdown(EVIL) for sign in ":$[]!<`")


@pytest.mark.parametrize("name", [EVIL, "]]>\x00\x0b\ud800", "", "M" * 300])
def test_a_drawn_poster_is_a_picture_of_its_title_and_nothing_else(visit, name):
    visit("home")
    import shared
    head, _, code = shared.drawn(name, "19<9", 7).partition(",")
    assert head == "data:image/svg+xml;base64"
    picture = ElementTree.fromstring(base64.b64decode(code))
    names = [e.tag.split("}")[1] for e in picture.iter()]
    assert set(names) == {"svg", "rect", "path", "g", "text", "tspan"}
    assert picture[-1][-1].text == "19<9"
    lines = [e.text or "" for e in picture.iter() if e.tag.endswith("tspan")]
    assert len(lines) <= 5 and max(map(len, lines)) <= 12
    if name == EVIL:
        assert lines[0] == "<img src=x o"  # words that are too long are cut


# --- posters -------------------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch, visit, tmp_path):
    """What TMDB is asked, by a stand-in that has a poster for each film."""
    calls = []

    def fetch(movies, links, path, key, **_):
        calls.append((movies["movieId"].tolist(), key))
        if key == "wrong":
            raise PermissionError("TMDB refused the <b>key</b>")
        rows = {c: [""] * len(movies) for c in tmdb.COLUMNS}
        rows |= {"movieId": movies["movieId"], "title": movies["title"], "poster_path": [
            '/x.jpg" onerror="alert(1)' if m == 30 else f"/p{m}.jpg" for m in movies["movieId"]]}
        path = tmp_path / "posters.csv"
        pd.DataFrame(rows)[list(tmdb.COLUMNS)].to_csv(path, index=False)
        return path

    monkeypatch.setattr(tmdb, "fetch_metadata", fetch)
    return calls


def test_posters_need_a_key_and_consent(visit, asked):
    app = visit("playground", model="item-knn", k=4)
    assert not app.text_input and not asked
    app.checkbox(key="consent").set_value(True)
    run(app)
    assert not asked and "TMDB gives every account a key" in " ".join(c.value for c in app.caption)
    app.text_input(key="tmdb").set_value("my.key")
    sources = Page(run(app)).sources
    assert not app.warning, app.warning[0].value
    assert len(asked) == 1 and asked[0][1] == "my.key" and len(asked[0][0]) == 4
    assert sources[:2] == ["https://image.tmdb.org/t/p/w185/p10.jpg",
                           "https://image.tmdb.org/t/p/w185/p20.jpg"]
    assert tmdb.ATTRIBUTION in " ".join(c.value for c in app.caption)
    assert not any("my.key" in part.value for part in (*app.html, *app.markdown, *app.caption))
    app.checkbox(key="consent").set_value(False)
    assert not any("tmdb" in source for source in Page(run(app)).sources) and len(asked) == 1


def test_a_key_of_the_environment_is_not_used_without_consent(visit, asked, monkeypatch):
    monkeypatch.setenv("TMDB_API_KEY", "of.the.machine")
    app = visit("movie_space", space="minibert", film=120, neighbours=3)
    assert not asked
    app.checkbox(key="consent").set_value(True)
    run(app)
    assert [key for _, key in asked] == ["of.the.machine"] and not app.text_input
    assert asked[0][0] == [10, 20, 30]
    sources = Page(app).sources
    assert "tmdb" in sources[0] and sources[2].startswith("data:")  # its address was none


def test_a_refused_key_leaves_drawn_posters(visit, asked):
    app = visit("playground", model="item-knn", k=2, consent=True, tmdb="wrong")
    assert len(asked) == 1
    assert "<b>" not in app.warning[0].value and "refused" in app.warning[0].value
    assert all(source.startswith("data:") for source in Page(app).sources)


# --- movie space ---------------------------------------------------------------------------------


def figure(app):
    return json.loads(app.get("plotly_chart")[0].proto.spec)


def points(trace):
    """(N, 3) coordinates of a trace; Plotly may pack its numbers."""
    return np.stack([np.frombuffer(base64.b64decode(v["bdata"]), v["dtype"]) if isinstance(v, dict)
                     else np.array(v, float) for v in (trace[a] for a in "xyz")], 1)


def test_the_nearest_films_stand_around_the_film_as_far_as_they_differ(visit):
    app = visit("movie_space", space="minibert", film=120, neighbours=3)
    cosines = np.array([c / np.hypot(1, c) for c in (0.9, 0.5, 0.1)])
    assert [c[0] for c in cards(app)] == shown(0, 1, 2)
    np.testing.assert_allclose([c[1] for c in cards(app)], cosines, atol=5e-4)
    _, around, middle = figure(app)["data"]
    np.testing.assert_allclose(points(middle), 0, atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(points(around), axis=1), 1 - cosines, atol=1e-6)
    assert (around["text"][0], around["hovertext"][0]) == ("The Shining", "The Shining (1980)")
    assert all("<img" not in around[kind][1] for kind in ("text", "hovertext"))


def test_one_can_walk_to_a_neighbour_and_back(visit):
    app = visit("movie_space", space="minibert", film=120, neighbours=3)
    back = next(b for b in app.button if b.label == "Back")
    assert back.disabled
    app.selectbox(key="next").set_value(20)
    run(app)
    assert app.selectbox(key="film").value == 20 and app.selectbox(key="next").value is None
    next(b for b in app.button if b.label == "Back").click()
    run(app)
    assert app.selectbox(key="film").value == 120
    assert next(b for b in app.button if b.label == "Back").disabled


def test_other_vectors_have_other_neighbours(visit):
    app = visit("movie_space", space="minibert", film=120, neighbours=3)
    near = cards(app)
    app.selectbox(key="space").set_value("transformer")
    assert cards(run(app)) != near and app.selectbox(key="film").value == 120
    assert "item-knn" not in app.selectbox(key="space").options
    app.selectbox(key="space").set_value("gat")
    assert run(app).code[0].value == "python -m nbrec.play.bundle gat"


# --- comparison ----------------------------------------------------------------------------------


def test_the_comparison_shows_the_records(visit):
    app = visit("comparison", run="sample")
    df = records.load_records(paths.reference_folder("sample"))
    assert len(app.tabs) == 7 and len(app.image) == 6 and not app.info
    ours = df[df["model"] == "transformer"].groupby("variant")["hr@20"].mean()
    words = Page(app).words
    assert f"{ours['original']:.4f}" in words and "0.3260" in words  # and the thesis's
    first = app.image[0].value
    app.selectbox(key="metric").set_value("hr@20")
    assert run(app).image[0].value != first
    app.selectbox(key="variant").set_value("truncated")
    assert f"{ours['truncated']:.4f}" in Page(run(app)).words
    assert app.selectbox(key="variant").options == list(df["variant"].unique())


def test_the_comparison_shows_the_reference_that_is_there(visit):
    """Complete, incomplete or missing: the page stands, and says what the run has."""
    app = visit("comparison")
    assert app.selectbox(key="run").value == "laptop"
    assert "being made anew" in app.caption[0].value


@pytest.mark.parametrize("kept", [
    {"popularity": ["truncated-fold00"]},
    {"popularity": ["original-fold00"], "markov": ["original-fold01"]},
    {"item-knn": ["original-fold00", "original-fold01"], "markov": ["truncated-fold00"]},
    {"transformer": ["original-fold00", "truncated-fold00"], "xlstm+gat": ["original-fold00"]},
    {m: [f"{v}-fold0{i}" for v in ("original", "truncated") for i in range(3)]
     for m in ("popularity", "markov", "item-knn", "tfidf")},
], ids=["one run", "no fold in common", "two variants", "neural", "classical"])
def test_a_reference_in_the_making_is_shown_as_far_as_it_goes(visit, monkeypatch, tmp_path, kept):
    sample = paths.reference_folder("sample") / "ml-latest-small"
    for model, runs in kept.items():
        (tmp_path / "laptop" / model).mkdir(parents=True)
        for name in runs:
            shutil.copy(sample / model / f"{name}.json", tmp_path / "laptop" / model)
    monkeypatch.setattr(paths, "reference_folder", lambda profile: tmp_path / profile)
    app = visit("comparison")
    assert len(app.tabs) == 7
    for variant in app.selectbox(key="variant").options:
        app.selectbox(key="variant").set_value(variant)
        said = run(app).caption[0].value
        assert all(plots.model_label(m) in said for m in kept)


def test_missing_records_are_named(visit, monkeypatch, tmp_path):
    def nowhere(profile):
        raise FileNotFoundError(f"no folder results/{profile}")

    monkeypatch.setattr(paths, "reference_folder", nowhere)
    app = visit("comparison")
    assert "`results/laptop` has no records yet" in app.caption[0].value
    assert "results/laptop" in app.warning[0].value.replace("\\", "") and not app.tabs
