"""Training with Lightning: data, tasks and callbacks."""
