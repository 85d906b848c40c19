"""`deeppose-train`, `deeppose-train-stage` and `deeppose-choose`: flags and `main`.

Nothing here imports TensorFlow before the flags are known to be right.
"""

from __future__ import annotations

import functools
import math
import pathlib

from absl import flags

from deeppose_tf import config, files
from deeppose_tf.pipelines.cli import command
from deeppose_tf.pipelines.cli.command import Flag
from deeppose_tf.pipelines.data.config import CACHES, require_extent
from deeppose_tf.pipelines.train import cluster, recipes

TRAIN = """deeppose-train: trains a whole cascade, stage after stage.

Every stage is saved when it is done; the next one learns from the displacements that it
leaves on the training data. A run that was stopped goes on with the same command; one
that is finished, with more --steps.
"""
TRAIN_STAGE = """deeppose-train-stage: trains one stage of a cascade.

The stages before it have to be there: their displacements on the training data are what
a later stage is trained to undo (Sec. 3.2). After each stage the run is a cascade that
can be evaluated and predicted with.
"""
CHOOSE = """deeppose-choose: chooses sigma and the number of stages as Sec. 4.1 does.

Trains a cascade for every sigma, each in a folder of its own below --run, and compares
them by PDJ@0.2 of the held-out people, mean over joints. The first stage, which has no
use for a sigma, is trained once. A run that was stopped goes on with the same command.
"""
PRESETS = """deeppose-presets: trains, scores and packs the presets that ship.

Prepares the data, trains every stage, evaluates and writes the weights in float16 into
the package, one preset after the other. Goes on with the same command.
"""
DATASETS = ("lsp", "lspet", "flic")
# Flags that are short names for what --set sets in all stages.
SHORT = {
    "steps": ("train.steps", "Gradient steps a stage"),
    "batch": (
        "inputs.batch",
        "Crops per step over all devices. Without this flag the batch shrinks where "
        "people are too few for it",
    ),
    "learning_rate": ("train.learning_rate", "Highest learning rate"),
    "optimizer": (
        "train.optimizer",
        "adagrad, sgd, adam, adamw, lamb, or addons.NAME of tensorflow-addons",
    ),
    "initial_accumulator": (
        "train.initial_accumulator",
        "Where adagrad's sum of squared gradients starts: the larger, the slower its "
        "first steps",
    ),
    "network": (
        "stage.network",
        "paper, compact, efficientnet_lite0, or the name of any class of "
        "keras.applications, such as MobileNetV2",
    ),
    "size": ("stage.size", "Side of a crop, pixels"),
    "sigma": (
        "stage.sigma",
        "Side of a joint's box in pose diameters, later stages. The paper chose 2.0 "
        "for LSP and 1.0 for FLIC",
    ),
    "step_size": (
        "stage.step_size",
        "Share of the displacement seen that later stages apply. Less than 1 gains "
        "where joints are nearly right already",
    ),
    "displacement": (
        "augment.displacement",
        "How far the simulated displacements of later stages spread, as a share of "
        "those observed on the training people. Where people are few, the stage before "
        "knows them too well, and those it has never seen need more",
    ),
    "precision": (
        "train.precision",
        "Arithmetic of the network: float32, mixed_bfloat16, or auto, which takes "
        "bfloat16 where the processor multiplies in it, and is twice as fast or more",
    ),
}


def _defaults(field):
    """What the recipes have: one value, or those of all stages."""
    found = []
    for name in ("compact", "paper"):
        stages = [recipes.named_values(one)[field] for one in recipes.RECIPES[name]]
        if field in recipes.LATER_ONLY:
            stages = stages[1:]
        same = stages[:1] if len(set(stages)) == 1 else stages
        found.append(f"{name}: {', '.join(map(str, same))}")
    return "Defaults, " + "; ".join(found)


def _set_flag(field, meaning):
    """The flag that sets this value of the recipe in all stages."""
    kind = type(recipes.named_values(recipes.RECIPES["compact"][0])[field])
    return Flag(kind, f"{meaning}. {_defaults(field)}.")


