"""The pocket world: sentences whose every label is known, and prompts whose answers are."""

from innerview.pocket.behaviour import Concept
from innerview.pocket.labelled import Labelled, Prompt, concepts, next_word, prompts, sentences, texts

__all__ = ["Concept", "Labelled", "Prompt", "concepts", "next_word", "prompts", "sentences", "texts"]
