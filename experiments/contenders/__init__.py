"""What bench_sampling.py compares: one worker process a code base, all asked the same way."""
