"""Average precision by object keypoint similarity (OKS), counted by pycocotools.

It is what users of COCO compare. No TensorFlow. The poses are those of known person
boxes, so recall is that of people whose box is given, not that of a detector.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import pathlib
from collections.abc import Sequence

import numpy as np

from deeppose_tf import files, metrics
from deeppose_tf.datasets import coco_results
from deeppose_tf.skeleton import Skeleton, canonical_names

# What the area of a person is taken for where no annotation file says it: this share of
# the person box, as others do for data without outlines.
BOX_SHARE = 0.53
# Places in pycocotools' list of results.
NAMES = {"AP": 0, "AP50": 1, "AP75": 2, "APM": 3, "APL": 4, "AR": 5}


@dataclasses.dataclass(frozen=True)
class Truth:
    """What poses are compared with.

    Attributes:
      dataset: of COCO: `images`, `annotations` and `categories`.
      order: [K] the skeleton's joints, in the order of the annotations.
      sigmas: [K] in that order.
      own: N, the annotation of each record.
      areas: [N] of the records, square pixels.
      words: how areas are known.
    """

    dataset: dict
    order: list[int]
    sigmas: np.ndarray
    own: list[dict]
    areas: np.ndarray
    words: str


def from_people(people, skeleton: Skeleton) -> Truth:
    """The labels of `labels.People`, each person an image of their own, their area a
    share of the person box.

    Raises:
      ValueError: COCO has no sigma for a joint.
    """
    sigmas = metrics.oks_sigmas(skeleton)
    boxes = np.asarray(people.first_boxes, np.float64)
    sizes = boxes[:, 2:] - boxes[:, :2]
    areas = BOX_SHARE * np.prod(sizes, axis=1)
    count = len(people.ids)
    annotations = [
        {
            "id": i + 1,
            "image_id": i + 1,
            "category_id": 1,
            "keypoints": _flat(people.keypoints[i], 2.0 * people.labeled[i]),
            "num_keypoints": int(people.labeled[i].sum()),
            "area": float(areas[i]),
            "bbox": [*map(float, boxes[i, :2]), *map(float, sizes[i])],
            "iscrowd": 0,
        }
        for i in range(count)
    ]
    words = (
        f"a person's area is taken for {BOX_SHARE:g} of the person box, and everyone "
        "is an image of their own; --annotations takes both from COCO's file"
    )
    order = list(range(len(skeleton.joints)))
    dataset = _dataset(range(1, count + 1), annotations)
    return Truth(dataset, order, sigmas, annotations, areas, words)


def from_annotations(path: str, ids: Sequence[str], skeleton: Skeleton) -> Truth:
    """The annotations that records were made of: COCO's own evaluation.

    Of the images on which the records are everyone counts, crowds are ignored.

    Args:
      ids: N, of the records, which end with the annotations' ids.

    Raises:
      ValueError: not such a file, or a record or joint is not in it; names it.
      OSError: it cannot be read.
    """
    metrics.oks_sigmas(skeleton)
    try:
        content = files.load_json(path)
        (category,) = [c for c in content["categories"] if c.get("keypoints")]
        every = [
            a
            for a in content["annotations"]
            if coco_results.key(a["category_id"]) == coco_results.key(category["id"])
        ]
        by_id = {coco_results.key(a["id"]): a for a in every}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: no COCO annotations of one kind of keypoints ({error})"
        ) from error
    names = canonical_names(category["keypoints"])
    if set(names) != set(skeleton.canonical):
        raise ValueError(
            f"{path}: its joints are {', '.join(category['keypoints'])}, those of the "
            f"data {', '.join(skeleton.joints)}"
        )
    keys = [name.rsplit("/", 1)[-1] for name in ids]
    unknown = [name for name, key in zip(ids, keys, strict=True) if key not in by_id]
    if unknown:
        raise ValueError(
            f"{path}: no annotation of the record {unknown[0]}"
            + (f" and {len(unknown) - 1} more" if len(unknown) > 1 else "")
        )
    own = [by_id[key] for key in keys]
    shown = {str(annotation.get("image_id")) for annotation in own}
    every = [a for a in every if str(a.get("image_id")) in shown]
    for one in every:
        flat = one.get("keypoints")
        whole = isinstance(flat, list) and len(flat) == 3 * len(names)
        if "area" not in one or not whole:
            raise ValueError(
                f"{path}: annotation {one['id']}: OKS needs its 'area' and its "
                f"'keypoints', {3 * len(names)} numbers"
            )
    annotations = [
        {"iscrowd": 0, "num_keypoints": int(np.count_nonzero(a["keypoints"][2::3]))}
        | {**a, "category_id": 1}
        for a in every
    ]
    order = [skeleton.canonical.index(joint) for joint in names]
    return Truth(
        _dataset(sorted({a["image_id"] for a in every}, key=str), annotations),
        order,
        metrics.oks_sigmas(skeleton)[order],
        own,
        np.array([annotation["area"] for annotation in own], np.float64),
        f"areas and other people on the images from {pathlib.Path(path).name}",
    )


def scores(
    predicted: np.ndarray, weights: np.ndarray, people, skeleton: Skeleton, truth: Truth
) -> dict:
    """Average precision and recall of one set of poses, as a JSON value.

    Args:
      predicted: [N, K, 2] pixels, in the project's coordinates; NaN for nobody.
      weights: [N] scores of the people, by which they are ranked.

    Returns:
      `AP`, mean over OKS thresholds from 0.5 to 0.95, `AP50`, `AP75`, `APM` and `APL`
      of medium and large people, `AR`; None where there is nobody. And `mean`, the mean
      OKS over people with labels.

    Raises:
      ValueError: pycocotools is not installed.
    """
    similar = metrics.oks(
        predicted, people.keypoints, people.labeled, skeleton, truth.areas
    )
    known = similar[~np.isnan(similar)]
    found = _average_precision(predicted, weights, truth)
    return found | {"mean": float(known.mean()) if len(known) else None}


def require() -> None:
    """Raises ValueError, which says what to install, where pycocotools is missing."""
    try:
        import pycocotools.cocoeval  # noqa: F401
    except ImportError as error:
        raise ValueError(
            "OKS average precision needs pycocotools: pip install 'deeppose-tf[coco]', "
            "or pip install pycocotools"
        ) from error


def _average_precision(predicted, weights, truth):
    require()
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    # A record that is there several times is one person.
    records = {annotation["id"]: i for i, annotation in enumerate(truth.own)}
    answered = [i for i in records.values() if np.isfinite(predicted[i]).all()]
    results = [
        {
            "image_id": truth.own[i]["image_id"],
            "category_id": 1,
            "keypoints": _flat(predicted[i][truth.order], np.ones(len(truth.order))),
            "score": float(weights[i]),
        }
        for i in answered
    ]
    if not results:
        return dict.fromkeys(NAMES, 0.0)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does
        labels = COCO()
        labels.dataset = truth.dataset
        labels.createIndex()
        counted = COCOeval(labels, labels.loadRes(results), "keypoints")
        counted.params.kpt_oks_sigmas = truth.sigmas
        counted.evaluate()
        counted.accumulate()
        counted.summarize()
    values = {name: float(counted.stats[place]) for name, place in NAMES.items()}
    return {name: None if x < 0 else x for name, x in values.items()}


def _dataset(images, annotations):
    return {
        "info": {},
        "images": [{"id": image} for image in images],
        "categories": [{"id": 1, "name": "person"}],
        "annotations": annotations,
    }


def _flat(pose, third):
    return np.column_stack([coco_results.to_coco(pose), third]).ravel().tolist()
