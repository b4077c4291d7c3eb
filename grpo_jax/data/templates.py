"""How a question becomes the text of a prompt.

The same model scores differently under different templates, so the name of the template belongs
next to every number. A template is a name, its origin, and a function from question to text.
"""

import dataclasses
import difflib
from collections.abc import Callable

from grpo_jax.errors import UserError

_STEP_BY_STEP = "Please reason step by step, and put your final answer within \\boxed{}."
_LIGHTEVAL = (
  "Solve the following math problem efficiently and clearly.  The last line of your response "
  "should be of the following format: 'Therefore, the final answer is: $\\boxed{ANSWER}$. I hope "
  "it is correct' (without quotes) where ANSWER is just the final number or expression that solves "
  "the problem. Think step by step before answering."
)
_NEMO_SKILLS = (
  "Solve the following math problem. Make sure to put the answer (and only answer) inside "
  "\\boxed{}."
)


@dataclasses.dataclass(frozen=True)
class Template:
  """A way to ask: `prompt(question)` is the text that the rollout continues."""

  name: str
  source: str
  prompt: Callable[[str], str]


def chatml(user: str, system: str) -> str:
  """One turn of ChatML up to where the assistant speaks; the markers encode to special ids."""
  return f"<|im_start|>system\n{system}<|im_end|>\n{user_turn(user)}"


def user_turn(user: str) -> str:
  """ChatML without a system turn, which is how Qwen3 was trained."""
  return f"<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n"


def render(name: str, question: str) -> str:
  """The prompt for a question under the named template."""
  if name not in TEMPLATES:
    close = difflib.get_close_matches(name, TEMPLATES, n=1, cutoff=0.0)[0]
    raise UserError(f"no template {name!r}, did you mean {close!r}? known: {', '.join(TEMPLATES)}")
  return TEMPLATES[name].prompt(question)


TEMPLATES: dict[str, Template] = {
  template.name: template
  for template in (
    Template(
      name="plain",
      source="the question alone, for tasks whose questions are complete prompts",
      prompt=lambda question: question,
    ),
    Template(
      name="base_boxed",
      source="for base models: a document to continue, in the Problem/Solution form of MATH",
      prompt=lambda question: f"{_STEP_BY_STEP}\n\nProblem:\n{question}\n\nSolution:\n",
    ),
    Template(
      name="qwen_math",
      source="qwen25-math-cot of the Qwen2.5-Math evaluation: the instruction is the system turn",
      prompt=lambda question: chatml(question, system=_STEP_BY_STEP),
    ),
    Template(
      name="chatml_boxed",
      source="arXiv 2606.04560: general system turn, 'Problem: ' and the instruction around it",
      prompt=lambda question: chatml(
        f"Problem: {question}\n{_STEP_BY_STEP}", system="You are a helpful assistant."
      ),
    ),
    Template(
      name="chatml",
      source="the general system turn of chatml_boxed around a question that is a whole request",
      prompt=lambda question: chatml(question, system="You are a helpful assistant."),
    ),
    Template(
      name="qwen3_thinking",
      source="model cards of Qwen3 (2025): the instruction after the question, no system turn",
      prompt=lambda question: user_turn(f"{question}\n{_STEP_BY_STEP}"),
    ),
    Template(
      name="qwen3_no_thinking",
      source="the same with thinking off: an empty thought stands where the assistant begins",
      prompt=lambda question: (
        user_turn(f"{question}\n{_STEP_BY_STEP}") + "<think>\n\n</think>\n\n"
      ),
    ),
    Template(
      name="lighteval",
      source="MATH_QUERY_TEMPLATE of lighteval's AIME tasks, with which open-r1 reports",
      prompt=lambda question: user_turn(f"{_LIGHTEVAL}\n\n{question}"),
    ),
    Template(
      name="nemo_skills",
      source="generic/math of NeMo-Skills",
      prompt=lambda question: user_turn(f"{_NEMO_SKILLS}\n\n{question}"),
    ),
    Template(
      name="evalscope",
      source="the AIME tasks of evalscope and OpenCompass: asked for before and after the question",
      prompt=lambda question: user_turn(
        "Solve the following math problem step by step. Put your answer inside \\boxed{}.\n\n"
        f"{question}\n\nRemember to put your answer inside \\boxed{{}}."
      ),
    ),
    Template(
      name="gsm8k",
      source="the set's own form: a solution whose last line is '#### ' and the number",
      prompt=lambda question: (
        "Solve the problem step by step. "
        'End with a line of the form "#### N", where N is the final number.\n\n'
        f"Question: {question}\nAnswer:\n"
      ),
    ),
  )
}
