"""What a command says of itself."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
  "command, flag, told",
  [
    ("train", "--workdir", "--config.section.key=value"),
    ("evaluate", "--samples", "python -m grpo_jax.evaluate --folder="),
    ("sample", "--slots", "Rollouts decoded together at most."),
    ("export", "--[no]best", "python -m grpo_jax.export --workdir="),
    ("profile_prompts", "--samples", "--config.section.key=value"),
  ],
)
def test_help_is_a_page_about_the_command_and_all_of_its_flags(command, flag, told):
  asked = [sys.executable, "-m", f"grpo_jax.{command}", "--help"]
  answer = subprocess.run(asked, capture_output=True, text=True)
  assert answer.returncode == 0, answer.stderr
  told_in = " ".join(answer.stdout.split())  # lines are broken anywhere
  assert f" {flag}: " in told_in and told in told_in
  assert "orbax" not in answer.stdout, "a library's flag"
