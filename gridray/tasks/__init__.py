"""What is controlled and what it costs."""
