"""Every class of transformers' language-model mappings: built small, opened, captured, edited; and the page that lists them.

`python -m tests.models.architectures` writes docs/architectures.md.
"""

import sys
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from torch import Tensor, nn

import innerview as iv
from tests.models.configs import CAUSAL, INNER, MASKED, MISSING, network

PAGE = Path(__file__).resolve().parents[2] / "docs" / "architectures.md"
ROWS, TOKENS = 2, 5
# What is asked of each, through the public calls alone.
CHECKS = {
    "captured": "every site of the table can be captured; by module path, the module that the refusal names, or another where that runs several times",
    "handed on": "each block's `resid` is bitwise the next one's `resid_in`",
    "zero": "adding zero at every site that can be edited leaves the output bitwise as it was",
    "moves": "a vector added behind the first block moves every row of the output",
    "sums": "`resid = resid_in + attn.out + mlp.out` (and what else the block adds)",
}
# Blocks whose stream passes norms behind the sums, or whose sums are of more than their modules' outputs.
APART = "the sum is normed, gated or split into streams"


@dataclass(frozen=True)
class Report:
    """What was seen of one class.

    Attributes:
        mapping: `causal` or `masked`.
        model_type: Its config's type.
        kind: Its class.
        opened_by: `table`, `finding` or `path`; empty where it could not be built.
        blocks: Number of blocks whose sites are named.
        passed: Names of the checks that hold.
        failed: Names of the checks that should hold and do not, with what was seen.
        note: Why it could not be built, why sites are refused, or which sums do not apply.
    """

    mapping: str
    model_type: str
    kind: str
    opened_by: str = ""
    blocks: int = 0
    passed: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    note: str = ""


def report(mapping: str, model_type: str) -> Report:
    """One class, built, opened and put to every check."""
    if model_type in MISSING:
        return Report(mapping, model_type, "", note=MISSING[model_type])
    module = network(mapping, model_type)
    model = iv.open_model(module)
    kind = type(module).__name__
    reason = next(iter(model.refused.values()), "")
    if model_type == "gemma4_unified_assistant":
        return Report(mapping, model_type, kind, model.opened_by, note="runs only beside the network that it assists")
    if not model.table:
        passed, failed = _by_path(model, reason)
        return Report(mapping, model_type, kind, model.opened_by, 0, passed, failed, reason)
    passed, failed, note = _by_name(model)
    return Report(
        mapping, model_type, kind, model.opened_by, len(_stack(model, "resid")), passed, failed, note or reason
    )


def inputs(model: iv.Model) -> dict[str, object]:
    """A few ids as the network takes them."""
    count = ROWS * getattr(model.module, "num_codebooks", 1)
    ids = (torch.arange(count * TOKENS) * 3 % 40 + 40).view(count, TOKENS)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": False}


def output(model: iv.Model) -> Tensor:
    """The network's logits, under whatever edits are open."""
    torch.manual_seed(0)
    with torch.no_grad():
        made = model.module(**inputs(model))
    return made.logits if hasattr(made, "logits") else made[0]


