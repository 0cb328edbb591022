"""The main job, step by step, in the order in which it would happen."""

from __future__ import annotations

from typing import Any

import pyarrow.compute as pc

from bedplate import Client
from bedplate.errors import InvalidRequest
from bedplate.wire.registry import Version
from bedplate_modeling.config import FoundationConfig
from bedplate_modeling.events import Events
from bedplate_modeling.foundation import FoundationModel
from bedplate_modeling.runtime import FoundationRuntime, UserRequest
from bedplate_services.demo import foundations, latency
from bedplate_services.demo.evaluation import SurfaceTeam
from bedplate_services.demo.experts import variants
from bedplate_services.demo.progress import Steps
from bedplate_services.demo.reading import AliasReader
from bedplate_services.demo.replay import Replay
from bedplate_services.demo.report import Result
from bedplate_services.demo.stage import FOUNDATION, Cast, create_cast, send_events, send_items
from bedplate_services.demo.worlds import Cuts, World, from_microseconds

FIRST, SECOND = f"{FOUNDATION}@1", f"{FOUNDATION}@2"
PRODUCTION = f"{FOUNDATION}@production/item"
RANK_EVERY = 100
"""One request in so many of the evaluation asks for a ranking instead of the TAE alone."""
READ_KEYS = 100
ROUNDS_BEFORE_AND_AFTER = 50


SMALL_WORLD = 200_000
"""Events below which the presets, made for MovieLens-1M, would take too few steps to learn anything."""


def foundation_configurations(world: World) -> tuple[FoundationConfig, FoundationConfig]:
    """The foundation's two versions: the first sees a shorter window, less often."""
    if len(world.events) >= SMALL_WORLD:
        return FoundationConfig.preview(), FoundationConfig.small()
    small = FoundationConfig(
        dim=32, heads=1, layers=1, max_history=64, batch_tokens=500, learning_rate=5e-3, dropout=0.0
    )
    return small.with_changes(epochs=5), small.with_changes(epochs=8)


def expert_changes(world: World) -> dict[str, Any]:
    """What every variant's expert has in common, where it is not as preset."""
    if len(world.events) >= SMALL_WORLD:
        return {}
    return {"epochs": 8, "batch_rows": 256, "learning_rate": 5e-3}


FEWEST_ROWS = 50
TOO_FEW = f"an expert needs {FEWEST_ROWS} events of both labels in its training and its evaluation window."


def measurable_surfaces(world: World, cuts: Cuts) -> list[str]:
    """The surfaces an expert can be trained and evaluated on.

    Raises:
        InvalidRequest: there are none.
    """
    windows = [
        world.window(start, end)
        for start, end in ((cuts.foundation_end, cuts.training_end), (cuts.training_end, cuts.end))
    ]

    def enough(surface: str) -> bool:
        labels = [part.filter(pc.equal(part["surface"], surface))["label"].drop_null() for part in windows]
        return all(len(one) >= FEWEST_ROWS and pc.count_distinct(one).as_py() == 2 for one in labels)

    found = [surface for surface in world.surfaces if enough(surface)]
    if not found:
        raise InvalidRequest(f"No surface of {world.name} can be measured: {TOO_FEW}")
    return found


