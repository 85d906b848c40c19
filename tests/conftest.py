"""Shared fixtures. Real data is used where it is present and never required."""

import os
import pathlib

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

DATA = pathlib.Path(
    os.environ.get(
        "DEEPPOSE_DATA", pathlib.Path(__file__).parents[2] / "shared" / "data"
    )
)


@pytest.fixture(scope="session")
def shared_data():
    """The folder of real images and annotations; skips the test where absent."""
    if not DATA.is_dir():
        pytest.skip("no real data: set DEEPPOSE_DATA to its folder")
    return DATA
