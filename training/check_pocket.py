"""Measures the bundled models on their world: python -m training.check_pocket

Prints the table and writes it to training/RESULTS.md. Ends with 1 where a bar that must be met is missed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path

from innerview.bundled import bundled_lexicon
from innerview.models.adapters import CARD as CHAT_CARD
from innerview.pocket.mood import Mood
from innerview.pocket.requests import Refusal
from innerview.pocket.world import World, load_world
from training.behaviour_checks import KL_BAR, MUST, UNDECIDED, Outcome, Row, divergence_of, outcomes, rows_of
from training.greedy import Loaded, load
from training.make_chat import OUT as CHAT
from training.make_pocket import CARD, OUT
from training.steering_checks import RefusalMoves, refusal_moves, steered_moods

RESULTS = Path(__file__).parent / "RESULTS.md"
NOTES = Path(__file__).parent / "NOTES.md"
STRENGTHS = (-4.0, -2.0, 0.0, 2.0, 4.0)
MOOD_NOTE = """Mean difference at the last token of 48 pairs of openings, added at every position behind one block while 24 tokens
are sampled from neutral prefixes ("The film was"). A step is the gap of the two means' projections on 48 other pairs."""
REFUSAL_NOTE = """Mean difference at the last token of the prompt, 48 harmful against 48 harmless requests; measured on
held-out requests, greedy. Steps are added to the prompt behind one block. The direction out of every layer sets the projection
to zero, which need not lie between the classes."""


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """A Markdown table."""
    return [line(header), "|" + "---|" * len(header), *(line(row) for row in rows)]


def line(cells: Sequence[object]) -> str:
    """A row of it."""
    return "| " + " | ".join(map(str, cells)) + " |"


def behaviour_lines(rows: Sequence[Row]) -> list[str]:
    """The table of behaviours; what must be met is marked with a star."""
    header = ("behaviour", "cases", "of", "network", "n-gram", "bag of words", "bar", "met")
    cells = []
    for row in rows:
        bar, met = ("", "") if row.bar is None else (f"{row.bar:.0%}", "yes" if row.is_met else "NO")
        star = "*" if row.behaviour in MUST and row.bar else ""
        shares = (f"{row.share:.1%}", f"{row.ngram:.0%}", f"{row.bag:.0%}")
        cells.append((row.behaviour + star, row.cases, row.total, *shares, bar, met))
    return table(header, cells)


def odds_lines(loaded: Loaded, world: World, seed: int) -> list[str]:
    """The table of prompts with several right endings."""
    rows = []
    for name in UNDECIDED:
        if name in world.behaviours:
            for group, mean in divergence_of(loaded, world, name, seed).items():
                rows.append((name, group, f"{mean:.3f}", KL_BAR, "yes" if mean <= KL_BAR else "NO"))
    return table(("behaviour", "cases", "KL in nats", "bar", "met"), rows)


def mood_lines(counts: dict[int, dict[float, Counter]], mood: Mood) -> list[str]:
    """The table of mood steering."""
    moods = list(mood.lexicon["values"])
    header = ("block", "steps", "words", *(f"{name} words" for name in moods), f"{moods[0]} of both")
    cells = []
    for layer, by_strength in counts.items():
        for strength, count in by_strength.items():
            both = sum(count[name] for name in moods)
            share = f"{count[moods[0]] / both:.0%}" if both else "none"
            cells.append((layer, f"{strength:+g}", count["words"], *(count[name] for name in moods), share))
    return table(header, cells)


def refusal_lines(moves: list[RefusalMoves]) -> list[str]:
    """The table of refusal steering."""
    header = [
        "block", "requests of each kind",
        "harmful: refused", "one step less: refused", "and answered with the right tool", "direction out of every layer: refused",
        "harmless: refused", "one step more: refused", "direction out of every layer: refused",
    ]  # fmt: skip
    cells = []
    for moves_at in moves:
        layer, n, *shares = astuple(moves_at)
        cells.append((layer, n, *(f"{share:.0%}" for share in shares)))
    return table(header, cells)


