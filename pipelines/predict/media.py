"""Images and videos of users: finding them, reading frames, writing a video."""

from __future__ import annotations

import contextlib
import dataclasses
import fractions
import glob
import os
import pathlib
from collections.abc import Callable, Iterator

import cv2
import numpy as np

from deeppose_tf import files

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")
# Ends of the names of our own drawings, which are no input in a folder.
OVERLAY = ".pose.png"
OVERLAY_VIDEO = ".pose.mp4"
NOT_FOR_BROWSERS = (
    "the film is MPEG-4 part 2, which browsers do not play: pip install "
    "'deeppose-tf[film]' for H.264"
)
# OpenCV's FFmpeg complains at length about a codec that it does not have.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")


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
class Film:
    """An open video.

    Attributes:
      rate: frames per second.
      frames: its frames [H, W, 3] uint8 RGB, once, turned upright.
    """

    rate: float
    frames: Iterator[np.ndarray]


@contextlib.contextmanager
def open_film(path: str) -> Iterator[Film]:
    """Opens a video.

    Raises:
      ValueError: it cannot be opened; names it.
    """
    with _opened(path) as capture:
        if not capture.isOpened():
            raise ValueError(f"{path}: not a video that OpenCV can read")
        rate = capture.get(cv2.CAP_PROP_FPS)
        yield Film(rate if 0 < rate < 1000 else 25.0, _frames(path, capture))


def count_images(file: File) -> int:
    """1; of a video the number of frames as its header says, which may be wrong."""
    if not file.is_video:
        return 1
    with _opened(file.path) as capture:
        return max(1, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))


@contextlib.contextmanager
def film_writer(path: pathlib.Path, rate: float) -> Iterator[Callable]:
    """A function that adds [H, W, 3] uint8 RGB frames to an MP4 file.

    It is H.264 where the extra `film` is installed or OpenCV can write it, else MPEG-4
    part 2, and a line says so. Of odd sizes the last row or column is repeated, for
    H.264 has even ones. The file appears when all is written, and not at all after an
    error.

    Raises:
      ValueError: it cannot be written, or a frame has another size than the first.
    """
    temporary = path.with_name(f".{path.name}.partial.mp4")  # the suffix is the format
    shape, write, close = None, None, lambda: None

    def add(frame):
        nonlocal shape, write, close
        height, width = frame.shape[:2]
        if shape is None:
            shape, size = frame.shape, (width + width % 2, height + height % 2)
            write, close = _open_writer(path, temporary, rate, size)
        if frame.shape != shape:
            raise ValueError(f"{path}: cannot write a frame of {width} x {height}")
        even = 0, height % 2, 0, width % 2
        write(cv2.copyMakeBorder(frame, *even, cv2.BORDER_REPLICATE))

    try:
        try:
            yield add
        finally:
            close()
        if shape:
            files.sync(temporary)
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _open_writer(path, temporary, rate, size):
    """What writes a frame of (width, height), and what ends the film."""
    with contextlib.suppress(ImportError):
        import imageio_ffmpeg

        exact = fractions.Fraction(rate).limit_denominator(1001)
        writer = imageio_ffmpeg.write_frames(
            *(str(temporary), size),
            fps=exact,
            codec="libx264",
            quality=8,
            macro_block_size=2,
            ffmpeg_log_level="error",
            output_params=["-movflags", "+faststart"],
        )
        writer.send(None)
        return writer.send, writer.close
    writer = _opencv_writer(temporary, "avc1", rate, size)
    if not writer.isOpened():
        print(NOT_FOR_BROWSERS)
        writer = _opencv_writer(temporary, "mp4v", rate, size)
    if not writer.isOpened():
        raise ValueError(f"{path}: cannot write a frame of {size[0]} x {size[1]}")
    return (
        lambda frame: writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)),
        writer.release,
    )


def _opencv_writer(path, codec, rate, size):
    """May not be opened, without a word on standard error."""
    # Builds of OpenCV have one switch or the other, and a few none.
    module = getattr(cv2.utils, "logging", cv2)
    setter = getattr(module, "setLogLevel", lambda level: level)
    level = setter(0)  # silent
    try:
        code = cv2.VideoWriter_fourcc(*codec)
        return cv2.VideoWriter(str(path), code, rate, size)
    finally:
        setter(level)


@contextlib.contextmanager
def _opened(path):
    capture = cv2.VideoCapture(path)
    try:
        yield capture
    finally:
        capture.release()


def _frames(path, capture):
    read, frame = capture.read()
    if not read:
        raise ValueError(f"{path}: not one frame of this video can be read")
    while read:
        yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
        read, frame = capture.read()
