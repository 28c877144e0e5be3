"""Candidates: the interface to ask them, and what is known of them."""
