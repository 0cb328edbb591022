"""What holds for every test."""

import os

# As in bedplate_modeling, but before any test module imports torch by itself.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
