"""Fig. 2 to the number; heads, normalisation and dropout against NumPy."""

import contextlib
import functools

import numpy as np
import pytest
import tensorflow as tf

from deeppose_tf import layers, networks
from deeppose_tf.config import StageConfig
from deeppose_tf.pipelines.train import step as steps
from deeppose_tf.skeleton import LSP
from deeppose_tf.stage import build_stage

keras = tf.keras

K = len(LSP.joints)
COMPACT = StageConfig("compact", 32, "integral", (4, 8), (0, 1), subcells=2)


@pytest.fixture
def random():
    return np.random.default_rng(7)


@pytest.fixture(scope="module")
def paper():
    return build_stage(StageConfig("paper", 220, dropout=0.6), LSP)


def layers_of(model, kind):
    return [layer for layer in model.layers if isinstance(layer, kind)]


def test_the_layers_of_figure_2(paper):
    """C(55 x 55 x 96) - LRN - P - C(27 x 27 x 256) - LRN - P - C(13 x 13 x 384) -
    C(13 x 13 x 384) - C(13 x 13 x 256) - P - F(4096) - F(4096), Sec. 3.1."""
    kinds = (
        layers.Convolution,
        layers.LocalResponseNormalization,
        layers.MaxPooling,
        keras.layers.Dense,
    )
    letters = dict(zip(kinds, "CNPF", strict=True))
    found = [
        (letters[type(layer)], *layer.output.shape[1:])
        for layer in layers_of(paper, kinds)
    ]
    assert found == [
        ("C", 55, 55, 96),
        ("N", 55, 55, 96),
        ("P", 27, 27, 96),
        ("C", 27, 27, 256),
        ("N", 27, 27, 256),
        ("P", 13, 13, 256),
        ("C", 13, 13, 384),
        ("C", 13, 13, 384),
        ("C", 13, 13, 256),
        ("P", 6, 6, 256),
        ("F", 4096),
        ("F", 4096),
        ("F", 2 * K),
    ]
    assert paper.output_shape == (None, K, 2)


def test_the_parameters_of_figure_2(paper):
    """Weights and biases, layer by layer. The paper says about 40 million, of what must
    be other sizes: these are those of its figure."""
    convolutions = [(11, 3, 96), (5, 96, 256), (3, 256, 384), (3, 384, 384)]
    convolutions.append((3, 384, 256))
    expected = sum(k * k * i * o + o for k, i, o in convolutions)
    sides = [6 * 6 * 256, 4096, 4096, 2 * K]
    expected += sum(i * o + o for i, o in zip(sides[:-1], sides[1:], strict=True))
    assert paper.count_params() == expected == 58_396_060


def numpy_lrn(x):
    """b = a / (2 + 1e-4 sum of a^2 over two channels either side) ^ 0.75."""
    out = np.empty_like(x)
    for channel in range(x.shape[-1]):
        near = x[..., max(channel - 2, 0) : channel + 3]
        out[..., channel] = x[..., channel] / (2 + 1e-4 * (near**2).sum(-1)) ** 0.75
    return out


@pytest.mark.parametrize(
    "context", [contextlib.nullcontext, layers.delegable], ids=["", "delegable"]
)
@pytest.mark.parametrize(("kind", "close"), [("float32", 1e-6), ("bfloat16", 1e-2)])
def test_local_response_normalization(random, kind, close, context):
    # Large, so that the sum matters beside the 2. bfloat16 has eight bits.
    x = tf.cast(random.uniform(-300, 300, (2, 3, 4, 9)), kind)
    with context():
        found = layers.LocalResponseNormalization(dtype=kind)(x)
    assert found.dtype == kind
    expected = numpy_lrn(tf.cast(x, tf.float64).numpy())
    np.testing.assert_allclose(tf.cast(found, tf.float64), expected, rtol=close)


