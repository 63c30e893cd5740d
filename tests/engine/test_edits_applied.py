"""Every edit inside networks: batches, caches, heads and neurons, training loops, containers, and what is told of the tokens."""

from typing import Any

import pytest
import torch
from torch import Tensor

import innerview as iv
from innerview.errors import EditError
from tests.networks import CONTAINERS, blocks, direction, ids, inside, opened, padded, ragged, toy

SITE = "blocks.1.resid"
D, E = direction(), direction(seed=1, name="e")
MATRIX = torch.randn(32, 32, generator=torch.Generator().manual_seed(3)) / 8
BIAS = torch.randn(32, generator=torch.Generator().manual_seed(4))


def bowl(x: Tensor) -> Tensor:
    return -((x - 1) ** 2).flatten(2).sum(-1) / 2


EDITS: dict[str, Any] = {
    "add": lambda **at: iv.Add(D, 0.2, **at),
    "project out": lambda **at: iv.ProjectOut([D, E], **at),
    "cap": lambda **at: iv.Cap(D, at_most=-0.3, unit="raw", **at),
    "scale": lambda **at: iv.Scale(1.7, **at),
    "replace": lambda **at: iv.Replace(BIAS, **at),
    "transport": lambda **at: iv.Transport(MATRIX, BIAS, **at),
    "rotate": lambda **at: iv.Rotate(D, 40, **at),
    "gradient": lambda **at: iv.GradientSteer(bowl, 0.3, n_steps=2, **at),
    "custom": lambda **at: iv.Custom(lambda x, context: x.flip(-1), **at),
}
EVERY = pytest.mark.parametrize("name", EDITS)


@EVERY
def test_an_edit_in_a_network_is_its_formula_at_the_chosen_tokens(name: str) -> None:
    model, x = opened("llama", layers=2), ids(2, 5)
    edit = EDITS[name](site="blocks.0.resid", where=iv.Where(positions=(1, -1)))
    plain = iv.capture(model, x, "blocks.0.resid")["blocks.0.resid"]
    found = iv.capture(model, x, "blocks.0.resid", edits=[edit])["blocks.0.resid"]
    assert torch.allclose(found[:, [1, 4]], edit.apply(plain)[:, [1, 4]], atol=1e-5)
    assert torch.equal(found[:, [0, 2, 3]], plain[:, [0, 2, 3]]) and not torch.equal(found, plain)


