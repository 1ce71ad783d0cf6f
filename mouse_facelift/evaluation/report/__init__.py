"""compare.html: one self-contained page that says what to train next, and on what that rests."""
