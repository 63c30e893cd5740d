"""The logit lens in families that scale their logits, or bound them."""

import pytest
import torch

import innerview as iv
from tests.models.kin import network
from tests.networks import ids


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox", "gemma2", "cohere", "granite", "olmo2", "mixtral"])
def test_the_last_row_of_a_lens_is_what_the_network_says(name: str) -> None:
    root = network(name)
    x = ids(1, 6)
    with torch.no_grad():
        wanted = torch.log_softmax(root(input_ids=x, use_cache=False).logits[0], dim=-1)
    lens = iv.logit_lens(iv.open_model(root), x, k=5)
    assert torch.allclose(lens.top_logprobs[-1], wanted.topk(5).values, atol=1e-5)
    assert torch.equal(lens.top_ids[-1], wanted.topk(5).indices)
