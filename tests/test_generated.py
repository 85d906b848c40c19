"""The generated data set: same every time, exact joints, sides as on real people."""

import dataclasses
import json
import math

import cv2
import numpy as np
import pytest

from deeppose_tf.datasets import generated
from deeppose_tf.datasets import generated_person as people
from deeppose_tf.skeleton import LSP

COUNTS = {"train": 6, "validation": 2, "test": 3}
CUES = {  # joint kind -> a colour that nothing else in the picture has
    "elbow": (255, 0, 0),
    "wrist": (0, 255, 0),
    "knee": (0, 0, 255),
    "ankle": (255, 255, 0),
}


def joint(name):
    return LSP.joints.index(name)


def person(index):
    """A person whose colours are a dull grey, but for the cues."""
    rng = np.random.Generator(np.random.PCG64(index))
    figure, look = people.sample_person(rng), people.sample_look(rng)
    colors = dict.fromkeys(look.colors, np.full(3, 90.0))
    colors |= {cue: np.array(value, float) for cue, value in CUES.items()}
    return figure, dataclasses.replace(look, colors=colors)


def blank(figure):
    height, width = figure.size
    return np.full((height, width, 3), 128, np.uint8)


def in_front(figure, *names):
    """The same person, these points nearer to the viewer than all others."""
    moved = {
        name: point + [0, 0, 1000 * (name.split("_")[-1] in names)]
        for name, point in figure.points.items()
    }
    return dataclasses.replace(figure, points=moved)


def test_same_arguments_give_same_picture():
    first = generated.render(3, "train", 7)
    generated.render(3, "train", 8)  # what was drawn in between must not matter
    again = generated.render(3, "train", 7)
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("other", [(4, "train", 7), (3, "test", 7), (3, "train", 8)])
def test_seed_split_and_index_each_change_the_pose(other):
    pose = generated.render(3, "train", 7)[1]
    assert np.abs(pose - generated.render(*other)[1]).max() > 1


def test_pictures_are_of_the_announced_kind():
    sizes = set()
    for index in range(60):
        image, keypoints = generated.render(0, "train", index)
        height, width = image.shape[:2]
        assert image.dtype == np.uint8 and image.shape[2] == 3
        assert keypoints.dtype == np.float32 and keypoints.shape == (14, 2)
        assert 104 <= height <= 416 and 57 <= width <= 401  # the sizes of LSP
        # The body is at least 110 px long (the size of a crouching one is limited)
        # and the margin at least 0.07 of its length: more than 5 px.
        assert (keypoints > 5).all()
        assert (keypoints < np.array([width, height]) - 5).all()
        assert image.std() > 10
        sizes.add((height, width))
    assert len(sizes) > 50


def test_left_is_on_the_right_of_people_who_face_us_and_on_the_left_from_behind():
    seen = {True: 0, False: 0}
    left, right = joint("left_shoulder"), joint("right_shoulder")
    for index in range(200):
        figure, _ = person(index)
        _, up, forwards = figure.chest.T
        if up[1] > -0.7 or abs(forwards[2]) < 0.7:
            continue  # upside down, lying, or seen from the side
        facing = forwards[2] > 0
        seen[bool(facing)] += 1
        assert (figure.keypoints[left, 0] > figure.keypoints[right, 0]) == facing
    assert seen[True] > 60 and seen[False] > 15


def test_the_face_is_seen_exactly_from_the_front():
    seen = {True: 0, False: 0}
    for index in range(80):
        figure, look = person(index)
        if abs(figure.head[2, 2]) < 0.6:
            continue
        image = blank(figure)
        # Arms would hide the face now and then.
        people.paint_person(image, in_front(figure, "head", "neck"), look)
        x, y = figure.points["head"][:2].astype(int)
        reach = int(0.12 * figure.scale)
        head = image[y - reach : y + reach, x - reach : x + reach]
        eyes = (head.min(-1) > 170).any()  # all else is darker than 130
        assert eyes == (figure.head[2, 2] > 0), index
        seen[bool(eyes)] += 1
    assert seen[True] > 20 and seen[False] > 5


