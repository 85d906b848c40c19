"""Annotations <-> TFRecord shards of images, labels, and an index, `dataset.json`.

A record is an image file's bytes as found: once, however many people are on it. The
labels of a split are a small file of their own, a NumPy array with a row for each
person that says where in which shard their image lies. So whoever trains knows all
labels at once, and reads an image when it is asked for.

A data set is written in `.NAME.partial` beside its place and renamed when it is whole.
The partial folder has its own `dataset.json`, which grows by an entry for each finished
shard: the same call after a kill keeps those whose checksums hold.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import hashlib
import io
import json
import os
import pathlib
import zlib
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from deeppose_tf import files, geometry
from deeppose_tf import skeleton as skeletons
from deeppose_tf.datasets import Annotations, images

FORMAT = "deeppose-tf records 2"
# Whose records are people, each with their image and labels.
FORMAT_1 = "deeppose-tf records 1"
KEYS = "counts finished fingerprint provenance shards skeleton skipped".split()
INDEX = "dataset.json"
FACES = "faces.json"  # In the partial folder, while first boxes are looked for.
SPLITS = ("train", "validation", "test")
SHARD_BYTES = 64 << 20


@dataclasses.dataclass(frozen=True)
class Index:
    """What a prepared data set holds.

    Attributes:
      directory: where it is.
      skeleton: names the K joints.
      counts: records by split.
      shards: absolute paths of the TFRecord files by split.
      provenance: how it was made.
      skipped: (what, reason) for everything that was left out.
      checksums: by split, SHA-256 of those of its files; hexadecimal.
      people: by split, in the order that training counts them and evaluation shows.
    """

    directory: str
    skeleton: skeletons.Skeleton
    counts: dict[str, int]
    shards: dict[str, tuple[str, ...]]
    provenance: dict
    skipped: tuple[tuple[str, str], ...]
    checksums: dict[str, str]
    people: dict[str, People] = dataclasses.field(compare=False)


@dataclasses.dataclass(frozen=True)
class People:
    """The labels of a split, without images.

    Attributes:
      ids: N, unique in the data set.
      keypoints: [N, K, 2] float32, pixels; zeros where not labeled.
      labeled: [N, K] bool.
      boxes: [N, 4] float32 first boxes, pixels; zeros for the whole image.
      sizes: [N, 2] int32 height and width of the images.
      weights: [N] int64, how often an epoch shows each of them.
      images: [N, 4] int64, where each image is: number of its shard, first byte,
        length, CRC-32.
    """

    ids: tuple[str, ...]
    keypoints: np.ndarray
    labeled: np.ndarray
    boxes: np.ndarray
    sizes: np.ndarray
    weights: np.ndarray
    images: np.ndarray | None = None

    def take(self, chosen: np.ndarray) -> People:
        """Some of them, by their numbers."""
        arrays = [getattr(self, field.name) for field in dataclasses.fields(self)[1:]]
        ids = tuple(self.ids[i] for i in chosen)
        return People(ids, *(array[chosen] for array in arrays))

    @property
    def first_boxes(self) -> np.ndarray:
        """[N, 4] pixels, the whole image spelled out."""
        boxes, sizes = tf.constant(self.boxes), tf.constant(self.sizes)
        return geometry.whole_image_boxes(boxes, sizes).numpy()


def write(
    splits: dict[str, Annotations],
    output: str,
    provenance: dict | None = None,
    skipped: tuple[tuple[str, str], ...] = (),
    fingerprint: str | None = None,
    seed: int = 0,
    convert: bool = False,
    progress: Callable[[int], None] = lambda done: None,
    weights: np.ndarray | None = None,
) -> Index:
    """Writes a data set, or continues or confirms one written by the same call.

    The people of `train` are shuffled once, by `seed`.

    Args:
      splits: by name (`train`, `validation`, `test`), all with the same skeleton.
      output: the folder to make; its parent is made too.
      provenance: JSON value to keep: how the data set was made; its `arguments`, by
        name, are those that a later run compares.
      skipped: (what, reason) of what had been left out, kept in the index.
      fingerprint: identity of the data set; by default that of the other arguments.
      convert: stores odd images as upright 8-bit RGB PNG instead of refusing them.
      progress: called with the number of people whose images are written.
      weights: [N] positive integers, how often an epoch shows each person of `train`;
        by default once.

    Raises:
      ValueError: `output` (or what a killed run left of it) is something else; or an
        image cannot be stored. Names it and says what to do.
    """
    if len({people.skeleton for people in splits.values()}) != 1:
        raise ValueError("there must be splits, all of one skeleton")
    provenance = provenance or {}
    if fingerprint is None:
        shown = np.array(weights).tolist()
        fingerprint = identity(splits, [provenance, seed, convert, shown])
    if finished(output, fingerprint, provenance.get("arguments", {})):
        return verify(output)
    partial = partial_directory(output)
    with files.alone(partial, "run"):
        content = _begin(partial, splits, provenance, fingerprint)
        _write_splits(partial, content, splits, weights, seed, convert, progress)
        content["finished"] = True
        content["skipped"] = [{"what": what, "reason": why} for what, why in skipped]
        files.write_json(partial / INDEX, content, digest=True)
        (partial / FACES).unlink(missing_ok=True)
        os.replace(partial, pathlib.Path(output).resolve())
        files.sync(partial.parent)
    return read_index(output)


def identity(splits: dict[str, Annotations], arguments) -> str:
    """A fingerprint of labels, image files (size and time) and other arguments."""
    digest = hashlib.sha256(json.dumps(arguments, sort_keys=True).encode())
    for split, people in sorted(splits.items()):
        # The first format's name, by which data of that format is known again.
        head = [FORMAT_1, split, skeletons.to_json(people.skeleton)]
        stats = [(path, *status(path)) for path in people.images]
        digest.update(json.dumps([head, people.ids, stats]).encode())
        arrays = [people.keypoints, people.labeled, people.boxes]
        arrays += [people.torsos] if people.torsos.any() else []
        for array in arrays:
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def finished(output: str, fingerprint: str, arguments: dict) -> bool:
    """Whether `output` already is the data set of this fingerprint.

    Args:
      arguments: how it is to be made, to tell what is different.

    Raises:
      ValueError: something else is there.
    """
    folder = pathlib.Path(output)
    if not folder.exists() or folder.is_dir() and not any(folder.iterdir()):
        return False
    if not (folder / INDEX).is_file():
        raise ValueError(
            f"{output}: exists and is no prepared data set; nothing was written. Give "
            "another --output"
        )
    content = load(output)
    if content["fingerprint"] == fingerprint:
        return True
    raise ValueError(
        f"{output}: holds another data set ({_difference(content, arguments)}). "
        "Nothing was written; give another --output, or delete that folder first"
    )


def partial_directory(output: str) -> pathlib.Path:
    """Where a data set is while it is being written."""
    return files.hidden(pathlib.Path(output).resolve(), "partial")


def read_index(directory: str) -> Index:
    """The index of a prepared data set with its labels; no image is read.

    Of images compares sizes only; `verify` reads every byte. Data of the first format
    has its labels beside its images, so that all of it is read.

    Raises:
      ValueError: not a finished data set, or a file of it is missing, of a wrong size
        or damaged; names it and what to do.
    """
    content = load(directory)
    if not content["finished"]:
        raise ValueError(
            f"{directory}: an unfinished data set. Run the same deeppose-prepare again "
            "to finish it"
        )
    folder = pathlib.Path(directory).resolve()
    for entry in _files(content):
        file = folder / entry["file"]
        size = file.stat().st_size if file.is_file() else None
        if size != entry["bytes"]:
            found = "is missing" if size is None else f"has {size} bytes"
            raise _damaged(f"{file}: {found}, expected {entry['bytes']} bytes", folder)
    return Index(
        directory=str(folder),
        skeleton=skeletons.from_json(content["skeleton"]),
        counts=dict(content["counts"]),
        shards={
            split: tuple(str(folder / shard["file"]) for shard in shards)
            for split, shards in content["shards"].items()
        },
        provenance=content["provenance"],
        skipped=tuple((s["what"], s["reason"]) for s in content["skipped"]),
        checksums={split: _checksum(content, split) for split in content["shards"]},
        people={split: _people(folder, content, split) for split in content["shards"]},
    )


def verify(directory: str) -> Index:
    """As `read_index`, and compares the SHA-256 of every file.

    Raises:
      ValueError: as `read_index`, or a file's content has changed.
    """
    index = read_index(directory)
    for entry in _files(load(directory)):
        _require_unchanged(pathlib.Path(index.directory), entry)
    return index


def read_people(index: Index, split: str, limit: int | None = None) -> People:
    """The labels of a split, or of its first people.

    Raises:
      ValueError: the data set has no such split, or nobody in it.
    """
    if not index.counts.get(split):
        having = ", ".join(name for name, count in index.counts.items() if count)
        raise ValueError(f"{index.directory}: nobody in its {split}; it has {having}")
    people = index.people[split]
    return people.take(np.arange(len(people.ids))[:limit])


def read(index: Index, split: str, person: int) -> bytes:
    """The image that a person is on, as found: JPEG or PNG, 8-bit RGB, upright.

    Raises:
      ValueError: it cannot be read, or is damaged; names the shard.
    """
    return _read(*_place(index, split, person))


def read_image(index: Index, split: str, person: int) -> np.ndarray:
    """The same, decoded: [H, W, 3] uint8, not to be written into."""
    return _decoded(*_place(index, split, person))


def decode(encoded: bytes) -> np.ndarray:
    """Encoded image -> [H, W, 3] uint8, the pixels of `images.read_image`."""
    with tf.device("CPU:0"):
        if encoded.startswith(b"\xff\xd8\xff"):
            # The default trades accuracy for speed: other pixels than in prediction.
            image = tf.io.decode_jpeg(encoded, 3, dct_method="INTEGER_ACCURATE")
        else:
            image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    return np.asarray(image)


def fingerprint(people: People) -> str:
    """Of ids and labels, whatever their order, first boxes and images: the same for the
    same people alone."""
    parts = []
    everyone = zip(people.ids, people.keypoints, people.labeled, strict=True)
    for person, keypoints, labeled in everyone:
        # What is not labeled is no label, whatever is stored there.
        labels = np.where(labeled[:, None], keypoints, 0).astype("<f4").tobytes()
        content = person.encode() + b"\0" + labeled.astype("u1").tobytes() + labels
        parts.append(hashlib.sha256(content).digest())
    return hashlib.sha256(b"".join(sorted(parts))).hexdigest()[:16]


def load(directory: str) -> dict:
    """`dataset.json` as it is, finished or not.

    Raises:
      ValueError: it is missing, damaged or of another version.
    """
    path = pathlib.Path(directory) / INDEX
    if not path.is_file():
        raise ValueError(
            f"{directory}: no {INDEX} there, so no prepared data set. Make one with "
            "deeppose-prepare"
        )
    try:
        content = files.read_json(path)
    except ValueError as error:
        raise _damaged(str(error), directory) from error
    if content.get("format") not in (FORMAT, FORMAT_1):
        raise ValueError(
            f"{path}: format {content.get('format')!r}, this version reads "
            f"{FORMAT!r}. Run deeppose-prepare again into another folder"
        )
    try:
        if missing := ", ".join(sorted(set(KEYS) - content.keys())):
            raise ValueError(missing)
        _require_sound(content)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _damaged(f"{path}: damaged ({error})", directory) from error
    return content


def sha256(path: str | os.PathLike) -> str:
    """The SHA-256 of a file, hexadecimal."""
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
        return digest.hexdigest()


def _begin(partial, splits, provenance, fingerprint) -> dict:
    """The index of the partial folder: the one found there, or a new one."""
    for left in partial.glob(".*.partial"):  # an index, by a kill
        left.unlink()
    if (partial / INDEX).is_file():
        content = load(str(partial))
        known = content["format"] == FORMAT
        if known and content["fingerprint"] == fingerprint:
            return content
        why = _difference(content, provenance.get("arguments", {}))
        raise ValueError(
            f"{partial}: left by a run that was stopped, of another "
            f"{f'data set ({why})' if known else 'version'}. Repeat that command to "
            "finish it, or delete that folder"
        )
    content = {
        "format": FORMAT,
        "finished": False,
        "fingerprint": fingerprint,
        "skeleton": skeletons.to_json(next(iter(splits.values())).skeleton),
        "counts": {split: len(people) for split, people in splits.items()},
        "shards": {split: [] for split in splits},
        "people": {},
        "provenance": provenance,
        "skipped": [],
    }
    files.write_json(partial / INDEX, content, digest=True)
    return content


def _difference(content: dict, arguments: dict) -> str:
    """Which arguments are others now; if none, the files are."""
    old = content["provenance"].get("arguments", {})
    new = json.loads(json.dumps(arguments))
    changed = [
        f"{name} was {old.get(name)}, is {new.get(name)}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]
    return "; ".join(changed) or "the same flags, but labels or images have changed"


def _write_splits(partial, content, splits, weights, seed, convert, progress) -> None:
    """Writes the shards that `content` does not list yet, and the labels, and adds them
    to it."""
    done = 0
    for split, people in splits.items():
        order, shown = np.arange(len(people)), np.ones(len(people), int)
        if split == "train":
            order = np.random.default_rng(seed).permutation(order)
            shown = shown if weights is None else np.asarray(weights)
        people, places = people.take(order), {}
        on = collections.Counter(people.images)
        chunks = _chunks(list(on))
        listed = {shard["file"]: shard for shard in content["shards"][split]}
        for i, chunk in enumerate(chunks):
            name = f"{split}-{i:05d}-of-{len(chunks):05d}.tfrecord"
            if name not in listed or not _intact(partial, listed[name]):
                _write_shard(partial / name, chunk, convert, progress, done, on)
                listed[name] = _entry(partial / name)
                content["shards"][split] = [listed[key] for key in sorted(listed)]
                files.write_json(partial / INDEX, content, digest=True)
            found = zip(chunk, _records(partial / name), strict=True)
            for path, (start, image) in found:
                place = i, start, len(image), zlib.crc32(image)
                places[path] = images.size(image), place
            done += sum(on[path] for path in chunk)
            progress(done)
        if len(people):
            file = partial / f"{split}-people.npy"
            _write_people(file, people, shown[order], places)
            content["people"][split] = _entry(file)


def _chunks(paths: list[str]) -> list[list[str]]:
    """The images of each shard: as many as end within its share of all bytes."""
    ends = np.cumsum([max(1, status(path)[0]) for path in paths])
    shards = collections.defaultdict(list)
    for path, end in zip(paths, ends, strict=True):
        shards[(end - 1) // SHARD_BYTES].append(path)
    return list(shards.values())


def _write_shard(path, chunk, convert, progress, done, on) -> None:
    """Writes images, telling after each how many people are on those written."""
    temporary = path.with_suffix(".tmp")
    try:
        with tf.io.TFRecordWriter(str(temporary)) as writer:
            for image in chunk:
                writer.write(images.encoded(image, convert)[0])
                done += on[image]
                progress(done)
    except tf.errors.OpError as error:  # A full disk, for one.
        raise OSError(f"{temporary}: cannot be written ({error.message})") from error
    files.sync(temporary)
    os.replace(temporary, path)
    files.sync(path.parent)


def _write_people(path, people, weights, places) -> None:
    ids = np.array([person.encode() for person in people.ids])
    rows = np.zeros(len(ids), _row(people.keypoints.shape[1], ids.dtype.itemsize))
    rows["id"], rows["labeled"], rows["box"] = ids, people.labeled, people.boxes
    # Never NaN where not labeled: not even times zero would keep it out of a loss.
    rows["keypoints"] = np.where(people.labeled[..., None], people.keypoints, 0.0)
    rows["size"], rows["image"] = zip(*map(places.get, people.images), strict=True)
    rows["weight"] = weights
    content = io.BytesIO()
    np.save(content, rows)
    files.write_bytes(path, content.getvalue())


def _row(joints: int, width: int) -> np.dtype:
    """Of the labels of a person, whose id takes so many bytes; see `People`."""
    return np.dtype(
        [
            ("id", f"S{width}"),
            ("keypoints", "<f4", (joints, 2)),
            ("labeled", "?", (joints,)),
            ("box", "<f4", 4),
            ("size", "<i4", 2),
            ("weight", "<i8"),
            ("image", "<i8", 4),
        ]
    )


def _people(folder: pathlib.Path, content: dict, split: str) -> People:
    """The labels of a split, checked."""
    joints, count = len(content["skeleton"]["joints"]), content["counts"][split]
    if content["format"] == FORMAT_1:
        rows = _rows_of_format_1(folder, content["shards"][split], joints)
    elif not count:
        rows = np.zeros(0, _row(joints, 1))
    else:
        entry = content["people"][split]
        _require_unchanged(folder, entry)
        # A map is no longer than its file, whatever that says.
        rows = np.array(np.load(folder / entry["file"], mmap_mode="r"))
    if rows.dtype != _row(joints, rows.dtype["id"].itemsize) or len(rows) != count:
        raise _damaged(
            f"{folder}: the labels of {split} are not of {count} people with {joints} "
            "joints",
            folder,
        )
    shard, start, length, _ = rows["image"].T
    ends = np.array([one["bytes"] for one in content["shards"][split]] + [0])
    sound = (rows["weight"] > 0) & np.isfinite(rows["box"]).all(1)
    sound &= np.isfinite(rows["keypoints"]).all((1, 2)) & (rows["size"] > 0).all(1)
    sound &= (shard >= 0) & (shard < len(ends) - 1) & (start >= 0) & (length >= 0)
    sound &= length <= ends[np.clip(shard, 0, len(ends) - 1)] - start
    if not sound.all():
        person = rows["id"][np.argmin(sound)].decode(errors="replace")
        raise _damaged(f"{folder}: damaged labels of {person!r} in {split}", folder)
    return People(
        tuple(person.decode() for person in rows["id"].tolist()),
        *(np.ascontiguousarray(rows[name]) for name in rows.dtype.names[1:]),
    )


def _rows_of_format_1(folder, shards, joints) -> np.ndarray:
    rows = []
    for number, shard in enumerate(shards):
        records = list(_records(folder / shard["file"]))
        weights = shard.get("weights", "1 " * len(records)).split()
        weights = [int(x) for x in weights if x.isdecimal() and len(x) < 6]
        if len(weights) != len(records) or 0 in weights:
            raise ValueError(
                f"{folder / INDEX}: 'weights' of {shard['file']} must be its "
                f"{len(records)} positive whole numbers"
            )
        for (start, record), weight in zip(records, weights, strict=True):
            found = tf.train.Example.FromString(record).features.feature
            image, person = (found[k].bytes_list.value[0] for k in ("image", "id"))
            keypoints, box = (found[k].float_list.value for k in ("keypoints", "box"))
            labeled, size = (found[k].int64_list.value for k in ("labeled", "size"))
            keypoints = np.reshape(keypoints, [joints, 2])
            place = number, start + record.index(image), len(image), zlib.crc32(image)
            row = person, keypoints, np.array(labeled, bool), np.array(box)
            rows.append((*row, np.array(size), weight, place))
    width = max((len(row[0]) for row in rows), default=1)
    return np.array(rows, _row(joints, width))


def _records(path: pathlib.Path) -> Iterator[tuple[int, bytes]]:
    """The place of the first byte of each record of a shard, and the record."""
    start, number = 12, 1  # A length and its checksum; another checksum at the end.
    try:
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            yield start, record
            start, number = start + len(record) + 16, number + 1
    except tf.errors.DataLossError as error:
        raise _damaged(f"{path}: record {number} is damaged", path.parent) from error


def _damaged(what: str, folder: str | os.PathLike) -> ValueError:
    return ValueError(f"{what}. Delete {folder} and run deeppose-prepare again")


def _place(index, split, person) -> tuple:
    number, *place = index.people[split].images[person].tolist()
    return index.shards[split][number], *place


def _read(path: str, start: int, length: int, crc: int) -> bytes:
    try:
        with open(path, "rb") as file:
            file.seek(start)
            content = file.read(length)
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from error
    if zlib.crc32(content) != crc:
        folder = os.path.dirname(path)
        raise _damaged(f"{path}: the image at byte {start} is damaged", folder)
    return content


@functools.lru_cache(1)  # People of one image follow each other.
def _decoded(*place) -> np.ndarray:
    return decode(_read(*place))


def _entry(path: pathlib.Path) -> dict:
    """What the index says of a file."""
    return {"file": path.name, "bytes": path.stat().st_size, "sha256": sha256(path)}


def _intact(folder: pathlib.Path, entry: dict) -> bool:
    path = folder / entry["file"]
    return path.is_file() and sha256(path) == entry["sha256"]


def _require_unchanged(folder: pathlib.Path, entry: dict) -> None:
    if not _intact(folder, entry):
        file = folder / entry["file"]
        raise _damaged(f"{file}: its content has changed (SHA-256 differs)", folder)


def status(path: str) -> tuple[int, int]:
    """Size and time of change; (-1, -1) for a missing file."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return -1, -1
    return found.st_size, found.st_mtime_ns


