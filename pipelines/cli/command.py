"""What every command does around its `main`: flags, help, messages, exit codes.

`--help`, a wrong flag and a missing path are answered before TensorFlow is imported.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import math
import os
import pathlib
import re
import signal
import sys
import textwrap
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from absl import app, flags, logging

import deeppose_tf
from deeppose_tf import config, files, startup
from deeppose_tf.pipelines.cli import outputs

# What asks for the flags of a command; absl's own --helpfull and --helpxml stay.
HELP = ("--help", "-help", "-h", "--helpshort")
# Of absl's flags, those that a user of ours may want.
GENERAL = ("help", "helpfull", "version", "verbosity", "flagfile")
REQUIRED = "must have a value other than None"


# What defines a flag of a kind; the values of a set come from several flags of a name.
KINDS = {
    str: flags.DEFINE_string,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    bool: flags.DEFINE_bool,
    list: flags.DEFINE_list,
    set: flags.DEFINE_multi_string,
}


class Flag(NamedTuple):
    """A flag of a command.

    Attributes:
      value: where it is not given, which tells its kind too. A type of `KINDS` means
        that there is none.
      help: what it means.
      low, high: bounds of a number.
      choices: all that it may be.
    """

    value: object
    help: str
    low: float | None = None
    high: float | None = None
    choices: Sequence[str] = ()

    def written(self, name: str) -> str:
        """What stands for the value of a flag of this name."""
        listed = ",..." * (self.value is list or isinstance(self.value, list))
        return "|".join(self.choices) or f"{name.upper()}{listed}"


# Of the flags that name a trained cascade.
MODEL = "A run that deeppose-train wrote, or a preset by its name, such as full_body."
FLIP_TEST = Flag(
    False,
    "Average the first stage's maps with those of the mirrored crop: a little better, "
    "and the first stage takes twice as long. Needs an integral head.",
)


class Command:
    """A command: calling it reads the flags, runs `main`, and leaves with status 1 on a
    user's error.

    ValueError and OSError are the user's errors: they are printed as they read, and
    with their stack trace only under --verbosity=1. So are records that rotted, and
    files that TensorFlow cannot read or write. A wrong flag leaves with status 2.

    Args:
      main: does the work, and is given the values of the flags as attributes.
      table: name of a flag -> `Flag`, or the flag of which it is another name.
      unless_shown: flags that have to be given but where --show asks for a look alone.
      folder: the flag that says which folder the command makes or fills.
      file: the flag that says which file it writes.
      makes_data: whether that folder becomes a prepared data set; otherwise it must
        not be one.
      goes_on: whether the same command goes on where it was stopped.
    """

    def __init__(
        self,
        main: Callable[[flags.FlagValues], None],
        documentation: str,
        table: Mapping[str, Flag | str],
        required: Sequence[str] = (),
        unless_shown: Sequence[str] = (),
        **around,
    ):
        self.__name__ = main.__name__.removeprefix("run_")
        self.main, self.documentation = main, documentation
        self.table, self.around = table, around
        self.required, self.unless_shown = required, unless_shown

    def define_flags(self) -> None:
        """Makes the flags known to absl."""
        for name, flag in self.table.items():
            if isinstance(flag, str):
                flags.DEFINE_alias(name, flag)
            else:
                _define(name, *flag)
        flags.mark_flags_as_required(self.required)
        for name in self.unless_shown:
            flags.register_validator(
                name,
                lambda value: value is not None or flags.FLAGS["show"].value,
                f"Flag --{name} {REQUIRED}.",
            )

    def __call__(self) -> None:
        self.define_flags()
        for name in self.table:
            flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[name])
        sys.modules["__main__"].__doc__ = self.documentation
        for stream in (sys.stdout, sys.stderr):  # names of files need not be text
            with contextlib.suppress(AttributeError):
                stream.reconfigure(errors="backslashreplace")
        startup.on_import()
        startup.keep_memory()
        app.run(
            lambda argv: _guarded(self.main, argv, **self.around),
            flags_parser=self._parse,
        )

    def _parse(self, argv: list[str]) -> list[str]:
        """What absl leaves of a command line; leaves itself on --help and wrong
        flags."""
        words = argv[1 : argv.index("--")] if "--" in argv else argv[1:]
        name = program(argv)
        if {*HELP, "--show"} & {*words}:  # for a reader such as `head`, who has enough
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        if any(word in HELP for word in words):
            print(self._help(name))
            raise SystemExit(0)
        if "--version" in words:
            print(f"{name} {deeppose_tf.__version__}")
            raise SystemExit(0)
        try:
            return flags.FLAGS(argv)
        except flags.UnrecognizedFlagError as error:
            why = f"there is no flag --{error.flagname}"
            near = self._nearest(error.flagname)
            why += f": did you mean --{near}?" if near else ""
        except flags.Error as error:
            missing = re.findall(rf"Flag --(\w+) {REQUIRED}", str(error))
            why = f"--{missing[0]} is required" if missing else str(error)
        print(f"{name}: {why}\n`{name} --help` lists the flags", file=sys.stderr)
        raise SystemExit(2)

    def _nearest(self, name: str) -> str | None:
        """The name of a flag that may have been meant, if there is one."""
        known = [*self.table, *GENERAL]
        known += [f"no{one}" for one in self.table if flags.FLAGS[one].boolean]
        return config.nearest(name.replace("-", "_"), known)

    def _help(self, name: str) -> str:
        """The text of --help: what the command does, and its own flags."""
        needed = (*self.required, *self.unless_shown)
        # The old name of a flag is of use to those who use it already.
        known = [n for n, flag in self.table.items() if isinstance(flag, Flag)]
        required = [n for n in known if n in needed]
        others = [n for n in known if n not in needed]
        usage = [f"--{n}={self.table[n].written(n)}" for n in required]
        lines = [
            *(_describe(n, self.table[n], "required") for n in required),
            *(_describe(n, self.table[n]) for n in others),
            "  --version, --helpfull (all flags, also those of absl), "
            "--verbosity=1 (errors\n      with their stack trace)",
        ]
        usage = " ".join(["usage:", name, *usage, "[--FLAG=VALUE ...]"])
        return "\n\n".join([self.documentation.strip(), usage, "\n".join(lines)])


def command(documentation: str, table: Mapping[str, Flag | str], **how) -> Callable:
    """Makes a `Command`, with these arguments, of the `main` below it."""
    return lambda main: Command(main, documentation, table, **how)


def require_paths(*names: str) -> None:
    """Checks that what these flags name is there, where they are set.

    Raises:
      ValueError: it is not; names the flag.
    """
    for name in names:
        value = flags.FLAGS[name].value
        for path in [value] if isinstance(value, str) else value or []:
            if not os.path.exists(path):
                raise ValueError(f"--{name}={path}: no such file or folder")


def require_run(name: str) -> None:
    """Checks that what this flag names is a run or a preset, where it is set.

    Raises:
      ValueError: it is none; names the flag, and says what is there instead.
    """
    try:
        if (value := flags.FLAGS[name].value) is not None:
            config.check_run(value)
    except ValueError as error:
        raise ValueError(f"--{name}: {error}") from error


def program(argv: list[str]) -> str:
    """The name that a command was called by, for messages."""
    return pathlib.Path(argv[0]).stem


def _define(name, value, meaning, low, high, choices):
    kind, default = (value, None) if isinstance(value, type) else (type(value), value)
    bounds = {"lower_bound": low, "upper_bound": high} if kind in (int, float) else {}
    if choices:
        flags.DEFINE_enum(name, default, choices, meaning)
    else:
        KINDS[kind](name, default, meaning, **bounds)
    flags.FLAGS[name].help = meaning  # to that of some kinds absl adds words


def _describe(name: str, flag: Flag, *notes: str) -> str:
    """Lines of --help about one flag."""
    defined = flags.FLAGS[name]
    shown = f"[no]{name}" if defined.boolean else f"{name}={flag.written(name)}"
    if hasattr(defined.parser, "is_outside_bounds"):
        notes = defined.parser.syntactic_help, *notes
    if "required" not in notes and defined.default is not None:
        notes = *notes, f"default: {defined.default_as_str}".replace("'", "")
    text = flag.help + (f" ({'; '.join(notes)})" if notes else "")
    return f"  --{shown}\n{textwrap.indent(textwrap.fill(text, 82), ' ' * 6)}"


def _guarded(
    main: Callable[[flags.FlagValues], None],
    argv: list[str],
    folder: str | None = None,
    file: str | None = None,
    makes_data: bool = False,
    goes_on: bool = True,
) -> None:
    name = program(argv)
    streams = sys.stdout, sys.stderr
    for stream in streams:
        stream.write = functools.partial(_write, stream.write)
    if not flags.FLAGS["verbosity"].present:
        # TensorFlow's chatter about every checkpoint would tear the progress bar.
        logging.set_verbosity(logging.WARNING)
    try:
        if len(argv) > 1:
            raise ValueError(f"what is {argv[1]!r}? Flags are given as --name=value")
        _check_numbers()
        for flag in filter(None, (folder, file)):
            _check_place(flag, is_file=flag == file)
            if not makes_data:
                outputs.require_no_data(flag, flags.FLAGS[flag].value or "")
        with _stoppable():
            main(flags.FLAGS)
    except KeyboardInterrupt as error:
        how = "goes on" if goes_on else "begins again"
        print(f"\n{name}: stopped; the same command {how}", file=sys.stderr)
        number = error.args[0] if error.args else signal.SIGINT
        raise SystemExit(128 + number) from error  # as a shell says it
    except Exception as error:
        users = isinstance(error, ValueError | OSError)
        message = str(error) if users else _of_files(error)
        message = _of_place(error, folder or file) or message
        if message is None:
            raise
        logging.debug("where it was raised", exc_info=True)
        print(f"{name}: {message}", file=sys.stderr)
        raise SystemExit(1) from error
    finally:
        for stream in streams:
            del stream.write


@contextlib.contextmanager
def _stoppable():
    """SIGTERM is a clean stop, as Ctrl-C; a second one is not waited with. It is one
    also where TensorFlow, in the middle of something, makes an error of its own of it,
    and where Python drops it because something is being deleted.
    """
    asked, dropped, before = [], sys.unraisablehook, {}

    def stop(number, frame):
        asked.append(number)
        if number == signal.SIGTERM:
            signal.signal(number, signal.SIG_DFL)
        raise KeyboardInterrupt(number)

    def again(what):
        if not asked or not issubclass(what.exc_type, KeyboardInterrupt):
            dropped(what)
            return
        signal.signal(asked[0], stop)
        threading.Timer(0.1, os.kill, (os.getpid(), asked[0])).start()

    sys.unraisablehook = again
    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, stop)}
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not ignored
        before[signal.SIGINT] = signal.signal(signal.SIGINT, stop)
    try:
        yield
    except Exception as error:
        if asked:
            raise KeyboardInterrupt(asked[0]) from error
        raise
    finally:
        sys.unraisablehook = dropped
        for number, handler in before.items():
            signal.signal(number, handler)


def _write(write, text):
    """Prints nothing that a terminal obeys, but for the return of a progress bar: names
    of files and words of servers are other people's."""
    rest = text.removeprefix("\r")
    return write(text[: len(text) - len(rest)] + files.escaped(rest))


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


