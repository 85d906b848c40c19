"""Everything that a card is to be measured by, one command after the other.

    python tests/measure_accelerator.py OUT --plain=DATA [--taught=DATA] \\
        [--movenet=FOLDER] [--lite0=FILE] [--only=NAME,...] [--minutes=9]

First what there are bars for: the steps of `paper` and `compact`; the cascade of
`compact`, from prepared data to `cascade.json`; the best from ImageNet's weights and
from taught labels; the paper's network; serving. Then all else. What needs an input
that is not given is left out.

OUT/report.json has of each command its seconds, how it ended, its numbers and whether
they are within the bars; of a training its numbers so far, too. Its words are beside
it. Cut at any moment, the same command goes on: what ended well is not done again, a
training goes on at its checkpoint. With --steps a try-out with tiny numbers.
"""

import argparse
import contextlib
import functools
import json
import pathlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from deeppose_tf import files

# Seconds between two looks at what runs, and until what was asked to stop is killed.
POLL, PATIENCE = 5.0, 20.0
# With Adagrad, the paper's, its network takes many times as many steps.
PAPER = (
    "train.optimizer=adamw,train.learning_rate=2e-4,train.schedule=cosine,"
    "train.warmup=0.05,train.weight_decay=0.05,train.ema=0.998,train.precision=auto,"
    "1.train.steps=60000,2.train.steps=20000,3.train.steps=20000"
)
MOBILE = (
    "1.stage.size=256,1.inputs.canvas=384,1.inputs.batch=64,1.train.steps=4000,"
    "1.train.learning_rate=1e-3,train.ema=0.998"
)
# Name -> data, recipe, stages, what it begins as, and values beside the recipe's.
TRAININGS = {
    "compact": ("plain", "compact", 3, None, ""),
    "mobile": ("plain", "mobile", 2, "lite0", MOBILE),
    "large_taught": ("taught", "large", 2, None, "1.train.steps=24000"),
    "paper": ("plain", "paper", 3, None, PAPER),
    "large": ("plain", "large", 2, None, ""),
    "mobile_taught": ("taught", "mobile", 2, "lite0", MOBILE),
    "full_body": ("taught", "thunder", 2, "movenet", ""),
    "full_body_small": ("taught", "lightning", 2, "movenet", ""),
}
# As they run. The name of a training stands for it and its scores.
ORDER = (
    *("benchmark_paper_1", "benchmark_compact_1", "compact", "mobile", "large_taught"),
    *("paper", "benchmark_export_1", "benchmark_export_8", "large", "mobile_taught"),
    *("full_body", "full_body_small", "benchmark_compact_2", "benchmark_thunder_1"),
)
AT_MOST = {
    "benchmark_paper_1": {"full / bare": 1.1, "bare ms": 3.0, "bare / PyTorch": 1.0},
    "benchmark_compact_1": {"full / bare": 1.1, "bare ms": 2.5},
    "train_compact": {"seconds": 240},
    "train_mobile": {"seconds": 720},
    "train_large_taught": {"seconds": 720},
    "train_paper": {"seconds": 720},
}
MORE_THAN = {
    "evaluate_mobile": {"best mean4": 77.4},
    "evaluate_large_taught": {"best mean4": 83.5},
}


class Command(NamedTuple):
    """What is run, and the file that its numbers are in, as `read` takes its text."""

    name: str
    arguments: list[str]  # of `deeppose`
    place: pathlib.Path
    read: Callable[[str], dict]


def commands(name: str, options: argparse.Namespace) -> Iterator[Command]:
    """The commands of one of `ORDER`; none where an input of it is not given."""
    if name in TRAININGS:
        yield from training(name, *TRAININGS[name], options)
        return
    place = options.out / f"{name}.json"
    if name.startswith("benchmark_export"):
        few = ["--rounds=1"] if options.steps else []
        few += [f"--people_at_once={name.split('_')[-1]}"]
        how, read = ["benchmark-export", "--model=full_body", "--batches=8,32"], serving
    else:
        few = ["--rounds=1", "--batch=16"] if options.steps else ["--rounds=3"]
        _, recipe, stage = name.split("_")
        which = f"--data={options.plain}", f"--recipe={recipe}", f"--stage={stage}"
        how, read = ["benchmark", *which, "--nomemory"], benchmark
    yield Command(name, [*how, f"--output={place}", *few], place, read)


def training(name, data, recipe, stages, weights, values, options):
    """A training, and its scores on the people of LSP's test part."""
    given = vars(options)
    if missing := [f"--{one}" for one in (data, weights) if one and not given[one]]:
        print(f"{name} is left out: it needs {' and '.join(missing)}")
        return
    run, scores = options.out / "runs" / name, options.out / "scores" / name
    how = [f"--weights={given[weights]}"] if weights else []
    how += [f"--set={values}"] if values else []
    for stage in range(1, stages + 1) if options.steps else ():
        few = f"train.steps={options.steps}", "inputs.batch=2", "inputs.views=1"
        how.append("--set=" + ",".join(f"{stage}.{one}" for one in few))
    which = f"--data={given[data]}", f"--recipe={recipe}", f"--stages={stages}"
    log = options.out / f"train_{name}.log"
    yield Command(
        f"train_{name}", ["train", *which, f"--run={run}", *how], log, progress
    )
    how = f"--data={options.plain}", f"--model={run}", f"--output={scores}"
    place = scores / "metrics.json"
    yield Command(f"evaluate_{name}", ["evaluate", *how], place, accuracy)


