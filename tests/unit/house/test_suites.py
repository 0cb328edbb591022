"""Which tests of tests/integration run on one engine only, and why; every other one runs on PostgreSQL too.

Those of ``places``, ``objects`` and ``ground`` (tests/integration/conftest.py) have S3 there as well, and
those of ``broker_url`` (tests/conftest.py) every broker.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[3]
SUITES = "tests/integration/"

WITHOUT_AN_ENGINE = {
    "sdk/test_direct.py": "the client's connections, to a server of the test",
    "sdk/test_direct_tls.py": "the client's connections, to a server of the test",
    "sdk/test_large_answers.py": "the client's connections, to a server of the test",
    "services/test_node_connections.py": "connections to store nodes, which are servers of the test",
    "services/test_problems.py": {
        "test_a_body_over_the_limit_is_refused": "an application of the test",
        "test_a_database_that_is_away_is_unavailable": "an application of the test, and a driver's error",
        "test_a_defect_leaks_nothing": "an application of the test",
        "test_a_refined_class_answers_as_the_nearest_known_one": "the table of errors",
        "test_context_becomes_members": "an application of the test",
        "test_half_an_answer_breaks_the_connection": "an application of the test",
        "test_the_request_id_finds_a_defect_in_the_log": "an application of the test",
        "test_the_table_knows_every_code": "the table of errors",
    },
    "store_core/test_readers.py": {"test_the_reference_of_a_space_is_read_back": "parsing"},
    "store_records/test_events.py": {"test_batches_have_a_size": "refused before any database is asked"},
    "store_records/test_ledger.py": {"test_retries_wait_longer_each_time": "arithmetic"},
    "supervisor/test_ports.py": "ports of this machine",
    "supervisor/test_supervision.py": "processes of this machine",
    "workers/test_checkpoints.py": {
        "test_the_model_not_used_for_longest_makes_room": "a cache in memory",
    },
    "workers/test_stopping.py": "a signal to a process",
}

ON_FILES = {
    "databases/test_migrations_command.py": {
        "test_help_has_an_example": "text",
        "test_no_process_starts_on_an_older_schema": "that it asks; test_revisions.py has the answers",
        "test_the_command_says_what_is_wrong": "no database is reached",
        "test_waiting_outlives_a_server_that_does_not_answer_yet": "no database is reached",
    },
    "faults/test_full_disk.py": "the disk of the process is full; that of a server is a fault of the server",
    "services/test_bulk_reads.py": {
        "test_what_is_no_downloaded_space": "a folder of the SDK's",
        "test_whatever_the_cut_no_row_twice_none_lost": "every cut there is, of a stream of the same bytes",
    },
    "services/test_bulk_routes.py": {
        "test_a_range_behind_the_end": "the API's own files; an S3 server hands out its own",
        "test_ranges_of_an_object": "the API's own files; an S3 server hands out its own",
        "test_where_files_lie_is_told_only_where_the_settings_say_so": "what lies in S3 has no path",
    },
    "services/test_lane.py": "how bytes come over a socket",
    "services/test_openapi.py": "text of the code",
    "services/test_tracing_off.py": "which modules a process loads",
    "services/test_training_routes.py": {
        "test_signed_urls_cannot_be_forged_and_end": "the API's own files; S3 signs its own URLs",
    },
    "store_core/test_filtered_searches.py": {
        "test_the_recall_is_kept_whatever_share_passes": "arithmetic on mapped files, and minutes of it",
    },
}

ON_A_BROKER_ALONE = {
    "workers/test_broker.py": "a broker, of every kind",
}


def collected() -> dict[str, dict[str, list[str]]]:
    """Of each module of the suites: its tests, and of each the parameters of its runs."""
    command = [sys.executable, "-m", "pytest", SUITES, "--collect-only", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for line in done.stdout.splitlines():
        if match := re.fullmatch(rf"{SUITES}(\S+\.py)::(\w+)(?:\[(.*)\])?", line):
            module, test, parameters = match.groups()
            found[module][test].append(parameters or "")
    return found


def test_every_test_runs_on_postgresql_too_or_is_named_here_with_the_reason() -> None:
    named = {**WITHOUT_AN_ENGINE, **ON_FILES, **ON_A_BROKER_ALONE}
    for module, tests in collected().items():
        alone = {test for test, runs in tests.items() if not any("postgresql" in run for run in runs)}
        reasons = named.pop(module, {})
        expected = set(reasons) if isinstance(reasons, dict) else set(tests)
        assert alone == expected, f"{SUITES}{module}: those on one engine, against those named in this file"
    assert not named, "named in this file, and no longer there"
