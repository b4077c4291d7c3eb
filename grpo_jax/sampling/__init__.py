"""Completions from prompts: prefill, then decode slots over a KV cache that refill."""
