"""Files that are there whole or not at all, whoever is killed when."""

from __future__ import annotations

import os
import re
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

ABANDONED = 24 * 3600  # seconds after which nobody can be at work on a half-written file


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """A temporary path to write to, which becomes ``path`` once all is written.

    At any instant ``path`` is the old file, the new one, or none. The temporary file stands beside
    it, hidden, and names the process that it belongs to: see ``abandoned``.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{_host()}.{os.getpid()}.{uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def abandoned(path: Path) -> bool:
    """Whether a temporary file of ``atomic`` has lost its process.

    A process of this machine is asked for. Of one elsewhere, which may write to the same folder,
    only the age of the file tells.
    """
    found = re.fullmatch(r"\..+\.([^.]+)\.(\d+)\.\w{8}\.tmp", path.name)
    if found and found[1] == _host():
        try:
            os.kill(int(found[2]), 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass  # it lives, and is somebody else's
    return old(path)


def old(path: Path) -> bool:
    """Whether a file has not been written to for ``ABANDONED`` seconds."""
    try:
        return time.time() - path.stat().st_mtime > ABANDONED
    except FileNotFoundError:  # its owner may be done with it just now
        return False


def output_file(path: str | Path) -> Path:
    """A file that results go to, its folder made if it is not there; asked before the work.

    Raises:
        ValueError: it is a folder, or its folder is a file or may not be written to.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder: expected the name of a file, such as "
                         f"{path / 'results.csv'}")
    writable(path.parent)
    return path


def writable(folder: str | Path) -> Path:
    """A folder for results, made if it is not there; to be asked before the work, not after it.

    Raises:
        ValueError: it is a file, or may not be written to.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(f"{folder} cannot take results ({error.strerror}): expected a folder "
                         "that may be written to; name another one") from error
    return folder


def _host() -> str:
    return re.sub(r"\W", "-", socket.gethostname())
