"""deeppose-prepare: the splits, and every mistake a newcomer can make."""

import dataclasses
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import toy_run
from PIL import Image
from toy_film import STICKS, flic_example, flic_plus, make_flic, write_sticks
from toy_lsp import make_lsp, save, spoilt_images

from deeppose_tf.datasets import ADDRESSES, CONVENTIONS, generated, lsp
from deeppose_tf.pipelines.data import checks, commands, records
from deeppose_tf.pipelines.data.prepare import arrange, hold_out, merge, prepare
from deeppose_tf.pipelines.data.records import read_people
from deeppose_tf.pipelines.evaluation import scores

KINDS = spoilt_images()


def options(tmp_path, **changes):
    """A toy LSP without hold-outs, unless changed."""
    values = {
        "dataset": ("lsp",),
        "source": (str(tmp_path / "lsp"),),
        "output": str(tmp_path / "out"),
        "validation": 0,
        "test": 0,
    }
    return values | changes


def spoil(tmp_path):
    """A toy LSP in which everything is wrong but the last two people.

    Returns what must be said about each bad file or person.
    """
    joints = make_lsp(tmp_path / "lsp", len(KINDS) + 5)
    folder, expected = tmp_path / "lsp" / "images", {}
    for i, (says, content) in enumerate(KINDS.values()):
        (folder / f"im{i + 1:04d}.jpg").write_bytes(content)
        expected[f"im{i + 1:04d}"] = says
    n = len(KINDS)
    (folder / f"im{n + 1:04d}.jpg").unlink()
    expected[f"im{n + 1:04d}"] = "no such file"
    joints[0, 4, n + 1] = np.nan
    expected[f"im{n + 2:04d}"] = "joint left_knee is NaN"
    joints[:2, 6, n + 2] = (100, 20)
    expected[f"im{n + 3:04d}"] = (
        r"joint right_wrist at \(100, 20\) is far outside the 32 x 48 image"
    )
    save(tmp_path / "lsp", joints)
    return expected


def test_everything_wrong_is_listed_and_nothing_written(tmp_path):
    expected = spoil(tmp_path)
    with pytest.raises(ValueError) as error:
        prepare(**options(tmp_path))
    lines = str(error.value).splitlines()
    assert f"nothing was written, {len(expected)} problem(s)" in lines[0]
    for name, says in expected.items():
        found = [line for line in lines if name in line]
        assert len(found) == 1, name
        assert re.search(says, found[0]), (says, found)
    assert any("--skip_bad" in line for line in lines)
    assert any("--convert takes the 6 image(s)" in line for line in lines)
    assert sorted(os.listdir(tmp_path)) == ["lsp"]


def test_skip_bad_lists_them_and_goes_on(tmp_path):
    expected = spoil(tmp_path)
    index = prepare(**options(tmp_path, skip_bad=True))
    assert index.counts == {"train": 2, "validation": 0, "test": 0}
    content = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert len(content["skipped"]) == len(expected)
    for name, entry in zip(sorted(expected), content["skipped"], strict=True):
        assert name in entry["what"] + entry["reason"]


def test_convert_keeps_what_is_sound(tmp_path):
    """Grayscale, CMYK, palette, 16-bit, turned, BMP: six more than with skip_bad."""
    spoil(tmp_path)
    index = prepare(**options(tmp_path, skip_bad=True, convert=True))
    assert index.counts["train"] == 8
    assert len(index.provenance["converted"]) == 6


