"""Labels completed and corrected by a model that is good at the same joints.

Mechanical Turk's labels of LSPET give one side's limbs to the other, and leave an
eighth of the joints out. A network that learns from them learns that too.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Sequence

import numpy as np

from deeppose_tf.datasets import Annotations, coco_results

# Where its confidence is at least this, a teacher completes a missing label, and where
# it is this, it replaces one that lies farther away than so many of its torsos.
COMPLETES, REPLACES, FAR = 0.3, 0.5, 0.5
TORSO = (("left_shoulder", "right_hip"), ("right_shoulder", "left_hip"))


def teach(
    people: Annotations, sources: Sequence[str], files: Sequence[str]
) -> tuple[Annotations, dict]:
    """Labels that a teacher completed, and replaced where it is sure of another place.

    An answer belongs to the image whose file name, or the number in it, is the answer's
    image; of several people on it, to the one whose labels are nearest.

    Args:
      people: to train on.
      sources: the folders of the data sets.
      files: for each of these the teacher's answers, see `coco_results.answers`; one
        that is empty has none.

    Returns:
      The people with other `keypoints` and `labeled`, and what was done: `people` with
      an answer, labels `completed`, `replaced` and `kept`, and `worst`, the ids of
      those whose labels the teacher contradicts most, first.

    Raises:
      ValueError: a file is no such file, or answers nobody of these people.
      OSError: it cannot be read.
    """
    keypoints, labeled = people.keypoints.copy(), people.labeled.copy()
    counts = {"people": 0, "completed": 0, "replaced": 0, "kept": 0}
    contradicted = np.zeros(len(people))
    for source, file in zip(sources, files, strict=True):
        if not file:
            continue
        answers = _by_name(coco_results.answers(file))
        met = 0
        for i, image in enumerate(people.images):
            if not image.startswith(source):
                continue
            given = _answer(answers, image, keypoints[i], labeled[i], people.skeleton)
            if given is None:
                continue
            met += 1
            place, sure, torso = given
            far = np.linalg.norm(place - keypoints[i], axis=-1) > FAR * torso
            complete = ~labeled[i] & (sure >= COMPLETES)
            replace = labeled[i] & (sure >= REPLACES) & far
            counts["completed"] += int(complete.sum())
            counts["replaced"] += int(replace.sum())
            counts["kept"] += int((labeled[i] & ~replace).sum())
            contradicted[i] = replace.sum()
            taken = complete | replace
            keypoints[i][taken] = place[taken]
            labeled[i] |= complete
        if not met:
            raise ValueError(
                f"--teacher={file}: answers none of the people in {source}"
            )
        counts["people"] += met
    order = np.argsort(-contradicted, kind="stable")
    worst = [people.ids[i] for i in order[:16] if contradicted[i]]
    taught = dataclasses.replace(
        people, keypoints=keypoints.astype(np.float32), labeled=labeled
    )
    return taught, counts | {"worst": worst}


def _by_name(answers):
    """All answers by every name that their image may have."""
    found = {}
    for name, poses in answers.items():
        for one in coco_results.names(name):
            found.setdefault(one, poses)
    return found


def _answer(answers, image, keypoints, labeled, skeleton):
    """Places [K, 2] and confidence [K] of the likeliest answer, and its torso's length;
    None without one."""
    stem = os.path.splitext(os.path.basename(image))[0]
    number = re.sub(r"\D", "", stem).lstrip("0")
    poses = next(
        (
            answers[key]
            for key in (os.path.basename(image), stem, number)
            if key in answers
        ),
        None,
    )
    best, nearest = None, np.inf
    for place, sure, joints in poses or ():
        order = [joints.index(one) if one in joints else -1 for one in skeleton.joints]
        own = np.where(np.array(order)[:, None] >= 0, place[order], 0.0)
        confidence = np.where(np.array(order) >= 0, sure[order], 0.0)
        torso = _torso(place, joints)
        both = labeled & (confidence > 0)
        # Exchanged sides must not make an answer somebody else's: the middle decides.
        middle = own[both].mean(0) - keypoints[both].mean(0) if both.any() else 0.0
        distance = float(np.linalg.norm(middle))
        if distance < nearest and torso > 0:
            best, nearest = (own, confidence, torso), distance
    return best


def _torso(place, joints):
    """The length of a pose's torso, pixels; that of its extent without one."""
    lengths = [
        np.linalg.norm(place[joints.index(a)] - place[joints.index(b)])
        for a, b in TORSO
        if a in joints and b in joints
    ]
    if lengths:
        return float(max(lengths))
    return float(np.ptp(place, axis=0).max() / 3)
