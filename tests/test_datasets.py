"""Readers: known counts of the real releases, and what broken files say."""

import json
import pathlib

import numpy as np
import pytest
import scipy.io
from PIL import Image
from toy_lsp import HEIGHT, WIDTH, encode, make_lsp, save, spoilt_images

from deeppose_tf.datasets import coco, images, lsp
from deeppose_tf.pipelines.data import checks
from deeppose_tf.skeleton import COCO, LSP, to_json


def test_real_lsp_labels_all_joints_though_7_percent_are_occluded(shared_data):
    raw = scipy.io.loadmat(shared_data / "lsp" / "joints.mat")["joints"]
    train = lsp.read_splits(str(shared_data / "lsp"))["train"]
    test = lsp.read_splits(str(shared_data / "lsp"))["test"]
    assert raw[2].mean() == pytest.approx(0.073, abs=0.0005)
    assert train.labeled.all() and test.labeled.all()
    assert (len(train), len(test)) == (1000, 500)
    assert (test.ids[0], test.ids[-1]) == ("lsp/im1001", "lsp/im1500")
    # Column 1000 is image 1001; MATLAB's pixel 1 has its centre at 0.5.
    np.testing.assert_allclose(test.keypoints[0, 4], raw[:2, 4, 1000] - 0.5, rtol=1e-6)
    assert not train.boxes.any()
    assert train.skeleton == LSP


def test_real_lspet_is_one_based_where_labeled_and_for_training(shared_data):
    """How many are labeled is in test_known_answers."""
    raw = scipy.io.loadmat(shared_data / "lspet" / "joints.mat")["joints"]
    parts = lsp.read_extended(str(shared_data / "lspet"))
    people = parts["train"]
    assert not people.keypoints[~people.labeled].any()
    known = people.labeled[7]
    np.testing.assert_allclose(
        people.keypoints[7][known], raw[known, :2, 7] - 0.5, rtol=1e-6
    )
    assert len(parts["test"]) == 0


def test_real_left_and_right_are_the_persons_own(shared_data):
    """im0001 runs towards the camera, im0018 is seen from behind (looked at)."""
    people = lsp.read_splits(str(shared_data / "lsp"))["train"]
    left, right = (LSP.joints.index(f"{side}_shoulder") for side in ("left", "right"))
    facing, behind = people.keypoints[0], people.keypoints[17]
    assert facing[left, 0] > facing[right, 0]
    assert behind[left, 0] < behind[right, 0]


def test_observer_centric_joints_are_a_file_of_their_own(tmp_path):
    joints = make_lsp(tmp_path, 3)
    with pytest.raises(ValueError, match="joints-OC.mat: no such file.*relabeling"):
        lsp.read_splits(str(tmp_path), "observer")["train"]
    swapped = joints[:2].copy()
    swapped[:, :, 1] = joints[:2, LSP.mirror, 1]
    save(tmp_path, swapped, "lsp-joints-OC.mat")
    person = lsp.read_splits(str(tmp_path))["train"].keypoints
    observer = lsp.read_splits(str(tmp_path), "observer")["train"].keypoints
    np.testing.assert_array_equal(observer[[0, 2]], person[[0, 2]])
    np.testing.assert_array_equal(observer[1], person[1][list(LSP.mirror)])


def test_real_observer_centric_joints(shared_data, tmp_path):
    """The published labels of both kinds, of 500 people in the small release's pixels:
    the same points, and other sides of 192 people."""
    path = shared_data / "metrics_reference" / "lsp_predictions.mat"
    published = scipy.io.loadmat(path)
    (tmp_path / "images").mkdir()
    save(tmp_path, published["gt_person_centric"])
    save(tmp_path, published["gt_observer_centric"], "joints-OC.mat")
    person = lsp.read_splits(str(tmp_path))["train"].keypoints
    observer = lsp.read_splits(str(tmp_path), "observer")["train"].keypoints
    assert (person != observer).any(axis=(1, 2)).sum() == 192
    # Beside the labels of all images they would be taken for those of the first 500.
    everyone = scipy.io.loadmat(shared_data / "lsp" / "joints.mat")["joints"]
    save(tmp_path, everyone)
    with pytest.raises(ValueError, match="labels 500 people, and .* beside it 1500"):
        lsp.read_splits(str(tmp_path), "observer")["test"]
    everyone[:2, 6:12, ::3] = everyone[:2, 11:5:-1, ::3]  # arms, of every third person
    save(tmp_path, everyone, "joints-OC.mat")
    assert len(lsp.read_splits(str(tmp_path), "observer")["test"]) == 500
    save(tmp_path, everyone / 2, "joints-OC.mat")
    with pytest.raises(ValueError, match="of 1500 of 1500 people .* 0.50 times"):
        lsp.read_splits(str(tmp_path), "observer")["test"]


