"""A pipeline run as a whole: its record, a comparison with others, a repetition."""
