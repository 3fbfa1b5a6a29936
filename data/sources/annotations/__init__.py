"""What annotation tools write of objects in pictures: ids, names, outlines."""
