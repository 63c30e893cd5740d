"""The processes that train together: each takes its part of every batch, and all take the same step."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as distributed
from torch import Tensor

from innerview.errors import DictionaryError


@dataclass(frozen=True)
class Processes:
    """How many processes train together, and which this is."""

    rank: int = 0
    count: int = 1

    @classmethod
    def found(cls, device: torch.device) -> "Processes":
        """Those that torchrun started, or that have met already; this one alone else."""
        if not distributed.is_available():
            return cls()
        if not distributed.is_initialized():
            if int(os.environ.get("WORLD_SIZE", "1")) < 2 or "MASTER_ADDR" not in os.environ:
                return cls()
            distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
        return cls(distributed.get_rank(), distributed.get_world_size())

    @property
    def is_first(self) -> bool:
        """Whether this one saves and shows."""
        return self.rank == 0

    def part(self, batch: Tensor) -> Tensor:
        """This process's rows of a batch.

        Raises:
            DictionaryError: The batch cannot be split evenly.
        """
        if self.count == 1:
            return batch
        if len(batch) % self.count:
            raise DictionaryError(
                f"batches of {len(batch)} tokens cannot be split among {self.count} processes; give batch_tokens that can"
            )
        size = len(batch) // self.count
        return batch[self.rank * size : (self.rank + 1) * size]

    def gathered(self, own: Tensor) -> Tensor:
        """The tensors of all processes, behind one another."""
        if self.count == 1:
            return own
        parts = [torch.empty_like(own) for _ in range(self.count)]
        distributed.all_gather(parts, own.contiguous())
        return torch.cat(parts)

    def summed(self, own: Tensor) -> Tensor:
        """The sum of the tensors of all processes."""
        if self.count > 1:
            distributed.all_reduce(own)
        return own

    def sent(self, tensor: Tensor, owner: int) -> Tensor:
        """A tensor as its owner has it."""
        if self.count > 1:
            tensor = tensor.contiguous()
            distributed.broadcast(tensor, owner)
        return tensor

    def average_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Give all processes the mean of their gradients, in one message."""
        if self.count == 1:
            return
        grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = torch.cat([grad.flatten() for grad in grads])
        distributed.all_reduce(flat)
        flat /= self.count
        start = 0
        for grad in grads:
            grad.copy_(flat[start : start + grad.numel()].view_as(grad))
            start += grad.numel()