@pytest.mark.parametrize("network", ["compact", "MobileNetV2"])
def test_a_linear_head_begins_at_the_mean_pose(random, network):
    mean = random.uniform(-0.5, 0.5, (K, 2)).astype(np.float32)
    config = StageConfig(network, 32, "linear", (4,), (0,))
    model = build_stage(config, LSP, mean)
    # Weights of 0.01 add a little of what the crop says.
    answer = model(np.zeros((2, 32, 32, 3), np.float32), training=False)
    np.testing.assert_allclose(answer, [mean, mean], atol=0.15)
    *_, bias = (weight.numpy() for weight in model.weights)
    np.testing.assert_array_equal(bias.reshape(K, 2), mean)


def numpy_places(height, width):
    return np.array(
        [
            [(column + 0.5) / width - 0.5, (row + 0.5) / height - 0.5]
            for row in range(height)
            for column in range(width)
        ]
    )


def test_the_integral_head_points_where_it_is_hot():
    """One place of one joint's map, hot alone, in a cell of two by two places."""
    height, width, n = 3, 5, 2
    logits_of = layers.MapLogits(K, n)
    expect = layers.Expectation(height * n, width * n)
    np.testing.assert_allclose(expect.places, numpy_places(6, 10), atol=1e-7)
    for row, column, i, j, joint in [
        (0, 0, 0, 0, 0),
        (2, 4, 1, 0, 5),
        (1, 3, 0, 1, 13),
    ]:
        # The channels of a cell: row within the cell, column within it, joint.
        features = np.zeros((1, height, width, n, n, K), np.float32)
        features[0, row, column, i, j, joint] = 100
        features = features.reshape(1, height, width, n * n * K)
        places = expect(logits_of(features))[0].numpy()
        y, x = row * n + i + 0.5, column * n + j + 0.5
        np.testing.assert_allclose(
            places[joint], [x / 10 - 0.5, y / 6 - 0.5], atol=1e-6
        )
        # Flat maps answer the middle.
        np.testing.assert_allclose(np.delete(places, joint, axis=0), 0, atol=1e-6)


def test_the_integral_head_against_numpy(random):
    logits = random.normal(0, 2, (2, K, 6 * 10)).astype(np.float32)
    share = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    found = layers.Expectation(6, 10)(logits)
    np.testing.assert_allclose(found, share @ numpy_places(6, 10), atol=1e-6)


def test_an_untrained_integral_network_answers_about_the_middle(random):
    model = build_stage(COMPACT, LSP)
    crops = random.uniform(-1, 1, (3, 32, 32, 3)).astype(np.float32)
    answer = model(crops, training=False).numpy()
    assert np.abs(answer).max() < 0.1
    # Crops of 32 are halved twice, and each cell of 8 x 8 is divided by two.
    assert networks.map_places(model).shape == (16 * 16, 2)


def test_maps_come_with_the_answer(random):
    model = build_stage(COMPACT, LSP)
    crops = random.uniform(-1, 1, (3, 32, 32, 3)).astype(np.float32)
    answer, logits = networks.with_maps(model)(crops, training=False)
    np.testing.assert_array_equal(answer, model(crops, training=False))
    share = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(share @ networks.map_places(model), answer, atol=1e-5)


def dropped(step, number=0, rate=0.6):
    """Which of a thousand units a step drops."""
    layer = layers.Dropout(rate, number)

    @tf.function
    def run(step):
        with layers.dropout_step(step):
            return layer(tf.ones([1000]), training=True)

    return run(tf.constant(step, tf.int64)).numpy()


def test_dropout_is_given_by_the_step():
    units = dropped(3)
    # 0.6 are dropped, the rest is divided by 0.4. 0.06 are four standard deviations.
    assert set(np.unique(units)) == {0, np.float32(2.5)}
    assert abs((units == 0).mean() - 0.6) < 0.06
    np.testing.assert_array_equal(units, dropped(3))
    # Of another step or layer about 0.4 of the dropped are kept.
    for other in (dropped(4), dropped(3, number=1)):
        assert 0.3 < (other[units == 0] != 0).mean() < 0.5


