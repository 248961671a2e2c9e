"""Deterministic code only: no I/O, no clock, no agent. See ``session.py``."""
