"""The cascade of Eqs. (5) to (7), and the displacement statistics of Sec. 3.2."""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from deeppose_tf import draw, files, geometry, networks, sampling
from deeppose_tf.config import (
    INDEX,
    INDEX_FORMATS,
    PRESETS,
    check_run,
    find_run,
    list_presets,
    no_preset,
)
from deeppose_tf.datasets.images import read_image
from deeppose_tf.skeleton import Skeleton
from deeppose_tf.stage import Stage, load_stage

# People whose joint crops are in memory at a time, without and with a GPU.
PEOPLE_AT_ONCE = 8, 32
# A joint is right within so many pose diameters of its label: what scores estimate.
NEAR = 0.2
# How far beside its box a first stage without maps looks again, in sizes of the box.
SHIFT = 1 / 16
# Coordinates beyond this are no place in an image.
FARTHEST = 1e6
# Predictions beyond this are of a network that diverged.
DIVERGED = 1e9


class Cascade:
    """Trained stages that refine one pose after the other.

    Attributes:
      stages: in order; the first sees the whole person.
      skeleton: the K joints.
      count: the number of stages.
      run: the folder that it was loaded from, or None.
    """

    def __init__(self, stages: Sequence[Stage]):
        if not stages:
            raise ValueError("a cascade needs at least one stage")
        if any(stage.skeleton != stages[0].skeleton for stage in stages):
            raise ValueError("the stages have different skeletons")
        self.stages = tuple(stages)
        self.skeleton = stages[0].skeleton
        self.count = len(self.stages)
        self.run: str | None = None
        for stage in stages:
            _ = stage.spreading  # built here: within a traced graph it cannot be
        self._function = tf.function(
            self.poses,
            input_signature=[
                tf.TensorSpec([None, None, None, 3], tf.uint8),
                tf.TensorSpec([None, 4], tf.float32),
                tf.TensorSpec([None], tf.int32),
            ],
            autograph=False,
        )

    @classmethod
    def load(cls, run: str) -> Cascade:
        """Loads a run that `deeppose-train` wrote, or a preset by its name.

        Raises:
          ValueError: it is not one, or a file in it is missing, damaged or of an
            unknown format.
        """
        cascade = cls([load_stage(folder) for folder in check_run(run)])
        cascade.run = find_run(str(run))
        return cascade

    @classmethod
    def from_preset(cls, name: str) -> Cascade:
        """Loads a cascade that ships with the package; see `list_presets`.

        Raises:
          ValueError: there is none of this name.
        """
        if name not in list_presets():
            raise ValueError(f"{name!r} {no_preset(name)}")
        return cls.load(str(PRESETS / name))

    def save_index(self, run: str) -> None:
        """Writes `cascade.json`, which names the stages of a run."""
        stages = [f"stage_{i + 1}" for i in range(self.count)]
        content = {"format": INDEX_FORMATS[-1], "stages": stages}
        files.write_json(pathlib.Path(run) / INDEX, content, digest=True)

    @functools.cached_property
    def flipped(self) -> Cascade:
        """The same cascade, whose first stage averages its maps of a person with those
        of the mirror image ("flip test"), at the cost of another look.

        Raises:
          ValueError: its head is linear.
        """
        first, *later = self.stages
        model = networks.with_mirror(first.model, self.skeleton.mirror)
        cascade = Cascade([dataclasses.replace(first, model=model), *later])
        cascade.run = self.run
        return cascade

    def predict(
        self,
        image: str | os.PathLike | np.ndarray | Sequence,
        boxes: np.ndarray | Sequence | None = None,
        flip_test: bool = False,
        trace: bool = True,
    ) -> dict | list[dict]:
        """The poses of the people in an image, or in each of several.

        Args:
          image: the path of a file, or [H, W, 3] uint8 RGB; or a list of these.
          boxes: [N, 4] person boxes, pixels; all zeros, or None, for the whole image.
            Of a list of images a list of these.
          flip_test: predict as `flipped`.
          trace: whether to make a graph, which takes seconds once, and from then on
            answers each person in a fraction of the time that it takes without.

        Returns:
          keypoints: [N, K, 2] pixels, of the last stage.
          keypoints_by_stage: [N, S, K, 2] pixels.
          scores: [N, K] in 0..1, see `scores`.
          valid: [N] bool: False where there is no pixel, where a box cannot be
            answered, or where a stage answered no finite numbers. All else of such a
            person is zeros.
          A list of such dictionaries for a list of images.

        Raises:
          ValueError: a file cannot be read; an image or boxes have another shape or
            type; there are not as many boxes as images; or see `flipped`.
        """
        if flip_test:
            return self.flipped.predict(image, boxes, trace=trace)
        if isinstance(image, (list, tuple)):
            boxes = [None] * len(image) if boxes is None else boxes
            if len(boxes) != len(image):
                raise ValueError(f"{len(image)} images and boxes for {len(boxes)}")
            pairs = zip(image, boxes, strict=True)
            return [self.predict(*pair, trace=trace) for pair in pairs]
        image = _as_image(image)
        boxes = np.zeros([1, 4]) if boxes is None else np.asarray(boxes)
        boxes = boxes.astype(np.float32)
        if boxes.ndim != 2 or boxes.shape[1] != 4:
            raise ValueError(f"boxes are {boxes.shape}, expected [N, 4]")
        if not image.size:
            # Nothing is seen of nothing: a pixel, and boxes that cannot be answered.
            image, boxes = np.zeros([1, 1, 3], np.uint8), np.full_like(boxes, np.nan)
        images, look = tf.constant(image[None]), self._function if trace else self.poses
        return _joined(
            look(images, tf.constant(some), tf.zeros(len(some), tf.int32))
            for some in _portions(boxes)
        )

    def draw(self, image: str | os.PathLike | np.ndarray, poses: dict) -> np.ndarray:
        """The image with the poses that `predict` found in it, [H, W, 3] uint8 RGB;
        joints with a score below 0.5 hollow.

        Args:
          image: the path of a file, or [H, W, 3] uint8 RGB.
          poses: what `predict` answered; those not valid are left out.
        """
        image = _as_image(image)
        for i in np.flatnonzero(poses["valid"]):
            pose, scores = poses["keypoints"][i], poses["scores"][i]
            image = draw.draw_pose(image, pose, self.skeleton, scores=scores)
        return image

    def summary(self) -> str:
        """Prints what the stages are, and returns it."""
        names = "network", *(stage.config.network for stage in self.stages)
        wide = 2 + max(map(len, names))
        lines = [
            f"{self.skeleton.name}: {len(self.skeleton.joints)} joints",
            f"{'stage':7}{'network':{wide}}{'head':10}{'crop':>6}{'sigma':>7}"
            f"{'parameters':>12}  trained",
        ]
        for number, stage in enumerate(self.stages, start=1):
            config, training = stage.config, stage.training
            trained = _how_trained(training)
            sigma = "box" if number == 1 else f"{config.sigma:g}"
            lines.append(
                f"{number:<7}{config.network:{wide}}{config.head:10}{config.size:>6}"
                f"{sigma:>7}{stage.model.count_params():>12,}  {trained}"
            )
        text = "\n".join(lines)
        print(text)
        return text

    def export(self, folder: str) -> str:
        """Exports a SavedModel as `deeppose-export` does; returns its version's folder.

        Raises:
          ValueError: see `export.saved_model.export`.
          OSError: it cannot be written.
        """
        from deeppose_tf.export.saved_model import export

        return str(export.export(self, folder)[0])

    def export_tflite(self, path: str, kind: str = "float16") -> None:
        """Writes a TFLite file and its description, `pose.json` beside `pose.tflite`.

        Args:
          path: ends in `.tflite`; what is there is replaced.
          kind: `float32`, `float16` or `dynamic_range`. `deeppose-tflite` also makes
            `int8`, which needs people to look at, and compares before it writes.

        Raises:
          ValueError: the name or the kind is another.
        """
        from deeppose_tf.export.tflite import convert, export

        if pathlib.Path(path).suffix != ".tflite":
            raise ValueError(f"{path}: the name has to end in .tflite")
        content = convert.convert(self, kind)
        description = export.describe(self, content, kind, None)
        export.write(pathlib.Path(path), content, description)

    def predict_batch(self, images: np.ndarray, boxes: np.ndarray) -> dict:
        """As `predict` for images [B, H, W, 3] of one size with a box [B, 4] each."""
        return _joined(
            self._function(some, box, np.arange(len(box), dtype=np.int32))
            for some, box in zip(_portions(images), _portions(boxes), strict=True)
        )

    def poses(self, images: tf.Tensor, boxes: tf.Tensor, indices: tf.Tensor) -> dict:
        """Eqs. (5) to (7) in TensorFlow; see `predict`.

        Args:
          images: [B, H, W, 3] uint8.
          boxes: [N, 4] float32, pixels; all zeros for the whole image.
          indices: [N] int32, the image of each box.
        """
        boxes, valid = sight(boxes, tf.shape(images)[None, 1:3])
        source = sampling.pyramid(images)
        pose, spread = first_pose(self.stages[0], source, boxes, indices)
        valid &= is_finite(pose)
        poses = [tf.where(valid[:, None, None], pose, 0.0)]
        for stage in self.stages[1:]:
            pose, more = refined_pose(stage, source, poses[-1], indices)
            spread += more
            valid &= is_finite(pose)
            # Positions that are no numbers must not reach the next crop.
            poses.append(tf.where(valid[:, None, None], pose, poses[-1]))
        return answer(poses[-1], tf.stack(poses, 1), spread, valid, self.skeleton)


