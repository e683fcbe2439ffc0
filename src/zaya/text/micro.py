"""Small byte-level tokenizers of our own, for models trained from scratch and for tests without a network.

Every byte is a token, so any text can be written; merges make it shorter. Digits and newlines never merge: numbers
are read digit by digit, and the newlines of the chat frame are the same tokens whatever follows them, so the ids of a
prompt are a prefix of the ids of the conversation that grows from it. Control tokens have the ids they have in the
published vocabulary (spec checkpoint-and-model 7) as far as they are small, so a model's default ids fit.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from zaya.errors import UsageError
from zaya.text import tags
from zaya.text.decode import CHAR_OF_BYTE
from zaya.text.tokenizer import Tokenizer

_CONTROL_IDS = {
    tags.PAD: 0, tags.EOS: 1, tags.BOS: 2, tags.UNK: 3, tags.CALL_OPEN: 101, tags.CALL_CLOSE: 102,
    tags.RESPONSE_OPEN: 103, tags.RESPONSE_CLOSE: 104, tags.TURN_OPEN: 105, tags.TURN_CLOSE: 106,
    tags.THINK_OPEN: 266, tags.THINK_CLOSE: 267,
}  # fmt: skip
_BASE_SIZE = 256 + len(_CONTROL_IDS)

# A newline, a digit, a word or a run of signs with the space before it, and runs of other space of which the last
# goes to the word that follows.
_PIECES = r"\n|\p{N}| ?\p{L}[\p{L}\p{M}]*| ?[^\s\p{L}\p{N}]+|[^\S\n]+(?!\S)|[^\S\n]+"

Merge = tuple[str, str]
"""Two tokens that become one, in the alphabet of byte-level vocabularies."""


def byte_tokenizer(merges: Sequence[Merge] = (), *, chat_template: str | None = None) -> Tokenizer:
    """A tokenizer of 268 tokens, and one more for each merge, in the order given.

    Raises UsageError for a merge of tokens that do not exist before it.
    """
    from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, processors
    from tokenizers import Tokenizer as Backend

    free = (id for id in range(_BASE_SIZE) if id not in _CONTROL_IDS.values())
    vocab = _CONTROL_IDS | {CHAR_OF_BYTE[byte]: id for byte, id in zip(range(256), free, strict=True)}
    for left, right in merges:
        if left not in vocab or right not in vocab:
            raise UsageError(f"a merge needs two tokens that exist before it: {left!r}, {right!r}")
        vocab.setdefault(left + right, len(vocab))
    backend = Backend(models.BPE(vocab=vocab, merges=list(merges)))
    backend.add_special_tokens([AddedToken(tag, normalized=False, special=True) for tag in _CONTROL_IDS])
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    # only for those who open the files elsewhere: `Tokenizer.encode` adds bos itself
    backend.post_processor = processors.TemplateProcessing(
        single=f"{tags.BOS} $A", special_tokens=[(tags.BOS, _CONTROL_IDS[tags.BOS])]
    )
    names = {
        "bos_token": tags.BOS,
        "eos_token": tags.TURN_CLOSE,
        "pad_token": tags.PAD,
        "unk_token": tags.UNK,
    }
    return Tokenizer(backend.to_str(), chat_template=chat_template, config=names)


def train_tokenizer(texts: Iterable[str], size: int, *, chat_template: str | None = None) -> Tokenizer:
    """A byte tokenizer with merges learned from texts; `size` tokens, or fewer where the texts hold no more.

    Raises UsageError for a size below 268.
    """
    from tokenizers import Tokenizer as Backend
    from tokenizers import models, trainers

    if size < _BASE_SIZE:
        raise UsageError(f"a byte tokenizer has at least {_BASE_SIZE} tokens: {size}")
    backend = Backend(models.BPE())
    plain = Backend.from_str(byte_tokenizer().source)
    backend.pre_tokenizer = plain.pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=size - len(_CONTROL_IDS),
        initial_alphabet=list(CHAR_OF_BYTE.values()),
        special_tokens=[],
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    learned = json.loads(backend.to_str())["model"]["merges"]
    return byte_tokenizer([(left, right) for left, right in learned], chat_template=chat_template)
