"""What the benchmarks compare: one worker process a code base, all asked the same way."""
