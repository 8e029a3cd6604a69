"""The file formats of corpora: one small module per format, from the text of a file to a `Table`."""
