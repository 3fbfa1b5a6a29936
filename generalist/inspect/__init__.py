"""What goes on inside a trained model while it answers: analyses that look on through taps, by an explicit table."""
