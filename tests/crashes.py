"""Kills, stops and fills the disk under every command that writes, as a program:

    python tests/crashes.py FOLDER KILLS STOPS SIZES [COMMAND ...]

Commands run in forks of this process, which spares them TensorFlow's import. After
kills and stops at random times, and each disk that is too small, the same command is to
finish with what it writes undisturbed, and nothing beside it. For the command `damage`
every kind of file that is read back is damaged instead: a bit, half of it, all of it.
What reads it has to name it in a line, or to write what it writes without the damage.
Prints JSON: by command the counts, and what was wrong in words.
"""

import contextlib
import dataclasses
import hashlib
import importlib
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time
import traceback

import cv2
import numpy as np
import toy_lsp
import toy_training as toy

from deeppose_tf.datasets import generated
from deeppose_tf.pipelines.cli import scripts
from deeppose_tf.pipelines.data import records
from deeppose_tf.pipelines.train import recipes

COMMANDS = "prepare train train-stage predict evaluate compare reproduce export tflite"
# Differ from run to run: times, versions of folders, summaries.
VARYING = ("metrics.json", "comparison.json", "pose.json", "events.", "fig4.json")
VARYING += ("saved_model.pb", "fingerprint.pb", "variables.", "deeppose.json")
# Variables are named by how many a process made before; the stages' weights tell.
VARYING += ("ckpt-",)
# What has filled a folder, the command that reads it again, and the file that it reads.
ALL = "prepare train predict evaluate reproduce"
READ = (
    (ALL, "prepare", "data/train-*.tfrecord"),
    (ALL, "prepare", "data/dataset.json"),
    (ALL, "evaluate", "data/test-*.tfrecord"),
    (ALL, "evaluate", "data/test-people.npy"),
    (ALL, "evaluate", "data/dataset.json"),
    (ALL, "predict", "run/cascade.json"),
    (ALL, "predict", "run/stage_2/stage.json"),
    (ALL, "predict", "run/stage_1/weights.safetensors"),
    (ALL, "train", "run/cascade.json"),
    (ALL, "train", "run/stage_1/stage.json"),
    (ALL, "train", "run/stage_2/weights.safetensors"),
    ("prepare train-stage", "train-stage", "run/training_1/checkpoints/ckpt-*"),
    ("prepare train-stage", "train-stage", "run/training_1/settings.json"),
    ("prepare train-stage", "train-stage", "data/validation-*"),
    ("prepare train-stage", "train-stage:none", "data/train-*.tfrecord"),
    ("prepare train-stage", "train-stage", "data/train-people.npy"),
    ("prepare train-stage:disk", "train-stage:disk", "data/canvases-*/*"),
    ("prepare:generated", "prepare:generated", "figures/*/*.json"),
    (ALL, "predict", "poses/predictions.json"),
    (ALL, "compare", "out/metrics.json"),
    (ALL, "reproduce", "paper/poses-*"),
)
SLOW_TO_IMPORT = ("pipelines.evaluation.evaluate", "pipelines.predict.predict")
SLOW_TO_IMPORT += ("pipelines.paper.reproduce", "export.saved_model.export")
SLOW_TO_IMPORT += ("export.tflite.export", "pipelines.data.prepare")
# A command that takes no longer has come to an end.
LONGEST = 300


def main(folder, kills, stops, sizes, *names):
    """Tries these commands, or all."""
    root = pathlib.Path(folder)
    lines = prepare(root)
    names = names or [*COMMANDS.split(), "damage"]
    found = {name: Trial(root, name, lines.get(name, "")) for name in names}
    for name, trial in found.items():
        if name == "damage":
            trial.damage(lines, int(kills))
            continue
        trial.whole()
        trial.interrupted(signal.SIGKILL, int(kills))
        trial.interrupted(signal.SIGTERM, int(stops))
        for share in np.linspace(0.15, 0.85, int(sizes)):
            trial.full(share)
        print(name, trial.counts, *trial.wrong, sep="\n  ", file=sys.stderr, flush=True)
    print(json.dumps({name: [t.counts, t.wrong] for name, t in found.items()}))


