"""PCP and PDJ (Sec. 4.1), PCKh, and how far scores of joints can be believed.

NumPy only. Points may be in any unit and frame as long as `predicted` and
`keypoints` share it: the scores are free of scale. Joints without a label are
never scored. A prediction that is not finite is wrong; it is no error. Counts are
summed up and divided once.
"""

from __future__ import annotations

import numpy as np

from deeppose_tf.skeleton import Skeleton

Array = np.ndarray

# The limbs of the paper's Table 1, whose mean is its last column.
PAPER_TYPES = ("upper_arm", "lower_arm", "upper_leg", "lower_leg")
# The range of the paper's PDJ curves (Figs. 4 and 5).
CURVE_THRESHOLDS = np.linspace(0.0, 0.5, 51)
# The ends of the head segment, by which PCKh measures.
HEAD = ("upper_neck", "head_top")
# How far apart people's labels of a joint are, as a share of their size: COCO's.
SIGMAS = {
    name: sigma
    for names, sigma in (
        ("nose", 0.026),
        ("left_eye right_eye", 0.025),
        ("left_ear right_ear", 0.035),
        ("left_shoulder right_shoulder", 0.079),
        ("left_elbow right_elbow", 0.072),
        ("left_wrist right_wrist", 0.062),
        ("left_hip right_hip", 0.107),
        ("left_knee right_knee", 0.087),
        ("left_ankle right_ankle", 0.089),
    )
    for name in names.split()
}
# Joints that the mean of PCKh leaves out, as MPII's own evaluation does.
NOT_IN_PCKH = ("pelvis", "thorax")


def pcp(
    predicted: Array,
    keypoints: Array,
    labeled: Array,
    skeleton: Skeleton,
    threshold: float = 0.5,
    strict: bool = True,
) -> dict[str, tuple[float, int, int]]:
    """Percentage of Correct Parts (Sec. 4.1).

    A limb is correct when both its ends are within `threshold` of the true limb's
    length of their places (strict, the paper's), or when the mean of the two
    distances is (loose, marked with a star in Table 1 and worth about 5 points).

    Args:
      predicted: [N, K, 2]
      keypoints: [N, K, 2], the truth, in the frame of `predicted`.
      labeled: [N, K] bool. A limb is scored where all joints of its ends are labeled.

    Returns:
      A fraction in 0..1, and the correct and the scored sticks that it is made of, for
      each limb type of the skeleton, left and right pooled; `mean4`, the mean over
      those of the paper's four types (`PAPER_TYPES`) that the skeleton has; `mean10`,
      the mean over all its sticks (ten on LSP), each counting once. What no person has
      labeled stays out of the means: of three types where nobody has the fourth. NaN is
      0 of 0.

    Raises:
      ValueError: the shapes do not fit, or a labeled joint is not finite.
    """
    correct, total = _sticks(predicted, keypoints, labeled, skeleton, threshold, strict)
    groups: dict[str, list[int]] = {}
    for i, limb in enumerate(skeleton.limbs):
        groups.setdefault(limb.type, []).append(i)
    paper = [name for name in PAPER_TYPES if name in groups]

    def entry(share, sticks):
        return float(share), int(correct[sticks].sum()), int(total[sticks].sum())

    found = {
        name: entry(fraction(correct[sticks].sum(), total[sticks].sum()), sticks)
        for name, sticks in groups.items()
    }
    mean4 = mean_known([found[name][0] for name in paper])
    found["mean4"] = entry(mean4, [i for name in paper for i in groups[name]])
    found["mean10"] = entry(mean_known(fraction(correct, total)), slice(None))
    return found


def pdj(
    predicted: Array, keypoints: Array, labeled: Array, skeleton: Skeleton, thresholds
) -> Array:
    """Percent of Detected Joints (Sec. 4.1) as fractions in 0..1, [T, K].

    A joint is detected when it is within a threshold of its true place, measured in
    the person's true torso diameter (`torso_diameters`). Arguments as for `pcp`;
    `thresholds` holds T numbers. NaN for a joint that no person has labeled.

    Raises:
      ValueError: the shapes do not fit, or a labeled joint is not finite.
    """
    return fraction(*pdj_counts(predicted, keypoints, labeled, skeleton, thresholds))