CACHE = Flag(
    "auto",
    "Where the people to train on are kept, decoded and cut: on the device, in memory, "
    "in a file beside the records (disk), or nowhere (none), to be decoded again each "
    "time. auto takes the first of which this needs no more than half of what is free.",
    choices=CACHES,
)
# Of all commands that train.
COMMON = {
    "data": Flag(str, "Folder that deeppose-prepare wrote."),
    "run": Flag(
        str,
        "Folder of the cascade: stages, checkpoints and logs. Give the same one "
        "again to resume a run that was stopped, or to train it further.",
    ),
    "recipe": Flag(
        "compact",
        "Preset: compact is small and made for few data and phones; deep is compact "
        "with later stages as deep as the first, better and slower; mobile, lightning "
        "and thunder are larger and begin as published networks, see --weights; paper "
        "follows the paper to the letter (58 million parameters a stage).",
        choices=list(recipes.RECIPES),
    ),
    "set": Flag(
        set,
        "Other values than the recipe's, by the names that --show prints: "
        "--set=train.weight_decay=0.05,inputs.canvas=320 for all stages, "
        "--set=2.train.steps=100 for stage 2. May be given several times.",
    ),
    "show": Flag(False, "Print every value of the recipe, what it means, and leave."),
    **{name: _set_flag(*what) for name, what in SHORT.items()},
    "correction": "step_size",
    "weights": Flag(
        str,
        "What networks start from. A keras.applications network: a local file of "
        "weights, or imagenet, which Keras then downloads. MoveNet's: the JSON file of "
        "its TensorFlow.js graph, or the folder with movenet-lightning.json and "
        "movenet-thunder.json. EfficientNet-Lite0: its PyTorch checkpoint. Any: a "
        "stage of another run, or the first of a run or a preset, whose layers are "
        "taken as by --start_from. Default: at random.",
    ),
    "start_from": Flag(
        str,
        "A trained run or a preset, of any joints: each stage begins as its stage of "
        "the same number, layer by layer as far as they have the same shapes, or by "
        "the names of MoveNet's layers, and joints by their names, which saves most "
        "of the steps where people are few; or as the stage before, if that has more "
        "of its layers and the recipe allows. Default: at random.",
    ),
    "strategy": Flag(
        "auto",
        "Devices: one, all GPUs of this machine (mirrored), or several machines "
        "(multiworker, from TF_CONFIG). auto mirrors where there are several GPUs.",
        choices=("auto", "one", "mirrored", "multiworker"),
    ),
    "wait_seconds": Flag(
        cluster.WAIT_SECONDS,
        "How long the processes of --strategy=multiworker wait for each other to be "
        "started.",
        low=0,
    ),
    "cache": CACHE,
    "steps_per_call": Flag(
        0,
        "Steps that follow each other without a return to Python; checkpoints and "
        "kills come between such calls. 0: as many as take about a second.",
        low=0,
    ),
    "seed": Flag(0, "Of weights, order and augmentation.", low=0),
    "deterministic": Flag(
        False,
        "The same run twice gives the same weights to the bit, at some cost in speed.",
    ),
    "overfit": Flag(
        0,
        "Train on this many people alone, without augmentation: the first thing to try "
        "on new data. PDJ on them must come near 1. 0 trains on all.",
        low=0,
    ),
    "collapse_guard": Flag(
        True, "Stop with advice when every image gets the same pose."
    ),
}
NEEDED = ("data", "run")
STAGES = (
    "How many stages, or auto: add stages while PDJ@0.2 of the held-out people grows. "
    "The paper arrived at 3."
)


@command.command(
    TRAIN, COMMON | {"stages": Flag("3", STAGES)}, unless_shown=NEEDED, folder="run"
)
def run_train(values: flags.FlagValues) -> None:
    """Trains the cascade that the flags describe."""
    stages = _parse_stages(values.stages)
    numbers = range(1, (stages or recipes.MOST_STAGES) + 1)
    recipe_for = _recipes(numbers)
    if values.show:
        count = stages or len(recipes.RECIPES[values.recipe])
        _show([recipe_for(n + 1) for n in range(count)])
        return
    _check_places()
    from deeppose_tf.pipelines.data import records
    from deeppose_tf.pipelines.train import cascade

    options = _options()
    index = records.read_index(values.data)
    cascade.train_stages(values.run, index, recipe_for, stages, options)
    if options.verbose:
        print(
            f"{values.run} is trained. Score it with deeppose-evaluate "
            f"--model={values.run} --data={values.data}"
        )


