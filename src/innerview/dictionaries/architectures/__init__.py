"""Architectures of dictionaries, one file each."""

from innerview.dictionaries.architectures.architecture import Architecture, Gating, Losses, Optimization, Step
from innerview.dictionaries.architectures.batch_top_k import BatchTopK
from innerview.dictionaries.architectures.gated import Gated
from innerview.dictionaries.architectures.group_max import GroupMax
from innerview.dictionaries.architectures.jump_relu import JumpReLU
from innerview.dictionaries.architectures.matching_pursuit import MatchingPursuit
from innerview.dictionaries.architectures.matryoshka import Matryoshka
from innerview.dictionaries.architectures.relu import ReLU
from innerview.dictionaries.architectures.semi_nmf import SemiNMF
from innerview.dictionaries.architectures.tanh_jump_relu import TanhJumpReLU
from innerview.dictionaries.architectures.top_k import TopK

__all__ = [
    "Architecture",
    "BatchTopK",
    "Gated",
    "Gating",
    "GroupMax",
    "JumpReLU",
    "Losses",
    "MatchingPursuit",
    "Matryoshka",
    "Optimization",
    "ReLU",
    "SemiNMF",
    "Step",
    "TanhJumpReLU",
    "TopK",
]
