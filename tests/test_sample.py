"""A person samples from a model folder: same completions whatever the slots, shown as they end, and
one clear line for bad input before a weight is read."""

import io
import json
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from configs import base
from grpo_jax import sample as command
from grpo_jax.data.arithmetic import ALPHABET
from grpo_jax.data.questions import CHATML_TEMPLATE
from grpo_jax.data.tokenizer import character_tokenizer
from grpo_jax.errors import UserError
from grpo_jax.model.config import Qwen3Config
from grpo_jax.model.qwen3 import Qwen3, init_params
from grpo_jax.model.sharding import make_layout
from grpo_jax.model.weights import save_params
from grpo_jax.sample import Options, sample, whole_slots
from grpo_jax.sampling.sampler import Sampler

ROOT = pathlib.Path(__file__).resolve().parent.parent
POSITIONS = 64


def write_folder(folder: pathlib.Path, alphabet) -> pathlib.Path:
  """A model folder with random weights and a token a character."""
  tokenizer = character_tokenizer(alphabet)
  shape = Qwen3Config(
    vocab_size=tokenizer.size, hidden_size=16, intermediate_size=32, num_hidden_layers=1,
    num_attention_heads=2, num_key_value_heads=1, head_dim=8, rope_theta=1e4,
    max_position_embeddings=POSITIONS,
  )  # fmt: skip
  tokenizer.save(folder)
  (folder / "config.json").write_text(json.dumps(shape.to_huggingface("float32")))
  model = Qwen3(shape, make_layout(devices=jax.devices()[:1]))
  save_params(folder, init_params(model, jax.random.key(0)), "float32")
  return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
  return write_folder(tmp_path_factory.mktemp("tiny"), ALPHABET)


@pytest.fixture
def one_device(monkeypatch):
  """Any number of slots is possible on one device."""
  some = jax.devices()[:1]
  monkeypatch.setattr(jax, "devices", lambda: some)


@pytest.fixture
def prompts(tmp_path) -> pathlib.Path:
  file = tmp_path / "questions.jsonl"
  rows = [
    {"question": "1+2=", "answer": "3", "id": 7},
    {"prompt": "12+34="},
    {"question": "5+5=", "levels": [1, 2]},
  ]
  file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
  return file


def records(out: pathlib.Path) -> list[dict]:
  """In the order of prompts and samples; lines come in the order in which rollouts ended."""
  lines = [json.loads(line) for line in out.read_text().splitlines()]
  return sorted(lines, key=lambda line: (line["prompt_index"], line["sample_index"]))


def written(folder, prompts, out, **options) -> list[dict]:
  asked = {"samples": 4, "max_new_tokens": 20, "seed": 3} | options
  sample(Options(folder=str(folder), prompts=str(prompts), out=str(out), **asked))
  return records(out)


@pytest.mark.parametrize("slots", [1, 5])
def test_slots_change_no_completion(folder, prompts, tmp_path, one_device, slots):
  """A completion that depended on its neighbours could not be asked for again."""
  whole = written(folder, prompts, tmp_path / "whole.jsonl", slots=12)
  parts = written(folder, prompts, tmp_path / "parts.jsonl", slots=slots)
  for line, other in zip(whole, parts, strict=True):
    # Products of other shapes round the last bits of a log-prob otherwise.
    assert other == line | {"logp": pytest.approx(line["logp"], rel=1e-5)}
  assert len({line["completion"] for line in whole}) == 12, "equal ones would agree in any order"


def test_another_seed_draws_other_completions(folder, prompts, tmp_path, one_device):
  first = written(folder, prompts, tmp_path / "first.jsonl", samples=1)
  other = written(folder, prompts, tmp_path / "other.jsonl", samples=1, seed=4)
  assert all(a["completion"] != b["completion"] for a, b in zip(first, other, strict=True))


def test_a_line_of_json_carries_the_question_and_its_fields(folder, prompts, tmp_path, capsys):
  """On eight devices, where six rollouts get eight slots."""
  lines = written(folder, prompts, tmp_path / "out.jsonl", samples=2)
  given = [json.loads(line) for line in prompts.read_text().splitlines()]
  own = {"prompt_index", "sample_index", "completion", "tokens", "finish", "logp"}
  assert [set(line) - own for line in lines] == [set(row) for row in given for _ in range(2)]
  for line in lines:
    assert given[line["prompt_index"]].items() <= line.items()
    assert line["finish"] == ("length" if line["tokens"] == 20 else "stop")
    assert line["logp"] == pytest.approx(-line["tokens"] * np.log(18), rel=0.1), "nearly uniform"
  told = capsys.readouterr().out
  assert "Qwen3 of 2.66k parameters in float32 on 8 cpu device(s); template plain." in told
  assert "8 slots x at most 32 tokens" in told
  assert f"6 rollouts, {sum(line['tokens'] for line in lines)} tokens in " in told
  assert "completion" not in told, "completions are in the file"


def test_greedy_samples_are_all_the_same(folder, prompts, tmp_path, one_device):
  lines = written(folder, prompts, tmp_path / "out.jsonl", temperature=0.0)
  assert len({line["completion"] for line in lines[:4]}) == 1


def test_a_completion_is_written_when_it_ends(
  folder, prompts, tmp_path, one_device, monkeypatch
):
  """Whoever stops a long run must keep what was finished."""
  out, lines_seen, stream = tmp_path / "out.jsonl", [], Sampler.stream

  def watched(self, *arguments):
    for part in stream(self, *arguments):
      yield part
      lines_seen.append(len(out.read_text().splitlines()))

  monkeypatch.setattr(Sampler, "stream", watched)
  written(folder, prompts, out, samples=1, slots=1)
  assert lines_seen == [1, 2, 3]


