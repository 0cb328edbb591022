"""The models of the Foundation-Expert paradigm: training, checkpoints, metrics, inference.

Import from the submodules: ``config``, ``events``, ``training``, ``expert_training``, ``checkpoints``,
``runtime``, ``metrics``. Nothing here knows a database or HTTP.
"""

import os

# OpenMP threads spin while they wait for each other, for hundreds of thousands of turns by default. On cores
# shared with other processes they spin away the very time the others need to finish. A few turns, then sleep,
# are as fast where the cores are one's own. Set before torch is loaded.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
