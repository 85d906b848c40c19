"""`deeppose-reproduce` on a small data set whose scores are known by construction."""

import copy
import dataclasses
import json
import shutil
import types

import cv2
import numpy as np
import pytest
import toy_people
import toy_run
from toy_people import LSP, TEST, Oracle

from deeppose_tf import config, draw, files, skeleton
from deeppose_tf.datasets import CONVENTIONS
from deeppose_tf.pipelines.data import records
from deeppose_tf.pipelines.evaluation import evaluate, figures
from deeppose_tf.pipelines.paper import commands, experiments, published, reproduce

# As Buffy is: no legs, other order, and a joint that no model knows.
UPPER = skeleton.from_json(
    {
        "name": "upper",
        "joints": [
            "torso_bottom", "right_wrist", "left_wrist", "right_elbow", "left_elbow",
            "right_shoulder", "left_shoulder",
        ],
        "pairs": [
            ["left_wrist", "right_wrist"], ["left_elbow", "right_elbow"],
            ["left_shoulder", "right_shoulder"],
        ],
        "diagonals": [["left_shoulder", "torso_bottom"]],
    }
)  # fmt: skip


REPRODUCE = toy_run.script(commands, "reproduce")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return toy_people.make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A run, for what is asked of files and for the script."""
    folder = tmp_path_factory.mktemp("model")
    toy_run.save_run(folder, LSP)
    return str(folder)


def make(name, cascade, index, model, folder, **more):
    arguments = name, cascade, model, index, "test", str(folder)
    return reproduce.reproduce(*arguments, verbose=0, **more)


def values(content, name):
    (row,) = [row for row in content["rows"] if row["name"] == name]
    return {column: entry["value"] for column, entry in row["values"].items()}


def line(content, name):
    """The cells of a row of the Markdown table by column."""
    lines = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in reproduce.markdown(content).splitlines()
        if line.startswith("|")
    ]
    (row,) = [row for row in lines if row[0] == name]
    return dict(zip(lines[0], row, strict=True))


def test_limbs_stand_beside_the_paper_and_the_baseline(data, model, tmp_path):
    splits, index = data
    content = make("table1", Oracle(splits["test"]), index, model, tmp_path)
    # Two of twelve lower arms are wrong after the first stage.
    first = values(content, "stage 1")
    assert first["lower_arm"] == pytest.approx(10 / 12)
    assert first["mean4"] == pytest.approx((3 + 10 / 12) / 4)
    assert set(values(content, "stage 2").values()) == {1.0}
    assert set(values(content, "stage 2, loose").values()) == {1.0}
    assert line(content, "stage 1")["lower arm"] == "83.3"
    assert line(content, "counted")["lower arm"] == "12"
    assert line(content, "DeepPose, stage 3 (a)")["mean4"] == "61"
    assert line(content, "Wang et al. [26] (a)")["upper arm"] == "56.5"
    assert max(values(content, "mean-pose baseline").values()) < 1
    text = reproduce.markdown(content)
    assert "strict" in text and "(a) printed in the paper: legs" in text
    assert "Labels: person-centric" in text and "not known" not in text
    assert "First box: the box of the record (3 people)" in text
    assert (tmp_path / "table1.md").read_text() == text + "\n"
    assert json.loads((tmp_path / "table1.json").read_text()) == content
    json.dumps(content, allow_nan=False)
    assert cv2.imread(str(tmp_path / "table1.png")).shape[0] > 200


def test_rows_whose_heading_looks_wrong_say_so(data, model, tmp_path):
    """Table 2 prints arms where everyone else's legs are; its rows did not say it."""
    splits, index = data
    content = make("table2", Oracle(splits["test"]), index, model, tmp_path)
    limbs = "upper arm", "lower arm", "upper leg", "lower leg", "mean4"
    printed = line(content, "DeepPose, as printed (a)")
    exchanged = line(content, "DeepPose, arms and legs exchanged (b)")
    assert [printed[limb] for limb in limbs] == ["80", "75", "71", "50", "69"]
    assert [exchanged[limb] for limb in limbs] == ["71", "50", "80", "75", "69"]
    text = reproduce.markdown(content)
    assert "(a) printed in the paper, under its own heading, in which arms" in text
    assert "(b) not printed: " in text
    rows = published.EXPERIMENTS["table2"].rows
    assert all(row.method.endswith(("as printed", "exchanged")) for row in rows)


