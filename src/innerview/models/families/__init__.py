"""Where the sites of a block are, family by family: a table of facts, one file for each kin."""

from innerview.models.aliases import TRANSFORMERLENS_BLOCK, TRANSFORMERLENS_MODEL
from innerview.models.families.bert import BERTS
from innerview.models.families.family import Family, Part, Variant
from innerview.models.families.gpt import GPT, GPT2
from innerview.models.families.llama import LLAMA, LLAMAS

FAMILIES = {family.name: family for family in (*GPT, *LLAMAS, *BERTS)}

__all__ = [
    "FAMILIES", "GPT2", "LLAMA", "TRANSFORMERLENS_BLOCK", "TRANSFORMERLENS_MODEL", "Family", "Part", "Variant",
]  # fmt: skip
