"""From documents to a directory of shards: read, choose the split, encode, trim, write.

The directory appears whole or not at all, so a run that is killed is simply repeated; one that finds the directory
there, made from the same source with the same tokenizer and settings, does nothing. Several sources are several
directories, and what is finished stays finished.

A plain document becomes `<bos> text <eos>`; what it contains never becomes a control token. A conversation becomes what
the chat template makes of it, with a mask. Source: spec pretraining 6. Feeds `data.loader`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from zaya import config as configuration
from zaya.core.files import new_directory
from zaya.core.progress import Progress
from zaya.data.dataset import MANIFEST, Dataset, Manifest, read_manifest
from zaya.data.masks import LossOn, encode_mask
from zaya.data.shards import write_shard
from zaya.data.sources import Conversation, Document, Fingerprint, Source, Text, fingerprint, is_held_out
from zaya.data.trim import TrimCounts, trim
from zaya.errors import ConfigError, DataError, UsageError
from zaya.text import Tokenizer, render, tags
from zaya.text.template import DEFAULT_TEMPLATE

_FORMAT = 1
_BATCH_CHARACTERS = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class PrepareConfig:
    """What is made of a source."""

    split: Literal["train", "held_out"] = "train"
    """Which documents are taken."""
    held_out: float = 0.0
    """Part of the documents, chosen by their content, that `train` leaves to `held_out`."""
    context: int | None = None
    """Tokens that conversations are trimmed to, answers preserved. None leaves them as long as they are. Plain
    documents are never trimmed."""
    keep_min: int = 0
    """Tokens of reasoning that trimming must leave in the last turn."""
    loss_on: LossOn = "all_turns"
    """Which assistant turns of a conversation are learned."""
    shard_bytes: int = 1 << 30
    """A shard that has reached this size is closed and the next one opened."""

    def __post_init__(self) -> None:
        if not 0 <= self.held_out < 1:
            raise ConfigError(f"held_out must be at least 0 and below 1: {self.held_out}")
        if self.context is not None and self.context < 1:
            raise ConfigError(f"context must be at least 1: {self.context}")
        if self.keep_min < 0:
            raise ConfigError(f"keep_min must be at least 0: {self.keep_min}")
        if self.shard_bytes < 1:
            raise ConfigError(f"shard_bytes must be at least 1: {self.shard_bytes}")


def prepare(
    source: Source,
    tokenizer: Tokenizer,
    directory: str | Path,
    config: PrepareConfig | None = None,
    *,
    overwrite: bool = False,
) -> Dataset:
    """The dataset of a source, made in `directory` unless it is there already.

    The source is read twice: to know it, then to encode it. Raises DataError where it has no documents for this split,
    changes while it is read, or holds a conversation that cannot be rendered, and where `directory` holds something
    else and `overwrite` is not set.
    """
    directory = Path(directory)
    config = PrepareConfig() if config is None else config
    known = fingerprint(source)
    key = _key(source, known.hex, tokenizer, config)
    manifest = read_manifest(directory)
    if manifest is not None and manifest.key == key:
        return Dataset(directory)
    if manifest is not None and not overwrite:
        raise DataError(
            f"{directory} was prepared from another source, with another tokenizer or other settings",
            hint="choose another directory, or ask to overwrite",
        )
    with new_directory(directory, overwrite=overwrite) as partial:
        manifest = _Preparation(source, tokenizer, config, known).write(partial, key)
        text = json.dumps(configuration.to_mapping(manifest), indent=2) + "\n"
        (partial / MANIFEST).write_text(text, encoding="utf-8")
    return Dataset(directory)


def _key(source: Source, digest: str, tokenizer: Tokenizer, config: PrepareConfig) -> str:
    parts = {
        "format": _FORMAT,
        "config": configuration.to_mapping(config),
        "conversations": source.conversations,
        "source": digest,
        "tokenizer": [tokenizer.digest, tokenizer.bos_id],
        "template": tokenizer.chat_template or DEFAULT_TEMPLATE if source.conversations else None,
    }
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16).hexdigest()


Encoded = tuple[list[int], np.ndarray | None]


class _Preparation:
    """One pass over a source."""

    def __init__(self, source: Source, tokenizer: Tokenizer, config: PrepareConfig, known: Fingerprint) -> None:
        self.source = source
        self.tokenizer = tokenizer
        self.config = config
        self.known = known
        self.seen = Fingerprint()
        self.other_split = 0
        self.trimming = TrimCounts()

    def write(self, directory: Path, key: str) -> Manifest:
        names, documents, tokens = [], 0, 0
        encoded = self.encode()
        upcoming = next(encoded, None)
        while upcoming is not None:
            names.append(f"shard-{len(names):05}")
            with write_shard(
                directory / names[-1],
                tokenizer=self.tokenizer.digest,
                masked=self.source.conversations,
                context=self.config.context if self.source.conversations else None,
                keep_min=self.config.keep_min,
            ) as shard:
                while upcoming is not None and shard.tokens * 4 < self.config.shard_bytes:
                    shard.add(*upcoming)
                    upcoming = next(encoded, None)
            documents += len(shard.lengths)
            tokens += shard.tokens
        if self.seen.hex != self.known.hex:
            raise DataError(f"the source changed while it was read: {self.source}")
        if not documents:
            raise DataError(
                f"nothing to learn from: of {self.seen.documents} documents {self.other_split} belong to the other "
                f"split and {self.trimming.dropped} do not fit the context",
                hint="give more documents, another held_out fraction or a larger context",
            )
        return Manifest(
            key=key,
            source=_in_words(self.source),
            source_digest=self.known.hex,
            tokenizer=self.tokenizer.digest,
            conversations=self.source.conversations,
            context=self.config.context if self.source.conversations else None,
            documents=documents,
            other_split=self.other_split,
            tokens=tokens,
            trimming=self.trimming,
            shards=tuple(names),
        )

    def encode(self) -> Iterator[Encoded]:
        """Ids and mask of each document that is taken."""
        texts: list[str] = []
        characters = 0
        for document in self.chosen():
            if isinstance(document, Conversation):
                yield from self.conversation(document)
                continue
            texts.append(document.text)
            characters += len(document.text)
            if characters >= _BATCH_CHARACTERS:
                yield from self.plain(texts)
                texts, characters = [], 0
        yield from self.plain(texts)

    def chosen(self) -> Iterator[Document]:
        """The documents of this split."""
        with Progress(self.known.documents, "preparing", unit="documents") as bar:
            for document in self.source:
                if isinstance(document, Text) == self.source.conversations:
                    raise DataError(f"{document.name}: text and conversations are mixed in one source")
                self.seen.add(document)
                if is_held_out(document, self.config.held_out) == (self.config.split == "held_out"):
                    yield document
                else:
                    self.other_split += 1
                bar.update()

    def plain(self, texts: list[str]) -> Iterator[Encoded]:
        ends = [self.tokenizer.bos_id], [self.tokenizer.id_of(tags.EOS)]
        before, after = ([id for id in end if id is not None] for end in ends)
        for ids in self.tokenizer.encode_plain_batch(texts):
            if ids:  # an empty file teaches nothing
                yield [*before, *ids, *after], None

    def conversation(self, document: Conversation) -> Iterator[Encoded]:
        try:
            rendered = render(self.tokenizer, document.messages, tools=document.tools, add_generation_prompt=False)
        except UsageError as error:
            raise DataError(f"{document.name} cannot be rendered: {error.message}", hint=error.hint) from error
        roles = [message["role"] for message in document.messages]
        if self.config.context is not None:
            trimmed = trim(self.tokenizer, rendered, roles, self.config.context, keep_min=self.config.keep_min)
            self.trimming.add(trimmed)
            if trimmed.rendered is None:
                return
            rendered = trimmed.rendered
        yield rendered.ids, encode_mask(rendered, roles, self.config.loss_on)


def _in_words(source: Source) -> str:
    path = getattr(source, "path", None)
    return type(source).__name__ + ("" if path is None else f" {Path(path).name}")
