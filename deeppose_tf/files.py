"""Writing files whole or not at all."""

from __future__ import annotations

import os
import pathlib
import secrets


def write_bytes(path: str | os.PathLike, content: bytes) -> None:
    """Writes to a temporary sibling, syncs it and renames it into place.

    A process killed on the way leaves what was there before, and the sibling. Of
    several that write the same file at once, the last one's content stays.

    Raises:
      OSError: the file cannot be written.
    """
    path = pathlib.Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def sync(folder: str | os.PathLike) -> None:
    """Makes sure that a folder and all that is in it survive a power cut."""
    for path in [pathlib.Path(folder), *pathlib.Path(folder).rglob("*")]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
