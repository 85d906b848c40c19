"""Clothes, skin and hair of the people of the generated data set."""

from __future__ import annotations

import dataclasses

import numpy as np

from deeppose_tf.datasets import generated_paint as paint

SKINS = ((245, 208, 178), (224, 172, 132), (190, 132, 92), (141, 90, 60), (92, 58, 42))
HAIRS = ((28, 22, 20), (74, 48, 30), (140, 92, 48), (214, 178, 104), (160, 156, 150))
COVERED = ("upper_arm", "lower_arm", "upper_leg", "lower_leg")


@dataclasses.dataclass(frozen=True)
class Outfit:
    """What a person looks like; colours are [3] RGB in 0..255.

    Attributes:
      covered: limb -> how much of its length the garment covers, 0..1.
      cues: `elbow`, `wrist`, `knee`, `ankle`, `collar` -> colour of what marks it.
      light: [2] direction in the image that the light comes from.
    """

    skin: np.ndarray
    hair: np.ndarray
    long_hair: bool
    shirt: paint.Fabric
    trousers: paint.Fabric
    covered: dict[str, float]
    cues: dict[str, np.ndarray]
    shoe: np.ndarray
    sole: np.ndarray
    print_color: np.ndarray
    backpack: np.ndarray | None
    light: np.ndarray


def sample_outfit(rng: np.random.Generator) -> Outfit:
    """Random clothes, skin and hair."""

    def of(palette):
        jitter = rng.uniform(0.88, 1.08) + rng.uniform(-0.04, 0.04, 3)
        return np.clip(np.array(palette[rng.integers(len(palette))]) * jitter, 0, 255)

    sleeve = [(0, 0), (0.6, 0), (1, 1), (1, 1)][rng.integers(4)]
    leg = [(0.8, 0), (1, 1), (1, 1)][rng.integers(3)]
    angle = rng.uniform(0, 2 * np.pi)
    return Outfit(
        skin=of(SKINS),
        hair=of(HAIRS),
        long_hair=rng.random() < 0.35,
        shirt=paint.sample_fabric(rng),
        trousers=paint.sample_fabric(rng, (0.1, 0.7), (0.12, 0.5)),
        covered=dict(zip(COVERED, sleeve + leg, strict=True)),
        cues={
            name: paint.sample_color(rng, (0.0, 0.7), (0.85, 1.0))
            for name in ("elbow", "wrist", "knee", "ankle", "collar")
        },
        shoe=paint.sample_color(rng, (0.3, 0.9), (0.15, 0.7)),
        sole=np.full(3, rng.uniform(160, 250)),
        print_color=paint.sample_color(rng),
        backpack=paint.sample_color(rng) if rng.random() < 0.4 else None,
        light=np.array([np.cos(angle), np.sin(angle)]),
    )
