"""`deeppose-export`: what is written, what it answers, and what is never written."""

import functools
import json
import os
import pathlib
import shutil
import subprocess
import sys
import types

import numpy as np
import pytest
import tensorflow as tf
import toy_cascade
import toy_export
from tensorflow.core.protobuf import config_pb2

from deeppose_tf import cascade as cascades
from deeppose_tf import stage as stages
from deeppose_tf.config import StageConfig
from deeppose_tf.export.saved_model import checks
from deeppose_tf.export.saved_model import export as saved_model
from deeppose_tf.export.saved_model import signatures as rows
from deeppose_tf.pipelines.train import recipes
from deeppose_tf.skeleton import LSP

HEIGHT, WIDTH = 96, 72
IMAGES = np.stack([checks.picture(HEIGHT, WIDTH, seed) for seed in range(3)])
BOXES = np.float32([[0, 0, 0, 0], [10, 20, 60, 90], [-30, 40, 50, 130]])
# Pixels. The answers of these networks move by several times what a crop is moved by.
NEAR = 5e-3
NAMES = ["keypoints", "keypoints_by_stage", "scores", "valid"]


@pytest.fixture(scope="module")
def run(served):
    return served / "run"


@pytest.fixture(scope="module")
def exported(served):
    """The folder of version 1, written by the script."""
    return served / "pose" / "1"


@pytest.fixture(scope="module")
def cascade(run):
    return cascades.Cascade.load(str(run))


@pytest.fixture(scope="module")
def signatures(exported):
    return tf.saved_model.load(str(exported)).signatures


@pytest.fixture(scope="module")
def of_images(signatures):
    return lambda images, boxes: {
        name: value.numpy()
        for name, value in signatures["serving_default"](
            images=tf.constant(images), boxes=tf.constant(boxes, tf.float32)
        ).items()
    }


@pytest.fixture(scope="module")
def of_bytes(signatures):
    return lambda encoded, boxes: {
        name: value.numpy()
        for name, value in signatures["jpeg"](
            image_bytes=tf.constant(encoded, tf.string),
            boxes=tf.constant(boxes, tf.float32),
        ).items()
    }


def test_what_is_written(exported, cascade):
    names = {
        str(path.relative_to(exported))
        for path in exported.rglob("*")
        if path.is_file()
    }
    assert names >= {
        "saved_model.pb",
        "assets/deeppose.json",
        "assets.extra/tf_serving_warmup_requests",
        "batching_params.pbtxt",
    }
    assert [path.name for path in exported.parent.iterdir()] == ["1"]
    described = json.loads((exported / "assets/deeppose.json").read_text())
    assert described["joints"] == list(LSP.joints)
    sigmas = [stage.config.sigma for stage in cascade.stages]
    assert [stage["sigma"] for stage in described["stages"]] == sigmas
    assert described["max_pixels"] == 450_000
    assert described["versions"]["tensorflow"] == tf.__version__


def test_weights_are_stored_once(exported, cascade, signatures):
    """Nothing but the networks' own variables, in the files as in the graph."""
    reader = tf.train.load_checkpoint(str(exported / "variables" / "variables"))
    shapes = reader.get_variable_to_shape_map()
    stored = [tuple(s) for name, s in shapes.items() if "OBJECT_GRAPH" not in name]
    own = [v for stage in cascade.stages for v in stage.model.weights]
    own = [tuple(variable.shape) for variable in own]
    assert sorted(stored) == sorted(own)
    graph = signatures["jpeg"].graph
    large = [
        node
        for called in graph.as_graph_def().library.function
        for node in called.node_def
        if node.op == "Const" and node.ByteSize() > 10_000
    ]
    assert not large


def test_the_stages_are_iterations_of_one_loop(signatures):
    """Not of those over people: the one whose body chooses between two networks, each
    of which it reads where it is used."""
    graph = signatures["jpeg"].graph
    library = {f.signature.name: f for f in graph.as_graph_def().library.function}
    nodes = [node for called in library.values() for node in called.node_def]
    bodies = {n.attr["body"].func.name for n in nodes if n.op.endswith("While")}
    choices = [
        node
        for name in bodies
        for node in library[name].node_def
        if node.op.endswith("Case")
    ]
    (choice,) = choices
    branches = [library[f.name] for f in choice.attr["branches"].list.func]
    assert len(branches) == 2
    for branch in branches:
        kinds = [node.op for node in branch.node_def]
        # Two that halve, two of one block, and the head.
        assert kinds.count("Conv2D") == 5 and kinds.count("ReadVariableOp") >= 5
    assert not {"GatherV2", "ResourceGather"} & {
        node.op for branch in branches for node in branch.node_def
    }


