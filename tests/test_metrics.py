"""PCP, PDJ, PCKh and OKS against numbers derived by hand and the published tables."""

import types

import numpy as np
import pytest
import scipy.io
import scipy.stats

from deeppose_tf import metrics, skeleton
from deeppose_tf.pipelines.evaluation import scores as tables

LSP, FLIC = skeleton.LSP, skeleton.FLIC
INDEX = {name: i for i, name in enumerate(LSP.joints)}

# One standing person facing the camera, so the right side is at the image's left.
# Every limb is 40 long except head and torso; both torso diagonals are 50 (30-40-50).
PERSON = {
    "right_ankle": (100, 220),
    "right_knee": (100, 180),
    "right_hip": (100, 140),
    "left_hip": (130, 140),
    "left_knee": (130, 180),
    "left_ankle": (130, 220),
    "right_wrist": (20, 100),
    "right_elbow": (60, 100),
    "right_shoulder": (100, 100),
    "left_shoulder": (130, 100),
    "left_elbow": (170, 100),
    "left_wrist": (210, 100),
    "neck": (115, 90),
    "head_top": (115, 60),
}
DIAGONAL = 50.0


def pcp(*arguments, **how):
    """The fractions alone."""
    return {name: entry[0] for name, entry in metrics.pcp(*arguments, **how).items()}


def people(count=1):
    keypoints = np.array([PERSON[name] for name in LSP.joints], np.float32)
    keypoints = np.repeat(keypoints[np.newaxis], count, axis=0)
    return keypoints, np.ones(keypoints.shape[:2], bool)


def moved(keypoints, offsets, person=0):
    """A copy with joints of one person moved: {name: (dx, dy)}."""
    predicted = keypoints.copy()
    for name, offset in offsets.items():
        predicted[person, INDEX[name]] += offset
    return predicted


def random_people(count=40, seed=3):
    random = np.random.default_rng(seed)
    keypoints = random.normal(100, 40, (count, 14, 2))
    labeled = random.random((count, 14)) < 0.8
    return keypoints + random.normal(0, 15, keypoints.shape), keypoints, labeled


def test_perfect_predictions_score_one_everywhere():
    keypoints, labeled = people(3)
    for strict in (True, False):
        scores = pcp(keypoints, keypoints, labeled, LSP, strict=strict)
        assert set(scores) == {
            *("upper_arm", "lower_arm", "upper_leg", "lower_leg"),
            *("head", "torso", "mean4", "mean10"),
        }
        assert set(scores.values()) == {1.0}
    np.testing.assert_array_equal(
        metrics.pdj(keypoints, keypoints, labeled, LSP, [0.0, 0.2]), np.ones((2, 14))
    )


def test_a_limb_end_at_half_the_length_is_correct_and_beyond_it_is_wrong():
    keypoints, labeled = people()
    # The left lower arm is 40 long: its wrist may be off by 20.
    for offset, expected in ((20.0, 1.0), (20.01, 0.5)):
        predicted = moved(keypoints, {"left_wrist": (0, offset)})
        scores = pcp(predicted, keypoints, labeled, LSP)
        assert scores["lower_arm"] == expected
        assert scores["upper_arm"] == 1.0


def test_what_nobody_has_labeled_is_not_in_the_means():
    """Nor said to be: mean4 was called that of the types that the skeleton has."""
    keypoints, labeled = people(2)
    labeled[:, [INDEX["left_ankle"], INDEX["right_ankle"]]] = False
    predicted = keypoints.copy()
    predicted[:, [INDEX["left_wrist"], INDEX["right_wrist"]]] += 1000
    found = pcp(predicted, keypoints, labeled, LSP)
    assert np.isnan(found["lower_leg"])
    assert found["mean4"] == pytest.approx((1 + 0 + 1) / 3)
    assert found["mean10"] == pytest.approx(6 / 8)  # no lower arms, and no lower legs
    for name in ("mean4", "mean10"):
        assert "anyone has labeled" in tables.MEANINGS[name]


