"""Training the same model in several ways at once, a few steps in turn, and telling how the ways differ."""
