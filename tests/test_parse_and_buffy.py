"""The two data sets of Sec. 4.2's second part: known answers, and broken files."""

import itertools

import numpy as np
import pytest
import scipy.io
from toy_film import STICKS, write_sticks

from deeppose_tf.datasets import buffy, lsp
from deeppose_tf.skeleton import BUFFY, LSP

# "Left" is the image's left, and the right of someone who faces the camera. Elbows are
# the middle of (60, 100) and (62, 104), and of (140, 100) and (140, 104).
JOINTS = {
    "right_shoulder": (70, 66),
    "right_elbow": (61, 102),
    "right_wrist": (40, 130),
    "left_shoulder": (130, 66),
    "left_elbow": (140, 102),
    "left_wrist": (160, 90),
    "neck": (100, 60),
    "pelvis": (102, 160),
    "head_top": (98, 20),
}


# Image Parse


def test_real_parse(shared_data):
    raw = scipy.io.loadmat(shared_data / "parse" / "labels.mat")["ptsAll"]
    splits = lsp.read_parse(str(shared_data / "parse"))
    train, test = splits["train"], splits["test"]
    assert (len(train), len(test)) == (100, 150)
    assert (test.ids[0], test.ids[-1]) == ("parse/im0101", "parse/im0250")
    assert test.images[0] == str(shared_data / "parse" / "im0101.jpg")
    assert train.labeled.all() and test.labeled.all() and train.skeleton == LSP
    np.testing.assert_allclose(test.keypoints[0], raw[:, :, 100] - 0.5, rtol=1e-6)


def test_real_parse_has_left_at_the_images_left(shared_data):
    """`lsho`, index 8, stands for LSP's right shoulder; a few limbs are crossed."""
    people = lsp.read_parse(str(shared_data / "parse"))["test"]
    left, right = (LSP.joints.index(f"{s}_shoulder") for s in ("left", "right"))
    x = people.keypoints[..., 0]
    assert np.mean(x[:, right] < x[:, left]) > 0.9


def test_parse_nan_and_wrong_shapes(tmp_path):
    points = np.full((14, 2, 3), 5.0)
    points[3, 1, 2] = np.nan
    scipy.io.savemat(tmp_path / "labels.mat", {"ptsAll": points})
    splits = lsp.read_parse(str(tmp_path))
    assert [len(splits[s]) for s in ("train", "test")] == [3, 0]
    assert np.argwhere(~splits["train"].labeled).tolist() == [[2, 3]]
    scipy.io.savemat(tmp_path / "labels.mat", {"ptsAll": points.transpose(1, 0, 2)})
    with pytest.raises(ValueError, match=r"labels.mat: .* \(2, 14, 3\), expected"):
        lsp.read_parse(str(tmp_path))
    (tmp_path / "labels.mat").unlink()
    with pytest.raises(ValueError, match="labels.mat: no such file"):
        lsp.read_parse(str(tmp_path))


# Buffy


def test_real_buffy(shared_data):
    """76 and 108 frames of episodes 2 and 5 for testing; 96 of 4 are not."""
    splits = buffy.read_splits(str(shared_data / "buffy"))
    train, test = splits["train"], splits["test"]
    assert (len(train), len(test)) == (96, 184)
    assert sum("s5e2" in name for name in test.ids) == 76
    assert train.labeled.all() and test.labeled.all() and test.skeleton == BUFFY
    assert test.ids[0] == "buffy/s5e2-000063"
    assert test.images[0].endswith("buffy_s5e2_original/000063.jpg")
    first = dict(zip(BUFFY.joints, test.keypoints[0], strict=True))
    # From the file by hand: the arm at the image's left, which is written first, goes
    # 138.9 256.8 - 167.6 331.4 and 176.2 341.4 - 233.6 355.7.
    np.testing.assert_allclose(first["right_shoulder"], (138.4, 256.3), rtol=1e-5)
    np.testing.assert_allclose(first["right_elbow"], (171.4, 335.9), rtol=1e-5)
    np.testing.assert_allclose(first["right_wrist"], (233.1, 355.2), rtol=1e-5)
    np.testing.assert_allclose(first["head_top"], (183.6, 172.7), rtol=1e-5)


def test_real_buffy_stands_upright_though_ends_have_no_order(shared_data):
    """Torso and head sticks start at the neck in nine of ten frames only."""
    people = buffy.read_splits(str(shared_data / "buffy"))["test"]
    x, y = np.moveaxis(people.keypoints, 2, 0)
    index = BUFFY.joints.index
    assert (y[:, index("pelvis")] > y[:, index("neck")]).all()
    assert (y[:, index("neck")] > y[:, index("head_top")]).all()
    assert (x[:, index("right_shoulder")] < x[:, index("left_shoulder")]).all()


@pytest.mark.parametrize("turned", list(itertools.product([False, True], repeat=6)))
def test_sticks_may_begin_at_either_end(turned):
    sticks = STICKS.copy()
    sticks[list(turned)] = sticks[list(turned)][:, ::-1]
    np.testing.assert_allclose(
        buffy.joints_of(sticks[np.newaxis])[0], [JOINTS[j] for j in BUFFY.joints]
    )


def test_buffy_files(tmp_path):
    write_sticks(tmp_path, 3, {7: STICKS})
    write_sticks(tmp_path, 6, {8: STICKS + 1, 9: STICKS})
    splits = buffy.read_splits(str(tmp_path))
    assert splits["train"].ids == ("buffy/s5e3-000007",)
    assert splits["test"].ids == ("buffy/s5e6-000008", "buffy/s5e6-000009")
    neck = splits["test"].keypoints[0, BUFFY.joints.index("neck")]
    np.testing.assert_allclose(neck, (100.5, 60.5))  # (101, 61) counted from one.


@pytest.mark.parametrize(
    "change, says",
    [
        (lambda lines: lines[:5], "ends within frame 63, after 4 of its 6 sticks"),
        (lambda lines: lines[1:], "line 1: '.*', expected the number of a frame"),
        (lambda lines: lines * 2, "line 8: '63', expected the number .* not there bef"),
        (lambda lines: [*lines[:3], "1 2 3"] + lines[4:], "line 4: '1 2 3', expected"),
        (lambda lines: [*lines[:3], "1 2 3 x"] + lines[4:], "line 4: .*x1 y1 x2 y2"),
    ],
)
def test_broken_stick_files_are_named(tmp_path, change, says):
    path = write_sticks(tmp_path, 2, {63: STICKS})
    path.write_text("\n".join(change(path.read_text().splitlines())))
    with pytest.raises(ValueError, match=f"buffy_s5e2_sticks.txt.*{says}"):
        buffy.read_splits(str(tmp_path))


def test_missing_parts_of_buffy(tmp_path):
    with pytest.raises(ValueError, match="data: no buffy_s5e2_sticks.txt"):
        buffy.read_splits(str(tmp_path))
    write_sticks(tmp_path, 2, {63: STICKS})
    (tmp_path / "images" / "buffy_s5e2_original").rmdir()
    with pytest.raises(ValueError, match="buffy_s5e2_original: no such folder"):
        buffy.read_splits(str(tmp_path))
