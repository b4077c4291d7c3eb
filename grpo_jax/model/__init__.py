"""Qwen3: its configuration, the one module, weights on disk, and where arrays live on devices."""
