"""The paper's network in PyTorch, where that is installed: the peer of a training step.

Takes no TensorFlow: on a GPU each would leave the other no memory.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import sys
import time

SECONDS = 3.0  # that are timed
COMPILING = 300.0  # no compilation is waited for longer


def step_seconds(layers: tuple, side: int, batch: int, outputs: int) -> dict:
    """Times the bare step of the network of Fig. 2: forward, backward and Adagrad.

    In bfloat16 on a GPU, there as it is and by `torch.compile`; in float32 on a
    processor. Each in a process of its own, before TensorFlow takes the GPU.

    Its `layers` are `networks.PAPER`; it answers so many `outputs` for each of crops
    [batch, side, side, 3].

    Returns:
      Seconds a step by name; nothing without PyTorch, or of what fails.
    """
    found: dict[str, float] = {}
    if importlib.util.find_spec("torch") is None:
        return found
    for compiled in (False, True):
        with multiprocessing.get_context("spawn").Pool(1) as process:
            asked = process.apply_async(
                _measure, (compiled, layers, side, batch, outputs)
            )
            try:
                gpu, seconds = asked.get(COMPILING)
            except Exception as error:  # as where it cannot be compiled
                print(f"PyTorch was not timed: {error!r}", file=sys.stderr)
                break
        found |= seconds
        if not gpu:  # nor could it be compiled
            break
    return found


def _measure(compiled, layers, side, batch, outputs):
    import torch

    gpu = torch.cuda.is_available()
    device = torch.device("cuda" if gpu else "cpu")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    place = {"device": device, "memory_format": torch.channels_last}
    model = _network(layers, side, outputs).to(**place)
    crops = torch.randn(batch, 3, side, side).to(**place)
    target = torch.randn(batch, outputs, device=device)
    forward = torch.compile(model) if compiled else model
    optimizer = torch.optim.Adagrad(model.parameters(), 5e-4)

    def step():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=gpu):
            loss = ((forward(crops).float() - target) ** 2).sum(1).mean()
        loss.backward()
        optimizer.step()
        return loss

    def seconds(count):
        began = time.perf_counter()
        for _ in range(count):
            loss = step()
        loss.item()  # waits
        return (time.perf_counter() - began) / count

    for _ in range(3):
        once = seconds(1)
    name = f"PyTorch {torch.__version__}" + (", compiled" if compiled else "")
    return gpu, {name: seconds(max(1, round(SECONDS / once)))}


def _network(layers, side, outputs):
    import torch
    from torch import nn

    modules, before = [], 3
    for filters, kernel, stride, normalize, pool in layers:
        padding = (kernel - stride + 1) // 2  # what SAME adds in all, halved
        modules += [nn.Conv2d(before, filters, kernel, stride, padding), nn.ReLU()]
        # PyTorch divides alpha by the size; TensorFlow does not.
        modules += [nn.LocalResponseNorm(5, 5e-4, 0.75, 2.0)] if normalize else []
        modules += [nn.MaxPool2d(3, 2)] if pool else []
        before = filters
    modules += [nn.Flatten(), nn.LazyLinear(4096), nn.ReLU(), nn.Dropout(0.6)]
    modules += [nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(0.6)]
    network = nn.Sequential(*modules, nn.Linear(4096, outputs))
    network(torch.zeros(1, 3, side, side))  # gives the lazy layer its size
    return network