@pytest.mark.parametrize("name", ["fig3", "fig4", "fig5", "fig7"])
def test_joints_by_share_of_the_torso(data, model, tmp_path, name):
    splits, index = data
    content = make(name, Oracle(splits["test"]), index, model, tmp_path)
    assert values(content, "stage 1")["wrist@0.2"] == pytest.approx(10 / 12)
    assert values(content, "stage 1")["elbow@0.2"] == 1.0
    assert set(values(content, "stage 2").values()) == {1.0}
    assert line(content, "counted")["wrist@0.2"] == "12"
    assert ("knee@0.2" in content["columns"]) == (name == "fig4")
    quoted = [row for row in content["rows"] if row["source"] == published.QUOTED]
    assert bool(quoted) == (name == "fig3")
    assert "alone" not in reproduce.markdown(content)
    if quoted:
        cells = line(content, "DeepPose (a)")
        assert (cells["wrist@0.2"], cells["wrist@0.1"]) == ("82", "-")
    assert "from right shoulder to left hip" in reproduce.markdown(content)


def test_refinement_shows_who_was_helped_most_and_least(data, model, tmp_path):
    splits, index = data
    people = splits["test"]
    content = make("fig6", Oracle(people), index, model, tmp_path)
    shown = [row["name"] for row in content["rows"]]
    # A wrist of test1 and one of test2 are put right, further off in diameters where
    # those are shorter; nothing else is wrong. Five of six, evenly: not the fourth.
    ends = [LSP.joints.index(j) for j in ("right_shoulder", "left_hip")]
    diameters = np.linalg.norm(np.diff(people.keypoints[:, ends], axis=1)[:, 0], axis=1)
    helped = sorted((1, 2), key=lambda i: diameters[i])
    assert shown == [f"toy/test{i}" for i in (*helped, 0, 4, 5)]
    helped = values(content, "toy/test1")
    assert helped["stage 1"] == pytest.approx(1000 * 2**0.5 / diameters[1] / 14)
    assert helped["stage 2"] == 0
    assert "ranked by the share of the first stage's error" in reproduce.markdown(
        content
    )
    sheet = cv2.imread(str(tmp_path / "fig6.png"))[..., ::-1].astype(int)
    assert ((sheet[..., 0] > 180) & (sheet[..., 1] < 90)).sum() > 500  # red
    assert sheet.shape[1] == 4 * 266 + 6  # two people of two stages side by side


def test_a_sheet_of_poses(data, model, tmp_path):
    splits, index = data
    oracle = Oracle(splits["test"], unanswered=3)
    content = make("fig8", oracle, index, model, tmp_path)
    assert [row["name"] for row in content["rows"]] == list(splits["test"].ids)
    assert line(content, "toy/test3")["stage 2"] == "-"
    assert "no answer for 1 person, " in reproduce.markdown(content)
    assert cv2.imread(str(tmp_path / "fig8.png")).shape[0] > 200


