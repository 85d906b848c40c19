"""What every absl script of the package does around its `main`.

An absl program knows its flags and its help text only when it is run as a file; the
installed console scripts need both to be handed over.
"""

from __future__ import annotations

import errno
import math
import os
import pathlib
import re
import sys
from collections.abc import Callable

from absl import app, flags, logging

from deeppose_tf.pipelines.cli import outputs

DAMAGE = (
    "a record of --data is damaged. The same deeppose-prepare as before names the file"
)


def run(
    define_flags: Callable[[], None],
    main: Callable[[list[str]], None],
    documentation: str,
    folder: str | None = None,
    file: str | None = None,
    makes_data: bool = False,
) -> None:
    """Defines the flags, runs `main`, and leaves with status 1 on a user's error.

    Args:
      define_flags: defines them.
      main: does the work, and is given what is left of the command line.
      documentation: for `--help`.
      folder: the flag that says which folder the script makes or fills.
      file: the flag that says which file it writes.
      makes_data: whether that folder becomes a prepared data set; otherwise it must
        not be one.

    ValueError and OSError are the user's errors: they are printed as they read, and
    with their stack trace only under --verbosity=1. So are records that rotted, and
    files that TensorFlow cannot read or write.
    """
    before = set(flags.FLAGS)
    define_flags()
    for name in set(flags.FLAGS) - before:
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[name])
    sys.modules["__main__"].__doc__ = documentation
    app.run(lambda argv: _guarded(main, argv, folder, file, makes_data))


def _guarded(
    main: Callable[[list[str]], None],
    argv: list[str],
    folder: str | None = None,
    file: str | None = None,
    makes_data: bool = False,
) -> None:
    name = pathlib.Path(argv[0]).stem
    if not flags.FLAGS["verbosity"].present:
        # TensorFlow's chatter about every checkpoint would tear the progress bar.
        logging.set_verbosity(logging.WARNING)
    try:
        if len(argv) > 1:
            raise ValueError(f"what is {argv[1]!r}? Flags are given as --name=value")
        _check_numbers()
        for place, is_file in ((folder, False), (file, True)):
            if place:
                _check_place(place, is_file)
            if place and not makes_data:
                outputs.require_no_data(place, flags.FLAGS[place].value or "")
        main(argv)
    except (ValueError, OSError) as error:
        logging.debug("where it was raised", exc_info=True)
        print(f"{name}: {error}", file=sys.stderr)
        raise SystemExit(1) from error
    except KeyboardInterrupt as error:
        print(f"\n{name}: stopped; the same command goes on", file=sys.stderr)
        raise SystemExit(130) from error
    except Exception as error:
        said = _of_files(error)
        if said is None:
            raise
        logging.debug("where it was raised", exc_info=True)
        print(f"{name}: {said}", file=sys.stderr)
        raise SystemExit(1) from error


def _check_numbers():
    """absl's bounds let pass what is no number."""
    for name in flags.FLAGS:
        value = flags.FLAGS[name].value
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"--{name}={value}: expected a finite number")


def _check_place(name, is_file):
    """Better now than when there is something to write."""
    value = flags.FLAGS[name].value
    if value is None:
        return
    path = pathlib.Path(value)
    there = next(one for one in (path, *path.parents) if os.path.lexists(one))
    if there.is_dir():
        if is_file and there == path:
            raise ValueError(f"--{name}={value} is a folder: give the name of a file")
    elif there != path:
        raise ValueError(f"--{name}={value}: {there} is a file, and no folder")
    elif not is_file:
        raise ValueError(
            f"--{name}={value} is a file: give the name of a folder, or of one to make"
        )


def _of_files(error: Exception) -> str | None:
    """What a TensorFlow error says of a file: a record's checksum does not hold, or the
    system's own words, such as no permission. None for all other errors."""
    import tensorflow as tf  # not above: --help need not wait for it

    if not isinstance(error, tf.errors.OpError):
        return None
    if isinstance(error, tf.errors.DataLossError):
        return f"{DAMAGE} ({error})"
    # TensorFlow's file systems say `PATH; REASON`, in a line with names of its nodes.
    for line in error.message.splitlines():
        line = re.sub(r"\{\{.*?\}\} *| *\[Op:.*", "", line)
        place, _, reason = line.rpartition("; ")
        if place and reason in map(os.strerror, errno.errorcode):
            return f"{place}: {reason}"
    return None
