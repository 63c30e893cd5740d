"""Captures in chunks: the same numbers as one by one, in the given order, wherever they go, and what an interrupt leaves."""

from typing import Any

import pytest
import torch
from torch import nn

import innerview as iv
from innerview import chunks
from innerview.errors import CaptureError
from tests.engine.uses import is_free
from tests.networks import blocks, direction, hook_ids, ids, opened, padded, ragged

SITES = ["blocks.*.resid", "blocks.1.attn.heads", "blocks.1.attn.pattern", "logits"]
LENGTHS = (5, 2, 9, 4, 9, 3, 7)


def equal_on_real_tokens(one: iv.Activations, other: iv.Activations) -> bool:
    """Whether two captures of the same rows agree on tokens, masks and values of real tokens."""
    assert one.mask is not None and other.mask is not None and one.tokens is not None and other.tokens is not None
    assert torch.equal(one.mask, other.mask) and torch.equal(one.tokens[one.mask], other.tokens[other.mask])
    for site in one:
        x, y, real = one[site], other[site], one.mask
        assert x.shape == y.shape, site
        if site.endswith("pattern"):
            x, y = x.movedim(2, 1), y.movedim(2, 1)
        assert torch.allclose(x[real], y[real], atol=1e-4), site
    return True


@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_chunks_equal_one_forward(model: iv.Model, batch_size: int) -> None:
    rows = ragged(LENGTHS)
    whole = iv.capture(model, rows, SITES)
    parts = iv.capture(model, rows, SITES, batch_size=batch_size)
    assert equal_on_real_tokens(parts, whole) and parts.rows is None and parts.positions is None


def test_a_text_too_long_for_one_forward_is_taken_apart_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    model, rows = opened("gpt2"), ragged(LENGTHS)
    whole = iv.capture(model, rows, "blocks.2.resid")
    forwards: list[tuple[int, int]] = []
    blocks(model.module)[0].register_forward_pre_hook(lambda m, args: forwards.append(tuple(args[0].shape[:2])))
    monkeypatch.setattr(chunks, "CHUNK_TOKENS", 20)
    assert equal_on_real_tokens(iv.capture(model, rows, "blocks.2.resid"), whole)
    # Longest first, each chunk as wide as its own longest row, none above 20 tokens.
    assert forwards == [(2, 9), (2, 7), (3, 4)]


@pytest.mark.parametrize("left", [True, False], ids=["left pads", "right pads"])
def test_mappings_of_ready_inputs_are_taken_apart(model: iv.Model, left: bool) -> None:
    x, mask = padded(ragged(LENGTHS), left=left)
    given = {
        "input_ids": x,
        "attention_mask": mask,
        "position_ids": (mask.cumsum(1) - 1).clamp(min=0),
        "use_cache": False,
    }
    edits = [iv.Add(direction("blocks.0.resid"), where=iv.Where(positions=-1))]
    whole = iv.capture(model, given, SITES, edits=edits)
    assert equal_on_real_tokens(iv.capture(model, given, SITES, edits=edits, batch_size=3), whole)


def test_tensors_and_tuples_of_any_module_are_taken_apart() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.Linear(5, 4)

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return self.a(x) + self.b(y)

    model, x, y = iv.open_model(Two()), torch.randn(5, 3), torch.randn(5, 5)
    parts = iv.capture(model, (x, y), ["module:a", "module:b"], batch_size=2)
    with torch.no_grad():
        assert torch.allclose(parts["module:a"], model.module.a(x)) and torch.allclose(
            parts["module:b"], model.module.b(y)
        )
    alone = iv.open_model(nn.Sequential(nn.Linear(3, 4)))
    assert iv.capture(alone, x, "module:0", batch_size=2)["module:0"].shape == (5, 4)


def test_edits_given_row_by_row_go_with_their_rows(model: iv.Model) -> None:
    rows = ragged((4, 6, 3))
    value = torch.randn(3, 1, 32)
    whole = iv.capture(model, rows, "blocks.2.resid", edits=[iv.Replace(value, site="blocks.1.resid")])
    parts = iv.capture(model, rows, "blocks.2.resid", edits=[iv.Replace(value, site="blocks.1.resid")], batch_size=1)
    assert equal_on_real_tokens(parts, whole)


