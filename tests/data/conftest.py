"""The real tokenizer takes seconds to load: once for all tests of data."""

import pytest

from grpo_jax.data.tokenizer import Tokenizer, load_tokenizer


@pytest.fixture(scope="session")
def qwen3(shared) -> Tokenizer:
  return load_tokenizer(shared / "tokenizers" / "qwen3")
