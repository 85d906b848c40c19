"""COCO results: written for COCO's own tools, and read back from anyone."""

import json

import numpy as np
import pytest

from deeppose_tf import detect, skeleton
from deeppose_tf.datasets import coco, coco_results

SIZE = 60, 90
POSES = np.array([[[3, 4.5], [20, 30], [7, 8]], [[9, 9], [8, 8], [np.nan, 7]]])
BOXES = np.array([[1, 2, 30, 40.5], [0, 0, 0, 0]])
ARM = skeleton.from_json(
    {
        "joints": ["neck", "left_hand", "right_hand"],
        "pairs": [["left_hand", "right_hand"]],
        "limbs": [
            {"name": "arm", "start": ["neck"], "end": ["left_hand", "right_hand"]}
        ],
    }
)


def answer():
    """Two stages of two people, of whom the second has a joint that is not finite."""
    return {
        "keypoints": POSES,
        "keypoints_by_stage": np.stack([POSES - 1, POSES], axis=1),
        "scores": np.full((2, 3), 0.5),
        "valid": np.array([True, True]),
    }


@pytest.fixture
def predicted(tmp_path):
    """A `predictions.json` of a photo, a photo of nobody and a frame of a film."""
    found = coco_results.Predictions(ARM, {"model": "run"})
    nobody = np.zeros((0, 4))
    found.add("a.jpg", SIZE, BOXES, answer(), found=True)
    found.add("folder/b.jpg", SIZE, nobody, {"valid": np.zeros(0, bool)}, found=True)
    one = {name: values[:1] for name, values in answer().items()}
    found.add("clip.mp4", SIZE, BOXES[:1] + 1, one, frame=4, seconds=0.4)
    found.write(tmp_path / "predictions.json", finished=True)
    return tmp_path / "predictions.json"


def test_predictions_are_a_coco_file(predicted):
    content = json.loads(predicted.read_text())
    assert content["info"]["format"] == coco_results.FORMAT
    assert content["info"]["settings"] == {"model": "run"}
    person, other, _ = content["annotations"]
    # Joints count from the centre of the first pixel, boxes from its corner.
    assert person["keypoints"] == [2.5, 4, 0.5, 19.5, 29.5, 0.5, 6.5, 7.5, 0.5]
    assert person["keypoints_by_stage"][0] == [1.5, 3, 18.5, 28.5, 5.5, 6.5]
    assert person["bbox"] == [1, 2, 29, 38.5] and person["box"] == [1, 2, 30, 40.5]
    assert person["score"] == 0.5 and person["valid"] is True
    # Whoever has no finite pose has none; and zeros are the whole image.
    assert not any(other["keypoints"]) and not any(other["keypoints_by_stage"][1])
    assert other["valid"] is False and other["score"] == 0
    assert other["bbox"] == [0, 0, 90, 60]
    assert content["images"][2] == {
        **{"id": 3, "file_name": "clip.mp4", "width": 90, "height": 60},
        **{"frame": 4, "seconds": 0.4},
    }


def test_the_limbs_of_a_category_are_pairs_of_joints():
    assert coco_results.category(ARM)["skeleton"] == [[1, 2], [1, 3], [2, 3]]
    torso = coco_results.category(skeleton.COCO)["skeleton"]
    left, right = (
        skeleton.COCO.joints.index(f"{s}_hip") + 1 for s in ("left", "right")
    )
    hips = [pair for pair in torso if left in pair or right in pair]
    names = [{skeleton.COCO.joints[i - 1] for i in pair} for pair in hips]
    assert {"left_hip", "right_hip"} in names
    assert {"left_shoulder", "left_hip"} in names
    assert {"left_shoulder", "right_hip"} not in names


def test_pycocotools_loads_predictions(predicted):
    pycoco = pytest.importorskip("pycocotools.coco")
    truth = pycoco.COCO(str(predicted))
    assert truth.getAnnIds(imgIds=[1]) == [1, 2]
    assert truth.loadCats([1])[0]["keypoints"] == list(ARM.joints)
    found = truth.loadRes(json.loads(predicted.read_text())["annotations"])
    assert found.loadAnns([1])[0]["keypoints"][:2] == [2.5, 4]


def test_predictions_are_read_as_a_data_set(predicted):
    """The half pixel goes and comes back."""
    people = coco.read(str(predicted))
    np.testing.assert_allclose(people.keypoints[0], POSES[0])
    np.testing.assert_allclose(people.boxes[0], BOXES[0])
    assert people.skeleton.joints == ARM.joints


def test_predictions_are_read_as_predictions(predicted):
    found = coco_results.read(str(predicted), ["set/a", "set/b", "c/a.png"], 3)
    np.testing.assert_allclose(found[0], POSES[0])  # the second person is not valid
    assert np.isnan(found[1:]).all()


