"""What every room uses: errors, constants, and the table of old names."""
