"""`deeppose-evaluate` on a small data set whose scores are known by construction."""

import dataclasses
import json
import types

import cv2
import numpy as np
import pytest
import scipy.io
import toy_people
import toy_run
from toy_people import LSP, TEST, Oracle

from deeppose_tf import files, metrics, skeleton
from deeppose_tf.datasets import coco_results, lsp
from deeppose_tf.pipelines.data import records
from deeppose_tf.pipelines.data.records import People, read_people
from deeppose_tf.pipelines.evaluation import commands, evaluate, figures, scores

EVALUATE = toy_run.script(commands, "evaluate")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return toy_people.make_data(tmp_path_factory.mktemp("data"))


def rows(content):
    return {row["name"]: row["scores"] for row in content["rows"]}


def test_every_stage_is_scored_beside_the_baseline(data):
    splits, index = data
    oracle = Oracle(splits["test"])
    content = evaluate.evaluate(oracle, index, "test", verbose=0)
    assert [row["name"] for row in content["rows"]] == [
        scores.BASELINE,
        "stage 1",
        "stage 2",
    ]
    np.testing.assert_array_equal(oracle.boxes, splits["test"].boxes)
    found = rows(content)
    # Two of twelve lower arms are wrong; one person of six has no head to score.
    lower = found["stage 1"]["pcp_strict"]["lower_arm"]
    assert lower == {"fraction": pytest.approx(10 / 12), "correct": 10, "scored": 12}
    assert found["stage 1"]["pcp_strict"]["mean4"]["fraction"] == pytest.approx(
        (1 + 10 / 12 + 1 + 1) / 4
    )
    assert found["stage 1"]["pcp_strict"]["head"]["scored"] == 5
    wrist = found["stage 1"]["pdj"]["0.2"]["joints"]["left_wrist"]
    assert wrist == {"fraction": pytest.approx(4 / 6), "correct": 4, "scored": 6}
    mean = found["stage 1"]["pdj"]["0.2"]
    assert mean["fraction"] == pytest.approx((13 + 4 / 6) / 14)
    assert (mean["correct"], mean["scored"]) == (14 * 6 - 3, 14 * 6 - 1)
    assert found["stage 1"]["area"]["joints"]["left_wrist"] == pytest.approx(4 / 6)
    for name in ("pcp_strict", "pcp_loose", "pdj"):
        assert all(e["fraction"] == 1.0 for e in found["stage 2"][name].values())


@pytest.mark.parametrize("taught", ["person", "observer", None])
def test_a_model_whose_left_is_another_is_told(data, taught):
    """Its people seen from behind counted as wrong, without a word."""
    splits, index = data
    given = {"arguments": {"convention": "observer"}}
    index, oracle = dataclasses.replace(index, provenance=given), Oracle(splits["test"])
    known = {"data": {"provenance": {"arguments": {"convention": taught}}}}
    oracle.stages = (types.SimpleNamespace(training=known),)
    text = scores.table(evaluate.evaluate(oracle, index, "test", verbose=0))
    assert (scores.OTHER_SIDES in text) == (taught == "person")


def test_the_baseline_is_the_mean_pose_of_the_training_people_in_each_first_box(data):
    splits, index = data
    people, train = (read_people(index, s) for s in ("test", "train"))
    found = scores.mean_pose_baseline(people, train)

    def whole(annotations):  # by hand, with sizes as the images were made
        n = len(annotations)
        sizes = [[0, 0, 120 - 10 * i, 60 + 10 * i] for i in range(n)]
        unset = ~annotations.boxes.any(axis=1, keepdims=True)
        return np.where(unset, sizes, annotations.boxes)

    def parts(boxes):
        return (boxes[:, None, :2] + boxes[:, None, 2:]) / 2, (
            boxes[:, None, 2:] - boxes[:, None, :2]
        )

    center, size = parts(whole(splits["train"]))
    # In the order of the records: training people are shuffled when written.
    normalized = (splits["train"].keypoints - center) / size
    normalized[~splits["train"].labeled] = np.nan
    mean = np.nanmean(normalized, axis=0)
    center, size = parts(whole(splits["test"]))
    np.testing.assert_allclose(found, mean * size + center, atol=1e-3)


