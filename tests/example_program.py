"""The C example, compiled as its own first lines say, run, and what it prints."""

import os
import pathlib
import re
import shutil
import subprocess

import numpy as np
import tensorflow as tf

SOURCE = pathlib.Path(__file__).parents[1] / "export" / "saved_model" / "example.c"
# As its first lines say.
QUIET = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
STRICT = ["-std=c11", "-Wall", "-Wextra", "-Werror"]


def missing():
    """What it takes to compile it and is not here, or None."""
    if not shutil.which("gcc"):
        return "no gcc"
    if not (pathlib.Path(tf.sysconfig.get_lib()) / "libtensorflow_cc.so.2").exists():
        return "this TensorFlow has no C API for Linux"
    return None


def build(folder):
    """Compiles it into a folder, with all warnings; returns the program's path."""
    library = tf.sysconfig.get_lib()
    path = pathlib.Path(folder) / "example"
    names = ["-l:libtensorflow_cc.so.2", "-l:libtensorflow_framework.so.2"]
    places = [f"-I{library}/include", f"-L{library}", f"-Wl,-rpath,{library}"]
    # GNU's own linker reads the library of a gigabyte for fifteen seconds.
    linker = ["-fuse-ld=gold"] if shutil.which("ld.gold") else []
    command = ["gcc", *STRICT, *places, SOURCE, "-o", path, *names, *linker]
    subprocess.run(command, check=True)
    return path


def notices(stderr):
    """The lines that it wrote, without TensorFlow's that no CUDA drivers are there."""
    known = re.compile(b"WARNING: All log messages before|.*not find cuda drivers")
    return [line for line in stderr.splitlines() if not known.match(line)]


def ppm(pixels):
    """[H, W, 3] uint8 -> the bytes of the one format that it reads pixels from."""
    height, width = pixels.shape[:2]
    return b"P6\n%d %d\n255\n" % (width, height) + pixels.tobytes()


def run(program, model, pictures, folder):
    """What the program answers about pictures, `name` or `name:x0,y0,x1,y1`.

    Returns:
      valid [N] bool, keypoints [N, K, 2], scores [N, K].
    """
    command = [program, model, *pictures]
    done = subprocess.run(command, cwd=folder, env=QUIET, capture_output=True)
    assert (done.returncode, notices(done.stderr)) == (0, [])
    lines = done.stdout.decode().splitlines()
    rows = len(lines) // len(pictures)  # its name, and the joints
    names = [line.split() for line in lines[::rows]]
    assert [name for name, _ in names] == [one.split(":")[0] for one in pictures]
    numbers = [line.split() for i, line in enumerate(lines) if i % rows]
    found = np.float64(numbers).reshape(len(pictures), rows - 1, 3)
    valid = np.array([said == "valid" for _, said in names])
    return valid, found[..., :2], found[..., 2]
