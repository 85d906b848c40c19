"""What XLA would launch on an H200 for a step of training, found without one.

    python tests/measure_gpu_program.py FOLDER [--recipe=paper] [--stage=1]

TensorFlow's library holds the whole compiler of XLA for GPUs; `gpu_program.cc`, built
in FOLDER by g++ the first time, asks it for a card that is not there. It is written for
TensorFlow 2.21 on Linux.

Prints of the bare and of the full step, people kept on the device, every kernel of the
loop over steps: what it reads and writes, each operand once and whole, and the
instructions of all its threads as they are written down, branches not taken included.
FOLDER keeps the programs, PTX included.

Nothing is timed. Algorithms of convolutions and tiles of matrix products are chosen on
a device; of theirs read nothing but the bytes. An operand that is only gathered from,
such as all canvases of a data set, is counted whole.
"""

import argparse
import dataclasses
import functools
import os
import pathlib
import re
import subprocess
import sys
import types

import tensorflow as tf

from deeppose_tf.pipelines.data import augment
from deeppose_tf.pipelines.profiling import training_step
from deeppose_tf.pipelines.train import cascade, recipes
from deeppose_tf.pipelines.train import step as steps
from deeppose_tf.skeleton import LSP

HERE = pathlib.Path(__file__).parent
PEOPLE = 9900
H200 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472 core_count: 132 fpus_per_core: 128
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  memory_bandwidth: 4800000000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98
  device_memory_size: 151397597184 cuda_compute_capability { major: 9 }
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 }
device_description_str: "NVIDIA H200"
"""
# Headers that TensorFlow's own include and its wheel lacks; nothing of them is used.
MISSING = {
    "farmhash.h": """#pragma once
#include <cstddef>
#include <cstdint>
#include <utility>
namespace util {
typedef std::pair<uint64_t, uint64_t> uint128_t;
inline uint64_t Uint128Low64(uint128_t x) { return x.first; }
inline uint64_t Uint128High64(uint128_t x) { return x.second; }
inline uint64_t Fingerprint(uint64_t x) { return x; }
uint32_t Fingerprint32(const char*, size_t);
uint64_t Fingerprint64(const char*, size_t);
uint64_t Hash64(const char*, size_t);
uint64_t Hash64WithSeed(const char*, size_t, uint64_t);
uint128_t Fingerprint128(const char*, size_t);
}
""",
    "highwayhash/arch_specific.h": """#pragma once
#define HH_ALIGNAS(x) alignas(x)
#define HH_TARGET 0
#define HH_TARGET_PREFERRED 0
#include "hh_types.h"
""",
    "highwayhash/hh_types.h": """#pragma once
#include <cstdint>
namespace highwayhash {
using HHKey = uint64_t[4];
using HHResult64 = uint64_t;
template <int T> class HighwayHashCatT { alignas(64) char state[1024]; };
}
""",
    "highwayhash/highwayhash.h": "#pragma once\n",
    "highwayhash/highwayhash_target.h": "#pragma once\n",
}
KERNELS = "fusion", "custom-call", "copy"
OPERATION = re.compile(r"\s*(?:ROOT )?%?(\S+) = (\(.*?\)|\S+) ([\w\-]+)\((.*?)\)")
SHAPE = re.compile(r"\b([a-z]+)(\d*)\[([\d,]*)\]")


def build(folder):
    """The program of `gpu_program.cc`."""
    program = folder / "gpu_program"
    if program.exists():
        return program
    for name, content in MISSING.items():
        path = folder / "include" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    library = pathlib.Path(tf.sysconfig.get_lib())
    command = ["g++", "-O0", "-w", f"-I{folder / 'include'}", "-Wl,--no-as-needed"]
    command += [*tf.sysconfig.get_compile_flags(), str(HERE / "gpu_program.cc")]
    command += [f"-L{library}", f"-Wl,-rpath,{library}", "-l:libtensorflow_cc.so.2"]
    command += ["-l:libtensorflow_framework.so.2", "-o", str(program)]
    subprocess.run(command, check=True)
    return program


def step_programs(name, number):
    """`bare` and `full` -> the HLO of a loop over steps as a GPU would be given it."""
    there = tf.config.list_physical_devices
    tf.config.list_physical_devices = lambda kind=None: (
        ["not there"] if kind == "GPU" else there(kind)
    )
    recipe = recipes.recipe_for(name, number)
    config = dataclasses.replace(recipe.train, precision="mixed_bfloat16")
    recipe = dataclasses.replace(recipe, train=config)
    strategy, index = tf.distribute.get_strategy(), types.SimpleNamespace(skeleton=LSP)
    earlier = training_step._simulated_earlier(index, number)
    examples = cascade.make_examples(index, recipe, earlier)
    state = training_step._fresh_state(index, recipe, strategy)
    if not steps.suits_xla(state.model, strategy):
        raise SystemExit(f"{name}, stage {number}: XLA compiles only parts of its step")
    make = functools.partial(steps.make_step, state, strategy=strategy, by_xla=True)
    full = make(examples, config).func
    bare = make(lambda *crops: crops, dataclasses.replace(config, ema=0.0)).func

    def over_chunk(chosen, draws, first, last, *people):
        def step(chunk, at):
            return full(people, tuple(x[at] for x in chunk))

        return steps._looped(step, by_xla=True)((chosen, draws), first, last)

    def over_crops(first, last, *crops):
        return steps._looped(lambda x, _: bare((), x), by_xla=True)(crops, first, last)

    counts = [tf.TensorSpec([], tf.int32)] * 2
    people, chunk, crops = _specs(recipe)
    return {
        "bare": _hlo(over_crops, *counts, *crops),
        "full": _hlo(over_chunk, *chunk, *counts, *people),
    }


def _specs(recipe):
    """Of people kept on the device, of a chunk of batches, and of a batch of crops."""
    spec, joints = tf.TensorSpec, len(LSP.joints)
    side, size = recipe.inputs.canvas, recipe.stage.size
    crops, views = recipe.inputs.batch, recipe.inputs.views
    people = [spec([PEOPLE, side, side, 3], tf.uint8), spec([PEOPLE, joints, 2])]
    people += [spec([PEOPLE, joints], tf.bool), spec([PEOPLE, 4])]
    batches = [steps.CHUNK, crops // views]
    draws = spec([*batches, views, len(augment.DRAWS)])
    batch = [spec([crops, size, size, 3]), spec([crops, joints, 2])]
    return people, [spec(batches, tf.int32), draws], [*batch, spec([crops, joints])]


def _hlo(function, *specs):
    compiled = tf.function(function, jit_compile=True, autograph=False)
    return compiled.experimental_get_compiler_ir(*specs)(stage="hlo_serialized")


def compile_for_gpu(program, folder, hlo):
    """Writes FOLDER/optimized.txt, and what XLA dumps beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("module_*"):
        old.unlink()
    (folder / "module.pb").write_bytes(hlo)
    (folder / "target.txt").write_text(H200)
    files = [str(folder / x) for x in ("module.pb", "target.txt", "optimized.txt")]
    flags = f"--xla_gpu_autotune_level=0 --xla_dump_to={folder}"
    environment = os.environ | {"XLA_FLAGS": flags, "TF_CPP_MIN_LOG_LEVEL": "3"}
    subprocess.run([str(program), *files], env=environment, check=True)


