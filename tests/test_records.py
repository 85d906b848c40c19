"""Records: what goes in comes out, and nothing is ever half written or mixed."""

import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
import tensorflow as tf
from toy_lsp import HEIGHT, WIDTH, make_lsp

from deeppose_tf.datasets import images, lsp
from deeppose_tf.pipelines.data import records
from deeppose_tf.skeleton import LSP


@pytest.fixture
def people(tmp_path):
    """Six people; the second lacks a joint (NaN), the third has a box."""
    make_lsp(tmp_path / "lsp", 6)
    people = lsp.read_splits(str(tmp_path / "lsp"))["train"]
    people.keypoints[1, 3] = np.nan
    people.labeled[1, 3] = False
    people.boxes[2] = (1, 2, 30.5, 40)
    return people


@pytest.fixture
def splits(people):
    return {"train": people.take([0, 1, 2, 3]), "test": people.take([4, 5])}


def make_version_1(folder):
    """Of a data set the same in the first format: a record is a person, with the whole
    image and their labels."""
    folder = pathlib.Path(folder)
    index = records.read_index(str(folder))
    path = folder / "dataset.json"
    content = json.loads(path.read_text())
    del content["digest"], content["people"]
    for split, shards in content["shards"].items():
        people = index.people[split]
        shown = people.weights.tolist()
        for number, shard in enumerate(shards):
            own = np.flatnonzero(people.images[:, 0] == number)
            examples = [_example(index, split, i) for i in own]
            with tf.io.TFRecordWriter(str(folder / shard["file"])) as writer:
                for example in examples:
                    writer.write(example.SerializeToString(deterministic=True))
            file = (folder / shard["file"]).read_bytes()
            shard |= {"bytes": len(file), "sha256": hashlib.sha256(file).hexdigest()}
            shard["records"] = len(own)
            if max(shown) > 1:
                shard["weights"] = " ".join(str(shown[i]) for i in own)
        (folder / f"{split}-people.npy").unlink(missing_ok=True)
    content["format"] = "deeppose-tf records 1"
    path.write_text(json.dumps(content))
    return content


def _example(index, split, i):
    people, train = index.people[split], tf.train
    content, person = records.read(index, split, i), people.ids[i].encode()
    columns = {
        "image": train.Feature(bytes_list=train.BytesList(value=[content])),
        "id": train.Feature(bytes_list=train.BytesList(value=[person])),
    }
    for name, values in (("keypoints", people.keypoints), ("box", people.boxes)):
        values = train.FloatList(value=values[i].ravel())
        columns[name] = train.Feature(float_list=values)
    for name, values in (("labeled", people.labeled), ("size", people.sizes)):
        values = train.Int64List(value=values[i].astype(int))
        columns[name] = train.Feature(int64_list=values)
    return train.Example(features=train.Features(feature=columns))


def snapshot(folder):
    """Names and content of all files below a folder."""
    files = (f for f in pathlib.Path(folder).rglob("*") if f.is_file())
    return {str(f.relative_to(folder)): f.read_bytes() for f in files}


def test_round_trip(people, splits, tmp_path):
    index = records.write(
        splits, str(tmp_path / "out"), {"note": 1}, skipped=(("a", "b"),)
    )
    assert index == records.read_index(str(tmp_path / "out"))
    assert index.counts == {"train": 4, "test": 2}
    assert index.skeleton == LSP
    assert (index.provenance, index.skipped) == ({"note": 1}, (("a", "b"),))
    found = {
        person: (split, i, index.people[split])
        for split in ("train", "test")
        for i, person in enumerate(index.people[split].ids)
    }
    assert sorted(found) == sorted(people.ids)
    for i, person in enumerate(people.ids):
        split, j, labels = found[person]
        file = pathlib.Path(people.images[i]).read_bytes()
        assert records.read(index, split, j) == file  # As found, byte for byte.
        np.testing.assert_array_equal(labels.labeled[j], people.labeled[i])
        expected = np.nan_to_num(people.keypoints[i], nan=0.0)
        expected[~people.labeled[i]] = 0
        np.testing.assert_array_equal(labels.keypoints[j], expected)
        np.testing.assert_array_equal(labels.boxes[j], people.boxes[i])
        assert labels.sizes[j].tolist() == [HEIGHT, WIDTH]
        pixels = images.read_image(people.images[i])
        np.testing.assert_array_equal(records.read_image(index, split, j), pixels)


