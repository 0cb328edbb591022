"""The platform on one machine: its data directory, its child processes and what keeps them running.

Nothing is imported here, because every child passes through this package on its way to its own module.
"""
