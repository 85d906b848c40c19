"""Labels that contradict themselves, their images or how they are usually written: told
for each image, or understood and said so; never believed, never quietly left out."""

import json
import os
import unicodedata

import numpy as np
import pytest
from PIL import Image

from deeppose_tf import skeleton
from deeppose_tf.datasets import coco, images, mpii
from deeppose_tf.pipelines.data import commands, sheet
from deeppose_tf.pipelines.data.prepare import prepare
from deeppose_tf.pipelines.data.records import read_people

WIDTH, HEIGHT = 60, 80
JOINTS = ("nose", "left_shoulder", "right_shoulder", "left_hip", "right_hip")
POSE = [30, 10, 2, 40, 20, 2, 20, 20, 2, 38, 50, 2, 22, 50, 2]


def people(count=3):
    """An annotation file: somebody alone on each image of 60 x 80."""
    numbers = range(1, count + 1)
    return {
        "images": [
            {"id": i, "file_name": f"{i}.png", "width": WIDTH, "height": HEIGHT}
            for i in numbers
        ],
        "annotations": [
            {
                "id": i,
                "image_id": i,
                "category_id": 1,
                "keypoints": list(POSE),
                "bbox": [10, 5, 40, 60],
            }
            for i in numbers
        ],
        "categories": [{"id": 1, "name": "person", "keypoints": list(JOINTS)}],
    }


def draw(path, size=(WIDTH, HEIGHT), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (len(path.name), 90, 30)).save(path, **options)


def write(folder, content, images=True, name="train.json"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(content))
    for image in content["images"] if images else []:
        draw(folder / "images" / image["file_name"])
    return str(folder / name)


def make(tmp_path, source=None, **more):
    options = {"validation": 0, "test": 0, **more}
    return prepare(
        ["coco"], [source or str(tmp_path)], str(tmp_path / "out"), **options
    )


def told(tmp_path, **more):
    """What deeppose-prepare refuses, a line each; and who is left with --skip_bad."""
    with pytest.raises(ValueError) as error:
        make(tmp_path, **more)
    lines = [line for line in str(error.value).splitlines() if line.startswith("  ")]
    index = make(tmp_path, skip_bad=True, **more)
    assert len(index.skipped) == len(lines)
    return lines, [name.rsplit("/")[-1] for name in read_people(index, "train").ids]


# Ids


@pytest.mark.parametrize("image", ["1", 1.0, " 1 ", "1.0"])
@pytest.mark.parametrize("category", ["1", 1.0])
def test_ids_of_another_type_are_the_same_ids(tmp_path, image, category):
    content = people()
    content["annotations"][0] |= {"image_id": image, "category_id": category}
    found = coco.read(write(tmp_path, content))
    assert len(found) == 3 and not found.skipped and not found.damaged
    assert found.images[0].endswith("images/1.png")


@pytest.mark.parametrize("category", ["2", None, [1], "person", 10**400])
def test_a_category_that_is_not_there_is_an_error(tmp_path, category):
    """It was left out as one without keypoints, which is false."""
    content = people()
    content["annotations"][1]["category_id"] = category
    write(tmp_path, content)
    ((line,), left) = told(tmp_path)
    assert "annotation 2: no category has its category_id" in line
    assert "(on 2.png)" in line and left == ["1", "3"]


def test_a_category_without_keypoints_is_rightly_left_out(tmp_path):
    content = people()
    content["categories"].append({"id": 2, "name": "ball"})
    content["annotations"][1]["category_id"] = "2"
    found = coco.read(write(tmp_path, content))
    assert [reason for _, reason in found.skipped] == ["category '2' has no keypoints"]


@pytest.mark.parametrize(
    "crowd, kept", [(None, 3), ("0", 3), (0.0, 3), (False, 3), ("1", 2)]
)
def test_a_crowd_in_other_types(tmp_path, crowd, kept):
    """The text 0 is true to Python, so that everyone was a crowd."""
    content = people()
    content["annotations"][0]["iscrowd"] = crowd
    found = coco.read(write(tmp_path, content))
    assert len(found) == kept and not found.damaged


