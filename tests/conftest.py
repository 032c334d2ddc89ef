"""What several test files share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real data; tests that need it are skipped where it is not set."""
    folder = os.environ.get("NBREC_DATA")
    if not folder:
        pytest.skip("NBREC_DATA names no folder of real data")
    return Path(folder)


@pytest.fixture
def style():
    """The book's style, and no figure left open."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    from nbrec.book import plots

    with matplotlib.rc_context():
        plots.use_style()
        yield
    plt.close("all")
