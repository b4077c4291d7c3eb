"""Text to token ids and back, and which ids end a rollout.

Two kinds: the tokenizer of a published model, read from its folder, and a tiny one with a token for
each character, for synthetic tasks. Both are ordinary `transformers` tokenizers and can be saved
next to exported weights.
"""

import dataclasses
import functools
import json
import os
import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from grpo_jax.errors import UserError

if TYPE_CHECKING:
  from transformers import PreTrainedTokenizerFast

# Its advice to install PyTorch is not for us.
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")

# A published model names some of its ends in one file and some in another, and Qwen3's base models
# name only one of the two they use. Stopping on both costs nothing; missing one costs every rollout
# its full length, with junk after the answer.
_CHATML_ENDS = ("<|im_end|>", "<|endoftext|>")


# For `character_tokenizer`: printable ASCII, and as one token each what judges look for.
ASCII = (*map(chr, range(32, 127)), "\n", "\\boxed", "<think>", "</think>", "```python")


@dataclasses.dataclass(frozen=True)
class Tokenizer:
  """A tokenizer, with the ids that sampling and training need to know.

  Attributes:
    backend: the `transformers` tokenizer itself.
    eos_ids: every id that ends a rollout, ascending.
    pad_id: fills unused places. It may be one of `eos_ids`: find padding by lengths, never by id.
    size: ids from here on have no text; a model's embedding may have rows for them, which must
      never be sampled.
  """

  backend: "PreTrainedTokenizerFast"
  eos_ids: tuple[int, ...]
  pad_id: int
  size: int

  def encode(self, text: str) -> list[int]:
    """Token ids of the text, with nothing added; the text of a special token becomes its id."""
    try:
      return self.backend.encode(text, add_special_tokens=False)
    except Exception as error:  # what the Rust side raises has no narrower type
      unknown = sorted({character for character in text if character not in self._vocabulary})
      raise UserError(
        f"the tokenizer has no token for {', '.join(map(repr, unknown))} in {text[:80]!r}: {error}"
      ) from error

  def decode(self, ids: Iterable[int]) -> str:
    """Text of the ids, exactly as the tokens spell it; special tokens are left out."""
    return self.backend.decode(
      [int(i) for i in ids], skip_special_tokens=True, clean_up_tokenization_spaces=False
    )

  def save(self, folder: str | pathlib.Path) -> None:
    """Writes the files from which `load_tokenizer` and `AutoTokenizer` read the same ids."""
    self.backend.save_pretrained(folder)

  @functools.cached_property
  def _vocabulary(self) -> frozenset[str]:
    return frozenset(self.backend.get_vocab())


def load_tokenizer(folder: str | pathlib.Path) -> Tokenizer:
  """Reads the tokenizer of a model folder, from local files and without running any code in them.

  The rollout ends are those of `generation_config.json`, of `config.json` and of the tokenizer
  together, and for a vocabulary with ChatML's two ends both of them.

  Raises:
    UserError: the folder or its files are missing or broken, or name no end.
  """
  from transformers import AutoTokenizer  # seconds, and only needed here

  folder = pathlib.Path(folder)
  if not (folder / "tokenizer.json").is_file():
    raise UserError(f"{folder}: no tokenizer.json here; give the folder of a downloaded model")
  try:
    backend = AutoTokenizer.from_pretrained(
      folder, local_files_only=True, trust_remote_code=False, use_fast=True
    )
  except Exception as error:  # a broken file may fail anywhere inside, with any type
    reason = " ".join(str(error).split())[:200]
    raise UserError(f"{folder}: the tokenizer cannot be read: {reason}") from error
  return _wrap(backend, extra_eos=_configured_ends(folder), place=str(folder))


def character_tokenizer(alphabet: Sequence[str]) -> Tokenizer:
  """Builds a tokenizer with one id for each entry of the alphabet, in order, then eos and pad.

  Args:
    alphabet: the tokens; mostly single characters. A longer entry wins over the characters it is
      made of. Text outside the alphabet is an error when it is encoded, never an unknown token.
  """
  import tokenizers
  from transformers import PreTrainedTokenizerFast

  specials = ("<eos>", "<pad>")
  tokens = [*alphabet, *specials]
  wrong = sorted({token for token in tokens if not token or tokens.count(token) > 1})
  if wrong:
    raise UserError(f"alphabet: {wrong} must not be empty and not be there twice")
  vocabulary = {token: i for i, token in enumerate(tokens)}
  words = sorted((token for token in alphabet if len(token) > 1), key=len, reverse=True)
  pattern = "|".join([*map(re.escape, words), r"[\s\S]"])

  core = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary))
  core.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")
  core.decoder = tokenizers.decoders.Fuse()
  backend = PreTrainedTokenizerFast(
    tokenizer_object=core, eos_token=specials[0], pad_token=specials[1]
  )
  return _wrap(backend, extra_eos=(), place="character_tokenizer")


def _wrap(backend: "PreTrainedTokenizerFast", extra_eos: Iterable[int], place: str) -> Tokenizer:
  vocabulary = backend.get_vocab()
  eos_ids = {*extra_eos}
  if backend.eos_token_id is not None:
    eos_ids.add(backend.eos_token_id)
  if all(end in vocabulary for end in _CHATML_ENDS):
    eos_ids.update(vocabulary[end] for end in _CHATML_ENDS)
  size = len(backend)
  if not eos_ids or not all(0 <= i < size for i in eos_ids):
    raise UserError(f"{place}: end ids {sorted(eos_ids)}, at least one below {size} is needed")
  ends = tuple(sorted(eos_ids))
  pad_id = ends[0] if backend.pad_token_id is None else backend.pad_token_id
  return Tokenizer(backend=backend, eos_ids=ends, pad_id=pad_id, size=size)


def _configured_ends(folder: pathlib.Path) -> set[int]:
  """The eos ids that the model's own files name: each may hold one id, a list, or nothing."""
  ends: set[int] = set()
  for file in (folder / "generation_config.json", folder / "config.json"):
    if not file.is_file():
      continue
    try:
      named = json.loads(file.read_text(encoding="utf-8")).get("eos_token_id")
    except (ValueError, AttributeError) as error:
      raise UserError(f"{file}: not a JSON object: {error}") from error
    named = [] if named is None else named if isinstance(named, list) else [named]
    if not all(isinstance(i, int) for i in named):
      raise UserError(f"{file}: eos_token_id is {named}, it must be an id or a list of ids")
    ends.update(named)
  return ends
