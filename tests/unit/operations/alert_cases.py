"""For each alert: what a platform with its fault tells, what a sound one tells, and after how many minutes it
must have fired. Values are in Prometheus' notation, one a minute: ``0+60x30`` begins at 0 and grows by 60.
"""

from __future__ import annotations

Series = dict[str, str]
Case = tuple[Series, Series, int]

_LOOKUP = "/v1/spaces/{reference}/{space}/lookup"
_TAE = "/v1/tae"
_SPACE = '{space="core@7/item"}'
_NOTHING: Series = {"up": "1x60"}


def _requests(service: str, ok: str, failed: str) -> Series:
    name = f"bedplate_{service}_requests_total"
    return {
        f'{name}{{instance="a",method="POST",route="/x",status="200"}}': ok,
        f'{name}{{instance="a",method="POST",route="/x",status="503"}}': failed,
    }


def _errors(service: str) -> Case:
    return _requests(service, "0+600x30", "0+60x30"), _requests(service, "0+600x30", "0x30"), 20


def _seconds(service: str, route: str, slow: str, edge: str) -> Series:
    """``slow`` requests a minute of 100 take longer than ``edge``, and all end within 5 s."""
    bucket = f'bedplate_{service}_request_seconds_bucket{{method="POST",route="{route}",le='
    return {f'{bucket}"{edge}"}}': slow, f'{bucket}"5.0"}}': "0+100x40", f'{bucket}"+Inf"}}': "0+100x40"}


def _gave_up(values: str) -> Series:
    labels = '{operation="get",reason="timeout",ending="gave_up"}'
    return {f"bedplate_worker_object_store_faults_total{labels}": values}


def _snapshots(reader: int, published: int) -> Series:
    return {
        'bedplate_reader_snapshot{space="core@7/item",process="host/7"}': f"{reader}x60",
        f"bedplate_space_snapshot{_SPACE}": f"{published}x60",
    }


def _compaction(pending: int, rows: int) -> Series:
    return {
        f"bedplate_space_pending_rows{_SPACE}": f"{pending}x90",
        f"bedplate_space_snapshot_rows{_SPACE}": f"{rows}x90",
    }


def _queue(due: int, leased: int) -> Series:
    return {
        'bedplate_queue_due_partitions{queue="gpu"}': f"{due}x60",
        'bedplate_queue_leased_partitions{queue="gpu"}': f"{leased}x60",
    }


def _partitions(done: str, failed: str, buried: str) -> Series:
    name = 'bedplate_worker_partitions_total{kind="embed",stage="embed",ending='
    return {f'{name}"done"}}': done, f'{name}"failed"}}': failed, f'{name}"buried"}}': buried}


def _rows(missing: str) -> Series:
    route = f'{{route="{_LOOKUP}"}}'
    return {
        f"bedplate_api_rows_total{route}": "0+6000x60",
        f"bedplate_api_rows_missing_total{route}": missing,
    }


def _models(loaded: int) -> Series:
    return {
        'bedplate_inference_models{instance="a",state="wanted"}': "3x40",
        'bedplate_inference_models{instance="a",state="loaded"}': f"{loaded}x40",
    }


def _gauge(name: str, labels: str, faulty: str, sound: str, minutes: int) -> Case:
    return {f"{name}{labels}": faulty}, {f"{name}{labels}": sound}, minutes


CASES: dict[str, Case] = {
    "BedplateApiGone": (_NOTHING, _requests("api", "0+1x30", "0x30"), 10),
    "BedplateApiErrors": _errors("api"),
    "BedplateInferenceErrors": _errors("inference"),
    "BedplateStoreNodeErrors": _errors("store_node"),
    "BedplateReadsSlow": (
        _seconds("api", _LOOKUP, "0+95x40", "0.1"),
        _seconds("api", _LOOKUP, "0+100x40", "0.1"),
        30,
    ),
    "BedplateInferenceSlow": (
        _seconds("inference", _TAE, "0+95x40", "1.0"),
        _seconds("inference", _TAE, "0+100x40", "1.0"),
        30,
    ),
    "BedplateModelsNotLoaded": (_models(2), _models(3), 20),
    "BedplateObjectStoreFaults": (_gave_up("0+1x30"), _gave_up("5x30"), 20),
    "BedplateSnapshotOld": _gauge(
        "bedplate_alias_snapshot_timestamp_seconds",
        '{alias="core@production",space="item"}',
        "-180000x30",
        "0x30",
        5,
    ),
    "BedplateReaderBehindSnapshot": (_snapshots(3, 4), _snapshots(4, 4), 30),
    "BedplateReaderBehindWrites": _gauge(
        "bedplate_reader_behind_writes", '{space="core@7/item",process="host/7"}', "500x30", "20x30", 15
    ),
    "BedplateCompactionBehind": (_compaction(60_000, 100_000), _compaction(60_000, 1_000_000), 60),
    "BedplateRecallLow": _gauge(
        "bedplate_space_recall_ratio", '{space="core@7/item",neighbours="10"}', "0.8x30", "0.95x30", 5
    ),
    "BedplateCoverageLow": _gauge(
        "bedplate_api_space_coverage_ratio", '{space="core@7/item",entity="item"}', "0.7x60", "0.99x60", 45
    ),
    "BedplateKeysMissing": (_rows("0+3000x60"), _rows("0+60x60"), 45),
    "BedplateReconcilerGone": (_NOTHING, _queue(0, 0), 10),
    "BedplateQueueWaits": _gauge(
        "bedplate_queue_oldest_due_seconds", '{queue="gpu"}', "1000x30", "30x30", 15
    ),
    "BedplateNoWorker": (_queue(5, 0), _queue(5, 2), 20),
    "BedplateJobFailed": (
        _partitions("0+10x30", "0x30", "0x10 1x20"),
        _partitions("0+10x30", "0+1x30", "0x30"),
        12,
    ),
    "BedplateWorkFails": (
        _partitions("0+10x60", "0+10x60", "0x60"),
        _partitions("0+100x60", "0+1x60", "0x60"),
        45,
    ),
    "BedplateLeasesExpire": _gauge(
        "bedplate_reconciler_partitions_total", '{event="expired"}', "0+1x60", "0x30 1x30", 40
    ),
    "BedplateChoreFails": _gauge(
        "bedplate_reconciler_chores_total",
        '{chore="drain the outbox",result="failed"}',
        "0+2x30",
        "0x10 1x20",
        15,
    ),
}
