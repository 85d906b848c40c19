"""Thousands of hostile inputs to an exported cascade, in a process that may die."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

# DEEPPOSE_FUZZ=100000,7 asks for more inputs, and another seed.
COUNT, SEED = os.environ.get("DEEPPOSE_FUZZ", "10000,0").split(",")


def fuzz(served, count, seed):
    program = pathlib.Path(__file__).with_name("fuzz_saved_model.py")
    done = subprocess.run(
        [sys.executable, program, served / "pose" / "1", str(count), str(seed)],
        capture_output=True,
        timeout=60 + int(count),
        check=False,
    )
    said = done.stderr.decode(errors="replace").splitlines()
    # libjpeg complains about every damaged file.
    said = [line for line in said if "JPEG" not in line]
    assert done.returncode == 0, "\n".join(said[-30:])
    return json.loads(done.stdout)


def test_some(served):
    assert sum(fuzz(served, 100, 0).values()) == 100


@pytest.mark.slow
def test_many(served):
    answered = fuzz(served, COUNT, SEED)
    assert sum(answered.values()) >= int(COUNT)
    for kind in ("images", "bytes"):
        for answer in ("valid", "not valid"):
            # Few boxes of few undamaged files lie in the image.
            assert answered[f"{kind}, {answer}"] > int(COUNT) / 50
