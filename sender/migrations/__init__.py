"""The outbox's tables, release by release."""