def test_a_whole_data_set_that_cannot_be_read_is_never_skipped(tmp_path):
    """The other's problems are listed in the same run."""
    spoil(tmp_path)
    both = options(
        tmp_path,
        dataset=("lsp", "lspet"),
        source=(str(tmp_path / "lsp"), str(tmp_path / "lsp")),
        skip_bad=True,
    )
    with pytest.raises(ValueError) as error:
        prepare(**both)
    text = str(error.value)
    assert "read it as lsp\n" in text and "im0001.jpg: empty" in text
    assert "--skip_bad does not help with the first 1" in text
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"dataset": ("lsp", "lspet")}, r"2 --dataset \(lsp, lspet\) but 1 --source"),
        ({"dataset": ("lsd",)}, "--dataset=lsd: unknown, expected lsp, lspet, flic"),
        ({"source": ("nowhere",)}, "nowhere: no such folder"),
        ({"dataset": ("lsp",) * 2, "source": ("a",) * 2}, "is given twice"),
        (
            {"validation": 4},
            "cannot hold out 4 of .* 6 training .* smaller --validation",
        ),
        ({"test": 4}, "cannot hold out 4 of .* smaller --test"),
        ({"convention": "observer"}, "joints-OC.mat: no such file"),
        (
            {"convention": "observer", "dataset": ("lspet",)},
            "--convention=observer: lspet has person-centric labels only",
        ),
        ({"flic_plus": "x.mat"}, "--flic_plus is for --dataset=flic, which is not"),
        ({"skeleton": "lsp"}, "--skeleton is for --dataset=coco, which is not given"),
        ({"dataset": ("parse",)}, "parse .* only, .*; give --convention=observer"),
        ({"dataset": ("buffy",)}, "buffy .* only, .*; give --convention=observer"),
    ],
)
def test_wrong_flags_say_which(tmp_path, changes, says):
    make_lsp(tmp_path / "lsp", 6)
    with pytest.raises(ValueError, match=says):
        prepare(**options(tmp_path, **changes))
    assert sorted(os.listdir(tmp_path)) == ["lsp"]


@pytest.mark.parametrize("name", ADDRESSES)
def test_whoever_lacks_a_data_set_is_told_where_it_is(tmp_path, name):
    """Where there is no folder, and where it is another one."""
    convention = CONVENTIONS[name][0]
    for source in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(ValueError, match=f"no.* {name} is at http"):
            prepare(
                **options(
                    tmp_path,
                    dataset=(name,),
                    source=(str(source),),
                    convention=convention,
                )
            )


def test_a_bad_example_of_flic_is_left_out_where_asked_for(tmp_path):
    people = [flic_example(i) for i in range(4)]
    people[2]["torsobox"] = np.ones(3)
    make_flic(tmp_path, people)
    for i in range(4):
        Image.new("RGB", (120, 80)).save(tmp_path / "images" / f"film-{i:08d}.jpg")
    film = options(tmp_path, dataset=("flic",), source=(str(tmp_path),))
    with pytest.raises(ValueError, match="1 problem.*\n.*example 3: 'torsobox' is"):
        prepare(**film)
    index = prepare(**film | {"skip_bad": True})
    assert index.counts["train"] == 3 and len(index.skipped) == 1


def test_a_file_as_source(tmp_path):
    make_lsp(tmp_path / "lsp")
    source = str(tmp_path / "lsp" / "joints.mat")
    with pytest.raises(ValueError, match="joints.mat: a file; give the folder"):
        prepare(**options(tmp_path, source=(source,)))


def test_an_empty_set(tmp_path):
    make_lsp(tmp_path / "lsp", 1)
    save(tmp_path / "lsp", np.ones((3, 14, 0)))
    with pytest.raises(ValueError, match="training part is empty"):
        prepare(**options(tmp_path))


def test_data_to_test_on_alone(tmp_path):
    """Nobody is held out for validation where there is nobody to train on."""
    write_sticks(tmp_path / "buffy", 5, {7: STICKS})
    picture = tmp_path / "buffy" / "images" / "buffy_s5e5_original" / "000007.jpg"
    Image.new("RGB", (200, 200)).save(picture)
    buffy = {"dataset": ("buffy",), "source": (str(tmp_path / "buffy"),)}
    index = prepare(
        **options(tmp_path, **buffy, convention="observer", validation=50, test=None)
    )
    assert index.counts == {"train": 0, "validation": 0, "test": 1}


