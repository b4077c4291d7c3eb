"""A result file survives what kills its writer, and is never read as something it is not."""

import dataclasses
import json

import pytest

from grpo_jax.errors import UserError
from grpo_jax.evaluation.samples import JudgedSample, SampleLog, read_samples

SAMPLE = JudgedSample(
  problem=3, sample=0, completion="x", length=5, finish="stop", verdict="right", reason="",
  answer="4", gold="4",
)  # fmt: skip
TEXTS = ["", "two\nlines\r\n", "\u2028 ends lines for some", '"quoted" \\boxed{1}', "数学 🙂", "\0"]


def with_text(number: int, text: str) -> JudgedSample:
  return dataclasses.replace(SAMPLE, sample=number, completion=text)


def test_whatever_a_model_wrote_is_one_line_and_comes_back(tmp_path):
  file = tmp_path / "samples.jsonl"
  expected = [with_text(number, text) for number, text in enumerate(TEXTS)]
  with SampleLog(file) as log:
    for sample in expected:
      log.write(sample)
      assert list(read_samples(file)) == expected[: sample.sample + 1], "seen while it is written"
  assert file.read_bytes().count(b"\n") == len(TEXTS)


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_a_torn_last_line_is_no_sample_and_is_written_over(tmp_path, cut):
  file = tmp_path / "samples.jsonl"
  with SampleLog(file) as log:
    log.write(with_text(0, "first"))
    whole = file.read_bytes()
    log.write(with_text(1, "second"))
  file.write_bytes(file.read_bytes()[: len(whole) + cut])
  assert [sample.sample for sample in read_samples(file)] == [0]
  with SampleLog(file) as log:
    assert file.read_bytes() == whole
    log.write(with_text(2, "third"))
  assert [sample.sample for sample in read_samples(file)] == [0, 2]


def test_a_torn_line_of_megabytes_is_dropped_too(tmp_path):
  file = tmp_path / "samples.jsonl"
  with SampleLog(file) as log:
    log.write(SAMPLE)
  whole = file.read_bytes()
  for torn in (b"x" * 3_000_000, b""):
    file.write_bytes(whole + torn)
    with SampleLog(file):
      pass
    assert file.read_bytes() == whole
  file.write_bytes(b"x" * 3_000_000)
  with SampleLog(file):
    pass
  assert file.read_bytes() == b""


@pytest.mark.parametrize("line", ["{}", "[]", "not json", json.dumps({"problem": 1}), ""])
def test_a_broken_line_in_the_middle_is_named(tmp_path, line):
  file = tmp_path / "samples.jsonl"
  good = json.dumps(dataclasses.asdict(SAMPLE))
  file.write_text(f"{good}\n{line}\n{good}\n")
  with pytest.raises(UserError, match=r"samples.jsonl, line 2: not a sample"):
    list(read_samples(file))
