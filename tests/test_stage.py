"""A stage's directory: what it gives back, what it refuses, and a kill in between."""

import dataclasses
import json
import pickle

import numpy as np
import pytest
import safetensors.numpy
import tensorflow as tf

from deeppose_tf import networks, stage
from deeppose_tf.config import StageConfig
from deeppose_tf.skeleton import LSP, MPII, from_json

K = len(LSP.joints)
COMPACT = StageConfig("compact", 32, "integral", (4, 8), (0, 1), subcells=2)


@pytest.fixture
def random():
    return np.random.default_rng(3)


def make(random, config=COMPACT, skeleton=LSP):
    """A stage whose every weight and number is another one."""
    k = len(skeleton.joints)
    model = stage.build_stage(config, skeleton)
    for weight in model.weights:
        weight.assign(random.uniform(0.1, 1, weight.shape))
    mean = random.normal(size=(k, 2)).astype(np.float32)
    covariance = random.normal(size=(k, 2, 2)).astype(np.float32)
    training = {"seed": 3, "notes": ["a", None, 0.5]}
    return stage.Stage(config, skeleton, model, mean, covariance, training)


@pytest.fixture
def saved(random, tmp_path):
    one = make(random)
    stage.save_stage(one, str(tmp_path / "stage_1"))
    return one, tmp_path / "stage_1"


@pytest.mark.parametrize(
    "config",
    [
        COMPACT,
        StageConfig("compact", 32, "linear", (4,), (1,), dropout=0.5, square=True),
        StageConfig("MobileNetV2", 32, "linear", margin=0.2),
    ],
    ids=lambda config: f"{config.network}-{config.head}",
)
def test_there_and_back(random, tmp_path, config):
    one = make(random, config)
    stage.save_stage(one, str(tmp_path / "some" / "stage_2"))
    again = stage.load_stage(str(tmp_path / "some" / "stage_2"))
    assert again.config == one.config and again.skeleton == one.skeleton
    assert again.training == one.training
    np.testing.assert_array_equal(again.mean, one.mean)
    np.testing.assert_array_equal(again.covariance, one.covariance)
    for a, b in zip(again.model.get_weights(), one.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    crops = random.uniform(-1, 1, (2, 32, 32, 3)).astype(np.float32)
    np.testing.assert_array_equal(
        again.model(crops, training=False), one.model(crops, training=False)
    )


def test_what_was_trained_in_bfloat16_is_loaded_in_float32(random, tmp_path):
    model = stage.build_stage(COMPACT, LSP, precision="mixed_bfloat16")
    one = dataclasses.replace(make(random), model=model)
    stage.save_stage(one, str(tmp_path / "stage_1"))
    again = stage.load_stage(str(tmp_path / "stage_1")).model
    for a, b in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    kinds = {getattr(layer, "compute_dtype", "float32") for layer in again.layers}
    assert kinds == {"float32"}


def test_the_weights_are_safetensors_by_names_of_every_keras(random, tmp_path):
    """Depthwise kernels have one name in Keras 2 and another in Keras 3: a MobileNet
    trained on either was refused by the other as another network."""
    one = make(random, StageConfig("MobileNetV2", 32))
    stage.save_stage(one, str(tmp_path / "stage_1"))
    files = {path.name for path in (tmp_path / "stage_1").iterdir()}
    assert files == {"stage.json", "weights.safetensors"}
    arrays = safetensors.numpy.load_file(tmp_path / "stage_1" / "weights.safetensors")
    assert len(arrays) == len(one.model.weights)
    names = {name.split(".")[1] for name in arrays}
    assert names == set("kernel bias gamma beta moving_mean moving_variance".split())


def test_nothing_is_unpickled(saved):
    """A pickle in the place of the weights is refused unopened."""

    class Trap:
        def __reduce__(self):
            return pytest.fail, ("unpickled",)

    _, folder = saved
    (folder / "weights.safetensors").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ValueError, match="weights.safetensors is damaged"):
        stage.load_stage(str(folder))


