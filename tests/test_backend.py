"""What is set before jax starts, and that a user's own setting stays."""

import pytest

from grpo_jax import backend

LATENCY = "--xla_gpu_enable_latency_hiding_scheduler"


@pytest.mark.parametrize(
  ("given", "expected"),
  [
    ({}, {"XLA_FLAGS": f"{LATENCY}=true", "XLA_CLIENT_MEM_FRACTION": backend.GPU_MEMORY}),
    ({"XLA_FLAGS": "--xla_a=1"}, {"XLA_FLAGS": f"--xla_a=1 {LATENCY}=true"}),
    ({"XLA_FLAGS": f"{LATENCY}=false"}, {"XLA_FLAGS": f"{LATENCY}=false"}),
    ({"XLA_CLIENT_MEM_FRACTION": "0.5"}, {"XLA_CLIENT_MEM_FRACTION": "0.5"}),
    ({"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.5"}, {"XLA_CLIENT_MEM_FRACTION": None}),
  ],
)
def test_what_the_user_has_set_stays(monkeypatch, given, expected):
  environment = {"HOME": "/home/nobody"} | given
  monkeypatch.setattr(backend.os, "environ", environment)
  monkeypatch.setattr(backend.jax.config, "update", lambda *_: None)
  backend.configure()
  assert {name: environment.get(name) for name in expected} == expected


def test_a_cache_folder_of_the_user_stays(monkeypatch):
  before = backend.jax.config.jax_compilation_cache_dir
  assert before, "the tests have one of their own"
  monkeypatch.setattr(backend.os, "environ", {})
  backend.configure()
  assert backend.jax.config.jax_compilation_cache_dir == before