def test_what_cannot_be_taken_apart_is_refused(model: iv.Model) -> None:
    cases: list[tuple[Any, dict, str]] = [
        (ragged((3, 4)), {"batch_size": 0}, r"batch_size is a number of rows from 1, not 0"),
        (ragged((3, 4)), {"batch_size": True}, r"batch_size is a number of rows from 1, not True"),
        ({"use_cache": False}, {"batch_size": 2}, r"no tensor of these inputs has rows; drop it"),
    ]
    for given, options, message in cases:
        with pytest.raises(CaptureError, match=message):
            iv.capture(model, given, "blocks.0.resid", **options)
    with torch.no_grad():
        cache = model.module(ids(2, 4), use_cache=True).past_key_values
    with pytest.raises(CaptureError, match=r"from a cache of 2 rows cannot be taken apart; drop batch_size="):
        iv.capture(model, {"input_ids": ids(2, 1), "past_key_values": cache}, "blocks.0.resid", batch_size=1)


def test_gradients_flow_through_chunks(model: iv.Model) -> None:
    embeds = torch.randn(3, 4, 32, requires_grad=True)
    wanted = torch.autograd.grad(
        iv.capture(model, {"inputs_embeds": embeds}, "blocks.1.resid", grad=True)["blocks.1.resid"].square().sum(),
        embeds,
    )[0]
    found = iv.capture(model, {"inputs_embeds": embeds}, "blocks.1.resid", grad=True, batch_size=2)["blocks.1.resid"]
    assert torch.allclose(torch.autograd.grad(found.square().sum(), embeds)[0], wanted, rtol=1e-4, atol=1e-3)


# Interrupts.


def test_an_interrupt_leaves_what_was_done(model: iv.Model) -> None:
    rows, before = ragged(LENGTHS), hook_ids(model.module)
    whole = iv.capture(model, rows, "blocks.1.resid")
    count = 0

    def stop(*_: Any) -> None:
        nonlocal count
        count += 1
        if count == 3:
            raise KeyboardInterrupt

    handle = blocks(model.module)[0].register_forward_hook(stop)
    with pytest.raises(iv.CaptureInterrupt, match=r"stopped behind 4 of 7 rows; .* take stop.partial") as stopped:
        iv.capture(model, rows, "blocks.1.resid", batch_size=2)
    handle.remove()
    partial = stopped.value.partial
    assert isinstance(stopped.value, KeyboardInterrupt)
    assert partial.rows is not None and partial.rows.tolist() == [0, 2, 4, 6]
    assert partial.mask is not None and partial.mask.sum(1).tolist() == [5, 9, 9, 7]
    for i, row in enumerate(partial.rows.tolist()):
        n = LENGTHS[row]
        assert torch.allclose(partial["blocks.1.resid"][i, :n], whole["blocks.1.resid"][row, :n], atol=1e-4)
    assert hook_ids(model.module) == before and is_free(model) and torch.is_grad_enabled()


def test_an_interrupt_in_the_first_chunk_leaves_nothing(model: iv.Model) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    blocks(model.module)[0].register_forward_hook(stop)
    with pytest.raises(iv.CaptureInterrupt, match="stopped behind 0 of 2 rows") as stopped:
        iv.capture(model, ragged((3, 4)), "blocks.1.resid", batch_size=1)
    assert len(stopped.value.partial) == 0


# Where values go.


def test_a_list_takes_pieces_in_the_given_order(model: iv.Model) -> None:
    rows = ragged(LENGTHS)
    whole = iv.capture(model, rows, "blocks.1.resid")
    pieces: list[iv.Activations] = []
    result = iv.capture(model, rows, "blocks.1.resid", to=pieces, batch_size=3)
    assert [p.rows.tolist() for p in pieces if p.rows is not None] == [[0, 1, 2], [3, 4, 5], [6]]
    assert result.sites == [] and result.tokens is not None and result.tokens.shape == (7, 9)
    for piece in pieces:
        assert piece.mask is not None and piece.rows is not None
        for i, row in enumerate(piece.rows.tolist()):
            n = LENGTHS[row]
            assert torch.allclose(piece["blocks.1.resid"][i, :n], whole["blocks.1.resid"][row, :n], atol=1e-4)
    with pytest.raises(iv.SiteError, match=r"was not captured; captured are none: they went where to= said"):
        result["blocks.1.resid"]


