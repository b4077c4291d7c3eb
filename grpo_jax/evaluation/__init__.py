"""How good is a model on a benchmark: the sets, what was asked and judged, and what it adds up to.

  benchmarks   which sets, under which prompt and decoding, and is this file really that set
  samples      a line of JSON for every judged completion
  scores       from judged completions to numbers
  statistics   the formulas: standard errors, pass@k, maj@k, AES, paired bootstrap
  tolerance    answers that need not be exact, where a set says so
  report       the tables a person reads
"""
