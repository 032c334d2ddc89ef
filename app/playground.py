"""A history of films, and what a model recommends after it (thesis section 5.2, Figure 5.4)."""

import html
import secrets
import time

import pandas as pd
import shared
import streamlit as st

from nbrec import profiles, recommenders
from nbrec.book import plots
from nbrec.play import explore, letterboxd, matching

CONTENT = "minibert"  # reads the films that the catalogue of the models does not have
state, shown = st.session_state, shared.shown()


# --- what the controls do ------------------------------------------------------------------------


def put(movies, note: str = "", truth: dict | None = None) -> None:
    """A new history; with `truth`, what its test user watched next."""
    state["history"] = [int(movie) for movie in movies]
    state["note"], state["truth"], state["place"] = note, truth, None


def test_user() -> None:
    position, history, target = explore.random_test_user(chosen, secrets.randbelow(2**31))
    movies = chosen.catalogue[history].tolist()
    user = int(chosen.sequences.users[position])
    put(movies, f"Test user {user} of MovieLens, {len(movies)} films.",
        {"user": user, "movie": int(chosen.catalogue[target]), "history": movies})


def one_genre() -> None:
    items = explore.random_genre_history(chosen, shared.films(), state["genre"],
                                         state["length"], secrets.randbelow(2**31))
    put(chosen.catalogue[items], f"{len(items)} random films of the genre {state['genre']}.")


def read_export() -> None:
    """Read what was uploaded; only what was found is kept, for this session alone."""
    state["match"], state["refused"], file = None, "", state["export"]
    if file is not None:
        try:
            export = letterboxd.read(file.getvalue(), file.name)
            state["match"] = matching.match(export, shared.films()[["movieId", "title"]])
        except ValueError as error:
            state["refused"] = str(error)
    take_export()


def take_export() -> None:
    """The newest matched films become the history."""
    if state["match"] is None:
        return
    films = state["match"].matched
    if state["liked"]:
        films = films[~(films["rating"] < floor)]
    taken = films["movieId"].iloc[-state["newest"]:]
    put(taken, f"From Letterboxd: {len(taken)} of {len(state['match'].matched)} matched films.")


def choose_film() -> None:
    """A film that was not matched is one of the candidates."""
    row, movie = state["lost"], state["candidate"]
    state["match"] = state["match"].choose(row, movie, shown[movie])
    take_export()


def move(to: int | None) -> None:
    """Move the film that is chosen to a place in the history; None removes it."""
    history, place = list(state["history"]), state["place"]
    movie = history.pop(place)
    if to is not None:
        to = min(max(to, 0), len(history))
        history.insert(to, movie)
    state["history"], state["place"] = history, to


# --- the page ------------------------------------------------------------------------------------

st.title("Sequential Playground")
st.write("Load a history of films, oldest first, and see which film each model takes for the next. "
         "Swap the model at any time: the history stays.")
names, count, hide = st.columns([2, 2, 1], vertical_alignment="bottom")
options = shared.models()
name = names.selectbox("Model", options, format_func=shared.label, key="model",
                       persist_state="session")
k = count.slider("Recommendations (K)", 1, explore.MOST, explore.K, key="k",
                 persist_state="session")
hide_seen = hide.toggle("Hide seen films", True, key="hide", persist_state="session")
chosen = shared.model_or_stop(name)
usual = profiles.get_profile(chosen.settings["profile"]).sequences
floor = usual.min_rating or 0.5  # stars
made = (f"Trained on {len(chosen.fold.train):,} users."
        if name not in recommenders.names("content") else
        "Reads titles, genres and tags, and learns nothing from users.")
st.caption(f"{made} Films in the catalogue: {len(chosen.catalogue):,}. HR@20 on "
           f"{len(chosen.fold.test):,} test users: {chosen.metrics['hr@20']:.3f}.")

state.setdefault("history", [])
state.setdefault("match", None)
history = st.multiselect(
    "Watch history, oldest first: type a part of a title to add a film", shared.films().index,
    format_func=shown.__getitem__, key="history", persist_state="session", select_all=False,
    placeholder="No films yet")
