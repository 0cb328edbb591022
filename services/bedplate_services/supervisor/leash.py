"""``python -m bedplate_services.supervisor.leash FD NICENESS MODULE [ARGUMENTS...]``: run a module on
a leash, with so much less of the processor where others want it; with niceness 0 it answers requests, and has
the processor as soon as it wakes up.

FD is the reading end of a pipe whose only writing end the supervisor holds and never writes to. The kernel
closes that end however the supervisor ends, kill -9 included, and the read below returns. PR_SET_PDEATHSIG
would do the same on Linux alone, and it fires when the *thread* that started the child ends.
"""

from __future__ import annotations

import contextlib
import os
import runpy
import signal
import sys
import threading
from pathlib import Path

from bedplate_services.supervisor.time_slices import ask_for_short_slices

_AUTOGROUP = Path("/proc/self/autogroup")


def _die_with(descriptor: int) -> None:
    os.read(descriptor, 1)
    # Not SIGTERM: a new platform may start on the same directory at once, and what was
    # acknowledged is durable.
    os.kill(os.getpid(), signal.SIGKILL)


def _stand_back(niceness: int) -> None:
    """Lower this process's priority by ``niceness``."""
    os.nice(niceness)
    # On Linux: when it wakes up, it does not take the processor from who is answering. And a real-time
    # priority of whoever starts the platform, under which niceness means nothing, is not handed on.
    if sys.platform == "linux":
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    # Linux may share the processor out among sessions first, and each child is a session of its own: then
    # niceness counts within the session alone, where nobody else is, unless the session is nice as well.
    # Where there is no such file, or it may not be written, niceness is all there is.
    with contextlib.suppress(OSError):
        _AUTOGROUP.write_text(str(niceness))


def main(arguments: list[str]) -> None:
    descriptor, niceness, module, *rest = arguments
    if int(niceness):
        _stand_back(int(niceness))
    else:
        ask_for_short_slices()
    os.set_inheritable(int(descriptor), False)
    threading.Thread(target=_die_with, args=(int(descriptor),), name="leash", daemon=True).start()
    sys.argv = [module, *rest]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1:])
