"""Hyper-parameters of the foundation model and of the experts, with the presets we ship."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, Self, get_args

from bedplate.errors import InvalidRequest

Variant = Literal["research", "production"]
FoundationInputs = Literal["none", "vectors", "tae"]
StorageDtype = Literal["float16", "float32", "int8", "int4"]
MOST_LAYERS = 128


class ConfigInvalid(InvalidRequest):
    """A hyper-parameter is unknown or out of range; the message names it."""

    code = "config_invalid"
    title = "The model configuration is invalid"


class _JsonConfig:
    """Reading and writing of a flat configuration; unknown names are refused, so that a typo cannot pass."""

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Raises ConfigInvalid when a name is unknown or missing, or a value is out of range."""
        known = {field.name for field in fields(cls)}  # type: ignore[arg-type]  # subclasses are dataclasses
        unknown = sorted(set(data) - known)
        if unknown:
            raise ConfigInvalid(f"{cls.__name__} knows no {', '.join(unknown)}")
        try:
            return cls(**data)
        except TypeError as error:
            raise ConfigInvalid(f"{cls.__name__}: {error}") from error

    def to_json(self) -> dict[str, Any]:
        return asdict(self)  # type: ignore[call-overload, no-any-return]  # subclasses are dataclasses


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigInvalid(message)


def _require_counts(config: object, *names: str, least: int = 1) -> None:
    for name in names:
        value = getattr(config, name)
        good = isinstance(value, int) and not isinstance(value, bool) and value >= least
        _require(good, f"{name} must be an integer >= {least}, got {value!r}")


