"""Recordings to samples: exact cameras, warped pixels, measured quality."""