def test_people_of_one_frame_are_held_out_together(tmp_path):
    """Six people, two on each of three frames; FLIC-plus has the others for testing."""
    people = [
        flic_example(i, filepath=f"{i // 2}.jpg", istest=int(i > 5)) for i in range(8)
    ]
    make_flic(tmp_path, people)
    for i in range(4):
        Image.new("RGB", (120, 80)).save(tmp_path / "images" / f"{i}.jpg")
    index = prepare(
        **options(
            tmp_path,
            dataset=("flic",),
            source=(str(tmp_path),),
            validation=1,
            flic_plus=flic_plus(tmp_path, [1, 2, 3, 4, 5, 6]),
        )
    )
    assert index.counts == {"train": 4, "validation": 2, "test": 2}
    frames = {
        split: {name.split("-")[0] for name in read_people(index, split).ids}
        for split in index.counts
    }
    assert not frames["train"] & frames["validation"] and len(frames["train"]) == 2


def test_fewer_images_than_joints(tmp_path):
    make_lsp(tmp_path / "lsp", 6)
    for i in (5, 6):
        (tmp_path / "lsp" / "images" / f"im{i:04d}.jpg").unlink()
    with pytest.raises(ValueError) as error:
        prepare(**options(tmp_path))
    assert "im0005.jpg: no such file" in str(error.value)
    assert "2 image(s) are missing: was everything unpacked" in str(error.value)


def test_labels_of_another_release_are_suspicious(tmp_path, capsys):
    """Half of x beyond the right edge, none far outside: a warning, no error."""
    joints = make_lsp(tmp_path / "lsp", 6)
    joints[0] = np.where(np.arange(14)[:, None] % 2, 40, 10)
    save(tmp_path / "lsp", joints)
    prepare(**options(tmp_path))
    warning = capsys.readouterr().err
    assert "WARNING lsp train: 50% of the joints are outside" in warning


