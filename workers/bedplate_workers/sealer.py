"""``python -m bedplate_workers.sealer``: seals what the inference service beside it spools.

On one machine the reconciler does so. In a cluster it cannot see the spool of another pod, so this runs in
the pod of each inference service (a sidecar of the chart), and seals the last of it once the service ended.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from types import FrameType

from bedplate.databases import exit_if_refused
from bedplate_store.database import Database
from bedplate_store.impressions import ImpressionLog
from bedplate_workers.clocks import system_clock
from bedplate_workers.log_sealing import LogSealer
from bedplate_workers.logging import configure, get_logger
from bedplate_workers.pulse import HeartbeatFile
from bedplate_workers.reconciler import SEAL_SECONDS, Chore, run
from bedplate_workers.settings import WorkerSettings
from bedplate_workers.storage import open_objects

_EXAMPLE = """
example:
  BEDPLATE_SPOOL_DIR=/var/lib/bedplate/spool python -m bedplate_workers.sealer
"""
_log = get_logger(__name__)


def main(arguments: Sequence[str]) -> int:
    """Seal once a second until SIGTERM or SIGINT, then all that is left; 1: it could not be sealed."""
    argparse.ArgumentParser(
        prog="python -m bedplate_workers.sealer",
        description="Store what the inference service spools, and the last of it when told to stop.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args(arguments)
    settings = WorkerSettings()
    configure(settings.log_level)
    stop = _stop_signal()
    database = Database(settings.store_database_url, settings.database_limits)
    exit_if_refused(database)
    objects = open_objects(settings)
    sealer = LogSealer(settings.spool_dir, objects, database)
    chore = Chore("seal the impression log", SEAL_SECONDS, lambda: sealer.seal(system_clock()))
    run([chore], stop, beat=HeartbeatFile(settings.heartbeat_file).beat)
    log = ImpressionLog(settings.spool_dir, objects, database)
    sealed = seal_the_rest(lambda: log.seal(system_clock()).requests)
    database.close()
    return 0 if sealed else 1


def seal_the_rest(seal: Callable[[], int]) -> bool:
    """Seal everything, however young; False where that failed, and the spool is what it was."""
    try:
        requests = seal()
    except Exception as error:  # noqa: BLE001  # the process ends; whoever reads its log must know what stays
        _log.error("what is spooled could not be sealed and stays in the spool", exc_info=error)
        return False
    _log.info("sealed the rest", requests=requests)
    return True


def _stop_signal() -> threading.Event:
    stop = threading.Event()

    def handle(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handle)
    return stop


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
