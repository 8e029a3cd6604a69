"""What a run would take, before it runs: stages, steps, disk, time, memory."""
