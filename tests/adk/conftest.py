"""``suite`` runs in google-adk's own environment, started by ``test_google_adk.py``; not here."""

from __future__ import annotations

import os

collect_ignore = [] if "PERDURE_TEST_POSTGRES" in os.environ else ["suite"]