def test_a_copy_of_the_person_centric_joints_is_not_observer_centric(tmp_path):
    joints = make_lsp(tmp_path, 3)
    joints[:2] += 0.25  # of other roundings
    save(tmp_path, joints, "joints-OC.mat")
    with pytest.raises(ValueError, match="joints-OC.mat: is joints.mat under another"):
        lsp.read_splits(str(tmp_path), "observer")["train"]


def test_observer_centric_joints_without_the_others(tmp_path):
    joints = make_lsp(tmp_path, 6)
    save(tmp_path, joints[:2], "joints-OC.mat")
    (tmp_path / "joints.mat").unlink()
    assert len(lsp.read_splits(str(tmp_path), "observer")["train"]) == 6
    save(tmp_path, joints[:2, :, :2], "joints-OC.mat")
    with pytest.raises(ValueError, match="labels 2 people, .* last .* is number 6"):
        lsp.read_splits(str(tmp_path), "observer")["train"]


def test_observer_centric_joints_of_others_in_the_same_pixels(tmp_path):
    """Also where a missing joint and one careless person are let pass."""
    joints = make_lsp(tmp_path, 40)
    changed = joints[:2].copy()
    changed[:, 3, 2], changed[:, :, 5] = np.nan, 1
    save(tmp_path, changed, "joints-OC.mat")
    assert len(lsp.read_splits(str(tmp_path), "observer")["train"]) == 40
    save(tmp_path, changed[:, :, ::-1], "joints-OC.mat")
    with pytest.raises(ValueError, match="of 40 of 40 people are not those of"):
        lsp.read_splits(str(tmp_path), "observer")["train"]


def test_nan_joints_are_not_labeled_and_stay_nan(tmp_path):
    joints = make_lsp(tmp_path, 3)
    joints[0, 5, 1] = np.nan
    save(tmp_path, joints)
    people = lsp.read_splits(str(tmp_path))["train"]
    assert not people.labeled[1, 5] and people.labeled.sum() == 3 * 14 - 1
    assert np.isnan(people.keypoints[1, 5, 0])


@pytest.mark.parametrize(
    "shape, says",
    [((14, 3, 6), "read it as lspet"), ((3, 13, 6), r"expected \(3, 14, N\)")],
)
def test_wrong_shapes_are_named(tmp_path, shape, says):
    make_lsp(tmp_path)
    save(tmp_path, np.ones(shape))
    with pytest.raises(ValueError, match=f"joints.mat: 'joints' has shape.*{says}"):
        lsp.read_splits(str(tmp_path))["train"]


def test_lspet_names_lsp_by_its_shape(tmp_path):
    make_lsp(tmp_path)
    with pytest.raises(ValueError, match="read it as lsp$"):
        lsp.read_extended(str(tmp_path))["train"]


@pytest.mark.parametrize(
    "content, says",
    [
        (b"", "empty, damaged or not a MATLAB"),
        (b"<html>", "empty, damaged or not a MATLAB"),
        (None, "no such file. Give the folder of the official release"),
    ],
)
def test_broken_mat_files_are_named(tmp_path, content, says):
    make_lsp(tmp_path)
    file = tmp_path / "joints.mat"
    file.unlink() if content is None else file.write_bytes(content)
    with pytest.raises(ValueError, match=f"joints.mat: {says}"):
        lsp.read_splits(str(tmp_path))["train"]


