"""The demo's result: one document, written as JSON and printed as tables."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from rich.console import Console
from rich.table import Table

from bedplate_modeling.metrics import transfer_ratio
from bedplate_registry.transfer_ratios import SIGNIFICANT_GAIN
from bedplate_services.demo.experts import Score
from bedplate_services.demo.foundations import Embedded
from bedplate_services.demo.latency import Latency
from bedplate_services.demo.progress import in_words


@dataclass
class SurfaceResult:
    """One row of the table: evaluation rows, their label rate, and every seed's scores of every variant.

    Variant ``a`` is the base rate, a constant prediction of the rate of the very rows that are evaluated: it
    has one score, as no seed plays a part in it.

    ``vectors_found`` is the share of rows whose user and item both have a vector in the snapshot, and
    ``where_found`` the scores of the first seed on those rows alone.
    """

    surface: str
    rows: int
    label_rate: float
    scores: dict[str, list[Score]] = field(default_factory=dict)
    foundation: dict[str, Score] = field(default_factory=dict)
    vectors_found: float = 0.0
    where_found: dict[str, Score] = field(default_factory=dict)
    bayes_ne: float | None = None

    def ne(self, variant: str) -> float:
        return mean(score.ne for score in self.scores[variant])

    def auc(self, variant: str) -> float:
        return mean(score.auc for score in self.scores[variant])

    def spread(self, variant: str) -> float:
        """Standard deviation of the NE over the seeds; 0 for one seed."""
        values = [score.ne for score in self.scores[variant]]
        return stdev(values) if len(values) > 1 else 0.0

    def transfer(self, first: str, second: str) -> float | None:
        """TR of moving the expert from the first foundation version to the second; None without a gain."""
        before, after = self.foundation[first].ne, self.foundation[second].ne
        if before - after <= SIGNIFICANT_GAIN * before:
            return None
        return transfer_ratio(self.ne("d"), self.ne("e"), before, after)


@dataclass
class Result:
    """Everything the demo measured."""

    world: str
    seeds: int
    versions: tuple[str, str]
    variants: dict[str, str]
    surface_rows: dict[str, int]
    """Surface -> events in the whole world."""
    surfaces: list[SurfaceResult] = field(default_factory=list)
    index: list[Embedded] = field(default_factory=list)
    embed_rows_per_second: float = 0.0
    forward_rows_per_second: float = 0.0
    latency: dict[str, Latency] = field(default_factory=dict)
    replay: dict[str, Any] = field(default_factory=dict)
    alias_reads: dict[str, int] = field(default_factory=dict)
    alias_failures: list[str] = field(default_factory=list)
    served_sample: int = 0
    served_difference: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)
    """Step -> wall-clock seconds."""
    total_seconds: float = 0.0
    """From the start of the process, steps and all between them, to the printing of this."""

    def to_json(self) -> dict[str, Any]:
        document = asdict(self)
        for row, surface in zip(document["surfaces"], self.surfaces, strict=True):
            row["mean_ne"] = {key: surface.ne(key) for key in surface.scores}
            row["ne_spread"] = {key: surface.spread(key) for key in surface.scores}
            row["mean_auc"] = {key: surface.auc(key) for key in surface.scores}
            row["transfer_ratio"] = surface.transfer(*self.versions)
        return document

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.to_json(), indent=2, sort_keys=True) + "\n", encoding="utf-8")

    def print(self, console: Console) -> None:
        for table in (self.ne_table(), self.auc_table(), self.platform_table()):
            console.print(table)
        console.print(self.vectors_found())
        outside = self.total_seconds - sum(self.seconds.values())
        console.print(f"Finished in {in_words(self.total_seconds)}, {outside:.1f} s of it outside the steps.")
        console.print(
            "TR: transfer ratio of the expert's move from (d) to (e), arXiv 2508.02929; - without a gain"
        )

    def vectors_found(self) -> str:
        """For how many rows (c) had something to read, and what it was worth there."""
        parts = []
        for row in self.surfaces:
            there = "; ".join(f"({key}) {one.ne:.4f}" for key, one in row.where_found.items())
            parts.append(f"{row.surface} {row.vectors_found:.0%}" + (f", NE there {there}" if there else ""))
        return "(c) finds both vectors for this share of the rows: " + " | ".join(parts)

    def ne_table(self) -> Table:
        """NE of every variant, one column per surface."""
        table = self._table("NE (lower is better, 1 is the base rate)")
        table.add_row("events in all", *(f"{self.surface_rows[row.surface]:,}" for row in self.surfaces))
        table.add_row("rows evaluated", *(f"{row.rows:,}" for row in self.surfaces))
        table.add_row("(a) base rate", *(f"{row.ne('a'):.4f}" for row in self.surfaces))
        for key, title in self.variants.items():
            table.add_row(f"({key}) {title}", *(f"{row.ne(key):.4f}" for row in self.surfaces))
        for version in self.versions:
            table.add_row(
                f"{version} itself", *(f"{row.foundation[version].ne:.4f}" for row in self.surfaces)
            )
        for key in ("b", "b+"):
            changes = (100 * (row.ne("e") / row.ne(key) - 1) for row in self.surfaces)
            table.add_row(f"(e) against ({key})", *(f"{change:+.1f} %" for change in changes))
        if self.seeds > 1:
            for key in self.variants:
                table.add_row(f"spread of ({key})", *(f"{row.spread(key):.4f}" for row in self.surfaces))
        ratios = (row.transfer(*self.versions) for row in self.surfaces)
        table.add_row("TR", *("-" if ratio is None else f"{ratio:.2f}" for ratio in ratios))
        return table

    def auc_table(self) -> Table:
        """AUC of every variant, one column per surface."""
        table = self._table("AUC")
        table.add_row("(a) base rate", *(f"{row.auc('a'):.4f}" for row in self.surfaces))
        for key, title in self.variants.items():
            table.add_row(f"({key}) {title}", *(f"{row.auc(key):.4f}" for row in self.surfaces))
        for version in self.versions:
            table.add_row(
                f"{version} itself", *(f"{row.foundation[version].auc:.4f}" for row in self.surfaces)
            )
        return table

    def _table(self, metric: str) -> Table:
        table = Table(title=f"{metric}, last part of {self.world}, mean of {self.seeds} seed(s)")
        table.add_column("")
        for row in self.surfaces:
            table.add_column(row.surface, justify="right", no_wrap=True)
        return table

    def platform_table(self) -> Table:
        """Figures of the platform itself, measured in the same run."""
        table = Table("what", "measured", title="The platform")
        for entry in self.index:
            table.add_row(
                f"{entry.reference}: {entry.index_kind} over {entry.rows:,} vectors",
                f"recall@10 {entry.recall_at_10:.4f}",
            )
        share = self.embed_rows_per_second / self.forward_rows_per_second
        table.add_row(
            "users embedded, indexed and published",
            f"{self.embed_rows_per_second:,.0f}/s, {share:.2f} of the bare model "
            f"({self.forward_rows_per_second:,.0f}/s)",
        )
        for what, latency in self.latency.items():
            table.add_row(what, f"p50 {latency.p50_ms:.2f} ms, p99 {latency.p99_ms:.2f} ms")
        for what, value in self.replay.items():
            table.add_row(what, f"{value:,.0f}")
        reads = ", ".join(f"{count:,} from {version}" for version, count in sorted(self.alias_reads.items()))
        table.add_row("reads while the alias moved", f"{reads}; {len(self.alias_failures)} failed or mixed")
        table.add_row(
            f"served scores against off-line ({self.served_sample} answers)",
            f"largest difference {self.served_difference:.1e}",
        )
        return table
