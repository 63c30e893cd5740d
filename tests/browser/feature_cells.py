"""A notebook of the feature widgets, on pocket and a dictionary made of its own activations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

# Rows are activations themselves, so that features fire on words that can be told beforehand by nobody but the network.
SETTING = """
import numpy as np, pandas as pd, torch
import innerview as iv
model = iv.open_model("pocket")
site = "blocks.3.resid"
texts = [one.text for name in list(iv.pocket.concepts())[:8] for one in iv.pocket.sentences(getattr(name, "name", name), pairs=8)]
acts = iv.capture(model, texts, site, hermetic=True)
x = acts[site][:, 1:][acts.mask[:, 1:]].float()
rows = torch.nn.functional.normalize(x[:: max(1, len(x) // 128)][:128] - x.mean(0), dim=1)
weights = iv.Weights(rows.clone(), -(rows @ x.mean(0)), rows.clone(), x.mean(0))
sae = iv.Dictionary(weights, iv.TopK(8), iv.Manifest(False, iv.Normalisation(), site=site, model="pocket", source="its own activations"))
board = iv.dashboard(sae, model, texts, progress=False).with_labels({7: "seven", 9: "<img src=x onerror=document.pwned=1>"})
often = board.frame().n_active.to_numpy().argsort()[::-1]
first = int(often[3])
""".strip()
CELLS = {
    "page": "page = iv.FeaturePage(board, first); page",
    "browser": "browser = iv.FeatureBrowser(board, directions=[sae.direction(5)]); browser",
    "map": "shown = iv.FeatureMap(board); shown",
    "steer": "steer = iv.Steer(model, prompt='The film was', max_new_tokens=8); steer",
    "lens": "lens = iv.LogitLens(model, 'The capital of France is'); lens",
    "many": """random = np.random.default_rng(0)
many = iv.FeatureBrowser(pd.DataFrame({"label": [f"word {i}" for i in range(100_000)], "density": random.random(100_000), "max": random.random(100_000)}))
many""",
}


def write_notebook(path: Path) -> None:
    """A notebook of the setting and one cell for each widget."""
    path.write_text(json.dumps(notebook([SETTING, *CELLS.values()])), "utf-8")


def notebook(sources: list[str]) -> dict[str, Any]:
    cells = [
        {"cell_type": "code", "id": f"c{i}", "metadata": {}, "execution_count": None, "outputs": [], "source": source}
        for i, source in enumerate(sources)
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
