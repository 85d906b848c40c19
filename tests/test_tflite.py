"""`deeppose-tflite`: what it writes, what it refuses, and that no TensorFlow is needed
to run it."""

import json
import pathlib
import re
import subprocess
import sys
import types

import numpy as np
import pytest
import toy_cascade
import toy_people
from toy_run import call, script

from deeppose_tf import files
from deeppose_tf.cascade import Cascade
from deeppose_tf.export import commands
from deeppose_tf.export.saved_model import checks
from deeppose_tf.export.tflite import convert, export, lite
from deeppose_tf.pipelines.data import records
from deeppose_tf.skeleton import LSP
from deeppose_tf.stage import save_stage

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "phones.md"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of lively stages: two, which convert faster than three."""
    folder = tmp_path_factory.mktemp("run")
    cascade = toy_cascade.make(LSP, toy_cascade.CONFIGS[:2])
    for number, stage in enumerate(cascade.stages, start=1):
        save_stage(stage, str(folder / f"stage_{number}"))
    cascade.save_index(str(folder))
    return str(folder)


@pytest.fixture(scope="module")
def cascade(run):
    return Cascade.load(run)


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """Prepared data of six people, of whom untrained stages know nothing."""
    return toy_people.make_data(tmp_path_factory.mktemp("data"))[1]


@pytest.fixture(scope="module")
def written(run, index, tmp_path_factory):
    """A file written by the script itself, and the folder that it is in."""
    folder = tmp_path_factory.mktemp("written") / "made"
    call(
        script(commands, "tflite"),
        f"--model={run}",
        f"--output={folder / 'pose.tflite'}",
        f"--data={index.directory}",
        "--kind=float32",
        "--limit=4",
    )
    return folder


def test_the_file_and_its_description(written, run):
    assert sorted(path.name for path in written.iterdir()) == [
        "pose.json",
        "pose.tflite",
    ]
    about = json.loads((written / "pose.json").read_text())
    assert about["joints"] == list(LSP.joints)
    assert [stage["size"] for stage in about["stages"]] == [48, 32]
    assert [stage["sigma"] for stage in about["stages"]] == [2.0, 1.5]
    assert (about["kind"], about["image_size"]) == ("float32", None)
    assert set(about["versions"]) >= {"tensorflow", "deeppose_tf"}
    found = about["report"]
    assert found["people"] == 4 and found["pixels"]["largest"] <= 0.01
    assert found["pixels"]["answered_by_one_only"] == 0
    assert found["bytes"] == (written / "pose.tflite").stat().st_size
    assert found["scores"]["keras"] == found["scores"]["tflite"]
    assert {row["operation"] for row in found["operations"]} > {"CONV_2D", "SOFTMAX"}
    table = export.table(found)
    assert "float32, " in table and "| PDJ@0.2, per cent | " in table
    assert " 10 CONV_2D," in table  # five of each stage


def test_what_was_written_is_loaded_and_answers(written):
    model = lite.Lite.load(str(written / "pose.tflite"))
    assert model.skeleton == LSP and model.size is None
    answer = model.predict(checks.picture(60, 91))
    assert answer["keypoints"].shape == (1, 14, 2) and answer["valid"].all()


def test_files_that_are_no_pair_are_not_loaded(written, tmp_path):
    for name in ("pose.tflite", "pose.json"):
        (tmp_path / name).write_bytes((written / name).read_bytes())
    with open(tmp_path / "pose.tflite", "r+b") as file:
        file.seek(-1, 2)
        file.write(b"?")
    with pytest.raises(ValueError, match="is not the file that .*pose.json describes"):
        lite.Lite.load(str(tmp_path / "pose.tflite"))
    about = files.read_json(written / "pose.json") | {"format": 9}
    (tmp_path / "pose.tflite").write_bytes((written / "pose.tflite").read_bytes())
    (tmp_path / "pose.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match="pose.json has format 9, and this version"):
        lite.Lite.load(str(tmp_path / "pose.tflite"))
    (tmp_path / "pose.json").write_text("{}")
    with pytest.raises(ValueError, match="pose.json is damaged"):
        lite.Lite.load(str(tmp_path / "pose.tflite"))
    (tmp_path / "pose.json").unlink()
    with pytest.raises(ValueError, match="pose.json cannot be read"):
        lite.Lite.load(str(tmp_path / "pose.tflite"))


@pytest.fixture
def converted(monkeypatch, written):
    """No conversion: whatever is asked for, it is the file that was written."""
    content = (written / "pose.tflite").read_bytes()
    asked = []

    def make(cascade, kind, size, people):
        asked.append((kind, size, len(list(people))))
        return content

    monkeypatch.setattr(convert, "convert", make)
    return asked


def test_a_file_that_loses_too_much_is_not_written(
    converted, monkeypatch, index, tmp_path
):
    """Of 84 joints with Keras all in place, TFLite has all of one joint wrong."""
    people = toy_people.make_data(tmp_path)[0]["test"]
    perfect = toy_people.Oracle(people)
    worse = toy_people.Oracle(people)
    answer = worse.predict

    def wrong(image, boxes):
        found = answer(image, boxes)
        found["keypoints"][:, 0] += 1000
        return found

    worse.predict, worse.size = wrong, None
    monkeypatch.setattr(lite, "Lite", lambda *_: worse)
    monkeypatch.setattr(export, "describe", lambda *_: {})
    output = tmp_path / "out" / "pose.tflite"
    # One of 14 joints is 7.14 points of the mean over joints.
    with pytest.raises(ValueError, match="from 100.00 to 92.86 per cent, by more than"):
        export.export(perfect, str(output), index, max_drop=7.1, verbose=0)
    assert not output.parent.exists()
    found = export.export(perfect, str(output), index, max_drop=7.2, verbose=0)
    assert found["pixels"]["largest"] == pytest.approx(1000 * np.sqrt(2))
    assert output.exists()


def test_int8_sees_people_of_the_training_split(converted, cascade, index, tmp_path):
    for kind, people in (("int8", 3), ("dynamic_range", 0)):
        output = str(tmp_path / f"{kind}.tflite")
        export.export(cascade, output, index, kind, limit=1, seen=3, verbose=0)
        assert converted[-1] == (kind, None, people)


def test_names_that_are_taken_or_no_names(converted, cascade, index, tmp_path):
    output = tmp_path / "pose.tflite"
    (tmp_path / "pose.json").write_text("somebody's")
    with pytest.raises(ValueError, match="pose.json is there already: --overwrite"):
        export.export(cascade, str(output), index, verbose=0)
    assert (tmp_path / "pose.json").read_text() == "somebody's"
    export.export(cascade, str(output), index, limit=1, overwrite=True, verbose=0)
    assert lite.Lite.load(str(output)).skeleton == LSP
    with pytest.raises(ValueError, match="has to end in .tflite"):
        export.export(cascade, str(tmp_path / "pose.lite"), index, verbose=0)


def test_a_kill_between_the_two_files(converted, cascade, index, tmp_path, monkeypatch):
    """The file was there, alone, and the same command refused to replace it."""
    output, write = tmp_path / "pose.tflite", files.write_bytes
    arguments = cascade, str(output), index

    class Killed(BaseException):
        pass

    def second(path, content):
        if path == output:
            raise Killed
        write(path, content)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(files, "write_bytes", second)
        export.export(*arguments, limit=1, verbose=0)
    assert (tmp_path / "pose.json").exists() and not output.exists()
    export.export(*arguments, limit=1, verbose=0)
    assert lite.Lite.load(str(output)).skeleton == LSP
    with pytest.raises(ValueError, match="pose.tflite is there already: --overwrite"):
        export.export(*arguments, verbose=0)


@pytest.mark.parametrize("text", ["256", "0x10", "256x", "axb", "256x192x3", "99999x1"])
def test_sizes_that_are_none(text):
    with pytest.raises(ValueError, match="--image_size is .*height x width"):
        commands.parse_size(text)


def test_sizes():
    assert commands.parse_size(None) is None
    assert commands.parse_size("256x192") == (256, 192)


def test_images_are_fitted_to_a_fixed_size_for_both(index):
    """Both see the canvas, and are scored in pixels of the image: Keras, who finds the
    places scaled, is right about everybody."""
    people, seen = records.read_people(index, "test"), []
    size = (40, 40)

    def predict(image, boxes):
        assert image.shape == (40, 40, 3)
        person = len(seen) // 2
        seen.append(boxes)
        height, width = people.sizes[person]
        share = min(40 / height, 40 / width, 1)
        scale = np.float32(
            [round(width * share) / width, round(height * share) / height]
        )
        return {
            "keypoints": (people.keypoints[person] * scale)[None],
            "valid": np.array([True]),
        }

    both = types.SimpleNamespace(skeleton=LSP, predict=predict, size=size)
    found = export.compare(both, both, index, "test", verbose=0)
    assert found["scores"]["keras"]["PDJ@0.2"] == pytest.approx(100)
    assert found["pixels"] == {"mean": 0, "largest": 0, "answered_by_one_only": 0}


def test_without_ai_edge_litert_the_interpreter_is_tensorflows(
    written, monkeypatch, recwarn
):
    expected = lite.Lite.load(str(written / "pose.tflite"))
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    found = lite.Lite.load(str(written / "pose.tflite"))
    image = checks.picture(60, 91)
    np.testing.assert_allclose(
        found.predict(image)["keypoints"],
        expected.predict(image)["keypoints"],
        atol=0.01,
    )


BLOCKER = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("tensorflow", "keras", "deeppose_tf"):
            raise ImportError(f"{name} is not here")
sys.meta_path.insert(0, Blocker())
"""


