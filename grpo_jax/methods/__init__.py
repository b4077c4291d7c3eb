"""The choices that tell one paper from another: small pure functions in numpy, without jax.

Three slots of the loop live here: which problems (select.py), how many rollouts each (allocate.py)
and which finished rollouts learn (keep.py); each file begins with the choice that does nothing
special. What the papers put there has a file of its own, and all read one ledger.
"""
