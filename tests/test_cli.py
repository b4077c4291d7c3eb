"""What a command says of itself."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
  "command, flag, told",
  [
    ("train", "--workdir", "--config.section.key=value"),
    ("evaluate", "--samples", "python -m grpo_jax.evaluate --folder="),
    ("sample", "--slots=32", "Rollouts decoded together at most."),
    ("export", "--best=False", "python -m grpo_jax.export --workdir="),
    ("profile_prompts", "--samples=8", "--config.section.key=value"),
  ],
)
def test_help_is_a_page_about_the_command_and_all_of_its_flags(command, flag, told):
  asked = [sys.executable, "-m", f"grpo_jax.{command}", "--help"]
  answer = subprocess.run(asked, capture_output=True, text=True)
  assert answer.returncode == 0, answer.stderr
  assert f"  {flag}\n" in answer.stdout and told in answer.stdout
  assert "orbax" not in answer.stdout, "a library's flag"
  assert max(map(len, answer.stdout.splitlines())) <= 100
