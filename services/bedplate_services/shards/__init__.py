"""Shards served by several processes: what a store node answers, and how the API asks them."""