def test_only_operations_that_every_server_has(signatures):
    for function in signatures.values():
        assert checks.operations(function) <= checks.OPERATIONS
    # So it reads on every TensorFlow that runs this test, the oldest among them.
    assert all(hasattr(tf.raw_ops, name) for name in checks.OPERATIONS)


NETWORKS = {
    "paper": StageConfig("paper", 96),
    "compact": StageConfig("compact", 32, "integral", (4, 8), (0, 1), subcells=2),
    "MobileNetV2": StageConfig("MobileNetV2", 32),
    "MobileNetV3Small": StageConfig("MobileNetV3Small", 32),
}


@pytest.mark.parametrize("config", NETWORKS.values(), ids=NETWORKS)
def test_operations_of_networks(config):
    network = stages.build_stage(config, LSP)
    function = tf.function(
        lambda crops: network(crops, training=False), autograph=False
    )
    crops = tf.TensorSpec([None, config.size, config.size, 3])
    assert checks.operations(function.get_concrete_function(crops)) <= checks.OPERATIONS


def test_networks_that_need_a_compiler():
    """Keras 3 makes grouped convolutions so, those of ConvNeXt for example."""
    compiled = tf.function(lambda x: x + 1.0, jit_compile=True, autograph=False)
    calls = tf.function(lambda x: compiled(x) * 2.0, autograph=False)
    with pytest.raises(ValueError, match="needs XLA"):
        checks.operations(calls.get_concrete_function(tf.TensorSpec([3])))


def test_images_as_the_cascade(of_images, cascade):
    found, expected = of_images(IMAGES, BOXES), cascade.predict_batch(IMAGES, BOXES)
    assert sorted(found) == NAMES
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=NEAR)
    assert found["keypoints_by_stage"].shape == (3, 3, len(LSP.joints), 2)


def test_files_of_different_sizes_as_the_cascade(of_bytes, cascade):
    pixels = [checks.picture(50, 90), checks.picture(120, 33, 1)]
    encoded = [toy_export.encode(one, "PNG") for one in pixels]
    found = of_bytes(encoded, BOXES[:2])
    for i, one in enumerate(pixels):
        expected = cascade.predict(one, BOXES[i : i + 1])
        for name, value in expected.items():
            np.testing.assert_allclose(found[name][i], value[0], atol=NEAR)


def test_nobody(of_images, of_bytes):
    nobody = np.zeros([0, 4])
    for found in (of_images(IMAGES[:0], nobody), of_bytes([], nobody)):
        assert found["keypoints"].shape == (0, len(LSP.joints), 2)
        assert found["keypoints_by_stage"].shape == (0, 3, len(LSP.joints), 2)
        assert found["scores"].shape == (0, len(LSP.joints))
        assert found["valid"].shape == (0,)


BAD = np.float32(
    [
        [np.nan, 0, 9, 9],
        [0, 0, np.inf, 9],
        [9, 0, 0, 9],
        [3, 3, 3, 9],
        [-1e30, -1e30, 1e30, 1e30],
        [5e6, 0, 6e6, 9],
        [-9, 0, 0, 9],
    ]
)


def test_bad_rows_harm_nobody_else(of_images, of_bytes):
    """Those beside them answer as without them, to the bit."""
    boxes = np.concatenate([BOXES[:1], BAD, BOXES[1:2]])
    images = np.stack([IMAGES[0], *[IMAGES[2]] * len(BAD), IMAGES[1]])
    encoded = [toy_export.encode(image, "PNG") for image in IMAGES[:2]]
    rubbish = [b"", b"\xff\xd8\xff", encoded[0][:300], *[encoded[0]] * 3]
    rubbish_boxes = np.concatenate([BOXES[:1], BOXES[[1] * 3], BAD[:3], BOXES[1:2]])
    for found, alone in (
        (of_images(images, boxes), of_images(IMAGES[:2], BOXES[:2])),
        (
            of_bytes([encoded[0], *rubbish, encoded[1]], rubbish_boxes),
            of_bytes(encoded, BOXES[:2]),
        ),
    ):
        assert found["valid"].tolist() == [
            True,
            *[False] * (len(found["valid"]) - 2),
            True,
        ]
        for name, value in found.items():
            np.testing.assert_array_equal(value[[0, -1]], alone[name])
            assert not value[1:-1].any()


