"""Runs programs that a model wrote where they can do no harm; only the standard library.

  walls       namespaces, an empty root, limits: what keeps a program in
  supervisor  the process beside a program: starts it, feeds it, watches it, reports on it
  inside      the process of a program that reads stdin and writes stdout
  serve       the process of a program whose functions are called by tests
  asserts     runs those tests, in the supervisor: the program never runs in their process
  wire        how plain values cross from one to the other

A supervisor is a fresh interpreter that knows this folder as the package `jail`, which saves the
import of all of grpo_jax; hence the relative imports.
"""
