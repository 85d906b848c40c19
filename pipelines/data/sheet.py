"""A contact sheet of prepared people: whether labels are right is seen at once."""

from __future__ import annotations

import itertools
import pathlib

from deeppose_tf import datasets, draw
from deeppose_tf.pipelines.data import records

NAME = "people.png"
PEOPLE = 16
COLUMNS = 4
CELL = 400


def write(index: records.Index) -> None:
    """Draws the first people of the data set, whose training part is shuffled, with
    their joints and the names of these; a sheet that is there stays."""
    path = pathlib.Path(index.directory) / NAME
    if path.exists() or not any(index.counts.values()):
        return
    everyone = (
        (split, i) for split, count in index.counts.items() for i in range(count)
    )
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
