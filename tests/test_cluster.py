"""Several processes: what TF_CONFIG may say, and who is waited for and missed."""

import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
import toy_training as toy

from deeppose_tf.pipelines.train import cluster


def config(role="worker", index=0, **roles):
    roles = roles or {"worker": ["a:1", "b:2"]}
    return json.dumps({"cluster": roles, "task": {"type": role, "index": index}})


def two():
    """Two processes of this machine, of which this is the first."""
    own, other = toy.free_ports(2)
    addresses = {"worker_0": ("localhost", own), "worker_1": ("localhost", other)}
    return cluster.Cluster(addresses, "worker_0")


def test_all_that_train(monkeypatch):
    roles = {"worker": ["[::1]:3", "b:4"], "chief": ["c:5"]}
    monkeypatch.setenv("TF_CONFIG", config("worker", 1, **roles))
    addresses, own = cluster.read()
    assert own == "worker_1"
    assert addresses == {
        "chief_0": ("c", 5), "worker_0": ("::1", 3), "worker_1": ("b", 4)
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is not set"),
        ('{"cluster"', "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("[]", "lacks cluster or task"),
        ('{"cluster": {"worker": ["a:1"]}}', "lacks cluster or task"),
        (config("ps"), "has the task 'ps' 0, which its cluster lacks"),
        (config("chief"), "has the task 'chief' 0, which its cluster lacks"),
        (config(["worker"]), "has the task ['worker'] 0"),
        (config(index="0"), "has the task 'worker' '0'"),
        (config(index=2), "has the task worker 2; its cluster has 2, from 0"),
        (config(index=-1), "has the task worker -1; its cluster has 2, from 0"),
        (config(worker=["a:1"], ps=["b:2"]), "has the role 'ps'"),
        (config(worker=[]), "has no list of addresses of role 'worker'"),
        (config(worker="a:1"), "has no list of addresses of role 'worker'"),
        (config(chief=["a:1", "b:2"], worker=["c:3"]), "has several chiefs"),
        (config(worker=["a"]), "has the address 'a'"),
        (config(worker=["a:70000"]), "has the address 'a:70000'"),
        (config(worker=["a:1", "a:1"]), "gives two processes the same address"),
    ],
)
def test_what_cannot_be_followed(monkeypatch, text, why):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ValueError) as caught:
        cluster.read()
    assert str(caught.value).startswith(f"--strategy=multiworker: TF_CONFIG {why}")
    assert "\n" not in str(caught.value) and cluster.EXAMPLE in str(caught.value)


def test_two_that_are_started_one_after_the_other(capsys):
    """Each listens until it has seen the other."""
    first = two()
    second = first._replace(own="worker_1")
    waiting = threading.Thread(target=cluster.meet, args=(first, 20))
    waiting.start()
    time.sleep(0.7)
    assert waiting.is_alive()
    cluster.meet(second, 20)
    with socket.create_server(("localhost", second.addresses["worker_1"][1])):
        waiting.join(10)  # as it sees TensorFlow, which listens from here on
    assert not waiting.is_alive()
    assert capsys.readouterr().out.startswith("waiting for worker_1 (localhost:")


def test_one_that_does_not_come():
    with pytest.raises(ValueError, match=r"worker_1 \(.*\) did not come within 0.1 s"):
        cluster.meet(two(), 0.1)


def test_a_port_that_is_taken():
    pair = two()
    port = pair.addresses["worker_0"][1]
    with socket.create_server(("", port)):
        with pytest.raises(OSError, match=f"port {port}, .*: Address already in"):
            cluster.meet(pair, 0)


def test_one_that_goes(tmp_path):
    """Whatever the process is doing: here it sleeps."""
    pair = two()
    program = f"""
import sys, time
from deeppose_tf.pipelines.train import cluster
cluster.LOST_SECONDS, cluster.ASK_SECONDS = 0.5, 0.1
with cluster.watched(cluster.Cluster({pair.addresses!r}, "worker_0")):
    print("watches", flush=True)
    time.sleep(60)
"""
    with socket.create_server(("localhost", pair.addresses["worker_1"][1])):
        watching = subprocess.Popen(
            [sys.executable, "-c", program], stdout=-1, stderr=-1, text=True
        )
        assert watching.stdout.readline() == "watches\n"
        time.sleep(1)
        assert watching.poll() is None and cluster.lost(pair, 0) == ""
    _, error = watching.communicate(timeout=20)
    line = cluster.lost(pair, 0)
    assert "is gone; start all again with the same command" in line
    assert watching.returncode == 1 and line in error


def test_a_stop_is_kept_for_all_to_stop_at_once():
    """Of a process that left in the midst of a step, nobody had a checkpoint."""
    came = []
    with signals(lambda number, frame: came.append(number)):
        with pytest.raises(OSError), cluster.deferred() as asked:
            signal.raise_signal(signal.SIGTERM)
            assert asked == [signal.SIGTERM] and not came
            # The same again is not waited with.
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
            raise OSError
        assert not came
        with cluster.deferred():
            signal.raise_signal(signal.SIGINT)
            assert not came
        assert came == [signal.SIGINT]  # nobody looked at it
    with signals(signal.SIG_IGN), cluster.deferred() as asked:
        signal.raise_signal(signal.SIGINT)
        assert not asked


@contextlib.contextmanager
def signals(handler):
    """With both signals that stop a process handled so."""
    numbers = signal.SIGINT, signal.SIGTERM
    before = [signal.signal(number, handler) for number in numbers]
    yield
    for number, known in zip(numbers, before, strict=True):
        signal.signal(number, known)


MEETING = """
import ctypes, signal, sys
from deeppose_tf.pipelines.train import cluster
# What a shell starts in the background ignores Ctrl-C, and so would this.
signal.signal(signal.SIGINT, signal.default_int_handler)
two = {"worker_0": ("a", 1), "worker_1": ("b", 2)}
with cluster.in_time(cluster.Cluster(two, "worker_0"), float(sys.argv[1])):
    print("waits", flush=True)
    # In C, which holds the lock of the interpreter.
    ctypes.PyDLL(None).sleep(20)
"""


@pytest.mark.parametrize("number, seconds", [(None, 0.2), (2, 15), (15, 15)])
def test_the_meeting_ends_in_time_or_by_a_signal(number, seconds):
    """Where another program answers at the address of a worker it had no end, and
    Python sees no signal while TensorFlow waits."""
    process = subprocess.Popen(
        [sys.executable, "-c", MEETING, str(seconds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    told = f"meeting worker_1: this ends after {seconds:g} s if what answers there"
    assert process.stdout.readline().startswith(told)
    assert process.stdout.readline() == "waits\n"
    if number:
        process.send_signal(number)
    try:
        assert process.communicate(timeout=10) == ("", "")
        assert process.returncode == (-number if number else 1)
    finally:
        process.kill()
        process.communicate()