def test_a_number_format_changes_activations_and_no_ids(model: iv.Model) -> None:
    rows = ragged((3, 5))
    plain = iv.capture(model, rows, ["blocks.0.resid", "logits"])
    half = iv.capture(model, rows, ["blocks.0.resid", "logits"], to=torch.bfloat16, batch_size=1)
    assert half.tokens is not None and half.tokens.dtype == torch.int64
    for site in half:
        assert half[site].dtype == torch.bfloat16
        assert torch.allclose(half[site][1].float(), plain[site][1].bfloat16().float(), rtol=1e-2, atol=1e-2)


def test_values_stay_on_the_cpu_when_they_go_there(model: iv.Model) -> None:
    x = ids(2, 4)
    plain = iv.capture(model, x, "blocks.1.resid")["blocks.1.resid"]
    for to in ("cpu", torch.device("cpu")):
        assert torch.equal(iv.capture(model, x, "blocks.1.resid", to=to)["blocks.1.resid"], plain)


def test_a_network_that_works_in_place_is_copied_on_its_way_out() -> None:
    root = nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Linear(4, 4))
    model, x = iv.open_model(root), torch.randn(3, 4)
    with torch.no_grad():
        wanted = root[0](x)
    assert torch.equal(iv.capture(model, x, ["module:0", "module:1"], to="cpu")["module:0"], wanted)
    assert (wanted < 0).any()


def test_places_that_take_nothing_are_refused(model: iv.Model) -> None:
    for to, message in (
        ("nowhere", r"to='nowhere' names no device; give 'cpu', 'cuda', a dtype, or a list to append to"),
        (7, r"to= is a device, a dtype, or anything with append, not 7 of type int"),
        (list, r"anything with append, not <class 'list'> of type type"),
    ):
        with pytest.raises(CaptureError, match=message):
            iv.capture(model, ids(1, 3), "blocks.0.resid", to=to)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: copies through pinned memory did not run")
def test_copies_through_pinned_memory_equal_plain_ones() -> None:
    model = opened("llama")
    model.module.to("cuda")
    rows = ragged(LENGTHS)
    here = iv.capture(model, rows, SITES)
    for batch_size in (None, 2):
        there = iv.capture(model, rows, SITES, to="cpu", batch_size=batch_size)
        assert all(value.device.type == "cpu" for value in there.values())
        for site in ("blocks.0.resid", "logits"):
            assert torch.allclose(there[site][2], here[site][2].cpu(), atol=1e-3)
    half = iv.capture(model, rows, "blocks.1.resid", to=torch.bfloat16)
    assert half["blocks.1.resid"].device.type == "cuda"


def test_progress_is_shown_only_when_it_is_asked_for_or_takes_long(
    model: iv.Model, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ragged((3, 4, 5))
    iv.capture(model, rows, "blocks.0.resid", batch_size=1)
    assert capsys.readouterr().err == ""
    iv.capture(model, rows, "blocks.0.resid", batch_size=1, progress=True)
    assert "row/s" in capsys.readouterr().err
    iv.capture(model, rows, "blocks.0.resid", batch_size=1, progress=False)
    assert capsys.readouterr().err == ""


class TwoWays(torch.nn.Module):
    """A network of torch's own layers that looks both ways and takes no mask."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = torch.nn.Embedding(99, 32)
        self.layers = torch.nn.TransformerEncoder(torch.nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), 2)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return self.layers(self.embed(input_ids))


@pytest.mark.parametrize("batch_size", [None, 2, 3])
def test_a_network_that_takes_no_mask_never_reads_a_pad(batch_size: int | None) -> None:
    model, site = iv.open_model(TwoWays().eval()), "module:layers.layers.1"
    given = [[5, 6, 7, 8], [9, 10], [11, 12, 13, 14], [15, 16], [17, 18, 19]]
    found = iv.capture(model, given, site, batch_size=batch_size)
    assert found.mask.sum(dim=1).tolist() == [4, 2, 4, 2, 3]
    for nth, row in enumerate(given):
        alone = iv.capture(model, [row], site)[site][0]
        torch.testing.assert_close(found[site][nth, : len(row)], alone)
    pieces: list[iv.Activations] = []
    iv.capture(model, given, site, batch_size=batch_size, to=pieces)
    assert sum(len(piece.tokens) for piece in pieces) == 5
