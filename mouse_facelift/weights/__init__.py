"""The published weights: where they come from, fetching them, and whether they are whole."""
