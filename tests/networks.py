"""Small random networks of both families, a tokenizer, and toy modules that return their tensors in every container."""

from dataclasses import dataclass

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import innerview as iv

FAMILIES = ("gpt2", "llama")
DTYPES = (torch.float32, torch.bfloat16)
LAYERS, WIDTH, VOCAB, CONTEXT = 3, 32, 67, 72
WORDS = ["<pad>", "<bos>", "<eos>", *(f"w{i}" for i in range(VOCAB - 3))]
TEMPLATE = "{% for m in messages %}{{ m['role'] and 'w0 ' }}{{ m['content'] }} {% endfor %}{% if add_generation_prompt %}w1{% endif %}"


def tokenizer(*, has_chat: bool = True) -> PreTrainedTokenizerFast:
    """A tokenizer of whole words, `w0` to `w63`, with a chat template."""
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", unk_token="<pad>"
    )
    if has_chat:
        made.chat_template = TEMPLATE
    return made


def module(family: str, dtype: torch.dtype = torch.float32, seed: int = 0, *, layers: int = LAYERS) -> nn.Module:
    """A random causal language model; its weights are large enough that attention is far from uniform."""
    torch.manual_seed(seed)
    shared = {"bos_token_id": 1, "eos_token_id": None, "pad_token_id": 0, "initializer_range": 0.4, "vocab_size": VOCAB}
    if family == "gpt2":
        config = GPT2Config(
            n_embd=WIDTH, n_layer=layers, n_head=4, n_positions=CONTEXT,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, **shared,
        )  # fmt: skip
        made = GPT2LMHeadModel(config)
    else:
        config = LlamaConfig(
            hidden_size=WIDTH, num_hidden_layers=layers, num_attention_heads=4, num_key_value_heads=2,
            intermediate_size=48, max_position_embeddings=CONTEXT, tie_word_embeddings=False, **shared,
        )  # fmt: skip
        made = LlamaForCausalLM(config)
    return made.to(dtype).eval()


def opened(
    family: str, dtype: torch.dtype = torch.float32, seed: int = 0, *, layers: int = LAYERS, eos: int | None = None
) -> iv.Model:
    """The same, opened, with its tokenizer."""
    made = module(family, dtype, seed, layers=layers)
    made.generation_config.eos_token_id = eos
    text = tokenizer()
    if eos is None:
        # Random networks would stop at once now and then; most tests want every token.
        text.eos_token = None
    return iv.open_model(made, tokenizer=text)


def blocks(root: nn.Module) -> nn.ModuleList:
    """The blocks of a network of either family, found without innerview."""
    return root.transformer.h if hasattr(root, "transformer") else root.model.layers


def attention(block: nn.Module) -> nn.Module:
    """The attention of a block."""
    return block.attn if hasattr(block, "attn") else block.self_attn


def direction(
    site: str = "blocks.1.resid", *, seed: int = 0, width: int = WIDTH, name: str = "d", size: float = 40.0
) -> iv.Direction:
    """A random direction whose natural step is large enough to change words."""
    generator = torch.Generator().manual_seed(1000 + seed)
    return iv.Direction.from_vector(
        torch.randn(width, generator=generator), site, name=name, scale=size, residual_norm=2 * size
    )


def ids(rows: int, length: int, seed: int = 0) -> Tensor:
    """Random ids without special ones, shape [rows, length]."""
    return torch.randint(3, VOCAB, (rows, length), generator=torch.Generator().manual_seed(seed))


def ragged(lengths: tuple[int, ...], seed: int = 0) -> list[list[int]]:
    """Rows of ids of these lengths."""
    return [ids(1, length, seed + 7 * i)[0].tolist() for i, length in enumerate(lengths)]


def padded(rows: list[list[int]], *, left: bool) -> tuple[Tensor, Tensor]:
    """Rows padded to one width by hand: ids and mask, both int64."""
    width = max(map(len, rows))
    made, mask = torch.zeros(len(rows), width, dtype=torch.long), torch.zeros(len(rows), width, dtype=torch.long)
    for i, row in enumerate(rows):
        start = width - len(row) if left else 0
        made[i, start : start + len(row)] = torch.tensor(row)
        mask[i, start : start + len(row)] = 1
    return made, mask


def hook_ids(root: nn.Module) -> dict[str, tuple[list[int], list[int]]]:
    """Ids of every module's hooks, in their order: before and after it is called."""
    return {name: (list(m._forward_pre_hooks), list(m._forward_hooks)) for name, m in root.named_modules()}


@dataclass
class Output:
    """What a layer of a toy network returns as a dataclass."""

    extra: str
    hidden: Tensor


class Layer(nn.Module):
    """A linear layer that returns its tensor in a container."""

    def __init__(self, width: int, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.linear = nn.Linear(width, width)

    def forward(self, x: Tensor) -> object:
        y = torch.tanh(self.linear(x))
        made = {
            "tensor": lambda: y,
            "tuple": lambda: (y, y.mean()),
            "1-tuple": lambda: (y,),
            "list": lambda: [y, None],
            "dataclass": lambda: Output("kept", y),
            "dict": lambda: {"hidden": y, "kept": 1},
        }
        return made[self.kind]()


CONTAINERS = ("tensor", "tuple", "1-tuple", "list", "dataclass", "dict")


def inside(value: object) -> Tensor:
    """The tensor in one of those containers."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, Output):
        return value.hidden
    return value["hidden"] if isinstance(value, dict) else value[0]  # type: ignore[index]


class Toy(nn.Module):
    """Two layers of one kind of container, on floats [batch, pos, width]."""

    def __init__(self, kind: str, width: int = 8) -> None:
        super().__init__()
        self.first = Layer(width, kind)
        self.second = Layer(width, kind)
        self.last_type: type | None = None

    def forward(self, x: Tensor) -> Tensor:
        middle = self.first(x)
        self.last_type = type(middle)
        return inside(self.second(inside(middle)))


def toy(kind: str, width: int = 8, seed: int = 0) -> Toy:
    """A toy network with fixed weights."""
    torch.manual_seed(seed)
    return Toy(kind, width).eval()
