"""For a user's whole model, linen or NNX: its batch statistics anew, its batch norms folded, a table of its norms."""