def test_loose_takes_the_mean_of_both_ends():
    keypoints, labeled = people()
    # Elbow off by 8, wrist off by 30: strict fails the lower arm (30 > 20) and passes
    # the upper arm (8 <= 20); loose passes both (19 <= 20 and 4 <= 20).
    predicted = moved(keypoints, {"left_elbow": (8, 0), "left_wrist": (0, 30)})
    strict = pcp(predicted, keypoints, labeled, LSP)
    loose = pcp(predicted, keypoints, labeled, LSP, strict=False)
    assert strict["lower_arm"] == 0.5 and loose["lower_arm"] == 1.0
    # With 34 the mean is 21 > 20.
    predicted = moved(keypoints, {"left_elbow": (8, 0), "left_wrist": (0, 34)})
    loose = pcp(predicted, keypoints, labeled, LSP, strict=False)
    assert loose["lower_arm"] == 0.5 and loose["upper_arm"] == 1.0


def test_means_over_the_four_types_and_over_the_ten_sticks():
    keypoints, labeled = people(2)
    # The first person's left elbow is far off: one of four upper arms and one of
    # four lower arms of the two people are wrong.
    predicted = moved(keypoints, {"left_elbow": (0, 100)})
    scores = pcp(predicted, keypoints, labeled, LSP)
    assert scores["upper_arm"] == scores["lower_arm"] == 0.75
    assert scores["mean4"] == pytest.approx((0.75 + 0.75 + 1 + 1) / 4)
    # Two of the ten sticks are right for one person of two.
    assert scores["mean10"] == pytest.approx((8 * 1 + 2 * 0.5) / 10)
    entries = metrics.pcp(predicted, keypoints, labeled, LSP)
    counts = {name: entry[1:] for name, entry in entries.items()}
    assert counts["upper_arm"] == (3, 4)
    assert counts["torso"] == counts["head"] == (2, 2)
    assert counts["mean4"] == (14, 16)
    assert counts["mean10"] == (18, 20)


def test_an_end_in_the_middle_of_two_joints():
    keypoints, labeled = people()
    # The torso is 40 long. Shoulders moved 60 apart sideways keep their middle; moved
    # 21 down together they leave it, at 21 > 20.
    apart = {"left_shoulder": (60, 0), "right_shoulder": (-60, 0)}
    down = {"left_shoulder": (0, 21), "right_shoulder": (0, 21)}
    for offsets, expected in ((apart, 1.0), (down, 0.0)):
        predicted = moved(keypoints, offsets)
        assert pcp(predicted, keypoints, labeled, LSP)["torso"] == expected


def test_a_limb_with_an_unlabeled_joint_is_not_scored():
    keypoints, labeled = people(2)
    predicted = moved(keypoints, {"left_wrist": (0, 99)})
    labeled[0, INDEX["left_wrist"]] = False
    labeled[:, INDEX["left_shoulder"]] = False
    keypoints[~labeled] = np.nan  # what is not labeled has no meaning
    entries = metrics.pcp(predicted, keypoints, labeled, LSP)
    counts = {name: entry[1:] for name, entry in entries.items()}
    assert counts["lower_arm"] == (3, 3)
    assert counts["upper_arm"] == (2, 2)  # the right ones
    assert counts["torso"] == (0, 0)
    scores = pcp(predicted, keypoints, labeled, LSP)
    assert np.isnan(scores["torso"])
    assert scores["mean4"] == scores["mean10"] == 1.0


def test_types_that_a_skeleton_lacks_are_absent():
    keypoints = np.random.default_rng(0).normal(100, 30, (2, 10, 2))
    labeled = np.ones((2, 10), bool)
    predicted = keypoints.copy()
    predicted[0, FLIC.joints.index("left_wrist")] += 1000
    scores = pcp(predicted, keypoints, labeled, FLIC)
    assert "upper_leg" not in scores and "lower_leg" not in scores
    assert scores["mean4"] == pytest.approx((1 + 0.75) / 2)
    bare = skeleton.Skeleton("bare", FLIC.joints, (), (), ())
    scores = pcp(predicted, keypoints, labeled, bare)
    assert set(scores) == {"mean4", "mean10"}
    assert np.isnan(list(scores.values())).all()