def prepare(root):
    """What commands read, and their lines; {} is what they write."""
    for name in COMMANDS.split():
        importlib.import_module(f"deeppose_tf.{scripts.COMMANDS[name][0]}.commands")
    for name in SLOW_TO_IMPORT:
        importlib.import_module(f"deeppose_tf.{name}")
    for module, name, value in toy.PLAIN:
        setattr(module, name, value)
    short = dataclasses.replace(toy.RECIPE.train, steps=40, schedule="constant")
    steps = [dataclasses.replace(one, train=short) for one in (toy.RECIPE, toy.REFINER)]
    recipes.RECIPES["compact"] = tuple(steps)
    records.SHARD_BYTES = 3000
    generated.COUNTS.update(train=8, validation=2, test=2)
    toy_lsp.make_lsp(root / "lsp", 24)
    (root / "photos").mkdir()
    for i in range(12):
        pixels = np.random.default_rng(i).integers(0, 255, (90, 60, 3), np.uint8)
        cv2.imwrite(str(root / "photos" / f"{i}.png"), pixels)
    lines = {
        "prepare": f"--dataset=lsp --source={root}/lsp --output={{}}/data "
        "--validation=4 --test=4",
        "train": f"--data={root}/data --run={{}}/run --stages=2",
        "train-stage": f"--data={root}/data --run={{}}/run --stage=1",
        "predict": f"--model={root}/run --input={root}/photos --output={{}}/poses",
        "evaluate": f"--model={root}/run --data={root}/data --output={{}}/out",
        "compare": f"--evaluations={root}/out --output={{}}/both",
        "reproduce": f"--model={root}/run --data={root}/data --output={{}}/paper "
        "--experiment=fig4",
        "export": f"--model={root}/run --output={{}}/pose",
        "tflite": f"--model={root}/run --data={root}/data --output={{}}/pose.tflite "
        "--kind=float32 --limit=2 --max_drop=100",
    }
    for cache in ("none", "disk"):
        lines[f"train-stage:{cache}"] = f"{lines['train-stage']} --cache={cache}"
    lines["prepare:generated"] = (
        "--dataset=generated --source={}/figures --output={}/drawn"
    )
    for name in ("prepare", "train", "evaluate"):
        status, said = run(name, lines[name].replace("{}", str(root)), root / "made")
        assert status == 0, said
    return lines


