"""What a program imports: `deeppose_tf` alone, on tiny data and with tiny steps."""

import subprocess
import sys

import numpy as np
import pytest
import toy_run
import toy_training as toy

import deeppose_tf
from deeppose_tf import draw
from deeppose_tf.skeleton import LSP


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    toy_run.save_run(folder, LSP)
    return folder


@pytest.fixture(scope="module")
def cascade(run):
    return deeppose_tf.Cascade.load(str(run))


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photos") / "photo.png"
    pixels = np.random.default_rng(2).integers(0, 256, (60, 45, 3), np.uint8)
    draw.write_image(path, pixels)
    return str(path), pixels


def test_the_import_is_quick_and_says_nothing():
    """Warnings are errors; neither TensorFlow nor NumPy is there until asked for."""
    program = (
        "import sys, deeppose_tf as d\n"
        "print({'tensorflow', 'numpy', 'cv2'} & set(sys.modules), *sorted(dir(d)))\n"
        "d.Skeleton, d.list_presets, d.read_image\n"
        "print('tensorflow' in sys.modules)"
    )
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True
    )
    names = "Cascade Skeleton __version__ evaluate list_presets read_image train"
    assert (ran.stdout, ran.stderr) == (f"set() {names}\nFalse\n", "")


def test_what_is_not_there_is_no_attribute():
    with pytest.raises(AttributeError, match="no attribute 'Cascades'"):
        _ = deeppose_tf.Cascades
    assert set(deeppose_tf.__all__) <= set(dir(deeppose_tf))


def test_presets_are_listed_and_others_refused():
    assert deeppose_tf.list_presets() == []
    with pytest.raises(ValueError, match="no preset 'lsp': this version ships none"):
        deeppose_tf.Cascade.from_preset("lsp")


def test_images_are_paths_arrays_or_lists(cascade, photo):
    path, pixels = photo
    np.testing.assert_array_equal(deeppose_tf.read_image(path), pixels)
    box = np.array([[3, 4, 40, 50]])
    expected = cascade.predict(pixels), cascade.predict(pixels, box)
    found = cascade.predict([path, pixels], [None, box])
    for some, other in zip(expected, found, strict=True):
        for name, value in some.items():
            np.testing.assert_array_equal(value, other[name])
    assert len(cascade.predict([path, path, pixels])) == 3
    with pytest.raises(ValueError, match="2 images and boxes for 1"):
        cascade.predict([path, pixels], [box])
    for wrong in (pixels[..., 0], np.dstack([pixels, pixels[..., :1]])):
        with pytest.raises(ValueError, match="expected uint8 .H, W, 3. RGB"):
            cascade.predict(wrong)


def test_poses_are_drawn_that_are_valid(cascade, photo):
    path, pixels = photo
    poses = cascade.predict(pixels, np.array([[3, 4, 40, 50], [5, 5, 5, 9]]))
    drawn = cascade.draw(path, poses)
    expected = draw.draw_pose(pixels, poses["keypoints"][0], LSP)
    np.testing.assert_array_equal(drawn, expected)
    assert (drawn != pixels).any()


def test_the_summary_says_what_the_stages_are(cascade, capsys):
    text = cascade.summary()
    assert capsys.readouterr().out == text + "\n"
    head, names, first, second = text.splitlines()
    assert head == "lsp: 14 joints" and names.startswith("stage")
    count = f"{cascade.stages[0].model.count_params():,}"
    assert first.split() == ["1", "compact", "integral", "32", "box", count, "unknown"]
    assert second.split()[4] == "2"


def test_training_and_evaluation_are_calls(tmp_path):
    """What deeppose-train and deeppose-evaluate do; a run goes on, or is finished."""
    toy.make_index(tmp_path)
    data, run = str(tmp_path / "data"), str(tmp_path / "run")
    arguments = {"recipe": "demo", "stages": 1, "steps": 2, "batch": 4, "verbose": 0}
    trained = deeppose_tf.train(data, run, **arguments)
    assert trained.count == 1
    again = deeppose_tf.Cascade.load(run)
    assert "2 steps, 16 people" in again.summary()
    found = deeppose_tf.evaluate(again, data, "validation", verbose=0)
    assert [row["name"] for row in found["rows"]][1:] == ["stage 1"]
    with pytest.raises(ValueError, match="recipe 'deepest' is none of"):
        deeppose_tf.train(data, run, recipe="deepest")


def test_exports_are_calls(cascade, photo, tmp_path):
    path, pixels = photo
    expected = cascade.predict(pixels)["keypoints"]
    from deeppose_tf.export.tflite import lite

    cascade.export_tflite(str(tmp_path / "pose.tflite"), kind="float32")
    found = lite.Lite.load(str(tmp_path / "pose.tflite")).predict(pixels)
    np.testing.assert_allclose(found["keypoints"], expected, atol=1e-2)
    with pytest.raises(ValueError, match="has to end in .tflite"):
        cascade.export_tflite(str(tmp_path / "pose.lite"))
    folder = cascade.export(str(tmp_path / "exported"))
    assert folder == str(tmp_path / "exported" / "1")
