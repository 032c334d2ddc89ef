"""What a film is about: documents of metadata and tags, and their vectors by TF-IDF."""

from __future__ import annotations

import gzip
import io
import os
import re
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse

from nbrec import paths
from nbrec.data import titles, untrusted
from nbrec.data.untrusted import bad

COLUMNS = ["movieId", "tmdbId", "title", "year", "genres", "director", "cast", "adult", "keywords",
           "overview", "poster_path"]
_ADULT = {"": "", "true": "yes", "yes": "yes", "1": "yes", "false": "no", "no": "no", "0": "no"}
_RULES = {"movieId": ("[0-9]{1,18}", "a whole number"),
          "tmdbId": ("[0-9]*", "a whole number or nothing"),
          "year": ("([0-9]{4})?", "four digits or nothing"),
          "adult": (f"(?i){'|'.join(_ADULT)}", "yes, no or nothing")}
_NOTHING = {"", "(no genres listed)", "unknown"}


# --- metadata ------------------------------------------------------------------------------------


def find_metadata() -> Path | None:
    """tmdb-metadata.csv.gz or tmdb-metadata.csv in `$NBREC_DATA`, then in `data/`; None if there
    is none."""
    own = [Path(os.environ["NBREC_DATA"])] if os.environ.get("NBREC_DATA") else []
    files = (place / f"tmdb-metadata.csv{end}" for place in (*own, paths.data_folder())
             for end in (".gz", ""))
    return next((path for path in files if path.is_file()), None)


def read_metadata(path: str | Path) -> pd.DataFrame:
    """Read a csv of metadata, and check every row of it.

    Args:
        path: UTF-8 csv with the columns `COLUMNS` (others are left out), plain or gzipped. Lists
            are joined by "|"; an empty field is not known; adult is yes or no, true or false, 1
            or 0.

    Returns:
        the table with the columns `COLUMNS`: movieId int64 and unique, all others str.

    Raises:
        ValueError: the file is damaged or a row is bad; the message gives file and line.
    """
    path, rows = Path(path), []
    seen: dict[int, int] = {}  # movieId: line
    with untrusted.opened(path) as stream:
        data = stream.read()
    try:
        data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise bad(path, f"a damaged file ({error})", "UTF-8 csv, plain or gzipped") from error
    lines = untrusted.rows(io.StringIO(untrusted.decode(data, path), newline=""), path)
    line, header = next(lines, (1, []))
    untrusted.columns(header, COLUMNS, path, line)
    places = [header.index(column) for column in COLUMNS]
    for line, row in lines:
        if len(row) != len(header):
            raise bad(path, f"{len(row)} fields", f"{len(header)}, as in the header", line=line)
        row = [row[place].strip() for place in places]
        for column, value in zip(COLUMNS, row, strict=True):
            pattern, expected = _RULES.get(column, ("(?s).*", ""))
            if not re.fullmatch(pattern, value):
                raise bad(path, f"{column} {untrusted.quoted(value)}", expected, line=line)
        if (earlier := seen.setdefault(int(row[0]), line)) != line:
            raise bad(path, f"movieId {row[0]} here and in line {earlier}", "each film once",
                      "Remove one of the lines.", line)
        rows.append(row)
    return pd.DataFrame(rows, columns=COLUMNS, dtype=str).astype({"movieId": "int64"})


def matches(movies: pd.DataFrame, metadata: pd.DataFrame) -> pd.Series:
    """Which films have a row of metadata that is about the same film.

    Ids alone are not trusted: another edition of MovieLens may use them for other films. Titles
    agree if they share a name (either one in brackets, too), accents, punctuation, letter case and
    leading articles apart, and if their years, where both are known, differ by one at most.

    Args:
        movies: movieId, title.
        metadata: as of `read_metadata`.

    Returns:
        bool, indexed by movieId in the order of `movies`.
    """
    rows = metadata.set_index("movieId")[["title", "year"]].to_dict("index")
    same = [movie in rows and titles.same_film(known(title), **rows[movie])
            for movie, title in zip(movies["movieId"], movies["title"], strict=True)]
    return pd.Series(same, index=pd.Index(movies["movieId"], name="movieId"), dtype=bool,
                     name="metadata")


# --- documents -----------------------------------------------------------------------------------


