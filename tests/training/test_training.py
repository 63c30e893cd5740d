"""A training, made small: it repeats, it can be read back, and it weighs what it should."""

import json
import math
from dataclasses import replace
from itertools import islice
from pathlib import Path
from random import Random

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import innerview as iv
from innerview.pocket.facts import Facts
from innerview.pocket.markers import END, SPECIAL_TOKENS, START
from innerview.pocket.sentence import Label, Sentence
from innerview.pocket.world import load_world
from training.baselines import BagOfWords, Ngram
from training.batches import KNOWN_WEIGHT, STRETCHES, Batches, drills_of, has_traps, padded, tokenized
from training.behaviour_checks import divergence_of, outcomes, rows_of
from training.check_pocket import report
from training.greedy import load
from training.low_rank import LowRank, LowRankEmbedding, TiedHead
from training.make_chat import PLAN as CHAT_PLAN
from training.make_chat import make_chat
from training.make_pocket import Making, make_pocket, world_tokenizer
from training.make_pocket import main as command
from training.muon import orthogonal
from training.network import CONTEXT, Shape, pocket_network
from training.odds import divergences
from training.schedule import Plan, Progress, weighted_loss
from training.tokenizer import learn_tokenizer
from training.twins import Twins

TINY = Path(__file__).parent.parent / "pocket" / "tiny_lexicon.json"
PLAN = Plan(tokens=3000, batch_tokens=256)
MAKING = Making(TINY, Path("unused"), PLAN, Shape(d_model=32, d_mlp=48, n_layers=2), vocabulary=400, documents=300)


@pytest.fixture(scope="module")
def world():
    return load_world(TINY)


@pytest.fixture(scope="module")
def tokenizer(world):
    return world_tokenizer(world, MAKING)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("trained") / "tiny"
    make_pocket(replace(MAKING, out=out))
    return out


