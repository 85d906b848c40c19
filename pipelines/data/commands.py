"""deeppose-prepare: data sets of labeled people -> one folder of checked records.

    deeppose-prepare --dataset=lsp,lspet --source=LSP,LSPET --output=DATA

Looks at every image and label first; whatever is wrong is listed at the end, and then
nothing is written. A run that was stopped goes on with the same command.
"""

from __future__ import annotations

import csv
import os

from absl import flags

from deeppose_tf import datasets
from deeppose_tf.datasets import images
from deeppose_tf.pipelines.cli import command
from deeppose_tf.pipelines.cli.command import Flag
from deeppose_tf.pipelines.cli.outputs import counted

# Of what was left out, so many are told with their reasons.
SHOWN = 3

PREPARE_FLAGS = {
    "dataset": Flag(
        list,
        "What to read: lsp (Leeds Sports Pose), lspet (LSP Extended), flic (Frames "
        "Labeled In Cinema), parse (Image Parse), buffy (Buffy Stickmen), mpii (MPII "
        "Human Pose), coco (any COCO keypoint JSON, one's own joints too), generated "
        "(drawn figures). Several, joined by commas, become one if their joints agree.",
    ),
    "source": Flag(
        str,
        "Where each --dataset is, in the same order, joined by commas; of several, one "
        "with a comma of its own in quotes: --source='\"a,b\",c'. The official "
        "folders: lsp and lspet with joints.mat and images, flic with examples.mat, "
        "parse with labels.mat, buffy with data, mpii with its .mat or with train.json "
        "and valid.json. coco: a folder with train.json, perhaps validation.json and "
        "test.json, and images; or as COCO, CVAT and Roboflow lay it out; or one JSON "
        "file. generated: a folder to draw the pictures into.",
    ),
    "repeat": Flag(
        [],
        "How often an epoch shows each --dataset's training part, in the same order: "
        "3,1 lets a small clean set weigh more than a large noisy one. Default: once.",
    ),
    "teacher": Flag(
        [],
        "For each --dataset, joined by commas, a file with the answers of a model that "
        "is good at these joints (COCO results, or a predictions.json), or nothing: "
        "its confident answers complete missing labels to train on and replace those "
        "that they contradict, as 'taught' in dataset.json counts. What is held out "
        "keeps its labels.",
    ),
    "output": Flag(
        str, "The folder to make. A run that was stopped goes on with the same command."
    ),
    "validation": Flag(
        int,
        "How many images to hold out of the first data set's training part (Sec. 4.1), "
        "where there is no validation part. By default 50, or a fifth of few.",
        low=0,
    ),
    "test": Flag(
        int,
        "The same for testing, where no data set has a test part. By default a tenth.",
        low=0,
    ),
    "seed": Flag(
        0, "Chooses the held-out images and the order of the training records."
    ),
    "convention": Flag(
        "person",
        "Whose left is left: person: the person's own; observer: as of someone who "
        "faces the camera, whose left is at the image's right. lsp has the latter in a "
        "file joints-OC.mat, which is not in its download; flic is converted; parse "
        "and buffy have no other; all others have person only.",
        choices=["person", "observer"],
    ),
    "flic_plus": Flag(
        "",
        "Of flic: the file tr_plus_indices.mat of FLIC-plus, which says what of "
        "FLIC-full is for training; --source is then the folder of FLIC-full.",
    ),
    "boxes": Flag(
        [],
        "The first box of everyone, or several in order of preference, joined by "
        "commas: own: what the data set gives (coco and mpii do); full: the whole "
        "image; face: made of a detected face (Sec. 4.1); torso: made of the torso box "
        "that comes with flic; truth: around the labels, which no one has beforehand. "
        "Where none is found, the whole image, which is counted. Default: own.",
    ),
    "boxes_from": Flag(
        "",
        "Of --boxes=face and torso: prepared data or a run of deeppose-train, whose "
        "enlargement of faces and torsos is taken. By default it is fitted on the "
        "people to train on.",
    ),
    "coverage": Flag(
        float,
        "Of --boxes=face and torso: the share of people whose labeled joints the "
        "enlargement contains, in each direction. The paper's, and the default, is 1, "
        "everyone; 0.99 makes boxes a good third smaller.",
        low=0.01,
        high=1.0,
    ),
    "skeleton": Flag(
        "",
        "Of coco: a skeleton JSON file, or coco, lsp, mpii, flic. By default it comes "
        "from the annotation file's category; pairs are told by the joints' names.",
    ),
    "skip_bad": Flag(
        False,
        "Leaves out what is wrong and lists it in dataset.json, instead of stopping.",
    ),
    "convert": Flag(
        False,
        "Stores images that are sound but grayscale, CMYK, palette, 16-bit, turned by "
        "EXIF, or neither JPEG nor PNG as upright 8-bit RGB PNG. Labels must belong to "
        "the upright image.",
    ),
    "sheet": Flag(
        True,
        "Draws 16 people with their joints and names as people.png in the folder; and "
        "with --teacher as taught.png the 16 whose labels it contradicts most.",
    ),
    "max_pixels": Flag(
        images.MAX_PIXELS,
        "Images of more pixels are wrong; looked up before anything is decoded.",
        low=1,
        high=images.MAX_DECODED,
    ),
}


