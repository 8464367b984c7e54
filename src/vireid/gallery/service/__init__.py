"""The service: searches over HTTP, the page for people, tokens, limits, the audit log and feedback."""