def test_several_people_at_once():
    """Three and three and one of seven answer as one at a time but for the networks'
    rounding, at the sizes of the recipe: some settle early, one has no box, and one of
    the files is none."""
    configs = [recipes.recipe_for("compact", number).stage for number in (1, 2, 3)]
    cascade = toy_cascade.make(LSP, configs)
    images = np.stack([checks.picture(160, 120, seed) for seed in range(7)])
    low = np.random.default_rng(0).uniform(0, 40, (7, 2))
    boxes = np.concatenate([low, low + [70, 110]], axis=1).astype(np.float32)
    boxes[0], boxes[4, 1] = 0, np.nan
    files = [
        toy_export.encode(image[seed:], "PNG") for seed, image in enumerate(images)
    ]
    files[2] = files[2][:200]
    poses = cascade.predict_batch(images, boxes)["keypoints_by_stage"]
    poses = poses[np.arange(7) != 4]
    moved = np.linalg.norm(poses[:, 1] - poses[:, 0], axis=-1).max(axis=1)
    diameters = cascades.diameters(tf.constant(poses[:, 0]), LSP).numpy()
    shares = np.sort(moved / diameters)
    tolerance = float(shares[2] + shares[3]) / 2
    answers = []
    for limits in (rows.Limits(tolerance), rows.Limits(tolerance, people_at_once=3)):
        serve = rows.functions(cascade, limits)
        answers += [
            serve["serving_default"](images, boxes),
            serve["jpeg"](tf.constant(files), boxes),
        ]
    for one_by_one, found in zip(answers[:2], answers[2:], strict=True):
        for name, value in one_by_one.items():
            np.testing.assert_allclose(found[name], value, atol=NEAR)
        second, third = found["keypoints_by_stage"].numpy().swapaxes(0, 1)[1:]
        settled = (second == third).all(axis=(1, 2)) & found["valid"].numpy()
        assert 0 < settled.sum() < found["valid"].numpy().sum()
    assert np.flatnonzero(~answers[2]["valid"].numpy()).tolist() == [4]
    assert np.flatnonzero(~answers[3]["valid"].numpy()).tolist() == [2, 4]


@pytest.mark.parametrize("size", [(0, 0), (0, 5), (601, 750), (1, 450_001)])
def test_images_that_are_none_or_too_large(of_images, size):
    found = of_images(np.zeros([2, *size, 3], np.uint8), np.zeros([2, 4]))
    assert not any(value.any() for value in found.values())


@pytest.mark.parametrize("size", [(1, 1), (1, 10_000), (600, 750)])
def test_smallest_and_largest_images(of_images, cascade, size):
    image = checks.picture(*size)
    found, expected = of_images(image[None], np.zeros([1, 4])), cascade.predict(image)
    np.testing.assert_allclose(
        found["keypoints"], expected["keypoints"], rtol=1e-6, atol=NEAR
    )


def test_requests_that_make_no_sense(signatures):
    images, boxes = tf.constant(IMAGES), tf.constant(BOXES)
    serve = signatures["serving_default"]
    refusals = (tf.errors.InvalidArgumentError, TypeError, ValueError)
    for wrong in (
        {"images": images, "boxes": boxes[:2]},
        {"images": images[0], "boxes": boxes},
        {"images": images[..., :2], "boxes": boxes},
        {"images": tf.cast(images, tf.float32), "boxes": boxes},
        {"images": images, "boxes": boxes[:, :3]},
        {"images": images},
    ):
        with pytest.raises(refusals):
            serve(**wrong)


