"""Where do sentences end, and where do they not?"""

import time

import pytest

from grpo_jax.data.sentences import sentences


@pytest.mark.parametrize(
  ("text", "expected"),
  [
    ("", []),
    ("  \n\n ", []),
    ("One thing", ["One thing"]),
    ("It is. It was! Was it? Yes.", ["It is.", "It was!", "Was it?", "Yes."]),
    ('He said "no." Then he left.', ['He said "no."', "Then he left."]),
    ("First line\n  second line\n\nthird", ["First line", "second line", "third"]),
    ("It costs 3.5 dollars. It has 1.2e3 parts.", ["It costs 3.5 dollars.", "It has 1.2e3 parts."]),
    ("See Fig. 3, e.g. This one. Mr. Smith and J. Doe agree.",
     ["See Fig. 3, e.g. This one.", "Mr. Smith and J. Doe agree."]),
    ("it ends. and goes on", ["it ends. and goes on"]),  # in doubt it stays one
    ("So $x = 1. Y$ holds. $Z$ too.", ["So $x = 1. Y$ holds.", "$Z$ too."]),
    ("Then\\[a = b.\nC = d\\]holds. Next.", ["Then\\[a = b.\nC = d\\]holds.", "Next."]),
    ("$$a.\nB$$\nEnd", ["$$a.\nB$$", "End"]),
    ("\\begin{align*}a\n\\end{align*}\nEnd", ["\\begin{align*}a\n\\end{align*}", "End"]),
    ("She had $5.\nHe had $6.\n#### 11", ["She had $5.", "He had $6.", "#### 11"]),  # money
  ],
)  # fmt: skip
def test_texts(text, expected):
  assert sentences(text) == expected


def test_nothing_is_lost_but_space():
  text = "One. Two!\n\n$a. B$ three? (Four.) \\[x\ny\\] five"
  assert "".join("".join(sentences(text)).split()) == "".join(text.split())


@pytest.mark.parametrize("part", ["A. ", "$", "\\[", "\\begin{a}", "\n", ". $x", " ", '."'])
def test_time_grows_with_the_text_alone(part):
  start = time.perf_counter()
  sentences(part * 20_000)
  assert time.perf_counter() - start < 2
