"""Several data sets -> train, validation and test, as one `Annotations` each."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from deeppose_tf.datasets import Annotations

TEST_SHARE = 0.1  # Held out for testing where no data set has a test part.

Splits = dict[str, Annotations]


def merge(parts: list[Annotations]) -> Annotations:
    """Everyone of several data sets, in their order.

    Raises:
      ValueError: they have different skeletons, or share an id.
    """
    first = parts[0].skeleton
    for part in parts[1:]:
        if part.skeleton != first:
            raise ValueError(
                f"data sets with different skeletons ({first.name}: "
                f"{', '.join(first.joints)}; {part.skeleton.name}: "
                f"{', '.join(part.skeleton.joints)}) cannot become one; prepare each "
                "into its own --output, or give both the same --skeleton"
            )
    return Annotations(
        skeleton=first,
        images=sum((part.images for part in parts), ()),
        keypoints=np.concatenate([part.keypoints for part in parts]),
        labeled=np.concatenate([part.labeled for part in parts]),
        boxes=np.concatenate([part.boxes for part in parts]),
        ids=sum((part.ids for part in parts), ()),
        skipped=sum((part.skipped for part in parts), ()),
        damaged=sum((part.damaged for part in parts), ()),
        torsos=_merged_torsos(parts),
    )


def arrange(
    parts: list[Splits],
    validation: int = 50,
    test: int | None = None,
    seed: int = 0,
    repeat: Sequence[int] = (),
) -> Splits:
    """One data set of several: the parts of each joined, and what lacks held out.

    Validation images come out of the training part of the first data set (Sec. 4.1)
    unless one has a validation part; likewise test images unless one has a test part.

    Args:
      parts: by data set, by split.
      validation: number of images to hold out for validation.
      test: number of images to hold out for testing; None for a tenth.
      seed: chooses them.
      repeat: by data set, how often its training part is in the result.

    Raises:
      ValueError: nobody to train on nor to test on, too few images to hold that many
        out, or not one positive repeat for each data set.
    """
    repeat = repeat or [1] * len(parts)
    if len(repeat) != len(parts) or min(repeat) < 1:
        given = ",".join(map(str, repeat))
        raise ValueError(f"--repeat={given}: give a positive number for each --dataset")
    if not any(len(part["train"]) for part in parts):
        if not any(len(part["test"]) for part in parts):
            raise ValueError("the training part is empty: nobody to train on")
        validation = 0  # Data to test on alone.
    first, out = parts[0]["train"], {}
    images = len(set(first.images))
    wanted = {"test": round(TEST_SHARE * images) if test is None else test}
    wanted["validation"] = validation
    for split, count in wanted.items():
        found = merge([part[split] for part in parts])
        if not len(found) and count:
            _require_enough(images, count, split)
            found, first = hold_out(first, count, seed)
        out[split] = found
    train = [first] + [part["train"] for part in parts[1:]]
    train = merge(list(map(repeated, train, repeat)))
    return {"train": train, "validation": out["validation"], "test": out["test"]}


def held_out(parts: list[Splits], result: Splits) -> list[str]:
    """Which splits that `arrange` made are of training images, no data set's own."""
    return [
        split
        for split in ("validation", "test")
        if len(result[split]) and not any(len(part[split]) for part in parts)
    ]


def hold_out(
    people: Annotations, images: int, seed: int
) -> tuple[Annotations, Annotations]:
    """That many images with everyone on them, chosen by `seed`; and the others."""
    names = np.unique(people.images)
    chosen = np.random.default_rng(seed).permutation(names)[:images]
    out = np.isin(people.images, chosen)
    return people.take(np.flatnonzero(out)), people.take(np.flatnonzero(~out))


def repeated(people: Annotations, times: int) -> Annotations:
    """Everyone several times over; copies are told apart by `#2` and on in their id,
    so that each is augmented in its own way."""
    copies = [people] + [
        dataclasses.replace(
            people,
            ids=tuple(f"{person}#{copy}" for person in people.ids),
            skipped=(),
            damaged=(),
        )
        for copy in range(2, times + 1)
    ]
    return merge(copies)


def renamed(splits: Splits, prefix: str) -> Splits:
    """The same people with ids that start with `prefix`."""
    return {
        split: dataclasses.replace(
            people, ids=tuple(prefix + person for person in people.ids)
        )
        for split, people in splits.items()
    }


def _merged_torsos(parts: list[Annotations]) -> np.ndarray | None:
    if all(part.torsos is None for part in parts):
        return None
    nothing = [np.zeros((len(part), 4), np.float32) for part in parts]
    return np.concatenate(
        [
            zeros if part.torsos is None else part.torsos
            for part, zeros in zip(parts, nothing, strict=True)
        ]
    )


def _require_enough(images: int, count: int, split: str) -> None:
    if 2 * count > images:
        raise ValueError(
            f"cannot hold out {count} of the first data set's {images} training images "
            f"for {split}, more than half; give a smaller --{split}"
        )
