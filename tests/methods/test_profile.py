"""A file of success rates: written, read, or refused with the reason."""

import json

import pytest

from grpo_jax.errors import UserError
from grpo_jax.methods.profile import load_profile, profile_text

MEASURED = {"problems": "abc", "weights": "def", "max_new_tokens": 26}
NUMBERS = {"samples": 4, "rights": [0, 1, 4], "prompt_tokens": 9, "generated_tokens": 70}
GOOD = MEASURED | NUMBERS


def load(path):
  return load_profile(str(path), measured_on=MEASURED, size=3)


def test_what_is_written_is_read_in_the_order_of_the_set(tmp_path):
  path = tmp_path / "p.json"
  path.write_text(profile_text(MEASURED, **NUMBERS))
  profile = load(path)
  assert profile.share_P.tolist() == [0, 0.25, 1]
  assert (profile.samples, profile.prompt_tokens, profile.generated_tokens) == (4, 9, 70)
  path.write_text(profile_text(MEASURED, **NUMBERS | {"rights": [0, 2, 4]}))
  assert load(path).identity != profile.identity


@pytest.mark.parametrize(
  ("change", "named"),
  [
    ({"problems": "xyz"}, r"on other problems \(xyz, this run has abc\)"),
    ({"weights": "xyz"}, "on other weights"),
    ({"max_new_tokens": 27}, r"on other max_new_tokens \(27, this run has 26\)"),
    ({"samples": 0}, "samples is 0"),
    ({"generated_tokens": "many"}, "generated_tokens is 'many'"),
    ({"rights": [0, 1]}, "2 entries; there are 3"),
    ({"rights": [0, 5, 4]}, r"rights\[1\] is 5; expected 0 to 4"),
    ({"rights": [0, True, 4]}, r"rights\[1\] is True"),
    ({"rights": "012"}, "no list entries"),
  ],
)
def test_a_wrong_file_is_refused_by_name(tmp_path, change, named):
  path = tmp_path / "p.json"
  path.write_text(json.dumps(GOOD | change))
  with pytest.raises(UserError, match=named) as error:
    load(path)
  assert str(path) in str(error.value)


@pytest.mark.parametrize(
  ("text", "named"),
  [
    ("{", "cannot read"),
    ("[]", "lacks generated_tokens, max_new_tokens, problems"),
    (None, "cannot read"),
  ],
)
def test_what_is_no_profile_is_refused(tmp_path, text, named):
  path = tmp_path / "p.json"
  if text is not None:
    path.write_text(text)
  with pytest.raises(UserError, match=named):
    load(path)
