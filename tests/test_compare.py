"""deeppose-compare: evaluations of the same people side by side."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import toy_run
from toy_people import Oracle, make_data

from deeppose_tf import files
from deeppose_tf.pipelines import compare, evaluate, record_writer, records


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
        record_writer.write(whole, str(folder / name), {"arguments": arguments})
    for name, data in (
        ("own", index.directory),
        ("full", str(folder / "full")),
        ("observer", str(folder / "observer")),
    ):
        output = str(folder / "evaluations" / name)
        evaluate.evaluate(model, records.read_index(data), "test", output, verbose=0)
    return folder / "evaluations"


def test_the_floor_and_the_last_stage_of_each(evaluations):
    folders = [str(evaluations / name) for name in ("own", "full")]
    content = compare.compare(folders)
    names = ["own, floor", "own, stage 2", "full, floor", "full, stage 2"]
    assert [row["name"] for row in content["rows"]] == names
    assert content["rows"][2]["first_box"] == "the whole image"
    metrics = json.loads((evaluations / "own" / "metrics.json").read_text())
    floor, last = (row["values"] for row in content["rows"][:2])
    expected = metrics["rows"][0]["scores"]
    assert floor["PDJ@0.1"] == expected["pdj"]["0.1"]["fraction"]
    assert floor["PCP mean4"] == expected["pcp_strict"]["mean4"]["fraction"]
    # Left and right together: their counts, not the mean of their fractions.
    wrists = [expected["pdj"]["0.2"]["joints"][f"{s}_wrist"] for s in ("left", "right")]
    correct, scored = (sum(w[key] for w in wrists) for key in ("correct", "scored"))
    assert floor["wrist@0.2"] == correct / scored
    assert last["wrist@0.2"] == last["PDJ@0.5"] == 1.0
    text = compare.table(content)
    assert "| own, stage 2 | 100.0 |" in text
    assert "- full, stage 2: first box: the whole image." in text


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
        toy_run.call(compare, *given)
    monkeypatch.setattr(files, "write_bytes", write)
    toy_run.call(compare, *given)
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
    with pytest.raises(ValueError, match="its format is 'else', expected 'deeppose"):
        compare.compare([str(tmp_path)])