def documents(movies: pd.DataFrame, metadata: pd.DataFrame | None = None,
              tags: pd.DataFrame | None = None) -> pd.Series:
    """One paragraph of text per film (thesis 3.5.2).

    Title, year, genres, director, three actors, adult, keywords and overview; what is not known
    is left out. Films without metadata (see `matches`) have title, year, genres and the ten tags
    that their viewers used most.

    Args:
        movies: movieId, title ("City of Lost Children, The (1995)"), genres ("Drama|Sci-Fi").
        metadata: as of `read_metadata`; None if there are none.
        tags: userId, movieId, tag, timestamp; None if there are none.

    Returns:
        str, indexed by movieId in the order of `movies`, named "document".

    Differs from the paper: without a source for "adult", it is left out, never taken for "no".
    """
    rows = {}
    if metadata is not None:
        same = matches(movies, metadata)
        trusted = metadata[metadata["movieId"].isin(same.index[same])]
        rows = trusted.set_index("movieId").to_dict("index")
    tagged = {} if tags is None else _most_used(tags)
    texts = []
    for movie, title, genres in zip(movies["movieId"], movies["title"], movies["genres"],
                                    strict=True):
        row = {column: known(value) for column, value in rows.get(movie, {}).items()}
        name, year = titles.split(known(title))
        labelled = {
            "Year": year or row.get("year", ""),
            "Genres": _list(genres) or _list(row.get("genres", "")),
            "Director": _list(row.get("director", "")),
            "Cast": _list(row.get("cast", ""), 3),
            "Adult": _ADULT.get(row.get("adult", "").lower(), ""),
            "Keywords": _list(row.get("keywords", "")),
            "Tags": "" if row else ", ".join(tagged.get(movie, [])),
        }
        parts = [name, *(f"{label}: {value}" for label, value in labelled.items() if value),
                 row.get("overview", "")]
        texts.append(" ".join(_sentence(part) for part in parts if part))
    return pd.Series(texts, index=pd.Index(movies["movieId"], name="movieId"), name="document")


def known(value: object) -> str:
    """The text of a field; "" for None and NaN."""
    return "" if pd.isna(value) else str(value).strip()


def _list(joined: object, most: int | None = None) -> str:
    values = [value.strip() for value in known(joined).split("|")]
    return ", ".join([value for value in values if value not in _NOTHING][:most])


def _sentence(part: str) -> str:
    text = " ".join(part.split())
    return text if text.endswith((".", "!", "?", "…")) else text + "."


def _most_used(tags: pd.DataFrame) -> dict[int, list[str]]:
    """Ten tags of each film, the most used first, ties by the alphabet, in any letter case."""
    tags = pd.DataFrame({"movieId": tags["movieId"],
                         "tag": tags["tag"].map(lambda tag: " ".join(known(tag).lower().split()))})
    times = tags[tags["tag"] != ""].groupby(["movieId", "tag"]).size().reset_index(name="times")
    times = times.sort_values(["movieId", "times", "tag"], ascending=[True, False, True])
    return times.groupby("movieId").head(10).groupby("movieId")["tag"].agg(list).to_dict()


def tfidf(documents: pd.Series) -> sparse.csr_array:
    """TF-IDF vectors of documents (thesis 3.5.1; Salton and McGill, 1983), by scikit-learn.

        w_id = tf_id (ln((1 + n) / (1 + df_i)) + 1),    each row divided by its length

    tf_id counts word i in document d, English stop words apart; df_i counts the documents, of n,
    that hold the word.

    Args:
        documents: (n,) str.

    Returns:
        float32 sparse (n, words), rows of length 1, or 0 if a document has no word that counts.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(stop_words="english", dtype=np.float32)
    return sparse.csr_array(vectorizer.fit_transform(map(known, documents)))


def latent(vectors: sparse.csr_array, dimensions: int = 256) -> np.ndarray:
    """Dense vectors of fewer dimensions: truncated SVD (Deerwester et al., 1990).

        X ~ U S V',    row i of the result: u_i S

    Args:
        vectors: sparse (n, words), for example TF-IDF.
        dimensions: as many as kept; fewer if the matrix has fewer rows or columns.

    Returns:
        float32 (n, dimensions).
    """
    from sklearn.decomposition import TruncatedSVD

    svd = TruncatedSVD(min(dimensions, *vectors.shape), random_state=0)
    return svd.fit_transform(vectors).astype(np.float32)
