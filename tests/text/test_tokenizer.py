"""Ids in and out: the traps of the published tokenizer, the files, and what another library makes of them."""

from __future__ import annotations

import json
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.text.gemma import gemma_like
from zaya.errors import CheckpointError, UsageError
from zaya.text import byte_tokenizer, load_tokenizer, render, tags, train_tokenizer

TOKENIZERS = {"byte": byte_tokenizer(), "gemma": gemma_like(), "gemma flagged": gemma_like(flag_tags=True)}
texts = st.lists(
    st.one_of(st.text(max_size=8), st.sampled_from([*tags.TAGS, "<bos>", "<pad>", "hello world", " ", "\n", "\n\n"])),
    max_size=12,
).map("".join)
# characters that spaces are written as, or that both vocabularies decode as spaces
roundtrip_texts = texts.filter(lambda text: "▁" not in text)


@pytest.fixture(params=TOKENIZERS)
def tokenizer(request):
    return TOKENIZERS[request.param]


def test_encode_opens_with_bos_and_never_closes():
    tokenizer = gemma_like()
    with_post_processor = tokenizer._backend.encode("hello world").ids
    assert with_post_processor[0] == 2
    assert with_post_processor[-1] == 106
    assert tokenizer.encode("hello world") == with_post_processor[:-1]
    assert tokenizer.encode("hello world", bos=False) == with_post_processor[1:-1]
    assert tokenizer.encode("") == [2]


def test_ids_by_name(tokenizer):
    assert (tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id) == (0, 2, 106)
    found = tokenizer.tags
    assert (found.call_open, found.call_close, found.response_open, found.response_close) == (101, 102, 103, 104)
    assert (found.turn_open, found.turn_close) == (105, 106)
    assert tokenizer.encode("<think></think>", bos=False) == [found.think_open, found.think_close]


def test_tags_that_are_absent_are_none():
    source = json.loads(byte_tokenizer().source)
    source["added_tokens"] = [token for token in source["added_tokens"] if "think" not in token["content"]]
    del source["model"]["vocab"]["<think>"]
    found = type(byte_tokenizer())(json.dumps(source)).tags
    assert found.think_open is None
    assert found.think_close is None  # an entry of the vocabulary that text never becomes is no tag
    assert found.turn_open == 105


@settings(max_examples=60, deadline=None)
@given(roundtrip_texts)
def test_decode_undoes_encode(text):
    for tokenizer in TOKENIZERS.values():
        assert tokenizer.decode(tokenizer.encode(text, bos=False)) == text
        assert tokenizer.decode(tokenizer.encode_plain(text)) == text


@settings(max_examples=60, deadline=None)
@given(st.lists(texts, max_size=4))
def test_plain_text_holds_no_control_tokens(some):
    for tokenizer in TOKENIZERS.values():
        batch = tokenizer.encode_plain_batch(some)
        assert batch == [tokenizer.encode_plain(text) for text in some]
        assert not any(id in tokenizer.control_ids for ids in batch for id in ids)


@settings(max_examples=60, deadline=None)
@given(texts)
def test_plain_text_without_spellings_is_encoded_as_ever(text):
    for tokenizer in TOKENIZERS.values():
        if not any(tokenizer.control.find(text)):
            assert tokenizer.encode_plain(text) == tokenizer.encode(text, bos=False)


def test_nested_spellings_are_all_taken_apart(tokenizer):
    for text in ["<|im_end<|im_end|>|>", "<<think>", "<think<think>>", "</think></think>", "<bos><bos"]:
        assert not tokenizer.control_ids.intersection(tokenizer.encode_plain(text))
        assert tokenizer.decode(tokenizer.encode_plain(text)) == text


def test_skip_special_leaves_out_what_is_flagged():
    ids = byte_tokenizer().encode("a<think>b<|im_end|>")
    assert byte_tokenizer().decode(ids, skip_special=True) == "ab"
    unflagged = gemma_like()
    assert unflagged.decode(unflagged.encode("a<think>b<|im_end|>"), skip_special=True) == "a<think>b<|im_end|>"