@pytest.mark.parametrize(
    "kind, limb",
    [("wrist", ("elbow", "wrist", "hand")), ("ankle", ("knee", "ankle", "toe"))],
)
def test_cuffs_and_socks_are_drawn_at_wrists_and_ankles(kind, limb):
    """Where one's own arm or leg is in front of the body, so is its band."""
    right = 0
    for index in range(60):
        figure, look = person(index)
        image = blank(figure)
        people.paint_person(image, in_front(figure, *limb), look)
        for side in ("left", "right"):
            x, y = np.floor(figure.points[f"{side}_{kind}"][:2]).astype(int)
            off = np.abs(image[y, x].astype(float) - CUES[kind]).max()
            right += off < 80
    # A band is 2 px wide: between pixels it is mixed with its limb now and then, and
    # the other arm or leg may lie over it.
    assert right > 0.9 * 120, right


def test_patches_are_centred_on_elbows_and_knees_without_bias():
    """The mean of a patch's pixel centres is its joint, in both axes.

    Half a pixel of error in the drawing convention would show as 0.5.
    """
    errors = []
    for index in range(60):
        figure, look = person(index)
        image = blank(figure)
        people.paint_person(image, figure, look)
        for name in LSP.joints:
            kind = name.split("_")[-1]
            if kind not in ("elbow", "knee"):
                continue
            point = figure.points[name][:2]
            twin = figure.keypoints[LSP.mirror[joint(name)]]
            if np.linalg.norm(point - twin) < 16:
                continue  # the patches may run into each other
            radius = {"elbow": 0.024, "knee": 0.03}[kind] * figure.scale * figure.build
            off = np.abs(image.astype(float) - CUES[kind]).max(-1)
            rows, columns = np.nonzero(off < 100)
            centers = np.stack([columns, rows], 1) + 0.5
            near = centers[np.linalg.norm(centers - point, axis=1) < radius + 2]
            if len(near) > 0.95 * math.pi * radius**2:  # nothing is in front of it
                errors.append(near.mean(0) - point)
    assert len(errors) > 80
    np.testing.assert_allclose(np.mean(errors, 0), 0, atol=0.1)
    assert np.linalg.norm(errors, axis=1).max() < 1


def test_occluders_leave_most_joints_in_sight():
    for index in range(30):
        figure, _ = person(index)
        image = blank(figure)
        rng = np.random.Generator(np.random.PCG64(index))
        generated.add_occluders(image, rng, figure.keypoints)
        columns, rows = np.floor(figure.keypoints.T).astype(int)
        # At most two things with at most four joints behind each, and one that an
        # edge may add.
        assert (image[rows, columns] != 128).any(axis=1).sum() <= 9


def test_paint_centres_a_disc_at_fractional_pixels():
    """The centroid of the paint, with pixel centres at +0.5, is the disc's centre."""
    rng = np.random.Generator(np.random.PCG64(0))
    middles = np.arange(32) + 0.5
    for center in rng.uniform(14, 18, (50, 2)):
        image = np.zeros((32, 32, 3), np.uint8)
        people.paint(image, people.disc(center, 6), (255, 255, 255))
        weight = image[..., 0] / image[..., 0].sum()
        found = [weight.sum(0) @ middles, weight.sum(1) @ middles]
        np.testing.assert_allclose(found, center, atol=0.1)  # 1/16 px is its grid


def test_read_gives_what_render_draws(tmp_path):
    calls = []
    data = generated.read(
        str(tmp_path), "test", COUNTS, progress=lambda *done: calls.append(done)
    )
    assert calls == [(1, 3), (2, 3), (3, 3)]
    assert data.skeleton is LSP and len(data) == 3
    assert data.ids == tuple(f"generated/test/0000{i}" for i in (1, 2, 3))
    assert data.labeled.all() and not data.boxes.any() and not data.skipped
    for index in range(3):
        image, keypoints = generated.render(0, "test", index)
        np.testing.assert_array_equal(data.keypoints[index], keypoints)
        stored = cv2.imread(data.images[index])[..., ::-1]
        assert stored.shape == image.shape
        # JPEG loses noise; swapped colours or another picture would be far off.
        assert np.abs(stored.astype(float) - image).mean() < 10


