"""Shared fixtures. Real data is used where it is present and never required."""

import collections
import gc
import os
import pathlib

import pytest

from deeppose_tf import startup


def pytest_configure(config):
    """TensorFlow starts here, before any test: not in the process that hands them out
    to others, which would wait for it."""
    if config.getoption("dist", "no") != "no":
        return
    startup.import_tensorflow()
    import tensorflow as tf

    # Two CPU devices, so that placement and replicas are tested without an accelerator.
    # TensorFlow takes this only before its first operation: hence here.
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


@pytest.fixture(scope="session")
def served(tmp_path_factory):
    """A folder with a `run` of three stages and `pose/1`, as deeppose-export writes it:
    seconds that all tests of it share."""
    import toy_export
    import toy_run

    from deeppose_tf import files
    from deeppose_tf.export import commands

    folder = tmp_path_factory.getbasetemp() / "served"
    if "PYTEST_XDIST_WORKER" in os.environ:  # One for all processes.
        folder = folder.parent.with_name("served")
    with files.alone(folder, "test", wait=True):
        if not (folder / "pose").exists():
            toy_export.save_run(folder / "run")
            model, output = f"--model={folder / 'run'}", f"--output={folder / 'pose'}"
            script = toy_run.script(commands, "export")
            toy_run.call(script, model, output, "--max_pixels=450000")
    return folder


# The files that take longest come first: two processes then end together.
LONGEST = ["training", "saved_model", "convert", "graph", "cascade", "networks"]


def pytest_collection_modifyitems(items):
    """Tests of a file stay together, and files in their order but for the longest."""
    order = {f"test_{name}": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))


def pytest_collection_finish():
    """What imports made stays to the end: no collection has to look at it again, and
    there are fewer of what graphs leave in thousands."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 5, 5)


def pytest_terminal_summary(terminalreporter):
    """Says what was skipped and why, which a row of dots and `s` does not."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = collections.Counter(one.longrepr[2] for one in skipped)
    for reason, count in reasons.most_common():
        tests = "1 test" if count == 1 else f"{count} tests"
        why = reason.removeprefix("Skipped: ")
        terminalreporter.write_line(f"{tests} skipped: {why}")
