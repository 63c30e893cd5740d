"""Networks that are no plain decoder, and tokenizers whose special tokens stand elsewhere: what is told of a feature there, or refused."""

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoModel, T5Config, T5ForConditionalGeneration

import innerview as iv
from tests.features import made
from tests.models.configs import VOCAB, WIDTH, network, small
from tests.networks import blocks, module, tokenizer

N = 20


def strengthened(mapping: str, kind: str) -> nn.Module:
    """A small random network whose attention and norms do something."""
    root = network(mapping, kind)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, one in root.named_parameters():
            if one.ndim > 1:
                one.mul_(6)
            elif "norm" in name.lower() or "ln" in name.lower():
                one.add_(0.3 * torch.randn_like(one))
    return root


def dictionary(site: str, bos: str = "unknown") -> iv.Dictionary:
    """Random features of which about half are active."""
    g = torch.Generator().manual_seed(0)
    encoder, decoder = torch.randn(N, WIDTH, generator=g) / WIDTH**0.5, torch.randn(N, WIDTH, generator=g)
    weights = iv.Weights(encoder, torch.zeros(N), decoder, torch.zeros(WIDTH))
    return iv.Dictionary(weights, iv.ReLU(), iv.Manifest(False, iv.Normalisation(), site=site, bos=bos))


def rows(n: int = 8) -> list[list[int]]:
    """Rows of ids."""
    return torch.randint(3, VOCAB, (n, 7), generator=torch.Generator().manual_seed(2)).tolist()


@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta"])
def test_a_network_that_looks_ahead_has_features_but_neither_words_nor_a_next_tokens_loss(kind: str) -> None:
    model = iv.open_model(strengthened("masked", kind))
    dash = iv.dashboard(dictionary("blocks.1.resid"), model, rows())
    feature = int(dash.statistics.spread.count.argmax())
    view = dash[feature]
    assert view.n_tokens == 56 and view.n_active > 5 and view.promoted == ()
    assert any("reads something else than the stream behind its last block" in note for note in view.notes)
    with pytest.raises(iv.FeatureError, match="looks ahead"):
        dash.effects(feature)


@pytest.mark.parametrize("kind", ["mamba", "rwkv", "ctrl"])
def test_a_network_without_a_head_takes_its_last_norm_for_no_logits(kind: str) -> None:
    model = iv.open_model(AutoModel.from_config(small(kind)).eval())
    assert "logits" not in model.table and model.vocab is None
    dash = iv.dashboard(dictionary("blocks.1.resid"), model, rows())
    assert dash[0].promoted == () and any("has no 'logits'" in note for note in dash[0].notes)
    with pytest.raises(iv.FeatureError, match="has no logits, so nothing is lost"):
        dash.effects(int(dash.statistics.spread.count.argmax()))


def test_of_an_encoder_decoder_the_encoders_features_are_read_and_the_decoders_refused() -> None:
    torch.manual_seed(0)
    sizes = {"d_model": WIDTH, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 4}
    root = T5ForConditionalGeneration(T5Config(vocab_size=VOCAB, decoder_start_token_id=0, **sizes)).eval()
    model = iv.open_model(root)
    found = iv.feature_statistics(model, dictionary("encoder.blocks.1.resid"), rows())
    assert found.n_tokens == 56 and int(found.spread.count.sum()) > 100
    behind = dictionary("decoder.blocks.1.resid")
    # A text of one token is as long as what the decoder starts from.
    for call in (
        lambda: iv.feature_statistics(model, behind, [[5]]),
        lambda: iv.feature_on_text(model, behind, 0, [5, 6]),
    ):
        with pytest.raises(
            iv.FeatureError, match="in the decoder of T5ForConditionalGeneration, which does not read the texts"
        ):
            call()
    alone = iv.open_model(root.get_decoder())
    assert iv.feature_statistics(alone, dictionary("blocks.1.resid"), rows()).n_tokens == 56


