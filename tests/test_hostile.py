"""Thousands of hostile inputs to an exported cascade, in a process that may die."""

import json
import os
import pathlib
import subprocess
import sys

import pytest
import toy_export

from deeppose_tf.export.saved_model import export as saved_model
from deeppose_tf.export.saved_model import signatures as rows

# DEEPPOSE_FUZZ=100000,7 asks for more inputs, and another seed.
COUNT, SEED = os.environ.get("DEEPPOSE_FUZZ", "10000,0").split(",")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    cascade = toy_export.save_run(folder / "run")
    saved_model.write(cascade, rows.Limits(max_pixels=30_000), {}, folder / "1")
    return folder / "1"


def fuzz(model, count, seed):
    program = pathlib.Path(__file__).with_name("fuzz_saved_model.py")
    done = subprocess.run(
        [sys.executable, program, model, str(count), str(seed)],
        capture_output=True,
        timeout=60 + int(count),
        check=False,
    )
    said = done.stderr.decode(errors="replace").splitlines()
    # libjpeg complains about every damaged file.
    said = [line for line in said if "JPEG" not in line]
    assert done.returncode == 0, "\n".join(said[-30:])
    return json.loads(done.stdout)


def test_some(model):
    assert sum(fuzz(model, 200, 0).values()) == 200


@pytest.mark.slow
def test_many(model):
    answered = fuzz(model, COUNT, SEED)
    assert sum(answered.values()) >= int(COUNT)
    for kind in ("images", "bytes"):
        for answer in ("valid", "not valid"):
            assert answered[f"{kind}, {answer}"] > int(COUNT) / 20
