"""deeppose-compare: evaluations of the same people side by side."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import toy_run
from toy_people import Oracle, make_data

from deeppose_tf import files
from deeppose_tf.pipelines.data import records
from deeppose_tf.pipelines.data.records import fingerprint, read_people
from deeppose_tf.pipelines.evaluation import commands, compare, evaluate, scores

COMPARE = toy_run.script(commands, "compare")


def scored(model, index, output):
    """An evaluation but for its pictures, which take longest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, "_write_pictures", lambda *_: None)
        evaluate.evaluate(model, index, "test", output, verbose=0)


@pytest.fixture(scope="module")
def evaluations(tmp_path_factory):
    """One model from two kinds of first boxes, and from those of other labels."""
    folder = tmp_path_factory.mktemp("compare")
    splits, index = make_data(folder)
    model = Oracle(splits["test"])
    whole = {
        s: dataclasses.replace(p, boxes=np.zeros_like(p.boxes))
        for s, p in splits.items()
    }
    for name, convention in (("full", "person"), ("observer", "observer")):
        arguments = {"dataset": ["toy"], "convention": convention}
        records.write(whole, str(folder / name), {"arguments": arguments})
    for name, data in (
        ("own", index.directory),
        ("full", str(folder / "full")),
        ("observer", str(folder / "observer")),
    ):
        output = str(folder / "evaluations" / name)
        scored(model, records.read_index(data), output)
    return folder / "evaluations"


def test_the_baseline_and_the_last_stage_of_each(evaluations):
    folders = [str(evaluations / name) for name in ("own", "full")]
    content = compare.compare(folders)
    names = [f"{f}, {r}" for f in ("own", "full") for r in (scores.BASELINE, "stage 2")]
    assert [row["name"] for row in content["rows"]] == names
    assert content["rows"][2]["first_box"] == "the whole image"
    metrics = json.loads((evaluations / "own" / "metrics.json").read_text())
    baseline, last = (row["values"] for row in content["rows"][:2])
    expected = metrics["rows"][0]["scores"]
    assert baseline["PDJ@0.1"] == expected["pdj"]["0.1"]["fraction"]
    assert baseline["PCP mean4"] == expected["pcp_strict"]["mean4"]["fraction"]
    # Left and right together: their counts, not the mean of their fractions.
    wrists = [expected["pdj"]["0.2"]["joints"][f"{s}_wrist"] for s in ("left", "right")]
    correct, scored = (sum(w[key] for w in wrists) for key in ("correct", "scored"))
    assert baseline["wrist@0.2"] == correct / scored
    assert last["wrist@0.2"] == last["PDJ@0.5"] == 1.0
    text = compare.table(content)
    assert "| own, stage 2 | 100.0 |" in text
    assert "- full, stage 2: first box: the whole image." in text


def test_other_people_of_the_same_number_are_not_compared(evaluations, tmp_path):
    """Two halves of a data set, or labels that were mended, stood in one table."""
    own, other, old = (str(evaluations / "own"), str(tmp_path / "a"), str(tmp_path))
    splits, _ = make_data(tmp_path)
    test = splits["test"]
    for changed in (
        dataclasses.replace(test, ids=tuple(f"{i}-b" for i in test.ids)),
        dataclasses.replace(test, keypoints=test.keypoints + np.float32(0.5)),
    ):
        arguments = {"dataset": ["toy"], "convention": "person"}
        parts = splits | {"test": changed}
        records.write(parts, str(tmp_path / "data"), {"arguments": arguments})
        index = records.read_index(str(tmp_path / "data"))
        scored(Oracle(changed), index, other)
        with pytest.raises(ValueError, match="a: other people or labels than .*own; "):
            compare.compare([own, other])
        shutil.rmtree(tmp_path / "data")
    # An earlier version did not say who it was, and may be anyone.
    content = files.read_json(evaluations / "own" / "metrics.json")
    del content["protocol"]["fingerprint"]
    (tmp_path / "metrics.json").write_text(json.dumps(content))
    for folders in ([own, old], [old, own]):
        content = compare.compare(folders)
        assert content["unknown"] == [old] and content["protocol"]["fingerprint"]
        assert f"- {old}: whether these are the same people" in compare.table(content)
    assert "not known" not in compare.table(compare.compare([own]))
    with pytest.raises(ValueError, match="other people"):
        compare.compare([own, old, other])


