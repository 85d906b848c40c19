"""What scripts write: over their own results of the same settings, nothing else."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence

from deeppose_tf import files

# Settings that name files or folders.
PATHS = ("boxes", "data", "detector", "evaluations", "input", "model", "predictions")


def require_no_data(flag: str, place: str) -> None:
    """Checks that a folder or file to write is no prepared data set, nor within one.

    Raises:
      ValueError: it is, in one that is finished or not; names the flag.
    """
    path = pathlib.Path(os.path.realpath(place))
    for folder in (path, *path.parents) if place else ():
        # As in `records`, which would import TensorFlow.
        content = _read(folder / "dataset.json")
        if str(content.get("format")).startswith("deeppose-tf records"):
            within = "is" if folder == path else f"lies within {folder},"
            raise ValueError(
                f"--{flag}={place} {within} a prepared data set, which nothing else is "
                "written into: give another place"
            )


def require_free(
    folder: str, record: str, form: str, settings: dict, names: Sequence[str]
) -> dict:
    """Checks that writing into a folder replaces nothing but a repetition's results.

    Args:
      folder: of the results; may not be there yet.
      record: name of the JSON file in it whose `format` and `settings` say whose
        results they are.
      form: the `format` of this script.
      settings: JSON value, what this run was asked for.
      names: of all files that will be written, relative to the folder.

    Returns:
      What the record says, if it is of this script and these settings; else nothing.

    Raises:
      ValueError: one of them is there, and not from a run with these settings.
    """
    path = pathlib.Path(folder)
    content = _read(path / record)
    # As COCO files have it.
    about = content["info"] if isinstance(content.get("info"), dict) else content
    found = about.get("settings")
    if about.get("format") == form and isinstance(found, dict):
        if _resolved(found) == _resolved(settings):
            return content
    existing = [str(path / name) for name in names if os.path.exists(path / name)]
    if existing:
        more = f" and {len(existing) - 1} more" if len(existing) > 1 else ""
        raise ValueError(
            f"{existing[0]}{more}: there already, and of another run. Give another "
            "--output, or --overwrite to replace them"
        )
    return {}


def write_json(place: str | None, value: object) -> None:
    """Writes a JSON value where a place is given, and makes its folder."""
    if place:
        pathlib.Path(place).parent.mkdir(parents=True, exist_ok=True)
        files.write_json(place, value)


def counted(number: int, one: str) -> str:
    """`1 image`, `2 images`; of a `person` `2 people`."""
    several = "people" if one == "person" else f"{one}s"
    return f"{number} {one if number == 1 else several}"


def _read(path) -> dict:
    """The object in a JSON file; an empty one where there is none."""
    try:
        content = files.load_json(path)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _resolved(settings: dict) -> dict:
    """With real paths, so that runs/lsp/ and ./runs/lsp are the same model."""

    def real(value):
        if isinstance(value, list):
            return [real(one) for one in value]
        return os.path.realpath(value) if isinstance(value, str) else value

    return {key: real(x) if key in PATHS else x for key, x in settings.items()}
