"""Files written whole or not at all, JSON of a known format, one writer at a time."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
import time
from collections.abc import Callable, Iterator

# How much work a kill may cost at most, and in times that writing it takes; see `kept`.
SAVE_SECONDS, SAVE_SHARE = 20.0, 20.0
# Bytes in a name of most file systems.
LONGEST_NAME = 255
# No JSON file that is read here has more bytes.
MOST_JSON = 2**30
# Under this key an object of JSON has the digest of all else in it.
DIGEST = "digest"


def write_bytes(path: str | os.PathLike, content: bytes) -> None:
    """Writes to a temporary sibling, syncs it and renames it into place.

    A process killed on the way leaves what was there before, and the sibling, which
    the next call replaces. Who may not be the only one to write takes `alone`.

    Raises:
      OSError: the file cannot be written; names it.
    """
    temporary = hidden(path, "partial")
    try:
        temporary.unlink(missing_ok=True)
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync(temporary.parent)
    except OSError as error:
        if error.filename is None:  # as of a full disk
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | os.PathLike, value, digest: bool = False) -> None:
    """Writes a JSON value, as `write_bytes` does; an object with its digest, for
    `read_json`, where asked."""
    if digest:
        value = value | {DIGEST: fingerprint(value)}
    write_bytes(path, json.dumps(value, indent=2).encode() + b"\n")


def read_json(path: str | os.PathLike, formats: tuple = ()) -> dict:
    """Reads a JSON object whose `format` is one of these; without these, of any.

    A digest has to be right, and is left out. Where there is none, as earlier versions
    wrote it, or in a copy that was edited, nothing is compared.

    Raises:
      ValueError: it is none, or of another format; names the file.
      OSError: the file cannot be read.
    """
    try:
        value = load_json(path)
        digest = value.pop(DIGEST, None)
        found = value["format"] if formats else None
        if digest is not None and digest != fingerprint(value):
            raise ValueError(f"its content is not that of its {DIGEST!r}")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        why = str(error).removeprefix(f"{path}: ")
        raise ValueError(f"{path} is damaged: {why}") from error
    if formats and found not in formats:
        known = " and ".join(map(str, formats))
        raise ValueError(
            f"{path} has format {found!r}, and this version of deeppose-tf reads "
            f"{known}: it was written by another version"
        )
    return value


def load_json(path: str | os.PathLike):
    """The JSON value in anybody's file.

    Raises:
      ValueError: it is none, or nested too deep, or `read_bytes` does not read it;
        names the file.
      OSError: the file cannot be read.
    """
    content = read_bytes(path, MOST_JSON)
    if content.startswith((b"\x1f\x8b", b"PK\x03\x04")):
        raise ValueError(f"{path}: it is compressed: unpack it first")
    try:
        return json.loads(content)
    except RecursionError as error:
        raise ValueError(f"{path}: it is nested too deep") from error
    except ValueError as error:
        raise ValueError(f"{path}: not a JSON file: {error}") from error


def read_bytes(path: str | os.PathLike, most: int) -> bytes:
    """The content of a file, which is no device or pipe: those have no end.

    Raises:
      ValueError: it is one, or has more bytes than `most`; names it.
      OSError: it cannot be read.
    """
    path = pathlib.Path(path)
    size = path.stat().st_size
    if not path.is_file():
        raise ValueError(f"{path} is no file")
    if size > most:
        raise ValueError(f"{path} is {size} bytes, more than {most}")
    return path.read_bytes()


def escaped(text: str) -> str:
    """Words of others, such as the name of a file, with nothing in them that a terminal
    would obey."""
    return "".join(
        one if one.isprintable() or one in "\n\t" else ascii(one)[1:-1] for one in text
    )


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
    `write` writes all of it.

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
    except OSError:
        if not os.path.isdir(path):  # not all file systems can with folders
            raise
    finally:
        os.close(descriptor)


def sync_all(folder: str | os.PathLike) -> None:
    """The same of a folder and all that is in it."""
    for path in [pathlib.Path(folder), *pathlib.Path(folder).rglob("*")]:
        sync(path)


@contextlib.contextmanager
def alone(folder: str | os.PathLike, writer: str, wait: bool = False) -> Iterator[None]:
    """Makes a folder where it is missing, and keeps others who ask so out of it; a kill
    lets them in. A folder that it made and nothing was written into goes again.

    Where the file system has no locks, nobody is kept out.

    Args:
      writer: what may be there once only, such as `export`, for the error.
      wait: until the others have left.

    Raises:
      ValueError: another process is in it; says which, where the system tells.
    """
    made = not os.path.exists(folder)
    os.makedirs(folder, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise ValueError(
                f"{folder}: another {writer} is writing there right now"
                + _holder(os.fstat(descriptor))
            ) from error
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(descriptor)
        if made:
            with contextlib.suppress(OSError):  # it is not empty
                os.rmdir(folder)


def _holder(status: os.stat_result) -> str:
    """Who has locked what this is the status of, in words; Linux knows it, see
    proc_locks(5) and proc_pid_stat(5)."""
    major, minor = os.major(status.st_dev), os.minor(status.st_dev)
    place = f"{major:02x}:{minor:02x}:{status.st_ino}"
    try:
        locks = map(str.split, pathlib.Path("/proc/locks").read_text().splitlines())
        process = next(lock[4] for lock in locks if place in lock and "FLOCK" in lock)
        begun = pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2]
    except (OSError, StopIteration):
        return ""
    ticks = int(begun.split()[19]) / os.sysconf("SC_CLK_TCK")
    ago = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time.time() - ago))
    return f": process {process}, since {since}"


def fingerprint(value: object) -> str:
    """SHA-256 of a JSON value, however it is spaced and its keys are ordered."""
    value = json.loads(json.dumps(value))  # as it will be read
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
