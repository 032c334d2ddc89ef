"""The files of the playground: what is packed comes out again."""

import base64
import gzip
import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def play():
    spec = importlib.util.spec_from_file_location("play", ROOT / "book" / "play.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read(folder, name):
    """What play.js makes of a file."""
    parts = {}
    for path in folder.glob(f"{name}.*.js"):
        call = re.fullmatch(r"nbrecPlay\.give\((.*)\)\s*", path.read_text())
        arguments = json.loads(f"[{call[1]}]")
        assert arguments[0] == name
        parts[arguments[1]] = arguments[3]
    assert sorted(parts) == list(range(arguments[2]))
    return gzip.decompress(base64.b64decode("".join(parts[i] for i in range(len(parts)))))


def test_files_come_in_parts(play, tmp_path, monkeypatch):
    monkeypatch.setattr(play, "PART", 50)
    data = bytes(range(256))
    play.write(tmp_path, "some+file", data)
    assert len(list(tmp_path.iterdir())) > 2 and read(tmp_path, "some+file") == data
    play.write(tmp_path, "short", b"x")
    assert read(tmp_path, "short") == b"x"


def test_packed_vectors_keep_their_directions(play):
    vectors = np.random.default_rng(0).normal(size=(4, 6)) * np.array([[1], [5], [0.1], [9]])
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for largest, kind, close in ((32767, "<i2", 1e-7), (31, "<i1", 1e-2)):
        raw = play.packed(vectors, largest)
        width, size = np.frombuffer(raw, "<i4", 2)
        rows = np.frombuffer(raw, kind, offset=8).reshape(-1, width).astype(float)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        assert (width, size) == (6, np.dtype(kind).itemsize)
        assert 1 - close < (rows * unit).sum(1).min() < 1


def test_films_are_those_of_the_models(play, tmp_path):
    from nbrec.play import bundle, explore, letterboxd, matching

    play.write_films(tmp_path)
    data = json.loads(read(tmp_path, "films"))
    one = bundle.load("item-knn")
    films = bundle.films()
    assert [data["films"][row][0] for row in data["catalogue"]] == one.catalogue.tolist()
    assert len(data["catalogue"]) + len(data["others"]) == len(films)
    assert data["test"][0] == one.sequences[int(one.fold.test[0])].tolist()
    row = films.index[films["title"] == "Usual Suspects, The (1995)"].item()
    movie, title, year, genres = data["films"][row]
    assert (title, year) == ("The Usual Suspects", "1995") and row in data["moved"]
    assert "|".join(data["genres"][g] for g in genres) == "Crime|Mystery|Thriller"
    assert data["letterboxd"] == json.loads(json.dumps(letterboxd.rules() | matching.rules()))
    assert {"k": 12, "length": 90, "lowest": 3.0}.items() <= data.items()
    assert data["labels"]["xlstm+gat"] == "xLSTM + GAT" and data["said"] == explore.SAID
    rows = films.index[films["title"].isin([title for _, title in matching.YEARS])]
    known = {str(movie): year for (movie, _), year in matching.YEARS.items()}
    assert data["years"] == {str(films.at[row, "movieId"]): known[str(films.at[row, "movieId"])]
                             for row in rows} and data["years"]["162414"] == 2016


def test_another_runtime_is_refused(play, tmp_path):
    package, version = play.RUNTIME.split("@")
    archive = tmp_path / f"{package}-{version}.tgz"
    archive.write_bytes(b"something else")
    with pytest.raises(SystemExit, match="sha256"):
        play.write_runtime(tmp_path / "partial")
    assert not archive.exists()


def test_the_pages_are_built_without_npm_too(play, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(play.shutil, "which", lambda name: None)
    monkeypatch.setattr(play, "write_models", lambda folder: play.write(folder, "a", b"model"))
    monkeypatch.setattr(play, "write_films", lambda folder: play.write(folder, "films", b"films"))
    (tmp_path / "cache" / "models-of-before").mkdir(parents=True)
    for place in ("first", "second"):  # the second from the cache
        play.make(tmp_path / place, tmp_path / "cache")
        assert {path.name for path in (tmp_path / place).iterdir()} == {"a.0.js", "films.0.js"}
        assert "Install Node.js" in capsys.readouterr().out
        monkeypatch.setattr(play, "write_models", None)
    assert [path.name.split("-")[0] for path in (tmp_path / "cache").iterdir()] == ["models"]
    assert not (tmp_path / "cache" / "models-of-before").exists()
