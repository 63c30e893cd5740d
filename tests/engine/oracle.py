"""Oracles that are not innerview's: plain torch hooks on transformers, one row at a time, or counting columns by hand."""

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from tests.networks import blocks

Chosen = Callable[[int, int], float]
"""Position in the row and length of its prompt to the strength of the edit there."""

CHOICES: dict[str, tuple[dict, Chosen]] = {
    "everywhere": ({}, lambda p, n: 1.0),
    "first": ({"positions": 0}, lambda p, n: float(p == 0)),
    "second and third": ({"positions": (1, 2)}, lambda p, n: float(p in (1, 2))),
    "prompt end": ({"positions": -1}, lambda p, n: float(p == n - 1)),
    "before the end": ({"positions": -2}, lambda p, n: float(p == n - 2)),
    "prompt": ({"scope": "prompt"}, lambda p, n: float(p < n)),
    "generated": ({"scope": "generated"}, lambda p, n: float(p >= n)),
    "steps": ({"steps": (0, 2)}, lambda p, n: float(p - n in (0, 2))),
    "behind": ({"positions": 6, "scope": "generated"}, lambda p, n: float(p == 6 and p >= n)),
}


def added(x: Tensor, delta: Tensor, strength: Tensor) -> Tensor:
    """`x + delta` where the strength [rows, q] is not 0, and `x` elsewhere."""
    return torch.where(strength[..., None] != 0, x + delta.to(x.dtype), x)


@contextlib.contextmanager
def hooked(module: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """A plain forward hook that changes what a module returns, a tensor or a tuple."""

    def hook(_: nn.Module, args: tuple, out: object) -> object:
        return (change(out[0]), *out[1:]) if isinstance(out, tuple) else change(out)

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def write_alone(root: nn.Module, row: list[int], layer: int, delta: Tensor, chosen: Chosen, steps: int) -> list[int]:
    """Greedy ids of one row, everything recomputed at each token: a position is an index, nothing else."""
    written = list(row)

    def change(x: Tensor) -> Tensor:
        strength = torch.tensor([[chosen(p, len(row)) for p in range(x.shape[1])]])
        return added(x, delta, strength)

    with hooked(blocks(root)[layer], change), torch.no_grad():
        for _ in range(steps):
            logits = root(input_ids=torch.tensor([written]), use_cache=False).logits
            written.append(int(logits[0, -1].float().argmax()))
    return written[len(row) :]


class Counter:
    """Columns counted by hand through transformers' own generate, for rows padded on the left."""

    def __init__(self, mask: Tensor, chosen: Chosen, delta: Tensor, *, has_cache: bool) -> None:
        self.pads = (mask == 0).sum(1).tolist()
        self.prompts = mask.sum(1).tolist()
        self.chosen = chosen
        self.delta = delta
        self.has_cache = has_cache
        self.seen = 0

    def __call__(self, x: Tensor) -> Tensor:
        rows, q = x.shape[:2]
        each = rows // len(self.pads)
        start = self.seen if self.has_cache else 0
        self.seen += q
        strength = torch.zeros(rows, q)
        for r in range(rows):
            for c in range(q):
                p = start + c - self.pads[r // each]
                strength[r, c] = self.chosen(p, self.prompts[r // each]) if p >= 0 else 0.0
        return added(x, self.delta, strength)


def write_together(
    root: nn.Module,
    ids: Tensor,
    mask: Tensor,
    layer: int,
    delta: Tensor,
    chosen: Chosen,
    steps: int,
    cache: str,
    **options: object,
) -> Tensor:
    """What transformers' own generate writes with a hand-made hook, shape [rows, steps]."""
    own = {"use_cache": cache != "none"}
    if cache == "static":
        own |= {"cache_implementation": "static", "disable_compile": True}
    counter = Counter(mask, chosen, delta, has_cache=cache != "none")
    with hooked(blocks(root)[layer], counter):
        written = root.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=steps, do_sample=False, pad_token_id=0, **own, **options
        )
    return written[:, ids.shape[1] :]
