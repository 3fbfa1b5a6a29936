"""From records to batches: splits, order, schedule, memory, the resumable stream."""