def test_predictions_give_person_boxes(predicted):
    finder = detect.make_finder(str(predicted), ARM)
    whole = [0, 0, 90, 60]
    np.testing.assert_allclose(finder(None, "a.jpg"), [BOXES[0], whole])
    np.testing.assert_allclose(finder(None, "elsewhere/a.jpg"), [BOXES[0], whole])
    assert finder(None, "folder/b.jpg").shape == (0, 4)
    np.testing.assert_allclose(finder(None, "clip.mp4#4"), BOXES[:1] + 1)
    assert finder(None, "clip.mp4#5") is None and finder(None, "c.jpg") is None


def test_the_format_of_version_1_is_read(tmp_path):
    """Joints in the project's coordinates, and no `bbox`."""
    path = tmp_path / "predictions.json"
    person = {"image_id": 1, "category_id": 1, "box": [1, 2, 3, 4], "score": 1.0}
    person |= {"keypoints": [5, 6, 1], "valid": True, "stages": [[5, 6]]}
    content = {"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [person]}
    content |= {"format": coco_results.OLD_FORMAT, "categories": []}
    path.write_text(json.dumps(content))
    np.testing.assert_allclose(coco_results.read(str(path), ["a"], 1), [[[5, 6]]])
    assert coco_results.boxes(str(path)) == {"a.jpg": [[1, 2, 3, 4]]}


def test_detections_and_annotations_of_others_give_boxes(tmp_path):
    path = tmp_path / "boxes.json"
    person = {"image_id": 139, "category_id": 1, "bbox": [10, 20, 30, 40]}
    others = [{"category_id": 3}, {"score": 0.49}, {"iscrowd": 1}, {"image_id": "x"}]
    path.write_text(
        json.dumps([person | {"score": 0.5}, *(person | o for o in others)])
    )
    finder = detect.make_finder(str(path), ARM)
    np.testing.assert_allclose(finder(None, "000000000139.jpg"), [[10, 20, 40, 60]])
    np.testing.assert_allclose(finder(None, "x.png"), [[10, 20, 40, 60]])
    assert finder(None, "y.png") is None
    images = [{"id": 139, "file_name": "y.png"}, {"id": 2, "file_name": "z.png"}]
    categories = [{"id": 3, "name": "person"}, {"id": 1, "name": "dog"}]
    file = {"images": images, "categories": categories}
    anns = [person | {"score": 0.1}, *(person | o for o in others[:-1])]
    path.write_text(json.dumps(file | {"annotations": anns}))
    finder = detect.make_finder(str(path), ARM)
    np.testing.assert_allclose(finder(None, "y.png"), [[10, 20, 40, 60]])
    assert finder(None, "z.png").shape == (0, 4)


@pytest.mark.parametrize("form", [str, float, " {} ".format])
def test_ids_of_another_type_are_those_of_the_same_people(tmp_path, form):
    """They gave nobody on y.png, whose person was of another type of id alone."""
    path, box = tmp_path / "boxes.json", [10, 20, 30, 40]
    person = {"image_id": form(7), "category_id": form(2), "bbox": box, "iscrowd": "0"}
    file = {
        "images": [{"id": 7, "file_name": "y.png"}],
        "annotations": [person],
        "categories": [{"id": 2, "name": "person"}],
    }
    path.write_text(json.dumps(file))
    assert coco_results.boxes(str(path)) == {"y.png": [[10, 20, 40, 60]]}
    path.write_text(json.dumps([person | {"category_id": form(1)}]))
    assert coco_results.boxes(str(path)) == {"7": [[10, 20, 40, 60]]}
    result = {"image_id": form(7), "keypoints": [1, 2, 1], "score": 1}
    path.write_text(json.dumps([result]))
    np.testing.assert_allclose(coco_results.read(str(path), ["a/7"], 1), [[[1.5, 2.5]]])


IMAGE = {"id": 1, "file_name": "a.png"}
PERSON = {"image_id": 1, "bbox": [1, 2, 3, 4]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([PERSON | {"bbox": [1, 2, 3]}], "entry 0: expected a bbox"),
        ([PERSON, PERSON | {"bbox": [1, 2, 10**400, 4]}], "entry 1: expected a bbox"),
        ([PERSON | {"bbox": "1 2 3 4"}], "entry 0: expected a bbox"),
        ([PERSON | {"bbox": [1, 2, float("nan"), 4]}], "'1', box 0: .* has no size"),
        ([PERSON | {"bbox": [5, 5, -3, 4]}], "'1', box 0: .* has no size"),
        (
            [PERSON | {"bbox": [0.2, 0.3, 0.5, 0.6]}],
            ".* smaller than a pixel, .* 0 to 1",
        ),
        ([PERSON | {"score": float("nan")}], "entry 0: its score is no number"),
        ([PERSON | {"score": 10**400}], "entry 0: its score is no number"),
        ([PERSON | {"image_id": None}], "entry 0: it has no image_id"),
        (
            {"images": [IMAGE], "annotations": [PERSON | {"image_id": 2}]},
            "entry 0: no image has its image_id",
        ),
        (
            {"images": [IMAGE, IMAGE | {"file_name": "b.png"}], "annotations": []},
            "image 1: the id is that of a.png and of b.png",
        ),
    ],
)
def test_boxes_of_others_that_cannot_be_believed(tmp_path, content, message):
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"boxes.json: {message}"):
        detect.read_boxes(str(path))