@pytest.mark.parametrize("crowd, said", [(float("nan"), "nan"), ([1], "[1]")])
def test_a_crowd_that_is_neither_is_told(tmp_path, crowd, said):
    content = people()
    content["annotations"][0]["iscrowd"] = crowd
    found = coco.read(write(tmp_path, content))
    assert f"'iscrowd' is {said}, expected 0 or 1" in found.damaged[0][1]


def test_a_category_id_given_twice(tmp_path):
    """Everyone was left out, as of the second, which has no keypoints."""
    content = people()
    content["categories"].append({"id": "1", "name": "ball"})
    with pytest.raises(ValueError, match="two categories of other joints have the id"):
        coco.read(write(tmp_path, content))
    content["categories"][1] = content["categories"][0] | {"id": 1.0}
    assert len(coco.read(write(tmp_path, content))) == 3


def test_an_image_id_given_twice_names_both_files(tmp_path):
    """The pixels of the second went with the labels of the first."""
    content = people()
    content["images"].append(content["images"][0] | {"file_name": "other.png"})
    content["images"].append(dict(content["images"][1]))  # the same again is harmless
    content["images"].append({"id": 3, "file_name": "3.png"})
    write(tmp_path, content)
    ((line,), left) = told(tmp_path)
    assert (
        "image 1: the id is that of 1.png (60 x 80) and of other.png (60 x 80)" in line
    )
    assert "(leaves out annotation 1)" in line and left == ["2", "3"]


def test_nobody_is_alone_whose_image_has_two_ids(tmp_path):
    """By the ids each would have all of the image for want of a box."""
    content = people(2)
    content["images"][1]["file_name"] = "1.png"
    for annotation in content["annotations"]:
        del annotation["bbox"]
    found = coco.read(write(tmp_path, content))
    assert len(found) == 0 and len(found.damaged) == 2


def test_an_image_that_is_not_listed_is_told_once(tmp_path):
    content = people()
    for annotation in content["annotations"][:2]:
        annotation["image_id"] = 9
    found = coco.read(write(tmp_path, content))
    ((what, reason),) = found.damaged
    assert what.endswith("image 9") and "no image with a file_name" in reason
    assert "annotation 1, annotation 2" in reason


# Images


def test_images_of_another_size_than_labeled(tmp_path):
    """Copies three times as large were trained on with labels in their first ninth."""
    write(tmp_path, people())
    draw(tmp_path / "images" / "2.png", (3 * WIDTH, 3 * HEIGHT))
    ((line,), left) = told(tmp_path)
    assert "2.png: labeled at 60 x 80, the file has 180 x 240" in line
    assert "(leaves out coco/train/2)" in line and left == ["1", "3"]


@pytest.mark.parametrize("size", [{}, {"width": None, "height": 80}, {"width": "x"}])
def test_an_image_of_no_stated_size_is_taken(tmp_path, size):
    content = people(2)
    del content["images"][0]["width"]
    content["images"][0] |= size
    content["images"][1] |= {"width": "60", "height": 80.0}
    write(tmp_path, content)
    assert make(tmp_path).counts["train"] == 2


@pytest.mark.parametrize("size", [0, -60, float("nan"), [60], 10**400])
def test_a_size_that_is_none_is_told(tmp_path, capsys, size):
    content = people()
    content["images"][1]["width"] = size
    write(tmp_path, content)
    assert make(tmp_path).counts["train"] == 3
    assert (
        "1 image(s), such as 2.png, have a width and height" in capsys.readouterr().err
    )


def test_labels_of_stored_pixels_that_exif_turns(tmp_path, capsys):
    """Turned upright the photo has 80 x 60; what was labeled there is understood."""
    content = people()
    content["images"][1] |= {"width": HEIGHT, "height": WIDTH}
    write(tmp_path, content)
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("1.jpg", "2.jpg"):
        draw(tmp_path / "images" / name, exif=exif)
    for image in content["images"][:2]:
        image["file_name"] = image["file_name"].replace("png", "jpg")
    write(tmp_path, content, images=False)
    ((line,), left) = told(tmp_path, convert=True)
    assert "1.jpg: labeled at 60 x 80, the file has 80 x 60 when it is turned" in line
    assert left == ["2", "3"] or left == ["3", "2"]
    assert "2.jpg, are turned by EXIF, and their labels are" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"--convert takes the 1 image\(s\)"):
        prepare(["coco"], [str(tmp_path)], str(tmp_path / "more"), validation=0, test=0)


