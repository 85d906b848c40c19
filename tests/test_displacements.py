"""What a stage leaves to the next one, and how training looks at held-out people."""

import json

import numpy as np
import pytest

from deeppose_tf import cascade, skeleton
from deeppose_tf.pipelines import held_out

K = 3
SKELETON = skeleton.Skeleton("three", ("a", "b", "c"), (), (), ())


@pytest.fixture
def random():
    return np.random.default_rng(5)


def test_statistics_by_hand():
    """Joint 0: (0, 0) and (2, 4), so the mean is (1, 2), and of n - 1 = 1 the variances
    2 and 8, the covariance 4. Joint 1 is known once: it takes those of all three."""
    displaced = np.array([[[0.0, 0], [4, 2], [9, 9]], [[2, 4], [9, 9], [9, 9]]])
    known = np.array([[True, True, False], [True, False, False]])
    mean, covariance = cascade.displacement_statistics(displaced, known)
    np.testing.assert_allclose(mean, [[1, 2], [2, 2], [2, 2]])
    np.testing.assert_allclose(covariance[0], [[2, 4], [4, 8]])
    np.testing.assert_allclose(covariance[1], [[4, 2], [2, 4]])
    np.testing.assert_allclose(covariance[2], covariance[1])


def test_the_farthest_are_left_out(random):
    displaced = random.normal(size=(50, K, 2))
    known = np.ones((50, K), bool)
    displaced[7] = 100.0
    others = np.delete(displaced, 7, axis=0)
    found = cascade.displacement_statistics(displaced, known, farthest=20.0)
    expected = cascade.displacement_statistics(others, known[1:])
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b)


def test_a_stage_that_is_far_off_everywhere_has_statistics_too(random):
    """After a few steps of training nothing was within reach, and the run ended with
    the news that no joint was labeled."""
    displaced = random.normal(5.0, 0.1, (50, K, 2))
    known = np.ones((50, K), bool)
    found = cascade.displacement_statistics(displaced, known, farthest=0.5)
    expected = cascade.displacement_statistics(displaced, known)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b)
    with pytest.raises(ValueError, match="no labeled joints"):
        cascade.displacement_statistics(displaced, ~known)


def test_joints_that_nobody_has_labeled_are_silent(random):
    """They were means of nothing, with a warning at every look; the spread of the
    predictions, half that of the labels here, is that of the other joints."""
    boxes = np.tile(np.float32([0, 0, 10, 20]), (40, 1))
    truth = random.normal(size=(40, K, 2)).astype(np.float32)
    truth = (truth - truth.mean(0)) / truth.std(0) * 2
    labeled = np.ones((40, K), bool)
    labeled[:, 2] = False
    spread = held_out._spread(truth / 2, truth, labeled, boxes)
    assert spread == pytest.approx(0.5, rel=1e-5)
    assert held_out.pdj(truth, truth, labeled, SKELETON) == 1.0
    assert held_out.pdj(truth, truth, ~labeled & False, SKELETON) == 0.0


@pytest.mark.parametrize(
    "content", ["[]", "{}", "3", '{"stages": 3}', '{"stages": null}', "{"]
)
def test_a_damaged_index_of_a_run_is_named(tmp_path, content):
    (tmp_path / "cascade.json").write_text(content)
    with pytest.raises(ValueError, match="cascade.json is damaged"):
        cascade.Cascade.load(str(tmp_path))


def test_an_index_of_stages_that_are_not_there(tmp_path):
    (tmp_path / "cascade.json").write_text(json.dumps({"stages": ["stage_1"]}))
    with pytest.raises(ValueError, match="stage_1 is no stage directory"):
        cascade.Cascade.load(str(tmp_path))