def pdj_counts(
    predicted: Array, keypoints: Array, labeled: Array, skeleton: Skeleton, thresholds
) -> tuple[Array, Array]:
    """Detected [T, K] and scored [K] joints behind each fraction of `pdj`."""
    errors = joint_errors(predicted, keypoints, labeled, skeleton)
    within = errors <= np.asarray(thresholds, np.float64).reshape(-1, 1, 1)  # [T, N, K]
    return within.sum(axis=1), (~np.isnan(errors)).sum(axis=0)


def pdj_area(
    predicted: Array, keypoints: Array, labeled: Array, skeleton: Skeleton
) -> Array:
    """[K] area under the curve of `pdj`: its mean over `CURVE_THRESHOLDS`, 0..1."""
    return pdj(predicted, keypoints, labeled, skeleton, CURVE_THRESHOLDS).mean(axis=0)


def pckh_counts(
    predicted: Array,
    keypoints: Array,
    labeled: Array,
    skeleton: Skeleton,
    threshold: float = 0.5,
) -> tuple[Array, Array]:
    """Detected [K] and scored [K] joints of PCKh (Andriluka et al., CVPR 2014).

    A joint is detected when it is within `threshold` of the length of the person's head
    segment, from upper neck to head top (`HEAD`), of its true place. MPII's own program
    takes 0.6 of the diagonal of an annotated head box for that length, which the usual
    JSON files do not have. Arguments as for `pcp`; people without both ends labeled are
    not scored.

    Raises:
      ValueError: the skeleton has no head segment, or as `pdj`.
    """
    if not set(HEAD) <= set(skeleton.canonical):
        raise ValueError(
            f"PCKh needs the joints {' and '.join(HEAD)}; {skeleton.name!r} has "
            f"{', '.join(skeleton.joints)}"
        )
    a, b = map(skeleton.canonical.index, HEAD)
    arrays = _checked(predicted, keypoints, labeled, skeleton)
    lengths = _distances(arrays[1][:, a], arrays[1][:, b])
    lengths = np.where(arrays[2][:, a] & arrays[2][:, b], lengths, np.nan)
    errors, scored = _errors(*arrays, lengths)
    return ((errors <= threshold) & scored).sum(axis=0), scored.sum(axis=0)


def oks(
    predicted: Array, keypoints: Array, labeled: Array, skeleton: Skeleton, areas: Array
) -> Array:
    """[N] object keypoint similarity, COCO's (0..1): the mean over a person's labeled
    joints of exp(-d^2 / (2 area (2 sigma)^2)), d the distance in pixels; NaN without
    any. Arguments as for `pcp`; `areas` [N] are those of outlines, square pixels.

    Raises:
      ValueError: a joint has no sigma (see `oks_sigmas`), or as `pcp`.
    """
    variances = (2 * oks_sigmas(skeleton)) ** 2
    predicted, keypoints, labeled = _checked(predicted, keypoints, labeled, skeleton)
    areas = np.asarray(areas, np.float64)[:, np.newaxis] + np.spacing(1)
    similar = np.exp(-(_distances(predicted, keypoints) ** 2) / (2 * areas * variances))
    return fraction(np.where(labeled, similar, 0.0).sum(axis=1), labeled.sum(axis=1))


def oks_sigmas(skeleton: Skeleton) -> Array:
    """[K] COCO's sigma of each joint, by its name.

    Raises:
      ValueError: COCO has none for a joint; a made-up one would make scores that
        compare with nobody's.
    """
    unknown = [joint for joint in skeleton.canonical if joint not in SIGMAS]
    if unknown:
        raise ValueError(
            f"OKS is defined for COCO's joints; it has no sigma for "
            f"{', '.join(unknown)} of the skeleton {skeleton.name!r}"
        )
    return np.array([SIGMAS[joint] for joint in skeleton.canonical])


def joint_errors(
    predicted: Array, keypoints: Array, labeled: Array, skeleton: Skeleton
) -> Array:
    """[N, K] distances in torso diameters; infinite where a prediction is not finite,
    NaN where there is nothing to score. Arguments as for `pcp`."""
    arrays = _checked(predicted, keypoints, labeled, skeleton)
    diameters = torso_diameters(*arrays[1:], skeleton)
    errors, scored = _errors(*arrays, diameters)
    return np.where(scored, errors, np.nan)