def test_a_name_that_fits_two_files(tmp_path):
    content = people()
    write(tmp_path, content)
    draw(tmp_path / "1.png", (HEIGHT, WIDTH))
    (tmp_path / "2.png").write_bytes((tmp_path / "images" / "2.png").read_bytes())
    ((line,), left) = told(tmp_path)  # a copy of the same is harmless
    assert "1.png is " in line and "two different files" in line
    assert sorted(left) == ["2", "3"]


@pytest.mark.parametrize("written, stored", [("NFC", "NFD"), ("NFD", "NFC")])
def test_unicode_names_in_either_form(tmp_path, written, stored):
    content = people(1)
    name = "Zoë née Müller.png"
    content["images"][0]["file_name"] = unicodedata.normalize(written, name)
    path = write(tmp_path, content, images=False)
    draw(tmp_path / "images" / unicodedata.normalize(stored, name))
    assert os.path.isfile(coco.read(path).images[0])
    person = {"joints": [[20, 30]] * 16, "joints_vis": [1] * 16}
    person |= {
        "center": [30, 40],
        "scale": 0.3,
        "image": content["images"][0]["file_name"],
    }
    (tmp_path / "mpii.json").write_text(json.dumps([person]))
    read = mpii.read_splits(str(tmp_path / "mpii.json"))["train"]
    assert os.path.isfile(read.images[0])


def test_paths_of_other_machines_are_found_by_their_last_part(tmp_path):
    """Such as Label Studio writes; not where two images would be the same one."""
    content = people(4)
    names = ["/data/upload/7/1.png", "C:\\photos\\2.png", "a/3.png", "b/3.png"]
    for image, name in zip(content["images"], names, strict=True):
        image["file_name"] = name
    path = write(tmp_path, content, images=False, name="result.json")
    for i in (1, 2, 3):
        draw(tmp_path / "images" / f"{i}.png")
    found = coco.read(path)
    assert found.images[0] == str(tmp_path / "images" / "1.png")
    assert found.images[1] == str(tmp_path / "images" / "2.png")
    assert found.images[2] == str(tmp_path / "images" / "a" / "3.png")
    assert found.understood[0].startswith(
        "2 image(s), such as /data/upload/7/1.png, are"
    )


@pytest.mark.parametrize("name", ["x" * 300 + ".png", "\0.png", "images"])
def test_names_that_no_file_can_have(tmp_path, name):
    content = people()
    content["images"][0]["file_name"] = name
    (tmp_path / "images" / "images").mkdir(parents=True)
    write(tmp_path, content, images=False)
    for i in (2, 3):
        draw(tmp_path / "images" / f"{i}.png")
    assert sorted(told(tmp_path)[1]) == ["2", "3"]


# Joints and boxes


def changed(i, *values):
    """The pose with joint i at other values."""
    pose = list(POSE)
    pose[3 * i : 3 * i + len(values)] = values
    return pose


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"keypoints": changed(0, 1e308)}, "joint nose at .* is far outside"),
        ({"keypoints": changed(0, 10**400)}, "'keypoints' has a number that is too"),
        ({"keypoints": changed(1, None)}, "joint left_shoulder is NaN"),
        ({"keypoints": changed(1, 9, 9, float("nan"))}, "visibility of .* left_should"),
        ({"keypoints": changed(1, 9, 9, None)}, "visibility of joint left_shoulder"),
        (
            {"keypoints": [x / 100 for x in POSE]},
            "all its joints are in the first pixel",
        ),
        ({"keypoints": [0, 0, 2] * 5}, r"all its labeled joints are at \(0, 0\)"),
        (
            {"keypoints": [5, 5, 0] * 5},
            "have places, but all are marked not labeled",
        ),
        ({"keypoints": None, "num_keypoints": 5}, "'num_keypoints' counts some"),
        ({"keypoints": {"nose": 1}}, "'keypoints' are not all numbers"),
        ({"keypoints": POSE[3:]}, "expected 15 numbers: x, y, v of 5 joints"),
        ({"bbox": [30, 20, 0, 0]}, "is empty; expected x0 < x1"),
        ({"bbox": [0.1, 0.2, 0.5, 0.6]}, "is smaller than a pixel"),
        ({"bbox": [1, 2, float("nan"), 3]}, "is not finite"),
        ({"bbox": [1, 2, 10**400, 3]}, "'bbox' has a number that is too large"),
        ({"bbox": [1e308, 2, 1e308, 3]}, "is outside the 60 x 80 image"),
        ({"bbox": "10 5 40 60"}, "'bbox' are not all numbers"),
        ({"bbox": [-600, 5, 1200, 60]}, "far larger than the 60 x 80 image"),
        ({"bbox": [0, 0, 6, 6]}, "most of its joints are far outside of its box"),
        ({"bbox": [30, 10, 1, 1]}, "most of its joints are far outside of its box"),
    ],
)
def test_wrong_labels_are_told_with_the_image(tmp_path, changes, says):
    content = people()
    content["annotations"][1] |= changes
    write(tmp_path, content)
    lines, left = told(tmp_path)
    assert len(lines) == 1 and "2.png" in lines[0]
    with pytest.raises(ValueError, match=says):
        raise ValueError(lines[0])
    assert sorted(left) == ["1", "3"]


