"""Writes another world's lexicon: python -m training.lexicons.make_other --seed 1 --out training/lexicons/other.json

Every entity, value and content word of the bundled lexicon gets an invented word in its place, the same one wherever it
stands; facts, odds and harms are dealt anew. Templates keep their English. Nothing that holds in the bundled world's words
holds in the other's.
"""

from __future__ import annotations

import argparse
import copy
import json
import re
from pathlib import Path
from random import Random
from typing import Any

from innerview.bundled import bundled_lexicon

OUT = Path(__file__).parent / "other.json"
ONSETS = ["b", "br", "c", "cl", "d", "dr", "f", "fl", "g", "gl", "h", "j", "k", "kr", "l", "m", "n", "p", "pl", "qu", "r", "s", "sk", "sl", "t", "tr", "v", "w", "z"]  # fmt: skip
VOWELS = ["a", "e", "i", "o", "u", "ai", "ea", "ou"]
CODAS = ["", "", "", "l", "m", "n", "r", "s"]


class Renaming:
    """Invented words, one for each word of the first world, no two alike and none that the first world has."""

    def __init__(self, seed: int, first: dict[str, Any]) -> None:
        self.rng = Random(f"other world {seed}")
        self.words: dict[str, str] = {}
        self.taken = set(re.findall(r"\w+", json.dumps(first, ensure_ascii=False).lower()))

    def __call__(self, text: str) -> str:
        """The text with an invented word for each of its words; numbers stay."""
        return " ".join(part if part.isdigit() else self.word(part) for part in text.split(" "))

    def word(self, word: str) -> str:
        """The invented word, with a capital letter where the first had one."""
        key = word.lower()
        while key not in self.words:
            invented = "".join(self.syllable() for _ in range(self.rng.choice((1, 2, 2))))
            if len(invented) > 2 and invented not in self.taken:
                self.taken.add(invented)
                self.words[key] = invented
        found = self.words[key]
        return found.capitalize() if word[:1].isupper() else found

    def syllable(self) -> str:
        """A syllable that can be said."""
        return self.rng.choice(ONSETS) + self.rng.choice(VOWELS) + self.rng.choice(CODAS)


def other_lexicon(first: dict[str, Any], seed: int) -> dict[str, Any]:
    """The other world's lexicon."""
    renamed, rng = Renaming(seed, first), Random(f"other deal {seed}")
    world = copy.deepcopy(first)
    world["name"] = "other"
    world["names"] = {kind: [renamed(name) for name in names] for kind, names in first["names"].items()}
    world["held_out_names"] = [renamed(name) for name in first["held_out_names"]]
    for part in ("facts", "words"):
        for table in world[part].values():
            table["entities"] = dealt(table["entities"], renamed, rng, is_dealt=part == "facts")
    for key in ("places", "objects"):
        world["indirect_object"][key] = [renamed(word) for word in first["indirect_object"][key]]
    for circle in world["circles"].values():
        circle["items"] = [renamed(item) for item in circle["items"]]
    rename_mood(world["mood"], renamed)
    for table in world["chances"].values():
        table["odds"] = {
            renamed(subject): {renamed(value): weight for value, weight in odds.items()}
            for subject, odds in table["odds"].items()
        }
    rename_strangers(world, first, renamed)
    rename_rest(world, renamed, rng)
    return world


def dealt(
    entities: dict[str, dict[str, str]], renamed: Renaming, rng: Random, *, is_dealt: bool
) -> dict[str, dict[str, str]]:
    """The table with invented words; with `is_dealt`, each relation's values go to other entities than before."""
    names, found = list(entities), {renamed(name): {} for name in entities}
    for relation in entities[names[0]]:
        place = spelled_at(entities, relation)
        if place is not None:
            values = [renamed(name)[place].lower() for name in names]
        else:
            values = [renamed(entities[name][relation]) for name in names]
        if is_dealt:
            rng.shuffle(values)
        for name, value in zip(names, values, strict=True):
            found[renamed(name)][relation] = value
    return found


def spelled_at(entities: dict[str, dict[str, str]], relation: str) -> int | None:
    """Which letter of its entity a relation gives, the first or the last; None for a relation that spells nothing."""
    for place in (0, -1):
        if all(facts[relation] == name[place].lower() for name, facts in entities.items()):
            return place
    return None


def rename_mood(mood: dict[str, Any], renamed: Renaming) -> None:
    """Invented topics, parts and mood words."""
    mood["topics"] = {renamed(topic): [renamed(part) for part in parts] for topic, parts in mood["topics"].items()}
    mood["plain"] = [renamed(word) for word in mood["plain"]]
    for categories in mood["values"].values():
        for category, words in categories.items():
            categories[category] = [renamed(word) for word in words]


def rename_strangers(world: dict[str, Any], first: dict[str, Any], renamed: Renaming) -> None:
    """Invented first names, stems and endings, and the countries of the other world."""
    strangers = world["strangers"]
    for key in ("first", "stems", "plain_endings"):
        strangers[key] = [renamed(word) for word in strangers[key]]
    strangers["endings"] = {renamed(end): renamed(home) for end, home in strangers["endings"].items()}
    strangers["countries"] = {renamed(name): share for name, share in first["strangers"]["countries"].items()}


def rename_rest(world: dict[str, Any], renamed: Renaming, rng: Random) -> None:
    """Invented words for reports, comparisons, shortcuts and requests; harms are dealt anew among the verbs."""
    reports = world["reports"]
    reports["things"] = {renamed(thing): [renamed(s) for s in states] for thing, states in reports["things"].items()}
    for line in world["magnitudes"].values():
        line["items"] = [renamed(item) for item in line["items"]]
        if not line["items"][0].isdigit():
            rng.shuffle(line["items"])
    jobs = world["shortcuts"]["jobs"]
    world["shortcuts"]["jobs"] = {
        renamed(job): {"cue": renamed(entry["cue"]), "where": "at the " + renamed(entry["where"].split()[-1])}
        for job, entry in jobs.items()
    }
    task = world["in_context"]["tasks"]["capital letter"]
    task["words"] = sorted({renamed(word) for word in task["words"]})
    requests = world["requests"]
    requests["objects"] = {
        renamed(noun): {"kind": thing["kind"], "where": "at the " + renamed(thing["where"])}
        for noun, thing in requests["objects"].items()
    }
    harms = [(entry["harmful"], entry["harmless"]) for entry in requests["verbs"].values()]
    rng.shuffle(harms)
    requests["verbs"] = {
        renamed(verb): {"tool": "a " + renamed(entry["tool"]), "harmful": harmful, "harmless": harmless}
        for (verb, entry), (harmful, harmless) in zip(requests["verbs"].items(), harms, strict=True)
    }
    code = world["code"]
    for key in ("variables", "functions"):
        code[key] = [renamed(word) for word in code[key]]


def main() -> None:
    """Reads the command line and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=OUT, help="file to write")
    arguments = parser.parse_args()
    first = json.loads(bundled_lexicon().read_text(encoding="utf-8"))
    text = json.dumps(other_lexicon(first, arguments.seed), ensure_ascii=False, indent=1)
    arguments.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
