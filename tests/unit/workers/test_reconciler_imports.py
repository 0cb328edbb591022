import subprocess
import sys


def test_the_reconciler_does_not_load_torch() -> None:
    code = "import sys, bedplate_workers.reconciler; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
