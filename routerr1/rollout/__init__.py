"""One loop that plays a question, and the generators it drives."""
