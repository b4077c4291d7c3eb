"""A file of success rates: read, or refused with the reason."""

import json

import pytest

from grpo_jax.errors import UserError
from grpo_jax.methods.profile import load_profile

GOOD = {"problems": "abc", "samples": 4, "rights": [0, 1, 4]}


def test_shares_are_in_the_order_of_the_set(tmp_path):
  (tmp_path / "p.json").write_text(json.dumps(GOOD))
  shares = load_profile(str(tmp_path / "p.json"), fingerprint="abc", size=3)
  assert shares.tolist() == [0, 0.25, 1]


@pytest.mark.parametrize(
  ("change", "named"),
  [
    ({"problems": "xyz"}, "other problems"),
    ({"samples": 0}, "samples is 0"),
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
    load_profile(str(path), fingerprint="abc", size=3)
  assert str(path) in str(error.value)


@pytest.mark.parametrize(
  ("text", "named"), [("{", "cannot read"), ("[]", "lacks problems"), (None, "cannot read")]
)
def test_what_is_no_profile_is_refused(tmp_path, text, named):
  path = tmp_path / "p.json"
  if text is not None:
    path.write_text(text)
  with pytest.raises(UserError, match=named):
    load_profile(str(path), fingerprint="abc", size=3)