def test_pdj_is_measured_in_the_right_shoulder_to_left_hip_diagonal():
    keypoints, labeled = people()
    # Away from the other diagonal: the left shoulder moves, the right one does not.
    keypoints[0, INDEX["left_shoulder"]] += (40, -60)
    threshold = 10.0 / DIAGONAL
    for offset, expected in ((10.0, 1.0), (10.001, 0.0)):
        predicted = moved(keypoints, {"neck": (offset, 0)})
        scores = metrics.pdj(predicted, keypoints, labeled, LSP, [threshold])
        assert scores[0, INDEX["neck"]] == expected
        assert scores.sum() == 13 + expected


def test_the_other_diagonal_stands_in_and_a_person_with_none_is_not_counted():
    keypoints, labeled = people(3)
    keypoints[1] *= 2  # diagonals of 100
    labeled[1, INDEX["right_shoulder"]] = False
    labeled[2, [INDEX["right_shoulder"], INDEX["left_shoulder"]]] = False
    np.testing.assert_allclose(
        metrics.torso_diameters(keypoints, labeled, LSP), [50, 100, np.nan]
    )
    predicted = keypoints.copy()
    predicted[:, INDEX["neck"], 0] += 15  # 0.3, 0.15 and unknown
    detected, scored = metrics.pdj_counts(
        predicted, keypoints, labeled, LSP, [0.1, 0.2, 0.5]
    )
    assert detected[:, INDEX["neck"]].tolist() == [0, 1, 2]
    assert scored[INDEX["neck"]] == 2
    assert scored[INDEX["right_shoulder"]] == 1


def test_a_skeleton_without_diagonals_is_measured_by_its_extent():
    names = skeleton.Skeleton("three", ("a", "b", "c"), (), (), ())
    keypoints = np.array([[[0, 0], [30, 10], [1e9, 1e9]], [[5, 5], [0, 0], [0, 0]]])
    labeled = np.array([[True, True, False], [True, False, False]])
    np.testing.assert_allclose(
        metrics.torso_diameters(keypoints, labeled, names), [30, np.nan]
    )
    predicted = keypoints + (3, 0)
    scores = metrics.pdj(predicted, keypoints, labeled, names, [0.099, 0.101])
    np.testing.assert_array_equal(scores, [[0, 0, np.nan], [1, 1, np.nan]])


def test_a_torso_without_length_allows_only_perfect_joints():
    keypoints, labeled = people()
    keypoints[0, INDEX["right_shoulder"]] = keypoints[0, INDEX["left_hip"]]
    predicted = moved(keypoints, {"neck": (1e-3, 0)})
    scores = metrics.pdj(predicted, keypoints, labeled, LSP, [0.5])
    assert scores[0, INDEX["neck"]] == 0 and scores.sum() == 13


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_prediction_that_is_not_finite_is_wrong_and_no_nan(bad):
    keypoints, labeled = people(2)
    predicted = keypoints.copy()
    predicted[0, INDEX["left_shoulder"], 1] = bad
    predicted[0, INDEX["right_shoulder"], 0] = -bad
    for strict in (True, False):
        scores = pcp(predicted, keypoints, labeled, LSP, strict=strict)
        assert scores["torso"] == 0.5 and scores["upper_arm"] == 0.5
        assert scores["lower_arm"] == 1.0
    scores = metrics.pdj(predicted, keypoints, labeled, LSP, [0.5])[0]
    assert scores[INDEX["left_shoulder"]] == scores[INDEX["right_shoulder"]] == 0.5
    errors = metrics.person_errors(predicted, keypoints, labeled, LSP)
    assert errors.tolist() == [np.inf, 0.0]


