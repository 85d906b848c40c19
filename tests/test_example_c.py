"""The C program beside the exporter: the same numbers without Python."""

import subprocess

import example_program
import numpy as np
import pytest
import toy_export

from deeppose_tf.cascade import Cascade
from deeppose_tf.export.saved_model import checks


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    if example_program.missing():
        pytest.skip(example_program.missing())
    return example_program.build(tmp_path_factory.mktemp("example"))


def test_both_signatures(program, served, tmp_path):
    cascade, model = Cascade.load(str(served / "run")), served / "pose" / "1"
    pixels = checks.picture(90, 120)
    (tmp_path / "raw.ppm").write_bytes(example_program.ppm(pixels))
    (tmp_path / "file.png").write_bytes(toy_export.encode(pixels, "PNG"))
    (tmp_path / "file.jpg").write_bytes(b"no picture")
    box = ":10.5,-20,100,80"
    pictures = ["raw.ppm", "file.png", "raw.ppm" + box, "file.png" + box, "file.jpg"]
    valid, found, scores = example_program.run(program, model, pictures, tmp_path)
    assert valid.tolist() == [True] * 4 + [False]
    boxes = np.float32([[0, 0, 0, 0], [10.5, -20, 100, 80]])
    expected = cascade.predict(pixels, boxes)
    apart = np.abs(expected["keypoints"][0] - expected["keypoints"][1])
    assert apart.max() > 1  # the box makes a difference
    for i in range(4):
        keypoints, wanted = expected["keypoints"][i // 2], expected["scores"][i // 2]
        np.testing.assert_allclose(found[i], keypoints, atol=0.01)
        np.testing.assert_allclose(scores[i], wanted, atol=1e-4)
    assert not found[4].any() and not scores[4].any()


CUT = b"P6\n9 9\n255\nxx"
WRONG = {
    "cut short": (CUT, "", "no binary PPM"),
    "missing": (None, "", "cannot be read"),
    "no box": (CUT, ":1,2,3", "is no x0,y0,x1,y1"),
    "more than a box": (CUT, ":1,2,3,4,5", "is no x0,y0,x1,y1"),
}


@pytest.mark.parametrize(("content", "box", "said"), WRONG.values(), ids=WRONG)
def test_errors(program, served, tmp_path, content, box, said):
    path = tmp_path / "raw.ppm"
    if content:
        path.write_bytes(content)
    command = [program, served / "pose" / "1", f"{path}{box}"]
    done = subprocess.run(command, env=example_program.QUIET, capture_output=True)
    assert (done.returncode, done.stdout) == (1, b"")
    (line,) = example_program.notices(done.stderr)
    assert line.startswith(b"example: ") and said.encode() in line