def person_errors(
    predicted: Array, keypoints: Array, labeled: Array, skeleton: Skeleton, joints=True
) -> Array:
    """[N] mean of a person's `joint_errors`, those of the `joints`, [K] bool or all."""
    errors = joint_errors(predicted, keypoints, labeled, skeleton)
    scored = ~np.isnan(errors) & joints
    return fraction(np.where(scored, errors, 0.0).sum(axis=1), scored.sum(axis=1))


def reliability(
    scores: Array, errors: Array, within: float = 0.2, bins: int = 10
) -> dict:
    """Whether joints with high scores are right: a reliability diagram in numbers.

    Args:
      scores: of joints, any shape; those that are not finite are left out.
      errors: of the same joints, see `joint_errors`; NaN where there is none.
      within: the error up to which a joint is right.
      bins: groups of (nearly) as many joints each, by score; fewer where scores repeat.

    Returns:
      `score`, `correct` and `count` of each group, lists: the mean score, the fraction
      that is right, and of how many; and `rank_correlation`, Spearman's, of scores with
      how small errors are: 1 where higher scores always mean smaller errors, 0 where
      they say nothing; None where all scores or all errors are the same.
    """
    scores, errors = (np.asarray(x, np.float64).ravel() for x in (scores, errors))
    known = np.isfinite(scores) & ~np.isnan(errors)
    scores, errors = scores[known], errors[known]
    edges = np.unique(np.quantile(scores, np.linspace(0, 1, bins + 1)[1:-1]))
    group = np.searchsorted(edges, scores, side="right")  # [M]
    counts = np.bincount(group, minlength=1)
    used = np.flatnonzero(counts)

    def means(values):
        return (np.bincount(group, values, len(counts))[used] / counts[used]).tolist()

    from scipy import stats  # takes as long as all other imports

    ranks = np.stack([stats.rankdata(scores), -stats.rankdata(errors)])
    varied = len(scores) > 1 and (np.ptp(ranks, axis=1) > 0).all()
    return {
        "within": within,
        "score": means(scores),
        "correct": means((errors <= within).astype(np.float64)),
        "count": counts[used].tolist(),
        "rank_correlation": float(np.corrcoef(ranks)[0, 1]) if varied else None,
    }


def torso_diameters(keypoints: Array, labeled: Array, skeleton: Skeleton) -> Array:
    """[N] the yardstick of PDJ: shoulder to hip of opposing sides (Sec. 4.1).

    The second diagonal of the skeleton comes first, right shoulder to left hip, as in
    the tables published for LSP and FLIC; the others stand in where an end of it has
    no label. A skeleton without diagonals is measured by the longer side of the box
    around the labeled joints. The diameter that sizes crops has a least value besides.

    Returns:
      Diameters in the unit of `keypoints` [N, K, 2]; NaN where labels [N, K] allow none
      (such a person is not scored).
    """
    if not skeleton.diagonals:
        return extents(keypoints, labeled)
    diameters = np.full(len(keypoints), np.nan)
    for a, b in skeleton.diagonals[1:] + skeleton.diagonals[:1]:
        lengths = np.hypot(*np.moveaxis(keypoints[:, a] - keypoints[:, b], -1, 0))
        usable = np.isnan(diameters) & labeled[:, a] & labeled[:, b]
        diameters = np.where(usable, lengths, diameters)
    return diameters


def extents(keypoints: Array, labeled: Array) -> Array:
    """[N] longer side of the box around the labeled joints, in the unit of `keypoints`
    [N, K, 2]; NaN below two of them. `labeled`: [N, K] bool."""
    shown = labeled[..., np.newaxis]
    highest = np.where(shown, keypoints, -np.inf).max(axis=1)
    lowest = np.where(shown, keypoints, np.inf).min(axis=1)
    return np.where(labeled.sum(axis=1) > 1, (highest - lowest).max(axis=-1), np.nan)


def yardstick(skeleton: Skeleton) -> str:
    """What `torso_diameters` measures on this skeleton, in words."""
    if not skeleton.diagonals:
        return "the longer side of the box around the labeled joints"
    first, *others = [
        " to ".join(skeleton.canonical[joint].replace("_", " ") for joint in diagonal)
        for diagonal in skeleton.diagonals[1:] + skeleton.diagonals[:1]
    ]
    if not others:
        return f"from {first}"
    return f"from {first}, or {', or '.join(others)} where one of them has no label"


