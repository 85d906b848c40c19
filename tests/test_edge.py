"""`--help`, a wrong flag and a missing path are answered at once, by every command."""

import importlib
import os
import pathlib
import resource
import signal
import subprocess
import sys

import pytest
import toy_run

import deeppose_tf
from deeppose_tf import config
from deeppose_tf.pipelines.cli import scripts

# What each command cannot do without; one of it is missing.
NEEDS = {
    "prepare": ["--dataset=lsp", "--source=missing", "--output=new"],
    "train": ["--data=missing", "--run=new"],
    "train-stage": ["--data=missing", "--run=new", "--stage=1"],
    "choose": ["--data=missing", "--run=new", "--sigmas=1"],
    "presets": ["--weights=missing", "--work=new"],
    "evaluate": ["--model=missing", "--data=missing", "--output=new"],
    "compare": ["--evaluations=missing", "--output=new"],
    "predict": ["--model=missing", "--input=missing", "--output=new"],
    "export": ["--model=missing", "--output=new"],
    "tflite": ["--model=missing", "--data=missing", "--output=new"],
    "client": ["--input=missing", "--output=new"],
    "reproduce": ["--model=missing", "--data=missing", "--output=new"]
    + ["--experiment=fig4"],
    "benchmark": ["--data=missing"],
    "benchmark-export": ["--model=missing"],
}
# Of processor time, which a busy machine does not change much; they take 0.2 to 0.6.
SECONDS = 3.0


@pytest.fixture
def run(tmp_path):
    """Runs a command in an empty folder, where TensorFlow cannot be imported."""
    stand_in = tmp_path / "modules"
    stand_in.mkdir()
    (stand_in / "tensorflow.py").write_text("raise SystemError('imported TensorFlow')")
    (stand_in / "keras.py").write_text("raise SystemError('imported Keras')")
    (tmp_path / "empty").mkdir()

    def call(name, *words):
        command = pathlib.Path(sys.executable).with_name(name)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        ran = subprocess.run(
            [command, *words],
            capture_output=True,
            text=True,
            cwd=tmp_path / "empty",
            env=os.environ | {"PYTHONPATH": str(stand_in)},
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        assert spent < SECONDS
        assert not list((tmp_path / "empty").iterdir())
        return ran.returncode, ran.stdout, ran.stderr

    return call


@pytest.mark.parametrize("name", scripts.COMMANDS)
def test_help_comes_at_once_and_is_no_failure(name, run):
    code, out, err = run(f"deeppose-{name}", "--help")
    assert (code, err) == (0, "")
    assert f"usage: deeppose-{name} " in out
    for need in NEEDS[name]:
        assert f"\n  {need.split('=')[0]}=" in out
    assert "--only_check_args" not in out  # absl's own


@pytest.mark.parametrize("name", scripts.COMMANDS)
def test_a_mistyped_flag_is_answered_by_the_nearest(name, run):
    flag = NEEDS[name][0].split("=")[0]
    mistyped = f"{flag[:4]}{flag[5]}{flag[4]}{flag[6:]}"  # two letters change places
    code, out, err = run(f"deeppose-{name}", f"{mistyped}=1")
    assert (code, out) == (2, "")
    first = f"deeppose-{name}: there is no flag {mistyped}: did you mean {flag}?\n"
    assert err == f"{first}`deeppose-{name} --help` lists the flags\n"


@pytest.mark.parametrize("name", scripts.COMMANDS)
def test_a_missing_path_is_a_line(name, run):
    code, out, err = run(f"deeppose-{name}", *NEEDS[name])
    assert (code, out) == (1, "")
    assert err.startswith(f"deeppose-{name}: ") and "missing" in err
    # deeppose-reproduce says in a second line what to get and to run.
    assert err.count("\n") == (2 if name == "reproduce" else 1)


@pytest.mark.parametrize("name", ["evaluate", "predict", "export", "tflite"])
def test_a_missing_model_is_called_by_its_flag(name, run):
    there = {"--data=missing": "--data=.", "--input=missing": f"--input={__file__}"}
    needs = [there.get(need, need) for need in NEEDS[name]]
    why = "--model: missing does not exist"
    why += f", and is none of the presets {', '.join(config.list_presets())}"
    assert run(f"deeppose-{name}", *needs) == (1, "", f"deeppose-{name}: {why}\n")
    needs[needs.index("--model=missing")] = "--model=."
    code, out, err = run(f"deeppose-{name}", *needs)
    assert (code, out) == (1, "")
    assert err.startswith(f"deeppose-{name}: --model: . is an empty folder: give the ")


@pytest.mark.parametrize("flag", ["--help", "--show"])
def test_a_reader_who_has_enough_is_no_error(flag):
    """It said that a pipe is broken, of `deeppose-train --show | head`."""
    program = pathlib.Path(sys.executable).with_name("deeppose-train")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([program, flag], **pipes) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == -signal.SIGPIPE


def test_deeppose_lists_the_commands(run):
    code, out, err = run("deeppose")
    assert (code, err) == (0, "")
    for name, (_, does) in scripts.COMMANDS.items():
        assert f"  deeppose-{name} " in out and does in out
    assert run("deeppose", "--help")[1] == out
    code, out, err = run("deeppose", "trian")
    assert (code, out) == (2, "")
    assert err.startswith("deeppose: there is no command 'trian'")


def test_a_command_can_be_a_word(run):
    assert run("deeppose", "predict", "--help") == run("deeppose-predict", "--help")
    python = pathlib.Path(sys.executable).name
    words = ("-m", "deeppose_tf.pipelines", "predict", "--help")
    assert run(python, *words) == run("deeppose-predict", "--help")


def test_every_command_says_its_version(run, capsys):
    """One in a process of its own, which imports what --help does; the others here."""
    for name in ("deeppose", "deeppose-predict"):
        found = f"{name} {deeppose_tf.__version__}\n"
        assert run(name, "--version") == (0, found, "")
    for name, (folder, _) in scripts.COMMANDS.items():
        commands = importlib.import_module(f"deeppose_tf.{folder}.commands")
        command = toy_run.script(commands, name.replace("-", "_"))
        with pytest.raises(SystemExit, match="^0$"):
            command._parse([f"deeppose-{name}", "--version"])
        assert capsys.readouterr().out == f"deeppose-{name} {deeppose_tf.__version__}\n"


def test_what_is_required_and_what_is_a_word(run):
    code, _, err = run("deeppose-predict", "--model=one", "--input=two")
    assert code == 2
    assert err.startswith("deeppose-predict: --output is required\n")
    code, _, err = run("deeppose-predict", "one", *NEEDS["predict"])
    assert code == 1
    assert err == "deeppose-predict: what is 'one'? Flags are given as --name=value\n"
    code, _, err = run("deeppose-predict", "--nooverlay")
    assert "did you mean --nooverlays?" in err