def test_joints_at_the_origin_are_not_labeled_and_counted(tmp_path, capsys):
    """They were learned to be in the first pixel; -1, -1 is as usual."""
    content = people()
    content["annotations"][0]["keypoints"] = changed(0, 0, 0, 2)
    content["annotations"][1]["keypoints"] = changed(4, -1, -1, 1)
    content["annotations"][2]["keypoints"] = changed(4, 22, 50, 0)
    write(tmp_path, content)
    index = make(tmp_path)
    assert read_people(index, "train").labeled.sum() == 3 * 5 - 3
    said = capsys.readouterr().err
    assert "WARNING coco train: 2 joint(s) at (0, 0) or (-1, -1), marked as" in said
    assert "1 joint(s) with a place, marked as not labeled, are taken as not" in said


def test_nobody_labeled_is_rightly_left_out(tmp_path):
    content = people()
    content["annotations"][0]["keypoints"] = [0] * 15
    content["annotations"][1] |= {"keypoints": [], "num_keypoints": 0}
    found = coco.read(write(tmp_path, content))
    assert [why for _, why in found.skipped] == ["no joint is labeled"] * 2


def test_mpii_is_read_with_the_same_suspicion(tmp_path):
    one = {"image": "1.png", "center": [30, 40], "scale": 0.3}
    one |= {"joints": [[20 + i, 30] for i in range(16)], "joints_vis": [1] * 16}
    nan = one | {"joints_vis": [float("nan")] * 16}
    large = one | {"joints": [[10**400, 1]] * 16}
    origin = one | {"joints": [[0, 0], [-1, -1]] + one["joints"][2:]}
    (tmp_path / "x.json").write_text(json.dumps([one, nan, large, origin]))
    read = mpii.read_splits(str(tmp_path / "x.json"))["train"]
    assert read.labeled.sum(axis=1).tolist() == [16, 14]
    assert [reason.split(" (on")[0] for _, reason in read.damaged] == [
        "the visibility of joint right_ankle is NaN or infinite",
        "its 'joints' has a number that is too large",
    ]


def test_places_in_per_cent_are_suspicious(tmp_path, capsys):
    content = people()
    for image in content["images"]:
        image |= {"width": 600, "height": 800}
        draw(tmp_path / "images" / image["file_name"], (600, 800))
    write(tmp_path, content, images=False)
    make(tmp_path)
    assert "within the first 100 pixels of images of 600" in capsys.readouterr().err


def shifted(x, y):
    """The pose further to the right and below."""
    return [value + (x, y, 0)[i % 3] for i, value in enumerate(POSE)]


