"""A running model's side of the history: views, and differences between versions."""