def test_what_was_predicted_is_not_predicted_again(data, model, tmp_path):
    """A stopped command loses nothing, whatever it was stopped by."""
    splits, index = data
    stopped = Oracle(splits["test"])
    answer = stopped.predict

    def stop(image, boxes):
        if len(stopped.boxes) == 4:
            raise KeyboardInterrupt
        return answer(image, boxes)

    stopped.predict = stop
    with pytest.raises(KeyboardInterrupt):
        make("table1", stopped, index, model, tmp_path)
    oracle = Oracle(splits["test"])
    content = make("table1", oracle, index, model, tmp_path)
    np.testing.assert_array_equal(oracle.boxes, splits["test"].boxes[4:])
    whole = make("table1", Oracle(splits["test"]), index, model, tmp_path / "whole")
    assert content == whole
    # Other figures of the same people, and of the first ones, cost nothing.
    make("fig4", oracle, index, model, tmp_path)
    make("fig8", oracle, index, model, tmp_path, limit=2)
    assert len(oracle.boxes) == TEST - 4
    # What cannot be read is predicted again.
    (kept,) = tmp_path.glob("poses-*.npz")
    kept.write_bytes(kept.read_bytes()[:100])
    make("table1", oracle, index, model, tmp_path)
    assert len(oracle.boxes) == TEST - 4 + TEST


@pytest.mark.parametrize(
    "tampered",
    [
        {"poses": np.zeros((2, 14, 2), np.float32)},
        {"poses": np.zeros((2, 3, 14, 2), np.float32)},
        {"poses": np.zeros((3, 2, 14, 2), np.float32)},
        {"poses": np.float32(1.0)},
        {"poses": np.full((2, 2, 14, 2), "far")},
        {"scores": np.zeros(2, np.float32)},
    ],
)
def test_kept_poses_of_another_shape_are_predicted_again(data, tmp_path, tampered):
    """They were a stack trace."""
    splits, index = data
    oracle = Oracle(splits["test"])
    good = {
        "poses": np.zeros((2, 2, 14, 2), np.float32),
        "scores": np.zeros((2, 14), np.float32),
    }
    arguments = oracle, index, "test", TEST, tmp_path / "kept.npz", 0
    np.save(tmp_path / "one.npy", good["poses"])
    (tmp_path / "one.npy").rename(tmp_path / "kept.npz")
    assert evaluate._read(tmp_path / "kept.npz", 2, 14) == []
    for content, predicted in ((good | tampered, TEST), (good, TEST - 2)):
        np.savez(tmp_path / "kept.npz", **content)
        oracle.boxes.clear()
        found, _ = evaluate.kept_poses(*arguments)
        assert len(oracle.boxes) == predicted
        np.testing.assert_array_equal(found[-1, 1], splits["test"].keypoints[-1])


@pytest.mark.parametrize("at", [8, 10], ids=["encrypted", "otherwise compressed"])
def test_kept_poses_that_zip_cannot_open_are_predicted_again(tmp_path, at):
    """At 8 the flags of a part in the archive's list, at 10 its compression."""
    path = tmp_path / "kept.npz"
    content = np.zeros((2, 2, 14, 2), np.float32), np.zeros((2, 14), np.float32)
    np.savez(path, poses=content[0], scores=content[1])
    assert len(evaluate._read(path, 2, 14)) == 2
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + at] = 0x61
    path.write_bytes(data)
    assert evaluate._read(path, 2, 14) == []


def test_an_error_leaves_no_empty_folder(data, model, tmp_path):
    splits, index = data
    oracle = Oracle(splits["test"])
    folder = str(tmp_path / "out")
    for name in ("table1", "runtime"):
        with pytest.raises(ValueError, match="nobody in its validation; it has train"):
            reproduce.reproduce(name, oracle, model, index, "validation", folder)
    oracle.skeleton = skeleton.FLIC
    with pytest.raises(ValueError, match="does not predict"):
        make("table1", oracle, index, model, folder)
    assert not list(tmp_path.iterdir())


def test_predictions_are_those_of_one_model_and_one_split(data, model, tmp_path):
    _, index = data
    toy_run.save_run(tmp_path, LSP)  # other weights
    other = dataclasses.replace(index, checksums={"test": "other"})
    arguments = (model, index), (str(tmp_path), index), (model, other)
    found = {reproduce._fingerprint(*pair, "test") for pair in arguments}
    assert len(found) == 3
    assert reproduce._fingerprint(model, index, "test") in found


