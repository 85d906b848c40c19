"""Person boxes: faces by hand with a false detector, OpenCV's on real images, files."""

import json

import cv2
import numpy as np
import pytest

from deeppose_tf import detect, skeleton
from deeppose_tf.datasets import buffy, flic, images


def rgb(path):
    return cv2.imread(str(path))[..., ::-1]


def noise(height, width):
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)


class Detector:
    """Answers with given boxes (x, y, width, height) and votes; keeps what it saw."""

    def __init__(self, answers):
        self.answers, self.seen = list(answers), []

    def detectMultiScale2(self, image, **how):  # noqa: N802
        self.seen.append((image, how))
        boxes, votes = self.answers.pop(0)
        return np.array(boxes, np.int32), np.array(votes, np.int32)


@pytest.fixture
def detectors(monkeypatch):
    """Answers of the frontal detector, and of the one of profiles."""

    def install(frontal, profile=()):
        none = [([], [])] * 2
        found = {"frontal": Detector(frontal), "profile": Detector(profile or none)}
        monkeypatch.setattr(
            detect, "_cascade", lambda name: found[name[: name.index("face")]]
        )
        return found

    return install


def blank(height, width):
    return np.zeros((height, width, 3), np.uint8)


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
        detect.enlarge(detect.detect_faces(noise(*size)), detect.FULL_BODY),
        detect.hog_boxes(noise(*size)),
    ):
        assert boxes.shape == (0, 4) and boxes.dtype == np.float32
    face, number = detect.likeliest_face(blank(*size))
    assert not face.any() and number == 0


def test_detections_are_scaled_back_to_the_pixels_of_a_large_image(detectors):
    """The larger of two comes first; on a third too few detections agree."""
    boxes = [[10, 20, 30, 30], [200, 0, 50, 50], [400, 0, 60, 60]]
    found = detectors([(boxes, [20, 14, 13])])
    faces = detect.detect_faces(blank(1536, 2048))
    assert found["frontal"].seen[0][0].shape == (768, 1024)
    np.testing.assert_allclose(faces, [[400, 0, 500, 100], [20, 40, 80, 100]])


def test_small_images_are_enlarged_for_faces(detectors):
    found = detectors([([[30, 30, 45, 45]], [20])])
    faces = detect.detect_faces(blank(200, 300))
    assert found["frontal"].seen[0][0].shape == (300, 450)
    np.testing.assert_allclose(faces, [[20, 20, 50, 50]])


def test_the_face_with_most_votes_is_taken_and_the_others_counted(detectors):
    """Two boxes of the first face, with 3 + 6 votes, beat one with 8; their mean is
    weighted: x0 (3 * 10 + 6 * 13) / 9 = 12, width (3 * 30 + 6 * 33) / 9 = 32."""
    boxes = [[10, 20, 30, 30], [13, 20, 33, 30], [100, 20, 30, 30]]
    detectors([(boxes, [3, 6, 8])])
    face, number = detect.likeliest_face(blank(700, 1024))
    np.testing.assert_allclose(face, [12, 20, 44, 50])
    assert number == 2 and face.dtype == np.float32


def test_a_small_box_within_a_large_one_is_another_face(detectors):
    detectors([([[10, 10, 190, 190], [40, 40, 70, 70]], [3, 4])])
    face, number = detect.likeliest_face(blank(700, 1024))
    np.testing.assert_allclose(face, [40, 40, 110, 110])
    assert number == 2


def test_profiles_are_looked_for_in_the_mirror_image_too(detectors):
    """There x counts from the right: 1024 - 50 - 40 = 934."""
    found = detectors([([], [])], [([], []), ([[50, 20, 40, 40]], [3])])
    image = blank(700, 1024)
    image[20:60, 934:974] = 255
    face, number = detect.likeliest_face(image)
    np.testing.assert_allclose(face, [934, 20, 974, 60])
    assert number == 1
    assert (found["profile"].seen[1][0][20:60, 50:90] == 255).all()


