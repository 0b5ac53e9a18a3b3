"""Contact: the hotline, and what happened between us and a customer."""