def test_hold_out_is_by_image_and_seed(tmp_path):
    make_lsp(tmp_path / "lsp", 8)
    people = lsp.read_splits(str(tmp_path / "lsp"))["train"]
    # Two people on each of four images.
    people = merge([people])
    images = tuple(people.images[i // 2] for i in range(8))
    people = dataclasses.replace(people, images=images)
    out, rest = hold_out(people, 2, seed=0)
    assert (len(out), len(rest)) == (4, 4)
    assert not set(out.images) & set(rest.images)
    assert sorted(out.ids + rest.ids) == sorted(people.ids)
    again, _ = hold_out(people, 2, seed=0)
    assert again.ids == out.ids
    chosen = {hold_out(people, 2, seed=s)[0].ids for s in range(9)}
    assert len(chosen) > 1


def test_test_part_is_held_out_where_there_is_none(tmp_path):
    """A toy LSP of 40 has no image above 1000: a tenth, 4, are for testing."""
    make_lsp(tmp_path / "lsp", 40)
    index = prepare(**options(tmp_path, test=None, validation=5))
    assert index.counts == {"train": 31, "validation": 5, "test": 4}
    assert index.provenance["held_out"] == ["validation", "test"]
    text = commands.describe(index)
    assert "part: validation, test; no official test part is there" in text
    assert "nobody to test on" not in text
    said = scores.protocol(index, "test", read_people(index, "test"))
    assert scores.heading(said).startswith(
        "4 people of the split test (held out of the training part, not the official "
        "one) of lsp. "
    )
    assert "held out" not in scores.heading(said | {"held_out": False})


def test_an_official_test_part_is_not_called_held_out(tmp_path):
    """Six for training, of whom one is held out for validation, and two for testing."""
    people = [flic_example(i, istest=int(i > 5), istrain=int(i < 6)) for i in range(8)]
    make_flic(tmp_path, people)
    for i in range(8):
        Image.new("RGB", (120, 80)).save(tmp_path / "images" / f"film-{i:08d}.jpg")
    film = {"dataset": ("flic",), "source": (str(tmp_path),)}
    index = prepare(**options(tmp_path, **film, validation=1, test=None))
    assert index.counts == {"train": 5, "validation": 1, "test": 2}
    assert index.provenance["held_out"] == ["validation"]
    assert "held out of the training part: validation\n" in (
        commands.describe(index) + "\n"
    )
    said = scores.protocol(index, "test", read_people(index, "test"))
    assert "held out" not in scores.heading(said)


def test_repeating_confirms_without_looking_at_images(tmp_path, capsys):
    make_lsp(tmp_path / "lsp")
    first = prepare(**options(tmp_path))
    capsys.readouterr()
    assert prepare(**options(tmp_path)) == first
    printed = capsys.readouterr().out
    assert "already prepared" in printed and "Checking" not in printed
    with pytest.raises(ValueError, match=r"seed was 0, is 3"):
        prepare(**options(tmp_path, seed=3))


def test_home_is_spelled_out(tmp_path, monkeypatch):
    """No shell expands the ~ of --source=~/lsp."""
    monkeypatch.setenv("HOME", str(tmp_path))
    make_lsp(tmp_path / "lsp")
    prepare(**options(tmp_path, source=("~/lsp",), output="~/out"))
    assert (tmp_path / "out" / "dataset.json").exists()


def coco_dataset(root, name, joints, count=4):
    """A COCO data set of one's own: `count` images with two labeled animals each."""
    (root / name / "images").mkdir(parents=True)
    annotations = []
    for i in range(count):
        Image.new("RGB", (40, 30), (i, 0, 0)).save(root / name / "images" / f"{i}.png")
        for j in range(2):
            annotations.append(
                {
                    "id": 2 * i + j,
                    "image_id": i,
                    "category_id": 1,
                    "bbox": [1, 2, 20, 20],
                    "keypoints": [5 + j, 6, 2] * len(joints),
                }
            )
    content = {
        "images": [{"id": i, "file_name": f"{i}.png"} for i in range(count)],
        "annotations": annotations,
        "categories": [{"id": 1, "name": name, "keypoints": list(joints)}],
    }
    (root / name / "train.json").write_text(json.dumps(content))
    return str(root / name)


def test_two_data_sets_of_ones_own_joints(tmp_path):
    """Ids that both have stay apart; images are held out with everyone on them."""
    sources = tuple(
        coco_dataset(tmp_path, name, ("nose", "left_ear", "right_ear"))
        for name in ("cats", "cats2")
    )
    both = {"dataset": ("coco", "coco"), "source": sources, "validation": 1}
    with pytest.raises(ValueError, match="different skeletons .cats: .*cats2: "):
        prepare(**options(tmp_path, **both))
    skeleton = tmp_path / "ears.json"
    skeleton.write_text(json.dumps({"name": "ears", "joints": ["left_ear", "nose"]}))
    index = prepare(**options(tmp_path, skeleton=str(skeleton), **both))
    assert index.counts == {"train": 14, "validation": 2, "test": 0}
    assert index.skeleton.joints == ("left_ear", "nose")


def test_coco_damage_counts_as_bad(tmp_path):
    source = coco_dataset(tmp_path, "cats", ("nose",))
    file = tmp_path / "cats" / "train.json"
    content = json.loads(file.read_text())
    content["annotations"][0]["keypoints"] = [1, 2]
    content["annotations"][1]["keypoints"] = [0, 0, 0]
    content["annotations"][2]["bbox"] = [1, 2, 0, 5]
    content["annotations"][3]["bbox"] = [50, 2, 5, 5]
    file.write_text(json.dumps(content))
    coco = options(tmp_path, dataset=("coco",), source=(source,))
    with pytest.raises(ValueError) as error:
        prepare(**coco)
    text = str(error.value)
    assert "3 problem(s)" in text and "annotation 0: its 'keypoints' has shape" in text
    assert "is empty; expected x0 < x1" in text
    assert "is outside the 40 x 30 image" in text
    index = prepare(**coco | {"skip_bad": True})
    assert index.counts["train"] == 4
    assert len(index.skipped) == 4


def test_real_lspet_joints_slightly_outside_are_fine(shared_data):
    """Known: im00024, im00712 and im03363 have one labeled joint outside each."""
    people = lsp.read_extended(str(shared_data / "lspet"))["train"]
    people = people.take([23, 711, 3362])
    looked = checks.check_images(list(people.images))
    sizes = {path: one.size for path, one in looked.items()}
    indices, problems = checks.check_people(people, sizes)
    assert indices.tolist() == [0, 1, 2] and not problems
    share = checks.places(people, sizes)["outside"]
    assert share * people.labeled.sum() == pytest.approx(3)


@pytest.mark.slow
def test_real_lsp_and_lspet(shared_data, tmp_path):
    sources = tuple(str(shared_data / name) for name in ("lsp", "lspet"))
    index = prepare(
        **{
            "dataset": ("lsp", "lspet"),
            "source": sources,
            "output": str(tmp_path / "out"),
        }
    )
    assert index.counts == {"train": 9950, "validation": 50, "test": 500}
    assert not index.skipped
    records.verify(index.directory)


def test_the_command_fails_with_a_line_and_no_stack_trace(tmp_path, capsys):
    make_lsp(tmp_path / "lsp", 3)
    (tmp_path / "lsp" / "images" / "im0002.jpg").write_bytes(b"")
    flags = [f"--source={tmp_path / 'lsp'}", f"--output={tmp_path / 'out'}"]
    flags += ["--dataset=lsp", "--validation=0", "--test=0"]
    with pytest.raises(SystemExit) as left:
        toy_run.command(toy_run.script(commands, "prepare"), *flags)
    error = capsys.readouterr().err
    assert left.value.code == 1
    assert "im0002.jpg: empty, zero bytes (leaves out lsp/im0002)" in error
    assert "Traceback" not in error


def test_a_summary_teaches_what_was_made(tmp_path):
    make_lsp(tmp_path / "lsp", 3)
    (tmp_path / "lsp" / "images" / "im0002.jpg").write_bytes(b"")
    text = commands.describe(prepare(**options(tmp_path, skip_bad=True)))
    assert "train 2, validation 0, test 0 people" in text
    assert "6 pairs of left and right; not paired: neck, head_top" in text
    assert "left out: 1, listed in dataset.json: " in text
    assert "im0002.jpg: empty, zero bytes" in text
    assert "nobody to test on: score with deeppose-evaluate --split=train, or" in text


def test_generated_pictures_have_their_own_splits(tmp_path, monkeypatch):
    for split, count in (("train", 3), ("validation", 2), ("test", 1)):
        monkeypatch.setitem(generated.COUNTS, split, count)
    drawn = options(
        tmp_path, dataset=("generated",), validation=50, source=(str(tmp_path / "g"),)
    )
    index = prepare(**drawn)
    assert index.counts == {"train": 3, "validation": 2, "test": 1}
    assert prepare(**drawn) == index


def test_a_person_who_is_shown_often_is_stored_once(tmp_path, monkeypatch):
    for split, count in (("train", 6), ("validation", 0), ("test", 0)):
        monkeypatch.setitem(generated.COUNTS, split, count)
    folders = tuple(str(tmp_path / name) for name in "ab")
    both = options(tmp_path, dataset=("generated", "generated"), source=folders)
    index = prepare(**both, repeat=(3, 1))
    people = read_people(index, "train")
    assert index.counts["train"] == len(people.ids) == 12
    for person, weight in zip(people.ids, people.weights, strict=True):
        assert weight == (3 if person.startswith("1/") else 1)
    assert "an epoch shows 24 people: some of train" in commands.describe(index)
    pictures = sum(p.stat().st_size for f in folders for p in Path(f).rglob("*.jpg"))
    written = sum(p.stat().st_size for p in Path(index.directory).iterdir())
    assert pictures < written < 1.1 * pictures
    assert prepare(**both, repeat=(3, 1)) == index
    with pytest.raises(ValueError, match="--repeat=3,0: give a positive number for"):
        prepare(**both | {"output": str(tmp_path / "other")}, repeat=(3, 0))


def test_few_images_hold_out_a_fifth(tmp_path):
    """Thirty images were refused: fifty of them could not be held out."""
    counts = {"train": 30, "validation": 0, "test": 0}
    people = generated.read(str(tmp_path), "train", counts)
    nobody = people.take([])
    parts = [{"train": people, "validation": nobody, "test": nobody}]
    found, _ = arrange(parts, None, 3, 0)
    assert {split: len(some) for split, some in found.items()} == {
        "train": 21,
        "validation": 6,
        "test": 3,
    }
