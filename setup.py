"""Installation: `pip install -e .` runs on CPU; extras bring accelerators, tests and tools."""

from setuptools import find_packages, setup

REQUIRED = [
  "jax>=0.10.2",
  "flax>=0.12.8",
  "optax>=0.2.8",
  "orbax-checkpoint>=0.12.8",
  "transformers>=5.23.0",  # tokenizers and their folders; its models only in tests
  "safetensors>=0.8.0",  # weights, read slice by slice
  "ml-collections>=1.1.0",  # configs
  "absl-py>=2.5.1",  # command lines
  "tensorflow-datasets>=4.9.10",  # problem sets; used without tensorflow
  "array-record>=0.8.6",  # the file format tfds can write without tensorflow
  "importlib-resources>=7.1.0",  # imported by tfds, which does not declare it
  "pyarrow>=26.0.1",  # problem sets published as parquet
  "math-verify>=0.9.0",  # symbolic fallback of the verifier, in a child process
  "numpy>=2.4.6",
  "rich>=15.0.0",  # the progress bar
  "tensorboardX>=2.6.5",  # event files without tensorflow
  "matplotlib>=3.11.2",  # the picture of a run
]

TEST = [
  "pytest>=9.2.0",
  "pytest-xdist>=3.8.0",  # two files at a time
  "hypothesis>=6.170.15",
  # The parity tests ask transformers itself. From Python 3.12 on they skip: install torch by hand.
  "torch==2.13.0; python_version < '3.12'",
]

setup(
  name="grpo_jax",
  version="0.1.0",
  description="GRPO with rollout replay for Qwen3, in JAX: which trick saves which rollouts?",
  license="Apache-2.0",
  python_requires=">=3.11",
  packages=find_packages(include=["grpo_jax", "grpo_jax.*"]),
  install_requires=REQUIRED,
  extras_require={
    "tpu": ["jax[tpu]>=0.10.2"],
    "cuda12": ["jax[cuda12]>=0.10.2"],
    "cuda13": ["jax[cuda13]>=0.10.2"],
    "test": TEST,
    "dev": [*TEST, "ruff>=0.17.5"],
  },
)