def test_numbers_say_what_they_are(data):
    splits, index = data
    content = evaluate.evaluate(Oracle(splits["test"]), index, "test", verbose=0)
    said = content["protocol"]
    assert said["people"] == said["of"] == TEST and said["unanswered"] == 0
    assert said["labels"].startswith("person-centric")
    assert (
        said["first_box"] == "the box of the record (3 people) or the whole image (3)"
    )
    assert said["baseline_from"] == "train"
    assert "within 0.5 of its true length" in said["meanings"]["pcp_strict"]
    diameter = (
        "from right shoulder to left hip, or left shoulder to right hip where one of "
        "them has no label"
    )
    assert said["meanings"]["diameter"] == diameter
    assert diameter in scores.table(content)
    lines = scores.table(content).splitlines()
    assert lines[0].startswith("6 people of the split test of toy. First box: the box")
    cells = [[c.strip() for c in line.split("|")[1:-1]] for line in lines[2:8]]
    header, _, baseline, first, second, counted = cells
    assert [baseline[0], first[0], second[0]] == [scores.BASELINE, "stage 1", "stage 2"]
    column = header.index("lower_arm")
    assert (first[column], second[column], counted[column]) == ("83.3", "100.0", "12")
    column = header.index("PDJ@0.2")
    assert (first[column], counted[column]) == ("97.6", "83")
    assert len({len(row) for row in cells}) == 1
    json.dumps(content, allow_nan=False)


def test_sheets_show_the_first_box_and_all_that_is_drawn():
    """People of films were a few dozen pixels wide."""
    image = np.zeros((100, 400, 3), np.uint8)
    image[40:60, 200:240] = 200
    keypoints = np.full((1, 14, 2), (220.0, 50.0), np.float32)
    people = People(
        ("film/1",),
        keypoints,
        np.ones((1, 14), bool),
        np.array([[200, 40, 240, 60]], np.float32),
        np.array([[100, 400]], np.int32),
        np.ones(1, int),
    )
    # The margin is 2 pixels, a twentieth of 40: 44 x 24 pixels, 5.9 times as large.
    cell, move = figures._cut(image, people, 0, [keypoints[0]])
    assert cell.shape == (round(24 * 260 / 44), 260, 3)
    np.testing.assert_allclose(move(np.array([198.0, 38.0])), 0)
    assert (cell[18:-18, 18:-18] > 190).all() and cell[0, 0, 0] < 10
    # A prediction that is far off is still there, and one that is nowhere is not.
    far = np.array([[20.0, 50.0], [np.nan, np.nan]])
    cell, move = figures._cut(image, people, 0, [far])
    assert 0 < move(far)[0, 0] < 260 and cell.shape[1] == 260
    np.testing.assert_allclose(move(np.array([20 - 11.0, 0]))[0], 0)
    # All stages of a person are seen in the same part, which the second fills less of.
    near, away = keypoints, keypoints + np.float32([0, 40])
    named = [("stage 1", away), ("stage 2", near)]
    sheet = figures.stage_sheet(named, figures.Truth(people, LSP, lambda _: image), [0])
    filled = [
        (sheet[28:-28, x : x + 260] < 250).all(axis=-1).sum() for x in (6, 6 + 266)
    ]
    assert filled[0] == pytest.approx(filled[1], rel=0.05)
    # A box beside the image cuts nothing off.
    beside = dataclasses.replace(people, boxes=people.boxes + 1000)
    cell, move = figures._cut(image, beside, 0, [keypoints[0] + 1000])
    assert cell.shape == (65, 260, 3)
    np.testing.assert_allclose(move(np.zeros(2)), 0)


def test_the_yardstick_of_pdj_is_that_of_the_skeleton():
    """A table of other joints spoke of shoulders and hips that they do not have."""
    one = skeleton.Skeleton("one", ("top", "left_toe"), (), (), ((0, 1),))
    none = skeleton.Skeleton("none", ("top", "left_toe"), (), (), ())
    assert metrics.yardstick(one) == "from top to left toe"
    assert metrics.yardstick(none).startswith("the longer side of the box")
    assert figures.axes(one)[0].endswith("/ torso diameter")
    assert figures.axes(none)[0].endswith("/ extent of the pose")


def respelled(one, pattern):
    """A skeleton whose joints are called otherwise, such as `wrist (left)`."""
    joints = list(one.joints)
    for joint in (i for pair in one.pairs for i in pair):
        side, _, part = joints[joint].partition("_")
        joints[joint] = pattern.format(side=side, part=part)
    return dataclasses.replace(one, joints=tuple(joints))


def test_how_joints_are_spelled_changes_no_number(data):
    """PDJ@0.1 was 0.218 or 0.679, of the same poses."""
    splits, index = data
    other = dataclasses.replace(index, skeleton=respelled(LSP, "{part} ({side})"))
    assert other.skeleton.joints[0] == "ankle (right)"
    oracle = Oracle(splits["test"])
    one, two = (
        evaluate.evaluate(oracle, of, "test", verbose=0) for of in (index, other)
    )
    assert one["protocol"]["meanings"] == two["protocol"]["meanings"]
    for name in ("pcp_strict", "pcp_loose"):
        assert rows(one)["stage 1"][name] == rows(two)["stage 1"][name]
    pdj = [list(rows(found)["stage 1"]["pdj"]["0.1"].values()) for found in (one, two)]
    assert pdj[0][:3] == pdj[1][:3]
    assert list(pdj[0][3].values()) == list(pdj[1][3].values())


