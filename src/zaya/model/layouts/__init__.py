"""Published checkpoint layouts: their names and configuration, to ours and back."""
