"""Where data, records and models are kept."""

from __future__ import annotations

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
MODELS = PACKAGE.parent / "app" / "models"  # those that come with the repository


def home() -> Path:
    """The checkout that the package is part of, else the working folder."""
    checkout = PACKAGE.parent
    return checkout if (checkout / "pyproject.toml").is_file() else Path()


def data_folder() -> Path:
    """Where data are kept and downloaded to."""
    return home() / "data"


def runs_folder() -> Path:
    """Folder of the working records: `$NBREC_RUNS`, else `runs`."""
    return Path(os.environ["NBREC_RUNS"]) if os.environ.get("NBREC_RUNS") else home() / "runs"


def reference_folder(profile: str = "laptop") -> Path:
    """Folder of the committed records of a profile: `results/<profile>` of the repository.

    It is looked for beside the package, then in the working folder and in each folder above it.

    Raises:
        FileNotFoundError: if it is in none of them; the message says how to get it.
    """
    places = [PACKAGE.parent, Path.cwd(), *Path.cwd().parents]
    for place in places:
        if (folder := place / "results" / profile).is_dir():
            return folder
    raise FileNotFoundError(
        f"no folder results/{profile}: looked in {places[0]} and in {places[1]} and above. The "
        "reference records belong to the repository and are not installed with the package: clone "
        "the repository and work inside it, or copy its folder results/ to where you work"
    )
