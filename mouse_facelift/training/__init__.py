"""One training loop for both trainers: checkpoints, resume, logging."""
