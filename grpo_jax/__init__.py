"""grpo_jax: GRPO with rollout replay for Qwen3, in JAX. Start reading at `grpo_jax/train.py`."""
