"""Perdure's store behind the interfaces of other frameworks. Each has a package of its own.

None of them is imported by the runtime, and what they need is installed by whoever uses them.
"""