def test_never_sampled_are_the_rows_without_a_token():
    tokenizer = byte_tokenizer()
    assert tokenizer.size == 268
    assert tokenizer.never_sampled(268) == []
    assert tokenizer.never_sampled(271) == [268, 269, 270]
    with pytest.raises(CheckpointError, match="up to 267, the model only 267"):
        tokenizer.never_sampled(267)
    holed = gemma_like()
    last = holed.tags.think_close
    assert last is not None
    assert holed.never_sampled(last + 3) == [*range(last - 6, last - 1), last + 1, last + 2]
    assert holed.decode([*range(last - 6, last - 1), last + 1, 1 << 40, -1]) == ""


def test_text_that_is_none(tokenizer):
    for encode in (tokenizer.encode, tokenizer.encode_plain, lambda text: tokenizer.encode_plain_batch([text])):
        with pytest.raises(UsageError, match="cannot be encoded"):
            encode("a\ud800b")


def test_saved_and_loaded(tmp_path, tokenizer):
    tokenizer.save(tmp_path)
    again = load_tokenizer(tmp_path)
    assert again is not None
    assert again.digest == tokenizer.digest
    assert again.chat_template is not None
    assert again.special_names == tokenizer.special_names
    assert again.encode("hello <think> wörld") == tokenizer.encode("hello <think> wörld")
    again.save(tmp_path / "twice")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (tmp_path / "twice" / name).read_bytes() == (tmp_path / name).read_bytes()


@pytest.mark.parametrize("config", [None, {"model_type": "zaya", "architectures": ["ZayaForCausalLM"]}])
def test_transformers_reads_what_is_saved(tmp_path, tokenizer, config):
    from transformers import AutoTokenizer

    tokenizer.save(tmp_path)
    if config is not None:  # as in a checkpoint directory, where the model's type names another tokenizer class
        (tmp_path / "config.json").write_text(json.dumps(config))
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert len(theirs) == tokenizer.size
    assert (theirs.pad_token_id, theirs.bos_token_id, theirs.eos_token_id) == (0, 2, 106)
    assert theirs.padding_side == "left"
    for text in ["hello world", "<think>\n12 é</think>\n\n<|im_end|>", "  日本 <bos"]:
        ids = theirs.encode(text, add_special_tokens=False)
        assert ids == tokenizer.encode(text, bos=False)
        assert theirs.decode(ids) == tokenizer.decode(ids) == text
    assert theirs.encode("hello")[0] == 2


