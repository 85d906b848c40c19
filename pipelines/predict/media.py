"""Images and videos of users: finding them, reading frames, writing a video."""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import os
import pathlib
from collections.abc import Iterator

import cv2
import numpy as np

from deeppose_tf import files

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")
# Ends of the names of our own drawings, which are no input in a folder.
OVERLAY = ".pose.png"
OVERLAY_VIDEO = ".pose.mp4"


@dataclasses.dataclass(frozen=True)
class File:
    """One file to predict on.

    Attributes:
      path: where it is.
      name: relative to the folder that all inputs share; names it in results.
    """

    path: str
    name: str

    @property
    def is_video(self) -> bool:
        return self.path.lower().endswith(VIDEO_SUFFIXES)

    @property
    def overlay(self) -> str:
        """Name of the drawing made of it, relative to the output."""
        return self.name + (OVERLAY_VIDEO if self.is_video else OVERLAY)


def find_files(source: str) -> list[File]:
    """The images and videos that a path, folder or glob stands for, sorted.

    A folder stands for the images and videos in it, by their suffixes, but not for
    those in folders below it; `folder/**/*.jpg` does that.

    Raises:
      ValueError: there are none.
    """
    if os.path.isdir(source):
        suffixes = IMAGE_SUFFIXES + VIDEO_SUFFIXES
        found = [
            str(path)
            for path in pathlib.Path(source).iterdir()
            if path.name.lower().endswith(suffixes)
            and not path.name.endswith((OVERLAY, OVERLAY_VIDEO))
            and not path.name.startswith(".")
            and path.is_file()
        ]
    elif os.path.exists(source):
        found = [source]
    else:
        found = [p for p in glob.glob(source, recursive=True) if os.path.isfile(p)]
    if not found:
        raise ValueError(
            f"{source}: no image or video there. Give a file, a folder of them or a "
            "glob in quotes such as 'photos/*.jpg'"
        )
    found = sorted(os.path.abspath(path) for path in found)
    root = os.path.commonpath([os.path.dirname(path) for path in found])
    return [File(path, os.path.relpath(path, root)) for path in found]


@dataclasses.dataclass(frozen=True)
class Video:
    """An open video.

    Attributes:
      rate: frames per second.
      count: of frames as its header says, which may be wrong; None if it does not.
      frames: its frames [H, W, 3] uint8 RGB, once.
    """

    rate: float
    count: int | None
    frames: Iterator[np.ndarray]


@contextlib.contextmanager
def open_video(path: str) -> Iterator[Video]:
    """Opens a video, turned upright as its header says.

    Raises:
      ValueError: it cannot be opened; names it.
    """
    capture = cv2.VideoCapture(path)
    try:
        if not capture.isOpened():
            raise ValueError(f"{path}: not a video that OpenCV can read")
        rate = capture.get(cv2.CAP_PROP_FPS)
        count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        yield Video(
            rate if 0 < rate < 1000 else 25.0,
            count if count > 0 else None,
            _frames(path, capture),
        )
    finally:
        capture.release()


@contextlib.contextmanager
def video_writer(path: pathlib.Path, rate: float) -> Iterator:
    """A function that adds [H, W, 3] uint8 RGB frames to an MP4 file.

    The file appears when all is written, and not at all after an error.

    Raises:
      ValueError: OpenCV cannot write it, or a frame has another size than the first.
    """
    temporary = path.with_name(f".{path.name}.partial.mp4")  # the suffix is the format
    code = cv2.VideoWriter_fourcc(*"mp4v")
    opened: list[tuple] = []

    def add(frame):
        if not opened:
            size = frame.shape[1], frame.shape[0]
            opened.append((cv2.VideoWriter(str(temporary), code, rate, size), size))
        writer, size = opened[0]
        if not writer.isOpened() or (frame.shape[1], frame.shape[0]) != size:
            raise ValueError(
                f"{path}: cannot write a frame of {frame.shape[1]} x {frame.shape[0]}"
            )
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))

    try:
        yield add
        if opened:
            opened[0][0].release()
            files.sync(temporary)
            os.replace(temporary, path)
    finally:
        if opened:
            opened[0][0].release()
        temporary.unlink(missing_ok=True)


def _frames(path, capture):
    read, frame = capture.read()
    if not read:
        raise ValueError(f"{path}: not one frame of this video can be read")
    while read:
        yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
        read, frame = capture.read()
