"""What the order of ratings within a second does."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nbrec.book import ties
from nbrec.data.movielens import MovieLens


def rated(seconds):
    """Users rate pages of four films in a second, two of the last; the file keeps their order."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(60):
        for n, page in enumerate(rng.permutation(12)[:6]):
            rows += [(user, 10 * page + (7 * i) % 4, 5.0, seconds(user, n))
                     for i in range(2 if n == 5 else 4)]
    return pd.DataFrame(rows, columns=["userId", "movieId", "rating", "timestamp"])


def test_ties_fall_as_asked():
    ratings = pd.DataFrame({"userId": 1, "movieId": [3, 1, 2], "timestamp": [5, 5, 5]})
    assert ties.reorder_ties(ratings, "file")["movieId"].tolist() == [3, 1, 2]
    assert ties.reorder_ties(ratings, "id")["movieId"].tolist() == [1, 2, 3]
    drawn = {tuple(ties.reorder_ties(ratings, "random", seed)["movieId"])
             for seed in range(40)}
    assert len(drawn) == 6
    with pytest.raises(ValueError, match="order='time'"):
        ties.reorder_ties(ratings, "time")
    with pytest.raises(ValueError, match="expected a timestamp"):
        ties.reorder_ties(ratings[["userId", "movieId"]], "id")


def test_an_order_within_a_second_is_something_to_learn():
    data = MovieLens("toy", rated(lambda user, n: 1000 * user + 10 * n), None, None, None,
                     notice="", origin="memory", sha256="0" * 64)
    table = ties.compare_ties(data, ["markov"], seeds=2).query("protocol == 'A'")
    table = table.set_index("order")
    assert table.loc["file", "ndcg@10"] > table.loc["random", "ndcg@10"].max() + 0.2
    assert table["users"].eq(60).all() and table.loc["random", "seed"].tolist() == [0, 1]
    # The film just seen never follows itself; popular films stand ahead, whoever saw them.
    assert table.loc["file", "last_ahead"] == 0 == table.loc["random", "last_ahead"].max()
    assert ties.compare_ties(data, ["popularity"], ["file"])["last_ahead"].min() > 0.3
    with pytest.raises(ValueError, match="no settings for .*markow"):
        ties.compare_ties(data, ["markow"])


def test_rows_of_ties_are_added_to_the_table(tmp_path, monkeypatch):
    path, output = tmp_path / "ratings.csv", tmp_path / "ties.csv"
    rated(lambda user, n: 10**9 + 1000 * user + 10 * n).to_csv(path, index=False)
    for models in (["markov"], ["popularity", "markov"]):
        monkeypatch.setattr("sys.argv", ["ties", str(path), "--orders", "file", "--name",
                                         "toy", "--output", str(output), "--models", *models])
        ties.main()
    table = pd.read_csv(output)
    assert table.groupby(["dataset", "model", "order", "protocol"]).size().to_dict() == {
        ("toy", model, "file", protocol): 1
        for model in ("markov", "popularity") for protocol in "AE"}
    popular = table[table["model"] == "popularity"].set_index("protocol")["hr@10"]
    assert popular["A"] > popular["E"]  # films of the history stand in the way


def test_labels_of_the_profile_are_the_models_that_they_name(monkeypatch):
    data = MovieLens("toy", rated(lambda user, n: 1000 * user + 10 * n), None, None, None,
                     notice="", origin="memory", sha256="0" * 64)
    profile = ties.get_profile("verification")
    tiny = {"d_model": 8, "max_epochs": 1, "batch_size": 64, "device": "cpu"}
    small = {"knn": {"model": "item-knn", "last_n": 1}, "item-knn": {},
             "sasrec-batch_size-16": {"model": "sasrec", "n_heads": 1, **tiny, "batch_size": 16},
             "mamba4rec-every_item-0": {"model": "mamba4rec", "every_item": False, **tiny}}
    monkeypatch.setattr(ties, "get_profile", lambda name: replace(profile, models=small))
    table = ties.compare_ties(data, small, ["file"]).query("protocol == 'A'")
    assert table["model"].tolist() == list(small) and table["hr@10"].between(0, 1).all()
    values = table.set_index("model")["ndcg@10"]
    assert values["knn"] != values["item-knn"]


