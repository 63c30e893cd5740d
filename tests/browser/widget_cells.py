"""A notebook of the widgets that show results: a grid of patches, attention, evidence, a training, the panel."""

from __future__ import annotations

import json
from pathlib import Path

SETTING = """
import innerview as iv

model = iv.open_model("pocket")
mood = iv.contrast(model, ["The film was lovely", "I love this trip"], ["The film was awful", "I hate this trip"], site="blocks.3.resid", name="good mood")
clean, corrupt = "The capital of France is", "The capital of Japan is"
"""
CELLS = {
    "patch": 'iv.patch_grid(model, clean, corrupt, metric=iv.logit_difference(" Paris", " Tokyo"), progress=False)',
    "attention": 'attention = iv.Attention(model, "When Mary and John went to the market , John gave a book to")\nattention',
    "evidence": """iv.Evidence(
    "good mood steers pocket",
    (
        iv.Control("random directions", 0.005, threshold=0.01, n=200, compared_with=[(i * 37 % 100) / 50 - 1 for i in range(200)], effect=2.4),
        iv.Control("prompts that move the wrong way", 0.31, threshold=0.2, n=60, interval=(0.2, 0.42), is_ours=True),
        iv.Control.not_run("held-out templates", "no templates were given"),
    ),
    about="pocket · blocks.3.resid",
)""",
    "training": "monitor = iv.TrainingMonitor()\nmonitor",
    "panel": 'handle = iv.attach(model, [iv.Add(mood, 1.0)], name="good mood")\niv.panel()',
}
TRAINING = """
import threading

spec = iv.DictionarySpec("blocks.3.resid", iv.TopK(4), n_features=32)
settings = iv.TrainingSettings(n_tokens=10_000_000, batch_tokens=100, report_every=5)
texts = ["The capital of France is Paris .", "The film was lovely and we smiled ."] * 500
trained = []
training = threading.Thread(target=lambda: trained.append(iv.train_dictionaries(model, [spec], texts=texts, settings=settings, progress=False)))
training.start()
"""


def write_notebook(path: Path) -> None:
    """Write it, its cells not run."""
    path.write_text(notebook([SETTING.strip(), *CELLS.values()]), "utf-8")


def notebook(sources: list[str]) -> str:
    """A notebook of these cells, as JSON."""
    cells = [
        {
            "cell_type": "code",
            "id": f"cell-{i}",
            "metadata": {},
            "source": source,
            "outputs": [],
            "execution_count": None,
        }
        for i, source in enumerate(sources)
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return json.dumps({"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5})