def test_scores_are_free_of_scale_and_place():
    predicted, keypoints, labeled = random_people()
    thresholds = [0.1, 0.2, 0.5]
    scale, shift = 3.7, (50, -900)
    for strict in (True, False):
        assert pcp(predicted, keypoints, labeled, LSP, strict=strict) == pcp(
            predicted * scale + shift,
            keypoints * scale + shift,
            labeled,
            LSP,
            strict=strict,
        )
    np.testing.assert_array_equal(
        metrics.pdj(predicted, keypoints, labeled, LSP, thresholds),
        metrics.pdj(
            predicted * scale + shift,
            keypoints * scale + shift,
            labeled,
            LSP,
            thresholds,
        ),
    )


def test_exchanging_the_sides_of_everything_changes_no_pcp_and_permutes_pdj():
    predicted, keypoints, labeled = random_people()
    labeled[:, [INDEX["left_shoulder"], INDEX["right_hip"]]] = True
    labeled[:, [INDEX["right_shoulder"], INDEX["left_hip"]]] = True
    mirror = list(LSP.mirror)
    swapped = predicted[:, mirror], keypoints[:, mirror], labeled[:, mirror]
    assert pcp(*swapped, LSP) == pcp(predicted, keypoints, labeled, LSP)
    # The other diagonal is the yardstick then; make both equal to compare PDJ.
    keypoints[:, INDEX["right_shoulder"]] = keypoints[:, INDEX["left_shoulder"]]
    keypoints[:, INDEX["left_hip"]] = keypoints[:, INDEX["right_hip"]]
    swapped = predicted[:, mirror], keypoints[:, mirror], labeled[:, mirror]
    np.testing.assert_array_equal(
        metrics.pdj(*swapped, LSP, [0.1, 0.3]),
        metrics.pdj(predicted, keypoints, labeled, LSP, [0.1, 0.3])[:, mirror],
    )


def test_loose_is_never_below_strict_and_both_grow_with_the_threshold():
    predicted, keypoints, labeled = random_people()
    before = None
    for threshold in (0.1, 0.3, 0.5, 1.0):
        strict = pcp(predicted, keypoints, labeled, LSP, threshold)
        loose = pcp(predicted, keypoints, labeled, LSP, threshold, False)
        assert all(loose[name] >= strict[name] for name in strict)
        assert loose["mean10"] > strict["mean10"]
        if before is not None:
            assert all(strict[name] >= before[name] for name in strict)
        before = strict


def test_the_area_under_the_curve():
    keypoints, labeled = people()
    # Off by 0.2 diameters: detected at 0.20, 0.21, ... 0.50, 31 of 51 thresholds.
    predicted = moved(keypoints, {"neck": (0.2 * DIAGONAL - 1e-4, 0)})
    area = metrics.pdj_area(predicted, keypoints, labeled, LSP)
    assert area[INDEX["neck"]] == pytest.approx(31 / 51)
    assert np.delete(area, INDEX["neck"]).tolist() == [1.0] * 13


def test_person_errors_average_over_what_is_scored():
    keypoints, labeled = people(2)
    labeled[0, : INDEX["right_shoulder"]] = False
    labeled[0, INDEX["left_hip"]] = labeled[0, INDEX["right_hip"]] = True
    labeled[1] = False
    predicted = moved(keypoints, {"neck": (30, 40), "left_ankle": (500, 0)})
    # Eight joints of the first person are labeled, one is off by 50 = one diagonal.
    np.testing.assert_allclose(
        metrics.person_errors(predicted, keypoints, labeled, LSP), [1 / 8, np.nan]
    )
    # Of two joints, in diameters that have other ends.
    chosen = np.isin(np.arange(14), [INDEX["neck"], INDEX["head_top"]])
    found = metrics.person_errors(predicted, keypoints, labeled, LSP, chosen)
    np.testing.assert_allclose(found, [1 / 2, np.nan])


