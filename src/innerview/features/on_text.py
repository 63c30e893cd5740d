"""One feature on a text of the user's own, at once: no pass over a corpus is needed."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from innerview.capturing import capture
from innerview.dictionaries.codes import checked_feature
from innerview.dictionaries.dictionary import Dictionary
from innerview.errors import FeatureError
from innerview.features.corpus import checked_dictionary, checked_model, checked_site, given_to, reads_bos
from innerview.models import text
from innerview.models.model import Model


@dataclass(frozen=True, eq=False)
class OnText:
    """One feature at each token of a text.

    Attributes:
        feature: Its number.
        ids: Ids of the tokens.
        words: Their texts.
        values: The feature at each, float32, shape [pos].
        is_read: Whether each counts; a special token at the front does not, unless the dictionary was trained on it, and is shown as 0.
    """

    feature: int
    ids: tuple[int, ...]
    words: tuple[str, ...]
    values: np.ndarray
    is_read: np.ndarray

    def frame(self) -> pd.DataFrame:
        """One row a token."""
        return pd.DataFrame({"id": self.ids, "token": self.words, "activation": self.values, "is_read": self.is_read})


def feature_on_text(model: Model, dictionary: Dictionary, feature: int, prompt: Any) -> OnText:
    """One feature at each token of a text: a truncated forward, and that feature's row of the encoder where features do not compete.

    Args:
        model: The network.
        dictionary: A dictionary of one of its sites.
        feature: A feature's number.
        prompt: One text, chat, or row of ids.
    Raises:
        FeatureError: Several texts were given, no Dictionary, or no Model; or the site is in a decoder that reads another text.
        DictionaryError: There is no such feature.
        TextError: The text cannot be read.
    """
    own, model = checked_dictionary(dictionary), checked_model(model)
    number = checked_feature(feature, own.n_features)
    checked_site(model, own)
    rows = text.encode(model, prompt).rows()
    if len(rows) != 1:
        raise FeatureError(f"a feature is shown on one text, not on {len(rows)}; give them one by one")
    ids = rows[0]
    acts = capture(model, given_to(model, rows), own.site, hermetic=True)
    with torch.no_grad():
        values = own.encode_features(acts, [number])[0, :, 0].float().cpu().numpy()
    if not np.isfinite(values).all():
        raise FeatureError(
            f"feature {number} is NaN or infinite where the activations are not: the dictionary's own weights are, or overflow; load it in float32"
        )
    is_read = np.ones(len(ids), dtype=bool)
    is_read[0] = reads_bos(own) or not text.is_special(model, ids[0])
    return OnText(
        number, tuple(ids), tuple(text.words(model, ids)), np.where(is_read, values, 0.0).astype(np.float32), is_read
    )
