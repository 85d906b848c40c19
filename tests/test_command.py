"""What a script says of errors: a line for a user's own, all of it for the others."""

import dataclasses
import errno
import os
import pathlib
import re
import signal
import sys
import time

import pytest
import tensorflow as tf
import toy_run
import toy_training
from absl import flags

from deeppose_tf.export import commands as export_commands
from deeppose_tf.export.serving import commands as client_commands
from deeppose_tf.pipelines.cli import command, progress
from deeppose_tf.pipelines.data import commands as data_commands
from deeppose_tf.pipelines.data import inputs, records
from deeppose_tf.pipelines.data.config import InputConfig
from deeppose_tf.pipelines.evaluation import commands as evaluation
from deeppose_tf.pipelines.paper import commands as paper
from deeppose_tf.pipelines.predict import commands as predict_commands
from deeppose_tf.pipelines.profiling import commands as profiling
from deeppose_tf.pipelines.train import commands as training

client = toy_run.script(client_commands, "client")
predict = toy_run.script(predict_commands, "predict")
prepare = toy_run.script(data_commands, "prepare")
saved_model = toy_run.script(export_commands, "export")
tflite = toy_run.script(export_commands, "tflite")
MODEL, DATA, INPUT = "--model=model", "--data=data", "--input=input"
TRAIN = toy_run.script(training, "train")
# The flag that says where a script writes, and the others that it cannot do without.
FOLDERS = {
    prepare: ("output", "--dataset=lsp", "--source=lsp"),
    TRAIN: ("run", DATA),
    toy_run.script(training, "train_stage"): ("run", DATA, "--stage=1"),
    toy_run.script(evaluation, "evaluate"): ("output", MODEL, DATA),
    toy_run.script(evaluation, "compare"): ("output", "--evaluations=one"),
    predict: ("output", MODEL, INPUT),
    toy_run.script(training, "choose"): ("run", DATA, "--sigmas=1"),
    toy_run.script(paper, "reproduce"): ("output", MODEL, DATA, "--experiment=fig4"),
    saved_model: ("output", MODEL),
    client: ("output", INPUT),
}
FILES = {
    toy_run.script(profiling, "benchmark"): ("output", DATA),
    toy_run.script(export_commands, "benchmark_export"): ("output",),
    tflite: ("output", MODEL, DATA),
}


def name_of(value):
    return getattr(value, "__name__", "").rpartition(".")[-1]