COLUMNS = "dataset,model,order,seed,protocol,users,hr@10,ndcg@10,error,last_ahead,commit,cpu,date\n"
BROKEN = {
    "empty": ("", "No columns to parse"),
    "of other columns": ("userId,movieId\n1,2\n", "columns userId, movieId; expected dataset,"),
    "with a row that is too long": (COLUMNS + "a," * 20 + "\n" + "a," * 30, "Error tokenizing"),
    "cut off": (COLUMNS + "toy,mark", "a row without"),
    "of words": (COLUMNS + "a,b,file,0,A,many,0.1,0.1,0.1,0.1,c,d,e\n", "many"),
    "of bytes": (COLUMNS.encode() + b"\xff\xfe\x00", "decode"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_an_output_of_another_kind_is_refused_before_the_work(tmp_path, monkeypatch, capsys, kind):
    content, message = BROKEN[kind]
    output = tmp_path / "ties.csv"
    output.write_bytes(content if isinstance(content, bytes) else content.encode())
    before = output.read_bytes()
    monkeypatch.setattr(ties.movielens, "load", lambda name: pytest.fail("loaded"))
    with pytest.raises(SystemExit) as stopped:
        ties.main(["ml-1m", "--output", str(output)])
    said = capsys.readouterr().err.split("ties: error: ")[1]
    assert stopped.value.code == 2 and said.count("\n") == 1
    assert f"{output} is no table of ties" in said and message in said
    assert output.read_bytes() == before


def test_an_output_is_named_as_a_csv(tmp_path, capsys):
    with pytest.raises(SystemExit):
        ties.main(["ml-1m", "--output", str(tmp_path / "ties.csv.gz")])
    assert "expected the name of a csv, such as" in capsys.readouterr().err


def test_what_was_measured_before_stays_if_the_table_cannot_be_written(tmp_path, monkeypatch):
    path, output = tmp_path / "ratings.csv", tmp_path / "ties.csv"
    rated(lambda user, n: 10**9 + 1000 * user + 10 * n).to_csv(path, index=False)
    asked = [str(path), "--orders", "file", "--output", str(output), "--models"]
    ties.main([*asked, "popularity"])
    before = output.read_bytes()

    def half(self, name, **options):
        Path(name).write_text("dataset,mod")
        raise OSError("no space left")

    monkeypatch.setattr(pd.DataFrame, "to_csv", half)
    with pytest.raises(OSError, match="no space"):
        ties.main([*asked, "markov"])
    assert output.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ratings.csv", "ties.csv"]


def test_an_error_is_one_line_on_the_command_line(tmp_path, capsys):
    path = tmp_path / "ratings.csv"
    rated(lambda user, n: 10**9 + 1000 * user + 10 * n).groupby("userId").head(2).to_csv(
        path, index=False)
    with pytest.raises(SystemExit) as stopped:
        ties.main([str(path), "--models", "markov"])
    said = capsys.readouterr().err.split("ties: error: ")[1]
    assert stopped.value.code == 2 and said.count("\n") == 1
    assert said.startswith("no user is left") and said.endswith("left_truncate.\n")


def test_an_order_is_held_against_chance():
    rows = [("d", "ease", "A", o, 10, h, 0.1, 0.02) for o, h in (
        ("file", 0.3), ("random", 0.1), ("random", 0.3), ("id", 0.1))]
    rows.append(("d", "svd", "A", "file", 10, 0.3, 0.1, 0.02))
    table = ties.by_order(pd.DataFrame(rows, columns=[
        "dataset", "model", "protocol", "order", "users", "hr@10", "ndcg@10", "error"]))
    gain = table.set_index(["model", "order"])["gain"]
    assert gain["ease", "file"] == pytest.approx(0.5) and gain["ease", "id"] == pytest.approx(-0.5)
    assert gain["ease", "random"] == pytest.approx(0) and np.isnan(gain["svd", "file"])
    assert ties.by_order(ties.load())["gain"].notna().any()  # the committed ones