def _checksum(content: dict, split: str) -> str:
    entries = _files(content, split)
    text = "".join(entry["sha256"] + entry.get("weights", "") for entry in entries)
    return hashlib.sha256(text.encode()).hexdigest()


def _require_sound(content: dict) -> None:
    """That files are in this folder."""
    skeletons.from_json(content["skeleton"])
    for split in content["shards"]:
        for entry in _files(content, split):
            name, size = entry["file"], entry["bytes"]
            if name != os.path.basename(name) or not name.startswith(f"{split}-"):
                raise ValueError(f"{name!r} is no file of {split}")
            if not isinstance(size, int) or not 0 <= size < 1 << 62:
                raise ValueError(f"{name} cannot have {size} bytes")
    if content["shards"].keys() != content["counts"].keys():
        raise ValueError("counts are not of the splits")
    for split, count in content["counts"].items():
        if not isinstance(count, int) or count < 0:
            raise ValueError(f"{split} has {count} people")
        if content["finished"] and content["format"] == FORMAT and count:
            content["people"][split]  # raises


def _files(content: dict, of: str | None = None) -> list[dict]:
    """The entries of all files, or of those of one split."""
    people = content.get("people", {})
    return [
        entry
        for split, shards in content["shards"].items()
        if of in (None, split)
        for entry in [*shards, *([people[split]] if split in people else [])]
    ]
