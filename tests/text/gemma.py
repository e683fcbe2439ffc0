"""A small tokenizer with the quirks of the published one (spec checkpoint-and-model 7).

Byte fallback, spaces written as ▁, tags that are not flagged special, a post-processor that opens every text with bos
and closes it with the end of a turn, and the published ids of everything small.
"""

from __future__ import annotations

from zaya.text import Tokenizer, tags

WORDS = ["he", "hel", "hell", "hello", "wo", "wor", "worl", "world", "▁w", "▁h", "\n\n", "im", "<|", "|>", "</", "th"]


def gemma_like(*, flag_tags: bool = False, chat_template: str | None = None) -> Tokenizer:
    from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors
    from tokenizers import Tokenizer as Backend

    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"<unused{i}>" for i in range(97))]
    pieces += [tags.CALL_OPEN, tags.CALL_CLOSE, tags.RESPONSE_OPEN, tags.RESPONSE_CLOSE]
    pieces += [tags.TURN_OPEN, tags.TURN_CLOSE, "\n", "\n\n"]
    pieces += [f"<0x{byte:02X}>" for byte in range(256)]
    pieces += ["▁", *(chr(c) for c in range(0x21, 0x7F)), "é", "ß"]
    pieces += [word for word in WORDS if word not in pieces]
    vocab = {piece: id for id, piece in enumerate(pieces)}
    merges = []
    for word in WORDS:
        left = next(word[:n] for n in range(len(word) - 1, 0, -1) if word[:n] in vocab and word[n:] in vocab)
        merges.append((left, word[len(left) :]))
    vocab |= {tags.THINK_OPEN: len(vocab) + 5, tags.THINK_CLOSE: len(vocab) + 6}  # behind a hole
    backend = Backend(models.BPE(vocab=vocab, merges=merges, byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    special = ["<pad>", "<eos>", "<bos>", "<unk>"]
    backend.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in special])
    backend.add_tokens([AddedToken(name, normalized=False, special=flag_tags) for name in tags.TAGS])
    backend.add_tokens([AddedToken("\n\n", normalized=False)])
    backend.post_processor = processors.TemplateProcessing(
        single="<bos> $A <|im_end|>", special_tokens=[("<bos>", 2), ("<|im_end|>", 106)]
    )
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": {"content": "<bos>"},
        "eos_token": "<|im_end|>",
    }
    return Tokenizer(backend.to_str(), chat_template=chat_template, config=config)
