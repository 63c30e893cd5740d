"""Texts, roles, token sets and special tokens, against the offsets of `tokenizers` and edits made by hand at listed positions."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

import innerview as iv
from innerview.errors import EditError
from innerview.where.spans import Reader
from tests.engine.oracle import write_alone
from tests.networks import direction, module, padded

CORPUS = [
    "When Mary and John went to the shop, John gave a drink to Mary.",
    "Maryland is far away, naïve café 🙂 and the shops are shut.",
    "hello there, how are you? I am well, thank you.\n\nGood.",
]
MARKS = ["<pad>", "<bos>", "<eos>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>"]
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ '<|' + m['role'] + '|>\\n' + m['content'] + '<|end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)
CHAT = [
    {"role": "system", "content": "Mary is far away"},
    {"role": "user", "content": "hello there, Mary"},
    {"role": "assistant", "content": "how are you?\n\nGood"},
    {"role": "user", "content": "to the shop"},
]


def bpe(kind: str) -> PreTrainedTokenizerFast:
    """A tokenizer whose words fall into pieces: of bytes as GPT-2's, or of characters with spaces in front as Llama's first."""
    if kind == "bytes":
        inner = Tokenizer(models.BPE())
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        inner.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    else:
        inner = Tokenizer(models.BPE(byte_fallback=True, unk_token="<pad>"))
        inner.pre_tokenizer = pre_tokenizers.Metaspace()
        inner.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
        alphabet = ["\n"]
    trainer = trainers.BpeTrainer(vocab_size=340, special_tokens=MARKS, initial_alphabet=alphabet, show_progress=False)  # type: ignore[call-arg]
    inner.train_from_iterator(CORPUS, trainer)
    made = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        additional_special_tokens=MARKS[3:],
    )
    made.chat_template = TEMPLATE
    return made


def opened(family: str, kind: str = "bytes") -> iv.Model:
    """A small network whose vocabulary is that of a tokenizer of pieces."""
    text = bpe(kind)
    made = module(family)
    made.resize_token_embeddings(len(text), mean_resizing=False)
    torch.manual_seed(1)
    for weight in {
        id(w): w for w in (made.get_input_embeddings().weight, made.get_output_embeddings().weight)
    }.values():
        torch.nn.init.normal_(weight, std=0.4)
    made.generation_config.eos_token_id = None
    text.eos_token = None
    return iv.open_model(made, tokenizer=text)


def occurrences(text: str, sought: str) -> list[int]:
    """Where a text begins in another, by trying every place."""
    return [i for i in range(len(text)) if text.startswith(sought, i)]


@pytest.mark.parametrize("kind", ["bytes", "pieces"])
@pytest.mark.parametrize("sought", ["Mary", "John gave", "café", "🙂", "the shop", "ar", "."])
def test_a_text_is_the_tokens_that_tokenizers_says_write_it(kind: str, sought: str) -> None:
    tokenizer, text = bpe(kind), " ".join(CORPUS[:2])
    encoded = tokenizer(text, add_special_tokens=False)
    for nth, start in enumerate(occurrences(text, sought), 1):
        told = {encoded.char_to_token(i) for i in range(start, start + len(sought))} - {None}
        wanted = [any(span is not None and span.start < start + len(sought) and start < span.end for span in [encoded.token_to_chars(i)]) for i in range(len(encoded["input_ids"]))]  # fmt: skip
        found = Reader.of(tokenizer).text_span(encoded["input_ids"], sought, nth, 0)
        assert told <= {i for i, is_in in enumerate(found) if is_in}
        assert found == wanted
    last = Reader.of(tokenizer).text_span(encoded["input_ids"], sought, -1, 0)
    assert last == found and sum(found) >= 1


def test_ids_that_no_text_would_give_are_read_piece_by_piece() -> None:
    tokenizer = bpe("bytes")
    one_by_one = [i for char in "to Mary 🙂 naïve" for i in tokenizer(char, add_special_tokens=False)["input_ids"]]
    reader = Reader.of(tokenizer)
    assert tuple(tokenizer("to Mary 🙂 naïve")["input_ids"]) != tuple(one_by_one)
    words = {
        sought: tokenizer.decode([i for i, is_in in zip(one_by_one, reader.text_span(one_by_one, sought, None, 0), strict=True) if is_in])
        for sought in ("Mary", "🙂", "ï", "naïve")
    }  # fmt: skip
    assert words == {"Mary": "Mary", "🙂": "🙂", "ï": "ï", "naïve": "naïve"}


def test_the_name_of_a_special_token_is_no_text() -> None:
    tokenizer = bpe("bytes")
    ids = tokenizer.apply_chat_template([{"role": "user", "content": "an end"}], return_dict=True)["input_ids"]
    reader = Reader.of(tokenizer)
    chosen = [
        tokenizer.decode([i]) for i, is_in in zip(ids, reader.text_span(ids, "end", None, 0), strict=True) if is_in
    ]
    assert "".join(chosen).strip() == "end"
    whole = [
        tokenizer.decode([i]) for i, is_in in zip(ids, reader.text_span(ids, "<|end|>", 1, 0), strict=True) if is_in
    ]
    assert whole == ["<|end|>"]


@pytest.mark.parametrize("kind", ["bytes", "pieces"])
@pytest.mark.parametrize("role", ["system", "user", "assistant"])
def test_a_role_is_the_tokens_of_what_it_says(kind: str, role: str) -> None:
    tokenizer = bpe(kind)
    rendered = tokenizer.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True)
    encoded = tokenizer(rendered, add_special_tokens=False)
    wanted = [False] * len(encoded["input_ids"])
    for message in (m for m in CHAT if m["role"] == role):
        start = rendered.index(message["content"])
        for i in range(start, start + len(message["content"])):
            token = encoded.char_to_token(i)
            if token is not None:
                wanted[token] = True
    found, is_open = Reader.of(tokenizer).role_span(encoded["input_ids"], role, 0)
    assert found == wanted and is_open == (role == "assistant")


TEMPLATES = {
    "header": TEMPLATE,
    "brackets": "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% elif m['role'] == 'assistant' %}{{ ' ' + m['content'] + eos_token }}{% else %}{{ raise_exception('no such role') }}{% endif %}{% endfor %}",
    "default system": "{% if messages[0]['role'] != 'system' %}{{ '<|system|>\\nYou help.<|end|>\\n' }}{% endif %}"
    + TEMPLATE.removeprefix("{{ bos_token }}"),
    "renamed": TEMPLATE.replace("m['role'] +", "('model' if m['role'] == 'assistant' else m['role']) +").replace(
        "<|assistant|>", "<|model|>"
    ),
    "plain words": "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}",
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_roles_are_told_by_whatever_a_template_writes_around_them(name: str) -> None:
    tokenizer = bpe("bytes")
    tokenizer.chat_template = TEMPLATES[name]
    tokenizer.eos_token = "<eos>"
    rendered = tokenizer.apply_chat_template(CHAT[1:], tokenize=False, add_generation_prompt=True)
    encoded = tokenizer(rendered, add_special_tokens=False)
    for role, said in (("user", ("hello there, Mary", "to the shop")), ("assistant", ("how are you?\n\nGood",))):
        wanted = {
            encoded.char_to_token(i)
            for text in said
            for i in range(rendered.index(text), rendered.index(text) + len(text))
        }
        found, is_open = Reader.of(tokenizer).role_span(encoded["input_ids"], role, 0)
        assert {i for i, is_in in enumerate(found) if is_in} == wanted
        assert is_open == (role == "assistant")


def test_what_a_template_marks_as_generated_is_the_assistants() -> None:
    tokenizer = bpe("bytes")
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'assistant' %}{{ '<|assistant|>' }}{% generation %}{{ m['content'] + '<|end|>' }}"
        "{% endgeneration %}{% else %}{{ '<|user|>' + m['content'] + '<|end|>' }}{% endif %}{% endfor %}"
    )
    made = tokenizer.apply_chat_template(CHAT[1:], return_dict=True, return_assistant_tokens_mask=True)
    found, _ = Reader.of(tokenizer).role_span(made["input_ids"], "assistant", 0)
    assert found == [bool(mark) for mark in made["assistant_masks"]] and any(found)


def test_a_template_that_writes_roles_alike_is_refused() -> None:
    tokenizer = bpe("bytes")
    tokenizer.chat_template = "{% for m in messages %}{{ '<|user|>' + m['content'] }}{% endfor %}"
    with pytest.raises(
        EditError, match=r"writes the same before assistant and user, '<\|user\|>', so roles cannot be told"
    ):
        Reader.of(tokenizer).role_span([3, 20], "user", 0)


# What is chosen in a run, by hand.

PROMPTS = ["When Mary gave John a drink", "John and Mary went to Mary", "Mary is there"]


def places(model: iv.Model, ids: list[int], wanted: set[str]) -> set[int]:
    """Positions of tokens whose own text is one of some."""
    return {i for i, one in enumerate(ids) if model.tokenizer.decode([one]) in wanted}


def choices(model: iv.Model) -> dict[str, tuple[dict[str, Any], Callable[[list[int], list[int]], set[int]]]]:
    """By name: fields of a Where, and the positions among prompt and written ids that it means, by hand."""
    mary = {" Mary", "Mary"}
    return {
        "text": ({"text": "Mary"}, lambda prompt, ids: places(model, prompt, mary)),
        "first": ({"text": "Mary", "nth": 1}, lambda prompt, ids: {min(places(model, prompt, mary))}),
        "last": ({"text": "Mary", "nth": -1}, lambda prompt, ids: {max(places(model, prompt, mary))}),
        "tokens": ({"tokens": {" Mary", "Mary"}}, lambda prompt, ids: places(model, ids, mary)),
        "ids": (
            {"tokens": [i for w in ("Mary", " Mary") for i in model.tokenizer(w)["input_ids"]]},
            lambda prompt, ids: places(model, ids, mary),
        ),
        "generated tokens": (
            {"tokens": list(range(0, 330, 2)), "scope": "generated"},
            lambda prompt, ids: {p for p, i in enumerate(ids) if i % 2 == 0 and i < 330 and p >= len(prompt)},
        ),
        "no special": ({"special": False}, lambda prompt, ids: {p for p, i in enumerate(ids) if i > 6}),
        "special": ({"special": True}, lambda prompt, ids: {p for p, i in enumerate(ids) if i <= 6}),
    }


NAMES = ("text", "first", "last", "tokens", "ids", "generated tokens", "no special", "special")


def by_hand(
    model: iv.Model, prompts: list[list[int]], meant: Callable[[list[int], list[int]], set[int]], steps: int
) -> list[list[int]]:
    """Rows written one by one, each step anew."""
    delta = direction().vector.double() * direction().scale
    found = []
    for row in prompts:
        written: list[int] = []
        for _ in range(steps):
            ids = [*row, *written]
            chosen = meant(row, ids)
            written += write_alone(model.module, ids, 1, delta, lambda p, n, chosen=chosen: float(p in chosen), 1)
        found.append(written)
    return found


@pytest.mark.parametrize("cache", ["dynamic", "static", "none"])
@pytest.mark.parametrize("name", NAMES)
def test_a_run_is_edited_where_it_says(family: str, name: str, cache: str) -> None:
    model = opened(family)
    given, meant = choices(model)[name]
    prompts = [[1, *model.tokenizer(text)["input_ids"]] for text in PROMPTS]
    run = iv.generate(
        model, prompts, edits=[iv.Add(direction(), where=iv.Where(**given))], max_new_tokens=4, cache=cache
    )
    run.wait()
    assert run.tokens_so_far == by_hand(model, prompts, meant, 4)
    if name not in ("first", "special"):
        assert run.tokens_so_far != by_hand(model, prompts, lambda prompt, ids: set(), 4)


WAYS: dict[str, dict[str, Any]] = {
    "dynamic": {},
    "none": {"use_cache": False},
    "chunks": {"prefill_chunk_size": 2},
    "beams": {"num_beams": 2},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["text", "last", "tokens", "no special"])
def test_the_users_own_generate_is_edited_where_it_says(family: str, name: str, way: str) -> None:
    model = opened(family)
    where = iv.Where(**choices(model)[name][0])
    prompts = [[1, *model.tokenizer(text)["input_ids"]] for text in PROMPTS]
    ids, mask = padded(prompts, left=True)
    beams = 2 if way == "beams" else 1
    run = iv.generate(model, prompts, edits=[iv.Add(direction(), where=where)], max_new_tokens=4, num_beams=beams)
    run.wait()
    with iv.editing(model, [iv.Add(direction(), where=where)]):
        written = model.module.generate(
            ids, attention_mask=mask, max_new_tokens=4, do_sample=False, pad_token_id=0, **WAYS[way]
        )
    assert written[:, ids.shape[1] :].tolist() == run.tokens_so_far


@pytest.mark.parametrize("cache", ["dynamic", "none"])
@pytest.mark.parametrize(
    ("role", "scope"), [("assistant", "all"), ("assistant", "generated"), ("assistant", "prompt"), ("user", "all")]
)
def test_the_assistant_goes_on_speaking_while_it_writes(family: str, role: str, scope: str, cache: str) -> None:
    model = opened(family)
    where = iv.Where(role=role, scope=scope)  # type: ignore[arg-type]
    run = iv.generate(model, CHAT, edits=[iv.Add(direction(), where=where)], max_new_tokens=4, cache=cache)
    run.wait()
    text = model.tokenizer.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True)
    encoded = model.tokenizer(text, add_special_tokens=False)
    said = {
        encoded.char_to_token(i)
        for m in CHAT
        if m["role"] == role
        for i in range(text.index(m["content"]), text.index(m["content"]) + len(m["content"]))
    }

    def meant(prompt: list[int], ids: list[int]) -> set[int]:
        behind = set(range(len(prompt), len(ids))) if role == "assistant" else set()
        return {"all": said | behind, "prompt": said, "generated": behind}[scope]

    assert run.tokens_so_far == by_hand(model, run.prompt_tokens, meant, 4)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"text": "Peter"},
            r"the text 'Peter' is not in row 0: 'When Mary gave John a drink'; it is sought letter by letter",
        ),
        ({"text": "gave"}, r"the text 'gave' is not in row 1: 'John and Mary"),
        ({"text": "Mary", "nth": 2}, r"'Mary' is once in row 0, so there is no nth=2"),
        (
            {"role": "user"},
            r"row 0 has nothing of the role 'user': it is no chat.*the template knows user, assistant, system",
        ),
        (
            {"tokens": ["Mary went"]},
            r"'Mary went' is \d+ tokens, .*; name single tokens, give ids, or use text='Mary went'",
        ),
    ],
)
def test_what_is_not_there_is_refused_at_once_with_the_row(given: dict, message: str) -> None:
    model = opened("gpt2")
    edits = [iv.Add(direction(), where=iv.Where(**given))]
    with pytest.raises(EditError, match=message):
        iv.generate(model, PROMPTS, edits=edits, max_new_tokens=2)
    with pytest.raises(EditError, match=message):
        iv.capture(model, PROMPTS, "blocks.1.resid", edits=edits)


def test_without_ids_or_a_tokenizer_nothing_can_be_sought() -> None:
    model = opened("gpt2")
    x = model.module.get_input_embeddings()(torch.tensor([[5, 6, 7]])).detach()
    for given in ({"text": "Mary"}, {"tokens": [5]}, {"special": False}, {"role": "user"}):
        with (
            iv.editing(model, [iv.Add(direction(), where=iv.Where(**given))]),
            pytest.raises(EditError, match=r"inputs_embeds"),
        ):
            model.module(inputs_embeds=x)
    plain = iv.open_model(module("gpt2"), tokenizer=None)
    if plain.tokenizer is None:
        with pytest.raises(EditError, match=r"has no tokenizer"):
            iv.attach(plain, [iv.Add(direction(), where=iv.Where(text="Mary"))])


def test_a_plain_forward_without_a_mask_takes_texts_and_tokens(family: str) -> None:
    model = opened(family)
    ids = model.tokenizer(PROMPTS[1], return_tensors="pt")["input_ids"]
    wanted = iv.capture(model, ids, "logits", edits=[iv.Add(direction(), where=iv.Where(text="Mary", nth=2))])["logits"]
    at = max(places(model, ids[0].tolist(), {" Mary"}))
    assert torch.equal(
        wanted, iv.capture(model, ids, "logits", edits=[iv.Add(direction(), where=iv.Where(positions=at))])["logits"]
    )
    for where in (iv.Where(text="Mary", nth=2), iv.Where(tokens=" Mary")):
        with iv.editing(model, [iv.Add(direction(), where=where)]), torch.no_grad():
            found = model.module(ids, use_cache=False).logits
        assert torch.allclose(found, wanted, atol=1e-5) == (where.text is not None)