users, genres, own, order = st.tabs(["Test user", "One genre", "Letterboxd", "Order"])
with users:
    st.write("A user whom the models have not been trained on. What such a user watched next "
             "is known, so you can see whether a model finds it.")
    st.button("Random test user", on_click=test_user, icon=":material/casino:")
with genres:
    genre, length = st.columns(2)
    genre.selectbox("Genre", shared.genres(), key="genre", persist_state="session")
    length.slider("Films", 1, 40, 12, key="length", persist_state="session")
    st.button("Random history of this genre", on_click=one_genre, icon=":material/casino:")
with order:
    if not history:
        st.write("There is nothing to put in order yet.")
    else:
        if state.get("place") is not None and state["place"] >= len(history):
            state["place"] = None
        place = st.selectbox("Film to move", range(len(history)), index=None, key="place",
                             format_func=lambda i: f"{i + 1}. {shown[history[i]]}",
                             placeholder="choose one")
        none, last = place is None, len(history) - 1
        with st.container(horizontal=True):
            st.button("First", on_click=move, args=(0,), disabled=none)
            st.button("Earlier", on_click=move, args=((place or 0) - 1,), disabled=none)
            st.button("Later", on_click=move, args=((place or 0) + 1,), disabled=none)
            st.button("Last", on_click=move, args=(last,), disabled=none)
            st.button("Remove", on_click=move, args=(None,), disabled=none)
            st.button("Reverse all", on_click=lambda: put(
                history[::-1], state.get("note", ""), state.get("truth")))
            st.button("Empty", on_click=put, args=([],))
with own:
    st.write("Export your data in the settings of Letterboxd and give the zip, or one of "
             f"{', '.join(letterboxd.FILES)} in it. It is read in memory, for this session alone.")
    st.file_uploader("Letterboxd export", ["zip", "csv"], key="export", on_change=read_export)
    newest, liked = st.columns(2, vertical_alignment="bottom")
    newest.number_input("Newest films to take", 1, 500, usual.max_length, key="newest",
                        persist_state="session", on_change=take_export, help=(
        f"The models have learned from histories of {usual.min_length} to {usual.max_length} "
        "films."))
    liked.toggle(f"Leave out films rated under {floor:g}, as in training", True,
                 key="liked", persist_state="session", on_change=take_export)
    if state.get("refused"):
        st.error(shared.markdown(state["refused"]))
    elif state.get("match"):
        found, lost = state["match"].matched, state["match"].unmatched
        st.write(f"Matched {len(found):,} of {len(found) + len(lost):,} films. Not every film of "
                 "Letterboxd is in these data, which end in 2018.")
        if len(found):
            st.dataframe(found[["name", "year", "title", "how", "date"]], hide_index=True,
                         height=220, alt="Films that were matched, and how", column_config={
                "name": "Letterboxd", "title": "MovieLens",
                "date": st.column_config.DateColumn("seen")})
        if len(lost):
            st.dataframe(lost[["name", "year", "reason"]], hide_index=True, height=220,
                         alt="Films that were not matched, and why",
                         column_config={"name": "Letterboxd"})
        offered = lost[lost["candidates"].map(len) > 0].set_index("row")
        if len(offered):
            which, meant, take = st.columns([2, 2, 1], vertical_alignment="bottom")
            row = which.selectbox("Not matched", offered.index, key="lost", format_func=lambda r: (
                f"{offered.at[r, 'name']} ({offered.at[r, 'year']})".replace(" (<NA>)", "")))
            meant.selectbox("It is", offered.at[row, "candidates"], key="candidate",
                            format_func=shown.__getitem__)
            take.button("Choose", on_click=choose_film)
if state.get("note") and history:
    st.caption(shared.markdown(state["note"]))

# --- what the model says -------------------------------------------------------------------------

try:
    content = shared.model(CONTENT)
except (FileNotFoundError, ValueError):
    content = None