def test_a_face_is_sought_above_the_torso_and_scaled_with_it(detectors):
    """The torso is 50 wide about (200, 200): the face is sought 1.35 * 50 above, within
    50 to all sides, from (150, 82) to (250, 182), at twice the size."""
    found = detectors([([[90, 80, 40, 60]], [4])])
    image = blank(400, 400)
    image[82:182, 150:250] = 200
    face, number = detect.likeliest_face(image, np.array([175, 160, 225, 240]))
    (view, how), *_ = found["frontal"].seen
    assert view.shape == (200, 200) and np.ptp(view) == 0
    assert how["minSize"] == (25, 25) and how["maxSize"] == (110, 110)
    np.testing.assert_allclose(face, [150 + 45, 82 + 40, 150 + 65, 82 + 70])


def test_a_face_that_both_detectors_see_is_one(detectors):
    """Votes 3 and 5 for it beat 7 for another; x0 is (3 * 10 + 5 * 12) / 8."""
    frontal = [[10, 10, 30, 30], [90, 9, 30, 30]], [3, 7]
    detectors([frontal], [([[12, 10, 30, 30]], [5]), ([], [])])
    face, number = detect.likeliest_face(blank(700, 1024))
    np.testing.assert_allclose(face, [11.25, 10, 41.25, 40])
    assert number == 2


@pytest.mark.parametrize(
    "torso", [[500, 500, 550, 600], [10, 10, 12, 11], [-90, -300, -50, -250]]
)
def test_where_there_is_nothing_to_see_there_is_no_face(torso):
    face, number = detect.likeliest_face(blank(60, 80), np.array(torso, np.float32))
    assert not face.any() and number == 0


def test_real_faces_of_flic_are_where_the_eyes_are(shared_data):
    """Of all test people 83 % have a face, in 95 % of which the eyes are theirs."""
    people = flic.read_splits(str(shared_data / "flic"))["test"].take(range(0, 867, 29))
    eyes = people.keypoints[:, -2:].mean(axis=1)
    found = np.array(
        [
            detect.likeliest_face(images.read_image(path), torso)[0]
            for path, torso in zip(people.images, people.torsos, strict=True)
        ]
    )
    some = found.any(axis=1)
    inside = ((eyes > found[:, :2]) & (eyes < found[:, 2:])).all(axis=1)
    assert some.mean() > 0.7 and inside[some].mean() > 0.85


def test_a_real_face_in_a_whole_image(shared_data):
    people = buffy.read_splits(str(shared_data / "buffy"))["train"]
    face, number = detect.likeliest_face(images.read_image(people.images[0]))
    neck, top = (
        people.keypoints[0, people.skeleton.joints.index(j)]
        for j in ("neck", "head_top")
    )
    assert number >= 1
    middle = (neck + top) / 2
    assert (middle > face[:2]).all() and (middle < face[2:]).all()


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
        "folder/c.jpg": [[-5, -5, 5, 5], [-400, -300, -100, -50]],
    }
    written = content | {r"folder\c.jpg": content["folder/c.jpg"]}  # on Windows
    del written["folder/c.jpg"]
    path.write_text(json.dumps(written))
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
        (f'{{"a.jpg": [[1, 1, 5, {10**400}]]}}', "'a.jpg': expected a list of boxes"),
        ('{"a.jpg": [[0.1, 0.2, 0.9, 0.8]]}', "'a.jpg', box 0: .* 0 to 1"),
        ('{"a.jpg": [[0, 0, 1, 1]]}', "'a.jpg', box 0: .* 0 to 1"),
        ('{"a.jpg": [[1, 2, 30, 40], [5, 5, 5.5, 20]]}', "'a.jpg', box 1: .* a pixel"),
    ],
)
def test_a_bad_file_of_boxes_says_where(tmp_path, content, message):
    path = tmp_path / "boxes.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        detect.read_boxes(str(path))
