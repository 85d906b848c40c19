"""Shared fixtures. Real data is used where it is present and never required."""

import collections
import os
import pathlib

import pytest

from deeppose_tf import startup

startup.import_tensorflow()

import tensorflow as tf  # noqa: E402

# Two CPU devices, so that placement and replicas are tested without an accelerator.
# TensorFlow takes this only before its first operation: hence here, for every test.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration()] * 2,
)

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


@pytest.fixture(scope="session")
def mirrored():
    """Both devices as replicas. One for all tests: the collective operations of a
    second strategy in the same process would be taken for those of the first."""
    from deeppose_tf.pipelines.train import strategies

    strategy = strategies.make_strategy("mirrored")
    assert strategy.num_replicas_in_sync == 2
    return strategy


def pytest_terminal_summary(terminalreporter):
    """Says what was skipped and why, which a row of dots and `s` does not."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = collections.Counter(one.longrepr[2] for one in skipped)
    for reason, count in reasons.most_common():
        tests = "1 test" if count == 1 else f"{count} tests"
        why = reason.removeprefix("Skipped: ")
        terminalreporter.write_line(f"{tests} skipped: {why}")