def test_scores_are_not_called_what_they_are_not(data):
    """Without a torso there is no PDJ, and without arms and legs no mean of them."""
    splits, index = data
    bare = dataclasses.replace(LSP, limbs=LSP.limbs[:2], diagonals=())
    index = dataclasses.replace(index, skeleton=bare)
    text = scores.table(evaluate.evaluate(Oracle(splits["test"]), index, verbose=0))
    assert (
        "|  | torso | head | mean2 | PCK@0.05 | PCK@0.1 | PCK@0.2 | PCK@0.5 |" in text
    )
    assert "PCK: joints within a share of the extent of the true pose" in text
    for word in ("mean4", "mean10", "PDJ:", "torso diameter"):
        assert word not in text
    none = dataclasses.replace(index, skeleton=dataclasses.replace(bare, limbs=()))
    text = scores.table(evaluate.evaluate(Oracle(splits["test"]), none, verbose=0))
    assert (
        "|  | PCK@0.05 | PCK@0.1 | PCK@0.2 | PCK@0.5 |" in text and "mean0" not in text
    )


def test_a_person_without_an_answer_is_wrong_and_counted(data):
    splits, index = data
    oracle = Oracle(splits["test"], unanswered=3)
    content = evaluate.evaluate(oracle, index, "test", verbose=0)
    assert content["protocol"]["unanswered"] == 1
    found = rows(content)["stage 2"]["pcp_strict"]
    assert (found["torso"]["correct"], found["torso"]["scored"]) == (5, 6)


def test_a_limit_takes_the_first_people_and_the_baseline_of_all(data):
    splits, index = data
    content = evaluate.evaluate(
        Oracle(splits["test"]), index, "test", limit=2, verbose=0
    )
    assert content["protocol"]["people"] == 2 and content["protocol"]["of"] == TEST
    assert "The first 2 people" in scores.table(content)
    found = rows(content)["stage 1"]["pcp_strict"]["lower_arm"]
    assert (found["correct"], found["scored"]) == (3, 4)


@pytest.fixture(scope="module")
def written(data, tmp_path_factory):
    """A folder of all files, one person of which is without an answer, and scores."""
    splits, index = data
    output = tmp_path_factory.mktemp("written") / "out"
    oracle = Oracle(splits["test"], unanswered=3)
    return output, evaluate.evaluate(oracle, index, "test", str(output), verbose=0)


def test_all_files_are_written_and_its_own_results_score_the_same(
    data, written, tmp_path
):
    splits, index = data
    output, content = written
    names = sorted(path.name for path in output.iterdir())
    assert names == sorted(evaluate.WRITTEN)
    assert files.read_json(output / "metrics.json") == content
    assert (output / "table.md").read_text() == scores.table(content) + "\n"
    for name in evaluate.PICTURES:
        assert cv2.imread(str(output / name)).shape[0] > 200
    # COCO counts from the centre of the first pixel, the project from its corner.
    entry = json.loads((output / "coco_results.json").read_text())[0]
    assert entry["image_id"] == "toy/test0"
    np.testing.assert_allclose(
        np.reshape(entry["keypoints"], (14, 3))[:, :2],
        splits["test"].keypoints[0] - 0.5,
        atol=1e-3,
    )
    again = evaluate.evaluate_results(
        str(output / "coco_results.json"), index, "test", str(tmp_path / "again")
    )
    assert rows(again)["predictions"] == rows(content)["stage 2"]
    assert rows(again)[scores.BASELINE] == rows(content)[scores.BASELINE]
    assert again["protocol"]["unanswered"] == 1
    assert "is unknown" in again["protocol"]["first_box"]


def test_sheets_show_truth_in_green_and_predictions_in_red(written):
    sheet = cv2.imread(str(written[0] / "poses.png"))[..., ::-1].astype(int)
    # Where a stage is right, red covers green; stage 1 leaves green wrists of two, and
    # both leave one person.
    red = ((sheet[..., 0] > 180) & (sheet[..., 1] < 90)).sum()
    green = ((sheet[..., 1] > 150) & (sheet[..., 0] < 60)).sum()
    assert red > 1000 and 50 < green < red


