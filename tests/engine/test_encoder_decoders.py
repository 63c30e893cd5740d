"""Encoder–decoders read two texts: edits and captures at each side go by its own tokens, against plain hooks."""

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import BartConfig, BartForConditionalGeneration, T5Config, T5ForConditionalGeneration

import innerview as iv

ENCODER, DECODER = "encoder.blocks.0.resid", "decoder.blocks.0.resid"
FAMILIES = ("t5", "bart")


def opened(family: str) -> iv.Model:
    torch.manual_seed(0)
    if family == "t5":
        config: Any = T5Config(vocab_size=50, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4)
        config.decoder_start_token_id = 0
        return iv.open_model(T5ForConditionalGeneration(config).eval())
    config = BartConfig(
        vocab_size=50, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4,
        encoder_ffn_dim=48, decoder_ffn_dim=48, max_position_embeddings=64, forced_eos_token_id=None,
    )  # fmt: skip
    return iv.open_model(BartForConditionalGeneration(config).eval())


def layer(model: iv.Model, side: str) -> Any:
    part: Any = getattr(model.module, f"get_{side}")()
    return part.block[0] if hasattr(part, "block") else part.layers[0]


def inputs(decoder: int, *, masked: bool = False) -> dict[str, Tensor]:
    """Two rows of five tokens, the second with two pads, and a text of the decoder's."""
    drawn = torch.Generator().manual_seed(3)
    given = {
        "input_ids": torch.randint(3, 50, (2, 5), generator=drawn),
        "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
        "decoder_input_ids": torch.randint(3, 50, (2, decoder), generator=drawn),
    }
    if masked:
        given["decoder_attention_mask"] = torch.tensor([[1] * decoder, [1] * (decoder - 1) + [0]])
    return given


def by_hand(model: iv.Model, given: dict[str, Tensor], side: str, change: Tensor) -> Tensor:
    """Logits with `change`, shape [rows, tokens, d_model], added behind the first layer of a side by a plain hook."""

    def add(module: Any, args: Any, output: Any) -> Any:
        return (output[0] + change, *output[1:]) if isinstance(output, tuple) else output + change

    handle = layer(model, side).register_forward_hook(add)
    try:
        with torch.no_grad():
            return model.module(**given).logits
    finally:
        handle.remove()


def added(site: str, where: iv.Where | None = None) -> tuple[iv.Add, Tensor]:
    vector = torch.randn(32, generator=torch.Generator().manual_seed(1))
    d = iv.Direction.from_vector(vector, site, name="d", scale=2.0, residual_norm=2.0)
    return iv.Add(d, where=where or iv.Where()), (d.vector.double() * d.scale).float()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tokens", [3, 5, 7])
