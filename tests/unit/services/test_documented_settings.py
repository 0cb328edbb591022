"""docs/settings.md lists every setting of services and workers, with its default."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic_settings import BaseSettings

from bedplate_services.provisioning import ProvisioningSettings
from bedplate_services.settings import Settings
from bedplate_workers.settings import WorkerSettings

DOCUMENT = Path(__file__).parents[3] / "docs" / "settings.md"
ROW = re.compile(r"^\| `BEDPLATE_(\w+)` \| ([SWP ]+) \| ([^|]+) \|[^|]*\| ([^|]+) \|$", re.MULTILINE)
CLASSES: dict[str, type[BaseSettings]] = {
    "S": Settings,
    "W": WorkerSettings,
    "P": ProvisioningSettings,  # whose others are those of the services
}


def told(settings: type[BaseSettings], name: str) -> str:
    """The default of a setting as the document writes it."""
    field = settings.model_fields[name]
    if field.is_required():
        return "required"
    if isinstance(field.default, bool):
        return "on" if field.default else "off"
    if isinstance(field.default, float):
        return f"{field.default:g}"
    return "none" if field.default is None else str(field.default)


def defaults(kinds: list[str], name: str) -> str:
    found = {kind: told(CLASSES[kind], name) for kind in kinds}
    if len(set(found.values())) == 1:
        return found[kinds[0]]
    return ", ".join(f"{kind} {default}" for kind, default in found.items())


def test_every_setting_is_listed_with_whose_it_is_and_its_default() -> None:
    listed = {name.lower(): (kinds, default) for name, kinds, default, _ in ROW.findall(DOCUMENT.read_text())}
    expected = {}
    for name in dict.fromkeys(name for settings in CLASSES.values() for name in settings.model_fields):
        kinds = [kind for kind, settings in CLASSES.items() if name in settings.model_fields]
        kinds = [kind for kind in kinds if kind != "P" or kinds == ["P"]]
        expected[name] = (" ".join(kinds), defaults(kinds, name))
    assert listed == expected
