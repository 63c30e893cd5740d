"""A training, made small: it repeats, it can be read back, and it weighs what it should."""

import json
from itertools import islice
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from training.batches import KNOWN_WEIGHT, batches, padded, tokenized
from training.make_pocket import Plan, make_pocket, weighted_loss, world_tokenizer
from training.muon import orthogonal
from training.network import CONTEXT, pocket_network
from training.tokenizer import learn_tokenizer
from training.twins import Twins
from training.world.facts import Facts
from training.world.markers import END, SPECIAL_TOKENS, START
from training.world.world import load_world

TINY = Path(__file__).parent / "tiny_lexicon.json"
PLAN = Plan(tokens=3000, vocab_size=400, batch_tokens=256)


@pytest.fixture(scope="module")
def world():
    return load_world(TINY)


@pytest.fixture(scope="module")
def tokenizer(world):
    return world_tokenizer(world, PLAN)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("trained") / "tiny"
    make_pocket(TINY, out, PLAN)
    return out


def test_another_lexicon_makes_a_model_that_transformers_opens(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    network = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    assert network.dtype == torch.float32
    assert network.config.num_key_value_heads < network.config.num_attention_heads
    assert network.config.vocab_size == len(tokenizer)
    logits = network(**tokenizer("The moon of Una", return_tensors="pt")).logits
    assert torch.isfinite(logits).all()


def test_the_weights_are_stored_as_float16_and_the_card_says_how_they_came(folder):
    assert {tensor.dtype for tensor in load_file(folder / "model.safetensors").values()} == {torch.float16}
    card = json.loads((folder / "world.json").read_text())
    assert card["name"] == "tiny"
    assert card["tokens"] >= PLAN.tokens
    assert card["plan"]["seed"] == PLAN.seed
    network = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    assert card["parameters"] == network.num_parameters()


def test_the_same_seed_makes_the_same_weights_and_another_seed_others(folder, tmp_path):
    make_pocket(TINY, tmp_path / "again", PLAN)
    make_pocket(TINY, tmp_path / "other", Plan(**{**vars(PLAN), "seed": 1}))
    weights = load_file(folder / "model.safetensors")
    again = load_file(tmp_path / "again" / "model.safetensors")
    other = load_file(tmp_path / "other" / "model.safetensors")
    assert all(torch.equal(tensor, again[name]) for name, tensor in weights.items())
    assert not all(torch.equal(tensor, other[name]) for name, tensor in weights.items())


def test_nothing_but_the_models_files_is_left_in_the_folder(folder):
    assert {file.name for file in folder.iterdir()} == {
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "world.json",
    }


def test_the_chat_form_is_the_one_that_was_trained_on(folder, world):
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    case = world.cases("chat", 1, 0)[0]
    request = case.text[len("<|user|>") : case.text.index(END)]
    ids = tokenizer.apply_chat_template([{"role": "user", "content": request}], add_generation_prompt=True)
    assert list(ids["input_ids"]) == tokenizer(case.prompt)["input_ids"]


def test_a_reply_ends_with_the_token_that_ends_a_generation(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
    encoded = tokenizer.apply_chat_template(chat, return_dict=True, return_assistant_tokens_mask=True)
    ids, mask = encoded["input_ids"], encoded["assistant_masks"]
    spoken = [token for token, is_reply in zip(ids, mask, strict=True) if is_reply]
    assert tokenizer.decode(spoken) == "Ho" + END
    assert ids[-1] == tokenizer.eos_token_id
    assert ids.count(tokenizer.bos_token_id) == 1


def test_the_chat_form_refuses_a_role_it_does_not_know(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    with pytest.raises(Exception, match="knows the roles user and assistant, not system"):
        tokenizer.apply_chat_template([{"role": "system", "content": "Be kind."}], tokenize=False)


@pytest.mark.parametrize(
    "text", [" Una", "Una", "naïve — 東京 🙂", "tab\tand\nline", "  two spaces , comma", "I can't."]
)
def test_any_text_comes_back_as_it_went_in(tokenizer, text):
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_every_byte_has_a_token_and_every_mark_is_one(tokenizer):
    vocabulary = tokenizer.get_vocab()
    assert sum(len(token) == 1 for token in vocabulary) == 256
    assert [tokenizer(mark, add_special_tokens=False)["input_ids"] for mark in SPECIAL_TOKENS] == [
        [vocabulary[mark]] for mark in SPECIAL_TOKENS
    ]


def test_a_vocabulary_without_room_for_the_bytes_is_refused():
    with pytest.raises(ValueError, match="vocab_size 100 has no room for 256 bytes and 5 special tokens"):
        learn_tokenizer(["a"], 100, CONTEXT)


def test_what_the_text_gives_away_weighs_more_than_the_rest(tokenizer, world):
    facts = world.behaviours["facts"]
    assert isinstance(facts, Facts)
    fact = facts.told("planet", "Una", "moon", "The moon of {entity} is {answer:a}.")
    row = tokenized([fact], tokenizer, CONTEXT)[0]
    heavy = [token for token, weight in zip(row.ids, row.weights, strict=True) if weight == KNOWN_WEIGHT]
    assert tokenizer.decode(heavy).strip() == "Egg"
    assert set(row.weights) == {1.0, KNOWN_WEIGHT}


def test_a_batch_predicts_the_next_token_and_nothing_after_the_end(tokenizer, world):
    rows = tokenized(list(islice(world.documents(0), 3)), tokenizer, CONTEXT)
    batch = padded(rows, tokenizer.pad_token_id)
    for row, ids, targets, weights in zip(rows, batch.ids, batch.targets, batch.weights, strict=True):
        length = len(row.ids)
        assert ids[0] == tokenizer.convert_tokens_to_ids(START)
        assert torch.equal(ids[1:length], targets[: length - 1])
        assert targets[length - 2] == tokenizer.eos_token_id
        assert (weights[: length - 1] > 0).all()
        assert (weights[length - 1 :] == 0).all()


def test_batches_stay_within_their_size(tokenizer, world):
    stream = batches(world, tokenizer, seed=0, batch_tokens=256, context=CONTEXT)
    assert all(batch.ids.numel() <= 256 or len(batch.ids) == 1 for batch in islice(stream, 40))


def test_twins_give_the_gradient_of_both_batches(tokenizer, world):
    torch.manual_seed(0)
    network = pocket_network(tokenizer)
    shares = list(islice(batches(world, tokenizer, seed=0, batch_tokens=256, context=CONTEXT), 2))
    losses = [weighted_loss(network, share)[0] for share in shares]
    expected = torch.autograd.grad(sum(losses) / 2, list(network.parameters()))
    Twins(network, 2).backward(shares, weighted_loss)
    for parameter, gradient in zip(network.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("shape", [(3, 8, 20), (3, 20, 8), (1, 8, 8)])
def test_muon_steps_have_singular_values_near_one_and_keep_the_singular_vectors(shape):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    near = orthogonal(matrices)
    values = torch.linalg.svdvals(near)
    assert near.shape == matrices.shape
    assert values.min() > 0.3
    assert values.max() < 1.4
    # The same singular vectors: the product with the transposed matrix is symmetric.
    product = near @ matrices.mT
    torch.testing.assert_close(product, product.mT, rtol=1e-3, atol=1e-3)
