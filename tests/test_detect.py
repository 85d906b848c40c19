"""First boxes: the arithmetic of faces by hand, OpenCV's detectors on real images."""

import json

import cv2
import numpy as np
import pytest

from deeppose_tf import detect, skeleton


def rgb(path):
    return cv2.imread(str(path))[..., ::-1]


def noise(height, width):
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)


def test_a_face_is_enlarged_about_its_middle():
    # A face of width 20 around (50, 40): 2 widths to the sides, 1 up, 5 down.
    faces = np.array([[40, 30, 60, 50]], np.float32)
    boxes = detect.enlarge(faces, (2.0, 1.0, 5.0))
    np.testing.assert_allclose(boxes, [[10, 20, 90, 140]])
    assert boxes.dtype == np.float32
    assert detect.enlarge(np.zeros((0, 4)), (2.0, 1.0, 5.0)).shape == (0, 4)


def test_the_fitted_enlargement_contains_all_labeled_joints_just_so():
    random = np.random.default_rng(4)
    n, k = 30, 5
    corner, width = random.uniform(50, 100, (n, 2)), random.uniform(20, 40, (n, 1))
    faces = np.concatenate([corner, corner + width], axis=1)
    keypoints = corner[:, None] + random.normal(0, 100, (n, k, 2))
    labeled = random.random((n, k)) < 0.7
    labeled[0] = False
    keypoints[~labeled] = np.nan
    enlargement = detect.fit_enlargement(faces, keypoints, labeled)

    def inside(enlargement):
        boxes = detect.enlarge(faces, enlargement)[:, np.newaxis]
        low, high = boxes[..., :2] - 1e-3, boxes[..., 2:] + 1e-3
        within = ((keypoints >= low) & (keypoints <= high)).all(axis=-1)
        return (within | ~labeled).all(axis=1)

    assert inside(enlargement).all()
    for i in range(3):  # no direction can be shorter
        shorter = list(enlargement)
        shorter[i] *= 0.99
        assert not inside(tuple(shorter)).all()
    # Nine of ten in each direction: at least seven of ten in all three.
    most = inside(detect.fit_enlargement(faces, keypoints, labeled, coverage=0.9))
    assert 0.7 * n <= most.sum() < n


def test_one_joint_of_known_place():
    # A face of width 10 around (5, 5); joints at (-10, 8) and (12, -15): 1.5 widths
    # to the side, 2 up, 0.3 down.
    enlargement = detect.fit_enlargement(
        np.array([[0, 0, 10, 10]]),
        np.array([[[-10, 8], [12, -15]]]),
        np.array([[True, True]]),
    )
    assert enlargement == pytest.approx((1.5, 2.0, 0.3))


def test_an_enlargement_needs_labeled_people_and_a_share():
    face, joints = np.array([[0, 0, 10, 10]]), np.zeros((1, 2, 2))
    with pytest.raises(ValueError, match="no labeled joint"):
        detect.fit_enlargement(face, joints, np.zeros((1, 2), bool))
    with pytest.raises(ValueError, match="coverage is 95"):
        detect.fit_enlargement(face, joints, np.ones((1, 2), bool), coverage=95)


def test_skeletons_without_legs_get_the_box_of_the_upper_body():
    assert detect.default_enlargement(skeleton.LSP) == detect.FULL_BODY
    assert detect.default_enlargement(skeleton.FLIC) == detect.UPPER_BODY


@pytest.mark.parametrize("size", [(1, 1), (60, 30), (2, 3000), (300, 300)])
def test_images_of_any_size_without_people(size):
    # OpenCV crashes where an image is smaller than the window of its HOG detector.
    for boxes in (
        detect.face_boxes(noise(*size), detect.FULL_BODY),
        detect.hog_boxes(noise(*size)),
    ):
        assert boxes.shape == (0, 4) and boxes.dtype == np.float32


def test_detections_are_scaled_back_to_the_pixels_of_a_large_image(monkeypatch):
    seen = {}

    class Detector:
        def detectMultiScale(self, image, *_, **__):  # noqa: N802
            seen["shape"] = image.shape
            return np.array([[10, 20, 30, 30], [0, 0, 50, 50]], np.int32)

    monkeypatch.setattr(detect, "_face_cascade", Detector)
    faces = detect.detect_faces(np.zeros((1536, 2048, 3), np.uint8))
    assert seen["shape"] == (768, 1024)
    np.testing.assert_allclose(faces, [[0, 0, 100, 100], [20, 40, 80, 100]])


def test_a_real_face_is_found_where_its_eyes_are(shared_data):
    folder = shared_data / "mmpose_samples" / "coco"
    content = json.loads((folder / "test_coco.json").read_text())
    file = {image["id"]: image["file_name"] for image in content["images"]}
    boxes, eyes = None, []
    for person in content["annotations"]:
        if file[person["image_id"]] == "000000040083.jpg" and person["num_keypoints"]:
            eyes += [person["keypoints"][3:5], person["keypoints"][6:8]]
    boxes = detect.detect_faces(rgb(folder / "000000040083.jpg"))
    assert len(boxes) >= 1
    eyes = np.array(eyes)
    inside = (eyes[:, None] > boxes[:, :2]) & (eyes[:, None] < boxes[:, 2:])
    assert inside.all(axis=-1).sum(axis=0).max() >= 2


def test_a_real_standing_person_is_found_by_hog(shared_data):
    # A person who fills the image from head to foot.
    image = rgb(shared_data / "lsp" / "images" / "im0141.jpg")
    boxes = detect.hog_boxes(image)
    assert boxes.shape == (1, 4)
    x0, y0, x1, y1 = boxes[0]
    height, width = image.shape[:2]
    assert x0 < width / 2 < x1 and y0 < height / 2 < y1
    assert y1 - y0 > height * 0.7


def test_boxes_of_a_file(tmp_path):
    path = tmp_path / "boxes.json"
    content = {
        "a.jpg": [[1, 2, 30.5, 40], [0, 0, 0, 0]],
        "b.jpg": [],
        "folder/c.jpg": [[-5, -5, 5, 5]],
    }
    path.write_text(json.dumps(content))
    boxes = detect.read_boxes(str(path))
    assert set(boxes) == set(content)
    np.testing.assert_allclose(boxes["a.jpg"], content["a.jpg"])
    assert boxes["b.jpg"].shape == (0, 4)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "boxes.json: not a JSON file"),
        ("[[1, 2, 3, 4]]", "got a list"),
        ('{"a.jpg": [1, 2, 3, 4]}', "'a.jpg': expected a list of boxes"),
        ('{"a.jpg": [[1, 2, 3]]}', "'a.jpg': expected a list of boxes"),
        ('{"a.jpg": 7}', "'a.jpg': expected a list of boxes"),
        ('{"a.jpg": [["x", 2, 3, 4]]}', "'a.jpg': expected a list of boxes"),
        ('{"a.jpg": null}', "'a.jpg': expected a list of boxes"),
        ('{"a.jpg": [[1, 2, 9, 9], [5, 1, 5, 9]]}', "'a.jpg', box 1: .* no size"),
        ('{"a.jpg": [[9, 1, 5, 9]]}', "'a.jpg', box 0"),
        ('{"a.jpg": [[NaN, 1, 5, 9]]}', "'a.jpg', box 0"),
        ('{"a.jpg": [[1, 1, 5, 1e99]]}', "'a.jpg', box 0"),
    ],
)
def test_a_bad_file_of_boxes_says_where(tmp_path, content, message):
    path = tmp_path / "boxes.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        detect.read_boxes(str(path))
