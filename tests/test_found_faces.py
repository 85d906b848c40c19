"""Faces of a data set's people: found once, and kept while deeppose-prepare runs."""

import json
import math
import os

import numpy as np
import pytest
from toy_film import flic_data

from deeppose_tf import faces, files
from deeppose_tf.datasets import flic
from deeppose_tf.pipelines.data import first_boxes, records
from deeppose_tf.pipelines.data.prepare import prepare


@pytest.fixture
def asked(monkeypatch):
    """The torsos of people whose face was looked for; the torso is said to be one.
    Whoever is in `asked.stop` gets Ctrl-C."""

    class Asked(list):
        stop = None

    asked = Asked()

    def likeliest(image, torso):
        if asked.stop == len(asked):
            raise KeyboardInterrupt
        asked.append(torso.tolist())
        return np.array(torso, np.float32), 1

    monkeypatch.setattr(faces, "likeliest_face", likeliest)
    monkeypatch.setattr(first_boxes.os, "cpu_count", lambda: 1)
    monkeypatch.setattr(first_boxes, "_is_own", lambda found, people: found[:, 0] > 0)
    return asked


def film(tmp_path):
    """Five people on as many images, and the folder that faces are kept in."""
    options = flic_data(tmp_path)
    splits = flic.read_splits(str(tmp_path))
    return splits, records.partial_directory(options["output"])


def kept_faces(folder):
    return json.loads((folder / records.FACES).read_text())["faces"]


def test_a_stopped_run_goes_on_where_it_was(tmp_path, asked):
    options, whole = flic_data(tmp_path), tmp_path / "whole"
    asked.stop = 3
    with pytest.raises(KeyboardInterrupt):
        prepare(**options)
    assert len(asked) == 3
    asked.stop = None
    index = prepare(**options)
    assert len(asked) == 5
    assert not (tmp_path / "out" / records.FACES).exists()
    assert sorted(os.listdir(tmp_path)) == ["examples.mat", "images", "out"]
    # The same as of a run that was not stopped.
    whole.mkdir()
    again = prepare(**flic_data(whole))
    assert again.provenance["first_boxes"] == index.provenance["first_boxes"]
    assert len(asked) == 10


def test_a_kill_costs_little(tmp_path, asked, monkeypatch):
    """Written after everyone, as if looking took that long."""
    monkeypatch.setattr(files, "SAVE_SECONDS", -1.0)
    splits, folder = film(tmp_path)
    seen = []

    def look(done):
        there = (folder / records.FACES).exists()
        seen.append((done, len(kept_faces(folder)) if there else 0))

    first_boxes.find_faces(splits, folder, look)
    assert seen == [(1, 0), (2, 1), (3, 2), (4, 3), (5, 4)]
    assert len(kept_faces(folder)) == 5


def test_faces_come_back_as_they_were(tmp_path, asked):
    splits, folder = film(tmp_path)
    first, done = first_boxes.find_faces(splits, folder), []
    again = first_boxes.find_faces(splits, folder, done.append)
    assert len(asked) == 5 and done == [5]
    for split in ("train", "test"):
        for one, other in zip(first[split], again[split], strict=True):
            np.testing.assert_array_equal(one, other)
            assert one.dtype == other.dtype


def test_whatever_a_face_depends_on_has_it_looked_for_again(tmp_path, asked):
    splits, folder = film(tmp_path)
    first_boxes.find_faces(splits, folder)
    os.utime(splits["train"].images[0], (1, 1))
    splits["train"].torsos[1] += 1
    first_boxes.find_faces(splits, folder)
    assert len(asked) == 5 + 2


@pytest.mark.parametrize("spoil", ["damage", "nothing", "endless", "another version"])
def test_faces_that_do_not_count(tmp_path, asked, spoil, monkeypatch):
    splits, folder = film(tmp_path)
    first_boxes.find_faces(splits, folder)
    file = folder / records.FACES
    if spoil == "damage":
        file.write_bytes(file.read_bytes()[:-9])
    elif spoil == "nothing":
        file.write_text("[]")
    elif spoil == "endless":
        content = json.loads(file.read_text())
        faces = {key: [box, math.inf] for key, (box, _) in content["faces"].items()}
        file.write_text(json.dumps(content | {"faces": faces}))
    else:
        monkeypatch.setattr(first_boxes.cv2, "__version__", "0")
    first_boxes.find_faces(splits, folder)
    assert len(asked) == 10


def test_real_faces_do_not_depend_on_threads(shared_data, monkeypatch):
    people = flic.read_splits(str(shared_data / "flic"))["test"].take(range(12))
    found = []
    for cores in (1, 3):
        monkeypatch.setattr(first_boxes.os, "cpu_count", lambda cores=cores: cores)
        found.append(first_boxes.find_faces({"test": people})["test"])
    np.testing.assert_array_equal(found[0][0], found[1][0])
    np.testing.assert_array_equal(found[0][1], found[1][1])
    assert found[0][0].any(axis=1).sum() > 6