@pytest.mark.parametrize("place", ["all", "last", "second", "token"])
def test_an_edit_in_the_decoder_goes_by_the_decoders_tokens(family: str, tokens: int, place: str) -> None:
    model, given = opened(family), inputs(tokens, masked=True)
    mask = torch.zeros(2, tokens)
    real = given["decoder_attention_mask"].float()
    if place == "all":
        where, mask = iv.Where(), real
    elif place == "last":
        where = iv.Where(positions=(-1,))
        mask[0, tokens - 1] = mask[1, tokens - 2] = 1
    elif place == "second":
        where = iv.Where(positions=(1,))
        mask[:, 1] = 1
    else:
        wanted = int(given["decoder_input_ids"][1, 0])
        where, mask = iv.Where(tokens=[wanted]), (given["decoder_input_ids"] == wanted).float() * real
    edit, vector = added(DECODER, where)
    wanted_logits = by_hand(model, given, "decoder", mask[..., None] * vector)
    found = iv.capture(model, given, "logits", edits=[edit])["logits"]
    with iv.editing(model, [edit]), torch.no_grad():
        own = model.module(**given).logits
    torch.testing.assert_close(found, wanted_logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(own, wanted_logits, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(found, model.module(**given).logits, atol=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_edit_in_the_encoder_goes_by_the_encoders_tokens(family: str) -> None:
    model, given = opened(family), inputs(4)
    edit, vector = added(ENCODER, iv.Where(positions=(-1,)))
    mask = torch.tensor([[0, 0, 0, 0, 1.0], [0, 0, 1.0, 0, 0]])
    wanted = by_hand(model, given, "encoder", mask[..., None] * vector)
    found = iv.capture(model, given, "logits", edits=[edit])["logits"]
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_positions_that_a_side_does_not_have_are_refused() -> None:
    model = opened("t5")
    with pytest.raises(iv.EditError, match="position 4 is past the end: the shortest row has 3"):
        iv.capture(model, inputs(3), "logits", edits=[added(DECODER, iv.Where(positions=(4,)))[0]])
    # The encoder's shortest row has three tokens, the decoder's seven.
    iv.capture(model, inputs(7), "logits", edits=[added(DECODER, iv.Where(positions=(6,)))[0]])
    root: Any = model.module
    root.decoder.embed_tokens = root.encoder.embed_tokens
    with (
        iv.editing(model, [added("module:decoder.embed_tokens")[0]]),
        pytest.raises(iv.EditError, match="shared by encoder and"),
    ):
        model.module(**inputs(3))


@pytest.mark.parametrize("family", FAMILIES)
def test_texts_alone_give_the_decoder_its_start(family: str) -> None:
    model = opened(family)
    found = iv.capture(model, [[4, 5, 6], [7, 8]], "logits")["logits"]
    start = torch.full((2, 1), model.module.config.decoder_start_token_id)  # type: ignore[union-attr]
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    with torch.no_grad():
        wanted = model.module(
            input_ids=torch.tensor([[4, 5, 6], [7, 8, 9]]), attention_mask=mask, decoder_input_ids=start
        ).logits
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_a_call_without_the_decoders_text_is_refused_with_the_way_out() -> None:
    with pytest.raises(iv.CaptureError, match="give decoder_input_ids beside input_ids"):
        iv.capture(opened("t5"), {"input_ids": torch.arange(4)[None] + 9}, DECODER)


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_are_chosen_among_those_of_the_captured_side(family: str) -> None:
    model, given = opened(family), inputs(5, masked=True)
    whole = iv.capture(model, given, [ENCODER, DECODER])
    last = iv.capture(model, given, DECODER, positions=-1)
    assert torch.equal(last[DECODER][:, 0], whole[DECODER][torch.arange(2), torch.tensor([4, 3])])
    assert last.tokens.flatten().tolist() == [int(given["decoder_input_ids"][i, j]) for i, j in ((0, 4), (1, 3))]
    where = iv.capture(model, given, DECODER, where=iv.Where(positions=(-1,)))
    assert torch.equal(where[DECODER], last[DECODER])
    mean = iv.capture(model, given, DECODER, reduce="mean", batch_size=1)[DECODER]
    torch.testing.assert_close(mean[1], whole[DECODER][1, :4].mean(dim=0))
    first = iv.capture(model, given, ENCODER, positions=-1)[ENCODER]
    assert torch.equal(first[:, 0], whole[ENCODER][torch.arange(2), torch.tensor([4, 2])])
    with pytest.raises(iv.CaptureError, match="capture each side by itself"):
        iv.capture(model, given, [ENCODER, DECODER], positions=-1)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_users_own_generate_takes_positions_of_the_decoder(family: str) -> None:
    model, given = opened(family), inputs(1)
    where = iv.Where(positions=(1,))
    edit, vector = added(DECODER, where)
    text = {"input_ids": given["input_ids"], "attention_mask": given["attention_mask"]}
    with iv.editing(model, [edit]):
        made = model.module.generate(
            **text,
            min_new_tokens=4,
            max_new_tokens=4,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )  # type: ignore[operator]
    ids = made.sequences[:, :-1]
    mask = torch.zeros(*ids.shape, 1)
    mask[:, 1] = 1
    wanted = by_hand(model, {**text, "decoder_input_ids": ids}, "decoder", mask * vector)
    torch.testing.assert_close(torch.stack(made.logits, dim=1), wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("site", [ENCODER, DECODER])
def test_studies_of_texts_speak_of_the_side_of_their_site(family: str, site: str) -> None:
    model, rows, other = opened(family), [[4, 5, 6], [7, 8]], [[9, 8, 7], [6, 5]]
    assert iv.capture(model, rows, site).tokens.shape == ((2, 3) if site == ENCODER else (2, 1))
    found = iv.contrast(model, rows, other, site=site).vector
    ends = [iv.capture(model, given, site, positions=-1)[site][:, 0].mean(dim=0) for given in (rows, other)]
    torch.testing.assert_close(found, torch.nn.functional.normalize(ends[0] - ends[1], dim=0), atol=1e-5, rtol=1e-5)
    edit, _ = added(site)
    swept = iv.sweep(model, rows, edit, [0.0, 1.0], metric=lambda logits: logits[:, -1, 5], progress=False).frame()
    wanted = iv.capture(model, rows, "logits", edits=[edit])["logits"][:, -1, 5]
    assert swept[swept["strength"] == 1.0]["metric"].tolist() == pytest.approx(wanted.tolist(), abs=1e-5)