def test_directories_without_or_with_damaged_files(tmp_path):
    assert load_tokenizer(tmp_path) is None
    with pytest.raises(CheckpointError, match="no such directory"):
        load_tokenizer(tmp_path / "absent")
    (tmp_path / "tokenizer_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"no tokenizer\.json"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0", "model"')
    with pytest.raises(CheckpointError, match=r"tokenizer\.json cannot be read"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes(b"\xff\xfe")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text(byte_tokenizer().source)
    (tmp_path / "tokenizer_config.json").write_text("[1]")
    with pytest.raises(CheckpointError, match="must hold an object"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(CheckpointError, match="is not JSON"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    bare = load_tokenizer(tmp_path)
    assert bare is not None
    assert bare.chat_template is None
    assert (bare.pad_id, bare.bos_id, bare.eos_id) == (0, 2, 106)  # by their usual spelling


def test_a_vocabulary_that_decodes_otherwise_is_refused():
    source = json.loads(byte_tokenizer().source)
    for decoder in (None, {"type": "WordPiece", "prefix": "##", "cleanup": True}, {"type": "Fuse"}):
        with pytest.raises(CheckpointError, match="decodes in a way that is not supported"):
            type(byte_tokenizer())(json.dumps(source | {"decoder": decoder}))


@pytest.mark.parametrize("template", ["A", [{"name": "other", "template": "B"}, {"name": "default", "template": "A"}]])
def test_where_the_chat_template_comes_from(tmp_path, template):
    (tmp_path / "tokenizer.json").write_text(byte_tokenizer().source)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    loaded = load_tokenizer(tmp_path)
    assert loaded is not None
    assert loaded.chat_template == "A"
    (tmp_path / "chat_template.jinja").write_text("the file wins")
    loaded = load_tokenizer(tmp_path)
    assert loaded is not None
    assert loaded.chat_template == "the file wins"


NAMED = [{"name": "default", "template": "<|im_start|>D"}, {"name": "tool_use", "template": "<|im_start|>T"}]


def test_a_template_for_tools(tmp_path):
    (tmp_path / "tokenizer.json").write_text(byte_tokenizer().source)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": NAMED}))
    first = load_tokenizer(tmp_path)
    assert first is not None
    first.save(tmp_path / "again")
    again = load_tokenizer(tmp_path / "again")
    assert again is not None
    for loaded in (first, again):
        assert loaded.decode(render(loaded, []).ids) == "<|im_start|>D"
        assert loaded.decode(render(loaded, [], tools=[]).ids) == "<|im_start|>D"
        assert loaded.decode(render(loaded, [], tools=[{"name": "f"}]).ids) == "<|im_start|>T"
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(tmp_path / "again")
    assert theirs.chat_template == {"default": "<|im_start|>D", "tool_use": "<|im_start|>T"}
    byte_tokenizer(chat_template="one for all").save(tmp_path / "again")
    again = load_tokenizer(tmp_path / "again")
    assert again is not None
    assert (again.chat_template, again.tool_template) == ("one for all", None)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (
            {"chat_template": [*NAMED[1:], {"name": "rag", "template": "R"}, {"name": []}]},
            "called default: tool_use, rag",
        ),
        ({"chat_template": [{"name": "default", "template": 5}]}, "chat_template default must be a string: int"),
        ({"chat_template": [NAMED[0], {"name": "tool_use", "template": []}]}, "chat_template tool_use must be"),
        ({"chat_template": 5}, "chat_template must be a string: int"),
        ({"eos_token": 5}, "eos_token must be a string: int"),
        ({"bos_token": ["<bos>"]}, "bos_token must be a string: list"),
        ({"pad_token": {"content": ["<pad>"]}}, "pad_token must be a string: list"),
    ],
)
def test_a_config_of_another_shape(tmp_path, config, said):
    (tmp_path / "tokenizer.json").write_text(byte_tokenizer().source)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=f"tokenizer_config.json: .*{said}"):
        load_tokenizer(tmp_path)


def test_truncation_in_the_file_is_not_obeyed():
    source = json.loads(byte_tokenizer().source)
    source["truncation"] = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    assert len(type(byte_tokenizer())(json.dumps(source)).encode("0123456789", bos=False)) == 10


def test_a_tokenizer_travels_between_processes(tokenizer):
    again = pickle.loads(pickle.dumps(tokenizer))
    assert again.encode("hello<think>") == tokenizer.encode("hello<think>")
    assert again.decode([2, 106]) == "<bos><|im_end|>"


def test_trained_merges_leave_the_base_alone():
    corpus = ["the cat sat on the mat 2024\n\n    the end\n"] * 20
    tokenizer = train_tokenizer(corpus, 300)
    base = byte_tokenizer()
    assert base.size < tokenizer.size <= 300
    assert train_tokenizer(corpus, 275).size == 275
    assert [tokenizer.token_bytes(i) for i in range(base.size)] == [base.token_bytes(i) for i in range(base.size)]
    assert tokenizer.tags == base.tags
    ids = tokenizer.encode(corpus[0])
    assert len(ids) < len(base.encode(corpus[0]))
    assert tokenizer.decode(ids, skip_special=True) == corpus[0]
    learned = [tokenizer.token_bytes(i) for i in range(base.size, tokenizer.size)]
    assert len(set(learned)) == len(learned)
    assert not any(byte in token for token in learned for byte in b"0123456789\n")
    with pytest.raises(UsageError, match="at least 268"):
        train_tokenizer(corpus, 200)
    with pytest.raises(UsageError, match="exist before it"):
        byte_tokenizer([("ab", "c")])


def test_the_base_holds_each_byte_once():
    tokenizer = byte_tokenizer()
    singles = [tokenizer.token_bytes(i) for i in range(tokenizer.size) if i not in tokenizer.control_ids]
    assert sorted(singles) == [bytes([byte]) for byte in range(256)]
