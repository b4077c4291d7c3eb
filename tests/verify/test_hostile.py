"""Answers written to hang, crash, be executed or be rewarded for nothing.

Each must be refused in well under the time of one training step, by the fast path, in the very
process that asks.
"""

import random
import re
import time

import hypothesis
import hypothesis.strategies as st
import pytest

from grpo_jax.verify import Outcome, verify

SECONDS = 2.0  # far more than any takes on an idle machine, less than the peers' 5 to 60

BOMBS = {
  "tower": "9^{9^{9^{9}}}",
  "power of ten": "10^{10^{10}}",
  "python power": "9**9**9",
  "nested power in a fraction": r"\dfrac{5^{(5^{(5^{(5^5)})}-4)}-5}{16}",
  "scientific": "1e1000000000",
  "scientific in LaTeX": r"1 \times 10^{1000000000}",
  "factorial": "(10^9)!",
  "factorials": "((9!)!)!",
  "binomial": r"\binom{10^9}{5 \cdot 10^8}",
  "sum": r"\sum_{n=1}^{10^{10}} \frac{1}{n}",
  "product": r"\prod_{n=1}^{10^6} n",
  "integral": r"\int_0^1 x^x \sin(e^{x^2}) dx",
  "polynomial": "(x+1)^{100000}",
  "sine of a huge number": r"\sin(10^{1000000})",
  "logarithm": r"\log_2(2^{10^9})",
  "root of a power": r"\sqrt[3]{7^{10^8}}",
  "gamma of large numbers": r"(\cosh 9)! + (99.5)!",
  "digits": "7" * 1900,
  "many digits": "7" * 100_000,
  "decimals": "0." + "3" * 1900,
  "parentheses": "(" * 900 + "2" + ")" * 900,
  "braces": "{" * 900 + "2" + "}" * 900,
  "fractions": r"\frac{1}{1+" * 150 + "x" + "}" * 150,
  "roots": r"\sqrt{" * 250 + "2" + "}" * 250,
  "bars": "|" * 900 + "2" + "|" * 900,
  "matrices": r"\begin{pmatrix}" * 50 + "1" + r"\end{pmatrix}" * 50,
  "signs": "-" * 1500 + "2",
  "surds": "+".join(rf"\sqrt{{{n}}}" for n in range(2, 150)),
  "sines": "+".join(rf"\sin({n}x)\cos({n}y)" for n in range(1, 90)),
  "list": ",".join(map(str, range(400))),
  "set": r"\{" + ",".join(map(str, range(400))) + r"\}",
  "chain": "<".join(f"x_{n}" for n in range(300)),
  "equalities": "=".join("x" * 400),
  "signs of choice": r"\pm ".join("1" * 300),
  "boxes": r"\boxed{" * 60_000,
  "thinking": "<think>" * 60_000,
  "dollars": "$" * 100_000,
  "backslashes": "\\" * 100_000,
  "spaces": " " * 1_000_000,
  "texts": r"\text{" * 300 + "2" + "}" * 300,
}


@pytest.mark.parametrize("gold", ["42", r"\sqrt{2}", "x+1", r"\{1,2\}", "(1,2)", "x>1", "Monday"])
@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_bombs_are_refused_at_once(bomb, gold):
  start = time.perf_counter()
  verdict = verify(rf"The answer is $\boxed{{{bomb}}}$.", gold)
  assert time.perf_counter() - start < SECONDS
  assert verdict.outcome in (Outcome.WRONG, Outcome.UNPARSEABLE)


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_bombs_in_the_gold_answer_do_not_hang_either(bomb):
  for answer in ("42", bomb):
    start = time.perf_counter()
    verify(rf"\boxed{{{answer}}}", bomb)
    assert time.perf_counter() - start < 2 * SECONDS  # a sum or an integral may ask the child


@pytest.mark.parametrize(
  "payload",
  [
    "__import__('os').system('touch {file}')",
    "open('{file}','w')",
    "[open('{file}','w'),2]",
    "sympify(\"open('{file}','w')\")",
    "x=open('{file}','w')",
    "1+__import__('pathlib').Path('{file}').touch()",
    r"\sqrt{{open('{file}','w')}}",
    r"\begin{{pmatrix}}open('{file}','w')\\1\end{{pmatrix}}",
    r"\sum_{{n=1}}^{{2}} open('{file}','w')",
  ],
)
@pytest.mark.parametrize("gold", ["0", "x=1", r"\begin{pmatrix}1\\2\end{pmatrix}", r"\sum_n n"])
def test_no_text_is_ever_executed(payload, gold, tmp_path):
  file = tmp_path / "executed"
  assert not verify(rf"\boxed{{{payload.format(file=file)}}}", gold)
  assert not file.exists()