def kernels(folder):
    """(name, MB read, MB written, 1e9 instructions) of what the loop launches."""
    instructions = _instructions(folder)
    text = (folder / "optimized.txt").read_text()
    loop = re.search(r"body=%?([\w.\-]+)", text)[1]
    body = re.search(rf"^%?{re.escape(loop)} .*?\{{\n(.*?)\n\}}", text, re.S | re.M)[1]
    sizes, found = {}, []
    for part in filter(None, map(OPERATION.match, body.splitlines())):
        name, shape, kind, operands = part.groups()
        sizes[name] = _megabytes(shape)
        if kind in KERNELS:
            read = set(re.findall(r"%([\w.\-]+)", operands))
            run = instructions.get(re.sub(r"[.\-]", "_", name), 0.0)
            found.append((name, sum(sizes[x] for x in read), sizes[name], run))
        elif kind == "conditional":
            found.append((f"{name}: a branch, which waits for the host", 0.0, 0.0, 0.0))
    return found


def _instructions(folder):
    """Kernel -> 1e9 instructions: the lines of its PTX, times its threads."""
    ptx = "".join(path.read_text() for path in folder.glob("*.ptx"))
    lines = {
        found[1]: sum(
            bool(line.strip()) and line.strip()[0] not in ".$/{"
            for line in found[2].splitlines()
        )
        for found in re.finditer(r"\.entry (\w+)\(.*?\{(.*?)\n\}", ptx, re.S)
    }
    (launches,) = folder.glob("*.thunk_sequence.txt")
    threads = re.finditer(
        r"kernel = (\w+), .*?blocks: \{(\d+),.*?block: \{(\d+),", launches.read_text()
    )
    return {
        found[1]: lines.get(found[1], 0) * int(found[2]) * int(found[3]) / 1e9
        for found in threads
    }


def _megabytes(shape):
    total = 0
    for kind, bits, sides in SHAPE.findall(shape):
        size = int(bits) // 8 if bits else {"pred": 1}.get(kind, 0)
        for side in filter(None, sides.split(",")):
            size *= int(side)
        total += size
    return total / 1e6


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--recipe", default="paper")
    parser.add_argument("--stage", type=int, default=1)
    options = parser.parse_args()
    folder = options.folder.resolve()
    program = build(folder)
    for name, hlo in step_programs(options.recipe, options.stage).items():
        where = folder / f"{options.recipe}_{options.stage}_{name}"
        compile_for_gpu(program, where, hlo)
        found = kernels(where)
        print(f"\n{options.recipe}, stage {options.stage}, {name} step: ", end="")
        print(f"{len(found)} kernels, {sum(x[1] + x[2] for x in found):,.0f} MB")
        print(f"{'':48}{'MB read':>9}{'written':>9}{'1e9 instr.':>12}")
        for kernel, read, wrote, run in found:
            print(f"{kernel[:46]:48}{read:9.1f}{wrote:9.1f}{run:12.2f}")


if __name__ == "__main__":
    sys.exit(main())