@EVERY
@pytest.mark.parametrize("left", [True, False])
def test_a_batch_is_edited_as_its_rows_alone_however_it_is_padded(name: str, left: bool) -> None:
    model, rows = opened("gpt2", layers=2), ragged((3, 6))
    edits = [EDITS[name](site="blocks.0.resid", where=iv.Where(positions=(0, -1)))]
    x, mask = padded(rows, left=left)
    given = {"input_ids": x, "attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clamp(min=0)}
    batch = iv.capture(model, given, SITE, edits=edits)[SITE]
    for i, row in enumerate(rows):
        alone = iv.capture(model, [row], SITE, edits=edits)[SITE][0]
        assert torch.allclose(batch[i][mask[i].bool()], alone, atol=1e-4)


@EVERY
def test_a_cache_changes_nothing_in_what_is_written(name: str) -> None:
    model = opened("llama", layers=2)
    edits = [EDITS[name](site="blocks.0.resid", where=iv.Where(scope="generated"))]
    written = []
    for cache in ("dynamic", "none"):
        run = iv.generate(model, ragged((3, 5)), edits=edits, max_new_tokens=6, cache=cache)  # type: ignore[arg-type]
        run.wait()
        written.append(run.tokens_so_far)
    assert written[0] == written[1]


@EVERY
@pytest.mark.parametrize("kind", CONTAINERS)
def test_every_row_is_edited_alike_in_every_container(name: str, kind: str) -> None:
    root = toy(kind, width=32)
    model, edit = iv.open_model(root), EDITS[name](site="module:first")
    x = torch.randn(1, 4, 32).repeat(3, 1, 1)
    with iv.editing(model, [edit]), torch.no_grad():
        found = root(x)
    assert isinstance(root.last_type, type)
    kept = root.last_type
    with torch.no_grad():
        wanted = inside(root.second(edit.apply(inside(root.first(x)))))
        root(x)
    assert kept is root.last_type
    assert torch.allclose(found, wanted, atol=1e-6) and torch.allclose(found, found[:1].expand_as(found), atol=1e-6)


@EVERY
def test_a_users_training_loop_learns_through_an_edit(name: str) -> None:
    model, x = opened("gpt2", layers=2), ids(2, 6)
    root = model.module
    optimizer = torch.optim.SGD(root.parameters(), lr=1e-3)
    before = {n: p.detach().clone() for n, p in root.named_parameters()}
    losses = []
    with iv.editing(model, [EDITS[name](site="blocks.0.resid")]):
        for _ in range(4):
            optimizer.zero_grad()
            loss = root(input_ids=x, labels=x).loss
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    moved = {n for n, p in root.named_parameters() if not torch.equal(p, before[n])}
    first = {n for n in moved if ".h.0." in n}
    # A value put in place of everything cuts what lies below it off; every other edit lets gradients through.
    assert (first == set()) == (name == "replace") and any(".h.1." in n for n in moved)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("name", ["scale", "custom", "gradient"])
def test_chosen_heads_are_edited_and_the_others_keep_their_last_bit(family: str, name: str) -> None:
    model, x, site = opened(family), ids(2, 4), "blocks.1.attn.heads"
    edit = EDITS[name](site=site, heads=(0, 3))
    plain = iv.capture(model, x, site)[site]
    found = iv.capture(model, x, [site, "logits"], edits=[edit])
    assert torch.equal(found[site][:, :, 1:3], plain[:, :, 1:3])
    assert torch.allclose(found[site][:, :, [0, 3]], EDITS[name](site=site).apply(plain)[:, :, [0, 3]], atol=1e-5)
    assert not torch.allclose(found["logits"], iv.capture(model, x, "logits")["logits"], atol=1e-4)


def test_a_neuron_is_silenced_alone() -> None:
    model, x, site = opened("llama"), ids(1, 4), "blocks.*.mlp.hidden"
    found = iv.capture(model, x, site, edits=[iv.Scale(0.0, site=site, neurons=(5, 40))]).stack(site)
    plain = iv.capture(model, x, "blocks.0.mlp.hidden")["blocks.0.mlp.hidden"]
    assert not found[..., [5, 40]].any() and found[..., 6].any()
    assert torch.equal(found[0][..., :5], plain[..., :5])


def test_heads_of_a_score_are_those_of_its_own_axis() -> None:
    model, x, site = opened("llama"), ids(1, 5), "blocks.1.attn.pattern"
    if not model.site(site).is_editable:
        with pytest.raises(EditError, match=r"edit 'blocks.1.attn.heads' instead"):
            iv.capture(model, x, site, edits=[iv.Scale(0.0, site=site, heads=2)])
        return
    found = iv.capture(model, x, site, edits=[iv.Scale(0.0, site=site, heads=2)])[site]
    assert not found[:, 2].any() and found[:, [0, 1, 3]].sum(-1).allclose(torch.ones(1, 3, 5))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            iv.Scale(0.0, site="blocks.1.resid", heads=(1,)),
            r"'blocks.1.resid' has no heads: it is \[batch, pos, d_model=32\]",
        ),
        (
            iv.Scale(0.0, site="blocks.1.attn.heads", heads=(4,)),
            r"no head 4 at 'blocks.1.attn.heads', which has 4; use 0 to 3",
        ),
        (iv.Scale(0.0, site="blocks.1.attn.k", heads=(2,)), r"no head 2 at 'blocks.1.attn.k', which has 2; use 0 to 1"),
        (iv.Scale(0.0, site="blocks.1.mlp.hidden", neurons=(48,)), r"no neuron 48 at .*, which has 48; use 0 to 47"),
        (iv.Cap(direction(width=7), at_most=1.0), r"a direction 7 wide does not fit 'blocks.1.resid'"),
        (iv.Transport(torch.ones(7), torch.ones(7), site=SITE), r"7 wide does not fit 'blocks.1.resid'"),
    ],
)
def test_what_a_site_lacks_is_refused_before_anything_runs(edit: Any, message: str) -> None:
    model = opened("llama")
    with pytest.raises(EditError, match=message):
        iv.attach(model, [edit])
    assert iv.attached(model) == []


def test_each_row_has_a_coefficient_of_its_own_in_generation_with_beams() -> None:
    model, rows = opened("llama", layers=2), ragged((4, 4))
    edit = iv.Add(direction("blocks.0.resid"), [0.0, 0.5])
    run = iv.generate(model, rows, edits=[edit], max_new_tokens=4)
    run.wait()
    for row, coefficient, found in zip(rows, (0.0, 0.5), run.tokens_so_far, strict=True):
        alone = iv.generate(model, [row], edits=[edit.with_coefficient(coefficient)], max_new_tokens=4)
        alone.wait()
        assert found == alone.tokens_so_far[0]
    with iv.editing(model, [edit]), torch.no_grad():
        beams = model.module.generate(
            torch.tensor(rows), max_new_tokens=4, num_beams=3, do_sample=False, pad_token_id=0
        )
    for row, coefficient, found in zip(rows, (0.0, 0.5), beams, strict=True):
        with iv.editing(model, [edit.with_coefficient(coefficient)]), torch.no_grad():
            alone = model.module.generate(
                torch.tensor([row]), max_new_tokens=4, num_beams=3, do_sample=False, pad_token_id=0
            )
        assert found.tolist() == alone[0].tolist()


