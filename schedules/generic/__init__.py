"""Rules that hold on any CPU with vector registers."""
