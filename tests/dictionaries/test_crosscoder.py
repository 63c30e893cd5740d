"""Crosscoders and cross-layer transcoders encode, decode and edit as their formulas say in float64."""

from typing import Any

import pytest
import torch
from torch import Tensor

import innerview as iv
from innerview.errors import DictionaryError, EditError, RecipeError
from tests.networks import blocks, ids, opened, ragged

SITES = ("blocks.0.resid", "blocks.2.resid")
N, WIDTH, LAYERS = 40, 32, 3


def random(*shape: int, size: float = 1.0, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * size


def crosscoder(architecture: iv.ReLU | iv.TopK = iv.ReLU(), *, subtracts: bool = False) -> iv.Crosscoder:
    size = (2 * WIDTH) ** -0.5
    weights = iv.Weights(random(N, 64, size=size), random(N, size=0.2, seed=1), random(N, 64, size=size, seed=2), random(64, size=0.3, seed=3))  # fmt: skip
    each = (iv.Normalisation("constant", 0.5), iv.Normalisation("layer_norm"))
    return iv.Crosscoder(weights, architecture, iv.Manifest(subtracts, iv.Normalisation(), site=SITES), (WIDTH, WIDTH), each)  # fmt: skip


def by_hand(own: iv.Crosscoder, acts: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Dense codes, and what each site's decoder makes of any codes is the second's last axis: (shift, scale) by token."""
    one, two = (x.double().flatten(0, -2) for x in acts)
    mean, scale = two.mean(dim=-1, keepdim=True), two.std(dim=-1, keepdim=True) + 1e-5
    ready = [one * 0.5, (two - mean) / scale]
    weights = own.weights
    bias = weights.decoder_bias.double() if own.manifest.subtracts_decoder_bias else torch.zeros(64).double()
    pre = weights.encoder_bias.double() + sum(
        (part - bias[i * WIDTH : (i + 1) * WIDTH]) @ weights.encoder.double()[:, i * WIDTH : (i + 1) * WIDTH].T
        for i, part in enumerate(ready)
    )
    if isinstance(own.architecture, iv.TopK):
        kept = pre.topk(own.architecture.k, dim=-1)
        pre = torch.zeros_like(pre).scatter(-1, kept.indices, kept.values)
    codes = pre.clamp(min=0)
    made = codes @ weights.decoder.double() + weights.decoder_bias.double()
    return codes, [made[:, :WIDTH] / 0.5, made[:, WIDTH:] * scale + mean]


@pytest.mark.parametrize("architecture", [iv.ReLU(), iv.TopK(5)])
@pytest.mark.parametrize("subtracts", [False, True])
def test_a_crosscoder_sums_what_its_sites_encoders_give_and_decodes_to_each(
    architecture: iv.ReLU | iv.TopK, subtracts: bool
) -> None:
    model, own = opened("llama"), crosscoder(architecture, subtracts=subtracts)
    acts = iv.capture(model, ragged((3, 5)), list(SITES))
    parts = [acts[site] for site in SITES]
    codes, made = by_hand(own, parts)
    found = own.encode(acts)
    assert acts.mask is not None and found.shape == (2, 5) and found.n_tokens == 8
    torch.testing.assert_close(found.dense()[acts.mask].double(), codes[acts.mask.flatten()], atol=1e-5, rtol=1e-5)
    assert not found.dense()[~acts.mask].any()
    torch.testing.assert_close(own.encode(dict(zip(SITES, parts, strict=True))).dense().flatten(0, 1).double(), codes, atol=1e-5, rtol=1e-5)  # fmt: skip
    decoded = own.decode(own.encode(parts), parts)
    assert list(decoded) == list(SITES)
    for one, other in zip(decoded.values(), made, strict=True):
        torch.testing.assert_close(one.flatten(0, 1).double(), other, atol=1e-5, rtol=1e-5)
    some = own.encode_features(acts, [3, 9])
    torch.testing.assert_close(some, found.dense()[..., [3, 9]], atol=1e-6, rtol=1e-6)
    norms = torch.stack([own.weights.decoder[:, :WIDTH].norm(dim=1), own.weights.decoder[:, WIDTH:].norm(dim=1)], dim=1)
    torch.testing.assert_close(own.norms(), norms)


@pytest.mark.parametrize("architecture", [iv.ReLU(), iv.TopK(5)])
def test_a_crosscoders_feature_is_clamped_at_its_last_site(architecture: iv.ReLU | iv.TopK) -> None:
    model, own = opened("llama"), crosscoder(architecture)
    x = ids(2, 4)
    acts = iv.capture(model, x, list(SITES))
    codes, _ = by_hand(own, [acts[site] for site in SITES])
    after = codes.clone()
    after[:, 3], after[:, 9] = 4.0, 1.0
    scale = acts[SITES[1]].double().flatten(0, 1).std(dim=-1, keepdim=True) + 1e-5
    change = ((after - codes) @ own.weights.decoder.double()[:, WIDTH:]) * scale
    found = iv.capture(model, x, list(SITES), edits=[own.clamp([3, 9], [4.0, 1.0])])
    expected = acts[SITES[1]].double().flatten(0, 1) + change
    torch.testing.assert_close(found[SITES[1]].flatten(0, 1).double(), expected, atol=1e-4, rtol=1e-5)
    assert torch.equal(found[SITES[0]], acts[SITES[0]])
    with pytest.raises(EditError, match=r"reads 'blocks.2.resid', which comes behind 'blocks.0.resid'"):
        iv.capture(model, x, SITES[0], edits=[own.clamp(3, 1.0, site=SITES[0])])
    with pytest.raises(RecipeError, match="because it is read at several sites"):
        iv.Recipe((own.ablate(3),)).save("never")
    assert own.direction(3, SITES[0]).site == SITES[0]


@pytest.mark.parametrize("architecture", [iv.ReLU(), iv.TopK(5)])
def test_a_crosscoders_feature_is_clamped_at_each_of_its_sites_where_its_texts_were_read_before(
    architecture: iv.ReLU | iv.TopK,
) -> None:
    model, own = opened("llama"), crosscoder(architecture)
    texts = ragged((3, 5, 4))
    acts = iv.capture(model, texts, list(SITES))
    assert acts.mask is not None
    codes, made = by_hand(own, [acts[site] for site in SITES])
    after = codes.clone()
    after[:, 3], after[:, 9] = 4.0, 1.0
    mean = acts[SITES[1]].double().flatten(0, 1).mean(dim=-1, keepdim=True)
    scale = acts[SITES[1]].double().flatten(0, 1).std(dim=-1, keepdim=True) + 1e-5
    new = after @ own.weights.decoder.double() + own.weights.decoder_bias.double()
    wanted = [new[:, :WIDTH] / 0.5, new[:, WIDTH:] * scale + mean]
    edits = own.on(acts).clamp([3, 9], [4.0, 1.0])
    assert [edit.site for edit in edits] == list(SITES)
    for nth, (site, edit) in enumerate(zip(SITES, edits, strict=True)):
        # Alone at its site: what the code says there, and the error that was there. The batches are taken apart row by row.
        found = iv.capture(model, texts, site, edits=[edit], batch_size=1)[site].double().flatten(0, 1)
        expected = acts[site].double().flatten(0, 1) - made[nth] + wanted[nth]
        torch.testing.assert_close(found[acts.mask.flatten()], expected[acts.mask.flatten()], atol=1e-4, rtol=1e-5)
    both = iv.capture(model, texts, list(SITES), edits=list(edits))
    carried = iv.capture(model, texts, SITES[1], edits=[edits[0]])[SITES[1]].double()
    change = (wanted[1] - made[1]).view_as(carried)
    torch.testing.assert_close((carried + change)[acts.mask], both[SITES[1]].double()[acts.mask], atol=1e-4, rtol=1e-5)
    with pytest.raises(EditError, match=r"or write at every site with crosscoder.on\(acts\)"):
        iv.capture(model, texts, SITES[0], edits=[own.clamp(3, 1.0, site=SITES[0])])
    with pytest.raises(
        EditError, match="knows the tokens that it was made from, and 1 of these are others; capture these texts"
    ):
        iv.capture(model, [[*texts[0][:-1], (texts[0][-1] + 1) % 60], *texts[1:]], SITES[0], edits=[edits[0]])
    # Generated tokens were not read before; the prompt's were.
    prompts = [row for row in texts if len(row) == 5]
    known = own.on(iv.capture(model, prompts, list(SITES)))
    with pytest.raises(EditError, match="keep to the prompt"):
        iv.generate(model, prompts, edits=list(known.ablate(3)), max_new_tokens=2).wait()
    edits = known.clamp(3, 40.0, where=iv.Where(scope="prompt"))
    plain, run = (iv.generate(model, prompts, edits=given, max_new_tokens=2) for given in ([], list(edits)))
    assert plain.text != run.text


def test_what_is_no_crosscoder_is_refused() -> None:
    own = crosscoder()
    x = [torch.zeros(2, WIDTH), torch.zeros(2, WIDTH)]
    for wrong in ([x[0]], [x[0], x[1][:1]], {SITES[0]: x[0]}, [x[0], x[1][:, :5]]):
        with pytest.raises(DictionaryError, match="takes a tensor"):
            own.encode(wrong)  # type: ignore[arg-type]
    with pytest.raises(DictionaryError, match=r"give decode\(codes, x\)"):
        own.decode(own.encode(x))
    with pytest.raises(DictionaryError, match="'x' is no site of this crosscoder"):
        own.clamp(3, 1.0, site="x")
    with pytest.raises(DictionaryError, match=r"widths \[32, 31\] make 63"):
        iv.Crosscoder(own.weights, own.architecture, own.manifest, (32, 31))
    with pytest.raises(DictionaryError, match="names as many sites"):
        own.at(["blocks.0.resid"])
    x[1][0, 0] = torch.nan
    with pytest.raises(DictionaryError, match="NaN or infinity"):
        own.encode(x)


def transcoder(architecture: iv.ReLU | iv.JumpReLU | iv.TopK = iv.ReLU()) -> iv.CrossLayerTranscoder:
    size = WIDTH**-0.5
    pairs = [(s, t) for s in range(LAYERS) for t in range(s, LAYERS)]
    weights = iv.CrossLayerWeights(
        tuple(random(N, WIDTH, size=size, seed=i) for i in range(LAYERS)),
        tuple(random(N, size=0.2, seed=10 + i) for i in range(LAYERS)),
        {pair: random(N, WIDTH, size=size, seed=20 + i) for i, pair in enumerate(pairs)},
        tuple(random(WIDTH, size=0.2, seed=40 + i) for i in range(LAYERS)),
        tuple({"threshold": random(N, seed=50 + i).abs()} for i in range(LAYERS)) if isinstance(architecture, iv.JumpReLU) else (),
    )  # fmt: skip
    sites, out = (tuple(f"blocks.{i}.mlp.{side}" for i in range(LAYERS)) for side in ("in", "out"))
    manifest = iv.Manifest(False, iv.Normalisation("constant", 0.5), site=sites, site_out=out)
    return iv.CrossLayerTranscoder(weights, architecture, manifest)


@pytest.mark.parametrize("architecture", [iv.ReLU(), iv.JumpReLU(), iv.TopK(5)])
def test_layers_write_into_their_own_and_later_outputs(architecture: iv.ReLU | iv.JumpReLU | iv.TopK) -> None:
    own, model = transcoder(architecture), opened("llama")
    acts = iv.capture(model, ids(2, 4), [*own.sites, *own.sites_out])
    codes = []
    for layer, site in enumerate(own.sites):
        x, weights = acts[site].double() * 0.5, own.weights
        pre = x @ weights.encoders[layer].double().T + weights.encoder_biases[layer].double()
        if isinstance(architecture, iv.TopK):
            kept = pre.topk(5, dim=-1)
            pre = torch.zeros_like(pre).scatter(-1, kept.indices, kept.values)
        if isinstance(architecture, iv.JumpReLU):
            pre = pre * (pre > weights.extras[layer]["threshold"])
        codes.append(pre.clamp(min=0))
    found = own.encode(acts)
    for one, other in zip(found, codes, strict=True):
        torch.testing.assert_close(one.dense().double(), other, atol=1e-5, rtol=1e-5)
    for target, (site, made) in enumerate(own.decode(found).items()):
        total = own.weights.decoder_biases[target].double() + sum(
            codes[s] @ own.weights.decoders[s, target].double() for s in range(target + 1)
        )
        assert site == own.sites_out[target]
        torch.testing.assert_close(made.double(), total / 0.5, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("architecture", [iv.ReLU(), iv.TopK(5)])
def test_a_clamped_feature_changes_every_layer_that_it_writes_into(architecture: iv.ReLU | iv.TopK) -> None:
    own, model, x = transcoder(architecture), opened("llama"), ids(2, 4)
    edits = own.clamp(1, [3, 9], [4.0, 1.0])
    assert [edit.site for edit in edits] == ["blocks.1.mlp.out", "blocks.2.mlp.out"]
    plain = iv.capture(model, x, [*own.sites, *own.sites_out])
    codes = own.encode(plain)[1].dense().double()
    delta = torch.zeros_like(codes)
    delta[..., 3], delta[..., 9] = 4.0 - codes[..., 3], 1.0 - codes[..., 9]
    found = iv.capture(model, x, [*own.sites, *own.sites_out], edits=list(edits))
    assert torch.equal(found["blocks.0.mlp.out"], plain["blocks.0.mlp.out"])
    change = delta @ own.weights.decoders[1, 1].double() / 0.5
    torch.testing.assert_close(found["blocks.1.mlp.out"].double(), plain["blocks.1.mlp.out"].double() + change, atol=1e-5, rtol=1e-5)  # fmt: skip
    # Layer 2 computes its own output anew from what layer 1 gave, and the feature's direct part comes on top.
    alone = iv.capture(model, x, "blocks.2.mlp.out", edits=[edits[0]])["blocks.2.mlp.out"].double()
    change = delta @ own.weights.decoders[1, 2].double() / 0.5
    torch.testing.assert_close(found["blocks.2.mlp.out"].double(), alone + change, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("has_gradients", [False, True])
def test_spliced_in_with_its_errors_the_forward_is_what_it_was(has_gradients: bool) -> None:
    own, model, x = transcoder(), opened("llama"), ids(2, 4)
    acts = iv.capture(model, x, [*own.sites, *own.sites_out])
    with torch.set_grad_enabled(has_gradients):
        plain = model.module(x).logits
        with iv.spliced(model, own) as splice:
            found = model.module(x).logits
    torch.testing.assert_close(found, plain, atol=1e-5, rtol=1e-5)
    made = own.decode(own.encode(acts))
    for layer, codes in enumerate(own.encode(acts)):
        torch.testing.assert_close(splice.codes[layer], codes.dense(), atol=1e-5, rtol=1e-5)
        site = own.sites_out[layer]
        torch.testing.assert_close(splice.error[layer], acts[site] - made[site], atol=1e-5, rtol=1e-5)


def replacing(model: iv.Model, own: iv.CrossLayerTranscoder, x: Tensor, more: Tensor | None = None, errors: bool = False) -> Tensor:  # fmt: skip
    """Logits with hooks of our own that write each layer's sum, `more` being added to the first layer's codes."""
    read: dict[int, Tensor] = {}
    codes: dict[int, Tensor] = {}
    weights = own.weights

    def reads(layer: int) -> Any:
        return lambda module, args: read.__setitem__(layer, args[0])

    def writes(layer: int) -> Any:
        def hook(module: torch.nn.Module, args: object, output: Tensor) -> Tensor:
            pre = read[layer] * 0.5 @ weights.encoders[layer].T + weights.encoder_biases[layer]
            codes[layer] = pre.relu()
            rows = [codes[s] @ weights.decoders[s, layer] for s in range(layer + 1)]
            made = (sum(rows) + weights.decoder_biases[layer]) / 0.5  # type: ignore[operator]
            if not errors:
                return made
            new = output
            return new if more is None else new + more @ weights.decoders[0, layer] / 0.5

        return hook

    handles = []
    for layer, block in enumerate(blocks(model.module)):
        mlp: Any = block.mlp
        handles.append(mlp.register_forward_pre_hook(reads(layer)))
        handles.append(mlp.register_forward_hook(writes(layer)))
    logits = model.module(x).logits
    for handle in handles:
        handle.remove()
    return logits


@pytest.mark.parametrize("has_gradients", [False, True])
def test_without_its_errors_each_layer_writes_what_the_layers_so_far_make(has_gradients: bool) -> None:
    own, model, x = transcoder(), opened("llama"), ids(2, 4)
    with torch.no_grad():
        expected = replacing(model, own, x)
    with torch.set_grad_enabled(has_gradients), iv.spliced(model, own, error=False) as splice:
        found = model.module(x).logits
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert splice.error == [None] * LAYERS and (expected - model.module(x).logits).abs().max() > 0.1


def test_an_early_features_gradient_counts_what_it_writes_into_every_later_layer() -> None:
    own, model, x = transcoder(), opened("llama"), ids(2, 4)
    with iv.spliced(model, own) as splice:
        number = model.module(x).logits[:, -1, 7].sum()
        found = splice.gradients(number)
    first = torch.zeros(2, 4, N, requires_grad=True)
    (expected,) = torch.autograd.grad(replacing(model, own, x, first, errors=True)[:, -1, 7].sum(), first)
    torch.testing.assert_close(found[0].codes, expected, atol=1e-5, rtol=1e-4)
    told = iv.attribute_features(model, own, x, lambda logits: logits[:, -1, 7], progress=False)
    torch.testing.assert_close(told.features[0].dense(), splice.codes[0].detach() * expected, atol=1e-5, rtol=1e-4)
    assert told.sites == list(own.sites_out)
    with pytest.raises(iv.MetricError, match=r"use iv.GradientTimesActivation\(\)"):
        iv.attribute_features(model, own, x, lambda logits: logits[:, -1, 7], iv.IntegratedGradients())


def test_a_crosscoder_is_not_spliced_in_and_says_what_to_do_instead() -> None:
    own, model = crosscoder(), opened("llama")
    with pytest.raises(DictionaryError, match=r"crosscoder.on\(acts\).clamp"), iv.spliced(model, own):  # type: ignore[arg-type]
        pass
    with pytest.raises(DictionaryError, match="known when its last site has fired"):
        iv.attribute_features(model, [own], ids(1, 3), lambda logits: logits[:, -1, 7])  # type: ignore[list-item]


def test_what_is_no_cross_layer_transcoder_is_refused() -> None:
    own = transcoder()
    weights = own.weights
    with pytest.raises(DictionaryError, match="from layer 1 to layer 0 does not go on"):
        iv.CrossLayerWeights(weights.encoders, weights.encoder_biases, {(1, 0): weights.decoders[0, 0]}, weights.decoder_biases)  # fmt: skip
    with pytest.raises(DictionaryError, match="no decoder goes out from layer 1"):
        iv.CrossLayerWeights(weights.encoders, weights.encoder_biases, {(0, 0): weights.decoders[0, 0]}, weights.decoder_biases)  # fmt: skip
    with pytest.raises(DictionaryError, match="no layer 3 of 3"):
        own.clamp(3, 1, 1.0)
    with pytest.raises(DictionaryError, match="nothing goes from layer 2 to layer 1; it goes to 2"):
        own.direction(2, 1, target=1)
    with pytest.raises(DictionaryError, match="2 codes do not fit 3 layers"):
        own.decode(own.encode([torch.zeros(1, WIDTH)] * 3)[:2])
    with pytest.raises(DictionaryError, match="share no decoder bias or scale"):
        iv.CrossLayerTranscoder(weights, iv.ReLU(), iv.Manifest(True, iv.Normalisation()))
    assert set(weights.to(dtype=torch.float64).tensors()) == set(weights.tensors())
    assert "threshold.2" in transcoder(iv.JumpReLU()).weights.tensors()
