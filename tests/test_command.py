"""What a script says of errors: a line for a user's own, all of it for the others."""

import dataclasses
import os
import signal
import time

import pytest
import tensorflow as tf
import toy_training

from deeppose_tf.pipelines import command, inputs, records


def rotten(folder):
    """A prepared data set, one bit of which has turned since."""
    toy_training.make_index(folder)
    shard = next((folder / "data").glob("train-*"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    return str(folder / "data")


def test_a_rotten_record_is_a_line_that_says_what_to_do(tmp_path, capsys):
    directory = rotten(tmp_path)

    def main(argv):
        index = records.read_index(directory)  # sizes are right
        for _ in inputs.evaluation_dataset(index, "train", inputs.InputConfig(), 4):
            pass

    with pytest.raises(SystemExit) as left:
        command._guarded(main, ["deeppose-train"])
    assert left.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith("deeppose-train: a record of --data is damaged")
    with pytest.raises(ValueError, match="train-.*content has changed"):
        records.verify(directory)


@pytest.mark.parametrize("error", [ValueError, OSError])
def test_users_errors_are_a_line(capsys, error):
    def main(argv):
        raise error("no such thing")

    with pytest.raises(SystemExit) as left:
        command._guarded(main, ["/bin/deeppose-train"])
    assert left.value.code == 1
    assert capsys.readouterr().err == "deeppose-train: no such thing\n"


@pytest.mark.parametrize(
    "error", [KeyError("x"), tf.errors.UnknownError(None, None, "")]
)
def test_our_own_errors_keep_their_stack_trace(error):
    def main(argv):
        raise error

    with pytest.raises(type(error)):
        command._guarded(main, ["deeppose-train"])


def test_ctrl_c_while_training_is_a_line(tmp_path, capsys):
    """And leaves the checkpoint of step 4, from which the same command goes on."""
    index = toy_training.make_index(tmp_path)
    config = dataclasses.replace(toy_training.RECIPE.train, steps=8)

    def look(step):
        if step == 8:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)  # until it comes
        return {}

    def main(argv):
        toy_training.train(index, tmp_path / "run", config, evaluate=look)

    # A suite started in the background by a shell ignores the signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(SystemExit) as left:
            command._guarded(main, ["deeppose-train"])
    finally:
        signal.signal(signal.SIGINT, before)
    assert left.value.code == 130
    said = capsys.readouterr().err
    assert said == "\ndeeppose-train: stopped; the same command goes on\n"
    assert (tmp_path / "run" / "checkpoints" / "ckpt-4.index").exists()


def test_words_that_are_no_flags_are_refused(capsys):
    with pytest.raises(SystemExit):
        command._guarded(lambda argv: None, ["deeppose-train", "run"])
    assert "what is 'run'?" in capsys.readouterr().err
