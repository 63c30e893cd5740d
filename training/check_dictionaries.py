"""Judges the bundled dictionaries on their world: python -m training.check_dictionaries

Prints the tables and writes them to training/DICTIONARIES.md. Ends with 1 where most layers miss the bar: a rise of the cross-entropy of at most
0.05 nat at an L0 of at most 40, with fewer than 5 % of the features dead.

    python -m training.check_dictionaries --concepts 12 --against build/random-dictionaries --against-model build/pocket-random
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import innerview as iv
from innerview.bundled import bundled_folder
from innerview.pocket.labelled import concept_of, world_of
from training.make_dictionaries import Documents

RESULTS = Path(__file__).parent / "DICTIONARIES.md"
MOST_RISE, MOST_L0, MOST_DEAD = 0.05, 40.0, 0.05
TITLE = "# The dictionaries of the bundled model"
BAR = (
    f"Bar: a rise of at most {MOST_RISE} nat at an L0 of at most {MOST_L0:g}, dead below {MOST_DEAD:.0%}. Dead is never active in these tokens; "
    "dense is active at more than a tenth of them. The rise is of the cross-entropy with the reconstruction in place of the activation; "
    "recovered is the share of what mean ablation costs."
)
LABELS = (
    "Means over the world's concepts, on sentences held out: the best feature's F1, accuracies of probes on a few features beside a probe of "
    "the activation, and the share of tokens where a concept is absorbed, whole and in part."
)


@dataclass(frozen=True)
class Checking:
    """What is judged, and on how much.

    Attributes:
        folder: Folder of the dictionaries, one folder each.
        model: Name or folder of their network.
        documents: Documents that they are judged on; none of them was trained on.
        concepts: How many of the world's concepts features are scored against; all when None.
        pairs: Pairs of sentences of each.
        against: Folder of dictionaries of a network with random weights; None leaves the control out.
        against_model: That network.
        seed: Of the documents and sentences.
        lexicon: The world's words; the bundled ones when None.
    """

    folder: Path
    model: str = "pocket"
    documents: int = 4000
    concepts: int | None = None
    pairs: int = 60
    against: Path | None = None
    against_model: str = ""
    seed: int = 0
    lexicon: Path | None = None


def labelled(checking: Checking) -> dict[str, Sequence[Any]]:
    """Sentences of the world's concepts, by concept and the part of the world that writes them; two values of each."""
    made: dict[str, Sequence[Any]] = {}
    for concept in world_of(checking.lexicon).concepts()[: checking.concepts]:
        own = concept_of(world_of(checking.lexicon), concept.name, concept.behaviour)
        values = (own.values[0], own.values[1]) if own.is_paired and len(own.values) > 1 else None
        try:
            made[f"{concept.name} ({concept.behaviour})"] = iv.pocket.sentences(
                concept.name, seed=checking.seed, pairs=checking.pairs, values=values, behaviour=concept.behaviour,
                lexicon=checking.lexicon,
            )  # fmt: skip
        except ValueError as error:
            print(f"left out: {error}")
    return made


def judged(
    checking: Checking, tell: Callable[[dict[str, iv.Evaluation]], None] = lambda made: None
) -> dict[str, iv.Evaluation]:
    """Every dictionary of the folder by its name.

    Args:
        checking: What is judged.
        tell: Called behind each dictionary with those that are judged by then.
    """
    model = iv.open_model(checking.model)
    control = iv.open_model(checking.against_model) if checking.against else None
    # By length: a forward is as long as its longest text.
    texts = sorted(Documents(f"check {checking.seed}", checking.documents, checking.lexicon), key=len)
    concepts = labelled(checking) if checking.concepts != 0 else {}
    made = {}
    for name in names(checking.folder):
        against = None
        if checking.against and control and name in names(checking.against):
            against = (iv.load_dictionary(checking.against / name), control)
        dictionary = iv.load_dictionary(checking.folder / name)
        made[name] = iv.evaluate_dictionary(dictionary, model, texts, labelled=concepts, against=against)
        print(
            f"{name}: rise {made[name].ce_rise:.4f} at L0 {made[name].l0:.1f}, dead {made[name].dead:.1%}", flush=True
        )
        tell(made)
    return made


def names(folder: Path) -> list[str]:
    """Names of the dictionaries in a folder."""
    return sorted(entry.parent.name for entry in folder.glob("*/manifest.json"))