def test_the_mean_pose_skips_what_is_not_labeled():
    normalized = np.array([[[0.1, 0.2], [9, 9]], [[0.3, -0.4], [np.nan, 9]]])
    labeled = np.array([[True, False], [True, False]])
    np.testing.assert_allclose(
        metrics.mean_pose(normalized, labeled), [[0.2, -0.1], [0, 0]]
    )
    # (3 * 0.1 + 0.3) / 4 and (3 * 0.2 - 0.4) / 4
    np.testing.assert_allclose(
        metrics.mean_pose(normalized, labeled, [3, 1]), [[0.15, 0.05], [0, 0]]
    )
    labeled[1, 0] = False
    np.testing.assert_allclose(
        metrics.mean_pose(normalized, labeled), [[0.1, 0.2], [0, 0]]
    )


def test_wrong_shapes_and_labels_are_named():
    keypoints, labeled = people(2)
    with pytest.raises(ValueError, match=r"predicted has shape \(1, 14, 2\)"):
        pcp(keypoints[:1], keypoints, labeled, LSP)
    with pytest.raises(ValueError, match=r"labeled has shape \(2, 14\).*flic"):
        metrics.pdj(keypoints, keypoints, labeled, FLIC, [0.2])
    keypoints[0, 0] = np.nan
    with pytest.raises(ValueError, match="labeled is not finite"):
        pcp(keypoints, keypoints, labeled, LSP)


# Of the README beside the arrays: per cent, PCP strict in the order lower legs, upper
# legs, lower arms, upper arms, head, torso, mean of the ten sticks; then the loose
# mean; then PDJ at 0.2 of the joints below, left and right pooled.
TYPES = "lower_leg upper_leg lower_arm upper_arm head torso mean10".split()
JOINTS = "ankle knee hip wrist elbow shoulder neck head_top".split()
PUBLISHED = {
    ("pred_yang2016_person_centric", "gt_person_centric"): (
        (72.9, 78.8, 62.3, 73.1, 83.4, 96.6, 75.4),
        80.0,
        (59.9, 69.8, 75.0, 69.3, 74.3, 79.3, 93.6, 86.6),
    ),
    ("pred_yang2016_observer_centric", "gt_observer_centric"): (
        (81.4, 88.4, 67.2, 79.8, 84.2, 97.6, 81.5),
        86.0,
        (67.9, 82.7, 84.9, 72.9, 81.8, 90.5, 95.4, 88.0),
    ),
    ("pred_cpm_lsp_person_centric", "gt_person_centric"): (
        (82.2, 85.3, 65.8, 76.3, 94.2, 97.2, 81.1),
        86.0,
        (81.9, 83.9, 86.1, 74.1, 79.5, 85.0, 97.0, 96.2),
    ),
    ("pred_cpm_mpii_lsp_person_centric", "gt_person_centric"): (
        (89.4, 92.1, 78.7, 86.8, 95.8, 98.0, 88.8),
        91.9,
        (90.1, 91.2, 92.3, 84.1, 88.3, 92.0, 98.0, 97.8),
    ),
}


@pytest.mark.parametrize("names", PUBLISHED, ids=lambda names: names[0])
def test_published_predictions_reproduce_the_published_scores(shared_data, names):
    path = shared_data / "metrics_reference" / "lsp_predictions.mat"
    arrays = scipy.io.loadmat(path)
    predicted, keypoints = (arrays[name].transpose(2, 1, 0) for name in names)
    labeled = np.ones(keypoints.shape[:2], bool)
    strict, loose, detected = PUBLISHED[names]

    scores = pcp(predicted, keypoints, labeled, LSP)
    measured = [100 * scores[name] for name in TYPES]
    np.testing.assert_allclose(measured, strict, atol=0.0501)  # tables are rounded
    scores = pcp(predicted, keypoints, labeled, LSP, strict=False)
    assert 100 * scores["mean10"] == pytest.approx(loose, abs=0.0501)

    scores = metrics.pdj(predicted, keypoints, labeled, LSP, [0.2])[0]
    for joint, expected in zip(JOINTS, detected, strict=True):
        sides = [i for i, name in enumerate(LSP.joints) if name.endswith(joint)]
        measured = 100 * scores[sides].mean()
        assert measured == pytest.approx(expected, abs=0.0501), joint


