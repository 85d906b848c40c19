"""The exported graph against the Keras cascade; its loop, and what ends it."""

import dataclasses
import functools

import numpy as np
import pytest
import tensorflow as tf
import toy_cascade

from deeppose_tf import cascade as cascades
from deeppose_tf.export.saved_model import checks, cropping, graph
from deeppose_tf.skeleton import LSP

keras = tf.keras

IMAGE = checks.picture(120, 90)
BOXES = np.float32([[0, 0, 0, 0], [10, 20, 60, 110], [-30, 40, 70, 160]])
NAMES = ["keypoints", "keypoints_by_stage", "scores", "valid"]


@pytest.fixture(scope="module")
def cascade():
    return toy_cascade.make(LSP)


def together(cascade, images, boxes, tolerance=None):
    """Of people whom a network sees in one call, each on an image of their own."""
    people = tf.shape(boxes)[0]
    source, sizes, boxes = cropping.several(lambda i: (images[i], boxes[i]), people)
    view = functools.partial(cropping.Several, people, source.levels)
    return graph.together(cascade, view, sizes, boxes, tolerance)


def among_others(cascade, image, box):
    """As `graph.looped`, beside somebody else."""
    found = together(cascade, tf.stack([IMAGE, image]), tf.stack([BOXES[1], box]))
    return {name: value[1] for name, value in found.items()}


def function(cascade, person=graph.looped, **settings):
    return tf.function(
        lambda image, box: person(cascade, image, box, **settings),
        input_signature=[
            tf.TensorSpec([None, None, 3], tf.uint8),
            tf.TensorSpec([4], tf.float32),
        ],
        autograph=False,
    )


@pytest.fixture(scope="module")
def shortened(cascade):
    """Cascades of the first stages; each is traced once, as are the functions below."""
    shorter = functools.cache(lambda stages: cascades.Cascade(cascade.stages[:stages]))
    return lambda stages: shorter(stages) if stages < 3 else cascade


@pytest.fixture(scope="module")
def traced(shortened):
    return functools.cache(
        lambda stages, **settings: function(shortened(stages), **settings)
    )


def nodes(concrete):
    """All nodes of a function and of those that it calls."""
    content = concrete.graph.as_graph_def()
    return [*content.node, *(n for f in content.library.function for n in f.node_def)]


THREE_LEVELS = functools.partial(cropping.framed, count=3)


@pytest.mark.parametrize(
    ("stages", "settings"),
    [
        (1, {}),
        (3, {}),
        (3, {"person": graph.unrolled}),
        (3, {"person": among_others}),
        # Crops of 32 pixels from an image of 120 need no more than two halvings.
        (2, {"person": graph.unrolled, "view": THREE_LEVELS}),
    ],
)
def test_as_keras(shortened, traced, stages, settings):
    person = traced(stages, **settings)
    expected = shortened(stages).predict(IMAGE, BOXES)
    for i, box in enumerate(BOXES):
        found = person(IMAGE, box)
        assert list(found) == NAMES
        for name, value in found.items():
            # Crops of several people share a reach, which changes the last digits.
            np.testing.assert_allclose(value, expected[name][i], atol=5e-3)


def test_the_cascade_of_these_tests_sees_something(cascade):
    poses = cascade.predict(IMAGE)["keypoints_by_stage"][0]
    assert np.ptp(poses[0, :, 0]) > 5
    assert np.linalg.norm(poses[2] - poses[1], axis=-1).max() > 0.5


def test_one_loop_and_one_network_per_stage_in_it(cascade, traced):
    """The weights are read where they are used: once each, never gathered."""
    person = traced(3).get_concrete_function()
    content = person.graph.as_graph_def()
    loops = [node for node in content.node if node.op.endswith("While")]
    assert len(loops) == 1
    library = {called.signature.name: called for called in content.library.function}
    body = library[loops[0].attr["body"].func.name]
    (choice,) = [node for node in body.node_def if node.op.endswith("Case")]
    branches = [library[f.name] for f in choice.attr["branches"].list.func]
    assert len(branches) == 2
    weights = [stage.model.weights for stage in cascade.stages]
    assert len(person.variables) == sum(len(some) for some in weights)
    for branch, own in zip(branches, weights[1:], strict=True):
        reads = [node for node in branch.node_def if node.op == "ReadVariableOp"]
        assert len(reads) == len(own)
        assert any(node.op == "Conv2D" for node in branch.node_def)
    everywhere = [node for node in nodes(person) if node.op == "ReadVariableOp"]
    assert len(everywhere) == len(person.variables)
    assert not any(node.op == "ResourceGather" for node in nodes(person))


def test_unrolled_has_no_loop(traced):
    person = traced(3, person=graph.unrolled)
    found = {node.op for node in nodes(person.get_concrete_function())}
    assert not found & {"While", "StatelessWhile", "Case", "StatelessCase"}


@pytest.fixture(scope="module")
def early(cascade):
    """A loop that ends early, and its tolerance: a variable, for one graph of both."""
    tolerance = tf.Variable(0.0)
    return function(cascade, tolerance=tolerance), tolerance