def test_dropout_outside_of_the_training_loop_is_no_frozen_mask():
    """`fit` trained with the mask of step 0 at every step, and said nothing."""
    layer = layers.Dropout(0.6, 0)
    compiled = tf.function(lambda: layer(tf.ones([1000]), training=True))
    for run in (compiled, lambda: layer(tf.ones([1000]), training=True)):
        first, second = run().numpy(), run().numpy()
        assert set(np.unique(first)) == {0, np.float32(2.5)}
        assert 0.3 < (second[first == 0] != 0).mean() < 0.5


SAVED = [
    StageConfig("paper", 67, dropout=0.6),
    COMPACT,
    StageConfig("compact", 32, "linear", (4,), (1,), dropout=0.5),
    # With a function of its own for what it was fed, and with one that a name finds.
    StageConfig("MobileNetV2", 32),
    StageConfig("MobileNetV3Small", 32, "integral"),
]


@pytest.mark.parametrize("config", SAVED, ids=lambda c: f"{c.network}-{c.head}")
def test_a_network_is_a_plain_keras_model(random, tmp_path, config):
    """Saved and loaded by Keras itself, nothing of ours given to it; then fitted."""
    model = build_stage(config, LSP, random.uniform(-0.3, 0.3, (K, 2)))
    crops = random.uniform(-1, 1, (2, config.size, config.size, 3)).astype(np.float32)
    model.save(tmp_path / "network.keras")
    again = keras.models.load_model(tmp_path / "network.keras")
    expected = model(crops, training=False)
    np.testing.assert_array_equal(again(crops, training=False), expected)
    if config.network != "compact":
        return
    again.compile("sgd", "mse")
    losses = again.fit(crops, np.zeros((2, K, 2)), epochs=2, verbose=0).history["loss"]
    assert np.isfinite(losses).all()


def test_dropout_rests_when_it_is_not_trained():
    x = tf.random.stateless_normal([50], [1, 2])
    for layer, training in (
        (layers.Dropout(0.6, 0), False),
        (layers.Dropout(0.0, 0), True),
    ):
        np.testing.assert_array_equal(layer(x, training=training), x)


