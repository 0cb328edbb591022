"""Bedplate: the platform for foundation models and the experts bolted on them.

client = bedplate.Client()
client.spaces.lookup("core@production/item", ["1193", "661"]).vectors
"""

from bedplate.client import AsyncClient, Client, Lookup, Search
from bedplate.codecs import ScanBatch, TaeColumns
from bedplate.errors import BedplateError
from bedplate.space_data import SpaceData
from bedplate.training_data import TrainingSetData

__all__ = [
    "AsyncClient",
    "BedplateError",
    "Client",
    "Lookup",
    "ScanBatch",
    "Search",
    "SpaceData",
    "TaeColumns",
    "TrainingSetData",
]
