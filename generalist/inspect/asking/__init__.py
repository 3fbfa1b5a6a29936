"""What analyses that touch the input share: records as one pass, their tokens disturbed, and where each token lies."""
