"""The models of the Foundation-Expert paradigm: training, checkpoints, metrics, inference.

Import from the submodules: ``config``, ``events``, ``training``, ``expert_training``, ``checkpoints``,
``runtime``, ``metrics``, ``alignment``. Nothing here knows a database or HTTP.
"""