@command.command(
    TRAIN_STAGE,
    COMMON | {"stage": Flag(int, "Number of the stage, from 1.", low=1)},
    required=("stage",),
    unless_shown=NEEDED,
    folder="run",
)
def run_train_stage(values: flags.FlagValues) -> None:
    """Trains the stage that the flags name."""
    recipe = _recipes([values.stage])(values.stage)
    if values.show:
        _show([recipe], first=values.stage)
        return
    _check_places()
    from deeppose_tf.pipelines.data import records
    from deeppose_tf.pipelines.train import cascade

    options = _options()
    index = records.read_index(values.data)
    cascade.train_stage(values.run, values.stage, index, recipe, options)


CHOOSE_FLAGS = COMMON | {
    "sigmas": Flag(
        list,
        "The sides of a joint's box to try, in pose diameters, joined by commas. The "
        "paper tried 1.5,1.7,2.0,2.3 for LSP and 0.8,1.0,1.2 for FLIC. Each is trained "
        "in a folder of its own below --run, such as RUN/sigma_1.5.",
    ),
    "stages": Flag("auto", STAGES),
}


@command.command(
    CHOOSE, CHOOSE_FLAGS, required=("sigmas",), unless_shown=NEEDED, folder="run"
)
def run_choose(values: flags.FlagValues) -> None:
    """Makes the choice that the flags describe and prints it."""
    if values.sigma is not None:
        raise ValueError("--sigma is what is chosen here: give --sigmas=1.5,1.7,2.0")
    if values.strategy == "multiworker":
        raise ValueError("--strategy=multiworker: candidates train on one machine")
    if values.overfit:
        raise ValueError("--overfit: overfitting tells nothing about sigma")
    sigmas = _parse_sigmas(values.sigmas)
    stages = _parse_stages(values.stages)
    if stages == 1:
        raise ValueError("--stages=1: a first stage has no use for a sigma")
    numbers = range(1, (stages or recipes.MOST_STAGES) + 1)
    chosen = {sigma: _recipes(numbers, sigma) for sigma in sigmas}
    if values.show:
        _show([chosen[sigmas[0]](n) for n in (1, 2, 3)])
        return
    _check_places()
    from deeppose_tf.pipelines.data import records
    from deeppose_tf.pipelines.train import choose_sigma

    content = choose_sigma.choose(
        values.run,
        records.read_index(values.data),
        lambda sigma, number: chosen[sigma](number),
        sigmas,
        stages,
        _options(),
    )
    print(choose_sigma.table(content))


PRESETS_FLAGS = {
    "only": Flag([], "Which presets, joined by commas. Default: all."),
    "work": Flag(str, "Folder for data and runs."),
    **{
        name: Flag(str, f"The folder of {name}, as in deeppose-prepare.")
        for name in DATASETS
    },
    **{
        f"{name}_teacher": Flag(
            str, f"A teacher's answers on {name}, see deeppose-prepare."
        )
        for name in DATASETS
    },
    "weights": Flag(
        str, "The folder of movenet-lightning.json and movenet-thunder.json."
    ),
    "steps": Flag(int, "Of every stage, to try it all. Default: the recipes'."),
    "output": Flag(str(config.PRESETS), "Where presets go: that of this package."),
}


@command.command(PRESETS, PRESETS_FLAGS, required=("work", "weights"), folder="work")
def run_presets(values: flags.FlagValues) -> None:
    """Makes the presets that the flags name."""
    command.require_paths("weights", *DATASETS, *(f"{x}_teacher" for x in DATASETS))
    folders, teachers = (
        {x: values[x + end].value for x in DATASETS if values[x + end].value}
        for end in ("", "_teacher")
    )
    from deeppose_tf.pipelines.evaluation import scores
    from deeppose_tf.pipelines.train import presets

    for name in presets.order(values.only or list(presets.PRESETS)):
        print(f"{name}: {presets.PRESETS[name].recipe}", flush=True)
        report = presets.make(
            name,
            values.work,
            folders,
            teachers,
            values.weights,
            values.steps,
            values.output,
        )
        print(scores.table(report))


