"""One tokenizer: text to ids, ids to text, and which ids mean what.

A thin layer over the `tokenizers` library that removes ZAYA1's traps: plain encoding would append the end-of-turn
token, special spellings inside a text would become real control tokens, and the model has more vocabulary rows than
there are tokens. `tokenizer.json` is authoritative. Source: spec checkpoint-and-model 7.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zaya.errors import CheckpointError, UsageError
from zaya.text import tags
from zaya.text.control import ControlTokens
from zaya.text.decode import bytes_reader

_FALLBACK_NAMES = {
    "bos_token": (tags.BOS,),
    "eos_token": (tags.TURN_CLOSE, tags.EOS),
    "pad_token": (tags.PAD,),
    "unk_token": (tags.UNK,),
}

_TOOL_TEMPLATE = "additional_chat_templates/tool_use.jinja"
"""Where transformers keeps the template for conversations with tools."""


@dataclass(frozen=True, slots=True)
class TagIds:
    """Ids of the tags that structure a conversation; None where the vocabulary has no such token."""

    turn_open: int | None
    turn_close: int | None
    think_open: int | None
    think_close: int | None
    call_open: int | None
    call_close: int | None
    response_open: int | None
    response_close: int | None


class Tokenizer:
    """Text to ids and back. Immutable after construction, safe to share between threads."""

    def __init__(
        self,
        source: str,
        *,
        chat_template: str | None = None,
        tool_template: str | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        """`source` is the text of a tokenizer.json, `config` the contents of a tokenizer_config.json.

        Raises CheckpointError where the source is not a tokenizer, or decodes in a way we cannot reproduce, and where
        the config names a token with something that is not a string.
        """
        from tokenizers import Tokenizer as Backend

        try:
            self._backend = Backend.from_str(source)
        except Exception as error:  # the library raises nothing more specific
            raise CheckpointError(f"tokenizer.json cannot be read: {error}") from error
        self._backend.no_truncation()
        self._backend.no_padding()
        decoder = self._backend.decoder
        self._read = bytes_reader(None if decoder is None else json.loads(decoder.__getstate__()))
        self.source = source
        """The text of tokenizer.json."""
        self._config = {key: value for key, value in (config or {}).items() if key != "chat_template"}
        self._bytes: dict[int, bytes] = {}

        added = self._backend.get_added_tokens_decoder()
        self._added = {token.content: id for id, token in added.items()}
        self._special = frozenset(id for id, token in added.items() if token.special)

        self.chat_template = chat_template
        """The checkpoint's own chat template, in Jinja; None where it has none."""
        self.tool_template = tool_template
        """The one it has for conversations with tools; None where `chat_template` is for all."""
        self.size: int = self._backend.get_vocab_size(with_added_tokens=True)
        """Number of tokens, added ones included."""
        self.special_names = self._special_names()
        """Spelling by role: bos_token, eos_token, pad_token, unk_token, as far as they exist."""
        self.bos_id = self.id_of(self.special_names.get("bos_token"))
        self.eos_id = self.id_of(self.special_names.get("eos_token"))
        self.pad_id = self.id_of(self.special_names.get("pad_token"))
        self.tags = TagIds(
            turn_open=self._added.get(tags.TURN_OPEN),
            turn_close=self._added.get(tags.TURN_CLOSE),
            think_open=self._added.get(tags.THINK_OPEN),
            think_close=self._added.get(tags.THINK_CLOSE),
            call_open=self._added.get(tags.CALL_OPEN),
            call_close=self._added.get(tags.CALL_CLOSE),
            response_open=self._added.get(tags.RESPONSE_OPEN),
            response_close=self._added.get(tags.RESPONSE_CLOSE),
        )
        # Whether the published vocabulary flags the tags as special is not known, so they count by their spelling too.
        control = {token.content for token in added.values() if token.special or token.content in tags.TAGS}
        self.control = ControlTokens(control)
        """The tokens that text from outside must never become."""
        self.control_ids = frozenset(self._added[spelling] for spelling in self.control.spellings)
        """Their ids."""
        self.assistant_control = ControlTokens(control - set(tags.ASSISTANT_TAGS))
        """What an assistant's own text must never become; it may think and call tools."""

    def encode(self, text: str, *, bos: bool = True) -> list[int]:
        """Ids of a text for raw completion: opened by the bos token where there is one, never closed by an end marker.

        Control tokens spelled in the text become real ones; `encode_plain` is for text from outside.
        """
        ids = self._encode(text)
        return ids if not bos or self.bos_id is None else [self.bos_id, *ids]

    def encode_plain(self, text: str) -> list[int]:
        """Ids of a text in which every spelling of a control token is ordinary characters. No bos token."""
        return self.encode_cut(text, self._plain_cuts(text))

    def encode_plain_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode_plain` of many texts, in parallel threads."""
        split = [_split(text, self._plain_cuts(text)) for text in texts]
        pieces = [piece for parts in split for piece in parts]
        try:
            encodings = iter(self._backend.encode_batch_fast(pieces, add_special_tokens=False))
        except (TypeError, UnicodeEncodeError) as error:
            raise _not_text(error) from error
        return [[id for _ in parts for id in next(encodings).ids] for parts in split]

    def encode_cut(self, text: str, cuts: Iterable[int]) -> list[int]:
        """Ids of a text that is first cut at these positions, so that no token reaches over a cut. No bos token."""
        return [id for piece in _split(text, cuts) for id in self._encode(piece)]

    def decode(self, ids: Iterable[int], *, skip_special: bool = False) -> str:
        """The text of ids; U+FFFD where they do not form characters. Ids without a token have no text."""
        return self.to_bytes(ids, skip_special=skip_special).decode("utf-8", "replace")

    def to_bytes(self, ids: Iterable[int], *, skip_special: bool = False) -> bytes:
        """The bytes of ids, which may begin or end inside a character. `skip_special` leaves out tokens flagged so."""
        if skip_special:
            ids = (id for id in ids if id not in self._special)
        return b"".join(map(self.token_bytes, ids))

    def token_bytes(self, id: int) -> bytes:
        """The bytes one token stands for; empty for an id without a token, such as a padding row of the model."""
        if id not in self._bytes:
            token = self._backend.id_to_token(id) if 0 <= id < 1 << 32 else None
            self._bytes[id] = b"" if token is None else self._read(token)
        return self._bytes[id]

    def id_of(self, token: str | None) -> int | None:
        """The id of a token by its spelling in the vocabulary, None where there is none."""
        return None if token is None else self._backend.token_to_id(token)

    def never_sampled(self, vocab_size: int) -> list[int]:
        """Ids below `vocab_size` that have no token: the model's padding rows (spec 7).

        Raises CheckpointError where the vocabulary has ids that the model has no row for.
        """
        used = set(self._backend.get_vocab(with_added_tokens=True).values())
        if max(used, default=-1) >= vocab_size:
            raise CheckpointError(
                f"the tokenizer has ids up to {max(used)}, the model only {vocab_size} rows",
                hint="take the tokenizer that belongs to the checkpoint",
            )
        return [id for id in range(vocab_size) if id not in used]

    @property
    def digest(self) -> str:
        """A hash of tokenizer.json, by which data encoded with another tokenizer is told apart."""
        return hashlib.blake2b(self.source.encode(), digest_size=16).hexdigest()

    def save(self, directory: str | Path) -> None:
        """Write tokenizer.json, tokenizer_config.json and the chat templates; transformers' AutoTokenizer reads them.

        A tokenizer without a template of its own gets the built-in one, so that the directory is complete.
        """
        from zaya.text.template import DEFAULT_TEMPLATE

        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "padding_side": "left",
            "clean_up_tokenization_spaces": False,
            **self._config,
            **self.special_names,
        }
        (directory / "tokenizer.json").write_text(self.source, encoding="utf-8")
        text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
        (directory / "tokenizer_config.json").write_text(text, encoding="utf-8")
        text = DEFAULT_TEMPLATE if self.chat_template is None else self.chat_template
        (directory / "chat_template.jinja").write_text(text, encoding="utf-8")
        tool_file = directory / _TOOL_TEMPLATE
        if self.tool_template is None:
            tool_file.unlink(missing_ok=True)
        else:
            tool_file.parent.mkdir(exist_ok=True)
            tool_file.write_text(self.tool_template, encoding="utf-8")

    def _encode(self, text: str) -> list[int]:
        try:
            # the published post-processor closes every text with the end of a turn: never let it
            # as a batch of one, since `encode` keeps other threads waiting for as long as it takes
            return self._backend.encode_batch_fast([text], add_special_tokens=False)[0].ids
        except (TypeError, UnicodeEncodeError) as error:
            raise _not_text(error) from error

    def _plain_cuts(self, text: str) -> list[int]:
        return [at + 1 for at, _ in self.control.find(text)]

    def _special_names(self) -> dict[str, str]:
        names = {}
        for role, fallbacks in _FALLBACK_NAMES.items():
            given = self._config.get(role)
            given = given.get("content") if isinstance(given, Mapping) else given
            if given is not None and not isinstance(given, str):
                raise CheckpointError(f"tokenizer_config.json: {role} must be a string: {type(given).__name__}")
            for name in (given, *fallbacks):
                if name is not None and self.id_of(name) is not None:
                    names[role] = name
                    break
        return names


def _not_text(error: Exception) -> UsageError:
    return UsageError(f"this cannot be encoded: {error}", hint="give a str without lone surrogates")


def _split(text: str, cuts: Iterable[int]) -> list[str]:
    edges = [0, *sorted(set(cuts)), len(text)]
    return [text[start:stop] for start, stop in itertools.pairwise(edges)]


def load_tokenizer(directory: str | Path) -> Tokenizer | None:
    """The tokenizer of a checkpoint directory, None where the directory has no tokenizer files.

    Raises CheckpointError for a missing directory and for files that are damaged or incomplete.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise CheckpointError(f"no such directory: {directory}")
    source = _read(directory / "tokenizer.json")
    config_text = _read(directory / "tokenizer_config.json")
    if source is None:
        if config_text is None and not (directory / "tokenizer.model").exists():
            return None
        raise CheckpointError(
            f"{directory} has tokenizer files but no tokenizer.json",
            hint="copy tokenizer.json from the checkpoint",
        )
    config = _config(directory, config_text)
    try:
        template = _read(directory / "chat_template.jinja")
        if template is None:
            template, tool_template = _templates_of(config)
        else:
            tool_template = _read(directory / _TOOL_TEMPLATE)
        return Tokenizer(source, chat_template=template, tool_template=tool_template, config=config)
    except CheckpointError as error:
        raise CheckpointError(f"{directory}: {error.message}", hint=error.hint) from error


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error


def _config(directory: Path, text: str | None) -> dict[str, Any]:
    try:
        config = {} if text is None else json.loads(text)
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{directory / 'tokenizer_config.json'} is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{directory / 'tokenizer_config.json'} must hold an object: {type(config).__name__}")
    return config


def _templates_of(config: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """The chat template of a tokenizer_config.json, and the one for tools where it has several by name."""
    given = config.get("chat_template")
    if not isinstance(given, list):
        return _template("chat_template", given), None
    named = {str(entry.get("name")): entry.get("template") for entry in given if isinstance(entry, dict)}
    if named.get("default") is None:
        raise CheckpointError(
            f"tokenizer_config.json: none of the chat templates is called default: {', '.join(named)}"
        )
    return _template("chat_template default", named["default"]), _template(
        "chat_template tool_use", named.get("tool_use")
    )


def _template(where: str, given: object) -> str | None:
    if given is None or isinstance(given, str):
        return given
    raise CheckpointError(f"tokenizer_config.json: {where} must be a string: {type(given).__name__}")
