"""People from frame to frame: who is who, boxes that follow, joints that are steady."""

import math

import numpy as np
import pytest
from test_predict import FakeCascade, Killed, run, write_video

from deeppose_tf import tracking

RATE = 25.0
TALL = np.float32([[10, 10, 60, 160]])
OTHER = np.float32([[200, 20, 260, 170]])


def poses(*keypoints):
    keypoints = np.float32(keypoints)
    return {"keypoints": keypoints, "valid": np.ones(len(keypoints), bool)}


def smoothed(path):
    """[T, K, 2] of one person, frame by frame."""
    tracks, found = tracking.Tracks(follow=False), []
    for i, keypoints in enumerate(path):
        _, numbers = tracks.boxes(np.zeros((1, 4), np.float32), i / RATE)
        found.append(tracks.poses(numbers, poses(keypoints), i / RATE)["keypoints"][0])
    return np.array(found)


def test_people_keep_their_numbers_in_any_order():
    tracks = tracking.Tracks(follow=False)
    both = np.concatenate([TALL, OTHER])
    for i, boxes in enumerate((both, both[::-1] + 4, both + 8, OTHER + 8, both[::-1])):
        kept, numbers = tracks.boxes(boxes, i / RATE)
        np.testing.assert_array_equal(kept, boxes)  # those of a file
        expected = [1 if box[0] < 100 else 2 for box in boxes]
        assert numbers == expected
    # Somewhere else is somebody else, and so is the same place a second later.
    assert tracks.boxes(TALL + 100, 5 / RATE)[1] == [3]
    assert tracks.boxes(both, 2.0)[1] == [4, 5]


def test_a_box_follows_who_is_not_found_for_a_moment():
    """At 100 pixels a second, as the pose moved when it was seen last."""
    tracks = tracking.Tracks(follow=True)
    shape = np.float32([[20, 20], [50, 150]])
    for i in range(50):
        at = 4 * i
        boxes, numbers = tracks.boxes(TALL + [at, 0, at, 0], i / RATE)
        tracks.poses(numbers, poses(shape + [at, 0]), i / RATE)
    for i in range(50, 62):  # half a second
        boxes, numbers = tracks.boxes(None, i / RATE)
        assert numbers == [1]
        np.testing.assert_allclose(boxes, TALL + [4 * i, 0, 4 * i, 0], atol=3)
        tracks.poses(numbers, poses(shape + [4 * i, 0]), i / RATE)
    boxes, numbers = tracks.boxes(None, 62 / RATE)
    assert not boxes.any() and boxes.shape == (1, 4) and numbers == [2]
    # Nobody who is known to be nobody is followed.
    boxes, numbers = tracking.Tracks(follow=False).boxes(np.zeros((0, 4)), 0.0)
    assert boxes.shape == (0, 4) and numbers == []


def test_found_boxes_tremble_less():
    random = np.random.default_rng(0)
    tracks, found, kept = tracking.Tracks(follow=True), [], []
    for i in range(100):
        found.append(TALL + random.normal(0, 4, 4))
        boxes, numbers = tracks.boxes(found[-1], i / RATE)
        kept.append(boxes)
    assert numbers == [1]
    # Half towards each new one: the variance is 0.5 / (2 - 0.5) of theirs.
    share = np.std(np.array(kept)[10:], axis=0) / np.std(np.array(found)[10:], axis=0)
    np.testing.assert_allclose(share.mean(), math.sqrt(1 / 3), rtol=0.15)


def test_who_is_found_anew_is_not_followed_as_well():
    tracks = tracking.Tracks(follow=True)
    tracks.boxes(TALL, 0.0)
    _, numbers = tracks.boxes(np.float32([[30, 10, 120, 160]]), 1 / RATE)
    assert numbers == [2]


def test_what_rests_trembles_less_and_what_moves_hardly_lags():
    random = np.random.default_rng(0)
    frames = np.arange(100)
    rest = np.tile([[20.0, 20], [60, 220]], (100, 1, 1))
    noise = random.normal(0, 1.5, rest.shape)
    steady = smoothed(rest + noise)
    assert np.std((steady - rest)[20:]) < 0.7 * np.std(noise)
    jitter = [np.abs(np.diff(x, 2, axis=0)).mean() for x in (noise, steady)]
    assert jitter[1] < jitter[0] / 2.5
    # A joint that swings by 200 pixels a second.
    moving = rest.copy()
    moving[:, 1, 0] += 64 * np.sin(2 * np.pi * 0.5 * frames / RATE)
    error = np.abs(smoothed(moving) - moving)[20:, 1, 0]
    assert error.mean() < 200 * 2 / np.pi * 0.04  # a frame's way


def test_the_first_pose_and_one_after_a_gap_stay_as_they_are():
    tracks = tracking.Tracks(follow=False)
    tracks.boxes(TALL, 0.0)
    first, second = np.float32([[1, 2], [30, 90]]), np.float32([[9, 9], [50, 99]])
    np.testing.assert_array_equal(
        tracks.poses([1], poses(first), 0.0)["keypoints"][0], first
    )
    tracks.boxes(TALL, 2.0)
    found = tracks.poses([2], poses(second), 2.0)
    np.testing.assert_array_equal(found["keypoints"][0], second)
    assert found["track"] == [2]


def test_who_has_no_pose_gets_none():
    tracks = tracking.Tracks(follow=True)
    for i in range(3):
        _, numbers = tracks.boxes(TALL, i / RATE)
        nothing = {"keypoints": np.zeros((1, 2, 2)), "valid": np.array([i != 1])}
        found = tracks.poses(numbers, nothing | {"scores": np.ones((1, 2))}, i / RATE)
        assert not found["keypoints"].any() and found["scores"].all()


def test_films_have_steady_poses_whether_stopped_or_not(tmp_path):
    """A frame that a stopped run kept counts as if it had been looked at."""
    write_video(tmp_path / "clip.mp4", frames=6)

    class Trembling(FakeCascade):
        def predict(self, image, boxes):
            found = super().predict(image, boxes)
            shift = np.float32(3 * (int(image.mean()) // 40 % 2))
            for name in ("keypoints", "keypoints_by_stage"):
                found[name] = found[name] + shift
            return found

    class Stopped(Trembling, Killed):
        pass

    how = {"overlays": False, "tracks": lambda: tracking.Tracks(follow=True)}
    film, whole = tmp_path / "clip.mp4", tmp_path / "whole"
    content = run(film, whole, cascade=Trembling(), **how)
    with pytest.raises(KeyboardInterrupt):
        run(film, tmp_path / "out", cascade=Stopped(3), **how)
    again = run(film, tmp_path / "out", cascade=Trembling(), **how)
    people = content["annotations"]
    assert [person["track"] for person in people] == [1] * 6
    x = [person["keypoints"][0] for person in people]
    raw = [person["keypoints_by_stage"][-1][0] for person in people]
    assert np.abs(np.diff(x)).max() < np.abs(np.diff(raw)).max() == 3
    for one, other in zip(people, again["annotations"], strict=True):
        np.testing.assert_allclose(one["keypoints"], other["keypoints"], atol=1e-3)