@pytest.mark.parametrize(
    "label, says",
    [
        # From the centre instead of the corner: all but the hip at (38, 50) are left of
        # x = 30 or above y = 35.
        ({"bbox": [30, 35, 40, 60]}, "80% of the joints are outside of their people's"),
        # Joints from the corner of the box: nose, right shoulder and hip are out.
        (
            {"bbox": [15, 8, 30, 50], "keypoints": shifted(-15, -8)},
            "60% of the joints are outside of their people's boxes",
        ),
        # Shares of the width, and pixels of the height.
        (
            {"keypoints": [x / (60, 1, 1)[i % 3] for i, x in enumerate(POSE)]},
            "100% of the joints are outside of their people's boxes",
        ),
        # The place of the nose stands for both hips: two joints of five too many.
        (
            {"keypoints": POSE[:9] + 2 * POSE[:3]},
            "40% of the joints are where another joint of the same person is",
        ),
    ],
)
def test_labels_that_contradict_themselves_are_suspicious(
    tmp_path, capsys, label, says
):
    content = people()
    for annotation in content["annotations"]:
        annotation |= label
    write(tmp_path, content)
    make(tmp_path)
    assert f"WARNING coco train: {says}" in capsys.readouterr().err


# Skeletons


@pytest.mark.parametrize(
    "edges, says",
    [
        ([[0, 1], [1, 2]], None),
        ([[0.0, "1"], [1, 2.0]], None),
        ([[1, 2], [2, 3]], None),
        ([[0, 1], [1, 5]], "expected two joint numbers from 1 to 5, or all"),
        ([[1, 2], [3, 3]], "has \\[3, 3\\], expected two joint numbers"),
        ([[1, 6]], "from 1 to 5, or all of them from 0 to 4. Mend it, or give a --sk"),
        ([[1, -1]], "from 1 to 5"),
        ([[1, 2.5]], "expected two joint numbers"),
        ([[1, float("nan")]], "expected two joint numbers"),
        ([[1, float("inf")]], "expected two joint numbers"),
        ([[1, 10**400]], "expected two joint numbers"),
        ([[1]], "expected two joint numbers"),
        ([1], "expected two joint numbers"),
        ([["a", "b"]], "expected two joint numbers"),
    ],
)
def test_how_limbs_count_joints(tmp_path, edges, says):
    content = people(1)
    content["categories"][0]["skeleton"] = edges
    path = write(tmp_path, content)
    if says:
        with pytest.raises(ValueError, match=f"train.json: .*{says}"):
            coco.read(path)
        return
    found = coco.read(path)
    names = [limb.name for limb in found.skeleton.limbs]
    assert names == ["nose - left_shoulder", "left_shoulder - right_shoulder"]
    assert bool(found.understood) == (edges[0][0] == 0)


def test_limbs_from_zero_without_a_zero_are_told_by_arms_and_legs():
    """Counted from one they would join the nose to an elbow."""
    joints = ["nose", *(f"left_{part}" for part in ("shoulder", "elbow", "wrist"))]
    joints += ["right_shoulder", "right_elbow", "right_wrist", "tail"]
    edges = [[1, 2], [2, 3], [4, 5], [5, 6]]
    one = {"keypoints": joints, "skeleton": edges}
    assert coco.first_joint(one) == 0
    types = [limb.type for limb in coco.skeleton_of(one).limbs]
    assert types == ["upper_arm", "lower_arm"] * 2
    shifted = one | {"skeleton": [[a + 1, b + 1] for a, b in edges]}
    assert coco.first_joint(shifted) == 1
    assert coco.skeleton_of(shifted).limbs == coco.skeleton_of(one).limbs


SPELLINGS = {
    "l_shoulder": "{l}_{part}",
    "shoulder_left": "{part}_{left}",
    "LShoulder": "{L}{Part}",
    "shoulder (left)": "{part} ({left})",
    "Left Shoulder": "{Left} {Part}",
    "leftShoulder": "{left}{Part}",
    "shoulderL": "{part}{L}",
    "SHOULDER.L": "{PART}.{L}",
    "L-shoulder": "{L}-{part}",
    "lshoulder": "{l}{part}",
    "LSHOULDER": "{L}{PART}",
    "leftshoulder": "{left}{part}",
    "shoulder_lt": "{part}_{l}t",
    "l_sho": "{l}_{part:.3}",
}