def test_an_image_is_stored_once(people, tmp_path):
    """Of six people on two images: two files in the records, and who is on which."""
    crowd = dataclasses.replace(
        people, images=tuple(people.images[i % 2] for i in range(6))
    )
    index = records.write({"train": crowd, "test": crowd}, str(tmp_path / "out"))
    for split in ("train", "test"):
        (shard,) = index.shards[split]
        stored = list(tf.data.TFRecordDataset(shard).as_numpy_iterator())
        content = [pathlib.Path(path).read_bytes() for path in people.images[:2]]
        assert sorted(stored) == sorted(content)
        for i, person in enumerate(index.people[split].ids):
            expected = content[crowd.ids.index(person) % 2]
            assert records.read(index, split, i) == expected


@pytest.mark.parametrize("weights", [None, np.array([1, 2, 12, 1, 3, 1])])
def test_the_first_format_is_read(people, tmp_path, monkeypatch, weights):
    """The same people, and the same checksums as then."""
    monkeypatch.setattr(records, "SHARD_BYTES", 3 * os.path.getsize(people.images[0]))
    splits = {"train": people, "test": people.nobody()}
    index = records.write(splits, str(tmp_path / "out"), weights=weights)
    assert len(index.shards["train"]) > 1
    content = make_version_1(tmp_path / "out")
    old = records.verify(str(tmp_path / "out"))
    assert old.counts == index.counts and old.skeleton == index.skeleton
    sums = [s["sha256"] + s.get("weights", "") for s in content["shards"]["train"]]
    assert old.checksums["train"] == hashlib.sha256("".join(sums).encode()).hexdigest()
    one, other = index.people["train"], old.people["train"]
    assert one.ids == other.ids
    for name in ("keypoints", "labeled", "boxes", "sizes", "weights"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for i in range(6):
        assert (
            records.read(old, "train", i)
            == pathlib.Path(
                people.images[people.ids.index(old.people["train"].ids[i])]
            ).read_bytes()
        )
    # The same command finds it done, and does not go on with a half of it.
    assert records.write(splits, str(tmp_path / "out"), weights=weights) == old
    (tmp_path / "out").rename(tmp_path / ".out.partial")
    with pytest.raises(ValueError, match="of another version.*delete that folder"):
        records.write(splits, str(tmp_path / "out"), weights=weights)


def test_a_damaged_record_of_the_first_format_is_named(people, tmp_path):
    index = records.write({"train": people}, str(tmp_path / "out"))
    make_version_1(tmp_path / "out")
    shard = pathlib.Path(index.shards["train"][0])
    content = bytearray(shard.read_bytes())
    content[-9] ^= 1
    shard.write_bytes(content)
    with pytest.raises(ValueError, match=f"{shard.name}: record 6 is damaged. Delete"):
        records.read_index(index.directory)


def test_checksums_tell_a_changed_label(people, splits, tmp_path):
    """By which a run that goes on notices it; the counts are the same."""
    first = records.write(splits, str(tmp_path / "first")).checksums
    assert records.write(splits, str(tmp_path / "again")).checksums == first
    train = splits["train"]
    moved = dataclasses.replace(train, keypoints=train.keypoints + 0.5)
    changed = records.write(splits | {"train": moved}, str(tmp_path / "changed"))
    assert changed.checksums["train"] != first["train"]
    assert changed.checksums["test"] == first["test"]


def test_weights_stay_with_their_people(people, tmp_path, monkeypatch):
    monkeypatch.setattr(records, "SHARD_BYTES", 1)
    order = np.random.default_rng(0).permutation(6)
    weights = np.empty(6, int)
    weights[order] = [1, 1, 12, 1, 3, 1]
    splits = {"train": people, "test": people}
    index = records.write(splits, str(tmp_path / "out"), weights=weights)
    found = records.read_people(index, "train", limit=5)
    assert list(found.weights) == [1, 1, 12, 1, 3]
    own = dict(zip(people.ids, weights, strict=True))
    assert list(found.weights) == [own[person] for person in found.ids]
    assert index.people["train"].weights.sum() == 19 and index.counts["train"] == 6
    np.testing.assert_array_equal(index.people["test"].weights, np.ones(6))
    # Other weights are another data set, for a run that goes on too.
    others = records.write(splits, str(tmp_path / "others"), weights=2 * weights)
    assert others.checksums["train"] != index.checksums["train"]
    assert others.checksums["test"] == index.checksums["test"]
    with pytest.raises(ValueError, match="another data set"):
        records.write(splits, str(tmp_path / "out"), weights=2 * weights)
    content = make_version_1(tmp_path / "out")
    for wrong in ("12 3", "0", "-1", "x", "9" * 20):
        content["shards"]["train"][1]["weights"] = wrong
        (tmp_path / "out" / "dataset.json").write_text(json.dumps(content))
        with pytest.raises(ValueError, match="json: 'weights' of train-00001.* its 1 "):
            records.read_index(str(tmp_path / "out"))


def test_train_is_shuffled_by_seed_and_test_is_not(people, tmp_path):
    splits = {"train": people, "test": people}
    orders = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        index = records.write(splits, str(tmp_path / name), seed=seed)
        orders.append(index.people["train"].ids)
        assert index.people["test"].ids == people.ids
    assert orders[0] == orders[1] != orders[2]
    assert snapshot(tmp_path / "a") == snapshot(tmp_path / "b")


def test_big_splits_have_many_shards(people, tmp_path, monkeypatch):
    """As many as their bytes need: a byte too much, and there is another."""
    size = sum(os.path.getsize(path) for path in people.images)
    for limit, count in ((size, 1), (size - 1, 2), (1, 6)):
        monkeypatch.setattr(records, "SHARD_BYTES", limit)
        index = records.write({"train": people}, str(tmp_path / str(limit)))
        assert len(index.shards["train"]) == count


def test_repeating_confirms_and_rewrites_nothing(splits, tmp_path):
    out = tmp_path / "out"
    first = records.write(splits, str(out))
    times = {f: f.stat().st_mtime_ns for f in out.iterdir()}
    assert records.write(splits, str(out)) == first
    assert {f: f.stat().st_mtime_ns for f in out.iterdir()} == times


def test_another_data_set_in_place_is_refused_and_kept(people, splits, tmp_path):
    out = tmp_path / "out"
    records.write(splits, str(out), {"arguments": {"seed": 0, "set": ["lsp"]}})
    before = snapshot(tmp_path)
    arguments = {"arguments": {"seed": 1, "set": ["lsp"]}}
    with pytest.raises(ValueError, match=r"another data set \(seed was 0, is 1\)"):
        records.write(splits, str(out), arguments, seed=1)
    moved = dataclasses.replace(splits["test"], keypoints=splits["test"].keypoints + 1)
    arguments = {"arguments": {"seed": 0, "set": ["lsp"]}}
    with pytest.raises(ValueError, match="same flags, but labels or images have"):
        records.write(splits | {"test": moved}, str(out), arguments)
    assert snapshot(tmp_path) == before


def test_changed_image_files_are_another_data_set(people, splits, tmp_path):
    records.write(splits, str(tmp_path / "out"))
    os.utime(people.images[0], ns=(1, 1))
    with pytest.raises(ValueError, match="labels or images have changed"):
        records.write(splits, str(tmp_path / "out"))


def test_somebody_elses_folder_is_refused_and_kept(splits, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("dear")
    before = snapshot(tmp_path)
    with pytest.raises(ValueError, match="exists and is no prepared data set"):
        records.write(splits, str(tmp_path / "out"))
    assert snapshot(tmp_path) == before


def test_an_empty_folder_will_do(splits, tmp_path):
    (tmp_path / "out").mkdir()
    records.write(splits, str(tmp_path / "out"))
    assert not list(tmp_path.glob(".out*"))


def test_a_bad_image_leaves_the_output_alone(people, splits, tmp_path):
    pathlib.Path(people.images[5]).write_bytes(b"")
    with pytest.raises(ValueError, match="im0006.jpg: empty"):
        records.write(splits, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "key, value, says",
    [
        ("bytes", 10**40, "cannot have 1000"),
        ("bytes", -1, "cannot have -1 bytes"),
        ("bytes", "4", "cannot have 4 bytes"),
        ("file", "../train-00000", "is no file of train"),
        ("file", "/dev/zero", "is no file of train"),
    ],
)
def test_values_that_no_data_has(splits, tmp_path, key, value, says):
    """Without a digest, which would tell that they have been changed."""
    records.write(splits, str(tmp_path / "out"))
    path = tmp_path / "out" / "dataset.json"
    content = json.loads(path.read_text())
    del content["digest"]
    content["shards"]["train"][0][key] = value
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"dataset.json: .*{says}"):
        records.read_index(str(tmp_path / "out"))


@pytest.mark.parametrize(
    "column, value, says",
    [
        ("image", (1, 0, 1, 0), "damaged labels of .* in train"),
        ("image", (0, 0, 2**40, 0), "damaged labels"),
        ("image", (0, 2**62, 2**62, 0), "damaged labels"),
        ("image", (0, -5, 4, 0), "damaged labels"),
        ("weight", 0, "damaged labels"),
        ("keypoints", np.inf, "damaged labels"),
        ("box", np.nan, "damaged labels"),
        ("size", 0, "damaged labels"),
        (None, None, "are not of 4 people with 14 joints"),
    ],
)
def test_labels_that_nobody_has(splits, tmp_path, column, value, says):
    """With digests that are right."""
    records.write(splits, str(tmp_path / "out"))
    file, path = (
        tmp_path / "out" / "train-people.npy",
        tmp_path / "out" / "dataset.json",
    )
    rows = np.load(file)
    if column:
        rows[column][2] = value
    np.save(file, rows if column else rows[:3])
    content = json.loads(path.read_text())
    del content["digest"]
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    content["people"]["train"] |= {"sha256": found, "bytes": file.stat().st_size}
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"{says}.*Delete"):
        records.read_index(str(tmp_path / "out"))


