"""People in films: boxes that follow them, and poses steady from frame to frame.

Joints are smoothed by the one-euro filter (Casiez et al., CHI 2012): a low pass whose
cutoff rises with the speed, so that what rests does not tremble and what moves hardly
lags. Only the past is looked at, so that the same film gives the same poses live.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

# The cutoff of a joint at rest and that of speeds, in Hz; and what the first rises by
# for each extent of the pose that the joint moves in a second. What they do to drawn
# films is in docs/results.md.
CUTOFF, SPEED_CUTOFF, RISE = 1.0, 2.0, 20.0
# A found box belongs to the person whose box it overlaps by this share of both.
LEAST_OVERLAP = 0.3
# Where a found box overlaps that of somebody not found by more, it may be of the same.
NO_OVERLAP = 0.1
# How far a box goes towards a found one in a frame.
STEP = 0.5
# Who is not found for longer, in seconds, is gone.
LONGEST_GAP = 0.5


@dataclasses.dataclass
class _Person:
    """box: [4] pixels, zeros for the whole image. seen: when it was found last, in
    seconds. at: when the pose was. predicted, keypoints, speed: [K, 2] pixels, before
    and after smoothing, and pixels a second; None without a valid pose."""

    box: np.ndarray
    seen: float
    at: float = -math.inf
    predicted: np.ndarray | None = None
    keypoints: np.ndarray | None = None
    speed: np.ndarray | None = None


class Tracks:
    """The people of one film, by numbers.

    Args:
      follow: whether boxes that are found anew in each frame are made steady, and kept
        for a moment where they are not found. Boxes of a file stay as they are.
    """

    def __init__(self, follow: bool):
        self._follow, self._people, self._next = follow, {}, 1

    def boxes(
        self, found: np.ndarray | None, seconds: float
    ) -> tuple[np.ndarray, list[int]]:
        """The person boxes of the next frame.

        Args:
          found: [N, 4] pixels, zeros for the whole image; None where nobody was found.
          seconds: when the frame is shown.

        Returns:
          [M, 4] float32: those, made steady, and those of people not found just now;
          the whole image where there is none of them. And M numbers of people.
        """
        left = {
            number: self._moved(person, seconds)
            for number, person in self._people.items()
            if seconds - person.seen <= LONGEST_GAP
        }
        self._people = {number: self._people[number] for number in left}
        boxes, numbers = [], []
        for box in [] if found is None else found:
            number = max(left, key=lambda n: _overlap(left[n], box), default=None)
            if number is None or _overlap(left[number], box) < LEAST_OVERLAP:
                number, self._next = self._next, self._next + 1
            elif self._follow:
                box = left.pop(number) * (1 - STEP) + box * STEP
            else:
                left.pop(number)
            boxes.append(box)
            numbers.append(number)
        self._place(boxes, numbers, seconds)
        if self._follow:
            for number, box in left.items():
                near = max((_overlap(box, other) for other in boxes), default=0)
                if box.any() and near < NO_OVERLAP:
                    boxes.append(box)
                    numbers.append(number)
                    self._people[number].box = box
        if not boxes and found is None:
            return self.boxes(np.zeros((1, 4), np.float32), seconds)
        return np.float32(boxes).reshape(-1, 4), numbers

    def resume(self, boxes: np.ndarray, poses: dict, seconds: float) -> None:
        """Takes boxes [N, 4] and poses for those of a frame, as `boxes` and `poses`
        answered before."""
        self._place(boxes, poses["track"], seconds)
        predicted = [stages[-1] for stages in poses["keypoints_by_stage"]]
        self.poses(poses["track"], poses | {"keypoints": predicted}, seconds)

    def poses(self, numbers: list[int], predicted: dict, seconds: float) -> dict:
        """What a cascade predicted for people in a frame, with steady `keypoints`.

        Returns:
          The same with `keypoints` [N, K, 2] smoothed, and the numbers as `track`.
          `keypoints_by_stage` stay as they were predicted.
        """
        if not numbers:
            return predicted
        people = zip(numbers, predicted["keypoints"], predicted["valid"], strict=True)
        steady = [
            self._smoothed(self._people[number], pose, seconds) if valid else pose
            for number, pose, valid in people
        ]
        return predicted | {"keypoints": np.float32(steady), "track": numbers}

    def _place(self, boxes, numbers, seconds):
        for box, number in zip(boxes, numbers, strict=True):
            person = self._people.setdefault(number, _Person(box, seconds))
            person.box, person.seen = np.asarray(box, np.float64), seconds
        self._next = max([self._next, *(number + 1 for number in numbers)])

    def _smoothed(self, person, keypoints, seconds):
        passed, person.at = seconds - person.at, seconds
        before, person.predicted = person.predicted, keypoints
        if before is None or not 0 < passed <= LONGEST_GAP:
            person.keypoints, person.speed = keypoints, np.zeros_like(keypoints)
            return keypoints
        speed = (keypoints - before) / passed
        person.speed += _share(SPEED_CUTOFF, passed) * (speed - person.speed)
        extents = np.linalg.norm(person.speed, axis=1, keepdims=True)
        extents /= max(np.ptp(keypoints, axis=0).max(), 1.0)
        cutoff = CUTOFF + RISE * extents  # [K, 1]
        moved = keypoints - person.keypoints
        person.keypoints = person.keypoints + _share(cutoff, passed) * moved
        return person.keypoints

    def _moved(self, person, seconds):
        """Where the box of a person should be by now."""
        if person.speed is None or not person.box.any():
            return person.box
        step = person.speed.mean(axis=0) * (seconds - person.at)
        return person.box + np.tile(step, 2)


def _share(cutoff, passed):
    """How far a low pass of a cutoff in Hz goes in so many seconds."""
    rate = 2 * math.pi * cutoff * passed
    return rate / (rate + 1)


def _overlap(one, other) -> float:
    """Intersection over union of two boxes [4]; 1 of the whole image with itself."""
    if not one.any() or not other.any():
        return float(not one.any() and not other.any())
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    common = np.prod(np.maximum(sides, 0))
    areas = np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2])
    return float(common / (areas - common))