def _require_fractions(config: object, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        good = isinstance(value, int | float) and not isinstance(value, bool) and 0.0 <= value < 1.0
        _require(good, f"{name} must be in [0, 1), got {value!r}")


@dataclass(frozen=True)
class FoundationConfig(_JsonConfig):
    """The foundation model.

    Attributes:
        variant: "research" or "production", see ``hstu``.
        max_history: n, the most recent events a candidate may see, and the constant attention is divided by.
            It must be the same in training and in serving, so it is part of the checkpoint.
        dim: d, width of the tokens and of all three spaces.
        heads, layers: of the HSTU stack; ``dim`` must be divisible by ``heads``.
        time_buckets: number of log-bucketed time differences.
        dropout: on the residual branch of every layer. item_dropout: share of the training tokens whose item
            is hidden, so that unknown items are scored by their features.
        page_size: candidates of a training page (1 to this many consecutive events, drawn at random) are all
            scored against the history before the page, as in serving.
        action_weight, surface_weight, retrieval_weight: of the auxiliary losses; the main task has weight 1.
        temperature: of the two-tower retrieval loss over unit vectors.
        storage_dtype: dtype in which the spaces are to be stored; TAE, which are logged bit for bit, are
            float16 where it is int8 or int4.
        epochs, batch_tokens, learning_rate, weight_decay: of the training run.
    """

    variant: Variant = "production"
    max_history: int = 200
    dim: int = 64
    heads: int = 2
    layers: int = 2
    time_buckets: int = 80
    dropout: float = 0.1
    item_dropout: float = 0.02
    page_size: int = 20
    action_weight: float = 0.3
    surface_weight: float = 0.1
    retrieval_weight: float = 0.1
    temperature: float = 0.07
    storage_dtype: StorageDtype = "float16"
    epochs: int = 2
    batch_tokens: int = 2048
    learning_rate: float = 2e-3
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        _require(self.variant in ("research", "production"), f"unknown variant {self.variant!r}")
        _require(
            self.storage_dtype in get_args(StorageDtype), f"unknown storage_dtype {self.storage_dtype!r}"
        )
        _require_counts(self, "max_history", "dim", "heads", "layers", "time_buckets", "page_size", "epochs")
        _require_counts(self, "batch_tokens")
        _require(self.dim % self.heads == 0, f"dim {self.dim} is not divisible by heads {self.heads}")
        _require(self.layers <= MOST_LAYERS, f"layers must be at most {MOST_LAYERS}")
        _require_fractions(self, "dropout", "item_dropout")
        for name in ("learning_rate", "temperature"):
            _require(getattr(self, name) > 0, f"{name} must be positive")
        for name in ("action_weight", "surface_weight", "retrieval_weight", "weight_decay"):
            _require(getattr(self, name) >= 0, f"{name} must not be negative")

    @classmethod
    def small(cls, **changes: Any) -> FoundationConfig:
        """The demo's version 2: three passes over the events. Chosen by ``python -m benchmarks.ablation``."""
        return cls(**{"epochs": 3, **changes})

    @classmethod
    def preview(cls, **changes: Any) -> FoundationConfig:
        """``small`` for one pass over the events: the demo's version 1, on a shorter window."""
        return cls(**{"epochs": 1, **changes})

    @classmethod
    def research(cls, **changes: Any) -> FoundationConfig:
        """The research variant at the size of ``small``: its bias costs time, and it learns more per pass."""
        return cls(**{"variant": "research", **changes})

    def with_changes(self, **changes: Any) -> FoundationConfig:
        """A copy with some hyper-parameters replaced; raises ConfigInvalid like the constructor."""
        return replace(self, **changes)


@dataclass(frozen=True)
class ExpertConfig(_JsonConfig):
    """A surface's expert.

    Attributes:
        surface: the surface it ranks.
        foundation_inputs: "none" (one-stage), "vectors" (user and item vector, each with a found mask) or
            "tae".
        foundation_dim: width of those inputs, 0 for "none".
        foundation_version: the version it is pinned to, e.g. "core@2"; None for "none".
        spaces: the spaces it reads, e.g. ("core@2/tae",) or ("core@2/user", "core@2/item"); empty for "none".
        history_length: most recent events of the same surface; the constant its attention is divided by.
        dim, heads, layers: of the light HSTU. hidden: width of the fusion networks.
        dropout: in the light HSTU and the fusion. foundation_dropout: on the foundation's normalised inputs.
        item_dropout: share of the training items hidden, so that unknown items are scored by their features.
        epochs, batch_rows, learning_rate, weight_decay: of the training run.
    """

    surface: str
    foundation_inputs: FoundationInputs = "tae"
    foundation_dim: int = 0
    foundation_version: str | None = None
    spaces: tuple[str, ...] = ()
    history_length: int = 16
    dim: int = 32
    heads: int = 2
    layers: int = 1
    hidden: int = 64
    dropout: float = 0.1
    foundation_dropout: float = 0.1
    item_dropout: float = 0.02
    epochs: int = 3
    batch_rows: int = 1024
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4

    def __post_init__(self) -> None:
        object.__setattr__(self, "spaces", tuple(self.spaces))
        _require(isinstance(self.surface, str) and self.surface != "", "surface must be a name")
        kinds = ("none", "vectors", "tae")
        _require(self.foundation_inputs in kinds, f"foundation_inputs must be one of {', '.join(kinds)}")
        _require_counts(self, "history_length", "dim", "heads", "layers", "hidden", "epochs", "batch_rows")
        _require_counts(self, "foundation_dim", least=0)
        _require(self.dim % self.heads == 0, f"dim {self.dim} is not divisible by heads {self.heads}")
        _require(self.layers <= MOST_LAYERS, f"layers must be at most {MOST_LAYERS}")
        _require_fractions(self, "dropout", "foundation_dropout", "item_dropout")
        _require(self.learning_rate > 0, "learning_rate must be positive")
        _require(self.weight_decay >= 0, "weight_decay must not be negative")
        self._check_foundation()

    def _check_foundation(self) -> None:
        wanted = {"none": 0, "vectors": 2, "tae": 1}[self.foundation_inputs]
        _require(
            len(self.spaces) == wanted,
            f"foundation_inputs {self.foundation_inputs!r} reads {wanted} spaces, got {list(self.spaces)}",
        )
        if wanted == 0:
            _require(
                self.foundation_dim == 0 and self.foundation_version is None,
                "an expert without foundation inputs has no foundation_dim and no foundation_version",
            )
            return
        _require(self.foundation_dim > 0, "foundation_dim must be positive")
        _require(self.foundation_version is not None, "foundation_version must be given, e.g. 'core@2'")
        strays = [space for space in self.spaces if not space.startswith(f"{self.foundation_version}/")]
        _require(not strays, f"spaces {strays} are not of the pinned version {self.foundation_version}")

    @classmethod
    def one_stage(cls, surface: str, tae_dim: int = 0, **changes: Any) -> ExpertConfig:
        """The same network without the foundation.

        Args:
            tae_dim: make ``hidden`` so much wider that a candidate costs as many multiply-adds as it would
                ``on_tae`` of this dim: the baseline of equal serving compute. 0: leave it as it is.
        """
        same = cls(surface, foundation_inputs="none", **changes)
        return replace(same, hidden=_equal_width(same.dim, same.hidden, tae_dim)) if tae_dim else same

    @classmethod
    def on_tae(cls, surface: str, version: str, dim: int, **changes: Any) -> ExpertConfig:
        """Pinned to the space ``{version}/tae``."""
        return cls(surface, "tae", dim, version, (f"{version}/tae",), **changes)

    @classmethod
    def on_vectors(cls, surface: str, version: str, dim: int, **changes: Any) -> ExpertConfig:
        """Pinned to the spaces ``{version}/user`` and ``{version}/item``."""
        return cls(surface, "vectors", dim, version, (f"{version}/user", f"{version}/item"), **changes)


def _equal_width(dim: int, hidden: int, tae_dim: int) -> int:
    """The least width w of the fusion networks without TAE that costs what ``hidden`` costs with them.

    Without: dim w (first fusion) + (w + 2 dim) w (second) + w (head). With TAE also tae_dim hidden (their
    projection) + hidden^2 (its place in the first fusion). The rest of the network is the same for both.
    """
    linear = 3 * dim + 1
    wanted = hidden * (hidden + linear) + hidden * (tae_dim + hidden)
    return math.ceil((math.sqrt(linear * linear + 4 * wanted) - linear) / 2)
