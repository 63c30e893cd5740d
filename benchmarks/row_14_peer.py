"""SAEDashboard's side of row 14, in its own environment: it needs transformers below 4.57, and innerview transformers 5.

Reads a folder with a network, a dictionary and tokens, then, for each number of features that comes in a line, gathers that many features'
data as its runner does, and answers with the seconds and with what it found of the first features.
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from sae_dashboard.sae_vis_data import SaeVisConfig
from sae_dashboard.sae_vis_runner import SaeVisRunner
from sae_lens import HookedSAETransformer, TopKSAE, TopKSAEConfig
from safetensors.torch import load_file
from transformer_lens import HookedTransformerConfig
from transformer_lens.pretrained.weight_conversions import convert_gpt2_weights
from transformers import GPT2Config, GPT2LMHeadModel

# Sequences of one of its forwards: 8192 tokens at 128 a sequence, as many as ours.
SEQUENCES = 64
FOUND = 64


def network(folder: Path) -> HookedSAETransformer:
    """The network of the folder, as TransformerLens holds it."""
    own = GPT2LMHeadModel(GPT2Config(bos_token_id=0, eos_token_id=0)).eval()
    own.load_state_dict(load_file(folder / "network.safetensors"), strict=False)
    own.tie_weights()
    size = own.config
    cfg = HookedTransformerConfig(
        n_layers=size.n_layer, d_model=size.n_embd, n_ctx=size.n_positions, d_head=size.n_embd // size.n_head, n_heads=size.n_head,
        d_vocab=size.vocab_size, act_fn="gelu_new", eps=size.layer_norm_epsilon, normalization_type="LN",
        original_architecture="GPT2LMHeadModel", device="cpu", model_name="gpt2",
    )  # fmt: skip
    made = HookedSAETransformer(cfg)
    made.load_state_dict(convert_gpt2_weights(own, cfg), strict=False)
    return made.eval()


def dictionary(folder: Path, hook: str) -> TopKSAE:
    """The dictionary of the folder."""
    tensors = load_file(folder / "dictionary.safetensors")
    d_sae, d_in = tensors["encoder"].shape
    # Its runner folds the decoder's lengths into the encoder, and refuses where these do not count; here they are all 1.
    cfg = TopKSAEConfig(
        d_in=d_in, d_sae=d_sae, k=int(tensors["k"]), apply_b_dec_to_input=False, rescale_acts_by_decoder_norm=True,
        dtype="float32", device="cpu",
    )  # fmt: skip
    cfg.metadata.hook_name = hook
    made = TopKSAE(cfg)
    parts = {
        "W_enc": tensors["encoder"].T.contiguous(), "W_dec": tensors["decoder"], "b_enc": torch.zeros(d_sae), "b_dec": torch.zeros(d_in),
    }  # fmt: skip
    made.load_state_dict(parts)
    return made.eval()


def gathered(
    model: HookedSAETransformer, source: Path, tokens: torch.Tensor, hook: str, count: int
) -> tuple[float, Any]:
    """Seconds for the data of the first `count` features, and the data. Activations are kept on disk between batches, as it offers."""
    # Made anew each time: its runner changes it.
    sae = dictionary(source, hook)
    with tempfile.TemporaryDirectory() as folder:
        cfg = SaeVisConfig(
            hook_point=hook, features=list(range(count)), minibatch_size_features=256, minibatch_size_tokens=SEQUENCES,
            cache_dir=Path(folder),
        )  # fmt: skip
        start = time.perf_counter()
        data = SaeVisRunner(cfg).run(encoder=sae, model=model, tokens=tokens)
        return time.perf_counter() - start, data


def told(data: Any) -> dict[str, list[float]]:
    """Share of active tokens, in percent as it prints it, and the largest activation, of the first features."""
    shares, largest = [], []
    for feature in range(FOUND):
        one = data.feature_data_dict[feature]
        title = one.acts_histogram_data.title or "= 0%"
        shares.append(float(title.split("=")[1].strip().rstrip("%")))
        groups = one.sequence_data.seq_group_data if one.sequence_data else []
        values = [max(seq.feat_acts) for group in groups for seq in group.seq_data]
        largest.append(max(values, default=0.0))
    return {"shares": shares, "largest": largest}


def main() -> None:
    """Answer each line."""
    folder, hook, threads = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    torch.set_num_threads(threads)
    model = network(folder)
    tokens = load_file(folder / "tokens.safetensors")["ids"]
    answers = sys.stdout
    sys.stdout = sys.stderr
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        seconds, data = gathered(model, folder, tokens[: asked["sequences"]], hook, asked["features"])
        print(json.dumps({"seconds": seconds, **told(data)}), file=answers, flush=True)


if __name__ == "__main__":
    main()