def test_truncated_mat_file_is_named(tmp_path):
    make_lsp(tmp_path)
    file = tmp_path / "joints.mat"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ValueError, match="joints.mat: empty, damaged"):
        lsp.read_splits(str(tmp_path))["train"]


def test_no_permission_is_not_damage(tmp_path, monkeypatch):
    make_lsp(tmp_path)

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(pathlib.Path, "read_bytes", refuse)
    with pytest.raises(OSError, match="Permission denied: .*joints.mat"):
        lsp.read_splits(str(tmp_path))["train"]


def test_other_variables_are_listed(tmp_path):
    make_lsp(tmp_path)
    scipy.io.savemat(tmp_path / "joints.mat", {"annotations": np.ones(3)})
    with pytest.raises(ValueError, match="no variable 'joints', only: annotations"):
        lsp.read_splits(str(tmp_path))["train"]


def test_a_folder_too_high_is_told_which_to_give(tmp_path):
    make_lsp(tmp_path / "lsp_dataset")
    with pytest.raises(ValueError, match=r"There is one in .*lsp_dataset: give that"):
        lsp.read_splits(str(tmp_path))["train"]


def test_images_folder_missing(tmp_path):
    make_lsp(tmp_path)
    (tmp_path / "images").rename(tmp_path / "pictures")
    with pytest.raises(ValueError, match="images: no such folder"):
        lsp.read_splits(str(tmp_path))["train"]


# A PNG without its end is sound to Pillow; the check with TensorFlow finds it.
@pytest.mark.parametrize(
    "kind", sorted(spoilt_images().keys() - {"png without its end"})
)
def test_inspect_says_what_is_wrong(tmp_path, kind):
    says, content = spoilt_images()[kind]
    path = tmp_path / "x.jpg"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"x.jpg: .*{says}"):
        images.inspect(str(path))


def test_inspect_missing_file_and_size(tmp_path):
    with pytest.raises(ValueError, match="nowhere.jpg: no such file"):
        images.inspect(str(tmp_path / "nowhere.jpg"))
    Image.new("RGB", (30, 20)).save(tmp_path / "x.png")
    assert images.inspect(str(tmp_path / "x.png")) == (20, 30)
    with pytest.raises(ValueError, match="30 x 20 is more than 599 pixels"):
        images.inspect(str(tmp_path / "x.png"), max_pixels=599)


def test_postscript_is_not_run(tmp_path):
    """Pillow hands it to Ghostscript, whatever the file is called."""
    path = tmp_path / "a.jpg"
    path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n")
    with pytest.raises(ValueError, match="a.jpg: PostScript, a program"):
        images.read_image(str(path))


def test_what_is_wrong_with_a_photo_is_said_of_that_photo(tmp_path):
    """A gray photo over the usual limit ended all, whatever --max_pixels said. Pillow
    warns of one as large as this."""
    Image.new("L", (9500, 9500)).save(tmp_path / "large.png")
    Image.new("L", (9, 9)).save(tmp_path / "small.png")
    large, small = (str(tmp_path / f"{name}.png") for name in ("large", "small"))
    found = checks.check_images([large, small], 100_000_000)
    sizes = {path: one.size for path, one in found.items()}
    assert sizes == {large: (9500, 9500), small: (9, 9)}
    assert all(one.unusual for one in found.values())
    found = checks.check_images([large, small])
    assert found[small].unusual and found[large].size is None
    assert "9500 x 9500 is more than 50000000 pixels" in found[large].wrong


def test_read_image_turns_and_converts(tmp_path):
    """Orientation 6: the stored left column is what is seen at the top."""
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[:, 0] = (255, 0, 0)
    turned = Image.Exif()
    turned[0x0112] = 6
    path = tmp_path / "x.png"
    path.write_bytes(encode(Image.fromarray(pixels), "PNG", exif=turned))
    upright = images.read_image(str(path))
    assert upright.shape == (6, 4, 3)
    assert (upright[0] == (255, 0, 0)).all() and not upright[1:].any()
    content, height, width = images.encoded(str(path), convert=True)
    assert (height, width) == (6, 4)
    path.write_bytes(content)
    assert images.inspect(str(path)) == (6, 4)
    np.testing.assert_array_equal(images.read_image(str(path)), upright)


