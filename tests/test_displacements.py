"""What a stage leaves to the next one, and how training looks at held-out people."""

import json
import types

import numpy as np
import pytest
import toy_training

from deeppose_tf import cascade, skeleton
from deeppose_tf.datasets import generated
from deeppose_tf.pipelines.data import records
from deeppose_tf.pipelines.data.config import InputConfig
from deeppose_tf.pipelines.train import validation as held_out

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
    found = cascade.displacement_statistics(displaced, known, outlier_threshold=20.0)
    expected = cascade.displacement_statistics(others, known[1:])
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b)


def test_a_stage_that_is_far_off_everywhere_has_statistics_too(random):
    """After a few steps of training nothing was within reach, and the run ended with
    the news that no joint was labeled."""
    displaced = random.normal(5.0, 0.1, (50, K, 2))
    known = np.ones((50, K), bool)
    found = cascade.displacement_statistics(displaced, known, outlier_threshold=0.5)
    expected = cascade.displacement_statistics(displaced, known)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b)
    with pytest.raises(ValueError, match="no labeled joints"):
        cascade.displacement_statistics(displaced, ~known)


class Guesser:
    """Stands in for a cascade; what it answers depends on the picture."""

    count = 1
    stages = (
        types.SimpleNamespace(config=types.SimpleNamespace(outlier_threshold=np.inf)),
    )

    def __init__(self):
        self.asked = 0

    def predict_batch(self, canvases, boxes):
        self.asked += len(boxes)
        colours = canvases.numpy().mean(axis=(1, 2))[:, None, None, :2]
        joints = np.arange(toy_training.JOINTS)[:, None]
        return {"keypoints_by_stage": (colours * (1 + joints / 20)).astype(np.float32)}


@pytest.mark.parametrize("limit", [None, 5])
def test_people_are_predicted_once_and_count_by_their_weights(tmp_path, capsys, limit):
    """As if everyone were there as often as an epoch shows them; a limit is one of
    people, whatever their weights."""
    counts = {"train": 7, "validation": 0, "test": 0}
    people = generated.read(str(tmp_path / "figures"), "train", counts)
    weights = np.array([4, 4, 4, 1, 1, 1, 1])
    index = records.write({"train": people}, str(tmp_path / "data"), weights=weights)
    config, guesser = InputConfig(canvas=48), Guesser()
    statistics = held_out.observed_displacements(guesser, index, config, limit, 1)
    count = limit or 7
    assert guesser.asked == count
    assert f"{count}/{count}" in capsys.readouterr().out
    poses, truth, labeled, _ = held_out.predict_split(
        guesser, index, "train", config, limit
    )
    displaced, known = cascade.displacements(
        poses[:, -1], truth, labeled, index.skeleton
    )
    own = dict(zip(people.ids, weights, strict=True))
    names = records.read_people(index, "train", limit).ids
    often = [i for i, person in enumerate(names) for _ in range(own[person])]
    expected = cascade.displacement_statistics(
        displaced.numpy()[often], known.numpy()[often]
    )
    for one, other in zip(statistics, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_joints_that_nobody_has_labeled_are_silent(random):
    """They were means of nothing, with a warning at every look; the spread of the
    predictions, half that of the labels here, is that of the other joints. Halfway to
    the labels from their mean, predictions have a quarter of its loss."""
    boxes = np.tile(np.float32([0, 0, 10, 20]), (40, 1))
    truth = random.normal(size=(40, K, 2)).astype(np.float32)
    truth = (truth - truth.mean(0)) / truth.std(0) * 2
    labeled = np.ones((40, K), bool)
    labeled[:, 2] = False
    baseline = np.zeros_like(truth)
    found = held_out._variation(truth / 2, baseline, truth, labeled, boxes)
    assert found == pytest.approx({"spread": 0.5, "l2": 0.25}, rel=1e-5)
    # The same for everyone is right where everyone is labeled the same.
    assert not held_out._variation(truth, baseline, truth * 1e-4, labeled, boxes)
    assert not held_out._variation(truth, baseline, truth, labeled & False, boxes)
    assert held_out.pdj(truth, truth, labeled, SKELETON) == 1.0
    assert held_out.pdj(truth, truth, ~labeled & False, SKELETON) == 0.0


@pytest.mark.parametrize(
    "content", ["[]", "{}", "3", '{"format": 1, "stages": 3}', '{"format": 1}', "{"]
)
def test_a_damaged_index_of_a_run_is_named(tmp_path, content):
    (tmp_path / "cascade.json").write_text(content)
    with pytest.raises(ValueError, match="cascade.json is damaged"):
        cascade.Cascade.load(str(tmp_path))


def test_an_index_of_stages_that_are_not_there(tmp_path):
    (tmp_path / "cascade.json").write_text(
        json.dumps({"format": 1, "stages": ["stage_1"]})
    )
    with pytest.raises(ValueError, match="stage_1 is no folder of a stage"):
        cascade.Cascade.load(str(tmp_path))
