"""Schedule rules by target. A rule returns a scheduled function or None: "not mine"."""
