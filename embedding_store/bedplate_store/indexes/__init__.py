"""Vector indexes: the port, and FAISS behind it. No other package imports faiss."""

from bedplate_store.indexes.building import build_index
from bedplate_store.indexes.centroids import CentroidSearch, centroid_search
from bedplate_store.indexes.compressed_rows import flat_rows
from bedplate_store.indexes.documents import (
    INDEXES_PREFIX,
    BuiltIndex,
    BuiltKind,
    IndexDocument,
    ShardDocument,
    index_key,
)
from bedplate_store.indexes.port import VectorIndex
from bedplate_store.indexes.searching import FlatIndex
from bedplate_store.indexes.selection import Bits, RowSelection, packed
from bedplate_store.indexes.sharded import open_index

__all__ = [
    "INDEXES_PREFIX",
    "Bits",
    "BuiltIndex",
    "BuiltKind",
    "CentroidSearch",
    "FlatIndex",
    "IndexDocument",
    "RowSelection",
    "ShardDocument",
    "VectorIndex",
    "build_index",
    "centroid_search",
    "flat_rows",
    "index_key",
    "open_index",
    "packed",
]
