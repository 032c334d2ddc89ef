"""Tables and figures from the records of the runs that come with the book."""

import pandas as pd
import shared
import streamlit as st

from nbrec import paths, records
from nbrec.book import claims, comparison, costs, orders, plots, significance, user_level

RUNS = {"laptop": "reference run", "sample": "sample run"}
TIME = "seconds, at a steady pace"
METRICS = ("ndcg@20", "hr@1", "hr@20", "hr@300")


@st.cache_data(show_spinner="Reading the records …")
def load(run: str) -> pd.DataFrame:
    return records.load_records(paths.reference_folder(run))


@st.cache_data(show_spinner="Comparing …")
def overview(run: str, table: str) -> str:
    df = load(run)
    df = df[df["variant"] == next(v for v, t in comparison.OVERVIEWS.items() if t == table)]
    folds = {RUNS[run]: df.groupby("model")["fold"].nunique()}
    beside = comparison.beside_thesis({RUNS[run]: df}, table)
    if beside.empty:
        return ""
    return plots.overview_table(beside, folds, comparison.THESIS_METRICS, caption=(
        f"Table {table} of the thesis, and this run.")).to_html()


@st.cache_data(show_spinner=False)
def everything(run: str, variant: str) -> str:
    return plots.results_table(significance.summary(load(run)), variant=variant, sort="ndcg@20",
                               small=True, caption="All models, best first.").to_html()


@st.cache_data(show_spinner="Drawing …", max_entries=200)
def figure(kind: str, run: str, metric: str, variant: str, models: tuple[str, ...] = ()) -> str:
    """SVG of one of the book's figures.

    Raises:
        ValueError: the records do not suffice for it.
    """
    df = load(run)
    df = df[df["variant"] == variant] if kind != "truncation" else df
    if kind == "accuracy":
        users = user_level.over_users(df, [metric], variant)
        table = "5.1" if variant == "original" else "5.2"
        return shared.svg(lambda: plots.metric_intervals(
            users, metric, variant, thesis=comparison.compare_with_thesis(df, table)))
    if kind == "pairs":
        pairs = significance.compare_all(claims.with_enough_folds(df), metric, variant)
        return shared.svg(lambda: plots.pair_matrix(pairs, metric))
    if kind == "ranks":
        found = orders.mean_ranks(df, metric, variant)
        return shared.svg(lambda: plots.critical_difference(found, metric))
    if kind == "cost":
        summary = significance.summary(costs.complete(costs.steady(df)), [metric, "steady"])
        summary = summary.replace({"metric": {"steady": TIME}})
        return shared.svg(lambda: plots.accuracy_vs_time(summary, metric, TIME, variant))
    if kind == "truncation":
        effect = user_level.truncation_effect(df, [metric])
        return shared.svg(lambda: plots.truncation_effect(effect, metric))
    histograms = records.popularity_histograms(df[df["model"].isin(models)])
    return shared.svg(lambda: plots.popularity_density(histograms, models, variant))


def show(alt: str, kind: str, *arguments) -> None:
    try:
        st.image(figure(kind, run, metric, variant, *arguments), width="stretch", alt=alt)
    except ValueError as error:
        st.info(shared.markdown(f"There is no such figure of this run: {error}."))


st.title("Technical Comparison")
run_column, metric_column, variant_column = st.columns(3)
run = run_column.selectbox("Run", RUNS, format_func=RUNS.get, key="run", persist_state="session")
metric = metric_column.selectbox("Metric", METRICS, format_func=plots.metric_label, key="metric",
                                 persist_state="session")
if run == "laptop":
    st.caption(comparison.reference_notice(run, "chapter 2 of the book"))
try:
    df = load(run)
except (FileNotFoundError, ValueError) as error:
    st.warning(shared.markdown(str(error)))
    st.stop()
variants = [v for v in comparison.OVERVIEWS if v in set(df["variant"])]
variant = variant_column.selectbox("Sequences", variants, key="variant", persist_state="session",
                                   help="Original sequences are whole; truncated ones lack each "
                                        "user's first twenty films.")
st.caption(f"{significance.described(df)}. The last film of each test user is to be found among "
           "all films that the user has not seen; ties count against the model.")
have = list(dict.fromkeys(df.loc[df["variant"] == variant, "model"]))
tabs = st.tabs(["Tables", "Accuracy", "Pairs", "Mean ranks", "Cost", "Truncation",
                "Personalisation"])
with tabs[0]:
    table = comparison.OVERVIEWS[variant]
    st.html(f'<div class="scroll">{overview(run, table)}</div>')
    st.html(f'<div class="scroll">{everything(run, variant)}</div>')
    st.caption("Rates are fractions, ± is the standard deviation over folds, the best of each "
               "source is in bold. The thesis trained on other data: compare the order of the "
               "models, not the sizes.")
with tabs[1]:
    show(f"{plots.metric_label(metric)} of each model with its interval", "accuracy")
    st.caption("Mean and 95% bootstrap interval over the test users. Hollow circles: the thesis.")
with tabs[2]:
    show("Triangular heat map of the differences of all pairs of models", "pairs")
    st.caption("How far the model of the row is ahead of that of the column. A dot: a "
               "significant difference after Holm's correction.")
with tabs[3]:
    show("Axis of mean ranks, with bars over models that are not significantly different", "ranks")
    st.caption("Mean rank over the folds. A bar joins models that are closer than Nemenyi's "
               "critical difference.")
with tabs[4]:
    show(f"{plots.metric_label(metric)} against seconds", "cost")
    st.caption("Seconds as a quiet machine would have taken them: the fastest epoch times the "
               "number of epochs, contexts and scoring included. Accuracy as if every model had "
               "been run on every fold. Times may have been taken beside other work.")
with tabs[5]:
    show("Each model on original and truncated sequences", "truncation")
    st.caption("The two kinds of sequences have their own test users. Hollow circles: the thesis.")
with tabs[6]:
    usual = [m for m in ("transformer", "item-knn", "xlstm+gat", "lightgcn") if m in have]
    models = st.multiselect("Models", have, usual or have[:2], format_func=plots.model_label,
                            key=f"models {run} {variant}", max_selections=6, select_all=False)
    if models:
        show("Popularity of what users watch and of what each model recommends",
             "personalisation", tuple(models))
    st.caption("Shaded: what users watch. Dashed: what the model recommends.")
