"""Questions: where they come from, how they are split, what must hold of them."""