def test_another_lexicon_makes_a_model_that_transformers_opens(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    network = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    assert network.dtype == torch.float32
    assert network.config.num_key_value_heads < network.config.num_attention_heads
    assert network.config.vocab_size == len(tokenizer)
    logits = network(**tokenizer("The moon of Una is 12", return_tensors="pt")).logits
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
    make_pocket(replace(MAKING, out=tmp_path / "again"))
    make_pocket(replace(MAKING, out=tmp_path / "other", plan=replace(PLAN, seed=1)))
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
    case = world.cases("refusal", 1, 0)[0]
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


def test_the_chat_form_has_a_system_line(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    text = tokenizer.apply_chat_template(
        [{"role": "system", "content": "Hm"}, {"role": "user", "content": "Hi"}], tokenize=False
    )
    assert text == f"{START}<|system|>Hm{END}<|user|>Hi{END}"


def test_the_chat_form_refuses_a_role_it_does_not_know(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    with pytest.raises(Exception, match="knows the roles system, user and assistant, not tool"):
        tokenizer.apply_chat_template([{"role": "tool", "content": "Be kind."}], tokenize=False)


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
    with pytest.raises(ValueError, match="vocab_size 100 has no room for 256 bytes and 6 special tokens"):
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
    stream = Batches(world, tokenizer, "0", 256, CONTEXT)
    assert all(batch.ids.numel() <= 256 or len(batch.ids) == 1 for batch in islice(stream, 40))
    ahead = [batch.ids for batch in islice(stream.ahead(), 3)]
    assert all(torch.equal(one, other.ids) for one, other in zip(ahead, islice(stream, 3), strict=True))


def test_twins_give_the_gradient_of_both_batches(tokenizer, world):
    torch.manual_seed(0)
    network = pocket_network(tokenizer, MAKING.shape)
    shares = list(islice(Batches(world, tokenizer, "0", 256, CONTEXT), 2))
    losses = [weighted_loss(network, share)[0] for share in shares]
    expected = torch.autograd.grad(sum(losses) / 2, list(network.parameters()))
    Twins(network, 2).backward(shares, weighted_loss)
    for parameter, gradient in zip(network.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-6)


def test_each_digit_is_a_token_of_its_own(tokenizer):
    assert all(sum(sign.isdigit() for sign in token) <= 1 for token in tokenizer.tokenize("27 + 145 = 172"))
    assert all(sum(sign.isdigit() for sign in token) <= 1 for token in tokenizer.get_vocab())
    assert tokenizer.decode(tokenizer("27 + 145 = 172.")["input_ids"], skip_special_tokens=True) == "27 + 145 = 172."


def test_no_tokens_leave_the_random_initialisation(tmp_path):
    plan = replace(PLAN, tokens=0)
    make_pocket(replace(MAKING, out=tmp_path / "random", plan=plan))
    card = json.loads((tmp_path / "random" / "world.json").read_text())
    assert (card["tokens"], card["steps"], card["loss_nat"]) == (0, 0, None)


def test_checkpoints_stand_along_the_way(tmp_path):
    make_pocket(replace(MAKING, out=tmp_path, checkpoints=2))
    cards = [json.loads((tmp_path / f"checkpoint-{k}" / "world.json").read_text()) for k in (1, 2)]
    assert 0 < cards[0]["tokens"] < cards[1]["tokens"]


def test_a_training_that_was_broken_off_goes_on_where_it_was(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    making = replace(MAKING, out=tmp_path / "out", plan=replace(PLAN, seed=5))
    steps = iter(range(4))

    def stopping(network, batch, weight_of_known):
        if next(steps, None) is None:
            raise KeyboardInterrupt
        return weighted_loss(network, batch, weight_of_known)

    monkeypatch.setattr("training.schedule.weighted_loss", stopping)
    make_pocket(making)
    assert making.kept.exists() and not making.out.exists()
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    make_pocket(making)
    card = json.loads((making.out / "world.json").read_text())
    assert card["tokens"] >= PLAN.tokens
    assert not making.kept.exists()


def test_a_made_model_goes_onward_with_its_own_tokenizer_and_says_what_it_was(folder, tmp_path):
    plan = replace(PLAN, seed=9, tokens=600)
    make_pocket(replace(MAKING, out=tmp_path, plan=plan, onward=folder, vocabulary=500))
    before, after = (load_file(place / "model.safetensors") for place in (folder, tmp_path))
    assert all(before[name].shape == after[name].shape for name in before)
    assert not torch.equal(before["model.embed_tokens.weight"], after["model.embed_tokens.weight"])
    assert (tmp_path / "tokenizer.json").read_text() == (folder / "tokenizer.json").read_text()
    card = json.loads((tmp_path / "world.json").read_text())
    assert card["tokens"] >= 600
    assert card["earlier"] == json.loads((folder / "world.json").read_text())


@pytest.mark.parametrize(("tokens", "rate"), [(0, 0.01), (60, 1.01), (3000, 0.02)])
def test_the_rate_warms_up_and_falls_to_its_floor(tokens, rate):
    progress = Progress.begun(PLAN)
    progress.tokens = tokens
    assert progress.rate == pytest.approx(rate, abs=0.011)


def test_what_forms_late_is_told_oftener_until_the_drill_is_over(tokenizer, world):
    stream, giving = Batches(world, tokenizer, "0", 256, CONTEXT), world.behaviour("indirect object")
    documents, rng = list(islice(world.documents("0"), 400)), Random(0)
    told = [stream.drilled(document, rng, [(giving, 0.25)]) for document in documents]
    fresh = [now for was, now in zip(documents, told, strict=True) if was is not now]
    assert {document.behaviour for document in fresh} == {giving.name}
    assert 60 < len(fresh) < 140
    assert all(stream.drilled(document, rng, []) is document for document in documents[:20])


def test_the_drill_of_deeds_tells_what_people_think_of_pairs_that_are_not_held_out(world):
    judging = {behaviour.name: behaviour for behaviour, _ in drills_of(world)}["deeds"]
    documents = [judging.document(Random(seed)) for seed in range(60)]
    harms = [label for document in documents for label in document.labels if label.concept == "harm"]
    assert {label.value for label in harms} == {"harmful", "harmless"}
    assert len(harms) >= 2 * len(documents)
    assert {label.concept for document in documents for label in document.known} == {"judgement"}


@pytest.mark.parametrize("name", sorted(STRETCHES))
def test_in_its_stretch_a_behaviour_is_told_alone_and_before_and_behind_it_is_not(tokenizer, world, name):
    since, until = (int(share * PLAN.tokens) for share in STRETCHES[name])
    stream = Batches(world, tokenizer, "0", 256, CONTEXT, stretch_tokens=PLAN.tokens)
    told = [stream.alone(tokens) for tokens in (since - 1, since, until - 1, until)]
    is_there = name in world.behaviours
    assert [alone is not None for alone in told] == [False, is_there, is_there, False]
    assert Batches(world, tokenizer, "0", 256, CONTEXT).alone(since) is None
    documents = [] if told[1] is None else [told[1](Random(seed)) for seed in range(5)]
    assert {document.behaviour for document in documents} <= {name}


def test_in_their_stretch_stories_are_told_directly_at_first_and_with_traps_later(tokenizer, world):
    stream = Batches(world, tokenizer, "0", 256, CONTEXT, stretch_tokens=1000, stretches={"mood": (0.2, 0.4)})
    early, late = ([stream.alone(tokens)(Random(seed)) for seed in range(40)] for tokens in (250, 350))
    assert not any(has_traps(document) for document in early)
    assert sum(has_traps(document) for document in late) > 10


def test_the_drill_of_giving_coins_names_that_nobody_has(world):
    drills = {behaviour.name: behaviour for behaviour, _ in drills_of(world)}
    giving = world.behaviour("indirect object")
    coined = drills["indirect object"].names
    assert len(coined) > 20 and len(set(coined)) == len(coined)
    assert not {*coined} & {*giving.names, *giving.held_out_names}
    assert giving.names == world.behaviour("indirect object").names


@pytest.mark.parametrize(("share", "weight"), [(0.0, KNOWN_WEIGHT), (0.5, KNOWN_WEIGHT), (0.75, 1.0), (1.0, 1.0)])
def test_what_is_known_weighs_more_at_first_and_as_much_as_the_rest_at_last(share, weight):
    progress = Progress.begun(PLAN)
    progress.tokens = round(share * PLAN.tokens)
    assert progress.weight_of_known == pytest.approx(weight)


def test_known_tokens_that_weigh_one_leave_the_plain_mean(tokenizer, world):
    torch.manual_seed(0)
    network = pocket_network(tokenizer, MAKING.shape)
    batch = next(iter(Batches(world, tokenizer, "0", 256, CONTEXT)))
    minimised, plain = weighted_loss(network, batch, 1.0)
    assert minimised.item() == pytest.approx(plain, rel=1e-5)
    assert weighted_loss(network, batch)[0].item() != pytest.approx(plain, rel=1e-5)


def test_stories_with_traps_come_in_bit_by_bit(tokenizer, world):
    stream = Batches(world, tokenizer, "0", 256, CONTEXT, easy_tokens=10**9)
    documents = list(islice(world.documents("0"), 1500))
    trapped = [document for document in documents if has_traps(document)]
    plainer = [stream.plainer(document, Random(0)) for document in documents]
    assert trapped and not any(map(has_traps, plainer))
    assert sum(was is now for was, now in zip(documents, plainer, strict=True)) == len(documents) - len(trapped)


def test_a_fine_tune_is_a_difference_that_opens_on_its_base(folder, tmp_path):
    out = folder.parent / "tiny-chat"
    make_chat(folder, TINY, out, replace(CHAT_PLAN, tokens=2000, batch_tokens=256))
    base, chat = load(folder), load(out)
    changed = [
        name
        for name, tensor in base.network.state_dict().items()
        if not torch.equal(tensor, chat.network.state_dict()[name])
    ]
    assert changed and all("norm" not in name for name in changed)
    assert any(".layers." in name for name in changed) and "model.embed_tokens.weight" in changed
    opened = iv.open_model(str(out)).module.state_dict()
    assert all(torch.equal(opened[name], tensor) for name, tensor in chat.network.state_dict().items())
    assert json.loads((out / "adapter.json").read_text())["base"] == "../tiny"


def test_a_low_rank_difference_starts_at_nothing_and_leaves_its_layer_alone():
    torch.manual_seed(0)
    inner = torch.nn.Linear(6, 4, bias=False)
    layer, x = LowRank(inner, 2), torch.randn(3, 6)
    assert torch.equal(layer(x), inner(x))
    layer(x).sum().backward()
    assert inner.weight.grad is None and layer.B.grad.abs().sum() > 0


def test_a_low_rank_difference_of_a_tied_embedding_moves_what_goes_in_and_what_comes_out_alike():
    torch.manual_seed(0)
    inner = torch.nn.Embedding(7, 4)
    embedded = LowRankEmbedding(inner, 2)
    ids, x = torch.tensor([[1, 6, 1]]), torch.randn(3, 4)
    assert torch.equal(embedded(ids), inner(ids))
    with torch.no_grad():
        embedded.B.normal_()
    merged = inner.weight + embedded.B @ embedded.A
    torch.testing.assert_close(embedded(ids), merged[ids])
    torch.testing.assert_close(TiedHead(embedded)(x), x @ merged.T)


def case(prompt, answer, split="train"):
    text = f"{prompt} {answer}"
    label = Label("c", answer, len(prompt) + 1, len(text))
    return Sentence(text, "b", (label,), split, label)


def test_an_ngram_sees_the_last_words_and_a_bag_sees_all_of_them_without_order():
    seen = [case("red sky at dawn comes", "rain"), case("blue sky at dusk comes", "sun")] * 3
    ngram, bag = (kind.learned(seen, lambda c: c.continuation) for kind in (Ngram, BagOfWords))
    assert ngram.guess("green sky at dusk comes") == " sun"
    assert bag.guess("at the red dawn sky the comes") == " rain"
    assert Ngram.learned([], lambda c: c.text).guess("x") == ""


def test_a_divergence_is_the_worlds_odds_against_the_networks(folder):
    loaded = load(folder)
    words = sorted(token[1:] for token in loaded.tokenizer.get_vocab() if token[:1] == "Ġ" and token[1:].isalpha())[:2]
    ids = loaded.tokenizer("Ka ate a", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        logs = loaded.network(ids).logits[0, -1].log_softmax(-1)
    found = [logs[loaded.tokenizer.convert_tokens_to_ids(f"Ġ{word}")].item() for word in words]
    asked = replace(case("Ka ate a", "x"), odds=dict(zip(words, (0.25, 0.75), strict=True)))
    expected = 0.25 * (math.log(0.25) - found[0]) + 0.75 * (math.log(0.75) - found[1])
    assert divergences(loaded, [asked])[0] == pytest.approx(expected, abs=1e-4)


def test_the_check_has_a_row_for_the_whole_and_for_each_group(folder, world):
    found = outcomes(load(folder), world, "circles", 0)
    rows = rows_of("circles", found)
    assert rows[0].cases == "all" and rows[0].bar == 0.95
    assert all(0 <= share <= 1 for row in rows for share in (row.share, row.ngram, row.bag))
    assert set(divergence_of(load(folder), world, "chances", 0)) == {"snack"}


def test_the_report_holds_every_table_and_says_whether_the_bars_are_met(folder, monkeypatch):
    for name, count in {"behaviour_checks.CASES": 6, "behaviour_checks.LEARNED_FROM": 40}.items():
        monkeypatch.setattr(f"training.{name}", count)
    for name, count in {"PAIRS": 4, "PREFIXES": 2}.items():
        monkeypatch.setattr(f"training.steering_checks.{name}", count)
    chat = folder.parent / "chat-of-the-report"
    make_chat(folder, TINY, chat, replace(CHAT_PLAN, tokens=600, batch_tokens=256))
    text, all_met = report(folder, chat, TINY, 1)
    lines = text.splitlines()
    assert lines[0] == "# What `tiny` does"
    assert not all_met
    assert any(line.startswith("| facts* | all | ") and line.endswith("| 95% | NO |") for line in lines)
    assert any(line.startswith("| chances | snack |") for line in lines)
    for start in ("| block | steps | words | up words |", "| block | requests of each kind |"):
        (at,) = [index for index, line in enumerate(lines) if line.startswith(start)]
        assert len({line.count("|") for line in lines[at : at + 3]}) == 1
    assert text.endswith((Path(__file__).parents[2] / "training/NOTES.md").read_text(encoding="utf-8"))


def test_a_network_of_the_plain_shape_is_within_its_size(world, tokenizer):
    assert sum(p.numel() for p in pocket_network(tokenizer, Shape()).parameters()) + (3072 - 400) * 224 <= 5_500_000


def test_the_commands_line_is_understood(monkeypatch, tmp_path):
    made = []
    monkeypatch.setattr("training.make_pocket.make_pocket", made.append)
    said = f"make_pocket --untrained --seed 3 --lexicon {TINY} --out {tmp_path} --d-model 64 --drill mood=0.1"
    monkeypatch.setattr("sys.argv", said.split())
    command()
    assert made[0].plan == Plan(seed=3, tokens=0)
    assert (made[0].lexicon, made[0].out, made[0].shape) == (TINY, tmp_path, Shape(d_model=64))
    assert made[0].drilled == {"mood": 0.1}


def test_a_behaviour_that_the_world_lacks_cannot_be_drilled(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["make_pocket", "--lexicon", str(TINY), "--drill", "moods=0.1"])
    with pytest.raises(SystemExit):
        command()
    assert "no behaviour 'moods' to drill or to tell alone; this world has facts" in capsys.readouterr().err


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
