"""Which texts mix languages, and what does not count as mixing?"""

import pytest

from grpo_jax.verify.scripts import count_words, mixes_scripts

ENGLISH = "So the sum of both sides is even, and we are done. "


@pytest.mark.parametrize(
  ("text", "mixed"),
  [
    ("", False),
    ("123 + 456", False),
    (ENGLISH, False),
    (f"{ENGLISH} Évidemment, señor Müller.", False),  # one script
    (f"{ENGLISH}所以答案是四。", True),
    (f"{ENGLISH * 20}是", False),  # one in two hundred
    ("所以答案是 \\frac{1}{2} 和 x + y 与 α。", False),  # formulas are of no language
    ("所以答案是 𝑥 和 ℝ。", False),
    ("因此我们写 ```python\nprint(answer)\n``` 就可以了。", False),
    ("因此我们写 ```python\nprint(answer)", False),  # a block that was cut off
    ("因此 therefore 我们得到 we get 四", True),
    ("だからカンマの漢字です", False),  # Japanese
    ("Поэтому ответ равен четырём", False),
    ("Поэтому the answer равен четырём", True),
    ("그래서 답은 사입니다", False),
  ],
)
def test_texts(text, mixed):
  assert mixes_scripts(text) is mixed


def test_words_are_counted_by_script():
  text = "Let x be δ, 所以 the sumшесть"
  assert count_words(text) == {"LATIN": 4, "CJK": 2, "CYRILLIC": 1}


def test_a_long_text_is_read_in_time():
  import time

  start = time.perf_counter()
  mixes_scripts((ENGLISH + "所以答案是四。```") * 2000)
  assert time.perf_counter() - start < 1
