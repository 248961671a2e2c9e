"""google-adk's JSON and the store's records, for those who do not have google-adk.

The services for google-adk (``integrations/google_adk``) and the gateway's ADK routes write and
read the same log. What they must agree on is here: which events google-adk sees, under what
names state is kept, and what bytes an artifact is. It needs google-genai, of any release that
either of the two has, and nothing of google-adk.
"""

from __future__ import annotations
