"""Losses of crosscoders and cross-layer transcoders, against the publications' formulas, written densely in float64."""

import dataclasses

import pytest
import torch
from torch import Tensor, nn

import innerview as iv
from innerview.dictionaries.architectures import Architecture, Step
from innerview.dictionaries.architectures.across_layers import AcrossLayers
from innerview.dictionaries.architectures.across_sites import AcrossSites
from innerview.dictionaries.weights import Weights
from tests.dictionaries.test_losses import FEATURES, ROWS, WIDTH, Rectangle, a_step, check, drawn, error_of, pre_of

WIDTHS = (4, 6)


def lengths_of(w: dict[str, Tensor]) -> Tensor:
    """Lengths of a feature's rows at the two sites, summed."""
    return (w["decoder"][:, :4] ** 2).sum(1).sqrt() + (w["decoder"][:, 4:] ** 2).sum(1).sqrt()


def test_a_crosscoder_pays_for_codes_times_the_lengths_of_their_rows_at_all_sites() -> None:
    def formula(w: dict[str, Tensor], x: Tensor, target: Tensor) -> dict[str, Tensor]:
        codes = torch.relu(pre_of(w, x))
        cost = (codes * lengths_of(w)).sum(1).mean() * 0.7 / WIDTH**0.5
        return {"reconstruction": error_of(w, codes, x, target), "sparsity": cost}

    check(AcrossSites(iv.ReLU(l1=0.7), WIDTHS), formula, a_step())


def test_a_crosscoder_with_batch_top_k_chooses_by_codes_times_lengths() -> None:
    def formula(w: dict[str, Tensor], x: Tensor, target: Tensor) -> dict[str, Tensor]:
        weighed = pre_of(w, x) * lengths_of(w)
        kept = torch.zeros(weighed.numel(), dtype=x.dtype).scatter(0, weighed.flatten().topk(3 * ROWS).indices, 1.0)
        codes = torch.relu(pre_of(w, x) * kept.view_as(weighed))
        return {"reconstruction": error_of(w, codes, x, target)}

    check(AcrossSites(iv.BatchTopK(3), WIDTHS), formula, a_step())


@pytest.mark.parametrize("inner", [iv.ReLU(), iv.TopK(3), iv.TanhJumpReLU(first_threshold=2.0, bandwidth=0.3)])
def test_what_a_crosscoder_leaves_codes_as_it_was_trained_with_rows_whose_lengths_sum_to_one(
    inner: Architecture,
) -> None:
    architecture = AcrossSites(inner, WIDTHS)
    weights, x, target = drawn(architecture)
    losses = architecture.losses(weights, x, target, a_step())
    used, finished = architecture.finished(weights, 0)
    found = losses.codes if isinstance(losses.codes, Tensor) else losses.codes.dense()
    torch.testing.assert_close(used.encode(finished, x), found)
    torch.testing.assert_close(found @ finished.decoder + finished.decoder_bias, losses.decoded)
    parts = finished.decoder.split(list(WIDTHS), dim=-1)
    torch.testing.assert_close(
        sum(part.norm(dim=-1) for part in parts), torch.ones(FEATURES, dtype=torch.float64), rtol=1e-9, atol=1e-9
    )


def tanh_parts(
    w: dict[str, Tensor], pre: Tensor, codes: Tensor, lengths: Tensor, d: int, share: float
) -> dict[str, Tensor]:
    """The penalties of circuit tracing, for inputs of mean squared length 1 where the numbers are for d."""
    theta = w["log_threshold"].exp()
    return {
        "sparsity": share * 3.0 / d * torch.tanh(2.0 * d**0.5 * lengths * codes).sum(1).mean(),
        "below": 0.1 / d**0.5 * (torch.relu(theta - pre) * lengths).sum(1).mean(),
    }


NUMBERS = {"sparsity": 3.0, "steepness": 2.0, "below": 0.1, "first_threshold": 2.0, "bandwidth": 1.5}


def test_tanh_jump_relu_pays_for_the_tanh_of_codes_and_for_what_stays_below() -> None:
    def formula(w: dict[str, Tensor], x: Tensor, target: Tensor) -> dict[str, Tensor]:
        pre = pre_of(w, x)
        codes = Rectangle.apply(pre, w["log_threshold"].exp(), 1.5 / WIDTH**0.5, False)
        lengths = (w["decoder"] ** 2).sum(1).sqrt()
        return {"reconstruction": error_of(w, codes, x, target)} | tanh_parts(w, pre, codes, lengths, WIDTH, 0.5)

    check(iv.TanhJumpReLU(**NUMBERS), formula, a_step())
    check(iv.TanhJumpReLU(**NUMBERS), formula, a_step(), skip=True)


