"""Which data sets there are: one entry makes one known to `movielens.load`, profiles and records.

    DATASETS["books"] = Dataset("~/books.csv", repeats="last", format=Format(
        rename={"reader": "userId", "book": "movieId", "when": "timestamp"}))
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

GROUPLENS = "https://files.grouplens.org/datasets/movielens"
_RESEARCH = (
    "Research use with acknowledgement; no endorsement by the University of Minnesota or GroupLens "
    "may be implied; no commercial use without permission. "
)
_SHARE = _RESEARCH + "May be redistributed, transformations included, under the same terms."
_NO_SHARE = _RESEARCH + "May not be redistributed without separate permission."
KNOWN = ("userId", "movieId", "rating", "timestamp", "position")


@dataclass(frozen=True)
class Format:
    """How a file of interactions is written.

    Args:
        separator: one character between two fields.
        columns: their names, if the first line has none; "" for one that has to be empty.
        rename: name in the first line -> userId, movieId, rating (stars), timestamp (seconds since
            1970 UTC) or position (place in the user's order of time).

    Raises:
        ValueError: a separator, a column or a new name is none of those.
    """

    separator: str = ","
    columns: tuple[str, ...] = ()
    rename: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.separator) != 1:
            raise ValueError(f"separator={self.separator!r}: expected one character; of '::' take "
                             "':', and name an empty column between each two")
        if unknown := [name for name in self.rename.values() if name not in KNOWN]:
            raise ValueError(f"rename to {unknown[0]!r}: expected one of {', '.join(KNOWN)}")
        named = [c for c in self.columns if c]
        lacking = [c for c in KNOWN[:2] if c not in named] + (
            [] if {*KNOWN[-2:]} & {*named} else ["timestamp or position"])
        if self.columns and (lacking or self.rename or len({*named}) < len(named)):
            raise ValueError(f"columns={self.columns!r}, rename={dict(self.rename)!r}: expected "
                             "userId, movieId and timestamp or position among the columns, each "
                             "once, and nothing to rename")


_FOUR = ("userId", "movieId", "rating", "timestamp")
# Files of interactions that are known by their names, in the order in which they are looked for.
FORMATS = {
    "ratings.csv": Format(),
    # "::" is read as ":" with empty columns in between: pandas is fast with one character only.
    "ratings.dat": Format(":", ("userId", "", "movieId", "", "rating", "", "timestamp")),
    "u.data": Format("\t", _FOUR),
    "ml-100k.inter": Format("\t", rename=dict(zip(
        ("user_id:token", "item_id:token", "rating:float", "timestamp:float"), _FOUR,
        strict=True))),
    "sequences.csv": Format(),
}


@dataclass(frozen=True)
class Dataset:
    """A data set: where it is and how its file of interactions is written.

    Args:
        source: address of a zip archive; or path of an archive, a folder or a file on this machine.
        interactions: name of the file of interactions in an archive or folder; "" takes the first
            of `FORMATS` that is there.
        format: how that file is written, if its name does not say it.
        repeats, ids: of `movielens.load`, where it is not asked for others.
        folder: that the archive unpacks to, where it is not of the archive's name.
        size: bytes of the archive.
        checksum: of the archive, "sha256:..."; "" takes what comes.
        interactions_sha256: of the file of interactions, so that a repacked archive can be told
            from a changed one; "" if it is not known.
        version: what it holds, and when it was made.
        licence: the publisher's terms in short.
        stand_in: whether MovieLens 100K from a package index may take its place.
    """

    source: str | Path
    interactions: str = ""
    format: Format | None = None
    repeats: str = "error"
    ids: str = "number"
    folder: str = ""
    size: int = 0
    checksum: str = ""
    interactions_sha256: str = ""
    version: str = ""
    licence: str = ""
    stand_in: bool = False

    @property
    def is_address(self) -> bool:
        """Whether the source has to be downloaded."""
        return str(self.source).startswith(("https://", "http://"))

    @property
    def archive(self) -> str:
        """File name of the archive."""
        return str(self.source).rpartition("/")[2]


def _grouplens(name: str, version: str, size: int, checksum: str, interactions: str, sha256: str,
               licence: str, folder: str = "", stand_in: bool = False) -> Dataset:
    return Dataset(f"{GROUPLENS}/{name}.zip", interactions, folder=folder or name, size=size,
                   checksum=f"sha256:{checksum}", interactions_sha256=sha256, version=version,
                   licence=licence, stand_in=stand_in)


# GroupLens may replace the two "latest" archives at any time. The checksums are those of the
# versions of September 2018 and July 2023 (the thesis's "Full"), which have stood since. Should a
# newer one appear, the download says so; a copy of it in data/ is read, with a notice.
DATASETS: dict[str, Dataset] = {
    "ml-latest-small": _grouplens(
        "ml-latest-small", "100,836 ratings of 610 users, September 2018", 978_202,
        "696d65a3dfceac7c45750ad32df2c259311949efec81f0f144fdfb91ebc9e436",
        "ratings.csv", "aa289ca83157595d0df6aea1be6a4ded676ddc4385472e8313a8ed9805352646",
        _SHARE, stand_in=True),
    "ml-latest": _grouplens(
        "ml-latest", "33,832,162 ratings of 330,975 users, July 2023", 350_896_731,
        "66a9e518c747d76b241d9a859b001a2619d3ed1672ceef599eb50daf73a7b4a3",
        "ratings.csv", "ae77c01e7c895e7d61ba3594a1c5ff191b5f7f3a9d788000315a463322fa44f6",
        _SHARE),
    "ml-25m": _grouplens(
        "ml-25m", "25,000,095 ratings of 162,541 users, November 2019", 261_978_986,
        "8b21cfb7eb1706b4ec0aac894368d90acf26ebdfb6aced3ebd4ad5bd1eb9c6aa",
        "ratings.csv", "", _SHARE),
    "ml-32m": _grouplens(
        "ml-32m", "32,000,204 ratings of 200,948 users, October 2023", 238_950_008,
        "e4a68655d7386b8f95f2f2424b2ff975dfdd15ffd59e0d864a14dca43e99d6ee",
        "ratings.csv", "91159850e41ee59c86231165a688709647e2726cab2e7ba9faf04001bd5261ee",
        _SHARE),
    "ml-20m": _grouplens(
        "ml-20m", "20,000,263 ratings of 138,493 users, April 2015", 198_702_078,
        "96f243c338a8665f6bcc89c53edf6ee39162a846940de6b7c8c48aeada765ff3",
        "ratings.csv", "", _SHARE),
    "ml-10m": _grouplens(
        "ml-10m", "10,000,054 ratings of 69,878 users, January 2009", 65_566_137,
        "813c411ccb6122564edfe752e7f80c4dcc5aa25fa94c93622f6877a7ba252862",
        "ratings.dat", "", _NO_SHARE, "ml-10M100K"),
    "ml-1m": _grouplens(
        "ml-1m", "1,000,209 ratings of 6,040 users, 2000 to 2003", 5_917_549,
        "a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20",
        "ratings.dat", "506d64ca44484487c11dc2d9a28de5c54948213e6b96285e298afe28d6ea4e0f",
        _NO_SHARE),
    "ml-100k": _grouplens(
        "ml-100k", "100,000 ratings of 943 users, 1997 and 1998", 4_924_029,
        "50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229",
        "u.data", "06416e597f82b7342361e41163890c81036900f418ad91315590814211dca490",
        _NO_SHARE),
}

# Copies that are not as published, but known: sha256 of the file of ratings -> what it is.
COPIES = {
    "299974cb01ee5c62c974e0893bba034af07720a8ab5caf6a65326029af423513":
        "It is a known rebuild of 999,964 rows: 245 ratings of rare films are missing, and films "
        "of one second stand in the order of the original file.",
}
