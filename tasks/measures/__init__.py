"""What is kept of every answer, and the measures that follow."""
