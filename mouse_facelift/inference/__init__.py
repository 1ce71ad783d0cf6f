"""From views to Gaussians, renders and metrics."""
