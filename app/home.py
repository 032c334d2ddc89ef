"""What there is to play with."""

import pandas as pd
import shared
import streamlit as st

from nbrec.book import plots
from nbrec.play import bundle

st.title("The next best film")
st.write("What will you watch next? The models of the book answer here, for a test user of "
         "MovieLens, for a history that you make up, or for your own from Letterboxd.")
pages = {
    "comparison.py": "Which model finds the next film best, what it costs, and how sure that is.",
    "playground.py": "Give a model a history of films, look at what it recommends, and swap it for "
                     "another.",
    "movie_space.py": "Fly through the space in which a model has put the films.",
}
names = ("Technical Comparison", "Sequential Playground", "Movie Space Explorer")
for column, (page, about), name in zip(st.columns(3), pages.items(), names, strict=True):
    with column.container(border=True):
        st.subheader(name, anchor=False)
        st.write(about)
        try:
            st.page_link(page, label=f"Go to {name}", icon=":material/arrow_forward:")
        except st.errors.StreamlitAPIException:  # this page is shown alone
            st.caption(page)

st.subheader("Trained models")
rows = {}
for name in bundle.available():
    try:
        found = shared.model(name)
    except ValueError as error:
        st.error(shared.markdown(str(error)))
        continue
    rows[plots.model_label(name)] = {
        "data": found.settings.get("dataset", ""), "films": len(found.catalogue),
        "training users": len(found.fold.train), "test users": len(found.fold.test),
        "HR@20": found.metrics.get("hr@20"),
        "NDCG@20": found.metrics.get("ndcg@20")}
if rows:
    shared.show_table(plots.table(pd.DataFrame(rows).T.infer_objects(), digits=3))
    st.caption("Measured on test users, whose next film no model has seen; films of the history "
               "are left out of the ranking. So few test users cannot say which model is better: "
               "Technical Comparison has many more.")
else:
    st.warning("No model has been trained here. This trains all of them in a few minutes:")
    st.code("python -m nbrec.play.bundle", language="bash")

st.subheader("What leaves this computer")
st.write("Nothing, unless you ask for posters: then titles and years of the films on the page go "
         "to TMDB, with your own key. What you upload is read in memory and forgotten when you "
         "close the page.")
st.caption(shared.ACKNOWLEDGEMENT)
