"""The platform of thesis section 5.2: `make app`, or `streamlit run app/main.py`."""

from pathlib import Path

import shared
import streamlit as st

# Without a file of its own, Streamlit would have browsers fetch an icon from a server of fonts.
ICON = Path(__file__).resolve().parents[1] / "book" / "assets" / "favicon.svg"
st.set_page_config("The next best film", ICON, "wide")
st.html(shared.STYLE)
st.navigation([
    st.Page("home.py", title="Home", icon=":material/home:", default=True),
    st.Page("comparison.py", title="Technical Comparison", icon=":material/bar_chart:"),
    st.Page("playground.py", title="Sequential Playground", icon=":material/playlist_play:"),
    st.Page("movie_space.py", title="Movie Space Explorer", icon=":material/hub:"),
]).run()