def mean_pose(normalized: Array, labeled: Array, weights: Array | int = 1) -> Array:
    """[K, 2] the mean of each joint over the people that have it labeled.

    Placed into every first box it is the mean-pose baseline: what a network that has
    learned nothing of the image would get.

    Args:
      normalized: [N, K, 2] poses N(y; b) relative to each person's first box.
      labeled: [N, K] bool.
      weights: [N] how often each person counts.

    Returns:
      Normalized; zero, the middle of the box, for a joint that nobody has labeled.
    """
    labeled = np.asarray(labeled, bool)[..., np.newaxis]
    counts = labeled * np.reshape(weights, (-1, 1, 1))
    sums = (np.where(labeled, normalized, 0.0) * counts).sum(axis=0)
    return sums / np.maximum(counts.sum(axis=0), 1)


def _checked(predicted, keypoints, labeled, skeleton):
    """The arrays in float64, bad predictions at infinity, unlabeled truth at zero."""
    predicted = np.asarray(predicted, np.float64)
    keypoints = np.asarray(keypoints, np.float64)
    labeled = np.asarray(labeled, bool)
    shape = (len(labeled), len(skeleton.joints))
    for name, array, expected in (
        ("labeled", labeled, shape),
        ("keypoints", keypoints, (*shape, 2)),
        ("predicted", predicted, (*shape, 2)),
    ):
        if array.shape != expected:
            raise ValueError(
                f"{name} has shape {array.shape}, expected {expected} for the "
                f"skeleton {skeleton.name!r}"
            )
    keypoints = np.where(labeled[..., np.newaxis], keypoints, 0.0)
    if not np.isfinite(keypoints).all():
        raise ValueError("keypoints: a joint marked as labeled is not finite")
    # One infinite coordinate is enough to be wrong, and unlike NaN it is silent.
    finite = np.isfinite(predicted).all(axis=-1, keepdims=True)
    return np.where(finite, predicted, np.inf), keypoints, labeled


def _sticks(predicted, keypoints, labeled, skeleton, threshold, strict):
    """Correct and scored people of each stick: two int arrays [L]."""
    predicted, keypoints, labeled = _checked(predicted, keypoints, labeled, skeleton)
    correct, total = [], []
    for limb in skeleton.limbs:
        ends = [list(limb.start), list(limb.end)]
        true = [keypoints[:, end].mean(axis=1) for end in ends]  # two of [N, 2]
        found = [predicted[:, end].mean(axis=1) for end in ends]
        length = _distances(true[0], true[1])
        errors = np.stack([_distances(f, t) for f, t in zip(found, true, strict=True)])
        worst = errors.max(axis=0) if strict else errors.mean(axis=0)  # [N]
        scored = labeled[:, ends[0] + ends[1]].all(axis=1)
        correct.append(np.sum(scored & (worst <= threshold * length)))
        total.append(np.sum(scored))
    return np.array(correct, np.int64), np.array(total, np.int64)


def _errors(predicted, keypoints, labeled, units):
    """Distances in each person's unit [N, K], and which of them are scored [N, K]; a
    person whose unit is NaN is not."""
    scored = labeled & ~np.isnan(units)[:, np.newaxis]
    distances = _distances(predicted, keypoints)
    # A torso seen end-on may have no length: then only a perfect joint is detected.
    safe = np.where(units > 0, units, 1.0)[:, np.newaxis]
    hopeless = (units == 0)[:, np.newaxis] & (distances > 0)
    return np.where(hopeless, np.inf, distances / safe), scored


def _distances(a, b):
    return np.hypot(a[..., 0] - b[..., 0], a[..., 1] - b[..., 1])


def fraction(count: Array, total: Array) -> Array:
    """count / total, NaN where total is zero."""
    total = np.asarray(total, np.float64)
    return np.where(total > 0, count / np.where(total > 0, total, 1.0), np.nan)


def mean_known(values: Array) -> float:
    """Mean of those that are not NaN, NaN if there is none."""
    known = [value for value in np.asarray(values) if not np.isnan(value)]
    return np.mean(known) if known else np.nan
