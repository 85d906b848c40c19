"""What ships: that it loads, answers, is small, and is what its card says; and that the
command that makes it does, with tiny numbers."""

import dataclasses
import hashlib
import json
import pathlib

import numpy as np
import pytest
import toy_film
import toy_lsp
import toy_movenet
import toy_run

import deeppose_tf
from deeppose_tf import cascade as cascades
from deeppose_tf import config, detect, skeleton, stage
from deeppose_tf.datasets import coco_results
from deeppose_tf.pipelines.data import first_boxes, records
from deeppose_tf.pipelines.train import commands, presets, recipes

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
def test_it_finds_a_person_on_a_photo(name, monkeypatch):
    """The head of Eileen Collins, which no suit hides."""
    cascade = deeppose_tf.Cascade.from_preset(name)
    poses = cascade.predict(str(PHOTO))
    assert poses["valid"].all()
    at = dict(zip(cascade.skeleton.joints, poses["keypoints"][0], strict=True))
    known = SEEN.keys() & at.keys()
    assert len(known) == 2
    for joint in known:
        assert np.linalg.norm(at[joint] - SEEN[joint]) < 50, joint
    # By the name alone it is read from the same folders.
    folders = dict(zip(config.check_run(cascade.run), cascade.stages, strict=True))
    monkeypatch.setattr(cascades, "load_stage", folders.pop)
    again = deeppose_tf.Cascade.load(name)
    assert again.run == cascade.run and again.stages == cascade.stages and not folders


def test_a_folder_of_that_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config.find_run(NAMES[0]) == str(config.PRESETS / NAMES[0])
    (tmp_path / NAMES[0]).mkdir()
    assert config.find_run(NAMES[0]) == NAMES[0]


def test_names_of_presets_are_told():
    with pytest.raises(
        ValueError, match="none of the presets full_body, .*: did you mean full_body[?]"
    ):
        config.check_run("ful_body")
    with pytest.raises(ValueError, match="'lsp' is none of the presets full_body"):
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


# Changes of recipes for which toys are enough.
TINY = {
    "1.stage.size": 64,
    "2.stage.size": 32,
    "inputs.canvas": 64,
    "inputs.batch": 4,
    "2.inputs.views": 1,
}
LARGER = 96  # in place of sides that a first stage has once it is trained


def toy_sources(root):
    """Flags of `deeppose-presets`: small data, and networks of random numbers."""
    random = np.random.default_rng(0)
    joints = toy_lsp.make_lsp(root / "lsp", 20)
    toy_lsp.make_lsp(root / "lspet", 4)
    toy_lsp.save(root / "lspet", joints[..., :4].transpose(1, 0, 2))
    for path in (root / "lspet" / "images").iterdir():  # im0001 -> im00001
        path.rename(path.with_name(path.name.replace("im", "im0")))
    answers = [
        {"image_id": i, "keypoints": random.uniform(1, 32, (17, 3)).ravel().tolist()}
        for i in range(1, 5)
    ]
    (root / "answers.json").write_text(json.dumps(answers))
    (root / "flic").mkdir()
    toy_film.flic_data(root / "flic")
    (root / "movenet").mkdir()
    for name in ("lightning", "thunder"):
        network = config.StageConfig(f"movenet_{name}", 64, "integral")
        model = stage.build_stage(network, skeleton.COCO)
        path = root / "movenet" / f"movenet-{name}.json"
        toy_movenet.write_graph(path, toy_movenet.published(model, random), name)
    return [
        *(f"--{name}={root / name}" for name in ("lsp", "lspet", "flic")),
        f"--lspet_teacher={root / 'answers.json'}",
        f"--weights={root / 'movenet'}",
    ]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*not MoveNet's published numbers")
def test_each_is_trained_scored_and_packed(tmp_path, monkeypatch):
    """Minutes: twenty graphs are traced, however small the numbers."""
    for name, preset in presets.PRESETS.items():
        arguments = {**preset.arguments}
        if "validation" in arguments:
            arguments["validation"] = 1
        tiny = dataclasses.replace(
            preset,
            arguments=arguments,
            changes={**preset.changes, **TINY},
            size=preset.size and LARGER,
        )
        monkeypatch.setitem(presets.PRESETS, name, tiny)
    # Nobody has a face there: the torso is taken for it.
    monkeypatch.setattr(detect, "likeliest_face", lambda image, torso: (torso, 1))
    monkeypatch.setattr(first_boxes, "_is_own", lambda found, people: found[:, 0] > 0)
    work, output = tmp_path / "work", tmp_path / "presets"
    given = [*toy_sources(tmp_path), "--steps=2", f"--work={work}"]
    command = toy_run.script(commands, "presets")
    toy_run.call(command, *given, f"--output={output}")
    for name, preset in presets.PRESETS.items():
        check_packed(work, output / name, preset)
    # Again: everything is taken as it is.
    command = toy_run.script(commands, "presets")
    trained = work / "upper_body" / "stage_2" / "weights.safetensors"
    before = trained.stat().st_mtime_ns
    toy_run.call(command, *given, "--only=upper_body", f"--output={tmp_path / 'again'}")
    assert trained.stat().st_mtime_ns == before
    for path in (tmp_path / "again").rglob("*.*"):
        other = output / path.relative_to(tmp_path / "again")
        assert path.read_bytes() == other.read_bytes()


def check_packed(work, folder, preset):
    """What ships is what was trained, in float16, and what was scored."""
    packed = deeppose_tf.Cascade.load(str(folder))
    trained = deeppose_tf.Cascade.load(str(work / folder.name))
    sizes = [one.config.size for one in packed.stages]
    assert sizes == [preset.size or 64, 32]
    for one, other in zip(packed.stages, trained.stages, strict=True):
        numbers = zip(one.model.weights, other.model.weights, strict=True)
        for half, full in numbers:
            full = full.numpy().astype(np.float16).astype(np.float32)
            np.testing.assert_array_equal(half.numpy(), full)
        assert one.training["recipe"]["train"]["steps"] == 2
        told = one.training["data"]["provenance"]
        assert ("taught" in told) == ("lspet" in preset.datasets)
        assert ("first_boxes" in told) == ("flic" in preset.datasets)
    for path in folder.rglob("*.json"):
        assert str(work.parent) not in path.read_text()
    rows = json.loads((folder / presets.SCORES).read_text())["rows"]
    names = [row["name"] for row in rows]
    assert names == ["mean-pose baseline", "MoveNet as begun", "stage 1", "stage 2"]
    report = json.loads(
        (work / folder.name / "evaluation" / "metrics.json").read_text()
    )
    scored = {row["name"]: row["scores"]["pdj"] for row in report["rows"]}
    assert {row["name"]: row["pdj"] for row in rows if row["name"] in scored} == scored
    # Half numbers may choose another peak of a map of random ones, but not often.
    data = records.read_index(str(work / f"data_{'_'.join(preset.datasets)}"))
    people = records.read_people(data, "test")
    path = str(work / folder.name / "evaluation" / "coco_results.json")
    boxes = people.first_boxes
    expected = coco_results.read(path, people.ids, len(data.skeleton.joints), boxes)
    found = [
        packed.predict(records.read_image(data, "test", i), people.boxes[i : i + 1])
        for i in range(len(people.ids))
    ]
    found = np.concatenate([one["keypoints"] for one in found])
    assert np.isfinite(found).all()
    assert np.median(np.linalg.norm(found - expected, axis=-1)) < 0.1
