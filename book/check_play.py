"""Use the pages "Playground" and "Movie space" as a reader does, and hold them against nbrec."""

from __future__ import annotations

import io
import time
import zipfile

import numpy as np

MODELS = ("item-knn", "transformer", "mamba", "xlstm", "xlstm+gat")
TITLES = ("toy story 1995", "usual suspects", "fargo")  # found by typing them
OUTSIDE = "stalker 1979"  # a film of the data that no model knows
CLOSE = 2e-3  # scores of the page and of nbrec: shown with three digits, weights are halves
# Seconds on a machine that does nothing else; a busy one may take this many times as long.
FIRST, LATER, PATIENCE = 3.0, 0.1, 4
DONE = "document.getElementById('{0}').textContent.includes(' ms')"


def check_playground(page) -> tuple[list[str], dict[str, tuple[float, float]]]:
    """What goes wrong on the page, and for each model the seconds of a first and a later answer.

    Args:
        page: of playwright; the playground has been opened in it.
    """
    from nbrec.play import bundle

    problems, seconds = [], {}
    page.wait_for_selector("#play-search:enabled", timeout=20_000)
    problems += _walk(page, "#play-search", ("play-user", "play-genre", "play-draw", "play-file",
                                             "play-k", "play-hide", "play-go"))
    for title in TITLES:
        _type(page, title)
    films = _movies(page, "play-history")
    if len(films) != len(TITLES):
        problems.append(f"{len(TITLES)} titles were typed, the history has {len(films)} films")
    for name in MODELS:
        first = _answer(page, name)
        if name == "item-knn":
            first = _timed(page, lambda: page.press("#play-go", "Enter"))
        later = min(_timed(page, lambda: page.press("#play-go", "Enter")) for _ in range(3))
        seconds[name] = first, later
        problems += [f"{name}: {what} took {found:.2f} s, expected {limit:g}" for what, found, limit
                     in (("the first recommendation", first, FIRST), ("a later one", later, LATER))
                     if found > limit * PATIENCE]
        problems += _same(page, bundle.load(name), name)
    page.click("#play-user")
    for name in MODELS:
        _answer(page, name)
        one = bundle.load(name)
        problems += _same(page, one, f"{name}, test user") + _rank(page, one) + _reasons(page, one)
    problems += _order(page) + _cold(page) + _files(page)
    return problems, seconds


def _walk(page, start: str, wanted: tuple[str, ...]) -> list[str]:
    """Tab has to come by these elements, and each it comes by has to have a name."""
    page.focus(start)
    visited, nameless = set(), []
    for _ in range(40):
        page.keyboard.press("Tab")
        at, name = page.evaluate("""() => {
            const e = document.activeElement;
            return [e.id, (e.getAttribute('aria-label') || e.textContent || e.title
                || (e.labels && [...e.labels].map(l => l.textContent).join()) || '').trim()];
        }""")
        visited.add(at)
        if not name and at.startswith("play"):
            nameless.append(at)
    return ([f"Tab does not reach {', '.join(missed)}"] if (missed := set(wanted) - visited) else []
            ) + [f"{at} has no name" for at in nameless]


def _type(page, title: str) -> None:
    page.fill("#play-search", "")
    page.type("#play-search", title)
    page.keyboard.press("Enter")


def _timed(page, act) -> float:
    """Seconds until the page says that it has an answer."""
    page.evaluate("document.getElementById('play-status').textContent = ''")
    began = time.perf_counter()
    act()
    page.wait_for_function(DONE.format("play-status"), timeout=60_000)
    return time.perf_counter() - began


def _answer(page, name: str) -> float:
    box = page.locator(f'input[name=play-model][value="{name}"]')
    if box.is_checked():
        return _timed(page, lambda: page.press("#play-go", "Enter"))
    return _timed(page, box.check)


def _movies(page, part: str) -> list[int]:
    return page.eval_on_selector_all(f"#{part} > li", "rows => rows.map(r => +r.dataset.movie)")


