"""A contact sheet of prepared people: whether labels are right is seen at once."""

from __future__ import annotations

import functools
import pathlib

import numpy as np
import tensorflow as tf

from deeppose_tf import draw
from deeppose_tf.pipelines.data import inputs, records

NAME = "people.png"
PEOPLE = 16
COLUMNS = 4
CELL = 400


def write(index: records.Index) -> None:
    """Draws the first people of the data set, whose training part is shuffled, with
    their joints and the names of these; a sheet that is there stays."""
    path = pathlib.Path(index.directory) / NAME
    shards = [shard for split in index.shards.values() for shard in split]
    if path.exists() or not shards:
        return
    parse = functools.partial(records.parse, joints=len(index.skeleton.joints))
    people = tf.data.TFRecordDataset(shards).take(PEOPLE).map(parse)
    cells, captions = [], []
    for person in people.as_numpy_iterator():
        image = inputs.decode(tf.constant(person["image"])).numpy()
        known = person["keypoints"][person["labeled"]]
        box = person["box"] if person["box"].any() else [0, 0, *image.shape[1::-1]]
        shown = [known, np.reshape(box, (2, 2))]
        cell, move = draw.cut(image, shown, CELL, margin=0.1)
        pose = move(person["keypoints"]), index.skeleton, person["labeled"]
        cells.append(draw.draw_names(draw.draw_pose(cell, *pose), *pose))
        captions.append(person["id"].decode())
    columns = min(COLUMNS, len(cells))
    sheet = draw.contact_sheet(cells, captions, columns, CELL, draw.SIDES_LEGEND)
    draw.write_image(path, sheet)
