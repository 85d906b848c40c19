"""What a teacher's answers change of labels, and what they leave."""

import json

import numpy as np
import pytest

from deeppose_tf.datasets import Annotations, coco_results
from deeppose_tf.pipelines.data import teacher
from deeppose_tf.skeleton import COCO, LSP

K = len(LSP.joints)
SHARED = [joint for joint in LSP.joints if joint in COCO.joints]


@pytest.fixture
def poses():
    """Of three people, whose torsos are 50 to 90 pixels long."""
    random = np.random.default_rng(5)
    return random.uniform(20, 120, (3, K, 2))


def people_of(poses, labeled=None):
    images = tuple(f"/lsp/images/im{i + 1:04d}.jpg" for i in range(len(poses)))
    return Annotations(
        skeleton=LSP,
        images=images,
        keypoints=poses.astype(np.float32),
        labeled=np.ones(poses.shape[:2], bool) if labeled is None else labeled,
        boxes=np.zeros((len(poses), 4), np.float32),
        ids=tuple(f"lsp/im{i + 1:04d}" for i in range(len(poses))),
    )


def answer(path, poses, confidence=0.9, numbers=None):
    """A list of COCO results that says these poses [N, K, 2] of LSP's joints."""
    entries = []
    for i, pose in enumerate(poses):
        flat = np.zeros((17, 3))
        for joint in SHARED:
            x, y = coco_results.to_coco(pose[LSP.joints.index(joint)])
            sure = np.broadcast_to(confidence, (len(poses), K))
            flat[COCO.joints.index(joint)] = x, y, sure[i, LSP.joints.index(joint)]
        number = i + 1 if numbers is None else numbers[i]
        entries.append({"image_id": number, "keypoints": flat.ravel().tolist()})
    path.write_text(json.dumps(entries))
    return str(path)


def torso(pose):
    at = {joint: pose[LSP.joints.index(joint)] for joint in SHARED}
    return max(
        np.linalg.norm(at["left_shoulder"] - at["right_hip"]),
        np.linalg.norm(at["right_shoulder"] - at["left_hip"]),
    )


def test_who_agrees_changes_nothing(poses, tmp_path):
    people = people_of(poses)
    path = answer(tmp_path / "a.json", poses)
    taught, told = teacher.teach(people, ["/lsp"], [path])
    np.testing.assert_array_equal(taught.keypoints, people.keypoints)
    assert told == {
        "people": 3,
        "completed": 0,
        "replaced": 0,
        "kept": 3 * K,
        "worst": [],
    }


def test_missing_labels_are_completed_where_the_teacher_is_sure(poses, tmp_path):
    wrist, knee, neck = map(LSP.joints.index, ("left_wrist", "right_knee", "neck"))
    labeled = np.ones((3, K), bool)
    labeled[0, [wrist, knee, neck]] = False
    confidence = np.full((3, K), 0.9)
    confidence[0, knee] = teacher.COMPLETES - 0.01
    path = answer(tmp_path / "a.json", poses, confidence)
    unknown = np.where(labeled[..., None], poses, 0.0)
    taught, told = teacher.teach(people_of(unknown, labeled), ["/lsp"], [path])
    np.testing.assert_allclose(taught.keypoints[0, wrist], poses[0, wrist], atol=1e-4)
    assert taught.labeled[0, wrist]
    assert not taught.labeled[0, [knee, neck]].any()  # not sure; not known to it
    assert told["completed"] == 1 and told["replaced"] == 0


def test_exchanged_sides_and_far_labels_are_replaced(poses, tmp_path):
    wrong = poses.copy()
    wrong[1] = poses[1, list(LSP.mirror)]
    path = answer(tmp_path / "a.json", poses)
    people = people_of(wrong)
    taught, told = teacher.teach(people, ["/lsp"], [path])
    moved = np.linalg.norm(wrong[1] - poses[1], axis=-1) > teacher.FAR * torso(poses[1])
    assert moved.any()
    for joint in range(K):
        expected = poses[1, joint] if moved[joint] else wrong[1, joint]
        np.testing.assert_allclose(taught.keypoints[1, joint], expected, atol=1e-4)
    assert told["replaced"] == moved.sum() and told["worst"] == ["lsp/im0002"]
    np.testing.assert_array_equal(people.keypoints, wrong.astype(np.float32))


def test_a_teacher_that_is_not_sure_replaces_nothing(poses, tmp_path):
    path = answer(tmp_path / "a.json", poses + 500, teacher.REPLACES - 0.01)
    taught, told = teacher.teach(people_of(poses), ["/lsp"], [path])
    np.testing.assert_array_equal(taught.keypoints, poses.astype(np.float32))
    assert told["replaced"] == 0


def test_of_several_people_the_nearest_counts(poses, tmp_path):
    path = answer(
        tmp_path / "a.json", np.concatenate([poses + 300, poses]), numbers=[1, 2, 3] * 2
    )
    taught, told = teacher.teach(people_of(poses), ["/lsp"], [path])
    np.testing.assert_array_equal(taught.keypoints, poses.astype(np.float32))
    assert told["people"] == 3


def test_a_data_set_without_a_teacher_keeps_its_labels(poses, tmp_path):
    path = answer(tmp_path / "a.json", poses + 500)
    people = people_of(poses)
    taught, told = teacher.teach(people, ["/lspet", "/lsp"], ["", ""])
    np.testing.assert_array_equal(taught.keypoints, people.keypoints)
    assert told["people"] == 0
    with pytest.raises(ValueError, match="answers none of the people in /lspet"):
        teacher.teach(people, ["/lspet", "/lsp"], [path, ""])
