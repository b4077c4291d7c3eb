"""The choices that tell one paper from another: small pure functions in numpy, without jax.

Each file is one slot of the loop; the first choice in it is the one that does nothing special.
"""