@pytest.mark.parametrize("pattern", SPELLINGS.values(), ids=SPELLINGS)
def test_how_joints_are_spelled_decides_nothing(pattern):
    """Pairs, diagonals and limb types are those of COCO's own names."""
    names = []
    for name in skeleton.COCO.joints:
        side, _, part = name.rpartition("_")
        words = {
            "left": side,
            "Left": side.title(),
            "l": side[:1],
            "L": side[:1].upper(),
        }
        words |= {"part": part, "Part": part.title(), "PART": part.upper()}
        names.append(pattern.format(**words) if side else part.title())
    edges = [[a + 1, b + 1] for a, b in skeleton.COCO.pairs] + [[6, 8], [13, 15]]
    own, other = (
        coco.skeleton_of({"keypoints": joints, "skeleton": edges})
        for joints in (list(skeleton.COCO.joints), names)
    )
    assert other.canonical == skeleton.COCO.joints
    assert other.pairs == skeleton.COCO.pairs
    assert other.diagonals == skeleton.COCO.diagonals
    assert [x.type for x in other.limbs] == [x.type for x in own.limbs]
    # Joints of a skeleton given apart are picked in whatever spelling.
    category = {"id": 1, "keypoints": names}
    assert coco._order(category, skeleton.COCO, True) == (17, list(range(17)))


def test_a_side_that_is_glued_to_a_name_needs_its_partner():
    names = ("lip", "rib", "lear", "rear", "l1", "r1", "collar")
    assert skeleton.canonical_names(names) == (
        "lip", "rib", "left_ear", "right_ear", "left_1", "right_1", "collar"
    )  # fmt: skip


def test_a_skeleton_file_is_told_by_names_where_it_says_nothing():
    given = {"joints": ["LShoulder", "RShoulder", "LHip", "RHip"]}
    one = skeleton.from_json(given)
    assert one.pairs == ((0, 1), (2, 3)) and one.diagonals == ((0, 3), (1, 2))
    none = skeleton.from_json(given | {"pairs": [], "diagonals": []})
    assert none.pairs == none.diagonals == ()


def test_a_skeleton_without_sides_or_torso_is_a_warning(tmp_path, capsys):
    content = people()
    content["categories"][0]["keypoints"] = ["a", "b", "c", "d", "e"]
    write(tmp_path, content)
    make(tmp_path)
    said = capsys.readouterr().err
    assert "WARNING coco: no pairs of left and right are understood from" in said
    assert "WARNING coco: no torso, such as left_shoulder to right_hip, is" in said


# Layouts


def test_a_byte_order_mark_anywhere(tmp_path):
    source = tmp_path / "train.json"
    write(tmp_path, people())
    source.write_bytes(b"\xef\xbb\xbf" + source.read_bytes())
    given = tmp_path / "skeleton.json"
    given.write_bytes(b"\xef\xbb\xbf" + json.dumps({"joints": ["nose"]}).encode())
    assert coco.read(str(source), str(given)).skeleton.joints == ("nose",)
    utf16 = json.dumps({"joints": ["nose"]}).encode("utf-16")
    given.write_bytes(utf16)
    assert skeleton.load(str(given)).joints == ("nose",)


def test_the_layout_of_cvat(tmp_path):
    write(
        tmp_path / "annotations",
        people(),
        images=False,
        name="person_keypoints_default.json",
    )
    for i in (1, 2, 3):
        draw(tmp_path / "images" / "default" / f"{i}.png")
    assert make(tmp_path).counts["train"] == 3


def test_the_subsets_of_cvat(tmp_path):
    for split, count in (("Train", 3), ("Validation", 2), ("Test", 1)):
        name = f"person_keypoints_{split}.json"
        write(tmp_path / "annotations", people(count), images=False, name=name)
        for i in range(1, count + 1):
            draw(tmp_path / "images" / split / f"{i}.png")
    index = make(tmp_path)
    assert index.counts == {"train": 3, "validation": 2, "test": 1}


def test_the_layout_of_roboflow(tmp_path):
    """Its root category has no keypoints; ids of the splits are told apart."""
    for split, count in (("train", 3), ("valid", 2), ("test", 1)):
        content = people(count)
        content["categories"].insert(0, {"id": 0, "name": "people"})
        write(tmp_path / split, content, images=False, name="_annotations.coco.json")
        for i in range(1, count + 1):
            draw(tmp_path / split / f"{i}.png")
    index = make(tmp_path)
    assert index.counts == {"train": 3, "validation": 2, "test": 1}
    assert read_people(index, "test").ids == ("coco/test/1",)