def test_another_prompts_activations_go_to_the_same_positions_with_pads_and_a_cache() -> None:
    model, site = opened("llama", layers=2), "blocks.0.resid"
    donor = iv.capture(model, ragged((4,), seed=9), site)
    edit = iv.Replace.from_activations(donor, site, row=0, where=iv.Where(positions=range(4)))
    rows = ragged((6, 4))
    x, mask = padded(rows, left=True)
    given = {"input_ids": x, "attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clamp(min=0)}
    found = iv.capture(model, given, site, edits=[edit])[site]
    assert torch.equal(found[0, :4], donor[site][0]) and torch.equal(found[1, 2:], donor[site][0])
    assert torch.equal(found[0, 4:], iv.capture(model, [rows[0]], site)[site][0, 4:])
    written = []
    for cache in ("dynamic", "none"):
        run = iv.generate(model, rows, edits=[edit], max_new_tokens=4, cache=cache)  # type: ignore[arg-type]
        run.wait()
        written.append(run.tokens_so_far)
    assert written[0] == written[1]
    with pytest.raises(EditError, match=r"has 4 positions, and the edit asks for position 5; limit it with where="):
        iv.capture(model, [rows[0]], site, edits=[iv.Replace.from_activations(donor, site, row=0)])


def test_one_prompts_activations_go_to_every_row_by_position() -> None:
    model, site = opened("gpt2", layers=2), "blocks.0.resid"
    value = iv.capture(model, ragged((3,), seed=9), site)[site][0]
    edit = iv.Replace(value, site=site, where=iv.Where(positions=range(3)))
    x, mask = padded(ragged((6, 4)), left=True)
    given = {"input_ids": x, "attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clamp(min=0)}
    found = iv.capture(model, given, site, edits=[edit])[site]
    assert torch.equal(found[0, :3], value) and torch.equal(found[1, 2:5], value)


def test_scores_take_a_value_and_a_schedule_and_refuse_a_gradient() -> None:
    model, x, site = opened("llama", layers=2), ids(2, 5), "blocks.1.attn.pattern"
    even = torch.full((4, 5, 5), 0.2)
    at = iv.Where(positions=(2, 4))
    found = iv.capture(model, x, site, edits=[iv.Replace(even, site=site, heads=1, where=at)])[site]
    plain = iv.capture(model, x, site)[site]
    assert torch.equal(found[:, 1, [2, 4]], torch.full((2, 2, 5), 0.2)) and torch.equal(found[:, 0], plain[:, 0])
    assert torch.equal(found[:, 1, [0, 1, 3]], plain[:, 1, [0, 1, 3]])
    half = iv.capture(model, x, site, edits=[iv.Scale(0.0, site=site, where=iv.Where(schedule=iv.Constant(0.5)))])[site]
    assert torch.allclose(half, plain / 2, atol=1e-6)
    with pytest.raises(
        EditError, match=r"gives one score a token, and 'blocks.1.attn.pattern' is \[batch, head, pos, key\]"
    ):
        iv.attach(model, [iv.GradientSteer(bowl, site=site)])


def test_a_function_is_told_where_it_is() -> None:
    model, told = opened("llama", layers=2), []

    def keep(x: Tensor, context: Any) -> Tensor:
        told.append((context.site.name, context.pos.tolist(), context.step.tolist()))
        return x

    iv.generate(model, ragged((2, 3)), edits=[iv.Custom(keep, site="blocks.*.resid")], max_new_tokens=2).wait()
    assert told[0] == ("blocks.0.resid", [[-1, 0, 1], [0, 1, 2]], [[-3, -2, -1], [-3, -2, -1]])
    assert told[2] == ("blocks.0.resid", [[2], [3]], [[0], [0]])
    assert {name for name, _, _ in told} == {"blocks.0.resid", "blocks.1.resid"}


def test_a_function_outside_of_a_forward_of_ids_is_told_that_positions_are_unknown() -> None:
    root = toy("tensor", width=32)
    model = iv.open_model(root)
    with (
        pytest.raises(EditError, match=r"positions at 'module:first' are unknown: the network was not called with ids"),
        iv.editing(model, [iv.Custom(lambda x, context: x * context.pos[0, 0], site="module:first")]),
    ):
        root(torch.randn(1, 2, 32))


def test_a_gradient_goes_up_its_score_and_leaves_the_networks_own_gradients_alone() -> None:
    model, x, site = opened("gpt2"), ids(1, 4), "blocks.1.resid"
    probe = torch.nn.Linear(32, 1)

    def score(h: Tensor) -> Tensor:
        return torch.tanh(probe(h))[..., 0]

    with torch.no_grad():
        plain = score(iv.capture(model, x, site)[site])
        moved = score(
            iv.capture(model, x, site, edits=[iv.GradientSteer(score, 0.5, n_steps=5, is_unit=True, site=site)])[site]
        )
    assert (moved > plain).all()
    assert probe.weight.grad is None and all(p.grad is None for p in model.module.parameters())


@pytest.mark.parametrize("kind", ["capture", "block", "attachment", "generation"])
def test_a_score_may_ask_the_networks_own_head_and_is_no_part_of_the_forward(kind: str) -> None:
    """The network is called inside an edit, where its hooks would be heard, and its edits applied, a second time."""
    model, x = opened("llama"), ids(1, 4)
    net: Any = model.module
    seen: list[Tensor] = []

    def score(h: Tensor) -> Tensor:
        return net.lm_head(net.model.norm(h))[..., 5]

    def count(h: Tensor, context: Any) -> Tensor:
        seen.append(h)
        return h + 1.0

    head = net.lm_head.weight.detach(), net.model.norm
    other = iv.GradientSteer(
        lambda h: torch.nn.functional.linear(head[1].forward(h), head[0])[..., 5], 0.3, n_steps=2, site="blocks.0.resid"
    )
    steered = iv.GradientSteer(score, 0.3, n_steps=2, site="blocks.0.resid")
    behind = iv.Custom(count, site="final_norm")
    wanted = iv.capture(model, x, ["final_norm", "logits"], edits=[other, behind])
    seen.clear()
    if kind == "capture":
        found = iv.capture(model, x, ["final_norm", "logits"], edits=[steered, behind])
        assert torch.equal(found["final_norm"], wanted["final_norm"])
        logits = found["logits"]
    elif kind == "block":
        with iv.editing(model, [steered, behind]), torch.no_grad():
            logits = net(x).logits
    elif kind == "attachment":
        iv.attach(model, [steered, behind])
        with torch.no_grad():
            logits = net(x).logits
        iv.detach(model)
    else:
        run = iv.generate(model, x, edits=[steered, behind], max_new_tokens=1, readings=[direction("final_norm")])
        run.wait()
        assert len(run.projections["d"][0]) == 4
        assert run.tokens_so_far[0][0] == int(wanted["logits"][0, -1].argmax())
        return
    assert torch.equal(logits, wanted["logits"]) and len(seen) == 1


def test_a_score_may_run_the_whole_network() -> None:
    model, x = opened("gpt2", layers=2), ids(2, 5)
    net: Any = model.module

    def score(h: Tensor) -> Tensor:
        return net(inputs_embeds=h).logits.log_softmax(-1)[..., 7]

    edit = iv.GradientSteer(score, 0.5, n_steps=3, site="embed", where=iv.Where(positions=(0, -1)))
    plain, found = (iv.capture(model, x, ["embed", "logits"], edits=e) for e in ([], [edit]))
    assert torch.equal(found["embed"][:, 1:4], plain["embed"][:, 1:4])
    gain = (found["logits"].log_softmax(-1) - plain["logits"].log_softmax(-1))[..., 7]
    assert (gain.sum(-1) > 0).all()


def test_an_attached_function_is_replaced_by_the_same_cell_and_not_by_another() -> None:
    model = opened("gpt2", layers=2)

    def cell(factor: float) -> None:
        iv.attach(model, [iv.Custom(lambda x, context: x * factor, site="blocks.0.resid", name="times")])

    two, three = 2.0, 3.0
    cell(two), cell(two)
    assert len(iv.attached(model)) == 1
    cell(three)
    assert [one.name for one in iv.attached(model)] == ["times at blocks.0.resid", "times at blocks.0.resid (2)"]
    iv.detach(model)


@EVERY
def test_edits_of_one_site_compose_in_their_order(name: str) -> None:
    model, x, site = opened("llama", layers=2), ids(1, 4), "blocks.0.resid"
    first, second = EDITS[name](site=site), iv.Scale(0.5, site=site, neurons=range(16))
    plain = iv.capture(model, x, site)[site]
    found = iv.capture(model, x, site, edits=[first, second])[site]
    assert torch.allclose(found, second.apply(first.apply(plain)), atol=1e-5)
    with iv.editing(model, [first]), iv.editing(model, [second]), torch.no_grad():
        seen: list[Tensor] = []
        handle = blocks(model.module)[1].register_forward_pre_hook(lambda m, args: seen.append(args[0]))
        model.module(x)
        handle.remove()
    assert torch.equal(seen[0], found)
