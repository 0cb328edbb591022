"""The device that models run on, tried before it is needed."""

from __future__ import annotations

import sys

import torch


def exit_without(device: str) -> None:
    """End a process that is starting where models cannot run on ``device``, and say what would mend it.

    Nobody is served by one that starts and then fails at each model.
    """
    try:
        torch.empty(1, device=device)
    # PyTorch's own: no such device or driver; a build without CUDA; a backend that it lacks.
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        [reason, *_] = str(error).splitlines()
        sys.exit(
            f"BEDPLATE_DEVICE is {device!r}, and PyTorch {torch.__version__} runs no model there ({reason}). "
            "Set BEDPLATE_DEVICE=cpu, or start this process where it has a GPU, its driver and the PyTorch "
            "for it, which the image worker-gpu holds."
        )
