"""Short time slices: who waits for milliseconds does not wait for the end of somebody's slice.

Linux shares the processor out in slices of a millisecond and more, and looks whether one is over at its
clock's ticks, up to 4 ms apart. From 6.12 on, who has asked for a shorter slice takes the processor at once
when it wakes up, as far as its share of it allows.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys

SLICE_NANOSECONDS = 100_000
"""The least that Linux grants."""
_SYSTEM_CALLS = {"x86_64": 314, "aarch64": 274}


class _Attributes(ctypes.Structure):
    """``struct sched_attr`` of sched_setattr(2), in its first version."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("flags", ctypes.c_uint64),
        ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32),
        ("runtime", ctypes.c_uint64),
        ("deadline", ctypes.c_uint64),
        ("period", ctypes.c_uint64),
    )


def ask_for_short_slices() -> bool:
    """Ask for the shortest slices for this thread and all that it starts; whether the system took it.

    Niceness stays. A process that runs by another policy than the usual one, and a system other than Linux,
    are left as they are; older kernels than 6.12 take it and change nothing.
    """
    number = _SYSTEM_CALLS.get(platform.machine())
    if sys.platform != "linux" or number is None or os.sched_getscheduler(0) != os.SCHED_OTHER:
        return False
    wanted = _Attributes(
        size=ctypes.sizeof(_Attributes),
        policy=os.SCHED_OTHER,
        nice=os.getpriority(os.PRIO_PROCESS, 0),
        runtime=SLICE_NANOSECONDS,
    )
    return bool(ctypes.CDLL(None).syscall(number, 0, ctypes.byref(wanted), 0) == 0)