def test_pckh_measures_by_the_head_segment():
    """A head of 30 px: 15 px off is within half of it, and 15.1 is not. Pelvis and
    thorax are joints, and stay out of the mean."""
    joints = list(skeleton.MPII.joints)
    keypoints = np.zeros((3, 16, 2))
    keypoints[:, joints.index("head_top")] = (0, -30)
    labeled = np.ones((3, 16), bool)
    labeled[2, joints.index("head_top")] = False  # no head, no score
    predicted = keypoints.copy()
    predicted[0, joints.index("left_wrist")] += (15, 0)
    predicted[1, joints.index("left_wrist")] += (15.1, 0)
    predicted[:, joints.index("pelvis")] += 500
    arguments = predicted, keypoints, labeled, skeleton.MPII
    detected, scored = metrics.pckh_counts(*arguments)
    assert scored.tolist() == [2] * 16
    assert detected[joints.index("left_wrist")] == 1
    assert detected[joints.index("pelvis")] == 0
    people = types.SimpleNamespace(keypoints=keypoints, labeled=labeled)
    entry = tables.scores(predicted, people, skeleton.MPII)["pckh"]
    assert (entry["correct"], entry["scored"]) == (27, 28)
    assert entry["fraction"] == pytest.approx(27 / 28)
    with pytest.raises(ValueError, match="PCKh needs the joints upper_neck and head"):
        metrics.pckh_counts(keypoints[:, :14], keypoints[:, :14], labeled[:, :14], LSP)


def test_oks_by_hand():
    """Area 100, nose (sigma 0.026) off by d: exp(-d^2 / (2 * 100 * 0.052^2)). For
    d = 0.052 * sqrt(200 ln 2) that is one half. What is unlabeled does not count."""
    coco = skeleton.COCO
    keypoints, labeled = np.zeros((3, 17, 2)), np.zeros((3, 17), bool)
    labeled[:2, :2] = True
    predicted = keypoints.copy()
    predicted[1, 0, 0] = 0.052 * np.sqrt(200 * np.log(2))
    predicted[:, 5] = 1e6
    found = metrics.oks(predicted, keypoints, labeled, coco, np.full(3, 100.0))
    np.testing.assert_allclose(found[:2], [1, 0.75])
    assert np.isnan(found[2])
    np.testing.assert_allclose(
        metrics.oks(keypoints, keypoints, labeled, coco, np.ones(3))[:2], 1
    )
    with pytest.raises(ValueError, match="no sigma for neck, head_top of the skeleton"):
        metrics.oks_sigmas(LSP)
    assert metrics.oks_sigmas(FLIC).shape == (10,)  # all are COCO's, by name


def test_reliability_by_hand():
    """Four joints in two groups: of low score one in two is right, of high score both.
    Scores 1 2 3 4 in rank, errors 0.3 0.15 0.1 0.05: perfectly turned round."""
    scores = np.array([[0.1, 0.2], [0.8, 0.9], [0.5, np.nan]])
    errors = np.array([[0.3, 0.15], [0.1, 0.05], [np.nan, 0.1]])
    found = metrics.reliability(scores, errors, within=0.2, bins=2)
    np.testing.assert_allclose(found["score"], [0.15, 0.85])
    assert found["correct"] == [0.5, 1.0] and found["count"] == [2, 2]
    assert found["rank_correlation"] == pytest.approx(1)
    same = metrics.reliability(np.ones(3), np.arange(3.0))
    assert same["rank_correlation"] is None and same["count"] == [3]


def test_rank_correlation_is_that_of_scipy():
    chance = np.random.default_rng(0)
    scores, errors = chance.integers(0, 5, 200) / 5, chance.random(200)
    errors[:10] = np.inf  # ties, and predictions that are nowhere
    found = metrics.reliability(scores, errors)["rank_correlation"]
    expected = scipy.stats.spearmanr(scores, errors).statistic
    assert found == pytest.approx(-expected)
