"""Completions from prompts: prefill, then one compiled decode loop over a KV cache."""
