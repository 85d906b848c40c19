"""What a person's pose costs, beside MoveNet and BlazePose, in turns; not a test.

    python tests/measure_latency.py MOVENET [--blazepose=FOLDER] [--mediapipe=PYTHON]
        [--also=full_body_small:224,64] [--data=DATA] [--rounds=15]

MOVENET has movenet-lightning.json and movenet-thunder.json, FOLDER the files
pose_detection.tflite and pose_landmark_full.tflite of MediaPipe's wheel, and PYTHON is
an interpreter that has `mediapipe`. MoveNet is its published network behind our crop
and our decoding near the peak, one look. `--also` times a preset whose stages look at
crops of other sides (and a third number: of another sigma). With DATA, which
deeppose-prepare wrote, its people held out for validation are scored too.
"""

import argparse
import functools
import pathlib
import subprocess
import tempfile

import cv2
import numpy as np
import tensorflow as tf

import deeppose_tf
from deeppose_tf import skeleton, startup
from deeppose_tf.cascade import Cascade
from deeppose_tf.config import StageConfig
from deeppose_tf.export.saved_model import export
from deeppose_tf.export.saved_model.signatures import Limits
from deeppose_tf.export.tflite import convert, lite
from deeppose_tf.pipelines.data import records
from deeppose_tf.pipelines.evaluation import scores
from deeppose_tf.pipelines.profiling import timer
from deeppose_tf.pipelines.train import presets
from deeppose_tf.stage import Stage, build_stage