def test_read_image_scales_16_bits(tmp_path):
    """40000 of 65535 is 155.6 of 255."""
    path = tmp_path / "x.png"
    path.write_bytes(spoilt_images()["16-bit"][1])
    image = images.read_image(str(path))
    assert image.shape == (HEIGHT, WIDTH, 3) and (image == 156).all()


# COCO


def coco_file(path, annotations, joints=("tail", "left_paw", "right_paw"), edges=None):
    """Writes an annotation file about two images, 1 and 2; returns its path."""
    category = {"id": 7, "name": "cat", "keypoints": list(joints)}
    content = {
        "images": [{"id": i, "file_name": f"{i}.jpg"} for i in (1, 2)],
        "categories": [category | {"skeleton": edges or [[1, 2], [1, 3]]}],
        "annotations": annotations,
    }
    path.write_text(json.dumps(content))
    return str(path)


def cat(key, image=1, **changes):
    """Tail labeled, left paw hidden but labeled, right paw not labeled."""
    return {
        "id": key,
        "image_id": image,
        "category_id": 7,
        "bbox": [10, 20, 30, 40],
        "keypoints": [12, 25, 2, 14, 26, 1, 0, 0, 0],
    } | changes


def test_real_coco(shared_data):
    """Known answers: test_coco.json, 14 people of whom 2 have no labeled joint."""
    folder = shared_data / "mmpose_samples" / "coco"
    people = coco.read(str(folder / "test_coco.json"))
    assert len(people) == 12 and len(people.skipped) == 2 and not people.damaged
    assert people.skeleton.joints == COCO.joints
    assert people.skeleton.pairs == COCO.pairs
    assert people.skeleton.diagonals == COCO.diagonals
    assert len(people.skeleton.limbs) == 19
    assert people.labeled.sum(axis=1).tolist() == [
        17, 14, 15, 15, 15, 12, 17, 16, 16, 15, 16, 13
    ]  # fmt: skip
    # The first: nose (367, 81), box 280.79, 44.73, 218.7 x 346.68.
    np.testing.assert_allclose(people.keypoints[0, 0], (367.5, 81.5))
    np.testing.assert_allclose(people.boxes[0], (280.79, 44.73, 499.49, 391.41))
    assert people.images[0] == str(folder / "000000000785.jpg")


def test_coco_skeleton_and_labels_of_ones_own(tmp_path):
    people = coco.read(coco_file(tmp_path / "train.json", [cat(1)]))
    assert people.ids == ("coco/train/1",)
    assert people.skeleton.name == "cat"
    assert people.skeleton.pairs == ((1, 2),)
    limbs = [(x.name, x.type, x.start, x.end) for x in people.skeleton.limbs]
    assert limbs == [
        ("tail - left_paw", "paw - tail", (0,), (1,)),
        ("tail - right_paw", "paw - tail", (0,), (2,)),
    ]
    assert people.labeled.tolist() == [[True, True, False]]
    np.testing.assert_allclose(
        people.keypoints[0], [[12.5, 25.5], [14.5, 26.5], [0, 0]]
    )
    np.testing.assert_allclose(people.boxes, [[10, 20, 40, 60]])


@pytest.mark.parametrize(
    "names",
    [
        ("left_knee", "right_knee"),
        ("Left Knee", "Right Knee"),
        ("knee_l", "knee_r"),
        ("leftKnee", "rightKnee"),
        ("L-Knee", "R-Knee"),
    ],
)
def test_sides_are_told_by_name(names):
    joints = ["nose", names[1], names[0]]
    assert coco.skeleton_of({"keypoints": joints}).pairs == ((2, 1),)


