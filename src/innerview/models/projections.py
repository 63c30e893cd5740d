"""The finer parts of an attention and of a feed-forward: projections, heads and neurons, where they are surely recognised."""

from typing import Any

from torch import nn

from innerview.models.additions import Inside, is_norm
from innerview.models.tracing import Event, text_config

QUERIES = ("q_proj", "query", "q_lin", "wq")
KEYS = ("k_proj", "key", "k_lin", "wk")
VALUES = ("v_proj", "value", "v_lin", "wv")

Found = tuple[int, str, tuple]


def finer_parts(root: nn.Module, kind: str, window: list[Event], added: Event, inside: Inside) -> list[Found]:
    """Finer sites of what ran for one addition: order, name, and path, side, axes, sizes and heads of each."""
    if kind == "attn":
        return [*_attention(root, window), *_inputs(root, kind, window, inside)]
    if kind == "mlp":
        return [*_neurons(root, window), *_inputs(root, kind, window, inside)]
    return []


def _linears(root: nn.Module, window: list[Event]) -> list[tuple[Event, Any]]:
    """Matrices that ran on the whole batch, with their modules."""
    listed = []
    for event in window:
        module = root.get_submodule(event.path)
        weight = getattr(module, "weight", None)
        is_leaf = not any(True for _ in module.children())
        is_matrix = weight is not None and weight.ndim == 2 and not isinstance(module, nn.Embedding)
        if is_leaf and is_matrix and event.first is not None and event.first.ndim == 3 and event.out is not None:
            listed.append((event, module))
    return listed


def _attention(root: nn.Module, window: list[Event]) -> list[Found]:
    linears = _linears(root, window)
    d_head, heads = _heads(root, window)
    if d_head is None or not linears:
        return []
    made: list[Found] = []
    counts: dict[str, int] = {}
    for name, words in (("q", QUERIES), ("k", KEYS), ("v", VALUES)):
        hits = [e for e, _ in linears if e.path.rpartition(".")[2] in words]
        if len(hits) != 1 or hits[0].out is None or hits[0].out.shape[-1] % d_head:
            continue
        counts[name] = hits[0].out.shape[-1] // d_head
        axis = "head" if name == "q" else "kv_head"
        made.append((hits[0].ended, f"attn.{name}", (hits[0].path, "output", ("batch", "pos", axis, "d_head"), (counts[name], d_head), counts[name])))  # fmt: skip
    # A projection with more heads than the attention has carries a gate or another part besides.
    if len(counts) < 3 or counts["q"] != heads or counts["k"] != counts["v"] or heads % counts["k"]:
        return []
    last = max(linears, key=lambda pair: pair[0].ended)[0]
    if last.first is not None and last.first.shape[-1] == heads * d_head:
        made.append((last.began, "attn.heads", (last.path, "input", ("batch", "pos", "head", "d_head"), (heads, d_head), heads)))  # fmt: skip
    return made


def _heads(root: nn.Module, window: list[Event]) -> tuple[int | None, int]:
    """Size of a head and number of heads, as the attention module or the config says."""
    text = text_config(getattr(root, "config", None))
    heads = getattr(text, "num_attention_heads", None)
    for event in window:
        module = root.get_submodule(event.path)
        size = next((v for n in ("head_dim", "attention_head_size", "head_size") if isinstance(v := getattr(module, n, None), int)), None)  # fmt: skip
        own = next((v for n in ("num_heads", "num_attention_heads", "n_heads") if isinstance(v := getattr(module, n, None), int)), heads)  # fmt: skip
        if size is not None and isinstance(own, int):
            return size, own
    return None, 0


def _neurons(root: nn.Module, window: list[Event]) -> list[Found]:
    """The neurons: what enters the last matrix of a feed-forward of two matrices, or of a gated one of three."""
    linears = sorted(_linears(root, window), key=lambda pair: pair[0].ended)
    if len(linears) not in (2, 3):
        return []
    down = linears[-1][0]
    ups = [e for e, _ in linears[:-1]]
    if down.first is None or any(e.out is None or e.out.shape != down.first.shape for e in ups):
        return []
    axes, sizes = ("batch", "pos", "d_mlp"), (down.first.shape[-1],)
    made: list[Found] = [(down.began, "mlp.hidden", (down.path, "input", axes, sizes, None))]
    names = {e.path.rpartition(".")[2]: e for e in ups}
    if len(ups) == 1:
        made.append((ups[0].ended, "mlp.pre", (ups[0].path, "output", axes, sizes, None)))
    elif set(names) == {"gate_proj", "up_proj"}:
        made.append((names["gate_proj"].ended, "mlp.gate", (names["gate_proj"].path, "output", axes, sizes, None)))
        made.append((names["up_proj"].ended, "mlp.pre", (names["up_proj"].path, "output", axes, sizes, None)))
    return made


def _inputs(root: nn.Module, kind: str, window: list[Event], inside: Inside) -> list[Found]:
    """The norm's output that an attention or feed-forward reads: what its first matrix, or a module around that, receives."""
    outer = [e for e in window if not is_norm(e, root) and e.first is not None]
    if not outer:
        return []
    first = min(outer, key=lambda e: e.began)
    norms = [e for e in inside.events if is_norm(e, root) and e.out is not None and e.ended < first.began]
    found = [e for e in norms if e.out is not None and first.first is not None and e.out.shape == first.first.shape and bool((e.out == first.first).all())]  # fmt: skip
    if len(found) != 1 or found[0].out is None:
        return []
    out = found[0].out
    return [(found[0].ended, f"{kind}.in", (found[0].path, "output", ("batch", "pos", "d_model"), tuple(out.shape[2:]), None))]  # fmt: skip
