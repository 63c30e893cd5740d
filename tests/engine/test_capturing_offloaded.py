"""Networks whose weights accelerate keeps elsewhere: captured, edited and written with as before."""

from pathlib import Path

import pytest
import torch

import innerview as iv
from tests.networks import direction, hook_ids, ragged

accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed: offloading was not tested")

SITES = ["blocks.*.resid", "blocks.1.attn.heads", "blocks.1.attn.pattern", "logits"]


@pytest.mark.parametrize("kind", ["cpu_offload", "disk_offload", "dispatch_model"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_offloaded_networks_are_captured_and_edited_as_before(model: iv.Model, kind: str, tmp_path: Path) -> None:
    rows, root = ragged((3, 6)), model.module
    edits = [iv.Add(direction("blocks.0.resid"), 0.5, where=iv.Where(positions=-1))]
    wanted = iv.capture(model, rows, SITES, edits=edits)
    written = iv.generate(model, rows, max_new_tokens=4, edits=edits, capture="blocks.1.resid")
    tokens, fed = written.wait() and written.tokens_so_far, written.activations["blocks.1.resid"]
    gradients = iv.capture(model, rows, "blocks.1.resid", gradients_of="loss").gradients
    if kind == "cpu_offload":
        accelerate.cpu_offload(root, execution_device="cpu")
    elif kind == "disk_offload":
        accelerate.disk_offload(root, str(tmp_path), execution_device="cpu")
    else:
        accelerate.dispatch_model(root, {"": "cpu"}, force_hooks=True)
    before = hook_ids(root)
    assert kind == "dispatch_model" or next(root.parameters()).device.type == "meta"
    assert model.device == torch.device("cpu")
    for batch_size in (None, 1):
        acts = iv.capture(model, rows, SITES, edits=edits, batch_size=batch_size)
        assert wanted.mask is not None
        for site in ("blocks.0.resid", "blocks.2.resid", "blocks.1.attn.heads", "logits"):
            assert torch.allclose(acts[site][wanted.mask], wanted[site][wanted.mask], atol=1e-4)
    assert torch.equal(
        iv.capture(model, rows, SITES, edits=edits)["blocks.1.attn.pattern"], wanted["blocks.1.attn.pattern"]
    )
    run = iv.generate(model, rows, max_new_tokens=4, edits=edits, capture="blocks.1.resid")
    assert run.wait() and run.tokens_so_far == tokens
    assert torch.allclose(run.activations["blocks.1.resid"], fed, atol=1e-4)
    again = iv.capture(model, rows, "blocks.1.resid", gradients_of="loss").gradients
    assert gradients is not None and again is not None
    assert torch.allclose(again["blocks.1.resid"], gradients["blocks.1.resid"], atol=1e-5)
    assert hook_ids(root) == before
