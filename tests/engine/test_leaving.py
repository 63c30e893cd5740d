"""What happens to a run when Python ends."""

import subprocess
import sys

SCRIPT = """
import innerview as iv
model = iv.open_model("pocket")
runs = [iv.generate(model, "The film made us", max_new_tokens=100, temperature=1.0, seed=seed) for seed in range(3)]
print("left")
"""


def test_a_script_that_ends_while_runs_still_write_ends_well() -> None:
    ended = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False, timeout=120)
    assert ended.stdout.split() == ["left"]
    assert ended.returncode == 0, ended.stderr
