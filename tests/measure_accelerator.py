"""Everything that a card is to be measured by, one command after the other.

    python tests/measure_accelerator.py OUT --plain=DATA --taught=DATA \\
        --movenet=FOLDER --lite0=FILE

Benchmarks of the training steps and of serving; the cascade of `compact` from prepared
data to `cascade.json`, then `large` and ImageNet's `mobile` with plain and taught
labels, MoveNet's recipes and the paper's network, each scored. Goes on where it was
stopped; OUT/report.json has a command's seconds and how it ended as they come, and each
command's words are beside it. With --steps a try-out with tiny numbers.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import time

# With Adagrad, the paper's, its network takes many times as many steps.
PAPER = (
    "train.optimizer=adamw,train.learning_rate=2e-4,train.schedule=cosine,"
    "train.warmup=0.05,train.weight_decay=0.05,train.ema=0.998,"
    "1.train.steps=60000,2.train.steps=20000,3.train.steps=20000"
)


def commands(options):
    """Name -> arguments of `deeppose`, what matters most first."""
    out, plain, taught = options.out, options.plain, options.taught
    few = ["--set=train.steps=" + str(options.steps)] if options.steps else []
    small = [*few, "--set=inputs.batch=2,inputs.views=1"] if few else []
    short = ["--rounds=1"] if few else []
    for recipe, stage in (("paper", 1), ("compact", 1), ("compact", 2), ("thunder", 1)):
        name = f"benchmark_{recipe}_{stage}"
        batch = ["--batch=16", "--rounds=1"] if few else []
        yield name, [
            "benchmark", f"--data={plain}", f"--recipe={recipe}", f"--stage={stage}",
            "--nomemory", f"--output={out / name}.json", *batch,
        ]  # fmt: skip
    yield "benchmark_export", [
        "benchmark-export", "--model=full_body", "--batches=8,32",
        f"--output={out / 'benchmark_export.json'}", *short,
    ]  # fmt: skip
    movenet, lite0 = f"--weights={options.movenet}", f"--weights={options.lite0}"
    longer = (
        []
        if few
        else [
            "--set=1.stage.size=256,1.inputs.canvas=384,1.inputs.batch=64",
            "--set=1.train.steps=4000,1.train.learning_rate=1e-3,train.ema=0.998",
        ]
    )
    more_steps = [] if few else ["--set=1.train.steps=14000"]
    adam = [] if few else [f"--set={PAPER}"]
    for name, data, recipe, stages, more in (
        ("compact", plain, "compact", 3, []),
        ("large", plain, "large", 2, []),
        ("large_taught", taught, "large", 2, more_steps),
        ("mobile", plain, "mobile", 2, [lite0, *longer]),
        ("mobile_taught", taught, "mobile", 2, [lite0, *longer]),
        ("full_body", taught, "thunder", 2, [movenet]),
        ("full_body_small", taught, "lightning", 2, [movenet]),
        ("paper", plain, "paper", 3, ["--precision=auto", *adam]),
    ):
        run = f"--run={out / 'runs' / name}"
        yield f"train_{name}", [
            "train", f"--data={data}", run, f"--recipe={recipe}",
            f"--stages={stages}", *more, *small,
        ]  # fmt: skip
        yield f"evaluate_{name}", [
            "evaluate", f"--data={plain}", f"--model={out / 'runs' / name}",
            f"--output={out / 'scores' / name}",
        ]  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=pathlib.Path)
    for name in ("plain", "taught", "movenet", "lite0"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--steps", type=int, help="of every stage, for a try-out")
    parser.add_argument(
        "--only", default="", help="names of commands with this in them"
    )
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    report, path = {}, options.out / "report.json"
    for name, arguments in commands(options):
        if options.only not in name:
            continue
        began = time.monotonic()
        with open(options.out / f"{name}.log", "a") as log:
            program = [sys.executable, "-m", "deeppose_tf.pipelines", *arguments]
            ended = subprocess.run(program, stdout=log, stderr=log, check=False)
        seconds = round(time.monotonic() - began, 1)
        report[name] = {"seconds": seconds, "returned": ended.returncode}
        path.write_text(json.dumps(report, indent=2) + "\n")
        print(f"{name:28}{seconds:8.1f} s  returned {ended.returncode}", flush=True)


if __name__ == "__main__":
    main()
