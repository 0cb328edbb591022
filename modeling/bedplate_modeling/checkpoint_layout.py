"""The names a checkpoint is made of: its files, and the architectures it may say it is.

Apart from ``checkpoints``, because a process that only takes checkpoints in needs these names and no torch.
"""

from __future__ import annotations

WEIGHTS, CONFIG, SIGNATURE = "model.safetensors", "config.json", "signature.json"
FILES = (WEIGHTS, CONFIG, SIGNATURE)
FOUNDATION, EXPERT = "hstu-foundation", "fm-expert"
