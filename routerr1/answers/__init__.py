"""Answers: the short answer in a reply, and whether an answer is right."""