def test_damaged_weights(saved):
    _, folder = saved
    file = folder / "weights.safetensors"
    content = file.read_bytes()
    for damaged in (b"", content[:4], content[:100], content[:-1], b"\xff" * 64):
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match="weights.safetensors is damaged"):
            stage.load_stage(str(folder))
    file.unlink()
    with pytest.raises(ValueError, match="weights.safetensors is missing"):
        stage.load_stage(str(folder))


def test_foreign_weights(saved, random, tmp_path):
    _, folder = saved
    file = folder / "weights.safetensors"
    without_digest(folder)
    arrays = safetensors.numpy.load_file(file)
    name = "000.kernel"
    wide = arrays | {name: np.zeros([3, 3, 3, 5], np.float32)}
    file.write_bytes(safetensors.numpy.save(wide))
    with pytest.raises(ValueError, match=r"000.kernel is \(3, 3, 3, 5\), not \(3, 3"):
        stage.load_stage(str(folder))
    few = {key: value for key, value in arrays.items() if key != name}
    for others in (few, arrays | {"more": np.zeros(1)}, {}):
        file.write_bytes(safetensors.numpy.save(others))
        with pytest.raises(ValueError, match="holds the weights of another network"):
            stage.load_stage(str(folder))
    other = make(random, skeleton=MPII)
    stage.save_stage(other, str(tmp_path / "other"))
    file.write_bytes((tmp_path / "other" / "weights.safetensors").read_bytes())
    with pytest.raises(ValueError, match=r"kernel is \(1, 1, 8, 64\), not"):
        stage.load_stage(str(folder))


def without_digest(folder, **changes):
    """A stage as earlier versions wrote it, with other values."""
    path = folder / "stage.json"
    value = json.loads(path.read_text())
    del value["digest"], value["sha256"]
    path.write_text(json.dumps(value | changes))


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "{}", '{"config": 3}'])
def test_a_damaged_description(saved, content):
    _, folder = saved
    (folder / "stage.json").write_text(content)
    with pytest.raises(ValueError, match="stage.json is damaged"):
        stage.load_stage(str(folder))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"size": 8}, "size is 8; expected a whole number from 32 to 2048"),
        ({"size": "48"}, "size is 48"),
        ({"size": 48.0}, "size is 48.0"),
        ({"head": "hydra"}, "hydra"),
        ({"sigma": 0}, "sigma is 0"),
        ({"sigma": float("inf")}, "sigma is inf; expected a number from 0.001"),
        ({"margin": float("nan")}, "margin is nan"),
        ({"dropout": 1}, "dropout is 1"),
        ({"blocks": [10000, 1]}, "blocks is .*; expected a whole number from 0 to 64"),
        ({"widths": [2**14] * 2}, "more than 500,000,000 weights"),
        ({"widths": 7}, "not iterable"),
        ({"network": "paper", "size": 2048}, "more than 500,000,000 weights"),
        ({"network": 7}, "network 7"),
        ({"network": "_Paper"}, "neither paper, compact"),
        ({"square": "no"}, "square 'no'"),
        ({"step_size": 1.5}, "step_size is 1.5"),
        ({"widths": [4]}, "differ"),
        ({"depth": 50}, "depth"),
        ({"network": "Compact"}, "neither paper, compact"),
    ],
)
def test_a_description_of_what_does_not_exist(saved, changed, said):
    _, folder = saved
    config = json.loads((folder / "stage.json").read_text())["config"]
    without_digest(folder, config=config | changed)
    with pytest.raises(ValueError, match=f"stage.json is damaged: .*{said}"):
        stage.load_stage(str(folder))


