"""RevivaTech's side over HTTP, on port 3010: integration API, the outbox's own door, dashboard, metrics.

Needs the extra `dashboard`; nothing else of the sender imports it, and it never runs a relay.
"""