@pytest.mark.parametrize(
  "gold, completion",
  [
    ("42", r"\boxed{41} or \boxed{43} or 42"),
    ("42", r"\boxed{41 \text{ or } 42}"),
    ("42", r"\boxed{41, 42, 43}"),
    ("42", r"\boxed{40 \pm 2}"),
    ("42", r"\boxed{0 \le x \le 100}"),
    ("42", r"\boxed{42x}"),
    ("42", r"\boxed{42 + C}"),
    ("42", r"\boxed{4_2}"),
    ("42", r"\boxed{0x2A}"),
    ("42", r"\boxed{\text{the correct answer}}"),
    ("42", r"\boxed{42 = 41}"),
    ("42", r"\boxed{4 2}"),
    ("42", r"\boxed{⁴²}"),
    ("42", r"\boxed{nan}"),
    ("nan", r"\boxed{42}"),
    ("0", r"\boxed{[0]*10**10}"),
    ("0", r"\boxed{0 if x else 1}"),
    ("0", r"\boxed{()}"),
    ("0", r"\boxed{False}"),
    ("1", r"\boxed{True}"),
    ("B", r"\boxed{A, B, C, D}"),
    ("x = 5", r"\boxed{x = x}"),
    ("x > 5", r"\boxed{x > 5 \text{ or } x \le 5}"),
    (r"\text{yes}", r"\boxed{\text{yes and no}}"),
    (r"\text{October 30}", r"\boxed{30}"),
    ("[0,1)", r"\boxed{[0,1)\cup(1,2)}"),
  ],
)
def test_hedges_and_tricks_earn_nothing(gold, completion):
  assert not verify(completion, gold)


@pytest.mark.parametrize("text", ["\ud800", "\x00", "\x00\x00\\boxed{\x00}", "४३", "\u202e42"])
def test_strange_characters_neither_crash_nor_pass(text):
  for completion in (text, f"\\boxed{{{text}}}", f"\\boxed{{4{text}2}}"):
    assert verify(completion, "42").outcome in (Outcome.WRONG, Outcome.UNPARSEABLE)


SYMBOLS = r"xyn0123579+-*/^_=<>!%()[]{}|,;:.&'"
COMMANDS = r"""
  \frac \sqrt \binom \sin \log \ln \pi \infty \pm \cup \in \text{or} \left( \right) \% \circ
  \\ \{ \} \begin{pmatrix} \end{pmatrix} \lfloor \rfloor \mathbb{R} 10^{9} 0.5
"""
SOUP = st.lists(st.sampled_from([*SYMBOLS, *COMMANDS.split()]), max_size=40).map(" ".join)

VALUES = r"x y 2 3 0 -1 0.5 \pi e i 10^{9} 9^{9^9} \infty \sqrt{2} 1e300 \theta \frac{1}{3} 2^{200}"
# `A` and `B` stand for smaller expressions.
OPERATIONS = r"""
  A+B A-B (A)(B) \frac{A}{B} (A)^{B} \sqrt{A} \sqrt[B]{A} (A)! \binom{A}{B} \sin(A) \tan(A) \exp(A)
  \log_{A}(B) \ln(A) |A| \lfloor{A}\rfloor \arcsin(A) \cosh(A) A\% (A)^\circ A\pm{B} A=B A<B A:B
  (A,B]\cup[B,A) \{A,B\} A,B A\text{or}B \begin{pmatrix}A&B\\B&A\end{pmatrix} 2\text{cm}A
"""
EXPRESSIONS = st.recursive(
  st.sampled_from(VALUES.split()),
  lambda smaller: st.builds(
    lambda operation, a, b: re.sub("[AB]", lambda found: {"A": a, "B": b}[found[0]], operation),
    st.sampled_from(OPERATIONS.split()),
    smaller,
    smaller,
  ),
  max_leaves=12,
)


@hypothesis.settings(max_examples=300, deadline=None)
@hypothesis.given(SOUP | EXPRESSIONS, EXPRESSIONS)
def test_no_answer_makes_the_check_fail_or_take_long(answer, gold):
  """A check that fails is unscored, so a model could learn to escape by breaking it."""
  start = time.perf_counter()
  verdict = verify(rf"\boxed{{{answer}}}", gold)
  assert time.perf_counter() - start < SECONDS
  assert verdict.outcome is not Outcome.UNSCORED, verdict


@hypothesis.settings(max_examples=200, deadline=None)
@hypothesis.given(EXPRESSIONS)
def test_one_more_is_another_value(expression):
  if not set("|,=<{:") & set(expression.replace("{cm}", "")):
    assert not verify(rf"\boxed{{{expression}+1}}", expression)


@hypothesis.given(st.integers(-(10**30), 10**30), st.integers(-(10**30), 10**30))
def test_integers_are_right_exactly_if_equal(gold, answer):
  assert bool(verify(rf"\boxed{{{answer:,}}}", str(gold))) == (gold == answer)


@hypothesis.given(st.fractions(max_denominator=10**6), st.fractions(max_denominator=10**6))
def test_fractions_are_right_exactly_if_equal(gold, answer):
  top, bottom = gold.as_integer_ratio()
  assert verify(rf"\boxed{{{gold}}}", rf"\frac{{{3 * top}}}{{{3 * bottom}}}")
  assert bool(verify(rf"\boxed{{{answer}}}", str(gold))) == (gold == answer)


def test_expanded_and_factored_polynomials_agree_and_changed_ones_do_not():
  numbers = random.Random(0)
  for _ in range(50):
    a, b, c = (numbers.randint(1, 99) for _ in range(3))
    expanded = f"{a * b}x^2 + {a * c + b}x + {c}"
    assert verify(rf"\boxed{{({a}x+1)({b}x+{c})}}", expanded)
    assert not verify(rf"\boxed{{({a}x+1)({b}x+{c + 1})}}", expanded)
