"""Tables of personalisation, and of single users."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from nbrec.book.personalisation import SIDES
from nbrec.book.plots.personalisation import THESIS_FIGURES
from nbrec.book.plots.style import model_label
from nbrec.book.plots.tables import interval, mean_sd, table
from nbrec.data import titles
from nbrec.evaluate import Evaluation
from nbrec.sequences import Sequences


def measures_table(measures: pd.DataFrame, caption: str | None = None) -> Styler:
    """Measures of personalisation; `measures` is of `personalisation.measures`."""
    shown = pd.DataFrame({
        "thesis Figure": [THESIS_FIGURES.get(m, "–") for m in measures.index],
        "folds": measures["folds"], "recommended, ‰": measures["mean_popularity"].round(1),
        "watched, ‰": measures["behaviour_popularity"].round(1),
        "distance": [mean_sd(d, sd, digits=2) for d, sd in zip(
            measures["wasserstein"], measures["sd"], strict=True)],
        "coverage": measures["coverage"].map("{:.2f}".format),
        "Gini": measures["gini"].map("{:.2f}".format), "stars": measures["stars"].map("★".__mul__)})
    return table(shown.set_axis([model_label(m) for m in measures.index]), caption, digits=1,
                 small=True, sortable=True)


def stars_table(stars: pd.DataFrame, caption: str | None = None) -> Styler:
    """Stars of the thesis and ours; `stars` is of `personalisation.stars_beside_thesis`."""
    cells = stars.assign(text=[
        "★" * n + f" {d:.2f}" + " (?)" * unsure for n, d, unsure in zip(
            stars["stars"], stars["wasserstein"], stars["unsure"], strict=True)])
    wide = cells.pivot_table("text", ["variant", "model", "thesis"], "run", "first", sort=False)
    wide = wide.fillna("–").rename_axis(None, axis=1).reset_index()
    return table(wide.assign(model=wide["model"].map(model_label),
                             thesis=wide["thesis"].map("★".__mul__)), caption, index=False,
                 small=True)


def shuffled_table(shuffled: pd.DataFrame, caption: str | None = None) -> Styler:
    """What shuffling leaves; `shuffled` is of `personalisation.shuffled`."""
    return table(pd.DataFrame({
        "model": shuffled["model"].map(model_label), "hit rate": shuffled["hits"],
        "lists shuffled": shuffled["hits_shuffled"], "correlation": shuffled["follows"],
        "lists shuffled, 95%: from": shuffled["low"], "to": shuffled["high"]}), caption,
        index=False, digits=3)


def gaps_table(groups: pd.DataFrame, caption: str | None = None) -> Styler:
    """Differences over groups of users; `groups` is of `personalisation.grouped`, against one."""
    cells = groups.assign(text=list(map(interval, groups["mean"], groups["low"], groups["high"])))
    wide = cells.pivot_table("text", ["variant", "model"], "place", "first", sort=False)
    wide = wide.fillna("–").rename(columns=lambda place: f"group {place + 1}")
    wide = wide.rename_axis(None, axis=1).reset_index()
    return table(wide.assign(model=wide["model"].map(model_label)), caption, index=False,
                 small=True)


def mix_table(mix: pd.DataFrame, lengths: Sequence[int], caption: str | None = None) -> Styler:
    """HR@20 by length, as it is and fair; `mix` is of `personalisation.same_mix`."""
    ends = [f"up to {lengths[0]}", *(f"{a + 1}–{b}" for a, b in zip(lengths, lengths[1:],
                                                                  strict=False)),
            f"over {lengths[-1]}"]
    wide = mix.pivot(index="model", columns="place", values=["raw", "fair"])
    wide.columns = pd.MultiIndex.from_tuples([
        ({"raw": "as it is", "fair": "same mix of targets"}[kind], ends[place])
        for kind, place in wide.columns])
    return table(wide.set_axis([model_label(m) for m in wide.index]), caption, digits=3, small=True)


def sides_table(sides: pd.DataFrame, a: str, b: str, caption: str | None = None) -> Styler:
    """Users by who is ahead; `sides` is of `personalisation.sides`."""
    shown = sides.rename(columns={"target_popularity": "target, ‰ (median)",
                                  "history_length": "films in the history (median)"})
    return table(shown.set_axis([f"{model_label(a)} {side} of {model_label(b)}" if side != SIDES[2]
                                 else f"{model_label(a)} level with it" for side in sides.index]),
                 caption, digits=0, small=True)


def cases_table(users: Sequence[int], results: Mapping[str, Evaluation], test: Sequences,
                names: Mapping[int, str], popularity: np.ndarray, caption: str | None = None
                ) -> Styler:
    """Single test users: the end of the history, what was watched next, and five films a model.

    Args:
        users: places in the test part.
        results: model -> what it recommended.
        names: number of a film -> its title.
        popularity: (V,) per mille.
    """
    def title(item: int) -> str:
        movie = int(test.catalogue[item])
        text, year = titles.split(names.get(movie, f"film {movie}"))
        return html.escape(f"{text} ({year})" if year else text)

    def listed(items: np.ndarray, target: int | None = None) -> str:
        return "<br>".join(f"<b>{title(i)}</b>" if i == target else title(i) for i in items)

    rows, targets = {}, test.targets()
    for number, u in enumerate(map(int, users), 1):
        history, target = test[u][:-1], targets[u]
        rows[f"user {number}"] = {
            "the history ends with":
                f"{listed(history[-5:])}<br><i>{len(history)} films in all</i>",
            "watched next": f"<b>{title(target)}</b><br><i>{popularity[target]:.0f}‰</i>",
            **{f"{model_label(m)}: rank, first five":
               f"<i>rank {r.ranks[u]:,}</i><br>{listed(r.recommended[u, :5], target)}"
               for m, r in results.items()}}
    styler = table(pd.DataFrame(rows).T, caption, small=True).set_properties(
        **{"text-align": "left", "vertical-align": "top", "width": "24%"})
    return styler.set_table_styles([
        {"selector": "th", "props": "text-align: left; vertical-align: top"}], overwrite=False)
