"""Data sets from elsewhere: an archive from its address, or the stand-in from a package index."""

from __future__ import annotations

import hashlib
import logging
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from nbrec.data.datasets import Dataset

log = logging.getLogger(__name__)

# MovieLens 100K as the wheel of RecBole carries it, for places that reach a package index only.
PACKAGE = "recbole==1.2.1"
STAND_IN = Dataset(
    PACKAGE, "ml-100k.inter", folder="ml-100k-recbole",
    checksum="9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407")
INSIDE = "recbole/dataset_example/ml-100k"


def download(dataset: Dataset, url: str, folder: Path) -> Path:
    """Download an archive, check it and only then give it its name; returns its path.

    Raises:
        OSError: it cannot be had, or its bytes are others.
    """
    import pooch

    folder.mkdir(parents=True, exist_ok=True)
    log.info("downloading %s (%.1f MB); %s", url, dataset.size / 1e6, dataset.licence)
    downloader = pooch.HTTPDownloader(progressbar=True, chunk_size=1 << 16, timeout=30)
    try:
        # pooch writes to a temporary file, compares the checksum and only then renames it.
        return Path(pooch.retrieve(url, dataset.checksum or None, dataset.archive, folder,
                                   downloader=downloader))
    except ValueError as error:  # pooch: the checksum differs
        raise OSError(
            f"the bytes received are not those of {dataset.archive} ({dataset.version}): "
            f"{short(error)}. If a newer version has been published, download it by hand and put "
            "it into the data folder"
        ) from error


def fetch_stand_in(folder: Path) -> Path:
    """Fetch the stand-in's wheel with pip, check it, keep its two tables; returns their folder.

    Raises:
        OSError: it cannot be had, or its bytes are others.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fallback-", dir=folder) as temporary:
        command = [sys.executable, "-m", "pip", "download", PACKAGE, "--no-deps",
                   "--only-binary=:all:", "--dest", temporary, "--quiet", "--no-input",
                   "--disable-pip-version-check"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(Path(temporary).glob("*.whl"))
        if done.returncode or not wheels:
            reason = [line for line in done.stderr.splitlines() if line.strip()] or ["no wheel"]
            raise OSError(f"pip ended with status {done.returncode}: {reason[-1].strip()}")
        sha256 = hashlib.sha256(wheels[0].read_bytes()).hexdigest()
        if sha256 != STAND_IN.checksum:
            raise OSError(f"{wheels[0].name} has sha256 {sha256}; expected {STAND_IN.checksum}")
        ready = Path(temporary) / "ready"
        ready.mkdir()
        with zipfile.ZipFile(wheels[0]) as wheel:  # its bytes are known
            for name in ("ml-100k.inter", "ml-100k.item"):
                (ready / name).write_bytes(wheel.read(f"{INSIDE}/{name}"))
        target = folder / STAND_IN.folder
        if not target.is_dir():
            ready.rename(target)  # one step: the folder is there whole or not at all
    return target


def short(error: object) -> str:
    """An exception in one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."