def test_read_again_draws_only_what_is_gone_or_damaged(tmp_path, monkeypatch):
    first = generated.read(str(tmp_path), "train", COUNTS)
    folder = tmp_path / "train"
    content = {path.name: path.read_bytes() for path in folder.glob("*.jpg")}
    (folder / "00002.jpg").unlink()
    (folder / "00005.jpg").write_bytes(content["00005.jpg"][:500])
    drawn = count_renders(monkeypatch)
    again = generated.read(str(tmp_path), "train", COUNTS)
    assert drawn == [1, 4]
    assert {p.name: p.read_bytes() for p in folder.glob("*.jpg")} == content
    np.testing.assert_array_equal(first.keypoints, again.keypoints)
    generated.read(str(tmp_path), "train", COUNTS)
    assert drawn == [1, 4]
    assert not list(folder.glob("*.part"))


def test_a_stopped_run_goes_on_where_it_stopped(tmp_path, monkeypatch):
    def stop(done, _):
        if done == 4:
            raise KeyboardInterrupt

    drawn = count_renders(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        generated.read(str(tmp_path), "train", COUNTS, progress=stop)
    data = generated.read(str(tmp_path), "train", COUNTS)
    assert drawn == [0, 1, 2, 3, 4, 5] and len(data) == 6


def test_another_seed_draws_afresh(tmp_path):
    first = generated.read(str(tmp_path), "test", COUNTS)
    other = generated.read(str(tmp_path), "test", COUNTS, seed=1)
    assert np.abs(first.keypoints - other.keypoints).max() > 1


def test_pictures_of_another_version_are_refused_and_kept(tmp_path):
    """The first one wrote `version` and no format; its figures look different."""
    generated.read(str(tmp_path), "test", COUNTS)
    path = tmp_path / "test" / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["format"], manifest["digest"]
    path.write_text(json.dumps(manifest | {"version": 1}))
    before = path.read_bytes()
    with pytest.raises(ValueError, match="manifest.json: pictures of 'version 1'"):
        generated.read(str(tmp_path), "test", COUNTS)
    assert path.read_bytes() == before


def test_a_changed_joint_is_not_believed(tmp_path):
    """One bit makes a 7 of a 5, and the picture is still the one that is meant."""
    generated.read(str(tmp_path), "test", COUNTS)
    path = tmp_path / "test" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["images"]["00001.jpg"]["keypoints"][3][0] += 20
    path.write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="manifest.json: not a manifest"):
        generated.read(str(tmp_path), "test", COUNTS)


def test_splits_have_their_default_counts(tmp_path, monkeypatch):
    tiny = np.zeros((4, 4, 3), np.uint8)
    fake = tiny, np.zeros((14, 2), np.float32)
    monkeypatch.setattr(generated, "render", lambda *_: fake)
    sizes = {s: len(generated.read(str(tmp_path), s)) for s in generated.SPLITS}
    assert sizes == {"train": 2000, "validation": 50, "test": 200}


def test_errors_say_what_is_wrong(tmp_path):
    with pytest.raises(ValueError, match="'val': expected one of train, validation"):
        generated.read(str(tmp_path), "val")
    with pytest.raises(ValueError, match="'val'"):
        generated.render(0, "val", 0)
    (tmp_path / "test").mkdir()
    for text in ("{", json.dumps({"format": generated.FORMAT}), "[]"):
        (tmp_path / "test" / "manifest.json").write_text(text)
        with pytest.raises(ValueError, match="manifest.json: not a manifest"):
            generated.read(str(tmp_path), "test", COUNTS)


def count_renders(monkeypatch):
    """The indices that `render` is asked for from now on."""
    drawn, render = [], generated.render

    def counting(seed, split, index):
        drawn.append(index)
        return render(seed, split, index)

    monkeypatch.setattr(generated, "render", counting)
    return drawn
