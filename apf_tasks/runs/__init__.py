"""A pipeline run as a whole: what names its experiment, its record, a comparison with others, a repetition."""
