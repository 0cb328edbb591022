"""Jobs of kind "embed": run a foundation over items or users, index the vectors, publish the snapshot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import batched
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bedplate.errors import KeyTypeMismatch
from bedplate_modeling.events import History
from bedplate_modeling.requests import UserRequest
from bedplate_modeling.runtime import FoundationRuntime
from bedplate_store import items, segments, timelines
from bedplate_store.embedding_jobs import EmbedPlan
from bedplate_store.leases import Claim
from bedplate_workers.handlers import Finish, Progress, Workplace, result

# Fixed, because the size of a batch changes the rounding, and a partition done twice must give the same bytes.
ITEMS_AT_ONCE = 4_096
USERS_AT_ONCE = 256