def test_what_is_shown_commands_no_terminal(tmp_path, capsys):
  """Every token of this model moves the cursor, hides text or looks like a headline."""
  folder = write_folder(tmp_path, ("\x1b[2J", "\r", "\x9b", "\u202e", "\n--- prompt 1", "\t"))
  sample(Options(folder=str(folder), prompt="\r\x9b", samples=8, max_new_tokens=20))
  shown = capsys.readouterr().out
  assert not {"\x1b", "\r", "\x9b", "\u202e"} & set(shown)
  assert all(escape in shown for escape in (r"\x1b[2J", r"\r", r"\x9b", r"\u202e"))
  headlines = [line for line in shown.splitlines() if line.startswith("--- ")]
  assert len(headlines) == 8
  assert all("mean log-prob -" in line and r"asked \r\x9b" in line for line in headlines)


def test_the_last_position_of_the_model_is_used(folder, tmp_path, one_device):
  prompts = tmp_path / "long.jsonl"
  prompts.write_text(json.dumps({"prompt": "1" * (POSITIONS - 1)}))
  lines = written(folder, prompts, tmp_path / "out.jsonl")
  assert {line["tokens"] for line in lines} == {1}


@pytest.mark.parametrize(
  ("options", "named"),
  [
    ({"folder": ""}, "--folder is missing"),
    ({"folder": "/no/such"}, "/no/such: no such folder"),
    ({"prompt": None}, "one of --prompt=TEXT and --prompts"),
    ({"prompts": "x.jsonl"}, "one of --prompt=TEXT and --prompts"),
    ({"prompt": " \n"}, "--prompt: the prompt is empty"),
    ({"prompt": "What?"}, "--prompt: the tokenizer has no token for '\\?', 'W'"),
    ({"prompt": "1" * POSITIONS}, "has 64 tokens and the model reads at most 64"),
    ({"template": "chatml_box"}, "did you mean 'chatml_boxed'"),
    ({"temperature": -0.1}, "--temperature=-0.1"),
    ({"temperature": float("nan")}, "--temperature=nan"),
    ({"top_p": 0.0}, "--top_p=0.0: it must be above 0 and at most 1"),
    ({"top_p": 1.01}, "--top_p=1.01"),
    ({"top_k": -1}, "--top_k=-1"),
    ({"samples": 0}, "--samples=0"),
    ({"max_new_tokens": 0}, "--max_new_tokens=0"),
    ({"slots": 0}, "--slots=0"),
    ({"seed": 2**32}, "--seed=4294967296"),
    ({"out": __file__}, "test_sample.py: exists already"),
    ({"out": "/no/such/out.jsonl"}, "/no/such/out.jsonl"),
  ],
)
def test_bad_options_are_one_line_before_weights_are_read(folder, monkeypatch, options, named):
  monkeypatch.setattr(command, "load", lambda *_: pytest.fail("weights were read"))
  with pytest.raises(UserError, match=named) as raised:
    sample(Options(**({"folder": str(folder), "prompt": "1+2="} | options)))
  assert "\n" not in str(raised.value)


def test_a_wrong_weight_is_found_before_the_out_file_is_made(folder, tmp_path):
  """Else the corrected command is refused because of a file that holds nothing."""
  for file in folder.iterdir():
    (tmp_path / file.name).write_bytes(file.read_bytes())
  config = json.loads((folder / "config.json").read_text()) | {"num_hidden_layers": 2}
  (tmp_path / "config.json").write_text(json.dumps(config))
  out = tmp_path / "out.jsonl"
  with pytest.raises(UserError, match="missing"):
    sample(Options(folder=str(tmp_path), prompt="1+2=", out=str(out)))
  assert not out.exists()


def test_the_default_template_is_that_of_training():
  assert base.get_config().data.template == CHATML_TEMPLATE


@pytest.mark.parametrize(
  ("most", "rollouts", "shards", "slots"), [(32, 3, 1, 3), (32, 3, 8, 8), (5, 99, 1, 5),
                                            (20, 99, 8, 24), (32, 99, 8, 32)]
)  # fmt: skip
def test_slots_are_no_more_than_rollouts_and_whole_on_each_device(most, rollouts, shards, slots):
  assert whole_slots(most, rollouts, shards) == slots


def test_stdout_holds_nothing_but_json(folder, monkeypatch, capsys, one_device):
  stdin = io.TextIOWrapper(io.BytesIO(b'{"prompt": "1+2="}\n\n{"prompt": "3+4="}'))
  monkeypatch.setattr(sys, "stdin", stdin)
  sample(Options(folder=str(folder), prompts="-", out="-", max_new_tokens=4))
  shown = capsys.readouterr()
  assert [json.loads(line)["prompt_index"] for line in shown.out.splitlines()] in ([0, 1], [1, 0])
  assert "2 rollouts" in shown.err


def as_a_shell_sees_it(*arguments: str) -> subprocess.CompletedProcess:
  command = [sys.executable, "-m", "grpo_jax.sample", *arguments]
  return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_bad_input_exits_with_two(folder):
  done = as_a_shell_sees_it(f"--folder={folder}", "--prompt=1+2=", "--prompts=x.jsonl")
  assert (done.returncode, len(done.stderr.strip().splitlines())) == (2, 1), done.stderr


@pytest.mark.slow
def test_flags_arrive(folder):
  arguments = ("--prompt=1+2=", "--samples=2", "--max_new_tokens=3", "--top_k=1")
  done = as_a_shell_sees_it(f"--folder={folder}", *arguments)
  assert done.returncode == 0, done.stderr
  assert done.stdout.count("asked 1+2=") == 2
  assert done.stdout.count("mean log-prob 0.000") == 2, "one token has all the mass"