@pytest.mark.parametrize(
    "changed",
    [
        {"displacement": {"mean": [[0, 0]], "covariance": []}},
        {"displacement": {"mean": [[10**400, 0]], "covariance": []}},
        {"training": 7},
        {"skeleton": {"joints": ["a", "a"]}},
        {"config": [[[]]]},
    ],
)
def test_values_of_another_form(saved, changed):
    without_digest(saved[1], **changed)
    with pytest.raises(ValueError, match="stage.json is damaged: "):
        stage.load_stage(str(saved[1]))


def test_statistics_that_are_not_finite(saved):
    one, folder = saved
    mean = np.full(one.mean.shape, np.inf).tolist()
    covariance = one.covariance.tolist()
    without_digest(folder, displacement={"mean": mean, "covariance": covariance})
    with pytest.raises(ValueError, match="expected finite numbers"):
        stage.load_stage(str(folder))


def test_weights_that_are_a_device(saved):
    path = saved[1] / "weights.safetensors"
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(ValueError, match="weights.safetensors is no file"):
        stage.load_stage(str(saved[1]))
    path.unlink()
    with open(path, "wb") as file:
        file.truncate(10**12)  # takes no place on the disk
    with pytest.raises(ValueError, match="weights.safetensors is 10{12} bytes, more"):
        stage.load_stage(str(saved[1]))


def test_a_stage_of_format_1_is_loaded(saved):
    """Its configuration has other names for two fields."""
    one, folder = saved
    value = json.loads((folder / "stage.json").read_text())
    config = value["config"]
    assert value["format"] == 2 and "correction" not in config
    config["correction"], config["farthest"] = 0.5, 0.75
    del config["step_size"], config["outlier_threshold"]
    without_digest(folder, format=1, config=config)
    expected = dataclasses.replace(one.config, step_size=0.5, outlier_threshold=0.75)
    assert stage.load_stage(str(folder)).config == expected


def test_a_stage_of_another_format_is_refused(saved):
    _, folder = saved
    without_digest(folder, format=3)
    with pytest.raises(ValueError, match="stage.json has format 3, .* reads 1 and 2:"):
        stage.load_stage(str(folder))


def test_no_stage_there(tmp_path):
    with pytest.raises(ValueError, match="nowhere is no folder of a stage"):
        stage.load_stage(str(tmp_path / "nowhere"))


class Killed(BaseException):
    pass


