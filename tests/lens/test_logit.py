"""The logit lens: its last layer is the network's own logits, and the rest is arithmetic on them."""

import pytest
import torch

import innerview as iv
from innerview.errors import LensError
from tests.networks import DTYPES, FAMILIES, blocks, direction, ids, opened, ragged


@pytest.fixture(params=FAMILIES)
def model(request: pytest.FixtureRequest) -> iv.Model:
    return opened(request.param)


@pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "bfloat16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_last_layer_equals_the_logits_to_the_last_bit(family: str, dtype: torch.dtype) -> None:
    model, x = opened(family, dtype), ids(1, 7)
    lens = iv.logit_lens(model, x)
    with torch.no_grad():
        wanted = model.module(x).logits[0]
    assert torch.equal(lens.logits(2), wanted)
    logprobs = torch.log_softmax(wanted.float(), dim=-1).topk(10, dim=-1)
    assert torch.equal(lens.top_ids[2], logprobs.indices) and torch.equal(lens.top_logprobs[2], logprobs.values)
    assert (lens.kl[2] == 0).all()


def test_a_middle_layer_is_the_networks_own_norm_and_head(model: iv.Model) -> None:
    x, kept = ids(1, 5), []
    handle = blocks(model.module)[0].register_forward_hook(
        lambda m, a, out: kept.append(out[0] if isinstance(out, tuple) else out)
    )
    with torch.no_grad():
        model.module(x)
        norm = model.module.transformer.ln_f if hasattr(model.module, "transformer") else model.module.model.norm
        wanted = model.module.lm_head(norm(kept[0]))[0]
    handle.remove()
    lens = iv.logit_lens(model, x, k=3)
    assert torch.equal(lens.logits(0), wanted)
    p, final = wanted.double().log_softmax(-1), lens.logits(2).double().log_softmax(-1)
    assert torch.allclose(lens.entropy[0].double(), -(p.exp() * p).sum(-1), atol=1e-4)
    assert torch.allclose(lens.kl[0].double(), (final.exp() * (final - p)).sum(-1), atol=1e-3)
    assert lens.top_ids.shape == (3, 5, 3) and lens.layers == ["0", "1", "2"]


def test_ranks_count_what_is_likelier(model: iv.Model) -> None:
    lens = iv.logit_lens(model, ids(1, 4))
    for layer in range(3):
        for pos in range(4):
            assert int(lens.rank(int(lens.top_ids[layer, pos, 2]))[layer, pos]) == 2
    with pytest.raises(LensError, match=r"no token 999: .* knows ids 0 to 66"):
        lens.rank(999)


def test_a_lens_compares_with_an_edited_reading(model: iv.Model) -> None:
    x, edit = ids(1, 4), iv.Add(direction())
    lens = iv.logit_lens(model, x, edits=[edit])
    assert (
        lens.edits == []
        and lens.other is not None
        and lens.other.edits == [edit.label]
        and lens.other_label == "edited"
    )
    assert torch.equal(lens.other.logits(0), lens.logits(0)) and not torch.equal(lens.other.logits(1), lens.logits(1))
    with iv.editing(model, [edit]), torch.no_grad():
        assert torch.equal(lens.other.logits(2), model.module(x).logits[0])


def test_a_lens_compares_two_prompts(model: iv.Model) -> None:
    lens = iv.logit_lens(model, "w5 w6", compare="w7 w8 w9")
    assert lens.other is not None and lens.other.words == ["w7", "w8", "w9"] and lens.other_label == "w7 w8 w9"


def test_a_lens_takes_what_is_attached_and_names_it(model: iv.Model) -> None:
    x = ids(1, 4)
    plain = iv.logit_lens(model, x)
    handle = iv.attach(model, [iv.Add(direction())], name="mood")
    edited = iv.logit_lens(model, x)
    handle.detach()
    assert edited.attached == ["mood"] and plain.attached == []
    assert not torch.equal(edited.logits(1), plain.logits(1))


@pytest.mark.parametrize("site", ["final_norm", "logits"])
def test_an_edit_behind_the_layers_is_refused_and_taken_when_attached(model: iv.Model, site: str) -> None:
    size = model.site(site).sizes[-1]
    edit, x = iv.Replace(torch.arange(size) / size, site=site), ids(1, 4)
    with pytest.raises(LensError, match=rf"put in at {site} comes behind the layers that a lens compares.*attach it"):
        iv.logit_lens(model, x, edits=[edit])
    plain = iv.logit_lens(model, x)
    handle = iv.attach(model, [edit])
    attached = iv.logit_lens(model, x)
    with torch.no_grad():
        assert torch.equal(attached.logits(2), model.module(x).logits[0])
    handle.detach()
    assert not torch.equal(attached.top_logprobs, plain.top_logprobs)


def test_what_a_lens_cannot_read_is_refused(model: iv.Model) -> None:
    with pytest.raises(LensError, match=r"a lens reads one prompt, not 2; call it for each"):
        iv.logit_lens(model, ragged((3, 4)))
    with pytest.raises(LensError, match=r"k is a whole number from 1, not 0"):
        iv.logit_lens(model, ids(1, 3), k=0)
    with pytest.raises(LensError, match=r"compares with one thing: 1 edits or a second prompt"):
        iv.logit_lens(model, "w5", edits=[iv.Add(direction())], compare="w6")
    with pytest.raises(LensError, match=r"has no 'final_norm' to read layers with; open a causal language model"):
        iv.logit_lens(iv.open_model(torch.nn.Linear(3, 3)), [[1]])


def test_the_frame_has_a_row_a_cell(model: iv.Model) -> None:
    lens = iv.logit_lens(model, "w5 w6 w7")
    frame = lens.frame()
    assert len(frame) == 9 and list(frame.columns) == ["layer", "pos", "token", "top", "probability", "entropy", "kl"]
    assert frame.probability.between(0, 1).all() and lens.figure().data[0].z is not None
