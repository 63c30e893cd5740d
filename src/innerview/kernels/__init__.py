"""Codes by the fastest way there is: what `iv.kernels` offers. `kernels.encode` holds the contract."""

from innerview.kernels.encode import Choice, choose, explain, using
from innerview.kernels.path import Task
from innerview.kernels.rules import Above, Behind, Encoder, Largest, Sparse

__all__ = ["Above", "Behind", "Choice", "Encoder", "Largest", "Sparse", "Task", "choose", "explain", "using"]
