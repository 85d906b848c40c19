"""Files written whole or not at all, JSON of a known format, one writer at a time."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pathlib
import secrets
import time
from collections.abc import Callable, Iterator

# How much work a kill may cost at most, and in times that writing it takes; see `kept`.
SAVE_SECONDS, SAVE_SHARE = 20.0, 20.0
# Bytes in a name of most file systems.
LONGEST_NAME = 255


def write_bytes(path: str | os.PathLike, content: bytes) -> None:
    """Writes to a temporary sibling, syncs it and renames it into place.

    A process killed on the way leaves what was there before, and the sibling. Of
    several that write the same file at once, the last one's content stays.

    Raises:
      OSError: the file cannot be written.
    """
    temporary = hidden(path, f"{secrets.token_hex(4)}.partial")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.filename is None:  # as of a full disk
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | os.PathLike, value) -> None:
    """Writes a JSON value, as `write_bytes` does."""
    write_bytes(path, json.dumps(value, indent=2).encode() + b"\n")


def read_json(path: str | os.PathLike, formats: tuple) -> dict:
    """Reads a JSON object whose `format` is one of these.

    Raises:
      ValueError: it is none, or of another format; names the file.
      OSError: the file cannot be read.
    """
    try:
        value = json.loads(pathlib.Path(path).read_bytes())
        found = value["format"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if found not in formats:
        known = " and ".join(map(str, formats))
        raise ValueError(
            f"{path} has format {found!r}, and this version of deeppose-tf reads "
            f"{known}: it was written by another version"
        )
    return value


def hidden(path: str | os.PathLike, purpose: str) -> pathlib.Path:
    """The sibling `.NAME.PURPOSE`, which holds what is not in place yet, or no more.

    Of a long name the beginning, for it has to fit as well.
    """
    path = pathlib.Path(path)
    room = LONGEST_NAME - len(os.fsencode(f"..{purpose}"))
    name = os.fsencode(path.name)[:room].decode(errors="ignore")
    return path.with_name(f".{name}.{purpose}")


@contextlib.contextmanager
def kept(write: Callable[[], None]) -> Iterator[Callable[[], None]]:
    """Has what long work did so far written now and then, and at the end, also when it
    is stopped: at least every `SAVE_SECONDS`, and sooner where writing is quick.

    Args:
      write: writes all of it.

    Returns:
      To be called after each part of the work.
    """
    written, took, any_done = time.monotonic(), 0.0, False

    def done():
        nonlocal written, took, any_done
        any_done, now = True, time.monotonic()
        if now - written > min(SAVE_SECONDS, SAVE_SHARE * took):
            write()
            written = time.monotonic()
            took = written - now

    try:
        yield done
    finally:
        if any_done:
            write()


def sync(path: str | os.PathLike) -> None:
    """Makes a file, or the list of names in a folder, outlive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_all(folder: str | os.PathLike) -> None:
    """The same of a folder and all that is in it."""
    for path in [pathlib.Path(folder), *pathlib.Path(folder).rglob("*")]:
        sync(path)


@contextlib.contextmanager
def alone(folder: str | os.PathLike, writer: str) -> Iterator[None]:
    """Keeps others who ask so out of a folder that is there; a kill lets them in.

    Where the file system has no locks, nobody is kept out.

    Args:
      folder: of what is written.
      writer: what may be there once only, such as `export`, for the error.

    Raises:
      ValueError: another process is in it.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(
                f"{folder}: another {writer} is writing there right now"
            ) from error
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(descriptor)
