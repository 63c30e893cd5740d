"""Activations kept while a run writes, against a second, teacher-forced forward over what was written."""

from typing import Any

import pytest
import torch

import innerview as iv
from innerview.errors import CaptureError, GenerationError
from tests.networks import direction, hook_ids, opened, ragged

SITES = ["blocks.*.resid", "blocks.1.attn.heads", "blocks.1.mlp.hidden"]


def agrees(run: iv.Generation, model: iv.Model, limit: float = 1e-5, **options: Any) -> bool:
    """Whether what a run kept is what one forward over each row's text gives, without its last token."""
    acts, written, each = run.activations, run.tokens_so_far, len(run.tokens_so_far) // len(run.prompt_tokens)
    assert acts.mask is not None and acts.tokens is not None
    for i, new in enumerate(written):
        fed = (run.prompt_tokens[i // each] + new)[:-1]
        assert acts.tokens[i][acts.mask[i]].tolist() == fed and acts.mask[i, : len(fed)].all()
        again = iv.capture(model, [fed], SITES, **options)
        for site in again:
            found, wanted = acts[site][i, : len(fed)], again[site][0]
            assert found.shape == wanted.shape
            assert ((found - wanted).abs().max() / wanted.abs().max()) < limit, (site, i)
    return True


@pytest.mark.parametrize("cache", ["dynamic", "static", "none"])
@pytest.mark.parametrize("lengths", [(5,), (3, 6, 2)], ids=["one prompt", "left pads"])
def test_what_a_run_keeps_equals_a_second_forward(model: iv.Model, cache: Any, lengths: tuple[int, ...]) -> None:
    before = hook_ids(model.module)
    run = iv.generate(model, ragged(lengths), max_new_tokens=6, cache=cache, capture=SITES)
    assert agrees(run, model) and run.activations["blocks.0.resid"].shape[1] == max(lengths) + 5
    assert hook_ids(model.module) == before


def test_nothing_behind_the_end_of_text_is_kept(family: str) -> None:
    rows = ragged((3, 6, 4))
    free = iv.generate(opened(family), rows, max_new_tokens=8)
    free.wait()
    # The token that a row happens to write early becomes the end of text.
    eos = free.tokens_so_far[0][2]
    model = opened(family, eos=eos)
    run = iv.generate(model, rows, max_new_tokens=8, capture=SITES)
    run.wait()
    assert run.tokens_so_far[0][-1] == eos
    assert agrees(run, model)
    lengths = [len(new) for new in run.tokens_so_far]
    assert run.activations.mask is not None
    assert run.activations.mask.sum(1).tolist() == [len(r) + n - 1 for r, n in zip(rows, lengths, strict=True)]
    assert min(lengths) < 8


def test_edits_act_before_a_run_keeps(model: iv.Model) -> None:
    edits = [iv.Add(direction("blocks.1.resid"), 0.2, where=iv.Where(scope="prompt"))]
    rows = [ragged((5,))[0]]
    run = iv.generate(model, rows, max_new_tokens=5, edits=edits, capture=SITES)
    acts = run.activations
    plain = iv.capture(model, rows, "blocks.1.resid", edits=edits)
    assert torch.allclose(acts["blocks.1.resid"][:, :5], plain["blocks.1.resid"], atol=1e-4)
    everywhere = [iv.Add(direction("blocks.0.resid"), 0.2)]
    assert agrees(
        iv.generate(model, ragged((3, 6)), max_new_tokens=5, edits=everywhere, capture=SITES), model, edits=everywhere
    )


def test_drawn_continuations_keep_theirs(model: iv.Model) -> None:
    run = iv.generate(model, ragged((3, 5)), max_new_tokens=4, temperature=1.0, num_return_sequences=3, capture=SITES)
    assert agrees(run, model) and run.activations["blocks.0.resid"].shape[0] == 6


def test_a_cancelled_run_keeps_what_passed(model: iv.Model) -> None:
    def stop(run: iv.Generation) -> None:
        if len(run.tokens_so_far[0]) == 3:
            run.cancel()

    run = iv.generate(model, ragged((3, 5)), max_new_tokens=30, capture=SITES, on_token=stop)
    assert agrees(run, model) and run.activations["blocks.0.resid"].shape[1] == 7


def test_readings_and_captures_share_a_point(model: iv.Model) -> None:
    d = direction("blocks.1.resid")
    run = iv.generate(model, ragged((4,)), max_new_tokens=4, readings=[d], capture="blocks.1.resid")
    run.wait()
    assert torch.allclose(torch.tensor(run.projections["d"]), d.project(run.activations["blocks.1.resid"]), atol=1e-5)


def test_sites_that_a_writing_run_does_not_compute_are_refused(model: iv.Model) -> None:
    for site in ("logits", "blocks.0.attn.pattern"):
        with pytest.raises(
            CaptureError, match=rf"{site!r} is not computed for every token while a run writes; iv.capture"
        ):
            iv.generate(model, ragged((3,)), capture=[site])
    with pytest.raises(GenerationError, match=r"activations follow one text a prompt, and 2 beams reorder theirs"):
        iv.generate(model, ragged((3,)), num_beams=2, capture="blocks.0.resid")
    with pytest.raises(GenerationError, match=r"this run keeps no activations; start it with capture="):
        iv.generate(model, ragged((3,)), max_new_tokens=1).activations
