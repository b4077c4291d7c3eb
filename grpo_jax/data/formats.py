"""Which field of a published row is the question, and what is its final answer?

GSM8K keeps the answer behind `####` at the end of the solution; MATH and the sets that follow it
have an `answer` field, or else the last `\\boxed` of the solution. Minerva lists several ways to
write one answer, OlympiadBench several answers. The answer of a program is its tests.
Each function turns a row into a `Problem` or says which row is wrong and what was expected there.
"""

import dataclasses
import json
import math
import re
from collections.abc import Sequence

from grpo_jax.data.problems import Problem
from grpo_jax.data.rows import Row
from grpo_jax.errors import UserError

_ASK_FOR_OUTPUT = (
  "Write a Python program that reads standard input and prints the result to standard output. "
  "Put the whole program into one ```python block."
)
_ASK_FOR_CODE = "Write it in Python. Put all of the code into one ```python block."

_QUESTION_FIELDS = ("problem", "question", "prompt")
_CALCULATOR_NOTE = re.compile(r"<<[^<>]*>>")
_NUMBER = re.compile(r"-?\d+(\.\d+)?")
_TOLERANCE = re.compile(r"\d+(\.\d+)?([eE][+-]?\d+)?")

# Minerva's answers are Python lists, printed: several ways to write the same answer.
_PRINTED_LIST = re.compile(r"""\[(['"])(?P<first>.*?)(?<!\\)\1(, ['"].*)?\]""", re.DOTALL)


def gsm8k_problem(row: Row) -> Problem:
  """A row of GSM8K: `question`, and `answer` = solution, then `#### ` and a number.

  Thousands separators are taken out of the number, and the calculator notes (`<<1+2=3>>`), which
  are no text to learn from, out of the solution.
  """
  question, published = _text(row, ["question"]), _text(row, ["answer"])
  _, mark, last = published.rpartition("####")
  answer = last.strip().replace(",", "")
  if not mark or not _NUMBER.fullmatch(answer):
    raise UserError(
      f"{row.place}: 'answer' must end in '#### ' and a number; it ends in {published[-40:]!r}"
    )
  return Problem(question, answer, _CALCULATOR_NOTE.sub("", published))


def math_problem(row: Row, question_field: str = "", answer_field: str = "") -> Problem:
  """A row of MATH or of a set in its style.

  Args:
    row: has the question as `problem`, `question` or `prompt`; the answer as `answer` or boxed in
      `solution`; and maybe `solution` and `level`.
    question_field: where the question is, if elsewhere.
    answer_field: where the answer is, if elsewhere.
  """
  question = _text(row, [question_field] if question_field else _QUESTION_FIELDS)
  solution = _optional_text(row, "solution")
  if answer_field or row.fields.get("answer") is not None:
    answer = _answer(row, answer_field or "answer")
  else:
    answer = _boxed_answer(row, solution)
  return Problem(question, answer, solution, _level(row))


def minerva_problem(row: Row) -> Problem:
  """A row of Minerva's OCW set: `answer` is a Python list, printed, of ways to write the answer.

  The list stays as it is where it offers several: the verifier accepts any of them, and they are
  not always equal (`0.01` and `0.02`).
  """
  problem = math_problem(row)
  published = row.fields.get("answer")
  several = isinstance(published, str) and _PRINTED_LIST.fullmatch(published.strip())
  if not several or several[3] is None:
    return problem
  return dataclasses.replace(problem, answer=published.strip())


def olympiadbench_problem(row: Row) -> Problem:
  """A row of OlympiadBench (arXiv 2402.14008): all final answers count, in any order.

  Args:
    row: has the answers as `final_answer`, a list, or joined by commas as `answer`; and maybe
      `error`, how far off an answer may be, which becomes a part of the answer: `4.2 within 1e-1`.
  """
  fields = {name: row.fields[name] for name in (*_QUESTION_FIELDS, "answer") if name in row.fields}
  finals = row.fields.get("final_answer")
  if isinstance(finals, list) and all(isinstance(final, str) for final in finals):
    fields["answer"] = ", ".join(finals)
  problem = math_problem(Row(fields, row.place))
  error = _optional_text(row, "error")
  if error is None:
    return problem
  if not _TOLERANCE.fullmatch(error):
    raise UserError(f"{row.place}: 'error' must be one positive number such as 1e-1, not {error!r}")
  return dataclasses.replace(problem, answer=f"{problem.answer} within {error}")


def program_problem(row: Row) -> Problem:
  """A problem that is solved by a Python program, whose tests are the answer.

  Args:
    row: has the question as `problem`, `question` or `prompt`; and either `tests`, a list of
      `{"input": stdin, "output": stdout}` (and maybe `tolerance`, how far off a printed number may
      be), or `test_code`, Python whose asserts call the program's functions (and maybe
      `entry_point`, the name of the function that is asked for). Maybe also `solution`, a
      completion that passes, and `level`. `verify.programs` says what tests count as passed.
  """
  question = _text(row, _QUESTION_FIELDS)
  pairs, code = row.fields.get("tests"), _optional_text(row, "test_code")
  if (pairs is None) == (code is None):
    raise UserError(f"{row.place}: expected either 'tests' or 'test_code'")
  if code is None:
    ask, tests = _ASK_FOR_OUTPUT, {"pairs": _pairs(row, pairs)}
    if row.fields.get("tolerance") is not None:
      tests["tolerance"] = _tolerance(row, row.fields["tolerance"])
  else:
    entry_point = _optional_text(row, "entry_point")
    ask, tests = _ASK_FOR_CODE, {"code": code, "entry_point": entry_point}
  solution = _optional_text(row, "solution")
  return Problem(
    f"{question}\n\n{ask}", json.dumps(tests), solution, _level(row), judge="program"
  )


