"""Networks that are converted by themselves take the place that was held for them."""

import numpy as np
import pytest
import tensorflow as tf
from toy_cascade import make

from deeppose_tf.export.tflite import constants, convert, flatbuffer, lite, splice
from deeppose_tf.skeleton import LSP

keras = tf.keras


@pytest.fixture(scope="module")
def model():
    inputs = keras.Input([8, 8, 3])
    x = keras.layers.Conv2D(4, 3, activation="relu")(inputs)
    x = keras.layers.Dense(10)(keras.layers.Flatten()(x))
    return keras.Model(inputs, keras.layers.Reshape([5, 2])(x))


@pytest.fixture(scope="module")
def files(model):
    """A file that calls a stand-in twice, and that of the network it stands for."""
    network = constants._frozen(model, "stage_1", 2)
    stand = constants.stand_in(network)
    function = tf.function(
        lambda x: stand(x) - 3.0 * stand(x + 1.0),
        input_signature=[tf.TensorSpec([2, 8, 8, 3])],
        autograph=False,
    ).get_concrete_function()
    whole = convert._converted(function, custom=True)
    return whole, convert._network(network, "float32")


def test_the_network_answers_in_its_place(model, files):
    whole, network = files
    before = [one.customCode for one in flatbuffer.read(whole).operatorCodes]
    assert b"stage_1" in before
    content = splice.filled(whole, {"stage_1": network})
    after = flatbuffer.read(content).operatorCodes
    assert not any(one.customCode for one in after)
    kinds = [(one.builtinCode, one.version) for one in after]
    assert len(kinds) == len(set(kinds))  # the whole and the network share theirs
    crops = np.random.default_rng(0).uniform(-1, 1, (2, 8, 8, 3)).astype(np.float32)
    runner = lite._interpreter(content, 1).get_signature_runner()
    (name,) = runner.get_input_details()
    (answer,) = runner(**{name: crops}).values()
    expected = model(crops).numpy() - 3 * model(crops + 1).numpy()
    np.testing.assert_allclose(answer, expected, atol=1e-5)


def test_an_operation_without_a_network(files):
    with pytest.raises(ValueError, match="operation stage_1 is not one of TFLite"):
        splice.filled(files[0], {"stage_2": files[1]})


def test_files_have_a_largest_size(files, monkeypatch):
    """Their room is a MiB more than weights, of which here are 12 kB."""
    monkeypatch.setattr(flatbuffer, "LARGEST", flatbuffer.ROOM + 5_000)
    with pytest.raises(ValueError, match="all weights are .* another kind may"):
        splice.filled(files[0], {"stage_1": files[1]})


def test_networks_have_a_largest_size(monkeypatch):
    cascade = make(LSP)
    first = 4 * cascade.stages[0].model.count_params()
    monkeypatch.setattr(flatbuffer, "LARGEST", first - 1)
    with pytest.raises(
        ValueError, match="stage 1 has .* GB of weights, and TensorFlow"
    ):
        convert.convert(cascade)
