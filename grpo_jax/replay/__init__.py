"""Rollouts kept for later steps, in device memory."""
