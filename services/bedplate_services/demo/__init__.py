"""The whole loop on one machine: a world's events go in, two foundation versions and five experts come out.

The demo is a user: it talks to the platform through the SDK alone and trains with ``bedplate_modeling``.
"""
