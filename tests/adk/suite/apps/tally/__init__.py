"""An app for google-adk's own API server, to compare ours with."""

from . import agent as agent