class Loop:
    """One run over one world. Every step talks to the platform through the SDK alone."""

    def __init__(self, client: Client, world: World, seeds: int, steps: Steps) -> None:
        self.client, self.world, self.seeds, self.steps = client, world, seeds, steps
        self.cuts = world.cuts()
        self.variants = variants(FIRST, SECOND)
        titles = {variant.key: variant.title for variant in self.variants}
        self.result = Result(world.name, seeds, (FIRST, SECOND), titles, world.surface_rows())
        self.models: list[FoundationModel] = []
        self.measured = measurable_surfaces(world, self.cuts)

    def run(self) -> Result:
        """All of it."""
        for surface in sorted(set(self.world.surfaces) - set(self.measured)):
            self.steps.say(f"{surface} is replayed but not measured: {TOO_FEW}")
        cast = self._stage()
        first, second = foundation_configurations(self.world)
        self._publish_foundation(cast.foundation, first, self.cuts.short_end)
        data = self._publish_foundation(cast.foundation, second, self.cuts.foundation_end)
        self._bare_forward(data.events)
        self._promote(cast.foundation)
        teams = self._train_experts(cast)
        self._evaluate(cast, teams)
        self._measure_latency(cast.foundation)
        return self.result

    def _stage(self) -> Cast:
        surfaces = self.world.surfaces
        with self.steps.step("1 teams, tokens and surfaces", len(surfaces)) as bar:
            cast = create_cast(self.client, surfaces, bar.advance)
        with self.steps.step("1 catalogue through the REST API", len(self.world.items)) as bar:
            send_items(self.client, self.world, bar.advance)
        rows = len(self.world.window(self.cuts.start, self.cuts.foundation_end))
        with self.steps.step("1 events through the REST API", rows) as bar:
            send_events(self.client, self.world, self.cuts.start, self.cuts.foundation_end, bar.advance)
        return cast

    def _publish_foundation(self, client: Client, config: FoundationConfig, end: int) -> foundations.Data:
        """Train on all events before ``end``, publish and embed; returns what it was trained on."""
        number = len(self.models) + 1
        name = f"{FOUNDATION}@{number}"
        with self.steps.step(f"2 reading the events for {name}", None):
            data = foundations.read_data(client, self.cuts.start, end)
        with self.steps.step(f"2 training {name}", len(data.events) * config.epochs) as bar:
            model = foundations.train(data, config, seed=number, advance=bar.advance)
        self.models.append(model)
        with self.steps.step(f"2 publishing {name}", None) as bar:
            version = foundations.publish(
                client,
                model,
                bar,
                window=(self.cuts.start, end),
                parent=number - 1 or None,
                description=f"{config.variant} HSTU on the first {len(data.events):,} events",
            )
        self._embed(client, version)
        if number == 1:
            client.aliases.move(FOUNDATION, "production", 1, expected=None, reason="the first version")
        return data

    def _embed(self, client: Client, version: Version) -> None:
        as_of = from_microseconds(self.cuts.foundation_end)
        for space in foundations.SPACES:
            reference = f"{version.reference}/{space}"
            with self.steps.step(f"3 embedding {reference}", None) as bar:
                done = foundations.embed(client, reference, as_of, bar)
            self.result.index.append(done)
            if space == "user":
                self.result.embed_rows_per_second = done.rows / done.seconds

    def _bare_forward(self, events: Events) -> None:
        """The users of the last embedding by the model alone, in this process, their histories in memory."""
        runtime = FoundationRuntime(self.models[-1])
        at_ms = -(-self.cuts.foundation_end // 1000)
        users = sorted(events.user.keys)
        with self.steps.step("3 the bare model on the same users", len(users)) as bar:
            requests = [
                UserRequest(user, at_ms, events.history(user, at_ms, runtime.max_history)) for user in users
            ]
            self.result.forward_rows_per_second = latency.forward_rate(runtime, requests, bar.advance)

    def _promote(self, client: Client) -> None:
        """``production`` moves from 1 to 2 while a client keeps reading; 1 stays active as ``previous``."""
        keys = list(self.world.items)[:READ_KEYS]
        expected = {v: client.spaces.lookup(f"{v}/item", keys).vectors for v in (FIRST, SECOND)}
        client.aliases.move(FOUNDATION, "previous", 1, expected=None, reason="kept for its experts")
        title = "3 promoting core@2 under a reading client"
        with (
            self.steps.step(title, 2 * ROUNDS_BEFORE_AND_AFTER) as bar,
            AliasReader(client, PRODUCTION, expected, keys) as reader,
        ):
            reader.wait_for(FIRST, ROUNDS_BEFORE_AND_AFTER)
            bar.advance(ROUNDS_BEFORE_AND_AFTER)
            client.aliases.move(FOUNDATION, "production", 2, expected=1, reason="trained on more")
            reader.wait_for(SECOND, ROUNDS_BEFORE_AND_AFTER)
        self.result.alias_reads = dict(reader.answers)
        self.result.alias_failures = reader.failures

    def _train_experts(self, cast: Cast) -> list[SurfaceTeam]:
        start, end = self.cuts.foundation_end, self.cuts.training_end
        self._replay(cast, "train", start, end, rank_every=0)
        window = (from_microseconds(start), from_microseconds(end))
        dim, changes = self.models[-1].config.dim, expert_changes(self.world)
        with self.steps.step("5 reading the past and the catalogue", None):
            features = {item.key: item.features for item in self.client.items.scan()}
            past = self.client.events.scan(start=from_microseconds(self.cuts.start), end=window[1])
            past = past.take(pc.sort_indices(past, sort_keys=[("event_time", "ascending")]))
        teams = []
        logged = len(self.world.window(start, end))
        total = self.seeds * (logged * (len(self.variants) - 1) + len(past))
        with self.steps.step("5 training experts", total) as bar:
            for surface in self.measured:
                client = cast.surfaces[surface]
                team = SurfaceTeam(surface, client, features, [FIRST, SECOND], dim, changes)
                bar.stage(f"{surface}, training set")
                training_set, data = team.training_set(f"{surface}-train", *window)
                team.train(data, past, self.variants, self.seeds, bar)
                team.publish([v for v in self.variants if v.inputs == "tae"], training_set)
                teams.append(team)
        return teams

    def _evaluate(self, cast: Cast, teams: list[SurfaceTeam]) -> None:
        start, end = self.cuts.training_end, self.cuts.end
        replay = self._replay(cast, "eval", start, end, rank_every=RANK_EVERY)
        window = (from_microseconds(start), from_microseconds(end))
        scored = len(teams) * self.seeds * len(self.variants)
        with self.steps.step("6 evaluating on the last part", scored) as bar:
            for team in teams:
                bar.stage(f"{team.surface}, evaluation set")
                _, data = team.training_set(f"{team.surface}-eval", *window)
                row = team.evaluate(data, self.variants, window, bar)
                if self.world.bayes_ne is not None:
                    row.bayes_ne = self.world.bayes_ne[team.surface]
                self.result.surfaces.append(row)
                count, difference = team.served_difference(data, self.variants[-1], replay.ranked)
                self.result.served_sample += count
                self.result.served_difference = max(self.result.served_difference, difference)

    def _replay(self, cast: Cast, prefix: str, start: int, end: int, *, rank_every: int) -> Replay:
        replay = Replay(self.client, cast.surfaces, self.world, prefix, (FIRST, SECOND))
        title = f"4 replaying requests ({prefix})"
        with self.steps.step(title, len(self.world.window(start, end))) as bar:
            replay.run(start, end, bar.advance, rank_every=rank_every)
        with self.steps.step(f"4 sealing the log ({prefix})", None):
            self.client.impressions.seal()
        seconds = self.steps.seconds[title]
        self.result.replay[f"{prefix}: impressions, TAE of both versions"] = replay.impressions
        self.result.replay[f"{prefix}: impressions a second, log, outcomes and events included"] = (
            replay.impressions / seconds
        )
        return replay

    def _measure_latency(self, client: Client) -> None:
        keys = list(self.world.items)
        with self.steps.step("6 measuring latency", 2) as bar:
            self.result.latency["lookup of 100 keys"] = latency.lookup(client, f"{SECOND}/item", keys)
            bar.advance(1)
            self.result.latency["search, top 10"] = latency.search(client, f"{SECOND}/item", keys)
