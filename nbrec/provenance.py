"""With what a result was made: commit, versions, digest of the code, machine."""

from __future__ import annotations

import ast
import hashlib
import json
import platform
import re
import subprocess
import sys
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from nbrec import paths

PACKAGES = ["torch", "numpy", "pandas", "scipy", "nbrec"]


def _git(*arguments: str) -> str | None:
    """Output of git in the checkout that this package is part of, None if it is part of none."""
    package = paths.PACKAGE
    try:
        done = subprocess.run(
            ["git", "-C", str(package), *arguments], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _commit() -> tuple[str | None, bool | None]:
    """Commit and whether tracked files differ from it; of a package that pip has installed from a
    repository, the commit that it took."""
    top = _git("rev-parse", "--show-toplevel")
    # An environment inside some other checkout must not borrow that checkout's commit.
    if top is None or Path(top).resolve() != paths.PACKAGE.parent:
        commit = _installed_commit()
        return commit, (None if commit is None else False)
    commit, changes = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "-uno")
    return commit, (None if commit is None or changes is None else bool(changes))


def _installed_commit() -> str | None:
    """What `pip install git+https://...` notes beside the package (PEP 610)."""
    try:
        distribution = metadata.distribution("nbrec")
        if Path(str(distribution.locate_file("nbrec"))).resolve() != paths.PACKAGE:
            return None  # another copy than the one at work
        noted = json.loads(distribution.read_text("direct_url.json") or "{}")
        return noted.get("vcs_info", {}).get("commit_id")
    except (metadata.PackageNotFoundError, json.JSONDecodeError):
        return None


@cache
def code_digest() -> str:
    """sha256 of the modules that make a number, so that records of unlike code are told apart even
    where nobody raised ``CODE``; comments and layout play no part."""
    digest = hashlib.sha256()
    for path in sorted([*paths.PACKAGE.glob("*.py"), *(paths.PACKAGE / "data").glob("*.py"),
                        *(paths.PACKAGE / "models").glob("*.py"),
                        *(paths.PACKAGE / "train").glob("*.py")]):
        digest.update(f"{path.name}\n{ast.dump(ast.parse(path.read_bytes()))}\n".encode())
    return digest.hexdigest()


def _cpu() -> tuple[str, list[str]]:
    """The processor's model, and those of its instruction sets that decide in which order floats
    are added."""
    try:
        text = Path("/proc/cpuinfo").read_text()
        model = re.search(r"model name\s*:\s*(.+)", text)[1].strip()  # type: ignore[index]
        flags = set(re.search(r"(?:flags|Features)\s*:\s*(.+)", text)[1].split())  # type: ignore
    except (OSError, TypeError):
        return platform.processor() or platform.machine(), []
    return model, sorted(f for f in flags if re.match(r"avx|amx|fma|asimd|sve", f))


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return getattr(sys.modules.get(package), "__version__", None)


def facts(device: str = "cpu") -> dict[str, Any]:
    """What a result was made with: versions, commit and digest of the code, device, processor and
    its instruction sets, threads, date (UTC).

    Args:
        device: "cuda" or "cpu", where it was computed; a GPU is named in the result.
    """
    import torch  # here, so that tables and records can be read without loading it

    commit, dirty = _commit()
    cpu, instructions = _cpu()
    return {
        "versions": {"python": platform.python_version(), **{p: _version(p) for p in PACKAGES}},
        "commit": commit,
        "dirty": dirty,
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else "cpu",
        "cpu": cpu,
        "instructions": instructions,
        "code": code_digest(),
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
