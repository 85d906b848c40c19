"""The C program beside the exporter: the same numbers without Python."""

import pathlib
import shutil
import subprocess

import numpy as np
import pytest
import tensorflow as tf
import toy_export

from deeppose_tf.export import checks, rows, saved_model

SOURCE = pathlib.Path(saved_model.__file__).with_name("example.c")


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """Compiled as its own first lines say, with all warnings."""
    if not shutil.which("gcc"):
        pytest.skip("no gcc")
    library = pathlib.Path(tf.sysconfig.get_lib())
    if not (library / "libtensorflow_cc.so.2").exists():
        pytest.skip("this TensorFlow has no C API for Linux")
    path = tmp_path_factory.mktemp("example") / "example"
    names = ["-l:libtensorflow_cc.so.2", "-l:libtensorflow_framework.so.2"]
    places = [f"-I{library / 'include'}", f"-L{library}", f"-Wl,-rpath,{library}"]
    strict = ["-std=c11", "-Wall", "-Wextra", "-Werror"]
    command = ["gcc", *strict, *places, SOURCE, "-o", path, *names]
    subprocess.run(command, check=True)
    return path


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """(cascade, SavedModel)."""
    folder = tmp_path_factory.mktemp("served")
    cascade = toy_export.save_run(folder / "run")
    path = folder / "1"
    saved_model.write(cascade, rows.Limits(), {}, path)
    return cascade, path


def test_both_signatures(program, served, tmp_path):
    cascade, model = served
    pixels = checks.picture(90, 120)
    (tmp_path / "raw.ppm").write_bytes(b"P6\n120 90\n255\n" + pixels.tobytes())
    (tmp_path / "file.png").write_bytes(toy_export.encode(pixels, "PNG"))
    (tmp_path / "file.jpg").write_bytes(b"no picture")
    names = ["raw.ppm", "file.png", "file.jpg"]
    command = [program, model, *names]
    done = subprocess.run(command, cwd=tmp_path, check=True, stdout=subprocess.PIPE)
    lines = done.stdout.decode().splitlines()
    joints = len(cascade.skeleton.joints)
    assert lines[:: joints + 1] == [
        "raw.ppm valid",
        "file.png valid",
        "file.jpg invalid",
    ]
    numbers = [line.split() for i, line in enumerate(lines) if i % (joints + 1)]
    found = np.float64(numbers).reshape(3, joints, 3)
    expected = cascade.predict(pixels)
    for answer in found[:2]:
        np.testing.assert_allclose(answer[:, :2], expected["keypoints"][0], atol=0.01)
        np.testing.assert_allclose(answer[:, 2], expected["scores"][0], atol=1e-4)
    assert not found[2].any()


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"P6\n9 9\n255\nxx", "no binary PPM"), (None, "cannot be read")],
    ids=["cut short", "missing"],
)
def test_errors(program, served, tmp_path, content, said):
    path = tmp_path / "raw.ppm"
    if content:
        path.write_bytes(content)
    command = [program, served[1], path]
    done = subprocess.run(command, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1
    assert said in done.stderr.decode()