def test_coco_leaves_out_and_says_why(tmp_path):
    path = coco_file(
        tmp_path / "train.json",
        [
            cat(1),
            cat(2, keypoints=[0] * 9),
            cat(3, iscrowd=1),
            cat(4, category_id=1),
            cat(5, keypoints=[1, 2, 2]),
            cat(6, image=3),
            cat(1, image=2),
            cat(8, bbox=[1, 2, 3]),
            cat(9, bbox=None),
            cat(10, keypoints=["a"] * 9),
        ],
    )
    people = coco.read(path)
    assert people.ids == ("coco/train/1",)
    assert people.skipped == (
        (f"{path}: annotation 2", "no joint is labeled"),
        (f"{path}: annotation 3", "a crowd, not one person"),
    )
    reasons = [reason for _, reason in people.damaged]
    expected = [
        "no image",
        "no category has its category_id 1",
        "expected 9 numbers",
        "same id",
        "'bbox' has shape",
        "no 'bbox'",
        "not all numbers",
    ]
    assert len(reasons) == len(expected)
    for reason, part in zip(reasons, expected, strict=True):
        assert part in reason


def test_coco_without_a_box_takes_the_whole_image_of_one_alone(tmp_path):
    path = coco_file(tmp_path / "train.json", [cat(1, bbox=None)])
    assert not coco.read(path).boxes.any()


def test_coco_nan_is_not_labeled_and_stays(tmp_path):
    path = coco_file(
        tmp_path / "train.json",
        [cat(1, keypoints=[float("nan"), 1, 2] + [5, 5, 2] * 2)],
    )
    people = coco.read(path)
    assert people.labeled.tolist() == [[False, True, True]]
    assert np.isnan(people.keypoints[0, 0, 0])


def test_coco_skeleton_given_picks_joints_by_name(tmp_path):
    path = coco_file(tmp_path / "train.json", [cat(1)])
    part = {"name": "paws", "joints": ["right_paw", "left_paw"], "pairs": []}
    (tmp_path / "paws.json").write_text(json.dumps(part))
    people = coco.read(path, str(tmp_path / "paws.json"))
    assert people.skeleton.name == "paws"
    assert people.labeled.tolist() == [[False, True]]
    np.testing.assert_allclose(people.keypoints[0, 1], (14.5, 26.5))
    (tmp_path / "lsp.json").write_text(json.dumps(to_json(LSP)))
    with pytest.raises(ValueError, match="'cat' has the joints tail, left_paw"):
        coco.read(path, str(tmp_path / "lsp.json"))


@pytest.mark.parametrize(
    "change, says",
    [
        (lambda c: [1], "a list, as results are"),
        (lambda c: {"images": []}, "no list 'annotations'"),
        (
            lambda c: c | {"categories": [{"id": 7}]},
            "no category names its 'keypoints'",
        ),
        (
            lambda c: c | {"categories": [c["categories"][0] | {"skeleton": [[0, 3]]}]},
            r"\[0, 3\], expected two joint numbers from 1 to 3",
        ),
    ],
)
def test_coco_files_of_another_kind(tmp_path, change, says):
    path = tmp_path / "train.json"
    coco_file(path, [cat(1)])
    content = json.loads(path.read_text())
    path.write_text(json.dumps(change(content)))
    with pytest.raises(ValueError, match=f"train.json: .*{says}"):
        coco.read(str(path))


def test_coco_layouts(tmp_path):
    with pytest.raises(ValueError, match="neither train.json nor"):
        coco.read_splits(str(tmp_path))
    (tmp_path / "annotations").mkdir()
    (tmp_path / "train2017").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "train2017" / "1.jpg")
    annotations = tmp_path / "annotations"
    train = coco_file(annotations / "person_keypoints_train2017.json", [cat(1)])
    coco_file(annotations / "person_keypoints_val2017.json", [cat(1), cat(2)])
    splits = coco.read_splits(str(tmp_path))
    assert {s: len(p) for s, p in splits.items()} == {
        "train": 1,
        "validation": 0,
        "test": 2,
    }
    assert splits["train"].images == (str(tmp_path / "train2017" / "1.jpg"),)
    assert splits["test"].images[0] == str(tmp_path / "images" / "1.jpg")
    assert len(coco.read_splits(train)["train"]) == 1
    coco_file(tmp_path / "train.json", [cat(1)])
    with pytest.raises(ValueError, match="several files for train: train.json, anno"):
        coco.read_splits(str(tmp_path))