@pytest.mark.parametrize("share", [0.99, 1.01])
def test_a_loop_that_ends_early(cascade, shortened, early, share):
    """Stage 2 moves the joint that it moves most by just more, or just less, than the
    tolerance: stage 3 is run, or not."""
    expected = cascade.predict(IMAGE, BOXES[1:2])["keypoints_by_stage"][0]
    moved = np.linalg.norm(expected[1] - expected[0], axis=-1)
    diameter = cascades.diameters(tf.constant(expected[:1]), LSP).numpy()[0]
    ending, tolerance = early
    tolerance.assign(share * moved.max() / diameter)
    found = ending(IMAGE, BOXES[1])
    first, second, third = found["keypoints_by_stage"].numpy()
    np.testing.assert_allclose([first, second], expected[:2], atol=1e-3)
    np.testing.assert_array_equal(found["keypoints"], third)
    if share < 1:
        np.testing.assert_allclose(third, expected[2], atol=1e-3)
        return
    np.testing.assert_array_equal(third, second)
    # Scores are of the stages that were run.
    two = shortened(2).predict(IMAGE, BOXES[1:2])
    np.testing.assert_allclose(found["scores"], two["scores"][0], atol=1e-4)


def test_who_has_settled_keeps_the_pose(cascade, early):
    """While somebody else moves on, as if everybody were alone."""
    poses = cascade.predict(IMAGE, BOXES)["keypoints_by_stage"]
    moved = np.linalg.norm(poses[:, 1] - poses[:, 0], axis=-1).max(axis=1)
    shares = np.sort(moved / cascades.diameters(tf.constant(poses[:, 0]), LSP).numpy())
    assert shares[1] > 1.02 * shares[0]
    ending, tolerance = early
    tolerance.assign((shares[0] + shares[1]) / 2)
    images = tf.stack([IMAGE] * len(BOXES))
    people = tf.function(functools.partial(together, cascade), autograph=False)
    found = people(images, tf.constant(BOXES), tolerance)
    alone = [ending(IMAGE, box) for box in BOXES]
    for name, value in found.items():
        expected = np.stack([one[name] for one in alone])
        np.testing.assert_allclose(value, expected, atol=1e-3)
    second, third = found["keypoints_by_stage"].numpy().swapaxes(0, 1)[1:]
    assert (second == third).all(axis=(1, 2)).sum() == 1


BAD = {
    "not a number": [np.nan, 10, 50, 70],
    "infinite": [20, 10, np.inf, 70],
    "inverted": [50, 10, 20, 70],
    "of no size": [20, 10, 20, 70],
    "huge": [-1e30, -1e30, 1e30, 1e30],
    "far": [2e6, 10, 2e6 + 30, 70],
    "outside of the image": [-30, 10, 0, 70],
}


@pytest.mark.parametrize("box", BAD.values(), ids=BAD)
def test_boxes_that_cannot_be_answered(traced, box):
    found = traced(3)(IMAGE, np.float32(box))
    assert not any(value.numpy().any() for value in found.values())


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (2, 3)])
def test_smallest_images(cascade, traced, size):
    image = checks.picture(*size)
    found, expected = traced(3)(image, BOXES[0]), cascade.predict(image)
    np.testing.assert_allclose(found["keypoints"], expected["keypoints"][0], atol=1e-3)
    assert found["valid"]


class Lost(keras.layers.Layer):
    """Adds a number, which need not be one, to every answer."""

    def __init__(self):
        super().__init__(trainable=False)
        self.more = self.add_weight(name="more", shape=(), initializer="zeros")

    def call(self, answers):
        return answers + self.more


@pytest.fixture(scope="module", params=[graph.looped, graph.unrolled, among_others])
def losing(cascade, request):
    """A cascade that can be made to diverge, and its graph."""

    def changed(stage):
        crops = keras.Input([stage.config.size, stage.config.size, 3])
        model = keras.Model(crops, Lost()(stage.model(crops)))
        return dataclasses.replace(stage, model=model)

    made = cascades.Cascade([changed(stage) for stage in cascade.stages])
    return made, function(made, request.param)


@pytest.mark.parametrize(
    ("number", "value"), [(0, np.nan), (1, np.inf), (2, 1e30), (0, 0.0)]
)
def test_networks_that_diverged(losing, number, value):
    """Whichever stage it is, its answers reach no crop and nobody."""
    made, person = losing
    for i, stage in enumerate(made.stages):
        stage.model.layers[-1].more.assign(value if i >= number else 0.0)
    found = person(IMAGE, BOXES[0])
    assert any(one.numpy().any() for one in found.values()) == (value == 0.0)


def test_a_network_that_diverged_where_the_size_is_known():
    cascade = toy_cascade.make(LSP)
    kernel = cascade.stages[1].model.weights[0]
    kernel.assign(tf.fill(kernel.shape, np.inf))
    found = graph.unrolled(cascade, IMAGE, tf.zeros([4]))
    assert not any(one.numpy().any() for one in found.values())