def test_a_part_for_testing_alone_is_not_trained_on(tmp_path):
    """It was, as the lone file of a folder."""
    write(tmp_path / "test", people(), name="_annotations.coco.json")
    index = make(tmp_path)
    assert index.counts == {"train": 0, "validation": 0, "test": 3}
    (tmp_path / "test").rename(tmp_path / "dev")
    found = coco.read_splits(str(tmp_path))
    assert [len(found[split]) for split in found] == [0, 3, 0]
    write(tmp_path / "Training", people(2), name="_annotations.coco.json")
    found = coco.read_splits(str(tmp_path))
    assert [len(found[split]) for split in found] == [2, 3, 0]


def test_images_to_test_on_that_are_trained_on_are_told(tmp_path, capsys):
    write(tmp_path, people(3))
    write(tmp_path, people(2), images=False, name="TEST.JSON")
    assert make(tmp_path).counts == {"train": 3, "validation": 0, "test": 2}
    said = capsys.readouterr().err
    assert "WARNING coco test: 2 image(s), such as " in said and "also in train" in said


def test_a_lone_file_of_any_name_is_for_training(tmp_path):
    """Other JSON beside it, such as results, is none of these."""
    write(tmp_path, people(), name="my labels.json")
    (tmp_path / "results.json").write_text("[]")
    (tmp_path / "notes.json").write_text("{")
    assert make(tmp_path).counts["train"] == 3
    write(tmp_path, people(), name="more.json")
    with pytest.raises(ValueError, match="several files for train: more.json, my lab"):
        coco.read_splits(str(tmp_path))


def test_a_folder_without_a_training_part_names_its_files(tmp_path):
    """Beside val.json, which is for validation, people.json was silently left out, and
    the training part was called empty."""
    for name in ("val.json", "people.json"):
        write(tmp_path, people(), name=name)
    with pytest.raises(ValueError, match="neither .* files: people.json, val.json. Gi"):
        coco.read_splits(str(tmp_path))
    (tmp_path / "people.json").unlink()  # of validation alone, beside another data set
    assert len(coco.read_splits(str(tmp_path))["validation"]) == 3
    (tmp_path / "val.json").unlink()
    for number in range(22):
        (tmp_path / f"{number:02}.json").write_text("[]")
    with pytest.raises(ValueError, match="18.json, 19.json, and 2 more. Give"):
        coco.read_splits(str(tmp_path))


def test_val_of_coco_is_for_testing_unless_there_is_a_test_part(tmp_path):
    for split in ("train2017", "val2017"):
        name = f"person_keypoints_{split}.json"
        write(tmp_path / "annotations", people(2), images=False, name=name)
    found = coco.read_splits(str(tmp_path))
    assert (len(found["validation"]), len(found["test"])) == (0, 2)
    write(tmp_path, people(1), images=False, name="test.json")
    found = coco.read_splits(str(tmp_path))
    assert (len(found["validation"]), len(found["test"])) == (2, 1)


def test_commas_in_paths():
    """One data set is one path."""
    assert commands._sources("/home/Meier, Ana/x", 1) == ["/home/Meier, Ana/x"]
    assert commands._sources("a, b", 2) == ["a", "b"]
    assert commands._sources('"Meier, Ana",b', 2) == ["Meier, Ana", "b"]
    with pytest.raises(ValueError, match="a,b: no such .*; several need a --dataset"):
        commands._require_there(
            {
                "dataset": ["coco"],
                "source": ["a,b"],
                "flic_plus": "",
                "boxes_from": "",
                "teacher": [],
            }
        )


# What is told at the end


def test_the_summary_can_be_checked_at_a_glance(tmp_path):
    """Of 15 joints one is not labeled, one is left of its image, one in the first
    pixel; the third has no torso labeled."""
    content = people()
    content["categories"][0]["skeleton"] = [[1, 2]]
    content["annotations"][0]["keypoints"] = changed(0, -5, 10, 2)
    content["annotations"][1]["keypoints"] = changed(0, 0.25, 0.25, 2)
    content["annotations"][2]["keypoints"] = POSE[:9] + [0, 0, 0] + [0, 0, 0]
    write(tmp_path, content)
    text = commands.describe(make(tmp_path))
    assert "pairs: left_shoulder - right_shoulder, left_hip - right_hip\n" in text
    assert "limbs: nose - left_shoulder\n" in text
    assert "measured by: from right shoulder to left hip, or left shoulder to" in text
    assert "train: 3 people on 3 images, 4.3 labeled joints each (3 to 5), " in text
    assert "7.7% of them outside of the image, 7.7% in its first pixel; 1 per" in text


