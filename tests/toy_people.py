"""A small data set, and a model whose scores on it are known by construction."""

import types

import cv2
import numpy as np

from deeppose_tf import skeleton
from deeppose_tf.datasets import Annotations
from deeppose_tf.pipelines.data import records

LSP = skeleton.LSP
WRIST = LSP.joints.index("left_wrist")
TRAIN, TEST = 4, 6


def make_people(folder, split, count, seed):
    """People on flat images of different sizes; the grey value is the number."""
    random = np.random.default_rng(seed)
    paths, keypoints, boxes = [], [], []
    for i in range(count):
        height, width = 60 + 10 * i, 120 - 10 * i
        image = np.full((height, width, 3), i, np.uint8)
        paths.append(str(folder / f"{split}{i}.png"))
        cv2.imwrite(paths[-1], image)
        # Joints on a grid of at least 10 px, so that no limb is shorter.
        places = np.stack(np.meshgrid(np.arange(4), np.arange(4)), -1).reshape(-1, 2)
        keypoints.append(random.permutation(places)[:14] * 12 + 8)
        boxes.append([2, 4, 50, 56] if i % 2 else [0, 0, 0, 0])
    labeled = np.ones((count, 14), bool)
    labeled[:1, LSP.joints.index("head_top")] = False
    return Annotations(
        LSP,
        tuple(paths),
        np.array(keypoints, np.float32).reshape(-1, 14, 2),
        labeled,
        np.array(boxes, np.float32).reshape(-1, 4),
        tuple(f"toy/{split}{i}" for i in range(count)),
    )


def make_data(folder):
    """The annotations by split, and the index of their records."""
    splits = {
        "train": make_people(folder, "train", TRAIN, seed=1),
        "validation": make_people(folder, "validation", 0, seed=2),
        "test": make_people(folder, "test", TEST, seed=3),
    }
    provenance = {"arguments": {"dataset": ["toy"], "convention": "person"}}
    records.write(splits, str(folder / "records"), provenance)
    return splits, records.read_index(str(folder / "records"))


class Oracle:
    """Two stages: the first has the left wrists of two people wrong, the second
    nothing but one person that it cannot answer, where asked to."""

    skeleton = LSP
    count = 2
    stages = (
        types.SimpleNamespace(
            training={"data": {"provenance": {"arguments": {"convention": "person"}}}},
            config=types.SimpleNamespace(network="oracle"),
        ),
    )

    def __init__(self, people, unanswered=None):
        self.people, self.unanswered = people, unanswered
        self.boxes = []

    def predict(self, image, boxes):
        assert boxes.shape == (1, 4)
        self.boxes.append(boxes[0])
        person = int(image[0, 0, 0])
        truth = self.people.keypoints[person]
        first = truth.copy()
        if person in (1, 2):
            first[WRIST] += 1000
        return {
            "keypoints": truth[None],
            "keypoints_by_stage": np.stack([first, truth])[None],
            "scores": np.full((1, 14), 0.5, np.float32),
            "valid": np.array([person != self.unanswered]),
        }
