"""What a program imports: `deeppose_tf` alone, on tiny data and with tiny steps."""

import dataclasses
import pathlib
import re
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
import toy_run
import toy_training as toy

import deeppose_tf
from deeppose_tf import cascade as cascades
from deeppose_tf import config, draw
from deeppose_tf.datasets import generated
from deeppose_tf.pipelines.data import records
from deeppose_tf.pipelines.train import cascade as train_cascade
from deeppose_tf.pipelines.train import recipes
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
    assert set(deeppose_tf.list_presets()) <= {
        "full_body",
        "full_body_small",
        "upper_body",
    }
    with pytest.raises(ValueError, match="'lsp' is none of the presets "):
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
    scores = poses["scores"][0]
    expected = draw.draw_pose(pixels, poses["keypoints"][0], LSP, scores=scores)
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
    # A long name ran into the next column.
    (stage, _), name = cascade.stages, "movenet_lightning_16"
    stage = dataclasses.replace(
        stage, config=dataclasses.replace(stage.config, network=name)
    )
    lines = deeppose_tf.Cascade([stage]).summary().splitlines()
    assert lines[2].split()[1:3] == [name, "integral"]
    assert lines[1].index("head") == lines[2].index("integral")


def blocks(name):
    """The Python in a document."""
    text = (pathlib.Path(__file__).parents[1] / name).read_text()
    return re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """What the documents name: data, a run, a preset and photos, all of them toys; a
    recipe of six steps."""
    monkeypatch.chdir(tmp_path)
    counts = {"train": 8, "validation": 3, "test": 3}
    splits = {s: generated.read(str(tmp_path / "drawn"), s, counts) for s in counts}
    records.write(splits, str(tmp_path / "data"))
    toy_run.save_run(tmp_path / "runs" / "lsp", LSP, stages=1)
    shutil.copytree(tmp_path / "runs" / "lsp", tmp_path / "presets" / "full_body")
    for module in (config, cascades):
        monkeypatch.setattr(module, "PRESETS", tmp_path / "presets")
    pixels = cv2.imread(splits["test"].images[0])
    for name in ("photo.jpg", "photo.png"):
        cv2.imwrite(name, pixels)
    recipe = toy.recipe_for(1)
    stage = dataclasses.replace(recipe.stage, head="integral")
    recipe = dataclasses.replace(recipe, stage=stage)
    monkeypatch.setitem(recipes.RECIPES, "compact", (recipe,))
    monkeypatch.setattr(train_cascade, "make_examples", lambda *_: toy.plain)
    return tmp_path


def test_the_python_of_documents_runs(place, capsys):
    """In the order of reading: what one leaves, a later one takes. One stage is trained
    in place of three; the client has its own test."""
    pytest.importorskip("ai_edge_litert")
    names = {}
    for document in ("README.md", "docs/phones.md", "docs/python.md"):
        for block in blocks(document):
            code = block.replace("stages=3", "stages=1")
            exec(compile(code, document, "exec"), names)
            if "scores" in names:
                scores, made = names.pop("scores"), names["cascade"]
    printed = capsys.readouterr().out
    assert names["poses"]["keypoints"].shape == (1, 14, 2)
    assert names["picture"].shape == cv2.imread("photo.jpg").shape
    assert [row["name"] for row in scores["rows"]][1:] == ["stage 1"]
    assert "6 steps, 8 people" in deeppose_tf.Cascade.load("runs/mine").summary()
    assert (place / "exported" / "1" / "saved_model.pb").is_file()
    # What is printed for phones are the joints as the cascade finds them.
    poses = made.predict("photo.png")["keypoints"][0]
    for joint, (x, y) in zip(LSP.joints, poses, strict=True):
        (found,) = re.findall(rf"^{joint} (\S+) (\S+) \S+$", printed, re.M)
        np.testing.assert_allclose(np.float32(found), [x, y], atol=0.1)
    with pytest.raises(ValueError, match="has to end in .tflite"):
        made.export_tflite("pose.lite")
    with pytest.raises(ValueError, match="recipe 'deepest' is none of"):
        deeppose_tf.train("data", "runs/other", recipe="deepest")
