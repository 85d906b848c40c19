"""TensorFlow starts without its notices, and every real error is shown."""

import os
import subprocess
import sys

import pytest

from deeppose_tf import startup

# What TensorFlow 2.15 to 2.21 says on machines without a GPU.
NOTICES = """\
WARNING: All log messages before absl::InitializeLog() is called are written to STDERR
I0000 00:00:1795755493.970189    9825 cudart_stub.cc:31] Could not find cuda drivers \
on your machine, GPU will not be used.
E0000 00:00:1795755503.920533    9825 cuda_platform.cc:52] failed call to cuInit: \
INTERNAL: CUDA error: Failed call to cuInit: UNKNOWN ERROR (303)
2026-11-27 05:12:16.7: E external/local_xla/xla/stream_executor/cuda/cuda_dnn.cc:9261] \
Unable to register cuDNN factory: Attempting to register factory for plugin cuDNN when \
one has already been registered
2026-11-27 05:12:16.8: I tensorflow/core/platform/cpu_feature_guard.cc:182] This \
TensorFlow binary is optimized to use available CPU instructions
To enable the following instructions: AVX2 FMA, in other operations, rebuild \
TensorFlow with the appropriate compiler flags.
2026-11-27 05:12:19.4: W tensorflow/compiler/tf2tensorrt/utils/py_utils.cc:38] TF-TRT \
Warning: Could not find TensorRT
"""
ERRORS = """\
F0000 00:00:1795755493.970189 9825 cpu_feature_guard.cc:30] The TensorFlow library was \
compiled to use AVX512F instructions, but these aren't available on your machine.
E0000 00:00:1795755503.9 9825 cuda_platform.cc:52] failed call to cuInit: INTERNAL: \
CUDA error: Failed call to cuInit: CUDA_ERROR_SYSTEM_DRIVER_MISMATCH
ImportError: libcudart.so.12: cannot open shared object file
"""
# A module that stands for TensorFlow writes its lines as C++ does.
SAYS = f"import os\nos.write(2, {(NOTICES + ERRORS).encode()!r})\n"


def _python(program, folder=None, **environment):
    keep = {k: v for k, v in os.environ.items() if not k.startswith("TF_")}
    if folder:
        keep["PYTHONPATH"] = str(folder)
    return subprocess.run(
        [sys.executable, "-c", program],
        env=keep | environment,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    "how", ["startup.import_tensorflow()", "startup.on_import(); import tensorflow"]
)
@pytest.mark.parametrize(
    "end", ["", "raise ImportError('gone')", "os.abort()", "os._exit(3)"]
)
def test_notices_are_dropped_and_errors_are_shown(tmp_path, how, end):
    """Level 3 of TF_CPP_MIN_LOG_LEVEL, which was set before, hid all errors too."""
    (tmp_path / "tensorflow.py").write_text(SAYS + end)
    ran = _python(f"from deeppose_tf import startup; {how}", tmp_path)
    assert ran.stderr.startswith(ERRORS)
    rest = ran.stderr.removeprefix(ERRORS)
    assert rest.endswith("ImportError: gone\n") if "raise" in end else not rest
    assert (ran.returncode == 0) == (not end)


def test_standard_error_is_as_it_was_afterwards(tmp_path):
    (tmp_path / "tensorflow.py").write_text(SAYS)
    ran = _python(
        "import os, sys; from deeppose_tf import startup; startup.import_tensorflow();"
        f"os.write(2, {NOTICES.encode()!r}); sys.stderr.write('last')",
        tmp_path,
    )
    assert ran.stderr == ERRORS + NOTICES + "last"


def test_who_asks_for_notices_gets_them(tmp_path):
    (tmp_path / "tensorflow.py").write_text(SAYS)
    program = "from deeppose_tf import startup; startup.import_tensorflow()"
    ran = _python(program, tmp_path, TF_CPP_MIN_LOG_LEVEL="0")
    assert ran.stderr == NOTICES + ERRORS


def test_tensorflow_itself_starts_without_a_line():
    ran = _python(
        "from deeppose_tf import startup; startup.on_import(); startup.keep_memory();"
        "import tensorflow as tf; print(float(tf.reduce_sum(tf.ones(5))))\n"
        # What was imported is never garbage; what comes after is collected.
        "import gc; print(gc.get_freeze_count() > 100_000, gc.isenabled())"
    )
    assert (ran.stdout, ran.stderr) == ("5.0\nTrue True\n", "")


def test_what_is_there_already_is_left_alone():
    assert "tensorflow" in sys.modules
    startup.import_tensorflow()