@pytest.mark.parametrize(
    "damage, quick, says",
    [
        (lambda f: f.write_bytes(f.read_bytes()[:-1]), True, "bytes, expected"),
        (lambda f: f.unlink(), True, "is missing, expected"),
        (
            lambda f: f.write_bytes(f.read_bytes()[:-1] + b"?"),
            False,
            "content has changed",
        ),
    ],
)
def test_damaged_shards_are_named(splits, tmp_path, damage, quick, says):
    index = records.write(splits, str(tmp_path / "out"))
    shard = pathlib.Path(index.shards["test"][0])
    damage(shard)
    with pytest.raises(ValueError, match=f"{shard.name}.*{says}.*Delete"):
        (records.read_index if quick else records.verify)(index.directory)
    with pytest.raises(ValueError, match=f"{shard.name}.*{says}.*Delete"):
        records.write(splits, index.directory)


def test_an_index_that_is_none_is_refused(splits, tmp_path):
    with pytest.raises(ValueError, match="no dataset.json there.*deeppose-prepare"):
        records.read_index(str(tmp_path))
    index = records.write(splits, str(tmp_path / "out"))
    file = tmp_path / "out" / "dataset.json"
    content = json.loads(file.read_text())
    del content["digest"]
    for text, says in (
        (file.read_text()[:-9], "damaged"),
        ("[]", "damaged"),
        (json.dumps(content | {"format": "of 2040"}), "format 'of 2040'"),
        (json.dumps(content | {"finished": False}), "unfinished.*deeppose-prepare"),
        (json.dumps({k: content[k] for k in content if k != "shards"}), "damaged"),
    ):
        file.write_text(text)
        with pytest.raises(ValueError, match=says):
            records.read_index(index.directory)