def demonstration(row: Row) -> Problem:
  """A prompt with the completion to learn: the prompt as `problem`, `question` or `prompt`, the
  completion as `solution` or `completion`. Nothing judges it, so there is no answer."""
  question = _text(row, _QUESTION_FIELDS)
  return Problem(question, "", _text(row, ["solution", "completion"]))


def plain_text(row: Row) -> str:
  """The `text` of a row: a document to learn from, without question or answer."""
  return _text(row, ["text"])


def last_boxed(text: str) -> str | None:
  """What the last `\\boxed` (or MATH's older `\\fbox`) holds; None without one, or if unclosed."""
  start = max(text.rfind("\\boxed"), text.rfind("\\fbox"))
  if start < 0:
    return None
  rest = text[start:].removeprefix("\\boxed").removeprefix("\\fbox").lstrip()
  if not rest.startswith("{"):
    return rest.split("$")[0].strip() or None  # MATH also writes `$\boxed 5$`
  depth = 0
  for token in re.finditer(r"\\.|[{}]", rest, re.DOTALL):  # `\{` is text, not a brace
    depth += {"{": 1, "}": -1}.get(token[0], 0)
    if depth == 0:
      return rest[1 : token.start()].strip()
  return None


def _text(row: Row, names: Sequence[str]) -> str:
  """The first of the named fields that is there; it must be text, and not blank."""
  name = next((name for name in names if row.fields.get(name) is not None), None)
  if name is None:
    raise UserError(f"{row.place}: {_missing(row, names)}")
  value = row.fields[name]
  if not isinstance(value, str) or not value.strip():
    raise UserError(f"{row.place}: {name!r} must be text, not {value!r:.80}")
  return _encodable(row, name, value)


def _optional_text(row: Row, name: str) -> str | None:
  value = row.fields.get(name)
  blank = value is None or (isinstance(value, str) and not value.strip())
  return None if blank else _text(row, [name])


def _answer(row: Row, name: str) -> str:
  """The answer as text, with nothing around it.

  It may be empty: a few published problems lost theirs, and an empty answer is never rewarded.
  """
  value = row.fields.get(name)
  if value is None:
    raise UserError(f"{row.place}: {_missing(row, [name])}")
  if isinstance(value, int | float) and not isinstance(value, bool):
    return _number(row, name, value)
  if not isinstance(value, str):
    raise UserError(f"{row.place}: {name!r} must be text or a number, not {value!r:.80}")
  if "####" in value:
    raise UserError(
      f"{row.place}: {name!r} holds a solution with '####'; read this set as source 'gsm8k'"
    )
  return _encodable(row, name, _first_writing(value).strip())


def _boxed_answer(row: Row, solution: str | None) -> str:
  if solution is None:
    raise UserError(f"{row.place}: {_missing(row, ['answer', 'solution'])}")
  answer = last_boxed(solution)
  if answer is None:
    raise UserError(
      f"{row.place}: there is no 'answer', and 'solution' has no closed \\boxed{{}} to take it from"
    )
  return answer


def _pairs(row: Row, tests: object) -> list[tuple[str, str]]:
  listed = tests if isinstance(tests, list) else []
  if not listed or any(not isinstance(t, dict) or set(t) != {"input", "output"} for t in listed):
    raise UserError(
      f"{row.place}: 'tests' must be a list of {{\"input\": text, \"output\": text}}, "
      f"not {tests!r:.80}"
    )
  of_test = [Row(test, f"{row.place}, test {n}") for n, test in enumerate(listed, start=1)]
  return [(_test_text(test, "input"), _test_text(test, "output")) for test in of_test]


def _test_text(test: Row, name: str) -> str:
  """It may be empty, unlike other texts."""
  value = test.fields[name]
  if not isinstance(value, str):
    raise UserError(f"{test.place}: {name!r} must be text, not {value!r:.80}")
  return _encodable(test, name, value)


def _tolerance(row: Row, value: object) -> float:
  if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < math.inf:
    raise UserError(f"{row.place}: 'tolerance' must be a number of at least 0, not {value!r:.80}")
  return float(value)


def _first_writing(answer: str) -> str:
  printed = _PRINTED_LIST.fullmatch(answer.strip())
  if printed is None:
    return answer
  return re.sub(r"\\(.)", lambda escape: {"n": "\n"}.get(escape[1], escape[1]), printed["first"])


def _level(row: Row) -> str | None:
  """Copies of one set say "Level 5", 5 or 5.0: all become "5"."""
  value = row.fields.get("level")
  if value is None or value == "":
    return None
  if isinstance(value, str):
    return _encodable(row, "level", value.removeprefix("Level "))
  if isinstance(value, int | float) and not isinstance(value, bool):
    return _number(row, "level", value)
  raise UserError(f"{row.place}: 'level' must be text or a number, not {value!r:.80}")


def _number(row: Row, name: str, value: int | float) -> str:
  """Copies made with pandas carry whole numbers as 142.0."""
  if not math.isfinite(value):
    raise UserError(f"{row.place}: {name!r} is {value}, which is no answer")
  return str(int(value)) if value == int(value) else str(value)


def _encodable(row: Row, name: str, text: str) -> str:
  """JSON can spell half a character (`\\ud800`), which no tokenizer or file accepts."""
  try:
    text.encode()
  except UnicodeEncodeError as error:
    raise UserError(f"{row.place}: {name!r} is not valid Unicode: {error}") from error
  return text


def _missing(row: Row, names: Sequence[str]) -> str:
  wanted = " or ".join(map(repr, names))
  return f"no field {wanted}; the fields are {', '.join(map(repr, row.fields)) or 'none'}"