def test_a_preset_is_known_by_its_name(data):
    _, index = data
    names = map(str, (config.PRESETS / "full_body", config.PRESETS / "upper_body"))
    found = [reproduce._fingerprint(run, index, "test") for run in names]
    assert reproduce._fingerprint("full_body", index, "test") == found[0] != found[1]


def test_poses_are_saved_on_the_way(data, tmp_path, monkeypatch):
    splits, index = data
    monkeypatch.setattr(files, "SAVE_SECONDS", 0.0)
    written = []
    monkeypatch.setattr(
        evaluate, "_write", lambda path, found: written.append(len(found))
    )
    oracle = Oracle(splits["test"])
    arguments = oracle, index, "test", TEST, tmp_path / "kept.npz", 0
    found, weights = evaluate.kept_poses(*arguments)
    assert written == [1, 2, 3, 4, 5, 6, 6]
    np.testing.assert_array_equal(found[:, 1], splits["test"].keypoints)
    assert weights.shape == (TEST, 14)


@pytest.fixture(scope="module")
def upper(data, tmp_path_factory):
    """The same people with the joints of `UPPER`."""
    splits, _ = data
    hip = LSP.joints.index("right_hip")
    places = [hip, *(LSP.joints.index(joint) for joint in UPPER.joints[1:])]
    changed = {
        split: dataclasses.replace(
            people,
            skeleton=UPPER,
            keypoints=people.keypoints[:, places],
            labeled=people.labeled[:, places],
        )
        for split, people in splits.items()
    }
    folder = tmp_path_factory.mktemp("upper")
    provenance = {"arguments": {"dataset": ["buffy"], "convention": "observer"}}
    records.write(changed, str(folder / "records"), provenance)
    return records.read_index(str(folder / "records"))


def test_joints_of_other_data_are_matched_by_name(data, upper, model, tmp_path):
    splits, _ = data
    oracle = Oracle(splits["test"])
    content = make("fig7", oracle, upper, model, tmp_path)
    assert values(content, "stage 1")["wrist@0.2"] == pytest.approx(10 / 12)
    assert set(values(content, "stage 2").values()) == {1.0}
    text = reproduce.markdown(content)
    assert "from left shoulder to torso bottom" in text
    assert "Left and right do not mean the same" in text
    # The paper scored all of Buffy.
    part = "all of BUFFY; these people are the split test alone: episodes 2, 5 and 6"
    assert part in text
    train = reproduce._part("buffy", "train")
    assert train.endswith("the split train alone.")
    # What the model does not predict is not held against it.
    content = make("fig8", oracle, upper, model, tmp_path)
    assert values(content, "toy/test0")["stage 2"] == 0
    assert "labeled joints (right_wrist, left_wrist, " in reproduce.markdown(content)
    with pytest.raises(ValueError, match="the data has no upper arm .*torso_bottom"):
        make("table2", oracle, upper, model, tmp_path)
    oracle.skeleton = skeleton.FLIC
    truth = figures.Truth(None, UPPER)
    assert experiments.Measured(skeleton.FLIC, truth, {}, None).shared.sum() == 6


def test_a_model_of_none_of_the_joints(data, model, tmp_path):
    splits, index = data
    oracle = Oracle(splits["test"])
    oracle.skeleton = skeleton.from_json({"name": "cat", "joints": ["tail", "paw"]})
    for name in ("fig6", "fig8"):
        with pytest.raises(ValueError, match="none of the data's .*cat.* tail, paw; "):
            make(name, oracle, index, model, tmp_path)
    assert not oracle.boxes


