"""Predictions of anyone as a COCO results file, matched to records by their ids.

A JSON list of {"image_id": "lsp/im1001", "keypoints": [x, y, score, ...], "score": 1}.
Here `image_id` is the id of the record, or its last part. As in COCO, joints count
pixels from zero at the centre of the first one: half a pixel less than in the project.
"""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from deeppose_tf import files

CENTER = 0.5


def write(
    path: str | os.PathLike,
    ids: Sequence[str],
    keypoints: np.ndarray,
    scores: np.ndarray,
) -> None:
    """Writes such a file.

    Args:
      path: of the file.
      ids: N, of the records.
      keypoints: [N, K, 2] pixels, in the project's coordinates. People with a joint
        that is not finite are left out.
      scores: [N, K] of the joints.
    """
    content = []
    for name, pose, score in zip(ids, keypoints, scores, strict=True):
        if not np.isfinite(pose).all():
            continue
        flat = np.concatenate([pose - CENTER, score[:, np.newaxis]], axis=1).ravel()
        content.append(
            {
                "image_id": name,
                "category_id": 1,
                "keypoints": [round(float(value), 4) for value in flat],
                "score": round(float(score.mean()), 4),
            }
        )
    files.write_bytes(path, json.dumps(content).encode() + b"\n")


def read(path: str, ids: Sequence[str], joints: int) -> np.ndarray:
    """Reads such a file, whoever wrote it.

    Of several entries for one record the one of the highest `score` counts.

    Args:
      path: of the file.
      ids: N, of the records.
      joints: K.

    Returns:
      [N, K, 2] pixels, in the project's coordinates; NaN for people without an entry.

    Raises:
      ValueError: not such a file, or no entry is of these records; names the entry.
      OSError: it cannot be read.
    """
    try:
        content = json.loads(pathlib.Path(path).read_text())
    except ValueError as error:
        raise ValueError(f"{path}: not a JSON file: {error}") from error
    if not isinstance(content, list) or not all(isinstance(e, dict) for e in content):
        raise ValueError(
            f'{path}: expected COCO results, [{{"image_id": ..., "keypoints": [x, y, '
            'score, ...], "score": ...}}, ...]'
        )
    places = _places(ids)
    found = np.full((len(ids), joints, 2), np.nan)
    best = np.full(len(ids), -np.inf)
    for number, entry in enumerate(content):
        name = entry.get("image_id")
        place = places.get(name) if isinstance(name, str) else None
        if place is None:
            continue  # of another split, or of someone else's numbering
        pose, score = _pose(f"{path}: entry {number}", entry, joints)
        if score > best[place]:
            found[place], best[place] = pose, score
    if not np.isfinite(best).any():
        raise ValueError(
            f"{path}: no image_id of its {len(content)} entries is the id of a record "
            f"of this split, such as {ids[0]!r}"
        )
    return found


def _places(ids):
    """Index by id, and by the last part of it where that is enough."""
    places: dict = {}
    for i, name in enumerate(ids):
        last = name.rsplit("/", 1)[-1]
        places[last] = None if last in places else i
    return places | {name: i for i, name in enumerate(ids)}


def _pose(where, entry, joints):
    try:
        flat = np.array(entry["keypoints"], np.float64).reshape(joints, 3)
        score = float(entry.get("score", 1.0))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{where}: expected keypoints of {joints} joints, x, y, score each, and a "
            "score"
        ) from error
    return flat[:, :2] + CENTER, score if np.isfinite(score) else 0.0