@pytest.mark.parametrize("moment", range(4))
def test_a_kill_while_a_stage_is_replaced(saved, random, monkeypatch, moment):
    """Before either rename, between them, and before what was replaced is removed: the
    old stage or the new one is there whole, and can be replaced again."""
    old, folder = saved
    new = make(random)
    with monkeypatch.context() as patch:
        stop_at(patch, folder, moment)
        with pytest.raises(Killed):
            stage.save_stage(new, str(folder))
    found = stage.load_stage(str(folder))
    expected = new if moment == 3 else old
    np.testing.assert_array_equal(found.mean, expected.mean)
    for a, b in zip(
        found.model.get_weights(), expected.model.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    stage.save_stage(new, str(folder))
    np.testing.assert_array_equal(stage.load_stage(str(folder)).mean, new.mean)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def stop_at(patch, folder, moment):
    """Raises at the second file, at the first or second rename, or at the end."""
    write, rename = stage.files.write_bytes, type(folder).rename
    remove = stage.shutil.rmtree

    def write_bytes(path, content):
        if moment == 0 and path.name == "stage.json":
            raise Killed
        write(path, content)

    def rename_it(path, target):
        first = path.name == folder.name
        if moment == (1 if first else 2):
            raise Killed
        return rename(path, target)

    def rmtree(path, **options):
        if moment == 3 and path.name.endswith(".replaced") and path.exists():
            raise Killed
        remove(path, **options)

    patch.setattr(stage.files, "write_bytes", write_bytes)
    patch.setattr(type(folder), "rename", rename_it)
    patch.setattr(stage.shutil, "rmtree", rmtree)


def test_weights_are_copied(random):
    one, other = make(random).model, make(random).model
    stage.copy_weights(one, other)
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_warm_start_goes_as_far_as_layers_are_alike(random):
    begun = make(random)
    one = begun.model
    wider = dataclasses.replace(COMPACT, widths=(4, 16))
    other = stage.build_stage(wider, LSP)
    before = other.get_weights()
    # The first convolution and its normalisation: 1 + 4 weights.
    assert stage.warm_start(other, LSP, begun) == 5
    names = [weight.shape for weight in other.weights]
    assert len(names) == len(before)
    convolution, normalisation = one.layers[1], one.layers[2]
    np.testing.assert_array_equal(
        other.layers[1].get_weights()[0], convolution.get_weights()[0]
    )
    for a, b in zip(
        other.layers[2].get_weights(), normalisation.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    same = stage.build_stage(COMPACT, LSP)
    assert stage.warm_start(same, LSP, begun) == len(one.weights)
    crops = tf.constant(random.uniform(-1, 1, (1, 32, 32, 3)), tf.float32)
    np.testing.assert_array_equal(
        same(crops, training=False), one(crops, training=False)
    )


OWN = from_json(
    {
        "name": "own",
        "joints": ["RWrist", "nose", "tail", "l_foot", "ankle (left)", "ball"],
        "limbs": [{"name": "a", "start": ["tail"], "end": ["ankle (left)"]}],
    }
)
REVERSED = from_json({"name": "reversed", "joints": list(LSP.joints[::-1])})
ORIGINS = (
    (OWN, "RWrist", ["right_wrist"]),
    (OWN, "nose", ["neck", "head_top"]),
    (OWN, "tail", ["left_ankle"]),
    (OWN, "l_foot", ["left_ankle"]),
    (OWN, "ankle (left)", ["left_ankle"]),
    (OWN, "ball", LSP.joints),
    *((REVERSED, joint, [joint]) for joint in ("right_ankle", "head_top")),
)


@pytest.mark.parametrize("head", ["integral", "linear"])
@pytest.mark.parametrize(("skeleton", "joint", "others"), ORIGINS)
def test_joints_begin_as_those_of_their_names(random, head, skeleton, joint, others):
    """In another order, spelling or number; one that LSP does not know as those it is
    near or joined to. What the last layer answers is linear in its columns."""
    config = dataclasses.replace(COMPACT, head=head)
    begun = make(random, config)
    model = stage.build_stage(config, skeleton)
    assert stage.warm_start(model, skeleton, begun) == len(model.weights)
    crops = tf.constant(random.uniform(-1, 1, (1, 32, 32, 3)), tf.float32)
    own, theirs = (
        x(crops) if head == "linear" else networks.with_maps(x)(crops)[1]
        for x in (model, begun.model)
    )  # [1, K, 2 or places]
    wanted = np.mean([theirs[0, LSP.joints.index(other)] for other in others], axis=0)
    found = own[0, skeleton.joints.index(joint)]
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_half_the_numbers_for_half_the_bytes(saved, tmp_path):
    one, folder = saved
    stage.save_stage(one, str(tmp_path / "half"), "float16")
    sizes = [
        (path / "weights.safetensors").stat().st_size
        for path in (folder, tmp_path / "half")
    ]
    assert sizes[1] < 0.6 * sizes[0]
    again = stage.load_stage(str(tmp_path / "half"))
    for weight, half in zip(one.model.weights, again.model.weights, strict=True):
        assert half.dtype == weight.dtype
        expected = np.asarray(weight).astype(np.float16)
        np.testing.assert_array_equal(np.asarray(half), expected)


def test_one_flipped_bit_is_found(saved):
    path = saved[1] / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="weights.safetensors is damaged: its digest"):
        stage.load_stage(str(saved[1]))


def test_stages_without_a_digest_load(saved):
    without_digest(saved[1])
    stage.load_stage(str(saved[1]))