class Trial:
    """What one command did.

    Attributes:
      counts: of kills and stops that came while it worked, of full disks, and of all
        that ended as they should.
      wrong: what did not.
    """

    def __init__(self, root, name, line):
        self.root, self.name, self.line = root, name, line
        self.place = root / f"place_{name}"
        self.counts = {"SIGKILL": 0, "SIGTERM": 0, "full": 0, "right": 0}
        self.wrong = []
        self.random = random.Random(name)

    def whole(self):
        begun = time.monotonic()
        self.finish("at the first time")
        self.seconds = time.monotonic() - begun
        self.expected = snapshot(self.place)
        self.bytes = sum(p.stat().st_size for p in self.place.rglob("*"))

    def interrupted(self, number, count):
        kind = number.name
        for attempt in range(3 * count):
            if self.counts[kind] == count:
                return
            if attempt % 2 == 0:  # every other goes on where the last was interrupted
                self.clear()
            child = fork(
                self.name, self.line.replace("{}", str(self.place)), self.place
            )
            time.sleep(self.random.uniform(0.02, 1.1) * self.seconds)
            os.kill(child, number)
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            if status == 0:
                self.clear()
                continue
            self.counts[kind] += 1
            what = f"{kind} {self.counts[kind]}"
            # A shell calls both 143: it came before or after the command had begun.
            ok = status == -number or (number == signal.SIGTERM and status == 143)
            self.judge(ok, f"{what}: status {status}: {said(self.place)}")
            if number == signal.SIGTERM:
                left = strays(self.place)
                self.judge(not left, f"{what}: left {left}")
            if attempt % 2:
                self.finish(f"after {what}")
                self.judge(*self.same(what))

    def full(self, share):
        self.clear()
        size = max(int(self.bytes * share), 8192)
        with disk(self.place, size) as grow:
            status, words = run(
                self.name, self.line.replace("{}", str(self.place)), self.place
            )
            if status == 0:
                return  # it needs less than it leaves
            self.counts["full"] += 1
            what = f"disk of {size} bytes"
            self.judge(
                status == 1 and is_told(words, str(self.place)),
                f"{what}: status {status}: {words[-500:]}",
            )
            self.judge(not strays(self.place), f"{what}: left {strays(self.place)}")
            grow()
            self.finish(f"after a {what}")
            self.judge(*self.same(what))

    def damage(self, lines, flips):
        """Each file, and the command that reads it back where it lies in a folder that
        commands before have filled."""
        self.counts = {"bit": 0, "half": 0, "empty": 0, "named": 0, "right": 0}
        for before, name, pattern in READ:
            line = lines[name].replace(str(self.root), "{}")
            if name.startswith("train-stage"):
                line += " --steps=44"
            kept = pathlib.Path(f"{self.place}.{before}")
            self.clear()
            if kept.exists():
                shutil.rmtree(self.place)
                shutil.copytree(kept, self.place)
            else:
                shutil.copytree(self.root / "lsp", self.place / "lsp")
                shutil.copytree(self.root / "photos", self.place / "photos")
                for one in before.split():
                    filled = (
                        lines[one]
                        .replace(str(self.root), "{}")
                        .replace("{}", str(self.place))
                    )
                    status, words = run(one, filled, self.place)
                    self.judge(status == 0, f"{one}: {words[-500:]}")
                shutil.copytree(self.place, kept)
            status, words = run(name, line.replace("{}", str(self.place)), self.place)
            self.judge(status == 0, f"{name}: {words[-500:]}")
            expected = snapshot(self.place)
            for kind in ["bit"] * flips + ["half", "empty"]:
                shutil.rmtree(self.place)
                shutil.copytree(kept, self.place)
                path = self.random.choice(sorted(self.place.glob(pattern)))
                content = bytearray(path.read_bytes())
                if kind == "bit":
                    bit = self.random.randrange(8 * len(content))
                    content[bit // 8] ^= 1 << bit % 8
                keep = {"bit": len(content), "half": len(content) // 2, "empty": 0}
                path.write_bytes(content[: keep[kind]])
                status, words = run(
                    name, line.replace("{}", str(self.place)), self.place
                )
                # Of checkpoints, none of which is left, the folder.
                name_of = path.parent.name if "ckpt" in pattern else path.name
                named = status == 1 and is_told(words, name_of.partition(".")[0])
                found = snapshot(self.place)
                unlike = [
                    n for n in expected | found if found.get(n) != expected.get(n)
                ]
                damaged = str(path.relative_to(self.place))
                same = status == 0 and set(unlike) <= {damaged}
                self.counts[kind] += 1
                self.counts["named"] += named
                said_or_same = f"{kind} of {damaged}, {name}: {status}, {unlike}: "
                self.judge(named or same, said_or_same + words[-500:])

    def finish(self, when):
        status, words = run(
            self.name, self.line.replace("{}", str(self.place)), self.place
        )
        if status and "is there already" in words:  # of those that do not go on
            status = 0
        self.judge(status == 0, f"{when}: status {status}: {words[-500:]}")

    def same(self, what):
        found = snapshot(self.place)
        unlike = [
            n for n in self.expected | found if found.get(n) != self.expected.get(n)
        ]
        if self.name == "export":  # the next version, where one was finished
            unlike = [name for name in unlike if name.startswith(".")]
        return not unlike, f"{what}: not as undisturbed: {unlike}"

    def judge(self, right, words):
        if right:
            self.counts["right"] += 1
        else:
            self.wrong.append(words)

    def clear(self):
        shutil.rmtree(self.place, ignore_errors=True)
        self.place.mkdir(exist_ok=True)


def snapshot(place):
    """File -> digest, or a word for those that differ from run to run."""
    found = {}
    for path in place.rglob("*"):
        name = str(path.relative_to(place))
        if path.is_file() and path.name != "said" and "events." not in name:
            varies = path.name.startswith(VARYING)
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            found[name] = "there" if varies else digest
    return found


def strays(place):
    """Files under way that a stop should have taken along; a data set that is begun is
    where it goes on."""
    return [
        str(path.relative_to(place))
        for path in place.rglob("*")
        if any(word in path.name for word in (".partial", "_temp", ".tmp", "tempstate"))
        and path.name != ".data.partial"
    ]


def is_told(words, name):
    """Whether what the command itself says, after what TensorFlow does, names a file:
    in a line, or in one of a list."""
    _, found, own = words.partition("deeppose-")
    return bool(found) and name in own and "Traceback" not in words


def run(name, line, place):
    """Exit status of a command and what it printed to standard error."""
    child = fork(name, line, place)
    begun = time.monotonic()
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status), said(place)
        if time.monotonic() - begun > LONGEST:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.02)


def said(place):
    """What the last command printed to standard error."""
    return log(place).read_text(errors="replace")


def log(place):
    return pathlib.Path(f"{place}.said")


def fork(name, line, place):
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        target = os.open(log(place), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(target, 2)
        name = name.partition(":")[0]
        sys.argv = [f"deeppose-{name}", *line.split()]
        scripts.start(name)
        status = 0
    except SystemExit as left:
        status = left.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


@contextlib.contextmanager
def disk(place, size):
    """A file system of so many bytes at this place; calling it makes it large."""
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "crashes", place], check=True
    )
    try:
        yield lambda: subprocess.run(
            ["mount", "-o", "remount,size=1g", place], check=True
        )
    finally:
        subprocess.run(["umount", "-l", place], check=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
