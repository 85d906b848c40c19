"""`predictions.json`, what `deeppose-predict` writes: in the manner of COCO.

Joints in it are in the project's coordinates, as the file says itself; those of COCO
files count from the centre of the first pixel and are smaller by half a pixel.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib

import numpy as np

from deeppose_tf import detect, files
from deeppose_tf import skeleton as skeletons

FORMAT = "deeppose-tf predictions 1"
NAME = "predictions.json"
COORDINATES = (
    "pixels (x, y) of the upright image: (0, 0) is the top-left corner of the image "
    "and (0.5, 0.5) the centre of its first pixel; boxes are x0, y0, x1, y1; keypoints "
    "are x, y, score of each joint; stages hold the pose after each stage as x, y of "
    "each joint"
)


@dataclasses.dataclass
class Results:
    """Collects what `predictions.json` says.

    Attributes:
      skeleton: names the K joints.
      settings: JSON value, what the run was asked for.
      images: one entry for each image or frame of a video.
      annotations: one entry for each person, of the image `image_id`.
      unreadable: file name and reason of what was passed over.
    """

    skeleton: skeletons.Skeleton
    settings: dict
    images: list[dict] = dataclasses.field(default_factory=list)
    annotations: list[dict] = dataclasses.field(default_factory=list)
    unreadable: list[dict] = dataclasses.field(default_factory=list)

    def add(
        self,
        name: str,
        size: tuple[int, int],
        boxes: np.ndarray | None,
        predicted: dict,
        frame: dict | None = None,
    ) -> None:
        """Adds the people of an image.

        Args:
          name: of the file.
          size: height and width of the image.
          boxes: [N, 4] first boxes, pixels; None where nobody was found and the whole
            image had to do.
          predicted: of `Cascade.predict`.
          frame: which frame of a video it is.
        """
        number = len(self.images) + 1
        height, width = size
        entry = {"id": number, "file_name": name, "width": width, "height": height}
        self.images.append(entry | (frame or {}) | {"found": boxes is not None})
        boxes = detect.WHOLE_IMAGE if boxes is None else boxes
        for i, box in enumerate(boxes):
            box = box if box.any() else np.array([0, 0, width, height])
            self.annotations.append(
                {
                    "id": len(self.annotations) + 1,
                    "image_id": number,
                    "category_id": 1,
                    "box": _rounded(box),
                    **_person(predicted, i),
                }
            )

    def content(self) -> dict:
        """What the file holds."""
        names = list(self.skeleton.joints)
        return {
            "format": FORMAT,
            "coordinates": COORDINATES,
            "settings": self.settings,
            "categories": [{"id": 1, "name": "person", "keypoints": names}],
            "skeleton": skeletons.to_json(self.skeleton),
            "images": self.images,
            "annotations": self.annotations,
            "unreadable": self.unreadable,
        }

    def write(self, folder: pathlib.Path, finished: bool) -> None:
        """Writes the file into a folder, whole or not at all."""
        content = self.content() | {"finished": finished}
        files.write_bytes(folder / NAME, json.dumps(content).encode() + b"\n")


def _person(predicted, i) -> dict:
    keypoints, scores = predicted["keypoints"][i], predicted["scores"][i]
    return {
        "keypoints": _rounded(np.concatenate([keypoints, scores[:, None]], axis=1)),
        "score": _rounded(scores.mean())[0],
        "valid": bool(predicted["valid"][i]),
        "stages": [_rounded(pose) for pose in predicted["keypoints_by_stage"][i]],
    }


def _rounded(values) -> list[float]:
    return [round(float(value), 3) for value in np.ravel(values)]