@pytest.mark.parametrize("kind", ["openai-gpt", "bart", "mamba", "gemma2", "cohere", "opt", "gpt_neox", "rwkv"])
def test_words_are_what_the_network_says_behind_its_last_block_for_and_against_a_row(kind: str) -> None:
    model = iv.open_model(strengthened("causal", kind))
    own = dictionary(f"blocks.{model.n_layers - 1}.resid")
    dash, block = iv.dashboard(own, model), model.module.get_submodule(model.site(own.site).module)

    def said(row: torch.Tensor) -> torch.Tensor:
        def instead(_m: nn.Module, _i: object, out: object) -> object:
            x = out if isinstance(out, torch.Tensor) else out[0]  # type: ignore[index]
            new = row.expand_as(x).clone()
            return new if isinstance(out, torch.Tensor) else type(out)((new, *out[1:]))  # type: ignore[index, misc]

        handle = block.register_forward_hook(instead)
        with torch.no_grad():
            logits = model.module(torch.tensor([[5, 6, 7]])).logits[0, -1].double()
        handle.remove()
        return logits

    for feature in range(4):
        row = own.weights.decoder[feature]
        wanted = (said(row) - said(-row)) / 2
        told = [*dash[feature].promoted, *dash[feature].suppressed]
        logits = torch.tensor([word.logit for word in told]).double()
        assert float(torch.corrcoef(torch.stack([wanted[[word.id for word in told]], logits]))[0, 1]) > 0.999


def test_a_feature_is_taken_out_wherever_it_is_shown_as_active_special_tokens_within_a_text_too() -> None:
    root, text = module("llama"), tokenizer()
    model, own = iv.open_model(root, tokenizer=text), made.dictionary()
    own.weights.extras["threshold"].fill_(0.1)
    given = [[1, 5, 2, 9, 2, 30, 31], [1, 6, 8, 2, 2, 12, 13]]
    dash, block = iv.dashboard(own, model, given), blocks(root)[1]
    active = {f: sum(float(v) for v in iv.feature_on_text(model, own, f, given[0]).values[[2, 4]]) for f in range(40)}
    feature = max(active, key=active.get)
    found = dash.effects(feature, 3)
    example = next(one for part in found.stretches for one in part.examples if one.text == 0)
    assert active[feature] > 0 and example.start == 0
    codes = made.dense(model, own, given[0])[:, feature]
    codes[0] = 0
    less = torch.tensor(codes[:, None] * own.weights.decoder[feature].double().numpy()).float()

    def losses() -> np.ndarray:
        with torch.no_grad():
            logits = root(torch.tensor([given[0]])).logits[0, :-1]
        return nn.functional.cross_entropy(logits, torch.tensor(given[0][1:]), reduction="none").numpy()

    plain = losses()
    handle = block.register_forward_hook(
        lambda _m, _i, out: (out[0] - less, *out[1:]) if isinstance(out, tuple) else out - less
    )
    wanted = losses() - plain
    handle.remove()
    np.testing.assert_allclose(example.effects[:6], wanted, rtol=1e-3, atol=1e-3)
    assert np.abs(wanted[2]) > 1e-3


class TwoWays(nn.Module):
    """A network of torch's own layers that looks both ways, and is told of no pads."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.head = nn.Embedding(VOCAB, WIDTH), nn.Linear(WIDTH, VOCAB)
        self.layers = nn.TransformerEncoder(nn.TransformerEncoderLayer(WIDTH, 4, 64, batch_first=True), 2)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(self.embed(input_ids)))


class Named(TwoWays):
    """The same, whose forward calls its ids otherwise."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x)


@pytest.mark.parametrize("kind", [TwoWays, Named])
def test_of_a_network_that_is_told_of_no_pads_rows_of_one_length_run_together(kind: type[nn.Module]) -> None:
    root = kind().eval()
    model, own = iv.open_model(root, tokenizer=tokenizer()), dictionary("module:layers.layers.1")
    given = [row[:n] for n, row in zip((7, 3, 5, 3, 2, 7, 4, 5), rows(), strict=True)]
    dash = iv.dashboard(own, model, given)
    wanted = []
    for row in given:
        x = made.hooked(model, row, root.layers.layers[1]).double().numpy()
        wanted.append(np.maximum(x @ own.weights.encoder.double().numpy().T, 0))
    whole = np.concatenate(wanted)
    np.testing.assert_array_equal(dash.statistics.spread.count.numpy(), (whole > 0).sum(axis=0))
    np.testing.assert_allclose(dash.statistics.spread.total.numpy(), whole.sum(axis=0), rtol=1e-4)
    np.testing.assert_allclose(dash.on_text(3, given[0]).values, wanted[0][:, 3], atol=1e-5)
    with pytest.raises(iv.FeatureError, match="looks ahead"):
        dash.effects(int(dash.statistics.spread.count.argmax()))
