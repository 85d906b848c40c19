"""A cascade as one TFLite file for phones, with a description beside it.

What was converted is loaded, run on real people and compared with Keras before a byte
is written: a conversion that went wrong raises no error by itself.
"""

from __future__ import annotations

import collections
import contextlib
import hashlib
import io
import pathlib
import re

import numpy as np
import tensorflow as tf

from deeppose_tf import files
from deeppose_tf.cascade import Cascade
from deeppose_tf.export.saved_model import export as saved_model
from deeppose_tf.export.saved_model.signatures import Limits
from deeppose_tf.export.tflite import convert, lite
from deeppose_tf.pipelines.cli import progress
from deeppose_tf.pipelines.cli.outputs import counted
from deeppose_tf.pipelines.data import records
from deeppose_tf.pipelines.evaluation import scores

# Names of scores in the report, and where `scores.scores` has them.
SCORES = {
    "PDJ@0.2": ("pdj", "0.2"),
    "PCP strict": ("pcp_strict", "mean10"),
    "PCP loose": ("pcp_loose", "mean10"),
}


def export(
    cascade: Cascade,
    output: str,
    index: records.Index,
    kind: str = "float32",
    size: tuple[int, int] | None = None,
    split: str = "test",
    limit: int | None = 200,
    max_drop: float = 1.5,
    seen: int = 60,
    overwrite: bool = False,
    verbose: int = 1,
) -> dict:
    """Converts a cascade, compares, and writes `output` and its description.

    Args:
      output: a file that ends in `.tflite`; its description ends in `.json`.
      index, split, limit: whom to compare on, see `compare`.
      kind, size: see `convert.convert`.
      max_drop: of PDJ@0.2, in points: a file that loses more is not written.
      seen: for `int8`, how many people of the training split activations are seen on.

    Returns:
      The report; see `compare`.

    Raises:
      ValueError: something above is not as it should be, or the file loses too much.
        Nothing is written then.
    """
    path = pathlib.Path(output)
    require_free(path, overwrite)
    people = ()
    if kind == "int8":
        source = "train" if index.counts.get("train") else split
        people = read_images(index, source, seen)
    content = convert.convert(cascade, kind, size, people)
    model = lite.Lite(content, cascade.skeleton)
    found = compare(cascade, model, index, split, limit, verbose)
    found |= {"kind": kind, "bytes": len(content), "operations": operations(content)}
    _require(found, max_drop)
    description = describe(cascade, content, kind, size) | {"report": found}
    with files.alone(path.parent, "conversion"):
        require_free(path, overwrite)
        write(path, content, description)
    return found


def write(path: pathlib.Path, content: bytes, description: dict) -> None:
    """Writes a TFLite file, after its description: once it is there, both are."""
    files.write_json(lite.description_path(path), description, digest=True)
    files.write_bytes(path, content)