def example():
    """The Python example of the page on phones."""
    return re.search(r"```python\n(.*?)```", PAGE.read_text(), re.S).group(1)


def prepare_example(written, folder):
    """Puts what the example reads into a folder; returns what it has to print."""
    from PIL import Image

    image = checks.picture(60, 91)
    Image.fromarray(image).save(folder / "photo.png")
    for name in ("pose.tflite", "pose.json"):
        (folder / name).write_bytes((written / name).read_bytes())
    answer = lite.Lite.load(str(written / "pose.tflite")).predict(image)
    return [
        f"{name} {x:.1f} {y:.1f} {score:.2f}"
        for name, (x, y), score in zip(
            LSP.joints, answer["keypoints"][0], answer["scores"][0], strict=True
        )
    ]


def test_the_example_runs_where_there_is_no_tensorflow(written, tmp_path):
    pytest.importorskip("ai_edge_litert")
    expected = prepare_example(written, tmp_path)
    program = BLOCKER + example() + "\nassert 'tensorflow' not in sys.modules\n"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:-1] == expected


@pytest.mark.slow
def test_the_example_runs_in_an_environment_of_its_own(written, tmp_path):
    """Of ai-edge-litert and Pillow, from the package registry, and nothing else."""
    expected = prepare_example(written, tmp_path)
    (tmp_path / "example.py").write_text(example())
    subprocess.run([sys.executable, "-m", "venv", "alone"], cwd=tmp_path, check=True)
    python = str(tmp_path / "alone" / "bin" / "python")
    install = [python, "-m", "pip", "install", "-q", "ai-edge-litert", "pillow"]
    if subprocess.run(install, capture_output=True).returncode:
        pytest.skip("no package registry")
    listed = subprocess.check_output([python, "-m", "pip", "list"], text=True)
    assert "tensorflow" not in listed and "keras" not in listed
    done = subprocess.run(
        [python, "example.py"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:-1] == expected
