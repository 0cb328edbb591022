"""What the platform reaches of what the machine can do: ``python -m benchmarks``. See docs/benchmarks.md."""
