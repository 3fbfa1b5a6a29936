"""What makes the saved model folder at home in other tools: padded inputs, processors, heads and the folder's files."""