def _same(page, one, what: str) -> list[str]:
    """The films shown are those of nbrec, up to ties, and so are scores and confidences."""
    from nbrec.play import explore

    history, _ = one.indices(_movies(page, "play-history"))
    shown = page.eval_on_selector_all("#play-results > li", """rows => rows.map(r => [
        +r.dataset.movie, +r.dataset.score,
        parseFloat(r.querySelector('.play-share').textContent)])""")
    k, hide = int(page.input_value("#play-k")), page.is_checked("#play-hide")
    expected = explore.recommend(one, history, k, hide)
    if len(shown) != len(expected):
        return [f"{what}: {len(shown)} films shown; expected {len(expected)}"]
    movies, scores, shares = map(np.array, zip(*shown, strict=True))
    all_scores = one.recommender.score([history])[0]
    own = all_scores[one.indices(movies)[0]]  # nbrec's scores of the films shown
    off = max(np.abs(scores - expected["score"]).max(), np.abs(own - expected["score"]).max())
    problems = [f"{what}: scores are off by {off:.2g}"] if not off < CLOSE else []
    if (wrong := np.abs(shares - 100 * expected["confidence"]).max()) > 0.1:
        problems.append(f"{what}: confidences are off by {wrong:.2f}%")
    if hide and set(movies) & set(one.catalogue[history]):
        problems.append(f"{what}: shows a film of the history")
    return problems


def _rank(page, one) -> list[str]:
    from nbrec.play import explore

    history, _ = one.indices(_movies(page, "play-history"))
    user = next(u for u in one.fold.test.tolist()
                if np.array_equal(one.sequences[u][:-1], history))
    rank = explore.rank(one, history, int(one.sequences[user][-1]))
    said = page.inner_text("#play-target")
    return [] if f"rank {rank} of" in said else [f"{one.name}: {said!r}; expected rank {rank}"]


def _reasons(page, one) -> list[str]:
    """The first film's reasons are those of nbrec."""
    from nbrec.play import explore

    row = page.locator("#play-results > li").first
    row.get_by_role("button", name="Why").press("Enter")
    row.locator(".play-why ol").wait_for(timeout=60_000)
    shown = row.locator(".play-why li span").evaluate_all(
        "spans => spans.map(s => s.textContent).filter(Boolean)")
    found = [float(text.replace("\u2212", "-")) for text in shown]
    history, _ = one.indices(_movies(page, "play-history"))
    item = int(one.indices([int(row.get_attribute("data-movie"))])[0][0])
    weights = explore.explain(one, history, item)[0]["weight"].to_numpy()
    expected = weights[np.argsort(-np.abs(weights), kind="stable")][:8]
    off = np.abs(np.abs(found) - np.abs(expected)).max() if len(found) == len(expected) else np.inf
    return [] if off < CLOSE else [f"{one.name}: reasons {found}; expected {expected.round(3)}"]


def _order(page) -> list[str]:
    """Buttons and drag change the order, and a cross removes."""
    problems, before = [], _movies(page, "play-history")
    rows = page.locator("#play-history > li")
    rows.nth(0).get_by_role("button", name="Later").press("Enter")
    expected = [before[1], before[0], *before[2:]]
    if _movies(page, "play-history") != expected:
        problems.append("the button Later does not move a film")
    page.keyboard.press("Enter")  # the focus has moved along
    expected = [before[1], before[2], before[0], *before[3:]]
    if _movies(page, "play-history") != expected:
        problems.append("the focus does not stay on the film that is moved")
    grip, to = rows.nth(0).locator(".play-grip"), rows.nth(2)
    # Both rows have to be in the window: beyond its edge there is no pointer.
    rows.nth(1).evaluate("row => row.scrollIntoView({block: 'center', behavior: 'instant'})")
    grip.hover()
    page.mouse.down()
    box = to.bounding_box()
    page.mouse.move(box["x"] + 20, box["y"] + box["height"] * 0.8, steps=5)
    page.mouse.up()
    if _movies(page, "play-history") != [before[2], before[0], before[1], *before[3:]]:
        problems.append("dragging does not move a film")
    rows.nth(0).get_by_role("button", name="Remove").press("Enter")
    if _movies(page, "play-history") != [before[0], before[1], *before[3:]]:
        problems.append("the cross does not remove a film")
    return problems


def _cold(page) -> list[str]:
    """Nothing known of a user: popular films, or films of like content."""
    from nbrec.play import bundle, explore

    problems, content = [], bundle.load("minibert")
    one = bundle.load("item-knn")
    _answer(page, "item-knn")
    for movies, note, act in (
            ([], "popular", lambda: page.press("#play-clear", "Enter")),
            (None, "content", lambda: _type(page, OUTSIDE))):
        _timed(page, act)
        page.wait_for_function(DONE.format("play-status"), timeout=60_000)
        movies = _movies(page, "play-history")
        expected, how = explore.suggest(one, movies, 12, True, content)
        shown = _movies(page, "play-results")
        said = page.inner_text("#play-status")
        if how[:7] != note[:7] or note not in said:
            problems.append(f"cold start: {said!r}; nbrec says {how}; expected {note}")
        scores = dict(zip(expected["movieId"], expected["score"], strict=True))
        worst = expected["score"].min()
        if any(scores.get(m, worst) - worst > CLOSE for m in set(scores) - set(shown)):
            problems.append(f"cold start: {shown}; expected {list(scores)}")
    return problems


