"""A SavedModel with the signatures of an exported cascade; its answers are known."""

import numpy as np
import tensorflow as tf

JOINTS, STAGES = 14, 2


def expected(image, box):
    """The same in NumPy for an image [H, W, 3] and a box [4], pixels."""
    height, width = image.shape[:2]
    box = np.asarray(box if np.any(box) else [0, 0, width, height], np.float32)
    steps = np.arange(JOINTS)[:, None] * [1, 2]  # [K, 2]
    last = (box[:2] + box[2:]) / 2 + steps
    return {
        "keypoints": last,
        "keypoints_by_stage": np.stack([last - 1, last]),
        "scores": np.full(JOINTS, image[..., 0].mean() / 255),
        "valid": box[0] > -1000,
    }


class Toy(tf.Module):
    """Joint k is at the middle of the box plus (k, 2 k), its score the mean red."""

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.string, "image_bytes"),
            tf.TensorSpec([None, 4], tf.float32, "boxes"),
        ],
        autograph=False,
    )
    def jpeg(self, image_bytes, boxes):
        kinds = {
            "keypoints": tf.TensorSpec([JOINTS, 2]),
            "keypoints_by_stage": tf.TensorSpec([STAGES, JOINTS, 2]),
            "scores": tf.TensorSpec([JOINTS]),
            "valid": tf.TensorSpec([], tf.bool),
        }
        return tf.map_fn(_person, (image_bytes, boxes), fn_output_signature=kinds)

    @tf.function(
        input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, "images")],
        autograph=False,
    )
    def tensors(self, images):
        return {"brightness": tf.reduce_mean(tf.cast(images, tf.float32), [1, 2, 3])}


def _person(inputs):
    content, box = inputs
    image = tf.io.decode_image(content, channels=3, expand_animations=False)
    size = tf.cast(tf.shape(image)[1::-1], tf.float32)
    whole = tf.concat([tf.zeros(2), size], 0)
    box = tf.where(tf.reduce_all(box == 0), whole, box)
    steps = np.arange(JOINTS, dtype=np.float32)[:, None] * np.float32([1, 2])
    last = (box[:2] + box[2:]) / 2 + steps
    red = tf.reduce_mean(tf.cast(image[..., 0], tf.float32)) / 255
    return {
        "keypoints": last,
        "keypoints_by_stage": tf.stack([last - 1, last]),
        "scores": tf.fill([JOINTS], red),
        "valid": box[0] > -1000,
    }


def save(folder, signatures=("serving_default", "jpeg")):
    """Writes it; without `jpeg` among the signatures it is no cascade."""
    toy = Toy()
    functions = {"serving_default": toy.tensors, "jpeg": toy.jpeg}
    chosen = {name: functions[name] for name in signatures}
    tf.saved_model.save(toy, str(folder), signatures=chosen)