FLOATS = IMAGES.astype(np.float32)
NONSENSE = {
    "a box of three numbers": (IMAGES, BOXES[:, :3]),
    "nobody's box of three numbers": (IMAGES[:0], BOXES[:0, :3]),
    "nobody's images of one colour": (IMAGES[:0, ..., :1], BOXES[:0]),
    "fewer boxes than images": (IMAGES, BOXES[:2]),
    "one box for all": (IMAGES, BOXES[:1]),
    "one box of no batch": (IMAGES[:1], BOXES[0]),
    "one image of no batch": (IMAGES[0], BOXES),
    "one colour": (IMAGES[..., :1], BOXES),
    "four colours": (np.concatenate([IMAGES, IMAGES[..., :1]], axis=-1), BOXES),
    "images of floats": (FLOATS, BOXES),
    "boxes of integers": (IMAGES, BOXES.astype(np.int32)),
    "boxes of doubles": (IMAGES, BOXES.astype(np.float64)),
    "bytes for images": (np.array([b"?"] * 3, object), BOXES),
}
OF_BYTES = {
    "a row of files": (np.array([[b"?"] * 3], object), BOXES),
    "a file": (np.array(b"?", object), BOXES),
    "fewer files than boxes": (np.array([b"?"], object), BOXES),
    "pixels": (IMAGES, BOXES),
}


@pytest.fixture(scope="module")
def reached(exported):
    """Calls a signature as C++ does: no Python looks at shapes and types before."""
    session = tf.compat.v1.Session(graph=tf.Graph())
    with session.graph.as_default():
        loaded = tf.compat.v1.saved_model.load(session, ["serve"], str(exported))

    @functools.cache  # Making one takes seconds.
    def valid(name):
        signature = loaded.signature_def[name]
        options = config_pb2.CallableOptions(
            feed=[signature.inputs[key].name for key in sorted(signature.inputs)],
            fetch=[signature.outputs["valid"].name],
        )
        # A part of TensorFlow's inside: no public function leaves these checks out.
        return session._make_callable_from_options(options)

    def call(name, **inputs):
        return valid(name)(*(inputs[key] for key in sorted(inputs)))[0]

    return call


def test_what_reaches_a_server(reached):
    encoded = [toy_export.encode(image, "PNG") for image in IMAGES]
    assert reached("serving_default", images=IMAGES, boxes=BOXES).all()
    assert reached("jpeg", image_bytes=np.array(encoded, object), boxes=BOXES).all()


@pytest.mark.parametrize(("images", "boxes"), NONSENSE.values(), ids=NONSENSE)
def test_nonsense_that_reaches_a_server(reached, images, boxes):
    with pytest.raises(tf.errors.InvalidArgumentError):
        reached("serving_default", images=images, boxes=boxes)


@pytest.mark.parametrize(("image_bytes", "boxes"), OF_BYTES.values(), ids=OF_BYTES)
def test_nonsense_in_place_of_files(reached, image_bytes, boxes):
    with pytest.raises(tf.errors.InvalidArgumentError):
        reached("jpeg", image_bytes=image_bytes, boxes=boxes)


