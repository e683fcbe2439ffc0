"""Promises of data/prepare and data/dataset:

1. A plain document is bos, its text, eos, and nothing in it becomes a control token; a conversation is what the chat
   template makes of it, with a mask.
2. What was prepared from the same source, with the same tokenizer and settings, is left alone; anything else is an
   error, or replaced on request.
3. A directory appears whole: a failure or a kill leaves nothing that is taken for data, and the next run succeeds.
4. The two splits share nothing and miss nothing.
5. The manifest tells what was done.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from zaya.data.dataset import MANIFEST, Dataset
from zaya.data.masks import Segment, loss_of, segment_of
from zaya.data.prepare import PrepareConfig, prepare
from zaya.data.sources import Conversation, Document, InMemory, Text
from zaya.data.trim import TrimCounts
from zaya.errors import ConfigError, DataError, UsageError
from zaya.text import byte_tokenizer, render

BYTES = byte_tokenizer()
TEXTS = InMemory([Text(f"t{i}", f"text {i}") for i in range(40)])


def chat(question: str, reasoning: str | None, answer: str = "A", then: Sequence[dict[str, str]] = ()) -> Conversation:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer, "reasoning": reasoning}]
    return Conversation(question, [*messages, *then])


def texts_of(dataset: Dataset) -> list[str]:
    return [BYTES.decode(dataset.tokens(document)) for document in range(len(dataset))]


def names(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir())


# 1. What becomes of documents


def test_plain_documents(tmp_path: Path):
    source = InMemory([Text("a", "hé"), Text("empty", ""), Text("b", "<bos><|im_end|>")])
    dataset = prepare(source, BYTES, tmp_path / "d")
    assert texts_of(dataset) == ["<bos>hé<eos>", "<bos><bos><|im_end|><eos>"]
    assert dataset.tokens(0).tolist() == [2, *BYTES.encode_plain("hé"), 1]
    assert not {2, 106} & set(dataset.tokens(1).tolist()[1:])
    assert dataset.mask(0) is None


def test_conversations(tmp_path: Path):
    conversation = chat("Q", "R", then=[{"role": "user", "content": "2"}, {"role": "assistant", "content": "B"}])
    rendered = render(BYTES, conversation.messages)
    for loss_on, learned in (
        ("all_turns", "R\n</think>\n\nA<|im_end|>B<|im_end|>"),
        ("last_turn", "B<|im_end|>"),
    ):
        dataset = prepare(InMemory([conversation]), BYTES, tmp_path / loss_on, PrepareConfig(loss_on=loss_on))
        ids, mask = dataset.tokens(0), dataset.mask(0)
        assert mask is not None
        assert ids.tolist() == rendered.ids
        assert BYTES.decode(ids[loss_of(mask)]) == learned
        assert BYTES.decode(ids[segment_of(mask) == Segment.THINKING]) == "R\n</think>\n\n"
        assert BYTES.decode(ids[segment_of(mask) == Segment.ANSWER]) == "AB"


def test_conversations_are_trimmed_to_the_context(tmp_path: Path):
    documents = [chat("Q", "R"), chat("Q", "abcdefghij"), chat("Q", "R", "A" * 50)]
    context = len(render(BYTES, documents[0].messages).ids) + 4
    dataset = prepare(InMemory(documents), BYTES, tmp_path / "d", PrepareConfig(context=context))
    assert [text.split("<think>\n")[1].split("\n</think>")[0] for text in texts_of(dataset)] == ["R", "abcde"]
    dropped = len(render(BYTES, documents[2].messages).ids)
    assert dataset.manifest.trimming == TrimCounts(1, 1, 0, 1, 5, dropped, {"8": 1})
    assert dataset.shards[0].info.context == context


def test_plain_documents_are_not_trimmed(tmp_path: Path):
    dataset = prepare(TEXTS, BYTES, tmp_path / "d", PrepareConfig(context=4))
    assert len(dataset) == 40
    assert dataset.manifest.context is None


def test_shards_of_a_size(tmp_path: Path):
    dataset = prepare(TEXTS, BYTES, tmp_path / "d", PrepareConfig(shard_bytes=100))
    # 8 tokens of 4 bytes a document, 9 from the tenth on: four documents close a shard
    assert [len(shard) for shard in dataset.shards] == [4, 4, *[3] * 10, 2]
    assert texts_of(dataset) == [f"<bos>text {i}<eos>" for i in range(40)]
    assert texts_of(prepare(TEXTS, BYTES, tmp_path / "one")) == texts_of(dataset)


# 2. What is there already


def test_what_is_there_is_left_alone(tmp_path: Path):
    made = prepare(TEXTS, BYTES, tmp_path / "d")
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "d").iterdir()}
    again = prepare(InMemory(list(TEXTS)), byte_tokenizer(), tmp_path / "d", PrepareConfig())
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "d").iterdir()} == before
    assert again.manifest == made.manifest


@pytest.mark.parametrize(
    ("source", "tokenizer", "config"),
    [
        (InMemory([*TEXTS, Text("more", "more")]), BYTES, PrepareConfig()),
        (TEXTS, byte_tokenizer([("t", "e")]), PrepareConfig()),
        (TEXTS, BYTES, PrepareConfig(held_out=0.1)),
    ],
    ids=["source", "tokenizer", "settings"],
)
def test_anything_else_is_refused_or_replaced(tmp_path: Path, source, tokenizer, config):
    made = prepare(TEXTS, BYTES, tmp_path / "d")
    with pytest.raises(DataError, match="another source, with another tokenizer or other settings"):
        prepare(source, tokenizer, tmp_path / "d", config)
    assert Dataset(tmp_path / "d", verify=True).manifest == made.manifest
    replaced = prepare(source, tokenizer, tmp_path / "d", config, overwrite=True)
    assert replaced.manifest.key != made.manifest.key
    assert names(tmp_path) == ["d"]


def test_the_chat_template_counts_for_conversations_only(tmp_path: Path):
    other = byte_tokenizer(chat_template="{% for m in messages %}<|im_start|>{{ m.role }}\n<|im_end|>{% endfor %}")
    conversations = InMemory([chat("Q", "R")])
    keys = {
        (source, tokenizer.chat_template is None): prepare(data, tokenizer, tmp_path / f"{source}{n}").manifest.key
        for source, data in (("text", TEXTS), ("chat", conversations))
        for n, tokenizer in enumerate((BYTES, other))
    }
    assert keys["text", True] == keys["text", False]
    assert keys["chat", True] != keys["chat", False]


def test_a_directory_of_something_else_is_never_touched(tmp_path: Path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "mine").write_text("1")
    with pytest.raises(UsageError, match="not empty"):
        prepare(TEXTS, BYTES, tmp_path / "d")
    assert names(tmp_path / "d") == ["mine"]


# 3. All or nothing


class Interrupted:
    """Is interrupted in its second reading, after a few documents."""

    conversations = False
    readings = 0

    def __iter__(self) -> Iterator[Text]:
        self.readings += 1
        for i, document in enumerate(TEXTS.documents):
            if self.readings == 2 and i == 30:
                raise KeyboardInterrupt
            assert isinstance(document, Text)
            yield document


class Growing:
    """Has one document more each time it is read."""

    conversations = False
    readings = 0

    def __iter__(self) -> Iterator[Text]:
        self.readings += 1
        for i in range(self.readings):
            yield Text(f"{i}", "text")


def test_an_interruption_leaves_nothing(tmp_path: Path):
    source = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        prepare(source, BYTES, tmp_path / "d", PrepareConfig(shard_bytes=64))
    assert names(tmp_path) == []
    assert len(prepare(source, BYTES, tmp_path / "d")) == 40


def test_a_kill_leaves_nothing_that_counts_and_can_be_repeated(tmp_path: Path):
    code = (
        "import os, signal, sys\n"
        "from zaya.data.prepare import PrepareConfig, prepare\n"
        "from zaya.data.sources import InMemory, Text\n"
        "from zaya.text import byte_tokenizer\n"
        "class Killing(InMemory):\n"
        "    reading = 0\n"
        "    def __iter__(self):\n"
        "        Killing.reading += 1\n"
        "        for i in range(12):\n"
        "            if Killing.reading == 2 and i == 11: os.kill(os.getpid(), signal.SIGKILL)\n"
        "            yield Text(f't{i}', f'text {i}' * 40_000)\n"
        "prepare(Killing([]), byte_tokenizer(), sys.argv[1], PrepareConfig(shard_bytes=100_000))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "d")], check=False, capture_output=True)
    assert done.returncode == -9, done.stderr.decode()
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".d.partial-")
    assert "shard-00000.json" in names(left)
    with pytest.raises(DataError, match="not a prepared dataset"):
        Dataset(tmp_path / "d")
    assert len(prepare(TEXTS, BYTES, tmp_path / "d")) == 40
    assert names(tmp_path) == ["d"]


def test_a_source_that_changes_while_it_is_read(tmp_path: Path):
    with pytest.raises(DataError, match="changed while it was read"):
        prepare(Growing(), BYTES, tmp_path / "d")
    assert names(tmp_path) == []


def test_a_damaged_directory_is_an_error(tmp_path: Path):
    prepare(TEXTS, BYTES, tmp_path / "d")
    path = tmp_path / "d" / "shard-00000.bin"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(DataError, match="bytes; expected"):
        prepare(TEXTS, BYTES, tmp_path / "d")
    assert len(prepare(TEXTS, byte_tokenizer([("t", "e")]), tmp_path / "d", overwrite=True)) == 40
    (tmp_path / "d" / MANIFEST).write_text("{}")
    with pytest.raises(DataError, match=r"manifest\.json cannot be read"):
        Dataset(tmp_path / "d")


# 4. Splits


def test_the_splits_are_a_partition(tmp_path: Path):
    train, held_out = (
        prepare(TEXTS, BYTES, tmp_path / split, PrepareConfig(split=split, held_out=0.3))
        for split in ("train", "held_out")
    )
    assert sorted(texts_of(train) + texts_of(held_out)) == sorted(texts_of(prepare(TEXTS, BYTES, tmp_path / "all")))
    assert len(train) == held_out.manifest.other_split > len(held_out) == train.manifest.other_split > 0


# 5. What is told


def test_the_manifest(tmp_path: Path):
    dataset = prepare(TEXTS, BYTES, tmp_path / "d")
    manifest = dataset.manifest
    assert (manifest.source, manifest.conversations, manifest.documents) == ("InMemory", False, 40)
    assert manifest.tokens == sum(len(dataset.tokens(i)) for i in range(40)) == 10 * 8 + 30 * 9
    assert manifest.tokenizer == BYTES.digest
    assert manifest.shards == ("shard-00000",)


MIXED: list[Document] = [chat("Q", "R"), Text("a", "A")]


@pytest.mark.parametrize(
    ("documents", "config", "said"),
    [
        ([], PrepareConfig(), "nothing to learn from: of 0 documents"),
        ([Text("a", "A")], PrepareConfig(split="held_out"), "of 1 documents 1 belong to the other split"),
        ([chat("Q", "R")], PrepareConfig(context=9), "and 1 do not fit the context"),
        (MIXED, PrepareConfig(), "a: text and conversations are mixed"),
        ([Conversation("c:3", [{"role": "user"}])], PrepareConfig(), r"c:3 cannot be rendered: messages\[0\]"),
    ],
)
def test_sources_that_give_nothing_to_learn(tmp_path: Path, documents, config, said: str):
    with pytest.raises(DataError, match=said):
        prepare(InMemory(documents), BYTES, tmp_path / "d", config)
    assert names(tmp_path) == []


@pytest.mark.parametrize("settings", [{"held_out": 1.0}, {"context": 0}, {"keep_min": -1}, {"shard_bytes": 0}])
def test_settings_that_cannot_be(settings: dict[str, float]):
    with pytest.raises(ConfigError, match="must be at least"):
        PrepareConfig(**settings)
