"""Every model gets as many trials as every other, and the best of them is chosen by its record."""

import json
from collections import Counter

import pandas as pd
import pytest

from nbrec import tuning
from nbrec.profiles import PROFILES, Registered


def test_each_value_is_tried_as_often_as_every_other():
    for model, space in tuning.SPACES.items():
        drawn = tuning.draws(space)
        assert len(drawn) == 12, model
        for setting, values in space.items():
            times = Counter(d[setting] for d in drawn)
            assert set(times) == set(values) and max(times.values()) - min(times.values()) <= 1


def test_backbone_and_hybrid_try_the_same_settings():
    plain = tuning.draws(tuning.SPACES["xlstm"])
    joined = tuning.draws(tuning.SPACES["xlstm+gat"])
    assert [{k: d[k] for k in plain[0]} for d in joined] == plain
    for space in tuning.SPACES.values():
        assert len({json.dumps(d) for d in tuning.draws(space)}) == 12
    assert {d["fusion_dropout"] for d in joined} == {0.0, 0.2, 0.4, 0.6}


def test_all_models_of_the_reference_are_tuned_alike():
    profile = PROFILES["tuning"]
    trials = Counter(settings["model"] for settings in profile.models.values()
                     if "model" in settings)
    assert set(trials.values()) == {13} and set(trials) == set(tuning.SPACES)
    plain = {m for m, s in PROFILES["laptop"].models.items() if "model" not in s}
    assert {m for m in plain if "user" not in m or m == "user-knn"} - set(trials) == {"popularity"}
    narrow = [s for s in profile.models.values() if s.get("d_model") == 64 and "d_ff" in s]
    assert narrow and {s["d_ff"] for s in narrow} == {256}


def test_what_was_chosen_is_what_the_reference_runs(tmp_path, monkeypatch):
    found = {"ml-1m": {"ease": {"l2": 60.0}, "gat": {"n_layers": 3},
                       "transformer+gat": {"d_model": 64, "fusion_dropout": 0.4}}}
    (tmp_path / "tuned.json").write_text(json.dumps(found))
    monkeypatch.setattr(tuning, "TUNED", tmp_path / "tuned.json")
    laptop, sample = PROFILES["laptop"].models, PROFILES["sample"].models
    assert laptop["ease"]["l2"] == 60.0 and sample["ease"]["l2"] == 30.0
    assert laptop["transformer"]["d_model"] == 128 and laptop["transformer+gat"]["d_ff"] == 256
    for label in ("transformer+gat", "transformer+gat+gat-user-literal"):
        assert laptop[label]["fusion_dropout"] == 0.4
    assert laptop["gat-inductive"]["n_layers"] == 3
    assert Registered("laptop")["ease"]["l2"] == 250.0


def test_the_best_of_all_trials_is_chosen_and_no_half_of_them(tmp_path):
    def rows(model, values):
        return [{"model": tuning.label(model, i), "ndcg@20": v} for i, v in enumerate(values)]

    runs = pd.DataFrame(rows("ease", [0.1] * 7 + [0.3] + [0.2] * 5) + rows("svd", [0.1] * 12))
    table = tuning.choose(runs)
    assert table.index.tolist() == ["ease"] and table.loc["ease", "trial"] == 7
    assert table.loc["ease", "settings"] == tuning.draws(tuning.SPACES["ease"])[6]
    assert table.loc["ease", "ndcg@20 at the start"] == 0.1


def test_a_folder_without_trials_is_told(tmp_path, capsys):
    with pytest.raises(SystemExit):
        tuning.main(["--folder", str(tmp_path)])
    assert "no records below" in capsys.readouterr().err
