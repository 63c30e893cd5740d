"""The networks that the rows run on: GPT-2's size with random weights, and the bundled pocket."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel, PreTrainedModel

from innerview.bundled import bundled_folder


def gpt2() -> GPT2LMHeadModel:
    """A network of GPT-2's size (12 layers, d_model 768) with random weights, the same each time. It writes on behind every token."""
    torch.manual_seed(0)
    module = GPT2LMHeadModel(GPT2Config(bos_token_id=0, eos_token_id=0)).eval()
    module.generation_config.eos_token_id = None
    return module


def pocket() -> PreTrainedModel:
    """The bundled pocket, opened by transformers alone. It writes on behind the end of text, so that counts of tokens hold."""
    module = AutoModelForCausalLM.from_pretrained(bundled_folder("pocket")).eval()
    module.generation_config.eos_token_id = None
    return module


def tokenizer() -> Any:
    """Pocket's tokenizer."""
    return AutoTokenizer.from_pretrained(bundled_folder("pocket"))


def ids(module: PreTrainedModel, batch: int, pos: int) -> Tensor:
    """Random token ids, shape [batch, pos], the same each time."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(5, module.config.vocab_size, (batch, pos), generator=generator)


def delta(module: PreTrainedModel, length: float = 1.0) -> Tensor:
    """A change of the residual stream in a random direction, shape [d_model], the same each time."""
    generator = torch.Generator().manual_seed(2)
    vector = torch.randn(module.config.hidden_size, generator=generator)
    return vector * (length / vector.norm())


def truncated(module: PreTrainedModel, layer: int) -> nn.Module:
    """The base model cut behind block `layer`: same weights, no later block, no final norm, no head.

    Its `last_hidden_state` is what leaves block `layer`: no capture can be cheaper than this forward.
    """
    base: Any = module.base_model
    path, norm = ("h", "ln_f") if hasattr(base, "h") else ("layers", "norm")
    cut: Any = copy.copy(base)
    cut._modules = dict(base._modules)
    cut.config = copy.deepcopy(base.config)
    cut.config.num_hidden_layers = layer + 1
    setattr(cut, path, nn.ModuleList(list(getattr(base, path))[: layer + 1]))
    setattr(cut, norm, nn.Identity())
    return cut


def blocks(module: PreTrainedModel) -> nn.ModuleList:
    """The blocks of a network of the GPT-2 or Llama family."""
    base: Any = module.base_model
    return base.h if hasattr(base, "h") else base.layers


def path_of(module: nn.Module, part: nn.Module) -> str:
    """Path of a module inside another."""
    return next(path for path, found in module.named_modules() if found is part)


def twin(module: PreTrainedModel) -> PreTrainedModel:
    """Other modules over the same weights, for those who rewrite the modules they are given."""
    shared = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    return copy.deepcopy(module, shared)