def test_evaluations_of_the_last_version_are_read(evaluations, tmp_path):
    """They called the mean-pose baseline a floor."""
    content = files.read_json(evaluations / "own" / "metrics.json")
    content["format"] = "deeppose-tf metrics 1"
    content["rows"][0]["name"] = "floor"
    protocol = content["protocol"]
    protocol["floor_from"] = protocol.pop("baseline_from")
    protocol["meanings"]["floor"] = protocol["meanings"].pop("baseline")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "metrics.json").write_text(json.dumps(content))
    old, new = (compare.compare([str(f / "own")]) for f in (tmp_path, evaluations))
    assert old == new and scores.BASELINE in old["rows"][0]["name"]
    assert scores.table(scores.read(str(tmp_path / "own"))) == (
        evaluations / "own" / "table.md"
    ).read_text().rstrip("\n")


def test_who_people_are_does_not_depend_on_their_order_or_boxes(tmp_path):
    splits, index = make_data(tmp_path)
    people = read_people(index, "test")
    turned = [4, 2, 0, 1, 3, 5]
    keypoints = people.keypoints.copy()
    keypoints[~people.labeled] = np.nan
    same = dataclasses.replace(
        people,
        ids=tuple(people.ids[i] for i in turned),
        keypoints=keypoints[turned],
        labeled=people.labeled[turned],
        boxes=people.boxes + 1,
    )
    assert fingerprint(same) == fingerprint(people)
    fewer = dataclasses.replace(people, labeled=people.labeled & (np.arange(14) < 13))
    assert fingerprint(fewer) != fingerprint(people)


def test_a_folder_that_is_given_twice_is_named(evaluations):
    """It was shown once, without a word."""
    own = str(evaluations / "own")
    with pytest.raises(ValueError, match=f"--evaluations names {own} more than once"):
        compare.compare([own, str(evaluations / "full"), own])


def test_folders_of_one_name_are_told_apart(evaluations, tmp_path):
    folders = [str(tmp_path / f"{name}/scores") for name in ("own", "full")]
    for folder, name in zip(folders, ("own", "full"), strict=True):
        shutil.copytree(evaluations / name, folder)
    rows = compare.compare(folders)["rows"]
    assert [row["name"] for row in rows[1::2]] == [f"{f}, stage 2" for f in folders]


def test_a_stopped_comparison_can_be_repeated(evaluations, tmp_path, monkeypatch):
    """Whatever it had written by then."""
    given = f"--evaluations={evaluations / 'own'}", f"--output={tmp_path}"
    write, written = files.write_bytes, []

    def stop(path, content):
        if len(written) == 1:
            raise KeyboardInterrupt
        written.append(path)
        write(path, content)

    monkeypatch.setattr(files, "write_bytes", stop)
    with pytest.raises(KeyboardInterrupt):
        toy_run.call(COMPARE, *given)
    monkeypatch.setattr(files, "write_bytes", write)
    toy_run.call(COMPARE, *given)
    assert {path.name for path in tmp_path.iterdir()} == {
        compare.TABLE,
        compare.CONTENT,
    }


def test_other_people_are_not_compared(evaluations, tmp_path):
    folders = [str(evaluations / name) for name in ("own", "observer")]
    with pytest.raises(ValueError, match="observer: its labels is observer-centric"):
        compare.compare(folders)
    with pytest.raises(ValueError, match="--evaluations names no folder"):
        compare.compare([])
    with pytest.raises(ValueError, match="no metrics.json that can be read; give"):
        compare.compare([str(tmp_path)])
    (tmp_path / "metrics.json").write_text('{"format": "else"}')
    with pytest.raises(
        ValueError, match="format 'else', and this version .* reads deeppose"
    ):
        compare.compare([str(tmp_path)])