known, unknown = chosen.indices(history)
began = time.perf_counter()
found, source = explore.suggest(chosen, history, k, hide_seen, content)
took = 1000 * (time.perf_counter() - began)

st.subheader(f"Recommendations ({took:.0f} ms)", anchor=False)
label = plots.model_label(name)
if source != "model":
    what = source if history else "empty"
    st.info(explore.SAID[what].format(label, plots.model_label(CONTENT)), icon=":material/info:")
elif len(found) < min(k, len(chosen.catalogue) - len(known)):
    st.info(explore.SAID["few"].format(label, len(found)), icon=":material/info:")
elif len(unknown):
    more = len(unknown) - explore.REASONS
    passed = "; ".join(map(shown.__getitem__, unknown[:explore.REASONS]))
    st.info(shared.markdown(
        f"Passed over, because {label} does not know {'it' if len(unknown) == 1 else 'them'}: "
        f"{passed}{f'; and {more} more' if more > 0 else ''}."), icon=":material/info:")

truth = state.get("truth")
if truth:
    target, missing = chosen.indices([truth["movie"]])
    if len(missing):
        said = "is not in the catalogue of this model"
    elif truth["movie"] in history:
        said = "is in the history now"
    elif source != "model":
        said = "has no rank without a history"
    else:
        said = f"has rank {explore.rank(chosen, known, int(target[0]), hide_seen):,}"
    if history != truth["history"]:
        said += " (the history is not the user's any more)"
    if truth["user"] not in chosen.sequences.users[chosen.fold.test]:
        said += "; this model was not held back from that user, so the rank proves nothing"
    st.html(f'<p role="status" style="border-left: 4px solid #D55E00; padding-left: 0.6rem">'
            f"<strong>The true next film</strong> {html.escape(shown[truth['movie']])} "
            f"{html.escape(said)}.</p>")

if source == "popular":
    shares = found["score"] / 1000
    measured = [(share, f"seen by {share:.1%} of the users") for share in shares]
elif source == "content":
    measured = [(cosine, f"cosine {cosine:.2f}") for cosine in found["score"]]
else:
    measured = [(share, f"confidence {share:.1%}") for share in found["confidence"]]
posters = shared.posters(found["movieId"].tolist(), shared.consent())
shared.cards(found["movieId"].tolist(),
             [shared.bar(*sized) for sized in measured],
             posters, truth["movie"] if truth else None)
if source == "model":
    st.caption("Confidences are the softmax of the scores of the films shown alone, so they sum to "
               "1. They compare these films with each other and say nothing about the rest.")

# --- why -----------------------------------------------------------------------------------------


@st.cache_data(show_spinner="Asking why …", max_entries=500)
def reasons(name: str, made: str, known: tuple[int, ...], item: int) -> tuple[pd.DataFrame, str]:
    return explore.explain(shared.model(name), known, item)


if source == "model" and len(found):
    st.subheader("Why?", anchor=False)
    asked = st.selectbox("Recommended film", found["movieId"].tolist(), key="why",
                         format_func=shown.__getitem__)
    item = int(found.loc[found["movieId"] == asked, "item"].iloc[0])
    why, how = reasons(name, str(chosen.provenance), tuple(known.tolist()), item)
    st.write(f"Films of the history by {explore.HOW[how]}:")
    first = why.reindex(why["weight"].abs().sort_values(ascending=False).index)[:explore.REASONS]
    largest = max(first["weight"].abs().max(), 1e-12)
    rows = "".join(
        f"<li>{html.escape(shown[int(chosen.catalogue[int(r.item)])])}"
        f"{shared.bar(r.weight / largest, f'{r.weight:+.3f}')}</li>" for r in first.itertuples())
    st.html(f'<ol class="why">{rows}</ol>')
    if how == "attention":
        st.caption(explore.SAID["attention"])
    if (first["weight"] < 0).any():
        st.caption("Orange bars: the score would be higher without this film.")
elif len(found):
    st.caption("Why? The models themselves had no say here, so there is nothing to explain.")
st.caption(shared.ACKNOWLEDGEMENT)
