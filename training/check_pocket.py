"""Measures a bundled model on its world: python -m training.check_pocket

Prints the table and writes it to training/RESULTS.md. Ends with 1 where a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from dataclasses import astuple
from pathlib import Path

from training.behaviour_checks import Outcome, Row, outcomes, rows_of
from training.greedy import Loaded, load
from training.make_pocket import OUT
from training.steering_checks import RefusalMoves, refusal_moves, steered_moods
from training.world.chat import Chat
from training.world.mood import Mood
from training.world.world import DEFAULT_LEXICON, World, load_world

RESULTS = Path(__file__).parent / "RESULTS.md"
STRENGTHS = (-2.0, 0.0, 2.0)


def behaviour_lines(rows: list[Row]) -> list[str]:
    """The table of behaviours."""
    lines = ["| behaviour | cases | right | of | share | bar | met |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        met = "yes" if row.is_met else "NO"
        cells = (row.behaviour, row.cases, row.right, row.total, f"{row.share:.1%}", f"{row.bar:.0%}", met)
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return lines


def mood_lines(counts: dict[int, dict[float, Counter]], mood: Mood) -> list[str]:
    """The table of mood steering."""
    moods = list(mood.lexicon["values"])
    header = ["block", "steps", "words", *(f"{name} words" for name in moods), f"{moods[0]} of both"]
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for layer, by_strength in counts.items():
        for strength, count in by_strength.items():
            both = sum(count[name] for name in moods)
            share = f"{count[moods[0]] / both:.0%}" if both else "none"
            cells = (layer, f"{strength:+g}", count["words"], *(count[name] for name in moods), share)
            lines.append("| " + " | ".join(map(str, cells)) + " |")
    return lines


def refusal_lines(moves: list[RefusalMoves]) -> list[str]:
    """The table of refusal steering."""
    header = [
        "block", "requests of each kind",
        "harmful: refused", "one step less: refused", "and answered with the right tool", "direction out of every layer: refused",
        "harmless: refused", "one step more: refused", "direction out of every layer: refused",
    ]  # fmt: skip
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for moves_at in moves:
        layer, n, *shares = astuple(moves_at)
        lines.append(f"| {layer} | {n} | " + " | ".join(f"{share:.0%}" for share in shares) + " |")
    return lines


def missed_lines(found: list[Outcome]) -> list[str]:
    """Some of the cases that went wrong, as they were written."""
    wrong = [outcome for outcome in found if not outcome.is_right]
    return [f"- `{o.case.prompt}` → `{o.written}`, expected `{o.case.continuation}`" for o in wrong[:8]]


def steering_lines(loaded: Loaded, world: World, seed: int) -> list[str]:
    """What mean differences do to mood and to refusal, around the middle block."""
    half = loaded.network.config.num_hidden_layers // 2
    lines, middle = [], range(half - 1, half + 2)
    mood, chat = world.behaviours.get("mood"), world.behaviours.get("chat")
    if isinstance(mood, Mood):
        counts = {layer: steered_moods(loaded, mood, layer, STRENGTHS, seed) for layer in middle}
        lines += ["", "## Mood, steered", "", MOOD_NOTE, "", *mood_lines(counts, mood)]
    if isinstance(chat, Chat):
        moves = [refusal_moves(loaded, chat, layer, seed) for layer in middle]
        lines += ["", "## Refusal, taken out and put in", "", REFUSAL_NOTE, "", *refusal_lines(moves)]
    return lines


MOOD_NOTE = """Mean difference at the last token of 48 pairs of openings, added at every position behind one block while 24 tokens
are sampled from neutral prefixes ("The film was"). A step is the gap of the two means' projections on 48 other pairs."""
REFUSAL_NOTE = """Mean difference at the last token of the prompt, 48 harmful against 48 harmless requests; measured on
held-out requests, greedy. Steps are added to the prompt behind one block. The direction out of every layer sets the projection
to zero, which need not lie between the classes."""


def report(folder: Path, lexicon: Path, seed: int) -> tuple[str, bool]:
    """The whole of the results as Markdown, and whether every bar is met."""
    loaded, world = load(folder), load_world(lexicon)
    card = json.loads((folder / "world.json").read_text(encoding="utf-8"))
    rows, missed = [], []
    for behaviour in world.behaviours:
        found = outcomes(loaded, world, behaviour, seed)
        rows += rows_of(behaviour, found)
        missed += missed_lines(found)
    made = f"{card['parameters']:,} parameters, {card['tokens']:,} tokens, {card['steps']:,} steps, "
    made += f"{card['minutes']} minutes on {card['plan']['threads']} threads, seed {card['plan']['seed']}."
    lines = [f"# What `{card['name']}` does", "", made, "Written by `python -m training.check_pocket`.", ""]
    lines += ["## Behaviours on held-out cases, greedy", "", *behaviour_lines(rows)]
    if missed:
        lines += ["", "Some that went wrong:", "", *missed]
    lines += steering_lines(loaded, world, seed)
    return "\n".join(lines) + "\n", all(row.is_met for row in rows)


def main() -> None:
    """Reads the command line, prints the results and keeps them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=OUT, help="folder of the model")
    parser.add_argument("--lexicon", type=Path, default=DEFAULT_LEXICON, help="the words it was trained on")
    parser.add_argument("--seed", type=int, default=1, help="which held-out cases are drawn")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file to write")
    arguments = parser.parse_args()
    text, all_met = report(arguments.model, arguments.lexicon, arguments.seed)
    arguments.results.write_text(text, encoding="utf-8")
    print(text)
    sys.exit(0 if all_met else 1)


if __name__ == "__main__":
    main()
