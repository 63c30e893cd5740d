"""Effect against cost: what a direction does to the words it raises, and what it breaks on the way."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from innerview.direction import Direction
from innerview.edits import Edit
from innerview.errors import WidgetError
from innerview.hooks import BoardRun, board_of
from innerview.models.model import Model
from innerview.models.text import token_word
from innerview.runs import Plan, Rows
from innerview.widgets.edit_form import EditForm

STRENGTHS = tuple(float(s) for s in range(-4, 5))
RAISED = 20
SEED = 0


@dataclass(frozen=True, eq=False)
class Response:
    """What a direction did at each strength, teacher-forced along the plain continuation.

    Attributes:
        strengths: Natural steps; 0 and 1 for a direction that is taken out.
        effect: Gain in the summed probability of the raised words, mean over tokens, one a strength.
        cost: Mean KL(plain ‖ edited) in nats a token, one a strength.
        random_effect: The same of a random direction of equal length.
        random_cost: The same of a random direction of equal length.
        words: The words whose probability one step raises most, the most raised first.
    """

    strengths: list[float]
    effect: list[float]
    cost: list[float]
    random_effect: list[float]
    random_cost: list[float]
    words: list[str]


def strengths_of(form: EditForm, limit: float) -> list[float]:
    """The strengths at which a form is measured, zero among them."""
    return [0.0, 1.0] if form.op == "out" else [s * limit / 4 for s in STRENGTHS]


def at_strength(form: EditForm, strength: float) -> EditForm:
    """The form at a strength of its own axis."""
    if form.op == "out":
        return replace(form, on=strength > 0)
    return replace(form, on=True, coefficient=strength)


def measure(
    model: Model,
    form: EditForm,
    directions: list[Direction],
    prompt: list[int],
    written: list[int],
    limit: float,
) -> Response:
    """The response to a form over its strengths.

    Args:
        model: The network.
        form: Which direction, and how it is applied.
        directions: What the form's index points into.
        prompt: Ids of the prompt.
        written: Ids of its plain continuation.
        limit: Largest strength.
    Raises:
        WidgetError: Nothing was written.
    """
    if not written:
        raise WidgetError("the plain continuation is empty, so there is nothing to measure along; give another prompt")
    rivals = [*directions]
    rivals[form.direction] = random_like(directions[form.direction])
    ids, start = torch.tensor([[*prompt, *written]]), len(prompt)
    plain = forced(model, ids, start, [])
    # What a direction promotes at its own layer is seldom what comes out: the words are those that it raises in fact.
    raised = raised_ids(plain, forced(model, ids, start, [at_strength(form, 1.0).edit(directions)]))
    strengths = strengths_of(form, limit)
    effect, cost, random_effect, random_cost = [], [], [], []
    for strength in strengths:
        moved = at_strength(form, strength)
        for known, effects, costs in ((directions, effect, cost), (rivals, random_effect, random_cost)):
            edited = forced(model, ids, start, [moved.edit(known)] if moved.is_active else [])
            effects.append(float((edited.exp() - plain.exp())[:, raised].sum(-1).mean()))
            costs.append(float((plain.exp() * (plain - edited)).sum(-1).clamp(min=0).mean()))
    return Response(
        strengths, effect, cost, random_effect, random_cost, [token_word(model.tokenizer, i) for i in raised.tolist()]
    )


def random_like(direction: Direction) -> Direction:
    """A random direction with the same site and step."""
    noise = torch.randn(direction.vector.shape, generator=torch.Generator().manual_seed(SEED))
    return replace(
        direction,
        vector=noise / noise.norm(),
        center=0.0,
        name=f"random like {direction.name}",
        origin=f"random, seed {SEED}",
    )


def raised_ids(plain: Float[Tensor, "pos vocab"], edited: Float[Tensor, "pos vocab"]) -> Tensor:
    """Ids of the words whose probability an edit raises most, mean over tokens, given log-probabilities without and with it."""
    gain = (edited.exp() - plain.exp()).mean(0)
    return gain.topk(min(RAISED, gain.numel())).indices


def forced(model: Model, ids: Tensor, start: int, edits: list[Edit]) -> Float[Tensor, "pos vocab"]:
    """Log-probabilities of each token from `start` on, given the true tokens before it; what is attached is left out.

    Args:
        model: The network.
        ids: One row, shape [1, pos].
        start: Length of the prompt.
        edits: Edits in force; positions and scopes count the rest as generated.
    """
    board = board_of(model)
    one = torch.tensor([ids.shape[1]])
    rows = Rows(torch.zeros_like(one), one, torch.tensor([start]), is_full=True)
    kept: list[Tensor] = []
    site = model.site("logits")
    run = BoardRun(
        board, Plan.of(model, edits), rows, taps={site.point: [(site, lambda _, value: kept.append(value.detach()))]}
    )
    with torch.no_grad():
        run.call((), {"input_ids": ids.to(model.device), "use_cache": False})
    return torch.log_softmax(kept[0][0, start - 1 : -1].float(), dim=-1).cpu()