def operations(content: bytes) -> list[dict]:
    """The kinds of operations of a TFLite file, most frequent first; a JSON value."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        tf.lite.experimental.Analyzer.analyze(model_content=content)
    counts = collections.Counter(re.findall(r"Op#\d+ (\w+)\(", printed.getvalue()))
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return [{"operation": name, "count": count} for name, count in ordered]


def describe(
    cascade: Cascade, content: bytes, kind: str, size: tuple[int, int] | None
) -> dict:
    """What an app has to know, and where the model comes from; a JSON value."""
    description = saved_model.describe(cascade, Limits())
    for name in ("tolerance", "max_pixels", "people_at_once"):
        del description[name]
    return description | {
        "sha256": hashlib.sha256(content).hexdigest(),
        "kind": kind,
        "image_size": None if size is None else {"height": size[0], "width": size[1]},
        "inputs": {
            "images": "uint8 [1, H, W, 3], RGB, 0 to 255 as decoded: pre-processing is "
            "in the file. Smaller images are filled up at the right and at the bottom "
            f"with {lite.PADDING}, which stands for what lies outside an image",
            "boxes": "float32 [1, 4]",
        },
        "outputs": {
            "keypoints": "float32 [1, K, 2], pixels, in the order of joints",
            "keypoints_by_stage": "float32 [1, S, K, 2], pixels",
            "scores": "float32 [1, K]",
            "valid": "bool [1]",
        },
        "signature": "serving_default",
    }


def require_free(path: pathlib.Path, overwrite: bool) -> None:
    """Checks the name of a file to write, and that it and its description are new, but
    for a description whose file a kill kept from being written.

    Raises:
      ValueError: they are not.
    """
    if path.suffix != ".tflite":
        raise ValueError(f"--output is {path}; the name has to end in .tflite")
    beside = lite.description_path(path)
    for one in (path, beside):
        ours = one == beside and not path.exists() and lite.is_description(beside)
        if one.exists() and not ours and not overwrite:
            raise ValueError(f"{one} is there already: --overwrite replaces it")


def compare(
    cascade: Cascade,
    model: lite.Lite,
    index: records.Index,
    split: str,
    limit: int | None = None,
    verbose: int = 1,
) -> dict:
    """Runs both on the same pixels of the first `limit` people of a split.

    Args:
      cascade: what the file was made of.
      model: the file. Images for one of a fixed size are fitted to it, for both.

    Returns:
      A JSON value: `people`; `pixels`, how far joints are apart, in those of the image
      that both saw; `scores` of both, in per cent.

    Raises:
      ValueError: nobody is in the split, or it has other joints.
    """
    scores.require_joints(cascade.skeleton, index)
    people = records.read_people(index, split, limit)
    count = len(people.ids)
    poses, scales = {"keras": [], "tflite": []}, []
    with progress.bar(count, "Comparing", "person", shown=bool(verbose)) as bar:
        for image, box in read_images(index, split, count):
            scale = np.ones(2, np.float32)
            if model.size is not None:
                image, box, scale = lite.fit(image, box, model.size)
            for found, one in zip(poses.values(), (cascade, model), strict=True):
                answer = one.predict(image, box[None])
                found.append(
                    np.where(answer["valid"][0], answer["keypoints"][0], np.nan)
                )
            scales.append([scale])
            bar.update(1)
    poses = {name: np.stack(found) for name, found in poses.items()}  # [N, K, 2]
    return {
        "people": count,
        "split": split,
        "pixels": _apart(*poses.values()),
        "scores": {
            name: _scores(found / np.stack(scales), people, index.skeleton)
            for name, found in poses.items()
        },
    }


def read_images(index: records.Index, split: str, count: int):
    """Image [H, W, 3] uint8 and first box [4] of the first people of a split."""
    for i, box in enumerate(index.people[split].boxes[:count]):
        yield records.read_image(index, split, i), box


def _require(report, max_drop):
    """Refuses a file that finds fewer joints than it may."""
    before, after = (report["scores"][name]["PDJ@0.2"] for name in ("keras", "tflite"))
    if before is None:
        raise ValueError(f"nobody in {report['split']} can be scored by PDJ")
    if before - after > max_drop:
        raise ValueError(
            f"PDJ@0.2 falls from {before:.2f} to {after:.2f} per cent, by more than "
            f"--max_drop={max_drop}: nothing was written. Try another --kind"
        )


def table(report: dict) -> str:
    """The report as Markdown."""
    pixels, lines = report["pixels"], [["", "Keras", "TFLite"]]
    for name in SCORES:
        both = [report["scores"][of][name] for of in ("keras", "tflite")]
        if None not in both:
            lines.append([f"{name}, per cent", *(f"{one:.2f}" for one in both)])
    kinds = ", ".join("{count} {operation}".format(**x) for x in report["operations"])
    return (
        f"{report['kind']}, {report['bytes'] / 1e6:.2f} MB, "
        f"{counted(report['people'], 'person')} of {report['split']}: joints are "
        f"{pixels['mean']:.4f} pixels from Keras in the mean, {pixels['largest']:.4f} "
        f"at most\n\n{scores.markdown(lines)}\n\nOperations: {kinds}"
    )


def _apart(before, after):
    distances = np.linalg.norm(before - after, axis=-1)
    both = np.isfinite(distances)
    unlike = np.isfinite(before).all((1, 2)) != np.isfinite(after).all((1, 2))
    return {
        "mean": float(distances[both].mean()) if both.any() else None,
        "largest": float(distances[both].max()) if both.any() else None,
        "answered_by_one_only": int(unlike.sum()),
    }


def _scores(poses, people, skeleton):
    found = scores.scores(poses, people, skeleton)
    fractions = {n: found[kind][key]["fraction"] for n, (kind, key) in SCORES.items()}
    return {n: None if one is None else 100 * one for n, one in fractions.items()}
