"""How large a run is: a small sample, a laptop, or the thesis's full size."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from nbrec import checks, recommenders, tuning
from nbrec.preprocessing import SequenceSettings
from nbrec.recommenders import MODELS, Parts

# What differs in the preprocessing of a variant (thesis section 2.2).
VARIANTS: dict[str, dict[str, Any]] = {"original": {}, "truncated": {"left_truncate": 20}}
# The next film of a page of the web site is another question than the first film of the next page,
# or of the next session: what is asked for comes after a pause of so many seconds.
ASKED: dict[str, dict[str, Any]] = {"pages": {"session_gap": 60}, "sessions": {"session_gap": 3600}}


@dataclass(frozen=True)
class Chosen:
    """A model of a profile, what it is and how it is trained told apart.

    Args:
        name: of the model, for ``recommenders.create``.
        settings: of the model and its training.
        contexts: context -> label of the profile that it takes its settings from.
        train_share: of the training users.
        parts: what the name is made of.
    """

    name: str
    settings: dict[str, Any]
    contexts: Mapping[str, str]
    train_share: float
    parts: Parts

    @classmethod
    def read(cls, label: str, settings: Mapping[str, Any]) -> Chosen:
        """What a profile says of a label.

        Raises:
            ValueError: the name is not that of a model, the train_share is no share, or a context
                has a label that the model does not have.
        """
        own = dict(settings)
        name, contexts = own.pop("model", label), own.pop("contexts", {})
        share, parts = own.pop("train_share", 1.0), recommenders.parse(name)
        checks.number("train_share", share, above=0, high=1)
        if not isinstance(contexts, Mapping) or not set(contexts) <= set(parts.contexts):
            raise ValueError(f"{label}: contexts={contexts!r}: expected labels for some of "
                             f"{', '.join(parts.contexts) or 'none, it has no contexts'}")
        return cls(name, own, {c: c for c in parts.contexts} | dict(contexts), share, parts)


@dataclass(frozen=True)
class Profile:
    """Data, models and folds of a run.

    Args:
        name: names the folder of the records.
        dataset: what `movielens.load` is asked for.
        sequences: preprocessing.
        variants: name of a variant of the sequences -> what differs from that preprocessing.
        n_folds: into how many folds the users are split.
        folds_run: which of them are run.
        models: label -> settings of `recommenders.create`. The label is the model's name, unless
            the settings hold a "model": `{"narrow": {"model": "transformer", "d_model": 32}}`. The
            settings may also hold a "train_share" of the training users. The settings of a
            hybrid's contexts are those of the labels of the same names, or of the
            labels that its "contexts" name.
        seed: of the folds; the seed of a training run follows from it and the fold.
        mask_seen: whether items of the history are left out of the ranking.
        leave_one_out: whether the last item of every user is the test target and the last but one
            the validation target, instead of whole users; the folds are then repetitions.
        on_validation: whether the validation part is evaluated in place of the test part: for the
            choice of settings.
        n_targets: how many of each sequence's last items are targets in the evaluation, each given
            what stands before it; more than the protocol's one only where settings are chosen.
        top_k: how many recommended items are counted for the popularity measures.
    """

    name: str
    dataset: str
    sequences: SequenceSettings = field(default_factory=SequenceSettings)
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: dict(VARIANTS))
    n_folds: int = 10
    folds_run: tuple[int, ...] = tuple(range(10))
    models: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    seed: int = 0
    mask_seen: bool = True
    top_k: int = 20
    leave_one_out: bool = False
    on_validation: bool = False
    n_targets: int = 1

    def __post_init__(self):
        for what, value, kind in (("variants", self.variants, Mapping),
                                  ("models", self.models, Mapping),
                                  ("sequences", self.sequences, SequenceSettings),
                                  *((f"settings of {m!r}", s, Mapping)
                                    for m, s in dict(self.models or {}).items())):
            if not isinstance(value, kind):
                raise ValueError(f"profile {self.name!r}: {what}={value!r}: expected a "
                                 f"{kind.__name__}")
        for what, names in (("name", [self.name]), ("variant", self.variants),
                            ("model", self.models)):
            for name in names:  # they become names of files and folders
                if not isinstance(name, str) or not name.isprintable() or not re.fullmatch(
                        r"(?![.\s])[^/\\:*?\"<>|]+(?<!\s)", name):
                    raise ValueError(f"profile {self.name!r}: {what} {name!r}: expected a name "
                                     "that a file can have: no / \\ : * ? \" < > |, no dot in "
                                     "front and no blank at an end")
        if not self.variants:
            raise ValueError(f"profile {self.name!r} has no variant: expected one or more")
        for name in self.variants:
            self.preprocessing(name)
        checks.whole("n_folds", self.n_folds, low=1)
        checks.whole("seed", self.seed)
        checks.whole("top_k", self.top_k, low=1)
        checks.whole("n_targets", self.n_targets, low=1)
        for name in ("mask_seen", "leave_one_out", "on_validation"):
            checks.choice(name, getattr(self, name), (False, True))
        if not self.folds_run:
            raise ValueError(f"profile {self.name!r}: folds_run={self.folds_run}; expected some of "
                             f"0..{self.n_folds - 1}")
        for fold in self.folds_run:
            checks.whole("folds_run", fold, high=self.n_folds - 1)

    def preprocessing(self, variant: str) -> SequenceSettings:
        """The preprocessing of a variant.

        Raises:
            ValueError: there is no such variant, or preprocessing has no such setting or value.
        """
        if variant not in self.variants:
            raise ValueError(f"profile {self.name!r} has no variant {variant!r}; expected one of "
                             f"{', '.join(self.variants)}")
        changed, known = self.variants[variant], {f.name for f in fields(SequenceSettings)}
        if not isinstance(changed, Mapping) or not set(changed) <= known:
            raise ValueError(f"profile {self.name!r}: variants[{variant!r}]={changed!r}: expected "
                             f"some of {', '.join(sorted(known))} with values")
        return replace(self.sequences, **changed)

    def chosen(self, label: str) -> Chosen:
        """What the profile says of one of its models.

        Raises:
            ValueError: there is no such label, or its train_share is no share.
        """
        if label not in self.models:
            raise ValueError(f"profile {self.name!r} has no model {label!r}; expected one of "
                             f"{', '.join(self.models)}")
        return Chosen.read(label, self.models[label])

    def seed_of(self, fold: int) -> int:
        """The seed of every training run on a fold; it never depends on the order of the runs."""
        return 1000 * self.seed + fold


class Registered(Mapping[str, dict[str, Any]]):
    """The models that have settings for a profile in ``recommenders.MODELS``, as they are now, and
    all hybrids of them.

    Args:
        profile: the name in ``recommenders.Model.defaults``.
        tuned: on which data the settings were tuned that replace those; "" for none.
    """

    def __init__(self, profile: str, tuned: str = ""):
        self.profile, self.tuned = profile, tuned

    def _now(self) -> dict[str, dict[str, Any]]:
        start = {name: dict(model.defaults[self.profile]) for name, model in MODELS.items()
                 if self.profile in model.defaults}
        backbones = [name for name in recommenders.names("sequence") if name in start]
        contexts = [name for name in recommenders.names(*recommenders.CONTEXTS) if name in start]
        start |= {f"{backbone}+{context}": start[backbone] for backbone in backbones
                  for context in contexts}
        chosen = tuning.chosen(self.tuned) if self.tuned else {}
        own = {name: _changed(settings, chosen.get(name, {})) for name, settings in start.items()}
        return {
            **own,
            # As the thesis has it (section 3.6.4), and without its leak.
            **{f"{backbone}+gat+gat-user{form}": own[f"{backbone}+gat"]
               for backbone in ("transformer", "xlstm") for form in ("-literal", "")},
            # A graph that knows the training users alone.
            "gat-inductive": {**own["gat"], "model": "gat", "inductive": True},
            "xlstm+gat-inductive": {**own["xlstm+gat"], "model": "xlstm+gat",
                                    "contexts": {"gat": "gat-inductive"}},
        }

    def __getitem__(self, label: str) -> dict[str, Any]:
        return self._now()[label]

    def __iter__(self) -> Iterator[str]:
        return iter(self._now())

    def __len__(self) -> int:
        return len(self._now())


def _changed(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """With other settings; the feed-forward network of a Transformer stays four times as wide."""
    changed = {**settings, **changes}
    if "d_model" in changes and "d_ff" in changed:
        changed["d_ff"] = 4 * changes["d_model"]
    return changed


PROFILES = {
    # A few hundred users: enough to see everything work, too few to rank close models.
    "sample": Profile(
        name="sample",
        dataset="ml-latest-small",
        folds_run=(0, 1, 2),
        models=Registered("sample"),
    ),
    "laptop": Profile(
        name="laptop",
        dataset="ml-1m",
        models=Registered("laptop", tuned="ml-1m"),
    ),
    # The thesis's settings as it states them (sections 2.2, 3.2 to 3.4 and 4.1).
    "full": Profile(
        name="full",
        dataset="ml-latest",
        sequences=SequenceSettings(random_sample=0.3),
        models=Registered("full"),
    ),
}


def _grid(models: Mapping[str, Mapping[str, Any]], tried: Mapping[str, Mapping[str, tuple]]
          ) -> dict[str, dict[str, Any]]:
    """Each model as it is, and once for every other value of each of its settings alone."""
    grid = {model: dict(models[model]) for model in tried}
    for model, settings in tried.items():
        for setting, values in settings.items():
            for value in values:
                grid[f"{model}-{setting}-{value:g}"] = _changed(
                    {"model": model, **models[model]}, {setting: value})
    return grid


# The thesis states a share of 0.3 and counts 12,839 users, which are this share of the users that
# its percentages leave of the file.
PROFILES["thesis"] = replace(PROFILES["full"], name="thesis",
                             sequences=SequenceSettings(random_sample=0.05825))

_LAPTOP: Mapping[str, Any] = PROFILES["laptop"].models

# How the settings were chosen: on the validation part of fold 0. Parts rotate, so its users are the
# test users of fold 1; chapter 13 shows what leaving that fold out changes.
PROFILES["search"] = Profile(
    name="search", dataset="ml-1m", variants={"original": {}}, folds_run=(0,), on_validation=True,
    models=_grid(_LAPTOP, {
        "ease": {"l2": (30.0, 100.0, 500.0, 1000.0)},
        "svd": {"rank": (10, 20, 100, 200)},
        "user-knn": {"neighbours": (20, 100, 200)},
        "lightgcn": {"learning_rate": (1e-3, 3e-3, 3e-2), "batch_size": (2048, 32768)},
        "transformer": {"d_model": (32, 64, 256, 512), "learning_rate": (3e-4, 3e-3),
                        "dropout": (0.0, 0.3)},
        "mamba": {"d_model": (16, 32, 64, 256), "learning_rate": (3e-4, 3e-3),
                  "input_dropout": (0.0, 0.4)},
        "xlstm": {"d_model": (32, 64), "learning_rate": (3e-4, 3e-3),
                  "input_dropout": (0.0, 0.4)},
    }),
)


def _trials(profile: str, dataset: str) -> dict[str, dict[str, Any]]:
    """Every trial of every model: those of its draws from the settings of the profile. The contexts
    of hybrids have the settings that were chosen for them, so they are tuned first."""
    start, chosen = Registered(profile), Registered(profile, tuned=dataset)
    return {c: chosen[c] for c in recommenders.names(*recommenders.CONTEXTS)} | {
        tuning.label(model, trial): _changed({"model": model, **start[model]}, drawn)
        for model, space in tuning.SPACES.items()
        for trial, drawn in enumerate([{}, *tuning.draws(space)])}


PROFILES["tuning"] = Profile(
    name="tuning", dataset="ml-1m", variants={"original": {}}, folds_run=(0,), on_validation=True,
    n_targets=tuning.TARGETS, models=_trials("laptop", "ml-1m"))
# What of a hybrid's gain is its layers', and what is what the context knows: the same layers over
# zeros, and over the vectors of other films.
PROFILES["controls"] = Profile(
    name="controls", dataset="ml-1m", variants={"original": {}},
    models={"gat": _LAPTOP["gat"]} | {
        f"{backbone}+gat {control}": {"model": f"{backbone}+gat", **_LAPTOP[f"{backbone}+gat"],
                                      "control": control}
        for backbone in ("transformer", "xlstm") for control in ("zeros", "shuffled")})
# The thesis's own sizes and training (full) on the data of the reference run: hours on a processor,
# minutes on a GPU.
PROFILES["literal"] = Profile(
    name="literal", dataset="ml-1m", variants={"original": {}},
    models={m: PROFILES["full"].models[m] for m in tuning.BACKBONES})
# What is asked for decides what is easy.
PROFILES["asked"] = Profile(
    name="asked", dataset="ml-1m", variants=ASKED,
    models={m: _LAPTOP[m] for m in ("popularity", "markov", "ease", "item-knn", "user-knn", "svd",
                                    "transformer", "mamba", "xlstm", "gat", "xlstm+gat")})
# The thesis's Table 2.1 with one test part for all shares.
PROFILES["shares"] = Profile(
    name="shares", dataset="ml-1m", variants={"truncated": VARIANTS["truncated"]}, folds_run=(0,),
    on_validation=True,
    models={"transformer": _LAPTOP["transformer"]} | {
        f"transformer-train_share-{share:g}": _LAPTOP["transformer"] | {"model": "transformer",
                                                                        "train_share": share}
        for share in (0.03, 0.1, 0.3, 0.5)},
)
# Against published numbers: settings of Klenitskiy and Vasilev (2023) for what all have in common,
# of Liu et al. (2024) for the size of Mamba's state and its dropout.
_PUBLISHED = {"d_model": 64, "max_length": 200, "learning_rate": 1e-3, "weight_decay": 0.0,
              "batch_size": 128, "max_epochs": 200, "patience": 10, "min_improvement": 0.0,
              "stop_on": "ndcg@10"}
# Protocol E trains on all prefixes in batches of 2,048 (20 windows, or 20 users' last 200 films,
# ask for about as many), and chooses the epoch with seen items in the ranking.
_AS_E = {"batch_size": 20, "every_item": True, "stop_on": "ndcg@10 with seen"}
_MAMBA4REC = {"d_state": 32, "d_conv": 4, "expand": 2, "dropout": 0.2, **_PUBLISHED, **_AS_E}
PROFILES["verification"] = Profile(
    name="verification", dataset="ml-1m", variants={"original": {}}, leave_one_out=True, n_folds=3,
    folds_run=(0,),
    sequences=SequenceSettings(min_length=4, max_length=100_000, min_rating=None),
    models={
        "popularity": {}, "markov": {}, "ease": _LAPTOP["ease"], "item-knn": {},
        "lightgcn": {"inductive": True},
        "transformer": {"n_layers": 2, "n_heads": 1, "d_ff": 64, "dropout": 0.1, **_PUBLISHED},
        "sasrec": {"n_layers": 2, "n_heads": 1, "dropout": 0.1, **_PUBLISHED},
        # As many steps an epoch as there are in protocol E, where each prefix is an example.
        "sasrec-batch_size-16": {"model": "sasrec", "n_layers": 2, "n_heads": 1, "dropout": 0.1,
                                 **_PUBLISHED, "batch_size": 16},
        "mamba": {"n_layers": 1, "d_state": 32, "d_conv": 4, "expand": 2, "dropout": 0.2,
                  "input_dropout": 0.2, **_PUBLISHED},
        "xlstm": {"n_layers": 1, "n_heads": 8, "expand": 2, "dropout": 0.2, "input_dropout": 0.2,
                  **_PUBLISHED},
        # All that protocol E does otherwise; the same with the last 200 items of a user to train on
        # instead of all; and SASRec trained in that way.
        "mamba4rec": _MAMBA4REC,
        "mamba4rec-every_item-0": _MAMBA4REC | {"model": "mamba4rec", "every_item": False},
        "sasrec-every_item-1": {"model": "sasrec", "n_layers": 2, "n_heads": 1, "dropout": 0.1,
                                **_PUBLISHED, **_AS_E},
    },
)


def get_profile(name: str | None = None) -> Profile:
    """The profile of this name; by default that of `$NBREC_PROFILE`, else "sample".

    Raises:
        ValueError: if there is no such profile.
    """
    name = name or os.environ.get("NBREC_PROFILE") or "sample"
    if name not in PROFILES:
        raise ValueError(
            f"there is no profile {name!r}; choose one of {', '.join(PROFILES)} (as argument, or "
            "in the environment variable NBREC_PROFILE)"
        )
    return PROFILES[name]