def _of_place(error: Exception, name: str | None) -> str | None:
    """What an error of the system says of the place that this flag names; None for all
    others."""
    place, path = name and flags.FLAGS[name].value, getattr(error, "filename", None)
    if not isinstance(error, OSError) or not place or not isinstance(path, str):
        return None
    place, path = pathlib.Path(place).absolute(), pathlib.Path(path).absolute()
    if not (path.is_relative_to(place) or place.is_relative_to(path)):
        return None
    return (
        f"--{name}={flags.FLAGS[name].value}: {path}: {error.strerror}. Give a place "
        "where files can be written and read"
    )


def _of_files(error: Exception) -> str | None:
    """What a TensorFlow error says of a file: a line of our own, of an image that is
    damaged for one, or of the system, such as no permission. None for all others."""
    tensorflow = sys.modules.get("tensorflow")  # where it raised something, it is there
    if tensorflow is None or not isinstance(error, tensorflow.errors.OpError):
        return None
    if said := re.search(r"^ValueError: (.*)", error.message, re.MULTILINE):
        return said[1]  # raised in Python, by a record for one
    # TensorFlow's file systems say `PATH; REASON`, in a line with names of its nodes.
    for line in error.message.splitlines():
        line = re.sub(r"\{\{.*?\}\} *| *\[Op:.*", "", line)
        place, _, reason = line.rpartition("; ")
        if place and reason in map(os.strerror, errno.errorcode):
            return f"{place}: {reason}"
    return None