PHOTO = pathlib.Path(__file__).parents[1] / "docs" / "images" / "astronaut.jpg"
KINDS = ("SavedModel", "TFLite, float16")
# MediaPipe needs a Python of its own: it answers a line with whether it saw anybody.
MEDIAPIPE = """
import sys
import mediapipe
import numpy
image, static = numpy.load(sys.argv[1]), sys.argv[2] == "photo"
pose = mediapipe.solutions.pose.Pose(static_image_mode=static, model_complexity=1)
for _ in sys.stdin:
    print(pose.process(image).pose_landmarks is not None, flush=True)
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("movenet")
    parser.add_argument("--blazepose", type=pathlib.Path)
    parser.add_argument("--mediapipe")
    parser.add_argument("--also", action="append", default=[])
    parser.add_argument("--data")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    startup.keep_memory()  # as every command does
    image, cascades, ways = picture(), models(options), {}
    files = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, cascade) in enumerate(cascades.items()):
            content, threads = convert.convert(cascade, "float16"), timer.cores() or 1
            files[name] = lite.Lite(content, cascade.skeleton, threads)
            ways[name, KINDS[0]] = served(cascade, image, f"{folder}/{number}")
            ways[name, KINDS[1]] = functools.partial(files[name].predict, image)
        if options.blazepose:
            ways |= blazepose(options.blazepose)
        if options.mediapipe:
            np.save(f"{folder}/image.npy", image)
            for mode in ("photo", "film"):
                name = f"MediaPipe BlazePose Full, {mode}"
                program = [options.mediapipe, "-c", MEDIAPIPE, f"{folder}/image.npy"]
                ways[name, KINDS[1]] = mediapipe([*program, mode])
        turns = range(options.rounds)
        found = timer.medians(timer.in_turns(ways, turns))
    print(f"640 x 480, {timer.cores()} cores, TensorFlow {tf.__version__}, median ms")
    print(f"| | {' | '.join(KINDS)} |")
    print("| --- | ---: | ---: |")
    for name in dict.fromkeys(name for name, _ in ways):
        times = [found.get((name, way)) for way in KINDS]
        cells = [f"{1000 * one['seconds']:.0f}" if one else "" for one in times]
        print(f"| {name} | {' | '.join(cells)} |")
    if options.data:
        score(options.data, cascades, files)


def picture():
    """The photo, enlarged and cut to 640 x 480: MediaPipe takes less time where it
    finds nobody."""
    image = deeppose_tf.read_image(str(PHOTO))
    return np.ascontiguousarray(cv2.resize(image, (640, 640))[:480])


def models(options):
    """Name -> cascade of all that is ours to run."""
    found = {}
    for given in [*deeppose_tf.list_presets(), *options.also]:
        name, _, numbers = given.partition(":")
        found[given] = changed(Cascade.from_preset(name), numbers)
    for name, side in (("lightning", 192), ("thunder", 256)):
        config = StageConfig(
            f"movenet_{name}", side, "integral", window=4, margin=0.1, square=True
        )
        model = build_stage(config, skeleton.COCO, weights=options.movenet)
        nothing = np.zeros([17, 2]), np.zeros([17, 2, 2])
        stage = Stage(config, skeleton.COCO, model, *nothing, {})
        found[f"MoveNet {name.title()}, {side}"] = Cascade([stage])
    return found


def changed(cascade, numbers):
    """A cascade of two stages with crops of other sides and another sigma, `224,64` or
    `224,64,0.8`."""
    if not numbers:
        return cascade
    first, later, *sigma = numbers.split(",")
    stages = [presets.sized(cascade.stages[0], int(first))]
    more = {"sigma": float(sigma[0])} if sigma else {}
    return Cascade([*stages, presets.sized(cascade.stages[1], int(later), **more)])


def served(cascade, image, folder):
    export.write(cascade, Limits(), {}, pathlib.Path(folder))
    serve = tf.saved_model.load(folder).signatures["serving_default"]
    images, boxes = tf.constant(image[None]), tf.zeros([1, 4])
    return lambda: serve(images=images, boxes=boxes)["keypoints"].numpy()


def blazepose(folder):
    """The two networks alone, without what is around them: the detector, which a film
    needs in its first frame, and the landmarks of whom it found."""
    from ai_edge_litert.interpreter import Interpreter

    runs = []
    for name in ("pose_detection", "pose_landmark_full"):
        path = str(folder / f"{name}.tflite")
        network = Interpreter(model_path=path, num_threads=timer.cores())
        network.allocate_tensors()
        (taken,) = network.get_input_details()
        network.set_tensor(taken["index"], np.zeros(taken["shape"], np.float32))
        runs.append(network.invoke)
    return {
        ("BlazePose Full, landmarks alone", KINDS[1]): runs[1],
        ("BlazePose Full, detector and landmarks", KINDS[1]): lambda: [
            run() for run in runs
        ],
    }


def mediapipe(program):
    worker = subprocess.Popen(
        program,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )

    def run():
        worker.stdin.write("\n")
        worker.stdin.flush()
        assert worker.stdout.readline() == "True\n", "nobody was found"

    return run


def score(data, cascades, files):
    """Prints what each of the data's skeleton scores on its held-out people."""
    index = records.read_index(data)
    people = records.read_people(index, "validation")
    images = [
        records.read_image(index, "validation", i) for i in range(len(people.ids))
    ]
    print(f"\n{len(images)} people held out of {data}, per cent")
    print("| | | PCP mean4 | PDJ@0.05 | PDJ@0.1 | PDJ@0.2 |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    for name, cascade in cascades.items():
        if cascade.skeleton.canonical != index.skeleton.canonical:
            continue
        for kind, model in (("Keras", cascade), (KINDS[1], files[name])):
            boxes = people.boxes[:, None]
            poses = [
                model.predict(image, box)["keypoints"][0]
                for image, box in zip(images, boxes, strict=True)
            ]
            found = scores.scores(np.stack(poses), people, index.skeleton)
            shares = [found["pcp_strict"]["mean4"]] + [
                found["pdj"][x] for x in ("0.05", "0.1", "0.2")
            ]
            cells = [f"{100 * one['fraction']:.1f}" for one in shares]
            print(f"| {name} | {kind} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
