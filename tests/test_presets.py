"""What ships: that it loads, answers, is small, and is what its card says."""

import hashlib
import json
import pathlib

import numpy as np
import pytest

import deeppose_tf
from deeppose_tf import config
from deeppose_tf.pipelines.train import presets, recipes

ROOT = pathlib.Path(__file__).parents[1]
PHOTO = ROOT / "docs" / "images" / "astronaut.jpg"
NAMES = deeppose_tf.list_presets()
MEGABYTE = 1e6


def size(name):
    return sum(
        path.stat().st_size
        for path in (config.PRESETS / name).rglob("*")
        if path.is_file()
    )


def test_they_are_small_together():
    assert "full_body" in NAMES
    assert sum(map(size, NAMES)) <= 40 * MEGABYTE
    assert sum(map(size, {"full_body", "upper_body"} & set(NAMES))) <= 32 * MEGABYTE
    if "full_body_small" in NAMES:
        assert size("full_body_small") <= 8 * MEGABYTE


@pytest.mark.parametrize("name", NAMES)
def test_a_card_tells_where_it_is_from(name):
    card = (ROOT / "docs" / "models" / f"{name}.md").read_text()
    for path in sorted((config.PRESETS / name).glob("stage_*/weights.safetensors")):
        assert hashlib.sha256(path.read_bytes()).hexdigest() in card
    scores = json.loads((config.PRESETS / name / presets.SCORES).read_text())
    for row in scores["rows"]:
        assert f"{100 * row['pdj']['0.1']['fraction']:.1f}" in card
    assert "Apache" in card and "research" in card


@pytest.mark.parametrize("name", NAMES)
def test_nothing_of_the_machine_that_trained_it_is_told(name):
    for path in (config.PRESETS / name).rglob("*.json"):
        assert "/tmp" not in path.read_text() and "/home" not in path.read_text()


# Pixels of the photo, read off it by eye.
SEEN = {
    "head_top": (230, 55),
    "neck": (220, 175),
    "left_eye": (245, 101),
    "right_eye": (203, 101),
}


@pytest.mark.parametrize("name", NAMES)
def test_it_finds_a_person_on_a_photo(name):
    """The head of Eileen Collins, which no suit hides."""
    poses = deeppose_tf.Cascade.from_preset(name).predict(str(PHOTO))
    cascade = deeppose_tf.Cascade.load(name)
    assert poses["valid"].all()
    at = dict(zip(cascade.skeleton.joints, poses["keypoints"][0], strict=True))
    known = SEEN.keys() & at.keys()
    assert len(known) == 2
    for joint in known:
        assert np.linalg.norm(at[joint] - SEEN[joint]) < 50, joint
    np.testing.assert_array_equal(
        poses["keypoints"], cascade.predict(str(PHOTO))["keypoints"]
    )


def test_a_folder_of_that_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config.find_run(NAMES[0]) == str(config.PRESETS / NAMES[0])
    (tmp_path / NAMES[0]).mkdir()
    assert config.find_run(NAMES[0]) == NAMES[0]


def test_names_of_presets_are_told():
    with pytest.raises(ValueError, match="none of the presets full_body"):
        config.check_run("ful_body")
    with pytest.raises(ValueError, match="no preset 'lsp'; there are: full_body"):
        deeppose_tf.Cascade.from_preset("lsp")


def test_presets_are_made_in_an_order_and_known():
    assert presets.order(["upper_body", "full_body_small"]) == [
        "full_body_small",
        "upper_body",
    ]
    for preset in presets.PRESETS.values():
        for number in range(1, preset.stages + 1):
            recipes.recipe_for(preset.recipe, number, preset.changes)
    with pytest.raises(ValueError, match="'body' is none of full_body_small"):
        presets.order(["body"])
