"""SIGTERM reaches a process whose main thread is inside native code and does not come back."""

from __future__ import annotations

import subprocess
import sys

PATIENCE_SECONDS = 60
# A mutex that its holder locks again: no signal wakes who waits for it, and no Python runs in that thread.
STUCK = """
import ctypes, signal
from bedplate_workers.stopping import Stopping

signal.signal(signal.SIGTERM, lambda *_: None)  # as Celery does: it would look later, and never does
Stopping(0.2, lambda: print("given back", flush=True)).watch()
mutex = ctypes.create_string_buffer(128)
library = ctypes.CDLL(None)
library.pthread_mutex_lock(mutex)
print("stuck", flush=True)
library.pthread_mutex_lock(mutex)
"""


def test_a_process_stuck_in_native_code_gives_back_and_ends() -> None:
    process = subprocess.Popen([sys.executable, "-c", STUCK], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "stuck\n"
    process.terminate()
    assert process.communicate(timeout=PATIENCE_SECONDS)[0] == "given back\n"
    assert process.returncode == 0
