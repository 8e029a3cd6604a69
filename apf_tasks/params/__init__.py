"""What a user may write in a params file, as one class per section. `experiment.Params` is the whole file."""