def test_the_sheet_shows_sixteen_people(tmp_path):
    write(tmp_path, people(20))
    index = make(tmp_path)
    sheet.write(index)
    path = tmp_path / "out" / sheet.NAME
    drawn = np.array(Image.open(path))
    assert drawn.shape[1] == 4 * (sheet.CELL + 6) + 6
    # Four rows of cells, their captions and the legend.
    assert 4 * sheet.CELL < len(drawn) < 4 * (sheet.CELL + 40)
    assert f"look at them: {path}" in commands.describe(index)
    path.write_bytes(b"kept")
    sheet.write(index)
    assert path.read_bytes() == b"kept"


@pytest.mark.parametrize("convention", ["person", "observer"])
def test_the_sheet_says_whose_left_is_left(tmp_path, monkeypatch, convention):
    """It said "the person's left" of observer-centric labels, too."""
    write(tmp_path, people(1))
    index, legends = make(tmp_path), []
    index.provenance["arguments"]["convention"] = convention
    monkeypatch.setattr(sheet.draw, "contact_sheet", lambda *how: legends.append(how))
    monkeypatch.setattr(sheet.draw, "write_image", lambda *what: None)
    sheet.write(index)
    *sides, meant = legends[0][-1]
    assert sides == ["left", "right", "middle"]
    assert meant.startswith(f"{convention}-centric: left is ")


def test_a_large_gray_image_is_converted_within_max_pixels(tmp_path, monkeypatch):
    """The limit that was asked for held for the header alone, and the usual one after
    it. What is wrong while an image is converted is one of the problems."""
    write(tmp_path, people(2))
    Image.new("L", (WIDTH, HEIGHT)).save(tmp_path / "images" / "1.png")
    read, limits = images.read_image, []

    def spy(path, max_pixels=images.MAX_PIXELS):
        limits.append(max_pixels)
        return read(path, max_pixels)

    monkeypatch.setattr(images, "read_image", spy)
    assert make(tmp_path, convert=True, max_pixels=60 * 80).counts["train"] == 2
    assert limits == [60 * 80]
    (tmp_path / "images" / "2.png").write_bytes(b"")
    (tmp_path / "more").mkdir()
    with pytest.raises(ValueError, match=r"1 problem.*\n.*2.png: empty"):
        prepare(["coco"], [str(tmp_path)], str(tmp_path / "more" / "out"), convert=True)


WRONG = (None, True, "x", "", -1, 0, 2.5, 1e308, float("nan"), 10**400, [], {}, [[1]])


def places(value, place=()):
    """Where a JSON value has values."""
    parts = value if isinstance(value, dict) else range(len(value))
    for key in parts:
        yield *place, key
        if isinstance(value[key], dict | list):
            yield from places(value[key], (*place, key))


def test_no_value_anywhere_breaks_the_reader(tmp_path):
    """Each place of a file takes each wrong value: it is read, or it is told which
    file; people are read or left out with a reason, and nobody is lost."""
    content = people(2)
    content["categories"][0]["skeleton"] = [[1, 2]]
    write(tmp_path, content)
    text, path = json.dumps(content), tmp_path / "train.json"
    for place in places(content):
        for value in WRONG:
            spoilt = json.loads(text)
            part = spoilt
            for key in place[:-1]:
                part = part[key]
            part[place[-1]] = value
            path.write_text(json.dumps(spoilt))
            try:
                found = coco.read(str(path))
            except ValueError as error:
                assert "train.json" in str(error), (place, value)
                continue
            left_out = [why for _, why in (*found.skipped, *found.damaged)]
            named = sum(why.count("annotation ") or 1 for why in left_out)
            assert len(found) + named == len(spoilt["annotations"]), (place, value)