def test_the_same_photo_at_several_resolutions(of_images):
    """Four times the resolution is the same pose to one per cent of the person."""
    large = checks.picture(768, 576).astype(np.float32)
    noise = np.random.default_rng(0).normal(0, 30, large.shape)
    photo = np.clip(large + noise, 0, 255)
    box = np.float32([[120, 96, 480, 680]])
    poses = []
    for times in (1, 2, 4):
        shape = (768 // times, times, 576 // times, times, 3)
        shrunk = np.round(photo.reshape(shape).mean(axis=(1, 3))).astype(np.uint8)
        found = of_images(shrunk[None], box / times)
        poses.append(found["keypoints"][0] * times)
    person = 584  # pixels high
    for pose in poses[1:]:
        assert np.linalg.norm(pose - poses[0], axis=-1).max() < 0.01 * person


# DEEPPOSE_FUZZ=100000,7 asks for more inputs, and another seed.
COUNT, SEED = os.environ.get("DEEPPOSE_FUZZ", "10000,0").split(",")


def alone(model, count, seed, *files):
    """What `fuzz_saved_model` counts, in a process that may die."""
    program = pathlib.Path(__file__).with_name("fuzz_saved_model.py")
    done = subprocess.run(
        [sys.executable, program, model, str(count), str(seed), *files],
        capture_output=True,
        timeout=60 + int(count),
        check=False,
    )
    said = done.stderr.decode(errors="replace").splitlines()
    # libjpeg complains about every damaged file.
    said = [line for line in said if "JPEG" not in line]
    assert done.returncode == 0, "\n".join(said[-30:])
    return json.loads(done.stdout)


def test_without_the_project_whatever_is_asked(exported, of_images, tmp_path):
    """A process without any module of it answers as this one does, and then a hundred
    hostile inputs."""
    inputs, outputs = tmp_path / "inputs.npz", tmp_path / "outputs.npz"
    np.savez(inputs, images=IMAGES, boxes=BOXES)
    assert sum(alone(exported, 100, 0, inputs, outputs).values()) == 100
    for name, value in of_images(IMAGES, BOXES).items():
        np.testing.assert_allclose(np.load(outputs)[name], value, atol=1e-3)


@pytest.mark.slow
def test_thousands_of_hostile_inputs(exported):
    answered = alone(exported, COUNT, SEED)
    assert sum(answered.values()) >= int(COUNT)
    for kind in ("images", "bytes"):
        for answer in ("valid", "not valid"):
            # Few boxes of few undamaged files lie in the image.
            assert answered[f"{kind}, {answer}"] > int(COUNT) / 50


MEMORY = """
import resource, sys
import tensorflow as tf
serve = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
def peak(people):
    images = tf.zeros([people, 600, 750, 3], tf.uint8)
    valid = serve(images=images, boxes=tf.zeros([people, 4]))["valid"]
    assert valid.numpy().all()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(peak(1), peak(9), peak(64))
"""


@pytest.mark.slow
@pytest.mark.parametrize("at_once", [1, 8])
def test_memory_does_not_grow_with_the_batch(run, tmp_path, at_once):
    """Beyond the pixels of the request itself."""
    limits = rows.Limits(people_at_once=at_once)
    saved_model.write(cascades.Cascade.load(str(run)), limits, {}, tmp_path)
    program = [sys.executable, "-c", MEMORY, tmp_path]
    done = subprocess.run(program, check=True, stdout=subprocess.PIPE)
    _, few, many = map(float, done.stdout.split())
    request = 55 * 600 * 750 * 3 / 2**20
    assert many - few < request + 24 * 600 * 750 / 2**20


ONE_LARGE = """
import resource, sys
import tensorflow as tf
signatures = tf.saved_model.load(sys.argv[1]).signatures
def peak(side):
    images = tf.zeros([1, side, side, 3], tf.uint8)
    encoded = tf.io.encode_jpeg(images[0])[None]
    inputs = {"serving_default": {"images": images}, "jpeg": {"image_bytes": encoded}}
    found = signatures[sys.argv[2]](boxes=tf.zeros([1, 4]), **inputs[sys.argv[2]])
    assert found["valid"].numpy().all()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(peak(400), peak(4000))
"""


@pytest.mark.slow
@pytest.mark.parametrize("signature", ["serving_default", "jpeg"])
def test_memory_of_a_large_image(run, tmp_path, signature):
    """24 bytes a pixel, as --max_pixels says, beyond the image that is given."""
    saved_model.write(cascades.Cascade.load(str(run)), rows.Limits(), {}, tmp_path)
    program = [sys.executable, "-c", ONE_LARGE, tmp_path, signature]
    done = subprocess.run(program, check=True, stdout=subprocess.PIPE)
    small, large = map(int, done.stdout.split())
    pixels = 4000**2 - 400**2
    assert large - small < (3 + 24) * pixels


def test_warm_up_requests(exported, signatures):
    path = exported / saved_model.WARM_UP
    logs = list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
    assert len(logs) == 2
    requests = saved_model.warm_up_requests()
    assert logs == [
        saved_model.prediction_log(*request) for request in requests.items()
    ]
    for name, inputs in requests.items():
        tensors = {key: tf.constant(value) for key, value in inputs.items()}
        assert signatures[name](**tensors)["valid"].numpy().all()


def test_versions(cascade, exported, tmp_path, monkeypatch):
    output = tmp_path / "pose"
    shutil.copytree(exported, output / "7")
    (output / ".9.partial").mkdir()
    for other in ("notes", "²", "１２"):  # digits to str.isdigit, not to a server
        (output / other).mkdir()
    with pytest.raises(ValueError, match="pose/7 is there already"):
        saved_model.export(cascade, str(output), version=7)
    with pytest.raises(ValueError, match="version is 0; servers expect"):
        saved_model.export(cascade, str(output), version=0)
    monkeypatch.setattr(saved_model, "write", lambda *a: pathlib.Path(a[-1]).mkdir())
    monkeypatch.setattr(saved_model.checks, "check", lambda *a: 0.0)
    folder, _ = saved_model.export(cascade, str(output))
    assert folder == output / "8"


@pytest.fixture
def read_back(monkeypatch):
    """In place of what lies in a folder, the signatures that are appended."""
    given = []
    monkeypatch.setattr(
        checks.tf.saved_model,
        "load",
        lambda _: types.SimpleNamespace(signatures=given[0]),
    )
    return given


def test_a_model_that_differs_is_refused(signatures, cascade, read_back):
    """As if its variables were those of another run."""
    read_back.append(signatures)
    checks.check("folder", cascade, rows.Limits())
    kernel = cascade.stages[0].model.weights[0]
    before = kernel.numpy()
    kernel.assign(before[..., ::-1])
    try:
        with pytest.raises(ValueError, match="pixels from the Keras cascade's"):
            checks.check("folder", cascade, rows.Limits())
    finally:
        kernel.assign(before)


def test_networks_that_diverged_are_refused(read_back):
    cascade = toy_cascade.make(LSP, toy_cascade.CONFIGS[:1])
    head = cascade.stages[0].model.layers[-3].weights[0]
    head.assign(np.full(head.shape, np.nan, np.float32))
    functions = rows.functions(cascade, rows.Limits()).items()
    read_back.append({name: f.get_concrete_function() for name, f in functions})
    with pytest.raises(ValueError, match="they diverged"):
        checks.check("folder", cascade, rows.Limits())


def test_nothing_is_left_of_a_model_that_is_refused(cascade, tmp_path, monkeypatch):
    def refuse(folder, cascade, limits):
        assert pathlib.Path(folder).is_dir()
        raise ValueError("it differs")

    monkeypatch.setattr(saved_model, "write", lambda *a: pathlib.Path(a[-1]).mkdir())
    monkeypatch.setattr(saved_model.checks, "check", refuse)
    with pytest.raises(ValueError, match="it differs"):
        saved_model.export(cascade, str(tmp_path / "pose"))
    assert not (tmp_path / "pose").exists()


def test_a_disk_that_is_full(cascade, tmp_path, monkeypatch):
    """TensorFlow writes most of it, and has errors of its own."""

    def write(*arguments):
        pathlib.Path(arguments[-1]).mkdir()
        raise tf.errors.ResourceExhaustedError(None, None, "a/b; No space left")

    monkeypatch.setattr(saved_model, "write", write)
    with pytest.raises(OSError, match="a/b; No space left"):
        saved_model.export(cascade, str(tmp_path / "pose"))
    assert not (tmp_path / "pose").exists()


def test_two_exports_at_once(cascade, tmp_path, monkeypatch):
    """Both took the next free number, and each removed what the other wrote."""
    output = tmp_path / "pose"

    def write(*arguments):
        pathlib.Path(arguments[-1]).mkdir()
        with pytest.raises(ValueError, match="pose: another export is writing there"):
            saved_model.export(cascade, str(output))
        assert pathlib.Path(arguments[-1]).is_dir()

    monkeypatch.setattr(saved_model, "write", write)
    monkeypatch.setattr(saved_model.checks, "check", lambda *a: 0.0)
    assert saved_model.export(cascade, str(output))[0] == output / "1"


def test_flags_that_make_no_sense():
    for tolerance in (-1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match=f"tolerance is {tolerance}; expected"):
            rows.Limits(tolerance=tolerance)
    with pytest.raises(ValueError, match="max_pixels is 0"):
        rows.Limits(max_pixels=0)
    with pytest.raises(ValueError, match="people_at_once is 0"):
        rows.Limits(people_at_once=0)


def test_what_is_written_for_several_people_at_once(tmp_path):
    cascade = toy_cascade.make(LSP, toy_cascade.CONFIGS[:1])
    limits = rows.Limits(people_at_once=24)
    description = saved_model.describe(cascade, limits)
    assert description["people_at_once"] == 24
    saved_model.write(cascade, limits, description, tmp_path)
    checks.check(str(tmp_path), cascade, limits)
    batching = (tmp_path / "batching_params.pbtxt").read_text()
    assert batching.startswith("max_batch_size { value: 24 }")
    # As many as a server will see at once, and one.
    for inputs in saved_model.warm_up_requests(24).values():
        assert {len(value) for value in inputs.values()} == {25}
