"""Features by a word: what they are called, what they fire on, and what they promote."""

from collections.abc import Mapping

import pandas as pd
import torch

from innerview.dictionaries.dictionary import Dictionary
from innerview.errors import FeatureError
from innerview.features.kept import Kept
from innerview.features.profile import Profile
from innerview.features.statistics import FeatureStatistics
from innerview.features.view import Label
from innerview.features.words import Readout

# A word may be written as many tokens; a feature is asked about so many at the most.
MOST_TOKENS = 64


def labels_with(labels: Mapping[int, Label], wanted: str) -> list[tuple[int, str, str, float]]:
    """Features whose label holds a text, with their label's score."""
    folded = wanted.casefold()
    found = [one for one in labels.values() if folded in one.text.casefold()]
    return [(one.feature, "label", one.text, 1.0 if one.score is None else one.score) for one in found]


def tokens_with(spelled: Mapping[int, str], wanted: str) -> list[int]:
    """Ids of the tokens that say a word: the word itself, or what begins or ends with it; the closest first."""
    folded = wanted.strip().casefold()
    found = [(len(text.strip()), i) for i, text in spelled.items() if folded and folded in text.casefold()]
    return [i for _, i in sorted(found)[:MOST_TOKENS]]


def fired_on(
    profile: Profile, statistics: FeatureStatistics, ids: list[int], spelled: Mapping[int, str]
) -> list[tuple[int, str, str, float]]:
    """Features that are often active on some tokens, with the F1 of telling each token by being active."""
    made = []
    for i in ids:
        rows, columns = (profile.ids == i).nonzero(as_tuple=True)
        # 2 × hits ÷ (activations + tokens).
        both = statistics.spread.count[rows] + profile.reads[rows, columns]
        scores = 2.0 * profile.counts[rows, columns] / both.clamp(min=1)
        made += [
            (row, "fires on", spelled[i], score) for row, score in zip(rows.tolist(), scores.tolist(), strict=True)
        ]
    return made


def fired_within(kept: Kept, ids: list[int], wanted: str) -> list[tuple[int, str, str, float]]:
    """Features that are active inside a word of several tokens, with the share of what was drawn of each that lies there.

    Args:
        kept: A draw of each feature's activations.
        ids: The word's tokens, in order.
        wanted: The word.
    """
    windows, n = kept.ids, len(ids)
    inside = torch.zeros(kept.places.shape, dtype=torch.bool)
    # The word may stand so that any of its tokens is the one that was drawn.
    for start in range(max(0, kept.before - n + 1), min(kept.before, windows.shape[2] - n) + 1):
        is_here = torch.ones_like(inside)
        for step, one in enumerate(ids):
            is_here &= windows[:, :, start + step] == one
        inside |= is_here
    held = (kept.places >= 0).sum(dim=1)
    shares = inside.sum(dim=1).double() / held.clamp(min=1)
    rows = shares.nonzero()[:, 0]
    return [(row, "fires on", wanted, share) for row, share in zip(rows.tolist(), shares[rows].tolist(), strict=True)]


@torch.no_grad()
def promoting(
    dictionary: Dictionary, readout: Readout, ids: list[int], spelled: Mapping[int, str], k: int
) -> list[tuple[int, str, str, float]]:
    """Features that promote some tokens, with the cosine of what they write and what each token's logit reads."""
    if not ids:
        return []
    cosines = readout.cosines(dictionary.weights.decoder, ids)
    best = cosines.topk(min(k, len(cosines)), dim=0)
    made = []
    for nth, i in enumerate(ids):
        pairs = zip(best.indices[:, nth].tolist(), best.values[:, nth].tolist(), strict=True)
        made += [(row, "promotes", spelled[i], value) for row, value in pairs if value > 0]
    return made


def found_frame(rows: list[tuple[int, str, str, float]], k: int) -> pd.DataFrame:
    """The best finds, one row a feature and reason: labels first, then what fires, then what promotes."""
    # As they are: pandas' own texts refuse half a character.
    frame = pd.DataFrame(rows, columns=["feature", "because", "word", "score"], dtype=object)
    frame = frame.astype({"feature": "int64", "score": "float64"})
    order = {"label": 0, "fires on": 1, "promotes": 2}
    frame["rank"] = [order[one] for one in frame["because"]]
    frame = frame.sort_values(["rank", "score"], ascending=[True, False], kind="stable")
    frame = frame.drop_duplicates(["feature", "because"])
    return frame.groupby("because", sort=False).head(k).drop(columns="rank").reset_index(drop=True)


def checked_word(wanted: object) -> str:
    """A word to look for.

    Raises:
        FeatureError: It is none.
    """
    if not isinstance(wanted, str) or not wanted.strip():
        raise FeatureError(f"features are searched by a word, not by {wanted!r:.40}")
    return wanted