def sight(boxes: tf.Tensor, sizes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Boxes to look at, and which can be answered: those that are finite, of positive
    size, and in part within their image. In place of another the whole image is seen.

    Args:
      boxes: [N, 4] pixels, any numbers; all zeros for the whole image.
      sizes: [1 or N, 2], height and width of the one image, or of each box's.

    Returns:
      [N, 4] pixels; [N] bool.
    """
    whole = geometry.whole_image_boxes(tf.zeros_like(boxes), sizes)
    boxes = geometry.whole_image_boxes(boxes, sizes)
    near = tf.reduce_all(tf.abs(boxes) < FARTHEST, axis=-1)  # False for NaN
    sized = tf.reduce_all(geometry.box_size(boxes) > 0, axis=-1)
    first, last = tf.split(boxes, 2, axis=-1)
    inside = (first < tf.cast(sizes[..., ::-1], boxes.dtype)) & (last > 0)
    valid = near & sized & tf.reduce_all(inside, axis=-1)
    return tf.where(valid[:, None], boxes, whole), valid


def answer(
    pose: tf.Tensor,
    poses: tf.Tensor,
    spread: tf.Tensor,
    valid: tf.Tensor,
    skeleton: Skeleton,
) -> dict[str, tf.Tensor]:
    """What `Cascade.predict` answers, from the last pose [N, K, 2] and those of all
    stages [N, S, K, 2], pixels: zeros for whoever is not valid [N]."""
    found = scores(spread, pose, skeleton)
    valid = valid & is_finite(found[..., None])
    return {
        "keypoints": tf.where(valid[:, None, None], pose, 0.0),
        "keypoints_by_stage": tf.where(valid[:, None, None, None], poses, 0.0),
        "scores": tf.where(valid[:, None], found, 0.0),
        "valid": valid,
    }


def first_pose(
    stage: Stage, source: sampling.Pyramid, boxes: tf.Tensor, indices: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Eq. (5): the pose seen in boxes [N, 4], pixels, each of the image of its index
    [N] in the source.

    Returns:
      keypoints: [N, K, 2] pixels.
      spread: [N, K, 2], what `scores` takes.
    """
    boxes = geometry.first_boxes(boxes, stage.config.margin, stage.config.square)
    crops = sampling.crop(source, boxes, indices, stage.config.size)
    outputs = stage.spreading(crops, training=False)
    keypoints = geometry.denormalize(outputs[..., :2], boxes)
    if outputs.shape[-1] == 2:  # a linear head
        return keypoints, _second_look(stage, source, boxes, indices, keypoints)
    return keypoints, _spread(outputs, geometry.box_size(boxes)[:, None])


def _second_look(stage, source, boxes, indices, keypoints):
    """The spread [N, K, 2] of a network without maps: by how far it answers otherwise
    where it sees the same people mirrored and a little beside. One that learned nothing
    answers the same in a crop, and so another place."""
    beside = boxes + SHIFT * tf.tile(geometry.box_size(boxes), [1, 2])
    x0, y0, x1, y1 = tf.split(beside, 4, axis=-1)
    mirrored = tf.concat([x1, y0, x0, y1], axis=-1)  # runs backwards
    crops = sampling.crop(source, mirrored, indices, stage.config.size)
    outputs = stage.spreading(crops, training=False)
    # Left and right exchanged by a product: delegates of TFLite take no gathers.
    exchange = np.eye(len(stage.skeleton.joints), dtype=np.float32)[
        list(stage.skeleton.mirror)
    ]
    again = geometry.denormalize(tf.matmul(exchange, outputs), mirrored)
    size = geometry.box_size(boxes)[:, None]
    moved = ((again - keypoints) / size) ** 2 + 1e-6
    return _spread(tf.concat([outputs, moved], axis=-1), size)


def refined_pose(
    stage: Stage, source: sampling.Pyramid, keypoints: tf.Tensor, indices: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Eq. (6): the boxes around all joints, and the displacements seen in them.

    Args:
      stage: the second or a later one.
      source, indices: as of `first_pose`.
      keypoints: [N, K, 2] finite pixels, of the stage before.

    Returns:
      keypoints: [N, K, 2] pixels.
      spread: [N, K, 2], what `scores` takes, added to that of the stages before.
    """
    joints = len(stage.skeleton.joints)
    boxes = geometry.joint_boxes(
        keypoints, diameters(keypoints, stage.skeleton), stage.config.sigma
    )  # [N, K, 4]
    crops = sampling.crop(
        source,
        tf.reshape(boxes, [-1, 4]),
        tf.repeat(indices, joints),
        stage.config.size,
    )
    outputs = stage.spreading(crops, training=False)  # [N K, K, 2 or 4]
    outputs = tf.reshape(outputs, [-1, joints, joints, outputs.shape[-1]])
    # Pair i of crop i. By a mask, because TFLite has no operation for a diagonal.
    own = tf.reduce_sum(outputs * tf.eye(joints)[:, :, None], axis=2)
    seen = tf.squeeze(geometry.denormalize(own[:, :, None, :2], boxes), 2)
    refined = keypoints + stage.config.step_size * (seen - keypoints)
    return refined, _spread(own, geometry.box_size(boxes))


def _spread(outputs, size):
    """[N, K, 4] of a network that `networks.with_spread` made, and the sizes [N, K, 2]
    of boxes -> [N, K, 2]: the logarithm of the variance in pixels, and a one; zeros
    of a network without maps."""
    if outputs.shape[-1] == 2:
        return tf.zeros_like(outputs)
    variance = tf.reduce_sum(outputs[..., 2:] * size**2, axis=-1)  # [N, K]
    return tf.stack([tf.math.log(variance), tf.ones_like(variance)], axis=-1)


def scores(spread: tf.Tensor, keypoints: tf.Tensor, skeleton: Skeleton) -> tf.Tensor:
    """How likely each joint is within `NEAR` pose diameters of its label: an estimate.

    The map of a joint says how far from its answer a stage holds the joint possible.
    The score is the share within `NEAR` of a normal distribution about the answer,
    whose variance is the geometric mean of those of all stages. A linear head has no
    maps: a first stage looks twice, see `_second_look`, and later ones do not count.

    Args:
      spread: [N, K, 2], the sum over the stages: of logarithms of the joint's variance
        in square pixels, and how many they are.
      keypoints: [N, K, 2] pixels, of the last stage.

    Returns:
      [N, K] in 0..1.
    """
    # Split, not sliced: of delegates of TFLite few take slices that drop an axis.
    total, count = tf.split(spread, 2, axis=-1)
    variance = tf.squeeze(tf.exp(total / count), -1)  # [N, K]
    reach = NEAR * diameters(keypoints, skeleton)[:, None]
    # Of x and y together: the squared distance is distributed exponentially.
    return 1.0 - tf.exp(-(reach**2) / variance)


def diameters(keypoints: tf.Tensor, skeleton: Skeleton) -> tf.Tensor:
    """diam(y) of predicted poses, in which every joint is known: [N, K, 2] -> [N]."""
    labeled = tf.ones_like(keypoints[..., 0], tf.bool)
    return geometry.pose_diameter(keypoints, labeled, skeleton)


def _how_trained(training) -> str:
    """Steps and people, of what `deeppose-train` wrote beside a stage."""
    try:
        steps = training["recipe"]["train"]["steps"]
        return f"{steps} steps, {training['data']['counts']['train']} people"
    except (KeyError, TypeError):
        return "unknown"


def _as_image(image) -> np.ndarray:
    """A path or an array -> [H, W, 3] uint8 RGB."""
    if isinstance(image, (str, os.PathLike)):
        return read_image(os.fspath(image))
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(
            f"image is {image.dtype} {list(image.shape)}, expected uint8 [H, W, 3] RGB"
        )
    return image


def _portions(array):
    """The array in parts of as many people as are in memory at a time."""
    count = PEOPLE_AT_ONCE[bool(tf.config.list_physical_devices("GPU"))]
    return [array[i : i + count] for i in range(0, max(len(array), 1), count)]


def _joined(answers):
    answers = list(answers)
    return {
        name: np.concatenate([answer[name].numpy() for answer in answers])
        for name in answers[0]
    }


def is_finite(keypoints: tf.Tensor) -> tf.Tensor:
    """[N, K, 1 or 2] -> [N] bool: numbers of a network that did not diverge."""
    return tf.reduce_all(tf.abs(keypoints) < DIVERGED, axis=[1, 2])  # False for NaN


def displacements(
    predicted: tf.Tensor, keypoints: tf.Tensor, labeled: tf.Tensor, skeleton: Skeleton
) -> tuple[tf.Tensor, tf.Tensor]:
    """y^s - y in true pose diameters, from which the next stage is simulated.

    Args:
      predicted, keypoints: [B, K, 2], pixels.
      labeled: [B, K] bool.

    Returns:
      [B, K, 2], zero where not known; [B, K] bool, known.
    """
    keypoints = tf.convert_to_tensor(keypoints)
    diameters = geometry.pose_diameter(keypoints, labeled, skeleton)
    known = labeled & (diameters > 0)[:, None]
    scale = tf.where(diameters > 0, diameters, 1.0)[:, None, None]
    return tf.where(known[..., None], (predicted - keypoints) / scale, 0.0), known


def displacement_statistics(
    displaced: np.ndarray, known: np.ndarray, outlier_threshold: float = np.inf
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance per joint of Sec. 3.2.

    Args:
      displaced: [N, K, 2], pose diameters.
      known: [N, K] bool.
      outlier_threshold: what lies farther away, in pose diameters, is left out,
        unless hardly anything is nearer: a stage that has learned nothing yet.

    Returns:
      mean [K, 2] and covariance [K, 2, 2]; those of all joints together for a joint
      that is known in fewer than two people.

    Raises:
      ValueError: fewer than two joints are known in all.
    """
    near = known & (np.linalg.norm(displaced, axis=-1) <= outlier_threshold)
    known = near if near.sum() > 1 else known
    everything = displaced[known]
    mean, covariance = [], []
    for joint in range(displaced.shape[1]):
        own = displaced[known[:, joint], joint]
        own = own if len(own) > 1 else everything
        if len(own) < 2:
            raise ValueError("no labeled joints to take displacement statistics from")
        mean.append(own.mean(axis=0))
        covariance.append(np.cov(own, rowvar=False))
    return np.stack(mean).astype(np.float32), np.stack(covariance).astype(np.float32)
