"""Benchmarks that print ratios, each measured side by side in one run; RESULTS.md holds what they printed."""