@pytest.mark.parametrize("kind", ["FusedBatchNormalization", "BatchNormalization"])
def test_replicas_equal_one_device(random, mirrored, kind):
    """Each is given half a batch, and what is learned of it is that of the whole one:
    moments, masks of dropout, and gradients through both."""
    x = random.normal(3, 2, (8, 32, 32, 3)).astype(np.float32)
    target = random.normal(size=(8, 6)).astype(np.float32)

    def build():
        keras.utils.set_random_seed(1)
        crops = keras.Input([32, 32, 3])
        module = layers if kind.startswith("Fused") else keras.layers
        y = getattr(module, kind)(momentum=0.9, dtype="float32")(crops)
        y = keras.layers.GlobalAveragePooling2D()(y)
        y = layers.Dropout(0.5, 0)(keras.layers.Dense(40)(y))
        model = keras.Model(crops, keras.layers.Dense(6)(y))
        layers.synchronize(model.layers)  # as those of keras.applications
        return model

    def learned(model, x, target):
        with tf.GradientTape() as tape, layers.dropout_step(tf.constant(1)):
            error = (model(x, training=True) - target) ** 2
            loss = tf.reduce_sum(error) / 8
        return tape.gradient(loss, model.trainable_variables)

    one = build()
    expected = learned(one, x, target)
    with mirrored.scope():
        two = build()

    @tf.function
    def run():
        def replica():
            context = tf.distribute.get_replica_context()
            first = context.replica_id_in_sync_group * 4
            own = (tf.constant(whole)[first:][:4] for whole in (x, target))
            return context.all_reduce("SUM", learned(two, *own))

        return tf.nest.map_structure(
            lambda value: mirrored.experimental_local_results(value)[0],
            mirrored.run(replica),
        )

    for gradient, other in zip(run(), expected, strict=True):
        # Keras's own is rounded more: terms of its gradients cancel each other.
        close = 1e-4 if kind.startswith("Fused") else 1e-2
        np.testing.assert_allclose(gradient, other, atol=close * np.abs(other).max())
    for weight, other in zip(two.get_weights(), one.get_weights(), strict=True):
        # Keras 2 keeps the variance of a sample on one device alone.
        np.testing.assert_allclose(weight, other, rtol=2e-4, atol=1e-5)
    moments = [w for w in one.weights if "moving_mean" in w.name]
    assert moments and all(np.abs(moment.numpy()).max() > 1e-3 for moment in moments)


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_fused_normalisation_against_numpy(random, kind):
    x = random.normal(3, 2, (4, 5, 6, 7)).astype(np.float32)
    layer = layers.FusedBatchNormalization(
        momentum=0.9, dtype="float32", autocast=False
    )
    found = layer(tf.cast(x, kind), training=True)
    mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
    expected = (x - mean) / np.sqrt(variance + 1e-3)
    assert found.dtype == kind
    close = 1e-5 if kind == "float32" else 5e-2
    np.testing.assert_allclose(tf.cast(found, tf.float32), expected, atol=close)
    # What is kept is float32. The variance is that of a sample, n / (n - 1).
    kept_mean, kept_variance = layer.moving_mean, layer.moving_variance
    assert kept_mean.dtype == kept_variance.dtype == "float32"
    close = 1e-5 if kind == "float32" else 1e-2
    np.testing.assert_allclose(kept_mean, 0.1 * mean, atol=close)
    sample = variance * 120 / 119
    np.testing.assert_allclose(kept_variance, 0.9 + 0.1 * sample, atol=close)
    still = layer(tf.cast(x, kind), training=False)
    expected = (x - kept_mean) / np.sqrt(np.asarray(kept_variance) + 1e-3)
    close = 1e-5 if kind == "float32" else 5e-2
    np.testing.assert_allclose(tf.cast(still, tf.float32), expected, atol=close)


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_normalisation_beside_a_gpu_is_the_same(random, kind):
    x = tf.cast(random.normal(3, 2, (4, 5, 6, 7)), kind)
    upstream = tf.cast(random.normal(size=x.shape), kind)
    found = []
    for tracing in (contextlib.nullcontext(), layers.for_gpu(by_xla=False)):
        layer = layers.FusedBatchNormalization(dtype="float32", autocast=False)
        layer.build(x.shape)
        layer.gamma.assign(tf.linspace(0.5, 2.0, 7))

        @functools.partial(tf.function, autograph=False)
        def run(x, layer=layer, tracing=tracing):
            with tracing, tf.GradientTape() as tape:
                tape.watch(x)
                y = layer(x, training=True)
                weights = [x, layer.gamma, layer.beta]
            return [y, *tape.gradient(y, weights, upstream)]

        answers = [tf.cast(value, tf.float32) for value in run(x)]
        found.append(answers + [tf.identity(weight) for weight in layer.weights])
    close = 1e-5 if kind == "float32" else 1e-2
    for one, other in zip(*found, strict=True):
        largest = np.abs(one).max()
        np.testing.assert_allclose(one, other, rtol=close, atol=close * largest)


