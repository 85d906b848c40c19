"""What scripts may overwrite: their own results of the same settings, nothing else."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence


def require_free(
    folder: str, record: str, form: str, settings: dict, names: Sequence[str]
) -> None:
    """Checks that writing into a folder replaces nothing but a repetition's results.

    Args:
      folder: of the results; may not be there yet.
      record: name of the JSON file in it whose `format` and `settings` say whose
        results they are.
      form: the `format` of this script.
      settings: JSON value, what this run was asked for.
      names: of all files that will be written, relative to the folder.

    Raises:
      ValueError: one of them is there, and not from a run with these settings.
    """
    path = pathlib.Path(folder)
    if _is_ours(path / record, form, settings):
        return
    existing = [str(path / name) for name in names if (path / name).exists()]
    if existing:
        more = f" and {len(existing) - 1} more" if len(existing) > 1 else ""
        raise ValueError(
            f"{existing[0]}{more}: there already, and of another run. Give another "
            "--output, or --overwrite to replace them"
        )


def _is_ours(path, form, settings) -> bool:
    try:
        content = json.loads(path.read_text())
        return content["format"] == form and content["settings"] == settings
    except (OSError, ValueError, TypeError, KeyError):
        return False
