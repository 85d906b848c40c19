"""What every absl script of the package does around its `main`.

An absl program knows its flags and its help text only when it is run as a file; the
installed console scripts need both to be handed over.
"""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Callable

from absl import app, flags, logging

DAMAGE = (
    "a record of --data is damaged. The same deeppose-prepare as before names the file"
)


def run(
    define_flags: Callable[[], None],
    main: Callable[[list[str]], None],
    documentation: str,
) -> None:
    """Defines the flags, runs `main`, and leaves with status 1 on a user's error.

    ValueError and OSError are the user's errors: they are printed as they read, and
    with their stack trace only under --verbosity=1. So are records that rotted.
    """
    before = set(flags.FLAGS)
    define_flags()
    for name in set(flags.FLAGS) - before:
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[name])
    sys.modules["__main__"].__doc__ = documentation
    app.run(lambda argv: _guarded(main, argv))


def _guarded(main: Callable[[list[str]], None], argv: list[str]) -> None:
    name = pathlib.Path(argv[0]).stem
    if not flags.FLAGS["verbosity"].present:
        # TensorFlow's chatter about every checkpoint would tear the progress bar.
        logging.set_verbosity(logging.WARNING)
    try:
        if len(argv) > 1:
            raise ValueError(f"what is {argv[1]!r}? Flags are given as --name=value")
        main(argv)
    except (ValueError, OSError) as error:
        logging.debug("where it was raised", exc_info=True)
        print(f"{name}: {error}", file=sys.stderr)
        raise SystemExit(1) from error
    except KeyboardInterrupt as error:
        print(f"\n{name}: stopped; the same command goes on", file=sys.stderr)
        raise SystemExit(130) from error
    except Exception as error:
        if not _is_damage(error):
            raise
        logging.debug("where it was raised", exc_info=True)
        print(f"{name}: {DAMAGE} ({error})", file=sys.stderr)
        raise SystemExit(1) from error


def _is_damage(error: Exception) -> bool:
    """Whether TensorFlow read a record whose checksum does not hold."""
    import tensorflow as tf  # not above: --help need not wait for it

    return isinstance(error, tf.errors.DataLossError)