def benchmark(text: str) -> dict:
    """Of `deeppose-benchmark`: milliseconds a step, and ratios."""
    found = json.loads(text)
    seconds, peers = found["seconds"], found.get("pytorch", {})
    seconds["bare"] = seconds.pop("network")
    numbers = {f"{k} ms": round(1000 * x, 3) for k, x in (seconds | peers).items()}
    numbers["full / bare"] = round(found["overhead"], 3)
    for name in peers:
        if name.endswith("compiled"):
            numbers["bare / PyTorch"] = round(seconds["bare"] / peers[name], 3)
    return {"device": found["device"], "batch": found["batch"]} | numbers


def serving(text: str) -> dict:
    """Of `deeppose-benchmark-export`: milliseconds a request."""
    found = json.loads(text).items()
    return {f"{name} ms": round(1000 * one["seconds"], 1) for name, one in found}


def progress(text: str) -> dict:
    """Of `deeppose-train`: by stage how it began, and PDJ@0.2 of the held-out people
    after how many steps."""
    numbers = {}
    for part in re.split(r"(?m)^(?=stage \d+: \d+ steps?$)", text)[1:]:
        stage = numbers.setdefault(part.partition(":")[0], {"PDJ@0.2": {}})
        for steps, pdj in re.findall(r"(?m)^(\d+)/\d+ Training .* pdj=([\d.]+)", part):
            stage["PDJ@0.2"][steps] = float(pdj)
        if begun := re.findall(r"(?m)^begins .*", part):
            stage["begun"] = list(dict.fromkeys(begun))  # once, where it went on
    return numbers


def accuracy(text: str) -> dict:
    """Of `deeppose-evaluate`: per cent by stage, and the best mean4 of them."""
    numbers = {}
    for row in json.loads(text)["rows"]:
        pdj = {f"PDJ@{k}": row["scores"]["pdj"][k] for k in ("0.05", "0.1", "0.2")}
        scores = {"mean4": row["scores"]["pcp_strict"]["mean4"]} | pdj
        numbers[row["name"]] = {
            k: round(100 * one["fraction"], 1) for k, one in scores.items()
        }
    stages = [one["mean4"] for name, one in numbers.items() if "stage" in name]
    return numbers | {"best mean4": max(stages)}


def bars(name: str, found: dict) -> dict[str, bool]:
    """What is promised of a command's numbers -> whether they are there and keep it."""
    most, more = AT_MOST.get(name, {}), MORE_THAN.get(name, {})
    kept = {f"{k} <= {bar}": k in found and found[k] <= bar for k, bar in most.items()}
    return kept | {f"{k} > {bar}": found[k] > bar for k, bar in more.items()}


def tell(report: dict, options, command: Command, began: float, returned=None) -> dict:
    """Writes what is known of a command, which may still run; its entry."""
    seconds = round(time.monotonic() - began, 1)
    entry = {"returned": returned, "seconds": seconds, "numbers": {}}
    if command.place.exists() and (returned == 0 or command.read is progress):
        entry["numbers"] = command.read(command.place.read_text())
    if returned == 0:
        entry["bars"] = bars(command.name, entry["numbers"] | {"seconds": seconds})
    elif returned is not None:
        said = (options.out / f"{command.name}.log").read_text().splitlines()
        entry["said"] = said[-3:]
    report[command.name] = entry | {"command": " ".join(command.arguments)}
    files.write_json(options.out / "report.json", report)
    return entry


def run(report: dict, options, command: Command, ends: float) -> None:
    """Runs a command, until then at most."""
    # What an earlier run spent on it counts.
    began = time.monotonic() - report.get(command.name, {}).get("seconds", 0)
    now = functools.partial(tell, report, options, command, began)
    program = [sys.executable, "-m", "deeppose_tf.pipelines", *command.arguments]
    with open(options.out / f"{command.name}.log", "a") as log:
        process = subprocess.Popen(program, stdout=log, stderr=log)
    try:
        while process.poll() is None and time.monotonic() < ends:
            now()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(POLL)
    finally:
        process.terminate()  # A training writes a checkpoint, unless it compiles.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE)
        process.kill()
        entry = now(process.wait())
    met = ["NOT " * (not ok) + bar for bar, ok in entry.get("bars", {}).items()]
    ended = f"{entry['seconds']:8.1f} s  returned {entry['returned']}  {', '.join(met)}"
    print(f"{command.name:26}{ended}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--plain", required=True)
    for name in ("taught", "movenet", "lite0"):
        parser.add_argument(f"--{name}")
    parser.add_argument(
        "--only", default=",".join(ORDER), help="by default %(default)s"
    )
    parser.add_argument("--minutes", type=float, default=1e6, help="when to stop")
    parser.add_argument("--steps", type=int, help="of every stage, for a try-out")
    options = parser.parse_args()
    chosen = options.only.split(",")
    if unknown := [name for name in chosen if name not in ORDER]:
        parser.error(f"{', '.join(unknown)}: none of {', '.join(ORDER)}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    ends = time.monotonic() + 60 * options.minutes
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "report.json"
    report = files.load_json(path) if path.exists() else {}
    for name in filter(chosen.count, ORDER):
        for command in commands(name, options):
            done = report.get(command.name, {}).get("returned") == 0
            if not done and time.monotonic() < ends:
                run(report, options, command, ends)
    sys.exit(any(entry["returned"] != 0 for entry in report.values()))


if __name__ == "__main__":
    main()
