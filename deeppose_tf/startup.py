"""How TensorFlow starts: without its notices, with its errors, and keeping its memory.

TensorFlow greets on standard error with lines that no level of logging takes away: one
says as an error, `E0000`, that there is no CUDA driver. While it is imported and looks
for devices, standard error goes through a second process, which drops these lines and
passes all others on at once. It is another process so that nothing is lost when
TensorFlow ends this one. This file is also that process's program.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import importlib.abc
import importlib.util
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator

# What is dropped. A driver that is there and fails is no notice: that passes.
NOTICES = re.compile(
    rb"WARNING: All log messages before absl::InitializeLog\(\) is called"
    rb"|To enable the following instructions: .*rebuild TensorFlow"
    rb"|.*\bcudart_stub\.cc:\d+\] Could not find cuda drivers"
    rb"|.*\bcuda_\w+\.cc:\d+\] failed call to cuInit: .*"
    rb"(UNKNOWN ERROR \(303\)|CUDA_ERROR_NO_DEVICE)"
    rb"|.*\bcuda_\w+\.cc:\d+\] Unable to register cu(DNN|FFT|BLAS) factory"
    rb"|.*\bcomputation_placer\.cc:\d+\] computation placer already registered"
    rb"|.*\bcpu_feature_guard\.cc:\d+\] This TensorFlow binary is optimized"
    rb"|.*\bport\.cc:\d+\] oneDNN custom operations are on"
    rb"|.*\bTF-TRT Warning: Could not find TensorRT"
)
# The longest wait for the filter to pass on what was written last.
SECONDS = 5.0
# glibc's M_MMAP_MAX, M_TRIM_THRESHOLD and M_TOP_PAD, see mallopt(3), and their values.
ALLOCATOR = ((-4, 0), (-1, 2**31 - 1), (-2, 2**28))


def import_tensorflow() -> None:
    """Imports TensorFlow and looks for devices, without its start-up notices.

    Does nothing where it is imported already. Sets TF_CPP_MIN_LOG_LEVEL to 2, errors
    only, where it is not set; where it is 0 or 1 nothing is dropped.
    """
    on_import()
    importlib.import_module("tensorflow")


def on_import() -> None:
    """Does the same at the first `import tensorflow` of this process, by whomever."""
    known = any(isinstance(one, _Finder) for one in sys.meta_path)
    if "tensorflow" not in sys.modules and not known:
        sys.meta_path.insert(0, _Finder())


def keep_memory() -> None:
    """Tells glibc to keep memory that is freed: training on CPUs is faster.

    By default each large tensor is new memory, which the kernel has to clear. Does
    nothing where the C library is another one.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in ALLOCATOR:
            mallopt(option, value)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds TensorFlow where it is found anyway, once, and imports it quietly."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname != "tensorflow":
            return None
        sys.meta_path.remove(self)
        found = importlib.util.find_spec(fullname)
        if found is not None and found.loader is not None:
            found.loader.exec_module = _quietly(found.loader.exec_module)
        return found


def _quietly(execute):
    def exec_module(module):
        with _filtered(), _uncollected():
            execute(module)
            # What CUDA says comes when it is first asked; devices can be configured
            # still.
            if hasattr(module, "config"):
                module.config.list_physical_devices()

    return exec_module


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """What is made until this ends stays: no collection of garbage looks at it, now or
    as the process ends, which takes two seconds otherwise."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if collecting:
            gc.enable()


@contextlib.contextmanager
def _filtered() -> Iterator[None]:
    """What is written to standard error passes the filter until this ends."""
    if os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2") in ("0", "1"):
        yield
        return
    try:
        before = os.dup(2)
        program = [sys.executable, "-I", "-S", __file__]
        # In a session of its own, Ctrl-C does not end it.
        child = subprocess.Popen(
            program, stdin=subprocess.PIPE, stdout=before, start_new_session=True
        )
    except OSError:  # no standard error, or no interpreter to start
        yield
        return
    try:
        _flush()
        os.dup2(child.stdin.fileno(), 2)
        child.stdin.close()
        yield
    finally:
        _flush()
        os.dup2(before, 2)
        os.close(before)
        # A process that was begun meanwhile may hold the pipe open.
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(SECONDS)


def _flush():
    with contextlib.suppress(AttributeError, ValueError, OSError):
        sys.stderr.flush()


def _filter() -> None:
    """Copies standard input to standard output, line by line, without notices."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for line in sys.stdin.buffer:
        if not NOTICES.match(line):
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    _filter()