# Killing

SLOW = """
    import sys, time
    from deeppose_tf.datasets import lsp
    from deeppose_tf.pipelines.data import records
    records.SHARD_BYTES = 1
    people = lsp.read_splits(sys.argv[1])["train"]
    records.write({"train": people}, sys.argv[2], {"arguments": {"a": 1}},
                        progress=lambda done: time.sleep(0.1))
"""


@pytest.fixture
def killed(tmp_path):
    """A run killed without mercy once two of its eight shards were done."""
    make_lsp(tmp_path / "lsp", 8)
    partial = tmp_path / ".out.partial"
    program = [sys.executable, "-c", textwrap.dedent(SLOW)]
    process = subprocess.Popen([*program, str(tmp_path / "lsp"), str(tmp_path / "out")])
    try:
        while not (partial / "dataset.json").exists() or len(listed(partial)) < 2:
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (tmp_path / "out").exists()
    return partial


def listed(folder):
    content = json.loads((folder / "dataset.json").read_text())
    return [shard["file"] for shard in content["shards"]["train"]]


def test_a_killed_run_goes_on(killed, tmp_path, monkeypatch):
    """Kept shards stay the same files, a spoilt one is made anew; the end is equal."""
    monkeypatch.setattr(records, "SHARD_BYTES", 1)
    people = lsp.read_splits(str(tmp_path / "lsp"))["train"]
    arguments = {"arguments": {"a": 1}}
    with pytest.raises(ValueError, match=r"\(a was 1, is 2\).*Repeat that command"):
        records.write({"train": people}, str(tmp_path / "out"), {"arguments": {"a": 2}})
    with pytest.raises(ValueError, match="unfinished"):
        records.read_index(str(killed))
    kept, spoilt = listed(killed)[:2]
    time_of_kept = (killed / kept).stat().st_mtime_ns
    (killed / spoilt).write_bytes(b"spoilt")
    records.write({"train": people}, str(tmp_path / "out"), arguments)
    assert not killed.exists()
    assert (tmp_path / "out" / kept).stat().st_mtime_ns == time_of_kept
    resumed = snapshot(tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    records.write({"train": people}, str(tmp_path / "out"), arguments)
    assert snapshot(tmp_path / "out") == resumed
    assert len(records.verify(str(tmp_path / "out")).people["train"].ids) == 8


def test_a_run_killed_before_its_first_index_goes_on(splits, tmp_path):
    """It leaves an empty folder, or one with half an index under another name."""
    (tmp_path / ".out.partial").mkdir()
    (tmp_path / ".out.partial" / ".dataset.json.0a1b2c3d.partial").write_text("{")
    records.write(splits, str(tmp_path / "out"))
    names = sorted(f.name.split("-")[0] for f in (tmp_path / "out").iterdir())
    assert names == ["dataset.json", "test", "test", "train", "train"]


def test_two_runs_at_once_do_not_mix(splits, tmp_path):
    """The second, started from inside the first, is refused; the first ends well."""
    refused = []

    def second(done):
        if not refused:
            with pytest.raises(ValueError, match="another run is writing"):
                records.write(splits, str(tmp_path / "out"))
            refused.append(done)

    records.write(splits, str(tmp_path / "out"), progress=second)
    assert refused and records.verify(str(tmp_path / "out")).counts["train"] == 4


def test_an_index_of_the_last_version_is_read(splits, tmp_path):
    """Fields that came since then are not asked for: an added one with a default must
    not make older data refuse."""
    index = records.write(splits, str(tmp_path / "out"))
    path = tmp_path / "out" / "dataset.json"
    written = make_version_1(tmp_path / "out")
    old = {
        "format": "deeppose-tf records 1",
        "finished": True,
        "fingerprint": "a578",
        "skeleton": written["skeleton"],
        "counts": {"train": 4, "test": 2},
        "shards": written["shards"],
        "provenance": {"arguments": {"dataset": ["lsp"], "seed": 0}},
        "skipped": [],
    }
    path.write_text(json.dumps(old, indent=1))
    found = records.verify(str(tmp_path / "out"))
    assert found.counts == index.counts and found.skeleton == LSP
    np.testing.assert_array_equal(found.people["train"].weights, np.ones(4))
