"""The learning half of a step: advantages, the surrogate, and the jitted update."""
