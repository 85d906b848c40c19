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
from deeppose_tf.datasets import images

VIDEO_SUFFIXES = (
    *".3g2 .3gp .asf .avi .flv .m2ts .m2v .m4v .mkv .mov .mp4 .mpe .mpeg".split(),
    *".mpg .mts .mxf .ogv .ts .vob .webm .wmv".split(),
)
# Ends of the names of our own drawings, which are no input in a folder.
OVERLAY = ".pose.png"
OVERLAY_VIDEO = ".pose.mp4"
# A film that ends so many frames earlier than its header says broke off: headers of
# some formats are a little wrong.
BROKEN_OFF = 2.5
# Files that are listed by name; more are counted.
MOST_NAMED = 20
NOT_FOR_BROWSERS = (
    "the film is MPEG-4 part 2, which browsers do not play: pip install "
    "'deeppose-tf[film]' for H.264"
)
# OpenCV's FFmpeg complains at length about a codec that it does not have.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")


@dataclasses.dataclass(frozen=True)
class File:
    """One file to predict on. Its name in results is relative to the folder that all
    inputs share."""

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

    A folder stands for the images and videos in it, by their names or first bytes, but
    not for those in folders below it; `folder/**/*.jpg` does that. What is left out is
    printed.

    Raises:
      ValueError: there are none.
    """
    found, others = [], []
    if os.path.isdir(source):
        for path in sorted(pathlib.Path(source).iterdir()):
            if path.name[0] != "." and not path.name.endswith((OVERLAY, OVERLAY_VIDEO)):
                (found if _is_medium(path) else others).append(str(path))
    elif os.path.isfile(source):  # of a pipe no end may come
        found = [source]
    else:
        found = [p for p in glob.glob(source, recursive=True) if os.path.isfile(p)]
    if not found:
        raise ValueError(
            f"{source}: no image or video there. Give a file, a folder of them or a "
            "glob in quotes such as 'photos/*.jpg'"
        )
    if others:
        more = f" and {len(others) - MOST_NAMED} more" * (len(others) > MOST_NAMED)
        print(f"left out: no photo or film: {', '.join(others[:MOST_NAMED])}{more}")
    found = sorted(os.path.abspath(path) for path in found)
    root = os.path.commonpath([os.path.dirname(path) for path in found])
    return [File(path, os.path.relpath(path, root)) for path in found]


def _is_medium(path: pathlib.Path) -> bool:
    if not path.is_file():
        return False
    known = (*images.SUFFIXES, *VIDEO_SUFFIXES)
    return path.name.lower().endswith(known) or images.is_image(str(path))


@dataclasses.dataclass
class Film:
    """An open video.

    Attributes:
      rate: frames per second, in the mean.
      count: of frames as its header says, which may be wrong; 0 where it does not.
      broken: after all frames, how it broke off; empty where it did not.
    """

    path: str
    capture: cv2.VideoCapture
    rate: float
    count: int
    broken: str = ""

    def frames(self) -> Iterator[tuple[float, np.ndarray]]:
        """Its frames [H, W, 3] uint8 RGB, once, turned upright; each with the second at
        which it is shown, by the film's own time stamps.

        Raises:
          ValueError: there is not one.
        """
        number, shown = 0, 0.0
        read, frame = self.capture.read()
        if not read:
            raise ValueError(f"{self.path}: not one frame of this video can be read")
        while read:
            stamp = self.capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            if number:  # some films have no time stamps
                shown = stamp if stamp > shown else shown + 1 / self.rate
            else:
                shown = max(stamp, 0.0)
            yield shown, cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
            number += 1
            read, frame = self.capture.read()
        missing = self.count - max(number, shown * self.rate + 1)
        if missing > BROKEN_OFF:
            self.broken = (
                f"{self.path} breaks off: {number} of {self.count} frames can be read, "
                f"to {shown:.2f} of {self.count / self.rate:.2f} s"
            )


@contextlib.contextmanager
def open_film(path: str) -> Iterator[Film]:
    """Opens a video.

    Raises:
      ValueError: it cannot be opened; names it.
    """
    capture = cv2.VideoCapture(path)
    try:
        if not capture.isOpened():
            raise ValueError(f"{path}: not a video that OpenCV can read")
        rate = capture.get(cv2.CAP_PROP_FPS)
        yield Film(path, capture, rate if 0 < rate < 1000 else 25.0, _count(capture))
    finally:
        capture.release()


def count_images(file: File) -> int:
    """1; of a video the number of frames as its header says, which may be wrong."""
    return max(1, _count(cv2.VideoCapture(file.path))) if file.is_video else 1


@contextlib.contextmanager
def film_writer(path: pathlib.Path, rate: float) -> Iterator[Callable]:
    """A function that adds [H, W, 3] uint8 RGB frames to an MP4 file.

    It is H.264 where the extra `film` is installed or OpenCV can write it, else MPEG-4
    part 2, and a line says so. Of odd sizes the last row or column is repeated, for
    H.264 has even ones. The file appears when all is written, and not at all after an
    error.

    Raises:
      ValueError: it cannot be written, or a frame has another size than the first.
      OSError: nor can anything else, probably.
    """
    temporary = files.hidden(path, "partial.mp4")  # the suffix is the format
    shape, write, close, count = None, None, lambda: None, 0
    full = f"{path}: the film cannot be written whole. Is the disk full?"

    def add(frame):
        nonlocal shape, write, close, count
        height, width = frame.shape[:2]
        if shape is None:
            shape, size = frame.shape, (width + width % 2, height + height % 2)
            write, close = _open_writer(path, temporary, rate, size)
        if frame.shape != shape:
            raise ValueError(f"{path}: cannot write a frame of {width} x {height}")
        even = 0, height % 2, 0, width % 2
        try:
            write(cv2.copyMakeBorder(frame, *even, cv2.BORDER_REPLICATE))
        except OSError as error:  # FFmpeg ended, and says at length how it was called
            raise OSError(full) from error
        count += 1

    try:
        try:
            yield add
        finally:
            close()
        if shape:
            # Neither writer says so itself.
            if _count(cv2.VideoCapture(str(temporary))) != count:
                raise OSError(full)
            files.sync(temporary)
            os.replace(temporary, path)
            files.sync(path.parent)
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


def _count(capture):
    count = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    return int(count) if 0 < count < 1e9 else 0
