"""The database and the blobs. Nothing outside this room writes SQL or opens a blob.

Start at :class:`storage.sessions.SessionStore`. A write of a session follows one rule: lock
the session's row, decide, write, bump the row, all in one transaction. The log is
append-only; the projection in the session's row says which part of it is live.
"""