LAYERS, EACH = 3, 4


def cross_layer_weights() -> tuple[AcrossLayers, Weights, Tensor, Tensor]:
    architecture = AcrossLayers(iv.TanhJumpReLU(**NUMBERS), LAYERS)
    of = torch.Generator().manual_seed(2)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=of, dtype=torch.float64)

    n, d_in, d_out = LAYERS * EACH, LAYERS * 5, LAYERS * 2
    extras = {name: t.double() + 0.1 * normal(n) for name, t in architecture.initial_extras(n, d_in).items()}
    whole = Weights(normal(n, d_in), 0.3 * normal(n), normal(n, d_out), normal(d_out), None, extras)
    made = architecture.initial(whole)
    own = [nn.Parameter(t) for t in (3 * made.encoder, made.encoder_bias, made.decoder, made.decoder_bias)]
    weights = Weights(*own, None, {name: nn.Parameter(t) for name, t in extras.items()})
    return architecture, weights, normal(ROWS, d_in), normal(ROWS, d_out)


def test_a_cross_layer_transcoder_sums_what_all_earlier_layers_write_and_pays_by_whole_rows() -> None:
    architecture, weights, x, target = cross_layer_weights()
    step = Step(50, 100, torch.zeros(LAYERS * EACH, dtype=torch.int64), 0, 100)
    losses = architecture.losses(weights, x, target, step)
    losses.total.backward()
    w = {name: t.detach().clone().requires_grad_() for name, t in weights.tensors().items()}
    decoded, pres, all_codes = [w["decoder_bias"][2 * m : 2 * m + 2].expand(ROWS, 2) for m in range(LAYERS)], [], []
    for layer in range(LAYERS):
        mine = slice(EACH * layer, EACH * (layer + 1))
        pre = x[:, 5 * layer : 5 * layer + 5] @ w["encoder"][mine].T + w["encoder_bias"][mine]
        codes = Rectangle.apply(pre, w["log_threshold"][mine].exp(), 1.5 / 15**0.5, False)
        for later in range(layer, LAYERS):
            decoded[later] = decoded[later] + codes @ w["decoder"][mine, 2 * later : 2 * later + 2]
        pres.append(pre)
        all_codes.append(codes)
    pre, codes = torch.cat(pres, 1), torch.cat(all_codes, 1)
    lengths = torch.stack([(w["decoder"][i, 2 * (i // EACH) :] ** 2).sum().sqrt() for i in range(LAYERS * EACH)])
    error = sum(((decoded[m] - target[:, 2 * m : 2 * m + 2]) ** 2).sum(1).mean() for m in range(LAYERS))
    wanted = {"reconstruction": error} | tanh_parts(w, pre, codes, lengths, 6, 0.5)
    assert set(losses.parts) == set(wanted)
    for name, value in wanted.items():
        torch.testing.assert_close(losses.parts[name], value)
    torch.testing.assert_close(losses.codes, codes.detach())
    sum(wanted.values()).backward()  # type: ignore[union-attr]
    for name, tensor in weights.tensors().items():
        torch.testing.assert_close(tensor.grad, w[name].grad, msg=lambda m, n=name: f"{n}: {m}")


def test_nothing_is_written_into_earlier_layers_and_what_is_left_is_a_transcoder_of_all() -> None:
    architecture, weights, x, target = cross_layer_weights()
    step = Step(50, 100, torch.zeros(LAYERS * EACH, dtype=torch.int64), 0, 100)
    losses = architecture.losses(weights, x, target, step)
    used, finished = architecture.finished(weights, 0)
    assert used == iv.JumpReLU() and not finished.decoder[EACH:, :2].any() and finished.decoder[:EACH].all()
    torch.testing.assert_close(used.encode(finished, x), losses.codes)
    torch.testing.assert_close(losses.codes @ finished.decoder + finished.decoder_bias, losses.decoded)


def test_numbers_of_the_loss_are_free_of_the_inputs_scale() -> None:
    architecture = dataclasses.replace(iv.TanhJumpReLU(), below=0.0)
    assert torch.allclose(architecture.initial_extras(3, 100)["log_threshold"].exp(), torch.tensor(0.01))
    with pytest.raises(iv.DictionaryError, match="steepness"):
        iv.TanhJumpReLU(steepness=-1.0)
