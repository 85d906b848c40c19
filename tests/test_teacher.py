"""What a teacher's answers change of labels, and what they leave."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image
from toy_lsp import make_lsp

from deeppose_tf import draw
from deeppose_tf.datasets import Annotations, coco_results
from deeppose_tf.pipelines.data import commands, sheet, teacher
from deeppose_tf.pipelines.data.prepare import prepare
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


def test_a_sheet_shows_what_was_contradicted(poses, tmp_path):
    """The label stays green where the teacher agrees; a wrist that it places elsewhere
    is red there, and named there and at its label."""
    wrist = LSP.joints.index("left_wrist")
    true = poses.copy()
    true[1, wrist] = 280, 140  # beside all others
    path = str(tmp_path / "im0002.png")
    Image.new("RGB", (300, 150)).save(path)
    people = people_of(poses)
    people = dataclasses.replace(people, images=("/lsp/im1.jpg", path, "/lsp/im3.jpg"))
    answers = answer(tmp_path / "a.json", true[1:2], numbers=[2])
    taught, told = teacher.teach(people, [str(tmp_path)], [answers])
    assert told["worst"] == ["lsp/im0002"] and told["replaced"] == 1
    sheet.write_taught(people, taught, told["worst"], tmp_path / "new")
    drawn = np.array(Image.open(tmp_path / "new" / sheet.TAUGHT)).astype(int)
    cell = drawn[28:, 6:]  # below the legend
    _, move = draw.cut(np.zeros((150, 300, 3)), [poses[1], true[1]], 400, 0.1)
    for place, color in (
        (poses[1, wrist], draw.TRUTH),
        (true[1, wrist], draw.PREDICTION),
        (poses[1, LSP.joints.index("right_knee")], draw.TRUTH),
    ):
        x, y = move(place).astype(int)
        assert np.abs(cell[y, x] - color).max() < 40


def test_the_command_says_where_the_sheet_is(tmp_path):
    """The teacher answers the first of two people, 500 pixels beside their labels."""
    joints = make_lsp(tmp_path / "lsp", 2).transpose(2, 1, 0)[..., :2]
    answers = answer(tmp_path / "a.json", joints[:1] + 500)
    given = {"validation": 0, "test": 0, "sheet": True, "teacher": [answers]}
    out = tmp_path / "out"
    index = prepare(["lsp"], [str(tmp_path / "lsp")], str(out), **given)
    told = index.provenance["taught"]
    assert told["worst"] == ["lsp/im0001"] and told["replaced"] > 0
    text = commands.describe(index)
    assert f"replaced {told['replaced']} of the labels of 1 people" in text
    assert f"the most contradicted: {out / sheet.TAUGHT}" in text
    assert not (out / sheet.NAME).exists()  # which is drawn of what is prepared
