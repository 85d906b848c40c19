"""Contact sheets of prepared people: whether labels are right is seen at once."""

from __future__ import annotations

import itertools
import pathlib
from collections.abc import Sequence

import numpy as np

from deeppose_tf import datasets, draw
from deeppose_tf.datasets import Annotations, images
from deeppose_tf.pipelines.data import records

NAME, TAUGHT = "people.png", "taught.png"
PEOPLE = 16
COLUMNS = 4
CELL = 400


def write(index: records.Index) -> None:
    """Draws the first people of the data set, whose training part is shuffled, with
    their joints and the names of these; a sheet that is there stays."""
    path = pathlib.Path(index.directory) / NAME
    if path.exists() or not any(index.counts.values()):
        return
    everyone = ((split, i) for split, n in index.counts.items() for i in range(n))
    cells, captions = [], []
    for split, i in itertools.islice(everyone, PEOPLE):
        people = index.people[split]
        keypoints, labeled = people.keypoints[i], people.labeled[i]
        box = people.take([i]).first_boxes.reshape(2, 2)
        image = records.read_image(index, split, i)
        cell, move = draw.cut(image, [keypoints[labeled], box], CELL, margin=0.1)
        pose = move(keypoints), index.skeleton, labeled
        cells.append(draw.draw_names(draw.draw_pose(cell, *pose), *pose))
        captions.append(people.ids[i])
    columns = min(COLUMNS, len(cells))
    convention = index.provenance.get("arguments", {}).get("convention")
    meant = {datasets.CENTRIC[convention]: None} if convention else {}
    sheet = draw.contact_sheet(cells, captions, columns, CELL, draw.COLORS | meant)
    draw.write_image(path, sheet)


def write_taught(
    people: Annotations, taught: Annotations, worst: Sequence[str], folder: pathlib.Path
) -> None:
    """Draws labels and, where a teacher has others, the teacher's with the names of
    both; of nobody, no sheet.

    Args:
      people: as they were labeled.
      taught: the same, see `teacher.teach`.
      worst: the ids of those to draw.
      folder: where to; made if it is not there.
    """
    cells, captions, skeleton = [], [], people.skeleton
    for who in worst:
        i = people.ids.index(who)
        before, after = people.keypoints[i], taught.keypoints[i]
        labeled, known = people.labeled[i], taught.labeled[i]
        image = images.read_image(people.images[i], images.MAX_DECODED)
        shown = [before[labeled], after[known]]
        cell, move = draw.cut(image, shown, CELL, margin=0.1)
        answer = move(after), skeleton, known, draw.PREDICTION
        label = move(before), skeleton, labeled, draw.TRUTH
        cell = draw.draw_pose(draw.draw_pose(cell, *answer), *label)
        changed = known & (before != after).any(axis=-1)
        # Where sides are exchanged both have a name at one place: one below the other.
        for below, (keypoints, _, there, color) in ((12, answer), (0, label)):
            names = keypoints + (0, below), skeleton, there & changed, color
            cell = draw.draw_names(cell, *names)
        cells.append(cell)
        captions.append(f"{who}: {np.sum(labeled & changed)} labels replaced")
    if cells:
        folder.mkdir(parents=True, exist_ok=True)
        legend = {"label": draw.TRUTH, "teacher, where it is used": draw.PREDICTION}
        sheet = draw.contact_sheet(cells, captions, COLUMNS, CELL, legend)
        draw.write_image(folder / TAUGHT, sheet)