def test_an_output_that_cannot_be_made_is_said_before_anyone_is_predicted(
    data, tmp_path
):
    splits, index = data
    (tmp_path / "file").write_text("")
    oracle = Oracle(splits["test"])
    with pytest.raises(OSError, match="file"):
        output = str(tmp_path / "file" / "out")
        evaluate.evaluate(oracle, index, "test", output, verbose=0)
    assert not oracle.boxes


def test_what_does_not_fit_is_refused(data):
    splits, index = data
    oracle = Oracle(splits["test"])
    with pytest.raises(
        ValueError, match="nobody in its validation; it has train, test"
    ):
        evaluate.evaluate(oracle, index, "validation", verbose=0)
    oracle.skeleton = skeleton.FLIC
    with pytest.raises(ValueError, match="the model predicts the joints left_shoulder"):
        evaluate.evaluate(oracle, index, "test", verbose=0)


def test_the_script_with_a_real_cascade(data, tmp_path, capsys, monkeypatch):
    """But for the pictures, which take longest, and are looked at above."""
    monkeypatch.setattr(evaluate, "_write_pictures", lambda *_: None)
    _, index = data
    toy_run.save_run(tmp_path / "run", LSP)
    output = tmp_path / "out"
    common = [f"--data={index.directory}", f"--output={output}"]
    model = f"--model={tmp_path / 'run'}"
    toy_run.call(EVALUATE, *common, model, "--limit=3")
    printed = capsys.readouterr().out
    assert "| mean-pose baseline |" in printed and "| stage 2 |" in printed
    content = json.loads((output / "metrics.json").read_text())
    assert content["protocol"]["people"] == 3
    assert content["settings"]["model"] == str(tmp_path / "run")
    with pytest.raises(ValueError, match="metrics.json and .* more: there already"):
        toy_run.call(EVALUATE, *common, model, "--limit=2")
    (tmp_path / "results.json").write_bytes((output / evaluate.RESULTS).read_bytes())
    results = [*common, f"--predictions={tmp_path / 'results.json'}"]
    toy_run.call(EVALUATE, *results, "--overwrite")
    toy_run.call(EVALUATE, *results)  # the same again replaces its own
    assert "| predictions |" in capsys.readouterr().out
    with pytest.raises(ValueError, match="either --model or --predictions"):
        toy_run.call(EVALUATE, *common)
    with pytest.raises(ValueError, match="either --model or --predictions"):
        toy_run.call(EVALUATE, *results, model)
    with pytest.raises(ValueError, match="--flip_test is for a --model"):
        toy_run.call(EVALUATE, *results, "--flip_test")
    toy_run.call(EVALUATE, *common, model, "--limit=3", "--flip_test", "--overwrite")
    flipped = json.loads((output / "metrics.json").read_text())
    assert flipped["settings"].pop("flip_test") is True
    assert flipped["settings"] == content["settings"]
    before = (tmp_path / "results.json").read_bytes()
    assert (output / evaluate.RESULTS).read_bytes() != before


def test_published_predictions_score_as_published(shared_data, tmp_path):
    arrays = scipy.io.loadmat(shared_data / "metrics_reference" / "lsp_predictions.mat")
    truth = arrays["gt_person_centric"].transpose(2, 1, 0)
    predicted = arrays["pred_yang2016_person_centric"].transpose(2, 1, 0)
    people = lsp.read_splits(str(shared_data / "lsp"))["test"]
    # The arrays are in pixels of a smaller release: one scale and shift per image.
    moved = []
    for small, pose, large in zip(truth, predicted, people.keypoints, strict=True):
        columns = [small.ravel(), np.tile([1, 0], 14), np.tile([0, 1], 14)]
        (scale, *shift), *_ = np.linalg.lstsq(
            np.stack(columns, axis=1), large.ravel(), rcond=None
        )
        moved.append(pose * scale + shift)
    results = tmp_path / "results.json"
    coco_results.write(results, people.ids, np.array(moved), np.ones((500, 14)))
    records.write({"test": people}, str(tmp_path / "records"))
    index = records.read_index(str(tmp_path / "records"))
    content = evaluate.evaluate_results(str(results), index, "test")
    found = rows(content)["predictions"]
    published = {"lower_leg": 72.9, "upper_leg": 78.8, "lower_arm": 62.3} | {
        "upper_arm": 73.1,
        "head": 83.4,
        "torso": 96.6,
        "mean10": 75.4,
    }
    for limb, percent in published.items():
        fraction = found["pcp_strict"][limb]["fraction"]
        assert 100 * fraction == pytest.approx(percent, abs=0.11), limb
    assert found["pcp_strict"]["mean10"]["scored"] == 5000
    assert 100 * found["pcp_loose"]["mean10"]["fraction"] == pytest.approx(80, abs=0.11)
    assert content["protocol"]["baseline_from"] == "test"  # there is no train here