def test_results_of_others_are_matched_by_id(tmp_path):
    ids = ["a/1", "a/2", "b/2", "b/3"]

    def entry(name, x, score=None):
        flat = np.tile([x, 2.0, 0.0], 3).tolist()
        one = {"image_id": name, "keypoints": flat}
        return one if score is None else one | {"score": score}

    path = tmp_path / "results.json"
    # `1` is clear, `2` is two records; the better of two entries counts.
    entries = [entry(1, 4), entry("2", 9), entry("b/3.jpg", 5, 0.3), entry(3, 6, 0.7)]
    path.write_text(json.dumps([*entries, entry("b/3", 7, 0.5), entry("c/9", 8)]))
    found = coco_results.read(str(path), ids, 3)
    np.testing.assert_allclose(found[0], np.tile([4.5, 2.5], (3, 1)))
    np.testing.assert_allclose(found[3], np.tile([6.5, 2.5], (3, 1)))
    assert np.isnan(found[1:3]).all()
    # The last part of a COCO record is a person's number, and here are images'.
    path.write_text(json.dumps([entry(1, 4), entry("2", 4)]))
    found = coco_results.read(str(path), ["coco/train/1", "coco/train/2"], 3)
    assert np.isnan(found[0]).all() and np.isfinite(found[1]).all()


def test_numbers_of_images_are_those_of_coco(tmp_path):
    """No other program's result was matched: a record ends with a person's number."""
    ids, boxes = ["coco/test/501", "coco/test/7"], [[0, 0, 10, 20], [30, 0, 40, 20]]
    people = [{"id": 7, "image_id": 9}, {"id": 501, "image_id": 9}]
    people.append({"id": 1, "image_id": 501})  # of another split

    def entry(x, score, image=9):
        pose = np.tile([x, 9.5, 1.0], 3).tolist()
        return {"image_id": image, "keypoints": pose, "score": score}

    # The second is of the first record, nearer to its centre; the last of nobody's box.
    entries = [entry(37, 0.5), entry(6, 0.6), entry(2, 0.5), entry(7, 0.9, 501)]
    path = tmp_path / "results.json"
    path.write_text(json.dumps([*entries, entry(20, 0.9)]))
    (tmp_path / "coco").mkdir()
    for name, content in (("a.json", []), ("b.json", {"annotations": people})):
        (tmp_path / "coco" / name).write_text(json.dumps(content))
    for source in ("coco", "coco/b.json"):
        sources = [str(tmp_path / "missing"), str(tmp_path / source)]
        found = coco_results.read(str(path), ids, 3, np.array(boxes), sources)
        np.testing.assert_allclose(found[:, 0], [[6.5, 10], [37.5, 10]])
    with pytest.raises(ValueError, match="such as 'coco/test/501'.*--annotations"):
        coco_results.read(str(path), ids, 3, np.array(boxes))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("nonsense", "results.json: not a JSON file"),
        ('{"annotations": []}', "expected COCO results"),
        ('{"images": 3, "annotations": []}', "expected COCO results"),
        (
            '{"images": [], "annotations": [], "info": {"format": "deeppose-tf 3"}}',
            "unknown format 'deeppose-tf 3'",
        ),
        ("[1, 2]", "expected COCO results"),
        ("[]", "no image_id of its 0 entries .* such as 'a/1'"),
        ('[{"image_id": 7, "keypoints": [1, 2, 3]}]', "no image_id of its 1 entries"),
        ('[{"image_id": "a/1", "keypoints": [1, 2]}]', "entry 0: .* of 1 joints"),
        ('[{"image_id": "a/1"}]', "entry 0: expected keypoints"),
        ('[{"image_id": "a/1", "keypoints": [1, null, "x"]}]', "entry 0"),
        ('[{"image_id": ["a"], "keypoints": [1, 2, 3]}]', "no image_id"),
        ('[{"image_id": "a/1", "keypoints": [1, NaN, 1]}]', "entry 0: .* finite"),
        ('[{"image_id": "a/1", "keypoints": [1, 1e308, 1]}]', "entry 0: .* finite"),
        (f'[{{"image_id": "a/1", "keypoints": [1, {10**400}, 1]}}]', "entry 0: .* fin"),
        ('[{"image_id": "a/1", "keypoints": [1, 2, 1], "score": "x"}]', "its score is"),
        ('[{"image_id": "a/1", "keypoints": [1, 2, 1], "score": NaN}]', "its score is"),
    ],
)
def test_bad_results_say_where(tmp_path, content, message):
    path = tmp_path / "results.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        coco_results.read(str(path), ["a/1"], 1)
