"""What a run starts from: an earlier model's weights, or two towers that it grows."""
