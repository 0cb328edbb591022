"""What the inference service is made of: checkpoints, loaded models, micro-batches, history caches,
rankings.
"""
