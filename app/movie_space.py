"""The films nearest to one, in three dimensions (thesis section 5.2, Figure 5.5)."""

import textwrap

import numpy as np
import plotly.graph_objects as go
import shared
import streamlit as st

from nbrec import recommenders
from nbrec.book import plots
from nbrec.play import space

shown = shared.shown()
FIRST = 6807  # Monty Python's The Meaning of Life, as in the thesis


def words(movie: int, short: bool = False) -> str:
    """A title for Plotly, which reads some HTML; short: in narrow lines, its first name alone."""
    title = shown[movie].replace("<", "‹").replace(">", "›")
    return "<br>".join(textwrap.wrap(title.partition(" (")[0], 22)) if short else title


def drawing(places: np.ndarray, movies: list[int], cosines: np.ndarray) -> go.Figure:
    """The film at the origin, its neighbours around it, and a line to each."""
    names, full = [words(movie, True) for movie in movies], [words(movie) for movie in movies]
    lines = np.full((3 * (len(places) - 1), 3), np.nan)  # a row of NaN ends each line
    lines[0::3], lines[1::3] = places[0], places[1:]
    x, y, z = places.T
    look = {"mode": "markers+text", "textposition": "top center", "textfont": {"size": 11}}
    figure = go.Figure([
        go.Scatter3d(x=lines[:, 0], y=lines[:, 1], z=lines[:, 2], mode="lines", hoverinfo="skip",
                     line={"color": "#8c959f", "width": 2}),
        go.Scatter3d(x=x[1:], y=y[1:], z=z[1:], text=names[1:], hovertext=full[1:], **look, marker={
            "size": 7, "line": {"color": "#8c959f", "width": 1},
            "color": cosines, "colorscale": "Cividis", "showscale": True,
            "colorbar": {"title": "cosine", "thickness": 10, "orientation": "h", "y": -0.05}},
            hovertemplate="%{hovertext}<br>cosine %{marker.color:.3f}<extra></extra>"),
        go.Scatter3d(x=x[:1], y=y[:1], z=z[:1], text=names[:1], hovertext=full[:1], **look,
                     hoverinfo="text",
                     marker={"size": 11, "color": plots.VERMILION, "symbol": "diamond"}),
    ])
    hidden = {"showbackground": False, "showticklabels": False, "title": "", "showgrid": False,
              "zeroline": False, "showspikes": False}
    return figure.update_layout(
        height=560, margin={"l": 0, "r": 0, "t": 0, "b": 0}, showlegend=False,
        uirevision=movies[0], scene={"xaxis": hidden, "yaxis": hidden, "zaxis": hidden,
                                     "camera": {"eye": {"x": 1.3, "y": 1.3, "z": 0.8}}})


def walk() -> None:
    st.session_state["trail"] = [*st.session_state.get("trail", []), st.session_state["film"]]
    st.session_state["film"], st.session_state["next"] = st.session_state["next"], None


def back() -> None:
    *st.session_state["trail"], st.session_state["film"] = st.session_state["trail"]


st.title("Movie Space Explorer")
st.write("A model puts every film somewhere. Films that it takes for alike lie in the same "
         "direction, and the cosine of the angle between them says how much alike. Text models "
         "read what a film is about, graph models see who watched it, sequence models learn what "
         "follows what.")
about, count = st.columns([3, 1])
spaces = [name for name in shared.models() if name not in recommenders.names("classical")]
name = about.selectbox("Vectors of", spaces, format_func=shared.label, key="space",
                       index=spaces.index("minibert") if "minibert" in spaces else 0,
                       persist_state="session")
k = count.slider("Neighbours", 3, 30, 12, key="neighbours", persist_state="session")
chosen = shared.model_or_stop(name)


@st.cache_data(show_spinner=False, max_entries=500)
def around(name: str, made: str, movie: int, k: int):
    vectors = space.vectors(shared.model(name))
    item = int(shared.model(name).indices([movie])[0][0])
    return space.neighbours(vectors, item, k), space.layout(vectors, item, k)


catalogue = chosen.catalogue.tolist()
if st.session_state.get("film") not in catalogue:
    st.session_state["film"] = FIRST if FIRST in catalogue else catalogue[0]
movie = st.selectbox("Film: type a part of its title", catalogue, format_func=shown.__getitem__,
                     key="film", persist_state="session", required=True)
near, places = around(name, str(chosen.provenance), movie, k)
movies = chosen.catalogue[near["item"]].tolist()
forward, backward = st.columns([3, 1], vertical_alignment="bottom")
forward.selectbox("Walk on to a neighbour", movies, index=None, format_func=shown.__getitem__,
                  key="next", on_change=walk, placeholder="choose one")
backward.button("Back", on_click=back, disabled=not st.session_state.get("trail"),
                icon=":material/undo:", width="stretch")
st.plotly_chart(drawing(places, [movie, *movies], near["cosine"].to_numpy()), key="graph",
                config={"displaylogo": False, "scrollZoom": False, "modeBarButtonsToRemove": [
                    "zoom3d", "pan3d", "orbitRotation", "resetCameraLastSave3d"]},
                alt=f"{shown[movie]} in the middle of its {len(movies)} nearest films")
st.caption("The distance from the middle is 1 − cosine. Directions come from Fruchterman and "
           "Reingold's forces: films that are alike pull each other.")
st.subheader("Nearest films")
posters = shared.posters(movies, shared.consent())
shared.cards(movies, [shared.bar(c, f"cosine {c:.3f}") for c in near["cosine"]], posters)
st.caption(shared.ACKNOWLEDGEMENT)
