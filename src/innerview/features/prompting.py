"""What an endpoint is asked about a feature, and what its answers say."""

import json
import re
from collections.abc import Callable, Collection, Sequence

from innerview.features.passages import STRONG
from innerview.features.view import Example, FeatureView
from innerview.where.spans import Reader

Messages = list[dict[str, str]]
MOST_LABEL = 200

NAMING = (
    "You name what a feature of a neural network stands for. You are shown passages of text in which it was active: the words that it was active "
    "on stand between « and », and the number in front says how strong its strongest activation was, from 1 to 10. Look for what these words, or "
    "what comes before them, have in common, from the strongest to the weakest passage. Answer with a description of at most twelve words, as in "
    "a dictionary, and with nothing else: no quotes, no sentence around it."
)
FINDING = (
    "A feature of a neural network is described in a few words. For each numbered passage say whether the feature, if the description is right, "
    "is active anywhere in it: 1 for yes, 0 for no. Answer with one line a passage, its number, a colon, and 1 or 0, and with nothing else."
)
POINTING = (
    "A feature of a neural network is described in a few words. In each numbered passage some words stand between « and ». Say whether these are "
    "the words that the feature, if the description is right, is active on: 1 for yes, 0 for no. Answer with one line a passage, its number, a "
    "colon, and 1 or 0, and with nothing else."
)


def naming(view: FeatureView, most: int, spell: Callable[[Sequence[int]], list[str]]) -> Messages:
    """The question what a feature stands for.

    Args:
        view: The feature.
        most: Passages that are shown at most, the strongest and some from each stretch below.
        spell: Gives the text of each token, as it is written among the others.
    """
    shown = _spread(view, most)
    largest = max((float(one.values.max()) for one in shown), default=1.0) or 1.0
    lines = []
    for one in shown:
        top = float(one.values.max())
        strong = {place for place, value in enumerate(one.values.tolist()) if value > STRONG * top and value > 0}
        lines.append(f"{max(1, round(10 * top / largest))}  {marked(spell(one.ids), strong)}")
    promoted = ", ".join(_plain(word.text) for word in view.promoted[:8])
    behind = f"\n\nWords that it makes more likely to come next: {promoted}" if promoted else ""
    return _chat(NAMING, "\n".join(lines) + behind)


def _spread(view: FeatureView, most: int) -> list[Example]:
    """The strongest examples, and one after another from each stretch, none twice."""
    found: list[Example] = []
    seen: set[tuple[int, int]] = set()
    first, *rest = [list(stretch.examples) for stretch in view.stretches] or [[]]
    queue = first[: (most + 1) // 2]
    while any(rest):
        queue += [stretch.pop(0) for stretch in rest if stretch]
    for one in [*queue, *first[(most + 1) // 2 :]]:
        if (one.text, one.start) not in seen and len(found) < most:
            seen.add((one.text, one.start))
            found.append(one)
    return sorted(found, key=lambda one: -float(one.values.max()))


def judging(label: str, passages: Sequence[str], *, is_pointing: bool) -> Messages:
    """The question in which passages a label fits.

    Args:
        label: What the feature is said to mean.
        passages: Texts, with marks where words are pointed at.
        is_pointing: Whether the marked words are asked about, and not the whole passage.
    """
    listed = "\n".join(f"{number}: {text}" for number, text in enumerate(passages, start=1))
    return _chat(POINTING if is_pointing else FINDING, f"Description: {_plain(label)}\n\n{listed}")


def _chat(system: str, user: str) -> Messages:
    return [{"role": "system", "content": system}, {"role": "user", "content": user}]


def written(reader: Reader, ids: Sequence[int]) -> list[str]:
    """What each token adds to the text of all, the space before it included."""
    text, spans = reader.layout(ids)
    ends = [end for _, end in spans]
    return [text[low:high] for low, high in zip([0, *ends[:-1]], ends, strict=True)]


def marked(words: Sequence[str], strong: Collection[int]) -> str:
    """Tokens as one text, those that are pointed at between marks; neighbours share theirs."""
    parts: list[str] = []
    for place, word in enumerate(words):
        said = _plain(word)
        is_in, was_in, will_be = place in strong, place - 1 in strong, place + 1 in strong and place + 1 < len(words)
        space = said[: len(said) - len(said.lstrip(" "))]
        opening = space + "«" if is_in and not was_in else space
        parts.append(opening + said[len(space) :] + ("»" if is_in and not will_be else ""))
    return "".join(parts).strip()


def _plain(text: str) -> str:
    """A text in one line, in which nothing looks like a mark."""
    said = text.replace("«", "‹").replace("»", "›").replace("\n", "⏎")
    # Half of a character cannot be sent, and a control character means nothing.
    return "".join(one if one.isprintable() else "\ufffd" for one in said.encode("utf-8", "replace").decode())


def label_of(answer: str) -> str | None:
    """The label of an answer: its last line with words, without what models put around; None where there is none."""
    # Models that reason aloud put the label behind.
    lines = [" ".join(line.split()) for line in re.sub(r"(?s)<think>.*?</think>", "", answer).splitlines()]
    kept = [line for line in lines if any(one.isalnum() for one in line)]
    if not kept:
        return None
    said = re.sub(r"^[\W_]*(?i:label|description|answer|feature|explanation)\s*[:：]\s*", "", kept[-1])
    said = said.strip(" \t*_`\"'“”‘’.")
    said = "".join(one for one in said if one.isprintable())[:MOST_LABEL].strip()
    return said or None


def answers_of(answer: str, n: int) -> list[bool] | None:
    """Yes or no for each of `n` passages; None where some are missing or the answer is something else."""
    found = {
        int(number): said == "1" for number, said in re.findall(r"(?m)^\W*(\d{1,4})\s*[:.)\-–]\s*([01])\b", answer)
    }
    if set(found) == set(range(1, n + 1)):
        return [found[number] for number in range(1, n + 1)]
    try:
        listed = json.loads(answer[answer.index("[") : answer.rindex("]") + 1])
    except ValueError:
        return None
    is_right = isinstance(listed, list) and len(listed) == n and all(one in (0, 1) for one in listed)
    return [bool(one) for one in listed] if is_right else None
