"""The graph for images of one size against the cascade it was made of."""

import numpy as np
import pytest
import tensorflow as tf
import toy_cascade

from deeppose_tf.export.saved_model import checks, graph
from deeppose_tf.skeleton import LSP

HEIGHT, WIDTH = 60, 91
HOSTILE = (
    [np.nan, 0, 10, 10],
    [0, 0, np.inf, 10],
    [-np.inf, 0, 10, 10],
    [10, 10, 5, 20],
    [10, 10, 10, 20],
    [-1e30, -1e30, 1e30, 1e30],
    [1e30, 1e30, 1e30, 1e30],
)


@pytest.fixture(scope="module")
def cascade():
    return toy_cascade.make(LSP)


@pytest.fixture(scope="module")
def person(cascade):
    return tf.function(
        lambda image, box: graph.unrolled(cascade, image, box),
        input_signature=[
            tf.TensorSpec([HEIGHT, WIDTH, 3], tf.uint8),
            tf.TensorSpec([4], tf.float32),
        ],
        autograph=False,
    )


@pytest.fixture(scope="module")
def image():
    return checks.picture(HEIGHT, WIDTH, seed=1)


@pytest.mark.parametrize(
    "box",
    [[20, 10, 70, 50], [0, 0, 0, 0], [-300, -200, 500, 400], [80, 50, 110, 90]],
)
def test_as_the_cascade(cascade, person, image, box):
    """0.01 pixels: differences of a last place grow from stage to stage."""
    box = np.asarray(box, np.float32)
    expected = cascade.predict(image, box[None])
    found = person(image, box)
    assert found["valid"] == expected["valid"][0]
    for name in ("keypoints", "keypoints_by_stage", "scores"):
        np.testing.assert_allclose(found[name], expected[name][0], rtol=0, atol=0.01)


def test_the_cascade_of_these_tests_sees_something(cascade, image):
    poses = cascade.predict(image)["keypoints_by_stage"][0]
    assert np.ptp(poses[0, :, 0]) > 5
    assert np.linalg.norm(poses[2] - poses[1], axis=-1).max() > 0.5


@pytest.mark.parametrize("box", HOSTILE)
def test_boxes_that_nobody_can_answer(person, image, box):
    found = person(image, np.asarray(box, np.float32))
    assert not found["valid"]
    for name in ("keypoints", "keypoints_by_stage", "scores"):
        assert not np.any(found[name])


def test_a_network_that_diverged_is_found_at_the_end(image):
    cascade = toy_cascade.make(LSP)
    kernel = cascade.stages[1].model.weights[0]
    kernel.assign(tf.fill(kernel.shape, np.inf))
    found = graph.unrolled(cascade, image, tf.zeros([4]))
    assert not found["valid"]
    assert not np.any(found["keypoints_by_stage"])