def _files(page) -> list[str]:
    """Letterboxd exports: what nbrec finds in them is found; bad ones are refused, none runs."""
    from nbrec.data import titles
    from nbrec.play import bundle, letterboxd, matching

    problems, films = [], bundle.films()
    lines = ["Date,Name,Year,Letterboxd URI,Rating"]
    for number, title in enumerate(films["title"][::40]):
        name, year = titles.split(title)
        name = [name, name.upper(), titles.names(name)[-1], name.removeprefix("The "),
                name.replace("é", "e")][number % 5]
        year = int(year or 1990) + [0, 0, 0, 1, 2][number % 5]
        rating = ["", "4", "2.5"][number % 3]
        quoted = name.replace('"', '""')
        lines.append(f'2024-01-{number % 28 + 1:02d},"{quoted}",{year},,{rating}')
    lines.append('2024-02-01,"<img src=x onerror=""document.title=1"">",1999,,')
    lines.append('2024-02-01,"=HYPERLINK(1)",1999,,5')
    text = "\r\n".join(lines).encode()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("ratings.csv", text)
        file.writestr("profile.csv", "never read")
    found = matching.match(letterboxd.read(text, "ratings.csv"), films)
    for name, content in (("ratings.csv", text), ("export.zip", archive.getvalue())):
        page.set_input_files("#play-file", {"name": name, "mimeType": "text/csv",
                                            "buffer": content})
        page.wait_for_function("!document.getElementById('play-matches').hidden", timeout=20_000)
        tables = [page.eval_on_selector_all(
            f"#play-matches table:nth-of-type({n}) tbody tr",
            "rows => rows.map(r => [...r.cells].map(c => c.textContent))") for n in (1, 2)]
        if ([row[2] for row in tables[0]] != found.matched["how"].tolist()
                or [row[1] for row in tables[1]] != found.unmatched["reason"].tolist()):
            problems.append(f"{name}: {len(tables[0])} films found, {len(tables[1])} not; expected "
                            f"{len(found.matched)} and {len(found.unmatched)}, in the same ways")
        one = bundle.load("item-knn")
        expected = one.catalogue[found.history(one.catalogue, 3.0)][-90:].tolist()
        if _movies(page, "play-history") != expected:
            problems.append(f"{name}: the history is not that of nbrec.play.letterboxd")
    problems += _choice(page, films)
    if page.title() == "1" or page.query_selector("#play-matches img"):
        problems.append("a title of a file was taken for HTML")
    header = b"Date,Name,Year,Letterboxd URI\n"
    trailing = archive.getvalue().replace(b"PK\1\2", b"PK\1\3")
    for name, content in (
            ("watchlist.csv", header), ("profile.csv", header), ("films.csv", header),
            ("watched.csv", b"\xff\xfe"), ("watched.csv", b"a,b\n"),
            ("export.zip", b"PK\3\4 no archive"), ("export.zip", trailing),
            ("watched.csv", header + b"2024-02-30,Fargo,1996,\n"),
            ("watched.csv", header + b'2024-02-03,"Fargo,1996,\n')):
        page.evaluate("document.getElementById('play-note').textContent = ''")
        page.set_input_files("#play-file", {"name": name, "mimeType": "text/csv",
                                            "buffer": content})
        page.wait_for_function("document.getElementById('play-note').textContent", timeout=20_000)
        said = page.evaluate("document.getElementById('play-note').textContent")
        try:
            letterboxd.read(content, name)
        except ValueError as error:
            if said != str(error):
                problems.append(f"{name}: says {said!r}; expected {str(error)!r}")
    return problems


def _choice(page, films) -> list[str]:
    """A film that was not found, chosen among the candidates, stands in its place."""
    text = ("Date,Name,Year,Letterboxd URI,Rating\n2024-01-01,Toy Story,1995,,\n"
            "2024-01-02,Twelve Monkeys,1998,,\n2024-01-03,Fargo,1996,,\n")
    page.set_input_files("#play-file", {"name": "ratings.csv", "mimeType": "text/csv",
                                        "buffer": text.encode()})
    page.wait_for_function("document.querySelectorAll('#play-matches tbody tr').length === 3",
                           timeout=20_000)
    page.evaluate("document.getElementById('play-matches').open = true")
    page.locator("#play-matches td button").first.press("Enter")
    movies = films.set_index("title")["movieId"]
    expected = [movies["Toy Story (1995)"], movies["Twelve Monkeys (a.k.a. 12 Monkeys) (1995)"],
                movies["Fargo (1996)"]]
    if (shown := _movies(page, "play-history")) != expected:
        return [f"a film is chosen: the history is {shown}; expected {expected}"]
    return []


