"""The service face of Perdure: one ``Runner`` over Temporal and the store."""
