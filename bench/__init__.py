"""Benchmarks, each a script: what a turn costs."""