def _by_path(model: iv.Model, reason: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The module that the refusal names: captured, and edited."""
    named = [word.strip(",;.") for word in reason.split() if word.startswith("module:") and "<" not in word]
    site = named[0] if named else _module_of_some_width(model)
    passed, failed = [], []
    try:
        seen = []
        handle = model.module.get_submodule(site.removeprefix("module:")).register_forward_hook(
            lambda m, a, o: seen.append(o)
        )
        before = output(model)
        handle.remove()
        iv.capture(model, inputs(model), site if len(seen) == 1 else _runs_once(model))
        passed.append("captured")
        with iv.editing(model, [_custom(site, 0.0)]):
            (passed if torch.equal(before, output(model)) else failed).append("zero")
        with iv.editing(model, [_custom(site, 1.0)]):
            (passed if _moved(before, output(model)) else failed).append("moves")
    except iv.InnerviewError as error:
        failed.append(f"{site}: {error}")
    return tuple(passed), tuple(failed)


def _module_of_some_width(model: iv.Model) -> str:
    """A module in the middle of a network that has no blocks to name."""
    norms = [path for path, m in model.module.named_modules() if isinstance(m, nn.LayerNorm)]
    return f"module:{norms[len(norms) // 2]}"


def _runs_once(model: iv.Model) -> str:
    """A module that runs once, in a network that runs its blocks several times."""
    counts: Counter[str] = Counter()
    leaves = [(path, m) for path, m in model.module.named_modules() if isinstance(m, nn.Linear)]
    handles = [m.register_forward_hook(lambda m, a, o, path=path: counts.update([path])) for path, m in leaves]
    output(model)
    for handle in handles:
        handle.remove()
    return next(f"module:{path}" for path, count in counts.items() if count == 1)


def _by_name(model: iv.Model) -> tuple[tuple[str, ...], tuple[str, ...], str]:
    passed, failed, note = [], [], ""
    given = inputs(model)
    names = [site.name for site in model.table.values() if not site.is_eager]
    acts = iv.capture(model, given, names)
    passed.append("captured")
    resid, resid_in = _stack(model, "resid"), _stack(model, "resid_in")
    pairs = [
        (a, b)
        for a, b in zip(resid, resid_in[1:], strict=False)
        if a.rpartition("blocks.")[0] == b.rpartition("blocks.")[0]
    ]
    if len(resid) == len(resid_in):
        (passed if all(torch.equal(acts[a], acts[b]) for a, b in pairs) else failed).append("handed on")
    before = output(model)
    # The output itself is no edit's to check: adding zero there is adding zero to what is compared.
    editable = [site.name for site in model.table.values() if site.is_editable and not site.is_eager]
    with iv.editing(model, [_custom(name, 0.0) for name in editable]):
        (passed if torch.equal(before, output(model)) else failed).append("zero")
    with iv.editing(model, [_custom(resid[0], 1.0)]):
        (passed if _moved(before, output(model)) else failed).append("moves")
    sums = [_sums(model, acts, name) for name in resid]
    if all(kept is True for kept in sums):
        passed.append("sums")
    else:
        note = (
            f"sums: {APART}" if not any(sums) else f"sums in {sum(map(bool, sums))} of {len(sums)} blocks; else {APART}"
        )
    return tuple(passed), tuple(failed), note


def _stack(model: iv.Model, part: str) -> list[str]:
    """Names of one site of every block."""
    return [
        name for name in model.table if "blocks." in name and name.rpartition("blocks.")[2].partition(".")[2] == part
    ]


def _sums(model: iv.Model, acts: iv.Activations, resid: str) -> bool:
    """Whether a block's stream is what entered it and what its sites add."""
    block = resid.removesuffix(".resid")
    added = [name for name in model.table if name.startswith(f"{block}.") and name.endswith(".out")]
    if not added or f"{block}.resid_in" not in model.table:
        return False
    total = acts[f"{block}.resid_in"].double() + sum(acts[name].double() for name in added)
    size = acts[resid].double().abs().max()
    return bool((total - acts[resid].double()).abs().max() <= 1e-5 * size)


def _custom(site: str, size: float) -> iv.Custom:
    """An edit that adds a vector of unlike numbers."""

    def add(x: Tensor, context: object) -> Tensor:
        return x + size * torch.cos(torch.arange(x.shape[-1]) * 1.7 + 0.3).to(x.dtype)

    return iv.Custom(add, site=site)


def _moved(before: Tensor, after: Tensor) -> bool:
    return bool((before != after).flatten(1).any(dim=1).all())


def page(reports: list[Report]) -> str:
    """The page that lists them."""
    lines = ["# Architectures", "", f"Written by `make architectures` with transformers {transformers.__version__}: every class of its two", "language-model mappings, built small with random weights, opened, captured and edited on the CPU.", ""]  # fmt: skip
    for mapping, title in (("causal", "Causal language models"), ("masked", "Masked language models")):
        mine = [r for r in reports if r.mapping == mapping]
        lines += [
            f"## {title}",
            "",
            *_counts(mine),
            "",
            "| config | class | opened by | blocks | checked | note |",
            "|---|---|---|---|---|---|",
        ]
        lines += [_row(r) for r in mine]
        lines.append("")
    lines += ["## What was checked", "", *(f"- **{name}**: {words}." for name, words in CHECKS.items()), ""]
    lines += ["A class opened by *table* has its parts in `innerview/models/families`; by *finding*, its blocks and what they add were found in", "the network and checked by running it; by *path*, its blocks could not be told, and sites are named by module path. What is not", "offered is refused by name, with the module paths to use instead.", ""]  # fmt: skip
    return "\n".join(lines)


def _counts(reports: list[Report]) -> list[str]:
    built = [r for r in reports if r.opened_by]
    ways = Counter(r.opened_by for r in built)
    said = ", ".join(f"{ways[way]} by {way}" for way in ("table", "finding", "path") if ways[way])
    held = ", ".join(f"{name} {sum(name in r.passed for r in built)}" for name in CHECKS)
    return [f"{len(built)} of {len(reports)} open: {said}. Checks that hold: {held}."]


def _row(r: Report) -> str:
    note = r.note.replace("|", "\\|")
    failed = f"; **fails: {', '.join(r.failed)}**" if r.failed else ""
    inner = f" (of its `{INNER[r.model_type]}` config)" if r.model_type in INNER else ""
    kind = f"`{r.kind}`{inner}" if r.kind else "not built"
    return f"| {r.model_type} | {kind} | {r.opened_by or '–'} | {r.blocks or '–'} | {', '.join(r.passed) or '–'}{failed} | {note} |"


def reports() -> list[Report]:
    """Every class of both mappings."""
    return [report(mapping, name) for mapping, names in (("causal", CAUSAL), ("masked", MASKED)) for name in names]


def main() -> None:
    """Write the page."""
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    made = reports()
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(made), encoding="utf-8")
    failed = [f"{r.mapping} {r.model_type}: {', '.join(r.failed)}" for r in made if r.failed]
    sys.stdout.write("\n".join([f"{PAGE}: {len(made)} classes", *failed]) + "\n")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
