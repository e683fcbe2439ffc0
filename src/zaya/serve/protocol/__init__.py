"""What clients send: untrusted bytes become checked records here, and nowhere else."""
