"""Films: frames of one size, their tensors in other tools' form, their tokens on the device."""
