"""What a foundation configuration is worth on MovieLens-1M: train on the first part, measure on the last.

Not part of ``make bench``: it downloads MovieLens-1M (for its terms see ``bedplate demo``), trains minutes.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import pyarrow as pa

from bedplate_modeling.config import FoundationConfig
from bedplate_modeling.events import Catalogue, Events
from bedplate_modeling.metrics import auc, normalized_entropy
from bedplate_modeling.requests import TaeRequest
from bedplate_modeling.runtime import FoundationRuntime
from bedplate_modeling.training import TrainingProgress, train_foundation
from bedplate_services.demo import movielens
from bedplate_services.demo.foundations import events_of
from bedplate_services.demo.worlds import cut_pages

SMOOTHING = 20.0


def main() -> None:
    options = _parser().parse_args()
    world = movielens.read(movielens.fetch(movielens.default_cache()))
    cuts, times = world.cuts(), world.times()
    last = world.window(cuts.training_end, cuts.end)
    train_end = int(times[int(options.share * len(times))])
    train = world.window(cuts.start, train_end)
    if options.item_rate:
        prediction = item_rate(world.window(cuts.start, cuts.training_end), last)
        _report("item's smoothed rate", last["label"].to_numpy(), prediction, 0.0)
        return
    config = FoundationConfig.small(**dict(map(_setting, options.set)))
    began = time.process_time()
    model = train_foundation(
        events_of(train), Catalogue.from_items(world.items), config, seed=options.seed, progress=_watch
    )
    seconds = time.process_time() - began
    label, prediction = evaluate(FoundationRuntime(model), events_of(world.events), last)
    name = " ".join([f"first {options.share:.0%}", *options.set])
    _report(name, label, prediction, seconds)


def evaluate(runtime: FoundationRuntime, events: Events, last: pa.Table) -> tuple[Any, Any]:
    """Labels and predictions of ``last``, page by page as in serving: history strictly before the page."""
    items, surfaces = last["item"].to_pylist(), np.asarray(last["surface"].to_pylist())
    requests, rows = [], []
    for page in cut_pages(last):
        at_ms = int(page.at.timestamp() * 1000)
        history = events.history(page.user, at_ms, runtime.max_history)
        for surface in np.unique(surfaces[page.rows]).tolist():
            shown = page.rows[surfaces[page.rows] == surface]
            candidates = [items[row] for row in shown]
            requests.append(TaeRequest(page.user, surface, at_ms, candidates, history))
            rows.append(shown)
    predictions = [result.prediction_M for result in runtime.tae(requests)]
    return last["label"].to_numpy()[np.concatenate(rows)], np.concatenate(predictions)


def item_rate(before: pa.Table, last: pa.Table) -> Any:
    """Each item's share of positive labels so far, drawn towards the overall share by SMOOTHING events."""
    overall = float(before["label"].to_numpy().mean())
    sums: dict[str, list[float]] = {}
    for item, label in zip(before["item"].to_pylist(), before["label"].to_pylist(), strict=True):
        entry = sums.setdefault(item, [SMOOTHING * overall, SMOOTHING])
        entry[0] += label
        entry[1] += 1
    known = {item: positive / count for item, (positive, count) in sums.items()}
    return np.asarray([known.get(item, overall) for item in last["item"].to_pylist()])


def _report(name: str, label: Any, prediction: Any, seconds: float) -> None:
    ne, area = normalized_entropy(label, prediction), auc(label, prediction)
    print(f"| {name} | {ne:.4f} | {area:.4f} | {seconds:.0f} |", flush=True)


def _watch(progress: TrainingProgress) -> None:
    share = progress.done / progress.total
    print(f"\r{share:4.0%}, {progress.rows_per_second:,.0f} rows/s", end="\r", flush=True)


def _setting(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    kind = type(getattr(FoundationConfig(), name))
    return name, kind(value)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ablation",
        description=__doc__,
        epilog="example: python -m benchmarks.ablation --share 0.6 --set epochs=2 --set variant=research",
    )
    parser.add_argument("--share", type=float, default=0.6, help="train on this first share of the events")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="of FoundationConfig"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--item-rate", action="store_true", help="the baseline that knows the item alone")
    return parser


if __name__ == "__main__":
    main()
