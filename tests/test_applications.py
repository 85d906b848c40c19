"""Networks of `keras.applications` by name."""

import numpy as np
import pytest
import tensorflow as tf

from deeppose_tf import networks, skeleton, stage
from deeppose_tf.config import StageConfig

keras = tf.keras
NAMES = [name for name in dir(keras.applications) if name[:1].isupper()]


def test_every_network_has_a_preprocessing():
    """MobileNetV3 was not found: its module holds nothing but the pre-processing."""
    assert {"MobileNetV2", "MobileNetV3Small", "ResNet50"} < set(NAMES)
    for name in NAMES:
        network, preprocess = networks._find_application(name)
        assert network is getattr(keras.applications, name)
        assert preprocess(np.full([1, 2, 2, 3], 200.0, np.float32)).shape == (
            1,
            2,
            2,
            3,
        )


@pytest.mark.parametrize("name", ["preprocess_input", "mobilenet", "Foo", "keras", ""])
def test_only_networks_are_networks(name):
    """Functions beside the networks of `keras.applications` were called as one."""
    with pytest.raises(ValueError, match="neither paper, compact"):
        networks.build(StageConfig(name, 32), 4, np.zeros([4, 2]), None)


def test_a_backbone_is_fed_what_it_was_trained_on():
    """Pixels 0 and 255 come as -1 and 127 / 128; MobileNetV2 was fed -1 and 1."""
    crops = tf.reshape(tf.constant([-1.0, 127 / 128]), [1, 1, 2, 1]) * tf.ones(3)
    fed = networks.BackbonePreprocessing("MobileNetV2")(crops)
    np.testing.assert_allclose(fed[0, 0, :, 0], [-1, 1], atol=1e-6)


def test_a_backbone_survives_its_directory(tmp_path):
    config = StageConfig("MobileNetV3Small", 32, "linear")
    model = stage.build_stage(config, skeleton.LSP)
    k = len(skeleton.LSP.joints)
    one = stage.Stage(
        config, skeleton.LSP, model, np.zeros([k, 2]), np.zeros([k, 2, 2]), {}
    )
    stage.save_stage(one, str(tmp_path / "stage_1"))
    again = stage.load_stage(str(tmp_path / "stage_1"))
    crops = np.random.default_rng(0).uniform(-1, 1, (2, 32, 32, 3)).astype(np.float32)
    np.testing.assert_allclose(again.model(crops), model(crops), atol=1e-6)