def meets(found: iv.Evaluation) -> bool:
    """Whether a dictionary meets the bar."""
    return found.ce_rise <= MOST_RISE and found.l0 <= MOST_L0 and found.dead < MOST_DEAD


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """A Markdown table."""
    return [f"| {' | '.join(map(str, cells))} |" for cells in (header, ["---"] * len(header), *rows)]


def figure_lines(found: dict[str, iv.Evaluation]) -> list[str]:
    """The table of figures."""
    header = (
        "dictionary", "features", "CE rise, nats", "± se", "mean ablation, nats", "recovered", "of zero", "L0", "FVU", "cosine", "dead", "dense", "random network: CE rise", "L0", "FVU", "bar",
    )  # fmt: skip
    rows = []
    for name, one in found.items():
        other = one.against
        beside = ("not run",) * 3 if other is None else (f"{other.ce_rise:.3f}", f"{other.l0:.1f}", f"{other.fvu:.3f}")
        cells: list[object] = [name, one.n_features, f"{one.ce_rise:.4f}", f"{one.ce_rise_se:.4f}"]
        cells += [f"{n:.3f}" for n in (one.ce_mean - one.ce, one.recovered_of_mean, one.recovered_of_zero)]
        cells += [f"{one.l0:.1f}", f"{one.fvu:.3f}", f"{one.cosine:.3f}", f"{one.dead:.1%}", f"{one.dense:.1%}"]
        rows.append((*cells, *beside, "met" if meets(one) else "MISSED"))
    return table(header, rows)


def concept_lines(found: dict[str, iv.Evaluation]) -> list[str]:
    """The table of means over concepts."""
    scored = {name: one.concepts.rows() for name, one in found.items() if one.concepts is not None}
    if not scored:
        return ["Not run."]
    # A transcoder has no absorption, and may come first.
    told = list(dict.fromkeys(row[0] for rows in scored.values() for row in rows))
    listed = []
    for name, rows in scored.items():
        by_figure = {figure: value for figure, value, _ in rows}
        listed.append((name, *(f"{by_figure[figure]:.3f}" if figure in by_figure else "–" for figure in told)))
    return table(("dictionary", *told), listed)


def match_lines(checking: Checking) -> list[str]:
    """The table of features that two seeds share."""
    known, rows = names(checking.folder), []
    for name in known:
        if f"{name}.second_seed" in known:
            one, other = (iv.load_dictionary(checking.folder / n) for n in (name, f"{name}.second_seed"))
            found = iv.match_features(one, other)
            both = found.summary()
            rows.append((name, found.n_features, f"{found.share:.1%}", *(f"{v:.3f}" for v in both["mean cosine"][:2])))
    header = ("dictionary", "features", "shared at cosine ≥ 0.7", "mean encoder cosine", "mean decoder cosine")
    return table(header, rows) if rows else ["No dictionary has a second seed."]


def report(checking: Checking, found: dict[str, iv.Evaluation]) -> list[str]:
    """The whole page."""
    one = next(iter(found.values()))
    tokens = f"{one.n_tokens:,} tokens that none was trained on, {one.n_predicted:,} next tokens"
    return [
        TITLE,
        "",
        f"{one.model_name}, {tokens}. Written by `python -m training.check_dictionaries`.",
        "",
        BAR,
        "",
        *figure_lines(found),
        "",
        "## Features against labels",
        "",
        LABELS,
        "",
        *concept_lines(found),
        "",
        "## Two seeds",
        "",
        *match_lines(checking),
        "",
    ]


def main(given: Sequence[str] | None = None) -> int:
    """The command; 1 where most layers miss the bar."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=bundled_folder("pocket") / "dictionaries")
    parser.add_argument("--model", default="pocket")
    parser.add_argument("--documents", type=int, default=4000)
    parser.add_argument("--concepts", type=int)
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--against-model", default="")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lexicon", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS)
    said = vars(parser.parse_args(given))
    out, threads = said.pop("out"), said.pop("threads")
    torch.set_num_threads(threads)
    checking = Checking(**said)

    def write(made: dict[str, iv.Evaluation]) -> None:
        out.write_text("\n".join(report(checking, made)), encoding="utf-8")

    # Written behind each, so that a run that is broken off leaves a page.
    found = judged(checking, write)
    if not found:
        print(f"no dictionary in {checking.folder}; python -m training.make_dictionaries makes them")
        return 1
    print(out.read_text(encoding="utf-8"))
    layers = [one for name, one in found.items() if name.endswith(".resid")]
    return 0 if sum(map(meets, layers)) * 2 > len(layers) else 1


if __name__ == "__main__":
    sys.exit(main())
