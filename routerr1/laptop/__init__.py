"""Real models on this machine: servers for GGUF files, desks with notes, and their weights."""