@pytest.fixture
def places(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("kept")
    (tmp_path / "link").symlink_to("nowhere")


def begins(script, *arguments):
    """Whether a command gets as far as its `main`."""
    begun = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(script, "main", lambda argv: begun.append(True))
        toy_run.command(script, *arguments)
    return bool(begun)


def rotten(folder):
    """A prepared data set, one bit of which has turned since."""
    toy_training.make_index(folder)
    shard = next((folder / "data").glob("train-*.tfrecord"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    return str(folder / "data")


def said_of_reading(index, capsys):
    """What a command that reads the training people prints before it leaves with 1."""

    def main(argv):
        for _ in inputs.evaluation_dataset(index, "train", InputConfig(), 4):
            pass

    with pytest.raises(SystemExit) as left:
        command._guarded(main, ["deeppose-train"])
    assert left.value.code == 1
    return capsys.readouterr().err


def test_a_rotten_image_is_a_line_that_says_what_to_do(tmp_path, capsys):
    """The bit is in the middle of the shard; how far records reach is read from it."""
    directory = rotten(tmp_path)
    index = records.read_index(directory)  # sizes are right
    shard = next((tmp_path / "data").glob("train-*.tfrecord"))
    content, place, following = shard.read_bytes(), 0, 0
    while following <= len(content) // 2:  # length and checksum, content and checksum
        place, length = following, int.from_bytes(content[following:][:8], "little")
        following += 8 + 4 + length + 4
    assert said_of_reading(index, capsys) == (
        f"deeppose-train: {shard}: the image at byte {place + 12} is damaged. Delete "
        f"{directory} and run deeppose-prepare again\n"
    )
    with pytest.raises(ValueError, match="train-.*content has changed"):
        records.verify(directory)


def test_names_of_files_are_no_commands_to_a_terminal(capsys):
    def main(argv):
        print("left out: a\x1b[2J\x9b\u202eb\r\udcff é\n", end="")
        raise ValueError("\x1b]0;title\x07: no such file")

    with pytest.raises(SystemExit):
        command._guarded(main, ["deeppose-train"])
    out, err = capsys.readouterr()
    assert out == r"left out: a\x1b[2J\x9b\u202eb\r\udcff é" + "\n"
    assert err == r"deeppose-train: \x1b]0;title\x07: no such file" + "\n"


@pytest.mark.parametrize("goes_on", [True, False])
def test_sigterm_is_a_clean_stop(capsys, goes_on):
    cleaned = []

    def main(argv):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)  # until it comes
        finally:
            cleaned.append(True)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as left:
        command._guarded(main, ["deeppose-x"], goes_on=goes_on)
    assert cleaned and left.value.code == 143
    does = "goes on" if goes_on else "begins again"
    assert (
        capsys.readouterr().err == f"\ndeeppose-x: stopped; the same command {does}\n"
    )
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_that_tensorflow_makes_an_error_of_is_a_stop(capsys, number):
    """As it does while tracing: a training ended with `Failed to convert elements`."""

    def main(argv):
        try:
            os.kill(os.getpid(), number)
            time.sleep(5)  # until it comes
        except KeyboardInterrupt:
            raise TypeError("Failed to convert elements") from None

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(SystemExit) as left:
            command._guarded(main, ["deeppose-x"])
        assert signal.getsignal(signal.SIGINT) == signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert left.value.code == 128 + number
    assert (
        capsys.readouterr().err == "\ndeeppose-x: stopped; the same command goes on\n"
    )


def test_a_stop_that_comes_while_something_is_deleted_is_a_stop(capsys):
    """Python drops what is raised there, and the training went on."""

    class Deleted:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.2)  # until it comes

    def main(argv):
        Deleted()
        time.sleep(5)  # until it comes again

    began, before = time.monotonic(), sys.unraisablehook
    with pytest.raises(SystemExit) as left:
        command._guarded(main, ["deeppose-x"])
    assert left.value.code == 143 and time.monotonic() - began < 4
    assert "stopped; the same command goes on" in capsys.readouterr().err
    assert sys.unraisablehook is before


def test_a_file_that_tensorflow_cannot_read_is_a_line(tmp_path, capsys):
    toy_training.make_index(tmp_path)
    index = records.read_index(str(tmp_path / "data"))
    gone = index.shards["train"][0]
    pathlib.Path(gone).unlink()
    said = said_of_reading(index, capsys)
    assert said.endswith(f"{gone}: No such file or directory\n")
    assert said.startswith("deeppose-train: ") and said.count("\n") == 1


@pytest.mark.parametrize(
    "kind, message, says",
    [
        (
            tf.errors.PermissionDeniedError,
            "{{function_node __wrapped__IteratorGetNext}} /data/a b; Permission denied "
            "[Op:IteratorGetNext] name: ",
            "/data/a b: Permission denied",
        ),
        (
            tf.errors.UnavailableError,
            "Graph execution error:\n\n/data/a; Resource temporarily unavailable\n"
            "\t [[{{node ReadFile}}]]",
            "/data/a: Resource temporarily unavailable",
        ),
        (
            tf.errors.ResourceExhaustedError,
            "/out/a; No space left on device",
            "/out/a: No space left on device",
        ),
        (tf.errors.UnknownError, "/a; Input/output error", "/a: Input/output error"),
    ],
)
def test_what_the_system_says_of_files_is_a_line(kind, message, says, capsys):
    """The messages are TensorFlow's, for a user that is not root, and full disks."""

    def main(argv):
        raise kind(None, None, message)

    with pytest.raises(SystemExit) as left:
        command._guarded(main, ["deeppose-train"])
    assert left.value.code == 1
    assert capsys.readouterr().err == f"deeppose-train: {says}\n"


@pytest.mark.parametrize("error", [ValueError, OSError])
def test_users_errors_are_a_line(capsys, error):
    def main(argv):
        raise error("no such thing")

    with pytest.raises(SystemExit) as left:
        command._guarded(main, ["/bin/deeppose-train"])
    assert left.value.code == 1
    assert capsys.readouterr().err == "deeppose-train: no such thing\n"


@pytest.mark.parametrize(
    "error",
    [
        KeyError("x"),
        tf.errors.UnknownError(None, None, ""),
        tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor; x"),
        tf.errors.NotFoundError(None, None, "No registered 'X' OpKernel for CPU"),
    ],
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


GO_ON = {"client", "prepare", "predict", "train", "train_stage", "choose", "reproduce"}


@pytest.mark.parametrize("script", FOLDERS | FILES, ids=name_of)
def test_after_ctrl_c_a_command_says_what_it_will_do(script, tmp_path, capsys):
    """All said that they go on; an evaluation, for one, begins again."""

    def main(argv):
        raise KeyboardInterrupt

    where, *others = (FOLDERS | FILES)[script]
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as left:
        patch.setattr(script, "main", main)
        toy_run.command(script, f"--{where}={tmp_path / 'new'}", *others)
    assert left.value.code == 130
    does = "goes on" if script.__name__ in GO_ON else "begins again"
    assert capsys.readouterr().err == f"\nscript: stopped; the same command {does}\n"


def test_words_that_are_no_flags_are_refused(capsys):
    with pytest.raises(SystemExit):
        command._guarded(lambda argv: None, ["deeppose-train", "run"])
    assert "what is 'run'?" in capsys.readouterr().err


@pytest.mark.parametrize("script", FOLDERS | FILES, ids=name_of)
def test_a_place_that_cannot_be_made_is_called_by_its_flag(script, tmp_path, capsys):
    """--output=/proc/x was [Errno 2] alone."""
    where, *others = (FOLDERS | FILES)[script]

    def main(argv):
        raise OSError(errno.EROFS, "Read-only file system", str(tmp_path / "new"))

    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as left:
        patch.setattr(script, "main", main)
        toy_run.command(script, f"--{where}={tmp_path / 'new' / 'one'}", *others)
    assert left.value.code == 1
    said = f"--{where}={tmp_path}/new/one: {tmp_path}/new: Read-only file system. Give"
    assert capsys.readouterr().err.startswith(f"script: {said}")


@pytest.mark.parametrize("script", FOLDERS, ids=name_of)
def test_a_file_in_place_of_a_folder_is_a_line(script, places, capsys):
    """[Errno 17] or 20 named no flag, and came when all had been worked out."""
    name, *others = FOLDERS[script]
    assert begins(script, f"--{name}=folder", *others)
    assert begins(script, f"--{name}=new/one", *others)
    for wrong, why in (
        ("file", f"--{name}=file is a file: give the name of a folder"),
        ("link", f"--{name}=link is a file: give the name of a folder"),
        ("file/new/one", f"--{name}=file/new/one: file is a file, and no folder"),
    ):
        with pytest.raises(SystemExit) as left:
            begins(script, f"--{name}={wrong}", *others)
        assert left.value.code == 1
        assert capsys.readouterr().err.startswith(f"script: {why}")


@pytest.mark.parametrize("script", FOLDERS, ids=name_of)
def test_prepared_data_is_no_place_for_anything_else(script, tmp_path, capsys):
    """Also where --overwrite was given."""
    toy_training.make_index(tmp_path)
    name, *others = FOLDERS[script]
    place = f"--{name}={tmp_path / 'data'}"
    if script is prepare:
        assert begins(script, place, *others)
        return
    with pytest.raises(SystemExit) as left:
        begins(script, place, *others)
    assert left.value.code == 1
    assert f"{place} is a prepared data set" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        begins(script, f"{place}/new/one", *others)
    assert "a prepared data set, which" in capsys.readouterr().err


@pytest.mark.parametrize("script", FILES, ids=name_of)
def test_no_file_of_prepared_data_is_replaced(script, tmp_path, capsys):
    toy_training.make_index(tmp_path)
    name, *others = FILES[script]
    place = f"--{name}={tmp_path / 'data' / 'dataset.json'}"
    with pytest.raises(SystemExit) as left:
        begins(script, place, *others)
    assert left.value.code == 1
    assert f"{place} lies within" in capsys.readouterr().err
    assert begins(script, f"--{name}={tmp_path / 'one.json'}", *others)


@pytest.mark.parametrize("script", FILES, ids=name_of)
def test_a_folder_in_place_of_a_file_is_a_line(script, places, capsys):
    """[Errno 21] came after minutes of measurements, which were lost."""
    name, *others = FILES[script]
    for right in ("file", "link", "new/one"):
        assert begins(script, f"--{name}={right}", *others)
    for wrong, why in (
        ("folder", f"--{name}=folder is a folder: give the name of a file"),
        ("file/one", f"--{name}=file/one: file is a file, and no folder"),
    ):
        with pytest.raises(SystemExit) as left:
            begins(script, f"--{name}={wrong}", *others)
        assert left.value.code == 1
        assert capsys.readouterr().err.startswith(f"script: {why}")


@pytest.mark.parametrize("value", ["nan", "inf"])
@pytest.mark.parametrize(
    "script, name",
    [
        (saved_model, "tolerance"),
        (TRAIN, "sigma"),
        (tflite, "max_drop"),
    ],
    ids=name_of,
)
def test_what_is_no_number_is_a_line(script, name, value, places, capsys):
    where, *others = (FOLDERS | FILES)[script]
    with pytest.raises(SystemExit) as left:
        begins(script, f"--{name}={value}", f"--{where}=new", *others)
    assert left.value.code == 1
    said = capsys.readouterr().err
    assert f"--{name}={value}: " in said


def test_a_negative_tolerance_is_refused(places):
    with pytest.raises(flags.IllegalFlagValueError, match="tolerance=-0.5"):
        begins(saved_model, MODEL, "--output=new", "--tolerance=-0.5")


def test_what_is_slow_is_told_in_seconds_for_each(capsys):
    """Of two seconds an image, 2.00s/ image."""
    with progress.bar(2, "Predicting", "image") as bar:
        bar.start_t -= 4.0
        bar.update(2)
    assert re.search(
        r"100% 00:04<00:00,  [12]\.\d\d s/image\n", capsys.readouterr().out
    )


def test_nothing_to_do_has_no_bar(capsys):
    """`0/0 Checking 0%` came before the error that said why there is nothing."""
    for total in (0, 1):
        with progress.bar(total, "Checking", "image") as bar:
            bar.update(total)
        assert bool(capsys.readouterr().out) == (total > 0)
