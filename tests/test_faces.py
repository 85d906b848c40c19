"""The face of a person who is there: by hand with a false detector, and real ones."""

import numpy as np
import pytest

from deeppose_tf import faces
from deeppose_tf.datasets import buffy, flic, images


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
            faces, "_cascade", lambda name: found["profile" if "prof" in name else name]
        )
        found["haarcascade_frontalface_default.xml"] = found["frontal"]
        return found

    return install


def blank(height, width):
    return np.zeros((height, width, 3), np.uint8)


def test_the_face_with_most_votes_is_taken_and_the_others_counted(detectors):
    """Two boxes of the first face, with 3 + 6 votes, beat one with 8; their mean is
    weighted: x0 (3 * 10 + 6 * 13) / 9 = 12, width (3 * 30 + 6 * 33) / 9 = 32."""
    boxes = [[10, 20, 30, 30], [13, 20, 33, 30], [100, 20, 30, 30]]
    detectors([(boxes, [3, 6, 8])])
    face, number = faces.likeliest_face(blank(200, 300))
    np.testing.assert_allclose(face, [12, 20, 44, 50])
    assert number == 2 and face.dtype == np.float32


def test_a_small_box_within_a_large_one_is_another_face(detectors):
    detectors([([[10, 10, 90, 90], [40, 40, 30, 30]], [3, 4])])
    face, number = faces.likeliest_face(blank(200, 300))
    np.testing.assert_allclose(face, [40, 40, 70, 70])
    assert number == 2


def test_profiles_are_looked_for_in_the_mirror_image_too(detectors):
    """There x counts from the right: 300 - 50 - 40 = 210."""
    found = detectors([([], [])], [([], []), ([[50, 20, 40, 40]], [3])])
    image = blank(200, 300)
    image[20:60, 210:250] = 255
    face, number = faces.likeliest_face(image)
    np.testing.assert_allclose(face, [210, 20, 250, 60])
    assert number == 1
    assert (found["profile"].seen[1][0][20:60, 50:90] == 255).all()


def test_a_face_is_sought_above_the_torso_and_scaled_with_it(detectors):
    """The torso is 50 wide about (200, 200): the face is sought 1.35 * 50 above, within
    50 to all sides, from (150, 82) to (250, 182), at twice the size."""
    found = detectors([([[90, 80, 40, 60]], [4])])
    image = blank(400, 400)
    image[82:182, 150:250] = 200
    face, number = faces.likeliest_face(image, np.array([175, 160, 225, 240]))
    (view, how), *_ = found["frontal"].seen
    assert view.shape == (200, 200) and np.ptp(view) == 0
    assert how["minSize"] == (25, 25) and how["maxSize"] == (110, 110)
    np.testing.assert_allclose(face, [150 + 45, 82 + 40, 150 + 65, 82 + 70])


def test_a_face_that_both_detectors_see_is_one(detectors):
    """Votes 3 and 5 for it beat 7 for another; x0 is (3 * 10 + 5 * 12) / 8."""
    frontal = [[10, 10, 30, 30], [90, 9, 30, 30]], [3, 7]
    detectors([frontal], [([[12, 10, 30, 30]], [5]), ([], [])])
    face, number = faces.likeliest_face(blank(200, 300))
    np.testing.assert_allclose(face, [11.25, 10, 41.25, 40])
    assert number == 2


@pytest.mark.parametrize(
    "torso", [[500, 500, 550, 600], [10, 10, 12, 11], [-90, -300, -50, -250]]
)
def test_where_there_is_nothing_to_see_there_is_no_face(torso):
    face, number = faces.likeliest_face(blank(60, 80), np.array(torso, np.float32))
    assert not face.any() and number == 0


@pytest.mark.parametrize("size", [(1, 1), (3, 900), (60, 30)])
def test_images_of_any_size(size):
    face, number = faces.likeliest_face(blank(*size))
    assert not face.any() and number == 0


def test_real_faces_of_flic_are_where_the_eyes_are(shared_data):
    """Of all test people 83 % have a face, in 95 % of which the eyes are theirs."""
    people = flic.read_splits(str(shared_data / "flic"))["test"].take(range(0, 867, 29))
    eyes = people.keypoints[:, -2:].mean(axis=1)
    found = np.array(
        [
            faces.likeliest_face(images.read_image(path), torso)[0]
            for path, torso in zip(people.images, people.torsos, strict=True)
        ]
    )
    some = found.any(axis=1)
    inside = ((eyes > found[:, :2]) & (eyes < found[:, 2:])).all(axis=1)
    assert some.mean() > 0.7 and inside[some].mean() > 0.85


def test_a_real_face_in_a_whole_image(shared_data):
    people = buffy.read_splits(str(shared_data / "buffy"))["train"]
    face, number = faces.likeliest_face(images.read_image(people.images[0]))
    neck, top = (
        people.keypoints[0, people.skeleton.joints.index(j)]
        for j in ("neck", "head_top")
    )
    assert number >= 1
    middle = (neck + top) / 2
    assert (middle > face[:2]).all() and (middle < face[2:]).all()