@pytest.mark.parametrize(
    "layer, shape",
    [
        (layers.Convolution(8, 11, 4, "same", activation="relu"), (2, 220, 220, 3)),
        (layers.Convolution(8, 11, 4, "same"), (2, 63, 63, 3)),
        (layers.Convolution(8, 3, 2, "same"), (2, 16, 16, 2)),
        (layers.Convolution(8, 3, 2, "same", use_bias=False), (2, 15, 15, 2)),
        (layers.Convolution(8, 3, 1, "same", activation="relu"), (2, 6, 5, 2)),
        (layers.DepthwiseConvolution(3, 2, "same"), (2, 15, 15, 6)),
        (layers.DepthwiseConvolution(3, 2, "same", use_bias=False), (2, 8, 8, 6)),
        (layers.MaxPooling(3, 2), (2, 55, 55, 3)),
        (layers.MaxPooling(3, 2), (2, 14, 13, 3)),
        (layers.MaxPooling(2, 2), (2, 8, 7, 3)),
        (layers.LocalResponseNormalization(), (2, 4, 4, 96)),
    ],
)
@pytest.mark.parametrize("by_xla", [True, False])
def test_what_a_gpu_is_given_is_the_same(random, layer, shape, by_xla):
    """Outputs and all gradients of every layer that is spelled otherwise for a GPU."""

    def digits(shape):
        """Windows have several that are largest, and no sum is rounded about zero."""
        return np.round(3 * random.normal(size=shape)).astype(np.float32)

    x = tf.constant(digits(shape))
    upstream = tf.constant(digits(layer(x).shape))
    layer.set_weights([digits(weight.shape) for weight in layer.weights])

    @functools.partial(tf.function, autograph=False)
    def expected(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
        return [y, *tape.gradient(y, [x, *layer.trainable_variables], upstream)]

    @functools.partial(tf.function, jit_compile=by_xla, autograph=False)
    def found(x):
        with layers.for_gpu(by_xla):
            return expected.python_function(x)

    for here, there in zip(found(x), expected(x), strict=True):
        np.testing.assert_allclose(
            here, there, rtol=1e-5, atol=1e-5 * np.abs(there).max()
        )


def test_precision_is_the_networks_own_affair(random):
    """bfloat16 inside, float32 in and out; Keras's global policy is left alone."""
    before = keras.mixed_precision.global_policy().name
    model = build_stage(COMPACT, LSP, precision="mixed_bfloat16")
    assert keras.mixed_precision.global_policy().name == before
    assert {layer.compute_dtype for layer in layers_of(model, keras.layers.Conv2D)} == {
        "bfloat16"
    }
    crops = random.uniform(-1, 1, (2, 32, 32, 3)).astype(np.float32)
    assert model(crops).dtype == tf.float32
    assert {np.asarray(weight).dtype.name for weight in model.weights} == {"float32"}


@pytest.mark.parametrize(
    ("config", "weights", "said"),
    [
        (StageConfig("ResNet51", 32), None, "neither paper, compact"),
        (COMPACT, "weights.h5", "no weights to start compact from"),
        (StageConfig("MobileNetV2", 32), "missing.h5", "no file missing.h5"),
    ],
)
def test_what_cannot_be_built(config, weights, said):
    with pytest.raises(ValueError, match=said):
        build_stage(config, LSP, weights=weights)
    assert keras.mixed_precision.global_policy().name == "float32"


@pytest.mark.parametrize("window", [1, 3])
def test_near_the_peak_against_numpy(random, window):
    """A far second maximum pulls at the whole map's mean, and not at that of the
    window; in training it is the whole map's."""
    height, width = 8, 12
    logits = random.normal(0, 1, (5, 3, height * width)).astype(np.float32)
    layer = layers.Expectation(height, width, window)
    rows, columns = np.divmod(np.arange(height * width), width)
    x, y = (columns + 0.5) / width - 0.5, (rows + 0.5) / height - 0.5
    shares = np.exp(logits.astype(np.float64))
    whole = shares / shares.sum(-1, keepdims=True)
    top = logits.argmax(-1)[..., None]
    distance = (columns - columns[top]) ** 2 + (rows - rows[top]) ** 2
    near = shares * (distance <= window**2)
    near /= near.sum(-1, keepdims=True)
    for training, expected in ((False, near), (True, whole)):
        found = layer(logits, training=training)
        np.testing.assert_allclose(found[..., 0], (expected * x).sum(-1), atol=1e-5)
        np.testing.assert_allclose(found[..., 1], (expected * y).sum(-1), atol=1e-5)
    # Two places as good as each other, and far apart: finite all the same.
    logits[...] = -100.0
    logits[..., [0, -1]] = 100.0
    assert np.isfinite(layer(logits)).all()


def test_what_is_frozen_is_not_trained():
    model = build_stage(COMPACT, LSP)
    named = [layer.name for layer in model.layers if layer.weights]
    steps.freeze(model, named[1])
    trained = {id(weight) for weight in model.trainable_variables}
    for layer in model.layers:
        after = named.index(layer.name) > 1 if layer.weights else True
        assert any(id(x) in trained for x in layer.weights) == (
            after and bool(layer.weights)
        )
    with pytest.raises(ValueError, match="train.freeze=none: no layer of network"):
        steps.freeze(model, "none")