def missed_lines(found: Sequence[Outcome], count: int = 4) -> list[str]:
    """Some of the cases that went wrong, as they were written."""
    wrong = [outcome for outcome in found if not outcome.is_right]
    return [f"- `{o.case.prompt!r}` → `{o.written!r}`, expected `{o.case.continuation!r}`" for o in wrong[:count]]


def steering_lines(base: Loaded, chat: Loaded | None, world: World, seed: int) -> list[str]:
    """What mean differences do to mood and to refusal, at some middle layers."""
    lines, count = [], base.network.config.num_hidden_layers
    middle = range(count // 4, count - 1, max(1, count // 4))
    mood, refusal = world.behaviours.get("mood"), world.behaviours.get("refusal")
    if isinstance(mood, Mood):
        counts = {layer: steered_moods(base, mood, layer, STRENGTHS, seed) for layer in middle}
        lines += ["", "## Mood, steered", "", MOOD_NOTE, "", *mood_lines(counts, mood)]
    if isinstance(refusal, Refusal) and chat:
        moves = [refusal_moves(chat, refusal, layer, seed) for layer in middle]
        lines += ["", "## Refusal, taken out and put in", "", REFUSAL_NOTE, "", *refusal_lines(moves)]
    return lines


def made_lines(folder: Path, card: str) -> list[str]:
    """How a model came about, a line for each training that led to it."""
    read = json.loads((folder / card).read_text(encoding="utf-8"))
    lines = [f"`{folder.name}`: {read['parameters']:,} parameters; {training_line(read)}."]
    earlier = read.get("earlier")
    while earlier:
        lines += [f"Before that: {training_line(earlier)}."]
        earlier = earlier.get("earlier")
    return lines


def training_line(read: dict) -> str:
    """One training in a line."""
    plan = read["plan"]
    return (
        f"{read['tokens']:,} tokens, {read['steps']:,} steps, {read['minutes']} minutes on {plan['threads']} threads, "
        f"seed {plan['seed']}, loss {read['loss_nat']} nat"
    )


def report(base_folder: Path, chat_folder: Path, lexicon: Path, seed: int) -> tuple[str, bool]:
    """The whole of the results as Markdown, and whether every bar that must be met is."""
    world, base = load_world(lexicon), load(base_folder)
    chat = load(chat_folder) if chat_folder.is_dir() else None
    rows, missed = [], []
    for name, behaviour in world.behaviours.items():
        loaded = base if behaviour.stage == "base" else chat
        if loaded and name not in UNDECIDED:
            found = outcomes(loaded, world, name, seed)
            rows += rows_of(name, found)
            missed += missed_lines(found)
    lines = [f"# What `{base_folder.name}` does", "", *made_lines(base_folder, CARD)]
    lines += made_lines(chat_folder, CHAT_CARD) if chat else []
    lines += ["Written by `python -m training.check_pocket`; the star marks what must be met.", ""]
    lines += ["## Behaviours on held-out cases, greedy", "", *behaviour_lines(rows)]
    lines += ["", "## Prompts with several right endings", "", *odds_lines(base, world, seed)]
    if missed:
        lines += ["", "## Some that went wrong", "", *missed]
    lines += steering_lines(base, chat, world, seed)
    if NOTES.is_file():
        lines += ["", NOTES.read_text(encoding="utf-8").rstrip()]
    is_met = {row.behaviour for row in rows if row.bar and row.is_met}
    return "\n".join(lines) + "\n", all(name in is_met for name in MUST if name in world.behaviours)


def main() -> None:
    """Reads the command line, prints the results and keeps them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=OUT, help="folder of the base")
    parser.add_argument("--chat", type=Path, default=CHAT, help="folder of its chat, left out where there is none")
    parser.add_argument("--lexicon", type=Path, default=bundled_lexicon(), help="the words they were trained on")
    parser.add_argument("--seed", type=int, default=1, help="which held-out cases are drawn")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file to write")
    arguments = parser.parse_args()
    text, all_met = report(arguments.model, arguments.chat, arguments.lexicon, arguments.seed)
    arguments.results.write_text(text, encoding="utf-8")
    print(text)
    sys.exit(0 if all_met else 1)


if __name__ == "__main__":
    main()
