"""OKS average precision: ours beside pycocotools', by hand, and on COCO's own file."""

import dataclasses
import json
import pathlib
import sys

import numpy as np
import pytest

from deeppose_tf import metrics, skeleton
from deeppose_tf.datasets import coco
from deeppose_tf.pipelines.data import records
from deeppose_tf.pipelines.data.records import People
from deeppose_tf.pipelines.evaluation import evaluate, oks, scores

cocoeval = pytest.importorskip("pycocotools.cocoeval")
coco_api = pytest.importorskip("pycocotools.coco")
COCO = skeleton.COCO


def people(count=6, seed=0):
    chance = np.random.default_rng(seed)
    labeled = chance.random((count, 17)) < 0.7
    labeled[:, 0] = True
    return People(
        ids=tuple(f"coco/x/{i}" for i in range(count)),
        keypoints=chance.uniform(20, 120, (count, 17, 2)).astype(np.float32),
        labeled=labeled,
        boxes=np.tile(np.float32([10, 10, 130, 210]), (count, 1)),
        sizes=np.tile(np.int32([240, 160]), (count, 1)),
        weights=np.ones(count, int),
    )


def test_oks_of_random_poses_is_that_of_pycocotools():
    some = people(20)
    chance = np.random.default_rng(1)
    predicted = some.keypoints + chance.normal(0, 8, some.keypoints.shape)
    truth = oks.from_people(some, COCO)
    ours = metrics.oks(predicted, some.keypoints, some.labeled, COCO, truth.areas)
    labels = coco_api.COCO()
    labels.dataset = truth.dataset
    labels.createIndex()
    results = [
        {
            "image_id": i + 1,
            "category_id": 1,
            "keypoints": oks._flat(pose, np.ones(17)),
            "score": 1.0,
        }
        for i, pose in enumerate(predicted)
    ]
    counted = cocoeval.COCOeval(labels, labels.loadRes(results), "keypoints")
    counted._prepare()
    theirs = [counted.computeOks(i + 1, 1)[0, 0] for i in range(20)]
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_labels_themselves_are_perfect_and_who_is_missing_lowers_recall():
    """Of four people, one has no answer: recall is 3/4 at every threshold, and so is
    precision over 101 recalls: those up to 0.75, 76 of 101."""
    some = people(4)
    truth = oks.from_people(some, COCO)
    ones = np.ones(4)
    found = oks.scores(some.keypoints, ones, some, COCO, truth)
    assert {found[key] for key in ("AP", "AP50", "AP75", "AR", "mean")} == {1.0}
    missing = some.keypoints.copy()
    missing[2] = np.nan
    found = oks.scores(missing, ones, some, COCO, truth)
    assert found["AR"] == pytest.approx(0.75)
    assert found["AP"] == pytest.approx(76 / 101)
    nobody = np.full_like(missing, np.nan)
    found = oks.scores(nobody, ones, some, COCO, truth)
    assert (found["AP"], found["AR"], found["mean"]) == (0, 0, 0)


def test_people_in_the_same_place_are_two():
    """The mean pose in boxes of one size is the same for everyone."""
    some = people(2)
    same = np.repeat(some.keypoints[:1], 2, axis=0)
    twins = dataclasses.replace(some, keypoints=same, labeled=np.ones((2, 17), bool))
    truth = oks.from_people(twins, COCO)
    assert oks.scores(same, np.ones(2), twins, COCO, truth)["AR"] == 1.0


@pytest.fixture(scope="module")
def sample(shared_data, tmp_path_factory):
    """Two photos of COCO with their people, prepared, and the file they are from."""
    file = shared_data / "mmpose_samples" / "coco" / "test_coco.json"
    if not file.is_file():
        pytest.skip(f"{file} is not there")
    folder = tmp_path_factory.mktemp("coco")
    given = {"arguments": {"dataset": ["coco"], "convention": "person"}}
    records.write({"test": coco.read(str(file), "coco")}, str(folder), given)
    return records.read_index(str(folder)), str(file)


class Labels:
    """Answers the labels, in the order of the records."""

    skeleton = COCO

    def __init__(self, people):
        self.poses = iter(people.keypoints)

    def predict(self, image, boxes):
        pose = next(self.poses)
        return {
            "keypoints_by_stage": pose[None, None],
            "scores": np.ones((1, 17), np.float32),
            "valid": np.array([True]),
        }


@pytest.mark.parametrize("official", [False, True])
def test_labels_of_coco_score_one_beside_the_baseline(sample, official):
    index, file = sample
    labels = Labels(records.read_people(index, "test"))
    annotations = file if official else None
    content = evaluate.evaluate(labels, index, annotations=annotations, verbose=0)
    baseline, stage = (row["scores"]["oks"] for row in content["rows"])
    assert stage["AP"] == pytest.approx(1) and stage["AR"] == pytest.approx(1)
    assert stage["mean"] == pytest.approx(1) and baseline["AP"] < 0.9
    words = "from test_coco.json" if official else "0.53 of the person box"
    assert words in content["protocol"]["oks"] and words in scores.table(content)
    assert "| AP | AP50 | AP75 | AR |" in scores.table(content)


def test_annotations_that_do_not_fit_are_refused(sample, tmp_path):
    index, file = sample
    ids = records.read_people(index, "test").ids
    with pytest.raises(ValueError, match="no sigma for .*head_top"):
        oks.from_annotations(file, ids, skeleton.LSP)
    with pytest.raises(ValueError, match="its joints are nose, .*those of the data"):
        oks.from_annotations(file, ids, skeleton.FLIC)
    with pytest.raises(ValueError, match="no annotation of the record coco/x/no"):
        oks.from_annotations(file, ("coco/x/no",), COCO)
    (tmp_path / "a.json").write_text(json.dumps({"annotations": []}))
    with pytest.raises(ValueError, match="a.json: no COCO annotations"):
        oks.from_annotations(str(tmp_path / "a.json"), ids, COCO)
    for change in ({"area": None}, {"keypoints": [1, 2, 3]}, {"keypoints": None}):
        content = json.loads(pathlib.Path(file).read_text())
        last = content["annotations"][-1]
        (name,) = change
        last |= change
        if last[name] is None:
            del last[name]
        (tmp_path / "a.json").write_text(json.dumps(content))
        with pytest.raises(ValueError, match=f"annotation {last['id']}: OKS needs"):
            oks.from_annotations(str(tmp_path / "a.json"), ids, COCO)


def test_without_pycocotools_it_says_what_to_install(sample, monkeypatch):
    index, file = sample
    monkeypatch.setitem(sys.modules, "pycocotools.cocoeval", None)
    labels = Labels(records.read_people(index, "test"))
    content = evaluate.evaluate(labels, index, verbose=0)
    assert "oks" not in content["rows"][0]["scores"]
    assert r"pip install 'deeppose-tf[coco]'" in scores.table(content)
    with pytest.raises(ValueError, match="needs pycocotools"):
        evaluate.evaluate(labels, index, annotations=file, verbose=0)