def test_boxes_and_people_that_are_not_the_models_or_the_papers(data, model, tmp_path):
    """A model of FLIC from faces, on data with other boxes and of another name."""
    splits, index = data
    oracle = Oracle(splits["test"])
    faces = {"first_boxes": {"enlargements": {"face": [1.0, 2.0, 3.0]}, "splits": {}}}
    arguments = {"dataset": ["flic"], "convention": "person"}
    given = copy.deepcopy(faces) | {"arguments": arguments}
    training = {"data": {"provenance": given}}
    one = types.SimpleNamespace(training=training, config=oracle.stages[0].config)
    oracle.stages = (one,)

    def text(provenance):
        changed = dataclasses.replace(index, provenance=provenance)
        return reproduce.markdown(make("fig3", oracle, changed, model, tmp_path))

    boxes, people = "enlarged otherwise than those", "other people here"
    found = text(index.provenance)
    assert boxes in found and people in found
    found = text(given)
    assert boxes not in found and people not in found
    faces["first_boxes"]["enlargements"]["face"] = [1.0, 2.0, 4.0]
    assert boxes in text(faces)
    assert not experiments.other_boxes(Oracle(splits["test"]), {})


def test_joints_that_a_model_lacks(data, model, tmp_path):
    splits, index = data
    oracle = Oracle(splits["test"])
    answer = oracle.predict

    def upper_body(image, boxes):
        found = answer(image, boxes)
        ten = [LSP.joints.index(j) for j in oracle.skeleton.joints[:8]] + [0, 0]
        return found | {"keypoints_by_stage": found["keypoints_by_stage"][:, :, ten]}

    oracle.skeleton, oracle.predict = skeleton.FLIC, upper_body
    with pytest.raises(ValueError, match="not predict left_knee, .* upper leg .*flic"):
        make("table1", oracle, index, model, tmp_path)
    with pytest.raises(ValueError, match="not predict .*knee.* which knee needs"):
        make("fig4", oracle, index, model, tmp_path)
    assert not oracle.boxes  # it is said before anyone is predicted
    content = make("fig5", oracle, index, model, tmp_path)
    assert values(content, "stage 1")["wrist@0.2"] == pytest.approx(10 / 12)


def test_the_unit_of_errors_is_what_they_are_measured_in():
    cat = skeleton.from_json({"name": "cat", "joints": ["tail", "paw"]})
    assert experiments.distances(LSP) == "torso diameters"
    assert experiments.distances(cat) == "extents of the pose"


def test_moving_poses_between_skeletons():
    chance = np.random.default_rng(0)
    pose = chance.normal(size=(3, 2, 14, 2))
    moved = experiments.onto(pose, LSP, UPPER)
    assert moved.shape == (3, 2, 7, 2) and np.isnan(moved[:, :, 0]).all()
    np.testing.assert_array_equal(moved[:, :, 2], pose[:, :, toy_people.WRIST])
    np.testing.assert_array_equal(experiments.onto(pose, LSP, LSP), pose)


def test_the_script_with_a_real_cascade(data, model, tmp_path, capsys):
    _, index = data
    common = [f"--data={index.directory}", f"--model={model}", f"--output={tmp_path}"]
    toy_run.call(REPRODUCE, *common, "--experiment=fig5,runtime", "--limit=3")
    printed = capsys.readouterr().out
    assert "# Fig. 5: PDJ by stage" in printed and "| stage 2 |" in printed
    assert "network compact, stages 2, trained on data not stated" in printed
    assert "Whether left and right mean the same to both is not known." in printed
    content = json.loads((tmp_path / "runtime.json").read_text())
    assert content["unit"] == experiments.SECONDS
    names = [row["name"] for row in content["rows"]]
    assert names[:3] == ["decoding", "1 stage", "2 stages"]
    for name in names[:3]:
        found = values(content, name)
        assert all(0 <= found[c] < 60 for c in ("median", "mean", "processor")), found
    assert line(content, "DeepPose, approx., 12 core CPU (a)")["mean"] == "0.1"
    assert line(content, "counted")["mean"] == "3"
    with pytest.raises(ValueError, match="fig5.json and 2 more: there already"):
        toy_run.call(REPRODUCE, *common, "--experiment=fig5", "--limit=2")
    toy_run.call(REPRODUCE, *common, "--experiment=fig5", "--limit=3")
    with pytest.raises(ValueError, match="--experiment=fig2: expected .*table1"):
        toy_run.call(REPRODUCE, *common, "--experiment=fig2")