def _show(chosen, first=1):
    print(recipes.show(chosen, first), recipes.meanings(), sep="\n\n")


def _recipes(numbers, sigma=None):
    """number of a stage -> its recipe as the flags have it, all checked now rather than
    after a stage."""
    values = flags.FLAGS
    changes = {
        field: getattr(values, name)
        for name, (field, _) in SHORT.items()
        if getattr(values, name) is not None
    }
    changes |= recipes.parse_changes(values.set or [])
    if sigma is not None:
        changes["stage.sigma"] = sigma
    if list(numbers) == [1]:
        for name, (field, _) in SHORT.items():
            if field in changes and field in recipes.LATER_ONLY:
                raise ValueError(
                    f"--{name}: of later stages, and only stage 1 is asked"
                )
    for key in changes:
        number = key.partition(".")[0]
        if number.isdecimal() and int(number) not in numbers:
            raise ValueError(f"--set={key}: stage {number} is not asked for")
    recipe_for = functools.partial(recipes.recipe_for, values.recipe, changes=changes)
    for number in numbers:
        network = recipe_for(number).stage.network
        if not values.weights or config.find_stage(values.weights):
            continue
        if network in ("paper", "compact"):
            raise ValueError(
                f"--weights={values.weights}: network {network} starts from no foreign "
                "weights. Name a network of keras.applications with --network, or give "
                "--start_from for a trained run"
            )
    return recipe_for


def _check_places():
    """What has to be there, before TensorFlow is."""
    command.require_paths("data")
    values = flags.FLAGS
    if values.strategy == "multiworker":
        cluster.read()
    for flag in ("start_from", "weights"):
        path = values[flag].value
        if not path or (flag, path) == ("weights", "imagenet"):
            continue
        if not pathlib.Path(config.find_run(path)).exists():
            said = config.no_preset(path)
            raise ValueError(f"--{flag}={path}: does not exist, and {said}")
    try:
        content = files.load_json(pathlib.Path(values.data) / "dataset.json")
        measured = content["skeleton"]["joints"], content["provenance"]
    except (OSError, ValueError, KeyError, TypeError):
        return  # What is wrong with it is told by who reads all of it.
    require_extent(*measured)


def _options():
    """`loop.Options` as the flags say; switches determinism on where asked, and meets
    other workers, before TensorFlow reads anything, such as records."""
    import tensorflow as tf

    from deeppose_tf.pipelines.train import strategies
    from deeppose_tf.pipelines.train.loop import Options

    values = flags.FLAGS
    if values.deterministic:
        tf.config.experimental.enable_op_determinism()
    strategy = strategies.make_strategy(values.strategy, values.wait_seconds)
    given = any("inputs.batch" in text for text in values.set or [])
    return Options(
        seed=values.seed,
        overfit=values.overfit,
        weights=values.weights,
        start_from=values.start_from and config.find_run(values.start_from),
        fit_batch=values.batch is None and not given,
        strategy=values.strategy,
        wait_seconds=values.wait_seconds,
        guard=values.collapse_guard,
        cache=values.cache,
        steps_per_call=values.steps_per_call,
        verbose=int(strategies.is_chief(strategy)),  # of several workers, one tells
    )


def _parse_stages(text):
    """`--stages` as a number; None for `auto`."""
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"--stages={text} is neither a positive number nor auto")
    return int(text)


def _parse_sigmas(texts):
    try:
        sigmas = [float(text) for text in texts]
    except ValueError as error:
        raise ValueError(f"--sigmas={','.join(texts)}: {error}") from error
    sound = all(math.isfinite(sigma) and sigma > 0 for sigma in sigmas)
    if not sigmas or not sound or len(set(sigmas)) < len(sigmas):
        raise ValueError(
            f"--sigmas={','.join(texts)}: give different numbers above zero"
        )
    return sigmas