def check_movie_space(page) -> list[str]:
    """The neighbours shown are those of nbrec for every kind of vectors; walking works."""
    from nbrec.play import bundle

    problems, alike = [], []
    page.wait_for_function(DONE.format("space-status"), timeout=30_000)
    names = page.eval_on_selector_all("#space-model option", "all => all.map(o => o.value)")
    for name in names:
        page.evaluate("document.getElementById('space-status').textContent = ''")
        page.select_option("#space-model", name)
        page.evaluate("document.getElementById('space-model').dispatchEvent(new Event('change'))")
        page.wait_for_function(DONE.format("space-status"), timeout=30_000)
        problems += _near(page, bundle.load(name))
        alike.append(_alike(page, bundle.load(name)))
    if not np.mean(alike) > 0.2:
        problems.append(f"films side by side are not alike: correlations {np.round(alike, 2)}")
    start = page.inner_text("#space-title")
    first = page.locator("#space-list button").first
    to = first.inner_text()
    first.press("Enter")
    page.wait_for_function("t => document.getElementById('space-title').textContent === t", arg=to)
    page.press("#space-back", "Enter")
    page.wait_for_function("t => document.getElementById('space-title').textContent === t",
                           arg=start)
    if page.query_selector("#space-graph canvas") is None:
        problems.append("the graph was not drawn")
    else:
        # A click on a point: Plotly finds it by colour, which a test cannot aim at.
        page.evaluate("document.getElementById('space-graph').emit('plotly_click', "
                      "{points: [{curveNumber: 1, pointNumber: 1}]})")
        page.wait_for_function("t => document.getElementById('space-title').textContent === t",
                               arg=to, timeout=20_000)
        places = page.evaluate("""() => {
            const { x, y, z } = document.getElementById('space-graph').data[1];
            return x.map((_, i) => Math.hypot(x[i], y[i], z[i]));
        }""")
        cosines = page.eval_on_selector_all("#space-list tr", "r => r.map(x => +x.dataset.cosine)")
        if places[0] or np.abs(np.array(places[1:]) - np.maximum(
                1 - np.array(cosines), 1e-3)).max() > 1e-6:
            problems.append("distances in the graph are not 1 - cosine")
    page.fill("#space-search", "matrix 1999")
    page.press("#space-search", "Enter")
    page.wait_for_function(
        "document.getElementById('space-title').textContent.startsWith('The Matrix')")
    return problems


def _near(page, one) -> list[str]:
    from nbrec.data import titles
    from nbrec.play import bundle, space

    shown = page.eval_on_selector_all(
        "#space-list tr", "rows => rows.map(r => [+r.dataset.movie, +r.dataset.cosine])")
    title = page.inner_text("#space-title")
    vectors = space.vectors(one)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    names = bundle.films().set_index("movieId")["title"]
    item = next(i for i, movie in enumerate(one.catalogue)
                if "{} ({})".format(*titles.split(names[movie])) == title)
    expected = space.neighbours(vectors, item, len(shown))["cosine"].to_numpy()
    items = one.indices([movie for movie, _ in shown])[0]
    own = unit[items] @ unit[item]
    off = max(np.abs(own - expected).max(), np.abs(np.array([c for _, c in shown]) - own).max())
    return [] if off < CLOSE and item not in items else [
        f"{one.name}: cosines of the neighbours of {title} are off by {off:.2g}"]


def _alike(page, one) -> float:
    """The correlation of the cosines between the films around the middle, in space and in truth."""
    from nbrec.play import space

    page.wait_for_function("document.querySelectorAll('#space-list tr').length + 1 === "
                           "document.getElementById('space-graph').data?.[1].x.length")
    directions = np.array(page.evaluate("""() => {
        const { x, y, z } = document.getElementById('space-graph').data[1];
        return x.map((_, i) => [x[i], y[i], z[i]]).slice(1);
    }"""))
    movies = page.eval_on_selector_all("#space-list tr", "rows => rows.map(r => +r.dataset.movie)")
    pairs = np.triu_indices(len(movies), 1)
    cosines = []
    for rows in (directions, space.vectors(one)[one.indices(movies)[0]]):
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        cosines.append((unit @ unit.T)[pairs])
    return float(np.corrcoef(*cosines)[0, 1])