def test_a_command_stopped_while_it_writes_can_be_repeated(
    data, model, tmp_path, monkeypatch
):
    _, index = data
    given = [f"--data={index.directory}", f"--model={model}", f"--output={tmp_path}"]

    def stop(path, picture):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(draw, "write_image", stop)
        with pytest.raises(KeyboardInterrupt):
            toy_run.call(REPRODUCE, *given, "--experiment=fig9")
    with pytest.raises(ValueError, match="fig9.json: there already"):
        toy_run.call(REPRODUCE, *given, "--experiment=fig9", "--limit=2")
    toy_run.call(REPRODUCE, *given, "--experiment=fig9")
    assert len(list(tmp_path.glob("fig9.*"))) == 3


def test_what_is_missing_is_explained(data, model, tmp_path):
    _, index = data
    more = f"--output={tmp_path}", "--experiment=fig7"
    missing = f"--data={tmp_path / 'no'}", f"--model={model}"
    with pytest.raises(
        ValueError, match="no: no such f.*\n.*dataset=buffy, as .* at h"
    ):
        toy_run.call(REPRODUCE, *missing, *more)
    missing = f"--data={tmp_path}", f"--model={model}"
    with pytest.raises(ValueError, match="no dataset.json there.*deeppose-prepare"):
        toy_run.call(REPRODUCE, *missing, *more)
    missing = f"--data={index.directory}", f"--model={tmp_path / 'no'}"
    message = (
        "--model: .*no does not exist.*\n.*deeppose-train with --dataset=flic.* at http"
    )
    with pytest.raises(ValueError, match=message):
        toy_run.call(REPRODUCE, *missing, *more)


def test_what_is_damaged_is_named(data, tmp_path):
    _, index = data
    toy_run.save_run(tmp_path / "run", LSP)
    weights = tmp_path / "run" / "stage_2" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    given = f"--model={tmp_path / 'run'}", f"--output={tmp_path / 'out'}"
    with pytest.raises(ValueError, match="weights.safetensors is damaged"):
        toy_run.call(
            REPRODUCE, f"--data={index.directory}", *given, "--experiment=fig3"
        )
    shutil.copytree(index.directory, tmp_path / "data")
    next((tmp_path / "data").glob("test-*")).write_bytes(b"")
    with pytest.raises(ValueError, match="has 0 bytes, expected .*Delete .*/data and"):
        toy_run.call(
            REPRODUCE, f"--data={tmp_path / 'data'}", *given, "--experiment=fig3"
        )


def test_what_the_paper_does_not_say_is_not_said_for_it(data, model, tmp_path):
    """Sec. 4.1 names no people for its 0.1 s, and nor does the caption of Fig. 6."""
    splits, index = data
    content = make("fig6", Oracle(splits["test"]), index, model, tmp_path)
    assert content["paper"]["trained"] is content["paper"]["scored"] is None
    text = reproduce.markdown(content)
    assert "The paper: of which model and which people is not stated. It" in text
    unnamed = [
        name for name, one in published.EXPERIMENTS.items() if one.trained is None
    ]
    assert unnamed == ["fig6", "runtime"]


def test_what_is_published_adds_up():
    """Printed means are those of the printed limbs, to the digits that they have."""
    assert {*reproduce._MAKERS, "runtime"} == set(published.EXPERIMENTS)
    uneven = []
    for one in published.EXPERIMENTS.values():
        assert {one.trained, one.scored} <= {None, *CONVENTIONS}
        for row in one.rows:
            *limbs, mean = row.values.values()
            if len(limbs) == 4 and abs(np.mean(limbs) - mean) > 0.0051:
                uneven.append(row.method)
    assert uneven == ["Tian et al. [25]"]
    (tian,) = [r for r in published.EXPERIMENTS["table1"].rows if "Tian" in r.method]
    assert tian.source == published.PRINTED_UNEVEN
