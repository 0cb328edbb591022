"""The models of the Foundation-Expert paradigm: training, checkpoints, metrics, inference.

Import from the submodules: ``config``, ``events``, ``training``, ``expert_training``, ``checkpoints``,
``runtime``, ``metrics``. Nothing here knows a database or HTTP.
"""

import os

# OpenMP's threads spin while they wait for each other. On cores shared with other processes they spin away
# the very time the others need to finish; asleep they cost microseconds. Set before torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
