"""Whether a challenger becomes the champion: the gate, its notices, warm starts."""
