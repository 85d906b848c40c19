"""Processes that train together: who they are by TF_CONFIG, how they wait for each
other, and what ends the others when one is gone.

Imports no TensorFlow, so that a wrong TF_CONFIG is told at once.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple

from deeppose_tf.pipelines.cli import command

ROLES = ("chief", "worker")
EXAMPLE = (
    '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, '
    '"task": {"type": "worker", "index": 0}}'
)
AGAIN = "start all again with the same command"
WAIT_SECONDS = 300.0
# A process that has not answered for so long is gone; it is asked so often.
LOST_SECONDS, ASK_SECONDS = 15.0, 3.0
# TensorFlow takes some of it to meet when all processes are there.
MEETING_SECONDS = 60.0
# A process that was stopped may take so long to leave.
LEAVING_SECONDS = 15.0


class Cluster(NamedTuple):
    """The processes of a training.

    Attributes:
      addresses: name of each, such as `worker_1` -> (host, port).
      own: the name of this one.
    """

    addresses: dict[str, tuple[str, int]]
    own: str

    def absent(self) -> list[str]:
        """The others that nobody answers for, with their addresses."""
        return [
            f"{name} ({host}:{port})"
            for name, (host, port) in self.addresses.items()
            if name != self.own and not _answers(host, port)
        ]


def read() -> Cluster:
    """The processes that TF_CONFIG names.

    Raises:
      ValueError: it is not set, or says nothing that can be followed.
    """
    text = os.environ.get("TF_CONFIG", "")
    try:
        if not text.strip():
            raise ValueError("is not set")
        return _parsed(json.loads(text))
    except (ValueError, RecursionError) as error:
        damaged = isinstance(error, (json.JSONDecodeError, RecursionError))
        why = f"is no JSON ({error})" if damaged else error
        raise ValueError(
            f"--strategy=multiworker: TF_CONFIG {why}. Each process is given all of "
            f"them and its own place, such as TF_CONFIG='{EXAMPLE}'"
        ) from error


def meet(cluster: Cluster, seconds: float) -> None:
    """Returns when all processes have been started.

    Raises:
      ValueError: some were not within so many seconds.
      OSError: another program has the port of this one.
    """
    end, told = time.monotonic() + seconds, []
    # Until TensorFlow listens there, so that the others see that this one has come.
    with _listening(cluster.addresses[cluster.own][1]) as listener:
        while absent := cluster.absent():
            with contextlib.suppress(BlockingIOError):
                while True:
                    listener.accept()[0].close()
            names = ", ".join(absent)
            if time.monotonic() > end:
                raise ValueError(
                    f"{names} did not come within {seconds:g} s (--wait_seconds). "
                    "Start the same command there, with its own place in TF_CONFIG"
                )
            if absent != told:
                print(f"waiting for {names}, {seconds:g} s at most", flush=True)
            told = absent
            time.sleep(0.5)


@contextlib.contextmanager
def watched(cluster: Cluster) -> Iterator[None]:
    """Within it, this process ends with status 1 and a line when another is gone, also
    while TensorFlow waits for that one."""
    done = threading.Event()
    threading.Thread(target=_watch, args=(cluster, done), daemon=True).start()
    try:
        yield
    finally:
        done.set()


@contextlib.contextmanager
def in_time(cluster: Cluster, seconds: float) -> Iterator[None]:
    """Within it, this process ends with status 1 after so many seconds, and at once by
    Ctrl-C: while TensorFlow waits for the others, no Python runs. A line says so first.
    Afterwards signals are handled as before, whatever TensorFlow did of them."""
    others = ", ".join(name for name in cluster.addresses if name != cluster.own)
    print(
        f"meeting {others}: this ends after {seconds:g} s if what answers there is "
        "not the same command",
        flush=True,
    )
    with _stopped_by(signal.SIG_DFL), open(os.devnull, "w") as nowhere:
        faulthandler.dump_traceback_later(seconds, exit=True, file=nowhere)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()


@contextlib.contextmanager
def deferred() -> Iterator[list[int]]:
    """Within it, Ctrl-C and SIGTERM go to a list, for all to stop at the same step, and
    only the same one again ends this process. What nobody stopped for comes after it.
    """
    asked: list[int] = []

    def stop(number, frame):
        asked.append(number)
        signal.signal(number, signal.SIG_DFL)

    with _stopped_by(stop):
        yield asked
    if asked:
        signal.raise_signal(asked[0])


@contextlib.contextmanager
def _stopped_by(handler):
    """Has Ctrl-C and SIGTERM, where they are not ignored, handled so."""
    main = threading.current_thread() is threading.main_thread()
    stops = (signal.SIGINT, signal.SIGTERM) if main else ()
    before = {number: signal.getsignal(number) for number in stops}
    for number, known in before.items():
        signal.signal(number, known if known is signal.SIG_IGN else handler)
    try:
        yield
    finally:
        for number, known in before.items():
            signal.signal(number, known)


def lost(cluster: Cluster, seconds: float = LEAVING_SECONDS) -> str:
    """A line that says who is gone, as soon as one is; "" if all go on."""
    end = time.monotonic() + seconds
    while not (absent := cluster.absent()):
        if time.monotonic() > end:
            return ""
        time.sleep(0.5)
    verb = "is" if len(absent) == 1 else "are"
    return f"{', '.join(absent)} {verb} gone; {AGAIN}"


def _watch(cluster, done):
    heard = time.monotonic()
    while not done.wait(ASK_SECONDS):
        if not cluster.absent():
            heard = time.monotonic()
        elif time.monotonic() - heard > LOST_SECONDS and (line := lost(cluster, 0)):
            print(f"\n{command.program(sys.argv)}: {line}", file=sys.stderr, flush=True)
            os._exit(1)  # the main thread may never come back from TensorFlow


def _answers(host, port):
    with contextlib.suppress(OSError):
        socket.create_connection((host, port), 2.0).close()
        return True
    return False


def _listening(port):
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    try:
        listener = socket.create_server(("", port), family=family, dualstack_ipv6=both)
        listener.setblocking(False)
        return listener
    except OSError as error:
        why = os.strerror(error.errno)
        raise OSError(f"port {port}, this process's by TF_CONFIG: {why}") from error


def _parsed(value):
    """A `Cluster`; errors go on after `TF_CONFIG`."""
    cluster, task = (
        value.get(key) if isinstance(value, dict) else None
        for key in ("cluster", "task")
    )
    if not isinstance(cluster, dict) or not isinstance(task, dict):
        raise ValueError("lacks cluster or task")
    role, index = task.get("type"), task.get("index")
    for name, listed in cluster.items():
        if name not in ROLES:
            raise ValueError(f"has the role {name!r}, which is none of chief, worker")
        if not isinstance(listed, list) or not listed:
            raise ValueError(f"has no list of addresses of role {name!r}")
    if len(cluster.get("chief", "1")) > 1:
        raise ValueError("has several chiefs")
    if not isinstance(role, str) or role not in cluster or type(index) is not int:
        raise ValueError(f"has the task {role!r} {index!r}, which its cluster lacks")
    addresses = {
        f"{name}_{i}": _address(text)
        for name in ROLES
        for i, text in enumerate(cluster.get(name, ()))
    }
    own = f"{role}_{index}"
    if own not in addresses:
        count = len(cluster[role])
        raise ValueError(
            f"has the task {role} {index}; its cluster has {count}, from 0"
        )
    if len(set(addresses.values())) < len(addresses):
        raise ValueError("gives two processes the same address")
    return Cluster(addresses, own)


def _address(text):
    host, _, port = str(text).rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise ValueError(f"has the address {text!r}, which is no HOST:PORT")
    return host.strip("[]"), int(port)
