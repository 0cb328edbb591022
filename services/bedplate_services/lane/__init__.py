"""The fast lane: lookups and searches in raw bytes, answered by uvicorn's protocol without an ASGI task.

``heads`` says which requests it takes, ``answering`` how they are answered, ``protocol`` where they are met.
A request that the lane does not take, or cannot answer well, is handed byte for byte to the ordinary path,
which is the only one that knows errors, but for store nodes that did not answer: asking them again would take
as long once more. See docs/adr/0012-fast-lane.md and, of store nodes, 0019-shards.md.
"""