@command.command(
    __doc__,
    PREPARE_FLAGS,
    required=("dataset", "source", "output"),
    folder="output",
    makes_data=True,
)
def run_prepare(values: flags.FlagValues) -> None:
    given = {name: values[name].value for name in PREPARE_FLAGS}
    given["source"] = _sources(values.source, len(values.dataset))
    try:
        given["repeat"] = list(map(int, values.repeat))
    except ValueError as error:
        raise ValueError(f"--repeat={','.join(values.repeat)}: {error}") from error
    _require_there(given)
    from deeppose_tf.pipelines.data.prepare import prepare

    index = prepare(**given)
    if values.sheet:
        from deeppose_tf.pipelines.data import sheet

        sheet.write(index)
    print(describe(index))


def _sources(text: str, count: int) -> list[str]:
    """The paths that --source has, as many as there are data sets."""
    if count == 1:
        return [text]
    try:
        return [path.strip() for path in next(csv.reader([text], strict=True))]
    except (csv.Error, StopIteration) as error:
        raise ValueError(f"--source={text}: {error or 'no path'}") from error


def _require_there(values: dict) -> None:
    """Better before TensorFlow is loaded than after."""
    pairs = list(zip(values["dataset"], values["source"], strict=False))
    needed = [("source", path, name) for name, path in pairs if name != "generated"]
    needed += [(flag, values[flag], "") for flag in ("flic_plus", "boxes_from")]
    needed += [("teacher", path, "") for path in values["teacher"]]
    for flag, path, name in needed:
        if path and not os.path.exists(os.path.expanduser(path)):
            several = flag == "source" and len(pairs) == 1 and "," in path
            hint = "; several need a --dataset each" if several else ""
            raise ValueError(
                f"--{flag}={path}: no such file or folder{hint}"
                f"{datasets.where_from(name)}"
            )


def describe(index) -> str:
    """What a data set holds, in a few lines."""
    from deeppose_tf import metrics
    from deeppose_tf.pipelines.data import first_boxes, records, sheet

    skeleton, joints = index.skeleton, index.skeleton.joints
    alone = [joint for i, joint in enumerate(joints) if skeleton.side(i) == "middle"]
    pairs = ", ".join(f"{joints[a]} - {joints[b]}" for a, b in skeleton.pairs)
    counts = ", ".join(f"{split} {n}" for split, n in index.counts.items())
    lines = [
        f"{index.directory}: {counts} people",
        f"{len(joints)} joints, {len(skeleton.pairs)} pairs of left and right; not "
        f"paired: {', '.join(alone) or 'none'}",
        f"pairs: {pairs or 'none'}",
        f"limbs: {', '.join(limb.name for limb in skeleton.limbs) or 'none'}",
        f"poses are measured by: {metrics.yardstick(skeleton)}",
    ]
    for split, found in index.provenance.get("summary", {}).items():
        fewest, mean, most = found["joints"]
        unmeasured = found["people"] - found["measured"]
        lines.append(
            f"{split}: {counted(found['people'], 'person')} on "
            f"{counted(found['images'], 'image')}, "
            f"{mean:.1f} labeled joints each ({fewest} to {most}), "
            f"{found['outside']:.1%} of them outside of the image, "
            f"{found['first pixel']:.1%} in its first pixel"
            + f"; {counted(unmeasured, 'person')} cannot be measured"
            * bool(unmeasured)
        )
    shown = index.people["train"].weights.sum() if "train" in index.people else 0
    if shown > index.counts.get("train", 0):
        lines.append(f"an epoch shows {shown} people: some of train several times")
    if held_out := index.provenance.get("held_out"):
        unofficial = "; no official test part is there" if "test" in held_out else ""
        lines.append(
            f"held out of the training part: {', '.join(held_out)}{unofficial}"
        )
    if not index.counts.get("test"):
        other = "validation" if index.counts.get("validation") else "train"
        lines.append(
            f"nobody to test on: score with deeppose-evaluate --split={other}, or "
            "prepare with --test=NUMBER into another --output"
        )
    for split in index.counts:
        if boxes := first_boxes.describe(index.provenance, split):
            lines.append(f"first boxes of {split}: {boxes}")
    if index.skipped:
        shown = "; ".join(": ".join(one) for one in index.skipped[:SHOWN])
        more = "; and so on" * (len(index.skipped) > SHOWN)
        lines.append(
            f"left out: {len(index.skipped)}, listed in {records.INDEX}: {shown}{more}"
        )
    if told := index.provenance.get("taught"):
        lines.append(
            f"a teacher completed {told['completed']} and replaced {told['replaced']} "
            f"of the labels of {told['people']} people"
        )
    for name, what in ((sheet.NAME, "them"), (sheet.TAUGHT, "the most contradicted")):
        path = os.path.join(index.directory, name)
        if os.path.exists(path):
            lines.append(f"look at {what}: {path}")
    return "\n".join(lines)


if __name__ == "__main__":
    run_prepare()
