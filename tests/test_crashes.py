"""Kills, stops, full disks and damaged files of every command; see `crashes`."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

# DEEPPOSE_CRASHES=20,5,3 are the kills, stops and sizes of disks of a release.
KILLS, STOPS, SIZES = os.environ.get("DEEPPOSE_CRASHES", "2,1,1").split(",")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["prepare", "train", "predict", "damage"])
def test_nothing_wrong_is_believed_and_nothing_finished_lost(tmp_path, name):
    program = pathlib.Path(__file__).with_name("crashes.py")
    # Only root may mount a disk of its own.
    sizes = SIZES if os.geteuid() == 0 else "0"
    words = [sys.executable, program, tmp_path, KILLS, STOPS, sizes, name]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "-1"}
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert not done.returncode, done.stderr[-2000:]
    ((counts, wrong),) = json.loads(done.stdout.splitlines()[-1]).values()
    assert not wrong and counts["right"] > 3
    if name != "damage":
        assert counts["SIGKILL"] == int(KILLS) and counts["SIGTERM"] == int(STOPS)
